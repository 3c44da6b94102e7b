"""What an operator does is what was shown: to revoke, to narrow, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from captoken.cli.console import acts, views
from tests.console.fixtures import NOW, Browser, World


def test_what_an_operator_does_is_what_was_shown(world: World, browser: Browser) -> None:
    """Looked at, with a reason, done: the next call is refused, and the tree says so. Then lifted."""
    root = world.mint()
    child = root.delegate(to="sales-agent", tables=["sales"])
    assert world.ask(root) and world.ask(child)
    link = browser.get("/api/task?task=q3").json["nodes"][1]["id"]
    seen = browser.post("/api/preview", {"select": {"link": link}}).json
    assert (seen["would_refuse"], seen["rows"][0]["who"]) == (1, "orchestrator > sales-agent")
    assert world.operator.entries() == ()

    wish = {"kind": "revoke", "select": {"link": link}, "why": "it went astray", "stamp": seen["stamp"]}
    done = browser.post("/api/act", wish).json
    assert not world.ask(child) and world.ask(root)
    states = {node["agent"]: node["state"] for node in browser.get("/api/task?task=q3").json["nodes"]}
    assert states == {"orchestrator": "live", "sales-agent": "revoked"}
    (entry,) = browser.get("/api/overlay").json["entries"]
    assert (entry["id"], entry["by"], entry["why"]) == (done["entry"], "ops:kim", "it went astray")

    assert browser.post("/api/act", {"kind": "lift", "entry": entry["id"], "why": "it was me"}).status == 200
    assert world.ask(child)


def test_to_narrow(world: World, browser: Browser) -> None:
    root = world.mint()
    assert world.ask(root, "sales") and world.ask(root, "market.eu")
    wanted = {"select": {"task": "q3"}, "keywords": {"tables": ["sales"]}}
    seen = browser.post("/api/preview", wanted).json
    assert seen["would_refuse"] == 1 and seen["stands"]["narrows"] == ["only on sales"]
    wish = {"kind": "narrow", **wanted, "why": "market data is late", "stamp": seen["stamp"]}
    assert browser.post("/api/act", wish).status == 200
    assert world.ask(root, "sales") and not world.ask(root, "market.eu")
    assert browser.get("/api/now").json["tasks"][0]["state"] == "narrowed"
    (node,) = browser.get("/api/task?task=q3").json["nodes"]
    (said,) = browser.get(f"/api/agent?id={node['id']}").json["said"]
    assert (said["why"], said["narrows"]) == ("market data is late", ["only on sales"])


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"stamp": ""}, 409),
        ({"stamp": "x\udc80"}, 400),
        ({"select": {"task": "other"}}, 409),
        ({"keywords": {"tables": ["sales"]}, "kind": "narrow"}, 409),
        ({"why": " "}, 400),
        ({"kind": "widen"}, 400),
        ({"kind": "narrow"}, 400),
        ({"select": {}}, 400),
        ({"select": None}, 400),
        ({"kind": "lift"}, 400),
        ({"kind": "lift", "entry": "nothing"}, 400),
    ],
)
def test_nothing_else_is_done(world: World, browser: Browser, changed: dict[str, object], status: int) -> None:
    world.ask(world.mint())
    seen = browser.post("/api/preview", {"select": {"task": "q3"}}).json
    wish = {"kind": "end", "select": {"task": "q3"}, "why": "over", "stamp": seen["stamp"]}
    answer = browser.post("/api/act", wish | changed)
    assert answer.status == status and set(answer.json) == {"error"}
    assert world.operator.entries() == ()
    assert browser.post("/api/act", wish).status == 200
    assert len(world.operator.entries()) == 1


@pytest.mark.parametrize(
    "said",
    [
        {"select": {"tables": "sales"}},
        {"select": {"task": "a b"}},
        {"select": {"link": "x"}},
        {"select": {"task": "q3"}, "keywords": {"depth": 1}},
        {"select": {"task": "q3"}, "keywords": {"uses": 1}},
        {"select": {"task": "q3"}, "keywords": {"agent": "x"}},
        {"select": {"task": "q3"}, "keywords": {"tables": "sales"}},
        {"select": {"task": "q3"}, "keywords": {"colour": 1}},
    ],
)
def test_what_no_entry_can_say(browser: Browser, said: dict[str, object]) -> None:
    assert browser.post("/api/preview", {"select": {"task": "q3"}, "keywords": {"tables": ["sales"]}}).status == 200
    answer = browser.post("/api/preview", said)
    assert answer.status == 400 and answer.json["error"]


def test_a_preview_says_when_it_has_not_looked_at_all(world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    root = world.mint()
    for _ in range(3):
        world.ask(root)
    wish = {"select": {"task": "q3"}}
    looked = {"add": [wish], "first": NOW, "last": NOW}
    for most, only, stopped in ((3, None, 3), (2, 2, 2)):
        monkeypatch.setattr(acts, "LOOKED_AT", most)
        seen, found = browser.post("/api/preview", wish).json, browser.post("/api/what-if", looked).json
        assert (seen["only"], seen["would_refuse"]) == (found["only"], found["stopped"]) == (only, stopped)


def test_a_preview_names_each_token_that_is_hit(world: World, browser: Browser) -> None:
    """Those of tasks below and of other people, too: `q3` is their name as well."""
    world.ask(world.mint().delegate(to="sales-agent"))
    world.ask(world.mint(task="q3/eu", subject="user:kim"))
    world.ask(world.mint(task="q30"))
    hits = browser.post("/api/preview", {"select": {"task": "q3"}}).json["hits"]
    assert [(one["task"], one["subject"], one["agents"]) for one in hits["groups"]] == [
        ("q3", "user:jane", ["orchestrator", "sales-agent"]),
        ("q3/eu", "user:kim", ["orchestrator"]),
    ]
    assert (hits["agents"], hits["namesakes"], hits["is_all"]) == (3, [], True)


def test_a_second_token_of_the_same_name_is_told_and_can_be_revoked_too(world: World, browser: Browser) -> None:
    root = world.mint()
    first, second = root.delegate(to="sales-agent"), world.mint().delegate(to="sales-agent")
    world.ask(first)
    id = next(one["id"] for one in browser.get("/api/task?task=q3").json["nodes"] if one["agent"] == "sales-agent")
    world.ask(second)
    view = browser.get(f"/api/agent?id={id}").json
    hits = browser.post("/api/preview", {"select": view["reach"]["select"]}).json["hits"]
    assert (hits["agents"], [one["token"] for one in hits["namesakes"]]) == (1, [second.token_id])

    wish = {"kind": "revoke", "select": view["reach"]["named"], "why": "both"}
    seen = browser.post("/api/preview", {"select": wish["select"]}).json
    assert (seen["hits"]["agents"], seen["hits"]["namesakes"]) == (2, [])
    assert browser.post("/api/act", {**wish, "stamp": seen["stamp"]}).status == 200
    assert not world.ask(first) and not world.ask(second) and world.ask(root)


def test_an_act_that_would_hit_another_token_is_asked_again(world: World, browser: Browser) -> None:
    """And one that hits more agents of the same token is not: they can come each second."""
    root = world.mint()
    world.ask(root)
    wish = {"kind": "end", "select": {"task": "q3"}, "why": "over"}
    seen = browser.post("/api/preview", {"select": wish["select"]}).json
    world.ask(world.mint(subject="user:kim"))
    assert browser.post("/api/act", {**wish, "stamp": seen["stamp"]}).status == 409

    seen = browser.post("/api/preview", {"select": wish["select"]}).json
    world.ask(root.delegate(to="late-agent"))
    assert browser.post("/api/act", {**wish, "stamp": seen["stamp"]}).status == 200


def test_what_was_used_can_be_said_in_an_entry(world: World, browser: Browser) -> None:
    """The token to mint instead counts, too. An entry counts nothing, and takes what is suggested for it."""
    world.ask(world.mint(budget={"eur": 100}, uses=9), eur=30)
    ((id,),) = world.index.rows("select id from hops")
    unused = browser.get(f"/api/agent?id={id}").json["unused"]
    assert unused["python"] == "token.attenuate(tables=['sales'], operations=['select'], uses=1, budget={'eur': 30})"
    assert browser.post("/api/preview", {"select": {"link": id}, "keywords": unused["keywords"]}).json["would_refuse"] == 0


def test_as_many_go_on_as_are_announced_and_the_wide_act_stops_all(world: World, browser: Browser) -> None:
    """Of an agent with tokens in several tasks: what the first dialog says goes on, the second one stops."""
    for task in ("a", "b", "c"):
        world.ask(world.mint(task).delegate(to="sales-agent"))
    node = world.index.rows("select id from hops where agent = 'sales-agent' and task = 'a'")[0][0]
    reach = browser.get(f"/api/agent?id={node}").json["reach"]
    hits = browser.post("/api/preview", {"select": reach["select"]}).json["hits"]
    assert (hits["agents"], sorted(one["task"] for one in hits["namesakes"])) == (1, ["b", "c"])
    hits = browser.post("/api/preview", {"select": reach["named"]}).json["hits"]
    assert (hits["agents"], len(hits["namesakes"])) == (1, 2)
    everywhere = {"agent": reach["named"]["agent"]}
    seen = browser.post("/api/preview", {"select": everywhere}).json
    assert (seen["hits"]["agents"], seen["hits"]["namesakes"], seen["would_refuse"]) == (3, [], 3)
    wish = {"kind": "revoke", "select": everywhere, "why": "leaked", "stamp": seen["stamp"]}
    assert browser.post("/api/act", wish).status == 200
    for one in world.index.rows("select id from hops where agent = 'sales-agent'"):
        assert browser.get(f"/api/agent?id={one[0]}").json["node"]["state"] == "revoked"


def test_narrowing_says_what_is_left_and_one_that_leaves_nothing_stops(world: World, browser: Browser) -> None:
    token = world.mint().delegate(to="sales-agent", tables=["sales"])
    assert world.ask(token)
    node = world.index.rows("select id from hops where agent = 'sales-agent'")[0][0]
    select = browser.get(f"/api/agent?id={node}").json["reach"]["select"]

    def left(**keywords: Any) -> Any:
        return browser.post("/api/preview", {"select": select, "keywords": keywords}).json["hits"]["left"]

    assert left(tables=["sales", "hr"]) == [{"agents": ["sales-agent"], "says": ["select on sales"]}]
    assert left(tables=["hr"]) == [{"agents": ["sales-agent"], "says": ["nothing"]}]
    assert left(expires_in=60)[0]["says"] == ["select on sales"]
    world.operator.narrow(**select, tables=["sales", "market.*"], why="a look")
    view = browser.get(f"/api/agent?id={node}").json
    assert (view["node"]["state"], view["may"], view["by_token"]) == ("narrowed", ["select on sales"], ["select on sales"])
    world.operator.narrow(**select, tables=["hr"], why="a slip")
    view = browser.get(f"/api/agent?id={node}").json
    assert (view["node"]["state"], view["may"], view["reach"]["agents"]) == ("stopped", ["nothing"], [])
    assert not world.ask(token)


@pytest.mark.parametrize("by", ["token", "task", "agent", "link", "subject"])
def test_what_a_selector_may_be_about_is_found_without_reading_all(world: World, by: str) -> None:
    """No hop that an entry is on is missed: also of a task that a link narrows, and of who held it before."""
    root = world.mint()
    child = root.delegate(to="sales-agent", task="q3/eu")
    world.ask(child.delegate(to="chart-agent"))
    world.ask(world.mint("other", subject="user:kim").delegate(to="sales-agent"))
    ids = {agent: id for agent, id in world.index.rows("select agent, id from hops where token = ?", root.token_id)}
    wanted = {
        "token": (root.token_id, {"orchestrator", "sales-agent", "chart-agent"}),
        "task": ("q3/eu", {"sales-agent", "chart-agent"}),
        "agent": ("sales-agent", {"sales-agent", "chart-agent"}),
        "link": (ids["sales-agent"], {"sales-agent", "chart-agent"}),
        "subject": ("user:jane", {"orchestrator", "sales-agent", "chart-agent"}),
    }
    value, names = wanted[by]
    found = views.selected(world.index, {by: value})
    assert {ids[name] for name in names} <= found
    assert by == "agent" or not found & {id for (id,) in world.index.rows("select id from hops where token != ?", root.token_id)}
    assert views.selected(world.index, {"kid": "k"}) >= set(ids.values())
