"""The page in Chromium: the command's own process, a trail that grows beside it, and an operator's hand.

`pytest -m browser tests/console` runs them. They need the package `chromium` of Debian, Playwright for Python, and
axe-core in `web/node_modules`.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import time
from typing import Any

import pytest

from captoken import Access, Issuer, Keyring, Token, Verifier
from captoken._format.encoding import b64encode, encode_json
from captoken.audit import AuditTrail
from captoken.cli.console.app import leading_to
from captoken.cli.console.queries import ASKED_BY
from captoken.control import Operator
from captoken.keys import AuditKey, HolderKey, OperatorKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.stores.sqlite import SQLiteSnapshots
from captoken.stores.trail_file import TrailFile
from tests.console import picture
from tests.console.watched import watched

pytestmark = pytest.mark.browser

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"
WAIT = 15_000  # milliseconds, of a machine that is busy

MARKUP = '<img src=x onerror="window.hit=1">'
SCRIPT = "\"'><script>window.hit=1</script>"
LOOKALIKE = "s\u0430les"  # its second letter is Cyrillic

# Playwright's own types are not at hand where it is not installed.
Page = Any


class Story:
    """A server that writes a trail, an operator's store, and the console as a process of its own."""

    # Further options of the command.
    more: tuple[str, ...] = ()
    signed_ago = 0  # seconds, of the newest snapshot

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        keyring = self.keyring = Keyring.generate()
        # The servers' clock stands, or goes as it does here. It begins ten minutes ago, all in one second.
        self.at: float | None = int(time()) - 600
        self.issuer = Issuer(keyring, clock=self.clock)
        self.trail = TrailFile(folder / "trail.jsonl")
        self.audit_key = AuditKey.generate()
        self.audit = AuditTrail(self.trail.write, key=self.audit_key, clock=self.clock)
        self.verifier = Verifier(keyring, clock=self.clock, audit=self.audit)

        key = OperatorKey.generate()
        key.save(folder / "operator.json")
        self.store = SQLiteSnapshots.create(folder / "overlay.db")
        self.operator = Operator(key, self.store, by="ops:kim", clock=lambda: time() - self.signed_ago)
        self.operator.renew()

        self.root = self.mint("q3-risk")
        self.sales = self.root.delegate(to="sales-agent", tables=["sales", "market.*"])
        self.chart = self.sales.delegate(to="chart-agent", tables=["sales"])
        self.hr = self.root.delegate(to="hr-agent", tables=["hr"])
        for token in (self.root, self.sales, self.chart):
            assert self.ask(token, "sales")
        assert self.ask(self.hr, "hr")
        self.at = None
        self.address = self._start()

    def clock(self) -> float:
        return time() if self.at is None else self.at

    def mint(self, task: str) -> Token:
        return self.issuer.mint(
            subject="user:jane",
            agent="orchestrator",
            task=task,
            tables=["*"],
            operations=["select", "insert"],
            expires_in=3600,
        )

    def ask(self, token: Token, table: str, operation: str = "select") -> bool:
        return bool(self.verifier.check(token, Access(table=table, operation=operation)))

    def _start(self) -> str:
        """Start the console. Its address, which is good once."""
        words = ["--trail", "trail.jsonl", "--overlay", "overlay.db", "--key", "operator.json", "--by", "ops:kim", *self.more]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "captoken", "console", *words, "--json", "--no-open"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        address: str = json.loads(self.process.stdout.readline())["address"]
        return address

    def close(self) -> None:
        self.process.terminate()
        assert self.process.wait(WAIT / 1000) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.trail.close()

    def entries(self) -> list[tuple[str, str]]:
        """What stands in the store, as another process reads it: who said it, and why."""
        return [(entry.by, entry.why) for entry in self.operator.entries()]


@pytest.fixture
def story(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Story]:
    made = getattr(request, "param", Story)(tmp_path)
    yield made
    made.close()


@pytest.fixture
def page(chromium: Any, story: Story) -> Iterator[Page]:
    """The page, opened by the file that a browser is given. At the end: nothing was forbidden to it, and nothing went wrong in it."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, timezone_id="Asia/Kolkata")
    context.set_default_timeout(WAIT)
    opened, wrong = watched(context)
    file = story.folder / "open.html"
    file.write_bytes(leading_to(story.address))
    opened.goto(file.as_uri())
    opened.get_by_role("heading", name="What needs you").wait_for()
    opened.get_by_role("button", name="Now", exact=True).click()
    opened.get_by_role("tree").wait_for()
    yield opened
    assert script(opened, "window.hit") is None
    context.close()
    assert wrong == []


def script(page: Page, expression: str) -> Any:
    """What an expression gives, by the debugger, which no policy binds."""
    session = page.context.new_cdp_session(page)
    answer = session.send("Runtime.evaluate", {"expression": expression, "awaitPromise": True, "returnByValue": True})
    session.detach()
    assert "exceptionDetails" not in answer, answer
    return answer["result"].get("value")


def agent(page: Page, name: str) -> Any:
    """Its row in the tree."""
    return page.locator("[role=treeitem]", has=page.locator(".node-name", has_text=name)).first


def violations(page: Page) -> list[str]:
    """What axe-core has to say, in a line each."""
    page.wait_for_timeout(300)  # what appears has appeared: colours are looked at as they are
    script(page, AXE.read_text(encoding="utf-8") + "; true")
    found = script(page, "axe.run(document, {resultTypes: ['violations']}).then((run) => run.violations)")
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


def test_the_address_opens_it_once_and_for_one_browser(chromium: Any, story: Story, page: Page) -> None:
    """The secret is not in the address any more, and another browser gets nothing, with or without it."""
    host = story.address.split("/?")[0]
    assert page.url.startswith(host) and "once" not in page.url
    other = chromium.new_context()
    for target in ("/", "/app.js", "/api/now", "/api/session", "/export?task=q3-risk", story.address.removeprefix(host)):
        answer = other.request.get(host + target)
        assert answer.status == 403 and set(answer.json()) == {"error"}
        assert other.request.get(page.url.partition("#")[0].removesuffix("/") + target).status == 403
    other.close()


def test_a_dialog_lists_whom_it_is_about_and_tells_of_a_second_token(story: Story, page: Page) -> None:
    second = story.root.delegate(to="sales-agent", tables=["market.*"])
    assert story.ask(second, "market.eu")
    # What the dialog lists is what was read of the trail when it was opened.
    page.locator(".node-name", has_text="sales-agent").nth(1).wait_for()
    agent(page, "sales-agent").click()
    page.get_by_role("button", name="Revoke with all below…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("This affects").wait_for()
    dialog.get_by_text("1 other token handed to sales-agent will go on").wait_for()
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Revoke all its tokens…").click()
    dialog.get_by_text("This affects 3 agents").wait_for()
    dialog.get_by_role("textbox").fill("both of them")
    dialog.get_by_role("button", name="Revoke").click()
    dialog.wait_for(state="detached")
    assert story.entries() == [("ops:kim", "both of them")]


def test_what_a_dialog_recommends_stops_what_it_says_goes_on(story: Story, page: Page) -> None:
    """Tokens of the same agent in other tasks, too. Each button says how far it reaches."""
    for number in range(9):
        assert story.ask(story.mint(f"other-{number}").delegate(to="sales-agent", tables=["sales"]), "sales")
    page.get_by_role("option", name="other-8").wait_for()
    agent(page, "sales-agent").click()
    page.get_by_role("button", name="Revoke with all below…").click()
    dialog = page.get_by_role("dialog", name="Revoke this token of sales-agent, with all below")
    dialog.get_by_text("9 other tokens handed to sales-agent will go on").wait_for()
    dialog.get_by_text("; and 1 more). Revoke all its tokens… stops these, too.").wait_for()
    dialog.get_by_text("Lift undoes it, under Operator actions").wait_for()
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Revoke all its tokens…").click()
    dialog = page.get_by_role("dialog", name="Revoke all tokens of sales-agent")
    dialog.get_by_text("This affects 11 agents, by 10 tokens").wait_for()
    assert dialog.get_by_text("will go on").count() == 0
    dialog.get_by_label("in q3-risk, and in tasks below it").check()
    dialog.get_by_text("9 other tokens handed to sales-agent will go on").wait_for()
    dialog.get_by_text("In all tasks stops these, too.").wait_for()
    dialog.get_by_role("button", name="Revoke sales-agent in q3-risk").wait_for()
    dialog.get_by_label("in all tasks").check()
    dialog.get_by_text("This affects 11 agents").wait_for()
    dialog.get_by_label("Why").fill("it leaked")
    dialog.get_by_role("button", name="Revoke sales-agent in all tasks").click()
    agent(page, "sales-agent").get_by_text("revoked").wait_for()
    page.get_by_role("option", name="other-3").click()
    agent(page, "sales-agent").get_by_text("revoked").wait_for()


def test_to_narrow_to_nothing_is_said_before_and_after(story: Story, page: Page) -> None:
    agent(page, "chart-agent").click()
    page.locator(".agent").get_by_role("button", name="Narrow…").click()
    dialog = page.get_by_role("dialog", name="Narrow chart-agent")
    dialog.get_by_label("these tables").fill("sales, hr")
    dialog.get_by_text("It leaves to chart-agent: insert, select on sales").wait_for()
    dialog.get_by_label("these tables").fill("hr")
    dialog.get_by_text("It leaves nothing to chart-agent: this stops it.").wait_for()
    dialog.get_by_label("Why").fill("a slip")
    dialog.get_by_role("button", name="Narrow").click()
    agent(page, "chart-agent").get_by_text("stopped").wait_for()
    assert page.get_by_role("list", name="What it may do").inner_text() == "nothing"
    assert "By its token alone: insert, select on sales" in page.locator(".agent").inner_text()
    page.get_by_role("button", name="Operator actions (1)").click()
    assert page.get_by_role("columnheader", name="Limits to").is_visible()


def test_no_token_leaves_the_line_of_questions(story: Story, page: Page) -> None:
    """Pasted in a log line, in JSON or in an address: it is in no chip, no request's address, no history, and finds its agent."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    token = story.chart.serialize()
    secret = token[5:60]
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    line = page.get_by_role("combobox", name="Ask about")
    for text in (
        f"2026-12-01T21:20:01 INFO calling with header authorization: Bearer {token} status=403",
        f'{{"token": "{token}", "table": "sales"}}',
        f"table:sales {token}",
        f"refused x{token}.cap1p_AAAA",
        "=\n".join(token[at : at + 70] for at in range(0, len(token), 70)),
    ):
        page.get_by_role("button", name="Needs you").click()
        page.evaluate("(text) => navigator.clipboard.writeText(text)", text)
        line.focus()
        page.keyboard.press("Control+V")
        page.get_by_text("The trails have this very token: it was handed to chart-agent").wait_for()
        page.get_by_role("heading", name="Agent chart-agent").wait_for()
        assert line.input_value() == "" and page.locator(".chip").count() == 0
    # By a drop, as it is typed, and by an address that somebody sent.
    line.fill(f'say "{token}"')
    page.get_by_text("The trails have this very token").wait_for()
    for where in ("q", "task", "decision"):
        page.evaluate(f"location.hash = '#view=now&{where}=x+{token}'")
        page.wait_for_timeout(200)
        assert secret not in page.url
    page.go_back()
    page.go_back()
    page.wait_for_timeout(200)
    assert secret not in page.url and secret not in page.content()
    # In other fields it is refused before it is sent.
    page.get_by_role("button", name="Now", exact=True).click()
    agent(page, "chart-agent").click()
    page.locator(".agent").get_by_role("button", name="What if…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("without one right").check()
    dialog.get_by_label("table", exact=True).fill(token)
    dialog.get_by_role("button", name="Check").click()
    dialog.get_by_text("There is a token in it.").wait_for()
    assert asked and not [url for url in asked if secret in url]


def test_a_token_that_no_trail_has_opens_nobodys_panel(story: Story, page: Page) -> None:
    """Nothing to revoke stands ready: what it says of itself anybody can write."""
    page.get_by_role("button", name="Needs you").click()
    line = page.get_by_role("combobox", name="Ask about")
    line.fill(story.sales.delegate(to="unseen-agent").serialize())
    box = page.get_by_role("status", name="The token that was pasted")
    box.get_by_text("You pasted a token that says it is for unseen-agent, in task q3-risk.").wait_for()
    assert "it was made from a token of sales-agent" in box.inner_text() and "not verified" in box.inner_text()
    assert page.get_by_role("button", name="Revoke").count() == 0 and "view=needs" in page.url
    found = violations(page)
    page.set_viewport_size({"width": 320, "height": 800})
    assert found + violations(page) == []
    box.get_by_role("button", name="Show sales-agent").click()
    page.get_by_role("heading", name="Agent sales-agent").wait_for()
    line.fill("cap1_AAAA")
    box.get_by_text("This is no token").wait_for()
    page.wait_for_timeout(300)
    box.get_by_role("button", name="Close").click()
    assert box.count() == 0


class Unrenewed(Story):
    signed_ago = 90


@pytest.mark.parametrize("story", [Story, Unrenewed], indirect=True)
def test_an_overlay_that_nobody_renews_is_told(story: Story, page: Page) -> None:
    """What is known, and no more; and it is signed by a button."""
    page.get_by_text("overlay signed").first.wait_for()
    page.get_by_role("button", name="Needs you").click()
    need = page.get_by_text("and not since")
    if not story.signed_ago:
        assert need.count() == 0
        return
    need.wait_for()
    assert page.locator(".needs .is-grave").count() == 0
    page.get_by_role("button", name="Sign it now").click()
    need.wait_for(state="detached")


def test_a_refusal_says_who_added_the_limit(story: Story, page: Page) -> None:
    assert not story.ask(story.sales, "hr")
    agent(page, "sales-agent").get_by_text("1 refused").wait_for()
    agent(page, "sales-agent").click()
    page.get_by_text("(added by orchestrator)").first.wait_for()


def test_no_other_server_of_the_machine_gets_the_cookie(story: Story, page: Page) -> None:
    """To a browser all ports are one host. Who had the cookie could act as the operator."""
    sent: list[str | None] = []

    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers["Cookie"])
            self.send_error(404)

        def log_message(self, *said: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        strange = page.context.new_page()
        for target in ("/", "/api/session", "/app.js"):
            strange.goto(f"http://127.0.0.1:{server.server_port}{target}")
        server.shutdown()
        thread.join()
    strange.close()
    assert len(page.context.cookies([page.url])) == 1
    assert len(sent) >= 3 and set(sent) == {None}


def test_a_refusal_is_seen(story: Story, page: Page) -> None:
    agent(page, "hr-agent").get_by_text("0 refused").wait_for()
    assert not story.ask(story.hr, "payroll")
    agent(page, "hr-agent").get_by_text("1 refused").wait_for()
    agent(page, "hr-agent").get_by_text("select on table payroll").wait_for()


class Marked(Story):
    """What has read hr sends nothing: a task that was closed."""

    def _start(self) -> str:
        self.verifier = Verifier(self.keyring, clock=self.clock, audit=self.audit, ledger=MemoryLedger(floor=0, shared=True))
        marks = {"private": {"tables": ["hr"]}, "outside": {"tables": ["market.*"]}}
        forbid = [{"in": ["outside"], "after": ["private"]}]
        root = self.issuer.mint(
            subject="user:kim", agent="watched", task="closed", tables=["*"], operations=["select"], marks=marks, forbid=forbid
        )
        self.clerk = root.delegate(to="clerk")
        assert self.ask(root, "hr") and not self.ask(self.clerk, "market.eu")
        return super()._start()


@pytest.mark.parametrize("story", [Marked], indirect=True)
def test_a_task_says_what_it_has_set_and_what_that_closed(story: Marked, page: Page) -> None:
    page.get_by_role("option", name="closed").click()
    marks = page.get_by_role("list", name="Marks")
    marks.get_by_text("private since").wait_for()
    assert "by watched: select on table hr" in marks.inner_text()
    panel = page.locator("section", has=page.get_by_role("heading", name="Task closed"))
    panel.get_by_text("1 call refused after that.").wait_for()
    (row,) = panel.locator(".decisions tbody tr").all_inner_texts()
    assert "watched > clerk" in row and "nothing in outside after private" in row
    assert not story.ask(story.clerk, "market.us")
    panel.get_by_text("2 calls refused after that.").wait_for()
    found = violations(page)
    page.set_viewport_size({"width": 360, "height": 800})
    assert found + violations(page) == []


class Thief(Story):
    """Somebody has a token that is bound to a key, and not the key."""

    def _start(self) -> str:
        replays = MemoryReplayStore(floor=0)
        self.verifier = Verifier(self.keyring, "warehouse", clock=self.clock, audit=self.audit, replays=replays)
        root = self.issuer.mint(
            subject="user:jane", agent="orchestrator", task="paid", audience="warehouse", tables=["*"], operations=["select"], expires_in=3600
        )
        self.bound = root.delegate(to="payer", tables=["sales"], key=HolderKey.generate().public)
        return super()._start()


@pytest.mark.parametrize("story", [Thief], indirect=True)
def test_a_stolen_token_comes_first_at_once_and_is_not_its_holders_refusal(story: Thief, page: Page) -> None:
    for _ in range(5):
        assert not story.ask(story.hr, "payroll")
    page.get_by_role("button", name="Needs you").click()
    needs = page.get_by_role("region", name="What needs you").get_by_role("listitem")
    needs.first.locator("strong", has_text="hr-agent in q3-risk was refused 5 times in a minute").wait_for()
    assert not story.ask(story.bound, "sales")
    stolen = "The token of payer is used by somebody without its key: 1 call refused"
    needs.first.locator("strong", has_text=stolen).wait_for()
    page.get_by_role("button", name="Needs you 2 things").wait_for()
    needs.first.get_by_role("button", name="Agent").click()
    agent(page, "payer").get_by_text("0 refused").wait_for()
    agent(page, "payer").get_by_text("1 stolen").wait_for()
    page.get_by_role("button", name="Needs you").click()
    needs.first.get_by_role("button", name="Revoke…").click()
    dialog = page.get_by_role("dialog", name="Revoke this token of payer")
    dialog.get_by_label("Why").fill("somebody else has it")
    assert "view=needs" in page.url
    dialog.get_by_role("button", name="Revoke").click()
    handled = page.get_by_role("list", name="Handled").get_by_role("listitem")
    handled.get_by_text("Stopped by ops:kim").wait_for()
    assert "somebody else has it" in handled.inner_text() and handled.get_by_role("button", name="Revoke").count() == 0
    page.get_by_role("button", name="Needs you 1 thing").wait_for()


def test_from_the_address_to_an_agent_revoked(story: Story, page: Page) -> None:
    """Three clicks and one reason. All below is stopped with it, and nothing beside it."""
    clicks = 0

    def click(target: Any) -> None:
        nonlocal clicks
        target.click()
        clicks += 1

    click(agent(page, "sales-agent"))
    click(page.get_by_role("button", name="Revoke with all below…"))
    dialog = page.get_by_role("dialog", name="Revoke this token of sales-agent")
    dialog.get_by_text("would have refused 2 calls").wait_for()
    assert "q3-risk" in dialog.inner_text() and "chart-agent" in dialog.inner_text()
    assert dialog.get_by_role("button", name="Cancel").evaluate("(one) => one === document.activeElement")
    assert dialog.get_by_role("button", name="Revoke").is_disabled()
    dialog.get_by_label("Why").fill("it asks for payroll")
    click(dialog.get_by_role("button", name="Revoke"))

    agent(page, "sales-agent").get_by_text("revoked").wait_for()
    agent(page, "chart-agent").get_by_text("revoked").wait_for()
    agent(page, "hr-agent").get_by_text("live").wait_for()
    assert clicks == 3  # as docs/console.md has it
    assert story.entries() == [("ops:kim", "it asks for payroll")]


def test_from_the_page_to_evidence_that_is_proved(story: Story, page: Page, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One click: all decisions of the task, and the command proves them where there is no trail. Beside it, of an agent."""
    story.audit.checkpoint()
    assert not story.ask(story.hr, "payroll")
    agent(page, "hr-agent").get_by_text("1 refused").wait_for()
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def proved(of: Any) -> dict[str, Any]:
        with page.expect_download() as download:
            of.get_by_role("link", name="Export").click()
        file = elsewhere / "evidence.html"
        download.value.save_as(file)
        words = ["audit", "verify", str(file), "--server", story.audit_key.public, "--json"]
        done = subprocess.run([sys.executable, "-m", "captoken", *words], cwd=elsewhere, capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    found = proved(page)  # as docs/console.md has it: one click
    assert (found["whole"], found["decisions"], found["proved"], len(found["not_sealed"])) == (True, 5, 4, 1)
    agent(page, "hr-agent").click()
    panel = page.locator(".agent")
    panel.get_by_role("heading", name="hr-agent").wait_for()
    found = proved(panel)
    assert (found["decisions"], found["proved"]) == (2, 1)


def test_all_times_are_in_one_zone(story: Story, page: Page) -> None:
    page.get_by_text("all times are UTC").wait_for()
    agent(page, "hr-agent").click()
    shown = page.locator(".agent .decisions time").first
    shown.wait_for()
    exact = str(shown.get_attribute("datetime")).partition(".")[0].replace("T", " ")
    assert shown.get_attribute("title") == exact


def test_narrowed_and_lifted(story: Story, page: Page) -> None:
    """The form says what is left; a preview follows each change of it."""
    agent(page, "sales-agent").click()
    panel = page.locator(".agent")
    panel.get_by_role("button", name="Narrow…").click()
    dialog = page.get_by_role("dialog", name="Narrow sales-agent")
    dialog.get_by_label("these tables").fill("market.*")
    dialog.get_by_text("would have refused 2 calls").wait_for()
    dialog.get_by_label("these tables").fill("sales")
    dialog.get_by_text("would have refused 0 calls").wait_for()
    dialog.get_by_label("Why").fill("markets are closed")
    dialog.get_by_role("button", name="Narrow").click()
    agent(page, "sales-agent").get_by_text("narrowed").wait_for()
    panel.get_by_text("markets are closed").wait_for()
    assert story.entries() == [("ops:kim", "markets are closed")]

    page.get_by_role("button", name="Operator actions (1)").click()
    page.get_by_role("button", name="Lift").click()
    dialog = page.get_by_role("dialog", name="Lift what was said of")
    assert "markets are closed" in dialog.inner_text()
    dialog.get_by_label("Why").fill("they are open again")
    dialog.get_by_role("button", name="Lift").click()
    page.get_by_text("Nothing stands").wait_for()
    assert story.entries() == []


def test_what_a_rule_has_done_stands_apart_and_is_lifted_by_a_button(story: Story, page: Page) -> None:
    """Lifted, it is shown no more, though the overlay keeps its id for a day (36.26)."""
    story.operator.narrow(task="q3-risk", tables=["sales"], why="a person said so")
    story.operator.once("AAAAAAAAAAAAAAAAAAAAAA", by="react:probing", why="five refusals in a minute", agent="sales-agent")
    page.get_by_role("button", name="Operator actions (2)").click()
    rules = page.get_by_role("region", name="By rules")
    assert "five refusals in a minute" in rules.inner_text() and "a person said so" not in rules.inner_text()
    assert "a person said so" in page.get_by_role("region", name="Operator actions").inner_text()
    rules.get_by_role("button", name="Lift").click()
    dialog = page.get_by_role("dialog", name="Lift what was said of")
    dialog.get_by_label("Why").fill("looked into")
    dialog.get_by_role("button", name="Lift").click()
    page.get_by_role("button", name="Operator actions (1)").wait_for()
    rules.wait_for(state="detached")
    assert [why for _, why in story.entries()] == ["a person said so"]


def test_a_form_that_makes_no_sense_does_nothing(story: Story, page: Page) -> None:
    agent(page, "sales-agent").click()
    page.locator(".agent").get_by_role("button", name="Narrow…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why").fill("a try")
    for field, said in (("what else", "{"), ("what else", "[]"), ("minutes", "-1"), ("minutes", "soon")):
        dialog.get_by_label(field).fill(said)
        assert dialog.get_by_role("button", name="Narrow").is_disabled()
        dialog.get_by_label(field).fill("")
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert story.entries() == []


def test_a_task_is_ended(story: Story, page: Page) -> None:
    assert story.ask(story.mint("payroll-run"), "payroll")
    page.get_by_role("option", name="payroll-run").click()
    page.get_by_role("heading", name="Task payroll-run").wait_for()
    page.get_by_role("button", name="End task…").click()
    dialog = page.get_by_role("dialog", name="End the task payroll-run")
    dialog.get_by_text("would have refused 1 call").wait_for()
    dialog.get_by_label("Why").fill("it is done")
    dialog.get_by_role("button", name="End payroll-run").click()
    page.get_by_role("option", name="payroll-run").get_by_text("ended").wait_for()
    page.get_by_role("option", name="q3-risk").get_by_text("live").wait_for()
    assert story.entries() == [("ops:kim", "it is done")]


def test_the_focus_stands_where_one_has_gone_and_where_one_was(story: Story, page: Page) -> None:
    """By keys alone: from a row to its decision, the next one, and back to a row; a view is told by its heading and the tab's title."""

    def focused() -> str:
        return str(script(page, "(document.activeElement.id || document.activeElement.innerText)"))

    def until(expression: str, wanted: str) -> None:
        began = time()
        while not (found := str(script(page, expression))).startswith(wanted):
            assert time() - began < WAIT / 1000, (found, wanted)
            page.wait_for_timeout(50)

    at_focus = "(document.activeElement.id || document.activeElement.innerText)"
    for number in range(12):
        assert not story.ask(story.hr, f"table_{number:02}")
    page.get_by_role("button", name="Needs you").click()
    needs = page.get_by_role("region", name="What needs you")
    needs.get_by_role("button", name="Revoke…").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_text("This affects").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert focused().startswith("Revoke…") and "view=needs" in page.url
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    until(at_focus, "agent-title")
    until("document.title", "(1) hr-agent · q3-risk · Now · captoken")
    page.go_back()
    until(at_focus, "Agent")
    until("document.title", "(1) Needs you · captoken")
    ask(page, "refused")
    page.locator(".decisions .what a").nth(6).focus()
    row = focused()
    page.keyboard.press("Enter")
    until(at_focus, "decision-title")
    page.keyboard.press("j")
    page.get_by_role("heading", name="table_04").wait_for()
    page.keyboard.press("k")
    page.get_by_role("heading", name="table_05").wait_for()
    page.get_by_role("button", name="Back", exact=True).click()
    until(at_focus, row)
    page.get_by_role("button", name="History").focus()
    page.keyboard.press("Enter")
    until("document.title", "(1) q3-risk · History")


def test_a_chart_is_a_table_for_who_does_not_drag(story: Story, page: Page) -> None:
    page.get_by_role("button", name="Needs you").click()
    hour = page.get_by_role("region", name="The last hour")
    hour.get_by_text("As a table").focus()
    page.keyboard.press("Enter")
    hour.get_by_role("row").nth(1).wait_for()
    assert violations(page) == []
    hour.get_by_role("button", name="Ask about").first.press("Enter")
    page.get_by_text("decisions found").wait_for()


def test_a_time_is_typed(story: Story, page: Page) -> None:
    assert not story.ask(story.hr, "payroll")
    agent(page, "hr-agent").get_by_text("1 refused").wait_for()
    page.get_by_role("button", name="History").click()
    field = page.get_by_role("textbox", name="As of, in UTC")
    typed = datetime.fromtimestamp(time() - 300, UTC).strftime("%Y-%m-%d %H:%M:%S")
    field.fill(typed)
    field.press("Enter")
    agent(page, "hr-agent").get_by_text("0 refused").wait_for()
    field.fill("soon")
    field.press("Enter")
    assert field.input_value() == typed
    page.get_by_role("slider", name="As of").press("Home")
    page.get_by_text("No agent yet.").or_(page.get_by_role("treeitem").first).first.wait_for()
    assert "20" not in page.locator(".task-when").first.inner_text()
    ask(page, "refused")
    page.evaluate("location.hash = '#q=refused'")
    page.get_by_role("link", name="payroll").click()
    page.get_by_role("button", name="History at this moment").click()
    agent(page, "hr-agent").get_by_text("1 refused").wait_for()


def test_a_time_that_comes_late_moves_no_other_page(story: Story, page: Page) -> None:
    """The slider waits until the hand rests: meanwhile one may have gone on to a question, which is of now."""
    assert not story.ask(story.hr, "payroll")
    page.get_by_role("button", name="History").click()
    page.get_by_role("slider", name="As of").wait_for()
    # At once, as far as the page can tell: the slider is moved, its time is up, and the address is another.
    page.evaluate("""async () => {
        const slider = document.getElementById("at");
        slider.value = slider.min;
        slider.dispatchEvent(new Event("input", {bubbles: true}));
        await new Promise((resolve) => setTimeout(resolve, 100));
        const began = performance.now();
        while (performance.now() - began < 200);
        location.hash = "#q=refused";
    }""")
    page.get_by_role("link", name="payroll").wait_for()
    assert "at=" not in page.url


def test_what_if_keeps_no_answer_under_another_question(story: Story, page: Page) -> None:
    agent(page, "sales-agent").click()
    page.locator(".agent").get_by_role("button", name="What if…").click()
    dialog = page.get_by_role("dialog", name="What if sales-agent")
    dialog.get_by_label("without one right").check()
    dialog.get_by_label("table", exact=True).fill("sales")
    dialog.get_by_role("button", name="Check").click()
    dialog.get_by_text("Without select on sales, it would have stopped 2 calls.").wait_for()
    dialog.get_by_label("by whom").select_option("all")
    assert dialog.get_by_text("would have stopped").count() == 0
    dialog.get_by_role("button", name="Check").click()
    dialog.get_by_text("it would have stopped 3 calls.").wait_for()
    dialog.get_by_label("table", exact=True).fill("saels")
    assert dialog.get_by_text("would have stopped").count() == 0
    dialog.get_by_role("button", name="Check").click()
    dialog.get_by_text("No trail has any call on saels: is the name right?").wait_for()
    assert dialog.get_by_label("From (UTC)").input_value().startswith("20")


def test_a_question_that_finds_nothing_says_which_word_it_is(story: Story, page: Page) -> None:
    ask(page, "who", "table:sales")
    page.get_by_text("No decision fits all of these words").wait_for()
    found = page.get_by_role("region", name="0 decisions found")
    found.get_by_role("listitem").filter(has_text="Without table:sales: 0 decisions").wait_for()
    assert violations(page) == []
    found.get_by_role("button", name="Without who").click()
    page.get_by_text("3 decisions found").wait_for()


@pytest.mark.parametrize("width", [320, 1280])
def test_whom_one_is_about_to_stop_is_not_cut(story: Story, page: Page, width: int) -> None:
    """Agents whose names begin alike, one of them narrowed, in a window as narrow as one that is enlarged fourfold; and buttons in sight."""
    names = ["chart-agent-for-europe", "chart-agent-for-america"]
    for name in names:
        assert story.ask(story.root.delegate(to=name, tables=["sales"]), "sales")
    story.operator.narrow(agent=names[0], tables=["sales"], why="to be seen")
    agent(page, names[0]).get_by_text("narrowed").wait_for()
    page.set_viewport_size({"width": width, "height": 640})
    for name in names:
        row = agent(page, name)
        row.scroll_into_view_if_needed()
        shown = row.locator(".node-name")
        assert shown.evaluate("(one) => one.scrollWidth <= one.clientWidth + 1 && one.scrollHeight <= one.clientHeight + 1"), name
        line, box = row.locator(".node-line").bounding_box(), row.bounding_box()
        assert line["x"] + line["width"] <= box["x"] + box["width"] + 1
        assert row.locator(".state").evaluate("(one) => one.getBoundingClientRect().right <= innerWidth")
    agent(page, names[0]).click()
    page.locator(".agent").get_by_role("button", name="Narrow…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("these tables").fill("hr")
    dialog.get_by_text("It leaves nothing").wait_for()
    for button in ("Cancel", f"Narrow {names[0]}"):
        box = dialog.get_by_role("button", name=button).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 640, button
    assert violations(page) == []


def test_what_is_printed_is_what_was_chosen(story: Story, page: Page) -> None:
    assert story.ask(story.mint("other"), "sales")
    page.get_by_role("option", name="other").wait_for()
    agent(page, "sales-agent").click()
    page.get_by_role("heading", name="Agent sales-agent").wait_for()
    page.emulate_media(media="print")
    assert not page.get_by_role("option", name="other").is_visible() and not agent(page, "hr-agent").is_visible()
    assert page.get_by_role("heading", name="Agent sales-agent").is_visible()
    assert "by ops:kim" in page.locator(".printed").inner_text() and "UTC" in page.locator(".printed").inner_text()
    page.emulate_media(media="screen")


def ask(page: Page, *words: str) -> None:
    """Type words into the line of questions: each becomes a chip."""
    line = page.get_by_role("combobox", name="Ask about")
    for word in words:
        line.fill(word)
        line.press("Enter")


def test_an_agent_is_found_in_any_task(story: Story, page: Page) -> None:
    other = story.mint("payroll-run").delegate(to="payer", tables=["payroll"])
    assert story.ask(other, "payroll")
    page.get_by_role("option", name="payroll-run").wait_for()
    ask(page, "PAYE")
    page.get_by_role("button", name="agents 1").click()
    page.get_by_role("button", name="payer", exact=True).click()
    agent(page, "payer").wait_for()
    page.get_by_role("heading", name="Agent payer").wait_for()
    ask(page, "nobody-like-that")
    page.get_by_text("0 decisions found").wait_for()


def test_a_question_is_in_the_address_and_its_words_are_chips(story: Story, page: Page) -> None:
    """Completed from what the trails have, asked again on reload, and taken away one by one."""
    for table in ("payroll", "hr"):
        assert not story.ask(story.sales, table)
    line = page.get_by_role("combobox", name="Ask about")
    line.fill("agent:sa")
    page.get_by_role("listbox", name="Words that can follow").get_by_role("option", name="agent:sales-agent").wait_for()
    line.press("ArrowDown")
    line.press("Enter")
    page.get_by_text("3 decisions found").wait_for()
    line.fill("refused")
    line.press(" ")
    page.get_by_text("2 decisions found").wait_for()
    page.reload()
    page.get_by_text("2 decisions found").wait_for()
    assert page.locator(".chip > span").all_inner_texts() == ["agent:sales-agent", "refused"]
    page.get_by_role("button", name="tasks 1").click()
    page.get_by_role("cell", name="q3-risk").wait_for()
    page.get_by_role("button", name="Remove refused").click()
    page.get_by_text("3 decisions found").wait_for()
    page.go_back()
    page.get_by_text("2 decisions found").wait_for()
    ask(page, "colour:red")
    page.get_by_text("there is no colour").wait_for()
    line.press("Backspace")
    assert line.input_value() == "colour:red"


def test_a_question_is_narrowed_by_what_it_found(story: Story, page: Page) -> None:
    """By a click: one value alone, or all but it. A chart says when, and stays as the trail goes on."""
    for table in ("payroll", "hr", "payroll"):
        assert not story.ask(story.sales, table)
    ask(page, "refused")
    page.get_by_text("3 decisions found").wait_for()
    page.get_by_role("img", name="3 calls, 3 of them refused").wait_for()
    tables = page.get_by_role("region", name="By table")
    tables.get_by_role("button", name="without payroll").click()
    page.get_by_text("1 decision found").wait_for()
    assert page.locator(".chip > span").all_inner_texts() == ["refused", "-table:payroll"]
    page.get_by_role("button", name="Remove -table:payroll").click()
    tables.get_by_role("button", name="only payroll").click()
    page.get_by_text("2 decisions found").wait_for()
    assert page.locator(".chip > span").all_inner_texts() == ["refused", "table:payroll"]
    assert not story.ask(story.sales, "payroll")
    page.get_by_text("3 decisions found").wait_for()
    ask(page, "-server:trail")
    page.get_by_text("0 decisions found").wait_for()


def test_the_help_names_each_word_of_a_question(page: Page) -> None:
    page.get_by_role("button", name="Help").click()
    said = page.get_by_role("dialog").inner_text()
    assert all(f"{key}:" in said for key in ASKED_BY) and "-code:" in said and "refused, allowed" in said


class Fleet(Story):
    """Forty agents under one."""

    def _start(self) -> str:
        root = self.mint("fleet")
        for number in range(39):
            assert self.ask(root.delegate(to=f"researcher-{number}", tables=["sales"]), "sales")
        return super()._start()


@pytest.mark.parametrize("story", [Fleet], indirect=True)
def test_forty_agents_are_on_one_screen(story: Fleet, page: Page) -> None:
    """A line each, in two columns, with names that can be read; the arrow keys go down them one after the other."""
    page.get_by_role("option", name="fleet").click()
    page.locator("[role=treeitem]").nth(39).wait_for()
    rows = page.locator("[role=treeitem]").all()
    boxes = [row.bounding_box() for row in rows]
    assert len(boxes) == 40 and all(box and box["y"] >= 0 and box["y"] + box["height"] <= 900 and box["height"] >= 24 for box in boxes)
    clipped = "(one) => one.scrollWidth > one.clientWidth"
    assert not any(row.locator(".node-name").evaluate(clipped) for row in rows)
    rows[0].focus()
    for _ in range(30):
        page.keyboard.press("ArrowDown")
    assert script(page, "document.activeElement.id") == rows[30].get_attribute("id")
    assert violations(page) == []


def test_how_good_it_is(story: Story, page: Page) -> None:
    """Who read this table in this task: one line. Why was it refused, and by whose limit: one click."""
    assert not story.ask(story.sales, "hr") and story.ask(story.hr, "hr") and story.ask(story.mint("other"), "hr")
    page.get_by_role("option", name="other").wait_for()
    line = page.get_by_role("combobox", name="Ask about")
    line.fill("table:hr task:q3-risk allowed")
    line.press("Enter")
    page.get_by_text("2 decisions found").wait_for()
    readers = page.locator(".decisions .who")
    readers.nth(1).wait_for()
    assert {one.rpartition(" ")[2] for one in readers.all_inner_texts()} == {"hr-agent"}
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Needs you").click()
    lately = page.get_by_role("region", name="Refused lately")
    lately.get_by_role("link", name="select on table hr").click()
    page.locator(".decision").get_by_text("Stopped here: table hr is not among").wait_for()
    assert "added by orchestrator for sales-agent" in " ".join(page.locator(".chain .is-stop").inner_text().split())


def test_new_decisions_are_counted_and_move_no_row(story: Story, page: Page) -> None:
    agent(page, "sales-agent").click()
    rows = page.locator(".agent .decisions tbody tr")
    rows.first.wait_for()
    for table in ("payroll", "hr", "wages"):
        assert not story.ask(story.sales, table)
    page.locator(".agent").get_by_role("button", name="3 new").wait_for()
    assert rows.count() == 1
    page.locator(".agent").get_by_role("button", name="3 new").click()
    rows.nth(3).wait_for()
    assert "wages" in rows.first.inner_text()


def test_a_pasted_token_leads_to_its_agent_and_is_in_no_address(story: Story, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    text = story.sales.serialize()
    page.get_by_role("combobox", name="Ask about").fill(f"Authorization: Bearer {text}")
    page.get_by_role("heading", name="Agent sales-agent").wait_for()
    page.get_by_text("it was handed to sales-agent").wait_for()
    assert text not in "".join([*asked, page.url]) and text[5:60] not in page.content()
    assert page.get_by_role("combobox", name="Ask about").input_value() == ""
    page.get_by_role("button", name="Revoke with all below…").wait_for()


def test_what_if_one_right_were_lost_needs_no_other_to_be_named(story: Story, page: Page) -> None:
    """Grouped and counted, of all below, too. What is seen counts, also where the clock of its server is ahead."""
    story.at = int(time()) + 20
    for _ in range(2):
        assert story.ask(story.chart, "sales")
    agent(page, "chart-agent").get_by_text("3 allowed").wait_for()
    agent(page, "sales-agent").click()
    page.locator(".agent").get_by_role("button", name="What if…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("without one right").check()
    dialog.get_by_label("table").fill("sales")
    dialog.get_by_role("button", name="Check").click()
    dialog.get_by_text("It would have stopped 4 calls").wait_for()
    listed = dialog.get_by_role("list", name="The agents that would have been stopped").get_by_role("listitem")
    assert listed.all_inner_texts() == ["chart-agent, task q3-risk: 3 calls", "sales-agent, task q3-risk: 1 call"]
    assert violations(page) == []
    dialog.get_by_label("revoked").check()
    dialog.get_by_role("button", name="Check").click()
    dialog.get_by_text("orchestrator > sales-agent > chart-agent: 3 calls").wait_for()


def test_a_time_is_asked_for_on_the_chart(story: Story, page: Page) -> None:
    box = page.locator(".plot svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 20, steps=4)
    page.mouse.up()
    page.get_by_text("4 decisions found").wait_for()
    assert [chip.partition(":")[0] for chip in page.locator(".chip > span").all_inner_texts()] == ["task", "since", "until"]


def test_single_keys(story: Story, page: Page) -> None:
    """To the question, from row to row, to the list of keys; letters in the tree are names; and all of it can be turned off."""
    page.keyboard.press("/")
    assert script(page, "document.activeElement.id") == "query"
    page.keyboard.type("jk?")
    assert page.get_by_role("combobox", name="Ask about").input_value() == "jk?"
    page.get_by_role("combobox", name="Ask about").fill("")
    agent(page, "orchestrator").focus()
    page.keyboard.type("sales-a")
    assert "sales-agent" in script(page, "document.activeElement.innerText")
    page.wait_for_timeout(800)
    page.keyboard.type("ch")
    assert "chart-agent" in script(page, "document.activeElement.innerText")
    page.get_by_role("heading", name="Agents").click()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert script(page, "document.activeElement.closest('.decisions') !== null")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Questions and keys")
    dialog.get_by_label("single keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert script(page, "document.activeElement.id") != "query"


def test_an_overlay_that_cannot_be_read_is_what_needs_you(story: Story, page: Page) -> None:
    """Nothing else can be shown then. It says what is wrong, and not only that something is."""
    beside = page.context.new_page()  # a browser tells of each answer that is an error
    beside.goto(page.url)
    page.goto("about:blank")
    beside.get_by_role("button", name="Needs you").click()
    with closing(sqlite3.connect(story.folder / "overlay.db")) as overlay, overlay:
        overlay.execute("update overlay set snapshot = ?", (b"no overlay",))
    beside.get_by_role("region", name="What needs you").locator("strong", has_text="The overlay cannot be read").wait_for()
    beside.close()


def test_what_a_dialog_is_about_stays_while_it_is_open(story: Story, page: Page) -> None:
    agent(page, "sales-agent").click()
    page.locator(".agent").get_by_role("button", name="What if…").click()
    page.get_by_role("dialog").wait_for()
    assert not story.ask(story.hr, "payroll")
    page.wait_for_timeout(1500)
    assert "0 refused" in " ".join(agent(page, "hr-agent").inner_text().split())
    page.keyboard.press("Escape")
    agent(page, "hr-agent").get_by_text("1 refused").wait_for()


def test_tasks_stay_where_they_are_until_somebody_sorts(story: Story, page: Page) -> None:
    """What is new stands below. Counts go on."""
    names = page.locator("[role=option] .task-name")
    for task in ("payroll-run", "quarter"):
        page.wait_for_timeout(1000)  # of two in one second neither is the later one
        assert story.ask(story.mint(task), "payroll")
        page.get_by_role("option", name=task).wait_for()
    assert names.all_text_contents() == ["q3-risk", "payroll-run", "quarter"]
    page.get_by_role("button", name="2 new, sort").click()
    page.get_by_role("button", name="2 new, sort").wait_for(state="detached")
    assert names.all_text_contents() == ["quarter", "payroll-run", "q3-risk"]


def test_a_decision_has_an_address(story: Story, page: Page) -> None:
    """Which link stopped it, who added that, what would have done, and the record to take along."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    assert not story.ask(story.chart, MARKUP)
    ask(page, "refused")
    page.get_by_role("link", name="select on table").click()
    panel = page.locator(".decision")
    panel.get_by_text("Stopped here").wait_for()
    stopped = panel.locator(".chain li.is-stop").all_inner_texts()
    assert len(stopped) == 2 and "added by orchestrator for sales-agent" in " ".join(stopped[0].split())
    panel.get_by_role("heading", name="The smallest grant that would have done, in link 1 and 2").wait_for()
    assert panel.locator("pre").first.inner_text().startswith("allow={")
    panel.get_by_text("As JSON").click()
    panel.get_by_role("button", name="Copy").nth(1).click()
    page.get_by_text("Copied.").wait_for()
    record = json.loads(script(page, "navigator.clipboard.readText()"))
    assert record["access"]["table"] == MARKUP and page.locator("#app img").count() == 0
    again = page.context.new_page()
    again.goto(page.url)
    again.get_by_text("Stopped here").wait_for()
    again.close()
    panel.get_by_role("button", name="The agent").click()
    page.get_by_role("heading", name="Agent chart-agent").wait_for()


def test_one_agent(story: Story, page: Page) -> None:
    """Its hand-overs, what it was given and never used, its decisions; and those that were refused alone."""
    assert not story.ask(story.sales, "hr", "insert")
    agent(page, "sales-agent").get_by_text("1 refused").wait_for()
    agent(page, "sales-agent").click()
    panel = page.locator(".agent")
    panel.get_by_text("only on market.*, sales").or_(panel.get_by_text("select on market.*, sales")).first.wait_for()
    panel.get_by_text("token.attenuate(").wait_for()
    rows = panel.locator(".decisions tbody tr")
    rows.nth(1).wait_for()
    panel.get_by_label("refused only").check()
    rows.nth(1).wait_for(state="detached")
    assert "insert on table hr" in rows.first.inner_text()


def test_as_it_was_then(story: Story, page: Page) -> None:
    """The slider goes back to before a call was refused, and what-if changes nothing."""
    assert not story.ask(story.sales, "payroll")
    agent(page, "sales-agent").get_by_text("1 refused").wait_for()
    page.get_by_role("button", name="History").click()
    page.get_by_role("slider", name="As of").press("Home")
    agent(page, "sales-agent").get_by_text("0 refused").wait_for()
    agent(page, "sales-agent").get_by_text("1 allowed").wait_for()
    assert page.get_by_role("button", name="End task…").count() == 0
    agent(page, "sales-agent").click()
    page.locator(".agent").get_by_role("button", name="What if…").click()
    panel = page.locator(".agent .decisions")
    panel.get_by_text("allowed").wait_for()
    assert panel.get_by_text("payroll").count() == 0
    dialog = page.get_by_role("dialog", name="What if sales-agent")
    dialog.get_by_role("button", name="Check").click()
    dialog.get_by_text("It would have stopped 2 calls").wait_for()
    dialog.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Now").click()
    agent(page, "sales-agent").get_by_text("1 refused").wait_for()
    page.get_by_role("button", name="End task…").wait_for()
    assert story.entries() == []


class TwoServers(Story):
    """The same, with a second server. Both write down one trace."""

    more = ("--trail", "hr.jsonl")

    def _start(self) -> str:
        self.second = TrailFile(self.folder / "hr.jsonl")
        trail = AuditTrail(self.second.write, clock=self.clock, trace=lambda: "4bf92f3577b34da6")
        other = Verifier(self.keyring, clock=self.clock, audit=trail)
        for table in ("hr", "payroll"):
            other.check(self.hr, Access(table=table, operation="select"))
        return super()._start()

    def close(self) -> None:
        super().close()
        self.second.close()


@pytest.mark.parametrize("story", [TwoServers], indirect=True)
def test_several_servers_are_one_story(story: TwoServers, page: Page) -> None:
    """Each call says its server, and what came with one request stands together."""
    agent(page, "hr-agent").get_by_text("2 allowed").wait_for()
    agent(page, "hr-agent").click()
    panel = page.locator(".agent")
    panel.get_by_text("at hr, same request").first.wait_for()
    rows = panel.locator(".decisions tbody tr").all_inner_texts()
    assert ["at hr" in row for row in rows] == [True, True, False] and "at trail" in rows[2]
    assert "at trail, hr" in panel.locator(".facts").inner_text()
    panel.get_by_role("button", name="same request").first.click()
    dialog = page.get_by_role("dialog", name="One request")
    dialog.locator("tbody tr").nth(1).wait_for()
    assert "4bf92f3577b34da6" in dialog.inner_text() and "at trail" not in dialog.inner_text()
    found = violations(page)
    page.set_viewport_size({"width": 360, "height": 800})
    assert found + violations(page) == []


def test_a_task_is_taken_along(story: Story, page: Page) -> None:
    """One file, which opens without the server, and has no script."""
    assert not story.ask(story.hr, MARKUP)
    agent(page, "hr-agent").get_by_text("1 refused").wait_for()
    with page.expect_download() as begun:
        page.get_by_role("link", name="Export").click()
    taken = story.folder / "task.html"
    begun.value.save_as(taken)
    alone = page.context.new_page()
    alone.goto(taken.as_uri())
    assert alone.get_by_role("heading", name="Task q3-risk").is_visible()
    assert alone.get_by_text(MARKUP).first.is_visible() and alone.locator("script, img").count() == 0


def test_what_strangers_wrote_is_text(story: Story, page: Page) -> None:
    """No script runs, no row looks like another, and no element is made of it."""
    for name in (MARKUP, SCRIPT, LOOKALIKE):
        assert not story.ask(story.hr, name)
    twin = story.root.delegate(to="saIes-agent", tables=["sales"])  # with a capital I
    assert story.ask(twin, "sales")
    agent(page, "saIes-agent").wait_for()
    agent(page, "hr-agent").click()
    rows = page.locator(".agent .decisions tbody")
    rows.get_by_text("s\\u0430les").first.wait_for()
    said = rows.inner_text()
    assert MARKUP in said and SCRIPT in said and LOOKALIKE not in said
    assert page.locator("#app img, #app script, #app [style], #app [onerror]").count() == 0
    assert agent(page, "sales-agent").get_attribute("id") != agent(page, "saIes-agent").get_attribute("id")


def test_a_time_that_no_calendar_has_stops_nothing(story: Story, page: Page) -> None:
    """A server wrote it, or says it of a token: it is a number, and whoever looks can act as before."""
    path = story.folder / "trail.jsonl"
    for at in (2**53 - 1, 1 - 2**53):
        lines = path.read_bytes().splitlines()
        record = json.loads(lines[-1])
        record |= {"at": at, "ms": 0, "seq": record["seq"] + 1, "prev": b64encode(sha256(lines[-1]).digest())}
        with path.open("ab") as file:
            file.write(encode_json(record) + b"\n")
    page.get_by_role("button", name="1 new").click()
    page.locator(f'time[title="{2**53 - 1}"]').first.wait_for(timeout=WAIT)
    agent(page, "hr-agent").click()
    page.get_by_role("button", name="Revoke with all below").wait_for(timeout=WAIT)


def test_the_inspector_opens_beside_it(story: Story, page: Page) -> None:
    """Under its own policy, by which its script runs, and which lets nothing out. The token is in no address."""
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url) if "/api/" not in request.url else None)
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Inspector").click()
    beside = opened.value
    beside.get_by_label("A token").fill(story.chart.serialize())
    beside.get_by_text("Anybody can write this.").wait_for()
    assert beside.get_by_role("heading", name="user:jane started task q3-risk").is_visible()
    assert {*asked, beside.url} == {page.url.partition("#")[0] + "inspector.html"}
    beside.close()


def test_by_keyboard_alone(story: Story, page: Page) -> None:
    """The tree, an agent, its revocation, and back to where the focus was."""
    press = page.keyboard.press

    def focused() -> str:
        return str(script(page, "(document.activeElement.getAttribute('aria-label') || document.activeElement.innerText)"))

    for _ in range(40):
        press("Tab")
        if script(page, "document.activeElement.getAttribute('role')") == "treeitem":
            break
    assert focused().startswith("orchestrator")
    press("End")
    last = focused()
    press("Home")
    assert focused().startswith("orchestrator") and focused() != last
    press("ArrowLeft")
    page.locator("[role=treeitem]").nth(1).wait_for(state="detached")
    press("ArrowRight")
    page.locator("[role=treeitem]").nth(3).wait_for()
    press("s")
    assert focused().startswith("sales-agent")
    press("Enter")
    page.get_by_role("heading", name="Agent sales-agent").wait_for()
    assert focused().startswith("sales-agent")

    for _ in range(10):
        press("Tab")
        if focused().startswith("Revoke"):
            break
    press("Enter")
    page.get_by_role("dialog").get_by_text("would have refused").wait_for()
    assert focused() == "Cancel"
    press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert focused().startswith("Revoke")

    press("Enter")
    page.get_by_role("dialog").get_by_text("would have refused 2 calls").wait_for()
    press("Shift+Tab")
    page.keyboard.type("by hand")
    press("Tab")
    press("Tab")
    assert focused() == "Revoke sales-agent"
    press("Enter")
    agent(page, "sales-agent").get_by_text("revoked").wait_for()
    page.locator(".agent button[aria-disabled=true]").first.wait_for()
    assert focused().startswith("Revoke")
    press("Enter")
    assert page.get_by_role("dialog").count() == 0
    assert story.entries() == [("ops:kim", "by hand")]


def test_selection_and_focus_stay(story: Story, page: Page) -> None:
    """While the trail goes on."""
    agent(page, "chart-agent").click()
    agent(page, "chart-agent").focus()
    before = page.evaluate("document.activeElement.id")
    for table in ("hr", "payroll"):
        assert not story.ask(story.chart, table)
    agent(page, "chart-agent").get_by_text("2 refused").wait_for()
    assert page.evaluate("document.activeElement.id") == before
    assert agent(page, "chart-agent").get_attribute("aria-selected") == "true"


@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_nothing_stands_beside_the_page(story: Story, page: Page, width: int) -> None:
    """No view scrolls sideways, with names as long as they may be."""
    long = story.root.delegate(to="x" * 128, tables=["sales"])
    assert not story.ask(long, "t" * 200)
    page.set_viewport_size({"width": width, "height": 900})
    agent(page, "x" * 128).click()
    page.locator(".agent").wait_for()
    too_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert script(page, too_wide) is False
    page.locator(".agent").get_by_role("button", name="Narrow…").click()
    assert script(page, too_wide) is False
    assert script(page, "((box) => box.scrollWidth > box.clientWidth)(document.querySelector('dialog'))") is False
    page.keyboard.press("Escape")
    for view in ("History", "Operator actions (0)"):
        page.get_by_role("button", name=view).click()
        assert script(page, too_wide) is False
    ask(page, "x" * 128, "refused")
    for by in ("agents", "tasks", "decisions"):
        page.get_by_role("button", name=f"{by} 1").click()
        assert script(page, too_wide) is False
    page.get_by_role("link", name="t" * 200).click()
    page.get_by_text("Stopped here").first.wait_for()
    page.get_by_text("As JSON").click()
    assert script(page, too_wide) is False


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_who_cannot_see_it_can_use_it(story: Story, page: Page, scheme: str, width: int) -> None:
    """axe-core finds nothing in any view."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    assert not story.ask(story.chart, MARKUP)
    agent(page, "chart-agent").get_by_text("1 refused").wait_for()
    found = violations(page)
    page.get_by_role("button", name="Needs you").click()
    page.get_by_role("region", name="Refused lately").get_by_role("row").nth(1).wait_for()
    found += violations(page)
    page.get_by_role("button", name="Now", exact=True).click()
    agent(page, "sales-agent").click()
    panel = page.locator(".agent")
    panel.locator(".decisions tbody tr").first.wait_for()
    found += violations(page)

    for button in ("Revoke with all below…", "Narrow…", "What if…"):
        panel.get_by_role("button", name=button).click()
        page.get_by_role("dialog").wait_for()
        if button.startswith("Revoke"):
            page.get_by_role("dialog").get_by_text("would have refused").wait_for()
        found += violations(page)
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="detached")

    story.operator.narrow(task="q3-risk", tables=["sales"], why="to be seen")
    story.operator.revoke(link=agent(page, "hr-agent").get_attribute("data-node"), why="to be seen")
    agent(page, "hr-agent").get_by_text("revoked").wait_for()
    found += violations(page)
    page.get_by_role("button", name="History").click()
    page.get_by_role("slider").wait_for()
    found += violations(page)
    for by in ("decisions", "agents", "tasks"):
        page.evaluate(f"location.hash = '#q=refused&by={by}'")
        page.get_by_text("1 decision found").wait_for()
        found += violations(page)
    page.get_by_role("combobox", name="Ask about").press("ArrowDown")
    page.get_by_role("listbox", name="Words").wait_for()
    found += violations(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Help").click()
    found += violations(page)
    page.keyboard.press("Escape")
    page.evaluate("location.hash = '#q=refused'")
    page.get_by_role("link", name="select on table").click()
    page.get_by_text("Stopped here").wait_for()
    page.get_by_text("As JSON").click()
    found += violations(page)
    page.get_by_role("button", name="Operator actions (2)").click()
    page.get_by_role("button", name="Lift").first.wait_for()
    found += violations(page)
    page.emulate_media(forced_colors="active")
    page.get_by_role("button", name="Now", exact=True).click()
    agent(page, "sales-agent").click()
    panel.wait_for()
    found += violations(page)
    assert agent(page, "sales-agent").evaluate("(one) => getComputedStyle(one).outlineStyle") == "solid"
    for view, name in (("needs", "What needs you"), ("said", "Operator actions"), ("needs&q=refused", "decision found")):
        page.evaluate(f"location.hash = '#view={view}'")
        page.get_by_role("heading", name=name).wait_for()
        found += violations(page)
    assert found == [], "\n".join(found)


def test_the_pictures_are_of_todays_console(chromium: Any, tmp_path: Path) -> None:
    """`python -m tests.console.picture` makes them anew. They are small, and no wider than they are legible at 600 pixels."""
    told = "".join((picture.DOCS / page).read_text(encoding="utf-8") for page in ("../README.md", "console.md"))
    for name, (png, texts) in picture.drawn(chromium, tmp_path).items():
        kept = (picture.DOCS / name).read_bytes()
        assert picture.texts_of(kept) == texts == picture.texts_of(picture.with_texts(png, texts)), name
        assert max(len(kept), len(png)) <= 300_000
        assert name in told and picture.WIDTH <= 640


def test_what_a_stranger_named_is_narrowed_to_as_it_is(story: Story, page: Page) -> None:
    """A name with a comma, and one with a letter that looks like another, are shown as JSON in ASCII, and are meant as they are."""
    for table in ("a,b", LOOKALIKE):
        assert story.ask(story.root, table)
    agent(page, "orchestrator").click()
    page.locator(".agent pre", has_text="a,b").wait_for()
    page.locator(".agent").get_by_role("button", name="Narrow…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Fill in what it has used").click()
    assert dialog.get_by_label("these tables").input_value() == ""
    said = dialog.get_by_label("what else").input_value()
    assert said.isascii() and set(json.loads(said)["tables"]) == {"hr", "sales", "a,b", LOOKALIKE}
    dialog.get_by_text("would have refused 0 calls").wait_for()
    dialog.get_by_label("Why").fill("it has what it needs")
    dialog.get_by_role("button", name="Narrow").click()
    agent(page, "orchestrator").get_by_text("narrowed").wait_for()
    (entry,) = story.operator.entries()
    assert entry.link is not None and set(entry.link["tables"]) == {"hr", "sales", "a,b", LOOKALIKE}
