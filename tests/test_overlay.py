"""The overlay: what selects a token, what an entry does to it, who may say so, and what a server does without one."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import product
from time import monotonic
from typing import Any

import msgspec
import pytest

from captoken import Access, Caller, Decision, Denied, Issuer, Keyring, Token
from captoken._format import primitives
from captoken._format.encoding import MAX_INTEGER, b64decode, b64encode, encode_json
from captoken._format.root import RootRecord
from captoken._language import overlay as module
from captoken._language.entries import SelectorFacts
from captoken._language.overlay import LIFE, snapshot
from captoken.adapters.sqlite import guarded
from captoken.caveats import Caveat, Vocabulary
from captoken.control import Entry, Feed, Operator, Overlay, Selector
from captoken.errors import KeyringError, OverlayError, StoreError
from captoken.keys import HolderKey, OperatorKey
from captoken.stores.memory import MemoryLedger, MemorySnapshots
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, data, mint, named, tool, verifier

KEY = OperatorKey.from_bytes(bytes(range(3, 35)))
OTHER = OperatorKey.from_bytes(bytes(range(4, 36)))
SELECT, INSERT = data("sales"), data("sales", "insert")
TREE = b64encode(b"0123456789abcdef")
LINK = b64encode(b"fedcba9876543210")


class World:
    """An operator with a store, and a server that reads the store at every check."""

    def __init__(self, **facts: Any) -> None:
        self.now = clock()
        self.store = MemorySnapshots()
        self.operator = Operator(KEY, self.store, by="ops@example", clock=self.now)
        self.operator.renew()
        self.verifier = verifier(overlay=self.open, clock=self.now, **facts)

    def open(self) -> Overlay | None:
        stored = self.store.load()
        return None if stored is None else Overlay.open(stored, [KEY.public])

    def check(self, token: Token, access: Access = SELECT, **facts: Any) -> Decision:
        return self.verifier.check(token.serialize(), access, **facts)

    def code(self, token: Token, access: Access = SELECT) -> str:
        return self.check(token, access).code


def entry(select: Selector, name: str = "e1", **facts: Any) -> Entry:
    return Entry(**{"at": NOW, "by": "ops", "id": name, "select": select, "why": "lost", **facts})


def stated(*entries: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """What a snapshot says, as JSON has it."""
    return {"entries": list(entries), "exp": NOW + LIFE, "iat": NOW, "seq": 1, "v": 1, **facts}


def line(**facts: Any) -> dict[str, Any]:
    """An entry as JSON has it, that revokes a tree unless told otherwise."""
    return {"at": NOW, "by": "ops", "id": "e1", "select": {"token": TREE}, "why": "lost", **facts}


def signed(body: bytes, key: OperatorKey = KEY) -> bytes:
    """A snapshot with whatever body, that the operator signed."""
    return body + b"." + b64encode(key.sign(primitives.label("overlay") + primitives.sha256(body))).encode()


def made(*entries: Entry, seq: int = 1, issued_at: int = NOW, key: OperatorKey = KEY, **facts: Any) -> bytes:
    return snapshot(key, entries, seq=seq, issued_at=issued_at, **facts)


def opened(*entries: Entry, **facts: Any) -> Overlay:
    return Overlay.open(made(*entries, **facts), [KEY.public])


# ---- keys ----------------------------------------------------------------------------------------------------------


def test_an_operator_s_key_has_a_purpose_of_its_own(tmp_path: Any) -> None:
    """Saved and loaded as itself, refused as a holder's; and its secret is in no rendering."""
    KEY.save(tmp_path / "key")
    assert OperatorKey.load(tmp_path / "key").public == KEY.public
    with pytest.raises(KeyringError, match="holder"):
        HolderKey.load(tmp_path / "key")
    for shown in (repr(KEY), str(KEY), repr(Operator(KEY, MemorySnapshots(), by="ops"))):
        assert bytes(range(3, 35)).hex() not in shown and b64encode(bytes(range(3, 35)))[:20] not in shown
    assert repr(Operator(KEY, MemorySnapshots(), by="ops")) == "<Operator ops>"


# ---- selectors -----------------------------------------------------------------------------------------------------

FACTS = SelectorFacts(
    RootRecord(subject="user:jane", agent="orchestrator", task="task-123", token_id=TREE, issued_at=NOW, key_id="k1", version=1),
    [b"fedcba9876543210", b"0000000000000000"], "task-123/a", ("orchestrator", "sales-agent"),
)  # fmt: skip
# For each thing that selects: statements that hold of FACTS, and that do not.
HOLD: dict[str, list[Any]] = {
    "agent": ["sales-agent", "orchestrator"],
    "issued_before": [NOW + 1, MAX_INTEGER],
    "kid": ["k1"],
    "link": [LINK, b64encode(b"0" * 16)],
    "subject": ["user:jane"],
    "task": ["task-123/a", "task-123"],
    "token": [TREE],
}
FAIL: dict[str, list[Any]] = {
    "agent": ["sales", "Sales-agent", "other"],
    "issued_before": [NOW, NOW - 1, 0, -1],
    "kid": ["k2", "k", "K1"],
    "link": [TREE, b64encode(b"fedcba9876543211")],
    "subject": ["user:john", "user:jan"],
    "task": ["task-123/a/b", "task-123/b", "task-12", "task-123/aa", "task"],
    "token": [LINK, b64encode(b"0123456789abcdeg")],
}


@pytest.mark.parametrize("what", sorted(HOLD))
def test_each_selector_by_itself(what: str) -> None:
    """A statement that holds selects, one that is near it does not, asked directly and through the index of an overlay."""
    for value, expected in [(value, True) for value in HOLD[what]] + [(value, False) for value in FAIL[what]]:
        select = Selector(**{what: value})
        assert select.selects(FACTS) is expected
        assert bool(opened(entry(select)).on(FACTS, NOW)) is expected


def test_all_that_is_stated_must_hold() -> None:
    """All 2,186 combinations of the seven, each absent, right or wrong: a token is selected when none is wrong."""
    entries, expected = [], set()
    for number, signs in enumerate(product((None, HOLD, FAIL), repeat=7)):
        given = {what: table[what][0] for what, table in zip(HOLD, signs, strict=True) if table is not None}
        if given:
            entries.append(entry(Selector(**given), f"e{number}"))
            expected |= {f"e{number}"} if FAIL not in signs else set()
    found = opened(*entries).on(FACTS, NOW)
    assert len(entries) == 2186 and len(expected) == 127
    assert {one.id for one in found} == expected and len(found) == len(expected)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"token": None},
        {"token": "short"},
        {"token": TREE + "A"},
        {"token": TREE[:-1] + "="},
        {"link": LINK[:-1] + "B"},
        {"link": "!" * 22},
        {"agent": ""},
        {"agent": "a b"},
        {"subject": "\u0430"},
        {"kid": "x" * 129},
        {"task": "a//b"},
        {"task": "/a"},
        {"task": ""},
        {"issued_before": 2**53},
    ],
    ids=named,
)
def test_what_selects_nothing_is_no_selector(given: dict[str, Any]) -> None:
    """Nothing stated, ids that are none, names that are none: refused, and nothing is published."""
    world = World()
    before = world.store.load()
    with pytest.raises(ValueError):
        world.operator.revoke(why="x", **given)
    assert world.store.load() == before


@pytest.mark.parametrize(
    "given",
    [
        {"token": b"x"},
        {"link": 1},
        {"agent": True},
        {"task": 5},
        {"subject": ["a"]},
        {"colour": "red"},
        {"issued_before": "yesterday"},
        {"issued_before": True},
        {"issued_before": 1.5},
        {"issued_before": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
    ids=named,
)
def test_what_is_of_another_type_is_no_selector(given: dict[str, Any]) -> None:
    world = World()
    before = world.store.load()
    with pytest.raises(TypeError):
        world.operator.revoke(why="x", **given)
    assert world.store.load() == before


# ---- revocation ----------------------------------------------------------------------------------------------------


def family() -> dict[str, Token]:
    """A root, two children, a grandchild below each, and another tree."""
    root = mint()
    left, right = root.delegate(to="sales-agent"), root.delegate(to="report-agent")
    other = Issuer(KEYRING, clock=clock()).mint(**{**WHO, "subject": "user:john", "agent": "other", "task": "task-9"}, **SALES)
    return {
        "root": root,
        "left": left,
        "left below": left.delegate(to="eu-agent"),
        "right": right,
        "right below": right.attenuate(task="task-123/a"),
        "other": other,
    }


@pytest.mark.parametrize(
    ("select", "revoked"),
    [
        (lambda own: {"token": own["root"].token_id}, "root, left, left below, right, right below"),
        (lambda own: {"link": own["root"].link_id}, "root, left, left below, right, right below"),
        (lambda own: {"link": own["left"].link_id}, "left, left below"),
        (lambda own: {"link": own["left below"].link_id}, "left below"),
        (lambda own: {"link": own["right"].link_id}, "right, right below"),
        (lambda own: {"task": "task-123"}, "root, left, left below, right, right below"),
        (lambda own: {"task": "task-123/a"}, "right below"),
        (lambda own: {"task": "task-123/b"}, ""),
        (lambda own: {"task": "task-1"}, ""),
        (lambda own: {"agent": "orchestrator"}, "root, left, left below, right, right below"),
        (lambda own: {"agent": "sales-agent"}, "left, left below"),
        (lambda own: {"agent": "eu-agent"}, "left below"),
        (lambda own: {"subject": "user:john"}, "other"),
        (lambda own: {"kid": "k1"}, "root, left, left below, right, right below, other"),
        (lambda own: {"kid": "k2"}, ""),
        (lambda own: {"issued_before": NOW + 1}, "root, left, left below, right, right below, other"),
        (lambda own: {"issued_before": NOW}, ""),
        (lambda own: {"agent": "sales-agent", "subject": "user:john"}, ""),
        (lambda own: {"agent": "sales-agent", "task": "task-123", "issued_before": NOW + 1}, "left, left below"),
        (lambda own: {"token": own["other"].token_id, "link": own["left"].link_id}, ""),
    ],
    ids=named,
)
def test_a_revocation_kills_what_it_selects_and_nothing_else(select: Callable[[Any], Any], revoked: str) -> None:
    """Of six tokens, exactly those; lifted again, all work."""
    world, own = World(), family()
    done = world.operator.revoke(why="lost laptop", **select(own))
    dead = {name for name, token in own.items() if world.code(token) == "revoked"}
    assert dead == set(filter(None, revoked.split(", ")))
    assert {world.code(own[name]) for name in own.keys() - dead} <= {"allowed"}
    world.operator.lift(done.id)
    assert {world.code(token) for token in own.values()} == {"allowed"}


def test_a_revoked_token_is_refused_at_step_seven_with_who_and_why() -> None:
    """The operator reads all of it; a client no more than for a bad signature; nobody is granted anything."""
    world, token = World(), mint()
    done = world.operator.revoke(token=token.token_id, why="lost laptop")
    assert (done.by, done.at, done.why, done.until, done.link) == ("ops@example", NOW, "lost laptop", None, None)
    decision = world.check(token, INSERT)
    assert not decision and decision.grant is None and decision.step == 7
    (refusal,) = decision.refusals
    assert (refusal.code, refusal.link, refusal.added_by) == ("revoked", None, "ops@example")
    assert refusal.text == f"revoked by ops@example at 2025-11-25T09:00:00+00:00: lost laptop (an operator can lift entry {done.id})"
    with pytest.raises(Denied) as caught:
        world.verifier.authenticate(token.serialize())
    assert caught.value.code == "revoked" and caught.value.kind == "invalid"
    assert caught.value.public == Denied(verifier().check(token.serialize()[:-1] + "A", SELECT)).public
    assert world.verifier.explain(token.serialize(), SELECT).code == "revoked"


def test_the_plan_says_what_came_of_the_overlay() -> None:
    """Step 7 in a decision: nothing to check without a source, held where nothing stands, failed where something does."""
    world, token = World(), mint()
    plain = verifier().check(token.serialize(), SELECT)
    assert (plain.steps[6].outcome, plain.steps[6].detail) == ("nothing to check", "no overlay is loaded")
    assert world.check(token).steps[6].outcome == "held"
    assert world.check(token, INSERT).steps[6].outcome == "held" and world.check(token, INSERT).step == 8
    world.operator.revoke(token=token.token_id, why="lost")
    decision = world.check(token)
    assert [step.outcome for step in decision.steps[5:8]] == ["held", "failed", "not reached"]
    assert decision.steps[6].detail == decision.refusals[0].text and "lost" in str(decision)
    assert "lost" not in decision.for_model() and "ops" not in decision.for_model()


def test_a_forgery_is_told_nothing_of_the_overlay() -> None:
    """Step 4 comes first: a bad signature stays a bad signature, also where there is no overlay."""
    forged = Issuer(Keyring.from_keys({"k1": bytes(range(50, 82))}, current="k1"), clock=clock()).mint(**WHO, **SALES)
    world = World()
    world.operator.revoke(kid="k1", why="all of them")
    assert world.code(forged) == "bad_signature"
    assert verifier(overlay=lambda: None).check(forged.serialize(), SELECT).code == "bad_signature"


def test_without_a_source_no_overlay_is_asked() -> None:
    assert verifier().check(mint().serialize(), SELECT)
    assert verifier(overlay=None).check(mint().serialize(), SELECT)


def test_until_ends_an_entry_at_its_second() -> None:
    """One second before: revoked. At that second, and with a datetime for it: no more. Back in time: again."""
    for until in (NOW + 10, datetime.fromtimestamp(NOW + 10, UTC)):
        world, token = World(), mint()
        world.operator.revoke(token=token.token_id, why="for a while", until=until)
        for second, expected in ((0, "revoked"), (9, "revoked"), (10, "allowed"), (60, "allowed"), (9, "revoked")):
            world.now.now = NOW + second
            assert world.code(token) == expected


def test_lift_takes_off_one_entry_and_no_other() -> None:
    """Two entries on one token: one lifted, the other stands; what does not stand cannot be lifted."""
    world, token = World(), mint()
    first = world.operator.revoke(token=token.token_id, why="one")
    second = world.operator.revoke(agent="orchestrator", why="two")
    assert world.operator.entries() == (first, second) and len(world.check(token).refusals) == 2
    world.operator.lift(first.id)
    assert world.operator.entries() == (second,) and world.code(token) == "revoked"
    for gone in (first.id, "", "nothing", "\x1b"):
        with pytest.raises(ValueError, match="stands"):
            world.operator.lift(gone)
    world.operator.lift(second.id)
    assert world.operator.entries() == () and world.code(token) == "allowed"


def test_revoke_all_kills_every_token_that_any_verifier_takes_now() -> None:
    """Those of an issuer whose clock is as far ahead as verifiers bear, too: the first second that they refuse is the first that is left."""
    world = World()

    def minted(ahead: int) -> Token:
        return Issuer(KEYRING, clock=FixedClock(NOW + ahead)).mint(**WHO, **SALES)

    ahead = [minted(seconds) for seconds in (-600, 0, 1, 60, 61)]
    before = [world.code(token) for token in ahead]
    entry = world.operator.revoke_all(why="an intruder")
    assert before == ["allowed"] * 4 + ["not_yet_valid"]
    assert [world.code(token) for token in ahead] == ["revoked"] * 4 + ["not_yet_valid"]
    world.now.advance(61)
    world.operator.renew()
    assert world.code(minted(61)) == "allowed"
    world.operator.lift(entry.id)


def test_end_task_kills_a_task_and_those_below() -> None:
    world, token = World(), mint()
    inside, beside = token.attenuate(task="task-123/a/b"), token.attenuate(task="task-123/ab")
    done = world.operator.end_task("task-123/a")
    assert done.why == "the task is over" and done.select == Selector(task="task-123/a")
    assert [world.code(one) for one in (token, inside, beside)] == ["allowed", "revoked", "allowed"]
    world.operator.end_task("task-123", why="done")
    assert [world.code(one) for one in (token, inside, beside)] == ["revoked"] * 3


# ---- narrowing -----------------------------------------------------------------------------------------------------

WIDE: dict[str, Any] = {
    "tables": ["*"],
    "operations": ["*"],
    "tools": {"*": {}},
}


@pytest.mark.parametrize(
    ("caveats", "allowed", "refused", "why"),
    [
        ({"operations": ["select"]}, SELECT, INSERT, 'operation insert is not among ["select"]'),
        ({"tables": ["market.*"]}, data("market.eu"), SELECT, 'table sales is not among ["market.*"]'),
        ({"allow": {"sales": ["select"]}}, SELECT, INSERT, 'operation insert on table sales is not among ["select"]'),
        (
            {"columns": {"sales": ["region"]}},
            data("sales", "select", "region"),
            SELECT,
            "columns of table sales are restricted",
        ),
        ({"tools": {"search": {}}}, tool("search"), tool("mail"), 'tool mail is not among ["search"]'),
        ({"tools": {"search": {}}}, tool("search"), SELECT, "the token is for tools only, not for tables"),
        ({"tables": ["*"], "operations": ["*"]}, SELECT, tool("search"), "the token is for tables only, not for tools"),
        (
            {"where": {"region": {"in": ["eu"]}}},
            data("sales", region="eu"),
            SELECT,
            "attribute region is restricted, and the access does not state it",
        ),
        ({"expires_at": NOW}, None, SELECT, "expired at 2025-11-25T09:00:00+00:00"),
        ({"expires_in": 1}, SELECT, None, ""),
        ({"not_before": NOW + 1}, None, SELECT, "not valid before"),
        ({"audience": "db"}, None, SELECT, 'addressed to ["db"]'),
    ],
    ids=named,
)
def test_a_narrowing_leaves_what_its_caveats_permit(
    caveats: dict[str, Any], allowed: Access | None, refused: Access | None, why: str
) -> None:
    """Each caveat on a token that can do all: what it permits is allowed, what it does not is `narrowed`, with its reason."""
    world = World()
    token = mint(**WIDE)
    before = [world.code(token, access) for access in (allowed, refused) if access is not None]
    done = world.operator.narrow(token=token.token_id, why="read only", **caveats)
    assert done.link and set(before) == {"allowed"}
    assert allowed is None or world.code(token, allowed) == "allowed"
    if refused is not None:
        decision = world.check(token, refused)
        assert (decision.code, decision.step) == ("narrowed", 7) and Denied(decision).kind == "insufficient"
        assert decision.refusals[0].text.startswith(f"narrowed by ops@example at 2025-11-25T09:00:00+00:00: read only (an operator can lift entry {done.id}); {why}")
        assert (decision.refusals[0].link, decision.refusals[0].added_by) == (None, "ops@example")


def test_narrowing_selects_by_task_and_never_widens() -> None:
    """A task is read-only from now on, those below it too; what the token does not permit stays refused by the token."""
    world = World()
    token, below = (
        mint(tables=["sales"], operations=["*"]),
        mint(tables=["sales"], operations=["*"]).attenuate(task="task-123/a"),
    )
    reader = mint(tables=["sales"], operations=["select"])
    world.operator.narrow(task="task-123/a", operations=["select", "drop"], tables=["*"], why="audit")
    assert [world.code(one, INSERT) for one in (token, below, reader)] == ["allowed", "narrowed", "operation"]
    assert world.code(below, data("hr")) == "table"


def test_all_that_refuses_is_told_and_a_revocation_first() -> None:
    """Two narrowings and a revocation, published in the other order: the code is `revoked`, and three refusals stand."""
    world, token = World(), mint()
    world.operator.narrow(token=token.token_id, tables=["market.*"], operations=["*"], why="one")
    assert world.code(token) == "narrowed"
    world.operator.narrow(agent="orchestrator", tables=["hr"], operations=["*"], why="two")
    world.operator.revoke(subject="user:jane", why="three")
    assert [refusal.code for refusal in world.check(token).refusals] == ["revoked", "narrowed", "narrowed"]


def test_narrowings_that_are_too_much_are_not_judged() -> None:
    """Nor are those beside them, which would refuse: a revocation alone is told beside it, and first."""
    world, token = World(), mint(unrestricted=True)
    world.operator.narrow(token=token.token_id, where={"x": {"each": {"min": 0}}}, why="one")
    much, more = Access(attributes={"x": [-1] * 9}), Access(attributes={"x": [-1] * 27_000})
    assert [refusal.code for refusal in world.check(token, much).refusals] == ["narrowed"]
    assert [refusal.code for refusal in world.check(token, more).refusals] == ["too_much_work"]
    world.operator.revoke(token=token.token_id, why="two")
    assert [refusal.code for refusal in world.check(token, more).refusals] == ["revoked", "too_much_work"]


def test_authenticate_asks_of_a_narrowing_what_needs_no_access() -> None:
    """A narrowing to a table leaves the token genuine; one to a past moment does not."""
    world, token = World(), mint()
    world.operator.narrow(token=token.token_id, tables=["hr"], operations=["select"], why="one")
    grant = world.verifier.authenticate(token.serialize())
    assert grant.recheck() and grant.check(SELECT).code == "narrowed"
    world.operator.narrow(token=token.token_id, expires_at=NOW, why="two")
    assert grant.recheck().code == "narrowed"
    with pytest.raises(Denied) as caught:
        world.verifier.authenticate(token.serialize())
    assert caught.value.code == "narrowed"


class Region(Caveat, frozen=True):
    key = "acme:region"

    def prohibits(self, access: Access, situation: Any) -> str | None:
        return None if access.attributes.get("region") in self.value else "another region"


def test_a_caveat_of_an_embedder_s_narrows_where_it_is_known() -> None:
    """With the vocabulary on all sides it is judged; a reader without it refuses the snapshot as a whole."""
    own, store = Vocabulary(Region), MemorySnapshots()
    operator = Operator(KEY, store, by="ops", clock=clock(), vocabulary=own)
    operator.narrow(task="task-123", why="eu only", **{"acme:region": ["eu"]})
    stored = store.load()
    assert stored is not None
    overlay = Overlay.open(stored, [KEY.public], vocabulary=own)
    server = verifier(overlay=overlay, vocabulary=own)
    assert server.check(mint().serialize(), data("sales", region="eu"))
    assert server.check(mint().serialize(), data("sales", region="us")).code == "narrowed"
    with pytest.raises(OverlayError, match="link"):
        Overlay.open(stored, [KEY.public])
    with pytest.raises(TypeError, match="or the key of a caveat in the vocabulary"):
        Operator(KEY, store, by="ops").narrow(task="task-123", why="x", **{"acme:region": ["eu"]})


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("why", ["a reason", "eine Begründung"])
def test_a_link_is_as_deep_as_the_snapshot_that_it_stands_in(why: str) -> None:
    """32 levels below the snapshot (2.7), of which the array, the entry and the link take three: whoever writes and whoever reads."""
    own, store = Vocabulary(Region), MemorySnapshots()
    operator = Operator(KEY, store, by="ops", clock=clock(), vocabulary=own)
    operator.narrow(task="task-123", why=why, **{"acme:region": nested(29)})
    stored = store.load()
    assert stored is not None and Overlay.open(stored, [KEY.public], vocabulary=own)
    with pytest.raises(OverlayError, match="nested too deeply"):
        operator.narrow(task="task-123", why=why, **{"acme:region": nested(30)})
    assert store.load() == stored, "nothing was published that nobody reads"


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


# ---- grants --------------------------------------------------------------------------------------------------------


def test_a_grant_asks_again_at_every_check() -> None:
    """Each way to ask a grant: allowed, revoked, lifted; and a reservation that is refused takes nothing."""
    world = World(audience="db", ledger=MemoryLedger(floor=0))
    token = mint(uses=4, audience=["db"], **SALES)
    grant = world.verifier.authenticate(token.serialize())
    asks: dict[str, Callable[[], str]] = {
        "explain": lambda: grant.explain(SELECT).code,
        "recheck": lambda: grant.recheck().code,
        "check": lambda: grant.check(SELECT).code,
        "authorize": lambda: code_of(lambda: grant.authorize(SELECT)),
        "reserve": lambda: code_of(lambda: grant.reserve(SELECT)),
        "check_all": lambda: grant.check_all([SELECT, SELECT]).code,
    }
    done = world.operator.revoke(token=token.token_id, why="x")
    assert {name: ask() for name, ask in asks.items()} == dict.fromkeys(asks, "revoked")
    world.operator.lift(done.id)
    assert {name: ask() for name, ask in asks.items()} == dict.fromkeys(asks, "allowed")
    assert asks["check"]() == "budget_exhausted"  # the fifth: nothing was taken while it was revoked


def code_of(call: Callable[[], Any]) -> str:
    """The code of a denial, or `allowed`."""
    try:
        call()
    except Denied as denied:
        return denied.code
    return "allowed"


def test_a_grant_of_a_token_that_stands_is_refused_once_the_overlay_grows_old() -> None:
    """The bound is asked at each check, too: at its second allowed, one later not; with a fresh snapshot again."""
    world = World()
    grant = world.verifier.authenticate(mint().serialize())
    world.now.advance(60)
    assert grant.check(SELECT).code == "allowed"
    world.now.advance(1)
    assert grant.check(SELECT).code == grant.recheck().code == "stale_overlay"
    world.operator.renew()
    assert grant.check(SELECT).code == "allowed"


def test_a_grant_says_who_calls_after_the_overlay() -> None:
    """Step 7 before step 9: a wrong caller of a revoked token is told of the revocation."""
    world, token = World(), mint()
    assert world.check(token, caller=Caller(agent="mallory")).code == "caller"
    world.operator.revoke(token=token.token_id, why="x")
    assert world.check(token, caller=Caller(agent="mallory")).code == "revoked"


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.executescript("create table sales (region text); insert into sales values ('eu'), ('us')")
    yield made
    made.close()


def test_the_sqlite_guard_asks_at_every_statement(connection: sqlite3.Connection) -> None:
    """In the middle of a block: revoked, lifted, narrowed to another table; and what was written before is rolled back."""
    world = World()
    token = mint(tables=["sales"], operations=["select", "insert"])
    grant = world.verifier.authenticate(token.serialize())
    select = "select region from sales"
    with guarded(connection, grant) as db:
        assert len(db.execute(select).fetchall()) == 2
        done = world.operator.revoke(token=token.token_id, why="x")
        assert code_of(lambda: db.execute(select)) == code_of(lambda: db.execute("select 1")) == "revoked"
        world.operator.lift(done.id)
        assert len(db.execute(select).fetchall()) == 2
        world.operator.narrow(token=token.token_id, operations=["insert"], why="y")
        assert code_of(lambda: db.execute(select)) == "narrowed"
        db.execute("insert into sales values ('de')")
    with pytest.raises(Denied), guarded(connection, grant) as db:
        db.execute("insert into sales values ('fr')")
        world.operator.revoke(token=token.token_id, why="z")
        db.execute("insert into sales values ('es')")
    assert connection.execute("select count(*) from sales").fetchone() == (3,)


def test_the_sqlite_guard_stops_a_statement_that_runs(connection: sqlite3.Connection) -> None:
    """The revocation comes in while a long statement runs: it does not end, and its block leaves nothing."""
    world = World()
    token, asked = mint(tables=["sales"], operations=["select"]), 0

    def source() -> Overlay | None:
        nonlocal asked
        asked += 1
        if asked == 10:
            world.operator.revoke(token=token.token_id, why="x")
        return world.open()

    grant = verifier(overlay=source).authenticate(token.serialize())
    long = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 100000000) select count(*) from n, sales"
    with pytest.raises(Denied) as caught, guarded(connection, grant) as db:
        db.execute(long)
    assert caught.value.code == "revoked" and asked >= 10


# ---- snapshots that are none ---------------------------------------------------------------------------------------

REVOKED = made(
    entry(Selector(token=mint().token_id)), entry(Selector(task="task-9"), "e2", link={"operations": ["select"]}), seq=7
)


def refused(stored: Any, match: str = "", operators: Iterable[bytes | str] = (KEY.public,)) -> None:
    """OverlayError for whoever opens it; a server that reads it denies a token that nothing is said of."""
    with pytest.raises(OverlayError, match=match):
        Overlay.open(stored, operators)
    store = MemorySnapshots()
    store.publish(stored, None)
    feed = Feed(store, operators, clock=clock())
    decision = verifier(overlay=feed).check(mint(**WIDE).serialize(), SELECT)
    assert not decision and decision.code == "stale_overlay" and isinstance(feed.problem, OverlayError)
    with pytest.raises(OverlayError):
        feed.refresh()


def test_control_the_snapshot_that_is_changed_below_is_good() -> None:
    overlay = Overlay.open(REVOKED, [OTHER.public, KEY.public])
    assert (overlay.seq, overlay.issued_at, overlay.expires_at, len(overlay.entries)) == (7, NOW, NOW + LIFE, 2)
    assert repr(overlay) == "<Overlay 7, 2 entries>"
    assert verifier(overlay=overlay).check(mint().serialize(), SELECT).code == "revoked"
    assert overlay.link(overlay.entries[0]) is None and overlay.link(overlay.entries[1]) is not None


def test_every_bit_of_a_snapshot_counts() -> None:
    """Each bit flipped, each byte left out, each cut at either end, and each byte twice: OverlayError, all of them."""
    bits = range(len(REVOKED) * 8)
    for at in bits:
        changed = bytearray(REVOKED)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(OverlayError):
            Overlay.open(bytes(changed), [KEY.public])
    for at in range(len(REVOKED)):
        for changed_ in (
            REVOKED[:at],
            REVOKED[at + 1 :],
            REVOKED[:at] + REVOKED[at + 1 :],
            REVOKED[:at] + REVOKED[at : at + 1] + REVOKED[at:],
        ):
            with pytest.raises(OverlayError):
                Overlay.open(changed_, [KEY.public])
    assert len(bits) == 8 * len(REVOKED) > 2500


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b".",
        b"." * 87,
        b"null",
        b"{}",
        b"\0" * 200,
        b"\xff" * 200,
        REVOKED[:-87],
        REVOKED[:-86],
        REVOKED[:-1],
        REVOKED + b"\n",
        b" " + REVOKED,
        REVOKED + REVOKED,
        REVOKED.replace(b".", b"", 1),
        REVOKED[:-86] + b"A" * 86,
        REVOKED[:-86] + b"\xe9" * 86,
        REVOKED[:-86] + b64encode(OTHER.sign(b"x")).encode(),
        REVOKED[:-87] + made(seq=8)[-87:],
        made(seq=8)[:-87] + REVOKED[-87:],
        made(seq=8, key=OTHER),
        REVOKED[:-87] + b"." + b64encode(KEY.sign(REVOKED[:-87])).encode(),
        REVOKED[:-87] + b"." + b64encode(KEY.sign(primitives.label("overlay") + REVOKED[:-87])).encode(),
        REVOKED[:-87] + b"." + b64encode(KEY.sign(primitives.label("link") + primitives.sha256(REVOKED[:-87]))).encode(),
    ],
    ids=lambda stored: repr(stored[:12]),
)
def test_what_no_operator_signed_is_refused(stored: bytes) -> None:
    """Nothing, garbage, cut, unsigned, another body, another signer, another domain."""
    refused(stored, "not signed by an operator")


@pytest.mark.parametrize(
    "stored", [None, "x", 5, True, [], bytearray(REVOKED), memoryview(REVOKED)], ids=lambda it: type(it).__name__
)
def test_a_snapshot_is_bytes(stored: Any) -> None:
    """What a store hands out besides, also where it would read the same: OverlayError, and no overlay of it."""
    with pytest.raises(OverlayError, match="a snapshot must be bytes, not"):
        Overlay.open(stored, [KEY.public])
    store, _, source = feed(stored) if stored is not None else feed()
    with pytest.raises(OverlayError):
        source.refresh()
    assert source() is None and store.asked >= 1


def test_entries_out_of_order_or_left_out_are_refused() -> None:
    """Any change of what was signed, also one that is good JSON: entries swapped, dropped, doubled."""
    body = msgspec.json.decode(REVOKED[:-87])
    one, two = body["entries"]
    for entries in ([two, one], [one], [two], [], [one, two, two], [one, one]):
        refused(encode_json({**body, "entries": entries}) + REVOKED[-87:], "not signed by an operator")


def test_only_those_who_are_trusted_here_may_sign() -> None:
    """No operator, another one, several: keys as text or bytes; what is no key is a mistake of the caller's."""
    refused(REVOKED, "not signed by an operator", [])
    refused(REVOKED, "not signed by an operator", [OTHER.public])
    for operators in ([KEY.public], (OTHER.public, KEY.public), {b64decode(KEY.public)}, iter([KEY.public])):
        assert Overlay.open(REVOKED, operators).seq == 7
    for bad in (["x"], [b"short"], [bytes(32)], KEY.public):
        with pytest.raises(ValueError):
            Overlay.open(REVOKED, bad)
        with pytest.raises(ValueError):
            Feed(MemorySnapshots(), bad)


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no object": b"[]",
    "null": b"null",
    "half an object": b'{"entries":[]',
    "no fields": b"{}",
    "not UTF-8": b'{"entries":[],"exp":1,"iat":1,"seq":1,"v":"\xff"}',
    "spaces": b'{"entries": [],"exp":1,"iat":1,"seq":1,"v":1}',
    "a line feed": b'{"entries":[],"exp":1,"iat":1,"seq":1,"v":1}\n',
    "another order": b'{"exp":1,"entries":[],"iat":1,"seq":1,"v":1}',
    "a key twice": b'{"entries":[],"exp":1,"iat":1,"seq":1,"seq":1,"v":1}',
    "an escape": b'{"\\u0065ntries":[],"exp":1,"iat":1,"seq":1,"v":1}',
    "too deep": b'{"entries":' + b"[" * 20000 + b"]" * 20000 + b',"exp":1,"iat":1,"seq":1,"v":1}',
    "a float": b'{"entries":[],"exp":1.0,"iat":1,"seq":1,"v":1}',
    "two entries with one id": encode_json(stated(line(link={"exp": NOW + 9}), line())),
    "an order of its own": msgspec.json.encode(
        stated(line(link={"where": {"Ａ": {"any": True}, "😀": {"any": True}}})), order="sorted"
    ),
    "too large": b'{"entries":[],"exp":9007199254740992,"iat":1,"seq":1,"v":1}',
    **{
        name: msgspec.json.encode(stated(**facts), order="sorted")
        for name, facts in {
            "another version": {"v": 2},
            "version zero": {"v": 0},
            "an unknown key": {"note": "x"},
            "seq as text": {"seq": "1"},
            "seq as truth": {"seq": True},
            "seq as nothing": {"seq": None},
            "entries as an object": {"entries": {}},
        }.items()
    },
    **{
        f"an entry with {name}": msgspec.json.encode(stated(line(**facts)), order="sorted")
        for name, facts in {
            "an unknown key": {"note": "x"},
            "no selector": {"select": {}},
            "a selector of null": {"select": {"token": None}},
            "a selector of null beside": {"select": {"token": TREE, "link": None}},
            "an unknown selector": {"select": {"token": TREE, "colour": "red"}},
            "a token that is none": {"select": {"token": "x"}},
            "a link that is none": {"select": {"link": LINK + "="}},
            "a task that is none": {"select": {"task": "a//b"}},
            "an agent that is none": {"select": {"agent": ""}},
            "a moment that is none": {"select": {"issued_before": "1"}},
            "until null": {"until": None},
            "until as text": {"until": "5"},
            "until too large": {"until": 2**53},
            "at as a float": {"at": 1.5},
            "why as a number": {"why": 5},
            "link null": {"link": None},
            "link empty": {"link": {}},
            "link as a list": {"link": []},
            "an unknown caveat": {"link": {"acme:x": 1}},
            "a caveat that is none": {"link": {"tables": "sales"}},
            "a caveat of null": {"link": {"tables": None}},
            "a caveat with a float": {"link": {"exp": 1.5}},
            "a caveat too large": {"link": {"exp": 2**53}},
            "a hand-over": {"link": {"from": "a", "n": "AAAAAAAAAAA", "to": "b"}},
            "a key": {"link": {"key": KEY.public}},
            "a depth": {"link": {"depth": 1}},
            "delegate_only": {"link": {"delegate_only": True}},
            "a task": {"link": {"task": "task-123"}},
            "uses": {"link": {"n": "AAAAAAAAAAA", "uses": 1}},
            "uses without a nonce": {"link": {"uses": 1}},
            "a budget": {"link": {"budget": {"usd": 1}, "n": "AAAAAAAAAAA"}},
            "a nonce alone": {"link": {"exp": NOW, "n": "AAAAAAAAAAA"}},
        }.items()
    },
    **{
        f"an entry without {name}": msgspec.json.encode(
            stated({key: value for key, value in line().items() if key != name}), order="sorted"
        )
        for name in line()
    },
}


@pytest.mark.parametrize("name", sorted(BODIES))
def test_what_an_operator_signed_and_nobody_can_read_is_refused(name: str) -> None:
    """A body that is not the one spelling of a snapshot, or that says what is not known here: refused as a whole."""
    refused(signed(BODIES[name]), "cannot be read")


def test_control_the_bodies_are_refused_for_what_they_say() -> None:
    """The same way of writing, with nothing wrong: it opens, also with characters that need more than ASCII to sort."""
    for body in (
        stated(),
        stated(line()),
        stated(line(until=5, link={"where": {"Ａ": {"any": True}, "😀": {"any": True}}}, why="für\u2028x")),
        stated(line(link={"exp": NOW}), line(id="e2")),
    ):
        assert Overlay.open(signed(encode_json(body)), [KEY.public]).seq == 1


def test_a_snapshot_larger_than_the_limit_is_neither_written_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit it is good, one byte above it is not; an operator publishes nothing then, and what stood stands."""
    monkeypatch.setattr(module, "MAX_BYTES", len(REVOKED))
    entries = Overlay.open(REVOKED, [KEY.public]).entries
    assert made(*entries, seq=7) == REVOKED
    world = World()
    world.operator.revoke(token=mint().token_id, why="x")
    before = world.store.load()
    with pytest.raises(OverlayError, match="more than"):
        world.operator.revoke(agent="x", why="y" * 400)
    assert world.store.load() == before
    monkeypatch.setattr(module, "MAX_BYTES", len(REVOKED) - 1)
    with pytest.raises(OverlayError, match="more than"):
        made(*entries, seq=7)
    refused(REVOKED, "more than")


# ---- no overlay, an old one, none to be had ------------------------------------------------------------------------


def test_none_yet_too_old_and_from_the_future_are_denied() -> None:
    """Edges of each: the bound at its second, the snapshot's own end, a minute ahead; each with what it says."""
    token = mint(expires_at=None, **SALES).serialize()
    for seconds, facts, expected in (
        (0, {}, "allowed"),
        (60, {}, "allowed"),
        (61, {}, "stale_overlay"),
        (5, {"max_staleness": 5}, "allowed"),
        (6, {"max_staleness": 5}, "stale_overlay"),
        (0, {"max_staleness": 0}, "allowed"),
        (1, {"max_staleness": 0}, "stale_overlay"),
        (LIFE - 1, {"max_staleness": 10**6}, "allowed"),
        (LIFE, {"max_staleness": 10**6}, "stale_overlay"),
        (-60, {}, "allowed"),
        (-61, {}, "stale_overlay"),
    ):
        # A token of long ago, so that only the overlay's age is judged.
        old = Issuer(KEYRING, clock=FixedClock(NOW - 1000)).mint(**WHO, **SALES, expires_at=None).serialize()
        decision = verifier(overlay=opened(), clock=FixedClock(NOW + seconds), **facts).check(old, SELECT)
        assert decision.code == expected, seconds
        if not decision:
            assert decision.step == 7 and Denied(decision).kind == "unavailable" and decision.refusals[0].added_by is None
            said = "expired at 2025-11-25T10:00:00" if seconds == LIFE else "is from 2025-11-25T09:00:00+00:00, "
            assert f"the newest overlay {said}" in decision.refusals[0].text
    decision = verifier(overlay=lambda: None).check(token, SELECT)
    assert (decision.code, decision.refusals[0].text) == ("stale_overlay", "this server has no overlay yet")


@pytest.mark.parametrize(
    "error", [StoreError("down"), OverlayError("x"), OSError("x"), RuntimeError("secret"), AssertionError(), TimeoutError()]
)
def test_a_source_that_raises_is_a_denial(error: Exception) -> None:
    """Whatever it raises, of every way to ask; what it says is not told. Also where a stale overlay would do."""

    def source() -> Overlay:
        raise error

    for stale in (False, True):
        server = verifier(overlay=source, allow_stale_overlay=stale)
        decision = server.check(mint().serialize(), SELECT)
        assert (decision.code, decision.step) == ("store_unavailable", 7) and Denied(decision).kind == "unavailable"
        assert decision.refusals[0].text == f"the overlay cannot be had: {type(error).__name__}"
        assert code_of(lambda server=server: server.authenticate(mint().serialize())) == "store_unavailable"
        assert server.explain(mint().serialize(), SELECT).code == "store_unavailable"


@pytest.mark.parametrize("answer", ["x", b"x", 5, True, False, 0, [], {}, REVOKED, Overlay, object()], ids=named)
def test_a_source_that_gives_what_is_no_overlay_is_a_denial(answer: Any) -> None:
    """Also what is false, and is not None; also where a stale overlay would do."""
    for stale in (False, True):
        server = verifier(overlay=lambda: answer, allow_stale_overlay=stale)
        assert server.check(mint().serialize(), SELECT).code == "store_unavailable"
        assert code_of(lambda server=server: server.authenticate(mint().serialize())) == "store_unavailable"


def test_an_interrupt_passes_through_a_source() -> None:
    def source() -> Overlay:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verifier(overlay=source).check(mint().serialize(), SELECT)


def test_a_stale_overlay_is_good_enough_where_that_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    """None yet, too old, from the future: logged, each time, and allowed; what a stale one revokes stays revoked."""
    caplog.set_level(logging.WARNING, "captoken")
    token = mint().serialize()
    for overlay, said in (
        (lambda: None, "this server has no overlay yet"),
        (opened(issued_at=NOW - 61), "more than 60 s ago"),
        (opened(issued_at=NOW + 61), "in the future"),
    ):
        caplog.clear()
        server = verifier(overlay=overlay, allow_stale_overlay=True)
        assert server.check(token, SELECT) and server.explain(token, SELECT)
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
        assert all("deciding without a fresh overlay" in text and said in text for text in caplog.messages)
        assert token[-40:] not in caplog.text
    caplog.clear()
    old = opened(entry(Selector(token=mint().token_id)), issued_at=NOW - 10**6)
    assert verifier(overlay=old, allow_stale_overlay=True).check(token, SELECT).code == "revoked"
    assert verifier(overlay=opened(), allow_stale_overlay=True).check(token, SELECT) and len(caplog.records) == 1
    for odd in (1, "yes", None):  # only True is aloud
        assert verifier(overlay=lambda: None, allow_stale_overlay=odd).check(token, SELECT).code == "stale_overlay"


@pytest.mark.parametrize(
    "facts", [{"max_staleness": -1}, {"max_staleness": 1.5}, {"max_staleness": True}, {"max_staleness": None}]
)
def test_a_bound_is_a_number_of_seconds(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_staleness"):
        verifier(overlay=opened(), **facts)


@pytest.mark.parametrize("overlay", [REVOKED, "x", 1, True, [], MemorySnapshots()])
def test_an_overlay_is_one_or_gives_one(overlay: Any) -> None:
    with pytest.raises(TypeError, match="overlay must be an Overlay"):
        verifier(overlay=overlay)


@pytest.mark.parametrize("seconds", [0, 1, 10, 59, 60, 61, 1000])
def test_a_token_may_ask_for_a_fresher_overlay_than_the_server_does(seconds: int) -> None:
    """`fresh` of 0, 10 and 1,000 seconds, at seven ages: whichever bound is tighter decides, for a token, for a grant, and for
    what is below."""
    old = Issuer(KEYRING, clock=FixedClock(NOW)).mint(**WHO, **SALES, expires_at=None)
    for fresh in (0, 10, 1000):
        now = FixedClock(NOW)
        server = verifier(overlay=opened(), clock=now)
        token = old.attenuate(fresh=fresh)
        child = token.delegate(to="a").attenuate(task="task-123/a", audience="db")
        grant = server.authenticate(token.serialize())
        now.advance(seconds)
        expected = "allowed" if seconds <= min(fresh, 60) else "stale_overlay"
        assert server.check(token.serialize(), SELECT).code == grant.check(SELECT).code == grant.recheck().code == expected
        assert (
            grant.explain(SELECT).code
            == code_of(lambda server=server, token=token: server.authenticate(token.serialize()))
            == expected
        )
        assert verifier(overlay=opened(), clock=now, audience="db").check(child.serialize(), SELECT).code == expected


def test_a_token_that_asks_for_a_fresh_overlay_is_denied_without_one(caplog: pytest.LogCaptureFixture) -> None:
    """No source, none yet, an old one: also where the server is content with a stale one."""
    token = mint(fresh=10, **SALES).serialize()
    refused = verifier().check(token, SELECT)
    assert (refused.code, refused.step) == ("stale_overlay", 8), "a caveat of the token's asks for it (24.24)"
    assert [step.outcome for step in refused.steps[6:8]] == ["nothing to check", "failed"]
    assert verifier(overlay=lambda: None).check(token, SELECT).step == 7, "and here the verifier does"
    for overlay in (lambda: None, opened(issued_at=NOW - 11), opened(issued_at=NOW - 10**6)):
        for stale in (False, True):
            assert verifier(overlay=overlay, allow_stale_overlay=stale).check(token, SELECT).code == "stale_overlay"
    assert verifier(overlay=opened(issued_at=NOW - 10)).check(token, SELECT)
    assert verifier(overlay=opened(issued_at=NOW + 60)).check(token, SELECT)  # a clock ahead makes it no older
    assert "deciding without a fresh overlay" in caplog.text


def test_a_narrowing_may_ask_for_a_fresh_overlay() -> None:
    world, token = World(), mint()
    world.operator.narrow(token=token.token_id, fresh=5, why="watched")
    assert world.code(token) == "allowed"
    world.now.advance(5)
    assert world.code(token) == "allowed"
    world.now.advance(1)
    assert world.code(token) == "narrowed"


# ---- the operator --------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="stands"):
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
    with pytest.raises(StoreError, match="32 others"):
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


# ---- the feed ------------------------------------------------------------------------------------------------------


class Store(MemorySnapshots):
    """A store that can fail, and that counts who asks."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: BaseException | None = None
        self.asked = 0

    def load(self) -> bytes | None:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return super().load()

    def put(self, stored: bytes) -> None:
        assert self.publish(stored, super().load())


def feed(*stored: bytes, **facts: Any) -> tuple[Store, FixedClock, Feed]:
    store, now = Store(), clock()
    for one in stored:
        store.put(one)
    return store, now, Feed(store, [KEY.public], **{"clock": now, **facts})


def test_a_feed_looks_at_the_store_every_so_often() -> None:
    """Within `every` seconds it is not asked again, at that second it is; a clock that goes back makes it look."""
    store, now, source = feed(made(seq=1))
    first = source()
    assert first is not None and (first.seq, store.asked) == (1, 1) and source.problem is None
    store.put(made(seq=2))
    for second, asked, seq in (
        (1, 1, 1),
        (4, 1, 1),
        (5, 2, 2),
        (6, 2, 2),
        (9, 2, 2),
        (10, 3, 2),
        (3, 4, 2),
        (4, 4, 2),
        (8, 5, 2),
    ):
        now.now = NOW + second
        found = source()
        assert found is not None and (found.seq, store.asked) == (seq, asked), second


def test_a_feed_looks_after_a_part_of_a_second_too() -> None:
    """So what is revoked is refused half a second later, and not when the next second begins."""
    store, now, source = feed(made(seq=1), every=0.5)
    source()
    for fraction, asked in ((0.25, 1), (0.49, 1), (0.5, 2), (0.99, 2), (1.0, 3), (1.25, 3)):
        now.now = NOW + fraction  # type: ignore[assignment]
        source()
        assert store.asked == asked, fraction


def test_a_feed_does_not_read_the_same_snapshot_twice() -> None:
    """As long as the bytes are the same it is the same object; `every=0` looks each time."""
    store, _, source = feed(made(seq=1), every=0)
    first = source()
    assert source() is first and source() is first and source.refresh() is first and store.asked == 4
    store.put(made(seq=2))
    second = source()
    assert second is not first and second is not None and second.seq == 2


def test_refresh_looks_now_and_says_what_is_wrong() -> None:
    """Within `every` seconds too; its error is the store's, or OverlayError."""
    store, _, source = feed()
    with pytest.raises(OverlayError, match="no snapshot yet"):
        source.refresh()
    store.put(made(seq=1))
    assert source.refresh().seq == 1
    store.put(made(seq=2))
    found = source()
    assert found is not None
    assert source.refresh().seq == 2
    store.fault = OSError("down")
    with pytest.raises(OSError, match="down"):
        source.refresh()
    found = source()
    assert found is not None and found.seq == 2


def test_a_refresh_counts_as_a_look() -> None:
    """What was wrong before is forgotten, and the store is asked again only when `every` seconds have passed since."""
    store, now, source = feed()
    assert source() is None and source.problem is not None
    store.put(made(seq=1))
    now.advance(4)
    assert source.refresh().seq == 1 and source.problem is None
    store.put(made(seq=2))
    for second, seq in ((5, 1), (8, 1), (9, 2)):
        now.now = NOW + second
        found = source()
        assert found is not None and found.seq == seq


@pytest.mark.parametrize(
    "back",
    [
        made(seq=4),
        made(seq=1),
        made(seq=4, issued_at=NOW + 50),
        made(seq=5, issued_at=NOW + 1),
        made(entry(Selector(agent="a")), seq=5),
        made(seq=0),
        made(seq=-5),
    ],
    ids=lambda stored: repr(stored[-12:]),
)
def test_a_feed_never_goes_back(back: bytes) -> None:
    """An older number, or the same number with other content: refused, and what is known stays; a newer one is taken."""
    token = mint()
    good = made(entry(Selector(token=token.token_id)), seq=5)
    store, now, source = feed(good)
    assert source.refresh().seq == 5
    store.put(back)
    with pytest.raises(OverlayError, match="not newer than 5"):
        source.refresh()
    now.advance(5)
    found = source()
    assert found is not None and len(found.entries) == 1 and isinstance(source.problem, OverlayError)
    assert verifier(overlay=source, clock=now).check(token.serialize(), SELECT).code == "revoked"
    store.put(good)
    now.advance(5)
    assert source() is found and source.problem is None
    store.put(made(seq=6, issued_at=NOW - 5))
    assert source.refresh().seq == 6


FAULTS: list[Any] = [
    OSError("down"),
    StoreError("locked"),
    RuntimeError("x"),
    made(seq=9, key=OTHER),
    b"",
    made(seq=9)[:-1],
    made(seq=1),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: repr(fault)[:24])
def test_a_feed_lives_on_what_it_has_until_that_is_stale(fault: Any) -> None:
    """A store that fails or lies: what is known is used to the last second of the bound, then all is denied; with a good
    snapshot all is well again."""
    store, now, source = feed(made(seq=5))
    server = verifier(overlay=source, clock=now)
    token = mint().serialize()
    assert server.check(token, SELECT).code == "allowed"
    if isinstance(fault, Exception):
        store.fault = fault
    else:
        store.put(fault)
    for second in range(1, 62):
        now.now = NOW + second
        assert server.check(token, SELECT).code == ("allowed" if second <= 60 else "stale_overlay")
    assert source.problem is fault or isinstance(source.problem, OverlayError)
    store.fault = None
    store.put(made(seq=6, issued_at=NOW + 61))
    now.advance(5)
    assert server.check(token, SELECT).code == "allowed" and source.problem is None


def test_a_feed_that_never_saw_one_gives_none() -> None:
    """And looks again when it is due, so that the first snapshot is found."""
    store, now, source = feed()
    assert source() is None and isinstance(source.problem, OverlayError)
    assert source() is None and store.asked == 1
    assert verifier(overlay=source, clock=now).check(mint().serialize(), SELECT).code == "stale_overlay"
    store.put(made(seq=1))
    now.advance(5)
    assert source() is not None and source.problem is None


def test_a_clock_that_cannot_be_read_is_no_allowance() -> None:
    def broken() -> float:
        raise OSError("no clock")

    _, _, source = feed(made(), clock=broken)
    assert verifier(overlay=source).check(mint().serialize(), SELECT).code == "store_unavailable"


def test_an_interrupt_leaves_a_feed_usable() -> None:
    """It passes through, and the next one looks: no lock is held."""
    store, now, source = feed(made())
    store.fault = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        source()
    store.fault = None
    now.advance(5)
    assert source() is not None and source.refresh() is not None


class Slow(Store):
    """A store in which a look takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()

    def load(self) -> bytes | None:
        found = super().load()
        self.entered.set()
        assert self.go.wait(30)
        return found


def test_one_looks_and_the_others_take_what_there_is() -> None:
    """While a look hangs, others are given the overlay that is known, without waiting; none known, they wait for it."""
    store, now = Slow(), clock()
    store.put(made(seq=1))
    source = Feed(store, [KEY.public], clock=now)
    first = source()
    store.put(made(seq=2))
    now.advance(5)
    store.entered.clear()
    store.go.clear()
    told: list[Overlay | None] = []
    looking = threading.Thread(target=lambda: told.append(source()))
    looking.start()
    assert store.entered.wait(30)
    now.advance(5)
    assert [source() for _ in range(5)] == [first] * 5
    store.go.set()
    looking.join()
    assert [overlay and overlay.seq for overlay in told] == [2]

    fresh, told = Feed(store, [KEY.public], clock=now), []
    store.entered.clear()
    store.go.clear()
    waiting = [threading.Thread(target=lambda: told.append(fresh())) for _ in range(4)]
    waiting[0].start()
    assert store.entered.wait(30)
    now.advance(5)
    for thread in waiting[1:]:
        thread.start()
    store.go.set()
    for thread in waiting:
        thread.join()
    assert [overlay and overlay.seq for overlay in told] == [2] * 4


def at_once(store: Slow, ask: Callable[[], Any], count: int, *, hangs: bool = False) -> list[Any]:
    """What that many threads are told that ask while the first of them looks; in the order in which they are told."""
    store.entered.clear()
    store.go.clear()
    told: list[Any] = []
    threads = [threading.Thread(target=lambda: told.append(ask())) for _ in range(count)]
    threads[0].start()
    assert store.entered.wait(30)
    for thread in threads[1:]:
        thread.start()
    for thread in threads[1:]:
        thread.join(30 if hangs else 0.3 / count)  # hung, until the others went without
    store.go.set()
    for thread in threads:
        thread.join()
    return told


@pytest.mark.parametrize("every", [0, 5, 3600])
def test_all_wait_for_whoever_loads_the_first_overlay(every: int) -> None:
    """Sixteen threads at a server that has just begun, while the store takes its time: all are allowed, whatever the second."""
    store, now = Slow(), clock()
    store.put(made(seq=1))
    server = verifier(overlay=Feed(store, [KEY.public], every=every, clock=now), clock=now)
    codes = at_once(store, lambda: server.check(mint().serialize(), SELECT).code, 16)
    assert codes == ["allowed"] * 16
    assert store.asked == (1 if every else 16)


def test_whoever_waits_for_the_first_overlay_waits_so_long_and_no_longer() -> None:
    """The store hangs: the others are denied after the bound, and the one that looks is not held up."""
    store, now = Slow(), clock()
    store.put(made(seq=1))
    source = Feed(store, [KEY.public], timeout=0.05, clock=now)
    begun = monotonic()
    told = at_once(store, source, 4, hangs=True)
    assert 0.05 <= monotonic() - begun < 20
    assert [overlay and overlay.seq for overlay in told] == [None, None, None, 1]


def test_a_first_look_that_fails_is_not_made_by_each_of_those_who_waited() -> None:
    """One asks the store, and all go without; when it is due, the next one asks."""
    store, now = Slow(), clock()
    source = Feed(store, [KEY.public], clock=now)
    told = at_once(store, source, 8)
    assert told == [None] * 8 and store.asked == 1
    store.put(made(seq=1))
    assert source() is None
    now.advance(5)
    assert source() is not None and store.asked == 2


def test_a_feed_in_many_threads_never_goes_back() -> None:
    """Eight threads ask while an operator publishes 100 snapshots: what each is given only ever grows."""
    store = MemorySnapshots()
    operator = Operator(KEY, store, by="ops", clock=clock())
    operator.renew()
    source, over = Feed(store, [KEY.public], every=0, clock=clock()), threading.Event()
    rows: list[list[int]] = [[] for _ in range(8)]

    def run(row: list[int]) -> None:
        while not over.is_set():
            found = source() if len(row) % 2 else source.refresh()
            row.append(found.seq if found is not None else 0)

    threads = [threading.Thread(target=run, args=(row,)) for row in rows]
    for thread in threads:
        thread.start()
    for _ in range(100):
        operator.renew()
    over.set()
    for thread in threads:
        thread.join()
    assert all(row == sorted(row) and row for row in rows)
    assert source.refresh().seq == 101


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
            with pytest.raises(OverlayError, match="has lost what it had"):
                act()
        assert store.load() == lost


# ---- what a hostile store, a wrong clock and a second process can do ------------------------------------------------


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
    with pytest.raises(OverlayError, match="has lost what it had"):
        resumed.renew()


def test_an_operator_remembers_beyond_its_process_and_goes_on_behind_what_was_seen() -> None:
    """`last` is kept: then a store that has less is refused, and one that is restored on purpose goes on with a greater number."""
    world = World()
    old = world.store.load()
    feed = Feed(world.store, [KEY.public], every=0, clock=world.now)
    for name in "abc":
        world.operator.revoke(agent=name, why="x")
    assert feed() is not None and world.operator.last == 4
    world.store._snapshot = old
    with pytest.raises(OverlayError, match="snapshot 4 was there, and now it is 1"):
        Operator(KEY, world.store, by="ops", clock=world.now, last=4).renew()
    assert Operator(KEY, world.store, by="ops", clock=world.now, last=4, resume="looked").renew().seq == 1000 * NOW
    assert feed.refresh().seq == 1000 * NOW


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


@pytest.mark.parametrize("last", [-1, MAX_INTEGER + 1, True, b"5", None, 1.0])
def test_what_was_seen_last_is_a_number_of_a_snapshot(last: Any) -> None:
    with pytest.raises(ValueError, match="the number of a snapshot"):
        Operator(KEY, MemorySnapshots(), by="ops", last=last)


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
    with pytest.raises(ValueError, match="stands"):
        operator.lift(done.id)


def test_an_entry_that_is_over_already_is_a_mistake() -> None:
    """`until` is a time: 3600 is no hour from now."""
    world = World()
    for until in (3600, NOW, NOW - 1):
        with pytest.raises(ValueError, match="it is a time"):
            world.operator.revoke(agent="a", why="x", until=until)
    assert world.operator.entries() == ()


def test_a_snapshot_lives_as_long_as_the_operator_says() -> None:
    store = MemorySnapshots()
    assert Operator(KEY, store, by="ops", clock=clock(), life=86_400).renew().expires_at == NOW + 86_400


def test_a_narrowing_to_operations_closes_tools_unless_they_are_kept() -> None:
    token, call = mint(tables=["sales"], operations=["select"], tools={"search": {}}), tool("search")
    for keep, expected in ((), "narrowed"), ("tools", "allowed"):
        world = World()
        world.operator.narrow(task="task-123", operations=["select"], keep=keep, why="reads only")
        assert (world.code(token), world.code(token, call)) == ("allowed", expected)


def test_a_narrowing_to_an_audience_goes_by_the_servers_that_the_token_leaves() -> None:
    """One server with two names, a token for the one and an entry that leaves the other: as if both were links."""
    world = World(audience=("warehouse", "replica"))
    token = mint().attenuate(audience="warehouse")
    assert world.code(token) == "allowed"
    world.operator.narrow(task="task-123", audience="replica", why="x")
    assert world.code(token) == "narrowed" == world.code(token.attenuate(audience="warehouse"))
    assert world.code(mint().attenuate(audience=["warehouse", "replica"])) == "allowed"


def test_entries_on_links_of_one_tree_are_found_by_the_link() -> None:
    """However many of them: a token is asked about those on its own links."""
    token, other = mint(), mint().delegate(to="x")
    chosen = [entry(Selector(token=token.token_id, link=b64encode(number.to_bytes(16, "big"))), f"e{number}") for number in range(999)]
    chosen.append(entry(Selector(token=token.token_id, link=other.link_id), "it"))
    opened = Overlay.open(snapshot(KEY, chosen, seq=1, issued_at=NOW), [KEY.public])
    assert len(opened._index.by_key) == 1000 and all(type(key) is bytes and len(found) == 1 for key, found in opened._index.by_key.items())
    one = verifier(overlay=opened)
    assert one.check(token, SELECT).code == "allowed" and one.check(other, SELECT).code == "revoked"


def test_what_a_feed_comes_upon_is_logged_once_each_time_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "captoken")
    world = World()
    feed = Feed(world.store, [KEY.public], every=0, clock=world.now)
    good = world.store.load()
    for stored in (good, None, None, b"x\x1b", good, good):
        world.store._snapshot = stored
        feed()
    assert [record.getMessage() for record in caplog.records] == [
        "the overlay: there is no snapshot yet: the operator publishes one (renew)",
        "the overlay: the snapshot is not signed by an operator that this server trusts",
        "the overlay: can be had again",
    ]
    world.store._snapshot = None
    with pytest.raises(OverlayError):
        feed.refresh()
    assert isinstance(feed.problem, OverlayError)


def test_what_an_operator_does_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "captoken")
    world = World()
    done = world.operator.revoke(agent="a", why="lost \x1b[2J")
    world.operator.lift(done.id, why="found")
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith(f"entry {done.id} by ops@example on Selector(agent='a'") and said[0].endswith("lost \\x1b[2J")
    assert said[1] == f"entry {done.id} lifted by ops@example: found"


def test_a_child_process_looks_although_its_parent_was_looking_when_it_was_made() -> None:
    """The lock that a thread of the parent holds is nobody's in the child; and so is an operator's."""
    world = World()
    feed = Feed(world.store, [KEY.public], every=0, clock=world.now)
    feed()
    with feed._lock.held(), world.operator._history._lock.held():
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            world.operator.revoke(agent="a", why="x")
            os._exit(0 if feed() is not None and len(feed().entries) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with feed._lock.held(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 0)  # as the child is told
        assert feed() is not None


def test_every_0_waits_for_whoever_looks() -> None:
    """A check that begins after `revoke` returned is never allowed, though another thread's look hangs."""
    world, entered, go_on = World(), threading.Event(), threading.Event()

    class Slow(MemorySnapshots):
        def load(self) -> bytes | None:
            found = super().load()
            if threading.current_thread().name == "slow":
                entered.set()
                go_on.wait(20)
            return found

    store = Slow()
    operator = Operator(KEY, store, by="ops", clock=world.now)
    operator.renew()
    server = verifier(overlay=Feed(store, [KEY.public], every=0, clock=world.now))
    assert server.check(mint(), SELECT)
    slow = threading.Thread(target=lambda: server.check(mint(), SELECT), name="slow")
    slow.start()
    assert entered.wait(20)
    operator.end_task("task-123")
    codes: list[str] = []
    late = threading.Thread(target=lambda: codes.append(server.check(mint(), SELECT).code))
    late.start()
    go_on.set()
    slow.join()
    late.join()
    assert codes == ["revoked"]
