"""A block in which a context variable has a value: for what adapters keep beside `current`.

    with context_value(_call, call):
        answer = handler(request)    # and whatever it calls finds the call

A variable of a context, and not a global: other requests of the process do not see it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from typing import Any, TypeVar

_T = TypeVar("_T")


def context_value(variable: ContextVar[_T], value: _T) -> AbstractContextManager[None]:
    """In this block `variable` has that value; after it, what it had before.

    Tasks that are started in the block keep the value, as with any context variable. Threads do not
    get it. Raises ValueError at the end where the block is left in another context than it was
    entered in, as a generator can be. It is for one `with`.
    """
    return _ContextValue(variable, value)


class _ContextValue:
    """The block of `context_value`.

    It is a class, since a generator costs a tool call three times as much.
    """

    __slots__ = ("_before", "_value", "_variable")
    _before: Token[Any]

    def __init__(self, variable: ContextVar[Any], value: Any) -> None:
        self._variable = variable
        self._value = value

    def __enter__(self) -> None:
        self._before = self._variable.set(self._value)

    def __exit__(self, *raised: object) -> None:
        self._variable.reset(self._before)
