"""Let the agents of the Claude Agent SDK call the tools that their tokens permit, and no other.

    own = TokenGuard(guard, agent="orchestrator", hands={"sales-agent": {"tools": {"Read": {}}}})
    with current.use(token):
        options = own.guarded(ClaudeAgentOptions(agents=...))
    async for message in query(prompt="Report on risk.", options=options): ...

See docs/agents-claude.md.

1. Every tool call is asked about in a hook, `PreToolUse`, before it runs: those of the CLI itself
   (`Bash`, `Read`), of MCP servers (`mcp__sales__query`) and of sub-agents. A hook that fails
   blocks the call; a CLI that would not block is not connected to.
2. The token is the one that is current where `guarded` is called, and goes with those options. A
   hook runs in a task of the SDK's, which knows nothing of what is current elsewhere.
3. A sub-agent is known by the CLI's word, `agent_id` and `agent_type`. It holds what `hands` says
   for its type, narrowed from the token of the main agent. One of another type may do nothing.
4. A sub-agent starts no further ones: nobody says whose these would be.
5. What is refused, the model is told. What is permitted goes on to the permissions of the CLI, as
   if there were no guard: a token is no person's yes.

Not checked: what a hook or a permission callback of somebody else makes of the input afterwards,
and what a tool does. The CLI is another process with rights of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from captoken._format.extras import extra

with extra("claude-agent"):
    from claude_agent_sdk import ClaudeAgentOptions, HookMatcher

from captoken import current
from captoken._format.errors import CaptokenError
from captoken._format.given import read_once
from captoken._writing.token import Token
from captoken.adapters._agents.guarding import checked_guard
from captoken.adapters._agents.handing import Narrowing
from captoken.current import Held
from captoken.tools import ToolGuard, agent_name

_EVENT = "PreToolUse"

# What starts a sub-agent (rule 4): by its names, and by the argument that says which.
_STARTS = frozenset({"Agent", "Task"})
_WHICH = "subagent_type"

_NOTHING = "Not permitted: this agent was handed nothing. Stop here, and say so."
_NO_MORE = "Not permitted: a sub-agent starts no further ones. Do the work yourself, or say so."


class TokenGuard:
    """Decides on the tool calls of one session, and hands tokens on to its sub-agents.

    `agent` is the name under which the main agent holds tokens. `hands` says by type of sub-agent
    what is handed to it: the keywords of `Held.delegate`. Raises TypeError for what is no
    ToolGuard, ValueError for no name.
    """

    def __init__(
        self,
        guard: ToolGuard,
        *,
        agent: str,
        hands: Mapping[str, Narrowing] | None = None,
    ) -> None:
        self._guard = checked_guard(guard)
        self._agent = agent_name(agent)
        if not isinstance(agent, str) or not self._agent:
            raise ValueError("name the agent, agent=…: its token names its holder")
        self._hands: dict[str, Any] = read_once({} if hands is None else hands, "hands")

    def guarded(
        self,
        options: ClaudeAgentOptions,
        *,
        held: Held | Token | None = None,
    ) -> ClaudeAgentOptions:
        """A copy of `options`, for one session, with the hook that asks.

        `held`, or else what is current now, is what the main agent holds in it. Raises NoToken.
        """
        session = _Session(self._guard, self._agent, current.holding(held), self._hands)
        hooks: dict[Any, list[HookMatcher]] = dict(options.hooks or {})
        # Without a pattern it is for every tool. By default a hook that fails blocks nothing.
        asking = HookMatcher(matcher=None, hooks=[session.before_tool], on_failure="block")
        hooks[_EVENT] = [asking, *hooks.get(_EVENT, ())]
        return replace(options, hooks=hooks)


class _Session:
    """What one session holds, and what its sub-agents were handed."""

    def __init__(
        self,
        guard: ToolGuard,
        agent: str,
        held: Held,
        hands: Mapping[str, Any],
    ) -> None:
        self._guard = guard
        self._agent = agent
        self._held = held
        self._hands = hands
        self._children: dict[tuple[str, str], Held] = {}

    async def before_tool(self, asked: Any, tool_use_id: str | None, context: Any) -> Any:
        """The hook: `{}` for a call that goes on, or its denial.

        Whatever it raises blocks the call (rule 1).
        """
        tool, arguments = asked["tool_name"], asked["tool_input"]
        child = asked.get("agent_id")
        if child is None:
            return await self._decided(tool, arguments, self._agent, self._held)
        if tool in _STARTS or (isinstance(arguments, Mapping) and _WHICH in arguments):  # rule 4
            return await self._refused(tool, arguments, _NO_MORE)
        kind = str(asked.get("agent_type") or "")
        handed = self._handed(str(child), kind)
        if handed is None:  # rule 3
            return await self._refused(tool, arguments, _NOTHING)
        return await self._decided(tool, arguments, kind, handed)

    async def _decided(self, tool: Any, arguments: Any, agent: str, held: Held) -> dict[str, Any]:
        """The answer to a call, which is charged and recorded by that."""
        decision = await self._guard.check_async(tool, arguments, agent=agent, held=held)
        return {} if decision else _denied(self._guard.for_model(decision))

    async def _refused(self, tool: Any, arguments: Any, why: str) -> dict[str, Any]:
        """A denial, recorded: nobody's name calls, and no token has that."""
        await self._guard.check_async(tool, arguments, agent="", held=self._held)
        return _denied(why)

    def _handed(self, child: str, kind: str) -> Held | None:
        """What a sub-agent holds, handed to it when it calls first; None where it gets nothing.

        So too where more would be handed on than is held: that is whoever wrote `hands` to see.
        """
        narrowing = self._hands.get(kind)
        if narrowing is None:
            return None
        known = self._children.get((child, kind))
        if known is None:
            try:
                known = self._held.delegate(to=agent_name(kind), **narrowing)
            except CaptokenError:
                return None
            self._children[child, kind] = known
        return known


def _denied(why: str) -> dict[str, Any]:
    """The answer that blocks a call. `why` is for the model."""
    return {
        "hookSpecificOutput": {
            "hookEventName": _EVENT,
            "permissionDecision": "deny",
            "permissionDecisionReason": why,
        }
    }
