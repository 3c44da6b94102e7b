"""Marks at each guard: what was done at one closes what the rule names at all others, before anything runs (docs/marks.md)."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text

from captoken import Access, AsyncVerifier, Denied, Issuer, Token, Verifier, current
from captoken.adapters import mcp_client, postgres, sqlalchemy, sqlite
from captoken.adapters.fastapi import protect, require
from captoken.adapters.grpc import Guard, Presenting
from captoken.errors import Refused
from captoken.stores.memory import MemoryLedger
from captoken.stores.ports import MarkedStep
from captoken.tools import ToolGuard, guarded_tool
from tests.adapters.postgres.conftest import place  # noqa: F401, a fixture
from tests.fixtures import KEYRING, clock

from . import mcp_asking
from .mcp_served import Ran, served
from .test_gateway import gateway

RULES: dict[str, Any] = {
    "marks": {"private": {"tables": ["customers"], "operations": ["select"]}, "outside": {"tables": ["outbox"], "tools": ["*"]}},
    "forbid": [{"in": ["outside"], "after": ["private"]}],
}
TOLD = "Not permitted any more in this task, after what was done in it."
SCHEMA = """
    create table customers (name text);
    create table outbox (line text);
    insert into customers values ('Alder');
"""
READ = Access(table="customers", operation="select")


def minted(audience: str = "desk", **more: Any) -> Token:
    given = {"tables": ["customers", "outbox"], "operations": ["select", "insert"], "tools": {"*": {}}, **RULES, **more}
    return Issuer(KEYRING, clock=clock()).mint(subject="ann", agent="reader", task="desk", audience=audience, **given)


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger(shared=True, floor=0)


def server(ledger: Any, audience: str = "desk") -> Verifier:
    return Verifier(KEYRING, audience, ledger=ledger, clock=clock())


def read(ledger: Any) -> None:
    """Another agent of the task reads customers, at another server."""
    assert server(ledger, "crm").check(minted("crm").serialize(), READ)


def fill(shop: sqlite3.Connection) -> None:
    with shop:
        shop.executemany("insert into customers values (?)", [(f"name {number}",) for number in range(2000)])


@pytest.fixture
def shop() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.executescript(SCHEMA)
    yield connection
    connection.close()


# --- databases -----------------------------------------------------------------------------------------------------------


def test_sqlite_sets_the_marks_of_a_statement_and_closes_the_next(shop: sqlite3.Connection, ledger: MemoryLedger) -> None:
    grant = server(ledger).authenticate(minted().serialize())
    with sqlite.guarded(shop, grant) as db:
        db.execute("insert into outbox values ('before')")
        assert db.execute("select name from customers").fetchall() == [("Alder",)]
        with pytest.raises(Denied) as error:
            db.execute("insert into outbox values ('after')")
        assert error.value.code == "forbidden_after" and error.value.decision.for_model().startswith(TOLD)
        assert db.execute("select name from customers").fetchall() == [("Alder",)], "what is not closed goes on"
    assert shop.execute("select line from outbox").fetchall() == [("before",)]


@pytest.mark.parametrize(
    "sql",
    [
        "insert into outbox select name from customers",
        "insert into outbox values ((select max(name) from customers))",
        "with c as (select name from customers) insert into outbox select name from c",
    ],
)
def test_a_statement_that_does_both_is_closed_before_it_runs(sql: str, shop: sqlite3.Connection, ledger: MemoryLedger) -> None:
    """All marks first: nothing is written, and nothing is set."""
    grant = server(ledger).authenticate(minted().serialize())
    with sqlite.guarded(shop, grant) as db:
        with pytest.raises(Denied) as error:
            db.execute(sql)
        assert error.value.code == "forbidden_after"
        db.execute("insert into outbox values ('still open')")
    assert shop.execute("select line from outbox").fetchall() == [("still open",)]


def test_a_statement_that_is_refused_sets_nothing(shop: sqlite3.Connection, ledger: MemoryLedger) -> None:
    """It reads customers, and a table that is not granted."""
    shop.execute("create table hr (pay)")
    grant = server(ledger).authenticate(minted().serialize())
    with sqlite.guarded(shop, grant) as db:
        with pytest.raises(Denied, match="table"):
            db.execute("select * from customers, hr")
        db.execute("insert into outbox values ('open')")


def test_a_cursor_that_was_open_before_is_not_asked_of_the_ledger(shop: sqlite3.Connection) -> None:
    """reach 20: a stream goes on. Its rows cost no call."""
    asked: list[str] = []

    class Watched(MemoryLedger):
        def step(self, step: MarkedStep, now: int) -> Any:
            asked.append("step")
            return super().step(step, now)

    fill(shop)
    grant = server(Watched(shared=True, floor=0)).authenticate(minted().serialize())
    with sqlite.guarded(shop, grant) as db:
        rows = db.execute("select name from customers")
        assert len(rows.fetchall()) == 2001 and asked == ["step"]
        assert len(db.execute("select name from customers").fetchall()) == 2001 and asked == ["step"], "what is set costs none"


def test_rows_that_are_counted_in_parts_set_their_marks_once(shop: sqlite3.Connection, ledger: MemoryLedger) -> None:
    fill(shop)
    grant = server(ledger).authenticate(minted(budget={"rows": 5000}).serialize())
    with sqlite.guarded(shop, grant) as db:
        assert len(db.execute("select name from customers").fetchall()) == 2001
        with pytest.raises(Denied) as error:
            db.execute("insert into outbox values ('x')")
        assert error.value.code == "forbidden_after"
    assert grant.left(["rows"]) == {"rows": 5000 - 2001}


def test_sqlalchemy_closes_what_the_guard_of_its_database_closes(ledger: MemoryLedger) -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as owner:
        for statement in SCHEMA.split(";"):
            owner.execute(text(statement))
    with sqlalchemy.guarded(engine, server(ledger).authenticate(minted().serialize())) as connection:
        connection.execute(text("insert into outbox values ('before')"))
        assert connection.execute(text("select name from customers")).all() == [("Alder",)]
        with pytest.raises(Denied) as error:
            connection.execute(text("insert into outbox values ('after')"))
        assert error.value.code == "forbidden_after"


def test_postgresql_closes_the_next_statement_and_one_that_does_both(place: Any, ledger: MemoryLedger) -> None:  # noqa: F811
    marks = {"private": {"tables": ["sales"], "operations": ["select"]}, "outside": {"tables": ["archive"]}}
    rights: dict[str, Any] = {"tables": ["sales", "orders", "archive", "wide", "parts", "regions"], "operations": ["select", "insert", "update", "delete"]}
    token = minted(**rights, marks=marks)
    with psycopg.connect(place.conninfo("agents"), autocommit=True) as connection:
        grant = server(ledger).authenticate(token.serialize())
        for sql in ("insert into archive select * from sales", "select * from sales", "select * from archive"):
            with pytest.raises(Denied) as error, postgres.guarded(connection, grant) as db:
                db.execute(sql)
                db.execute("select count(*) from archive")
            assert error.value.code == "forbidden_after", sql


# --- tools, requests, messages ---------------------------------------------------------------------------------------------


def test_a_tool_is_closed_before_it_runs(ledger: MemoryLedger) -> None:
    ran: list[str] = []

    @guarded_tool(server(ledger))
    def send(to: str) -> str:
        """Send a mail."""
        ran.append(to)
        return "sent"

    with current.use(minted()):
        assert send(to="a") == "sent"
        read(ledger)
        with pytest.raises(Denied) as error:
            send(to="b")
        assert error.value.decision.for_model().startswith(TOLD) and ran == ["a"]
        assert ToolGuard(server(ledger)).check("anything", {}).code == "forbidden_after"


def test_a_request_is_403_and_says_nothing_of_marks(ledger: MemoryLedger) -> None:
    app = FastAPI()

    @app.post("/send", dependencies=[Depends(require(tool="send"))])
    def send() -> str:
        return "sent"

    protect(app, server(ledger), origin="http://127.0.0.1:8000")
    client = TestClient(app)
    sent = {"Authorization": f"Bearer {minted().present(audience='desk', clock=clock())}"}
    assert client.post("/send", headers=sent).status_code == 200
    read(ledger)
    answer = client.post("/send", headers=sent)
    assert answer.status_code == 403 and "private" not in answer.text and "outside" not in answer.text


def test_a_call_of_mcp_is_closed(ledger: MemoryLedger) -> None:
    ran = Ran()

    async def main() -> str:
        async with mcp_asking.in_process(served(ran, verifier=server(ledger, "sales-mcp"))) as client:
            mail = mcp_client.Presenting(client, audience="sales-mcp", held=minted("sales-mcp"))
            await mail.call_tool("pay", {"cents": 5})
            read(ledger)
            with pytest.raises(Refused) as error:
                await mail.call_tool("pay", {"cents": 5})
            return str(error.value)

    assert TOLD in asyncio.run(main()) and len(ran.calls) == 1


def test_a_method_of_grpc_is_closed(ledger: MemoryLedger) -> None:
    def answer(request: bytes, context: Any) -> bytes:
        return b"sent"

    handlers = grpc.method_handlers_generic_handler("shop.Mail", {"Send": grpc.unary_unary_rpc_method_handler(answer)})
    guard = Guard(server(ledger), {"/shop.Mail/Send": Access(tool="send")})
    running = grpc.server(ThreadPoolExecutor(2), handlers=[handlers], interceptors=[guard])
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as plain:
            call = Presenting(plain, audience="desk", held=minted(), insecure=True).unary_unary("/shop.Mail/Send")
            assert call(b"") == b"sent"
            read(ledger)
            with pytest.raises(grpc.RpcError) as error:
                call(b"")
            assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    finally:
        running.stop(0).wait()


def test_a_service_behind_the_gateway_is_not_asked(tmp_path: Path) -> None:
    rules = {"marks": {"looked": {"tools": ["payments.refunds.get"]}, "pays": {"tools": ["payments.refunds.create"]}}, "forbid": [{"in": ["pays"], "after": ["looked"]}]}
    with gateway(tmp_path) as world:
        token = world.token(**rules).present(audience="payments")
        assert world.refund(token).status_code == 200
        with world.client(token) as client:
            assert client.get("/payments/v1/refunds/re_1").status_code == 200
        answer = world.refund(token)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden_after")
        assert len(world.service.requests) == 2


# --- side by side ----------------------------------------------------------------------------------------------------------


def test_of_parallel_calls_none_leaves_after_the_read(ledger: MemoryLedger) -> None:
    """Threads send while one reads: whoever was allowed was so before the read was."""
    one = server(ledger)
    send = Access(tool="send")
    for number in range(30):
        text_of = minted(marks=RULES["marks"], expires_in=60 + number).serialize()
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(one.check, text_of, send) for _ in range(20)]
            pool.submit(one.check, text_of, READ)
            answers = {job.result().code for job in jobs}
        assert one.check(text_of, send).code == "forbidden_after"
        assert answers <= {"allowed", "forbidden_after"}


def test_a_call_that_is_cancelled_has_set_its_mark(ledger: MemoryLedger) -> None:
    """24.20: it runs on to its record, and what it set stays."""

    class Slow(MemoryLedger):
        def step(self, step: MarkedStep, now: int) -> Any:
            answer = super().step(step, now)
            reached.set()
            time.sleep(0.05)
            return answer

    reached = threading.Event()
    slow = Slow(shared=True, floor=0)
    token = minted().serialize()

    async def main() -> None:
        verifier = AsyncVerifier(KEYRING, "desk", ledger=slow, clock=clock())
        asked = asyncio.ensure_future(verifier.check(token, READ))
        while not reached.is_set():
            await asyncio.sleep(0.001)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await verifier.check(token, Access(tool="send"))).code == "forbidden_after"

    asyncio.run(main())
