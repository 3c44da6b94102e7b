"""Documents of applications, fetched (draft-ietf-oauth-client-id-metadata-document).

    documents = Documents()
    application = await documents.get("https://app.example/client.json", is_named=False)

Whoever logs in chooses the address. So it leads nowhere that only this service can reach: all
addresses that its host has are public, and the connection is to one that was looked at. A second
look at the name, with another answer, would be too late. What a policy names itself may lie in a
private network, and is asked as keys are.

A document is bounded in size and time, and no redirect is followed. It is kept for five minutes,
and a failure for half a minute. One fetch for an address is under way at a time, and four in all.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from socket import SOCK_STREAM
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

from captoken._format.errors import IssuanceError
from captoken._format.extras import extra
from captoken.issuance.applications import (
    DOCUMENT_BYTES,
    Application,
    address_of,
    application_in,
    is_client_address,
)

PATIENCE = 5.0  # seconds for a fetch, all of it
FRESH = 300.0  # seconds that a document is kept
FAILED = 30.0  # seconds that a failure is kept
_KEPT = 256  # documents
_AT_ONCE = 4

# All of IPv6 that is given out for the whole world. Python takes others for it: `fec0::/10` was for
# sites, and is behind some of them still. Of these, 6to4 and Teredo stand for one of IPv4, which
# may be anything.
_WORLD = IPv6Network("2000::/3")
_EMBEDDING = tuple(map(IPv6Network, ("2002::/16", "2001::/32")))

# The addresses of a host.
Resolve: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]

# What is asked: an address, and whether the policy names it.
_Asked: TypeAlias = tuple[str, bool]


def is_public(text: str) -> bool:
    """Is it an address that anybody could reach from anywhere?"""
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and (
        address not in _WORLD or any(address in one for one in _EMBEDDING)
    ):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class _Known(NamedTuple):
    until: float
    application: Application | None
    error: IssuanceError | None


class Documents:
    """Fetches and keeps them. For one event loop.

    `resolve` gives the addresses of a host, and `permits` says which of them may be asked; the
    system, and `is_public`, unless given. `context` is for servers with certificates of a private
    authority.
    """

    def __init__(
        self,
        *,
        resolve: Resolve | None = None,
        permits: Callable[[str], bool] = is_public,
        context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._resolve = _resolved if resolve is None else resolve
        self._permits = permits
        self._context = context
        self._clock = clock
        self._known: OrderedDict[_Asked, _Known] = OrderedDict()
        self._flights: dict[_Asked, asyncio.Task[_Known]] = {}
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def get(self, address: str, *, is_named: bool) -> Application:
        """The application with this id. `is_named`: the policy names it itself.

        Raises IssuanceError: `invalid_client`, or `temporarily_unavailable`.
        """
        if not is_client_address(address):
            raise _refused("it is no address for a document")
        known = self._known.get((address, is_named))
        if known is None or known.until <= self._clock():
            flight = self._flights.get((address, is_named))
            if flight is None:
                flight = asyncio.create_task(self._fetched(address, is_named))
                self._flights[address, is_named] = flight
                flight.add_done_callback(lambda _: self._flights.pop((address, is_named), None))
            # Whoever waits may be canceled, and the fetch goes on for the others.
            await asyncio.wait((flight,))
            known = flight.result()
        if known.application is None:
            raise known.error or _refused("it is not there")
        return known.application

    async def close(self) -> None:
        """Give up what is being fetched."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fetched(self, address: str, is_named: bool) -> _Known:
        """Fetch once, and keep what came of it."""
        application: Application | None = None
        error: IssuanceError | None = None
        try:
            async with self._turn, asyncio.timeout(PATIENCE):
                data = await self._asked(address, is_named)
            application = application_in(address, data)
        except IssuanceError as refused:
            error = refused
        except TimeoutError:
            error = _unavailable(f"it did not come within {PATIENCE:.0f} s")
        except Exception as problem:  # whatever the network does: nobody logs in with it
            error = _unavailable(type(problem).__name__)
        life = FAILED if application is None else FRESH
        known = _Known(self._clock() + life, application, error)
        self._known[address, is_named] = known
        self._known.move_to_end((address, is_named))
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return known

    async def _asked(self, address: str, is_named: bool) -> bytes:
        """The document's bytes. Raises IssuanceError, and what httpx raises."""
        parts = address_of(address)
        if parts is None or (not is_named and (parts.scheme != "https" or parts.port)):
            raise _refused("it is not an https address at the usual port")
        url = address
        extensions: dict[str, Any] = {}
        if not is_named:
            # The connection is to what was looked at, and the certificate has to be for the name.
            place = await self._looked_up(parts.host.strip("[]"))
            url = f"https://{f'[{place}]' if ':' in place else place}{parts.rest}"
            extensions["sni_hostname"] = parts.host
        return await self._got(url, parts.host + parts.port, extensions, is_named)

    async def _looked_up(self, host: str) -> str:
        """An address of that host. Raises IssuanceError if any of its addresses is not public."""
        found = await self._resolve(host)
        if not found or not all(map(self._permits, found)):
            raise _refused("its host has no public address, or one that is not public")
        return found[0]

    async def _got(
        self,
        url: str,
        host: str,
        extensions: dict[str, Any],
        is_named: bool,
    ) -> bytes:
        with extra("issuance"):
            import httpx

        is_https = url.startswith("https:")
        if is_https and self._context is None:
            self._context = await asyncio.to_thread(httpx.create_ssl_context)
        headers = {"accept": "application/json", "accept-encoding": "identity", "host": host}
        async with (
            httpx.AsyncClient(
                verify=self._context if is_https and self._context is not None else False,
                # A proxy would look the name up itself.
                trust_env=is_https and is_named,
                follow_redirects=False,
                timeout=PATIENCE,
                headers=headers,
            ) as client,
            client.stream("GET", url, extensions=extensions) as response,
        ):
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.status_code != 200:
                raise _refused(f"the answer is {response.status_code}")
            if kind != "application/json" and not kind.endswith("+json"):
                raise _refused("it is not JSON")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _refused("it is compressed")
            data = b""
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > DOCUMENT_BYTES:
                    raise _refused(f"it has more than {DOCUMENT_BYTES} bytes")
        return data


async def _resolved(host: str) -> Sequence[str]:
    """The addresses of a host, by the system."""
    with suppress(ValueError):
        return [str(ip_address(host))]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, 443, type=SOCK_STREAM)
    return [str(place[0]) for *_, place in found]


def _refused(why: str) -> IssuanceError:
    return IssuanceError("the application's document cannot be used", "invalid_client", why)


def _unavailable(why: str) -> IssuanceError:
    return IssuanceError(
        "the application's document cannot be fetched now", "temporarily_unavailable", why
    )
