"""The trail of a server that runs on while logs are rotated, and whose end is signed in time.

    with TrailKept("trail.jsonl", key=key) as trail:
        Verifier(keyring, audit=trail)
        trail.reopen()      # on SIGHUP
        trail.sign()        # again and again; the end of the block does it too
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from captoken._verification.decision import Attribution, Decision
from captoken._verification.telling import failed
from captoken.audit.trail import AuditTrail, Record
from captoken.keys.secret import AuditKey
from captoken.stores.trail_file import TrailFile

_log = logging.getLogger("captoken")


class TrailKept:
    """A trail in a file. It records as an AuditTrail does, with the `options` of one.

    - `reopen` opens the path again where the file was moved away. The new file goes on where the
      old one ended, so that `cat` puts them together; a file that has records goes on with its own.
    - `sign` writes a checkpoint where something was recorded since the last one. One that fails is
      logged, and denies nothing: what was recorded stands there.

    One thread at a time calls `reopen`, `sign` and `close`. Raises AuditError as a TrailFile does.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, key: AuditKey | None = None, **options: Any
    ) -> None:
        self._path = os.path.abspath(os.fspath(path))
        self._key = key
        self._options = options
        self._file = TrailFile(self._path)
        self._seen = _identity(self._path)
        self._trail = AuditTrail(self._file.write, head=self._file.head, key=key, **options)
        self._signed = self._trail.head
        self.waits = self._trail.waits  # as a Recorder says it

    def record(self, decision: Decision) -> None:
        """What a verifier calls."""
        self._trail.record(decision)

    def record_all(self, decisions: Sequence[Decision]) -> None:
        """What a verifier calls for several."""
        self._trail.record_all(decisions)

    def record_issuance(self, stated: Record, minted: Attribution | None = None) -> None:
        """What an issuer calls."""
        self._trail.record_issuance(stated, minted)

    def reopen(self) -> bool:
        """Open the path again, if another file is there by now, or none. Has it been so?

        Raises AuditError, and then nothing is recorded until a later call opens it.
        """
        if _identity(self._path) == self._seen:
            return False
        file = TrailFile(self._path)
        head = file.head or self._trail.head
        # A new object: it describes tokens again, for who reads the new file alone.
        trail = AuditTrail(file.write, head=head, key=self._key, **self._options)
        old, self._file, self._trail = self._file, file, trail
        self._seen = _identity(self._path)
        old.close()
        return True

    def sign(self) -> None:
        """A checkpoint, where there is a key and something was recorded since the last one."""
        if self._key is None or self._trail.head == self._signed:
            return
        try:
            self._signed = self._trail.checkpoint()
        except Exception as error:
            _log.error("a checkpoint was not written: %s", failed(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The end is signed, and the file let go of."""
        self.sign()
        self._file.close()


def _identity(path: str) -> tuple[int, int] | None:
    """Which file is at a path; None for none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
