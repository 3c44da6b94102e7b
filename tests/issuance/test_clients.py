"""OAuth clients of others, as they are, get tokens that a server takes: over HTTP, from the service on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import ECKey
from mcp.client.auth.extensions.client_credentials import PrivateKeyJWTOAuthProvider
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError
from requests_oauthlib import OAuth2Session

from captoken import Access, Token, Verifier
from captoken.adapters.asgi import CaptokenMiddleware, granted_to
from tests.adapters.serving import listening, origin_of, served

from .office import CLIENT, KEYRING, SECRET, Office, at_sales, node, opened

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SALES = "https://sales.example/mcp"


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with opened(tmp_path_factory.mktemp("office")) as one:
        yield one


def authlib_client(office: Office) -> OAuth2Client:
    """Authlib's, with a key of its own. The assertion is for us, and not for the address of /token."""
    client = OAuth2Client(
        CLIENT,
        ECKey.import_key(office.ci.private()),
        token_endpoint_auth_method="private_key_jwt",
        token_endpoint=f"{office.origin}/token",
    )
    client.register_client_auth_method(PrivateKeyJWT(office.origin, alg="ES256", headers={"kid": office.ci.kid}))
    return client


def test_authlib_by_an_assertion_that_it_signs(office: Office) -> None:
    with authlib_client(office) as client:
        said = client.fetch_token(grant_type="client_credentials", scope="nightly", resource=SALES)
    assert said["token_type"] == "Bearer" and 0 < said["expires_in"] <= 300
    assert at_sales(said["access_token"]) == "allowed"
    assert at_sales(said["access_token"], Access(table="hr", operation="select")) != "allowed"


def test_authlib_by_token_exchange(office: Office) -> None:
    with authlib_client(office) as client:
        said = client.fetch_token(
            grant_type=EXCHANGE,
            subject_token=office.login(),
            subject_token_type=ID_TOKEN,
            scope="report",
            resource=SALES,
            authorization_details='[{"type":"captoken","operations":["select"],"tables":["sales"]}]',
        )
    assert at_sales(said["access_token"]) == "allowed"
    assert at_sales(said["access_token"], Access(table="sales", operation="insert")) != "allowed"


def test_an_assertion_for_the_address_of_the_endpoint_is_refused(office: Office) -> None:
    """It is Authlib's default, and could be meant for another service behind that address."""
    with authlib_client(office) as client:
        client.register_client_auth_method(PrivateKeyJWT(alg="ES256", headers={"kid": office.ci.kid}))
        with pytest.raises(OAuthError, match="invalid_client"):
            client.fetch_token(grant_type="client_credentials", scope="nightly", resource=SALES)


def test_a_secret_starts_nothing(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    for basic in (True, False):
        with (
            OAuth2Session(client=BackendApplicationClient(CLIENT)) as session,
            pytest.raises(InvalidClientError),
        ):
            session.fetch_token(f"{office.origin}/token", client_secret=SECRET, include_client_id=not basic)


def test_requests_oauthlib_with_a_workloads_jwt(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # a loopback address
    with OAuth2Session(client=BackendApplicationClient(CLIENT, scope=["nightly"])) as session:
        said = session.fetch_token(
            f"{office.origin}/token",
            include_client_id=True,
            client_assertion=office.workload(),
            client_assertion_type=ASSERTION,
            resource=SALES,
        )
    assert at_sales(said["access_token"]) == "allowed" and said["scope"] == ["nightly"]


@pytest.mark.node
def test_oauth4webapi_on_node(office: Office) -> None:
    said = node(
        "client.mjs",
        {
            "issuer": office.origin,
            "client_id": CLIENT,
            "jwk": office.ci.private(),
            "login": office.login(),
            "other_login": office.login(sid="s2"),
            "resource": SALES,
        },
    )
    assert at_sales(said["nightly"]["access_token"]) == "allowed"
    assert at_sales(said["report"]["access_token"], Access(table="sales", operation="insert")) == "allowed"
    held = Token.parse(said["held"]["access_token"]).unverified
    assert held.key == said["key"] and said["held"]["token_type"] == "n_a"


# --- the MCP SDK's own ----------------------------------------------------------------------------


class Memory:
    """A TokenStorage of the MCP SDK's."""

    def __init__(self) -> None:
        self.tokens: Any = None

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return None

    async def set_client_info(self, client_info: Any) -> None:
        raise AssertionError("no client is registered")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Office, str]]:
    """The service, and a server that names it to whoever comes without a token: who called, it answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        grant = granted_to(scope)
        grant.authorize(Access(table="sales", operation="select"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": grant.actor.name.encode()})

    socket = listening()
    sales = origin_of(socket)
    with opened(tmp_path_factory.mktemp("guarded"), uris=(sales, f"{sales}/", f"{sales}/mcp")) as office:
        verifier = Verifier(KEYRING.for_audience("sales-db"), "sales-db")
        metadata = {"authorization_servers": [office.origin]}
        guard = CaptokenMiddleware(app, verifier, origin=sales, resource_metadata=metadata)
        with served(guard, socket):
            yield office, sales


def called(url: str, auth: Any) -> httpx2.Response:
    async def call() -> httpx2.Response:
        async with httpx2.AsyncClient(auth=auth) as client:
            return await client.get(url)

    return asyncio.run(call())


def test_the_mcp_sdk_with_a_workloads_jwt(guarded: tuple[Office, str]) -> None:
    office, sales = guarded
    asked: list[str] = []

    async def workload(audience: str) -> str:
        asked.append(audience)
        return office.workload(aud=audience)

    storage = Memory()
    auth = PrivateKeyJWTOAuthProvider(
        server_url=f"{sales}/mcp",
        storage=storage,
        client_id=CLIENT,
        assertion_provider=workload,
        scope="nightly",
        issuer=office.origin,
    )
    answer = called(f"{sales}/mcp", auth)
    assert (answer.status_code, answer.text) == (200, "nightly") and asked == [office.origin]
    assert at_sales(storage.tokens.access_token) == "allowed"


def test_the_mcp_sdk_with_an_assertion_of_an_enterprise(guarded: tuple[Office, str]) -> None:
    office, sales = guarded

    async def assertion(audience: str, resource: str) -> str:
        return office.jag(aud=audience, resource=resource, jti="j1")

    auth = IdentityAssertionOAuthProvider(
        server_url=f"{sales}/mcp",
        storage=Memory(),
        client_id="mcp-client",
        client_secret=SECRET,
        issuer=office.origin,
        assertion_provider=assertion,
    )
    answer = called(f"{sales}/mcp", auth)
    assert (answer.status_code, answer.text) == (200, "guest")
