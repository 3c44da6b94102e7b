"""An MCP server over HTTP that says where a token is to be had: 401 with a challenge (RFC 9728).

The guard of a server answers in MCP's own words, and MCP's words travel with the status 200. A
client that could log in by itself, or refresh its token, waits for a 401. So this stands round the
application that the SDK makes. It answers requests that bring no token at all, and those whose
header has one that is no good: expired, revoked, forged.

With `step_up`, a call that the person's own link alone refuses is answered 403 here, with what the
client may ask her for (spec 44.24).

It permits nothing. Whatever it lets through comes to the guard, which looks at the token; whatever
it cannot read, it lets through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from captoken._language.bounds import MESSAGES, read_bytes
from captoken.adapters._http.exchange import (
    ASGIApp,
    Body,
    ClientGone,
    Reply,
    RequestError,
    Response,
    Scope,
    values_of,
)
from captoken.adapters._http.origins import origin_of
from captoken.adapters._http.refusals import METADATA_PATH, Refusals, metadata_of
from captoken.adapters._mcp.messages import check_crowded, has_token
from captoken.adapters._mcp.screening import Screening


class Challenging:
    """The application of an MCP server, behind challenges."""

    def __init__(
        self,
        app: ASGIApp,
        screening: Screening,
        *,
        resource: str,
        resource_metadata: str | Mapping[str, Any],
        max_body: int,
    ) -> None:
        """Raises ValueError for a `resource` that is neither https nor on this machine."""
        self._app = app
        self._screening = screening
        self._max_body = read_bytes(max_body, "max_body")

        # RFC 9728, 3.1: the path of the resource stands behind the well-known one.
        origin = origin_of(resource)
        self._metadata_path = METADATA_PATH + urlsplit(resource).path.rstrip("/")
        self._metadata: Response | None = None
        if isinstance(resource_metadata, Mapping):
            self._metadata = metadata_of(resource, resource_metadata)
            resource_metadata = origin + self._metadata_path
        self._refusals = Refusals(origin, resource_metadata)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """One request. Raises what the application raises."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        reply = Reply(scope, send)
        if self._metadata is not None and scope["path"] == self._metadata_path:
            return await reply.answer(self._metadata)

        # A stream that a client opens by GET brings no message.
        if scope["method"] != "POST":
            return await self._app(scope, receive, send)
        body = Body(receive, self._max_body)
        try:
            sent = await body.read_all()
            check_crowded(sent)
        except RequestError as problem:
            return await reply.answer(self._refusals.bad(problem))
        except ClientGone:
            return None
        # With a header of any kind it is the guard's to say.
        said = _decoded(sent)
        if self._lacks_token(said):
            if not values_of(scope["headers"], b"authorization"):
                await self._screening.note_missing()
                return await reply.answer(self._refusals.unauthenticated())
            denied = await self._screening.denial_of(scope["headers"], said)
            if denied is not None:
                return await reply.answer(self._refusals.denied(*denied))
        return await self._app(scope, body.receive, send)

    def _lacks_token(self, said: Any) -> bool:
        """Whether a message needs a token and has none in its `_meta`.

        Of several in one body, as older protocols have them, one is enough. It is looked for among
        the first; behind them it is for the guard to refuse.
        """
        messages = said[:MESSAGES] if isinstance(said, list) else [said]
        return any(self._is_bare(message) for message in messages)

    def _is_bare(self, message: Any) -> bool:
        if not isinstance(message, dict) or not isinstance(message.get("method"), str):
            return False  # an answer of the client's, or nothing of MCP's
        params = message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        return self._screening.needs_token(message["method"]) and not has_token(meta)


def _decoded(sent: bytes) -> Any:
    """What was posted, as JSON; None for what is none."""
    try:
        return msgspec.json.decode(sent)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
