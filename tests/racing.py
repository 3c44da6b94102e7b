"""What a process of its own does in a race for proofs. Imported by name in processes that are started fresh."""

from __future__ import annotations

from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from threading import Barrier as ThreadBarrier
from threading import Thread
from typing import Any

from captoken import Access, Keyring, Verifier
from captoken.stores.sqlite import SQLiteReplayStore
from tests.fixtures import sent
from tests.stores.begun import begun

WAIT = 60  # seconds, after which a race is stuck and fails


def race(verifier: Verifier, text: str, access: Access, proofs: list[str], threads: int, gate: Any = None) -> list[list[str]]:
    """For each proof, what each thread is told that presents it at the same moment. `gate` is for other processes too."""
    start = ThreadBarrier(threads, (lambda: gate.wait(WAIT)) if gate is not None else None)
    told: list[list[str]] = [[] for _ in range(threads)]

    def run(mine: list[str]) -> None:
        try:
            for proof in proofs:
                start.wait(WAIT)
                mine.append(verifier.check(sent(text, proof), access).code)
        except BaseException as error:  # told to whoever counts
            mine.append(repr(error))
            start.abort()

    running = [Thread(target=run, args=(mine,)) for mine in told]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return [list(codes) for codes in zip(*told, strict=True)]


def process(
    path: str,
    key: bytes,
    audience: str,
    now: int,
    text: str,
    facts: dict[str, str],
    proofs: list[str],
    threads: int,
    gate: Barrier,
    answer: Connection,
) -> None:
    """One of several processes on one file of used proofs."""
    store = begun(SQLiteReplayStore, path, timeout=WAIT)
    verifier = Verifier(Keyring.from_keys({"k1": key}, current="k1"), audience, clock=lambda: now, replays=store)
    try:
        answer.send(race(verifier, text, Access(**facts), proofs, threads, gate))
    finally:
        store.close()
        answer.close()
