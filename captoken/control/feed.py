"""The newest overlay, for verifiers (spec, "Overlay")."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from time import time

from captoken._format.clocks import Clock, read_clock
from captoken._format.errors import OverlayError
from captoken._format.public_keys import signing_key
from captoken._format.spelling import escape
from captoken._language.caveats import V1, Vocabulary
from captoken._language.overlay import Overlay
from captoken.control._lock import _Lock
from captoken.stores.ports import SnapshotStore

_log = logging.getLogger("captoken")


class Feed:
    """The newest overlay, for verifiers: loads it from a store, checks who signed it, and never goes back.

    Looks at the store when it is asked and `every` seconds have passed; 0 is each time. What it cannot load or read it passes
    over for as long as it has an overlay, and logs it: that one grows old, and verifiers deny past their bound.
    """

    def __init__(
        self,
        store: SnapshotStore,
        operators: Iterable[bytes | str],
        *,
        every: int = 5,  # seconds
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
    ) -> None:
        self._store, self._every, self._vocabulary, self._clock = store, every, vocabulary, clock
        self._operators = [signing_key(operator, "operator") for operator in operators]
        self._lock = _Lock()
        self._seen: bytes | None = None
        self._overlay: Overlay | None = None
        self._looked: int | None = None
        self.problem: Exception | None = None  # what the last look came upon

    def __call__(self) -> Overlay | None:
        """The newest overlay that is known here, or None."""
        now = read_clock(self._clock)
        due = self._looked is None or not 0 <= now - self._looked < self._every
        if due:
            waits = self._overlay is None or self._every == 0
            with self._lock.held(waits) as mine:  # one looks; the others take what there is
                if mine:
                    self._looked = now
                    with suppress(Exception):
                        self._take()
        return self._overlay

    def refresh(self) -> Overlay:
        """Look at the store now. Raises what the store raises, and OverlayError for what is no overlay or an older one."""
        with self._lock.held():
            self._looked = read_clock(self._clock)
            return self._take()

    def _take(self) -> Overlay:
        """What lies in the store now, if it will do. What comes of it is told once, when it changes."""
        before, self.problem = self.problem, None
        try:
            self._overlay = found = self._look()
        except Exception as error:
            self.problem = error
            raise
        finally:
            if str(before) != str(self.problem):
                _log.warning(
                    "the overlay: %s",
                    "can be had again" if self.problem is None else escape(str(self.problem)),
                )
        return found

    def _look(self) -> Overlay:
        data, known = self._store.load(), self._overlay
        if data is None:
            raise OverlayError("there is no snapshot yet")
        if known is not None and data == self._seen:
            return known
        loaded = Overlay.open(data, self._operators, vocabulary=self._vocabulary)
        if known is not None and loaded.seq <= known.seq:
            raise OverlayError(
                f"snapshot {loaded.seq} is not newer than {known.seq}, which is known here"
            )
        self._seen = data
        return loaded
