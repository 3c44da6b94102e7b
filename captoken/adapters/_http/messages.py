"""One HTTP request's credentials, and the answers that refuse it: RFC 6750, RFC 9728 (spec, "Transports").

1. One Authorization header with one Bearer token, one Captoken-Proof header at most, each spelled in one way (a gateway
   may read an underscore as a hyphen), each measured before it is read. The scheme is `Bearer` and one space: RFC 9110
   would take other spellings.
2. A token anywhere else (query, cookie, URL-encoded form, another header) refuses the request, also beside a good one.
   Other bodies are not looked through.
3. A header that asks to take the request for another one refuses it: a proof says nothing about headers.
4. What a stranger can cause has one body: malformed, unknown key, bad signature and revoked are told as one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from captoken._format.encoding import LIMITS
from captoken._format.sealed import Sealed
from captoken._verification.decision import Denied
from captoken.adapters.discharge_client import origin_of

METADATA_PATH = "/.well-known/oauth-protected-resource"
PROOF_BYTES = 512  # of the proof's header; a proof has some 120
CREDENTIALS_BYTES = len("Bearer ") + LIMITS.bundle_chars

_bearer = re.compile(rb"Bearer ([A-Za-z0-9._~+/-]+=*)").fullmatch  # RFC 6750, 2.1
_proof = re.compile(rb"[A-Za-z0-9_-]+").fullmatch
_stray = re.compile(rb"(?<![A-Za-z0-9_-])cap1_[A-Za-z0-9_-]{40}").search
_parameter = re.compile(rb"(?:^|[&;])access_token=").search  # RFC 6750, 2.2 and 2.3
_quotable = re.compile(r"[ !#-\[\]-~]{1,256}").fullmatch
_plain_path = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,=:@-]+)+/?|/").fullmatch
_SECRET = frozenset((b"authorization", b"captoken-proof"))
_OVERRIDES = frozenset(
    b"x-http-method-override x-http-method x-method-override x-original-url x-original-uri x-original-method x-rewrite-url"
    b" x-forwarded-uri x-forwarded-method".split()
)
_ERRORS = {
    "invalid": "invalid_token",
    "proof": "invalid_token",
    "insufficient": "insufficient_scope",
}
_STATUS = {"invalid": 401, "proof": 401, "insufficient": 403, "unavailable": 503}


class BadRequest(Exception):  # noqa: N818, the name reads as what it is
    """A request that no token can help: the status, and a sentence for the client."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Credentials(Sealed):
    """What a request came with: the token's text, unverified, and the proof. Secret."""

    __slots__ = ("proof", "text")
    text: str
    proof: str | None

    def __init__(self, text: str, proof: str | None) -> None:
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "proof", proof)

    def __repr__(self) -> str:
        return f"<Credentials {'with a' if self.proof else 'without'} proof>"


def read_credentials(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> Credentials | None:
    """The credentials, or None where there are none of the scheme Bearer. Raises BadRequest.

    `headers`: names in lower case, each header by itself. Checks the form alone; no header is decoded or joined.
    """
    token: bytes | None = None
    proof: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if token is not None:  # rule 1
                raise BadRequest(400, "More than one Authorization header.")
            token = value
        elif name == b"captoken-proof":
            if proof is not None:
                raise BadRequest(400, "More than one Captoken-Proof header.")
            proof = value
        elif _plain(name) in _OVERRIDES:  # rule 3
            raise BadRequest(400, "A header asks to take the request for another one.")
        elif _plain(name) in _SECRET:
            raise BadRequest(400, "A header of the credentials is misspelled.")
        elif b"cap1_" in value:
            refuse_stray(value)
    refuse_stray(query)
    if token is None:
        return None
    if len(token) > CREDENTIALS_BYTES or (proof is not None and len(proof) > PROOF_BYTES):
        raise BadRequest(431, "The credentials are too long.")
    spelled = _bearer(token)
    if spelled is None:
        if token and not token.lower().startswith(b"bearer"):
            return None  # another scheme: told which one is taken
        raise BadRequest(
            400, "The Authorization header is the word Bearer, one space, and one token."
        )
    if proof is not None and _proof(proof) is None:
        raise BadRequest(400, "The Captoken-Proof header is one proof.")
    return Credentials(spelled[1].decode("ascii"), None if proof is None else proof.decode("ascii"))


def _plain(name: bytes) -> bytes:
    """A header's name as the most lenient reader takes it."""
    return name.lower().replace(b"_", b"-")


def without_credentials(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What an application may see, and log, and pass on."""
    return [header for header in headers if _plain(header[0]) not in _SECRET]


def refuse_stray(data: bytes) -> None:
    """Raise BadRequest for a token in a query, a form or a header where none belongs (rule 2)."""
    plain = unquote_to_bytes(data) if b"%" in data else data
    if (b"cap1_" in plain and _stray(plain)) or (b"access_token=" in data and _parameter(data)):
        raise BadRequest(400, "A token travels in the Authorization header, and nowhere else.")


def target_of(path: bytes, query: bytes) -> bytes:
    """What stands in the request line. An empty query and none are one: servers do not tell them apart."""
    return path + b"?" + query if query else path


def own_origin(origin: str) -> str:
    """`origin`, if it is one as browsers spell it, https or on this machine. Raises ValueError."""
    if origin_of(origin) != origin:
        raise ValueError(f"an origin is scheme, host and port alone, spelled {origin_of(origin)}")
    return origin


def public_paths(paths: Iterable[str]) -> frozenset[str]:
    """The paths that need no token, if each has one spelling. Raises TypeError or ValueError."""
    if isinstance(paths, str):
        raise TypeError("public is a set of paths, not one str")
    for path in paths:
        if _plain_path(path) is None:
            raise ValueError(
                f"public path {path!r}: it starts with /, and has no percent sign, empty or dot segment"
            )
    return frozenset(paths)


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Answers:
    """What one protected resource answers. `realm` and `metadata`, a URL, are shown to anybody. Raises ValueError."""

    def __init__(self, realm: str, metadata: str | None) -> None:
        if _quotable(realm) is None:
            raise ValueError("a realm is printable ASCII without quotes and backslashes")
        parts = [f'realm="{realm}"']
        if metadata is not None:
            origin_of(metadata)
            if _quotable(metadata) is None:
                raise ValueError("the address of the metadata is without quotes")
            parts.append(f'resource_metadata="{metadata}"')  # RFC 9728, 5.1
        self._challenge = "Bearer " + ", ".join(parts)

    def unauthenticated(self) -> Answer:
        """No credentials: a challenge, and no error code (RFC 6750, 3.1)."""
        return self._json(401, {"error_description": "A bearer token is needed."}, self._challenge)

    def bad(self, request: BadRequest) -> Answer:
        """What is wrong with the request."""
        return self._refusal(request.status, "invalid_request", request.text)

    def denied(self, denied: Denied) -> Answer:
        """What a client is told of a denial (rule 4)."""
        error = _ERRORS.get(denied.kind, "temporarily_unavailable")
        return self._refusal(_STATUS[denied.kind], error, denied.public)

    def _refusal(self, status: int, error: str, text: str) -> Answer:
        challenge = (
            f'{self._challenge}, error="{error}", error_description="{text}"'
            if status in (400, 401, 403)
            else None
        )
        return self._json(status, {"error": error, "error_description": text}, challenge)

    @staticmethod
    def _json(status: int, said: Mapping[str, Any], challenge: str | None) -> Answer:
        answer = json_answer(status, said)
        if challenge is not None:
            answer.headers.append((b"www-authenticate", challenge.encode("ascii")))
        return answer


def json_answer(status: int, said: Mapping[str, Any]) -> Answer:
    """A JSON object that nobody keeps."""
    body = json.dumps(said).encode()
    kept = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
    return Answer(
        status,
        [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *kept],
        body,
    )
