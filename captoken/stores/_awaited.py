"""What the stores of asyncio have in common, and how to write once what both kinds of store do.

What asks a server several things, one after the other, is written as a generator: it yields a call,
and is sent what the call gave. `at_once` makes the calls; `one_by_one` awaits them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, Lock, get_running_loop
from collections.abc import Callable, Generator
from typing import Any, ClassVar, Self, TypeAlias, TypeVar

from captoken._format.errors import StoreError
from captoken.stores.own_process import OwnProcess

T = TypeVar("T")
Steps: TypeAlias = Generator[Callable[[], Any], Any, T]


def at_once(steps: Steps[T]) -> T:
    """Make the calls, one after the other. What a call raises goes into the steps."""
    try:
        call = next(steps)
        while True:
            # Told out of the block, so that what the steps raise does not have the error of the
            # client hung on it.
            failed: Exception | None = None
            answer: Any = None
            try:
                answer = call()
            except Exception as error:
                failed = error
            call = steps.send(answer) if failed is None else steps.throw(failed)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def one_by_one(steps: Steps[T]) -> T:
    """The same, each call awaited."""
    try:
        call = next(steps)
        while True:
            failed: Exception | None = None
            answer: Any = None
            try:
                answer = await call()
            except Exception as error:
                failed = error
            call = steps.send(answer) if failed is None else steps.throw(failed)
    except StopIteration as stop:
        result: T = stop.value
        return result


class AwaitedStore(ABC):
    """A store whose calls are awaited, in one event loop of one process: StoreError elsewhere.

    To make one asks the server nothing. What another store asks when it is made, this one asks at
    its first call, or in `open`. Until that has gone well, each call tries it anew.
    """

    awaited: ClassVar[bool] = True

    def __init__(self) -> None:
        self._process = OwnProcess()
        self._loop: AbstractEventLoop | None = None
        self._opening = Lock()
        self._is_open = False

    async def open(self) -> Self:
        """Ask the server now whether it will do, and whether the store is there.

        So a service hears of it when it starts, and not with its first request. Raises StoreError.
        """
        self._check_home()
        if self._is_open:
            return self

        async with self._opening:
            await self._opened()
        return self

    async def _opened(self) -> None:
        """Ask first what has to be asked, unless another task has done it meanwhile."""
        if not self._is_open:
            await self._first()
            self._is_open = True

    @abstractmethod
    async def _first(self) -> None:
        """What has to be asked before anything else. Raises StoreError."""

    def _check_home(self) -> None:
        """Raise StoreError in a forked child, and in another event loop than the first.

        A connection of another process, or of another loop, would give one the other's answers.
        """
        if not self._process.is_own():
            raise StoreError("this store is awaited, and belongs to another process")

        loop = get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise StoreError("this store is awaited in one event loop: make one for each")
