"""Decisions and exchanges as trails have them: which are asked for, and each in words.

All that a record says is escaped when it is written (`output`), or here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from captoken._format import names
from captoken._format.errors import AuditError
from captoken._format.shapes import fit
from captoken._format.spelling import escape, readable_time
from captoken.audit import analysis as trails
from captoken.audit._evidence import Chosen

Logged: TypeAlias = trails.Decided | trails.Issued

# Of which kind of record a line is.
_KINDS: dict[Any, type[Logged]] = {"decision": trails.Decided, "issuance": trails.Issued}


def logged_of(record: Mapping[str, Any]) -> Logged | None:
    """A record of a decision or an exchange, as it is read; None of others. Raises AuditError."""
    kind = _KINDS.get(record.get("kind"))
    try:
        return None if kind is None else fit(record, kind)
    except ValueError as error:
        raise AuditError(f"record {record['seq']} cannot be read: {error}") from None


class Asked(Chosen):
    """Which decisions are asked for: all that is stated has to be so."""

    def includes(self, record: Mapping[str, Any]) -> bool:
        """Is a record one of these? A token or a checkpoint is none. Raises AuditError."""
        logged = logged_of(record)
        return logged is not None and self.is_about(logged)

    def is_about(self, decided: Logged) -> bool:
        """Is a decision one of them? Or an exchange."""
        if self.denied and decided.allowed:
            return False
        # To the last thousandth of its second.
        until = None if self.until is None else self.until * 1000 + 999
        if until is not None and decided.at * 1000 + (decided.ms or 0) > until:
            return False
        holder = decided.chain[-1].name if decided.chain else None
        if holder is None and isinstance(decided, trails.Issued):
            holder = decided.asked.get("agent")
        return self.agent in (None, holder) and is_in(self.task, decided.task)


def is_in(task: str | None, stated: str | None) -> bool:
    """Is it in the task that is asked for, or below it? Any is, if none is asked for."""
    return task is None or (stated is not None and names.at_or_below(stated, task))


def told_of_issuer(issued: trails.Issued) -> str:
    """An exchange in one line: who got which task, or what was asked for, and why there is none."""
    parties = [
        f"{party.get('provider')} {party.get('sub')}"
        for party in (issued.subject, issued.actor)
        if party
    ]
    who = " with ".join(parties)
    if issued.allowed:
        agent = issued.chain[-1].name if issued.chain else "nobody"
        came = f"task {issued.task} by {issued.grant}, to {agent} for {issued.sub}"
    else:
        wanted = issued.asked.get("grant", "a task")
        why = f" ({issued.why})" if issued.why else ""
        came = f"asked for {wanted}; {issued.told}{why}"
    return f"{moment(issued.at, issued.ms)}  {issued.code:<16}  {who}: {came}"


def moment(at: int, ms: int | None) -> str:
    """When it was recorded, to the thousandth of a second; or the second that was decided on."""
    if ms is None:
        return readable_time(at)
    seconds, thousandths = divmod(ms, 1000)
    return f"{readable_time(at + seconds).removesuffix('Z')}.{thousandths:03}Z"


def refused(decided: trails.Decided) -> str:
    """Why it was refused: the first reason, and who added it."""
    first = decided.refusal
    added_by = first.get("added_by")
    who = f" (added by {added_by})" if added_by else ""
    return f"; {first.get('text', '')}{who}" if first else ""


def in_marks(decided: trails.Decided) -> str:
    """Which marks it was in, if any."""
    marks = dict.fromkeys(mark.name for mark in decided.marks)
    return f"in mark {' and '.join(marks)}" if marks else ""


def consented(decided: trails.Decided) -> str:
    """Whose consents it spent, and when each was given."""
    return "".join(
        f"; consent of {escape(one.by)}, given {readable_time(one.iat)}" for one in decided.consents
    )


def tried(access: trails.Accessed | None) -> str:
    """An access as it was recorded, in a line: with values, where they were recorded."""
    if access is None:
        return "the token alone"
    return escape(" and ".join(_parts(access)) or "nothing in particular")


def _parts(access: trails.Accessed) -> Iterator[str]:
    if access.table is not None:
        yield f"{access.operation} on table {access.table}{_columns(access.columns)}"
    if access.tool is not None:
        yield f"tool {access.tool}({_facts(access.arguments or ())})"
    if access.attributes:
        yield f"with {_facts(access.attributes)}"
    if access.cost:
        amounts = [f"{amount} {unit}" for unit, amount in sorted(access.cost.items())]
        yield f"costing {', '.join(amounts)}"


def _columns(columns: Sequence[str] | None) -> str:
    return f" ({', '.join(columns)})" if columns else ""


def _facts(stated: Mapping[str, Any] | Iterable[str]) -> str:
    """Facts with their values, or their names alone."""
    if isinstance(stated, Mapping):
        return ", ".join(f"{key}={json.dumps(value)}" for key, value in stated.items())
    return ", ".join(stated)
