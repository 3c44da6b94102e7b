"""What a verifier answers: a decision, and the denial that it raises.

One decision, three readers: `str(decision)` for the operator, `decision.for_model()` for the agent
that was refused, `decision.as_dict()` for machines (spec, "Verification").

The rules of this file:

- The plan makes a decision (`plan.py`), `effects.py` may turn it into a denial, and nobody else
  makes one. An adapter's own denial goes through the plan as well.
- Nothing here decides, reads a clock, or asks a store. No text of a token and no key is kept, and
  no `repr` shows one.
- A decision is a value: it can be kept and compared, and allows nothing by itself.
- Words for people are loaded when somebody asks for them: a program that only checks never does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    TypeAlias,
)

import msgspec
from msgspec import structs

from captoken._format.errors import CaptokenError
from captoken._format.parts import RawCaveat
from captoken._format.root import RootRecord
from captoken._format.spelling import escape, spelled_time
from captoken._language.access import Access, Caller
from captoken._language.link import Actor
from captoken._language.reasons import DENIALS, PLAN, Kind, Refusal
from captoken.stores.ports import Reservation, Use

if TYPE_CHECKING:
    from captoken._verification.grant import Grant

Effect: TypeAlias = Use | Reservation  # what has to be committed for an answer to stand
Refusals: TypeAlias = tuple[Refusal, ...]


class Step(msgspec.Struct, frozen=True):
    """One step of the plan, numbered from 1, with what came of it.

    For whoever shows how a decision came about. `nothing to check` is a step that this question did
    not need, as step 7 where no overlay is loaded. It is no failure, and no promise either.
    """

    number: int
    name: str  # as the table of the spec has it
    outcome: Literal[
        "held",
        "failed",
        "not reached",
        "nothing to check",
    ]
    detail: str = ""  # the first refusal of a step that failed, for people


class Attribution(msgspec.Struct, frozen=True):
    """Who is behind a token whose signature held.

    The plan makes one for a denial and for a dry run, which have no grant to say it. A value, free
    to share. `issued` is the issuer's word. The names in `chain` after the first are what holders
    said, each with its basis (spec, "Lineage").
    """

    issued: RootRecord
    chain: tuple[Actor, ...]
    task: str
    link_ids: tuple[str, ...] = ()  # the public name of each link
    caveats: tuple[RawCaveat, ...] = ()  # the links as they travel, and a third party's box


def _without_id(decision: Decision) -> tuple[Any, ...]:
    """What a decision says, in the order of its fields: the id is the last."""
    return structs.astuple(decision)[:-1]


class Decision(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a verifier decided. True if allowed.

    `code` is `allowed`, or the first failure in the order of the plan. `refusals` has that failure
    first, then all others of the same step. `grant` is there only if allowed, and not from
    `explain`; in a coroutine, use its `grant.awaited`.

    Only a verifier makes one. It is true for the moment `now` only: to ask again, ask the grant. Do
    not log a decision itself, since it contains the values of the access. Log `summary` or
    `as_dict()`, which contain none.

        decision = verifier.check(text, access)
        if not decision:
            log.warning("%s", decision.summary)
    """

    code: str
    now: int  # seconds since the epoch, as the verifier's clock had it

    # What was asked: None for the access asks whether the token stands at all.
    access: Access | None = None
    caller: Caller | None = None

    # What is answered. `who` is read as `attribution`.
    grant: Grant | None = None
    who: Attribution | None = None
    refusals: Refusals = ()
    step: int = len(PLAN) + 1  # the step that failed, or one past the last

    # How the decision came about.
    dry: bool = False  # decided by `explain`: the stores were looked at, and nothing was committed
    effects: tuple[Effect, ...] = ()  # what has to be committed for the answer to stand
    overlaid: bool = False  # was there an overlay to ask?
    leeway: int = 0  # how much clocks may differ, in seconds

    # The id of a denial that a verifier answered with, the same in answer, log and trail.
    # Random, and no part of what was decided. Empty for what was allowed, and for a dry run.
    id: str = ""

    def __eq__(self, other: object) -> bool:
        """Do both say the same? Their ids do not matter."""
        if type(other) is not Decision:
            return NotImplemented
        return _without_id(self) == _without_id(other)

    # The opposite of `==`: a struct has one of its own, which would compare all its fields.
    __ne__ = object.__ne__

    def __bool__(self) -> bool:
        """True for `allowed`, and for no other code."""
        return self.code == "allowed"

    @property
    def attribution(self) -> Attribution | Grant | None:
        """Who is behind the token, allowed or not: `issued`, `chain`, `task`.

        None if the signature was not verified: until then, anybody could have written what the
        token says (9.5). Costs nothing for a denial. For an allowed decision, the chain is read
        when you ask for it.
        """
        return self.who if self.who is not None else self.grant

    def __repr__(self) -> str:
        return f"<Decision {self.summary}>"

    @property
    def steps(self) -> tuple[Step, ...]:
        """The outcome of each step of the plan, from 1 to 11 (spec, "Verification").

        Computed when you ask for it: a decision keeps only the number of the step that failed.
        """
        return tuple(self._step(number, name) for number, name in enumerate(PLAN, 1))

    def _step(self, number: int, name: str) -> Step:
        """What came of one step, as far as the decision itself says."""
        if number > self.step:
            return Step(number, name, "not reached")
        if number == self.step:
            return Step(number, name, "failed", self.refusals[0].text)
        if number == 7 and not self.overlaid:
            return Step(number, name, "nothing to check", "no overlay is loaded")
        if number == 10 and not self._proven:
            return Step(number, name, "nothing to check", "no proof is asked for")
        if number == 11 and not self.effects:
            return Step(number, name, "nothing to check", "nothing to commit")
        if number == 11 and self.dry:
            return Step(number, name, "held", "looked at, not committed")
        return Step(number, name, "held")

    @property
    def _proven(self) -> bool:
        """Is a proof's one use among the effects?"""
        return any(isinstance(effect, Use) for effect in self.effects)

    @property
    def summary(self) -> str:
        """One line for a log: the code, and why. Escaped, and without values of arguments."""
        if self.refusals:
            return escape(f"{self.code}: {self.refusals[0].text}")
        return escape(f"{self.code}: {self._tried('a token')}")

    def _tried(self, without: str) -> str:
        """The access in a few words, or what to say where there is none."""
        return self.access.summary if self.access is not None else without

    @property
    def needed(self) -> dict[str, Any]:
        """The keywords of the smallest grant that would have permitted the access.

        For `Token.attenuate` or `Issuer.mint`, if you may grant more. Empty without an access. It
        contains values, so do not log it. It does not say that anybody ought to grant it.
        """
        return self.access.needed() if self.access is not None else {}

    def as_dict(self) -> dict[str, Any]:
        """The decision as JSON-able data, for machines.

        Times are in seconds since the epoch. Without the values of arguments and attributes, so
        that it may go to a log. It may not go to the client: it says what others hold. For a client
        there is `Denied.public`, for an agent `for_model`.
        """
        # Nothing that a stranger wrote: without a signature that holds, there is no `known`.
        known = self.attribution
        chain = known.chain if known else ()

        return {
            "allowed": bool(self),
            "code": self.code,
            "id": self.id or None,
            "now": self.now,
            "access": self.access.summary if self.access is not None else None,
            "refusals": [refusal.as_dict() for refusal in self.refusals],
            "subject": known.issued.subject if known else None,
            "task": known.task if known else None,
            "token_id": known.issued.token_id if known else None,
            "chain": [msgspec.structs.asdict(actor) for actor in chain],
            "steps": [msgspec.structs.asdict(step) for step in self.steps],
            "committed": not self.dry,
        }

    def __str__(self) -> str:
        """The whole decision for the operator, a fact a line: `report` without values."""
        return self.report()

    def report(self, *, values: bool = False) -> str:
        """The whole decision for the operator: what came of it in one line, then a fact a line.

            denied argument refund.cents: 501 is more than 500, link 1 by orchestrator

        Without `values=True` it has no value of an argument or attribute, here `501 `: values may
        be private, and reports go to logs. It says what others may do: not for a client or a model.
        """
        # Escaped: what a holder or a caller wrote cannot begin a line of its own in a log.
        lines = [self.line(values=values)]
        lines += [f"  {label:<9}{escape(text)}" for label, text in self._lines()]
        return "\n".join(lines)

    def line(self, *, values: bool = False) -> str:
        """The first line of `report`: what was denied, why, and by whom; or what was allowed."""
        from captoken._verification.wording import told_to_operator

        if not self.refusals:
            return escape(f"allowed {self._tried('the token itself')}")
        return escape(f"denied {told_to_operator(self.refusals[0], self.access, values is True)}")

    def _lines(self) -> list[tuple[str, str]]:
        """The lines under the verdict: a label, and a text that is not escaped yet."""
        from captoken._verification.wording import place

        lines = self._who()
        lines.append(("tried", self._tried("no access: the token itself")))

        for count, refusal in enumerate(self.refusals):
            label = "refused" if count == 0 else "also"
            lines.append((label, f"{place(refusal)}: {refusal.text}"))

        needed = self._needed_text()
        if needed:
            lines.append(("needs", needed))

        how = ", a dry run" if self.dry else ""
        lines.append(("at", f"{spelled_time(self.now)}{how}"))
        return lines

    def _who(self) -> list[tuple[str, str]]:
        """Who is behind the token, each name with the basis on which it is known."""
        known = self.attribution
        if known is None:
            text = "unknown: nothing that this token says is vouched for by a signature"
            return [("who", text)]
        chain = " > ".join(f"{actor.name} ({actor.basis})" for actor in known.chain)
        return [
            ("who", f"{chain}, for {known.issued.subject}"),
            ("task", known.task),
            ("token", known.issued.token_id),
        ]

    def _needed_text(self) -> str:
        """What would have to be granted, where more rights would have helped.

        Empty where they would not: an expired token needs a new one, not a wider one.
        """
        from captoken._verification.wording import lacks_rights

        access = self.access
        if self or access is None or not lacks_rights(self.code, access):
            return ""

        links = [str(refusal.link) for refusal in self.refusals if refusal.link is not None]
        where = f" in link {', '.join(links)}" if links else ""
        return f"{access.needed_text()}{where}"

    def for_model(self, *, tell_limits: bool = False, declares: Collection[str] = ()) -> str:
        """What the agent may be told: the rule that was broken, whether a retry can help, who could
        grant it.

        Echoes only what the access itself stated, escaped and short. It has nothing from the token,
        nothing of other agents, and no way round: a denial must not become a channel for what
        others wrote. A denial that a stranger could cause says no more than that (24.14).

        `tell_limits=True` adds the bounds of a range that was missed, as `at most 500`. They are
        integers of the token, and nothing else of it is told. `declares` are the arguments that the
        server's own tool has: one that is missing is named only if it is among them.
        """
        from captoken._verification.wording import told_to_model

        if self:
            return "Allowed."
        return told_to_model(
            self.code,
            self.access,
            self.refusals,
            proven=self._proven,
            tell_limits=tell_limits is True,
            declares=declares,
        )


class Denied(CaptokenError):  # noqa: N818, the name reads as what it is
    """A verifier denied an access or a token.

    `decision` says all, for the operator. `public` is what a client may be told. An HTTP status
    follows from `kind`: `invalid` 401, `insufficient` 403, `proof` 401, `unavailable` 503 (24.13).

    Raised by `authorize`, `authenticate` and `reserve`, of both faces. `check` and `explain` never
    raise it: they hand back the decision. `str` of it is `decision.summary`, with the code in
    front.

        try:
            grant = verifier.authorize(text, access)
        except Denied as error:
            return status_of(error.kind), error.public
    """

    def __init__(self, decision: Decision) -> None:
        """Keep the decision, which must be a denial."""
        self.decision = decision
        self.code = decision.code
        super().__init__(decision.summary)

    @property
    def public(self) -> str:
        """A sentence that may go to a client: nothing of the token, nothing of what others may do.

        The same sentence for all that a stranger could cause (24.14). An agent learns more from
        `decision.for_model()`.
        """
        from captoken._verification.wording import told_to_client

        return told_to_client(self.code)

    @property
    def kind(self) -> Kind:
        """One of four words, from which an HTTP status follows (24.13)."""
        return DENIALS[self.code].kind
