"""Class C: the caveat language has no confusable names, no coercion, and nothing in it allows by being absent.

Every table of cases also names what is allowed, so that a library that denies everything fails here.
"""

import enum
import itertools
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from captoken import Access, Caller, Issuer, Token, Verifier
from tests.reference import evaluator
from tests.reference.fixtures import ASK, NOW, SALES, access, code, expected, hop, keyring, short, text, verifier

WHO = {"subject": "user:jane", "agent": "orchestrator", "task": "task-123"}
REFUSED = (TypeError, ValueError)

# fmt: off
HOSTILE = [  # 64 names
    "sales", "Sales", "SALES", "sales ", " sales", "sales\0", "\0sales", "sal\0es", "sales\n", "sales\r\n", "sales\t",
    "\x1b[31msales", "\u202esales", "sales\u202c", "sa\u200bles", "sales\ufeff", "caf\u00e9", "cafe\u0301",
    "\uff53\uff41\uff4c\uff45\uff53", "s\u0430les", "sale\u0455", "sales\u0131", "salesi", "sales\u0130", "stra\u00dfe",
    "strasse", "STRASSE", "K", "\u212a", "k", "sales.", ".sales", "sales..x", "sales.x", "sales.*", "", "*", "**", "*.sales",
    "sal*", "%", "_", "sale_", "..", ".", "../sales", "sales/..", "'sales'", '"sales"', "sa\\les", "sales;", "sales,hr",
    "sales=1", "\U0001f600", "x" * 4096, "x" * 256, "x" * 257, "['sales']", '["sales"]', "sales\u00a0", "sales\u3000",
    "sales\u2028", "\ud800", "sales\u00ad",
]
# fmt: on
assert len(HOSTILE) == len(set(HOSTILE)) == 64


def built(make):
    """What `make` builds, or None if it is refused with a TypeError or a ValueError."""
    try:
        return make()
    except REFUSED:
        return None


def test_c1_a_table_matches_only_itself():
    """C1: 64 x 64 hostile names as a table in a link and in an access: allowed only if equal code point by code point, or by
    `*`."""
    one, issuer = verifier(), Issuer(keyring(), clock=lambda: NOW)
    asked = [(name, built(lambda name=name: Access(table=name, operation="select"))) for name in HOSTILE]
    assert sum(ask is not None for _, ask in asked) > 25
    for held in HOSTILE:
        minted = built(lambda held=held: issuer.mint(**WHO, tables=[held], operations=["select"]).serialize())
        assert minted is None or evaluator.is_pattern(held)
        written = None if "\ud800" in held else text({"operations": ["select"], "tables": [held]})
        for token_text in filter(None, (minted, written)):
            for name, ask in asked:
                legal = evaluator.is_pattern(held) and ask is not None
                allowed = ask is not None and bool(one.check(token_text, ask))
                assert allowed == (legal and (held in (name, "*") or (held, name) == ("sales.*", "sales.x"))), (held, name)


def test_c1_an_agent_is_only_itself():
    """C1: 64 x 64 hostile names as a delegate in a link and as the caller: allowed only if equal and a legal name."""
    one, ask = verifier(), access(ASK)
    callers = [(name, built(lambda name=name: Caller(agent=name))) for name in HOSTILE]
    assert {name for name, who in callers if who} == {name for name in HOSTILE if evaluator.is_name(name)}
    for held in HOSTILE:
        if "\ud800" in held or len(held) > 1000:
            continue
        token_text = text(SALES, hop(held))
        for name, who in callers:
            if who is not None:
                decision = one.check(token_text, ask, caller=who)
                assert bool(decision) == (held == name)
                assert decision.code == (
                    "allowed" if held == name else "caller" if evaluator.is_name(held) else "unreadable_link"
                )


def test_c1_a_task_is_itself_and_what_is_below_it():
    """C1: 64 x 64 hostile names as the token's task and as the caller's: allowed only if equal, or a legal path below."""
    one, ask = verifier(), access(ASK)
    callers = [(name, built(lambda name=name: Caller(agent="orchestrator", task=name))) for name in HOSTILE]
    assert {name for name, who in callers if who} == {name for name in HOSTILE if evaluator.is_task(name)}
    for held in HOSTILE:
        if not evaluator.is_task(held):
            assert (
                built(
                    lambda held=held: Issuer(keyring()).mint(**{**WHO, "task": held}, tables=["sales"], operations=["select"])
                )
                is None
            )
            if "\ud800" not in held and len(held) < 900:
                assert one.check(text(SALES, task=held), ask).code == "malformed"
            continue
        for name, who in callers:
            if who is not None:
                assert bool(one.check(text(SALES, task=held), ask, caller=who)) == (held == name)


@pytest.mark.parametrize("separator", [*",;:|=&?#@!%+*/\\'\"`()[]{}<> .~^$-_", "\u00e9", "\u2044", "://", "\u3002"])
@pytest.mark.parametrize("shape", ["a{}b", "{}a", "a{}", "a{}b{}c"])
def test_c2_a_value_with_a_separator_is_one_value(separator, shape):
    """C2: 37 separators in 4 shapes as column, argument name and string constraint: each round-trips as one value or is
    refused, 444 cases."""
    value = shape.format(separator, separator)
    for link, facts in (
        ({**SALES, "columns": {"sales": [value]}}, lambda v: {**ASK, "columns": [v]}),
        ({"tools": {"search": {value: {"any": True}}}}, lambda v: {"tool": "search", "arguments": {v: 1}}),
        ({"where": {"region": {"in": [value]}}, **SALES}, lambda v: {**ASK, "attributes": {"region": v}}),
    ):
        legal = evaluator.is_text(value)
        ask = built(lambda facts=facts: access(facts(value)))
        if ask is None:
            assert "*" in value or not legal
            continue
        assert code(text(link), facts(value)) == ("allowed" if legal else "unreadable_link")
        for part in ("a", "b", "ab", "a" + separator, value + "a", value.upper()):
            assert (
                part == value
                or built(lambda facts=facts, part=part: access(facts(part))) is None
                or not verifier().check(text(link), access(facts(part)))
            )
        if legal:
            assert Token.parse(text(link)).serialize() == text(link)


class Equal(str):
    """A string that claims to be equal to all others."""

    __slots__ = ()

    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


class Operation(enum.Enum):
    SELECT = "select"


@pytest.mark.parametrize("keyword", ["tables", "operations"])
@pytest.mark.parametrize(
    "value",
    [
        "sales",
        b"sales",
        None,
        True,
        1,
        1.5,
        {"sales": 1},
        [b"sales"],
        [None],
        [1],
        [True],
        [["sales"]],
        [Operation.SELECT],
        [1.5],
        ...,
        [...],
        Operation,
    ],
    ids=short,
)
def test_c3_ill_typed_lists_are_errors_at_mint(keyword, value):
    """C3: a str, bytes, None, number, mapping, enum or a list of these where a list of names is meant: TypeError or ValueError
    at once."""
    names = {"tables": ["sales"], "operations": ["select"]}
    root = Issuer(keyring(), clock=lambda: NOW).mint(**WHO, **names)
    with pytest.raises(REFUSED):
        Issuer(keyring()).mint(**WHO, **{**names, keyword: value})
    with pytest.raises(REFUSED):
        root.attenuate(**{keyword: value})


# fmt: off
ILL_TYPED = {
    "allow": [["sales"], "sales", {"sales": "select"}, {"sales": None}, {1: ["select"]}, {"sales": [1]}, None],
    "columns": [["sales"], {"sales": "name"}, {"sales": [1]}, {}, None],
    "tools": [
        ["search"], "search", {"search": None}, {"search": []}, {"search": {"q": None}}, {"search": {"q": {}}},
        {"search": {"q": "x"}}, {"search": {"q": {"in": "x"}}}, {"search": {"q": {"regex": "x"}}},
        {"search": {"q": {"min": 1.5}}}, {"search": {"q": {"min": True}}}, {"search": {"q": {"any": False}}},
        {"search": {"q": {"any": 1}}}, None
    ],
    "where": [
        {}, ["region"], {"region": "eu"}, {"region": {"in": [1.5]}}, {"region": {"in": [None]}},
        {"region": {"min": 2, "max": 1}}, {"region": {"min": "1"}}, {"region": {"path": ["a"]}},
        {"region": {"in": ["a"], "any": True}}, {"region": {"max": 2**53}}, None
    ],
    "expires_in": ["60", None, True, 0.0 / 1 - 1, float("nan"), float("inf"), 10**30, [60]],
    "expires_at": ["2030-01-01", True, float("nan"), float("inf"), datetime(2030, 1, 1), 2**53, [1]],
    "not_before": ["1", None, True, float("nan"), datetime(2030, 1, 1), 2**53],
    "audience": [None, 1, True, [1], ["a b"], "", b"sales-db", [""]],
    "task": [None, 1, "", "/a", "a//b", "a/..", "\u0430", ["task-123"]], "depth": [None, -1, True, 1.0, "1"],
    "delegate_only": [None, 1, "yes", 0], "unknown": [1], "exp": ["x"], "key": [b"k"],
}
# fmt: on


@pytest.mark.parametrize(("keyword", "value"), [(k, v) for k, values in ILL_TYPED.items() for v in values], ids=short)
def test_c3_ill_typed_caveats_are_errors_when_built(keyword, value):
    """C3: 86 values of another type than the keyword's: TypeError or ValueError at once, and no token."""
    root = Issuer(keyring(), clock=lambda: NOW).mint(**WHO, unrestricted=True, expires_at=None)
    with pytest.raises(REFUSED):
        root.attenuate(**{keyword: value})


@pytest.mark.parametrize(
    "facts",
    [
        {"table": 1, "operation": "select"},
        {"table": b"sales", "operation": "select"},
        {"table": None, "operation": "select"},
        {"table": "sales", "operation": Operation.SELECT},
        {"table": ["sales"], "operation": "select"},
        {"table": "sales"},
        {"operation": "select"},
        {"columns": ["a"]},
        {"arguments": {}},
        {"table": "*", "operation": "select"},
        {"table": "a.*", "operation": "select"},
        {"table": "a..b", "operation": "select"},
        {"table": "sales", "operation": "*"},
        {"tool": "*"},
        {"tool": "a."},
        {"tool": 1},
        {**ASK, "columns": "ab"},
        {**ASK, "columns": [1]},
        {**ASK, "columns": [""]},
        {**ASK, "attributes": ["region"]},
        {**ASK, "attributes": {1: 2}},
        {**ASK, "attributes": {"": 2}},
        {**ASK, "attributes": {"region": ...}},
        {**ASK, "attributes": {"region": b"eu"}},
        {**ASK, "attributes": {"region": {1, 2}}},
        {**ASK, "attributes": {"region": "\ud800"}},
        {"tool": "t", "arguments": [1]},
        {"tool": "t", "arguments": {"q": ...}},
        {"tool": "t", "arguments": {"q": ["\udfff"]}},
        {"tool": "t", "arguments": {"q": {"a": b"x"}}},
        {"tool": "t", "arguments": {"q": float("nan")}},
        {"tool": "t", "arguments": {"q": float("inf")}},
        {"tool": "t", "arguments": {" q": 1}},
    ],
    ids=short,
)
def test_c3_ill_typed_facts_are_errors_when_an_access_is_built(facts):
    """C3: a fact of the wrong type, half a pair, a name with `*` or an empty segment: raises when built."""
    access({**ASK, "columns": ["a"], "tool": "t", "arguments": {"q": None}, "attributes": {"region": "eu"}})
    with pytest.raises(REFUSED):
        access(facts)


def test_c3_a_string_that_lies_about_equality_matches_by_its_characters():
    """C3: a str subclass with its own `__eq__`, as table, operation, agent or argument, is its characters or is refused."""
    for make in (
        lambda: access({"table": Equal("hr"), "operation": "select"}),
        lambda: access({"table": "sales", "operation": Equal("delete")}),
    ):
        ask = built(make)
        assert ask is None or not verifier().check(text(SALES), ask)
    who = built(lambda: Caller(agent=Equal("billing-agent")))
    assert who is None or verifier().check(text(SALES), access(ASK), caller=who).code == "caller"
    tool = text({"tools": {"search": {"q": {"in": ["x"]}}}})
    ask = built(lambda: access({"tool": "search", "arguments": {"q": Equal("y")}}))
    assert code(tool, {"tool": "search", "arguments": {"q": "x"}}) == "allowed"
    assert ask is None or verifier().check(tool, ask).code == "argument"


@pytest.mark.parametrize(
    ("constraint", "holds", "fails"),
    [
        ({"in": [1]}, [1], [True, 1.0, "1", [1], None, 2]),
        ({"in": [True]}, [True], [1, 1.0, "true", "True", False]),
        ({"in": [0, False]}, [0, False], [0.0, "", None, [], {}]),
        ({"in": ["1"]}, ["1"], [1, True, 1.0, " 1", "1 "]),
        ({"in": []}, [], ["", 0, None, False]),
        ({"min": 0, "max": 1}, [0, 1, 0.0, -0.0, 0.5, 1.0], [True, False, "0", None, -1, 2, 2**70, -5e-324, 1.0000000000000002]),
        ({"min": 5}, [5, 2**53, 10**40, 5.0, float(2**53), 1e308], [4, 4.999999999999999, True, "5", "5.0", [5.5]]),
        ({"max": -1}, [-1, -(10**40), -1.0], [0, -0.0, -0.5, "-1", False]),
        ({"any": True}, [None, 1, 1.5, "", [], {}, [None], {"a": [1.5]}, True], []),
        (
            {"path": ["/a/b"]},
            ["/a/b", "/a/b/c", "/a/b/c d"],
            [
                "/a",
                "/a/bc",
                "/a/b/",
                "/a//b",
                "/a/b/../c",
                "/a/b/.",
                "/a/./b",
                "a/b",
                "/A/b",
                "",
                "/",
                "/a/b/%2e%2e",
                "/a/b/%2F",
                "/a/b/%5c",
                "/a/b/%25",
                "/a/b/%00",
                "/a/b\\c",
                "/a/b\0",
                " /a/b",
                "/a/b/%2E",
                1,
                None,
                ["/a/b"],
            ],
        ),
        ({"path": ["/"]}, ["/", "/a", "/a/b"], ["", "a", "//", "/a/", "/..", "/.", "/%2e"]),
        ({"path": []}, [], ["/", "/a"]),
    ],
    ids=short,
)
def test_c3_types_never_coerce(constraint, holds, fails):
    """C3: each constraint with 90 values of every type, as attribute and as argument: a value counts only by type and value."""
    for value in holds + fails:
        wanted = any(value is one for one in holds)
        tool, where = text({"tools": {"t": {"q": constraint}}}), text({"where": {"q": constraint}, **SALES})
        assert code(tool, {"tool": "t", "arguments": {"q": value}}) == ("allowed" if wanted else "argument"), value
        assert code(where, {**ASK, "attributes": {"q": value}}) == ("allowed" if wanted else "attribute"), value


# fmt: off
UNKNOWN_KEYS = [
    "use", "budgets", "Fresh", "keys", "acme:region", "v", "alg", "typ", "kid", "sub", "agent", "jti", "iat", "iss", "scope",
    "admin", "grant", "Tables", "TABLES", "table", "tables ", " tables", "tables\0", "t\u0430bles", "tables\u200b", "tables:",
    ":tables", "operation", "allows", "expires_in", "expires_at", "not_before", "audience", "unrestricted", "keep", "clamp",
    "optional", "in", "min", "", "*", "\U0001f600", "deny", "or", "not", "crit", "critical", "__class__", "\u212a", "cap1",
    "null", "true", "0", "-1", "x" * 300, "a.b", "a/b", "$ref", "@context", "#", "from:", "too", "delegateonly", "depths",
]
# fmt: on
# fmt: off
BESIDE = [
    {}, SALES, {"allow": {"*": ["*"]}}, {"exp": NOW + 600}, {"tools": {"*": {}}, **SALES}, {"tables": "unreadable"},
    {"exp": True}, hop("sales-agent"),
]
# fmt: on


@pytest.mark.parametrize("key", UNKNOWN_KEYS)
def test_c4_an_unknown_key_prohibits(key):
    """C4: 64 unknown keys alone and beside caveats that allow, or that are unreadable, before and after a good link: 1,024
    times `unknown_caveat`."""
    assert len(UNKNOWN_KEYS) == len(set(UNKNOWN_KEYS)) == 64
    for beside in BESIDE:
        link = {**beside, key: True}
        assert code(text(SALES, link)) == code(text(link, SALES)) == "unknown_caveat"


def test_c4_an_unknown_constraint_is_unreadable():
    """C4: an unknown kind, a known one with something beside it, a flag that is not true: `unreadable_link`."""
    for constraint in (
        {},
        {"regex": ".*"},
        {"in": ["x"], "flags": "i"},
        {"any": True, "x": 1},
        {"any": "true"},
        {"optional": True},
        {"in": ["x"], "min": 1},
        {"not": {"in": ["x"]}},
        {"glob": "*"},
        {"In": ["x"]},
    ):
        assert code(text({"tools": {"t": {"q": constraint}}}), {"tool": "t", "arguments": {"q": "x"}}) == "unreadable_link"
        assert code(text({**SALES, "where": {"q": constraint}}), {**ASK, "attributes": {"q": "x"}}) == "unreadable_link"
    assert (
        code(text({"tools": {"t": {"q": {"in": ["x"], "optional": True}}}}), {"tool": "t", "arguments": {"q": "x"}})
        == "allowed"
    )


def test_c4_another_version_is_not_ours():
    """C4: a root record of another version is `unsupported_version`, whatever else it holds; a version of another type is
    malformed."""
    for version in (0, 2, 3, 10, 2**31, 2**53 - 1):
        assert code(text(SALES, v=version)) == "unsupported_version"
    assert code(text(SALES, v=2, new={"a": [1]})) == "unsupported_version"
    for version in (True, "1", "2", [1], {}):
        assert code(text(SALES, v=version)) == "malformed"
    assert code(text(SALES, v=1)) == "allowed"


TOOL_ASK = {"tool": "search", "arguments": {"q": "x"}}


@pytest.mark.parametrize(
    ("link", "facts", "wanted"),
    [
        ({"tables": []}, ASK, "table"),
        ({"operations": []}, ASK, "operation"),
        ({"allow": {}}, ASK, "table"),
        ({"allow": {"sales": []}}, ASK, "table"),
        ({"allow": {"*": []}}, ASK, "table"),
        ({"tools": {}}, TOOL_ASK, "tool"),
        ({"tools": {"search": {}}}, TOOL_ASK, "allowed"),
        ({"tools": {"search": {"q": {"in": []}}}}, TOOL_ASK, "argument"),
        ({"tools": {"search": {"q": {"path": []}}}}, TOOL_ASK, "argument"),
        ({"where": {"r": {"in": []}}}, {**ASK, "attributes": {"r": "x"}}, "attribute"),
        ({"columns": {"sales": []}}, ASK, "column"),
        ({"columns": {"sales": []}}, {**ASK, "columns": []}, "allowed"),
        ({"columns": {"sales": []}}, {**ASK, "columns": ["a"]}, "column"),
        ({"columns": {"sales": ["*"]}}, ASK, "column"),
        ({"columns": {"sales": ["*"]}}, {**ASK, "columns": ["a"]}, "allowed"),
        ({"aud": []}, ASK, "wrong_audience"),
        ({"where": {}}, ASK, "unreadable_link"),
        ({"columns": {}}, ASK, "unreadable_link"),
        ({}, ASK, "unreadable_link"),
        (b"", ASK, None),
        (b"{}", ASK, "unreadable_link"),
        ({"tables": ["*"], "operations": ["*"]}, ASK, "allowed"),
        ({"allow": {"*": ["*"]}}, ASK, "allowed"),
        ({"tools": {"*": {}}}, TOOL_ASK, "allowed"),
        ({"tools": {}, "tables": ["*"]}, ASK, "allowed"),
        ({"tools": {"*": {}}}, ASK, "domain"),
        ({"tables": ["*"]}, TOOL_ASK, "domain"),
        ({"tables": ["*"]}, {}, "domain"),
        ({"exp": NOW + 1}, {}, "allowed"),
        ({"exp": NOW + 1}, ASK, "allowed"),
    ],
)
def test_c5_empty_permits_nothing(link, facts, wanted):
    """C5: what is empty permits nothing or is unreadable; any is said aloud."""
    assert code(text(link), facts) != "allowed" if wanted is None else code(text(link), facts) == wanted


REGION = {**ASK, "attributes": {"r": "eu"}}
FIVE = {**ASK, "attributes": {"r": 5}}
CONTRADICTIONS = {  # name: one link, another, an access that the first alone allows, the code of both
    "two tables": ({"tables": ["sales"]}, {"tables": ["hr"]}, ASK, "table"),
    "two tables of one schema": ({"tables": ["sales.*"]}, {"tables": ["sales"]}, {**ASK, "table": "sales.eu"}, "table"),
    "disjoint operations": ({"operations": ["select"]}, {"operations": ["insert"]}, ASK, "operation"),
    "allow against allow": ({"allow": {"sales": ["select"]}}, {"allow": {"sales": ["insert"]}}, ASK, "operation"),
    "allow against its exception": ({"allow": {"*": ["select"]}}, {"allow": {"*": ["select"], "sales": []}}, ASK, "table"),
    "tables against allow": ({"tables": ["sales"]}, {"allow": {"hr": ["select"]}}, ASK, "table"),
    "operations against allow": ({"operations": ["select"]}, {"allow": {"sales": ["insert"]}}, ASK, "operation"),
    "data against tools": ({"tables": ["sales"]}, {"tools": {"*": {}}}, ASK, "domain"),
    "tools against data": ({"tools": {"t": {}}}, {"tables": ["*"]}, {"tool": "t"}, "domain"),
    "two tools": ({"tools": {"t": {}}}, {"tools": {"u": {}}}, {"tool": "t"}, "tool"),
    "an argument against a closed world": (
        {"tools": {"t": {"q": {"any": True}}}},
        {"tools": {"t": {"p": {"any": True, "optional": True}}}},
        {"tool": "t", "arguments": {"q": 1}},
        "argument",
    ),
    "two regions": ({"where": {"r": {"in": ["eu"]}}}, {"where": {"r": {"in": ["us"]}}}, REGION, "attribute"),
    "list against range": ({"where": {"r": {"in": ["eu"]}}}, {"where": {"r": {"min": 1}}}, REGION, "attribute"),
    "range against range": ({"where": {"r": {"max": 5}}}, {"where": {"r": {"min": 6}}}, FIVE, "attribute"),
    "range against path": ({"where": {"r": {"min": 1}}}, {"where": {"r": {"path": ["/"]}}}, FIVE, "attribute"),
    "integer against text": ({"where": {"r": {"in": [5]}}}, {"where": {"r": {"in": ["5"]}}}, FIVE, "attribute"),
    "two columns": ({"columns": {"*": ["a"]}}, {"columns": {"sales": ["b"]}}, {**ASK, "columns": ["a"]}, "column"),
    "two audiences": ({"aud": ["sales-db"]}, {"aud": ["hr-db"]}, ASK, "wrong_audience"),
    "two tasks": ({"task": "task-123/a"}, {"task": "task-123/b"}, ASK, "task"),
    "another task": ({"task": "task-123"}, {"task": "task-124"}, ASK, "task"),
    "valid and expired": ({"exp": NOW + 600}, {"exp": NOW}, ASK, "expired"),
    "it starts after it ends": ({"exp": NOW + 5}, {"nbf": NOW + 10}, ASK, "not_yet_valid"),
    "two agents": (hop("sales-agent"), hop("report-agent"), ASK, "broken_delegation"),
    "back to the first agent": (hop("sales-agent"), hop("orchestrator", "sales-agent"), ASK, "broken_delegation"),
    "none further and on": ({"depth": 0}, hop("sales-agent"), ASK, "too_deep"),
    "handed on and must be again": (hop("sales-agent"), {"delegate_only": True}, ASK, "delegate_only"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_c6_contradictions_permit_nothing(name):
    """C6: 26 pairs of links that contradict each other: denied with the second's code, whichever links stand between."""
    first, second, facts, wanted = CONTRADICTIONS[name]
    ask = {"audience": "sales-db", "allow_unaddressed": True}
    assert code(text(first), facts, **ask) == "allowed"
    for between in ([], [first], [{"exp": NOW + 900}]):
        if "from" not in first or between != [first]:
            assert code(text(first, *between, second), facts, **ask) == wanted
    if wanted not in ("too_deep", "delegate_only", "broken_delegation"):
        assert code(text(second, first), facts, **ask) != "allowed"


def test_c6_the_earlier_expiry_and_the_later_start_win():
    """C6: of two expiries the earlier holds and of two starts the later, in either order."""
    for first, second in ((5, 600), (600, 5)):
        both = text(SALES, {"exp": NOW + first}, {"exp": NOW + second})
        assert [code(both, now=NOW + at) for at in (0, 4, 5, 599)] == ["allowed", "allowed", "expired", "expired"]
        starts = text(SALES, {"nbf": NOW + first}, {"nbf": NOW + second})
        assert [code(starts, now=NOW + at) for at in (0, 5, 599, 600)] == ["not_yet_valid"] * 3 + ["allowed"]


FACTS = [
    ("table and operation", ASK),
    ("columns", {"columns": ["a"]}),
    ("tool", {"tool": "t"}),
    ("arguments", {"arguments": {"q": 1}}),
    ("attributes", {"attributes": {"r": 1}}),
]
ABOUT = {
    "tables": ({"tables": ["sales"]}, 1),
    "columns": ({"columns": {"sales": ["a"]}}, 3),
    "tools": ({"tools": {"t": {"q": {"any": True}}}}, 12),
    "where": ({"where": {"r": {"any": True}}}, 16),
    "allow and tools": ({"allow": {"sales": ["select"]}, "tools": {"t": {}}}, 0),
}


@pytest.mark.parametrize("name", ABOUT)
def test_c7_a_fact_that_is_asked_about_and_not_stated_prohibits(name):
    """C7: five caveats against each of the 32 subsets of five facts: the reference's code, and never allowed when a needed
    fact is missing."""
    link, needed = ABOUT[name]
    allowed = 0
    for chosen in range(32):
        facts = {key: value for bit, (_, more) in enumerate(FACTS) if chosen >> bit & 1 for key, value in more.items()}
        ask = built(lambda facts=facts: access(facts))
        whole = not (chosen & 2 and not chosen & 1) and not (chosen & 8 and not chosen & 4)
        assert (ask is not None) == whole
        if ask is not None:
            decided = verifier().check(text(link), ask)
            assert decided.code == expected(text(link), facts)
            assert not decided or chosen & needed == needed
            allowed += bool(decided)
    assert allowed


AT = NOW + 600


@pytest.mark.parametrize(
    ("link", "leeway", "edges"),
    [
        ({"exp": AT}, 0, {AT - 1: "allowed", AT: "expired", AT + 1: "expired"}),
        ({"exp": AT}, 5, {AT + 4: "allowed", AT + 5: "expired", AT + 6: "expired"}),
        ({"exp": AT}, 60, {AT + 59: "allowed", AT + 60: "expired"}),
        ({"nbf": AT}, 0, {AT - 1: "not_yet_valid", AT: "allowed", AT + 1: "allowed"}),
        ({"nbf": AT}, 5, {AT - 6: "not_yet_valid", AT - 5: "allowed", AT: "allowed"}),
        ({"exp": 0}, 0, {NOW: "expired"}),
        ({"exp": -1}, 0, {NOW: "expired"}),
        ({"exp": 1 - 2**53}, 0, {NOW: "expired"}),
        ({"exp": 2**53 - 1}, 0, {NOW: "allowed"}),
        ({"exp": 2**31}, 0, {2**31 - 1: "allowed", 2**31: "expired"}),
        ({"exp": 2**32}, 0, {2**32 - 1: "allowed", 2**32: "expired"}),
        ({"nbf": 0}, 0, {NOW: "allowed"}),
        ({"nbf": -1}, 0, {NOW: "allowed"}),
        ({"nbf": 2**53 - 1}, 0, {NOW: "not_yet_valid", 2**53 - 1: "allowed"}),
        ({"exp": AT}, 0, {AT - 0.001: "allowed", AT + 0.999: "expired", AT - 0.5: "allowed"}),
        ({"nbf": AT}, 0, {AT - 0.001: "not_yet_valid", AT + 0.001: "allowed"}),
    ],
    ids=short,
)
def test_c8_time_holds_to_the_second(link, leeway, edges):
    """C8: expired at equality, valid from equality, by leeway and no more, at the edges of 31, 32 and 53 bits."""
    for now, wanted in edges.items():
        assert code(text(SALES, link), now=now, leeway=leeway) == wanted, now


@pytest.mark.parametrize(
    ("iat", "leeway", "wanted"),
    [
        (NOW, 0, "allowed"),
        (NOW + 60, 0, "allowed"),
        (NOW + 61, 0, "not_yet_valid"),
        (NOW + 61, 60, "not_yet_valid"),
        (NOW + 61, 61, "allowed"),
        (NOW + 62, 61, "not_yet_valid"),
        (NOW + 10**6, 0, "not_yet_valid"),
        (0, 0, "allowed"),
    ],
)
def test_c8_a_token_from_the_future_is_not_yet_valid(iat, leeway, wanted):
    """C8: `iat` may lie 60 seconds ahead, or the leeway, if more."""
    assert code(text(SALES, iat=iat), leeway=leeway) == wanted


@pytest.mark.parametrize(
    "value",
    [
        "1764061800.0",
        "1e3",
        "NaN",
        "Infinity",
        "null",
        "9007199254740992",
        "9223372036854775807",
        "true",
        '"1764061800"',
        '"2030-01-01"',
        "[1764061800]",
        "{}",
        "1764061800.5",
        "1" + "0" * 400,
    ],
)
@pytest.mark.parametrize("key", ["exp", "nbf"])
def test_c8_a_time_that_is_no_integer_is_unreadable(key, value):
    """C8: 28 times of another type or size in a signed link: unreadable, never allowed."""
    assert code(text(SALES, f'{{"{key}":{value}}}'.encode())) == "unreadable_link"


def test_c8_one_instant_in_any_zone_is_one_expiry():
    """C8: the same instant in three zones, at a fold and as seconds makes the same link; a naive one raises."""
    root = Issuer(keyring(), clock=lambda: NOW).mint(**WHO, tables=["sales"], operations=["select"], expires_at=None)
    instant = datetime.fromtimestamp(AT, UTC)
    zones = [UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-11))]
    children = {root.attenuate(expires_at=when).serialize() for when in (AT, *(instant.astimezone(zone) for zone in zones))}
    assert len(children) == 1
    berlin = ZoneInfo("Europe/Berlin")
    fold = [datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=which) for which in (0, 1)]
    edges = [int(when.timestamp()) for when in fold]
    assert edges[1] - edges[0] == 3600
    for when, edge in zip(fold, edges, strict=True):
        child = root.attenuate(expires_at=when).serialize()
        assert [code(child, now=at) for at in (edge - 1, edge)] == ["allowed", "expired"]
    for naive in (datetime(2030, 1, 1), datetime.max):
        with pytest.raises(REFUSED):
            root.attenuate(expires_at=naive)


def test_c8_the_years_at_the_edges_are_handled():
    """C8: the years 1 and 9999 as aware datetimes are an expiry long past and one far ahead, or are refused."""
    root = Issuer(keyring(), clock=lambda: NOW).mint(**WHO, tables=["sales"], operations=["select"], expires_at=None)
    past = built(lambda: root.attenuate(expires_at=datetime(1, 1, 1, tzinfo=UTC)).serialize())
    assert past is None or code(past) == "expired"
    assert code(root.attenuate(expires_at=datetime(9999, 12, 31, tzinfo=UTC)).serialize()) == "allowed"


def test_c8_a_clock_that_goes_back_revives_nothing_but_by_its_own_say():
    """C8: the decision follows the clock given, an hour back or forth, and keeps nothing between checks."""
    times = iter([AT - 1, AT, AT - 3600, AT + 3600, AT - 1])
    one, ask, token_text = Verifier(keyring(), clock=lambda: next(times)), access(ASK), text(SALES, {"exp": AT}, iat=NOW - 7200)
    assert [one.check(token_text, ask).code for _ in range(5)] == ["allowed", "expired", "allowed", "expired", "allowed"]


@pytest.mark.parametrize("reading", [None, "1764061200", float("nan"), float("inf"), True, [], RuntimeError], ids=short)
def test_c8_a_clock_that_fails_decides_nothing(reading):
    """C8: a clock that raises or gives no finite number: an exception, not a decision."""

    def clock():
        if reading is RuntimeError:
            raise RuntimeError("the clock is broken")
        return reading

    assert code(text(SALES)) == "allowed"
    with pytest.raises((ValueError, RuntimeError), match="clock"):
        Verifier(keyring(), clock=clock).check(text(SALES), access(ASK))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("sales", ["sales"], ["sales.eu", "Sales", "sale", "saless", "public.sales"]),
        ("market.*", ["market.eu", "market.eu.berlin"], ["market", "markets.eu", "marketx", "eu.market", "Market.eu"]),
        ("market.eu.*", ["market.eu.berlin"], ["market.eu", "market.us", "market.euro.x"]),
        ("*", ["sales", "market.eu", "a.b.c.d"], []),
    ],
    ids=short,
)
def test_c9_a_name_in_another_case_or_schema_is_another_table(pattern, yes, no):
    """C9: patterns match at segment boundaries and byte for byte, for tables and for tools alike."""
    for name in yes + no:
        assert bool(
            verifier().check(
                text({"operations": ["select"], "tables": [pattern]}), access({"table": name, "operation": "select"})
            )
        ) == (name in yes)
        assert bool(verifier().check(text({"tools": {pattern: {}}}), access({"tool": name}))) == (name in yes)


def test_the_most_specific_entry_decides():
    """Exact, then the longest `.*`, then `*`: in `allow`, `columns` and `tools`, in any order of the entries."""
    levels = [("*", "d0"), ("market.*", "d1"), ("market.eu.*", "d2"), ("market.eu.berlin", "d3")]
    tables = {
        "sales": 0,
        "market": 0,
        "market.us": 1,
        "market.eu": 1,
        "market.eu.paris": 2,
        "market.eu.berlin": 3,
        "market.eu.berlin.x": 2,
    }
    for chosen in itertools.chain.from_iterable(itertools.combinations(levels, size) for size in range(1, 5)):
        allow = text({"allow": {pattern: [name] for pattern, name in chosen}})
        for table, level in tables.items():
            present = [i for i, entry in enumerate(levels) if entry in chosen and i <= level]
            for operation in ("d0", "d1", "d2", "d3"):
                wanted = bool(present) and operation == levels[max(present)][1]
                assert bool(verifier().check(allow, access({"table": table, "operation": operation}))) == wanted, (
                    chosen,
                    table,
                    operation,
                )
