"""What a gateway would be refused for, or would refuse all for: looked at, and nothing is written.

Nobody is connected to. Neither the environment nor the system's keyring is asked: the gateway may
run with others.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import time
from typing import Any

from captoken._format.errors import CaptokenError, KeyringError
from captoken._format.spelling import shown_file, span
from captoken._language.overlay import Overlay
from captoken.adapters._gateway.credentials import Unavailable, read_key
from captoken.adapters._gateway.opening import (
    ON_SERVER,
    Configuration,
    Service,
    file_of,
    unserved,
)
from captoken.adapters._gateway.stated import StatedCredential
from captoken.keys.files import read_private
from captoken.keys.keyring import Keyring
from captoken.keys.secret import AuditKey
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore, SQLiteSnapshots

# Seconds after which a verifier denies by an overlay.
_STALE = 60


def unready(found: Configuration) -> dict[str, str]:
    """What cannot be used as it is, by its place in the file: keys, stores, trail and overlay."""
    stated = found.file.gateway
    problems: dict[str, str] = {}

    def see(place: str, look: Callable[[Path], object], path: str | None) -> None:
        if path is None or place in problems:
            return
        try:
            look(found.folder / path)
        except (CaptokenError, Unavailable, OSError, ValueError) as problem:
            problems[place] = str(problem)

    see("gateway.keyring", lambda path: _check_keyring(path, found), stated.keyring)
    see("gateway.trail_key", AuditKey.load, stated.trail_key)
    if stated.trail is not None:
        see("gateway.trail", _check_written, stated.trail.replace("{}", "0"))
    see("gateway.ledger", _opens(SQLiteLedger), _file(stated.ledger))
    see("gateway.replays", _opens(SQLiteReplayStore), _file(stated.replays))
    see("gateway.overlay", lambda path: _check_overlay(path, stated.operators), stated.overlay)
    for name, service in found.file.service.items():
        see(f"service.{name}.ca", _check_certificates, service.ca)
        for place, said in _sources(service.credential).items():
            kind, _, path = said.partition(":")
            if kind == "file":
                # A refresh token has more lines: whether it is one, its server says.
                load = read_private if place == "refresh" else read_key
                see(f"service.{name}.credential.{place}", load, path)
    for name, audience in found.file.authzen.items():
        kind, _, path = audience.secret.partition(":")
        if kind == "file":
            see(f"authzen.{name}.secret", read_key, path)
    return problems


def _check_keyring(path: Path, found: Configuration) -> None:
    """Raise KeyringError where tokens of a service cannot be verified by it."""
    audience = Keyring.load(path).audience
    others = unserved(found, audience)
    if others:
        raise KeyringError(
            f"{shown_file(path)} holds keys for {audience} only, and none for {', '.join(others)}"
        )


def _check_written(path: Path) -> None:
    """Raise OSError for a file that cannot be written, or made."""
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OSError(f"{shown_file(path)} cannot be written")


def _check_certificates(path: Path) -> None:
    try:
        ssl.create_default_context(cafile=str(path))
    except OSError as error:  # ssl.SSLError is one
        raise OSError(f"{shown_file(path)} has no certificates: {type(error).__name__}") from None


def _file(url: str | None) -> str | None:
    """Return the file of a store, or None for a store that is not a file."""
    if url is None or url == "memory:" or url.partition(":")[0] in ON_SERVER:
        return None
    return file_of(url)


def _opens(kind: Any) -> Callable[[Path], None]:
    def look(path: Path) -> None:
        kind(path, readonly=True).close()

    return look


def _check_overlay(path: Path, operators: tuple[str, ...]) -> None:
    """Raise ValueError, StoreError or OverlayError if a verifier would deny everything by this
    overlay.
    """
    with closing(SQLiteSnapshots(path, readonly=True)) as store:
        data = store.load()
    renews = f"`captoken operate --key OPERATOR.json --store {shown_file(path)}` renews it"
    if data is None:
        raise ValueError(f"there is no snapshot yet: {renews}")
    age = time() - Overlay.open(data, operators).issued_at
    if age > _STALE:
        raise ValueError(
            f"its newest snapshot is {span(int(age))} old, and after {_STALE} s the gateway denies "
            f"every request: {renews}, and has to run beside the gateway"
        )


def _sources(key: str | StatedCredential | None) -> dict[str, str]:
    """Return the sources of a credential by their keys: `from`, `secret`, `refresh`, `subject`."""
    if key is None or isinstance(key, str):
        return {} if key is None else {"from": key}
    said = {"from": key.source, "secret": key.secret, "refresh": key.refresh}
    said["subject"] = key.subject
    return {place: each for place, each in said.items() if each is not None}


def with_bodies(service: Service) -> Iterator[str]:
    """The operations that no proxy can pass which shows neither bodies nor answers."""
    for tool, each in service.table.operations.items() if service.unseen else ():
        if each.body or each.opaque:
            yield tool


def unstated(service: Service) -> Iterator[tuple[str, list[str]]]:
    """Operations without a cost in a unit that others state one in, by that unit.

    A token with a budget of that unit is refused there: nothing is never taken for 0.
    """
    operations = service.table.operations
    for unit in sorted({unit for each in operations.values() for unit in each.cost}):
        without = [tool for tool, each in operations.items() if unit not in each.cost]
        if without:
            yield unit, without
