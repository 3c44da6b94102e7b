"""Class G: what is revoked is dead, at once and with all below it, and nothing else is; no store's fault is an allowance.

Trees, escapes and faults are made from seeds. Each denial stands beside the same request before the revocation, which is
allowed. The counts reached are in the docstrings. (What a killed process acknowledged is in `stores/`.)
"""

import errno
import random
import sys
import threading

import pytest

from captoken import Access, Denied, Issuer, Token, Verifier
from captoken._format import chain, primitives
from captoken._format.encoding import b64encode
from captoken._format.root import RootRecord
from captoken._language.entries import SelectorFacts
from captoken._language.overlay import snapshot
from captoken.control import Entry, Feed, Operator, Overlay, Selector
from captoken.discharge import Allow, Discharger
from captoken.errors import OverlayError, StoreError
from captoken.keys import DischargerKey, HolderKey, OperatorKey
from captoken.proof import with_proof
from captoken.stores.memory import MemoryReplayStore, MemorySnapshots
from captoken.testing import FixedClock
from tests.reference import evaluator
from tests.reference.fixtures import (
    ASK,
    NOW,
    SALES,
    access,
    append,
    assemble,
    from_wire,
    hop,
    keyring,
    n,
    sections,
    text,
    to_wire,
)

KEY = OperatorKey.from_bytes(bytes(range(3, 35)))
PARTY = DischargerKey.from_bytes(bytes(range(6, 38)))
HOLDER, MALLORY = HolderKey.from_bytes(bytes(range(7, 39))), HolderKey.from_bytes(bytes(range(8, 40)))
SELECT = access(ASK)
WHO = {"subject": "user:jane", "agent": "orchestrator", "task": "task-123"}


class Control:
    """A store, an operator and a server that looks at the store at every check."""

    def __init__(self, store=None, now=None, **facts):
        self.now = now or FixedClock(NOW)
        self.store = store or MemorySnapshots()
        self.operator = Operator(KEY, self.store, by="ops", clock=self.now)
        self.operator.renew()
        self.feed = Feed(self.store, [KEY.public], clock=self.now)
        self.server = server(self.feed.refresh, clock=self.now, **facts)

    def code(self, token_text, **facts):
        return self.server.check(token_text, SELECT, **facts).code


def server(overlay, **facts):
    return Verifier(keyring(), **{"overlay": overlay, "clock": FixedClock(NOW), "replays": MemoryReplayStore(floor=0), **facts})


@pytest.fixture
def hurried():
    """Threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def in_threads(run, count):
    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def link_id(token_text):
    return b64encode(primitives.link_id(sections(token_text)[2]))


# ---- G1: the subtree, and nothing but the subtree ------------------------------------------------------------------


def tree(rng, size):
    """(texts, parents): a random tree of tokens, each made from one before it: handed on, narrowed, or moved to a task
    below."""
    texts, parents, holders, tasks = [text(SALES)], [None], ["orchestrator"], ["task-123"]
    parts, depths = [sections(texts[0])], [0]
    while len(texts) < size:
        at = rng.randrange(len(texts)) if rng.random() < 0.5 else rng.randrange(max(0, len(texts) - 20), len(texts))
        if depths[at] > 40:
            continue
        number, kind = len(texts), rng.randrange(3)
        link = {"nbf": NOW - number}
        holder, task = holders[at], tasks[at]
        if kind == 0:
            holder = f"a{number}"
            link = hop(holder, holders[at], number)
        elif kind == 1 and len(task) < 60:
            task = f"{task}/{number}"
            link = {"task": task}
        identifier, bodies, tag = parts[at]
        body = evaluator.canonical(link).encode()
        parts.append((identifier, [*bodies, body], chain.link_tag(tag, body)))
        texts.append(assemble(*parts[-1]))
        parents.append(at)
        holders.append(holder)
        tasks.append(task)
        depths.append(depths[at] + 1)
    return texts, parents


def subtree(parents, root):
    below = {root}
    for at in range(root + 1, len(parents)):
        if parents[at] in below:
            below.add(at)
    return below


def test_g1_a_revoked_link_kills_exactly_its_subtree():
    """G1: 16 random trees of 1,000 tokens each, up to 41 links deep, 16,000 tokens; in each one link is revoked by its public
    id, and every token of the tree is shown to a server: the revoked ones are the subtree, the rest is allowed."""
    rng = random.Random(20261101)
    sizes = []
    for number in range(16):
        texts, parents = tree(rng, 1000)
        control = Control()
        target = (0, 999, 500, *rng.sample(range(1, 60), 13))[number]
        control.operator.revoke(link=link_id(texts[target]), why="x")
        one = server(control.feed())
        codes = [one.check(token_text, SELECT).code for token_text in texts]
        expected = subtree(parents, target)
        assert {at for at, code in enumerate(codes) if code == "revoked"} == expected
        assert {code for at, code in enumerate(codes) if at not in expected} <= {"allowed"}
        sizes.append(len(expected))
    assert sizes[:2] == [1000, 1] and len(set(sizes)) > 8


def test_g1_of_a_thousand_trees_exactly_one_subtree_dies_in_each():
    """G1: 1,000 random trees of 3 to 24 tokens, and a link revoked in each."""
    rng = random.Random(20261103)
    count = 0
    for _ in range(1000):
        texts, parents = tree(rng, rng.randint(3, 24))
        target = rng.randrange(len(texts))
        entry = Entry(id="e", at=NOW, by="ops", why="x", select=Selector(link=link_id(texts[target])))
        one = server(Overlay.open(snapshot(KEY, [entry], seq=1, issued_at=NOW), [KEY.public]))
        codes = [one.check(token_text, SELECT).code for token_text in texts]
        assert {at for at, code in enumerate(codes) if code == "revoked"} == subtree(parents, target)
        assert set(codes) <= {"revoked", "allowed"}
        count += len(texts)
    assert count > 10_000


def test_g1_many_links_at_once_kill_the_union_of_their_subtrees():
    """G1: 10 trees of 200 tokens, of each 1 to 20 links revoked, some below others; narrowed ones beside them stay genuine."""
    rng = random.Random(20261102)
    for _ in range(10):
        texts, parents = tree(rng, 200)
        control, targets = Control(), rng.sample(range(1, 200), rng.randint(1, 20))
        narrowed = rng.sample(range(1, 200), 5)
        for target in targets:
            control.operator.revoke(link=link_id(texts[target]), why="x")
        for target in narrowed:
            control.operator.narrow(link=link_id(texts[target]), tables=["hr"], operations=["*"], why="y")
        dead = set().union(*(subtree(parents, target) for target in targets))
        less = set().union(*(subtree(parents, target) for target in narrowed)) - dead
        expected = ["revoked" if at in dead else "narrowed" if at in less else "allowed" for at in range(200)]
        one = server(control.feed())
        assert [one.check(token_text, SELECT).code for token_text in texts] == expected


# ---- G2: faults of the store ---------------------------------------------------------------------------------------

GOOD = snapshot(KEY, [], seq=5, issued_at=NOW)
FAULTS = {
    "down": ConnectionRefusedError("down"),
    "slow": TimeoutError("too slow"),
    "an exception": RuntimeError("x"),
    "none": None,
    "wrong type": "text",
    "empty": b"",
    "corrupt": GOOD[:40] + b"\0" + GOOD[41:],
    "stale": snapshot(KEY, [], seq=4, issued_at=NOW - 10),
    "partial": GOOD[: len(GOOD) // 2],
    "permission": PermissionError(errno.EACCES, "denied"),
    "full disk": OSError(errno.ENOSPC, "no space left"),
    "locked": StoreError("the database is locked"),
}


class Faulty(MemorySnapshots):
    """A store that has a good snapshot, until it fails in one of twelve ways."""

    def __init__(self):
        super().__init__()
        self.fault = None
        self.publish(GOOD, None)

    def load(self):
        if self.fault is None or self.fault == "full disk":
            return super().load()
        return self._failed()

    def publish(self, snapshot, after):
        if getattr(self, "fault", None) is None or not isinstance(FAULTS[self.fault], Exception):
            return super().publish(snapshot, after)
        return self._failed()

    def _failed(self):
        if isinstance(FAULTS[self.fault], Exception):
            raise FAULTS[self.fault]
        return FAULTS[self.fault]


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_g2_a_store_that_fails_allows_nothing(fault, caplog):
    """G2: 12 faults x 3 operations. A server that starts then denies; one that runs denies once what it knows is stale, and not
    before; a revocation raises, and what stood stands. The open mode is named, allows, and is logged each time."""
    token_text, now, store = text(SALES, iat=NOW - 500), FixedClock(NOW), Faulty()
    known = Feed(store, [KEY.public], clock=now)
    running = server(known, clock=now)
    assert running.check(token_text, SELECT).code == "allowed"
    store.fault = fault

    # A server that starts. (Where only writing fails, or the snapshot is old and good, there is one to start with.)
    fresh = server(Feed(store, [KEY.public], clock=now), clock=now)
    if fault in ("full disk", "stale"):
        now.advance(61)
    assert fresh.check(token_text, SELECT).code == "stale_overlay"
    direct = server(Feed(store, [KEY.public], clock=now).refresh, clock=now)
    assert direct.check(token_text, SELECT).code in ("store_unavailable", "stale_overlay")

    # One that runs.
    for second, expected in ((60, "allowed"), (61, "stale_overlay"), (10**6, "stale_overlay")):
        now.now = NOW + second
        assert running.check(token_text, SELECT).code == expected
    now.now = NOW + 61
    open_ = server(known, clock=now, allow_stale_overlay=True)
    assert open_.check(token_text, SELECT).code == "allowed" and "deciding without a fresh overlay" in caplog.text

    # The operator.
    now.now = NOW
    operator = Operator(KEY, store, by="ops", clock=now)
    calls = [lambda: operator.revoke(kid="k1", why="x"), operator.renew, lambda: operator.end_task("task-123")]
    for call in calls:
        with pytest.raises((OSError, StoreError, OverlayError, RuntimeError)):
            call()
    store.fault = None
    assert store.load() == GOOD
    assert running.check(token_text, SELECT).code == "allowed" and [bool(call()) for call in calls] == [True] * 3
    now.advance(5)
    assert running.check(token_text, SELECT).code == "revoked"


# ---- G3: at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["a feed that refreshes", "the store itself", "a grant"])
def test_g3_a_check_that_starts_after_revoke_returned_is_never_allowed(kind, hurried):
    """G3: 8 threads verify 64 tokens while a ninth revokes one after the other: of 1,600 checks and more that started after
    `revoke` had returned for its token none is allowed, and none that ended before it was called is refused."""
    control = Control()
    source = control.feed.refresh if kind != "the store itself" else lambda: Overlay.open(control.store.load(), [KEY.public])
    one = server(source)
    texts = [text({**SALES, "nbf": NOW - 1 - number}) for number in range(64)]
    grants = [one.authenticate(token_text) for token_text in texts]
    begun, done, over, wrong, counts = set(), set(), threading.Event(), [], []

    def run(number):
        rng, late, left = random.Random(number), 0, 200
        while left:
            left -= over.is_set()
            at = rng.randrange(64)
            dead = at in done
            code = (grants[at].check(SELECT) if kind == "a grant" else one.check(texts[at], SELECT)).code
            alive = at not in begun
            if code != "revoked" if dead else (alive and code != "allowed"):
                wrong.append((at, code))
            late += dead
        counts.append(late)

    def revoke():
        for at, token_text in enumerate(texts):
            begun.add(at)
            control.operator.revoke(link=link_id(token_text), why="x")
            done.add(at)
        over.set()

    in_threads(lambda number: revoke() if number == 8 else run(number), 9)
    assert wrong == [] and len(counts) == 8 and sum(counts) >= 8 * 200


def test_g3_a_feed_is_never_further_behind_than_it_says():
    """G3: a feed that looks every five seconds: five seconds after `revoke` returned nothing is allowed, whichever second the
    revocation came in; and once somebody has refreshed it, at once."""
    for second in range(6):
        control, token_text = Control(), text(SALES)
        source = Feed(control.store, [KEY.public], clock=control.now)
        one = server(source, clock=control.now)
        assert one.check(token_text, SELECT).code == "allowed"
        control.now.advance(second)
        one.check(token_text, SELECT)
        control.operator.revoke(kid="k1", why="x")
        control.now.advance(5)
        assert one.check(token_text, SELECT).code == "revoked"
    control = Control()
    one = server(control.feed, clock=control.now)
    assert one.check(text(SALES), SELECT).code == "allowed"
    control.operator.revoke(kid="k1", why="x")
    control.feed.refresh()
    assert one.check(text(SALES), SELECT).code == "revoked"


# ---- G5: no way out ------------------------------------------------------------------------------------------------


def escapes():
    """A token that is handed on, asks a third party and is answered; and what its holder can make of it. Genuine, all of it."""
    clock = FixedClock(NOW)
    minted = Issuer(keyring(), clock=clock).mint(**WHO, **SALES)
    token = minted.delegate(to="sales-agent").require(PARTY.public, need={"approve": "x"})
    discharger = Discharger(PARTY, lambda need: Allow(expires_in=60), clock=clock)
    first, second = (discharger.discharge(token.needs[0]) for _ in range(2))
    answered = token.with_discharge(first)
    bound = answered.attenuate(key=HOLDER.public)

    def shown(one, **facts):
        return one.present(audience="db", clock=clock, **facts)

    yield "as it is", shown(answered), None
    yield "parsed and written again", shown(Token.parse(answered.serialize(), clock=clock)), None
    yield "other discharge", shown(token.with_discharge(second)), None
    yield "discharged anew", shown(token.with_discharge(discharger.approve(token.needs[0], Allow(expires_in=5)))), None
    yield (
        "asks another third party",
        shown(
            (asking := answered.require(PARTY.public, need={"lease": "y"})).with_discharge(
                discharger.discharge(asking.needs[0])
            )
        ),
        None,
    )
    yield "bound to a key", shown(bound), HOLDER
    yield "bound to another", shown(answered.attenuate(key=MALLORY.public)), MALLORY
    yield "bound anew", shown(bound.attenuate(key=MALLORY.public, signer=HOLDER)), MALLORY
    yield "handed on with a key", shown(bound.delegate(to="eu-agent", key=MALLORY.public, signer=HOLDER)), MALLORY
    for name, made in {
        "narrowed": answered.attenuate(tables=["sales"], operations=["select"]),
        "to a task below": answered.attenuate(task="task-123/a"),
        "to a task far below": answered.attenuate(task="task-123/a/b/c"),
        "to the same task": answered.attenuate(task="task-123"),
        "expiring": answered.attenuate(expires_in=30),
        "begun": answered.attenuate(not_before=NOW - 10**6),
        "handed on": answered.delegate(to="eu-agent"),
        "handed on twice": answered.delegate(to="eu-agent").delegate(to="x"),
        "handed to a name like it": answered.delegate(to="Sales-agent"),
        "addressed": answered.attenuate(audience=["db", "other"]),
        "fresh": answered.attenuate(fresh=60),
        "thirty links more": _longer(answered, 30),
    }.items():
        yield name, shown(made), None
    yield "presented otherwise", shown(answered, task="task-123/z", operations=["select"], tables=["sales"]), None
    yield "presented for a second", answered.present(audience="db", clock=clock, expires_in=1), None


def _longer(token, count):
    for _ in range(count):
        token = token.attenuate(operations=["select"], tables=["sales"])
    return token


SELECTORS = {
    "token": lambda grant: {"token": grant.token_id},
    "first link": lambda grant: {"link": grant.link_ids[0]},
    "its link": lambda grant: {"link": grant.link_ids[1]},
    "its question": lambda grant: {"link": grant.link_ids[2]},
    "task": lambda grant: {"task": "task-123"},
    "agent": lambda grant: {"agent": "sales-agent"},
    "first agent": lambda grant: {"agent": "orchestrator"},
    "subject": lambda grant: {"subject": "user:jane"},
    "key": lambda grant: {"kid": "k1"},
    "time": lambda grant: {"issued_before": NOW + 1},
    "all of it": lambda grant: {
        "token": grant.token_id,
        "link": grant.link_ids[1],
        "task": "task-123",
        "agent": "sales-agent",
        "subject": "user:jane",
        "kid": "k1",
        "issued_before": NOW + 1,
    },
}


@pytest.mark.parametrize("selector", sorted(SELECTORS))
def test_g5_nothing_that_a_holder_makes_of_a_revoked_token_works(selector):
    """G5: 11 selectors x 23 tokens made from the one that is revoked, 253: re-encoded, narrowed, handed on, moved to a task
    below, bound to a key, to another, discharged anew. All are allowed before, and revoked after."""
    control, made = Control(audience="db"), list(escapes())

    def code(token_text, key):
        if key is not None:
            token_text = with_proof(token_text, key, audience="db", request=SELECT, clock=control.now)
        return control.code(token_text)

    assert {name: code(token_text, key) for name, token_text, key in made} == {name: "allowed" for name, _, _ in made}
    grant = control.server.authenticate(made[0][1])
    control.operator.revoke(why="x", **SELECTORS[selector](grant))
    assert {name: code(token_text, key) for name, token_text, key in made} == {name: "revoked" for name, _, _ in made}
    assert grant.check(SELECT).code == "revoked" and len(made) == 23


def test_g5_a_text_that_is_spelled_otherwise_is_no_way_out():
    """G5: 300 spellings of a revoked token, each changed in one place or written in another form: none is allowed."""
    rng, token_text = random.Random(20261105), text(SALES, hop("sales-agent"))
    control = Control()
    assert control.code(token_text) == "allowed"
    control.operator.revoke(link=link_id(token_text), why="x")
    wire, alphabet = to_wire(token_text), "ABCdef019-_+/=. \n"
    made = [
        token_text + "=",
        token_text + "==",
        token_text + ".",
        " " + token_text,
        token_text + "\n",
        token_text.upper(),
        token_text.lower(),
        token_text.replace("-", "+").replace("_", "/") + "=",
        "CAP1_" + token_text[5:],
        token_text[5:],
        from_wire(wire + b"\0"),
        from_wire(b"\2" + wire),
    ]
    while len(made) < 300:
        at = rng.randrange(len(token_text))
        made.append(token_text[:at] + rng.choice(alphabet) + token_text[at + rng.randrange(2) :])
    codes = {control.code(spelled) for spelled in made if spelled != token_text}
    assert "allowed" not in codes and codes <= {"malformed", "bad_signature", "unknown_key", "revoked", "unsupported_version"}


def test_g5_links_cut_off_or_moved_are_no_way_out():
    """G5: a child takes its parent's links apart: fewer, doubled, in another order, with the tag that it has: none is
    allowed."""
    child = append(text(SALES, hop("a")), hop("b", "a", 1), {"nbf": NOW})
    control = Control()
    assert control.code(child) == "allowed"
    control.operator.revoke(agent="a", why="x")
    identifier, bodies, tag = sections(child)
    made = [assemble(identifier, bodies[:count], tag) for count in range(1, len(bodies))]
    made += [assemble(identifier, [body for body in bodies if body is not left_out], tag) for left_out in bodies]
    made += [assemble(identifier, [*bodies, body], tag) for body in bodies] + [assemble(identifier, bodies[::-1], tag)]
    assert {control.code(one) for one in made} == {"bad_signature"}
    assert control.code(append(child, {"task": "task-123/a"}, hop("c", "b", 2))) == "revoked"


def test_g5_a_revoked_holder_cannot_come_back_by_another_branch():
    """G5: the same agent's other token lives if its link alone was revoked, and dies if the agent was; the parent lives in
    both."""
    for selector, other in (({"link": None}, "allowed"), ({"agent": "a"}, "revoked")):
        parent = text(SALES)
        first, second = append(parent, hop("a")), append(parent, {**hop("a"), "n": n(7)})
        control = Control()
        control.operator.revoke(why="x", **(selector if "agent" in selector else {"link": link_id(first)}))
        assert [control.code(one) for one in (parent, first, second)] == ["allowed", "revoked", other]


# ---- G6: many entries ----------------------------------------------------------------------------------------------


def test_g6_among_many_entries_each_is_found_and_no_other():
    """G6: one snapshot of 20,000 entries, of each kind of selector; 2,000 tokens are asked about through the index, and each
    gets what asking all entries one by one gives for a sample of them."""
    rng = random.Random(20261106)
    ids = [b64encode(rng.randbytes(16)) for _ in range(4000)]
    kinds = [
        lambda: {"token": rng.choice(ids)},
        lambda: {"link": rng.choice(ids)},
        lambda: {"agent": f"a{rng.randrange(4000)}"},
        lambda: {"subject": f"user:{rng.randrange(4000)}"},
        lambda: {"task": f"t{rng.randrange(2000)}/{rng.randrange(3)}"},
        lambda: {"task": f"t{rng.randrange(2000)}", "agent": f"a{rng.randrange(400)}"},
        lambda: {"kid": f"k{rng.randrange(400)}", "issued_before": rng.randrange(NOW)},
    ]
    entries = [
        Entry(
            at=NOW,
            by="ops",
            id=f"e{number}",
            select=Selector(**rng.choice(kinds)()),
            why="x",
            until=rng.choice([None, NOW - 1, NOW + 1]),
        )
        for number in range(20_000)
    ]
    entries.append(Entry(at=NOW, by="ops", id="old", select=Selector(issued_before=50), why="x"))
    overlay = Overlay.open(snapshot(KEY, entries, seq=1, issued_at=NOW), [KEY.public])
    found = 0
    for number in range(2000):
        task, agents = f"t{rng.randrange(2000)}/{rng.randrange(4)}/x", [f"a{rng.randrange(4000)}" for _ in range(3)]
        issued = RootRecord(
            token_id=rng.choice(ids),
            subject=f"user:{rng.randrange(4000)}",
            agent=agents[0],
            task=task,
            key_id=f"k{rng.randrange(400)}",
            issued_at=rng.choice([0, rng.randrange(NOW)]),
            version=1,
        )
        links = [evaluator.unbase64(rng.choice(ids)) for _ in range(rng.randint(1, 5))]
        facts = SelectorFacts(issued, links, task, agents)
        on = {entry.id for entry in overlay.on(facts, NOW)}
        found += len(on)
        if number % 100 == 0:
            assert on == {one.id for one in entries if (one.until is None or one.until > NOW) and one.select.selects(facts)}
    assert found > 2000


def test_g6_pruning_drops_no_entry_that_stands_and_a_clock_that_goes_back_revives_nobody():
    """G6: 300 entries that end at random moments, or never; an operator whose clock jumps back and forth renews 100 times:
    whoever has ended stays for a day, for the clock of whoever signs next, what was dropped does not come back, and `iat` is
    the present where the one before was signed by a clock that is ahead by more than a minute."""
    rng, store, now = random.Random(20261107), MemorySnapshots(), FixedClock(NOW)
    entries = [
        Entry(
            at=NOW,
            by="ops",
            id=f"e{number}",
            select=Selector(agent=f"a{number}"),
            why="x",
            until=rng.choice([None, NOW + rng.randrange(1, 1000)]),
        )
        for number in range(300)
    ]
    store.publish(snapshot(KEY, entries, seq=1, issued_at=NOW), None)
    operator, latest = Operator(KEY, store, by="ops", clock=now), NOW
    issued = NOW
    for _ in range(100):
        now.now = NOW + rng.randrange(-500, 1200) + rng.choice([0, 0, 86_400])
        latest = max(latest, now.now)
        operator = Operator(KEY, store, by="ops", clock=now, last=operator.seen, alone=True)
        left = operator.renew()
        assert {one.id for one in left.entries} == {one.id for one in entries if one.until is None or one.until + 86_400 > latest}
        assert left.issued_at == (now.now if issued > now.now + 60 else max(issued, now.now))
        issued = left.issued_at
    assert left.seq == 101


# ---- what a client is told -----------------------------------------------------------------------------------------


def test_a_client_cannot_tell_a_revoked_token_from_a_forged_one():
    """J6 for revocation: the same sentence and the same kind for a bad signature, an unknown key and a revoked token; an old
    overlay says only that nothing can be decided."""
    control, token_text = Control(), text(SALES)
    control.operator.revoke(kid="k1", why="the secret reason")
    told = set()
    for one in (
        token_text,
        token_text[:-2] + ("AA" if token_text[-2:] != "AA" else "BA"),
        text(SALES, key=bytes(range(9, 41))),
        text(SALES, kid="k9"),
    ):
        with pytest.raises(Denied) as caught:
            control.server.authorize(one, SELECT)
        told.add((caught.value.public, caught.value.kind))
    assert len(told) == 1
    with pytest.raises(Denied) as caught:
        server(lambda: None).authorize(token_text, Access(table="sales", operation="select"))
    assert caught.value.kind == "unavailable" and "overlay" not in caught.value.public
