"""The folder of an office: its files, and the one process that has it.

    reserved    the folder, for this process alone, with all files, which are made if it is new
    upgraded    its files, in the version of this code
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager, suppress

from captoken._format.clocks import Clock
from captoken._format.encoding import EncodingError, decode_json, encode_json
from captoken._format.errors import StoreError
from captoken._format.spelling import shown_file
from captoken.control._seen import keep_seen
from captoken.control.operator import Operator
from captoken.keys.files import write_private
from captoken.keys.keyring import Keyring
from captoken.keys.secret import AuditKey, OperatorKey
from captoken.stores import sqlite
from captoken.stores._posix import fcntl
from captoken.stores._schema import Schema, SchemaChange, Upgrade, upgrade_of
from captoken.stores.own_process import tell_of_forks, unforked
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore, SQLiteSnapshots
from captoken.stores.trail_file import TrailFile

KEYRING = "keyring.json"
OPERATOR = "operator.json"
SEEN = "operator.json.seen"  # the commands for operators use this name too
OVERLAY = "overlay.db"
STORES = "office.db"
AUDIT = "audit.json"
TRAIL = "trail.jsonl"
TRAIL_SEEN = "trail.jsonl.seen"
_FILES_OF_1 = (KEYRING, OPERATOR, SEEN, STORES, AUDIT, TRAIL)
_FILES = (*_FILES_OF_1, OVERLAY, TRAIL_SEEN)

# The version of the list of files.
_MOVED = SchemaChange(f"moves the overlay to {OVERLAY}, and adds {TRAIL_SEEN}")
_VERSION = Schema("office", (_MOVED,))

LIST = "office.json"
_LOCK = "lock"
_IGNORE = ".gitignore"

# Seconds that our snapshots stay valid for operators. The office may be closed for a long time, and
# the number of the snapshot reveals a store that went back. Verifiers have their own limit.
LIFE = 366 * 86_400


@contextmanager
def reserved(folder: str, by: str, clock: Clock) -> Generator[None]:
    """In this block, the folder is this process's, and has all files. Raises StoreError.

    They are created if the folder is empty or missing.
    """
    _check_folder(folder)
    with closing(_Lock(folder)):
        if not os.path.lexists(os.path.join(folder, LIST)):
            _make(folder, by, clock)
        _check_files(folder)
        yield


class _Lock:
    """Reserves the folder for one process until it is closed. Never waits. Raises StoreError."""

    def __init__(self, folder: str) -> None:
        self._fd = -1
        # Close it in a forked child, which would otherwise hold the folder after its parent's end.
        tell_of_forks(self, in_child=_Lock.close)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with unforked():
                self._fd = os.open(os.path.join(folder, _LOCK), flags, 0o600)
        except OSError as error:
            raise _problem(folder, f"{_LOCK} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise _problem(
                folder,
                "another process, or another part of this one, has opened it: close that one. An "
                "office is for one process; how several workers verify, `captoken docs workers` "
                "finds",
            ) from None

    def close(self) -> None:
        """Release the folder. Calling it twice is fine."""
        fd, self._fd = self._fd, -1
        with suppress(OSError):
            os.close(fd)


def _problem(folder: str, text: str) -> StoreError:
    """The error to raise, with the folder and the problem."""
    return StoreError(f"the office {shown_file(folder)}: {text}")


@contextmanager
def told_by_folder(folder: str) -> Generator[None]:
    """Turn any OSError in the block into a StoreError that names the file."""
    try:
        yield
    except OSError as error:
        what = error.strerror or "no reason given"
        raise _problem(folder, f"{shown_file(str(error.filename))}: {what}") from None


def _check_folder(folder: str) -> None:
    """Create the folder if it is missing. Raises StoreError if others can access it."""
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
    except OSError as error:
        raise _problem(folder, f"cannot be made: {error.strerror}") from None
    wrong = _wrong_with(found, stat.S_ISDIR(found.st_mode), "a folder", "chmod 700")
    if wrong:
        raise _problem(folder, wrong)


def _wrong_with(
    found: os.stat_result,
    is_kind: bool,
    kind: str,
    remedy: str,
) -> str | None:
    """The reason why others could change it, or None. A symbolic link is not followed."""
    if not is_kind:
        return f"is not {kind}, or is a link to one"
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return f"is open to others than its owner: {remedy} it"
    return None


def _make(folder: str, by: str, clock: Clock) -> None:
    """Create all files, and the list of them last. Raises StoreError if something else is there."""
    there = sorted(set(os.listdir(folder)) - {_LOCK})
    if there:
        raise _problem(
            folder,
            f"has {shown_file(there[0])} in it, and no {LIST}: it is no office, or was not made "
            "to its end; an office is made in an empty folder",
        )

    def path(name: str) -> str:
        return os.path.join(folder, name)

    write_private(path(_IGNORE), b"*\n")
    keyring = Keyring.generate()
    keyring.save(path(KEYRING))
    operator_key = OperatorKey.generate()
    operator_key.save(path(OPERATOR))
    AuditKey.generate().save(path(AUDIT))

    # The stores are created together with the keys. So nothing can have been used before, and
    # counted tokens are accepted at once.
    stores = path(STORES)
    SQLiteReplayStore.create(stores, keys=keyring.key_ids, clock=clock).close()
    SQLiteLedger.create(stores, keys=keyring.key_ids, clock=clock).close()
    snapshots = SQLiteSnapshots.create(path(OVERLAY))
    operator = Operator(operator_key, snapshots, by=by, life=LIFE, clock=clock)
    operator.renew()
    snapshots.close()
    keep_seen(path(SEEN), operator.seen)
    TrailFile(path(TRAIL)).close()
    _write_list(folder)


def _write_list(folder: str) -> None:
    """Write the list of an office's files, which completes its creation."""
    # No record of the trail has been seen yet.
    write_private(os.path.join(folder, TRAIL_SEEN), b"")
    stated = {"files": sorted(_FILES), "v": _VERSION.version}
    write_private(os.path.join(folder, LIST), encode_json(stated) + b"\n")


def _check_files(folder: str) -> None:
    """Raise StoreError if a file is missing, accessible to others, or of another version."""
    version = _listed(folder)
    if version == 1 and _has_moved(folder):
        _write_list(folder)  # the upgrade was interrupted before it wrote the list
        version = _VERSION.version
    _VERSION.check(f"the office {shown_file(folder)}", version, shown_file(folder))
    _check_there(folder, _FILES)


def _check_there(folder: str, files: Iterable[str]) -> None:
    """Raise StoreError if one of these files is missing or accessible to others."""
    for name in (LIST, *files):
        try:
            found = os.lstat(os.path.join(folder, name))
        except FileNotFoundError:
            raise _problem(
                folder,
                f"{name} is missing, and is not made anew alone: put it back, "
                "or begin with an empty folder",
            ) from None
        wrong = _wrong_with(found, stat.S_ISREG(found.st_mode), "a file", "chmod 600")
        if wrong:
            raise _problem(folder, f"{name} {wrong}")


def _listed(folder: str) -> int:
    """The version of the list of files. Raises StoreError if it is not an office's list."""
    with open(os.path.join(folder, LIST), "rb") as file:
        text = file.read(1 << 16)
    try:
        stated = decode_json(text.removesuffix(b"\n"))
    except EncodingError:
        stated = {}
    for known, files in enumerate((_FILES_OF_1, _FILES), start=1):
        if stated == {"files": sorted(files), "v": known}:
            return known
    version = stated.get("v")
    if type(version) is int and version > _VERSION.version:
        return version  # a newer version, whatever files it has
    raise _problem(folder, f"{LIST} is no list of the files of an office")


def _has_moved(folder: str) -> bool:
    """True if the overlay of a version 1 office is already in its own file."""
    try:
        SQLiteSnapshots(os.path.join(folder, OVERLAY)).close()
    except StoreError:
        return False
    return True


def upgraded(folder: str, apply: bool) -> list[Upgrade]:
    """The upgrade steps of the office and each of its stores. Raises StoreError."""
    if not os.path.lexists(os.path.join(folder, LIST)):
        raise _problem(folder, f"there is no {LIST} in it: it is no office")
    _check_folder(folder)
    with told_by_folder(folder), closing(_Lock(folder)):
        return _upgraded(folder, apply)


def _upgraded(folder: str, apply: bool) -> list[Upgrade]:
    """The same, in a folder that this process has."""
    version = _listed(folder)
    found = [upgrade_of(_VERSION, f"the office {shown_file(folder)}", version)]
    stores, overlay = os.path.join(folder, STORES), os.path.join(folder, OVERLAY)
    if version > 1 or _has_moved(folder):
        for path in (stores, overlay):
            found += sqlite.upgrade_file(path, apply=apply)
    else:
        _check_there(folder, _FILES_OF_1)
        found += sqlite.upgrade_file(stores, apply=apply, overlay=overlay)
    # The list completes the new version. After the overlay has moved, `open` would write it too.
    if apply and version == 1:
        _write_list(folder)
    return found
