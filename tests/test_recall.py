"""Recall: a holder stops what it handed on, and nothing that it did not."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from random import Random
from typing import Any

import msgspec
import pytest

from captoken import Denied, Issuer, Token, TokenFormatError, TokenSet, Verifier, WideningError
from captoken._format import primitives
from captoken._format.encoding import LIMITS, b64decode, b64encode, decode_json, encode_json
from captoken._format.parts import Packet
from captoken._language import overlay as overlays
from captoken._language.entries import entry_size
from captoken.control import ControlPlane, Entry, Operator, Overlay, Selector, recall
from captoken.control import _asked as asking
from captoken.control._asked import MOST, HandOver, Recall, asked_for
from captoken.control._recall import MAX_CHARS, SLACK, WHY_CHARS
from captoken.discharge import Allow, Discharger
from captoken.errors import DelegationError, LimitError, RecallError, StoreError
from captoken.keys import DischargerKey, HolderKey, OperatorKey
from captoken.proof import recall_mac, with_proof
from captoken.stores.memory import MemoryReplayStore, MemorySnapshots
from captoken.testing import fixed_random
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, data, mint, tool
from tests.library_code import is_library_code
from tests.longer import drawing

KEY = OperatorKey.from_bytes(bytes(range(3, 35)))
PARTY = DischargerKey.from_bytes(bytes(range(6, 38)))
ORCHESTRATOR, AGENT = HolderKey.from_bytes(bytes(range(7, 39))), HolderKey.from_bytes(bytes(range(8, 40)))
SELECT = data("sales")
TREE_ID = b64encode(bytes(range(16)))


class World:
    """A control plane and a server, which read one store at every check."""

    def __init__(self) -> None:
        self.now = clock()
        self.store = MemorySnapshots()
        self.operator = Operator(KEY, self.store, by="control", clock=self.now)
        self.operator.renew()
        self.server = self.verifier(None)
        self.plane = ControlPlane(self.verifier("control"), self.operator)

    def verifier(self, audience: str | None) -> Verifier:
        replays = MemoryReplayStore(floor=0)
        return Verifier(KEYRING, audience, overlay=self.open, clock=self.now, replays=replays, allow_unaddressed=True)

    def open(self) -> Overlay:
        stored = self.store.load()
        assert stored is not None
        return Overlay.open(stored, [KEY.public])

    def code(self, token: Token) -> str:
        return self.server.check(token.serialize(), SELECT).code

    def refused(self, request: Any, match: str | None = None, **facts: Any) -> None:
        """RecallError, and nothing is published."""
        before = self.store.load()
        with pytest.raises(RecallError, match=match):
            self.plane.handle(request, **facts)
        assert self.store.load() == before


def family() -> dict[str, Token]:
    """A root, two children, what is below them; all made by different holders."""
    root = mint()
    left, right = root.delegate(to="sales-agent"), root.delegate(to="report-agent")
    mine = left.attenuate(operations=["select"], tables=["sales"])
    below = mine.delegate(to="eu-agent")
    return {"root": root, "left": left, "mine": mine, "below": below, "bottom": below.delegate(to="x"), "right": right}


def asked(token: Token, handed_on: Token, **facts: Any) -> str:
    return recall(token, handed_on, **{"audience": "control", "why": "lost", **facts})


def changed(request: str, **facts: Any) -> str:
    """The same request with other facts; None leaves one out."""
    stated = {**decode_json(request.encode()), **facts}
    return encode_json({key: value for key, value in stated.items() if value is not None}).decode()


def claimed(token: Token, request: str, **facts: Any) -> str:
    """The same request with other facts, and the MAC that whoever holds `token` can make for it."""
    stated = {**decode_json(request.encode()), **facts}
    said = encode_json({"links": stated["links"], "why": stated["why"]})
    return changed(request, **facts, mac=b64encode(recall_mac(token.secret_packet.signature, said)))


# ---- what one handed on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holder", "handed_on", "dead"),
    [
        ("root", "left", "left, mine, below, bottom"),
        ("root", "right", "right"),
        ("root", "mine", "mine, below, bottom"),
        ("root", "below", "below, bottom"),
        ("root", "bottom", "bottom"),
        ("left", "mine", "mine, below, bottom"),
        ("left", "below", "below, bottom"),
        ("mine", "below", "below, bottom"),
        ("mine", "bottom", "bottom"),
        ("below", "bottom", "bottom"),
    ],
)
def test_a_holder_stops_what_it_handed_on_and_all_below(holder: str, handed_on: str, dead: str) -> None:
    """A child, a grandchild, what was narrowed and kept: that link and all below, and nothing beside or above."""
    world, own = World(), family()
    done = world.plane.handle(asked(own[holder], own[handed_on]))
    assert {name for name, token in own.items() if world.code(token) == "revoked"} == set(dead.split(", "))
    assert {world.code(token) for token in own.values()} == {"allowed", "revoked"}
    assert done.select == Selector(token=own["root"].token_id, link=own[handed_on].link_id)
    assert (done.by, done.link) == ("control", None) and done in world.operator.entries()
    who = "orchestrator" if holder == "root" else "eu-agent" if holder == "below" else "sales-agent"
    assert done.why == f"asked for by {who}: lost"


def test_a_request_that_is_sent_again_adds_nothing() -> None:
    """The same entry is the answer, and no snapshot is published; lifted, a new one is made; another link, another entry."""
    world, own = World(), family()
    request = asked(own["root"], own["left"])
    first, before = world.plane.handle(request), world.store.load()
    for _ in range(5):
        assert world.plane.handle(request) == first
    assert world.plane.handle(asked(own["root"], own["left"], why="again")) == first and world.store.load() == before
    world.operator.lift(first.id)
    assert world.plane.handle(request).id != first.id
    assert world.plane.handle(asked(own["root"], own["mine"])).id != first.id and len(world.operator.entries()) == 2


@pytest.mark.parametrize("what", ["a narrowing", "more than that link", "another link", "for a while"])
def test_what_the_operator_said_before_is_no_reason_to_do_nothing(what: str) -> None:
    """An entry that does less than what is asked for does not stand in for it."""
    world, own = World(), family()
    link, token = own["left"].link_id, own["root"].token_id
    if what == "a narrowing":
        world.operator.narrow(link=link, token=token, operations=["select"], tables=["*"], why="x")
    elif what == "more than that link":
        world.operator.revoke(link=link, token=token, agent="nobody", why="x")
    elif what == "another link":
        world.operator.revoke(link=own["right"].link_id, token=token, why="x")
    else:
        world.operator.revoke(link=link, token=token, until=NOW + 5, why="x")
    world.plane.handle(asked(own["root"], own["left"]))
    world.now.advance(5)
    assert world.code(own["left"]) == "revoked"


@pytest.mark.parametrize("until", [None, NOW + 10**6], ids=["for ever", "for long enough"])
def test_what_the_operator_revoked_for_as_long_stands_for_the_recall(until: int | None) -> None:
    """That link of that token, and nothing else asked for: its entry is the answer, and no other one is made."""
    world, own = World(), family()
    before = world.operator.revoke(link=own["left"].link_id, token=own["root"].token_id, until=until, why="x")
    assert world.plane.handle(asked(own["root"], own["left"])) == before and world.operator.entries() == (before,)


def test_a_token_narrowed_after_the_hand_over_still_recalls_it() -> None:
    """What is presented ends with links of its own; the link that is asked for is below the one that was handed on."""
    world, own = World(), family()
    narrowed = own["left"].attenuate(tables=["sales"], operations=["select"])
    request = changed(asked(own["left"], own["below"]), token=narrowed.present(audience="control"))
    assert world.plane.handle(request).select.link == own["below"].link_id


def test_what_was_handed_on_with_a_question_to_a_third_party_is_recalled() -> None:
    """Third-party caveats are links, and their boxes part of the chain."""
    world, token = World(), mint()
    asking = token.require(PARTY.public, need={"approve": "x"})
    handed = asking.delegate(to="sales-agent")
    request = asked(token, handed)
    assert [set(link) for link in decode_json(request.encode())["links"]] == [{"cid", "vid"}, {"cid"}]
    assert world.plane.handle(request).select.link == handed.link_id
    answered = handed.with_discharge(
        Discharger(PARTY, lambda need: Allow(expires_in=60), clock=world.now).discharge(handed.needs[0])
    )
    assert world.server.check(answered.present(audience="db", clock=world.now), SELECT).code == "revoked"


def test_a_holder_whose_token_asks_a_third_party_presents_the_answer() -> None:
    """Without the discharge the control plane refuses, with it it does as it is asked."""
    world = World()
    asking = mint().require(PARTY.public, need={"approve": "x"})
    discharge = Discharger(PARTY, lambda need: Allow(expires_in=60), clock=world.now).discharge(asking.needs[0])
    with pytest.raises(Denied) as caught:
        world.plane.handle(asked(asking, asking.delegate(to="a")))
    assert caught.value.code == "missing_discharge"
    answered = asking.with_discharge(discharge)
    handed = answered.delegate(to="a")
    assert world.plane.handle(asked(answered, handed)).select.link == handed.link_id


# ---- what one did not ----------------------------------------------------------------------------------------------


def test_one_token_that_was_not_made_from_the_other_is_a_mistake_of_the_holder_s() -> None:
    """Itself, what is above it, a sibling, another tree: ValueError before anything is written."""
    own = family()
    other = Issuer(KEYRING, clock=clock(), random=fixed_random("other")).mint(**WHO, **SALES)
    pairs = [(name, name) for name in own] + [
        ("left", "root"),
        ("mine", "left"),
        ("left", "right"),
        ("right", "mine"),
        ("below", "right"),
    ]
    for holder, handed_on in pairs:
        with pytest.raises(ValueError, match="not made from"):
            asked(own[holder], own[handed_on])
    with pytest.raises(ValueError, match="not made from"):
        asked(own["root"], other.delegate(to="sales-agent"))


def test_nobody_recalls_what_is_above_its_own_hand_over() -> None:
    """The holder of each token asks at every position of its chain: refused above the link by which it got the token, and
    at what is past the end."""
    world, own = World(), family()
    for name, since in (("root", 0), ("left", 1), ("mine", 1), ("below", 3), ("bottom", 4)):
        request = asked(own[name], own[name].attenuate(tables=["sales"], operations=["select"]))
        links = len(own[name].unverified.links)
        for after in (*range(-3, links - 1), links, links + 1, links + 2, 63, 64, 2**53 - 1, -(2**53) + 1):
            world.refused(changed(request, after=after), "did not have the token")
            for other in own.values():  # also with what whoever is above could say, handed down
                if after < since:
                    world.refused(claimed(other, request, after=after), "did not have the token")
        world.operator.lift(world.plane.handle(request).id)
    assert {world.code(token) for token in own.values()} == {"allowed"}


def test_a_sibling_s_link_is_not_to_be_had() -> None:
    """A child that knows the links of its sibling, and of its parent, asks for them at every place: refused where it did not
    hold the token, and where it did, what comes of it is an entry on a link that nobody has."""
    world, own = World(), family()
    sibling = own["right"].delegate(to="x")
    for target in (sibling, own["right"], own["left"], own["root"], own["bottom"]):
        whole = [{"cid": b64encode(cid)} for cid, _ in target.secret_packet.caveats]
        for start in range(len(whole)):
            world.refused(changed(asked(own["left"], own["mine"]), after=0, links=whole[start:]))
            world.refused(claimed(own["left"], asked(own["left"], own["mine"]), after=2, links=whole[start:]))
            world.plane.handle(claimed(own["left"], asked(own["left"], own["mine"]), after=1, links=whole[start:]))
    alive = {name for name, token in own.items() if world.code(token) == "allowed"}
    # The ends of `bottom` that begin with its own `mine` are what `left` handed on, and may be recalled.
    assert alive == {"root", "left", "right", "mine", "below"} and world.code(sibling) == "allowed"


def test_a_copy_that_was_narrowed_before_it_was_given_reaches_nothing_beside_it() -> None:
    """Two copies of one agent's token, each narrowed by a link that can be guessed, and a child and a text for a server beside
    them: the holder of the one reaches none of them, though all have the same holder by name."""
    world, token = World(), mint()
    mine = token.attenuate(operations=["select"], tables=["sales"])
    beside = {
        "a copy": token.attenuate(operations=["select"], tables=["market.*"]),
        "a child": token.delegate(to="sales-agent"),
        "a text for a server": Token.parse(token.present(audience="db"), clock=clock()),
    }
    below = mine.delegate(to="x")
    for other in beside.values():
        links = [{"cid": b64encode(cid)} for cid, _ in other.secret_packet.caveats[1:]]
        for facts in ({"after": 0, "links": links}, {"after": 1, "links": links}):
            world.refused(claimed(mine, asked(mine, below), **facts) if facts["after"] == 0 else changed(asked(mine, below), **facts))
    assert world.plane.handle(asked(token, beside["a copy"])).select.link == beside["a copy"].link_id
    assert [world.code(other) for other in (mine, below, beside["a child"])] == ["allowed"] * 3


def test_the_reason_is_as_it_was_written() -> None:
    """Whoever carries the request changes neither what is stopped nor why."""
    world, own = World(), family()
    world.refused(changed(asked(own["root"], own["left"]), why="found out"), "did not have the token")


def test_a_recall_stands_as_long_as_what_it_stops_can_live() -> None:
    """Until the end of the token that it was made from, and a day for verifiers with leeway; for good where that has no end."""
    world = World()
    for facts in ({"expires_in": 600}, {"expires_at": None}):
        token = mint(**SALES, **facts)
        entry = world.plane.handle(asked(token, token.delegate(to="a", expires_in=5), expires_in=7))
        assert entry.until == (None if "expires_at" in facts else NOW + 600 + SLACK)


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


def test_a_token_for_handing_on_alone_recalls_what_it_handed_on() -> None:
    world, token = World(), mint(**SALES, delegate_only=True)
    child = token.delegate(to="sales-agent")
    assert world.code(child) == "allowed" and world.code(token) == "delegate_only"
    world.plane.handle(asked(token, child))
    assert world.code(child) == "revoked"


def test_a_forged_token_recalls_nothing() -> None:
    """Another key, another signature, a parent's token cut out of one's own: not accepted, and nothing is published."""
    world, own = World(), family()
    before = world.store.load()
    left = own["left"].secret_packet
    cut = Token.of(Packet(left.identifier, left.caveats[:1], left.signature), own["left"].unverified.root, own["left"].context)
    request = asked(own["root"], own["left"])
    good = own["root"].present(audience="control")
    for text in (
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        cut.present(audience="control"),
        "",
        "cap1_",
        good[:-2],
        good + ".",
    ):
        with pytest.raises(Denied) as caught:
            world.plane.handle(changed(request, token=text))
        assert caught.value.kind == "invalid"
    assert world.store.load() == before


@pytest.mark.parametrize("what", ["other audience", "expired", "revoked", "stale"])
def test_a_token_that_is_not_accepted_recalls_nothing(what: str) -> None:
    """A request for another server, an old one, one of a holder that is revoked itself, and a control plane that has no
    fresh overlay."""
    world, own = World(), family()
    request = asked(own["left"], own["mine"], audience="db" if what == "other audience" else "control")
    if what == "revoked":
        world.operator.revoke(link=own["left"].link_id, why="x")
    if what in ("expired", "stale"):
        world.now.advance(60 if what == "expired" else 61)
    if what == "expired":
        world.operator.renew()
    before = world.store.load()
    with pytest.raises(Denied) as caught:
        world.plane.handle(request)
    expected = {"other audience": "wrong_audience", "stale": "stale_overlay"}.get(what, what)
    assert caught.value.code == expected and world.store.load() == before


def test_a_store_that_fails_is_told() -> None:
    """What was not published is not acknowledged."""
    world, own = World(), family()
    with pytest.raises(StoreError, match="full"):
        ControlPlane(world.verifier("control"), broken(world)).handle(asked(own["root"], own["left"]))
    assert world.code(own["left"]) == "allowed"


# ---- bound tokens --------------------------------------------------------------------------------------------------


def bound() -> tuple[Token, Token]:
    """A token that is bound to a key, and what its holder handed on with it."""
    issuer = Issuer(KEYRING, clock=clock(), random=fixed_random("bound"))
    token = issuer.mint(**WHO, **SALES, key=ORCHESTRATOR.public)
    return token, token.delegate(to="sales-agent", key=AGENT.public, signer=ORCHESTRATOR)


def test_a_bound_token_recalls_with_a_proof() -> None:
    """The proof is for this very request; none, another key's, for another request or for none, one used before: denied."""
    world, (token, handed) = World(), bound()
    bare = asked(token, handed)
    digest = primitives.sha256(bare.encode())

    def proven(key: HolderKey = ORCHESTRATOR, about: bytes | None = digest, audience: str = "control") -> str:
        text = decode_json(bare.encode())["token"]
        return changed(bare, token=with_proof(text, key, audience=audience, request=about, clock=world.now))

    good = proven()
    for expected, request in (
        ("proof_missing", bare),
        ("bad_proof", proven(AGENT)),
        ("bad_proof", proven(about=bytes(32))),
        ("bad_proof", proven(about=primitives.sha256(asked(token, handed, why="other").encode()))),
        ("bad_proof", proven(about=primitives.sha256(good.encode()))),
        ("bad_proof", proven(about=None)),
        ("bad_proof", proven(audience="db")),
        ("malformed", changed(good, token=decode_json(good.encode())["token"][:-2])),
    ):
        before = world.store.load()
        with pytest.raises(Denied) as caught:
            world.plane.handle(request)
        assert caught.value.code == expected and world.store.load() == before
    assert world.plane.handle(good).select.link == handed.link_id
    with pytest.raises(Denied) as caught:
        world.plane.handle(good)
    assert caught.value.code == "replayed"


def test_a_holder_of_a_bound_token_says_its_key() -> None:
    """`signer` makes the proof, for this request and the control plane; another key's is refused there."""
    world, (token, handed) = World(), bound()
    with pytest.raises(Denied) as caught:
        world.plane.handle(asked(token, handed, signer=AGENT, clock=world.now))
    assert caught.value.code == "bad_proof"
    request = asked(token, handed, signer=ORCHESTRATOR)  # by the token's own clock
    text = decode_json(request.encode())["token"]
    assert text.rpartition(".")[2].startswith("cap1p_")
    assert world.plane.handle(request).select.link == handed.link_id


def test_a_bearer_token_takes_no_proof() -> None:
    world, own = World(), family()
    with pytest.raises(Denied) as caught:
        world.plane.handle(asked(own["root"], own["left"], signer=ORCHESTRATOR, clock=world.now))
    assert caught.value.code == "bad_proof"


def test_whoever_stole_the_text_of_a_bound_token_recalls_nothing() -> None:
    """Also not by binding it to a key of its own: the hand-over is not signed."""
    world, (token, _) = World(), bound()
    with pytest.raises(DelegationError):
        token.delegate(to="mallory", key=AGENT.public, signer=AGENT)
    request = asked(token, token.attenuate(tables=["sales"], operations=["select"]), signer=AGENT, clock=world.now)
    with pytest.raises(Denied) as caught:
        world.plane.handle(request)
    assert caught.value.code == "bad_proof"


# ---- requests ------------------------------------------------------------------------------------------------------


def test_a_request_is_canonical_json_with_what_is_needed() -> None:
    """Its parts, and what bounds it: the token's own life and length."""
    own = family()
    stated = decode_json(asked(own["left"], own["bottom"], expires_in=5).encode())
    assert sorted(stated) == ["after", "links", "mac", "token", "v", "why"]
    assert (stated["after"], stated["v"], stated["why"], len(stated["links"])) == (1, 1, "lost", 3)
    presented = Token.parse(stated["token"])
    long = Token.parse(decode_json(asked(own["left"], own["bottom"], expires_in="1m30s").encode())["token"])
    assert long.unverified.expires_at == NOW + 90
    assert presented.unverified.expires_at == NOW + 5 and b'"aud":["control"]' in presented.unverified.bodies[-1]
    assert [b64decode(link["cid"]) for link in stated["links"]] == list(own["bottom"].unverified.bodies[2:])
    for facts, error in (({"audience": ""}, ValueError), ({"audience": "a b"}, ValueError), ({"expires_in": 0}, ValueError), ({"expires_in": "5"}, ValueError)):
        with pytest.raises(error):
            asked(own["left"], own["bottom"], **facts)
    for why, error in (("\ud800", ValueError), ("", ValueError), (" \n", ValueError), ("a\nb", ValueError), ("x\x1b[2J", ValueError), ("x" * (WHY_CHARS + 1), ValueError), (5, TypeError), (None, TypeError)):
        with pytest.raises(error):
            asked(own["left"], own["bottom"], why=why)


def test_a_token_for_another_server_and_a_full_one_cannot_be_presented() -> None:
    """What `present` refuses, `recall` does: an audience that is not held, one link too many."""
    with pytest.raises(WideningError):
        token = mint(audience="db", **SALES)
        asked(token, token.delegate(to="a"))
    full = mint()
    for _ in range(63):
        full = full.attenuate(operations=["select"], tables=["sales"])
    longer = Token.of(
        Packet(full.secret_packet.identifier, (*full.secret_packet.caveats, (b"{}", b"")), bytes(32)), full.unverified.root, full.context
    )
    with pytest.raises(LimitError):
        asked(full, longer)


GOOD = asked(family()["root"], family()["left"])
CID = decode_json(GOOD.encode())["links"][0]["cid"]
GARBAGE: dict[str, Any] = {
    "nothing": "",
    "a word": "x",
    "null": "null",
    "a list": "[]",
    "a number": "5",
    "an empty object": "{}",
    "half": GOOD[:-1],
    "more": GOOD + " ",
    "a line feed": GOOD + "\n",
    "spaces": GOOD.replace(":", ": "),
    "twice": GOOD + GOOD,
    "a surrogate": "\ud800",
    "bytes": GOOD.encode(),
    "None": None,
    "an integer": 5,
    "an object": {},
    "a subclass": type("S", (str,), {})(GOOD),
    "too long": changed(GOOD, why="x" * (MAX_CHARS + 5 - len(GOOD))),
    "deep": "[" * 40000,
    "a key twice": GOOD.replace('"v":1', '"v":1,"v":1'),
    "an escape": GOOD.replace('"lost"', '"l\\u006fst"'),
    "a float": GOOD.replace('"v":1', '"v":1.0'),
    **{f"no {key}": changed(GOOD, **{key: None}) for key in ("after", "links", "mac", "token", "v", "why")},
    **{
        f"{key} {number}, {value!r}"[:40]: changed(GOOD, **{key: value})
        for key, values in {
            "after": ["0", True, [], {}],
            "v": [0, 2, True, "1"],
            "why": ["", " ", "\n\t", 5, [], True, "a\nb", "x\x1b[2J", "x" * (WHY_CHARS + 1)],
            "mac": [5, [], True, "=", "A"],
            "token": [5, [], True],
            "note": ["x"],
            "proof": ["x"],
            "links": [
                {},
                "x",
                [],
                [{"cid": CID}] * (LIMITS.links + 1),
                [5],
                [[]],
                ["x"],
                [True],
                [{}],
                [{"vid": ""}],
                [{"cid": CID, "x": ""}],
                [{"cid": 5}],
                [{"cid": []}],
                [{"cid": {}}],
                [{"cid": True}],
                [{"cid": CID + "="}],
                [{"cid": "A"}],
                [{"cid": "\u00e9"}],
                [{"cid": "A B"}],
                [{"cid": CID, "vid": 5}],
                [{"cid": CID, "vid": "!"}],
                [{"cid": CID, "vid": []}],
                [{"cid": CID}, {}],
            ],
        }.items()
        for number, value in enumerate(values)
    },
}


@pytest.mark.parametrize("name", sorted(GARBAGE))
def test_a_request_that_is_none_is_refused(name: str) -> None:
    """RecallError and nothing else, whatever it is; nothing is published."""
    World().refused(GARBAGE[name], "no request for a revocation")


def test_control_the_request_that_was_spoiled_is_good() -> None:
    root, left = family()["root"], family()["left"]
    assert len(GARBAGE["too long"]) == MAX_CHARS + 1
    assert World().plane.handle(claimed(root, GOOD, why="x" * WHY_CHARS)) and World().plane.handle(asked(root, left, why="\u00e9 x"))
    World().refused(changed(GOOD, mac=""), "did not have the token")
    assert World().plane.handle(GOOD).select.link == family()["left"].link_id
    with pytest.raises(RecallError):
        World().plane.handle(claimed(root, GOOD, links=[{"cid": CID, "vid": ""}]))
    assert len(World().plane.handle(claimed(root, GOOD, links=[{"cid": CID}] * LIMITS.links)).id) == 11


def test_a_token_that_is_none_is_a_denial() -> None:
    """The request can be read, the token in it cannot."""
    for text in ("", "x", "cap1_", "cap1_AAAA", "\u00e9"):
        with pytest.raises(Denied) as caught:
            World().plane.handle(changed(GOOD, token=text))
        assert caught.value.code == "malformed"
        with pytest.raises(TokenFormatError):
            Token.parse(text)


# ---- secrets -------------------------------------------------------------------------------------------------------


def failures() -> Iterator[tuple[str, Callable[[World], Any]]]:
    yield "no request", lambda world: world.plane.handle(changed(GOOD, v=2))
    yield "no link", lambda world: world.plane.handle(changed(GOOD, links=[{"cid": "="}]))
    yield "not at that link", lambda world: world.plane.handle(changed(GOOD, after=9))
    yield "another audience", lambda world: world.plane.handle(asked(family()["root"], family()["left"], audience="db"))
    yield "a proof too much", lambda world: world.plane.handle(asked(family()["root"], family()["left"], signer=AGENT, clock=world.now))
    yield "a signer that is out of reach", lambda world: asked(family()["root"], family()["left"], signer=Down())
    yield "not made from it", lambda world: asked(family()["left"], family()["root"])


@pytest.mark.parametrize("name", [name for name, _ in failures()])
def test_no_message_shows_a_token(name: str) -> None:
    """What a failure says, and its traceback as text: no piece of the token, and none of its tags."""
    with pytest.raises((RecallError, Denied, ValueError, StoreError)) as caught:
        dict(failures())[name](World())
    shown = f"{caught.value!r} {caught.value} {''.join(traceback.format_exception(caught.value))}"
    assert not [secret for secret in secrets() if secret in shown]


@pytest.mark.parametrize("name", [*(name for name, _ in failures()), "a store that fails"])
def test_no_frame_holds_a_token(name: str) -> None:
    """No local of any frame of captoken that a failure passed shows the text, or a tag."""
    world = World()
    calls = {
        **dict(failures()),
        "a store that fails": lambda world: ControlPlane(world.verifier("control"), broken(world)).handle(GOOD),
    }
    with pytest.raises((RecallError, Denied, ValueError, StoreError)) as caught:
        calls[name](world)
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    passed = [frame for frame in frames if is_library_code(frame.f_code)]
    shown = repr([value for frame in passed for value in frame.f_locals.values()])
    assert passed and not [secret for secret in secrets() if secret in shown]


class Down:
    """A key service that is out of reach."""

    public = AGENT.public

    def sign(self, message: bytes) -> bytes:
        raise StoreError("out of reach")


def broken(world: World) -> Operator:
    """An operator whose store takes nothing."""

    class Broken(MemorySnapshots):
        def publish(self, snapshot: bytes, after: bytes | None) -> bool:
            raise StoreError("the disk is full")

    return Operator(KEY, Broken(), by="x", clock=world.now)


def secrets() -> list[str]:
    """Pieces of the token in the request, and of the tags that it is made of, as they could be seen."""
    text = decode_json(GOOD.encode())["token"]
    tags = [family()[name].secret_packet.signature for name in ("root", "left")]
    return [
        text[-40:],
        text[-60:-20],
        *[spelled for tag in tags for spelled in (tag.hex(), repr(tag)[2:30], b64encode(tag)[:30])],
    ]


def test_nothing_that_stays_shows_a_token() -> None:
    """The control plane, the entry and the snapshot that everybody reads."""
    world = World()
    entry = world.plane.handle(GOOD)
    shown = f"{world.plane!r} {vars(world.plane)!r} {entry!r} {world.store.load()!r} {world.open()!r}"
    assert not [secret for secret in secrets() if secret in shown]


# --- of a set of tokens (37.12) --------------------------------------------------------------------------------------------


class Servers(World):
    """Two servers that have no keys but their own, and the plane likewise."""

    def __init__(self) -> None:
        super().__init__()
        made = {"sales-db": SALES, "mail": {"tools": {"send": {}}, "expires_in": 7 * 86_400}}
        self.set = Issuer(KEYRING, clock=self.now).mint_set(**WHO, servers=made, control="control")
        self.names = ("sales-db", "mail")
        self.plane = ControlPlane(self.own("control"), self.operator)

    def own(self, name: str) -> Verifier:
        return Verifier(KEYRING.for_audience(name), name, overlay=self.open, clock=self.now, replays=MemoryReplayStore(floor=0))

    def codes(self, held: TokenSet) -> set[str]:
        asked = {"sales-db": SELECT, "mail": tool("send")}
        return {self.own(name).check(held.present(audience=name), access).code for name, access in asked.items()}


def test_a_hand_over_of_a_set_is_recalled_at_every_server() -> None:
    """Also where it has not called yet; whoever is beside works on, and so does who recalled."""
    world = Servers()
    child = world.set.delegate(to="clerk")
    beside, below = world.set.delegate(to="clerk"), child.attenuate(expires_in=60).delegate(to="helper")
    entry = world.plane.handle(recall(world.set, child, audience="control", why="lost"))
    assert entry.select.hop == decode_json(child.token("mail").unverified.bodies[-1])["n"] and entry.select.link is None
    assert world.codes(child) == world.codes(below) == {"revoked"}
    assert world.codes(beside) == world.codes(world.set) == {"allowed"}
    assert world.plane.handle(recall(world.set, child, audience="control", why="again")) == entry
    # It stands as long as anything of the set can live: the token for mail does a week.
    assert entry.until == NOW + 7 * 86_400 + SLACK


def test_a_holder_of_a_set_stops_no_more_than_it_handed_on_whatever_n_it_writes() -> None:
    """It knows the `n` of all above, and perhaps of those beside."""
    world = Servers()
    mine, beside = world.set.delegate(to="clerk"), world.set.delegate(to="mallory")
    theirs = mine.delegate(to="helper")
    control = beside.token("control")
    for victim in (mine, theirs):
        n = decode_json(victim.token("control").unverified.bodies[-1])["n"]
        forged = control.with_raw_link(encode_json({"from": "mallory", "n": n, "to": "x"}))
        world.plane.handle(recall(control, forged, audience="control", why="mine"))
        assert world.codes(victim) == world.codes(mine) == {"allowed"}
    world.plane.handle(recall(mine, theirs, audience="control", why="lost"))
    world.plane.handle(recall(control, forged, audience="control", why="mine, again"))
    assert world.codes(theirs) == {"revoked"} and world.codes(beside) == {"allowed"}


def test_a_hop_of_another_tree_is_another_hop() -> None:
    world, other = Servers(), Servers()
    child = world.set.delegate(to="clerk")
    n = decode_json(child.token("control").unverified.bodies[-1])["n"]
    world.operator.revoke(token=other.set.token("mail").token_id, hop=n, why="another tree")
    assert world.codes(child) == {"allowed"}
    world.operator.revoke(token=child.token("mail").token_id, hop=n, why="this one")
    assert world.codes(child) == {"revoked"} and world.codes(world.set) == {"allowed"}
    with pytest.raises(ValueError, match="name its token, too"):
        world.operator.revoke(hop=n, why="which?")
    with pytest.raises(ValueError, match="11 characters"):
        world.operator.revoke(token=child.token("mail").token_id, hop="x", why="what?")


def test_what_is_no_hand_over_of_a_set_is_not_recalled() -> None:
    world = Servers()
    control = world.set.token("control")
    third = control.require(PARTY.public, need={"role": "boss"})
    for links in ({"nbf": NOW}, {"n": 5, "nbf": NOW}):
        with pytest.raises(RecallError, match="none of these links has an n"):
            world.plane.handle(recall(control, control.with_raw_link(encode_json(links)), audience="control", why="lost"))
    for made in (third, control.with_raw_link(b"{"), control.with_raw_link(b"x.y")):
        with pytest.raises(RecallError, match="none of these links has an n"):
            world.plane.handle(recall(control, made, audience="control", why="lost"))
    with pytest.raises(ValueError, match="no token for 'elsewhere'"):
        recall(world.set, world.set.delegate(to="clerk"), audience="elsewhere", why="lost")


def test_the_token_of_a_server_recalls_nothing() -> None:
    """It is for its own server; a server that mints itself one with the id of the set has not the keys of the plane."""
    world = Servers()
    held = world.set.token("mail")
    request = recall(world.set, world.set.delegate(to="clerk"), audience="control", why="lost")
    stated = decode_json(request.encode())
    own = Issuer(KEYRING.for_audience("mail"), clock=world.now).mint(**WHO, tools={})
    for token in (held, own):
        sent = token.attenuate(expires_in=60).serialize()
        with pytest.raises(Denied, match="unknown_key"):
            world.plane.handle(encode_json({**stated, "token": sent}).decode())
