"""Facts about what is attempted: checked when stated, copied, and never guessed."""

from __future__ import annotations

from typing import Any

import pytest

from captoken import Access

MISSTATED: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"table": "sales"}, ValueError),
    ({"operation": "select"}, ValueError),
    ({"columns": ["a"]}, ValueError),
    ({"arguments": {}}, ValueError),
    ({"table": "sales", "operation": "select", "columns": "region"}, TypeError),
    ({"table": "sales", "operation": "select", "columns": b"region"}, TypeError),
    ({"table": "sales", "operation": "select", "columns": 5}, TypeError),
    ({"table": "sales", "operation": "select", "columns": ["*"]}, ValueError),
    ({"table": "sales", "operation": "select", "columns": [""]}, ValueError),
    ({"table": "sales.*", "operation": "select"}, ValueError),
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
]


@pytest.mark.parametrize(("facts", "error"), MISSTATED, ids=ascii)
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


def test_attributes_that_are_filled_in_later_are_not_stated() -> None:
    attributes: dict[str, Any] = {}
    access = Access(attributes=attributes)
    attributes["region"] = "eu"
    assert access.attributes == {}


def test_what_is_stated_decides_the_domains() -> None:
    assert Access(attributes={"a": 1}).domains == ()
    assert Access(table="t", operation="select").domains == ("data",)
    assert Access(table="t", operation="select", tool="x").domains == ("data", "tool")
    assert Access(tool="x").arguments == {}, "left out, there are none"
    assert Access(table="t", operation="select", columns=()).columns == ()
    assert Access().summary == "nothing in particular"
    assert "no columns" in Access(table="t", operation="select", columns=()).summary
