"""The operator: revokes and restricts issued tokens, and undoes that (spec, "Overlay").

Each change goes one way:

    _newest     what lies in the store, refused if the store has gone back, or lost its history
    change      what is dropped and what is added, worked out on what stands
    _written    signed under the next number: whole, or what is large as a delta
    opened      read as a verifier reads it: nothing is published that readers refuse
    publish     behind what was read; if another came first, all again

Nothing that was acknowledged is taken back in silence. That holds for a second operator who writes
at the same time, and for a store that shows an old snapshot (spec 36.16). It holds for a store that
was set back while somebody else signed on (spec 36.24).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from random import uniform
from time import sleep, time
from typing import Any, Unpack

from captoken._format import names, primitives
from captoken._format.clocks import CLOCKS_DIFFER, Clock, Moment, epoch_seconds, read_clock
from captoken._format.encoding import MAX_INTEGER, b64encode, decode_json
from captoken._format.entropy import random_bytes
from captoken._format.errors import OverlayError, StoreError
from captoken._format.public_keys import signing_key
from captoken._format.spelling import escape, shown, spelled_time
from captoken._language.caveats import V1, Vocabulary
from captoken._language.entries import Entry, Select, Selector
from captoken._language.overlay import LIFE, Overlay, Resumed, delta, snapshot
from captoken._writing.compose import Terms, WriterContext, compose_request, spell
from captoken._writing.keywords import Strings
from captoken.control._asked import Change, Recall, asked_for
from captoken.control._lock import ForkSafeLock
from captoken.control._seen import LastSeen
from captoken.control._shelf import Lying, Shelf, Written
from captoken.keys.secret import OperatorKey
from captoken.stores.ports import SnapshotStore

_log = logging.getLogger("captoken")

_TRIES = 32  # to publish, while others publish first
# Seconds between two of them, at most: a thousandth for the first, then twice as long each time.
_SHORT_PAUSE = 0.001
_LONG_PAUSE = 0.05
_KEPT = 86_400  # seconds that an entry is kept after its end: for the clock of whoever signs next

# The number of who resumes is as many times the seconds since the epoch. So it is greater than any
# that was lost, where nobody knows these.
_A_SECOND = 1000


class Operator:
    """Revokes and restricts issued tokens, and undoes that.

        operator = Operator(key, store, by="ops:ann")
        operator.revoke(token=token_id, why="lost laptop")
        operator.narrow(task="q3", operations=["select"], why="reads only until the audit is over")
        operator.renew()                        # more often than the verifiers' bound

    Reads and writes the newest snapshot in `store`. Each change signs a new snapshot with the next
    number. `renew` does so without a change: verifiers deny once the newest is older than their
    bound, so somebody has to, more often than that.

    - `by` is who, for the record. It is shown to people, and proves nothing.
    - `life` is how many seconds a snapshot is good for, whatever a verifier's bound.
    - `vocabulary` is that of the verifiers: what they do not know they refuse whole.
    - `clock` and `random` are for tests.

    `last` is what an earlier process has seen (`operator.seen`), or its number alone. A store that
    has less, or that has another history, has lost something, and raises OverlayError. So does one
    whose newest snapshot has run out, since a newer one should have been there: unless
    `alone=True` says that whoever signs keeps the same `last`. Who has looked, and knows what is
    lost, says why it goes on: `resume="restored from Monday's backup"`. That is signed, under the
    name `by`, and verifiers that know what was lost go on too (spec 36.24).

    `trusted` are public keys of operators from whom this one takes over. One key is for one
    overlay: whoever can put a snapshot of another one in its place changes what stands.

    Threads share an operator. Several operators may share a store: each change is made anew until
    it follows on the newest snapshot. A change costs a load, a signature over all entries, and a
    publication. Where the snapshot is large it costs a hash of it, and a delta is what is signed
    and published (spec 36.17); now and then it is published whole.
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
        self._key = key
        self._by = names.name(by, "by")
        others = [signing_key(operator, "operator") for operator in trusted]
        self._shelf = Shelf(store, (key.public, *others), vocabulary)
        self._seen = _seen(last)
        if resume is not None and not names.exact_str(resume, "resume").strip():
            raise ValueError("resume is empty: say why, and what is lost")
        self._resume = resume
        self._alone = alone is True
        self._life = life
        self._vocabulary = vocabulary
        self._clock = clock
        self._random = random

        # Who takes over signs the whole once: readers may come who trust the new key alone.
        self._takes_over = bool(others)

        # Held for one step with the store, and not over a whole change: that no other came
        # between is for `publish` to say.
        self._lock = ForkSafeLock()

    @property
    def last(self) -> int:
        """The highest number that was seen in the store.

        0 if nothing was.
        """
        return self._seen.seq

    @property
    def seen(self) -> str:
        """The newest snapshot that was seen in the store, as a text of one line.

        Keep it for the next process, outside the store: it shows there that the store went back.
        """
        return str(self._seen)

    def revoke(self, *, why: str, until: Moment | None = None, **select: Unpack[Select]) -> Entry:
        """The tokens that are selected stop working: `revoke(token=token_id, why="lost laptop")`.

        What is said to select must all hold: see Selector. `until` is when the entry ends, in
        seconds since the epoch or as an aware datetime; left out, it stands until it is lifted.
        `why` is for people, and shown to them.

        Returns once the snapshot is published. A verifier denies as soon as it has it, and at the
        latest when its bound is over (spec 36.12). Does not check that any token is selected.

        Raises TypeError or ValueError for what selects nothing, StoreError, OverlayError. After a
        StoreError it may be published or not: to ask again does no harm.
        """
        return self._add(select, None, why, until)

    def revoke_all(self, *, why: str, until: Moment | None = None) -> Entry:
        """Every token that there is stops working, whoever holds it.

        Those too that an issuer minted whose clock is a minute ahead, as verifiers bear it. So what
        is minted in the next minute is revoked as well, and what is minted later works. Raises as
        `revoke` does.
        """
        first_after = read_clock(self._clock) + CLOCKS_DIFFER + 1
        return self.revoke(issued_before=first_after, why=why, until=until)

    def end_task(self, task: str, *, why: str = "the task is over") -> Entry:
        """All tokens of a task, and of the tasks below it, stop working, for good.

        Those that are minted for it later stop too, until the entry is lifted. Raises as `revoke`.
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
        """The tokens that are selected can do no more than the caveats permit.

        `narrow(task="q3", operations=["select"], why="…")` takes the keywords of a Selector and
        those of `attenuate`, but for `task`, which selects. As there, who names tables or
        operations closes tools, unless `keep="tools"`.

        The entry is about requests alone (spec 36.6): not about lineage or keys, and it counts
        nothing. Raises as `revoke` does, for a caveat of another kind too.
        """
        # Keywords that select are taken out first: what is left are caveats.
        select = {key: given.pop(key) for key in Selector.__struct_fields__ if key in given}
        terms = Terms(given, keep)
        context = WriterContext(self._vocabulary, self._clock)
        of_the_chain = "it belongs to a link of the chain"
        stated = compose_request(terms, context, "an overlay", of_the_chain)
        return self._add(select, decode_json(spell(stated)), why, until)

    def lift(self, entry_id: str, *, why: str = "") -> None:
        """Take an entry off again: tokens that it stopped work again, as far as nothing else does.

        The log says who, and why; the snapshot does not. Raises ValueError if none that stands has
        that id, StoreError, OverlayError.
        """
        now = read_clock(self._clock)
        found = False

        def without(newest: Overlay | None) -> Change:
            nonlocal found
            entry = None if newest is None else newest.entry(entry_id)
            stands = entry is not None and entry.stands(now)
            # An earlier try may have taken it off, and its answer was lost: found once is found.
            if not stands and not found:
                raise ValueError(f"no entry {shown(entry_id)} stands: it has ended, or was lifted")
            found = True
            return Change(drop=[entry_id] if stands else ())

        self._publish(without)
        _log.info("entry %s lifted by %s: %s", entry_id, self._by, escape(why))

    def renew(self) -> Overlay:
        """Sign anew what stands, without what has run out.

        So verifiers hear that this is still all. Call it more often than the tightest bound of any
        verifier, with a margin for the time that a snapshot takes to arrive. Raises StoreError,
        OverlayError.
        """
        return self._publish(lambda _: Change())

    def recall(self, recall: Recall, *, most: int) -> Entry:
        """The entry that stops what a holder asks for; new, unless one stood that does.

        For a ControlPlane, which has found out who asks and what for: not checked here. Of one
        hand-over and all below it at most `most` stand (spec 37.10).

        Raises RecallError where no more fits, StoreError, OverlayError.
        """
        now = read_clock(self._clock)
        answer: Entry | None = None
        stood = False

        def make(
            select: Selector,
            asked: tuple[str, ...],
            why: str,
            until: int | None,
        ) -> Entry:
            return self._made(select, None, why, until, asked)

        def with_it(newest: Overlay | None) -> Change | None:
            nonlocal answer, stood
            answer, change = asked_for(
                recall,
                () if newest is None else newest.entries,
                make=make,
                most=most,
                now=now,
                size=0 if newest is None else newest.asked_bytes,
            )
            stood = change is None
            return change

        self._publish(with_it)
        assert answer is not None  # noqa: S101 - the change was asked for
        if not stood:
            self._log_made(answer)
        return answer

    def entries(self) -> tuple[Entry, ...]:
        """What stands now, by the store. Raises StoreError, OverlayError."""
        _, newest = self._newest()
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
        """Publish one more entry, under a random id. Without a `link` it revokes.

        Raises TypeError or ValueError for an entry that says nothing, StoreError, OverlayError.
        """
        if not names.exact_str(why, "why").strip():
            raise ValueError("why is empty: say why, since the record is for people")

        # Made once, before any try: each try publishes the same entry, under the same id.
        ends = None if until is None else epoch_seconds(until, "until")
        entry = self._made(Selector(**select), link, why, ends)
        if not entry.stands(entry.at):
            raise ValueError("until is over already: it is a time, in seconds since the epoch")

        def with_it(newest: Overlay | None) -> Change:
            # An earlier try may have put it there, and its answer was lost.
            is_there = newest is not None and newest.entry(entry.id) == entry
            return Change() if is_there else Change(add=[entry])

        self._publish(with_it)
        self._log_made(entry)
        return entry

    def _made(
        self,
        select: Selector,
        link: dict[str, Any] | None,
        why: str,
        until: int | None,
        asked: tuple[str, ...] | None = None,
    ) -> Entry:
        """An entry of now, under a random id."""
        return Entry(
            asked=asked,
            at=read_clock(self._clock),
            by=self._by,
            id=b64encode(self._random(8)),
            link=link,
            select=select,
            until=until,
            why=why,
        )

    def _log_made(self, entry: Entry) -> None:
        """Log an entry, after it stands. What people wrote is escaped: it could steer a
        terminal.
        """
        on = escape(str(entry.select))
        _log.info("entry %s by %s on %s: %s", entry.id, self._by, on, escape(entry.why))

    def _newest(self, *, whole: bool = False) -> Lying:
        """What lies in the store: see `Shelf.read`.

        Raises OverlayError where the store has lost what it had, or may have (spec 36.16). To go on
        from there would take back what was acknowledged: who is shown an old snapshot signs anew
        what it says.
        """
        with self._lock.held():
            lying = self._shelf.read(whole=whole)
            newest = lying.overlay
            if self._resume is not None:
                return lying  # somebody has looked: what is there is what counts

            # A store that went back shows by its number and its history, where they are known.
            # Where none is, an old snapshot shows by its end: a newer one should have been there.
            self._seen.check(newest)
            if newest is not None:
                if not self._alone and read_clock(self._clock) >= newest.expires_at:
                    ended = spelled_time(newest.expires_at)
                    raise OverlayError(
                        f"snapshot {newest.seq} ran out at {ended}: is it the newest?"
                    )
                self._seen = LastSeen.of(newest)
        return lying

    def _publish(self, change: Callable[[Overlay | None], Change | None]) -> Overlay:
        """The newest snapshot, changed; again, as long as others come first.

        `change` may be called several times, each time with what is then the newest. None is that
        nothing has to change.

        Raises StoreError after many tries, what the store raises, and OverlayError.
        """
        refused = b""  # the hash of a snapshot that the store knew no delta by
        for tries in range(_TRIES):
            if tries:
                _wait_a_little(tries)
            # 36.16. Before it reads, so that what is signed is all that stood at its `iat`. Else
            # what comes second, and lacks what the first said, could be dated after the first.
            now = read_clock(self._clock)
            before, newest = self._newest()
            # A history begins, and goes on without what was lost, in a whole snapshot (36.21).
            by_delta = newest is not None and newest.is_large and newest.past is not None
            by_delta = by_delta and self._resume is None
            if newest is not None and primitives.equal(newest.digest, refused):
                by_delta = False
            # Who takes over, and a store without deltas, or that knows none by this mark: whole.
            by_delta = by_delta and self._shelf.has_deltas and not self._takes_over
            if newest is not None and not by_delta and before is None:
                before, newest = self._newest(whole=True)

            wanted = change(newest)
            if wanted is None and newest is not None:
                return newest  # what stands is enough
            written = self._written(newest, wanted or Change(), now, by_delta=by_delta)
            if self._put(written, before):
                return written.opened
            if written.step is not None:
                refused = written.step.after
        raise StoreError(f"{_TRIES} others published first: try again")

    def _written(
        self,
        newest: Overlay | None,
        change: Change,
        now: int,
        *,
        by_delta: bool,
    ) -> Written:
        """What follows on `newest`, signed; opened, so that nothing is published that readers
        refuse.

        `now` is a time before `newest` was read. Entries that have ended are kept for a day, for a
        signer whose clock is behind. A snapshot is never dated before the one that it follows on
        (spec 36.16).
        """
        entries = () if newest is None else newest.entries
        drop = {*change.drop, *(entry.id for entry in entries if _is_over(entry, now))}

        issued_at = now if newest is None else max(now, newest.issued_at)
        if issued_at > now + CLOCKS_DIFFER:
            # The newest was signed by a clock that was wrong, and is of no use to anyone.
            issued_at = now
        seq = self._seen.seq + 1
        resumed = None if newest is None else newest.resumed
        if self._resume is not None:
            last = 0 if newest is None else newest.seq
            seq = max(seq, last + 1, issued_at * _A_SECOND)
            resumed = Resumed(by=self._by, lost=self._seen.seq, seq=seq, why=self._resume)

        if newest is not None and by_delta:
            step = delta(
                self._key,
                newest,
                drop=drop,
                add=change.add,
                seq=seq,
                issued_at=issued_at,
                life=self._life,
            )
            return Written(self._shelf.follow(newest, [step.delta]), step=step)

        kept = [*(entry for entry in entries if entry.id not in drop), *change.add]
        # Deltas go on from the order of ids alone. What is small stays in that of the making.
        if newest is not None and newest.is_large:
            kept.sort(key=lambda entry: entry.id)
        made = snapshot(
            self._key,
            kept,
            seq=seq,
            issued_at=issued_at,
            life=self._life,
            past=() if newest is None else newest.next_past,
            resumed=resumed,
        )
        return Written(self._shelf.open(made), whole=made)

    def _put(self, written: Written, before: bytes | None) -> bool:
        """Publish it, if what was read still lies there. Raises what the store raises."""
        with self._lock.held():
            if not self._shelf.put(written, before):
                return False
            self._seen = LastSeen.of(written.opened)
            self._resume = None
            if written.step is None:
                self._takes_over = False
            else:
                self._shelf.fold(self._key, written.opened, written.step.delta)
            return True

    def __repr__(self) -> str:
        return f"<Operator {self._by}>"


def _seen(last: int | str) -> LastSeen:
    """What was seen before. Raises TypeError or ValueError for what is nothing of the kind."""
    if type(last) is str:
        return LastSeen.read(last)
    if type(last) is not int or not 0 <= last <= MAX_INTEGER:
        raise ValueError(f"last is the number of a snapshot, or 0, not {shown(last)}")
    return LastSeen(last)


def _is_over(entry: Entry, now: int) -> bool:
    """Has it ended, and been kept long enough after?"""
    return entry.until is not None and now >= entry.until + _KEPT


def _wait_a_little(tries: int) -> None:
    """Let others finish. How long is drawn, so that those who lost do not all come back at once."""
    longest = min(_LONG_PAUSE, _SHORT_PAUSE * 2**tries)
    sleep(uniform(0, longest))  # noqa: S311
