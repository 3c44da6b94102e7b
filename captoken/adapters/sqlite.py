"""Guard a SQLite connection: a statement runs only if the grant covers all that it touches.

    with guarded(connection, grant) as db:
        rows = db.execute("select region, sum(amount) from sales group by region").fetchall()

No single account that SQLite gives is complete: the authorizer is not asked about the tables of
some joins. So three are added up, each in a file of `captoken/adapters/_sqlite`:

- `events`: what SQLite asks its authorizer while it compiles the statement (heard in `watch`);
- `programs`: the *opcodes* of the compiled statement, which open each table that is read;
- `names`: what the text puts where a table stands (cut by `lexer`, found by `scopes`).

Where the token grants some columns or rows of a table, SQLite is given a text that has no others
(`parts`, `granted`, `updates`, `held`).

`planner` adds them up, `permitting` asks the grant, `denials` words what is refused, and `running`
runs what is not; `block` says who may use it all, and how it ends. These are the rules. Each is
cited by its number where it is enforced.

 1. The first word is select, with, values, insert, replace, update or delete.
 2. One authorizer for the block, closed by default. A statement that runs may do what was seen of
    it, and nothing else.
 3. A statement is seen by compiling it under EXPLAIN with a serial number, so that no cached one
    answers in its place.
 4. A cursor is known by the root page it opens. Catalogs and virtual tables (but json_each,
    json_tree) are never granted.
 5. A cursor that reads needs select, except the first pass of an update or delete, and the look-ups
    of foreign keys.
 6. To replace rows is to delete them. RETURNING needs select. Nothing may end the transaction.
 7. Functions are SQLite's own and innocuous. Those that tell of earlier statements are refused
    until the block wrote.
 8. Columns are what the events name and, where NATURAL or USING hides some, what the opcodes read.
 9. A table that is missing is refused like a forbidden one, unless the grant would permit it.
10. A block is one transaction in one thread. It hands back rows, never a cursor. What a statement
    did is asked about once more before its rows are handed out, and what the block wrote before it
    is committed.
11. A statement has at most 100,000 bytes, and is read in time with its length. So is it compiled:
    one that SQLite would multiply is refused (`growth`), and so is one about which it asks the same
    more than 2,000 times. Where functions are called, the grant is asked about as often as there
    are rows; and the slowest of them get short values (`lengths`).
12. A `Connection` remembers what was found out. Each block asks whether the ground of it is still
    the same. Texts that differ in literals alone are one, with these bound as values: that text is
    judged, and that text runs (`shapes`).
13. Of a table of which the token grants some columns, a text reads those by a query of the guard's
    that has the table's name, and by nothing else. So a hidden name is one that is not there. What
    can fail is asked of a row once the row is there, whatever index finds it.
14. Of a token with a budget in `rows`, `bytes` or `rows_written`, what is handed out and written is
    counted, and reserved before it is handed out or committed
    (`captoken/adapters/_usage_meter.py`).
15. Where the statement is at fault, nothing is passed on of what SQLite says: it can quote values
    and names (`faults`). Other errors pass as they are.
16. Of a table of which the token grants some rows, the query of rule 13 has these, and so does each
    UPDATE and DELETE. Temporary triggers hold what is written, row by row. What reads or writes the
    table by another way is refused, and so is what replaces rows.

Not checked: what row counts, failing constraints and the order in which an index yields rows let a
caller infer.
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
    """What a guarded block works with: `execute`, or one `execute_once`, and nothing else."""

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        self._block = block

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Rows:
        """Run one statement and fetch its rows.

        Raises Denied before anything ran, StatementError for a statement that is at fault, and
        GuardError. What else SQLite raises passes through: a database that is locked, say.
        """
        return Rows(*self._block.execute(sql, parameters))

    def execute_once(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Rows:
        """Run the only statement of the block, commit, and hand out its rows after that.

        The commit is made only if the grant still permits what the statement did. The block is over
        then. Raises as `execute` does, also for a block that ran a statement before; nothing is
        committed then.
        """
        return Rows(*self._block.execute_once(sql, parameters))


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
    """Own `connection` for a block, which is one transaction.

    It is committed at its end, and rolled back by an exception. `caller` is what the server itself
    knows of who calls, and is asked about with every access. A statement that yields more than
    `max_rows` rows raises StatementError. So does one with a value of more than `max_value` bytes,
    1 MiB unless given, since it could keep a statement busy beyond the end of its grant. And so
    does a pattern of LIKE or GLOB of more than 1,000 bytes.

    `cost` says what a statement takes of a budget: a mapping by unit, or a function of statement
    and parameters that gives one. What it raises passes through, before anything ran. A statement
    that touches no table takes nothing, nor does one that is denied or at fault.

    Raises GuardError for an open transaction, for a nested block, in a second thread, and for a
    connection that lets a statement choose a converter (PARSE_COLNAMES).

    Afterwards the connection has no authorizer and no progress handler: SQLite cannot tell which
    ones it had. What is Python in the connection (converters, collations, text_factory) is the
    owner's and trusted. Nobody else may use it while the block lasts.
    """
    if not isinstance(connection, sqlite3.Connection):
        raise TypeError(f"guarded takes a sqlite3.Connection, not {type(connection).__name__}")
    if type(max_value) is not int or max_value < 1:
        raise ValueError("max_value must be a number of bytes, 1 or more, as int")
    if not isinstance(grant, Grant):
        raise TypeError(
            f"a {type(grant).__name__} is no Grant: only a verifier hands one out, as "
            "verifier.authenticate(token)"
        )
    with Claim(connection):
        engine = engine_of(sqlite3.Connection)
        if connection.in_transaction:
            raise GuardError(
                "the connection has an open transaction: commit it, or roll it back, first "
                "(with autocommit=False it always has one)"
            )
        block = Block(connection, CostedGrant(grant, cost), engine, caller, max_rows, max_value)
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
