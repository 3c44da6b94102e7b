"""Get a discharge over HTTP (docs/discharges.md).

There is no HTTP client here: you pass one as `send`. You also pass the address of the service,
which is trusted. The location in a ticket is only a hint by whoever wrote the caveat, and is never
used. Responses are limited in size, address and time, and redirects are not followed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from inspect import isawaitable
from typing import Any, TypeAlias

import msgspec

from captoken._format.errors import CaptokenError, DischargeError, TokenFormatError
from captoken._format.names import frozen_copy
from captoken._format.spelling import shown
from captoken._language.bounds import ANSWER_BYTES
from captoken._language.discharge import Discharge, Ticket
from captoken.adapters._discharge.protocol import PATH, Answer, DischargeRequest, Interactive
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
LONGEST_PAUSE = 5.0  # seconds between two polls, at most

_SAID_CHARS = 200  # of a service's own words in an error

# (method, address, body) -> (status, body). Sends JSON, follows no redirect; what it raises passes
# through.
Send: TypeAlias = Callable[[str, str, "bytes | None"], tuple[int, bytes]]
# The same for asyncio: its answer is awaited.
AsyncSend: TypeAlias = Callable[[str, str, "bytes | None"], Awaitable[tuple[int, bytes]]]

# One address, or one for each discharger by its public key.
Services: TypeAlias = "str | Mapping[str, str]"

# The exchange, step by step: it yields what each call returned, and is sent that back, awaited
# where it has to be.
_Steps: TypeAlias = Generator[Any, Any, Discharge]

# Of answers with an error, by status. Any other is no answer at all: `bad_discharge`.
_CODES = {
    200: "refused",
    400: "bad_ticket",
    401: "refused",
    403: "refused",
    501: "refused",
}


class ServiceError(CaptokenError):
    """The service is full or failing, and may answer later.

    Leases take it for a passing fault: they go on with the discharge that they have.
    """

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

        obtain(ticket, send, service="https://approvals.example", tell=print)

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
    """The same for an event loop: see `obtain`.

    `send` and `sleep` are awaited, and `tell` may be a coroutine function.
    """
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
    """The ticket is posted; then a person is told, if one decides; then the outcome is fetched.

    The arguments are those of `obtain`, or of `obtain_async`.
    """
    if not 0 <= wait < float("inf"):
        raise ValueError(f"wait must be a number of seconds, not {shown(wait)}")
    if not isinstance(ticket, Ticket):
        ticket = Ticket.parse(ticket)
    if isinstance(service, str):
        base: str | None = service
    else:
        base = frozen_copy(service, "service").get(ticket.discharger)
    if base is None:
        why = (
            "this client knows no service for the ticket's discharger: pass its public key and "
            "address"
        )
        raise DischargeError(why, "bad_ticket")
    # Raises for an address over which a ticket should not go, before anything is sent.
    origin = origin_of(base)
    asked = msgspec.json.encode(DischargeRequest(ticket.text))
    status, body = yield send("POST", base.rstrip("/") + PATH, asked)
    answer = _answer_in(status, body)
    if answer.discharge is not None:
        return _discharge_in(answer, ticket)
    person = answer.user_interactive
    poll_url = _within(origin, answer.poll_url if person is None else person.poll_url)
    patience = _Patience(wait, clock)  # from here on: a person's time counts too
    if person is not None and wait:
        user_url = _within(origin, person.user_url)
        if tell is None:
            raise DischargeError(
                "a person has to decide: pass `tell`, which gets the address of the page",
                "undecided",
            )
        yield tell(user_url)
    return (yield from _poll(ticket, poll_url, send, sleep, patience))


def _poll(
    ticket: Ticket,
    poll_url: str,
    send: Any,
    sleep: Any,
    patience: _Patience,
) -> _Steps:
    """Ask again and again, less and less often, until there is an outcome.

    A passing fault is waited out like "not yet": what is behind it is worth the rest of the wait.
    """
    pause = patience.next_pause()
    while pause > 0:
        yield sleep(pause)
        status, body = yield send("GET", poll_url, None)
        if status in (404, 410):
            raise DischargeError(
                "the request has expired, or the service does not know it", "undecided"
            )
        if status != 202 and not _is_passing(status):
            return _discharge_in(_answer_in(status, body), ticket)
        pause = patience.next_pause()
    raise DischargeError("nobody has decided yet", "undecided")


class _Patience:
    """How long to sleep between two polls, and when it has been enough.

    `wait`: seconds in all, counted from now on.
    """

    def __init__(self, wait: float, clock: Callable[[], float]) -> None:
        self._wait = wait
        self._clock = clock
        self._started = clock()
        self._slept = 0.0
        self._pause = FIRST_PAUSE

    def next_pause(self) -> float:
        """Seconds to sleep now; 0 or less when all the time is over.

        Each is half as long again as the one before: soon for a policy, seldom for a person.
        """
        # By the clock, or by what was slept, whichever says more. So it ends where a clock stands
        # still, as in tests, and where a sleep takes longer than it was told to.
        passed = max(self._clock() - self._started, self._slept)
        now = min(self._pause, self._wait - passed)
        self._slept += now
        self._pause = min(self._pause * 1.5, LONGEST_PAUSE)
        return now


# --- what is answered -----------------------------------------------------------------------------


def _within(origin: str, address: str | None) -> str:
    """An address of the service's own, absolute.

    It is judged by its text alone, so that no two readers of addresses disagree. One that leads
    elsewhere is refused: a service that was broken into could send the person, or the client with
    its credentials, to another server.
    """
    if address is not None and is_address(address):
        if address.startswith(origin + "/"):
            return address
        # Two slashes would begin with another host (RFC 3986, 4.2).
        if address.startswith("/") and not address.startswith("//"):
            return origin + address
    raise DischargeError(
        "the service answered with an address that is not its own",
        "bad_discharge",
    )


def _is_passing(status: int) -> bool:
    """Whether the service may say something else in a moment.

    501 is none of these: the service has said that nobody can decide there.
    """
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
    # What a service says may come before a person or a model: little of it, on one line.
    said = "".join(filter(str.isprintable, answer.error or ""))[:_SAID_CHARS]
    text = f"the service answered {status}: {said}".rstrip(": ")
    raise DischargeError(text, _CODES.get(status, "bad_discharge"))


def _parsed(body: bytes) -> Answer:
    """The answer as it is, however malformed or long: nothing, if it cannot be read."""
    if len(body) > ANSWER_BYTES:
        return Answer()
    try:
        return msgspec.json.decode(body, type=Answer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Answer()


def _discharge_in(answer: Answer, ticket: Ticket) -> Discharge:
    """The discharge that was answered. Raises DischargeError if it is none for this ticket.

    Whether the discharger made it is not seen here: the verifier has the key for that.
    """
    try:
        discharge = Discharge.parse(answer.discharge or "")
    except TokenFormatError as error:
        raise DischargeError(f"the answer is not a discharge: {error}", "bad_discharge") from None
    if discharge.cid != ticket.cid:
        raise DischargeError("the discharge is for another ticket", "bad_discharge")
    return discharge
