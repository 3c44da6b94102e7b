"""What the stores of asyncio have in common: one process, one event loop, and who asks first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, Lock, get_running_loop, timeout
from typing import ClassVar, Self

from captoken._format.errors import StoreError
from captoken.stores.own_process import OwnProcess


class AwaitedStore(ABC):
    """A store whose calls are awaited, in one event loop of one process: StoreError elsewhere.

    To make one asks the server nothing. What another store asks when it is made, this one asks at
    its first call, or in `open`. Until that has gone well, each call tries it anew.
    """

    awaited: ClassVar[bool] = True

    # Seconds that a call has.
    _timeout: float

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

        # Wait for another task that asks no longer than for an answer of our own.
        try:
            async with timeout(self._timeout):
                await self._opening.acquire()
        except TimeoutError:
            pass
        else:
            try:
                await self._opened()
            finally:
                self._opening.release()
            return self
        raise StoreError(
            f"this store did not open within {self._timeout:g} seconds: nothing was sent"
        )

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
            raise StoreError(
                "this store is async, and belongs to another process: make one in each process"
            )

        loop = get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise StoreError(
                "this store is async, and belongs to another event loop: make one for each loop"
            )
