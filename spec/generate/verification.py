"""Vectors of what surrounds the caveats: Access, Lineage, the caller, and the order of the plan."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product

from spec.generate.build import (
    KEY,
    NOW,
    OTHER_KEY,
    Json,
    asking,
    audience_key,
    b64,
    bundle,
    discharge,
    extended,
    hand_over,
    handed,
    joined,
    nonce,
    of_access,
    proof,
    signing_public,
    text,
    token,
    use,
)
from spec.generate.table import CODES, SALES, SELECT, Table, call

VID = bytes(range(100, 172))
HR = {"table": "hr", "operation": "select"}


def tables() -> Iterator[Table]:
    yield access()
    yield lineage()
    yield caller()
    yield verification()
    yield codes()


def access() -> Table:
    table = Table("access", "Facts that can be stated, and facts that are an error of the program.")
    open_ = token({"nbf": NOW})
    legal: dict[str, Json] = {
        "table_and_operation": SELECT, "columns": {**SELECT, "columns": ["a", "b"]}, "no_columns": {**SELECT, "columns": []},
        "row": {**SELECT, "row": {"id": 1, "x": None}}, "no_row": {**SELECT, "row": None, "becomes": None}, "empty_row": {**SELECT, "row": {}},
        "row_and_becomes": {**SELECT, "row": {"a*": [1.5]}, "becomes": {"a": {}}}, "no_conditions": {**SELECT, "rows": []},
        "conditions": {**SELECT, "rows": [{}, {"a": {"any": True}}]}, "conditions_null": {**SELECT, "rows": None, "row": {"a": 1}},
        "tool": {"tool": "search"}, "arguments": call("search", q="x"), "both": {**SELECT, **call("search")},
        "attributes": {"attributes": {"x": 1}}, "nothing": {},
        "any_values": call("search", a=None, b=1.5, c=[{"d": [True]}], e="\n\u200b", f="x" * 3000, g=10**30, h=-0.0),
        "star_in_column": {**SELECT, "columns": ["a*"]}, "dots_in_column": {**SELECT, "columns": ["a..b"]},
        "segments": {**SELECT, "table": "a.b.c"}, "null_as_left_out": {key: None for key in ("table", "operation", "columns", "tool", "arguments")},
        "tool_of_no_arguments": {"tool": "search", "arguments": {}}, "table_and_columns_null": {"table": None, "columns": None},
        "null_beside_a_table": {**SELECT, "columns": None, "tool": None, "arguments": None},
        "null_beside_a_tool": {"tool": "search", "arguments": None, "table": None, "operation": None, "columns": None},
    }  # fmt: skip
    for name, stated in legal.items():
        table.allow(name, "7.1", open_, stated)
    ill: dict[str, tuple[str, Json]] = {
        "table_without_operation": ("7.1", {"table": "sales"}), "operation_without_table": ("7.1", {"operation": "select"}),
        "columns_without_table": ("7.1", {"columns": ["a"]}),
        "columns_beside_tool": ("7.1", {"tool": "search", "columns": []}),
        "row_without_table": ("7.1", {"row": {"a": 1}}), "no_row_without_table": ("7.1", {"row": None}), "becomes_without_table": ("7.1", {"becomes": {}}),
        "conditions_without_table": ("7.1", {"rows": []}), "row_beside_tool": ("7.1", {"tool": "search", "row": {}}),
        "row_list": ("7.11", {**SELECT, "row": []}), "row_text": ("7.11", {**SELECT, "row": "a"}), "row_false": ("7.11", {**SELECT, "row": False}),
        "becomes_number": ("7.11", {**SELECT, "becomes": 0}), "column_of_a_row_star": ("7.2", {**SELECT, "row": {"*": 1}}),
        "column_of_a_row_empty": ("7.2", {**SELECT, "row": {"": 1}}), "column_that_becomes_padded": ("7.2", {**SELECT, "becomes": {"a ": 1}}),
        "row_lone_surrogate": ("7.5", {**SELECT, "row": {"a": "\ud800"}}),
        "conditions_object": ("7.12", {**SELECT, "rows": {}}), "conditions_text": ("7.12", {**SELECT, "rows": "a"}),
        "condition_list": ("7.12", {**SELECT, "rows": [[]]}), "condition_column_empty": ("7.12", {**SELECT, "rows": [{"": {"any": True}}]}),
        "condition_that_is_none": ("7.12", {**SELECT, "rows": [{"a": {}}]}), "condition_value": ("7.12", {**SELECT, "rows": [{"a": 1}]}),
        "condition_optional": ("7.12", {**SELECT, "rows": [{"a": {"any": True, "optional": True}}]}),
        "condition_too_large": ("7.12", {**SELECT, "rows": [{"a": {"max": 2**53}}]}),
        "condition_listed_too_large": ("7.12", {**SELECT, "rows": [{"a": {"in": [2**53]}}]}),
        "condition_each_too_large": ("7.12", {**SELECT, "rows": [{"a": {"each": {"min": -(2**53)}}}]}),
        "row_beside_conditions": ("7.12", {**SELECT, "rows": [], "row": {}}), "no_row_beside_conditions": ("7.12", {**SELECT, "rows": [], "row": None}),
        "becomes_beside_conditions": ("7.12", {**SELECT, "rows": [], "becomes": {}}),
        "arguments_without_tool": ("7.1", {"arguments": {}}), "table_with_operation_null": ("7.1", {**SELECT, "operation": None}),
        "arguments_with_tool_null": ("7.1", {"tool": None, "arguments": {}}), "columns_with_table_null": ("7.1", {"table": None, "columns": []}),
        "attributes_null": ("7.1", {"attributes": None}), "cost_null": ("7.9", {"cost": None}),
        "cost_list": ("7.9", {"cost": []}), "cost_negative": ("7.9", {"cost": {"cents": -1}}),
        "cost_of_no_name": ("7.9", {"cost": {"us cents": 1}}), "cost_as_text": ("7.9", {"cost": {"cents": "1"}}),
        "arguments_beside_table": ("7.1", {**SELECT, "arguments": {"q": 1}}), "table_star": ("7.2", {**SELECT, "table": "*"}),
        "table_pattern": ("7.2", {**SELECT, "table": "market.*"}),
        "table_empty_segment": ("7.2", {**SELECT, "table": "a..b"}), "table_dot_last": ("7.2", {**SELECT, "table": "a."}),
        "table_empty": ("7.2", {**SELECT, "table": ""}), "table_number": ("7.2", {**SELECT, "table": 1}),
        "operation_star": ("7.2", {**SELECT, "operation": "*"}), "operation_empty": ("7.2", {**SELECT, "operation": ""}),
        "operation_space": ("7.2", {**SELECT, "operation": "select all"}),
        "operation_number": ("7.2", {**SELECT, "operation": 1}), "column_star": ("7.2", {**SELECT, "columns": ["*"]}),
        "column_empty": ("7.2", {**SELECT, "columns": [""]}), "column_number": ("7.2", {**SELECT, "columns": [1]}),
        "columns_text": ("7.2", {**SELECT, "columns": "region"}), "columns_object": ("7.2", {**SELECT, "columns": {"region": 1}}), "tool_star": ("7.2", {"tool": "files.*"}),
        "tool_empty": ("7.2", {"tool": ""}), "tool_zero_width": ("7.2", {"tool": "sea\u200brch"}),
        "arguments_list": ("7.2", {"tool": "search", "arguments": ["q"]}),
        "argument_empty": ("7.2", {"tool": "search", "arguments": {"": 1}}),
        "attribute_padded": ("7.2", {"attributes": {"x ": 1}}), "attributes_list": ("7.2", {"attributes": []}),
        "argument_lone_surrogate": ("7.5", call("search", q="\ud800")),
        "argument_inner_surrogate": ("7.5", call("search", q=[{"\udc00": 1}])),
        "attribute_lone_surrogate": ("7.5", {"attributes": {"x": "\udfff"}}),
    }  # fmt: skip
    for name, (rule, stated) in ill.items():
        table.deny(f"refuses_{name}", rule, "usage", open_, stated)
    table.allow("cost_of_nothing", "7.9", open_, {"cost": {"cents": 0}})
    table.allow("caller_with_task_null", "7.6", open_, caller={"agent": "orchestrator", "task": None})
    table.allow("caller", "7.6", open_, caller={"agent": "orchestrator", "task": "task-123"})
    callers: dict[str, Json] = {
        "nothing": {}, "nulls": {"agent": None, "task": None}, "agent_empty": {"agent": ""}, "agent_space": {"agent": "sales agent"}, "agent_number": {"agent": 1},
        "task_empty": {"task": ""}, "task_dots": {"task": "task-123/.."}, "task_slash_last": {"task": "task-123/"},
    }  # fmt: skip
    for name, stated in callers.items():
        table.deny(f"refuses_caller_{name}", "7.7", "usage", open_, caller=stated)
    return table


def lineage() -> Table:
    table = Table("lineage", "The chain as a state machine: who holds, how many more may, and whether one must.")
    to_sales, to_report = hand_over("sales-agent"), hand_over("report-agent", "sales-agent", 1)
    to_mail = hand_over("mail-agent", "report-agent", 2)
    table.allow("no_delegation", "20.3", token(SALES))
    table.allow("one", "20.4", token(SALES, to_sales))
    table.allow("two", "20.4", token(SALES, to_sales, to_report))
    table.allow("with_links_between", "20.3", token(SALES, to_sales, {"nbf": NOW}, to_report, {"nbf": 0}))
    table.allow("in_link_0", "20.1", token({**SALES, **to_sales}))
    broken = {
        "from_another": (hand_over("sales-agent", "report-agent"),), "from_before": (to_sales, hand_over("report-agent")),
        "skips_one": (to_sales, to_mail), "to_itself": (hand_over("orchestrator"),),
        "back_to_first": (to_sales, hand_over("orchestrator", "sales-agent")),
        "back_to_earlier": (to_sales, to_report, hand_over("sales-agent", "report-agent", 2)), "twice": (to_sales, to_sales),
        "to_holder": (to_sales, hand_over("sales-agent", "sales-agent", 1)),
        "from_in_other_case": (hand_over("sales-agent", "Orchestrator"),),
        "from_subject": (hand_over("sales-agent", "user:jane"),),
    }  # fmt: skip
    for name, links in broken.items():
        table.deny(name, "20.2", "broken_delegation", token(SALES, *links))
    table.deny(
        "broken_and_mended", "20.2", "broken_delegation", token(SALES, hand_over("report-agent", "sales-agent"), to_sales)
    )

    table.allow("depth_1", "20.1", token({**SALES, "depth": 1}, to_sales))
    table.deny("depth_1_two_delegations", "20.1", "too_deep", token({**SALES, "depth": 1}, to_sales, to_report))
    table.allow("depth_0_no_delegation", "20.1", token({**SALES, "depth": 0}, {"nbf": NOW}))
    table.deny("depth_0", "20.1", "too_deep", token({**SALES, "depth": 0}, to_sales))
    table.allow("depth_0_after", "20.1", token(SALES, to_sales, {"depth": 0}))
    table.allow("depth_0_in_its_own_delegation", "20.1", token(SALES, {**to_sales, "depth": 0}))
    table.deny("depth_0_in_the_delegation_before", "20.1", "too_deep", token(SALES, {**to_sales, "depth": 0}, to_report))
    table.allow("depth_raised_and_kept", "20.1", token({**SALES, "depth": 1}, {"depth": 5}, to_sales))
    table.allow("depth_raised_in_delegation_and_kept", "20.1", token({**SALES, "depth": 1}, {**to_sales, "depth": 5}))
    table.deny("depth_raised", "20.1", "too_deep", token({**SALES, "depth": 1}, {"depth": 5}, to_sales, to_report))
    table.deny(
        "depth_raised_in_delegation", "20.1", "too_deep", token({**SALES, "depth": 1}, {**to_sales, "depth": 5}, to_report)
    )
    table.allow("depth_lowered", "20.1", token({**SALES, "depth": 3}, {**to_sales, "depth": 1}, to_report))
    table.deny(
        "depth_lowered_and_passed",
        "20.1",
        "too_deep",
        token({**SALES, "depth": 3}, {**to_sales, "depth": 1}, to_report, to_mail),
    )
    for name, value in {"negative": -1, "text": "1", "true": True, "list": [1]}.items():
        table.deny(f"depth_{name}", "15.9", "unreadable_link", token({**SALES, "depth": value}))

    must = {**SALES, "delegate_only": True}
    table.allow("owed_and_done", "20.1", token(must, to_sales))
    table.deny("owed", "20.2", "delegate_only", token(must))
    table.deny("owed_and_narrowed", "20.2", "delegate_only", token(must, {"nbf": NOW}))
    table.allow("owed_by_a_delegation_and_done", "20.1", token(SALES, {**to_sales, "delegate_only": True}, to_report))
    table.deny("owed_by_the_last_delegation", "20.1", "delegate_only", token(SALES, {**to_sales, "delegate_only": True}))
    table.deny("owed_again", "20.1", "delegate_only", token(must, to_sales, {"delegate_only": True}))
    table.allow("owed_twice_and_done_once", "20.1", token(must, {"delegate_only": True}, to_sales))
    table.allow("owed_and_done_without_an_access", "24.8", token(must, to_sales), None)
    table.deny("owed_without_an_access", "24.8", "delegate_only", token(must), None)
    table.allow("delegated_without_an_access", "24.8", token(SALES, to_sales), None)
    table.deny("broken_without_an_access", "24.8", "broken_delegation", token(SALES, {**to_sales, "from": "mail-agent"}), None)
    for name, value in {"false": False, "number": 1, "text": "true"}.items():
        table.deny(f"delegate_only_{name}", "17.5", "unreadable_link", token({**SALES, "delegate_only": value}, to_sales))
    return table


def caller() -> Table:
    table = Table("caller", "What the server itself knows of who calls, against the chain and the task.")
    delegated = token(SALES, {**hand_over("sales-agent"), "task": "task-123/a"})

    def allow(name: str, **stated: str) -> None:
        table.allow(name, "24.7", delegated, caller=stated)

    def deny(name: str, **stated: str) -> None:
        table.deny(name, "24.7", "caller", delegated, caller=stated)

    allow("holder", agent="sales-agent")
    deny("first_agent", agent="orchestrator")
    deny("stranger", agent="mail-agent")
    deny("other_case", agent="Sales-agent")
    deny("subject", agent="user:jane")
    deny("longer_name", agent="sales-agent2")
    allow("task", task="task-123/a")
    allow("task_below", task="task-123/a/b")
    deny("task_above", task="task-123")
    deny("task_beside", task="task-123/b")
    deny("task_of_longer_name", task="task-123/ab")
    allow("holder_and_task", agent="sales-agent", task="task-123/a")
    deny("holder_in_another_task", agent="sales-agent", task="task-124")
    deny("another_in_the_task", agent="orchestrator", task="task-123/a")
    table.allow("first_agent_holds", "24.7", token(SALES), caller={"agent": "orchestrator"})
    table.deny("not_yet_handed_on", "24.7", "caller", token(SALES), caller={"agent": "sales-agent"})
    table.allow("without_an_access", "24.8", delegated, None, caller={"agent": "sales-agent", "task": "task-123/a"})
    table.deny("another_without_an_access", "24.8", "caller", delegated, None, caller={"agent": "orchestrator", "task": "task-123/a"})
    table.deny("in_another_task_without_an_access", "24.8", "caller", delegated, None, caller={"agent": "sales-agent", "task": "task-124"})
    return table


def verification() -> Table:
    """Here two things are wrong at a time: the code is that of the one that comes first in the plan."""
    table = Table("verification", "The order of the plan: where two things are wrong, the one that comes first gives the code.")
    good = token(SALES, {"exp": NOW + 600})
    table.allow("nothing_wrong", "24.1", good)
    here = ("sales-db",)
    unreadable, unknown, torn = {"exp": "soon"}, {"acme:region": 1}, hand_over("report-agent", "mail-agent")

    def deny(name: str, code: str, parts: Json, access: Json = SELECT, rule: str = "24.5", **known: Json) -> None:
        table.deny(name, rule, code, parts, access, **known)

    deny("malformed_before_unknown_key", "malformed", text(token(SALES, kid="k2").wire + b"\0"), rule="24.2")
    deny("version_before_keys", "unsupported_version", token(SALES, v=2, sub="", kid="k2"), rule="24.3")
    deny("record_before_key", "malformed", token(SALES, kid="k2", sub=""), rule="24.3")
    deny("key_before_signature", "unknown_key", token(SALES, kid="k2", key=OTHER_KEY), rule="24.3")
    deny("key_before_links", "unknown_key", token(unreadable, kid="k2"), rule="24.3")
    deny("signature_before_discharge", "bad_signature", token(SALES, (b"ask", VID), key=OTHER_KEY), rule="24.6")
    deny("signature_before_unreadable", "bad_signature", token(SALES, unreadable, key=OTHER_KEY), rule="24.1")
    deny("signature_before_unknown", "bad_signature", token(SALES, unknown, key=OTHER_KEY), rule="24.1")
    deny("signature_before_access", "bad_signature", token(SALES, key=OTHER_KEY), HR, rule="24.1")
    deny("signature_before_lineage", "bad_signature", token(SALES, torn, key=OTHER_KEY), rule="24.1")
    deny("signature_before_iat", "bad_signature", token(SALES, iat=NOW + 10**6, key=OTHER_KEY), rule="9.5")
    elsewhere = token(SALES, aud="hr-db", key=OTHER_KEY)
    deny("signature_before_root_audience", "bad_signature", elsewhere, rule="9.5", audiences=here)
    deny("signature_before_task_of_the_root", "bad_signature", token(SALES, {"task": "other"}, key=OTHER_KEY), rule="9.5",
         caller={"agent": "mail-agent"})  # fmt: skip
    deny("discharge_before_unreadable", "missing_discharge", token(unreadable, (b"ask", VID)), rule="24.6")
    deny("discharge_before_unknown", "missing_discharge", token(SALES, (b"ask", VID), unknown), rule="24.6")
    deny("discharge_before_expired", "missing_discharge", token({**SALES, "exp": 0}, (b"ask", VID)), rule="24.6")
    deny("first_bad_link_unreadable", "unreadable_link", token(SALES, unreadable, unknown), rule="24.4")
    deny("first_bad_link_unknown", "unknown_caveat", token(SALES, unknown, unreadable), rule="24.4")
    deny("unreadable_before_lineage", "unreadable_link", token(SALES, torn, unreadable), rule="24.4")
    deny("unknown_before_lineage", "unknown_caveat", token(SALES, torn, unknown), rule="24.4")
    deny("unknown_before_expired", "unknown_caveat", token({**SALES, "exp": 0}, unknown), rule="24.4")
    deny("broken_before_too_deep", "broken_delegation", token({**SALES, "depth": 0}, torn), rule="20.1")
    deny("repeated_before_too_deep", "broken_delegation", token({**SALES, "depth": 0}, hand_over("orchestrator")), rule="20.1")
    deny("first_break_in_the_chain", "too_deep", token({**SALES, "depth": 0}, hand_over("sales-agent"), torn), rule="20.2")
    deny("broken_before_owed", "broken_delegation", token({**SALES, "delegate_only": True}, torn), rule="20.2")
    deny("owed_before_iat", "delegate_only", token({**SALES, "delegate_only": True}, iat=NOW + 100), rule="24.5")
    deny("lineage_before_access", "broken_delegation", token(SALES, torn), HR)
    deny("lineage_before_expired", "broken_delegation", token({**SALES, "exp": 0}, torn))
    ahead = token({**SALES, "exp": 0}, iat=NOW + 100, aud="hr-db", key=audience_key(KEY, "hr-db"))
    deny("iat_before_root_audience", "not_yet_valid", ahead, audiences=here)
    behind = token({**SALES, "exp": 0}, aud="hr-db", key=audience_key(KEY, "hr-db"))
    deny("root_audience_before_links", "wrong_audience", behind, audiences=here)
    deny("link_0_before_link_1", "expired", token({**SALES, "exp": 0}, {"nbf": NOW + 1}))
    deny("link_1_before_link_2", "expired", token(SALES, {"exp": 0}, {"tables": ["hr"]}))
    deny("link_2_ended_before_link_1", "expired", token({**SALES, "tables": ["hr"]}, {"exp": 0}))
    deny("what_link_0_refuses_before_link_1", "table", token({**SALES, "tables": ["hr"]}, {"operations": ["insert"]}))
    deny("what_link_0_allows_before_link_1", "operation", token({"operations": ["insert"]}, {"tables": ["hr"]}))
    _of_keys(table)
    deny("where_before_domain", "attribute", token({**SALES, "where": {"x": {"any": True}}}), call("search"), rule="18.4")
    deny("domain_of_link_0_before_link_1", "domain", token(SALES, {"where": {"x": {"any": True}}}), call("search"))
    deny("link_1_ended_before_domain_of_link_0", "expired", token(SALES, {"exp": 0}), call("search"))
    deny("unaddressed_before_link", "unaddressed", token(SALES), HR, audiences=here)
    deny("ended_before_unaddressed", "expired", token({**SALES, "exp": 0}), audiences=here)
    deny("unaddressed_before_caller", "unaddressed", token(SALES), audiences=here, caller={"agent": "mail-agent"})
    deny("access_before_caller", "table", token(SALES), HR, caller={"agent": "mail-agent"})
    deny("expired_before_caller", "expired", token({**SALES, "exp": 0}), caller={"agent": "mail-agent"})
    deny("agent_or_task_of_caller", "caller", good, caller={"agent": "mail-agent", "task": "task-124"}, rule="24.7")
    _of_discharges(table)
    _of_proofs(table)
    table.allow("no_access", "24.8", token({**SALES, "tools": {"mail": {}}, "where": {"x": {"any": True}}}), None)
    table.allow("future_that_is_near", "24.5", extended(good, {"nbf": NOW - 60}), now=NOW - 60)
    return table


def codes() -> Table:
    table = Table("codes", "What a denial with a code says beside it: the step and the kind of the table.")
    for code, (step, kind, _) in CODES.items():
        table.add(code, "24.24", "code", {"denied": code}, step=step, denial_kind=kind)
    return table


def _of_keys(table: Table) -> None:
    """The two passes of step 8, each by key. The first is about the token and the server alone."""
    here = ("sales-db",)
    early: dict[str, tuple[Json, str]] = {
        "aud": (["hr-db"], "wrong_audience"), "exp": (0, "expired"), "fresh": (60, "stale_overlay"),
        "nbf": (NOW + 1, "not_yet_valid"), "task": ("task-124", "task"),
    }  # fmt: skip
    late: dict[str, tuple[Json, str]] = {
        "allow": ({"hr": ["select"]}, "table"), "budget": ({"cents": 5}, "cost_unstated"),
        "columns": ({"sales": ["a"]}, "column"), "operations": (["insert"], "operation"), "rows": ({"sales": {"x": {"in": []}}}, "row"), "tables": (["hr"], "table"),
        "tools": ({"mail": {}}, "tool"), "where": ({"x": {"any": True}}, "attribute"),
    }  # fmt: skip
    ordered = early | late
    aimed = {"aud": list(here), "nbf": NOW}

    def link(*keys: str) -> dict[str, Json]:
        return {key: ordered[key][0] for key in keys} | ({"n": nonce()} if "budget" in keys else {})

    def deny(name: str, first: str, *links: dict[str, Json], rule: str = "24.5") -> None:
        parts = token(aimed, *links)
        table.deny(name, rule, ordered[first][1], parts, {**SELECT, **call("search")}, audiences=here)

    for pass_ in (early, late):
        for first, second in combinations(pass_, 2):
            deny(f"{first}_before_{second}", first, link(first, second), rule="17.7")
    for first, second in product(early, late):
        deny(f"{first}_before_{second}", first, link(first, second))
        deny(f"{first}_of_a_later_link_before_{second}", first, link(second), link(first))
    deny("all_of_one_link", "aud", link(*ordered), rule="17.7")
    deny("all_of_the_second_pass", "allow", link(*late), rule="17.7")


def _of_discharges(table: Table) -> None:
    """Where in the plan the discharges stand."""

    def deny(name: str, code: str, given: str, rule: str, **known: Json) -> None:
        table.deny(name, rule, code, given, **known)

    minute = {"exp": NOW + 60}
    whole, one, two = asking(token(SALES), "one"), discharge("one", minute), discharge("two", minute)
    table.allow("nothing_wrong_with_a_discharge", "24.6", whole, discharges=(one,))
    unreadable, unknown, torn = {"exp": "soon"}, {"acme:region": 1}, hand_over("report-agent", "mail-agent")
    broken = asking(token(SALES, torn), "one")
    deny(
        "malformed_discharge_before_unknown_key",
        "malformed",
        bundle(asking(token(SALES, kid="k2"), "one"), discharge("one")),
        "24.2",
    )
    other = token(SALES, v=2)
    asked = asking(other, "one")
    table.beside("nothing_wrong_with_a_discharge")
    for name, given in {
        "a_discharge_without_links": bundle(asked, discharge("one")), "a_discharge_that_is_cut": bundle(asked, one)[:-1],
        "a_proof_that_is_cut": f"{other.text}.cap1p_A",
    }.items():  # fmt: skip
        deny(f"{name}_before_version_2", "malformed", given, "24.2")
    deny("version_2_before_a_discharge_of_another", "unsupported_version", bundle(asked, two), "24.3")
    deny("key_before_discharge", "unknown_key", bundle(asking(token(SALES, kid="k2"), "one"), two), "24.3")
    deny("signature_before_bad_discharge", "bad_signature", bundle(asking(token(SALES, key=OTHER_KEY), "one"), two), "24.6")
    deny("left_over_before_missing", "bad_discharge", bundle(asking(whole, "two"), discharge("three", minute)), "33.5")
    deny("missing_before_unbound", "missing_discharge", joined(asking(whole, "two"), (one,)), "33.5")
    deny("left_over_before_unbound", "bad_discharge", joined(whole, (one, two)), "33.5")
    deny("bad_discharge_before_unreadable", "bad_discharge", joined(asking(token(SALES, unreadable), "one"), (one,)), "24.6")
    deny("bad_discharge_before_what_it_says", "bad_discharge", joined(whole, (discharge("one", unreadable),)), "24.6")
    deny(
        "link_before_discharge_unreadable",
        "unreadable_link",
        bundle(asking(token(SALES, unreadable), "one"), discharge("one", unknown)),
        "24.4",
    )
    deny(
        "link_before_discharge_unknown",
        "unknown_caveat",
        bundle(asking(token(SALES, unknown), "one"), discharge("one", unreadable)),
        "24.4",
    )
    deny(
        "later_link_before_discharge", "unknown_caveat", bundle(extended(whole, unknown), discharge("one", unreadable)), "24.4"
    )
    both = asking(whole, "two")
    deny(
        "first_discharge_before_second",
        "unknown_caveat",
        bundle(both, discharge("one", unknown), discharge("two", unreadable)),
        "24.4",
    )
    deny(
        "first_link_of_a_discharge_before_second",
        "unreadable_link",
        bundle(whole, discharge("one", unreadable, unknown)),
        "24.4",
    )
    deny(
        "unknown_link_before_expiry_that_lacks", "unknown_caveat", bundle(whole, discharge("one", {"nbf": 0}, unknown)), "33.6"
    )
    deny("unreadable_discharge_before_lineage", "unreadable_link", bundle(broken, discharge("one", {"nbf": 0})), "24.4")
    deny("unknown_discharge_before_lineage", "unknown_caveat", bundle(broken, discharge("one", unknown)), "24.4")
    deny(
        "discharge_unreadable_before_owed",
        "unreadable_link",
        bundle(asking(token({**SALES, "delegate_only": True}), "one"), discharge("one", {"nbf": 0})),
        "24.4",
    )
    deny("lineage_before_ended_discharge", "broken_delegation", bundle(broken, discharge("one", {"exp": 0})), "24.5")
    deny(
        "ahead_before_ended_discharge",
        "not_yet_valid",
        bundle(asking(token(SALES, iat=NOW + 100), "one"), discharge("one", {"exp": 0})),
        "24.5",
    )
    deny(
        "ended_discharge_before_link",
        "expired",
        bundle(asking(token({**SALES, "tables": ["hr"]}), "one"), discharge("one", {"exp": 0})),
        "33.7",
    )
    deny(
        "ended_discharge_before_later_link",
        "expired",
        bundle(extended(whole, {"tables": ["hr"]}), discharge("one", {"exp": 0})),
        "33.7",
    )
    deny(
        "second_discharge_ended_before_first_refuses",
        "expired",
        bundle(both, discharge("one", {**minute, "tables": ["hr"]}), discharge("two", {"exp": 0})),
        "33.7",
    )
    deny(
        "first_discharge_refuses_before_second",
        "table",
        bundle(both, discharge("one", {**minute, "tables": ["hr"]}), discharge("two", {**minute, "operations": ["insert"]})),
        "33.7",
    )
    deny(
        "link_refuses_before_discharge",
        "table",
        bundle(extended(whole, {"tables": ["hr"]}), discharge("one", {**minute, "operations": ["insert"]})),
        "33.7",
    )
    deny(
        "link_ended_before_ended_discharge",
        "not_yet_valid",
        bundle(extended(whole, {"nbf": NOW + 1}), discharge("one", {"exp": 0})),
        "33.7",
    )
    deny(
        "ended_discharge_before_unaddressed",
        "expired",
        bundle(whole, discharge("one", {"exp": 0})),
        "24.5",
        audiences=("sales-db",),
    )
    deny(
        "ended_discharge_before_caller",
        "expired",
        bundle(whole, discharge("one", {"exp": 0})),
        "24.5",
        caller={"agent": "mail-agent"},
    )


def _of_proofs(table: Table) -> None:
    """Steps 10 and 11."""
    key, agent, here = b64(signing_public("orchestrator")), b64(signing_public("sales-agent")), ("sales-db",)
    minute, store = {"aud": ["sales-db"], "exp": NOW + 60}, {"floor": 0, "limit": 1000, "used": []}
    bound_to = token({**SALES, "key": key})
    unsigned = extended(bound_to, hand_over("sales-agent", key=agent), minute)

    def deny(
        name: str,
        code: str,
        parts: Json,
        rule: str,
        access: Json = SELECT,
        stated: str | None = None,
        replays: Json = None,
        **known: Json,
    ) -> None:
        made = proof(parts, "orchestrator", of_access(access)) if stated is None else stated
        presented = {"proof": made, "replays": store if replays is None else replays}
        known = {"audiences": here, **known}
        table.deny(name, rule, code, parts, access, presented={k: v for k, v in presented.items() if v != ""}, **known)

    table.allow("nothing_wrong_with_an_addressed_token", "24.16", extended(token(SALES), minute), audiences=here)
    good, ended = extended(bound_to, minute), extended(bound_to, {**minute, "exp": 0})
    proved = proof(good, "mail-agent", of_access(SELECT))
    deny(
        "unreadable_signature_before_lineage",
        "unreadable_link",
        token(SALES, hand_over("report-agent", "mail-agent"), {"key": "short"}, minute),
        "24.4",
    )
    deny("lineage_before_custody", "broken_delegation", extended(unsigned, hand_over("report-agent")), "24.5")
    deny("expired_before_custody", "expired", extended(unsigned, {"exp": 0}), "24.5")
    deny("table_before_custody", "table", unsigned, "24.5", HR)
    deny("caller_before_custody", "caller", unsigned, "24.7", caller={"agent": "orchestrator"})
    deny("caller_before_missing_proof", "caller", good, "24.7", stated="", caller={"agent": "mail-agent"})
    deny("expired_before_missing_proof", "expired", ended, "24.5", stated="")
    deny("table_before_missing_proof", "table", good, "24.5", HR, stated="")
    deny("unaddressed_before_missing_proof", "unaddressed", bound_to, "24.5", stated="")
    deny("no_name_before_missing_proof", "unaddressed", bound_to, "30.6", stated="", audiences=())
    deny("no_name_before_table", "unaddressed", bound_to, "30.6", HR, stated="", audiences=())
    deny("no_name_before_caller", "unaddressed", bound_to, "30.6", audiences=(), caller={"agent": "mail-agent"})
    deny("custody_before_missing_proof", "bad_proof", unsigned, "30.4", stated="")
    deny(
        "custody_before_used_proof",
        "bad_proof",
        unsigned,
        "24.16",
        replays={**store, "used": [use(signing_public("sales-agent"))]},
    )
    deny("bad_proof_before_store", "bad_proof", good, "24.16", stated=proved, replays={**store, "limit": 0})
    deny("missing_proof_before_store", "proof_missing", good, "24.16", stated="", replays={**store, "limit": 0})
    deny(
        "table_before_used_proof", "table", good, "24.16", HR, replays={**store, "used": [use(signing_public("orchestrator"))]}
    )
    deny("expired_before_full_store", "expired", ended, "24.16", replays={**store, "limit": 0})
    asked = asking(good, "one")
    deny("missing_discharge_before_missing_proof", "missing_discharge", asked, "24.6", stated="")
    minute_later = bundle(asked, discharge("one", {"exp": 0}))
    table.deny("ended_discharge_before_missing_proof", "24.5", "expired", minute_later, audiences=here)
    table.deny(
        "bad_discharge_before_missing_proof",
        "24.6",
        "bad_discharge",
        joined(asked, (discharge("one", {"exp": NOW + 60}),)),
        audiences=here,
    )
    bearer = extended(token(SALES), minute)
    deny("table_before_a_proof_that_is_not_due", "table", bearer, "30.7", HR)
    broken = proof(bearer, "orchestrator", of_access(SELECT))[:-1]
    deny("unreadable_proof_before_unknown_key", "malformed", extended(token(SALES, kid="k2"), minute), "24.2", stated=broken)
    deny("unreadable_proof_before_one_that_is_not_due", "malformed", bearer, "30.7", stated=broken)
    deny("unreadable_proof_before_expired", "malformed", ended, "24.2", stated=broken)
    child = handed(bound_to, "sales-agent")
    lifted = extended(bound_to, child.bodies[-1], minute)
    deny("caller_before_proof_of_the_parent", "caller", lifted, "24.7", caller={"agent": "orchestrator"})
