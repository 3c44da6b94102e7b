"""Third-party caveats: what a holder asks for, what a discharger sees and says, and what of it reaches a grant."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from msgspec import structs
from nacl.public import PrivateKey, SealedBox

from captoken import Access, Capability, Token, TokenFormatError, Verifier
from captoken._format import chain
from captoken._format import packet as wire
from captoken._format.encoding import b64decode, b64encode, encode_json
from captoken._format.entropy import random_bytes
from captoken._format.parts import RawCaveat
from captoken.caveats import Caveat, Reason, Situation, Vocabulary
from captoken.discharge import Allow, Discharge, Discharger, Refuse, Ticket, Wait
from captoken.errors import DischargeError, LimitError
from captoken.keys import DischargerKey, HolderKey, PairwiseKey
from captoken.proof import with_proof
from captoken.stores.memory import MemoryReplayStore
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW, clock, code, data, mint, named, verifier
from tests.library_code import is_library_code

PARTY = DischargerKey.from_bytes(bytes(range(2, 34)))
OTHER = DischargerKey.from_bytes(bytes(range(3, 35)))
NEED = {"approve": "payment", "cents": 500}
MINUTE = Allow(expires_in=60)


def allow(**caveats: Any) -> Allow:
    """An Allow of any keywords, right or wrong."""
    return Allow(**caveats)


def discharger(said: Any = MINUTE, key: DischargerKey = PARTY, **facts: Any) -> Discharger:
    """A discharger that always says the same."""
    return Discharger(key, lambda need: said, **{"clock": clock(), **facts})


def asked(**more: Any) -> Token:
    """A token that asks PARTY for NEED, under a caveat key of its own."""
    return Token.parse(mint().serialize(), clock=clock()).require(PARTY.public, need=NEED, **more)


def answered(token: Token, allowed: Allow = MINUTE, **facts: Any) -> Token:
    """The token with a discharge for everything it needs."""
    for ticket in token.needs:
        token = token.with_discharge(discharger(allowed, **facts).discharge(ticket))
    return token


def says(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The code of the DischargeError that a call raises."""
    with pytest.raises(DischargeError) as caught:
        call(*args, **kwargs)
    return caught.value.code


# --- the holder ------------------------------------------------------------------------------------------------------


def test_a_token_that_asks_is_worth_nothing_without_the_answer() -> None:
    """The caveat needs no key, the discharge comes from the party, and the two together are allowed where the token was."""
    token = asked(location="https://approvals.example")
    (ticket,) = token.needs
    assert code(mint(), data("sales")) == "allowed" and code(token, data("sales")) == "missing_discharge"
    assert (ticket.discharger, ticket.location) == (PARTY.public, "https://approvals.example")
    discharge = discharger().discharge(ticket)
    ready = token.with_discharge(discharge)
    text = ready.present(audience="sales-db")
    assert verifier(audience="sales-db").check(text, data("sales"))
    assert verifier(audience="sales-db").check(text, data("hr")).code == "table"
    assert not ready.needs and token.needs == (ticket,), "a token is never changed"
    assert ready.unverified.discharges == (discharge,) and discharge.cid == ticket.cid and discharge.expires_at == NOW + 60


def test_needs_lists_what_is_asked_and_not_answered_in_order() -> None:
    """Three parties are asked; answers come in any order; the text keeps what there is, and each step leaves the rest."""
    token = mint()
    for number in range(3):
        token = token.require(PARTY.public, need={"number": number}).attenuate(expires_in=600 - number)
    tickets = token.needs
    one = discharger()
    assert [one.need(ticket)["number"] for ticket in tickets] == [0, 1, 2]
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        partial = token
        for count, at in enumerate(order):
            partial = partial.with_discharge(one.discharge(tickets[at]))
            partial = Token.parse(partial.serialize(), clock=clock())
            assert partial.needs == tuple(ticket for k, ticket in enumerate(tickets) if k not in order[: count + 1])
            wanted = "allowed" if count == 2 else "missing_discharge"
            assert code(partial.present(audience="db"), data("sales"), audience="db") == wanted
        assert [given.cid for given in partial.unverified.discharges] == [ticket.cid for ticket in tickets]
        assert partial.serialize().count(".cap1u_") == 3
        assert code(partial.serialize(), data("sales")) == "malformed", "handed on is not presented"


def test_a_newer_discharge_replaces_the_older_one_of_its_ticket() -> None:
    """Renewal: the last one counts, be it an object or its text; the same one again changes nothing."""
    now = clock()
    token = asked()
    first = token.with_discharge(Discharger(PARTY, lambda need: MINUTE, clock=now).discharge(token.needs[0]))
    now.advance(50)
    newer = Discharger(PARTY, lambda need: MINUTE, clock=now).discharge(token.needs[0])
    second = first.with_discharge(newer.serialize())
    assert [one.expires_at for one in second.unverified.discharges] == [NOW + 110]
    assert second.with_discharge(newer) == second and second != first and hash(second) == hash(first)
    now.advance(30)
    for renewed, wanted in ((first, "expired"), (second, "allowed")):
        text = renewed.attenuate(expires_in=600).present(audience="db", expires_in=30, clock=now)
        assert code(text, data("sales"), audience="db", clock=now) == wanted


def test_a_discharge_that_answers_nothing_is_refused() -> None:
    """Of another token, of its sibling, of a ticket that was never asked; and what is no discharge at all."""
    token = asked()
    stranger = discharger().discharge(asked().needs[0])
    for holder in (token, mint(), answered(token)):
        assert says(holder.with_discharge, stranger) == says(holder.with_discharge, stranger.serialize()) == "bad_discharge"
    good = discharger().discharge(token.needs[0]).serialize()
    for text in (
        "",
        "cap1u_",
        good[:-1],
        good + "=",
        "cap1d_" + good[6:],
        "cap1_" + good[6:],
        token.serialize(),
        5,
        None,
        good.encode(),
    ):
        with pytest.raises(TokenFormatError):
            token.with_discharge(text)  # type: ignore[arg-type]


def test_discharges_stay_with_the_token_as_it_is_narrowed_and_handed_on() -> None:
    """A child inherits what its parent has, can replace it, and answers what it asks itself; binding comes last, at
    `present`."""
    parent = answered(asked())
    child = Token.parse(parent.delegate(to="sales-agent", tables=["sales"], expires_in=300).serialize(), clock=clock())
    assert not child.needs
    grandchild = child.require(OTHER.public, need={"score": 5}).attenuate(operations=["select"])
    assert [ticket.discharger for ticket in grandchild.needs] == [OTHER.public]
    whole = answered(grandchild, key=OTHER)
    for holder, wanted in ((parent, "allowed"), (child, "allowed"), (grandchild, "missing_discharge"), (whole, "allowed")):
        assert code(holder.present(audience="db"), data("sales"), audience="db") == wanted
    once, twice = whole.present(audience="db", expires_in=30), whole.present(audience="db", expires_in=20)
    assert once.split(".")[1] != twice.split(".")[1], "bound to the text at hand"
    assert code(".".join((once.split(".")[0], *twice.split(".")[1:])), data("sales"), audience="db") == "bad_discharge"
    grant = verifier(audience="db").authenticate(once)
    assert [actor.name for actor in grant.chain] == ["orchestrator", "sales-agent"]


def test_what_was_presented_is_not_narrowed_further() -> None:
    """A bound discharge is for its server: a holder's parser refuses the text that has one, and so does `Discharge.parse`."""
    text = answered(asked()).present(audience="db")
    with pytest.raises(TokenFormatError, match="is bound"):
        Token.parse(text)
    with pytest.raises(TokenFormatError, match="is bound"):
        Discharge.parse(text.split(".")[1])
    unbound = answered(asked()).serialize()
    decision = verifier().check(unbound, data("sales"))
    assert decision.code == "malformed" and "not bound" in decision.refusals[0].text


@pytest.mark.parametrize("order", ["swapped", "twice", "stranger", "none asked"])
def test_a_text_of_another_order_is_no_token(order: str) -> None:
    """Discharges stand in the order of the caveats that they answer, each once; else the text is malformed to holders too."""
    token = asked().require(OTHER.public, need={})
    first, second = (
        discharger(key=key).discharge(ticket).serialize() for key, ticket in zip((PARTY, OTHER), token.needs, strict=True)
    )
    bare = token.serialize()
    assert Token.parse(f"{bare}.{first}.{second}") and Token.parse(f"{bare}.{second}") and Token.parse(f"{bare}.{first}")
    text = {
        "swapped": f"{bare}.{second}.{first}",
        "twice": f"{bare}.{first}.{first}",
        "stranger": f"{bare}.{first}.{discharger().discharge(asked().needs[0]).serialize()}",
        "none asked": f"{mint().serialize()}.{first}",
    }[order]
    with pytest.raises(TokenFormatError, match="another order"):
        Token.parse(text)
    assert code(text.replace("cap1u_", "cap1d_"), data("sales")) in ("bad_discharge", "malformed")


def test_every_text_of_a_token_comes_back_as_itself() -> None:
    """parse and serialize are inverse, with 0 to 4 discharges of 4; equality counts them, and so a token without is another."""
    token = mint()
    for number in range(4):
        token = token.require(PARTY.public, need={"n": number})
    seen = set()
    for chosen in range(16):
        partial = token
        for at, ticket in enumerate(token.needs):
            if chosen >> at & 1:
                partial = partial.with_discharge(discharger().discharge(ticket))
        text = partial.serialize()
        again = Token.parse(text)
        assert again.serialize() == text and again == partial and hash(again) == hash(partial)
        assert len(again.needs) == 4 - chosen.bit_count()
        seen.add(text)
    assert len(seen) == 16


def test_sixteen_third_parties_and_no_more() -> None:
    """What readers refuse is not written: a seventeenth third party, a discharge past 8,192 characters, a bundle past
    32,768."""
    token = mint()
    for _ in range(16):
        token = token.require(PARTY.public, need={})
    with pytest.raises(LimitError, match="16"):
        token.require(PARTY.public, need={})
    full = answered(token)
    assert Token.parse(full.serialize()) == full
    assert verifier(audience="db").check(full.present(audience="db", max_chars=32_768), data("sales"))
    ticket = asked().needs[0]
    lots = Allow(expires_in=60, tables=["sales", *(f"t{number:04}" for number in range(580))])
    assert len(discharger(lots).discharge(ticket).serialize()) < 8192
    for count in (680, 5000, 20_000):
        with pytest.raises(LimitError, match="8192 characters"):
            discharger(Allow(expires_in=60, tables=[f"t{number:05}" for number in range(count + 100)])).discharge(ticket)
    heavy = token
    with pytest.raises(LimitError, match="32768 characters"):
        for ticket in token.needs:
            heavy = heavy.with_discharge(discharger(lots).discharge(ticket))
    assert 3 <= len(heavy.unverified.discharges) <= 5 and Token.parse(heavy.serialize()) == heavy


def test_a_token_that_is_full_of_discharges_is_not_narrowed_past_what_is_read() -> None:
    """The discharges count when a link is added, too: what no longer fits raises LimitError, with the costs; what fits comes back."""
    token = mint()
    for number in range(4):
        token = token.require(PARTY.public, need={"n": number})
    full = token
    for ticket in token.needs:
        tables = ["sales", *(f"t{number:04}" for number in range(680))]
        full = full.with_discharge(discharger(Allow(expires_in=60, tables=tables)).discharge(ticket))
    assert 31_000 < len(full.serialize()) < 32_700
    small = full.attenuate(expires_in=500)
    assert Token.parse(small.serialize()) == small and len(small.unverified.discharges) == 4
    for narrow in (
        lambda: full.attenuate(allow={f"market.{number}": ["select"] for number in range(60)}),
        lambda: full.delegate(to="sales-agent", allow={f"market.{number}": ["select"] for number in range(60)}),
        lambda: full.require(PARTY.public, need={"x": "y" * 900}),
    ):
        with pytest.raises(LimitError, match="32768 characters") as caught:
            narrow()
        assert dict(caught.value.costs)["discharge 3"] > 6000


def test_what_is_presented_has_a_size_that_counts_the_discharges() -> None:
    """7,168 characters unless told otherwise; the error says what each link and each discharge costs, and shows none of
    them."""
    token = mint()
    for number in range(9):
        token = token.require(PARTY.public, need={"n": number})
    ready = answered(token)
    size = len(ready.present(audience="db", max_chars=32_768))
    assert size > 7168 and verifier(audience="db").check(ready.present(audience="db", max_chars=size), data("sales"))
    with pytest.raises(LimitError, match="more than 7168 \\(max_chars\\)"):
        ready.present(audience="db")
    for limit in (7168, size - 1):
        with pytest.raises(LimitError) as caught:
            ready.present(audience="db", max_chars=limit)
        costs = dict(caught.value.costs)
        assert [name for name in costs if name.startswith("discharge ")] == [f"discharge {at}" for at in range(9)]
        assert sum(costs.values()) <= size and str(size) in str(caught.value) and "cap1" not in str(caught.value)
    assert len(token.present(audience="db", max_chars=7168)) < 7168, "without the discharges it fits"


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("", ValueError), ("x" * 43, ValueError), (PARTY.public[:-1], ValueError), (PARTY.public + "A", ValueError),
        (PARTY.public[:-1] + "=", ValueError), (bytes(32), ValueError), (b"\1" + bytes(31), ValueError),
        (b"\xff" * 32, ValueError), (bytes(31), ValueError), (None, TypeError), (5, TypeError), (PARTY, TypeError),
        (bytearray(32), TypeError), ((2**255 - 19).to_bytes(32, "little"), ValueError),
        ((2**255 - 10).to_bytes(32, "little"), ValueError),
    ],
)  # fmt: skip
def test_only_an_x25519_key_can_be_asked(key: Any, error: type[Exception]) -> None:
    """A key that is not canonical or of low order, so that anybody could open the ticket, is refused when it is asked."""
    assert mint().require(b64decode(PARTY.public), need={}).needs[0].discharger == PARTY.public
    with pytest.raises(error):
        mint().require(key, need={})


def nested(levels: int) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("need", "error"),
    [
        (None, TypeError), (5, TypeError), ("approve", TypeError), (["a"], TypeError), ({"a": 1.5}, ValueError),
        ({"a": None}, ValueError), ({"a": float("nan")}, ValueError), ({"a": 2**53}, ValueError), ({"a": b"x"}, ValueError),
        ({"a": {1}}, ValueError), ({"a": "\ud800"}, ValueError), ({1: "a"}, ValueError), ({"a": object()}, ValueError),
        ({"a": nested(31)}, ValueError), ({"a": nested(100)}, ValueError), ({"a": nested(5000)}, ValueError),
        ({"a": "x" * 2000}, LimitError),
    ],
)  # fmt: skip
def test_a_need_is_canonical_json_and_short(need: Any, error: type[Exception]) -> None:
    """A need is an object of strings, integers, booleans, lists and objects, and a ticket at most 2,048 bytes."""
    with pytest.raises(error):
        mint().require(PARTY.public, need=need)
    for good in ({}, NEED, {"é": ["\U0001f600", {"b": True}]}, {"a": nested(25)}, {"a": -(2**53) + 1}, {"": ""}):
        token = mint().require(PARTY.public, need=good)
        assert discharger().need(token.needs[0]) == good and verifier().check(answered(token), data("sales"))


@pytest.mark.parametrize("location", ["", " x", "a\nb", "x" * 257, "\ud800", 5, b"x", ["x"]])
def test_a_location_is_a_name_that_can_be_shown(location: Any) -> None:
    """An address hint is 1 to 256 bytes that print."""
    with pytest.raises((TypeError, ValueError)):
        asked(location=location)
    for good in ("https://approvals.example/x?y=1", "x" * 256, "Büro 5", "cap:approvals"):
        assert asked(location=good).needs[0].location == good


def test_a_ticket_is_at_most_2048_bytes() -> None:
    """One of exactly 2,048 bytes is asked, answered, read and verified; one byte more is neither written nor read."""
    need = {"a": "x" * 1200}
    room = 2048 - len(mint().require(PARTY.public, need=need, location="x").needs[0].cid) + 1
    assert 1 < room < 256
    longest = mint().require(PARTY.public, need=need, location="x" * room)
    assert len(longest.needs[0].cid) == 2048 and longest.needs[0] == Ticket.parse(longest.needs[0].text)
    assert verifier().check(answered(longest), data("sales")) and Token.parse(answered(longest).serialize())
    with pytest.raises(LimitError, match="2049 bytes, more than 2048"):
        mint().require(PARTY.public, need=need, location="x" * (room + 1))
    assert says(Ticket.parse, longest.needs[0].text.replace('"loc":"x', '"loc":"xx')) == "bad_ticket"


def test_a_foreign_third_party_caveat_is_kept_and_not_understood() -> None:
    """A caveat id that is no ticket of ours stays in the token; `needs` says so; other dischargers can still answer it."""
    packet = mint().secret_packet
    caveat = chain.ask(packet.signature, b"some key", b"a foreign id", random_bytes)
    grown = wire.Packet(packet.identifier, (*packet.caveats, caveat), chain.extend(packet.signature, caveat))
    token = Token.parse("cap1_" + b64encode(wire.encode(grown)))
    assert says(lambda: token.needs) == "bad_ticket"
    tag = chain.link_tag(chain.mint_tag(chain.derive(b"some key"), b"a foreign id"), b'{"exp":%d}' % (NOW + 5))
    foreign = Discharge(wire.Packet(b"a foreign id", ((b'{"exp":%d}' % (NOW + 5), b""),), tag))
    ready = token.with_discharge(foreign)
    assert ready.needs == () and verifier().check(ready, data("sales"))
    assert code(ready.present(audience="db", expires_in=5), data("sales"), audience="db") == "allowed"


# --- the ticket ------------------------------------------------------------------------------------------------------

BOX = "A" * 100


def spelled(**changes: Any) -> bytes:
    """A ticket with parts changed, or left out where the change is ..."""
    stated = {"box": BOX, "for": PARTY.public, "v": 1, **changes}
    return json.dumps(
        {key: value for key, value in stated.items() if value is not ...}, sort_keys=True, separators=(",", ":")
    ).encode()


@pytest.mark.parametrize(
    "hostile",
    [
        b"", b"{}", b"null", b"[]", b"x", spelled(v=2), spelled(v=0), spelled(v=True), spelled(v="1"), spelled(v=1.0),
        spelled(v=None), spelled(v=...), spelled(box=...), spelled(**{"for": ...}), spelled(more=1), spelled(need={}),
        spelled(ck="x"), spelled(box=5), spelled(box=None), spelled(box=["x"]), spelled(box="A"), spelled(box="=="),
        spelled(box="+/+/"), spelled(box="AB"), spelled(**{"for": 5}), spelled(**{"for": "x"}),
        spelled(**{"for": PARTY.public + "="}), spelled(**{"for": PARTY.public[:-1] + "B"}),
        spelled(**{"for": [PARTY.public]}), spelled(loc=""), spelled(loc=" x"), spelled(loc=5), spelled(loc=["x"]),
        spelled(loc="a\nb"), spelled(loc="x" * 257), spelled(box="A" * 2000), spelled(box="A" * 10**6), b" " + spelled(),
        spelled() + b"\n", spelled() + spelled(), spelled().replace(b":", b": "),
        spelled().replace(b'"v":1', b'"v":1,"v":1'), spelled().replace(b"A", b"\\u0041", 1),
        spelled().replace(b'"box"', b'"b\\u006fx"'), b"\xef\xbb\xbf" + spelled(), spelled().decode().encode("utf-16"),
        spelled() + b"\0", json.dumps({"v": 1, "for": PARTY.public, "box": BOX}, separators=(",", ":")).encode(),
        b"\xff" * 20, b"[" * 2000, b"\xed\xa0\x80",
    ],
    ids=lambda value: repr(value[:40]),
)  # fmt: skip
def test_a_ticket_has_one_spelling(hostile: bytes) -> None:
    """Box, key, version and perhaps an address, canonical, of the right types and at most 2,048 bytes; or it is no ticket."""
    assert Ticket.parse(spelled()).cid == spelled() and Ticket.parse(spelled(loc="x").decode()).location == "x"
    assert says(Ticket.parse, hostile) == "bad_ticket"
    assert says(discharger().answer, hostile.decode("latin-1")) == "bad_ticket"


@pytest.mark.parametrize(
    "hostile", [None, 5, 1.5, True, [], {}, (), object(), ["x"], bytearray(spelled()), memoryview(spelled()), "\ud800"]
)
def test_a_ticket_is_text_or_bytes(hostile: Any) -> None:
    """Whatever else is handed over raises DischargeError and nothing else."""
    assert says(Ticket.parse, hostile) == "bad_ticket"
    for ask in (
        discharger().need,
        discharger().answer,
        discharger().discharge,
        lambda ticket: discharger().approve(ticket, MINUTE),
    ):
        assert says(ask, hostile) == "bad_ticket"


def test_a_ticket_shows_nothing_secret_and_comes_back_as_itself() -> None:
    """Its text is what goes to the discharger; it is a value, equal and hashable."""
    ticket = asked(location="https://approvals.example/é").needs[0]
    again = Ticket.parse(ticket.text)
    assert again == ticket == Ticket.parse(ticket.cid) and hash(again) == hash(ticket) and again.text.encode() == ticket.cid
    assert len({ticket, again}) == 1 and ticket != asked().needs[0]


# --- the discharger --------------------------------------------------------------------------------------------------


def test_a_policy_sees_what_is_needed_and_nothing_else() -> None:
    """One argument, the need as it was sealed, and a fresh one each time: what a policy does to it changes nothing."""
    seen: list[Any] = []

    def policy(*args: Any, **kwargs: Any) -> Allow:
        seen.append((copy.deepcopy(args), kwargs))
        args[0].clear()
        return MINUTE

    one = Discharger(PARTY, policy, clock=clock())
    token = asked(location="https://approvals.example")
    for ask in (token.needs[0], token.needs[0].text):
        assert one.discharge(ask).expires_at == NOW + 60
    assert seen == [((NEED,), {})] * 2 and one.need(token.needs[0]) == NEED and one.public == PARTY.public


@pytest.mark.parametrize(
    "said", [None, True, 1, "yes", 60, {"expires_in": 60}, Allow, Refuse, (), [MINUTE], object(), Reason("tool", "y")], ids=named
)
def test_a_policy_that_answers_oddly_never_discharges(said: Any) -> None:
    """Only an Allow allows: whatever else a policy returns raises TypeError."""
    ticket = asked().needs[0]
    for ask in (discharger(said).answer, discharger(said).discharge):
        with pytest.raises(TypeError, match="Allow, Refuse or Wait"):
            ask(ticket)


def test_what_a_policy_raises_passes_through() -> None:
    """A policy that fails discharges nothing, and its caller learns why."""

    def policy(need: Mapping[str, Any]) -> Allow:
        return need["no such key"]  # type: ignore[no-any-return]

    for ask in (Discharger(PARTY, policy).answer, Discharger(PARTY, policy).discharge):
        with pytest.raises(KeyError, match="no such key"):
            ask(asked().needs[0])


def test_refusals_and_waits_are_answers_and_no_discharges() -> None:
    """`answer` returns them, `discharge` raises them, and a person's decision overrides both."""
    ticket = asked().needs[0]
    refuse, wait = Refuse("too much"), Wait(person=True)
    assert discharger(refuse).answer(ticket) == refuse and discharger(wait).answer(ticket) == wait
    assert says(discharger(refuse).discharge, ticket) == "refused" and says(discharger(wait).discharge, ticket) == "undecided"
    with pytest.raises(DischargeError, match="too much"):
        discharger(refuse).discharge(ticket)
    assert (Refuse().reason, Wait().person) == ("refused", False)
    for said in (refuse, wait, None):
        token = asked()
        given = discharger(said).approve(token.needs[0].text, MINUTE)
        assert verifier().check(token.with_discharge(given), data("sales"))
    for other in (refuse, wait, None, True, {"expires_in": 60}, Allow, 60):
        with pytest.raises(TypeError, match="Allow"):
            discharger().approve(ticket, other)  # type: ignore[arg-type]


def test_a_discharger_answers_for_its_own_key_alone() -> None:
    """A ticket for another key, a discharger without a key of its purpose or without a policy: refused."""
    token = asked()
    for ask in (discharger(key=OTHER).need, discharger(key=OTHER).answer, discharger(key=OTHER).discharge):
        assert says(ask, token.needs[0]) == says(ask, token.needs[0].text) == "bad_ticket"
    assert says(discharger(key=OTHER).approve, token.needs[0], MINUTE) == "bad_ticket"
    relabelled = encode_json({**json.loads(token.needs[0].text), "for": OTHER.public}).decode()
    assert says(discharger(key=OTHER).answer, relabelled) == "bad_ticket", "the name of a key opens no box"
    secret = bytes(range(2, 34))
    for key in (secret, PARTY.public, None, PairwiseKey.from_bytes(secret), HolderKey.from_bytes(secret)):
        with pytest.raises(TypeError, match="a DischargerKey"):
            Discharger(key, lambda need: MINUTE)  # type: ignore[arg-type]
    for policy in (None, MINUTE, "allow", True):
        with pytest.raises(TypeError, match="callable"):
            Discharger(PARTY, policy)  # type: ignore[arg-type]


INSIDE = {"ck": b64encode(bytes(range(32))), "need": NEED, "v": 1}


@pytest.mark.parametrize(
    "inside",
    [
        b"", b"x", b"[]", b"null", b"1", encode_json({}), encode_json({**INSIDE, "v": 2}),
        encode_json({**INSIDE, "v": True}), encode_json({**INSIDE, "v": "1"}), encode_json({**INSIDE, "more": 1}),
        encode_json({**INSIDE, "need": []}), encode_json({**INSIDE, "need": "x"}), encode_json({**INSIDE, "need": True}),
        encode_json({**INSIDE, "ck": 5}), encode_json({**INSIDE, "ck": ""}),
        encode_json({**INSIDE, "ck": b64encode(bytes(31))}), encode_json({**INSIDE, "ck": b64encode(bytes(33))}),
        encode_json({**INSIDE, "ck": b64encode(bytes(32)) + "="}), encode_json({**INSIDE, "ck": ["x"]}),
        encode_json({"ck": INSIDE["ck"], "v": 1}), encode_json({"need": NEED, "v": 1}),
        encode_json({"ck": INSIDE["ck"], "need": NEED}), b" " + encode_json(INSIDE), encode_json(INSIDE) + b"\n",
        json.dumps(INSIDE).encode(), json.dumps({**INSIDE, "need": {"a": 1.5}}, separators=(",", ":")).encode(),
        json.dumps({**INSIDE, "need": {"a": None}}, separators=(",", ":")).encode(), b"[" * 500, b"\xff" * 32,
    ],
    ids=lambda value: repr(value)[:48],
)  # fmt: skip
def test_what_is_sealed_is_read_strictly(inside: bytes) -> None:
    """Caveat key, need and version, canonical, of the right types and lengths: else the policy is not asked."""

    def ticket(sealed: bytes) -> str:
        box = SealedBox(PrivateKey(bytes(range(2, 34))).public_key).encrypt(sealed)
        return encode_json({"box": b64encode(box), "for": PARTY.public, "v": 1}).decode()

    assert discharger().need(ticket(encode_json(INSIDE))) == NEED
    one = Discharger(PARTY, lambda need: pytest.fail("the policy was asked"))
    for ask in (one.need, one.answer, one.discharge, lambda told: one.approve(told, MINUTE)):
        assert says(ask, ticket(inside)) == "bad_ticket"


# --- what an answer may say ------------------------------------------------------------------------------------------


class Region(Caveat, frozen=True):
    """An embedder's caveat."""

    key = "acme:region"

    def prohibits(self, access: Access | None, situation: Situation) -> Reason | None:
        held = access is None or access.attributes.get("region") in self.value
        return None if held else Reason("attribute", "another region")


OWN = Vocabulary(Region)


@pytest.mark.parametrize(
    ("allowed", "wanted"),
    [
        (allow(expires_in=60), "allowed"),
        (allow(expires_at=NOW + 1), "allowed"),
        (allow(expires_at=NOW), "expired"),
        (allow(expires_at=NOW - 100), "expired"),
        (allow(expires_in=60, not_before=NOW + 1), "not_yet_valid"),
        (allow(expires_in=60, not_before=NOW), "allowed"),
        (allow(expires_in=60, tables=["sales"]), "allowed"),
        (allow(expires_in=60, tables=["hr"]), "table"),
        (allow(expires_in=60, tables=["*"], operations=["insert"]), "operation"),
        (allow(expires_in=60, allow={"*": ["select"], "sales": []}), "table"),
        (allow(expires_in=60, columns={"*": ["region"]}), "column"),
        (allow(expires_in=60, tools={"search": {}}), "domain"),
        (allow(expires_in=60, where={"cents": {"max": 500}}), "attribute"),
        (allow(expires_in=60, audience="sales-db"), "allowed"),
        (allow(expires_in=60, audience=["hr-db", "sales-db"]), "allowed"),
        (allow(expires_in=60, audience="hr-db"), "wrong_audience"),
    ],
    ids=lambda value: repr(value),
)
def test_an_answer_restricts_the_request(allowed: Allow, wanted: str) -> None:
    """The keywords are those of `attenuate`, and hold beside everything in the token; the refusal names the third party's
    caveat."""
    token = asked().attenuate(tables=["sales"])
    text = answered(token, allowed).present(audience="sales-db")
    decision = verifier(audience="sales-db").check(text, data("sales"))
    assert decision.code == wanted
    if not decision:
        refusal = decision.refusals[0]
        assert (refusal.link, refusal.added_by) == (1, "the discharger")
        assert "link 1, added by the discharger" in str(decision) and decision.attribution is not None


@pytest.mark.parametrize(
    ("allowed", "error"),
    [
        (allow(), ValueError), (allow(tables=["sales"]), ValueError), (allow(not_before=NOW), ValueError),
        (allow(expires_in=0), ValueError), (allow(expires_in=-5), ValueError),
        (allow(expires_in=60, expires_at=NOW + 5), ValueError), (allow(expires_in=None), TypeError),
        (allow(expires_at=None), TypeError), (allow(expires_in="60"), ValueError), (allow(expires_in=1.5), TypeError),
        (allow(expires_in=True), TypeError), (allow(expires_in=60, task="task-123"), TypeError),
        (allow(expires_in=60, task="task-123/a"), TypeError), (allow(expires_in=60, depth=0), TypeError),
        (allow(expires_in=60, depth=5), TypeError), (allow(expires_in=60, delegate_only=True), TypeError),
        (allow(expires_in=60, delegate_only=False), TypeError), (allow(expires_in=60, to="b"), TypeError),
        (allow(expires_in=60, key=PARTY.public), TypeError), (allow(expires_in=60, keep="tools"), TypeError),
        (allow(expires_in=60, uses=1), TypeError), (allow(exp=NOW + 5), TypeError),
        (allow(expires_in=60, unknown=1), TypeError), (allow(expires_in=60, **{"acme:region": ["eu"]}), TypeError),
        (allow(expires_in=60, user="admin"), TypeError), (allow(expires_in=60, tables="sales"), TypeError),
        (allow(expires_in=60, tables=["a..b"]), ValueError), (allow(expires_in=60, where={}), ValueError),
        (allow(expires_in=60, audience=""), ValueError), (allow(expires_in=60, audience=["a b"]), ValueError),
        (allow(expires_in=60, tables=None), TypeError),
    ],
    ids=lambda value: repr(value),
)  # fmt: skip
def test_an_answer_that_no_discharge_can_give_raises(allowed: Allow, error: type[Exception]) -> None:
    """No expiry, something about task, lineage or keys, no caveat at all, or an ill-formed one: TypeError or ValueError, and
    no discharge."""
    ticket = asked().needs[0]
    for ask in (
        discharger(allowed).answer,
        discharger(allowed).discharge,
        lambda told: discharger(allowed).approve(told, allowed),
    ):
        with pytest.raises(error):
            ask(ticket)


def test_an_embedder_s_caveat_goes_with_a_vocabulary_at_both_ends() -> None:
    """It restricts where it is known, prohibits where it is not, and hides the expiry from nobody."""
    allowed = allow(expires_in=60, **{"acme:region": ["eu"]})
    token = asked()
    given = discharger(allowed, vocabulary=OWN).discharge(token.needs[0])
    assert given.expires_at == NOW + 60
    ready = token.with_discharge(given)
    one = verifier(vocabulary=OWN)
    assert one.check(ready, data("sales", region="eu")) and one.check(ready, data("sales", region="us")).code == "attribute"
    grant = one.authenticate(ready)
    assert grant.check(data("sales", region="eu")) and grant.check(data("sales", region="us")).code == "attribute"
    decision = verifier().check(ready, data("sales", region="eu"))
    assert decision.code == "unknown_caveat" and decision.refusals[0].added_by == "the discharger"


def test_an_expiry_is_read_off_whatever_stands_in_a_discharge() -> None:
    """The earliest whole number called `exp`, or none: for those who renew, never for deciding."""
    ticket = asked().needs[0]
    packet = discharger().discharge(ticket).packet
    for links, ends in (
        ((), None), ((b'{"exp":5}', b'{"exp":3}'), 3), ((b"x", b'{"exp":5}'), 5), ((b'{"exp":true}',), None),
        ((b'{"exp":"5"}',), None), ((b'{"nbf":5}',), None), ((b'{"exp":7,"new":1}',), 7), ((b"\xff",), None),
    ):  # fmt: skip
        made = Discharge(wire.Packet(packet.identifier, tuple((link, b"") for link in links), packet.signature))
        assert made.expires_at == ends and f"expires at {ends}" in repr(made)


def test_what_is_made_is_dated_by_the_discharger_s_own_clock() -> None:
    """`expires_in` counts from the discharger's now; a clock that raises discharges nothing."""
    ticket = asked().needs[0]
    assert discharger(clock=FixedClock(NOW + 40)).discharge(ticket).expires_at == NOW + 100

    def broken() -> float:
        raise OSError("no clock")

    with pytest.raises(OSError, match="no clock"):
        discharger(clock=broken).discharge(ticket)


# --- the grant -------------------------------------------------------------------------------------------------------


def test_a_discharge_never_informs() -> None:
    """Names, task, chain and ids of the grant are the token's own; what the discharge says only makes it less."""
    token = asked().delegate(to="sales-agent", tables=["sales"], task="task-123/a")
    wide, narrow = answered(token), answered(token, Allow(expires_in=5, tables=["sales"], where={"region": {"in": ["eu"]}}))
    before, after = (verifier().authenticate(ready) for ready in (wide, narrow))
    for part in ("issued", "token_id", "chain", "actor", "parent", "task", "link_ids", "key", "evidence"):
        assert getattr(before, part) == getattr(after, part), part
    assert (before.expires_at, after.expires_at) == (NOW + 60, NOW + 5)
    assert before.capability.covers(after.capability) and before.capability.meet(after.capability) == after.capability
    assert isinstance(after.capability, Capability) and not after.capability.covers(before.capability)
    assert after.check(data("sales", region="eu")) and after.check(data("sales", region="us")).code == "attribute"
    assert before.check(data("sales", region="us")) and len(after.link_ids) == 3
    decision = verifier().check(narrow, data("sales", region="eu"))
    assert decision and [step.outcome for step in decision.steps][3:6] == ["held", "held", "held"]


def test_a_discharge_of_several_links_and_several_of_them_hold_together() -> None:
    """Each refusal names the caveat whose discharge it is in, whoever stands between."""
    token = asked().delegate(to="sales-agent", tables=["sales"]).require(OTHER.public, need={})
    first, second = token.needs
    token = token.with_discharge(discharger(Allow(expires_in=60, where={"a": {"in": [1]}})).discharge(first))
    token = token.with_discharge(discharger(Allow(expires_in=60, where={"b": {"in": [1]}}), key=OTHER).discharge(second))
    decision = verifier().check(token, data("sales"))
    assert [(refusal.link, refusal.added_by, refusal.code) for refusal in decision.refusals] == [
        (1, "the discharger", "attribute"), (3, "the discharger", "attribute"),
    ]  # fmt: skip
    assert verifier().check(token, data("sales", a=1, b=1))
    assert verifier().check(token, data("sales", a=1)).refusals[0].link == 3


BINDS = b'{"key":"%s"}' % HolderKey.from_bytes(bytes(range(4, 36))).public.encode()


def grown(given: Discharge, *bodies: bytes) -> Discharge:
    """A discharge with more links, as whoever holds it can write them."""
    packet = given.packet
    for body in bodies:
        packet = wire.Packet(packet.identifier, (*packet.caveats, (body, b"")), chain.link_tag(packet.signature, body))
    return Discharge(packet)


@pytest.mark.parametrize(
    ("body", "wanted", "why"),
    [
        (b'{"task":"task-123"}', "unreadable_link", "speaks of task"), (b'{"depth":1}', "unreadable_link", "speaks of task"),
        (b'{"delegate_only":true}', "unreadable_link", "speaks of task"),
        (b'{"from":"orchestrator","n":"AAAAAAAAAAA","to":"b"}', "unreadable_link", "speaks of task"),
        (BINDS, "unreadable_link", "speaks of task"),
        (BINDS + b"." + b"A" * 86, "unreadable_link", "speaks of task"),
        (b'{"exp":"x"}', "unreadable_link", "in the discharge"), (b'{"new":1}', "unknown_caveat", "in the discharge"),
    ],
)  # fmt: skip
def test_what_a_discharge_may_not_say_is_unreadable_at_step_5(body: bytes, wanted: str, why: str) -> None:
    """The refusal stands at the caveat that was answered, and is put down to the discharger, not to whoever asked."""
    token = asked().delegate(to="sales-agent")
    given = discharger().discharge(token.needs[0])
    assert verifier().check(token.with_discharge(given), data("sales"))
    decision = verifier().check(token.with_discharge(grown(given, body)), data("sales"))
    refusal = decision.refusals[0]
    assert (decision.code, decision.step, refusal.link, refusal.added_by) == (wanted, 5, 1, "the discharger")
    assert why in refusal.text and decision.attribution is not None


def test_a_discharge_without_an_expiry_or_with_a_third_party_of_its_own_is_unreadable() -> None:
    """Made by whoever has the caveat key: a discharge that never ends, and one that asks in its turn, do not count."""
    token = asked()
    cid = token.needs[0].cid
    inside = SealedBox(PrivateKey(PARTY.reveal())).decrypt(b64decode(json.loads(cid)["box"]))
    key = b64decode(json.loads(inside)["ck"])

    def made(*caveats: RawCaveat) -> Discharge:
        tag = chain.mint_tag(chain.derive(key), cid)
        for caveat in caveats:
            tag = chain.extend(tag, caveat)
        return Discharge(wire.Packet(cid, caveats, tag))

    lease = (b'{"exp":%d}' % (NOW + 60), b"")
    assert verifier().check(token.with_discharge(made(lease)), data("sales"))
    for caveats in (((b'{"nbf":5}', b""),), (lease, (lease[0], bytes(72))), ((lease[0], bytes(72)),)):
        assert verifier().check(token.with_discharge(made(*caveats)), data("sales")).code == "unreadable_link"
    with pytest.raises(TokenFormatError, match="has a third-party caveat"):
        Discharge.parse(made(lease, (b"x", bytes(72))).serialize())


def test_an_unreadable_link_of_the_token_comes_before_one_of_a_discharge() -> None:
    """Step 5 reads the token's links first; step 6 comes after both."""
    token = asked()
    given = grown(discharger().discharge(token.needs[0]), b'{"new":1}')
    broken = token.with_raw_link(b'{"exp":"x"}').with_discharge(given)
    decision = verifier().check(broken, data("sales"))
    assert (decision.code, decision.refusals[0].link, decision.refusals[0].added_by) == ("unreadable_link", 2, "orchestrator")
    lineage = token.with_raw_link(b'{"from":"b","n":"AAAAAAAAAAA","to":"c"}')
    assert verifier().check(lineage.with_discharge(given), data("sales")).code == "unknown_caveat"
    whole = lineage.with_discharge(discharger().discharge(token.needs[0]))
    assert verifier().check(whole, data("sales")).code == "broken_delegation"


def test_codes_of_step_4_say_where() -> None:
    """A missing discharge and one that does not hold stand at their caveat; what answers nothing stands nowhere."""
    token = asked().delegate(to="sales-agent").require(OTHER.public, need={})
    first, second = token.needs
    half = token.with_discharge(discharger().discharge(first))
    decision = verifier().check(half, data("sales"))
    refusal = decision.refusals[0]
    assert (decision.code, decision.step, refusal.link, refusal.added_by) == ("missing_discharge", 4, 3, "sales-agent")
    packet = discharger(key=OTHER).discharge(second).packet
    forged = half.with_discharge(Discharge(wire.Packet(packet.identifier, packet.caveats, bytes(32))))
    decision = verifier().check(forged, data("sales"))
    assert (decision.code, decision.step, decision.refusals[0].link) == ("bad_discharge", 4, 3)
    assert decision.attribution is not None and decision.attribution.issued.subject == "user:jane"
    shown = answered(asked()).present(audience="db")
    extra = mint().present(audience="db") + "." + shown.split(".")[1]
    decision = verifier(audience="db").check(extra, data("sales"))
    assert (decision.code, decision.refusals[0].link, decision.refusals[0].added_by) == ("bad_discharge", None, None)
    double = shown + "." + shown.split(".")[1]
    assert verifier(audience="db").check(double, data("sales")).code == "bad_discharge"


def test_a_box_that_does_not_open_is_a_bad_discharge() -> None:
    """A third-party caveat whose vid is a box under another tag, be it signed by the issuer itself, is answered by nobody."""
    packet = mint().secret_packet
    vid = chain.ask(bytes(32), b"key", b"cid", random_bytes)[1]
    signature = chain.third_party_tag(packet.signature, vid, b"cid")
    harmed = wire.Packet(packet.identifier, (*packet.caveats, (b"cid", vid)), signature)
    tag = chain.link_tag(chain.mint_tag(chain.derive(b"key"), b"cid"), b'{"exp":%d}' % (NOW + 60))
    given = Discharge(wire.Packet(b"cid", ((b'{"exp":%d}' % (NOW + 60), b""),), tag))
    token = Token.parse("cap1_" + b64encode(wire.encode(harmed)))
    assert verifier().check(token.with_discharge(given), data("sales")).code == "bad_discharge"


def test_a_third_party_caveat_can_be_the_first() -> None:
    """One who has the root key may ask before anything else: the box is then under the tag of the root record."""
    identifier = mint().secret_packet.identifier
    root = chain.mint_tag(KEYRING.minting, identifier)
    asked_ = chain.ask(root, b"key", b"cid", random_bytes)
    caveats = (asked_, mint().secret_packet.caveats[0])
    tag = chain.extend(chain.extend(root, asked_), caveats[1])
    body = b'{"exp":%d}' % (NOW + 60)
    given = Discharge(wire.Packet(b"cid", ((body, b""),), chain.link_tag(chain.mint_tag(chain.derive(b"key"), b"cid"), body)))
    token = Token.parse("cap1_" + b64encode(wire.encode(wire.Packet(identifier, caveats, tag))))
    assert verifier().check(token.with_discharge(given), data("sales"))
    decision = verifier().check(token, data("sales"))
    assert (decision.code, decision.refusals[0].link, decision.refusals[0].added_by) == ("missing_discharge", 0, "the issuer")


def test_discharges_and_holder_binding_go_together() -> None:
    """On a bound token anyone may ask a third party and add its answer; the proof is for the text, not for the discharges."""
    key = HolderKey.from_bytes(bytes(range(4, 36)))
    token = mint(tables=["sales"], operations=["select"], key=key.public).require(PARTY.public, need=NEED)
    one = Verifier(KEYRING, audience="sales-db", replays=MemoryReplayStore(floor=0), clock=clock())

    def decided(text: str, audience: str = "sales-db") -> str:
        proven = with_proof(text, key, audience=audience, request=data("sales"), clock=clock())
        return one.check(proven, data("sales")).code

    ready = answered(token)
    assert decided(ready.present(audience="sales-db")) == "allowed"
    assert decided(token.present(audience="sales-db")) == "missing_discharge"
    assert one.check(ready.present(audience="sales-db"), data("sales")).code == "proof_missing"
    narrow = answered(token, Allow(expires_in=60, audience="sales-db"))
    assert decided(narrow.present(audience=["hr-db", "sales-db"])) == "allowed"
    both = Verifier(KEYRING, audience=("hr-db", "sales-db"), replays=MemoryReplayStore(floor=0), clock=clock())
    text = narrow.present(audience=["hr-db", "sales-db"])
    for audience, wanted in (("hr-db", "bad_proof"), ("sales-db", "allowed")):
        proven = with_proof(text, key, audience=audience, request=data("sales"), clock=clock())
        assert both.check(proven, data("sales")).code == wanted, "a discharge narrows whom the proof may be for"


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_a_discharge_and_a_discharger_show_nothing_and_are_not_pickled() -> None:
    """A discharge is a value and secret as a token is; whatever is shown of it holds no signature and no text."""
    token = asked()
    given = discharger().discharge(token.needs[0])
    again = Discharge.parse(given.serialize())
    assert (
        given == again
        and (given != again) is False
        and hash(given) == hash(again)
        and given != "x"
        and given != discharger(allow(expires_in=61)).discharge(token.needs[0])
    )
    assert len({given, again}) == 1 and given.serialize().startswith("cap1u_")
    one = discharger()
    things: list[Any] = [given, one, MINUTE, PARTY]
    for value in things:
        assert copy.copy(value) is value and copy.deepcopy(value) is value
        shown = f"{value} {value!r}"
        for secret in (given.packet.signature, PARTY.reveal()):
            assert secret.hex() not in shown and b64encode(secret)[:20] not in shown and repr(secret)[2:30] not in shown
        assert "cap1" not in shown
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(value)
        with pytest.raises(AttributeError):
            value.anything = 1
        with pytest.raises(AttributeError):
            del value.anything
    assert (repr(given), repr(MINUTE)) == (f"<Discharge, expires at {NOW + 60}, unverified>", "Allow(expires_in)")
    assert repr(one) == f"<Discharger {PARTY.public}>" and str(given) == repr(given)


@pytest.mark.parametrize(
    "fails",
    [
        lambda token: token.require(PARTY.public, need={"a": 1.5}),
        lambda token: token.require(PARTY.public, need={"a": nested(31)}),
        lambda token: token.require(PARTY.public, need={"a": "x" * 3000}),
        lambda token: token.require(PARTY.public, need={}, location=""),
        lambda token: token.require("x", need={}),
        lambda token: Discharger(PARTY, lambda need: 1 // 0).discharge(token.needs[0]),  # type: ignore[arg-type, return-value]
        lambda token: discharger(None).discharge(token.needs[0]),
        lambda token: discharger(Refuse()).discharge(token.needs[0]),
        lambda token: discharger(allow()).discharge(token.needs[0]),
        lambda token: discharger(allow(expires_in=60, depth=1)).discharge(token.needs[0]),
        lambda token: discharger(allow(expires_in=60, tables=5)).discharge(token.needs[0]),
        lambda token: discharger(allow(expires_in=60, tables=[f"t{n:04}" for n in range(2000)])).discharge(token.needs[0]),
        lambda token: discharger().approve(token.needs[0], allow(expires_at=5.5)),
        lambda token: discharger(key=OTHER).discharge(token.needs[0]),
        lambda token: discharger().need(encode_json({**json.loads(token.needs[0].text), "box": BOX}).decode()),
    ],
)
def test_no_frame_of_an_error_holds_a_key(fails: Callable[[Token], Any]) -> None:
    """Whoever reads a traceback with its local variables sees neither the token's signature, nor a caveat key, nor the
    discharger's."""
    token = asked(location="x")
    opened = SealedBox(PrivateKey(PARTY.reveal())).decrypt(b64decode(json.loads(token.needs[0].text)["box"]))
    secrets = [token.secret_packet.signature, b64decode(json.loads(opened)["ck"]), PARTY.reveal(), OTHER.reveal(), opened]
    drawn: list[bytes] = []

    def source(size: int) -> bytes:
        drawn.append(random_bytes(size))
        return drawn[-1]

    watched = Token.of(token.secret_packet, token.unverified.root, structs.replace(token.context, random=source))
    with pytest.raises(Exception) as caught:
        fails(watched)
    frame, passed = caught.value.__traceback__, 0
    while frame is not None:
        if is_library_code(frame.tb_frame.f_code):
            passed += 1
            for name, value in frame.tb_frame.f_locals.items():
                for secret in [*secrets, *drawn]:
                    assert b64encode(secret)[:40] not in repr(value) and repr(secret)[2:-1] not in repr(value), name
        frame = frame.tb_next
    assert passed
