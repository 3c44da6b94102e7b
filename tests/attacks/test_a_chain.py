"""Class A: nothing but the issuer's own chain, whole and in order, is accepted.

Every denial stands beside the unmodified token, which is allowed. The counts reached are in the docstrings; a code of
`FORGED` means that no link of the changed token was ever looked at.
"""

import random
from itertools import combinations, permutations

import pytest

from tests.reference import evaluator
from tests.reference.fixtures import (
    ASK,
    KEY,
    NOW,
    OTHER_KEY,
    ROOT,
    SALES,
    access,
    assemble,
    code,
    from_wire,
    hop,
    sections,
    text,
    to_wire,
    verifier,
)

FORGED = {"malformed", "unsupported_version", "unknown_key", "bad_signature"}
THIRD_PARTY = (b'{"v":1}', bytes(range(72)))

# Twelve tokens: 1, 2 and 8 links, each kind of caveat, delegation, an audience key, a third party, near the size limit.
TOKENS = {
    "one link": text(SALES),
    "two links": text(SALES, {"exp": NOW + 60}),
    "eight links": text(SALES, *({"exp": NOW + 60 + i} for i in range(7))),
    "allow": text({"allow": {"*": ["select"], "hr.*": []}, "nbf": NOW - 1}),
    "columns": text({"columns": {"orders": ["region"]}, "exp": NOW + 5, **SALES}),
    "tools": text({**SALES, "tools": {"search": {"q": {"any": True}, "limit": {"max": 10, "optional": True}}}}),
    "task": text(SALES, {"task": "task-123/a"}),
    "delegated": text(SALES, hop("sales-agent", exp=NOW + 60)),
    "depth": text({**SALES, "depth": 1, "delegate_only": True}, hop("sales-agent")),
    "own facts": text(SALES, ext={"acme:tenant": "t1"}),
    "third party": text(SALES, THIRD_PARTY),
    "near the limit": text({"operations": ["select"], "tables": ["sales", *(f"market.shop{i:04}" for i in range(250))]}),
}
CONTROL = {name: "missing_discharge" if name == "third party" else "allowed" for name in TOKENS}


@pytest.fixture(scope="module")
def check():
    """One verifier's code for a text."""
    one, ask = verifier(), access(ASK)
    return lambda token_text: one.check(token_text, ask).code


@pytest.mark.parametrize("name", TOKENS)
def test_control(check, name):
    """Each reference token is what it should be before it is attacked."""
    assert check(TOKENS[name]) == CONTROL[name]


@pytest.mark.parametrize("name", TOKENS)
def test_a1_no_flipped_bit_is_accepted(check, name):
    """A1: every bit of eleven tokens and every fifth of the largest, 31,000 flips: 0 accepted, and no link is looked at."""
    wire = to_wire(TOKENS[name])
    for bit in range(0, len(wire) * 8, 5 if name == "near the limit" else 1):
        flipped = bytearray(wire)
        flipped[bit // 8] ^= 1 << bit % 8
        assert check(from_wire(bytes(flipped))) in FORGED, bit


@pytest.mark.parametrize("name", ["one link", "delegated", "third party"])
def test_a1t_no_other_character_is_accepted(check, name):
    """A1t: each character of three tokens by each other letter of the alphabet, 68,000 texts: 0 accepted."""
    token_text, alphabet = TOKENS[name], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for at, was in enumerate(token_text):
        for letter in alphabet.replace(was, ""):
            assert check(token_text[:at] + letter + token_text[at + 1 :]) in FORGED, (at, letter)


@pytest.mark.parametrize("name", TOKENS)
def test_a2_no_truncation_is_accepted(check, name):
    """A2: cut at every character and every byte, from either end, 25,500 texts: all malformed."""
    token_text = TOKENS[name]
    wire = to_wire(token_text)
    for at in range(len(token_text)):
        assert check(token_text[:at]) == "malformed"
    for at in range(len(wire)):
        assert check(from_wire(wire[:at])) == "malformed"
        if at:
            assert check(from_wire(wire[at:])) in FORGED


def links_of(count):
    return [SALES, *({"exp": NOW + 60 + i} for i in range(count - 1))]


def test_a3_no_caveat_can_be_dropped(check):
    """A3: every proper subset of one to six links under the old signature, 120 tokens: 0 accepted."""
    tried = 0
    for count in range(1, 7):
        identifier, bodies, signature = sections(text(*links_of(count)))
        assert check(assemble(identifier, bodies, signature)) == "allowed"
        for kept in (subset for size in range(count) for subset in combinations(bodies, size)):
            assert check(assemble(identifier, kept, signature)) == ("bad_signature" if kept else "malformed")
            tried += 1
    assert tried == 120


def test_a4_no_order_but_the_signed_one_is_accepted(check):
    """A4: every other order of two to five links, 148 tokens: 0 accepted."""
    tried = 0
    for count in range(2, 6):
        identifier, bodies, signature = sections(text(*links_of(count)))
        assert check(assemble(identifier, bodies, signature)) == "allowed"
        for order in list(permutations(bodies))[1:]:
            assert check(assemble(identifier, order, signature)) == "bad_signature"
            tried += 1
    assert tried == 1 + 5 + 23 + 119


def test_a5_a_repeated_link_needs_its_mac_and_then_changes_nothing(check):
    """A5: each link of one to ten repeated in place: 55 times `bad_signature` unsigned, 55 times allowed when signed."""
    for count in range(1, 11):
        links = links_of(count)
        identifier, bodies, signature = sections(text(*links))
        for at in range(count):
            assert check(assemble(identifier, bodies[:at] + bodies[at : at + 1] + bodies[at:], signature)) == "bad_signature"
            assert check(text(*links[:at], links[at], *links[at:])) == "allowed"


def spliced_tokens():
    """Twenty genuine tokens: siblings of one parent, one identifier minted twice, an old key id, other roots, other lengths."""
    parent = [SALES, {"exp": NOW + 600}]
    siblings = [text(*parent, hop(f"agent-{i}", number=i)) for i in range(5)]
    narrowed = [text(*parent, hop("agent-0", number=0), {"exp": NOW + 60 + i}) for i in range(4)]
    again = [text(SALES), text({"operations": ["*"], "tables": ["*"]}), text({"nbf": NOW})]
    other_roots = [text(*parent, jti=evaluator.base64text(bytes([i]) * 16)) for i in range(4)]
    other_keys = [text(*parent, key=OTHER_KEY, kid="old"), text(SALES, key=OTHER_KEY, kid="old")]
    return [*siblings, *narrowed, *again, *other_roots, *other_keys, text(*parent), text(*parent, SALES)]


def test_a6_no_splice_of_two_tokens_is_accepted():
    """A6: the head of each of 20 tokens with the tail of each at every pair of cuts, 3,500 splices: only the genuine ones
    hold."""
    from captoken import Keyring

    one, ask = verifier(ring=Keyring.from_keys({"k1": KEY, "old": OTHER_KEY}, current="k1")), access(ASK)
    tokens = spliced_tokens()
    assert len(set(tokens)) == 20 and all(one.check(token, ask) for token in tokens)
    tried = 0
    for left in map(sections, tokens):
        for right in map(sections, tokens):
            for cut in range(len(left[1]) + 1):
                for join in range(len(right[1])):
                    joined = assemble(left[0], left[1][:cut] + right[1][join:], right[2])
                    assert one.check(joined, ask).code == ("allowed" if joined in tokens else "bad_signature")
                    tried += 1
    assert tried == 3500


WIDER = {
    "later expiry": {"exp": NOW + 10**6},
    "earlier start": {"nbf": 0},
    "any table": {**SALES, "tables": ["*"]},
    "superset": {**SALES, "tables": ["hr", "sales"]},
    "any operation": {**SALES, "operations": ["*"]},
    "allow all": {"allow": {"*": ["*"]}},
    "any tool": {"tools": {"*": {}}},
    "shorter task": {"task": "task-123"},
    "more depth": {"depth": 99},
    "no audience left out": {"aud": ["sales-db"]},
}


@pytest.mark.parametrize("name", WIDER)
def test_a7_no_wider_link_can_take_a_place(check, name):
    """A7: each of ten wider links put in place of, or before, each link of one to four: 200 tokens, 0 accepted."""
    wider = evaluator.canonical(WIDER[name]).encode()
    for count in range(1, 5):
        identifier, bodies, signature = sections(text(*links_of(count)))
        assert check(assemble(identifier, bodies, signature)) == "allowed"
        for at in range(count):
            assert check(assemble(identifier, [*bodies[:at], wider, *bodies[at + 1 :]], signature)) == "bad_signature"
            assert check(assemble(identifier, [*bodies[:at], wider, *bodies[at:]], signature)) == "bad_signature"


@pytest.mark.parametrize("size", [*range(32), *range(33, 40), 48, 63, 64, 65, 127, 128, 1000])
def test_a8_a_signature_of_another_length_is_malformed(check, size):
    """A8: a signature of 0 to 1,000 bytes but 32, be it the true one cut or padded, or zeros, or ones, 138 tokens:
    malformed."""
    identifier, bodies, signature = sections(TOKENS["one link"])
    for wrong in ((signature + bytes(size))[:size], bytes(size), b"\xff" * size):
        assert check(assemble(identifier, bodies, wrong)) == "malformed"


def test_a8_a_signature_that_is_not_the_chain_s_is_bad(check):
    """A8: 32 bytes of zeros, of ones, of hex text, reversed, of a hash of it: `bad_signature`."""
    identifier, bodies, signature = sections(TOKENS["one link"])
    assert check(assemble(identifier, bodies, signature)) == "allowed"
    for wrong in (
        bytes(32),
        b"\xff" * 32,
        signature.hex().encode()[:32],
        signature[::-1],
        evaluator.mac(b"", signature),
        signature[:16] * 2,
    ):
        assert check(assemble(identifier, bodies, wrong)) == "bad_signature"


def test_a9_a_parent_s_signature_fits_no_child_and_back(check):
    """A9: each state's signature under each other state's list of a chain of eleven, 110 tokens: 0 accepted."""
    links = links_of(11)
    states = [sections(text(*links[:count])) for count in range(1, 12)]
    for i, (identifier, bodies, _) in enumerate(states):
        for j, (_, _, signature) in enumerate(states):
            assert check(assemble(identifier, bodies, signature)) == ("allowed" if i == j else "bad_signature")


def public_values():
    identifier, bodies, signature = sections(TOKENS["third party"])
    return {
        "identifier": identifier,
        "key id": b"k1",
        "token id": ROOT["jti"].encode(),
        "decoded token id": evaluator.unbase64(ROOT["jti"]),
        "link": bodies[0],
        "cid": THIRD_PARTY[0],
        "vid": THIRD_PARTY[1],
        "empty": b"",
        "zeros": bytes(32),
        "the generator": b"macaroons-key-generator",
        "signature": signature,
        "subject": b"user:jane",
        "label": b"captoken/v1 audience\0",
    }


@pytest.mark.parametrize("name", public_values())
def test_a10_no_public_value_is_a_key(check, name):
    """A10: thirteen public values as root key, as derived key and as first tag, 39 forgeries: 0 accepted."""
    value, identifier, body = public_values()[name], evaluator.canonical(ROOT).encode(), evaluator.canonical(SALES).encode()
    genuine = evaluator.chain_tag(KEY, identifier, [(body, None)])
    assert check(assemble(identifier, [body], genuine)) == "allowed"
    forgeries = (
        evaluator.chain_tag(value, identifier, [(body, None)]),
        evaluator.mac(evaluator.mac(value, identifier), body),
        evaluator.mac(value, body),
    )
    for forged in forgeries:
        assert check(assemble(identifier, [body], forged)) == "bad_signature"


def roles():
    """Bytes of one role in the place of another, all with a chain that holds: (links, code)."""
    root = evaluator.canonical(ROOT).encode()
    return {
        "a root record as a link": ([SALES, root], "unknown_caveat"),
        "a token's bytes as a link": ([SALES, to_wire(TOKENS["one link"])], "unreadable_link"),
        "a token's text as a link": ([SALES, TOKENS["one link"].encode()], "unreadable_link"),
        "a tag as a link": ([SALES, sections(TOKENS["one link"])[2]], "unreadable_link"),
        "a key id as a link": ([SALES, b"k1"], "unreadable_link"),
        "a token id as a link": ([SALES, ROOT["jti"].encode()], "unreadable_link"),
        "cid and vid as a link": ([SALES, THIRD_PARTY[0] + THIRD_PARTY[1]], "unreadable_link"),
        "a third party's cid as a link": ([SALES, THIRD_PARTY[0]], "unknown_caveat"),
        "a link as a third party's cid": ([SALES, (evaluator.canonical(SALES).encode(), THIRD_PARTY[1])], "missing_discharge"),
        "a signed link on an unbound token": (
            [SALES, evaluator.canonical(hop("sales-agent")).encode() + b"." + b"A" * 86],
            "unreadable_link",
        ),
        "the issuer's names as a link": ([SALES, {"agent": "billing-agent"}], "unknown_caveat"),
        "a subject as a link": ([SALES, {"sub": "user:admin"}], "unknown_caveat"),
        "two links in one": ([SALES, b"".join(evaluator.canonical(SALES).encode() for _ in range(2))], "unreadable_link"),
        "an array of links": ([SALES, evaluator.canonical([SALES]).encode()], "unreadable_link"),
    }


@pytest.mark.parametrize("name", roles())
def test_a11_bytes_of_one_role_do_nothing_in_another(name):
    """A11: a value of one role, properly signed in the place of another, denies."""
    links, denied = roles()[name]
    assert code(text(*links[:1])) == "allowed"
    assert code(text(*links)) == denied


def test_a11_a_discharge_is_no_root_token():
    """A11: a macaroon under a caveat's key, with a cid for identifier, or with our root record: never a token."""
    caveat_key, body = bytes(range(50, 82)), evaluator.canonical(SALES).encode()
    for identifier in (
        THIRD_PARTY[0],
        evaluator.canonical(ROOT).encode(),
        evaluator.canonical({**ROOT, "kid": "box"}).encode(),
    ):
        genuine, discharge = (evaluator.chain_tag(key, identifier, [(body, None)]) for key in (KEY, caveat_key))
        assert code(assemble(identifier, [body], discharge)) in FORGED
        assert (code(assemble(identifier, [body], genuine)) == "allowed") == (identifier == evaluator.canonical(ROOT).encode())


def test_a11_a_first_party_link_that_hashes_like_a_third_party_one_is_unreadable():
    """A11: 64 bytes that give a third-party caveat's tag (macaroons have no domain separation there) are no link."""
    identifier, cid, vid = evaluator.canonical(ROOT).encode(), *THIRD_PARTY
    tag = evaluator.chain_tag(KEY, identifier, [(evaluator.canonical(SALES).encode(), None)])
    same = evaluator.mac(tag, vid) + evaluator.mac(tag, cid)
    assert sections(text(SALES, same))[2] == sections(text(SALES, THIRD_PARTY))[2]
    assert code(text(SALES, same)) == "unreadable_link"


def test_a11_a_bound_tag_is_no_token_s_tag():
    """A11: a tag bound as a discharge's is, to the token itself or to zeros, is not accepted on it."""
    identifier, bodies, tag = sections(TOKENS["one link"])
    for root_tag in (tag, bytes(32)):
        bound = evaluator.mac(bytes(32), evaluator.mac(bytes(32), root_tag) + evaluator.mac(bytes(32), tag))
        assert code(assemble(identifier, bodies, bound)) == "bad_signature"


def test_an_audience_s_key_and_the_root_s_do_not_cross():
    """A token under the audience's own key holds only with that `aud` in its root, and the other way round."""
    derived = evaluator.audience_key(KEY, "sales-db")
    one, ask = verifier(audience="sales-db", allow_unaddressed=True), access(ASK)
    cases = [
        (text(SALES, key=derived, aud="sales-db"), "allowed"),
        (text(SALES), "allowed"),
        (text(SALES, key=derived), "bad_signature"),
        (text(SALES, aud="sales-db"), "bad_signature"),
        (text(SALES, key=derived, aud="hr-db"), "bad_signature"),
    ]
    assert [one.check(token, ask).code for token, _ in cases] == [wanted for _, wanted in cases]


def test_random_edits_of_the_list_are_never_accepted(check):
    """2,000 seeded random insertions, deletions, swaps and edits of whole links: accepted only if nothing changed."""
    rng = random.Random(20260101)
    identifier, bodies, signature = sections(text(*links_of(6)))
    pool = [*bodies, *(evaluator.canonical(link).encode() for link in WIDER.values()), b"{}", b"x"]
    for _ in range(2000):
        edited = list(bodies)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(edited) + 1)
            edited[at : at + rng.randint(0, 2)] = rng.sample(pool, rng.randint(0, 2))
        if edited == bodies:
            assert check(assemble(identifier, edited, signature)) == "allowed"
        else:
            assert check(assemble(identifier, edited, signature)) in FORGED
