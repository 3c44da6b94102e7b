"""What has ended is put into the overlay, so that servers hear it that know nothing of the issuer.

The registry is first: an end is written there, and is due from then on. Here it is published, and
only then marked. Whatever fails or restarts in between, it is tried again. An entry that is put
there twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from captoken._format.clocks import CLOCKS_DIFFER, Clock, read_clock
from captoken._format.errors import CaptokenError, OverlayError, StoreError
from captoken.control import Operator
from captoken.issuance.registry import Registry, Unpublished

_log = logging.getLogger("captoken.issuance")

# Seconds until the next look, where nobody wakes it: another process may have written an end, and
# have died before it published it. After a failure it is sooner.
EVERY = 10.0
AGAIN = 1.0

# Seconds that the last try may take, when the service ends.
PATIENCE = 5.0


class Publisher:
    """Publishes what is due, in a task of its own. For one event loop at a time: `close` it.

    Without an operator nothing is published. What nobody has to hear any more is marked all the
    same, so that the registry forgets it.
    """

    def __init__(
        self,
        registry: Registry,
        operator: Operator | None,
        clock: Clock,
    ) -> None:
        """Begins nothing yet: `wake` does."""
        self._registry = registry

        # May be another one from then on; each change is said by one.
        self.operator = operator
        self._clock = clock

        # The task and what wakes it are of the loop that runs now.
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._closing = False

    def wake(self) -> None:
        """Publish now. Begins the task, if there is none: not every server has a lifespan."""
        if self._task is None or self._task.done():
            self._woken = asyncio.Event()  # the old one may be another loop's
            self._closing = False
            self._task = asyncio.create_task(
                self._run(),
                name="publisher of ends",
            )
        self._woken.set()

    async def close(self) -> None:
        """Try once more, and end the task. What is still due then stays due in the registry."""
        if self._task is None or self._task.done():
            return
        self._closing = True
        self._woken.set()

        # A store that hangs must not keep the server from ending: what is due stays due.
        await asyncio.wait((self._task,), timeout=PATIENCE)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Look, and look again: when it is woken, and after a while."""
        while not self._closing:
            # First, so that what is written while it looks wakes it again.
            self._woken.clear()
            stands = await asyncio.to_thread(self.publish)
            pause = EVERY if stands else AGAIN
            try:
                await asyncio.wait_for(self._woken.wait(), pause)
            except TimeoutError:
                continue

        # What was written while the last look was under way.
        await asyncio.to_thread(self.publish)

    def publish(self) -> bool:
        """Publish what is due, in its order. Does all of it stand? Blocks, and never raises."""
        stands = True
        try:
            due = self._registry.unpublished()
        except Exception as error:
            _log.error("what has ended cannot be read, and so not be published: %s", error)
            return False

        for change in due:
            try:
                if self._is_heard(change):
                    self._registry.published(change.number)
            # Whatever a store raises: the next end must not wait for it.
            except Exception as error:
                task = change.task.id
                _log.error("the end of task %s is not published yet: %s", task, error)
                stands = False
        return stands

    def _is_heard(self, change: Unpublished) -> bool:
        """Put it into the overlay, until no server takes the task's tokens any more.

        False: nobody puts it there. Raises what the operator raises.
        """
        until = change.task.deadline + CLOCKS_DIFFER
        if until <= read_clock(self._clock):
            return True
        operator = self.operator
        if operator is None:
            return False

        task = change.task.id
        if change.narrowing is None:
            _end(operator, task, until)
        else:
            _narrow(operator, task, until, change.narrowing)
        return True


def _end(operator: Operator, task: str, until: int) -> None:
    """No server takes the task's tokens any more. Raises what the operator raises."""
    operator.revoke(
        task=task,
        until=until,
        why="the login that started it has ended",
    )


def _narrow(operator: Operator, task: str, until: int, narrowing: bytes) -> None:
    """By the keywords of the grant. A task that no overlay can narrow so ends.

    Raises StoreError and OverlayError: then it is tried again.
    """
    keywords: dict[str, Any] = msgspec.json.decode(narrowing)
    try:
        operator.narrow(
            task=task,
            until=until,
            why="an event about who started it",
            **keywords,
        )
    # It may be said later.
    except (StoreError, OverlayError):
        raise
    # It can never be said: a keyword that is no request's, for one.
    except (CaptokenError, TypeError, ValueError) as error:
        _log.error("task %s ends, since it cannot be narrowed: %s", task, error)
        _end(operator, task, until)
