"""What a kind of caveat says of itself: its class alone knows it, and everything else asks."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from captoken import Access, Issuer, Verifier, WideningError
from captoken._language.caveats import BUILT_IN, V1, BuiltIn
from captoken._language.conditions import TaskPath
from captoken._language.constraints import Constraint, read_constraint
from captoken._language.data import Allowances, Columns
from captoken._language.tool import Tools
from captoken.caveats import Situation
from captoken.keys import HolderKey
from tests.fixtures import KEYRING, NOW, WHO, clock, data, mint, named, tool

# A value of each caveat of version 1, not in normal form where there is another form.
KEY = HolderKey.from_bytes(bytes(range(32))).public
VALUES: dict[str, Any] = {
    "tables": ["sales", "market.*", "sales"],
    "operations": ["update", "select"],
    "allow": {"sales": ["select"], "hr.*": [], "*": ["update", "*"]},
    "columns": {"people": ["name", "city"], "*": ["*"], "hr": []},
    "rows": {"orders": {"year": {"max": 9}, "tenant": {"in": ["b", "a", "b"]}}, "*": {"tenant": {"any": True}}, "free": {}},
    "tools": {"search": {"q": {"any": True}, "n": {"max": 5, "optional": True}}, "fetch": {}, "wall": {"x": {"in": []}}},
    "where": {"region": {"in": ["us", "eu"]}, "path": {"path": ["/a/b", "/a"]}},
    "exp": NOW,
    "nbf": NOW,
    "task": "task-123/part",
    "aud": ["b", "a", "b"],
    "uses": 1,
    "budget": {"usd": 5, "eur": 7},
    "marks": {"private": {"tables": ["crm.*"], "operations": ["select"]}, "outside": {"tools": ["mail.*"]}},
    "forbid": [{"in": ["outside"], "after": ["private"]}],
    "consent": [{"by": KEY, "for": {"tools": ["mail.*"]}}],
    "fresh": 90,
}

WORDS: dict[str, list[str]] = {
    "tables": ["only on market.*, sales, sales"],
    "operations": ["only select, update"],
    "allow": ["anything on *", "nothing on hr.*", "select on sales"],
    "columns": ["any stated column of *", "no column of hr", "columns city, name of people"],
    "rows": ["any row of *", "any row of free", 'rows of orders where tenant is one of "a", "b" and year is at most 9'],
    "tools": [
        "tool fetch, with any arguments", "tool search, with n at most 5 (optional); q anything",
        "tool wall, with x nothing there is",
    ],
    "where": ["where path is at or below /a", 'where region is one of "eu", "us"'],
    "exp": ["until 2025-11-25 09:00:00Z, expired 0s ago"],
    "nbf": ["not before 2025-11-25 09:00:00Z"],
    "task": ["in task task-123/part"],
    "aud": ["only at a, b, b"],
    "uses": ["at most 1 use, with all that is handed on"],
    "budget": ["at most 7 eur, 5 usd, with all that is handed on"],
    "marks": ["mark outside: tool mail.*", "mark private: select on crm.*"],
    "forbid": ["nothing in outside after private"],
    "consent": [f"consent of {KEY} to each: tool mail.*"],
    "fresh": ["only under an overlay of the last 1m 30s"],
}  # fmt: skip

# What stands differently: beside another caveat, or where a list is empty.
MORE_WORDS: list[tuple[dict[str, Any], list[str]]] = [
    ({"operations": ["select"], "tables": ["sales"]}, ["select on sales"]),
    ({"operations": ["*"], "tables": ["sales"]}, ["anything on sales"]),
    ({"operations": [], "tables": ["sales"]}, ["nothing on any table"]),
    ({"tables": []}, ["nothing on any table"]),
    ({"operations": []}, ["nothing on any table"]),
    ({"operations": ["*"]}, ["any operation"]),
    ({"allow": {}}, ["nothing on any table"]),
    ({"tools": {}}, ["no tool"]),
    ({"aud": []}, ["at no server"]),
    ({"nbf": 2**53 - 1}, ["not before 9007199254740991"]),  # no calendar has it
    ({"uses": 2}, ["at most 2 uses, with all that is handed on"]),
    ({"where": {"a b": {"min": 1, "max": 5}}}, ['where "a b" is 1 to 5']),
    ({"tools": {"f": {"a": {"in": [], "optional": True}, "b": {"max": 5}}}}, ["tool f, with b at most 5"]),
    ({"tools": {"f": {"_": {"in": [], "optional": True}}}}, ["tool f, with no arguments"]),
    ({"marks": {"a": {"tables": ["b"], "tools": ["c"], "operations": ["*"]}}}, ["mark a: any operation on b; tool c"]),
    (
        {"marks": {"a": {"tools": ["get"], "but": {"tables": ["t"], "operations": ["select"], "tools": {"get": {"x": {"in": [1]}}}}}}},
        ["mark a: tool get, except select on t; tool get, with x 1"],
    ),
    ({"forbid": [{"in": ["b", "a"], "after": ["d", "c"]}]}, ["nothing in a, b after d and c"]),
    ({"forbid": [{"in": ["a"], "after": ["b"], "unless": KEY}]}, [f"nothing in a after b, unless {KEY} consents to the call"]),
    ({"where": {"a": {"in": ["\u2800x"]}}}, ['where a is "\\u2800x"']),
]


def made(key: str, value: Any) -> BuiltIn:
    caveat = V1.kinds[key](value)
    assert isinstance(caveat, BuiltIn)
    return caveat


def words(stated: dict[str, Any]) -> list[str]:
    beside = {key: made(key, value) for key, value in stated.items()}
    return [line for caveat in beside.values() for line in caveat.words(NOW, beside)]


def test_every_kind_is_here() -> None:
    assert list(VALUES) == [kind.key for kind in BUILT_IN] == list(WORDS) == list(V1.kinds)


@pytest.mark.parametrize("key", VALUES)
def test_a_caveat_is_held_in_normal_form(key: str) -> None:
    """Normal again, read back as the same, met with itself the same, and covered by itself."""
    held = made(key, VALUES[key]).normalized()
    assert held.normalized() == held == held.meet(held) and held.covers(held)
    again = [made(key, value).normalized() for key, value in held.stated().items()]
    both = again[0]
    for one in again[1:]:
        both = both.meet(one)
    assert both == held and not held.is_nothing


@pytest.mark.parametrize("key", VALUES)
def test_people_read_each_kind_in_words_of_its_own(key: str) -> None:
    assert words({key: VALUES[key]}) == WORDS[key]


@pytest.mark.parametrize(("stated", "lines"), MORE_WORDS, ids=repr)
def test_words_go_by_what_stands_beside_a_caveat(stated: dict[str, Any], lines: list[str]) -> None:
    assert words(stated) == lines


def test_what_is_seen_at_a_glance() -> None:
    for key, held, wanted, seen in (
        ("tables", ["a", "b"], ["b", "a"], True),
        ("tables", ["a", "b"], ["b"], True),
        ("tables", ["a"], ["a", "b"], False),
        ("tables", ["*"], ["a"], False),
        ("operations", ["a", "b"], ["b"], True),
        ("operations", ["a"], ["a", "b"], False),
        ("operations", ["*"], ["a", "b"], True),
        ("operations", ["a"], ["*"], False),
        ("exp", 5, 5, True),
        ("exp", 5, 4, True),
        ("exp", 5, 6, False),
        ("allow", {"a": []}, {"a": []}, False),
    ):
        assert made(key, held).plainly_covers(made(key, wanted)) is seen, (key, held, wanted)


def test_an_access_without_a_table_or_tool_is_asked_as_the_empty_name() -> None:
    """No caveat of that domain is asked about it. Should one be, no name is the empty one, and `*` holds it."""
    for key, of_all, of_none in (
        ("tables", ["*"], ["t"]),
        ("operations", ["*"], ["select"]),
        ("allow", {"*": ["*"]}, {"t": ["*"]}),
        ("tools", {"*": {}}, {"t": {}}),
    ):
        assert made(key, of_all).prohibits(Access(), Situation(NOW)) is None
        assert made(key, of_none).prohibits(Access(), Situation(NOW)) is not None
        assert [*made(key, of_all).looks(Access())] == [*made(key, of_none).looks(Access())] == []
    for kind, field, value in ((Allowances, "value", {"": ["*"]}), (Tools, "rules", {"": {}})):
        caveat = kind({"t": {} if kind is Tools else ["*"]})
        structs.force_setattr(caveat, field, value)
        assert caveat.prohibits(Access(), Situation(NOW)) is None
    columns = Columns({"t": ["a"]})
    assert columns.prohibits(Access(), Situation(NOW)) is None and columns.looks(Access()) == ()
    structs.force_setattr(columns, "value", {"": ["a"]})
    assert columns.prohibits(Access(), Situation(NOW)) is not None
    assert columns.looks(Access()) == ()
    told = made("tables", ["t"]).prohibits(Access(), Situation(NOW))
    assert told is not None and told.text == 'table  is not among ["t"]'


def test_what_a_caveat_looks_at_is_told_with_what_it_states() -> None:
    """Each list and constraint beside the value of the access, and nothing where none is stated or no entry matches."""
    of_table = Access(table="a.b", operation="select", columns=["x"], attributes={"n": 1, "m": 2})
    bare = Access(table="a.b", operation="select", attributes={"n": 1})
    called = Access(tool="f", arguments={"p": 1, "q": 2})
    rule = {"p": {"in": [1]}, "q": {"any": True}, "r": {"max": 5}}
    for key, value, access, looked in (
        ("tables", ["a.*"], of_table, [(["a.*"], "a.b")]),
        ("operations", ["*"], of_table, [(["*"], "select")]),
        ("allow", {"a.*": ["select"]}, of_table, [(["select"], "select")]),
        ("allow", {"c": ["select"]}, of_table, []),
        ("columns", {"a.*": ["x", "y"]}, of_table, [(["x", "y"], ("x",))]),
        ("columns", {"a.*": ["x", "y"]}, bare, []),
        ("columns", {"c": ["x"]}, of_table, []),
        ("where", {"n": {"max": 5}, "o": {"max": 5}}, of_table, [({"max": 5}, 1)]),
        ("tools", {"*": rule}, called, [({"in": [1]}, 1)]),
        ("tools", {"g": rule}, called, []),
        ("tools", {"*": {}}, called, []),
    ):
        assert [*made(key, value).looks(access)] == looked, (key, value)


def test_a_constraint_s_kind_is_one_class_too() -> None:
    said: list[tuple[dict[str, Any], str]] = [
        ({"any": True}, "anything"),
        ({"in": [True, 2, "a"]}, 'one of true, 2, "a"'),
        ({"min": 1}, "at least 1"),
        ({"max": 1}, "at most 1"),
        ({"min": -1, "max": 1}, "-1 to 1"),
        ({"path": ["/"]}, "at or below /"),
        ({"prefix": ["a-", "b c"]}, 'text that begins with a-, "b c"'),
        ({"url": ["http://b.c:81/", "https://*.b.c/x"]}, "a url at or below http://b.c:81/, https://*.b.c/x"),
        ({"cidr": ["10.0.0.0/8", "2001:db8::/32"]}, "an address in 10.0.0.0/8, 2001:db8::/32"),
        ({"each": {"in": ["a"]}}, 'a list, each item "a"'),
        ({"each": {"in": ["a"]}, "most": 3}, 'a list of at most 3, each item "a"'),
        ({"each": {"in": []}, "most": 0}, "the empty list"),
    ]
    for stated, words_of_it in said:
        kind = read_constraint(stated)
        assert (kind.words(), kind.json()) == (words_of_it, stated)
    bare = Constraint()
    for ask in (bare.json, bare.words, lambda: bare.accepts(1), lambda: bare.alike(bare), lambda: bare.read({})):
        with pytest.raises(NotImplementedError):
            ask()


def test_tasks_that_do_not_lie_on_one_path_are_told_as_that() -> None:
    reason = TaskPath("q3", is_torn=True).prohibits(Access(tool="t"), None)
    assert reason is not None and (reason.code, reason.text) == ("task", "its tasks are not above or below one another")


def test_what_is_too_much_of_an_attribute_is_the_constraint_that_was_asked() -> None:
    held = Issuer(KEYRING, clock=clock()).mint(**WHO, unrestricted=True, where={"n": {"max": 5}, "m": {"max": 5}})
    with pytest.raises(WideningError) as caught:
        held.attenuate(where={"n": {"max": 9}, "m": {"max": 4}})
    assert caught.value.excess == {"n": {"min": 0, "max": 9}}


FREE = {"unrestricted": True}


@pytest.mark.parametrize(
    ("caveats", "said"),
    [
        ({"tools": {"ping": {}, "pay": {"to": {"any": True}, "cents": {"max": 5.5}}}},
         "tools, at pay.cents, must be made of str, int, bool, lists and mappings, not of float: numbers are whole, so count cents, say"),
        ({"tools": {"pay": {"memo": {"in": [""]}, "to": {"any": True}}}}, "tools, at pay.memo: a value of 'in' '' is empty"),
        ({"tools": {"pay": {"file": {"path": ["data"]}}}}, "tools, at pay.file: path 'data' is not an absolute path: '/', or"),
        ({**FREE, "where": {"level": {"any": True}, "region": {"in": ["eu "]}}}, "where, at region.in: a value of 'in' 'eu ' is empty"),
        ({**FREE, "where": 5}, "where must be a mapping, not int"),
        ({"tools": {"pay": {5: {"any": True}}}}, "tools, at pay: argument must be a str, not int"),
        ({"tools": {5: {}}}, "tool must be a str, not int"),
        ({"tools": {"a..b": {}}}, "tool 'a..b' is not a pattern"),
        ({**FREE, "budget": {"eur": -1}}, "eur"),
        ({"tables": [5.5], "operations": ["select"]}, "tables must be made of str, int, bool, lists and mappings, not of float"),
        # Each entry is legal by itself.
        ({"tables": ["*"], "operations": ["select"], "rows": {"*": {"tenant": {"in": ["a"]}}, "orders": {"id": {"max": 5}}}}, "tenant"),
    ],
    ids=lambda value: named(value)[:50],
)  # fmt: skip
def test_what_is_wrong_in_a_map_is_told_with_its_place(caveats: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        Issuer(KEYRING, clock=clock()).mint(**WHO, **caveats)
    assert said in str(raised.value) and str(raised.value).count(", at ") == said.count(", at ")


@pytest.mark.parametrize("value", ["data/q3.csv", "/data/./q3.csv", "/data/", 5])
def test_what_is_no_absolute_path_is_told_as_that_and_what_is_one_is_not(value: Any) -> None:
    token = Issuer(KEYRING, clock=clock()).mint(**WHO, tools={"read": {"file": {"path": ["/data"]}}})
    ask = Verifier(KEYRING, clock=clock())
    said = 'argument file of tool read does not satisfy {"path": ["/data"]}'
    assert ask.check(token, tool("read", file=value)).refusals[0].text == (
        f"{said}: write an absolute path like /a/b, without '.', '..' or a '/' at its end"
    )
    assert ask.check(token, tool("read", file="/etc/passwd")).refusals[0].text == said


def test_columns_that_look_like_exclusions_are_refused_by_writers_and_read_as_names() -> None:
    """`!email` is a legal name of a column (4.4): what has it is read, and no writer takes it for "all but email"."""
    given = {"sales": ["region", "!email"]}
    with pytest.raises(ValueError, match="'!email': a token cannot exclude columns"):
        mint(tables=["sales"], operations=["select"], columns=given)
    wide = mint(tables=["sales"], operations=["select"])
    with pytest.raises(ValueError, match="list the columns that are allowed"):
        wide.attenuate(columns=given)
    read = Columns(given)
    assert read.prohibits(data("sales", "select", "!email"), Situation(NOW)) is None
    reason = read.prohibits(data("sales", "select", "email"), Situation(NOW))
    assert reason is not None and reason.code == "column"


def test_any_column_has_to_be_named_all_the_same() -> None:
    anything = Columns({"sales": ["*"]})
    assert anything.prohibits(data("sales", "select", "region"), Situation(NOW)) is None
    reason = anything.prohibits(data("sales"), Situation(NOW))
    assert reason is not None and reason.text == "the token allows any column of table sales, but only by its name"
