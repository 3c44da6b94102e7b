"""`python -m tests.museum FOLDER` writes what this commit makes, for later ones to open: see `test_museum.py`.

It asks nothing of the tests, so that an earlier commit can run it. PostgreSQL's tables are kept as SQL that makes them, with
their rows; Valkey's keys as commands. All keys are for tests.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from base64 import b64encode
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import valkey
from psycopg import sql

from captoken import Access, Issuer, Keyring, Verifier
from captoken.audit import AuditTrail
from captoken.cli.console.index import Index
from captoken.control import Operator
from captoken.discharge import Allow, Discharger
from captoken.errors import StoreError
from captoken.issuance.registry.ports import Ending, Exchange, Seen
from captoken.issuance.registry.postgres import WITH_REGISTRY, PostgresRegistry
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.keys import AuditKey, DischargerKey, HolderKey, OperatorKey, PairwiseKey
from captoken.local import Office
from captoken.stores.memory import MemoryReplayStore, MemorySnapshots
from captoken.stores.ports import Debit, Reservation, Use
from captoken.stores.postgres import PostgresLedger, PostgresReplayStore, PostgresSnapshots, create_tables, setup
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore, SQLiteSnapshots
from captoken.stores.trail_file import TrailFile
from captoken.stores.valkey import ValkeyLedger, ValkeyReplayStore, ValkeySnapshots

NOW = 1_764_061_200
NAME = "museum"  # of a schema, and of a prefix
READING = Access(table="sales", operation="select")
PAYING = Access(tool="shop.pay", arguments={"cents": 500})

USED, UNUSED = Use(bytes(15) + b"1", NOW, "k1"), Use(bytes(15) + b"2", NOW, "k1")
BUCKET, LIMIT, SPENT = b"bucket, 16 bytes", 5, 3
SNAPSHOT, DELTA, GIVES = b"a snapshot\n" + b"s" * 86, b"a delta", bytes(32)
LIVE, ENDED = "task-1", "task-2"


def secret(number: int) -> bytes:
    return bytes(range(number, number + 32))


def clock() -> float:
    return NOW


KEYRING = Keyring.from_keys({"k1": secret(1)}, current="k1")
OPERATOR, AUDITOR = OperatorKey.from_bytes(secret(2)), AuditKey.from_bytes(secret(3))
HOLDER, DISCHARGER = HolderKey.from_bytes(secret(4)), DischargerKey.from_bytes(secret(5))
KEYS = {
    "keyring": KEYRING, "operator": OPERATOR, "audit": AUDITOR, "holder": HOLDER, "discharger": DISCHARGER,
    "pairwise": PairwiseKey.from_bytes(secret(6)),
}  # fmt: skip

POLICY = """version = 1
[service]
origin = "https://issuer.example"
[provider.ci]
kind = "workload"
issuer = "https://ci.example"
jwks = "ci-keys.json"
subject = "ci:{repository_id}"
[resource.sales-db]
[grant.nightly]
subject = { provider = "ci", repository_id = "42" }
agents = ["nightly"]
resources = ["sales-db"]
give = { allow = { "sales" = ["select"] }, expires_in = 300 }
"""


def reservation(number: int, amount: int) -> Reservation:
    debit = Debit(bucket=BUCKET, unit="uses", limit=LIMIT, amount=amount, link=0)
    return Reservation(
        id=number.to_bytes(16, "big"), tree="t" * 22, kid="k1", issued_at=NOW, until=NOW + 600, keep=None,
        debits=(debit,),
    )  # fmt: skip


def exchange(task: str, number: int) -> Exchange:
    used = Seen(digest=number.to_bytes(32, "big"), companions=b"actor", until=NOW + 600, issued_at=NOW - 10)
    return Exchange(
        now=NOW, grant="nightly", task=task, within=None, counted=False, subject="acme:jane", actor=None, provider="acme",
        session="s1", issued_at=NOW - 10, deadline=NOW + 3600, most_live=None, most_per_day=None, seen=(used,),
    )  # fmt: skip


# --- what is in each ------------------------------------------------------------------------------------------------


def use_proofs(store: Any) -> None:
    assert store.add(USED, NOW)


def count(store: Any) -> None:
    assert store.reserve(reservation(1, SPENT + 1), NOW) is None
    assert store.settle(reservation(1, SPENT + 1).id, {"uses": SPENT}, NOW)


def publish(store: Any) -> None:
    from captoken.stores._rules import mark

    assert store.publish(SNAPSHOT, None) and store.append(DELTA, mark(SNAPSHOT), GIVES)


def start_tasks(registry: Any) -> None:
    registry.enter(exchange(LIVE, 1))
    registry.enter(exchange(ENDED, 2))
    assert len(registry.end(Ending(now=NOW, task=ENDED))) == 1


# --- what is written ------------------------------------------------------------------------------------------------


def write_tokens(folder: Path) -> None:
    """Each with what a verifier of `shop` is asked, which allows it at that time."""
    who: dict[str, Any] = {"subject": "user:jane", "agent": "orchestrator", "task": "q3"}
    issuer = Issuer(KEYRING, clock=clock)
    root = issuer.mint(**who, tables=["sales"], operations=["select"], expires_in=3600)
    bound = issuer.mint(**who, key=HOLDER.public, tables=["sales"], operations=["select"], audience="shop")
    asking = issuer.mint(**who, tools={"shop.pay": {"cents": {"max": 900}}}).require(DISCHARGER.public, need={"approve": "payment"})
    consent = Discharger(DISCHARGER, lambda need: Allow(expires_in=60), clock=clock).discharge(asking.needs[0])
    texts = {
        "root": (root.serialize(), READING),
        "delegated": (root.delegate(to="clerk", tables=["sales"], expires_in=60).serialize(), READING),
        "presented": (root.present(audience="shop"), READING),
        "bound": (bound.present(audience="shop", signer=HOLDER, request=READING), READING),
        "discharged": (asking.with_discharge(consent).present(audience="shop"), PAYING),
    }
    shop = Verifier(KEYRING, audience="shop", replays=MemoryReplayStore(floor=0), clock=clock)
    wrong = {name: shop.check(text, asked).code for name, (text, asked) in texts.items()}
    said = {name: {"text": text, "pays": asked is PAYING, "code": wrong[name]} for name, (text, asked) in texts.items()}
    (folder / "tokens.json").write_text(json.dumps(said, indent=1) + "\n")


def write_control(folder: Path) -> None:
    """A signed snapshot, a trail, and the console's index of it."""
    snapshots = MemorySnapshots()
    operator = Operator(OPERATOR, snapshots, by="ops", clock=clock)
    operator.revoke(agent="lost", why="laptop lost")
    (folder / "snapshot").write_bytes(snapshots.load() or b"")

    path = folder / "trail.jsonl"
    with TrailFile(path) as file:
        trail = AuditTrail(file.write, key=AUDITOR, clock=clock)
        verifier = Verifier(KEYRING, audit=trail, clock=clock)
        token = Issuer(KEYRING, clock=clock).mint(subject="user:jane", agent="a", task="q3", tables=["sales"], operations=["select"])
        assert verifier.check(token, READING) and not verifier.check(token, PAYING)
        trail.checkpoint()
    with closing(Index(folder / "index.db", [path])) as index:
        index.take()
    with closing(sqlite3.connect(folder / "index.db")) as connection, connection:
        connection.execute("update trails set path = 'trail.jsonl'")  # no path of this machine


def write_sqlite(folder: Path) -> None:
    """All that may share a file in one, and each of two in one of its own."""
    shared, overlay = folder / "shared.db", folder / "overlay.db"
    counting = (SQLiteReplayStore, SQLiteLedger, SQLiteRegistry)
    start_all(lambda kind, **facts: kind.create(shared, **facts), *counting)
    with suppress(StoreError):  # which has a file of its own in later versions
        start_all(lambda kind, **facts: kind.create(shared, **facts), snapshots=SQLiteSnapshots)
    start_all(lambda kind, **facts: kind.create(overlay, **facts), snapshots=SQLiteSnapshots)


def start_all(create: Any, replays: Any = None, ledger: Any = None, registry: Any = None, snapshots: Any = None) -> None:
    for kind, fill in ((replays, use_proofs), (ledger, count), (registry, start_tasks), (snapshots, publish)):
        if kind is not None:
            store = create(kind, **({} if kind is snapshots else {"floor": 0}))
            fill(store)
            getattr(store, "close", lambda: None)()  # those on Valkey had none


def write_office(folder: Path) -> None:
    """An office in which one task has ended, and one agent has worked."""
    with Office.open(folder, clock=clock) as office:
        tools: dict[str, Any] = {"shop.pay": {"cents": {"max": 900}}}
        token = office.mint(subject="user:jane", agent="clerk", task=LIVE, tools=tools, uses=3)
        assert office.verifier.check(token, PAYING)
        ended = office.mint(subject="user:jane", agent="clerk", task=ENDED, tools=tools)
        office.end_task(ENDED)
        texts = {"live": token.serialize(), "ended": ended.serialize()}
    (folder / "lock").unlink()
    (folder / ".gitignore").unlink()  # or nothing of it were kept
    (folder.parent / "office-tokens.json").write_text(json.dumps(texts, indent=1) + "\n")


def write_postgres(folder: Path, conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        create_tables(connection, schema=NAME, tables=WITH_REGISTRY)
        stores = (PostgresReplayStore, PostgresLedger, PostgresRegistry, PostgresSnapshots)
        start_all(lambda kind, **facts: kind.create(conninfo, schema=NAME, **facts), *stores)
        lines = [setup(NAME, tables=WITH_REGISTRY)]
        tables = connection.execute("select tablename from pg_tables where schemaname = %s order by 1", (NAME,)).fetchall()
        for (table,) in tables:
            its = sql.Identifier(NAME, table)
            for row in connection.execute(sql.SQL("select * from {}").format(its)).fetchall():
                values = sql.SQL(", ").join(map(sql.Literal, row))
                insert = "insert into {} values ({}) on conflict do nothing;"
                lines.append(sql.SQL(insert).format(its, values).as_string(connection))
    (folder / "postgres.sql").write_text("\n".join(lines) + "\n")


def write_valkey(folder: Path, client: valkey.Valkey) -> None:
    def create(kind: Any, **facts: Any) -> Any:
        return kind.create(client, prefix=NAME, **facts, **({} if kind is ValkeySnapshots else {"lossless": True}))

    start_all(create, ValkeyReplayStore, ValkeyLedger, None, ValkeySnapshots)
    commands: list[list[Any]] = []
    for key in sorted(client.scan_iter(f"{{{NAME}}}:*")):
        kind = client.type(key).decode()
        if kind == "string":
            commands.append([b"SET", key, client.get(key)])
        elif kind == "hash":
            commands.append([b"HSET", key, *(part for pair in client.hgetall(key).items() for part in pair)])
        elif kind == "list":
            commands.append([b"RPUSH", key, *client.lrange(key, 0, -1)])
        else:
            members = client.zrange(key, 0, -1, withscores=True)
            commands.append([b"ZADD", key, *(part for name, score in members for part in (repr(score).encode(), name))])
    said = [[b64encode(part).decode() for part in command] for command in commands]
    (folder / "valkey.json").write_text(json.dumps(said, indent=1) + "\n")


def write(folder: Path, conninfo: str, client: valkey.Valkey) -> None:
    """All of it, into a new folder."""
    for each in (folder, folder / "keys", folder / "sqlite"):
        each.mkdir()
    for name, key in KEYS.items():
        key.save(folder / "keys" / f"{name}.json")
    (folder / "policy.toml").write_text(POLICY)
    write_tokens(folder)
    write_control(folder)
    write_sqlite(folder / "sqlite")
    write_office(folder / "office")
    write_postgres(folder, conninfo)
    write_valkey(folder, client)


def main(folder: str) -> None:
    from tests.stores.servers import Postgres, Valkey

    postgres, server = Postgres(), Valkey()
    try:
        with closing(server.client()) as client:
            write(Path(folder), postgres.conninfo, client)
    finally:
        postgres.stop()
        server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
