"""The snapshots in a store, as an operator reads and writes them (spec 36.16 to 36.20).

    read     the newest snapshot: by deltas from a large one that was read before, or as a whole
    put      the next one: a delta after it, or a whole snapshot in its place
    fold     a whole snapshot in the place of many deltas

The rules of this file:

- Everything that is read is opened, and so checked, before anything is built on it.
- A store must answer True. After any other answer, nothing counts as published.
- Nothing here reads the clock, or knows which number was seen before; an Operator does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from captoken._format import primitives
from captoken._format.errors import OverlayError
from captoken._format.spelling import escape
from captoken._language.caveats import Vocabulary
from captoken._language.overlay import MarkedDelta, Overlay, whole
from captoken.keys.secret import OperatorKey
from captoken.stores.ports import SnapshotStore

_log = logging.getLogger("captoken")

_FOLD = 256  # the number of deltas after which the whole snapshot is published again


class Lying(NamedTuple):
    """The content of a store: the bytes, if they were read as a whole, and the overlay."""

    data: bytes | None
    overlay: Overlay | None


class Written(NamedTuple):
    """A snapshot to publish, as a whole or as a delta."""

    opened: Overlay
    whole: bytes = b""
    step: MarkedDelta | None = None


class Shelf:
    """A store, and the snapshot that was read from it last.

    The caller holds a lock, so that only one of an operator's threads reads or writes. Another
    process may write between two calls; the store detects that in `put`.
    """

    def __init__(
        self,
        store: SnapshotStore,
        trusted: Sequence[bytes | str],
        vocabulary: Vocabulary,
    ) -> None:
        self._store = store
        self._trusted = trusted  # the public keys whose snapshots are accepted
        self._vocabulary = vocabulary

        # Deltas are optional for a store.
        self.has_deltas = hasattr(store, "append") and hasattr(store, "since")

        self._known: Overlay | None = None
        self._seen: bytes | None = None  # the hash of the whole snapshot that was opened last
        self._behind = 0  # the number of deltas after the snapshot in the store

    # --- reading ---

    def read(self, *, whole: bool) -> Lying:
        """The newest snapshot in the store, or nothing if there never was one.

        A large snapshot that was read before is read by deltas. Then its bytes are missing, unless
        `whole` is set. Raises what the store raises, and OverlayError for an invalid snapshot.
        """
        known = self._known
        if known is not None and known.is_large and self.has_deltas and not whole:
            followed = self._followed(known)
            if followed is not None:
                self._known = followed
                return Lying(None, followed)

        data = self._store.load()
        if data is None:
            return Lying(None, None)

        # These bytes may have been opened before.
        seen = primitives.sha256(data) if type(data) is bytes else b""
        if known is None or seen != self._seen:
            known = self.open(data)
            self._known, self._seen = known, seen
            self._behind = data.count(b"\n")
        return Lying(data, known)

    def _followed(self, known: Overlay) -> Overlay | None:
        """The overlay after the deltas in the store; None if the whole snapshot must be loaded."""
        deltas = self._store.since(known.digest)
        if deltas is None:
            return None
        if not deltas:
            return known
        try:
            followed = self.follow(known, deltas)
        except OverlayError:
            return None  # 36.18. They change nothing.

        # The snapshot that was loaded last is now outdated.
        self._seen = None
        self._behind += len(deltas)
        return followed

    def open(self, data: bytes) -> Overlay:
        """The overlay in a snapshot, as a verifier with this vocabulary reads it.

        Raises OverlayError.
        """
        return Overlay.open(
            data,
            self._trusted,
            vocabulary=self._vocabulary,
        )

    def follow(self, known: Overlay, deltas: Sequence[bytes]) -> Overlay:
        """The overlay after deltas, as a verifier with this vocabulary reads it.

        Raises OverlayError.
        """
        return known.follow(
            deltas,
            self._trusted,
            vocabulary=self._vocabulary,
        )

    # --- writing ---

    def put(self, written: Written, before: bytes | None) -> bool:
        """Write it after what was read, if that is still there. Raises what the store raises.

        The store checks that and writes in one step. Only True counts as success.
        """
        if written.step is not None:
            if self._store.append(*written.step) is not True:
                return False
            self._seen = None
            self._behind += 1
        else:
            if self._store.publish(written.whole, before) is not True:
                return False
            self._seen = primitives.sha256(written.whole)
            self._behind = 0

        self._known = written.opened
        return True

    def fold(self, key: OperatorKey, opened: Overlay, last: bytes) -> None:
        """Write the whole snapshot to the store once many deltas follow it (36.20).

        `last` is the newest delta. The change itself is already published. So a failure here is
        only logged, and tried again at the next change.
        """
        if self._behind < _FOLD:
            return
        try:
            data = self._store.load()
            if data is None or not data.endswith(b"\n" + last):
                return  # another operator was first, and will do it
            if self._store.publish(whole(key, opened), data) is True:
                self._behind = 0
        except Exception as error:
            _log.warning("the overlay was not made whole: %s", escape(str(error)))
