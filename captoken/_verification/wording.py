"""How a decision is told: to the operator, to machines, and to the agent that was refused.

None of these texts shows a token, a key, or the value of an argument or attribute, but for the
operator's line where values are asked for. What an agent may be told echoes only what the access
itself stated, names of the server's own, and the bounds of ranges where the server says so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from captoken._format.spelling import escape, named, spelled
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


def told_to_operator(refusal: Refusal, access: Access | None, values: bool) -> str:
    """A denial in one line, for the operator: what failed, why, and who added the rule.

    `argument refund.cents: 501 is more than 500, link 1 by orchestrator`. Without `values` no value
    of the access. Not escaped.
    """
    by = "" if refusal.link is None else f", link {refusal.link} by {refusal.added_by}"
    failing = refusal.failing
    if failing is None or access is None:
        return f"{refusal.code}: {refusal.text}{by}"

    what, stated = named(failing.name), access.attributes
    if failing.fact == "argument":
        what, stated = f"{access.tool}.{what}", access.arguments or {}
    value = ""
    if values and failing.problem == "value" and failing.name in stated:
        value = f"{spelled(stated[failing.name])} "
    return f"{failing.fact} {what}: {value}{failing.words}{by}"


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
_REFUSED_AGAIN = "The same request will be refused again; one"
_STATE_IT = f"{_REFUSED_AGAIN} that states it may be permitted."
_LEAVE_OUT = f"{_REFUSED_AGAIN} without it may be permitted."
_KEEP_WITHIN = f"{_REFUSED_AGAIN} within that may be permitted."
_ASK_LESS = f"{_REFUSED_AGAIN} that asks for less may be permitted."
_NAME_THEM = (
    f"{_REFUSED_AGAIN} that asks for fewer columns may be permitted. "
    "Write each by its name, with its table before it, and not `*` or an alias."
)
_AGAIN = "A retry in which the credential is presented again can help."
_LATER = "A retry can help later."
_STOP = (
    "Stop here: do not retry, do not ask for another credential, "
    "and do not look for another way."
)
_NARROWED = (
    "Retrying will not help, and neither will another credential. "
    "Go on without it, or stop and say so."
)
_HAND_ON = (
    "Retrying will not help. Hand it on to a sub-agent, or ask whoever gave you this task."
)
_FAULT = (
    "That is a fault of the server and not of the request. "
    "Retrying will not help: tell whoever gave you this task."
)
_PROVE = "A retry with a fresh proof, made for this very request, can help."

_STRANGER = _Told("The credential was not accepted.", _REPLACE)
_UNREADABLE = _Told("Not permitted: a request of this kind.", _REWRITE)

_TOLD: dict[str, _Told] = {
    "missing_discharge": _Told(
        "The credential needs a consent that did not come with it.",
        "A retry can help once it is given.",
    ),
    "stale_grant": _Told("The credential was checked too long ago.", _AGAIN),
    "revoked": _Told("This task is over: whoever is in charge of it has ended it.", _STOP),
    "expired": _Told("The credential has expired.", _REPLACE),
    "not_yet_valid": _Told("The credential is not valid yet.", _LATER),
    "wrong_audience": _Told("The credential is for another server.", _REPLACE),
    "unaddressed": _Told("The credential is not addressed to this server.", _REPLACE),
    "table": _Told("Not permitted: table {table} is not among the tables of this task.", _ASK),
    "operation": _Told("Not permitted: operation {operation} on table {table}.", _ASK),
    "column": _Told("Not permitted: some of the columns asked for in table {table}.", _NAME_THEM),
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
    "narrowed": _Told("Not permitted at present: the operator has narrowed this task.", _NARROWED),
    "stale_overlay": _Told("The server cannot decide at present.", _LATER),
    "cost_unstated": _Told("Not permitted: what the request costs is not stated.", _FAULT),
    "budget_exhausted": _Told("The allowance of this task is used up.", _ASK),
    "delegate_only": _Told(
        "Not permitted: the credential is for handing on to a sub-agent, not for use.", _HAND_ON
    ),
}

_PROVE_ANEW = " A proof that came with the request is spent: a retry needs a fresh one."
_SPENT = frozenset(
    ("budget_exhausted", "store_unavailable")
)  # a proof is used before these are known


def told_to_model(
    code: str,
    access: Access | None,
    refusals: Sequence[Refusal] = (),
    *,
    proven: bool,
    tell_limits: bool = False,
    declares: Collection[str] = (),
) -> str:
    """What an agent may be told of a denial. `proven`: did a proof come with the request?

    A denial that a stranger could cause says no more than that. What echoes the access needs one:
    without, the request could not be read as an access, or is none that any token permits.
    `tell_limits` and `declares` are told in `Decision.for_model`.
    """
    told = _TOLD.get(code, _STRANGER)
    if "{" in told.rule and access is None:
        told = _UNREADABLE
    if code == "argument" and access is not None:
        told = _argument_told(access, refusals, tell_limits, declares) or told

    rule = told.rule if access is None else told.rule.format(**_stated(access))
    said = f"{rule} {told.retry}"
    return said + _PROVE_ANEW if proven and code in _SPENT else said


def _argument_told(
    access: Access,
    refusals: Sequence[Refusal],
    tell_limits: bool,
    declares: Collection[str],
) -> _Told | None:
    """Which argument failed, for an agent; None where it may not be told, or nobody knows.

    The name is the agent's own word, or the server's. What only the token names was chosen by a
    holder, and would be a holder's word to a model.
    """
    failing = refusals[0].failing if refusals else None
    if failing is None:
        return None
    if failing.name not in (access.arguments or {}) and failing.name not in declares:
        return None

    what = f"argument `{_echoed(failing.name)}` of `{_echoed(access.tool)}`"
    if failing.problem == "unstated":
        return _Told(f"Not permitted: {what} is not stated.", _STATE_IT)
    if failing.problem == "unknown":
        return _Told(f"Not permitted: {what} is none that this task may use.", _LEAVE_OUT)

    rule = f"Not permitted: {what} has a value that this task may not use"
    limits = _limits(failing.name, refusals) if tell_limits else ""
    if limits:
        return _Told(f"{rule}. It has to be a number, {limits}.", _KEEP_WITHIN)
    return _Told(f"{rule}.", _ASK_LESS)


def _limits(name: str, refusals: Sequence[Refusal]) -> str:
    """The bounds that an argument missed, of all links together: `at most 500`, or nothing.

    All of them, so that a value within what is told is not refused by the next link.
    """
    missed = [
        refusal.failing
        for refusal in refusals
        if refusal.failing is not None and refusal.failing.name == name
    ]
    # By exact type: nothing but integers of the token is ever told (24.14).
    least = max((one.least for one in missed if type(one.least) is int), default=None)
    most = min((one.most for one in missed if type(one.most) is int), default=None)
    if least is not None and most is not None:
        return f"from {least} to {most}" if least <= most else ""
    if most is not None:
        return f"at most {most}"
    return f"at least {least}" if least is not None else ""


def _stated(access: Access) -> dict[str, str]:
    """The names that the access stated, escaped and short, without braces."""
    return {
        "table": _echoed(access.table),
        "operation": _echoed(access.operation),
        "tool": _echoed(access.tool),
    }


def _echoed(name: str | None) -> str:
    shown = escape(name or "?")[:_ECHOED_CHARS]
    return shown.replace("{", "(").replace("}", ")").replace("`", "'")
