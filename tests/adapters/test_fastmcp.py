"""A FastMCP server with a guard: the tables of test_mcp hold there too, and what fastmcp adds of its own is covered."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest
from fastmcp import Client, Context, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server import create_proxy
from fastmcp.server.dependencies import fastmcp_request_ctx, get_http_headers
from fastmcp.server.middleware import Middleware
from fastmcp.tools import Tool
from mcp.shared.exceptions import MCPError

from captoken import Access, AsyncGrant, Issuer, Keyring, Verifier, current
from captoken.adapters._mcp.messages import TOKEN
from captoken.adapters.fastmcp import Guard, explains_denials
from captoken.adapters.mcp_client import Presenting
from captoken.current import Held
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from tests import fixtures
from tests.adapters.mcp_served import AUDIENCE, Ran, over_http, tools
from tests.adapters.test_mcp import (
    BAD_TOKENS,
    CALLS,
    LISTED,
    PARAMS,
    TOOLS,
    asynchronous,
    everything,
    listing,
    mint,
    outcome,
    sent,
    silence,
    verifier,
)

__all__ = ["silence"]
NESTED = {**TOOLS, "ask": {}}


def served(ran: Ran, *before: Middleware, facts: Any = None, **guard: Any) -> FastMCP[Any]:
    server: FastMCP[Any] = FastMCP("sales", middleware=[*before, Guard(facts or verifier(), **guard)])
    tools(server, ran)

    @server.tool
    async def ask(tool: str) -> str:
        """Asks its own server in turn."""
        return str((await server.call_tool(tool, {})).content)

    @server.tool
    async def count() -> int:
        return len(await server.list_tools())

    @server.tool
    def seen() -> str:
        return "seen"

    return server


def asked(server: Any, body: Callable[[Any], Any]) -> Any:
    async def run() -> Any:
        async with Client(server) as client:
            await listing(client.session)
            return await body(client.session)

    return anyio.run(run)


@pytest.mark.parametrize(("what", "meta"), BAD_TOKENS, ids=[what for what, _ in BAD_TOKENS])
def test_a_token_that_is_none_is_a_protocol_error_and_nothing_runs(what: str, meta: Callable[[], Any]) -> None:
    ran = Ran()
    assert asked(served(ran), lambda client: outcome(client.call_tool("look", {}, meta=meta()))) == ("error", 401)
    assert ran.calls == []


# fastmcp refuses these arguments to `look` by itself: more than its function takes.
@pytest.mark.parametrize(("tool", "arguments", "end"), [case for case in CALLS if "more" not in (case[1] or ())])
def test_a_call_is_let_in_or_refused_by_what_came(tool: str, arguments: Any, end: str) -> None:
    ran = Ran()
    found, said = asked(served(ran), lambda client: outcome(client.call_tool(tool, arguments, meta=sent())))
    assert found == end, said
    assert len(ran.calls) == (end == "ran")
    if end == "told":
        assert said.startswith("Not permitted")


@pytest.mark.parametrize(("method", "params", "good"), PARAMS, ids=[f"{n:02}" for n in range(len(PARAMS))])
def test_resources_and_prompts_are_read_like_the_protocol(method: str, params: dict[str, Any], good: bool) -> None:
    ran = Ran()

    async def body(session: Any) -> int:
        try:
            if method == "prompts/get":
                await session.get_prompt(params["name"], params.get("arguments"), meta=sent())
            else:
                await session.read_resource(params["uri"], meta=sent())
        except MCPError as error:
            assert error.error.message.startswith(("Not permitted: tool", "Not permitted: argument `"))
            return error.error.code
        return 200

    assert asked(served(ran), body) == (200 if good else 403) and len(ran.calls) == good


@pytest.mark.parametrize(("tools", "names"), LISTED, ids=[f"{n:02}" for n in range(len(LISTED))])
def test_a_list_holds_what_the_token_can_be_used_for(tools: dict[str, Any], names: set[str]) -> None:
    token = mint(tools=tools)
    found = asked(served(Ran()), lambda session: everything(Presenting(session, audience=AUDIENCE, held=token)))
    assert found - {"ask", "count"} == names


def test_what_a_tool_asks_of_its_own_server_is_decided_by_its_own_call() -> None:
    ran = Ran()

    async def body(session: Any) -> list[Any]:
        meta = sent(tools={**NESTED, "count": {}})
        return [
            await outcome(session.call_tool("ask", {"tool": "look"}, meta=meta)),
            await outcome(session.call_tool("ask", {"tool": "nothing"}, meta=meta)),
            await outcome(session.call_tool("count", {}, meta=meta)),
        ]

    first, second, third = asked(served(ran), body)
    assert first[0] == "ran" and [call[0] for call in ran.calls] == ["look"]
    assert second[0] == "told" and "tool nothing is not among the tools of this task" in second[1]
    assert third == ("ran", str(len(TOOLS) - 2 + 2))  # what its caller may call: not resources/read and prompts/get


def test_the_proof_of_a_call_does_for_what_the_call_asks_in_turn() -> None:
    key = HolderKey.generate()
    token = mint(tools=NESTED, key=key.public)
    ran = Ran()
    facts = verifier(replays=MemoryReplayStore(clock=fixtures.clock(), floor=0))

    async def body(session: Any) -> list[str]:
        with current.use(token, key):
            mine = Presenting(session, audience=AUDIENCE)
            ends = [(await outcome(mine.call_tool("look", {"term": "x"})))[0]]
            await everything(mine)
            await mine.get_prompt("greet", {"name": "bob"})
        ends.append((await outcome(session.call_tool("look", {}, meta={TOKEN: token.present(audience=AUDIENCE)})))[0])
        return ends

    assert asked(served(ran, facts=facts), body) == ["ran", "error"]


@pytest.mark.parametrize(("make", "kind"), [(verifier, "Grant"), (asynchronous, "AsyncGrant")])
def test_a_guard_takes_either_face_and_a_tool_gets_the_grant_of_it(make: Any, kind: str) -> None:
    """What the tool asks of its own server in turn is counted as well."""
    ran = Ran()
    server = served(ran, facts=make(ledger=MemoryLedger(shared=True, floor=0)))

    @server.tool
    async def rows() -> str:
        grant: Any = current.grant()
        answers = [grant.check(Access(table=table, operation="select")) for table in ("sales", "hr")]
        decisions = [await answer if isinstance(grant, AsyncGrant) else answer for answer in answers]
        return ", ".join([type(grant).__name__, *(decision.code for decision in decisions)])

    token = mint(tools={"rows": {}, "ask": {}, "look": {}}, tables=["sales"], operations=["select"], uses=4)

    async def body(session: Any) -> list[Any]:
        meta = {TOKEN: token.present(audience=AUDIENCE)}
        return [
            await outcome(session.call_tool("rows", {}, meta={TOKEN: meta[TOKEN][:-1]})),
            await outcome(session.call_tool("rows", {}, meta=meta)),
            (await outcome(session.call_tool("ask", {"tool": "look"}, meta=meta)))[0],
            (await outcome(session.call_tool("look", {}, meta=meta)))[0],
        ]

    assert asked(server, body) == [("error", 401), ("ran", f"{kind}, allowed, table"), "ran", "told"]
    assert [call[0] for call in ran.calls] == ["look"]


def test_a_tool_sees_neither_a_bound_token_nor_its_proof() -> None:
    server, seen = served(Ran(), facts=verifier(replays=MemoryReplayStore(floor=0))), []
    key = HolderKey.generate()

    @server.tool
    def look_around(ctx: Context) -> str:
        whole: Any = ctx.request_context
        seen.append(repr([whole.meta, whole._srctx, dict(get_http_headers(include_all=True))]))
        return "ok"

    async def body(session: Any) -> str:
        mine = Presenting(session, audience=AUDIENCE, held=Held(mint(tools={"look_around": {}}, key=key.public), key))
        return (await outcome(mine.call_tool("look_around")))[0]

    assert asked(server, body) == "ran" and len(seen) == 1 and "cap1" not in seen[0] and TOKEN not in seen[0]


def test_a_server_that_a_tool_calls_as_a_client_looks_at_what_it_is_sent() -> None:
    """A request to the same guard, made from within a call, in this process: not the call's own grant decides."""
    ran = Ran()
    server = served(ran)

    @server.tool
    async def loop(token: str) -> str:
        async with Client(server) as inner:
            return (await outcome(inner.session.call_tool("look", {}, meta={TOKEN: token} if token else None)))[0]

    async def body(session: Any) -> list[Any]:
        meta = sent(tools={"look": {}, "loop": {}})
        narrow = sent(tools={"wait": {}})[TOKEN]
        return [text for _, text in [await outcome(session.call_tool("loop", {"token": t}, meta=meta)) for t in ("", narrow)]]

    assert asked(server, body) == ["error", "told"] and ran.calls == []


def test_the_owners_own_code_outside_of_a_request_comes_without_a_token() -> None:
    ran = Ran()
    server = served(ran)
    for call in (lambda: server.call_tool("look", {}), server.list_tools, lambda: server.read_resource("sales://q3")):
        with pytest.raises(MCPError):
            anyio.run(call)
    assert ran.calls == [] and len(anyio.run(lambda: server.list_tools(run_middleware=False))) > 5


def test_a_mounted_server_is_behind_the_guard_of_the_one_that_it_is_mounted_on() -> None:
    ran = Ran()
    server, behind = served(ran), FastMCP("behind")
    behind.add_tool(Tool.from_function(lambda: ran("deep"), name="deep"))
    server.mount(behind, namespace="sub")

    async def body(session: Any) -> list[Any]:
        return [
            await outcome(session.call_tool("sub_deep", {}, meta=meta)) for meta in (None, sent(), sent(tools={"sub_deep": {}}))
        ]

    none, other, good = asked(server, body)
    assert none == ("error", 401) and other[0] == "told" and good[0] == "ran" and len(ran.calls) == 1


@pytest.mark.parametrize(
    ("mine", "tools", "ran_for"),
    [
        (True, {"*": {}}, ["orchestrator"]),
        (True, {"ask": {}}, []),  # by the child's guard: what `ask` asks of its own server is not permitted
        (False, {"*": {}}, []),  # good for the front, and no token at all for the child
    ],
)
def test_the_guard_of_a_mounted_server_looks_at_the_token_for_itself(mine: bool, tools: Any, ran_for: list[str]) -> None:
    ran = Ran()
    keys = fixtures.KEYRING if mine else Keyring.from_keys({"k1": bytes(range(2, 34))}, current="k1")
    token = Issuer(keys, clock=fixtures.clock()).mint(**fixtures.WHO, tools=tools)
    front: FastMCP[Any] = FastMCP("front", middleware=[Guard(Verifier(keys, audience=AUDIENCE, clock=fixtures.clock()))])
    front.mount(served(ran))

    async def run() -> str:
        async with Client(front) as client:
            mine = Presenting(client.session, audience=AUDIENCE, held=token)
            await mine.list_tools()
            meta = {TOKEN: token.present(audience=AUDIENCE)}
            return (await outcome(client.session.call_tool("ask", {"tool": "nothing"}, meta=meta)))[0]

    assert anyio.run(run) == ("ran" if ran_for else "told")
    assert [call[2] for call in ran.calls] == ran_for


@contextmanager
def upstream() -> Generator[tuple[str, list[str]], None, None]:
    """A server that somebody else runs, behind a proxy: its address, and all that it was ever sent."""
    heard: list[str] = []
    behind: FastMCP[Any] = FastMCP("behind")

    @behind.tool
    def deep() -> str:
        return "deep"

    @behind.resource("deep://text")
    def page() -> str:
        return "text"

    app = behind.http_app(stateless_http=True)

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        heard.append(str(scope.get("headers")))

        async def received() -> Any:
            message = await receive()
            heard.append(str(message.get("body")))
            return message

        await app(scope, received, send)

    with over_http(lambda: listening) as url:
        yield url, heard


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("where", ["header", "_meta"])
@pytest.mark.parametrize("kind", ["itself a proxy", "a proxy mounted"])
def test_a_proxy_behind_the_guard_sends_no_token_on(kind: str, where: str, mode: Any) -> None:
    import httpx2
    from mcp import Client as Plain
    from mcp.client.streamable_http import streamable_http_client

    token = mint(tools={"deep": {}, "resources/read": {}})
    good = token.present(audience=AUDIENCE)
    meta = {TOKEN: good, "io.example/trace": "t-1"} if where == "_meta" else {"io.example/trace": "t-1"}
    headers = {"authorization": f"Bearer {good}", "x-other": "kept"} if where == "header" else {}

    async def body(url: str) -> list[Any]:
        async with (
            httpx2.AsyncClient(headers=headers) as web,
            Plain(streamable_http_client(url, http_client=web), mode=mode) as client,
        ):
            listed = await client.list_tools(meta=meta)
            if mode == "legacy":
                await client.session.send_ping()
            read = await client.read_resource("deep://text", meta=meta)
            return [
                [tool.name for tool in listed.tools], read.contents[0].text, await outcome(client.call_tool("deep", {}, meta=meta))
            ]  # fmt: skip

    with upstream() as (behind, heard):
        front: FastMCP[Any] = create_proxy(behind) if kind == "itself a proxy" else FastMCP("front")
        guard = Guard(verifier())
        front.add_middleware(guard)
        if kind != "itself a proxy":
            front.mount(create_proxy(behind))
        with over_http(lambda: guard.sessions(front.http_app())) as url:
            assert anyio.run(body, url) == [["deep"], "text", ("ran", "deep")]
    said = "".join(heard)
    assert "t-1" in said and ("kept" in said or not headers)  # what is not secret goes on
    assert good[:20] not in said and good[-20:] not in said


def test_a_tool_does_not_see_the_token_that_its_call_came_with() -> None:
    server, seen = served(Ran()), []

    @server.tool
    def look_around(ctx: Context) -> str:
        whole: Any = ctx.request_context
        seen.append(repr([whole.meta, whole._srctx, dict(get_http_headers(include_all=True))]))
        return "ok"

    @server.completion
    def complete(ref: Any, argument: Any, context: Any) -> list[str]:
        seen.append(repr(fastmcp_request_ctx.get()))
        return []

    good = {**sent(tools={"look_around": {}, "completion/complete": {}}), "io.example/trace": "t-1"}

    async def body(session: Any) -> str:
        await session.send_request(_complete(good), _complete_result())
        return (await outcome(session.call_tool("look_around", {}, meta=good)))[0]

    assert asked(server, body) == "ran" and len(seen) == 2 and TOKEN in good
    for shown in seen:
        assert "t-1" in shown and TOKEN not in shown and good[TOKEN][:20] not in shown


def test_what_a_token_was_needed_for_is_not_for_a_shared_cache() -> None:
    from mcp import Client as Plain
    from mcp.client.caching import CacheConfig, InMemoryResponseCacheStore

    ran, store = Ran(), InMemoryResponseCacheStore()
    server: FastMCP[Any] = FastMCP("sales", middleware=[Guard(verifier())], cache_ttl=60, cache_scope="public")
    tools(server, ran)

    def client(who: str) -> Any:
        return Plain(server._mcp_server, cache=CacheConfig(store=store, target_id="s", partition=who, share_public=True))

    async def run() -> list[str]:
        async with client("jane") as jane:
            scopes = [
                (await jane.list_tools(meta=sent())).cache_scope,
                (await jane.read_resource("sales://q3", meta=sent())).cache_scope,
            ]
        async with client("eve") as eve:
            for call in (eve.list_tools, lambda: eve.read_resource("sales://q3")):
                with pytest.raises(MCPError):
                    await call()
        return scopes

    assert anyio.run(run) == ["private", "private"] and len(ran.calls) == 1


def test_a_hashed_name_is_no_way_round_what_a_token_says_of_a_tool() -> None:
    ran = Ran()
    meta = sent(tools={"*": {}, "look": {"_": {"in": []}}})
    for name in ("__0123456789ab_look", "___look", "__look"):
        assert asked(served(ran), lambda s, name=name: outcome(s.call_tool(name, {}, meta=meta)))[0] == "told"
    assert ran.calls == []


def test_a_tool_that_is_refused_by_its_grant_tells_the_model_why() -> None:
    server = served(Ran())

    @server.tool
    @explains_denials
    def read() -> str:
        current.grant().authorize(Access(table="hr", operation="select"))
        return "rows"

    found, said = asked(server, lambda s: outcome(s.call_tool("read", {}, meta=sent(tools={"read": {}}))))
    assert found == "told" and said.startswith("Not permitted")


def test_an_extension_that_shows_what_is_in_a_resource_asks_the_guard() -> None:
    server = served(Ran())

    @server.tool
    async def peek(uri: str) -> str:
        try:
            await server._check_resource_access(uri)
        except MCPError as error:
            return str(error.code)
        return "seen"

    async def body(session: Any) -> list[str]:
        meta = sent(tools={"peek": {}, "resources/read": {"uri": {"in": ["sales://q3"]}}})
        return [
            (await outcome(session.call_tool("peek", {"uri": uri}, meta=meta)))[1] for uri in ("sales://q3", "hr://salaries")
        ]

    assert asked(server, body) == ["seen", "403"]


def test_an_extension_that_asks_outside_of_the_guard_asks_by_what_came_and_takes_nothing_away() -> None:
    ran, ends = Ran(), []

    class Before(Middleware):
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            for uri in ("sales://q3", "hr://salaries", "sales://q3"):
                try:
                    await server._check_resource_access(uri)
                    ends.append("seen")
                except MCPError as error:
                    ends.append(str(error.code))
            return await call_next(context)

    server = served(ran, Before())
    assert asked(server, lambda s: outcome(s.call_tool("look", {}, meta=sent())))[0] == "ran"
    assert ends == ["seen", "403", "seen"]


def test_methods_that_fastmcp_does_not_serve_itself_are_refused_too() -> None:
    async def body(session: Any) -> list[int]:
        codes = []
        for meta in ({}, sent()):
            with pytest.raises(MCPError) as refused:
                await session.send_request(_complete(meta), _complete_result())
            codes.append(refused.value.error.code)
        return codes

    assert asked(served(Ran()), body) == [401, 403]


def _complete(meta: Any) -> Any:
    from mcp_types import CompleteRequest

    params = {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "name", "value": "b"}, "_meta": meta}
    return CompleteRequest.model_validate({"method": "completion/complete", "params": params})


def _complete_result() -> Any:
    from mcp_types import CompleteResult

    return CompleteResult


def test_over_http_the_header_counts_and_two_tokens_that_differ_do_not() -> None:
    import httpx2
    from mcp import Client as Plain
    from mcp.client.streamable_http import streamable_http_client

    ran, good = Ran(), sent()[TOKEN]

    async def body(url: str) -> list[Any]:
        ends = []
        for header, meta in ((good, None), (good, {TOKEN: good}), (good, sent(tools={"look": {}})), ("x", None)):
            headers = {"authorization": f"Bearer {header}"}
            async with (
                httpx2.AsyncClient(headers=headers) as web,
                Plain(streamable_http_client(url, http_client=web)) as client,
            ):
                ends.append(await outcome(client.call_tool("look", {}, meta=meta)))
        return ends

    with over_http(lambda: served(ran).http_app(stateless_http=True)) as url:
        ends = anyio.run(body, url)
    assert [end[0] for end in ends] == ["ran", "ran", "error", "error"] and len(ran.calls) == 2


def test_a_missing_token_can_be_answered_as_http_has_it() -> None:
    guard = Guard(verifier())
    server = FastMCP("sales", middleware=[guard])
    login = {"authorization_servers": ["https://login.example"]}
    app = guard.challenging(
        server.http_app(stateless_http=True, json_response=True), resource="https://sales.example/mcp", resource_metadata=login
    )
    listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    with over_http(lambda: app) as url:
        headers = {"accept": "application/json, text/event-stream"}
        refused = httpx.post(url, json=listed, headers=headers)
        assert refused.status_code == 401 and "resource_metadata=" in refused.headers["www-authenticate"]
        taken = httpx.post(url, json=listed, headers={**headers, "authorization": f"Bearer {sent()[TOKEN]}"})
        assert taken.status_code == 200 and "result" in taken.json()


def test_a_refusal_is_seen_by_middleware_that_stands_before_the_guard() -> None:
    heard: list[str] = []

    class Watch(Middleware):
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            try:
                return await call_next(context)
            except (ToolError, MCPError) as error:
                heard.append(type(error).__name__)
                raise

    asked(served(Ran(), Watch()), lambda s: outcome(s.call_tool("nothing", {}, meta=sent())))
    asked(served(Ran(), Watch()), lambda s: outcome(s.call_tool("nothing", {})))
    assert heard == ["ToolError", "MCPError"]


def test_in_a_session_over_http_calls_need_somebody_who_knows_whose_it_is() -> None:
    """`sessions` round the application, or as middleware of it; a token of another tree is a stranger's."""
    import httpx2
    from mcp import Client as Plain
    from mcp.client.streamable_http import streamable_http_client
    from starlette.middleware import Middleware

    seen: list[str] = []

    async def body(url: str) -> list[Any]:
        async def hook(response: Any) -> None:
            seen.append(response.headers.get("mcp-session-id", ""))

        headers = {"authorization": f"Bearer {sent()[TOKEN]}"}
        async with (
            httpx2.AsyncClient(headers=headers, event_hooks={"response": [hook]}) as web,
            Plain(streamable_http_client(url, http_client=web), mode="legacy") as client,
        ):
            told = [await outcome(client.call_tool("look", {"term": "q"}))]
            stray = {"accept": "application/json, text/event-stream", "mcp-session-id": next(filter(None, reversed(seen)))}
            answer = {"jsonrpc": "2.0", "id": 1, "result": {}}
            told += [(await web.post(url, json=answer, headers={**stray, "authorization": sent_by})).status_code for sent_by in ("", "Bearer x")]
        return told

    for kept in (None, "round", "middleware"):
        ran = Ran()
        guard = Guard(verifier())
        server: FastMCP[Any] = FastMCP("sales", middleware=[guard])
        tools(server, ran)
        app: Any = server.http_app(middleware=[Middleware(guard.sessions)] if kept == "middleware" else None)
        with over_http(lambda app=app, kept=kept, guard=guard: guard.sessions(app) if kept == "round" else app) as url:
            told = anyio.run(body, url)
        assert len(ran.calls) == (kept is not None)
        assert told[1:] == ([202, 202] if kept is None else [401, 401])
