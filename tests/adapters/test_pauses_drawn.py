"""Pauses for a person's consent, in any order of steps, and in processes that are killed: no call is made twice by one consent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.adapters import resuming
from tests.adapters.interleaving import claim
from tests.adapters.pauses_langgraph import InAnAgent, InANode
from tests.adapters.pauses_mcp import OverMCP
from tests.adapters.pauses_openai import OpenAIAgents
from tests.adapters.pauses_pydantic_ai import PydanticAI
from tests.longer import drawing, kills

# Those with large frameworks have the same claim: test_google_adk.py and test_claude_agent.py, in environments of their own.
FRAMEWORKS = [OpenAIAgents, PydanticAI, InANode, InAnAgent, OverMCP]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_no_order_of_steps_makes_a_call_twice_or_without_its_own_consent(framework: Any) -> None:
    claim(framework)


def test_a_process_that_is_killed_makes_no_call_twice(tmp_path: Path) -> None:
    """Killed at any moment of a resumed run, and resumed again from the same stored state, with the same consents."""
    rng = drawing("killed consents")
    resuming.prepare(tmp_path)
    for _ in range(kills(3)):
        with resuming.process(tmp_path) as running:
            assert running.stdout is not None and running.stdout.readline() == b"ready\n"
            time.sleep(rng.random() * 0.05)
            running.kill()
        assert resuming.ran(tmp_path).count("mail") <= 1 and resuming.ran(tmp_path).count("refund") <= 1
    with resuming.process(tmp_path) as running:
        output, _ = running.communicate(timeout=60)
    assert output.endswith(b"done\n") and running.returncode == 0
    assert resuming.ran(tmp_path).count("mail") <= 1 and resuming.ran(tmp_path).count("refund") <= 1
    assert resuming.decided(tmp_path) <= {"allowed", "replayed"}
