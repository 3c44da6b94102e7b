"""A desk whose agent may send mail and refund orders only with Jane's consent, each time: what tests of all frameworks share."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from captoken import Issuer, Keyring, Token, Verifier, current
from captoken.consent import Approver, ApproverKey
from captoken.stores.memory import MemoryReplayStore
from captoken.testing import FixedClock
from captoken.tools import ToolGuard

AGENT = "desk-agent"
LOOKUP = ("call-1", "lookup", {"order": "o-1"})
MAIL = ("call-2", "mail", {"to": "ann@example.com", "text": "Your refund is on its way."})
REFUND = ("call-3", "refund", {"order": "o-1", "cents": 1200})
Call = tuple[str, str, dict[str, Any]]


class Moving(FixedClock):
    """A clock that is set by hand, in whole seconds."""

    def __init__(self) -> None:
        super().__init__(1_764_061_200)
        self.seconds = 1_764_061_200

    def __call__(self) -> int:
        return self.seconds


class Desk:
    """The tools, and what has run. Jane's key, the issuer's and the verifier's live as long as the desk does."""

    def __init__(self, **more: Any) -> None:
        self.clock = Moving()
        self.keyring = Keyring.generate().for_audience("desk")
        self.jane = Approver(ApproverKey.generate(), clock=self.clock)
        self.ran: list[tuple[str, dict[str, Any]]] = []
        self.verifier = Verifier(self.keyring, "desk", clock=self.clock, replays=MemoryReplayStore(floor=0), **more)
        self.guard = ToolGuard(self.verifier)
        self.asks = [{"by": self.jane.public, "for": {"tools": ["mail", "refund"]}}]
        self.token = self.minted(consent=self.asks)

    def minted(self, *, agent: str = AGENT, **more: Any) -> Token:
        return Issuer(self.keyring, clock=self.clock).mint(
            subject="user:jane", agent=agent, task="orders", tools={"*": {}}, expires_in=36_000, **more
        )

    def lookup(self, order: str) -> str:
        """Look up an order."""
        return self._run("lookup", order=order)

    def mail(self, to: str, text: str) -> str:
        """Send a mail."""
        return self._run("mail", to=to, text=text)

    def refund(self, order: str, cents: int) -> str:
        """Refund an order."""
        return self._run("refund", order=order, cents=cents)

    def _run(self, tool: str, **arguments: Any) -> str:
        self.ran.append((tool, arguments))
        return f"{tool} is done"

    def count(self, tool: str) -> int:
        return [name for name, _ in self.ran].count(tool)

    def yes(self, *wanted: Any, expires_in: Any = 300) -> list[str]:
        """Jane's consent to each call that waits."""
        return [self.jane.consent(one["request"], expires_in=expires_in) for one in wanted]

    def using(self, consents: list[str], token: Token | None = None) -> Any:
        return current.use(token or self.token, consents=consents)


class Stopped(NamedTuple):
    """Where a run stands: what is stored of it, which calls wait, and what the model was told of each call."""

    stored: Any
    waiting: list[Any]
    told: dict[str, str]

    def of(self, tool: str) -> Any:
        return next(one for one in self.waiting if one["tool"] == tool)


class Framework(Protocol):
    """How a framework runs one message of a model with several calls, stops, and goes on from what it stored."""

    def __init__(self, desk: Desk) -> None: ...

    def begin(self, *calls: Call) -> Stopped: ...

    def go_on(self, stored: Any, *, no: tuple[str, ...] = ()) -> Stopped: ...
