"""Let agents of the Claude Agent SDK call only the tools that their tokens permit.

    own = TokenGuard(guard, agent="orchestrator", hands={"sales-agent": {"tools": {"Read": {}}}})
    with current.use(token):
        options = own.guarded(ClaudeAgentOptions(agents=...))
    async for message in query(prompt="Report on risk.", options=options): ...

See docs/agents-claude.md.

1. A `PreToolUse` hook decides on every tool call before it runs: calls of the CLI's own tools
   (`Bash`, `Read`), of MCP servers (`mcp__sales__query`) and of sub-agents. A hook that fails
   blocks the call. The guard does not connect to a CLI that would not block.
2. The token is the current one when you call `guarded`, and stays with those options. A hook runs
   in a task of the SDK, which does not see what is current elsewhere.
3. The CLI identifies a sub-agent by `agent_id` and `agent_type`. It holds the main agent's token,
   narrowed as `hands` says for its type. A sub-agent of another type can do nothing.
4. A sub-agent cannot start further ones, because nothing says which agent these would belong to.
5. The model is told about a denied call. A permitted call still goes through the CLI's own
   permissions, because a token is not a person's consent.
6. The CLI reads no settings files, because these can run commands and start servers without asking.
   So an agent that may write files cannot get a shell through them. Only the servers in
   `mcp_servers` exist.
7. A file that a prompt names after an `@` is read before any tool call. A `UserPromptSubmit` hook
   decides on it as on a call of `Read`, and blocks the prompt if that is denied.
8. A call that wants a person's consent is denied, and `ask` gets what to ask. Resume the session
   with options that are guarded in `current.use(token, consents=[…])`. The hook does not answer
   `defer`: the CLI ignores it where a message has more than one call, and goes on to its own
   permissions.

Not checked: how other hooks or permission callbacks change the input afterwards, and what a tool
does. The CLI is a separate process with rights of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
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
from captoken.adapters._agents.handing import Narrowing, handed_on
from captoken.adapters._agents.pausing import Wanted, wanted
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
    """Decides on the tool calls of one session, and hands tokens to its sub-agents.

    `agent` is the name under which the main agent holds tokens. `hands` maps each type of sub-agent
    to the keywords of `Held.delegate` for its token. `ask` is called for each call that a person
    has to consent to (rule 8). Raises TypeError for `guard` if it is no ToolGuard, and ValueError
    for an invalid name.
    """

    def __init__(
        self,
        guard: ToolGuard,
        *,
        agent: str,
        hands: Mapping[str, Narrowing] | None = None,
        ask: Callable[[Wanted], object] | None = None,
    ) -> None:
        self._ask = ask
        self._guard = checked_guard(guard)
        self._agent = agent_name(agent)
        if not isinstance(agent, str) or not self._agent:
            raise ValueError("pass agent=…: the agent's token names its holder")
        self._hands: dict[str, Any] = frozen_copy({} if hands is None else hands, "hands")

    def guarded(
        self,
        options: ClaudeAgentOptions,
        *,
        held: AnyHeld | None = None,
        sources_run_unasked: Collection[str] = (),
    ) -> ClaudeAgentOptions:
        """Return a copy of `options` for one session, with hooks that decide and no settings files.

        `held` is the main agent's token in that session; the default is the current one. Raises
        NoToken.

        `sources_run_unasked` names settings files that the CLI may still read: `user`, `project`,
        `local`. Whoever can write these files can run any command (rule 6). Raises GuardError for
        options that name another one, for `bypassPermissions` together with any, and for options
        that are already guarded.
        """
        sources = _sources(options, unasked(sources_run_unasked, "sources"))
        home = options.env.get("HOME") or os.path.expanduser("~")
        session = _Session(
            self._guard,
            self._agent,
            current.holding(held),
            self._hands,
            ask=self._ask,
            reads_settings=bool(sources),
            home=None if options.verbatim_prompts else home,
        )
        hooks: dict[Any, list[HookMatcher]] = dict(options.hooks or {})
        if any(_is_ours(each) for matchers in hooks.values() for each in matchers):
            raise GuardError(
                "these options are already guarded: pass the plain ones to guarded() for each "
                "session, otherwise every guard charges for the same call"
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
            raise GuardError(f"extra_args: pass {said!r} as {field}=, where the guard sees it")
    sources = sorted(unasked) if options.setting_sources is None else options.setting_sources
    beyond = sorted(set(sources) - unasked)
    if beyond:
        raise GuardError(
            f"settings of {beyond} run commands that no guard sees: leave out setting_sources, or "
            "pass guarded(…, sources_run_unasked=…) if only you can write these files"
        )
    if sources and options.permission_mode == _BYPASS:
        raise GuardError(
            f"in {_BYPASS} an agent can write settings files, and run commands through them: use "
            "another mode, or no sources"
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
        ask: Callable[[Wanted], object] | None,
        reads_settings: bool,
        home: str | None,
    ) -> None:
        """`home` is the folder that `~` is; None where nothing that prompts name is read."""
        self._guard = guard
        self._agent = agent
        self._held = held
        self._hands = hands
        self._ask = ask
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
            return await self._decided(tool, arguments, self._agent, self._held, tool_use_id)
        if tool in _STARTS or (isinstance(arguments, Mapping) and _WHICH in arguments):  # rule 4
            return await self._refused(tool, arguments, _NO_MORE)
        kind = str(asked.get("agent_type") or "")
        handed = self._handed(str(child), kind)
        if handed is None:  # rule 3
            return await self._refused(tool, arguments, _NOTHING)
        return await self._decided(tool, arguments, kind, handed, tool_use_id)

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

    async def _decided(
        self,
        tool: Any,
        arguments: Any,
        agent: str,
        held: Held,
        call_id: str | None = None,
    ) -> dict[str, Any]:
        """The answer to a call, which is charged and recorded by that."""
        decision = await self._guard.check_async(tool, arguments, agent=agent, held=held)
        asked = None if decision or self._ask is None else decision.request()
        if asked is not None and self._ask is not None:  # rule 8
            self._ask(wanted(call_id, tool, asked))
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
                known = handed_on(self._held, agent_name(kind), narrowing)
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
