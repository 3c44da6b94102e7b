"""Every store on a Valkey or Redis server: for servers on many machines.

Spec, "Replay", "Ledger", "Overlay". A call is one script: one atomic step, one round trip. All keys
have one hash tag, so they are in one slot of a cluster. You provide the client, of valkey-py or
redis-py; nothing here imports either. `_valkey_lua` has the scripts.

The counting stores exist twice: for a blocking client, and, with `Async` in front of the name, for
an asyncio client, whose calls are awaited. Keys, arguments, answers and the checks of a server are
written once for both.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from asyncio import Future, Task, get_running_loop
from asyncio import timeout as deadline_of
from asyncio import timeout_at as deadline_at
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import closing
from inspect import iscoroutinefunction
from time import monotonic, time
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias, TypedDict, Unpack

from captoken._format.clocks import CLOCKS_DIFFER, PROOF_AHEAD
from captoken._format.errors import StoreError
from captoken._format.spelling import shown
from captoken.stores._awaited import AwaitedStore
from captoken.stores._rules import (
    MISSING,
    OF_CONSENTS,
    TIMEOUT,
    LateError,
    Making,
    checked_timeout,
    consent_too_old,
    is_full,
    late,
    making,
    mark,
    missing,
    not_an_answer,
    numbered_marks,
    there_already,
    too_old,
    what_was_taken,
)
from captoken.stores._schema import (
    SAYS_VERSION,
    Schema,
    SchemaChange,
    Upgrade,
    none_there,
    upgrade_of,
)
from captoken.stores._shells import AsyncLedgerShell, AsyncProofShell, Call, LedgerShell, ProofShell
from captoken.stores._valkey_lua import (
    ADD,
    APPEND,
    LOAD,
    LOOK,
    LOOK_OVERLAY,
    MAKE,
    MAKE_OVERLAY,
    PUBLISH,
    RESERVE,
    SETTLE,
    SINCE,
    SPEND,
    STEP,
    VERSIONS_OF,
)
from captoken.stores._valkey_time import Deadline, close_idle, timed_client
from captoken.stores.ports import (
    DELTAS,
    KEPT,
    MARKS,
    MOST_BUCKETS,
    MarkedStep,
    Reservation,
    Spend,
    Use,
)

_SERVER = "Valkey"

# Seconds that a reservation's key outlives it, and that it is kept at most.
_SLACK = 60
_LONG = 10**9

# Characters of the two marks that stand before a delta.
_MARKS = 128

# Scripts that are sent together at most.
_BATCH = 128

# Below it, a script answers another version than ours.
_ANOTHER = -1000

_UNTOLD = (
    "Valkey: it does not say which server it is, by INFO server: so a failover that loses the last "
    "second would not show; let the login ask (+info), or say lossless=True"
)
_EVICTS = (
    "Valkey: it has evicted keys, and its maxmemory-policy may evict more: set it to noeviction"
)
_DAMAGED = (
    "Valkey: a key of this store holds something that the store did not write: choose another "
    "prefix"
)


# --- calls ----------------------------------------------------------------------------------------


def _words(error: Exception) -> str:
    """What is wrong, without what an address or a key says."""
    text = str(error)
    # The scripts say this of what is not their own.
    if "captoken: damaged" in text:
        return _DAMAGED
    if "captoken: no run_id" in text:
        return _UNTOLD
    if "captoken: evicts" in text:
        return _EVICTS

    # An error of the server begins with a code: `OOM`, `READONLY`, `NOSCRIPT`.
    words = f"Valkey: {type(error).__name__}"
    code = re.match("[A-Z]{3,}(?= )", text)
    hint = _HINTS.get(type(error).__name__)
    # A pool of the client's says so with the error of a server that cannot be reached.
    if text in ("Too many connections", "No connection available."):
        hint = "the client's pool has no connection left"
    if code is not None:
        words += f" {code[0]}"
        hint = _HINTS.get(code[0], hint)
    return words if hint is None else f"{words}: {hint}"


# The advice for an error, by its code or by the name of its type in either library.
_HINTS = {
    "OOM": "its memory is full",
    "READONLY": "it is a replica, and a store needs the primary",
    "NOPERM": "its user may not do this",
    "AuthenticationError": "it refuses the user or the password",
    "ConnectionError": "the server cannot be reached, or has hung up",
    "TimeoutError": "the server did not answer in time",
}


def _yes(answer: Any) -> bool:
    """A yes or a no of a script. Raises StoreError for what is neither: that allows nothing."""
    if type(answer) is not int or answer not in (0, 1):
        raise not_an_answer(_SERVER, answer)
    return answer == 1


# What a script is given: keys and arguments.
_Script: TypeAlias = tuple[list[Any], list[Any]]


# --- the server -----------------------------------------------------------------------------------


# What a server is asked about itself: the call, and what it is given. Each tells by names.
_QUESTIONS = (
    ("info", "memory"),
    ("config_get", "save"),
    ("info", "persistence"),
)


def _judged(told: Mapping[str, Any]) -> bool | None:
    """Has it an append-only file? None if it does not say.

    Raises StoreError for a server that forgets what counts.
    """
    # A use that is evicted is a proof that can be used again.
    policy = told.get("maxmemory_policy")
    if policy not in (None, "noeviction"):
        raise StoreError(
            f"Valkey: maxmemory-policy is {policy}, which deletes counts: set it to noeviction"
        )

    # A server that begins empty after a crash is told by its floor. One that begins with what it
    # had minutes ago looks as if nothing had happened.
    log = told.get("aof_enabled")
    if log is not None and log != 1 and told.get("save"):
        raise StoreError(
            "Valkey: with RDB snapshots only, a crash loses the last writes: set appendonly yes, "
            "or turn save off"
        )
    return None if log is None else bool(log == 1)


class _Place(ABC):
    """A client, and where the keys of a store begin. Raises TypeError or ValueError."""

    _is_awaited: ClassVar[bool] = False

    # What it says of itself, and has to say to be opened.
    _version: ClassVar[Schema]

    def __init__(self, client: Any, prefix: str, timeout: float) -> None:
        if not callable(getattr(client, "execute_command", None)) or not (
            hasattr(client, "connection_pool") or hasattr(client, "get_node_from_key")
        ):
            raise TypeError(
                f"expected a client of valkey-py or redis-py, not {type(client).__name__}: use "
                "valkey.Valkey(…), from pip install 'captoken[valkey]'"
            )
        if iscoroutinefunction(client.execute_command) is not self._is_awaited:
            raise TypeError(_NOT_ASYNC if self._is_awaited else _NOT_BLOCKING)
        if type(prefix) is not str or not re.fullmatch(r"[!-z|~]+", prefix):
            raise ValueError(f"a prefix must be visible ASCII without braces, not {shown(prefix)}")

        self._client = client
        self._name = prefix
        self._prefix = f"{{{prefix}}}:"
        self._versions = f"{self._prefix}schema"
        self._timeout = checked_timeout(timeout)
        self._is_logged: bool | None = None

    def _failed(self, error: Exception) -> str:
        """What is wrong. A client of a cluster says by an error of its own why it is late."""
        if isinstance(error, LateError) or isinstance(error.__cause__, LateError):
            return str(late(_SERVER, self._timeout))
        return _words(error)

    def _check_told(self, failed: Exception | None) -> None:
        """Raise StoreError, unless a server has told what it was asked, or has refused to tell.

        Many a hosted server refuses CONFIG. That is no reason not to use it: see ValkeyStore.
        """
        if failed is None:
            return
        # By its name, since it is of valkey-py or of redis-py, and neither is imported here.
        kinds = {kind.__name__ for kind in type(failed).__mro__}
        if "ResponseError" not in kinds:
            raise StoreError(self._failed(failed))

    def _there(self, answer: Any) -> Any:
        """What a script says that makes or opens a store, if it is there, in this version.

        Raises StoreError.
        """
        if type(answer) is int and answer < _ANOTHER:
            command = f"--valkey URL --prefix {self._name}"
            self._version.check(_SERVER, _ANOTHER - answer, command)
        return _there(answer)

    @abstractmethod
    def _script(self, text: str) -> Callable[[list[Any], list[Any]], Any]:
        """Runs a script by its digest, and loads it where it is not known."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._prefix}>"


_NOT_BLOCKING = (
    "this client is for asyncio: pass it to AsyncValkeyLedger or AsyncValkeyReplayStore; or pass a "
    "blocking one, and call the store with asyncio.to_thread"
)
_NOT_ASYNC = "this client is blocking: pass one of valkey.asyncio or redis.asyncio"


class ValkeyStore(_Place):
    """What the stores on a blocking client have in common.

    Refuses a server that evicts keys, or that a crash takes back to a snapshot. That is asked once,
    when the store is made, and only of a server that tells. The store makes connections of its own,
    as the client makes them, and as many at most. A call has its answer within `timeout` seconds, a
    connection included, or raises StoreError.
    """

    def __init__(self, client: Any, prefix: str, timeout: float = TIMEOUT) -> None:
        super().__init__(client, prefix, timeout)
        self._client = self._ask(timed_client, client, self._timeout)
        self._ask(self._client.exists, self._prefix)  # can it be reached at all?
        self._is_logged = _judged(self._ask_server(self._node(self._prefix)))

    def close(self) -> None:
        """Close the connections that serve no call. The store makes others when it is asked."""
        self._ask(close_idle, self._client)

    def _node(self, key: str) -> Any:
        """A client for the one server that has the key: in a cluster, that node's."""
        client = self._client
        if not hasattr(client, "get_node_from_key"):
            return client

        # The one is valkey-py's name for it, the other redis-py's.
        connection = getattr(client, "get_valkey_connection", None) or client.get_redis_connection
        return self._ask(lambda: connection(client.get_node_from_key(key)))

    def _ask_server(self, node: Any) -> dict[str, Any]:
        """What a server says of itself. Raises StoreError."""
        told: dict[str, Any] = {}
        for call, what in _QUESTIONS:
            failed: Exception | None = None
            try:
                with Deadline(self._until()):
                    told.update(getattr(node, call)(what))
            except Exception as error:
                failed = error
            # Out of the block, so that the client's own error is not shown along with it.
            self._check_told(failed)
        return told

    def _ask(self, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """What the client's call returns. Raises StoreError that says no address and no key.

        Nothing is asked again here: what was sent and not answered may have been done.
        """
        try:
            with Deadline(self._until()):
                return call(*given, **named)
        except Exception as error:
            failed = self._failed(error)

        # Out of the block, so that the client's own error is not shown along with it.
        raise StoreError(failed)

    def _until(self) -> float:
        return monotonic() + self._timeout

    def _script(self, text: str) -> Callable[[list[Any], list[Any]], Any]:
        script = self._client.register_script(text)
        command, digest = self._client.execute_command, script.sha

        # As the script itself does, in half the time: that asks first what kind of client it has.
        def run(keys: list[Any], args: list[Any]) -> Any:
            try:
                return command("EVALSHA", digest, len(keys), *keys, *args)
            except Exception as error:
                if type(error).__name__ != "NoScriptError":
                    raise
            return script(keys, args)

        return run


def _there(answer: Any) -> Any:
    """What a script says, if the store is there. Raises StoreError."""
    if answer == MISSING:
        raise missing(_SERVER)
    return answer


class _Floored(_Place):
    """A store with a floor, whatever its client. It rises with each other server.

    `lossless` promises that neither restart nor failover loses what was answered.
    """

    _kind: ClassVar[str]

    # Seconds that a token may be issued later than now, by a clock ahead.
    _ahead: ClassVar[int]

    def __init__(
        self,
        client: Any,
        prefix: str,
        timeout: float,
        lossless: bool,
        clock: Callable[[], float] | None,
        new: Making | None,
    ) -> None:
        """`new`: what it is made with; None opens it. Raises TypeError or ValueError."""
        super().__init__(client, prefix, timeout)
        # The key of the floor, and of what the script tells another server by.
        self._state = self._prefix + self._kind
        self._clock = clock
        self._lossless = lossless
        self._new = new

    def _beginning(self) -> tuple[str, _Script]:
        """The script by which it is made or opened, and what that is given."""
        # The script takes the later of the two clocks: one may be behind.
        now = int((self._clock or time)())
        version = self._version
        facts: list[Any] = [*self._floor_facts(), now, version.store, version.version]
        keys = [self._state, self._versions]
        if self._new is None:
            return LOOK, (keys, facts)

        # Without a floor, it is by the clocks.
        floor = "" if self._new.floor is None else self._new.floor
        named = "".join(f",{key}" for key in self._new.keys) + ","
        return MAKE, (keys, [*facts, floor, named])

    def _begun(self, answer: Any) -> None:
        """What that script says. Raises StoreError if it is there already, or not there."""
        if not _yes(self._there(answer)):
            raise there_already(_SERVER)

    def _floor_facts(self) -> tuple[int, int | str, int]:
        """What each script is given of the floor. Without a clock of ours, it asks the server's."""
        clock = "" if self._clock is None else int(self._clock())
        # Nothing but that word switches the floor off: a replica may be attached at any time, and
        # be promoted, and no setting of the server that was asked says so.
        return self._ahead, clock, int(not self._lossless)


class _FlooredStore(_Floored, ValkeyStore):
    """A store with a floor, on a blocking client: made or opened at once."""

    def __init__(
        self,
        client: Any,
        prefix: str,
        timeout: float,
        lossless: bool,
        clock: Callable[[], float] | None,
        new: Making | None,
    ) -> None:
        super().__init__(client, prefix, timeout, lossless, clock, new)
        script, given = self._beginning()
        self._begun(self._ask(self._script(script), *given))

    def _send(self, call: Call) -> Any:
        """What the server answers. Raises StoreError."""
        return self._ask(*call)


class _AwaitedStore(_Floored, AwaitedStore):
    """A store with a floor, on a client of asyncio.

    A task that is cancelled while it waits leaves no answer to the next one: what was sent for it
    is done, and its answer is dropped.
    """

    _is_awaited: ClassVar[bool] = True

    def __init__(
        self,
        client: Any,
        prefix: str,
        timeout: float,
        lossless: bool,
        clock: Callable[[], float] | None,
        new: Making | None,
    ) -> None:
        AwaitedStore.__init__(self)
        super().__init__(client, prefix, timeout, lossless, clock, new)
        # Whoever is cancelled while it waits for its turn at that connection gives it to two.
        is_one = getattr(client, "single_connection_client", False)
        if is_one or getattr(client, "connection", None) is not None:
            raise TypeError("this client has one connection only: pass one with a pool")
        # A client of a cluster sends no scripts together.
        self._batches = (
            None if hasattr(client, "get_node_from_key") else _Batches(client, self._timeout)
        )

    async def aclose(self) -> None:
        """Close the connections of the client that serve no call; of a cluster's, all of them.

        The client makes others when it is asked.
        """
        await self._ask(self._close)

    async def _close(self) -> None:
        client = self._client
        if not hasattr(client, "get_node_from_key"):
            await client.connection_pool.disconnect(inuse_connections=False)
            return
        for node in client.get_nodes():
            await node.disconnect()

    async def _first(self) -> None:
        await self._ask(self._look)

    async def _look(self) -> None:
        """Refuse a server that forgets, as ValkeyStore does; then make it, or is it there?"""
        await self._client.exists(self._prefix)  # can it be reached at all?
        told = await self._ask_server(_node_of_cluster(self._client, self._prefix))
        self._is_logged = _judged(told)
        script, given = self._beginning()
        self._begun(await self._script(script)(*given))

    async def _ask_server(self, node: Any) -> dict[str, Any]:
        """What a server says of itself. Raises StoreError."""
        told: dict[str, Any] = {}
        for call, what in _QUESTIONS:
            failed: Exception | None = None
            try:
                told.update(await getattr(node, call)(what))
            except Exception as error:
                failed = error
            self._check_told(failed)
        return told

    async def _ask(self, call: Callable[..., Awaitable[Any]], *given: Any) -> Any:
        """What the client's call comes to. Raises StoreError, as that of ValkeyStore does."""
        deadline = deadline_of(self._timeout)
        try:
            async with deadline:
                return await call(*given)
        except StoreError:
            raise
        except Exception as error:
            failed = self._failed(LateError() if deadline.expired() else error)
        raise StoreError(failed)

    async def _send(self, call: Call) -> Any:
        """The same, of a store that is open: both are done within the time of one call."""
        return await self._ask(self._opened_first, *call)

    async def _opened_first(self, call: Callable[..., Awaitable[Any]], *given: Any) -> Any:
        await self.open()
        return await call(*given)

    def _script(self, text: str) -> Callable[[list[Any], list[Any]], Awaitable[Any]]:
        script = self._client.register_script(text)
        batches = self._batches

        async def run(keys: list[Any], args: list[Any]) -> Any:
            if batches is None:
                return await script(keys=keys, args=args)
            return await batches.ask(script, keys, args)

        return run


class _Waiting(NamedTuple):
    """A script that a task waits for."""

    script: Any
    keys: list[Any]
    args: list[Any]
    answer: Future[Any]

    # When the task gives up, by the clock of the event loop.
    until: float


class _Batches:
    """Scripts that tasks ask for while others are under way: sent together, when these are done.

    Each is a script of its own as before, one atomic step, with an answer of its own. It is the
    round trip that they share, and the disk, where the server waits for it. One batch is under way
    at a time, on one connection.
    """

    def __init__(self, client: Any, timeout: float) -> None:
        """`timeout`: seconds that a task waits."""
        self._client = client
        self._timeout = timeout
        self._waiting: list[_Waiting] = []
        # Held here, since an event loop does not keep its tasks.
        self._sending: Task[None] | None = None

    async def ask(self, script: Any, keys: list[Any], args: list[Any]) -> Any:
        """What the script answers, or raises.

        If it is cancelled before it was sent, it never is. Later it is done, and nobody hears.
        """
        loop = get_running_loop()
        until = loop.time() + self._timeout
        waiting = _Waiting(script, keys, args, loop.create_future(), until)
        self._waiting.append(waiting)
        if self._sending is None:
            self._sending = loop.create_task(self._send())
        return await waiting.answer

    async def _send(self) -> None:
        """Send batch after batch, until nobody waits any more."""
        batch: list[_Waiting] = []
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
                batch = [one for one in taken if not one.answer.done()]
                if batch:
                    _tell(batch, await self._answers(batch))
        finally:
            # Nobody is left but where this was cancelled, as at the end of an event loop.
            left = batch + self._waiting
            self._waiting, self._sending = [], None
            _tell(left, [ConnectionError("interrupted")] * len(left))

    async def _answers(self, batch: list[_Waiting]) -> list[Any]:
        """The answers to a batch, in order; an exception for what has none."""
        pipeline = self._client.pipeline(transaction=False)
        for one in batch:
            pipeline.evalsha(one.script.sha, len(one.keys), *one.keys, *one.args)
        answers: list[Any]
        try:
            # When the last of them gives up, nobody waits for it any more.
            async with deadline_at(max(one.until for one in batch)):
                answers = await pipeline.execute(raise_on_error=False)

                # A server that has just begun knows no script: each is loaded once, by itself.
                for at, one in enumerate(batch):
                    is_unknown = type(answers[at]).__name__ == "NoScriptError"
                    if is_unknown and not one.answer.done():
                        answers[at] = await self._loaded(one)
            return answers
        except Exception as error:
            return [error] * len(batch)

    async def _loaded(self, one: _Waiting) -> Any:
        """The answer of a script that the server did not know, or what it raised."""
        try:
            return await one.script(keys=one.keys, args=one.args)
        except Exception as error:
            return error


def _tell(batch: list[_Waiting], answers: list[Any]) -> None:
    """Give each task its answer, but those that wait no more."""
    for one, answer in zip(batch, answers, strict=True):
        if one.answer.done():
            continue
        if isinstance(answer, Exception):
            one.answer.set_exception(answer)
        else:
            one.answer.set_result(answer)


class _NodeOfCluster(NamedTuple):
    """The one server of a cluster that has a key, as far as it is asked for its settings."""

    client: Any
    node: Any

    def info(self, section: str) -> Any:
        """What the server says of itself."""
        return self.client.info(section, target_nodes=self.node)

    def config_get(self, pattern: str) -> Any:
        """A setting of the server."""
        return self.client.config_get(pattern, target_nodes=self.node)


def _node_of_cluster(client: Any, key: str) -> Any:
    """What is asked for the settings of the server that has the key. It was asked something before.

    Until then a client of a cluster does not know its servers.
    """
    if not hasattr(client, "get_node_from_key"):
        return client
    return _NodeOfCluster(client, client.get_node_from_key(key))


# --- the stores -----------------------------------------------------------------------------------


class _ReplayFacts(TypedDict, total=False):
    """How used proofs are remembered, called or awaited."""

    prefix: str
    """What the keys of the store begin with."""
    limit: int
    """How many uses of the last half minute it holds; more are refused."""
    timeout: float
    """How long a call takes at most, in seconds. Then it is an error, and what was sent counts."""
    lossless: bool
    """True: a restart forgets nothing."""
    clock: Callable[[], float] | None
    """Seconds since the epoch, in place of the server's clock; for tests."""


class _Proofs(_Floored):
    """What a store of used proofs asks, and what it makes of the answer."""

    _version = Schema("replay", (SchemaChange(SAYS_VERSION),))
    _kind = _version.store
    _ahead = PROOF_AHEAD

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "captoken",
        limit: int = 1_000_000,
        timeout: float = TIMEOUT,
        lossless: bool = False,
        clock: Callable[[], float] | None = None,
        _new: Making | None = None,
    ) -> None:
        super().__init__(client, prefix, timeout, lossless, clock, _new)
        self._limit = limit
        self._proofs = self._prefix + "proofs"
        self._consents = self._prefix + "consents"
        self._add = self._script(ADD)
        self._spend = self._script(SPEND)

    def _add_call(self, use: Use, now: int, *, peek: bool) -> Call:
        """ADD, and what it is given."""
        facts = self._facts_of(use, now, too_old(now), peek)
        return self._add, [self._state, self._proofs], [*facts, use.kid]

    def _spend_call(self, spend: Spend, now: int, *, peek: bool) -> Call:
        """SPEND, and what it is given. No key is spared the floor."""
        keys = [self._prefix + "spent", self._consents, self._state]
        facts = self._facts_of(spend, now, consent_too_old(now), peek)
        return self._spend, keys, [*facts, ""]

    def _facts_of(self, use: Use | Spend, now: int, gone: int, peek: bool) -> list[Any]:
        its = [use.issued_at, gone, use.entry]
        return [*self._floor_facts(), now, *its, self._limit, int(peek)]

    def _was_first(self, answer: Any) -> bool:
        """What a script says. Raises StoreError when it is full, and for what is no answer."""
        if _there(answer) == -1:
            raise is_full(self._limit)
        if answer == -2:
            raise is_full(self._limit, OF_CONSENTS)
        return _yes(answer)


class ValkeyReplayStore(_Proofs, _FlooredStore, ProofShell):
    """Used proofs.

    The server keeps the floor. So only a new one, and one that was restarted, refuse what was
    issued up to five seconds later. `lossless=True` promises that a restart forgets none. Holds at
    most `limit` uses of the last half minute, and refuses more. `clock` stands in for the server's.
    """

    @classmethod
    def create(
        cls,
        client: Any,
        *,
        keys: Iterable[str] = (),
        floor: int | None = None,
        **facts: Unpack[_ReplayFacts],
    ) -> Self:
        """Make it on the server, and open it. Raises StoreError if there is one.

        `keys` are the ids of root keys that are made in the same act, and of no others: proofs on
        their tokens are taken at once, as none can have been used before (31.6). `floor` is for
        tests alone: it stands in for the one by the clocks.
        """
        return cls(client, **facts, _new=making(keys, floor))


class AsyncValkeyReplayStore(_Proofs, _AwaitedStore, AsyncProofShell):
    """Used proofs, as in ValkeyReplayStore, on a client of `valkey.asyncio`: calls are awaited.

    The two share what they remember under one prefix. `open` asks the server at once whether it
    will do; else the first call does.
    """

    @classmethod
    async def create(
        cls,
        client: Any,
        *,
        keys: Iterable[str] = (),
        floor: int | None = None,
        **facts: Unpack[_ReplayFacts],
    ) -> Self:
        """Make it on the server, and open it: see `ValkeyReplayStore.create`. Raises StoreError."""
        return await cls(client, **facts, _new=making(keys, floor)).open()


class _LedgerFacts(TypedDict, total=False):
    """How a ledger counts, called or awaited."""

    shared: bool
    """True: all servers that take these tokens count under this prefix."""
    prefix: str
    """What the keys of the ledger begin with."""
    timeout: float
    """How long a call takes at most, in seconds. Then it is an error, and what was sent counts."""
    lossless: bool
    """True: nothing that was answered is ever lost."""
    clock: Callable[[], float] | None
    """Seconds since the epoch, in place of the server's clock; for tests."""


class _Counts(_Floored):
    """What a ledger asks, and how its keys are named."""

    _server = _SERVER
    _version = Schema("ledger", (SchemaChange(SAYS_VERSION), SchemaChange("keeps marks")))
    _kind = _version.store
    _ahead = CLOCKS_DIFFER

    def __init__(
        self,
        client: Any,
        *,
        shared: bool = False,
        prefix: str = "captoken",
        timeout: float = TIMEOUT,
        lossless: bool = False,
        clock: Callable[[], float] | None = None,
        _new: Making | None = None,
    ) -> None:
        super().__init__(client, prefix, timeout, lossless, clock, _new)
        self.shared = shared
        # Where the keys of buckets begin, and the key of how long each of them is kept; and where
        # the keys begin that say so of the buckets of one tree.
        self._buckets = self._prefix + "spent:"
        self._kept = self._prefix + "kept"
        self._trees = self._prefix + "tree:"
        self._reserve = self._script(RESERVE)
        self._step = self._script(STEP)
        self._settle = self._script(SETTLE)

    def _reserve_call(self, reservation: Reservation, now: int, *, peek: bool) -> Call:
        """RESERVE, and what it is given."""
        keys, facts = self._asked(reservation, reservation, now, peek=peek)
        return self._with_debits(self._reserve, keys, facts, reservation)

    def _step_call(self, step: MarkedStep, now: int, *, peek: bool) -> Call:
        """STEP, and what it is given."""
        numbered = numbered_marks(step)
        keys, facts = self._asked(step, step.reservation, now, peek=peek)
        facts += [numbered.own, len(numbered.marks), numbered.by, ",".join(numbered.rules)]
        for one in numbered.marks:
            keys.append(self._bucket(one.bucket, MARKS))
            facts += [_score(one.keep), int(one.is_of_holder)]
        return self._with_debits(self._step, keys, facts, step.reservation)

    def _asked(
        self,
        asked: Reservation | MarkedStep,
        reserved: Reservation | None,
        now: int,
        *,
        peek: bool,
    ) -> _Script:
        """What both scripts are given before marks and debits."""
        open_for = 0 if reserved is None else reserved.until - now
        facts = [
            *self._floor_facts(),
            now,
            asked.issued_at,
            "" if reserved is None else reserved.until,
            min(max(open_for, 0) + _SLACK, _LONG),
            _score(None if reserved is None else reserved.kept_until),
            self._buckets,
            KEPT,
            int(peek),
            MOST_BUCKETS,
            asked.leeway,
            asked.kid,
        ]
        reservation = self._key(b"" if reserved is None else reserved.id)
        return [self._state, reservation, self._kept, self._trees + asked.tree], facts

    def _with_debits(
        self,
        script: Any,
        keys: list[Any],
        facts: list[Any],
        reserved: Reservation | None,
    ) -> Call:
        """The call of a script, with the debits behind what it is given."""
        for debit in () if reserved is None else reserved.debits:
            keys.append(self._bucket(debit.bucket, debit.unit))
            facts += [debit.limit, debit.amount]
        return script, keys, facts

    def _settle_call(
        self,
        reservation_id: bytes,
        amounts: Mapping[str, int] | None,
        now: int,
    ) -> Call:
        """SETTLE, and what it is given. Raises TypeError for what is no amounts."""
        taken = what_was_taken(amounts)
        facts = [now, self._buckets, "all" if taken is None else ""]
        for unit, amount in (taken or {}).items():
            facts += [unit, amount]
        return self._settle, [self._key(reservation_id)], facts

    def _spent_call(self, bucket: bytes, unit: str) -> Call:
        """A plain reading of the key."""
        return self._client.get, self._bucket(bucket, unit)

    def _was_open(self, answer: Any) -> bool:
        """What SETTLE says. Raises StoreError for what is no answer."""
        return _yes(answer)

    def _amount(self, answer: Any) -> int:
        """What a bucket says that it was debited. Raises StoreError."""
        if answer is None:
            return 0

        # A client may decode what it reads.
        written = answer if isinstance(answer, bytes) else str(answer).encode()
        if not re.fullmatch(rb"[0-9]{1,16}", written):
            raise StoreError(_DAMAGED)
        return int(written)

    def _key(self, reservation_id: bytes) -> str:
        """The key of one reservation."""
        return f"{self._prefix}reserved:{reservation_id.hex()}"

    def _bucket(self, bucket: bytes, unit: str) -> str:
        """The key of what one bucket was debited, in one unit."""
        return f"{self._buckets}{bucket.hex()}:{unit}"


def _score(keep: int | None) -> int | str:
    """Until when a bucket is kept, as a sorted set has it."""
    return "+inf" if keep is None else keep


class ValkeyLedger(_Counts, _FlooredStore, LedgerShell):
    """Counts. `shared=True` says that all servers that take these tokens count under this prefix.

    The server keeps the floor: see Ledger. It rises when the server lost its data. It also rises
    when the server was restarted or a replica took its place, since either may lose the last
    second. It does not with `lossless=True`, which promises that nothing that was answered is ever
    lost. `clock` stands in for the server's.
    """

    @classmethod
    def create(
        cls,
        client: Any,
        *,
        keys: Iterable[str] = (),
        floor: int | None = None,
        **facts: Unpack[_LedgerFacts],
    ) -> Self:
        """Make it on the server, and open it. Raises StoreError if there is one.

        `keys` are the ids of root keys that are made in the same act, and of no others: their
        tokens count at once, as none can have been used before (38.15). `floor` is for tests alone:
        it stands in for the one by the clocks.
        """
        return cls(client, **facts, _new=making(keys, floor))


class AsyncValkeyLedger(_Counts, _AwaitedStore, AsyncLedgerShell):
    """Counts, as ValkeyLedger does, on a client of `valkey.asyncio`: calls are awaited.

    The two count together under one prefix. `open` asks the server at once whether it will do; else
    the first call does. What tasks ask for at the same time is sent together, in one round trip.
    """

    @classmethod
    async def create(
        cls,
        client: Any,
        *,
        keys: Iterable[str] = (),
        floor: int | None = None,
        **facts: Unpack[_LedgerFacts],
    ) -> Self:
        """Make it on the server, and open it: see `ValkeyLedger.create`. Raises StoreError."""
        return await cls(client, **facts, _new=making(keys, floor)).open()


class ValkeySnapshots(ValkeyStore):
    """The newest snapshot of the overlay.

    What was published is in the append-only file, and on disk, before `publish` answers; a server
    without such a file is refused. `durable=False` accepts that a crash may lose a revocation. A
    replica may lack it too: see the docs. `timeout`: seconds that a call has, with those of the
    disk.
    """

    _version = Schema("overlay", (SchemaChange(SAYS_VERSION),))

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "captoken",
        durable: bool = True,
        timeout: float = TIMEOUT,
        _is_new: bool = False,
    ) -> None:
        super().__init__(client, prefix, timeout)
        if durable and self._is_logged is False:
            raise StoreError(
                "Valkey: there is no append-only file, so a crash loses revocations: set "
                "appendonly yes, or pass durable=False to accept that"
            )
        base = self._prefix + "overlay"
        # The snapshot, the deltas, and what is known of both; and the versions.
        self._keys = [base, f"{base}:deltas", f"{base}:state", self._versions]
        self._durable = durable
        # So that a disk that is too slow is not taken for a server that does not answer.
        self._for_disk = max(1, int(self._timeout * 900))  # milliseconds
        self._load = self._script(LOAD)
        self._since = self._script(SINCE)
        version = (self._version.store, self._version.version)
        if not _is_new:
            self._there(self._ask(self._script(LOOK_OVERLAY), self._keys, [*version]))
        elif not self._written(MAKE_OVERLAY, version):
            raise there_already(_SERVER)

    @classmethod
    def create(
        cls,
        client: Any,
        *,
        prefix: str = "captoken",
        durable: bool = True,
        timeout: float = TIMEOUT,
    ) -> Self:
        """Make it, without a snapshot, and open it. Raises StoreError if there is one.

        Verifiers deny until an operator publishes: who makes it renews at once.
        """
        return cls(client, prefix=prefix, durable=durable, timeout=timeout, _is_new=True)

    def load(self) -> bytes | None:
        """The newest snapshot, and the deltas behind it, if there is one. Raises StoreError."""
        found = _there(self._ask(self._load, self._keys, []))
        return None if found is None else _bytes(found)

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """False if another one lies there than `after`. On disk when it returns True.

        Raises StoreError, also when it lies there and is not known to be on disk.
        """
        knows_another = 0 if after is None else 1
        facts = (snapshot, knows_another, after or b"", mark(snapshot).hex(), DELTAS)
        return self._written(PUBLISH, facts)

    def append(self, delta: bytes, after: bytes, gives: bytes) -> bool:
        """False if the newest has another mark than `after`. On disk when it returns True.

        Raises StoreError, also when it lies there and is not known to be on disk.
        """
        return self._written(APPEND, (delta, after.hex(), gives.hex()))

    def since(self, mark: bytes) -> list[bytes] | None:
        """The deltas that lead from that mark to the newest; None if it is not known here.

        Raises StoreError.
        """
        found = _there(self._ask(self._since, self._keys, [mark.hex()]))
        if found is None:
            return None
        if not isinstance(found, list):
            raise not_an_answer(_SERVER, found)
        return [_bytes(line)[_MARKS:] for line in found]

    def _written(self, script: str, facts: tuple[Any, ...]) -> bool:
        """Has the script done it, and is it on disk? Raises StoreError."""
        node = self._node(self._keys[0])

        # One batch is on one connection: WAITAOF waits for what was written on its own.
        batch = self._ask(node.pipeline, transaction=False)
        batch.eval(
            script,
            len(self._keys),
            *self._keys,
            *facts,
        )
        if self._durable:
            batch.execute_command("WAITAOF", 1, 0, self._for_disk)
        won, *written = self._ask(batch.execute, raise_on_error=False)

        if isinstance(won, Exception):
            raise StoreError(_words(won))
        if not _yes(_there(won)):
            return False
        if self._durable and not _is_on_disk(written[0]):
            raise StoreError(
                "Valkey: published, but perhaps not saved to disk: there is no append-only file, "
                "or a slow one"
            )
        return True


def _bytes(found: Any) -> bytes:
    """What was read, also by a client that decodes what it reads. Raises StoreError."""
    if isinstance(found, str):
        return found.encode()
    if not isinstance(found, bytes):
        raise not_an_answer(_SERVER, found)
    return found


def _is_on_disk(written: Any) -> bool:
    """What WAITAOF answers: on how many servers it is, this one first."""
    return isinstance(written, list) and written[0] >= 1


# --- upgrades -------------------------------------------------------------------------------------


class _Upgrading(ValkeyStore):
    """The stores under a prefix, whatever their versions."""

    _versions_there = (_Proofs._version, _Counts._version, ValkeySnapshots._version)

    def versions(self, *, apply: bool) -> list[Upgrade]:
        """What is to be done with those that are there; with `apply`, it is done."""
        base, several = self._prefix, self._versions_there
        keys = [self._versions, *(base + one.store for one in several), f"{base}overlay:state"]
        wanted = [one.version for one in several]
        answer = self._ask(self._script(VERSIONS_OF), keys, [int(apply), *wanted])
        if not isinstance(answer, list) or len(answer) != len(several):
            raise not_an_answer(_SERVER, answer)
        where = f"{_SERVER}, prefix {self._name}"
        found = [upgrade_of(one, where, at) for one, at in zip(several, answer, strict=True) if at]
        if not found:
            raise none_there(where)
        return found


def upgrade_keys(
    client: Any,
    *,
    prefix: str = "captoken",
    apply: bool = False,
    timeout: float = TIMEOUT,
) -> list[Upgrade]:
    """What brings the stores under a prefix to the version of this code; with `apply`, it is done.

    In one step. Raises StoreError.
    """
    with closing(_Upgrading(client, prefix, timeout)) as stores:
        found = stores.versions(apply=False)  # raises before anything is written
        return stores.versions(apply=True) if apply else found
