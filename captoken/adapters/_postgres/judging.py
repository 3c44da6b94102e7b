"""What the grant says of a statement: rules 5, 6, 9 and 11 of `postgres`.

A statement is judged in this order. The first that stands against it is the answer:

1. the token itself: it may have expired, or been revoked;
2. the text: it is no statement that is granted to anybody (T1, T2, T6);
3. the grant, for each table, operation and column that the text needs;
4. the roles of the login, which may have fewer columns than the grant;
5. functions and types that are not granted (T6, T7);
6. the roles of the login, which may have fewer tables and operations;
7. the grant once more, for all of it together. This time it counts, and is recorded.

In 3, a column counts that a table may have, where the text leaves that in doubt (T4). Where nothing
is doubted, and nothing stands against it in 4 to 6, 3 is left out: 7 asks the same.

Denials are recorded here, and nowhere else. Each of them says as little as it can. Where a token or
a role restricts something, it is the same answer whether that is missing or not permitted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from msgspec import structs

from captoken._format.extras import extra

with extra("postgres"):
    import psycopg
    from psycopg import errors

from captoken._format.errors import GuardError
from captoken._language.access import Access, Caller
from captoken._verification.decision import Decision, Denied
from captoken._verification.mistakes import mistake, named
from captoken.adapters._costed_grant import CostedGrant
from captoken.adapters._postgres.assessment import Assessment, Assessor, type_refused
from captoken.adapters._postgres.assumptions import Assumptions
from captoken.adapters._postgres.faults import mistaken
from captoken.adapters._postgres.logins import forget
from captoken.adapters._postgres.wire import Connection, ErrorReport
from captoken.adapters._usage_meter import UsageMeter

# SQLSTATE, as PostgreSQL documents it.
_INSUFFICIENT_PRIVILEGE = "42501"
_READ_ONLY_TRANSACTION = "25006"
_QUERY_CANCELED = "57014"
_UNDEFINED_TABLE = "42P01"

# Those that are about names, about types, and about how many columns there are. A name that is not
# there, and one that is there and has another type, are to be one answer.
_ABOUT_NAMES = frozenset(
    (
        _INSUFFICIENT_PRIVILEGE,
        "42601",  # a syntax error that the grammar does not find: too many expressions
        "42701",  # a column that is named twice
        "42702",  # an ambiguous column
        "42703",  # a column that is not there
        "42704",  # something else that is not there
        "42725",  # an ambiguous function
        "42804",  # a type that is another one than is needed
        "42809",  # something that is of another kind: a table, a function
        "42846",  # a cast that is not there
        "42883",  # a function or an operator that is not there, for these types
        "42P01",  # a table that is not there
        "42P08",  # a parameter with two types
        "42P10",  # a reference to a column: more names than columns
        "42P18",  # a type that cannot be told
        "42P21",  # two collations
        "42P22",  # a collation that cannot be told
    )
)

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


# The denials that are about what is asked for, and not about the token or who asks.
_ABOUT_DATA = frozenset(("column", "operation", "table"))

# Whether a function writes (`execute`), nobody knows before it did.
_WRITES = frozenset(("insert", "update", "delete"))


class Permitted(NamedTuple):
    """A statement that the grant permits."""

    # The database role the statement runs as.
    role: str
    needs: Sequence[Access]

    # The grant's last answer, which says what time it was.
    decision: Decision

    # What this plan assumes about the schema.
    assumed: Assumptions | None

    # What it takes of the token's budgets (rule 13).
    meter: UsageMeter


class Judge:
    """One grant, for one caller, on one connection.

    It sends nothing. What it is asked before a statement, after it, and at the end of a block, are
    parts of their own below.
    """

    def __init__(
        self,
        connection: Connection,
        grant: CostedGrant,
        caller: Caller | None,
        assessor: Assessor,
        max_rows: int,
    ) -> None:
        self._connection = connection
        self._grant = grant
        self._caller = caller
        self._assessor = assessor
        self._max_rows = max_rows

    # --- before a statement is sent ---

    def judge(self, sql: str, parameters: Sequence[Any]) -> Permitted:
        """Rules 5 and 6. What a statement needs, and in which role it is to run.

        `parameters` are for what it costs, and for nothing else.

        Raises Denied, recorded, where the grant does not permit it. Nothing was sent by then.
        """
        # A token that is over does not get as far as to have its text read. Where it was read
        # before, what is asked below says it.
        if not self._assessor.remembers(sql):
            self._check_alive()

        # Each question about it says what it costs.
        self._grant.begin(sql, parameters)
        found = self._assess(sql)

        # The one question that counts, about all of it.
        meter = self._take(found.accesses, sql)
        decision = meter.decision or self._check_alive()
        return self._permitted(found, decision, meter)

    def _check_alive(self) -> Decision:
        """What is asked where no table is. Raises Denied, recorded, if the token is over."""
        decision = self._grant.recheck()
        if not decision:
            self._deny(decision)
        return decision

    def judge_again(self, sql: str, assessor: Assessor, meter: UsageMeter) -> Permitted:
        """The same by what was read since, of a statement that was permitted and undone.

        It is not charged a second time, and goes on with the account that it has. Raises Denied,
        recorded.
        """
        self._assessor = assessor
        found = self._assess(sql)
        decision = self._grant.recheck(found.accesses, caller=self._caller)
        if not decision:
            self._deny(decision)
        meter.begin_again()
        return self._permitted(found, decision, meter)

    def _assess(self, sql: str) -> Assessment:
        """What it needs. Raises Denied for what stands against it, whatever is asked next."""
        found = self._assessor.assess(sql)
        if self._stands_something_against(found):
            self._look_closer(found, sql)
        return found

    def _stands_something_against(self, found: Assessment) -> bool:
        """Whether a statement has to be looked at closer. Mostly nothing is asked for that."""
        if found.refusal is not None or found.role is None:
            return True
        if found.types or found.nowhere is not None:
            return True

        # T4. Columns that are doubted.
        if found.asked == found.accesses:
            return False
        return not self._grant.recheck(found.asked, caller=self._caller)

    def _permitted(self, found: Assessment, decision: Decision, meter: UsageMeter) -> Permitted:
        # A statement that needs no table gets the narrowest role there is.
        role = found.role or next(iter(self._assessor.catalog.narrowest), None)
        if role is None:
            raise GuardError("the login has no narrow role: `captoken postgres plan` makes one")
        return Permitted(role, found.accesses, decision, found.assumed, meter)

    def _take(self, accesses: Sequence[Access], sql: str) -> UsageMeter:
        """Rule 6. All at once: a statement counts as one use of the token.

        The answer is recorded, whichever it is. A denial reads as one that was found beforehand.
        """
        try:
            return self._grant.take(
                accesses,
                caller=self._caller,
                most_rows=self._max_rows,
                writes=any(access.operation in _WRITES for access in accesses),
            )
        except Denied as denied:
            decision = denied.decision
        raise Denied(self._as_told(decision, sql))

    def _as_told(self, decision: Decision, sql: str) -> Decision:
        """A denial in the words of the text: the same whichever of its columns are there."""
        if decision.code not in _ABOUT_DATA:
            return decision
        for access in self._assessor.told(sql).asked:
            told = self._rechecked(access)
            if not told:
                return told
        return decision

    def _look_closer(self, found: Assessment, sql: str) -> None:
        """What stands against a statement, in an order that tells nothing.

        What the grant says comes first: whoever may not use a table learns nothing else about it,
        and not whether it is there. Columns that are doubted are asked about like all others. What
        is denied then is what the text says, whichever of its columns are there (`Told`).

        Returns where nothing stands against it after all.
        """
        # What the grant says.
        decision = self._grant.recheck(found.asked, caller=self._caller)
        if not decision:
            self._deny(self._as_told(decision, sql))

        # What the login may not do for its columns alone, though the grant would permit it. Before
        # what follows, which is another answer for a column that is there than for one that is not.
        # Its roles may have been planned anew meanwhile: the next block looks at them again.
        lacks_role = found.role is None and bool(found.asked)
        if lacks_role and found.by_columns:
            forget(self._connection)
            self._refuse_columns(sql)

        # What nobody is granted. Of a text that was refused unread there are no accesses. Else it
        # may be for a column that is new: the next block looks at them again.
        if found.refusal is not None:
            if found.asked:
                forget(self._connection)
            code, sentence = found.refusal
            self._refuse(code, sentence)

        # T6. Of an enum it is a column that is granted.
        for name, uses in found.types:
            if not any(self._rechecked(use) for use in uses):
                self._refuse("operation", type_refused(name))

        # What else the login may not do.
        if lacks_role:
            forget(self._connection)
            asked = self._assessor.told(sql).asked
            code, sentence, access = self._assessor.catalog.lacking(asked)
            self._refuse(code, sentence, access)

        # As of an error of PostgreSQL's, if it were not for a function that goes by the other name.
        if found.nowhere is not None:
            raise mistake("name", _UNDEFINED_TABLE, named(sql, found.nowhere))

    # --- columns that are missing, or not permitted ---

    def misnamed(self, sql: str, error: ErrorReport) -> None:
        """After an error of PostgreSQL. Raises Denied if it could tell of what is restricted.

        That is one about names, types, or how many columns there are, where the token or a role
        restricts the columns of a table. By then no name was found that the error is about. So this
        is for what was misread, or changed meanwhile. The answer is one for all of them. It is the
        same for a mistake that is about nothing but what was granted.
        """
        if error.code not in _ABOUT_NAMES:
            return

        told = self._assessor.told(sql)
        for place, access in enumerate(told.asked):
            whole = structs.replace(access, columns=None)
            by_token = self._rechecked(whole).code == "column"
            if by_token or place in told.restricted:
                message = (
                    "PostgreSQL refused a name, a type or a number of columns in it, and which is "
                    f"not told: columns of table {access.table} are restricted"
                )
                self._refuse("column", message, whole)

    def _refuse_columns(self, sql: str) -> NoReturn:
        """The same, where a role restricts columns, and not the token.

        Raises Denied, without a word on which columns there are.
        """
        # The first access that a role has by columns. None of its columns is said.
        told = self._assessor.told(sql)
        place = min(told.restricted, default=0)
        access = structs.replace(
            told.asked[place],
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
        """Raise what an error of the database comes to, where no statement runs: at a commit."""
        self.deny_reported(error, ())
        raise self.reported("", error)

    def deny_reported(self, error: ErrorReport, needs: Sequence[Access]) -> None:
        """Raises Denied for an error that says no: of role, row security, transaction or time."""
        if error.code in (_INSUFFICIENT_PRIVILEGE, _READ_ONLY_TRANSACTION):
            # Rule 3. The text hid it, and the role or the transaction did not allow it.
            by_policy = "row-level security" in error.message
            by_table = error.code == _INSUFFICIENT_PRIVILEGE and not by_policy
            code = "table" if by_table else "operation"
            access = _refused_access(error, needs, or_any=not by_table)
            self._refuse(code, f"PostgreSQL refused it: {error.message}", access)

        if error.code == _QUERY_CANCELED:
            # Rule 7. It ran until the token ended, and that is why.
            live = self._grant.recheck()
            if not live:
                self._deny(live)

    def reported(self, sql: str, error: ErrorReport) -> Exception:
        """Rule 9. What is raised for an error of the database that is no denial.

        "invalid input syntax for type integer: ..." quotes a value, which can be one of a row that
        a view hides. So nothing of what it says is passed on where the statement is at fault. Else
        it is PostgreSQL's own class, with the first line where that cannot quote a row.
        """
        fault = mistaken(sql, error)
        if fault is not None:
            return fault

        kind = _kind_of(error)
        if not error.code or error.code.startswith(_NAMES_OBJECTS):
            return kind(error.message)
        return kind(
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
