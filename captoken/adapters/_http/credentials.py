"""The token of one HTTP request: RFC 6750 (spec, "Transports").

    GET /sales?region=eu HTTP/1.1
    Host: api.example
    Authorization: Bearer cap1_….cap1p_…

1. One Authorization header with one text, spelled in one way (a gateway may read an underscore as a
   hyphen), measured before it is read. The scheme is `Bearer` and one space: RFC 9110 would take
   other spellings. A proof stands at the end of the text, and nowhere else.
2. A token or a proof anywhere else (query, cookie, URL-encoded form, another header) refuses the
   request, also beside a good one. Other bodies are not looked through.
3. A header that asks to take the request for another one refuses it: a proof says nothing about
   headers.
4. A token in a trailer is none. Most servers give an application no trailers. uvicorn with
   httptools puts them behind the headers, and they come behind `Transfer-Encoding` there. So do the
   headers of some clients: behind that header, and under that server, a token refuses the request.

The guard of MCP servers reads the header by the same function (`text_in`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from captoken._format.encoding import LIMITS
from captoken._format.sealed import SealedValue
from captoken._format.text import without_proof
from captoken._language.bounds import HEADER_BYTES, TARGET_BYTES
from captoken.adapters._http.escapes import unescaped
from captoken.adapters._http.exchange import Header, RequestError, Scope

CREDENTIALS_BYTES = len("Bearer ") + LIMITS.bundle_chars

# RFC 6750, 2.1. It takes more than captokens: what is no captoken is the verifier's to refuse, like
# any forgery.
_bearer = re.compile(rb"Bearer ([A-Za-z0-9._~+/-]+=*)").fullmatch

_LENGTH = len("authorization")  # most names are of another

# The beginning of a token, a set of them or a proof, where none belongs. 40 characters are none
# yet, and more than chance.
_stray = re.compile(rb"(?<![A-Za-z0-9_-])cap(?:1p?|s1)_[A-Za-z0-9_-]{40}").search
# RFC 6750, 2.2 and 2.3: the two other ways in which a bearer token could come.
_parameter = re.compile(rb"(?:^|[&;])access_token=").search

# Rule 4. uvicorn imports it when it is told to use httptools, or finds it.
_MIXING_TRAILERS = "uvicorn.protocols.http.httptools_impl"

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


class Sent(SealedValue, frozen=True, eq=False):
    """The text that a request came with: a token, unverified, and perhaps a proof. Secret.

    Its `repr` shows none of it, so that a traceback which shows the locals of a frame does not.
    """

    text: str

    @property
    def has_proof(self) -> bool:
        """Does the text end in a proof? What is proven has to be known before it is verified."""
        return self.text != self.without_proof

    @property
    def without_proof(self) -> str:
        """What stands before the proof."""
        return without_proof(self.text)


def read_sent(headers: Iterable[Header], query: bytes) -> Sent | None:
    """The text of a request, or None where there is none of the scheme Bearer. Raises RequestError.

    `headers`: names in lower case, each header by itself.
    `query`: as it was sent, without the question mark.

    It checks the form alone, of a head that is bounded (`check_head`). No header is decoded or
    joined before that, so that what is checked here is what every other reader of the request has
    before it.
    """
    for name, value in headers:
        if name != b"authorization":
            _refuse_misleading(name, value)
    refuse_stray(query)  # rule 2
    text = text_in(headers)
    return None if text is None else Sent(text=text)


def check_head(scope: Scope) -> None:
    """Raise RequestError for a head that is longer than any that is meant.

    Servers bound it in ways of their own, and some not at all; whoever sends it has shown nothing.
    """
    path = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    if len(path) + len(scope.get("query_string", b"")) > TARGET_BYTES:
        raise RequestError(414, f"The target of the request is longer than {TARGET_BYTES} bytes.")
    size = 0
    for name, value in scope["headers"]:
        size += len(name) + len(value) + 32  # as HTTP/2 counts them (RFC 9113, 6.5.2)
        if size > HEADER_BYTES:
            raise RequestError(431, f"The headers are longer than {HEADER_BYTES} bytes.")


def text_in(headers: Iterable[Header]) -> str | None:
    """The text in the one Authorization header, or None where there is none of the scheme Bearer.

    `headers`: all of a request, as they came, with names in lower case.

    Raises RequestError for a second such header. It also does for one that is meant to be of this
    scheme, and is not (rule 1): a reader that took two spaces, or `bearer`, would differ from one
    that does not.
    """
    credentials: bytes | None = None
    chunked = False
    for name, value in headers:
        if name == b"transfer-encoding":
            chunked = True
        if name != b"authorization":
            continue
        # Rule 1. Of two tokens one reader takes the first, another one the last.
        if credentials is not None:
            raise RequestError(400, "More than one Authorization header.")
        if chunked and _MIXING_TRAILERS in sys.modules:  # rule 4
            raise RequestError(
                400,
                "The Authorization header comes before Transfer-Encoding, or with Content-Length.",
            )
        credentials = value
    if credentials is None:
        return None

    # Rule 1: measured before it is read.
    if len(credentials) > CREDENTIALS_BYTES:
        raise RequestError(431, "The credentials are too long.")
    spelled = _bearer(credentials)
    if spelled is not None:
        return spelled[1].decode("ascii")
    if credentials and not credentials.lower().startswith(b"bearer"):
        return None  # the answer tells which scheme is taken
    raise RequestError(
        400, "The Authorization header must be the word Bearer, one space, and one token."
    )


def _refuse_misleading(name: bytes, value: bytes) -> None:
    """Raise RequestError for a header that somebody could read as more than it is.

    `name` and `value` are those of any header but the one with the token.
    """
    # Rule 3. The middleware decides on one request, and the application behind it runs another.
    if name[:1] in (b"x", b"X") and _as_lenient(name) in _OVERRIDES:
        raise RequestError(400, "A header asks the server to treat this as another request.")
    # Rule 1. A gateway would make a second header of this one, beside the one that is read here.
    if is_credential(name):
        raise RequestError(400, "The Authorization header is misspelled.")
    # Rule 2: a cookie, or a header of somebody's own.
    if b"cap" in value:
        refuse_stray(value)


def _as_lenient(name: bytes) -> bytes:
    """A header's name as the most lenient reader takes it.

    CGI and WSGI make `HTTP_AUTHORIZATION` of both, so case and hyphen are lost on them.
    """
    return name.lower().replace(b"_", b"-")


def is_credential(name: bytes) -> bool:
    """Whether somebody could take a header of this name for the one with the token.

    However it is spelled: nothing that is passed on should depend on a reader being strict.
    """
    return len(name) == _LENGTH and _as_lenient(name) == b"authorization"


def without_credentials(headers: Iterable[Header]) -> list[Header]:
    """What an application may see, and log, and pass on.

    Misspelled credentials are left out too: they are as usable elsewhere.
    """
    return [(name, value) for name, value in headers if not is_credential(name)]


def refuse_stray(data: bytes) -> None:
    """Raise RequestError for a token or a proof in a query, a form or another header (rule 2).

    Addresses are written to logs and handed on in `Referer`; a token in one is as good as public.
    Callers bound it: heads by `check_head`, forms by `FORM_BYTES`.
    """
    plain = unescaped(data)
    # The first finds a captoken, or a proof, under any name, escaped or not. The second finds the
    # parameter of RFC 6750, whatever stands in it. Plain searches go before the patterns: they are
    # fast, and nearly every request ends there.
    has_token = b"cap" in plain and _stray(plain)
    has_parameter = b"access_token=" in data and _parameter(data)
    if has_token or has_parameter:
        raise RequestError(400, "Send the token in the Authorization header, and nowhere else.")
