"""openai-agents, for tests of pauses: its RunState is stored as JSON, and read again by an agent that is built anew."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from agents import Agent, Runner, RunState, function_tool, set_tracing_disabled
from agents.testing import ScriptedModel, assistant_message, function_call

from captoken.adapters.openai_agents import GuardedAgent, guarded, requests_of
from tests.adapters.consents import AGENT, Call, Desk, Stopped


class OpenAIAgents:
    def __init__(self, desk: Desk, *, pause: bool = True) -> None:
        set_tracing_disabled(True)
        self.desk, self.pause = desk, pause

    def agent(self, *calls: Call) -> GuardedAgent:
        said = [function_call(tool, json.dumps(arguments), call_id=call_id) for call_id, tool, arguments in calls]
        model = ScriptedModel([*([said] if said else []), [assistant_message("done")]])
        tools: list[Any] = [function_tool(tool) for tool in (self.desk.lookup, self.desk.mail, self.desk.refund)]
        return guarded(Agent(name=AGENT, model=model, tools=tools), self.desk.guard, pause=self.pause)

    def begin(self, *calls: Call) -> Stopped:
        return asyncio.run(self._stopped(self.agent(*calls), "go"))

    def go_on(self, stored: Any, *, no: tuple[str, ...] = ()) -> Stopped:
        return asyncio.run(self._resumed(stored, no))

    async def _resumed(self, stored: str, no: tuple[str, ...]) -> Stopped:
        agent = self.agent()
        state: RunState[Any] = await RunState.from_string(agent, stored)
        for item in state.get_interruptions():
            if item.call_id in no:
                state.reject(item)
            else:
                state.approve(item)
        return await self._stopped(agent, state)

    async def _stopped(self, agent: GuardedAgent, given: Any) -> Stopped:
        result = await Runner.run(agent, given)
        waiting = await requests_of(result)
        stored = result.to_state().to_string()
        told = {
            item.raw_item["call_id"]: str(item.output) for item in result.new_items if item.type == "tool_call_output_item"
        }
        return Stopped(stored, waiting, told)
