"""What the log says of denials, for all adapters alike, and the id by which one is found again.

    refused: argument: argument cents of tool pay is more than 500 (decision 3kxV0aQw9Zt_, for
    user:jane, task invoices, orchestrator > clerk, POST /pay)

1. A verifier logs each denial that it answers with, at INFO. What is only looked at is not logged.
2. What is nearly always a mistake of set-up is a WARNING, with where to look: once a minute for
   each code and verifier, and INFO in between. The next one says how many there were.
3. The id is that of the record in the trail, and of the answer. It is random, and says nothing.
4. No line has a token, a key, or the value of an argument. All that comes from outside is escaped.

It decides nothing: the plan does not import it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from os import strerror
from typing import TYPE_CHECKING, Any

from msgspec import structs

from captoken._format.encoding import b64encode
from captoken._format.errors import AuditError
from captoken._format.spelling import escape
from captoken._verification.decision import Decision

if TYPE_CHECKING:
    from logging import Logger

_MINUTE = 60  # seconds
_ID_BYTES = 9
_INFO = 20  # `logging.INFO`: most verifiers never load that module
_LONGEST = 200  # characters of what a request says of itself

# Rule 2: where to look. Whoever sent the token cannot mend these.
_LOOK = {
    "unknown_key": (
        "does this server have the issuer's keyring? If its keys are for one audience only, mint "
        "with `Issuer(keyring.for_audience(…))`: `mint(audience=…)` uses the issuer's own key"
    ),
    "wrong_audience": (
        "is the audience of this server, `Verifier(…, audience=…)` or "
        "`Office.open(…, audience=…)`, the name that clients pass to `present`?"
    ),
    "unaddressed": "do clients send what `present(audience=…)` returns?",
    "stale_overlay": (
        "does `captoken operate`, or your own loop, renew the overlay, and does the overlay reach "
        "this server?"
    ),
    "store_unavailable": "do the store and the trail exist, and may this server write to them?",
    "cost_unstated": (
        "does this server state what each access costs, with `cost=` of its guard or of the Access?"
    ),
}

_quiet: ContextVar[bool] = ContextVar("captoken.quiet", default=False)
# What is being answered, for the line: it is asked only where there is a line.
_where: ContextVar[Callable[[], str] | None] = ContextVar("captoken.where", default=None)


def log() -> Logger:
    """Where a verifier says what its operator has to know. Most never say anything."""
    from logging import getLogger

    return getLogger("captoken")


def failed(error: Exception) -> str:
    """Why there is no record, in our words or the system's: what others wrote may be secret."""
    if isinstance(error, AuditError):
        return str(error)
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name}: {strerror(error.errno)}"
    return name


def is_quiet() -> bool:
    """Is this within `quietly`?"""
    return _quiet.get()


def tell_of_wide_keys(audience: str | None, name: str) -> None:
    """Log that a server has the keys of all, if it does: `audience` is whom its keys are for."""
    if audience is None:
        log().warning(
            "the server %s has keys that mint for every server: give it "
            "keyring.for_audience(%r), or the file that `captoken keygen audience` makes, and "
            "mint for it with the same keys, or a set with Issuer.mint_set",
            name,
            name,
        )


class answering:  # noqa: N801, it is called as a function is
    """In this block, lines of the log say `where`: `POST /pay`, without query and arguments."""

    __slots__ = ("_token", "_where")

    def __init__(self, where: Callable[[], str]) -> None:
        self._where = where

    def __enter__(self) -> None:
        self._token = _where.set(self._where)

    def __exit__(self, *raised: object) -> None:
        _where.reset(self._token)


@contextmanager
def quietly() -> Generator[None, None, None]:
    """In this block denials are not logged: whoever asks tells people of each by other means.

    Nor is it logged that a verifier made here could mint: this process mints anyway.
    """
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


class Causes:
    """What was warned of, and when: of each cause once a minute (rule 2)."""

    def __init__(self) -> None:
        # By cause: when the last warning was, and how many came since.
        self._last: dict[str, tuple[int, int]] = {}

    def due(self, cause: str, now: int) -> int | None:
        """How many came since the last warning of it, if one is due; else None.

        By the clock that the decision was made by. Threads that come at once may both write one.
        """
        at, more = self._last.get(cause, (now - _MINUTE, 0))
        if 0 <= now - at < _MINUTE:
            self._last[cause] = (at, more + 1)
            return None
        self._last[cause] = (now, 0)
        return more


class Teller:
    """Numbers the denials of one verifier, and logs them."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._causes = Causes()

    def numbered(self, decisions: Sequence[Decision]) -> Sequence[Decision]:
        """Denials with their id (rule 3): those of one step have one. An allowance has none."""
        if decisions[0]:
            return decisions
        number = b64encode(self._random(_ID_BYTES))
        return tuple(structs.replace(one, id=number) for one in decisions)

    def told(self, denied: Decision) -> Decision:
        """The denial with its id, once the log has it."""
        (numbered,) = self.numbered((denied,))
        self.log(numbered)
        return numbered

    def log(self, denied: Decision) -> None:
        """A line for a denial (rules 1 and 2)."""
        if _quiet.get():
            return
        look = _LOOK.get(denied.code)
        more = None if look is None else self._causes.due(denied.code, denied.now)
        if more is not None:
            since = f" ({more} more since the last warning)" if more else ""
            log().warning("%s: %s%s", _line(denied), look, since)
        elif log().isEnabledFor(_INFO):
            log().info("%s", _line(denied))


def _line(denied: Decision) -> str:
    """What happened, to whom, and where (rule 4)."""
    said: list[str] = [f"decision {denied.id}"]
    known: Any = denied.attribution
    if known is not None:
        said.append(f"for {escape(known.issued.subject)}")
        said.append(f"task {escape(known.task)}")
        said.append(" > ".join(escape(actor.name) for actor in known.chain))
    where = _where.get()
    if where is not None:
        said.append(escape(where()[:_LONGEST]))
    return f"refused: {denied.summary} ({', '.join(said)})"
