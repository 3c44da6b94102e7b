"""The opcodes of SQLite's virtual machine that tell what a program touches, as EXPLAIN spells them.

The opcodes are the second of the guard's three accounts (`captoken.adapters.sqlite`). EXPLAIN is no
stable interface, so `trial` tries each build. An opcode that opens something and is not known here
is refused; so is every opcode that does more than read and write rows. What p1 to p5 mean is in
SQLite's own documentation (https://sqlite.org/opcode.html).
"""

from __future__ import annotations

import itertools
import sqlite3
from typing import NamedTuple

# address, opcode, p1, p2, p3, p4, p5, comment
Instruction = tuple[int, bytes, int, int, int, bytes | None, int, bytes | None]
Program = list[Instruction]


class Engine(NamedTuple):
    """What was found out about a build of SQLite."""

    shows_replaced: bool  # do the opcodes show that a REPLACE deletes rows? (rule 6)


# Cursors on a table or an index: p1 is the cursor, p2 the root page, p3 the database (rule 4).
OPENS = frozenset(
    (
        b"OpenRead",
        b"ReopenIdx",  # the same, unless the cursor is open there already
        b"OpenWrite",
    )
)

# Cursors on what the statement itself has made.
SCRATCH = frozenset(
    (
        b"OpenEphemeral",  # a table in memory: a sort, a subquery, a DISTINCT
        b"OpenAutoindex",  # an index in memory, for one join
        b"OpenDup",  # another cursor on one of those
        b"OpenPseudo",  # a row in a register
    )
)

# What no statement that a token may grant compiles to.
NEVER = frozenset(
    (
        # It writes, makes, drops or renames a virtual table.
        b"VUpdate",
        b"VCreate",
        b"VDestroy",
        b"VRename",
        # It changes the schema, or what is read of it.
        b"ParseSchema",
        b"LoadAnalysis",
        b"Destroy",
        b"CreateBtree",
        b"DropTable",
        b"DropIndex",
        b"DropTrigger",
        # It reads or sets a number in the header of the file (PRAGMA user_version).
        b"ReadCookie",
        b"SetCookie",
        # It runs other SQL, which nobody has looked at.
        b"SqlExec",
        # It works on the file as a whole, or tells of it.
        b"Vacuum",
        b"IncrVacuum",
        b"JournalMode",
        b"Checkpoint",
        b"IntegrityCk",
        b"MaxPgcnt",
        b"Pagecount",
        # It ends the transaction, or a part of it.
        b"AutoCommit",
        b"Savepoint",
    )
)

# All that is looked at, beside whatever begins with Open.
TELLING = (
    OPENS
    | NEVER
    | frozenset(
        (
            b"VOpen",  # a cursor on a virtual table
            b"Clear",  # all rows of a table or an index go
            b"Delete",  # one row goes
            b"Halt",  # the end, or an error
            b"HaltIfNull",  # an error, for NOT NULL
        )
    )
)

# Of an OpenRead or OpenWrite, in p5: p2 is no root page, but a register that holds one.
PAGE_IN_REGISTER = 0x10

# Of a Delete, in p2: it is the first half of an update, and no row vanishes.
HALF_OF_UPDATE = 4

# Of a Halt or HaltIfNull, in p2: what it does to the transaction. 1 is OE_Rollback.
ROLLBACK = 1

# The flag in p5 of an Insert that sets the result of last_insert_rowid().
SETS_LAST_ROWID = 0x20

# What reads the columns that a cursor is sought or compared by (rule 8).
BY_KEY = frozenset(
    (
        # Go to a key, or to the next one beyond it.
        b"SeekGE",
        b"SeekGT",
        b"SeekLE",
        b"SeekLT",
        # Compare the key where the cursor is.
        b"IdxGE",
        b"IdxGT",
        b"IdxLE",
        b"IdxLT",
        # Is there such a key?
        b"Found",
        b"NotFound",
        b"NoConflict",
        b"IfNoHope",
    )
)

# The opcodes that read the rowid (rule 8).
BY_ROWID = frozenset(
    (
        b"Rowid",  # of a row of a table
        b"IdxRowid",  # of the row that an index points to
        b"SeekRowid",  # is there a row with it?
        b"NotExists",
    )
)

# The opcodes that read any column of a row (rule 8).
WHOLE_ROW = frozenset(
    (
        b"Column",  # the one at place p2, if it is known
        b"RowData",
        b"RowCell",
        b"Offset",
    )
)

# The opcodes that move a cursor or read its row.
_MOVES = (
    BY_KEY
    | BY_ROWID
    | frozenset(
        (
            b"Column",
            b"Rewind",
            b"Last",
            b"Next",
            b"Prev",
            b"DeferredSeek",  # of an index: to the row of the table, once it is read
            b"FinishSeek",
            b"SeekScan",
        )
    )
)

# All opcodes that have a cursor in p1.
ON_CURSOR = _MOVES | frozenset(
    (
        b"RowData",
        b"RowCell",
        b"Count",
        b"Sort",
        b"NullRow",
        b"IfEmpty",
        b"IfSizeBetween",
        b"Offset",
        b"Insert",
        b"Delete",
    )
)

# What the search for the children of a foreign key consists of (rule 5): moves, copies,
# comparisons and jumps. Nothing that hands on what it has found.
_IN_LOOKUP = _MOVES | frozenset(
    (
        b"Null",
        b"Copy",
        b"SCopy",
        b"Integer",
        b"IsNull",
        b"NotNull",
        b"MustBeInt",
        b"Affinity",
        b"Eq",
        b"Ne",
        b"Lt",
        b"Le",
        b"Gt",
        b"Ge",
        b"Param",
        b"Goto",
        b"Noop",
        b"Explain",
        b"ColumnsUsed",
    )
)


def decoded(name: bytes) -> str:
    """A name that SQLite gave as bytes. What is no UTF-8 becomes U+FFFD, which is never granted."""
    return name.decode("utf-8", "replace")


def lookups(program: Program) -> set[int]:
    """The addresses where a program opens cursors that only foreign keys look at (rule 5).

    There are two shapes. A parent is asked whether it is there, then the counter or the error
    follows, then its cursor is closed. Children are scanned, and nothing is done but to count them.

        INSERT INTO child …                   DELETE FROM parent …

        15  OpenRead   1  4   parent          11  OpenRead   1  5      child
        16  NotExists  1  18  is it there?    12  Rewind     1  17
        17  Goto       0  19                  13  Column     1  1      whose child is it?
        18  Halt       787    no: an error    14  Ne         3  16
        19  Close      1                      15  FkCounter  0  1      count it
                                              16  Next       1  13

    A cursor that is used for anything else is neither, and needs select: what a statement reads
    for itself cannot pass for a look-up.
    """
    found: set[int] = set()
    for at, (instruction, following) in enumerate(itertools.pairwise(program)):
        if following[1] == b"Close" and _tells_of_parent(instruction):
            found.update(_opened_for_parent(program, following[2]))
        elif instruction[1] == b"FkCounter":
            found.update(_opened_for_children(program, at))
    return found


def _tells_of_parent(instruction: Instruction) -> bool:
    """Does it count a parent that is missing, or fail for one?"""
    _, op, p1, *_ = instruction
    if op == b"FkCounter":
        return True
    return op == b"Halt" and p1 == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY


def _opened_for_parent(program: Program, cursor: int) -> list[int]:
    """Where the cursor is opened, if nothing else is done with it than to ask for one key."""
    uses = _uses(program, cursor)
    if any(op not in (b"OpenRead", b"NotExists", b"Found") for _, op in uses):
        return []
    return [address for address, op in uses if op == b"OpenRead"]


def _opened_for_children(program: Program, at: int) -> list[int]:
    """Where the cursors of the scan are opened that the FkCounter at `at` counts for.

    The scan is what stands before it: first the cursors, then moves and comparisons alone. A cursor
    belongs to it if nothing outside of the scan uses it.
    """
    _, following, *_ = program[at + 1]
    end = at + 1 if following in (b"Next", b"Prev") else at
    start = at - 1
    while start > 0 and program[start][1] in _IN_LOOKUP:
        start -= 1

    found: list[int] = []
    while start > 0 and program[start][1] == b"OpenRead":
        uses = _uses(program, program[start][2])
        if all(start <= address <= end for address, _ in uses):
            found.append(start)
        start -= 1
    return found


def _uses(program: Program, cursor: int) -> list[tuple[int, bytes]]:
    """Address and opcode of all that is done with a cursor, wherever in the program."""
    return [
        (address, op)
        for address, op, p1, *_ in program
        if p1 == cursor and (op in ON_CURSOR or op in OPENS)
    ]
