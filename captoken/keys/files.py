"""Files that hold secrets: whole, and for their owner alone (spec, "Key files")."""

from __future__ import annotations

import os

from captoken._format.errors import KeyringError
from captoken._format.sealed import forgetful


@forgetful
def write_private(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that its owner alone can read, whole or not at all.

    Replaces what is there, behind a link too. Two that write at once are not merged: the last one
    stays. Raises KeyringError.
    """
    target = os.path.realpath(path)
    temporary = f"{target}.{os.urandom(8).hex()}.part"
    try:
        _write_new(temporary, data)
        try:
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        problem = error.strerror or "no reason given"
        raise KeyringError(f"the key file cannot be saved: {problem}") from None


def _write_new(path: str, data: bytes) -> None:
    """A file that was not there before, on the disk when this returns; nothing if it raises."""
    follows_no_link = getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | follows_no_link, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(path)
        raise


def read_private(path: str | os.PathLike[str]) -> bytes:
    """What is in a file that its owner alone can read or write. Raises KeyringError."""
    try:
        with open(path, "rb") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise KeyringError("the key file is open to others than its owner: chmod 600 it")
            return file.read(1 << 20)
    except OSError as error:
        raise KeyringError(f"the key file cannot be read: {error.strerror}") from None
