"""What a call comes to: the access, what the server knows of it, and the decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from captoken._format.extras import extra

with extra("mcp"):
    from anyio import to_thread

from captoken._language.access import Access
from captoken._language.bounds import TOO_LARGE, is_bounded
from captoken._language.costs import read_cost
from captoken._verification.decision import Decision
from captoken._verification.verifier import AnyVerifier
from captoken.adapters import _asking
from captoken.adapters._mcp.messages import facts
from captoken.current import AnyGrant
from captoken.tools import Attributes, Cost, Unpriced, access_to, refusal_of_call, stated_of

# Why the guard refuses by itself; for the trail, not for whoever asked.
_NO_CALL = "this is not a call that a token can permit: its name, or what comes with it"


async def answer_of(asked: AnyVerifier | AnyGrant, question: Callable[[Any], Any]) -> Any:
    """What a verifier or a grant answers to a question; the event loop goes on meanwhile."""
    return await _asking.answer_of(asked, question, elsewhere=_in_thread)


async def _in_thread(question: Callable[[Any], Any], face: Any) -> Any:
    """Where the plain face is asked. The SDKs run in other loops by anyio, which has threads."""
    return await to_thread.run_sync(question, face)


async def denied_by(grant: AnyGrant, code: str, why: str) -> Decision:
    """A denial by the guard itself, on record."""
    denied: Decision = await answer_of(grant, lambda face: face.deny(code, why))
    return denied


async def _denied_unpriced(grant: AnyGrant, unpriced: Unpriced) -> Decision:
    """The denial of a call whose cost is no amount: a link's, which names what is wrong, if any."""
    access = unpriced.access
    looked: Decision = await answer_of(grant, lambda face: face.recheck((access,)))
    why = ("argument", str(unpriced), access) if looked else (looked,)
    denied: Decision = await answer_of(grant, lambda face: face.deny(*why))
    return denied


def access_of(
    method: str, params: Mapping[str, Any], prefix: str = "", cost: Any = None
) -> Access | None:
    """Rule 1: the access that a message comes to, or None for what no token can permit.

    That is a name which is not legal, arguments that are no object, or a tool that poses as a
    method. `prefix` stands before the tool, behind a gateway.
    """
    asked = facts(method, params)
    if asked is None:
        return None
    tool, arguments = asked
    return access_to(f"{prefix}{tool}", arguments, cost=cost)


def no_call(method: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """The code and the sentence of a denial, for a message of which `access_of` made nothing."""
    asked = facts(method, params)
    return ("tool", _NO_CALL) if asked is None else refusal_of_call(*asked, _NO_CALL)


class Stated:
    """What the server knows of a call beside what is asked: its cost, and attributes."""

    def __init__(self, cost: Cost | None, attributes: Attributes | None) -> None:
        self._cost = read_cost(cost)
        self._attributes = attributes

    @property
    def asks_server(self) -> bool:
        """Does code of the server say it? No stranger's request may reach that."""
        return callable(self._cost) or self._attributes is not None

    def access(self, plain: Access) -> Access:
        """The access with what the server knows of it.

        What its `cost` and `attributes` raise passes through. Raises Unpriced.
        """
        if self._cost is None and self._attributes is None:
            return plain
        stated = stated_of(plain, self._cost, self._attributes)
        return Access(tool=plain.tool, arguments=plain.arguments, **stated)

    async def decided(self, grant: AnyGrant, plain: Access) -> Decision:
        """What a grant says of a call, with what the server knows of it."""
        try:
            access = self.access(plain)
        except Unpriced as unpriced:
            return await _denied_unpriced(grant, unpriced)
        if not is_bounded(access):
            return await denied_by(grant, *TOO_LARGE)
        decision: Decision = await answer_of(grant, lambda face: face.check(access))
        return decision
