"""A person's consent in MCP's own words: the answer to a call says where a person decides on it.

    the call                 no consent comes with it: `input_required`, with the address of a page,
                             and a state that the client shows again
    the same call again      the consent is fetched from the page, once, and the call is judged

1. Only the consent permits. That the client accepts means that it has shown the page.
2. The state is sealed with a key of this process: for which token tree and which call it is, until
   when, and where the outcome is. To anybody else it is no state.
3. A state that is no good is none: the call is answered as if it came for the first time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from inspect import isawaitable
from time import monotonic, time
from typing import Any, NamedTuple, Protocol

import msgspec

from captoken._format.extras import extra

with extra("mcp"):
    import anyio

from captoken._format import primitives
from captoken._format.clocks import read_clock
from captoken._format.encoding import EncodingError, b64decode, b64encode
from captoken._format.entropy import random_bytes
from captoken._format.errors import ConsentError
from captoken._verification.consents import read_request
from captoken.adapters._agents.pausing import REFUSED_BY_A_PERSON
from captoken.adapters._mcp.messages import CALL, Message, NotLetIn, digest
from captoken.discharge import Refuse

# Requests that may be answered so (MCP 2026-07-28).
_METHODS = (CALL, "resources/read", "prompts/get")

# The params in which a client answers, and shows the state again.
ROUNDS = ("requestState", "inputResponses")

_PREFIX = "captoken1."  # of a state, by which it is told from a tool's own
_KEEP = 600  # seconds that a state is good
_PAUSE = 0.25  # seconds between two looks at the outcome
_ROUNDS = 8  # that a client is told to wait in: an SDK gives up after ten
_UNDECIDED = (
    "Not permitted at present: a person was asked about this, and has not decided yet. "
    "Ask again later."
)
_MESSAGE = "A person has to read this one call, and to consent to it."


class Page(Protocol):
    """Where a person decides: a ConsentService, or what stands for one in another process.

    Both methods may be coroutine functions.
    """

    def ask(self, request: str) -> tuple[str, str] | Awaitable[tuple[str, str]]:
        """The address of the page for a request, and what its outcome is known by.

        Raises ConsentError for a request that nobody can be asked.
        """
        ...

    def outcome(self, number: str) -> str | Refuse | Awaitable[str | Refuse | None] | None:
        """The consent, once; a Refuse for a no; None while nobody has decided.

        Raises ConsentError for one that is over, or was never there.
        """
        ...


class Offer(NamedTuple):
    """What a client is told in place of a refusal; without an address it shows the state again."""

    state: str
    url: str = ""

    @property
    def result(self) -> dict[str, Any]:
        """The answer, as it goes over the wire."""
        told: dict[str, Any] = {"resultType": "input_required", "requestState": self.state}
        if self.url:
            shown = {"mode": "url", "message": _MESSAGE, "url": self.url}
            told["inputRequests"] = {
                "consent": {"method": "elicitation/create", "params": shown},
            }
        return told


class _State(msgspec.Struct, array_like=True):
    """What a state says."""

    tree: str
    about: bytes
    until: int
    number: str
    rounds: int = 0


class Consents:
    """The pauses of one server. `wait`: seconds that a call waits for a person who has the page."""

    def __init__(self, page: Page, *, wait: float) -> None:
        self._page = page
        self._wait = wait
        self._key = random_bytes(32)

    async def offered(self, refused: NotLetIn, message: Message) -> NotLetIn:
        """The refusal, with the offer that is made in its place where a person can be asked."""
        if refused.asked is None or not message.opens or message.method not in _METHODS:
            return refused
        try:
            url, number = await _had(self._page.ask(refused.asked))
        except ConsentError:
            return refused
        tree = read_request(refused.asked).token_id
        until = read_clock(time) + _KEEP
        state = self._sealed(_State(tree, _about(message), until, number))
        refused.offer = Offer(state, url)
        return refused

    def state_in(self, message: Message) -> _State | None:
        """The state that a call comes with, if it is one of ours, for that call, and in time."""
        shown = message.params.get("requestState")
        if type(shown) is not str or not shown.startswith(_PREFIX):
            return None
        try:
            box = primitives.disclose(self._key, b64decode(shown.removeprefix(_PREFIX)))
            about = _about(message)
        except (EncodingError, ValueError):
            return None
        if box is None:
            return None
        state = msgspec.msgpack.decode(box, type=_State)
        in_time = read_clock(time) < state.until
        return state if in_time and state.about == about else None

    async def came(self, state: _State, tree: str, message: Message) -> list[str]:
        """The consent that a state leads to; none where it leads nowhere, for this token.

        Raises NotLetIn: for a no, and where nobody has decided after some time.
        """
        if state.tree != tree:
            return []
        said = message.params.get("inputResponses")
        answer = said.get("consent") if isinstance(said, Mapping) else None
        action = answer.get("action") if isinstance(answer, Mapping) else None
        if action in ("decline", "cancel"):
            told = REFUSED_BY_A_PERSON if action == "decline" else _UNDECIDED
            raise NotLetIn("insufficient", told, message.method == CALL)
        until = monotonic() + self._wait
        while True:
            try:
                outcome = await _had(self._page.outcome(state.number))
            except ConsentError:
                return []
            if isinstance(outcome, Refuse):
                raise NotLetIn("insufficient", REFUSED_BY_A_PERSON, message.method == CALL)
            if outcome is not None:
                return [outcome]
            if monotonic() >= until:
                break
            await anyio.sleep(_PAUSE)
        waits = NotLetIn("insufficient", _UNDECIDED, message.method == CALL)
        if state.rounds < _ROUNDS:
            again = msgspec.structs.replace(state, rounds=state.rounds + 1)
            waits.offer = Offer(self._sealed(again))
        raise waits

    def _sealed(self, state: _State) -> str:
        box = primitives.enclose(self._key, msgspec.msgpack.encode(state), random_bytes(24))
        return _PREFIX + b64encode(box)


def without_state(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The params of a call that is let in, for what answers it: with nothing of ours in them."""
    state = params.get("requestState")
    if type(state) is not str or not state.startswith(_PREFIX):
        return params
    return {name: value for name, value in params.items() if name not in ROUNDS}


def _about(message: Message) -> bytes:
    """The digest of a call: its method, its tool and its arguments."""
    return digest(message.method, message.params)


async def _had(given: Any) -> Any:
    return await given if isawaitable(given) else given
