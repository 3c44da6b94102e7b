"""Recall: a holder stops what it handed on, and nothing that it did not."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from captoken import Denied, Issuer, Token, TokenFormatError, TokenSet, Verifier, WideningError
from captoken._format import primitives
from captoken._format.encoding import LIMITS, b64decode, b64encode, decode_json, encode_json
from captoken._format.parts import Packet
from captoken.control import ControlPlane, Operator, Overlay, Selector, recall
from captoken.control._recall import MAX_CHARS, SLACK, WHY_CHARS
from captoken.discharge import Allow, Discharger
from captoken.errors import DelegationError, LimitError, RecallError, StoreError
from captoken.keys import DischargerKey, HolderKey, OperatorKey
from captoken.proof import recall_mac, with_proof
from captoken.stores.memory import MemoryReplayStore, MemorySnapshots
from captoken.testing import fixed_random
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, data, mint, tool
from tests.library_code import is_library_code

KEY = OperatorKey.from_bytes(bytes(range(3, 35)))
PARTY = DischargerKey.from_bytes(bytes(range(6, 38)))
ORCHESTRATOR, AGENT = HolderKey.from_bytes(bytes(range(7, 39))), HolderKey.from_bytes(bytes(range(8, 40)))
SELECT = data("sales")


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
            world.refused(changed(request, after=after), "did not hold the token")
            for other in own.values():  # also with what whoever is above could say, handed down
                if after < since:
                    world.refused(claimed(other, request, after=after), "did not hold the token")
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
    world.refused(changed(asked(own["root"], own["left"]), why="found out"), "did not hold the token")


def test_a_recall_stands_as_long_as_what_it_stops_can_live() -> None:
    """Until the end of the token that it was made from, and a day for verifiers with leeway; for good where that has no end."""
    world = World()
    for facts in ({"expires_in": 600}, {"expires_at": None}):
        token = mint(**SALES, **facts)
        entry = world.plane.handle(asked(token, token.delegate(to="a", expires_in=5), expires_in=7))
        assert entry.until == (None if "expires_at" in facts else NOW + 600 + SLACK)


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
    World().refused(GARBAGE[name], "not a request for a revocation")


def test_control_the_request_that_was_spoiled_is_good() -> None:
    root, left = family()["root"], family()["left"]
    assert len(GARBAGE["too long"]) == MAX_CHARS + 1
    assert World().plane.handle(claimed(root, GOOD, why="x" * WHY_CHARS)) and World().plane.handle(asked(root, left, why="\u00e9 x"))
    World().refused(changed(GOOD, mac=""), "did not hold the token")
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
