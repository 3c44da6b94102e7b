"""A hostile host in front of the gateway for MCP: a server of the SDK that guards nothing, and strangers who know its client's session.

The strangers, and what they try, are those of `test_mcp`. It is judged from outside in the same way: by what ran, by what each was
answered, and by the trail, in which everybody stands who was turned away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx

from captoken import AsyncVerifier, Token
from captoken.adapters.gateway import Gateway, configured
from tests.adapters.mcp_asking import is_error, text
from tests.adapters.mcp_served import over_http
from tests.adapters.serving import listening, origin_of, served

from .test_mcp import (
    AUDIENCE,
    KEYRING,
    PLAIN,
    RIGHTS,
    SENT,
    UNREADABLE,
    Host,
    World,
    header_of,
    minted,
    said,
    strangers,
)

BEHIND = {f"{AUDIENCE}.{tool}": rule for tool, rule in RIGHTS.items()}


def root(**caveats: Any) -> Token:
    """The root of a tree of its own, whose tools are those of the service."""
    return minted(**{"audience": AUDIENCE, "tools": BEHIND, **caveats})


@contextmanager
def behind(world: World, folder: Path) -> Generator[str]:
    """The world's server behind the gateway: the address that clients have."""
    with ExitStack() as stack:
        url = stack.enter_context(over_http(world.app))
        listens = listening()
        named = f'[service.{AUDIENCE}]\nmcp = "{url}"\nasks = ["elicitation"]\n'
        (folder / "gateway.toml").write_text(f'version = 1\n[gateway]\nkeyring = "none"\norigin = "{origin_of(listens)}"\n{named}')
        verifier = AsyncVerifier(KEYRING, AUDIENCE, **world.facts)
        gateway = Gateway(configured(str(folder / "gateway.toml")), {AUDIENCE: verifier})
        yield f"{stack.enter_context(served(gateway, listens, lifespan='on'))}/{AUDIENCE}/mcp"


def test_a_session_at_the_gateway_is_of_its_tree_whatever_a_stranger_sends_in_it(tmp_path: Path) -> None:
    """A tool that is under way waits for its host's answer meanwhile: the strangers neither give one nor end it."""
    world, token, host = World(is_guarded=False), root(), Host()
    answered: dict[tuple[str, str], int] = {}
    records: dict[tuple[str, str], int] = {}

    async def body(url: str) -> Any:
        async with host.client(url, header_of(token)) as client, httpx.AsyncClient() as web, anyio.create_task_group() as group:
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
                        await response.aread()
                        assert b'"result"' not in response.content
                    records[who, what] = len(world.decisions) - before
            for what, content in UNREADABLE.items():
                headed = {**PLAIN, "mcp-session-id": host.session}
                answered["nobody", what] = (await web.post(url, content=content, headers=headed)).status_code
            assert world.ran == [] and done == []
            host.go.set()
        return done[0]

    with behind(world, tmp_path) as url:
        result = anyio.run(body, url)
    unheard = {what for what, (method, _, _) in SENT.items() if method in ("OPTIONS", "PUT")}  # whoever asks
    expected = {(who, what): 405 if what in unheard else status for who, (_, status) in strangers().items() for what in SENT}
    # What two readers could read differently is not read at all, and a request is answered by an error of JSON-RPC.
    unread = {"answers in a batch"}
    expected |= {(who, what): 400 for who, what in expected if what in unread}
    expected["a good token of another tree", "opens it anew"] = 200
    assert answered == {**expected, **{("nobody", what): 400 for what in UNREADABLE}}
    # Nobody was turned away without a record. Of a good token there are two: that it is genuine, and that it is of another tree.
    each = {(who, what): 2 if who == "a good token of another tree" else 1 for who, what in records}
    assert records == {key: 0 if key[1] in unread | unheard else number for key, number in each.items()}
    assert world.ran == [("wire", "accept")] and text(result) == "accept"


def test_who_is_of_the_tree_may_answer_and_end_it(tmp_path: Path) -> None:
    """The twin: a child of the token that opened the session does what a stranger may not."""
    world, token, host = World(is_guarded=False), root(), Host()
    put = header_of(token.delegate(to="helper"))

    async def body(url: str) -> list[int]:
        async with host.client(url, header_of(token)) as client, httpx.AsyncClient() as web, anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "wire", {})
            await host.asked.wait()
            seen = []
            for what in [*(f"answers question {at}" for at in range(4)), "ends it"]:
                method, content, _ = SENT[what]
                request = web.build_request(method, url, content=content, headers={**PLAIN, "mcp-session-id": host.session})
                seen.append((await web.send(put(request))).status_code)
                await anyio.sleep(0.1)
            group.cancel_scope.cancel()
            return seen
        raise AssertionError

    with behind(world, tmp_path) as url:
        seen = anyio.run(body, url)
    assert seen == [202, 202, 202, 202, 204]
    assert world.ran == [("wire", "accept")]


def test_what_runs_in_parallel_again_and_half_is_each_on_record(tmp_path: Path) -> None:
    """A model that calls the same tool at once, again, by other names, and gives up in the middle."""
    world, host = World(is_guarded=False), Host()
    rights = {f"{AUDIENCE}.look": {"term": {"prefix": ["q"]}}, f"{AUDIENCE}.slow": {}}
    token = root(uses=5, tools=rights)
    wanted = [("look", {"term": f"q{at}"}) for at in range(12)]
    wanted += [("look", {"term": "hr"}), ("wire", {}), ("LOOK", {"term": "q1"}), ("look ", {"term": "q1"}), ("tools/call", {})]

    async def body(url: str) -> list[str]:
        answers: list[str] = []
        async with host.client(url, header_of(token)) as client:

            async def ask(name: str, arguments: Any) -> None:
                answer = await client.call_tool(name, arguments)
                answers.append("refused" if is_error(answer) else text(answer))

            with anyio.move_on_after(0.5):
                await ask("slow", {})
            async with anyio.create_task_group() as group:
                for name, arguments in wanted:
                    group.start_soon(ask, name, arguments)
        return answers

    with behind(world, tmp_path) as url:
        answers = anyio.run(body, url)
    assert Counter(answers)["refused"] == len(wanted) - 4  # one of five uses went to the call that was given up
    assert len(world.ran) == 5 and ("slow", "began") in world.ran
    asked = Counter(bool(record["allowed"]) for record in world.decisions if record.get("access"))
    assert asked[True] == 5


def test_what_no_stranger_may_send_reaches_no_server(tmp_path: Path) -> None:
    """Without a session, too: a message that opens one, lists or calls is answered by the gateway alone."""
    world = World(is_guarded=False)
    messages = [said(id=1, method=method, params={}) for method in ("initialize", "tools/list", "ping", "server/discover", "tools/call")]
    with behind(world, tmp_path) as url, httpx.Client(trust_env=False) as web:
        for headers, _ in list(strangers().values())[:-1]:
            for content in messages:
                assert web.post(url, content=content, headers={**PLAIN, **headers}).status_code == 401
    assert world.ran == []
