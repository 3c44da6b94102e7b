"""What every place for the newest snapshot does: whoever saw the one before puts the next one there, and one alone does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from captoken import Access, Verifier
from captoken.control import Feed, Operator, Overlay
from captoken.keys import OperatorKey
from tests.stores.conftest import Kind, OpenSnapshots
from tests.world import KEYRING, NOW, clock, mint

KEY = OperatorKey.from_bytes(bytes(range(32)))
ASK = Access(table="sales", operation="select")


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
    "snapshot", [b"", b"\0", bytes(range(256)), b"\xff" * 100, "é€".encode(), b"1", b"x" * 3_000_000], ids=lambda data: f"{data[:6]}+{len(data)}"
)
def test_bytes_come_back_as_they_were(open_snapshots: OpenSnapshots, snapshot: bytes) -> None:
    store = open_snapshots()
    assert store.publish(snapshot, None) is True and store.load() == snapshot and type(store.load()) is bytes
    assert store.publish(b"next", snapshot) is True and store.load() == b"next"


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


def test_an_older_one_that_is_put_back_is_not_taken(open_snapshots: OpenSnapshots) -> None:
    """Whoever can write there can put back what was signed once; a feed that has seen a newer one keeps that."""
    store = open_snapshots()
    operator = Operator(KEY, store, by="operator", clock=clock())
    operator.renew()
    first, token = store.load(), mint()
    operator.revoke(token=token.token_id, why="lost")
    feed = Feed(store, [KEY.public], every=0, clock=clock())
    verifier = Verifier(KEYRING, overlay=feed, clock=clock())
    assert verifier.check(token, ASK).code == "revoked"
    assert first is not None and store.publish(first, store.load()) is True
    assert verifier.check(token, ASK).code == "revoked" and "not newer" in str(feed.problem)


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
