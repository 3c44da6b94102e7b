"""A set of tokens wherever a token is held: each server is shown its own one, and no server and no client takes a set for one."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import httpx2
import pytest

from captoken import Access, AsyncVerifier, Decision, Issuer, TokenFormatError, TokenSet, Verifier, current
from captoken.adapters._grpc.client import Presenter
from captoken.adapters._http.credentials import refuse_stray
from captoken.adapters._http.refusals import RequestError
from captoken.adapters.asgi import CaptokenMiddleware
from captoken.adapters.gateway import as_bearer
from captoken.adapters.httpx import auth
from captoken.adapters.mcp_client import Presenting, meta_for
from captoken.adapters.mcp_frameworks import present_each
from captoken.errors import NoToken, Refused
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryReplayStore
from captoken.tools import ToolGuard
from tests.fixtures import KEYRING, clock

from .mcp_asking import in_process, text
from .mcp_served import AUDIENCE, Ran, served

TOOLS: dict[str, Any] = {"pay": {"cents": {"max": 100}, "to": {"any": True, "optional": True}}}
SERVERS: dict[str, Any] = {"sales-db": {"tables": ["sales"], "operations": ["select"]}, AUDIENCE: {"tools": TOOLS}}
SELECT = Access(table="sales", operation="select")
PAY = Access(tool="pay", arguments={"cents": 5})
KEY, CHILD = HolderKey.from_bytes(bytes(range(32))), HolderKey.from_bytes(bytes(range(1, 33)))


class Trail:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)


def minted(**more: Any) -> TokenSet:
    return Issuer(KEYRING, clock=clock()).mint_set(
        subject="user:jane", agent="orchestrator", task="q3", servers=SERVERS, **more
    )


def verifier(name: str, **facts: Any) -> Verifier:
    """One that has the keys of its own server alone."""
    return Verifier(KEYRING.for_audience(name), name, clock=clock(), **facts)


# --- what clients show -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lib", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_each_origin_gets_the_token_of_its_server(lib: Any) -> None:
    sent: list[str] = []

    def answer(request: Any) -> Any:
        sent.append(request.headers["authorization"].removeprefix("Bearer "))
        return lib.Response(200)

    servers = {"https://sales.example": "sales-db", "https://pay.example": AUDIENCE, "https://mail.example": "mail"}
    client = lib.Client(auth=auth(servers), transport=lib.MockTransport(answer))
    with current.use(minted()):
        client.get("https://sales.example/q3")
        with current.delegate(to="clerk"):
            client.get("https://pay.example/")
        with pytest.raises(NoToken, match="the set has no token for mail: it has tokens for sales-db, sales-mcp"):
            client.get("https://mail.example/")
        with pytest.raises(ValueError, match="already has credentials"):
            client.get("https://sales.example/", headers={"Authorization": f"Bearer {minted().serialize()}"})
    first, second = sent
    assert verifier("sales-db").check(first, SELECT) and verifier("sales-db").check(second, SELECT).code == "unknown_key"
    decision = verifier(AUDIENCE).check(second, PAY)
    assert decision and [one.name for one in decision.grant.chain] == ["orchestrator", "clerk"]


def test_a_client_of_mcp_shows_the_token_of_its_server() -> None:
    ran = Ran()

    async def main() -> None:
        async with in_process(served(ran, verifier=verifier(AUDIENCE))) as client:
            sales = Presenting(client, audience=AUDIENCE, held=minted())
            assert json.loads(text(await sales.call_tool("pay", {"cents": 5})))[2] == "orchestrator"
            with pytest.raises(Refused, match="cents"):
                await sales.call_tool("pay", {"cents": 101})
            with pytest.raises(NoToken, match="no token for hr-mcp"):
                await Presenting(client, audience="hr-mcp", held=minted()).call_tool("pay", {"cents": 5})

            session = present_each(getattr(client, "session", client), audience=AUDIENCE)
            with current.use(minted()), current.delegate(to="clerk", tools=TOOLS):
                assert json.loads(text(await session.call_tool("pay", {"cents": 5})))[2] == "clerk"
                whole = {"io.captoken/token": minted().serialize()}
                with pytest.raises(TokenFormatError, match="a set of tokens"):
                    await session.call_tool("pay", {"cents": 5}, meta=whole)

    asyncio.run(main())
    assert len(ran.calls) == 2


def test_a_stub_of_grpc_shows_the_token_of_its_server() -> None:
    ((name, shown),) = Presenter("sales-db", minted(), 60, insecure=True).for_call("/shop.Sales/Read", b"")()
    assert name == "authorization" and verifier("sales-db").check(shown.removeprefix("Bearer "), SELECT)
    with pytest.raises(NoToken, match="no token for mail"):
        Presenter("mail", minted(), 60, insecure=True).for_call("/shop.Sales/Read", b"")


def test_a_set_that_is_bound_is_proven_to_one_server_at_a_time() -> None:
    """A proof that one server has seen is good at no other, and for no other request."""
    replays = MemoryReplayStore(floor=0)
    sales, pay = (verifier(name, replays=replays) for name in ("sales-db", AUDIENCE))
    with current.use(minted(key=KEY.public), KEY), current.delegate(to="clerk", key=CHILD) as held:
        shown = held.present(audience="sales-db", request=SELECT)
        proof = shown.rpartition(".")[2]
        elsewhere = held.present(audience=AUDIENCE, request=PAY).rpartition(".")[0]
        assert pay.check(f"{elsewhere}.{proof}", PAY).code == "bad_proof"
        assert pay.check(shown, PAY).code == "unknown_key"
        assert sales.check(shown, SELECT) and sales.check(shown, SELECT).code == "replayed"
        assert meta_for(AUDIENCE, "pay", {"cents": 5})["io.captoken/token"].count(".") == 1


# --- guards in the process of the agents --------------------------------------------------------------------------------


def test_a_guard_is_shown_the_token_of_its_own_server() -> None:
    with current.use(minted()):
        assert ToolGuard(verifier(AUDIENCE)).check("pay", {"cents": 5})
        either = Verifier(KEYRING.for_audience(AUDIENCE), ["pay-desk", AUDIENCE], clock=clock())
        assert ToolGuard(either).check("pay", {"cents": 5})
        for wrong in (Verifier(KEYRING, clock=clock()), verifier("mail")):
            decision = ToolGuard(wrong).check("pay", {"cents": 5})
            assert decision.code == "malformed" and "this is a set of tokens" in decision.line()


# --- no server takes a set ---------------------------------------------------------------------------------------------


def test_a_verifier_says_that_it_was_sent_a_set() -> None:
    """Spec 45.4: of every length, with what goes with its tokens, as text and as a value."""
    many = Issuer(KEYRING, clock=clock()).mint_set(
        subject="u", agent="a", task="t", servers={f"server-{number}": {"tools": TOOLS} for number in range(32)}
    )
    whole = minted().serialize()
    for sent in (whole, f"{whole}.cap1d_AAAA", many.serialize(), f"{many.serialize()}.cap1d_AAAA"):
        for face in (verifier("sales-db"), Verifier(KEYRING, clock=clock())):
            decision = face.check(sent, SELECT)
            assert decision.code == "malformed" and "a set of" in decision.line() and whole[6:60] not in decision.line()
    handed: Any = minted()
    assert "this is a set of tokens" in verifier("sales-db").check(handed, SELECT).line()
    awaited = AsyncVerifier(KEYRING.for_audience("sales-db"), "sales-db", clock=clock())
    assert asyncio.run(awaited.check(handed, SELECT)).code == "malformed"


def test_a_server_of_http_refuses_a_set_and_records_why() -> None:
    trail = Trail()

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it was let in")

    guard = CaptokenMiddleware(inner, verifier("sales-db", audit=trail), origin="https://api.example")

    async def main() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="https://api.example") as client:
            return await client.get("/", headers={"Authorization": f"Bearer {minted().serialize()}"})

    answer = asyncio.run(main())
    assert answer.status_code == 401 and "caps1" not in answer.text
    assert "this is a set of tokens" in trail.decisions[0].line()


def test_a_set_in_an_address_is_refused_as_a_token_is() -> None:
    """It would stand in logs; 40 characters are what a token has that none has by chance."""
    with pytest.raises(RequestError):
        refuse_stray(b"next=" + minted().serialize().encode())
    refuse_stray(b"next=caps1_short&cap=a")


@pytest.mark.parametrize("place", ["header:x-api-key", "basic", "scheme:token"])
def test_a_gateway_sends_on_no_set_that_stands_where_a_token_may(place: str) -> None:
    """It stands in the place of the token, and the guard behind refuses it: no service gets it."""
    whole = minted().serialize().encode()
    header = {
        "header:x-api-key": (b"x-api-key", whole),
        "basic": (b"authorization", b"Basic " + base64.b64encode(b"me:" + whole)),
        "scheme:token": (b"authorization", b"token " + whole),
    }[place]
    assert as_bearer([header], ("bearer", place)) == [(b"authorization", b"Bearer " + whole)]
