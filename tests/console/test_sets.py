"""A set of tokens in the console: a hand-over is one line, and to revoke it stops it at every server (spec 45)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captoken import Issuer, Keyring, TokenSet, Verifier
from captoken.audit import AuditTrail
from captoken.cli.console import views
from captoken.cli.console.acts import Control
from captoken.cli.console.app import Console
from captoken.cli.console.index import Index
from captoken.control import Feed, Operator
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from captoken.stores.trail_file import TrailFile
from tests.console.fixtures import ADDRESS, Browser
from tests.fixtures import WHO, clock, data, tool

WHOSE: dict[str, Any] = {**WHO}
TASK = WHO["task"]
RIGHTS: dict[str, Any] = {"sales-db": {"tables": ["sales"], "operations": ["select"]}, "mail": {"tools": {"send": {}}}}
ASKED = {"sales-db": data("sales"), "mail": tool("send")}


class Servers:
    """Two servers with keys and trails of their own, an operator, and a console over both trails."""

    def __init__(self, folder: Path) -> None:
        keyring, key, store = Keyring.generate(), OperatorKey.generate(), MemorySnapshots()
        operator = Operator(key, store, by="ops:kim", clock=clock())
        operator.renew()
        self.set = Issuer(keyring, clock=clock()).mint_set(**WHOSE, servers=RIGHTS)
        self.files = {name: TrailFile(folder / f"{name}.jsonl") for name in RIGHTS}
        self.verifiers = {
            name: Verifier(
                keyring.for_audience(name),
                name,
                clock=clock(),
                overlay=Feed(store, [key.public], every=0, clock=clock()),
                max_staleness=3600,
                audit=AuditTrail(file.write, clock=clock()),
            )
            for name, file in self.files.items()
        }
        self.index = Index(":memory:", [folder])
        control = Control(store, operator, [key.public], "ops:kim", clock())
        self.browser = Browser(Console(self.index, control, address=ADDRESS, spent=lambda _, __: None, clock=clock()))

    def ask(self, held: TokenSet, *names: str) -> list[bool]:
        """What each of these servers decides, or of all of them."""
        decided = [bool(self.verifiers[name].check(held.token(name), ASKED[name])) for name in names or RIGHTS]
        self.index.take()
        return decided

    def tree(self) -> dict[str, dict[str, Any]]:
        nodes = self.browser.get(f"/api/task?task={TASK}").json["nodes"]
        assert len({node["agent"] for node in nodes}) == len(nodes), "each hand-over once"
        return {node["agent"]: node for node in nodes}

    def agent(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.browser.get(f"/api/agent?id={self.tree()[name]['id']}").json
        return found

    def revoke(self, select: dict[str, str]) -> dict[str, Any]:
        """By the page's own steps. Returns what was shown before."""
        seen: dict[str, Any] = self.browser.post("/api/preview", {"select": select}).json
        wish = {"kind": "revoke", "select": select, "why": "it went astray", "stamp": seen["stamp"]}
        assert self.browser.post("/api/act", wish).status == 200
        return seen


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path)


def test_a_hand_over_of_a_set_is_one_line_that_says_what_each_server_says(servers: Servers) -> None:
    clerk = servers.set.delegate(to="clerk", expires_in=60)
    helper = clerk.delegate(to="helper", expires_in=30)
    servers.ask(clerk)
    assert not servers.verifiers["mail"].check(clerk.token("mail"), tool("post"))
    servers.ask(helper, "mail")
    tree = servers.tree()
    assert [tree[name]["parent"] for name in tree] == [None, tree["orchestrator"]["id"], tree["clerk"]["id"]]
    node = tree["clerk"]
    assert sorted(node["servers"]) == ["mail", "sales-db"] and (node["allowed"], node["denied"]) == (2, 1)
    said = {"sales-db": (1, 0), "mail": (1, 1)}
    assert {one["servers"][0]: (one["allowed"], one["denied"]) for one in node["at"]} == said
    assert any(line.startswith("at mail: ") and "send" in line for line in node["words"])
    assert any(line.startswith("at sales-db: ") and "sales" in line for line in node["words"])
    assert tree["helper"]["servers"] == ["mail"] and tree["helper"]["at"] == []

    # Whichever of its links is asked for.
    ids = [id for (id,) in servers.index.rows("select id from hops where agent = 'clerk'")]
    assert len(ids) == 2
    for id in ids:
        view = servers.browser.get(f"/api/agent?id={id}").json
        assert {row["server"] for row in view["decisions"]["rows"]} == {"mail", "sales-db"} and len(view["decisions"]["rows"]) == 3
        assert view["node"]["id"] == node["id"] == view["chain"][-1]["id"]
        assert [one["agent"] for one in view["reach"]["agents"]] == ["clerk", "helper"]
    assert servers.browser.get("/api/agent?id=unknown").status == 404


def test_to_revoke_an_agent_stops_it_at_every_server(servers: Servers) -> None:
    """Also at the one where it has not called yet, with all below, and nobody beside it. The preview counts it once."""
    clerk, beside = servers.set.delegate(to="clerk"), servers.set.delegate(to="other")
    helper = clerk.delegate(to="helper")
    servers.ask(clerk)
    servers.ask(helper, "mail")
    select = servers.agent("clerk")["reach"]["select"]
    assert select.keys() == {"token", "hop"}
    hits = servers.revoke(select)["hits"]
    assert (hits["agents"], [sorted(one["agents"]) for one in hits["groups"]], hits["namesakes"]) == (2, [["clerk", "helper"]], [])
    assert servers.ask(clerk) == servers.ask(helper) == servers.ask(clerk.attenuate(expires_in=60)) == [False, False]
    assert servers.ask(beside) == servers.ask(servers.set) == [True, True]
    tree = servers.tree()
    assert {name: tree[name]["state"] for name in tree} == {"orchestrator": "live", "clerk": "revoked", "helper": "revoked", "other": "live"}
    assert len(servers.agent("clerk")["said"]) == 1


def test_to_revoke_who_holds_the_whole_set_stops_the_whole_set(servers: Servers) -> None:
    """Link 0 has another id at each server, too. It was seen at one alone."""
    servers.ask(servers.set, "mail")
    select = servers.agent("orchestrator")["reach"]["select"]
    assert select == {"token": servers.set.token("mail").token_id}
    assert servers.revoke(select)["hits"]["agents"] == 1
    assert servers.ask(servers.set) == [False, False]


def test_another_hand_over_to_the_same_name_is_told_of(servers: Servers) -> None:
    clerk, again = servers.set.delegate(to="clerk"), servers.set.delegate(to="clerk")
    servers.ask(clerk)
    servers.ask(again)
    nodes = [node for node in servers.browser.get(f"/api/task?task={TASK}").json["nodes"] if node["agent"] == "clerk"]
    assert len(nodes) == 2
    for node in nodes:
        select = servers.browser.get(f"/api/agent?id={node['id']}").json["reach"]["select"]
        hits = servers.browser.post("/api/preview", {"select": select}).json["hits"]
        assert hits["agents"] == 1 and len(hits["namesakes"]) == 1


def test_a_link_of_one_server_stops_it_there_and_the_line_does_not_look_safer(servers: Servers) -> None:
    """An entry on a link, as another tool makes it: the agent works on at the other server, and the tree says so."""
    clerk = servers.set.delegate(to="clerk")
    servers.ask(clerk)
    ((link,),) = servers.index.rows("select id from hops where agent = 'clerk' and trails = 1")
    hits = servers.revoke({"link": link})["hits"]
    assert hits["agents"] == 1 and len(hits["namesakes"]) == 1
    assert sorted(servers.ask(clerk)) == [False, True]
    assert servers.tree()["clerk"]["state"] == "live"


def test_lines_that_differ_say_at_which_server() -> None:
    assert views._by_server([(["a"], ["x", "y"]), ([], ["x", "z"])]) == ["x", "at a: y", "at a server: z"]  # pyright: ignore[reportPrivateUsage]
    assert views._by_server([(["a"], ["x", "y"])]) == ["x", "y"]  # pyright: ignore[reportPrivateUsage]
