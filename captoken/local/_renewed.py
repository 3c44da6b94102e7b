"""The overlay of an office, which is signed anew by the process that verifies."""

from __future__ import annotations

import logging
from collections.abc import Callable

from captoken._format.clocks import CLOCKS_DIFFER, Clock, read_clock
from captoken._format.errors import CaptokenError, OverlayError
from captoken._format.spelling import shown, spelled_time
from captoken._language.caveats import Vocabulary
from captoken._language.entries import SelectorFacts
from captoken._language.overlay import Overlay
from captoken._writing.token import Token
from captoken.control._lock import ForkSafeLock
from captoken.control._seen import LastSeen, keep_seen, kept_seen
from captoken.control.feed import Feed
from captoken.control.operator import Operator
from captoken.keys.secret import OperatorKey
from captoken.local._folder import LIFE
from captoken.stores.sqlite import SQLiteSnapshots

_log = logging.getLogger("captoken")

# A snapshot older than this many seconds is signed anew when somebody asks for it. Verifiers
# accept one that is twelve times as old.
_RENEWED = 5


class Renewed:
    """The newest overlay, signed anew in time by the same process that verifies.

    An Office makes it, and its verifier asks it. It runs no thread: whoever asks when the snapshot
    is older than five seconds signs the next one. So a token with a `fresh` below that may be
    denied.

    - A change by this process's operator takes effect at once, or not at all.
    - A change that another process has published, such as a command, takes effect within two
      seconds.
    - If a snapshot cannot be signed, the known one becomes too old, and verifiers deny.

    Threads may share it.
    """

    def __init__(
        self,
        key: OperatorKey,
        snapshots: SQLiteSnapshots,
        seen: str,
        *,
        by: str,
        vocabulary: Vocabulary,
        clock: Clock,
        also: Callable[[], None],
    ) -> None:
        """`seen` is the file that keeps what was seen, and `also` is called when it is written.

        Raises OverlayError if the store has lost data.
        """
        self._feed = Feed(snapshots, [key.public], every=1, vocabulary=vocabulary, clock=clock)
        self._seen = seen
        self._clock = clock
        self._also = also
        self._lock = ForkSafeLock()

        self._noted = kept_seen(seen)
        found = self._feed.refresh()
        self._noted.check(found)

        # It continues from the snapshot that was seen. Every signer here keeps that in one file,
        # so an expired snapshot is still the newest one.
        self.operator = Operator(
            key,
            snapshots,
            by=by,
            last=str(LastSeen.of(found)),
            alone=True,
            life=LIFE,
            vocabulary=vocabulary,
            clock=clock,
        )

    def __call__(self) -> Overlay:
        """The newest overlay. Raises what the store raises, and OverlayError."""
        known = self._known()
        if self._is_due(known):
            with self._lock.held():
                known = self._known()
                # The thread that had the lock before may have signed it.
                if self._is_due(known):
                    known = self._renewed(known)
        return known

    def check_not_revoked(self, token: Token, subject: str, agent: str, task: str) -> None:
        """Raise OverlayError, with what to do, if an entry already revokes the token."""
        overlay = self()
        facts = SelectorFacts(token.unverified.root, (), task, (agent,))
        for entry in overlay.on(facts, read_clock(self._clock)):
            if overlay.link(entry) is not None:
                continue
            select, instead = entry.select, "take another name"
            fields = ("kid", "subject", "agent", "task")
            given = {name: getattr(select, name) for name in fields}
            whose = ", ".join(f"{name} {value}" for name, value in given.items() if value)
            what = f"of {whose}" if whose else ""
            if select.issued_before is not None:  # all of that time, whatever their names
                what += f" minted before {spelled_time(select.issued_before)}"
                instead = "wait until then"
            raise OverlayError(
                f"tokens {what.strip()} are revoked ({shown(entry.why)}), new ones too: {instead}, "
                f"or give the rights back with office.operator.lift({entry.id!r})"
            )

    def _known(self) -> Overlay:
        """The overlay in the store, which includes every change by this process."""
        known = self._feed()
        if known is None or known.seq < self.operator.last:
            return self._feed.refresh()
        return known

    def _is_due(self, known: Overlay) -> bool:
        """True if a new snapshot must be signed; also if the last one is dated far ahead."""
        age = read_clock(self._clock) - known.issued_at
        return age >= _RENEWED or age < -CLOCKS_DIFFER

    def _renewed(self, known: Overlay) -> Overlay:
        """The next overlay, newly signed; or the known one, if that fails."""
        try:
            self.operator.renew()
            self.note()
        except CaptokenError as error:
            _log.warning("the overlay was not signed anew: %s", type(error).__name__)
        return self._known()

    def note(self) -> None:
        """Write down which snapshot was the last, which reveals a store that went back.

        Raises KeyringError if it cannot be written.
        """
        if self.operator.last > self._noted.seq:
            keep_seen(self._seen, self.operator.seen)
            self._noted = LastSeen.read(self.operator.seen)
            self._also()
