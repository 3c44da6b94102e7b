"""A verifier's decision, and the exception for a denial.

A decision has three readers: `str(decision)` is for the operator, `decision.for_model()` for the
agent that was denied, and `decision.as_dict()` for machines (spec, "Verification").

The rules of this file:

- The plan makes a decision (`plan.py`), and `effects.py` may turn it into a denial. Nobody else
  makes one. An adapter's own denial goes through the plan as well.
- Nothing here decides, reads a clock, or asks a store. No text of a token and no key is kept, and
  no `repr` shows one.
- A decision is a value. You can keep and compare it; it allows nothing by itself.
- The texts for people are loaded when somebody asks for them, so a program that only checks never
  loads them.
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
from captoken._language.access import Access, Asks, Caller
from captoken._language.link import Actor
from captoken._language.reasons import DENIALS, PLAN, Kind, Refusal
from captoken.stores.ports import MarkedStep, Reservation, Spend, Use

if TYPE_CHECKING:
    from captoken._verification.grant import Grant

# An effect to commit before the answer is valid.
Effect: TypeAlias = Use | Spend | MarkedStep | Reservation
Refusals: TypeAlias = tuple[Refusal, ...]


class Step(msgspec.Struct, frozen=True):
    """One step of the plan, numbered from 1, and its outcome.

    For showing how a decision was made. `nothing to check` marks a step that this question did not
    need, such as step 7 without an overlay. It is neither a failure nor a promise.
    """

    number: int
    name: str  # the name in the table of the spec
    outcome: Literal[
        "held",
        "failed",
        "not reached",
        "nothing to check",
    ]
    detail: str = ""  # the first refusal of a step that failed, for people


class Attribution(msgspec.Struct, frozen=True):
    """Who is behind a token whose signature was verified.

    The plan makes one for a denial and for a dry run, which have no grant. It is a value, free to
    share. The issuer wrote `issued`. Holders wrote the names in `chain` after the first one; each
    has its basis (spec, "Lineage").
    """

    issued: RootRecord
    chain: tuple[Actor, ...]
    task: str
    link_ids: tuple[str, ...] = ()  # the public id of each link
    caveats: tuple[RawCaveat, ...] = ()  # the links as they travel, with third-party tickets


def _without_id(decision: Decision) -> tuple[Any, ...]:
    """The content of a decision: its fields in order, without the last one, the id."""
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
    now: int  # the time of the verifier's clock, in seconds since the epoch

    # The question. Without an access, it asks only whether the token is valid.
    access: Access | None = None
    caller: Caller | None = None

    # The answer. Read `who` through `attribution`.
    grant: Grant | None = None
    who: Attribution | None = None
    refusals: Refusals = ()
    step: int = len(PLAN) + 1  # the step that failed, or one past the last

    # How the decision was made.
    dry: bool = False  # made by `explain`: the stores were read, and nothing was committed
    effects: tuple[Effect, ...] = ()  # the effects to commit before the answer is valid
    overlaid: bool = False  # whether there was an overlay to ask
    leeway: int = 0  # by how many seconds clocks may differ

    # The consents that would let it through: see `request`.
    asks: tuple[Asks, ...] = ()

    # The id of a denial, the same in answer, log and trail. It is random and not part of the
    # decision's content. Empty for an allowed decision and for a dry run.
    id: str = ""

    def __eq__(self, other: object) -> bool:
        """True if both have the same content. Their ids make no difference."""
        if type(other) is not Decision:
            return NotImplemented
        return _without_id(self) == _without_id(other)

    # The opposite of `==`. The struct's own method would compare all fields.
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
        """The outcome of one step, as far as the decision shows it."""
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
        """True if the effects include the use of a proof."""
        return any(isinstance(effect, Use) for effect in self.effects)

    @property
    def summary(self) -> str:
        """One line for a log: the code, and why. Escaped, and without values of arguments."""
        if self.refusals:
            return escape(f"{self.code}: {self.refusals[0].text}")
        return escape(f"{self.code}: {self._tried('a token')}")

    def _tried(self, without: str) -> str:
        """The access in a few words, or a text for a decision without one."""
        return self.access.summary if self.access is not None else without

    @property
    def needed(self) -> dict[str, Any]:
        """The keywords of the smallest grant that would have permitted the access.

        Use them in `Token.attenuate` or `Issuer.mint`, if you want to grant more. Empty without an
        access. It contains values, so do not log it. It does not recommend that anybody grants it.
        """
        return self.access.needed() if self.access is not None else {}

    def request(self) -> str | None:
        """What to ask a person, if a consent would let the access through; else None.

        A text for `captoken.consent.Approver`: the facts as they were judged, with all values. So
        it goes to the person who is asked, and not to a log. Nobody has to keep it secret for the
        token's sake: it holds no part of one.
        """
        known = self.attribution
        if not self.asks or known is None:
            return None
        from captoken._verification.consents import written_request

        facts = {
            "agent": known.chain[-1].name,
            "at": self.now,
            "chain": [[actor.name, actor.basis] for actor in known.chain],
            "subject": known.issued.subject,
            "task": known.task,
            "token": known.issued.token_id,
        }
        return written_request(self.asks, facts)

    def as_dict(self) -> dict[str, Any]:
        """The decision as JSON-compatible data, for machines.

        Times are in seconds since the epoch. Values of arguments and attributes are left out, so it
        may go to a log. Do not send it to the client, because it says what others hold. Send a
        client `Denied.public`, and an agent `for_model`.
        """
        # Contains nothing that a stranger wrote: `known` is None unless the signature is valid.
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
        """The whole decision for the operator, one fact a line: `report` without values."""
        return self.report()

    def report(self, *, values: bool = False) -> str:
        """The whole decision for the operator: the outcome in one line, then one fact a line.

            denied argument refund.cents: 501 is more than 500, link 1 by orchestrator

        Without `values=True` it contains no value of an argument or attribute (here `501 `),
        because values may be private, and reports go to logs. It says what others may do, so never
        show it to a client or a model.
        """
        # Escaped, so that text by a holder or a caller cannot start a new line in a log.
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
        """Who is behind the token: each name with the basis on which it is known."""
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
        """The rights that would have been needed, if more rights would have helped.

        Empty if they would not: an expired token needs a new token, not more rights.
        """
        from captoken._verification.wording import lacks_rights

        access = self.access
        if self or access is None or not lacks_rights(self.code, access):
            return ""

        links = [str(refusal.link) for refusal in self.refusals if refusal.link is not None]
        where = f" in link {', '.join(links)}" if links else ""
        return f"{access.needed_text()}{where}"

    def for_model(self, *, tell_limits: bool = False, declares: Collection[str] = ()) -> str:
        """What the agent may be told: the broken rule, whether to retry, and who could grant it.

        It repeats only what the access itself stated, escaped and short. It contains nothing from
        the token, nothing about other agents, and no workaround: a denial must not carry text that
        others wrote to the model. A denial that a stranger could cause says no more than that
        (24.14).

        `tell_limits=True` adds the limits of a range that was missed, such as `at most 500`. They
        are the only content of the token that it tells, and they are integers. `declares` names the
        arguments of the server's own tool: a missing argument is named only if it is among them.
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

    `decision` has everything, for the operator. `public` may be sent to a client. `kind` decides
    the HTTP status: `invalid` 401, `insufficient` 403, `proof` 401, `unavailable` 503 (24.13).

    `authorize`, `authenticate` and `reserve` raise it, in both faces. `check` and `explain` never
    raise it; they return the decision. `str(error)` is `decision.summary`.

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
        """A sentence that you may send to a client.

        It contains nothing from the token, and nothing about what others may do. All denials that a
        stranger could cause have the same sentence (24.14). `decision.for_model()` tells an agent
        more.
        """
        from captoken._verification.wording import told_to_client

        return told_to_client(self.code, self.decision.refusals)

    @property
    def kind(self) -> Kind:
        """One of four words that decide the HTTP status (24.13)."""
        return DENIALS[self.code].kind
