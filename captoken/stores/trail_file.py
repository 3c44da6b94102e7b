"""The file of an audit trail, for a server that writes one (docs/audit.md).

    file = TrailFile("trail.jsonl")
    trail = AuditTrail(file.write, head=file.head, key=key)

POSIX only, because it locks with `flock`. Elsewhere, and on a network file system, give
`AuditTrail` a `write` of your own that writes everything or nothing.

It handles lines, not records: AuditTrail makes them, and `captoken.audit.check` says whether the
file is complete. This file ensures two things: a record is written whole or not at all, and nobody
else writes meanwhile.
"""

from __future__ import annotations

import errno
import logging
import os
from types import TracebackType
from typing import Self

import msgspec

from captoken._format import primitives
from captoken._format.encoding import b64encode, decode_json
from captoken._format.errors import AuditError
from captoken._format.spelling import shown, shown_file
from captoken.stores._posix import fcntl
from captoken.stores.own_process import OwnProcess, tell_of_forks, unforked
from captoken.stores.ports import Head

_log = logging.getLogger("captoken")

# Bytes that are read at once, from the end.
_BLOCK = 1 << 16


class TrailFile:
    """One file that one process writes to, and nobody else meanwhile. Made for its owner alone.

    - Records are written whole or not at all. Where the disk is full, or cannot be synchronized,
      what was begun is cut off again, and `write` raises.
    - A last line that a crash left without its end is cut off when the file is opened: what it
      would have recorded was not allowed.
    - `head` is where to go on, None in a new file.
    - A file that was renamed or deleted takes no more. Whoever rotates logs has the path opened
      again, by a new start: see docs/audit.md.
    - `sync=True` waits for the disk at each record, so that a crash of the machine loses none. It
      costs what the disk takes for that. `flush` does it for the records of many threads at once.
    - Not for network file systems, where the lock may hold nobody off.

    Not for threads by itself: AuditTrail lets one write after the other. A forked child is refused.
    Raises AuditError for a file that somebody writes to, that is no trail or that cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sync: bool = False,
    ) -> None:
        self._path = os.path.abspath(os.fspath(path))
        self._sync = sync
        self._process = OwnProcess()
        self._fd = -1

        # Closed in a child, and in what this process starts: it would keep the lock.
        tell_of_forks(self, in_child=TrailFile.close)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            with unforked():  # a child could else have it, and not know that it is to be closed
                self._fd = os.open(self._path, flags, 0o600)
        except OSError as error:
            what, where = error.strerror, shown_file(self._path)
            raise AuditError(f"the file cannot be opened for writing: {what} ({where})") from None

        # The lock comes first: what another process writes meanwhile must not be cut off as torn.
        try:
            self._lock()
            self._size()
            self.head, self._end = self._last()

            # What stands behind the last whole line, a crash has left there.
            size = os.fstat(self._fd).st_size
            if self._end < size:
                _log.warning("the last record of the trail was torn, and is cut off")
                self._cut()
        except BaseException:
            self.close()
            raise

    @classmethod
    def for_worker(cls, pattern: str, *, workers: int = 64, sync: bool = False) -> Self:
        """The first file of a pattern that no other process writes to: one for each worker.

            TrailFile.for_worker("trail-{}.jsonl")   # trail-0.jsonl, and then trail-1.jsonl

        A worker that starts again goes on with one that is free, so that there are as many files as
        workers run at once. Raises ValueError for a pattern without `{}`, and AuditError as for one
        file, or if `workers` files are all in use.
        """
        if pattern.count("{}") != 1:
            raise ValueError(f"{shown(pattern)} needs one {{}}, for the number of the worker")
        for number in range(workers - 1):
            try:
                return cls(pattern.replace("{}", str(number)), sync=sync)
            except AuditError as error:
                if not isinstance(error.__context__, BlockingIOError):  # that of `_lock`
                    raise
        return cls(pattern.replace("{}", str(workers - 1)), sync=sync)

    def write(self, lines: bytes) -> int:
        """Append them, whole. Raises OSError, and then nothing of them is there.

        Raises AuditError in another process, and where the file is not as it was left: renamed or
        deleted, replaced, longer or shorter.
        """
        if not self._process.is_own():
            raise AuditError("this trail belongs to another process: open a trail in each process")

        # A lock of this kind holds off those alone who ask for it: an editor does not.
        if self._size() != self._end:
            raise self._problem(
                "the file is not as this trail has left it: somebody else has written to it, "
                "or cut it"
            )

        # BaseException, since an interruption between the two leaves a record that nobody counts.
        try:
            count = os.write(self._fd, lines)
            # The system wrote a part and raised nothing, as it does where the disk is full.
            if count != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._sync:
                os.fsync(self._fd)
        except BaseException:
            self._cut()
            raise

        # From here on the records are written.
        self._end += count
        return count

    def flush(self) -> None:
        """Wait until all that was written is on disk. Raises OSError, and AuditError in a child.

        For `AuditTrail(…, flush=file.flush)`, in place of `sync=True`: threads then wait together.
        """
        if not self._process.is_own():
            raise AuditError("this trail belongs to another process: open a trail in each process")
        os.fsync(self._fd)

    def _problem(self, text: str) -> AuditError:
        """What is raised: what is wrong, and with which file."""
        return AuditError(f"{text} ({shown_file(self._path)})")

    def close(self) -> None:
        """Let go of the file, and of its lock. Again, it does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _lock(self) -> None:
        """Take the file for this process, until it is closed. Waits for nobody.

        The lock is of this one opening: in the same process, too, nobody opens the trail again.
        """
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._problem(
                "another process, or another part of this one, writes to this trail: each has a "
                "file of its own, as TrailFile.for_worker(...) opens it"
            ) from None

    def _size(self) -> int:
        """How long the file is. Raises AuditError if the path is another file's, or nobody's.

        The lock is of the file. Once it has another name, somebody else can open the path, and lock
        that: then two would write one trail.
        """
        # The number of an open file is given to no other one.
        own = os.fstat(self._fd)
        try:
            found = os.stat(self._path)
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino):
            raise self._problem(
                "the file of this trail was renamed or deleted: open the path again"
            )
        return own.st_size

    def _cut(self) -> None:
        """Take off what stands behind the last whole record.

        Raises OSError, and then it stands there still. `write` refuses a file of another length.
        """
        os.ftruncate(self._fd, self._end)
        if self._sync:
            os.fsync(self._fd)

    def _last(self) -> tuple[Head | None, int]:
        """The head that the last whole line is, and where that ends.

        Raises AuditError for a file that is no trail.
        """
        size = os.fstat(self._fd).st_size
        if size == 0:
            return None, 0

        # From the end, as far back as the last whole line goes: it ends in the last line feed, and
        # starts behind the one before. A trail may be large, and one line of it is enough.
        tail = b""
        at = size
        while at and tail.count(b"\n") < 2:
            step = min(_BLOCK, at)
            at -= step
            tail = os.pread(self._fd, step, at) + tail

        whole, _, torn = tail.rpartition(b"\n")
        _, _, line = whole.rpartition(b"\n")

        # Its number is all that is read of it. Whether it is a record of this trail, and whole, the
        # check of the trail says.
        try:
            seq = msgspec.convert(decode_json(line)["seq"], int)
        except (ValueError, KeyError):
            raise self._problem("the file does not end in records of a trail") from None

        # The next record goes on from the digest of this line.
        digest = b64encode(primitives.sha256(line))
        return Head(seq, digest), size - len(torn)
