"""A browser on this machine logs in, and comes back to a port here (RFC 8252).

    provider = Provider.at("https://login.acme.example", "captoken-cli")
    login = provider.by_browser(max_age=28800, show=print)
    login = provider.by_device(max_age=28800, show=print)

What comes back is of this very login, and is verified as `captoken.issuance.oidc` says.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from captoken._format.errors import IssuanceError
from captoken.issuance import oidc
from captoken.issuance.oidc import PATIENCE, Attempt, Login

__all__ = ["Login", "Provider"]

_PATH = "/callback"


class Provider(oidc.Provider):
    """The same, with a browser on this machine."""

    def by_browser(
        self,
        *,
        max_age: int,
        show: Callable[[str], object],
        scope: str = "openid",
        acr: str | None = None,
        port: int = 0,
        patience: float = PATIENCE,
    ) -> Login:
        """Wait until somebody has logged in. `show` gets the address for the browser.

        `port`: of this machine, for the browser to come back to; any unless said. Raises
        IssuanceError with the provider's code, `access_denied` say.
        """
        # It listens before anybody is shown where to go.
        with _Listener(port) as listener:
            address, attempt = self.begin(listener.address, max_age=max_age, scope=scope, acr=acr)
            show(address)
            came = listener.wait(patience, attempt)
        return self.finish(attempt, came)


# --- where the browser comes back to --------------------------------------------------------------

_DONE = b"<!doctype html><title>captoken</title><p>Close this page, and go on in the terminal."
_HEAD = (
    "content-type: text/html; charset=utf-8",
    "cache-control: no-store",
    "content-security-policy: default-src 'none'",
    "referrer-policy: no-referrer",
    "connection: close",
)

# Seconds for one connection, from its first byte to our last, and how many there are at a time.
_VISIT = 5.0
_VISITS = 64

# The longest request head, in bytes. A browser also sends cookies of this machine's other ports.
_MAX_HEAD = 65_536

# What ends a visit: it is too slow, too long, or gone.
_GONE = (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


class _Listener:
    """Waits on a port of this machine for the browser with the right state, and for no other.

    What else comes by, a page that tries ports say, is answered 404 and changes nothing. Nobody who
    is slow keeps the browser waiting: all are heard at once, and of too many the oldest has to go.
    """

    def __init__(self, port: int) -> None:
        self._state = ""
        self._visits: list[asyncio.StreamWriter] = []
        self._socket = socket.create_server(("127.0.0.1", port))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}{_PATH}"

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, *_: Any) -> None:
        self._socket.close()

    def wait(self, patience: float, attempt: Attempt) -> dict[str, str]:
        """The parameters that the browser came back with. Raises IssuanceError if it does not."""
        self._state = attempt.state
        try:
            return asyncio.run(asyncio.wait_for(self._came(), patience))
        except TimeoutError:
            raise IssuanceError(
                "nobody has logged in, and it took too long", "expired_token"
            ) from None

    async def _came(self) -> dict[str, str]:
        """The same, however long it takes. What is connected then is let go of."""
        came: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

        async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found = await self._visited(reader, writer)
            if found is not None and not came.done():
                came.set_result(found)

        server = await asyncio.start_server(visited, sock=self._socket, limit=_MAX_HEAD)
        try:
            return await came
        finally:
            server.close()
            for visit in self._visits:
                visit.transport.abort()
            # They are told so in the next round of the loop.
            await asyncio.sleep(0)

    async def _visited(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> dict[str, str] | None:
        """Answer one connection. What it brought, if it is the one that is waited for."""
        self._visits.append(writer)
        if len(self._visits) > _VISITS:
            self._visits.pop(0).transport.abort()
        found: dict[str, str] | None = None
        try:
            async with asyncio.timeout(_VISIT):
                head = await reader.readuntil(b"\r\n\r\n")
                found = _sent_back(_target(head), self._state)
                status = "404 Not Found" if found is None else "200 OK"
                lines = "\r\n".join((f"HTTP/1.1 {status}", *_HEAD, "", ""))
                writer.write(lines.encode() + (b"" if found is None else _DONE))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except _GONE:
            writer.transport.abort()
        finally:
            if writer in self._visits:
                self._visits.remove(writer)

        # Whoever went away without our answer may have brought it all the same.
        return found


def _target(head: bytes) -> str:
    """What the first line of a request asks for; empty for what no browser asks."""
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    target, _, _ = rest.partition(" ")
    return target if method == "GET" else ""


def _sent_back(target: str, state: str) -> dict[str, str] | None:
    """The parameters of a request, if it is the one that is waited for."""
    parts = urlsplit(target)
    if parts.path != _PATH:
        return None

    # Each parameter once: of two, another reader may take the other.
    try:
        given = parse_qs(parts.query, strict_parsing=True, max_num_fields=16)
    except ValueError:
        return None
    if any(len(values) != 1 for values in given.values()):
        return None

    one = {name: values[0] for name, values in given.items()}
    is_ours = hmac.compare_digest(one.get("state", "").encode(), state.encode())
    return one if is_ours else None
