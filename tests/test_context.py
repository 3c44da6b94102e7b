"""`Verifier(context=f)`: facts of the moment that every token can ask about with `where`, at every guard (7.13)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import psycopg
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text

from captoken import Access, AsyncVerifier, Denied, Issuer, Token, Verifier, current
from captoken._language.access import beside
from captoken.adapters import mcp_client, postgres, sqlalchemy, sqlite
from captoken.adapters.fastapi import protect, require
from captoken.audit import AuditTrail, read
from captoken.control import Feed, Operator
from captoken.keys import HolderKey, OperatorKey
from captoken.proof import request_digest
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from captoken.tools import guarded_tool
from tests.adapters import mcp_asking
from tests.adapters.mcp_served import Ran, served
from tests.adapters.postgres.conftest import place  # noqa: F401, a fixture
from tests.fixtures import KEYRING, NOW, clock

CALM = {"threat": {"in": ["low"]}}
READ = Access(table="sales", operation="select")
CALL = Access(tool="send")


def minted(audience: str = "desk", **more: Any) -> Token:
    rights: dict[str, Any] = {"tables": ["*"], "operations": ["select"], "tools": {"*": {}}, "where": CALM, **more}
    return Issuer(KEYRING, clock=clock()).mint(subject="ann", agent="reader", task="desk", audience=audience, **rights)


class Level:
    """A threat level that somebody sets, and whom it was asked for."""

    def __init__(self, level: Any = "low") -> None:
        self.level = level
        self.asked: list[tuple[str, str]] = []

    def __call__(self, issued: Any) -> Mapping[str, Any]:
        self.asked.append((issued.agent, issued.task))
        if isinstance(self.level, Exception):
            raise self.level
        return {"threat": self.level}


def verifier(context: Any, **more: Any) -> Verifier:
    return Verifier(KEYRING, "desk", context=context, clock=clock(), **more)


# --- the verifier -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("access", [READ, CALL], ids=["a table", "a tool"])
def test_a_token_may_ask_what_the_server_knows_of_the_moment(access: Access) -> None:
    level = Level()
    server = verifier(level)
    token = minted().serialize()
    assert server.check(token, access)
    level.level = "high"
    assert server.check(token, access).code == "attribute"
    assert server.check(minted(where={"threat": {"any": True}}).serialize(), access), "who does not mind goes on"
    level.level = "low"
    assert server.check(token, access)


def test_it_is_called_with_what_was_issued_once_a_decision() -> None:
    """A decision with effects, a dry run, a question of a grant, several accesses: one call each. None without an access."""
    level = Level()
    server = verifier(level, ledger=MemoryLedger(floor=0), audit=None)
    token = minted(uses=50)
    text_of = token.serialize()
    grant = server.authenticate(text_of)
    assert level.asked == [], "it says who acts, and permits nothing"
    asks: list[Any] = [
        lambda: server.check(text_of, READ),
        lambda: server.explain(text_of, READ),
        lambda: grant.check(READ),
        lambda: grant.recheck([READ]),
        lambda: grant.check_all([READ, CALL]),
        lambda: grant.rows("sales") is not None,
    ]
    for count, ask in enumerate(asks, 1):
        ask()
        assert level.asked == [("reader", "desk")] * count, count


def test_what_it_raises_denies_whatever_the_token_asks_and_its_text_is_told_nobody() -> None:
    """No answer is no permission, for a token without `where` too (24.10)."""
    server = verifier(Level(RuntimeError("secret of the posture service")))
    for token in (minted(), minted(where={"threat": {"any": True}}), Issuer(KEYRING, clock=clock()).mint(subject="a", agent="b", task="c", audience="desk", unrestricted=True)):
        decision = server.check(token.serialize(), READ)
        assert (decision.code, decision.step) == ("attribute", 8)
        assert "RuntimeError" in str(decision) and "secret" not in f"{decision.report(values=True)}{decision.for_model()}"
    assert server.authenticate(minted().serialize()), "without an access nothing is asked"


@pytest.mark.parametrize(
    "given",
    [None, [("threat", "low")], {"": "low"}, {1: "low"}, {"threat": object()}, {"threat": float("nan")}, {"threat": "\ud800"}],
    ids=["none", "a list", "no name", "a number for a name", "no JSON", "not finite", "a surrogate"],
)
def test_what_is_no_facts_denies(given: Any) -> None:
    good = minted(where={"threat": {"any": True}}).serialize()
    assert verifier(lambda _: given).check(good, READ).code == "attribute"
    assert verifier(lambda _: {"threat": None}).check(good, READ), "null is a value (7.4)"


def test_a_name_that_the_access_states_too_denies() -> None:
    """Neither wins: an access may state what a client sent, and it would pass for the server's word (7.13)."""
    server = verifier(Level("low"))
    both = Access(tool="send", attributes={"threat": "low"})
    other = Access(tool="send", attributes={"region": "eu"})
    assert server.check(minted().serialize(), both).code == "attribute"
    assert "threat" in str(server.check(minted().serialize(), both))
    assert server.check(minted(where={**CALM, "region": {"in": ["eu"]}}).serialize(), other), "both are asked about"


def test_a_dead_token_learns_that_it_is_dead_and_no_more() -> None:
    """The first pass of step 8 comes before what cannot be had (24.5)."""
    late = Verifier(KEYRING, "desk", context=Level(RuntimeError()), clock=lambda: NOW + 10**7)
    assert late.check(minted().serialize(), READ).code == "expired"


def test_what_it_gives_is_copied() -> None:
    """Nobody changes it between the check and the record."""
    given: dict[str, Any] = {"threat": {"sources": ["a"]}}
    server = verifier(lambda _: given)
    decision = server.check(minted(where={"threat": {"any": True}}).serialize(), READ)
    given["threat"]["sources"].append("b")
    assert decision.access is not None and decision.access.attributes == {"threat": {"sources": ["a"]}}


@pytest.mark.parametrize("values", [False, True], ids=["names alone", "with values"])
def test_values_go_to_the_record_as_those_of_arguments_do(values: bool) -> None:
    lines: list[bytes] = []
    trail = AuditTrail(lines.append, values=values)
    assert verifier(Level("low"), audit=trail).check(minted().serialize(), READ)
    assert not verifier(Level("high"), audit=trail).check(minted().serialize(), READ)
    stated = [record["access"]["attributes"] for record in read(lines) if record["kind"] == "decision"]
    assert stated == ([{"threat": "low"}, {"threat": "high"}] if values else [["threat"], ["threat"]])


def test_a_proof_is_over_what_the_client_knows() -> None:
    """No client can sign what the server adds: the digest of an access is without the context (29.4)."""
    key = HolderKey.generate()
    server = verifier(Level("low"), replays=MemoryReplayStore(floor=0))
    sent = minted(key=key.public).present(audience="desk", signer=key, request=READ, clock=clock())
    assert server.check(sent, READ)


def test_an_entry_of_the_overlay_may_ask_too() -> None:
    """An operator narrows to hours in which somebody looks: step 7 asks about the same facts."""
    key, store = OperatorKey.generate(), MemorySnapshots()
    Operator(key, store, by="ops", clock=clock()).narrow(task="desk", why="odd", where=CALM)
    level = Level("low")
    server = verifier(level, overlay=Feed(store, [key.public], clock=clock()))
    free = minted(where={"threat": {"any": True}}).serialize()
    assert server.check(free, READ)
    level.level = "high"
    assert server.check(free, READ).code == "narrowed"


def test_its_values_count_as_work() -> None:
    """24.25: a constraint and what it looks at, also where the server states it."""
    names = minted(where={"threat": {"each": {"in": ["a"]}}}).serialize()
    assert verifier(lambda _: {"threat": ["a"] * 2**16}).check(names, READ).code == "too_much_work"
    assert verifier(lambda _: {"threat": ["a"] * 2**10}).check(names, READ)


# --- asyncio ----------------------------------------------------------------------------------------------------------


def test_an_async_verifier_awaits_it_and_its_plain_face_waits_for_the_loop() -> None:
    level = Level()

    async def posture(issued: Any) -> Mapping[str, Any]:
        await asyncio.sleep(0)
        return level(issued)

    class Posture:
        async def __call__(self, issued: Any) -> Mapping[str, Any]:
            return await posture(issued)

    async def main(context: Any) -> None:
        level.level = "low"
        server = AsyncVerifier(KEYRING, "desk", context=context, clock=clock())
        token = minted().serialize()
        assert await server.check(token, READ)
        assert await asyncio.to_thread(server.blocking.check, token, READ)
        level.level = "high"
        assert (await server.check(token, READ)).code == "attribute"
        assert (await asyncio.to_thread(server.blocking.check, token, READ)).code == "attribute"
        assert server.blocking.check(token, READ).code == "attribute", "in the loop's own thread nobody can wait for it"

    for context in (posture, Posture(), partial(posture)):
        asyncio.run(main(context))
        with pytest.raises(TypeError, match="the context is async: use an AsyncVerifier"):
            Verifier(KEYRING, "desk", context=context)  # type: ignore[arg-type]


def test_one_that_is_called_runs_in_a_thread_unless_it_says_that_it_does_not_wait() -> None:
    import threading

    ran: list[int] = []

    class Here:
        waits = False

        def __call__(self, issued: Any) -> Mapping[str, Any]:
            ran.append(threading.get_ident())
            return {"threat": "low"}

    async def main() -> None:
        token = minted().serialize()
        for context in (Here(), Here().__call__):
            assert await AsyncVerifier(KEYRING, "desk", context=context, clock=clock()).check(token, READ)

    asyncio.run(main())
    assert ran[0] == threading.get_ident() != ran[1]


def test_what_has_still_to_be_awaited_denies_at_a_face_that_does_not_await() -> None:
    async def posture(issued: Any) -> Mapping[str, Any]:
        return {"threat": "low"}

    given: list[Any] = []

    def hidden(issued: Any) -> Any:
        given.append(posture(issued))
        return given[-1]

    assert verifier(hidden).check(minted().serialize(), READ).code == "attribute"
    given[0].close()


def test_what_cannot_be_called_is_refused_when_the_verifier_is_made() -> None:
    with pytest.raises(TypeError, match="context must be a callable that takes what was issued, not dict"):
        Verifier(KEYRING, "desk", context={"threat": "low"})  # type: ignore[arg-type]


# --- guards -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.executescript("create table sales (amount); insert into sales values (1);")
    yield connection
    connection.close()


def test_sqlite_holds_it_at_each_statement(shop: sqlite3.Connection) -> None:
    level = Level()
    with sqlite.guarded(shop, verifier(level).authenticate(minted().serialize())) as db:
        assert db.execute("select * from sales").fetchall() == [(1,)]
        level.level = "high"
        with pytest.raises(Denied) as error:
            db.execute("select * from sales")
        assert error.value.code == "attribute"
        level.level = "low"
        assert db.execute("select * from sales").fetchall() == [(1,)]


def test_sqlalchemy_holds_it() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as owner:
        owner.execute(text("create table sales (amount)"))
    level = Level()
    with sqlalchemy.guarded(engine, verifier(level).authenticate(minted().serialize())) as connection:
        assert connection.execute(text("select * from sales")).all() == []
        level.level = "high"
        with pytest.raises(Denied, match="attribute"):
            connection.execute(text("select * from sales"))
    engine.dispose()


def test_postgresql_holds_it(place: Any) -> None:  # noqa: F811
    level = Level()
    grant = verifier(level).authenticate(minted(tables=["sales"]).serialize())
    with psycopg.connect(place.conninfo("agents"), autocommit=True) as connection:
        with postgres.guarded(connection, grant) as db:
            assert db.execute("select count(*) from sales").fetchall()
        with postgres.guarded(connection, grant) as db:
            level.level = "high"
            with pytest.raises(Denied) as error:
                db.execute("select count(*) from sales")
            assert error.value.code == "attribute"


def test_a_tool_a_route_and_a_call_of_mcp_hold_it() -> None:
    level = Level()
    server = verifier(level)

    @guarded_tool(server)
    def send(to: str) -> str:
        """Send a mail."""
        return to

    app = FastAPI()

    @app.get("/sales", dependencies=[Depends(require(table="sales", operation="select"))])
    def sales() -> str:
        return "sales"

    protect(app, server, origin="http://127.0.0.1:8000")
    client = TestClient(app)
    sent = {"Authorization": f"Bearer {minted().present(audience='desk', clock=clock())}"}
    ran = Ran()

    async def called() -> Any:
        asked = served(ran, verifier=Verifier(KEYRING, "sales-mcp", context=level, clock=clock()))
        async with mcp_asking.in_process(asked) as inner:
            tools = mcp_client.Presenting(inner, audience="sales-mcp", held=minted("sales-mcp"))
            return await tools.call_tool("pay", {"cents": 5})

    with current.use(minted()):
        assert send(to="a") == "a" and client.get("/sales", headers=sent).status_code == 200
        asyncio.run(called())
        level.level = "high"
        with pytest.raises(Denied) as error:
            send(to="a")
        assert error.value.code == "attribute"
        assert client.get("/sales", headers=sent).status_code == 403
        with pytest.raises(ExceptionGroup):
            asyncio.run(called())
    assert len(ran.calls) == 1


def test_the_digest_of_an_access_has_nothing_of_it() -> None:
    assert request_digest(READ) == request_digest(beside(READ, {})) != request_digest(beside(READ, {"threat": "low"}))
