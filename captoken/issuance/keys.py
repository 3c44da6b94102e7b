"""The public keys of providers: fetched, kept, and dropped.

    keys = ProviderKeys(policy)
    await keys.start()
    opened = open_assertion(text, policy, SUBJECTS)
    await keys.want(opened.name, opened.kid)                # fetches, if necessary
    identity = identify(opened, policy, keys, now, audience)

Keys are fetched at the start, for an unknown key id, and when they are five minutes old. There is
one fetch at a time for each provider, and at most one in five seconds. So strangers who invent key
ids cost a provider no more than that.

Known keys stay valid for an hour after the last successful fetch. So a provider's outage does not
stop the service. A key that the provider withdrew is gone after the next successful fetch, or after
that hour.

The authorities of a trust domain, which certificates are checked with, are kept in the same way:
`want_authorities` fetches them, and `authorities` returns them.

Responses of a provider are limited: no redirect, no compression, 256 KB, a few seconds in total.
Keys come over https, from this machine, from a file, or from the socket of a SPIFFE agent. An
address is never taken from an assertion. Certificates for SAML are in a file, or in the policy.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from copy import copy
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, TypeAlias

from captoken._format.errors import IssuanceError
from captoken._format.extras import extra
from captoken._format.spelling import escape, shown
from captoken.issuance import certificates, signed_xml, workload_api
from captoken.issuance.jose import (
    OF_AGENT,
    OF_BUNDLE,
    OF_ISSUER,
    Key,
    KeysError,
    KeySet,
    key_set,
    read_json,
)
from captoken.issuance.policy import Policy, Provider, Saml, Spiffe
from captoken.issuance.web import is_safe

_log = logging.getLogger("captoken")

MAX_BYTES = 256 * 1024  # of a document
PATIENCE = 5.0  # seconds for a fetch, all of it
PAUSE = 5.0  # seconds between the beginnings of two fetches
FRESH = 300.0  # seconds; older keys are fetched again, while they are still used
GOOD = 3600.0  # seconds since the last good fetch, after which nothing is believed

_NOT_YET = "they were not fetched yet"

# A document of keys, as it came.
Source: TypeAlias = Callable[[], Awaitable[bytes]]


class ProviderKeys:
    """The public keys of a policy's providers.

    - `sources` say for single providers how their document of keys is had, instead of what the
      policy says: a function that is awaited, and gives its bytes.
    - `context` is for servers whose certificates are of a private authority, as those of
      Kubernetes are; the usual authorities, if there is none. It is for addresses of keys, and
      vouches for no assertion.

    Call it to look up what is known; `want` fetches before. It is for one event loop, and starts
    tasks of its own: `close` it. Raises IssuanceError, `policy`, for places where keys cannot be.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        sources: Mapping[str, Source] | None = None,
        context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._sources = dict(sources or {})
        self._web = _Web(context)
        self._clock = clock
        self._shelves: dict[str, _Shelf] = {}
        self._authorities: dict[str, _Shelf] = {}
        self.reload(policy)

    def reload(self, policy: Policy) -> None:
        """Go on with another policy. Keys of providers that it has unchanged stay known.

        Raises IssuanceError, and then the old one stands.
        """
        before = self._all()
        self._shelve(policy)

        # What nobody asks for any more is not to be fetched either.
        stay = set(self._all())
        for shelf in before:
            if shelf not in stay:
                shelf.close()

    def reloaded(self, policy: Policy) -> ProviderKeys:
        """The keys of another policy, beside these, which stay as they are.

        Those of providers that it has unchanged are the same. Raises IssuanceError.
        """
        made = copy(self)
        made._shelve(policy)
        return made

    def _shelve(self, policy: Policy) -> None:
        """A place for the keys of each provider: the one that there is, where it is as it was.

        Raises IssuanceError, and then nothing has changed.
        """
        shelves: dict[str, _Shelf] = {}
        authorities: dict[str, _Shelf] = {}
        for name, provider in policy.providers.items():
            new = self._new_keys(name, provider)
            shelves[name] = _kept(self._shelves.get(name), new)
            if isinstance(provider, Spiffe) and provider.x509_bundle is not None:
                new = self._new_authorities(name, provider, provider.x509_bundle)
                authorities[name] = _kept(self._authorities.get(name), new)

        # Both at once, and only after nothing raised.
        self._shelves, self._authorities = shelves, authorities

    def _new_keys(self, name: str, provider: Provider) -> _Shelf:
        """A place for the keys of a provider. Raises IssuanceError for one where none can be."""
        where = _place(provider)
        source = self._sources.get(name) or self._source(name, where[0], provider)
        return _Shelf(name, where, source, _reader(provider), self._clock)

    def _new_authorities(self, name: str, provider: Spiffe, bundle: str) -> _Shelf:
        """A place for the authorities of a trust domain. Raises IssuanceError likewise.

        `sources` are for keys alone, and say nothing of these.
        """
        source = self._source(name, bundle, provider, of_x509=True)
        where = (bundle, provider.trust_domain)
        return _Shelf(f"{name}, x509", where, source, certificates.read_bundle, self._clock)

    def _source(
        self,
        name: str,
        place: str | None,
        provider: Provider,
        of_x509: bool = False,
    ) -> Source:
        """How what is at a place is had, by the policy. Raises IssuanceError.

        Nothing is fetched yet, and a file need not be there yet.
        """
        if place is None:
            _, issuer = _place(provider)
            return lambda: self._web.discovered(issuer)
        if isinstance(provider, Saml) and signed_xml.is_pem(place):
            return partial(_given, place)
        if isinstance(provider, Spiffe) and place.startswith("unix:///"):
            fetch = workload_api.x509_bundle if of_x509 else workload_api.bundle
            return partial(fetch, place, provider.trust_domain)
        if "://" not in place:
            return lambda: asyncio.to_thread(_file, place)
        if not is_safe(place):
            raise IssuanceError(
                f"the policy does not load: provider.{name}: keys must be at an https address, in "
                f"a file, or for spiffe at unix:///, not {shown(place)}",
                "policy",
            )
        return lambda: self._web.get(place)

    async def start(self) -> dict[str, str]:
        """Fetch the keys of all providers, at once. Gives `problems`; never raises for one."""
        await asyncio.gather(*(shelf.fetched() for shelf in self._all()))
        return self.problems

    def _all(self) -> list[_Shelf]:
        """The places of keys and of authorities."""
        return [*self._shelves.values(), *self._authorities.values()]

    @property
    def problems(self) -> dict[str, str]:
        """Providers whose keys could not be had at the last try, and why. For people."""
        return {shelf.name: shelf.problem for shelf in self._all() if shelf.problem}

    def __call__(self, provider: str, kid: str) -> Key | None:
        """The key, if it is known and still good. Fetches nothing."""
        shelf = self._shelves.get(provider)
        return shelf.key(kid) if shelf is not None else None

    async def want(self, provider: str, kid: str) -> None:
        """Fetch keys, if this one is not known, and a fetch is due.

        Then it may be known, or not: look it up. Raises IssuanceError, `temporarily_unavailable`,
        if nobody can tell, because the last fetch failed.
        """
        shelf = self._shelves.get(provider)
        if shelf is None:  # gone with a reload
            return
        if shelf.key(kid) is not None:
            shelf.renew()
            return
        await shelf.fetched()
        if shelf.problem:
            raise IssuanceError(
                "this service cannot get the keys of the assertion's issuer now",
                "temporarily_unavailable",
                f"provider {provider}: {shelf.problem}",
            )

    def authorities(self, provider: str) -> Key | None:
        """The authorities of a trust domain, if they are known and still good. Fetches nothing."""
        shelf = self._authorities.get(provider)
        return shelf.key(certificates.AUTHORITIES) if shelf is not None else None

    async def want_authorities(self, provider: str, *, anew: bool = False) -> None:
        """Fetch authorities, if none are known, or with `anew`, and a fetch is due.

        Then they may be known, or not: look them up. Raises IssuanceError,
        `temporarily_unavailable`, if none are known, and the last fetch failed.
        """
        shelf = self._authorities.get(provider)
        if shelf is None:  # gone with a reload
            return
        if not anew and shelf.key(certificates.AUTHORITIES) is not None:
            shelf.renew()
            return
        await shelf.fetched()
        if shelf.problem and shelf.key(certificates.AUTHORITIES) is None:
            raise IssuanceError(
                "this service cannot get the authorities of the certificate's trust domain now",
                "temporarily_unavailable",
                f"provider {shelf.name}: {shelf.problem}",
            )

    async def close(self) -> None:
        """Give up what is being fetched."""
        closed = [shelf.close() for shelf in self._all()]
        flights = [flight for flight in closed if flight is not None]
        # What a fetch that was given up raises is nobody's.
        await asyncio.gather(*flights, return_exceptions=True)


def _place(provider: Provider) -> tuple[str | None, str]:
    """Where the keys of a provider are, and what it is known as.

    None: where its discovery document says. While both stay so, its known keys are its keys.
    """
    if isinstance(provider, Spiffe):
        return provider.bundle, provider.trust_domain
    if isinstance(provider, Saml):
        return provider.certificates, signed_xml.CERTIFICATES  # whatever its entity ID is
    return provider.jwks, provider.issuer


def _reader(provider: Provider) -> Callable[[bytes], KeySet]:
    """What makes keys of its document: by the `use` that keys have where they come from."""
    if isinstance(provider, Saml):
        return signed_xml.certificates
    uses: tuple[str | None, ...] = OF_ISSUER
    if isinstance(provider, Spiffe):
        uses = OF_AGENT if provider.bundle.startswith("unix:///") else OF_BUNDLE
    return partial(key_set, uses=uses)


def _kept(before: _Shelf | None, new: _Shelf) -> _Shelf:
    """What is known already, while its place stays."""
    return before if before is not None and before.place == new.place else new


class _Shelf:
    """The keys of one provider, and the one task that fetches them."""

    def __init__(
        self,
        name: str,
        place: tuple[str | None, str],
        source: Source,
        read: Callable[[bytes], KeySet],
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.place = place

        # Why the last fetch gave no keys. Empty, if it gave some.
        self.problem = _NOT_YET
        self._source = source
        self._read = read
        self._clock = clock

        # Replaced as a whole, by a good fetch alone.
        self._set = KeySet({})
        self._fetched: float | None = None  # when a good fetch ended
        self._begun: float | None = None  # when the last fetch began
        self._flight: asyncio.Task[None] | None = None

    def key(self, kid: str) -> Key | None:
        """The key, unless what is known is too old."""
        return None if self._age >= GOOD else self._set.keys.get(kid)

    def renew(self) -> None:
        """Begin a fetch if what is known is no longer fresh. Nobody waits for it."""
        if self._age >= FRESH:
            self._begin()

    @property
    def _age(self) -> float:
        """Seconds since the last good fetch; endless, if there was none."""
        return inf if self._fetched is None else self._clock() - self._fetched

    async def fetched(self) -> None:
        """Wait for the fetch that is under way, or for a new one if one is due."""
        flight = self._begin()
        if flight is not None:
            # Whoever waits may be canceled, and the fetch goes on for the others. Nor is a fetch
            # that is given up told as if the one who waits were.
            await asyncio.wait((flight,))

    def _begin(self) -> asyncio.Task[None] | None:
        """The fetch that is under way. None: the last one has only just begun, and is over."""
        if self._flight is not None and not self._flight.done():
            return self._flight
        now = self._clock()
        if self._begun is not None and now - self._begun < PAUSE:
            return None
        self._begun = now
        self._flight = asyncio.create_task(
            self._fetch(),
            name=f"keys of {self.name}",
        )
        return self._flight

    async def _fetch(self) -> None:
        """Fetch once. What fails leaves what is known, and that grows old. Raises nothing."""
        problem = ""
        try:
            async with asyncio.timeout(PATIENCE):
                data = await self._source()

            # A source of the embedder bounds nothing.
            if len(data) > MAX_BYTES:
                raise KeysError(f"the document has more than {MAX_BYTES} bytes")
            # Hundreds of keys take a while, and so does the first import of a library.
            found = await asyncio.to_thread(self._read, data)
        except TimeoutError:
            problem = f"they did not come within {PATIENCE:.0f} s"
        except Exception as error:  # whatever a source raises: known keys must outlive it
            problem = str(error) or type(error).__name__
        else:
            self._keep(found)
            if not found.keys:  # all are withdrawn, and that is believed
                problem = "the document has no key for signatures"
        self._note(problem)

    def _keep(self, found: KeySet) -> None:
        """What was found is what is known, and tell of keys that are newly refused."""
        self._tell([one for one in found.refused if one not in self._set.refused])
        self._set = found
        self._fetched = self._clock()

    def _note(self, problem: str) -> None:
        """How the last fetch went. Told once, and not each time that it is tried."""
        if problem and problem != self.problem:
            self._tell([problem])
        if not problem and self.problem not in ("", _NOT_YET):
            self._tell(["can be had again"])
        self.problem = problem

    def _tell(self, what: Iterable[str]) -> None:
        """Log what changed. The text may be a stranger's: it is escaped."""
        for one in what:
            _log.warning("the keys of provider %s: %s", self.name, escape(one))

    def close(self) -> asyncio.Task[None] | None:
        """Give up a fetch that is under way, and return it."""
        if self._flight is not None:
            self._flight.cancel()
        return self._flight


# --- where keys come from -------------------------------------------------------------------------


async def _given(text: str) -> bytes:
    """What stands in the policy itself."""
    return text.encode()


def _file(path: str) -> bytes:
    """What is in a file, or of one that is too large somewhat too much. Raises OSError."""
    with Path(path).open("rb") as file:
        return file.read(MAX_BYTES + 1)


class _Web:
    """Documents over HTTP: bounded in size, and by the caller in time."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context

    async def discovered(self, issuer: str) -> bytes:
        """The keys of an issuer, by its discovery document (OpenID Connect Discovery, 4).

        Raises KeysError, JoseError, and what httpx raises.
        """
        address = f"{issuer.removesuffix('/')}/.well-known/openid-configuration"
        document = read_json(await self.get(address))

        # Otherwise one issuer could answer for another (4.3).
        if document.get("issuer") != issuer:
            raise KeysError(f"the discovery document is of another issuer, not of {issuer}")

        place = document.get("jwks_uri")
        if type(place) is not str or not is_safe(place):
            raise KeysError("the discovery document has no jwks_uri that is an https address")
        # This machine's addresses are for issuers that are on it.
        if place.startswith("http:") and not issuer.startswith("http:"):
            raise KeysError("the discovery document leads from https to http")
        return await self.get(place)

    async def get(self, address: str) -> bytes:
        """A document. Raises KeysError, and what httpx raises. The caller bounds the time."""
        with extra("issuance"):
            import httpx

        # The proxies of the environment are for https, of which they can change nothing.
        is_https = address.startswith("https:")
        if is_https and self._context is None:
            # It reads the authorities, which takes a while.
            self._context = await asyncio.to_thread(httpx.create_ssl_context)
        options: dict[str, Any] = {
            "verify": self._context if is_https else False,
            "trust_env": is_https,
            # A redirect would lead to an address that nobody has looked at.
            "follow_redirects": False,
            "timeout": PATIENCE,
            # What is compressed has no bound before it is unpacked.
            "headers": {"accept": "application/json", "accept-encoding": "identity"},
        }
        async with (
            httpx.AsyncClient(**options) as client,
            client.stream("GET", address) as response,
        ):
            if response.status_code != 200:
                raise KeysError(f"{address} answers {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise KeysError(f"{address} answers with what is compressed")

            # In pieces, so that no more is held than what is too much.
            data = b""
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MAX_BYTES:
                    raise KeysError(f"{address} answers with more than {MAX_BYTES} bytes")
        return data
