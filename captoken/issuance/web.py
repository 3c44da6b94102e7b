"""HTTP requests of the clients in this package: bounded, and without redirects."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from time import monotonic
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from captoken._format.errors import IssuanceError
from captoken._format.extras import extra

PATIENCE = 10.0  # seconds for an answer, all of it
MAX_BYTES = 256 * 1024  # of an answer

# A form: a parameter has one value, or a list of them.
Form: TypeAlias = "Mapping[str, str | list[str]]"


def unavailable(what: str) -> IssuanceError:
    """The error for what may go well another time."""
    return IssuanceError(what, "temporarily_unavailable")


def is_safe(address: str) -> bool:
    """Can nobody on the way change what comes from this address?

    It is https, or of this machine. No user, since that would be a secret in a policy. A character
    that no address has is refused: readers pass over it, and a terminal may obey it.
    """
    if not address.isascii() or not address.isprintable() or " " in address:
        return False
    try:
        parts = urlsplit(address)
        is_local = parts.hostname in ("127.0.0.1", "::1", "localhost")
        # Raises for a port that is none.
        _ = parts.port
    except ValueError:
        return False

    if not parts.hostname or parts.fragment or parts.username is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_local)


class Web:
    """Requests over HTTP: no redirects, no compression, bounded in size and in time."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        # Loaded here, where nobody else does: of two threads that import at once, one can fail.
        with extra("issuance"):
            import httpx
        self._httpx = httpx

    def send(
        self,
        method: str,
        address: str,
        headers: Mapping[str, str],
        form: Form | None = None,
        most: int = MAX_BYTES,
    ) -> tuple[int, bytes]:
        """Status and body, of at most `most` bytes.

        Raises IssuanceError, `temporarily_unavailable`.
        """
        httpx = self._httpx

        # The proxies of the environment are for https, of which they can change nothing.
        is_https = address.startswith("https:")
        if is_https and self._context is None:
            self._context = httpx.create_ssl_context()

        options: dict[str, Any] = {
            "verify": self._context if is_https else False,
            "trust_env": is_https,
            "follow_redirects": False,
            "timeout": PATIENCE,
            # What is compressed has no bound before it is unpacked.
            "headers": {**headers, "accept": "application/json", "accept-encoding": "identity"},
        }

        ends = monotonic() + PATIENCE
        status, body = 0, b""
        problem: str | None = None
        try:
            with (
                httpx.Client(**options) as client,
                client.stream(method, address, data=form) as response,
            ):
                status = response.status_code

                # What is longer, or drips, is given up while it comes.
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > most or monotonic() > ends:
                        problem = "it answers with too much, or too slowly"
                        break
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # ValueError: no ASCII
            problem = type(error).__name__

        # Raised here, since that error has the request, with all that was sent.
        host = address.partition("?")[0]
        if problem is not None:
            raise unavailable(f"{host} cannot be asked: {problem}")
        if 300 <= status < 400:
            raise unavailable(f"{host} leads elsewhere, and is not followed")
        return status, body
