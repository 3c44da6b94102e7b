"""One decision: its links, the one that stopped it, the grant that would have done, and what its record says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from captoken import Access, Issuer, Keyring, Verifier, current
from captoken.audit import AuditTrail
from captoken.consent import Approver, ApproverKey
from captoken.stores.memory import MemoryReplayStore
from tests.console.fixtures import Browser, World


def page(browser: Browser, query: str = "refused") -> Any:
    (row, *_) = browser.get(f"/api/query?q={query}").json["rows"]
    answer = browser.get(f"/api/decision?key={row['key']}")
    assert answer.status == 200 and answer.body.isascii()
    return answer.json


def test_the_link_that_stopped_it_and_who_added_it(world: World, browser: Browser) -> None:
    root = world.mint()
    own = root.delegate(to="sales-agent", tables=["sales"]).attenuate(columns={"sales": ["id"]})
    assert not world.ask(own, "market.eu")
    found = page(browser)
    assert [(one["added_by"], one["holder"]) for one in found["links"]] == [
        ("the issuer", "orchestrator"),
        ("orchestrator", "sales-agent"),
        ("sales-agent", "sales-agent"),
    ]
    assert [len(one["stopped"]) for one in found["links"]] == [0, 1, 0]
    assert found["links"][1]["stopped"][0]["added_by"] == "orchestrator"
    assert found["needs"] == 'allow={"market.eu": ["select"]}'
    assert "id" in " ".join(found["links"][2]["says"])
    record = json.loads(world.path.read_text().splitlines()[-1])
    assert json.loads(found["json"]) == record and found["row"]["seq"] == record["seq"]
    assert found["hop"] and found["task"] == {"text": "q3", "key": "q3"} and found["id"] == record["id"]


def test_a_tool_needs_its_arguments_by_name(world: World, browser: Browser) -> None:
    world.verifier.check(world.mint(), Access(tool="pay", arguments={"to": "ann"}))
    world.index.take()
    assert page(browser)["needs"] == 'tools={"pay": {"to": "as stated"}}'


def test_more_rights_would_not_have_helped(world: World, browser: Browser) -> None:
    token = world.mint(expires_in=60)
    world.ask(token)
    world.now += 61
    assert not world.ask(token) and page(browser)["needs"] is None
    allowed = page(browser, "allowed")
    assert allowed["needs"] is None and allowed["reasons"] == [] and allowed["links"][0]["stopped"] == []


def test_what_an_operator_took_stands_in_no_link(world: World, browser: Browser) -> None:
    world.operator.revoke(task="q3", why="enough")
    assert not world.ask(world.mint())
    found = page(browser)
    assert [one["code"] for one in found["reasons"]] == ["revoked"] and found["reasons"][0]["link"] is None


def test_a_token_that_is_forged_has_no_links(world: World, browser: Browser) -> None:
    world.verifier.check(world.mint().serialize()[:-6] + "AAAAAA", Access(table="sales", operation="select"))
    world.index.take()
    found = page(browser)
    assert (found["links"], found["hop"], found["task"]["key"]) == ([], None, None)


def test_a_consent_that_was_spent_is_told(world: World, browser: Browser) -> None:
    jane = Approver(ApproverKey.generate(), clock=world.clock)
    keyring = Keyring.generate().for_audience("mail")
    token = Issuer(keyring, clock=world.clock).mint(
        subject="user:jane",
        agent="clerk",
        task="refunds",
        audience="mail",
        tools={"mail.send": {"to": {"any": True}}},
        consent=[{"for": {"tools": ["mail.send"]}, "by": jane.public}],
        expires_in=600,
    )
    trail = AuditTrail(world.trail.write, clock=world.clock)
    server = Verifier(keyring, "mail", clock=world.clock, replays=MemoryReplayStore(floor=0), audit=trail)
    mail = Access(tool="mail.send", arguments={"to": "ann@example.com"})
    refused = server.check(token.present(audience="mail"), mail)
    yes = jane.consent(refused.request(), expires_in="5m")
    with current.use(token, consents=[yes]) as held:
        assert server.check(held.present(audience="mail"), mail)
    world.index.take()
    (consent,) = page(browser, "allowed")["consents"]
    assert consent["by"] == jane.public and consent["link"] == 0 and consent["given"] < consent["until"]


@pytest.mark.parametrize("key", ["", "1.2", "x", "1.", f"{1}.{'0' * 32}", "1." + "0" * 33])
def test_there_is_no_such_decision(browser: Browser, key: str) -> None:
    assert browser.get(f"/api/decision?key={key}").status == 404


def test_a_record_that_was_changed_is_not_shown(world: World, browser: Browser) -> None:
    assert not world.ask(world.mint(), "hr")
    (row,) = browser.get("/api/query?q=refused").json["rows"]
    world.path.write_bytes(world.path.read_bytes().replace(b'"hr"', b'"hq"'))
    assert browser.get(f"/api/decision?key={row['key']}").status == 404
