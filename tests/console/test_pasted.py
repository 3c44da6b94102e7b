"""A pasted token: whose it is, by its last link or by what it says, and nothing of it in an answer."""

from __future__ import annotations

import pytest

from tests.console.fixtures import Browser, World


@pytest.mark.parametrize(
    "dress", ["{}", "Bearer {}", "Authorization: Bearer {}\r\n", "  {}\n", "> Authorization: Bearer\n> {}", "{}.cap1p_AAAA"]
)
def test_a_token_leads_to_its_agent_however_it_was_copied(world: World, browser: Browser, dress: str) -> None:
    child = world.mint().delegate(to="sales-agent", tables=["sales"])
    world.ask(child)
    text = child.serialize()
    wrapped = "\n> ".join(text[at : at + 76] for at in range(0, len(text), 76))
    answer = browser.post("/api/pasted", {"text": dress.format(wrapped)})
    found = answer.json
    assert (found["agent"], found["task"], found["is_known"]) == ("sales-agent", "q3", True)
    assert browser.get(f"/api/agent?id={found['node']}").json["node"]["agent"] == "sales-agent"
    assert text[5:40] not in answer.body.decode()


def test_what_was_made_of_it_later_leads_to_the_last_hand_over_that_is_known(world: World, browser: Browser) -> None:
    root = world.mint()
    child = root.delegate(to="sales-agent", tables=["sales"])
    world.ask(child)
    world.ask(root.delegate(to="other"))
    below = child.delegate(to="chart-agent").attenuate(expires_in=60)
    found = browser.post("/api/pasted", {"text": below.serialize()}).json
    assert (found["agent"], found["is_known"]) == ("sales-agent", False)
    found = browser.post("/api/pasted", {"text": root.delegate(to="third").serialize()}).json
    assert (found["agent"], found["is_known"]) == ("orchestrator", False)


def test_what_no_trail_knows_and_what_is_no_token(world: World, browser: Browser) -> None:
    world.ask(world.mint())
    assert "No trail here" in browser.post("/api/pasted", {"text": world.mint().serialize()}).json["trouble"]
    for text in ("", "cap1_x", "hello", "eyJhbGciOiJub25lIn0.e30."):
        found = browser.post("/api/pasted", {"text": text}).json
        assert set(found) == {"trouble"} and found["trouble"].startswith("This is no token")
