"""A pasted token: whose it is, by its last link or by what it says, and nothing of it in an answer."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tests.console.fixtures import Browser, World


@pytest.mark.parametrize(
    "dress",
    [
        "{}",
        "Bearer {}",
        "Authorization: Bearer {}\r\n",
        "  {}\n",
        "> Authorization: Bearer\n> {}",
        "{}.cap1p_AAAA",
        "2026-12-01 INFO calling with header authorization: Bearer {} status=403",
        '{{"token": "{}", "table": "sales"}}',
        "cap1_AAAA was refused, {} was not",
        "{}\nnext line of the log",
    ],
)
@pytest.mark.parametrize("fold", ["", "\n> ", "=\r\n", "=", "\r\n\t"])
def test_a_token_leads_to_its_agent_however_it_was_copied(world: World, browser: Browser, dress: str, fold: str) -> None:
    child = world.mint().delegate(to="sales-agent", tables=["sales"])
    world.ask(child)
    text = child.serialize()
    if fold and (dress.endswith("log") or "status" in dress or "was not" in dress):
        pytest.skip("what follows a folded token cannot be told from it")
    wrapped = fold.join(text[at : at + 76] for at in range(0, len(text), 76))
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


def test_a_set_leads_to_the_agent_of_any_of_its_tokens(world: World, browser: Browser) -> None:
    child = world.mint().delegate(to="sales-agent")
    world.ask(child)
    text = f"caps1_AAAA~{child.serialize().removeprefix('cap1_')}"
    assert browser.post("/api/pasted", {"text": text}).json["agent"] == "sales-agent"


def test_what_it_says_of_itself_is_told_apart_from_what_is_known(world: World, browser: Browser) -> None:
    child = world.mint().delegate(to="sales-agent")
    world.ask(child)
    found = browser.post("/api/pasted", {"text": child.delegate(to="unseen").serialize()}).json
    assert (found["agent"], found["is_known"], found["claims"]) == ("sales-agent", False, {"agent": "unseen", "task": "q3"})
    found = browser.post("/api/pasted", {"text": world.mint("other").serialize()}).json
    assert found["claims"] == {"agent": "orchestrator", "task": "other"}


TOKENS = ["cap1_AgJ9Y2FwMQ", "caps1_AgJ9~AgJ8", "cap1d_AgJ9", "cap1p_AgJ9", "cap1u_AgJ9", "cap1a_AgJ9", "CAP1_AgJ9", "eyJhbGciOiJub25lIn0.eyJzdWIi.x"]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("dress", ["{}", "token={}", '"{}"', "authorization: Bearer {} status"])
def test_no_token_goes_into_an_address_or_into_a_form_of_another_kind(browser: Browser, token: str, dress: str) -> None:
    """By construction: it is refused before any view sees it, whatever it is the value of."""
    text = dress.format(token)
    for target in ("query?q=", "complete?word=", "task?task=", "agent?id=", "decision?key=", "decisions?trace=", "now?x="):
        answer = browser.get(f"/api/{target}{quote(text)}")
        assert answer.status == 400 and token not in answer.body.decode(), target
    said = {"kind": "revoke", "select": {"agent": "a"}, "why": text, "stamp": ""}
    for path, form in (
        ("act", said),
        ("preview", {"select": {"task": text}}),
        ("preview", {"select": {"task": "q3"}, "keywords": {"tables": [text]}}),
    ):
        body = json.dumps(form).replace("_", "\\u005f").encode()
        answer = browser.post(f"/api/{path}", body)
        assert answer.status == 400 and token not in answer.body.decode(), path


def test_no_token_is_in_an_answer_though_a_stranger_named_a_table_so(world: World, browser: Browser) -> None:
    token = world.mint()
    text = token.serialize()[:180]
    world.ask(token, text)
    (row,) = browser.get("/api/decisions").json["rows"]
    assert row["what"] == "select on table (a token)"
    answer = browser.get(f"/api/decision?key={row['key']}")
    assert answer.status == 200 and "(a token)" in answer.json["json"]
    for target in ("decisions", f"decision?key={row['key']}", "query?q=refused", "complete?word=table:", "now", "task?task=q3", "needs"):
        assert text[:40] not in browser.get(f"/api/{target}").body.decode(), target
