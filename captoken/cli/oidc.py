"""A person logs in at an identity provider, and an ID token comes back (OpenID Connect Core).

    provider = Provider.at("https://login.acme.example", "captoken-cli")
    login = provider.by_browser(max_age=28800, show=print)
    login = provider.by_device(max_age=28800, show=print)

1. The provider is whom the caller names: its document says so, and so does what comes back (`iss`,
   RFC 9207). Its addresses are https, or on this machine.
2. What comes back is of this very login: state, PKCE and nonce are drawn for each.
3. The ID token is verified as the service does it, with `auth_time`, which is asked for.
4. It alone is kept. No refresh token is asked for, and whatever else comes is let go of.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

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
_PATH = "/callback"
_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"

_Show = Callable[[str], object]


class Login(msgspec.Struct, frozen=True):
    """An ID token that was verified, and who it is about."""

    text: str
    identity: Identity

    def __repr__(self) -> str:
        """Not the text: whoever has it is that person, for a while."""
        return f"<Login of {self.identity.sub}>"


class Provider:
    """An identity provider by its discovery document, and what this application is called there.

    Made by `at`, which asks for the document.
    """

    def __init__(self, issuer: str, client_id: str, document: Mapping[str, Any], web: Web) -> None:
        self.issuer = issuer
        self.client_id = client_id
        self._document = document
        self._web = web

    @classmethod
    def at(cls, issuer: str, client_id: str) -> Provider:
        """Ask a provider for its document. Raises IssuanceError, and ValueError for an address."""
        if not is_safe(issuer):
            raise ValueError(f"a provider is an https address, not {shown(issuer)}")
        web = Web()
        path = "/.well-known/openid-configuration"
        document = _got(*web.send("GET", issuer.removesuffix("/") + path, {}))
        named = document.get("issuer")
        if named != issuer:  # else one could answer for another (Discovery, 4.3)
            raise unavailable(f"the document is of {shown(named)}, not of {issuer}")
        return cls(issuer, client_id, document, web)

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

    def by_browser(
        self,
        *,
        max_age: int,
        show: _Show,
        scope: str = "openid",
        acr: str | None = None,
        port: int = 0,
        patience: float = PATIENCE,
    ) -> Login:
        """Wait until somebody has logged in. `show` gets the address for the browser.

        `port`: of this machine, for the browser to come back to; any unless said. Raises
        IssuanceError with the provider's code, `access_denied` say.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))

        # It listens before anybody is shown where to go.
        with _Listener(port, state) as listener:
            asked = {
                "response_type": "code",
                "client_id": self.client_id,
                "redirect_uri": listener.address,
                "scope": scope,
                "state": state,
                "nonce": nonce,
                "code_challenge": b64encode(sha256(verifier.encode()).digest()),
                "code_challenge_method": "S256",
                "max_age": str(max_age),
                **({} if acr is None else {"acr_values": acr}),
            }
            begin = self._address("authorization_endpoint")
            show(f"{begin}{'&' if '?' in begin else '?'}{urlencode(asked)}")
            came = listener.wait(patience)
            address = listener.address

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
            "redirect_uri": address,
            "client_id": self.client_id,
            "code_verifier": verifier,
        }
        return self._login(self._asked("token_endpoint", form), nonce, max_age, needs_nonce=True)

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
        return _got(*self._web.send("POST", self._address(endpoint), {}, form))

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
            int(time.time()),
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


# --- where the browser comes back to --------------------------------------------------------------

_DONE = b"<!doctype html><title>captoken</title><p>Close this page, and go on in the terminal."
_HEAD = (
    "content-type: text/html; charset=utf-8",
    "cache-control: no-store",
    "content-security-policy: default-src 'none'",
    "referrer-policy: no-referrer",
    "connection: close",
)

# Seconds for one connection, from its first byte to our last, and how many there are at a time.
_VISIT = 5.0
_VISITS = 64

# The longest request head, in bytes. A browser also sends cookies of this machine's other ports.
_MAX_HEAD = 65_536

# What ends a visit: it is too slow, too long, or gone.
_GONE = (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


class _Listener:
    """Waits on a port of this machine for the browser with the right state, and for no other.

    What else comes by, a page that tries ports say, is answered 404 and changes nothing. Nobody who
    is slow keeps the browser waiting: all are heard at once, and of too many the oldest has to go.
    """

    def __init__(self, port: int, state: str) -> None:
        self._state = state
        self._visits: list[asyncio.StreamWriter] = []
        self._socket = socket.create_server(("127.0.0.1", port))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}{_PATH}"

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, *_: Any) -> None:
        self._socket.close()

    def wait(self, patience: float) -> dict[str, str]:
        """The parameters that the browser came back with. Raises IssuanceError if it does not."""
        try:
            return asyncio.run(asyncio.wait_for(self._came(), patience))
        except TimeoutError:
            raise IssuanceError(
                "nobody has logged in, and it took too long", "expired_token"
            ) from None

    async def _came(self) -> dict[str, str]:
        """The same, however long it takes. What is connected then is let go of."""
        came: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

        async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found = await self._visited(reader, writer)
            if found is not None and not came.done():
                came.set_result(found)

        server = await asyncio.start_server(visited, sock=self._socket, limit=_MAX_HEAD)
        try:
            return await came
        finally:
            server.close()
            for visit in self._visits:
                visit.transport.abort()
            # They are told so in the next round of the loop.
            await asyncio.sleep(0)

    async def _visited(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> dict[str, str] | None:
        """Answer one connection. What it brought, if it is the one that is waited for."""
        self._visits.append(writer)
        if len(self._visits) > _VISITS:
            self._visits.pop(0).transport.abort()
        found: dict[str, str] | None = None
        try:
            async with asyncio.timeout(_VISIT):
                head = await reader.readuntil(b"\r\n\r\n")
                found = _sent_back(_target(head), self._state)
                status = "404 Not Found" if found is None else "200 OK"
                lines = "\r\n".join((f"HTTP/1.1 {status}", *_HEAD, "", ""))
                writer.write(lines.encode() + (b"" if found is None else _DONE))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except _GONE:
            writer.transport.abort()
        finally:
            if writer in self._visits:
                self._visits.remove(writer)

        # Whoever went away without our answer may have brought it all the same.
        return found


def _target(head: bytes) -> str:
    """What the first line of a request asks for; empty for what no browser asks."""
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    target, _, _ = rest.partition(" ")
    return target if method == "GET" else ""


def _sent_back(target: str, state: str) -> dict[str, str] | None:
    """The parameters of a request, if it is the one that is waited for."""
    parts = urlsplit(target)
    if parts.path != _PATH:
        return None

    # Each parameter once: of two, another reader may take the other.
    try:
        given = parse_qs(parts.query, strict_parsing=True, max_num_fields=16)
    except ValueError:
        return None
    if any(len(values) != 1 for values in given.values()):
        return None

    one = {name: values[0] for name, values in given.items()}
    is_ours = hmac.compare_digest(one.get("state", "").encode(), state.encode())
    return one if is_ours else None
