"""Causes become entries of the overlay: once each, and only ever less than before.

Each act has the cause's own id, which the overlay keeps for a day after the entry ended or was
lifted (36.26). So an act that was done, and not noted before the process died, is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import msgspec

from captoken._format.errors import StoreError
from captoken._language.entries import Entry
from captoken.cli.reactions.rules import Rule
from captoken.cli.reactions.watching import Cause, Reactor
from captoken.control.operator import REACTION, Operator

# Opens the operator: anew for each round, so that a key that is gone is noticed.
Opening: TypeAlias = Callable[[], AbstractContextManager[Operator]]


# By whom an entry is, and on whom.
_Which: TypeAlias = tuple[str, tuple[tuple[str, Any], ...]]


class Acting:
    """Does what is due. `say` gets a line for each act, and `tell` what keeps it from acting."""

    def __init__(
        self,
        reactor: Reactor,
        opening: Opening,
        say: Callable[[str], None],
        tell: Callable[[str], None],
    ) -> None:
        self._say = say
        self._reactor = reactor
        self._opening = opening
        self._tell = tell
        self._rules = {rule.name: rule for rule in reactor.rules_of.rules}
        self._failed = ""

    def do_all(self) -> None:
        """Do what is due. What cannot be done now stays due.

        Raises what is no matter of trying again: KeyringError for a key that is gone, OverlayError
        for a store that went back.
        """
        due = self._reactor.due()
        if not due:
            return
        try:
            with self._opening() as operator:
                standing = {
                    _which(entry.by, msgspec.to_builtins(entry.select))
                    for entry in operator.entries()
                }
                for cause in due:
                    self._do(operator, cause, standing)
        except StoreError as error:
            if str(error) != self._failed:  # said once, and not at each look
                self._tell(f"not done yet, and tried again: {error}")
            self._failed = str(error)
            return
        self._failed = ""

    def _do(self, operator: Operator, cause: Cause, standing: set[_Which]) -> None:
        rule = self._rules.get(cause.rule)
        if rule is None:  # it was taken out of the file meanwhile
            self._reactor.done(cause, "dropped")
            return
        # What the rule has done to these stands still: a second entry would say the same.
        which = _which(by_of(rule), cause.select)
        if which in standing:
            self._reactor.done(cause, "found")
            return
        entry = act(operator, rule, cause, self._reactor.now or 0)
        # If the process dies here, the entry is there, and `once` finds it.
        self._reactor.done(cause, "done" if entry else "found")
        if entry:
            standing.add(which)
            self._say(line_of(cause))


def _which(by: str, select: Mapping[str, Any]) -> _Which:
    return by, tuple(sorted(select.items()))


def by_of(rule: Rule) -> str:
    """By whom the entries of a rule are."""
    return f"{REACTION}{rule.name}"


def act(operator: Operator, rule: Rule, cause: Cause, now: int) -> Entry | None:
    """Make the entry of a cause; None if there is one already. Raises what an Operator raises."""
    until = None if rule.lasts is None else now + rule.lasts
    given: dict[str, Any] = {**cause.select, **rule.caveats}
    why = f"{cause.why} ({said_of(cause)})"
    return operator.once(cause.id, by=by_of(rule), why=why, until=until, **given)


def said_of(cause: Cause) -> str:
    """Where a cause is, for people: who, how many records, and the last of them."""
    who = f"{cause.agent}, " if cause.agent else ""
    times = "1 record" if cause.count == 1 else f"{cause.count} records"
    return f"{who}{times}, the last is {cause.seq} of {cause.trail or 'the trail'}"


_DOES = {
    "revoke": "revokes",
    "narrow": "narrows",
    "end": "ends",
    "alert": "tells of",
    "most": "has done enough, and tells of",
    "late": "came too late for",
}


def line_of(cause: Cause) -> str:
    """A cause on one line. Not escaped."""
    if cause.does == "trail":
        return cause.why
    on = ", ".join(f"{key} {value}" for key, value in cause.select.items())
    return f"{cause.rule} {_DOES[cause.does]} {on}: {cause.why} ({said_of(cause)})"
