"""Leases: a discharge that lives briefly and is renewed by somebody other than the holder (spec, "Leases").

A subtree that asks for a lease lives as long as somebody renews it. To stop it, stop renewing: nothing has to be sent to
any server, and what is out dies within one lease's life.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from time import time

from captoken.attenuate import Clock, read_clock
from captoken.discharge import Discharge, Ticket
from captoken.errors import DischargeError


class Lease:
    """Keeps one ticket discharged: asks anew when half of a discharge's life is over.

    `ask` gets the discharge, from a Discharger or over HTTP; `deliver` gets each new one to whoever holds the token.
    A DischargeError from either ends the lease; anything else is taken for a passing fault, and tried again for as long as
    the last discharge lives. Ask where the holder cannot: it has the ticket too, and a discharger that answers everybody
    lets it renew for itself. So the policy has to know what still runs, or who asks.
    """

    def __init__(
        self,
        ticket: Ticket,
        ask: Callable[[Ticket], Discharge],
        deliver: Callable[[Discharge], None],
        *,
        clock: Clock = time,
        retry: int = 1,  # seconds between tries after a fault
    ) -> None:
        self._ticket, self._ask, self._deliver, self._clock, self._retry = ticket, ask, deliver, clock, retry
        self._due = self._ends = 0
        self.ended: Exception | None = None  # why the lease is over

    def renew(self) -> float:
        """Ask if it is time to; seconds until the next time. Raises DischargeError once the lease is over."""
        if self.ended is not None:
            raise DischargeError(f"the lease is over: {self.ended}", "refused")
        now = read_clock(self._clock)
        if now < self._due:
            return self._due - now
        try:
            discharge = self._ask(self._ticket)
            if not isinstance(discharge, Discharge):
                raise DischargeError(f"asked for a discharge, and got a {type(discharge).__name__}", "bad_discharge")
            if discharge.cid != self._ticket.cid:
                raise DischargeError("asked for a discharge, and got that of another ticket", "bad_discharge")
            self._deliver(discharge)
        except DischargeError as error:
            self.ended = error
            raise
        except Exception as error:
            if now >= self._ends:
                self.ended = error
                raise DischargeError(f"the lease ran out: {type(error).__name__}", "refused") from error
            return self._retry
        self._ends = discharge.expires_at or now
        self._due = now + min(max((self._ends - now) // 2, 1), 3600)
        return self._due - now

    def run(self, stop: Event) -> None:
        """Renew until `stop` is set or the lease is over. For a thread of an orchestrator or supervisor."""
        try:
            while not stop.wait(self.renew()):
                pass
        except DischargeError:
            return
