"""The second account: what the opcodes of a compiled statement open, read and write.

A program can touch a table only by a cursor, and a cursor is opened on a root page (rule 4). So no
table is left out here, as it can be of the events. Rules of `captoken.adapters.sqlite` are cited.

    SELECT region FROM sales WHERE id IN (SELECT id FROM hr)

    addr  opcode     p1  p2
    0     Init       0   12
    1     OpenRead   0   2      cursor 0 on page 2, which is sales
    3     OpenRead   2   3      cursor 2 on page 3, which is hr
    4     Rewind     2   11
    5     Rowid      2   1      reads the id of hr
    7     SeekRowid  0   10     compares it with the id of sales
    8     Column     0   1      reads the column at place 1 of sales: region
    9     ResultRow  2   1
    10    Next       2   5
    11    Halt       0   0
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property

from captoken.adapters._sqlite.account import ENDS_IT, Account
from captoken.adapters._sqlite.catalog import Catalog, Object
from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.naming import Key
from captoken.adapters._sqlite.opcodes import (
    HALF_OF_UPDATE,
    OPENS,
    PAGE_IN_REGISTER,
    ROLLBACK,
    SCRATCH,
    SETS_LAST_ROWID,
    TELLING,
    Engine,
    Instruction,
    Program,
    decoded,
    lookups,
)


class Programs:
    """A compiled statement: its own program, then those of the triggers and foreign keys it fires.

    EXPLAIN lists them one after the other. Each begins at address 0, and names its trigger there in
    p4: `-- TRIGGER t`. Only the programs of foreign keys (ON DELETE CASCADE) have no name.
    """

    def __init__(self, instructions: Iterable[Instruction]) -> None:
        self.all: list[Program] = []
        for instruction in instructions:
            if instruction[0] == 0:
                self.all.append([])
            self.all[-1].append(instruction)

    @cached_property
    def fired(self) -> set[str]:
        """The triggers whose programs are part of the statement's, folded."""
        names = [program[0][5] for program in self.all[1:]]
        return {fold(decoded(name).removeprefix("-- TRIGGER ")) for name in names if name}

    @property
    def returns_rows(self) -> bool:
        """Does the statement itself hand back rows? One that writes does with RETURNING."""
        return any(op == b"ResultRow" for _, op, *_ in self.all[0])

    @property
    def sets_last_rowid(self) -> bool:
        """Does the statement itself set what last_insert_rowid() tells?"""
        return any(
            op == b"Insert" and p5 & SETS_LAST_ROWID for _, op, _, _, _, _, p5, _ in self.all[0]
        )


def add_programs(
    account: Account, programs: Programs, catalog: Catalog, engine: Engine
) -> list[Reading]:
    """Add what the opcodes of all programs open and do, and give back what their cursors read."""
    readings: list[Reading] = []
    for number, program in enumerate(programs.all):
        of_foreign_key = number > 0 and program[0][5] is None
        reading = Reading(account, program, catalog, engine, of_foreign_key)
        reading.add()
        readings.append(reading)
    return readings


class Reading:
    """One program that is read, opcode by opcode.

    `of_foreign_key`: it does what a foreign key says is to be done, and reads for nothing else.
    """

    def __init__(
        self,
        account: Account,
        program: Program,
        catalog: Catalog,
        engine: Engine,
        of_foreign_key: bool,
    ) -> None:
        self.account = account
        self.program = program
        self.catalog = catalog
        self.engine = engine
        self.of_foreign_key = of_foreign_key
        self.roots = catalog.schema.roots

        # What its cursors read: tables and indexes, by the number of the cursor.
        self.by_cursor: defaultdict[int, set[Object]] = defaultdict(set)

        # Addresses where foreign keys alone open cursors (rule 5).
        self.lookups: set[int] = set()

        # Cursors that write, with their tables.
        self.written: set[tuple[int, Key]] = set()

        # Of an index's cursor: the cursor of the table, where the row will be read if it has to be.
        self.defers: dict[int, int] = {}
        if account.writes:
            self._prepare()

    def _prepare(self) -> None:
        """Find what rules 5 and 6 compare with. A statement that only reads needs none of it."""
        self.lookups = lookups(self.program)
        for _, op, p1, p2, p3, *_ in self.program:
            if op == b"OpenWrite" and (p3, p2) in self.roots:
                self.written.add((p1, self.roots[p3, p2].key))
            elif op == b"DeferredSeek":
                self.defers[p1] = p3

    def add(self) -> None:
        """Add all that tells. Most opcodes compute, jump, or move a cursor that was opened."""
        for instruction in self.program:
            op = instruction[1]
            if op in TELLING or op.startswith(b"Open"):
                self._add_one(instruction)

    def _add_one(self, instruction: Instruction) -> None:
        """One opcode that opens a cursor, deletes rows, or may be one that is never granted."""
        address, op, p1, p2, p3, p4, p5, _ = instruction
        if op in OPENS:
            # p2 is the root page, p3 the number of the database. With the page in a register, it
            # cannot be told what is opened.
            entry = None if p5 & PAGE_IN_REGISTER else self.roots.get((p3, p2))
            self._open(address, op, p1, entry)
        elif op == b"Clear":
            # DELETE without WHERE. Here p1 is the page, and p2 the database.
            self._clear(self.roots.get((p2, p1)))
        elif op == b"VOpen":
            # Rule 4: a virtual table can read anything. Only json_each and json_tree do not.
            if p4 not in self.catalog.harmless_modules:
                self.account.refuse_table()
        elif op == b"Delete":
            # p4 is the table, and missing where an index is cleaned up after it.
            if p4 and not p2 & HALF_OF_UPDATE:
                self._delete(p1, decoded(p4))
        elif op in (b"Halt", b"HaltIfNull"):
            # Rule 6: RAISE(ROLLBACK), ON CONFLICT ROLLBACK. p1 is the error; 0 is the normal end.
            if p1 and p2 == ROLLBACK:
                self.account.refuse("operation", ENDS_IT)
        elif op not in SCRATCH:
            # What is left is one of NEVER, or opens something that is not known here.
            self.account.refuse("operation", f"the statement compiles to {decoded(op)}")

    def _open(self, address: int, op: bytes, cursor: int, entry: Object | None) -> None:
        """A cursor on the rows of a table or an index. None: a catalog, or nobody knows what.

        Whichever of the two reads it counts as select on the table, unless rule 5 says otherwise.
        """
        account = self.account
        if entry is None:
            # Rule 4: a catalog is never granted, and neither is what cannot be told.
            account.refuse_table()
        elif op == b"OpenWrite":
            # AUTOINCREMENT keeps its counters in sqlite_sequence, and no event tells of it.
            if entry.key not in account.writes and entry.table != "sqlite_sequence":
                account.refuse("operation", "a write that the authorizer was not asked about")
        elif self._is_first_pass(cursor, entry):
            pass  # rule 5: needs no more than the write
        elif self.of_foreign_key or address in self.lookups:  # rule 5
            account.looked_up.add(entry.key)
        else:
            account.selects.add(entry.key)
            self.by_cursor[cursor].add(entry)

    def _is_first_pass(self, cursor: int, entry: Object) -> bool:
        """Rule 5: does the cursor find the rows that an update or a delete is about?

        `UPDATE sales SET … WHERE region = 'eu'` reads sales to find them, and needs no more than
        update. In `UPDATE sales SET … WHERE id IN (SELECT …)`, the subquery has cursors of its own.

        It does if it is on the table that is updated or deleted from, and the same cursor writes;
        or if it is on an index, and puts off the look at the row to a cursor that writes. An insert
        finds its AUTOINCREMENT counter in sqlite_sequence the same way.
        """
        account = self.account
        key = entry.key
        if (
            key not in account.updates
            and key not in account.deletes
            and entry.table != "sqlite_sequence"
        ):
            return False
        return (cursor, key) in self.written or (self.defers.get(cursor), key) in self.written

    def _clear(self, entry: Object | None) -> None:
        """Note that all rows of a table are deleted at once."""
        if entry is None:
            # Rule 4, as in `_open`.
            self.account.refuse_table()
        else:
            self.account.deletes.add(entry.key)

    def _delete(self, cursor: int, table: str) -> None:
        """Rule 6: a row of a table goes, perhaps since another one takes its place.

        Only some builds say so in the opcodes. For the others the text is asked (`names`).
        """
        if not self.engine.shows_replaced:
            return
        for writer, key in self.written:
            if writer == cursor and key[1] == table:
                self.account.deletes.add(key)
