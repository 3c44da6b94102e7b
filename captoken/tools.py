"""Deciding on tool calls in the process of the agents: what every adapter for a framework asks (docs/agents.md).

1. The token is the one that is passed, or else the current one. None: denied.
2. The name of the agent is the framework's own word for who runs. It has to be the token's holder: so a sub-agent that
   still runs under its parent's token, since nobody handed it one, may do nothing.
3. A tool's name that is no legal name, an agent's, or arguments that are no JSON: denied, and nothing raised.

The framework's process has the verifier's keys: this keeps agents in bounds that can only call tools. It is no bound for
code that runs in the same process. Where tools live in another process, that one verifies (docs/http.md, docs/mcp.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from captoken import aio, current, names
from captoken.access import Access, Caller
from captoken.current import Held, Presented
from captoken.decision import Decision
from captoken.errors import LimitError, NoToken, WideningError
from captoken.tokens import Token
from captoken.verify import Verifier

# (tool, arguments) -> what a call costs, by unit; or the attributes that the server itself knows of it.
Cost: TypeAlias = Callable[[str, Mapping[str, Any]], Mapping[str, int]]
Attributes: TypeAlias = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


def access_to(tool: object, arguments: object, *, attributes: Any = None, cost: Any = None) -> Access | None:
    """The access that a call of a tool is, or None where no token can permit it: no legal name, or no JSON."""
    try:
        return Access(tool=tool, arguments=arguments or {}, attributes=attributes or {}, cost=cost or {})  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        return None


def agent_name(name: object) -> str:
    """An agent's name as tokens spell it: with hyphens for white space. It may still be no legal one."""
    return "-".join(str(name).split())


class ToolGuard:
    """Decides on tool calls by the token of whoever calls.

    `verifier` may have an audience: the token is then presented to it, with a proof where it is bound. `cost` says what
    a call takes of a budget, `attributes` what this server knows of it; what they raise passes through. A call that is
    allowed is charged and recorded, whatever becomes of it then.
    """

    def __init__(self, verifier: Verifier, *, cost: Cost | None = None, attributes: Attributes | None = None) -> None:
        self._verifier, self._cost, self._attributes = verifier, cost, attributes

    def check(
        self, tool: str, arguments: Mapping[str, Any], *, agent: str | None = None, held: Held | Token | None = None
    ) -> Decision:
        """The decision on one call, true if allowed; its `grant` is for whatever the tool does in turn.

        `agent` is who calls, as the framework knows it; None where it does not. Never raises on denial.
        """
        facts: Any = arguments if isinstance(arguments, Mapping) else {}
        attributes = self._attributes(tool, facts) if self._attributes else {}
        cost = self._cost(tool, facts) if self._cost else {}
        access = access_to(tool, arguments, attributes=attributes, cost=cost)
        text, proof = self._presented(held, access)
        if access is not None:
            caller = _caller(agent)
            if isinstance(caller, str):
                return self._verifier.refuse(text, "caller", caller, proof=proof)
            return self._verifier.check(text, access, caller=caller, proof=proof)
        why = "no call that a token can permit: its name, or arguments that are no JSON"
        return self._verifier.refuse(text, "tool", why, proof=proof)

    async def check_async(
        self, tool: str, arguments: Mapping[str, Any], *, agent: str | None = None, held: Held | Token | None = None
    ) -> Decision:
        """The same from an event loop: in a thread if the verifier has a store that may be waited for."""
        return await aio.answer(self._verifier, self.check, tool, arguments, agent=agent, held=held)

    def _presented(self, held: Held | Token | None, access: Access | None) -> tuple[str | Token, str | None]:
        """What goes to the verifier: as it is for one without a name, presented for one that has a name."""
        try:
            mine = current.holding(held)
        except NoToken:
            return "", None  # rule 1: no token, which the verifier refuses and records
        if not self._verifier.audiences:
            return mine.token, None
        try:
            shown: Presented = mine.present(audience=self._verifier.audiences[0], request=access)
        except (WideningError, LimitError):  # for another server, say: the verifier will tell
            return mine.token, None
        return shown.text, shown.proof


def _caller(agent: str | None) -> Caller | str | None:
    """Who calls, or why that is nobody."""
    if agent is None:
        return None
    try:
        return Caller(agent=names.name(agent_name(agent), "agent"))
    except (TypeError, ValueError):
        return "the agent's name is none that a token can have"
