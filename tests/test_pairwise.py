"""Pairwise keys: two parties who share no secret derive one root key, for one audience, and nobody else does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from nacl.bindings import crypto_scalarmult
from nacl.public import PrivateKey

from captoken import Issuer, Keyring, Token, Verifier
from captoken._format import primitives
from captoken._format.encoding import b64encode
from captoken.keys import DischargerKey, HolderKey, PairwiseKey
from tests.fixtures import SALES, WHO, clock, data
from tests.reference import evaluator

Party: TypeAlias = tuple[PairwiseKey, PairwiseKey, str]  # whose key, with whose, for which audience
ISSUER, RIVAL, SERVER, OTHER_SERVER = (PairwiseKey.from_bytes(bytes(range(at, at + 32))) for at in (1, 2, 3, 4))


def mint(keyring: Keyring) -> Token:
    return Issuer(keyring, clock=clock()).mint(**WHO, **SALES)


def code(token: Token | str, keyring: Keyring, audience: str = "sales-db") -> str:
    """What a server of that name says, with the keyring that it derived."""
    text = token if isinstance(token, str) else token.serialize()
    return Verifier(keyring, audience=audience, clock=clock()).check(text, data("sales")).code


def secret_of(keyring: Keyring, at: int = 0) -> bytes:
    return keyring.reveal(keyring.key_ids[at])


def expected(issuer: PairwiseKey, server: PairwiseKey, audience: str, *, serving: bool) -> tuple[str, bytes]:
    """Key id and root key from the specification's text, with PyNaCl and the reference's HMAC."""
    ours, theirs = (server, issuer) if serving else (issuer, server)
    shared = crypto_scalarmult(ours.reveal(), evaluator.unbase64(theirs.public))
    both = evaluator.unbase64(issuer.public) + evaluator.unbase64(server.public)
    extracted = evaluator.mac(b"captoken/v1 pairwise\0", shared)
    key = evaluator.mac(extracted, both + audience.encode() + b"\1")
    return "p-" + primitives.sha256(b"captoken/v1 pairwise key id\0" + both).hex()[:24], key


def test_both_sides_derive_the_same_key() -> None:
    """For each of four audiences and four pairs: one key id and one key, as the specification says, from either side."""
    seen = set()
    for audience in ("sales-db", "hr-db", "x", "a" * 128):
        for issuer in (ISSUER, RIVAL):
            for server in (SERVER, OTHER_SERVER):
                minting = issuer.issuing(server=server.public, audience=audience)
                serving = server.serving(issuers=[issuer.public], audience=audience)
                assert (
                    minting.key_ids == serving.key_ids == (minting.current,)
                    and minting.audience == serving.audience == audience
                )
                assert secret_of(minting) == secret_of(serving)
                for side in (True, False):
                    assert expected(issuer, server, audience, serving=side) == (minting.current, secret_of(minting))
                assert code(mint(minting), serving, audience) == "allowed"
                seen.add(secret_of(minting))
    assert len(seen) == 16


def test_public_keys_are_taken_as_text_or_bytes() -> None:
    """32 bytes or their 43 characters: the same keyring; the key id names the pair, not the audience."""
    text, raw = (
        ISSUER.issuing(server=SERVER.public, audience="a"),
        ISSUER.issuing(server=evaluator.unbase64(SERVER.public), audience="b"),
    )
    assert text.current == raw.current and secret_of(text) != secret_of(raw) and len(text.current) == 26
    both = SERVER.serving(issuers=(one for one in (ISSUER.public, evaluator.unbase64(RIVAL.public))), audience="a")
    assert len(both.key_ids) == 2 and both.key_ids[0] == text.current
    assert ISSUER.public == b64encode(bytes(PrivateKey(ISSUER.reveal()).public_key))


@pytest.mark.parametrize(
    ("minting", "serving", "name", "wanted"),
    [
        ((ISSUER, SERVER, "sales-db"), (SERVER, ISSUER, "sales-db"), "sales-db", "allowed"),
        ((ISSUER, SERVER, "sales-db"), (SERVER, RIVAL, "sales-db"), "sales-db", "unknown_key"),
        ((ISSUER, SERVER, "sales-db"), (OTHER_SERVER, ISSUER, "sales-db"), "sales-db", "unknown_key"),
        ((ISSUER, OTHER_SERVER, "sales-db"), (SERVER, ISSUER, "sales-db"), "sales-db", "unknown_key"),
        ((RIVAL, SERVER, "sales-db"), (SERVER, ISSUER, "sales-db"), "sales-db", "unknown_key"),
        ((ISSUER, SERVER, "hr-db"), (SERVER, ISSUER, "sales-db"), "sales-db", "unknown_key"),
        ((ISSUER, SERVER, "sales-db"), (SERVER, ISSUER, "hr-db"), "hr-db", "unknown_key"),
        ((ISSUER, SERVER, "sales-db"), (SERVER, ISSUER, "sales-db"), "hr-db", "wrong_audience"),
        ((SERVER, ISSUER, "sales-db"), (SERVER, ISSUER, "sales-db"), "sales-db", "unknown_key"),
        ((ISSUER, SERVER, "sales-db"), (ISSUER, SERVER, "sales-db"), "sales-db", "unknown_key"),
        ((SERVER, ISSUER, "sales-db"), (ISSUER, SERVER, "sales-db"), "sales-db", "allowed"),
    ],
    ids=[
        "right", "another issuer trusted", "another server", "for another server", "by another issuer", "for another audience",
        "of another audience", "at another name", "roles swapped by one", "roles swapped by the other", "roles swapped by both",
    ],
)  # fmt: skip
def test_only_the_pair_the_roles_and_the_audience_agree(minting: Party, serving: Party, name: str, wanted: str) -> None:
    """One thing that differs, the issuer, the server, the audience or who is which, and no key is found."""
    issuer, server, audience = minting
    token = mint(issuer.issuing(server=server.public, audience=audience))
    own, trusted, audience = serving
    assert code(token, own.serving(issuers=[trusted.public], audience=audience), name) == wanted


def test_roles_give_different_keys_to_the_same_two_parties() -> None:
    """The issuer's key comes first: two parties who each issue to the other have a key for each direction."""
    there, back = ISSUER.issuing(server=SERVER.public, audience="a"), SERVER.issuing(server=ISSUER.public, audience="a")
    assert there.current != back.current and secret_of(there) != secret_of(back)


def test_a_key_of_one_audience_makes_nothing_for_another() -> None:
    """Its id is the same: whoever has the key of sales-db, and writes hr-db into a token, is refused there."""
    sales, hr = (ISSUER.issuing(server=SERVER.public, audience=audience) for audience in ("sales-db", "hr-db"))
    assert sales.current == hr.current and secret_of(sales) != secret_of(hr)
    forged = mint(Keyring({hr.current: secret_of(sales)}, hr.current, "hr-db"))
    serving = SERVER.serving(issuers=[ISSUER.public], audience="hr-db")
    assert code(forged, serving, "hr-db") == "bad_signature"
    assert code(mint(hr), serving, "hr-db") == "allowed"


def test_a_key_id_names_one_issuer_and_no_other() -> None:
    """A token by issuer A under A's key id with B's key, or under B's key id with A's, is refused by a server that trusts
    both."""
    serving = SERVER.serving(issuers=[ISSUER.public, RIVAL.public], audience="sales-db")
    first, second = serving.key_ids
    assert code(mint(ISSUER.issuing(server=SERVER.public, audience="sales-db")), serving) == "allowed"
    assert code(mint(RIVAL.issuing(server=SERVER.public, audience="sales-db")), serving) == "allowed"
    for key_id, at in ((first, 1), (second, 0)):
        forged = mint(Keyring({key_id: secret_of(serving, at)}, key_id, "sales-db"))
        assert code(forged, serving) == "bad_signature"
        genuine = mint(Keyring({key_id: secret_of(serving, 1 - at)}, key_id, "sales-db"))
        assert code(genuine, serving) == "allowed"


@pytest.mark.parametrize(
    "named",
    [
        RIVAL.public, OTHER_SERVER.public, "p-" + "0" * 24, "p-", "k1", expected(RIVAL, SERVER, "sales-db", serving=True)[0],
        expected(ISSUER, OTHER_SERVER, "sales-db", serving=True)[0], ISSUER.public, SERVER.public,
    ],
)  # fmt: skip
def test_nothing_in_a_token_selects_a_public_key(named: str) -> None:
    """A key id that is a public key, or that of a pair the server did not list, finds nothing: whoever made it knew a key of
    that name (35.1)."""
    serving = SERVER.serving(issuers=[ISSUER.public], audience="sales-db")
    forged = mint(Keyring({named: expected(RIVAL, SERVER, "sales-db", serving=False)[1]}, named, "sales-db"))
    assert code(forged, serving) == "unknown_key"
    with_issuer_s_key = mint(Keyring({named: secret_of(serving)}, named, "sales-db"))
    assert code(with_issuer_s_key, serving) == "unknown_key"


def test_what_a_stolen_server_secret_forges() -> None:
    """It forges tokens of every issuer that this server trusts, at this server's name, and passes nowhere else: neither at
    another server, nor at another name of its own that an honest verifier has."""
    stolen = SERVER.reveal()
    thief = PairwiseKey.from_bytes(stolen)
    for issuer in (ISSUER, RIVAL):
        forging = thief.serving(issuers=[issuer.public], audience="sales-db")
        forged = mint(forging)
        assert code(forged, SERVER.serving(issuers=[ISSUER.public, RIVAL.public], audience="sales-db")) == "allowed"
        for other, audience in ((OTHER_SERVER, "sales-db"), (OTHER_SERVER, "hr-db")):
            honest = other.serving(issuers=[ISSUER.public, RIVAL.public], audience=audience)
            assert code(forged, honest, audience) == "unknown_key"
            relabelled = mint(Keyring({honest.key_ids[0]: secret_of(forging)}, honest.key_ids[0], audience))
            assert code(relabelled, honest, audience) == "bad_signature"
        assert code(forged, SERVER.serving(issuers=[issuer.public], audience="hr-db"), "hr-db") == "unknown_key"


def test_what_a_stolen_issuer_secret_forges() -> None:
    """It forges that issuer's tokens, at every server that trusts it, and no other issuer's."""
    thief = PairwiseKey.from_bytes(ISSUER.reveal())
    for server in (SERVER, OTHER_SERVER):
        forged = mint(thief.issuing(server=server.public, audience="sales-db"))
        assert code(forged, server.serving(issuers=[RIVAL.public, ISSUER.public], audience="sales-db")) == "allowed"
        assert code(forged, server.serving(issuers=[RIVAL.public], audience="sales-db")) == "unknown_key"
        as_rival = expected(RIVAL, server, "sales-db", serving=True)[0]
        own = secret_of(thief.issuing(server=server.public, audience="sales-db"))
        claimed = mint(Keyring({as_rival: own}, as_rival, "sales-db"))
        assert code(claimed, server.serving(issuers=[RIVAL.public, ISSUER.public], audience="sales-db")) == "bad_signature"


def test_a_token_of_a_pair_is_a_token_like_any_other() -> None:
    """Narrowed, handed on and presented; its root record says for whom; the keyring neither rotates nor derives."""
    minting = ISSUER.issuing(server=SERVER.public, audience="sales-db")
    serving = SERVER.serving(issuers=[ISSUER.public], audience="sales-db")
    child = mint(minting).delegate(to="sales-agent", tables=["sales"])
    one = Verifier(serving, audience="sales-db", clock=clock())
    grant = one.authorize(child.present(audience="sales-db"), data("sales"))
    assert (grant.issued.audience, grant.issued.key_id, grant.actor.name) == ("sales-db", minting.current, "sales-agent")
    for keyring in (minting, serving):
        with pytest.raises(ValueError, match="one audience"):
            keyring.rotate()
        with pytest.raises(ValueError, match="one audience"):
            keyring.for_audience("hr-db")
    assert serving.derived(minting.current, None) is None and serving.derived(minting.current, "hr-db") is None


# The points of low order on Curve25519 and its twist, as cr.yp.to/ecdh.html lists them; then forms that are not canonical.
P = 2**255 - 19
ORDER_8 = 325606250916557431795983626356110631294008115727848805560023387167927233504
OTHER_8 = 39382357235489614581723060781553021112529911719440698176882885853963445705823
LOW_ORDER = [0, 1, ORDER_8, OTHER_8, P - 1, P, P + 1, P + ORDER_8, P + OTHER_8, 2 * P - 1, 2 * P, 2 * P + 1]
NOT_CANONICAL = [P + 2, P + 9, P + 18, 2**255, 2**255 + 9, 2**255 + 5, 2**256 - 1, 2**255 + P - 1]
WEAK = [number.to_bytes(32, "little") for number in [*LOW_ORDER, *NOT_CANONICAL] if number < 2**256]


@pytest.mark.parametrize("weak", WEAK, ids=lambda value: value.hex()[:12])
def test_a_key_that_anybody_could_have_is_refused_when_built(weak: bytes) -> None:
    """Every point of low order, on the curve and its twist, and every form that is not canonical: no keyring, and no ticket."""
    good = (9).to_bytes(32, "little")
    assert ISSUER.issuing(server=good, audience="a") and SERVER.serving(issuers=[good], audience="a")
    for given in (weak, b64encode(weak)):
        with pytest.raises(ValueError, match="not canonical, or of low order"):
            ISSUER.issuing(server=given, audience="a")
        with pytest.raises(ValueError, match="not canonical, or of low order"):
            SERVER.serving(issuers=[ISSUER.public, given], audience="a")
    assert not primitives.is_good_exchange_key(weak)


def test_low_order_is_what_libsodium_says_it_is() -> None:
    """Each of the five points that can be written gives a shared secret of None with any key; other small numbers do not."""
    canonical = [number.to_bytes(32, "little") for number in LOW_ORDER[:5]]
    for point in canonical:
        assert all(primitives.shared_secret(key.reveal(), point) is None for key in (ISSUER, RIVAL, SERVER))
    for number in (2, 3, 4, 5, 6, 7, 8, 9, P - 2, P - 3):
        assert primitives.is_good_exchange_key(number.to_bytes(32, "little"))
        assert primitives.shared_secret(ISSUER.reveal(), number.to_bytes(32, "little"))
    for size in (0, 1, 31, 33, 64):
        assert not primitives.is_good_exchange_key(b"\x09" * size)


def test_a_pair_whose_secret_is_nothing_derives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a point of low order to get past the first look, the second one refuses it."""
    monkeypatch.setattr(primitives, "is_good_exchange_key", lambda public: True)
    for call in (
        lambda: ISSUER.issuing(server=bytes(32), audience="a"),
        lambda: SERVER.serving(issuers=[bytes(32)], audience="a"),
    ):
        with pytest.raises(ValueError, match="low order"):
            call()


def issuing(**given: Any) -> Keyring:
    return ISSUER.issuing(**given)


def serving(**given: Any) -> Keyring:
    return SERVER.serving(**given)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: issuing(server=ISSUER.public, audience="a"), ValueError),
        (lambda: serving(issuers=[ISSUER.public, SERVER.public], audience="a"), ValueError),
        (lambda: serving(issuers=[ISSUER.public, ISSUER.public], audience="a"), ValueError),
        (lambda: serving(issuers=[ISSUER.public, evaluator.unbase64(ISSUER.public)], audience="a"), ValueError),
        (lambda: serving(issuers=[], audience="a"), ValueError),
        (lambda: serving(issuers=ISSUER.public, audience="a"), TypeError),
        (lambda: serving(issuers=evaluator.unbase64(ISSUER.public), audience="a"), TypeError),
        (lambda: serving(issuers=None, audience="a"), TypeError),
        (lambda: serving(issuers=[ISSUER], audience="a"), TypeError),
        (lambda: serving(issuers=[5], audience="a"), TypeError),
        (lambda: issuing(server=SERVER, audience="a"), TypeError),
        (lambda: issuing(server=None, audience="a"), TypeError),
        (lambda: issuing(server="", audience="a"), ValueError),
        (lambda: issuing(server=SERVER.public + "=", audience="a"), ValueError),
        (lambda: issuing(server=SERVER.public[:-1], audience="a"), ValueError),
        (lambda: issuing(server=b"x" * 31, audience="a"), ValueError),
        (lambda: issuing(server=SERVER.public, audience=""), ValueError),
        (lambda: issuing(server=SERVER.public, audience="a b"), ValueError),
        (lambda: issuing(server=SERVER.public, audience="é"), ValueError),
        (lambda: issuing(server=SERVER.public, audience=None), TypeError),
        (lambda: serving(issuers=[ISSUER.public], audience=""), ValueError),
        (lambda: serving(issuers=[ISSUER.public], audience=["a"]), TypeError),
        (lambda: serving(issuers=[], audience=5), TypeError),
        (lambda: PairwiseKey.from_bytes(b"x" * 31), ValueError),
        (lambda: PairwiseKey.from_bytes(bytes(32)), ValueError),
        (lambda: PairwiseKey.from_bytes("x" * 32), TypeError),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_no_pair_can_be_made_of_is_refused_when_built(call: Callable[[], Any], error: type[Exception]) -> None:
    """Its own key, an issuer named twice, none at all, a list that is a text, a key that is none, an audience that is no
    name."""
    with pytest.raises(error):
        call()


def test_a_pairwise_key_is_of_its_own_purpose_and_shows_nothing() -> None:
    """Its class is its purpose; it is copied as itself, cannot be pickled, and shown by its public key alone."""
    fresh = PairwiseKey.generate()
    assert fresh.public != PairwiseKey.generate().public and PairwiseKey.purpose == "pairwise"
    assert not isinstance(fresh, (DischargerKey, HolderKey)) and repr(fresh) == f"<PairwiseKey {fresh.public}>"
    assert copy.copy(fresh) is copy.deepcopy(fresh) is fresh
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(fresh)
    keyring = ISSUER.issuing(server=SERVER.public, audience="sales-db")
    assert b64encode(secret_of(keyring))[:20] not in repr(keyring) and "for sales-db" in repr(keyring)


def test_a_keyring_of_a_pair_is_saved_and_loaded(tmp_path: Any) -> None:
    """Key file and all, for a server that keeps its X25519 key elsewhere."""
    serving = SERVER.serving(issuers=[ISSUER.public, RIVAL.public], audience="sales-db")
    serving.save(tmp_path / "serving.json")
    again = Keyring.load(tmp_path / "serving.json")
    assert set(again.key_ids) == set(serving.key_ids) and again.audience == "sales-db"
    assert code(mint(RIVAL.issuing(server=SERVER.public, audience="sales-db")), again) == "allowed"


# RFC 5869, appendix A.1 to A.3: input key, salt, info, the first 32 bytes of the output.
RFC_5869 = [
    (
        b"\x0b" * 22,
        bytes(range(13)),
        bytes(range(0xF0, 0xFA)),
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
    ),
    (
        bytes(range(80)),
        bytes(range(0x60, 0xB0)),
        bytes(range(0xB0, 0x100)),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
    ),
    (b"\x0b" * 22, b"", b"", "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"),
]


@pytest.mark.parametrize("case", range(3))
def test_rfc_5869(case: int) -> None:
    """The RFC's three cases for SHA-256, and the pseudorandom key in the middle, by the reference's HMAC."""
    secret, salt, info, output = RFC_5869[case]
    assert primitives.hkdf(salt, secret, info).hex() == output
    middle = evaluator.mac(salt or bytes(32), secret)
    assert evaluator.mac(middle, info + b"\1").hex() == output
    assert (
        middle.hex()
        == (
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
        )[case]
    )
