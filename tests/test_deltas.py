"""Deltas of the overlay: what follows by them is what the operator signed, to the byte; anything else changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from random import Random
from time import monotonic
from typing import Any

import msgspec
import pytest

from captoken import Verifier
from captoken._format import primitives
from captoken._format.encoding import MAX_INTEGER, b64encode, encode_json
from captoken._language import overlay as module
from captoken._language.entries import SelectorFacts
from captoken._language.overlay import LIFE, MarkedDelta, delta, snapshot, whole
from captoken.control import Entry, Operator, Overlay, Selector
from captoken.errors import OverlayError
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW, clock, data, mint
from tests.longer import drawing, times

KEY = OperatorKey.from_bytes(bytes(range(3, 35)))
OTHER = OperatorKey.from_bytes(bytes(range(4, 36)))
TRUSTED = [KEY.public]
SELECT = data("sales")


def entry(name: str, **facts: Any) -> Entry:
    return Entry(**{"at": NOW, "by": "ops", "id": name, "select": Selector(agent=f"agent-{name}"), "why": "lost", **facts})


def opened(*entries: Entry, seq: int = 1, **facts: Any) -> Overlay:
    return Overlay.open(snapshot(KEY, entries, seq=seq, issued_at=NOW, **facts), TRUSTED)


def step(known: Overlay, *, drop: Any = (), add: Any = (), seq: int | None = None, key: OperatorKey = KEY, **facts: Any) -> MarkedDelta:
    """A delta to the next number, a second later."""
    number = known.seq + 1 if seq is None else seq
    return delta(key, known, **{"drop": drop, "add": add, "seq": number, "issued_at": known.issued_at + 1, **facts})


def signed(body: bytes, key: OperatorKey = KEY, label: str = "delta") -> bytes:
    return body + b"." + b64encode(key.sign(primitives.label(label) + primitives.sha256(body))).encode()


def told(overlay: Overlay) -> Any:
    """All that an overlay says and does."""
    facts = SelectorFacts(mint().unverified.root, [bytes(16)], "task-123", tuple(f"agent-{n}" for n in range(200)))
    on = sorted(one.id for one in overlay.on(facts, NOW))
    links = {one.id: repr(overlay.link(one)) for one in overlay.entries}
    by_id = sorted(overlay.entries, key=lambda one: one.id)
    looked_up = [overlay.entry(one.id) for one in by_id]
    assert looked_up == by_id and overlay.entry("~") is None
    stated = (overlay.seq, overlay.issued_at, overlay.expires_at, overlay.digest, overlay.size, overlay.asked_bytes, overlay.past)
    return (*stated, by_id, on, links, overlay.touches(facts.keys))


# ---- what they give ------------------------------------------------------------------------------------------------


class Row:
    """Snapshots, each with the delta to the next, drawn at random."""

    def __init__(self, drawn: Random, count: int) -> None:
        self.drawn, self.number = drawn, 0
        self.overlays = [opened(*(self.entry() for _ in range(drawn.randint(0, 9))), past=())]
        self.steps: list[MarkedDelta] = []
        for _ in range(count):
            known = self.overlays[-1]
            ids = [one.id for one in known.entries]
            drop = drawn.sample(ids, drawn.randint(0, min(3, len(ids))))
            add = [self.entry() for _ in range(drawn.choice((0, 0, 1, 1, 2, 5)))]
            seq = known.seq + drawn.choice((1, 1, 1, 40))
            self.steps.append(step(known, drop=drop, add=add, seq=seq, life=drawn.choice((60, LIFE))))
            left = [one for one in known.entries if one.id not in drop] + add
            self.drawn.shuffle(left)
            issued = known.issued_at + 1
            life = Overlay.follow(known, [self.steps[-1].delta], TRUSTED).expires_at - issued
            written = snapshot(KEY, left, seq=seq, issued_at=issued, life=life, past=known.next_past)
            self.overlays.append(Overlay.open(written, TRUSTED))

    def entry(self) -> Entry:
        self.number += 1
        drawn, name = self.drawn, f"{self.drawn.randrange(10**6):06}-{self.number}"
        at = drawn.randrange(40)
        select = drawn.choice(
            [
                {"agent": f"agent-{at}"},
                {"token": b64encode(bytes([at % 3] * 16)), "link": b64encode(bytes([at] * 16))},
                {"task": "task-123"},
                {"issued_before": NOW + at},
                {"kid": "k1", "subject": "user:jane"},
            ]
        )
        facts: dict[str, Any] = {"select": Selector(**select), "why": drawn.choice(("lost", "f\u00fcr \u2028 \U0001f600", 'x"},{"add":'))}
        if drawn.random() < 0.3:
            facts["link"] = drawn.choice(({"tables": ["sales"]}, {"where": {"\uff21": {"any": True}, "\U0001f600": {"any": True}}}))
        elif "token" in select and drawn.random() < 0.5:
            facts["asked"] = tuple(b64encode(bytes([n] * 16)) for n in range(drawn.randrange(3)))
        if drawn.random() < 0.3:
            facts["until"] = NOW + drawn.randint(-5, 500)
        return entry(name, **facts)


@pytest.mark.parametrize("seed", range(8))
def test_what_follows_by_deltas_is_what_the_whole_says(seed: int) -> None:
    """Rows of 40 snapshots with any changes: one by one, some at once, all at once, and behind the first one as a text: each
    time the very overlay that the whole snapshot gives; and what was followed from is as it was."""
    for _ in range(times(2)):
        drawn = drawing(seed)
        row = Row(drawn, 40)
        before = [told(overlay) for overlay in row.overlays]
        followed = row.overlays[0]
        for at, one in enumerate(row.steps):
            followed = followed.follow([one.delta], TRUSTED)
            assert told(followed) == before[at + 1]
            assert (one.after, one.gives) == (row.overlays[at].digest, followed.digest)
            # Made whole, it is the same, byte by byte and by its mark.
            assert told(Overlay.open(whole(KEY, followed), TRUSTED)) == before[at + 1]
        for _ in range(10):
            start, end = sorted(drawn.sample(range(41), 2))
            deltas = [one.delta for one in row.steps[start:end]]
            assert told(row.overlays[start].follow(deltas, TRUSTED)) == before[end]
            text = b"\n".join((whole(KEY, row.overlays[start]), *deltas))
            assert told(Overlay.open(text, TRUSTED)) == before[end]
        assert [told(overlay) for overlay in row.overlays] == before


def test_the_order_of_a_whole_snapshot_makes_no_other_of_it() -> None:
    """What deltas name is the hash in the order of ids; what is signed is in the order as it came."""
    one, two = entry("1"), entry("2")
    straight, turned = opened(one, two), opened(two, one)
    assert straight.digest == turned.digest and turned.entries == (two, one)
    made = step(straight, drop=["1"])
    assert turned.follow([made.delta], TRUSTED).entries == (two,)


# ---- what is refused -----------------------------------------------------------------------------------------------

KNOWN = opened(entry("b"), entry("d", link={"tables": ["sales"]}), seq=7)
GOOD = step(KNOWN, drop=["b"], add=[entry("a"), entry("c")])


def refused(made: Any, match: str = "", known: Overlay = KNOWN) -> None:
    """By itself, after a good one before it, and behind the whole: and what is known is as it was."""
    before = told(known)
    with pytest.raises(OverlayError, match=match):
        known.follow([made], TRUSTED)
    if type(made) is bytes:
        with pytest.raises(OverlayError):
            Overlay.open(whole(KEY, known) + b"\n" + made, TRUSTED)
    assert told(known) == before


def test_control_the_delta_that_is_changed_below_is_good() -> None:
    followed = KNOWN.follow([GOOD.delta], [OTHER.public, *TRUSTED])
    assert [one.id for one in followed.entries] == ["a", "c", "d"]
    assert (followed.seq, followed.issued_at, followed.expires_at) == (8, NOW + 1, NOW + 1 + LIFE)
    assert KNOWN.follow([], TRUSTED).digest == KNOWN.digest
    assert KNOWN.follow([signed(encode_json(body_of(GOOD.delta)))], TRUSTED).digest == followed.digest


def test_every_bit_of_a_delta_counts() -> None:
    """Each bit flipped, each byte left out or twice, each cut at either end: refused, and nothing changes."""
    made, before = GOOD.delta, told(KNOWN)
    for at in range(len(made) * 8):
        changed = bytearray(made)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(OverlayError):
            KNOWN.follow([bytes(changed)], TRUSTED)
    for at in range(len(made)):
        for changed_ in (made[:at], made[at + 1 :], made[:at] + made[at + 1 :], made[:at] + made[at : at + 1] + made[at:]):
            with pytest.raises(OverlayError):
                KNOWN.follow([changed_], TRUSTED)
    assert told(KNOWN) == before


def test_only_a_delta_that_an_operator_signed_as_one_is_taken() -> None:
    """Another signer, another label, a snapshot, nothing, what is no bytes."""
    body = GOOD.delta[:-87]
    refused(signed(body, OTHER), "not signed by an operator")
    for label in ("overlay", "audit", "link"):
        refused(signed(body, label=label), "not signed by an operator")
    refused(body + b"." + b64encode(KEY.sign(primitives.sha256(body))).encode(), "not signed by an operator")
    for made in (b"", b"{", whole(KEY, KNOWN), body, GOOD.delta + b"\n", GOOD.delta * 2, None, "x", 5, bytearray(GOOD.delta)):
        refused(made, "not signed by an operator")
    with pytest.raises(OverlayError, match="not signed by an operator"):
        Overlay.open(GOOD.delta, TRUSTED)
    with pytest.raises(OverlayError, match="not signed by an operator"):
        Overlay.open(signed(whole(KEY, KNOWN)[:-87], label="delta"), TRUSTED)


def test_a_delta_follows_on_one_snapshot_alone() -> None:
    """Not on another of its number, on one before or after, on what it gives, twice, or with one left out."""
    following = KNOWN.follow([GOOD.delta], TRUSTED)
    next_ = step(following, add=[entry("e")])
    for known in (
        opened(entry("b"), seq=7),
        opened(*KNOWN.entries, seq=6),
        opened(*KNOWN.entries, seq=8),
        opened(*KNOWN.entries, seq=7, life=LIFE + 1),
        opened(seq=7),
        following,
    ):
        refused(GOOD.delta, "another snapshot", known)
    refused(next_.delta, "another snapshot")
    for deltas in ([GOOD.delta, GOOD.delta], [next_.delta, GOOD.delta], [next_.delta]):
        with pytest.raises(OverlayError, match="another snapshot"):
            KNOWN.follow(deltas, TRUSTED)
        with pytest.raises(OverlayError, match="another snapshot"):
            Overlay.open(b"\n".join((whole(KEY, KNOWN), *deltas)), TRUSTED)
    assert KNOWN.follow([GOOD.delta, next_.delta], TRUSTED).seq == 9


def test_one_delta_sent_many_times_makes_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger has one that an operator signed, and fills a text with it: as many signatures are checked as lead somewhere."""
    checked = []
    signed_by = primitives.signed
    monkeypatch.setattr(primitives, "signed", lambda *given: checked.append(given) or signed_by(*given))
    with pytest.raises(OverlayError, match="another snapshot"):
        Overlay.open(b"\n".join((whole(KEY, KNOWN), *[GOOD.delta] * 10_000)), TRUSTED)
    assert len(checked) == 3


def body_of(made: bytes) -> dict[str, Any]:
    return msgspec.json.decode(made[:-87])  # type: ignore[no-any-return]


def changed(**facts: Any) -> bytes:
    """The good delta with other facts, signed; None leaves one out."""
    stated = {**body_of(GOOD.delta), **facts}
    return signed(encode_json({key: value for key, value in stated.items() if value is not None}))


AFTER, GIVES = body_of(GOOD.delta)["after"], body_of(GOOD.delta)["gives"]
ONE, TWO = body_of(GOOD.delta)["add"]
LIES: dict[str, tuple[bytes, str]] = {
    "nothing": (signed(b""), "cannot be read"),
    "an empty object": (signed(b"{}"), "cannot be read"),
    "a list": (signed(b"[]"), "cannot be read"),
    "a space": (signed(GOOD.delta[:-87].replace(b":", b": ", 1)), "cannot be read"),
    "a space between entries": (signed(GOOD.delta[:-87].replace(b"},{", b"}, {", 1)), "canonical"),
    "a key twice": (signed(GOOD.delta[:-88] + b',"v":1}'), "canonical"),
    "too deep": (signed(b'{"add":' + b"[" * 20000 + b"]" * 20000 + b"}"), "cannot be read"),
    "an entry with a space": (signed(GOOD.delta[:-87].replace(b'"by":', b'"by": ', 1)), "canonical"),
    "entries in another order": (changed(add=[TWO, ONE]), "not in order"),
    "one entry twice": (changed(add=[ONE, ONE, TWO]), "not in order"),
    "an entry that is there": (changed(add=[ONE, {**TWO, "id": "d"}]), "two entries with one id"),
    "an entry that is dropped too": (changed(add=[ONE, {**TWO, "id": "b"}]), "another hash"),
    "an entry that selects nothing": (changed(add=[{**ONE, "select": {}}]), "an entry must select something: token, link, task, agent, subject"),
    "an entry of an unknown caveat": (changed(add=[{**ONE, "link": {"acme:x": 1}}]), "link"),
    "an entry that was asked for and narrows": (changed(add=[{**ONE, "asked": [], "link": {"exp": 1}}]), "request of a holder"),
    "an entry less": (changed(add=[ONE]), "another hash"),
    "an entry more": (changed(add=[ONE, TWO, {**TWO, "id": "e"}]), "another hash"),
    "an entry that says something else": (changed(add=[ONE, {**TWO, "why": "x"}]), "another hash"),
    "no entry": (changed(add=[]), "another hash"),
    "nothing dropped": (changed(drop=[]), "another hash"),
    "another one dropped": (changed(drop=["d"]), "another hash"),
    "one dropped that is not there": (changed(drop=["b", "x"]), "it drops an entry that is not there"),
    "one dropped twice": (changed(drop=["b", "b"]), "not in order"),
    "dropped in another order": (changed(drop=["d", "b"]), "not in order"),
    "another moment": (changed(iat=NOW), "another hash"),
    "another end": (changed(exp=NOW), "another hash"),
    "the same number": (changed(gives={**GIVES, "seq": 7}), "does not go up"),
    "a lower number": (changed(gives={**GIVES, "seq": 6}), "does not go up"),
    "another number": (changed(gives={**GIVES, "seq": 9}), "another hash"),
    "another hash": (changed(gives={**GIVES, "hash": AFTER["hash"]}), "another hash"),
    "a hash that is none": (changed(gives={**GIVES, "hash": "="}), "cannot be read"),
    "a hash that is cut": (changed(gives={**GIVES, "hash": GIVES["hash"][:-2]}), "cannot be read"),
    "a hash of 31 bytes": (changed(gives={**GIVES, "hash": b64encode(bytes(31))}), "a hash must be 32 bytes"),
    "after a hash of 33 bytes": (changed(after={**AFTER, "hash": b64encode(bytes(33))}), "a hash must be 32 bytes"),
    "an entry asked for by what is no link": (changed(add=[{**ONE, "asked": ["x"], "select": {"token": b64encode(bytes(16))}}]), "link ids"),
    "no hash": (changed(gives={"seq": 8}), "cannot be read"),
    "a hash more": (changed(gives={**GIVES, "x": 1}), "cannot be read"),
    "after another number": (changed(after={**AFTER, "seq": 6}), "another snapshot"),
    "after another hash": (changed(after={**AFTER, "hash": GIVES["hash"]}), "another snapshot"),
    "after a hash that is none": (changed(after={**AFTER, "hash": "x"}), "cannot be read"),
    **{f"no {key}": (changed(**{key: None}), "cannot be read") for key in body_of(GOOD.delta)},
    **{
        f"{key} {value!r}"[:24]: (changed(**{key: value}), "cannot be read|cannot be applied")
        for key, values in {
            "v": [0, 2, True, "1"],
            "x": [1],
            "seq": [8],
            "add": [{}, "x", [1], [[]]],
            "drop": [{}, "b", [1], [["b"]]],
            "iat": ["1", True],
            "after": [[], "x", 7],
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("name", sorted(LIES))
def test_a_delta_that_lies_changes_nothing(name: str) -> None:
    """Signed, and not what it says, or of another form: refused as a whole."""
    refused(*LIES[name])


def test_a_text_of_a_snapshot_and_deltas_has_no_other_form() -> None:
    """Lines left out, exchanged, empty, or more than there are."""
    base, good = whole(KEY, KNOWN), GOOD.delta
    assert Overlay.open(base + b"\n" + good, TRUSTED).seq == 8
    for text in (
        base + b"\n",
        base + b"\n" + good + b"\n",
        b"\n" + base,
        base + b"\n\n" + good,
        base + b"\r\n" + good,
        base + good,
        good + b"\n" + base,
        base + b"\n" + base,
        base + b"\n" + good + b"\n" + base,
        base + b"\n" + good + b"\n" + good,
        base + b" \n" + good,
    ):
        with pytest.raises(OverlayError):
            Overlay.open(text, TRUSTED)


def test_a_delta_that_makes_a_snapshot_too_large_is_neither_written_nor_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit it is good; one byte above it is not, whoever makes it."""
    known = opened(*(entry(f"e{number:02}") for number in range(20)), seq=7)
    made = step(known, add=[entry("f")])
    followed = known.follow([made.delta], TRUSTED)
    assert followed.size == len(whole(KEY, followed)) > len(made.delta)
    monkeypatch.setattr(module, "MAX_BYTES", followed.size)
    assert step(known, add=[entry("f")]) == made and known.follow([made.delta], TRUSTED).size == followed.size
    monkeypatch.setattr(module, "MAX_BYTES", followed.size - 1)
    with pytest.raises(OverlayError, match="more than"):
        step(known, add=[entry("f")])
    with pytest.raises(OverlayError, match="more than"):
        known.follow([made.delta], TRUSTED)


def test_a_snapshot_and_its_deltas_are_no_longer_than_two_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit all is read; one byte above it nothing is, before a signature is looked at."""
    text = whole(KEY, KNOWN) + b"\n" + GOOD.delta
    room = max(len(whole(KEY, KNOWN)), len(GOOD.delta))
    monkeypatch.setattr(module, "MAX_BYTES", room)
    for spare, match in ((2 * room - len(text), "the delta is not signed by an operator that this server trusts"), (2 * room - len(text) + 1, "more than")):
        with pytest.raises(OverlayError, match=match):
            Overlay.open(text + b" " * spare, TRUSTED)


def test_a_delta_that_is_too_large_itself_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes all away is larger than what it leaves."""
    known = opened(*(entry(f"e{number:02}") for number in range(20)), seq=7)
    gone = [f"e{number:02}" for number in range(20)]
    made = step(known, drop=gone)
    assert len(made.delta) > known.follow([made.delta], TRUSTED).size
    monkeypatch.setattr(module, "MAX_BYTES", len(made.delta))
    assert step(known, drop=gone) == made
    monkeypatch.setattr(module, "MAX_BYTES", len(made.delta) - 1)
    with pytest.raises(OverlayError, match="more than"):
        step(known, drop=gone)


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"drop": ["x"]}, "it drops an entry that is not there"),
        ({"add": [entry("d")]}, "two entries with one id"),
        ({"seq": MAX_INTEGER + 1}, "snapshot numbers end before"),
        ({"life": MAX_INTEGER}, "the snapshot would expire beyond all times: give it a shorter life"),
    ],
    ids=["drop", "add", "seq", "life"],
)
def test_a_delta_that_nobody_could_take_is_not_written(facts: dict[str, Any], match: str) -> None:
    with pytest.raises(OverlayError, match=match):
        step(KNOWN, **facts)


# ---- operators and feeds -------------------------------------------------------------------------------------------


def test_a_large_snapshot_is_read_while_other_threads_go_on() -> None:
    """Opened in one thread, 30,000 entries: the other one is never kept waiting as long as that takes, by far."""
    many = [entry(f"e{number:06}", select=Selector(agent=f"agent-{number}")) for number in range(times(30_000))]
    text = snapshot(KEY, many, seq=1, issued_at=NOW)
    turns, over = [0.0], threading.Event()

    def spin() -> Iterator[float]:
        while not over.wait(0.0005):
            yield monotonic()

    watching = threading.Thread(target=lambda: turns.extend(spin()))
    watching.start()
    begun = monotonic()
    assert len(Overlay.open(text, TRUSTED).entries) == len(many)
    took = monotonic() - begun
    over.set()
    watching.join()
    seen = [turn for turn in turns if begun <= turn <= begun + took]
    assert len(seen) >= 5, "it was held up all the time"


def test_verifiers_ask_what_followed_by_deltas() -> None:
    """A narrowing that came by a delta restricts, and one that was dropped does not."""
    known = opened()
    token = mint()
    narrowed = entry("n", select=Selector(token=token.token_id), link={"tables": ["hr"]})
    later = known.follow([step(known, add=[narrowed]).delta], TRUSTED)
    last = later.follow([step(later, drop=["n"]).delta], TRUSTED)
    codes = [Verifier(KEYRING, overlay=one, clock=FixedClock(NOW)).check(token, SELECT).code for one in (known, later, last)]
    assert codes == ["allowed", "narrowed", "allowed"]


def test_an_operator_s_key_that_is_none_is_named_when_deltas_are_followed() -> None:
    shelf_of = MemorySnapshots()
    key = OperatorKey.generate()
    Operator(key, shelf_of, by="ops", clock=clock()).renew()
    overlay = Overlay.open(shelf_of.load() or b"", [key.public])
    with pytest.raises(ValueError, match="operator is not an Ed25519 public key"):
        overlay.follow([], [bytes(32)])
