"""A second registry, in plain dicts: what the tables are compared with.

It rests on the rules alone (`_rules`), which say what becomes of an exchange. What is kept, found and forgotten it does by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from time import time
from typing import NamedTuple, TypeAlias

from captoken._format.errors import StoreError
from captoken.issuance.registry._rules import (
    DAY,
    Bounds,
    KnownTask,
    Logout,
    State,
    Used,
    Void,
    becomes,
    bounds,
    check_ending,
    first_floor,
    is_due,
    may_be_out,
    new_names,
    ruling_on,
    stream_of,
    voided,
)
from captoken.issuance.registry.ports import (
    Ending,
    Exchange,
    Named,
    Seen,
    StartedTask,
    Unpublished,
)
from captoken.stores.own_process import OwnProcess


class _Out:
    """A task, and what came of it."""

    def __init__(self, task: StartedTask, actor: str | None, begun: int) -> None:
        self.task = task
        self.actor = actor

        # When, by the clock of whoever entered it.
        self.begun = begun
        self.is_past = False  # somebody has seen it past its deadline
        self.is_ended = False

        # A grant, the provider and the session that it was taken by.
        self.taken: set[tuple[str, str, str | None]] = set()

        # What ended or narrowed it. None comes twice.
        self.changes: list[Unpublished] = []

    def is_over(self) -> bool:
        """Is it ended, or past its deadline by any clock that has looked?"""
        return self.is_past or self.is_ended


class _Kept(NamedTuple):
    """An assertion that was used."""

    used: Used

    # Until when it is good.
    until: int

    # Whose task it started or joined: it counts in that subject's part.
    subject: str


# The grant and the subject of tasks.
_Whose: TypeAlias = tuple[str, str]

# Of so many parts one subject may have one.
_PARTS = 10


def _whose(task: StartedTask) -> _Whose:
    """What a task is found by, when tasks are counted."""
    return task.grant, task.subject


def _drop(by: dict[_Whose, dict[str, _Out]], task: StartedTask) -> None:
    """Take a task out of an index. None is left of one that has none."""
    whose = _whose(task)
    del by[whose][task.id]
    if not by[whose]:
        del by[whose]


def _is_of(ending: Ending, session: str | None) -> bool:
    """Is what was taken by that session among what ends, as far as sessions go?"""
    if ending.sessionless:
        return session is None
    return ending.session in (None, session)


class RegistryModel:
    """Tasks for the threads of one process."""

    def __init__(
        self,
        *,
        floor: int | None = None,
        limit: int = 100_000,
        clock: Callable[[], float] = time,
    ) -> None:
        """A registry that knows nothing yet. Raises what the clock raises."""
        # Not re-entrant: no method that takes it calls another one that does.
        self._lock = Lock()
        self._process = OwnProcess()
        self._limit = limit
        self._state = State(first_floor(clock) if floor is None else floor)

        self._used: dict[bytes, _Kept] = {}
        self._out: dict[str, _Out] = {}

        # The same by grant and subject: all of them, and those that are not over.
        self._of: dict[_Whose, dict[str, _Out]] = {}
        self._live: dict[_Whose, dict[str, _Out]] = {}

        self._voids: dict[Void, int] = {}  # without their times, which are the values
        self._heard: dict[tuple[str, str], int] = {}
        self._streams: dict[str, int] = {}
        self._names: list[Named] = []
        self._due: dict[int, Unpublished] = {}
        self._number = 0

    def _own_lock(self) -> Lock:
        """The lock, to be held for a whole call. Raises StoreError in a forked child."""
        if not self._process.is_own():
            raise StoreError(
                "this registry in memory belongs to another process: use a file to share one",
            )
        return self._lock

    # --- what starts

    def keep_names(self, named: Iterable[Named]) -> None:
        """Keep by which names it knows providers: see Registry.

        Raises IssuanceError, and StoreError in a forked process.
        """
        with self._own_lock():
            self._names += new_names(named, self._names)

    def enter(self, entry: Exchange) -> StartedTask:
        """Write what one exchange starts or joins: see Registry.

        Raises IssuanceError, and StoreError when full and in a forked process.
        """
        with self._own_lock():
            verdict = ruling_on(entry, self._state, self, max(self._limit // _PARTS, 2))
            self._sweep(entry.now)
            new = {seen.digest for seen in entry.seen} - self._used.keys()
            self._check_room(len(new))

            # Nothing below raises, so that all of it is written or nothing.
            task = verdict.task
            if verdict.is_new:
                self._begin(task, entry)
            taken = (entry.grant, entry.provider, entry.session or None)
            self._out[task.id].taken.add(taken)
            for seen in entry.seen:
                self._remember(seen, task, entry.subject)
            return task

    def _begin(self, task: StartedTask, entry: Exchange) -> None:
        """Write a new task, in each of the places where it is looked for."""
        out = _Out(task, entry.actor, entry.now)
        self._out[task.id] = out
        for by in (self._of, self._live):
            by.setdefault(_whose(task), {})[task.id] = out

    def _remember(self, seen: Seen, task: StartedTask, subject: str) -> None:
        """Write that an assertion was used. What it came with the first time stays."""
        kept = self._used.get(seen.digest)
        if kept is None:
            self._used[seen.digest] = _Kept(
                used=Used(seen.companions, task.id),
                until=seen.until,
                subject=subject,
            )
            return

        # Under one ID of SAML another time may be signed: the later one counts.
        until = max(kept.until, seen.until)
        self._used[seen.digest] = kept._replace(until=until)

    def _check_room(self, new: int) -> None:
        """Raise StoreError where it is full."""
        if len(self._used) + new > self._limit:
            raise StoreError(
                f"{self._limit} assertions are remembered, and there is no room for more: pass a larger limit="
            )

    def is_live(self, task: str, now: int) -> bool:
        """Is the task out, and neither ended nor past its deadline?"""
        with self._own_lock():
            out = self._out.get(task)
            return out is not None and not out.is_over() and now < out.task.deadline

    # What `judge` asks, of whoever holds the lock.

    def held(self, subject: str, after: int) -> int:
        """For `judge` alone."""
        return sum(kept.subject == subject and kept.until > after for kept in self._used.values())

    def used(self, digest: bytes) -> Used | None:
        """For `judge` alone."""
        kept = self._used.get(digest)
        return None if kept is None else kept.used

    def logouts(
        self,
        provider: str,
        session: str | None,
        subject: str,
    ) -> Iterable[Logout]:
        """For `judge` alone."""
        for void, at in self._voids.items():
            if void.of == "sessionless" and session is not None:
                continue
            whose = session if void.of == "session" else subject
            if void.provider == provider and void.whose == whose:
                yield Logout(
                    of_session=void.of == "session",
                    at=at,
                    grant=void.grant,
                    starts_only=void.starts_only,
                )

    def kept(self, task: str) -> KnownTask | None:
        """For `judge` alone."""
        out = self._out.get(task)
        if out is None:
            return None
        return KnownTask(
            task=out.task,
            actor=out.actor,
            is_over=out.is_over(),
        )

    def live(self, grant: str, subject: str, now: int) -> int:
        """For `judge` alone."""
        live = self._live.get((grant, subject), {}).values()
        return sum(now < out.task.deadline for out in live)

    def begun(self, grant: str, subject: str, after: int) -> int:
        """For `judge` alone."""
        all_of_it = self._of.get((grant, subject), {}).values()
        return sum(out.begun > after for out in all_of_it)

    def is_taken(self, task: str, grant: str) -> bool:
        """For `judge` alone."""
        return any(taken == grant for taken, _, _ in self._out[task].taken)

    # --- what ends

    def end(self, ending: Ending) -> tuple[Unpublished, ...]:
        """End or narrow tasks, and remember that the login is over: see Registry.

        Raises ValueError, and StoreError in a forked process.
        """
        check_ending(ending)
        with self._own_lock():
            if ending.jti is not None:
                stream = stream_of(ending)
                is_new = self._note(stream, ending.jti, ending.now)
                if not is_new:
                    return ()

            # Of the same login, the latest end counts.
            for void in voided(ending):
                key = void._replace(at=0)
                self._voids[key] = max(self._voids.get(key, void.at), void.at)

            # In the order of their ids, as a database gives them.
            made: list[Unpublished] = []
            for task in sorted(self._out):
                made += self._ended(self._out[task], ending)
            self._sweep(ending.now)
            return tuple(made)

    def _ended(self, out: _Out, ending: Ending) -> list[Unpublished]:
        """What comes of a task by an ending, written down. Nothing, if it is not about it."""
        if out.is_ended or not may_be_out(out.task.deadline, ending.now):
            return []
        if ending.task not in (None, out.task.id):
            return []
        if ending.subject not in (None, out.task.subject):
            return []

        # Of what was taken in it, that which the ending is about.
        taken = {
            grant
            for grant, provider, session in out.taken
            if ending.provider in (None, provider) and _is_of(ending, session)
        }

        made: list[Unpublished] = []
        for narrowing in becomes(ending, taken):
            if any(change.narrowing == narrowing for change in out.changes):
                continue
            self._number += 1
            change = Unpublished(
                self._number,
                out.task,
                narrowing,
            )
            made.append(change)
            if narrowing is None:
                self._is_over(out)
                out.is_ended = True
        out.changes += made
        self._due.update((change.number, change) for change in made)
        return made

    def unpublished(self) -> tuple[Unpublished, ...]:
        """What the overlay does not say yet, from the first on. Raises StoreError likewise."""
        with self._own_lock():
            return tuple(self._due.values())

    def published(self, number: int) -> None:
        """The overlay says so. One that is not due is passed over: it was said twice."""
        with self._own_lock():
            self._due.pop(number, None)

    def hear(self, stream: str, jti: str, now: int) -> bool:
        """Write that a stream told something. False if it was heard before."""
        with self._own_lock():
            is_new = self._note(stream, jti, now)
            if is_new:
                self._sweep(now)
            return is_new

    def heard_at(self, stream: str) -> int | None:
        """When the stream told something last. None: never yet, or not to this registry."""
        with self._own_lock():
            return self._streams.get(stream)

    def _note(self, stream: str, jti: str, now: int) -> bool:
        """Note an event, and that its stream lives. False if it was heard before."""
        if (stream, jti) in self._heard:
            return False
        self._heard[stream, jti] = now
        self._streams[stream] = now
        return True

    # --- what is forgotten

    def _sweep(self, now: int) -> None:
        """Forget what nothing depends on any more, and note until when it was needed."""
        if not is_due(self._state, now):
            return
        until = bounds(now)
        state = self._state
        self._state = State(
            floor=self._sweep_heard(until, state.floor),
            gone=self._sweep_used(until, state.gone),
            tasks_gone=self._sweep_tasks(until, now, state.tasks_gone),
            swept=now,
        )

    def _sweep_used(self, until: Bounds, gone: int) -> int:
        """Forget assertions. Gives until when the last of them was good, `gone` at the least."""
        for digest, kept in list(self._used.items()):
            if kept.until <= until.used:
                del self._used[digest]
                gone = max(gone, kept.until)
        return gone

    def _sweep_heard(self, until: Bounds, floor: int) -> int:
        """Forget logouts and the names of events. Gives the floor, which the logouts raise."""
        for void, at in list(self._voids.items()):
            if at <= until.heard:
                del self._voids[void]
                floor = max(floor, at)
        for event, at in list(self._heard.items()):
            if at <= until.heard:
                del self._heard[event]
        return floor

    def _sweep_tasks(self, until: Bounds, now: int, tasks_gone: int) -> int:
        """Note which tasks are past, and forget the oldest. Gives until when those counted.

        One of which something is due is kept, however old: the overlay has to say it first.
        """
        due = {change.task.id for change in self._due.values()}
        for task, out in list(self._out.items()):
            deadline = out.task.deadline
            if deadline <= now:
                self._is_over(out)
                out.is_past = True
            if deadline <= until.tasks and task not in due:
                del self._out[task]
                _drop(self._of, out.task)
                tasks_gone = max(tasks_gone, deadline + DAY)
        return tasks_gone

    def _is_over(self, out: _Out) -> None:
        """Before it is noted that a task is over: it no longer counts as live."""
        if not out.is_over():
            _drop(self._live, out.task)

    def __len__(self) -> int:
        """How many assertions are remembered, for tests and for whoever watches the memory."""
        return len(self._used)
