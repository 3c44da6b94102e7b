"""Class E: a discharge counts for the caveat that asks for it, from the party that was asked, and with the one token that it
is bound to.

Third-party caveats, tickets and discharges are built here with PyNaCl and the reference evaluator alone, so that captoken is
handed nothing that it wrote. Every denial stands beside the same text unharmed, which is allowed.
"""

import base64
import json
import os
import random
import subprocess
import sys
from hashlib import blake2b
from itertools import count, permutations, product

import pytest
from nacl.bindings import crypto_box_afternm
from nacl.public import Box, PrivateKey, SealedBox
from nacl.secret import SecretBox

from captoken import Token, TokenFormatError, Verifier
from captoken._format import chain, primitives
from captoken._format import text as texts
from captoken._format.entropy import random_bytes
from captoken.discharge import Allow, Discharge, Discharger, Ticket
from captoken.errors import DischargeError
from captoken.keys import DischargerKey
from tests.costs.counting import calls
from tests.reference import evaluator
from tests.reference.fixtures import (
    ASK,
    ATTRIBUTES,
    KEY,
    NOW,
    ROOT,
    SALES,
    UNKNOWN,
    UNREADABLE,
    access,
    code,
    hop,
    keyring,
    random_access,
    random_caveat,
    text,
    verifier,
)

FORGED = {"malformed", "unsupported_version", "unknown_key", "bad_signature"}
DENIED = FORGED | {"bad_discharge", "missing_discharge"}
PARTY, OTHER_PARTY = bytes(range(40, 72)), bytes(range(80, 112))
LEASE = {"exp": NOW + 60}
nonces = map(lambda number: number.to_bytes(24, "big"), count(1))


# ---- an independent construction -----------------------------------------------------------------------------------


def derive(key):
    return evaluator.mac(b"macaroons-key-generator", key)


def public_of(secret):
    return evaluator.base64text(bytes(PrivateKey(secret).public_key))


def caveat_key(number):
    return bytes([number + 1]) * 31 + b"\x07"


def sealed(key, need, secret=PARTY):
    """What a third party is told: libsodium's sealed box, by PyNaCl."""
    stated = {"ck": evaluator.base64text(key), "need": need, "v": 1}
    return SealedBox(PrivateKey(secret).public_key).encrypt(evaluator.canonical(stated).encode())


def ticket_of(box, secret=PARTY, **more):
    return evaluator.canonical({"box": evaluator.base64text(box), "for": public_of(secret), "v": 1, **more}).encode()


def ticket(number, **need):
    """A genuine cid, with caveat key `number` in it."""
    return ticket_of(sealed(caveat_key(number), need))


def packed(prefix, identifier, caveats, signature):
    """The text with these parts, whether or not they belong together."""

    def field(kind, data):
        length, size = b"", len(data)
        while size >= 0x80:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([kind]) + length + bytes([size]) + data

    middle = b"".join(field(2, cid) + (field(4, vid) if vid else b"") + b"\0" for cid, vid in caveats)
    return prefix + evaluator.base64text(b"\2" + field(2, identifier) + b"\0" + middle + b"\0" + field(6, signature))


def taken_apart(part):
    """(identifier, [(cid, vid or None)], signature) of a token, or of a discharge under either prefix."""
    data, at, found = evaluator.unbase64(part[part.index("_") + 1 :]), 1, []
    while at < len(data):
        if data[at] == 0:
            at += 1
            continue
        size, start = evaluator.varint(data, at + 1)
        found.append((data[at], data[start : start + size]))
        at = start + size
    (_, identifier), *rest, (_, signature) = found
    caveats = []
    for kind, field in rest:
        caveats = [*caveats, (field, None)] if kind == 2 else [*caveats[:-1], (caveats[-1][0], field)]
    return identifier, caveats, signature


def extended(tag, cid, vid):
    return evaluator.mac(tag, cid) if vid is None else evaluator.mac(tag, evaluator.mac(tag, vid) + evaluator.mac(tag, cid))


def grown(part, *caveats):
    """The same token or unbound discharge with more caveats: a link, or (caveat key, cid) to ask a third party."""
    identifier, held, tag = taken_apart(part)
    for caveat in caveats:
        if isinstance(caveat, tuple):
            cid, vid = caveat[1], bytes(SecretBox(tag).encrypt(derive(caveat[0]), next(nonces)))
        else:
            cid, vid = caveat if isinstance(caveat, bytes) else evaluator.canonical(caveat).encode(), None
        held, tag = [*held, (cid, vid)], extended(tag, cid, vid)
    return packed(part[: part.index("_") + 1], identifier, held, tag)


def answer(key, cid, *caveats):
    """An unbound discharge, as a discharger writes it."""
    return grown(packed("cap1u_", cid, [], evaluator.mac(derive(key), cid)), *(caveats or (LEASE,)))


def tied(root_tag, tag):
    return evaluator.mac(bytes(32), evaluator.mac(bytes(32), root_tag) + evaluator.mac(bytes(32), tag))


def bound(discharge_text, token_text):
    """The discharge bound to the token."""
    identifier, caveats, tag = taken_apart(discharge_text)
    return packed("cap1d_", identifier, caveats, tied(taken_apart(token_text)[2], tag))


def shown(token_text, *discharges):
    """What goes to a server: the token, and unbound discharges bound to it."""
    return ".".join((token_text, *(bound(discharge_text, token_text) for discharge_text in discharges)))


def joined(token_text, *bound_discharges):
    return ".".join((token_text, *bound_discharges))


def asking(number, *links, **root):
    """A token that asks for one discharge, and that discharge: number k asks under caveat key k."""
    cid = ticket(number, n=number)
    token_text = grown(text(SALES, *links, **root), (caveat_key(number), cid))
    return token_text, answer(caveat_key(number), cid)


def several(size):
    """A token that asks for several discharges, and they."""
    cids = [ticket(number, n=number) for number in range(size)]
    token_text = grown(text(SALES), *((caveat_key(number), cid) for number, cid in enumerate(cids)))
    return token_text, [answer(caveat_key(number), cid) for number, cid in enumerate(cids)]


@pytest.fixture(scope="module")
def check():
    """One verifier's code for a text."""
    one, ask = verifier(), access(ASK)
    return lambda token_text: one.check(token_text, ask).code


# ---- E1: root, discharge, binding ----------------------------------------------------------------------------------


def six():
    """Three roots, and three siblings of one of them; each asks the same party the same thing."""
    made = [asking(i, jti=evaluator.base64text(bytes([i]) * 16)) for i in range(3)]
    return made + [asking(i, hop(f"agent-{i}", number=i)) for i in range(3, 6)]


def test_e1_a_discharge_counts_for_its_own_caveat_bound_to_its_own_token(check):
    """E1: root i with discharge j bound to root k, 6 x 6 x 6: allowed on the diagonal alone."""
    made, allowed = six(), 0
    for i, j, k in product(range(6), repeat=3):
        said = check(joined(made[i][0], bound(made[j][1], made[k][0])))
        assert said == ("allowed" if i == j == k else "bad_discharge"), (i, j, k)
        allowed += said == "allowed"
    assert allowed == 6


def test_e1_of_one_ticket_too_the_binding_decides(check):
    """E1: six tokens that carry one and the same ticket, with its discharge bound to each, 36: only the token that it is bound
    to."""
    cid, key = ticket(9), caveat_key(9)
    tokens = [grown(text(SALES, hop(f"agent-{i}", number=i)), (key, cid)) for i in range(6)]
    for i, k in product(range(6), repeat=2):
        assert check(joined(tokens[i], bound(answer(key, cid), tokens[k]))) == ("allowed" if i == k else "bad_discharge")


# ---- E2: bound, and bound last -------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", range(1, 11))
def test_e2_bound_to_the_token_as_it_is_presented(check, depth):
    """E2: after 1 to 10 more links: unbound, bound to each ancestor, bound twice, to zeros, to itself, to the root record, or
    narrowed after binding, 165 texts: denied."""
    token_text, discharge_text = asking(1)
    states = [token_text]
    for number in range(depth):
        states.append(grown(states[-1], {"exp": NOW + 600 - number}))
    last = states[-1]
    assert check(shown(last, discharge_text)) == "allowed"
    identifier, caveats, tag = taken_apart(discharge_text)
    own = taken_apart(last)[2]
    assert check(joined(last, discharge_text)) == "malformed"
    assert check(joined(last, discharge_text.replace("cap1u_", "cap1d_"))) == "bad_discharge"
    for ancestor in states[:-1]:
        assert check(joined(last, bound(discharge_text, ancestor))) == "bad_discharge"
    for wrong in (
        tied(own, tied(own, tag)),
        tied(bytes(32), tag),
        tied(tag, tag),
        tied(tag, own),
        evaluator.mac(own, tag),
        tied(evaluator.mac(derive(KEY), taken_apart(last)[0]), tag),
        own,
        bytes(32),
    ):
        assert check(joined(last, packed("cap1d_", identifier, caveats, wrong))) == "bad_discharge"
    assert check(joined(grown(last, {"exp": NOW + 30}), bound(discharge_text, last))) == "bad_discharge"


# ---- E3: each exactly once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 5))
def test_e3_each_caveat_has_exactly_one_discharge_in_order(check, size):
    """E3: of 1 to 4 discharges every subset, order, repetition, and one too many at each place, 155 texts: only all of them,
    once, in order."""
    token_text, discharges = several(size)
    right = [bound(discharge_text, token_text) for discharge_text in discharges]
    stranger = bound(asking(9)[1], token_text)
    assert check(joined(token_text, *right)) == "allowed"
    for chosen in range(2**size - 1):
        kept = [one for at, one in enumerate(right) if chosen >> at & 1]
        assert check(joined(token_text, *kept)) == "missing_discharge"
        assert check(joined(token_text, *kept, stranger)) == "bad_discharge"
    for order in list(permutations(right))[1:]:
        assert check(joined(token_text, *order)) == "bad_discharge"
    for at in range(size + 1):
        assert check(joined(token_text, *right[:at], stranger, *right[at:])) == "bad_discharge"
        for again in right:
            assert check(joined(token_text, *right[:at], again, *right[at:])) == "bad_discharge"
            replaced = [*right[:at], again, *right[at + 1 :]]
            if replaced != right and at < size:
                assert check(joined(token_text, *replaced)) == "bad_discharge"


def test_e3_two_discharges_of_one_id_are_one_too_many(check):
    """E3: two answers to one ticket, both genuine, or one of them from another party, in both orders: denied; so is one answer
    to two caveats of the same id."""
    token_text, _ = asking(1)
    cid, key = taken_apart(token_text)[1][-1][0], caveat_key(1)
    first, second, forged = (
        bound(made, token_text) for made in (answer(key, cid), answer(key, cid, {"exp": NOW + 50}), answer(caveat_key(2), cid))
    )
    assert [check(joined(token_text, one)) for one in (first, second, forged)] == ["allowed", "allowed", "bad_discharge"]
    for pair in permutations((first, second, forged), 2):
        assert check(joined(token_text, *pair)) == "bad_discharge"
    twice = grown(token_text, (key, cid))
    assert check(joined(twice, bound(answer(key, cid), twice))) == "missing_discharge"


def test_e3_an_empty_part_is_no_discharge(check):
    """E3: full stops without a discharge between, before or after them, and other separators: malformed."""
    token_text, discharge_text = asking(1)
    part = bound(discharge_text, token_text)
    assert check(joined(token_text, part)) == "allowed"
    for wrong in (
        token_text + ".", token_text + ".." + part, "." + token_text + "." + part, token_text + "." + part + ".",
        token_text + " " + part, token_text + "," + part, token_text + ".\n" + part, token_text + "\u3002" + part,
        part, part + "." + token_text, part + "." + part, token_text + "." + token_text, joined(token_text, token_text, part),
        token_text + ".cap1d_", token_text + ".cap1d_" + token_text[5:] + "=", token_text + "." + part[6:],
        token_text + ".CAP1D_" + part[6:], token_text + ".cap1D_" + part[6:], token_text + ".cap1d" + part[6:],
        token_text + ".cap1p_" + part[6:], token_text + ".cap1_" + part[6:], token_text + "." + part + "=",
    ):  # fmt: skip
        assert check(wrong) == "malformed", wrong


@pytest.mark.parametrize("size", [1, 3, 16])
def test_e3_wrong_keys_are_not_the_party_s(check, size):
    """E3: for each of 1, 3 and 16 caveats a discharge of the right id under each other caveat's key, zeros, the root key and
    public values: denied."""
    token_text, discharges = several(size)
    identifier, caveats, tag = taken_apart(token_text)
    wrong_keys = [bytes(32), KEY, derive(KEY), tag, identifier, b"", derive(caveat_key(0)), derive(derive(caveat_key(0)))]
    for at, (cid, vid) in enumerate(caveats[1:]):
        for wrong in [*wrong_keys, vid, vid[24:], cid, caveat_key(at) + b"\0", *(caveat_key(k) for k in range(4) if k != at)]:
            answers = [*discharges[:at], answer(wrong, cid), *discharges[at + 1 :]]
            assert check(shown(token_text, *answers)) == "bad_discharge"
    assert check(shown(token_text, *discharges)) == "allowed"


# ---- E4: nesting and fan-out ---------------------------------------------------------------------------------------


def chain_of(length, cyclic):
    """A token, and discharges of which each asks for the next; the last one for the first, if they run in a cycle."""
    cids = [ticket(number, n=number) for number in range(length + 1)]
    token_text = grown(text(SALES), (caveat_key(0), cids[0]))
    made = []
    for number in range(length + (not cyclic)):
        following = (number + 1) % length if cyclic else number + 1
        nested = [] if following > length else [(caveat_key(following), cids[following])]
        made.append(answer(caveat_key(number), cids[number], LEASE, *nested))
    return token_text, made


@pytest.mark.parametrize(("length", "cyclic"), [*((n, False) for n in range(1, 18)), *((n, True) for n in range(1, 5))])
def test_e4_a_discharge_asks_nobody_in_its_turn(check, length, cyclic):
    """E4: discharges that ask for discharges, 1 to 17 deep or in cycles of 1 to 4, all of them present and bound to the root:
    malformed, at once, to servers and holders."""
    token_text, made = chain_of(length, cyclic)
    hostile = shown(token_text, *made)
    assert check(hostile) == "malformed"
    assert calls(lambda: check(hostile)) < 1000
    with pytest.raises(TokenFormatError):
        Discharge.parse(made[0])
    with pytest.raises(TokenFormatError):
        Token.parse(joined(token_text, *made))
    assert check(shown(token_text, answer(caveat_key(0), taken_apart(token_text)[1][-1][0]))) == "allowed"


@pytest.mark.parametrize("size", [17, 18, 32, 64, 100, 300, 1000])
def test_e4_more_than_sixteen_discharges_are_not_looked_at(check, monkeypatch, size):
    """E4: 17 to 1,000 discharges: malformed before anything is decoded."""
    token_text, discharges = several(1)
    fits = bound(discharges[0], token_text)
    short = joined(token_text, *["cap1d_" + "A" * (20 if size > 100 else 200)] * size)
    assert check(joined(token_text, fits)) == "allowed"

    def never(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(texts, "decode", never)
    monkeypatch.setattr(texts, "b64decode", never)
    decision = verifier().explain(short, access(ASK))
    assert (decision.code, decision.step) == ("malformed", 1)
    assert calls(lambda: check(short)) < 200


def test_e4_sixteen_are_verified_and_not_seventeen(check):
    """E4: 16 caveats with their discharges are allowed, and 17 of each are not."""
    token_text, discharges = several(16)
    assert check(shown(token_text, *discharges)) == "allowed"
    token_text, discharges = several(17)
    assert check(shown(token_text, *discharges)) == "malformed"


def test_e4_the_bundle_has_a_limit_of_its_own(check, monkeypatch):
    """E4: 32,769 characters, and megabytes, are refused before anything is decoded; each part keeps its own limit of 8,192."""
    token_text, (discharge_text,) = several(1)
    part = bound(discharge_text, token_text)
    room = grown(discharge_text, {"tables": ["sales", *(f"t{number:04}" for number in range(600))]})
    assert 4000 < len(room) < 8192 and check(shown(token_text, room)) == "allowed"
    long = grown(discharge_text, {"tables": ["sales", *(f"t{number:04}" for number in range(900))]})
    assert 8192 < len(long) < 12000 and check(shown(token_text, long)) == "malformed"
    monkeypatch.setattr(texts, "b64decode", None)
    for size in (32_769 - len(token_text) - 7, 10**5, 10**6, 10**7):
        hostile = joined(token_text, "cap1d_" + "A" * size)
        decision = verifier().explain(hostile, access(ASK))
        assert len(hostile) > 32_768 and (decision.code, decision.step) == ("malformed", 1)
    assert len(joined(token_text, part)) < 32_768


class Opened:
    """Counts the secret boxes that are opened."""

    def __init__(self, monkeypatch):
        self.count = 0
        monkeypatch.setattr(chain, "disclose", self)

    def __call__(self, key, box):
        self.count += 1
        return primitives.disclose(key, box)


@pytest.mark.parametrize("size", [0, 1, 2, 5, 16])
def test_e4_no_more_boxes_are_opened_than_caveats_have_answers(check, monkeypatch, size):
    """E4: n discharges open n secret boxes; where their number or order is wrong, the signatures do not match, or one is missing:
    none."""
    token_text, discharges = several(size)
    opened = Opened(monkeypatch)
    assert check(shown(token_text, *discharges)) == "allowed" and opened.count == size
    opened.count, extra = 0, asking(30)[1]
    hostile = [shown(token_text, *discharges, extra), shown(grown(token_text, {"exp": NOW - 1})[:-3] + "AAA", *discharges)]
    if size:
        hostile += [
            token_text,
            shown(token_text, *discharges[:-1]),
            shown(token_text, *discharges[1:], extra),
            shown(token_text, discharges[0], *discharges),
            shown(packed("cap1_", *taken_apart(token_text)[:2], bytes(32)), *discharges),
        ]
    if size > 1:
        hostile += [shown(token_text, *reversed(discharges)), shown(token_text, *[discharges[0]] * size)]
    assert all(check(one) in DENIED for one in hostile) and opened.count == 0


def test_e4_the_first_discharge_that_is_not_genuine_ends_it(check, monkeypatch):
    """E4: of sixteen discharges the first forged one is the last whose box is opened."""
    token_text, discharges = several(16)
    opened = Opened(monkeypatch)
    for at in range(16):
        opened.count = 0
        forged = answer(bytes(32), taken_apart(discharges[at])[0])
        assert check(shown(token_text, *discharges[:at], forged, *discharges[at + 1 :])) == "bad_discharge"
        assert opened.count == at + 1


# ---- E5: cid, vid and boxes ----------------------------------------------------------------------------------------


def test_e5_cid_and_vid_stay_where_they_were_put(check):
    """E5: cids, vids and whole caveats in every other order inside a token, and those of each of six tokens in each other,
    105 tokens with discharges for what they then say: denied."""
    token_text, discharges = several(3)
    identifier, caveats, tag = taken_apart(token_text)
    link, asked, tried = caveats[0], caveats[1:], 0
    assert check(shown(token_text, *discharges)) == "allowed"
    for order in list(permutations(range(3)))[1:]:
        cids = [(asked[k][0], asked[at][1]) for at, k in enumerate(order)]
        vids = [(asked[at][0], asked[k][1]) for at, k in enumerate(order)]
        for mixed in (cids, vids, [asked[k] for k in order]):
            answers = [discharges[[cid for cid, _ in asked].index(cid)] for cid, _ in mixed]
            assert check(shown(packed("cap1_", identifier, [link, *mixed], tag), *answers)) == "bad_signature"
            tried += 1
    made = six()
    for i, k in permutations(range(6), 2):
        identifier, caveats, tag = taken_apart(made[i][0])
        cid, vid = taken_apart(made[k][0])[1][-1]
        own_cid, own_vid = caveats[-1]
        for mixed, answered in (((cid, own_vid), made[k][1]), ((own_cid, vid), made[i][1]), ((cid, vid), made[k][1])):
            assert check(shown(packed("cap1_", identifier, [*caveats[:-1], mixed], tag), answered)) == "bad_signature"
            tried += 1
    assert tried == 105


def attackers_keys():
    token_text, discharge_text = asking(1)
    tag = taken_apart(token_text)[2]
    return {
        "zeros": bytes(32),
        "the last tag": tag,
        "the discharge's tag": taken_apart(discharge_text)[2],
        "the caveat key": caveat_key(1),
        "the derived caveat key": derive(caveat_key(1)),
        "a link id": evaluator.mac(b"captoken/v1 link\0", tag),
        "the party's public key": bytes(PrivateKey(PARTY).public_key),
        "one of the attacker's": bytes(range(7, 39)),
    }


@pytest.mark.parametrize("name", attackers_keys())
def test_e5_a_box_under_another_key_puts_no_other_key_in_it(check, name):
    """E5: the vid sealed again by someone who does not know the tag before it, with a caveat key of his own: with the old
    signature, with one that he works out from what he has, and on a token of his own making: denied."""
    token_text, discharge_text = asking(1)
    identifier, caveats, tag = taken_apart(token_text)
    cid, _ = caveats[-1]
    own, mine = bytes(range(9, 41)), attackers_keys()[name]
    vid = bytes(SecretBox(mine).encrypt(derive(own), bytes(24)))
    forged = answer(own, cid)
    assert check(shown(token_text, discharge_text)) == "allowed"
    for signature in (tag, extended(mine, cid, vid), extended(tag, cid, vid)):
        assert check(shown(packed("cap1_", identifier, [*caveats[:-1], (cid, vid)], signature), forged)) == "bad_signature"


def test_e5_whoever_asks_more_frees_from_nothing(check):
    """E5: a holder adds a caveat with the same ticket, or one of his own, under a caveat key of his own: it asks for one
    discharge more, and his own answers never stand for the genuine one."""
    token_text, discharge_text = asking(1)
    cid, own = taken_apart(token_text)[1][-1][0], bytes(range(9, 41))
    mine = ticket_of(sealed(own, {}))
    doubled, added = grown(token_text, (own, cid)), grown(token_text, (own, mine))
    forged, genuine, extra = answer(own, cid), discharge_text, answer(own, mine)
    assert check(shown(added, genuine, extra)) == "allowed"
    for answers in ((extra,), (genuine,), (), (extra, genuine), (forged, extra), (forged,), (extra, extra)):
        assert check(shown(added, *answers)) in ("missing_discharge", "bad_discharge")
    for answers in ((forged,), (genuine,), (), (forged, genuine), (forged, forged), (genuine, genuine), (extra, forged)):
        assert check(shown(doubled, *answers)) in ("missing_discharge", "bad_discharge")


def test_e5_a_ticket_of_the_attacker_s_own_is_another_ticket(check):
    """E5: the same need sealed again, with the attacker's caveat key or the genuine one, or with another address: the
    discharge that the party itself gives for it answers nothing here, under its own id or the genuine one."""
    token_text, discharge_text = asking(1)
    cid, own = taken_apart(token_text)[1][-1][0], bytes(range(9, 41))
    box = evaluator.unbase64(json.loads(cid)["box"])
    assert check(shown(token_text, party().discharge(cid.decode()).serialize())) == "allowed"
    for again in (
        ticket_of(sealed(own, {"n": 1})),
        ticket_of(sealed(caveat_key(1), {"n": 1})),
        ticket_of(box, loc="https://attacker.example"),
    ):
        given = party().discharge(again.decode()).serialize()
        assert check(shown(token_text, given)) == "bad_discharge"
        assert check(shown(token_text, packed("cap1u_", cid, *taken_apart(given)[1:]))) == "bad_discharge"
    assert check(shown(token_text, discharge_text)) == "allowed"


# What X25519 gives for a point of low order is zeros, and the key that NaCl then makes of it is known to everybody.
KEY_OF_ZEROS = bytes.fromhex("351f86faa3b988468a850122b65b0acece9c4826806aeee63de9c0da2bd7f91e")
LOW_ORDER = {
    "order 4": bytes(32),
    "order 1": b"\1" + bytes(31),
    "order 8": bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    "order 8, the other": bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    "order 2": bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
}


def sealed_otherwise():
    """Boxes that a discharger must not open, with a caveat key that their maker knows."""
    inside = evaluator.canonical({"ck": evaluator.base64text(caveat_key(1)), "need": {}, "v": 1}).encode()
    party, sender = PrivateKey(PARTY).public_key, PrivateKey(bytes(range(3, 35)))
    authenticated, genuine = bytes(Box(sender, party).encrypt(inside, bytes(24))), SealedBox(party).encrypt(inside)
    made = {
        "for another key": SealedBox(PrivateKey(OTHER_PARTY).public_key).encrypt(inside),
        "for its sender": SealedBox(sender.public_key).encrypt(inside),
        "an authenticated box": authenticated,
        "an authenticated box behind its sender": bytes(sender.public_key) + authenticated[24:],
        "a secret box under the public key": bytes(SecretBox(bytes(party)).encrypt(inside, bytes(24))),
        "of another sender": bytes(sender.public_key) + genuine[32:],
        "sealed twice": SealedBox(party).encrypt(genuine),
        "not sealed": inside,
        "empty": b"",
        "zeros": bytes(200),
    }
    for name, point in LOW_ORDER.items():
        nonce = blake2b(point + bytes(party), digest_size=24).digest()
        made[f"a sender of {name}"] = point + crypto_box_afternm(inside, nonce, KEY_OF_ZEROS)
        made[f"{name} for its sender"] = point + genuine[32:]
    return made


def party(*, secret=PARTY, now=NOW):
    """A discharger that says yes to everything."""
    return Discharger(DischargerKey.from_bytes(secret), lambda need: Allow(expires_in=60), clock=lambda: now)


def unopened(cid, code_="bad_ticket"):
    """The discharger answers with DischargeError, and does not ask its policy."""

    def never(need):
        raise AssertionError("the policy was asked")

    one = Discharger(DischargerKey.from_bytes(PARTY), never)
    for ask_ in (one.need, one.answer, one.discharge, lambda ticket_: one.approve(ticket_, Allow(expires_in=60))):
        with pytest.raises(DischargeError) as raised:
            ask_(cid.decode("latin-1"))
        assert raised.value.code == code_
    return True


@pytest.mark.parametrize("name", sealed_otherwise())
def test_e5_a_discharger_opens_what_was_sealed_for_it_alone(name):
    """E5: twenty boxes for another key, of another sender, of another kind, or by a sender of low order, which anybody could
    have made: not opened."""
    assert party().need(ticket(1, n=1).decode()) == {"n": 1}
    assert unopened(ticket_of(sealed_otherwise()[name]))


def test_e5_a_box_is_whole():
    """E5: a sealed box cut at each byte, with each byte changed, or with bytes behind it, 365 tickets: not opened."""
    box = sealed(caveat_key(1), {"n": 1})
    assert party().need(ticket_of(box).decode()) == {"n": 1}
    for at in range(len(box)):
        changed = bytearray(box)
        changed[at] ^= 1 << at % 8
        assert unopened(ticket_of(bytes(changed)))  # the sender's highest bit too: X25519 ignores it, the nonce does not
        assert unopened(ticket_of(box[:at])) and unopened(ticket_of(box[at + 1 :]))
    assert unopened(ticket_of(box + b"\0")) and unopened(ticket_of(box + box))


def test_e5_a_verification_id_is_whole(check):
    """E5: a vid cut at each byte is malformed; with each byte changed, the signatures do not match, though it is signed as well
    as its maker can; signed by whoever has the root key, its box does not open."""
    token_text, discharge_text = asking(1)
    identifier, caveats, tag = taken_apart(token_text)
    (body, _), (cid, vid) = caveats
    for size in (*range(1, 72), 73, 144):
        cut = (vid * 2)[:size]
        assert check(shown_raw(identifier, [(body, None), (cid, cut)], tag, discharge_text)) == "malformed"
    for at in range(72):
        changed = bytearray(vid)
        changed[at] ^= 0x40
        harmed = [(body, None), (cid, bytes(changed))]
        assert check(shown_raw(identifier, harmed, tag, discharge_text)) == "bad_signature"
        signed = evaluator.chain_tag(KEY, identifier, harmed)
        assert check(shown_raw(identifier, harmed, signed, discharge_text)) == "bad_discharge"
    assert check(shown(token_text, discharge_text)) == "allowed"


def shown_raw(identifier, caveats, signature, *discharges):
    """As `shown`, for parts that do not belong together."""
    token_text = packed("cap1_", identifier, caveats, signature)
    bound_to = [packed("cap1d_", *taken_apart(one)[:2], tied(signature, taken_apart(one)[2])) for one in discharges]
    return joined(token_text, *bound_to)


def test_e5_every_bit_of_a_discharge_counts(check):
    """A1 for discharges: each bit of a presented discharge, and each character by each of eight others, and cut at each
    character, 5,800 texts: 0 accepted."""
    token_text, discharge_text = asking(1)
    part = bound(discharge_text, token_text)
    wire = evaluator.unbase64(part[6:])
    assert check(joined(token_text, part)) == "allowed"
    for bit in range(len(wire) * 8):
        flipped = bytearray(wire)
        flipped[bit // 8] ^= 1 << bit % 8
        assert check(joined(token_text, "cap1d_" + evaluator.base64text(bytes(flipped)))) in DENIED, bit
    for at, was in enumerate(part):
        for letter in "Aaz09-_.".replace(was, ""):
            assert check(joined(token_text, part[:at] + letter + part[at + 1 :])) in DENIED, (at, letter)
        assert check(joined(token_text, part[:at])) in DENIED


def test_e5_every_bit_of_a_token_counts_beside_its_discharges(check):
    """A1: each bit of a token that is presented with its discharge, 4,100 flips: 0 accepted."""
    token_text, discharge_text = asking(1)
    part, wire = bound(discharge_text, token_text), evaluator.unbase64(token_text[5:])
    for bit in range(len(wire) * 8):
        flipped = bytearray(wire)
        flipped[bit // 8] ^= 1 << bit % 8
        harmed = "cap1_" + evaluator.base64text(bytes(flipped))
        assert check(joined(harmed, part)) in FORGED, bit
    assert check(joined(token_text, part)) == "allowed"


@pytest.mark.parametrize("change", ["drop", "narrow", "widen", "insert", "repeat", "swap", "replace"])
def test_e5_a_discharge_keeps_its_caveats(check, change):
    """A3 to A7 for discharges: caveats dropped, narrowed, widened, inserted, repeated, swapped or replaced under the old
    signature: denied; appended before binding by whoever holds it, they hold too."""
    token_text, discharge_text = asking(1)
    two = grown(discharge_text, {"exp": NOW + 30})
    identifier, caveats, signature = taken_apart(bound(two, token_text))
    wide = (evaluator.canonical({"exp": NOW + 10**6}).encode(), None)
    harmed = {
        "drop": [caveats[:1], caveats[1:]],
        "narrow": [[caveats[0], (evaluator.canonical({"exp": NOW + 20}).encode(), None)]],
        "widen": [[caveats[0], wide], [wide, caveats[1]]],
        "insert": [[wide, *caveats], [caveats[0], wide, caveats[1]], [*caveats, wide]],
        "repeat": [[caveats[0], *caveats], [*caveats, caveats[1]]],
        "swap": [caveats[::-1]],
        "replace": [[wide], [wide, wide], [(b"x", None)]],
    }[change]
    assert check(joined(token_text, packed("cap1d_", identifier, caveats, signature))) == "allowed"
    for wrong in harmed:
        assert check(joined(token_text, packed("cap1d_", identifier, wrong, signature))) == "bad_discharge"
    assert check(shown(token_text, grown(two, {"exp": NOW}))) == "expired"


# ---- E6: nothing drawn twice ---------------------------------------------------------------------------------------

DRAWN = """
import os, sys
from captoken import Token
from captoken.keys import DischargerKey
from nacl.bindings import crypto_box_seal_open

key = DischargerKey.from_bytes(bytes(range(40, 72)))
token = Token.parse(sys.argv[1])

def draw(count):
    for _ in range(count):
        cid, vid = token.require(key.public, need={}).secret_packet.caveats[-1]
        yield cid.hex() + " " + vid.hex() + chr(10)

token.require(key.public, need={})  # libsodium is there before the fork
children = []
for _ in range(3):
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.close(out)
        with open(into, "w") as pipe:
            pipe.writelines(draw(100))
        os._exit(0)
    os.close(into)
    children.append((child, out))
sys.stdout.writelines(draw(100))
for child, out in children:
    with open(out) as pipe:
        sys.stdout.write(pipe.read())
    assert os.waitpid(child, 0)[1] == 0
"""


def opened_box(cid, secret=PARTY):
    """What the party finds in a ticket, by PyNaCl."""
    return json.loads(SealedBox(PrivateKey(secret)).decrypt(evaluator.unbase64(json.loads(cid)["box"])))


def test_e6_no_nonce_and_no_key_is_drawn_twice_also_after_fork():
    """E6: 400 third-party caveats on one and the same token, by a process and three that were forked from it: no nonce,
    caveat key, ephemeral key or ticket twice."""
    ran = subprocess.run([sys.executable, "-c", DRAWN, text(SALES)], capture_output=True, text=True, check=True)
    drawn = [tuple(map(bytes.fromhex, line.split())) for line in ran.stdout.splitlines()]
    assert len(drawn) == 400 and not ran.stderr
    assert len({vid[:24] for _, vid in drawn}) == len({cid for cid, _ in drawn}) == 400
    assert len({opened_box(cid)["ck"] for cid, _ in drawn}) == 400
    assert len({evaluator.unbase64(json.loads(cid)["box"])[:32] for cid, _ in drawn}) == 400


def test_e6_each_caveat_draws_its_own_key_nonce_and_sender(monkeypatch):
    """E6: 33,400 caveats on one token, with the boxes left out: each draws 32 bytes of key, 32 of sender and 24 of nonce from
    the source, and none of the 100,200 draws comes twice; the source of a token that was parsed is the operating system's."""
    drawn = []

    def source(size):
        drawn.append(random_bytes(size))
        return drawn[-1]

    monkeypatch.setattr(primitives, "seal", lambda public, message, random: random(32))
    monkeypatch.setattr(primitives, "is_good_exchange_key", lambda public: True)
    monkeypatch.setattr(chain, "enclose", lambda key, message, nonce: nonce + message + bytes(16))
    token = Token.parse(text(SALES), random=source)
    for _ in range(33_400):
        _, vid = token.require(public_of(PARTY), need={}).secret_packet.caveats[-1]
        assert vid[:24] == drawn[-1] and derive(drawn[-3]) == vid[24:56]
    assert {len(piece) for piece in drawn[0::3]} == {len(piece) for piece in drawn[1::3]} == {32}
    assert {len(piece) for piece in drawn[2::3]} == {24} and len(set(drawn)) == len(drawn) == 100_200
    assert random_bytes is os.urandom and Token.parse(text(SALES)).context.random is random_bytes


# ---- E7: what a discharge says holds -------------------------------------------------------------------------------

SOME_KEY = evaluator.base64text(bytes(range(5, 37)))
REQUEST_KEYS = ["tables", "operations", "allow", "columns", "tools", "where", "exp", "nbf", "aud"]


def test_e7_a_discharge_restricts_as_a_link_would():
    """E7: 1,200 random caveats of accesses in a discharge, alone and in two, decide 1,200 random accesses as the same caveats
    in a link of the token do, code by code."""
    rng, seen = random.Random(20260801), {}
    plain, _ = asking(1)
    cid = taken_apart(plain)[1][-1][0]
    one = verifier(audience="sales-db", allow_unaddressed=True)
    for _ in range(1200):
        keys = rng.sample(REQUEST_KEYS, rng.randint(1, 3))
        link = {"exp": NOW + 600, **{key: random_caveat(rng, key) for key in keys}}
        if rng.random() < 0.05:
            link[rng.choice(UNKNOWN[:4])] = 1
        elif rng.random() < 0.1:
            key = rng.choice(REQUEST_KEYS)
            link[key] = rng.choice(UNREADABLE[key])
        facts = random_access(rng) if rng.random() < 0.5 else {**ASK, "attributes": {rng.choice(ATTRIBUTES): "eu"}}
        parted = [{"exp": NOW + 600}, link] if rng.random() < 0.3 else [link]
        given = one.check(shown(plain, answer(caveat_key(1), cid, *parted)), access(facts))
        linked = grown(plain, link)
        direct = one.check(shown(linked, answer(caveat_key(1), cid, {"exp": NOW + 600})), access(facts))
        assert given.code == direct.code, (link, facts)
        seen[given.code] = seen.get(given.code, 0) + 1
    assert seen.keys() >= {
        "allowed", "unreadable_link", "unknown_caveat", "expired", "not_yet_valid", "wrong_audience", "table", "operation",
        "column", "domain", "attribute",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("caveat", "wanted"),
    [
        ({"exp": NOW}, "expired"),
        ({"exp": NOW - 1}, "expired"),
        ({"exp": 0}, "expired"),
        ({"exp": NOW + 1}, "allowed"),
        ({"nbf": NOW}, "allowed"),
        ({"nbf": NOW + 1}, "not_yet_valid"),
        ({"tables": ["sales"]}, "allowed"),
        ({"tables": ["hr"]}, "table"),
        ({"tables": []}, "table"),
        ({"operations": ["insert"]}, "operation"),
        ({"allow": {"sales": []}}, "table"),
        ({"columns": {"sales": ["region"]}}, "column"),
        ({"tools": {"*": {}}}, "domain"),
        ({"where": {"region": {"in": ["eu"]}}}, "attribute"),
        ({"aud": ["sales-db"]}, "wrong_audience"),
        ({"new": 1}, "unknown_caveat"),
        ({"acme:region": ["eu"]}, "unknown_caveat"),
        ({"uses": 1}, "unreadable_link"),
        ({"n": "AAAAAAAAAAA", "uses": 1}, "unreadable_link"),
        ({"budget": {"usd_cents": 1}, "n": "AAAAAAAAAAA"}, "unreadable_link"),
        ({"fresh": 60}, "stale_overlay"),
        ({"exp": "soon"}, "unreadable_link"),
        ({}, "unreadable_link"),
        (b"x", "unreadable_link"),
        (b'{"nbf": 1}', "unreadable_link"),
        (b'{"nbf":1}.' + b"A" * 86, "unreadable_link"),
        ({"task": "task-123"}, "unreadable_link"),
        ({"task": "task-123/a"}, "unreadable_link"),
        ({"depth": 5}, "unreadable_link"),
        ({"delegate_only": True}, "unreadable_link"),
        (hop("sales-agent"), "unreadable_link"),
        (hop("b", "sales-agent"), "unreadable_link"),
        ({"n": "AAAAAAAAAAA"}, "unreadable_link"),
        ({"key": SOME_KEY}, "unreadable_link"),
        (evaluator.canonical({"key": SOME_KEY}).encode() + b"." + b"A" * 86, "unreadable_link"),
        ({"task": "task-123", "new": 1}, "unknown_caveat"),
        ({"sub": "user:admin"}, "unknown_caveat"),
        ({"agent": "billing-agent"}, "unknown_caveat"),
        ({"user": "admin"}, "unknown_caveat"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_e7_each_caveat_of_a_discharge_is_enforced(check, caveat, wanted):
    """E7: 39 caveats in a discharge, as its second and as its first: what restricts the request restricts it; what says
    something of task, lineage or keys is unreadable; and a claim is only a caveat that nobody knows."""
    token_text, discharge_text = asking(1)
    cid, key = taken_apart(discharge_text)[0], caveat_key(1)
    assert check(shown(token_text, discharge_text)) == "allowed"
    assert check(shown(token_text, answer(key, cid, LEASE, caveat))) == wanted
    assert check(shown(token_text, answer(key, cid, caveat, LEASE))) == wanted


@pytest.mark.parametrize("caveats", [({"nbf": NOW},), (SALES,), ({"nbf": 1}, SALES), ({"aud": ["x"]},)], ids=str)
def test_e7_a_discharge_without_an_expiry_is_unreadable(check, caveats):
    """E7: a discharge that never ends is none, whoever made it; and one without any caveat is malformed."""
    token_text, discharge_text = asking(1)
    cid, key = taken_apart(discharge_text)[0], caveat_key(1)
    assert check(shown(token_text, answer(key, cid, *caveats))) == "unreadable_link"
    bare = packed("cap1u_", cid, [], evaluator.mac(derive(key), cid))
    assert check(shown(token_text, bare)) == "malformed"
    assert check(shown(token_text, grown(bare, LEASE))) == "allowed"


def test_e7_sixty_four_links_are_the_most(check):
    """E7: a discharge of 64 links holds, one of 65 is malformed; an identifier of 2,048 bytes is read, and of 2,049 not."""
    token_text, discharge_text = asking(1)
    full = grown(discharge_text, *({"exp": NOW + 60} for _ in range(63)))
    assert check(shown(token_text, full)) == "allowed"
    assert check(shown(token_text, grown(full, LEASE))) == "malformed"
    for size, wanted in ((2048, "allowed"), (2049, "malformed")):
        cid = b"x" * size
        long = grown(text(SALES), (caveat_key(1), cid))
        assert check(shown(long, answer(caveat_key(1), cid))) == wanted


def test_e7_a_discharge_tells_nothing(check):
    """E7: whatever a discharge says, the grant's names, task, chain and issuer are those of the token; capability and expiry
    shrink."""
    token_text, discharge_text = asking(1, hop("sales-agent"), {"task": "task-123/a"})
    cid, key = taken_apart(discharge_text)[0], caveat_key(1)
    plain = verifier().authenticate(shown(token_text, discharge_text))
    says = {"exp": NOW + 5, "tables": ["sales"], "where": {"a": {"in": [1]}}}
    strict = verifier().authenticate(shown(token_text, answer(key, cid, says)))
    for part in ("issued", "chain", "actor", "parent", "task", "token_id", "link_ids", "key", "evidence"):
        assert getattr(strict, part) == getattr(plain, part)
    assert (plain.expires_at, strict.expires_at) == (NOW + 60, NOW + 5)
    assert plain.capability.covers(strict.capability) and not strict.capability.covers(plain.capability)
    assert plain.check(access(ASK)) and strict.check(access(ASK)).code == "attribute"
    assert strict.check(access({**ASK, "attributes": {"a": 1}}))
    refusal = strict.check(access(ASK)).refusals[0]
    assert (refusal.link, refusal.added_by) == (3, "the discharger")


def test_e7_an_audience_in_a_discharge_addresses_no_token():
    """E7: a discharge for one server restricts to it, and does not make a token that is addressed to nobody one that is
    addressed there."""
    token_text, discharge_text = asking(1)
    cid, key = taken_apart(discharge_text)[0], caveat_key(1)
    given = answer(key, cid, {**LEASE, "aud": ["sales-db"]})
    assert code(shown(token_text, given), audience="sales-db") == "unaddressed"
    assert code(shown(token_text, given), audience="sales-db", allow_unaddressed=True) == "allowed"
    addressed = grown(token_text, {"aud": ["hr-db", "sales-db"]})
    assert code(shown(addressed, given), audience="sales-db") == "allowed"
    assert code(shown(addressed, given), audience="hr-db") == "wrong_audience"
    assert code(shown(addressed, given), audience=("hr-db", "sales-db")) == "allowed"


# ---- E8: old discharges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", range(-5, 6))
@pytest.mark.parametrize("leeway", [0, 3])
def test_e8_a_discharge_ends_to_the_second(late, leeway):
    """E8: eleven seconds around a discharge's end, with and without leeway: allowed before, expired from then on; a grant
    that was given before ends with it."""
    token_text, discharge_text = asking(1)
    presented = shown(token_text, discharge_text)
    wanted = "allowed" if late < leeway else "expired"
    assert code(presented, now=NOW + 60 + late, leeway=leeway) == wanted
    now = [NOW]
    grant = Verifier(keyring(), clock=lambda: now[0], leeway=leeway).authenticate(presented)
    now[0] += 60 + late
    assert grant.check(access(ASK)).code == grant.recheck().code == wanted


def test_e8_a_discharge_of_an_earlier_root_answers_nothing_of_a_new_one(check):
    """E8: ten roots that are minted again, be it from the same record, and that ask the same party the same thing: none takes
    an older one's discharge, as it was presented or bound anew."""
    for number in range(10):
        links = [hop(f"agent-{number}", number=number)] * (number % 2)
        first, given = asking(1, *links)
        cid = ticket(2, n=1)
        again = grown(text(SALES, *links), (caveat_key(2), cid))
        assert check(shown(first, given)) == check(shown(again, answer(caveat_key(2), cid))) == "allowed"
        assert check(joined(again, bound(given, first))) == "bad_discharge"
        assert check(shown(again, given)) == "bad_discharge"
        assert check(shown(again, packed("cap1u_", cid, *taken_apart(given)[1:]))) == "bad_discharge"


# ---- E9: roles -----------------------------------------------------------------------------------------------------


def test_e9_a_discharge_is_no_token(check):
    """E9: ten discharges, bound and unbound, under the token's prefix, alone and with discharges of their own: refused before
    any link is looked at; so is one whose id is a root record."""
    for number in range(10):
        token_text, given = asking(number)
        for part in (given, bound(given, token_text)):
            assert check("cap1_" + part[6:]) == "malformed"
            assert check(joined("cap1_" + part[6:], bound(given, token_text))) == "malformed"
            assert check(part) == "malformed"
    for root in (ROOT, {**ROOT, "kid": "box"}):
        record = evaluator.canonical(root).encode()
        token_text = grown(text(SALES), (caveat_key(1), record))
        given = answer(caveat_key(1), record, {**SALES, **LEASE})
        assert check(shown(token_text, given)) == "allowed"
        for part in (given, bound(given, token_text)):
            assert check("cap1_" + part[6:]) == ("bad_signature" if root is ROOT else "unknown_key")


def test_e9_a_token_is_no_discharge(check):
    """E9: a token's own text, and each of five others, as the discharge that it asks for, under its record as the id: denied;
    so is the token as its own discharge."""
    record = evaluator.canonical(ROOT).encode()
    token_text = grown(text(SALES), (caveat_key(1), record))
    plain = [text(SALES), text(LEASE), text({**SALES, **LEASE}), text(SALES, LEASE), text(SALES, key=caveat_key(2))]
    for other in (token_text, *plain):
        assert check(shown(token_text, "cap1u_" + other[5:])) in ("bad_discharge", "malformed")
        assert check(joined(token_text, "cap1d_" + other[5:])) in ("bad_discharge", "malformed")
        assert check(joined(token_text, other)) == "malformed"
    assert check(shown(token_text, answer(caveat_key(1), record))) == "allowed"


def test_e9_one_key_in_two_roles_crosses_nothing(check):
    """E9: the root key as the caveat's, as the derived caveat key and as the party's own secret: what was genuine stays so,
    and neither kind of text passes for the other."""
    for key in (KEY, derive(KEY)):
        cid = ticket_of(sealed(key, {}))
        token_text = grown(text(SALES), (key, cid))
        given = answer(key, cid)
        assert check(shown(token_text, given)) == "allowed"
        assert check("cap1_" + given[6:]) == check("cap1_" + bound(given, token_text)[6:]) == "malformed"
        assert check(shown(token_text, "cap1u_" + text(SALES)[5:])) == "bad_discharge"
        assert check(shown(token_text, answer(derive(key), cid))) == "bad_discharge"
    cid = ticket_of(sealed(caveat_key(1), {}, KEY), KEY)
    token_text = grown(text(SALES), (caveat_key(1), cid))
    assert check(shown(token_text, party(secret=KEY).discharge(cid.decode()).serialize())) == "allowed"
    assert check(shown(token_text, answer(KEY, cid))) == "bad_discharge"
    assert unopened(cid)


# ---- E10: what the third party learns ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(20))
def test_e10_a_ticket_tells_what_is_needed_and_nothing_of_the_token(number):
    """E10: twenty tickets for twenty tokens: the box holds caveat key, need and version; the ticket itself the party's key,
    the address and the box; and nothing of the token stands in any of it, as text, bytes, hex or base64, but for what the
    need says."""
    need = {"approve": "payment", "cents": number, "list": ["x", {"y": True}]}
    location = "https://approvals.example" if number % 2 else None
    links = [hop("sales-agent", number=number), {"tables": ["sales"], "exp": NOW + 600 + number}][: number % 3]
    token = Token.parse(text(SALES, *links, jti=evaluator.base64text(bytes([number + 1]) * 16)))
    asked = token.require(public_of(PARTY), need=need, location=location)
    (told,) = asked.needs
    stated = json.loads(told.text)
    assert stated.keys() == {"box", "for", "v"} | ({"loc"} if location else set())
    assert (stated["for"], stated.get("loc"), stated["v"]) == (public_of(PARTY), location, 1)
    inside = opened_box(told.cid)
    assert inside.keys() == {"ck", "need", "v"} and inside["need"] == need and inside["v"] == 1
    identifier, caveats, tag = taken_apart(asked.serialize())
    _, vid = caveats[-1]
    before = taken_apart(token.serialize())[2]
    key = evaluator.unbase64(inside["ck"])
    assert SecretBox(before).decrypt(vid) == derive(key) and len(key) == 32
    record = json.loads(identifier)
    private = [record[part] for part in ("sub", "agent", "task", "jti")]
    private += ["sales-agent", "tables", "select", "cap1_", asked.link_id, token.link_id]
    secret = [tag, before, vid, evaluator.unbase64(record["jti"]), identifier, *(body for body, _ in caveats[:-1])]
    for seen in (told.text, json.dumps(inside), repr(told)):
        assert not [word for word in private if word in seen]
        for piece in secret:
            assert piece.hex() not in seen and piece.decode("latin-1") not in seen
            assert not [form for form in base64_forms(piece) if form in seen]
    assert Ticket.parse(told.text) == told
    assert party().need(told) == need


def base64_forms(piece):
    """What of `piece` can be seen in a base64 text that it stands in at any offset."""
    for offset in range(3):
        inner = base64.urlsafe_b64encode(bytes(offset) + piece).decode()
        yield inner[4:-4][:24]


def test_e10_the_same_need_twice_looks_different_each_time():
    """E10: thirty tickets of one token, party and need have nothing in common that could be told apart or counted."""
    token = Token.parse(text(SALES))
    tickets = [token.require(public_of(PARTY), need={"a": 1}).needs[0] for _ in range(30)]
    boxes = [evaluator.unbase64(json.loads(told.text)["box"]) for told in tickets]
    places = range(0, len(boxes[0]) - 8, 8)
    assert len({box[at : at + 8] for box in boxes for at in places}) == 30 * len(places)
    assert len({len(told.text) for told in tickets}) == 1


def test_a_token_that_is_handed_over_as_an_object_is_decided_as_its_text():
    """A verifier in the holder's own process binds the discharges that the token carries, and comes to the same decision."""
    token_text, given = asking(1)
    forged = answer(caveat_key(2), taken_apart(given)[0])
    for answers, wanted in (((given,), "allowed"), ((), "missing_discharge"), ((forged,), "bad_discharge")):
        assert verifier().check(Token.parse(joined(token_text, *answers)), access(ASK)).code == wanted
        assert code(shown(token_text, *answers)) == wanted
