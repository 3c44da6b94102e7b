"""The operator: revokes and restricts issued tokens, and undoes that (spec, "Overlay").

An operator says which entries to drop and which to add. Its `SnapshotHistory` signs the next
snapshot with that change, and publishes it. If somebody else was first, it asks for the change
again, on what is the newest snapshot then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from time import time
from typing import Any, Unpack

import msgspec

from captoken._format import names
from captoken._format.clocks import CLOCKS_DIFFER, Clock, Moment, epoch_seconds, read_clock
from captoken._format.entropy import random_bytes
from captoken._format.public_keys import signing_key
from captoken._format.spelling import escape, shown
from captoken._language.caveats import V1, Vocabulary
from captoken._language.entries import Entry, Select, Selector
from captoken._language.overlay import LIFE, Overlay
from captoken._writing.keywords import Strings
from captoken.control._asked import Change, Recall, asked_for
from captoken.control._entries import EntryWriter, selecting
from captoken.control._history import SnapshotHistory
from captoken.control._shelf import Shelf
from captoken.keys.secret import OperatorKey
from captoken.stores.ports import SnapshotStore

_log = logging.getLogger("captoken")

# By whom an entry is that a rule made: this, and the name of the rule (spec 36.26).
REACTION = "react:"


class Operator:
    """Revokes and restricts issued tokens, and undoes that.

        operator = Operator(key, store, by="ops:ann")
        operator.revoke(token=token_id, why="lost laptop")
        operator.narrow(task="q3", operations=["select"], why="reads only until the audit is over")
        operator.renew()                        # more often than the verifiers' bound

    It reads and writes the newest snapshot in `store`. Each change signs a new snapshot with the
    next number. Verifiers deny once the newest snapshot is older than their limit
    (`max_staleness`). So somebody must call `renew` more often than that: it signs a new snapshot
    without a change.

    - `by` names the operator in the record. It is shown to people, and proves nothing.
    - `life` is how many seconds a snapshot stays valid, whatever a verifier's limit.
    - `vocabulary` is that of the verifiers. They refuse a whole snapshot if it has an unknown
      caveat.
    - `clock` and `random` are for tests.

    `last` is the snapshot that an earlier process has seen: its `operator.seen`, or only the
    number. A store that has less, or another history, has lost data, which raises OverlayError. The
    same happens if the newest snapshot has expired, because there should be a newer one.
    `alone=True` prevents that: it promises that every signer keeps the same `last`. If you know
    what is lost, you can continue by giving the reason: `resume="restored from Monday's backup"`.
    The reason is signed, with the name `by`, and verifiers that know the lost snapshots continue
    too (spec 36.24).

    `trusted` has the public keys of operators that this one takes over from. Use one key for one
    overlay only. Otherwise, somebody could replace the snapshot of one overlay by that of another.

    Threads may share an operator. Several operators may share a store: each change is repeated
    until it follows the newest snapshot. A change costs one load, one signature over all entries,
    and one publication. For a large snapshot it costs a hash of the snapshot, and only a delta is
    signed and published (spec 36.17). From time to time, the whole snapshot is published again.
    """

    def __init__(
        self,
        key: OperatorKey,
        store: SnapshotStore,
        *,
        by: str,
        trusted: Iterable[bytes | str] = (),
        last: int | str = 0,
        resume: str | None = None,
        alone: bool = False,
        life: int = LIFE,
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self._by = names.name(by, "by")
        others = [signing_key(operator, "operator") for operator in trusted]
        self._history = SnapshotHistory(
            Shelf(store, (key.public, *others), vocabulary),
            key,
            by=by,
            last=last,
            resume=resume,
            alone=alone,
            life=life,
            takes_over=bool(others),
            clock=clock,
        )
        self._writer = EntryWriter(self._by, vocabulary, clock, random)
        self._clock = clock

    @property
    def last(self) -> int:
        """The highest snapshot number seen in the store, or 0."""
        return self._history.seen.seq

    @property
    def seen(self) -> str:
        """The newest snapshot seen in the store, as one line of text.

        Keep it outside the store for the next process. It reveals a store that went back.
        """
        return str(self._history.seen)

    def revoke(self, *, why: str, until: Moment | None = None, **select: Unpack[Select]) -> Entry:
        """Revoke the selected tokens: `revoke(token=token_id, why="lost laptop")`.

        A token is selected if it matches every keyword: see Selector. `until` is when the entry
        ends, in seconds since the epoch or as an aware datetime. Without it, the entry stays until
        it is lifted. `why` is a text that people are shown.

        Returns once the snapshot is published. A verifier denies as soon as it has the snapshot,
        and at the latest when its own snapshot is too old (spec 36.12). Does not check that any
        token is selected.

        Raises TypeError or ValueError if nothing is selected, StoreError and OverlayError. After a
        StoreError the entry may or may not be published; it is safe to call this again.
        """
        return self._add(select, None, why, until)

    def revoke_all(self, *, why: str, until: Moment | None = None) -> Entry:
        """Revoke every existing token, whoever holds it.

        To include tokens from an issuer whose clock is up to a minute ahead, which verifiers
        tolerate, this also revokes tokens that are minted in the next minute. Tokens that are
        minted later work. Raises what `revoke` raises.
        """
        first_after = read_clock(self._clock) + CLOCKS_DIFFER + 1
        return self.revoke(issued_before=first_after, why=why, until=until)

    def end_task(self, task: str, *, why: str = "the task is over") -> Entry:
        """Revoke all tokens of a task and of the tasks below it, for good.

        Tokens that are minted later for the task are revoked too, until the entry is lifted. Raises
        what `revoke` raises.
        """
        return self.revoke(task=task, why=why)

    def narrow(
        self,
        *,
        why: str,
        until: Moment | None = None,
        keep: Strings = (),
        **given: Any,
    ) -> Entry:
        """Restrict the selected tokens: they can do no more than the caveats permit.

        `narrow(task="q3", operations=["select"], why="…")` takes the keywords of a Selector and
        those of `attenuate`, except that `task` selects. As in `attenuate`, naming tables or
        operations blocks tools, unless `keep="tools"`.

        The entry restricts accesses only (spec 36.6). It cannot restrict lineage or keys, and
        cannot count uses. Raises what `revoke` raises, also for such a caveat.
        """
        select = selecting(given)
        return self._add(select, self._writer.link(given, keep), why, until)

    def lift(self, entry_id: str, *, why: str = "") -> None:
        """Remove an entry, so that its tokens work again if no other entry stops them.

        The log records who lifted it and why; the snapshot does not. An entry that a rule made ends
        now, and its id is kept for a day, so that the rule does not act on the same cause again.

        Raises ValueError if no current entry has that id, StoreError and OverlayError.
        """
        now = read_clock(self._clock)
        found = False

        def without(newest: Overlay | None) -> Change:
            nonlocal found
            entry = None if newest is None else newest.entry(entry_id)
            stands = entry is not None and entry.stands(now)
            # An earlier try may have removed it and lost the answer, so finding it once is enough.
            if not stands and not found:
                raise ValueError(
                    f"there is no entry {shown(entry_id)} now: it has expired, or was lifted"
                )
            found = True
            if entry is None or not stands:
                return Change()
            ended = msgspec.structs.replace(entry, until=now)
            return Change(drop=[entry_id], add=[ended] if entry.by.startswith(REACTION) else ())

        self._history.publish(without)
        _log.info("entry %s lifted by %s: %s", entry_id, self._by, escape(why))

    def once(
        self,
        entry_id: str,
        *,
        by: str,
        why: str,
        until: Moment | None = None,
        keep: Strings = (),
        **given: Any,
    ) -> Entry | None:
        """Make the entry of this id, by a rule, unless there is one. None if there is, or was.

        For who acts by itself, and may act on one cause twice: after an interruption, or beside
        another process. `by` is `react:` and the name of the rule, and an entry of that kind keeps
        its id for a day after it ended or was lifted. The other arguments are those of `narrow`, or
        if they only select, of `revoke`. Raises what these raise.
        """
        select = selecting(given)
        link = self._writer.link(given, keep) if given else None
        if not by.startswith(REACTION):
            raise ValueError(f"by must be {REACTION} and the name of a rule")
        ends = None if until is None else epoch_seconds(until, "until")
        entry = msgspec.structs.replace(
            self._writer.entry(Selector(**select), None, names.exact_str(why, "why"), ends, link),
            by=names.name(by, "by"),
            id=entry_id,
        )
        made = False

        def with_it(newest: Overlay | None) -> Change | None:
            nonlocal made
            there = None if newest is None else newest.entry(entry_id)
            if there is None:
                made = True
                return Change(add=[entry])
            made = made and there == entry  # an earlier try published it, and lost the answer
            return None

        self._history.publish(with_it)
        if made:
            self._log_made(entry)
        return entry if made else None

    def renew(self) -> Overlay:
        """Sign a new snapshot of the current entries, without those that have expired.

        It tells verifiers that nothing has changed. Call it more often than the smallest limit of
        any verifier, with a margin for the time that a snapshot takes to arrive. Raises StoreError
        and OverlayError.
        """
        return self._history.publish(lambda _: Change())

    def recall(self, recall: Recall, *, most: int) -> Entry:
        """The entry that revokes what a holder asked for: a new one, or one that already does.

        A ControlPlane calls this after it has checked who asks for what; nothing is checked here.
        At most `most` such entries are active for one hand-over and everything below it (spec
        37.10).

        Raises RecallError if no more fit, StoreError and OverlayError.
        """
        now = read_clock(self._clock)
        answer: Entry | None = None
        stood = False

        def with_it(newest: Overlay | None) -> Change | None:
            nonlocal answer, stood
            answer, change = asked_for(
                recall,
                () if newest is None else newest.entries,
                make=self._writer.entry,
                most=most,
                now=now,
                size=0 if newest is None else newest.asked_bytes,
            )
            stood = change is None
            return change

        self._history.publish(with_it)
        assert answer is not None  # noqa: S101 - the change was asked for
        if not stood:
            self._log_made(answer)
        return answer

    def entries(self) -> tuple[Entry, ...]:
        """The current entries in the store. Raises StoreError and OverlayError."""
        _, newest = self._history.newest()
        now = read_clock(self._clock)
        entries = () if newest is None else newest.entries
        return tuple(entry for entry in entries if entry.stands(now))

    def _add(
        self,
        select: Mapping[str, Any],
        link: dict[str, Any] | None,
        why: str,
        until: Moment | None,
    ) -> Entry:
        """Publish one more entry, under a random id. Without a `link`, it revokes.

        Raises TypeError or ValueError for an entry that selects nothing, StoreError and
        OverlayError.
        """
        if not names.exact_str(why, "why").strip():
            raise ValueError("why is empty: give a reason, for the people who read the record")

        # Made before the first try, so that each try publishes the same entry, with the same id.
        ends = None if until is None else epoch_seconds(until, "until")
        entry = self._writer.entry(Selector(**select), None, why, ends, link)
        if not entry.stands(entry.at):
            raise ValueError("until is in the past: pass a later time, in seconds since the epoch")

        def with_it(newest: Overlay | None) -> Change:
            # An earlier try may have published it and lost the answer.
            is_there = newest is not None and newest.entry(entry.id) == entry
            return Change() if is_there else Change(add=[entry])

        self._history.publish(with_it)
        self._log_made(entry)
        return entry

    def _log_made(self, entry: Entry) -> None:
        """Log an entry after it was published, with escaped texts.

        Unescaped text that people wrote could control a terminal.
        """
        on = escape(str(entry.select))
        _log.info("entry %s by %s on %s: %s", entry.id, self._by, on, escape(entry.why))

    def __repr__(self) -> str:
        return f"<Operator {self._by}>"
