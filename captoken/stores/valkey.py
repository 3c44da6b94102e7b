"""Every store on a Valkey or Redis server: for servers on many machines.

Spec, "Replay", "Ledger", "Overlay". A call is one script: one atomic step, one round trip. All keys
have one hash tag, so that they lie in one slot of a cluster. The client is yours, of valkey-py or
redis-py; nothing here imports either. What the scripts do stands in `_valkey_lua`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from inspect import iscoroutinefunction
from threading import Lock
from time import time
from typing import Any
from weakref import WeakKeyDictionary

from captoken._format.clocks import CLOCKS_DIFFER, PROOF_AHEAD
from captoken._format.encoding import MAX_INTEGER
from captoken._format.errors import StoreError
from captoken.stores._rules import (
    checked_floor,
    is_full,
    mark,
    not_an_answer,
    short_debit,
    too_old,
)
from captoken.stores._valkey_lua import (
    ADD,
    APPEND,
    BEGIN,
    LOAD,
    PUBLISH,
    RESERVE,
    SETTLE,
    SINCE,
)
from captoken.stores.own_process import OwnProcess, tell_of_forks
from captoken.stores.ports import DELTAS, KEPT, MOST_BUCKETS, Debit, Reservation, Use

_SERVER = "Valkey"

# Seconds that a reservation's key outlives it, and that it is kept at most.
_SLACK = 60
_LONG = 10**9

# Characters of the two marks that stand before a delta.
_MARKS = 128

_DAMAGED = "Valkey: what lies under a key of this store is not its own"


# --- calls ----------------------------------------------------------------------------------------


class _OneConnection:
    """The turn at a client that has one connection, rather than a pool of them.

    Two threads on one connection would read each other's answers, and so would two processes.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._process = OwnProcess()

    def __enter__(self) -> None:
        if not self._process.is_own():
            raise StoreError("Valkey: the client's one connection belongs to another process")
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _Turns:
    """The turns, by client, for as long as somebody has it."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Any, _OneConnection] = WeakKeyDictionary()
        self._begin()
        # A thread of the parent may have held the lock, and is not there to let go of it.
        tell_of_forks(self, in_child=_Turns._begin)

    def _begin(self) -> None:
        self._lock = Lock()

    def at(self, client: Any) -> _OneConnection:
        """The turn at a client: the same one for all stores that have it."""
        with self._lock:
            return self._known.setdefault(client, _OneConnection())


# The module's, since stores that share a client have to take the same turns, and nothing but the
# client is common to them.
_turns = _Turns()


def _turn_at(client: Any) -> AbstractContextManager[None]:
    """What a thread holds while it asks: nothing where each call has a connection of its own.

    A pool gives a connection to one call, and takes it back when that is done, whoever waits.
    """
    if getattr(client, "connection", None) is None:
        return nullcontext()
    return _turns.at(client)


def _called(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """What the call returns.

    Whatever it raises becomes a StoreError that says no address and no key.
    """
    try:
        return call(*given, **named)
    except Exception as error:
        failed = _words(error)

    # Out of the block, so that the client's own error is not shown along with it.
    raise StoreError(failed)


def _told(ask: Callable[[], Any]) -> Any:
    """What a server says of itself; None if it does not say. Raises StoreError.

    Many a hosted server refuses CONFIG. That is no reason not to use it: see ValkeyStore.
    """
    try:
        return ask()
    except KeyError:
        return None
    except Exception as error:
        # By its name, since it is of valkey-py or of redis-py, and neither is imported here.
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "ResponseError" in kinds:
            return None
        failed = _words(error)
    raise StoreError(failed)


def _words(error: Exception) -> str:
    """What is wrong, without what an address or a key says."""
    text = str(error)
    # The scripts say this of what is not their own.
    if "captoken: damaged" in text:
        return _DAMAGED

    # An error of the server begins with a code: `OOM`, `READONLY`, `NOSCRIPT`.
    words = f"Valkey: {type(error).__name__}"
    code = re.match("[A-Z]{3,}(?= )", text)
    if code is not None:
        words += f" {code[0]}"
    return words


def _node(client: Any, key: str) -> Any:
    """A client for the one server that has the key: in a cluster, that node's."""
    if not hasattr(client, "get_node_from_key"):
        return client

    # The one is valkey-py's name for it, the other redis-py's.
    connection = getattr(client, "get_valkey_connection", None) or client.get_redis_connection
    return _called(lambda: connection(client.get_node_from_key(key)))


def _yes(answer: Any) -> bool:
    """A yes or a no of a script. Raises StoreError for what is neither: that allows nothing."""
    if type(answer) is not int or answer not in (0, 1):
        raise not_an_answer(_SERVER, answer)
    return answer == 1


# --- the server -----------------------------------------------------------------------------------


class ValkeyStore:
    """What the stores have in common.

    Refuses a server that evicts keys, or that a crash takes back to a snapshot. That is asked once,
    when the store is made, and only of a server that tells. What it becomes later is not seen.
    """

    def __init__(self, client: Any, prefix: str) -> None:
        if not callable(getattr(client, "execute_command", None)):
            raise TypeError(
                f"a client of valkey-py or redis-py is needed, not {type(client).__name__}"
            )
        if iscoroutinefunction(client.execute_command):
            raise TypeError(
                "an asyncio client: give a blocking one, and call the store with asyncio.to_thread"
            )
        if type(prefix) is not str or not re.fullmatch(r"[!-z|~]+", prefix):
            raise ValueError("a prefix is visible ASCII without braces")

        self._client = client
        self._prefix = f"{{{prefix}}}:"
        self._turn = _turn_at(client)
        self._ask(client.exists, self._prefix)  # can it be reached at all?
        node = _node(client, self._prefix)
        with self._turn:
            self._refuse_forgetful(node)
            self._is_logged = _is_logged(node)
            self._is_exact = self._is_logged is True and _loses_nothing(node)

    def _refuse_forgetful(self, node: Any) -> None:
        """Raises StoreError for a server that forgets, by its settings, what counts."""
        # A use that is evicted is a proof that can be used again.
        policy = _told(lambda: node.info("memory")["maxmemory_policy"])
        if policy not in (None, "noeviction"):
            raise StoreError(
                f"Valkey: maxmemory-policy is {policy}, which forgets what counts: "
                "noeviction is needed"
            )

        # A server that begins empty after a crash is told by its floor. One that begins with what
        # it had minutes ago looks as if nothing had happened.
        dumps = _told(lambda: node.config_get("save")["save"])
        if _is_logged(node) is False and dumps:
            raise StoreError(
                "Valkey: with RDB snapshots alone a crash goes back in time: "
                "appendonly yes, or no save at all"
            )

    def _ask(self, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """What the client's call returns. Raises StoreError.

        Nothing is asked again here: what was sent and not answered may have been done.
        """
        with self._turn:
            return _called(call, *given, **named)

    def _script(self, text: str) -> Callable[[Iterable[Any], Iterable[Any]], Any]:
        """Runs a script by its digest, and loads it where it is not known."""
        script = self._client.register_script(text)

        def run(keys: Iterable[Any], args: Iterable[Any]) -> Any:
            return self._ask(
                script,
                keys=list(keys),
                args=list(args),
            )

        return run

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._prefix}>"


def _is_logged(node: Any) -> bool | None:
    """Has it an append-only file? None if it does not say."""
    log = _told(lambda: node.info("persistence")["aof_enabled"])
    if log is None:
        return None
    return bool(log == 1)


def _loses_nothing(node: Any) -> bool:
    """Does a restart lose nothing that was answered? Not where a replica could take over."""
    synchronized = _told(lambda: node.config_get("appendfsync")["appendfsync"])
    role = _told(lambda: node.info("replication")["role"])
    replicas = _told(lambda: node.info("replication")["connected_slaves"])

    # A server that does not tell is taken for one that may lose the last second.
    is_alone = (role, replicas) == ("master", 0)
    return is_alone and bool(synchronized == "always")


class _FlooredStore(ValkeyStore):
    """A store with a floor.

    `lossless` says aloud that neither restart nor failover loses what was answered.
    """

    def __init__(
        self,
        client: Any,
        kind: str,
        ahead: int,
        prefix: str,
        floor: int | None,
        lossless: bool,
        clock: Callable[[], float] | None,
    ) -> None:
        super().__init__(client, prefix)
        first = checked_floor(floor)

        # The key of the floor, and of what the script tells another server by.
        self._state = self._prefix + kind

        # How many seconds later than now a token may have been issued, by a clock ahead of ours.
        self._ahead = ahead
        self._clock = clock
        self._watch = self._what_to_watch(lossless)

        # The script takes the later of the two clocks: one may be behind.
        now = int((clock or time)())
        stated = "" if first is None else first
        begin = self._script(BEGIN)
        begin([self._state], [*self._floor_facts(), now, stated])

    def _what_to_watch(self, lossless: bool) -> int:
        """Whether the floor rises with another server: see `watch` in the scripts."""
        if lossless:
            return 0  # never
        return 2 if self._is_exact else 1

    def _floor_facts(self) -> tuple[int, int | str, int]:
        """What each script is given of the floor. Without a clock of ours, it asks the server's."""
        clock = "" if self._clock is None else int(self._clock())
        return self._ahead, clock, self._watch


# --- the stores -----------------------------------------------------------------------------------


class ValkeyReplayStore(_FlooredStore):
    """Used proofs.

    The server keeps the floor. So only a new one, one that lost its data, and one that was
    restarted refuse what was issued up to five seconds later. `floor=0` says aloud that no earlier
    server took proofs for this audience, and `lossless=True` that a restart forgets none. Holds at
    most `limit` uses of the last half minute, and refuses more. `clock` stands in for the server's.
    """

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "captoken",
        floor: int | None = None,
        limit: int = 1_000_000,
        lossless: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(
            client,
            "replay",
            PROOF_AHEAD,
            prefix,
            floor,
            lossless,
            clock,
        )
        self._limit = limit
        self._proofs = self._prefix + "proofs"
        self._add = self._script(ADD)

    def add(self, use: Use, now: int) -> bool:
        """True if it is the first use, and above the floor.

        Raises StoreError when full or unreachable. A client that sends again after a lost answer
        finds its own use: that is a denial, not an allowance.
        """
        return self._take(use, now, peek=False)

    def peek(self, use: Use, now: int) -> bool:
        """Would `add` return True? Raises StoreError when full or unreachable."""
        return self._take(use, now, peek=True)

    def _take(self, use: Use, now: int, *, peek: bool) -> bool:
        facts = [
            *self._floor_facts(),
            now,
            use.issued_at,
            too_old(now),
            use.entry,
            self._limit,
            int(peek),
        ]
        answer = self._add([self._state, self._proofs], facts)
        if answer == -1:
            raise is_full(self._limit)
        return _yes(answer)


class ValkeyLedger(_FlooredStore):
    """Counts. `shared=True` says that all servers that take these tokens count under this prefix.

    The server keeps the floor: see Ledger. It rises when the server lost its data. It also rises
    when the server was restarted or a replica took its place, since either may lose the last
    second. It does not where the append-only file is synchronized at each write and there is no
    replica, nor with `lossless=True`, which says aloud that nothing that was answered is ever lost.
    `clock` stands in for the server's.
    """

    def __init__(
        self,
        client: Any,
        *,
        shared: bool = False,
        prefix: str = "captoken",
        floor: int | None = None,
        lossless: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(
            client,
            "ledger",
            CLOCKS_DIFFER,
            prefix,
            floor,
            lossless,
            clock,
        )
        self.shared = shared

        # Where the keys of buckets begin, and the key of how long each of them is kept; and where
        # the keys begin that say so of the buckets of one tree.
        self._buckets = self._prefix + "spent:"
        self._kept = self._prefix + "kept"
        self._trees = self._prefix + "tree:"

        self._reserve = self._script(RESERVE)
        self._settle = self._script(SETTLE)

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """None if every bucket had enough and was debited, else the first that had not.

        Raises StoreError.
        """
        return self._debit(reservation, now, peek=False)

    def peek(self, reservation: Reservation, now: int) -> Debit | None:
        """What `reserve` would answer: None, or the first bucket that has not enough.

        Raises StoreError.
        """
        return self._debit(reservation, now, peek=True)

    def _debit(
        self,
        reservation: Reservation,
        now: int,
        *,
        peek: bool,
    ) -> Debit | None:
        kept_until = reservation.kept_until
        facts = [
            *self._floor_facts(),
            now,
            reservation.issued_at,
            reservation.until,
            min(max(reservation.until - now, 0) + _SLACK, _LONG),
            "+inf" if kept_until is None else kept_until,
            self._buckets,
            KEPT,
            int(peek),
            MOST_BUCKETS,
            reservation.leeway,
        ]
        tree = self._trees + reservation.tree
        keys = [self._state, self._key(reservation.id), self._kept, tree]
        for debit in reservation.debits:
            keys.append(self._bucket(debit.bucket, debit.unit))
            facts += [debit.limit, debit.amount]
        return short_debit(_SERVER, self._reserve(keys, facts), reservation)

    def settle(
        self,
        reservation_id: bytes,
        amounts: Mapping[str, int] | None,
        now: int,
    ) -> bool:
        """True if the reservation was open: what was not taken of it goes back.

        Raises StoreError.
        """
        facts = [now, self._buckets, "all" if amounts is None else ""]
        for unit, amount in (amounts or {}).items():
            facts += [unit, min(max(amount, 0), MAX_INTEGER)]
        return _yes(self._settle([self._key(reservation_id)], facts))

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited. Raises StoreError."""
        text = self._ask(self._client.get, self._bucket(bucket, unit))
        if text is None:
            return 0

        # A client may decode what it reads.
        written = text if isinstance(text, bytes) else str(text).encode()
        if not re.fullmatch(rb"[0-9]{1,16}", written):
            raise StoreError(_DAMAGED)
        return int(written)

    def _key(self, reservation_id: bytes) -> str:
        """The key of one reservation."""
        return f"{self._prefix}reserved:{reservation_id.hex()}"

    def _bucket(self, bucket: bytes, unit: str) -> str:
        """The key of what one bucket was debited, in one unit."""
        return f"{self._buckets}{bucket.hex()}:{unit}"


class ValkeySnapshots(ValkeyStore):
    """The newest snapshot of the overlay.

    What was published is in the append-only file, and on disk, before `publish` answers; a server
    without such a file is refused. `durable=False` says aloud that a crash may lose a revocation.
    A replica may lack it too: see the docs. `timeout`: seconds to wait for the disk.
    """

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "captoken",
        durable: bool = True,
        timeout: float = 5.0,
    ) -> None:
        super().__init__(client, prefix)
        if durable and self._is_logged is False:
            raise StoreError(
                "Valkey: no append-only file, so a crash loses revocations: "
                "durable=False would say that it may"
            )
        base = self._prefix + "overlay"
        # The snapshot, the deltas, and what is known of both.
        self._keys = [base, f"{base}:deltas", f"{base}:state"]
        self._durable = durable
        self._timeout = int(timeout * 1000)
        self._load = self._script(LOAD)
        self._since = self._script(SINCE)

    def load(self) -> bytes | None:
        """The newest snapshot, and the deltas behind it, if there is one. Raises StoreError."""
        found = self._load(self._keys, [])
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
        found = self._since(self._keys[1:], [mark.hex()])
        if found is None:
            return None
        if not isinstance(found, list):
            raise not_an_answer(_SERVER, found)
        return [_bytes(line)[_MARKS:] for line in found]

    def _written(self, script: str, facts: tuple[Any, ...]) -> bool:
        """Has the script done it, and is it on disk? Raises StoreError."""
        node = _node(self._client, self._keys[0])

        # One batch is on one connection: WAITAOF waits for what was written on its own.
        batch = self._ask(node.pipeline, transaction=False)
        batch.eval(
            script,
            len(self._keys),
            *self._keys,
            *facts,
        )
        if self._durable:
            batch.execute_command("WAITAOF", 1, 0, self._timeout)
        won, *written = self._ask(batch.execute, raise_on_error=False)

        if isinstance(won, Exception):
            raise StoreError(_words(won))
        if not _yes(won):
            return False
        if self._durable and not _is_on_disk(written[0]):
            raise StoreError(
                "Valkey: published, and not known to be on disk: no append-only file, or a slow one"
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
