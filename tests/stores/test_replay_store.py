"""What every store of used proofs does: true once and for the first alone, and never for what it cannot know."""

from __future__ import annotations

import itertools
import os
import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from captoken._format.clocks import CONSENT_LIFE, PROOF_AHEAD, PROOF_PAST
from captoken.errors import StoreError
from captoken.stores.ports import ReplayStore, Spend, Use
from tests.bound import AUDIENCE, CHILD, proof
from tests.fixtures import NOW, sent
from tests.reference.fixtures import ASK, access
from tests.reference.fixtures import verifier as verifying
from tests.stores.conftest import Kind, Open


def use(number: int, at: int = NOW) -> Use:
    return Use(number.to_bytes(16, "big"), at)


def test_a_use_is_taken_once(open_store: Open) -> None:
    """True, and then False, whatever came between and however often it is asked."""
    store = open_store()
    assert store.add(use(1), NOW) is True
    for number in range(2, 50):
        assert store.add(use(1), NOW) is False and store.add(use(number), NOW) is True
    assert [store.add(use(number), NOW) for number in range(1, 50)] == [False] * 49


def test_the_name_alone_makes_a_use_the_same(open_store: Open) -> None:
    """One nonce of one key is used up at every time that it could have been issued at."""
    store = open_store()
    assert store.add(use(1, NOW), NOW) is True
    assert [store.add(use(1, NOW + later), NOW) for later in range(-PROOF_PAST, PROOF_AHEAD + 1)] == [False] * (PROOF_PAST + PROOF_AHEAD + 1)


def test_names_are_compared_whole(open_store: Open) -> None:
    """Names that differ in one bit, or hold zeros and quotes, are different names."""
    store, names = open_store(), {bytes(16), b"\xff" * 16, b"';--" * 4, b"\0" * 15 + b"'"}
    names |= {(1 << bit).to_bytes(16, "big") for bit in range(128)}
    assert all(store.add(Use(name, NOW), NOW) is True for name in sorted(names))
    assert not any(store.add(Use(name, NOW), NOW) for name in sorted(names))


@pytest.mark.parametrize("offset", range(-3, 9))
def test_a_new_store_takes_nothing_that_an_earlier_one_can_have_taken(open_store: Open, offset: int) -> None:
    """What was issued up to five seconds after it was made is refused, and what was issued later is not."""
    store = open_store(floor=None, clock=lambda: NOW + 0.9)
    assert store.add(use(1, NOW + offset), NOW + offset) is (offset > PROOF_AHEAD)


@pytest.mark.parametrize("floor", [0, NOW - 1, NOW, NOW + 1])
def test_a_floor_can_be_said(open_store: Open, floor: int) -> None:
    """What was issued at the floor is refused; what was issued a second later is taken."""
    store = open_store(floor=floor)
    for number, offset in enumerate(range(-2, 4)):
        assert store.add(use(number, NOW + offset), NOW) is (NOW + offset > floor)


def test_a_use_is_remembered_for_as_long_as_its_proof_is_fresh(open_store: Open) -> None:
    """And from then on it is too old: there is no second between the two, at which it would pass again."""
    store = open_store()
    assert store.add(use(1, NOW), NOW - PROOF_AHEAD) is True, "by a server whose clock is behind the holder's"
    for later in range(-PROOF_AHEAD, PROOF_PAST + 60):
        assert store.add(use(1, NOW), NOW + later) is False
        assert store.add(use(100 + later, NOW), NOW + later) is (later <= PROOF_PAST), later


def test_a_clock_set_back_revives_nothing(open_store: Open) -> None:
    """Forward, so that all is forgotten, and back: what was taken stays taken, and so does what could have been."""
    store = open_store()
    assert all(store.add(use(number, NOW - number), NOW) for number in range(PROOF_PAST + 1))
    assert store.add(use(1000, NOW + 3600), NOW + 3600) is True
    for back in (NOW + 3600, NOW + PROOF_PAST, NOW, NOW - 3600, 0):
        assert not any(store.add(use(number, NOW - number), back) for number in range(PROOF_PAST + 1))
        assert not any(store.add(use(2000 + number, NOW - number), back) for number in range(PROOF_PAST + 1))
    assert store.add(use(3000, NOW + 3600 - PROOF_PAST), NOW) is True, (
        "what is issued after the floor is taken, whatever the clock says"
    )
    assert store.add(use(3001, NOW + 3600 - PROOF_PAST - 1), NOW) is False


def test_any_walk_of_the_clock_takes_each_use_at_most_once(open_store: Open) -> None:
    """1,000 random uses and times, against a rule of one line: not taken before, and above the highest floor there ever was."""
    store, rng = open_store(), random.Random(20260704)
    taken: set[Use] = set()
    floor, now = 0, NOW
    for _ in range(1000):
        now += rng.choice([0, 0, 0, 1, 1, 2, 7, 40, -1, -3, -30])
        at = now + rng.randint(-PROOF_PAST - 2, PROOF_AHEAD + 2)
        one = use(at * 10 + rng.randrange(2), at)
        floor = max(floor, now - PROOF_PAST - 1)
        assert store.add(one, now) is (at > floor and one not in taken)
        taken |= {one} if at > floor else set()
    assert len(taken) > 300


def test_a_full_store_takes_nothing_more(open_limited: Open) -> None:
    """It says so, keeps what it has, knows it still, and takes again once that is too old to matter."""
    store = open_limited(limit=10)
    assert all(store.add(use(number), NOW) is True for number in range(10))
    for number in range(10, 30):
        with pytest.raises(StoreError, match="10 proofs of the last 35 seconds"):
            store.add(use(number), NOW)
    assert [store.add(use(number), NOW) for number in range(10)] == [False] * 10, "a replay is a replay, also then"
    with pytest.raises(StoreError):
        store.add(use(30, NOW + PROOF_PAST), NOW + PROOF_PAST)
    assert store.add(use(30, NOW + PROOF_PAST + 1), NOW + PROOF_PAST + 1) is True
    assert not any(store.add(use(number), NOW + PROOF_PAST + 1) for number in range(30))


def test_a_store_of_no_size_takes_nothing(open_limited: Open) -> None:
    with pytest.raises(StoreError):
        open_limited(limit=0).add(use(1), NOW)


def test_what_is_forgotten_makes_room(open_limited: Open) -> None:
    """Eighty seconds of four uses each in a store for 31 of them: full at no time, and all are taken."""
    store = open_limited(limit=(PROOF_PAST + 1) * 4)
    for second, number in itertools.product(range(80), range(4)):
        assert store.add(use(second * 4 + number, NOW + second), NOW + second) is True
    with pytest.raises(StoreError):
        store.add(use(1000, NOW + 79), NOW + 79)


@pytest.mark.parametrize("rounds", [50])
def test_of_32_threads_one_is_the_first(open_store: Open, rounds: int) -> None:
    """Fifty rounds of 32 threads that let go at once: one True each."""
    store, gate = open_store(), Barrier(32)

    def run(_: int) -> list[bool]:
        got = []
        for number in range(rounds):
            gate.wait(timeout=60)
            got.append(store.add(use(number), NOW))
        return got

    with ThreadPoolExecutor(32) as pool:
        rows = list(pool.map(run, range(32)))
    assert [sum(row[number] is True for row in rows) for number in range(rounds)] == [1] * rounds
    assert {type(got) for row in rows for got in row} == {bool}


def test_stores_that_share_remember_together(open_store: Open, kind: Kind) -> None:
    """Two that are opened on one place, and one that is opened there later, know what either has taken; others know nothing."""
    one, two = open_store(), open_store()
    assert one.add(use(1), NOW) is True and two.add(use(2), NOW) is True
    assert (one.add(use(2), NOW), two.add(use(1), NOW)) == ((False, False) if kind.shared else (True, True))
    later = open_store()
    assert later.add(use(1), NOW) is not kind.shared and later.add(use(3), NOW) is True


def test_a_floor_is_shared_too(open_store: Open, kind: Kind) -> None:
    """It was written by whoever made the store; one that is opened there later cannot lower it."""
    one = open_store(floor=NOW)
    two = open_store(floor=0)
    assert one.add(use(1, NOW), NOW) is False and two.add(use(1, NOW), NOW) is not kind.shared
    assert one.add(use(9, NOW + 100), NOW + 100) is True
    assert two.add(use(2, NOW + 1), NOW) is not kind.shared


def test_a_verifier_takes_a_proof_once_with_it(open_store: Open) -> None:
    """The whole way: allowed, replayed, and the next proof allowed."""
    one, ask = verifying(audience=AUDIENCE, replays=open_store()), access(ASK)
    for nonce in (bytes(16), os.urandom(16)):
        text = proof(CHILD, nonce=nonce)
        assert [one.check(sent(CHILD, text), ask).code for _ in range(3)] == ["allowed", "replayed", "replayed"]


def test_it_is_a_store_by_its_face(open_store: Open) -> None:
    """No base class, no registration: `add` is all there is to it."""
    store: ReplayStore = open_store()
    assert callable(store.add)


# --- consents (47.9) -------------------------------------------------------------------------------------------------


def consent(number: int, at: int = NOW) -> Spend:
    return Spend(number.to_bytes(16, "big"), at, at + CONSENT_LIFE)


def test_a_consent_is_spent_once_for_as_long_as_it_lives(open_store: Open) -> None:
    """Half an hour later it is known still, and a proof of that name is another thing. (47.9)"""
    store = open_store()
    assert store.spend(consent(1), NOW) is True and store.spend(consent(1), NOW) is False
    assert store.add(use(1), NOW) is True and store.add(use(1), NOW) is False
    for later in (31, 40, 1800, CONSENT_LIFE - 1):
        assert store.spend(consent(1), NOW + later) is False and store.spend(consent(1 + later), NOW + later) is True


def test_what_is_asked_only_is_not_spent(open_store: Open) -> None:
    store = open_store()
    assert store.peek_spend(consent(1), NOW) is store.peek_spend(consent(1), NOW) is True
    assert store.spend(consent(1), NOW) is True and store.peek_spend(consent(1), NOW) is False


@pytest.mark.parametrize("offset", range(-3, 9))
def test_a_new_store_takes_no_consent_that_an_earlier_one_can_have_taken(open_store: Open, offset: int) -> None:
    """However long it lives: what was issued up to five seconds after the store was made is refused for good."""
    store = open_store(floor=None, clock=lambda: NOW + 0.9)
    for later in (0, 60, CONSENT_LIFE - 10):
        one = consent(offset * 10_000 + later + 100_000, NOW + offset)
        assert store.peek_spend(one, NOW + max(offset, 0) + later) is (offset > PROOF_AHEAD)
        assert store.spend(one, NOW + max(offset, 0) + later) is (offset > PROOF_AHEAD)


def test_a_clock_that_is_set_back_revives_no_consent(open_store: Open) -> None:
    """Forgotten after an hour, and refused from then on."""
    store = open_store()
    assert store.spend(consent(1), NOW) is True
    late = NOW + CONSENT_LIFE + 2
    assert store.spend(consent(2, late), late) is True
    assert store.spend(consent(1), NOW) is False and store.peek_spend(consent(1), NOW) is False


def test_a_store_that_is_full_of_consents_takes_no_more(open_limited: Open) -> None:
    """And takes proofs all the same."""
    store = open_limited(limit=3)
    assert all(store.spend(consent(number), NOW) is True for number in range(3))
    with pytest.raises(StoreError, match="3 consents of the last hour"):
        store.spend(consent(3), NOW)
    with pytest.raises(StoreError, match="3 consents of the last hour"):
        store.peek_spend(consent(3), NOW)
    assert store.spend(consent(0), NOW) is False and store.add(use(1), NOW) is True
    late = NOW + CONSENT_LIFE + 1
    assert store.peek_spend(consent(4, late), late) is True and store.spend(consent(4, late), late) is True


def test_of_two_stores_in_one_place_one_spends(open_store: Open, kind: Kind) -> None:
    one, two = open_store(), open_store()
    assert one.spend(consent(1), NOW) is True and two.spend(consent(1), NOW) is not kind.shared


def test_of_sixteen_threads_one_spends(open_store: Open) -> None:
    store, gate = open_store(), Barrier(16)

    def run(_: int) -> list[bool]:
        got = []
        for number in range(20):
            gate.wait(timeout=60)
            got.append(store.spend(consent(number), NOW))
        return got

    with ThreadPoolExecutor(16) as pool:
        rows = list(pool.map(run, range(16)))
    assert [sum(row[number] is True for row in rows) for number in range(20)] == [1] * 20
