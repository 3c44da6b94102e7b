"""How a decision is told: to the operator, to machines, and to the agent that was refused.

None of these texts shows a token, a key, or the value of an argument or attribute. What an agent
may be told echoes only what the access itself stated.
"""

from __future__ import annotations

from typing import NamedTuple

from captoken._format.spelling import escape
from captoken._language.access import Access
from captoken._language.reasons import Refusal

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

_ECHOED_CHARS = 80  # of a name that the access stated


def place(refusal: Refusal) -> str:
    """Where a refusal stands, for people."""
    if refusal.link is None:
        return "the verifier"
    return f"link {refusal.link}, added by {refusal.added_by}"


class _Told(NamedTuple):
    """What an agent is told of a code: the rule that was broken, and whether a retry can help."""

    rule: str
    retry: str


_ASK = (
    "Retrying will not help. "
    "Whoever gave you this task can grant more; do not look for another way."
)
_REPLACE = (
    "Retrying with the same credential will not help. Ask whoever gave you this task for a new one."
)
_REWRITE = (
    "The same request will be refused again. "
    "Check how it is spelled, or ask whoever gave you this task."
)
_ASK_LESS = "The same request will be refused again; one that asks for less may be permitted."
_AGAIN = "A retry in which the credential is presented again can help."
_LATER = "A retry can help later."
_PROVE = "A retry with a fresh proof, made for this very request, can help."

_STRANGER = _Told("The credential was not accepted.", _REPLACE)
_UNREADABLE = _Told("Not permitted: a request of this kind.", _REWRITE)

_TOLD: dict[str, _Told] = {
    "missing_discharge": _Told(
        "The credential needs a consent that did not come with it.",
        "A retry can help once it is given.",
    ),
    "stale_grant": _Told("The credential was checked too long ago.", _AGAIN),
    "expired": _Told("The credential has expired.", _REPLACE),
    "not_yet_valid": _Told("The credential is not valid yet.", _LATER),
    "wrong_audience": _Told("The credential is for another server.", _REPLACE),
    "unaddressed": _Told("The credential is not addressed to this server.", _REPLACE),
    "table": _Told("Not permitted: table {table} is not among the tables of this task.", _ASK),
    "operation": _Told("Not permitted: operation {operation} on table {table}.", _ASK),
    "column": _Told("Not permitted: some of the columns asked for in table {table}.", _ASK_LESS),
    "tool": _Told("Not permitted: tool {tool} is not among the tools of this task.", _ASK),
    "argument": _Told("Not permitted: tool {tool} with these arguments.", _ASK_LESS),
    "attribute": _Told("Not permitted under the present conditions.", _ASK),
    "domain": _Told("Not permitted: requests of this kind are no part of this task.", _ASK),
    "task": _Told("Not permitted: the credential is for another task.", _REPLACE),
    "caller": _Told("Not permitted: the credential was handed to another agent or task.", _REPLACE),
    "proof_missing": _Told(
        "The credential is bound to a key, and no proof by that key came with the request.", _PROVE
    ),
    "bad_proof": _Told(
        "The credential is bound to a key, and the proof that came is not for this request.",
        _PROVE,
    ),
    "replayed": _Told(
        "The proof that came with the request was used before, or is too old.", _PROVE
    ),
    "store_unavailable": _Told("The server cannot decide at present.", _LATER),
    "narrowed": _Told("Not permitted at present: the operator has narrowed this task.", _ASK),
    "stale_overlay": _Told("The server cannot decide at present.", _LATER),
    "cost_unstated": _Told("Not permitted: what the request costs is not stated.", _ASK),
    "budget_exhausted": _Told("The allowance of this task is used up.", _ASK),
    "delegate_only": _Told(
        "Not permitted: the credential is for handing on to a sub-agent, not for use.", _ASK
    ),
}

_PROVE_ANEW = " A proof that came with the request is spent: a retry needs a fresh one."
_SPENT = frozenset(
    ("budget_exhausted", "store_unavailable")
)  # a proof is used before these are known


def told_to_model(
    code: str,
    access: Access | None,
    *,
    proven: bool,
) -> str:
    """What an agent may be told of a denial. `proven`: did a proof come with the request?

    A denial that a stranger could cause says no more than that. What echoes the access needs one:
    without, the request could not be read as an access, or is none that any token permits.
    """
    told = _TOLD.get(code, _STRANGER)
    if "{" in told.rule and access is None:
        told = _UNREADABLE
    said = f"{told.rule.format(**_stated(access))} {told.retry}"
    return said + _PROVE_ANEW if proven and code in _SPENT else said


def _stated(access: Access | None) -> dict[str, str]:
    """The names that the access stated, escaped and short, without braces."""
    if access is None:
        return {
            "table": "?",
            "operation": "?",
            "tool": "?",
        }
    return {
        "table": _echoed(access.table),
        "operation": _echoed(access.operation),
        "tool": _echoed(access.tool),
    }


def _echoed(name: str | None) -> str:
    shown = escape(name or "?")[:_ECHOED_CHARS]
    return shown.replace("{", "(").replace("}", ")")
