"""Google's Agent Development Kit: an orchestrator hands on, and a sub-agent tries for more.

    pip install 'captoken[google-adk]' && python examples/agents_google_adk.py

The model is a fake one: offline. ADK is large: `.ci/nightly large` runs this, not the test suite.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence

try:
    from google.adk.agents import LlmAgent
    from google.adk.models.base_llm import BaseLlm
    from google.adk.models.llm_request import LlmRequest
    from google.adk.models.llm_response import LlmResponse
    from google.adk.runners import InMemoryRunner
    from google.genai import types
except ImportError:
    print("google-adk is not installed: nothing to show. It takes `pip install google-adk`.")
    sys.exit(0)

from captoken import Decision, Issuer, Keyring, Verifier, current
from captoken.adapters.google_adk import TokenGuard, delegate_to
from captoken.tools import ToolGuard


class Fake(BaseLlm):
    """In your service: a model. This one makes the calls that it is given, and is then done."""

    calls: list[tuple[str, dict[str, str]]]

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        if self.calls:
            name, arguments = self.calls.pop(0)
            part = types.Part.from_function_call(name=name, args=arguments)
        else:
            part = types.Part(text="done")
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


def query_sales(region: str) -> str:
    """Overdue sales of a region."""
    print(f"  {current.grant().actor.name} reads {region}")
    return f"{region}: 41 overdue"


class Telling:
    """A trail that says what was decided."""

    def record(self, decision: Decision) -> None:
        print(f"  {'permitted' if decision else 'refused'}: {decision.summary}")

    def record_all(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            self.record(decision)


async def main() -> None:
    keyring = Keyring.generate()
    guard = TokenGuard(ToolGuard(Verifier(keyring, audit=Telling())))
    asked = [("query_sales", {"region": region}) for region in ("eu", "us")]
    sales = LlmAgent(
        name="sales_agent",
        model=Fake(model="fake", calls=asked),
        tools=[query_sales],
    )
    ask_sales = delegate_to(sales, tools={"query_sales": {"region": {"in": ["eu"]}}}, expires_in=60)
    boss = LlmAgent(
        name="orchestrator",
        model=Fake(model="fake", calls=[("sales_agent", {"request": "Who is overdue?"})]),
        tools=[ask_sales],
    )

    runner = InMemoryRunner(boss, app_name="desk", plugins=[guard])
    session = await runner.session_service.create_session(app_name="desk", user_id="jane")
    message = types.Content(role="user", parts=[types.Part(text="Report on risk.")])
    root = Issuer(keyring).mint(
        subject="user:jane",
        agent="orchestrator",
        task="q3-risk",
        tools={"sales_agent": {}, "query_sales": {"region": {"any": True}}},
    )
    with current.use(root):
        async for _ in runner.run_async(user_id="jane", session_id=session.id, new_message=message):
            pass


if __name__ == "__main__":
    asyncio.run(main())
