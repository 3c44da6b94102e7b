"""An operator: what it publishes, what it builds on, and what it does when others publish too."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from captoken._format.encoding import MAX_INTEGER, b64encode
from captoken._language import overlay as module
from captoken._language.overlay import LIFE
from captoken.control import Feed, Operator, Overlay, Selector
from captoken.errors import OverlayError, StoreError
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from captoken.testing import FixedClock
from tests.fixtures import NOW, clock, mint, named
from tests.test_overlay import KEY, OTHER, REVOKED, World, entry, made


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, ValueError),
        ({"depth": 1}, TypeError),
        ({"delegate_only": True}, TypeError),
        ({"uses": 5}, TypeError),
        ({"budget": {"usd": 5}}, TypeError),
        ({"key": KEY.public}, TypeError),
        ({"colour": "red"}, TypeError),
        ({"tables": None}, TypeError),
        ({"tables": "sales"}, TypeError),
        ({"tables": ["a..b"]}, ValueError),
        ({"expires_in": 0}, ValueError),
        ({"expires_in": 5, "expires_at": NOW}, ValueError),
        ({"operations": ["select"], "until": datetime(2026, 1, 1)}, ValueError),
        ({"operations": ["select"], "until": "tomorrow"}, TypeError),
        ({"operations": ["select"], "until": True}, TypeError),
        ({"operations": ["select"], "until": 2**60}, ValueError),
        ({"operations": ["select"], "why": ""}, ValueError),
        ({"operations": ["select"], "why": " \n"}, ValueError),
        ({"operations": ["select"], "why": 5}, TypeError),
        ({"operations": ["select"], "why": "\ud800"}, ValueError),
    ],
    ids=named,
)
def test_a_bad_narrowing_is_refused_and_nothing_is_published(given: dict[str, Any], error: type[Exception]) -> None:
    """Caveats of the chain, caveats that are none, moments and reasons that are none."""
    world = World()
    before = world.store.load()
    with pytest.raises(error):
        world.operator.narrow(task="task-123", **{"why": "x", **given})
    assert world.store.load() == before and world.code(mint()) == "allowed"


@pytest.mark.parametrize("by", ["", "a b", 5, None, "x" * 129])
def test_an_operator_has_a_name(by: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Operator(KEY, MemorySnapshots(), by=by)


def test_each_change_is_the_next_number() -> None:
    """Four changes and two renewals, six numbers; the moment of a snapshot goes back only with a clock that was wrong by more
    than a minute: what it signed is of no use to anyone."""
    now, store = clock(), MemorySnapshots()
    operator = Operator(KEY, store, by="ops", clock=now)
    assert operator.entries() == ()
    done = operator.revoke(agent="a", why="x")
    seen = [opened_(store)]
    for seconds, change in (
        (10, lambda: operator.narrow(agent="b", operations=["select"], why="y")),
        (-100, lambda: operator.lift(done.id)),
        (0, operator.renew),
        (500, operator.renew),
        (0, lambda: operator.end_task("task-9")),
    ):
        now.advance(seconds)
        change()
        seen.append(opened_(store))
    assert [overlay.seq for overlay in seen] == [1, 2, 3, 4, 5, 6]
    assert [overlay.issued_at - NOW for overlay in seen] == [0, 10, -90, -90, 410, 410]
    assert all(overlay.expires_at == overlay.issued_at + LIFE for overlay in seen)


def opened_(store: MemorySnapshots) -> Overlay:
    stored = store.load()
    assert stored is not None
    return Overlay.open(stored, [KEY.public])


@pytest.mark.parametrize("large", [False, True], ids=["whole", "by delta"])
def test_what_came_second_is_not_dated_after_what_it_lacks(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One operator reads, and a minute passes in which another revokes. What the first then signs is refused; whoever kept
    it can show it only as what it was: older than the revocation (36.16)."""
    if large:
        monkeypatch.setattr(module, "LARGE", 0)
    now, signed = clock(), list[Overlay]()

    class Raced(MemorySnapshots):
        read = False

        def pause(self) -> None:
            if self.read:
                self.read = False
                now.advance(60)
                other.revoke(agent="a", why="x")

        def load(self) -> bytes | None:
            found = super().load()
            self.pause()
            return found

        def since(self, mark: bytes) -> list[bytes] | None:
            found = super().since(mark)
            self.pause()
            return found

        def publish(self, snapshot: bytes, after: bytes | None) -> bool:
            signed.append(Overlay.open(snapshot, [KEY.public]))
            return super().publish(snapshot, after)

        def append(self, delta: bytes, after: bytes, gives: bytes) -> bool:
            base = next(each for each in signed if each.digest == after)
            signed.append(base.follow([delta], [KEY.public]))
            return super().append(delta, after, gives)

    store = Raced()
    slow, other = (Operator(KEY, store, by=name, clock=now) for name in ("slow", "other"))
    slow.renew()
    store.read = True
    slow.renew()
    assert [(each.seq, each.issued_at - NOW, len(each.entries)) for each in signed[1:3]] == [(2, 60, 1), (2, 0, 0)]
    last = opened_(store)
    assert (last.seq, last.issued_at - NOW, len(last.entries)) == (3, 60, 1)


def test_what_has_run_out_is_pruned_and_nothing_else() -> None:
    """Entries that end at 1, 2, … 10 seconds and one that never does: each goes a day after its end, by the clock of whoever
    signs, so that one which is ahead for an hour takes nothing off."""
    world = World()
    for second in range(1, 11):
        world.operator.revoke(agent=f"a{second}", why="x", until=NOW + second)
    world.operator.revoke(agent="ever", why="x")
    for second in range(12):
        world.now.now = NOW + 86_400 + second
        world.operator = Operator(KEY, world.store, by="ops", clock=world.now, resume="looked")
        left = [one.select.agent for one in world.operator.renew().entries]
        assert left == [f"a{number}" for number in range(second + 1, 11)] + ["ever"]
    assert [one.select.agent for one in world.operator.entries()] == ["ever"]
    world.now.now = NOW - 10**6  # a clock that goes back makes nothing fall off, and nothing come back
    assert [one.select.agent for one in world.operator.renew().entries] == ["ever"]


def test_an_entry_that_ran_out_cannot_be_lifted() -> None:
    world = World()
    done = world.operator.revoke(agent="a", why="x", until=NOW + 1)
    assert world.operator.entries() == (done,)
    world.now.advance(1)
    assert world.operator.entries() == ()
    with pytest.raises(ValueError, match="there is no entry"):
        world.operator.lift(done.id)


def test_operators_that_publish_at_once_lose_nothing() -> None:
    """16 threads, each an operator of its own, publish at the same moment, 8 times: all 128 revocations are acknowledged and
    stand, each once, in one sequence."""
    store, acknowledged = MemorySnapshots(), []
    gate = threading.Barrier(16)

    def run(number: int) -> None:
        operator = Operator(KEY, store, by=f"ops-{number}", clock=clock())
        for count in range(8):
            gate.wait(30)
            acknowledged.append(operator.revoke(agent=f"a-{number}-{count}", why="x"))

    in_threads(run, 16)
    overlay = opened_(store)
    assert {one.id for one in overlay.entries} == {one.id for one in acknowledged}
    assert len(overlay.entries) == len(acknowledged) == overlay.seq == 128


def in_threads(run: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Contested(MemorySnapshots):
    """Somebody else always publishes first; or the store answers with something that is not True."""

    def __init__(self, answer: Any = False) -> None:
        super().__init__()
        self.answer, self.tried = answer, 0

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        self.tried += 1
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize("answer", [False, None, 0, 1, "yes"])
def test_only_true_is_published(answer: Any) -> None:
    """An operator that is beaten each time gives up, and says so; an answer that is not True is not a yes."""
    store = Contested(answer)
    with pytest.raises(StoreError, match="32 other snapshots"):
        Operator(KEY, store, by="ops").revoke(agent="a", why="x")
    assert store.tried == 32


def test_an_operator_builds_on_nothing_that_it_cannot_read() -> None:
    """Another operator's snapshot, or a damaged one, is not replaced: what it says would be lost."""
    for stored in (made(key=OTHER), REVOKED[:-1], b""):
        store = MemorySnapshots()
        store.publish(stored, None)
        operator = Operator(KEY, store, by="ops")
        for call in (
            lambda operator=operator: operator.revoke(agent="a", why="x"),
            lambda operator=operator: operator.lift("e1"),
            operator.renew,
            operator.entries,
        ):
            with pytest.raises(OverlayError):
                call()
        assert store.load() == stored


def test_ids_of_entries_are_random() -> None:
    """Eight bytes each, from the source that was given; of fifty no two alike."""
    store = MemorySnapshots()
    operator = Operator(KEY, store, by="ops", random=lambda size: bytes(range(size)))
    assert operator.revoke(agent="a", why="x").id == b64encode(bytes(range(8)))
    before = store.load()
    with pytest.raises(OverlayError, match="two entries with one id"):
        operator.revoke(agent="b", why="x")
    assert store.load() == before
    store = MemorySnapshots()
    many = Operator(KEY, store, by="ops", clock=clock())
    assert len({many.revoke(agent="a", why="x").id for _ in range(50)}) == 50


def test_an_operator_does_not_go_on_from_a_store_that_lost_what_it_had() -> None:
    """Empty again, or with an older snapshot put back: it raises, and publishes nothing that would take revocations back."""
    store = MemorySnapshots()
    operator = Operator(KEY, store, by="ops", clock=clock())
    operator.renew()
    first = store.load()
    operator.revoke(task="task-123", why="over")
    for lost in (None, first):
        store._snapshot = lost
        for act in (operator.renew, lambda: operator.revoke(task="other", why="over"), operator.entries):
            with pytest.raises(OverlayError, match="the store has lost snapshots"):
                act()
        assert store.load() == lost


def test_an_operator_that_has_no_memory_does_not_build_on_a_snapshot_that_has_run_out() -> None:
    """Shown an old one, a new process would sign anew that nothing is revoked. Who has looked says why it goes on, once: the number
    is that of its time, in thousandths of a second."""
    world = World()
    old = world.store.load()
    world.operator.revoke(agent="a", why="x")
    world.store._snapshot = old  # a store that went back
    world.now.advance(LIFE - 1)
    assert Operator(KEY, world.store, by="ops", clock=world.now).entries() == ()
    world.now.advance(1)
    for act in (lambda one: one.renew(), lambda one: one.entries(), lambda one: one.revoke(agent="b", why="x")):
        with pytest.raises(OverlayError, match="is it the newest"):
            act(Operator(KEY, world.store, by="ops", clock=world.now))
    resumed = Operator(KEY, world.store, by="ops", clock=world.now, resume="looked")
    assert resumed.renew().seq == 1000 * (NOW + LIFE)
    world.store._snapshot = old
    with pytest.raises(OverlayError, match="the store has lost snapshots"):
        resumed.renew()


@pytest.mark.parametrize(
    "act",
    [
        lambda one: one.renew(),
        lambda one: one.revoke(agent="a", why="x"),
        lambda one: one.narrow(agent="a", operations=["select"], why="x"),
        lambda one: one.lift("e1"),
    ],
    ids=["renew", "revoke", "narrow", "lift"],
)
def test_nothing_follows_on_the_last_number_and_that_is_told_as_what_it_is(act: Callable[[Operator], Any]) -> None:
    """OverlayError, and what stands stands and can be read; so where only `last` is that number; the one before is followed."""
    world = World()
    last = made(entry(Selector(agent="z")), seq=MAX_INTEGER)
    world.store._snapshot = last
    at_the_end = Operator(KEY, world.store, by="ops", clock=world.now)
    for _ in range(2):
        with pytest.raises(OverlayError, match="snapshot numbers end before"):
            act(at_the_end)
    assert world.store.load() == last and len(at_the_end.entries()) == 1
    assert Feed(world.store, [KEY.public], clock=world.now).refresh().seq == MAX_INTEGER

    world.store._snapshot = made(entry(Selector(agent="z")), seq=MAX_INTEGER - 1)
    act(Operator(KEY, world.store, by="ops", clock=world.now))
    assert opened_(world.store).seq == MAX_INTEGER

    world.store._snapshot = made(entry(Selector(agent="z")), seq=3)
    with pytest.raises(OverlayError, match="snapshot numbers end before"):
        act(Operator(KEY, world.store, by="ops", clock=world.now, last=MAX_INTEGER, resume="looked"))


@pytest.mark.parametrize("life", [MAX_INTEGER, 10**30])
def test_a_life_that_no_reader_can_read_is_told_as_such(life: int) -> None:
    with pytest.raises(OverlayError, match="the snapshot would expire beyond all times: give it a shorter life"):
        Operator(KEY, MemorySnapshots(), by="ops", life=life, clock=clock()).renew()


def test_an_operator_takes_over_from_another() -> None:
    world, heir = World(), OperatorKey.generate()
    done = world.operator.revoke(agent="a", why="x")
    with pytest.raises(OverlayError, match="server trusts"):
        Operator(heir, world.store, by="ops", clock=world.now).renew()
    new = Operator(heir, world.store, by="ops", clock=world.now, trusted=[KEY.public])
    assert new.renew().entries == (done,)
    new.lift(done.id)
    assert Overlay.open(world.store.load() or b"", [heir.public]).entries == ()
    with pytest.raises(OverlayError):
        world.operator.renew()


def test_what_a_clock_that_was_ahead_signed_is_mended_by_the_next_renewal() -> None:
    world = World()
    ahead = Operator(KEY, world.store, by="ops", clock=FixedClock(NOW + 10**8), alone=True)
    ahead.renew()
    assert world.code(mint()) == "stale_overlay"
    assert world.operator.renew().issued_at == NOW and world.code(mint()) == "allowed"


@pytest.mark.parametrize(("ahead", "kept"), [(1, 1), (60, 60), (61, 0), (3600, 0)])
def test_no_snapshot_is_dated_before_the_one_that_it_follows_on_but_where_a_clock_was_wrong(ahead: int, kept: int) -> None:
    """A minute is what clocks differ by (36.16)."""
    world = World()
    other = Operator(KEY, world.store, by="ops", clock=FixedClock(NOW + ahead), alone=True)
    other.renew()
    assert world.operator.renew().issued_at == NOW + kept
    assert world.operator.revoke(agent="a", why="x") in world.operator.entries()


def test_an_operator_that_threads_share_loses_nothing_and_takes_nobody_for_a_rollback() -> None:
    world = World()
    failed: list[Exception] = []

    def work(number: int) -> None:
        try:
            for at in range(10):
                world.operator.revoke(agent=f"a{number}-{at}", why="x")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and len(world.operator.entries()) == 80 and world.operator.last == 81


class Forgetful(MemorySnapshots):
    """Publishes, and then loses its answer: the first time."""

    lost = False

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        done = super().publish(snapshot, after)
        if not self.lost:
            self.lost = True
            return False
        return done


def test_a_change_whose_answer_was_lost_is_made_once_and_is_no_error() -> None:
    store = Forgetful()
    operator = Operator(KEY, store, by="ops", clock=clock())
    done = operator.revoke(agent="a", why="x")
    assert operator.entries() == (done,)
    store.lost = False
    operator.lift(done.id)
    assert operator.entries() == ()
    with pytest.raises(ValueError, match="there is no entry"):
        operator.lift(done.id)


def test_an_entry_that_is_over_already_is_a_mistake() -> None:
    """`until` is a time: 3600 is no hour from now."""
    world = World()
    for until in (3600, NOW, NOW - 1):
        with pytest.raises(ValueError, match="until is in the past"):
            world.operator.revoke(agent="a", why="x", until=until)
    assert world.operator.entries() == ()


def test_a_snapshot_lives_as_long_as_the_operator_says() -> None:
    store = MemorySnapshots()
    assert Operator(KEY, store, by="ops", clock=clock(), life=86_400).renew().expires_at == NOW + 86_400


def test_what_an_operator_does_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "captoken")
    world = World()
    done = world.operator.revoke(agent="a", why="lost \x1b[2J")
    world.operator.lift(done.id, why="found")
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith(f"entry {done.id} by ops@example on Selector(agent='a'") and said[0].endswith("lost \\x1b[2J")
    assert said[1] == f"entry {done.id} lifted by ops@example: found"


# --- entries by rules (36.26) ---------------------------------------------------------------------------------------------


def test_an_entry_of_an_id_is_made_once_and_again_a_day_after_it_ended() -> None:
    """By `once`: also after it was lifted, when its id stays for a day; one that a person made is gone at once."""
    world = World()
    facts: dict[str, Any] = {"by": "react:probing", "why": "odd", "task": "task-123"}
    made = world.operator.once("AAAAAAAAAAAAAAAAAAAAAA", **facts)
    assert made is not None and made.link is None and world.code(mint()) == "revoked"
    assert world.operator.once("AAAAAAAAAAAAAAAAAAAAAA", **facts) is None
    assert [entry.by for entry in world.operator.entries()] == ["react:probing"]

    world.operator.lift(made.id, why="a mistake")
    assert world.operator.entries() == () and world.code(mint()) == "allowed"
    assert world.operator.once("AAAAAAAAAAAAAAAAAAAAAA", **facts) is None and world.code(mint()) == "allowed"
    with pytest.raises(ValueError, match="there is no entry"):
        world.operator.lift(made.id)
    assert world.operator.once("BBBBBBBBBBBBBBBBBBBBBA", operations=["insert"], **facts) is not None
    assert world.code(mint()) == "narrowed"


def test_what_a_person_made_is_taken_off_whole() -> None:
    world = World()
    made = world.operator.revoke(task="task-123", why="x")
    world.operator.lift(made.id)
    assert world.operator.renew().entries == ()


def test_once_is_for_rules_alone() -> None:
    with pytest.raises(ValueError, match="by must be react: and the name of a rule"):
        World().operator.once("x", by="ops:ann", why="x", task="q3")


def test_an_entry_whose_answer_was_lost_is_told_as_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published, and tried again: it is this call that made it, and not another."""
    world = World()
    publish = world.store.publish
    lost: list[bool] = []

    def once_lost(*given: Any) -> bool:
        published = publish(*given)
        lost.append(True)
        return published and len(lost) > 1

    monkeypatch.setattr(world.store, "publish", once_lost)
    assert world.operator.once("AAAAAAAAAAAAAAAAAAAAAA", by="react:a", why="x", task="q3") is not None
