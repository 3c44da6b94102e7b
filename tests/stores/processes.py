"""What other processes do in these tests. Imported by name in processes that are started fresh."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from time import monotonic, sleep, time
from typing import Any

from captoken._language import overlay
from captoken.control import Operator
from captoken.control import _shelf as shelf
from captoken.keys import OperatorKey
from captoken.stores.ports import LEASE, Debit, Mark, MarkedStep, Reservation, Rule, Use
from captoken.stores.sliced import SlicedLedger
from tests.fixtures import NOW
from tests.stores.places import Place, close_all

WAIT = 60  # seconds, after which a race is stuck and fails
_gate: Any = None


def together(gate: Barrier) -> None:
    """Once in each process: what it waits at."""
    global _gate
    _gate = gate


def spend(place: Place, debits: tuple[Debit, ...], tries: int, who: int) -> int:
    """How many of so many reservations it gets, in a race with the other processes."""
    ledger = place.ledger(floor=0)
    _gate.wait(WAIT)
    try:
        ids = (bytes([who]) + number.to_bytes(15, "big") for number in range(tries))
        return sum(ledger.reserve(Reservation(one, debits, NOW, NOW + 60, None), NOW) is None for one in ids)
    finally:
        close_all()


def spend_slices(place: Place, limit: int, who: int) -> int:
    """How much of a budget sixteen agents of this process get, by slices of a second, until each was refused for three in a row.

    Each takes 1 to 3 at a time, and settles half of its reservations for less."""
    inner = place.ledger(floor=0)
    ledger = SlicedLedger(inner, life=1)
    _gate.wait(WAIT)

    def agent(number: int) -> int:
        rng, got, refused_since = random.Random(who * 100 + number), 0, monotonic()
        while monotonic() - refused_since < 3:
            now, amount = int(time()), rng.randint(1, 3)
            asked = Reservation(rng.randbytes(16), (Debit(b"b" * 16, "cents", limit, amount),), NOW, now + LEASE, None)
            if ledger.reserve(asked, now) is not None:
                sleep(0.05)
                continue
            refused_since = monotonic()
            taken = rng.randint(0, amount)
            settled = rng.random() < 0.5 and ledger.settle(asked.id, {"cents": taken}, now)
            got += taken if settled else amount
        return got

    try:
        with ThreadPoolExecutor(16) as agents:
            return sum(agents.map(agent, range(16)))
    finally:
        ledger.close()
        close_all()


def spend_until_killed(place: Place, limit: int, told: Connection) -> None:
    """Says what it has got of a budget, each time before the next reservation, until somebody kills it."""
    ledger = SlicedLedger(place.ledger(floor=0), life=1)
    for number in itertools.count(1):
        now = int(time())
        told.send(number - 1)
        while ledger.reserve(Reservation(random.randbytes(16), (Debit(b"b" * 16, "cents", limit, 1),), NOW, now + LEASE, None), now) is not None:
            sleep(0.01)


def prove(place: Place, many: int) -> list[bool]:
    """What it is told of so many uses, all of which the other processes try as well."""
    store = place.replays(floor=0)
    _gate.wait(WAIT)
    try:
        return [store.add(Use(number.to_bytes(16, "big"), NOW), NOW) for number in range(many)]
    finally:
        close_all()


Raced = tuple[bool, float, float]  # was it let through, when did it ask, and when had it its answer?


def race(place: Place, many: int, who: int) -> list[Raced]:
    """What each of two processes is told in so many races: see `raced`."""
    try:
        return raced(place.ledger(floor=0), many, who, _gate)
    finally:
        close_all()


def raced(ledger: Any, many: int, who: int, gate: Any) -> list[Raced]:
    """One of two that race. By turns: each sets what closes the other; one sets what closes the other, who sets nothing.

    For these the mark of that one's own is set before, so that it only asks, and a second mark that its rule names."""
    rng, told = random.Random(who), []
    for number in range(many):
        own, other, untrusted = (Mark(bytes([kind]) + number.to_bytes(31, "big"), None, False) for kind in (who, 1 - who, 2))
        rules: tuple[Rule, ...] = (Rule((other,)),)
        if number % 2:
            rules = (Rule((other, untrusted)),) if who else ()
            if who:
                assert ledger.step(MarkedStep((own, untrusted), (), NOW), NOW) is None
        gate.wait(WAIT)
        sleep(rng.uniform(0, 0.002))
        start = monotonic()
        answer = ledger.step(MarkedStep((own,), rules, NOW, by=str(who)), NOW)
        told.append((answer is None, start, monotonic()))
    return told


def mark(place: Place, seed: int, answers: Connection) -> None:
    """Sets mark after mark, with a debit each, and says so once it has. Until it is killed."""
    ledger = place.ledger(floor=0)
    for number in itertools.count():
        its = seed.to_bytes(8, "big") + number.to_bytes(8, "big")
        taken = Reservation(its, (Debit(its, "eur", 1, 1),), NOW, NOW + 60, None)
        assert ledger.step(MarkedStep((Mark(its * 2, None, False),), (), NOW, reservation=taken), NOW) is None
        answers.send(its)


def publish(place: Place, key: bytes, by_deltas: bool, answers: Connection) -> None:
    """Revokes token after token, and says which once it is published. Until it is killed.

    By deltas, which are made a whole snapshot each third time; or by whole snapshots."""
    if by_deltas:
        overlay.LARGE, shelf._FOLD = 0, 3
    operator = Operator(OperatorKey.from_bytes(key), place.snapshots(), by="operator")
    while True:
        answers.send(operator.revoke(subject="user:jane", why="test").id)


def reserve(place: Place, debit: Debit, seed: int, answers: Connection) -> None:
    """Reserves one after the other, and says so once it has. Until it is killed."""
    ledger = place.ledger(floor=0)
    for number in itertools.count():
        one = Reservation(seed.to_bytes(8, "big") + number.to_bytes(8, "big"), (debit,), NOW, NOW + 60, None)
        answers.send(ledger.reserve(one, NOW) is None)
