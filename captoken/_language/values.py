"""Readers of the JSON values that caveats are made of: each returns its argument or raises.

`what` says, for the message, what the value is. They raise TypeError for another type of value and
ValueError for a value that says nothing, or too much.
"""

from __future__ import annotations

from typing import Any

from captoken._format.encoding import MAX_INTEGER
from captoken._format.spelling import shown


def a_list(value: Any, what: str) -> list[Any]:
    if type(value) is not list:
        raise TypeError(f"{what} must be a list, not {type(value).__name__}")
    return value


def an_object(value: Any, what: str, like: str = "") -> dict[str, Any]:
    if type(value) is not dict:
        raise TypeError(f"{what} must be a mapping, not {type(value).__name__}{like}")
    return value


def not_empty(value: dict[str, Any], what: str) -> dict[str, Any]:
    if not value:
        raise ValueError(f"{what} that is empty says nothing")
    return value


def an_integer(value: Any, what: str) -> int:
    if type(value) is not int:
        raise TypeError(f"{what} must be an integer, not {type(value).__name__}")
    return value


def a_bounded_integer(value: Any, what: str) -> int:
    """An integer that every JSON reader reads alike."""
    if not -MAX_INTEGER <= an_integer(value, what) <= MAX_INTEGER:
        raise ValueError(f"{what} {shown(value)} is of magnitude 2^53 or more")
    return int(value)
