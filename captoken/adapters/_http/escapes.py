"""Percent-escapes, as queries, forms and paths have them, without a step of Python's for each byte.

The standard library's `unquote` takes a step for each percent sign, whatever stands behind it: a
megabyte of them holds an event loop for a second.

    unescaped(b"q=%63ap1")      # b"q=cap1"
    fields(b"a=1&b=%20", 32)    # [("a", "1"), ("b", " ")]
"""

from __future__ import annotations

import re
from string import hexdigits

# Split by these, the digits of each escape stand between what is as it came.
_escapes = re.compile(rb"%([0-9A-Fa-f]{2})").split
_BYTES = {f"{a}{b}".encode(): bytes((int(a + b, 16),)) for a in hexdigits for b in hexdigits}


def unescaped(data: bytes) -> bytes:
    """What `data` stands for. A percent sign that begins no escape stands for itself."""
    if b"%" not in data:
        return data
    parts = _escapes(data)
    parts[1::2] = [_BYTES[digits] for digits in parts[1::2]]
    return b"".join(parts)


def values_in(query: bytes, name: bytes) -> list[str]:
    """What the fields of that name say, however the name is escaped: as frameworks read a query."""
    split = (field.replace(b"+", b" ").partition(b"=") for field in query.split(b"&"))
    named = [value for key, _, value in split if unescaped(key) == name]
    return [unescaped(value).decode("utf-8", "replace") for value in named]


def fields(form: bytes, most: int) -> list[tuple[str, str]]:
    """The names and values of a form, in their order, of at most so many.

    Raises ValueError for more, for a field without `=`, and for what is no ASCII or, unescaped, no
    UTF-8.
    """
    if form.count(b"&") >= most:
        raise ValueError(f"the form has more than {most} fields")
    if not form.isascii():
        raise ValueError("a form must be ASCII")
    pairs = []
    for field in form.split(b"&") if form else ():
        name, equals, value = field.replace(b"+", b" ").partition(b"=")
        if not equals:
            raise ValueError("the form has a field without a value")
        pairs.append((unescaped(name).decode(), unescaped(value).decode()))
    return pairs
