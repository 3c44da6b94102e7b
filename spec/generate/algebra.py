"""Vectors of what is held and what may be asked for: Capability, Widening; and Interop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from spec.generate.build import (
    KEY,
    NOW,
    Json,
    Parts,
    asking,
    audience_key,
    b64,
    canonical,
    discharge,
    extended,
    field,
    hand_over,
    handed,
    joined,
    nonce,
    root,
    signing_public,
    token,
)
from spec.generate.table import SALES, Table

SIXTEEN = "abcdefghijklmnop"
VID = bytes(range(100, 172))


def tables() -> Iterator[Table]:
    yield capability()
    yield widening()
    yield interop()


def capability() -> Table:
    """Pairs of links: what both permit, and whether one permits all that the other does."""
    table = Table("capability", "Two links, one and two: their meet spelled as a link, and which of them covers the other.")

    def add(name: str, one: Json, two: Json, meet: Json, covers: str = "", rule: str = "19.5") -> None:
        """`covers` names those that cover the other: one, two, both or neither."""
        outcome = {"meet": meet, "one_covers_two": covers in ("one", "both"), "two_covers_one": covers in ("two", "both")}
        table.add(name, rule, "capability", {"one": one, "two": two}, **outcome)

    def tables_(*patterns: str, operations: tuple[str, ...] = ("*",)) -> dict[str, Json]:
        return {"operations": list(operations), "tables": list(patterns)}

    add("equal", tables_("sales"), tables_("sales"), tables_("sales"), "both", rule="19.6")
    add("fewer_tables", tables_("market.*", "sales"), tables_("sales"), tables_("sales"), "one")
    add("pattern_and_exact", tables_("market.*"), tables_("market.eu"), tables_("market.eu"), "one")
    add("all_and_pattern", tables_("*"), tables_("market.*"), tables_("market.*"), "one")
    add("nested_patterns", tables_("a.*"), tables_("a.b.*"), tables_("a.b.*"), "one")
    add("overlapping_lists", tables_("a", "b"), tables_("b", "c"), tables_("b"))
    add("disjoint_tables", tables_("a"), tables_("b"), {"tables": []})
    add("tables_in_their_order", tables_("\U0001f600", "\uff5e", "b", "B"), tables_("*"), tables_("B", "b", "\uff5e", "\U0001f600"),
        "two", rule="19.9")  # fmt: skip
    add("segment_and_below", tables_("market"), tables_("market.*"), {"tables": []})
    add("nothing_and_all", {"tables": []}, tables_("*"), {"tables": []}, "two")
    add("two_kinds_of_nothing", {"tables": []}, {"operations": []}, {"tables": []}, "both", rule="19.7")
    add(
        "nothing_by_where",
        {"where": {"x": {"in": []}}},
        {"tools": {}},
        {"tables": [], "where": {"x": {"in": []}}},
        "both",
        rule="19.7",
    )
    add("repetition_and_order", tables_("b", "a", "b"), tables_("a", "b"), tables_("a", "b"), "both")
    add("entry_below_entry_says_nothing", tables_("*", "sales"), tables_("*"), tables_("*"), "both", rule="19.7")
    add(
        "fewer_operations",
        {"operations": ["insert", "select"]},
        {"operations": ["select"]},
        tables_("*", operations=("select",)),
        "one",
    )
    add("operations_crossed", {"operations": ["a", "b"]}, {"operations": ["b", "c"]}, tables_("*", operations=("b",)))
    add("any_operation", {"operations": ["*", "select"]}, {"operations": ["*"]}, tables_("*"), "both")
    add(
        "tables_and_operations",
        {"tables": ["sales"]},
        {"operations": ["select"]},
        tables_("sales", operations=("select",)),
        rule="19.2",
    )
    add(
        "map_and_operations",
        {"allow": {"hr": ["update"], "sales": ["select"]}},
        {"operations": ["update"]},
        tables_("hr", operations=("update",)),
        rule="19.2",
    )
    add(
        "map_says_the_same",
        {"allow": {"a": ["x"], "b": ["x"]}},
        tables_("a", "b", operations=("x",)),
        tables_("a", "b", operations=("x",)),
        "both",
    )
    two = {"allow": {"a": ["x"], "b": ["y"]}}
    add("map_covers_part", two, {"allow": {"a": ["x"]}}, tables_("a", operations=("x",)), "one")
    add(
        "map_with_a_hole",
        {"allow": {"*": ["x"], "hr.*": []}},
        {"allow": {"*": ["x", "y"]}},
        {"allow": {"*": ["x"], "hr.*": []}},
        "two",
        rule="19.4",
    )
    add(
        "hole_that_says_nothing",
        {"allow": {"hr.*": [], "sales": ["x"]}},
        tables_("sales", operations=("x",)),
        tables_("sales", operations=("x",)),
        "both",
        rule="19.7",
    )
    add(
        "maps_decide_where_they_differ",
        {"allow": {"*": ["x"], "m.*": ["y"]}},
        {"allow": {"*": ["x", "y"], "m.eu": ["x"]}},
        {"allow": {"*": ["x"], "m.*": ["y"], "m.eu": []}},
        rule="19.4",
    )
    add(
        "columns",
        {"columns": {"sales": ["a", "b"]}},
        {"columns": {"sales": ["b", "c"]}},
        {**tables_("*"), "columns": {"sales": ["b"]}},
    )
    add("columns_and_none", {**SALES, "columns": {"sales": ["a"]}}, SALES, {**SALES, "columns": {"sales": ["a"]}}, "two")
    add("any_columns_and_none", {**SALES, "columns": {"sales": ["*"]}}, SALES, {**SALES, "columns": {"sales": ["*"]}}, "two")
    add(
        "columns_of_pattern_and_exact",
        {"columns": {"*": ["a", "b"]}},
        {"columns": {"sales": ["a"]}},
        {**tables_("*"), "columns": {"*": ["a", "b"], "sales": ["a"]}},
    )
    add("columns_of_a_table_not_held", tables_("sales"), {"columns": {"hr": ["a"]}}, tables_("sales"), "two", rule="19.2")

    _rows(add, tables_)

    def search(**arguments: Json) -> dict[str, Json]:
        return {"tools": {"search": arguments}}

    any_, some = {"any": True}, {"in": ["a"]}
    add("free_and_closed", search(), search(q=any_), search(q=any_), "one")
    add("closed_worlds_differ", search(q=any_), search(q=any_, r=any_), {"tables": []}, rule="19.4")
    add("optional_argument_of_one", search(q=any_), search(q=any_, r={"any": True, "optional": True}), search(q=any_), "two")
    add("optional_and_required", search(q={"any": True, "optional": True}), search(q=some), search(q=some), "one")
    add(
        "no_argument_left",
        search(q={"any": True, "optional": True}),
        search(r={"any": True, "optional": True}),
        search(_={"in": [], "optional": True}),
        rule="19.8",
    )
    other = {"in": ["b"]}
    add("required_argument_left_with_nothing", search(q=some), search(q=other), {"tables": []}, rule="19.3")
    add("required_argument_left_with_nothing_below_all", {"tools": {"*": {}, **search(q=some)["tools"]}},
        {"tools": {"*": {}, **search(q=other)["tools"]}}, {"tools": {"*": {}, "search": {"_": {"in": []}}}}, rule="19.8")  # fmt: skip
    add("required_and_optional_left_with_nothing", search(q=some, r=any_), search(q={**other, "optional": True}, r=any_),
        {"tables": []}, rule="19.3")  # fmt: skip
    add("optional_arguments_left_with_nothing", search(q={**some, "optional": True}, r=any_),
        search(q={**other, "optional": True}, r=any_), search(r=any_), rule="19.3")  # fmt: skip
    add("argument_that_nothing_satisfies", search(q={"in": []}), {"tools": {}}, {"tables": []}, "both", rule="19.3")
    add(
        "optional_that_nothing_satisfies",
        search(q=any_, r={"in": [], "optional": True}),
        search(q=any_),
        search(q=any_),
        "both",
        rule="19.3",
    )
    add(
        "wall_below_all",
        {"tools": {"*": {}, "mail.*": {"_": {"in": []}}}},
        {"tools": {"*": {}}},
        {"tools": {"*": {}, "mail.*": {"_": {"in": []}}}},
        "two",
        rule="19.8",
    )
    add("tools_and_tables", {"tools": {"*": {}}}, {"tables": ["*"]}, {"tables": []})
    add(
        "both_domains_and_one",
        {"tables": ["*"], "tools": {"*": {}}},
        {"tables": ["sales"]},
        tables_("sales"),
        "one",
        rule="19.8",
    )
    add(
        "both_domains",
        {**tables_("sales"), "tools": {"search": {}}},
        {**tables_("*"), "tools": {"*": {"q": any_}}},
        {**tables_("sales"), "tools": {"search": {"q": any_}}},
        rule="19.8",
    )
    add("no_domain_and_tables", {"nbf": 0}, {"tables": ["sales"]}, {**tables_("sales"), "nbf": 0}, rule="19.1")
    add(
        "no_domain_is_not_every_domain",
        {"where": {"x": any_}},
        {"tables": ["*"], "tools": {"*": {}}, "where": {"x": any_}},
        {**tables_("*"), "tools": {"*": {}}, "where": {"x": any_}},
        "one",
        rule="19.1",
    )

    def under(constraint: Json) -> dict[str, Json]:
        return {"where": {"x": constraint}}

    pairs: list[tuple[str, Json, Json, Json, str]] = [
        ("any_and_list", any_, some, some, "one"),
        ("lists", {"in": [1, 2, "a"]}, {"in": [2, "a", True]}, {"in": [2, "a"]}, ""),
        ("list_of_types", {"in": [True, 1, "1"]}, {"in": [1]}, {"in": [1]}, "one"),
        ("list_in_its_order", {"in": ["\U0001f600", "b", 10, True, -5, 1, "\uff5e", False, "10", "B"]}, any_,
         {"in": [False, True, -5, 1, 10, "10", "B", "b", "\uff5e", "\U0001f600"]}, "two"),
        ("list_and_range", {"in": [1, 5, "a", True]}, {"min": 2}, {"in": [5]}, ""),
        ("range_of_the_numbers_of_a_list", {"max": 2, "min": 1}, {"in": [1, 2]}, {"in": [1, 2]}, "one"),
        ("ranges", {"max": 5, "min": 1}, {"max": 9, "min": 3}, {"max": 5, "min": 3}, ""),
        ("range_in_range", {"min": 1}, {"max": 5, "min": 2}, {"max": 5, "min": 2}, "one"),
        ("ranges_from", {"min": 1}, {"min": 3}, {"min": 3}, "one"),
        ("ranges_to", {"max": 1}, {"max": 3}, {"max": 1}, "two"),
        ("ranges_from_and_to", {"min": 1}, {"max": 3}, {"max": 3, "min": 1}, ""),
        ("ranges_touch", {"max": 5, "min": 1}, {"min": 5}, {"max": 5, "min": 5}, ""),
        ("ranges_apart", {"max": 1}, {"min": 2}, {"in": []}, ""),
        ("range_and_path", {"min": 1}, {"path": ["/"]}, {"in": []}, ""),
        ("list_and_path", {"in": ["/a/b", "/c", "x"]}, {"path": ["/a"]}, {"in": ["/a/b"]}, ""),
        ("paths", {"path": ["/a", "/b/c"]}, {"path": ["/a/x", "/b"]}, {"path": ["/a/x", "/b/c"]}, ""),
        ("path_in_path", {"path": ["/"]}, {"path": ["/a"]}, {"path": ["/a"]}, "one"),
        ("path_below_path_of_one_list", {"path": ["/a", "/a/b"]}, {"path": ["/a"]}, {"path": ["/a"]}, "both"),
        ("path_of_similar_name", {"path": ["/data"]}, {"path": ["/database"]}, {"in": []}, ""),
        ("empty_path_and_list", {"path": []}, {"in": []}, {"in": []}, "both"),
        ("prefixes", {"prefix": ["acct-", "b"]}, {"prefix": ["a", "bc"]}, {"prefix": ["acct-", "bc"]}, ""),
        ("prefix_in_prefix", {"prefix": ["a"]}, {"prefix": ["ab"]}, {"prefix": ["ab"]}, "one"),
        ("prefix_below_prefix_of_one_list", {"prefix": ["a", "ab"]}, {"prefix": ["a"]}, {"prefix": ["a"]}, "both"),
        ("prefix_and_list", {"prefix": ["a"]}, {"in": ["ab", "ba", 1]}, {"in": ["ab"]}, ""),
        ("prefix_and_path", {"prefix": ["a"]}, {"path": ["/"]}, {"in": []}, ""),
        ("prefix_and_url", {"prefix": ["https"]}, {"url": ["https://a.b"]}, {"in": []}, ""),
        ("prefix_and_block", {"prefix": ["10."]}, {"cidr": ["10.0.0.0/8"]}, {"in": []}, ""),
        ("empty_prefix_and_list", {"prefix": []}, {"in": []}, {"in": []}, "both"),
        ("urls_crossed", {"url": ["https://*.b.c/x"]}, {"url": ["https://a.b.c"]}, {"url": ["https://a.b.c/x"]}, ""),
        ("urls_crossed_by_stars", {"url": ["https://*.b.c/x/"]}, {"url": ["https://*.a.b.c/"]}, {"url": ["https://*.a.b.c/x/"]}, ""),
        ("url_in_url", {"url": ["https://*.b.c"]}, {"url": ["https://a.b.c/x"]}, {"url": ["https://a.b.c/x"]}, "one"),
        ("url_with_slash_below", {"url": ["https://a.b/x"]}, {"url": ["https://a.b/x/"]}, {"url": ["https://a.b/x/"]}, "one"),
        ("url_below_url_of_one_list", {"url": ["https://*.b.c", "https://a.b.c/x"]}, {"url": ["https://*.b.c/"]},
         {"url": ["https://*.b.c/"]}, "both"),
        ("star_and_host_itself", {"url": ["https://*.b.c"]}, {"url": ["https://b.c"]}, {"in": []}, ""),
        ("urls_of_other_ports", {"url": ["https://a.b"]}, {"url": ["https://a.b:8443"]}, {"in": []}, ""),
        ("urls_of_other_schemes", {"url": ["https://a.b"]}, {"url": ["http://a.b"]}, {"in": []}, ""),
        ("urls_pair_by_pair", {"url": ["https://a.c.d/", "https://b.c.d/y"]}, {"url": ["https://*.c.d/x", "https://b.c.d"]},
         {"url": ["https://a.c.d/x", "https://b.c.d/y"]}, ""),
        ("url_too_long_together", {"url": ["https://*." + "a" * 60 + ".b.c/"]}, {"url": ["https://*.b.c/" + "x" * 2034]}, {"in": []}, ""),
        ("url_and_list", {"url": ["https://a.b/x"]}, {"in": ["https://a.b/x/y", "https://a.b", "x"]}, {"in": ["https://a.b/x/y"]}, ""),
        ("url_and_path", {"url": ["https://a.b"]}, {"path": ["/"]}, {"in": []}, ""),
        ("empty_url_and_list", {"url": []}, {"in": []}, {"in": []}, "both"),
        ("urls_all_crossed", {"url": [f"ws://{letter}.x.y" for letter in "abcd"]}, {"url": [f"ws://*.x.y/{letter}" for letter in "abcd"]},
         {"url": [f"ws://{one}.x.y/{two}" for one in "abcd" for two in "abcd"]}, ""),
        ("blocks", {"cidr": ["10.0.0.0/8", "192.0.2.0/24"]}, {"cidr": ["10.1.0.0/16", "192.0.0.0/16"]},
         {"cidr": ["10.1.0.0/16", "192.0.2.0/24"]}, ""),
        ("block_in_block", {"cidr": ["10.0.0.0/8"]}, {"cidr": ["10.0.0.0/9"]}, {"cidr": ["10.0.0.0/9"]}, "one"),
        ("block_within_another_of_its_list", {"cidr": ["10.0.0.0/8", "10.1.0.0/16"]}, {"cidr": ["10.0.0.0/8"]},
         {"cidr": ["10.0.0.0/8"]}, "both"),
        ("halves_and_the_whole", {"cidr": ["10.0.0.0/9", "10.128.0.0/9"]}, {"cidr": ["10.0.0.0/8"]}, {"cidr": ["10.0.0.0/8"]}, "both"),
        ("quarters_of_version_6", {"cidr": ["2001:db8::/34", "2001:db8:4000::/34", "2001:db8:8000::/33"]}, {"cidr": ["2001:db8::/32"]},
         {"cidr": ["2001:db8::/32"]}, "both"),
        ("neighbours_that_are_no_halves", {"cidr": ["10.1.0.0/16", "10.2.0.0/16"]}, {"cidr": ["10.0.0.0/14"]},
         {"cidr": ["10.1.0.0/16", "10.2.0.0/16"]}, "two"),
        ("blocks_of_two_versions", {"cidr": ["10.0.0.0/8"]}, {"cidr": ["a00::/8"]}, {"in": []}, ""),
        ("block_and_list", {"cidr": ["10.0.0.0/8"]}, {"in": ["10.0.0.1", "11.0.0.1", "10.0.0.01"]}, {"in": ["10.0.0.1"]}, ""),
        ("block_and_the_list_of_its_addresses", {"cidr": ["10.0.0.0/31"]}, {"in": ["10.0.0.0", "10.0.0.1"]},
         {"in": ["10.0.0.0", "10.0.0.1"]}, "one"),
        ("block_and_url", {"cidr": ["10.0.0.0/8"]}, {"url": ["http://10.0.0.1"]}, {"in": []}, ""),
        ("empty_block_and_list", {"cidr": []}, {"in": []}, {"in": []}, "both"),
        ("each", {"each": {"min": 1}}, {"each": {"max": 5, "min": 0}, "most": 3}, {"each": {"max": 5, "min": 1}, "most": 3}, ""),
        ("each_of_fewer", {"each": {"any": True}}, {"each": {"any": True}, "most": 3}, {"each": {"any": True}, "most": 3}, "one"),
        ("each_with_nothing_in_common", {"each": {"in": ["a"]}}, {"each": {"in": ["b"]}, "most": 3}, {"each": {"in": []}, "most": 0}, ""),
        ("each_of_nothing", {"each": {"in": []}}, {"each": {"any": True}, "most": 0}, {"each": {"in": []}, "most": 0}, "both"),
        ("each_in_each", {"each": {"each": {"in": ["a"]}}}, {"each": {"each": {"in": ["b"]}}, "most": 2},
         {"each": {"each": {"in": []}, "most": 0}, "most": 2}, ""),
        ("each_and_list", {"each": {"any": True}}, {"in": ["a", 1]}, {"in": []}, ""),
        ("each_and_any", {"each": {"in": ["a"]}}, {"any": True}, {"each": {"in": ["a"]}}, "two"),
        ("each_and_path", {"each": {"path": ["/"]}}, {"path": ["/"]}, {"in": []}, ""),
    ]
    for name, one, other, both, covers in pairs:
        add(f"where_{name}", under(one), under(other), under(both), covers)
    add("where_of_two_attributes", {"where": {"x": some}}, {"where": {"y": some}}, {"where": {"x": some, "y": some}})
    add("exp", {"exp": 5}, {"exp": 9}, {"exp": 5}, "two")
    add("exp_and_none", {"nbf": 0}, {"exp": 9, "nbf": 0}, {"exp": 9, "nbf": 0}, "one")
    add("nbf", {"nbf": 5}, {"nbf": 9}, {"nbf": 9}, "one")
    add("aud", {"aud": ["a", "b"]}, {"aud": ["b", "c"]}, {"aud": ["b"]})
    add("aud_in_aud", {"aud": ["a", "b"]}, {"aud": ["a"]}, {"aud": ["a"]}, "one")
    add("aud_apart", {"aud": ["a"]}, {"aud": ["b"]}, {"aud": []})
    five: dict[str, Json] = {"cidr": ["10.0.0.5/32", "10.0.0.6/32", "10.0.0.7/32", "2001:db8::5/128", "2001:db8::6/127"]}
    add("single_addresses", {"where": {"x": five}}, {"where": {"x": {"cidr": ["10.0.0.0/8", "2001:db8::/32"]}}},
        {"where": {"x": {"cidr": ["10.0.0.5/32", "10.0.0.6/31", "2001:db8::5/128", "2001:db8::6/127"]}}}, "two")
    add("no_audience", {"aud": []}, {"aud": ["a"]}, {"aud": []}, "two", rule="19.7")
    add("no_audience_and_no_tool", {"aud": []}, {"tools": {}}, {"tables": [], "aud": []}, "both", rule="19.7")
    add("no_tool", {"tools": {}}, {"tools": {"search": {}}}, {"tables": []}, "two", rule="19.7")
    add("no_tool_beside_a_table", {"tables": ["sales"], "tools": {}}, {"tables": ["*"]}, {"operations": ["*"], "tables": ["sales"]}, "two")
    add("task_below", {"task": "t"}, {"task": "t/a"}, {"task": "t/a"}, "one")
    five, nine = {"uses": 5}, {"uses": 9}
    add("task_apart", {"task": "t/a"}, {"task": "t/b"}, {"tables": []}, rule="19.7")
    add("task_apart_and_more", {"task": "t/a", "exp": 5, "tables": ["sales"]}, {"task": "t", "aud": ["x"], "nbf": 3} | {"task": "u"},
        {"tables": [], "aud": ["x"], "exp": 5, "nbf": 3}, rule="19.8")  # fmt: skip
    add("task_of_a_longer_name", {"task": "t/a"}, {"task": "t/ab"}, {"tables": []}, rule="19.7")
    add("uses", five, nine, five, "two", "19.1")
    add("uses_and_none_stated", five, {"nbf": NOW}, {"nbf": NOW, **five}, "", "19.1")
    add("uses_equal", five, five, five, "both", "19.1")
    add("uses_of_none", {"uses": 0}, five, {"uses": 0}, "two", "19.1")
    add("budget", {"budget": {"cents": 5}}, {"budget": {"cents": 9}}, {"budget": {"cents": 5}}, "two", "19.1")
    add(
        "budget_of_other_units",
        {"budget": {"cents": 5}},
        {"budget": {"tokens": 9}},
        {"budget": {"cents": 5, "tokens": 9}},
        "",
        "19.1",
    )
    add("budget_each_less_in_one_unit", {"budget": {"cents": 5, "tokens": 9}}, {"budget": {"cents": 9, "tokens": 5}},
        {"budget": {"cents": 5, "tokens": 5}}, "", "19.1")  # fmt: skip
    add("budget_of_a_unit_more", {"budget": {"cents": 5}}, {"budget": {"cents": 5, "tokens": 9}},
        {"budget": {"cents": 5, "tokens": 9}}, "one", "19.1")  # fmt: skip
    add("uses_beside_budget", five, {"budget": {"cents": 5}}, {"budget": {"cents": 5}, **five}, "", "19.1")
    add("fresh", {"fresh": 10}, {"fresh": 60}, {"fresh": 10}, "two", "19.1")
    add("fresh_and_uses_on_data", {**tables_("a"), "fresh": 10, **five}, {"fresh": 60, **nine},
        {**tables_("a"), "fresh": 10, **five}, "two", "19.8")  # fmt: skip
    return table


def _rows(add: Callable[..., None], tables_: Callable[..., dict[str, Json]]) -> None:
    """Rows meet column by column, at each table; an entry below others is spelled with what these name."""

    def held(**entries: Json) -> dict[str, Json]:
        return {"rows": {"*" if pattern == "all" else pattern: entry for pattern, entry in entries.items()}}

    def whole(**entries: Json) -> dict[str, Json]:
        return {**tables_("*"), **held(**entries)}

    ab, bc, year, any_, none = {"in": ["a", "b"]}, {"in": ["b", "c"]}, {"min": 2024}, {"any": True}, {"_": {"in": []}}
    add("rows", held(sales={"t": ab}), held(sales={"t": bc}), whole(sales={"t": {"in": ["b"]}}))
    add("rows_of_one", {**SALES, **held(sales={"t": ab})}, SALES, {**SALES, **held(sales={"t": ab})}, "two")
    add("rows_of_two_columns", held(sales={"t": ab}), held(sales={"y": year}), whole(sales={"t": ab, "y": year}), rule="19.4")
    add("rows_of_pattern_and_exact", held(all={"t": ab}), held(sales={"y": year}), whole(all={"t": ab}, sales={"t": ab, "y": year}), rule="19.4")
    add("rows_fewer", held(sales={"t": ab}), held(sales={"t": ab, "y": year}), whole(sales={"t": ab, "y": year}), "one")
    add("rows_that_are_free", held(sales={"t": any_}), held(hr={}), tables_("*"), "both", rule="19.2")
    add("rows_with_a_free_table", held(all={"t": ab}, hr={}), tables_("*"), whole(all={"t": ab}, hr={}), "two", rule="19.8")
    add("rows_with_a_free_column", held(all={"t": ab}, hr={"t": any_, "y": year}), tables_("*"), whole(all={"t": ab}, hr={"t": any_, "y": year}), "two",
        rule="19.8")  # fmt: skip
    add("rows_freed_by_one_alone", held(all={"t": ab}, hr={}), held(all={"t": ab}), whole(all={"t": ab}), "one", rule="19.4")
    add("rows_of_none", held(sales={"t": {"in": ["a"]}}), held(sales={"t": {"in": ["c"]}}), whole(sales=none), rule="19.7")
    add("rows_of_none_in_two_ways", held(sales={"t": {"in": []}}), held(sales={"t": ab, "y": {"in": []}}), whole(sales=none), "both", rule="19.7")
    add("rows_below_none", held(all={"t": {"in": []}}, hr={"t": any_, "y": year}), tables_("*"), whole(all=none, hr={"_": any_, "y": year}), "two",
        rule="19.8")  # fmt: skip
    add("rows_of_a_table_not_held", tables_("sales"), held(hr={"t": ab}), tables_("sales"), "two", rule="19.2")
    add("rows_where_entries_agree", held(all={"t": ab}, hr={"t": {"in": ["b", "a"]}}), tables_("*"), whole(all={"t": ab}), "two", rule="19.7")
    add("rows_of_a_range", held(sales={"y": {"max": 9}}), held(sales={"y": {"min": 5}}), whole(sales={"y": {"max": 9, "min": 5}}), rule="19.4")
    add("rows_of_unlike_kinds", held(sales={"y": {"max": 9}}), held(sales={"y": {"prefix": ["a"]}}), whole(sales=none), rule="19.7")
    add("rows_and_columns", held(sales={"t": ab}), {"columns": {"sales": ["t"]}}, {**whole(sales={"t": ab}), "columns": {"sales": ["t"]}})
    add("rows_with_a_hole", {"allow": {"*": ["x"], "hr.*": []}}, held(all={"t": ab}), {"allow": {"*": ["x"], "hr.*": []}, **held(all={"t": ab})}, rule="19.8")


def _asked_of_rows(writes: Callable[..., None], fails: Callable[..., None]) -> None:
    """What is asked of rows, under two tenants' orders and all that a third has."""
    ab, any_, year = {"in": ["a", "b"]}, {"any": True}, {"max": 2026, "min": 2024}
    held = token(
        {"allow": {"*": ["select"], "hr.*": []}, "rows": {"*": {"t": ab}, "free": {}, "none": {"t": {"in": []}}, "orders": {"t": ab, "y": {"min": 2024}}}}
    )

    def written(name: str, **asked: Json) -> None:
        writes(f"rows_{name}", "23.21", {"rows": asked}, parts=held, rows=asked)

    def widens(name: str, **asked: Json) -> None:
        fails(f"rows_{name}", "23.21", "rows", parts=held, rows=asked)

    def cut(name: str, left: Json, **asked: Json) -> None:
        writes(f"rows_{name}_cut", "23.15", {"rows": left}, parts=held, rows=asked, clamp=True)

    written("fewer", orders={"t": {"in": ["a"]}})
    widens("other", orders={"t": {"in": ["a", "c"]}})
    written("as_held", orders={"t": ab, "y": {"min": 2024}})
    written("of_another_column", orders={"z": {"in": [1]}})
    written("that_name_no_column", orders={})
    written("of_a_free_table", free={"z": any_})
    widens("any_of_what_is_held", orders={"t": any_})
    widens("of_a_wider_range", orders={"y": {"max": 2026, "min": 2023}})
    widens("of_a_range_under_a_list", orders={"t": {"max": 5, "min": 1}})
    widens("of_a_table_not_held", **{"hr.pay": {"t": {"in": ["a"]}}})
    widens("not_held_below", **{"*": {"t": ab, "y": {"max": 9, "min": 0}}})
    widens("of_what_has_no_row", none={"z": {"in": [1]}})
    writes("rows_that_complete_a_range", "13.6", {"rows": {"orders": {"y": year}}}, parts=held, rows={"orders": {"y": {"max": 2026}}})
    writes("rows_that_complete_a_range_from_0", "13.6", {"rows": {"free": {"y": {"max": 5, "min": 0}}}}, parts=held, rows={"free": {"y": {"max": 5}}})
    both: dict[str, Json] = {"crm.*": {"t": {"in": ["a"]}}, "crm.deals": {"t": {"in": ["a"]}, "y": year}}
    written("that_name_what_is_over_them", **both)
    fails("rows_that_lift_by_leaving_out", "15.14", None, code="usage", parts=held, rows={**both, "crm.deals": {"y": year}})
    fails("rows_of_a_value", "15.13", None, code="usage", parts=held, rows={"orders": {"t": "a"}})
    fails("rows_empty", "17.5", None, code="usage", parts=held, rows={})
    writes("rows_sorted", "23.18", {"rows": {"orders": {"t": ab}}}, parts=held, rows={"orders": {"t": {"in": ["b", "a", "b"]}}})
    cut("other", {"orders": {"t": {"in": ["a"]}}}, orders={"t": {"in": ["a", "c"]}})
    cut("at_each_place", {"*": {"y": year}, "free": {"y": year}, "none": {"y": {"in": []}}, "orders": {"y": year}}, **{"*": {"y": year}})
    cut("where_another_wish_decides", {"*": {"t": ab}, "free": {"t": any_}, "none": {"t": {"in": []}}, "orders": {"t": {"in": ["b"]}}},
        **{"*": {"t": any_}, "orders": {"t": {"in": ["b", "c"]}}})  # fmt: skip
    cut("one_place_to_none", {"free": {"t": {"in": ["c"]}}, "orders": {"t": {"in": []}}}, free={"t": {"in": ["c"]}}, orders={"t": {"in": ["c"]}})
    fails("rows_cut_to_nothing", "23.15", "rows", code="nothing_left", parts=held, rows={"orders": {"t": {"in": ["c"]}}}, clamp=True)
    fails("rows_cut_of_a_table_not_held", "23.15", "rows", code="nothing_left", parts=held, rows={"hr.pay": {"t": ab}}, clamp=True)
    writes("rows_and_tables_at_once", "23.4", {"allow": {"orders": ["select"]}, "rows": {"orders": {"t": {"in": ["a"]}}}}, parts=held,
           allow={"orders": ["select"]}, rows={"orders": {"t": {"in": ["a"]}}})  # fmt: skip


def widening() -> Table:
    """What a holder asks for, and the link that is written or the dimension in which it is too much."""
    table = Table("widening", "A token, what is asked of it, and the link that is written or the error.")
    any_ = {"any": True}
    base = {
        "allow": {"hr": ["update"], "market.*": ["select"], "market.eu": [], "sales": ["insert", "select"]},
        "tools": {"files.*": {"path": {"path": ["/data"]}}, "search": {"q": any_}},
        "where": {"level": {"in": [1, 2, 3]}, "score": {"max": 9, "min": 1}},
    }
    held = token(
        {**base, "columns": {"sales": ["amount", "region"]}, "exp": NOW + 600, "nbf": NOW - 60}, {"aud": ["hr-db", "sales-db"]}
    )

    def given(parts: Parts, asked: dict[str, Json], to: str | None) -> dict[str, Json]:
        return {"token": parts.text, "now": NOW, "to": to, "nonce": "00" * 7 + "07", "asked": asked}

    def writes(name: str, rule: str, link: Json, *, parts: Parts = held, to: str | None = None, **asked: Json) -> None:
        table.add(name, rule, "widening", given(parts, asked, to), link=link)

    def fails(
        name: str,
        rule: str,
        dimension: str | None,
        *,
        code: str = "widening",
        parts: Parts = held,
        to: str | None = None,
        **asked: Json,
    ) -> None:
        more = {} if dimension is None else {"dimension": dimension}
        table.add(name, rule, "widening", given(parts, asked, to), code, **more)

    def nothing(name: str, rule: str, dimension: str, **asked: Json) -> None:
        fails(name, rule, dimension, code="nothing_left", clamp=True, **asked)

    writes("tables", "23.5", {"tables": ["sales"]}, tables=["sales"])
    writes("tables_sorted_without_repetition", "23.18", {"tables": ["hr", "sales"]}, tables=["sales", "hr", "sales"])
    writes("tables_below_pattern", "23.5", {"tables": ["market.us"]}, tables=["market.us"])
    writes("tables_above_what_is_held", "23.5", {"tables": ["*"]}, tables=["*"])
    writes("tables_none", "23.5", {"tables": []}, tables=[])
    fails("tables_not_held", "23.5", "tables", tables=["orders"])
    fails("tables_one_not_held", "23.5", "tables", tables=["orders", "sales"])
    fails("tables_in_a_hole", "23.5", "tables", tables=["market.eu"])
    fails("tables_segment_itself", "23.5", "tables", tables=["market"])
    writes("tables_cut", "23.15", {"tables": ["sales"]}, tables=["orders", "sales"], clamp=True)
    writes("tables_cut_to_entries_below", "23.15", {"tables": ["hr", "market.*", "sales"]}, tables=["*", "orders"], clamp=True)
    nothing("tables_cut_to_nothing", "23.15", "tables", tables=["orders"])
    writes("operations", "23.6", {"operations": ["select"]}, operations=["select"])
    writes("operations_held_on_one_table", "23.6", {"operations": ["update"]}, operations=["update"])
    fails("operations_not_held", "23.6", "operations", operations=["delete"])
    fails("operations_one_not_held", "23.6", "operations", operations=["delete", "select"])
    fails("operations_any", "23.6", "operations", operations=["*"])
    writes("operations_cut", "23.15", {"operations": ["select"]}, operations=["delete", "select"], clamp=True)
    writes("operations_any_cut", "23.15", {"operations": ["insert", "select", "update"]}, operations=["*"], clamp=True)
    nothing("operations_cut_to_nothing", "23.15", "operations", operations=["delete"])
    open_ = token({"allow": {"*": ["*"]}, "exp": NOW + 600})
    writes("operations_any_under_any", "23.6", {"operations": ["*"]}, parts=open_, operations=["*"])
    writes("pairs", "23.4", {"operations": ["insert"], "tables": ["sales"]}, tables=["sales"], operations=["insert"])
    fails("pairs_operation_held_elsewhere", "23.4", "operations", tables=["sales"], operations=["update"])
    fails("pairs_table_not_held", "23.4", "tables", tables=["orders"], operations=["select"])
    fails("pairs_above_what_is_held", "23.4", "tables", tables=["*"], operations=["select"])
    writes("pairs_of_no_operation", "23.4", {"operations": [], "tables": ["orders"]}, tables=["orders"], operations=[])
    writes(
        "pairs_cut_to_one_list",
        "23.15",
        {"operations": ["insert", "select"], "tables": ["sales"]},
        tables=["orders", "sales"],
        operations=["insert", "select"],
        clamp=True,
    )
    cut = {"allow": {"market.*": ["select"], "market.eu": [], "sales": ["select"]}}
    writes("pairs_cut_to_a_map", "23.15", cut, tables=["*"], operations=["select"], clamp=True)
    writes("pairs_cut_where_all_is_held", "23.15", {"operations": ["select"], "tables": ["sales"]}, tables=["sales"], operations=["select"],
           clamp=True)  # fmt: skip
    nothing("pairs_cut_to_nothing", "23.15", "operations", tables=["sales"], operations=["update"])
    writes("map", "23.4", {"allow": {"hr": ["update"], "sales": ["select"]}}, allow={"hr": ["update"], "sales": ["select"]})
    fails("map_not_held", "23.4", "allow", allow={"hr": ["select"]})
    fails("map_over_a_hole", "23.4", "allow", allow={"market.*": ["select"]})
    writes(
        "map_with_the_hole",
        "23.4",
        {"allow": {"market.*": ["select"], "market.eu": []}},
        allow={"market.*": ["select"], "market.eu": []},
    )
    writes(
        "map_cut",
        "23.15",
        {"allow": {"hr": ["update"], "sales": ["select"]}},
        allow={"hr": ["select", "update"], "sales": ["select"]},
        clamp=True,
    )
    nothing("map_cut_to_nothing", "23.15", "allow", allow={"hr": ["select"]})
    writes("map_none", "23.4", {"allow": {}}, allow={})
    writes("columns", "23.7", {"columns": {"sales": ["region"]}}, columns={"sales": ["region"]})
    writes("columns_where_none_are_asked", "23.7", {"columns": {"market.*": ["a"]}}, columns={"market.*": ["a"]})
    writes("columns_not_stated_before", "23.7", {"columns": {"market.*": ["*"]}}, columns={"market.*": ["*"]})
    fails("columns_not_held", "23.7", "columns", columns={"sales": ["pay", "region"]})
    fails("columns_any_not_held", "23.7", "columns", columns={"sales": ["*"]})
    fails("columns_of_a_table_not_held", "23.7", "columns", columns={"orders": ["a"]})
    fails("columns_not_held_below", "23.7", "columns", columns={"*": ["pay"]})
    writes("columns_cut", "23.15", {"columns": {"sales": ["region"]}}, columns={"sales": ["pay", "region"]}, clamp=True)
    writes("columns_any_cut", "23.15", {"columns": {"sales": ["amount", "region"]}}, columns={"sales": ["*"]}, clamp=True)
    writes("columns_cut_to_none_of_a_table", "23.15", {"columns": {"sales": []}}, columns={"sales": ["pay"]}, clamp=True)
    nothing("columns_cut_to_nothing", "23.15", "columns", columns={"orders": ["a"]})
    _asked_of_rows(writes, fails)
    table.beside("columns_any_cut")
    writes("tools", "23.8", {"tools": {"search": {"q": {"in": ["a"]}}}}, tools={"search": {"q": {"in": ["a"]}}})
    writes(
        "tools_below_pattern",
        "23.8",
        {"tools": {"files.read": {"path": {"path": ["/data/a"]}}}},
        tools={"files.read": {"path": {"path": ["/data/a"]}}},
    )
    fails("tools_argument_left_out", "23.8", "tools", tools={"search": {}})
    fails("tools_argument_made_optional", "23.8", "tools", tools={"search": {"q": {"any": True, "optional": True}}})
    fails("tools_argument_added", "23.8", "tools", tools={"search": {"q": any_, "r": any_}})
    fails("tools_argument_widened", "23.8", "tools", tools={"files.read": {"path": {"path": ["/"]}}})
    fails("tools_not_held", "23.8", "tools", tools={"mail": {}})
    fails("tools_above_what_is_held", "23.8", "tools", tools={"*": {}})
    writes("tools_cut", "23.15", {"tools": {"search": {"q": any_}}}, tools={"search": {}}, clamp=True)
    writes(
        "tools_cut_path",
        "23.15",
        {"tools": {"files.read": {"path": {"path": ["/data"]}}}},
        tools={"files.read": {"path": {"path": ["/"]}}},
        clamp=True,
    )
    writes("tools_cut_to_entries_below", "23.15", {"tools": base["tools"]}, tools={"*": {}}, clamp=True)
    nothing("tools_cut_to_nothing", "23.15", "tools", tools={"mail": {}})
    nothing("tools_cut_to_nothing_though_operations_are_left", "23.15", "tools", tools={"mail": {}}, operations=["select"])
    walled = token({"tools": {"*": {}, "mail.*": {"q": {"min": 0}}}})
    writes("tools_cut_keeps_walls", "23.15", {"tools": {"*": {}, "mail.*": {"_": {"in": []}}}},
           parts=walled, tools={"*": {}, "mail.*": {"r": any_}}, clamp=True)  # fmt: skip
    data = token(SALES)
    fails("tools_under_tables", "23.8", "tools", parts=data, tools={"search": {}})
    fails("tables_under_tools", "23.5", "tables", parts=token({"tools": {"*": {}}}), tables=["sales"])
    spread = {"columns": {"hr": ["amount", "pay"], "market.*": ["amount", "pay"], "sales": ["amount"]}}
    writes("columns_cut_at_each_place", "23.15", spread, columns={"*": ["amount", "pay"]}, clamp=True)
    inner = {"columns": {"hr": ["pay"], "market.*": ["pay"], "sales": []}}
    writes("columns_cut_where_another_wish_decides", "23.15", inner, columns={"*": ["pay"], "sales": ["id"]}, clamp=True)
    writes("tables_cut_with_a_pattern_that_is_held", "23.15", {"tables": ["market.*", "sales"]},
           tables=["market.*", "orders", "sales"], clamp=True)  # fmt: skip
    writes("tables_cut_where_one_lies_in_a_hole", "23.15", {"tables": ["hr", "market.*", "sales"]},
           tables=["*", "market.eu"], clamp=True)  # fmt: skip
    writes("tools_cut_at_each_place", "23.15", {"tools": {"files.*": {"path": {"path": ["/data"]}}, "files.read": {"path": {"path": [
           "/data/a"]}}}}, tools={"files.*": {"path": any_}, "files.read": {"path": {"path": ["/data/a"]}}}, clamp=True)  # fmt: skip
    nothing("where_cut_to_nothing_of_one", "23.15", "where", where={"level": {"in": [4]}, "score": {"min": 1}})
    writes("where_cut_in_one_of_two", "23.15", {"where": {"level": {"in": [2]}, "score": {"max": 5, "min": 2}}},
           where={"level": {"in": [2, 4]}, "score": {"max": 5, "min": 2}}, clamp=True)  # fmt: skip
    none = token({"nbf": NOW - 60})
    writes("tools_under_nothing_closed", "23.8", {"tools": {"search": {}}}, parts=none, tools={"search": {}})
    writes("tables_under_nothing_closed", "23.5", {"tables": ["sales"]}, parts=none, tables=["sales"])
    writes("where", "23.9", {"where": {"level": {"in": [2]}}}, where={"level": {"in": [2]}})
    writes("where_list_under_range", "23.9", {"where": {"score": {"in": [1, 9]}}}, where={"score": {"in": [9, 1]}})
    writes("where_new_attribute", "23.9", {"where": {"region": any_}}, where={"region": any_})
    fails("where_value_added", "23.9", "where", where={"level": {"in": [2, 4]}})
    fails("where_range_under_list", "23.9", "where", where={"level": {"max": 2, "min": 1}})
    fails("where_any_under_list", "23.9", "where", where={"level": any_})
    fails("where_range_wider", "23.9", "where", where={"score": {"min": 1}})
    writes("max_alone_is_completed_by_what_is_held", "13.6", {"where": {"score": {"max": 5, "min": 1}}},
           where={"score": {"max": 5}})  # fmt: skip
    writes("max_alone_is_completed_by_zero", "13.6", {"where": {"new": {"max": 5, "min": 0}}}, where={"new": {"max": 5}})
    writes("max_of_zero_alone", "13.6", {"where": {"new": {"max": 0, "min": 0}}}, where={"new": {"max": 0}})
    writes("min_alone_is_not_completed", "13.6", {"where": {"new": {"min": 5}}}, where={"new": {"min": 5}})
    writes("min_and_max_stay", "13.6", {"where": {"new": {"max": 5, "min": -5}}}, where={"new": {"max": 5, "min": -5}})
    fails("negative_max_alone", "13.6", None, code="usage", where={"new": {"max": -1}})
    below = token({"tools": {"move": {"by": {"max": 9, "min": -9}, "to": {"max": 9}}}, "where": {"level": {"max": 9, "min": -9}}})
    fails("negative_max_alone_under_a_lower_min", "13.6", None, code="usage", parts=below, where={"level": {"max": -1}})
    writes("max_alone_is_completed_by_a_lower_min", "13.6", {"where": {"level": {"max": 5, "min": -9}}}, parts=below,
           where={"level": {"max": 5}})  # fmt: skip
    writes("max_alone_in_tools", "13.6", {"tools": {"move": {"by": {"max": 5, "min": -9}, "to": {"max": 5, "min": 0}}}},
           parts=below, tools={"move": {"by": {"max": 5}, "to": {"max": 5}}})  # fmt: skip
    fails("negative_max_alone_in_tools", "13.6", None, code="usage", parts=below, tools={"move": {"by": {"max": -5}, "to": any_}})
    fails("max_alone_below_what_is_held", "13.6", "where", where={"score": {"max": 0}})
    listed = token({"tools": {"move": {"by": {"each": {"max": 9, "min": -9}}}}})
    writes("max_alone_in_each", "13.6", {"tools": {"move": {"by": {"each": {"max": 5, "min": -9}, "most": 2}}}},
           parts=listed, tools={"move": {"by": {"each": {"max": 5}, "most": 2}}})  # fmt: skip
    writes("max_alone_in_new_each", "13.6", {"where": {"new": {"each": {"max": 5, "min": 0}}}}, where={"new": {"each": {"max": 5}}})
    fails("negative_max_alone_in_each", "13.6", None, code="usage", where={"new": {"each": {"max": -5}}})
    fails("list_in_a_list", "23.2", None, code="usage", where={"new": {"in": [["a"]]}})
    fetch = token({"tools": {"fetch": {"url": {"url": ["https://*.b.c/x", "https://a.b.c"]}}, "ping": {"host": {"cidr": ["10.0.0.0/8"]}}}})
    writes("url", "23.8", {"tools": {"fetch": {"url": {"url": ["https://a.b.c/y"]}}}}, parts=fetch,
           tools={"fetch": {"url": {"url": ["https://a.b.c/y"]}}})  # fmt: skip
    fails("url_wider", "23.8", "tools", parts=fetch, tools={"fetch": {"url": {"url": ["https://*.b.c"]}}})
    writes("url_cut", "23.15", {"tools": {"fetch": {"url": {"url": ["https://*.b.c/x", "https://a.b.c/"]}}}}, parts=fetch,
           tools={"fetch": {"url": {"url": ["https://*.b.c"]}}}, clamp=True)  # fmt: skip
    fails("block_wider", "23.8", "tools", parts=fetch, tools={"ping": {"host": {"cidr": ["0.0.0.0/0"]}}})
    writes("block_cut", "23.15", {"tools": {"ping": {"host": {"cidr": ["10.0.0.0/8"]}}}}, parts=fetch,
           tools={"ping": {"host": {"cidr": ["0.0.0.0/0"]}}}, clamp=True)  # fmt: skip
    many = token({"where": {"x": {"url": [f"ws://{letter}.x.y" for letter in SIXTEEN]}}})
    writes("url_cut_to_sixteen", "13.13", {"where": {"x": {"url": [f"ws://{letter}.x.y/p" for letter in SIXTEEN]}}}, parts=many,
           where={"x": {"url": ["ws://*.x.y/p"]}}, clamp=True)  # fmt: skip
    fails("url_cut_to_more_than_sixteen", "13.13", "where", parts=many,
          where={"x": {"url": ["ws://*.x.y/p", "ws://*.x.y/q"]}}, clamp=True)  # fmt: skip
    writes("max_alone_where_optional", "13.6", {"tools": {"go": {"by": {"max": 5, "min": 0, "optional": True}}}},
           parts=token({"tools": {"*": {}}}), tools={"go": {"by": {"max": 5, "optional": True}}})  # fmt: skip
    writes("where_cut", "23.15", {"where": {"level": {"in": [2]}}}, where={"level": {"in": [2, 4]}}, clamp=True)
    writes(
        "where_range_cut_to_list",
        "23.15",
        {"where": {"level": {"in": [1, 2]}}},
        where={"level": {"max": 2, "min": 1}},
        clamp=True,
    )
    writes("where_range_cut", "23.15", {"where": {"score": {"max": 9, "min": 3}}}, where={"score": {"min": 3}}, clamp=True)
    nothing("where_cut_to_nothing", "23.15", "where", where={"level": {"in": [4]}})
    writes("exp_equal", "23.10", {"exp": NOW + 600}, expires_at=NOW + 600)
    fails("exp_later", "23.10", "exp", expires_at=NOW + 601)
    writes("exp_cut", "23.15", {"exp": NOW + 600}, expires_at=NOW + 601, clamp=True)
    writes("expires_in", "23.11", {"exp": NOW + 60}, expires_in=60)
    writes("expires_in_is_at_most", "23.11", {"exp": NOW + 600}, expires_in=6000)
    writes("exp_where_none_is_held", "23.10", {"exp": NOW + 10**6}, parts=data, expires_at=NOW + 10**6)
    writes("nbf_later", "23.10", {"nbf": NOW}, not_before=NOW)
    fails("nbf_earlier", "23.10", "nbf", not_before=NOW - 61)
    writes("nbf_cut", "23.15", {"nbf": NOW - 60}, not_before=NOW - 61, clamp=True)
    writes("aud", "23.10", {"aud": ["sales-db"]}, audience="sales-db")
    fails("aud_added", "23.10", "aud", audience=["mail-api", "sales-db"])
    writes("aud_cut", "23.15", {"aud": ["sales-db"]}, audience=["mail-api", "sales-db"], clamp=True)
    nothing("aud_cut_to_nothing", "23.15", "aud", audience="mail-api")
    writes("aud_where_none_is_held", "23.10", {"aud": ["mail-api"]}, parts=data, audience="mail-api")
    addressed = token(SALES, key=audience_key(KEY, "sales-db"), aud="sales-db")
    writes("aud_of_the_root", "23.1", {"aud": ["sales-db"]}, parts=addressed, audience="sales-db")
    fails("aud_beside_that_of_the_root", "23.1", "aud", parts=addressed, audience="hr-db")
    writes("task_same", "23.10", {"task": "task-123"}, task="task-123")
    writes("task_below", "23.10", {"task": "task-123/a"}, task="task-123/a")
    fails("task_above", "23.10", "task", parts=token(SALES, {"task": "task-123/a"}), task="task-123")
    fails("task_other", "23.10", "task", task="task-1234")
    # The second and the last lie on no path with the others, and are passed over.
    torn = token(SALES, {"task": "task-123/a"}, {"task": "other"}, {"task": "task-123/a/b"}, {"task": "other/b"})
    writes("task_below_where_they_lie_apart", "19.1", {"task": "task-123/a/b/c"}, parts=torn, task="task-123/a/b/c")
    fails("task_above_where_they_lie_apart", "19.1", "task", parts=torn, task="task-123/a")
    fails("task_of_another_path_where_they_lie_apart", "19.1", "task", parts=torn, task="other/b/c/d")
    writes("task_cut_where_they_lie_apart", "23.15", {"task": "task-123/a/b"}, parts=torn, task="task-123", clamp=True)
    writes(
        "task_above_cut",
        "23.15",
        {"task": "task-123/a"},
        parts=token(SALES, {"task": "task-123/a"}),
        task="task-123",
        clamp=True,
    )
    nothing("task_other_cut", "23.15", "task", task="task-1234")
    fails("first_dimension_is_told", "23.3", "tables", tables=["orders"], tools={"mail": {}}, expires_at=NOW + 601)
    fails("tools_before_where", "23.3", "tools", tools={"mail": {}}, where={"level": {"in": [4]}}, expires_at=NOW + 601)
    fails("aud_before_task", "23.3", "aud", audience="mail-api", task="task-1234")
    fails("exp_before_aud", "23.3", "exp", audience="mail-api", expires_at=NOW + 601, task="task-1234")
    writes(
        "two_dimensions_cut",
        "23.15",
        {"aud": ["sales-db"], "tables": ["sales"]},
        audience=["mail-api", "sales-db"],
        tables=["orders", "sales"],
        clamp=True,
    )
    writes("keep_tools", "23.16", {"tables": ["sales"], "tools": {"*": {}}}, tables=["sales"], keep="tools")
    writes(
        "keep_tables",
        "23.16",
        {"tables": ["*"], "tools": {"search": {"q": any_}}},
        tools={"search": {"q": any_}},
        keep="tables",
    )
    for named in ({"operations": ["select"]}, {"allow": {"sales": ["select"]}}, {"columns": {"sales": ["region"]}}):
        (name,) = named
        writes(f"keep_tools_beside_{name}", "23.16", {**named, "tools": {"*": {}}}, keep="tools", **named)
    writes("keep_both", "23.16", {"operations": ["select"], "tables": ["*"], "tools": {"*": {}}}, operations=["select"], keep=["tools", "tables"])
    writes("keep_beside_the_same", "23.16", {"tables": ["sales"]}, tables=["sales"], keep="tables")
    fails("keep_where_nothing_is_closed", "23.16", None, code="usage", keep="tools", expires_in=60)

    given_on = hand_over("sales-agent", number=7)
    writes("hand_over", "23.13", given_on, to="sales-agent")
    writes(
        "hand_over_narrowed",
        "23.13",
        {**given_on, "exp": NOW + 60, "tables": ["sales"]},
        to="sales-agent",
        tables=["sales"],
        expires_in=60,
    )
    fails("hand_over_to_itself", "23.13", None, code="broken_delegation", to="orchestrator")
    second = extended(held, hand_over("sales-agent"))
    fails("hand_over_back", "23.13", None, code="broken_delegation", parts=second, to="orchestrator")
    writes("hand_over_by_the_second", "23.13", hand_over("report-agent", "sales-agent", 7), parts=second, to="report-agent")
    last = token({**SALES, "depth": 0})
    fails("hand_over_past_depth", "23.13", None, code="too_deep", parts=last, to="sales-agent")
    fails("widening_before_hand_over", "23.3", "tables", parts=last, to="sales-agent", tables=["orders"])
    deep = token({**SALES, "depth": 2})
    writes("hand_over_within_depth", "23.13", given_on, parts=deep, to="sales-agent")
    writes("depth_equal", "23.14", {"depth": 2}, parts=deep, depth=2)
    fails("depth_more", "23.14", "depth", parts=deep, depth=3)
    fails("depth_more_after_hand_over", "23.14", "depth", parts=deep, to="sales-agent", depth=2)
    writes("depth_left_after_hand_over", "23.14", {**given_on, "depth": 1}, parts=deep, to="sales-agent", depth=1)
    writes("depth_cut", "23.15", {"depth": 2}, parts=deep, depth=9, clamp=True)
    writes("depth_where_none_is_held", "23.14", {"depth": 9}, parts=data, depth=9)
    owed = token({**SALES, "delegate_only": True})
    writes("delegate_only", "23.14", {"delegate_only": True}, parts=data, delegate_only=True)
    fails("delegate_only_taken_back", "23.14", "delegate_only", parts=owed, delegate_only=False, expires_in=60)
    writes(
        "delegate_only_taken_back_cut", "23.15", {"exp": NOW + 60}, parts=owed, delegate_only=False, expires_in=60, clamp=True
    )
    writes("without_delegate_only", "23.14", {"exp": NOW + 60}, parts=data, expires_in=60)
    fails("delegate_only_false", "23.14", None, code="usage", parts=data, delegate_only=False, expires_in=60)

    fails("usage_before_widening", "23.3", None, code="usage", tables=["orders"], where={})
    fails("no_name_before_an_unknown_key", "23.3", None, code="usage", to="sales agent", used=1)
    fails("widening_before_keep", "23.3", "tables", tables=["orders"], keep="where")
    fails("keep_before_hand_over", "23.3", None, code="usage", parts=last, to="sales-agent", tables=["sales"], keep="where")
    fails("hand_over_before_depth", "23.3", None, code="too_deep", parts=last, to="sales-agent", depth=5)
    fails("depth_before_delegate_only", "23.3", "depth", parts=token({**SALES, "delegate_only": True, "depth": 1}), depth=2,
          delegate_only=False)  # fmt: skip
    fails("own_keys_before_depth", "23.3", "tables", parts=deep, tables=["orders"], depth=9)

    numbered = {"n": nonce(7)}
    counted = token(
        {**SALES, "budget": {"cents": 5, "tokens": 9}, "fresh": 60, "n": nonce(), "uses": 10}, {"n": nonce(1), "uses": 3}
    )
    writes("uses", "23.20", {"uses": 3, **numbered}, parts=data, uses=3)
    writes("uses_held", "23.20", {"uses": 3, **numbered}, parts=counted, uses=3)
    writes("uses_less", "23.20", {"uses": 0, **numbered}, parts=counted, uses=0)
    fails("uses_more", "23.20", "uses", parts=counted, uses=4)
    writes("uses_cut", "23.20", {"uses": 3, **numbered}, parts=counted, uses=99, clamp=True)
    writes("uses_in_a_hand_over", "23.20", {**given_on, "uses": 3}, parts=data, to="sales-agent", uses=3)
    writes("budget", "23.20", {"budget": {"cents": 5}, **numbered}, parts=data, budget={"cents": 5})
    writes(
        "budget_held",
        "23.20",
        {"budget": {"cents": 5, "tokens": 1}, **numbered},
        parts=counted,
        budget={"cents": 5, "tokens": 1},
    )
    writes("budget_of_another_unit", "23.20", {"budget": {"mails": 700}, **numbered}, parts=counted, budget={"mails": 700})
    fails("budget_more", "23.20", "budget", parts=counted, budget={"cents": 6})
    fails("budget_more_in_the_second_unit", "23.20", "budget", parts=counted, budget={"cents": 5, "tokens": 10})
    writes("budget_cut", "23.20", {"budget": {"cents": 5, "mails": 7, "tokens": 1}, **numbered}, parts=counted,
           budget={"cents": 6, "mails": 7, "tokens": 1}, clamp=True)  # fmt: skip
    fails("uses_and_budget_more", "23.3", "uses", parts=counted, uses=4, budget={"cents": 6})
    writes("uses_and_budget_cut", "23.20", {"budget": {"cents": 5}, "uses": 3, **numbered}, parts=counted, uses=4,
           budget={"cents": 6}, clamp=True)  # fmt: skip
    writes("fresh", "23.20", {"fresh": 60}, parts=data, fresh=60)
    writes("fresh_held", "23.20", {"fresh": 60}, parts=counted, fresh=60)
    fails("fresh_more", "23.20", "fresh", parts=counted, fresh=61)
    writes("fresh_cut", "23.20", {"fresh": 60}, parts=counted, fresh=3600, clamp=True)
    fails("budget_and_fresh_more", "23.3", "budget", parts=counted, fresh=61, budget={"cents": 6})
    fails("expiry_and_uses_more", "23.3", "exp", parts=token({**SALES, "exp": NOW + 60}, {"n": nonce(), "uses": 1}), uses=2,
          expires_at=NOW + 61)  # fmt: skip
    writes("without_what_counts", "23.2", {"tables": ["sales"]}, parts=counted, tables=["sales"])
    for name, asked in {
        "uses_negative": {"uses": -1}, "uses_text": {"uses": "1"}, "uses_true": {"uses": True}, "budget_empty": {"budget": {}},
        "budget_of_uses": {"budget": {"uses": 1}}, "budget_list": {"budget": ["cents"]},
        "budget_negative": {"budget": {"cents": -1}},
        "fresh_negative": {"fresh": -1}, "fresh_text": {"fresh": "60"},
    }.items():  # fmt: skip
        fails(f"usage_{name}", "15.9", None, code="usage", **asked)

    _of_own_keys(table)
    opaque = token(SALES, {"acme:region": 1, "tables": ["hr"]})
    writes("under_opaque_link", "23.1", {"tables": ["sales"]}, parts=opaque, tables=["sales"])
    fails("under_opaque_link_too_much", "23.1", "tables", parts=opaque, tables=["hr"])
    passed = token(SALES, {"acme:region": 1, **hand_over("sales-agent")})
    writes("after_opaque_hand_over", "23.1", hand_over("report-agent", "sales-agent", 7), parts=passed, to="report-agent")
    between = token(SALES, {"acme:region": 1}, hand_over("sales-agent"))
    writes(
        "after_hand_over_after_opaque", "23.1", hand_over("report-agent", "sales-agent", 7), parts=between, to="report-agent"
    )
    _past_links_that_cannot_be_read(writes, fails)
    third = token(SALES, (b"ask", VID))
    writes("under_third_party", "23.1", {"tables": ["sales"]}, parts=third, tables=["sales"])
    usage: dict[str, tuple[str, dict[str, Json]]] = {
        "nothing": ("23.2", {}), "tables_as_text": ("15.1", {"tables": "sales"}),
        "tables_ill": ("15.1", {"tables": ["a..b"]}), "operations_ill": ("15.2", {"operations": ["sel ect"]}),
        "where_empty": ("17.5", {"where": {}}), "columns_empty": ("17.5", {"columns": {}}),
        "unknown_key": ("15.11", {"used": 10}), "unknown_own_key": ("15.11", {"acme:region": 1}),
        "range_crossed": ("13.1", {"where": {"x": {"max": 1, "min": 2}}}),
        "not_composed": ("4.7", {"tables": ["cafe\u0301"]}), **_not_composed(), "fraction": ("2.1", {"where": {"x": {"in": [1.5]}}}),
        "depth_negative": ("15.9", {"depth": -1}), "expires_in_zero": ("23.11", {"expires_in": 0}),
        "both_expiries": ("23.11", {"expires_in": 60, "expires_at": NOW + 60}),
        "keep_unknown": ("23.16", {"tables": ["sales"], "keep": "where"}), "null": ("23.2", {"tables": None}),
    }  # fmt: skip
    for name, (rule, asked) in usage.items():
        fails(f"usage_{name}", rule, None, code="usage", **asked)
    fails("usage_too_large", "2.1", None, code="usage", parts=data, expires_at=2**53)
    fails("usage_hand_over_to_no_name", "23.2", None, code="usage", to="sales agent")
    short = canonical(root(ext={"acme:note": ""}))
    largest = token(SALES, ext={"acme:note": "x" * (1024 - len(short))})
    writes("under_largest_root_record", "3.2", {"nbf": 1}, parts=largest, not_before=1)
    writes("last_link", "3.2", {"nbf": 1}, parts=token(*[{"nbf": 0}] * 63), not_before=1)
    fails("one_link_too_many", "3.2", None, code="limit", parts=token(*[{"nbf": 0}] * 64), not_before=1)
    long = token({**SALES, "tables": ["sales", *(f"{number:03}" + "x" * 250 for number in range(21))]})
    writes("text_that_is_long", "3.2", {"tables": ["sales"], "where": {"x": {"in": ["y" * 200 + "0"]}}}, parts=long, tables=["sales"],
           where={"x": {"in": ["y" * 200 + "0"]}})  # fmt: skip
    fails(
        "text_too_long",
        "3.2",
        None,
        code="limit",
        parts=long,
        tables=["sales"],
        where={"x": {"in": ["y" * 200 + str(number) for number in range(4)]}},
    )
    return table


def _not_composed() -> dict[str, tuple[str, dict[str, Json]]]:
    """Strings that are not in normal form C, in every place where a caveat has one."""
    word, any_ = "cafe\u0301", {"any": True}
    return {f"not_composed_{name}": ("4.7", asked) for name, asked in {
        "in_a_pattern_of_allow": {"allow": {word: ["select"]}}, "in_a_pattern_of_columns": {"columns": {word: ["a"]}},
        "in_a_column": {"columns": {"sales": [word]}}, "in_a_pattern_of_tools": {"tools": {word: {}}},
        "in_an_argument": {"tools": {"search": {word: any_}}}, "in_an_attribute": {"where": {word: any_}},
        "in_a_value": {"where": {"new": {"in": [word]}}}, "in_a_value_of_an_argument": {"tools": {"search": {"q": {"in": [word]}}}},
        "in_a_path": {"where": {"new": {"path": [f"/{word}"]}}}, "in_a_prefix": {"where": {"new": {"prefix": [word]}}},
        "in_each": {"where": {"new": {"each": {"in": [word]}}}},
    }.items()}  # fmt: skip


def _of_own_keys(table: Table) -> None:
    """Own caveats, which only their equals cover."""
    knows = [{"key": key, "domain": "all", "does": "holds"} for key in ("acme:region", "acme:seat")]

    def row(name: str, parts: Parts, expect: dict[str, Json], rule: str = "23.12", **asked: Json) -> None:
        given = {"token": parts.text, "now": NOW, "to": None, "nonce": "00" * 7 + "07", "asked": asked, "own": knows}
        table.add(f"own_{name}", rule, "widening", given, **expect)

    excess = {"code": "widening", "dimension": "acme:region"}
    eu: dict[str, Json] = {"acme:region": ["eu"]}
    held = token({**SALES, **eu})
    row("list_is_written_as_it_is_given", token(SALES), {"link": {"acme:region": ["us", "eu", "us"]}}, "23.18",
        **{"acme:region": ["us", "eu", "us"]})  # fmt: skip
    row("key_of_which_none_is_held", token(SALES), {"link": eu}, **eu)
    row("key_of_which_two_are_held", token({**SALES, **eu}, {"acme:region": ["us"]}), excess, **eu)
    row("key_that_is_held", held, {"link": eu}, **eu)
    row("key_with_another_value", held, excess, **{"acme:region": ["us"]})
    row("key_with_less", held, excess, **{"acme:region": []})
    row("key_beside_a_table", held, {"link": {**eu, "tables": ["sales"]}}, tables=["sales"], **eu)
    row("tables_before_own_key", held, {"code": "widening", "dimension": "tables"}, "23.3", tables=["hr"], **{"acme:region": ["us"]})
    two: dict[str, Json] = {**eu, "acme:seat": 1}
    row("two_keys_that_are_held", token({**SALES, **two}), {"link": two}, **two)
    alike = token({**SALES, **eu}, {"acme:seat": ["eu"]})
    row("two_keys_of_one_value", alike, {"link": {"acme:seat": ["eu"]}}, **{"acme:seat": ["eu"]})
    row("two_keys_of_one_value_and_another", alike, {**excess, "dimension": "acme:seat"}, **{"acme:seat": ["us"]})
    row("region_before_seat", token({**SALES, **two}), excess, "23.3", **{"acme:seat": 2, "acme:region": ["us"]})
    row("key_that_needs_no_cut", held, {"link": eu}, "23.15", clamp=True, **eu)
    row("key_that_is_cut", held, {**excess, "code": "nothing_left"}, "23.15", clamp=True, **{"acme:region": ["us"]})


def _past_links_that_cannot_be_read(writes: Any, fails: Any) -> None:
    """What a link that prohibits everything does to the chain that a holder reads."""

    def opaque(*names: str, **caveats: Json) -> dict[str, Json]:
        passed = hand_over(names[1], names[0]) if names else {}
        return {"acme:region": 1, **passed, **caveats}

    to_sales, plain = opaque("orchestrator", "sales-agent"), token(SALES)
    second = hand_over("report-agent", "sales-agent", 7)
    writes("after_opaque_hand_over_from_another", "23.1", second, to="report-agent",
           parts=extended(plain, opaque("mail-agent", "sales-agent")))  # fmt: skip
    writes("after_opaque_hand_over_that_lowers_depth", "23.1", second, to="report-agent",
           parts=extended(plain, {**to_sales, "depth": 0}))  # fmt: skip
    one_left = extended(token({**SALES, "depth": 1}), to_sales)
    writes("after_opaque_hand_over_under_depth", "23.1", second, to="report-agent", parts=one_left)
    fails("depth_after_opaque_hand_over", "23.1", "depth", parts=one_left, depth=2)
    writes("depth_left_after_opaque_hand_over", "23.1", {"depth": 1}, parts=one_left, depth=1)
    owed = token({**SALES, "delegate_only": True})
    for name, held in {"after_an_opaque_link": (owed, opaque()), "after_opaque_hand_over": (owed, to_sales),
                       "by_an_opaque_link": (plain, opaque(delegate_only=True))}.items():  # fmt: skip
        writes(f"owed_or_not_{name}", "23.1", {"exp": NOW + 60}, parts=extended(*held), expires_in=60)
    fails("owed_after_an_opaque_link", "23.1", "delegate_only", parts=extended(owed, opaque()), delegate_only=False,
          expires_in=60)  # fmt: skip
    fails("owed_no_more_after_opaque_hand_over", "23.1", None, code="usage", parts=extended(owed, to_sales), delegate_only=False,
          expires_in=60)  # fmt: skip
    fails("owed_by_an_opaque_link", "23.1", None, code="usage", parts=extended(plain, opaque(delegate_only=True)), delegate_only=False,
          expires_in=60)  # fmt: skip
    fails("after_opaque_hand_over_to_who_held_it", "23.1", None, code="broken_delegation", to="sales-agent",
          parts=extended(plain, to_sales))  # fmt: skip
    first = hand_over("report-agent", number=7)
    writes("after_opaque_hand_over_to_itself", "23.1", first, to="report-agent",
           parts=extended(plain, opaque("orchestrator", "orchestrator")))  # fmt: skip
    for name, change in {"without_n": {"n": None}, "to_no_name": {"to": "sales agent"}, "from_no_name": {"from": ""}}.items():
        link = {key: value for key, value in {**to_sales, **change}.items() if value is not None}
        writes(f"after_opaque_hand_over_{name}", "23.1", first, to="report-agent", parts=extended(plain, link))
    spaced = canonical(to_sales).replace(b'":', b'": ', 1)
    writes("after_a_hand_over_that_is_not_canonical", "23.1", first, to="report-agent", parts=extended(plain, spaced))
    unreadable = {**hand_over("sales-agent"), "exp": "soon"}
    writes("after_unreadable_hand_over", "23.1", second, to="report-agent", parts=extended(plain, unreadable))
    broken = {**hand_over("sales-agent", "mail-agent"), "depth": 0, "tables": ["sales"]}
    writes("after_a_hand_over_that_breaks_the_chain", "23.1", first, to="report-agent", parts=extended(plain, broken))
    key = b64(signing_public("orchestrator"))
    fails("after_an_opaque_link_with_a_key", "23.1", None, code="broken_delegation", to="report-agent",
          parts=extended(plain, opaque(key=key)))  # fmt: skip
    writes("after_an_opaque_link_with_no_key", "23.1", first, to="report-agent", parts=extended(plain, opaque(key="short")))


def _with_locations(size: int) -> tuple[Parts, bytes]:
    """A token that asks twice; and its bytes, so many, with empty locations as others write them."""
    asks = b"".join(b"\1\0" + field(2, cid) + field(4, VID) + b"\0" for cid in (b"one", b"two"))
    names, foreign = ["sales"], b""
    while len(foreign) < size:
        parts = token({**SALES, "tables": names}, (b"one", VID), (b"two", VID))
        foreign = parts.head + field(2, parts.bodies[0]) + b"\0" + asks + b"\0" + field(6, parts.signature)
        missing = size - len(foreign) - len(',""')
        names.append(f"t{len(names):03}" + "x" * (min(missing, 150) - 4))
    return parts, foreign


def interop() -> Table:
    """What other libraries write, and the one spelling of it."""
    table = Table("interop", "What other macaroon libraries write, as text or as bytes, and the one spelling of it.")
    lengths = (token(SALES, sub="user:jane" + "x" * extra) for extra in range(3))
    whole, two, three = sorted(lengths, key=lambda parts: len(b64(parts.wire)) % 4)
    record, caveats, tail = two.identifier, two.middle, b"\0" + field(6, two.signature)
    asked = extended(two, (b"ask", VID))

    def as_text(name: str, rule: str, text: str, parts: Parts | None) -> None:
        given = {"source": text, "form": "text"}
        table.add(name, rule, "interop", given, **({"code": "malformed"} if parts is None else {"text": parts.text}))

    def as_bytes(name: str, rule: str, wire: bytes, parts: Parts | None) -> None:
        given = {"source": wire.hex(), "form": "hexadecimal"}
        table.add(name, rule, "interop", given, **({"code": "malformed"} if parts is None else {"text": parts.text}))

    body, standard = b64(two.wire), b64(two.wire).replace("-", "+").replace("_", "/")
    as_text("own_spelling", "25.4", two.text, two)
    as_text("with_a_signature_that_does_not_hold", "25.1", two.signed(bytes(32)).text, two.signed(bytes(32)))
    as_text("with_a_link_that_cannot_be_read", "25.1", extended(two, b"exp < 5").text, extended(two, b"exp < 5"))
    bound = token({**SALES, "key": b64(signing_public("orchestrator"))})
    signed = handed(asking(bound, "one"), "sales-agent")
    as_text("with_a_signed_link_and_a_third_party", "25.5", signed.text, signed)
    as_text("with_a_discharge", "25.5", joined(asking(bound, "one"), (discharge("one", {"exp": NOW + 60}),), "cap1u_"), None)
    as_text("with_a_proof", "25.5", f"{two.text}.cap1p_{'A' * 118}", None)
    as_text("without_prefix", "25.2", body, two)
    as_text("padded", "25.2", body + "==", two)
    as_text("padded_with_one_of_two", "25.2", body + "=", two)
    as_text("prefix_and_padding", "25.2", two.text + "==", two)
    as_text("padded_by_three", "25.2", body + "===", None)
    as_text("padding_where_none_is_due", "25.2", b64(whole.wire) + "=", whole)
    as_text("standard_alphabet", "25.2", standard, two)
    as_text("standard_alphabet_padded", "25.2", standard + "==", two)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    stray = b64(three.wire)[:-1] + alphabet[alphabet.index(three.text[-1]) + 1]
    as_text("stray_bits", "25.2", stray, three)
    # Of every length that leaves bits over: what is read behind them is one character or two.
    for extra in range(9):
        longer = token(SALES, sub="user:ann" + "x" * extra)
        text = b64(longer.wire)
        if len(text) % 4:
            over = text[:-1] + alphabet[alphabet.index(text[-1]) + 1]
            as_text(f"stray_bits_behind_{len(text)}_characters", "25.2", over, longer)
    mixed = next(parts for parts in _numbered() if {"-", "_"} <= set(parts.text[5:]))
    as_text("one_alphabet", "25.2", mixed.text[5:], mixed)
    as_text("standard_alphabet_with_plus_and_slash", "25.2", mixed.text[5:].replace("-", "+").replace("_", "/"), mixed)
    as_text("mixed_alphabets", "25.2", mixed.text[5:].replace("-", "+"), None)
    as_text("mixed_alphabets_other_way", "25.2", mixed.text[5:].replace("_", "/"), None)
    as_bytes("bytes", "25.2", two.wire, two)
    as_bytes("header_location_empty", "25.3", b"\2\1\0" + field(2, record) + b"\0" + caveats + tail, two)
    empty = (
        b"\2\1\0"
        + field(2, record)
        + b"\0"
        + caveats
        + b"\1\0"
        + field(2, b"ask")
        + field(4, VID)
        + b"\0\0"
        + field(6, asked.signature)
    )
    for size in (127, 128, 129):
        first = {**SALES, "aud": ["x"]}
        parts = token({**first, "aud": ["x" * (size - len(canonical(first)) + 1)]})
        middle = b"\2\1\0" + parts.wire[1:]
        as_bytes(f"empty_location_before_a_link_of_{size}_bytes", "25.3", middle, parts)
        asks = extended(parts, (b"ask", VID))
        middle = parts.head + parts.middle + b"\1\0" + field(2, b"ask") + field(4, VID) + b"\0\0" + field(6, asks.signature)
        as_bytes(f"empty_location_behind_a_link_of_{size}_bytes", "25.3", middle, asks)
    as_bytes("third_party_location_empty", "25.3", empty, asked)
    as_text("empty_locations_as_text", "25.3", b64(empty), asked)
    # The longest text. What is left out of it makes one that a token may have.
    for chars in (8192, 8196):
        parts, foreign = _with_locations(chars * 3 // 4)
        as_text(f"of_{chars}_characters", "25.2", b64(foreign), parts if chars == 8192 else None)
    location = field(1, b"https://example.org/")
    as_bytes("header_location", "25.3", b"\2" + location + field(2, record) + b"\0" + caveats + tail, None)
    as_bytes(
        "third_party_location",
        "25.3",
        asked.head + caveats + location + field(2, b"ask") + field(4, VID) + b"\0\0" + field(6, asked.signature),
        None,
    )
    as_bytes("link_location_empty", "25.3", two.head + b"\1\0" + caveats + tail, None)
    as_bytes("header_location_empty_twice", "25.3", b"\2\1\0\1\0" + field(2, record) + b"\0" + caveats + tail, None)
    as_bytes("location_after_identifier", "25.3", b"\2" + field(2, record) + b"\1\0\0" + caveats + tail, None)
    as_bytes("vid_empty", "25.4", two.head + field(2, two.bodies[0]) + b"\4\0\0" + tail, None)
    for name, text in {
        "empty": "", "prefix_alone": "cap1_", "prefix_twice": "cap1_" + two.text, "space_inside": body[:50] + " " + body[50:],
        "line_feed_inside": body[:76] + "\n" + body[76:], "line_feed_at_end": body + "\n",
        "padding_inside": body[:50] + "=" + body[51:], "one_character_over": b64(whole.wire) + "A", "percent": body + "%3D",
    }.items():  # fmt: skip
        as_text(name, "25.2", text, None)
    as_bytes("no_bytes", "25.4", b"", None)
    as_bytes("byte_over", "25.4", two.wire + b"\0", None)
    as_bytes("cut", "25.4", two.wire[:-1], None)
    as_bytes("length_over_long", "25.4", b"\2" + field(2, record, width=2) + b"\0" + caveats + tail, None)
    as_bytes("without_links", "25.4", token().wire, None)
    as_bytes("other_identifier", "25.4", token(SALES, identifier=b"we used our secret key").wire, None)
    as_bytes("root_record_not_canonical", "25.4", token(SALES, identifier=canonical(root()) + b" ").wire, None)
    as_bytes("version_1", "25.4", b"0010location \n0023identifier example-token\n002fsignature " + two.signature + b"\n", None)
    as_bytes("text_as_bytes", "25.2", two.text.encode(), None)
    return table


def _numbered() -> Iterator[Parts]:
    number = 0
    while True:
        yield token(SALES, sub=f"user:jane{number}")
        number += 1
