"""A hostile host over MCP: the SDK's own server and client, over HTTP, and a stranger who tries to get past the guard.

The stranger knows the id of a session, and whatever else can be guessed. It is judged from outside: by what ran, by what the
stranger was answered, and by the trail. Nothing runs, and nobody is turned away, without a record.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import httpx
import pytest
from pydantic import BaseModel

from captoken import Issuer, Keyring, Token, Verifier, current
from captoken.adapters.mcp import TWO, Guard
from captoken.adapters.mcp_client import Presenting, auth, refused_alone
from captoken.audit import AuditTrail
from captoken.errors import Refused
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from tests.adapters.mcp_asking import is_error, text
from tests.adapters.mcp_served import Context, Server, over_http

if TWO:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client
else:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.types import ElicitResult

AUDIENCE = "sales-mcp"
KEYRING = Keyring.generate()
RIGHTS: dict[str, Any] = {"wire": {}, "look": {"term": {"any": True}}, "slow": {}}
PLAIN = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": "2025-06-18",
}


class Sure(BaseModel):
    sure: bool


class Kept(EventStore):
    """Keeps what was sent, so that a stream can be resumed. Its ids can be guessed."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self.events.append((stream_id, message))
        return str(len(self.events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        stream, _ = self.events[int(last_event_id)]
        for at, (of, message) in enumerate(self.events[int(last_event_id) + 1 :], int(last_event_id) + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(at)))
        return stream


class World:
    """A server, what its tools did, and a trail of whoever guards it."""

    def __init__(self, *, is_guarded: bool = True) -> None:
        self.ran: list[Any] = []
        self.lines: list[bytes] = []
        self.facts: dict[str, Any] = {
            "replays": MemoryReplayStore(floor=0),
            "ledger": MemoryLedger(shared=True, floor=0),
            "audit": AuditTrail(self.lines.append),
        }
        self.guard = Guard(Verifier(KEYRING, audience=AUDIENCE, **self.facts))
        self.server = Server("sales", **({} if TWO else {"event_store": Kept()}))

        @self.server.tool()
        async def wire(ctx: Context) -> str:
            answer = await ctx.elicit("really?", Sure)
            self.ran.append(("wire", answer.action))
            return answer.action

        @self.server.tool()
        def look(term: str) -> str:
            self.ran.append(("look", term))
            return term

        @self.server.tool()
        async def slow() -> str:
            self.ran.append(("slow", "began"))
            await anyio.sleep(30)
            return "done"

        if is_guarded:
            self.guard.install(self.server)

    def app(self) -> Any:
        return self.server.streamable_http_app(**({"event_store": Kept()} if TWO else {}))

    @property
    def decisions(self) -> list[dict[str, Any]]:
        records = [json.loads(line) for lines in self.lines for line in lines.splitlines()]
        return [record for record in records if record["kind"] == "decision"]


def minted(**caveats: Any) -> Token:
    """The root of a tree of its own."""
    return Issuer(KEYRING).mint(subject="user:jane", agent="host", task="q3", **{"tools": RIGHTS, **caveats})


class Host:
    """The runtime that owns a session: it is asked by the server, and answers when it is told to."""

    def __init__(self) -> None:
        self.session = ""
        self.asked, self.go = anyio.Event(), anyio.Event()

    async def elicited(self, context: Any, params: Any) -> ElicitResult:
        self.asked.set()
        await self.go.wait()
        return ElicitResult(action="accept", content={"sure": True})

    async def hook(self, response: Any) -> None:
        self.session = response.headers.get("mcp-session-id", self.session)

    @asynccontextmanager
    async def client(self, url: str, credentials: Any) -> AsyncGenerator[Any, None]:
        kind: Any = httpx2.AsyncClient if TWO else httpx.AsyncClient
        async with kind(auth=credentials, event_hooks={"response": [self.hook]}, timeout=20) as web:
            if TWO:
                opened = streamable_http_client(url, http_client=web)
                async with Client(opened, mode="legacy", elicitation_callback=self.elicited) as client:
                    yield client
                return
            async with (
                streamable_http_client(url, http_client=web) as (read, write, _),
                ClientSession(read, write, elicitation_callback=self.elicited) as session,
            ):
                await session.initialize()
                yield session


def header_of(token: Token) -> Callable[[Any], Any]:
    """A static header, as a client has it that knows nothing of captoken."""
    text = token.present(audience=AUDIENCE)

    def put(request: Any) -> Any:
        request.headers["authorization"] = f"Bearer {text}"
        return request

    return put


def said(**message: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode()


ACCEPTED = {"action": "accept", "content": {"sure": True}}
INITIALIZE = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
# What a stranger sends in the session of another, who waits for an answer.
SENT: dict[str, tuple[str, bytes, dict[str, str]]] = {
    **{f"answers question {at}": ("POST", said(id=at, result=ACCEPTED), {}) for at in (0, 1, 2, 3)},
    "answers by text": ("POST", said(id="1", result=ACCEPTED), {}),
    "answers in a batch": ("POST", b"[" + said(id=1, result=ACCEPTED) + b"]", {}),
    "answers with an error": ("POST", said(id=1, error={"code": 1, "message": "no"}), {}),
    "cancels": ("POST", said(method="notifications/cancelled", params={"requestId": 2}), {}),
    "cancels with an id of nothing": ("POST", said(method="notifications/cancelled", id=None, params={"requestId": 2}), {}),
    "reports progress": ("POST", said(method="notifications/progress", params={"progressToken": 2, "progress": 1}), {}),
    "opens it anew": ("POST", said(id=9, method="initialize", params=INITIALIZE), {}),
    "listens": ("GET", b"", {}),
    "resumes a stream": ("GET", b"", {"last-event-id": "0"}),
    "ends it": ("DELETE", b"", {}),
    "asks what may be done": ("OPTIONS", b"", {}),
    "puts": ("PUT", b"", {}),
}  # fmt: skip
# A question and an answer at once: what one reader takes for the one, another takes for the other.
BOTH = {
    "answers under the name of a ping": said(id=1, method="ping", result=ACCEPTED),
    "answers under the name of an opening": said(id=1, method="initialize", params=INITIALIZE, result=ACCEPTED),
    "calls with an error": said(id=1, method="tools/call", params={"name": "look", "arguments": {"term": "x"}}, error=None),
}
UNREADABLE = {
    **BOTH,
    "in another encoding": said(id=1, result=ACCEPTED).decode().encode("utf-16"),
    "with a number that is long": said(id=1, result=ACCEPTED)[:-1] + b', "x": ' + b"9" * 5000 + b"}",
    "nested deep": said(id=1, result=ACCEPTED)[:-1] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested deeper than is looked at": said(id=1, result=ACCEPTED)[:-1] + b', "x": ' + b"[" * 200 + b"]" * 200 + b"}",
    "cut": said(id=1, result=ACCEPTED)[:-1],
    "that says nothing": b"[]",
}


def strangers() -> dict[str, tuple[dict[str, str], int]]:
    """Who is not of the session's tree: what they send along, and what they are answered."""
    good = minted().present(audience=AUDIENCE)
    elsewhere = Issuer(Keyring.generate()).mint(subject="user:jane", agent="host", task="q3", tools=RIGHTS)
    return {
        "nobody": ({}, 401),
        "garbage": ({"authorization": "Bearer cap1_AAAA"}, 401),
        "another scheme": ({"authorization": "Basic abcd"}, 401),
        "a forged token": ({"authorization": f"Bearer {elsewhere.present(audience=AUDIENCE)}"}, 401),
        "a good token of another tree": ({"authorization": f"Bearer {good}"}, 403),
    }


def another_signature(text: str) -> str:
    return text[:-20] + ("B" if text[-20] == "A" else "A") + text[-19:]


@contextmanager
def served(world: World) -> Generator[str, None, None]:
    with over_http(world.app) as url:
        yield url


def bound() -> tuple[Any, Token]:
    key = HolderKey.generate()
    token = minted(key=key.public)
    return current.holding(current.Held(token, key)), token


@pytest.mark.parametrize("owner", ["a static header", "a token for each request", "a key that proves each request"])
def test_a_session_is_of_the_tree_that_opened_it_whatever_a_stranger_sends_in_it(owner: str) -> None:
    """The tool waits for an answer meanwhile. It goes on when its own host gives one, and not before (spec 40.12)."""
    world, token = World(), minted()
    credentials: Any = header_of(token) if owner == "a static header" else auth(AUDIENCE, held=token)
    if owner == "a key that proves each request":
        credentials = auth(AUDIENCE, held=bound()[0])
    host = Host()
    answered: dict[tuple[str, str], int] = {}
    records: list[int] = []

    async def body(url: str) -> Any:
        async with host.client(url, credentials) as client, httpx.AsyncClient() as web, anyio.create_task_group() as group:
            done: list[Any] = []

            async def call() -> None:
                done.append(await client.call_tool("wire", {}))

            group.start_soon(call)
            await host.asked.wait()
            for who, (headers, _) in strangers().items():
                for what, (method, content, more) in SENT.items():
                    before = len(world.decisions)
                    headed = {**PLAIN, "mcp-session-id": host.session, **headers, **more}
                    async with web.stream(method, url, content=content, headers=headed) as response:
                        answered[who, what] = response.status_code
                    records.append(len(world.decisions) - before)
            for what, content in UNREADABLE.items():
                headed = {**PLAIN, "mcp-session-id": host.session}
                answered["nobody", what] = (await web.post(url, content=content, headers=headed)).status_code
            assert world.ran == [] and done == []
            host.go.set()
        return done[0]

    with served(world) as url:
        result = anyio.run(body, url)
    expected = {(who, what): status for who, (_, status) in strangers().items() for what in SENT}
    assert answered == {**expected, **{("nobody", what): 413 if what == "nested deep" else 400 for what in UNREADABLE}}
    assert records == [1] * len(expected)  # nobody was turned away without a record
    assert world.ran == [("wire", "accept")] and text(result) == "accept"


def test_no_stranger_is_sent_what_another_asked_for_by_the_number_of_its_request() -> None:
    """The SDK sends an answer to whoever used its number last. All numbers are used that the host's call can have (spec 40.12)."""
    world, token, host = World(), minted(), Host()
    asked = [
        ("ping", None),
        ("tools/call", {"name": "look", "arguments": {"term": "x"}}),
        ("tools/list", {}),
        ("logging/setLevel", {"level": "error"}),
    ]
    numbers = [*range(8), *map(str, range(8)), "_GET_stream"]

    async def body(url: str) -> Any:
        async with host.client(url, header_of(token)) as client, httpx.AsyncClient() as web, anyio.create_task_group() as group:
            done: list[Any] = []

            async def call() -> None:
                done.append(await client.call_tool("wire", {}))

            group.start_soon(call)
            await host.asked.wait()
            # Of the right tree, by its own account.
            forged = {"authorization": f"Bearer {another_signature(token.present(audience=AUDIENCE))}"}
            for who, (headers, code) in {**strangers(), "a forger": (forged, 401)}.items():
                for method, params in asked:
                    for number in numbers:
                        before = len(world.decisions)
                        content = said(id=number, method=method, **({} if params is None else {"params": params}))
                        answer = await web.post(url, content=content, headers={**PLAIN, "mcp-session-id": host.session, **headers})
                        ending = answer.json()
                        result, error = ending.get("result"), ending.get("error", {})
                        assert ending["id"] == number, (who, method)
                        if method == "ping":
                            assert result == {}, (who, ending)
                        else:  # what the model of a tool is to hear is its result
                            assert error.get("code", result and result["isError"] and 403) == code, (who, ending)
                        assert len(world.decisions) - before == (method != "ping")
            host.go.set()
        return done[0]

    with served(world) as url:
        result = anyio.run(body, url)
    assert world.ran == [("wire", "accept")] and text(result) == "accept"


def test_a_session_that_is_nobodys_offers_no_stream_and_no_login_begins_with_one() -> None:
    """Clients open one before the first call. By a 401 they would log in twice, or give up; 405 they pass over (spec 40.12)."""
    world, token = World(), minted()

    async def body(url: str) -> list[tuple[int, str | None]]:
        async with httpx.AsyncClient(timeout=20) as web:
            opened = await web.post(url, content=said(id=1, method="initialize", params=INITIALIZE), headers=PLAIN)
            headed = {**PLAIN, "mcp-session-id": opened.headers["mcp-session-id"]}
            answers = []
            for more in ({}, {"authorization": "Bearer cap1_AAAA"}, {"authorization": f"Bearer {token.present(audience=AUDIENCE)}"}, {}):
                async with web.stream("GET", url, headers={**headed, **more}) as response:
                    answers.append((response.status_code, response.headers.get("allow")))
        return answers

    with served(world) as url:
        assert anyio.run(body, url) == [(405, "POST, DELETE"), (401, None), (200, None), (401, None)]
    assert len(world.decisions) == 3  # where nothing was shown, nothing was denied


@pytest.mark.parametrize("sdk", ["mcp", "fastmcp"])
def test_nobody_resumes_a_stream(sdk: str) -> None:
    """The stranger opens a session of its own, and asks there for what was sent in another: by the number of an event of each (spec 40.12).

    Both sessions have a request of the same number, by which the SDK keeps what it answers. fastmcp keeps the sessions apart, and not
    the holders in one.
    """
    world, jane, stranger = World(), minted(), minted()

    async def body(url: str) -> dict[str, list[tuple[int, bytes]]]:
        heard: dict[str, list[tuple[int, bytes]]] = {}
        async with httpx.AsyncClient(timeout=20) as web:
            for who, token in (("jane", jane), ("stranger", stranger)):
                named = {**PLAIN, "mcp-protocol-version": "2025-11-25"}

                async def send(method: str, content: bytes = b"", token: Token = token, named: Any = named, **more: str) -> tuple[Any, bytes]:
                    request = header_of(token)(web.build_request(method, url, content=content, headers={**named, **more}))
                    response, got = await web.send(request, stream=True), b""
                    with anyio.move_on_after(0.3 if method == "GET" else 10):
                        async for piece in response.aiter_bytes():
                            got += piece
                    await response.aclose()
                    return response, got

                opened, _ = await send("POST", said(id=1, method="initialize", params={**INITIALIZE, "protocolVersion": "2025-11-25"}))
                named["mcp-session-id"] = opened.headers["mcp-session-id"]
                await send("POST", said(method="notifications/initialized"))
                _, answer = await send("POST", said(id=2, method="tools/call", params={"name": "look", "arguments": {"term": f"of {who}"}}))
                assert f"of {who}".encode() in answer
                own = re.findall(rb"id: ([0-9]+)\r", answer)
                resumed = [await send("GET", **{"last-event-id": number}) for number in [*"0123", *map(bytes.decode, own)]]
                heard[who] = [(response.status_code, got) for response, got in resumed]
        return heard

    def app() -> Any:
        if sdk == "mcp":
            return world.app()
        fastmcp = pytest.importorskip("fastmcp")
        from captoken.adapters.fastmcp import Guard as FastGuard

        guard = FastGuard(Verifier(KEYRING, audience=AUDIENCE, **world.facts))
        server = fastmcp.FastMCP("sales", middleware=[guard])

        @server.tool
        def look(term: str) -> str:
            return term

        return guard.sessions(server.http_app(event_store=Kept()))

    with over_http(app) as url:
        heard = anyio.run(body, url)
    assert not any(b"of jane" in got for _, got in heard["stranger"])
    assert {status for answers in heard.values() for status, _ in answers} == {400}


def test_the_older_transport_has_its_session_in_the_query_under_any_spelling_of_its_id() -> None:
    """SSE: the stranger names the session in another spelling, twice, or beside one that does not exist."""
    world, token = World(), minted()
    put = header_of(token)

    async def body(url: str) -> dict[str, int]:
        answered: dict[str, int] = {}
        base = url.removesuffix("/mcp")
        async with httpx.AsyncClient(timeout=20, base_url=base) as web, web.stream("GET", "/sse") as stream:
            events = (line.removeprefix("data: ") async for line in stream.aiter_lines() if line.startswith("data: "))
            path = await anext(events)
            named = path.partition("session_id=")[2]

            async def post(content: bytes, who: Any = None, path: str = path, **more: str) -> int:
                request = web.build_request("POST", path, content=content, headers={**PLAIN, **more})
                return (await web.send(request if who is None else who(request))).status_code

            opening = {**INITIALIZE, "capabilities": {"elicitation": {}}}
            await post(said(id=1, method="initialize", params=opening), put)
            await anext(events)
            await post(said(method="notifications/initialized"), put)
            assert await post(said(id=2, method="tools/call", params={"name": "wire", "arguments": {}}), put) == 202
            # The stream of the one who opened it has all answers: under a number of hers a helper answers in the tool's place.
            helper = header_of(token.delegate(to="helper"))
            for number in (2, "2"):
                assert await post(said(id=number, method="tools/list", params={}), helper) == 409
            question = json.loads(await anext(events))["id"]
            answer = said(id=question, result=ACCEPTED)
            dashed = f"{named[:8]}-{named[8:12]}-{named[12:16]}-{named[16:20]}-{named[20:]}"
            spelled = {"as it is": named, "upper": named.upper(), "dashed": dashed, "braced": f"%7B{named}%7D"}
            for what, query in spelled.items():
                answered[what] = await post(answer, path=f"/messages/?session_id={query}")
            answered["beside what is none"] = await post(answer, path=f"/messages/?session_id=x&session_id={named}")
            answered["twice"] = await post(answer, path=f"/messages/?session_id={dashed}&session_id={named}")
            answered["one that nobody opened"] = await post(answer, path=f"/messages/?session_id={'0' * 32}")
            answered["beside a header"] = await post(answer, **{"mcp-session-id": "x"})
            assert world.ran == []
            answered["by its own"] = await post(answer, put)
            assert json.loads(await anext(events))["id"] == 2
            assert await post(said(id=2, method="tools/list", params={}), helper) == 202, "it was answered"
            assert json.loads(await anext(events))["id"] == 2
        return answered

    with over_http(lambda: world.server.sse_app()) as url:
        answered = anyio.run(body, url)
    assert answered == {
        **dict.fromkeys(("as it is", "upper", "dashed", "braced", "beside what is none"), 401),
        "one that nobody opened": 404,
        **dict.fromkeys(("twice", "beside a header"), 400),
        "by its own": 202,
    }
    assert world.ran == [("wire", "accept")]


def test_what_is_of_the_tree_may_answer_listen_and_end_it() -> None:
    """The twin: a child of the token that opened the session does what a stranger may not."""
    world, token, host = World(), minted(), Host()
    child = token.delegate(to="helper")

    async def body(url: str) -> list[int]:
        async with host.client(url, header_of(token)) as client, httpx.AsyncClient() as web, anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "wire", {})
            await host.asked.wait()
            put = header_of(child)
            seen = []
            for what in ("answers question 0", "answers question 1", "ends it"):
                method, content, _ = SENT[what]
                request = put(
                    web.build_request(method, url, content=content, headers={**PLAIN, "mcp-session-id": host.session})
                )
                response = await web.send(request)
                seen.append(response.status_code)
                await anyio.sleep(0.1)
            group.cancel_scope.cancel()
            return seen
        raise AssertionError

    with served(world) as url:
        assert anyio.run(body, url) == [202, 202, 200]
    assert world.ran == [("wire", "accept")]


def test_what_runs_in_parallel_again_and_half_is_each_on_record() -> None:
    """A model that calls the same tool at once, again, by other names, and gives up in the middle."""
    world, host = World(), Host()
    token = minted(uses=5, audience=AUDIENCE, tools={"look": {"term": {"prefix": ["q"]}}, "slow": {}})
    wanted = [("look", {"term": f"q{at}"}) for at in range(12)]
    wanted += [("look", {"term": "hr"}), ("wire", {}), ("LOOK", {"term": "q1"}), ("look ", {"term": "q1"}), ("tools/call", {})]

    async def body(url: str) -> list[str]:
        answers: list[str] = []
        async with host.client(url, auth(AUDIENCE, held=token)) as client:
            sales = Presenting(client, audience=AUDIENCE, held=token)

            async def ask(name: str, arguments: Any, meta: Any = None) -> None:
                answer = await client.call_tool(name, arguments, meta=meta)
                answers.append("refused" if is_error(answer) else text(answer))

            with anyio.move_on_after(0.5):
                await sales.call_tool("slow")
            async with anyio.create_task_group() as group:
                for name, arguments in wanted:
                    # The one text for all: a model that has what its host sends.
                    meta = {"io.captoken/token": token.present(audience=AUDIENCE)}
                    group.start_soon(ask, name, arguments, meta)
        return answers

    with served(world) as url:
        answers = anyio.run(body, url)
    assert Counter(answers)["refused"] == len(wanted) - 4  # one of five uses went to the call that was given up
    assert len(world.ran) == 5 and ("slow", "began") in world.ran
    assert len({repr(one) for one in world.ran}) == 5
    asked = Counter(bool(record["allowed"]) for record in world.decisions if record.get("access"))
    assert asked == {True: 5, False: len(wanted) - 6}  # two names are none, and have no access


def test_a_client_without_its_own_header_calls_and_is_no_listener() -> None:
    """A token in `_meta` alone is enough for calls. What has no `_meta` is refused, and the calls go on."""
    world, token, host = World(), minted(), Host()

    async def body(url: str) -> list[Any]:
        async with host.client(url, None) as client:
            sales = Presenting(client, audience=AUDIENCE, held=token)
            before = text(await sales.call_tool("look", {"term": "q1"}))
            other = minted()
            meta = {"io.captoken/token": other.present(audience=AUDIENCE)}
            strange = await client.call_tool("look", {"term": "q2"}, meta=meta)
            return [before, is_error(strange), text(await sales.call_tool("look", {"term": "q3"}))]

    with served(world) as url:
        assert anyio.run(body, url) == ["q1", True, "q3"]
    assert world.ran == [("look", "q1"), ("look", "q3")]
    assert [record["code"] for record in world.decisions if record["code"] not in ("allowed", "malformed")] == ["caller"]


def test_where_nobody_knows_whose_a_session_is_nothing_runs_in_it() -> None:
    """An application that the server did not make by itself, with and without `sessions` round it."""
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.applications import Starlette
    from starlette.routing import Mount

    async def body(url: str) -> str:
        async with host.client(url, auth(AUDIENCE, held=token)) as client:
            try:
                answer = await client.call_tool("look", {"term": "q1"})
            except Exception as error:
                return str(error)
        return text(answer)

    answers = []
    for kept in (False, True):
        world, token, host = World(), minted(), Host()
        server: Any = world.server
        low = server._lowlevel_server if TWO else server._mcp_server
        manager = StreamableHTTPSessionManager(app=low)
        app: Any = Starlette(routes=[Mount("/", manager.handle_request)], lifespan=lambda app, m=manager: m.run())
        with over_http(lambda app=app, world=world, kept=kept: world.guard.sessions(app) if kept else app) as url:
            answers.append(anyio.run(body, url))
        answers.append(len(world.ran))
    assert answers == ["The server cannot decide right now.", 0, "q1", 1]


def test_a_wrong_key_is_one_line_at_the_client_and_its_cause_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The client cannot tell it from a forged token. Both name a decision, and the server's log says which is which."""
    caplog.set_level(logging.WARNING, "captoken")
    world = World()
    elsewhere = Issuer(Keyring.generate()).mint(subject="user:jane", agent="host", task="q3", tools=RIGHTS)
    genuine = minted().serialize()
    forged = Token.parse(another_signature(genuine))
    lines = []

    async def body(url: str, token: Token) -> None:
        with refused_alone():
            async with Host().client(url, None) as client:
                await Presenting(client, audience=AUDIENCE, held=token).call_tool("look", {"term": "q"})

    with served(world) as url:
        for token in (elsewhere, forged):
            with pytest.raises(Refused) as refused:
                anyio.run(body, url, token)
            assert refused.value.__cause__ is None and "\n" not in str(refused.value)
            lines.append(str(refused.value))
    numbers = [line.partition("decision ")[2][:12] for line in lines]
    # Beside them: the stream and the end of the session, for which this client has no header.
    codes = {record["id"]: record["code"] for record in world.decisions}
    assert lines[0].replace(numbers[0], "") == lines[1].replace(numbers[1], "")
    assert [codes[number] for number in numbers] == ["unknown_key", "bad_signature"]
    (warned,) = [line for line in caplog.messages if line.startswith("refused: ")]
    assert numbers[0] in warned and "does this server have the issuer's keyring" in warned and "MCP tools/call" in warned


def test_what_is_no_refusal_leaves_the_block_as_it_is() -> None:
    for raised in (
        ExceptionGroup("", [ValueError()]),
        ExceptionGroup("", [Refused("a", "b"), Refused("a", "b")]),
        ValueError(),
    ):
        with pytest.raises(type(raised)) as caught, refused_alone():
            raise raised
        assert caught.value is raised
    with refused_alone():
        pass
