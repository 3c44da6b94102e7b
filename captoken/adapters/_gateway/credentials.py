"""The key of a service: where it comes from, and where it stands in a request. Secret throughout.

    source = source_of("file:stripe.key", life=60, folder=folder)
    secret = await source.read()                 # Unavailable
    writer_of("bearer", user="").write(secret, outgoing)

A `Source` gives the key at use; a `Writer` puts it into what goes out. Whatever else a service
wants is a further one of either.
"""

from __future__ import annotations

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from captoken._format import primitives
from captoken._format.errors import KeyringError
from captoken._format.sealed import SealedValue
from captoken._format.spelling import shown_file
from captoken.adapters._gateway.written import Outgoing
from captoken.keys.files import read_private

_log = logging.getLogger("captoken.gateway")

# Seconds after which a key that its service does not take is asked for anew.
PAUSE = 10

# Sources of which a server is asked: see `issued`.
ISSUED = ("oauth", "openbao")


class Unavailable(Exception):  # noqa: N818, the name reads as what it is
    """The key cannot be had now. What it says is for the operator, and has nothing of the key."""


class Secret(SealedValue, frozen=True, eq=False):
    """A key as its service spells it."""

    text: str


class Source(Protocol):
    """Where the key of a service comes from."""

    async def read(self) -> Secret:
        """The key as it is now. Raises Unavailable."""
        ...

    def forget(self) -> None:
        """The service does not take it: one that is kept is asked for anew."""
        ...


SECRET_OF_PROXY = "the secret of the proxy"  # noqa: S105, words of the log


async def is_secret(source: Source, given: bytes, whose: str) -> bool:
    """Is it the secret that a source gives? No, where that cannot be had: the log says whose."""
    try:
        secret = await source.read()
    except Unavailable as problem:
        _log.error("%s cannot be had: %s", whose, problem)
        return False
    return primitives.equal(given, secret.text.encode())


class Writer(Protocol):
    """Where the key of a service stands in a request."""

    # In small letters: what clients send under that name does not go on.
    header: str

    # The field of a query, or empty.
    field: str

    # A coding of bodies that the service's clients use, and that is taken off.
    coding: bytes

    def hidden(self, secret: Secret) -> tuple[Secret, ...]:
        """What of a key must be in no answer. Raises Unavailable for what is no key here."""
        ...

    def write(self, secret: Secret, outgoing: Outgoing) -> None:
        """Put it there."""
        ...


# --- sources --------------------------------------------------------------------------------------


class EnvironmentSource:
    """A variable of the environment that the gateway was started with."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def read(self) -> Secret:
        found = os.environ.get(self._name)
        if not found:
            raise Unavailable(f"the variable {self._name} is not set")
        return checked(found)

    def forget(self) -> None:
        """Nothing is kept."""


def read_key(path: Path) -> Secret:
    """The key that is in a file. Raises Unavailable, also for a file that others can read."""
    try:
        return checked(read_private(path).decode("ascii").strip())
    except KeyringError as error:
        raise Unavailable(str(error)) from None
    except UnicodeDecodeError:
        raise Unavailable(f"{shown_file(path)} cannot be read as a key") from None


def looks_of(path: Path) -> tuple[int, ...]:
    """What a file looks like from outside. Raises OSError for one that is not there.

    With its rights: one that others can read by now holds no key any more.
    """
    found = os.stat(path)
    return found.st_mode, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


class FileSource:
    """A file, read again once it has changed. White space around the key is not part of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._secret: Secret | None = None

    async def read(self) -> Secret:
        try:
            looks = looks_of(self._path)
            if self._secret is None or looks != self._seen:
                self._secret = None
                self._secret = read_key(self._path)
                self._seen = looks
        except OSError:
            self._secret = None
            raise Unavailable(f"{shown_file(self._path)} cannot be read as a key") from None
        return self._secret

    def forget(self) -> None:
        """A file that has not changed has nothing else."""


class KeptSource(ABC):
    """Base of sources that ask somebody, and keep what they are told for its time.

    Many that read at once ask once. A key that cannot be had is not replaced by one before it.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._until = 0.0
        self._secret: Secret | None = None
        self._asking: asyncio.Task[Secret] | None = None

    @abstractmethod
    async def ask(self) -> tuple[Secret, float]:
        """The key, and for how many seconds it is good. Raises Unavailable."""

    async def read(self) -> Secret:
        if self._secret is not None and monotonic() < self._until:
            return self._secret
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._renew())
        # Whoever goes away ends its own waiting alone: what was told is kept for the others.
        return await asyncio.shield(self._asking)

    async def _renew(self) -> Secret:
        self._secret = None
        self._since = monotonic()
        self._secret, seconds = await self.ask()
        self._until = monotonic() + seconds
        return self._secret

    def forget(self) -> None:
        # An agent may bring about such answers: it does not make us ask at each of them.
        if monotonic() - self._since > PAUSE:
            self._until = 0.0


class KeyringSource(KeptSource):
    """An entry of the system's keyring, by the library of that name. Kept for `life` seconds."""

    def __init__(self, service: str, user: str, life: float) -> None:
        super().__init__()
        self._service = service
        self._user = user
        self._life = life

    async def ask(self) -> tuple[Secret, float]:
        found = await asyncio.to_thread(self._ask)
        if not found:
            raise Unavailable(f"the keyring has no entry {self._service}, {self._user}")
        return checked(found), self._life

    def _ask(self) -> str | None:
        try:
            keyring: Any = import_module("keyring")
        except ImportError:
            raise Unavailable("the library is not there: pip install keyring") from None
        try:
            found: str | None = keyring.get_password(self._service, self._user)
        except Exception as error:  # each backend has errors of its own
            raise Unavailable(f"the keyring does not answer: {type(error).__name__}") from None
        return found


def checked(text: Any) -> Secret:
    """A key that can stand in a header. Raises Unavailable."""
    is_spelled = type(text) is str and text.isascii() and text.isprintable()
    if not is_spelled or not text or text != text.strip():
        raise Unavailable("the key is empty, or has a character that no header has")
    return Secret(text=text)


def source_of(stated: str, life: float, folder: Path) -> Source:
    """The source that a file names: `env:NAME`, `file:PATH` or `keyring:SERVICE/USER`.

    Raises ValueError.
    """
    kind, colon, rest = stated.partition(":")
    service, slash, user = rest.rpartition("/")
    if kind == "env" and rest:
        return EnvironmentSource(rest)
    if kind == "file" and rest:
        return FileSource(folder / rest)
    if kind == "keyring" and slash and service and user:
        return KeyringSource(service, user, life)
    raise ValueError(
        "a credential is env:NAME, file:PATH, keyring:SERVICE/USER, openbao:PATH#FIELD or oauth:URL"
        + ("" if colon else ", and never the key itself")
    )


# --- writers --------------------------------------------------------------------------------------


class _PlainWriter:
    """Write the key as it is."""

    coding = b"identity"

    def hidden(self, secret: Secret) -> tuple[Secret, ...]:
        return (secret,)


class HeaderWriter(_PlainWriter):
    """In a header, as `spell` spells it."""

    field = ""

    def __init__(self, header: str, spell: Callable[[str], str]) -> None:
        self.header = header.lower()
        self._spell = spell

    def write(self, secret: Secret, outgoing: Outgoing) -> None:
        outgoing.headers.append((self.header.encode(), self._spell(secret.text).encode()))


class QueryWriter(_PlainWriter):
    """In a field of the query."""

    header = ""

    def __init__(self, field: str) -> None:
        self.field = field

    def write(self, secret: Secret, outgoing: Outgoing) -> None:
        outgoing.add_query(self.field, secret.text)


def writer_of(place: str, user: str) -> Writer:
    """The writer that a file names: `bearer`, `basic`, `header:NAME`, `scheme:NAME`, `query:NAME`.

    Raises ValueError.
    """
    kind, _, name = place.partition(":")
    if place == "bearer":
        return HeaderWriter("authorization", "Bearer {}".format)
    if place == "basic":
        return HeaderWriter(
            "authorization", lambda text: "Basic " + b64encode(f"{user}:{text}".encode()).decode()
        )
    if kind == "header" and is_token(name):
        return HeaderWriter(name, str)
    if kind == "scheme" and is_token(name):
        return HeaderWriter("authorization", f"{name} {{}}".format)
    if kind == "query" and name:
        return QueryWriter(name)
    raise ValueError(
        "write a credential as bearer, basic, header:NAME, scheme:NAME, query:NAME or "
        "sigv4:REGION/SERVICE"
    )


def is_token(name: str) -> bool:
    """Whether a header can be called so (RFC 9110, 5.6.2), as far as anybody does."""
    return name.isascii() and name.replace("-", "").replace("_", "").isalnum()
