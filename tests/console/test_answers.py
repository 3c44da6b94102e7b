"""Answers: the agents and tasks that decisions were about, counted and in order."""

from __future__ import annotations

from typing import Any

from captoken.cli.console.answers import query_view
from tests.console.fixtures import Browser, World
from tests.console.test_queries import told


def names(found: Any) -> list[tuple[str, str]]:
    return [(one["agent"], one["task"]) for one in found["agents"]]


def test_agents_and_tasks_are_counted_and_in_order(world: World, browser: Browser) -> None:
    told(world)
    found = browser.get("/api/query?q=task:q3*&sort=refused&limit=5").json
    assert (found["allowed"], found["denied"], found["counts"]) == (18, 10, {"agents": 6, "tasks": 3})
    assert [one["denied"] for one in found["agents"]] == [3, 3, 3, 1, 0, 0]
    assert [found["tasks"][0][key] for key in ("key", "agents", "denied")] == ["q30", 2, 4]
    assert len(found["rows"]) == 5 and found["next"]
    more = browser.get(f"/api/query?q=task:q3*&before={found['next']}").json
    assert len(more["rows"]) == 23 and "agents" not in more
    assert {one["state"] for one in found["agents"]} == {"live"}
    assert all(one["last_at"] is not None for one in found["agents"])
    oldest = browser.get("/api/query?q=agent:orchestrator&sort=oldest").json
    assert [one["task"] for one in oldest["agents"]] == ["q3", "q3/eu", "q30"]


def test_an_answer_says_when_it_was_and_what_it_was_made_of(world: World, browser: Browser) -> None:
    """Each value with the word that asks for it alone; of one value nothing is told."""
    told(world)
    found = browser.get("/api/query?q=task:q3*").json
    series = found["series"]
    assert (sum(series["allowed"]), sum(series["denied"])) == (18, 10)
    values = {one["key"]: one for one in found["values"]}
    assert set(values) == {"table", "code", "agent", "task"}  # of one subject, server or tool nothing is told
    first = values["table"]["most"][0]
    assert (first["value"], first["word"], first["allowed"], first["denied"]) == ("payroll", "table:payroll", 0, 9)
    for one in values["agent"]["most"] + values["table"]["most"]:
        own = browser.get(f"/api/query?q=task:q3*%20{one['word']}").json
        assert (own["allowed"], own["denied"]) == (one["allowed"], one["denied"])
    rows = browser.get("/api/query?q=task:q3*&only=rows").json
    assert set(rows) == {"trouble", "rows", "next"} and rows["rows"] == found["rows"]
    counted = browser.get("/api/query?q=task:q3*&only=counts").json
    assert counted == found | {"rows": [], "next": None, "agents": [], "tasks": []}
    assert browser.get("/api/query?q=table:nothing").json["series"] is None


def test_rights_that_nobody_below_used_either_are_told(world: World) -> None:
    told(world)
    found = query_view(world.index, None, lambda *_: None, world.now, "agent:orchestrator", sort="unused")
    assert [one["unused"] for one in found["agents"]] == [["hr", "market.*"], ["hr", "sales"], ["market.*", "sales"]]
    assert names(query_view(world.index, None, lambda *_: None, world.now, "agent:sales*", sort="unused"))


def test_what_is_spent_of_a_budget_is_told(world: World) -> None:
    """The most of any, in percent. Of an earlier time no ledger says it."""
    world.ask(world.mint("paid", uses=4))
    world.ask(world.mint("free"))
    found = query_view(world.index, None, lambda *_: 3, world.now, "", sort="spent")
    assert [(one["task"], one["spent"]) for one in found["agents"]] == [("paid", 75), ("free", 0)]
    found = query_view(world.index, None, lambda *_: 3, world.now, "", at=world.now, sort="spent")
    assert {one["spent"] for one in found["agents"]} == {0}


def test_what_cannot_be_read_is_answered_with_why(browser: Browser) -> None:
    answer = browser.get("/api/query?q=colour:red")
    assert answer.status == 200 and "there is no colour" in answer.json["trouble"]


def test_what_was_found_of_a_set_is_one_agent(world: World) -> None:
    """Two hops of one task, agent and token are two agents unless they are one hand-over."""
    root = world.mint()
    for _ in range(2):
        world.ask(root.delegate(to="twin", tables=["sales"]))
    found = query_view(world.index, None, lambda *_: None, world.now, "agent:twin")
    assert found["counts"]["agents"] == 2
