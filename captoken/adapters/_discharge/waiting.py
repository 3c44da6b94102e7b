"""Requests for a discharge that wait to be decided. No HTTP here.

1. Each waits for a time, and no more than fit. When it is full nobody who waits is dropped.
2. A request has two ids that cannot be guessed: one for whoever asked, to fetch the outcome with,
   and one for deciding it.
3. One decision counts. Whoever begins first has it, until what they do fails.
4. The discharge is made when it is fetched, so that its life starts then. It is fetched once.
5. The policy and the callbacks are called without the lock: they may take their time, or ask this
   very object something.

What becomes of a request, if its time does not run out before:

    waiting   add       it can be found, and `fetch` says Wait
    taken     decide    the callback is running; who comes second is told so
    decided   decide    `fetch` gives the outcome, once
    over      fetch     nobody knows it any more
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import msgspec

from captoken._format.clocks import Clock
from captoken._format.encoding import b64encode
from captoken._format.entropy import random_bytes
from captoken.discharge import Allow, Refuse, Wait


class Serialized(Protocol):
    """What whoever asked gets: a discharge, or consents."""

    def serialize(self) -> str: ...


class Deciding(Protocol):
    """Who answers: a Discharger, or a person's key. `ticket` is what was asked."""

    def need(self, ticket: Any) -> Mapping[str, Any]: ...

    def answer(self, ticket: Any) -> Serialized | Refuse | Wait: ...

    def approve(self, ticket: Any, allowed: Allow) -> Serialized: ...


class Pending(msgspec.Struct, frozen=True):
    """A request that waits to be decided, as operators see it.

    `id`: for `decide`.
    `need`: what the ticket says is needed. Whoever made the ticket wrote it.
    `person`: the policy said that a person has to decide.
    `user_url`: where they do it, if so.
    `asked_at`, `expires_at`: seconds, by the clock of the service.
    """

    id: str
    need: Mapping[str, Any]
    person: bool
    user_url: str
    asked_at: float
    expires_at: float


class Decided(msgspec.Struct, frozen=True):
    """What somebody decided, for the audit of the embedding service.

    `by`: the person, as the embedding service knows them.
    """

    request: Pending
    answer: Allow | Refuse
    by: str


@dataclass(slots=True, eq=False, repr=False)
class Request:
    """A request, with what its service alone knows of it. It has no `repr`: its ids are secret.

    `seen`: what operators may see of it.
    `fetch_id`: for `fetch`: whoever has it gets the discharge.
    `taken`: somebody decides it, or has. It changes under the lock alone.
    `decided`: what they decided, once it counts.
    """

    ticket: Any
    seen: Pending
    fetch_id: str
    taken: bool = False
    decided: Decided | None = None


class Waiting:
    """All that waits, for the threads of one process.

    `on_decision`: is given each Decided before it counts; if it raises, nothing is decided.
    `limit`: how many requests wait at once.
    `keep`: for how many seconds each of them does.
    """

    def __init__(
        self,
        discharger: Deciding,
        on_decision: Callable[[Decided], object] | None,
        limit: int,
        keep: float,
        clock: Clock,
    ) -> None:
        self._discharger = discharger
        self._on_decision = on_decision
        self._limit = limit
        self._keep = keep
        self._clock = clock
        self._lock = Lock()  # around the two mappings, and what is taken; a request is in both
        self._by_id: dict[str, Request] = {}
        self._by_fetch_id: dict[str, Request] = {}

    def add(
        self,
        ticket: Any,
        need: Mapping[str, Any],
        person: bool,
        pages: str,
    ) -> Request | None:
        """A new request, or None if no more fit (rule 1).

        `need`: what the ticket says is needed.
        `person`: whether a person has to decide.
        `pages`: what its id follows in the address where it is decided.
        """
        # Rule 2. The address of the page gets around: it is shown, sent and bookmarked. It must not
        # let anybody fetch the discharge, so neither id can be had from the other.
        id = b64encode(random_bytes(32))
        fetch_id = b64encode(random_bytes(32))
        now = self._clock()
        seen = Pending(
            id=id,
            need=need,
            person=person,
            user_url=pages + id,
            asked_at=now,
            expires_at=now + self._keep,
        )
        request = Request(ticket, seen, fetch_id)
        with self._lock:
            # Rule 1. Were the oldest dropped instead, whoever asks often could push out what others
            # have asked for.
            self._forget()
            if len(self._by_id) >= self._limit:
                return None
            self._by_id[id] = request
            self._by_fetch_id[fetch_id] = request
        return request

    def find(self, id: str) -> Request | None:
        """The request to decide, or None if there is none, or no longer."""
        with self._lock:
            self._forget()
            return self._by_id.get(id)

    def pending(self) -> tuple[Pending, ...]:
        """What nobody has decided, oldest first: mappings keep the order in which they grow."""
        with self._lock:
            self._forget()
            waiting = [request for request in self._by_id.values() if request.decided is None]
        return tuple(request.seen for request in waiting)

    def decide(
        self,
        id: str,
        answer: Allow | Refuse,
        by: str,
    ) -> bool:
        """Whether this decision counts (rule 3).

        False: the request is unknown, over, or somebody else decides it. Raises TypeError for what
        is no decision, and what the discharger and `on_decision` raise. Then nothing is decided.
        """
        if not isinstance(answer, (Allow, Refuse)):
            raise TypeError(f"a decision must be Allow or Refuse, not {type(answer).__name__}")
        request = self._take(id)
        if request is None:
            return False
        decided = Decided(request.seen, answer, by)
        try:
            if isinstance(answer, Allow):
                # What it makes is dropped (rule 4). But a mistake, such as an Allow that never
                # expires, shows here to the person, and not to the agent that fetches it.
                self._discharger.approve(request.ticket, answer)
            if self._on_decision is not None:
                self._on_decision(decided)
        except BaseException:
            request.taken = False  # what cannot be audited is not decided; it can be tried again
            raise
        request.decided = decided
        return True

    def _take(self, id: str) -> Request | None:
        """The request, for the one who decides it (rule 3).

        None if there is none, or somebody has it.
        """
        with self._lock:
            self._forget()
            request = self._by_id.get(id)
            if request is None or request.taken:
                return None
            request.taken = True
            return request

    def fetch(self, fetch_id: str) -> Serialized | Refuse | Wait | None:
        """The outcome, once (rule 4): then the request is over.

        Wait: there is none yet. None: it is over, or was never there. Raises what the discharger
        raises; then it can be fetched again.
        """
        with self._lock:
            self._forget()
            request = self._by_fetch_id.get(fetch_id)
            decided = None if request is None else request.decided
        if request is None:
            return None
        outcome = self._outcome(request, decided)  # rule 5
        if isinstance(outcome, Wait):
            return outcome
        # Meanwhile the lock was free, and others may have come.
        with self._lock:
            # Somebody has begun to decide, and goes before what the policy said (rule 3).
            if decided is None and request.taken:
                return Wait()
            # Somebody has fetched it, or its time has run out. A second discharge is not given out.
            if self._by_fetch_id.pop(fetch_id, None) is None:
                return None
            del self._by_id[request.seen.id]
        return outcome

    def _outcome(
        self,
        request: Request,
        decided: Decided | None,
    ) -> Serialized | Refuse | Wait:
        """Return the outcome of a request so far."""
        if decided is not None:
            if isinstance(decided.answer, Refuse):
                return decided.answer
            return self._discharger.approve(request.ticket, decided.answer)
        if request.seen.person:
            return Wait()
        # No person is asked for: the policy said "not yet", and is asked again.
        return self._discharger.answer(request.ticket)

    def _forget(self) -> None:
        """Remove the requests that have expired (rule 1). The caller holds the lock.

        It looks at all of them each time. There are no more than `limit`, and each of them was
        asked for by a request.
        """
        now = self._clock()
        over = [request for request in self._by_id.values() if request.seen.expires_at <= now]
        for request in over:
            del self._by_id[request.seen.id]
            del self._by_fetch_id[request.fetch_id]
