"""The session of a browser, and what it carries: cookies, and forms that are this session's alone.

A session's secret is in a cookie that no script reads, and the registry has its digest. Each form
is sealed under a key that is made of that secret: a form of another session does not open here, and
nobody else can make one. That is all that is needed against forged requests; nothing is kept for a
form.

A login that is under way is known by a cookie of its own, until the browser comes back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from captoken._format import primitives
from captoken._format.encoding import EncodingError, b64decode, b64encode
from captoken._format.entropy import random_bytes
from captoken._format.sealed import SealedValue
from captoken.adapters._http.exchange import Header, Scope, values_of
from captoken.issuance.oidc import Attempt

# The labels of what is made of a session's secret, and of a code's.
_SESSION = primitives.label("login session")
_FORM = primitives.label("login form")
_CODE = primitives.label("login code")
_ID = primitives.label("login id")
_NEXT = primitives.label("login refresh")
_DIGEST = primitives.label("login secret")

_ID_SIZE = 16
_SECRET_SIZE = 32
ATTEMPT_LIFE = 600  # seconds for somebody to log in


class Session(SealedValue, frozen=True, eq=False):
    """The secret of one browser's session."""

    secret: bytes

    @classmethod
    def fresh(cls) -> Session:
        """A new one. What was there before is never carried on."""
        return cls(random_bytes(_SECRET_SIZE))

    def __repr__(self) -> str:
        """Not the secret: whoever has it is logged in."""
        return "<Session>"

    @property
    def id(self) -> str:
        """By which the registry knows it. It does not tell the secret."""
        return b64encode(primitives.sha256(_SESSION + self.secret))

    def sealed(self, what: str, said: Any) -> str:
        """A form's content, which this session alone opens. `what` is the form that it is for."""
        message = msgspec.json.encode([what, said])
        return b64encode(primitives.enclose(self._key(), message, random_bytes(24)))

    def opened(self, what: str, text: str) -> Any:
        """The content of a form; None for one of another session, or another form."""
        try:
            box = b64decode(text)
        except EncodingError:
            return None
        message = primitives.disclose(self._key(), box)
        if message is None:
            return None
        kind, said = msgspec.json.decode(message)
        return said if kind == what else None

    def code(self, once: str, answer: bytes) -> Text:
        """The code for an answer to a page that was shown once: the same one for the same answer.

        So a button that is pressed twice gives one code, and not two.
        """
        about = b64decode(once) + answer
        key = primitives.hkdf(b"", self.secret, _CODE)
        id = primitives.hmac_sha256(key, _ID + about)[:_ID_SIZE]
        return Text(b64encode(id), primitives.hmac_sha256(key, _CODE + about))

    def _key(self) -> bytes:
        return primitives.hkdf(b"", self.secret, _FORM)


class Text(SealedValue, frozen=True, eq=False):
    """A code or a refresh token: the id of a login in the registry, and a secret."""

    id: str
    secret: bytes

    @classmethod
    def read(cls, text: str) -> Text | None:
        """What a client has sent; None for what is neither."""
        try:
            raw = b64decode(text)
        except EncodingError:
            return None
        if len(raw) != _ID_SIZE + _SECRET_SIZE:
            return None
        return cls(b64encode(raw[:_ID_SIZE]), raw[_ID_SIZE:])

    def __repr__(self) -> str:
        """Not the secret: whoever has it goes on as that application."""
        return "<Text>"

    def text(self) -> str:
        """What the client gets. Secret."""
        return b64encode(b64decode(self.id) + self.secret)

    @property
    def digest(self) -> bytes:
        """By which the registry knows the secret."""
        return primitives.sha256(_DIGEST + self.secret)

    def successor(self, salt: bytes) -> Text:
        """The next one. It takes the registry's salt: the secret alone does not make it."""
        return Text(self.id, primitives.hmac_sha256(self.secret, _NEXT + salt))


# --- cookies --------------------------------------------------------------------------------------


class Cookies(NamedTuple):
    """The cookies of a service: at an https origin by a name that no other host can set."""

    is_https: bool

    def session(self, scope: Scope) -> Session | None:
        """The session that a request brings, if it looks like one."""
        for value in self._values(scope, "session"):
            try:
                secret = b64decode(value)
            except EncodingError:
                return None
            return Session(secret) if len(secret) == _SECRET_SIZE else None
        return None

    def keep(self, session: Session, seconds: int) -> Header:
        """The header that gives a browser its session."""
        return self._set("session", b64encode(session.secret), seconds)

    def forget(self) -> Header:
        """The header that takes it away."""
        return self._set("session", "", 0)

    def begin(self, attempt: Attempt, query: bytes, *, is_posted: bool) -> Header:
        """The header that keeps a login which is under way, and where it leads.

        `is_posted`: the provider's site posts its answer. Browsers send a cookie along with that
        only if it says so, at an https origin. It gives nobody a session: see `attempt`.
        """
        parts = [*msgspec.structs.astuple(attempt), query.decode("latin-1")]
        value = b64encode(msgspec.json.encode(parts))
        site = "None" if is_posted and self.is_https else "Lax"
        return self._set(_of(attempt.state), value, ATTEMPT_LIFE, site)

    def attempt(self, scope: Scope, state: str) -> tuple[Attempt, bytes] | None:
        """The login that is under way with this state, and where it leads."""
        for value in self._values(scope, _of(state)):
            try:
                *parts, query = msgspec.json.decode(b64decode(value), type=list[Any])
                found = msgspec.convert(dict(zip(_ATTEMPT, parts, strict=True)), Attempt)
                leads = str(query).encode("latin-1")
            except (EncodingError, ValueError, msgspec.MsgspecError):
                return None
            is_its = primitives.equal(found.state.encode(), state.encode())
            # A cookie is the browser's word: it leads to a page of this service, or nowhere.
            return (found, leads) if is_its and _leads_here(leads) is not None else None
        return None

    def end(self, state: str) -> Header:
        """The header that takes away a login which was under way."""
        return self._set(_of(state), "", 0)

    def _name(self, what: str) -> str:
        return f"__Host-captoken-{what}" if self.is_https else f"captoken-{what}"

    def _set(self, what: str, value: str, seconds: int, site: str = "Lax") -> Header:
        secure = "; Secure" if self.is_https else ""
        said = f"{self._name(what)}={value}; Path=/; Max-Age={seconds}; HttpOnly; "
        said += f"SameSite={site}"
        return b"set-cookie", (said + secure).encode()

    def _values(self, scope: Scope, what: str) -> Iterable[str]:
        """The values of a cookie. Of two with one name neither is known to be ours: none.

        As browsers write them (RFC 6265, 4.2.1). Nothing is stripped: a name with a space of some
        kind before it is one that other hosts can set.
        """
        name = self._name(what)
        found = [
            value
            for line in values_of(scope["headers"], b"cookie")
            for pair in line.decode("latin-1").split("; ")
            for key, _, value in (pair.partition("="),)
            if key == name
        ]
        return found if len(found) == 1 else ()


_ATTEMPT = Attempt.__struct_fields__

# Where a login may lead: to one of our own pages.
_leads_here = re.compile(rb"/(?:authorize|grants)\?[!-~]*").fullmatch


def _of(state: str) -> str:
    """The part of a cookie's name that tells logins apart which are under way at once."""
    return f"at-{primitives.sha256(state.encode()).hex()[:12]}"
