"""The PostgreSQL guard: an agent's SQL runs in a narrow role, and only if the grant covers it all.

    with guarded(connection, grant) as db:
        rows = db.execute("select region, sum(amount) from sales group by region").fetchall()

The code cites these rules by their numbers:

 1. The login of the connection is no superuser and owns nothing. It is a member of narrow roles
    only (`captoken postgres plan`).
 2. A block is one transaction, read-only if the grant has no write. `search_path` and the settings
    of the lexer are fixed in it.
 3. A statement runs in the narrowest role that covers what its text needs. If the text hides
    something, that role is refused it.
 4. The text that is sent is the text that was read, byte for byte, except where it must show less
    of a table than the table has (`_postgres/rewriting.py`). It is sent by the extended protocol,
    which takes one statement. If it comes again in the same role, its prepared statement is used.
 5. PostgreSQL's own grammar reads the text before it is sent. It must be one plain statement whose
    functions are on a list. `_postgres/text.py` has the rules T1 to T7 for reading. If the server
    reports that it did something else, the connection is closed.
 6. Each statement asks the grant again, for every table, operation and column, and for `execute` on
    each of your own functions that it calls. If that is denied, nothing was sent.
 7. No statement runs longer than the token is valid, or longer than `timeout`. If the server does
    not end it by then, the connection is closed.
 8. Before the role is set, the guard records who acts for whom: in the server's log, and signed for
    row security.
 9. An error that the statement caused raises a StatementError without the database's message, which
    could quote rows, parameters and names. Other errors keep their class, and the first line if it
    can only name objects. A hidden column is treated as one that does not exist.
10. The guard returns rows, never a cursor. After an error the block continues without the
    statement's effects: from its savepoint, or in a new transaction if the old one had nothing to
    keep.
11. After a statement the grant is asked once more about what it needed. Before a commit, it is
    asked about what was written. A commit without an answer is reported as such, and never
    repeated.
12. A statement is judged by the columns and functions that exist when it runs.
13. For a token with a budget in `rows`, `bytes` or `rows_written`, the amounts are reserved before
    rows are returned or writes are committed (`captoken/adapters/_usage_meter.py`).
14. If a token restricts the rows of a table, statements see only rows that satisfy the restriction.
    A condition in the text and the plan's policy ensure that, and the policy also checks what is
    written. Other ways to reach such rows are denied (`_postgres/held.py`).

Not checked: what a caller infers from counts, failing constraints and times. Nor what views,
triggers and the functions behind operators do with the rights of their owners.

The code is in `_postgres`. Each file states its own rules:

- `block`: who may use a block, and how it ends (11);
- `runner`: one statement, from its text to its answer (10, 11, 12, 13);
- `transaction`: what both send to the server, and its answers (2, 7, 10);
- `logins`: the login, and what its roles may do (1);
- `judging`: the questions to the grant, and the denials (5, 6, 9, 11);
- `assessment`, `rewriting`: what a statement needs, and the text that is sent (3, 4);
- `held`: the token's restrictions on rows (14);
- `faults`: which errors the statement caused (9);
- `assumptions`: what a statement assumes about the schema (12);
- `opening`: what is sent before a statement (2, 3, 7, 8);
- `overrun`: statements that the server does not end in time (7);
- `parameters`, `wire`, `prepared`: sending statements, and reading their rows (4);
- `reader` and the modules below it: the content of a statement (5);
- `roles`, `templates`, `auditing`: making the login and its roles, and checking them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from captoken._format.extras import extra

with extra("postgres"):
    import psycopg

from captoken._language.access import Caller
from captoken._language.costs import Cost
from captoken._verification.grant import Grant
from captoken.adapters._claims import Claim
from captoken.adapters._postgres.auditing import audit
from captoken.adapters._postgres.block import Block
from captoken.adapters._postgres.roles import Role, apply_plan, plan_sql
from captoken.adapters._rows import Rows

__all__ = [
    "AsyncDatabase",
    "Database",
    "Role",
    "Rows",
    "apply_plan",
    "audit",
    "guarded",
    "guarded_async",
    "plan_sql",
]


class Database:
    """The database in a guarded block: use `execute`, or one `execute_once`."""

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        self._block = block

    # called: adapters.database, by `python -m tests.called`
    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Run one statement and fetch its rows.

        Parameters are `$1`, `$2`, as PostgreSQL itself spells them. Raises Denied, GuardError, and
        StatementError if the statement caused an error. Other errors of PostgreSQL pass through
        without details (rule 9). The block continues after each.
        """
        block = self._block
        with block.one_at_a_time():
            steps = block.execute(sql, parameters)
            rows: Rows = block.connection.wait(steps)  # type: ignore[assignment]
        return rows

    def execute_once(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Run the first and only statement of the block, commit, and return its rows after that.

        It commits only if the grant still permits what the statement did. The block is over then in
        any case. A statement that only reads runs in a read-only transaction.

        Raises what `execute` raises, and what a commit raises, such as a deferred constraint.
        Everything is rolled back then. Raises GuardError with the code `outcome_unknown` if the
        connection is lost at the commit. Then it is unknown whether the statement took effect, and
        it is not run again.
        """
        block = self._block
        with block.one_at_a_time():
            steps = block.execute_once(sql, parameters)
            rows: Rows = block.connection.wait(steps)  # type: ignore[assignment]
        return rows

    # end: adapters.database


class AsyncDatabase:
    """The same for an AsyncConnection.

    If `execute_once` is cancelled at the commit, the connection is closed. Then too it is unknown
    whether the statement took effect.
    """

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        self._block = block

    # awaited: adapters.database
    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Run one statement and fetch its rows.

        Parameters are `$1`, `$2`, as PostgreSQL itself spells them. Raises Denied, GuardError, and
        StatementError if the statement caused an error. Other errors of PostgreSQL pass through
        without details (rule 9). The block continues after each.
        """
        block = self._block
        with block.one_at_a_time():
            steps = block.execute(sql, parameters)
            rows: Rows = await block.connection.wait(steps)
        return rows

    async def execute_once(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Run the first and only statement of the block, commit, and return its rows after that.

        It commits only if the grant still permits what the statement did. The block is over then in
        any case. A statement that only reads runs in a read-only transaction.

        Raises what `execute` raises, and what a commit raises, such as a deferred constraint.
        Everything is rolled back then. Raises GuardError with the code `outcome_unknown` if the
        connection is lost at the commit. Then it is unknown whether the statement took effect, and
        it is not run again.
        """
        block = self._block
        with block.one_at_a_time():
            steps = block.execute_once(sql, parameters)
            rows: Rows = await block.connection.wait(steps)
        return rows

    # end: adapters.database


@contextmanager
def guarded(
    connection: psycopg.Connection[Any],
    grant: Grant,
    *,
    caller: Caller | None = None,
    max_rows: int = 100_000,
    timeout: int = 60,
    functions: Iterable[str] = (),
    cost: Cost | None = None,
) -> Generator[Database, None, None]:
    """Guard `connection` for a block, which is one transaction.

    The block commits at its end. An exception rolls it back.

    - `connection` belongs to a login that `captoken postgres plan` made.
    - `caller` is what the server itself knows about the caller. Each access is checked against it.
    - A statement that returns more than `max_rows` rows raises StatementError.
    - A statement that takes more than `timeout` seconds raises QueryCanceled. If the server does
      not end it by then, the connection is closed.
    - `functions` are your own functions that statements may call, as statements spell them
      (`score`, `market.score`), if the grant has `execute` on that name. The guard does not check
      what they do; they run with the role's rights.
    - `cost` is what a statement takes from a budget: a mapping by unit, or a function of statement
      and parameters that returns one. If it raises, nothing was sent. A statement that touches no
      table takes nothing, nor does one that is denied or that fails.

    Raises GuardError for an open transaction, a nested block, a second thread, a connection in
    pipeline mode or not in UTF-8, and a login with too many rights. The roles and their rights are
    read at most every 30 seconds. The columns and functions are read for each block.
    """
    if not isinstance(connection, psycopg.Connection):
        raise TypeError(f"guarded takes a psycopg.Connection, not {type(connection).__name__}")
    # called: adapters.block, by `python -m tests.called`
    block = Block(connection, grant, caller, max_rows, timeout, functions, cost)
    with Claim(connection):
        if block.enter():
            connection.wait(block.read_roles())
        try:
            yield Database(block)
        except BaseException:
            if block.leave():
                connection.wait(block.roll_back())
            raise
        if block.leave(commit=True):
            connection.wait(block.commit())
    # end: adapters.block


@asynccontextmanager
async def guarded_async(
    connection: psycopg.AsyncConnection[Any],
    grant: Grant,
    *,
    caller: Caller | None = None,
    max_rows: int = 100_000,
    timeout: int = 60,
    functions: Iterable[str] = (),
    cost: Cost | None = None,
) -> AsyncGenerator[AsyncDatabase, None]:
    """`guarded` for an AsyncConnection.

    It asks the grant in the event loop, so the grant's stores must be fast.
    """
    if not isinstance(connection, psycopg.AsyncConnection):
        raise TypeError(
            f"guarded_async takes a psycopg.AsyncConnection, not {type(connection).__name__}"
        )
    # awaited: adapters.block
    block = Block(connection, grant, caller, max_rows, timeout, functions, cost)
    with Claim(connection):
        if block.enter():
            await connection.wait(block.read_roles())
        try:
            yield AsyncDatabase(block)
        except BaseException:
            if block.leave():
                await connection.wait(block.roll_back())
            raise
        if block.leave(commit=True):
            await connection.wait(block.commit())
    # end: adapters.block
