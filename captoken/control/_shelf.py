"""What lies in a store of snapshots, as an operator has read it (spec 36.16 to 36.20).

    read     the newest: by deltas from a large one that was read before, or whole
    put      what follows on it: a delta behind it, or a whole snapshot in its place
    fold     a whole snapshot in the place of many deltas

The rules of this file:

- What is read is opened, and so checked, before anything is built on it.
- A store has to say True: whatever else it answers, nothing was published.
- Nothing here asks the time, or which number was seen before: an Operator does.
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

_FOLD = 256  # deltas behind a snapshot until it is published whole


class Lying(NamedTuple):
    """What lies in the store: the bytes, if it was read whole, and the overlay in it."""

    data: bytes | None
    overlay: Overlay | None


class Written(NamedTuple):
    """A snapshot that is to be published, and how: whole, or as a delta."""

    opened: Overlay
    whole: bytes = b""
    step: MarkedDelta | None = None


class Shelf:
    """A store, and what was read in it last.

    For whoever holds a lock, one call at a time: of the threads of an operator one reads or puts.
    Another process may come between two calls. That is for the store to see, in `put`.
    """

    def __init__(
        self,
        store: SnapshotStore,
        trusted: Sequence[bytes | str],
        vocabulary: Vocabulary,
    ) -> None:
        self._store = store
        self._trusted = trusted  # public keys of those who may have signed what is read
        self._vocabulary = vocabulary

        # A store may do without deltas.
        self.has_deltas = hasattr(store, "append") and hasattr(store, "since")

        self._known: Overlay | None = None
        self._seen: bytes | None = None  # the hash of what it was opened from, if that was whole
        self._behind = 0  # how many deltas lie behind the snapshot

    # --- reading ---

    def read(self, *, whole: bool) -> Lying:
        """The newest in the store, or nothing if there never was one.

        What is large, and was read before, is read by deltas. Then there are no bytes of it, but
        for `whole`. Raises what the store raises, and OverlayError for what cannot be read.
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

        # The same bytes were opened before.
        seen = primitives.sha256(data) if type(data) is bytes else b""
        if known is None or seen != self._seen:
            known = self.open(data)
            self._known, self._seen = known, seen
            self._behind = data.count(b"\n")
        return Lying(data, known)

    def _followed(self, known: Overlay) -> Overlay | None:
        """What the deltas in the store lead to; None if the whole has to be loaded."""
        deltas = self._store.since(known.digest)
        if deltas is None:
            return None
        if not deltas:
            return known
        try:
            followed = self.follow(known, deltas)
        except OverlayError:
            return None  # 36.18. They change nothing.

        # What was loaded last is an older one by now.
        self._seen = None
        self._behind += len(deltas)
        return followed

    def open(self, data: bytes) -> Overlay:
        """A snapshot as a verifier with this vocabulary reads it. Raises OverlayError."""
        return Overlay.open(
            data,
            self._trusted,
            vocabulary=self._vocabulary,
        )

    def follow(self, known: Overlay, deltas: Sequence[bytes]) -> Overlay:
        """What deltas lead to, as a verifier with this vocabulary reads it. Raises OverlayError."""
        return known.follow(
            deltas,
            self._trusted,
            vocabulary=self._vocabulary,
        )

    # --- writing ---

    def put(self, written: Written, before: bytes | None) -> bool:
        """Put it behind what was read, if that still lies there. Raises what the store raises.

        The store asks, in one step with the writing. Only True is a yes: a store that answers with
        something else has promised nothing.
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
        """Make the snapshot in the store whole, once many deltas lie behind it (36.20).

        `last` is the delta that led to it. What was asked for is published already: so what goes
        wrong here is logged, and tried again at the next change.
        """
        if self._behind < _FOLD:
            return
        try:
            data = self._store.load()
            if data is None or not data.endswith(b"\n" + last):
                return  # another came first, and will do it
            if self._store.publish(whole(key, opened), data) is True:
                self._behind = 0
        except Exception as error:
            _log.warning("the overlay was not made whole: %s", escape(str(error)))
