"""Bodies that are read, bounded, and answers in JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from captoken._format.errors import IssuanceError
from captoken._language.bounds import ISSUANCE_BYTES
from captoken.adapters._http.exchange import (
    Body,
    ClientGone,
    Receive,
    RequestError,
    Response,
    Scope,
    values_of,
)

# Somebody asks too often (RFC 6585, 4). The code is that of RFC 8628, 3.5, which clients know.
SLOW_DOWN = "slow_down"

# Of errors that are not answered with 400.
_STATUS = {
    "invalid_client": 401,
    "temporarily_unavailable": 503,
    SLOW_DOWN: 429,
}


async def form(scope: Scope, receive: Receive) -> bytes:
    """The body of a form. Raises IssuanceError for another kind, and for one that is too long."""
    return await body(
        scope,
        receive,
        b"application/x-www-form-urlencoded",
        "the body is a form",
    )


async def body(scope: Scope, receive: Receive, kind: bytes, otherwise: str) -> bytes:
    """A body of this kind. Raises IssuanceError, which says `otherwise` for another kind.

    Parameters of the kind are not looked at: each body here is read in one encoding.
    """
    kinds = values_of(scope["headers"], b"content-type")
    if [one.partition(b";")[0].strip().lower() for one in kinds] != [kind]:
        raise IssuanceError(otherwise, "invalid_request")
    try:
        return await Body(receive, ISSUANCE_BYTES).read_all()
    except RequestError:
        raise IssuanceError("the body is too long", "invalid_request") from None
    except ClientGone:
        raise IssuanceError("the body is incomplete", "invalid_request") from None


def unavailable(why: Exception) -> IssuanceError:
    """What is answered where something failed that is not the caller's. It is told no more."""
    return IssuanceError("try again later", "temporarily_unavailable", str(why))


def json(status: int, said: Any) -> Response:
    """An answer in JSON."""
    return Response.of(status, b"application/json", msgspec.json.encode(said))


def failed(error: IssuanceError, retry_after: int = 60) -> Response:
    """An error as OAuth has it (RFC 6749, 5.2): in ASCII without what its grammar does not take.

    `retry_after` are the seconds that somebody is told who asks too often.
    """
    # Another character in the place of one that may not stand in a description.
    text = "".join(
        char if " " <= char <= "~" and char not in '"\\' else "'" for char in str(error)
    )
    said = {"error": error.code, "error_description": text[:500]}
    response = json(_STATUS.get(error.code, 400), said)
    if error.code == SLOW_DOWN:
        response.headers.append((b"retry-after", b"%d" % retry_after))
    return response
