"""Rights as scopes: each has one spelling, and what is spelled otherwise is none."""

from __future__ import annotations

import pytest

from captoken import Access
from captoken.adapters._scopes import Right, read_right, rights_of


@pytest.mark.parametrize(
    "text, right",
    [
        ("tool:read_note", Right("tool", "read_note")),
        ("tool:mail.*", Right("tool", "mail.*")),
        ("tool:*", Right("tool", "*")),
        ("tool:resources%2Fread", Right("tool", "resources/read")),
        ("tool:caf%C3%A9%20%22%3A%25", Right("tool", 'café ":%')),
        ("table:sales:select", Right("table", "sales", "select")),
        ("table:public.sales:select:amount", Right("table", "public.sales", "select", "amount")),
        ("table:%2A%2A:select", Right("table", "**", "select")),
    ],
)
def test_a_right_has_one_text(text: str, right: Right) -> None:
    assert read_right(text) == right and right.text == text


@pytest.mark.parametrize(
    "text",
    [
        "notes", "tool", "tool:", "tool:a:b", "table:sales", "table::select", "table:sales:", "table:a:b:c:d", "other:x", "tool:%6Dail", "tool:a%2f",
        "tool:a/b", "tool:%", "tool:%ff", "tool:*x", "TOOL:x", "tool:a b", "tool:é", "", ":", "table:sales:select:",
    ],
)  # fmt: skip
def test_another_spelling_is_no_right(text: str) -> None:
    assert read_right(text) is None


def test_the_rights_of_a_request_are_named_once() -> None:
    select = Access(table="sales", operation="select", columns=["b", "a"])
    assert [one.text for one in rights_of([select, select], by_column=False)] == ["table:sales:select"]
    assert [one.text for one in rights_of([select], by_column=True)] == ["table:sales:select:a", "table:sales:select:b"]
    whole = Access(table="sales", operation="select")
    assert [one.text for one in rights_of([whole, Access(tool="look", arguments={})], by_column=True)] == ["table:sales:select", "tool:look"]
