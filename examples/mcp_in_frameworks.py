"""A framework's own MCP client, shared by two agents: each call goes out with its agent's token.

    python examples/mcp_in_frameworks.py

Needs pydantic-ai and fastmcp. The server is in this process, the model is a fake one: offline.
"""

import asyncio
from typing import Any

from fastmcp import FastMCP
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from captoken import Issuer, Keyring, Verifier, current
from captoken.adapters.fastmcp import Guard
from captoken.adapters.mcp_frameworks import present_each

AUDIENCE = "care-mcp"
KEYRING = Keyring.generate().for_audience(AUDIENCE)
server = FastMCP("care", middleware=[Guard(Verifier(KEYRING, audience=AUDIENCE))])


@server.tool
def refund(order: str, cents: int) -> str:
    return f"{cents} back for {order}, by {current.grant().actor.name}"


def paying(cents: int) -> FunctionModel:
    """A model that pays so much back, whoever asks it."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if any(isinstance(message, ModelResponse) for message in messages):
            return ModelResponse(parts=[TextPart("done")])
        return ModelResponse(parts=[ToolCallPart("refund", {"order": "A-1", "cents": cents})])

    return FunctionModel(answer)


async def main() -> None:
    # One line, and one client for all agents.
    care = present_each(MCPToolset(server, tool_error_behavior="failed"), audience=AUDIENCE)
    root = Issuer(KEYRING).mint(
        subject="user:jane",
        agent="orchestrator",
        task="q3-care",
        tools={"refund": {"order": {"any": True}, "cents": {"max": 5000}}},
        expires_in=600,
    )
    for name, most, cents in (
        ("junior", 1000, 900),
        ("senior", 5000, 4000),
        ("junior", 1000, 4000),
    ):
        agent = Agent(paying(cents), name=name, toolsets=[care])
        handed: dict[str, Any] = {"refund": {"order": {"in": ["A-1"]}, "cents": {"max": most}}}
        with current.use(root), current.delegate(to=name, tools=handed):
            done = await agent.run("Pay it back.")
        told = [
            part.content
            for message in done.all_messages()
            for part in message.parts
            if isinstance(part, ToolReturnPart)
        ]
        print(f"{name}: {told[0]}")


if __name__ == "__main__":
    asyncio.run(main())
