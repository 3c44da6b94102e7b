"""Documents of applications: what is asked, of whom, how often, and how much of the answer is read."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from captoken.errors import IssuanceError
from captoken.issuance import documents
from captoken.issuance.applications import DOCUMENT_BYTES, Application
from captoken.issuance.documents import Documents
from tests.adapters.serving import listening, served

APP = "https://app.example/client.json"


class Server:
    """An application's host, which answers as it is told."""

    def __init__(self) -> None:
        self.asked = 0
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
        self.body: Callable[[str], bytes] = lambda address: json.dumps({"client_id": address, "redirect_uris": ["https://app.example/back"]}).encode()
        self.origin = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body(self.origin + scope["path"])})


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with listening() as one, served(made, one) as origin:
        made.origin = origin
        yield made


def got(made: Documents, address: str, is_named: bool = True) -> Application | str:
    """The application, or why there is none."""

    async def ask() -> Application | str:
        try:
            return await made.get(address, is_named=is_named)
        except IssuanceError as error:
            return f"{error.code}: {error.why}"
        finally:
            await made.close()

    return asyncio.run(ask())


def test_a_document_that_the_policy_names_is_had(server: Server) -> None:
    address = f"{server.origin}/client"
    assert got(Documents(), address) == Application(address, address, ("https://app.example/back",))
    assert str(got(Documents(), address, False)).startswith("invalid_client: it is not an https address")
    assert str(got(Documents(), "inspector")) == "invalid_client: it is no address for a document"


@pytest.mark.parametrize(
    "status, headers, body, why",
    [
        (302, [(b"location", b"http://169.254.169.254/")], b"", "the answer is 302"), (404, [], b"", "the answer is 404"),
        (200, [(b"content-type", b"text/html")], b"{}", "it is not JSON"), (200, [], b"{}", "it is not JSON"),
        (200, [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")], b"x", "it is compressed"),
        (200, [(b"content-type", b"application/json")], b"x" * (DOCUMENT_BYTES + 1), f"it has more than {DOCUMENT_BYTES} bytes"),
        (200, [(b"content-type", b"application/json")], b"{}", "its client_id is not its own address"),
    ],
)  # fmt: skip
def test_any_other_answer_is_none(server: Server, status: int, headers: list[Any], body: bytes, why: str) -> None:
    server.status, server.headers, server.body = status, headers, lambda _: body
    assert got(Documents(), f"{server.origin}/client") == f"invalid_client: {why}"


def test_it_is_asked_once_and_kept_for_a_while(server: Server) -> None:
    now = 0.0
    made = Documents(clock=lambda: now)

    async def many() -> None:
        nonlocal now
        address = f"{server.origin}/client"
        await asyncio.gather(*(made.get(address, is_named=True) for _ in range(20)))
        assert server.asked == 1
        now = documents.FRESH - 1
        await made.get(address, is_named=True)
        assert server.asked == 1
        now, server.status = documents.FRESH, 500
        for _ in range(3):
            with pytest.raises(IssuanceError):
                await made.get(address, is_named=True)
        assert server.asked == 2
        now, server.status = documents.FRESH + documents.FAILED, 200
        await made.get(address, is_named=True)
        assert server.asked == 3

    asyncio.run(many())


def test_few_are_kept_and_few_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_KEPT", 3)
    running = most = 0

    class Slow(Documents):
        async def _asked(self, address: str, is_named: bool) -> bytes:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            raise OSError

    async def many() -> Slow:
        made = Slow()
        asked = (made.get(f"{APP}{number}", is_named=False) for number in range(20))
        assert all(isinstance(one, IssuanceError) for one in await asyncio.gather(*asked, return_exceptions=True))
        return made

    assert len(asyncio.run(many())._known) == 3 and most == 4


def test_what_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PATIENCE", 0.01)

    class Never(Documents):
        async def _asked(self, address: str, is_named: bool) -> bytes:
            await asyncio.sleep(60)
            raise AssertionError

    assert str(got(Never(), APP)).startswith("temporarily_unavailable: it did not come within")


def resolving(*addresses: str) -> Callable[[str], Awaitable[Sequence[str]]]:
    async def resolve(host: str) -> Sequence[str]:
        return addresses

    return resolve


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("8.8.8.8", "10.0.0.1"), (), ("fe80::1",), ("::ffff:127.0.0.1",)], ids=str)
def test_a_name_with_a_private_address_is_not_asked(addresses: tuple[str, ...]) -> None:
    assert got(Documents(resolve=resolving(*addresses)), APP, False) == "invalid_client: its host has no public address, or one that is not public"


def test_the_systems_own_answer_is_looked_at() -> None:
    assert str(got(Documents(), "https://localhost/client", False)).startswith("invalid_client: its host has")
    assert str(got(Documents(), "https://127.0.0.1/client", False)).startswith("invalid_client: its host has")
    assert str(got(Documents(), "https://app.example:8443/client", False)).startswith("invalid_client: it is not an https address at the usual port")


def test_the_connection_is_to_what_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name is looked up once, and the certificate is held to it."""
    seen: list[tuple[str, str, dict[str, Any]]] = []
    lookups: list[str] = []

    async def resolve(host: str) -> Sequence[str]:
        lookups.append(host)
        return ["93.184.216.34"] if len(lookups) == 1 else ["127.0.0.1"]

    class Watched(Documents):
        async def _got(self, url: str, host: str, extensions: dict[str, Any], is_named: bool) -> bytes:
            seen.append((url, host, extensions))
            return json.dumps({"client_id": APP, "redirect_uris": ["https://app.example/back"]}).encode()

    assert isinstance(got(Watched(resolve=resolve), APP, False), Application)
    assert seen == [("https://93.184.216.34/client.json", "app.example", {"sni_hostname": "app.example"})] and lookups == ["app.example"]
    seen.clear()
    assert isinstance(got(Watched(resolve=resolving("2606:4700::1111")), APP, False), Application)
    assert seen[0][0] == "https://[2606:4700::1111]/client.json"


def test_a_certificate_of_another_name_is_refused() -> None:
    """Over TLS, at the address that was looked at: nobody listens there with a certificate of that name."""
    context = ssl.create_default_context()

    def permits(address: str) -> bool:
        return address == "127.0.0.1"

    assert str(got(Documents(resolve=resolving("127.0.0.1"), permits=permits, context=context), APP, False)).startswith("temporarily_unavailable")


def test_without_a_context_of_ones_own_it_is_the_machines() -> None:
    """Nobody listens there: what counts is that certificates are looked at."""
    made = Documents(resolve=resolving("127.0.0.1"), permits=lambda address: True)
    assert str(got(made, APP, False)).startswith("temporarily_unavailable")
    assert made._context is not None and made._context.verify_mode == ssl.CERT_REQUIRED


def test_who_closes_gives_up_what_is_being_fetched() -> None:
    class Never(Documents):
        async def _asked(self, address: str, is_named: bool) -> bytes:
            await asyncio.sleep(60)
            raise AssertionError

    async def closed() -> list[object]:
        made = Never()
        waits = asyncio.ensure_future(made.get(APP, is_named=False))
        await asyncio.sleep(0.01)
        await made.close()
        return list(await asyncio.gather(waits, return_exceptions=True))

    (why,) = asyncio.run(closed())
    assert isinstance(why, BaseException)
