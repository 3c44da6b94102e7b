"""A person logs in at an identity provider, and an ID token comes back (OpenID Connect Core).

    provider = Provider.at("https://login.acme.example", "captoken-cli")
    address, attempt = provider.begin("https://here.example/callback", max_age=28800)
    login = provider.finish(attempt, came)                # what the browser came back with
    login = provider.by_device(max_age=28800, show=print)

1. The provider is whom the caller names: its document says so, and so does what comes back (`iss`,
   RFC 9207). Its addresses are https, or on this machine.
2. What comes back is of this very login: state, PKCE and nonce are drawn for each.
3. The ID token is verified as the service does it, with `auth_time`, which is asked for.
4. It alone is kept. No refresh token is asked for, and whatever else comes is let go of.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Self
from urllib.parse import quote, urlencode

import msgspec

from captoken._format.encoding import b64encode
from captoken._format.errors import IssuanceError
from captoken._format.spelling import escape, shown
from captoken.issuance.identity import Identity, identify, open_assertion
from captoken.issuance.jose import JoseError, Json, key_set, read_json
from captoken.issuance.policy import Oidc, Policy
from captoken.issuance.web import Web, is_safe, unavailable

PATIENCE = 300.0  # seconds for the person
_MAX_LIFE = 86_400  # seconds that an ID token may be good for; what the service takes, it says
_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"

_Show = Callable[[str], object]


class Login(msgspec.Struct, frozen=True):
    """An ID token that was verified, and who it is about."""

    text: str
    identity: Identity

    def __repr__(self) -> str:
        """Not the text: whoever has it is that person, for a while."""
        return f"<Login of {self.identity.sub}>"


class Attempt(msgspec.Struct, frozen=True):
    """One attempt to log in, until the browser comes back. All of it is drawn anew for each."""

    state: str
    nonce: str
    verifier: str
    redirect: str
    max_age: int

    def __repr__(self) -> str:
        """Not what only this attempt's browser may know."""
        return "<Attempt>"


class Provider:
    """An identity provider by its discovery document, and what this application is called there.

    Made by `at`, which asks for the document. `secret` is what the provider has given to this
    application, if it has.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        document: Mapping[str, Any],
        web: Web,
        secret: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self.issuer = issuer
        self.client_id = client_id
        self._document = document
        self._web = web
        self._secret = secret

    @classmethod
    def at(
        cls,
        issuer: str,
        client_id: str,
        secret: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Ask a provider for its document. Raises IssuanceError, and ValueError for an address."""
        if not is_safe(issuer):
            raise ValueError(f"a provider is an https address, not {shown(issuer)}")
        web = Web()
        path = "/.well-known/openid-configuration"
        document = _got(*web.send("GET", issuer.removesuffix("/") + path, {}))
        named = document.get("issuer")
        if named != issuer:  # else one could answer for another (Discovery, 4.3)
            raise unavailable(f"the document is of {shown(named)}, not of {issuer}")
        return cls(issuer, client_id, document, web, secret, clock)

    def _address(self, name: str) -> str:
        """An address of the provider's own document. Raises IssuanceError."""
        place = self._document.get(name)
        leads_down = type(place) is str and place.startswith("http:")
        if type(place) is not str or not is_safe(place):
            raise unavailable(f"the provider's document has no {name} that is an https address")
        # This machine's addresses are for providers that are on it.
        if leads_down and not self.issuer.startswith("http:"):
            raise unavailable(f"the provider's document leads from https to http: {name}")
        return place

    # --- a browser on this machine (RFC 8252, 7636) ---

    def begin(
        self,
        redirect: str,
        *,
        max_age: int,
        scope: str = "openid",
        acr: str | None = None,
    ) -> tuple[str, Attempt]:
        """Where to send the browser, and the attempt, which stays with whoever sends it.

        Raises IssuanceError.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": redirect,
            "scope": scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": b64encode(sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
            "max_age": str(max_age),
            **({} if acr is None else {"acr_values": acr}),
        }
        begin = self._address("authorization_endpoint")
        address = f"{begin}{'&' if '?' in begin else '?'}{urlencode(asked)}"
        return address, Attempt(state, nonce, verifier, redirect, max_age)

    def finish(self, attempt: Attempt, came: Mapping[str, str]) -> Login:
        """Who has logged in, by what the browser came back with. Its state was compared.

        Raises IssuanceError with the provider's code, `access_denied` say.
        """
        # Before anything else that it says is believed.
        self._check_sender(came)
        if "error" in came:
            raise _provider_error(came)
        code = came.get("code")
        if not code:
            raise unavailable("the provider sends no code back")

        # Whoever saw the code has not got the verifier, whose digest alone was sent before.
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": attempt.redirect,
            "client_id": self.client_id,
            "code_verifier": attempt.verifier,
        }
        said = self._asked("token_endpoint", form)
        return self._login(said, attempt.nonce, attempt.max_age, needs_nonce=True)

    def _check_sender(self, came: Mapping[str, str]) -> None:
        """Was it this provider that sent the browser back (RFC 9207)? Raises IssuanceError."""
        sender = came.get("iss")
        says_so = self._document.get("authorization_response_iss_parameter_supported") is True
        if sender is None and not says_so:
            return

        if sender != self.issuer:
            raise IssuanceError(
                f"the browser came back from {shown(sender)}, not from {self.issuer}",
                "invalid_grant",
            )

    # --- another device (RFC 8628) ---

    def by_device(
        self,
        *,
        max_age: int,
        show: _Show,
        scope: str = "openid",
        acr: str | None = None,
        patience: float = PATIENCE,
        sleep: Callable[[float], object] = time.sleep,
    ) -> Login:
        """Wait until somebody has logged in elsewhere. `show` gets the address, and the code."""
        nonce = secrets.token_urlsafe(32)
        asked = {
            "client_id": self.client_id,
            "scope": scope,
            "nonce": nonce,  # of use only at providers that know it here
            "max_age": str(max_age),
            **({} if acr is None else {"acr_values": acr}),
        }
        said = self._asked("device_authorization_endpoint", asked)
        device, code, page = (
            said.get(name) for name in ("device_code", "user_code", "verification_uri")
        )
        if type(device) is not str or type(code) is not str or type(page) is not str:
            raise unavailable("the provider gives no code for another device")

        # A person is sent there.
        if not is_safe(page):
            raise unavailable("the provider's page for the code is at no https address")
        show(f"{page}  and there the code  {escape(code)}")

        ends = time.monotonic() + min(patience, _seconds(said.get("expires_in"), patience))
        pause = _seconds(said.get("interval"), 5.0)
        form = {"grant_type": _DEVICE, "device_code": device, "client_id": self.client_id}

        while time.monotonic() < ends:
            sleep(pause)
            try:
                answer = self._asked("token_endpoint", form)
            except IssuanceError as error:
                if error.code not in ("authorization_pending", "slow_down"):
                    raise
                pause += 5.0 if error.code == "slow_down" else 0.0
            else:
                return self._login(answer, nonce, max_age, needs_nonce=False)
        raise IssuanceError("nobody has logged in, and it took too long", "expired_token")

    # --- what both end in ---

    def _asked(self, endpoint: str, form: Mapping[str, str]) -> Json:
        headers: dict[str, str] = {}
        methods = self._document.get("token_endpoint_auth_methods_supported")
        if self._secret is not None:
            # As a header unless the provider says that it does not take that (RFC 8414, 2).
            if isinstance(methods, list) and "client_secret_basic" not in methods:
                form = {**form, "client_secret": self._secret}
            else:
                pair = f"{quote(self.client_id, '')}:{quote(self._secret, '')}"
                encoded = base64.b64encode(pair.encode()).decode()
                headers["authorization"] = f"Basic {encoded}"
        return _got(*self._web.send("POST", self._address(endpoint), headers, form))

    def _login(self, said: Json, nonce: str, max_age: int, *, needs_nonce: bool) -> Login:
        """The ID token of an answer, verified. Raises IssuanceError."""
        text = said.get("id_token")
        if type(text) is not str:
            raise unavailable("the provider gives no ID token")

        status, body = self._web.send("GET", self._address("jwks_uri"), {})
        try:
            keys = key_set(body if status == 200 else b"").keys
        except JoseError as error:
            raise unavailable(f"the provider's keys cannot be read: {error}") from None

        policy = _policy(self.issuer, self.client_id, max_age)
        identity = identify(
            open_assertion(text, policy, ("oidc",)),
            policy,
            lambda _, kid: keys.get(kid),
            int(self._clock()),
            policy.origin,
        )

        # Refuse the token of an earlier login, or of somebody else (OpenID Connect Core, 3.1.3.7).
        stated = identity.claims.get("nonce")
        if stated is None and not needs_nonce:
            return Login(text, identity)
        if type(stated) is not str or not hmac.compare_digest(stated.encode(), nonce.encode()):
            raise IssuanceError("the ID token is of another login", "invalid_grant")
        return Login(text, identity)


def _policy(issuer: str, client_id: str, max_age: int) -> Policy:
    """What an ID token is held against: it is of this issuer, for this application, and fresh."""
    provider = Oidc(
        issuer=issuer,
        client_ids=(client_id,),
        max_login_age=max_age,
        max_life=_MAX_LIFE,
    )
    return Policy(
        origin=issuer,
        providers={"login": provider},
        subjects={},
        required={"login": ()},
        resources={},
        dischargers={},
        clients={},
        grants={},
        tests=(),
        digest="",
    )


def _got(status: int, body: bytes) -> Json:
    """The object that was answered. Raises IssuanceError for an error, and for anything else."""
    try:
        said = read_json(body)
    except JoseError:
        said = {}
    if status == 200 and said:
        return said

    if type(said.get("error")) is str:
        raise _provider_error(said)
    raise unavailable(f"the provider answers {status}, and not as one does")


def _provider_error(said: Mapping[str, Any]) -> IssuanceError:
    """An error in the provider's words, escaped and short."""
    words = said.get("error_description")
    text = escape(words[:300]) if type(words) is str else "the provider gives no reason"
    return IssuanceError(text, escape(str(said["error"])[:60]))


def _seconds(value: Any, otherwise: float) -> float:
    return float(value) if type(value) in (int, float) and value >= 0 else otherwise
