"""What `rows` cost: a guarded statement on rows that a token grants, beside the same guard with the condition by hand.

    python -m tests.benchmarks.rows [sqlite] [postgres] [--record]

By processor time of this process and of the server's, in turns; the least of each is compared. One who writes the condition by
hand has a token without `rows`, and the text `… where (cents = 5) and tenant = 'acme'`. Of 100,000 rows the tenant has 10,000.
"""

from __future__ import annotations

import gc
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import process_time_ns
from typing import Any

from captoken import Grant, Issuer, Keyring, Verifier

from .record import keep, machine

ROUNDS = 60
KEYRING = Keyring.generate()
TENANTS = 10
MADE = """
create table orders (id integer primary key, tenant text, cents integer);
create index by_tenant on orders (tenant);
"""

Call = Callable[[], None]
Pair = tuple[str, int, Call, Call]  # what, statements a call, by hand, with rows

KEY = ("select id, cents from orders where id = 31", "select id, cents from orders where id = 31 and tenant = 't1'")
SUM = ("select sum(cents) from orders", "select sum(cents) from orders where tenant = 't1'")
CHANGE = ("update orders set cents = 5 where id = 31", "update orders set cents = 5 where id = 31 and tenant = 't1'")


def grant(**more: Any) -> Grant:
    token = Issuer(KEYRING).mint(
        subject="user:jane", agent="clerk", task="q3", tables=["orders"], operations=["select", "update"], expires_at=None, **more
    )
    return Verifier(KEYRING).authenticate(token.serialize())


BY_HAND = grant()
WITH_ROWS = grant(rows={"orders": {"tenant": {"in": ["t1"]}}})


def pairs(guarded: Any, connection: Any) -> Iterator[Pair]:
    """In blocks of one statement, and of twenty."""

    def block(held: Grant, sql: str, times: int) -> Call:
        def call() -> None:
            with guarded(connection, held) as db:
                for _ in range(times):
                    db.execute(sql).fetchall()

        return call

    for what, (rows, hand) in (("a look-up by key", KEY), ("an update by key", CHANGE), ("a sum of 10,000", SUM)):
        for times in (1,) if what.startswith("a sum") else (1, 20):
            name = f"{what}, a block with {times}"
            yield name, times, block(BY_HAND, hand, times), block(WITH_ROWS, rows, times)


def sqlite() -> Iterator[tuple[Pair, Callable[[], int]]]:
    from captoken.adapters.sqlite import Connection, guarded

    for factory, kind in ((sqlite3.Connection, "sqlite"), (Connection, "sqlite, remembering")):
        connection = sqlite3.connect(":memory:", isolation_level=None, factory=factory)
        connection.executescript(MADE)
        connection.executemany("insert into orders values (?, ?, ?)", ((n, f"t{n % TENANTS}", n % 1000) for n in range(100_000)))
        for what, times, hand, rows in pairs(guarded, connection):
            yield (f"{kind}: {what}", times, hand, rows), process_time_ns
        connection.close()


def postgres() -> Iterator[tuple[Pair, Callable[[], int]]]:
    import psycopg
    from psycopg.conninfo import make_conninfo

    from captoken.adapters.postgres import Role, apply_plan, guarded
    from tests.stores.servers import Postgres

    with ExitStack() as stack:
        server = Postgres()
        stack.callback(server.stop)
        where = make_conninfo(server.conninfo, host=server.folder)  # over its socket
        admin = stack.enter_context(psycopg.connect(where, autocommit=True))
        admin.execute(MADE.encode())
        admin.execute("insert into orders select n, 't' || n % 10, n % 1000 from generate_series(0, 99999) n")
        admin.execute("vacuum analyze orders")
        # Whoever has no rows has a plan without them, too.
        for login, role, held in (("by_hand", "plain", []), ("agents", "clerk", ["orders.tenant"])):
            apply_plan(admin, login, Role(role, {"orders": ["select", "update"]}, rows=held))
        hand = stack.enter_context(psycopg.connect(make_conninfo(where, user="by_hand")))
        rows = stack.enter_context(psycopg.connect(make_conninfo(where, user="agents")))

        def spent() -> int:
            servers = (Path(f"/proc/{each.info.backend_pid}/schedstat").read_text().split()[0] for each in (hand, rows))
            return process_time_ns() + sum(map(int, servers))

        for one, other in zip(pairs(guarded, hand), pairs(guarded, rows), strict=True):
            what, times, by_hand, _ = one
            yield (f"postgres: {what}", times, by_hand, other[3]), spent


def least(calls: int, run: Call, spent: Callable[[], int]) -> float:
    """Microseconds a call, of one round."""
    began = spent()
    for _ in range(calls):
        run()
    return (spent() - began) / calls / 1000


def main(arguments: list[str]) -> None:
    names = [one for one in arguments if one != "--record"]
    facts = machine()
    print(f"load {facts['load at the start']}; the least of {ROUNDS} rounds in turns, µs of a processor a block\n")
    print(f"{'':<56}{'by hand':>9}{'rows':>9}{'×':>7}")
    gc.freeze()
    found: list[dict[str, Any]] = []
    for name in names or ("sqlite", "postgres"):
        for (what, times, hand, rows), spent in {"sqlite": sqlite, "postgres": postgres}[name]():
            hand(), rows(), hand(), rows()
            calls = 2 if "sum" in what else max(1, 20 // times)
            taken: tuple[list[float], list[float]] = ([], [])
            for _ in range(ROUNDS):
                for run, into in zip((hand, rows), taken, strict=True):
                    into.append(least(calls, run, spent))
            by_hand, with_rows = map(min, taken)
            print(f"{what:<56}{by_hand:>9.1f}{with_rows:>9.1f}{with_rows / by_hand:>7.2f}", flush=True)
            found.append({"what": what, "by hand": by_hand, "rows": with_rows})
    if len(names) < len(arguments):
        keep("rows", facts, {"rounds": ROUNDS, "rows": found})


if __name__ == "__main__":
    main(sys.argv[1:])
