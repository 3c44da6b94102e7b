"""An operator beside the demo's story, in forty steps: what is looked at, done, undone and taken along.

Strangers are at work meanwhile. What they could name has markup in it, letters that look like others, and text that steers.
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from captoken import Access, Issuer
from captoken.audit import analysis, check, read
from tests.console.stage import Stage, served
from tests.console.test_browser import LOOKALIKE, MARKUP, SCRIPT, WAIT, agent, ask, script, violations
from tests.console.watched import watched

pytestmark = pytest.mark.browser

WIDE = "\uff53ales"  # its first letter is as wide as two
BIDI = "\u202esales"  # read from right to left
HOSTILE = {
    "subject": "javascript:alert/1@example",
    "agent": "__proto__/constructor",
    "task": "q3-risk/toString/hidden",
}


class Steps:
    """What was done, numbered. Each step asserts something."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, what: str, is_so: object) -> None:
        self.told.append(what)
        assert is_so, f"step {len(self.told)}: {what}"


def strangers(stage: Stage) -> None:
    """A task whose names are as bad as names can be, and calls that are worse."""
    world = stage.world
    root = Issuer(world.keyring, clock=world.clock).mint(**HOSTILE, tables=["*"], operations=["*"], tools={"*": {}}, expires_in=600)
    twin = root.delegate(to="saIes-agent", tables=["*"], operations=["select"])  # with a capital I
    for token, table in ((root, MARKUP), (root, SCRIPT), (twin, LOOKALIKE), (twin, WIDE), (root, "x" * 250)):
        world.warehouse.check(token.present(audience="warehouse"), Access(table=table, operation="select"))
    tool = Access(tool=f"{MARKUP}.{SCRIPT}".replace(" ", "_"), arguments={MARKUP: MARKUP, LOOKALIKE: SCRIPT})
    world.warehouse.check(root.present(audience="warehouse"), tool)
    written = twin.with_raw_link(json.dumps({"from": MARKUP, "tables": [SCRIPT]}, separators=(",", ":")).encode())
    world.warehouse.check(written.present(audience="warehouse"), Access(table=MARKUP, operation="select"))


def test_forty_steps(chromium: Any, tmp_path: Path) -> None:
    with ExitStack() as stack:
        stage = stack.enter_context(Stage(tmp_path))
        address = stack.enter_context(served(stage.world, tmp_path))
        context = chromium.new_context(viewport={"width": 1280, "height": 900})
        stack.callback(context.close)
        context.set_default_timeout(WAIT)
        page, wrong = watched(context)
        step = Steps()
        looked_at(page, stage, address, step)
        acted_on(page, stage, step)
        strangers_met(page, stage, step, tmp_path)
        ended(page, stage, step, tmp_path)
        assert script(page, "window.hit") is None and wrong == []
        assert len(step.told) == 40


def told_by(page: Any, name: str) -> str:
    """What the row of an agent says."""
    text: str = agent(page, name).inner_text()
    return " ".join(text.split())


def looked_at(page: Any, stage: Stage, address: str, step: Steps) -> None:
    """The story begins, and somebody looks."""
    page.goto(address)
    page.get_by_text("you act as").wait_for()
    step("the address opens the page, and is gone from it", "once" not in page.url and "ops:kim" in page.locator("header").inner_text())
    page.get_by_role("button", name="Now", exact=True).click()
    page.get_by_text("No task yet").wait_for()
    step("nothing has happened yet", page.get_by_role("treeitem").count() == 0)

    stage.go_on()
    agent(page, "market-agent").wait_for()
    step("the first call brings its task, chosen without a click", page.get_by_role("option", name="q3-risk", selected=True).count() == 1)
    step("who handed on stands above", page.locator(".node-name").all_inner_texts() == ["orchestrator", "market-agent"])
    stage.through("work")
    agent(page, "reader-agent").wait_for()
    level = agent(page, "reader-agent").get_attribute("aria-level")
    step("an agent of an agent stands below it", level == "3" and page.get_by_role("treeitem").count() == 5)
    bases = page.locator(".node-line .basis").all_inner_texts()
    step("of each name it is said how it is known", bases[0] == "issued" and set(bases[1:]) == {"vouched"})
    step("what it may do is said in words", "select on market.*; insert on scratch.results" in told_by(page, "market-agent"))
    step("how long it lives is said, with a unit", re.search(r"\d+ (s|min).* left", told_by(page, "sales-agent")))
    plot = page.get_by_role("img", name="Calls in the")
    step("calls over time are told to who sees no plot", ", 0 of them refused" in (plot.get_attribute("aria-label") or ""))

    stage.go_on()
    agent(page, "sales-agent").get_by_text("1 refused").wait_for()
    step("a refusal is seen", "select on table hr" in told_by(page, "sales-agent"))
    page.get_by_role("log").get_by_text("refused").wait_for(state="attached")
    step("and heard", "by sales-agent" in page.get_by_role("log").inner_text())

    agent(page, "sales-agent").click()
    panel = page.locator(".agent")
    panel.get_by_text("token.attenuate(").wait_for()
    step("one agent: its token is orchestrator's, narrowed", panel.locator(".chain > li").count() == 2)
    step("what it was given and never used", "columns={'sales': ['amount'" in panel.locator("pre").inner_text())
    panel.get_by_label("refused only").check()
    panel.locator(".decisions tbody tr").nth(1).wait_for(state="detached")
    step("its refusals alone, with the reason", "no operation is allowed on table hr" in panel.locator(".decisions").inner_text())


def acted_on(page: Any, stage: Stage, step: Steps) -> None:
    """An operator narrows, thinks better of it, and revokes."""
    panel = page.locator(".agent")
    dialog = page.get_by_role("dialog")

    panel.get_by_role("button", name="Narrow…").click()
    dialog.wait_for()
    step("Cancel has the focus", script(page, "document.activeElement.textContent") == "Cancel")
    dialog.get_by_label("select").check()
    dialog.get_by_text("would have refused 5 calls").wait_for()
    step("what reading alone would have refused is shown", "insert on table scratch.results" in dialog.inner_text())
    step("nothing is done without a reason", dialog.get_by_role("button", name="Narrow").is_disabled())
    dialog.get_by_label("Why").fill("it is to read, and no more")
    dialog.get_by_role("button", name="Narrow").click()
    agent(page, "sales-agent").get_by_text("narrowed").wait_for()
    step("narrowed: the server hears it at the next call", not stage.ask("sales-agent", "scratch.results", "insert"))
    step("and what is left is left", stage.ask("sales-agent", "sales"))
    panel.get_by_text("it is to read, and no more").wait_for()
    step("who did it and why stands beside the agent", "ops:kim" in panel.locator("ul.may").first.inner_text())

    page.get_by_role("button", name="Operator actions (1)").click()
    page.get_by_role("button", name="Lift").click()
    dialog.get_by_label("Why").fill("it was the wrong one")
    dialog.get_by_role("button", name="Lift").click()
    page.get_by_text("Nothing stands").wait_for()
    step("lifted: nothing stands", stage.world.operator.entries() == ())
    step("and the agent writes again", stage.ask("sales-agent", "scratch.results", "insert"))

    page.get_by_role("button", name="Now").click()
    agent(page, "market-agent").click()
    panel.get_by_role("button", name="What if…").click()
    dialog.get_by_role("button", name="Check").click()
    dialog.get_by_text("It would have stopped 8 calls").wait_for()
    step("what if it had been revoked: all its calls", "select on table market.moves" in dialog.inner_text())
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    step("nothing came of the question", stage.world.operator.entries() == () and stage.ask("market-agent", "market.moves"))

    agent(page, "filings-agent").click()
    panel.get_by_role("heading", name="Agent filings-agent").wait_for()
    panel.get_by_role("button", name="Revoke with all below…").click()
    dialog.get_by_text("would have refused").wait_for()
    is_named = "1 agent below: reader-agent" in " ".join(dialog.inner_text().split())
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    step("to revoke names all that is stopped, and Esc does nothing", is_named and stage.world.operator.entries() == ())
    panel.get_by_role("button", name="Revoke with all below…").click()
    dialog.get_by_text("would have refused").wait_for()
    stage.world.wait(2)
    stage.revoked_at = stage.world.clock()
    dialog.get_by_label("Why").fill(f"{MARKUP} {BIDI}")
    dialog.get_by_role("button", name="Revoke").click()
    agent(page, "reader-agent").get_by_text("revoked").wait_for()
    step("revoked, with all below", "revoked" in told_by(page, "filings-agent"))
    step("and nothing beside it", "live" in told_by(page, "market-agent") and "live" in told_by(page, "orchestrator"))
    stage.through("tricks")
    agent(page, "filings-agent").get_by_text("2 refused").wait_for()
    codes = [call.code for call in stage.calls if call.agent == "filings-agent" and not call.allowed]
    step("the story meets it", set(codes) == {"revoked", "wrong_audience"} or set(codes) == {"revoked"})


def strangers_met(page: Any, stage: Stage, step: Steps, folder: Path) -> None:
    """An earlier time; and names that strangers chose."""
    page.wait_for_timeout(1200)  # the clock of the page goes by seconds
    page.get_by_role("button", name="History").click()
    slider = page.get_by_role("slider", name="As of")
    slider.press("Home")
    page.get_by_text("No agent yet").wait_for()
    slider.fill(str(stage.revoked_at - 1))
    agent(page, "reader-agent").get_by_text("2 allowed").wait_for()
    step("an earlier time: nothing was revoked", "revoked" not in page.get_by_role("tree").inner_text())
    slider.press("End")
    agent(page, "filings-agent").get_by_text("revoked").wait_for()
    step("nothing is done to what is past", page.get_by_role("button", name="End task…").count() == 0)
    page.get_by_role("button", name="Now").click()

    strangers(stage)
    ask(page, "SAIES")
    page.get_by_role("button", name="agents 1").click()
    page.get_by_role("button", name="saIes-agent").click()
    agent(page, "saIes-agent").click()
    panel = page.locator(".agent")
    panel.get_by_text("\\uff53ales").first.wait_for()
    step("a task of a stranger is found by its agent", page.get_by_role("heading", name=f"Task {HOSTILE['task']}").is_visible())
    said = panel.locator(".decisions").inner_text()
    step("letters that look like others are numbers", "s\\u0430les" in said and LOOKALIKE not in said and WIDE not in said)
    agent(page, HOSTILE["agent"]).click()
    panel.get_by_text(MARKUP).first.wait_for()
    step("markup is text", SCRIPT in panel.inner_text())
    step("no element, style or handler came of it", page.locator("#app img, #app script, #app [style], #app [onerror]").count() == 0)
    page.get_by_role("option").nth(1).wait_for()

    page.get_by_role("button", name="Operator actions (1)").click()
    page.get_by_role("cell", name=MARKUP).wait_for()
    step("nor of a reason", "\\u202e" in page.get_by_role("table").inner_text())
    page.get_by_role("button", name="Now").click()
    with page.expect_download() as begun:
        page.get_by_role("region", name="Task ").get_by_role("link", name="Export").click()
    begun.value.save_as(folder / "taken.html")
    alone = page.context.new_page()
    alone.goto((folder / "taken.html").as_uri())
    alone.get_by_role("heading", name=f"Evidence: all decisions of task {HOSTILE['task']}").wait_for()
    is_text = alone.get_by_text(MARKUP).first.is_visible() and alone.locator("script, img, [style]").count() == 0
    step("taken along: one file, in which it is text, too", is_text and (folder / "taken.html").read_bytes().isascii())
    alone.close()


def ended(page: Any, stage: Stage, step: Steps, folder: Path) -> None:
    """The task is ended, and the story comes to its own end."""
    page.get_by_role("option", name="q3-risk", exact=False).filter(has_not_text="toString").click()
    page.get_by_role("heading", name="Task q3-risk", exact=True).wait_for()
    page.get_by_role("button", name="End task…").click()
    dialog = page.get_by_role("dialog", name="End the task q3-risk")
    dialog.get_by_text("would have refused").wait_for()
    dialog.get_by_label("Why").fill("enough was seen")
    dialog.get_by_role("button", name="End ").click()
    agent(page, "orchestrator").get_by_text("revoked").wait_for()
    step("the task is ended", not stage.ask("orchestrator", "sales") and not stage.ask("market-agent", "market.moves"))
    stage.through("sending")
    stage.through("end")
    assert stage.story is not None
    last = [call.code for call in stage.calls if call.scene == "end" and call.server is not None]
    step("the story comes to its end, and is refused all of it", set(last) <= {"revoked", "expired"} and len(last) >= 5)

    world = stage.world
    found = check(world.lines, [world.server_key.public], known=[world.trail.head])
    history = analysis.gather(read(world.lines))
    counts = {hop.id: (sum(one.allowed for one in hop.decisions), hop.denied) for hop in history.hops()}
    page.get_by_text(f"{found.head.seq} records").wait_for()
    shown = {
        row.get_attribute("data-node"): tuple(map(int, re.findall(r"(\d+)\s*(?:allowed|refused)", row.locator(".counts").inner_text())))
        for row in page.get_by_role("treeitem").all()
    }
    step("what is shown is what the trail holds", shown.items() <= counts.items() and len(shown) == 6)
    step("axe-core finds nothing", violations(page) == [])
