"""The newest overlay, for verifiers (spec, "Overlay").

Two rules hold, whatever the store does:

- A feed accepts only snapshots that a trusted operator signed. It accepts none that is older than
  the one it knows, or that has another history (spec 36.10, 36.22). So a store can withhold
  snapshots, but cannot change them or roll back.
- If a look at the store fails, the feed keeps the overlay that it has. That overlay becomes too
  old, and verifiers then deny (spec 36.7).
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
    - `operators` are the public keys of the operators that you trust.
    - `every` is the number of seconds between looks at the store; 0 means every time. A feed runs
      no thread: it looks only when a verifier asks. An int counts whole seconds of the clock; a
      float, such as 0.5, is exact.
    - `vocabulary` is the verifier's. An entry with an unknown caveat makes the whole snapshot
      invalid.
    - `timeout` is how many seconds a request waits, at the start, while another thread loads the
      first overlay. After that, the request is denied.

    If the feed cannot load or read a snapshot, it logs that and keeps the overlay that it has. That
    overlay becomes too old, and verifiers then deny. So whoever keeps snapshots from a server can
    only stop it from allowing anything.

    A feed does not check how old an overlay is; verifiers do. A new feed knows no earlier number,
    so it accepts the first snapshot that it gets.

    Threads and verifiers may share a feed. A forked child continues with its own copy. A look costs
    one `load`; a new snapshot is verified and decoded once. For a large snapshot a look costs one
    `since`, and the changes are applied and the whole is hashed (spec 36.18).
    """

    def __init__(
        self,
        store: SnapshotStore,
        operators: Iterable[bytes | str],
        *,
        every: float = 5,  # in seconds
        vocabulary: Vocabulary = V1,
        timeout: float = 5.0,  # in seconds
        clock: Clock = time,
    ) -> None:
        self._store = store
        self._operators = [signing_key(operator, "operator") for operator in operators]
        self._every = every
        self._read = read_clock if isinstance(every, int) else read_exactly
        self._vocabulary = vocabulary
        self._timeout = timeout
        self._has_deltas = hasattr(store, "since")  # deltas are optional for a store
        self._clock = clock

        # Changed under the lock only. An overlay is immutable, so reading it needs no lock.
        self._lock = ForkSafeLock()
        self._overlay: Overlay | None = None
        self._seen: bytes | None = None  # the hash of the whole snapshot that was opened last
        self._looked: float | None = None  # the time of the last look at the store
        self.problem: Exception | None = None  # the error of the last look; None if it succeeded

    def __call__(self) -> Overlay | None:
        """The newest overlay that this feed has, or None if it never had one.

        It may be too old; verifiers check that. Never raises for errors of the store: see
        `problem`. Raises what the clock raises.
        """
        now = self._read(self._clock)
        if self._overlay is None or self._is_due(now):
            with self._lock.held(self._patience) as mine:
                # Another thread may have looked at the store while this one waited.
                if mine and self._is_due(now):
                    # Set this before the look. So a failing store is asked again only when that
                    # is due, and not by every request.
                    self._looked = now
                    with suppress(Exception):
                        self._take()
        return self._overlay

    def _is_due(self, now: float) -> bool:
        """True if it is time for a look. That includes a clock that was set back."""
        return self._looked is None or not 0 <= now - self._looked < self._every

    @property
    def _patience(self) -> float:
        """How many seconds to wait for another thread that looks; -1 means without limit."""
        # Without an overlay everything is denied, so it is worth waiting for the first look.
        if self._overlay is None:
            return self._timeout
        # One thread looks at the store; the others use the overlay that they have.
        return -1 if self._every == 0 else 0

    def refresh(self) -> Overlay:
        """Look at the store now, whenever the last look was.

        Call it when a server starts, so that it does not start without an overlay. Raises what the
        store raises, and OverlayError for an invalid or older overlay.
        """
        with self._lock.held():
            self._looked = self._read(self._clock)
            return self._take()

    def _take(self) -> Overlay:
        """The overlay in the store now, if it is acceptable. The caller holds the lock.

        A result is logged only when it changes, so that a store that is down does not fill the log.
        Raises what `refresh` raises.
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
        """Log the result of a look, escaped, because a stranger may have written the text."""
        said = "can be had again" if self.problem is None else escape(str(self.problem))
        _log.warning("the overlay: %s", said)

    def _look(self) -> Overlay:
        """The overlay in the store: by deltas if a large one is known, or as a whole.

        Raises what the store raises, and OverlayError for one that may not follow ours (spec
        36.10).
        """
        known = self._overlay
        if known is not None and known.is_large and self._has_deltas:
            followed = self._followed(known)
            if followed is not None:
                return followed

        data = self._store.load()
        if data is None:
            raise OverlayError("there is no snapshot yet: the operator has to publish one (renew)")
        # If these bytes were opened before, their signature need not be checked again.
        seen = primitives.sha256(data) if type(data) is bytes else b""
        if known is not None and seen == self._seen:
            return known

        loaded = Overlay.open(data, self._operators, vocabulary=self._vocabulary)
        if known is not None and primitives.equal(loaded.digest, known.digest):
            loaded = known  # already known through deltas, and now stored as a whole snapshot

        # Whoever distributes snapshots could serve an older one, in which less is revoked.
        # A different one with the same number is refused too: it was signed by mistake.
        elif known is not None and loaded.seq <= known.seq:
            raise OverlayError(
                f"snapshot {loaded.seq} is not newer than {known.seq}, which was already read here"
            )
        # It was signed on a store that had been restored, so it lacks newer entries.
        elif known is not None and not loaded.follows(known):
            raise OverlayError(
                f"snapshot {loaded.seq} does not continue snapshot {known.seq}, which was already "
                "read here: the store was set back; find out what is lost, and have an operator "
                "resume"
            )
        self._tell_resumed(known, loaded)
        self._seen = seen
        return loaded

    def _tell_resumed(self, known: Overlay | None, loaded: Overlay) -> None:
        """Log once that data was lost, escaped, because people wrote the text."""
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
        """The overlay after the deltas in the store; None if the whole snapshot must be loaded.

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
            # The deltas lead to nothing new (36.18). Check the whole snapshot instead.
            return None
        # The snapshot that was loaded last is now outdated.
        self._seen = None
        return followed
