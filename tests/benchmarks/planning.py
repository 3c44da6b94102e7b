"""What one of each carries, for planning: `python -m tests.benchmarks.planning [--record] [--only …]`. Not a test.

One verifier, one ledger, one overlay, one trail, one issuer, on this machine. The page is docs/planning.md.

A figure is that of the quickest of several rounds: what the machine can do, also where others use it. What only computes is measured
in processor time, for the same reason; what waits for a server or a disk, by the clock on the wall. How busy it was stands beside
it. Servers are started from their wheels. Their data lies in memory where there is a folder for that, and then on the
disk, where a commit waits for it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import gzip
import multiprocessing
import os
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from itertools import count, cycle
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psycopg
import valkey
import valkey.asyncio

from captoken import Access, Issuer, Keyring, Verifier
from captoken._format.encoding import b64encode
from captoken._language.overlay import snapshot
from captoken.audit import AuditTrail
from captoken.control import Entry, Feed, Operator, Overlay, Selector
from captoken.keys import HolderKey, OperatorKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from captoken.stores.ports import USES, Debit, Reservation
from captoken.stores.postgres import AsyncPostgresLedger, PostgresLedger, create_tables
from captoken.stores.sqlite import SQLiteLedger
from captoken.stores.trail_file import TrailFile
from captoken.stores.valkey import AsyncValkeyLedger, ValkeyLedger
from tests.stores import servers

from . import issuance, stores
from .record import keep, machine

Row = dict[str, Any]

ROUNDS = 15
SECONDS = 2.0  # that several processes, or tasks, ask for
TASKS = 64
NOW = int(time.time())
ASK = Access(table="sales", operation="select", columns=["amount", "region"])
AUDIENCE = "sales-db"


def quickest(
    calls: dict[str, Callable[[], object]],
    times: int,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Microseconds a call, of the quickest of the rounds; they take turns. Of processor time, or of another clock."""
    best = dict.fromkeys(calls, float("inf"))
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            for _ in range(times):
                call()
            best[name] = min(best[name], (clock() - start) / times * 1e6)
    gc.enable()
    return best


# --- a verifier ------------------------------------------------------------------------------------


def texts(keyring: Keyring, many: int, hops: int) -> list[str]:
    """Presented texts, each of a tree of its own."""
    made = []
    for number in range(many):
        token = Issuer(keyring).mint(
            subject="user:jane", agent="orchestrator", task=f"q3/{number}", tables=["sales", "market.*"],
            operations=["select"], columns={"sales": ["amount", "region"]}, audience=[AUDIENCE], expires_in=3600,
        )  # fmt: skip
        for hop in range(hops):
            token = token.delegate(to=f"agent-{hop}", tables=["sales"], expires_in=1800)
        made.append(token.present(audience=AUDIENCE, expires_in=1800))
    return made


def entries(many: int) -> list[Entry]:
    """As operators write them: a quarter each by link, token, agent and task, in the order of their ids."""
    made = []
    for number in range(many):
        what = ("link", "token", "agent", "task")[number % 4]
        value = b64encode(os.urandom(16)) if what in ("link", "token") else f"other-{what}-{number}"
        why = "the laptop was lost"
        select = Selector(**{what: value})
        made.append(Entry(id=b64encode(os.urandom(8)), at=NOW, by="ops:kim", why=why, select=select))
    return sorted(made, key=lambda entry: entry.id)


def overlay_of(many: int) -> Overlay:
    key = OperatorKey.generate()
    return Overlay.open(snapshot(key, entries(many), seq=1, issued_at=NOW), [key.public])


def verifier_with_all(keyring: Keyring, folder: Path) -> Verifier:
    """What a server has: an overlay of 10,000 entries, and a trail in a file."""
    trail = AuditTrail(TrailFile(folder / f"{os.urandom(4).hex()}.jsonl").write)
    return Verifier(keyring, AUDIENCE, overlay=overlay_of(10_000), max_staleness=10**6, audit=trail)


def verifiers() -> list[Row]:
    """How long a call takes, and so how many there are in a second of one core."""
    keyring, rows = Keyring.generate(), []
    with tempfile.TemporaryDirectory(dir=on_disk()) as name:
        for hops in (1, 3, 10):
            # Two contestants take 100 of these in each round: none comes a second time.
            fresh = iter(texts(keyring, 200 * ROUNDS, hops))
            again, known = cycle(texts(keyring, 50, hops)), texts(keyring, 1, hops)[0]
            plain = Verifier(keyring, AUDIENCE)
            full, full_again = (verifier_with_all(keyring, Path(name)) for _ in range(2))
            grant = plain.authenticate(known)
            calls: dict[str, Callable[[], object]] = {
                "first": lambda one=plain, from_=fresh: one.check(next(from_), ASK),  # type: ignore[misc]
                "first, all": lambda one=full, from_=fresh: one.check(next(from_), ASK),  # type: ignore[misc]
                "again": lambda one=plain, from_=again: one.check(next(from_), ASK),  # type: ignore[misc]
                "again, all": lambda one=full_again, from_=again: one.check(next(from_), ASK),  # type: ignore[misc]
                "grant": lambda one=grant: one.check(ASK),  # type: ignore[misc]
            }
            assert plain.check(known, ASK) and full.check(known, ASK)
            taken = quickest(calls, 100)
            rows.append({"hops": hops, "microseconds": {what: round(each, 2) for what, each in taken.items()}})
    return rows


def proofs() -> Row:
    """A token that is bound to a key: the proof is checked, and remembered."""
    keyring, key = Keyring.generate(), HolderKey.generate()
    token = Issuer(keyring).mint(
        subject="user:jane", agent="orchestrator", task="q3", tables=["sales"], operations=["select"], key=key.public
    )
    ready = iter([token.present(audience=AUDIENCE, signer=key, request=ASK) for _ in range(60 * ROUNDS)])
    verifier = Verifier(keyring, AUDIENCE, replays=MemoryReplayStore(floor=0))
    taken = quickest({"bound": lambda: verifier.check(next(ready), ASK)}, 60)
    return {"microseconds": round(taken["bound"], 1)}


def remembered() -> Row:
    """What a verifier keeps in memory at most: many texts, each shown twice."""
    keyring = Keyring.generate()
    shown = texts(keyring, 12_000, 1)
    verifier = Verifier(keyring, AUDIENCE)
    gc.collect()
    tracemalloc.start()
    for text in shown:
        verifier.check(text, ASK)
        verifier.check(text, ASK)
    gc.collect()
    megabytes = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    return {"texts": len(shown), "characters": len(shown[0]), "megabytes": round(megabytes, 1)}


def served(keys: dict[str, bytes], current: str, folder: str, gate: Barrier, told: Any) -> None:
    """One process that verifies as a server does."""
    keyring = Keyring.from_keys(keys, current=current)
    verifier, shown, many = verifier_with_all(keyring, Path(folder)), cycle(texts(keyring, 200, 3)), 0
    for _ in range(400):
        verifier.check(next(shown), ASK)
    gate.wait(60)
    until, begun = time.monotonic() + SECONDS, time.process_time()
    while time.monotonic() < until:
        verifier.check(next(shown), ASK)
        many += 1
    told.put(many / (time.process_time() - begun))  # of its own processor time: others may use the cores too


def together(work: Callable[..., None], *given: Any) -> tuple[float, float]:
    """How many in a second by one process, and by two: at best, of three times each."""
    fresh, best = multiprocessing.get_context("spawn"), {1: 0.0, 2: 0.0}
    for many in (1, 2) * 3:
        gate, told = fresh.Barrier(many), fresh.Queue()
        running = [fresh.Process(target=work, args=(*given, gate, told)) for _ in range(many)]
        for one in running:
            one.start()
        best[many] = max(best[many], sum(told.get(timeout=60) for _ in running))
        for one in running:
            one.join()
    return best[1], best[2]


def verifier_processes() -> Row:
    keyring = Keyring.generate()
    keys = {key: keyring.reveal(key) for key in keyring.key_ids}
    with tempfile.TemporaryDirectory(dir=on_disk()) as folder:
        one, two = together(served, keys, keyring.current, folder)
    return {"one": round(one), "two": round(two)}


# --- a ledger --------------------------------------------------------------------------------------


def reserved_by_tasks(kind: str, where: Any) -> float:
    """How many in a second by tasks of one event loop that ask at the same time: at best, of three times."""

    async def ask(ledger: Any) -> float:
        best = 0.0
        for _ in range(3):
            until, many = time.monotonic() + SECONDS / 2, 0

            async def run(until: float) -> None:
                nonlocal many
                while time.monotonic() < until:
                    assert await ledger.reserve(stores.asked(), stores.LATER) is None
                    many += 1

            await asyncio.gather(*(run(until) for _ in range(TASKS)))
            best = max(best, many / (SECONDS / 2))
        return best

    async def on_valkey() -> float:
        async with valkey.asyncio.Valkey(port=where) as client:
            return await ask(AsyncValkeyLedger(client, shared=True))

    async def on_postgres() -> float:
        ledger = AsyncPostgresLedger(where, shared=True)
        try:
            return await ask(ledger)
        finally:
            await ledger.aclose()

    return asyncio.run(on_valkey() if kind == "Valkey" else on_postgres())


def alone(ledger: Any, times: int) -> Row:
    """One thread, one after the other: how many in a second.

    In rounds that are shorter than what a busy machine gives a process at a time.
    """
    calls = {"reserve": stores.reserving(ledger), "settled": stores.settling(ledger)}
    taken = quickest(calls, times, 100, time.perf_counter)
    return {what: round(1e6 / each) for what, each in taken.items()}


def of_many_tokens(ledger: Any, many: int) -> None:
    """A reservation of each of so many tokens, with two buckets that no other has."""
    for number in range(many):
        tree = b64encode(os.urandom(16))
        debits = tuple(Debit(os.urandom(16), unit, 1000, 1) for unit in (USES, "usd_cents"))
        one = Reservation(os.urandom(16), debits, stores.LATER, stores.LATER + 60, stores.LATER + 900, tree=tree)
        assert ledger.reserve(one, stores.LATER) is None, number


MANY = 5000


def ledgers(where: str) -> list[Row]:
    """Each kind: what one thread gets, what two processes and many tasks get together, and what a token takes."""
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(servers.folder())
        stack.callback(shutil.rmtree, folder)
        file = stack.enter_context(closing(SQLiteLedger.create(folder / "ledger.db", shared=True)))
        if where == "memory":
            memory = MemoryLedger(shared=True)
            row = alone(memory, 100)
            tracemalloc.start()
            of_many_tokens(memory, MANY)
            row["bytes a token"] = round(tracemalloc.get_traced_memory()[0] / MANY)
            tracemalloc.stop()
            rows.append({"kind": "in memory, one process", **row})
        row = alone(file, 10)
        before = sum(one.stat().st_size for one in folder.iterdir())
        of_many_tokens(file, MANY if where == "memory" else 200)
        after = sum(one.stat().st_size for one in folder.iterdir())
        if where == "memory":
            row["bytes a token"] = round((after - before) / MANY)
        rows.append({"kind": "SQLite", **row})
    rows.append({"kind": "Valkey", **on_valkey(where)})
    rows.append({"kind": "PostgreSQL", **on_postgres(where)})
    return rows


def on_valkey(where: str) -> Row:
    with stores.stopped(servers.Valkey()) as server, closing(server.client()) as client:
        ledger = ValkeyLedger.create(client, shared=True)
        row = alone(ledger, 10)
        if where == "memory":
            _, two = together(stores.ask, "Valkey", server.port)
            row |= {"two processes": round(two), "tasks": round(reserved_by_tasks("Valkey", server.port))}
            before = client.info("memory")["used_memory"]
            of_many_tokens(ledger, MANY)
            row["bytes a token"] = round((client.info("memory")["used_memory"] - before) / MANY)
        return row


def on_postgres(where: str) -> Row:
    sizes = "select sum(pg_total_relation_size(c.oid)) from pg_class c join pg_namespace n on n.oid = relnamespace"
    sizes += " where nspname = 'captoken' and relkind = 'r'"
    with stores.stopped(servers.Postgres()) as server, psycopg.connect(server.conninfo, autocommit=True) as connection:
        create_tables(connection)
        with closing(PostgresLedger.create(server.conninfo, shared=True)) as ledger:
            row = alone(ledger, 10)
            if where == "memory":
                _, two = together(stores.ask, "PostgreSQL", server.conninfo)
                row |= {"two processes": round(two), "tasks": round(reserved_by_tasks("PostgreSQL", server.conninfo))}
                before = connection.execute(sizes).fetchone()
                of_many_tokens(ledger, MANY)
                after = connection.execute(sizes).fetchone()
                assert before and after
                row["bytes a token"] = round((int(after[0]) - int(before[0])) / MANY)
        return row


def on_disk() -> str:
    """A folder for folders that are on a disk."""
    return tempfile.gettempdir()


# --- an overlay ------------------------------------------------------------------------------------


class Weighed(MemorySnapshots):
    """Tells how long the last delta was."""

    last = 0

    def append(self, delta: bytes, after: bytes, gives: bytes) -> bool:
        self.last = len(delta)
        return super().append(delta, after, gives)


def overlays() -> list[Row]:
    """A snapshot of so many entries: its size, what it takes in memory, how long a change takes."""
    rows = []
    for many in (1_000, 10_000, 100_000, 500_000):
        key, store = OperatorKey.generate(), Weighed()
        data = snapshot(key, entries(many), seq=1, issued_at=NOW)
        store.publish(data, None)
        gc.collect()
        tracemalloc.start()
        overlay = Overlay.open(data, [key.public])
        gc.collect()
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        del overlay

        loads: dict[str, Callable[[], object]] = {"load": partial(Overlay.open, data, [key.public])}
        loaded = quickest(loads, 1, 5)["load"]
        operator, feed = Operator(key, store, by="ops:kim"), Feed(store, [key.public], every=0)
        operator.renew()
        renewal = store.last
        feed()
        acts: dict[str, Callable[[], object]] = {
            "revoke": lambda operator=operator: operator.revoke(agent="one-more", why="the laptop was lost"),  # type: ignore[misc]
            "taken": feed,
        }
        taken = quickest(acts, 1, 7)
        rows.append(
            {
                "entries": many, "snapshot": len(data), "memory": memory, "delta": store.last if store.last != renewal else 0,
                "renewal": renewal, "load ms": round(loaded / 1e3, 1),
                "revoke ms": round(taken["revoke"] / 1e3, 1), "taken ms": round(taken["taken"] / 1e3, 1),
            }
        )  # fmt: skip
        gc.collect()
    return rows


# --- a trail ---------------------------------------------------------------------------------------


def trails() -> list[Row]:
    """Bytes that a call takes in a trail, and how long a record takes: written, and on the disk."""
    keyring, rows = Keyring.generate(), []
    for hops in (1, 3, 10):
        shown = texts(keyring, 400, hops)
        with tempfile.TemporaryDirectory(dir=on_disk()) as folder:
            path = Path(folder, "trail.jsonl")
            file = TrailFile(path)
            verifier = Verifier(keyring, AUDIENCE, audit=AuditTrail(file.write))
            for text in shown:
                verifier.check(text, ASK)
            once = path.stat().st_size
            for _ in range(9):
                for text in shown:
                    verifier.check(text, ASK)
            all_ = path.read_bytes()
            waiting = Verifier(keyring, AUDIENCE, audit=AuditTrail(TrailFile(Path(folder, "sync.jsonl"), sync=True).write))
            calls: dict[str, Callable[[], object]] = {
                "written": lambda one=verifier, text=shown[0]: one.check(text, ASK),  # type: ignore[misc]
                "on disk": lambda one=waiting, text=shown[0]: one.check(text, ASK),  # type: ignore[misc]
            }
            taken = quickest(calls, 30, clock=time.perf_counter)
        further = (len(all_) - once) / (9 * len(shown))
        rows.append(
            {
                "hops": hops, "decision": round(further), "token": round(once / len(shown) - further),
                "packed": round(len(gzip.compress(all_)) / len(all_), 3),
                "written µs": round(taken["written"], 1), "on disk µs": round(taken["on disk"]),
            }
        )  # fmt: skip
    return rows


# --- an issuer -------------------------------------------------------------------------------------


def issuers() -> list[Row]:
    """A login and a workload's identity for a token: how many in a second, by where the tasks lie."""
    rows = []
    with issuance.registries() as each:
        for name, registry in each:
            app, _ = issuance.service(registry)

            async def run(app: Any = app) -> tuple[float, float]:
                await issuance.exchanged(app, [issuance.form() for _ in range(40)])
                best = used = float("inf")
                for _ in range(15):
                    forms = [issuance.form() for _ in range(32)]
                    begun, before = time.perf_counter(), time.process_time()
                    await issuance.exchanged(app, forms, issuance.AT_ONCE)
                    best = min(best, (time.perf_counter() - begun) / len(forms))
                    used = min(used, (time.process_time() - before) / len(forms))
                return best, used

            best, used = asyncio.run(run())
            rows.append({"tasks lie in": name, "a second": round(1 / best), "processor ms": round(used * 1e3, 2)})
    keyring, numbers = Keyring.generate(), count()
    mint = partial(Issuer(keyring).mint, subject="user:jane", agent="a", tables=["sales"], operations=["select"])
    minting: dict[str, Callable[[], object]] = {"mint": lambda: mint(task=f"q3/{next(numbers)}").serialize()}
    each, used = quickest(minting, 200, clock=time.perf_counter)["mint"], quickest(minting, 200)["mint"]
    rows.append({"tasks lie in": "nowhere: `Issuer.mint` alone", "a second": round(1e6 / each), "processor ms": round(used / 1e3, 4)})
    return rows


# --- all of it -------------------------------------------------------------------------------------


def ledgers_on_disk() -> list[Row]:
    before, servers.MEMORY = servers.MEMORY, ()
    try:
        return ledgers("disk")
    finally:
        servers.MEMORY = before


MEASURES: dict[str, Callable[[], Any]] = {
    "verifier": verifiers,
    "proofs": proofs,
    "remembered": remembered,
    "processes": verifier_processes,
    "overlay": overlays,
    "trail": trails,
    "ledger": partial(ledgers, "memory"),
    "ledger on disk": ledgers_on_disk,
    "issuer": issuers,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="keep what came of it: record.py")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    options = parser.parse_args()
    facts, figures = machine(), {}
    for name in options.only:
        figures[name] = MEASURES[name]()
        for row in figures[name] if isinstance(figures[name], list) else [figures[name]]:
            print(f"{name}: {row}", flush=True)
    facts["load at the end"] = f"{os.getloadavg()[0]:.2f}"
    if options.record:
        if options.only != list(MEASURES):
            parser.error("what is kept is a whole run")
        keep("planning", facts, figures)


if __name__ == "__main__":
    main()
