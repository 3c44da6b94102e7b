"""The newest snapshot that an operator has seen, and the file that keeps it (spec 36.16, 36.24).

    operator.json.seen    17 q83K…: the number, and the hash if there is a history

Because the file is outside the store, it reveals a store that went back. It also reveals a store
that was restored to an old state, on which somebody who did not know has signed since.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from captoken._format import primitives
from captoken._format.encoding import b64decode, b64encode
from captoken._format.errors import OverlayError
from captoken._format.spelling import shown_file
from captoken._language.overlay import Overlay
from captoken.keys.files import write_private

_RESUME = 'look what is lost, and go on by resume="…", which says it'


# A hash of 32 bytes in canonical base64url (1.2) may follow the number.
_is_seen = re.compile("([0-9]{1,16})(?: ([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]))?").fullmatch


class LastSeen(NamedTuple):
    """The newest snapshot that was seen. It reveals a store that went back.

        str(LastSeen(17, digest))               # "17 q83K…", to be kept
        LastSeen.read("17 q83K…")
    """

    seq: int = 0
    digest: bytes = b""  # empty if unknown, or if the snapshot was signed without a history

    @classmethod
    def of(cls, overlay: Overlay) -> LastSeen:
        """The number and hash of that overlay."""
        return cls(overlay.seq, b"" if overlay.past is None else overlay.digest)

    @classmethod
    def read(cls, text: str) -> LastSeen:
        """Read the text that was kept: a number, and perhaps a hash. Raises ValueError."""
        found = _is_seen(text)
        if found is None:
            raise ValueError(
                "last must be the number of a snapshot, with or without its hash after it"
            )
        return cls(int(found[1]), b64decode(found[2] or ""))

    def check(self, newest: Overlay | None) -> None:
        """Raise OverlayError if a store has lost data (spec 36.16, 36.24)."""
        seq = 0 if newest is None else newest.seq
        if seq < self.seq:
            raise OverlayError(
                f"the store has lost snapshots: it had snapshot {self.seq}, and now it has {seq}; "
                f"{_RESUME}"
            )
        if newest is None or not self.digest or primitives.equal(newest.digest, self.digest):
            return
        if newest.names(self.seq, self.digest) is False:
            raise OverlayError(
                f"snapshot {seq} does not continue snapshot {self.seq}, which was there: the store "
                f"was set back, and somebody signed new snapshots; {_RESUME}"
            )

    def __str__(self) -> str:
        return f"{self.seq} {b64encode(self.digest)}".rstrip()


def keep_seen(path: str | os.PathLike[str], seen: str) -> None:
    """Write what an operator has seen (`Operator.seen`) to a file. Raises KeyringError."""
    write_private(path, seen.encode() + b"\n")


def kept_seen(path: str | os.PathLike[str]) -> LastSeen:
    """Read what an operator has seen. Raises FileNotFoundError, or OverlayError for another file.

    A file of an earlier release has only the number.
    """
    try:
        with open(path, encoding="ascii") as file:
            return LastSeen.read(file.read(100).removesuffix("\n"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError):
        raise OverlayError(
            f"{shown_file(path)} must hold the number of the last snapshot, and cannot be read"
        ) from None
