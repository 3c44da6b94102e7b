"""A provider of OpenID Connect with two people, for trials: whoever clicks is that person.

It has what a login here needs of a provider, and no more: a discovery document, keys, a page with a
button for each person, and ID tokens for one application. A code is good once, and for the verifier
of its challenge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from html import escape
from time import time
from typing import Any
from urllib.parse import urlencode

from captoken._format.encoding import b64encode
from captoken._format.entropy import random_bytes
from captoken.adapters._http.escapes import fields
from captoken.adapters._http.exchange import Body, Receive, Response, Scope, Send, respond
from captoken.adapters._issuance import login_pages as pages

# Who there is, and which groups they are in.
PEOPLE: Mapping[str, list[str]] = {"alice": ["staff", "finance"], "bob": ["staff"]}

_LIFE = 300  # seconds of an ID token
_MOST_CODES = 100
_MOST_BYTES = 8 << 10


class People:
    """The provider, as an ASGI application. `issuer` is its address, and `client` its one client.

        people = People("http://127.0.0.1:8700/people", "captoken", "http://127.0.0.1:8700/login/…")
    """

    def __init__(
        self,
        issuer: str,
        client: str,
        redirect: str,
        *,
        clock: Callable[[], float] = time,
    ) -> None:
        from joserfc.jwk import OKPKey

        self._issuer = issuer
        self._client = client
        self._redirect = redirect
        self._clock = clock
        self._key = OKPKey.generate_key("Ed25519", {"kid": "trial", "use": "sig", "alg": "Ed25519"})
        self._codes: dict[str, dict[str, str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, whose path begins after the issuer's."""
        route = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        query = dict(fields(scope.get("query_string", b""), 32))
        if route == ("GET", "/.well-known/openid-configuration"):
            response = _json(self._document())
        elif route == ("GET", "/keys"):
            response = Response.of(200, b"application/json", await self.keys())
        elif route == ("GET", "/authorize"):
            response = self._ask(query)
        elif route == ("GET", "/as"):
            response = self._log_in(query)
        elif route == ("POST", "/token"):
            sent = dict(fields(await Body(receive, _MOST_BYTES).read_all(), 32))
            response = self._token(sent)
        else:
            response = _json({"error": "not_found"}, 404)
        await respond(send, response)

    async def keys(self) -> bytes:
        """The document of its public keys."""
        return json.dumps({"keys": [self._key.as_dict(private=False)]}).encode()

    def _document(self) -> dict[str, Any]:
        return {
            "issuer": self._issuer,
            "authorization_endpoint": f"{self._issuer}/authorize",
            "token_endpoint": f"{self._issuer}/token",
            "jwks_uri": f"{self._issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["Ed25519"],
            "token_endpoint_auth_methods_supported": ["none"],
            "authorization_response_iss_parameter_supported": True,
        }

    def _ask(self, query: Mapping[str, str]) -> Response:
        """A page with a link for each person."""
        look = pages.Look(is_trial=True)
        if query.get("client_id") != self._client or query.get("redirect_uri") != self._redirect:
            return pages.message(look, 400, "Not for this application")
        wanted = {name: query.get(name, "") for name in ("state", "nonce", "code_challenge")}
        links = "".join(
            f'<a class="button" href="{self._issuer}/as?'
            f'{escape(urlencode({**wanted, "person": person}))}">{person.title()}</a>'
            for person in PEOPLE
        )
        rest = f'<p>There is no password here.</p><div class="buttons">{links}</div>'
        return pages.page(look, 200, "Who are you?", rest)

    def _log_in(self, query: Mapping[str, str]) -> Response:
        """Back to the application, with a code."""
        if query.get("person") not in PEOPLE:
            return pages.message(pages.Look(is_trial=True), 400, "There is nobody of that name")
        code = b64encode(random_bytes(16))
        if len(self._codes) >= _MOST_CODES:
            self._codes.pop(next(iter(self._codes)))
        self._codes[code] = dict(query)
        back = urlencode({"code": code, "state": query.get("state", ""), "iss": self._issuer})
        response = Response.of(303, b"text/plain", b"")
        response.headers.append((b"location", f"{self._redirect}?{back}".encode()))
        return response

    def _token(self, sent: Mapping[str, str]) -> Response:
        """An ID token for a code, once."""
        from joserfc import jwt

        query = self._codes.pop(sent.get("code", ""), None)
        verifier = sent.get("code_verifier", "")
        challenge = b64encode(sha256(verifier.encode()).digest())
        if query is None or query["code_challenge"] != challenge:
            return _json({"error": "invalid_grant"}, 400)
        now = int(self._clock())
        claims = {
            "iss": self._issuer,
            "sub": query["person"],
            "aud": self._client,
            "iat": now,
            "exp": now + _LIFE,
            "auth_time": now,
            "nonce": query["nonce"],
            "groups": PEOPLE[query["person"]],
        }
        header = {"alg": "Ed25519", "kid": "trial"}
        made = jwt.encode(header, claims, self._key, algorithms=["Ed25519"])
        return _json({"id_token": made, "access_token": "none", "token_type": "Bearer"})


def _json(said: Mapping[str, Any], status: int = 200) -> Response:
    return Response.of(status, b"application/json", json.dumps(said).encode())
