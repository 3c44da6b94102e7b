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
6. Files of settings run commands and start servers, and nobody is asked: the CLI reads none. So an
   agent that may write files gets no shell by them. Servers are those of `mcp_servers`, alone.
7. A file that a prompt names after an `@` is read before any tool call. So the token is asked about
   it in a hook of its own, `UserPromptSubmit`, as for a call of `Read`; else the prompt is blocked.

Not checked: what a hook or a permission callback of somebody else makes of the input afterwards,
and what a tool does. The CLI is another process with rights of its own.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from captoken._format.extras import extra

with extra("claude-agent"):
    from claude_agent_sdk import ClaudeAgentOptions, HookMatcher

from captoken import current
from captoken._format.errors import CaptokenError, GuardError
from captoken._format.names import frozen_copy
from captoken.adapters._agents import mentions
from captoken.adapters._agents.guarding import checked_guard, unasked
from captoken.adapters._agents.handing import Narrowing
from captoken.current import AnyHeld, Held
from captoken.tools import ToolGuard, agent_name

_CALL, _PROMPT = "PreToolUse", "UserPromptSubmit"

_READ = "Read"  # the tool that what an `@` names is read by, as far as the guard is concerned
_BYPASS = "bypassPermissions"  # the mode in which the CLI writes its own settings unasked

# Options of the command line that say anew what rule 6 says, by the field that they belong in.
_SAID_ELSEWHERE = {"setting-sources": "setting_sources", "permission-mode": "permission_mode"}

# What starts a sub-agent (rule 4): by its names, and by the argument that says which.
_STARTS = frozenset({"Agent", "Task"})
_WHICH = "subagent_type"

_NOTHING = "Not permitted: this agent was handed nothing. Stop here, and say so."
_NO_MORE = "Not permitted: a sub-agent starts no further ones. Do the work yourself, or say so."
_UNBOUND = "Not permitted: this session reads files of settings, and asks before no change of them."
_TOO_MANY = f"Not permitted: more than {mentions.MOST} names after an @ in one prompt."


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
        self._hands: dict[str, Any] = frozen_copy({} if hands is None else hands, "hands")

    def guarded(
        self,
        options: ClaudeAgentOptions,
        *,
        held: AnyHeld | None = None,
        sources_run_unasked: Collection[str] = (),
    ) -> ClaudeAgentOptions:
        """A copy of `options`, for one session, with the hooks that ask, and without settings.

        `held`, or else what is current now, is what the main agent holds in it. Raises NoToken.

        `sources_run_unasked` are the sources of settings that the CLI may read all the same:
        `user`, `project`, `local`. Whoever can write their files can run any command (rule 6).
        Raises GuardError for options that name another one, for `bypassPermissions` beside any, and
        for options that are guarded.
        """
        sources = _sources(options, unasked(sources_run_unasked, "sources"))
        home = options.env.get("HOME") or os.path.expanduser("~")
        session = _Session(
            self._guard,
            self._agent,
            current.holding(held),
            self._hands,
            reads_settings=bool(sources),
            home=None if options.verbatim_prompts else home,
        )
        hooks: dict[Any, list[HookMatcher]] = dict(options.hooks or {})
        if any(_is_ours(each) for matchers in hooks.values() for each in matchers):
            raise GuardError(
                "these options are guarded: for each session give guarded() the plain ones, "
                "else each guard asks, and charges, for the same call"
            )
        # Without a pattern it is for every tool. By default a hook that fails blocks nothing.
        for event, hook in ((_CALL, session.before_tool), (_PROMPT, session.before_prompt)):
            asking = HookMatcher(matcher=None, hooks=[hook], on_failure="block")
            hooks[event] = [asking, *hooks.get(event, ())]
        return replace(options, hooks=hooks, setting_sources=sources, strict_mcp_config=True)


def _is_ours(matcher: HookMatcher) -> bool:
    """Is a hook of a guard's among these?"""
    return any(isinstance(getattr(each, "__self__", None), _Session) for each in matcher.hooks)


def _sources(options: ClaudeAgentOptions, unasked: frozenset[str]) -> list[Any]:
    """Rule 6: the sources of settings that the CLI reads. Raises GuardError."""
    for said, field in _SAID_ELSEWHERE.items():
        if said in options.extra_args:
            raise GuardError(f"extra_args: say {said!r} by {field}=, where the guard sees it")
    sources = sorted(unasked) if options.setting_sources is None else options.setting_sources
    beyond = sorted(set(sources) - unasked)
    if beyond:
        raise GuardError(
            f"settings of {beyond} run commands that no guard sees: leave out setting_sources; "
            "or say guarded(…, sources_run_unasked=…), if only you can write these files"
        )
    if sources and options.permission_mode == _BYPASS:
        raise GuardError(
            f"in {_BYPASS} an agent can write files of settings, and run commands by them: "
            "take another mode, or no sources"
        )
    return list(sources)


class _Session:
    """What one session holds, and what its sub-agents were handed."""

    def __init__(
        self,
        guard: ToolGuard,
        agent: str,
        held: Held,
        hands: Mapping[str, Any],
        *,
        reads_settings: bool,
        home: str | None,
    ) -> None:
        """`home` is the folder that `~` is; None where nothing that prompts name is read."""
        self._guard = guard
        self._agent = agent
        self._held = held
        self._hands = hands
        self._reads_settings = reads_settings
        self._home = home
        self._children: dict[tuple[str, str], Held] = {}

    async def before_tool(self, asked: Any, tool_use_id: str | None, context: Any) -> Any:
        """The hook: `{}` for a call that goes on, or its denial.

        Whatever it raises blocks the call (rule 1).
        """
        tool, arguments = asked["tool_name"], asked["tool_input"]
        child = asked.get("agent_id")
        if self._reads_settings and asked.get("permission_mode") == _BYPASS:  # rule 6
            return await self._refused(tool, arguments, _UNBOUND)
        if child is None:
            return await self._decided(tool, arguments, self._agent, self._held)
        if tool in _STARTS or (isinstance(arguments, Mapping) and _WHICH in arguments):  # rule 4
            return await self._refused(tool, arguments, _NO_MORE)
        kind = str(asked.get("agent_type") or "")
        handed = self._handed(str(child), kind)
        if handed is None:  # rule 3
            return await self._refused(tool, arguments, _NOTHING)
        return await self._decided(tool, arguments, kind, handed)

    async def before_prompt(self, asked: Any, tool_use_id: str | None, context: Any) -> Any:
        """The hook of prompts: `{}` for one that goes on, or its block (rule 7).

        Whatever it raises blocks the prompt (rule 1).
        """
        if self._home is None:
            return {}
        try:
            named = mentions.paths(asked["prompt"], asked["cwd"], self._home)
        except ValueError:
            return _blocked(_TOO_MANY)
        for path in named:
            told = await self._decided(_READ, {"file_path": path}, self._agent, self._held)
            if told:
                return _blocked(told["hookSpecificOutput"]["permissionDecisionReason"])
        return {}

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
            "hookEventName": _CALL,
            "permissionDecision": "deny",
            "permissionDecisionReason": why,
        }
    }


def _blocked(why: str) -> dict[str, Any]:
    """The answer that blocks a prompt: the model gets nothing of it. `why` is for the caller."""
    return {"decision": "block", "reason": why}
