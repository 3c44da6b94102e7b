"""A stock client at the gateway: it finds the login by the 401, logs a person in, and asks her for more. Nothing in it knows of captoken."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.client.auth import OAuthClientProvider
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata

from captoken import AsyncVerifier
from captoken.adapters.gateway import Gateway, configured
from captoken.stores.memory import MemoryLedger
from tests.adapters.serving import listening, origin_of, served
from tests.issuance.logging_in import KEYRING, POLICY, Person, boxes, house, sent_back
from tests.issuance.test_login_clients import BACK, Kept

MORE = """
[resource.files]
uris = ["{gateway}/files/mcp"]
[resource.shop]
uris = ["{gateway}/shop"]
[grant.files]
subject = {{{{ provider = "people" }}}}
clients = ["desk"]
agents = ["assistant"]
resources = ["files"]
task_max = 7200
first = {{{{ tools = {{{{ "files.read" = {{{{}}}} }}}} }}}}
give = {{{{ tools = {{{{ "files.read" = {{{{}}}}, "files.write" = {{{{}}}} }}}}, expires_in = 900 }}}}
[grant.shop]
subject = {{{{ provider = "people" }}}}
clients = ["desk"]
agents = ["assistant"]
resources = ["shop"]
task_max = 7200
first = {{{{ tools = {{{{ "shop.look" = {{{{}}}} }}}} }}}}
give = {{{{ tools = {{{{ "shop.look" = {{{{}}}}, "shop.buy" = {{{{}}}} }}}}, expires_in = 900 }}}}
"""
FILE = """
version = 1
[gateway]
keyring = "keyring.json"
origin = "{origin}"
authorization_servers = ["{issuer}"]
step_up = true
[service.files]
mcp = "{files}/mcp"
[service.shop]
url = "{files}"
credential = "file:key"
[service.shop.operations.look]
request = "GET /look"
[service.shop.operations.buy]
request = "GET /buy"
[service.shop.operations.steal]
request = "GET /steal"
"""


def files() -> Any:
    """A server that nobody here can change."""
    made = MCPServer("files", log_level="WARNING")
    for name in ("read", "write", "purge"):
        made.tool(name=name)(lambda name=name: f"done: {name}")
    return made.streamable_http_app()


class There:
    """A gateway before it, with a login."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        upstream = stack.enter_context(served(files(), listening(), lifespan="on"))
        port = stack.enter_context(listening())
        self.origin = origin_of(port)
        self.issuer, _ = stack.enter_context(house(policy=POLICY + MORE.format(gateway=self.origin)))
        KEYRING.save(folder / "keyring.json")
        (folder / "key").touch(0o600)
        (folder / "key").write_text("sk-1")
        place = folder / "gateway.toml"
        place.write_text(FILE.format(origin=self.origin, issuer=self.issuer, files=upstream))
        verifiers = {name: AsyncVerifier(KEYRING, name, ledger=MemoryLedger(floor=0)) for name in ("files", "shop")}
        stack.enter_context(served(Gateway(configured(str(place)), verifiers), port, lifespan="on"))


def test_a_client_logs_in_and_asks_for_more_at_the_gateway(tmp_path: Path) -> None:
    """The specification's rule 44.24, in one session, and in place of the result of a call."""
    with ExitStack() as stack:
        at = There(stack, tmp_path)
        person, pages, came = Person(at.issuer), [], {}

        async def redirect(address: str) -> None:
            page = await asyncio.to_thread(person.go, address)
            pages.append(boxes(page))
            came.update(sent_back(await asyncio.to_thread(person.send, person.form(page))))

        async def callback() -> AuthorizationCodeResult:
            return AuthorizationCodeResult(code=came["code"], state=came["state"], iss=came["iss"])

        client = OAuthClientInformationFull(client_id="desk", redirect_uris=[BACK], token_endpoint_auth_method="none")  # type: ignore[list-item]
        wanted = OAuthClientMetadata(client_name="Desk", redirect_uris=[BACK], token_endpoint_auth_method="none", scope="files")  # type: ignore[list-item]
        auth = OAuthClientProvider(f"{at.origin}/files/mcp", wanted, Kept(client), redirect, callback)

        async def run() -> list[str]:
            async with (
                create_mcp_http_client(auth=auth) as web,
                streamable_http_client(f"{at.origin}/files/mcp", http_client=web) as (read, write, *_),
                ClientSession(read, write) as session,
            ):
                await session.initialize()
                listed = [tool.name for tool in (await session.list_tools()).tools]
                answers: list[Any] = [await session.call_tool(tool, {}) for tool in ("read", "write", "read", "purge")]
                return [*listed, *(str(answer.content[0].text) for answer in answers)]

        said = asyncio.run(run())
    assert said[:5] == ["read", "write", "done: read", "done: write", "done: read"] and said[5].startswith("Not permitted")
    assert pages == [["tool:files.read"], ["tool:files.write"]]


def test_a_client_of_a_service_is_told_what_to_ask_for(tmp_path: Path) -> None:
    with ExitStack() as stack:
        at = There(stack, tmp_path)
        named = f"{at.origin}/.well-known/oauth-protected-resource/shop"
        nobody = httpx.get(f"{at.origin}/shop/look")
        assert nobody.status_code == 401 and nobody.headers["www-authenticate"] == f'Bearer realm="shop", resource_metadata="{named}"'
        document = httpx.get(named).json()
        assert document["authorization_servers"] == [at.issuer] and document["resource"] == f"{at.origin}/shop"
        assert httpx.head(named).status_code == 200 and httpx.post(named).status_code == 404
        assert httpx.get(f"{at.origin}/.well-known/oauth-protected-resource/none").status_code == 404
        person = Person(at.issuer)
        token = person.exchange(sent_back(person.send(person.form(person.page(scope="shop"))))["code"]).json()["access_token"]

        def asked(path: str) -> httpx.Response:
            return httpx.get(f"{at.origin}/shop/{path}", headers={"authorization": f"Bearer {token}"})

        assert asked("look").status_code == 404, "the service has no such page, and was asked"
        more = asked("buy")
        assert more.status_code == 403 and more.headers["www-authenticate"].endswith('scope="shop tool:shop.buy"')
        final = asked("steal")
        assert final.status_code == 403 and "error" not in final.headers["www-authenticate"]


@pytest.mark.parametrize(
    "old, new, why",
    [
        ('authorization_servers = ["{issuer}"]', "", "step_up needs authorization_servers"),
        ("{issuer}", "http://issuer.example", r"authorization_servers: .*https"),
        ('origin = "{origin}"', 'origin = "http://gateway.example"', r"gateway.origin: .*https"),
    ],
)
def test_a_file_that_sends_clients_nowhere_is_refused(old: str, new: str, why: str, tmp_path: Path) -> None:
    KEYRING.save(tmp_path / "keyring.json")
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text("sk-1")
    (tmp_path / "gateway.toml").write_text(
        FILE.replace(old, new).format(origin="https://gateway.example", issuer="https://issuer.example", files="https://files.example")
    )
    with pytest.raises(ValueError, match=why):
        configured(str(tmp_path / "gateway.toml"))
