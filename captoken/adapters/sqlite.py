"""Guard a SQLite connection: a statement runs only if the grant covers everything that it touches.

    with guarded(connection, grant) as db:
        rows = db.execute("select region, sum(amount) from sales group by region").fetchall()

No single source in SQLite is complete: for some joins, the authorizer is not asked about the
tables. So the guard combines three sources, each in a file of `captoken/adapters/_sqlite`:

- `events`: the questions to the authorizer while SQLite compiles the statement (heard in `watch`);
- `programs`: the *opcodes* of the compiled statement, which open each table that is read;
- `names`: the table names in the text (cut by `lexer`, found by `scopes`).

If the token grants only some columns or rows of a table, SQLite gets a text that has no others
(`parts`, `granted`, `updates`, `held`).

`planner` combines the sources, `permitting` asks the grant, `denials` words the denials, and
`running` runs the statement. `block` says who may use all that, and how it ends. The code cites
these rules by their numbers:

 1. The first word is select, with, values, insert, replace, update or delete.
 2. A block has one authorizer, which refuses everything by default. A running statement may do only
    what was seen when it was compiled.
 3. A statement is compiled under EXPLAIN with a serial number, so that no cached one answers in its
    place.
 4. A cursor is identified by the root page that it opens. Catalogs and virtual tables are never
    granted (except json_each and json_tree).
 5. A cursor that reads needs select. Exceptions are the first pass of an update or delete, and the
    look-ups for foreign keys.
 6. Replacing rows deletes them. RETURNING needs select. Nothing may end the transaction.
 7. Only SQLite's own innocuous functions are allowed. Those that tell about earlier statements are
    refused until the block has written.
 8. Columns are those that the events name, and those that the opcodes read where NATURAL or USING
    hides some.
 9. A missing table is refused like a forbidden one, unless the grant would permit it.
10. A block is one transaction in one thread. It returns rows, never a cursor. The grant is asked
    once more before a statement's rows are returned, and about all writes before they are
    committed.
11. A statement has at most 100,000 bytes, and reading it takes time proportional to its length. A
    statement that SQLite would multiply while compiling is refused (`growth`). So is one about
    which SQLite asks the same question more than 2,000 times. If a statement calls functions, the
    grant is asked as often as there are rows, and the slowest functions get only short values
    (`lengths`).
12. A `Connection` remembers its findings. Each block checks that what they rest on is unchanged.
    Texts that differ only in literals count as one text, with the literals bound as values: that
    text is judged, and that text runs (`shapes`).
13. If the token grants only some columns of a table, the text reads them through the guard's query,
    which has the table's name. So a hidden column does not exist for it. An expression that can
    fail is evaluated only after the row was found, whatever index finds it.
14. For a token with a budget in `rows`, `bytes` or `rows_written`, the amounts are reserved before
    rows are returned or writes are committed (`captoken/adapters/_usage_meter.py`).
15. An error that the statement caused is reported without SQLite's message, which can quote values
    and names (`faults`). Other errors pass unchanged.
16. If the token grants only some rows of a table, the query of rule 13 finds only these, and so
    does each UPDATE and DELETE. Temporary triggers check each written row. Other ways to read or
    write the table are refused, and so are statements that replace rows. If SQLite finds a value
    too long, the statement runs anew, and looks at rows only after they were found.

Not checked: what a caller can infer from row counts, failing constraints and the order in which an
index returns rows. Nor what a hidden value longer than `max_value` tells, in a column that `rows`
names, or in a row that is changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from captoken._format.errors import GuardError
from captoken._language.access import Caller
from captoken._language.costs import Cost
from captoken._verification.grant import Grant
from captoken.adapters._claims import Claim
from captoken.adapters._costed_grant import CostedGrant
from captoken.adapters._rows import Rows
from captoken.adapters._sqlite.block import Block
from captoken.adapters._sqlite.remembered import Connection
from captoken.adapters._sqlite.trial import engine_of
from captoken.adapters._sqlite.watch import MAX_VALUE

__all__ = ["Connection", "Database", "Rows", "guarded"]


class Database:
    """The database in a guarded block: use `execute`, or one `execute_once`."""

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        self._block = block

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Rows:
        """Run one statement and fetch its rows.

        Raises Denied before anything ran, GuardError, and StatementError if the statement caused an
        error. Other errors of SQLite pass through, such as a locked database.
        """
        return self._block.execute(sql, parameters)

    def execute_once(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Rows:
        """Run the only statement of the block, commit, and return its rows after that.

        It commits only if the grant still permits what the statement did. The block is over then.
        Raises what `execute` raises, and GuardError if the block has already run a statement.
        Nothing is committed then.
        """
        return self._block.execute_once(sql, parameters)


@contextmanager
def guarded(
    connection: sqlite3.Connection,
    grant: Grant,
    *,
    caller: Caller | None = None,
    max_rows: int = 100_000,
    max_value: int = MAX_VALUE,
    cost: Cost | None = None,
) -> Generator[Database, None, None]:
    """Guard `connection` for a block, which is one transaction.

    The block commits at its end. An exception rolls it back.

    - `caller` is what the server itself knows about the caller. Each access is checked against it.
    - A statement that returns more than `max_rows` rows raises StatementError.
    - So does a value of more than `max_value` bytes (1 MiB by default). A longer one could keep a
      statement busy beyond the end of its grant.
    - So does a LIKE or GLOB pattern of more than 1,000 bytes.
    - `cost` is what a statement takes from a budget: a mapping by unit, or a function of statement
      and parameters that returns one. If it raises, nothing ran. A statement that touches no table
      takes nothing, nor does one that is denied or that fails.

    Raises GuardError for an open transaction, a nested block, a second thread, and a connection
    that lets a statement choose a converter (PARSE_COLNAMES).

    Afterwards the connection has no authorizer and no progress handler, because SQLite cannot tell
    which ones it had. Python code in the connection (converters, collations, text_factory) belongs
    to the owner and is trusted. Nobody else may use the connection during the block.
    """
    if not isinstance(connection, sqlite3.Connection):
        raise TypeError(f"guarded takes a sqlite3.Connection, not {type(connection).__name__}")
    if type(max_value) is not int or max_value < 1:
        raise ValueError("max_value must be an int of bytes, 1 or more")
    costed = CostedGrant(grant, cost, caller)
    with Claim(connection):
        engine = engine_of(sqlite3.Connection)
        if connection.in_transaction:
            raise GuardError(
                "the connection has an open transaction: commit it, or roll it back, first "
                "(with autocommit=False it always has one)"
            )
        block = Block(connection, costed, engine, max_rows, max_value)
        try:
            block.watch.own("BEGIN")
            try:
                yield Database(block)
            except BaseException:
                block.end("ROLLBACK")
                raise
            block.commit()
        finally:
            block.release()
