"""What a decision costs: every kind is linear in its constraint plus the value, and work is counted (spec 13, 24.23).

None of these asks the time: they count what Python calls, and which strings are compared.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from msgspec.structs import force_setattr

from captoken import Access
from captoken._format.encoding import encode_json
from captoken._language import patterns, work
from captoken._language.caveats import V1, Situation, Vocabulary
from captoken._language.conditions import Where
from captoken._language.constraints import read_constraint
from captoken._language.data import Columns
from captoken._language.link import Link
from captoken._language.links import read_link
from tests.costs.counting import calls
from tests.fixtures import code, mint, verifier


class Compared(str):
    """A string that counts how often it is compared with another."""

    __slots__ = ()
    count = 0

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def listed(kind: str, entries: int) -> dict[str, Any]:
    """A constraint of a kind with so many entries; its last one alone accepts what `value` makes."""
    write = {
        "in": lambda at: f"v{at}",
        "path": lambda at: f"/v{at}",
        "prefix": lambda at: f"v{at}.",
        "url": lambda at: f"https://v{at}.example.com",
        "cidr": lambda at: f"10.{at // 128}.{2 * at % 256}.0/24",
    }[kind]
    return {kind: [write(at) for at in range(entries)]}


def value(kind: str, entries: int) -> str:
    """What only the last of `entries` accepts."""
    last: str = listed(kind, entries)[kind][-1]
    return {"path": f"{last}/a", "prefix": f"{last}a", "cidr": last.replace("0/24", "7")}.get(kind, last)


@pytest.mark.parametrize("kind", ["in", "path", "prefix", "url", "cidr"])
@pytest.mark.parametrize("nested", [0, 1, 3])
def test_a_long_list_costs_once_and_not_for_each_item_of_a_value(kind: str, nested: int) -> None:
    """16 entries and 1, and 20 values and 200: what more entries cost does not depend on how many values there are."""
    most = 16 if kind == "url" else 300
    counts = {}
    for entries in (1, most):
        for values in (20, 200):
            stated: Any = listed(kind, entries)
            judged: Any = [value(kind, entries)] * values
            for _ in range(nested):
                stated, judged = {"each": stated}, [[item] for item in judged]
            constraint = read_constraint({"each": stated})
            assert constraint.accepts(judged)
            counts[entries, values] = calls(lambda c=constraint, v=judged: c.accepts(v))  # type: ignore[misc]
    for values in (20, 200):
        # A list of urls is short: of each value 16 paths are compared, each by a call.
        more = 15 * values if kind == "url" else 1
        assert counts[most, values] <= counts[1, values] + more, counts
    assert counts[most, 200] <= 10 * counts[most, 20], counts


def test_a_path_of_many_segments_is_not_read_once_for_each() -> None:
    constraint = read_constraint({"path": ["/a/b"]})
    assert constraint.accepts("/a/b" * 2) and constraint.accepts("/a/b" * 5000)
    assert calls(lambda: constraint.accepts("/a/b" * 5000)) == calls(lambda: constraint.accepts("/a/b" * 2))


def test_items_that_are_judged_together_are_judged_as_one_by_one() -> None:
    """Every kind against lists of up to four of all sorts of values, 20,000 times."""
    kinds = [
        {"any": True},
        {"in": []},
        {"in": [1, "a", True]},
        {"in": [0, "/a", "10.0.0.1"]},
        {"min": 1},
        {"max": 1},
        {"min": 0, "max": 5},
        {"path": ["/a", "/b/c"]},
        {"path": ["/"]},
        {"prefix": ["a", "b-"]},
        {"url": ["https://a.example.com", "https://*.b.example.com/x"]},
        {"cidr": ["10.0.0.0/8", "2001:db8::/32"]},
    ]
    values: list[Any] = [1, 0, 5, 6, -1, True, False, None, 1.0, 0.5, 10**400, "", "a", "b-c", "b", "/", "/a", "/a/", "/ab"]
    values += ["/b/c/d", "10.0.0.1", "2001:db8::1", "10.0.0.01", "https://a.example.com", "https://k.b.example.com/x/y", [], {}]
    rng = random.Random(27)
    said = set()
    for _ in range(20_000):
        stated = rng.choice(kinds)
        inside = read_constraint(stated)
        some = rng.choices(rng.sample(values, 3), k=rng.randint(0, 4))
        expected = all(inside.accepts(one) for one in some)
        assert read_constraint({"each": stated}).accepts(some) is expected, (stated, some)
        deep = [some[:2], some[2:]] if rng.random() < 0.5 else [some, *([1] if rng.random() < 0.2 else [])]
        assert read_constraint({"each": {"each": stated}}).accepts(deep) is (expected and 1 not in deep), (stated, deep)
        said.add((str(stated), expected))
    assert len(said) == 2 * len(kinds) - 1  # all that `any` is asked it accepts


def test_a_bound_on_how_many_holds_for_each_list_inside() -> None:
    constraint = read_constraint({"each": {"each": {"any": True}, "most": 2}, "most": 3})
    assert constraint.accepts([[1, 2], [], [3]])
    assert not constraint.accepts([[1, 2, 3]])
    assert not constraint.accepts([[], [], [], []])
    assert not constraint.accepts([[], 1])
    assert constraint.accepts([])


def test_columns_are_looked_up_and_not_compared_with_each() -> None:
    """200 columns that are stated and 200 that are listed: not 40,000 comparisons."""
    names = [f"c{at}" for at in range(200)]
    access = Access(table="t", operation="select", columns=names)
    force_setattr(access, "columns", tuple(map(Compared, names)))
    caveat = Columns({"t": [*reversed(names)]})
    Compared.count = 0
    assert caveat.prohibits(access, Situation(0)) is None
    assert Compared.count <= 400
    reason = Columns({"t": names[1:]}).prohibits(access, Situation(0))
    assert reason is not None and "c0" in reason.text and "c1" not in reason.text.partition(" of table ")[0]


def test_a_name_of_many_segments_is_looked_up_in_a_short_map_by_its_entries() -> None:
    entries = {"*": 1, "a.*": 2, "a.a.*": 3, "b.*": 4, "a.a": 5}
    for name in ("a" + ".a" * 4, "a" + ".a" * 120):
        assert patterns.decided(entries, name, 0) == 3
        assert patterns.decided({"b.*": 1}, name, 0) == 0
    few = calls(lambda: patterns.decided({"*": 1}, "a.a", 0))
    assert calls(lambda: patterns.decided({"*": 1}, "a" + ".a" * 120, 0)) <= few


# --- counted (24.25, 24.26) ------------------------------------------------------------------------------------------


def counted(value: Any) -> int:
    """The size as the specification has it, item by item."""
    if isinstance(value, str):
        return len(value.encode()) + 2
    if isinstance(value, dict):
        return 2 + sum(16 + counted(key) + counted(item) for key, item in value.items())
    return 2 + sum(16 + counted(item) for item in value) if isinstance(value, list | tuple) else 24


def drawn(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(6 if depth else 4)
    if kind == 4:
        return [drawn(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 5:
        return {f"k{at}é"[: rng.randint(1, 3)]: drawn(rng, depth - 1) for at in range(rng.randrange(4))}
    return (rng.choice([1, 10**40, -1]), rng.choice([True, None]), rng.random(), rng.choice(["", "eu", "é\n", "😀"]))[kind]


def test_the_size_of_a_value_is_that_of_its_items_one_by_one() -> None:
    rng = random.Random(2)
    values = [drawn(rng, 5) for _ in range(3000)]
    assert [work.size_of(value) for value in values] == [counted(value) for value in values]
    assert len({work.size_of(value) for value in values}) > 200
    assert work.size_of(("a", "b")) == work.size_of(["a", "b"]) == 2 + 2 * 19


def test_a_size_beyond_the_limit_is_known_before_all_of_it_is_looked_at() -> None:
    """A million lists in lists: a level that is too long is not gone into. What is deep is counted, and never a crash."""
    wide = [[[[]] * 1000] * 1000]
    assert work.size_of(wide) > work.MOST
    assert calls(lambda: work.size_of(wide)) < 5000
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    assert work.size_of(deep) == 50_000 * 18 + 2


def held_to(constraint: dict[str, Any]) -> Any:
    """A verifier's grant of a token that has an attribute held to this."""
    return verifier().authenticate(mint(unrestricted=True, where={"x": constraint}))


def test_a_grant_that_is_asked_again_counts_again() -> None:
    """The checks in a row of the second question and of later ones are asked only of what may be counted."""
    grant = held_to({"each": {"min": 0}})
    for _ in range(3):
        assert grant.check(Access(attributes={"x": [1]}))
        assert grant.check(Access(attributes={"x": [1] * 26_213}))
        denied = grant.check(Access(attributes={"x": [1] * 26_214}))
        assert (denied.code, denied.step) == ("too_much_work", 8)
        assert denied.refusals[0].link is None
    assert grant.check(Access(attributes={"x": [-1] * 3})).code == "attribute"
    assert grant.recheck([Access(attributes={"x": [1] * 26_214})]).code == "too_much_work"
    assert grant.recheck()


def test_what_costs_little_to_bound_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A usual request is told from the rest by a few sums: no constraint is encoded, of none of 60 links."""
    looked = []
    monkeypatch.setattr(Where, "looks", lambda *_: looked.append(1) or ())
    token = mint(unrestricted=True, where={"x": {"any": True}})
    for _ in range(59):
        token = token.attenuate(where={"x": {"any": True}})
    asked = verifier()
    small = {"x": "é" * 1000, "y": [1, "a"], "z": {"k": None}, "n": 1.5}
    facts: dict[str, Any] = {"table": "t", "operation": "select", "columns": ["a"] * 10}
    assert asked.check(token, Access(tool="t", arguments={"a": "b"}, attributes=small, **facts))
    assert not looked
    assert asked.check(token, Access(attributes={"x": "é" * 10_000}))
    assert len(looked) == 60


def test_no_bound_is_below_what_is_counted() -> None:
    """Whatever links and access are: where the sums say that it cannot be too much, it is not."""
    rng = random.Random(7)
    fitting: set[bool] = set()
    for _ in range(300):
        facts = {f"a{at}": drawn(rng, 3) for at in range(rng.randrange(4))}
        rule = {name: {"in": ["x"]} for name in facts} or {"a": {"min": 1}}
        access = Access(
            table="t" * rng.randint(1, 256), operation="o" * rng.randint(1, 128), columns=["é" * rng.randint(1, 128)] * rng.randrange(3),
            tool="t", arguments=facts, attributes=facts,
        )  # fmt: skip
        stated = {"tables": ["*"], "operations": ["*"], "allow": {"*": ["*"]}, "columns": {"*": ["*"]}, "tools": {"t": rule}, "where": rule}
        link = read_link(encode_json(stated), V1)
        assert isinstance(link, Link)
        total = sum(work.size_of(value) for _, value in work.looked([link], access))
        for links in (1, 2, 8, 64, 300, 600, 1000):
            assert not work.fits(access, links) or links * total <= work.MOST - 24_576
            fitting.add(work.fits(access, links))
    assert fitting == {True, False}


LARGE = {"a": ["x" * 100] * 1000}
AT = {"table": "t", "operation": "update"}


@pytest.mark.parametrize(
    "facts",
    [{**AT, "columns": ["c"] * 1000}, {"tool": "t", "arguments": LARGE}, {"attributes": LARGE}, {**AT, "row": LARGE}, {**AT, "becomes": LARGE}, {**AT, "rows": [{"a": {"in": LARGE["a"]}}]}],
    ids=lambda facts: list(facts)[-1],
)  # fmt: skip
def test_what_is_large_is_counted_whichever_fact_it_is(facts: dict[str, Any]) -> None:
    assert not work.fits(Access(**facts), 60)


class Own(Where, frozen=True):
    key = "acme:where"


def test_an_own_caveat_is_no_constraint_even_where_it_is_made_of_ours() -> None:
    token = mint(unrestricted=True).with_raw_link(encode_json({"acme:where": {"x": {"each": {"min": 0}}}}))
    access = Access(attributes={"x": [1] * 60_000})
    assert code(token, access, vocabulary=Vocabulary(Own)) == "allowed"
    assert code(mint(unrestricted=True, where={"x": {"each": {"min": 0}}}), access) == "too_much_work"


def test_a_list_that_does_not_decide_counts_nothing() -> None:
    """No entry for the table, or no table: beside an attribute that takes all that is left."""
    filled = Access(table="t", operation="select", attributes={"x": [1] * 26_213})
    rule, four = {"x": {"each": {"min": 0}}}, ["select", "insert", "delete", "update"]
    assert code(mint(where=rule, allow={"hr": four}), filled) == "table"
    assert code(mint(where=rule, allow={"hr": four}, tools={"t": {}}), Access(tool="t", attributes=filled.attributes)) == "allowed"
    assert code(mint(where=rule, allow={"t": four, "hr": four}), filled) == "too_much_work"


def test_an_object_with_a_key_that_is_no_string_is_refused_behind_one_that_is() -> None:
    with pytest.raises(TypeError, match="a key in argument 'a' must be a str"):
        Access(tool="t", arguments={"a": {"b": 1, 2: 3}})
    assert Access(tool="t", arguments={"a": {"b": [1, {"c": 2.5}]}}).arguments == {"a": {"b": [1, {"c": 2.5}]}}
