"""What an error of the database comes to: a denial, or an exception that quotes no row (rule 9).

reports.deny_reported(error, needs)       # raises Denied where it says no
raise reports.reported(sql, error, found)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import psycopg
from psycopg import errors

from captoken._language.access import Access
from captoken.adapters._costed_grant import CostedGrant
from captoken.adapters._postgres.assessment import Assessment
from captoken.adapters._postgres.faults import mistaken
from captoken.adapters._postgres.logins import forget
from captoken.adapters._postgres.wire import Connection, ErrorReport

# SQLSTATE, as PostgreSQL documents it.
_INSUFFICIENT_PRIVILEGE = "42501"
_READ_ONLY_TRANSACTION = "25006"
_QUERY_CANCELED = "57014"
_UNDEFINED_COLUMN = "42703"
_NOT_TOLD = "55000"  # by a policy of a plan, among others

# Rule 9. Errors that are no fault of the statement, and whose first line names nothing but objects,
# by the beginnings of their codes.
_NAMES_OBJECTS = (
    "08",  # the connection
    "25",  # the state of the transaction
    "40",  # transactions that were rolled back: serialization, deadlock
    "53",  # resources
    "55",  # objects in the wrong state: a lock that is not to be had
    "57",  # what the operator does
)


class Reports(NamedTuple):
    """The errors of one connection, under the grant of a block."""

    connection: Connection
    grant: CostedGrant

    def raise_reported(self, error: ErrorReport) -> NoReturn:
        """Raise what an error of the database comes to, where no statement runs: at a commit."""
        self.deny_reported(error, ())
        raise self.reported("", error, Assessment(None))

    def deny_reported(self, error: ErrorReport, needs: Sequence[Access]) -> None:
        """Raises Denied for an error that says no: of role, row security, transaction or time."""
        if error.code in (_INSUFFICIENT_PRIVILEGE, _READ_ONLY_TRANSACTION):
            # Rule 3. The text hid it, and the role or the transaction did not allow it.
            by_policy = "row-level security" in error.message
            by_table = error.code == _INSUFFICIENT_PRIVILEGE and not by_policy
            code = "table" if by_table else "operation"
            access = _refused_access(error, needs, or_any=not by_table)
            # Rule 14. It is the policy of a plan.
            if by_policy and 'policy "captoken_' in error.message:
                code = "row"
            raise self.grant.denied(code, f"PostgreSQL refused it: {error.message}", access)

        if error.code == _QUERY_CANCELED:
            # Rule 7. It ran until the token ended, and that is why.
            live = self.grant.stands()
            if not live:
                raise self.grant.denied(live)

    def reported(self, sql: str, error: ErrorReport, found: Assessment) -> Exception:
        """Rule 9. What is raised for an error of the database that is no denial.

        "invalid input syntax for type integer: ..." quotes a value, which can be one of a row that
        a view hides. So nothing of what it says is passed on where the statement is at fault. Else
        it is PostgreSQL's own class, with the first line where that cannot quote a row.
        """
        # It may be a column, or a policy, that is new: the next block looks at them again.
        is_column = error.code == _UNDEFINED_COLUMN and found.sent.edits
        if is_column or error.code == _NOT_TOLD:
            forget(self.connection)
        placed = error._replace(place=found.sent.place(sql, error.place))
        fault = mistaken(sql, placed, found.shown)
        if fault is not None:
            return fault

        kind = _kind_of(error)
        if not error.code or error.code.startswith(_NAMES_OBJECTS):
            return kind(error.message)
        return kind(
            f"{kind.__name__} ({error.code}): "
            "what PostgreSQL says of it is left out, since it can quote rows"
        )


def _refused_access(
    error: ErrorReport,
    needs: Sequence[Access],
    *,
    or_any: bool,
) -> Access | None:
    """Which access of a statement PostgreSQL refused: of the table that it names, a write first.

    `or_any`: where it names another one, as a trigger's, it is what the statement itself does.
    """
    writes_first = sorted(needs, key=lambda need: need.operation == "select")
    words = set(re.findall(r"[^\s\"]+", error.message))
    for need in writes_first:
        if need.table is not None and need.table.rpartition(".")[2] in words:
            return need
    return writes_first[0] if or_any and writes_first else None


def _kind_of(error: ErrorReport) -> type[psycopg.Error]:
    """psycopg's exception for the error. Without a code, the connection is lost."""
    if not error.code:
        return psycopg.OperationalError
    try:
        return errors.lookup(error.code)
    except KeyError:
        return psycopg.DatabaseError
