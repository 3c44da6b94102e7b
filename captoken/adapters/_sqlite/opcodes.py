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


def _opcodes(names: str) -> frozenset[bytes]:
    return frozenset(names.encode().split())


# Cursors on a table or an index: p1 is the cursor, p2 the root page, p3 the database (rule 4).
OPENS = _opcodes("OpenRead ReopenIdx OpenWrite")

# Cursors on what the statement itself has made.
SCRATCH = _opcodes("OpenEphemeral OpenAutoindex OpenDup OpenPseudo")

# What no statement that a token may grant compiles to: it changes the schema or the file, ends the
# transaction, runs other SQL, or tells of the database as a whole.
NEVER = _opcodes(
    "VUpdate VCreate VDestroy VRename ParseSchema LoadAnalysis ReadCookie SetCookie Destroy "
    "CreateBtree DropTable DropIndex DropTrigger SqlExec Vacuum IncrVacuum JournalMode Checkpoint "
    "AutoCommit Savepoint IntegrityCk MaxPgcnt Pagecount"
)

# All that is looked at, beside whatever begins with Open.
TELLING = OPENS | NEVER | _opcodes("VOpen Clear Delete Halt HaltIfNull")

# Of an OpenRead or OpenWrite, in p5: p2 is no root page, but a register that holds one.
PAGE_IN_REGISTER = 0x10

# Of a Delete, in p2: it is the first half of an update, and no row vanishes.
HALF_OF_UPDATE = 4

# Of a Halt or HaltIfNull, in p2: what it does to the transaction. 1 is OE_Rollback.
ROLLBACK = 1

# Of an Insert, in p5: it sets what last_insert_rowid() tells.
SETS_LAST_ROWID = 0x20

# What reads the columns that a cursor is sought or compared by.
BY_KEY = _opcodes(
    "SeekGE SeekGT SeekLE SeekLT IdxGE IdxGT IdxLE IdxLT Found NotFound NoConflict IfNoHope"
)

# What reads the rowid.
BY_ROWID = _opcodes("Rowid IdxRowid SeekRowid NotExists")

# What reads any of the columns of a row.
WHOLE_ROW = _opcodes("Column RowData RowCell Offset")

# What moves a cursor or reads its row.
_MOVES = (
    BY_KEY | BY_ROWID | _opcodes("Column Rewind Last Next Prev DeferredSeek FinishSeek SeekScan")
)

# All opcodes that have a cursor in p1.
ON_CURSOR = _MOVES | _opcodes(
    "RowData RowCell Count Sort NullRow IfEmpty IfSizeBetween Offset Insert Delete"
)

# What the search for the children of a foreign key consists of: moves, comparisons, jumps.
_IN_LOOKUP = _MOVES | _opcodes(
    "Null Copy SCopy Integer IsNull NotNull MustBeInt Affinity Eq Ne Lt Le Gt Ge Param Goto Noop "
    "Explain ColumnsUsed"
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
