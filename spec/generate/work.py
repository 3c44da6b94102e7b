"""Vectors of the work of a decision (24.25, 24.26): for each list and constraint the limit from both sides.

How much each adds is written by hand. A string that one more link looks at fills up what is left to the limit; with one
character more it is too much.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spec.generate.build import (
    JTI,
    NOW,
    Json,
    Parts,
    asking,
    b64,
    bundle,
    discharge,
    entry,
    extended,
    nonce,
    signing_public,
    snapshot,
    token,
)
from spec.generate.table import SELECT, Table, call

MOST = 1_048_576
LINKS, ITEMS = 40, 654
FILL: dict[str, Json] = {"where": {"w": {"each": {"max": 9}}}}  # 18 bytes, at an array of ITEMS numbers
FILLED = LINKS * (18 + 2 + ITEMS * (16 + 24))
PAD: dict[str, Json] = {"where": {"pad": {"prefix": ["p"]}}}  # 16 bytes, at a string of characters in ASCII
LEFT = MOST - FILLED - 16 - 2
CASE = tuple[Json, dict[str, Json], int]

MIXED: Json = [None, 1.5, {"é": [True]}, "é"]  # 2 + 40 + 40 + (16 + 2 + 16 + 4 + 2 + 40) + 20


def tables() -> Iterator[Table]:
    yield work()


def where(constraint: Json, value: Json, adds: int) -> CASE:
    return {"where": {"x": constraint}}, {"attributes": {"x": value}}, adds


def argument(constraint: Json, value: Json, adds: int) -> CASE:
    return {"tools": {"t": {"a": constraint}}}, call("t", a=value), adds


def marked(definition: Json, access: dict[str, Json], adds: int) -> CASE:
    return {"marks": {"m": definition}, "n": nonce()}, access, adds


CASES: dict[str, CASE] = {
    "any": where({"any": True}, MIXED, 0), "in": where({"in": ["eu"]}, "eu", 13 + 4),
    "in_of_an_integer": where({"in": [3]}, 3, 10 + 24), "in_of_a_boolean": where({"in": [True]}, True, 13 + 24),
    "in_beyond_ascii": where({"in": ["é"]}, "é", 13 + 4), "in_beyond_the_first_plane": where({"in": ["😀"]}, "😀", 15 + 6),
    "in_with_an_escape": where({"in": ['"']}, '"', 13 + 3), "range_of_a_fraction": where({"max": 5, "min": 1}, 1.5, 17 + 24),
    "range_of_a_large_integer": where({"min": 1}, 10**30, 9 + 24), "path": where({"path": ["/a"]}, "/a/b", 15 + 6),
    "prefix": where({"prefix": ["a"]}, "ab", 16 + 4),
    "url": where({"url": ["https://example.com"]}, "https://example.com/a", 31 + 23),
    "cidr": where({"cidr": ["10.0.0.0/8"]}, "10.0.0.1", 23 + 10),
    "each": where({"each": {"in": ["eu"]}, "most": 3}, ["eu", "eu"], 31 + 42),
    "each_of_any": where({"each": {"any": True}}, MIXED, 21 + 182), "each_of_nothing": where({"each": {"any": True}}, [], 21 + 2),
    "each_in_each": where({"each": {"each": {"min": 0}}}, [[1], []], 27 + 78),
    "two_attributes": ({"where": {"x": {"in": ["eu"]}, "y": {"min": 1}}}, {"attributes": {"x": "eu", "y": 1}}, 17 + 33),
    "an_attribute_that_no_link_names": ({"nbf": NOW}, {"attributes": {"x": MIXED}}, 0),
    "an_argument": argument({"in": ["x"]}, "x", 12 + 3),
    "an_argument_that_is_optional": argument({"in": ["x"], "optional": True}, "x", 28 + 3),
    "an_argument_that_is_any": argument({"any": True, "optional": True}, MIXED, 0),
    "an_argument_that_is_left_out": ({"tools": {"t": {"a": {"in": ["x"], "optional": True}}}}, call("t"), 0),
    "arguments_that_are_free": ({"tools": {"t": {}}}, call("t", a=MIXED), 0),
    "the_entry_that_decides": ({"tools": {"*": {"a": {"in": ["x", "y"]}}, "t": {"a": {"in": ["x"]}}}}, call("t", a="x"), 12 + 3),
    "tables_and_operations": ({"operations": ["select"], "tables": ["sales"]}, SELECT, 9 + 7 + 10 + 8),
    "patterns_of_tables": ({"operations": ["*"], "tables": ["*", "hr.*"]}, SELECT, 12 + 7 + 5 + 8),
    "allow": ({"allow": {"hr": ["insert"], "sales": ["select"]}}, SELECT, 10 + 8),
    "columns": ({"columns": {"*": ["a"], "sales": ["a", "b"]}}, SELECT | {"columns": ["a", "b", "a"]}, 9 + 2 + 3 * 19),
    "columns_that_are_any": ({"columns": {"sales": ["*"]}}, SELECT | {"columns": ["a"]}, 5 + 2 + 19),
    "no_column": ({"columns": {"sales": ["a"]}}, SELECT | {"columns": []}, 5 + 2),
    "columns_of_another_table": ({"columns": {"hr": ["a"]}}, SELECT | {"columns": ["a"]}, 0),
    "columns_that_are_not_stated": ({"columns": {"hr": ["a"]}}, SELECT, 0),
    "a_row": ({"rows": {"*": {"x": {"in": ["eu"]}}, "sales": {"x": {"in": ["us"]}}}}, SELECT | {"row": {"x": "us", "y": MIXED}}, 13 + 4),
    "a_row_and_what_it_becomes": ({"rows": {"sales": {"x": {"min": 1}}}}, SELECT | {"row": {"x": 1}, "becomes": {"x": 2}}, 2 * (9 + 24)),
    "a_row_of_a_free_column": ({"rows": {"sales": {"x": {"any": True}}}}, SELECT | {"row": {"x": MIXED}}, 0),
    "a_row_of_another_table": ({"rows": {"hr": {"x": {"min": 1}}}}, SELECT | {"row": {"x": 1}}, 0),
    "conditions": ({"rows": {"sales": {"x": {"min": 1}}}}, SELECT | {"rows": [{"x": {"min": 1}}]}, 15 + 2 + 16 + 2 + 16 + 3 + 2 + 16 + 5 + 24),
    "conditions_of_another_table": ({"rows": {"hr": {"x": {"min": 1}}}}, SELECT | {"rows": [{"x": {"min": 1}}]}, 0),
    "tables_beside_a_tool": ({"operations": ["select"], "tables": ["sales"], "tools": {"t": {}}}, call("t"), 0),
    "tools_beside_a_table": ({"tables": ["sales"], "tools": {"t": {"a": {"in": ["x"]}}}}, SELECT, 9 + 7),
    "tables_of_a_mark": marked({"tables": ["hr"]}, SELECT, 6 + 7),
    "operations_of_a_mark": marked({"operations": ["insert"], "tables": ["hr"]}, SELECT, 6 + 7 + 10 + 8),
    "tools_of_a_mark": marked({"tools": ["x"]}, call("t"), 5 + 3),
    "tools_of_a_mark_beside_a_table": marked({"tables": ["hr"], "tools": ["x", "y"]}, SELECT, 6 + 7),
    "tables_of_a_mark_beside_a_tool": marked({"operations": ["insert"], "tables": ["hr"], "tools": ["x"]}, call("t"), 5 + 3),
    "two_marks": ({"marks": {"m": {"tables": ["hr"]}, "o": {"tables": ["a"]}}, "n": nonce()}, SELECT, 6 + 7 + 5 + 7),
    "what_a_mark_spares": marked({"tools": ["x"], "but": {"tools": {"t": {"a": {"in": ["x"]}}}}}, call("t", a="x"), 5 + 3 + 12 + 3),
    "what_a_mark_spares_that_is_any": marked({"tools": ["x"], "but": {"tools": {"t": {"a": {"any": True}}}}}, call("t", a=MIXED), 5 + 3),
    "tables_that_a_mark_spares": marked(
        {"tables": ["hr"], "but": {"allow": {"sales": ["select"]}, "operations": ["*"], "tables": ["sales"]}}, SELECT, 6 + 7 + 10 + 8 + 5 + 8 + 9 + 7
    ),
    "rules": ({"marks": {"m": {"tables": ["hr"]}}, "forbid": [{"in": ["m"], "after": ["m"]}], "n": nonce()}, SELECT, 6 + 7),
    "what_is_asked_early": ({"exp": NOW + 60, "nbf": NOW, "task": "task-123"}, {}, 0),
}  # fmt: skip


def stated(access: dict[str, Json], left: int) -> dict[str, Json]:
    """The access with what fills the decision up."""
    more: Json = {"w": [1] * ITEMS, "pad": "p" * left}
    return access | {"attributes": access.get("attributes", {}) | more}


def full(*links: Json) -> Parts:
    """A token whose links are looked at by all that `stated` adds."""
    return token(*links, *(FILL for _ in range(LINKS)), PAD)


def overlaid(*links: Json, revoked: bool = False) -> dict[str, Json]:
    """What is presented beside a token: an overlay with an entry for each link."""
    said = [{**entry(f"e{at}", token=JTI), "link": link} for at, link in enumerate(links)]
    data = snapshot(*said, *([entry("r", token=JTI)] if revoked else [])).decode("latin-1")
    known: Json = {"snapshot": data, "operators": [b64(signing_public("operator"))], "max_staleness": 60, "allow_stale": False}
    return {"overlay": known}


def work() -> Table:
    table = Table("work", "How much work a decision may be: what each list and constraint adds, up to the limit and beyond.")

    def pair(name: str, parts: Parts, access: dict[str, Json], left: int, rule: str = "24.25", **known: Any) -> None:
        """As much as is left, and one more."""
        discharges = known.get("discharges", ())
        denied = {key: value for key, value in known.items() if key != "discharges"}
        table.allow(name, rule, parts, stated(access, left), **known)
        table.deny(f"{name}_and_one_more", rule, "too_much_work", bundle(parts, *discharges), stated(access, left + 1), **denied)

    for name, (link, access, adds) in CASES.items():
        pair(name, full(link), access, LEFT - adds, "24.26" if "each" in name else "24.25")

    # Links add up, also those of a discharge and of the overlay; what they look at is counted for each.
    one, eu = {"where": {"x": {"in": ["eu"]}}}, {"attributes": {"x": "eu"}}
    pair("three_links", full(one, one, one), eu, LEFT - 3 * 17)
    answer = discharge("one", {"exp": NOW + 60, **one})
    pair("a_link_of_a_discharge", asking(full(one), "one"), eu, LEFT - 2 * 17, discharges=(answer,))
    pair("an_entry_of_the_overlay", full(one), eu, LEFT - 2 * 17, presented=overlaid(one))
    mark = {"marks": {"m": {"tables": ["hr"]}}, "n": nonce()}
    pair("marks_of_an_entry_of_the_overlay", full(one), eu | SELECT, LEFT - 17 - 13, presented=overlaid(mark))
    alone, many = token({"nbf": NOW}), [FILL] * LINKS
    pair("entries_of_the_overlay_alone", alone, eu, LEFT - 17, presented=overlaid(one, *many, PAD))

    # Where it is asked: behind what says that a token is dead, before what it permits; at step 7 behind what revokes it.
    much, other = stated(eu, LEFT - 16), {"attributes": {"x": "us"}}
    table.allow("one_less", "24.25", full(one), stated(eu, LEFT - 18))
    table.deny("before_what_prohibits", "24.25", "too_much_work", full(one), stated(other, LEFT - 16))
    table.deny("before_what_closes", "24.25", "too_much_work", full(one, {"tools": {"t": {}}}), SELECT | much)
    table.deny("before_the_caller", "24.25", "too_much_work", full(one), much, caller={"agent": "another"})
    table.deny("behind_expiry", "24.25", "expired", full(one, {"exp": NOW}), much)
    table.deny("behind_issuance", "24.25", "not_yet_valid", full(one), much, now=NOW - 61)
    table.deny("behind_the_audience", "24.25", "wrong_audience", full(one, {"aud": ["hr-db"]}), much, audiences=("sales-db",))
    table.deny("behind_being_unaddressed", "24.25", "unaddressed", full(one), much, audiences=("sales-db",))
    table.deny("behind_being_narrowed", "24.25", "narrowed", full(one), much, presented=overlaid({"exp": NOW}))
    entries = (one, *many, PAD)
    table.deny("of_entries_before_one_that_narrows", "24.25", "too_much_work", alone, much, presented=overlaid({"exp": NOW}, *entries))
    table.deny("of_entries_before_expiry", "24.25", "too_much_work", extended(alone, {"exp": NOW}), much, presented=overlaid(*entries))
    table.deny("of_entries_behind_one_that_revokes", "24.25", "revoked", alone, much, presented=overlaid(*entries, revoked=True))
    table.allow("without_an_access", "24.25", full(one), None)
    return table
