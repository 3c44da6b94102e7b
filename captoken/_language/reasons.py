"""Why something is prohibited: a reason, and the closed list of codes with what each means.

(spec, "Verification")
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

# What sort of denial it is: the token is no good; it does not permit this; the proof is no good;
# the server cannot decide now.
Kind = Literal["invalid", "insufficient", "proof", "unavailable"]


class Denial(NamedTuple):
    """What a verifier has to know of a code. What is told of it stands in `records`, above."""

    # The step of the plan that gives it.
    step: int

    # The kind decides the HTTP status.
    kind: Kind


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

# Each code of a denial. `python -m tests.records` writes the rows, from the records.
DENIALS: dict[str, Denial] = {
    # begin: codes
    "malformed": Denial(2, "invalid"),
    "unsupported_version": Denial(3, "invalid"),
    "unknown_key": Denial(3, "invalid"),
    "bad_signature": Denial(4, "invalid"),
    "missing_discharge": Denial(4, "invalid"),
    "bad_discharge": Denial(4, "invalid"),
    "unreadable_link": Denial(5, "invalid"),
    "unknown_caveat": Denial(5, "invalid"),
    "broken_delegation": Denial(6, "invalid"),
    "too_deep": Denial(6, "invalid"),
    "delegate_only": Denial(6, "insufficient"),
    "revoked": Denial(7, "invalid"),
    "narrowed": Denial(7, "insufficient"),
    "stale_overlay": Denial(7, "unavailable"),
    "stale_grant": Denial(7, "invalid"),
    "expired": Denial(8, "invalid"),
    "not_yet_valid": Denial(8, "invalid"),
    "wrong_audience": Denial(8, "invalid"),
    "unaddressed": Denial(8, "invalid"),
    "table": Denial(8, "insufficient"),
    "operation": Denial(8, "insufficient"),
    "column": Denial(8, "insufficient"),
    "row": Denial(8, "insufficient"),
    "tool": Denial(8, "insufficient"),
    "argument": Denial(8, "insufficient"),
    "attribute": Denial(8, "insufficient"),
    "domain": Denial(8, "insufficient"),
    "task": Denial(8, "insufficient"),
    "cost_unstated": Denial(8, "insufficient"),
    "too_much_work": Denial(8, "insufficient"),
    "consent_missing": Denial(8, "insufficient"),
    "caller": Denial(9, "insufficient"),
    "proof_missing": Denial(10, "proof"),
    "bad_proof": Denial(10, "proof"),
    "bad_consent": Denial(10, "proof"),
    "replayed": Denial(11, "proof"),
    "forbidden_after": Denial(11, "insufficient"),
    "budget_exhausted": Denial(11, "insufficient"),
    "store_unavailable": Denial(11, "unavailable"),
    # end
}


def known(code: str) -> None:
    """Raise ValueError for a code that has no record: it would have no step, no kind, no words."""
    if code not in DENIALS:
        raise ValueError(f"{code!r} is not a code of the spec: captoken.errors.CODES lists them")


class Failing(msgspec.Struct, frozen=True, gc=False):
    """What of an access failed: one argument, one attribute, or one column of a row.

    The check that failed makes it, so that nobody has to read a sentence to know. It has no value
    of the access, but may tell that an argument is null.
    """

    fact: Literal["argument", "attribute", "row", "becomes"]
    name: str

    # `unstated`: it has to be there. `unknown`: it must not be. `value`: it has another value.
    problem: Literal["unstated", "unknown", "value"]

    # What is wrong, to follow on the name or on the value: `is more than 500`.
    words: str

    # The bounds of a range that was missed. Integers, and nothing else that a token says.
    least: int | None = None
    most: int | None = None


class Reason(msgspec.Struct, frozen=True, gc=False):
    """Why something is prohibited: a stable code, and a sentence for the operator.

    Raises ValueError for a code that there is not.
    """

    code: str
    text: str

    # The one argument, attribute or column that failed, if it was one.
    failing: Failing | None = None

    def __post_init__(self) -> None:
        known(self.code)


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A reason and where it stands.

    `link` is None for what no link says; `added_by` is who held the token when the link was added.
    Raises ValueError for a code that there is not.
    """

    code: str
    text: str
    link: int | None = None
    added_by: str | None = None
    failing: Failing | None = None

    # The key whose consent would let the access through, if one would.
    consent_of: bytes | None = None

    def __post_init__(self) -> None:
        known(self.code)

    def as_dict(self) -> dict[str, Any]:
        """What goes into a record: the code, the sentence, and where it stands."""
        return {
            "code": self.code,
            "text": self.text,
            "link": self.link,
            "added_by": self.added_by,
        }
