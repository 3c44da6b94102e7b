"""How a decision is told: to the operator, to machines, and to the agent that was refused.

None of these texts shows a token, a key, or the value of an argument or attribute, but for the
operator's line where values are asked for. What an agent may be told echoes only what the access
itself stated, names of the server's own, and the bounds of ranges where the server says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from captoken._format.spelling import escape, named, spelled
from captoken._language.access import Access
from captoken._language.reasons import PLAN, Refusal
from captoken._verification.records import CODES

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
    elif failing.fact != "attribute":
        what, stated = f"{access.table}.{what}", _row(access, failing.fact)
    value = ""
    if values and failing.problem == "value" and failing.name in stated:
        value = f"{spelled(stated[failing.name])} "
    return f"{failing.fact} {what}: {value}{failing.words}{by}"


def _row(access: Access, fact: str) -> Mapping[str, Any]:
    """The row as it is stored, or as it will be; an empty one where there is none."""
    row = access.row if fact == "row" else access.becomes
    return row or {}


def worded_as(code: str, refusals: Sequence[Refusal]) -> str:
    """The code whose words a denial has for clients and models.

    A consent and a proof that were used before have one code. But a consent has to be asked for
    again, and no proof helps. Of a consent a link is named, and of a proof none.
    """
    is_spent = code == "replayed" and refusals and refusals[0].link is not None
    return "bad_consent" if is_spent else code


def told_to_client(code: str, refusals: Sequence[Refusal] = ()) -> str:
    """A sentence that anybody may be told: nothing of the token, nothing of what others may do."""
    return CODES[worded_as(code, refusals)].public


def lacks_rights(code: str, access: Access) -> bool:
    """Would a token that permits more have permitted it?

    Where no columns were stated, stating them is what helps (15.4).
    """
    return CODES[code].wider and (code != "column" or access.columns is not None)


class _Told(NamedTuple):
    """What an agent is told of a denial: the rule that was broken, and whether a retry can help."""

    rule: str
    advice: str


# Of an argument that may be named.
_STATE_IT = "The same request will be refused again; one that states it may be permitted."
_LEAVE_OUT = "The same request will be refused again; one without it may be permitted."
# An endpoint may declare a tool alone: then no value in a request changes what is asked.
_NO_ARGUMENTS = _Told(
    "Not permitted: tool {tool} without arguments.",
    "The same request will be refused again. If you gave arguments, this server does not check "
    "them: tell whoever gave you this task.",
)
_KEEP_WITHIN = "The same request will be refused again; one within that may be permitted."

_UNREADABLE = _Told(
    "Not permitted: a request of this kind.",
    "The same request will be refused again. Check how it is written, or ask whoever gave you "
    "this task.",
)
# Rows that the server cannot hold: of a statement too hard to tell, or without that column.
_ROWS_UNHELD = _Told(
    "Not permitted: this task may use only some rows, and this server cannot limit this request to "
    "them.",
    "Write it in a simpler way, once. If that is refused as well, the request is not at fault: "
    "tell whoever gave you this task.",
)
# SQL: a PRAGMA, two statements, or what a model wrote around one. Nothing else has an operation and
# no access. One text for all, since why a statement is refused can depend on what is hidden.
_STATEMENT = _Told(
    "Not permitted: a statement of this kind.",
    "Send one plain SELECT, INSERT, UPDATE or DELETE: no second statement, no PRAGMA, SET or DDL, "
    "and no Markdown fence around it. If that is refused as well, ask whoever gave you this task.",
)

_UNREAD = {"operation": _STATEMENT, "row": _ROWS_UNHELD}

# An insert into SQLite, say: no columns that a model writes would be stated (15.4).
_COLUMNS_UNSTATED = _Told(
    "Not permitted: this task may use only some columns of table {table}, and this server cannot "
    "tell which ones the {operation} touches.",
    "Write the table's name alone, with no schema before it, name each column, and send it again. "
    "If that is refused as well, ask whoever gave you this task.",
)

_PROVE_ANEW = " A proof that came with the request is spent: a retry needs a fresh one."


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
    record = CODES[worded_as(code, refusals)]
    told = _Told(record.model, record.advice)
    if "{" in told.rule and access is None:
        told = _UNREAD.get(code, _UNREADABLE)
    if code == "argument" and access is not None:
        told = _argument_told(access, refusals, tell_limits, declares) or told
    if code == "column" and access is not None and access.columns is None:
        told = _COLUMNS_UNSTATED
    if code == "row" and access is not None:
        told = _row_told(access, refusals) or told

    rule = told.rule if access is None else told.rule.format(**_stated(access))
    said = f"{rule} {told.advice}"
    # The proof is used first, and then a store is asked for the rest.
    is_spent = proven and record.step == len(PLAN) and record.kind != "proof"
    return said + _PROVE_ANEW if is_spent else said


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
    if not access.arguments and failing.name not in declares:
        return _NO_ARGUMENTS
    if failing.name not in (access.arguments or {}) and failing.name not in declares:
        return None

    what = f"argument `{_echoed(failing.name)}` of `{_echoed(access.tool)}`"
    if failing.problem == "unstated":
        return _Told(f"Not permitted: {what} is not stated.", _STATE_IT)
    if failing.problem == "unknown":
        return _Told(f"Not permitted: {what} is not one that this task may use.", _LEAVE_OUT)

    rule = f"Not permitted: {what} has a value that this task may not use"
    limits = _limits(failing.name, refusals) if tell_limits else ""
    if limits:
        return _Told(f"{rule}. It must be a number, {limits}.", _KEEP_WITHIN)
    return _Told(f"{rule}.", CODES["argument"].advice)


_OTHER_ROW = (
    "The same request will be refused again; one for other rows may be permitted. Do not look for "
    "another way to get these."
)


def _row_told(access: Access, refusals: Sequence[Refusal]) -> _Told | None:
    """Which column of a row failed, for an agent, and never its value; or that rows cannot be told.

    A column that only the token names was chosen by a holder, and is not named (24.14).
    """
    table = f"table `{_echoed(access.table)}`"
    if not (access.row or access.becomes) and access.rows is None:
        rule = f"Not permitted: this task may use only some rows of {table}, and this"
        return _Told(f"{rule} server cannot tell which rows are meant.", CODES["row"].advice)
    failing = refusals[0].failing if refusals else None
    if failing is None or failing.name not in _row(access, failing.fact):
        return None
    what = f"this task may not use the value of column `{_echoed(failing.name)}`"
    return _Told(f"Not permitted: a row of {table}; {what}.", _OTHER_ROW)


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
