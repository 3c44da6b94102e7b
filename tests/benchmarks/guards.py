"""What a guard costs: guarded against bare, per call, in turns. `python -m tests.benchmarks.guards [NAME ...] [--record]`

Needs `pip install -e '.[test,servers]'`. Bare is the same work without captoken: no token, no decision. All in one process; where
a server is needed it is started here. The token is as minted; verifiers have no stores. Processor time, that of PostgreSQL's
backend included: what else the machine does has little part in it.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from time import process_time
from typing import Any

from captoken import Grant, Issuer, Keyring, Verifier, current
from captoken.tools import ToolGuard

from .record import keep, machine

ROUNDS = 41
KEYRING = Keyring.generate()
ROOT = Issuer(KEYRING).mint(
    subject="user:jane", agent="orchestrator", task="q3", tables=["sales"], operations=["select"], tools={"add": {}, "/x.Y/Z": {}},
    expires_at=None,
)  # fmt: skip
SOME = ROOT.attenuate(columns={"sales": ["region", "amount"]})
QUERY = "select region, sum(amount) from sales group by region"
Run = Callable[[int], None]  # so many calls
Pair = tuple[str, int, Run, Run]  # what, calls a round, bare, guarded


def sqlite() -> Iterator[Pair]:
    from captoken.adapters.sqlite import Connection, guarded

    for factory, kind in ((sqlite3.Connection, "sqlite"), (Connection, "sqlite, remembering")):
        yield from _sqlite(sqlite3.connect(":memory:", isolation_level=None, factory=factory), kind, guarded)


def _sqlite(connection: sqlite3.Connection, kind: str, guarded: Any) -> Iterator[Pair]:
    connection.executescript(
        "create table sales (region, amount); create table hr (pay); insert into sales values ('eu', 5), ('us', 7)"
    )
    grant = Verifier(KEYRING).authenticate(ROOT)

    def bare(calls: int, new: bool = False) -> None:
        connection.execute("begin")
        for at in range(calls):
            connection.execute(QUERY + " " * (at if new else 0)).fetchall()
        connection.execute("commit")

    def seen(calls: int, new: bool = False) -> None:
        with guarded(connection, grant) as db:
            for at in range(calls):
                db.execute(QUERY + " " * (at if new else 0)).fetchall()

    numbers = itertools.count()

    def texts(calls: int) -> list[str]:
        return [f"select region, sum(amount) as total from sales where amount > {next(numbers)} group by region" for _ in range(calls)]

    def plain_texts(calls: int) -> None:
        for sql in texts(calls):
            connection.execute(sql).fetchall()

    def guarded_texts(calls: int) -> None:
        with guarded(connection, grant) as db:
            for sql in texts(calls):
                db.execute(sql).fetchall()

    yield f"{kind}, a statement seen before in the block", 200, bare, seen
    yield f"{kind}, a text that differs from others in a value", 100, plain_texts, guarded_texts
    if kind == "sqlite":  # the other has seen it in the round before
        yield "sqlite, a new statement", 100, lambda calls: bare(calls, True), lambda calls: seen(calls, True)

    def ones(calls: int) -> None:
        for _ in range(calls):
            bare(1)

    def blocks(held: Grant) -> Run:
        def run(calls: int) -> None:
            for _ in range(calls):
                with guarded(connection, held) as db:
                    db.execute(QUERY).fetchall()

        return run

    yield f"{kind}, a block with one statement", 50, ones, blocks(grant)
    yield f"{kind}, the same of a table with columns", 50, ones, blocks(Verifier(KEYRING).authenticate(SOME))


def postgres() -> Iterator[Pair]:
    import psycopg
    from psycopg.conninfo import make_conninfo

    from captoken.adapters.postgres import Role, apply_plan, guarded
    from tests.stores.servers import Postgres

    server = Postgres()
    where = make_conninfo(server.conninfo, host=server.folder)  # over its socket
    try:
        with psycopg.connect(where, autocommit=True) as admin:
            admin.execute("create table sales (region text, amount integer); insert into sales values ('eu', 5), ('us', 7)")
            apply_plan(admin, "agents", Role("analyst", {"sales": ["select"]}))
        grant = Verifier(KEYRING).authenticate(ROOT)
        with psycopg.connect(make_conninfo(where, user="agents")) as own, psycopg.connect(where) as plain:

            def bare(calls: int) -> None:
                with plain.transaction():
                    for _ in range(calls):
                        plain.execute(QUERY, prepare=False).fetchall()

            def statements(calls: int) -> None:
                with guarded(own, grant) as db:
                    for _ in range(calls):
                        db.execute(QUERY).fetchall()

            def timed(run: Run) -> Run:
                """With what the backend took, which is another process."""

                def taken() -> float:
                    backends = (one.info.backend_pid for one in (own, plain))
                    return process_time() + sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in backends) / 1e9

                def seconds(calls: int) -> float:
                    began = taken()
                    run(calls)
                    return taken() - began

                return seconds  # type: ignore[return-value]

            yield "postgres, a further statement in a block", 50, timed(bare), timed(statements)

            def ones(run: Run) -> Run:
                return lambda calls: [run(1) for _ in range(calls)] and None

            yield "postgres, a block with one statement", 30, timed(ones(bare)), timed(ones(statements))

            def once(calls: int) -> None:
                for _ in range(calls):
                    with guarded(own, grant) as db:
                        db.execute_once(QUERY).fetchall()

            yield "postgres, one statement with its commit", 30, timed(ones(bare)), timed(once)
    finally:
        server.stop()


def asgi() -> Iterator[Pair]:
    from captoken.adapters.asgi import CaptokenMiddleware

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    inside = CaptokenMiddleware(app, Verifier(KEYRING, audience="api"), origin="https://api.example")
    text = ROOT.present(audience="api", expires_in=10**6)
    sent = [(b"host", b"api.example"), (b"authorization", b"Bearer " + text.encode())]
    base = {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b"", "scheme": "https"}

    def calling(called: Any) -> Run:
        async def many(calls: int) -> None:
            for _ in range(calls):
                await called({**base, "headers": sent}, receive, send)

        return lambda calls: LOOP.run_until_complete(many(calls))

    yield "asgi, a request", 200, calling(app), calling(inside)


def mcp() -> Iterator[Pair]:
    from mcp import Client
    from mcp.server import MCPServer

    from captoken.adapters.mcp import Guard
    from captoken.adapters.mcp_client import Presenting

    def served(*, guarded: bool) -> Any:
        server = MCPServer("sums", log_level="ERROR")
        server.tool(name="add")(lambda a: a + 1)
        if guarded:
            Guard(Verifier(KEYRING, audience="sums")).install(server)
        return server

    async def many(calls: int, guarded: bool, step: int) -> float:
        async with Client(served(guarded=guarded)) as client:
            caller = Presenting(client, audience="sums") if guarded else client
            with current.use(ROOT):
                await caller.call_tool("add", {"a": 0})
                start = process_time()
                for at in range(calls):
                    await caller.call_tool("add", {"a": 1 + at * step})
                return process_time() - start

    def timed(guarded: bool, step: int = 0) -> Any:
        return lambda calls: LOOP.run_until_complete(many(calls, guarded, step))

    yield "mcp, a call in one process, presented and guarded", 40, timed(False), timed(True)
    # What was presented for a call is for its arguments: nothing is kept here.
    yield "mcp, the same with new arguments each time", 40, timed(False, 1), timed(True, 1)


def tools() -> Iterator[Pair]:
    guard = ToolGuard(Verifier(KEYRING))

    def guarded(calls: int) -> None:
        with current.use(ROOT):
            for _ in range(calls):
                guard.check("add", {"a": 1}, agent="orchestrator")

    yield "a tool call, decided (ToolGuard.check)", 100, lambda calls: None, guarded


def pydantic_ai() -> Iterator[Pair]:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    from captoken.adapters.pydantic_ai import TokenGuard

    def answer(messages: Any, info: Any) -> ModelResponse:
        turn = sum(isinstance(message, ModelResponse) for message in messages)
        return ModelResponse(parts=[TextPart("done")] if turn else [ToolCallPart("add", {"a": 1}) for _ in range(CALLS)])

    def add(a: int) -> int:
        return a + 1

    def agent(*capabilities: Any) -> Run:
        made = Agent(FunctionModel(answer), name="orchestrator", tools=[add], capabilities=list(capabilities))

        def run(calls: int) -> None:
            with current.use(ROOT):
                LOOP.run_until_complete(made.run("go"))

        return run

    yield "pydantic-ai, a tool call", CALLS, agent(), agent(TokenGuard(ToolGuard(Verifier(KEYRING))))


def openai_agents() -> Iterator[Pair]:
    from agents import Agent, Runner, function_tool, set_tracing_disabled
    from agents.testing import ScriptedModel, assistant_message, function_call

    from captoken.adapters.openai_agents import guarded

    set_tracing_disabled(True)

    @function_tool
    def add(a: int) -> int:
        return a + 1

    def run(wrap: Any) -> Run:
        def calls_(calls: int) -> None:
            turns = [[function_call("add", {"a": 1}, call_id=str(at)) for at in range(CALLS)], [assistant_message("done")]]
            agent = wrap(Agent(name="orchestrator", model=ScriptedModel(turns), tools=[add]))
            with current.use(ROOT):
                LOOP.run_until_complete(Runner.run(agent, "go"))

        return calls_

    guard = ToolGuard(Verifier(KEYRING))
    yield "openai-agents, a tool call", CALLS, run(lambda agent: agent), run(lambda agent: guarded(agent, guard))


def langchain() -> Iterator[Pair]:
    from langchain.agents import create_agent
    from langchain.tools import tool
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    from captoken.adapters.langchain import TokenGuard

    class Fake(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

    @tool
    def add(a: int) -> int:
        """Add one."""
        return a + 1

    def run(*middleware: Any) -> Run:
        def calls_(calls: int) -> None:
            asked = [{"name": "add", "args": {"a": 1}, "id": str(at)} for at in range(CALLS)]
            model = Fake(messages=iter([AIMessage("", tool_calls=asked), AIMessage("done")]))
            agent = create_agent(model, [add], middleware=list(middleware), name="orchestrator")
            with current.use(ROOT):
                agent.invoke({"messages": [("user", "go")]})

        return calls_

    yield "langchain, a tool call", CALLS, run(), run(TokenGuard(ToolGuard(Verifier(KEYRING)), agent="orchestrator"))


def grpc() -> Iterator[Pair]:
    from concurrent.futures import ThreadPoolExecutor

    import grpc as rpc

    from captoken import Access
    from captoken.adapters.grpc import Guard, Presenting

    method = "/x.Y/Z"
    handler = rpc.method_handlers_generic_handler(
        "x.Y", {"Z": rpc.unary_unary_rpc_method_handler(lambda request, context: request)}
    )

    @contextmanager
    def served(*interceptors: Any) -> Iterator[Any]:
        server = rpc.server(ThreadPoolExecutor(2), interceptors=interceptors)
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with rpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
        finally:
            server.stop(None).wait()

    def calling(channel: Any) -> Run:
        call = channel.unary_unary(method)

        def many(calls: int) -> None:
            with current.use(ROOT):
                for _ in range(calls):
                    call(b"x")

        return many

    guard = Guard(Verifier(KEYRING, audience="y"), {method: Access(tool=method)})
    with served() as plain, served(guard) as checked:
        presenting = Presenting(checked, audience="y", insecure=True)
        yield "grpc, a unary call, presented and guarded", 40, calling(plain), calling(presenting)


CALLS = 40  # tool calls that a fake model makes at once
LOOP = asyncio.new_event_loop()
ALL = {one.__name__: one for one in (tools, sqlite, postgres, asgi, mcp, pydantic_ai, openai_agents, langchain, grpc)}


def measured(calls: int, bare: Run, guarded: Run) -> tuple[list[float], list[float]]:
    """Microseconds a call, round by round. What times itself returns the seconds."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for run, into in zip((bare, guarded), taken, strict=True):
            start = process_time()
            own = run(calls)  # type: ignore[func-returns-value]
            seconds = process_time() - start if own is None else own
            into.append(seconds / calls * 1e6)
    return taken


def main(arguments: list[str]) -> None:
    names = [one for one in arguments if one != "--record"]
    facts = machine()
    print(f"load {facts['load at the start']}; medians of {ROUNDS} rounds in turns, µs a call\n")
    print(f"{'':<52}{'bare':>8}{'guarded':>9}{'more':>8}{'×':>7}   quartiles of what it costs more")
    gc.freeze()
    rows: list[dict[str, Any]] = []
    for name in names or ALL:
        for what, calls, bare, guarded in ALL[name]():
            bare(calls), guarded(calls)
            plain, checked = measured(calls, bare, guarded)
            more = [after - before for before, after in zip(plain, checked, strict=True)]
            low, _, high = quantiles(more, n=4)
            ratio = median(after / before for before, after in zip(plain, checked, strict=True))
            print(
                f"{what:<52}{median(plain):>8.1f}{median(checked):>9.1f}{median(more):>8.1f}{ratio:>7.2f}   {low:.1f} to {high:.1f}"
            )
            rows.append({"what": what, "bare": median(plain), "more": median(more), "low": low, "high": high})
    if len(names) < len(arguments):
        keep("guards", facts, {"rounds": ROUNDS, "rows": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
