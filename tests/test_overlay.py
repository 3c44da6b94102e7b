"""The overlay: what selects a token, what an entry does to it, who may say so, and what a server does without one."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from captoken import Access, Caller, Decision, Denied, Issuer, Keyring, Token
from captoken._format import primitives
from captoken._format.encoding import b64decode, b64encode, encode_json
from captoken._language import overlay as module
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
        with pytest.raises(ValueError, match="there is no entry"):
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


# ---- what a hostile store, a wrong clock and a second process can do ------------------------------------------------


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
