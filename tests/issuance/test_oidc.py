"""The client of a provider: how it shows a secret, where it sends a browser, and what its values show of themselves."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from captoken.errors import IssuanceError
from captoken.issuance.identity import Identity
from captoken.issuance.oidc import Login, Provider

ISSUER = "https://login.example"
DOCUMENT = {"issuer": ISSUER, "authorization_endpoint": f"{ISSUER}/authorize", "token_endpoint": f"{ISSUER}/token"}


class Web:
    """What was asked, and an answer without an ID token."""

    def __init__(self) -> None:
        self.sent: list[tuple[Mapping[str, str], Mapping[str, Any]]] = []

    def send(self, method: str, address: str, headers: Mapping[str, str], form: Any = None, most: int = 0) -> tuple[int, bytes]:
        self.sent.append((headers, form))
        return 200, msgspec.json.encode({"access_token": "x"})


@pytest.mark.parametrize(
    "secret, methods, header, field",
    [
        (None, None, None, None),
        ("a b:c", None, "Basic " + base64.b64encode(b"here:a%20b%3Ac").decode(), None),
        ("s", ["client_secret_basic", "client_secret_post"], "Basic " + base64.b64encode(b"here:s").decode(), None),
        ("s", ["client_secret_post"], None, "s"),
    ],
)
def test_a_secret_is_shown_as_the_provider_takes_it(secret: str | None, methods: Any, header: str | None, field: str | None) -> None:
    web: Any = Web()
    document = DOCUMENT if methods is None else {**DOCUMENT, "token_endpoint_auth_methods_supported": methods}
    provider = Provider(ISSUER, "here", document, web, secret)
    _, attempt = provider.begin("https://issuer.example/login/callback", max_age=60)
    with pytest.raises(IssuanceError, match="gives no ID token"):
        provider.finish(attempt, {"code": "c", "state": attempt.state})
    ((headers, form),) = web.sent
    assert headers.get("authorization") == header and form.get("client_secret") == field and form["code_verifier"] == attempt.verifier


def test_each_attempt_is_drawn_anew_and_shows_nothing() -> None:
    provider = Provider(ISSUER, "here", DOCUMENT, Web())  # type: ignore[arg-type]
    address, attempt = provider.begin("https://issuer.example/x", max_age=60, scope="openid groups", acr="mfa")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert asked["state"] == attempt.state and asked["acr_values"] == "mfa" and asked["code_challenge_method"] == "S256"
    assert attempt.verifier not in address and attempt.state not in repr(attempt)
    assert provider.begin("https://issuer.example/x", max_age=60)[1].state != attempt.state
    jane = Identity(provider="acme", kind="oidc", issuer=ISSUER, claims={"sub": "jane"}, digest=b"", issued_at=0, expires_at=0)
    assert repr(Login("e.y.J", jane)) == "<Login of jane>"


def test_a_provider_without_a_code_or_an_https_address_is_none() -> None:
    provider = Provider(ISSUER, "here", DOCUMENT, Web())  # type: ignore[arg-type]
    _, attempt = provider.begin("https://issuer.example/x", max_age=60)
    with pytest.raises(IssuanceError, match="sends no code back"):
        provider.finish(attempt, {"state": attempt.state})
    with pytest.raises(ValueError, match="is an https address"):
        Provider.at("http://login.example", "here")


@pytest.mark.parametrize(
    ("leads", "answers", "why"),
    [
        ({"token_endpoint": "http://127.0.0.1/token"}, [], "leads from https to http: token_endpoint"),
        ({}, [(500, b"<html>")], "token endpoint|cannot be asked|answer|400|refuses|500"),
        ({"jwks_uri": f"{ISSUER}/jwks"}, [(200, b'{"id_token":"e.y.J"}'), (200, b"<html>")], "keys cannot be read"),
        ({"jwks_uri": f"{ISSUER}/jwks"}, [(200, b'{"id_token":"e.y.J"}'), (404, b"{}")], "keys cannot be read"),
    ],
)
def test_a_provider_that_answers_otherwise_lets_nobody_in(leads: dict[str, str], answers: list[tuple[int, bytes]], why: str) -> None:
    given = iter(answers)

    class Other(Web):
        def send(self, method: str, address: str, headers: Mapping[str, str], form: Any = None, most: int = 0) -> tuple[int, bytes]:
            return next(given)

    provider = Provider(ISSUER, "here", DOCUMENT | leads, Other())  # type: ignore[arg-type]
    _, attempt = provider.begin("https://issuer.example/x", max_age=60)
    with pytest.raises(IssuanceError, match=why):
        provider.finish(attempt, {"code": "c", "state": attempt.state})
