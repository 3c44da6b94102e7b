"""Narrowing: what each caveat lets a holder write, what it refuses as widening, and what clamping leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from captoken import Access, Issuer, Token, Verifier, WideningError
from captoken._format.encoding import LIMITS
from captoken._language import links
from captoken.caveats import Caveat, Situation, Vocabulary
from captoken.errors import DelegationError, LimitError
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, code, data, mint, named, tool, verifier

ALLOW = {"allow": {"sales": ["select"], "hr": ["update"], "market.*": ["select", "insert"], "market.secret": []}}
TOOLS = {"tools": {"search": {"q": {"any": True}, "limit": {"max": 10, "min": 0, "optional": True}}, "fetch": {}, "files.*": {"p": {"path": ["/a"]}}}}
FREE = {"unrestricted": True}


@pytest.mark.parametrize("cause", ["", "by name"])
def test_what_is_told_of_a_wish_is_cut_and_what_to_do_is_not_lost(cause: str) -> None:
    """1,500 characters of what was asked and held, and 500 of what to do."""
    told = str(WideningError("tables", "a" * 3000, "b", "c", "d" * 600, cause=cause))
    if cause:
        assert told == f"tables: {'d' * 500}; asked for '{'a' * 1489}"
    else:
        before = "tables: more than the token holds; asked for '"
        assert told == f"{before}{'a' * (1500 - len(before))}; {'d' * 500}"
    short = str(WideningError("aud", 1, 2, 3, "do this", cause=cause))
    compared = "asked for 1, it holds 2"
    assert short == (f"audience: do this; {compared}" if cause else f"audience: more than the token holds; {compared}, too much is 3; do this")


def written(token: Token) -> dict[str, Any]:
    """The last link, as JSON, without the nonce that goes with what is counted."""
    stated: dict[str, Any] = json.loads(token.unverified.bodies[-1])
    if {"uses", "budget"} & stated.keys():
        assert len(stated.pop("n")) == 11
    return stated


# What is held, what is asked, and the link that is written.
NARROWER: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (SALES, {"tables": ["sales"]}, {"tables": ["sales"]}),
    (SALES, {"tables": ("sales", "market.eu", "sales")}, {"tables": ["market.eu", "sales"]}),
    (SALES, {"tables": {"market.eu.*"}}, {"tables": ["market.eu.*"]}),
    (SALES, {"tables": ["*"]}, {"tables": ["*"]}),  # a pattern named alone is held if anything under it is
    (SALES, {"tables": []}, {"tables": []}),
    (SALES, {"operations": ["select"]}, {"operations": ["select"]}),
    (SALES, {"operations": []}, {"operations": []}),
    (SALES, {"allow": {"sales": ["select"]}}, {"allow": {"sales": ["select"]}}),
    (SALES, {"allow": {}}, {"allow": {}}),
    (SALES, {"columns": {"sales": ["region", "amount"]}}, {"columns": {"sales": ["amount", "region"]}}),
    (SALES, {"where": {"region": {"in": ["eu", "us"]}}}, {"where": {"region": {"in": ["eu", "us"]}}}),
    (SALES, {"expires_in": 60}, {"exp": NOW + 60}),
    (SALES, {"expires_in": 10_000}, {"exp": NOW + 900}),  # "at most": cut to what is held
    (SALES, {"expires_at": NOW + 900}, {"exp": NOW + 900}),
    (SALES, {"not_before": NOW + 5}, {"nbf": NOW + 5}),
    (SALES, {"audience": "sales-db"}, {"aud": ["sales-db"]}),
    (SALES, {"audience": ["b", "a", "b"]}, {"aud": ["a", "b"]}),
    (SALES, {"task": "task-123/part"}, {"task": "task-123/part"}),
    (SALES, {"task": "task-123"}, {"task": "task-123"}),
    (SALES, {"depth": 3}, {"depth": 3}),
    (SALES, {"delegate_only": True}, {"delegate_only": True}),
    (ALLOW, {"operations": ["update"]}, {"operations": ["update"]}),  # narrows to hr
    (ALLOW, {"tables": ["market.*"]}, {"tables": ["market.*"]}),
    (ALLOW, {"tables": ["market.eu"], "operations": ["insert"]}, {"operations": ["insert"], "tables": ["market.eu"]}),
    ({"allow": {"*": ["*"]}}, {"operations": ["*"]}, {"operations": ["*"]}),
    ({"allow": {"*": ["select"]}, "columns": {"people": ["name", "city"]}}, {"columns": {"people": ["name"]}}, {"columns": {"people": ["name"]}}),
    ({"allow": {"*": ["select"]}, "columns": {"*": ["*"], "people": ["name"]}}, {"columns": {"sales": ["x"]}}, {"columns": {"sales": ["x"]}}),
    (TOOLS, {"tools": {"search": {"q": {"in": ["a"]}}}}, {"tools": {"search": {"q": {"in": ["a"]}}}}),  # limit may be absent
    (TOOLS, {"tools": {"fetch": {"url": {"any": True}}}}, {"tools": {"fetch": {"url": {"any": True}}}}),
    (TOOLS, {"tools": {"files.read": {"p": {"path": ["/a/b"]}}}}, {"tools": {"files.read": {"p": {"path": ["/a/b"]}}}}),
    (FREE, {"tools": {"any.*": {}}, "tables": ["x"]}, {"tables": ["x"], "tools": {"any.*": {}}}),
    ({**FREE, "where": {"n": {"min": 1, "max": 9}}}, {"where": {"n": {"in": [1, 5]}}}, {"where": {"n": {"in": [1, 5]}}}),
    ({**FREE, "where": {"p": {"path": ["/a"]}}}, {"where": {"p": {"path": ["/a/b", "/a/c"]}}}, {"where": {"p": {"path": ["/a/b", "/a/c"]}}}),
    ({**FREE, "where": {"n": {"any": True}}}, {"where": {"n": {"min": 3}}}, {"where": {"n": {"min": 3}}}),
    ({**FREE, "audience": ["a", "b"]}, {"audience": "a"}, {"aud": ["a"]}),
    ({**FREE, "depth": 2}, {"depth": 2}, {"depth": 2}),
    (SALES, {"uses": 5, "budget": {"rows": 0, "eur": 5}, "fresh": 60}, {"budget": {"eur": 5, "rows": 0}, "fresh": 60, "uses": 5}),
    (FREE, {"where": {"n": {"min": 1 - 2**53, "max": 2**53 - 1}}}, {"where": {"n": {"max": 2**53 - 1, "min": 1 - 2**53}}}),
    (FREE, {"where": {"n": {"in": [1 - 2**53, 2**53 - 1]}}}, {"where": {"n": {"in": [1 - 2**53, 2**53 - 1]}}}),
    (FREE, {"where": {"n": {"each": {"any": True}, "most": 2**53 - 1}}}, {"where": {"n": {"each": {"any": True}, "most": 2**53 - 1}}}),
    ({**FREE, "uses": 5}, {"uses": 5}, {"uses": 5}),
    ({**FREE, "uses": 5}, {"uses": 0}, {"uses": 0}),
    ({**FREE, "uses": 5}, {"budget": {"eur": 2**53 - 1}}, {"budget": {"eur": 2**53 - 1}}),
    ({**FREE, "budget": {"eur": 5}}, {"budget": {"eur": 5, "usd": 7}, "uses": 1}, {"budget": {"eur": 5, "usd": 7}, "uses": 1}),
    ({**FREE, "fresh": 30}, {"fresh": 30}, {"fresh": 30}),
    ({**FREE, "fresh": 30}, {"fresh": 0}, {"fresh": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("held", "asked", "link"), NARROWER, ids=repr)
def test_what_is_held_may_be_written(held: dict[str, Any], asked: dict[str, Any], link: dict[str, Any]) -> None:
    """The link is written as asked, tidied; the token that it was made from is as it was."""
    token = mint(**held)
    before = token.serialize()
    child = token.attenuate(**asked)
    assert written(child) == link and token.serialize() == before
    assert verifier(audience=("a", "b", "sales-db"), allow_unaddressed=True).check(child.serialize(), Access()).code not in (
        "bad_signature", "malformed", "unreadable_link", "unknown_caveat",
    )  # fmt: skip


# What is held, what is asked, the dimension that the error names, and what clamping writes (None: nothing is left).
WIDER: list[tuple[dict[str, Any], dict[str, Any], str, dict[str, Any] | None]] = [
    (SALES, {"tables": ["sales", "hr"]}, "tables", {"tables": ["sales"]}),
    (SALES, {"tables": ["hr"]}, "tables", None),
    (SALES, {"tables": ["market"]}, "tables", None),
    (SALES, {"operations": ["select", "delete"]}, "operations", {"operations": ["select"]}),
    (SALES, {"operations": ["*"]}, "operations", {"operations": ["select"]}),
    (SALES, {"operations": ["delete"]}, "operations", None),
    (SALES, {"tables": ["sales"], "operations": ["select", "update"]}, "operations", {"tables": ["sales"], "operations": ["select"]}),
    (SALES, {"tables": ["*"], "operations": ["select"]}, "tables", {"tables": ["market.*", "sales"], "operations": ["select"]}),
    (SALES, {"tables": ["hr"], "operations": ["update"]}, "tables", None),
    (SALES, {"allow": {"sales": ["select", "update"]}}, "allow", {"tables": ["sales"], "operations": ["select"]}),
    (SALES, {"allow": {"hr": ["select"]}}, "allow", None),
    (ALLOW, {"tables": ["sales", "hr"], "operations": ["select", "update"]}, "operations", {"allow": {"sales": ["select"], "hr": ["update"]}}),
    (ALLOW, {"allow": {"market.*": ["select"]}}, "allow", {"allow": {"market.*": ["select"], "market.secret": []}}),
    ({"allow": {"*": ["select"]}, "columns": {"people": ["name"]}}, {"columns": {"people": ["name", "pay"]}}, "columns", {"columns": {"people": ["name"]}}),
    ({"allow": {"*": ["select"]}, "columns": {"people": ["name"]}}, {"columns": {"people": ["*"]}}, "columns", {"columns": {"people": ["name"]}}),
    ({"allow": {"*": ["select"]}, "columns": {"people": ["name"]}}, {"columns": {"*": ["pay"]}}, "columns", {"columns": {"*": ["pay"], "people": []}}),
    (SALES, {"columns": {"hr": ["pay"]}}, "columns", None),
    (SALES, {"tools": {"search": {}}}, "tools", None),
    (TOOLS, {"tools": {"shell": {}}}, "tools", None),
    (TOOLS, {"tools": {"search": {}}}, "tools", {"tools": {"search": {"q": {"any": True}, "limit": {"max": 10, "min": 0, "optional": True}}}}),
    (TOOLS, {"tools": {"search": {"limit": {"max": 5}}}}, "tools", None),  # q must be present, and is left out
    (TOOLS, {"tools": {"search": {"q": {"any": True}, "limit": {"max": 11}}}}, "tools", {"tools": {"search": {"q": {"any": True}, "limit": {"max": 10, "min": 0}}}}),
    (TOOLS, {"tools": {"search": {"q": {"any": True}, "lang": {"any": True}}}}, "tools", None),
    (TOOLS, {"tools": {"*": {}}}, "tools", {"tools": {"fetch": {}, "files.*": {"p": {"path": ["/a"]}}, "search": {"q": {"any": True}, "limit": {"max": 10, "min": 0, "optional": True}}}}),
    ({**FREE, "where": {"r": {"in": ["eu"]}}}, {"where": {"r": {"in": ["eu", "us"]}}}, "where", {"where": {"r": {"in": ["eu"]}}}),
    ({**FREE, "where": {"r": {"in": ["eu"]}}}, {"where": {"r": {"in": ["us"]}}}, "where", None),
    ({**FREE, "where": {"n": {"in": [1, 2, 3]}}}, {"where": {"n": {"min": 1, "max": 3}}}, "where", {"where": {"n": {"in": [1, 2, 3]}}}),
    ({**FREE, "where": {"n": {"max": 3}}}, {"where": {"n": {"any": True}}}, "where", {"where": {"n": {"max": 3, "min": 0}}}),
    ({**FREE, "where": {"n": {"max": 3}}}, {"where": {"n": {"path": ["/"]}}}, "where", None),
    ({**FREE, "where": {"p": {"path": ["/a"]}}}, {"where": {"p": {"path": ["/"]}}}, "where", {"where": {"p": {"path": ["/a"]}}}),
    (SALES, {"expires_at": NOW + 901}, "exp", {"exp": NOW + 900}),
    ({**FREE, "not_before": NOW}, {"not_before": NOW - 1}, "nbf", {"nbf": NOW}),
    ({**FREE, "audience": ["a", "b"]}, {"audience": ["b", "c"]}, "aud", {"aud": ["b"]}),
    ({**FREE, "audience": ["a"]}, {"audience": ["c"]}, "aud", None),
    (SALES, {"task": "task-9"}, "task", None),
    (SALES, {"task": "task-12"}, "task", None),
    ({**FREE, "depth": 1}, {"depth": 2}, "depth", {"depth": 1}),
    ({**FREE, "uses": 5}, {"uses": 6}, "uses", {"uses": 5}),
    ({**FREE, "uses": 0}, {"uses": 1}, "uses", {"uses": 0}),
    ({**FREE, "budget": {"eur": 5, "usd": 5}}, {"budget": {"eur": 6, "usd": 4, "rows": 9}}, "budget", {"budget": {"eur": 5, "usd": 4, "rows": 9}}),
    ({**FREE, "fresh": 30}, {"fresh": 31}, "fresh", {"fresh": 30}),
    ({**FREE, "fresh": 0}, {"fresh": 60}, "fresh", {"fresh": 0}),
]  # fmt: skip


SAID = {"aud": "audience", "exp": "expires_at", "nbf": "not_before"}  # the dimensions that writers know by another name


@pytest.mark.parametrize(("held", "asked", "dimension", "left"), WIDER, ids=repr)
def test_what_is_not_held_is_widening(held: dict[str, Any], asked: dict[str, Any], dimension: str, left: dict[str, Any] | None) -> None:
    """The error names the dimension, what was asked, held and too much, and a way out; clamping writes what is left."""
    token = mint(**held)
    before = token.serialize()
    with pytest.raises(WideningError) as caught:
        token.attenuate(**asked)
    error = caught.value
    assert (error.dimension, error.code) == (dimension, "widening") and error.hint
    said = f"{SAID.get(dimension, dimension)}: "  # then what to do, where it can be said by name
    assert str(error).startswith((f"{said}more than the token holds; asked for ", f"{said}{error.hint}; asked for "))
    assert ("asked for 2025-11-25T0" in str(error)) == (dimension in ("exp", "nbf"))
    assert error.asked is not None and error.excess is not None and before[5:40] not in f"{error} {error.args} {vars(error)}"
    if left is None:
        with pytest.raises(WideningError) as caught:
            token.attenuate(**asked, clamp=True)
        assert caught.value.code == "nothing_left"
    else:
        assert written(token.attenuate(**asked, clamp=True)) == left
    assert token.serialize() == before


def test_each_dimension_is_clamped_by_itself() -> None:
    """What is too much of two of them is cut in both."""
    held = mint(**SALES, expires_at=NOW + 10, not_before=NOW)
    child = held.attenuate(expires_at=NOW + 20, not_before=NOW - 20, tables=["sales", "hr"], clamp=True)
    assert written(child) == {"exp": NOW + 10, "nbf": NOW, "tables": ["sales"]}


def test_a_task_above_the_one_held_is_widening_and_clamps_to_it() -> None:
    token = mint().attenuate(task="task-123/part")
    with pytest.raises(WideningError, match="task"):
        token.attenuate(task="task-123")
    assert written(token.attenuate(task="task-123", clamp=True)) == {"task": "task-123/part"}


MISTAKES: list[tuple[dict[str, Any], type[Exception]]] = [
    ({}, ValueError),
    ({"tables": "sales"}, TypeError),
    ({"tables": None}, TypeError),
    ({"tables": 5}, TypeError),
    ({"tables": (x for x in ["sales"])}, TypeError),
    ({"tables": [5]}, TypeError),
    ({"tables": [b"sales"]}, TypeError),
    ({"tables": [["sales"]]}, TypeError),
    ({"tables": ["a..b"]}, ValueError),
    ({"tables": ["a*"]}, ValueError),
    ({"tables": ["*.a"]}, ValueError),
    ({"tables": [" sales"]}, ValueError),
    ({"tables": ["sa\nles"]}, ValueError),
    ({"tables": ["e\u0301t\u00e9"]}, ValueError),  # not NFC
    ({"allow": {"e\u0301t\u00e9": ["select"]}}, ValueError),  # nor in the keys of maps, at any depth
    ({"columns": {"e\u0301t\u00e9": ["region"]}}, ValueError),
    ({"columns": {"sales": ["e\u0301t\u00e9"]}}, ValueError),
    ({"tools": {"search": {"e\u0301t\u00e9": {"any": True}}}}, ValueError),
    ({"tools": {"search": {"q": {"in": ["e\u0301t\u00e9"]}}}}, ValueError),
    ({"where": {"e\u0301t\u00e9": {"any": True}}}, ValueError),
    ({"where": {"n": {"each": {"in": ["e\u0301t\u00e9"]}}}}, ValueError),
    ({"tables": ["\ud800"]}, ValueError),
    ({"tables": ["x" * 257]}, ValueError),
    ({"operations": "select"}, TypeError),
    ({"operations": ["sel ect"]}, ValueError),
    ({"allow": [["sales", "select"]]}, TypeError),
    ({"allow": {"sales": "select"}}, TypeError),
    ({"allow": {5: ["select"]}}, TypeError),
    ({"columns": {}}, ValueError),
    ({"columns": {"sales": "region"}}, TypeError),
    ({"tools": {"search": None}}, TypeError),
    ({"tools": {"search": {"q": "x"}}}, TypeError),
    ({"tools": {"search": {"q": {}}}}, ValueError),
    ({"tools": {"search": {"q": {"any": True, "optional": False}}}}, ValueError),
    ({"tools": {"search": {"q": {"any": False}}}}, ValueError),
    ({"tools": {"search": {"q": {"regex": "x"}}}}, ValueError),
    ({"where": {}}, ValueError),
    ({"where": {"n": {"min": 5, "max": 4}}}, ValueError),
    ({"where": {"n": {"min": 1.5}}}, TypeError),
    ({"where": {"n": {"min": True}}}, TypeError),
    ({"where": {"n": {"min": 2**53}}}, ValueError),
    ({"where": {"n": {"min": -(2**53)}}}, ValueError),
    ({"where": {"n": {"min": 0, "max": 2**53}}}, ValueError),
    ({"where": {"n": {"in": [2**53]}}}, ValueError),
    ({"where": {"n": {"in": "eu"}}}, TypeError),
    ({"where": {"n": {"in": [1.5]}}}, TypeError),
    ({"where": {"n": {"in": [""]}}}, ValueError),
    ({"where": {"p": {"path": ["a"]}}}, ValueError),
    ({"where": {"p": {"path": ["/a/"]}}}, ValueError),
    ({"where": {"p": {"path": ["/a/../b"]}}}, ValueError),
    ({"where": {"p": {"path": ["/a%2Fb"]}}}, ValueError),
    ({"where": [("n", {"any": True})]}, TypeError),
    ({"task": "a/./b"}, ValueError),
    ({"audience": [5]}, TypeError),
    ({"from": "a"}, TypeError),
    ({"exp": NOW}, TypeError),
    ({"tabels": ["sales"]}, TypeError),
    ({"tables": ["sales"], "keep": "columns"}, ValueError),
    ({"expires_in": 5, "keep": "tools"}, ValueError),
    ({"tables": ["sales"], "clamp": "no"}, TypeError),
    ({"delegate_only": False}, ValueError),
    ({"uses": 1.0}, TypeError),
    ({"uses": True}, TypeError),
    ({"uses": -1}, ValueError),
    ({"uses": 2**53}, ValueError),
    ({"budget": {}}, ValueError),
    ({"budget": [["eur", 1]]}, TypeError),
    ({"budget": {"eur": "1"}}, TypeError),
    ({"budget": {"eur": -1}}, ValueError),
    ({"budget": {"": 1}}, ValueError),
    ({"budget": {"uses": 1}}, ValueError),
    ({"fresh": -1}, ValueError),
    ({"fresh": "60"}, TypeError),
    ({"n": "AAAAAAAAAAA"}, TypeError),
]


@pytest.mark.parametrize(("asked", "error"), MISTAKES, ids=named)
def test_a_mistake_is_told_at_once(asked: dict[str, Any], error: type[Exception]) -> None:
    token = mint(unrestricted=True)
    before = token.serialize()
    with pytest.raises(error):
        token.attenuate(**asked)
    assert token.serialize() == before


def test_nesting_without_end_is_a_mistake_like_others() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        mint().attenuate(where={"a": {"in": deep}})


def test_an_enum_or_a_subclass_is_no_name() -> None:
    """A subclass of str may compare as it likes: only str itself is taken."""

    class Sly(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return hash("sales")

    with pytest.raises(TypeError):
        mint().attenuate(tables=[Sly("hr")])
    with pytest.raises(TypeError):
        mint().attenuate(task=Sly("task-9"))


def test_what_is_given_is_copied() -> None:
    tables = ["sales"]
    rule: dict[str, Any] = {"region": {"in": ["eu"]}}
    child = mint().attenuate(tables=tables, where=rule)
    before = child.serialize()
    tables.append("hr")
    rule["region"]["in"].append("us")
    assert child.serialize() == before and not child.unverified.capability.prohibits(data("sales", region="eu"))


def test_a_link_that_names_one_domain_closes_the_other_unless_told_to_keep_it() -> None:
    both = mint(**SALES, tools={"search": {}})
    assert code(both.attenuate(tables=["sales"]), tool("search")) == "domain"
    assert code(both.attenuate(tables=["sales"], keep="tools"), tool("search")) == "allowed"
    assert code(both.attenuate(tools={"search": {}}), data("sales")) == "domain"
    assert code(both.attenuate(tools={"search": {}}, keep=["tables"]), data("sales")) == "allowed"
    assert code(both.attenuate(tables=["sales"], keep="tools"), tool("shell")) == "tool", "it keeps what there was"


def test_delegation_names_parent_and_child_with_a_nonce() -> None:
    token = mint()
    one, two = token.delegate(to="sales-agent"), token.delegate(to="sales-agent")
    assert written(one)["from"] == "orchestrator" and written(one)["to"] == "sales-agent"
    assert one != two and written(one)["n"] != written(two)["n"], "two equal delegations are two tokens"
    assert one.unverified.holder == "sales-agent" and token.unverified.holder == "orchestrator"


def test_delegation_goes_neither_back_nor_too_deep() -> None:
    token = mint(**SALES, depth=2).delegate(to="b").delegate(to="c")
    with pytest.raises(DelegationError) as caught:
        token.delegate(to="d")
    assert caught.value.code == "too_deep"
    for again in ("orchestrator", "b", "c"):
        with pytest.raises(DelegationError) as caught:
            mint().delegate(to="b").delegate(to="c").delegate(to=again)
        assert caught.value.code == "broken_delegation"
    with pytest.raises(ValueError, match="to"):
        mint().delegate(to="sales agent")


def test_depth_counts_the_delegations_after_its_own_link() -> None:
    held = mint(**SALES, depth=2)
    assert written(held.delegate(to="b", depth=1))["depth"] == 1
    with pytest.raises(WideningError) as caught:
        held.delegate(to="b", depth=2)
    assert (caught.value.dimension, caught.value.held, caught.value.excess) == ("depth", 1, 1)
    assert written(held.delegate(to="b", depth=2, clamp=True))["depth"] == 1


def test_delegate_only_is_not_taken_back() -> None:
    held = mint(**SALES, delegate_only=True)
    with pytest.raises(WideningError, match="delegate_only"):
        held.attenuate(delegate_only=False)
    with pytest.raises(ValueError, match="nothing is restricted"):
        held.attenuate(delegate_only=False, clamp=True)
    assert code(held, data("sales")) == "delegate_only"
    assert code(held.delegate(to="b"), data("sales")) == "allowed"


def test_present_is_for_one_server_and_one_minute() -> None:
    """A token that is presented works at one server, and dies soon; the one held stays at home."""
    token = mint()
    text = token.present(audience="sales-db")
    assert json.loads(Token.parse(text).unverified.bodies[-1]) == {"aud": ["sales-db"], "exp": NOW + 60}
    assert code(text, data("sales"), audience="sales-db") == "allowed"
    assert code(text, data("sales"), audience="other") == "wrong_audience"
    assert code(text, data("sales"), audience="sales-db", clock=FixedClock(NOW + 60)) == "expired"
    narrow = token.present(audience="sales-db", expires_in=5, tables=["sales"], clock=FixedClock(NOW + 2))
    assert json.loads(Token.parse(narrow).unverified.bodies[-1]) == {"aud": ["sales-db"], "exp": NOW + 7, "tables": ["sales"]}
    for nobody in ("", []):
        with pytest.raises(ValueError, match="audience is empty"):
            token.present(audience=nobody)
    with pytest.raises(WideningError, match="aud"):
        mint(**SALES, audience="ledger").present(audience="sales-db")


def test_present_refuses_what_does_not_fit_a_header_and_says_what_costs() -> None:
    token = mint()
    for at in range(28):
        token = token.attenuate(where={f"attribute-{at}": {"in": ["v" * 100, "w" * 40]}})
    with pytest.raises(LimitError) as caught:
        token.present(audience="sales-db")
    assert len(caught.value.costs) == 31 and caught.value.costs[0][0] == "root record" and "link 5" in str(caught.value)
    assert len(token.present(audience="sales-db", max_chars=LIMITS.token_chars)) > LIMITS.present_chars


def test_a_token_does_not_grow_beyond_what_readers_take() -> None:
    token = mint()
    for _ in range(LIMITS.links - 1):
        token = token.attenuate(operations=["select"])
    with pytest.raises(LimitError, match="65 links"):
        token.attenuate(operations=["select"])
    assert code(token, data("sales")) == "allowed", "what fits, works"
    long = mint()
    with pytest.raises(LimitError, match="8192 characters"):
        for at in range(40):
            long = long.attenuate(where={f"attribute-{at}": {"in": ["v" * 200]}})


class Region(Caveat, frozen=True):
    """The embedding project's own: the access's region is one of these."""

    key = "acme:region"

    def __post_init__(self) -> None:
        if type(self.value) is not list:
            raise TypeError("a list of regions")

    def prohibits(self, access: Access, situation: Situation) -> str | None:
        return None if access.attributes.get("region") in self.value else "another region"

    def covers(self, other: Caveat) -> bool:
        return set(other.value) <= set(self.value)


def test_own_caveats_narrow_as_they_say_they_do() -> None:
    """`covers` makes the check finer; without it only an equal one is covered."""

    class Plain(Region, frozen=True):
        key = "acme:plain"

        def covers(self, other: Caveat) -> bool:
            return Caveat.covers(self, other)

    vocabulary = Vocabulary(Region, Plain)
    issuer = Issuer(KEYRING, vocabulary=vocabulary, clock=clock())
    own: Any = {"acme:region": ["eu", "us"], "acme:plain": ["eu", "us"]}
    token = issuer.mint(**WHO, **SALES, **own)
    check = Verifier(KEYRING, vocabulary=vocabulary, clock=clock()).check
    child = token.attenuate(**{"acme:region": ["eu"]})  # type: ignore[arg-type]
    assert check(child.serialize(), data("sales", region="eu")).code == "allowed"
    assert check(child.serialize(), data("sales", region="us")).code == "attribute"
    for asked in ({"acme:region": ["eu", "asia"]}, {"acme:plain": ["eu"]}):
        for clamp in (False, True):
            with pytest.raises(WideningError) as caught:
                token.attenuate(**asked, clamp=clamp)  # type: ignore[arg-type]
            assert caught.value.code == ("nothing_left" if clamp else "widening")
    assert written(token.attenuate(**{"acme:plain": ["eu", "us"]}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="float"):
        token.attenuate(**{"acme:region": [1.5]})  # type: ignore[arg-type]
    assert verifier().check(token.serialize(), data("sales", region="eu")).code == "unknown_caveat"


def test_what_is_derived_reads_its_own_link_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody's child fills the memory of its parent."""
    seen: list[bytes] = []
    read = links.read_link
    monkeypatch.setattr(links, "read_link", lambda body, vocabulary: seen.append(body) or read(body, vocabulary))
    token = mint(**SALES)
    for hop in range(6):
        token = token.delegate(to=f"agent-{hop}", tables=["sales"], expires_in=3000 - hop)
    before = dict(token.unverified.known)
    for number in range(5):
        assert token.attenuate(expires_in=60 + number).present(audience="db")
    assert token.unverified.known.keys() == before.keys() | {token.unverified.bodies[-1]}
    assert len(seen) == len(set(seen))


def test_a_token_that_cannot_be_used_can_still_be_held_narrowed_and_shown() -> None:
    """A newer issuer's caveat prohibits everything here, and stands in no holder's way."""
    vocabulary = Vocabulary(Region)
    newer: Any = {"acme:region": ["eu"]}
    text = Issuer(KEYRING, vocabulary=vocabulary, clock=clock()).mint(**WHO, **SALES, **newer).serialize()
    token = Token.parse(text, clock=clock())
    child = token.delegate(to="b", tables=["sales"])
    assert child.unverified.capability.nothing and child.unverified.holder == "b"
    assert code(child, data("sales")) == "unknown_caveat"
    assert Verifier(KEYRING, vocabulary=vocabulary, clock=clock()).check(child.serialize(), data("sales", region="eu"))


def test_free_arguments_where_none_are_held_name_no_argument() -> None:
    """There is none to name: what is held is a call without arguments."""
    held = mint(tools={"ping": {"_": {"in": [], "optional": True}}})
    with pytest.raises(WideningError) as caught:
        held.attenuate(tools={"ping": {}})
    assert caught.value.hint.startswith("ask for less")
    assert held.attenuate(tools={"ping": {}}, clamp=True)
