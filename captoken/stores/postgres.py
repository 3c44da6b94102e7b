"""Every store in a PostgreSQL database: for servers on many machines (spec, "Replay", "Ledger", "Overlay").

`create_tables` makes the tables and functions once. A call is one function: one transaction, one round trip.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from time import time
from typing import Any, LiteralString, TypeAlias
from weakref import WeakSet

import psycopg
from psycopg import sql
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import tuple_row

from captoken._format.clocks import CLOCKS_DIFFER, PROOF_AHEAD, PROOF_PAST
from captoken._format.encoding import MAX_INTEGER
from captoken._format.errors import StoreError
from captoken.stores._rules import REFUSED_BEFORE, REFUSED_CLOCK
from captoken.stores.ports import KEPT, Debit, Reservation, Use

Connection: TypeAlias = "psycopg.Connection[Any]"
Source: TypeAlias = "str | Callable[[], Connection]"


# --- tables and functions --------------------------------------------------------------------------------------------

# `ready`: what was answered is on disk, nobody waits for a lock for ever, and each statement sees what was committed before
# it. The functions rely on the last: what they read once more after a lock is the newest.
#
# `floor_of`: the floor of a kind of store, with the timeline of the server that it was written on. If the row is gone, all
# was lost. If the timeline is another one by now (a standby was promoted, a backup was rolled forward), the last
# transactions may be lost. Either way the floor rises over all that can have been issued. `begin` is the same, for a store
# that is made; it may have been told how the floor begins.
#
# `reserve` locks the rows of the buckets in the order of the debits, from root to leaf, so that no two wait for each other.
# What was debited is given back when a later bucket is short, and when the same reservation was made by another connection
# meanwhile. `settle` takes the same order. `sweep` passes over rows that are locked, and notes, as the floor of what is
# `forgotten`, until when the last bucket was kept that it deleted. `reserve` asks for that after the debits: whoever makes a
# bucket again sees the note of the one who deleted it.
_SETUP = """
create schema if not exists captoken;
create table if not exists captoken.floors (kind text primary key, floor bigint not null, timeline text not null);
create table if not exists captoken.proofs (entry bytea primary key, issued_at bigint not null);
create index if not exists proofs_by_time on captoken.proofs (issued_at);
create table if not exists captoken.buckets (
    link bytea, unit text, spent bigint not null check (spent >= 0), keep bigint, primary key (link, unit)
);
create index if not exists buckets_by_time on captoken.buckets (keep);
create table if not exists captoken.reservations (
    id bytea primary key, links bytea[] not null, units text[] not null, amounts bigint[] not null,
    until bigint not null, open boolean not null
);
create index if not exists reservations_by_time on captoken.reservations (until);
create table if not exists captoken.overlay (one integer primary key check (one = 1), snapshot bytea not null);

create or replace function captoken.ready() returns void language plpgsql as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'captoken: transactions must be read committed';
    end if;
    if current_setting('synchronous_commit') = 'off' then perform set_config('synchronous_commit', 'on', true); end if;
    if current_setting('lock_timeout') = '0' then perform set_config('lock_timeout', '5s', true); end if;
end $$;

create or replace function captoken.floor_of(
    its_kind text, ahead bigint, told bigint, clock bigint, lossless boolean, first bigint default null
) returns bigint language plpgsql as $$
declare
    current text := '';
    known record;
    begun bigint;
begin
    if not lossless then current := left(pg_walfile_name(pg_current_wal_lsn()), 8); end if;
    select floor, timeline into known from captoken.floors where kind = its_kind;
    if found and (lossless or known.timeline = current) then return known.floor; end if;
    begun := greatest(coalesce(clock, floor(extract(epoch from clock_timestamp()))::bigint), told) + ahead;
    insert into captoken.floors as f values (its_kind, coalesce(first, begun), current)
        on conflict (kind) do update set floor = greatest(f.floor, begun), timeline = current where f.timeline <> current;
    return (select floor from captoken.floors where kind = its_kind);
end $$;

create or replace function captoken.begin(
    its_kind text, told bigint, ahead bigint, clock bigint, lossless boolean, first bigint
) returns bigint language plpgsql as $$
begin
    perform captoken.ready();
    return captoken.floor_of(its_kind, ahead, told, clock, lossless, first);
end $$;

create or replace function captoken.add(
    its_entry bytea, issued bigint, told bigint, gone bigint, ahead bigint, clock bigint, lossless boolean
) returns boolean language plpgsql as $$
begin
    perform captoken.ready();
    perform captoken.floor_of('replay', ahead, told, clock, lossless);
    update captoken.floors set floor = gone where kind = 'replay' and floor < gone;
    if found then delete from captoken.proofs where issued_at <= gone; end if;
    if issued <= (select floor from captoken.floors where kind = 'replay') then return false; end if;
    insert into captoken.proofs values (its_entry, issued) on conflict (entry) do nothing;
    -- Once more: it may have been known, and forgotten by whoever raised the floor meanwhile.
    return found and issued > (select floor from captoken.floors where kind = 'replay');
end $$;

create or replace function captoken.give_back(
    its_links bytea[], its_units text[], its_amounts bigint[], many integer
) returns void language plpgsql as $$
begin
    for i in 1 .. many loop
        update captoken.buckets set spent = spent - its_amounts[i]
            where link = its_links[i] and unit = its_units[i] and its_amounts[i] > 0;
    end loop;
end $$;

create or replace function captoken.sweep(told bigint) returns void language plpgsql as $$
declare
    sure bigint := least(told, floor(extract(epoch from clock_timestamp()))::bigint);
    last bigint;
begin
    delete from captoken.reservations where id in (
        select id from captoken.reservations where until <= sure limit 500 for update skip locked
    );
    with forgotten as (
        delete from captoken.buckets where (link, unit) in (
            select link, unit from captoken.buckets where keep <= sure limit 500 for update skip locked
        ) returning keep
    ) select max(keep) into last from forgotten;
    if last is not null then
        insert into captoken.floors as f values ('forgotten', last, '')
            on conflict (kind) do update set floor = greatest(f.floor, excluded.floor);
    end if;
end $$;

create or replace function captoken.reserve(
    its_id bytea, its_links bytea[], its_units text[], limits bigint[], its_amounts bigint[],
    issued bigint, its_until bigint, its_keep bigint, told bigint, ahead bigint, clock bigint, lossless boolean
) returns integer language plpgsql as $$
declare
    done integer := 0;
begin
    perform captoken.ready();
    if exists (select from captoken.reservations where id = its_id) then return 0; end if;
    if issued <= captoken.floor_of('ledger', ahead, told, clock, lossless) then return -1; end if;
    for i in 1 .. cardinality(its_links) loop
        insert into captoken.buckets as b (link, unit, spent, keep)
            select its_links[i], its_units[i], its_amounts[i], its_keep where its_amounts[i] <= limits[i]
            on conflict (link, unit) do update
            set spent = b.spent + excluded.spent,
                keep = case when b.keep is not null and excluded.keep is not null then greatest(b.keep, excluded.keep) end
            where b.spent + excluded.spent <= limits[i];
        exit when not found;
        done := i;
    end loop;
    if exists (select from captoken.floors where kind = 'forgotten' and told < floor - $kept) then
        perform captoken.give_back(its_links, its_units, its_amounts, done);
        return -2;
    end if;
    if done = cardinality(its_links) then
        insert into captoken.reservations values (its_id, its_links, its_units, its_amounts, its_until, true)
            on conflict (id) do nothing;
        if found then
            if get_byte(its_id, 0) < 16 then perform captoken.sweep(told); end if;
            return 0;
        end if;
    end if;
    perform captoken.give_back(its_links, its_units, its_amounts, done);
    return case when exists (select from captoken.reservations where id = its_id) then 0 else done + 1 end;
end $$;

create or replace function captoken.settle(
    its_id bytea, taken_units text[], taken bigint[], told bigint
) returns boolean language plpgsql as $$
declare
    known record;
begin
    perform captoken.ready();
    update captoken.reservations set open = false where id = its_id and open and until > told
        returning links, units, amounts into known;
    if not found then return false; end if;
    if taken is null then return true; end if;
    perform captoken.give_back(known.links, known.units, array(
        select amount - least(amount, greatest(coalesce(taken[array_position(taken_units, unit)], 0), 0))
        from unnest(known.units, known.amounts) with ordinality as debit (unit, amount, place) order by place
    ), cardinality(known.links));
    return true;
end $$;

create or replace function captoken.publish(its_snapshot bytea, after bytea) returns boolean language plpgsql as $$
begin
    perform captoken.ready();
    if after is null then
        insert into captoken.overlay values (1, its_snapshot) on conflict (one) do nothing;
    else
        update captoken.overlay set snapshot = its_snapshot where one = 1 and snapshot = after;
    end if;
    return found;
end $$;
""".replace("$kept", str(KEPT))


def setup(schema: str = "captoken") -> str:
    """The statements that make tables and functions, for whoever may run them; again, they change nothing."""
    if (
        type(schema) is not str
        or not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema)
        or schema.startswith("pg_")
    ):
        raise ValueError("a schema is a name of small letters, digits and _")
    return re.sub(
        r"\bcaptoken\.|(?<=exists )captoken\b",
        lambda found: found[0].replace("captoken", schema),
        _SETUP,
    )


def create_tables(connection: Connection, *, schema: str = "captoken") -> None:
    """Make the tables and functions that are not there, in one transaction. Raises StoreError.

    A store needs usage of the schema, and select, insert, update and delete on its tables. Nothing else is to write there.
    """
    try:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute("select pg_advisory_xact_lock(hashtext('captoken'))")
            cursor.execute(setup(schema).encode())
        return
    except psycopg.Error as error:
        failed = _words(error)
    raise StoreError(failed)


# --- the connection --------------------------------------------------------------------------------------------------


class PostgresStore:
    """What the stores have in common: one connection, which threads take in turn.

    `source` is a conninfo string, or a callable that returns a connection of the store's own. A connection that is found
    broken before anything was sent is made anew. If it breaks later, the call raises StoreError, since what was sent may
    have been done; only what can be repeated without harm is.
    """

    def __init__(self, source: Source, schema: str) -> None:
        setup(schema)
        self._schema = schema
        self._connect: Callable[[], Connection] = (
            source if callable(source) else lambda: psycopg.connect(source)
        )
        self._lock = Lock()
        self._connection: Connection | None = None
        self._abandoned: list[Connection] = []
        _stores.add(self)
        with self._kept():
            if self._ask(sql.SQL("select current_setting('fsync')"), again=True) != "on":
                raise StoreError(
                    "PostgreSQL: with fsync off a crash goes back in time, or loses the tables"
                )

    def close(self) -> None:
        """Close the connection. The store makes another one when it is asked."""
        with self._lock:
            self._drop()

    @contextmanager
    def _kept(self) -> Generator[None]:
        """The connection, unless the store is not made after all."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _function(self, name: str, parameters: LiteralString) -> sql.Composed:
        """A call of one of the functions."""
        return sql.SQL("select {}(" + parameters + ")").format(sql.Identifier(self._schema, name))

    def _ask(
        self, statement: sql.SQL | sql.Composed, values: Sequence[Any] = (), *, again: bool = False
    ) -> Any:
        """The one value that the statement gives; None if it gives no row. `again`: it may be run twice."""
        for last in (not again, True):
            lost = False
            with self._lock:
                try:
                    connection = self._open()
                    with connection.cursor(row_factory=tuple_row) as cursor:
                        row = cursor.execute(statement, values).fetchone()
                    return None if row is None else row[0]
                except StoreError:
                    raise
                except Exception as error:
                    failed = _words(error)
                    if self._connection is not None and self._connection.closed:
                        self._drop()
                        lost = True
                except BaseException:
                    self._drop()
                    raise
            if last or not lost:
                break
        raise StoreError(failed)

    def _open(self) -> Connection:
        """The connection, if it is as it was left; else a new one."""
        if self._connection is not None and not _whole(self._connection):
            self._drop()
        if self._connection is None:
            connection = self._connect()
            if not isinstance(connection, psycopg.Connection):
                raise StoreError(
                    f"PostgreSQL: a {type(connection).__name__} is no connection of psycopg"
                )
            self._connection = connection
            connection.autocommit = True
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _after_fork(self) -> None:
        """In the child: the connection is the parent's. It is kept, and never touched, since closing it would harm there."""
        self._lock = Lock()
        if self._connection is not None:
            self._abandoned.append(self._connection)
            self._connection = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._schema}>"


_stores: WeakSet[PostgresStore] = WeakSet()


def _renew_all() -> None:
    for store in list(_stores):
        store._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


def _whole(connection: Connection) -> bool:
    """Is it open, idle, and not given up by the server? Reads what has arrived; waits for nothing."""
    try:
        if connection.closed:
            return False
        for _ in range(2):  # a last message, and then the end
            connection.pgconn.consume_input()
        return (
            connection.pgconn.status == ConnStatus.OK
            and connection.info.transaction_status == TransactionStatus.IDLE
        )
    except psycopg.Error:
        return False


def _words(error: Exception) -> str:
    """What is wrong, without what a connection string or a row says."""
    state = getattr(error, "sqlstate", None)
    if state == "P0001" and "read committed" in str(error):
        return "PostgreSQL: default_transaction_isolation must be read committed for this login"
    hint = ": create_tables makes what is missing" if state in ("3F000", "42P01", "42883") else ""
    return f"PostgreSQL: {type(error).__name__}{f' {state}' if state else ''}{hint}"


# --- the stores ------------------------------------------------------------------------------------------------------


class _FlooredStore(PostgresStore):
    """A store with a floor. `lossless` says aloud that failover and restored backups lose nothing that was answered."""

    def __init__(
        self,
        source: Source,
        kind: str,
        ahead: int,
        schema: str,
        floor: int | None,
        lossless: bool,
        clock: Callable[[], float] | None,
    ) -> None:
        if floor is not None and (type(floor) is not int or not 0 <= floor <= MAX_INTEGER):
            raise ValueError("a floor is seconds since the epoch, as int")
        super().__init__(source, schema)
        self._ahead, self._clock, self._lossless = ahead, clock, lossless
        begin = self._function(
            "begin", "%s::text, %s::bigint, %s::bigint, %s::bigint, %s::boolean, %s::bigint"
        )
        now = int((clock or time)())  # the later of the two clocks: one may be behind
        with self._kept():
            self._ask(begin, (kind, now, *self._floor_facts(), floor), again=True)

    def _floor_facts(self) -> tuple[int, int | None, bool]:
        return self._ahead, None if self._clock is None else int(self._clock()), self._lossless


class PostgresReplayStore(_FlooredStore):
    """Used proofs, as many as the disk holds.

    The database keeps the floor, so only a new one, and one that a failover or a restored backup has set back, refuses
    what was issued up to five seconds later; `floor=0` says aloud that no earlier one took proofs for this audience, and
    `lossless=True` that it is never set back. `clock` stands in for the server's.
    """

    def __init__(
        self,
        source: Source,
        *,
        schema: str = "captoken",
        floor: int | None = None,
        lossless: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(source, "replay", PROOF_AHEAD, schema, floor, lossless, clock)
        self._add = self._function("add", "%s::bytea, " + "%s::bigint, " * 5 + "%s::boolean")

    def add(self, use: Use, now: int) -> bool:
        """True if it is the first use, and after the floor. Raises StoreError."""
        return _yes(
            self._ask(
                self._add,
                (use.entry, use.issued_at, now, now - PROOF_PAST - 1, *self._floor_facts()),
            )
        )


def _yes(answer: Any) -> bool:
    if type(answer) is not bool:
        raise StoreError(f"PostgreSQL: answered with a {type(answer).__name__}")
    return answer


class PostgresLedger(_FlooredStore):
    """Counts. `shared=True` says that all servers that take these tokens count in this schema.

    The database keeps the floor: see Ledger. It rises when a failover or a restored backup has set the database back;
    not with `lossless=True`, which says aloud that none does. `clock` stands in for the server's.
    """

    def __init__(
        self,
        source: Source,
        *,
        shared: bool = False,
        schema: str = "captoken",
        floor: int | None = None,
        lossless: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(source, "ledger", CLOCKS_DIFFER, schema, floor, lossless, clock)
        self.shared = shared
        debits: LiteralString = "%s::bytea[], %s::text[], %s::bigint[], %s::bigint[], "
        self._reserve = self._function(
            "reserve", "%s::bytea, " + debits + "%s::bigint, " * 6 + "%s::boolean"
        )
        self._settle = self._function("settle", "%s::bytea, %s::text[], %s::bigint[], %s::bigint")
        self._spent = sql.SQL("select spent from {} where link = %s and unit = %s").format(
            sql.Identifier(schema, "buckets")
        )

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """None if every bucket had enough and was debited, else the first that had not. Raises StoreError."""
        debits, keep = (
            reservation.debits,
            None if reservation.keep is None else reservation.keep + KEPT,
        )
        answer = self._ask(
            self._reserve,
            (
                reservation.id,
                [debit.bucket for debit in debits],
                [debit.unit for debit in debits],
                [debit.limit for debit in debits],
                [debit.amount for debit in debits],
                reservation.issued_at,
                reservation.until,
                keep,
                now,
                *self._floor_facts(),
            ),
            again=True,  # by its id
        )
        if type(answer) is not int or not -2 <= answer <= len(debits):
            raise StoreError(f"PostgreSQL: answered with a {type(answer).__name__}")
        if answer < 0:
            raise StoreError(REFUSED_BEFORE if answer == -1 else REFUSED_CLOCK)
        return debits[answer - 1] if answer else None

    def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> bool:
        """True if the reservation was open: what was not taken of it goes back. Raises StoreError."""
        taken = (
            None if amounts is None else [min(amount, MAX_INTEGER) for amount in amounts.values()]
        )
        return _yes(self._ask(self._settle, (reservation_id, list(amounts or ()), taken, now)))

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited. Raises StoreError."""
        answer = self._ask(self._spent, (bucket, unit), again=True)
        if answer is not None and type(answer) is not int:
            raise StoreError(f"PostgreSQL: answered with a {type(answer).__name__}")
        return answer or 0


class PostgresSnapshots(PostgresStore):
    """The newest snapshot of the overlay. What was published is on disk before `publish` answers."""

    def __init__(self, source: Source, *, schema: str = "captoken") -> None:
        super().__init__(source, schema)
        self._newest = sql.SQL("select snapshot from {}").format(sql.Identifier(schema, "overlay"))
        self._publish = self._function("publish", "%s::bytea, %s::bytea")

    def load(self) -> bytes | None:
        """The newest snapshot, if there is one. Raises StoreError."""
        found = self._ask(self._newest, again=True)
        if found is not None and type(found) is not bytes:
            raise StoreError(f"PostgreSQL: answered with a {type(found).__name__}")
        return found

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """False if another one lies there than `after`. On disk when it returns True.

        Raises StoreError, also where the answer was lost: then it may lie there.
        """
        return _yes(self._ask(self._publish, (snapshot, after)))
