"""What a verifier remembers makes its answers sooner, and never others (spec 24.22)."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import pytest
from msgspec import Struct

from captoken import Access, Caller, Decision, Denied, Issuer, Keyring, Token, TokenFormatError, Verifier
from captoken._format import chain
from captoken._format.encoding import b64decode
from captoken._language import links
from captoken._verification import memory, plan
from captoken._verification.memory import Recent
from captoken.caveats import Caveat, Vocabulary
from captoken.control import Operator, Overlay
from captoken.keys import HolderKey, OperatorKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, data, mint, prove, tool, verifier

ASK = data("sales")


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry for each chain that is verified."""
    seen: list[int] = []
    fold = chain.fold

    def counted(*given: Any) -> Any:
        seen.append(1)
        return fold(*given)

    monkeypatch.setattr(plan.chain, "fold", counted)
    yield seen


def thrice(one: Verifier, text: str, **facts: Any) -> list[str]:
    """The codes of three answers in a row: the third is of a text that is remembered, if it may be."""
    return [one.check(text, ASK, **facts).code for _ in range(3)]


# --- sooner ----------------------------------------------------------------------------------------------------------


def test_a_text_that_comes_again_is_not_verified_again(folds: list[int]) -> None:
    """Kept when it comes a second time, since most texts come once; found from the third on."""
    one, text = verifier(), mint().delegate(to="b").serialize()
    assert thrice(one, text) == ["allowed"] * 3 and len(folds) == 2
    assert thrice(one, text) == ["allowed"] * 3 and len(folds) == 2


def test_a_link_that_comes_again_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another token too: one issuer's words, and a parent's, are in all that they hand on."""
    one, parent = verifier(), mint()
    children = [parent.delegate(to=name).serialize() for name in ("b", "c", "d", "e")]
    read: list[bytes] = []
    inner = links.read_link

    def noted(cid: bytes, vocabulary: Vocabulary) -> Any:
        read.append(cid)
        return inner(cid, vocabulary)

    monkeypatch.setattr(links, "read_link", noted)
    assert all(one.check(text, ASK) for text in children)
    assert [cid for cid in read if b"sales" in cid] == [parent.unverified.bodies[0]] * 2
    assert len(read) == 6, "each hand-over has a link of its own"


def test_nothing_is_remembered_where_nothing_should_be(folds: list[int]) -> None:
    one, text = verifier(remember=0), mint().serialize()
    assert thrice(one, text) == ["allowed"] * 3 and len(folds) == 3
    assert one.memory.links is None and one.memory.texts.get(b"") is None
    for wrong in (-1, True, "4 MiB", None, 1.5):
        with pytest.raises(ValueError, match="remember"):
            verifier(remember=wrong)


# --- never otherwise -------------------------------------------------------------------------------------------------


def test_a_failure_is_never_remembered(folds: list[int]) -> None:
    """It is found out each time. And what is denied for its time is no failure of the chain."""
    one, text = verifier(), mint().serialize()
    forged = text[:-2] + ("AA" if text[-2:] != "AA" else "BA")
    assert {*thrice(one, forged)} <= {"bad_signature", "malformed"} and len(folds) in (0, 3)
    assert not one.memory.texts._kept and not one.memory.links._kept
    other = Issuer(Keyring.from_keys({"k1": bytes(32)[:-1] + b"x"}, current="k1"), clock=clock()).mint(**WHO, **SALES).serialize()
    assert thrice(one, other) == ["bad_signature"] * 3 and not one.memory.texts._kept


def test_a_key_that_is_retired_or_replaced_works_no_longer_at_once() -> None:
    """It is looked up each time, and compared with the one that the chain held under."""
    ring = [KEYRING]
    one, text = Verifier(lambda: ring[0], clock=clock()), mint().serialize()
    assert thrice(one, text) == ["allowed"] * 3
    for other, code in (
        (Keyring.from_keys({"k2": bytes(range(2, 34))}, current="k2"), "unknown_key"),
        (Keyring.from_keys({"k1": bytes(range(2, 34))}, current="k1"), "bad_signature"),
    ):
        ring[0] = other
        assert thrice(one, text) == [code] * 3
        ring[0] = KEYRING
        assert thrice(one, text) == ["allowed"] * 3


def test_what_the_keyring_raises_passes_through_at_a_hit_too() -> None:
    ring: list[Any] = [lambda: KEYRING]
    one, text = Verifier(lambda: ring[0](), clock=clock()), mint().serialize()
    assert thrice(one, text) == ["allowed"] * 3
    ring[0] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        one.check(text, ASK)


def test_time_budget_caller_and_overlay_are_asked_anew() -> None:
    moving, snapshots, key = clock(), MemorySnapshots(), OperatorKey.generate()
    operator = Operator(key, snapshots, by="ops@example", clock=moving)
    operator.renew()

    def newest() -> Overlay | None:
        return Overlay.open(snapshots.load() or b"", [key.public])

    one = Verifier(KEYRING, clock=moving, ledger=MemoryLedger(floor=0, shared=True), overlay=newest)
    counted = mint(**SALES, uses=5).serialize()
    assert [one.check(counted, ASK).code for _ in range(6)] == ["allowed"] * 5 + ["budget_exhausted"]

    short = mint(**SALES, expires_in=60)
    text = short.serialize()
    assert thrice(one, text) == ["allowed"] * 3
    assert one.check(text, data("hr")).code == "table"
    assert thrice(one, text, caller=Caller(agent="else")) == ["caller"] * 3
    operator.revoke(token=short.token_id, why="lost")
    assert thrice(one, text) == ["revoked"] * 3
    moving.advance(61)
    operator.renew()
    other = Issuer(KEYRING, clock=clock()).mint(**WHO, **SALES, expires_in=60).serialize()
    assert thrice(one, other) == ["expired"] * 3


def test_a_grant_of_a_remembered_text_is_a_new_one() -> None:
    """Its age starts at the hit: the key was looked up then."""
    moving = clock()
    one, text = Verifier(KEYRING, clock=moving, max_age=10), mint().serialize()
    for _ in range(3):
        grant = one.authorize(text, ASK)
        moving.advance(8)
        assert grant.check(ASK)
        moving.advance(8)
        assert grant.check(ASK).code == "stale_grant"


def test_a_proof_is_judged_and_used_with_each_text() -> None:
    """The text is remembered without it."""
    key = HolderKey.generate()
    one = Verifier(KEYRING, "db", clock=clock(), replays=MemoryReplayStore(floor=0))
    text = mint(**SALES, audience="db", key=key.public).serialize()
    proofs = [prove(text, key, request=ASK, audience="db", clock=clock()) for _ in range(5)]

    def ask(tail: str) -> str:
        return one.check(text + tail, ASK).code

    assert [ask(f".{proof}") for proof in proofs] == ["allowed"] * 5
    assert [ask(f".{proof}") for proof in proofs] == ["replayed"] * 5
    assert ask("") == "proof_missing"
    assert ask(f".{proofs[0][:-1]}") == "malformed" == ask(f".{proofs[0]}.{proofs[1]}") == ask(".") == ask(".cap1p_")
    other = prove(text, HolderKey.generate(), request=ASK, audience="db", clock=clock())
    assert ask(f".{other}") == "bad_proof"
    bearer = mint().serialize()
    plain = verifier()
    assert thrice(plain, bearer) == ["allowed"] * 3
    assert thrice(plain, f"{bearer}.{proofs[0]}") == ["bad_proof"] * 3
    assert thrice(plain, bearer) == ["allowed"] * 3


class Growing(Caveat, frozen=True):
    """A caveat of an embedder's whose value changes when it is asked, as it should not."""

    key = "acme:growing"

    def prohibits(self, access: Access, situation: Any) -> str | None:
        self.value.append(1)
        return "asked twice" if len(self.value) > 1 else None


def test_what_an_embedders_caveat_holds_is_not_remembered(folds: list[int]) -> None:
    """Neither in a link nor in a text: each verification begins with what was signed."""
    one = verifier(vocabulary=Vocabulary(Growing))
    plain = mint(**SALES).serialize()
    text = Token.parse(plain, vocabulary=Vocabulary(Growing)).attenuate(**{"acme:growing": []}).serialize()
    assert [one.check(text, ASK).code for _ in range(4)] == ["allowed"] * 4 and len(folds) == 4
    assert all(b"acme" not in body for body in one.memory.links._kept)


# --- bounded ---------------------------------------------------------------------------------------------------------


def test_texts_are_bounded_by_their_length() -> None:
    one = verifier(remember=4_000)
    texts = [mint().delegate(to=f"b{n}").serialize() for n in range(40)]
    for text in texts * 3:
        assert one.check(text, ASK)
    kept = one.memory.texts
    assert kept._weight == sum(value.characters for value in kept._kept.values()) <= 4_000
    assert 3 < len(kept._kept) < 12


def test_a_long_text_is_verified_each_time(folds: list[int]) -> None:
    one = verifier()
    token = mint()
    while len(token.serialize()) < 7_000:
        token = token.attenuate(tables=["sales", *(f"market.{n}x{'y' * 50}" for n in range(5))])
    text = token.serialize()
    assert len(text) <= one.memory.longest == 8_192
    one.memory.longest = len(text) - 1
    assert thrice(one, text) == ["allowed"] * 3 and len(folds) == 3
    one.memory.longest = len(text)
    assert thrice(one, text) == ["allowed"] * 3 and len(folds) == 5


def test_links_and_marks_are_bounded() -> None:
    """By the bytes of the links; the oldest go first."""
    kept: Recent[bytes] = Recent(1_000, lambda key, _: len(key))
    for n in range(100):
        kept.keep(b"%050d" % n, b"")
        kept.keep(b"%050d" % n, b"x")  # in the place of the other
    assert kept._weight == 50 * len(kept._kept) <= 1_000
    assert kept.get(b"%050d" % 99) == b"x" and kept.get(b"%050d" % 0) is None
    kept.keep(b"y" * 2_000, b"")
    assert kept._weight == 0 and not kept._kept, "what is larger than all of it is not kept"
    for mark in range(memory.MARKS * 2):
        kept.came_before(mark)
    assert len(kept._marks) <= memory.MARKS and kept.came_before(memory.MARKS * 2 - 1)


def test_what_has_expired_is_dropped() -> None:
    """At the first decision after it, whatever that is about; `leeway` counts."""
    moving = clock()
    one = Verifier(KEYRING, clock=moving, leeway=5)
    lasting = mint(**SALES, expires_at=NOW + 10_000).serialize()
    short = mint(**SALES, expires_in=60).serialize()
    for text in (short, lasting, short, lasting):
        assert one.check(text, ASK)
    moving.advance(64)
    assert one.check(lasting, ASK) and len(one.memory.texts._kept) == 2
    moving.advance(1)
    assert one.check(lasting, ASK) and len(one.memory.texts._kept) == 1
    assert one.memory.texts.first_end == NOW + 10_000


def test_no_text_is_kept() -> None:
    one, text = verifier(), mint().serialize()
    thrice(one, text)
    (key,) = one.memory.texts._kept
    assert type(key) is bytes and len(key) == 32
    assert {type(mark) for mark in one.memory.texts._marks} == {int}

    # All values that can be reached from what is remembered: not what methods belong to.
    seen: dict[int, Any] = {}
    found: list[Any] = [one.memory.texts._kept, one.memory.links._kept, one.memory.states._kept]
    while found:
        value = found.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, Struct):
            found += [getattr(value, name) for name in value.__struct_fields__]
        elif isinstance(value, (dict, MappingProxyType)):
            found += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, frozenset)):
            found += value
    strings = [value for value in seen.values() if isinstance(value, (str, bytes))]
    raw = b64decode(text.removeprefix("cap1_"))
    assert len(strings) > 10 and text not in strings and raw not in strings


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_begins_with_nothing() -> None:
    """Also where another thread of its parent had the lock at that moment."""
    one, text = verifier(), mint().serialize()
    thrice(one, text)
    with one.memory.texts._lock, one.memory.links._lock:
        child = os.fork()
        if child == 0:
            empty = not one.memory.texts._kept and not one.memory.links._kept
            answers = thrice(one, text) if empty else []
            os._exit(0 if answers == ["allowed"] * 3 and len(one.memory.texts._kept) == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert len(one.memory.texts._kept) == 1


# --- altogether ------------------------------------------------------------------------------------------------------


def tokens(chance: random.Random) -> Token:
    """Some token: of several lengths, keys, ends, budgets and audiences; some of which are alike."""
    caveats: dict[str, Any] = {**SALES, "expires_in": chance.choice((20, 60, 3600))}
    if chance.random() < 0.3:
        caveats["uses"] = 3
    if chance.random() < 0.3:
        caveats["tools"] = {"refund": {"cents": {"min": 0, "max": 500}}}
    key = chance.choice(("k1", "k2"))
    token = Issuer(Keyring.from_keys(KEYS, current=key), clock=clock()).mint(**WHO, **caveats)
    for hop in range(chance.randrange(4)):
        token = chance.choice(
            (
                lambda token, hop: token.delegate(to=f"agent-{hop}"),
                lambda token, hop: token.attenuate(tables=["sales"]),
                lambda token, hop: token.attenuate(operations=["select", "insert"][: 1 + hop % 2], clamp=True),
                lambda token, hop: token.attenuate(audience=["db"], clamp=True),
                lambda token, hop: token.attenuate(where={"region": {"in": ["eu"]}}),
            )
        )(token, hop)
    return token


KEYS = {"k1": bytes(range(1, 33)), "k2": bytes(range(2, 34))}


def stated(decision: Decision) -> dict[str, Any]:
    """What a decision says but its id, which each denial draws anew."""
    return {**decision.as_dict(), "id": None}


@pytest.mark.parametrize("seed", range(6))
def test_who_remembers_answers_as_who_does_not(seed: int) -> None:
    """Side by side on one stream of questions, while time goes on, keys come and go, and texts are damaged."""
    chance, moving = random.Random(seed), clock()
    ring = [Keyring.from_keys(KEYS, current="k1")]
    both = [
        Verifier(lambda: ring[0], ("db", "api"), clock=moving, allow_unaddressed=True, ledger=MemoryLedger(floor=0, shared=True), remember=kept)
        for kept in (20_000, 0)
    ]
    made = [tokens(chance).serialize() for _ in range(30)]
    asks = [ASK, data("hr"), data("sales", "insert"), tool("refund", cents=5), tool("refund", cents=501), data("market.eu")]
    hits = 0
    for _ in range(1_500):
        text = chance.choice(made)
        if chance.random() < 0.1:
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice("AB.-_+") + text[at + 1 :]
        if chance.random() < 0.03:
            moving.advance(chance.randrange(8))
        if chance.random() < 0.03:
            there = dict(chance.sample(sorted(KEYS.items()), chance.randint(1, 2)))
            ring[0] = Keyring.from_keys(there, current=next(iter(there)))
        ask = chance.choice(asks)
        hits += len(both[0].memory.texts._kept)
        one, other = (face.check(text, ask) for face in both)
        assert (stated(one), str(one)) == (stated(other), str(other))
        if one:
            one, other = (decision.grant.check(ask) for decision in (one, other))
            assert stated(one) == stated(other)
    assert hits


def test_threads_share_a_memory(folds: list[int]) -> None:
    """What is kept and what it weighs agree afterwards, and every answer is right."""
    one = verifier(remember=6_000)
    good = [mint().delegate(to=f"b{n}").serialize() for n in range(30)]
    bad = [f"{text[:-3]}AAA" for text in good]

    def run(seed: int) -> int:
        order = [(text, True) for text in good] + [(text, False) for text in bad]
        random.Random(seed).shuffle(order)
        return sum(bool(one.check(text, ASK)) is not right for text, right in order * 5)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(run, range(16))) == 0
    kept = one.memory.texts
    assert kept._weight == sum(value.characters for value in kept._kept.values()) <= 6_000


def test_what_is_kept_while_others_are_dropped_is_no_error() -> None:
    """Wherever another thread comes in: here at each object that is made, as the collector does."""
    kept: Recent[int] = Recent(10**6, lambda _, __: 1)
    for number in range(2000):
        kept.keep(str(number).encode(), number)

    def meanwhile(*_: Any) -> None:
        kept.keep(str(len(kept._kept)).encode(), -1)

    usual = gc.get_threshold()
    gc.callbacks.append(meanwhile)
    gc.set_threshold(1)
    try:
        left = kept.drop(lambda value: 0 <= value < 1000)
    finally:
        gc.set_threshold(*usual)
        gc.callbacks.remove(meanwhile)
    assert {*range(1000, 2000)} <= set(left) and kept.get(b"999") is None and kept.get(b"1000") == 1000 and kept.get(b"2000") == -1


def held_of(kept: Recent[Any], *keys: bytes) -> list[bytes]:
    return [key for key in keys if kept.get(key) is not None]


def test_a_value_that_is_kept_twice_weighs_once() -> None:
    """Two threads may find out the same: else each such time would leave less room, for good."""
    kept: Recent[bool] = Recent(3, lambda _, __: 1)
    for _ in range(5):
        kept.keep(b"a", True)
    kept.keep(b"b", True)
    kept.keep(b"c", True)
    assert held_of(kept, b"a", b"b", b"c") == [b"a", b"b", b"c"]


def test_what_is_kept_while_another_is_replaced_weighs_once() -> None:
    """As a thread does that comes between the two halves of a replacement."""
    weighed: list[int] = []

    def weigh(key: bytes, value: int) -> int:
        weighed.append(value)
        if weighed.count(1) == 2 and value == 1:  # it goes, and the second is not yet there
            kept.keep(key, 3)
        return 1

    kept: Recent[int] = Recent(3, weigh)
    kept.keep(b"a", 1)
    kept.keep(b"a", 2)
    assert weighed.count(3) >= 1 and kept.get(b"a") == 2
    kept.keep(b"b", 4)
    kept.keep(b"c", 5)
    assert held_of(kept, b"a", b"b", b"c") == [b"a", b"b", b"c"]
    kept.keep(b"d", 6)
    assert len(held_of(kept, b"a", b"b", b"c", b"d")) <= 3


def test_nothing_that_a_grant_hands_out_changes_a_link() -> None:
    """Whoever changes what it was shown changes nothing for those who share the link."""
    one = verifier(ledger=MemoryLedger(floor=0, shared=True))
    caveats: dict[str, Any] = {
        **SALES, "columns": {"staff": ["id"]}, "where": {"region": {"in": ["eu"]}}, "budget": {"eur": 5}, "uses": 9,
        "tools": {"refund": {"cents": {"max": 5, "min": 0}}},
    }  # fmt: skip
    text = mint(**caveats).attenuate(audience=["api", "db"]).serialize()
    one = Verifier(KEYRING, "db", clock=clock(), ledger=MemoryLedger(floor=0, shared=True))
    for _ in range(3):
        grant = one.authenticate(text)
        before = grant.capability.json()
        shown = grant.capability.json()
        shown["aud"].append("else")
        shown["budget"]["eur"] = 10**6
        shown["where"]["region"]["in"].append("us")
        shown["tools"]["refund"].clear()
        assert grant.capability.json() == before
        for view in (grant.capability.budget, grant.capability.where, grant.capability.data, grant.capability.tool):
            with pytest.raises(TypeError):
                view["x"] = 1  # type: ignore[index]
    for _ in range(2):
        grant = one.authenticate(text)
        assert grant.check(Access(table="sales", operation="select", attributes={"region": "us"}, cost={"eur": 1})).code == "attribute"
        with pytest.raises(Denied):
            grant.authorize(Access(table="sales", operation="select", attributes={"region": "eu"}, cost={"eur": 6}))


# --- what is left behind ---------------------------------------------------------------------------------------------


def refused(call: Any) -> None:
    """Without `pytest.raises`, which leaves cycles of its own."""
    try:
        call()
    except (Denied, TokenFormatError):
        return
    raise AssertionError("it was not refused")


CALLS: dict[str, Any] = {
    "authorize": lambda one, text: one.authorize(text, ASK),
    "denied": lambda one, text: one.check(text, data("hr")),
    "raised": lambda one, text: refused(lambda: one.authorize(text, data("hr"))),
    "asked again": lambda one, text: one.authorize(text, ASK).check(ASK),
    "explained": lambda one, text: str(one.explain(text, data("hr"))),
    "forged": lambda one, text: one.check(text[:-4] + "AAAA", ASK),
    "no token": lambda one, text: refused(lambda: Token.parse("cap1_!")),
    "narrowed": lambda one, text: Token.parse(text).attenuate(tables=["sales"]),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_leaves_no_cycle(call: str) -> None:
    """What it made is gone when nobody refers to it: the collector has nothing to find."""
    one, text = verifier(), mint().serialize()
    for _ in range(3):
        CALLS[call](one, text)
    while gc.collect():  # what tests before this one left can leave more, when it ends
        pass
    gc.disable()
    try:
        for _ in range(20):
            CALLS[call](one, text)
        assert gc.collect() == 0
    finally:
        gc.enable()
