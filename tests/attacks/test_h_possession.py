"""Class H: a token that is bound to a key is worth nothing without the key, and a proof is worth one request.

Tokens, hand-overs and proofs are made by hand, in `tests/bound.py`. Every denial stands beside the unmodified request, which
is allowed. The counts reached are in the docstrings.
"""

import json
import random

import pytest
from nacl.signing import SigningKey

from captoken import Access, Denied, Token
from captoken.errors import DelegationError
from captoken.keys import HolderKey
from captoken.proof import Evidence
from captoken.stores.memory import MemoryReplayStore
from tests import edwards
from tests.bound import (
    AUDIENCE,
    CHILD,
    EU_AGENT,
    GRANDCHILD,
    KEYS,
    MALLORY,
    NONCE,
    ORCHESTRATOR,
    SALES_AGENT,
    TOKEN,
    bound,
    custody_message,
    hand_over,
    handed,
    holder,
    http,
    label,
    link_bytes,
    mcp,
    proof,
    proof_message,
    proof_text,
    public,
    server,
    sha256,
    signed,
    state,
    stated,
    tag_of,
    taken_apart,
    with_signature,
)
from tests.fixtures import prove, sent
from tests.reference import evaluator
from tests.reference.fixtures import ASK, KEY, NOW, SALES, access, append, assemble, hop, sections, short, text

DENIED_PROOF = {"bad_proof", "proof_missing"}


def said(token_text, text_of_proof, facts=ASK, **asked):
    """The code of a server that has seen no proof yet."""
    return server().check(sent(token_text, text_of_proof), access(facts), **asked).code


@pytest.mark.parametrize("token_text", KEYS, ids=["bound at mint", "handed on", "handed on twice"])
def test_control(token_text):
    """Each reference token, its proof made by hand, is allowed, and once."""
    one, made = server(), proof(token_text)
    assert [one.check(sent(token_text, made), access(ASK)).code for _ in range(3)] == ["allowed", "replayed", "replayed"]
    by_captoken = prove(
        token_text, holder(KEYS[token_text]), audience=AUDIENCE, request=access(ASK), clock=lambda: NOW, random=lambda _: NONCE
    )
    assert by_captoken == made


# ---- H2: one thing changed -----------------------------------------------------------------------------------------

WIDE = bound(first={"nbf": NOW})
FACTS = {
    "table": "sales",
    "operation": "select",
    "columns": ["region", "amount"],
    "tool": "search",
    "arguments": {"q": "x", "limit": 10, "deep": {"a": [1, 2], "b": None}, "on": True, "f": 1.5},
    "attributes": {"region": "eu", "n": 1},
}


def arguments(**changed):
    return {"arguments": {key: value for key, value in {**FACTS["arguments"], **changed}.items() if value is not ...}}


def attributes(**changed):
    return {"attributes": {key: value for key, value in {**FACTS["attributes"], **changed}.items() if value is not ...}}


# fmt: off
CHANGED_FACTS = {
    **{f"table {name!r}": {"table": name} for name in ("Sales", "sales2", "sale", "market.sales", "hr", "s\u0430les", "sales.eu", "SALES", "\uff53ales")},
    **{f"operation {name!r}": {"operation": name} for name in ("insert", "delete", "SELECT", "selec", "select2", "update")},
    **{f"columns {names}": {"columns": names} for names in (
        [], ["region"], ["amount"], ["region", "amount", "pay"], ["Region", "amount"], ["regionamount"], ["region,amount"], ["amoun", "tregion"])},
    "no columns stated": {"columns": None},
    **{f"tool {name!r}": {"tool": name} for name in ("Search", "search2", "searc", "files.search", "search.x")},
    **{f"q {value!r}": arguments(q=value) for value in ("y", "X", "", "x ", ["x"], {"x": 1}, None, True, 1, "x\0", "\u0445", ...)},
    **{f"limit {value!r}": arguments(limit=value) for value in (11, 9, -10, 10.0, "10", [10], None, 1e1 + 1e-9, 100, 0, True, ...)},
    **{f"deep {value!r}": arguments(deep=value) for value in (
        {"a": [2, 1], "b": None}, {"a": [1, 2]}, {"a": [1, 2], "b": False}, {"a": [1, 2, 3], "b": None}, {"a": [1], "b": None}, {},
        {"a": [1, 2], "b": None, "c": None}, {"a": [[1, 2]], "b": None}, {"b": [1, 2], "a": None}, '{"a":[1,2],"b":null}', [1, 2], ...)},
    **{f"on {value!r}": arguments(on=value) for value in (False, 1, "true", None, 1.0, ...)},
    **{f"f {value!r}": arguments(f=value) for value in (1, 2, 1.25, "1.5", 1.5000000000000002, ...)},
    "an argument more": arguments(more=1), "an argument more that says nothing": arguments(more=None),
    "an argument by another name": arguments(q=..., Q="x"), "arguments swapped": arguments(q=10, limit="x"), "no arguments": {"arguments": {}},
    **{f"region {value!r}": attributes(region=value) for value in ("us", "EU", "", None, ["eu"], True, 1, ...)},
    **{f"n {value!r}": attributes(n=value) for value in (2, 0, 1.0, True, "1", None, ...)},
    "an attribute more": attributes(more="x"), "no attributes": {"attributes": {}}, "an attribute as an argument": {**attributes(n=...), **arguments(n=1)},
    "an argument as an attribute": {**arguments(q=...), **attributes(q="x")},
    "no table": {"table": None, "operation": None, "columns": None}, "no tool": {"tool": None, "arguments": None},
}
# fmt: on


@pytest.mark.parametrize("name", CHANGED_FACTS)
def test_h2_a_proof_is_for_the_access_it_names(name):
    """H2: 103 accesses that differ in one fact from the one that was proved, each allowed with a proof of its own: `bad_proof`."""
    changed = {key: value for key, value in {**FACTS, **CHANGED_FACTS[name]}.items() if value is not None}
    made = proof(WIDE, ORCHESTRATOR, stated(FACTS))
    assert said(WIDE, made, FACTS) == "allowed" == said(WIDE, proof(WIDE, ORCHESTRATOR, stated(changed)), changed)
    assert said(WIDE, made, changed) == "bad_proof" == said(WIDE, proof(WIDE, ORCHESTRATOR, stated(changed)), FACTS)


HTTP = ("POST", "https://sales.example", "/orders?region=eu&limit=10", b'{"amount":5}')
# fmt: off
CHANGED_HTTP = [
    *[(method, *HTTP[1:]) for method in ("GET", "post", "PUT", "DELETE", "POST ", "", "OPTIONS", "POSTX", "HEAD")],
    *[(HTTP[0], origin, *HTTP[2:]) for origin in (
        "http://sales.example", "https://hr.example", "https://sales.example/", "https://SALES.example", "https://sales.example:443",
        "https://sales.example:8443", "https://user@sales.example", "sales.example", "", "https://sales.example.", "https://sales.example.attacker.example")],
    *[(*HTTP[:2], target, HTTP[3]) for target in (
        "/orders?region=us&limit=10", "/orders?limit=10&region=eu", "/orders?region=eu", "/orders", "/orders?region=eu&limit=100", "/Orders?region=eu&limit=10",
        "/orders/?region=eu&limit=10", "//orders?region=eu&limit=10", "/./orders?region=eu&limit=10", "/x/../orders?region=eu&limit=10",
        "/%6frders?region=eu&limit=10", "/orders?region=%65u&limit=10", "/orders?region=eu&limit=10&", "/orders?region=eu&limit=10#x",
        "/orders?region=eu&amp;limit=10", "/orders;x?region=eu&limit=10", "/orders?region=eu&limit=10&limit=10", "/orders?region=eu;limit=10",
        "/orders%3Fregion=eu&limit=10", "https://sales.example/orders?region=eu&limit=10", "/orders?REGION=eu&limit=10", "/orders?region=eu+&limit=10",
        "/orders?region=eu%20&limit=10", "orders?region=eu&limit=10", "")],
    *[(*HTTP[:3], body) for body in (
        b"", b'{"amount":50}', b'{"amount":5} ', b' {"amount":5}', b'{"amount": 5}', b'{"amount":5.0}', b'{"Amount":5}', b'{"amount":5}\n',
        b'{"amount":5,"amount":5}', b'{"amount":"5"}', b'\xef\xbb\xbf{"amount":5}', b'{"amount":5}\0', b'{"\\u0061mount":5}', sha256(HTTP[3]), b"amount=5")],
    ("POS", "Thttps://sales.example", *HTTP[2:]), (HTTP[0], "https://sales.example/orders", "?region=eu&limit=10", HTTP[3]),
    (*HTTP[:2], HTTP[2] + HTTP[3].decode(), b""), (HTTP[2], HTTP[1], HTTP[0], HTTP[3]),
]
MCP = ("tools/call", "search", b'{"limit":10,"q":"x"}')
CHANGED_MCP = [
    *[(method, *MCP[1:]) for method in ("tools/list", "Tools/call", "tools/call ", "tools", "", "prompts/get", "resources/read")],
    *[(MCP[0], name, MCP[2]) for name in ("Search", "search2", "files.search", "searc", "", "search ", "search\0", "s\u0435arch", "delete")],
    *[(*MCP[:2], given) for given in (
        b"{}", b"", b'{"limit":100,"q":"x"}', b'{"limit":10,"q":"y"}', b'{"q":"x","limit":10}', b'{"limit":10, "q":"x"}', b'{"limit":10.0,"q":"x"}',
        b'{"limit":"10","q":"x"}', b'{"limit":10,"q":"x","z":1}', b'{"limit":10}', b'{"limit":10,"q":"x"} ', b'[{"limit":10,"q":"x"}]', b"null")],
    ("tools/calls", "earch", MCP[2]), ("tools/call", 'search{"limit":10,', b'"q":"x"}'), ("search", "tools/call", MCP[2]),
]
# fmt: on


@pytest.mark.parametrize(
    ("digest", "honest", "changed"),
    [*((http, HTTP, changed) for changed in CHANGED_HTTP), *((mcp, MCP, changed) for changed in CHANGED_MCP)],
    ids=short,
)
def test_h2_a_proof_is_for_what_the_transport_carried(digest, honest, changed):
    """H2: 64 HTTP requests and 32 MCP calls that differ in one part from the one that was proved: `bad_proof`; nothing is
    normalised."""
    assert digest(*honest) != digest(*changed)
    made = proof(CHILD, request=digest(*honest))
    assert said(CHILD, made, request=digest(*honest)) == "allowed"
    assert said(CHILD, made, request=digest(*changed)) == "bad_proof"
    assert said(CHILD, made) == "bad_proof", "nor for the access alone"


def test_h2_one_transport_s_request_is_no_other_s():
    """H2: the same words as an HTTP request, an MCP call, an access, or nothing: six requests, and a proof for one of them."""
    words = (b"tools/call", b"search", b"{}")
    digests = [
        http("tools/call", "search", "{}"), mcp("tools/call", "search"), stated({"tool": "search"}), stated(None), sha256(b"".join(words)), bytes(32),
    ]  # fmt: skip
    for proved in digests:
        for carried in digests:
            assert said(CHILD, proof(CHILD, request=proved), request=carried) == (
                "allowed" if proved == carried else "bad_proof"
            )


def others():
    """Texts that one holder or another has, each near to the one that was proved."""
    identifier, bodies, tag = sections(CHILD)
    return {
        "the parent": TOKEN,
        "a sibling": append(TOKEN, signed(TOKEN, {**hand_over("sales-agent", SALES_AGENT), "n": "AAAAAAAAAAE"}, ORCHESTRATOR)),
        "a child": GRANDCHILD,
        "handed to another name": handed(TOKEN, ORCHESTRATOR, "eu-agent", SALES_AGENT),
        "narrowed": append(CHILD, {"tables": ["sales"]}),
        "narrowed by what says nothing new": append(CHILD, SALES),
        "narrowed twice": append(CHILD, {"exp": NOW + 60}, {"exp": NOW + 50}),
        "another token of the same words": handed(bound(jti=evaluator.base64text(b"another token id")), ORCHESTRATOR, "sales-agent", SALES_AGENT),
        "minted a second later": handed(bound(iat=NOW + 1), ORCHESTRATOR, "sales-agent", SALES_AGENT),
        "for another person": handed(bound(sub="user:joe"), ORCHESTRATOR, "sales-agent", SALES_AGENT),
        "for another task": handed(bound(task="task-124"), ORCHESTRATOR, "sales-agent", SALES_AGENT),
        "bound to the same key at mint": bound(key=SALES_AGENT),
        "wider, under the same key": bound(key=SALES_AGENT, first={"nbf": NOW}),
        "re-keyed to the same key": append(CHILD, signed(CHILD, {"key": public(SALES_AGENT)}, SALES_AGENT)),
        "of a former key": append(bound(key=MALLORY), signed(bound(key=MALLORY), hand_over("sales-agent", SALES_AGENT), MALLORY)),
        "its links on another chain": assemble(identifier, bodies, bytes(tag[:-1]) + bytes([tag[-1] ^ 1])),
    }  # fmt: skip


@pytest.mark.parametrize("name", others())
def test_h2_a_proof_is_for_one_token(name):
    """H2: sixteen other texts, most of them bound to the same key: a proof for one serves no other, in either direction."""
    other = others()[name]
    made = proof(CHILD)
    assert said(CHILD, made) == "allowed"
    key = EU_AGENT if other == GRANDCHILD else ORCHESTRATOR if other == TOKEN else SALES_AGENT
    expected = "bad_signature" if name == "its links on another chain" else "allowed"
    assert said(other, proof(other, key)) == expected
    assert said(other, made) in ("bad_proof", "bad_signature")
    assert said(CHILD, proof(other, SALES_AGENT)) == "bad_proof"


AUDIENCES = [
    "hr-db",
    "sales-db2",
    "sales",
    "Sales-db",
    "sales-d",
    "sales-db/",
    "mail-api",
    "x" * 128,
    "https://sales-db",
    "sales_db",
]


@pytest.mark.parametrize("name", AUDIENCES)
def test_h2_a_proof_is_for_one_server(name):
    """H2: ten other servers, each also of both names: a proof for one is refused at the other, though the token is for both."""
    both = text({**SALES, "aud": sorted([AUDIENCE, name]), "key": public(ORCHESTRATOR)})
    here, there = server(), server(audience=name)
    assert here.check(sent(both, proof(both, ORCHESTRATOR)), access(ASK)).code == "allowed"
    assert there.check(sent(both, proof(both, ORCHESTRATOR, audience=name)), access(ASK)).code == "allowed"
    assert there.check(sent(both, proof(both, ORCHESTRATOR, nonce=bytes(16))), access(ASK)).code == "bad_proof"
    assert here.check(sent(both, proof(both, ORCHESTRATOR, audience=name, nonce=bytes(16))), access(ASK)).code == "bad_proof"
    wide = server(audience=(AUDIENCE, name))
    assert wide.check(sent(CHILD, proof(CHILD, audience=name)), access(ASK)).code == "bad_proof", (
        "a name that the token does not have"
    )


@pytest.mark.parametrize("other", [ORCHESTRATOR, EU_AGENT, MALLORY, SigningKey(bytes(32)), SigningKey(KEY)], ids=range(5))
def test_h2_a_proof_is_by_one_key(other):
    """H2: the parent's key, a child's, a stranger's, a key of zeros, the root key as one: `bad_proof`."""
    assert said(CHILD, proof(CHILD, SALES_AGENT)) == "allowed"
    assert said(CHILD, proof(CHILD, other)) == "bad_proof"


def test_h2_every_bit_of_a_proof_counts():
    """H2: each of the 704 bits of a proof, and each of its 124 characters by three others: 1,076 changed proofs, 0 allowed."""
    made, one, ask = proof(CHILD), server(), access(ASK)
    data, tried = evaluator.unbase64(made[6:]), 0
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert one.check(sent(CHILD, "cap1p_" + evaluator.base64text(bytes(flipped))), ask).code == "bad_proof", bit
        tried += 1
    for at, was in enumerate(made):
        for letter in "Ab-".replace(was, "0"):
            is_spelled = at >= 6 and (at < 123 or letter in "AQgw")
            expected = "bad_proof" if is_spelled else "malformed"
            assert one.check(sent(CHILD, made[:at] + letter + made[at + 1 :]), ask).code == expected, (at, letter)
            tried += 1
    assert tried == 1076 and one.check(sent(CHILD, made), ask).code == "allowed"


@pytest.mark.parametrize("seconds", [-(10**9), -31, -30, -29, -5, -1, 1, 4, 5, 6, 60, 2**31])
def test_h2_its_time_cannot_be_changed(seconds):
    """H2: the time moved, the rest as it was; and the signature of one time under another: 24 proofs, 0 allowed."""
    at, nonce, signature = taken_apart(proof(CHILD))
    assert said(CHILD, proof_text(at, nonce, signature)) == "allowed"
    assert said(CHILD, proof_text(at + seconds, nonce, signature)) == "bad_proof"
    assert said(CHILD, proof_text(at, nonce, taken_apart(proof(CHILD, at=at + seconds))[2])) == "bad_proof"


@pytest.mark.parametrize("at", range(16))
def test_h2_its_nonce_cannot_be_changed(at):
    """H2: one byte of the nonce, while the proof is unused and when it is used up: 32 proofs, 0 allowed."""
    when, nonce, signature = taken_apart(proof(CHILD))
    other = nonce[:at] + bytes([nonce[at] ^ 0x55]) + nonce[at + 1 :]
    one = server()
    assert one.check(sent(CHILD, proof_text(when, other, signature)), access(ASK)).code == "bad_proof"
    assert one.check(sent(CHILD, proof(CHILD)), access(ASK)).code == "allowed"
    assert one.check(sent(CHILD, proof_text(when, other, signature)), access(ASK)).code == "bad_proof"


# ---- H3: time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-(10**9), -3600, -60, -32, -31, -30, -29, -1, 0, 1, 4, 5, 6, 7, 60, 3600, 10**9])
@pytest.mark.parametrize("part", [0, 0.5, 0.999])
def test_h3_the_window_is_thirty_seconds_back_and_five_ahead(offset, part):
    """H3: seventeen times by three fractions of the server's second, 51 proofs: allowed from 30 behind to 5 ahead."""
    expected = "allowed" if -30 <= offset <= 5 else "bad_proof"
    assert server(lambda: NOW + part).check(sent(CHILD, proof(CHILD, at=NOW + offset)), access(ASK)).code == expected


@pytest.mark.parametrize("at", [0, 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1])
def test_h3_times_that_no_clock_has_are_refused(at):
    """H3: eight times at the edges of the field, now and on a server whose clock is there: refused, or fresh; nothing raises."""
    assert said(CHILD, proof(CHILD, at=at)) == "bad_proof"
    there = server(max(at - 3, 0), replays=MemoryReplayStore(floor=-1))
    timeless = text({"aud": [AUDIENCE], "key": public(ORCHESTRATOR), "nbf": 0}, iat=0)
    decision = there.check(sent(timeless, proof(timeless, ORCHESTRATOR, at=at)), access(ASK))
    assert decision.code == "allowed" and "made at" not in str(decision)


def test_h3_a_clock_that_goes_forth_and_back_takes_a_proof_once():
    """H3: a proof at each of 72 seconds while the clock goes an hour forth and back: allowed in its window and once, and
    nothing that the server has gone past comes back."""
    moving = [NOW]
    one, ask = server(lambda: moving[0]), access(ASK)
    proofs = {at: proof(CHILD, at=NOW + at, nonce=bytes([at + 40]) * 16) for at in range(-36, 36)}
    first = {at: one.check(sent(CHILD, made), ask).code for at, made in proofs.items()}
    assert {at for at, code in first.items() if code == "allowed"} == set(range(-30, 6))
    moving[0] = NOW + 3600
    assert {one.check(sent(CHILD, made), ask).code for made in proofs.values()} == {"bad_proof"}
    assert one.check(sent(CHILD, proof(CHILD, at=NOW + 3600, nonce=bytes(16))), ask).code in ("allowed", "expired")
    for back in (NOW, NOW - 10, NOW + 20):
        moving[0] = back
        again = {one.check(sent(CHILD, made), ask).code for made in proofs.values()}
        assert again <= {"replayed", "bad_proof"} and "replayed" in again
    assert one.check(sent(CHILD, proof(CHILD, at=NOW + 20, nonce=bytes(16))), ask).code == "replayed", (
        "fresh, and below the floor"
    )


def test_h3_after_a_start_nothing_from_before_is_taken():
    """H3: a memory that is new does not know what an earlier one took: proofs of up to five seconds after the start are refused,
    one by one, and later ones are not."""
    moving = [NOW + 0.5]
    one = server(lambda: moving[0], replays=MemoryReplayStore(clock=lambda: moving[0]))
    for at in range(-30, 6):
        assert one.check(sent(CHILD, proof(CHILD, at=NOW + at)), access(ASK)).code == "replayed"
    moving[0] += 1
    assert one.check(sent(CHILD, proof(CHILD, at=NOW + 6)), access(ASK)).code == "allowed"


# ---- H4: nonces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 8, 15, 17, 24, 32, 64, 1000, 10**6])
def test_h4_a_nonce_of_another_length_is_no_proof(length):
    """H4: ten lengths, properly signed; also with the room taken from the other fields: refused by the form alone."""
    nonce = bytes(length)
    message = label("proof") + state(tag_of(CHILD)) + sha256(AUDIENCE.encode()) + NOW.to_bytes(8, "big") + nonce + stated(ASK)
    signature = SALES_AGENT.sign(message).signature
    assert said(CHILD, proof_text(NOW, nonce, signature)) == "malformed"
    assert said(CHILD, proof_text(NOW, (nonce + bytes(88))[: 88 - 8 - 64], signature)) == "bad_proof"


# fmt: off
NO_PROOFS = {
    "empty": "", "a space": " ", "the prefix": "cap1p_", "none": None, "bytes": b"cap1p_", "a number": 5, "a list": [], "true": True,
    "a token": CHILD, "a bearer token": text(SALES), "null": "null", "a JWT": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "a header": "DPoP x",
}
FORMS = {
    "no prefix": lambda made: made[6:], "another prefix": lambda made: "cap1_" + made[6:], "a discharge's prefix": lambda made: "cap1d_" + made[6:],
    "upper case": lambda made: "CAP1P_" + made[6:], "the prefix twice": lambda made: "cap1p_" + made, "a space before": lambda made: " " + made,
    "a space after": lambda made: made + " ", "a line feed after": lambda made: made + "\n", "a carriage return": lambda made: made + "\r\n",
    "padded": lambda made: made + "==", "one character less": lambda made: made[:-1], "two less": lambda made: made[:-2], "one more": lambda made: made + "A",
    "four more": lambda made: made + "AAAA", "cut in the middle": lambda made: made[:60], "twice": lambda made: made + made, "listed": lambda made: made + "," + made,
    "bits to spare": lambda made: made[:-1] + chr(ord(made[-1]) + 1), "the other alphabet": lambda made: made.replace("_", "/").replace("-", "+"),
    "percent": lambda made: made[:50] + "%41" + made[53:], "a NUL": lambda made: made[:50] + "\0" + made[51:], "beyond ASCII": lambda made: made[:50] + "\u0410" + made[51:],
    "a surrogate": lambda made: made[:50] + "\ud800" + made[51:], "full width": lambda made: made[:50] + "\uff21" + made[51:], "hex": lambda made: "cap1p_" + evaluator.unbase64(made[6:]).hex(),
    "bytes": lambda made: made.encode(), "a bytearray": lambda made: bytearray(made.encode()), "a list": lambda made: [made], "a million more": lambda made: made + "A" * 10**6,
    "a string of another class": lambda made: type("Text", (str,), {})(made), "a full stop after": lambda made: made + ".", "a BOM": lambda made: "\ufeff" + made,
}
# fmt: on


@pytest.mark.parametrize("name", NO_PROOFS)
def test_h5_what_is_no_proof_is_none(name):
    """H5: thirteen things in place of a proof: denied, and nothing raises."""
    assert said(CHILD, proof(CHILD)) == "allowed"
    assert said(CHILD, NO_PROOFS[name]) == ("proof_missing" if NO_PROOFS[name] is None else "malformed")


@pytest.mark.parametrize("name", FORMS)
def test_h5_a_proof_has_one_form(name):
    """H5, B4: 32 other spellings of a good proof, with `/` and `+` or all of them: refused, and the proof itself is still good."""
    one = server()
    for number in range(20):  # nonces, so that every letter of the alphabet occurs
        made = proof(CHILD, nonce=bytes([number]) * 16)
        other = FORMS[name](made)
        if other != made:
            assert one.check(sent(CHILD, other), access(ASK)).code == "malformed"
        assert one.check(sent(CHILD, made), access(ASK)).code == "allowed"


def test_h4_a_nonce_is_used_up_for_its_key_whatever_it_was_used_with():
    """H4: one nonce of one key, for another request, server name, second, or token: `replayed`; of another key it is another."""
    one, ask = server(audience=(AUDIENCE, "hr-db")), access(ASK)
    both = text({**SALES, "aud": [AUDIENCE, "hr-db"], "key": public(SALES_AGENT)})
    assert one.check(sent(both, proof(both, SALES_AGENT)), ask).code == "allowed"
    for again in (
        proof(both, SALES_AGENT), proof(both, SALES_AGENT, at=NOW - 30), proof(both, SALES_AGENT, at=NOW + 5), proof(both, SALES_AGENT, audience="hr-db"),
    ):  # fmt: skip
        assert one.check(sent(both, again), ask).code == "replayed"
    assert one.check(sent(both, proof(both, SALES_AGENT, http(*HTTP))), ask, request=http(*HTTP)).code == "replayed"
    for other in (
        CHILD,
        append(both, {"exp": NOW + 60}),
        append(CHILD, signed(CHILD, {"key": public(SALES_AGENT)}, SALES_AGENT)),
    ):
        assert one.check(sent(other, proof(other, SALES_AGENT)), ask).code == "replayed"
    for other, key in ((TOKEN, ORCHESTRATOR), (GRANDCHILD, EU_AGENT), (bound(key=MALLORY), MALLORY)):
        assert one.check(sent(other, proof(other, key)), ask).code == "allowed"


def test_h4_a_full_store_fails_closed():
    """H4: fifty proofs of the holder's own fill a store of forty; what was used stays used, and nobody else is let in either."""
    one, ask = server(replays=MemoryReplayStore(floor=0, limit=40)), access(ASK)
    nonces = [bytes([number]) * 16 for number in range(50)]
    codes = [one.check(sent(CHILD, proof(CHILD, nonce=nonce)), ask).code for nonce in nonces]
    assert codes == ["allowed"] * 40 + ["store_unavailable"] * 10
    assert [one.check(sent(CHILD, proof(CHILD, nonce=nonce)), ask).code for nonce in nonces] == ["replayed"] * 40 + [
        "store_unavailable"
    ] * 10
    assert one.check(sent(GRANDCHILD, proof(GRANDCHILD)), ask).code == "store_unavailable"


# ---- H5: keys ------------------------------------------------------------------------------------------------------


def test_h5_a_proof_on_a_bearer_token_is_refused():
    """H5: whoever made it; a client that thinks its token bound is told that it is not."""
    bearer = text({**SALES, "aud": [AUDIENCE]})
    assert said(bearer, None) == "allowed"
    for key in (ORCHESTRATOR, MALLORY):
        assert said(bearer, proof(bearer, key)) == "bad_proof"
    assert said(bearer, "") == said(bearer, "cap1p_") == "malformed"


TWO_KEYS = {
    "unsigned": (lambda: append(TOKEN, {"key": public(MALLORY)}), "bad_proof"),
    "unsigned, the same key": (lambda: append(TOKEN, {"key": public(ORCHESTRATOR)}), "bad_proof"),
    "signed by the new key": (lambda: append(TOKEN, signed(TOKEN, {"key": public(MALLORY)}, MALLORY)), "bad_proof"),
    "signed by the old key": (lambda: append(TOKEN, signed(TOKEN, {"key": public(MALLORY)}, ORCHESTRATOR)), "allowed"),
    "signed by the old key, then unsigned": (
        lambda: append(
            append(TOKEN, signed(TOKEN, {"key": public(MALLORY)}, ORCHESTRATOR)), {"key": public(MALLORY)}), "bad_proof"),
    "unsigned, then signed by the new key": (
        lambda: append(
            append(TOKEN, {"key": public(MALLORY)}), signed(append(TOKEN, {"key": public(MALLORY)}), {"key": public(MALLORY)}, MALLORY)), "bad_proof"),
    "in one link twice": (lambda: append(TOKEN, b'{"key":"%b","key":"%b"}' % (public(ORCHESTRATOR).encode(), public(MALLORY).encode())), "unreadable_link"),
    "two in a list": (lambda: append(TOKEN, {"key": [public(ORCHESTRATOR), public(MALLORY)]}), "unreadable_link"),
}  # fmt: skip


@pytest.mark.parametrize("name", TWO_KEYS)
def test_h5_a_second_key_counts_if_the_first_has_signed_for_it(name):
    """H5: eight ways to name a second key: one of them, signed by the first, makes it the key; the others make the token
    worthless, to the old holder too."""
    made, expected = TWO_KEYS[name][0](), TWO_KEYS[name][1]
    assert said(made, proof(made, MALLORY)) == expected
    assert said(made, proof(made, ORCHESTRATOR)) == ("bad_proof" if expected == "allowed" else expected)


# fmt: off
BAD_KEYS = {
    "empty": "", "42 characters": public(MALLORY)[:-1], "44 characters": public(MALLORY) + "A", "padded": public(MALLORY) + "=",
    "bits to spare": public(MALLORY)[:-1] + chr(ord(public(MALLORY)[-1]) + 1), "the other alphabet": "+" * 43, "hex": bytes(MALLORY.verify_key).hex(),
    "a number": 5, "true": True, "a list": [public(MALLORY)], "an object": {"kty": "OKP"}, "a JWK": '{"kty":"OKP","crv":"Ed25519"}',
    "PEM": "-----BEGIN PUBLIC KEY-----", "SSH": "ssh-ed25519 AAAA", "a DID": "did:key:z6Mk", "64 bytes": evaluator.base64text(bytes(range(64))),
    **{f"of low order {encoded.hex()[:4]}{encoded.hex()[-2:]}": evaluator.base64text(encoded) for encoded in edwards.LOW_ORDER},
    **{f"not reduced {encoded.hex()[:4]}{encoded.hex()[-2:]}": evaluator.base64text(encoded) for encoded in edwards.not_canonical()},
}
# fmt: on


@pytest.mark.parametrize("name", BAD_KEYS)
def test_h6_a_key_that_is_none_makes_the_link_unreadable(name):
    """H5, H6, F4: 68 values that are no key to trust, 14 of low order and 38 not canonical among them: at mint and at a hop."""
    for made in (
        text({**SALES, "aud": [AUDIENCE], "key": BAD_KEYS[name]}),
        append(text({**SALES, "aud": [AUDIENCE]}), {"key": BAD_KEYS[name]}),
    ):
        for given in (
            None,
            proof(made, MALLORY),
            proof_text(NOW, NONCE, bytes([1]) + bytes(63)),
            proof_text(NOW, NONCE, bytes(64)),
        ):
            assert said(made, given) == "unreadable_link"
    signed_over = append(TOKEN, signed(TOKEN, {"key": BAD_KEYS[name]}, ORCHESTRATOR))
    assert said(signed_over, proof(signed_over, MALLORY)) == "unreadable_link"


def test_h6_a_key_that_is_no_point_signs_nothing():
    """H6: keys off the curve are readable, and no proof by them is one."""
    for y in [y for y in range(2, 60) if edwards.on_curve(y) is None]:
        made = text({**SALES, "aud": [AUDIENCE], "key": evaluator.base64text(y.to_bytes(32, "little"))})
        for given in (proof(made, MALLORY), proof_text(NOW, NONCE, bytes([1]) + bytes(63)), proof_text(NOW, NONCE, bytes(64))):
            assert said(made, given) == "bad_proof"


# ---- H6: signatures that a lenient reader takes --------------------------------------------------------------------


@pytest.mark.parametrize("times", range(1, 16))
def test_h6_a_scalar_has_one_spelling(times):
    """H6: S + L to S + 15 L, in a proof and in a hand-over, five of each: 150 signatures of the same value, 0 accepted."""
    for number in range(5):
        at, nonce, signature = taken_apart(proof(CHILD, nonce=bytes([number]) * 16))
        scalar = int.from_bytes(signature[32:], "little") + times * edwards.L
        assert scalar < 2**256
        assert said(CHILD, proof_text(at, nonce, signature)) == "allowed"
        assert said(CHILD, proof_text(at, nonce, signature[:32] + scalar.to_bytes(32, "little"))) == "bad_proof"
        link = hand_over("sales-agent", SALES_AGENT, exp=NOW + 60 + number)
        genuine = ORCHESTRATOR.sign(custody_message(TOKEN, link)).signature
        scalar = int.from_bytes(genuine[32:], "little") + times * edwards.L
        other = append(TOKEN, with_signature(link, genuine[:32] + scalar.to_bytes(32, "little")))
        assert said(other, proof(other, SALES_AGENT)) == "bad_proof"
        assert (
            said(append(TOKEN, with_signature(link, genuine)), proof(append(TOKEN, with_signature(link, genuine)), SALES_AGENT))
            == "allowed"
        )


@pytest.mark.parametrize("encoded", [*edwards.LOW_ORDER, *edwards.not_canonical()], ids=bytes.hex)
def test_h6_small_and_unreduced_points_are_no_r(encoded):
    """H6: R of low order or not canonical, with the scalar that satisfies the equation, by somebody who has the key: 104
    signatures, 0 accepted."""
    secret, point = edwards.scalar_of(bytes(SALES_AGENT)), bytes(SALES_AGENT.verify_key)
    message = proof_message(tag_of(CHILD), AUDIENCE, NOW, NONCE, stated(ASK))
    for scalar in (edwards.challenge(encoded, point, message) * secret % edwards.L, 0):
        assert said(CHILD, proof_text(NOW, NONCE, encoded + scalar.to_bytes(32, "little"))) == "bad_proof"
    body = link_bytes(hand_over("eu-agent", EU_AGENT, "sales-agent"))
    scalar = edwards.challenge(encoded, point, label("custody") + state(tag_of(CHILD)) + sha256(body)) * secret % edwards.L
    assert not Evidence(point, state(tag_of(CHILD)), body, encoded + scalar.to_bytes(32, "little")).holds()


@pytest.mark.parametrize("key", edwards.LOW_ORDER, ids=bytes.hex)
def test_h6_a_small_key_vouches_for_nothing(key):
    """H6: fourteen small keys by fourteen small R, with S = 0, the signature that a lenient reader takes for any message: 196
    pieces of evidence, none holds."""
    for encoded in edwards.LOW_ORDER:
        assert not Evidence(key, bytes(32), b"{}", encoded + bytes(32)).holds()


def test_h6_a_key_of_mixed_order_has_one_answer():
    """H6: the holder adds a small point to its own key: each signature has one answer, here and in every process, and none that
    needs the cofactor is accepted."""
    secret, own = edwards.scalar_of(bytes(MALLORY)), edwards.times(edwards.scalar_of(bytes(MALLORY)), edwards.BASE)
    rng, seen = random.Random(20260705), set()
    for small in edwards.TORSION[1:]:
        mixed = edwards.encode(edwards.plus(own, small))
        made = text({**SALES, "aud": [AUDIENCE], "key": evaluator.base64text(mixed)})
        for _ in range(6):
            r, nonce = rng.randrange(1, edwards.L), rng.randbytes(16)
            encoded = edwards.encode(edwards.times(r, edwards.BASE))
            message = proof_message(tag_of(made), AUDIENCE, NOW, nonce, stated(ASK))
            k = edwards.challenge(encoded, mixed, message)
            signature = encoded + ((r + k * secret) % edwards.L).to_bytes(32, "little")
            without_cofactor = edwards.times(k, small) == edwards.IDENTITY
            answers = {said(made, proof_text(NOW, nonce, signature)) for _ in range(2)}
            assert answers == {"allowed" if without_cofactor else "bad_proof"}
            seen |= answers
    assert seen == {"allowed", "bad_proof"}


# ---- H7: the token is stolen, the key is not -----------------------------------------------------------------------


def thefts():
    """What a thief of CHILD's text can make of it without its key: (text, proof), by what it does."""
    captured = proof(CHILD, request=stated({"table": "market.eu", "operation": "select"}), nonce=bytes(16))
    identifier, bodies, tag = sections(CHILD)
    old = bodies[1]
    own = {"key": public(MALLORY)}
    to = hand_over("mallory", MALLORY, "sales-agent")
    _, _, other_signature = taken_apart(captured)
    genuine = evaluator.unbase64(old[-86:].decode())
    cases = {
        "no proof": (CHILD, None),
        "a proof of its own": (CHILD, proof(CHILD, MALLORY)),
        "a captured proof": (CHILD, captured),
        "a captured proof, narrowed": (append(CHILD, {"exp": NOW + 60}), captured),
        "narrowed, its own proof": (append(CHILD, {"exp": NOW + 60}), proof(append(CHILD, {"exp": NOW + 60}), MALLORY)),
        "a key bound on": (append(CHILD, own), "by mallory"),
        "a key bound on, signed by itself": (append(CHILD, signed(CHILD, own, MALLORY)), "by mallory"),
        "a key bound on, with an old signature": (append(CHILD, with_signature(own, genuine)), "by mallory"),
        "a key bound on, with a proof's signature": (append(CHILD, with_signature(own, other_signature)), "by mallory"),
        "a key bound on, signed by zeros": (append(CHILD, with_signature(own, bytes(64))), "by mallory"),
        "handed to itself, unsigned": (append(CHILD, to), "by mallory"),
        "handed to itself, signed by itself": (append(CHILD, signed(CHILD, to, MALLORY)), "by mallory"),
        "handed to itself, with an old signature": (append(CHILD, with_signature(to, genuine)), "by mallory"),
        "handed to itself, without a key": (append(CHILD, hop("mallory", "sales-agent")), "by mallory"),
        "handed to itself, without a key, no proof": (append(CHILD, hop("mallory", "sales-agent")), None),
        "the hand-over once more": (append(CHILD, old), "by mallory"),
        "the hand-over taken off": (assemble(identifier, bodies[:1], tag), "by mallory"),
        "the key taken off": (
            assemble(identifier, [evaluator.canonical({**SALES, "aud": [AUDIENCE]}).encode(), bodies[1]], tag),
            None,
        ),
        "the hand-over in the thief's favour": (
            assemble(identifier, [bodies[0], old.replace(public(SALES_AGENT).encode(), public(MALLORY).encode())], tag),
            "by mallory",
        ),
        "the hand-over unsigned": (assemble(identifier, [bodies[0], old[:-87]], tag), None),
        "the root's own text, if that is stolen too": (TOKEN, "by mallory"),
        "the root handed to the thief": (
            append(TOKEN, with_signature(hand_over("sales-agent", MALLORY), genuine)),
            "by mallory",
        ),
        "a signature without a key": (append(CHILD, with_signature({"exp": NOW + 60}, genuine)), None),
        "a chain of two by the thief": (append(append(CHILD, own), signed(append(CHILD, own), to, MALLORY)), "by mallory"),
        "a third party instead": (append(CHILD, {"exp": NOW + 60}).replace("cap1_", "cap1u_"), None),
    }
    return {name: (made, proof(made, MALLORY) if given == "by mallory" else given) for name, (made, given) in cases.items()}


@pytest.mark.parametrize("name", thefts())
@pytest.mark.parametrize("facts", [ASK, None], ids=["with an access", "shown"])
def test_h7_a_stolen_token_is_worth_nothing(name, facts):
    """H7: 25 things to do with a stolen text, with an access and without: 50, 0 allowed; its holder still uses it."""
    made, given = thefts()[name]
    one = server()
    if facts is None:
        with pytest.raises(Denied):
            one.authenticate(sent(made, given))
        assert one.authenticate(sent(CHILD, proof(CHILD, request=stated(None))))
    else:
        assert not one.check(sent(made, given), access(facts)) and not one.explain(sent(made, given), access(facts))
        assert one.check(sent(CHILD, proof(CHILD, nonce=b"o" * 16)), access(facts))


def test_h7_a_thief_can_narrow_and_that_is_all():
    """H7: what a thief appends can make the text worth less to whoever it shows it to; the holder's own text is as it was."""
    narrowed = Token.parse(CHILD).attenuate(tables=["sales"], expires_in=10)
    assert said(narrowed.serialize(), proof(narrowed.serialize(), SALES_AGENT)) == "allowed"
    with pytest.raises(DelegationError):
        Token.parse(CHILD).delegate(to="mallory", key=public(MALLORY), signer=holder(MALLORY))
    with pytest.raises(DelegationError):
        Token.parse(CHILD).attenuate(key=public(MALLORY))


# ---- custody -------------------------------------------------------------------------------------------------------


def evidence_of(token_text, key=None):
    """What a server keeps of an allowed request."""
    return server().authorize(sent(token_text, proof(token_text, key)), access(ASK)).evidence


def frames():
    """What a child that is compromised, with its key, its text and all evidence, can lay before a judge: (claimed, evidence).

    It wants it to look as if its parent, a sibling or its own child had handed something on.
    """
    [first] = evidence_of(CHILD)
    sibling_text = handed(TOKEN, ORCHESTRATOR, "eu-agent", EU_AGENT)
    [sibling] = evidence_of(sibling_text, EU_AGENT)
    wide = link_bytes(hand_over("mallory", MALLORY, "orchestrator", tables=["hr"]))
    parent, child, own = first.key, bytes(SALES_AGENT.verify_key), bytes(EU_AGENT.verify_key)
    mine = SALES_AGENT.sign(label("custody") + first.state + sha256(wide)).signature
    yield "the parent, in the child's hand", Evidence(parent, first.state, wide, mine)
    yield "the sibling, in the child's hand", Evidence(own, first.state, wide, mine)
    yield "the parent's signature under another link", Evidence(parent, first.state, wide, first.signature)
    yield "the sibling's link under this signature", Evidence(parent, sibling.state, sibling.body, first.signature)
    yield "this link under the sibling's signature", Evidence(parent, first.state, first.body, sibling.signature)
    yield (
        "the parent's hand-over in another chain",
        Evidence(parent, state(tag_of(bound(jti="B" * 21 + "A"))), first.body, first.signature),
    )
    yield "the parent's hand-over further down", Evidence(parent, state(tag_of(CHILD)), first.body, first.signature)
    yield "the parent's hand-over by the child", Evidence(child, first.state, first.body, first.signature)
    yield "the parent's hand-over by the sibling", Evidence(own, first.state, first.body, first.signature)
    yield "the body without its caveats", Evidence(parent, first.state, first.body.replace(b'"n"', b'"m"'), first.signature)
    yield (
        "the body with the signature in it",
        Evidence(parent, first.state, first.body + b"." + evaluator.base64text(first.signature).encode(), first.signature),
    )
    yield (
        "the key in the body swapped",
        Evidence(
            parent, first.state, first.body.replace(public(SALES_AGENT).encode(), public(MALLORY).encode()), first.signature
        ),
    )
    yield "a proof by the parent", Evidence(parent, state(tag_of(TOKEN)), first.body, taken_apart(proof(TOKEN))[2])
    yield (
        "a proof by the parent, cut to measure",
        Evidence(
            parent, proof_message(tag_of(TOKEN), AUDIENCE, NOW, NONCE, stated(ASK))[18:-32], b"", taken_apart(proof(TOKEN))[2]
        ),
    )
    yield "half a state, half a body", Evidence(parent, first.state[:16], first.state[16:] + first.body, first.signature)
    yield "nothing", Evidence(parent, b"", b"", first.signature)
    yield "under a stranger's key", Evidence(bytes(MALLORY.verify_key), first.state, first.body, first.signature)
    yield "under a key of zeros", Evidence(bytes(32), first.state, first.body, first.signature)


@pytest.mark.parametrize("claim", list(frames()), ids=lambda claim: claim[0])
def test_custody_a_child_cannot_frame_anyone(claim):
    """A compromised child frames neither its parent nor a sibling: 18 claims, and no evidence holds; the true one does."""
    assert evidence_of(CHILD)[0].holds() and not claim[1].holds()


def test_custody_a_child_can_frame_only_itself():
    """What it signs with its own key is evidence against itself, also for a chain that never was."""
    body = link_bytes(hand_over("mallory", MALLORY, "sales-agent"))
    made_up = bytes(range(32))
    evidence = Evidence(
        bytes(SALES_AGENT.verify_key), made_up, body, SALES_AGENT.sign(label("custody") + made_up + sha256(body)).signature
    )
    assert evidence.holds() and evidence.key == bytes(SALES_AGENT.verify_key)


MOVED = {
    "to a sibling chain": lambda link: append(bound(iat=NOW - 1), link),
    "behind a narrowing": lambda link: append(TOKEN, {"exp": NOW + 60}, link),
    "behind an empty-handed one": lambda link: append(TOKEN, SALES, link),
    "to another person's token": lambda link: append(bound(sub="user:joe"), link),
}


@pytest.mark.parametrize("name", MOVED)
def test_custody_a_signed_link_holds_where_it_was_signed_and_nowhere_else(name):
    """A hand-over is lifted to four other chains of the same key: allowed in its own place, `bad_proof` in the others."""
    link = signed(TOKEN, hand_over("sales-agent", SALES_AGENT), ORCHESTRATOR)
    here, there = append(TOKEN, link), MOVED[name](link)
    assert said(here, proof(here, SALES_AGENT)) == "allowed"
    decision = server().check(sent(there, proof(there, SALES_AGENT)), access(ASK))
    assert decision.code == "bad_proof" and "sales-agent (vouched)" in str(decision)


# fmt: off
SIGNATURES = {
    "none": (lambda body, good: body, "bad_proof"), "zeros": (lambda body, good: with_signature(body, bytes(64)), "bad_proof"),
    "another's": (lambda body, good: with_signature(body, MALLORY.sign(custody_message(TOKEN, body)).signature), "bad_proof"),
    "of the body alone": (lambda body, good: with_signature(body, ORCHESTRATOR.sign(body).signature), "bad_proof"),
    "of the body, not its hash": (lambda body, good: with_signature(body, ORCHESTRATOR.sign(label("custody") + state(tag_of(TOKEN)) + body).signature), "bad_proof"),
    "without a label": (lambda body, good: with_signature(body, ORCHESTRATOR.sign(state(tag_of(TOKEN)) + sha256(body)).signature), "bad_proof"),
    "under the proof's label": (lambda body, good: with_signature(body, ORCHESTRATOR.sign(label("proof") + state(tag_of(TOKEN)) + sha256(body)).signature), "bad_proof"),
    "over the tag": (lambda body, good: with_signature(body, ORCHESTRATOR.sign(label("custody") + tag_of(TOKEN) + sha256(body)).signature), "bad_proof"),
    "over the state after it": (lambda body, good: with_signature(body, ORCHESTRATOR.sign(label("custody") + state(tag_of(append(TOKEN, body))) + sha256(body)).signature), "bad_proof"),
    "one bit off": (lambda body, good: with_signature(body, good[:-1] + bytes([good[-1] ^ 1])), "bad_proof"),
    "63 bytes": (lambda body, good: with_signature(body, good[:-1]), "unreadable_link"), "65 bytes": (lambda body, good: with_signature(body, good + b"x"), "unreadable_link"),
    "twice": (lambda body, good: with_signature(with_signature(body, good), good), "unreadable_link"),
    "padded": (lambda body, good: with_signature(body, good) + b"==", "unreadable_link"), "bits to spare": (lambda body, good: with_signature(body, good)[:-1] + b"B", "unreadable_link"),
    "no full stop": (lambda body, good: with_signature(body, good).replace(b"}.", b"}"), "unreadable_link"), "a comma": (lambda body, good: with_signature(body, good).replace(b"}.", b"},"), "unreadable_link"),
    "a space": (lambda body, good: with_signature(body, good).replace(b"}.", b"} ."), "unreadable_link"), "a line feed after": (lambda body, good: with_signature(body, good) + b"\n", "unreadable_link"),
    "in front": (lambda body, good: evaluator.base64text(good).encode() + b"." + body, "unreadable_link"), "hex": (lambda body, good: body + b"." + good.hex().encode(), "unreadable_link"),
    "beyond ASCII": (lambda body, good: with_signature(body, good)[:-1] + b"\xe9", "unreadable_link"), "an empty one": (lambda body, good: body + b".", "unreadable_link"),
    "alone": (lambda body, good: b"." + evaluator.base64text(good).encode(), "unreadable_link"), "as a key of the link": (lambda body, good: body[:-1] + b',"zig":"x"}', "unknown_caveat"),
}
# fmt: on


@pytest.mark.parametrize("name", SIGNATURES)
def test_custody_a_signature_has_one_form_and_one_meaning(name):
    """25 hand-overs that are not signed, or not so: unreadable, or `bad_proof`, with a proof by the new key and by the old."""
    change, expected = SIGNATURES[name]
    body = link_bytes(hand_over("sales-agent", SALES_AGENT))
    good = ORCHESTRATOR.sign(custody_message(TOKEN, body)).signature
    whole = append(TOKEN, with_signature(body, good))
    assert said(whole, proof(whole, SALES_AGENT)) == "allowed"
    made = append(TOKEN, change(body, good))
    for key in (SALES_AGENT, ORCHESTRATOR):
        assert said(made, proof(made, key)) == expected


UNBOUND = text({**SALES, "aud": [AUDIENCE]})
PLACES = {
    "a signature on the first binding": (
        lambda: append(UNBOUND, signed(UNBOUND, {"key": public(MALLORY)}, MALLORY)),
        "unreadable_link",
    ),
    "a signature on an unbound hand-over": (lambda: append(UNBOUND, signed(UNBOUND, hop("b"), MALLORY)), "unreadable_link"),
    "a signature on an unbound narrowing": (
        lambda: append(UNBOUND, signed(UNBOUND, {"exp": NOW + 60}, MALLORY)),
        "unreadable_link",
    ),
    "a signature on a bound narrowing": (
        lambda: append(TOKEN, signed(TOKEN, {"exp": NOW + 60}, ORCHESTRATOR)),
        "unreadable_link",
    ),
    "a signature on a bound hand-over without a key": (
        lambda: append(TOKEN, signed(TOKEN, hop("b"), ORCHESTRATOR)),
        "unreadable_link",
    ),
    "a signature on link 0": (
        lambda: text(with_signature({**SALES, "aud": [AUDIENCE], "key": public(MALLORY)}, bytes(64))),
        "unreadable_link",
    ),
    "a hand-over without a key": (lambda: append(TOKEN, hop("b")), "broken_delegation"),
    "a hand-over without a key, further down": (
        lambda: append(CHILD, {"exp": NOW + 60}, hop("b", "sales-agent")),
        "broken_delegation",
    ),
    "a hand-over back": (
        lambda: append(CHILD, signed(CHILD, hand_over("orchestrator", ORCHESTRATOR, "sales-agent"), SALES_AGENT)),
        "broken_delegation",
    ),
    "a hand-over by somebody else": (
        lambda: append(TOKEN, signed(TOKEN, hand_over("b", MALLORY, "sales-agent"), ORCHESTRATOR)),
        "broken_delegation",
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_custody_signatures_and_keys_stand_where_they_belong(name):
    """Ten links where no signature can be, or where a key is missing: refused at step 5 or 6, whoever proves what."""
    make, expected = PLACES[name]
    made = make()
    assert said(UNBOUND, None) == "allowed"
    for given in (None, proof(made, ORCHESTRATOR), proof(made, MALLORY), proof(made, SALES_AGENT)):
        assert said(made, given) == expected


def test_custody_a_depth_holds_and_leaves_a_record():
    """On a token bound since it was minted: nobody is handed it unseen, and the bound on hand-overs counts every one of them."""
    shallow = bound(first={**SALES, "depth": 1})
    once = handed(shallow, ORCHESTRATOR, "sales-agent", SALES_AGENT)
    twice = handed(once, SALES_AGENT, "eu-agent", EU_AGENT, "sales-agent")
    assert said(once, proof(once, SALES_AGENT)) == "allowed" and said(twice, proof(twice, EU_AGENT)) == "too_deep"
    silent = append(once, signed(once, {"key": public(EU_AGENT)}, SALES_AGENT))
    grant = server().authorize(sent(silent, proof(silent, EU_AGENT)), access(ASK))
    assert [actor.name for actor in grant.chain] == ["orchestrator", "sales-agent"] and len(grant.evidence) == 2
    assert grant.evidence[1].key == bytes(SALES_AGENT.verify_key), "a puppet acts in the name of whoever signed for its key"


def test_custody_evidence_shows_nothing_that_can_be_used():
    """As JSON and as it is shown: no tag, no part of the text, and no token can be cut out of it."""
    for token_text in (CHILD, GRANDCHILD):
        tags = [
            evaluator.chain_tag(KEY, sections(token_text)[0], [(body, None) for body in sections(token_text)[1][:count]])
            for count in range(4)
        ]
        for evidence in evidence_of(token_text):
            for seen in (json.dumps(evidence.as_dict()), repr(evidence), str(evidence.as_dict())):
                for tag in tags:
                    for start in range(0, 24, 4):
                        piece = tag[start : start + 8]
                        assert not any(
                            spelled in seen for spelled in (piece.hex(), evaluator.base64text(piece)[:10], repr(piece)[2:-1])
                        )
                assert "cap1" not in seen and token_text[-40:] not in seen
            parts = [bytes(value) for value in (evidence.key, evidence.state, evidence.signature[:32], evidence.signature[32:])]
            identifier, bodies, _ = sections(token_text)
            for part in parts:
                for count in range(1, len(bodies) + 1):
                    assert said(assemble(identifier, bodies[:count], part), None) == "bad_signature"


# ---- A11: one thing taken for another ------------------------------------------------------------------------------


def confusions():
    """(what, text, proof): something of one kind in the place of another."""
    hand = evaluator.unbase64(sections(CHILD)[1][1][-86:].decode())
    at, nonce, signature = taken_apart(proof(CHILD))
    data = evaluator.unbase64(proof(CHILD)[6:])
    identifier, bodies, tag = sections(CHILD)
    body = bodies[1][:-87]
    link_signature = SALES_AGENT.sign(custody_message(CHILD, body)).signature
    yield "a proof as a token", proof(CHILD), None
    yield "a proof as a token, by its prefix", "cap1_" + proof(CHILD)[6:], None
    yield "a token as a proof", CHILD, CHILD
    yield "a token as a proof, by its prefix", CHILD, "cap1p_" + CHILD[5:]
    yield "a custody signature as a proof", CHILD, proof_text(NOW, NONCE, hand)
    yield "the holder's own custody signature as a proof", CHILD, proof_text(NOW, NONCE, link_signature)
    yield "a proof's signature as custody", append(CHILD, with_signature({"key": public(MALLORY)}, signature)), "by mallory"
    yield "a proof as a link", append(CHILD, data), proof(CHILD)
    yield "a proof's text as a link", append(CHILD, proof(CHILD).encode()), proof(CHILD)
    yield "a proof in the place of the signature", assemble(identifier, bodies, signature[:32]), proof(CHILD)
    yield "a nonce as a link", append(CHILD, nonce), proof(CHILD)
    yield "a root record as a link", append(CHILD, identifier), proof(CHILD)
    yield "a key id as a link", append(CHILD, b"k1"), proof(CHILD)
    yield "a public key as a link", append(CHILD, bytes(SALES_AGENT.verify_key)), proof(CHILD)
    yield "a public key as a root key", evaluator.mint(bytes(SALES_AGENT.verify_key), identifier, bodies), proof(CHILD)
    yield "a state as a root key", evaluator.mint(state(tag), identifier, bodies), proof(CHILD)
    yield "a state as the signature", assemble(identifier, bodies, state(tag)), proof(CHILD)
    yield "a proof as a discharge", CHILD + ".cap1d_" + proof(CHILD)[6:], proof(CHILD)
    yield "the token as its own discharge", CHILD + ".cap1d_" + CHILD[5:], proof(CHILD)
    yield "the parent as a discharge", CHILD + ".cap1d_" + TOKEN[5:], proof(CHILD)
    yield "two proofs, joined", CHILD + "." + proof(CHILD), proof(CHILD)
    yield (
        "a request's digest as the audience's",
        CHILD,
        proof_text(
            NOW,
            NONCE,
            SALES_AGENT.sign(
                label("proof") + state(tag) + stated(ASK) + NOW.to_bytes(8, "big") + NONCE + sha256(AUDIENCE.encode())
            ).signature,
        ),
    )
    yield (
        "a proof without its label",
        CHILD,
        proof_text(
            NOW, NONCE, SALES_AGENT.sign(proof_message(tag, AUDIENCE, NOW, NONCE, stated(ASK))[len(label("proof")) :]).signature
        ),
    )
    yield (
        "a proof over the tag",
        CHILD,
        proof_text(
            NOW,
            NONCE,
            SALES_AGENT.sign(proof_message(tag, AUDIENCE, NOW, NONCE, stated(ASK)).replace(state(tag), tag)).signature,
        ),
    )
    yield (
        "a proof under custody's label",
        CHILD,
        proof_text(
            NOW,
            NONCE,
            SALES_AGENT.sign(
                label("custody") + proof_message(tag, AUDIENCE, NOW, NONCE, stated(ASK))[len(label("proof")) :]
            ).signature,
        ),
    )
    yield "a time in the other order of bytes", CHILD, proof_text(NOW.to_bytes(8, "little"), NONCE, signature)
    yield "the fields in another order", CHILD, "cap1p_" + evaluator.base64text(signature + nonce + at.to_bytes(8, "big"))


@pytest.mark.parametrize("case", list(confusions()), ids=lambda case: case[0])
def test_a11_one_thing_is_not_another(case):
    """A11: 27 times something of one kind in the place of another, between proofs, tokens, links, keys, states and discharges:
    0 allowed."""
    _, made, given = case
    given = proof(made, MALLORY) if given == "by mallory" else given
    assert said(CHILD, proof(CHILD)) == "allowed"
    assert not server().check(sent(made, given), access(ASK)) and not server(allow_unaddressed=True).check(
        sent(made, given), access(ASK)
    )


def test_a_bound_token_is_judged_before_its_proof():
    """The order of the plan: signature, links, lineage, caveats and caller come first, and none of them needs a proof."""
    late, deep = bound(first={**SALES, "exp": NOW}), append(TOKEN, hop("b"))
    for made, facts, expected in [
        (CHILD[:-2] + "AA", ASK, "bad_signature"), (append(CHILD, {"later": 1}), ASK, "unknown_caveat"), (deep, ASK, "broken_delegation"),
        (late, ASK, "expired"), (CHILD, {"table": "hr", "operation": "select"}, "table"), (CHILD, {"tool": "x"}, "domain"), (CHILD, ASK, "proof_missing"),
    ]:  # fmt: skip
        assert said(made, None, facts) == expected


def test_random_mixtures_of_keys_chains_and_proofs_allow_only_the_one_that_fits():
    """H2, H5, H7: 3,000 random pairs of token and proof out of 12 tokens, 5 keys, 3 servers, 4 requests: allowed exactly where
    all four fit."""
    rng = random.Random(20260706)
    keys = [ORCHESTRATOR, SALES_AGENT, EU_AGENT, MALLORY, SigningKey(bytes(range(32)))]
    tokens = [
        (made, key)
        for key in keys[:4]
        for made in (bound(key=key), append(bound(key=key), {"exp": NOW + 60}), bound(key=key, iat=NOW - 1))
    ]
    requests = [
        ASK,
        {"table": "sales", "operation": "select", "columns": ["a"]},
        {**ASK, "attributes": {"a": 1}},
        {**ASK, "attributes": {"a": 2}},
    ]
    allowed = 0
    for number in range(3000):
        (made, bound_to), key, name, asked = (
            rng.choice(tokens),
            rng.choice(keys),
            rng.choice([AUDIENCE, AUDIENCE, "hr-db"]),
            rng.choice(requests),
        )
        meant = (
            rng.choice([made, made, rng.choice(tokens)[0]]),
            rng.choice([bound_to, key]),
            name,
            rng.choice([asked, asked, rng.choice(requests)]),
        )
        given = proof(meant[0], meant[1], stated(meant[3]), audience=meant[2], nonce=number.to_bytes(16, "big"))
        fits = meant[0] == made and meant[1] == bound_to and name == AUDIENCE and stated(meant[3]) == stated(asked)
        assert said(made, given, asked) == ("allowed" if fits else "bad_proof")
        allowed += fits
    assert 300 < allowed < 2000


def test_a_holder_key_is_what_the_hand_made_one_is():
    """Control: captoken's keys, hand-overs and proofs are those made by hand here."""
    assert holder(MALLORY).public == public(MALLORY) and isinstance(holder(MALLORY), HolderKey)
    token = Token.parse(TOKEN, clock=lambda: NOW).delegate(
        to="sales-agent", key=public(SALES_AGENT), signer=holder(ORCHESTRATOR)
    )
    body = sections(token.serialize())[1][1]
    assert body == signed(TOKEN, json.loads(body[:-87]), ORCHESTRATOR)
    assert Access(**ASK) == access(ASK)
