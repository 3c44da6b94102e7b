"""Requests for a discharge that wait to be decided. No HTTP here.

Each waits once, each for a time, and no more than fit. A request has two ids that cannot be
guessed: one for whoever asked, to fetch the outcome with, and one for deciding it. The discharge is
made when it is fetched, so that its life starts then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import msgspec

from captoken._format.clocks import Clock
from captoken._format.encoding import b64encode
from captoken._format.entropy import random_bytes
from captoken._language.discharge import Discharge, Ticket
from captoken.discharge import Allow, Discharger, Refuse, Wait


class Pending(msgspec.Struct, frozen=True):
    """A request that waits to be decided."""

    id: str  # for `decide`
    need: Mapping[str, Any]
    person: bool  # the policy said that a person has to decide
    user_url: str  # where, if so
    asked_at: float
    expires_at: float


class Decided(msgspec.Struct, frozen=True):
    """What somebody decided, for the audit of the embedding service."""

    request: Pending
    answer: Allow | Refuse
    by: str


@dataclass(slots=True, eq=False, repr=False)
class Request:
    """A request, with what its service alone knows of it."""

    ticket: Ticket
    seen: Pending
    fetch_id: str
    taken: bool = False  # somebody decides it, or has
    decided: Decided | None = None


class Waiting:
    """All that waits, for the threads of one process."""

    def __init__(
        self,
        discharger: Discharger,
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
        self._lock = Lock()
        self._by_id: dict[str, Request] = {}
        self._by_fetch_id: dict[str, Request] = {}

    def add(
        self, ticket: Ticket, need: Mapping[str, Any], person: bool, pages: str
    ) -> Request | None:
        """A new request, or None if no more fit.

        `pages`: what its id follows in the address where it is decided.
        """
        id = b64encode(random_bytes(32))
        fetch_id = b64encode(random_bytes(32))
        now = self._clock()
        seen = Pending(id, need, person, pages + id, now, now + self._keep)
        request = Request(ticket, seen, fetch_id)
        with self._lock:
            self._forget()
            if len(self._by_id) >= self._limit:
                return None
            self._by_id[id] = request
            self._by_fetch_id[fetch_id] = request
        return request

    def find(self, id: str) -> Request | None:
        """The request to decide."""
        with self._lock:
            self._forget()
            return self._by_id.get(id)

    def pending(self) -> tuple[Pending, ...]:
        """What nobody has decided, oldest first."""
        with self._lock:
            self._forget()
            waiting = [request for request in self._by_id.values() if request.decided is None]
        return tuple(request.seen for request in waiting)

    def decide(self, id: str, answer: Allow | Refuse, by: str) -> bool:
        """Whether this decision counts.

        False: the request is unknown, over, or somebody else decides it.
        """
        if not isinstance(answer, (Allow, Refuse)):
            raise TypeError(f"a decision is Allow or Refuse, not {type(answer).__name__}")
        request = self._take(id)
        if request is None:
            return False
        decided = Decided(request.seen, answer, by)
        try:
            if isinstance(answer, Allow):
                # A mistake shows here, and not when it is fetched.
                self._discharger.approve(request.ticket, answer)
            if self._on_decision is not None:
                self._on_decision(decided)
        except BaseException:
            request.taken = False  # it can be decided again
            raise
        request.decided = decided
        return True

    def _take(self, id: str) -> Request | None:
        """The request, for the one who decides it; None if there is none, or somebody has it."""
        with self._lock:
            self._forget()
            request = self._by_id.get(id)
            if request is None or request.taken:
                return None
            request.taken = True
            return request

    def fetch(self, fetch_id: str) -> Discharge | Refuse | Wait | None:
        """The outcome, once: then the request is over. None: it is over, or there is none."""
        with self._lock:
            self._forget()
            request = self._by_fetch_id.get(fetch_id)
            decided = None if request is None else request.decided
        if request is None:
            return None
        outcome = self._outcome(request, decided)  # a policy may take its time: not under the lock
        if isinstance(outcome, Wait):
            return outcome
        with self._lock:
            if decided is None and request.taken:
                return Wait()  # somebody has begun to decide meanwhile, and goes first
            if self._by_fetch_id.pop(fetch_id, None) is None:
                return None  # somebody has fetched it meanwhile
            del self._by_id[request.seen.id]
        return outcome

    def _outcome(self, request: Request, decided: Decided | None) -> Discharge | Refuse | Wait:
        if decided is not None:
            if isinstance(decided.answer, Allow):
                return self._discharger.approve(request.ticket, decided.answer)
            return decided.answer
        if request.seen.person:
            return Wait()
        # No person is asked for: the policy said "not yet", and is asked again.
        return self._discharger.answer(request.ticket)

    def _forget(self) -> None:
        """Drop what is over. Under the lock."""
        now = self._clock()
        over = [request for request in self._by_id.values() if request.seen.expires_at <= now]
        for request in over:
            del self._by_id[request.seen.id]
            del self._by_fetch_id[request.fetch_id]
