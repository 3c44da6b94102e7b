"""The token that a process was started with, for messages that come without one."""

from __future__ import annotations

import sys

from captoken import current
from captoken._verification.verifier import AnyVerifier
from captoken._writing.token import Token
from captoken.adapters._mcp.messages import Message
from captoken.tools import presented_to

# A module of mcp 1.x. Its messages come over the network without an HTTP request.
_WEBSOCKET = "mcp.server.websocket"


class StartedWith:
    """Taken out of the environment at once, so that no process that is started here inherits it.

    It is for whoever started the process, and for nobody who comes over a network: they would act
    as that one.
    """

    def __init__(self) -> None:
        with current.from_environment() as held:
            self._held = held

    def token_for(self, message: Message, verifier: AnyVerifier) -> str | Token | None:
        """What is shown to the verifier for a message without a token, or None."""
        # It came over HTTP, or nobody can say that it did not (`headers_of`).
        if message.headers is not None:
            return None
        if _WEBSOCKET in sys.modules:
            return None
        return presented_to(verifier, self._held)
