"""Getting a discharge over HTTP (docs/discharges.md). It has no HTTP client of its own: `send` is the caller's.

The address of the service is trusted, and comes from the caller; a ticket's location is a hint of whoever wrote the
caveat, and is never asked. What the service answers is bounded in size, place and time, and no redirect is followed.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from inspect import isawaitable
from ipaddress import ip_address
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import msgspec

from captoken._format.errors import CaptokenError, DischargeError, TokenFormatError
from captoken._language.discharge import Discharge, Ticket

PATH = "/.well-known/captoken/3p"  # below the service's address: where tickets are posted
ANSWER_BYTES = 16_384  # of one answer; a discharge has at most 8,192 characters
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds between two polls

# (method, address, body) -> (status, body). Sends JSON, follows no redirect; what it raises passes through.
Send: TypeAlias = Callable[[str, str, "bytes | None"], tuple[int, bytes]]
AsyncSend: TypeAlias = Callable[[str, str, "bytes | None"], Awaitable[tuple[int, bytes]]]
Services: TypeAlias = "str | Mapping[str, str]"

_PRINTABLE = re.compile(
    r"[!-\[\]-~]{1,2048}"
)  # ASCII without spaces, control characters and backslashes
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


class Interactive(msgspec.Struct):
    poll_url: str
    user_url: str


class Answer(msgspec.Struct, omit_defaults=True):
    """What a service answers: one of these, in the names of fly.io's protocol."""

    discharge: str | None = None
    poll_url: str | None = None
    user_interactive: Interactive | None = None
    error: str | None = None


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

    `service`: its address, or a mapping from dischargers' public keys to addresses. `wait`: seconds to wait, in all, if
    it is not decided at once. `tell` gets the address of the page where a person decides.

    Raises DischargeError (`refused`, `undecided`, `bad_ticket`, `bad_discharge`); ServiceError for a passing fault;
    ValueError for a service that is neither https nor on this machine. The discharge answers the ticket; whether it is
    genuine, only a verifier can tell.
    """
    steps, result = _steps(ticket, send, service, wait, tell, sleep, clock), None
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
    steps, result = _steps(ticket, send, service, wait, tell, sleep, clock), None
    while True:
        try:
            result = steps.send(result)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        result = await result if isawaitable(result) else result


def _steps(
    ticket: Ticket | str,
    send: Any,
    service: Services,
    wait: float,
    tell: Any,
    sleep: Any,
    clock: Callable[[], float],
) -> Generator[Any, Any, Discharge]:
    """The exchange. It yields what each call returned, and is sent that back, awaited where it has to be."""
    if not 0 <= wait < float("inf"):
        raise ValueError("wait is a number of seconds")
    ticket = ticket if isinstance(ticket, Ticket) else Ticket.parse(ticket)
    base = service if isinstance(service, str) else service.get(ticket.discharger)
    if base is None:
        raise DischargeError("no service is known for the ticket's discharger", "bad_ticket")
    origin = origin_of(base)
    answer = _read(
        *(yield send("POST", base.rstrip("/") + PATH, msgspec.json.encode({"ticket": ticket.text})))
    )
    if answer.discharge is not None:
        return _checked(answer, ticket)
    person = answer.user_interactive
    poll_url = _within(origin, person.poll_url if person else answer.poll_url)
    started, slept, pause = clock(), 0.0, FIRST_PAUSE
    if person and wait:
        user_url = _within(origin, person.user_url)
        if tell is None:
            raise DischargeError("a person has to decide, and `tell` is not given", "undecided")
        yield tell(user_url)
    while (
        left := wait - max(clock() - started, slept)
    ) > 0:  # whichever says more, so that it ends
        yield sleep(now := min(pause, left))
        slept, pause = slept + now, min(pause * 1.5, LONGEST_PAUSE)
        status, body = yield send("GET", poll_url, None)
        if status in (404, 410):
            raise DischargeError(
                "the request ran out, or the service does not know it", "undecided"
            )
        if status != 202 and not _passing(status):
            return _checked(_read(status, body), ticket)
    raise DischargeError("not decided yet", "undecided")


def origin_of(address: str) -> str:
    """Scheme, host and port as browsers spell them. Raises ValueError for what is neither https nor on this machine."""
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port
    try:
        local = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        local = False
    safe = parts.scheme == "https" or (parts.scheme == "http" and local)
    if not safe or not host or not _PRINTABLE.fullmatch(address) or set(address) & set("@?#"):
        raise ValueError(
            "a service's address is https://host[:port][/path], or http:// on this machine"
        )
    host = f"[{host}]" if ":" in host else host
    usual = port is None or port == {"https": 443, "http": 80}[parts.scheme]
    return f"{parts.scheme}://{host}" if usual else f"{parts.scheme}://{host}:{port}"


def _within(origin: str, address: str | None) -> str:
    """An address of the service's own, absolute. By its text alone, so that no two readers of addresses disagree."""
    if address is not None and _PRINTABLE.fullmatch(address):
        if address.startswith(origin + "/"):
            return address
        if address.startswith("/") and not address.startswith("//"):
            return origin + address
    raise DischargeError("the service gives no address of its own", "bad_discharge")


def _passing(status: int) -> bool:
    return status == 429 or (status >= 500 and status != 501)


def _read(status: int, body: bytes) -> Answer:
    """What was answered. Raises DischargeError for a refusal and for what is no answer, ServiceError for a fault."""
    if _passing(status):
        raise ServiceError(f"the service answered {status}")
    answer = Answer()
    try:
        if len(body) <= ANSWER_BYTES:
            answer = msgspec.json.decode(body, type=Answer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    if status in (200, 201, 202) and answer.error is None:
        return answer  # with nothing in it, if it could not be read
    said = "".join(filter(str.isprintable, answer.error or ""))[
        :200
    ]  # it may come before a person or a model
    raise DischargeError(
        f"the service answered {status}: {said}".rstrip(": "), _CODES.get(status, "bad_discharge")
    )


def _checked(answer: Answer, ticket: Ticket) -> Discharge:
    try:
        discharge = Discharge.parse(answer.discharge or "")
    except TokenFormatError as error:
        raise DischargeError(f"no discharge: {error}", "bad_discharge") from None
    if discharge.cid != ticket.cid:
        raise DischargeError("a discharge for another ticket", "bad_discharge")
    return discharge
