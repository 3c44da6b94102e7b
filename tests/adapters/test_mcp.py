"""An MCP server with a guard: what no token permits does not reach a tool, over whichever transport, in either SDK.

One file for mcp 1.x and 2.x: what only one of them has is defined only there.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest
from mcp.client.auth.utils import extract_resource_metadata_from_www_auth

from captoken import Access, AsyncGrant, AsyncVerifier, Denied, Issuer, Keyring, Verifier, WideningError, current
from captoken._language.overlay import snapshot
from captoken._verification.mistakes import mistake
from captoken.adapters._mcp import messages as _mcp
from captoken.adapters._mcp.gate import Gate
from captoken.adapters._mcp.messages import TOKEN
from captoken.adapters.mcp import TWO, Guard, explains_denials
from captoken.adapters.mcp_client import Presenting, meta_for, meta_for_request
from captoken.audit import AuditTrail
from captoken.control import Entry, Overlay, Selector
from captoken.current import Held
from captoken.errors import NoToken, Refused
from captoken.keys import HolderKey, OperatorKey
from captoken.proof import http_request, mcp_request, with_proof
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.testing import FixedClock
from captoken.tools import guarded_tool
from tests import fixtures
from tests.adapters.mcp_asking import MCPError, in_process, is_error, on_stdio, text, to_http
from tests.adapters.mcp_served import AUDIENCE, Ran, Server, http_app, over_http, served, tools

TOOLS: dict[str, Any] = {
    "pay": {"cents": {"max": 500}, "to": {"in": ["acct-1"], "optional": True}},
    "look": {},
    "wait": {},
    "seen": {},
    "boom": {},
    "resources/read": {"uri": {"in": ["sales://q3", "note://a/text"]}},
    "prompts/get": {"name": {"in": ["greet"]}, "arguments.name": {"in": ["bob"]}},
}


@pytest.fixture(autouse=True)
def silence() -> Generator[None, None, None]:
    """The SDKs log to handlers of their own."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def mint(**caveats: Any) -> Any:
    return fixtures.mint(**(caveats or {"tools": TOOLS}))


def sent(token: Any = None, **caveats: Any) -> dict[str, str]:
    """The `_meta` of a client that narrows nothing but the server."""
    return {TOKEN: (token or mint(**caveats)).present(audience=AUDIENCE)}


def verifier(**facts: Any) -> Verifier:
    return fixtures.verifier(**{"audience": AUDIENCE, **facts})


def asked(server: Any, body: Callable[[Any], Any]) -> Any:
    """What `body` makes of a client of `server`, in this process."""

    async def run() -> Any:
        async with in_process(server) as client:
            await listing(client)
            return await body(client)

    return anyio.run(run)


def admit(gate: Gate, message: _mcp.Message) -> Any:
    return anyio.run(gate.admitted, message)


async def listing(client: Any) -> None:
    """An SDK's client lists the tools before it takes a result: here at once, with a token for all."""
    await Presenting(client, audience=AUDIENCE, held=mint(tools={"*": {}})).list_tools()


async def outcome(call: Any) -> tuple[str, Any]:
    """How a call ended: (`ran`, what it said), (`told`, to the model), or (`error`, its code).

    Of a client of ours, a refusal of the server's is one type, whichever of the two it was.
    """
    try:
        result = await call
    except MCPError as error:
        return "error", error.error.code
    except Refused as refused:
        assert not refused.here
        assert refused.__cause__ is None and refused.__context__ is None  # one line says it
        if refused.kind in ("invalid", "proof", "unavailable"):
            return "error", _mcp.STATUS[refused.kind]
        return "told", refused.for_model
    return ("told" if is_error(result) else "ran"), text(result)


# --- what comes without a token, or with one that is none ------------------------------------------------------------


def other_issuer() -> str:
    return Issuer(Keyring.from_keys({"k1": bytes(range(2, 34))}, current="k1"), clock=fixtures.clock()).mint(
        **fixtures.WHO, tools=TOOLS).present(audience=AUDIENCE)  # fmt: skip


def tampered() -> str:
    good = sent()[TOKEN]
    return good[:-1] + ("A" if good[-1] != "A" else "B")


NO_PROOF = "cap1p_" + "A" * 118  # spelled as one

BAD_TOKENS: list[tuple[str, Callable[[], Any]]] = [
    ("no _meta", lambda: None),
    ("no token in _meta", lambda: {"io.example/other": "x"}),
    ("an empty token", lambda: {TOKEN: ""}),
    ("a token that is no text", lambda: {TOKEN: 5}),
    ("a token in a list", lambda: {TOKEN: [sent()[TOKEN]]}),
    ("a proof for a token that is bound to no key", lambda: {TOKEN: f"{sent()[TOKEN]}.{NO_PROOF}"}),
    ("a proof alone", lambda: {TOKEN: NO_PROOF}),
    ("a proof before the token", lambda: {TOKEN: f"{NO_PROOF}.{sent()[TOKEN]}"}),
    ("two proofs", lambda: {TOKEN: f"{sent()[TOKEN]}.{NO_PROOF}.{NO_PROOF}"}),
    ("another word for it", lambda: {"captoken": sent()[TOKEN]}),
    ("the key in capitals", lambda: {TOKEN.upper(): sent()[TOKEN]}),
    ("white space before it", lambda: {TOKEN: " " + sent()[TOKEN]}),
    ("Bearer before it", lambda: {TOKEN: "Bearer " + sent()[TOKEN]}),
    ("another issuer's", lambda: {TOKEN: other_issuer()}),
    ("one with a character changed", lambda: {TOKEN: tampered()}),
    ("one that is addressed to nobody", lambda: {TOKEN: mint().serialize()}),
    ("one for another server", lambda: {TOKEN: mint().present(audience="hr-mcp")}),
    ("one that has expired", lambda: {TOKEN: mint(tools=TOOLS, expires_at=fixtures.NOW).serialize()}),
    ("a megabyte", lambda: {TOKEN: "cap1_" + "A" * 1_000_000}),
]


@pytest.mark.parametrize(("what", "meta"), BAD_TOKENS, ids=[what for what, _ in BAD_TOKENS])
def test_a_token_that_is_none_is_a_protocol_error_and_nothing_runs(what: str, meta: Callable[[], Any]) -> None:
    ran = Ran()
    assert asked(served(ran), lambda client: outcome(client.call_tool("look", {}, meta=meta()))) == ("error", 401)
    assert ran.calls == []


def test_the_same_token_unharmed_runs() -> None:
    """So that the table above does not hold for a reason of its own."""
    ran = Ran()
    assert asked(served(ran), lambda client: outcome(client.call_tool("look", {}, meta=sent())))[0] == "ran"
    assert ran.calls == [("look", "", "orchestrator")]


def test_no_reason_is_given_that_tells_forged_revoked_and_unknown_apart() -> None:
    async def said(client: Any) -> set[str]:
        answers = set()
        for token in (other_issuer(), tampered(), "cap1_AAAA"):
            with pytest.raises(MCPError) as refused:
                await client.call_tool("look", {}, meta={TOKEN: token})
            answers.add(str(refused.value.error.message))
            number = refused.value.error.data.pop(_mcp.DECISION)
            assert refused.value.error.data == {_mcp.KIND: "invalid"} and len(number) == 12
        return answers

    assert asked(served(Ran()), said) == {"The token was not accepted."}


def test_a_token_among_the_arguments_is_an_argument() -> None:
    ran = Ran()
    arguments = {"term": "x", TOKEN: sent()[TOKEN], "_meta": sent()}
    assert asked(served(ran), lambda client: outcome(client.call_tool("look", arguments))) == ("error", 401)
    assert ran.calls == []


# --- tools and their arguments ---------------------------------------------------------------------------------------

CALLS: list[tuple[str, Any, str]] = [
    ("pay", {"cents": 500}, "ran"),
    ("pay", {"cents": 500, "to": "acct-1"}, "ran"),
    ("pay", {"cents": 501}, "told"),
    ("pay", {"cents": 5, "to": "acct-9"}, "told"),
    ("pay", {"cents": 5, "memo": "x"}, "told"),  # an argument that nobody named, though the tool would drop it
    ("pay", {"cents": "5"}, "told"),  # text that the tool would read as 5
    ("pay", {"cents": "9999"}, "told"),
    ("pay", {"cents": 5.0}, "ran"),  # a number, compared as one
    ("pay", {"cents": 500.5}, "told"),
    ("pay", {"cents": True}, "told"),
    ("pay", {"cents": None}, "told"),
    ("pay", {"cents": [5]}, "told"),
    ("pay", {"cents": 5, "to": '["acct-1"]'}, "told"),
    ("pay", {"cents": 5, "to": "acct-1 "}, "told"),
    ("pay", {"Cents": 5}, "told"),
    ("pay", {}, "told"),
    ("pay", None, "told"),
    ("look", {"term": "anything", "more": [1.5, None, {}]}, "ran"),  # its arguments are free
    ("Pay", {"cents": 5}, "told"),
    ("pay ", {"cents": 5}, "told"),
    (" pay", {"cents": 5}, "told"),
    ("pay\0", {"cents": 5}, "told"),
    ("p\u0430y", {"cents": 5}, "told"),  # with a Cyrillic letter
    ("ｐay", {"cents": 5}, "told"),  # and a wide one
    ("pa\u200by", {"cents": 5}, "told"),
    ("*", {}, "told"),
    ("", {}, "told"),
    ("x" * 1000, {}, "told"),
    ("nothing", {}, "told"),  # is served, and not permitted
    ("resources/read", {"uri": "sales://q3"}, "told"),  # a tool that poses as a method, by the very name of a method
    ("tools/call", {"name": "look"}, "told"),
    ("prompts/get", {"name": "greet", "arguments.name": "bob"}, "told"),
]


@pytest.mark.parametrize(("tool", "arguments", "end"), CALLS, ids=[f"{n:02}" for n in range(len(CALLS))])
def test_a_call_is_let_in_or_refused_by_what_came(tool: str, arguments: Any, end: str) -> None:
    ran = Ran()
    found, said = asked(served(ran), lambda client: outcome(client.call_tool(tool, arguments, meta=sent())))
    assert found == end, said
    assert len(ran.calls) == (end == "ran")
    if end == "told":
        assert said.startswith(("Not permitted: tool", "Not permitted"))


def test_what_runs_is_what_was_checked() -> None:
    """A default is the server's own: the caveat's `optional` lets it in, and what is stated is what the tool gets."""
    ran = Ran()

    async def body(client: Any) -> None:
        await client.call_tool("pay", {"cents": 7}, meta=sent())
        await client.call_tool("pay", {"cents": 7, "to": "acct-1"}, meta=sent())

    asked(served(ran), body)
    assert [call[1] for call in ran.calls] == [[7, "acct-9"], [7, "acct-1"]]
    required = {"tools": {"pay": {"cents": {"max": 500}, "to": {"in": ["acct-1"]}}}}
    calling = lambda client: outcome(client.call_tool("pay", {"cents": 7}, meta=sent(**required)))  # noqa: E731
    assert asked(served(Ran()), calling)[0] == "told"


def test_a_wildcard_does_not_reach_a_name_that_poses_as_a_method() -> None:
    ran = Ran()
    everything = sent(tools={"*": {}})
    assert asked(served(ran), lambda client: outcome(client.call_tool("resources/read", {}, meta=everything)))[0] == "told"
    assert ran.calls == []


def test_a_tool_that_is_permitted_and_not_served_is_the_servers_to_answer() -> None:
    ran = Ran()
    found, said = asked(served(ran), lambda client: outcome(client.call_tool("drop", {}, meta=sent(tools={"drop": {}}))))
    assert "Not permitted" not in str(said) and found != "ran" and ran.calls == []


def test_the_error_of_a_tool_is_its_own_and_shows_no_token() -> None:
    good = sent()
    found, said = asked(served(Ran()), lambda client: outcome(client.call_tool("boom", {}, meta=good)))
    assert found == "told" and "boom" in said and good[TOKEN] not in said


def test_a_tool_does_not_see_the_token_that_its_call_came_with() -> None:
    good = {**sent(), "io.example/trace": "t-1"}
    found, said = asked(served(Ran()), lambda client: outcome(client.call_tool("seen", {}, meta=good)))
    assert found == "ran" and "t-1" in said and TOKEN not in said and good[TOKEN][:20] not in said


def test_a_tool_asks_the_grant_of_its_call_about_its_own_data() -> None:
    both = mint(tools={"data": {}}, tables=["sales"], operations=["select"])

    async def body(client: Any) -> list[str]:
        wide = [text(await client.call_tool("data", {"table": table}, meta=sent(both))) for table in ("sales", "hr")]
        kept = Presenting(client, audience=AUDIENCE, held=both, keep="tables")
        narrow = Presenting(client, audience=AUDIENCE, held=both)
        return [
            *wide,
            text(await kept.call_tool("data", {"table": "sales"})),
            text(await narrow.call_tool("data", {"table": "sales"})),
        ]

    assert asked(served(Ran()), body) == ["rows", "refused", "rows", "refused"]


def test_nothing_is_granted_outside_of_a_call() -> None:
    async def body(client: Any) -> None:
        await client.call_tool("look", {}, meta=sent())
        with pytest.raises(NoToken):
            current.grant()

    asked(served(Ran()), body)


# --- resources, prompts and the rest of the protocol -----------------------------------------------------------------

PARAMS: list[tuple[str, dict[str, Any], bool]] = [
    ("resources/read", {"uri": "sales://q3"}, True),
    ("resources/read", {"uri": "note://a/text"}, True),
    ("resources/read", {"uri": "note://b/text"}, False),
    ("resources/read", {"uri": "note://a%2f../text"}, False),
    ("resources/read", {"uri": "hr://salaries"}, False),
    ("prompts/get", {"name": "greet", "arguments": {"name": "bob"}}, True),
    ("prompts/get", {"name": "greet", "arguments": {"name": "eve"}}, False),
    ("prompts/get", {"name": "greet", "arguments": {"name": "bob", "style": "long"}}, False),
    ("prompts/get", {"name": "confess", "arguments": {"name": "bob"}}, False),
    ("prompts/get", {"name": "confess"}, False),
]


@pytest.mark.parametrize(("method", "params", "good"), PARAMS, ids=[f"{n:02}" for n in range(len(PARAMS))])
def test_resources_and_prompts_are_read_like_the_protocol(method: str, params: dict[str, Any], good: bool) -> None:
    ran = Ran()
    with http(ran) as post:
        answer = post(method, {**params, "_meta": sent()})
    assert ("result" in answer) is good and len(ran.calls) == good
    if not good:
        assert answer["error"]["code"] == 403 and answer["error"]["message"].startswith(("Not permitted: tool", "Not permitted: argument `"))


METHODS = [
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "name", "value": "b"}}),
    ("resources/subscribe", {"uri": "hr://salaries"}), ("resources/unsubscribe", {"uri": "hr://salaries"}),
    ("logging/setLevel", {"level": "debug"}), ("tasks/list", {}), ("tasks/get", {"taskId": "1"}), ("tasks/result", {"taskId": "1"}),
    ("tasks/cancel", {"taskId": "1"}), ("subscriptions/listen", {}), ("acme/invent", {}), ("sampling/createMessage", {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "params"), METHODS, ids=[method for method, _ in METHODS])
def test_any_other_method_is_refused_to_a_token_that_does_not_name_it(method: str, params: dict[str, Any]) -> None:
    gate = Gate(verifier())
    for meta, code in ((sent(), 403), ({}, 401)):
        with pytest.raises(_mcp.NotLetIn) as refused:
            admit(gate, _mcp.Message(method, {**params, "_meta": meta}))
        assert refused.value.code == code and not refused.value.tool
    named = sent(tools={method: {}})
    assert admit(gate, _mcp.Message(method, {**params, "_meta": named})) is not None
    assert admit(Gate(verifier(), free=[method]), _mcp.Message(method, params)) is None


def test_a_method_without_a_slash_cannot_use_what_a_tool_of_that_name_is_permitted() -> None:
    with pytest.raises(_mcp.NotLetIn) as refused:
        admit(Gate(verifier()), _mcp.Message("look", {"_meta": sent()}))
    assert refused.value.code == 403


def test_what_is_called_free_cannot_be_a_call_or_a_list() -> None:
    for method in (_mcp.CALL, *_mcp.LISTS):
        with pytest.raises(ValueError):
            Guard(verifier(), free=method)


def test_arguments_that_two_spellings_reach_are_refused() -> None:
    """`arguments.name` beside `arguments: {name: …}`: the one would be checked, and the other would run."""
    assert _mcp.facts("prompts/get", {"name": "greet", "arguments.name": "bob", "arguments": {"name": "eve"}}) is None
    assert _mcp.facts("prompts/get", {"name": "greet", "arguments": ["bob"]}) is None
    assert _mcp.facts("prompts/get", {"name": "greet", "arguments": {"name": "eve"}}) == (
        "prompts/get", {"name": "greet", "arguments.name": "eve"})  # fmt: skip
    assert _mcp.facts("tools/call", {"name": "look", "arguments": []}) is None
    assert _mcp.facts("tools/call", {"name": ["look"]}) is None


# --- lists -----------------------------------------------------------------------------------------------------------

LISTED: list[tuple[dict[str, Any], set[str]]] = [
    (TOOLS, {"pay", "look", "wait", "seen", "boom", "sales://q3", "note://{name}/text", "greet"}),
    ({"pay": {"cents": {"max": 1}}}, {"pay"}),
    ({"pay": {"cents": {"in": []}}}, set()),  # no call of it can be permitted
    ({"look": {}}, {"look"}),
    ({"resources/read": {}}, {"sales://q3", "hr://salaries", "note://{name}/text"}),
    ({"resources/read": {"uri": {"any": True}}}, {"sales://q3", "hr://salaries", "note://{name}/text"}),
    ({"resources/read": {"uri": {"in": ["hr://salaries"]}}}, {"hr://salaries"}),
    ({"resources/read": {"uri": {"in": ["note://x/text"]}}}, {"note://{name}/text"}),
    ({"prompts/get": {"name": {"in": ["confess"]}}}, {"confess"}),
    ({"prompts/get": {}}, {"confess", "greet"}),
    ({"*": {}, "pay": {"cents": {"in": []}}, "resources/read": {"uri": {"in": []}}, "prompts/get": {"name": {"in": []}}},
     {"look", "nothing", "wait", "data", "boom", "seen"}),
]  # fmt: skip


async def everything(client: Any) -> set[str]:
    one, two, three, four = [
        await client.list_tools(), await client.list_resources(), await client.list_resource_templates(), await client.list_prompts()
    ]  # fmt: skip
    templates = three.resource_templates if TWO else three.resourceTemplates
    return {
        *(tool.name for tool in one.tools), *(str(resource.uri) for resource in two.resources),
        *(template.uri_template if TWO else template.uriTemplate for template in templates), *(prompt.name for prompt in four.prompts),
    }  # fmt: skip


@pytest.mark.parametrize(("tools", "names"), LISTED, ids=[f"{n:02}" for n in range(len(LISTED))])
def test_a_list_holds_what_the_token_can_be_used_for(tools: dict[str, Any], names: set[str]) -> None:
    token = mint(tools=tools)
    assert asked(served(Ran()), lambda client: everything(Presenting(client, audience=AUDIENCE, held=token))) == names


def test_a_token_that_says_nothing_of_tools_lists_everything_but_what_cannot_be_called() -> None:
    anything = Issuer(fixtures.KEYRING, clock=fixtures.clock()).mint(**fixtures.WHO, expires_in=60, unrestricted=True)
    names = asked(served(Ran()), lambda client: everything(Presenting(client, audience=AUDIENCE, held=anything)))
    assert "resources/read" not in names and {"pay", "hr://salaries", "confess"} <= names
    data_only = mint(tables=["sales"], operations=["select"])
    assert asked(served(Ran()), lambda client: everything(Presenting(client, audience=AUDIENCE, held=data_only))) == set()


def test_lists_need_a_token_unless_the_owner_says_otherwise() -> None:
    async def body(client: Any) -> set[str]:
        return await everything(client)

    async def refused(client: Any) -> None:
        for method in ("list_tools", "list_resources", "list_resource_templates", "list_prompts"):
            with pytest.raises(MCPError) as error:
                await getattr(client, method)()
            assert error.value.error.code == 401

    asked(served(Ran()), refused)
    assert {"pay", "hr://salaries"} <= asked(served(Ran(), list_without_token=True), body)

    async def forged(client: Any) -> tuple[str, Any]:
        return await outcome(Presenting(client, audience=AUDIENCE, held=mint(expires_at=fixtures.NOW, tools=TOOLS)).list_tools())

    assert asked(served(Ran(), list_without_token=True), forged) == ("error", 401)  # a bad token is not none


def test_a_tool_with_conditions_that_a_list_cannot_state_is_listed() -> None:
    token = mint(tools={"look": {}}, where={"region": {"in": ["eu"]}}, budget={"cents": 5}, audience=AUDIENCE)
    server = served(Ran(), verifier=verifier(ledger=MemoryLedger(clock=fixtures.clock(), floor=0)))
    assert asked(server, lambda client: everything(Presenting(client, audience=AUDIENCE, held=token))) == {"look"}


# --- cost and attributes ---------------------------------------------------------------------------------------------


def test_a_call_is_charged_what_it_costs_and_refused_when_that_is_not_left() -> None:
    token = mint(tools={"pay": {}}, budget={"cents": 10}, audience=AUDIENCE)
    ran = Ran()
    server = served(
        ran,
        verifier=verifier(ledger=MemoryLedger(clock=fixtures.clock(), floor=0)),
        cost=lambda tool, arguments: {"cents": arguments["cents"]} if tool == "pay" else {},
    )

    async def body(client: Any) -> list[str]:
        mine = Presenting(client, audience=AUDIENCE, held=token)
        return [(await outcome(mine.call_tool("pay", {"cents": cents})))[0] for cents in (6, 6, -1, 1.5, 4)]

    # What is no cost is denied as an argument is, and takes nothing.
    assert asked(server, body) == ["ran", "told", "told", "told", "ran"] and len(ran.calls) == 2


def test_of_a_call_whose_cost_is_no_amount_the_argument_is_named_that_a_link_refuses() -> None:
    server = served(
        Ran(),
        verifier=verifier(ledger=MemoryLedger(clock=fixtures.clock(), floor=0)),
        cost=lambda tool, arguments: {"cents": arguments["cents"]},
    )
    for rule, named in (({"min": 1}, True), ({"any": True}, False)):
        token = mint(tools={"pay": {"cents": rule}}, budget={"cents": 10}, audience=AUDIENCE)
        end, said = asked(server, lambda client, token=token: outcome(client.call_tool("pay", {"cents": -1}, meta=sent(token))))
        assert end == "told" and said.startswith("Not permitted: argument `cents` of `pay`") is named


def test_a_cost_that_is_always_the_same_is_a_mapping() -> None:
    token = mint(tools={"pay": {}}, budget={"cents": 10}, audience=AUDIENCE)
    for cost, ends in ((None, ["told"]), ({"cents": 0}, ["ran"] * 3), ({"cents": 6}, ["ran", "told"])):
        server = served(Ran(), verifier=verifier(ledger=MemoryLedger(clock=fixtures.clock(), floor=0)), cost=cost)

        async def body(client: Any, ends: Any = ends) -> list[str]:
            mine = Presenting(client, audience=AUDIENCE, held=token)
            return [(await outcome(mine.call_tool("pay", {"cents": 1})))[0] for _ in ends]

        assert asked(server, body) == ends
    with pytest.raises(TypeError, match="cost"):
        served(Ran(), cost={"cents": 1.5})


def test_limits_are_told_where_the_guard_says_so() -> None:
    token = mint(tools={"pay": {"cents": {"min": 1, "max": 500}}})
    for tell in (True, False):
        server = served(Ran(), tell_limits=tell)
        end, said = asked(server, lambda client: outcome(client.call_tool("pay", {"cents": 501}, meta=sent(token))))
        assert end == "told" and said.startswith("Not permitted: argument `cents` of `pay`") and ("from 1 to 500" in said) is tell

    def pay() -> None:
        verifier().authorize(token.present(audience=AUDIENCE, clock=fixtures.clock()), Access(tool="pay", arguments={"cents": 501}))

    for tell in (True, False):
        with pytest.raises(Exception, match="argument `cents`") as caught:
            explains_denials(tell_limits=tell)(pay)()
        assert ("from 1 to 500" in str(caught.value)) is tell


def test_a_mistake_in_a_statement_is_told_to_the_model() -> None:
    server = Server("sales")

    @server.tool()
    @explains_denials
    def ask(sql: str) -> str:
        raise mistake("syntax", "42601")

    Guard(verifier()).install(server)
    token = mint(tools={"ask": {}})
    end, said = asked(server, lambda client: outcome(client.call_tool("ask", {"sql": "selct"}, meta=sent(token))))
    assert end == "told" and mistake("syntax").for_model() in said and "42601" not in said


def test_attributes_are_the_servers_own_knowledge() -> None:
    token = mint(tools={"look": {}}, where={"region": {"in": ["eu"]}})
    for region, end in (("eu", "ran"), ("us", "told")):
        server = served(Ran(), attributes=lambda tool, arguments, region=region: {"region": region})
        assert asked(server, lambda client: outcome(client.call_tool("look", {}, meta=sent(token))))[0] == end
    assert (
        asked(served(Ran()), lambda client: outcome(client.call_tool("look", {"region": "eu"}, meta=sent(token))))[0] == "told"
    )


def test_what_the_servers_code_does_to_the_arguments_changes_nothing() -> None:
    def attributes(tool: str, arguments: Any) -> dict[str, Any]:
        arguments.update(cents=1)
        return {}

    ran = Ran()
    server = served(ran, attributes=attributes)
    assert asked(server, lambda client: outcome(client.call_tool("pay", {"cents": 501}, meta=sent())))[0] == "told"
    assert asked(server, lambda client: outcome(client.call_tool("pay", {"cents": 7}, meta=sent())))[0] == "ran"
    assert [call[1] for call in ran.calls] == [[7, "acct-9"]]


def test_what_a_stranger_asks_for_reaches_no_code_of_the_servers() -> None:
    reached: list[str] = []

    def attributes(tool: str, arguments: Any) -> dict[str, Any]:
        reached.append(tool)
        return {}

    server = served(Ran(), attributes=attributes)

    async def body(client: Any) -> list[Any]:
        return [
            await outcome(client.call_tool("look", {}, meta=meta))
            for meta in (None, {TOKEN: other_issuer()}, {TOKEN: tampered()})
        ]

    assert asked(server, body) == [("error", 401)] * 3 and reached == []
    assert asked(server, lambda client: outcome(client.call_tool("look", {}, meta=sent())))[0] == "ran" and reached == ["look"]


# --- one session, many tokens ----------------------------------------------------------------------------------------


def test_calls_at_the_same_time_in_one_session_do_not_see_each_others_grants() -> None:
    ran = Ran()
    agents = [f"agent-{n}" for n in range(8)]

    async def body(client: Any) -> list[Any]:
        answers: dict[str, Any] = {}

        async def one(agent: str) -> None:
            with current.use(mint()), current.delegate(to=agent, tools={"wait": {}}):
                answers[agent] = json.loads(text(await Presenting(client, audience=AUDIENCE).call_tool("wait", {"for_": 1})))

        async with anyio.create_task_group() as group:
            for agent in agents:
                group.start_soon(one, agent)
        return [answers[agent] for agent in agents]

    assert asked(served(ran), body) == [["wait", [agent, 1], agent] for agent in agents]


def test_a_long_session_outlives_no_token() -> None:
    clock, ran = FixedClock(fixtures.NOW), Ran()
    token = mint(tools=TOOLS, expires_in=30)
    server = served(ran, verifier=verifier(clock=clock))

    async def body(client: Any) -> list[tuple[str, Any]]:
        good = sent(token)
        first = await outcome(client.call_tool("look", {}, meta=good))
        clock.advance(31)
        return [first, await outcome(client.call_tool("look", {}, meta=good))]

    first, last = asked(server, body)
    assert first[0] == "ran" and last == ("error", 401) and len(ran.calls) == 1


def test_a_revocation_holds_at_the_next_call_of_a_session() -> None:
    key = OperatorKey.generate()
    entries: list[Entry] = []

    def overlay() -> Overlay:
        return Overlay.open(snapshot(key, entries, seq=1, issued_at=fixtures.NOW), [key.public])

    server = served(Ran(), verifier=verifier(overlay=overlay))

    async def body(client: Any) -> list[str]:
        ends = [(await outcome(client.call_tool("look", {}, meta=sent())))[0]]
        entries.append(Entry(id="1", select=Selector(task="task-123"), by="oncall:sam", at=fixtures.NOW, why="over"))
        return [*ends, *map(str, await outcome(client.call_tool("look", {}, meta=sent())))]

    assert asked(server, body) == ["ran", "error", "401"]


def test_every_decision_is_on_record_and_no_token_is() -> None:
    lines: list[bytes] = []
    server = served(Ran(), verifier=verifier(audit=AuditTrail(lines.append)))
    good = sent()

    async def body(client: Any) -> None:
        for call in (
            client.call_tool("look", {"term": "private"}, meta=good), client.call_tool("nothing", {}, meta=good),
            client.call_tool("look", {}), client.call_tool("a/b", {}, meta=good), client.call_tool("look", {}, meta={TOKEN: 7}),
        ):  # fmt: skip
            await outcome(call)

    asked(server, body)
    # First the test's own list. A call that no token can permit is about no access: the token is looked at, and then refused.
    decisions = [json.loads(line) for line in lines if b'"kind":"decision"' in line]
    codes = [decision["code"] for decision in decisions]
    assert codes == ["allowed", "allowed", "tool", "malformed", "tool", "malformed"]
    assert good[TOKEN].encode() not in b"".join(lines) and b"private" not in b"".join(lines)


def test_the_trace_of_the_client_is_in_the_record_and_goes_on_from_there() -> None:
    lines: list[bytes] = []
    server = served(Ran(), verifier=verifier(audit=AuditTrail(lines.append, trace=current.trace)))
    traces: list[Any] = []

    @server.tool()
    def where() -> str:
        traces.append(current.trace())
        return "here"

    async def body(client: Any) -> str | None:
        with current.traced():
            mine = Presenting(client, audience=AUDIENCE, held=mint(tools={"where": {}}))
            await mine.call_tool("where")
            await client.call_tool(
                "where", {}, meta={**sent(tools={"where": {}}), "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
            )
            return current.trace()

    trace = asked(server, body)
    assert traces == [trace, "ab" * 16]
    assert [json.loads(line)["trace"] for line in lines if b'"where"' in line and b"decision" in line] == traces


def test_a_tool_holds_nothing_of_its_callers_even_in_one_process() -> None:
    server = served(Ran())

    @server.tool()
    def mine() -> str:
        try:
            return repr(current.holding())
        except NoToken:
            return "nothing"

    async def body(client: Any) -> str:
        with current.use(mint(tools={"mine": {}})):
            return text(await Presenting(client, audience=AUDIENCE).call_tool("mine"))

    assert asked(server, body) == "nothing"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_tool_that_is_refused_by_its_grant_tells_the_model_why(kind: str) -> None:
    server = served(Ran())

    def read() -> str:
        current.grant().authorize(Access(table="hr", operation="select"))
        return "rows"

    async def read_async() -> str:
        return read()

    server.tool(name="read")(explains_denials(read if kind == "sync" else read_async))
    found, said = asked(server, lambda client: outcome(client.call_tool("read", {}, meta=sent(tools={"read": {}}))))
    assert found == "told" and "Not permitted: " in said and "link" not in said


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_guarded_function_in_a_tool_asks_the_grant_of_the_call_if_both_guards_have_one_verifier(is_shared: bool) -> None:
    ran, mine = Ran(), verifier()
    server = served(ran, verifier=mine)

    @guarded_tool(mine if is_shared else verifier())
    def note(words: str, tag: str | None = None) -> str:
        return ran("note", [words, tag])

    @server.tool()
    def both(words: str) -> str:
        return note(words) + note(words, "b")

    server.tool(name="note")(note)
    rules = {"both": {}, "note": {"words": {"any": True}, "tag": {"in": ["a"], "optional": True}}}

    def called(name: str, **arguments: Any) -> tuple[str, Any]:
        found: tuple[str, Any] = asked(
            server, lambda client: outcome(client.call_tool(name, arguments, meta=sent(tools=rules)))
        )
        return found

    for arguments, code in (({}, "ran"), ({"tag": "a"}, "ran"), ({"tag": "b"}, "told")):
        assert called("note", words="x", **arguments)[0] == (code if is_shared else "told")
    assert called("both", words="y")[0] == "told"
    calls = [value for _, value, _ in ran.calls]
    assert calls == ([["x", None], ["x", "a"], ["y", None]] if is_shared else [])


def test_what_cannot_be_recorded_does_not_run() -> None:
    def write(line: bytes) -> None:
        raise OSError("disk full")

    ran = Ran()

    async def body() -> tuple[str, Any]:
        async with in_process(served(ran, verifier=verifier(audit=AuditTrail(write)))) as client:
            return await outcome(client.call_tool("look", {}, meta=sent()))

    assert anyio.run(body) == ("error", 503) and ran.calls == []


# --- either face of a verifier ---------------------------------------------------------------------------------------


def asynchronous(**facts: Any) -> AsyncVerifier:
    return AsyncVerifier(fixtures.KEYRING, **{"audience": AUDIENCE, "clock": fixtures.clock(), **facts})


def serving(make: Callable[..., Any], ran: Ran) -> Any:
    """A server whose tool says of what kind its grant is, and what that permits."""
    server = served(ran, verifier=make(ledger=MemoryLedger(shared=True, floor=0)))

    @server.tool()
    async def rows() -> str:
        grant: Any = current.grant()
        answers = [grant.check(Access(table=table, operation="select")) for table in ("sales", "hr")]
        decisions = [await answer if isinstance(grant, AsyncGrant) else answer for answer in answers]
        return ", ".join([type(grant).__name__, *(decision.code for decision in decisions)])

    return server


@pytest.mark.parametrize(("make", "kind"), [(verifier, "Grant"), (asynchronous, "AsyncGrant")])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_guard_takes_either_face_and_a_tool_gets_the_grant_of_it(
    make: Any, kind: str, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where the SDK runs in another event loop than asyncio's: there the plain face is asked, in a thread."""
    if elsewhere:
        monkeypatch.setattr("captoken.adapters._asking.in_asyncio", lambda: False)
    ran = Ran()
    token = mint(tools={"rows": {}, "look": {}}, tables=["sales"], operations=["select"], uses=4)

    async def body(client: Any) -> list[Any]:
        mine = Presenting(client, audience=AUDIENCE, held=token, keep="tables")
        other = await outcome(client.call_tool("rows", {}, meta={TOKEN: other_issuer()}))
        listed = [tool.name for tool in (await mine.list_tools()).tools]
        return [listed, other, await outcome(mine.call_tool("rows")), *[(await outcome(mine.call_tool("look")))[0] for _ in "123"]]

    said = asked(serving(make, ran), body)
    # One use is the call of `rows`, and the tool asks for two more, of which one is denied and takes none.
    assert said == [["look", "rows"], ("error", 401), ("ran", f"{kind}, allowed, table"), "ran", "ran", "told"]


def test_what_is_used_up_is_listed_and_refused_when_it_is_called() -> None:
    """A list asks no store, and so takes nothing."""
    token = mint(tools={"look": {}}, uses=1)
    server = served(Ran(), verifier=verifier(ledger=MemoryLedger(shared=True, floor=0)))

    async def body(client: Any) -> list[Any]:
        mine = Presenting(client, audience=AUDIENCE, held=token)
        found: list[Any] = []
        for _ in range(2):
            found.append([tool.name for tool in (await mine.list_tools()).tools])
            found.append((await outcome(mine.call_tool("look")))[0])
        return found

    assert asked(server, body) == [["look"], "ran", ["look"], "told"]


# --- bound tokens ----------------------------------------------------------------------------------------------------

KEY = HolderKey.from_bytes(bytes(range(32)))


def bound_verifier(**facts: Any) -> Verifier:
    return verifier(replays=MemoryReplayStore(clock=fixtures.clock(), floor=0), **facts)


def proven(token: Any, about: bytes) -> str:
    """A text for the server, with a proof that is about `about`."""
    shown = token.present(audience=AUDIENCE)
    return with_proof(shown, KEY, audience=AUDIENCE, clock=fixtures.clock(), request=about)


def test_a_bound_token_comes_with_a_proof_about_this_call() -> None:
    token = mint(tools=TOOLS, key=KEY.public)
    ran = Ran()

    async def body(client: Any) -> list[Any]:
        with current.use(token, KEY):
            mine = Presenting(client, audience=AUDIENCE)
            ends = [(await outcome(mine.call_tool("pay", {"cents": 5, "to": "acct-1"})))[0]]
            ends.append(await everything(mine) >= {"pay", "greet"})
            await mine.get_prompt("greet", {"name": "bob"})
            await mine.read_resource("sales://q3")
            meta = meta_for(AUDIENCE, "look", {"term": "ü", "n": 1.0})
        for arguments in ({"term": "ü", "n": 1}, {"term": "u", "n": 1.0}, {"term": "ü"}):
            about = _mcp.digest("tools/call", {"name": "look", "arguments": {"term": "ü", "n": 1.0}})
            wide = {TOKEN: proven(token, about)}
            ends.append(await outcome(client.call_tool("look", arguments, meta=wide)))
        ends.append((await outcome(client.call_tool("look", {"n": 1.0, "term": "ü"}, meta=meta)))[0])
        ends.append(await outcome(client.call_tool("look", {"n": 1.0, "term": "ü"}, meta=meta)))  # used before
        ends.append(await outcome(client.call_tool("look", {}, meta={TOKEN: token.present(audience=AUDIENCE)})))  # without
        return ends

    none = ("error", 401)
    assert asked(served(ran, verifier=bound_verifier()), body) == ["ran", True, none, none, none, "ran", none, none]


def test_a_tool_sees_neither_a_bound_token_nor_its_proof() -> None:
    token = mint(tools={"seen": {}}, key=KEY.public)

    async def body(client: Any) -> tuple[str, Any]:
        return await outcome(Presenting(client, audience=AUDIENCE, held=Held(token, KEY)).call_tool("seen"))

    found, said = asked(served(Ran(), verifier=bound_verifier()), body)
    assert found == "ran" and "cap1" not in said and TOKEN not in said


def test_what_no_token_can_permit_cannot_be_proven() -> None:
    """Of a text with a proof, that is what is wrong with it; without one, it is the call."""
    lines: list[bytes] = []
    bound = mint(tools={"look": {}}, key=KEY.public)
    gate = Gate(bound_verifier(audit=AuditTrail(lines.append)))
    for params in ({"name": "a/b"}, {"name": "look", "arguments": {"x": float("nan")}}):
        texts = (proven(bound, bytes(32)), f"{sent()[TOKEN]}.{NO_PROOF}", sent()[TOKEN])
        for given, kind in zip(texts, ("proof", "proof", "insufficient"), strict=True):
            with pytest.raises(_mcp.NotLetIn) as refused:
                admit(gate, _mcp.Message("tools/call", {**params, "_meta": {TOKEN: given}}))
            assert refused.value.kind == kind
    codes = [json.loads(line)["code"] for line in lines if b'"kind":"decision"' in line]
    assert codes == ["bad_proof", "bad_proof", "tool", "bad_proof", "bad_proof", "argument"]


def test_the_spelling_of_arguments_is_fixed() -> None:
    params = {"name": "look", "arguments": {"b": [1, 1.0, 1e300, True, None], "a": "ü\n"}, "_meta": {"x": 1}}
    assert _mcp.digest("tools/call", params) == mcp_request("tools/call", "look", b'{"a":"\\u00fc\\n","b":[1,1.0,1e+300,true,null]}')
    assert _mcp.digest("tools/call", {"name": "look"}) == mcp_request("tools/call", "look", b"{}")
    assert _mcp.digest("prompts/get", {"name": "g", "arguments": {"x": "1"}}) == mcp_request(
        "prompts/get", "", b'{"arguments.x":"1","name":"g"}')  # fmt: skip
    assert _mcp.digest("tools/list", {"cursor": "c"}) == mcp_request("tools/list", "", b"{}")
    for arguments in ({"x": float("nan")}, {"x": {1, 2}}):
        with pytest.raises(ValueError):
            _mcp.digest("tools/call", {"name": "look", "arguments": arguments})


# --- over HTTP -------------------------------------------------------------------------------------------------------


@contextmanager
def http(ran: Ran, **guard: Any) -> Generator[Callable[..., dict[str, Any]], None, None]:
    """Post one message, get one answer; headers as they are, so that one can come twice."""
    with over_http(lambda: http_app(lambda options: served(ran, options=options, **guard))) as url:

        def post(method: str, params: Any, *headers: tuple[str, str], raw: bytes | None = None) -> dict[str, Any]:
            body = raw or json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
            plain = [("accept", "application/json, text/event-stream"), ("content-type", "application/json"),
                     ("mcp-protocol-version", "2025-06-18")]  # fmt: skip
            answer = httpx.post(url, content=body, headers=[*plain, *headers])
            return dict(answer.json()) if answer.content else {}

        yield post


def test_over_http_a_token_is_in_the_one_header_or_in_meta_or_in_both_alike() -> None:
    """The specification's rule 40.3."""
    good, other = sent(), {TOKEN: mint().present(audience=AUDIENCE, expires_in=30)}
    header = ("authorization", f"Bearer {good[TOKEN]}")
    cases: list[tuple[dict[str, Any], list[tuple[str, str]], str]] = [
        ({}, [header], "ran"),
        (good, [], "ran"),
        (good, [header], "ran"),
        (other, [], "ran"),
        (good, [("Authorization", f"Bearer {good[TOKEN]}")], "ran"),
        # Spelled as a guard of HTTP in front would not take it.
        (good, [("authorization", f"bearer {good[TOKEN]}")], "401"),
        (good, [("authorization", f"Bearer\t{good[TOKEN]}")], "401"),
        (good, [("authorization", f"Bearer {good[TOKEN]} x")], "401"),
        (good, [("authorization", "Bearer")], "401"),
        (good, [("authorization", "Bearer " + "A" * 32_769)], "401"),
        (other, [header], "401"),  # both good, and not the same
        ({TOKEN: ""}, [header], "401"),
        (good, [("authorization", "Basic YTpi")], "401"),
        (good, [("authorization", good[TOKEN])], "401"),
        (good, [("authorization", f"Bearer  {good[TOKEN]}")], "401"),
        (good, [("authorization", f"Bearer {good[TOKEN]},x")], "401"),
        (good, [header, header], "401"),
        ({}, [header, ("authorization", "Bearer x")], "401"),
        ({}, [("x-authorization", header[1])], "401"),
        ({}, [], "401"),
        (good, [("mcp-method", "tools/call"), ("mcp-name", "look")], "ran"),
        (good, [("mcp-name", "=?base64?" + base64.b64encode(b"look").decode() + "?=")], "ran"),
        (good, [("mcp-method", "tools/list")], "401"),
        (good, [("mcp-name", "pay")], "401"),
        (good, [("mcp-name", "look"), ("mcp-name", "pay")], "401"),
        (good, [("mcp-name", "=?base64?!?=")], "401"),
    ]
    ran = Ran()
    with http(ran) as post:
        for meta, headers, end in cases:
            before = len(ran.calls)
            answer = post("tools/call", {"name": "look", "arguments": {}, "_meta": meta}, *headers)
            assert ("ran" if "result" in answer else str(answer["error"]["code"])) == end, (list(meta), headers[-1:])
            assert len(ran.calls) - before == (end == "ran")


def test_over_http_a_proof_in_meta_is_about_the_call_and_one_in_the_header_only_where_nothing_is_in_meta() -> None:
    token = mint(tools={"look": {}}, key=KEY.public)
    call = {"name": "look", "arguments": {}}
    about_call = _mcp.digest("tools/call", call)
    about_http = http_request("POST", "https://sales.example", "/mcp", b"{}")

    def of(about: bytes | None) -> str:
        """One text of the token, as it was presented once; with a proof about that at its end."""
        if about is None:
            return shown
        return with_proof(shown, KEY, audience=AUDIENCE, clock=fixtures.clock(), request=about)

    cases: list[tuple[tuple[bytes | None, ...] | None, tuple[bytes | None, ...] | None, str]] = [
        ((about_call,), None, "ran"),
        ((about_call,), (None,), "ran"),
        ((about_call,), (about_http,), "ran"),  # each for its own guard
        (None, (about_call,), "ran"),
        (None, (about_http,), "401"),
        (None, (None,), "401"),
        ((None,), (about_call,), "401"),  # what is in _meta is what counts
        ((about_http,), (about_call,), "401"),
        ((None,), None, "401"),
    ]
    shown = token.present(audience=AUDIENCE)
    ran = Ran()
    with http(ran, verifier=bound_verifier()) as post:
        for meta, header, end in cases:
            before = len(ran.calls)
            stated = {} if meta is None else {TOKEN: of(*meta)}
            headers = [] if header is None else [("authorization", f"Bearer {of(*header)}")]
            answer = post("tools/call", {**call, "_meta": stated}, *headers)
            assert ("ran" if "result" in answer else str(answer["error"]["code"])) == end, (meta, header)
            assert len(ran.calls) - before == (end == "ran")
        static = ("authorization", f"Bearer {of(about_call)}")  # a proof is used once
        assert ["result" in post("tools/call", call, static) for _ in range(2)] == [True, False]


def test_each_message_of_a_session_over_http_has_a_header_of_its_own() -> None:
    """A session that was opened, or used, with a token lets in nothing without one."""
    ran = Ran()
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    with over_http(lambda: served(ran).streamable_http_app()) as url, httpx.Client() as web:
        web.headers = httpx.Headers({"accept": "application/json, text/event-stream"})

        def post(method: str, params: Any, **headers: str) -> httpx.Response:
            return web.post(url, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, headers=headers)

        own = {"authorization": f"Bearer {sent()[TOKEN]}"}
        opened = post("initialize", params, **own)
        web.headers["mcp-session-id"] = opened.headers["mcp-session-id"]
        web.headers["mcp-protocol-version"] = "2025-06-18"
        web.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=own)
        call = {"name": "look", "arguments": {}}
        answers = [post("tools/call", call, **headers) for headers in ({}, own, {})]
    assert [bool(re.search(r'"code": ?401', answer.text)) for answer in answers] == [True, False, True] and len(ran.calls) == 1


# --- a challenge (RFC 9728) ------------------------------------------------------------------------------------------

LOGIN = {"authorization_servers": ["https://login.example"]}


def challenging(ran: Ran, resource: str = "https://sales.example/mcp", metadata: Any = LOGIN, **facts: Any) -> Any:
    guard = Guard(facts.pop("verifier", None) or fixtures.verifier(audience=AUDIENCE), **facts)
    server = Server("sales", **({} if TWO else {"stateless_http": True, "json_response": True}))
    tools(server, ran)
    guard.install(server)
    app = server.streamable_http_app(**({"stateless_http": True, "json_response": True} if TWO else {}))
    return guard.challenging(app, resource=resource, resource_metadata=metadata, max_body=2000)


def post_to(url: str, message: Any, **headers: str) -> httpx.Response:
    plain = {"accept": "application/json, text/event-stream", "content-type": "application/json", "mcp-protocol-version": "2025-06-18"}
    return httpx.post(url, content=message if isinstance(message, bytes) else json.dumps(message), headers={**plain, **headers})


def message(method: str, meta: Any = None, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, **({} if meta is None else {"_meta": meta})}}


def test_a_missing_token_can_be_answered_as_http_has_it_so_that_a_client_logs_in() -> None:
    lines: list[bytes] = []
    ran, good = Ran(), sent()
    look = {"name": "look", "arguments": {}}
    begin = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    with over_http(lambda: challenging(ran, verifier=verifier(audit=AuditTrail(lines.append)))) as url:
        refused = post_to(url, message("tools/call", **look))
        assert (refused.status_code, refused.headers["content-type"], len(lines)) == (401, "application/problem+json", 1)
        named = "https://sales.example/.well-known/oauth-protected-resource/mcp"
        assert refused.headers["www-authenticate"] == f'Bearer realm="https://sales.example", resource_metadata="{named}"'
        assert extract_resource_metadata_from_www_auth(refused) == named
        document = httpx.get(url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp"))
        assert document.json() == {**LOGIN, "resource": "https://sales.example/mcp", "bearer_methods_supported": ["header"]}
        assert ran.calls == []

        for asked in (message("tools/list"), message("tasks/list"), message("resources/read", uri="sales://q3"),
                      message("tools/call", {}, **look), message("tools/call", [], **look),
                      [message("ping"), message("tools/list")]):  # fmt: skip
            assert post_to(url, asked).status_code == 401, asked
        for free in (message("initialize", **begin), message("ping")):
            assert post_to(url, free).status_code == 200, free
        in_meta, in_header = message("tools/call", good, **look), {"authorization": f"Bearer {good[TOKEN]}"}
        assert "result" in post_to(url, in_meta).json()
        assert "result" in post_to(url, message("tools/call", **look), **in_header).json()
        assert len(ran.calls) == 2

        # What is no good is told as HTTP has it, so that a client refreshes. It has one record, and a good one has the guard's alone.
        def decided() -> int:
            return sum(b'"kind":"decision"' in line for line in lines)

        before = decided()
        late = mint(tools=TOOLS, expires_at=fixtures.NOW)
        for text in ("cap1_AAAA", late.serialize()):
            spurned = post_to(url, message("tools/call", **look), authorization=f"Bearer {text}")
            assert spurned.status_code == 401 and 'error="invalid_token"' in spurned.headers["www-authenticate"], text
            assert named in spurned.headers["www-authenticate"]
        assert decided() == before + 2
        assert "result" in post_to(url, message("tools/call", **look), **in_header).json() and decided() == before + 3
        ran.calls.pop()

        # What is good is the guard's to judge, also where it permits another tool alone; and what cannot be read is the server's.
        for unread in ("bearer x", "Basic x", "Bearer a b"):
            assert post_to(url, message("tools/call", **look), authorization=unread).status_code == 200, unread
        other = message("tools/call", name="purge", arguments={})
        assert post_to(url, other, **in_header).json()["result"]["isError"] is True
        assert post_to(url, message("tools/call", {TOKEN: None}, **look)).json()["error"]["code"] == 401
        for unread in (b"{", b"[" * 1500, b"3", b'{"method": 3}'):
            assert post_to(url, unread).status_code in (400, 500), unread
        assert post_to(url, b" " * 2001).status_code == 413
        assert len(ran.calls) == 2


@pytest.mark.parametrize("metadata", [LOGIN, "https://meta.example/sales"])
def test_who_has_no_token_sees_open_lists_without_a_challenge(metadata: Any) -> None:
    with over_http(lambda: challenging(Ran(), metadata=metadata, list_without_token=True, free=["tasks/list"])) as url:
        assert post_to(url, message("tools/list")).status_code == 200
        assert post_to(url, message("tasks/list")).status_code != 401
        answer = post_to(url, message("tools/call", name="look", arguments={}))
        shown = metadata if metadata is not LOGIN else "https://sales.example/.well-known/oauth-protected-resource/mcp"
        assert answer.status_code == 401 and f'resource_metadata="{shown}"' in answer.headers["www-authenticate"]
        found = httpx.get(url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")).status_code
        assert found == (200 if metadata is LOGIN else 404)


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        ({"resource": "http://sales.example/mcp"}, {}),
        ({"resource": "sales.example"}, {}),
        ({"metadata": "http://meta.example/x"}, {}),
        ({}, {"authorization_header": False}),
    ],
)
def test_a_challenge_that_nobody_could_answer_is_refused(given: Any, facts: Any) -> None:
    with pytest.raises(ValueError):
        challenging(Ran(), **given, **facts)


def test_over_http_a_tool_does_not_see_the_header_that_its_call_came_with() -> None:
    secret = [("authorization", f"Bearer {sent()[TOKEN]}"), ("x-other", "kept")]
    with http(Ran()) as post:
        said = str(post("tools/call", {"name": "seen"}, *secret)["result"])
    assert "kept" in said and "uthorization" not in said and "cap1" not in said
    with http(Ran(), authorization_header=False) as post:  # where it is somebody else's, it stays
        assert "of.another.kind" in str(
            post("tools/call", {"name": "seen", "_meta": sent()}, ("authorization", "of.another.kind"))
        )


def test_a_header_that_is_somebody_elses_is_not_looked_at() -> None:
    ran, good = Ran(), sent()
    with http(ran, authorization_header=False) as post:
        call = {"name": "look", "_meta": good}
        assert "result" in post("tools/call", call, ("authorization", "Bearer of.another.kind"))
        assert post("tools/call", {"name": "look"}, ("authorization", f"Bearer {good[TOKEN]}"))["error"]["code"] == 401


def test_messages_that_are_out_of_order_run_nothing() -> None:
    """A batch, a notification that would act, params that are none, two keys alike, numbers that are none."""
    ran, good = Ran(), sent()[TOKEN]
    one = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "look", "arguments": {}}}
    meta = {TOKEN: good}
    bodies = [
        json.dumps([one, {**one, "id": 2}]),
        json.dumps([{**one, "params": {**one["params"], "_meta": meta}}, one]),  # type: ignore[dict-item]
        json.dumps({key: value for key, value in one.items() if key != "id"}),
        json.dumps({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "nothing", "_meta": meta}}),
        json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}),
        json.dumps({**one, "params": [meta]}),
        json.dumps({**one, "params": {"name": "look", "_meta": [good]}}),
        json.dumps({**one, "params": {"name": "look", "arguments": "{}", "_meta": meta}}),
        json.dumps({**one, "params": {"name": {"x": 1}, "_meta": meta}}),
        json.dumps({**one, "params": {"name": "pay", "arguments": {"cents": float("nan")}, "_meta": meta}}),
        json.dumps({**one, "params": {"_meta": meta}}),
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","name":"nothing","_meta":'
        + json.dumps(meta)
        + "}}",
        json.dumps({**one, "params": {"name": "look", "arguments": {"x": 0}, "_meta": meta}}).replace(
            "0}", "[" * 5000 + "]" * 5000 + "}"
        ),
        json.dumps({**one, "method": "ping", "params": {}}),
    ]
    with http(ran) as post:
        for body in bodies:
            post("", None, raw=body.encode())
            assert ran.calls == [], body[:200]
        assert "result" in post("ping", {}) and "result" in post(
            "tools/call", {"name": "look", "_meta": {**meta, "progressToken": "p"}}
        )


@pytest.mark.parametrize("transport", ["in process", "stdio", "http", "http in a session"])
def test_every_transport_says_the_same(transport: str) -> None:
    async def story(client: Any) -> list[Any]:
        mine = Presenting(client, audience=AUDIENCE, held=mint())
        found: list[Any] = []
        with pytest.raises(MCPError) as refused:
            await client.list_tools()
        found.append(refused.value.error.code)
        found.append((await outcome(mine.call_tool("pay", {"cents": 5})))[0])
        found.append(await outcome(client.call_tool("pay", {"cents": 501}, meta=sent())))
        found.append((await outcome(client.call_tool("nothing", {}, meta=sent())))[0])
        found.append(sorted(await everything(mine)))
        found.append("q3" in str(await mine.read_resource("sales://q3")))
        found.append("bob" in str(await mine.get_prompt("greet", {"name": "bob"})))
        found.append(await outcome(client.call_tool("pay", {"cents": 5})))
        return found

    async def told(connection: Any) -> list[Any]:
        async with connection as client:
            return await story(client)

    if transport.startswith("http"):
        apps = {
            "http": lambda: http_app(lambda options: served(Ran(), options=options)),
            "http in a session": lambda: served(Ran()).streamable_http_app(),
        }
        with over_http(apps[transport]) as url:
            found = anyio.run(told, to_http(url))
    else:
        found = anyio.run(told, on_stdio() if transport == "stdio" else in_process(served(Ran())))
    why = "Not permitted: argument `cents` of `pay` has a value that this task may not use. The same request will be refused again; one with another value may be permitted."
    listed = sorted(LISTED[0][1])
    assert found == [401, "ran", ("told", why), "told", listed, True, True, ("error", 401)]


# --- the process's own token -----------------------------------------------------------------------------------------


def test_on_stdio_a_process_may_use_the_token_that_it_was_started_with() -> None:
    with current.use(mint(tools={"look": {}, "seen": {}})):
        environment = current.environment()

    async def body() -> list[Any]:
        async with on_stdio("--default", **environment) as client:
            listed = [tool.name for tool in (await client.list_tools()).tools]
            ends = [await outcome(client.call_tool(*call)) for call in (("look", {}), ("pay", {"cents": 5}))]
            mine = Presenting(client, audience=AUDIENCE, held=mint())  # a call's own token goes before
            ends += [
                await outcome(mine.call_tool("pay", {"cents": 5})),
                await outcome(client.call_tool("look", {}, meta={TOKEN: "cap1_x"})),
            ]
            return [listed, *(end for end, _ in ends)]

    assert anyio.run(body) == [["look", "seen"], "ran", "told", "ran", "error"]

    async def without() -> tuple[str, Any]:
        async with on_stdio(**environment) as client:  # a guard that was not told to
            return await outcome(client.call_tool("look", {}))

    assert anyio.run(without) == ("error", 401)


def test_over_http_nobody_uses_the_token_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with current.use(mint()):
        monkeypatch.setenv("CAPTOKEN", current.environment()["CAPTOKEN"])
    ran = Ran()
    with http(ran, default_from_environment=True) as post:
        assert post("tools/call", {"name": "look"})["error"]["code"] == 401
    assert ran.calls == []


def test_a_notification_does_not_use_the_token_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDKs do not say whether it came over HTTP."""
    with current.use(mint(tools={"acme/wipe": {}})):
        monkeypatch.setenv("CAPTOKEN", current.environment()["CAPTOKEN"])
    gate = Gate(verifier(), default_from_environment=True)
    with pytest.raises(_mcp.NotLetIn):
        admit(gate, _mcp.Message("acme/wipe", {}, _mcp.headers_of(None, notified=True)))
    assert admit(gate, _mcp.Message("acme/wipe", {}, _mcp.headers_of(None))) is not None


def test_a_process_that_was_given_none_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAPTOKEN", raising=False)
    with pytest.raises(NoToken):
        Guard(verifier(), default_from_environment=True)


# --- what a client presents ------------------------------------------------------------------------------------------


def opened(meta: dict[str, str]) -> Any:
    return verifier().authenticate(meta[TOKEN])


NARROWED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("pay", {"cents": 5, "to": "acct-1"}, {"cents": {"in": [5]}, "to": {"in": ["acct-1"]}}),
    ("pay", {"cents": 5}, {"cents": {"in": [5]}}),
    ("look", {"term": "x"}, {"term": {"in": ["x"]}}),
    ("look", {}, {"_": {"in": [], "optional": True}}),
    ("look", {"term": "x" * 300}, {"term": {"any": True}}),  # too long to be named
    ("look", {"term": " padded ", "on": True}, {"on": {"in": [True]}, "term": {"any": True}}),
    ("look", {"n": 1.5, "l": [1]}, {"l": {"each": {"in": [1]}, "most": 1}, "n": {"min": 1, "max": 2}}),
    ("look", {"l": [{}, 1], "term": "x"}, {"l": {"each": {"any": True}, "most": 2}, "term": {"in": ["x"]}}),
    ("look", {"o": {"a": 1}}, {"o": {"any": True}}),
    ("look", {"term": "e\u0301"}, {"term": {"any": True}}),  # not in normal form C
]


@pytest.mark.parametrize(("tool", "arguments", "rule"), NARROWED, ids=[f"{n}" for n in range(len(NARROWED))])
def test_a_call_is_presented_with_a_token_for_it_alone(tool: str, arguments: dict[str, Any], rule: dict[str, Any]) -> None:
    grant = opened(meta_for(AUDIENCE, tool, arguments, held=mint()))
    assert grant.capability.json()["tools"] == {tool: rule}
    assert grant.check(Access(tool=tool, arguments=arguments))
    assert grant.expires_at == fixtures.NOW + 60 and grant.capability.audiences == {AUDIENCE}
    for other in (
        {**arguments, "more": 1},
        {key: value for key, value in arguments.items() if rule.get(key) != {"any": True}} | {"x": 2},
    ):
        assert not grant.check(Access(tool=tool, arguments=other))
    assert not grant.check(Access(tool="wait", arguments=arguments))


@pytest.mark.parametrize("method", sorted(_mcp.LISTS))
def test_a_list_is_presented_with_a_token_that_permits_nothing(method: str) -> None:
    everything = mint(tools={"*": {}}, tables=["sales"], operations=["select"])
    grant = opened(meta_for_request(AUDIENCE, method, held=everything))
    for stated in ({}, {"io.captoken/listing": "x"}, {"io.captoken/listing": ""}):
        assert not grant.check(Access(tool="look", arguments={}, attributes=stated))
        assert not grant.check(Access(table="sales", operation="select", attributes=stated))


def test_what_is_not_held_is_not_sent() -> None:
    sent_by: list[Any] = []

    class Client:
        async def call_tool(self, *call: Any, **options: Any) -> None:
            sent_by.append(call)

        async def list_tools(self) -> None: ...

    mine = Presenting(Client(), audience=AUDIENCE, held=mint())
    for tool, arguments, error in (
        ("pay", {"cents": 501}, Refused), ("nothing", {}, Refused), ("a/b", {}, ValueError), ("look", {"x": {1}}, TypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            anyio.run(mine.call_tool, tool, arguments)
    with pytest.raises(WideningError):
        meta_for(AUDIENCE, "pay", {"cents": 501}, held=mint())
    with pytest.raises(NoToken):
        anyio.run(Presenting(Client(), audience=AUDIENCE).call_tool, "look", {})
    with pytest.raises(ValueError):
        anyio.run(lambda: mine.call_tool("look", {}, meta={TOKEN: "cap1_mine"}))
    assert sent_by == []


def test_what_is_refused_is_one_type_with_words_for_the_model_whether_here_or_there() -> None:
    """Here: what is held does not permit it. There: the server knows more than the holder, or takes the token for none."""
    spent = mint(tools=TOOLS, budget={"cents": 0}, audience=AUDIENCE)

    async def body(client: Any) -> list[Refused]:
        mine, found = Presenting(client, audience=AUDIENCE, held=mint()), []
        for calling in (
            lambda: mine.call_tool("pay", {"cents": 501}),
            lambda: mine.call_tool("nothing"),
            lambda: mine.read_resource("hr://salaries"),
            lambda: Presenting(client, audience=AUDIENCE, held=spent).call_tool("pay", {"cents": 5}),
            lambda: Presenting(client, audience="bank", held=mint()).call_tool("look"),
            lambda: Presenting(client, audience="bank", held=mint()).list_tools(),
            lambda: Presenting(client, audience="bank", held=mint()).get_prompt("greet", {"name": "bob"}),
        ):
            with pytest.raises(Refused) as caught:
                await calling()
            found.append(caught.value)
        assert is_error(await mine.call_tool("boom"))  # an error of the tool's own is its result
        return found

    ledger = MemoryLedger(clock=fixtures.clock(), floor=0)
    refused = asked(served(Ran(), verifier=verifier(ledger=ledger), cost={"cents": 1}), body)
    told = [each.for_model for each in refused]
    assert [each.here for each in refused] == [True] * 3 + [False] * 4
    assert [each.kind for each in refused] == ["insufficient"] * 4 + ["invalid"] * 3
    assert told[0].startswith("Not permitted: argument `cents` of `pay` has a value that this task may not use.")
    assert told[1].startswith("Not permitted: tool nothing is not among the tools of this task.")
    assert told[3].startswith("Not permitted: this needs more than is left of this task's allowance.")
    assert len(set(told[4:])) == 1 and told[4].startswith("The credential was not accepted.")
    assert isinstance(refused[0].__cause__, WideningError) and "the token restricts" in str(refused[0])
    assert all("cap1" not in str(each) for each in refused)


def test_tables_that_were_not_kept_are_told_to_the_operator() -> None:
    """A tool asks the grant about its data, and what was presented is for the tool alone."""
    server = Server("sales")

    @server.tool()
    @explains_denials
    def rows(table: str) -> str:
        current.grant().authorize(Access(table=table, operation="select"))
        return "rows"

    Guard(verifier()).install(server)
    token = mint(tools={"rows": {}}, tables=["sales"], operations=["select"])

    async def body(client: Any) -> None:
        forgetful = Presenting(client, audience=AUDIENCE, held=token)
        with pytest.raises(Refused, match='keep="tables"') as caught:
            await forgetful.call_tool("rows", {"table": "sales"})
        assert caught.value.for_model.startswith("Not permitted: requests of this kind are not part of this task.")
        assert "keep" not in caught.value.for_model
        keeping = Presenting(client, audience=AUDIENCE, held=token, keep="tables")
        assert text(await keeping.call_tool("rows", {"table": "sales"})) == "rows"
        with pytest.raises(Refused) as caught:
            await keeping.call_tool("rows", {"table": "hr"})
        assert "keep" not in str(caught.value)
        assert caught.value.for_model.startswith("Not permitted: table hr is not among the tables of this task.")

    asked(server, body)


def test_what_is_read_of_the_sdk_without_a_public_word_is_there() -> None:
    """Else no guard can be installed in mcp 1.x, and in 2.x none of these is read."""
    low = served(Ran())
    if TWO:
        assert not {"_mcp_server", "_experimental_handlers"} & set(dir(low)), "and yet it is guarded"
    else:
        assert low._mcp_server._experimental_handlers is None
        assert {"request_handlers", "notification_handlers"} <= vars(low._mcp_server).keys()


def test_a_server_cannot_use_what_it_was_sent_elsewhere_nor_for_anything_else() -> None:
    meta = meta_for(AUDIENCE, "pay", {"cents": 5}, held=mint())
    elsewhere = Verifier(fixtures.KEYRING, audience="bank", clock=fixtures.clock())
    with pytest.raises(Denied) as denied:
        elsewhere.authorize(meta[TOKEN], Access(tool="pay", arguments={"cents": 5}))
    assert denied.value.code == "wrong_audience"
    assert not verifier().check(meta[TOKEN], Access(tool="pay", arguments={"cents": 6}))
    assert not verifier().check(meta[TOKEN], Access(tool="look", arguments={}))


def test_agents_that_share_a_session_each_present_their_own() -> None:
    """And so do the lists that the SDK's session asks for by itself, in the middle of a call."""
    ran = Ran()

    async def body() -> list[Any]:
        async with in_process(served(ran)) as client:
            ends = []
            for agent, tool in (("a", "look"), ("b", "wait"), ("a", "look")):
                with current.use(mint()), current.delegate(to=agent, tools={tool: {}}):
                    mine = Presenting(client, audience=AUDIENCE)
                    ends.append((await outcome(mine.call_tool(tool, {"for_": 1} if tool == "wait" else {})))[0])
                    ends.append([listed.name for listed in (await mine.list_tools()).tools])
            with pytest.raises(MCPError):
                await client.list_tools()  # outside of a call the session asks for nobody
            return ends

    assert anyio.run(body) == ["ran", ["look"], "ran", ["wait"], "ran", ["look"]]
    assert [call[2] for call in ran.calls] == ["a", "b", "a"]


def test_no_repr_shows_a_token() -> None:
    token = mint()
    guard = Guard(verifier())
    mine = Presenting(object(), audience=AUDIENCE, held=token)
    for shown in (repr(guard), repr(mine), repr(guard.__dict__), repr(mine.__dict__)):
        assert token.serialize()[6:40] not in shown


# --- installing ------------------------------------------------------------------------------------------------------


def test_what_is_no_server_is_not_guarded_in_silence() -> None:
    for thing in (object(), None, lambda: None):
        with pytest.raises(TypeError):
            Guard(verifier()).install(thing)


def test_a_server_has_one_guard() -> None:
    """A guard for each request would ask, and charge, for the same call again."""
    server = served(Ran())
    for again in (Guard(verifier()), Guard(verifier())):
        with pytest.raises(ValueError, match="this server already has a guard"):
            again.install(server)


def test_what_is_added_after_the_guard_is_guarded_too() -> None:
    ran = Ran()
    server = served(ran)

    @server.tool()
    def late() -> str:
        return ran("late")

    assert asked(server, lambda client: outcome(client.call_tool("late", {})))[1] == 401
    assert asked(server, lambda client: outcome(client.call_tool("late", {}, meta=sent(tools={"late": {}}))))[0] == "ran"


if TWO:

    def test_a_notification_that_acts_needs_a_token_too() -> None:
        from mcp.server.lowlevel import Server
        from mcp_types import NotificationParams

        heard: list[str] = []

        async def on(ctx: Any, params: Any) -> None:
            heard.append(current.grant().actor.name)

        server: Any = Server("sales")
        server.add_notification_handler("acme/wipe", NotificationParams, on)
        Guard(verifier()).install(server)
        ctx = _context("acme/wipe", {})

        async def run(meta: Any) -> None:
            guard = server.middleware[-1]
            await guard(_context("acme/wipe", {"_meta": meta}), lambda ctx: on(ctx, None))

        assert ctx.request_id is None
        for meta in ({}, sent(), {TOKEN: "x"}):
            anyio.run(run, meta)
        assert heard == []
        anyio.run(run, sent(tools={"acme/wipe": {}}))
        assert heard == ["orchestrator"]

    def _context(method: str, params: dict[str, Any]) -> Any:
        from mcp.server.context import ServerRequestContext

        session: Any = None
        return ServerRequestContext(
            session=session, lifespan_context={}, protocol_version="2025-06-18", method=method, params=params
        )  # fmt: skip

    def cached(ran: Ran) -> Any:
        """A server that has everything cached by everybody."""
        from mcp.server.caching import CacheHint

        hint = CacheHint(ttl_ms=60_000, scope="public")
        return served(ran, options={"cache_hints": dict.fromkeys([*_mcp.LISTS, "resources/read"], hint)})

    def test_what_a_token_was_needed_for_is_not_for_a_shared_cache() -> None:
        async def body(client: Any) -> list[str]:
            mine = Presenting(client, audience=AUDIENCE, held=mint())
            read = [
                await mine.list_tools(),
                await mine.list_resources(),
                await mine.list_prompts(),
                await mine.read_resource("sales://q3"),
            ]
            return [str(result.cache_scope) for result in read]

        assert asked(cached(Ran()), body) == ["private"] * 4

    def test_a_result_that_other_middleware_made_is_not_for_a_shared_cache_either() -> None:
        from mcp_types import ReadResourceResult

        async def run() -> Any:
            ctx: Any = _context("resources/read", {"uri": "sales://q3", "_meta": sent()})
            ctx.request_id = 1

            async def made(ctx: Any) -> Any:
                return ReadResourceResult(contents=[], ttl_ms=60_000, cache_scope="public")

            return await Guard(verifier())(ctx, made)

        assert anyio.run(run).cache_scope == "private"

    def test_what_one_agent_was_shown_no_other_gets_from_the_client_that_they_share() -> None:
        ran = Ran()

        async def body() -> None:
            async with in_process(cached(ran)) as client:
                mine = Presenting(client, audience=AUDIENCE, held=mint())
                await everything(mine)
                await mine.read_resource("sales://q3")
                for call in (
                    lambda: client.read_resource("sales://q3"),
                    client.list_tools,
                    client.list_resources,
                    client.list_prompts,
                ):
                    with pytest.raises(MCPError):
                        await call()

        anyio.run(body)
        assert len(ran.calls) == 1

    def test_the_header_comes_from_a_callable_of_the_http_client() -> None:
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        def auth(request: Any) -> Any:
            request.headers["authorization"] = f"Bearer {sent()[TOKEN]}"
            return request

        async def body(url: str) -> tuple[str, Any]:
            async with (
                httpx2.AsyncClient(auth=auth) as http_client,
                Client(streamable_http_client(url, http_client=http_client)) as client,
            ):
                return await outcome(client.call_tool("look", {}))

        with over_http(lambda: http_app(lambda options: served(Ran(), options=options))) as url:
            assert anyio.run(body, url)[0] == "ran"

else:

    def test_over_a_websocket_nobody_uses_the_token_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
        """It shows no HTTP request: where that transport is about, nothing is taken for stdio."""
        import sys

        with current.use(mint()):
            monkeypatch.setenv("CAPTOKEN", current.environment()["CAPTOKEN"])
        ran = Ran()
        low = served(ran, default_from_environment=True)._mcp_server
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        calls: list[tuple[str, Any]] = [
            ("initialize", hello),
            *(("tools/call", {"name": "look", "_meta": m}) for m in ({}, sent())),
        ]
        ends: list[Any] = []

        async def run() -> None:
            from mcp.server.websocket import websocket_server

            put, get = anyio.create_memory_object_stream[Any](10)
            said, heard = anyio.create_memory_object_stream[Any](10)
            scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "subprotocols": ["mcp"]}
            with pytest.warns(DeprecationWarning):
                transport = websocket_server(scope, get.receive, said.send)  # type: ignore[arg-type]
            await put.send({"type": "websocket.connect"})
            async with put, get, said, heard, transport as (read, write), anyio.create_task_group() as group:
                group.start_soon(low.run, read, write, low.create_initialization_options())
                assert (await heard.receive())["type"] == "websocket.accept"
                for method, params in calls:
                    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
                    await put.send({"type": "websocket.receive", "text": json.dumps(message)})
                    ends.append(json.loads((await heard.receive())["text"]))
                    if method == "initialize":
                        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
                        await put.send({"type": "websocket.receive", "text": json.dumps(note)})
                await put.send({"type": "websocket.disconnect", "code": 1000})

        try:
            anyio.run(run)
        finally:
            del sys.modules["mcp.server.websocket"]
        assert ends[1]["error"]["code"] == 401 and "result" in ends[2] and len(ran.calls) == 1

    def test_the_guard_is_there_before_tasks_are() -> None:
        from mcp.server.lowlevel import Server

        server: Any = Server("sales")
        with pytest.warns(DeprecationWarning):
            assert server.experimental is not None
        with pytest.raises(ValueError):
            Guard(verifier()).install(server)

    def test_a_low_level_server_that_checks_the_schema_by_its_own_list_still_can() -> None:
        """It asks its own handler for the list, for which there is no token and no need of one."""
        import mcp.types as types
        from mcp.server.lowlevel import Server

        server: Any = Server("sales")
        called: list[Any] = []

        @server.list_tools()
        async def list_tools() -> list[types.Tool]:
            return [types.Tool(name="look", inputSchema={"type": "object", "properties": {"n": {"type": "integer"}}})]

        @server.call_tool()
        async def call_tool(name: str, arguments: dict[str, Any]) -> list[types.TextContent]:
            called.append((name, arguments))
            return [types.TextContent(type="text", text="ok")]

        @server.progress_notification()
        async def progress(*facts: Any) -> None:
            called.append("progress")

        Guard(verifier()).install(server)

        async def body(client: Any) -> list[Any]:
            ends = [await outcome(client.call_tool("look", {"n": n}, meta=sent())) for n in (1, "x")]
            return [
                *ends,
                await outcome(client.call_tool("drop", {}, meta=sent())),
                await outcome(client.call_tool("look", {})),
            ]

        first, second, third, last = asked(server, body)
        assert first == ("ran", "ok") and second[0] == third[0] == "told" and last == ("error", 401)
        assert called == [("look", {"n": 1})]


def test_waiting_for_a_store_holds_up_nobody_else() -> None:
    """A verifier that may wait is asked in a thread: a call that needs nothing of it is answered meanwhile."""
    import threading

    blocked, free = threading.Event(), threading.Event()

    class Slow(MemoryLedger):
        def reserve(self, *facts: Any) -> Any:
            blocked.set()
            assert free.wait(5)
            return super().reserve(*facts)

    token = mint(tools={"look": {}}, uses=3, audience=AUDIENCE)
    server = served(Ran(), verifier=verifier(ledger=Slow(clock=fixtures.clock(), floor=0)))

    async def body(client: Any) -> str:
        ends: list[str] = []

        async def counted() -> None:
            ends.append((await outcome(client.call_tool("look", {}, meta=sent(token))))[0])

        async with anyio.create_task_group() as group:
            group.start_soon(counted)
            await anyio.to_thread.run_sync(blocked.wait, 5)
            try:
                with pytest.raises(MCPError):
                    await client.call_tool("look", {})  # refused at once
            finally:
                free.set()
        return ends[0]

    assert asked(server, body) == "ran"


def test_request_meta_is_for_any_method() -> None:
    grant = opened(meta_for_request(AUDIENCE, "resources/read", {"uri": "sales://q3"}, held=mint()))
    assert grant.capability.json()["tools"] == {"resources/read": {"uri": {"in": ["sales://q3"]}}}
    with pytest.raises(WideningError):
        meta_for_request(AUDIENCE, "completion/complete", {"ref": {}}, held=mint())
    with pytest.raises(ValueError):
        meta_for_request(AUDIENCE, "ping", {}, held=mint())
