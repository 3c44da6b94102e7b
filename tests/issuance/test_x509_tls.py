"""A workload's certificate over real TLS: to a server that tells the application of it, and to a proxy that ends TLS before one."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from captoken.adapters.issuance import IssuanceService
from captoken.errors import IssuanceError
from captoken.issuance.client import Issuance
from captoken.issuance.policy import read
from captoken.issuance.registry import MemoryRegistry
from captoken.keys import HolderKey
from tests.adapters.serving import listening, origin_of, served

from .authority import Authority, Shown
from .office import KEYRING, at_sales
from .signing import Provider
from .standins import proxy
from .test_certificates import POLICY, ROBOT, SECRET

NOW = int(time())
ACME, STRANGER = Authority(now=NOW), Authority(now=NOW)
FORM = {"grant_type": "client_credentials", "client_id": ROBOT, "resource": "sales-db"}


class Place:
    """A folder with what a server has: its own certificate, the authorities that it asks clients for, and the policy's bundle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "acme.pem").write_bytes(ACME.pem)
        (folder / "keys.json").write_text('{"keys":[]}')
        # A server that asks for certificates of strangers as well, as one does that others use, too.
        (folder / "all.pem").write_bytes(ACME.pem + STRANGER.pem)
        self.web = Authority("web.example", now=NOW)
        (folder / "web.pem").write_bytes(self.web.pem)
        self.server = self.web.server("127.0.0.1").save(folder, "server")

    def service(self, origin: str, proxy: str = "") -> IssuanceService:
        text = POLICY.format(folder=self.folder, proxy=proxy, require="").replace("https://issuer.example", origin)
        return IssuanceService(read(text), KEYRING, MemoryRegistry(floor=0))

    def context(self) -> ssl.SSLContext:
        """Of a server: whoever has a certificate shows it, and others are served all the same."""
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.folder / "all.pem"))
        made.load_cert_chain(*self.server)
        made.verify_mode = ssl.CERT_OPTIONAL
        return made

    def client(self, shown: Shown | None) -> ssl.SSLContext:
        """Of a client that shows this one, and knows who the server is by its own authority."""
        made = ssl.create_default_context(cafile=str(self.folder / "web.pem"))
        if shown is not None:
            made.load_cert_chain(*shown.save(self.folder, "client"))
        return made


class Telling(H11Protocol):
    """As a server would that has the TLS extension of ASGI: uvicorn, hypercorn and granian have not, today."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        chain = [] if der is None else [ssl.DER_cert_to_PEM_cert(der)]
        self.app_state = {**self.app_state, "tls": {"server_cert": None, "client_cert_chain": chain, "tls_version": 0x0304, "cipher_suite": None}}


@contextmanager
def telling_server(place: Place) -> Iterator[str]:
    """The service on a server that tells it of certificates."""
    socket = listening()
    origin = origin_of(socket).replace("http:", "https:")
    service = place.service(origin)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await service({**scope, "extensions": {"tls": scope["state"]["tls"]}}, receive, send)

    config = uvicorn.Config(app, log_level="critical", lifespan="off", http=Telling, ssl_certfile=place.server[0], ssl_keyfile=place.server[1])
    config.load()
    config.ssl = place.context()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    try:
        yield origin
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def behind_a_proxy(place: Place) -> Iterator[tuple[str, str]]:
    """The service, and a proxy before it that ends TLS: both addresses."""
    socket = listening()
    with proxy(place.context(), origin_of(socket), secret="of-the-proxy") as origin, served(place.service(origin, SECRET), socket):
        yield origin, origin_of(socket)


def ask(place: Place, origin: str, shown: Shown | None, **headers: str) -> dict[str, Any]:
    with httpx.Client(verify=place.client(shown)) as client:
        return dict(client.post(f"{origin}/token", data=FORM, headers=headers).json())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def check(place: Place, origin: str) -> None:
    """The same of both: who has the key of a good certificate gets a token, and nobody else."""
    robot = ACME.svid(ROBOT)
    said = ask(place, origin, robot)
    assert at_sales(said["access_token"]) == "allowed"
    assert "none was shown" in ask(place, origin, None)["error_description"]
    assert "no path leads from it" in ask(place, origin, STRANGER.svid(ROBOT))["error_description"]
    assert "2 URIs" in ask(place, origin, ACME.svid(ROBOT, "spiffe://acme.example/b"))["error_description"]

    # The certificate is public. Who writes it into a header has not shown its key.
    assert "none was shown" in ask(place, origin, None, **robot.headers())["error_description"]
    assert "of the client_id" in ask(place, origin, ACME.svid("spiffe://acme.example/other"), **robot.headers())["error_description"]

    key = HolderKey.generate()
    office = Issuance(origin, key=key, context=place.client(robot), spiffe_id=ROBOT)
    root = office.start(grant="nightly", resource="sales-db", tables=["sales"])
    assert root.unverified.root.subject == f"mesh:{ROBOT}" and root.unverified.key == key.public
    with pytest.raises(IssuanceError, match="none was shown"):
        Issuance(origin, context=place.client(None), spiffe_id=ROBOT).start(grant="nightly", resource="sales-db")


def test_a_server_that_tells_of_certificates(place: Place) -> None:
    with telling_server(place) as origin:
        check(place, origin)


def test_a_proxy_that_ends_tls(place: Place) -> None:
    with behind_a_proxy(place) as (origin, behind):
        check(place, origin)
        # 74: past the proxy, with what it would have said.
        said = httpx.post(f"{behind}/token", data=FORM, headers=ACME.svid(ROBOT).headers()).json()
        assert "believed of the proxy alone" in said["error_description"]


def test_a_client_names_its_certificate_beside_a_login_and_not_beside_another_actor(place: Place) -> None:
    office = Issuance("https://issuer.example", context=place.client(None), spiffe_id=ROBOT)
    text = Provider().sign({"sub": "jane", "aud": "https://issuer.example"})
    asked = office._assertions.parameters(text, None)
    assert asked["client_id"] == ROBOT and asked["subject_token"] == text and "actor_token" not in asked
    asked = office._assertions.parameters(text, text)
    assert "client_id" not in asked and asked["actor_token"] == text
    with pytest.raises(TypeError, match="say who asks"):
        Issuance("https://issuer.example", context=place.client(None)).start()


def test_a_certificate_that_nobody_would_be_shown(place: Place) -> None:
    with pytest.raises(ValueError, match="pass its context, and use https"):
        Issuance("https://issuer.example", spiffe_id=ROBOT)
    with pytest.raises(ValueError, match="pass its context, and use https"):
        Issuance("http://127.0.0.1:9", context=place.client(None), spiffe_id=ROBOT)
    with pytest.raises(ValueError, match="a SPIFFE ID must be spiffe://…, not 'robot'"):
        Issuance("https://issuer.example", context=place.client(None), spiffe_id="robot")
