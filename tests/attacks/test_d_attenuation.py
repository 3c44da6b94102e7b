"""Class D: a child permits no more than its parent, whatever a holder appends and by whichever way.

D1 to D3 over the whole algebra are in `tests/properties`; here the same is asked of tokens, through the public face.
"""

import random
from contextlib import suppress

import pytest

from captoken import (
    CaptokenError,
    Issuer,
    Keyring,
    Token,
    TokenFormatError,
    Verifier,
    WideningError,
)
from captoken.errors import DelegationError, LimitError
from tests.reference import evaluator
from tests.reference.fixtures import (
    AGENTS,
    ASK,
    KEY,
    KEYS,
    NOW,
    SALES,
    WEIGHTS,
    access,
    append,
    code,
    hop,
    keyring,
    random_access,
    random_caveat,
    random_link,
    random_odd_link,
    sections,
    short,
    some,
    text,
    verifier,
)

WHO = {"subject": "user:jane", "agent": "orchestrator", "task": "task-123"}
KEYWORD = {"exp": "expires_at", "nbf": "not_before", "aud": "audience"}


def issuer(now=NOW):
    return Issuer(keyring(), clock=lambda: now)


def small_world():
    """324 accesses: 6 tables x 3 operations x 3 sets of columns, 18 tool calls, each with and without two attributes, and
    mixtures."""
    data = [
        {"table": t, "operation": o, **c}
        for t in ("sales", "market", "market.eu", "market.eu.berlin", "hr.pay", "orders")
        for o in ("select", "insert", "update")
        for c in ({}, {"columns": ["region"]}, {"columns": ["region", "pay"]})
    ]
    tools = [
        {"tool": t, "arguments": a}
        for t in ("search", "files.read", "mail.send")
        for a in ({}, {"q": "eu"}, {"q": 5}, {"limit": 1}, {"q": "eu", "limit": 10}, {"path": "/data/a"})
    ]
    both = [{**data[i * 5 % len(data)], **tools[i % len(tools)]} for i in range(36)]
    shapes = [*data, *tools, *both]
    return [
        access({**facts, **more})
        for facts in shapes
        for more in ({}, {"attributes": {"region": "eu"}}, {"attributes": {"region": "us", "level": 5}})
    ]


WORLD = small_world()
assert len(WORLD) == 324


def allowed(token_text, one):
    return [bool(one.check(token_text, ask)) for ask in WORLD]


def test_d1_no_appended_link_ever_allows_more():
    """D1: 30 random chains of four links, each prefix against its child over 324 accesses, 48,000 decisions: what a child
    allows its parent allows."""
    rng, one, narrowed, kept = random.Random(20260401), verifier(audience="sales-db", allow_unaddressed=True), 0, 0
    for _ in range(30):
        token_text, holder = text({"allow": {"*": ["*"]}, "tools": {"*": {}}}), "orchestrator"
        before = allowed(token_text, one)
        assert all(before)
        for _ in range(4):
            link, holder = random_link(rng, holder)
            token_text = append(token_text, link if rng.random() < 0.95 else random_odd_link(rng, holder))
            after = allowed(token_text, one)
            assert all(was for was, now in zip(before, after, strict=True) if now)
            narrowed, kept, before = narrowed + (after != before), kept + any(after), after
    assert narrowed > 40 and kept > 20


def test_d2_order_and_repetition_of_links_do_not_matter():
    """D2: 80 random sets of links about accesses, in five orders and with repeats: equal over 30 random accesses each."""
    rng, one = random.Random(20260402), verifier()
    about = ["tables", "operations", "allow", "columns", "tools", "where", "exp", "nbf"]
    for _ in range(80):
        links = [{key: random_caveat(rng, key) for key in some(rng, about, 1, 3)} for _ in range(rng.randint(2, 4))]
        asks = [access(random_access(rng)) for _ in range(30)]
        wanted = [bool(one.check(text(*links), ask)) for ask in asks]
        for _ in range(5):
            mixed = links + some(rng, links, 0, 2)
            rng.shuffle(mixed)
            assert [bool(one.check(text(*mixed), ask)) for ask in asks] == wanted


def keywords(rng):
    """Random keywords of `attenuate`, and the link that says the same."""
    keys = [key for key in rng.choices(KEYS[:9], WEIGHTS[:9], k=rng.randint(1, 2)) if key != "aud"] or ["tables"]
    link = {key: random_caveat(rng, key) for key in keys}
    return {KEYWORD.get(key, key): value for key, value in link.items()}, link


def about_dimension(dimension, asked):
    """Which accesses a dimension of a narrowing is about."""
    if dimension == "columns":
        return lambda ask: ask.table is not None and any(evaluator.matches(pattern, ask.table) for pattern in asked["columns"])
    if dimension in ("tables", "operations", "allow"):
        return lambda ask: ask.table is not None
    return (lambda ask: ask.tool is not None) if dimension == "tools" else (lambda ask: True)


def test_d1_attenuate_says_no_or_does_what_the_link_says():
    """D1: 400 random `attenuate` calls: refused as widening, or the child allows exactly what the parent and the link both
    allow; `clamp` too."""
    rng, one, done, refused, clamped = random.Random(20260403), verifier(), 0, 0, 0
    for _ in range(400):
        parent_link = {"allow": random_caveat(rng, "allow"), "tools": random_caveat(rng, "tools"), "exp": NOW + 300}
        parent = Token.parse(text(parent_link))
        asked, link = keywords(rng)
        wanted = [
            bool(one.check(parent.serialize(), ask)) and bool(one.check(append(parent.serialize(), link), ask))
            for ask in WORLD[::3]
        ]
        for clamp in (False, True):
            try:
                child = parent.attenuate(**asked, clamp=clamp)
            except WideningError as error:
                assert error.dimension and parent.serialize() not in str(error)
                refused += 1
                if clamp:  # nothing is left of the dimension that it names
                    assert error.code == "nothing_left"
                    about = about_dimension(error.dimension, asked)
                    assert not any(may and about(ask) for may, ask in zip(wanted, WORLD[::3], strict=True)), (
                        parent_link,
                        asked,
                    )
                continue
            got = [bool(one.check(child.serialize(), ask)) for ask in WORLD[::3]]
            assert got == wanted, (parent_link, asked, clamp)
            done, clamped = done + 1, clamped + clamp
    assert done > 100 and refused > 100 and clamped > 100


def test_a_pair_that_is_not_held_is_widening_and_one_that_is_is_not():
    """1,500 random pairs of parent and child that name tables with operations, or `allow`: WideningError iff the child names a
    pair that the parent does not permit."""
    rng, refused = random.Random(20260404), 0
    world = [
        (table, operation)
        for table in ("sales", "market", "market.eu", "market.eu.berlin", "market.us", "hr", "hr.pay", "hr.x", "orders")
        for operation in ("select", "insert", "update", "drop")
    ]

    def pairs():
        if rng.random() < 0.5:
            return {"allow": random_caveat(rng, "allow")}
        return {"tables": random_caveat(rng, "tables"), "operations": random_caveat(rng, "operations")}

    def permits(link, table, operation):
        try:
            for key, value in link.items():
                evaluator.check_data(key, value, {"table": table, "operation": operation})
        except evaluator.Stop:
            return False
        return True

    for _ in range(1500):
        held, asked = pairs(), pairs()
        if rng.random() < 0.5:  # something that is held, often
            held = {"allow": {**random_caveat(rng, "allow"), "*": ["*"]}}
        wanted = any(permits(asked, *pair) and not permits(held, *pair) for pair in world)
        try:
            Token.parse(text(held)).attenuate(**asked)
        except WideningError as error:
            assert wanted, (held, asked)
            assert error.code == "widening" and error.excess
            refused += 1
        else:
            assert not wanted, (held, asked)
    assert 300 < refused < 1400


WIDENINGS = {
    "another table": {"tables": ["hr"]},
    "one table more": {"tables": ["sales", "hr"]},
    "any table for one operation": {"tables": ["*"], "operations": ["select"]},
    "a wider pattern": {"tables": ["market.*", "orders"]},
    "another operation": {"operations": ["insert"]},
    "any operation": {"operations": ["*"]},
    "a pair that is not held": {"allow": {"sales": ["insert"]}},
    "a tool": {"tools": {"shell": {}}},
    "a free tool": {"tools": {"search": {}}},
    "an argument left out": {"tools": {"search": {"q": {"any": True}}}},
    "a wider argument": {"tools": {"search": {"q": {"any": True}, "limit": {"max": 11}}}},
    "a range under a list": {
        "tools": {"search": {"q": {"any": True}, "limit": {"max": 10}}, "pick": {"n": {"min": 1, "max": 3}}}
    },
    "a later expiry": {"expires_at": NOW + 601},
    "an earlier start": {"not_before": NOW - 1},
    "more columns": {"columns": {"sales": ["region", "pay"]}},
    "another region": {"where": {"region": {"in": ["us"]}}},
    "any region": {"where": {"region": {"any": True}}},
    "another task": {"task": "task-124"},
    "more depth": {"depth": 3},
    "another audience": {"audience": ["hr-db"]},
}
HELD = {
    "tables": ["market.eu", "sales"],
    "operations": ["select"],
    "columns": {"sales": ["region"]},
    "where": {"region": {"in": ["eu"]}},
    "exp": NOW + 600,
    "nbf": NOW,
    "depth": 2,
    "aud": ["sales-db"],
    "tools": {"search": {"q": {"any": True}, "limit": {"max": 10}}, "pick": {"n": {"in": [1, 2, 3]}}},
}


@pytest.mark.parametrize("name", WIDENINGS)
def test_widening_is_refused_when_it_is_asked_for(name):
    """Twenty ways to ask for more raise WideningError at once, and written by hand they allow nothing more."""
    parent = Token.parse(text(HELD))
    before = parent.serialize()
    with pytest.raises(WideningError) as raised:
        parent.attenuate(**WIDENINGS[name])
    assert raised.value.dimension and isinstance(raised.value, CaptokenError) and before not in str(raised.value)
    assert parent.serialize() == before
    one = verifier(audience=("sales-db", "hr-db"))
    names = {value: key for key, value in KEYWORD.items()}
    by_hand = append(before, {names.get(key, key): value for key, value in WIDENINGS[name].items()})
    assert all(was for was, now in zip(allowed(before, one), allowed(by_hand, one), strict=True) if now)


@pytest.mark.parametrize(
    "narrowing",
    [
        {"tables": ["sales"]},
        {"tables": ["*"]},
        {"tables": []},
        {"operations": ["select"]},
        {"operations": []},
        {"allow": {"sales": ["select"]}},
        {"allow": {}},
        {"expires_at": NOW + 600},
        {"expires_in": 10**6},
        {"expires_in": 1},
        {"not_before": NOW},
        {"columns": {"sales": []}},
        {"columns": {"sales": ["region"]}},
        {"where": {"region": {"in": ["eu"]}}},
        {"where": {"level": {"max": 3}}},
        {"task": "task-123/a"},
        {"task": "task-123"},
        {"depth": 2},
        {"depth": 0},
        {"audience": ["sales-db"]},
        {"tools": {"search": {"q": {"in": ["x"]}, "limit": {"max": 10}}}},
        {"tools": {"pick": {"n": {"in": [3]}}}},
        {"tools": {}},
        {"delegate_only": True},
    ],
    ids=short,
)
def test_narrowing_is_not_refused(narrowing):
    """The positive controls: 24 ways to ask for less, or for the same, are done."""
    parent = Token.parse(text(HELD))
    child = parent.attenuate(**narrowing)
    assert child is not parent and len(sections(child.serialize())[1]) == 2
    one = verifier(audience="sales-db")
    assert all(was for was, now in zip(allowed(parent.serialize(), one), allowed(child.serialize(), one), strict=True) if now)


def test_d5_a_random_life_agrees_with_a_model():
    """D5: 20 lives of 60 steps (mint, narrow, delegate, present, rotate, retire, clock, restart): each decision is the
    reference's under the keys that are held."""
    for life in range(20):
        rng, ring, now = random.Random(20260500 + life), keyring(), NOW
        keys, tokens, current, seen = {"k1": KEY}, [], "k1", 0
        for _ in range(60):
            step = rng.randrange(10)
            if step < 2 or not tokens:
                minted = Issuer(ring, clock=lambda now=now: now).mint(
                    **WHO,
                    tables=some(rng, ["sales", "market.*", "*"], 1),
                    operations=["select", "insert"],
                    tools={"search": {}},
                    expires_in=rng.choice([5, 600]),
                )
                tokens.append(minted)
            elif step < 6:
                held, audience = rng.choice(tokens), rng.choice(["sales-db", "hr-db"])
                with suppress(DelegationError, WideningError):
                    if step < 4:
                        tokens.append(held.attenuate(**keywords(rng)[0], clamp=rng.random() < 0.7))
                    elif step == 4:
                        tokens.append(held.delegate(to=rng.choice(AGENTS), expires_in=rng.choice([5, 300])))
                    else:
                        tokens.append(Token.parse(held.present(audience=audience, expires_in=60)))
            elif step == 6:
                ring = ring.rotate()
                fresh = sections(Issuer(ring).mint(**WHO, unrestricted=True).serialize())[0]
                current = evaluator.decode_object(fresh)["kid"]
                keys = {**keys, current: ring.reveal(current)}
            elif step == 7 and len(keys) > 1:
                gone = rng.choice([kid for kid in keys if kid != current])
                ring, keys = ring.retire(gone), {kid: key for kid, key in keys.items() if kid != gone}
            elif step == 8:
                now += rng.choice([-60, 1, 4, 30])
            else:
                ring = Keyring.from_keys(keys, current=current)
                tokens = [Token.parse(token.serialize()) for token in tokens[-12:]]
            one = Verifier(ring, audience="sales-db", allow_unaddressed=True, clock=lambda now=now: now)
            for token in rng.sample(tokens, min(4, len(tokens))):
                facts = random_access(rng)
                wanted = evaluator.evaluate(
                    token.serialize(), keys, facts, now=now, audiences=("sales-db",), allow_unaddressed=True
                )
                assert one.check(token.serialize(), access(facts)).code == wanted
                seen += 1
        assert seen > 150


def test_d6_the_64th_link_is_the_last():
    """D6: at the limit of links, and of length, narrowing, delegating and presenting raise LimitError; nothing is dropped in
    silence."""
    full = Token.parse(text(SALES, *[{"nbf": NOW}] * 63))
    assert code(full.serialize()) == "allowed"
    for call in (
        lambda: full.attenuate(tables=["sales"]),
        lambda: full.delegate(to="sales-agent"),
        lambda: full.present(audience="sales-db", expires_in=60),
    ):
        with pytest.raises(LimitError) as raised:
            call()
        assert isinstance(raised.value, CaptokenError)
    nearly = Token.parse(text(SALES, *[{"nbf": NOW}] * 62))
    assert len(sections(nearly.attenuate(tables=["sales"]).serialize())[1]) == 64


def test_d6_a_token_that_is_too_long_is_refused_by_the_writer():
    """D6: `present` refuses above 7,168 characters unless told otherwise; no writer makes a token that no reader takes."""
    root = issuer().mint(**WHO, tables=["sales", *(f"market.shop{i:04}" for i in range(220))], operations=["select"])
    assert len(root.serialize()) < 7168
    held, steps = root, 0
    while True:
        try:
            held = held.attenuate(tables=["sales", *(f"market.shop{i:04}" for i in range(40))])
        except LimitError:
            break
        steps += 1
        assert code(held.serialize()) == "allowed"
    assert steps and len(held.serialize()) <= 8192
    with pytest.raises(LimitError):
        Token.parse(text({**SALES, "tables": ["sales", *(f"market.shop{i:04}" for i in range(300))]})).present(
            audience="sales-db", expires_in=60
        )


def test_d6_the_root_record_has_its_limit():
    """D6: a root record over 1,024 bytes is refused at mint."""
    long_names = {"subject": "s" * 128, "agent": "a" * 128, "task": "t" * 128}
    issuer().mint(**long_names, tables=["sales"], operations=["select"])
    assert code(text(SALES, ext={"acme:note": "x" * 900})) == "malformed"


@pytest.mark.parametrize(
    "links", [[b"x"], [{"new": 1}], [{"exp": "x"}], [{"from": "orchestrator", "n": "AAAAAAAAAAA"}]], ids=short
)
def test_an_opaque_or_unreadable_token_is_held_narrowed_and_shown_and_prohibits(links):
    """A token with a link that is not understood can be parsed, narrowed, presented and serialized, and allows nothing."""
    token = Token.parse(text(SALES, *links))
    assert code(text(SALES)) == "allowed"
    narrowed = token.attenuate(tables=["sales"])
    for form in (token.serialize(), narrowed.serialize(), narrowed.present(audience="sales-db", expires_in=60)):
        assert verifier(audience="sales-db", allow_unaddressed=True).check(form, access(ASK)).code in (
            "unreadable_link",
            "unknown_caveat",
        )


def test_delegating_back_or_too_deep_raises_at_once():
    """DelegationError names what a verifier would call `broken_delegation` or `too_deep`, and the link written by hand is
    denied so."""
    root = Token.parse(text({**SALES, "depth": 1}))
    child = root.delegate(to="sales-agent")
    for call in (
        lambda: root.delegate(to="orchestrator"),
        lambda: child.delegate(to="report-agent"),
        lambda: child.delegate(to="sales-agent"),
    ):
        with pytest.raises(DelegationError) as raised:
            call()
        assert isinstance(raised.value, CaptokenError)
    assert code(child.serialize()) == "allowed"
    assert code(append(child.serialize(), hop("report-agent", "sales-agent"))) == "too_deep"
    assert code(append(root.serialize(), hop("orchestrator"))) == "broken_delegation"


def test_two_equal_delegations_are_two_tokens():
    """`n` makes each delegation its own: a thousand to one agent give a thousand texts."""
    root = issuer().mint(**WHO, tables=["sales"], operations=["select"])
    assert len({root.delegate(to="sales-agent").serialize() for _ in range(1000)}) == 1000
    assert len({issuer().mint(**WHO, tables=["sales"], operations=["select"]).serialize() for _ in range(1000)}) == 1000


def test_what_is_given_is_copied_and_a_token_is_never_changed():
    """Changing a list after the call changes no token; narrowing returns another token and leaves its parent's text alone."""
    tables, root = ["sales", "market.*"], issuer()
    token = root.mint(**WHO, tables=tables, operations=["select"])
    before = token.serialize()
    tables.append("hr")
    child = token.attenuate(tables=["sales"])
    assert token.serialize() == before != child.serialize()
    assert sections(child.serialize())[1][:1] == sections(before)[1]
    with pytest.raises((AttributeError, TypeError)):
        token.signature = b""
    with pytest.raises(TokenFormatError):
        Token.parse(before + "A")
