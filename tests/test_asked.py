"""What holders asked for has a part of the overlay, and no more: what gives way in it is stopped for as long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from random import Random
from typing import Any

import msgspec
import pytest

from captoken import Issuer, Verifier
from captoken._format.encoding import b64encode
from captoken._language import overlay as overlays
from captoken._language.entries import entry_size
from captoken.control import ControlPlane, Entry, Operator, Selector
from captoken.control import _asked as asking
from captoken.control._asked import MOST, HandOver, Recall, asked_for
from captoken.control._recall import SLACK
from captoken.errors import RecallError
from captoken.testing import fixed_random
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock
from tests.longer import drawing
from tests.test_recall import GOOD, KEY, World, asked, family

TREE_ID = b64encode(bytes(range(16)))


def test_of_one_hand_over_so_many_recalls_stand_and_then_it_is_revoked() -> None:
    """A sub-agent that invents a hundred and one children: each recall is taken, and the last one stops the sub-agent itself.
    What the first agent asks for stands beside it, more than a hundred of them."""
    world, own = World(), family()
    entries = [world.plane.handle(asked(own["left"], own["left"].delegate(to=f"a{at}"))) for at in range(MOST)]
    assert world.operator.entries() == tuple(entries) and world.code(own["left"]) == "allowed"
    assert {entry.asked for entry in entries} == {(own["left"].link_id,)}
    last = own["left"].delegate(to="last")
    done = world.plane.handle(asked(own["left"], last))
    assert world.operator.entries() == (done,) and done.select == Selector(link=own["left"].link_id, token=last.token_id)
    assert (done.asked, done.link, done.until) == ((own["left"].link_id,), None, entries[0].until)
    dead = {name for name, token in own.items() if world.code(token) == "revoked"}
    assert dead == {"left", "mine", "below", "bottom"} and world.code(last) == "revoked"

    for at in range(MOST + 1):
        assert world.plane.handle(asked(own["root"], own["root"].delegate(to=f"b{at}"))).asked == ()
    assert len(world.operator.entries()) == MOST + 2 and world.code(own["right"]) == "allowed"


def test_nobody_is_immune_to_recall() -> None:
    """However much those below asked for, and wherever: each ancestor's recall is taken, and stops what it names."""
    for ancestor, target in (("root", "left"), ("left", "below"), ("root", "below"), ("mine", "bottom")):
        world, own = World(), family()
        # It looks at no overlay, so that those go on to ask who are stopped already.
        world.plane = ControlPlane(Verifier(KEYRING, "control", clock=world.now), world.operator, most=5)
        for name in ("below", "bottom", "right", "left"):
            for at in range(4):
                world.plane.handle(asked(own[name], own[name].delegate(to=f"{name}-{at}")))
        done = world.plane.handle(asked(own[ancestor], own[target]))
        assert world.code(own[target]) == world.code(own["bottom"]) == "revoked", (ancestor, target)
        assert done in world.operator.entries() and world.code(own["right"]) == world.code(own["root"]) == "allowed"


def test_an_ancestor_s_recall_takes_the_place_of_what_was_asked_for_below_and_of_that_alone() -> None:
    """Of what the holder itself, a sibling, an operator and holders below the link asked for: the last alone gives way."""
    world, own = World(), family()
    kept = [
        world.plane.handle(asked(own["root"], own["root"].delegate(to="a"))),
        world.plane.handle(asked(own["right"], own["right"].delegate(to="b"))),
        world.plane.handle(asked(own["left"], own["left"].delegate(to="c"))),
        world.operator.revoke(link=own["bottom"].delegate(to="z").link_id, token=own["root"].token_id, why="x"),
    ]
    below = [
        world.plane.handle(asked(own["below"], own["below"].delegate(to="d"))),
        world.plane.handle(asked(own["bottom"], own["bottom"].delegate(to="e"))),
    ]
    assert [one.asked for one in below] == [(own["left"].link_id, own["below"].link_id), (*below[0].asked, own["bottom"].link_id)]
    assert set(world.operator.entries()) == {*kept, *below}
    done = world.plane.handle(asked(own["left"], own["below"]))
    assert set(world.operator.entries()) == {*kept, done} and done.asked == (own["left"].link_id,)


def test_what_gives_way_to_an_ancestor_s_recall_is_stopped_for_as_long() -> None:
    """The ancestor's own recall would end sooner: it lasts as long as the last of those in whose place it stands."""
    world, own = World(), family()
    soon = own["root"].attenuate(expires_in=5, operations=["select"], tables=["sales"])
    child = soon.delegate(to="x")
    entry = world.plane.handle(asked(child, child.delegate(to="y")))
    assert entry.until == NOW + 5 + SLACK
    stored = [msgspec.structs.replace(entry, until=entry.until + 100)]
    recall_ = Recall(child.link_id, child.token_id, (), "x", NOW + 5 + SLACK)
    answer, change = asked_for(recall_, stored, make=maker(), most=MOST, now=NOW)
    assert answer.until == entry.until + 100 and change.drop == [entry.id]
    stored = [msgspec.structs.replace(entry, until=None)]
    assert asked_for(recall_, stored, make=maker(), most=MOST, now=NOW).entry.until is None


def test_who_is_stopped_itself_need_not_ask() -> None:
    """A control plane that looks at no overlay: what stops whoever asks is the answer, and nothing is added beside it."""
    world, own = World(), family()
    plane = ControlPlane(Verifier(KEYRING, "control", clock=world.now), world.operator)
    for select in ({"link": own["left"].link_id}, {}):
        before = world.operator.revoke(token=own["root"].token_id, why="x", **select)
        assert plane.handle(asked(own["below"], own["bottom"])) == before and world.operator.entries() == (before,)
        world.operator.lift(before.id)
    elsewhere = world.operator.revoke(link=own["right"].link_id, token=own["root"].token_id, why="x")
    assert plane.handle(asked(own["below"], own["bottom"])) != elsewhere


def maker() -> Callable[..., Entry]:
    """Makes entries as an operator does, numbered."""
    numbers = count()

    def make(select: Selector, by: tuple[str, ...], why: str, until: int | None) -> Entry:
        return Entry(asked=by, at=NOW, by="ops", id=f"n{next(numbers):09}", select=select, until=until, why=why)

    return make


def fields(entry: Entry) -> dict[str, Any]:
    return msgspec.structs.asdict(entry)


def named_link(number: int) -> str:
    return b64encode(number.to_bytes(16, "big"))


class Forest:
    """Trees of hand-overs by number, and all that was asked for of them: what has to be stopped, and for how long."""

    def __init__(self, drawn: Random, trees: int, size: int) -> None:
        self.drawn, self.above, self.tree = drawn, dict[int, tuple[int, ...]](), dict[int, str]()
        for number in range(trees * size):
            own = [at for at in range(number) if at % trees == number % trees]
            # Deep rather than wide, so that many are nested.
            parent = drawn.choice(own[-4:]) if own and drawn.random() < 0.9 else None
            self.above[number] = () if parent is None else (*self.above[parent], parent)
            self.tree[number] = named_link(10**6 + number % trees)
        self.owed: list[tuple[int, int | None]] = []

    def recall(self, now: int) -> Recall | None:
        """Somebody asks for the recall of somebody below; None if the one that was drawn has nobody above but the issuer."""
        target = self.drawn.randrange(len(self.above))
        by = self.above[target][: self.drawn.randint(0, len(self.above[target]))]
        until = self.drawn.choice([None, now + 50, now + 500]) if not self.drawn.randrange(20) else now + 300 - 10 * len(by)
        self.owed.append((target, until))
        handed = tuple(HandOver(named_link(at), None if until is None else now + 300) for at in by)
        return Recall(named_link(target), self.tree[target], handed, "x", until)

    def lost(self, entries: list[Entry], now: int) -> list[int]:
        """Those that were recalled, or are below one that was, and that no entry stops."""
        stopped = {(one.select.token, one.select.link) for one in entries if one.stands(now) and one.link is None}
        found = []
        for target, until in self.owed:
            chain = [named_link(at) for at in (*self.above[target], target)]
            holds = until is None or now < until
            if holds and stopped.isdisjoint((self.tree[target], link) for link in (None, *chain)):
                found.append(target)
        return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("part", [10**9, 4000], ids=["much room", "little room"])
def test_nothing_that_was_asked_for_is_dropped_before_its_time(seed: int, part: int) -> None:
    """300 recalls in trees of nested hand-overs, in any order, with a bound of five, time passing and ended entries taken off:
    after each all that was ever asked for is stopped until its end, no hand-over has more than the bound, the holders' part
    is no larger than it may be, and what the operator said stands."""
    drawn = drawing(seed)
    forest, make, now = Forest(drawn, 1 + seed % 4, 40), maker(), NOW
    said = [Entry(at=NOW, by="ops", id="op", select=Selector(token=named_link(10**6)), link={"tables": []}, why="x")]
    said.append(Entry(at=NOW, by="ops", id="oq", select=Selector(link=named_link(5), token=named_link(10**6)), until=NOW + 9, why="x"))
    entries = [*said]
    for _ in range(300):
        now += drawn.choice((0, 0, 0, 1, 7, 40))
        recall_ = forest.recall(now)
        entry, change = asked_for(recall_, entries, make=make, most=5, now=now, part=part)
        if change is not None:
            assert set(change.drop) <= {one.id for one in entries if one.asked is not None}
            entries = [one for one in entries if one.id not in change.drop] + [*change.add]
            assert entry in change.add
        else:
            assert entry in entries
        assert forest.lost(entries, now) == []
        asked_ = [one for one in entries if one.asked is not None and one.stands(now)]
        counts = Counter((one.select.token, link) for one in asked_ for link in one.asked)
        assert max(counts.values(), default=0) <= 5 and entries[:2] == said
        assert sum(len(msgspec.json.encode(one)) for one in entries if one.asked is not None) <= part
        entries = said + [one for one in entries[2:] if one.stands(now)]


def test_of_nested_hand_overs_the_lowest_that_passes_the_bound_is_revoked() -> None:
    """Of four in a row, with a bound of five: whichever asks, those above go on."""
    for deepest in range(4):
        make, entries = maker(), []
        path = [HandOver(named_link(at), NOW + 900) for at in range(4)]
        # One each is asked for by those above, so that all of them are as near to the bound.
        for at in range(6):
            asks = Recall(named_link(100 + at), TREE_ID, tuple(path[: deepest + 1]), "x", NOW + 60)
            entry, change = asked_for(asks, entries, make=make, most=5, now=NOW)
            entries = [one for one in entries if one.id not in change.drop] + [*change.add]
        assert entries == [entry]
        assert (entry.select.link, entry.until) == (named_link(deepest), NOW + 900)
        assert entry.asked == tuple(each.link for each in path[: deepest + 1])


def test_where_the_holders_part_is_full_the_tree_with_most_gives_way() -> None:
    """Three trees: the one with most entries is revoked whole, until the last of its entries ends; the others are as they
    were. Where each has one entry, and no more fits, the next recall is refused, and nothing is dropped."""
    make, entries = maker(), []
    for at, tree in enumerate([1, 2, 2, 2, 3]):
        asks = Recall(named_link(at), named_link(tree), (), "x", NOW + 60 + at)
        entries += asked_for(asks, entries, make=make, most=5, now=NOW).change.add
    size = sum(map(entry_size, entries))
    asks = Recall(named_link(9), named_link(3), (), "x", NOW + 60)
    entry, change = asked_for(asks, entries, make=make, most=5, now=NOW, part=size)
    assert entry.select == asks.wanted and set(change.drop) == {entries[at].id for at in (1, 2, 3)}
    (whole,) = [one for one in change.add if one != entry]
    assert (whole.select, whole.asked, whole.until) == (Selector(token=named_link(2)), (), NOW + 63)

    # The first by name is whole already: so the other one is, as far as that helps.
    short, long = Entry(**{**fields(whole), "select": Selector(token=named_link(0))}), entries[0]
    asks = Recall(named_link(9), named_link(4), (), "x", NOW + 60)
    room = entry_size(short) + entry_size(long)
    many = (HandOver(named_link(at), None) for at in range(30))
    long = Entry(**{**fields(long), "asked": tuple(each.link for each in many)})
    entry, change = asked_for(asks, [short, long], make=make, most=5, now=NOW, part=entry_size(long))
    assert entry.select == asks.wanted and change.drop == [long.id]
    with pytest.raises(RecallError, match="is full"):
        asked_for(asks, [short, *(one for one in change.add if one != entry)], make=make, most=5, now=NOW, part=room)


def test_holders_cannot_fill_the_overlay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of at most 64 KiB, and 150 tokens whose holders recall three children each: what is taken stays stopped, what
    is not taken is told, they come to a quarter of it at most, and the operator revokes as before, losing none of its own."""
    monkeypatch.setattr(overlays, "MAX_BYTES", 1 << 16)
    monkeypatch.setattr(asking, "PART", (1 << 16) // 4)
    world = World()
    plane = ControlPlane(Verifier(KEYRING, "control", clock=world.now), world.operator)
    issuer = Issuer(KEYRING, clock=clock(), random=fixed_random("many"))
    mine = [world.operator.revoke(agent=f"gone-{number}", why="x" * 50) for number in range(20)]
    taken, refused = [], 0
    for _ in range(150):
        token = issuer.mint(**WHO, **SALES)
        for child in [token.delegate(to=f"a{at}") for at in range(3)]:
            try:
                plane.handle(asked(token, child))
                taken.append(child)
            except RecallError:
                refused += 1
    standing = world.operator.entries()
    assert sum(entry_size(one) for one in standing if one.asked is not None) <= (1 << 16) // 4
    last = [world.operator.revoke(agent=f"late-{number}", why="y" * 50) for number in range(20)]
    assert {one.id for one in (*mine, *last)} <= {one.id for one in world.operator.entries()}
    assert len(taken) > 200 and refused > 0 and {world.code(token) for token in taken} == {"revoked"}


def test_control_planes_that_are_asked_at_once_keep_the_bound() -> None:
    """Eight threads, each with a plane and an operator of its own, and twenty recalls by one sub-agent in each: with a bound
    of 50 there is one entry in the end, and never were there more than 50."""
    world, own = World(), family()
    requests = [asked(own["left"], own["left"].delegate(to=f"a{at}")) for at in range(160)]
    most = [0]

    def run(who: int) -> None:
        operator = Operator(KEY, world.store, by="control", clock=world.now)
        plane = ControlPlane(Verifier(KEYRING, "control", clock=world.now), operator, most=50)
        for request in requests[who::8]:
            plane.handle(request)
            most.append(len(world.open().entries))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    (entry,) = world.operator.entries()
    assert entry.select.link == own["left"].link_id and max(most) <= 50


def test_what_the_full_part_makes_of_a_request_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tree can give way: RecallError, and nothing is published."""
    monkeypatch.setattr(asking, "PART", 100)
    World().refused(GOOD, "is full")
