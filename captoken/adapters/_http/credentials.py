"""The credentials of one HTTP request: RFC 6750 (spec, "Transports").

    GET /sales?region=eu HTTP/1.1
    Host: api.example
    Authorization: Bearer cap1_…

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

# RFC 6750, 2.1. It takes more than captokens: what is no captoken is the verifier's to refuse, like
# any forgery.
_bearer = re.compile(rb"Bearer ([A-Za-z0-9._~+/-]+=*)").fullmatch
_proof = re.compile(rb"[A-Za-z0-9_-]+").fullmatch

# The beginning of a token where none belongs. 40 characters are no token yet, and more than chance.
_stray = re.compile(rb"(?<![A-Za-z0-9_-])cap1_[A-Za-z0-9_-]{40}").search
# RFC 6750, 2.2 and 2.3: the two other ways in which a bearer token could come.
_parameter = re.compile(rb"(?:^|[&;])access_token=").search

_SECRET = frozenset((b"authorization", b"captoken-proof"))

# Frameworks and gateways take the method or the target from these.
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
    """What a request came with: the token's text, unverified, and the proof. Both secret.

    Its `repr` shows neither, so that a traceback which shows the locals of a frame does not.
    """

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

    `headers`: names in lower case, each header by itself.
    `query`: as it was sent, without the question mark.

    It checks the form alone. No header is decoded or joined before that, so that what is checked
    here is what every other reader of the request has before it.
    """
    token: bytes | None = None
    proof: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            # Rule 1. Of two tokens one reader takes the first, another one the last.
            if token is not None:
                raise RequestError(400, "More than one Authorization header.")
            token = value
        elif name == b"captoken-proof":
            if proof is not None:  # rule 1
                raise RequestError(400, "More than one Captoken-Proof header.")
            proof = value
        else:
            _refuse_misleading(name, value)
    refuse_stray(query)  # rule 2
    if token is None:
        return None  # a proof by itself is no credential
    # Rule 1: measured before it is read.
    if len(token) > CREDENTIALS_BYTES or (proof is not None and len(proof) > PROOF_BYTES):
        raise RequestError(431, "The credentials are too long.")
    text = _token_in(token)
    if text is None:
        return None
    if proof is not None and _proof(proof) is None:
        raise RequestError(400, "The Captoken-Proof header is one proof.")
    return Credentials(text, None if proof is None else proof.decode("ascii"))


def _token_in(header: bytes) -> str | None:
    """The token in an Authorization header, or None where the header is of another scheme.

    Raises RequestError for a header that is meant to be of this one, and is not (rule 1). A reader
    that took two spaces, or `bearer`, would differ from one that does not.
    """
    spelled = _bearer(header)
    if spelled is not None:
        return spelled[1].decode("ascii")
    if header and not header.lower().startswith(b"bearer"):
        return None  # the answer tells which scheme is taken
    raise RequestError(
        400, "The Authorization header is the word Bearer, one space, and one token."
    )


def _refuse_misleading(name: bytes, value: bytes) -> None:
    """Raise RequestError for a header that somebody could read as more than it is.

    `name` and `value` are those of a header that is none of the credentials.
    """
    # Rule 3. The middleware decides on one request, and the application behind it runs another.
    if _as_lenient(name) in _OVERRIDES:
        raise RequestError(400, "A header asks to take the request for another one.")
    # Rule 1. A gateway would make a second header of this one, beside the one that is read here.
    if is_credential(name):
        raise RequestError(400, "A header of the credentials is misspelled.")
    # Rule 2: a cookie, or a header of somebody's own.
    if b"cap1_" in value:
        refuse_stray(value)


def _as_lenient(name: bytes) -> bytes:
    """A header's name as the most lenient reader takes it.

    CGI and WSGI make `HTTP_AUTHORIZATION` of both, so case and hyphen are lost on them.
    """
    return name.lower().replace(b"_", b"-")


def is_credential(name: bytes) -> bool:
    """Whether somebody could take a header of this name for one of the credentials.

    However it is spelled: nothing that is passed on should depend on a reader being strict.
    """
    return _as_lenient(name) in _SECRET


def without_credentials(headers: Iterable[Header]) -> list[Header]:
    """What an application may see, and log, and pass on.

    Misspelled credentials are left out too: they are as usable elsewhere.
    """
    return [(name, value) for name, value in headers if not is_credential(name)]


def refuse_stray(data: bytes) -> None:
    """Raise RequestError for a token in a query, a form or a header where none belongs (rule 2).

    Addresses are written to logs and handed on in `Referer`; a token in one is as good as public.
    """
    plain = unquote_to_bytes(data) if b"%" in data else data
    # The first finds a captoken under any name, escaped or not. The second finds the parameter of
    # RFC 6750, whatever stands in it. Plain searches go before the patterns: they are fast, and
    # nearly every request ends there.
    has_token = b"cap1_" in plain and _stray(plain)
    has_parameter = b"access_token=" in data and _parameter(data)
    if has_token or has_parameter:
        raise RequestError(400, "A token travels in the Authorization header, and nowhere else.")
