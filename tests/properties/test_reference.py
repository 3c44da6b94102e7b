"""D3: captoken decides as the reference evaluator does, which another hand wrote from the design's text.

A few thousand random tokens (whole, odd, broken, mangled) meet a dozen random situations each. Random means seeded: a
failing comparison prints what to put into a case table.
"""

import itertools
from collections import Counter

import pytest

from captoken import Caller, Denied
from captoken._language import constraints
from captoken._language.caveats import V1
from captoken._language.link import Link
from captoken._language.links import read_link
from captoken._language.overlay import snapshot
from captoken.control import Overlay
from captoken.keys import OperatorKey
from captoken.stores.memory import MemoryLedger
from tests.longer import drawing, parts, times
from tests.reference import evaluator
from tests.reference.fixtures import (
    ASK,
    CANONICAL_ODDITIES,
    KEY,
    NOT_CANONICAL,
    NOW,
    ODD_ROOTS,
    ROOT,
    SALES,
    UNITS,
    UNREADABLE,
    access,
    code,
    expected,
    hop,
    keyring,
    random_access,
    random_caller,
    random_caveat,
    random_facts,
    random_token,
    root_bytes,
    short,
    text,
    verifier,
)
from tests.reference.holders import both_stores, random_bound, random_proof, random_server, server

CHUNKS, TOKENS, SITUATIONS = 8, 450, 14  # 50,400 comparisons
REACHED = {
    "allowed",
    "malformed",
    "unsupported_version",
    "unknown_key",
    "bad_signature",
    "missing_discharge",
    "unreadable_link",
    "unknown_caveat",
    "broken_delegation",
    "too_deep",
    "delegate_only",
    "expired",
    "not_yet_valid",
    "wrong_audience",
    "unaddressed",
    "table",
    "operation",
    "column",
    "row",
    "tool",
    "argument",
    "attribute",
    "domain",
    "task",
    "caller",
    "cost_unstated",
    "stale_overlay",
    "store_unavailable",
}


def reference(token_text, facts, ask, caller=None, **known):
    rest = {key: value for key, value in facts.items() if key != "audience"} | known
    return evaluator.evaluate(token_text, {"k1": KEY}, ask, audiences=facts.get("audience", ()), caller=caller, **rest)


@pytest.mark.parametrize("chunk", parts(CHUNKS))
def test_check_says_what_the_reference_says(chunk):
    """D3: 50,400 random decisions in eight parts: equal, code by code; every code that this version knows is met in each
    part."""
    rng, seen, ring = drawing(20261100 + chunk), Counter(), keyring()
    for _ in range(times(TOKENS)):
        token_text = random_token(rng)
        for _ in range(SITUATIONS):
            facts, ask, caller = random_facts(rng), random_access(rng), random_caller(rng)
            wanted = reference(token_text, facts, ask, caller)
            decision = verifier(ring=ring, **facts).check(
                token_text, access(ask), caller=None if caller is None else Caller(**caller)
            )
            assert decision.code == wanted, (token_text, facts, ask, caller)
            assert bool(decision) == (wanted == "allowed")
            seen[wanted] += 1
    assert set(seen) == REACHED and seen["allowed"] > 200


def test_a_grant_says_what_the_verifier_says():
    """D3: 3,000 random tokens: `authenticate` holds or denies as the reference does without an access, and then `grant.check`
    and `grant.explain` agree with `check`."""
    rng, seen, ring = drawing(20260301), Counter(), keyring()
    for _ in range(times(3000)):
        token_text, facts = random_token(rng), random_facts(rng)
        one, wanted = verifier(ring=ring, **facts), reference(token_text, facts, None)
        try:
            grant = one.authenticate(token_text)
        except Denied as denied:
            assert denied.decision.code == wanted, (token_text, facts)
            seen[wanted] += 1
            continue
        assert wanted == "allowed", (token_text, facts)
        for _ in range(4):
            ask, caller = random_access(rng), random_caller(rng)
            who = None if caller is None else Caller(**caller)
            wanted = reference(token_text, facts, ask, caller)
            codes = {grant.check(access(ask), caller=who).code, one.check(token_text, access(ask), caller=who).code}
            assert codes == {wanted}, (token_text, facts, ask, caller)
            assert grant.explain(access(ask), caller=who).code == wanted, (token_text, facts, ask, caller)
            rechecked = grant.recheck([access(ask)], caller=who).code
            assert rechecked == ("allowed" if wanted == "store_unavailable" else wanted), "no store is asked"
            seen[wanted] += 1
    assert seen["allowed"] > 300 and seen["table"] > 300 and seen["expired"] > 20


# Beside those of a bearer token; what has discharges and keys is at no loss for the others.
REACHED_WITH_KEYS = {"bad_discharge", "proof_missing", "bad_proof", "replayed", "store_unavailable"}
BASES = {("issued", *rest) for rest in ((), ("vouched",), ("proven",), ("vouched", "proven"), ("proven", "proven"))}


@pytest.mark.parametrize("chunk", parts(CHUNKS))
def test_keys_proofs_and_discharges_are_judged_as_the_reference_judges_them(chunk):
    """D3: 14,400 random decisions in eight parts, on tokens that are bound to keys, handed on with signatures and waiting for
    third parties, with proofs and discharges that are right, missing, too many or wrong: code, chain and key are equal."""
    rng, seen, chains = drawing(20260400 + chunk), Counter(), Counter()
    for _ in range(times(TOKENS)):
        token, token_text = random_bound(rng)
        for _ in range(4):
            facts, caller = random_server(rng), random_caller(rng) if rng.random() < 0.2 else None
            ask = {"table": "sales", "operation": "select"} if rng.random() < 0.6 else random_access(rng)
            end, request, made = random_proof(rng, token, facts.get("audience"), ask, facts["now"])
            ours, theirs = both_stores(made)
            sent, told = token_text + end, {}
            wanted = reference(sent, facts, ask, caller, store=theirs, told=told, request=request)
            who = None if caller is None else Caller(**caller)
            one = server(replays=ours, **facts)
            dry = one.explain(sent, access(ask), caller=who, request=request)
            decision = one.check(sent, access(ask), caller=who, request=request)
            assert decision.code == wanted, (sent, facts, ask, caller, request, made and made())
            assert dry.code == wanted and dry.grant is None, "with nothing between, a dry run says what check says"
            seen[wanted] += 1
            if wanted == "allowed":
                grant = decision.grant
                assert [(actor.name, actor.basis) for actor in grant.chain] == told["chain"]
                assert grant.key == told["key"] and all(evidence.holds() for evidence in grant.evidence)
                chains[tuple(actor.basis for actor in grant.chain), grant.key is not None] += 1
            if ours is not None:
                assert len(ours) <= len(theirs.used), "nothing is committed that was not to be"
    assert seen.keys() >= REACHED_WITH_KEYS and {basis for basis, _ in chains} >= BASES
    assert seen["allowed"] > 150 and seen["bad_proof"] > 50 and seen["bad_discharge"] > 30


def test_a_proof_is_good_once_as_the_reference_says():
    """D3: 400 proofs that are shown four times each, at moments that go on and back, to one store: the reference's code each
    time, and at most one is allowed."""
    rng, allowed = drawing(20260401), 0
    for _ in range(times(400)):
        token, token_text = random_bound(rng)
        ask, end, request, made = {"table": "sales", "operation": "select"}, "", None, None
        while not end or made is None:
            end, request, made = random_proof(rng, token, ("sales-db",), ask, NOW)
        ours, theirs = both_stores(made)
        taken = 0
        for _ in range(4):
            now = NOW + rng.choice([0, 1, 20, 30, 31, 40, -5, -6])
            facts = {"now": now, "audience": ("sales-db",), "allow_unaddressed": True}
            wanted = reference(token_text + end, facts, ask, request=request, store=theirs)
            decision = server(replays=ours, **facts).check(token_text + end, access(ask), request=request)
            assert decision.code == wanted, (token_text, facts, end, request)
            taken += wanted == "allowed" and decision.grant.key is not None
        assert taken <= 1
        allowed += taken
    assert allowed > 100


def random_family(rng):
    """The texts of a token and of those below it, which count in most of their links."""
    root = {**ROOT, "aud": "sales-db"} if rng.random() < 0.3 else ROOT
    made = [[{"tables": ["*"], "exp": NOW + 600, **counted(rng)}]]
    for _ in range(rng.randint(1, 5)):
        more = rng.choice([{}, {"aud": ["sales-db"]}, {"aud": ["sales-db", "hr-db"]}, {"operations": ["select"]}])
        made.append([*rng.choice(made), {**more, **counted(rng)} if rng.random() < 0.7 else more or {"nbf": NOW}])
    key = evaluator.audience_key(KEY, "sales-db") if "aud" in root else KEY
    return [evaluator.mint(key, root, links) for links in made]


def counted(rng):
    keys = rng.choice([["uses"], ["budget"], ["uses", "budget"]])
    return {"n": evaluator.base64text(rng.randbytes(8)), **{key: random_caveat(rng, key) for key in keys}}


@pytest.mark.parametrize("chunk", parts(4))
def test_what_is_counted_is_counted_as_the_reference_counts_it(chunk):
    """D3, G: 400 random families of tokens, 20 accesses each, at one ledger: equal, code by code; `explain` says what
    `check` will, and counts nothing."""
    rng, seen = drawing(20260600 + chunk), Counter()
    for _ in range(times(100)):
        family, shared = random_family(rng), rng.random() < 0.5
        ours, theirs = MemoryLedger(shared=shared, floor=0), evaluator.Ledger(shared)
        facts = {"now": NOW, "audience": ("sales-db",), "allow_unaddressed": True}
        one = verifier(ring=keyring(), ledger=ours, **facts)
        for _ in range(20):
            token_text, ask = rng.choice(family), {**ASK, "operation": rng.choice(["select", "insert"])}
            ask["cost"] = {unit: rng.choice([0, 1, 5, 6]) for unit in rng.sample(UNITS, rng.choice([1, 2, 2, 2]))}
            wanted = reference(token_text, facts, ask, ledger=theirs)
            assert one.explain(token_text, access(ask)).code == wanted
            assert one.check(token_text, access(ask)).code == wanted, (token_text, ask, shared)
            seen[wanted] += 1
    assert seen.keys() == {"allowed", "budget_exhausted", "cost_unstated", "unaddressed", "operation"}
    assert min(seen.values()) > 50


def test_how_old_an_overlay_is_decides_as_the_reference_says():
    """D3: every age from none to 70 s, for three bounds in two links: equal, and no older than the tightest."""
    key = OperatorKey.generate()
    for bounds in itertools.product([None, 0, 10, 60], repeat=2):
        token_text = text(SALES, *({"fresh": bound} for bound in bounds if bound is not None))
        for age in (None, 0, 1, 9, 10, 11, 59, 60, 61, 70):
            made = None if age is None else Overlay.open(snapshot(key, [], seq=1, issued_at=NOW - age), [key.public])
            facts = {} if made is None else {"overlay": made, "max_staleness": 1000}
            wanted = expected(token_text, overlay_age=age)
            assert code(token_text, **facts) == wanted, (bounds, age)
            tightest = min((bound for bound in bounds if bound is not None), default=None)
            assert (wanted == "allowed") == (tightest is None or (age is not None and age <= tightest))


def test_all_entry_points_say_one_thing():
    """D3: `check`, `explain` and `authorize` of 1,500 random tokens agree, and what is raised is Denied with that decision."""
    rng, ring = drawing(20260302), keyring()
    for _ in range(times(1500)):
        token_text, facts, ask = random_token(rng), random_facts(rng), random_access(rng)
        one, wanted = verifier(ring=ring, **facts), reference(token_text, facts, ask)
        try:
            one.authorize(token_text, access(ask))
        except Denied as denied:
            code_raised = denied.decision.code
        else:
            code_raised = "allowed"
        assert code_raised == one.check(token_text, access(ask)).code == wanted
        assert one.explain(token_text, access(ask)).code == wanted


def test_every_unreadable_value_is_unreadable():
    """D3: each value of the tables of odd links, alone, in any other link's company, and beside an unknown key."""
    for key, values in UNREADABLE.items():
        for value in values:
            whole = hop("sales-agent") if key in ("from", "to", "n", "uses", "budget") else {}
            link = {**whole, key: value}
            assert expected(text(link)) == code(text(link)) == "unreadable_link", link
            assert code(text(SALES, {"exp": NOW + 5, **link})) == "unreadable_link", link
            assert code(text(SALES, {**link, "acme:x": 1})) == "unknown_caveat", link


@pytest.mark.parametrize("body", NOT_CANONICAL, ids=short)
def test_what_is_not_canonical_is_unreadable(body):
    """D3: each spelling that is not canonical JSON of an object prohibits, before its keys are looked at."""
    assert code(text(SALES, body)) == expected(text(SALES, body)) in ("unreadable_link", "malformed")
    assert (code(text(SALES, body)) == "malformed") == (body == b"")


@pytest.mark.parametrize("link", CANONICAL_ODDITIES, ids=short)
def test_what_is_canonical_but_odd_is_read(link):
    """D3: rare characters, keys beyond the BMP, integers at the edge, names that are not NFC: read as the reference reads
    them."""
    assert code(text(SALES, link)) == expected(text(SALES, link))


@pytest.mark.parametrize("change", ODD_ROOTS, ids=short)
def test_odd_root_records_are_judged_alike(change):
    """D3: each odd root record, properly signed: the reference's code, at a verifier with and without an audience."""
    token_text = evaluator.mint(
        evaluator.audience_key(KEY, change["aud"]) if isinstance(change.get("aud"), str) and change["aud"] else KEY,
        root_bytes({**ROOT, **change}),
        [SALES],
    )
    for facts in ({}, {"audience": "sales-db"}, {"audience": ("hr-db", "sales-db"), "allow_unaddressed": True}):
        assert code(token_text, **facts) == expected(token_text, **facts)


@pytest.mark.parametrize("missing", ROOT)
def test_a_root_record_without_one_of_its_keys_is_malformed(missing):
    """D3: exactly these keys."""
    assert code(text(SALES)) == "allowed"
    assert code(evaluator.mint(KEY, {key: value for key, value in ROOT.items() if key != missing}, [SALES])) == "malformed"


def words(letters, most):
    """Every string of one to `most` of these letters."""
    return ("".join(word) for size in range(1, most + 1) for word in itertools.product(letters, repeat=size))


def readable(link):
    """Whether each reader understands a link: (captoken, the reference)."""
    try:
        evaluator.decode_link(evaluator.canonical(link).encode())
    except evaluator.Stop:
        return isinstance(read_link(evaluator.canonical(link).encode(), V1), Link), False
    return isinstance(read_link(evaluator.canonical(link).encode(), V1), Link), True


# Of what urls are made of, and of what looks like it.
# fmt: off
URL_PARTS = [
    "https://", "http://", "wss://", "HTTPS://", "ftp://", "//", "/", "?", "#", "@", ":", ":80", ":443", ":8080", ":08", ":0",
    ":65536", "a", "b.c", "*.", "x.b.c", ".", "..", "/../", "/./", "..;x", ";", "%2e", "%2F", "%41", "%4", "%3B", "%25", "\\",
    "[::1]", "[2001:db8::1]", "[2001:DB8::1]", "[::ffff:a00:1]", "[::ffff:10.0.0.1]", "[", "]", "10.0.0.1", "010.0.0.1", "127.1",
    "0x7f.1", "0x1", "2130706433", "1e5", "xn--a", "-a", "a-", "_", " ", "\t", "\x7f", "\u00e9", "\uff41", "\u200b", "a" * 64,
]
ADDRESS_PARTS = [
    "0", "1", "10", "255", "256", "00", "01", ".", "..", ":", "::", "ffff", "FFFF", "0db8", "db8", "2001", "/", "/8", "/32", "/33",
    "/08", "/128", "/129", "/0", "%eth0", " ", "\u0661", "\uff11", "x", "10.0.0.0", "2001:db8::", "::ffff:", "1:1:1:1:1:1:1:1",
]
# fmt: on


@pytest.mark.parametrize("seed", parts(4))
def test_every_url_and_address_is_read_alike(seed):
    """D3: 40,000 strings made of parts of urls and addresses, as entries and as values: readable for both or for neither, and
    accepted by both or by neither."""
    rng, seen = drawing(20260303 + seed), Counter()
    everything = [f"{scheme}://{host}" for scheme in ("https", "http") for host in ("*.b.c", "x.b.c", "10.0.0.1", "[::1]:8080")]
    lists = ({"url": everything}, {"cidr": ["0.0.0.0/0", "2001::/16", "8000::/1"]}, {"prefix": ["1", "a", "h"]})
    wide = [(constraint, constraints.read_constraint(constraint)) for constraint in lists]
    for _ in range(times(5_000)):
        start = rng.choice(["https://x.b.c", "https://*.b.c", "http://10.0.0.1", "http://[::1]:8080", "https://", ""])
        url = start + "".join(rng.choices(URL_PARTS, k=rng.randint(0, 4)))
        begun = rng.choice(["10.0.0.0", "2001:db8::", "10.0.0.", "", "", ""])
        address = begun + "".join(rng.choices(ADDRESS_PARTS, k=rng.randint(1, 7 if not begun else 2)))
        asked = {"url": url, "cidr": address, "prefix": rng.choice([url, address])}
        for kind, entry in asked.items():
            ours, theirs = readable({"where": {"a": {kind: [entry]}}})
            assert ours == theirs, (kind, entry)
            seen[kind, ours] += 1
        for constraint, ours_of in wide:
            for value in (url, address):
                ours = ours_of.accepts(value)
                assert ours == evaluator.satisfies(constraint, value), (constraint, value)
                seen[next(iter(constraint)), "accepts", ours] += 1
    assert len(seen) == 12 and min(seen.values()) > 10, seen


def test_every_short_name_is_read_alike():
    """D3: the 5,460 strings of up to six of `a`, `.`, `*` and `/` as table, operation, task and path: readable for both or for
    neither."""
    seen = Counter()
    for word in words("a.*/", 6):
        for kind, link in (
            ("pattern", {"tables": [word]}),
            ("name", {"operations": [word]}),
            ("task", {"task": word}),
            ("path", {"where": {"a": {"path": [word]}}}),
        ):
            ours, theirs = readable(link)
            assert ours == theirs, link
            seen[kind, ours] += 1
    assert len(seen) == 8 and min(seen.values()) > 10


def test_every_code_point_is_read_alike():
    """D3: each code point below U+3100, of the private and compatibility areas and of the tags, alone and at the end of a
    name: legal for both or for neither."""
    seen = Counter()
    for point in (
        *range(1, 0x3100),
        *range(0xE000, 0xE010),
        *range(0xF900, 0x10010),
        *range(0x1D150, 0x1D190),
        *range(0xE0000, 0xE0200),
        *range(0x10FFF0, 0x110000),
    ):
        ours, theirs = readable({"where": {"a": {"in": [chr(point), "a" + chr(point)]}}})
        assert ours == theirs, hex(point)
        seen[ours] += 1
    assert seen[True] > 10_000 and seen[False] > 100


def test_every_short_path_is_judged_alike():
    """D3: the 9,330 strings of up to five of `/ . a % 2 \\`, and those with encoded letters, as a value: at or below a path
    for both or for neither."""
    tops = [{"path": ["/"]}, {"path": ["/a"]}, {"path": ["/a/a", "/2"]}]
    ours, seen = [constraints.read_constraint(top) for top in tops], Counter()
    encoded = [
        f"/a{middle}%{code}{end}"
        for code in ("2e", "2E", "2f", "2F", "5c", "5C", "25", "00", "20", "41", "2", "")
        for middle in ("", "/")
        for end in ("", "a", "/a")
    ]
    for word in (*words("/.a%2\\", 5), *encoded, "/a\0", "\0", "", "/a b", "/\u00e9"):
        for top, one in zip(tops, ours, strict=True):
            verdict = one.accepts(word)
            assert verdict == evaluator.satisfies(top, word), (word, top)
            seen[verdict] += 1
    assert seen[True] > 100 and seen[False] > 1000


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [
        (1, "unknown_caveat"),
        (5, "unknown_caveat"),
        (31, "unknown_caveat"),
        (32, "unknown_caveat"),
        (33, "unreadable_link"),
        (34, "unreadable_link"),
        (200, "unreadable_link"),
        (900, "unreadable_link"),
    ],
)
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
def test_json_nests_32_levels_below_the_link(levels, wanted, brackets):
    """D3: 32 levels of arrays and objects below the link object are read, one more is unreadable, known key or not."""
    half = len(brackets) - 1
    nested = f"{brackets[:half] * (levels - 1)}{'[]' if half == 1 else '{}'}{brackets[half:] * (levels - 1)}"
    for key, code_within in (("acme:x", wanted), ("exp", "unreadable_link")):
        token_text = text(SALES, f'{{"{key}":{nested}}}'.encode())
        assert code(token_text) == expected(token_text) == code_within


# What comes first when two things are wrong: the plan's order. (links, root changes, verifier facts, caller, code)
ORDER = [
    ([SALES, b"x"], {"kid": "k2"}, {}, None, "unknown_key"),
    ([SALES, {"new": 1}, b"x"], {}, {}, None, "unknown_caveat"),
    ([SALES, b"x", {"new": 1}], {}, {}, None, "unreadable_link"),
    ([hop("b", "x"), b"x"], {}, {}, None, "unreadable_link"),
    ([{"exp": NOW}, hop("b", "x")], {}, {}, None, "broken_delegation"),
    ([{"depth": 0}, hop("b"), hop("c", "x")], {}, {}, None, "too_deep"),
    ([{"depth": 0}, hop("b", "x")], {}, {}, None, "broken_delegation"),
    ([{"depth": 0}, hop("orchestrator")], {}, {}, None, "broken_delegation"),
    ([{"delegate_only": True}, hop("b", "x")], {}, {}, None, "broken_delegation"),
    ([{"delegate_only": True, "exp": NOW}], {}, {}, None, "delegate_only"),
    ([SALES, {"delegate_only": True}], {"iat": NOW + 61}, {}, None, "delegate_only"),
    ([{"exp": NOW}], {"iat": NOW + 61}, {}, None, "not_yet_valid"),
    ([{"exp": NOW, "tables": ["hr"]}], {}, {}, None, "expired"),
    ([{"exp": NOW, "allow": {"hr": ["select"]}}], {}, {}, None, "expired"),
    ([{"tables": ["hr"]}, {"exp": NOW}], {}, {}, None, "expired"),
    ([{"allow": {"hr": ["select"]}}, {"operations": ["insert"]}], {}, {}, None, "table"),
    ([{"exp": NOW}, {"tables": ["hr"]}], {}, {}, None, "expired"),
    ([{"operations": ["insert"], "tables": ["hr"]}], {}, {}, None, "operation"),
    ([{"tools": {}, "where": {"r": {"any": True}}}], {}, {}, None, "attribute"),
    ([{"tools": {}, "exp": NOW}], {}, {}, None, "expired"),
    ([{"tools": {}}, {"exp": NOW}], {}, {}, None, "expired"),
    ([{"tools": {}}, {"tables": ["hr"]}], {}, {}, None, "domain"),
    ([{"aud": ["hr-db"], "allow": {"hr": ["select"]}}], {}, {"audience": "sales-db"}, None, "wrong_audience"),
    ([{"aud": ["hr-db"], "tables": ["hr"]}], {}, {"audience": "sales-db"}, None, "wrong_audience"),
    ([{"tables": ["hr"]}], {}, {"audience": "sales-db"}, None, "unaddressed"),
    ([SALES], {}, {"audience": "sales-db"}, {"agent": "other"}, "unaddressed"),
    ([SALES], {}, {}, {"agent": "other"}, "caller"),
    ([SALES, {"aud": ["sales-db"]}], {}, {}, None, "wrong_audience"),
    ([{"task": "other", "exp": NOW}], {}, {}, None, "expired"),
    ([{"task": "other", "tables": ["hr"]}], {}, {}, None, "task"),
    ([{"task": "other", "where": {"r": {"any": True}}}], {}, {}, None, "task"),
    ([{"exp": NOW, "nbf": NOW + 1}], {}, {}, None, "expired"),
    ([{"nbf": NOW + 1}, {"exp": NOW}], {}, {}, None, "not_yet_valid"),
    ([SALES, (b"x", bytes(72)), b"x"], {}, {}, None, "missing_discharge"),
    ([SALES, (b"x", bytes(71))], {"kid": "k2"}, {}, None, "malformed"),
    ([SALES], {"v": 2, "kid": "k2"}, {}, None, "unsupported_version"),
    ([], {"v": 2}, {}, None, "malformed"),
    ([hop("b", depth=0), hop("c", "b")], {}, {}, None, "too_deep"),
    ([hop("b", depth=1), hop("c", "b")], {}, {}, None, None),
    ([{"depth": 1}, {"depth": 5}, hop("b"), hop("c", "b")], {}, {}, None, "too_deep"),
    ([hop("b", delegate_only=True)], {}, {}, None, "delegate_only"),
    ([{"delegate_only": True}, hop("b")], {}, {}, None, None),
    ([hop("b"), hop("c", "b"), hop("b", "c")], {}, {}, None, "broken_delegation"),
]


@pytest.mark.parametrize("case", range(len(ORDER)))
def test_the_first_failure_in_the_plan_s_order_is_the_code(case):
    """D3: of two things wrong, the one that the plan comes to first, in captoken as in the reference."""
    links, root, facts, caller, wanted = ORDER[case]
    token_text = text(*links, **root)
    assert expected(token_text, caller=caller, **facts) == (wanted or "allowed")
    assert code(token_text, ASK, caller=caller, **facts) == (wanted or "allowed")
