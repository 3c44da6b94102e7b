"""The outcome of a verification, its parts in order, and its renderings (spec, "Verification").

One decision, three readers: `str(decision)` for the operator, `decision.for_model()` for the agent that was refused,
`decision.as_dict()` for machines. None of them shows a token, a key, or the value of an argument or attribute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from captoken._format.errors import CaptokenError
from captoken._format.root import RootRecord
from captoken._format.spelling import escape, spelled_time
from captoken._language.access import Access, Caller
from captoken._language.lineage import Actor
from captoken._language.reasons import CODES, Kind

if TYPE_CHECKING:
    from captoken._verification.grant import Grant

# The plan: what is checked, in this order. The first step that fails gives the decision its code.
PLAN: tuple[str, ...] = (
    "sizes and counts",
    "strict parse",
    "root record and key",
    "chain of signatures",
    "links can be read",
    "lineage",
    "overlay",
    "caveats",
    "caller",
    "proof",
    "effects",
)

Outcome = Literal["held", "failed", "not reached", "nothing to check"]


class Refusal(msgspec.Struct, frozen=True):
    """A reason and where it stands: `link` is None for what no link says; `added_by` is who held the token then."""

    code: str
    text: str
    link: int | None = None
    added_by: str | None = None


class Step(msgspec.Struct, frozen=True):
    """One step of the plan, numbered from 1."""

    number: int
    name: str
    outcome: Outcome
    detail: str = ""


class Attribution(msgspec.Struct, frozen=True):
    """Who is behind a token whose signature held."""

    issued: RootRecord
    chain: tuple[Actor, ...]
    task: str
    link_ids: tuple[str, ...] = ()  # of each link, by its public name
    caveats: tuple[
        tuple[bytes, bytes], ...
    ] = ()  # the links as they travel: what each says, and a third party's box


_NEEDS = frozenset(
    ("table", "operation", "tool", "argument", "domain")
)  # where a grant can be what is missing


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a verifier decided. True if allowed.

    `code` is `allowed`, or the first failure in the order of the plan; `refusals` has that one first, then whatever
    else would have had to hold. `grant` is there only if allowed; `attribution` once the signature held, allowed or not.
    """

    code: str
    now: int  # seconds since the epoch, as the verifier's clock had it
    access: Access | None = None
    caller: Caller | None = None
    granted: Any = None
    known: Any = None
    refusals: tuple[Refusal, ...] = ()
    step: int = len(PLAN) + 1  # of the plan: the one that failed
    dry: bool = False  # decided by `explain`: nothing was committed
    effects: tuple[
        Any, ...
    ] = ()  # what has to be committed for the answer to stand: a proof's one use, a reservation
    overlaid: bool = False  # was there an overlay to ask?
    leeway: int = 0  # of the verifier, in seconds

    def __bool__(self) -> bool:
        return self.code == "allowed" and self.granted is not None

    @property
    def grant(self) -> Grant | None:
        """The grant, if allowed; not from a dry run that left something uncommitted."""
        granted: Grant | None = self.granted
        return None if self.dry and self.effects else granted

    @property
    def attribution(self) -> Attribution | Grant | None:
        """Who is behind the token, allowed or not, once its signature held: `issued`, `chain`, `task`."""
        known: Attribution | Grant | None = self.known
        return known

    def __repr__(self) -> str:
        return f"<Decision {self.summary}>"

    @property
    def steps(self) -> tuple[Step, ...]:
        """The plan with what came of each step."""
        made = []
        for number, name in enumerate(PLAN, 1):
            if number == self.step:
                made.append(Step(number, name, "failed", self.refusals[0].text))
            elif number > self.step:
                made.append(Step(number, name, "not reached"))
            elif number == 7 and not self.overlaid:
                made.append(Step(number, name, "nothing to check", "no overlay is loaded"))
            elif number == 10 and not any(hasattr(effect, "entry") for effect in self.effects):
                made.append(Step(number, name, "nothing to check", "no proof is asked for"))
            elif number == 11 and not self.effects:
                made.append(Step(number, name, "nothing to check", "nothing to commit"))
            elif number == 11 and self.dry:
                made.append(Step(number, name, "not reached", "not committed"))
            else:
                made.append(Step(number, name, "held"))
        return tuple(made)

    @property
    def summary(self) -> str:
        """One line: the code, and why."""
        tried = self.access.summary if self.access is not None else "a token"
        return escape(f"{self.code}: {self.refusals[0].text if self.refusals else tried}")

    @property
    def needed(self) -> dict[str, Any]:
        """The keywords of the smallest grant that would have permitted the access. With values: not for logs."""
        return self.access.needed() if self.access is not None else {}

    def as_dict(self) -> dict[str, Any]:
        """The decision as JSON-able data, for machines; without the values of arguments and attributes."""
        known = self.attribution
        return {
            "allowed": bool(self),
            "code": self.code,
            "now": self.now,
            "access": self.access.summary if self.access is not None else None,
            "refusals": [msgspec.structs.asdict(refusal) for refusal in self.refusals],
            "subject": known.issued.subject if known else None,
            "task": known.task if known else None,
            "token_id": known.issued.token_id if known else None,
            "chain": [msgspec.structs.asdict(actor) for actor in known.chain] if known else [],
            "steps": [msgspec.structs.asdict(step) for step in self.steps],
            "committed": not self.dry,
        }

    def __str__(self) -> str:
        lines = [f"{'ALLOWED' if self else 'DENIED '}  {self.code}"]
        lines += [f"  {label:<9}{escape(text)}" for label, text in self._lines()]
        return "\n".join(lines)

    def _lines(self) -> list[tuple[str, str]]:
        known, lines = self.attribution, []
        if known is None:
            lines.append(
                ("who", "unknown: nothing that this token says is vouched for by a signature")
            )
        else:
            chain = " > ".join(f"{actor.name} ({actor.basis})" for actor in known.chain)
            lines.append(("who", f"{chain}, for {known.issued.subject}"))
            lines.append(("task", known.task))
            lines.append(("token", known.issued.token_id))
        lines.append(
            (
                "tried",
                self.access.summary if self.access is not None else "no access: the token itself",
            )
        )
        for count, refusal in enumerate(self.refusals):
            lines.append(("refused" if count == 0 else "also", f"{place(refusal)}: {refusal.text}"))
        if self.access is not None and (
            self.code in _NEEDS or (self.code == "column" and self.access.columns is not None)
        ):
            links = [refusal.link for refusal in self.refusals if refusal.link is not None]
            where = f" in link {', '.join(map(str, links))}" if links else ""
            lines.append(("needs", f"{self.access.needed_text()}{where}"))
        lines.append(("at", spelled_time(self.now) + (", a dry run" if self.dry else "")))
        return lines

    def for_model(self) -> str:
        """What the agent may be told: the rule that was broken, whether a retry can help, and who could grant it.

        Echoes only what the access itself stated, escaped and short: nothing from the token, nothing of other agents,
        no way round. A denial that a stranger could cause says no more than that.
        """
        if self:
            return "Allowed."
        rule, retry = _FOR_MODEL.get(self.code, ("The credential was not accepted.", _REPLACE))
        if (
            "{" in rule and self.access is None
        ):  # it could not be read as an access, or is none that any token permits
            rule, retry = "Not permitted: a request of this kind.", _REWRITE
        return rule.format(**self._stated()) + " " + retry

    def _stated(self) -> dict[str, str]:
        access = self.access
        facts = {"table": None, "operation": None, "tool": None} if access is None else {
            "table": access.table, "operation": access.operation, "tool": access.tool
        }  # fmt: skip
        return {
            key: escape(value or "?")[:80].replace("{", "(").replace("}", ")")
            for key, value in facts.items()
        }


def place(refusal: Refusal) -> str:
    """Where a refusal stands, for people."""
    if refusal.link is None:
        return "the verifier"
    return f"link {refusal.link}, added by {refusal.added_by}"


_ASK = "Retrying will not help. Whoever gave you this task can grant more; do not look for another way."
_REPLACE = (
    "Retrying with the same credential will not help. Ask whoever gave you this task for a new one."
)
_REWRITE = "The same request will be refused again. Check how it is spelled, or ask whoever gave you this task."
_ASK_LESS = "The same request will be refused again; one that asks for less may be permitted."
_AGAIN = "A retry in which the credential is presented again can help."
_LATER = "A retry can help later."
_PROVE = "A retry with a fresh proof, made for this very request, can help."

_FOR_MODEL: dict[str, tuple[str, str]] = {
    "missing_discharge": (
        "The credential needs a consent that did not come with it.",
        "A retry can help once it is given.",
    ),
    "stale_grant": ("The credential was checked too long ago.", _AGAIN),
    "expired": ("The credential has expired.", _REPLACE),
    "not_yet_valid": ("The credential is not valid yet.", _LATER),
    "wrong_audience": ("The credential is for another server.", _REPLACE),
    "unaddressed": ("The credential is not addressed to this server.", _REPLACE),
    "table": ("Not permitted: table {table} is not among the tables of this task.", _ASK),
    "operation": ("Not permitted: operation {operation} on table {table}.", _ASK),
    "column": ("Not permitted: some of the columns asked for in table {table}.", _ASK_LESS),
    "tool": ("Not permitted: tool {tool} is not among the tools of this task.", _ASK),
    "argument": ("Not permitted: tool {tool} with these arguments.", _ASK_LESS),
    "attribute": ("Not permitted under the present conditions.", _ASK),
    "domain": ("Not permitted: requests of this kind are no part of this task.", _ASK),
    "task": ("Not permitted: the credential is for another task.", _REPLACE),
    "caller": ("Not permitted: the credential was handed to another agent or task.", _REPLACE),
    "proof_missing": (
        "The credential is bound to a key, and no proof by that key came with the request.",
        _PROVE,
    ),
    "bad_proof": (
        "The credential is bound to a key, and the proof that came is not for this request.",
        _PROVE,
    ),
    "replayed": ("The proof that came with the request was used before, or is too old.", _PROVE),
    "store_unavailable": ("The server cannot decide at present.", _LATER),
    "narrowed": ("Not permitted at present: the operator has narrowed this task.", _ASK),
    "stale_overlay": ("The server cannot decide at present.", _LATER),
    "cost_unstated": ("Not permitted: what the request costs is not stated.", _ASK),
    "budget_exhausted": ("The allowance of this task is used up.", _ASK),
    "delegate_only": (
        "Not permitted: the credential is for handing on to a sub-agent, not for use.",
        _ASK,
    ),
}


class Denied(CaptokenError):  # noqa: N818, the name reads as what it is
    """A verifier refused. `decision` says all, for the operator; `public` is what a client may be told; `kind` is what
    an HTTP status follows from: `invalid` 401, `insufficient` 403, `proof` 401, `unavailable` 503."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.code = decision.code
        super().__init__(decision.summary)

    @property
    def public(self) -> str:
        """A sentence that may go to a client: nothing of the token, nothing of what others may do."""
        return CODES[self.code].public

    @property
    def kind(self) -> Kind:
        return CODES[self.code].kind
