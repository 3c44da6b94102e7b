"""For httpx and httpx2: each request gets a token made for its server and the call (docs/http.md).

    client = httpx.Client(auth=auth({"https://api.example": "sales-api"}))

AsyncClient and httpx2 take the same.

1. A token goes to the origins that are listed, over https or on this machine, and to no other one:
   NoToken.
2. What goes is presented to that server's name, and lives a minute. The token that is held never
   leaves.
3. A request that carries credentials already is refused: two are one too many.
4. Where the token is bound, a proof goes along. It covers the body, which therefore has to be there
   at once.

It is a plain callable, since neither library takes the other's `Auth`. It is asked once a call: a
redirect that the client follows goes without a new token. Within the origin, and from port 80 to
https, the same one goes along, and a proof is then refused. To another origin both libraries drop
the token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from captoken import current
from captoken import proof as request
from captoken._format import names
from captoken._format.clocks import Seconds
from captoken._format.errors import NoToken
from captoken._format.spelling import shown
from captoken._writing.keywords import PresentCaveats
from captoken._writing.token import Token
from captoken.adapters._http.origins import own_origin, spelled, target_of
from captoken.current import Held

_R = TypeVar("_R", bound=Any)  # a Request of either library
# An origin of http on its own port.
_plain_origin = re.compile(r"http://([^:]+|\[.+\])").fullmatch


def auth(
    servers: Mapping[str, str],
    *,
    held: Held | Token | None = None,
    narrow: Callable[[Any], PresentCaveats | None] | None = None,
    expires_in: Seconds = 60,
) -> Callable[[_R], _R]:
    """What `auth=` of a client or of a call takes.

        def narrow(request):
            return {"operations": ["select"]} if request.method == "GET" else None

        client = httpx.Client(auth=auth(servers, narrow=narrow))

    `servers`: from origins (`https://api.example`) to audiences.
    `held`: the token, else the one that is current at each request.
    `narrow(request)`: the caveats that this request can do with, as keywords of `present`; None for
    no more.
    `expires_in`: seconds, at most.

    Raises ValueError for an origin that is none, is neither https nor on this machine, or is
    spelled unlike browsers do. Also for one of http on its own port, unless that of https is listed
    as well.
    The callable raises NoToken, ValueError for a request with credentials or with a body that is
    not there yet, and what `Held.present` raises. It does not verify the token, nor what the server
    is beyond what TLS does.
    """
    audiences = {
        own_origin(origin): names.name(audience, "audience") for origin, audience in servers.items()
    }
    _refuse_redirects_beyond(audiences)

    def present(asked: _R) -> _R:
        origin = _origin_of(asked.url)
        audience = audiences.get(origin)
        if audience is None:  # rule 1
            raise NoToken(f"no token goes to {shown(origin)}: it is not among the servers")
        _refuse_second_credentials(asked)  # rule 3
        mine = current.holding(held)
        digest = None
        if mine.signer is not None and mine.token.unverified.key is not None:
            digest = _digest(asked, origin)  # rule 4
        caveats: PresentCaveats = (narrow(asked) if narrow is not None else None) or {}
        presented = mine.present(  # rule 2
            audience=audience, request=digest, expires_in=expires_in, **caveats
        )
        asked.headers["Authorization"] = f"Bearer {presented.text}"
        if presented.proof is not None:
            asked.headers["Captoken-Proof"] = presented.proof
        _add_trace(asked)
        return asked

    return present


def _refuse_redirects_beyond(origins: Collection[str]) -> None:
    """Raise ValueError where a redirect would take the token to an origin that is not listed.

    Both libraries keep the header when a server redirects from http to https on the same host.
    """
    for origin in origins:
        redirected = origin.replace("http", "https", 1)
        if _plain_origin(origin) and redirected not in origins:
            raise ValueError(
                f"{origin} can redirect to https, and both libraries take the token there: "
                "list that too"
            )


def _refuse_second_credentials(asked: Any) -> None:
    """Raise ValueError for a request that shows something already.

    It may be the client's own header, or a request that is sent again after a redirect.
    """
    if "authorization" in asked.headers or "captoken-proof" in asked.headers:
        raise ValueError(
            "the request has credentials already: build it anew, or leave them to captoken"
        )


def _add_trace(asked: Any) -> None:
    """Let the request say which trace it belongs to, unless it says so itself."""
    trace = current.traceparent()
    if trace is not None and "traceparent" not in asked.headers:
        asked.headers["traceparent"] = trace


def _origin_of(url: Any) -> str:
    """Scheme, host and port of a URL of either library, which have normalised them."""
    return spelled(url.scheme, url.raw_host.decode("ascii"), url.port)


def _digest(asked: Any, origin: str) -> bytes:
    """What a proof is about: the request as it will stand on the wire.

    Raises ValueError where that is not known yet.
    """
    if "target" in asked.extensions:
        raise ValueError("a proof cannot be made for a request that is sent under another target")
    try:
        body = asked.content
    except RuntimeError:  # both libraries' RequestNotRead
        raise ValueError(
            "the token is bound to a key, and a proof covers the body: call request.read() first"
        ) from None
    path, _, query = asked.url.raw_path.partition(b"?")
    return request.of_http(asked.method, origin, target_of(path, query), body)
