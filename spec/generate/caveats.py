"""Vectors of what links say about accesses: Links, the caveats, Patterns, Constraints, Paths, Domains."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from spec.generate.build import KEY, NOW, Json, Parts, audience_key, hand_over, nonce, token
from spec.generate.table import SALES, SELECT, Table, call

MARKET = {"table": "market.eu", "operation": "select"}
INSERT = {"table": "sales", "operation": "insert"}
UNTIL = {"exp": NOW + 600}


def tables() -> Iterator[Table]:
    yield links()
    yield caveat_tables()
    yield operations()
    yield allow()
    yield columns()
    yield rows()
    yield tools()
    yield where()
    yield context()
    yield expiry()
    yield audience_and_task()
    yield patterns()
    yield constraints()
    yield paths()
    yield prefixes()
    yield urls()
    yield addresses()
    yield lists()
    yield domains()


def unreadable(table: Table, rule: str, key: str, values: dict[str, Json]) -> None:
    """Rows of values that `key` does not take, beside the control allowed last."""
    table.plain(rule)
    prefix = "" if key == table.family else f"{key}_"
    for name, value in values.items():
        table.deny(f"{prefix}{name}_is_unreadable", rule, "unreadable_link", token(SALES, {key: value}))


def links() -> Table:
    table = Table("links", "Links that cannot be read, and links with keys that nobody here knows: both prohibit everything.")
    table.allow("known_keys", "17.1", token(SALES, UNTIL))
    table.deny("empty", "17.5", "unreadable_link", token(SALES, {}))
    table.allow("nothing_asked_first", "17.5", token({"nbf": NOW}, SALES))
    table.plain("17.1")
    table.deny("empty_first", "17.5", "unreadable_link", token({}, SALES))
    for name, key in {
        "own": "acme:region", "use": "use", "budgets": "budgets", "cost": "cost", "bare": "region",
        "capital": "Tables", "upper_case": "EXP", "singular": "table", "space_after": "exp ", "nothing": "", "null": "exp\0",
        "cyrillic": "\u0435xp", "from_upper": "From", "optional": "optional", "any": "any", "star": "*", "crit": "crit",
        "v": "v",
    }.items():  # fmt: skip
        table.deny(f"unknown_{name}", "17.3", "unknown_caveat", token(SALES, {key: 1}))
    for key in ("agent", "iat", "jti", "kid", "sub", "ext"):
        table.deny(f"of_the_root_{key}", "9.6", "unknown_caveat", token(SALES, {key: "user:root"}))
    table.deny("unknown_beside_known", "17.3", "unknown_caveat", token(SALES, {**UNTIL, "acme:region": ["eu"]}))
    table.deny("unknown_in_link_0", "17.3", "unknown_caveat", token({**SALES, "acme:region": 1}))
    table.deny("unknown_beside_unreadable", "17.3", "unknown_caveat", token(SALES, {"acme:region": 1, "exp": "soon"}))
    table.deny(
        "unknown_beside_half_delegation", "17.3", "unknown_caveat", token(SALES, {"acme:region": 1, "to": "sales-agent"})
    )
    table.deny("unknown_that_says_false", "17.4", "unknown_caveat", token(SALES, {"acme:region": False}))
    table.deny("unknown_with_n", "15.11", "unknown_caveat", token(SALES, {"n": nonce(), "uses": 10, "used": 1}))
    table.deny("unreadable_beside_readable", "17.2", "unreadable_link", token(SALES, {**UNTIL, "operations": "select"}))
    table.allow("delegation", "17.6", token(SALES, hand_over("sales-agent")))
    for kept in (("from",), ("to",), ("n",), ("from", "to"), ("from", "n"), ("n", "to")):
        parts = token(SALES, {key: value for key, value in hand_over("sales-agent").items() if key in kept})
        table.deny(f"delegation_of_{'_and_'.join(kept)}_alone", "17.6", "unreadable_link", parts)
    table.allow("n_with_trailing_bits", "17.6", token(SALES, {**hand_over("sales-agent"), "n": "AAAAAAAAAAB"}))
    texts = {
        "cut": "A" * 10,
        "long": "A" * 12,
        "padded": "A" * 11 + "=",
        "plus": "A" * 10 + "+",
        "empty": "",
        "number": 1,
        "line_feed": "A" * 10 + "\n",
    }
    for name, value in texts.items():
        table.deny(f"n_{name}", "17.6", "unreadable_link", token(SALES, {**hand_over("sales-agent"), "n": value}))
    for key in ("from", "to"):
        for name, value in {
            "empty": "",
            "number": 1,
            "space": "sales agent",
            "latin": "\u00e9",
            "list": ["sales-agent"],
        }.items():
            table.deny(f"{key}_{name}", "17.2", "unreadable_link", token(SALES, {**hand_over("sales-agent"), key: value}))
    return table


def caveat_tables() -> Table:
    table = Table("tables", "The table matches one of the patterns.")
    many = token({**SALES, "tables": ["sales", "market.*"]})
    table.allow("first", "15.1", many)
    table.allow("second", "15.1", many, MARKET)
    for name in ("hr", "market", "salesman", "sale", "sales.eu", "marketing.eu", "market2.eu", "Sales"):
        table.deny(f"not_{name.replace('.', '_')}", "15.1", "table", many, {**SELECT, "table": name})
    table.allow("any", "15.1", token({**SALES, "tables": ["*"]}), {**SELECT, "table": "hr"})
    table.deny("none", "17.5", "table", token({**SALES, "tables": []}))
    table.allow("unsorted_and_repeated", "15.1", token({**SALES, "tables": ["sales", "market.*", "sales", "a"]}))
    table.allow("narrowed_later", "15.1", token({**SALES, "tables": ["*"]}, {"tables": ["sales"]}))
    table.allow("any_twice", "15.1", token({**SALES, "tables": ["*"]}, {"tables": ["*"]}), MARKET)
    table.deny("narrowed_then_widened", "15.1", "table", token(SALES, {"tables": ["*"]}), MARKET)
    table.deny("disjoint", "15.1", "table", token(SALES, {"tables": ["hr"]}))
    unreadable(table, "15.1", "tables", {
        "text": "sales", "object": {"sales": True}, "number": [1], "true": [True], "list": [["sales"]], "null_text": "",
        "empty_name": [""],
    })  # fmt: skip
    return table


def operations() -> Table:
    table = Table("operations", "The operation is one of these; * is any.")
    two = token({**SALES, "operations": ["insert", "select"]})
    table.allow("first", "15.2", two, INSERT)
    table.allow("second", "15.2", two)
    for name in ("update", "selects", "sel", "SELECT", "select.all", "select/insert"):
        table.deny(f"not_{name.replace('.', '_').replace('/', '_')}", "15.2", "operation", two, {**SELECT, "operation": name})
    table.deny("none", "17.5", "operation", token({**SALES, "operations": []}))
    table.allow("any", "15.2", token({**SALES, "operations": ["*"]}), {**SELECT, "operation": "vacuum"})
    table.allow("any_beside_others", "15.2", token({**SALES, "operations": ["*", "select"]}), INSERT)
    table.allow("any_twice", "15.2", token({**SALES, "operations": ["*"]}, {"operations": ["*"]}), INSERT)
    table.deny("narrowed_later", "15.2", "operation", token({**SALES, "operations": ["*"]}, {"operations": ["select"]}), INSERT)
    table.deny("narrowed_then_widened", "15.2", "operation", token(SALES, {"operations": ["*"]}), INSERT)
    table.deny("disjoint", "15.2", "operation", token(SALES, {"operations": ["insert"]}))
    unreadable(table, "15.2", "operations", {
        "text": "select", "object": {"select": True}, "number": [1], "true": True, "empty_name": [""],
        "space": ["select all"], "latin": ["s\u00e9lect"], "star_inside": ["sel*"], "two_stars": ["**"],
        "129_characters": ["x" * 129], "line_feed": ["select\n"],
    })  # fmt: skip
    return table


def allow() -> Table:
    table = Table("allow", "The most specific pattern that matches the table lists the operation.")
    map_ = {"*": ["select"], "hr.*": [], "market.*": ["insert", "select"], "market.eu": ["delete"], "sales": ["*"]}
    held = token({"allow": map_})
    table.allow("exact_any", "15.3", held, {"table": "sales", "operation": "vacuum"})
    table.allow("exact", "15.3", held, {"table": "market.eu", "operation": "delete"})
    table.deny("exact_hides_wider", "12.2", "operation", held, MARKET)
    table.allow("below", "15.3", held, {"table": "market.us", "operation": "insert"})
    table.allow("far_below", "12.1", held, {"table": "market.eu.berlin", "operation": "insert"})
    table.deny("below_does_not_list_it", "15.3", "operation", held, {"table": "market.us", "operation": "delete"})
    table.allow("everything_else", "12.3", held, {"table": "orders", "operation": "select"})
    table.deny("everything_else_does_not_list_it", "15.3", "operation", held, {"table": "orders", "operation": "insert"})
    table.deny("empty_entry", "12.3", "table", held, {"table": "hr.pay", "operation": "select"})
    table.allow("segment_itself_is_not_below", "12.1", held, {"table": "hr", "operation": "select"})
    table.allow("one_entry", "15.3", token({"allow": {"sales": ["select"]}}))
    table.deny("no_entry_matches", "15.3", "table", token({"allow": {"sales": ["select"]}}), MARKET)
    table.deny("no_entry_at_all", "17.5", "table", token({"allow": {}}))
    table.allow("pair_of_two", "15.3", token({"allow": {"hr": ["update"], "sales": ["select"]}}))
    table.deny(
        "pairs_are_not_crossed",
        "15.3",
        "operation",
        token({"allow": {"hr": ["update"], "sales": ["select"]}}),
        {**SELECT, "operation": "update"},
    )
    table.deny("with_tables_beside", "15.1", "table", token({"allow": {"*": ["select"]}, "tables": ["hr"]}))
    table.allow("all_pairs", "15.3", token({"allow": {"*": ["*"]}}))
    table.deny("with_operations_beside", "15.2", "operation", token({"allow": {"*": ["*"]}, "operations": ["insert"]}))
    table.deny("two_maps", "15.3", "operation", token({"allow": {"sales": ["select"]}}, {"allow": {"*": ["insert"]}}))
    unreadable(table, "15.3", "allow", {
        "list": ["sales"], "text": "sales", "number": 1, "operations_as_text": {"sales": "select"},
        "operations_as_object": {"sales": {"select": True}}, "operation_as_number": {"sales": [1]},
        "space_in_operation": {"sales": ["a b"]}, "empty_pattern": {"": ["select"]}, "empty_segment": {"a..b": []},
        "star_inside": {"a*": []}, "true": {"sales": True},
    })  # fmt: skip
    return table


def columns() -> Table:
    table = Table("columns", "All columns that the access states are listed by the entry that decides; no entry says nothing.")
    held = token(
        {"allow": {"*": ["select"]}, "columns": {"hr.*": [], "market.*": ["*"], "sales": ["amount", "region"], "stock": ["a*"]}}
    )

    def on(name: str, *stated: str) -> dict[str, Json]:
        return {"table": name, "operation": "select", "columns": list(stated)}

    table.allow("all_listed", "15.4", held, on("sales", "region", "amount"))
    table.allow("some_listed", "15.4", held, on("sales", "region"))
    table.allow("none_touched", "7.3", held, on("sales"))
    table.allow("stated_twice", "15.4", held, on("sales", "region", "region"))
    for name, stated in {
        "one": ("pay",),
        "one_among_others": ("region", "pay"),
        "upper_case": ("Region",),
        "dotted": ("sales.region",),
    }.items():
        table.deny(f"{name}_not_listed", "15.4", "column", held, on("sales", *stated))
    table.deny("not_stated", "15.4", "column", held, SELECT)
    table.allow("any", "15.4", held, on("market.eu", "whatever"))
    table.deny("any_must_be_stated", "15.4", "column", held, MARKET)
    table.allow("nothing_is_listed_and_none_touched", "15.4", held, on("hr.pay"))
    table.deny("nothing_is_listed", "15.4", "column", held, on("hr.pay", "name"))
    table.allow("no_entry", "15.4", held, on("orders", "anything"))
    table.allow("no_entry_not_stated", "15.4", held, {"table": "orders", "operation": "select"})
    table.allow("star_in_a_name", "15.4", held, on("stock", "a*"))
    table.deny("star_in_a_name_is_no_pattern", "15.4", "column", held, on("stock", "ab"))
    nested = token({**SALES, "tables": ["*"], "columns": {"*": ["z"], "m.*": ["a"], "m.e.*": ["b"], "m.e.f": ["c"]}})
    for at, (name, column) in enumerate({"x": "z", "m.x": "a", "m.e.x": "b", "m.e.f": "c", "m.e.f.g": "b"}.items()):
        table.allow(f"most_specific_decides_{at}", "12.2", nested, on(name, column))
        table.deny(f"less_specific_does_not_{at}", "12.2", "column", nested, on(name, "a" if column != "a" else "z"))
    wide = token({**SALES, "columns": {"sales": ["\U0001f600", "\uff5e"]}})
    table.allow("beyond_the_bmp", "15.4", wide, on("sales", "\uff5e", "\U0001f600"))
    table.deny("half_of_a_pair", "15.4", "column", wide, on("sales", "\uff5e", "\U0001f601"))
    table.beside("all_listed")
    two = token({**SALES, "columns": {"sales": ["a", "b"]}}, {"columns": {"*": ["b", "c"]}})
    table.allow("in_two_links", "15.4", two, on("sales", "b"))
    table.deny("only_in_the_first", "15.4", "column", two, on("sales", "a"))
    table.deny("only_in_the_second", "15.4", "column", two, on("sales", "c"))
    table.allow("no_segments", "4.4", token({**SALES, "columns": {"sales": ["a..b"]}}), on("sales", "a..b"))
    unreadable(table, "15.4", "columns", {
        "nothing": {}, "list": ["region"], "text": "region", "columns_as_text": {"sales": "region"},
        "column_as_number": {"sales": [1]}, "empty_column": {"sales": [""]}, "padded_column": {"sales": ["a "]},
        "empty_segment": {"a..b": ["x"]}, "star_inside": {"*a": ["x"]},
    })  # fmt: skip
    return table


ACME: dict[str, Json] = {"in": ["acme"]}


def rows() -> Table:
    """Each denial differs from an allowance in one place: in the link, or in what the access states."""
    table = Table("rows", "Each row that an access touches satisfies the entry that decides; no entry, and an entry {}, say nothing.")
    everything: dict[str, Json] = {"operations": ["*"], "tables": ["*"]}

    def restricting(entries: Json, *more: Json) -> Parts:
        return token({**everything, "rows": entries}, *({"rows": other} for other in more))

    def on(operation: str, name: str = "orders", **facts: Json) -> dict[str, Json]:
        return {"table": name, "operation": operation, **facts}

    mine, other = {"tenant": "acme", "year": 2024}, {"tenant": "other", "year": 2024}
    held = restricting({"orders": {"tenant": ACME, "year": {"min": 2024}}})
    _of_operations(table, held, on, mine, other)
    _of_values(table, restricting, on)
    _of_entries(table, restricting, on)
    _of_conditions(table, restricting, on)

    # Links: all of them hold, and each is asked by itself.
    two = restricting({"orders": {"tenant": {"in": ["acme", "other"]}}}, {"*": {"tenant": {"in": ["acme", "third"]}}})
    table.allow("in_two_links", "15.13", two, on("select", row={"tenant": "acme"}))
    table.deny("only_in_the_first", "15.13", "row", two, on("select", row={"tenant": "other"}))
    table.deny("only_in_the_second", "15.13", "row", two, on("select", row={"tenant": "third"}))
    columns = restricting({"orders": {"tenant": ACME}}, {"orders": {"year": {"min": 2024}}})
    table.allow("columns_of_two_links", "15.13", columns, on("select", row=mine))
    table.deny("first_of_two_columns", "15.13", "row", columns, on("select", row=other))
    table.deny("second_of_two_columns", "15.13", "row", columns, on("select", row={**mine, "year": 2023}))
    freed = restricting({"orders": {"tenant": ACME}}, {"orders": {}})
    table.allow("freed_in_the_second_link", "15.13", freed, on("select", row=mine))
    table.deny("a_later_link_frees_nothing", "15.13", "row", freed, on("select", row=other))
    by_any = restricting({"orders": {"tenant": ACME}}, {"orders": {"tenant": {"any": True}}})
    table.allow("free_in_the_second_link", "15.13", by_any, on("select", row=mine))
    table.deny("nor_by_any", "15.13", "row", by_any, on("select", row=other))
    unreadable(table, "15.14", "rows", {
        "nothing": {}, "list": ["tenant"], "text": "tenant", "null_text": "", "entry_as_list": {"sales": ["tenant"]},
        "entry_as_text": {"sales": "tenant"}, "column_as_text": {"sales": {"tenant": "acme"}}, "column_as_list": {"sales": {"tenant": ["acme"]}},
        "empty_constraint": {"sales": {"tenant": {}}}, "unknown_kind": {"sales": {"tenant": {"like": ["a"]}}},
        "two_kinds": {"sales": {"tenant": {"in": ["acme"], "min": 1}}}, "optional": {"sales": {"tenant": {"any": True, "optional": True}}},
        "any_that_is_false": {"sales": {"tenant": {"any": False}}}, "min_above_max": {"sales": {"year": {"max": 1, "min": 2}}},
        "empty_column": {"sales": {"": ACME}}, "padded_column": {"sales": {"tenant ": ACME}}, "hidden_column": {"sales": {"ten\u200bant": ACME}},
        "empty_segment": {"a..b": {"tenant": ACME}}, "star_inside": {"*a": {"tenant": ACME}},
        "of_null": {"sales": {"tenant": {"in": [""]}}},
    })  # fmt: skip
    return table


def _of_operations(table: Table, held: Parts, on: Callable[..., dict[str, Json]], mine: Json, other: Json) -> None:
    """What each operation touches has to be stated, and satisfies the entry."""
    for operation, fact, beside in (("select", "row", "becomes"), ("delete", "row", "becomes"), ("insert", "becomes", "row")):
        table.allow(f"{operation}_states_{fact}", "15.13", held, on(operation, **{fact: mine}))
        table.deny(f"{operation}_of_another", "15.13", "row", held, on(operation, **{fact: other}))
        table.deny(f"{operation}_that_states_nothing", "15.13", "row", held, on(operation))
        table.deny(f"{operation}_of_no_row", "15.13", "row", held, on(operation, **{fact: None}))
        table.deny(f"{operation}_that_states_{beside}", "15.13", "row", held, on(operation, **{beside: mine}))
        table.allow(f"{operation}_that_states_both", "15.13", held, on(operation, **{fact: mine, beside: mine}))
        table.deny(f"{operation}_of_another_beside_it", "15.13", "row", held, on(operation, **{fact: mine, beside: other}))
    for operation in ("update", "merge", "SELECT", "select.all"):
        name = {"SELECT": "upper_case", "select.all": "dotted"}.get(operation, operation)
        table.allow(f"{name}_states_both", "15.13", held, on(operation, row=mine, becomes=mine))
        table.deny(f"{name}_of_another", "15.13", "row", held, on(operation, row=other, becomes=mine))
        table.deny(f"{name}_into_another", "15.13", "row", held, on(operation, row=mine, becomes=other))
        table.deny(f"{name}_without_row", "15.13", "row", held, on(operation, becomes=mine))
        table.deny(f"{name}_without_becomes", "15.13", "row", held, on(operation, row=mine))
        table.allow(f"{name}_that_removes", "15.13", held, on(operation, row=mine, becomes=None))
        table.deny(f"{name}_that_removes_another", "15.13", "row", held, on(operation, row=other, becomes=None))
        table.allow(f"{name}_that_adds", "15.13", held, on(operation, row=None, becomes=mine))
        table.deny(f"{name}_that_adds_another", "15.13", "row", held, on(operation, row=None, becomes=other))
        table.deny(f"{name}_of_no_row_at_all", "15.13", "row", held, on(operation, row=None, becomes=None))


def _of_values(table: Table, restricting: Callable[..., Parts], on: Callable[..., dict[str, Json]]) -> None:
    """Each kind of constraint, on a column: a value that satisfies it, and some that do not."""
    kinds: dict[str, tuple[Json, Json, dict[str, Json]]] = {
        "in": (ACME, "acme", {"null": None, "other": "Acme", "longer": "acme2", "number": 1, "list": ["acme"], "empty": ""}),
        "in_of_integers": ({"in": [1]}, 1, {"null": None, "text": "1", "boolean": True, "fraction": 1.0}),
        "in_of_booleans": ({"in": [True]}, True, {"null": None, "one": 1, "text": "true", "false": False}),
        "range": ({"max": 9, "min": 0}, -0.0, {"null": None, "text": "5", "boolean": True, "below": -1, "fraction": 9.5}),
        "large_range": ({"min": 2**53 - 1}, 2**53, {"null": None, "below": 2**53 - 2, "as_text": str(2**53)}),
        "prefix": ({"prefix": ["acct-"]}, "acct-1", {"null": None, "other": "acct_1", "upper_case": "Acct-1", "path": "/acct-1"}),
        "path": ({"path": ["/a"]}, "/a/b", {"null": None, "other": "/ab", "dots": "/a/../b"}),
        "cidr": ({"cidr": ["10.0.0.0/8"]}, "10.1.2.3", {"null": None, "other": "11.1.2.3"}),
        "each": ({"each": {"in": ["eu"]}, "most": 1}, ["eu"], {"null": None, "item": ["us"], "longer": ["eu", "eu"]}),
        "nfc": ({"in": ["\u00e9"]}, "\u00e9", {"decomposed": "e\u0301"}),
    }  # fmt: skip
    for kind, (constraint, within, beyond) in kinds.items():
        held = restricting({"orders": {"tenant": constraint}})
        table.allow(f"value_{kind}", "15.13", held, on("select", row={"id": "7", "tenant": within}))
        for name, value in beyond.items():
            table.deny(f"value_{kind}_{name}", "15.13", "row", held, on("select", row={"id": "7", "tenant": value}))
        table.deny(f"value_{kind}_left_out", "15.13", "row", held, on("select", row={"id": "7"}))
    free = restricting({"orders": {"tenant": ACME, "year": {"any": True}}})
    table.allow("free_column", "15.13", free, on("select", row={"tenant": "acme", "year": None}))
    table.allow("free_column_left_out", "15.13", free, on("select", row={"tenant": "acme"}))
    nobody = restricting({"orders": {"tenant": {"in": []}}})
    table.allow("no_value_of_another_table", "15.13", nobody, on("select", "customers"))
    table.deny("no_value", "15.13", "row", nobody, on("select", row={"tenant": "acme"}))
    wide = restricting({"orders": {"\U0001f600": ACME, "\uff5e": ACME}})
    table.allow("columns_beyond_the_bmp", "15.13", wide, on("select", row={"\uff5e": "acme", "\U0001f600": "acme"}))
    table.deny("half_of_a_pair", "15.13", "row", wide, on("select", row={"\uff5e": "acme", "\U0001f601": "acme"}))


def _of_entries(table: Table, restricting: Callable[..., Parts], on: Callable[..., dict[str, Json]]) -> None:
    """Which entry decides; and none lifts what one over it says by leaving it out."""
    acme, other = {"tenant": "acme"}, {"tenant": "other"}
    nested: dict[str, Json] = {
        "*": {"tenant": {"in": ["z"]}}, "m.*": {"tenant": {"in": ["a"]}}, "m.e.*": {"tenant": {"in": ["b"]}}, "m.e.f": {"tenant": {"in": ["c"]}},
        "free": {}, "open": {"tenant": {"any": True}},
    }  # fmt: skip
    held = restricting(nested)
    for at, (name, value) in enumerate({"x": "z", "m.x": "a", "m.e.x": "b", "m.e.f": "c", "m.e.f.g": "b", "m": "z"}.items()):
        table.allow(f"most_specific_decides_{at}", "12.2", held, on("select", name, row={"tenant": value}))
        table.deny(f"less_specific_does_not_{at}", "12.2", "row", held, on("select", name, row={"tenant": "a" if value != "a" else "z"}))
    table.allow("freed_table_states_nothing", "15.13", held, on("select", "free"))
    table.allow("freed_table", "15.13", held, on("update", "free", row=other))
    table.deny("table_beside_the_freed_one", "15.13", "row", held, on("update", "freed", row=other))
    table.allow("table_whose_columns_are_free", "15.13", held, on("select", "open"))
    table.deny("table_beside_the_open_one", "15.13", "row", held, on("select", "opened"))
    alone = restricting({"orders": {"tenant": ACME}})
    table.allow("no_entry", "15.13", alone, on("select", "customers"))
    table.allow("no_entry_states_another", "15.13", alone, on("select", "customers", row=other))
    table.allow("entry", "15.13", alone, on("select", "orders", row=acme))
    table.deny("below_an_exact_entry_is_no_entry_over_it", "15.13", "row", alone, on("select", "orders", row=other))
    lifting: dict[str, Json] = {
        "another_column": {"*": {"tenant": ACME}, "orders": {"year": {"min": 2024}}},
        "a_column_of_two": {"*": {"tenant": ACME, "year": {"min": 2024}}, "orders": {"tenant": ACME}},
        "any_of_another_column": {"*": {"tenant": ACME}, "orders": {"year": {"any": True}}},
        "below_a_segment": {"crm.*": {"tenant": ACME}, "crm.deals": {"year": {"min": 2024}}},
        "a_pattern_below": {"*": {"tenant": ACME}, "crm.*": {"year": {"min": 2024}}},
        "past_a_freed_one": {"*": {"tenant": ACME}, "crm.*": {}, "crm.deals": {"year": {"min": 2024}}},
        "what_is_free_over_it": {"*": {"tenant": {"any": True}}, "orders": {"year": {"min": 2024}}},
        "what_the_nearest_names": {"*": {"tenant": ACME}, "a.*": {"tenant": ACME, "year": {"min": 1}}, "a.b.c": {"tenant": ACME}},
    }  # fmt: skip
    for name, entries in lifting.items():
        narrow = max(entries, key=lambda pattern: (pattern.count("."), pattern != "*", pattern))
        over = {column: {"any": True} for entry in entries.values() for column in entry}
        reached = narrow.replace("*", "x")
        named = {**entries, narrow: {**over, **entries[narrow]}}
        row = {"tenant": "acme", "year": 2024}
        table.allow(f"names_{name}", "15.14", restricting(named), on("select", reached, row=row))
        table.deny(f"lifts_{name}", "15.14", "unreadable_link", restricting(entries), on("select", reached, row=row))
    table.allow("beside_an_entry_that_is_not_over_it", "15.14", restricting({"crm.*": {"tenant": ACME}, "orders": {"year": {"min": 2024}}}),
                on("select", row={"year": 2024}))  # fmt: skip


def _of_conditions(table: Table, restricting: Callable[..., Parts], on: Callable[..., dict[str, Json]]) -> None:
    """In the place of rows: the conditions that the server has held."""
    entry: Json = {"tenant": {"in": ["acme", "other"]}, "year": {"any": True}}
    held = restricting({"orders": entry})
    for operation in ("select", "update", "insert"):
        table.allow(f"held_for_{operation}", "15.13", held, on(operation, rows=[entry]))
    table.allow("held_in_another_order_of_keys", "15.13", held, on("select", rows=[dict(reversed(entry.items()))]))
    table.allow("held_among_others", "15.13", held, on("select", rows=[{"x": {"any": True}}, entry]))
    table.beside("held_for_select")
    for name, stated in {
        "none": [], "of_other_values": [{**entry, "tenant": {"in": ["acme"]}}], "in_another_order": [{**entry, "tenant": {"in": ["other", "acme"]}}],
        "without_a_free_column": [{"tenant": entry["tenant"]}], "with_another_column": [{**entry, "z": {"any": True}}],
    }.items():  # fmt: skip
        table.deny(f"not_held_{name}", "15.13", "row", held, on("select", rows=stated))
    typed = restricting({"orders": {"paid": {"in": [True]}}})
    table.allow("held_of_a_boolean", "15.13", typed, on("select", rows=[{"paid": {"in": [True]}}]))
    table.deny("held_of_one", "15.13", "row", typed, on("select", rows=[{"paid": {"in": [1]}}]))
    first: Json = {"tenant": {"in": ["acme", "other"]}}
    second: Json = {"tenant": {"in": ["acme"]}}
    two = restricting({"orders": first}, {"orders": second})
    table.allow("held_of_two_links", "24.27", two, on("select", rows=[first, second]))
    table.deny("held_before_a_narrowing", "24.27", "row", two, on("select", rows=[first]))
    table.deny("held_of_the_last_link_alone", "24.27", "row", two, on("select", rows=[second]))
    free = restricting({"orders": {"tenant": {"any": True}}})
    table.allow("nothing_to_hold", "15.13", free, on("select", rows=[]))


def tools() -> Table:
    table = Table(
        "tools", "The most specific pattern that matches the tool is satisfied: free, or a closed world of arguments."
    )
    held = token({"tools": {
        "files.*": {"path": {"path": ["/data"]}}, "files.list": {},
        "mail.*": {"body": {"any": True}, "cc": {"in": ["a@example.org"], "optional": True}, "to": {"in": ["b@example.org"]}},
        "search": {"limit": {"max": 10, "min": 1, "optional": True}, "q": {"any": True}},
    }})  # fmt: skip
    table.allow("named", "15.5", held, call("search", q="x", limit=10))
    table.allow("optional_left_out", "15.5", held, call("search", q="x"))
    table.deny("required_left_out", "15.5", "argument", held, call("search", limit=10))
    table.deny("all_left_out", "15.5", "argument", held, call("search"))
    table.deny("all_left_out_unsaid", "7.1", "argument", held, {"tool": "search"})
    table.deny("not_named", "15.5", "argument", held, call("search", q="x", lang="en"))
    table.deny("not_satisfied", "15.5", "argument", held, call("search", q="x", limit=11))
    table.deny("optional_not_satisfied", "15.5", "argument", held, call("search", q="x", limit="10"))
    table.deny("other_case", "15.5", "argument", held, call("search", Q="x"))
    table.allow("null_is_stated", "7.4", held, call("search", q=None))
    table.allow("free_without_arguments", "15.5", held, call("files.list"))
    table.allow("free_with_arguments", "15.5", held, call("files.list", path="/etc", depth=3))
    table.allow("below", "15.5", held, call("files.read", path="/data/a"))
    table.deny("below_not_satisfied", "15.5", "argument", held, call("files.read", path="/etc"))
    table.allow("all_named", "15.5", held, call("mail.send", to="b@example.org", body="x", cc="a@example.org"))
    table.deny("one_of_several", "15.5", "argument", held, call("mail.send", to="c@example.org", body="x", cc="a@example.org"))
    for name in ("searches", "Search", "files", "delete", "search.deep"):
        table.deny(f"not_{name.replace('.', '_')}", "15.5", "tool", held, call(name, q="x"))
    table.deny("none", "17.5", "tool", token({"tools": {}}), call("search", q="x"))
    table.allow("any", "15.5", token({"tools": {"*": {}}}), call("search", q="x"))
    hole = token({"tools": {"*": {}, "mail.*": {"_": {"in": []}}}})
    table.allow("beside_a_wall", "15.5", hole, call("search", q="x"))
    table.allow("beside_a_wall_without_arguments", "15.5", hole, call("search"))
    table.deny("wall", "19.8", "argument", hole, call("mail.send"))
    table.allow("beside_a_wall_with_its_argument", "15.5", hole, call("search", _=1))
    table.deny("wall_with_its_argument", "19.8", "argument", hole, call("mail.send", _=1))
    two = token({"tools": {"search": {"q": {"any": True}}}}, {"tools": {"*": {"q": {"in": ["a", "b"]}}}})
    table.allow("in_two_links", "15.5", two, call("search", q="a"))
    table.deny("second_link_not_satisfied", "15.5", "argument", two, call("search", q="c"))
    unreadable(table, "15.5", "tools", {
        "list": ["search"], "text": "search", "true": {"search": True}, "arguments_as_list": {"search": ["q"]},
        "constraint_as_true": {"search": {"q": True}}, "empty_argument": {"search": {"": {"any": True}}},
        "empty_segment": {"a..b": {}}, "star_inside": {"se*": {}}, "unknown_kind": {"search": {"q": {"regex": ".*"}}},
        "no_kind": {"search": {"q": {}}},
    })  # fmt: skip
    unreadable(table, "13.4", "tools", {
        "optional_alone": {"search": {"q": {"optional": True}}},
        "optional_false": {"search": {"q": {"any": True, "optional": False}}},
        "optional_as_number": {"search": {"q": {"any": True, "optional": 1}}},
        "optional_beside_arguments": {"search": {"optional": True, "q": {"any": True}}},
    })  # fmt: skip
    return table


def where() -> Table:
    table = Table("where", "Each attribute is stated and satisfies its constraint.")
    held = token({**SALES, "where": {"level": {"min": 3}, "region": {"in": ["eu", "us"]}}})

    def under(**attributes: Json) -> dict[str, Json]:
        return {**SELECT, "attributes": attributes}

    table.allow("all_satisfied", "15.6", held, under(level=3, region="eu"))
    table.allow("others_stated_too", "15.6", held, under(level=9, region="us", purpose="audit"))
    table.deny("one_not_satisfied", "15.6", "attribute", held, under(level=2, region="eu"))
    table.deny("one_not_stated", "15.10", "attribute", held, under(level=3))
    table.deny("none_stated", "15.10", "attribute", held)
    table.deny("other_case", "15.6", "attribute", held, under(level=3, Region="eu"))
    table.allow("any_of_null", "7.4", token({**SALES, "where": {"x": {"any": True}}}), under(x=None))
    table.deny("any_must_be_stated", "15.10", "attribute", token({**SALES, "where": {"x": {"any": True}}}))
    table.deny("null_is_not_listed", "13.3", "attribute", token({**SALES, "where": {"x": {"in": [0, False]}}}), under(x=None))
    table.allow("no_access_asked", "24.8", held, None)
    alone = token({"where": {"region": {"in": ["eu"]}}})
    table.allow("alone_closes_no_tables", "18.3", alone, under(region="eu"))
    table.allow("alone_closes_no_tools", "18.3", alone, {**call("search"), "attributes": {"region": "eu"}})
    table.allow("alone_closes_nothing_at_all", "18.3", alone, {"attributes": {"region": "eu"}})
    two = token({**SALES, "where": {"x": {"min": 1}}}, {"where": {"x": {"max": 5}}})
    table.allow("in_two_links", "15.6", two, under(x=5))
    table.deny("second_link_not_satisfied", "15.6", "attribute", two, under(x=6))
    unreadable(table, "15.6", "where", {
        "nothing": {}, "list": [], "text": "region", "constraint_as_list": {"region": ["eu"]},
        "constraint_as_text": {"region": "eu"}, "empty_attribute": {"": {"any": True}}, "no_kind": {"region": {}},
    })  # fmt: skip
    unreadable(table, "13.4", "where", {"optional": {"region": {"any": True, "optional": True}}})
    return table


def context() -> Table:
    table = Table("context", "Facts of the moment, which a server states once for all its accesses: they are among the attributes of each.")
    held = token({**SALES, "where": {"threat": {"in": ["low"]}}})
    free = token(SALES)
    calm: Json = {"threat": "low"}

    def under(**attributes: Json) -> dict[str, Json]:
        return {**SELECT, "attributes": attributes}

    table.allow("as_asked", "7.13", held, context=calm)
    table.deny("other_than_asked", "7.13", "attribute", held, context={"threat": "high"})
    table.deny("without_the_name", "7.13", "attribute", held, context={"posture": "low"})
    table.deny("empty", "7.13", "attribute", held, context={})
    table.allow("beside_attributes", "7.13", held, under(region="eu"), context=calm)
    table.deny("a_name_that_the_access_states_too", "7.13", "attribute", held, under(threat="low"), context=calm)
    table.allow("of_two_links", "7.13", token({**SALES, "where": {"threat": {"any": True}}}, {"where": {"threat": {"in": ["low"]}}}), context=calm)
    table.deny("second_link_asks_for_less", "7.13", "attribute", token({**SALES, "where": {"threat": {"any": True}}}, {"where": {"threat": {"in": ["low"]}}}),
               context={"threat": "high"})  # fmt: skip
    table.allow("that_nobody_asks_about", "7.13", free, context=calm)
    table.deny("that_nobody_asks_about_and_a_name_twice", "7.13", "attribute", free, under(threat="low"), context=calm)
    table.deny("that_cannot_be_had", "7.13", "attribute", free, context=None)
    table.deny("that_is_a_list", "7.13", "attribute", free, context=["low"])
    table.deny("that_is_a_text", "7.13", "attribute", free, context="low")
    table.deny("with_an_empty_name", "7.13", "attribute", free, context={"": 1})
    table.allow("no_access_asked", "24.8", held, None, context=None)
    table.allow("a_value_of_any_shape", "7.5", token({**SALES, "where": {"hours": {"any": True}}}), context={"hours": [9, {"until": 17}, None]})
    table.allow("second_before_exp", "15.7", token({**SALES, "exp": NOW + 1}), context=calm)
    table.deny("behind_the_first_pass", "24.5", "expired", token({**SALES, "exp": NOW}), context=calm)
    again = token(SALES, *[{"where": {"x": {"prefix": ["z"]}}}] * 24)
    table.allow("much_work", "24.25", again, context={"x": "z" * 43_000})
    table.deny("too_much_work", "24.25", "too_much_work", again, context={"x": "z" * 44_000})
    elsewhere = token({"tables": ["hr"], "operations": ["select"]})
    table.allow("of_another_table", "7.13", elsewhere, {"table": "hr", "operation": "select"}, context=calm)
    table.deny("before_the_second_pass", "7.13", "attribute", elsewhere, context=None)
    return table


def expiry() -> Table:
    table = Table("expiry", "exp and nbf against now and leeway; and iat, which may lie a minute ahead.")
    bound = token(SALES, {"exp": NOW + 60})
    table.allow("second_before_exp", "15.7", bound, now=NOW + 59)
    table.deny("at_exp", "15.7", "expired", bound, now=NOW + 60)
    table.deny("long_after_exp", "15.7", "expired", bound, now=NOW + 10**9)
    table.allow("exp_within_leeway", "15.7", bound, now=NOW + 64, leeway=5)
    table.deny("exp_at_end_of_leeway", "15.7", "expired", bound, now=NOW + 65, leeway=5)
    table.allow("no_exp", "15.7", token(SALES), now=NOW + 10**9)
    table.allow("earlier_of_two_exp", "15.7", token({**SALES, "exp": NOW + 60}, {"exp": NOW + 600}), now=NOW + 59)
    table.deny(
        "later_exp_does_not_help", "15.7", "expired", token({**SALES, "exp": NOW + 60}, {"exp": NOW + 600}), now=NOW + 60
    )
    table.allow("before_the_earlier_exp", "15.7", token({**SALES, "exp": NOW + 600}, {"exp": NOW + 60}), now=NOW + 59)
    table.deny("earlier_exp_last", "15.7", "expired", token({**SALES, "exp": NOW + 600}, {"exp": NOW + 60}), now=NOW + 60)
    table.deny("exp_zero", "15.7", "expired", token({**SALES, "exp": 0}))
    table.deny("exp_negative", "15.7", "expired", token({**SALES, "exp": -1}))
    table.allow("exp_beyond_32_bits", "15.7", token({**SALES, "exp": 2**32}), now=2**32 - 1)
    unreadable(table, "15.7", "exp", {"text": "1764061800", "true": True, "list": [NOW], "object": {}})
    late = token(SALES, {"nbf": NOW + 60})
    table.allow("at_nbf", "15.8", late, now=NOW + 60)
    table.deny("second_before_nbf", "15.8", "not_yet_valid", late, now=NOW + 59)
    table.allow("nbf_within_leeway", "15.8", late, now=NOW + 55, leeway=5)
    table.deny("nbf_before_leeway", "15.8", "not_yet_valid", late, now=NOW + 54, leeway=5)
    table.allow("at_the_later_of_two_nbf", "15.8", token({**SALES, "nbf": NOW + 60}, {"nbf": NOW}), now=NOW + 60)
    table.deny("later_of_two_nbf", "15.8", "not_yet_valid", token({**SALES, "nbf": NOW + 60}, {"nbf": NOW}), now=NOW + 59)
    table.allow("nbf_negative", "15.8", token({**SALES, "nbf": -5}), now=NOW)
    unreadable(table, "15.8", "nbf", {"text": "1764061200", "false": False, "list": [NOW]})
    table.allow("exp_without_nbf", "15.8", token({**SALES, "exp": NOW + 9}), now=NOW + 8)
    table.deny("nbf_after_exp", "15.8", "not_yet_valid", token({**SALES, "exp": NOW + 9, "nbf": NOW + 10}), now=NOW + 8)
    table.deny("exp_before_nbf", "15.7", "expired", token({**SALES, "exp": NOW + 9, "nbf": NOW + 10}), now=NOW + 9)
    table.allow("iat_60_ahead", "24.5", token(SALES), now=NOW - 60)
    table.deny("iat_61_ahead", "24.5", "not_yet_valid", token(SALES), now=NOW - 61)
    table.allow("iat_60_ahead_under_small_leeway", "24.5", token(SALES), now=NOW - 60, leeway=5)
    table.deny("iat_61_ahead_under_small_leeway", "24.5", "not_yet_valid", token(SALES), now=NOW - 61, leeway=5)
    table.allow("iat_ahead_as_far_as_leeway", "24.5", token(SALES), now=NOW - 90, leeway=90)
    table.deny("iat_ahead_beyond_leeway", "24.5", "not_yet_valid", token(SALES), now=NOW - 91, leeway=90)
    table.allow("exp_without_access", "24.8", bound, None, now=NOW + 59)
    table.deny("expired_without_access", "24.8", "expired", bound, None, now=NOW + 60)
    table.allow("at_nbf_without_access", "24.8", late, None, now=NOW + 60)
    table.deny("early_without_access", "24.8", "not_yet_valid", late, None)
    return table


def audience_and_task() -> Table:
    table = Table("audience_and_task", "Two facts that the chain narrows: whom the token is for, and what it is for.")
    here, both = ("sales-db",), ("sales-db", "hr-db")
    addressed = token(SALES, {"aud": ["sales-db"]})
    table.allow("addressed", "16.1", addressed, audiences=here)
    table.deny("addressed_to_another", "16.1", "wrong_audience", addressed, audiences=("hr-db",))
    table.deny("addressed_and_verifier_without_name", "16.1", "wrong_audience", addressed)
    table.deny("addressed_in_other_case", "16.1", "wrong_audience", addressed, audiences=("Sales-db",))
    table.deny("addressed_to_longer_name", "16.1", "wrong_audience", addressed, audiences=("sales-db2",))
    table.deny("addressed_to_part_of_a_path", "16.1", "wrong_audience", token(SALES, {"aud": ["sales-db/a"]}), audiences=here)
    table.allow("addressed_to_several", "16.1", token(SALES, {"aud": ["mail-api", "sales-db"]}), audiences=here)
    table.allow("verifier_of_two_names", "16.1", addressed, audiences=both)
    table.deny("addressed_to_nobody", "17.5", "wrong_audience", token(SALES, {"aud": []}), audiences=here)
    table.allow(
        "addressed_twice", "16.1", token({**SALES, "aud": ["hr-db", "sales-db"]}, {"aud": ["sales-db"]}), audiences=here
    )
    elsewhere = token({**SALES, "aud": ["sales-db"]}, {"aud": ["hr-db"]})
    alike = token({**SALES, "aud": ["hr-db"]}, {"aud": ["hr-db"]})
    table.allow("addressed_twice_alike", "16.1", alike, audiences=("hr-db",))
    table.allow("addressed_twice_alike_and_verifier_of_two_names", "16.1", alike, audiences=both)
    table.deny("addressed_anew", "16.1", "wrong_audience", elsewhere, audiences=("hr-db",))
    table.deny("each_name_in_one_aud", "16.1", "wrong_audience", elsewhere, audiences=both)
    minted, key = {"aud": "sales-db"}, audience_key(KEY, "sales-db")
    table.allow("addressed_by_its_root", "16.1", token(SALES, {"aud": ["sales-db"]}, key=key, **minted), audiences=both)
    anew = token(SALES, {"aud": ["hr-db"]}, key=key, **minted)
    table.deny("addressed_by_its_root_and_anew", "16.1", "wrong_audience", anew, audiences=both)
    table.allow("addressed_by_its_root_without_access", "24.8", token(SALES, {"aud": ["sales-db"]}, key=key, **minted), None,
                audiences=both)  # fmt: skip
    table.deny("addressed_by_its_root_and_anew_without_access", "24.8", "wrong_audience", anew, None, audiences=both)
    table.beside("addressed")
    table.deny("unaddressed", "16.2", "unaddressed", token(SALES), audiences=here)
    table.allow("unaddressed_and_taken", "16.2", token(SALES), audiences=here, allow_unaddressed=True)
    table.allow("addressed_where_unaddressed_is_taken", "16.1", addressed, audiences=here, allow_unaddressed=True)
    table.deny(
        "addressed_to_another_where_unaddressed_is_taken",
        "16.1",
        "wrong_audience",
        addressed,
        audiences=("hr-db",),
        allow_unaddressed=True,
    )
    table.allow("verifier_without_name", "16.2", token(SALES))
    table.allow("addressed_without_access", "24.8", addressed, None, audiences=here)
    table.deny("addressed_to_another_without_access", "24.8", "wrong_audience", addressed, None, audiences=("hr-db",))
    table.deny("unaddressed_without_access", "24.8", "unaddressed", token(SALES), None, audiences=here)
    unreadable(
        table,
        "15.9",
        "aud",
        {"text": "sales-db", "number": [1], "empty_name": [""], "space": ["sales db"], "star": ["*"], "object": {}},
    )

    table.allow("task_of_root", "16.3", token(SALES, {"task": "task-123"}))
    table.allow("task_below", "16.3", token(SALES, {"task": "task-123/a"}))
    table.allow("task_above", "16.3", token({**SALES, "task": "task-123"}, task="task-123/a"))
    table.allow("tasks_down_a_path", "16.3", token(SALES, {"task": "task-123/a"}, {"task": "task-123/a/b"}))
    table.allow("tasks_up_a_path", "16.3", token(SALES, {"task": "task-123/a/b"}, {"task": "task-123/a"}))
    for name, tasks in {
        "other": ("task-124",), "longer_name": ("task-1234",), "shorter_name": ("task-12",),
        "beside": ("task-123/a", "task-123/b"), "beside_after_above": ("task-123/a", "task-123", "task-123/b"),
        "other_case": ("Task-123",), "beside_longer": ("task-123/a", "task-123/ab"),
    }.items():  # fmt: skip
        table.deny(f"task_{name}", "16.3", "task", token(SALES, *({"task": task} for task in tasks)))
    table.allow("task_of_root_without_access", "24.8", token(SALES, {"task": "task-123"}), None)
    table.deny("task_other_without_access", "24.8", "task", token(SALES, {"task": "task-124"}), None)
    unreadable(table, "4.2", "task", {
        "empty": "", "slash_first": "/task-123", "slash_last": "task-123/", "empty_segment": "task-123//a",
        "two_dots": "task-123/../b", "dot": "task-123/.", "space": "task 123", "number": 123, "list": ["task-123"],
    })  # fmt: skip
    return table


def patterns() -> Table:
    table = Table("patterns", "What a pattern matches, and which of several decides.")

    def of(pattern: str) -> dict[str, Json]:
        return {"operations": ["select"], "tables": [pattern]}

    cases = {
        "exact": ("market.eu", ("market.eu",), ("market", "market.eu.berlin", "market.eux", "market.e")),
        "below": ("market.*", ("market.eu", "market.eu.berlin"), ("market", "marketing", "marketing.eu", "x.market.eu")),
        "below_two": ("a.b.*", ("a.b.c",), ("a.b", "a.c", "a.bc.d")),
        "all": ("*", ("sales", "market.eu.berlin"), ()),
        "percent": ("s%", ("s%",), ("sales",)),
        "underscore": ("sale_", ("sale_",), ("sales",)),
        "question": ("sale?", ("sale?",), ("sales",)),
        "slash": ("a/b", ("a/b",), ("a", "a/b/c")),
        "space_in_segment": ("a. b", ("a. b",), ("a.b",)),
    }
    for name, (pattern, matched, missed) in cases.items():
        for at, given in enumerate(matched):
            table.allow(f"{name}_matches_{at}", "12.1", token(of(pattern)), {**SELECT, "table": given})
        for at, given in enumerate(missed):
            table.deny(f"{name}_misses_{at}", "12.1", "table", token(of(pattern)), {**SELECT, "table": given})
    for name, pattern in {
        "empty": "", "empty_segment": "a..b", "dot_first": ".a", "dot_last": "a.", "dot_alone": ".",
        "dots_before_star": "a..*", "star_first": "*.a", "star_inside": "a.*.b", "star_in_a_word": "a*",
        "star_in_last_word": "a.b*", "two_stars": "a.*.*", "double_star": "**", "dot_star": ".*", "space_before": " a",
        "space_after": "a.* ", "257_bytes": "x" * 255 + ".*",
    }.items():  # fmt: skip
        table.plain("4.5")
        table.deny(f"{name}_is_none", "4.5", "unreadable_link", token(SALES, of(pattern)))
    table.allow("of_256_bytes", "4.5", token(of("x" * 254 + ".*")), {**SELECT, "table": "x" * 254 + ".a"})
    nested = token({"allow": {"*": ["a"], "m.*": ["b"], "m.e.*": ["c"], "m.e.b": ["d"]}})
    for at, (given, operation) in enumerate(
        {"x": "a", "m": "a", "m.x": "b", "m.e": "b", "m.e.x": "c", "m.e.b.x": "c", "m.e.b": "d"}.items()
    ):
        table.allow(f"most_specific_decides_{at}", "12.2", nested, {"table": given, "operation": operation})
        other = "a" if operation != "a" else "b"
        table.deny(f"less_specific_does_not_{at}", "12.2", "operation", nested, {"table": given, "operation": other})
    hole = token({"tools": {"*": {}, "files.*": {"path": {"path": ["/data"]}}}})
    table.allow("wider_tool_entry", "12.2", hole, call("search", path="/etc"))
    table.deny("narrower_tool_entry_decides", "12.2", "argument", hole, call("files.read", path="/etc"))
    return table


def constraints() -> Table:
    table = Table("constraints", "One constraint on one value, types compared and never coerced.")
    accepted: list[tuple[str, Json, dict[str, Json], dict[str, Json]]] = [
        ("any", {"any": True}, {"text": "x", "number": 1, "true": True, "null": None, "fraction": 1.5, "list": [1],
        "object": {"a": None}, "empty": ""}, {}),
        ("in_text", {"in": ["eu", "1"]}, {"eu": "eu", "1": "1"},
         {"number": 1, "upper_case": "EU", "longer": "eu ", "list": ["eu"], "null": None, "part": "e", "object": {"eu": 1}}),
        ("in_numbers", {"in": [0, 1]}, {"0": 0, "1": 1}, {"true": True, "false": False, "text": "1", "fraction": 1.0,
        "other": 2, "minus": -1}),
        ("in_booleans", {"in": [True]}, {"true": True}, {"number": 1, "false": False, "text": "true", "null": None}),
        ("in_mixed", {"in": [True, 2, "x"]}, {"true": True, "2": 2, "x": "x"}, {"1": 1, "text": "2"}),
        ("in_nothing", {"in": []}, {}, {"empty": "", "0": 0, "null": None}),
        ("min", {"min": 1}, {"1": 1, "huge": 10**30, "fraction": 1.5, "fraction_of_zero": 1.0, "huge_fraction": 1e300},
         {"0": 0, "text": "1", "true": True, "fraction_below": 0.9999999999999999, "null": None}),
        ("max", {"max": 5}, {"5": 5, "minus": -10, "fraction": 0.5, "fraction_of_zero": 5.0},
         {"6": 6, "text": "", "fraction_above": 5.000000000000001, "list": []}),
        ("range", {"min": -1, "max": 1}, {"-1": -1, "0": 0, "1": 1, "minus_zero": -0.0},
         {"-2": -2, "2": 2, "false": False, "fraction_below": -1.0000000000000002}),
        ("point", {"min": 3, "max": 3}, {"3": 3, "fraction_of_zero": 3.0}, {"2": 2, "4": 4, "fraction": 3.5}),
        ("zero", {"min": 0, "max": 0}, {"0": 0, "minus_zero": -0.0}, {"least": 5e-324, "least_below": -5e-324}),
        ("edge", {"max": 2**53 - 1}, {"edge": 2**53 - 1, "edge_as_fraction": float(2**53 - 1)},
         {"edge": 2**53, "edge_as_fraction": float(2**53), "huge": 10**400}),
    ]  # fmt: skip
    table.allow("plain", "13.1", token(SALES))
    for name, constraint, held, broken in accepted:
        parts = token({**SALES, "where": {"x": constraint}})
        rule = "13.5" if constraint.keys() & {"min", "max"} else "13.3"
        for what, value in held.items():
            table.allow(f"{name}_takes_{what}", rule, parts, {**SELECT, "attributes": {"x": value}})
        for what, value in broken.items():
            table.deny(f"{name}_refuses_{what}", rule, "attribute", parts, {**SELECT, "attributes": {"x": value}})
    ill: dict[str, Json] = {
        "nothing": {}, "text": "eu", "list": ["eu"], "true": True, "unknown": {"unlike": 1}, "regex": {"regex": "a"},
        "two_kinds": {"in": [1], "min": 1}, "any_and_in": {"any": True, "in": [1]}, "any_false": {"any": False},
        "any_number": {"any": 1}, "in_text": {"in": "eu"}, "in_object": {"in": {}}, "in_list": {"in": [[1]]},
        "in_objects": {"in": [{}]}, "in_empty_text": {"in": [""]}, "in_padded": {"in": ["eu "]},
        "in_control": {"in": ["a\n"]}, "in_long": {"in": ["x" * 257]}, "min_text": {"min": "1"}, "max_text_beside_min": {"max": "5", "min": 1}, "min_true_beside_max": {"max": 5, "min": True}, "min_true": {"min": True},
        "max_list": {"max": [1]}, "crossed": {"max": 1, "min": 2}, "path_text": {"path": "/data"},
        "path_number": {"path": [1]}, "upper_case": {"IN": ["eu"]}, "max_and_unknown": {"max": 1, "step": 2},
    }  # fmt: skip
    for name, constraint in ill.items():
        table.deny(f"{name}_is_none", "13.1", "unreadable_link", token(SALES, {"where": {"x": constraint}}))
    return table


def paths() -> Table:
    table = Table("paths", "Values at or below a path, at segment boundaries; whatever could be read as another path is none.")
    data = token({**SALES, "where": {"x": {"path": ["/data/a", "/srv"]}}})
    root = token({**SALES, "where": {"x": {"path": ["/"]}}})

    def at(value: Json) -> dict[str, Json]:
        return {**SELECT, "attributes": {"x": value}}

    below = {
        "itself": "/data/a", "below": "/data/a/b/c", "the_other": "/srv/x", "hidden": "/data/a/.b",
        "three_dots": "/data/a/...", "space": "/data/a/ b", "percent": "/data/a/100%", "escape_of_letter": "/data/a/%41",
        "line_feed": "/data/a/b\n", "long": "/data/a/" + "x" * 300, "zero_width": "/data/a/\u200b",
    }  # fmt: skip
    for name, value in below.items():
        table.allow(f"takes_{name}", "14.3", data, at(value))
    for name, value in {
        "above": "/data",
        "beside": "/data/ab",
        "root": "/",
        "other_case": "/DATA/a",
        "elsewhere": "/etc",
    }.items():
        table.deny(f"refuses_{name}", "14.3", "attribute", data, at(value))
    for name, value in {
        "escaped_letter": "/d%61ta/a", "other_form_of_a_letter": "/data/\uff41", "semicolon": "/data;x/a", "tilde": "~/data/a",
    }.items():  # fmt: skip
        table.deny(f"refuses_{name}", "14.5", "attribute", data, at(value))
    for name, value in {
        "two_dots": "/data/a/../b", "two_dots_last": "/data/a/..", "dot": "/data/a/./b", "two_slashes": "/data//a",
        "two_slashes_first": "//data/a", "slash_last": "/data/a/", "no_slash": "data/a", "empty": "",
        "scheme": "file:///data/a",
    }.items():  # fmt: skip
        table.deny(f"refuses_{name}", "14.1", "attribute", data, at(value))
    for name, value in {
        "escaped_dot": "/data/a/%2e%2e/b", "escaped_dot_upper": "/data/a/%2E", "escaped_slash": "/data/a%2fb",
        "escaped_slash_upper": "/data/a/%2Fb", "escaped_backslash": "/data/a/%5c", "escaped_backslash_upper": "/data/a/%5C",
        "escaped_percent": "/data/a/%252e", "escaped_null": "/data/a/%00", "backslash": "/data/a/..\\b",
        "null": "/data/a/b\0",
    }.items():  # fmt: skip
        table.deny(f"refuses_{name}", "14.2", "attribute", data, at(value))
    for name, other in {"number": 1, "null": None, "list": ["/data/a"], "true": True}.items():
        table.deny(f"refuses_{name}_value", "13.3", "attribute", data, at(other))
    for name, value in {"itself": "/", "anything": "/etc/passwd"}.items():
        table.allow(f"root_takes_{name}", "14.3", root, at(value))
    for name, value in {"no_path": "etc", "two_slashes": "//", "two_dots": "/..", "empty": ""}.items():
        table.deny(f"root_refuses_{name}", "14.4", "attribute", root, at(value))
    table.deny("none_refuses_all", "13.2", "attribute", token({**SALES, "where": {"x": {"path": []}}}), at("/"))
    table.allow("top", "14.4", token(SALES, {"where": {"x": {"path": ["/data"]}}}), at("/data"))
    for name, top in {
        "no_slash": "data", "slash_last": "/data/", "two_slashes": "//data", "two_dots": "/data/../etc", "dot": "/.",
        "empty": "", "backslash": "/a\\b", "escaped_slash": "/a%2Fb", "padded": "/data ", "control": "/data\t/a",
        "zero_width": "/da\u200bta", "257_bytes": "/" + "x" * 256,
    }.items():  # fmt: skip
        table.deny(
            f"top_{name}_is_unreadable", "14.4", "unreadable_link", token(SALES, {"where": {"x": {"path": [top]}}}), at("/data")
        )
    return table


def _under(constraint: Json) -> Parts:
    return token({**SALES, "where": {"x": constraint}})


def _at(value: Json) -> dict[str, Json]:
    return {**SELECT, "attributes": {"x": value}}


def prefixes() -> Table:
    """Strings that begin with one of a list, and are nothing that has parts."""
    table = Table("prefixes", "Strings that begin with one of a list; a path, a url or an address never does.")
    held = _under({"prefix": ["acct-", "10.", "http", "\u00fc"]})
    for name, value in {
        "longer": "acct-1", "itself": "acct-", "long": "acct-" + "x" * 300, "line_feed": "acct-\n", "number_like": "10.5",
        "text_with_slashes": "acct-/../x", "beyond_ascii": "\u00fcber", "user_info": "http://a@example.com",
        "address_with_port": "10.0.0.1:80", "address_in_octal": "10.0.0.01",
    }.items():  # fmt: skip
        table.allow(f"takes_{name}", "13.8", held, _at(value))
    for name, value in {
        "shorter": "acct", "other_case": "ACCT-1", "later": "my acct-1", "space_first": " acct-1", "empty": "",
        "decomposed": "u\u0308ber", "url": "http://example.com", "url_with_query": "https://example.com/?x", "address": "10.0.0.1",
        "number": 10, "null": None, "list": ["acct-1"], "true": True, "fraction": 10.5,
    }.items():  # fmt: skip
        table.deny(f"refuses_{name}", "13.8", "attribute", held, _at(value))
    table.allow("two_of_which_one_is_longer", "13.2", _under({"prefix": ["a", "ab", "a"]}), _at("ac"))
    table.allow("one_entry", "13.8", _under({"prefix": ["acct-"]}), _at("acct-1"))
    table.deny("refuses_path", "13.8", "attribute", _under({"prefix": ["acct-"]}), _at("/acct-1"))
    table.deny("none_refuses_all", "13.2", "attribute", _under({"prefix": []}), _at("acct-1"))
    table.allow("looks_like_an_address", "13.8", _under({"prefix": ["2001:db8::1"]}), _at("2001:db8::1x"))
    table.deny("refuses_address_of_version_6", "13.8", "attribute", _under({"prefix": ["2001:db8::1"]}), _at("2001:db8::1"))
    for name, entry in {
        "empty": "", "slash": "/", "path": "/data", "url": "https://", "url_inside": "a://b", "space_last": "acct- ",
        "space_first": " a", "control": "a\tb", "257_bytes": "x" * 257, "number": 1, "true": True, "list": ["a"],
    }.items():  # fmt: skip
        table.deny(f"entry_{name}_is_unreadable", "13.8", "unreadable_link", _under({"prefix": [entry]}), _at("acct-1"))
    table.deny("text_is_unreadable", "13.1", "unreadable_link", _under({"prefix": "acct-"}), _at("acct-1"))
    return table


def urls() -> Table:
    """Urls at or below one of a list: what two readers could read as two things is none."""
    table = Table("urls", "Urls at or below one of a list; whatever two readers could read as two urls is none.")
    held = _under({"url": [
        "https://*.example.com/reports", "https://example.org", "http://10.0.0.7:8080/a/", "wss://[2001:db8::1]/s",
        "https://xn--bcher-kva.example.net",
    ]})  # fmt: skip
    for name, value in {
        "itself": "https://a.example.com/reports", "below": "https://a.example.com/reports/2026/q1",
        "slash_behind": "https://a.example.com/reports/", "deeper_host": "https://a.b.example.com/reports",
        "query": "https://a.example.com/reports?x=1&y=/../z%2e%", "query_with_at": "https://a.example.com/reports?to=a@b",
        "no_path": "https://example.org", "root": "https://example.org/", "query_without_path": "https://example.org?x=1",
        "any_path": "https://example.org/a;v=1/b", "code_of_letter": "https://example.org/%41",
        "three_dots": "https://example.org/...", "stray_characters": "https://example.org/a|b\"<>^`{}",
        "at_in_path": "https://example.org/@a", "colon_in_path": "https://example.org/a:b", "star_in_path": "https://example.org/*",
        "nine": "https://9.example.com/reports", "nines_at_both_ends": "https://9a9.example.com/reports",
        "last_letter": "https://z.example.com/reports", "first_letter_and_zero": "https://a0.example.com/reports",
        "two_hyphens": "https://x--y.example.com/reports", "digits": "https://1.example.com/reports",
        "address": "http://10.0.0.7:8080/a/b", "address_of_version_6": "wss://[2001:db8::1]/s", "port_with_query": "http://10.0.0.7:8080/a/?x",
        "253_characters": "https://" + "a." * 121 + "example.com/reports",
        "63_characters": "https://" + "a" * 63 + ".example.com/reports", "punycode": "https://xn--bcher-kva.example.net/a", "2048_characters": "https://example.org/" + "x" * 2028,
    }.items():  # fmt: skip
        table.allow(f"takes_{name}", "13.12", held, _at(value))
    with_port = _under({"url": ["wss://[2001:db8::1]:8443/s"]})
    table.allow("takes_address_of_version_6_with_port", "13.12", with_port, _at("wss://[2001:db8::1]:8443/s/a"))
    for name, value in {
        "star_itself": "https://example.com/reports", "longer_segment": "https://a.example.com/reports2",
        "above": "https://a.example.com/", "other_scheme": "http://example.org", "other_port": "https://example.org:8443",
        "host_below_exact": "https://a.example.org", "longer_host": "https://example.org.evil.net", "ending": "https://aexample.com/reports",
        "host_in_path": "https://evil.net/https://example.org", "without_its_slash": "http://10.0.0.7:8080/a",
        "another_address": "http://10.0.0.8:8080/a/", "address_without_port": "http://10.0.0.7/a/",
        "below_address": "http://x.10.0.0.7:8080/a/", "other_case_of_path": "https://a.example.com/Reports",
        "path_with_parameter": "https://a.example.com/reports;x/a", "code_of_a_letter_in_entry": "https://a.example.com/%72eports",
    }.items():  # fmt: skip
        table.deny(f"refuses_{name}", "13.12", "attribute", held, _at(value))
    ill: dict[str, dict[str, str]] = {
        "13.9": {
            "user_info": "https://a@example.org/", "user_and_password": "https://a:b@example.org/", "empty_user": "https://@example.org/",
            "user_info_of_another": "https://example.org@evil.net/", "at_in_query_without_path": "https://example.org?@evil.net/",
            "fragment": "https://example.org/#a", "empty_fragment": "https://example.org/#", "backslash": "https://example.org\\@evil.net/",
            "backslash_in_path": "https://example.org/a\\b", "space": "https://example.org/a b", "line_feed": "https://example.org/\n",
            "tab": "https://exa\tmple.org/", "null": "https://example.org/\0", "delete": "https://example.org/\x7f",
            "space_first": " https://example.org/", "space_last": "https://example.org/ ", "2049_characters": "https://example.org/" + "x" * 2029,
            "beyond_ascii": "https://example.org/\u00e9", "no_scheme": "example.org/", "no_scheme_but_slashes": "//example.org/",
            "upper_case_scheme": "HTTPS://example.org/", "other_scheme_ftp": "ftp://example.org/", "file": "file:///etc/passwd",
            "one_slash": "https:/example.org/", "three_slashes": "https:///example.org/", "no_slashes": "https:example.org",
            "script": "javascript://example.org/%0aalert(1)", "empty_text": "", "nothing_behind": "https://",
        },
        "13.10": {
            "upper_case": "https://Example.org/", "dot_at_end": "https://example.org./", "two_dots": "https://a..example.com/reports",
            "dot_first": "https://.example.com/reports", "idn": "https://b\u00fccher.example.net/", "full_width": "https://example\uff0eorg/",
            "hyphen_first": "https://-a.example.com/reports", "hyphen_last": "https://a-.example.com/reports",
            "underscore": "https://a_b.example.com/reports", "64_characters": "https://" + "a" * 64 + ".example.com/reports",
            "254_characters": "https://aa." + "a." * 120 + "example.com/reports", "star": "https://*.example.com/reports",
            "code_in_host": "https://example%2eorg/", "octal": "http://012.0.0.7:8080/a/", "hexadecimal": "http://0xa.0.0.7:8080/a/",
            "one_number": "http://167772167:8080/a/", "one_hexadecimal_number": "http://0xa000007:8080/a/", "short_form": "http://10.7:8080/a/",
            "leading_zero": "http://10.0.0.07:8080/a/", "256": "http://10.0.0.256:8080/a/", "five_numbers": "http://10.0.0.0.7:8080/a/",
            "dot_behind_address": "http://10.0.0.7.:8080/a/", "hexadecimal_last_label": "https://example.0x7/",
            "number_as_last_label": "https://example.7/", "mapped": "wss://[::ffff:a00:7]/s", "mapped_with_dots": "wss://[::ffff:10.0.0.7]/s",
            "upper_case_of_version_6": "wss://[2001:DB8::1]/s", "zero_of_version_6": "wss://[2001:0db8::1]/s",
            "long_form_of_version_6": "wss://[2001:db8:0:0:0:0:0:1]/s", "zone": "wss://[2001:db8::1%25eth0]/s",
            "no_brackets": "wss://2001:db8::1/s", "version_4_in_brackets": "http://[10.0.0.7]:8080/a/", "open_bracket": "wss://[2001:db8::1/s",
            "behind_bracket": "wss://[2001:db8::1]x/s",
        },
        "13.11": {
            "default_port": "https://example.org:443/", "no_number": "https://example.org:/", "leading_zero_of_port": "http://10.0.0.7:08080/a/",
            "port_0": "https://example.org:0/", "port_65536": "https://example.org:65536/", "two_ports": "http://10.0.0.7:8080:8080/a/",
            "minus": "https://example.org:-1/", "two_slashes": "https://example.org//a", "two_slashes_inside": "https://example.org/a//b",
            "dot_segment": "https://example.org/./a", "dots_segment": "https://a.example.com/reports/../x", "dots_last": "https://example.org/..",
            "dots_with_parameter": "https://a.example.com/reports/..;x/y", "dot_with_parameter": "https://example.org/.;/a",
            "escaped_dot": "https://example.org/%2e%2e/a", "escaped_dot_upper": "https://example.org/%2E", "escaped_slash": "https://example.org/a%2fb",
            "escaped_slash_upper": "https://example.org/a%2Fb", "escaped_backslash": "https://example.org/a%5cb", "escaped_percent": "https://example.org/%252e",
            "escaped_null": "https://example.org/a%00", "escaped_semicolon": "https://example.org/..%3bx", "escaped_semicolon_upper": "https://example.org/a%3Bx",
            "half_a_code": "https://example.org/a%4", "percent_alone": "https://example.org/100%", "no_code": "https://example.org/%zz",
        },
    }  # fmt: skip
    for rule, values in ill.items():
        for name, value in values.items():
            table.deny(f"refuses_{name}", rule, "attribute", held, _at(value))
    for name, other in {"number": 1, "null": None, "list": ["https://example.org/"], "true": True}.items():
        table.deny(f"refuses_{name}_value", "13.3", "attribute", held, _at(other))
    sixteen: Json = [f"https://h{number}.example.com" for number in range(16)]
    table.allow("sixteen", "13.13", _under({"url": sixteen}), _at("https://h7.example.com/x"))
    table.deny("seventeen", "13.13", "unreadable_link", _under({"url": [*sixteen, "https://a.b"]}), _at("https://h7.example.com/x"))
    table.deny("seventeen_of_which_two_are_one", "13.13", "unreadable_link", _under({"url": [*sixteen, sixteen[0]]}), _at("https://h7.example.com/x"))
    longest = "a." * 122 + "example"  # 251 characters: with `*.` before it 253
    for name, host in {"starred_name_of_253_characters": f"*.{longest}", "last_label_of_nines": "a.9b9", "last_label_with_one_letter": "a.9z"}.items():
        table.allow(f"entry_with_a_{name}", "13.10", _under({"url": [f"https://{host}"]}), _at(f"https://{host.replace('*', 'z')}/x"))
    table.beside("entry_with_a_starred_name_of_253_characters")
    table.deny("entry_with_a_starred_name_of_254_characters_is_unreadable", "13.10", "unreadable_link",
               _under({"url": [f"https://*.a{longest}"]}), _at(f"https://z.{longest}/x"))  # fmt: skip
    for port in (1, 65535):
        table.allow(f"entry_of_port_{port}", "13.11", _under({"url": [f"https://a.b:{port}"]}), _at(f"https://a.b:{port}/x"))
    for port in (0, 65536, 99999, 100000):
        table.deny(f"entry_of_port_{port}_is_unreadable", "13.11", "unreadable_link", _under({"url": [f"https://a.b:{port}"]}), _at("https://a.b:65535/x"))
    table.allow("one_entry", "13.12", _under({"url": ["https://h7.example.com"]}), _at("https://h7.example.com/x"))
    table.deny("none_refuses_all", "13.2", "attribute", _under({"url": []}), _at("https://h7.example.com/x"))
    for rule, entries in {
        "13.9": {"query": "https://a.b?x", "empty_query": "https://a.b/?", "fragment": "https://a.b/#", "user_info": "https://u@a.b", "no_scheme": "a.b",
                 "ftp": "ftp://a.b", "2049_characters": "https://a.b/" + "x" * 2037, "beyond_ascii": "https://a.b/\u00e9", "empty": "", "number": 1},
        "13.10": {"star_alone": "https://*", "star_of_one_label": "https://*.com", "star_inside": "https://a.*.b.c", "two_stars": "https://*.*.b.c",
                  "star_in_a_label": "https://a*.b.c", "star_before_address": "https://*.10.0.0.7", "upper_case": "https://A.b", "dot_at_end": "https://a.b.",
                  "octal": "https://010.0.0.7", "hexadecimal_last_label": "https://example.0x7", "number_as_last_label": "https://example.7",
                  "hexadecimal_last_label_behind_a_star": "https://*.a.0xb", "empty_label": "https://a..b", "label_of_64": "https://" + "a" * 64 + ".b",
                  "hyphen_last": "https://a-.b", "underscore": "https://a_b.c", "mapped": "https://[::ffff:a00:7]", "254_characters": "https://*." + "a." * 123 + "example"},
        "13.11": {"default_port": "https://a.b:443", "dots": "https://a.b/..", "two_slashes": "https://a.b//c", "escaped_slash": "https://a.b/%2f"},
    }.items():  # fmt: skip
        for name, entry in entries.items():
            table.deny(f"entry_{name}_is_unreadable", rule, "unreadable_link", _under({"url": [entry]}), _at("https://h7.example.com/x"))
    table.deny("text_is_unreadable", "13.1", "unreadable_link", _under({"url": "https://a.b"}), _at("https://h7.example.com/x"))
    return table


def addresses() -> Table:
    """IP addresses in one of several blocks: one spelling for each."""
    table = Table("addresses", "IP addresses in one of several blocks; each has one spelling.")
    held = _under({"cidr": ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "::/97"]})
    for name, value in {
        "first": "10.0.0.0", "inside": "10.1.2.3", "last": "10.255.255.255", "single": "192.0.2.7", "version_6": "2001:db8::1",
        "first_of_version_6": "2001:db8::", "full": "2001:db8:1:2:3:4:5:6", "zero_group": "2001:db8:1:0:3:4:5:6",
        "longest_run": "2001:db8:0:0:1::", "first_of_two_runs": "2001:db8::1:0:0:1", "unspecified": "::", "loopback": "::1",
    }.items():  # fmt: skip
        table.allow(f"takes_{name}", "13.14", held, _at(value))
    for name, value in {
        "before": "9.255.255.255", "behind": "11.0.0.0", "beside": "192.0.2.6", "beside_version_6": "2001:db9::", "number_of_the_other": "::a00:1:0",
        "version_4_as_6": "2002:a00:1::", "version_4_in_64": "64:ff9b::a00:1",
    }.items():  # fmt: skip
        table.deny(f"refuses_{name}", "13.15", "attribute", held, _at(value))
    for name, value in {
        "leading_zero": "10.0.0.01", "octal": "012.0.0.1", "hexadecimal": "0xa.0.0.1", "one_number": "167772161", "short": "10.1", "256": "10.0.0.256",
        "three": "10.0.0", "five": "10.0.0.0.1", "port": "10.0.0.1:80", "space": "10.0.0.1 ", "space_first": " 10.0.0.1", "line_feed": "10.0.0.1\n",
        "block": "10.0.0.0/8", "upper_case": "2001:DB8::1", "zeros": "2001:0db8::1", "long": "2001:db8:0:0:0:0:0:1", "one_zero_left_out": "2001:db8::2:3:4:5:6",
        "shorter_run": "2001:db8:0:0:1:0:0:1", "second_of_two_runs": "2001:db8:0:0:1::1:0", "brackets": "[2001:db8::1]", "zone": "2001:db8::1%eth0",
        "mapped": "::ffff:a00:1", "mapped_with_dots": "::ffff:10.0.0.1", "version_4_at_the_end": "2001:db8::10.0.0.1", "two_runs": "2001:db8::1::1",
        "three_colons": "2001:db8:::1", "nine_groups": "2001:db8:1:2:3:4:5:6:7", "nine_groups_and_a_run": "1:2:3:4:5:6:7:8::9", "five_digits": "2001:db8::10000", "empty": "", "name": "localhost",
        "other_digits": "1\u0660.0.0.1", "dot_behind": "10.0.0.1.",
    }.items():  # fmt: skip
        table.deny(f"refuses_{name}", "13.14", "attribute", held, _at(value))
    for name, other in {"number": 167772161, "null": None, "list": ["10.0.0.1"], "true": True}.items():
        table.deny(f"refuses_{name}_value", "13.3", "attribute", held, _at(other))
    everything = _under({"cidr": ["0.0.0.0/0", "8000::/1"]})
    table.allow("all_of_version_4", "13.15", everything, _at("255.255.255.255"))
    table.allow("half_of_version_6", "13.15", everything, _at("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
    table.deny("all_of_version_4_and_none_of_6", "13.15", "attribute", everything, _at("::1"))
    table.allow("one_entry", "13.15", _under({"cidr": ["10.0.0.0/8"]}), _at("10.0.0.1"))
    table.deny("none_refuses_all", "13.2", "attribute", _under({"cidr": []}), _at("10.0.0.1"))
    for name, entry in {
        "without_length": "10.0.0.0", "host_bits": "10.0.0.1/8", "host_bits_of_version_6": "2001:db8::1/32", "33": "10.0.0.0/33", "129": "2001:db8::/129",
        "leading_zero": "10.0.0.0/08", "mask": "10.0.0.0/255.0.0.0", "minus": "10.0.0.0/-8", "empty_length": "10.0.0.0/", "two_lengths": "10.0.0.0/8/8",
        "leading_zero_of_address": "010.0.0.0/8", "short": "10/8", "upper_case": "2001:DB8::/32", "zeros": "2001:db8:0::/32", "empty": "", "space": "10.0.0.0 /8",
        "all_of_version_6": "::/0", "holds_mapped": "::/80", "mapped": "::ffff:0:0/96", "among_mapped": "::ffff:a00:0/104", "one_mapped": "::ffff:a00:1/128",
        "mapped_with_dots": "::ffff:10.0.0.0/104", "zone": "fe80::%eth0/64", "number": 8, "name": "localhost/8", "brackets": "[2001:db8::]/32",
    }.items():  # fmt: skip
        table.deny(f"block_{name}_is_unreadable", "13.15", "unreadable_link", _under({"cidr": [entry]}), _at("10.0.0.1"))
    table.deny("text_is_unreadable", "13.1", "unreadable_link", _under({"cidr": "10.0.0.0/8"}), _at("10.0.0.1"))
    return table


def lists() -> Table:
    """Lists, all of whose items satisfy one constraint."""
    table = Table("lists", "Lists whose every item satisfies a constraint, and which have at most so many.")
    held = _under({"each": {"in": ["eu", "us", 1]}, "most": 3})
    for name, value in {"nothing": [], "one": ["eu"], "three": ["eu", "us", 1], "one_three_times": ["eu", "eu", "eu"]}.items():
        table.allow(f"takes_{name}", "13.16", held, _at(value))
    for name, value in {
        "four": ["eu", "us", 1, "eu"], "another_item": ["eu", "mars"], "other_type": [True], "fraction": [1.0], "null": [None], "nested": [["eu"]],
        "text": "eu", "text_of_letters": "", "number": 1, "object": {"0": "eu"}, "null_value": None,
    }.items():  # fmt: skip
        table.deny(f"refuses_{name}", "13.16", "attribute", held, _at(value))
    table.allow("without_most", "13.16", _under({"each": {"min": 0, "max": 9}}), _at([number / 2 for number in range(19)]))
    table.allow("of_anything", "13.16", _under({"each": {"any": True}}), _at([None, 1.5, [], {}, "x"]))
    table.deny("of_anything_is_a_list", "13.16", "attribute", _under({"each": {"any": True}}), _at({}))
    table.allow("of_nothing_takes_nothing", "13.16", _under({"each": {"in": []}}), _at([]))
    table.deny("of_nothing_refuses_an_item", "13.16", "attribute", _under({"each": {"in": []}}), _at([None]))
    table.allow("most_0_takes_nothing", "13.16", _under({"each": {"any": True}, "most": 0}), _at([]))
    table.deny("most_0_refuses_an_item", "13.16", "attribute", _under({"each": {"any": True}, "most": 0}), _at([None]))
    table.allow("of_urls", "13.16", _under({"each": {"url": ["https://*.b.c"]}}), _at(["https://a.b.c/x", "https://d.b.c"]))
    table.deny("of_urls_refuses_another", "13.16", "attribute", _under({"each": {"url": ["https://*.b.c"]}}), _at(["https://a.b.c/x", "https://b.c"]))

    def nested(inside: Json, deep: int) -> Json:
        return inside if deep == 0 else {"each": nested(inside, deep - 1)}

    table.allow("four_deep", "13.17", _under(nested({"in": ["x"]}, 4)), _at([[[["x"], []]]]))
    table.deny("four_deep_refuses_less", "13.17", "attribute", _under(nested({"in": ["x"]}, 4)), _at([[["x", []]]]))
    table.deny("five_deep", "13.17", "unreadable_link", _under(nested({"in": ["x"]}, 5)), _at([[[["x"], []]]]))
    in_tools = token({"tools": {"mail": {"to": {"each": {"prefix": ["a"]}, "most": 2, "optional": True}}}})
    table.allow("optional_beside_it", "13.17", in_tools, call("mail", to=["ab", "a"]))
    table.allow("optional_left_out", "13.17", in_tools, call("mail"))
    table.deny("refuses_an_argument_that_is_no_list", "13.16", "argument", in_tools, call("mail", to="ab"))
    for rule, constraints_ in {
        "13.16": {
            "most_alone": {"most": 1}, "most_negative": {"each": {"any": True}, "most": -1}, "most_text": {"each": {"any": True}, "most": "1"},
            "most_true": {"each": {"any": True}, "most": True}, "no_kind": {"each": {}}, "list": {"each": [{"any": True}]}, "text": {"each": "eu"},
            "unknown_kind": {"each": {"unlike": 1}}, "beside_another_kind": {"each": {"any": True}, "in": ["a"]}, "most_beside_in": {"in": [1], "most": 1},
        },
        "13.17": {"optional_inside": {"each": {"any": True, "optional": True}}},
    }.items():  # fmt: skip
        for name, constraint in constraints_.items():
            table.deny(f"{name}_is_unreadable", rule, "unreadable_link", _under(constraint), _at([]))
    return table


def domains() -> Table:
    table = Table(
        "domains", "A caveat speaks about its own domain; a link that names any domain closes those it does not name."
    )
    search = call("search", q="x")
    data, tool = token(SALES), token({"tools": {"*": {}}})
    table.allow("data", "18.2", data)
    table.deny("data_closes_tools", "18.3", "domain", data, search)
    table.deny("data_closes_tools_beside_a_table", "18.3", "domain", data, {**SELECT, **search})
    table.deny("data_asks_for_a_domain", "18.3", "domain", data, {})
    table.deny("data_asks_for_a_domain_beside_attributes", "18.3", "domain", data, {"attributes": {"x": 1}})
    table.allow("tool", "18.2", tool, search)
    table.deny("tool_closes_tables", "18.3", "domain", tool, MARKET)
    table.deny("tool_closes_tables_beside_a_call", "18.3", "domain", tool, {**SELECT, **search})
    table.deny("tool_asks_for_a_domain", "18.3", "domain", tool, {})
    both = token({**SALES, "tools": {"search": {}}})
    table.allow("both_and_a_table", "18.2", both)
    table.allow("both_and_a_call", "18.2", both, search)
    table.allow("both_and_both", "18.1", both, {**SELECT, **search})
    table.deny("both_and_a_bad_table", "18.2", "table", both, {**MARKET, **search})
    table.deny("both_and_a_bad_call", "18.2", "tool", both, {**SELECT, **call("mail", q="x")})
    table.deny("both_ask_for_a_domain", "18.3", "domain", both, {})
    table.allow("universal_alone_and_nothing_stated", "18.3", token({"nbf": NOW}), {})
    table.allow("universal_alone_and_a_table", "18.3", token({"nbf": NOW}), MARKET)
    table.allow("universal_alone_and_both", "18.3", token({"nbf": NOW}), {**SELECT, **search})
    table.allow("universal_alone_and_a_call", "18.3", token({"nbf": NOW}), search)
    table.allow(
        "kept_tools", "18.3", token({**SALES, "tools": {"search": {}}}, {"tables": ["sales"], "tools": {"*": {}}}), search
    )
    table.deny("dropped_tools", "18.3", "domain", token({**SALES, "tools": {"search": {}}}, {"tables": ["sales"]}), search)
    table.deny("dropped_tables", "18.3", "domain", token({**SALES, "tools": {"search": {}}}, {"tools": {"search": {}}}))
    for key, value in {"operations": ["select"], "allow": {"*": ["*"]}, "columns": {"sales": ["*"]}, "rows": {"sales": {}}, "tables": ["*"]}.items():
        parts = token({"nbf": NOW}, {key: value})
        table.allow(f"{key}_alone_leave_tables_open", "18.3", parts, {**SELECT, "columns": ["a"]})
        table.deny(f"{key}_alone_close_tools", "18.3", "domain", parts, search)
    table.allow("columns_of_another_table", "15.4", token({"columns": {"hr": ["name"]}}), MARKET)
    table.allow("delegation_closes_nothing", "18.3", token({"nbf": NOW}, hand_over("sales-agent")), search)
    table.deny("caveat_before_domain", "18.4", "table", data, {**MARKET, **search})
    table.deny("universal_caveat_before_domain", "18.4", "expired", token({**SALES, "exp": NOW}), search)
    table.deny("closed_by_nothing_permitted", "18.3", "domain", token({"tables": [], "operations": []}), search)
    table.allow("domains_are_not_asked_without_an_access", "24.8", data, None)
    return table
