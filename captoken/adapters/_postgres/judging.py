"""What the grant says of a statement: rules 5, 6, 9 and 11 of `postgres`.

A statement is judged in this order. The first that stands against it is the answer:

1. the token itself: it may have expired, or been revoked;
2. the text: it is no statement that is granted to anybody (T1, T2, T6);
3. the grant, for each table, operation and column that the text needs;
4. functions and types that are not granted (T6, T7);
5. columns that are in no table, where the token restricts columns;
6. the roles of the login, which may have less than the grant;
7. the grant once more, for all of it together. This time it counts, and is recorded.

Where nothing stands against it in 4 to 6, 3 is left out: 7 asks the same.

Denials are recorded here, and nowhere else. Each of them says as little as it can. Where a token or
a role restricts something, it is the same answer whether that is missing or not permitted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from msgspec import structs

from captoken._format.extras import extra

with extra("postgres"):
    import psycopg
    from psycopg import errors

from captoken._format.errors import GuardError
from captoken._language.access import Access, Caller
from captoken._verification.decision import Decision, Denied
from captoken.adapters._paying import Paying
from captoken.adapters._postgres.assessment import Assessment, Assessor
from captoken.adapters._postgres.assumptions import Assumptions
from captoken.adapters._postgres.logins import forget
from captoken.adapters._postgres.wire import Connection, ErrorReport

# SQLSTATE, as PostgreSQL documents it.
_INSUFFICIENT_PRIVILEGE = "42501"
_READ_ONLY_TRANSACTION = "25006"
_QUERY_CANCELED = "57014"
_UNDEFINED_COLUMN = "42703"

# Rule 9. Errors whose first line names nothing but objects, by the beginnings of their codes.
_NAMES_OBJECTS = (
    "08",  # the connection
    "23",  # constraints
    "25",  # the state of the transaction
    "40",  # transactions that were rolled back: serialization, deadlock
    "44",  # WITH CHECK OPTION
    "53",  # resources
    "55",  # objects in the wrong state: a lock that is not to be had
    "57",  # what the operator does
    "P0001",  # what a function of the owner's raises
)


class Permitted(NamedTuple):
    """A statement that the grant permits."""

    role: str  # in which it is to run
    needs: Sequence[Access]
    decision: Decision  # the grant's last answer, which says what time it was
    assumed: Assumptions | None  # of the schema


class Judge:
    """One grant, for one caller, on one connection.

    It sends nothing. What it is asked before a statement, after it, and at the end of a block, are
    parts of their own below.
    """

    def __init__(
        self,
        connection: Connection,
        grant: Paying,
        caller: Caller | None,
        assessor: Assessor,
    ) -> None:
        self._connection = connection
        self._grant = grant
        self._caller = caller
        self._assessor = assessor

    # --- before a statement is sent ---

    def judge(self, sql: str, parameters: Sequence[Any]) -> Permitted:
        """Rules 5 and 6. What a statement needs, and in which role it is to run.

        `parameters` are for what it costs, and for nothing else.

        Raises Denied, recorded, where the grant does not permit it. Nothing was sent by then.
        """
        # A token that is over does not get as far as to have its text read.
        decision = self._grant.recheck()
        if not decision:
            self._deny(decision)

        # Each question about it says what it costs.
        self._grant.begin(sql, parameters)
        found = self._assess(sql)

        # The one question that counts, about all of it. `select 1` needs nothing.
        if found.accesses:
            decision = self._ask(found.accesses)
        return self._permitted(found, decision)

    def judge_again(self, sql: str, assessor: Assessor) -> Permitted:
        """The same by what was read since, of a statement that was permitted and undone.

        It is not charged a second time. Raises Denied, recorded.
        """
        self._assessor = assessor
        found = self._assess(sql)
        decision = self._grant.recheck(found.accesses, caller=self._caller)
        if not decision:
            self._deny(decision)
        return self._permitted(found, decision)

    def _assess(self, sql: str) -> Assessment:
        """What it needs. Raises Denied for what stands against it, whatever is asked next."""
        found = self._assessor.assess(sql)
        stands_against = found.refusal is not None or bool(found.unknown)
        if stands_against or found.role is None:
            self._look_closer(found)
        return found

    def _permitted(self, found: Assessment, decision: Decision) -> Permitted:
        # A statement that needs no table gets the narrowest role there is.
        role = found.role or next(iter(self._assessor.catalog.narrowest), None)
        if role is None:
            raise GuardError("the login has no narrow role: `captoken postgres plan` makes one")
        return Permitted(role, found.accesses, decision, found.assumed)

    def _ask(self, accesses: Sequence[Access]) -> Decision:
        """Rule 6. All at once: a statement counts as one use of the token.

        The answer is recorded, whichever it is.
        """
        decision = self._grant.check_all(
            accesses,
            caller=self._caller,
        )
        if not decision:
            raise Denied(decision)
        return decision

    def _look_closer(self, found: Assessment) -> None:
        """What stands against a statement, in an order that tells nothing.

        What the grant says comes first: whoever may not use a table learns nothing else about it,
        and not whether it is there.

        Returns where nothing stands against it but columns that nobody knows, of tables that are
        granted whole. PostgreSQL says that they are not there.
        """
        # What the grant says.
        for access in found.accesses:
            decision = self._rechecked(access)
            if not decision:
                self._deny(decision)

        # What nobody is granted. Of a text that was refused unread there are no accesses.
        if found.refusal is not None:
            code, sentence = found.refusal
            self._refuse(code, sentence)

        # What is in no table, where that would tell something.
        if found.unknown:
            self._deny_column(found.accesses, found.unknown)

        # What the login may not do, though the grant would permit it. Its roles may have been
        # planned anew meanwhile: the next block looks at them again.
        if found.role is None and found.accesses:
            forget(self._connection)
            if found.by_columns:
                self._refuse_columns(found)
            code, sentence, access = self._assessor.catalog.lacking(found.accesses)
            self._refuse(code, sentence, access)

    # --- columns that are missing, or not permitted ---

    def undefined_column(
        self,
        sql: str,
        needs: Sequence[Access],
        message: str,
    ) -> None:
        """After PostgreSQL said that a column is not there. Raises Denied if that tells something.

        In `select id as pay from people where pay = 1`, the text seems to make `pay` itself, and
        PostgreSQL looks for it in the table. If it is there, the role has no right to it; if not,
        this error comes. Both have to be the same answer.
        """
        found = self._assessor.assess(sql)

        # Those that PostgreSQL names. Its message is in the language of the server, and may quote
        # them otherwise: then all that come into question.
        named = sorted(name for name in found.doubtful if f'"{name}"' in message)
        self._deny_column(needs, named or found.doubtful)
        if found.restricted:
            self._refuse_columns(found)

    def _deny_column(self, accesses: Sequence[Access], columns: Collection[str]) -> None:
        """Deny columns that may be missing, if the token restricts the columns of any table here.

        The grant is asked about them as if each table had them. So the answer is the one for a
        column that is there, and is not permitted. Returns where no token restricts columns.
        """
        for access in accesses:
            # It is about all columns, and so was permitted for all of them.
            if access.columns is None:
                continue

            as_if_there = _with_columns(access, columns)
            decision = self._rechecked(as_if_there)
            if decision.code == "column":
                self._deny(decision)

    def _refuse_columns(self, found: Assessment) -> NoReturn:
        """The same, where a role restricts columns, and not the token.

        Raises Denied, without a word on which columns there are.
        """
        # The first access that a role has by columns. None of its columns is said.
        place = min(found.restricted, default=0)
        access = structs.replace(
            found.accesses[place],
            columns=None,
        )
        message = "no role of this login has all the columns that the statement names"
        self._refuse("column", message, access)

    # --- after it ran ---

    def late_denial(self, accesses: Iterable[Access]) -> Decision | None:
        """Rule 11. The denial, if the grant does not permit any more what ran.

        It is not recorded yet: what ran has to be undone first.
        """
        decision = self._grant.recheck(
            accesses,
            caller=self._caller,
        )
        return None if decision else decision

    def deny_late(self, decision: Decision) -> NoReturn:
        """Rule 11. Raises Denied for what `late_denial` found, when it was undone."""
        self._deny(decision)

    def raise_reported(self, error: ErrorReport) -> NoReturn:
        """Rule 9. What of an error of the database is passed on.

        "invalid input syntax for type integer: ..." quotes a value, which can be one of a row that
        a view hides. So the class is passed on, and the first line where it cannot quote a row.
        """
        if error.code in (_INSUFFICIENT_PRIVILEGE, _READ_ONLY_TRANSACTION):
            # Rule 3. The text hid it, and the role or the transaction did not allow it.
            by_policy = "row-level security" in error.message
            by_table = error.code == _INSUFFICIENT_PRIVILEGE and not by_policy
            code = "table" if by_table else "operation"
            self._refuse(code, f"PostgreSQL refused it: {error.message}")

        if error.code == _QUERY_CANCELED:
            # Rule 7. It ran until the token ended, and that is why.
            live = self._grant.recheck()
            if not live:
                self._deny(live)

        # An error at a character of the text quotes the text, which whoever asked has written.
        kind = _kind_of(error)
        if error.placed or not error.code:
            raise kind(error.message)
        if error.code.startswith(_NAMES_OBJECTS):
            raise kind(error.message)

        # All else is taken for one that quotes a row.
        raise kind(
            f"{kind.__name__} ({error.code}): "
            "what PostgreSQL says of it is left out, since it can quote rows"
        )

    # --- what is asked of the grant, and recorded with it ---

    def _rechecked(self, access: Access) -> Decision:
        """What the grant says of one access. No store is asked, and nothing recorded."""
        return self._grant.recheck((access,), caller=self._caller)

    def _refuse(
        self,
        code: str,
        sentence: str,
        access: Access | None = None,
    ) -> NoReturn:
        """A denial of the guard's own: for what no token permits, or no role."""
        raise Denied(self._grant.deny(code, sentence, access))

    def _deny(self, decision: Decision) -> NoReturn:
        """A denial that was found without being recorded."""
        raise Denied(self._grant.deny(decision))


def is_undefined_column(error: ErrorReport) -> bool:
    """Whether PostgreSQL says that a column is not there."""
    return error.code == _UNDEFINED_COLUMN


def _with_columns(access: Access, columns: Collection[str]) -> Access:
    """The access with more columns. One whose name no token can hold stands for all of them."""
    if access.columns is None:
        return access

    together = {*access.columns, *columns}
    try:
        return structs.replace(access, columns=tuple(sorted(together)))
    except ValueError:
        return structs.replace(access, columns=None)


def _kind_of(error: ErrorReport) -> type[psycopg.Error]:
    """psycopg's exception for the error. Without a code, the connection is lost."""
    if not error.code:
        return psycopg.OperationalError
    try:
        return errors.lookup(error.code)
    except KeyError:
        return psycopg.DatabaseError
