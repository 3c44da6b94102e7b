"""Bodies that are read, bounded, and answers in JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from captoken._format.errors import IssuanceError
from captoken.adapters._http.exchange import (
    Body,
    ClientGone,
    Receive,
    RequestError,
    Response,
    Scope,
    values_of,
)
from captoken.adapters._issuance.form import BODY_BYTES

_STATUS = {"invalid_client": 401, "temporarily_unavailable": 503}


async def form(scope: Scope, receive: Receive) -> bytes:
    """The body of a form. Raises IssuanceError for another kind, and for one that is too long."""
    return await body(scope, receive, b"application/x-www-form-urlencoded", "the body is a form")


async def body(scope: Scope, receive: Receive, kind: bytes, otherwise: str) -> bytes:
    """A body of this kind. Raises IssuanceError, which says `otherwise` for another kind."""
    kinds = values_of(scope["headers"], b"content-type")
    named = [one.partition(b";")[0].strip().lower() for one in kinds]
    if named != [kind]:
        raise IssuanceError(otherwise, "invalid_request")
    try:
        return await Body(receive, BODY_BYTES).read_all()
    except RequestError:
        raise IssuanceError("the body is too long", "invalid_request") from None
    except ClientGone:
        raise IssuanceError("not all of it came", "invalid_request") from None


def json(status: int, said: Any) -> Response:
    return Response.of(status, b"application/json", msgspec.json.encode(said))


def failed(error: IssuanceError) -> Response:
    """An error as OAuth has it (RFC 6749, 5.2): in ASCII without what its grammar does not take."""
    text = "".join(char if " " <= char <= "~" and char not in '"\\' else "'" for char in str(error))
    said = {"error": error.code, "error_description": text[:500]}
    return json(_STATUS.get(error.code, 400), said)
