"""Mappings of a caller's, read once.

A mapping may be of any class, and answer differently each time it is asked. What is checked in one
reading and used by another is not what was checked. So whoever takes one makes a plain dict of it
first, then checks that, and then uses nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def read_once(given: Any, what: str) -> dict[Any, Any]:
    """What a mapping says now, in a dict of its own. Keys and values are as they were given.

    Raises TypeError for what is no mapping, and what the mapping raises. Does not look into the
    values: a mapping in it is read by whoever knows what it means.
    """
    if type(given) is dict:
        return given.copy()
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} must be a mapping, not {type(given).__name__}")
    return dict(given.items())
