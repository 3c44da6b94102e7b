"""Holder binding and proof of possession, as those who use it see it. What an attacker tries is in `attacks/test_h_possession.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from nacl.signing import SigningKey

from captoken import (
    Access,
    Caller,
    Decision,
    Denied,
    Issuer,
    Token,
    TokenFormatError,
    Verifier,
)
from captoken import (
    proof as possession,
)
from captoken import (
    proof as request,
)
from captoken._format import primitives
from captoken._format.clocks import PROOF_AHEAD, PROOF_PAST
from captoken._format.encoding import b64decode, b64encode
from captoken._language.link import BadLink
from captoken._verification.authenticated import Custody
from captoken.errors import DelegationError, StoreError
from captoken.keys import HolderKey
from captoken.proof import Evidence, Proof, Signer
from captoken.stores.memory import MemoryReplayStore
from captoken.stores.ports import Use
from captoken.testing import FixedClock, fixed_random
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, data, mint, proof_in, prove, sent, tool

BOSS, SELLER, EUROPE, MALLORY = (HolderKey.from_bytes(bytes([n, *range(31)])) for n in (11, 12, 13, 14))
AUDIENCE = "sales-db"
ASK = data("sales")


def bound(**caveats: Any) -> Token:
    """A token of the fixed world, bound to the orchestrator's key since it was minted."""
    return mint(**(caveats or SALES), key=BOSS.public)


def to_seller(token: Token | None = None, **caveats: Any) -> Token:
    return (token or bound()).delegate(to="sales-agent", key=SELLER.public, signer=BOSS, **caveats)


def to_europe(token: Token | None = None, **caveats: Any) -> Token:
    return (token or to_seller()).delegate(to="eu-agent", key=EUROPE.public, signer=SELLER, **caveats)


def server(**facts: Any) -> Verifier:
    return Verifier(KEYRING, **{"audience": AUDIENCE, "clock": clock(), "replays": MemoryReplayStore(floor=0), **facts})


def shown(token: Token, **caveats: Any) -> str:
    return token.present(audience=AUDIENCE, **caveats)


def proved(text: str, signer: Signer, asked: Access | bytes | None = ASK, **facts: Any) -> str:
    return prove(text, signer, **{"audience": AUDIENCE, "request": asked, "clock": clock(), **facts})


def asked(token: Token, signer: Signer | None, access: Access = ASK, one: Verifier | None = None, **facts: Any) -> Decision:
    """What a server says when the token is presented with a proof by the signer, if there is one."""
    text = shown(token)
    proof = None if signer is None else proved(text, signer, facts.get("request", access))
    return (one or server()).check(sent(text, proof), access, **facts)


# --- binding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", [BOSS.public, b64decode(BOSS.public)], ids=["text", "bytes"])
def test_a_token_is_bound_when_it_is_minted_or_by_whoever_holds_it(spelled: str | bytes) -> None:
    """By the key as text or bytes; by the issuer, by a holder, with or without handing on; the first binding needs no signature."""
    for token in (mint(**SALES, key=spelled), mint().attenuate(key=spelled), mint().delegate(to="b", key=spelled)):
        assert token.unverified.key == BOSS.public and mint().unverified.key is None
        grant = server().authorize(sent(shown(token), proved(shown(token), BOSS)), ASK)
        assert grant.key == BOSS.public and grant.evidence == () and grant.actor.basis in ("issued", "vouched")
        assert asked(token, None).code == "proof_missing" and asked(token, MALLORY).code == "bad_proof"


def test_a_bearer_token_needs_none_of_this() -> None:
    """No proof, no store, no key in the grant; and a proof that comes with it is refused, good as it may be."""
    text = shown(mint())
    one = server(replays=None)
    grant = one.authorize(text, ASK)
    assert grant.key is None and grant.evidence == () and grant.actor.basis == "issued"
    decision = one.check(sent(text, proved(text, BOSS)), ASK)
    assert decision.code == "bad_proof" and "bound to no key" in str(decision)
    assert one.check(text, ASK, request=bytes(32)), "what the transport carried matters to no bearer token"


def test_what_proves_the_hand_overs_shows_no_tag() -> None:
    custody = Custody((), (b"secret tag",))
    assert f"{custody} {custody!r}" == "<Custody> <Custody>"


def test_a_bound_token_needs_a_server_with_a_name() -> None:
    """One without a name has nothing that a proof could be for."""
    nameless = Verifier(KEYRING, clock=clock(), replays=MemoryReplayStore(floor=0))
    text = bound().serialize()
    decision = nameless.check(sent(text, proved(text, BOSS)), ASK)
    assert decision.code == "unaddressed" and "the token is bound to a key, and this server has no name that a proof" in str(decision)
    assert nameless.check(mint(), ASK)


def test_an_unaddressed_bound_token_is_taken_where_that_will_do() -> None:
    """By a server that says so, with a proof for that server."""
    text = bound().serialize()
    lenient = server(allow_unaddressed=True)
    assert lenient.check(sent(text, proved(text, BOSS)), ASK)
    assert lenient.check(sent(text, proved(text, BOSS, audience="hr-db")), ASK).code == "bad_proof"
    assert server().check(sent(text, proved(text, BOSS)), ASK).code == "unaddressed"


UNFIT: dict[str, Any] = {
    "a number": 5, "a holder key": BOSS, "31 bytes": bytes(31), "zeros": bytes(32), "42 characters": BOSS.public[:-1],
    "padded": BOSS.public + "=", "off the curve": (2).to_bytes(32, "little"), "reduced": (2**255 - 18).to_bytes(32, "little"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_a_key_that_is_none_is_refused_when_a_link_is_written(name: str) -> None:
    for write in (
        lambda key: mint(**SALES, key=key),
        lambda key: mint().attenuate(key=key),
        lambda key: mint().delegate(to="b", key=key),
    ):
        with pytest.raises((TypeError, ValueError), match=r"key|base64"):
            write(UNFIT[name])


# --- handing on ------------------------------------------------------------------------------------------------------


def test_the_holder_signs_a_bound_token_over() -> None:
    """From key to key: only the last one proves, and everybody whose hand-over was signed is proven."""
    token = to_europe()
    assert token.unverified.key == EUROPE.public and token.unverified.holder == "eu-agent"
    assert asked(token, EUROPE) and asked(token, BOSS).code == asked(token, SELLER).code == "bad_proof"
    grant = asked(token, EUROPE).grant
    assert grant is not None and grant.key == EUROPE.public
    assert [(actor.name, actor.basis) for actor in grant.chain] == [
        ("orchestrator", "issued"), ("sales-agent", "proven"), ("eu-agent", "proven")
    ]  # fmt: skip
    assert (
        str(asked(token, EUROPE)).splitlines()[1]
        == "  who      orchestrator (issued) > sales-agent (proven) > eu-agent (proven), for user:jane"
    )


def test_each_hop_says_how_its_name_is_known() -> None:
    """Before the token was bound, and by whoever bound it, a name is vouched for; after that it is proven."""
    token = mint().delegate(to="a").delegate(to="b", key=SELLER.public)
    token = token.delegate(to="eu-agent", key=EUROPE.public, signer=SELLER)
    grant = asked(token, EUROPE).grant
    assert grant is not None
    assert [(actor.name, actor.basis) for actor in grant.chain] == [
        ("orchestrator", "issued"), ("a", "vouched"), ("b", "vouched"), ("eu-agent", "proven")
    ]  # fmt: skip
    assert (
        grant.actor.basis == "proven"
        and grant.parent is not None
        and grant.parent.basis == "vouched"
        and len(grant.evidence) == 1
    )


def test_whoever_stole_a_bearer_token_proves_nothing_in_its_holders_name() -> None:
    """It binds the token to a key of its own, as nobody's doing, and signs: vouched for, also after a change of that key.
    Below, a key that was named in a hand-over counts again, beside a name that is shown as vouched for."""
    stolen = mint()
    bound_late = stolen.attenuate(key=SELLER.public)
    framed = bound_late.delegate(to="clerk", key=EUROPE.public, signer=SELLER)
    grant = asked(framed, EUROPE).grant
    assert grant is not None and [actor.basis for actor in grant.chain] == ["issued", "vouched"]
    assert grant.evidence[0].holds(), "somebody's key did sign"
    changed = bound_late.attenuate(key=BOSS.public, signer=SELLER).delegate(to="clerk", key=EUROPE.public, signer=BOSS)
    grant = asked(changed, EUROPE).grant
    assert grant is not None and [actor.basis for actor in grant.chain] == ["issued", "vouched"]
    below = framed.delegate(to="below", key=BOSS.public, signer=EUROPE)
    grant = asked(below, BOSS).grant
    assert grant is not None and [actor.basis for actor in grant.chain] == ["issued", "vouched", "proven"]


def test_a_holder_takes_a_new_key_without_handing_on() -> None:
    """The old one signs for it; nobody's name is proven by that, and the old one proves nothing any more."""
    token = to_seller().attenuate(key=EUROPE.public, signer=SELLER)
    assert asked(token, SELLER).code == "bad_proof"
    grant = asked(token, EUROPE).grant
    assert grant is not None and [actor.basis for actor in grant.chain] == ["issued", "proven"]
    assert len(grant.evidence) == 2 and all(evidence.holds() for evidence in grant.evidence)
    assert asked(to_seller().attenuate(key=SELLER.public, signer=SELLER), SELLER), "the same key again, signed for, will do"
    below = asked(token.delegate(to="below", key=BOSS.public, signer=EUROPE), BOSS).grant
    assert below is not None and [actor.basis for actor in below.chain] == ["issued", "proven", "proven"]


def test_narrowing_is_free_for_anyone() -> None:
    """Without a key, at any point of the chain: what is left is bound as before, and narrower."""
    token = to_europe(to_seller(bound().attenuate(operations=["select"])).attenuate(tables=["sales"])).attenuate(expires_in=30)
    assert asked(token, EUROPE) and asked(token, EUROPE, data("market.eu")).code == "table"
    assert asked(token, None).code == "proof_missing"


class Service:
    """A key service: another class, a public key in bytes, and a sign that may go wrong."""

    def __init__(self, public: Any, sign: Callable[[bytes], Any]) -> None:
        self.public, self.sign = public, sign


def signing(message: bytes) -> bytes:
    return bytes(SigningKey(BOSS.reveal()).sign(message).signature)


def failing(message: bytes) -> bytes:
    raise ConnectionError("the key service is down")


def test_whatever_signs_is_a_signer() -> None:
    """A key in memory, a key service that names its key in bytes or as text."""
    for public in (BOSS.public, b64decode(BOSS.public)):
        service = Service(public, signing)
        token = bound().delegate(to="sales-agent", key=SELLER.public, signer=service)
        assert asked(token, SELLER) and asked(bound(), service)


ODD_SIGNATURES: dict[str, Any] = {
    "none": None, "empty": b"", "63 bytes": bytes(63), "65 bytes": bytes(65), "message and signature": bytes(64) + b"message",
    "text": "x" * 64, "base64url": b64encode(bytes(64)), "a bytearray": bytearray(64), "a memoryview": memoryview(bytes(64)), "true": True,
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_SIGNATURES)
def test_a_signer_that_returns_no_signature_is_a_type_error(name: str) -> None:
    odd = Service(BOSS.public, lambda message: ODD_SIGNATURES[name])
    with pytest.raises(TypeError, match="a signature of 64 bytes"):
        to_seller(bound()) and bound().delegate(to="b", key=SELLER.public, signer=odd)
    with pytest.raises(TypeError, match="a signature of 64 bytes"):
        proved(shown(bound()), odd)


def test_what_a_signer_raises_passes_through() -> None:
    down = Service(BOSS.public, failing)
    with pytest.raises(ConnectionError, match="is down"):
        bound().delegate(to="b", key=SELLER.public, signer=down)
    with pytest.raises(ConnectionError, match="is down"):
        proved(shown(bound()), down)


def test_a_signature_that_does_not_hold_is_not_noticed_by_the_holder_and_is_by_the_server() -> None:
    """A signer that signs something else: the token is written, and says nothing of use."""
    wrong = Service(BOSS.public, lambda message: signing(b"something else"))
    token = bound().delegate(to="sales-agent", key=SELLER.public, signer=wrong)
    decision = asked(token, SELLER)
    assert (decision.code, decision.refusals[0].link, decision.refusals[0].added_by) == ("bad_proof", 1, "orchestrator")
    assert "has not signed this one" in str(decision) and "sales-agent (vouched)" in str(decision)


HAND_OVERS: dict[str, tuple[Callable[[], Any], type[Exception], str, str]] = {
    "a signature where no key is": (
        lambda: mint().delegate(to="b", key=SELLER.public, signer=BOSS), DelegationError, "broken_delegation", "nothing to sign"),
    "a signature where no key is, narrowing": (
        lambda: mint().attenuate(tables=["sales"], signer=BOSS), DelegationError, "broken_delegation", "nothing to sign"),
    "a name without a key": (
        lambda: bound().delegate(to="b", signer=BOSS), DelegationError, "broken_delegation", "the public key of b"),
    "a name with nothing": (
        lambda: bound().delegate(to="b"), DelegationError, "broken_delegation", "the public key of b"),
    "a key without a signature": (
        lambda: bound().delegate(to="b", key=SELLER.public), DelegationError, "bad_proof", "the token is bound to a key: only that key can sign the hand-over, so"),
    "a new key without a signature": (
        lambda: bound().attenuate(key=SELLER.public), DelegationError, "bad_proof", "the token is bound to a key: only that key can sign the hand-over, so"),
    "a signature without a key": (
        lambda: bound().attenuate(tables=["sales"], signer=BOSS), ValueError, "", "signer needs the key that the token is handed to: pass key as well"),
    "somebody else's signature": (
        lambda: bound().delegate(to="b", key=SELLER.public, signer=SELLER), DelegationError, "bad_proof", "not the key that"),
    "the public key of before": (
        lambda: to_seller().delegate(to="b", key=EUROPE.public, signer=BOSS), DelegationError, "bad_proof", "not the key that"),
    "a signer with no key": (
        lambda: bound().delegate(to="b", key=SELLER.public, signer=Service("", signing)), ValueError, "", "signer is 43 characters"),
    "a signer with no such thing": (
        lambda: bound().delegate(to="b", key=SELLER.public, signer=Service(None, signing)), TypeError, "", "signer must be 32 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", HAND_OVERS)
def test_a_hand_over_that_servers_would_refuse_is_refused_at_once(name: str) -> None:
    """Eleven of them, each told what is due, before anything is signed."""
    write, kind, code, said = HAND_OVERS[name]
    with pytest.raises(kind, match=said) as caught:
        write()
    assert code in ("", getattr(caught.value, "code", None))


def test_a_token_that_cannot_be_read_here_is_still_bound() -> None:
    """For its holders: an opaque link that names a key binds, as far as they can see, and one with a broken key does not."""
    opaque = mint().with_raw_link(b'{"key":"' + BOSS.public.encode() + b'","later":1}')
    assert opaque.unverified.key == BOSS.public and isinstance(opaque.unverified.links[1], BadLink)
    assert opaque.attenuate(key=SELLER.public, signer=BOSS).unverified.key == SELLER.public
    named = opaque.with_raw_link(
        b'{"from":"orchestrator","key":"' + SELLER.public.encode() + b'","later":1,"n":"AAAAAAAAAAA","to":"b"}'
    )
    assert (named.unverified.key, named.unverified.holder) == (SELLER.public, "b")
    assert mint().with_raw_link(b'{"key":5,"later":1}').unverified.key is None
    assert server().check(opaque, ASK).code == "unknown_caveat"


# --- evidence --------------------------------------------------------------------------------------------------------


def test_evidence_is_kept_and_checked_without_any_key_of_ours() -> None:
    """Through JSON and back; under the key that handed on, and no other; it names who handed on to whom."""
    grant = asked(to_europe(to_seller(tables=["sales"])), EUROPE).grant
    assert grant is not None
    first, second = grant.evidence
    for evidence, giver, sender, receiver in (
        (first, BOSS, "orchestrator", "sales-agent"),
        (second, SELLER, "sales-agent", "eu-agent"),
    ):
        again = Evidence.from_dict(json.loads(json.dumps(evidence.as_dict())))
        assert again == evidence and again.holds() and b64encode(again.key) == giver.public
        link = json.loads(evidence.as_dict()["body"])
        assert (link["from"], link["to"]) == (sender, receiver)
    assert json.loads(first.body)["tables"] == ["sales"] and json.loads(first.body)["key"] == SELLER.public


def test_evidence_holds_for_nothing_else() -> None:
    """Another key, another state, another link, another signature, or the parts of two: none of it holds."""
    grant = asked(to_europe(), EUROPE).grant
    assert grant is not None
    one, two = grant.evidence
    facts = {"key": one.key, "state": one.state, "body": one.body, "signature": one.signature}
    assert Evidence(**facts).holds()
    changed: list[dict[str, bytes]] = [
        {"key": b64decode(other.public)} for other in (SELLER, EUROPE, MALLORY)
    ] + [
        {"state": two.state}, {"body": two.body}, {"signature": two.signature}, {"key": two.key}, {"state": two.state, "body": two.body},
        {"body": one.body + b" "}, {"body": one.body.replace(b"sales-agent", b"other-agent")}, {"body": b""}, {"state": b""},
        {"state": one.state + bytes(1)}, {"state": one.state[:-1]}, {"signature": bytes(64)}, {"signature": b""}, {"key": b""}, {"key": bytes(32)},
        {"signature": one.signature + bytes(1)}, {"key": one.key + bytes(1)},
    ]  # fmt: skip
    for part in ("key", "state", "signature"):
        for at in range(len(facts[part])):
            changed.append({part: facts[part][:at] + bytes([facts[part][at] ^ 1]) + facts[part][at + 1 :]})
    assert len(changed) > 140 and not any(Evidence(**{**facts, **change}).holds() for change in changed)


STATED = {"key": b64encode(bytes(32)), "state": b64encode(bytes(32)), "body": "{}", "signature": b64encode(bytes(64))}


@pytest.mark.parametrize(
    "stated",
    [
        {}, {"key": STATED["key"]}, {**STATED, "more": ""}, {**STATED, "key": ""}, {**STATED, "key": STATED["key"] + "="},
        {**STATED, "state": b64encode(bytes(31))}, {**STATED, "signature": b64encode(bytes(63))}, {**STATED, "key": STATED["signature"]},
        {**STATED, "signature": STATED["signature"][:-1] + "B"}, {**STATED, "body": "\ud800"}, {**STATED, "key": "é" * 43},
        None, [], "evidence", {**STATED, "key": 5}, {**STATED, "key": None}, {**STATED, "body": None}, {**STATED, "body": 5},
        {**STATED, "state": [1]}, {**STATED, "signature": {}}, {**STATED, "key": bytes(32)},
    ],
)  # fmt: skip
def test_evidence_is_read_from_what_it_wrote_and_nothing_else(stated: Any) -> None:
    """ValueError for whatever an audit file may hold."""
    assert Evidence.from_dict(STATED) == Evidence(bytes(32), bytes(32), b"{}", bytes(64))
    assert not Evidence.from_dict(STATED).holds()
    with pytest.raises(ValueError):
        Evidence.from_dict(stated)


def test_a_denial_before_the_proof_shows_who_was_proven_and_no_more() -> None:
    """A denied request is attributed too: by the signatures that hold, whether or not step 10 was reached."""
    good = asked(to_europe(), None, data("hr"))
    assert good.code == "table" and good.attribution is not None
    assert [actor.basis for actor in good.attribution.chain] == ["issued", "proven", "proven"]
    wrong = Service(SELLER.public, lambda message: bytes(64))
    bad = asked(to_seller().delegate(to="eu-agent", key=EUROPE.public, signer=wrong), None, data("hr"))
    assert bad.code == "table" and bad.attribution is not None
    assert [actor.basis for actor in bad.attribution.chain] == ["issued", "proven", "vouched"]


# --- what is remembered ----------------------------------------------------------------------------------------------


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The messages of which signatures were checked, as they are checked."""
    seen: list[bytes] = []
    genuine = primitives.signed

    def counted(public: bytes, message: bytes, signature: bytes) -> bool:
        seen.append(message)
        return genuine(public, message, signature)

    monkeypatch.setattr(primitives, "signed", counted)
    return seen


def custody(checks: list[bytes]) -> int:
    return sum(message.startswith(b"captoken/v1 custody\0") for message in checks)


def test_a_hand_over_that_held_is_checked_once(checks: list[bytes]) -> None:
    """By one verifier; a proof is checked each time, and another verifier checks for itself."""
    one, token = server(), to_europe()
    for number in range(1, 6):
        assert asked(token, EUROPE, one=one)
        assert custody(checks) == 2 and len(checks) == 2 + number
    assert asked(token.attenuate(tables=["sales"]), EUROPE, one=one) and custody(checks) == 2
    assert asked(token, EUROPE) and custody(checks) == 4


def test_a_hand_over_that_did_not_hold_is_checked_each_time_and_never_remembered(checks: list[bytes]) -> None:
    """The specification's rule 28.10."""
    one = server()
    wrong = Service(BOSS.public, lambda message: bytes(64))
    token = bound().delegate(to="sales-agent", key=SELLER.public, signer=wrong)
    counts = []
    for _ in range(4):
        before = custody(checks)
        assert asked(token, SELLER, one=one).code == "bad_proof"
        counts.append(custody(checks) - before)
    assert len(set(counts)) == 1 and counts[0] >= 1


def test_a_hand_over_behind_those_that_are_remembered_is_looked_at_by_itself() -> None:
    """Whose signature held vouches for what is before it, and for nothing that somebody puts behind it."""
    one, known = server(), to_seller()
    assert asked(known, SELLER, one=one) and asked(known, SELLER, one=one)
    wrong = Service(SELLER.public, lambda message: signing(b"something else"))
    for _ in range(3):
        forged = known.delegate(to="eu-agent", key=EUROPE.public, signer=wrong)
        decision = asked(forged, EUROPE, one=one)
        assert (decision.code, decision.refusals[0].link) == ("bad_proof", 2)
    assert asked(to_europe(known), EUROPE, one=one)


def test_a_proof_may_be_made_at_the_epoch() -> None:
    assert len(proved(shown(bound()), BOSS, clock=lambda: 0)) == len(proved(shown(bound()), BOSS))
    with pytest.raises(ValueError, match="from 0 on"):
        proved(shown(bound()), BOSS, clock=lambda: -1)


def test_what_is_remembered_is_bounded(checks: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last few thousand; here the last three: a fourth drives out the one kept longest ago."""
    monkeypatch.setattr("captoken._verification.memory.STATES_REMEMBERED", 3)
    one = server()
    tokens = [bound().delegate(to=f"agent-{n}", key=SELLER.public, signer=BOSS) for n in range(4)]
    for token, known in [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (1, 1), (2, 1), (3, 1), (0, 0), (1, 0)]:
        before = custody(checks)
        assert asked(tokens[token], SELLER, one=one)
        assert custody(checks) - before == 1 - known, (token, known)


# --- proofs ----------------------------------------------------------------------------------------------------------


def test_a_proof_is_for_one_text_one_server_one_request_and_one_use() -> None:
    one, text = server(), shown(to_seller())
    proof = proved(text, SELLER)
    assert proof.startswith("cap1p_") and len(proof) == 6 + 118
    assert one.check(sent(text, proof), ASK) and one.check(sent(text, proof), ASK).code == "replayed"
    assert one.check(sent(text, proved(text, SELLER)), ASK), "the next one is another"
    for_another = {
        "text": proved(shown(to_seller().attenuate(operations=["select"])), SELLER),
        "server": proved(text, SELLER, audience="hr-db"),
        "request": proved(text, SELLER, data("market.eu")),
    }
    said = {what: one.check(sent(text, proof), ASK).code for what, proof in for_another.items()}
    assert said == {"text": "bad_proof", "server": "bad_proof", "request": "bad_proof"}


def test_a_proof_says_what_the_specification_says() -> None:
    """Time, nonce and signature, over label, state, audience, time, nonce and request, as another hand writes it."""
    import hashlib

    text = shown(bound())
    nonce = bytes(range(16))
    proof = proved(text, BOSS, bytes(range(32)), random=lambda size: nonce[:size])
    raw = b64decode(proof[6:])
    state = hashlib.sha256(b"captoken/v1 state\0" + Token.parse(text).secret_packet.signature).digest()
    message = (
        b"captoken/v1 proof\0"
        + state
        + hashlib.sha256(b"sales-db").digest()
        + NOW.to_bytes(8, "big")
        + nonce
        + bytes(range(32))
    )
    assert raw == NOW.to_bytes(8, "big") + nonce + signing(message)
    assert prove(text, BOSS, audience=AUDIENCE) != prove(text, BOSS, audience=AUDIENCE), "a nonce of its own each time"


@pytest.mark.parametrize("offset", [*range(-PROOF_PAST - 3, -PROOF_PAST + 3), -1, 0, 1, *range(PROOF_AHEAD - 2, PROOF_AHEAD + 4)])
@pytest.mark.parametrize("leeway", [0, 600])
def test_a_proof_is_fresh_for_thirty_seconds_and_may_be_five_ahead(offset: int, leeway: int) -> None:
    """Both ends included, whatever leeway there is for expiries."""
    one, text = server(leeway=leeway), shown(bound())
    decision = one.check(sent(text, proved(text, BOSS, clock=FixedClock(NOW + offset))), ASK)
    assert decision.code == ("allowed" if -PROOF_PAST <= offset <= PROOF_AHEAD else "bad_proof")
    assert bool(decision) or "which is too long ago or in the future" in str(decision)


def test_a_request_without_a_signer_is_a_mistake() -> None:
    """Its text would have no proof, and no server would take it; said before the token is narrowed."""
    with pytest.raises(ValueError, match="request needs the signer that proves it: pass signer as well"):
        bound().present(audience=AUDIENCE, request=ASK)
    with pytest.raises(ValueError, match="request needs the signer that proves it: pass signer as well"):
        mint().present(audience=AUDIENCE, request=bytes(32))


def test_what_cannot_be_proved_is_refused_when_the_proof_is_made() -> None:
    """No token, no name, no request: TokenFormatError, TypeError or ValueError, before anything is signed."""
    untouched = Service(BOSS.public, failing)
    text = shown(bound())
    for hostile in ("", "cap1_", "cap1_AAAA", text[:-1], text + "=", text.encode(), None, 5):
        with pytest.raises(TokenFormatError):
            prove(hostile, untouched, audience=AUDIENCE)  # type: ignore[arg-type]
    for name in ("", "a b", "é", "x" * 129, None, 5, ("sales-db",)):
        with pytest.raises((TypeError, ValueError)):
            prove(text, untouched, audience=name)  # type: ignore[arg-type]
    for odd in ("select", 5, {"table": "sales"}, bytearray(32), b"", bytes(31), bytes(33), tool("t", n=10**5000)):
        with pytest.raises((TypeError, ValueError)):
            prove(text, untouched, audience=AUDIENCE, request=odd)  # type: ignore[arg-type]
    for broken in (lambda: None, lambda: float("nan"), lambda: float("inf"), lambda: "now", lambda: True):
        with pytest.raises((TypeError, ValueError)):
            prove(text, untouched, audience=AUDIENCE, clock=broken)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("now", [-1, -5.5, 2**64])
def test_a_time_that_a_proof_cannot_say_is_a_value_error(now: float) -> None:
    with pytest.raises(ValueError):
        proved(shown(bound()), BOSS, clock=lambda: now)


def test_a_transport_says_what_it_carried() -> None:
    """The 32 bytes in place of the access; the access is still what is asked of the token."""
    one, text = server(), shown(bound())
    digest = request.http_request("GET", "https://sales.example", "/sales?region=eu")
    assert one.check(sent(text, proved(text, BOSS, digest)), ASK, request=digest)
    assert one.check(sent(text, proved(text, BOSS, digest)), ASK).code == "bad_proof", "not told, it asks for the access"
    assert one.check(sent(text, proved(text, BOSS)), ASK, request=digest).code == "bad_proof"
    assert one.check(sent(text, proved(text, BOSS, digest)), data("hr"), request=digest).code == "table"
    assert one.check(sent(text, proved(text, BOSS, request.access_request(ASK))), ASK)
    assert one.authorize(sent(text, proved(text, BOSS, digest)), ASK, request=digest)
    with pytest.raises(TypeError, match="32 bytes of captoken"):
        one.check(sent(text, proved(text, BOSS)), ASK, request="x" * 32)  # type: ignore[arg-type]


def test_a_request_that_cannot_be_spelled_is_refused() -> None:
    """An integer of five thousand digits is data, and no request."""
    one, text = server(), shown(mint(tools={"t": {"n": {"any": True}}}, key=BOSS.public))
    access = tool("t", n=10**5000)
    decision = one.check(sent(text, proved(text, BOSS, bytes(32))), access)
    assert decision.code == "bad_proof" and "the request cannot be written as bytes to sign" in str(decision)
    assert one.check(sent(text, proved(text, BOSS, bytes(32))), access, request=bytes(32)), "but a transport can carry it"
    assert one.check(sent(text, proved(text, BOSS, bytes(32))), tool("t", n=1), request=bytes(31)).code == "bad_proof"


def test_a_token_can_be_shown_without_an_access() -> None:
    """`authenticate` takes a proof for no access, or for what the transport carried; the grant is then asked as often as wanted."""
    moving = clock()
    one, text = server(clock=moving), shown(to_seller(), expires_in=20)
    grant = one.authenticate(sent(text, proved(text, SELLER, None)))
    assert grant.authorize(ASK) and grant.check(data("hr")).code == "table" and grant.explain(ASK) and grant.recheck()
    assert grant.check(ASK, caller=Caller(agent="sales-agent")) and grant.check(ASK, caller=Caller(agent="b")).code == "caller"
    moving.advance(20)
    assert grant.check(ASK).code == grant.recheck().code == "expired"
    moving.advance(-20)
    with pytest.raises(Denied) as caught:
        one.authenticate(sent(text, proved(text, SELLER)))
    assert caught.value.code == "bad_proof" and caught.value.kind == "proof", "a proof for an access is none for showing"
    assert one.authenticate(sent(text, proved(text, SELLER, bytes(32))), request=bytes(32))
    with pytest.raises(Denied) as caught:
        one.authenticate(text)
    assert caught.value.code == "proof_missing"


def test_a_dry_run_uses_nothing_up_and_grants_nothing() -> None:
    """Allowed as often as it is asked, and no grant comes of it; the real run is then still the first, and is seen by the next."""
    store = MemoryReplayStore(floor=0)
    one, text = server(replays=store), shown(bound())
    proof = proved(text, BOSS)
    for _ in range(3):
        dry = one.explain(sent(text, proof), ASK)
        assert dry and dry.dry and dry.grant is None and len(dry.effects) == 1 and len(store) == 0
        assert (dry.steps[9].outcome, dry.steps[10].outcome) == ("held", "held") and not dry.as_dict()["committed"]
    assert (
        dry.attribution is not None
        and dry.attribution.issued.subject == "user:jane"
        and not hasattr(dry.attribution, "authorize")
    )
    real = one.check(sent(text, proof), ASK)
    assert real and real.grant is not None and len(store) == 1 and real.effects == dry.effects
    assert [step.outcome for step in real.steps][9:] == ["held", "held"]
    assert one.explain(sent(text, proof), ASK).code == "replayed" == one.check(sent(text, proof), ASK).code, "it looks at what was used"
    assert one.explain(text, ASK).code == "proof_missing" and one.explain(sent(text, "x"), ASK).code == "malformed"
    assert server(replays=None).explain(sent(text, proof), ASK).code == "store_unavailable" and one.explain(shown(mint()), ASK).grant is None


def test_nothing_is_committed_for_a_request_that_is_refused() -> None:
    """The proof of a request that was denied for another reason is not used up."""
    store = MemoryReplayStore(floor=0)
    one, text = server(replays=store), shown(bound())
    proof = proved(text, BOSS)
    for denied in (one.check(sent(text, proof), data("hr")), one.check(sent(text, proof), ASK, caller=Caller(agent="other"))):
        assert denied.code in ("table", "caller") and denied.effects == () and len(store) == 0
    assert one.check(sent(text, proof), ASK)


def test_a_server_without_a_store_takes_no_bound_token() -> None:
    """It cannot tell the first use from the second."""
    text = shown(bound())
    one = server(replays=None)
    decision = one.check(sent(text, proved(text, BOSS)), ASK)
    assert decision.code == "store_unavailable" and decision.grant is None and "needs a replay store" in str(decision)
    assert [step.outcome for step in decision.steps][9:] == ["held", "failed"], "the proof was looked at, and it held"
    with pytest.raises(Denied) as caught:
        one.authorize(sent(text, proved(text, BOSS)), ASK)
    assert caught.value.kind == "unavailable" and caught.value.public == "The server cannot decide right now."


class Told:
    """A store that answers as it is told to."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.seen: list[tuple[Use, int]] = []

    def add(self, use: Use, now: int) -> Any:
        self.seen.append((use, now))
        return self.answer()


def raising(error: Exception) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


def later() -> Any:
    """What `add` of an asynchronous store returns when nobody waits for it."""

    async def answer() -> bool:
        return True

    coroutine = answer()
    coroutine.close()
    return coroutine


class Yes:
    """Says yes to everything."""

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


ANSWERS: dict[str, tuple[Callable[[], Any], str]] = {
    "true": (lambda: True, "allowed"), "false": (lambda: False, "replayed"), "none": (lambda: None, "replayed"),
    "one": (lambda: 1, "replayed"), "yes": (lambda: "yes", "replayed"), "text": (lambda: "True", "replayed"), "a list": (lambda: [True], "replayed"),
    "an object that says yes": (Yes, "replayed"), "a coroutine": (later, "replayed"), "the type": (lambda: bool, "replayed"),
    "not implemented": (lambda: object(), "replayed"), "a store error": (raising(StoreError("no room for it")), "store_unavailable"),
    **{
        f"raises {type(error).__name__}": (raising(error), "store_unavailable")
        for error in (
            RuntimeError("secret"), OSError(28, "secret"), TimeoutError("secret"), KeyError("secret"), AssertionError("secret"),
            RecursionError("secret"), MemoryError(), ZeroDivisionError(), StopIteration(), UnicodeError("secret"), LookupError(), Exception(),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_only_true_from_a_store_allows(name: str) -> None:
    """Whatever else it answers or raises denies; what a strange one raises is not shown."""
    answer, code = ANSWERS[name]
    store, text = Told(answer), shown(bound())
    one = server(replays=store)
    proof = proved(text, BOSS)
    decision = one.check(sent(text, proof), ASK)
    assert decision.code == code and bool(decision) is (code == "allowed") and (decision.grant is None) is not bool(decision)
    assert "secret" not in str(decision) and ("no room for it" in str(decision)) is (name == "a store error")
    assert decision or (decision.steps[10].outcome == "failed" and decision.attribution is not None)
    read = proof_in(proof)
    assert store.seen == [(possession.use_of(b64decode(BOSS.public), read, "k1"), NOW)]


def test_what_stops_the_process_passes_through_a_store() -> None:
    """KeyboardInterrupt is nobody's denial, and no answer."""

    class Stopped(BaseException):
        pass

    def stop() -> Any:
        raise Stopped

    text = shown(bound())
    with pytest.raises(Stopped):
        server(replays=Told(stop)).check(sent(text, proved(text, BOSS)), ASK)


def test_a_use_is_of_a_key_and_a_nonce() -> None:
    """16 bytes: the same for one key and one nonce, whatever the time and the signature; others for all else."""
    uses = [
        possession.use_of(key, Proof(at, nonce, signature)).entry
        for key in (bytes(32), bytes(31) + b"\1")
        for nonce in (bytes(16), bytes(15) + b"\1")
        for at in (0, NOW)
        for signature in (bytes(64), b"\1" * 64)
    ]
    assert len(set(uses)) == 4 and [uses.count(entry) for entry in dict.fromkeys(uses)] == [4] * 4
    assert {len(entry) for entry in uses} == {16}
    assert possession.use_of(bytes(32), Proof(NOW, bytes(16), bytes(64))).issued_at == NOW


def test_a_proof_is_when_a_nonce_and_a_signature() -> None:
    """In that order, of fixed lengths; how its text is spelled is for whoever reads the whole (`test_text.py`)."""
    data = bytes(range(88))
    assert possession.read_proof(data) == Proof(int.from_bytes(data[:8], "big"), data[8:24], data[24:])


def test_what_stands_for_a_request() -> None:
    """An access, 32 bytes, or nothing; TypeError and ValueError for the rest."""
    assert possession.request_digest(ASK) == request.access_request(ASK) and possession.request_digest(None) == request.access_request(None)
    assert possession.request_digest(bytes(range(32))) == bytes(range(32))
    for odd in (bytearray(32), "x" * 32, 5, {"table": "sales"}, [ASK]):
        with pytest.raises(TypeError, match="a request is an Access"):
            possession.request_digest(odd)  # type: ignore[arg-type]
    for length in (0, 31, 33, 64):
        with pytest.raises(ValueError, match="32 bytes"):
            possession.request_digest(bytes(length))


def test_a_server_of_several_names_takes_a_proof_for_one_that_the_token_names_too() -> None:
    """For any of its names that every audience of the token leaves, and for no other."""
    one = server(audience=("sales-db", "hr-db"), allow_unaddressed=True)
    both = bound().attenuate(audience=["sales-db", "hr-db", "mail-api"]).serialize()
    first = bound().attenuate(audience=["sales-db", "mail-api"]).serialize()
    nobody = bound().serialize()
    for text, names in ((both, {"sales-db", "hr-db"}), (first, {"sales-db"}), (nobody, {"sales-db", "hr-db"})):
        for name in ("sales-db", "hr-db", "mail-api"):
            assert bool(one.check(sent(text, proved(text, BOSS, audience=name)), ASK)) is (name in names), (text, name)
    text = shown(bound())
    proof = proved(text, BOSS)
    assert one.check(sent(text, proof), ASK) and one.check(sent(text, proof), ASK).code == "replayed"


def test_a_token_for_one_server_s_keys_is_proved_to_that_server() -> None:
    """The root's audience counts as every other does."""
    ring = KEYRING.for_audience(AUDIENCE)
    token = Issuer(ring, clock=clock(), random=fixed_random("pairwise")).mint(**WHO, **SALES, key=BOSS.public)
    one = Verifier(ring, audience=(AUDIENCE, "hr-db"), clock=clock(), replays=MemoryReplayStore(floor=0))
    text = token.serialize()
    assert one.check(sent(text, proved(text, BOSS)), ASK)
    assert one.check(sent(text, proved(text, BOSS, audience="hr-db")), ASK).code == "bad_proof"


def test_a_token_object_is_asked_for_its_proof_too() -> None:
    """A Token in place of text changes nothing."""
    token = Token.parse(shown(bound()))
    assert server().check(token, ASK).code == "proof_missing"
    assert server().check(sent(token, proved(token.serialize(), BOSS)), ASK)


def test_clients_and_models_are_told_that_a_proof_is_due_and_not_why() -> None:
    """One public sentence for missing, bad and replayed; kind `proof`."""
    one, text = server(), shown(bound())
    proof = proved(text, BOSS)
    assert one.check(sent(text, proof), ASK)
    told = set()
    for given in (None, proved(text, BOSS, data("hr")), proved(text, MALLORY), proof):
        with pytest.raises(Denied) as caught:
            one.authorize(sent(text, given), ASK)
        told.add((caught.value.kind, caught.value.public))
        assert caught.value.decision.for_model()
    assert told == {("proof", "The request needs a fresh proof from the key that the token is bound to.")}
