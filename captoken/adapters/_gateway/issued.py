"""Keys that a server gives for a time: OAuth's access tokens, and secrets of OpenBao.

    source = issued_of(stated, folder)      # ValueError
    secret = await source.read()            # Unavailable

1. A server is asked over TLS, or on this machine. No redirect is followed.
2. What it answers is in no error: of an answer that is refused, the status and OAuth's own code.
3. A refresh token that is used up is replaced in its file before the access token is used. One
   process at a time does so: all that share the file share both tokens.
"""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic, time
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from captoken._format.errors import KeyringError
from captoken._format.spelling import shown_file
from captoken.adapters._gateway.credentials import (
    KeptSource,
    Secret,
    Source,
    Unavailable,
    checked,
    source_of,
)
from captoken.adapters._gateway.operations import FORM
from captoken.adapters._gateway.stated import StatedCredential
from captoken.adapters._gateway.upstream import Broken, Unreachable, Upstream
from captoken.adapters._gateway.written import Outgoing, fields
from captoken.adapters._gateway.written import path as written_path
from captoken.keys.files import read_private, write_private

_SECONDS = 15  # for an answer, whole
_MOST = 1 << 16  # bytes of one
_MARGIN = 30  # seconds before its end in which a token is not used any more
_WAIT = 40  # seconds for another process, which asks

# What a server may say is wrong (RFC 6749, 5.2; RFC 8693, 2.2.2). Its other words stay unsaid.
_CODES = (
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
)
_EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
}


def issued_of(stated: StatedCredential, folder: Path) -> Source:
    """The source that a file states. Raises ValueError, and OSError for certificates."""
    kind, _, url = stated.source.partition(":")
    if kind == "openbao":
        path, hash_, field = url.rpartition("#")
        segments = path.split("/")
        if (
            not hash_
            or not field
            or stated.secret is None
            or not {"", ".", ".."}.isdisjoint(segments)
        ):
            raise ValueError(
                "openbao:PATH#FIELD needs url and secret beside it: the server's address and token"
            )
        return OpenBaoSource(Server(stated.url, stated, folder), segments, field, stated.life)
    server = Server(url, stated, folder)
    if stated.refresh is None:
        subject = stated.subject
        return OAuthSource(
            server, stated, None if subject is None else source_of(subject, stated.life, folder)
        )
    kind, _, path = stated.refresh.partition(":")
    if kind != "file" or not path or stated.subject is not None or os.name != "posix":
        raise ValueError("refresh must be file:PATH, without subject, on a system that locks files")
    return RefreshSource(server, stated, folder / path)


# --- who is asked ---------------------------------------------------------------------------------


class Server:
    """Who gives keys. It is told `secret`, and who we are."""

    def __init__(self, url: str, stated: StatedCredential, folder: Path) -> None:
        ca = None if stated.ca is None else str(folder / stated.ca)
        self._upstream = Upstream(url, timeout=_SECONDS, ca=ca)
        self._path = urlsplit(url).path or "/"
        self._client = stated.client
        secret = stated.secret
        self._secret = None if secret is None else source_of(secret, stated.life, folder)

    async def token(self, form: dict[str, str]) -> dict[str, Any]:
        """What an endpoint of tokens answers. Raises Unavailable."""
        headers = [(b"content-type", FORM.encode())]
        if self._secret is not None:
            pair = f"{quote(self._client, '')}:{quote((await self._secret.read()).text, '')}"
            headers.append((b"authorization", b"Basic " + b64encode(pair.encode())))
        elif self._client:
            form = {**form, "client_id": self._client}
        body = fields(form, "repeat").encode()
        return await self._told(Outgoing("POST", self._path, "", headers, body))

    async def secret(self, segments: list[str]) -> dict[str, Any]:
        """What OpenBao answers, who is shown a token. Raises Unavailable."""
        token = b"" if self._secret is None else (await self._secret.read()).text.encode()
        path = f"{self._path.rstrip('/')}/v1{written_path(segments)}"
        return await self._told(Outgoing("GET", path, "", [(b"x-vault-token", token)], b""))

    async def _told(self, outgoing: Outgoing) -> dict[str, Any]:
        origin = self._upstream.origin
        outgoing.headers.append((b"accept", b"application/json"))
        try:
            async with asyncio.timeout(_SECONDS):
                status, body = await self._exchanged(outgoing)
        except (Unreachable, Broken, TimeoutError) as error:
            raise Unavailable(f"{origin} gives no answer: {type(error).__name__}") from None
        try:
            said = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            said = {}
        # Some say what is wrong with a status of 200.
        if status != 200 or not said or "error" in said:
            code = said.get("error")
            why = f": {code}" if code in _CODES else ""
            raise Unavailable(f"{origin} answers {status}, and gives no key{why}")
        return said

    async def _exchanged(self, outgoing: Outgoing) -> tuple[int, bytes]:
        connection = await self._upstream.connect()
        try:
            answer = await connection.send(outgoing)
            body = b""
            async for piece in answer.pieces:
                body += piece
                if len(body) > _MOST:
                    raise Broken("the answer is too long")
            return answer.status, body
        finally:
            connection.close()


# --- OAuth ----------------------------------------------------------------------------------------


class OAuthSource(KeptSource):
    """An access token: for our own name (RFC 6749, 4.4), or for another token (RFC 8693)."""

    def __init__(self, server: Server, stated: StatedCredential, subject: Source | None) -> None:
        super().__init__()
        self._server = server
        self._life = stated.life
        self._subject = subject
        grant = _EXCHANGE if subject is not None else {"grant_type": "client_credentials"}
        self._form = grant | stated.ask

    async def ask(self) -> tuple[Secret, float]:
        form = dict(self._form)
        if self._subject is not None:
            form["subject_token"] = (await self._subject.read()).text
        return granted(await self._server.token(form), self._life)


def granted(said: dict[str, Any], life: float) -> tuple[Secret, float]:
    """The access token of an answer, and for how many seconds it is used. Raises Unavailable."""
    token, kind = said.get("access_token"), said.get("token_type")
    seconds = said.get("expires_in", life)
    # A token of another type is no key by itself: a proof goes with it, which nobody makes here.
    is_bearer = type(kind) is str and kind.lower() in ("bearer", "n_a")
    if type(token) is not str or not is_bearer or type(seconds) not in (int, float):
        raise Unavailable("the answer has no bearer token, or no number of seconds")
    if seconds <= 0:
        raise Unavailable("the token has expired by the time it comes")
    return checked(token), seconds - min(_MARGIN, seconds / 4)


class RefreshSource(KeptSource):
    """An access token for a refresh token (RFC 6749, 6), which may be another one each time.

    Its file has the refresh token, as somebody put it there. Once it was used, the access token
    and its end stand in the next two lines: other processes take it from there.
    """

    def __init__(self, server: Server, stated: StatedCredential, path: Path) -> None:
        super().__init__()
        self._server = server
        self._life = stated.life
        self._form = {"grant_type": "refresh_token", **stated.ask}
        self._path = path
        self._used = ""

    async def ask(self) -> tuple[Secret, float]:
        async with _alone(self._path):
            try:
                secret, until = await self._shared()
            except KeyringError as error:
                raise Unavailable(str(error)) from None
            except ValueError:
                raise Unavailable(
                    f"{shown_file(self._path)} has no refresh token, or another line"
                ) from None
        # One that is asked for before its end was refused, and is not taken from the file again.
        self._used = secret.text
        return secret, until - time()

    async def _shared(self) -> tuple[Secret, float]:
        """Return the token in the file while it is valid.

        Otherwise get a new one and write it there.
        """
        was = read_private(self._path)
        refresh, *kept = was.decode("ascii").strip().splitlines()
        if kept:
            access, until = kept
            if access != self._used and time() < float(until):
                return checked(access), float(until)
        # What could not be written back is not used up.
        write_private(self._path, was)
        said = await self._server.token({**self._form, "refresh_token": checked(refresh).text})
        secret, seconds = granted(said, self._life)
        later = time() + seconds
        following = checked(said.get("refresh_token", refresh))
        write_private(self._path, f"{following.text}\n{secret.text}\n{later}\n".encode())
        return secret, later


@asynccontextmanager
async def _alone(path: Path) -> AsyncGenerator[None]:
    """A block that one process is in at a time. Raises Unavailable where it takes too long."""
    from captoken.stores._posix import fcntl

    try:
        handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        raise Unavailable(f"{shown_file(path)} cannot be locked") from None
    until = monotonic() + _WAIT
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if monotonic() > until:
                    raise Unavailable(f"{shown_file(path)} stays locked") from None
                await asyncio.sleep(0.02)
        yield
    finally:
        os.close(handle)


# --- OpenBao --------------------------------------------------------------------------------------


class OpenBaoSource(KeptSource):
    """A field of a secret in OpenBao: of its stores of keys and values, 1 and 2, or a dynamic one.

    It is kept for `life` seconds, or for its lease, if that is shorter.
    """

    def __init__(self, server: Server, segments: list[str], field: str, life: float) -> None:
        super().__init__()
        self._server = server
        self._segments = segments
        self._field = field
        self._life = life

    async def ask(self) -> tuple[Secret, float]:
        said = await self._server.secret(self._segments)
        data = said.get("data")
        if type(data) is dict and type(data.get("metadata")) is dict:
            data = data.get("data")  # of version 2, beside what it says of the secret
        found = data.get(self._field) if type(data) is dict else None
        if found is None:
            raise Unavailable(f"{'/'.join(self._segments)} has no field {self._field}")
        lease = said.get("lease_duration")
        life = self._life
        # Without a lease, 0 is said.
        return checked(found), min(life, lease) if type(lease) is int and lease > 0 else life
