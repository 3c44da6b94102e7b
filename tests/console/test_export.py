"""An export has all decisions, each with its proof, up to then and of whom it says."""

from __future__ import annotations

import io

import pytest

from captoken import Access, Verifier
from captoken.audit import AuditTrail, _evidence
from captoken.cli import evidence, evidence_page
from captoken.errors import AuditError
from captoken.keys import AuditKey
from tests.console.fixtures import NOW, Answer, Browser, World


def proved(answer: Answer, *servers: str) -> tuple[list[int], list[str], _evidence.Evidence]:
    """Of a file that was exported: the numbers of its decisions, what proves each, and all of it."""
    found = evidence.verified(io.BufferedReader(io.BytesIO(answer.body)), servers)
    decisions = [one for one in found.records if one.record["kind"] == "decision"]
    return [one.record["seq"] for one in decisions], [one.by for one in decisions], found


def test_an_export_has_all_decisions_each_with_its_proof(world: World, browser: Browser) -> None:
    """By the server's key, without the trail. Those after the last checkpoint are not sealed yet."""
    key = AuditKey.generate()
    audit = AuditTrail(world.trail.write, key=key, clock=world.clock)
    world.verifier = Verifier(world.keyring, clock=world.clock, audit=audit)
    root, other = world.mint(), world.mint(task="q4")
    for _ in range(1100):
        world.verifier.check(root, Access(table="sales", operation="select"))
    world.ask(other)
    audit.checkpoint()
    world.ask(root)
    world.path.with_name("gone.jsonl").write_bytes(world.path.read_bytes())
    answer = browser.get("/export?task=q3")
    for at in (world.path, world.path.with_name("gone.jsonl")):
        at.unlink()
    seqs, by, _ = proved(answer, key.public)
    assert len(seqs) == 1101 and by == ["tree"] * 1100 + ["nothing"]
    assert b'"task":"q4"' not in b"".join(evidence_page.lines_in(answer.body))
    assert "not sealed yet" in answer.body.decode() and "1100 allowed" not in answer.body.decode()
    with pytest.raises(AuditError, match="no server that is trusted here"):
        proved(answer, AuditKey.generate().public)


def test_an_export_of_then_is_up_to_then_and_one_of_an_agent_is_of_that(world: World, browser: Browser) -> None:
    root = world.mint()
    world.ask(root)
    world.now += 60
    world.ask(root)
    world.ask(root.delegate(to="sales-agent"))
    ids = {one["agent"]: one["id"] for one in browser.get("/api/task?task=q3").json["nodes"]}
    counts = [len(proved(browser.get(f"/export?{asked}"))[0]) for asked in ("task=q3", f"task=q3&at={NOW + 59}", f"id={ids['sales-agent']}", f"id={ids['orchestrator']}&at={NOW}")]
    assert counts == [3, 1, 1, 1]
    page = browser.get(f"/export?task=q3&at={NOW + 59}").body.decode()
    assert "up to 2025-11-25 09:00:59Z" in page and "none yet, or its server has no key" in page
    assert [browser.get(f"/export?{asked}").status for asked in ("task=none", "id=none", "", "task=q3&at=x")] == [404, 404, 404, 400]


def test_an_export_says_what_it_leaves_out(world: World, browser: Browser) -> None:
    """A trail that is not there now, and one that was changed: what no checkpoint seals is not in the file."""
    world.ask(world.mint())
    data = world.path.read_bytes()
    world.path.unlink()
    gone = browser.get("/export?task=q3")
    assert proved(gone)[0] == [] and "since it cannot be read now" in gone.body.decode()
    world.path.write_bytes(data.replace(b'"sales"', b'"salez"'))
    changed = browser.get("/export?task=q3")
    assert proved(changed)[0] == [] and "0 records; nothing that no checkpoint seals, since " in changed.body.decode()
