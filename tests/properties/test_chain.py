"""D4: the chain is the one that all macaroon libraries compute.

Three independent sources agree with captoken here: pymacaroons 0.13, vectors published by libmacaroons and pymacaroons
(with intermediate values that were worked out beside them), and RFC 4231 and Wycheproof for the HMAC below it all.
"""

import hmac
import json
import os
from pathlib import Path

import pymacaroons
import pytest
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from pymacaroons import Macaroon

from captoken import Issuer, Token, TokenFormatError, interop
from captoken._format import chain
from captoken._format import packet as wire
from captoken._format.primitives import hmac_sha256
from captoken.discharge import Allow, Discharge, Discharger
from captoken.keys import DischargerKey
from tests.longer import drawing, times
from tests.reference import evaluator
from tests.reference.fixtures import (
    KEY,
    NOW,
    OTHER_KEY,
    ROOT,
    SALES,
    access,
    code,
    from_wire,
    hop,
    keyring,
    random_access,
    random_link,
    sections,
    text,
    to_wire,
    verifier,
)


def stock_accepts(macaroon, key, *discharges):
    """What an unmodified pymacaroons says when it is content with every caveat; `discharges` are bound."""
    stock = pymacaroons.Verifier()
    stock.satisfy_general(lambda caveat: True)
    try:
        return stock.verify(macaroon, key, discharge_macaroons=list(discharges))
    except (
        pymacaroons.exceptions.MacaroonInvalidSignatureException,
        pymacaroons.exceptions.MacaroonUnmetCaveatException,
        CryptoError,
    ):
        return False


def random_links(rng, most=6):
    links, holder = [], "orchestrator"
    for _ in range(rng.randint(1, most)):
        link, holder = random_link(rng, holder)
        links.append(link)
    return links


# ---- pymacaroons ---------------------------------------------------------------------------------------------------


def test_our_tokens_verify_under_pymacaroons():
    """500 random tokens verify under stock pymacaroons with the root key, and under no other key; the signatures are equal."""
    rng = drawing(20260103)
    for _ in range(times(500)):
        token_text = text(*random_links(rng))
        macaroon = interop.to_pymacaroons(Token.parse(token_text))
        assert bytes.fromhex(macaroon.signature) == sections(token_text)[2]
        assert stock_accepts(macaroon, KEY) and not stock_accepts(macaroon, OTHER_KEY)
        assert interop.from_pymacaroons(macaroon).serialize() == token_text


def test_what_captoken_mints_and_narrows_verifies_under_pymacaroons():
    """A token minted, narrowed, delegated and presented by captoken is, at each step, a macaroon that pymacaroons accepts."""
    root = Issuer(keyring(), clock=lambda: NOW).mint(
        subject="user:jane", agent="orchestrator", task="task-123", tables=["sales", "market.*"], operations=["select"]
    )
    child = root.delegate(to="sales-agent", tables=["sales"], expires_in=300)
    shown = Token.parse(child.attenuate(tables=["sales"]).present(audience="sales-db", expires_in=60))
    for count, token in enumerate((root, child, shown), start=1):
        macaroon = interop.to_pymacaroons(token)
        assert stock_accepts(macaroon, KEY) and not stock_accepts(macaroon, OTHER_KEY)
        assert len(macaroon.caveats) == (count if count < 3 else 4)
        assert Macaroon.deserialize(token.serialize()[5:]).signature == macaroon.signature


def test_links_that_pymacaroons_appends_bind_here():
    """400 tokens that stock pymacaroons narrowed by canonical JSON are decided, after `normalize`, as the reference decides
    them."""
    rng, codes = drawing(20260104), set()
    for _ in range(times(400)):
        links = random_links(rng, 4)
        macaroon = interop.to_pymacaroons(Token.parse(text(*links[:1])))
        for link in links[1:]:
            macaroon.add_first_party_caveat(evaluator.canonical(link))
        normal = interop.normalize(macaroon.serialize())
        assert normal == text(*links)
        facts = random_access(rng)
        decided = verifier().check(normal, access(facts)).code
        assert decided == evaluator.evaluate(normal, {"k1": KEY}, facts, now=NOW)
        codes.add(decided)
    assert {"allowed", "table", "operation", "domain", "attribute"} <= codes


def test_a_token_that_pymacaroons_minted_is_ours_after_normalize():
    """A macaroon that pymacaroons built from our root record and links, with its empty location, is byte for byte our token
    after `normalize`."""
    links = [SALES, {"exp": NOW + 60}, hop("sales-agent")]
    macaroon = Macaroon(location="", identifier=evaluator.canonical(ROOT), key=KEY, version=pymacaroons.MACAROON_V2)
    for link in links:
        macaroon.add_first_party_caveat(evaluator.canonical(link))
    written = macaroon.serialize()
    assert code("cap1_" + written.rstrip("=")) == "malformed"  # 01 00, a location field
    assert interop.normalize(written) == text(*links)
    assert code(interop.normalize(written)) == "allowed"


@pytest.mark.parametrize(
    "change",
    [
        lambda link: " " + link,
        lambda link: link + "\n",
        lambda link: link.replace(":", ": "),
        lambda link: json.dumps(dict(reversed(json.loads(link).items()))),
        lambda link: link.replace("sales", "\\u0073ales"),
        lambda link: "tables = sales",
        lambda link: "",
        lambda link: link + link,
    ],
)
def test_what_pymacaroons_appends_in_another_spelling_prohibits(change):
    """A caveat that is not canonical JSON is kept and MACed as it is, and prohibits."""
    macaroon = interop.to_pymacaroons(Token.parse(text(SALES)))
    macaroon.add_first_party_caveat(change(evaluator.canonical(SALES)))
    try:
        normal = interop.normalize(macaroon.serialize())
    except TokenFormatError:
        assert change("x") == ""
    else:
        assert code(normal) in ("unreadable_link", "malformed") and stock_accepts(macaroon, KEY)


@pytest.mark.parametrize(
    "spell",
    [
        lambda wire: evaluator.base64text(wire),
        lambda wire: "cap1_" + evaluator.base64text(wire),
        lambda wire: wire,
        lambda wire: evaluator.base64text(wire) + "=" * (-len(evaluator.base64text(wire)) % 4),
        lambda wire: evaluator.base64text(wire).replace("-", "+").replace("_", "/"),
        lambda wire: wire[:1] + b"\1\0" + wire[1:],
        lambda wire: evaluator.base64text(wire[:1] + b"\1\0" + wire[1:]),
        lambda wire: interop.to_pymacaroons(Token.parse(from_wire(wire))).serialize(),
    ],
)
def test_normalize_returns_our_one_spelling(spell):
    """Raw bytes, base64 of either alphabet, padded or not, with or without an empty location: one text comes back."""
    rng = drawing(20260105)
    for _ in range(times(20)):
        token_text = text(*random_links(rng))
        assert interop.normalize(spell(to_wire(token_text))) == token_text


def test_third_party_caveats_come_and_go():
    """A third-party caveat that pymacaroons added (without a location) keeps its bytes; the signature holds and the discharge
    is missing."""
    macaroon = interop.to_pymacaroons(Token.parse(text(SALES)))
    macaroon.add_third_party_caveat("", "caveat key", '{"v":1}', nonce=bytes(24))
    normal = interop.normalize(macaroon.serialize())
    assert code(normal) == "missing_discharge"
    vid = evaluator.parse(normal)[1][1][1]
    assert len(vid) == 72 and normal == text(SALES, (b'{"v":1}', vid))
    assert interop.to_pymacaroons(Token.parse(normal)).signature == macaroon.signature
    assert code(text(SALES, (b'{"v":1}', vid), key=OTHER_KEY)) == "bad_signature"


def test_the_chain_is_pymacaroons_chain_over_any_bytes():
    """1,000 random keys and identifiers of any bytes, with caveats of any characters, fold to the tag that pymacaroons
    computes."""
    rng = drawing(20260106)
    for _ in range(times(1000)):
        key, identifier = (rng.randbytes(rng.randint(1, 90)) for _ in range(2))
        cids = ["".join(map(chr, rng.choices(range(0xD800), k=rng.randint(1, 90)))).encode() for _ in range(rng.randrange(7))]
        macaroon = Macaroon(location="", identifier=identifier, key=key, version=pymacaroons.MACAROON_V2)
        tag = chain.mint_tag(chain.derive(key), identifier)
        for cid in cids:
            macaroon.add_first_party_caveat(cid)
            tag = chain.link_tag(tag, cid)
        assert tag.hex() == macaroon.signature
        assert tag == evaluator.chain_tag(key, identifier, [(cid, None) for cid in cids])


def test_third_party_chain_and_binding_are_pymacaroons():
    """200 random third-party caveats and bound discharges: the caveats, with pymacaroons' nonce, and the tags are its own."""
    rng = drawing(20260107)
    for _ in range(times(200)):
        key, caveat_key, cid = (rng.randbytes(rng.randint(1, 60)) for _ in range(3))
        macaroon = Macaroon(location="", identifier=b"root", key=key, version=pymacaroons.MACAROON_V2)
        nonce = rng.randbytes(24)
        macaroon.add_third_party_caveat("http://example.org/", caveat_key, cid, nonce=nonce)
        first = chain.mint_tag(chain.derive(key), b"root")
        asked = chain.ask(first, caveat_key, cid, lambda size, nonce=nonce: nonce[:size])
        assert asked == (macaroon.caveats[0].caveat_id_bytes, macaroon.caveats[0].verification_key_id)
        root_tag = chain.extend(first, asked)
        assert root_tag.hex() == macaroon.signature
        packet = wire.Packet(b"root", (asked,), root_tag)
        assert chain.fold(chain.derive(key), packet) == (root_tag,)
        assert chain.answer_key(chain.derive(key), packet, (root_tag,), 0) == chain.derive(caveat_key)
        discharge = Macaroon(location="", identifier=cid, key=caveat_key, version=pymacaroons.MACAROON_V2)
        tag = chain.mint_tag(chain.derive(caveat_key), cid)
        assert tag.hex() == discharge.signature
        assert chain.bind(root_tag, tag).hex() == macaroon.prepare_for_request(discharge).signature


# ---- third parties: our tokens there, their tokens and discharges here -----------------------------------------------

PARTY = DischargerKey.from_bytes(bytes(range(40, 72)))


def random_question(rng, *links):
    """A random token, or one of these links, that asks up to three third parties something, and their discharges."""
    token = Token.parse(text(*(links or random_links(rng, 3))), clock=lambda: NOW)
    for number in range(rng.randint(1, 3)):
        need = {"n": number, "what": "".join(map(chr, rng.choices(range(0xD800), k=rng.randrange(20))))}
        token = token.require(PARTY.public, need=need, location=rng.choice([None, "https://approvals.example", "B\u00fcro 5"]))
        if not links and rng.random() < 0.5:
            token = token.with_raw_link(evaluator.canonical(random_link(rng, "orchestrator")[0]).encode())
    party = Discharger(PARTY, lambda need: Allow(expires_in=60, tables=["*"], where={"n": {"max": 5}}), clock=lambda: NOW)
    return token, [party.discharge(ticket) for ticket in token.needs]


def test_our_third_party_caveats_and_discharges_verify_under_pymacaroons():
    """200 random tokens that ask one to three third parties verify under stock pymacaroons with our discharges, bound by its
    own `prepare_for_request`; not under another key, without one of them, unbound, or bound to another token."""
    rng = drawing(20260802)
    for _ in range(times(200)):
        token, discharges = random_question(rng)
        macaroon, given = interop.to_pymacaroons(token), [interop.to_pymacaroons(discharge) for discharge in discharges]
        assert [one.signature_bytes.decode() for one in given] == [one.packet.signature.hex() for one in discharges]
        bound = [macaroon.prepare_for_request(one) for one in given]
        other = interop.to_pymacaroons(token.with_raw_link(b'{"nbf":1}'))
        assert stock_accepts(macaroon, KEY, *bound) and stock_accepts(macaroon, KEY, *reversed(bound))
        assert not stock_accepts(macaroon, OTHER_KEY, *bound) and not stock_accepts(macaroon, KEY, *bound[1:])
        assert not stock_accepts(macaroon, KEY, *given)
        assert not stock_accepts(macaroon, KEY, *(other.prepare_for_request(one) for one in given))
        assert interop.from_pymacaroons(macaroon) == token
        whole = token.with_discharge(discharges[0])
        assert interop.to_pymacaroons(whole).serialize() == macaroon.serialize(), "a token goes without its discharges"


def test_what_is_presented_is_what_pymacaroons_binds_byte_for_byte():
    """100 random tokens with their discharges: each bound part of the text is the macaroon that pymacaroons'
    `prepare_for_request` makes of the discharge and the presented token."""
    rng = drawing(20260803)
    for number in range(times(100)):
        token, discharges = random_question(rng, SALES, hop("sales-agent", number=number))
        for discharge in discharges:
            token = token.with_discharge(discharge)
        shown, *parts = token.present(audience="sales-db", max_chars=32_768).split(".")
        macaroon = Macaroon.deserialize(shown[5:])
        bound = [macaroon.prepare_for_request(Macaroon.deserialize(one.serialize()[6:])) for one in discharges]
        assert stock_accepts(macaroon, KEY, *bound) and len(parts) == len(bound) > 0
        for part, one in zip(parts, bound, strict=True):
            theirs = wire.decode(wire.without_locations(evaluator.unbase64(one.serialize())), 2048)
            assert part == "cap1d_" + evaluator.base64text(wire.encode(theirs))
            assert Macaroon.deserialize(part[6:]).signature == one.signature


def test_pymacaroons_asks_and_answers_and_captoken_decides():
    """100 tokens to which stock pymacaroons added our tickets, with discharges that it made, narrowed and bound: allowed
    here, and no longer if any of it is changed."""
    rng = drawing(20260804)
    for number in range(times(100)):
        macaroon, keys, cids = interop.to_pymacaroons(Token.parse(text(SALES))), [], []
        for _ in range(rng.randint(1, 3)):
            keys.append(rng.randbytes(32))
            cids.append(
                evaluator.canonical({"any": rng.randrange(2**40), "x": "\u00e9"}) if number % 2 else rng.randbytes(20).hex()
            )
            macaroon.add_third_party_caveat("", keys[-1], cids[-1])
        bound = []
        for key, cid in zip(keys, cids, strict=True):
            discharge = Macaroon(location="", identifier=cid, key=key, version=pymacaroons.MACAROON_V2)
            discharge.add_first_party_caveat(evaluator.canonical({"exp": NOW + 60}))
            if rng.random() < 0.5:
                discharge.add_first_party_caveat(evaluator.canonical(SALES))
            bound.append(macaroon.prepare_for_request(discharge))
        packets = [wire.decode(wire.without_locations(evaluator.unbase64(one.serialize())), 2048) for one in bound]
        parts = ["cap1d_" + evaluator.base64text(wire.encode(packet)) for packet in packets]
        whole = ".".join((interop.normalize(macaroon.serialize()), *parts))
        assert stock_accepts(macaroon, KEY, *bound) and code(whole) == "allowed"
        at = rng.randrange(len(whole))
        assert code(whole[:at] + ("A" if whole[at] != "A" else "B") + whole[at + 1 :]) != "allowed"
        assert code(whole, now=NOW + 60) == "expired" and code(whole.rsplit(".", 1)[0]) == "missing_discharge"


def test_a_nested_discharge_is_good_under_pymacaroons_and_refused_here():
    """One discharge that asks has a third-party caveat, answered and bound to the root: a macaroon to pymacaroons, and malformed to
    verifiers, holders and `Discharge.parse` here."""
    macaroon = interop.to_pymacaroons(Token.parse(text(SALES)))
    macaroon.add_third_party_caveat("", "bob's key", "bob")
    bob = Macaroon(location="", identifier="bob", key="bob's key", version=pymacaroons.MACAROON_V2)
    bob.add_first_party_caveat(evaluator.canonical({"exp": NOW + 60}))
    plain = macaroon.prepare_for_request(bob)
    bob.add_third_party_caveat("", "barbara's key", "barbara")
    barbara = Macaroon(location="", identifier="barbara", key="barbara's key", version=pymacaroons.MACAROON_V2)
    barbara.add_first_party_caveat(evaluator.canonical({"exp": NOW + 60}))
    bound = [macaroon.prepare_for_request(one) for one in (bob, barbara)]
    assert stock_accepts(macaroon, KEY, *bound)

    def written(prefix, one):
        return prefix + evaluator.base64text(wire.encode(wire.decode(wire.without_locations(evaluator.unbase64(one.serialize())))))

    root = interop.normalize(macaroon.serialize())
    assert code(root + "." + written("cap1d_", plain)) == "allowed"
    for parts in (bound, bound[:1], bound[::-1]):
        assert code(".".join((root, *(written("cap1d_", one) for one in parts)))) == "malformed"
    for refused in (lambda: Discharge.parse(written("cap1u_", bob)), lambda: Token.parse(root + "." + written("cap1u_", bob))):
        with pytest.raises(TokenFormatError, match="has a third-party caveat"):
            refused()


# ---- published vectors: macaroons.md 2.13 --------------------------------------------------------------------------

SECRET = b"this is our super secret key; only we should know it"
OTHER = b"this is a different super-secret key; never use the same secret twice"
CAVEAT_KEY = b"4; guaranteed random by a fair toss of the dice"
CID = b"this was how we remind auth of key/pred"
VID = bytes(24) + bytes.fromhex(
    "d36ec502e05886d1f0279f055fa52554d16d16c1b14074bbb83ff0fdd79dc2fe098f0ed4a2b091130e6b5db46a20a86b"
)
ROOT_V2 = bytes.fromhex(
    "02010e687474703a2f2f6d7962616e6b2f021c77652075736564206f7572206f7468657220736563726574206b65790002146163636f756e74203d20333733353932383535390001"
    "13687474703a2f2f617574682e6d7962616e6b2f0227746869732077617320686f772077652072656d696e642061757468206f66206b65792f70726564044800000000000000000000"
    "0000000000000000000000000000d36ec502e05886d1f0279f055fa52554d16d16c1b14074bbb83ff0fdd79dc2fe098f0ed4a2b091130e6b5db46a20a86b00000620d27db2fd1f22"
    "760e4c3dae8137e2d8fc1df6c0741c18aed4b97256bf78d1f55c"
)
DISCHARGE_V2 = bytes.fromhex(
    "020113687474703a2f2f617574682e6d7962616e6b2f0227746869732077617320686f772077652072656d696e642061757468206f66206b65792f7072656400021774696d65203c20"
    "323031352d30312d30315430303a3030000006202eb01d0dd2b4475330739140188648cf25dda0425ea9f661f1574ca0a9eac54e"
)
SMALLEST_V2 = bytes.fromhex("02020169000006203022b39f0612f3fd7f8dd702040aec5342549ff75b2eaa800ba3ba46fa8de6d1")
UNIT_V2 = bytes.fromhex(
    "020113687474703a2f2f6578616d706c652e6f72672f02056b657969640002146163636f756e74203d203337333539323835353900000620f54807f6dc6edf88bf0f7306b3822562"
    "a362533dbf7339ba61765da4bd259d87"
)


def fold(key, identifier, *cids):
    tag = chain.mint_tag(chain.derive(key), identifier)
    for cid in cids:
        tag = chain.link_tag(tag, cid)
    return tag


def third(tag, caveat_key, cid):
    """The tag after a third-party caveat under a nonce of zeros."""
    return chain.extend(tag, chain.ask(tag, caveat_key, cid, bytes))


BANK = fold(OTHER, b"we used our other secret key", b"account = 3735928559")
AUTH = fold(CAVEAT_KEY, CID)
BOB_ROOT = third(fold(b"root-key", b"root-id"), b"bob-caveat-root-key", b"bob-is-great")
VECTORS = {
    "published, mint": (
        fold(SECRET, b"we used our secret key"),
        "e3d9e02908526c4c0039ae15114115d97fdd68bf2ba379b342aaf0f617d0552f",
    ),
    "published, a caveat": (
        fold(SECRET, b"we used our secret key", b"test = caveat"),
        "197bac7a044af33332865b9266e26d493bdd668a660e44d88ce1a998c23dbd67",
    ),
    "derive": (chain.derive(OTHER), "b3165edc9107072756f516dc9f9074c47272aa88ed3940e93fa0ba72641878f7"),
    "mint": (fold(OTHER, b"we used our other secret key"), "dd8b433968690376c1f59716491db815e8eb0069d299d4e34e3135da1dacd92d"),
    "first party": (BANK, "1434e674ad84fdfdc9bc1aa00785325c8b6d57341fc7ce200ba4680c80786dda"),
    "derive, caveat key": (chain.derive(CAVEAT_KEY), "7b46b7aec0ea6cf4eaf4ed0b9855ab698837c6be0ba6883ec526f1c7b997afa8"),
    "third party": (chain.third_party_tag(BANK, VID, CID), "d27db2fd1f22760e4c3dae8137e2d8fc1df6c0741c18aed4b97256bf78d1f55c"),
    "third party, verification id": (
        chain.ask(BANK, CAVEAT_KEY, CID, bytes)[1],
        "0" * 48 + "d36ec502e05886d1f0279f055fa52554d16d16c1b14074bbb83ff0fdd79dc2fe098f0ed4a2b091130e6b5db46a20a86b",
    ),
    "third party, boxed by PyNaCl": (bytes(SecretBox(BANK).encrypt(chain.derive(CAVEAT_KEY), bytes(24))), VID.hex()),
    "third party, boxed": (third(BANK, CAVEAT_KEY, CID), "d27db2fd1f22760e4c3dae8137e2d8fc1df6c0741c18aed4b97256bf78d1f55c"),
    "discharge": (AUTH, "bc33af62e3c27c3fa15acac3414978c0c1ce106c361e9f302919bb9ff8004c98"),
    "discharge, a caveat": (
        chain.link_tag(AUTH, b"time < 2015-01-01T00:00"),
        "82a80681f9f32d419af12f6a71787a1bac3ab199df934ed950ddf20c25ac8c65",
    ),
    "bound": (
        chain.bind(ROOT_V2[-32:], chain.link_tag(AUTH, b"time < 2015-01-01T00:00")),
        "2eb01d0dd2b4475330739140188648cf25dda0425ea9f661f1574ca0a9eac54e",
    ),
    "two levels, root": (BOB_ROOT, "1b39395ab242121370485f198426b374a46f5b43960f524f258cbf6516ad0d32"),
    "two levels, bob": (
        chain.bind(
            BOB_ROOT, third(fold(b"bob-caveat-root-key", b"bob-is-great"), b"barbara-caveat-root-key", b"barbara-is-great")
        ),
        "9bcc6151a63a69fe26a7aea9939a36b97721f977e7e923761f58e98da6128f90",
    ),
    "two levels, barbara": (
        chain.bind(BOB_ROOT, fold(b"barbara-caveat-root-key", b"barbara-is-great")),
        "79909887437854be59575b88dcb1c5de3be341b38f772ddb8c635c1632875c04",
    ),
    "smallest": (fold(b"k", b"i"), SMALLEST_V2[-32:].hex()),
    "libmacaroons' unit test": (fold(b"this is the key", b"keyid", b"account = 3735928559"), UNIT_V2[-32:].hex()),
}


@pytest.mark.parametrize("name", VECTORS)
def test_published_vectors(name):
    """Each tag of the published vectors, by the functions of `captoken._format.chain`."""
    computed, published = VECTORS[name]
    assert computed.hex() == published


def packet_of(published):
    """A published macaroon as a packet; its locations, which are outside the signature, are left out."""
    macaroon = Macaroon.deserialize(evaluator.base64text(published))
    caveats = [(caveat.caveat_id_bytes, caveat.verification_key_id or b"") for caveat in macaroon.caveats]
    return wire.Packet(macaroon.identifier_bytes, tuple(caveats), bytes.fromhex(macaroon.signature))


def test_published_macaroons_fold_and_answer():
    """The published root, discharge and the two smaller ones hold by `fold` under their keys, the discharge bound to the root
    under the key that `answer_key` finds in it; under another key, unbound or bound elsewhere they do not."""
    root, discharge, smallest, unit = map(packet_of, (ROOT_V2, DISCHARGE_V2, SMALLEST_V2, UNIT_V2))
    derived = chain.derive(OTHER)
    tags = chain.fold(derived, root)
    assert tags == (BANK, ROOT_V2[-32:])
    key = chain.answer_key(derived, root, tags, 1)
    assert key == chain.derive(CAVEAT_KEY) and chain.answer_key(derived, root, (CAVEAT_KEY[:32], tags[1]), 1) is None
    assert chain.fold(key, discharge, root.signature) == (chain.link_tag(AUTH, b"time < 2015-01-01T00:00"),)
    assert chain.fold(chain.derive(b"k"), smallest) == () and len(chain.fold(chain.derive(b"this is the key"), unit)) == 1
    for wrong in (
        chain.fold(chain.derive(SECRET), root),
        chain.fold(derived, root, root.signature),
        chain.fold(key, discharge),
        chain.fold(key, discharge, BANK),
        chain.fold(key, discharge, bytes(32)),
        chain.fold(chain.derive(key), discharge, root.signature),
        chain.fold(derived, wire.Packet(root.identifier, root.caveats[::-1], root.signature)),
    ):
        assert wrong is None


def test_the_published_discharge_of_a_discharge_folds_and_answers():
    """The two-level vector, zero nonces: both discharges hold under the keys that are found in the root and in bob's, bound
    to the root and not to each other."""
    nonces = bytes
    first = fold(b"root-key", b"root-id")
    asked = chain.ask(first, b"bob-caveat-root-key", b"bob-is-great", nonces)
    root = wire.Packet(b"root-id", (asked,), BOB_ROOT)
    tag = fold(b"bob-caveat-root-key", b"bob-is-great")
    nested = chain.ask(tag, b"barbara-caveat-root-key", b"barbara-is-great", nonces)
    bob = wire.Packet(b"bob-is-great", (nested,), bytes.fromhex(VECTORS["two levels, bob"][1]))
    barbara = wire.Packet(b"barbara-is-great", (), bytes.fromhex(VECTORS["two levels, barbara"][1]))
    tags = chain.fold(chain.derive(b"root-key"), root)
    key = chain.answer_key(chain.derive(b"root-key"), root, tags, 0)
    inner = chain.fold(key, bob, BOB_ROOT)
    assert tags == (BOB_ROOT,) and inner == (chain.extend(tag, nested),)
    deeper = chain.answer_key(key, bob, inner, 0)
    assert deeper == chain.derive(b"barbara-caveat-root-key") and chain.fold(deeper, barbara, BOB_ROOT) == ()
    assert chain.fold(deeper, barbara, inner[0]) is None and chain.fold(deeper, barbara, bob.signature) is None


@pytest.mark.parametrize("name", ["root", "discharge", "smallest", "unit"])
def test_published_macaroons_are_no_tokens(name):
    """The published macaroons carry locations or no caveat: they are malformed as tokens, and said so by one exception."""
    wire = {"root": ROOT_V2, "discharge": DISCHARGE_V2, "smallest": SMALLEST_V2, "unit": UNIT_V2}[name]
    with pytest.raises(TokenFormatError):
        Token.parse(from_wire(wire))
    assert Macaroon.deserialize(evaluator.base64text(wire)).signature == wire[-32:].hex()


# ---- HMAC ----------------------------------------------------------------------------------------------------------

RFC_4231 = [  # key, data, HMAC-SHA-256 (case 5: its first 128 bits)
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (bytes(range(1, 26)), b"\xcd" * 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    (b"\x0c" * 20, b"Test With Truncation", "a3b6167473100ee06e0c796c2955552b"),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (
        b"\xaa" * 131,
        b"This is a test using a larger than block-size key and a larger than block-size data. "
        b"The key needs to be hashed before being used by the HMAC algorithm.",
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ),
]


@pytest.mark.parametrize("case", range(7))
def test_rfc_4231(case):
    """The seven cases of RFC 4231."""
    key, data, tag = RFC_4231[case]
    assert hmac_sha256(key, data).hex().startswith(tag)


def test_a_key_of_any_length_is_the_standard_library_s():
    """From no bytes to three blocks of 64; RFC 4231 has no key between 33 and 64 bytes."""
    for length in range(193):
        key, message = bytes(range(length)), bytes(range(length % 70))
        assert hmac_sha256(key, message) == hmac.digest(key, message, "sha256"), length


@pytest.mark.wycheproof
def test_wycheproof_hmac():
    """F4: the 174 cases of Wycheproof's HMAC-SHA256, 66 valid and 108 invalid or truncated: 0 wrong."""
    folder = os.environ.get("CAPTOKEN_WYCHEPROOF", "")
    path = Path(folder) / "hmac_sha256_test.json"
    if not folder or not path.is_file():
        pytest.fail(
            "set CAPTOKEN_WYCHEPROOF to a folder that holds Wycheproof's hmac_sha256_test.json "
            "(github.com/C2SP/wycheproof, folder testvectors_v1)"
        )
    wrong, count = [], 0
    for group in json.loads(path.read_text(encoding="utf-8"))["testGroups"]:
        for case in group["tests"]:
            tag = hmac_sha256(bytes.fromhex(case["key"]), bytes.fromhex(case["msg"]))[: group["tagSize"] // 8]
            count += 1
            if (tag == bytes.fromhex(case["tag"])) != (case["result"] == "valid"):
                wrong.append(case["tcId"])
    assert count == 174 and not wrong
