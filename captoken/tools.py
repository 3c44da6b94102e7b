"""Deciding on tool calls in the process of the agents: what every adapter for a framework asks (docs/agents.md).

1. The token is the one that is passed, or else the current one. None: denied.
2. The name of the agent is the framework's own word for who runs. It has to be the token's holder: so a sub-agent that
   still runs under its parent's token, since nobody handed it one, may do nothing.
3. A tool's name that is no legal name, an agent's, or arguments that are no JSON: denied, and nothing raised.
4. Inside a permitted call, another run under the same token was handed nothing, whatever its name: denied, and it hands
   nothing on. A call of the same run, as a tool makes that runs others, is decided as any.

The framework's process has the verifier's keys: this keeps agents in bounds that can only call tools. It is no bound for
code that runs in the same process. Where tools live in another process, that one verifies (docs/http.md, docs/mcp.md).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from captoken import current
from captoken._format import names
from captoken._format.errors import GuardError, LimitError, NoToken, WideningError
from captoken._language.access import Access, Caller
from captoken._verification import aio
from captoken._verification.decision import Decision
from captoken._verification.grant import Grant
from captoken._verification.verifier import Verifier
from captoken._writing.token import Token
from captoken.current import Held, Presented

_log = logging.getLogger("captoken")
# (tool, arguments) -> what a call costs, by unit; or the attributes that the server itself knows of it.
Cost: TypeAlias = Callable[[str, Mapping[str, Any]], Mapping[str, int]]
Attributes: TypeAlias = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


def access_to(
    tool: Any, arguments: Any, *, attributes: Any = None, cost: Any = None
) -> Access | None:
    """The access that a call of a tool is, or None where no token can permit it: no legal name, or no JSON."""
    try:
        return Access(
            tool=tool, arguments=arguments or {}, attributes=attributes or {}, cost=cost or {}
        )
    except (TypeError, ValueError, RecursionError):
        return None


def agent_name(name: object) -> str:
    """An agent's name as tokens spell it: with hyphens for white space. It may still be no legal one."""
    return "-".join(str(name).split())


class _Lent(Held):
    """What is held inside a permitted call: for the run that made the call, and no other (rule 4)."""

    __slots__ = ("run",)
    run: object

    def __init__(self, held: Held, run: object) -> None:
        super().__init__(held.token, held.signer)
        object.__setattr__(self, "run", run)


@contextmanager
def calling(
    grant: Grant, *, run: object = None, held: Held | None = None
) -> Generator[Grant, None, None]:
    """For adapters, around a call that was permitted: `grant` is current in it, and `held`, or else what is held here.

    `run` is what the framework knows the run by, as it was passed to `check`; None where it does not.
    """
    with current.use(_Lent(current.holding(held), run)), current.serving(grant):
        yield grant


def handing(agent: str | None, *, run: object = None) -> Held:
    """For adapters: what is held, for the agent that is about to hand it on; `agent` and `run` as for `check`.

    Raises GuardError where it is somebody else's (rules 2 and 4): an agent that has no guard, say, inside the tool of one
    that has; NoToken where there is nothing.
    """
    mine = current.holding()
    if not _is_of(mine, agent) or _of_another_run(mine, run):
        raise GuardError(
            f"the agent {agent!r} was handed no token: it cannot hand on that of {mine.token.unverified.holder}"
        )
    return mine


def _is_of(mine: Held, agent: str | None) -> bool:
    return agent is None or agent_name(agent) == mine.token.unverified.holder


def _of_another_run(mine: Held, run: object) -> bool:
    return run is not None and isinstance(mine, _Lent) and mine.run != run


class ToolGuard:
    """Decides on tool calls by the token of whoever calls.

    `verifier` may have an audience: the token is then presented to it, with a proof where it is bound. `cost` says what
    a call takes of a budget, `attributes` what this server knows of it, of a copy of the arguments; what they raise passes
    through. A call that is allowed is charged and recorded, whatever becomes of it then.
    """

    def __init__(
        self, verifier: Verifier, *, cost: Cost | None = None, attributes: Attributes | None = None
    ) -> None:
        self._verifier, self._cost, self._attributes = verifier, cost, attributes

    def check(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        agent: str | None = None,
        run: object = None,
        held: Held | Token | None = None,
    ) -> Decision:
        """The decision on one call, true if allowed; its `grant` is for whatever the tool does in turn.

        `agent` is who calls, as the framework knows it, `run` what it knows the run by; None where it does not. Never
        raises on denial.
        """
        access = self._access(tool, arguments)
        mine, text, proof = self._presented(held, access)
        decision = self._decided(access, mine, text, proof, agent, run)
        if mine is None:
            _log.warning(
                "a tool call, and no token is current: captoken.current.use(token) around the run"
            )
        elif not decision:
            _log.info("refused: %s", decision.summary)
        return decision

    def _decided(
        self,
        access: Access | None,
        mine: Held | None,
        text: str | Token,
        proof: str | None,
        agent: str | None,
        run: object,
    ) -> Decision:
        if access is None:
            why = "no call that a token can permit: its name, or arguments that are no JSON"
            return self._verifier.refuse(text, "tool", why, proof=proof)
        caller = _caller(agent)
        if mine is not None and _is_of(mine, agent) and _of_another_run(mine, run):
            caller = "a run inside a tool call, which was handed no token of its own"  # rule 4
        if isinstance(caller, str):
            return self._verifier.refuse(text, "caller", caller, proof=proof)
        return self._verifier.check(text, access, caller=caller, proof=proof)

    async def check_async(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        agent: str | None = None,
        run: object = None,
        held: Held | Token | None = None,
    ) -> Decision:
        """The same from an event loop: in a thread if the verifier has a store that may be waited for."""
        return await aio.answer(
            self._verifier, self.check, tool, arguments, agent=agent, run=run, held=held
        )

    def _access(self, tool: str, arguments: Mapping[str, Any]) -> Access | None:
        access = access_to(tool, arguments)
        if access is None or not (self._attributes or self._cost):
            return access
        facts: Any = access.arguments  # a copy; and each gets one of its own
        attributes = self._attributes(tool, copy.deepcopy(facts)) if self._attributes else {}
        cost = self._cost(tool, copy.deepcopy(facts)) if self._cost else {}
        return access_to(tool, facts, attributes=attributes, cost=cost)

    def _presented(
        self, held: Held | Token | None, access: Access | None
    ) -> tuple[Held | None, str | Token, str | None]:
        """Who asks, and what goes to the verifier: as it is for one without a name, presented for one that has a name."""
        try:
            mine = current.holding(held)
        except NoToken:
            return None, "", None  # rule 1: no token, which the verifier refuses and records
        if not self._verifier.audiences:
            return mine, mine.token, None
        try:
            shown: Presented = mine.present(audience=self._verifier.audiences[0], request=access)
        except (WideningError, LimitError):  # for another server, say: the verifier will tell
            return mine, mine.token, None
        return mine, shown.text, shown.proof


def _caller(agent: str | None) -> Caller | str | None:
    """Who calls, or why that is nobody."""
    if agent is None:
        return None
    try:
        return Caller(agent=names.name(agent_name(agent), "agent"))
    except (TypeError, ValueError):
        return "the agent's name is none that a token can have"
