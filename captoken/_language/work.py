"""How much work a decision is, and what is too much (spec, "Verification", 24.25 and 24.26).

    size_of(value)                  the size of a JSON value that an access states
    fits(access, 10)                is it plain that ten links cannot come to 1 MiB with it?
    is_too_much(links, access)      do they?

A holder writes constraints, and often the values too that these look at. What a decision costs
grows with both together: each link looks at each value again. So the two are added up before any of
them is looked at, and beyond a limit the answer is a denial. Every implementation counts the same:
what is denied here is denied everywhere.

Which pairs there are, each kind of caveat says (`BuiltIn.looks`). An embedder's caveats are none of
these: how long they take is theirs to bound.

Pure counting, in time linear in what is counted, and it ends where the limit is reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from captoken._format.encoding import LIMITS
from captoken._language.access import Access
from captoken._language.caveats import is_own
from captoken._language.kinds import BuiltIn, Looked
from captoken._language.link import Link
from captoken._language.reasons import Refusal

MOST = 1 << 20

_SCALAR = 24  # of a number, a boolean, null
_AROUND = 2  # quotes of a string, brackets of an array or object
_ITEM = 16  # of each item of an array or object, beside what it holds

# A list is encoded to count its bytes alone: its order and spelling do not change them.
_encode = msgspec.json.encode

# No string of a token is in it.
REFUSAL = Refusal(
    "too_much_work",
    f"the constraints, with the values they check, are larger than {MOST}",
)


def size_of(value: Any, most: int = MOST) -> int:
    """The size of a JSON value (24.26), or a number above `most` once it is beyond that.

        size_of("eu")        # 4
        size_of([1, "eu"])   # 2 + 16 + 24 + 16 + 4

    Level by level, all values of a level at once: a client sends as many as it likes.
    """
    size = 0
    level: Sequence[Any] = (value,)
    while level and size <= most:
        strings = [one for one in level if type(one) is str]
        arrays = [one for one in level if type(one) in _ARRAYS]
        objects = [one for one in level if type(one) is dict]
        scalars = len(level) - len(strings) - len(arrays) - len(objects)
        size += _SCALAR * scalars + _AROUND * (len(level) - scalars)
        size += len("".join(strings).encode())

        # Counted before they are gone into, so that no level is longer than the limit has room for.
        items = sum(map(len, arrays)) + sum(map(len, objects))
        size += _ITEM * items
        if size <= most:
            level = [*chain(*arrays), *chain(*objects), *chain(*(one.values() for one in objects))]
    return size


_ARRAYS = (list, tuple)  # columns are a tuple


def is_too_much(links: Iterable[Link], access: Access) -> bool:
    """Do the links look at more of the access than a decision may (24.25)? It counts."""
    # One value may be looked at by every link: its size is worked out once.
    sizes: dict[int, int] = {}
    work = 0
    for stated, value in looked(links, access):
        same = id(value)
        if same not in sizes:
            sizes[same] = size_of(value)
        work += len(_encode(stated)) + sizes[same]
        if work > MOST:
            return True
    return False


def looked(links: Iterable[Link], access: Access) -> Iterator[Looked]:
    """What each constraint and list is, as it travels, with the value that it looks at."""
    for link in links:
        for caveat in link.late:
            if isinstance(caveat, BuiltIn) and not is_own(caveat.key):
                yield from caveat.looks(access)


# The links of a token and of its discharges have no more bytes than their texts together spell.
_ROOM = MOST - LIMITS.token_chars * (1 + LIMITS.discharges) * 3 // 4
_NAMES = 3 * (256 + _AROUND)  # a table, and an operation, which two lists look at
_COLUMN = 256 + _AROUND + _ITEM
_OF_A_BYTE = _ITEM + _SCALAR  # each value has a byte of its own as JSON, and a string all of its
_FEW = 1 << 14


def fits(access: Access, links: int) -> bool:
    """Is it seen sooner that so many links of one token cannot look at too much? A no says nothing.

    A few sums, since it is asked at each decision. No link looks at a fact twice.
    """
    is_of_rows = access.row or access.becomes or access.rows
    if not (access.columns or access.arguments or access.attributes or is_of_rows):
        return True  # names alone: as many links as there can be do not come near
    most = _NAMES
    if access.rows:
        spelled = _OF_A_BYTE * len(_encode(access.rows))
        most += spelled if spelled < _FEW else size_of(access.rows)
    elif is_of_rows:
        most += sum(at_most(row) for row in (access.row, access.becomes) if type(row) is dict)
    if access.columns:
        most += _AROUND + _COLUMN * len(access.columns)  # type: ignore[arg-type]
    if access.arguments:
        most += at_most(access.arguments)
    if access.attributes:
        most += at_most(access.attributes)
    return most * links <= _ROOM


def at_most(facts: Any) -> int:
    """No less than the size of a value, and counted sooner if it has few others in it.

    A string has at most 4 bytes a character, and its quotes are less than a scalar.
    """
    if type(facts) is not dict:
        return size_of(facts)
    most = _AROUND + (_ITEM + 2 * _SCALAR) * len(facts)
    for name, value in facts.items():
        kind = type(value)
        if kind is str:
            most += 4 * len(value)
        elif kind in _HOLDERS:
            most += size_of(value)
        if type(name) is str:
            most += 4 * len(name)
    return most


_HOLDERS = (*_ARRAYS, dict)
