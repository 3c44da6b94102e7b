"""The newest overlay, for verifiers (spec, "Overlay").

Two rules, whatever the store does:

- Nothing is taken that no trusted operator signed, and nothing that is older than what is known
  here, or of another history (spec 36.10, 36.22). So a store can withhold, and it cannot change or
  roll back.
- A look that fails leaves what is known. That grows old, and verifiers then deny (spec 36.7).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from time import time

from captoken._format import primitives
from captoken._format.clocks import Clock, read_clock, read_exactly
from captoken._format.errors import OverlayError
from captoken._format.public_keys import signing_key
from captoken._format.spelling import escape
from captoken._language.caveats import V1, Vocabulary
from captoken._language.overlay import Overlay
from captoken.control._lock import ForkSafeLock
from captoken.stores.ports import SnapshotStore

_log = logging.getLogger("captoken")


class Feed:
    """The newest overlay, for verifiers: loads it, checks who signed it, and never goes back.

        feed = Feed(store, [operator_public])
        verifier = Verifier(keyring, overlay=feed)

    - `store` has the snapshots. You need not trust it.
    - `operators` are the public keys of those who may sign.
    - `every` is the number of seconds between two looks at the store; 0 is each time. It looks only
      when somebody asks, and runs no thread. An int is in whole seconds of the clock; a float, such
      as 0.5, is exact.
    - `vocabulary` is the verifier's: an entry with a caveat that is not in it refuses the whole
      snapshot.
    - `timeout` is how many seconds one waits, at the start, for another thread that loads the first
      overlay. Then it goes without, and is denied.

    What it cannot load or read it logs, and keeps to the overlay that it has, if it has one. That
    one grows old, and verifiers deny past their bound. So whoever keeps snapshots from a server
    stops it from allowing, and no more.

    Does not ask how old an overlay is: verifiers do. A feed that has just begun knows no number to
    go back behind, and takes what it is shown first.

    Threads share a feed, and so may verifiers. A forked child goes on with its own copy. A look
    costs one `load`, and a snapshot that is new is verified and decoded, once. Where it is large, a
    look costs one `since`, and what is new is applied, and hashed as a whole (spec 36.18).
    """

    def __init__(
        self,
        store: SnapshotStore,
        operators: Iterable[bytes | str],
        *,
        every: float = 5,  # seconds
        vocabulary: Vocabulary = V1,
        timeout: float = 5.0,  # seconds
        clock: Clock = time,
    ) -> None:
        self._store = store
        self._operators = [signing_key(operator, "operator") for operator in operators]
        self._every = every
        self._read = read_clock if isinstance(every, int) else read_exactly
        self._vocabulary = vocabulary
        self._timeout = timeout
        self._has_deltas = hasattr(store, "since")  # a store may do without
        self._clock = clock

        # Changed under the lock. An overlay is immutable, so that it may be read without.
        self._lock = ForkSafeLock()
        self._overlay: Overlay | None = None
        self._seen: bytes | None = None  # the hash of what it was opened from, if that was whole
        self._looked: float | None = None  # when
        self.problem: Exception | None = None  # what the last look came upon

    def __call__(self) -> Overlay | None:
        """The newest overlay that is known here, or None if there never was one.

        It may be stale: verifiers ask. Never raises for what the store does: see `problem`. Raises
        what the clock raises.
        """
        now = self._read(self._clock)
        if self._overlay is None or self._is_due(now):
            with self._lock.held(self._patience) as mine:
                # Whoever looked meanwhile has looked for those who waited.
                if mine and self._is_due(now):
                    # Before the look: a store that fails is asked again when it is due, and not
                    # by every request meanwhile.
                    self._looked = now
                    with suppress(Exception):
                        self._take()
        return self._overlay

    def _is_due(self, now: float) -> bool:
        """Is it time for a look? A clock that was set back makes it so as well."""
        return self._looked is None or not 0 <= now - self._looked < self._every

    @property
    def _patience(self) -> float:
        """How many seconds to wait for another thread that looks, as a lock is told."""
        # Without an overlay all would be denied, so that the first look is worth waiting for.
        if self._overlay is None:
            return self._timeout
        # One looks; the others take what there is, unless they must not.
        return -1 if self._every == 0 else 0

    def refresh(self) -> Overlay:
        """Look at the store now, whenever the last look was.

        For the start of a server, which should not begin without an overlay. Raises what the store
        raises, and OverlayError for what is no overlay or an older one.
        """
        with self._lock.held():
            self._looked = self._read(self._clock)
            return self._take()

    def _take(self) -> Overlay:
        """What lies in the store now, if it will do; the lock is held.

        What comes of it is told when it changes, so that a store that is down fills no log. Raises
        as `refresh` does.
        """
        before = self.problem
        self.problem = None
        try:
            self._overlay = found = self._look()
        except Exception as error:
            self.problem = error
            raise
        finally:
            if str(before) != str(self.problem):
                self._tell()
        return found

    def _tell(self) -> None:
        """Log what came of a look. The text may be a stranger's: it is escaped."""
        said = "can be had again" if self.problem is None else escape(str(self.problem))
        _log.warning("the overlay: %s", said)

    def _look(self) -> Overlay:
        """The overlay in the store: by deltas from a large one that is known, or whole.

        Raises what the store raises, and OverlayError for one that may not follow on ours (spec
        36.10).
        """
        known = self._overlay
        if known is not None and known.is_large and self._has_deltas:
            followed = self._followed(known)
            if followed is not None:
                return followed

        data = self._store.load()
        if data is None:
            raise OverlayError("there is no snapshot yet: the operator publishes one (renew)")
        # The same bytes were opened before: their signature need not be checked again.
        seen = primitives.sha256(data) if type(data) is bytes else b""
        if known is not None and seen == self._seen:
            return known

        loaded = Overlay.open(data, self._operators, vocabulary=self._vocabulary)
        if known is not None and primitives.equal(loaded.digest, known.digest):
            loaded = known  # it was known by deltas, and is whole by now

        # Whoever distributes snapshots could put an older one there, in which less is revoked.
        # One of the same number is refused too: two that differ were signed by mistake.
        elif known is not None and loaded.seq <= known.seq:
            raise OverlayError(
                f"snapshot {loaded.seq} is not newer than {known.seq}, which is known here"
            )
        # Signed anew on a store that was set back, it lacks what the newer ones said.
        elif known is not None and not loaded.follows(known):
            raise OverlayError(
                f"snapshot {loaded.seq} is of another history than {known.seq}, which is known"
                " here: the store was set back; look what is lost, and have an operator resume"
            )
        self._tell_resumed(known, loaded)
        self._seen = seen
        return loaded

    def _tell_resumed(self, known: Overlay | None, loaded: Overlay) -> None:
        """Log that something was lost, once: what people wrote is escaped."""
        said = loaded.resumed
        if said is not None and (known is None or known.resumed != said):
            _log.warning(
                "the overlay: resumed as snapshot %d by %s, after %d was there: %s",
                said.seq,
                escape(said.by),
                said.lost,
                escape(said.why),
            )

    def _followed(self, known: Overlay) -> Overlay | None:
        """What the deltas in the store lead to; None if the whole has to be loaded.

        Raises what the store raises.
        """
        deltas = self._store.since(known.digest)
        if deltas is None:
            return None
        if not deltas:
            return known
        try:
            followed = known.follow(deltas, self._operators, vocabulary=self._vocabulary)
        except OverlayError:
            # 36.18. They change nothing. The whole is judged by itself.
            return None
        # What was loaded last is an older one by now.
        self._seen = None
        return followed
