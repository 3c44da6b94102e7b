"""Applications: which addresses are one to every reader, and which documents say who somebody is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from captoken.errors import IssuanceError
from captoken.issuance.applications import Application, address_of, application_in, called, check_redirects, is_client_address

APP = "https://app.example/client.json"


@pytest.mark.parametrize(
    "text, host, port, rest, is_local",
    [
        ("https://app.example", "app.example", "", "", False), ("https://app.example/", "app.example", "", "/", False),
        ("https://app.example:8443/a?b=c%20d", "app.example", ":8443", "/a?b=c%20d", False), ("http://127.0.0.1/x", "127.0.0.1", "", "/x", True),
        ("http://[::1]:80/x", "[::1]", ":80", "/x", True), ("http://localhost:1/x", "localhost", ":1", "/x", True),
        ("https://a.localhost/", "a.localhost", "", "/", True), ("https://127.0.0.2/", "127.0.0.2", "", "/", True), ("https://8.8.8.8/", "8.8.8.8", "", "/", False),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", "", "/", False), ("https://app.example/?x", "app.example", "", "/?x", False),
    ],
)  # fmt: skip
def test_an_address_is_taken_apart_as_it_is_written(text: str, host: str, port: str, rest: str, is_local: bool) -> None:
    found = address_of(text)
    assert found is not None and (found.host, found.port, found.rest, found.is_local) == (host, port, rest, is_local)
    assert text == found.origin + found.rest


@pytest.mark.parametrize(
    "text",
    [
        "", "app.example", "ftp://app.example/", "https:/app.example", "https:///x", "http://app.example/", "https://App.example/", "https://app.example./",
        "https://-a.example/", "https://a..b/", "https://user@app.example/", "https://user:x@app.example/", "https://app.example:/", "https://app.example:0/",
        "https://app.example:080/", "https://app.example:123456/", "https://app.example/#x", "https://app.example/a\\b", "https://app.example/a b",
        "https://app.example/%2e%2e/", "https://app.example/%2F", "https://app.example/%2f", "https://app.example/%5C", "https://app.example/../x",
        "https://app.example/./x", "https://app.example/x%", "https://app.example/%zz", "https://app.example/\n", "https://bücher.example/", "https://1.2.3/",
        "https://127.1/", "https://0x7f.0.0.1/", "https://2130706433/", "https://010.0.0.1/", "https://[::1]/#", "https://[::2]/", "https://[::1%25lo]/",
        "https://[::ffff:127.0.0.1]/", "https://app.example?@evil.example", "https://a.0x1/", f"https://app.example/{'x' * 1024}", f"https://{'a.' * 127}aa/",
    ],
)  # fmt: skip
def test_what_two_readers_could_read_otherwise_is_no_address(text: str) -> None:
    assert address_of(text) is None and not is_client_address(text)


def test_a_document_has_an_address_with_a_path() -> None:
    assert is_client_address(APP) and is_client_address("http://127.0.0.1:1/c")
    assert not any(map(is_client_address, ("https://app.example", "https://app.example/", f"{APP}?x", "inspector", "*")))


def test_a_browser_goes_to_what_stands_there() -> None:
    application = Application(APP, "App", ("https://app.example/back", "http://127.0.0.1:1/back", "http://localhost:1/back", "http://[::1]/back"))
    assert application.publisher == "app.example" and Application("desk", "Desk", ()).publisher is None
    taken = ["https://app.example/back", "http://127.0.0.1:1/back", "http://127.0.0.1:65000/back", "http://127.0.0.1/back", "http://[::1]:9/back"]
    assert all(map(application.takes, [*taken, "http://localhost:1/back"]))
    refused = ["http://localhost:2/back", "http://127.0.0.1/other", "https://127.0.0.1/back", "https://app.example:443/back", "x"]
    assert not any(map(application.takes, refused))
    assert not Application(APP, "App", ("https://127.0.0.1/back",)).takes("http://127.0.0.1/back")


@pytest.mark.parametrize("redirects", [None, "https://a.example/", [], [1], ["com.app:/x"], ["https://a.example/"] * 33])
def test_addresses_to_go_back_to_are_few_and_good(redirects: Any) -> None:
    with pytest.raises(ValueError, match=r"redirect_uris must be|is not an https address"):
        check_redirects(redirects)
    assert check_redirects(["https://a.example/"] * 32)


def test_a_document_says_who_it_is_of() -> None:
    stated = {"client_id": APP, "client_name": " App ", "redirect_uris": ["https://app.example/back"], "logo_uri": "https://evil.example/"}
    assert application_in(APP, json.dumps(stated).encode()) == Application(APP, "App", ("https://app.example/back",))
    for wrong in ({"client_id": APP + "x"}, {"client_secret": "x"}, {"token_endpoint_auth_method": "private_key_jwt"}, {"redirect_uris": []}):
        with pytest.raises(IssuanceError, match="cannot be used") as caught:
            application_in(APP, json.dumps({**stated, **wrong}).encode())
        assert caught.value.code == "invalid_client"
    for text in (b"", b"[]", b'{"client_id": 1, "client_id": 2}', b"\xff"):
        with pytest.raises(IssuanceError, match="cannot be used"):
            application_in(APP, text)


def test_a_name_is_one_short_line_or_the_id() -> None:
    assert called("x" * 200, "id") == "x" * 80
    assert [called(one, "id") for one in (None, 7, "", "  ")] == ["id"] * 4
