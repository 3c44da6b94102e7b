"""The token of messages that come without one: what a process was started with, or a file has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

from captoken import current
from captoken._format.errors import TokenFormatError
from captoken._verification.verifier import AnyVerifier
from captoken._writing.token import Token
from captoken._writing.token_set import TokenSet
from captoken.adapters._mcp.messages import Message, NotLetIn
from captoken.current import Held
from captoken.tools import presented_to

# A module of mcp 1.x. Its messages come over the network without an HTTP request.
_WEBSOCKET = "mcp.server.websocket"


class Default(Protocol):
    """Where the token is of a message that comes without one."""

    def token_for(self, message: Message, verifier: AnyVerifier) -> str | Token | None:
        """What is shown to the verifier, or None. Raises NotLetIn."""
        ...


class ReadAgain:
    """Read for each message: whoever renews the token writes the file, and restarts nothing.

    `read` raises TokenFormatError, ValueError or OSError where there is no token.
    """

    def __init__(self, read: Callable[[], Token | TokenSet]) -> None:
        self._read = read

    def token_for(self, message: Message, verifier: AnyVerifier) -> str | Token:
        """What is shown to the verifier. Raises NotLetIn."""
        del message
        try:
            return presented_to(verifier, Held(self._read()))
        except (TokenFormatError, ValueError, OSError):
            raise NotLetIn("invalid", "The file of the token has none that can be read.") from None


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
