"""What other processes do in these tests. Imported by name in processes that are started fresh."""

from __future__ import annotations

import itertools
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

from captoken._language import overlay
from captoken.control import Operator
from captoken.control import _shelf as shelf
from captoken.keys import OperatorKey
from captoken.stores.ports import Debit, Reservation, Use
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


def prove(place: Place, many: int) -> list[bool]:
    """What it is told of so many uses, all of which the other processes try as well."""
    store = place.replays(floor=0)
    _gate.wait(WAIT)
    try:
        return [store.add(Use(number.to_bytes(16, "big"), NOW), NOW) for number in range(many)]
    finally:
        close_all()


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
