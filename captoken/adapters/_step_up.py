"""Step-up: a person may allow after all what her own link refuses (spec 44.24).

    steps = StepUps()
    scope = steps.scope_for(denied.decision)    # what a client may ask her for; None: it is final

A guard that is told to asks its clients to send the person to the consent page again. What the
policy refuses is final, and so is what a holder's link refuses: no page could change that. Whoever
was handed a token asks its parent. So an agent that was turned cannot make pages open.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from time import monotonic
from typing import Any
from urllib.parse import urlencode

import msgspec

from captoken._format.parts import RawCaveat
from captoken._language.access import Access
from captoken._verification.decision import Decision
from captoken.adapters._scopes import KEYWORDS, MOST_RIGHTS, MOST_TEXT, rights_of

# So often a minute a task may ask its person.
MOST_PER_MINUTE = 3
_MINUTE = 60.0
_MOST_TASKS = 10_000

# What a person's own link can refuse, and what stands in it.
_CODES = frozenset(("table", "operation", "column", "tool"))
_RIGHTS = frozenset(KEYWORDS)

# What the service itself adds behind it, and what it gives once in a task.
_BEHIND = frozenset(("aud", "exp"))
_COUNTED = frozenset(("uses", "budget"))


class StepUps:
    """Says which denials a person can lift, and how often she is asked. For one event loop."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._asked: OrderedDict[tuple[str, str], tuple[float, ...]] = OrderedDict()

    def scope_for(self, decision: Decision, beside: Iterable[Access] = ()) -> str | None:
        """The scope to ask for, if a person's word would let the request through; else None.

        `beside`: the other accesses of the request. A scope that is returned counts as asked for.
        """
        scope = _scope(decision, beside)
        known = decision.attribution
        if scope is None or known is None:
            return None
        task = known.issued.subject, known.task
        now = self._clock()
        lately = tuple(one for one in self._asked.get(task, ()) if one > now - _MINUTE)
        if len(lately) >= MOST_PER_MINUTE:
            return None
        self._asked[task] = (*lately, now)
        self._asked.move_to_end(task)
        if len(self._asked) > _MOST_TASKS:
            self._asked.popitem(last=False)
        return scope


def steps_of(step_up: bool, metadata: object) -> StepUps | None:
    """What a guard needs that is told to step up; None for one that is not. Raises ValueError.

    `metadata`: where its clients learn whom to ask.
    """
    # `is True`: what only looks like a yes opens no page.
    if step_up is not True:
        return None
    if metadata is None:
        raise ValueError("step_up needs resource_metadata: clients ask the service that it names")
    return StepUps()


def is_liftable(decision: Decision, passed: Collection[str] = ()) -> bool:
    """Does a person's own link alone refuse it, to a token that is as the service gave it?

    `passed`: codes of refusals that do not matter, as of what a call could still state.
    """
    known = decision.attribution
    refusals = [refusal for refusal in decision.refusals if refusal.code not in passed]
    if known is None or not refusals:
        return False
    if any(refusal.link != 1 or refusal.code not in _CODES for refusal in refusals):
        return False
    return known.issued.ext.get("login:flow") == "consent" and _is_as_given(known.caveats)


def _scope(decision: Decision, beside: Iterable[Access]) -> str | None:
    """The grant and the rights of a request that the person's own link alone refuses, or None."""
    known, access = decision.attribution, decision.access
    if known is None or access is None or not is_liftable(decision):
        return None
    said = known.issued.ext
    by_column = decision.code == "column"
    # What is refused for want of columns is stated otherwise, and not allowed by anybody.
    if by_column and access.columns is None:
        return None
    rights = [right.text for right in rights_of((*beside, access), by_column=by_column)]
    scope = " ".join((str(said.get("policy:grant", "")), *rights))
    # It has to fit into the address that the client sends her to.
    is_short = len(rights) <= MOST_RIGHTS and len(urlencode({"scope": scope})) <= MOST_TEXT
    return scope if is_short and scope.isascii() and '"' not in scope else None


def _is_as_given(caveats: tuple[RawCaveat, ...]) -> bool:
    """Is it as the service gave it: the grant, her word, and then nothing but an end and a server?

    Who narrows a token before it is handed on need not say so. So one that was narrowed by anybody
    counts as handed on.
    """
    if len(caveats) < 2 or any(vid for _, vid in caveats[:2]):
        return False
    grant, word, *behind = (_keys(cid) for cid, vid in caveats if not vid)
    return grant.isdisjoint(_COUNTED) and word <= _RIGHTS and all(one <= _BEHIND for one in behind)


def _keys(cid: bytes) -> frozenset[str]:
    """The members of a link, which was read before."""
    said: dict[str, Any] = msgspec.json.decode(cid)
    return frozenset(said)
