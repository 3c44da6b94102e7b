"""For httpx and httpx2: each request gets a token made for its server and the call (docs/http.md).

    client = httpx.Client(auth=auth({"https://api.example": "sales-api"}))

AsyncClient and httpx2 accept the same.

1. A token goes only to the listed origins, over https or on this machine. For any other it raises
   NoToken.
2. The token that is held is never sent. What is sent is presented to that server's name, and valid
   for one minute.
3. A request that already carries credentials is refused. If the credentials are from here, because
   the request is sent again, they are replaced.
4. If the token is bound to a key, the text ends in a proof. The proof covers the body, so the whole
   body must be available at once. The text can be sent once.

It is a plain callable, because neither library accepts the other's `Auth`. As `auth=` it runs once
a call: a redirect that the client follows gets no new token. Within the origin, and from port 80 to
https, the client sends the same text again, and its proof is then refused. Both libraries remove
the token on a redirect to another origin. As a hook it runs for each request that is sent,
redirects included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar

from captoken import current
from captoken._format import names
from captoken._format.clocks import Seconds
from captoken._format.errors import NoToken, Refused, WideningError
from captoken._format.names import frozen_copy
from captoken._format.primitives import equal, sha256
from captoken._format.spelling import shown
from captoken._writing.keywords import PresentCaveats
from captoken.adapters._http.origins import own_origin, spelled, target_of
from captoken.adapters._refused import decision_named, refused_here, refused_there
from captoken.current import AnyHeld
from captoken.proof import http_request

_R = TypeVar("_R", bound=Any)  # a Request of either library
# An origin of http on its own port.
_plain_origin = re.compile(r"http://([^:]+|\[.+\])").fullmatch
_PRESENTED = "captoken.presented"  # in a request's extensions: a _Presented

# The kind of a denial, by the error of RFC 6750 that our guards say.
_KINDS = {
    "invalid_token": "invalid",
    "insufficient_scope": "insufficient",
    "temporarily_unavailable": "unavailable",
}


class _Presented(NamedTuple):
    """What was presented for a request. The request of a redirect has it too."""

    digest: bytes  # SHA-256 of the credentials
    proven: bool  # with a proof, so that the body was there


def auth(
    servers: Mapping[str, str],
    *,
    held: AnyHeld | None = None,
    narrow: Callable[[Any], PresentCaveats | None] | None = None,
    expires_in: Seconds = 60,
) -> Presenting:
    """What `auth=` of a client or of a call takes, or its hooks.

        def narrow(request):
            return {"operations": ["select"]} if request.method == "GET" else None

        client = httpx.Client(auth=auth(servers, narrow=narrow))

        shown = auth(servers)  # for a client that follows redirects, under a token that is bound
        client = httpx.Client(event_hooks={"request": [shown]}, follow_redirects=True)
        client = httpx.AsyncClient(event_hooks={"request": [shown.hook]}, follow_redirects=True)

    `servers`: from origins (`https://api.example`) to audiences.
    `held`: the token. Left out, it is the one that is current at each request.
    `narrow`: a function of the request, to the caveats that it can do with, or None. They are
    keywords of `present`. Unless said, all that is held goes, for that server.
    `expires_in`: what is presented is good for so long, in seconds or as `5m`; 60 unless said.

    Raises ValueError for an origin that is none, is neither https nor on this machine, or is
    spelled unlike browsers do. Also for one of http on its own port, unless that of https is listed
    as well. The callable raises NoToken, and what `Held.present` raises. It raises Refused for
    caveats of `narrow` that are not held, before anything is sent. It raises ValueError for a
    request with credentials of somebody else's, or with a body that is not there yet. It does not
    verify the token, nor what the server is beyond what TLS does.
    """
    audiences = {
        own_origin(origin): names.name(audience, "audience")
        for origin, audience in frozen_copy(servers, "servers").items()
    }
    _refuse_redirects_beyond(audiences)
    return Presenting(audiences, held, narrow, expires_in)


class Presenting:
    """Presents to the server of each request: `auth` makes it."""

    def __init__(
        self,
        audiences: Mapping[str, str],
        held: AnyHeld | None,
        narrow: Callable[[Any], PresentCaveats | None] | None,
        expires_in: Seconds,
    ) -> None:
        self._audiences = audiences
        self._held = None if held is None else current.holding(held)
        self._narrow = narrow
        self._expires_in = expires_in

    def __call__(self, asked: _R) -> _R:
        """The same request, with a text for its server."""
        # Either library has normalised them.
        url = asked.url
        origin = spelled(url.scheme, url.raw_host.decode("ascii"), url.port)
        audience = self._audiences.get(origin)
        if audience is None:  # rule 1
            raise NoToken(
                f"captoken sends no token to {shown(origin)}: it is not among the servers"
            )
        _refuse_second_credentials(asked)  # rule 3
        mine = current.holding(self._held).at(audience)
        proven = mine.key is not None
        digest = _digest(asked, origin) if proven else None  # rule 4
        caveats: PresentCaveats = self._caveats_for(asked)
        try:
            text = mine.present(  # rule 2
                audience=audience,
                request=digest,
                expires_in=self._expires_in,
                **caveats,
            )
        except WideningError as widening:
            raise refused_here(widening, None, None) from widening
        credentials = f"Bearer {text}"
        _put(asked, credentials)
        asked.extensions[_PRESENTED] = _Presented(sha256(credentials.encode()), proven)
        _add_trace(asked)
        return asked

    async def hook(self, asked: Any) -> None:
        """The same, for the hooks of an AsyncClient, which are awaited."""
        self(asked)

    def _caveats_for(self, asked: Any) -> PresentCaveats:
        """The caveats that this request can do with; none if nobody says."""
        if self._narrow is None:
            return {}
        return self._narrow(asked) or {}


def raise_if_refused(answered: _R) -> _R:
    """The answer, if no guard of ours has refused the request. Else raises Refused.

        result = raise_if_refused(client.get("/sales")).json()
        client = httpx.Client(auth=shown, event_hooks={"response": [raise_if_refused]})

    `error.for_model` is what the model may be told: the server's own words for it. A body that was
    not read yet is read; that of an AsyncClient's stream is not there, and then it is no refusal.
    Any other error of the server's passes: `raise_for_status` is for that.
    """
    if _is_problem(answered):
        answered.read()
        _raise_refused(answered.content)
    return answered


async def raise_if_refused_async(answered: Any) -> None:
    """The same, for the hooks of an AsyncClient, which are awaited."""
    if _is_problem(answered):
        await answered.aread()
        _raise_refused(answered.content)


def _is_problem(answered: Any) -> bool:
    """Whether an answer may be a refusal of our guard's (RFC 9457)."""
    kind: str = answered.headers.get("content-type", "")
    return answered.status_code >= 400 and kind == "application/problem+json"


def _raise_refused(body: bytes) -> None:
    """Raise Refused for a problem that has words for a model. Any other is not ours."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(said, dict):
        return
    kind = _KINDS.get(str(said.get("error")))
    told = said.get("for_model")
    if kind is None or not isinstance(told, str):
        return
    refused = refused_there("insufficient", told, asked=said.get("consent_request"))
    number = decision_named(said.get("decision"))
    text = f"the server refused it: {said.get('detail')}{number}"
    raise Refused(text, refused.for_model, kind=kind, request=refused.request)


def _put(asked: Any, credentials: str) -> None:
    """Let the request have these credentials, in a header in front of `Transfer-Encoding`.

    Behind that, some servers show headers and trailers alike, and our guard refuses a token there.
    """
    coding = asked.headers.pop("Transfer-Encoding", None)
    asked.headers["Authorization"] = credentials
    if coding is not None:
        asked.headers["Transfer-Encoding"] = coding


def _refuse_redirects_beyond(origins: Collection[str]) -> None:
    """Raise ValueError where a redirect would take the token to an origin that is not listed.

    Both libraries keep the header when a server redirects from http to https on the same host.
    """
    for origin in origins:
        redirected = origin.replace("http", "https", 1)
        if _plain_origin(origin) and redirected not in origins:
            raise ValueError(
                f"{origin} can redirect to https, and the client would send the token there: list "
                "that origin too"
            )


def _refuse_second_credentials(asked: Any) -> None:
    """Raise ValueError for a request that shows something which was not presented here.

    It may be the client's own header. What was presented here is there when a request is sent
    again, or is built by a client that follows a redirect; it gives way.
    """
    found = asked.headers.get("authorization")
    if found is not None and not _is_own(asked, found):
        raise ValueError(
            "the request already has credentials: build a new one, or leave credentials to captoken"
        )


def _is_own(asked: Any, credentials: str) -> bool:
    """Whether these credentials were presented here, for this request or what led to it."""
    presented = asked.extensions.get(_PRESENTED)
    if not isinstance(presented, _Presented):
        return False
    return equal(presented.digest, sha256(credentials.encode()))


def _add_trace(asked: Any) -> None:
    """Let the request say which trace it belongs to, unless it says so itself."""
    trace = current.traceparent()
    if trace is not None and "traceparent" not in asked.headers:
        asked.headers["traceparent"] = trace


def _digest(asked: Any, origin: str) -> bytes:
    """What a proof is about: the request as it will stand on the wire.

    Raises ValueError where that is not known yet.
    """
    if "target" in asked.extensions:
        raise ValueError(
            "captoken cannot make a proof for a request that is sent under another target"
        )
    path, _, query = asked.url.raw_path.partition(b"?")
    return http_request(asked.method, origin, target_of(path, query), _body_of(asked))


def _body_of(asked: Any) -> bytes:
    """The body, if it is there. Raises ValueError."""
    before = asked.extensions.get(_PRESENTED)
    if isinstance(before, _Presented) and before.proven:
        # The request of a redirect has the body of the one before it, which was there when a proof
        # was made of it.
        asked.read()
    try:
        body: bytes = asked.content
    except RuntimeError:  # both libraries' RequestNotRead
        raise ValueError(
            "the token is bound to a key, and a proof covers the body: call request.read() first"
        ) from None
    return body
