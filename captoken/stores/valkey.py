"""Every store on a Valkey or Redis server: for servers on many machines (spec, "Replay", "Ledger", "Overlay").

A call is one script: one atomic step, one round trip. All keys have one hash tag, so that they lie in one slot of a
cluster. The client is yours, of valkey-py or redis-py; nothing here imports either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from inspect import iscoroutinefunction
from time import time
from typing import Any

from captoken._format.clocks import CLOCKS_DIFFER, PROOF_AHEAD, PROOF_PAST
from captoken._format.encoding import MAX_INTEGER
from captoken._format.errors import StoreError
from captoken.stores._rules import REFUSED_BEFORE, REFUSED_CLOCK
from captoken.stores.ports import KEPT, Debit, Reservation, Use

_SLACK = 60  # seconds that a reservation's key outlives it
_LONG = 10**9  # seconds that a reservation's key is kept at most


class ValkeyStore:
    """What the stores have in common. Refuses a server that evicts keys, or that a crash takes back to a snapshot.

    That is asked once, when the store is made, and only of a server that tells. What it becomes later is not seen.
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
        self._client, self._prefix = client, f"{{{prefix}}}:"
        _called(client.exists, self._prefix)  # can it be reached at all?
        node = _node(client, self._prefix)
        policy = _told(lambda: node.info("memory")["maxmemory_policy"])
        if policy not in (None, "noeviction"):
            raise StoreError(
                f"Valkey: maxmemory-policy is {policy}, which forgets what counts: noeviction is needed"
            )
        log, dumps = (
            _told(lambda: node.info("persistence")["aof_enabled"]),
            _told(lambda: node.config_get("save")["save"]),
        )
        if log == 0 and dumps:
            raise StoreError(
                "Valkey: with RDB snapshots alone a crash goes back in time: appendonly yes, or no save at all"
            )
        self._logged: bool | None = None if log is None else log == 1
        # Does a restart lose nothing that was answered? Not where a replica could take over instead.
        each = _told(lambda: node.config_get("appendfsync")["appendfsync"]) == "always"
        alone = _told(
            lambda: (node.info("replication")["role"], node.info("replication")["connected_slaves"])
        ) == ("master", 0)
        self._exact = log == 1 and each and alone

    def _script(self, text: str) -> Callable[[Iterable[Any], Iterable[Any]], Any]:
        script = self._client.register_script(
            text
        )  # EVALSHA; loads the script where it is not known
        return lambda keys, args: _called(script, keys=list(keys), args=list(args))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._prefix}>"


def _node(client: Any, key: str) -> Any:
    """A client for the one server that has the key: in a cluster, that node's."""
    if not hasattr(client, "get_node_from_key"):
        return client
    connection = getattr(client, "get_valkey_connection", None) or client.get_redis_connection
    return _called(lambda: connection(client.get_node_from_key(key)))


def _told(ask: Callable[[], Any]) -> Any:
    """What a server says of itself; None if it does not say."""
    try:
        return ask()
    except KeyError:
        return None
    except Exception as error:
        if any(kind.__name__ == "ResponseError" for kind in type(error).__mro__):
            return None
        failed = _words(error)
    raise StoreError(failed)


def _called(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """What the call returns. Whatever it raises becomes a StoreError that says no address and no key."""
    try:
        return call(*given, **named)
    except Exception as error:
        failed = _words(error)
    raise StoreError(failed)


def _words(error: Exception) -> str:
    if "captoken: damaged" in str(error):
        return "Valkey: what lies under a key of this store is not its own"
    code = re.match("[A-Z]{3,}(?= )", str(error))
    return f"Valkey: {type(error).__name__}{f' {code[0]}' if code else ''}"


# Integers are written as digits, since Lua would write large ones as 1e+15; up to 2^53 its numbers are exact.
#
# The floor lies in a hash, with the run of the server that it was written on. If the hash is gone, the store has lost its
# data. If the server is another one by now (restarted, or a replica in its place), the last second may be lost. Either
# way the floor rises over all that can have been issued. `watch`: 1, the run is noted and compared; 2, it is compared if it
# was noted once, since a restart of this server loses nothing, but it may have been a replica then; 0, neither.
_COMMON = """
local function digits(number) return string.format('%.0f', number) end
local function whole(text)
    local number = type(text) == 'string' and #text <= 16 and string.match(text, '^%d+$') and tonumber(text)
    if not number or number > 9007199254740991 or digits(number) ~= text then error('captoken: damaged') end
    return number
end
local function floor_of(key, now, ahead, clock, watch, first)
    local known = redis.call('HMGET', key, 'floor', 'server')
    local floor, noted, run = known[1] and whole(known[1]), known[2] or '', ''
    if watch == '1' or watch == '2' and noted ~= '' then
        local said = redis.pcall('INFO', 'server')  -- an error, where that is not permitted
        run = type(said) == 'string' and string.match(said, 'run_id:(%x+)') or ''
    end
    if floor and (watch == '0' or run == noted) then return floor end
    if not floor and first then
        floor = first
    else
        local begun = tonumber(clock) or tonumber(redis.call('TIME')[1])
        floor = math.max(floor or 0, math.max(begun, now) + ahead)
    end
    redis.call('HSET', key, 'floor', digits(floor), 'server', watch == '1' and run or '')
    return floor
end
"""

_BEGIN = (
    _COMMON
    + """
floor_of(KEYS[1], tonumber(ARGV[4]), tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[5]))
return 1
"""
)


class _FlooredStore(ValkeyStore):
    """A store with a floor. `lossless` says aloud that neither restart nor failover loses what was answered."""

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
        if floor is not None and (type(floor) is not int or not 0 <= floor <= MAX_INTEGER):
            raise ValueError("a floor is seconds since the epoch, as int")
        self._state, self._ahead, self._clock = self._prefix + kind, ahead, clock
        self._watch = 0 if lossless else 2 if self._exact else 1
        now = int((clock or time)())  # the later of the two clocks: one may be behind
        self._script(_BEGIN)(
            [self._state], [*self._floor_facts(), now, "" if floor is None else floor]
        )

    def _floor_facts(self) -> tuple[int, int | str, int]:
        return self._ahead, "" if self._clock is None else int(self._clock()), self._watch


# Nothing here has a time to live: a use is forgotten in the step that raises the floor over it, whatever the clocks say.
_ADD = (
    _COMMON
    + """
local now, issued, gone = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local floor = floor_of(KEYS[1], now, tonumber(ARGV[1]), ARGV[2], ARGV[3])
if gone > floor then
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', digits(gone))
    redis.call('HSET', KEYS[1], 'floor', digits(gone))
    floor = gone
end
if issued <= floor or redis.call('ZSCORE', KEYS[2], ARGV[7]) then return 0 end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[8]) then return -1 end
redis.call('ZADD', KEYS[2], digits(issued), ARGV[7])
return 1
"""
)


class ValkeyReplayStore(_FlooredStore):
    """Used proofs.

    The server keeps the floor, so only a new one, one that lost its data, and one that was restarted refuse what was
    issued up to five seconds later; `floor=0` says aloud that no earlier server took proofs for this audience, and
    `lossless=True` that a restart forgets none. Holds at most `limit` uses of the last half minute, and refuses more.
    `clock` stands in for the server's.
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
        super().__init__(client, "replay", PROOF_AHEAD, prefix, floor, lossless, clock)
        self._limit, self._proofs, self._add = limit, self._prefix + "proofs", self._script(_ADD)

    def add(self, use: Use, now: int) -> bool:
        """True if it is the first use, and after the floor. Raises StoreError when full or unreachable.

        A client that sends again after a lost answer finds its own use: that is a denial, not an allowance.
        """
        facts = [
            *self._floor_facts(),
            now,
            use.issued_at,
            now - PROOF_PAST - 1,
            use.entry,
            self._limit,
        ]
        answer = self._add([self._state, self._proofs], facts)
        if answer == -1:
            raise StoreError(
                f"{self._limit} proofs of the last {PROOF_PAST + PROOF_AHEAD} seconds are remembered, and no more fit"
            )
        return _yes(answer)


def _yes(answer: Any) -> bool:
    if type(answer) is not int or answer not in (0, 1):
        raise StoreError(f"Valkey: answered with a {type(answer).__name__}")
    return answer == 1


# All is read and judged before the first key is written, since what a script has done stays done when it fails.
#
# No bucket has a time to live, which would be by the server's clock alone and leave no trace. Until when each is kept stands
# in a sorted set, and what both clocks say is over is deleted in the step that notes, in `gone`, how late the last was kept.
_RESERVE = (
    _COMMON
    + """
local now, base, keep = tonumber(ARGV[4]), ARGV[9], ARGV[8]
if redis.call('HGET', KEYS[2], 'until') then return 0 end
if tonumber(ARGV[5]) <= floor_of(KEYS[1], now, tonumber(ARGV[1]), ARGV[2], ARGV[3]) then return -1 end
local gone = redis.call('HGET', KEYS[1], 'gone')
gone = gone and whole(gone) or 0
if now < gone - tonumber(ARGV[10]) then return -2 end
local spent = {}
for at = 4, #KEYS do
    local key, limit, amount = KEYS[at], whole(ARGV[3 + 2 * at]), whole(ARGV[4 + 2 * at])
    if not spent[key] then
        local text = redis.call('GET', key)
        spent[key] = text and whole(text) or 0
    end
    if limit - spent[key] < amount then return at - 3 end
    spent[key] = spent[key] + amount
end
redis.call('ZCARD', KEYS[3])  -- an error, if it is none
redis.call('HSET', KEYS[2], 'until', ARGV[6], 'open', '1', 'debits', digits(#KEYS - 3))
redis.call('EXPIRE', KEYS[2], ARGV[7])
for at = 4, #KEYS do
    local key, amount, name = KEYS[at], ARGV[4 + 2 * at], string.sub(KEYS[at], #base + 1)
    redis.call('HSET', KEYS[2], digits(at - 3), amount .. ' ' .. name)
    redis.call('INCRBY', key, amount)
    redis.call('ZADD', KEYS[3], 'GT', keep, name)
end
local sure = math.min(now, tonumber(ARGV[2]) or tonumber(redis.call('TIME')[1]))
local over = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', digits(sure), 'WITHSCORES', 'LIMIT', 0, 100)
for at = 1, #over, 2 do
    redis.call('DEL', base .. over[at])
    redis.call('ZREM', KEYS[3], over[at])
    gone = math.max(gone, tonumber(over[at + 1]))
end
if #over > 0 then redis.call('HSET', KEYS[1], 'gone', digits(gone)) end
return 0
"""
)

_SETTLE = (
    _COMMON
    + """
local known, listed = {}, redis.call('HGETALL', KEYS[1])
for at = 1, #listed, 2 do known[listed[at]] = listed[at + 1] end
if #listed == 0 or known['open'] ~= '1' or whole(known['until']) <= tonumber(ARGV[1]) then return 0 end
local taken, backs, left = {}, {}, {}
for at = 4, #ARGV, 2 do taken[ARGV[at]] = whole(ARGV[at + 1]) end
for at = 1, ARGV[3] == 'all' and 0 or whole(known['debits']) do
    local amount, name, unit = string.match(known[digits(at)] or '', '^(%d+) (%x+:(.+))$')
    amount = whole(amount)
    local key, back = ARGV[2] .. name, amount - math.min(amount, taken[unit] or 0)
    local text = left[key] or redis.call('GET', key)
    if text and back > 0 then
        left[key] = digits(whole(text) - back)
        whole(left[key])
        backs[#backs + 1] = {key, digits(back)}
    end
end
redis.call('HSET', KEYS[1], 'open', '0')
for _, back in ipairs(backs) do redis.call('DECRBY', back[1], back[2]) end
return 1
"""
)


class ValkeyLedger(_FlooredStore):
    """Counts. `shared=True` says that all servers that take these tokens count here, under this prefix.

    The server keeps the floor: see Ledger. It rises when the server lost its data, and when it was restarted or a replica
    took its place, since either may lose the last second; not where the append-only file is synchronized at each write and
    there is no replica, nor with `lossless=True`, which says aloud that nothing that was answered is ever lost.
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
        super().__init__(client, "ledger", CLOCKS_DIFFER, prefix, floor, lossless, clock)
        self.shared = shared
        self._buckets, self._kept = self._prefix + "spent:", self._prefix + "kept"
        self._reserve, self._settle = self._script(_RESERVE), self._script(_SETTLE)

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """None if every bucket had enough and was debited, else the first that had not. Raises StoreError."""
        debits = reservation.debits
        keep = "+inf" if reservation.keep is None else reservation.keep + KEPT
        lives = min(max(reservation.until - now, 0) + _SLACK, _LONG)
        facts = [
            *self._floor_facts(),
            now,
            reservation.issued_at,
            reservation.until,
            lives,
            keep,
            self._buckets,
            KEPT,
        ]
        for debit in debits:
            facts += [debit.limit, debit.amount]
        keys = [self._state, self._key(reservation.id), self._kept]
        keys += [self._bucket(debit.bucket, debit.unit) for debit in debits]
        answer = self._reserve(keys, facts)
        if type(answer) is not int or not -2 <= answer <= len(debits):
            raise StoreError(f"Valkey: answered with a {type(answer).__name__}")
        if answer < 0:
            raise StoreError(REFUSED_BEFORE if answer == -1 else REFUSED_CLOCK)
        return debits[answer - 1] if answer else None

    def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> bool:
        """True if the reservation was open: what was not taken of it goes back. Raises StoreError."""
        taken = [
            part
            for unit, amount in (amounts or {}).items()
            for part in (unit, min(max(amount, 0), MAX_INTEGER))
        ]
        facts = [now, self._buckets, "all" if amounts is None else "", *taken]
        return _yes(self._settle([self._key(reservation_id)], facts))

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited. Raises StoreError."""
        text = _called(self._client.get, self._bucket(bucket, unit))
        if text is None:
            return 0
        if not re.fullmatch(
            rb"[0-9]{1,16}", text if isinstance(text, bytes) else str(text).encode()
        ):
            raise StoreError("Valkey: what lies under a key of this store is not its own")
        return int(text)

    def _key(self, reservation_id: bytes) -> str:
        return f"{self._prefix}reserved:{reservation_id.hex()}"

    def _bucket(self, bucket: bytes, unit: str) -> str:
        return f"{self._buckets}{bucket.hex()}:{unit}"


# What is there already is put there again: a client that sends again after a lost answer has won, and waits for the disk.
_PUBLISH = """
local lies = redis.call('GET', KEYS[1])
if lies ~= ARGV[1] and lies ~= (ARGV[2] == '1' and ARGV[3]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""


class ValkeySnapshots(ValkeyStore):
    """The newest snapshot of the overlay.

    What was published is in the append-only file, and on disk, before `publish` answers; a server without such a file is
    refused. `durable=False` says aloud that a crash may lose a revocation. A replica may lack it too: see the docs.
    `timeout`: seconds to wait for the disk.
    """

    def __init__(
        self, client: Any, *, prefix: str = "captoken", durable: bool = True, timeout: float = 5.0
    ) -> None:
        super().__init__(client, prefix)
        if durable and self._logged is False:
            raise StoreError(
                "Valkey: no append-only file, so a crash loses revocations: durable=False would say that it may"
            )
        self._key, self._durable, self._timeout = (
            self._prefix + "overlay",
            durable,
            int(timeout * 1000),
        )

    def load(self) -> bytes | None:
        """The newest snapshot, if there is one. Raises StoreError."""
        found = _called(self._client.get, self._key)
        return None if found is None else found.encode() if isinstance(found, str) else bytes(found)

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """False if another one lies there than `after`. On disk when it returns True.

        Raises StoreError, also when it lies there and is not known to be on disk.
        """
        node = _node(self._client, self._key)
        batch = _called(
            node.pipeline, transaction=False
        )  # one connection: WAITAOF waits for what was written on its own
        batch.eval(_PUBLISH, 1, self._key, snapshot, 0 if after is None else 1, after or b"")
        if self._durable:
            batch.execute_command("WAITAOF", 1, 0, self._timeout)
        won, *written = _called(batch.execute, raise_on_error=False)
        if isinstance(won, Exception):
            raise StoreError(_words(won))
        if (
            _yes(won)
            and self._durable
            and not (isinstance(written[0], list) and written[0][0] >= 1)
        ):
            raise StoreError(
                "Valkey: published, and not known to be on disk: no append-only file, or a slow one"
            )
        return _yes(won)
