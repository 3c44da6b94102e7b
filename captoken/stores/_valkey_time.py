"""By when a call of a store on Valkey has its answer: for clients that a thread calls.

Such a client waits as long as its settings say: at each step of a call anew, and again at each
attempt. So a store takes a copy of the client whose connections know by when the call is over. The
client itself stays as it is. Nothing is imported of valkey-py or redis-py: what stands here holds
for the classes that a client was made with.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cache
from threading import local
from time import monotonic
from typing import Any

from captoken.stores._rules import LateError

# Seconds that a call may end too soon or too late.
_NEAR = 0.05


class _Call(local):
    """The call that a thread makes. By `until` it has its answer; without one nothing is sent."""

    until = 0.0


_call = _Call()


class Deadline:  # used as a function is
    """In the block the clients of `timed_client` do nothing beyond that time, by `monotonic`."""

    __slots__ = ("_until",)

    def __init__(self, until: float) -> None:
        self._until = until

    def __enter__(self) -> None:
        _call.until = self._until

    def __exit__(self, *_: object) -> None:
        _call.until = 0.0


def _left() -> float:
    """The seconds that the call still has. Raises LateError if there are none."""
    left = _call.until - monotonic()
    if left <= 0:
        raise LateError
    return left


class _Socket:
    """The socket of a connection: it waits for no longer than the call does."""

    def __init__(self, of: Any, longest: float | None) -> None:
        """`longest`: seconds that the client itself waits for a step; None: for good."""
        self._of = of
        self._longest = longest
        # What the socket itself is set to, and is that the time of the call, or the client's own?
        self._set = -1.0
        self._is_ours = False
        # Is the time that a call has left set already, since it has sent what it asks?
        self._has_sent = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    def settimeout(self, longest: float | None) -> None:
        """What the client sets; 0, to look without waiting."""
        self._longest = longest
        self._has_sent = False

    def recv(self, *given: Any) -> bytes:
        """What has arrived."""
        self._before_answer()
        try:
            got: bytes = self._of.recv(*given)
        except TimeoutError:
            raise self._late() from None
        return got

    def recv_into(self, *given: Any) -> int:
        """The same, into a buffer."""
        self._before_answer()
        try:
            got: int = self._of.recv_into(*given)
        except TimeoutError:
            raise self._late() from None
        return got

    def sendall(self, *given: Any) -> None:
        """Send all of it."""
        self._wait()
        try:
            self._of.sendall(*given)
        except TimeoutError:
            raise self._late() from None
        self._has_sent = True

    def _before_answer(self) -> None:
        # The first answer comes with the time that was left when it was asked for. A server that
        # says more later has what is left by then.
        if self._has_sent:
            self._has_sent = False
        else:
            self._wait()

    def _wait(self) -> None:
        """Set how long the socket waits. Raises LateError if the call has no time left."""
        longest = self._longest
        if longest == 0:
            wait, self._is_ours = 0.0, False
        else:
            left = _left()
            self._is_ours = longest is None or left < longest
            wait = left if longest is None or self._is_ours else longest
            # To set it is a system call, which most calls have no need of.
            if wait > _NEAR and abs(wait - self._set) < _NEAR:
                return
        self._of.settimeout(wait)
        self._set = wait

    def _late(self) -> TimeoutError | LateError:
        """The error of a wait in vain. After a TimeoutError a client tries again."""
        return LateError() if self._is_ours else TimeoutError()


class _Backoff:
    """How long a client waits between two attempts: no longer than the call does."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def reset(self) -> None:
        """Begin anew."""
        self._of.reset()

    def compute(self, failures: int) -> float:
        """Seconds."""
        return min(float(self._of.compute(failures)), _left())


@cache
def _timed(kind: Any) -> Any:
    """The class of connections, whose sockets and attempts are in time."""

    class Timed(kind):  # type: ignore[misc]  # of valkey-py or redis-py, whichever it is
        retry: Any
        socket_timeout: float | None
        socket_connect_timeout: float | None

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            # Its own by now, as each connection takes a copy of what it is given.
            self.retry = copy(self.retry)
            self.retry._backoff = _Backoff(self.retry._backoff)

        def _connect(self) -> Any:
            """Connect, to each address of a name in turn, and greet by TLS."""
            longest = self.socket_timeout, self.socket_connect_timeout
            left = _left()
            self.socket_timeout, self.socket_connect_timeout = (
                left if one is None else min(one, left) for one in longest
            )
            try:
                return _Socket(super()._connect(), longest[0])
            finally:
                self.socket_timeout, self.socket_connect_timeout = longest

    Timed.__name__, Timed.__qualname__ = kind.__name__, kind.__qualname__
    return Timed


def timed_client(client: Any, timeout: float) -> Any:
    """A copy of the client, with connections of its own, which is asked inside `Deadline` alone."""
    own = copy(client)
    if hasattr(client, "nodes_manager"):
        own.nodes_manager = _nodes(client.nodes_manager, timeout)
        return own

    # Made anew from what the client's are made of, and of as many at most.
    pool = copy(client.connection_pool)
    pool.connection_class = _timed(pool.connection_class)
    # How long a pool that waits does so until a connection is free.
    longest = getattr(pool, "timeout", timeout)
    pool.timeout = timeout if longest is None else min(longest, timeout)
    pool.reset()
    own.connection_pool, own.connection = pool, None
    own.auto_close_connection_pool = True
    return own


def close_idle(client: Any) -> None:
    """Close the connections of a client of `timed_client` that serve no call."""
    if hasattr(client, "nodes_manager"):
        for node in client.get_nodes():
            for held in _HELD:
                close_idle(getattr(node, held, None))
    elif client is not None:
        client.connection_pool.disconnect(inuse_connections=False)


# The names of valkey-py and of redis-py.
_MAKERS = ("create_valkey_node", "create_redis_node")
_HELD = ("valkey_connection", "redis_connection")


def _nodes(manager: Any, timeout: float) -> Any:
    """A copy of what knows the servers of a cluster, with a client of `timed_client` for each."""
    own = copy(manager)
    for name in _MAKERS:
        make = getattr(own, name, None)
        if make is not None:
            setattr(own, name, _maker(make, timeout))

    own.startup_nodes, own.nodes_cache = {}, {}
    for name, node in manager.startup_nodes.items():
        own.startup_nodes[name] = copy(node)
        for held in _HELD:
            if hasattr(node, held):
                setattr(own.startup_nodes[name], held, None)
    own.initialize()
    return own


def _maker(make: Callable[..., Any], timeout: float) -> Callable[..., Any]:
    """What makes the client of one server."""

    def made(*given: Any, **named: Any) -> Any:
        return timed_client(make(*given, **named), timeout)

    return made
