"""What a reservation costs on each store: `python -m tests.benchmarks.stores`. Interleaved rounds, medians, ratios; not a test.

Two buckets, as of a token with `uses` at two hops. On a server beside what it could cost at best, in the same run: a bare round trip; one script that is
given as much and does nothing, or one row that is committed. Settled: what a block costs that says what was taken; one that says nothing is `reserve`.
Then what a second process brings, and what tasks bring that ask at the same time. Servers are started from their wheels, and their data lies in memory
where there is a folder for that; `--disk` puts it on the disk, where a commit waits for it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
import valkey
import valkey.asyncio

from captoken.stores.memory import MemoryLedger
from captoken.stores.ports import USES, Debit, Ledger, Mark, MarkedStep, Reservation, Rule
from captoken.stores.postgres import AsyncPostgresLedger, PostgresLedger, create_tables
from captoken.stores.sqlite import SQLiteLedger
from captoken.stores.valkey import AsyncValkeyLedger, ValkeyLedger
from tests.stores import servers

NOW = int(time.time())
LATER = NOW + 1000  # tokens that no floor refuses
ROUNDS = 31
SECONDS = 3  # that several processes, or tasks, ask for
TASKS = 64
TARGETS = {"Valkey": 0.27, "PostgreSQL": 0.10}  # of the bare round trips

Calls = dict[str, Callable[[], object]]


def asked() -> Reservation:
    """A new one, of two buckets that all share."""
    debits = (Debit(b"a" * 16, USES, 2**50, 1), Debit(b"b" * 16, USES, 2**50, 1))
    return Reservation(os.urandom(16), debits, LATER, LATER + 60, LATER + 900, tree="t")


def reserving(ledger: Ledger) -> Callable[[], None]:
    def reserve() -> None:
        assert ledger.reserve(asked(), LATER) is None

    return reserve


def settling(ledger: Ledger) -> Callable[[], None]:
    def settle() -> None:
        one = asked()
        assert ledger.reserve(one, LATER) is None
        assert ledger.settle(one.id, {USES: 1}, LATER) is True

    return settle


MARK, NEVER = Mark(b"m" * 32, None, False), Mark(b"n" * 32, None, False)


def stepping(ledger: Ledger, *, new: bool = False, reserves: bool = False) -> Callable[[], None]:
    """A step that runs into a rule which does not hold: its mark is set already, or each time another; perhaps it reserves, too."""

    def step() -> None:
        marks = (Mark(os.urandom(32), LATER + 900, False) if new else MARK,)
        asked_for = MarkedStep(marks, (Rule((MARK, NEVER)),), LATER, "t", by="a: b", reservation=asked() if reserves else None)
        assert ledger.step(asked_for, LATER) is None

    return step


def steps_of(ledger: Ledger) -> Calls:
    return {
        "a step": stepping(ledger),
        "a step that sets": stepping(ledger, new=True),
        "a step that reserves": stepping(ledger, reserves=True),
    }


def measured(name: str, calls: Calls, times: int) -> None:
    """Prints each call: microseconds, how many a second, and their part of the first one's. Medians; ratios within a round."""
    taken: dict[str, list[float]] = {what: [] for what in calls}
    for _ in range(ROUNDS):
        for what, call in calls.items():
            start = time.perf_counter()
            for _ in range(times):
                call()
            taken[what].append((time.perf_counter() - start) / times)
    bare = next(iter(taken.values()))
    for what, each in taken.items():
        part = median(first / one for first, one in zip(bare, each, strict=True))
        goal = f"   target {TARGETS[name]:.2f}" if what == "reserve" and name in TARGETS else ""
        print(f"{name:<11}{what:<22}{median(each) * 1e6:8.1f} µs{1 / median(each):10,.0f} a second   {part:.3f} of {next(iter(calls))}{goal}")


# --- several processes -----------------------------------------------------------------------------------------------


def opened(kind: str, where: Any) -> Any:
    """The ledger that lies there, in a process that has nothing of it yet."""
    return ValkeyLedger(valkey.Valkey(port=where), shared=True) if kind == "Valkey" else PostgresLedger(where, shared=True)


def ask(kind: str, where: Any, gate: Barrier, told: Any) -> None:
    reserve, many = reserving(opened(kind, where)), 0
    reserve()
    gate.wait(60)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        reserve()
        many += 1
    told.put(many / SECONDS)


def processes(kind: str, where: Any) -> None:
    """Prints what one process gets and what two get together, by turns."""
    fresh = multiprocessing.get_context("spawn")
    got: dict[int, list[float]] = {1: [], 2: []}
    for many in (1, 2) * 3:
        gate, told = fresh.Barrier(many), fresh.Queue()
        running = [fresh.Process(target=ask, args=(kind, where, gate, told)) for _ in range(many)]
        for one in running:
            one.start()
        got[many].append(sum(told.get(timeout=60) for _ in running))
        for one in running:
            one.join()
    one, two = median(got[1]), median(got[2])
    print(f"{kind:<11}{'one process, two':<22}{one:10,.0f} and {two:,.0f} a second: {two / one:.2f} times as many")


# --- many tasks ------------------------------------------------------------------------------------------------------


async def tasks(kind: str, ledger: Any) -> None:
    """Prints what tasks of one event loop get that ask at the same time."""
    until, many = time.monotonic() + SECONDS, 0

    async def run() -> None:
        nonlocal many
        while time.monotonic() < until:
            assert await ledger.reserve(asked(), LATER) is None
            many += 1

    await asyncio.gather(*(run() for _ in range(TASKS)))
    print(f"{kind:<11}{f'{TASKS} tasks, one process':<22}{many / SECONDS:10,.0f} a second")


async def valkey_tasks(port: int) -> None:
    async with valkey.asyncio.Valkey(port=port) as client:
        await tasks("Valkey", AsyncValkeyLedger(client, shared=True))


async def postgres_tasks(conninfo: str) -> None:
    ledger = AsyncPostgresLedger(conninfo, shared=True)
    await tasks("PostgreSQL", ledger)
    await ledger.aclose()


def in_a_loop(work: Awaitable[None]) -> None:
    async def run() -> None:
        await work

    asyncio.run(run())


# --- the stores ------------------------------------------------------------------------------------------------------


@contextmanager
def stopped(server: Any) -> Iterator[Any]:
    try:
        yield server
    finally:
        server.stop()


def on_valkey() -> None:
    with stopped(servers.Valkey()) as server, closing(server.client()) as client:
        ledger = ValkeyLedger.create(client, shared=True)
        nothing = client.register_script("return 0")
        keys, facts = ["{captoken}:" + "x" * 40] * 6, [str(NOW)] * 18  # as many, and as long, as a reservation has
        calls: Calls = {
            "PING": client.ping,
            "a script, nothing done": lambda: nothing(keys=keys, args=facts),
            "reserve": reserving(ledger),
            "reserve and settle": settling(ledger),
            **steps_of(ledger),
        }
        measured("Valkey", calls, 100)
        processes("Valkey", server.port)
        in_a_loop(valkey_tasks(server.port))


def on_postgres() -> None:
    with stopped(servers.Postgres()) as server, psycopg.connect(server.conninfo, autocommit=True) as connection:
        create_tables(connection)
        connection.execute("create table bare (one bytea, two bigint)")
        ledger = PostgresLedger.create(server.conninfo, shared=True)
        calls: Calls = {
            "select 1": lambda: connection.execute("select 1"),
            "one row committed": lambda: connection.execute("insert into bare values (%s, %s)", (b"a" * 16, NOW)),
            "reserve": reserving(ledger),
            "reserve and settle": settling(ledger),
            **steps_of(ledger),
        }
        measured("PostgreSQL", calls, 50)
        ledger.close()
        processes("PostgreSQL", server.conninfo)
        in_a_loop(postgres_tasks(server.conninfo))


def on_this_machine() -> None:
    with ExitStack() as stack:
        folder = Path(servers.folder())
        stack.callback(shutil.rmtree, folder)
        file = stack.enter_context(closing(SQLiteLedger.create(folder / "ledger.db", shared=True)))
        memory = MemoryLedger(shared=True)
        measured("memory", {"reserve": reserving(memory), "reserve and settle": settling(memory), **steps_of(memory)}, 200)
        measured("SQLite", {"reserve": reserving(file), "reserve and settle": settling(file), **steps_of(file)}, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--disk", action="store_true", help="data on the disk, and not in memory")
    if parser.parse_args().disk:
        servers.MEMORY = ()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; the parser of the Valkey client: {parser_of_the_client()}")
    on_this_machine()
    on_valkey()
    on_postgres()
    print(f"load {os.getloadavg()[0]:.1f}")


def parser_of_the_client() -> str:
    return str(valkey.connection.DefaultParser.__name__)


if __name__ == "__main__":
    main()
