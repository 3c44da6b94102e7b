"""The 74 abuse cases that a careful macaroon library must refuse, each with the test that shows it, or the reason why
captoken has no such case.

The table is checked: every number is there, and every test that it names exists.
"""

import ast
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
from nacl.public import PrivateKey

from captoken import Token
from captoken.caveats import Caveat, Vocabulary
from tests.attacks.test_e_discharges import LEASE, answer, bound, caveat_key, grown, joined, sealed, shown, ticket, ticket_of
from tests.costs.counting import calls
from tests.reference import evaluator
from tests.reference.fixtures import (
    ASK,
    NOW,
    OTHER_KEY,
    SALES,
    access,
    code,
    from_wire,
    hop,
    keyring,
    random_access,
    random_token,
    text,
    to_wire,
    verifier,
)

TEXT = text(SALES)
TESTS = Path(__file__).parents[1]
A, B, C, D, E, F, J, FUZZ = (
    f"attacks/{name}.py"
    for name in (
        "test_a_chain",
        "test_b_encoding",
        "test_c_language",
        "test_d_attenuation",
        "test_e_discharges",
        "test_f_keys",
        "test_j_secrets",
        "test_fuzz",
    )
)
CHAIN = "properties/test_chain.py"
HERE = "attacks/test_abuse_cases.py"

NO_V1_OR_JSON = "captoken reads macaroon V2 binary only; V1 and the two JSON formats are never parsed"

CASES = {
    1: ("empty, white space or padding alone", B, "test_b4_what_is_no_text_is_malformed"),
    2: ("bytes after the signature", B, "test_b3_nothing_before_between_or_after"),
    3: ("a signature of another length", A, "test_a8_a_signature_of_another_length_is_malformed"),
    4: ("another version byte", B, "test_b3_no_other_version_byte"),
    5: ("a varint that is not minimal", B, "test_b1_no_number_has_a_second_form"),
    6: ("a varint without end", B, "test_b7_what_is_too_large_is_refused_at_once"),
    7: ("a length beyond the buffer", B, "test_b2_no_other_length_is_accepted"),
    8: ("cut at every byte", A, "test_a2_no_truncation_is_accepted"),
    9: ("fields repeated, reordered or unknown", B, "test_b3_fields_are_known_once_and_in_order"),
    10: ("a vid or signature in the header, or no identifier", B, "test_b3_fields_are_known_once_and_in_order"),
    11: ("a first-party caveat has a location", B, "test_b3_fields_are_known_once_and_in_order"),
    12: ("an empty vid", B, "test_b3_fields_are_known_once_and_in_order"),
    13: ("a vid of another length", B, "test_b3_fields_are_known_once_and_in_order"),
    14: ("no end of section, or one too many", B, "test_b3_fields_are_known_once_and_in_order"),
    15: ("a location that is not UTF-8", HERE, "test_a_location_is_malformed_wherever_it_stands"),
    16: ("an empty identifier", B, "test_b3_fields_are_known_once_and_in_order"),
    17: ("another spelling of base64", B, "test_b4_there_is_one_text_per_token"),
    18: ("a text over the size cap", B, "test_b7_what_is_too_large_is_refused_at_once"),
    19: ("10,000 tiny caveats", B, "test_b7_what_is_too_large_is_refused_at_once"),
    20: ("V1: sizes in other spellings", NO_V1_OR_JSON),
    21: ("V1: a packet without newline or space", NO_V1_OR_JSON),
    22: ("V1: fields out of order or repeated", NO_V1_OR_JSON),
    23: ("JSON: both forms of a value, wrong types", HERE, "test_other_formats_are_malformed"),
    24: ("JSON: keys of V1 and V2 together", HERE, "test_other_formats_are_malformed"),
    25: ("JSON: no signature, no object, nested deeply", HERE, "test_other_formats_are_malformed"),
    26: ("each single bit flipped", A, "test_a1_no_flipped_bit_is_accepted"),
    27: ("a location that is changed", HERE, "test_a_location_is_malformed_wherever_it_stands"),
    28: ("a caveat dropped, moved, repeated or edited", A, "test_a4_no_order_but_the_signed_one_is_accepted"),
    29: ("an unsigned caveat inserted anywhere", A, "test_a7_no_wider_link_can_take_a_place"),
    30: ("the last caveat taken off, the tag kept", A, "test_a3_no_caveat_can_be_dropped"),
    31: ("an unknown caveat", C, "test_c4_an_unknown_key_prohibits"),
    32: ("a checker that raises or answers oddly", HERE, "test_a_checker_that_raises_or_answers_oddly_prohibits"),
    33: ("a caveat about a fact that the request lacks", C, "test_c7_a_fact_that_is_asked_about_and_not_stated_prohibits"),
    34: ("no root key, or an empty one", F, "test_f2_no_key_means_no_hmac_under_an_empty_key"),
    35: ("a weak root key", F, "test_f2_a_weak_key_is_refused_when_built"),
    36: ("a key of another purpose or tenant", F, "test_f3_one_server_s_key_is_no_other_s"),
    37: ("a key id with NUL, a path, SQL", F, "test_f1_a_key_id_is_looked_up_as_it_is"),
    38: ("a rotated key", F, "test_f6_rotation_overlaps_until_the_old_key_is_retired"),
    39: ("a token of service A at service B", F, "test_f3_one_server_s_key_is_no_other_s"),
    40: ("a third-party caveat without discharge", E, "test_e3_each_caveat_has_exactly_one_discharge_in_order"),
    41: ("a discharge that is not bound", E, "test_e2_bound_to_the_token_as_it_is_presented"),
    42: ("a discharge bound to another root", E, "test_e1_a_discharge_counts_for_its_own_caveat_bound_to_its_own_token"),
    43: ("a discharge bound twice", E, "test_e2_bound_to_the_token_as_it_is_presented"),
    44: ("a nested discharge bound to its parent", HERE, "test_a_nested_discharge_is_malformed_whatever_it_is_bound_to"),
    45: ("a discharge under the wrong key", E, "test_e3_wrong_keys_are_not_the_party_s"),
    46: ("a vid that was tampered with", E, "test_e5_a_verification_id_is_whole"),
    47: ("a vid copied from elsewhere", E, "test_e5_cid_and_vid_stay_where_they_were_put"),
    48: ("discharges in a cycle", E, "test_e4_a_discharge_asks_nobody_in_its_turn"),
    49: ("300 discharges in a chain, or a doubling tree", HERE, "test_chains_and_trees_of_discharges_are_refused_at_once"),
    50: ("one discharge for two caveats", HERE, "test_one_discharge_answers_one_caveat"),
    51: ("two discharges with one id", E, "test_e3_two_discharges_of_one_id_are_one_too_many"),
    52: ("a discharge that nobody asked for", HERE, "test_a_discharge_that_nobody_asked_for_is_refused"),
    53: ("a discharge as the root token", E, "test_e9_a_discharge_is_no_token"),
    54: ("a discharge of one's own that claims a name", HERE, "test_a_discharge_of_one_s_own_claims_nothing"),
    55: ("narrow, then wide", C, "test_c6_contradictions_permit_nothing"),
    56: ("an empty allow-list", C, "test_c5_empty_permits_nothing"),
    57: ("times that are no integers", C, "test_c8_a_time_that_is_no_integer_is_unreadable"),
    58: ("now equal to the expiry; skew", C, "test_c8_time_holds_to_the_second"),
    59: ("caveat names that look alike", C, "test_c4_an_unknown_key_prohibits"),
    60: ("a caveat that is not UTF-8", FUZZ, "test_b6_links_of_random_content_never_raise"),
    61: ("path tricks", C, "test_c3_types_never_coerce"),
    62: ("JSON tricks in a caveat", B, "test_b8_json_tricks_in_a_link_are_unreadable"),
    63: ("a caveat with effects on a forged token", HERE, "test_nothing_of_a_forged_token_is_evaluated"),
    64: (
        "a revoked token; a deny-list out of reach",
        "there is no deny-list yet; the overlay of a later version brings it and its faults, class G",
    ),
    65: ("two spellings of one token", B, "test_b5_what_decodes_encodes_back"),
    66: ("replay of a request", HERE, "test_a_bearer_token_can_be_used_again"),
    67: ("renderings of a token", J, "test_j1_no_rendering_shows_a_secret"),
    68: ("comparison of tags", HERE, "test_tags_are_compared_in_constant_time"),
    69: ("narrowing a shared token object", D, "test_what_is_given_is_copied_and_a_token_is_never_changed"),
    70: ("too large when written", D, "test_d6_the_64th_link_is_the_last"),
    71: ("a fixed nonce", E, "test_e6_each_caveat_draws_its_own_key_nonce_and_sender"),
    72: ("a header of 1,000 tokens", B, "test_b7_what_is_too_large_is_refused_at_once"),
    73: ("a header with two tokens", HERE, "test_other_formats_are_malformed"),
    74: ("one verifier in many threads", HERE, "test_one_verifier_in_eight_threads_decides_as_alone"),
}


def test_all_74_cases_are_accounted_for():
    """Each case has a test that exists, or a reason of its own."""
    assert list(CASES) == list(range(1, 75)) and len({what for what, *_ in CASES.values()}) == 74
    tested = {number: case[1:] for number, case in CASES.items() if len(case) == 3}
    trees = {path: ast.parse((TESTS / path).read_text(encoding="utf-8")) for path, _ in tested.values()}
    for number, (path, test) in tested.items():
        assert test in {node.name for node in trees[path].body if isinstance(node, ast.FunctionDef)}, number
    assert len(tested) == 70
    assert all(len(case[1]) > 40 for number, case in CASES.items() if number not in tested)


OTHER_FORMATS = {
    "V2 JSON": '{"v":2,"i":"id","c":[],"s64":"' + "A" * 43 + '"}',
    "V2 JSON, i and i64": '{"i":"id","i64":"aWQ","s64":"' + "A" * 43 + '"}',
    "V2 JSON without signature": '{"i":"id"}',
    "V1 JSON": '{"location":"","identifier":"id","caveats":[],"signature":"' + "00" * 32 + '"}',
    "V1 and V2 keys": '{"identifier":"id","i":"id","signature":"' + "00" * 32 + '","s64":"' + "A" * 43 + '"}',
    "an array": "[]",
    "deep": "[" * 8000,
    "V1 binary": "MDAxMWxvY2F0aW9uIAowMDExaWRlbnRpZmllciBpCjAwMmZzaWduYXR1cmUg" + "A" * 43,
    "a JWT": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.",
    "a discharge": "cap1d_" + TEXT[5:],
    "an unbound discharge": "cap1u_" + TEXT[5:],
    "V2 without prefix": TEXT[5:],
    "two tokens": TEXT + " " + TEXT,
    "a header": "Bearer " + TEXT,
    "a thousand tokens": ",".join([TEXT] * 1000),
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_other_formats_are_malformed(name):
    """Cases 23 to 25: another macaroon format, another kind of token, or several of them, is malformed."""
    assert code(TEXT) == "allowed" and code(OTHER_FORMATS[name]) == "malformed"
    if "{" in name or name.startswith(("V1", "V2 JSON")):
        assert code("cap1_" + evaluator.base64text(OTHER_FORMATS[name].encode())) == "malformed"


@pytest.mark.parametrize("location", [b"", b"http://example.org/", b"\xff\xfe", b"x" * 300])
def test_a_location_is_malformed_wherever_it_stands(location):
    """Case 27: a location, empty or not, on the token, on a link or on a third party's caveat: nothing unauthenticated is ever
    carried."""
    wire = to_wire(text(SALES, (b"x", bytes(72))))
    size = bytes([len(location)]) if len(location) < 128 else bytes([len(location) & 127 | 128, len(location) >> 7])
    starts = [at for at in range(len(wire)) if wire[at : at + 1] == b"\2" and at and (at == 1 or wire[at - 1] == 0)]
    assert len(starts) >= 3
    for at in starts[:3]:
        assert code(from_wire(wire[:at] + b"\1" + size + location + wire[at:])) == "malformed"


def test_a_vid_of_another_token_breaks_the_chain():
    """Case 47: a third party's vid copied from another caveat or token is `bad_signature`; in its own place it is a missing
    discharge."""
    vids = [bytes([i]) * 72 for i in range(4)]
    tokens = [text(SALES, (b"x", vid)) for vid in vids]
    for token_text, vid in zip(tokens, vids, strict=True):
        for other in vids:
            assert code(from_wire(to_wire(token_text).replace(vid, other))) == (
                "missing_discharge" if other == vid else "bad_signature"
            )


def test_a_nested_discharge_is_malformed_whatever_it_is_bound_to():
    """Case 44: a discharge of a discharge, bound to the discharge above it, to the root or to nothing: malformed, and not
    looked into."""
    first, second = ticket(1), ticket(2)
    root = grown(TEXT, (caveat_key(1), first))
    plain, nested = answer(caveat_key(1), first), answer(caveat_key(1), first, LEASE, (caveat_key(2), second))
    inner = answer(caveat_key(2), second)
    assert code(shown(root, plain)) == "allowed"
    for last in (bound(inner, nested), bound(inner, root), bound(inner, bound(nested, root)), inner):
        assert code(joined(root, bound(nested, root), last)) == "malformed"


def test_chains_and_trees_of_discharges_are_refused_at_once():
    """Case 49: a chain of 300 discharges, a tree of 31 that doubles at each level, and the longest chain that has 16:
    malformed, in fewer than 1,000 calls."""
    cids = [ticket(number % 250, n=number) for number in range(301)]
    root = grown(TEXT, (caveat_key(0), cids[0]))

    def asks(number, *following):
        nested = [(caveat_key(k % 250), cids[k]) for k in following if k < len(cids)]
        return bound(answer(caveat_key(number % 250), cids[number], LEASE, *nested), root)

    chained = [asks(number, number + 1) for number in range(300)]
    doubling = [asks(number, *((2 * number + 1, 2 * number + 2) if number < 15 else ())) for number in range(31)]
    for discharges in (chained, doubling, chained[:16], doubling[:15], doubling[:3]):
        hostile = joined(root, *discharges)
        assert code(hostile) == "malformed" and calls(lambda hostile=hostile: code(hostile)) < 1000
    assert code(shown(root, answer(caveat_key(0), cids[0]))) == "allowed"


def test_one_discharge_answers_one_caveat():
    """Case 50: two caveats of one ticket, and its one discharge, once or twice; or two tickets under one caveat key: each
    asks for its own."""
    cid, other = ticket(1), ticket(1, again=True)
    once, twice = grown(TEXT, (caveat_key(1), cid)), grown(TEXT, (caveat_key(1), cid), (caveat_key(1), cid))
    given, second = answer(caveat_key(1), cid), answer(caveat_key(1), other)
    assert code(shown(once, given)) == "allowed"
    assert code(shown(twice, given)) == "missing_discharge" and code(shown(twice, given, given)) == "bad_discharge"
    both = grown(TEXT, (caveat_key(1), cid), (caveat_key(1), other))
    assert code(shown(both, given, second)) == "allowed"
    assert code(shown(both, given)) == "missing_discharge" and code(shown(both, given, given)) == "bad_discharge"


def test_a_discharge_that_nobody_asked_for_is_refused():
    """Case 52: a genuine discharge beside a token that asks for nothing, for something else, or that has its own already:
    refused."""
    cid = ticket(1)
    root, given, stranger = grown(TEXT, (caveat_key(1), cid)), answer(caveat_key(1), cid), answer(caveat_key(2), ticket(2))
    assert code(shown(root, given)) == "allowed" and code(TEXT) == "allowed"
    for hostile in (shown(TEXT, given), shown(TEXT, stranger), shown(root, stranger), shown(root, given, stranger)):
        assert code(hostile) == "bad_discharge"
    assert code(shown(root, stranger, given)) == "bad_discharge"


def test_a_discharge_of_one_s_own_claims_nothing():
    """Case 54: a holder asks himself, answers himself, and lets the answer say who he is: as a caveat that is known it
    restricts, as any other it prohibits; the grant says what the issuer said."""
    own = PrivateKey.generate()
    cid = ticket_of(sealed(caveat_key(1), {"user": "admin"}, bytes(own)), bytes(own), loc="user:admin")
    root = grown(TEXT, (caveat_key(1), cid))
    plain = verifier().authenticate(shown(root, answer(caveat_key(1), cid)))
    decision = plain.check(access(ASK))
    assert decision and "admin" not in f"{plain!r} {decision} {decision!r} {decision.as_dict()}"
    assert (plain.issued.subject, plain.actor.name, plain.task) == ("user:jane", "orchestrator", "task-123")
    for claim in ({"user": "admin"}, {"sub": "user:admin"}, {"agent": "admin"}, {"acme:user": "admin"}):
        assert code(shown(root, answer(caveat_key(1), cid, {**LEASE, **claim}))) == "unknown_caveat"
    for claim in (hop("admin"), {"task": "task-123"}, {"from": "orchestrator", "to": "admin"}, {"delegate_only": True}):
        assert code(shown(root, answer(caveat_key(1), cid, {**LEASE, **claim}))) == "unreadable_link"
    wide = answer(caveat_key(1), cid, {**LEASE, "operations": ["*"], "tables": ["*"], "where": {"user": {"in": ["admin"]}}})
    assert code(shown(root, wide), {"table": "hr", "operation": "select"}) == "table" and code(shown(root, wide)) == "attribute"


def test_a_bearer_token_can_be_used_again():
    """Case 66: a bearer token is a bearer token: a captured request works again, at its own server, until it expires."""
    one, ask = verifier(audience="sales-db"), access(ASK)
    shown = Token.parse(TEXT).attenuate(audience=["sales-db"], expires_at=NOW + 60).serialize()
    assert all(one.check(shown, ask) for _ in range(3))
    assert code(shown, audience="hr-db") == "wrong_audience" and code(shown, audience="sales-db", now=NOW + 60) == "expired"


def test_tags_are_compared_in_constant_time():
    """Cases 68 and K: `compare_digest` is used in the core, and no file of it compares a tag, signature, mac, key or digest by
    `==`, `!=` or `in`."""
    secret, used = {"tag", "signature", "mac", "digest", "root_tag", "computed", "expected_tag", "key_bytes", "secret"}, 0

    def name_of(node):
        return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""

    for path in sorted((TESTS.parent / "captoken").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            used += isinstance(node, (ast.Name, ast.Attribute)) and name_of(node) == "compare_digest"
            if isinstance(node, ast.Compare) and any(isinstance(op, (ast.Eq, ast.NotEq, ast.In, ast.NotIn)) for op in node.ops):
                names = {name_of(side).lstrip("_") for side in (node.left, *node.comparators)}
                assert not names & secret, f"{path.name}:{node.lineno}"
    assert used


def test_one_verifier_in_eight_threads_decides_as_alone():
    """Case 74: 8 threads that share one verifier decide 4,000 random checks as one thread does."""
    rng, one = random.Random(20260701), verifier(audience="sales-db", allow_unaddressed=True)
    work = [(random_token(rng), access(random_access(rng))) for _ in range(500)]
    alone = [one.check(token_text, ask).code for token_text, ask in work]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda _: [one.check(token_text, ask).code for token_text, ask in work], range(8)))
    assert all(codes == alone for codes in together) and len(set(alone)) > 8


class Counted(Caveat, frozen=True):
    """An embedder's caveat that counts how often it is asked."""

    key = "acme:counted"
    asked: ClassVar[list[int]] = []

    def prohibits(self, access, situation):
        Counted.asked.append(self.value)


class Answers(Caveat, frozen=True):
    """An embedder's caveat that answers as it is told to."""

    key = "acme:answers"

    def prohibits(self, access, situation):
        if self.value == "raise":
            raise RuntimeError("the checker is broken")
        if self.value == "recurse":
            return self.prohibits(access, situation)
        return {
            "none": None,
            "true": True,
            "false": False,
            "one": 1,
            "zero": 0,
            "minus": -1,
            "yes": "yes",
            "empty": "",
            "list": [],
            "type": Answers,
            "coroutine": (None for _ in ()),
        }[self.value]


OWN = {"ring": keyring(), "vocabulary": Vocabulary(Counted, Answers)}


@pytest.mark.parametrize(
    "answer",
    [
        "raise",
        "recurse",
        "true",
        "false",
        "one",
        "zero",
        "minus",
        "yes",
        "empty",
        "list",
        "type",
        "coroutine",
        "no such answer",
    ],
)
def test_a_checker_that_raises_or_answers_oddly_prohibits(answer):
    """Case 32: only None lets an access pass; whatever else an embedder's caveat returns or raises prohibits, in `check` and
    in a grant's."""
    one, ask = verifier(**OWN), access(ASK)
    assert one.check(text(SALES, {"acme:answers": "none"}), ask) and one.authenticate(
        text(SALES, {"acme:answers": "none"})
    ).check(ask)
    hostile = text(SALES, {"acme:answers": answer})
    assert not one.check(hostile, ask) and not one.authenticate(hostile).check(ask)
    assert code(hostile) == "unknown_caveat"


def test_nothing_of_a_forged_token_is_evaluated():
    """Case 63: a caveat with effects is not asked on a token whose signature, lineage or any other link does not hold; on a
    genuine one it is."""
    one, ask, own = verifier(**OWN), access(ASK), {"acme:counted": 1}
    Counted.asked.clear()
    for hostile in (
        text(SALES, own, key=OTHER_KEY),
        text(SALES, own, kid="k2"),
        text(SALES, own)[:-1],
        text(SALES, own, b"x"),
        text(own, {"new": 1}),
        text(own, hop("b", "c")),
        text(own, (b"x", bytes(72))),
    ):
        assert not one.check(hostile, ask)
    assert Counted.asked == []
    assert one.check(text(SALES, own), ask) and Counted.asked == [1]
