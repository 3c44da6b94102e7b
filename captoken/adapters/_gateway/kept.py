"""What a gateway reads again while it runs: its keyring, and the path of its trail.

    keys = KeyringFile(folder / "keyring.json")
    Verifier(keys, "payments")

A keyring that cannot be read any more grows old, as an overlay does: the one that was read last
counts for a minute, and then there is none. So a file that is written in place, or mounted anew,
stops nobody. One that an operator has spoilt, perhaps in retiring a key, does not keep that key.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from time import monotonic

from captoken._format.errors import AuditError, KeyringError
from captoken.adapters._gateway.credentials import Unavailable, looks_of
from captoken.adapters._told import Told
from captoken.audit._kept import TrailKept
from captoken.keys.keyring import Keyring

_log = logging.getLogger("captoken.gateway")

# Seconds between two looks at the file, and seconds that a keyring counts which cannot be read now.
EVERY = 1
BOUND = 60


class KeyringFile:
    """The keyring in a file, as a Verifier asks for it. Raises KeyringError where there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Looked at before it is read: what changes meanwhile is read again.
        self._seen: tuple[int, ...] | None = self._looks()
        self._keyring = Keyring.load(path)
        self._looked = self._well = monotonic()
        self._problem = ""

    def __call__(self) -> Keyring:
        """The keyring as the file has it. Raises Unavailable where it is gone for too long."""
        if monotonic() - self._looked >= EVERY:
            self.look()
        if self._looked - self._well > BOUND:
            raise Unavailable(self._problem)
        return self._keyring

    def look(self, *, tells: bool = False) -> None:
        """Read the file, if it has changed. The log has what came of it; with `tells`, anyway."""
        self._looked = monotonic()
        seen = self._looks()
        has_changed = seen != self._seen or bool(self._problem)
        try:
            if has_changed:
                self._keyring = Keyring.load(self._path)
        except KeyringError as error:
            if str(error) != self._problem or tells:
                self._problem = str(error)
                _log.error("the keyring is not read again, and counts for %d s: %s", BOUND, error)
            return
        self._seen, self._well, self._problem = seen, self._looked, ""
        if has_changed or tells:
            keys = self._keyring
            _log.warning("the keyring is read again: it has %s", ", ".join(keys.key_ids))

    def _looks(self) -> tuple[int, ...] | None:
        with suppress(OSError):
            return looks_of(self._path)
        return None


class Kept:
    """Both, and the task that looks after them while a server runs."""

    def __init__(self, keyring: KeyringFile, trail: TrailKept | None, sign_every: float) -> None:
        self._keyring = keyring
        self._trail = trail
        self._sign_every = sign_every
        self._told = Told()

    def tell(self) -> None:
        """Have all read again, soon. For handlers of signals, and from whichever thread."""
        self._told.tell()

    async def look_after(self) -> None:
        """Until it is cancelled: sign the end of the trail in time, and read again when told."""
        while True:
            if await self._told.within(self._sign_every):
                self._keyring.look(tells=True)
                self._reopen()
            if self._trail is not None:
                self._trail.sign()

    def _reopen(self) -> None:
        try:
            if self._trail is not None and self._trail.reopen():
                _log.warning("the trail was moved: it goes on in a new file")
        except AuditError as error:
            _log.error("the trail cannot be opened again, and all is denied: %s", error)
