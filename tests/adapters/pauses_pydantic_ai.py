"""pydantic-ai, for tests of pauses: the history is stored as JSON, and read again by an agent that is built anew."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic_ai import Agent, DeferredToolRequests, ToolDenied
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_core import from_json, to_json

from captoken.adapters.pydantic_ai import TokenGuard, requests_of
from tests.adapters.consents import AGENT, Call, Desk, Stopped


class PydanticAI:
    def __init__(self, desk: Desk, *, pause: bool = True) -> None:
        self.desk, self.pause = desk, pause

    def agent(self, *calls: Call) -> Agent[None, Any]:
        said = [ToolCallPart(tool, arguments, tool_call_id=call_id) for call_id, tool, arguments in calls]

        def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            done = any(isinstance(message, ModelResponse) for message in messages)
            return ModelResponse([TextPart("done")] if done else said)

        return Agent(
            FunctionModel(model), name=AGENT, output_type=[str, DeferredToolRequests],
            tools=[self.desk.lookup, self.desk.mail, self.desk.refund], capabilities=[TokenGuard(self.desk.guard, pause=self.pause)],
        )  # fmt: skip

    def begin(self, *calls: Call) -> Stopped:
        return self._stopped(asyncio.run(self.agent(*calls).run("go")))

    def go_on(self, stored: Any, *, no: tuple[str, ...] = ()) -> Stopped:
        history, waiting = stored
        asked = DeferredToolRequests(approvals=[ToolCallPart(**from_json(one)) for one in waiting])
        refused = {call.tool_call_id: ToolDenied("no") for call in asked.approvals if call.tool_call_id in no}
        results = asked.build_results(approvals=refused, approve_all=True)
        messages = ModelMessagesTypeAdapter.validate_json(history)
        return self._stopped(asyncio.run(self.agent().run(message_history=messages, deferred_tool_results=results)))

    def _stopped(self, result: Any) -> Stopped:
        asked = result.output if isinstance(result.output, DeferredToolRequests) else DeferredToolRequests()
        calls = [
            to_json({"tool_name": one.tool_name, "args": one.args, "tool_call_id": one.tool_call_id}) for one in asked.approvals
        ]
        told = {
            part.tool_call_id: str(part.content)
            for message in result.all_messages() for part in message.parts if part.part_kind == "tool-return"
        }  # fmt: skip
        return Stopped((result.all_messages_json(), calls), requests_of(asked), told)
