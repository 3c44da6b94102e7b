"""The credentials of one HTTP request: RFC 6750 (spec, "Transports").

1. One Authorization header with one Bearer token, one Captoken-Proof header at most, each spelled
   in one way (a gateway may read an underscore as a hyphen), each measured before it is read. The
   scheme is `Bearer` and one space: RFC 9110 would take other spellings.
2. A token anywhere else (query, cookie, URL-encoded form, another header) refuses the request, also
   beside a good one. Other bodies are not looked through.
3. A header that asks to take the request for another one refuses it: a proof says nothing about
   headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from captoken._format.encoding import LIMITS
from captoken._format.sealed import Sealed
from captoken.adapters._http.exchange import Header, RequestError

PROOF_BYTES = 512  # of the proof's header; a proof has some 120
CREDENTIALS_BYTES = len("Bearer ") + LIMITS.bundle_chars

_bearer = re.compile(rb"Bearer ([A-Za-z0-9._~+/-]+=*)").fullmatch  # RFC 6750, 2.1
_proof = re.compile(rb"[A-Za-z0-9_-]+").fullmatch
_stray = re.compile(rb"(?<![A-Za-z0-9_-])cap1_[A-Za-z0-9_-]{40}").search
_parameter = re.compile(rb"(?:^|[&;])access_token=").search  # RFC 6750, 2.2 and 2.3
_SECRET = frozenset((b"authorization", b"captoken-proof"))
_OVERRIDES = frozenset(
    (
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-forwarded-method",
        b"x-original-method",
        b"x-original-uri",
        b"x-original-url",
        b"x-forwarded-uri",
        b"x-rewrite-url",
    )
)


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


def read_credentials(headers: Iterable[Header], query: bytes) -> Credentials | None:
    """The credentials, or None where there are none of the scheme Bearer. Raises RequestError.

    `headers`: names in lower case, each header by itself. It checks the form alone. No header is
    decoded or joined before that.
    """
    token: bytes | None = None
    proof: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if token is not None:  # rule 1
                raise RequestError(400, "More than one Authorization header.")
            token = value
        elif name == b"captoken-proof":
            if proof is not None:
                raise RequestError(400, "More than one Captoken-Proof header.")
            proof = value
        else:
            _refuse_misleading(name, value)
    refuse_stray(query)
    if token is None:
        return None
    if len(token) > CREDENTIALS_BYTES or (proof is not None and len(proof) > PROOF_BYTES):
        raise RequestError(431, "The credentials are too long.")
    text = _token_in(token)
    if text is None:
        return None
    if proof is not None and _proof(proof) is None:
        raise RequestError(400, "The Captoken-Proof header is one proof.")
    return Credentials(text, None if proof is None else proof.decode("ascii"))


def _token_in(header: bytes) -> str | None:
    """The token in an Authorization header, or None where the header is of another scheme."""
    spelled = _bearer(header)
    if spelled is not None:
        return spelled[1].decode("ascii")
    if header and not header.lower().startswith(b"bearer"):
        return None  # the answer tells which scheme is taken
    raise RequestError(
        400, "The Authorization header is the word Bearer, one space, and one token."
    )


def _refuse_misleading(name: bytes, value: bytes) -> None:
    """Raise RequestError for a header that somebody could read as more than it is."""
    if _as_lenient(name) in _OVERRIDES:  # rule 3
        raise RequestError(400, "A header asks to take the request for another one.")
    if is_credential(name):  # rule 1
        raise RequestError(400, "A header of the credentials is misspelled.")
    if b"cap1_" in value:  # rule 2
        refuse_stray(value)


def _as_lenient(name: bytes) -> bytes:
    """A header's name as the most lenient reader takes it."""
    return name.lower().replace(b"_", b"-")


def is_credential(name: bytes) -> bool:
    """Whether somebody could take a header of this name for one of the credentials."""
    return _as_lenient(name) in _SECRET


def without_credentials(headers: Iterable[Header]) -> list[Header]:
    """What an application may see, and log, and pass on."""
    return [(name, value) for name, value in headers if not is_credential(name)]


def refuse_stray(data: bytes) -> None:
    """Raise RequestError for a token in a query, a form or a header where none belongs (rule 2)."""
    plain = unquote_to_bytes(data) if b"%" in data else data
    # The plain searches come first: they are fast, and nearly every request ends there.
    has_token = b"cap1_" in plain and _stray(plain)
    has_parameter = b"access_token=" in data and _parameter(data)
    if has_token or has_parameter:
        raise RequestError(400, "A token travels in the Authorization header, and nowhere else.")
