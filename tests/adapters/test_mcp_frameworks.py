"""MCP clients that a framework owns: each request comes with a token of its own, and what is not held is not sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from captoken import Issuer, Token, current
from captoken.adapters._mcp.messages import TOKEN
from captoken.adapters.mcp import TWO
from captoken.adapters.mcp_frameworks import interceptor, meta_resolver, present_each, process_tool_call
from captoken.errors import NoToken, Refused
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryReplayStore
from tests import fixtures

from .mcp_asking import in_process, is_error, text
from .mcp_served import AUDIENCE, Ran, http_app, over_http, served

TOOLS: dict[str, Any] = {"pay": {"cents": {"max": 100}, "to": {"any": True, "optional": True}}, "look": {}}
KEY = HolderKey.from_bytes(bytes(range(32)))


def root(**more: Any) -> Token:
    return Issuer(fixtures.KEYRING, clock=fixtures.clock()).mint(
        subject="user:jane", agent="orchestrator", task="task-1", tools={**TOOLS, "other": {}}, **more
    )


def held(name: str, most: int = 50) -> Any:
    return current.delegate(to=name, tools={"pay": {"cents": {"max": most}}}, clamp=True)


class Server:
    """A server under guard on loopback, and what reached its tools."""

    def __init__(self, **options: Any) -> None:
        self.ran = Ran()
        self.verifier = fixtures.verifier(audience=AUDIENCE, replays=MemoryReplayStore(floor=0))
        self.options = options

    def app(self) -> Any:
        return http_app(lambda options: served(self.ran, options=options, verifier=self.verifier, **self.options))

    @property
    def paid(self) -> list[Any]:
        return [(value[0], holder) for name, value, holder in self.ran.calls if name == "pay"]


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    made = Server()
    with over_http(made.app) as url:
        yield made, url


@pytest.fixture
def listed() -> Iterator[tuple[Server, str]]:
    """One that shows its lists to everybody."""
    made = Server(list_without_token=True)
    with over_http(made.app) as url:
        yield made, url


# --- a session of the SDK's -------------------------------------------------------------------------------------------


@asynccontextmanager
async def session_of(made: Server) -> Any:
    async with in_process(served(made.ran, verifier=made.verifier)) as client:
        yield getattr(client, "session", client)


def test_each_request_of_a_session_comes_with_what_is_current() -> None:
    made = Server()

    async def main() -> None:
        async with session_of(made) as session:
            assert present_each(session, audience=AUDIENCE) is session
            with pytest.raises(NoToken):
                await session.call_tool("pay", {"cents": 1})
            with current.use(root()):
                for name in ("a", "b"):
                    with held(name):
                        assert json.loads(text(await session.call_tool("pay", {"cents": 5})))[2] == name
                        assert [tool.name for tool in (await session.list_tools()).tools] == ["pay"]
                if not TWO:
                    await session.send_ping()
                with pytest.raises(Refused) as caught:
                    await session.read_resource("sales://q3")
                assert caught.value.here

    asyncio.run(main())
    assert made.paid == [(5, "a"), (5, "b")]


def test_a_call_that_is_not_held_is_not_sent_and_answered_for_the_model() -> None:
    made, sent = Server(), []

    async def main() -> Any:
        async with session_of(made) as session:
            plain = session.send_request

            async def counted(request: Any, *args: Any, **options: Any) -> Any:
                sent.append(getattr(request, "root", request).method)
                return await plain(request, *args, **options)

            session.send_request = counted
            present_each(session, audience=AUDIENCE)
            with current.use(root()), held("a"):
                return await session.call_tool("pay", {"cents": 51})

    answer = asyncio.run(main())
    assert is_error(answer) and text(answer).startswith("Not permitted: argument `cents` of `pay`")
    assert made.paid == [] and "tools/call" not in sent


def test_a_token_that_is_bound_is_proven_at_each_sending() -> None:
    made = Server()

    async def main() -> None:
        async with session_of(made) as session:
            present_each(session, audience=AUDIENCE)
            with current.use(root(key=KEY.public), KEY):
                for _ in range(3):
                    assert not is_error(await session.call_tool("pay", {"cents": 5}))

    asyncio.run(main())
    assert len(made.paid) == 3


def test_what_is_passed_goes_before_what_is_current_and_a_token_of_the_callers_goes_as_it_is() -> None:
    made = Server()

    async def main() -> None:
        async with session_of(made) as session:
            present_each(session, audience=AUDIENCE, held=root().delegate(to="kept"))
            await session.call_tool("pay", {"cents": 5})
            own = {"io.captoken/token": root().delegate(to="own").present(audience=AUDIENCE)}
            if TWO:
                await session.call_tool("pay", {"cents": 6}, meta=own)

    asyncio.run(main())
    assert made.paid == [(5, "kept"), (6, "own")][: 1 + TWO]


def test_what_is_no_client_is_refused() -> None:
    for wrong in (object(), "https://sales.example/mcp", None):
        with pytest.raises(TypeError, match="cannot add tokens to the requests of a"):
            present_each(wrong, audience=AUDIENCE)


# --- fastmcp ----------------------------------------------------------------------------------------------------------


def test_fastmcp(server: Any) -> None:
    fastmcp = pytest.importorskip("fastmcp")
    made, url = server

    async def main() -> None:
        async with present_each(fastmcp.Client(url), audience=AUDIENCE) as client:
            with current.use(root()):
                for name in ("a", "b"):
                    with held(name):
                        await client.call_tool("pay", {"cents": 5})
                        assert [tool.name for tool in await client.list_tools()] == ["pay"]
                        with pytest.raises(fastmcp.exceptions.ToolError, match="Not permitted: argument `cents`"):
                            await client.call_tool("pay", {"cents": 51})

    asyncio.run(main())
    assert made.paid == [(5, "a"), (5, "b")]


# --- pydantic-ai ------------------------------------------------------------------------------------------------------


def pydantic_agent(toolset: Any, cents: int, told: list[Any]) -> Any:
    pydantic_ai = pytest.importorskip("pydantic_ai")
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    def answer(messages: Any, info: Any) -> ModelResponse:
        told[:] = [part.content for message in messages for part in message.parts if part.part_kind in ("tool-return", "retry-prompt")]
        turn = sum(isinstance(message, ModelResponse) for message in messages)
        return ModelResponse(parts=[TextPart("done")] if turn else [ToolCallPart("pay", {"cents": cents})])

    return pydantic_ai.Agent(FunctionModel(answer), name="a", toolsets=[toolset])


def pydantic_toolset(url: str, **options: Any) -> Any:
    pytest.importorskip("fastmcp")
    return pytest.importorskip("pydantic_ai.mcp").MCPToolset(url, **options)


@pytest.mark.parametrize("hook", [False, True])
def test_pydantic_ai(hook: bool, server: Any, listed: Any) -> None:
    made, url = listed if hook else server
    told: list[Any] = []

    def toolset() -> Any:
        if hook:
            return pydantic_toolset(url, process_tool_call=process_tool_call(AUDIENCE))
        return present_each(pydantic_toolset(url), audience=AUDIENCE)

    with current.use(root()), held("a"):
        asyncio.run(pydantic_agent(toolset(), 5, told).run("go"))
        assert made.paid == [(5, "a")]
        if hook:
            with pytest.raises(Refused, match="Not permitted: argument `cents`"):
                asyncio.run(pydantic_agent(toolset(), 51, told).run("go"))
        else:
            asyncio.run(pydantic_agent(toolset(), 51, told).run("go"))
            assert "Not permitted: argument `cents` of `pay`" in str(told)
    assert made.paid == [(5, "a")]


# --- openai-agents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", [False, True])
def test_openai_agents(hook: bool, server: Any, listed: Any) -> None:
    agents = pytest.importorskip("agents")
    from agents.mcp import MCPServerStreamableHttp
    from agents.testing import ScriptedModel, assistant_message, function_call

    agents.set_trace_processors([])
    agents.set_tracing_disabled(True)
    made, url = listed if hook else server
    resolver = {"tool_meta_resolver": meta_resolver(AUDIENCE)} if hook else {}

    async def main() -> list[Any]:
        async with MCPServerStreamableHttp(params={"url": url}, **resolver) as own:
            if not hook:
                present_each(own.session, audience=AUDIENCE)
            steps: list[Any] = [[function_call("pay", {"cents": cents}, call_id=str(cents))] for cents in (5, 51)]
            agent = agents.Agent(name="a", model=ScriptedModel([*steps, [assistant_message("done")]]), mcp_servers=[own])
            with current.use(root()), held("a"):
                done = await agents.Runner.run(agent, "go")
            return [item.output for item in done.new_items if item.type == "tool_call_output_item"]

    said = asyncio.run(main())
    assert made.paid == [(5, "a")]
    assert "An error occurred" in str(said[1]) if hook else "Not permitted: argument `cents` of `pay`" in str(said[1])


# --- LangChain: its adapters are for mcp 1.x ---------------------------------------------------------------------------


def connection(url: str) -> dict[str, Any]:
    return {"sales": {"transport": "streamable_http", "url": url}}


def test_langchain_by_an_interceptor(listed: Any) -> None:
    client = pytest.importorskip("langchain_mcp_adapters.client")
    made, url = listed

    async def main() -> None:
        own = client.MultiServerMCPClient(connection(url), tool_interceptors=[interceptor(AUDIENCE)])
        tools = {tool.name: tool for tool in await own.get_tools()}
        with current.use(root()):
            for name in ("a", "b"):
                with held(name):
                    await tools["pay"].ainvoke({"cents": 5})
            with held("c"):
                assert "Not permitted: argument `cents` of `pay`" in str(await tools["pay"].ainvoke({"cents": 51}))
        with pytest.raises(NoToken):
            await tools["pay"].ainvoke({"cents": 5})
        with current.use(root(key=KEY.public), KEY), pytest.raises(NoToken, match="bound to a key"):
            await tools["pay"].ainvoke({"cents": 5})

    asyncio.run(main())
    assert made.paid == [(5, "a"), (5, "b")]


def test_langchain_by_a_session(server: Any) -> None:
    client = pytest.importorskip("langchain_mcp_adapters.client")
    load = pytest.importorskip("langchain_mcp_adapters.tools").load_mcp_tools
    made, url = server

    async def main() -> None:
        async with client.MultiServerMCPClient(connection(url)).session("sales") as session:
            present_each(session, audience=AUDIENCE)
            with current.use(root(key=KEY.public), KEY):
                (pay,) = [tool for tool in await load(session) if tool.name == "pay"]
                for _ in range(2):
                    await pay.ainvoke({"cents": 5})

    asyncio.run(main())
    assert made.paid == [(5, "orchestrator")] * 2


# --- clients that live long -------------------------------------------------------------------------------------------


class Sent:
    """A session, and a transport that gives it, which keeps the tokens that it is sent."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def send_request(self, request: Any) -> None:
        self.tokens.append(request.model_dump(by_alias=True)["params"]["_meta"][TOKEN])


class Transport:
    def __init__(self, session: Sent) -> None:
        self.session = session

    @asynccontextmanager
    async def connect_session(self) -> Any:
        yield self.session


class Client:
    def __init__(self, transport: Transport) -> None:
        self.transport = transport


@pytest.mark.parametrize("inside", [False, True], ids=["session", "client"])
def test_a_client_that_is_told_to_present_at_each_request_presents_once(inside: bool) -> None:
    """Ten thousand times over one client: one token goes out, of whom it was told last."""
    from mcp import types

    look = types.CallToolRequest(method="tools/call", params=types.CallToolRequestParams(name="look", arguments={}))
    sent = Sent()
    client: Any = Client(Transport(sent)) if inside else sent

    async def main() -> None:
        mine = [current.holding().delegate(to=f"agent-{number}", tools={"look": {}}) for number in range(3)]
        for number in range(10_000):
            present_each(client, audience=AUDIENCE, held=mine[number % 3])
        if not inside:
            return await client.send_request(look)
        for _ in range(2):
            async with client.transport.connect_session() as session:
                await session.send_request(look)

    with current.use(root()):
        asyncio.run(main())
    assert [Token.parse(text).unverified.lineage.holders[-1] for text in sent.tokens] == ["agent-0"] * (2 if inside else 1)
