"""Why something is prohibited: a reason, and the closed list of codes with what each means.

(spec, "Verification")
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

# What sort of denial it is: the token is no good; it does not permit this; the proof is no good;
# the server cannot decide now.
Kind = Literal["invalid", "insufficient", "proof", "unavailable"]


class Code(NamedTuple):
    """What a code means."""

    # Of the plan: the one that gives it.
    step: int

    # What an HTTP status follows from.
    kind: Kind

    # A sentence that anybody may be told.
    public: str


# One message for all of these, so that a stranger learns nothing.
_UNACCEPTED = "The token was not accepted."
_UNPROVEN = "The request needs a fresh proof by the key that the token is bound to."
_REFUSED = "The token does not permit this request."

# Each code of a denial: the step that gives it, its kind, and what a client may read.
CODES: dict[str, Code] = {
    "malformed": Code(2, "invalid", _UNACCEPTED),
    "unsupported_version": Code(3, "invalid", _UNACCEPTED),
    "unknown_key": Code(3, "invalid", _UNACCEPTED),
    "bad_signature": Code(4, "invalid", _UNACCEPTED),
    "missing_discharge": Code(4, "invalid", "The token needs a discharge that was not presented."),
    "bad_discharge": Code(4, "invalid", "A discharge that was presented was not accepted."),
    "unreadable_link": Code(5, "invalid", "The token carries a restriction that cannot be read."),
    "unknown_caveat": Code(
        5, "invalid", "The token carries a restriction that this server does not know."
    ),
    "broken_delegation": Code(6, "invalid", "The token's chain of delegation is broken."),
    "too_deep": Code(6, "invalid", "The token was delegated more often than it permits."),
    "delegate_only": Code(6, "insufficient", "The token is for handing on, not for use."),
    "revoked": Code(7, "invalid", _UNACCEPTED),
    "narrowed": Code(7, "insufficient", _REFUSED),
    "stale_overlay": Code(7, "unavailable", "The server cannot decide at present."),
    "stale_grant": Code(7, "invalid", "The token has to be presented again."),
    "expired": Code(8, "invalid", "The token has expired."),
    "not_yet_valid": Code(8, "invalid", "The token is not valid yet."),
    "wrong_audience": Code(8, "invalid", "The token is addressed to another server."),
    "unaddressed": Code(8, "invalid", "The token is not addressed to this server."),
    "table": Code(8, "insufficient", _REFUSED),
    "operation": Code(8, "insufficient", _REFUSED),
    "column": Code(8, "insufficient", _REFUSED),
    "tool": Code(8, "insufficient", _REFUSED),
    "argument": Code(8, "insufficient", _REFUSED),
    "attribute": Code(8, "insufficient", _REFUSED),
    "domain": Code(8, "insufficient", _REFUSED),
    "task": Code(8, "insufficient", "The token is for another task."),
    "cost_unstated": Code(8, "insufficient", "What the request costs is not stated."),
    "caller": Code(9, "insufficient", "The token was handed to another caller."),
    "proof_missing": Code(10, "proof", _UNPROVEN),
    "bad_proof": Code(10, "proof", _UNPROVEN),
    "replayed": Code(11, "proof", _UNPROVEN),
    "budget_exhausted": Code(11, "insufficient", "The token has been used up."),
    "store_unavailable": Code(11, "unavailable", "The server cannot decide at present."),
}


class Failing(msgspec.Struct, frozen=True, gc=False):
    """What of an access failed: one argument, or one attribute.

    The check that failed makes it, so that nobody has to read a sentence to know. It has no value
    of the access.
    """

    fact: Literal["argument", "attribute"]
    name: str

    # `unstated`: it has to be there. `unknown`: it must not be. `value`: it has another value.
    problem: Literal["unstated", "unknown", "value"]

    # What is wrong, to follow on the name or on the value: `is more than 500`.
    words: str

    # Of a range that was missed: its bounds. Integers, and nothing else that a token says.
    least: int | None = None
    most: int | None = None


class Reason(msgspec.Struct, frozen=True, gc=False):
    """Why something is prohibited: a stable code, and a sentence for the operator."""

    code: str
    text: str

    # Where it is one argument or attribute.
    failing: Failing | None = None


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A reason and where it stands.

    `link` is None for what no link says; `added_by` is who held the token when the link was added.
    """

    code: str
    text: str
    link: int | None = None
    added_by: str | None = None
    failing: Failing | None = None

    def as_dict(self) -> dict[str, Any]:
        """What goes into a record: the code, the sentence, and where it stands."""
        return {
            "code": self.code,
            "text": self.text,
            "link": self.link,
            "added_by": self.added_by,
        }
