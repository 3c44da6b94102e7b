"""Requests for a discharge that wait to be decided: each once, each for a time, and no more than fit. No HTTP here.

A request has two ids that cannot be guessed: one for whoever asked, to fetch the outcome with, and one for deciding it.
The discharge is made when it is fetched, so that its life starts then.
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
        self._discharger, self._on_decision = discharger, on_decision
        self._limit, self._keep, self._clock = limit, keep, clock
        self._lock = Lock()
        self._by_id: dict[str, Request] = {}
        self._by_fetch_id: dict[str, Request] = {}

    def add(
        self, ticket: Ticket, need: Mapping[str, Any], person: bool, pages: str
    ) -> Request | None:
        """A new request, or None if no more fit. `pages`: what its id follows in the address where it is decided."""
        id, fetch_id, now = b64encode(random_bytes(32)), b64encode(random_bytes(32)), self._clock()
        request = Request(
            ticket, Pending(id, need, person, pages + id, now, now + self._keep), fetch_id
        )
        with self._lock:
            self._forget()
            if len(self._by_id) >= self._limit:
                return None
            self._by_id[id] = self._by_fetch_id[fetch_id] = request
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
            return tuple(
                request.seen for request in self._by_id.values() if request.decided is None
            )

    def decide(self, id: str, answer: Allow | Refuse, by: str) -> bool:
        """Whether this decision counts. False: the request is unknown, over, or somebody else decides it."""
        if not isinstance(answer, (Allow, Refuse)):
            raise TypeError(f"a decision is Allow or Refuse, not {type(answer).__name__}")
        with self._lock:
            self._forget()
            request = self._by_id.get(id)
            if request is None or request.taken:
                return False
            request.taken = True
        decided = Decided(request.seen, answer, by)
        try:
            if isinstance(answer, Allow):
                self._discharger.approve(
                    request.ticket, answer
                )  # a mistake shows here, and not when it is fetched
            if self._on_decision is not None:
                self._on_decision(decided)
        except BaseException:
            request.taken = False
            raise
        request.decided = decided
        return True

    def fetch(self, fetch_id: str) -> Discharge | Refuse | Wait | None:
        """The outcome, once: then the request is over. None: it is over, or there is none."""
        with self._lock:
            self._forget()
            request = self._by_fetch_id.get(fetch_id)
            decided = request.decided if request is not None else None
        if request is None:
            return None
        if decided is None:
            # No person is asked for: the policy said "not yet", and is asked again.
            outcome = Wait() if request.seen.person else self._discharger.answer(request.ticket)
        elif isinstance(decided.answer, Allow):
            outcome = self._discharger.approve(request.ticket, decided.answer)
        else:
            outcome = decided.answer
        if isinstance(outcome, Wait):
            return outcome
        with self._lock:
            if (
                decided is None and request.taken
            ):  # somebody has begun to decide meanwhile, and goes first
                return Wait()
            if self._by_fetch_id.pop(fetch_id, None) is None:  # somebody has fetched it meanwhile
                return None
            del self._by_id[request.seen.id]
        return outcome

    def _forget(self) -> None:
        """Drop what is over. Under the lock."""
        now = self._clock()
        for request in [
            request for request in self._by_id.values() if request.seen.expires_at <= now
        ]:
            del self._by_id[request.seen.id], self._by_fetch_id[request.fetch_id]
