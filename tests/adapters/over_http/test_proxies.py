"""What a proxy says of the request that it got: taken off if the proxy is named, and else a reason to refuse."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from captoken import Verifier
from captoken.adapters import fastapi as guarded
from captoken.adapters.fastapi import protect
from tests.adapters.over_http.conftest import KEYRING, ORIGIN
from tests.adapters.over_http.test_asgi import in_process
from tests.adapters.over_http.test_credentials import TOKEN

NAMED = ["127.0.0.1", "10.0.0.0/8", "::1"]
SAID = (b"x-original-uri", b"x-original-url", b"x-original-method", b"x-forwarded-uri", b"x-forwarded-method")


def ask(client: Any, header: bytes, value: bytes = b"/elsewhere", proxies: Any = NAMED, kind: str = "http") -> tuple[int, list[Any]]:
    """The status of the answer, and the headers that the application saw."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (header, value), (b"x-kept", b"1")]
    start = in_process("/sales", app=app, scope={"headers": headers, "client": client, "type": kind}, proxies=proxies)[0]
    return int(start.get("status", 0)), seen


@pytest.mark.parametrize("header", SAID)
def test_what_a_named_proxy_says_is_taken_off(header: bytes) -> None:
    for client in (("127.0.0.1", 5000), ("10.1.2.3", 1), ["::1", 80]):
        assert ask(client, header) == (200, [(b"x-kept", b"1")])


@pytest.mark.parametrize("header", SAID)
@pytest.mark.parametrize("client", [("127.0.0.2", 1), ("11.0.0.1", 1), ("::2", 1), None, ("", 0), ("proxy.example", 1), ("unix", 0), ()])
def test_of_anybody_else_it_is_refused(header: bytes, client: Any) -> None:
    assert ask(client, header) == (400, [])
    assert ask(("127.0.0.1", 1), header, proxies=()) == (400, [])


def test_a_unix_socket_shows_no_client() -> None:
    assert ask(None, b"x-original-uri", proxies=["unix"]) == (200, [(b"x-kept", b"1")])
    assert ask(("127.0.0.1", 1), b"x-original-uri", proxies=["unix"])[0] == 400


@pytest.mark.parametrize("header", [b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-rewrite-url", b"x_original_uri"])
def test_what_clients_say_themselves_is_refused_behind_a_proxy_too(header: bytes) -> None:
    assert ask(("127.0.0.1", 1), header, b"DELETE")[0] == 400


def test_it_hides_no_token() -> None:
    """What is taken off is not looked at; a token anywhere else is refused as ever."""
    assert ask(("127.0.0.1", 1), b"x-other", TOKEN.encode())[0] == 400


def test_fastapi_takes_them_as_well() -> None:
    app = FastAPI()

    @app.get("/sales", dependencies=[Depends(guarded.require(table="sales", operation="select"))])
    def sales() -> dict[str, str]:
        return {}

    protect(app, Verifier(KEYRING, audience="sales-api"), origin=ORIGIN, proxies=iter(["10.0.0.0/8"]))
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Original-URI": "/x"}
    for address, status in (("10.0.0.9", 200), ("192.168.0.1", 400)):
        # The client of old releases cannot say what its address is.
        async def from_there(scope: Any, receive: Any, send: Any, address: str = address) -> None:
            await app({**scope, "client": (address, 5000)}, receive, send)

        assert TestClient(from_there).get("/sales", headers=headers).status_code == status
    with pytest.raises(TypeError):
        protect(FastAPI(), Verifier(KEYRING), origin=ORIGIN, proxies="10.0.0.1")
