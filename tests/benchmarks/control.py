"""What live control costs: `python -m tests.benchmarks.control [--record]`. Processor time, interleaved rounds, ratios; not a test.

Overlay: a verification with 100,000 entries loaded beside one without; and what a change of it costs. Trail: with a record beside one without. What is
counted is measured by `stores`.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import chain, islice

from captoken import Access, Issuer, Keyring, Verifier
from captoken._format.encoding import b64encode
from captoken._language.overlay import snapshot
from captoken.audit import AuditTrail
from captoken.control import Entry, Feed, Operator, Overlay, Selector
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots

from .record import keep, machine

Row = tuple[str, str]  # what, and what it costs
ENTRIES = 100_000
ROUNDS = 41
NOW = int(time.time())


def entries() -> Iterator[Entry]:
    """A quarter each by link, token, agent and task."""
    for number in range(ENTRIES):
        what = ("link", "token", "agent", "task")[number % 4]
        value = b64encode(os.urandom(16)) if what in ("link", "token") else f"other-{what}-{number}"
        yield Entry(id=b64encode(os.urandom(8)), at=NOW, by="ops:kim", why="lost", select=Selector(**{what: value}))


def interleaved(calls: dict[str, Callable[[], object]], times: int, rounds: int = ROUNDS) -> dict[str, float]:
    """Microseconds of processor time a call: the least of rounds that take turns, which is what others on the machine change least."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(times):
                call()
            taken[name].append((time.process_time() - start) / times * 1e6)
    return {name: min(values) for name, values in taken.items()}


def decisions() -> Iterator[Row]:
    key, keyring = OperatorKey.generate(), Keyring.generate()
    data = snapshot(key, entries(), seq=1, issued_at=NOW)
    gc.collect()
    start = time.process_time()
    overlay = Overlay.open(data, [key.public])
    loaded = time.process_time() - start
    yield f"an overlay of {ENTRIES:,} entries, {len(data) / 1e6:.0f} MB", f"opened in {loaded:.2f} s"
    del overlay
    tracemalloc.start()
    overlay = Overlay.open(data, [key.public])
    gc.collect()
    yield "the same, in memory", f"{tracemalloc.get_traced_memory()[0] / ENTRIES:.0f} bytes an entry"
    tracemalloc.stop()
    access = Access(table="sales", operation="select")
    with open(os.devnull, "wb") as nowhere:
        for hops in (0, 10):
            token = Issuer(keyring).mint(
                subject="user:jane", agent="orchestrator", task="q3/risk", tables=["sales"], operations=["select"]
            )
            for number in range(hops):
                token = token.delegate(to=f"agent-{number}", tables=["sales"])
            text = token.serialize()
            plain, narrowed = Verifier(keyring), Verifier(keyring, overlay=overlay, max_staleness=3600)
            trailed = Verifier(keyring, audit=AuditTrail(nowhere.write))
            taken = interleaved(
                {
                    "plain": lambda text=text, one=plain: one.check(text, access),  # type: ignore[misc]
                    "overlay": lambda text=text, one=narrowed: one.check(text, access),  # type: ignore[misc]
                    "trail": lambda text=text, one=trailed: one.check(text, access),  # type: ignore[misc]
                },
                200,
            )
            rest = ", ".join(f"{name} {taken[name]:.1f} µs ({taken[name] / taken['plain']:.2f} ×)" for name in taken)
            yield f"a decision after {hops} hand-overs", rest


def changes() -> Iterator[Row]:
    """One change of a large overlay: at the operator until it is published, and at a server until it is taken."""
    for count_ in (1_000, 10_000, 100_000):
        key, store = OperatorKey.generate(), MemorySnapshots()
        store.publish(snapshot(key, sorted(islice(entries(), count_), key=lambda entry: entry.id), seq=1, issued_at=NOW), None)
        operator, feed = Operator(key, store, by="ops:kim"), Feed(store, [key.public], every=0)
        start = time.process_time()
        feed()
        first = (time.process_time() - start) * 1e3
        operator.revoke(agent="first", why="lost")
        acts: dict[str, Callable[[], object]] = {
            "revoke": lambda operator=operator: operator.revoke(agent="one-more", why="lost"),  # type: ignore[misc]
            "taken": feed,
            "renew": operator.renew,
            "renewal taken": lambda feed=feed: feed(),  # type: ignore[misc]
        }
        taken = interleaved(acts, 1, 11)
        rest = ", ".join(f"{name} {taken[name] / 1e3:.1f} ms" for name in taken)
        yield f"a change of an overlay of {count_:,} entries", f"loaded in {first:.0f} ms; {rest}"


def main(arguments: list[str]) -> None:
    facts = machine()
    rows: list[dict[str, str]] = []
    for what, figure in chain(decisions(), changes()):
        print(f"{what}: {figure}", flush=True)
        rows.append({"what": what, "figure": figure})
    if arguments == ["--record"]:
        keep("control", facts, {"rounds": ROUNDS, "rows": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
