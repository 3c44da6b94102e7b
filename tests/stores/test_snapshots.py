"""What every place for the newest snapshot does: whoever saw the one before puts the next one there, and one alone does."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import pairwise
from threading import Barrier
from typing import Any

import pytest

from captoken import Access, Token, Verifier
from captoken.control import Feed, Operator, Overlay
from captoken.errors import OverlayError
from captoken.keys import OperatorKey
from captoken.stores.ports import DELTAS, SnapshotStore
from tests.fixtures import KEYRING, NOW, clock, mint
from tests.stores.conftest import Kind, OpenSnapshots
from tests.stores.places import KINDS

KEY = OperatorKey.from_bytes(bytes(range(32)))
ASK = Access(table="sales", operation="select")
pytestmark = pytest.mark.parametrize("kind", KINDS, indirect=True)  # there is none that is awaited


def test_it_is_empty_until_something_is_published(open_snapshots: OpenSnapshots) -> None:
    """The first one comes after nothing, and once."""
    store = open_snapshots()
    assert store.load() is None
    assert store.publish(b"one", b"") is False and store.publish(b"one", b"zero") is False and store.load() is None
    assert store.publish(b"one", None) is True and store.load() == b"one"
    assert store.publish(b"two", None) is False and store.load() == b"one"


def test_a_snapshot_takes_the_place_of_the_one_before(open_snapshots: OpenSnapshots) -> None:
    """Not of one that lay there earlier, nor of one that begins alike."""
    store = open_snapshots()
    assert store.publish(b"one", None) and store.publish(b"two", b"one")
    for after in (b"one", b"", b"tw", b"two\0", b"twoo", None):
        assert store.publish(b"three", after) is False and store.load() == b"two"
    assert store.publish(b"three", b"two") is True and store.load() == b"three"


@pytest.mark.parametrize(
    "snapshot",
    [b"", b"\0", bytes(range(256)), b"\xff" * 100, "é€".encode(), b"1", b"x" * 3_000_000],
    ids=lambda data: f"{data[:6]}+{len(data)}",
)
def test_bytes_come_back_as_they_were(open_snapshots: OpenSnapshots, snapshot: bytes) -> None:
    store = open_snapshots()
    assert store.publish(snapshot, None) is True and store.load() == snapshot and type(store.load()) is bytes
    assert store.publish(b"next", snapshot) is True and store.load() == b"next"


A, B, C, D = (bytes([letter]) * 32 for letter in b"abcd")


def first(store: SnapshotStore, snapshot: bytes = b"one") -> bytes:
    """Publishes it whole into an empty store. Gives its mark: the hash of it without a signature, where there could be one."""
    assert store.publish(snapshot, None) is True
    return sha256(snapshot[:-87]).digest()


@pytest.mark.parametrize("snapshot", [b"", b"one", b"x" * 86, b"x" * 87, b"x" * 88, bytes(range(256))], ids=len)
def test_a_delta_stands_behind_what_it_follows_on(open_snapshots: OpenSnapshots, snapshot: bytes) -> None:
    """Behind the snapshot by its mark, and then each behind the one before; on nothing else, and into no empty store."""
    store = open_snapshots()
    for after in (A, b"", bytes(32), sha256(b"").digest()):
        assert store.append(b"delta", after, B) is False and store.since(after) is None and store.load() is None
    mark = first(store, snapshot)
    for after in (A, b"", bytes(32), mark[:-1], mark + b"\0", sha256(snapshot + b"x" * 99).digest()):
        assert store.append(b"delta", after, B) is False and store.since(after) is None
    assert store.load() == snapshot and store.since(mark) == []
    assert store.append(b"one", mark, A) is True
    assert store.append(b"other", mark, B) is False
    assert store.append(b"two", A, B) is True
    assert store.load() == snapshot + b"\none\ntwo"
    assert [store.since(one) for one in (mark, A, B, C)] == [[b"one", b"two"], [b"two"], [], None]


def test_what_is_published_takes_the_place_of_the_deltas_too(open_snapshots: OpenSnapshots) -> None:
    """After all that lies there, and not after a part of it; then nobody follows by what was there before."""
    store = open_snapshots()
    mark = first(store)
    assert store.append(b"delta", mark, A) is True
    for after in (b"one", b"one\n", b"delta", b"one\ndelta\n", b"onedelta", None, b""):
        assert store.publish(b"two", after) is False and store.load() == b"one\ndelta"
    two = b"two" + b"." * 87
    assert store.publish(two, b"one\ndelta") is True and store.load() == two
    assert [store.since(one) for one in (mark, A, B)] == [None] * 3 and store.since(sha256(b"two").digest()) == []
    assert store.append(b"delta", A, B) is False
    assert store.append(b"delta", sha256(b"two").digest(), A) is True and store.load() == two + b"\ndelta"


def test_a_snapshot_that_is_made_whole_keeps_the_way_to_it(open_snapshots: OpenSnapshots) -> None:
    """Its mark is that of the newest delta: whoever is behind goes on by deltas, from before it and past it; twice."""
    store = open_snapshots()
    whole, again = b"whole" + b"." * 87, b"again" + b"." * 87
    marks = [first(store), A, sha256(b"whole").digest(), B, sha256(b"again").digest(), C]
    for number in (0, 1):
        assert store.append(b"%d" % number, marks[number], marks[number + 1]) is True
    assert store.publish(whole, b"one\n0\n1") is True and store.load() == whole
    assert [store.since(mark) for mark in marks[:4]] == [[b"0", b"1"], [b"1"], [], None]
    for number in (2, 3):
        assert store.append(b"%d" % number, marks[number], marks[number + 1]) is True
    assert store.load() == whole + b"\n2\n3" and store.since(A) == [b"1", b"2", b"3"]
    assert store.publish(again, whole + b"\n2\n3") is True and store.load() == again
    assert store.append(b"4", marks[4], C) is True and store.load() == again + b"\n4"
    assert [store.since(mark) for mark in (marks[0], marks[4], C)] == [[b"0", b"1", b"2", b"3", b"4"], [b"4"], []]


def test_what_was_long_ago_is_forgotten_where_the_whole_is_at_hand(open_snapshots: OpenSnapshots) -> None:
    """As many deltas as a store keeps, and ten: once they are in a snapshot, the first ten lead nowhere, the others do."""
    store = open_snapshots()
    marks = [first(store), *(number.to_bytes(32, "big") for number in range(1, DELTAS + 10)), sha256(b"whole").digest()]
    for number, (after, gives) in enumerate(pairwise(marks)):
        assert store.append(b"%d" % number, after, gives) is True
    assert len(store.since(marks[0]) or ()) == DELTAS + 10
    assert store.publish(b"whole" + b"." * 87, store.load()) is True
    assert store.since(marks[0]) is None and store.since(marks[9]) is None
    assert store.since(marks[10]) == [b"%d" % number for number in range(10, DELTAS + 10)]


@pytest.mark.parametrize(
    "delta", [b"", b"\0", bytes(range(256)), "é€".encode(), b"x" * 1_000_000], ids=lambda data: f"{data[:6]}+{len(data)}"
)
def test_bytes_of_a_delta_come_back_as_they_were(open_snapshots: OpenSnapshots, delta: bytes) -> None:
    store = open_snapshots()
    mark = first(store)
    assert store.append(delta, mark, bytes(range(32))) is True
    assert store.append(b"next", bytes(range(32)), b"\xff" * 32) is True
    assert store.since(mark) == [delta, b"next"] and store.load() == b"one\n" + delta + b"\nnext"


def test_of_16_that_append_or_publish_at_once_one_wins(open_snapshots: OpenSnapshots) -> None:
    """Forty rounds of half and half: each is after what all of them have seen, and nothing is lost."""
    store, gate = open_snapshots(), Barrier(16)
    marks = {first(store): b"one"}

    def run(who: int) -> list[bool]:
        won = []
        for number in range(40):
            gate.wait(timeout=60)
            before, known = store.load(), next(reversed(marks))
            gate.wait(timeout=60)
            if who % 2:
                made, gives = b"%d by %d" % (number, who), sha256(b"%d by %d" % (number, who)).digest()
                won.append(store.append(made, known, gives))
                lies = (before or b"") + b"\n" + made
            else:
                lies = b"%d by %d" % (number, who) + b"." * 87
                gives = sha256(lies[:-87]).digest()
                won.append(store.publish(lies, before))
            gate.wait(timeout=60)
            if won[-1]:
                marks[gives] = lies
        return won

    with ThreadPoolExecutor(16) as pool:
        rows = list(pool.map(run, range(16)))
    assert [sum(row[number] for row in rows) for number in range(40)] == [1] * 40
    assert store.load() == list(marks.values())[-1]


def test_stores_that_share_have_one_row_of_deltas(open_snapshots: OpenSnapshots, kind: Kind) -> None:
    one, two = open_snapshots(), open_snapshots()
    mark = first(one)
    assert two.append(b"delta", mark, A) is kind.shared
    assert one.since(mark) == ([b"delta"] if kind.shared else [])
    assert open_snapshots().load() == (b"one\ndelta" if kind.shared else None)


def test_of_16_that_publish_at_once_one_wins(open_snapshots: OpenSnapshots) -> None:
    """Forty rounds, each after the snapshot of the one before: the first one of all, too."""
    store, gate = open_snapshots(), Barrier(16)

    def run(who: int) -> list[bool]:
        won = []
        for number in range(40):
            gate.wait(timeout=60)
            before = store.load()
            gate.wait(timeout=60)
            won.append(store.publish(f"{number} by {who}".encode(), before))
        return won

    with ThreadPoolExecutor(16) as pool:
        rows = list(pool.map(run, range(16)))
    assert [sum(row[number] for row in rows) for number in range(40)] == [1] * 40
    assert store.load() == f"39 by {[row[39] for row in rows].index(True)}".encode()


class Between:
    """A store in which something happens once, between what an operator has loaded and what it publishes."""

    def __init__(self, store: Any, happens: Callable[[], object]) -> None:
        self._store = store
        self._happens = [happens]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("publish") and self._happens:
            self._happens.pop()()
        return getattr(self._store, name)


def test_an_operator_that_comes_in_between_loses_nothing(open_snapshots: OpenSnapshots) -> None:
    store = open_snapshots()
    other = Operator(KEY, store, by="other", clock=clock())
    one = Operator(KEY, Between(store, lambda: other.revoke(subject="user-2", why="test")), by="one", clock=clock())
    one.revoke(subject="user-1", why="test")
    newest = Overlay.open(store.load() or b"", [KEY.public])
    assert sorted(str(entry.select.subject) for entry in newest.entries) == ["user-1", "user-2"] and newest.seq == 2


def test_no_operator_loses_what_another_one_did(open_snapshots: OpenSnapshots, kind: Kind) -> None:
    """Eight operators revoke five tokens each at the same time: all forty entries stand, and the number went up by one each."""
    stores = [open_snapshots() for _ in range(8)] if kind.shared else [open_snapshots()] * 8

    def run(who: int) -> list[str]:
        operator = Operator(KEY, stores[who], by=f"operator-{who}", clock=clock())
        return [operator.revoke(subject=f"user-{who}-{number}", why="test").id for number in range(5)]

    with ThreadPoolExecutor(8) as pool:
        made = sorted(one for row in pool.map(run, range(8)) for one in row)
    newest = Overlay.open(stores[0].load() or b"", [KEY.public])
    assert sorted(entry.id for entry in newest.entries) == made and len(set(made)) == 40 == newest.seq


def test_stores_that_share_have_one_newest(open_snapshots: OpenSnapshots, kind: Kind) -> None:
    one, two = open_snapshots(), open_snapshots()
    assert one.publish(b"one", None) is True
    assert two.load() == open_snapshots().load() == (b"one" if kind.shared else None)
    assert two.publish(b"two", b"one") is kind.shared


def revoked_and_set_back(store: SnapshotStore) -> tuple[Operator, Token, Feed, Verifier]:
    """A verifier knows that a token is revoked; then the snapshot of before is put back. Who revoked, which, and who knows."""
    operator = Operator(KEY, store, by="operator", clock=clock())
    operator.renew()
    first, token = store.load(), mint()
    operator.revoke(token=token.token_id, why="lost")
    feed = Feed(store, [KEY.public], every=0, clock=clock())
    verifier = Verifier(KEYRING, overlay=feed, clock=clock())
    assert verifier.check(token, ASK).code == "revoked"
    assert first is not None and store.publish(first, store.load()) is True
    return operator, token, feed, verifier


def test_an_older_one_that_is_put_back_is_not_taken(open_snapshots: OpenSnapshots) -> None:
    """Whoever can write there can put back what was signed once; a feed that has seen a newer one keeps that."""
    store = open_snapshots()
    _, token, feed, verifier = revoked_and_set_back(store)
    assert verifier.check(token, ASK).code == "revoked" and "not newer" in str(feed.problem)


def test_what_was_revoked_stays_so_on_a_store_that_was_set_back(open_snapshots: OpenSnapshots) -> None:
    """Whoever did not know signs on, past the number that is known: the verifier denies still, and the first operator refuses
    to go on until somebody says by name what is lost (36.22, 36.24)."""
    store = open_snapshots()
    operator, token, feed, verifier = revoked_and_set_back(store)
    unaware = Operator(KEY, store, by="unaware", clock=clock())
    for _ in range(3):
        unaware.renew()
        assert verifier.check(token, ASK).code == "revoked"
    assert "does not continue" in str(feed.problem)
    for who in (operator, Operator(KEY, store, by="another", last=operator.seen, clock=clock())):
        with pytest.raises(OverlayError, match="does not continue"):
            who.renew()

    Operator(KEY, store, by="user:jane", last=operator.seen, resume="set back: one is lost", clock=clock()).renew()
    operator.revoke(token=token.token_id, why="lost, said anew")
    assert verifier.check(token, ASK).code == "revoked" and feed.problem is None


def test_a_revocation_reaches_a_verifier(open_snapshots: OpenSnapshots) -> None:
    """The whole way: allowed, revoked, and allowed again when it is taken off; and nothing before the first snapshot."""
    store = open_snapshots()
    token = mint()
    verifier = Verifier(KEYRING, overlay=Feed(store, [KEY.public], every=0, clock=clock()), clock=clock())
    assert verifier.check(token, ASK).code == "stale_overlay"
    operator = Operator(KEY, store, by="operator", clock=clock())
    assert operator.renew().issued_at == NOW and verifier.check(token, ASK).code == "allowed"
    entry = operator.revoke(token=token.token_id, why="lost")
    assert verifier.check(token, ASK).code == "revoked"
    operator.lift(entry.id)
    assert verifier.check(token, ASK).code == "allowed"
