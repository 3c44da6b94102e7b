"""Vectors of marks and of what must not follow on them: Marks, and what the sections before it say of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

from spec.generate.binding import HERE
from spec.generate.build import (
    JTI,
    KEY,
    NOW,
    OTHER_KEY,
    Json,
    Parts,
    asking,
    audience_key,
    b64,
    bundle,
    discharge,
    entry,
    extended,
    hand_over,
    label,
    link_id,
    mark_of_entry,
    mark_of_link,
    mark_of_task,
    nonce,
    sha256,
    signing_public,
    sized,
    snapshot,
    token,
)
from spec.generate.table import SALES, SELECT, Table, call, keyring

Link = dict[str, Json]

OPERATOR = b64(signing_public("operator"))
MAIL: Link = {"tools": ["mail.*"]}
SET: Link = {"tools": ["set"]}  # what sets the mark s, which a ledger has set where it is said so
RULE: Json = [{"in": ["m"], "after": ["s"]}]
SEND = call("mail.send", to="ann@example.com")
# The rule of two: what a stranger wrote, what is private, what leaves.
TWO: Link = {
    "marks": {
        "outside": MAIL, "private": {"tables": ["crm.*"]}, "untrusted": {"tools": ["http.get"]},
    },
    "forbid": [{"in": ["outside"], "after": ["private", "untrusted"]}],
    "n": nonce(),
}  # fmt: skip
OF_TWO = {
    "private": {"table": "crm.deals", "operation": "select"}, "untrusted": call("http.get", url="https://example.com"), "outside": SEND,
}  # fmt: skip


def tables() -> Iterator[Table]:
    yield marks()
    yield forbid()


def marking(definition: Json, number: int = 0, **more: Json) -> Link:
    """A link with the mark m, which is closed once the mark s is set."""
    return {"marks": {"m": definition, "s": SET}, "forbid": RULE, "n": nonce(number), **more}


def found(*marks: str, shared: bool = True, floor: int = 0, spent: tuple[Json, ...] = (), **more: Json) -> dict[str, Json]:
    """A ledger in which these are set."""
    stated: dict[str, Json] = {"floor": floor, "shared": shared, "spent": list(spent), **more}
    return {"ledger": stated | ({"marks": list(marks)} if marks else {})}


CLOSED = found(mark_of_task("s"))


class Rows:
    """Rows of a table, at a ledger."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def allow(
        self, name: str, rule: str, parts: Parts, access: Json = SELECT, at: Json = CLOSED, sets: tuple[str, ...] = (),
        debits: tuple[Json, ...] = (), **known: Any,
    ) -> None:  # fmt: skip
        outcome: dict[str, Json] = {"debits": list(debits)} if "ledger" in at else {}
        outcome |= {"marks": sorted(sets)} if sets else {}
        self.table.allow(name, rule, parts, access, presented=at, outcome=outcome, **known)

    def deny(
        self, name: str, rule: str, parts: Parts | str, access: Json = SELECT, at: Json = CLOSED, code: str = "forbidden_after", **known: Any
    ) -> None:
        self.table.deny(name, rule, code, parts, access, presented=at, **known)


# --- what marks are --------------------------------------------------------------------------------------------------


def marks() -> Table:
    table = Table("marks", "Marks: how they are spelled, which accesses are in them, whose they are, and what is written of them.")
    rows = Rows(table)
    _spelled(table, rows)
    _inside(rows)
    _whose(rows)
    _elsewhere(table, rows)
    _written(table)
    return table


def _spelled(table: Table, rows: Rows) -> None:
    """What can be read."""
    good: Link = {"tables": ["sales", "hr.*"], "operations": ["select"], "tools": ["mail.send"], "but": {"tables": ["sales"]}}
    for name, definition in {
        "tables_alone": {"tables": ["hr"]}, "tools_alone": {"tools": ["*"]}, "any_operation": {"tables": ["hr"], "operations": ["*"]},
        "tables_and_tools": {"tables": ["hr"], "tools": ["x"]}, "patterns_twice": {"tables": ["hr", "hr"]},
        "but_of_what_permits_nothing": {"tables": ["hr"], "but": {"tables": []}}, "but_of_everything": {"tables": ["sales"], "but": {"operations": ["*"]}},
        "but_of_allow": {"tables": ["sales"], "but": {"allow": {"*": ["select"]}}}, "but_of_tools": {"tools": ["x"], "but": {"tools": {}}},
    }.items():  # fmt: skip
        rows.allow(f"with_{name}", "46.1", token(marking(definition)))
    rows.allow("whole", "46.1", token(marking(good)))
    table.beside("whole")
    bad: dict[str, Json] = {
        "empty": {}, "list": [good], "text": "sales", "true": True, "number": 1,
        "operations_alone": {"operations": ["select"]}, "but_alone": {"but": {"tables": ["sales"]}},
        "operations_beside_tools_alone": {"operations": ["select"], "tools": ["mail.send"]},
        "another_key": {**good, "columns": {"sales": ["a"]}}, "where": {**good, "where": {"x": {"any": True}}},
    }  # fmt: skip
    for key in ("tables", "operations", "tools"):
        for name, value in {"none": [], "text": "sales", "empty_text": [""], "number": [1], "object": {}, "nested": [["sales"]]}.items():
            bad[f"{key}_{name}"] = {**good, key: value}
    bad |= {f"{key}_no_pattern": {**good, key: ["a.*.b"]} for key in ("tables", "tools")}
    bad["operations_with_a_space"] = {**good, "operations": ["a b"]}
    for name, but in {
        "empty": {}, "list": [], "text": "sales", "true": True, "columns": {"columns": {"sales": ["a"]}}, "rows": {"rows": {"sales": {}}},
        "where": {"where": {"x": {"any": True}}}, "exp": {"exp": NOW + 60}, "unknown": {"colour": 1}, "own": {"acme:x": 1}, "unreadable": {"tables": "sales"},
        "pattern": {"tables": ["a..b"]}, "constraint": {"tools": {"x": {"a": {"like": ["x"]}}}}, "marks": {"marks": {"m": SET}}, "n": {"n": nonce(), "tables": ["a"]},
    }.items():  # fmt: skip
        bad[f"but_{name}"] = {**good, "but": but}
    for name, value in bad.items():
        rows.deny(f"{name}_is_unreadable", "46.1", token(marking(value)), code="unreadable_link")
    eight: Link = {f"m{number}": SET for number in range(8)}
    rows.allow("eight", "46.1", token({"marks": eight, "n": nonce()}))
    for name, value in {"nine": {**eight, "m8": SET}, "none": {}, "in_a_list": [eight], "as_text": "m0", "as_true": True}.items():
        rows.deny(f"{name}_are_unreadable", "46.1", token({"marks": value, "n": nonce()}), code="unreadable_link")
    rows.allow("name_of_128", "46.1", token({"marks": {"x" * 128: SET}, "n": nonce()}))
    for name, value in {"with_a_space": "a b", "empty": "", "not_ascii": "é", "of_129": "x" * 129}.items():
        rows.deny(f"name_{name}_is_unreadable", "46.1", token({"marks": {value: SET}, "n": nonce()}), code="unreadable_link")

    # What stands beside them.
    whole = marking(MAIL)
    rows.allow("beside_n", "17.6", token(whole))
    rows.deny("without_n", "17.6", token({key: value for key, value in whole.items() if key != "n"}), code="unreadable_link")
    rows.allow("alone_beside_n", "17.6", token({"marks": whole["marks"], "n": nonce()}))
    rows.deny("alone_without_n", "17.6", token({"marks": whole["marks"]}), code="unreadable_link")
    table.beside("beside_n")
    for name, value in {"cut": "A" * 10, "number": 1, "plus": "A" * 10 + "+"}.items():
        rows.deny(f"n_{name}_is_unreadable", "17.6", token({**whole, "n": value}), code="unreadable_link")
    rows.deny("forbid_without_marks", "46.4", token({"forbid": RULE, "n": nonce()}), code="unreadable_link")
    rows.deny("forbid_without_marks_or_n", "46.4", token({"forbid": RULE}), code="unreadable_link")
    rows.allow("of_the_link_itself", "46.4", token(whole, {"marks": {"a": SET, "b": SET}, "forbid": [{"in": ["a"], "after": ["b"]}], "n": nonce()}))
    rows.deny(
        "of_the_link_before", "46.4", token(whole, {"marks": {"a": SET, "b": SET}, "forbid": [{"in": ["m"], "after": ["b"]}], "n": nonce()}),
        code="unreadable_link",
    )  # fmt: skip
    handed = {**hand_over("sales-agent"), "marks": {"a": SET}}
    rows.allow("in_a_hand_over", "17.6", token(whole, handed))
    for key in ("from", "to"):
        half = {name: value for name, value in handed.items() if name != key}
        rows.deny(f"in_a_hand_over_without_{key}", "17.6", token(whole, half), code="unreadable_link")

    # Rules.
    names = [f"m{number}" for number in range(9)]
    key = b64(signing_public("orchestrator"))

    def ruled(*rules: Json, of: Link = eight) -> Parts:
        return token({"marks": of, "forbid": list(rules), "n": nonce()})

    plain: Link = {"in": ["m0"], "after": ["m1"]}
    for name, rule in {
        "of_eight_and_seven": {"in": names[:8], "after": names[:7]}, "that_name_one_twice": {"in": ["m0", "m0"], "after": ["m1", "m1"]},
        "of_one_with_itself": {"in": ["m0"], "after": ["m0"]}, "with_a_key": {**plain, "unless": key},
    }.items():  # fmt: skip
        rows.allow(f"rules_{name}", "46.4", ruled(rule))
    rows.allow("rules_sixteen", "46.4", ruled(*({"in": ["m0"], "after": [names[at % 8]]} for at in range(16))))
    rows.deny("rules_seventeen", "46.4", ruled(*({"in": ["m0"], "after": [names[at % 8]]} for at in range(17))), code="unreadable_link")
    rows.allow("rules_one", "46.4", ruled(plain))
    table.beside("rules_one")
    for name, rule in {
        "empty": {}, "list": ["m0", "m1"], "text": "m0", "in_alone": {"in": ["m0"]}, "after_alone": {"after": ["m1"]}, "another_key": {**plain, "if": ["m2"]},
        "in_nothing": {"in": [], "after": ["m1"]}, "after_nothing": {"in": ["m0"], "after": []}, "in_text": {"in": "m0", "after": ["m1"]},
        "after_text": {"in": ["m0"], "after": "m1"}, "in_number": {"in": [0], "after": ["m1"]}, "in_object": {"in": {"m0": True}, "after": ["m1"]},
        "after_eight": {"in": ["m0"], "after": names[:8]}, "in_nine": {"in": ["m0"] * 9, "after": ["m1"]},
        "in_no_mark": {"in": ["m8"], "after": ["m1"]}, "after_no_mark": {"in": ["m0"], "after": ["m8"]}, "after_one_of_two_no_mark": {"in": ["m0"], "after": ["m1", "m8"]},
        "unless_true": {**plain, "unless": True}, "unless_a_name": {**plain, "unless": "ann"}, "unless_zero": {**plain, "unless": "A" * 43},
        "unless_cut": {**plain, "unless": key[:-1]}, "unless_null_list": {**plain, "unless": []}, "unless_padded": {**plain, "unless": f"{key}="},
    }.items():  # fmt: skip
        rows.deny(f"rule_{name}_is_unreadable", "46.4", ruled(rule), code="unreadable_link")
    for name, value in {"none": [], "object": plain, "text": "m0", "true": True, "nested": [[plain]]}.items():
        rows.deny(f"rules_{name}_are_unreadable", "46.4", token({"marks": eight, "forbid": value, "n": nonce()}), code="unreadable_link")
    rows.deny("rule_beside_another_that_names_no_mark", "46.4", ruled(plain, {"in": ["m8"], "after": ["m0"]}), code="unreadable_link")


def _inside(rows: Rows) -> None:
    """Which accesses are in a mark: those are denied, all others go on. Each is beside one that differs in one place."""

    def pair(name: str, definition: Link, outside: Json, inside: dict[str, Json], rule: str = "46.2") -> None:
        rows.allow(f"{name}_out", rule, token(marking(definition)), outside)
        for how, access in inside.items():
            rows.deny(f"{name}_{how}", rule, token(marking(definition)), access)

    def defined(name: str, access: Json, outside: Link, **inside: Link) -> None:
        rows.allow(f"{name}_out", "46.2", token(marking(outside)), access)
        for how, definition in inside.items():
            rows.deny(f"{name}_{how}", "46.2", token(marking(definition)), access)

    market = {"table": "market.eu", "operation": "select"}
    defined("table", market, {"tables": ["market"]}, named={"tables": ["market.eu"]}, by_a_pattern={"tables": ["market.*"]},
            by_any={"tables": ["*"]}, among_others={"tables": ["hr", "market.eu"]})  # fmt: skip
    defined("operation", market, {"tables": ["market.*"], "operations": ["insert"]}, named={"tables": ["market.*"], "operations": ["select"]},
            any={"tables": ["market.*"], "operations": ["*"]}, among_others={"tables": ["market.*"], "operations": ["insert", "select"]})  # fmt: skip
    defined("tool", SEND, {"tools": ["mail"]}, named={"tools": ["mail.send"]}, by_a_pattern={"tools": ["mail.*"]}, by_any={"tools": ["*"]})
    pair("of_tables", {"tables": ["market.*"]}, {**market, "table": "market"}, {"far_below": {**market, "table": "market.x.y"}})
    pair("tables_beside_a_tool", {"tables": ["market.*"]}, {**SEND, "table": "hr", "operation": "select"}, {"in": {**SEND, **market}})
    pair("tools_beside_a_table", {"tools": ["mail.*"]}, {**call("read"), **market}, {"in": {**call("mail.send"), **market}})
    both: Link = {"tables": ["hr"], "tools": ["mail.*"]}
    pair("either", both, market, {"by_its_tool": {"tool": "mail.send", **market}, "by_its_table": {**market, "table": "hr"}})
    rows.allow("tables_of_a_tool", "46.2", token(marking({"tables": ["*"]})), SEND)
    rows.allow("tools_of_a_table", "46.2", token(marking({"tools": ["*"]})), market)
    rows.allow("neither_domain", "46.2", token(marking({"tables": ["*"], "tools": ["*"]})), {"attributes": {"x": 1}})
    rows.allow("without_an_access", "38.5", token(marking({"tables": ["*"], "tools": ["*"]})), None)
    of_tool: Link = {"tools": ["mail.*"], "tables": ["market.*"], "operations": ["insert"]}
    pair("operations_are_of_tables_alone", of_tool, market, {"so_a_tool": {"tool": "mail.send", **market}})

    # What is taken out again.
    ours: Link = {**MAIL, "but": {"tools": {"mail.send": {"to": {"in": ["ann@example.com"]}}}}}
    pair("but", ours, SEND, {
        "to_another": call("mail.send", to="eve@example.com"), "to_nobody": call("mail.send"), "to_a_list": call("mail.send", to=["ann@example.com"]),
        "in_capitals": call("mail.send", to="Ann@example.com"), "with_a_space": call("mail.send", to="ann@example.com "), "to_null": call("mail.send", to=None),
        "with_one_more": call("mail.send", subject="x", to="ann@example.com"), "of_another_tool": call("mail.send.all", to="ann@example.com"),
        "and_a_table": {**SEND, **market},
    })  # fmt: skip
    optional: Link = {**MAIL, "but": {"tools": {"*": {"to": {"in": ["ann@example.com"], "optional": True}}}}}
    pair("but_optional", optional, call("mail.send"), {"to_another": call("mail.send", to="eve@example.com"), "with_another": call("mail.send", cc="x")})
    free: Link = {**MAIL, "but": {"tools": {"mail.read": {}}}}
    pair("but_free", free, call("mail.read", folder="x"), {"another_tool": call("mail.send", folder="x")})
    site: Link = {"tools": ["http.get"], "but": {"tools": {"http.get": {"url": {"url": ["https://*.example.com/docs"]}}}}}

    def get(url: Json) -> dict[str, Json]:
        return call("http.get", url=url)

    pair("but_urls", site, get("https://a.example.com/docs/x?q=1"), {
        "of_another_host": get("https://a.example.org/docs/x?q=1"), "with_its_port": get("https://a.example.com:443/docs/x?q=1"),
        "in_capitals": get("https://A.example.com/docs/x?q=1"), "by_http": get("http://a.example.com/docs/x?q=1"), "with_a_user": get("https://u@a.example.com/docs/x?q=1"),
        "with_dots": get("https://a.example.com/docs/../x?q=1"), "with_dots_encoded": get("https://a.example.com/docs/%2e%2e/x?q=1"),
        "with_a_fragment": get("https://a.example.com/docs/x?q=1#a"), "of_the_domain_itself": get("https://example.com/docs/x?q=1"),
        "with_a_final_dot": get("https://a.example.com./docs/x?q=1"), "in_a_list": get(["https://a.example.com/docs/x?q=1"]),
    })  # fmt: skip
    crm: Link = {"tables": ["crm.*"], "but": {"tables": ["crm.public"]}}
    public = {"table": "crm.public", "operation": "select"}
    pair("but_tables", crm, public, {"another": {**public, "table": "crm.deals"}, "below": {**public, "table": "crm.public.x"}, "and_a_tool": {**public, "tool": "mail.send"}})
    read: Link = {"tables": ["crm.*"], "but": {"operations": ["select"]}}
    pair("but_operations", read, public, {"another": {**public, "operation": "insert"}})
    allow: Link = {"tables": ["crm.*"], "but": {"allow": {"crm.*": ["select"], "crm.deals": []}}}
    pair("but_allow", allow, public, {"another_operation": {**public, "operation": "insert"}, "another_entry": {**public, "table": "crm.deals"}})
    two: Link = {"tables": ["crm.*"], "tools": ["mail.*"], "but": {"tables": ["crm.public"], "tools": {"mail.read": {}}}}
    pair("but_of_both_domains", two, {**public, "tool": "mail.read"}, {"another_tool": {**public, "tool": "mail.send"}, "another_table": {**public, "table": "crm.x", "tool": "mail.read"}})
    all_of_it: Link = {"tables": ["crm.*"], "but": {"operations": ["*"]}}
    defined("but_nothing", public, all_of_it, tables={"tables": ["crm.*"], "but": {"tables": []}}, tools={"tables": ["crm.*"], "but": {"tools": {"*": {}}}})


def _whose(rows: Rows) -> None:
    """Buckets: a ledger has one mark set, and it is that of the token or another one."""
    link = marking({"tables": ["*"]})
    sets = (mark_of_task("m"),)
    plain = token(link)

    def other(name: str, parts: Parts, bucket: str, sets: tuple[str, ...] = sets, rule: str = "46.3", access: Json = SELECT, **known: Any) -> None:
        rows.allow(name, rule, parts, access, found(bucket), sets, **known)

    def its(name: str, parts: Parts, bucket: str, rule: str = "46.3", access: Json = SELECT, **known: Any) -> None:
        rows.deny(name, rule, parts, access, found(bucket), **known)

    other("of_no_task", plain, b64(bytes(32)))
    its("of_the_task", plain, mark_of_task("s"))
    for name, bucket in {
        "of_another_name": mark_of_task("t"), "of_another_subject": mark_of_task("s", subject="user:joe"),
        "of_a_subject_that_goes_on": mark_of_task("s", subject="user:janet", task="ask-123"), "of_another_task": mark_of_task("s", task="task-1234"),
        "of_a_subject_in_capitals": mark_of_task("s", subject="User:jane"), "of_link_0": mark_of_link(plain, 0, "s"), "of_an_entry": mark_of_entry("e1", "s"),
        "of_a_longer_name": mark_of_task("s\0"), "of_no_name": mark_of_task(""),
        "without_a_label": b64(sha256(sized("user:jane") + b"task-123\0s")), "without_a_length": b64(sha256(label("mark of a task") + b"user:janetask-123\0s")),
        "without_a_zero": b64(sha256(label("mark of a task") + sized("user:jane") + b"task-123s")),
        "with_the_token": b64(sha256(label("mark of a task") + JTI.encode() + sized("user:jane") + b"task-123\0s")),
    }.items():  # fmt: skip
        other(f"which_is_{name}", plain, bucket)
    keys = {"ring": keyring({"k1": KEY, "k2": OTHER_KEY})}
    other("of_no_task_under_another_key", token(link, key=OTHER_KEY, kid="k2"), b64(bytes(32)), **keys)
    its("of_the_task_under_another_key", token(link, key=OTHER_KEY, kid="k2"), mark_of_task("s"), **keys)
    for name, root in {
        "another_token_id": {"jti": "A" * 22}, "another_agent": {"agent": "clerk"}, "a_later_token": {"iat": NOW + 9}, "a_task_below": {"task": "task-123/a"},
        "a_task_far_below": {"task": "task-123/a/b/c"}, "words_of_the_issuer": {"ext": {"acme:x": 1}},
    }.items():  # fmt: skip
        other(f"of_no_task_by_{name}", token(link, **root), b64(bytes(32)))
        its(f"of_the_task_by_{name}", token(link, **root), mark_of_task("s"))
    here: dict[str, Any] = {"aud": "sales-db", "key": audience_key(KEY, "sales-db")}
    other("of_no_task_at_one_server", token(link, **here), b64(bytes(32)), audiences=HERE)
    its("of_the_task_at_one_server", token(link, **here), mark_of_task("s"), audiences=HERE)
    below = token(link, task="task-123/a")
    other("which_is_of_the_whole_path", below, b64(sha256(label("mark of a task") + sized("user:jane") + b"task-123/a\0s")))
    for name, root in {"subject": {"sub": "user:joe"}, "task": {"task": "other"}}.items():
        mine = mark_of_task("m", **({"subject": "user:joe"} if "sub" in root else {"task": "other"}))
        other(f"which_is_of_another_{name}_than_the_token", token(link, **root), mark_of_task("s"), (mine,))
    narrowed = token(link, {"task": "task-123/a"}, hand_over("clerk"))
    other("of_no_task_by_a_child", narrowed, b64(bytes(32)))
    its("of_the_task_by_a_child", narrowed, mark_of_task("s"))
    again = token({**link, "marks": {"m": {"tables": ["*"]}, "s": {"tables": ["x"]}}})
    other("of_no_task_defined_otherwise", again, b64(bytes(32)))
    its("of_the_task_defined_otherwise", again, mark_of_task("s"))

    # Of a later link.
    first: Link = {"nbf": NOW - 9}
    parts = token(first, link)
    mine = (mark_of_link(parts, 1, "m"),)
    other("of_no_link", parts, b64(bytes(32)), mine)
    its("of_a_later_link", parts, mark_of_link(parts, 1, "s"))
    for name, bucket in {
        "of_the_task_and_asked_of_a_link": mark_of_task("s"), "of_the_link_before": mark_of_link(parts, 0, "s"), "of_a_link_by_another_name": mark_of_link(parts, 1, "t"),
        "of_a_link_with_another_n": mark_of_link(token(first, marking({"tables": ["*"]}, 1)), 1, "s"),
        "of_a_link_of_another_token": mark_of_link(token(first, link, jti="A" * 22), 1, "s"),
        "of_a_link_by_its_text": b64(sha256(label("mark of a link") + _id_text(parts) + b"s")),
    }.items():  # fmt: skip
        other(f"which_is_{name}", parts, bucket, mine)
    child = extended(parts, hand_over("clerk"), {"exp": NOW + 600})
    other("of_no_link_by_a_child", child, b64(bytes(32)), mine)
    its("of_a_link_by_a_child", child, mark_of_link(parts, 1, "s"))
    asked = asking(token(), "one")
    behind, answer = extended(asked, link), discharge("one", {"exp": NOW + 600})
    other("of_no_link_behind_a_third_party", behind, b64(bytes(32)), (mark_of_link(behind, 1, "m"),), discharges=(answer,))
    other("which_is_of_the_task_behind_a_third_party", behind, mark_of_task("s"), (mark_of_link(behind, 1, "m"),), discharges=(answer,))
    twice = token(link, link)
    both = (*sets, mark_of_link(twice, 1, "m"))
    other("of_neither_of_two", twice, b64(bytes(32)), both)
    its("of_the_first_of_two", twice, mark_of_task("s"))
    its("of_the_second_of_two", twice, mark_of_link(twice, 1, "s"))

    # What is set: all of link 0, of others what a rule of the same link names.
    rows.allow("set_of_link_0_without_a_rule", "46.6", token({"marks": {"m": {"tables": ["*"]}}, "n": nonce()}), SELECT, found(), (mark_of_task("m"),))
    rows.allow("set_of_link_0_that_no_rule_names", "46.6", token({**link, "marks": {**link["marks"], "x": {"tables": ["sales"]}}}), SELECT,
               found(), (mark_of_task("m"), mark_of_task("x")))  # fmt: skip
    later = token(first, {**link, "marks": {**link["marks"], "x": {"tables": ["sales"]}}})
    rows.allow("set_of_a_later_link_that_a_rule_names", "46.6", later, SELECT, found(), (mark_of_link(later, 1, "m"),))
    rows.allow("set_of_a_later_link_without_a_rule", "46.6", token(first, {"marks": {"m": {"tables": ["*"]}}, "n": nonce()}), SELECT, found())
    rows.allow("set_again", "46.6", plain, SELECT, found(mark_of_task("m")), sets)

    # Of an entry of the overlay.
    said = {"overlay": _overlaid({**entry("e1", token=JTI), "link": link})["overlay"]}
    bare = token({"nbf": NOW - 9})
    rows.allow("of_no_entry", "46.3", bare, SELECT, {**said, **found()}, (mark_of_entry("e1", "m"),))
    rows.deny("of_the_entry", "46.3", bare, SELECT, {**said, **found(mark_of_entry("e1", "s"))})
    for name, bucket in {
        "another_entry": mark_of_entry("e2", "s"), "an_entry_and_another_task": mark_of_entry("e1", "s", task="other"),
        "an_entry_and_another_subject": mark_of_entry("e1", "s", subject="user:joe"), "the_task_and_asked_of_an_entry": mark_of_task("s"),
    }.items():  # fmt: skip
        rows.allow(f"which_is_of_{name}", "46.3", bare, SELECT, {**said, **found(bucket)}, (mark_of_entry("e1", "m"),))
    lower = token({"nbf": NOW - 9}, jti=JTI, task="task-123/a")
    rows.allow("of_no_entry_by_a_task_below", "46.3", lower, SELECT, {**said, **found()}, (mark_of_entry("e1", "m"),))
    rows.deny("of_the_entry_by_a_task_below", "46.3", lower, SELECT, {**said, **found(mark_of_entry("e1", "s"))})
    long = {"overlay": _overlaid({**entry("é" * 9, token=JTI), "link": link})["overlay"]}
    rows.allow("of_no_entry_with_a_long_id", "46.3", bare, SELECT, {**long, **found()}, (mark_of_entry("é" * 9, "m"),))
    rows.deny("of_the_entry_with_a_long_id", "46.3", bare, SELECT, {**long, **found(mark_of_entry("é" * 9, "s"))})


def _id_text(parts: Parts) -> bytes:
    """The id of link 1, as text in the place of its bytes."""
    return link_id(parts.tags[2]).encode()


def _overlaid(*entries: Json) -> dict[str, Json]:
    data = snapshot(*entries).decode("latin-1")
    return {"overlay": {"snapshot": data, "operators": [OPERATOR], "max_staleness": 60, "allow_stale": False}}


def _elsewhere(table: Table, rows: Rows) -> None:
    """In discharges, in entries, and how much of them one token may have."""
    asked = asking(token({"nbf": NOW}), "one")
    rows.allow("asked_of_a_third_party", "33.6", asked, SELECT, found(), discharges=(discharge("one", {"exp": NOW + 60}),))
    table.beside("asked_of_a_third_party")
    for name, more in {
        "marks": {"marks": {"m": SET}, "n": nonce()}, "marks_without_n": {"marks": {"m": SET}}, "forbid": {"forbid": RULE},
        "marks_and_forbid": marking(MAIL),
    }.items():  # fmt: skip
        rows.deny(f"{name}_in_a_discharge", "33.6", bundle(asked, discharge("one", {"exp": NOW + 60, **more})), SELECT, found(), "unreadable_link")

    # A snapshot that can be read, or not.
    good = marking(MAIL)
    one = entry("e1", token=JTI)

    def snap(name: str, link: Json, expect: Json) -> None:
        given = {"snapshot": snapshot({**one, "link": link}).decode("latin-1"), "operators": [OPERATOR]}
        table.add(f"{name}_in_an_entry", "36.6", "snapshot", given, **expect)

    read = {"entries": ["e1"], "expires_at": NOW + 3600, "issued_at": NOW, "seq": 1}
    snap("marks_alone", {"marks": {"m": SET}, "n": nonce()}, read)
    snap("marks_and_forbid", good, read)
    for name, link in {
        "marks_without_n": {key: value for key, value in good.items() if key != "n"}, "forbid_without_marks": {"forbid": RULE, "n": nonce()},
        "marks_that_cannot_be_read": marking({}), "rules_of_no_mark": {**good, "forbid": [{"in": ["x"], "after": ["s"]}]},
        "marks_beside_uses": {**good, "uses": 1}, "marks_beside_a_hand_over": {**good, "from": "a", "to": "b"}, "marks_beside_a_task": {**good, "task": "task-123"},
    }.items():  # fmt: skip
        snap(name, link, {"code": "overlay"})

    # How many: a link that has marks counts, and each mark is a bucket.
    def made(links: int, each: int) -> Parts:
        return token(*({"marks": {f"m{at}": SET for at in range(each)}, "n": nonce(number)} for number in range(links)))

    rows.allow("eight_links_with_one", "38.13", made(8, 1), SELECT, found())
    rows.deny("nine_links_with_one", "38.13", made(9, 1), SELECT, found(), "unreadable_link")
    rows.deny("eight_links_with_one_and_one_that_counts", "38.13", extended(made(8, 1), {"uses": 1, "n": nonce()}), SELECT, found(), "unreadable_link")
    rows.allow("sixteen_marks", "38.13", made(2, 8), SELECT, found())
    rows.deny("sixteen_marks_and_one", "38.13", extended(made(2, 8), {"marks": {"m": SET}, "n": nonce()}), SELECT, found(), "unreadable_link")
    rows.deny("sixteen_marks_and_uses", "38.13", extended(made(2, 8), {"uses": 1, "n": nonce()}), SELECT, found(), "unreadable_link")

    # One place: asked of what denies, and not of marks alone.
    alone, here = found(shared=False), {"audiences": HERE}
    set_m = {"marks": {"m": {"tables": ["*"]}}, "n": nonce()}
    rows.allow("marks_alone_for_two_servers", "46.8", token({**set_m, "aud": ["hr-db", "sales-db"]}), SELECT, alone, (mark_of_task("m"),), **here)
    rows.deny("marks_alone_and_uses_for_two_servers", "38.6", token({**set_m, "uses": 1, "aud": ["hr-db", "sales-db"]}), SELECT, alone, "unaddressed", **here)
    rows.allow("forbid_for_one_server", "38.6", token(marking(MAIL, aud=["sales-db"])), SELECT, alone, **here)
    for name, more in {"two_servers": (), "one_server_below": ({"aud": ["sales-db"]},)}.items():
        for how, access in {"": SELECT, "_without_an_access": None}.items():
            if more or access is None:
                rows.allow(f"control_of_forbid_for_{name}{how}", "38.6", token(marking(MAIL, aud=["sales-db"]), *more), access, alone, **here)
            parts = token(marking(MAIL, aud=["hr-db", "sales-db"]), *more)
            rows.deny(f"forbid_for_{name}{how}", "38.6", parts, access, alone, "unaddressed", **here)
    rows.allow("forbid_for_two_servers_that_share", "38.6", token(marking(MAIL, aud=["hr-db", "sales-db"])), SELECT, found(), **here)
    rows.allow("marks_alone_for_two_servers_and_forbid_for_one", "38.6", token({**set_m, "aud": ["hr-db", "sales-db"]}, marking(MAIL, aud=["sales-db"])),
               SELECT, alone, (mark_of_task("m"),), **here)  # fmt: skip


def _written(table: Table) -> None:
    """Capabilities, and what writers write."""

    def both(name: str, one: Link, two: Link, meet: Link, covers: str = "") -> None:
        said = {"meet": meet, "one_covers_two": covers in ("one", "both"), "two_covers_one": covers in ("two", "both")}
        table.add(f"of_two_links_{name}", "46.10", "capability", {"one": one, "two": two}, **said)

    a, b = {"tables": ["a"]}, {"tables": ["b"]}
    both("side_by_side", {"marks": {"x": a}}, {"marks": {"y": b}}, {"marks": {"x": a, "y": b}})
    both("that_are_one", {"marks": {"x": a}}, {"marks": {"x": a}}, {"marks": {"x": a}}, "both")
    both("of_which_one_has_none", {"marks": {"x": a}}, {"exp": NOW}, {"exp": NOW, "marks": {"x": a}})
    both("of_which_one_says_nothing_else", {"marks": {"x": a}}, {"marks": {"x": a, "y": b}}, {"marks": {"x": a, "y": b}}, "one")
    both("with_one_name", {"marks": {"x": a}}, {"marks": {"x": b}}, {"marks": {"x": a, "x/2": b}})
    both("with_one_name_turned_round", {"marks": {"x": b}}, {"marks": {"x": a}}, {"marks": {"x": a, "x/2": b}})
    rule, more = {"in": ["x"], "after": ["y"]}, {"in": ["y"], "after": ["x"]}
    xy = {"x": a, "y": b}
    both("with_rules", {"marks": xy, "forbid": [rule]}, {"marks": xy, "forbid": [more]},
         {"marks": xy, "forbid": [more, rule]})  # fmt: skip
    both("with_a_rule_twice", {"marks": xy, "forbid": [rule, rule]}, {"marks": xy, "forbid": [rule]}, {"marks": xy, "forbid": [rule]}, "both")
    both("with_one_rule", {"marks": xy, "forbid": [rule]}, {"marks": xy}, {"marks": xy, "forbid": [rule]}, "two")
    both("beside_tables", {"marks": {"x": a}, "tables": ["a", "b"]}, {"tables": ["b"]}, {"marks": {"x": a}, "operations": ["*"], "tables": ["b"]})

    given = {"now": NOW, "to": None, "nonce": "00" * 7 + "07"}
    held = token({**SALES, "exp": NOW + 600})

    def writes(name: str, link: Link, parts: Parts = held, to: str | None = None, rule: str = "23.2", **asked: Json) -> None:
        table.add(f"writes_{name}", rule, "widening", {**given, "token": parts.text, "to": to, "asked": asked}, link=link)

    def fails(name: str, parts: Parts = held, rule: str = "46.4", code: str = "usage", **asked: Json) -> None:
        table.add(f"writes_{name}", rule, "widening", {**given, "token": parts.text, "asked": asked}, code)

    n = nonce(7)
    writes("marks", {"marks": xy, "n": n}, rule="17.6", marks=xy)
    writes("marks_and_rules", {"marks": xy, "forbid": [rule], "n": n}, rule="17.6", marks=xy, forbid=[rule])
    writes("mark", {"marks": {"x": a}, "n": n}, marks={"x": a})
    eight = {f"x{at}": a for at in range(8)}
    writes("eight_marks", {"marks": eight, "n": n}, rule="46.1", marks=eight)
    before = token({**SALES, "marks": xy, "n": nonce()})
    writes("another_mark_under_marks", {"marks": {"z": a}, "n": n}, before, marks={"z": a})
    seven = token(*({"marks": {"m": SET}, "n": nonce(at)} for at in range(7)))
    writes("an_eighth_link_with_marks", {"marks": xy, "n": n}, seven, rule="38.13", marks=xy)
    fifteen = token(*({"marks": {f"m{each}": SET for each in range(8 - at)}, "n": nonce(at)} for at in range(2)))
    writes("a_sixteenth_mark", {"marks": {"x": a}, "n": n}, fifteen, rule="38.13", marks={"x": a})
    writes("marks_under_marks", {"marks": {"x": b}, "n": n}, token({**SALES, "marks": {"x": a}, "n": nonce()}), marks={"x": b})
    writes("marks_in_a_hand_over", {**hand_over("clerk", number=7), "marks": xy}, to="clerk", rule="17.6", marks=xy)
    writes("marks_cut", {"marks": {"x": {"tables": ["hr"]}}, "n": n}, rule="23.15", marks={"x": {"tables": ["hr"]}}, clamp=True)
    writes("marks_of_tables_that_are_not_held", {"marks": {"x": {"tables": ["hr"]}}, "n": n}, marks={"x": {"tables": ["hr"]}})
    writes("marks_in_order", {"marks": {"x": {"tables": ["a", "b"], "tools": ["c"]}}, "n": n}, rule="23.18",
           marks={"x": {"tables": ["b", "a", "b"], "tools": ["c", "c"]}})  # fmt: skip
    writes("rules_in_order", {"marks": xy, "forbid": [{"after": ["x"], "in": ["x", "y"]}, {"after": ["y"], "in": ["x"]}], "n": n}, rule="23.18", marks=xy,
           forbid=[{"in": ["x"], "after": ["y"]}, {"in": ["y", "x", "y"], "after": ["x"]}, {"in": ["x"], "after": ["y", "y"]}])  # fmt: skip
    table.beside("writes_marks_and_rules")
    fails("rules_without_marks", forbid=[rule])
    fails("rules_of_no_mark", marks={"x": a}, forbid=[rule])
    fails("rules_of_a_link_before", before, marks={"z": a}, forbid=[rule])
    fails("no_marks", rule="46.1", marks={})
    fails("no_rules", marks=xy, forbid=[])
    fails("marks_of_nothing", rule="46.1", marks={"x": {}})
    fails("marks_with_a_but_that_is_none", rule="46.1", marks={"x": {**a, "but": {"columns": {"a": ["b"]}}}})
    fails("nine_marks", rule="46.1", marks={**eight, "x8": a})
    fails("a_ninth_link_with_marks", extended(seven, {"marks": {"m": SET}, "n": nonce(7)}), "38.13", "limit", marks=xy)
    sixteen = token(*({"marks": {f"m{each}": SET for each in range(8)}, "n": nonce(at)} for at in range(2)))
    fails("a_seventeenth_mark", sixteen, "38.13", "limit", marks={"x": a})

    minted = {
        "keyring": keyring({"k1": KEY}), "current": "k1", "subject": "user:jane", "agent": "orchestrator", "task": "task-123", "now": NOW,
        "token_id": "01" * 16, "nonce": (7).to_bytes(8, "big").hex(),
    }  # fmt: skip

    def mints(name: str, asked: dict[str, Json], link: Link | None, rule: str = "17.6") -> None:
        whole = {"operations": ["select"], "tables": ["sales"], "expires_at": NOW + 600, **asked}
        if link is None:
            table.add(f"mints_{name}", rule, "mint", {**minted, "asked": whole}, "usage")
        else:
            made = token({**SALES, "exp": NOW + 600, **link}, jti=b64(b"\1" * 16))
            table.add(f"mints_{name}", rule, "mint", {**minted, "asked": whole}, token=made.text)

    mints("rules", {"marks": xy, "forbid": [rule]}, {"marks": xy, "forbid": [rule], "n": n})
    mints("rules_without_marks", {"forbid": [rule]}, None, "46.4")
    mints("rules_of_no_mark", {"marks": {"x": a}, "forbid": [rule]}, None, "46.4")
    mints("marks", {"marks": xy}, {"marks": xy, "n": n})
    mints("marks_of_nothing", {"marks": {**xy, "z": {"operations": ["select"]}}}, None, "46.1")


# --- what they do ----------------------------------------------------------------------------------------------------


def forbid() -> Table:
    table = Table("forbid", "What must not follow on what: rules of links and of entries, at ledgers that know what is set, and in which order.")
    rows = Rows(table)
    _of_two(table, rows)
    _orders(rows)
    _known(table, rows)
    _sequences(table)
    return table


def _of_two(table: Table, rows: Rows) -> None:
    """The rule of two: each access, with each set of marks."""
    parts = token(TWO)
    names = sorted(OF_TWO)
    for name in names:
        sets = (mark_of_task(name),)
        for count in range(3):
            for chosen in ([()], [(each,) for each in names], [("outside", "private"), ("outside", "untrusted")])[count]:
                behind = f"_after_{'_and_'.join(chosen)}" if chosen else ""
                rows.allow(f"{name}{behind}", "46.6", parts, OF_TWO[name], found(*map(mark_of_task, chosen)), sets)
        both = found(mark_of_task("private"), mark_of_task("untrusted"))
        if name == "outside":
            rows.deny("outside_after_private_and_untrusted", "46.6", parts, OF_TWO[name], both)
        else:
            rows.allow(f"{name}_after_private_and_untrusted", "46.6", parts, OF_TWO[name], both, sets)
    rows.allow("another_after_private_and_untrusted", "46.6", parts, SELECT, both)
    rows.allow("none_after_private_and_untrusted", "46.6", parts, None, both)

    # A step that is in several marks at once is judged as if all were set.
    send = {**SEND, "table": "crm.deals", "operation": "select"}
    rows.allow("private_and_outside", "46.6", parts, send, found(), (mark_of_task("outside"), mark_of_task("private")))
    rows.deny("private_and_outside_after_untrusted", "46.6", parts, send, found(mark_of_task("untrusted")))
    three = {**TWO, "marks": {**TWO["marks"], "untrusted": {"tools": ["mail.*"]}}}
    rows.allow("untrusted_and_outside", "46.6", token(three), SEND, found(), (mark_of_task("outside"), mark_of_task("untrusted")))
    rows.deny("all_three_at_once", "46.6", token(three), send, found())
    itself: Link = {"marks": {"m": MAIL}, "forbid": [{"in": ["m"], "after": ["m"]}], "n": nonce()}
    rows.allow("of_a_mark_that_forbids_itself_another", "46.6", token(itself), {**SEND, "tool": "read"}, found())
    rows.deny("of_a_mark_that_forbids_itself", "46.6", token(itself), SEND, found())
    key = b64(signing_public("orchestrator"))
    rows.allow("outside_unless", "46.4", token({**TWO, "forbid": [{**TWO["forbid"][0], "unless": key}]}), SEND, found(), (mark_of_task("outside"),))
    rows.deny("outside_unless_after_both", "46.4", token({**TWO, "forbid": [{**TWO["forbid"][0], "unless": key}]}), SEND, both)


def _orders(rows: Rows) -> None:
    """Which is told where several things are wrong, and at which link."""
    m = mark_of_task("m")
    here = {"aud": ["sales-db"]}
    mail = marking(MAIL, **here)

    def spent(parts: Parts, at: int, unit: str, amount: int) -> Json:
        return {"bucket": link_id(parts.tags[at + 1]), "unit": unit, "amount": amount}

    def debit(parts: Parts, at: int, unit: str, limit: int, amount: int) -> Json:
        return {**spent(parts, at, unit, amount), "limit": limit}

    known: dict[str, Any] = {"audiences": HERE}
    counted = token({**mail, "uses": 3, "budget": {"cents": 5}})
    pays = {**SEND, "cost": {"cents": 5}}
    took = (debit(counted, 0, "cents", 5, 5), debit(counted, 0, "uses", 3, 1))
    rows.allow("beside_an_allowance", "46.6", counted, pays, found(), (m,), took, **known)
    rows.deny("beside_an_allowance_after", "46.6", counted, pays, CLOSED, **known)
    gone = (spent(counted, 0, "uses", 3),)
    rows.deny("used_up", "46.6", counted, pays, found(spent=gone), "budget_exhausted", **known)
    rows.deny("used_up_and_after", "46.6", counted, pays, found(mark_of_task("s"), spent=gone), **known)
    much = {**SEND, "cost": {"cents": 6}}
    rows.deny("more_than_a_whole_limit", "46.6", counted, much, found(), "budget_exhausted", **known)
    rows.deny("more_than_a_whole_limit_and_after", "46.6", counted, much, CLOSED, "budget_exhausted", **known)
    rows.deny("cost_unstated_and_after", "38.2", counted, SEND, CLOSED, "cost_unstated", **known)
    rows.deny("behind_another_caller", "24.16", counted, pays, CLOSED, "caller", caller={"agent": "clerk"}, **known)
    rows.deny("behind_another_table", "24.16", extended(counted, {"tables": ["hr"], "tools": {}}), pays, CLOSED, "tool", **known)
    rows.allow("used_up_by_what_is_not_closed", "46.6", counted, {**SELECT, "cost": {"cents": 0}}, CLOSED, (),
               (debit(counted, 0, "cents", 5, 0), debit(counted, 0, "uses", 3, 1)), **known)  # fmt: skip

    # The first rule by the order of links, then by that of the list; entries behind all.
    second = extended(token(mail), {**marking(MAIL, 1), "from": "orchestrator", "to": "clerk"})
    sets = (m, mark_of_link(second, 1, "m"))
    rows.allow("of_two_links", "46.6", second, SEND, found(), sets, **known)
    rows.deny("of_the_first_of_two_links", "46.6", second, SEND, found(mark_of_task("s")), **known)
    rows.deny("of_the_second_of_two_links", "46.6", second, SEND, found(mark_of_link(second, 1, "s")), **known)
    rows.deny("of_both_links", "46.6", second, SEND, found(mark_of_task("s"), mark_of_link(second, 1, "s")), **known)
    itself = extended(token(mail), {"marks": {"m": MAIL, "s": SET}, "forbid": [{"in": ["m"], "after": ["m"]}], "n": nonce(1)})
    by_another = extended(token(mail), marking(MAIL, 1))
    rows.allow("of_two_links_of_one_holder", "46.6", by_another, SEND, found(), (m, mark_of_link(by_another, 1, "m")), **known)
    rows.deny("of_the_second_of_two_links_by_itself", "46.6", itself, SEND, found(), **known)
    rows.deny("of_the_second_by_itself_and_the_first", "46.6", itself, SEND, CLOSED, **known)
    over = _overlaid({**entry("e1", token=JTI), "link": marking(MAIL)})
    mine = (m, mark_of_entry("e1", "m"))
    rows.allow("of_a_link_and_an_entry", "46.6", token(mail), SEND, {**over, **found()}, mine, **known)
    rows.deny("of_the_entry", "46.6", token(mail), SEND, {**over, **found(mark_of_entry("e1", "s"))}, **known)
    rows.deny("of_the_link_and_the_entry", "46.6", token(mail), SEND, {**over, **found(mark_of_task("s"), mark_of_entry("e1", "s"))}, **known)
    bare = token({**SALES, "tools": {"mail.*": {}}})
    rows.allow("of_an_entry_on_what_counts_nothing", "46.6", bare, SEND, {**over, **found()}, (mark_of_entry("e1", "m"),))
    rows.deny("of_an_entry_on_what_counts_nothing_after", "46.6", bare, SEND, {**over, **found(mark_of_entry("e1", "s"))})
    # One place (46.8): by the root, link 0 and the entry, and by no link below.
    apart = {**over, **found(shared=False)}
    rows.deny("of_an_entry_at_servers_that_count_apart", "46.8", bare, SEND, apart, "unaddressed")
    below = extended(bare, {"aud": HERE})
    rows.allow("of_an_entry_with_an_audience_below", "46.8", below, SEND, {**over, **found()}, (mark_of_entry("e1", "m"),), audiences=HERE)
    rows.deny("of_an_entry_with_an_audience_below_at_one", "46.8", below, SEND, apart, "unaddressed", audiences=HERE)
    one = token({**SALES, "tools": {"mail.*": {}}, "aud": HERE})
    rows.allow("of_an_entry_at_one_server", "46.8", one, SEND, apart, (mark_of_entry("e1", "m"),), audiences=HERE)
    said = _overlaid({**entry("e1", token=JTI), "link": marking(MAIL, aud=HERE)})
    rows.allow("of_an_entry_that_names_the_server", "46.8", one, SEND, {**said, **found(shared=False)}, (mark_of_entry("e1", "m"),), audiences=HERE)
    two = token({**SALES, "tools": {"mail.*": {}}, "aud": [*HERE, "there"]})
    rows.deny("of_an_entry_at_one_of_two_servers", "46.8", two, SEND, apart, "unaddressed", audiences=HERE)
    other = _overlaid({**entry("e1", agent="clerk"), "link": marking(MAIL)})
    rows.allow("of_an_entry_on_another", "46.6", bare, SEND, {**other, **found(mark_of_entry("e1", "s"))})
    narrowed = _overlaid({**entry("e1", token=JTI), "link": marking(MAIL, tables=["sales"])})
    rows.deny("of_an_entry_that_narrows", "36.8", bare, SEND, {**narrowed, **found(mark_of_entry("e1", "s"))}, "narrowed")


def _known(table: Table, rows: Rows) -> None:
    """Ledgers that are not there, cannot be asked, or cannot know; dry runs, and grants."""
    m = mark_of_task("m")
    mail = token(marking(MAIL))
    first: Link = {"nbf": NOW - 9}
    itself = token({"marks": {"m": MAIL}, "forbid": [{"in": ["m"], "after": ["m"]}], "n": nonce()})
    rows.allow("at_a_ledger", "46.6", mail, SEND, found(), (m,))
    rows.deny("at_no_ledger", "38.7", mail, SEND, {}, "store_unavailable")
    rows.deny("at_a_ledger_that_is_down", "38.7", mail, SEND, found(down=True), "store_unavailable")
    rows.deny("at_a_ledger_that_is_down_and_all_set", "38.7", mail, SEND, found(mark_of_task("s"), down=True), "store_unavailable")
    rows.deny("at_a_ledger_that_began_later", "38.9", mail, SEND, found(floor=NOW), "store_unavailable")
    rows.allow("at_a_ledger_that_began_before", "38.9", mail, SEND, found(floor=NOW - 1), (m,))
    rows.allow("at_no_ledger_in_no_mark", "46.6", mail, SELECT, {})
    rows.allow("at_a_ledger_that_is_down_in_no_mark", "46.6", mail, SELECT, found(down=True))
    rows.allow("at_a_ledger_that_began_later_in_no_mark", "46.6", mail, SELECT, found(floor=NOW))
    rows.allow("at_no_ledger_without_an_access", "38.5", mail, None, {})
    alone = token(first, {key: value for key, value in marking(MAIL).items() if key != "forbid"})
    rows.allow("at_no_ledger_in_a_mark_that_no_rule_names", "46.6", alone, SEND, {})
    ruled = token(first, marking(MAIL))
    rows.deny("at_no_ledger_in_a_mark_that_a_rule_names", "46.6", ruled, SEND, {}, "store_unavailable")
    for where, at, code in (
        ("no_ledger", {}, "store_unavailable"), ("a_ledger_that_is_down", found(down=True), "forbidden_after"), ("a_ledger_that_began_later", found(floor=NOW), "forbidden_after"),
    ):  # fmt: skip
        rows.allow(f"another_by_itself_at_{where}", "46.6", itself, {**SEND, "tool": "read"}, at)
        rows.deny(f"by_itself_at_{where}", "46.6", itself, SEND, at, code)

    def dry(name: str, parts: Parts, code: str, then: str, access: Json, at: Json) -> None:
        table.dry(name, "24.16", parts, code, then, access, presented=at)

    dry("dry_run", mail, "allowed", "allowed", SEND, found())
    dry("dry_run_after", mail, "forbidden_after", "forbidden_after", SEND, CLOSED)
    dry("dry_run_at_a_ledger_that_is_down", mail, "store_unavailable", "store_unavailable", SEND, found(down=True))
    dry("dry_run_in_no_mark", mail, "allowed", "allowed", SELECT, CLOSED)

    def grant(name: str, parts: Parts, steps: str, codes: str, at: Json, rule: str = "46.7", **known: Any) -> None:
        how = {"c": "check", "r": "recheck", "e": "explain"}
        does = {"p": OF_TWO["private"], "u": OF_TWO["untrusted"], "o": SEND, "x": SELECT}
        said = {"+": {"code": "allowed"}, "-": {"code": "forbidden_after", "link": 0, "added_by": "the issuer"}, "?": {"code": "store_unavailable"}}
        asked = [{"access": does[each[1]], "now": NOW, "how": how[each[0]]} for each in steps.split()]
        facts = {"now": NOW, "leeway": 0, "audiences": [], "allow_unaddressed": False}
        given = {"token": parts.text, "keyring": keyring({"k1": KEY}), "facts": facts, **at, "steps": asked}
        table.add(f"grant_{name}", rule, "grant", given, answers=[said[code] for code in codes])

    two = token(TWO)
    grant("in_a_row", two, "cp cu co cx cp", "++-++", found(), "46.6")
    grant("that_sends_first", two, "co cp co cu co", "++++-", found(), "46.6")
    grant("that_explains", two, "ep eu eo co", "++++", found(), "46.6")
    grant("that_explains_what_is_closed", two, "cp cu eo ex", "++-+", found(), "46.6")
    grant("that_rechecks_what_it_did", two, "cp cu ro rp", "++-+", found())
    all_set = found(mark_of_task("private"), mark_of_task("untrusted"))
    grant("that_rechecks_what_it_was_denied", two, "ro co ro", "+--", all_set)
    grant("that_rechecks_what_it_was_told_by_a_dry_run", two, "ro eo ro", "+-+", all_set)
    grant("that_rechecks_what_it_was_not_told", two, "ro cp ro", "+++", found(mark_of_task("untrusted")))
    grant("that_rechecks_at_no_ledger", two, "ro cp ro cx", "+?++", {})
    grant("that_rechecks_what_closes_itself", itself, "ro co rx cx", "-?++", {})
    grant("that_was_told_of_one_of_two", token({**TWO, "marks": {**TWO["marks"], "private": {"tables": ["crm.*"]}}}), "cu cp ro co", "++--", found())


def _sequences(table: Table) -> None:
    """One access after another at one ledger, each by a verifier that knows nothing."""

    def row(name: str, rule: str, steps: list[Json], codes: str, **more: Json) -> None:
        words = {
            "+": "allowed", "-": "forbidden_after", "b": "budget_exhausted", "u": "store_unavailable", "e": "expired", "t": "table", "c": "closed",
        }  # fmt: skip
        given: dict[str, Json] = {
            "keyring": keyring({"k1": KEY}), "audience": "sales-db", "ledger": {"floor": 0, "shared": False, **more}, "steps": steps,
        }  # fmt: skip
        table.add(name, rule, "counting", given, codes=[words[code] for code in codes])

    def asks(parts: Parts, access: Json, now: int = NOW, **more: Json) -> Json:
        return {"token": parts.text, "access": access, "now": now, **more}

    here: Link = {"aud": ["sales-db"]}
    two = token({**TWO, **here})
    for order in permutations(OF_TWO):
        steps = [asks(two, OF_TWO[name]) for name in (*order, "outside", "private", "untrusted")]
        before = order[: order.index("outside")]
        row(f"order_{'_'.join(order)}", "46.6", steps, "".join("-" if name == "outside" and len(before) == 2 else "+" for name in order) + "-++")
    p, u, o = (OF_TWO[name] for name in ("private", "untrusted", "outside"))
    child = extended(two, hand_over("clerk", tools={"mail.*": {}, "http.get": {}}))
    root2 = token({**TWO, **here}, jti="B" * 21 + "A", task="task-123/below")
    other = token({**TWO, **here}, task="task-1234")
    row("by_a_child", "46.3", [asks(two, p), asks(child, u), asks(child, o), asks(two, o)], "++--")
    row("by_two_roots_of_one_task", "46.3", [asks(two, p), asks(root2, u), asks(root2, o), asks(two, o), asks(other, o)], "++--+")
    narrowed = extended(two, {**marking({"tables": ["crm.x"]}, 3), "marks": {"m": {"tables": ["crm.x"]}, "s": MAIL}})
    x = {**p, "table": "crm.x"}
    row("of_a_later_link", "46.3", [asks(narrowed, x), asks(narrowed, o), asks(narrowed, x), asks(two, x)], "++-+")

    # What is denied sets nothing.
    both = {**p, **call("http.get")}
    closing = token({**here, "marks": {"a": {"tools": ["a"]}, "b": {"tools": ["b"]}, "t": {"tables": ["*"]}}, "n": nonce(),
                     "forbid": [{"in": ["t"], "after": ["a"]}, {"in": ["a"], "after": ["t"]}]})  # fmt: skip
    t = {"table": "x", "operation": "select"}
    row("what_is_closed_sets_nothing", "46.6", [asks(closing, call("a")), asks(closing, t), asks(closing, call("a"))], "+-+")
    row("what_closes_itself_sets_nothing", "46.6", [asks(closing, {**t, "tool": "a"}), asks(closing, call("a")), asks(closing, t)], "-+-")
    row("what_closes_itself_sets_nothing_else", "46.6", [asks(closing, {**t, "tool": "a"}), asks(closing, t), asks(closing, call("a"))], "-+-")
    paid = token({**TWO, **here, "budget": {"cents": 5}})

    def costs(access: Json, cents: int) -> Json:
        return asks(paid, {**access, "cost": {"cents": cents}})

    row("what_costs_too_much_sets_nothing", "46.6", [costs(p, 6), costs(u, 0), costs(o, 0), costs(p, 5), costs(o, 0)], "b+++-")
    row("what_is_used_up_sets_nothing", "46.6", [costs(o, 5), costs(p, 1), costs(u, 0), costs(o, 0)], "+b++")
    row("what_is_closed_takes_nothing", "46.6", [costs(p, 1), costs(u, 1), costs(o, 3), costs(p, 3), costs(p, 1)], "++-+b")
    rows = token({**TWO, **here, "tables": ["crm.deals"], "tools": {"*": {}}})
    row("what_is_no_right_sets_nothing", "46.6", [asks(rows, x), asks(rows, u), asks(rows, o)], "t++")
    row("what_goes_back_stays_set", "46.6", [asks(paid, {**both, "cost": {"cents": 5}}, cancel=True), costs(o, 5)], "+c-")
    row("what_is_settled_stays_set", "46.6", [asks(paid, {**both, "cost": {"cents": 5}}, settle={"cents": 0}), costs(o, 5)], "+c-")

    # How long.
    day = 86400
    short, long = (token({**TWO, **here, "exp": NOW + seconds}, jti=name * 22) for seconds, name in ((60, "A"), (400 * day, "Q")))
    ever = token({**TWO, **here}, jti="g" * 22)
    end = NOW + 60 + 30 * day
    did = [asks(short, p), asks(short, u)]
    row("for_30_days", "46.5", [*did, asks(long, o, end - 1)], "++-")
    row("for_no_more_than_30_days", "46.5", [*did, asks(long, o, end)], "+++")
    row("for_30_days_and_the_leeway", "46.5", [asks(short, p, leeway=90), asks(short, u, leeway=90), asks(long, o, end + 89)], "++-")
    row("for_no_more_than_30_days_and_the_leeway", "46.5", [asks(short, p, leeway=90), asks(short, u, leeway=90), asks(long, o, end + 90)], "+++")
    row("for_as_long_as_the_latest_that_set_it", "46.5", [*did, asks(long, p), asks(long, u), asks(long, o, end)], "++++-")
    row("for_as_long_as_the_latest_that_asked", "46.5", [asks(short, u), asks(long, o), asks(long, p, end), asks(long, o, end)], "+++-")
    row("for_as_long_as_the_latest_that_was_denied", "46.5", [*did, asks(long, o), asks(long, o, end)], "++--")
    row("for_good", "46.5", [asks(ever, p), asks(ever, u), asks(ever, o, NOW + 4000 * day)], "++-")
    row("for_good_once_that_asked", "46.5", [*did, asks(ever, p), asks(ever, u), asks(ever, o, end + 4000 * day)], "++++-")
    row("by_a_clock_that_is_behind_what_was_forgotten", "38.10", [*did, asks(ever, p, end), asks(ever, o, end - 3601), asks(ever, o, end - 3600)], "+++u+")
    row("by_a_leeway_that_is_longer_than_what_was_forgotten", "38.10", [*did, asks(ever, p, end), asks(ever, o, end, leeway=3601)], "+++u")
    inner = token({**here, "exp": NOW + 60}, marking({"tables": ["*"]}))
    row("of_a_link_until_it_ends", "46.5", [asks(inner, call("set")), asks(inner, t, NOW + 59), asks(inner, t, NOW + 60)], "+-e")

    # How much of one tree.
    later = token(here, marking({"tables": ["*"]}, 1), jti=JTI)
    counted = extended(later, {"uses": 9, "n": nonce(2)})

    def kept(count: int, until: Json = None) -> dict[str, Json]:
        return {"kept": [{"tree": JTI, "buckets": count, "until": until}]}

    row("a_tree_with_room_for_one", "38.14", [asks(later, t), asks(later, call("set")), asks(later, t)], "+b+", **kept(9999))
    row("a_tree_that_is_full", "38.14", [asks(later, t), asks(later, call("set"))], "bb", **kept(10000))
    row("a_tree_that_is_full_and_a_mark_of_the_task", "46.5", [asks(two, p), asks(two, u), asks(two, o)], "++-", **kept(10000))
    row("a_tree_with_room_for_one_and_a_use_beside_it", "38.14", [asks(counted, t), asks(later, t), asks(counted, t)], "b+b", **kept(9999))
    row("a_tree_with_room_for_two_and_a_use_beside_it", "38.14", [asks(counted, t), asks(counted, call("set"))], "+b", **kept(9998))
    ends = kept(10000, until=NOW + 60)
    row("a_tree_that_was_full_for_a_minute", "38.14", [asks(later, t, NOW + 59), asks(later, t, NOW + 60)], "b+", **ends)
