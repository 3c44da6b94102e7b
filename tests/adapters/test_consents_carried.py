"""Consents between processes: the request goes up with the refusal, and the consent comes down with the token (40.8, 47.8)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import time
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from mcp import Client
from mcp.server import MCPServer

from captoken import Access, current
from captoken.adapters.fastapi import protect, require
from captoken.adapters.httpx import auth, raise_if_refused
from captoken.adapters.mcp import Guard
from captoken.adapters.mcp_client import Presenting
from captoken.errors import Refused
from captoken.keys import HolderKey
from tests.adapters.consents import MAIL, Desk
from tests.adapters.serving import listening, origin_of, served
from tests.adapters.test_gateway import gateway

OTHER = {**MAIL[2], "to": "eve@example.org"}


@pytest.fixture
def desk() -> Desk:
    return Desk()


def mails(desk: Desk, origin: str) -> FastAPI:
    app = FastAPI()
    stated = Depends(require(lambda asked: Access(tool="mail", arguments=dict(asked.query_params))))

    @app.post("/mail", dependencies=[stated])
    def mail(to: str, text: str) -> str:
        return desk.mail(to, text)

    protect(app, desk.verifier, origin=origin)
    return app


@pytest.mark.parametrize("bound", [False, True])
def test_over_http_a_refusal_carries_the_request_and_the_consent_comes_with_the_token(desk: Desk, bound: bool) -> None:
    """Behind a bearer and behind a token that is bound to a key, whose proof covers it."""
    key = HolderKey.generate() if bound else None
    token = desk.minted(consent=desk.asks, key=None if key is None else key.public)
    listens = listening()
    origin = origin_of(listens)
    with served(mails(desk, origin), listens), httpx.Client(auth=auth({origin: "desk"}), trust_env=False) as client:
        with current.use(token, key):
            plain = client.post(f"{origin}/mail", params=MAIL[2])
            assert plain.status_code == 403 and plain.json()["code"] == "consent_missing"
            assert "ann@example.com" not in plain.json()["for_model"] and "cap1" not in plain.text
            with pytest.raises(Refused) as caught:
                raise_if_refused(plain)
        consent = desk.jane.consent(caught.value.request or "")
        with current.use(token, key, consents=[consent]):
            answers = [client.post(f"{origin}/mail", params=given) for given in (OTHER, MAIL[2], MAIL[2])]
        assert [answer.status_code for answer in answers] == [403, 200, 401] and desk.ran == [("mail", MAIL[2])]
        with pytest.raises(Refused) as caught:
            raise_if_refused(answers[2])
        assert caught.value.request is None and caught.value.kind == "invalid", "a new proof is no help"


def served_by_mcp(desk: Desk) -> MCPServer:
    server = MCPServer("desk")
    server.tool()(desk.mail)

    @server.resource("orders://{order}")
    def order(order: str) -> str:
        return order

    Guard(desk.verifier).install(server)
    return server


def test_over_mcp_a_refusal_carries_the_request_and_the_consent_comes_with_the_token(desk: Desk) -> None:
    asks = [{"by": desk.jane.public, "for": {"tools": ["mail", "resources/read"]}}]
    desk.token = desk.minted(consent=asks)

    async def run() -> None:
        async with Client(served_by_mcp(desk)) as client:
            mine = Presenting(client, audience="desk")
            with desk.using([]):
                await mine.list_tools()
                for call in (mine.call_tool("mail", MAIL[2]), mine.read_resource("orders://o-1")):
                    with pytest.raises(Refused) as caught:
                        await call
                    asked = desk.jane.read(caught.value.request or "")
                    consent = desk.jane.consent(caught.value.request or "")
                    with desk.using([consent]):
                        if asked.accesses[0]["tool"] == "mail":
                            with pytest.raises(Refused, match="consent"):
                                await mine.call_tool("mail", OTHER)
                            await mine.call_tool("mail", MAIL[2])
                            with pytest.raises(Refused) as caught:
                                await mine.call_tool("mail", MAIL[2])
                            assert caught.value.request is None
                        else:
                            assert (await mine.read_resource("orders://o-1")).contents[0].text == "o-1"

    asyncio.run(run())
    assert desk.ran == [("mail", MAIL[2])]


def test_a_client_of_no_sdk_of_ours_finds_the_request_beside_the_kind(desk: Desk) -> None:
    async def run() -> Any:
        async with Client(served_by_mcp(desk)) as client:
            with desk.using([]) as held:
                shown = {"io.captoken/token": held.present(audience="desk")}
                await client.list_tools(meta=shown)
                return await client.call_tool("mail", MAIL[2], meta=shown)

    result = asyncio.run(run())
    assert result.is_error and desk.jane.read(result.meta["io.captoken/consent-request"]).audience == "desk"
    assert "ann@example.com" not in result.content[0].text and desk.ran == []


def test_a_gateway_asks_for_consents_as_guards_do(desk: Desk, tmp_path: Path) -> None:
    """The service gets one call, which a person has seen, and nothing of the consent."""
    with gateway(tmp_path, clock=desk.clock) as world:
        desk.clock.seconds = int(time())
        token = world.token(consent=[{"by": desk.jane.public, "for": {"tools": ["payments.refunds.create"]}}])
        refused = world.refund(token.present(audience="payments"), 1200)
        assert (refused.status_code, refused.json()["code"], world.service.requests) == (403, "consent_missing", [])
        asked = refused.json()["consent_request"]
        assert desk.jane.read(asked).accesses[0]["arguments"] == {"charge": "ch_1", "amount": 1200}
        shown = token.present(audience="payments", consents=[desk.jane.consent(asked)])
        assert [world.refund(shown, amount).status_code for amount in (1201, 1200, 1200)] == [403, 200, 401]
        (seen,) = world.service.requests
        assert "cap1" not in str(seen) and seen["body"] == b"charge=ch_1&amount=1200"
        assert world.decided == ["consent_missing", "consent_missing", "allowed", "replayed"]
        (spent,) = [record for record in world.records if "consents" in record]
        assert spent["consents"][0]["by"] == desk.jane.public
