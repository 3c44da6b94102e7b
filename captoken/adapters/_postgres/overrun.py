"""Rule 7 of `postgres`, from outside: what the server does not end by itself, in time.

The server ends a statement at its `statement_timeout`, wherever it looks whether it should. Some
functions do not look, over one long value. A network that is gone says nothing at all. So the
waiting has an end, too:

    0 s             the statement is sent
    its limit       the server ends it
    _GRACE later    it is asked to, over a connection of its own
    _PATIENCE later the connection is closed, and whoever waits gets an error

A server that is busy within such a function goes on until that is done, and rolls back then.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import Any

from psycopg import capabilities, errors

# Both are in seconds.
_GRACE = 1.0
_PATIENCE = 2.0


def bounded(pgconn: Any, steps: Any, seconds: float) -> Any:
    """Run the steps for so long, and a little more.

    Raises QueryCanceled where they do not come to an end. Whoever runs this closes the connection.
    """
    until = monotonic() + seconds + _GRACE
    asked = False
    try:
        waits_for = next(steps)
        while True:
            # Some time goes by in here, a tenth of a second at most.
            ready = yield waits_for
            if monotonic() > until:
                if asked:
                    raise errors.QueryCanceled(
                        "the statement did not end in time: the connection is closed"
                    )
                ask_to_cancel(pgconn)
                asked = True
                until = monotonic() + _PATIENCE
            waits_for = steps.send(ready)
    except StopIteration as done:
        return done.value
    finally:
        steps.close()


def ask_to_cancel(pgconn: Any) -> None:
    """Ask the server to cancel what it does. Does not wait for an answer.

    In a thread, since the asking can take as long as the network does.
    """
    ask: Callable[[], None]
    if capabilities.has_cancel_safe():
        ask = pgconn.cancel_conn().blocking
    else:
        ask = pgconn.get_cancel().cancel
    Thread(target=_quietly, args=(ask,), daemon=True).start()


def _quietly(ask: Callable[[], None]) -> None:
    """Ignore errors in the block. The connection is then closed a little later."""
    with suppress(Exception):
        ask()
