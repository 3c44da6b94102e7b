"""The PostgreSQL guard: an agent's SQL runs in a narrow role, and only if the grant covers it all.

    with guarded(connection, grant) as db:
        rows = db.execute("select region, sum(amount) from sales group by region").fetchall()

What it enforces, by rules that the code cites:

 1. The login of the connection is no superuser and owns nothing. It is a member of narrow roles
    alone (`captoken postgres plan`).
 2. A block is one transaction, read-only where the grant has no write. In it, `search_path` and
    the settings of the lexer are pinned.
 3. A statement runs in the narrowest role that covers what the text needs. What the text hides,
    that role is refused.
 4. The text that is sent is the text that was read, byte for byte, but for the places that show
    less of a table than it has (`_postgres/rewriting.py`). It goes by the extended protocol, which
    takes one statement. Where it comes again in the same role, it goes by the name that it was
    prepared under.
 5. Before it is sent, it is read by PostgreSQL's own grammar: one plain statement, whose functions
    are on a list. How it is read has rules of its own, T1 to T7, in `_postgres/text.py`. Where the
    server says that it did something else, the connection is closed.
 6. Each statement asks the grant anew, for every table, operation and column, and for `execute` on
    each function of yours that it calls. A denial of that kind sent nothing.
 7. No statement runs longer than the token lives, or than `timeout`. One that the server does not
    end by then costs the connection.
 8. Who acts, for whom, is noted before the role is taken on: in the server's log, and signed for
    row security.
 9. Where the statement is at fault, a StatementError is raised. Nothing is passed on then of what
    the database says: it can quote rows, parameters and names. Of any other error the class is
    passed on, and the first line of a kind that names nothing but objects. A column that is hidden
    is one that is not there.
10. It hands back rows, never a cursor. After an error the block goes on without what the statement
    did: from its savepoint, or in a new transaction where the old one had nothing to keep.
11. What a statement needed is asked about once more when it is done. What was written is asked
    about before it is committed. A commit that is not answered is told as that, and is made once.
12. A statement is judged by the columns and functions that there are when it runs.
13. Of a token with a budget in `rows`, `bytes` or `rows_written`, what is handed out and written is
    counted, and reserved before it is handed out or committed
    (`captoken/adapters/_usage_meter.py`).
14. Of a table whose rows a token restricts, those that satisfy it are all that there are: by a
    condition in the text, and by the plan's policy, which holds what is written, too. What reaches
    such rows by other ways is denied (`_postgres/held.py`).

Not checked: what a caller infers from counts, failing constraints and times. Nor what views,
triggers and the functions behind operators do with the rights of their owners.

The code behind it is in `_postgres`, with the rules of each file:

- `block`: who may use a block, and how it ends (11);
- `runner`: one statement, from its text to its answer (10, 11, 12, 13);
- `transaction`: what the server is told for both, and what it answers (2, 7, 10);
- `logins`: the login and what its roles may do (1);
- `judging`: what the grant is asked, and what is denied (5, 6, 9, 11);
- `assessment`, `rewriting`: what a statement needs, and what of it is sent (3, 4);
- `held`: what a token says of rows (14);
- `faults`: which errors are the statement's own fault (9);
- `assumptions`: what a statement takes for granted of the schema (12);
- `opening`: what goes ahead of a statement (2, 3, 7, 8);
- `overrun`: what the server does not end in time (7);
- `parameters`, `wire`, `prepared`: how a statement is sent, and its rows are read (4);
- `reader` and what it builds on: what a statement says (5);
- `roles`, `templates`, `auditing`: how the login and its roles are made, and looked at.
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
    """What a guarded block works with: `execute` and `execute_once`, and nothing else."""

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        self._block = block

    # called: adapters.database, by `python -m tests.called`
    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Run one statement and fetch its rows.

        Parameters are `$1`, `$2`, as PostgreSQL itself spells them. Raises Denied, StatementError
        for a statement that is at fault, GuardError, or what else PostgreSQL raises, without its
        details (rule 9). The block goes on after each.
        """
        block = self._block
        with block.one_at_a_time():
            steps = block.execute(sql, parameters)
            rows: Rows = block.connection.wait(steps)  # type: ignore[assignment]
        return rows

    def execute_once(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Run the first and only statement of the block, commit it, and hand out its rows.

        It is committed only if the grant permits it still when it is done. Whatever comes of it,
        the block is over. A statement that only reads runs in a read-only transaction.

        Raises what `execute` does, and what a commit does: a constraint that is checked late, say.
        All that is rolled back. Raises GuardError with the code `outcome_unknown` where the
        connection is lost at the commit. Then the statement may stand, and is not run again.
        """
        block = self._block
        with block.one_at_a_time():
            steps = block.execute_once(sql, parameters)
            rows: Rows = block.connection.wait(steps)  # type: ignore[assignment]
        return rows

    # end: adapters.database


class AsyncDatabase:
    """The same for an AsyncConnection.

    Where `execute_once` is canceled at the commit, the connection is closed. Then nobody knows
    whether the statement stands, either.
    """

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        self._block = block

    # awaited: adapters.database
    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Run one statement and fetch its rows.

        Parameters are `$1`, `$2`, as PostgreSQL itself spells them. Raises Denied, StatementError
        for a statement that is at fault, GuardError, or what else PostgreSQL raises, without its
        details (rule 9). The block goes on after each.
        """
        block = self._block
        with block.one_at_a_time():
            steps = block.execute(sql, parameters)
            rows: Rows = await block.connection.wait(steps)
        return rows

    async def execute_once(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Run the first and only statement of the block, commit it, and hand out its rows.

        It is committed only if the grant permits it still when it is done. Whatever comes of it,
        the block is over. A statement that only reads runs in a read-only transaction.

        Raises what `execute` does, and what a commit does: a constraint that is checked late, say.
        All that is rolled back. Raises GuardError with the code `outcome_unknown` where the
        connection is lost at the commit. Then the statement may stand, and is not run again.
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
    """Own `connection` for a block, which is one transaction.

    It is committed at its end, and rolled back by an exception.

    `connection` is that of a login that `captoken postgres plan` made. `caller` is what the
    server itself knows of who calls, and is asked about with every access. A statement that
    yields more than `max_rows` rows raises StatementError; one that takes more than `timeout`
    seconds, QueryCanceled. Where the server does not end it by then, the connection is closed.

    `functions` are those of your own that may be called, as the statement spells them (`score`,
    `market.score`), by a grant that has `execute` on that name. What they do is not looked at, and
    the role's rights are theirs.

    `cost` says what a statement takes of a budget: a mapping by unit, or a function of statement
    and parameters that gives one. What it raises passes through, before anything is sent. A
    statement that touches no table takes nothing, nor does one that is denied or at fault.

    Raises GuardError for an open transaction, a nested block, a second thread, a connection in
    pipeline mode or not in UTF-8, and a login that is no narrow one. Which roles there are and
    what they may do is read once in 30 seconds. Which columns and functions there are is asked
    with each block.
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
    """`guarded`, for an AsyncConnection.

    The grant is asked in the event loop: its stores are to be quick.
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
