"""What needs a person: each kind, beside a world in which nothing does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captoken import Access, Verifier
from captoken.audit import AuditTrail
from captoken.cli.console.command import _alerts
from captoken.cli.console.index import Index
from captoken.cli.console.needs import needs_view
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryReplayStore
from captoken.stores.trail_file import TrailFile
from tests.console.fixtures import Browser, World
from tests.reactions import world as reactions
from tests.reactions.test_watching import rule


def told(browser: Browser) -> list[tuple[str, bool]]:
    found = browser.get("/api/needs").json["needs"]
    return [(one["kind"], one["grave"]) for one in found]


def sentence(browser: Browser) -> str:
    (one,) = browser.get("/api/needs").json["needs"]
    return str(one["text"])


def server(world: World, **stores: Any) -> None:
    """The server goes on with other stores, in the same trail, and under a name."""
    world.trail.close()
    world.trail = TrailFile(world.path)
    audit = AuditTrail(world.trail.write, head=world.trail.head, clock=world.clock)
    world.verifier = Verifier(world.keyring, "warehouse", clock=world.clock, audit=audit, **stores)


def test_nothing_needs_anybody(world: World, browser: Browser) -> None:
    assert told(browser) == []
    assert world.ask(world.mint(), "sales") and not world.ask(world.mint(), "hr")
    assert told(browser) == []


@pytest.mark.parametrize(("times", "expected"), [(4, []), (5, [("often", True)])])
def test_who_is_refused_five_times_in_a_minute(world: World, browser: Browser, times: int, expected: Any) -> None:
    token = world.mint()
    for _ in range(times):
        world.now += 14
        world.ask(token, "hr")
    world.operator.renew()
    assert told(browser) == expected


def test_refusals_that_are_further_apart_are_no_alarm(world: World, browser: Browser) -> None:
    token = world.mint()
    for _ in range(9):
        world.now += 16
        world.ask(token, "hr")
    world.operator.renew()
    assert told(browser) == []


def test_a_stolen_token_is_first_and_is_not_held_against_its_holder(world: World, browser: Browser) -> None:
    server(world, replays=MemoryReplayStore(floor=0))
    token = world.mint(audience="warehouse").delegate(to="payer", tables=["sales"], key=HolderKey.generate().public)
    for _ in range(6):
        world.ask(token, "sales")
    first, *_ = browser.get("/api/needs").json["needs"]
    assert first["text"] == "The token of payer is used by somebody without its key: 6 calls refused"
    assert first["grave"] and first["task"] == "q3"
    assert browser.get(f"/api/query?q={first['query']}".replace(" ", "%20")).json["denied"] == 6
    node = browser.get(f"/api/agent?id={first['node']}").json["node"]
    assert (node["agent"], node["denied"], node["strange"]) == ("payer", 0, 6)
    assert {one["strange"] for one in browser.get("/api/task?task=q3").json["nodes"]} == {0, 6}
    assert told(browser).count(("often", True)) == 0


def test_forged_tokens_and_servers_that_fail(world: World, browser: Browser) -> None:
    text = world.mint().serialize()[:-6] + "AAAAAA"
    world.verifier.check(text, Access(table="hr", operation="select"))
    world.index.take()
    assert told(browser) == [("forged", False)]
    server(world)
    world.ask(world.mint(uses=3, audience="warehouse"))
    assert ("failing", True) in told(browser)


def test_an_overlay_that_is_not_renewed_or_cannot_be_read(world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.ask(world.mint())
    world.now += 61
    assert told(browser) == [("overlay", False)] and "61 s ago" in sentence(browser)
    world.now += 2
    assert not world.ask(world.mint(), "hr")
    assert told(browser) == [("overlay", True)]
    assert world.ask(world.mint())
    assert told(browser) == [("overlay", False)]
    assert browser.post("/api/act", {"kind": "renew", "why": ""}).status == 200
    assert told(browser) == []
    world.operator.renew()
    monkeypatch.setattr(world.store, "load", lambda: b"no overlay")
    assert "cannot be read" in sentence(browser)


def test_a_trail_in_trouble(world: World, browser: Browser) -> None:
    world.ask(world.mint())
    with world.path.open("ab") as file:
        file.write(b"{}\n")
    world.index.take()
    assert told(browser) == [("trail", True)]


def test_a_trail_that_is_not_whole(world: World, browser: Browser, tmp_path: Path) -> None:
    world.ask(world.mint())
    lines = world.path.read_bytes().splitlines(keepends=True)
    world.path.write_bytes(lines[-1])
    index = Index(tmp_path / "other.db", [world.path])
    index.take()
    (one,) = needs_view(index, None, lambda *_: None, world.now)["needs"]
    assert "is not whole" in one["text"]


def test_a_task_that_its_own_rules_closed(world: World, browser: Browser) -> None:
    token = world.mint(
        tables=["*"], marks={"private": {"tables": ["hr"]}, "outside": {"tables": ["market.*"]}}, forbid=[{"in": ["outside"], "after": ["private"]}]
    )
    assert world.ask(token, "hr") and not world.ask(token, "market.eu")
    (one,) = browser.get("/api/needs").json["needs"]
    assert one["text"] == "Task q3 is closed by its own rules: 1 call refused" and one["task"] == "q3" and not one["grave"]


def test_a_budget_that_runs_out_is_told_once(world: World, browser: Browser) -> None:
    root = world.mint(uses=10)
    below = root.delegate(to="sales-agent")
    for _ in range(7):
        world.ask(below)
    assert told(browser) == []
    world.ask(below)
    world.ask(root)
    assert sentence(browser) == "orchestrator in q3 has 1 of 10 uses left"
    (one,) = browser.get("/api/needs").json["needs"]
    assert one["more"] == "All below it share these."
    world.ask(root)
    assert told(browser) == [("budget", True)]


def test_without_a_ledger_a_budget_is_told_by_refusals(world: World, browser: Browser) -> None:
    token = world.mint(uses=1)
    assert world.ask(token) and not world.ask(token)
    (one,) = needs_view(world.index, None, lambda *_: None, world.now)["needs"]
    assert one["text"] == "orchestrator was refused for want of budget: 1 call"


def test_rights_that_were_never_used_are_one_line(world: World, browser: Browser) -> None:
    world.ask(world.mint(expires_in=600))
    world.ask(world.mint(task="q4", expires_in=3600))
    world.now += 301
    world.operator.renew()
    (one,) = browser.get("/api/needs").json["needs"]
    assert (one["kind"], one["text"]) == ("unused", "1 agent with rights that were never used")


def test_alerts_of_reactions_are_shown(tmp_path: Path) -> None:
    """What rules have only told of; what they have done stands in the overlay."""
    for then, expected in (("alert", ["it tells of link"]), ("revoke", [])):
        (tmp_path / then).mkdir()
        world = reactions.World(tmp_path / then, rule(then=then))
        world.ask(world.mint(), "hr", times=5)
        assert world.react()
        path = str(tmp_path / then / "react.db")
        found = _alerts(path, reactions.NOW + 60)
        assert [one["text"].rpartition(" ")[0].partition(" link ")[0] + " link" for one in found] == expected
        assert _alerts(path, reactions.NOW + 9 * 86_400) == []
        world.close()
    (one,) = _alerts(str(tmp_path), 0)
    assert one["text"].startswith("The alerts of reactions cannot be read from ")


def test_what_is_stopped_is_handled_and_is_no_alarm(world: World, browser: Browser) -> None:
    """By whom, when and why; and what is open stands above it."""
    root = world.mint()
    token = root.delegate(to="sales-agent")
    for _ in range(5):
        world.ask(token, "hr")
    (need,) = browser.get("/api/needs").json["needs"]
    assert (need["grave"], need["handled"]) == (True, False)
    world.operator.revoke(agent="sales-agent", why="it asks for hr")
    for _ in range(5):
        world.ask(root, "hr")
    world.ask(token, "hr")
    first, second = browser.get("/api/needs").json["needs"]
    assert (first["handled"], first["grave"]) == (False, True) and "orchestrator" in first["text"]
    assert (second["handled"], second["grave"]) == (True, False) and "sales-agent" in second["text"]
    assert second["more"].startswith("Stopped by ops:kim, 20") and second["more"].endswith(": it asks for hr")
    for _ in range(2):
        world.now += 1801
        world.operator.renew()
    assert [one["handled"] for one in browser.get("/api/needs").json["needs"] if one["kind"] == "often"] == []


def test_a_token_that_has_expired_needs_nobody(world: World, browser: Browser) -> None:
    token = world.mint(expires_in=60)
    for _ in range(5):
        world.ask(token, "hr")
    world.now += 61
    world.operator.renew()
    (need,) = browser.get("/api/needs").json["needs"]
    assert need["handled"] and need["more"] == "Its token has expired."
