"""The snapshots in a store: written by deltas or whole, and nothing of another operator is taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from captoken._language import overlay as module
from captoken._language.overlay import snapshot, whole
from captoken.control import ControlPlane, Feed, Operator, Overlay, recall
from captoken.control import _shelf as shelf
from captoken.errors import OverlayError, StoreError
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from tests.fixtures import NOW, clock, mint, verifier
from tests.test_deltas import GOOD, KEY, SELECT, TRUSTED, entry, told


class Store(MemorySnapshots):
    """Counts what is asked of it, and can lie about deltas."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.lie: Callable[[list[bytes] | None], Any] = lambda deltas: deltas

    def load(self) -> bytes | None:
        self.calls.append("load")
        return super().load()

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        self.calls.append("publish")
        return super().publish(snapshot, after)

    def append(self, delta: bytes, after: bytes, gives: bytes) -> bool:
        self.calls.append("append")
        return super().append(delta, after, gives)

    def since(self, mark: bytes) -> list[bytes] | None:
        self.calls.append("since")
        return self.lie(super().since(mark))  # type: ignore[no-any-return]

    def asked(self) -> list[str]:
        """What was asked since the last time."""
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every snapshot is large."""
    monkeypatch.setattr(module, "LARGE", 0)


class World:
    def __init__(self, store: MemorySnapshots | None = None) -> None:
        self.now, self.store = clock(), store or Store()
        self.operator = self.another()
        self.operator.renew()
        self.feed = Feed(self.store, TRUSTED, every=0, clock=self.now)
        self.verifier = verifier(overlay=self.feed, clock=self.now)

    def another(self, key: OperatorKey = KEY, **facts: Any) -> Operator:
        return Operator(key, self.store, by="ops", clock=self.now, **facts)

    def code(self, token: Any) -> str:
        return self.verifier.check(token.serialize(), SELECT).code

    def asked(self) -> list[str]:
        assert isinstance(self.store, Store)
        return self.store.asked()


def test_a_large_overlay_goes_by_deltas_and_a_small_one_whole() -> None:
    """By its bytes: below 64 KiB each change is a whole snapshot, from then on a delta, which alone is read."""
    world = World()
    assert world.feed() is not None
    world.asked()
    world.operator.revoke(agent="a", why="x")
    assert world.feed() is not None and world.asked() == ["load", "publish", "load"]
    world.operator.revoke(agent="b", why="x" * module.LARGE)
    assert world.feed() is not None
    world.operator.revoke(agent="c", why="x")  # what was small is put into the order of ids first, where it is not
    assert world.feed() is not None
    world.asked()
    for act in (lambda: world.operator.revoke(agent="d", why="x"), world.operator.renew):
        act()
        assert world.feed() is not None and world.asked() == ["since", "append", "since"]
    assert world.feed() is not None and world.asked() == ["since"]
    assert len(world.operator.entries()) == 4
    opened_ = Overlay.open(world.store.load() or b"", TRUSTED)
    assert told(opened_) == told(world.feed.refresh()) and opened_.seq == 6


def test_all_that_an_operator_does_is_done_by_deltas(large: None) -> None:
    """Revoked, narrowed, lifted, ended, renewed, recalled: at the next look, as by whole snapshots."""
    world, token = World(), mint()
    child = token.delegate(to="sales-agent")
    codes = [world.code(token)]
    world.asked()
    done = world.operator.revoke(token=token.token_id, why="x")
    codes.append(world.code(token))
    world.operator.lift(done.id)
    codes.append(world.code(token))
    narrowed = world.operator.narrow(task="task-123", tables=["hr"], operations=["*"], why="x")
    codes.append(world.code(token))
    world.operator.lift(narrowed.id)
    world.now.advance(50)
    world.operator.renew()
    world.now.advance(50)
    codes.append(world.code(token))
    request = recall(token, child, audience="control", why="x", clock=world.now)
    plane = ControlPlane(verifier(audience="control", overlay=world.feed, clock=world.now), world.operator)
    plane.handle(request)
    codes += [world.code(token), world.code(child)]
    world.now.advance(61)
    codes.append(world.code(token))
    assert codes == ["allowed", "revoked", "allowed", "narrowed", "allowed", "allowed", "revoked", "stale_overlay"]
    with pytest.raises(ValueError, match="there is no entry"):
        world.operator.lift(done.id)
    assert set(world.asked()) == {"since", "append"}


def test_what_has_run_out_is_taken_off_by_deltas_too(large: None) -> None:
    world = World()
    for second in range(5):
        world.operator.revoke(agent=f"a{second}", why="x", until=NOW + second + 1)
    world.now.now = NOW + 86_400 + 3
    again = world.another(resume="looked")
    assert sorted(str(one.select.agent) for one in again.renew().entries) == ["a3", "a4"]
    assert told(world.feed.refresh()) == told(Overlay.open(world.store.load() or b"", TRUSTED))


@pytest.mark.parametrize(
    "lie",
    [
        lambda deltas: None,
        lambda deltas: [b"x"],
        lambda deltas: [GOOD.delta],
        lambda deltas: [*deltas[:-1], b""] if deltas else deltas,
        lambda deltas: deltas[::-1] if deltas else deltas,
        lambda deltas: deltas[1:] if deltas and len(deltas) > 1 else deltas,
        lambda deltas: ["x"],
    ],
    ids=["none", "garbage", "another's", "spoiled", "turned", "one left out", "text"],
)
def test_where_deltas_lead_nowhere_the_whole_is_fetched(large: None, lie: Callable[[Any], Any]) -> None:
    """A store that lies about deltas: what it has whole is taken, by verifiers and by operators."""
    world, token = World(), mint()
    assert world.code(token) == "allowed" and isinstance(world.store, Store)
    for name in "ab":
        world.operator.revoke(agent=name, why="x")
    world.operator.revoke(token=token.token_id, why="x")
    world.store.lie = lie
    assert world.code(token) == "revoked"
    assert len(world.operator.entries()) == len(world.another().entries()) == 3
    world.operator.revoke(agent="c", why="x")
    world.store.lie = lambda deltas: deltas
    assert len(world.feed.refresh().entries) == 4


def test_operators_that_publish_at_once_lose_nothing_by_deltas(large: None) -> None:
    """Eight operators, eight threads, ten revocations each: all stand, each once, in one row, and a feed has followed."""
    world = World(MemorySnapshots())
    seen = [0]

    def run(who: int) -> list[str]:
        operator = world.another()
        return [operator.revoke(agent=f"a-{who}-{number}", why="x").id for number in range(10)]

    def watch() -> None:
        while seen[-1] < 81:
            seen.append(world.feed.refresh().seq)

    watching = threading.Thread(target=watch)
    watching.start()
    with ThreadPoolExecutor(8) as pool:
        made = sorted(one for row in pool.map(run, range(8)) for one in row)
    watching.join(60)
    newest = Overlay.open(world.store.load() or b"", TRUSTED)
    assert sorted(one.id for one in newest.entries) == made and len(set(made)) == 80 and newest.seq == 81
    assert seen == sorted(seen) and told(world.feed.refresh()) == told(newest)


def test_after_many_deltas_the_snapshot_is_made_whole_and_nobody_has_to_load_it(
    large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fifth change here: what lies there is as short as that again, and whoever follows goes on by deltas."""
    monkeypatch.setattr(shelf, "_FOLD", 5)
    world = World()
    world.feed.refresh()
    lengths = []
    for number in range(23):
        world.asked()
        world.operator.revoke(agent=f"a{number}", why="x")
        folds = world.asked()
        assert folds == ["since", "append"] + (["load", "publish"] if number % 5 == 4 else [])
        if number % 3 == 0:
            assert len(world.feed.refresh().entries) == number + 1 and world.asked() == ["since"]
        lengths.append((world.store.load() or b"").count(b"\n"))
    assert lengths == [(number + 1) % 5 for number in range(23)]
    behind = Feed(world.store, TRUSTED, clock=world.now).refresh()
    assert told(behind) == told(world.feed.refresh())


def test_a_snapshot_that_cannot_be_made_whole_takes_nothing_back(
    large: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was acknowledged stands; it is logged, and tried again at the next change."""
    monkeypatch.setattr(shelf, "_FOLD", 2)
    world = World()

    def full(snapshot: bytes, after: bytes | None) -> bool:
        raise StoreError("the disk is full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store, "publish", full)
        for number in range(4):
            world.operator.revoke(agent=f"a{number}", why="x")
        patch.setattr(world.store, "publish", lambda *_: False)
        world.operator.revoke(agent="a4", why="x")
    assert caplog.text.count("was not made whole: the disk is full") == 3
    assert len(world.feed.refresh().entries) == 5
    world.operator.renew()
    assert b"\n" not in (world.store.load() or b"") and len(world.operator.entries()) == 5


def test_a_snapshot_is_not_made_whole_behind_the_back_of_another_operator(large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another delta came between the publication and that: what lies there stands, and is made whole by whoever comes next."""
    monkeypatch.setattr(shelf, "_FOLD", 1)
    world = World()
    other = world.another()
    other.entries()
    appended = world.store.append

    def and_another(delta: bytes, after: bytes, gives: bytes) -> bool:
        done = appended(delta, after, gives)
        monkeypatch.setattr(world.store, "append", appended)
        monkeypatch.setattr(shelf, "_FOLD", 100)
        other.revoke(agent="b", why="x")
        monkeypatch.setattr(shelf, "_FOLD", 1)
        return done

    monkeypatch.setattr(world.store, "append", and_another)
    world.operator.revoke(agent="a", why="x")
    assert (world.store.load() or b"").count(b"\n") == 2 and len(world.feed.refresh().entries) == 2
    world.operator.renew()
    assert b"\n" not in (world.store.load() or b"") and len(world.operator.entries()) == 2


def test_who_takes_over_signs_the_whole_once(large: None) -> None:
    """So a reader that trusts the new key alone can read it; then the new one goes on by deltas."""
    world, heir = World(), OperatorKey.generate()
    done = world.operator.revoke(agent="a", why="x")
    new = world.another(heir, trusted=[KEY.public])
    new.renew()
    assert Overlay.open(world.store.load() or b"", [heir.public]).entries == (done,)
    world.asked()
    new.lift(done.id)
    assert world.asked() == ["since", "append"]
    assert Overlay.open(world.store.load() or b"", [heir.public]).entries == ()


class Deaf(Store):
    """Takes no deltas, as one that does not know the mark of what lies there."""

    def append(self, delta: bytes, after: bytes, gives: bytes) -> bool:
        self.calls.append("append")
        return False


class Plain:
    """A store of somebody's own, with what it needs at least."""

    def __init__(self) -> None:
        self.lies = MemorySnapshots()

    def load(self) -> bytes | None:
        return self.lies.load()

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        return self.lies.publish(snapshot, after)


def test_a_store_without_deltas_is_given_whole_snapshots(large: None) -> None:
    """Operators and feeds do without, whatever the size."""
    world, token = World(Plain()), mint()  # type: ignore[arg-type]
    assert world.code(token) == "allowed"
    done = world.operator.revoke(token=token.token_id, why="x")
    assert world.code(token) == "revoked" and b"\n" not in (world.store.load() or b"")
    world.operator.lift(done.id)
    assert world.code(token) == "allowed" and world.operator.entries() == world.another().entries() == ()


def test_a_store_that_takes_no_delta_is_given_the_whole(large: None) -> None:
    world = World(Deaf())
    for number in range(3):
        world.operator.revoke(agent=f"a{number}", why="x")
        assert len(world.feed.refresh().entries) == number + 1


@pytest.mark.parametrize("answer", [None, 1, 0, "yes", False])
def test_only_true_is_appended(large: None, answer: Any) -> None:
    """An answer that is not True is not a yes: what counts is what lies there then."""
    world = World()
    world.asked()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store, "append", lambda *_: answer)
        patch.setattr(world.store, "publish", lambda *_: answer)
        with pytest.raises(StoreError, match="32 other snapshots"):
            world.operator.revoke(agent="a", why="x")
    assert world.operator.entries() == ()


class Forgetful(MemorySnapshots):
    """Appends, and then loses its answer: the first time."""

    lost = False

    def append(self, delta: bytes, after: bytes, gives: bytes) -> bool:
        done = super().append(delta, after, gives)
        if not self.lost:
            self.lost = True
            return False
        return done


def test_a_delta_whose_answer_was_lost_is_made_once_and_is_no_error(large: None) -> None:
    store = Forgetful()
    world = World(store)
    done = world.operator.revoke(agent="a", why="x")
    assert world.operator.entries() == (done,)
    store.lost = False
    world.operator.lift(done.id)
    assert world.operator.entries() == ()


def test_a_store_that_says_that_nothing_is_new_makes_nobody_go_back(large: None) -> None:
    """The verifier lives on what it has, until that is stale; an operator is refused when it writes, and gives up."""
    world, token = World(), mint()
    assert world.code(token) == "allowed" and isinstance(world.store, Store)
    other = world.another()
    other.entries()
    world.store.lie = lambda deltas: []
    world.operator.revoke(token=token.token_id, why="x")
    assert world.code(token) == "allowed"
    world.now.advance(61)
    assert world.code(token) == "stale_overlay"
    done = other.revoke(agent="a", why="x")  # refused as a delta, it reads the whole
    assert len(other.entries()) == 2 and done in other.entries()


def test_a_store_that_went_back_is_refused_though_it_has_deltas(large: None) -> None:
    """An older whole snapshot, or fewer deltas: a verifier keeps what it knows, an operator raises, and nothing is published."""
    world, token = World(), mint()
    stale = world.store.load()
    assert world.code(token) == "allowed"
    world.operator.revoke(token=token.token_id, why="x")
    before = world.store.load()
    world.operator.revoke(agent="a", why="x")
    assert world.code(token) == "revoked"
    for lies in (stale, before):
        old = MemorySnapshots()
        old.publish(lies or b"", None)
        world.feed._store = old
        assert world.code(token) == "revoked" and "not newer" in str(world.feed.problem)
        world.operator._history._shelf._store = old
        for act in (world.operator.renew, world.operator.entries, lambda: world.operator.revoke(agent="b", why="x")):
            with pytest.raises(OverlayError, match="the store has lost snapshots"):
                act()
        assert old.load() == lies


def test_a_feed_takes_a_snapshot_of_its_own_number_only_if_it_is_the_same(large: None) -> None:
    """Made whole, it is what is known; another of that number is refused."""
    world = World()
    same = Store()
    same.lie = lambda deltas: None
    world.operator.renew()
    known = world.feed.refresh()
    same.publish(whole(KEY, known), None)
    world.feed._store = same
    assert world.feed.refresh() is known
    same.publish(snapshot(KEY, [entry("a")], seq=known.seq, issued_at=NOW), same.load())
    with pytest.raises(OverlayError, match="not newer"):
        world.feed.refresh()
