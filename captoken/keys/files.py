"""Files that hold secrets: written whole, and readable only by their owner (spec, "Key files").

A writer creates the new file beside the old one, with these permissions from the start, and then
replaces the old one in one step. So nobody can read a key while it is written, and after a crash
either the old file or the new one is there.

These functions do not know what is in a file: keys and keyrings read and write their own. On a
system without such permissions, nothing is checked.
"""

from __future__ import annotations

import os

from captoken._format.errors import KeyringError
from captoken._format.sealed import no_arguments_in_traceback
from captoken._format.spelling import shown_file

_MAX_BYTES = 1 << 20  # of a key file: no more is read


@no_arguments_in_traceback
def write_private(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that its owner alone can read, whole or not at all.

    Replaces what is there, behind a link too. Two that write at once are not merged: the last one
    stays. The directory is not synchronized: a crash of the machine may leave the old file.

    Raises KeyringError, which holds nothing of the data.
    """
    # Beside the target, since a file takes the place of another within one file system alone. By
    # a name that nobody can foretell, and put a file of theirs there.
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
        raise KeyringError(f"the key file {shown_file(path)} cannot be saved: {problem}") from None


def _write_new(path: str, data: bytes) -> None:
    """A file that was not there before, on the disk when this returns; nothing if it raises.

    O_EXCL and O_NOFOLLOW: what somebody else put there is never written into.
    """
    follows_no_link = getattr(os, "O_NOFOLLOW", 0)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | follows_no_link
    handle = os.open(path, flags, 0o600)

    # On the disk before it takes the place of the old one: else a crash could leave it empty.
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(path)
        raise


# How a key file comes to be, for whoever names one that is not there.
MAKES_A_KEY = ": `captoken keygen`, or save(path), makes one"


def read_private(path: str | os.PathLike[str], *, makes: str = "") -> bytes:
    """What is in a file that its owner alone can read or write.

    `makes` is said of a file that is not there, where captoken could make it.

    Raises KeyringError for one that others can read or write, where the system can tell (spec
    27.4): the secret may be known to them by now. Reads at most a mebibyte, so that a path to
    something else than a key does not fill the memory.
    """
    try:
        with open(path, "rb") as file:
            # Of the file that is open, not of its name: another could be put there meanwhile.
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise KeyringError(
                    f"the key file {shown_file(path)} is open to others than its owner: "
                    "chmod 600 it"
                )
            return file.read(_MAX_BYTES)
    except OSError as error:
        made = makes if isinstance(error, FileNotFoundError) else ""
        raise KeyringError(
            f"the key file {shown_file(path)} cannot be read: {error.strerror}{made}"
        ) from None
