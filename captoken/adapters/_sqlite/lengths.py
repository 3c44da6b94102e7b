"""How long one call of a function may take, by the lengths of what it is given (rule 11).

SQLite asks nobody while a function works, and some take time with the product of the lengths of two
arguments. So a program that calls functions is asked often, about as often as it comes to another
row. And where the second argument of the slowest may be long, no value of the statement is:

    select trim(name, ' /') from people       a short string of the text: values as long as ever
    select trim(name, city) from people       no value of more than 16 KiB
    select trim(name) from people             one argument: time goes with its length
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from captoken.adapters._sqlite.opcodes import Instruction, Program

# Bytes of a value, in a statement that looks for one value in another in the slowest way: trim()
# takes five seconds for two of that length.
MAX_COMPARED = 1 << 14

# Bytes of a string of the text that is looked for so: the same, in the longest value there is.
MAX_LOOKED_FOR = 500

_CALLS = frozenset((b"Function", b"PureFunc"))

# As p4 has them, with the number of arguments.
_SLOWEST = frozenset(
    (b"trim(2)", b"ltrim(2)", b"rtrim(2)", b"unhex(2)", b"json_patch(2)", b"jsonb_patch(2)")
)

# In what sets up a program, these have numbers in p2 and p3 that are no places of values.
_NO_PLACES = frozenset((b"Transaction", b"TableLock", b"Goto"))


class Calls(NamedTuple):
    """What a statement calls, with all that it fires."""

    functions: bool = False  # any at all
    compares: bool = False  # one of the slowest, with a second argument that may be long


def calls_of(programs: Iterable[Program]) -> Calls:
    """What the programs of a statement call. Aggregates are none: they take row by row."""
    called = [(program, one) for program in programs for one in program if one[1] in _CALLS]
    return Calls(
        functions=bool(called),
        compares=any(one[5] in _SLOWEST and not _is_short(program, one) for program, one in called),
    )


def _is_short(program: Program, call: Instruction) -> bool:
    """Is the second argument a short string of the text?

    P1 has a bit for each argument that is constant. Such a one has a place of its own, beside the
    first (p2), and is put there once: behind the address that the program begins at (p2 of Init).
    A constant expression may put more than one thing there.
    """
    _, _, constants, first, *_ = call
    if not constants & 0b10:
        return False

    place = first + 1
    puts = [
        (op, p2, p4)
        for _, op, _, p2, p3, p4, *_ in program[program[0][3] :]
        if place in (p2, p3) and op not in _NO_PLACES
    ]
    if len(puts) != 1:
        return False
    op, p2, string = puts[0]
    return op == b"String8" and p2 == place and len(string or b"") <= MAX_LOOKED_FOR
