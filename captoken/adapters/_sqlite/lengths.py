"""How long one call of a function may take, by the lengths of what it is given (rule 11).

SQLite asks nobody while a function works, and some take time with the product of the lengths of two
arguments. So a program that calls functions is asked often, about as often as it comes to another
row. And where the second argument of the slowest may be long, no value of the statement is:

    select trim(name, ' /') from people       a short string of the text: values as long as ever
    select trim(name, city) from people       no value of more than 16 KiB
    select trim(name) from people             one argument: time goes with its length

And whether one can fail at all, by what it is given: `abs(id)`, or a text that gets too long. What
can fail would tell of rows that it is asked about before others are (rule 13).
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


# What gives a value or NULL, whatever it is given. By name, without the number of arguments.
_NEVER_FAIL = frozenset(
    (
        b"ceil",
        b"ceiling",
        b"date",
        b"datetime",
        b"floor",
        b"instr",
        b"julianday",
        b"length",
        b"lower",
        b"ltrim",
        b"max",
        b"min",
        b"mod",
        b"octet_length",
        b"pow",
        b"power",
        b"random",
        b"round",
        b"rtrim",
        b"sign",
        b"sqrt",
        b"substr",
        b"substring",
        b"time",
        b"trim",
        b"trunc",
        b"typeof",
        b"unicode",
        b"unixepoch",
        b"upper",
    )
)

# What fails for a pattern or a form that is long, and is given that first.
_FAIL_FOR_LONG = frozenset((b"like(2)", b"glob(2)", b"strftime(-1)"))


class Calls(NamedTuple):
    """What a statement calls, with all that it fires."""

    functions: bool = False  # any whose time goes with a length
    compares: bool = False  # one of the slowest, with a second argument that may be long


def calls_of(programs: Iterable[Program]) -> Calls:
    """What the programs of a statement call. Aggregates are none: they take row by row."""
    called = [
        (program, one)
        for program in programs
        for one in program
        if one[1] in _CALLS and one[5] != b"typeof(1)"  # of the conditions on rows (rule 16)
    ]
    return Calls(
        functions=bool(called),
        compares=any(_is_slow(program, one) for program, one in called),
    )


def can_fail(program: Program) -> bool:
    """Can what the program computes of a row fail?

    Aggregates are no matter: they are given a row when all has been asked about it.
    """
    calls = [one for one in program if one[1] in _CALLS]
    if any(op in (b"Concat", b"VFilter") for _, op, *_ in program):
        return True
    return any(_can_call_fail(program, call) for call in calls)


def _can_call_fail(program: Program, call: Instruction) -> bool:
    """Can a call of this function fail? A function that shortens the longest values can."""
    function = call[5] or b""
    if function in _FAIL_FOR_LONG:
        return not _is_short(program, call, 0)
    return _is_slow(program, call) or function.partition(b"(")[0] not in _NEVER_FAIL


def _is_slow(program: Program, call: Instruction) -> bool:
    """Is it one of the slowest, with a second argument that may be long?"""
    return call[5] in _SLOWEST and not _is_short(program, call, 1)


def _is_short(program: Program, call: Instruction, argument: int) -> bool:
    """Is the argument a short string of the text? The first is 0.

    P1 has a bit for each argument that is constant. Such a one has a place of its own, beside the
    first (p2), and is put there once: behind the address that the program begins at (p2 of Init).
    A constant expression may put more than one thing there.
    """
    _, _, constants, first, *_ = call
    if not constants & (1 << argument):
        return False

    place = first + argument
    puts = [
        (op, p2, p4)
        for _, op, _, p2, p3, p4, *_ in program[program[0][3] :]
        if place in (p2, p3) and op not in _NO_PLACES
    ]
    if len(puts) != 1:
        return False
    op, p2, string = puts[0]
    return op == b"String8" and p2 == place and len(string or b"") <= MAX_LOOKED_FOR
