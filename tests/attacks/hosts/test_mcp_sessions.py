"""Whose a session of MCP is: who gets into it by a way round, and what a helper of the same tree can have there (spec 40.12).

As in test_mcp.py, from outside: by what ran, by what was answered, and by the trail.
"""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from captoken import Issuer, Keyring, Token, current
from captoken.adapters._mcp import sessions
from captoken.adapters.mcp import TWO
from captoken.adapters.mcp_client import auth
from captoken.keys import HolderKey
from tests.adapters.mcp_asking import text
from tests.adapters.mcp_served import Context
from tests.attacks.hosts.test_mcp import (
    ACCEPTED,
    AUDIENCE,
    INITIALIZE,
    PLAIN,
    RIGHTS,
    Host,
    World,
    header_of,
    minted,
    said,
    served,
)

Asked: TypeAlias = Callable[..., Awaitable[httpx.Response]]


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Asked]:
    """Sends requests: the token whose header it has, or None, comes first."""
    async with httpx.AsyncClient(timeout=20) as web:

        async def ask(token: Token | None, content: bytes = b"", method: str = "POST", path: str = "", **more: str) -> httpx.Response:
            request = web.build_request(method, url + path, content=content, headers={**PLAIN, **more})
            return await web.send(request if token is None else header_of(token)(request))

        yield ask


async def opened(ask: Asked, token: Token | None) -> dict[str, str]:
    """A session, as the header that names it."""
    answer = await ask(token, said(id=1, method="initialize", params=INITIALIZE))
    named = {"mcp-session-id": answer.headers["mcp-session-id"]}
    await ask(token, said(method="notifications/initialized"), **named)
    return named


def listing(number: object = 2) -> bytes:
    return said(id=number, method="tools/list", params={})


def called(tool: str, number: object) -> bytes:
    return said(id=number, method="tools/call", params={"name": tool, "arguments": {}})


@pytest.mark.parametrize("how", ["another method", "nothing in it"])
def test_no_stranger_makes_the_guard_forget_a_session_and_takes_it_over(how: str) -> None:
    """By a page that is not there, and then by the name of a session where only the older transport has it."""
    world, owner, stranger, host = World(), minted(), minted(), Host()

    async def body(url: str) -> str:
        done: list[Any] = []
        async with host.client(url, header_of(owner)) as client, asking(url) as ask, anyio.create_task_group() as group:

            async def call() -> None:
                done.append(await client.call_tool("wire", {}))

            group.start_soon(call)
            await host.asked.wait()
            named = {"mcp-session-id": host.session}
            tried = ("PUT", b"") if how == "another method" else ("POST", b"[]")
            await ask(None, tried[1], tried[0], path="/../nope", **named)
            await ask(stranger, tried[1], tried[0], path="/../nope", **named)
            assert (await ask(owner, listing(99), **named)).status_code == 200, "the owner is still in it"
            claimed = await ask(stranger, listing(), path=f"?session_id={host.session}")
            assert claimed.status_code == 404
            for number in range(4):
                assert (await ask(stranger, said(id=number, result=ACCEPTED), **named)).status_code == 403
            assert (await ask(stranger, method="DELETE", **named)).status_code == 403
            assert world.ran == [] and done == []
            host.go.set()
        return text(done[0])

    with served(world) as url:
        assert anyio.run(body, url) == "accept"


def sent_raw(url: str, pieces: list[bytes]) -> bytes:
    """What a server answers to bytes, each piece a moment after the one before."""
    place = urlsplit(url)
    assert place.hostname and place.port
    with socket.create_connection((place.hostname, place.port), timeout=1) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.1)
        try:
            return connection.recv(65536)
        except TimeoutError:
            return b""


@pytest.mark.parametrize("content", [said(id=1, result=ACCEPTED), said(id=2, method="ping"), said(method="notifications/cancelled", params={"requestId": 2})])
def test_a_session_that_is_named_behind_the_body_is_not_named(content: bytes) -> None:
    """Uvicorn adds trailers to the headers that the guard has read. The SDK would read them later."""
    pytest.importorskip("httptools")
    world, owner, host = World(), minted(), Host()

    async def body(url: str) -> list[bytes]:
        place = urlsplit(url)
        head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nTransfer-Encoding: chunked\r\n"
        lines = "".join(f"{name}: {value}\r\n" for name, value in PLAIN.items())
        chunk = b"%x\r\n%b\r\n" % (len(content), content)
        answers = []
        async with host.client(url, header_of(owner)) as client, anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "wire", {})
            await host.asked.wait()
            trailer = f"0\r\nMcp-Session-Id: {host.session}\r\n\r\n".encode()
            for _ in range(2):
                answers.append(await anyio.to_thread.run_sync(sent_raw, url, [f"{head}{lines}\r\n".encode() + chunk, trailer]))
            assert world.ran == []
            host.go.set()
        return answers

    with served(world) as url:
        answers = anyio.run(body, url)
    assert all(answer.startswith(b"HTTP/1.1 400 ") for answer in answers), answers
    assert world.ran == [("wire", "accept")]


@pytest.mark.parametrize("number", [9, "9", "_GET_stream"])
def test_a_helper_is_not_sent_what_its_delegator_asked_for_by_the_number_of_its_request(number: object) -> None:
    """A helper of the same tree, whose token permits less. The SDK takes 9 and "9" for one."""
    world, go = World(), anyio.Event()

    @world.server.tool()
    async def secret() -> str:
        await go.wait()
        return "salaries"

    @world.server.tool()
    async def idle() -> str:
        return "nothing"

    root = minted(tools={"secret": {}, "idle": {}})
    helper = root.delegate(to="helper", tools={"idle": {}})

    async def body(url: str) -> None:
        answers: list[httpx.Response] = []
        async with asking(url) as ask:
            named = await opened(ask, root)

            async def call() -> None:
                answers.append(await ask(root, called("secret", 9), **named))

            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await anyio.sleep(0.3)
                refused = await ask(helper, called("idle", number), **named)
                assert refused.status_code == 409 and "under way" in refused.text
                assert (await ask(helper, called("idle", 10), **named)).status_code == 200
                go.set()
            assert "salaries" in answers[0].text
            again = await ask(helper, called("idle", 9), **named)
            assert "nothing" in again.text, "what is answered has its number no more"
            twice = await ask(helper, b"[" + called("idle", 11) + b"," + called("idle", "11") + b"]", **named)
            assert twice.status_code == 409

    with served(world) as url:
        anyio.run(body, url)


def test_a_number_stays_used_where_nobody_waited_for_the_answer() -> None:
    """The delegator's connection broke. The tool goes on, and the SDK would send its answer to whoever has the number then."""
    world, go = World(), anyio.Event()

    @world.server.tool()
    async def secret() -> str:
        await go.wait()
        return "salaries"

    root = minted(tools={"secret": {}})

    async def body(url: str) -> None:
        async with asking(url) as ask:
            named = await opened(ask, root)
            with anyio.move_on_after(0.5):
                await ask(root, called("secret", 9), **named)
            await anyio.sleep(0.3)
            assert (await ask(root, listing(9), **named)).status_code == 409
            assert (await ask(root, listing(10), **named)).status_code == 200
            go.set()

    with served(world) as url:
        anyio.run(body, url)


@pytest.mark.skipif(not TWO, reason="mcp 1 closes no stream early")
def test_a_stream_that_a_tool_closes_early_is_no_answer() -> None:
    """A tool may have its client come back for the answer. The number is under way until it is there."""
    world, go = World(), anyio.Event()

    @world.server.tool()
    async def secret(ctx: Context) -> str:
        await ctx.close_sse_stream()
        await go.wait()
        return "salaries"

    @world.server.tool()
    async def idle() -> str:
        return "nothing"

    root = minted(tools={"secret": {}, "idle": {}})
    helper = root.delegate(to="helper", tools={"idle": {}})
    newer = {"mcp-protocol-version": "2025-11-25"}

    async def body(url: str) -> None:
        async with asking(url) as ask:
            opening = said(id=1, method="initialize", params={**INITIALIZE, "protocolVersion": "2025-11-25"})
            answer = await ask(root, opening, **newer)
            named = {"mcp-session-id": answer.headers["mcp-session-id"], **newer}
            await ask(root, said(method="notifications/initialized"), **named)
            closed = await ask(root, called("secret", 9), **named)
            assert closed.status_code == 200 and "salaries" not in closed.text
            assert (await ask(helper, called("idle", "9"), **named)).status_code == 409
            assert "nothing" in (await ask(helper, called("idle", 10), **named)).text
            go.set()

    with served(world) as url:
        anyio.run(body, url)


@pytest.mark.parametrize(("status", "is_free"), [(504, False), (408, False), (202, False), (200, True), (400, True), (406, True), (415, True)])
def test_what_something_between_answers_is_no_answer(status: int, is_free: bool) -> None:
    """A middleware says that it took too long, and the tool goes on: its answer would go to whoever has the number then."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        is_opening = not any(name == b"mcp-session-id" for name, _ in scope["headers"])
        headers = [(b"mcp-session-id", b"s-1")] if is_opening else []
        await send({"type": "http.response.start", "status": 200 if is_opening else status, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    world, root = World(), minted(tools={"secret": {}, "idle": {}})
    guarded = world.guard.sessions(app)

    async def body() -> list[int]:
        seen = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://sales.example") as web:
            put, named = header_of(root), {"mcp-session-id": "s-1"}
            for content, more in [(said(id=1, method="initialize", params=INITIALIZE), {}), (called("secret", 9), named), (called("idle", 9), named)]:
                request = web.build_request("POST", "/mcp", content=content, headers={**PLAIN, **more})
                seen.append((await web.send(put(request))).status_code)
        return seen

    assert anyio.run(body) == [200, status, status if is_free else 409]


def test_too_many_requests_without_an_answer_end_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their numbers are kept, and what is kept is bounded."""
    monkeypatch.setattr(sessions, "_MOST_UNDER_WAY", 3)
    session = sessions.Opened("s", None)
    session.begin([b"1", b"2"])
    with pytest.raises(sessions.RequestError, match="open another"):
        session.begin([b"3"])
    session.end([b"2"])
    session.begin([b"3"])


def test_what_is_forgotten_stays_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens many sessions ends others by it. Nobody gets into one, also not by a body that comes late."""
    monkeypatch.setattr(sessions, "MOST", 3)
    world, owner, stranger = World(), minted(), minted()

    async def body(url: str) -> None:
        flooded = anyio.Event()

        async def late() -> AsyncIterator[bytes]:
            await flooded.wait()
            yield said(method="notifications/cancelled", params={"requestId": 2})

        async with asking(url) as ask, httpx.AsyncClient() as web, anyio.create_task_group() as group:
            named = await opened(ask, owner)

            async def slowly() -> None:
                answer = await web.post(url, content=late(), headers={**PLAIN, **named})
                assert answer.status_code == 404

            group.start_soon(slowly)
            await anyio.sleep(0.2)
            for number in range(8):
                await ask(stranger, listing(), path=f"?session_id={number:032}")
            assert (await ask(owner, listing(), **named)).status_code == 200, "a name that nobody opened takes no place"
            for _ in range(4):
                await opened(ask, stranger)
            flooded.set()
            for who in (None, stranger, owner):
                assert (await ask(who, listing(), **named)).status_code == 404
                assert (await ask(who, method="DELETE", **named)).status_code == 404

    with served(world) as url:
        anyio.run(body, url)


def test_a_forged_initialize_claims_no_session_that_is_there() -> None:
    """The first genuine token has it."""
    world, owner = World(), minted()
    forged = Issuer(Keyring.generate()).mint(subject="user:x", agent="a", task="t", tools=RIGHTS)

    async def body(url: str) -> list[int]:
        async with asking(url) as ask:
            named = await opened(ask, None)
            await ask(forged, said(id=5, method="initialize", params=INITIALIZE), **named)
            first = await ask(owner, listing(), **named)
            second = await ask(forged, listing(3), **named)
        return ["tools" in first.text, "tools" in second.text]

    with served(world) as url:
        assert anyio.run(body, url) == [True, False]


def test_a_stream_ends_with_its_token() -> None:
    """What comes after that is not sent there, and whoever listens is told by the end."""
    world = World()

    @world.server.tool()
    async def shout(ctx: Context) -> str:
        await ctx.session.send_tool_list_changed()
        return "ok"

    token = minted(tools={"shout": {}})
    short = token.attenuate(expires_in=2)

    async def body(url: str) -> list[str]:
        heard: list[str] = []
        async with asking(url) as ask, httpx.AsyncClient(timeout=20) as web:
            named = await opened(ask, token)
            request = header_of(short)(web.build_request("GET", url, headers={**PLAIN, **named}))
            stream = await web.send(request, stream=True)
            await ask(token, called("shout", 2), **named)
            lines = stream.aiter_lines()
            async for line in lines:
                if line.startswith("data:"):
                    heard.append(line)
                    break
            await anyio.sleep(2.5)
            await ask(token, called("shout", 3), **named)
            with anyio.fail_after(5):
                heard += [line async for line in lines if line.startswith("data:")]
        return heard

    with served(world) as url:
        assert len(anyio.run(body, url)) == 1


def test_a_stream_that_nobody_reads_ends_with_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that reads nothing holds up all that the SDK sends in the session, and no longer than its token is good."""
    monkeypatch.setattr(sessions, "_LOOKS_EVERY", 0.2)
    world = World()

    @world.server.tool()
    async def shout(ctx: Context) -> str:
        await ctx.session.send_resource_updated("file:///" + "x" * 500_000)
        return "ok"

    token = minted(tools={"shout": {}})
    short = token.delegate(to="helper", tools={}).attenuate(expires_in=5)

    async def body(url: str) -> None:
        place = urlsplit(url)
        async with asking(url) as ask, httpx.AsyncClient(timeout=20) as web:
            named = await opened(ask, token)
            headers = header_of(short)(web.build_request("GET", url, headers={**PLAIN, **named})).headers
            with socket.socket() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.connect((place.hostname, place.port))
                head = [f"GET {place.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
                connection.sendall("\r\n".join(head).encode())
                assert connection.recv(12) == b"HTTP/1.1 200"
                is_held_up = False
                for number in range(40):
                    with anyio.move_on_after(1) as waited:
                        await ask(token, called("shout", f"n{number}"), **named)
                    if is_held_up := waited.cancelled_caught:
                        break
                assert is_held_up
                with anyio.fail_after(8):
                    assert (await ask(token, called("shout", 99), **named)).status_code == 200
                    async with web.stream("GET", url, headers=header_of(token)(web.build_request("GET", url, headers={**PLAIN, **named})).headers) as again:
                        assert again.status_code == 200

    with served(world) as url:
        anyio.run(body, url)


@pytest.mark.parametrize("ends", [True, False])
def test_a_stream_that_is_silent_ends_with_its_token(ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent in it, and it is over all the same; one whose token goes on stays."""
    monkeypatch.setattr(sessions, "_LOOKS_EVERY", 0.1)
    world, token = World(), minted()
    own = token.attenuate(expires_in=1) if ends else token

    async def body(url: str) -> bool:
        async with asking(url) as ask, httpx.AsyncClient(timeout=20) as web:
            named = await opened(ask, token)
            stream = await web.send(header_of(own)(web.build_request("GET", url, headers={**PLAIN, **named})), stream=True)
            assert stream.status_code == 200
            with anyio.move_on_after(3) as waited:
                assert [line async for line in stream.aiter_lines() if line.startswith("data:")] == []
            return not waited.cancelled_caught

    with served(world) as url:
        assert anyio.run(body, url) == ends


def test_a_ping_of_a_bound_token_is_answered_and_is_no_denial() -> None:
    """It has no params, and so nothing to prove. Many clients ping all the time."""
    world, key = World(), HolderKey.generate()
    held = current.holding(current.Held(minted(key=key.public), key))

    async def body(url: str) -> None:
        async with Host().client(url, auth(AUDIENCE, held=held)) as client:
            with warnings.catch_warnings(action="ignore"):  # newer protocols have no ping
                await client.send_ping()

    with served(world) as url:
        anyio.run(body, url)
    assert [record for record in world.decisions if not record["allowed"]] == []


def test_what_only_looks_like_a_session_is_none_of_the_guards() -> None:
    """An address with a field of that name, of the client's or of the application's own."""
    world, token = World(), minted()

    async def body(url: str) -> list[int]:
        async with asking(url) as ask:
            named = await opened(ask, token)
            mine = await ask(token, listing(), path="?session_id=tenant", **named)
            page = await ask(None, method="GET", path="/../report?session_id=cart-7")
        return [mine.status_code, page.status_code]

    with served(world) as url:
        assert anyio.run(body, url) == [200, 404]
