"""Files that are taken anew while a service runs, on SIGHUP and when one has changed; and a trail.

A file that has changed counts once it has stayed the same from one look to the next: else half of
it could be taken for all of it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from captoken.adapters._told import Told

if TYPE_CHECKING:
    from captoken.adapters._http.exchange import Receive, Scope, Send
    from captoken.adapters.issuance import IssuanceService, Setup
    from captoken.audit._kept import TrailKept

# Seconds after which a checkpoint signs what the trail has, at most.
SIGN_EVERY = 60

# What a file looks like from outside; None, if it is not there.
_Look: TypeAlias = tuple[int, int, int] | None


class Watched:
    """Files, and how they looked when they were read: to be made before that."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._taken = self._seen = self._looks()

    def changed(self) -> bool:
        """Look. Are they others than those that were read, and the same as at the last look?"""
        before, self._seen = self._seen, self._looks()
        return before == self._seen != self._taken

    def take(self) -> None:
        """They are read now."""
        self._taken = self._seen

    def _looks(self) -> list[_Look]:
        return [_look(path) for path in self._paths]


class Reloading:
    """The application of a service, which takes its files anew. It ends along with the service."""

    def __init__(
        self,
        service: IssuanceService,
        load: Callable[[], Setup],
        watched: Watched,
        every: float,
        trail: TrailKept | None = None,
    ) -> None:
        """`load` reads the files that are watched; `every` is the seconds between two looks."""
        self._service = service
        self._load = load
        self._watched = watched
        self._every = every
        self._trail = trail
        self._signed = monotonic()
        self._told = Told()

    def tell(self) -> None:
        """Have the files taken anew, soon. For handlers of signals, and from whichever thread."""
        self._told.tell()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await self._service(scope, receive, send)
        watching = asyncio.create_task(self._watch(), name="files of the service")
        try:
            return await self._service(scope, receive, send)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        """Look, and look again."""
        while True:
            was_told = await self._told.within(self._every)
            # Looked at before they are read: what changes meanwhile is read again.
            has_changed = self._watched.changed()
            if has_changed or was_told:
                self._watched.take()
                await self._service.reload(self._load)
            if self._trail is not None and monotonic() - self._signed >= SIGN_EVERY:
                self._trail.sign()
                self._signed = monotonic()


def _look(path: str) -> _Look:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
