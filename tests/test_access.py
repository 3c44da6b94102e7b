"""Facts about what is attempted: checked when stated, copied, and never guessed."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from captoken import Access
from captoken._language import access as access_module
from captoken._language.constraints import read_constraint
from captoken._language.costs import costing
from tests.fixtures import mint, named, verifier

MISSTATED: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"table": "sales"}, ValueError),
    ({"operation": "select"}, ValueError),
    ({"columns": ["a"]}, ValueError),
    ({"arguments": {}}, ValueError),
    ({"table": "sales", "operation": "select", "columns": "region"}, TypeError),
    ({"table": "sales", "operation": "select", "columns": b"region"}, TypeError),
    ({"table": "sales", "operation": "select", "columns": 5}, TypeError),
    ({"table": "sales", "operation": "select", "columns": {"region": 1}}, TypeError),
    ({"table": "sales", "operation": "select", "columns": ["*"]}, ValueError),
    ({"table": "sales", "operation": "select", "columns": [""]}, ValueError),
    ({"table": "sales.*", "operation": "select"}, ValueError),
    ({"tool": "f", "arguments": {"x": ()}}, TypeError),
    ({"tool": "f", "arguments": {"x": set()}}, TypeError),
    ({"table": "*", "operation": "select"}, ValueError),
    ({"table": "a..b", "operation": "select"}, ValueError),
    ({"table": "", "operation": "select"}, ValueError),
    ({"table": "sales", "operation": "*"}, ValueError),
    ({"table": b"sales", "operation": "select"}, TypeError),
    ({"tool": "t*"}, ValueError),
    ({"tool": "t", "arguments": [1]}, TypeError),
    ({"tool": "t", "arguments": {"": 1}}, ValueError),
    ({"tool": "t", "arguments": {5: 1}}, TypeError),
    ({"tool": "t", "arguments": {"a": (1, 2)}}, TypeError),
    ({"tool": "t", "arguments": {"a": {5: 1}}}, TypeError),
    ({"tool": "t", "arguments": {"a": float("inf")}}, ValueError),
    ({"tool": "t", "arguments": {"a": ["\ud800"]}}, ValueError),
    ({"tool": "t", "arguments": {"a": {"\ud800": 1}}}, ValueError),
    ({"attributes": None}, TypeError),
    ({"attributes": {"a": object()}}, TypeError),
    ({"cost": 5}, TypeError),
    ({"cost": [("eur", 5)]}, TypeError),
    ({"cost": {"eur": 1.0}}, TypeError),
    ({"cost": {"eur": True}}, TypeError),
    ({"cost": {"eur": "5"}}, TypeError),
    ({"cost": {"eur": None}}, TypeError),
    ({"cost": {5: 5}}, TypeError),
    ({"cost": {"eur": -1}}, ValueError),
    ({"cost": {"eur": 2**53}}, ValueError),
    ({"cost": {"": 1}}, ValueError),
    ({"cost": {"euro cents": 1}}, ValueError),
    ({"cost": {"\u20ac": 1}}, ValueError),
    ({"cost": None}, TypeError),
    ({"cost": []}, TypeError),
    ({"cost": 0}, TypeError),
]


@pytest.mark.parametrize(("facts", "error"), MISSTATED, ids=named)
def test_a_fact_that_is_none_raises_when_stated(facts: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Access(**facts)


def test_nesting_without_end_is_an_error_and_not_a_crash() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        Access(tool="t", arguments={"a": deep})


def test_an_access_is_a_value_of_its_own() -> None:
    """What it was made from can change; the values of arguments and attributes may be any JSON of any length."""
    arguments: dict[str, Any] = {"a": [1, {"b": None, "c": 1.5}], "long": "x" * 10_000, "\u00e9": True}
    access = Access(tool="t", arguments=arguments, attributes={"n": 10**30})
    arguments["a"].append(2)
    assert access.arguments is not None and access.arguments["a"] == [1, {"b": None, "c": 1.5}]
    assert access == Access(tool="t", arguments={"a": [1, {"b": None, "c": 1.5}], "long": "x" * 10_000, "\u00e9": True}, attributes={"n": 10**30})
    with pytest.raises(AttributeError):
        access.tool = "u"  # type: ignore[misc]


HUGE = 10**5000


@pytest.mark.parametrize(
    "given",
    [{"tool": "pay", "arguments": {"x": HUGE}}, {"tool": "pay", "arguments": {"x": [{"y": -HUGE}]}},
     {"table": "sales", "operation": "select", "attributes": {"x": HUGE}}],
)  # fmt: skip
def test_a_number_too_long_for_python_is_shown_as_one(given: dict[str, Any]) -> None:
    """A stranger's argument may be one: whatever is shown or written down of it raises nothing."""
    assert eval(repr(Access(tool="pay", arguments={"x": 10**4000}, cost={"eur": 1}))) == Access(
        tool="pay", arguments={"x": 10**4000}, cost={"eur": 1}
    )
    access = Access(**given)
    assert "(too long to write)" in repr(access) and f"{access}" == repr(access)
    decision = verifier().check(mint(tools={"pay": {"x": {"max": 5}}}), access)
    assert not decision
    for told in (decision.line(), repr(decision), decision.report(values=True), decision.for_model(tell_limits=True)):
        assert told
    report = decision.report(values=True)
    assert given.get("tool") is None or "(too long to write)" in report


@pytest.mark.parametrize("given", [{"where": {"x": {HUGE: 1}}}, {"where": {"x": {"max": HUGE}}}, {"where": {"x": {"in": [HUGE]}}}, {"tools": {"pay": {"x": {"max": HUGE}}}}])
def test_a_number_too_long_for_python_is_refused_in_our_words(given: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        mint(**given) if "tools" in given else mint(tables=["sales"], operations=["select"], **given)
    assert "digits" not in str(caught.value)


def test_what_is_filled_in_later_is_not_stated() -> None:
    attributes: dict[str, Any] = {}
    nothing: dict[str, int] = {}
    some = {"eur": 5}
    access, paid = Access(attributes=attributes, cost=nothing), Access(cost=some)
    attributes["region"], nothing["eur"], some["eur"] = "eu", -1, -1
    assert access.attributes == {} == access.cost and paid.cost == {"eur": 5}


def test_nothing_is_not_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most accesses state neither attributes nor cost: nothing is copied for them, nor an empty list by its items."""
    copied: list[object] = []
    inner = access_module.frozen_copy
    monkeypatch.setattr(access_module, "frozen_copy", lambda given, what: copied.append(what) or inner(given, what))
    assert Access(table="t", operation="select", attributes={}, cost={}) == Access(table="t", operation="select")
    assert copied == []
    assert Access(attributes=MappingProxyType({}), cost=MappingProxyType({})) == Access() and copied == ["attribute", "cost"]
    entered: list[object] = []
    for name in ("_items", "_object"):
        monkeypatch.setattr(access_module, name, lambda given, what: entered.append(given) or given)
    assert Access(attributes={"a": [], "b": {}}).attributes == {"a": [], "b": {}} and entered == []
    assert Access(attributes={"a": [0], "b": {"c": 0}}).attributes["b"] == {"c": 0} and entered == [[0], {"c": 0}]


@pytest.mark.parametrize("item", [0, True, None, "x"])
def test_many_items_that_need_no_copy_are_looked_at_together(item: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From eight on: a client sends as many as it likes. Fewer are sooner gone through one by one."""
    looked: list[object] = []
    inner = access_module._value
    monkeypatch.setattr(access_module, "_value", lambda value, what: looked.append(value) or inner(value, what))
    for many, steps in ((7, 8), (8, 1), (100, 1)):
        for stated in ([item] * many, {f"k{at}": item for at in range(many)}):
            looked.clear()
            assert Access(attributes={"a": stated}).attributes == {"a": stated} and len(looked) == steps
    mixed = [item, "y", 1] * 3
    looked.clear()
    assert Access(attributes={"a": mixed}).attributes == {"a": mixed} and len(looked) == 10


def test_a_cost_is_in_units_and_not_negative() -> None:
    """Nothing, and the largest integer of a token, are costs; they are said in the summary."""
    access = Access(tool="t", cost={"usd_cents": 2**53 - 1, "acme:rows": 0})
    assert access.summary == "tool t() and costing 0 acme:rows, 9007199254740991 usd_cents"
    assert access.needed() == {"tools": {"t": {"_": {"in": [], "optional": True}}}}
    assert Access(cost={"eur": 1}).domains == () and Access(cost={"eur": 1}) != Access()


# With one of 244 characters more they are 1,024 as a list of a constraint: `{"in": ["…", "…"]}`.
TO_THE_BRIM = [f"{n:0252}" for n in range(3)]


@pytest.mark.parametrize(
    ("value", "needed"),
    [
        ("eu", {"in": ["eu"]}),
        (True, {"in": [True]}),
        (5, {"in": [5]}),
        (2**53, {"any": True}),
        (2**53 - 1, {"in": [2**53 - 1]}),
        (1 - 2**53, {"in": [1 - 2**53]}),
        (None, {"any": True}),
        ({}, {"any": True}),
        ("e\u0301", {"any": True}),
        ("x" * 300, {"any": True}),
        (12.5, {"min": 12, "max": 13}),
        (-0.5, {"min": -1, "max": 0}),
        (5.0, {"min": 5, "max": 5}),
        (1e300, {"any": True}),
        ([], {"each": {"in": []}, "most": 0}),
        (["b", "a", "b", 1, True], {"each": {"in": [True, 1, "a", "b"]}, "most": 5}),
        ([1, 2.5], {"each": {"min": 1, "max": 3}, "most": 2}),
        ([True, 2.5], {"each": {"any": True}, "most": 2}),
        ([["a"], [], ["b", "c"]], {"each": {"each": {"in": ["a", "b", "c"]}, "most": 2}, "most": 3}),
        ([["a"], "b"], {"each": {"any": True}, "most": 2}),
        ([None], {"each": {"any": True}, "most": 1}),
        ([[[[1]]]], {"each": {"each": {"each": {"each": {"in": [1]}, "most": 1}, "most": 1}, "most": 1}, "most": 1}),
        ([[[[[1]]]]], {"each": {"each": {"each": {"each": {"any": True}, "most": 1}, "most": 1}, "most": 1}, "most": 1}),
        (["x" * 250] * 900, {"each": {"in": ["x" * 250]}, "most": 900}),
        ([f"{n:0250}" for n in range(5)], {"each": {"any": True}, "most": 5}),
        ([*TO_THE_BRIM, "z" * 244], {"each": {"in": [*TO_THE_BRIM, "z" * 244]}, "most": 4}),
        ([*TO_THE_BRIM, "z" * 245], {"each": {"any": True}, "most": 4}),
    ],
)
def test_what_is_needed_is_the_narrowest_that_permits_it(value: Any, needed: dict[str, Any]) -> None:
    access = Access(tool="t", arguments={"a": value}, attributes={"b": value})
    assert access.needed() == {"tools": {"t": {"a": needed}}, "where": {"b": needed}}
    assert read_constraint(needed).accepts(value)


def test_a_rule_with_a_cost_states_what_its_accesses_leave_out() -> None:
    """An Access that always costs the same stays one; what is no Access stays none, whatever it would cost."""
    plain, stated = Access(tool="t"), Access(tool="t", cost={"eur": 5})
    assert costing(plain, None) is plain and costing(stated, {"eur": 1}) is stated
    assert costing(plain, {"eur": 1}).cost == {"eur": 1} and costing(stated, {"usd": 2, "eur": 9}).cost == {"usd": 2, "eur": 5}
    by_name = costing(lambda name: Access(tool=name), lambda name: {"eur": len(name)})
    assert by_name("abc") == Access(tool="abc", cost={"eur": 3})
    assert costing(plain, lambda name: {"eur": 4})("x").cost == {"eur": 4}
    for nothing in (None, True, "t"):
        assert costing(lambda name, nothing=nothing: nothing, {"eur": 1})("x") is nothing
    with pytest.raises(ValueError, match="cost"):
        by_cost = costing(plain, lambda name: {"eur": -1})
        by_cost("x")


def test_what_is_stated_decides_the_domains() -> None:
    assert Access(attributes={"a": 1}).domains == ()
    assert Access(table="t", operation="select").domains == ("data",)
    assert Access(table="t", operation="select", tool="x").domains == ("data", "tool")
    assert Access(tool="x").arguments == {}, "left out, there are none"
    assert Access(table="t", operation="select", columns=()).columns == ()
    assert Access().summary == "nothing in particular"
    assert "no columns" in Access(table="t", operation="select", columns=()).summary
