"""Which names there are, and that common ones need no second look."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from captoken._format import names
from captoken._language.caveats import BuiltIn
from tests.test_caveats import made


def test_common_names_need_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what nearly all links have, no full check is made: it would accept it."""
    checked: list[object] = []
    for check in ("pattern", "name"):
        inner = getattr(names, check)
        monkeypatch.setattr(names, check, lambda value, what, inner=inner: checked.append(value) or inner(value, what))
    common = ["select", "insert", "update", "delete", "*"]
    made("tables", ["sales", "a_1", "t" * 64])
    made("operations", common)
    made("allow", {"t": common})
    assert checked == ["t"]
    odd = ["t" * 65, "a.b", "*", "a b"]
    made("tables", odd)
    made("operations", ["merge"])
    assert checked == ["t", *odd, "merge"]
    for bad in (["\u00e4\u200d"], ["a*"], [5]):
        with pytest.raises((TypeError, ValueError)):
            made("tables", bad)
    assert isinstance(made("tables", ["\u00e4"]), BuiltIn)


def test_names_go_by_the_table_of_the_specification() -> None:
    """No name has what the specification lists, and any may have all else, whatever Python's own tables say (4.8)."""
    page = (Path(__file__).parents[1] / "spec" / "captoken-v1.md").read_text("utf-8")
    rule = page.split("- **4.8**")[1].split("Writers SHOULD")[0]
    inside, ends = (
        {point for first, last in re.findall(r"\b([0-9A-F]{4,6})\b(?:–([0-9A-F]{4,6}))?", part) for point in range(int(first, 16), int(last or first, 16) + 1)}
        for part in rule.split("Zs is")
    )
    assert (len(inside), len(ends)) == (2285, 17)

    def is_name(text: str) -> bool:
        try:
            return names.free_name(text, "table") == text
        except ValueError:
            return False

    assert {point for point in range(0x110000) if not is_name(f"a{chr(point)}b")} == inside
    assert {point for point in range(0x110000) if not is_name(f"{chr(point)}a") or not is_name(f"a{chr(point)}")} == inside | ends
