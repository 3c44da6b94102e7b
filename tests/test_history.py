"""The history of the overlay: what was revoked stays so on a store that was set back, whoever signs on (36.21 to 36.24)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captoken._format.encoding import b64encode
from captoken._language import overlay as module
from captoken._language.overlay import PAST, Resumed, snapshot
from captoken.control import Entry, Feed, Operator, Overlay, Selector
from captoken.control import _shelf as shelf
from captoken.control._seen import LastSeen, keep_seen, kept_seen
from captoken.errors import OverlayError
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from tests.fixtures import NOW, clock

KEY = OperatorKey.from_bytes(bytes(range(3, 35)))
TRUSTED = [KEY.public]
TREE, OTHER = b64encode(b"0123456789abcdef"), b64encode(b"0123456789abcdeg")
LINKS = [b64encode(bytes([number] * 16)) for number in range(4)]
GONE = Resumed(by="ops@example", lost=9, seq=20, why="restored")


def entry(name: str, **facts: Any) -> Entry:
    return Entry(**{"at": NOW, "by": "ops", "id": name, "select": Selector(agent=name), "why": "lost", **facts})


def opened(*entries: Entry, seq: int = 1, past: Any = (), **facts: Any) -> Overlay:
    return Overlay.open(snapshot(KEY, entries, seq=seq, issued_at=NOW, past=past, **facts), TRUSTED)


def after(known: Overlay, *entries: Entry, steps: int = 1, **facts: Any) -> Overlay:
    """What is signed so many steps later, with these entries."""
    for _ in range(steps - 1):
        known = opened(seq=known.seq + 1, past=known.next_past, resumed=known.resumed)
    return opened(*entries, **{"seq": known.seq + 1, "past": known.next_past, "resumed": known.resumed, **facts})


def recalled(name: str, link: int, *asked: int, **facts: Any) -> Entry:
    """What a holder asked for: the hand-overs down to it are `asked`."""
    select = Selector(token=TREE, link=LINKS[link])
    return entry(name, **{"select": select, "asked": tuple(LINKS[number] for number in asked), **facts})


class World:
    """An operator that revokes, a verifier that has heard it, and a store that is set back to before."""

    def __init__(self) -> None:
        self.now, self.store = clock(), MemorySnapshots()
        self.operator = self.another()
        self.feed = Feed(self.store, TRUSTED, every=0, clock=self.now)
        self.operator.renew()
        self.before = self.store.load()
        self.done = self.operator.revoke(agent="a", why="lost laptop")
        assert self.names() == ["a"]

    def another(self, **facts: Any) -> Operator:
        return Operator(KEY, self.store, **{"by": "ops@example", "clock": self.now, **facts})

    def names(self) -> list[str | None]:
        overlay = self.feed()
        assert overlay is not None
        return [one.select.agent for one in overlay.entries]

    def set_back(self) -> None:
        assert self.before is not None and self.store.publish(self.before, self.store.load())


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every snapshot is large: all goes by deltas."""
    monkeypatch.setattr(module, "LARGE", 1)


@pytest.fixture(params=["whole", "by deltas"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    if request.param == "by deltas":
        monkeypatch.setattr(module, "LARGE", 1)
    return World()


# ---- a store that is set back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("renewals", [1, 2, 3, 40])
def test_what_was_revoked_stays_so_however_often_somebody_else_signs_on(world: World, renewals: int) -> None:
    """The verifier keeps to what it knows, and says so; the operator that revoked refuses to go on (36.22, 36.24)."""
    world.set_back()
    unaware = world.another()
    for _ in range(renewals):
        unaware.renew()
        assert world.names() == ["a"]
    for act in (world.operator.renew, world.operator.entries, lambda: world.operator.revoke(agent="b", why="x")):
        with pytest.raises(OverlayError, match=r"the store has lost snapshots|does not continue"):
            act()
    if renewals > 1:
        assert "snapshot" in str(world.feed.problem) and "does not continue snapshot 2" in str(world.feed.problem)


def test_who_was_told_by_what_an_earlier_process_saw_refuses_it_too(world: World) -> None:
    """As the number alone would not."""
    seen = world.operator.seen
    assert world.another(last=seen).renew().seq == 3
    world.set_back()
    unaware = world.another()
    for _ in range(3):
        unaware.renew()
    with pytest.raises(OverlayError, match=r"snapshot 4 does not continue snapshot 2, .*go on by resume="):
        world.another(last=seen).renew()
    assert world.another(last=2).renew().seq == 5


def test_who_has_looked_says_by_name_what_is_lost_and_all_go_on(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Verifiers and operators that know what was lost; those that missed the first such snapshot; and nobody goes back then."""
    world.set_back()
    unaware = world.another()
    unaware.renew()
    unaware.renew()
    aware = world.another(last=world.operator.seen, by="user:jane", resume="the backup of 14:00\x1b[2J")
    first = aware.renew()
    assert first.resumed == Resumed(by="user:jane", lost=2, seq=1000 * NOW, why="the backup of 14:00\x1b[2J") and first.seq == 1000 * NOW
    lost = aware.revoke(agent="b", why="said anew")
    with caplog.at_level(logging.WARNING, "captoken"):
        assert world.names() == ["b"]
        assert world.names() == ["b"]
    told = [one.getMessage() for one in caplog.records if "resumed" in one.getMessage()]
    assert told == [f"the overlay: resumed as snapshot {first.seq} by user:jane, after 2 was there: the backup of 14:00\\x1b[2J"]
    for operator in (world.operator, unaware, aware, world.another(), world.another(last=aware.seen)):
        assert operator.entries() == (lost,)
        last = operator.renew()
    assert last.resumed == first.resumed

    # The history that goes on is one from then on.
    kept = world.store.load()
    world.operator.revoke(agent="c", why="x")
    assert sorted(map(str, world.names())) == ["b", "c"]
    assert kept is not None and world.store.publish(kept, world.store.load())
    again = world.another()
    again.renew()
    again.renew()
    assert sorted(map(str, world.names())) == ["b", "c"]
    with pytest.raises(OverlayError, match="does not continue"):
        world.operator.renew()


def test_a_store_that_is_begun_anew_goes_on_by_name_alone(world: World) -> None:
    """A new store has a first snapshot, which names none before it."""
    world.store = MemorySnapshots()
    world.feed._store = world.store
    for _ in range(5):
        world.another().renew()
    assert world.names() == ["a"]
    with pytest.raises(OverlayError, match="does not continue"):
        world.another(last=world.operator.seen).renew()
    assert world.another(last=world.operator.seen, resume="the disk is gone").renew().entries == ()
    assert world.names() == []


def test_an_operator_that_resumes_on_nothing_begins_with_a_number_of_its_own() -> None:
    store = MemorySnapshots()
    made = Operator(KEY, store, by="ops", clock=clock(), last=4, resume="begun anew").renew()
    assert (made.seq, made.past, made.resumed) == (1000 * NOW, (), Resumed(by="ops", lost=4, seq=1000 * NOW, why="begun anew"))


def test_who_resumes_and_is_second_says_so_again(world: World) -> None:
    """Another one publishes between its reading and its writing: it signs anew what it says, and once."""
    world.set_back()
    aware, load, others = world.another(resume="looked"), world.store.load, [world.another()]

    def slow() -> bytes | None:
        found = load()
        if others:
            others.pop().renew()
        return found

    world.store.load = slow  # type: ignore[method-assign]
    assert aware.renew().resumed == Resumed(by="ops@example", lost=0, seq=1000 * NOW, why="looked")
    assert aware.renew().seq == 1000 * NOW + 1 and world.names() == []


@pytest.mark.parametrize("why", ["", "  ", "\n"])
def test_why_it_goes_on_is_said(why: str) -> None:
    with pytest.raises(ValueError, match="resume is empty"):
        Operator(KEY, MemorySnapshots(), by="ops", resume=why)


@pytest.mark.parametrize("why", [True, False, b"x", 1])
def test_why_it_goes_on_is_text(why: Any) -> None:
    with pytest.raises(TypeError, match="resume must be a str"):
        Operator(KEY, MemorySnapshots(), by="ops", resume=why)


def test_who_signs_alone_goes_on_from_what_has_run_out_and_from_nothing_else(world: World) -> None:
    """`alone` says that nobody else can have signed since: not that a store may lose what it had."""
    world.now.advance(4000)
    with pytest.raises(OverlayError, match="is it the newest"):
        world.another(last=world.operator.seen).renew()
    seen = world.operator.seen
    assert world.another(last=seen, alone=True).renew().seq == 3
    world.set_back()
    for _ in range(3):
        world.another(alone=True).renew()
    with pytest.raises(OverlayError, match="does not continue"):
        world.another(last=seen, alone=True).renew()


# ---- what follows on what ------------------------------------------------------------------------------------------

ONE = opened(seq=7, past=None)
FIRST = opened(entry("a"), seq=7, past=opened(seq=6).next_past)
LEGACY = opened(entry("a"), seq=7, past=None)
BEFORE = opened(seq=6)  # that FIRST was built on
RECALLS = [recalled("a", 2, 0, 1), recalled("b", 3, 0), entry("c", until=NOW)]
HELD = opened(*RECALLS, seq=7)

FOLLOWS: dict[str, tuple[Overlay, Overlay, bool]] = {
    "the next one": (FIRST, after(FIRST), True),
    "one of a branch": (FIRST, after(after(BEFORE)), False),
    "one of a branch that says as much": (FIRST, after(after(BEFORE), entry("a")), False),
    "a first one": (FIRST, opened(entry("a"), seq=8), False),
    "as far as it is named": (FIRST, after(FIRST, steps=PAST), True),
    "a branch of as many": (FIRST, after(BEFORE, steps=PAST + 1), False),
    "further, with all that it said": (FIRST, after(FIRST, entry("a"), steps=PAST + 1), True),
    "further, without it": (FIRST, after(FIRST, steps=PAST + 1), False),
    "further, where it says something else": (FIRST, after(FIRST, entry("a", why="x"), steps=PAST + 1), False),
    "further, where it ends sooner": (FIRST, after(FIRST, entry("a", until=NOW + 60), steps=PAST + 1), False),
    "further, where holders asked": (HELD, after(HELD, *RECALLS, steps=PAST + 1), True),
    "further, where it has ended": (HELD, after(HELD, *RECALLS[:2], steps=PAST + 1), True),
    "further, with the tree in their place": (HELD, after(HELD, entry("t", select=Selector(token=TREE)), steps=PAST + 1), True),
    "further, with the first hand-over in their place": (HELD, after(HELD, recalled("t", 0), steps=PAST + 1), True),
    "further, with the second, which stops one": (HELD, after(HELD, recalled("t", 1, 0), steps=PAST + 1), False),
    "further, with another link": (HELD, after(HELD, recalled("t", 3), RECALLS[1], steps=PAST + 1), False),
    "further, with another tree": (HELD, after(HELD, entry("t", select=Selector(token=OTHER)), steps=PAST + 1), False),
    "further, with less of the tree": (
        HELD, after(HELD, entry("t", select=Selector(token=TREE, task="a")), steps=PAST + 1), False),
    "further, with what narrows": (
        HELD, after(HELD, entry("t", select=Selector(token=TREE), link={"tables": ["a"]}), steps=PAST + 1), False),
    "further, with what ends": (
        HELD, after(HELD, entry("t", select=Selector(token=TREE), until=NOW + 9), steps=PAST + 1), False),
    "resumed": (FIRST, opened(seq=20, resumed=GONE), True),
    "after it was resumed": (FIRST, after(opened(seq=20, resumed=GONE), steps=3), True),
    "a branch after it was resumed": (
        after(opened(seq=20, resumed=GONE), entry("a")), after(opened(seq=20, resumed=GONE), steps=2), False),
    "a branch of the one that was resumed": (opened(entry("a"), seq=20, resumed=GONE), opened(seq=21, resumed=GONE), False),
    "without a history, both": (LEGACY, opened(seq=8, past=None), True),
    "without one before": (LEGACY, opened(seq=8, past=LEGACY.next_past), True),
    "without one before, and not named": (LEGACY, opened(seq=8), False),
    "without one now": (FIRST, opened(entry("a"), seq=8, past=None), False),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWS)
def test_what_may_take_the_place_of_what_is_known(name: str) -> None:
    """By its history, and beyond what it names by what it keeps (36.22)."""
    known, loaded, follows = FOLLOWS[name]
    assert loaded.follows(known) is follows
    store = MemorySnapshots()
    feed = Feed(store, TRUSTED, every=0, clock=clock())
    assert store.publish(module.whole(KEY, known), None)
    assert feed.refresh().seq == 7 or known.seq >= 20
    assert store.publish(module.whole(KEY, loaded), store.load())
    if follows:
        assert feed.refresh().digest == loaded.digest
    else:
        with pytest.raises(OverlayError, match="does not continue"):
            feed.refresh()
        assert feed() is not None and feed().digest == known.digest  # type: ignore[union-attr]


def test_a_snapshot_names_the_last_256() -> None:
    """The latest first; an operator's are all named by the next, by deltas too."""
    store = MemorySnapshots()
    operator = Operator(KEY, store, by="ops", clock=clock())
    made = [operator.renew() for _ in range(PAST + 3)]
    hashes = [b64encode(one.digest) for one in made]
    assert made[-1].past == tuple(hashes[-2 : -PAST - 2 : -1]) and len(made[-1].past) == PAST
    assert [one.past for one in made[:2]] == [(), (hashes[0],)]


def test_deltas_give_what_names_the_one_before(large: None) -> None:
    world = World()
    assert world.store.since(world.operator.renew().digest) == []
    overlay = world.feed()
    assert overlay is not None and overlay.past is not None and len(overlay.past) == 2
    assert world.store._deltas


def test_a_large_overlay_of_before_gets_its_history_whole(large: None) -> None:
    """A delta on one without a history gives one without; so the first is whole (36.21)."""
    store = MemorySnapshots()
    known = opened(entry("a"), seq=3, past=None)
    assert store.publish(module.whole(KEY, known), None)
    feed = Feed(store, TRUSTED, every=0, clock=clock())
    assert feed.refresh().past is None
    step = module.delta(KEY, known, drop=["a"], add=[], seq=4, issued_at=NOW)
    assert known.follow([step.delta], TRUSTED).past is None

    operator = Operator(KEY, store, by="ops", clock=clock())
    assert operator.renew().past == (b64encode(known.digest),) and not store._deltas
    assert feed.refresh().seq == 4
    operator.renew()
    assert store._deltas and feed.refresh().past == operator.renew().past[1:]  # type: ignore[index]


def test_a_snapshot_that_is_made_whole_keeps_its_history(large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "_FOLD", 3)
    world = World()
    for _ in range(10):
        overlay = world.operator.renew()
        assert world.feed.refresh().past == overlay.past and overlay.past is not None
        assert Overlay.open(world.store.load() or b"", TRUSTED).past == overlay.past
    assert len(overlay.past) == 11


def test_what_is_not_as_it_has_to_be_is_no_history() -> None:
    """Read by nobody, and so not published either."""
    name = opened().next_past[0]
    wrong: list[dict[str, Any]] = [
        {"past": [name] * (PAST + 1)}, {"past": [name[:-1]]}, {"past": [name + "="]}, {"past": [name[:-1] + "B"]}, {"past": [1]},
        {"past": [""]}, {"past": [name + "\n"]}, {"past": None, "resumed": GONE, "seq": 30}, {"resumed": GONE, "seq": 19},
    ]  # fmt: skip
    for facts in wrong:
        with pytest.raises(OverlayError, match="the snapshot cannot be read"):
            opened(**facts)
    assert opened(past=[name] * PAST, resumed=GONE, seq=20).resumed == GONE


# ---- what was seen -------------------------------------------------------------------------------------------------


def test_what_was_seen_is_one_line(tmp_path: Path) -> None:
    operator = Operator(KEY, MemorySnapshots(), by="ops", clock=clock())
    assert operator.seen == "0" and operator.last == 0
    made = operator.renew()
    assert operator.seen == f"1 {b64encode(made.digest)}" and operator.last == 1
    keep_seen(tmp_path / "seen", operator.seen)
    assert (tmp_path / "seen").read_text() == operator.seen + "\n"
    assert kept_seen(tmp_path / "seen") == LastSeen(1, made.digest) == LastSeen.of(made)
    (tmp_path / "seen").write_text("17\n")
    assert kept_seen(tmp_path / "seen") == LastSeen(17)
    with pytest.raises(FileNotFoundError):
        kept_seen(tmp_path / "none")


@pytest.mark.parametrize("text", ["", " ", "x", "-1", "1.0", "9" * 17, "1 x", "1  ", "1 " + "A" * 42, "1 " + "A" * 86, "1 é", "²"])
def test_what_was_seen_is_read_as_it_was_written_or_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text(text)
    reads: list[Callable[[], Any]] = [lambda: Operator(KEY, MemorySnapshots(), by="ops", last=text)]
    for read in reads:
        with pytest.raises(ValueError, match="a snapshot"):
            read()
    with pytest.raises(OverlayError, match="must hold the number of the last snapshot, and cannot be read"):
        kept_seen(tmp_path / "seen")


def test_an_operator_goes_by_the_number_alone_where_nothing_else_was_seen(world: World) -> None:
    """Of what an earlier release has kept, and of what is too long ago to be named (36.24)."""
    seen = world.operator.seen
    for _ in range(PAST):
        world.operator.renew()
    assert world.another(last=seen).renew().seq == PAST + 3
    assert world.another(last=seen).renew().seq == PAST + 4
    assert world.another(last=2).renew().seq == PAST + 5
