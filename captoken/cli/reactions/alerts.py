"""Alerts: a cause is told to a command, a webhook or OpenTelemetry, at most once each.

What is told is one line of canonical JSON, with the id of the cause. It is noted before it is told.
So what a crash interrupts may be told to nobody, and is never told twice. A receiver that could not
be reached is tried again a few times, since it has surely heard nothing.

A webhook can tell who sent it: `captoken-signature` is HMAC-SHA256, in hexadecimal, by the secret,
over `captoken-time`, a full stop, and the body. Refuse one whose time is more than 300 seconds off,
and one whose id you know.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
from collections.abc import Callable
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from time import sleep
from typing import Any, Final
from urllib.parse import urlsplit

from captoken._format import primitives
from captoken._format.encoding import encode_json
from captoken._format.extras import extra
from captoken.cli.reactions.rules import Told
from captoken.cli.reactions.watching import Cause, Reactor

PATIENCE: Final = 10  # seconds for a command, or a webhook
_TRIES: Final = 3
_AGAIN: Final = 1.0  # seconds until a receiver is tried again


class Alerts:
    """Tells what is to be told, in a thread of its own: nobody who is slow holds up an act."""

    def __init__(self, reactor: Reactor, tell: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._tell = tell
        self._more = threading.Event()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """There may be something to tell."""
        self._more.set()

    def close(self) -> None:
        """Tell what is left, and end."""
        self._ends = True
        self._more.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        while True:
            self._more.wait()
            self._more.clear()
            ends = self._ends
            while (found := self._reactor.next_alert()) is not None:
                cause, state, name = found
                problem = self._send(cause, state, name)
                self._reactor.note(cause, name, "failed" if problem else "told")
                if problem:
                    self._tell(f"alert {name} was not told of {cause.id}: {problem}")
            if ends:
                return

    def _send(self, cause: Cause, state: str, name: str) -> str | None:
        """Tell one. Why it could not be told, or None."""
        told = self._reactor.rules_of.told.get(name)
        if told is None:
            return "it is no more in the file of rules"
        return problem_of(told, cause, state, self._reactor.now or 0)


def problem_of(told: Told, cause: Cause, state: str, now: int) -> str | None:
    """Tell one. Why it could not be told, or None."""
    try:
        send(told, stated(cause, state), now)
    except Exception as error:  # whatever a receiver does, the next one is told
        return f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error)
    return None


def stated(cause: Cause, state: str) -> dict[str, Any]:
    """What is told of a cause, and what became of it."""
    said: dict[str, Any] = {
        "kind": "trail" if cause.does == "trail" else "reaction",
        "id": cause.id,
        "rule": cause.rule,
        "does": cause.does,
        "done": state in ("done", "found"),
        "why": cause.why,
        "at": cause.at,
        "trail": cause.trail,
        "seq": cause.seq,
        "count": cause.count,
        "select": dict(cause.select),
        "agent": cause.agent,
        "task": cause.task,
    }
    return said


def send(told: Told, said: dict[str, Any], now: int) -> None:
    """Tell one. Raises OSError or ValueError where it could not be told."""
    line = encode_json(said) + b"\n"
    if told.command is not None:
        _run_command(told.command, line)
    elif told.webhook is not None:
        _post(told.webhook, secret_of(told.secret or "", told.folder), line, now)
    else:
        _span(said)


def _run_command(command: tuple[str, ...], line: bytes) -> None:
    """Run a program with the line on its standard input. No shell reads it."""
    try:
        ended = subprocess.run(  # noqa: S603, what the file of rules names
            command,
            input=line,
            timeout=PATIENCE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"the command took more than {PATIENCE} s") from None
    if ended.returncode:
        raise ValueError(f"the command ended with {ended.returncode}")


def signature(secret: bytes, now: int, body: bytes) -> str:
    """By which a receiver knows that a webhook is from whoever has the secret."""
    return primitives.hmac_sha256(secret, b"%d.%b" % (now, body)).hex()


def secret_of(stated: str, folder: Path) -> bytes:
    """The secret of a webhook, `env:NAME` or `file:NAME`, read at each use.

    Raises ValueError, and OSError.
    """
    kind, _, name = stated.partition(":")
    if kind not in ("env", "file") or not name:
        raise ValueError("a secret is env:NAME or file:NAME")
    if kind == "env":
        value = os.environ.get(name, "").encode()
    else:
        value = folder.joinpath(name).read_bytes().strip()
    if len(value) < 16:
        raise ValueError(f"the secret {kind}:{name} has less than 16 characters")
    return value


def _post(address: str, secret: bytes, body: bytes, now: int) -> None:
    """Send it. Tried again only where no connection came about. No redirect is followed."""
    parts = urlsplit(address)
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    connection: HTTPConnection = HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = HTTPSConnection(
            parts.hostname or "", parts.port, timeout=PATIENCE, context=context
        )
    try:
        for tries in range(1, _TRIES + 1):
            try:
                connection.connect()
                break
            except OSError:
                if tries == _TRIES:
                    raise
                sleep(_AGAIN)
        headers = {
            "Content-Type": "application/json",
            "captoken-time": str(now),
            "captoken-signature": signature(secret, now, body),
        }
        connection.request("POST", path, body, headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise ValueError(f"the webhook answered {status}")


def _span(said: dict[str, Any]) -> None:
    """An event on a span of its own, by the tracer that the environment sets up."""
    with extra("otel"):
        from opentelemetry.trace import get_tracer

    flat = {
        f"captoken.{key}": value
        for key, value in said.items()
        if key != "select" and value != ""
    }
    flat |= {f"captoken.select.{key}": value for key, value in said["select"].items()}
    with get_tracer("captoken").start_as_current_span("captoken.reaction") as span:
        span.add_event("captoken.alert", flat)
