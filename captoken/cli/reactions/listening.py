"""Threat levels that another program sets: a webhook, signed as our own alerts are.

    POST /   {"level": "high", "why": "…", "task": "q3"}     # without task: of all
    captoken-time: 1764061200
    captoken-signature: <HMAC-SHA256 by the secret over the time, a full stop, and the body>

A message is good for 300 seconds and for one use. For that nothing is kept beside the level: each
message has to be younger than the level that it changes. So one that is sent again, or that a
slower way brings in late, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec

from captoken._format import names, primitives
from captoken._format.clocks import Clock
from captoken._format.encoding import own_words
from captoken._format.errors import StoreError
from captoken.adapters._http.exchange import (
    Body,
    ClientGone,
    Receive,
    RequestError,
    Response,
    Scope,
    Send,
    respond,
    values_of,
)
from captoken.cli.reactions.alerts import signature
from captoken.cli.reactions.watching import set_level

LIFE: Final = 300  # seconds that a message is good for, on either side of now
_MOST: Final = 4096  # bytes of a body


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody sets, and why."""

    level: Literal["low", "medium", "high"]
    why: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    task: str = ""


class Listening:
    """The application of ASGI. `path` is the file of the reactions, `secret` gives the secret.

    `said` is called with the task, the level and the reason of each that was set.
    """

    def __init__(
        self,
        path: str,
        secret: Callable[[], bytes],
        said: Callable[[str, str, str], None],
        clock: Clock,
    ) -> None:
        self._path = path
        self._secret = secret
        self._said = said
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one message."""
        if scope["type"] != "http":
            raise ValueError(f"reactions listen to HTTP, not to {scope['type']}")
        try:
            if (scope["method"], scope["path"]) != ("POST", "/"):
                raise RequestError(404, "Levels are set by POST at /.")
            self._set(scope, await Body(receive, _MOST).read_all())
            answer = Response.of(200, b"text/plain", b"It is set.")
        except RequestError as error:
            answer = Response.of(error.status, b"text/plain", error.text.encode())
        except ClientGone:
            return
        await respond(send, answer)

    def _set(self, scope: Scope, body: bytes) -> None:
        """Set what a message says. Raises RequestError. The signature is looked at first."""
        at = self._signed_at(scope, body)
        try:
            message = msgspec.json.decode(body, type=_Message)
            task = names.task(message.task) if message.task else ""
        except ValueError as error:
            raise RequestError(400, f"This is no level: {own_words(error)}.") from None
        try:
            is_set = set_level(
                self._path, task, message.level, message.why, at, if_younger=True
            )
        except StoreError:
            raise RequestError(503, "The level could not be kept. Try again.") from None
        if not is_set:
            raise RequestError(409, "What is set is as young as this, or younger.")
        self._said(task, message.level, message.why)

    def _signed_at(self, scope: Scope, body: bytes) -> int:
        """When it was signed. Raises RequestError where it was not, or not lately."""
        signatures = values_of(scope["headers"], b"captoken-signature")
        times = values_of(scope["headers"], b"captoken-time")
        refused = RequestError(401, "No signature by the secret, of the last 300 seconds.")
        if len(signatures) != 1 or len(times) != 1 or not times[0].isdigit() or len(times[0]) > 12:
            raise refused
        at = int(times[0])
        try:
            expected = signature(self._secret(), at, body)
        except (OSError, ValueError):
            raise RequestError(503, "The secret cannot be read.") from None
        is_signed = primitives.equal(expected.encode(), signatures[0])
        if not is_signed or times[0] != b"%d" % at or abs(self._clock() - at) > LIFE:
            raise refused
        return at
