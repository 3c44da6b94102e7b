"""Getting a discharge over HTTP (docs/discharges.md).

It has no HTTP client of its own: `send` is the caller's. The address of the service is trusted, and
comes from the caller too. A ticket's location is a hint of whoever wrote the caveat, and is never
asked. What the service answers is bounded in size, place and time, and no redirect is followed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from inspect import isawaitable
from typing import Any, TypeAlias

import msgspec

from captoken._format.errors import CaptokenError, DischargeError, TokenFormatError
from captoken._language.discharge import Discharge, Ticket
from captoken.adapters._discharge.protocol import ANSWER_BYTES, PATH, Answer, Asked, Interactive
from captoken.adapters._http.origins import is_address, origin_of

__all__ = [
    "ANSWER_BYTES",
    "FIRST_PAUSE",
    "LONGEST_PAUSE",
    "PATH",
    "Answer",
    "AsyncSend",
    "Interactive",
    "Send",
    "ServiceError",
    "Services",
    "obtain",
    "obtain_async",
    "origin_of",
]

FIRST_PAUSE = 0.5  # seconds between two polls, at first
LONGEST_PAUSE = 5.0
SAID_CHARS = 200  # of a service's own words in an error

# (method, address, body) -> (status, body). Sends JSON, follows no redirect; what it raises passes
# through.
Send: TypeAlias = Callable[[str, str, "bytes | None"], tuple[int, bytes]]
AsyncSend: TypeAlias = Callable[[str, str, "bytes | None"], Awaitable[tuple[int, bytes]]]
Services: TypeAlias = "str | Mapping[str, str]"
# The exchange, step by step: it yields what each call returned, and is sent that back, awaited
# where it has to be.
_Steps: TypeAlias = Generator[Any, Any, Discharge]

_CODES = {
    200: "refused",
    400: "bad_ticket",
    401: "refused",
    403: "refused",
    501: "refused",
}  # of answers with an error


class ServiceError(CaptokenError):
    """The service is full or failing, and may answer later. Leases take it for a passing fault."""

    code = "unavailable"


def obtain(
    ticket: Ticket | str,
    send: Send,
    *,
    service: Services,
    wait: float = 600,
    tell: Callable[[str], object] | None = None,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Discharge:
    """The discharge for `ticket`, from the service that the caller trusts for its discharger.

    `service`: its address, or a mapping from dischargers' public keys to addresses.
    `wait`: seconds to wait, in all, if it is not decided at once.
    `tell` gets the address of the page where a person decides.

    Raises DischargeError (`refused`, `undecided`, `bad_ticket`, `bad_discharge`). Raises
    ServiceError for a passing fault, ValueError for a service that is neither https nor on this
    machine. The discharge answers the ticket; whether it is genuine, only a verifier can tell.
    """
    steps = _steps(ticket, send, service, wait, tell, sleep, clock)
    result = None
    while True:
        try:
            result = steps.send(result)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


async def obtain_async(
    ticket: Ticket | str,
    send: AsyncSend,
    *,
    service: Services,
    wait: float = 600,
    tell: Callable[[str], object] | None = None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Discharge:
    """The same for an event loop. `tell` may be a coroutine function."""
    steps = _steps(ticket, send, service, wait, tell, sleep, clock)
    result = None
    while True:
        try:
            result = steps.send(result)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        if isawaitable(result):
            result = await result


# --- the exchange ---------------------------------------------------------------------------------


def _steps(
    ticket: Ticket | str,
    send: Any,
    service: Services,
    wait: float,
    tell: Any,
    sleep: Any,
    clock: Callable[[], float],
) -> _Steps:
    """The ticket is posted; then a person is told, if one decides; then the outcome is fetched."""
    if not 0 <= wait < float("inf"):
        raise ValueError("wait is a number of seconds")
    if not isinstance(ticket, Ticket):
        ticket = Ticket.parse(ticket)
    base = service if isinstance(service, str) else service.get(ticket.discharger)
    if base is None:
        raise DischargeError("no service is known for the ticket's discharger", "bad_ticket")
    origin = origin_of(base)
    asked = msgspec.json.encode(Asked(ticket.text))
    status, body = yield send("POST", base.rstrip("/") + PATH, asked)
    answer = _answer_in(status, body)
    if answer.discharge is not None:
        return _discharge_in(answer, ticket)
    person = answer.user_interactive
    poll_url = _within(origin, answer.poll_url if person is None else person.poll_url)
    patience = _Patience(wait, clock)
    if person is not None and wait:
        user_url = _within(origin, person.user_url)
        if tell is None:
            raise DischargeError("a person has to decide, and `tell` is not given", "undecided")
        yield tell(user_url)
    return (yield from _poll(ticket, poll_url, send, sleep, patience))


def _poll(ticket: Ticket, poll_url: str, send: Any, sleep: Any, patience: _Patience) -> _Steps:
    """Ask again and again, less and less often, until there is an outcome."""
    pause = patience.next_pause()
    while pause > 0:
        yield sleep(pause)
        status, body = yield send("GET", poll_url, None)
        if status in (404, 410):
            raise DischargeError(
                "the request ran out, or the service does not know it", "undecided"
            )
        if status != 202 and not _is_passing(status):
            return _discharge_in(_answer_in(status, body), ticket)
        pause = patience.next_pause()
    raise DischargeError("not decided yet", "undecided")


class _Patience:
    """How long to sleep between two polls, and when it has been enough."""

    def __init__(self, wait: float, clock: Callable[[], float]) -> None:
        self._wait = wait
        self._clock = clock
        self._started = clock()
        self._slept = 0.0
        self._pause = FIRST_PAUSE

    def next_pause(self) -> float:
        """Seconds to sleep now; 0 or less when all the time is over."""
        # Whichever says more, so that it ends: a clock can stand still, a sleep can return at once.
        passed = max(self._clock() - self._started, self._slept)
        now = min(self._pause, self._wait - passed)
        self._slept += now
        self._pause = min(self._pause * 1.5, LONGEST_PAUSE)
        return now


# --- what is answered -----------------------------------------------------------------------------


def _within(origin: str, address: str | None) -> str:
    """An address of the service's own, absolute.

    It is judged by its text alone, so that no two readers of addresses disagree.
    """
    if address is not None and is_address(address):
        if address.startswith(origin + "/"):
            return address
        if address.startswith("/") and not address.startswith("//"):
            return origin + address
    raise DischargeError("the service gives no address of its own", "bad_discharge")


def _is_passing(status: int) -> bool:
    """Whether the service may say something else in a moment."""
    return status == 429 or (status >= 500 and status != 501)


def _answer_in(status: int, body: bytes) -> Answer:
    """What was answered; with nothing in it, if it could not be read.

    Raises DischargeError for a refusal and for what is no answer, ServiceError for a passing fault.
    """
    if _is_passing(status):
        raise ServiceError(f"the service answered {status}")
    answer = _parsed(body)
    if status in (200, 201, 202) and answer.error is None:
        return answer
    # What a service says may come before a person or a model.
    said = "".join(filter(str.isprintable, answer.error or ""))[:SAID_CHARS]
    text = f"the service answered {status}: {said}".rstrip(": ")
    raise DischargeError(text, _CODES.get(status, "bad_discharge"))


def _parsed(body: bytes) -> Answer:
    if len(body) > ANSWER_BYTES:
        return Answer()
    try:
        return msgspec.json.decode(body, type=Answer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Answer()


def _discharge_in(answer: Answer, ticket: Ticket) -> Discharge:
    """The discharge that was answered. Raises DischargeError if it is none for this ticket."""
    try:
        discharge = Discharge.parse(answer.discharge or "")
    except TokenFormatError as error:
        raise DischargeError(f"no discharge: {error}", "bad_discharge") from None
    if discharge.cid != ticket.cid:
        raise DischargeError("a discharge for another ticket", "bad_discharge")
    return discharge
