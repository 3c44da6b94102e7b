"""Who may ask the console, and what is answered: each refusal beside the same request that is let through."""

from __future__ import annotations

import json
import re
import threading
import webbrowser
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest

from captoken import Access, Issuer, Keyring, Verifier
from captoken.audit import AuditTrail
from captoken.cli.console import inspector, views
from captoken.cli.console.acts import Control
from captoken.cli.console.app import Console
from captoken.cli.console.command import announce
from captoken.cli.console.index import Index
from captoken.control import Operator
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from captoken.stores.trail_file import TrailFile
from tests.console.fixtures import ADDRESS, NOW, Browser, World

MARKUP = '<img src=x onerror="alert(1)">\u0430'  # a Cyrillic letter, like an a
HOSTILE = MARKUP + "\u202egpj.exe"


def test_the_address_opens_it_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A second time is refused, and whoever runs the console hears of it: another user may have been first."""
    once = world.console.once
    assert once is not None and world.console.first_address.endswith(once)
    browser = Browser(world.console)
    assert browser.get("/api/now").status == 200
    assert browser.get("/?once=guessed").status == 403 and not caplog.records
    second = browser.get(f"/?once={once}")
    assert second.status == 403 and "somebody else has it" in second.json["error"]
    assert [(record.levelname, once in record.getMessage()) for record in caplog.records] == [("WARNING", False)]
    assert world.console.once is None and browser.get("/api/now").status == 200


def test_a_browser_is_given_a_file_that_no_other_user_reads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command line has the address. It is opened once the console answers, and one that waits holds nothing up."""
    opened: list[str] = []
    came, goes_on = threading.Event(), threading.Event()

    def browser(address: str) -> None:
        opened.append(address)
        came.set()
        goes_on.wait()

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", browser)
    with ExitStack() as stack:
        announce(world.console, stack, opens=True)
        assert not came.wait(0.2)
        world.console.served.set()
        assert came.wait(10)
        file = Path(opened[0].removeprefix("file://"))
        assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
        assert world.console.once not in opened[0] and f"url={world.console.first_address}" in file.read_text("utf-8")
    goes_on.set()
    assert not file.exists()


def test_where_there_is_no_screen_no_browser_is_opened(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(webbrowser, "open", lambda address: pytest.fail("opened"))
    world.console.served.set()
    with ExitStack() as stack:
        announce(world.console, stack, opens=True)
    monkeypatch.setenv("DISPLAY", ":0")
    with ExitStack() as stack:
        announce(world.console, stack, opens=False)


def test_a_wrong_address_opens_nothing_and_uses_nothing_up(world: World) -> None:
    browser = Browser.__new__(Browser)
    browser.console = world.console
    assert browser.get("/?once=guessed").status == 403
    assert browser.get("/?once=").status == 403
    opened = browser.get(f"/?once={world.console.once}")
    assert opened.status == 200
    assert opened.headers["set-cookie"].endswith("; HttpOnly; SameSite=Strict")


def test_the_cookie_is_for_a_path_that_nobody_guesses(world: World, browser: Browser) -> None:
    """Other servers of this machine have the same host to a browser: it would send them a cookie for all paths."""
    other = Console(world.index, world.control, address=ADDRESS, spent=lambda *_: None, clock=world.clock)
    opened = Browser.__new__(Browser)
    opened.console = other
    headers = opened.get(f"/?once={other.once}").headers
    place = headers["content-location"]
    assert f"; Path={place}; HttpOnly" in headers["set-cookie"] and headers["set-cookie"].count("Path=") == 1
    assert len(place) > 20 and place.endswith("/") and place != f"{browser.below}/"
    assert browser.get("/api/now").status == 200
    for below in ("", place.removesuffix("/"), browser.below[:-1], f"{browser.below}x", browser.below.upper()):
        browser.below = below
        assert [browser.get(target).status for target in ("/", "/api/session", "/app.js")] == [403] * 3


@pytest.mark.parametrize(
    "changed",
    [
        {"cookie": ""},
        {"cookie": "captoken_console=guessed"},
        {"host": "localhost:8765"},
        {"host": "evil.example"},
        {"host": ""},
    ],
)
@pytest.mark.parametrize("target", ["/", "/api/now", "/api/session", "/export?task=q3", "/nothing"])
def test_who_has_not_opened_it_gets_nothing(browser: Browser, target: str, changed: dict[str, str]) -> None:
    assert browser.get("/api/now").status == 200
    refused = browser.get(target, **changed)
    assert refused.status == 403 and "captoken_console" not in str(refused.headers)


def test_two_cookies_are_none(browser: Browser) -> None:
    assert browser.get("/api/now", cookie=f"other=1; {browser.cookie}").status == 200
    assert browser.get("/api/now", cookie=f"{browser.cookie}; {browser.cookie}").status == 403


@pytest.mark.parametrize(
    "changed",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"x_captoken_form": ""},
        {"x_captoken_form": "guessed"},
        {"content_type": "text/plain"},
        {"cookie": ""},
    ],
)
def test_a_form_of_another_page_does_nothing(world: World, browser: Browser, changed: dict[str, str]) -> None:
    said = {"select": {"task": "q3"}}
    assert browser.post("/api/preview", said).status == 200
    assert browser.post("/api/preview", said, **changed).status in (403, 415)
    assert world.operator.entries() == ()


@pytest.mark.parametrize("said", [b"", b"[]", b"{", b'{"select": 1}', b'{"select": {}, "more": 1}', b"[" * 60_000, b"\xff"])
def test_a_form_that_cannot_be_read(browser: Browser, said: bytes) -> None:
    answer = browser.post("/api/preview", said)
    assert answer.status == 400 and set(answer.json) == {"error"}


def test_a_form_that_is_too_long(browser: Browser) -> None:
    assert browser.post("/api/preview", b" " * 70_000).status == 413


@pytest.mark.parametrize("path", ["/nothing", "/../app.py", "/%2e%2e/app.py", "/static/app.js", "/index.py", "/api/", "/api/act"])
def test_there_are_these_pages_and_no_others(browser: Browser, path: str) -> None:
    assert browser.get("/").status == 200
    assert browser.get(path).status == 404


def test_every_answer_forbids_what_the_page_does_not_need(browser: Browser) -> None:
    """Also errors. No inline script or style is allowed, and nothing of another origin."""
    for answer in (browser.get("/"), browser.get("/api/now"), browser.get("/nothing"), browser.get("/api/now", cookie="")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy and "http" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"


def test_the_inspector_has_a_policy_of_its_own(browser: Browser) -> None:
    """By a header and in the file: its one script, its one style, and no connection at all."""
    answer = browser.get("/inspector.html")
    text = answer.body.decode("ascii")
    (script,), (style,) = (re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL) for name in ("script", "style"))
    policy = (
        f"default-src 'none'; connect-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert inspector.policy(text) == policy
    assert answer.headers["content-security-policy"] == f"{policy}; frame-ancestors 'none'"
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert text == inspector.page() and len(text) <= 220_000 and re.search(r"\ssrc=|\shref=|url\(|@import", text) is None

    assert browser.get("/inspector.html", cookie="").status == 403


def test_an_inspector_without_a_policy_is_not_served() -> None:
    with pytest.raises(ValueError, match="no policy"):
        inspector.policy("<!doctype html><p>content-security-policy</p>")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def test_what_is_seen(world: World, browser: Browser) -> None:
    """Tasks, the tree of one, one agent: what it may, did, never used; and a page that is up to date gets no more."""
    root = world.mint(budget={"eur": 100}, uses=9)
    child = root.delegate(to="sales-agent", tables=["sales"])
    world.now += 70
    assert world.ask(child, "sales", eur=30) and not world.ask(child, "hr", eur=1)
    now = browser.get("/api/now").json
    (task,) = now["tasks"]
    assert (task["task"], task["subject"], task["agents"], task["allowed"], task["denied"], task["state"]) == (
        "q3", "user:jane", 2, 1, 1, "live",
    )  # fmt: skip
    assert browser.get(f"/api/now?rev={now['rev']}").json == {"rev": now["rev"], "same": True, "now": world.now}

    seen = browser.get("/api/task?task=q3").json
    top, below = seen["nodes"]
    assert (top["agent"], top["basis"], top["parent"]) == ("orchestrator", "issued", None)
    assert (below["agent"], below["basis"], below["parent"]) == ("sales-agent", "vouched", top["id"])
    assert below["words"] == ["select on sales"] and below["last"]["what"] == "select on table hr and costing 1 eur"
    assert {(one["unit"], one["limit"], one["spent"]) for one in below["budget"]} == {("eur", 100, 30), ("uses", 9, 1)}
    assert sum(below["spark"]) == 2 and sum(below["refused"]) == 1 and sum(seen["series"]["denied"]) == 1

    for word, expected in (("Q3", 1), ("jane", 1), ("sales-", 1), ("payroll", 0), ("%", 0)):
        assert len(browser.get(f"/api/query?q={word}".replace("%", "%25")).json["tasks"]) == expected

    agent = browser.get(f"/api/agent?id={below['id']}").json
    assert [one["holder"] for one in agent["chain"]] == ["orchestrator", "sales-agent"]
    assert agent["chain"][1]["took"] == ["only on sales"]
    assert [hop["lost"] for hop in agent["chain"]] == [[], ["tables market.*"]]
    assert agent["reach"]["agents"] == [{"id": below["id"], "agent": "sales-agent", "state": "live"}]
    refused, allowed = agent["decisions"]["rows"]
    assert (refused["code"], refused["added_by"]) == ("table", "the issuer") and allowed["allowed"]
    assert browser.get("/api/agent?id=nothing").status == 404 and browser.get("/api/task?task=nothing").status == 404


def test_what_was_never_used_is_said_as_code(world: World, browser: Browser) -> None:
    root = world.mint()
    assert world.ask(root, "sales")
    ((id,),) = world.index.rows("select id from hops")
    unused = browser.get(f"/api/agent?id={id}").json["unused"]
    narrowed = eval(unused["python"], {"token": root})
    assert unused["keywords"] == {"tables": ["sales"], "operations": ["select"]}
    assert world.ask(narrowed, "sales") and not world.ask(narrowed, "market.eu")


def test_pages_of_decisions(world: World, browser: Browser) -> None:
    root = world.mint()
    for number in range(25):
        world.ask(root, "sales" if number % 5 else "hr")
    first = browser.get("/api/decisions?task=q3&limit=10").json
    second = browser.get(f"/api/decisions?task=q3&limit=10&before={first['next']}").json
    third = browser.get(f"/api/decisions?task=q3&limit=10&before={second['next']}").json
    numbers = [row["seq"] for page in (first, second, third) for row in page["rows"]]
    assert numbers == sorted(numbers, reverse=True) and len(set(numbers)) == 25 and third["next"] is None
    refused = browser.get("/api/decisions?task=q3&refused=1").json["rows"]
    assert len(refused) == 5 and not any(row["allowed"] for row in refused)
    for before in ("x", "1", "1.x", "-1.1", "1.1.1", "9" * 17 + ".1"):
        assert browser.get(f"/api/decisions?before={before}").status == 400
    for target in ("now", "task?task=q3&", "decisions?"):
        assert browser.get(f"/api/{target}{'' if '?' in target else '?'}at={'9' * 15}").status == 200
        assert browser.get(f"/api/{target}{'' if '?' in target else '?'}at={'9' * 16}").status == 400


def test_as_of_a_time(world: World, browser: Browser) -> None:
    """What came later is not there: not the task, not the call."""
    root = world.mint()
    world.ask(root, "sales")
    world.now += 100
    world.ask(root, "hr")
    world.ask(world.mint(task="later"))
    assert [one["task"] for one in browser.get(f"/api/now?at={NOW + 50}").json["tasks"]] == ["q3"]
    then = browser.get(f"/api/task?task=q3&at={NOW + 50}").json
    assert (then["task"]["allowed"], then["task"]["denied"], then["nodes"][0]["denied"]) == (1, 0, 0)
    assert browser.get("/api/task?task=q3").json["task"]["denied"] == 1

    id = then["nodes"][0]["id"]
    agent = browser.get(f"/api/agent?id={id}&at={NOW + 50}").json
    assert agent["node"]["denied"] == 0 and len(agent["decisions"]["rows"]) == 1
    assert len(browser.get(f"/api/decisions?id={id}&at={NOW + 50}").json["rows"]) == 1
    assert len(browser.get(f"/api/agent?id={id}").json["decisions"]["rows"]) == 2


def test_what_if(world: World, browser: Browser) -> None:
    """Which calls an entry would have stopped that was not there."""
    root = world.mint()
    for table in ("sales", "market.eu", "market.us"):
        world.ask(root, table)
    add = [{"select": {"task": "q3"}, "keywords": {"tables": ["sales"]}}]
    seen = browser.post("/api/what-if", {"add": add, "first": NOW - 10, "last": NOW + 10}).json
    assert seen["stopped"] == 2
    assert browser.post("/api/what-if", {"add": add, "first": NOW + 1, "last": NOW + 10}).json["stopped"] == 0
    assert browser.post("/api/what-if", {"add": [], "first": 0, "last": NOW}).status == 400
    for first, last in ((-1, NOW), (0, 10**18), (0, 10**30), ("0", NOW)):
        assert browser.post("/api/what-if", {"add": add, "first": first, "last": last}).status == 400


def test_without_a_key_one_looks_and_does_nothing(world: World) -> None:
    control = Control(world.store, None, [world.key.public], "nobody", world.clock)
    browser = Browser(Console(world.index, control, address=ADDRESS, spent=lambda *_: None, clock=world.clock))
    world.ask(world.mint())
    assert browser.get("/api/session").json["can_act"] is False
    seen = browser.post("/api/preview", {"select": {"task": "q3"}}).json
    wish = {"kind": "end", "select": {"task": "q3"}, "why": "over", "stamp": seen["stamp"]}
    assert browser.post("/api/act", wish).status == 403


def test_a_snapshot_of_somebody_else_is_not_believed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """And then nothing is shown as if there were no overlay."""
    store = MemorySnapshots()
    Operator(OperatorKey.generate(), store, by="ops:eve", clock=world.clock).revoke(task="q3", why="mine")
    control = Control(store, None, [world.key.public], "nobody", world.clock)
    browser = Browser(Console(world.index, control, address=ADDRESS, spent=lambda *_: None, clock=world.clock))
    assert browser.get("/api/now").status == 503
    assert "not signed by an operator that this server trusts" in caplog.text


def test_an_entry_says_whom_it_is_about(world: World, browser: Browser) -> None:
    """By a link, by a token, or by a hand-over of one; what already says a name, or what no trail has, says nothing more."""
    root = world.mint()
    child = root.delegate(to="sales-agent", tables=["sales"])
    world.ask(child)
    node = browser.get("/api/task?task=q3").json["nodes"][1]["id"]
    reach = browser.get(f"/api/agent?id={node}").json["reach"]
    for select in ({"link": node}, {"token": root.unverified.root.token_id}, reach["select"], {"task": "q3"}, {"token": "A" * 22}):
        world.operator.revoke(**select, why="to be named")
    whom = [one["whom"] for one in browser.get("/api/overlay").json["entries"]]
    assert sorted(map(str, whom)) == ["None", "None", "orchestrator in q3", "sales-agent in q3", "sales-agent in q3"]


def test_names_of_strangers_leave_as_plain_text(world: World, browser: Browser) -> None:
    """No character that steers or looks like another leaves the server; and the file that is taken along has no markup."""
    root = world.mint(tables=["*"])
    world.ask(root, MARKUP)
    world.operator.narrow(task="q3", tables=["sales"], why=HOSTILE)
    for target in ("/api/now", "/api/task?task=q3", "/api/decisions", "/api/overlay"):
        body = browser.get(target).body
        assert body.isascii()
        shown = json.loads(body)
        assert not re.search(r"[^\x20-\x7e]", json.dumps(shown, ensure_ascii=False))
    assert "\\u202e" in browser.get("/api/overlay").json["entries"][0]["why"]

    world.operator.revoke(task="other", why="of another task")
    page = browser.get("/export?task=q3")
    assert page.headers["content-disposition"].startswith("attachment")
    text = page.body.decode()
    assert "<img" not in text and "<script" not in text and "&lt;img src=x" in text
    assert "Operator actions" in text and "another task" not in text
    assert text.isascii() and "default-src &#x27;none&#x27;" in text


def test_the_file_of_a_task_says_who_added_what_refused(world: World, browser: Browser) -> None:
    world.ask(world.mint().delegate(to="sales-agent", tables=["sales"]), "market.eu")
    text = browser.get("/export?task=q3").body.decode()
    assert "(added by orchestrator)" in text


def test_a_record_that_is_dated_ahead_does_not_keep_its_task_on_top(world: World, browser: Browser) -> None:
    """What a server's clock says is its word: the task stands where its last call by this clock puts it."""
    early = world.mint(task="ahead", expires_in=10**9)
    world.ask(early)
    world.now += 10**8
    world.ask(early)
    world.now = NOW + 60
    world.ask(world.mint(task="now"))
    assert [(one["task"], one["last_at"]) for one in browser.get("/api/now").json["tasks"]] == [("now", NOW + 60), ("ahead", NOW)]
    world.ask(early)
    world.now += 1
    tasks = browser.get("/api/now").json["tasks"]
    assert {one["task"] for one in tasks} == {"ahead", "now"} and tasks[0]["last_at"] == NOW + 60
    world.now = NOW + 120
    world.ask(early)
    assert browser.get("/api/now").json["tasks"][0]["task"] == "ahead"


def test_no_secret_is_in_any_answer(world: World, browser: Browser) -> None:
    root = world.mint()
    world.ask(root)
    ((id,),) = world.index.rows("select id from hops")
    for target in ("/api/session", "/api/now", "/api/task?task=q3", f"/api/agent?id={id}", "/api/overlay", "/export?task=q3"):
        body = browser.get(target).body.decode()
        assert root.serialize()[10:60] not in body and "cap1_" not in body
        assert world.console.first_address not in body


def test_several_servers_are_one_story(world: World) -> None:
    """One tree of a task, one order of its calls, each with its server; and all that came with one trace."""
    trace: list[str | None] = [None]
    (world.path.parent / "hr").mkdir()
    second = TrailFile(world.path.parent / "hr" / "trail.jsonl")

    def server(write: Callable[[bytes], object], ms: int) -> Verifier:
        trail = AuditTrail(write, trace=lambda: trace[0], clock=lambda: world.now + ms / 1000)
        return Verifier(world.keyring, clock=world.clock, audit=trail)

    servers = [server(world.trail.write, 300), server(second.write, 100)]
    world.index.close()
    world.index = Index(":memory:", [world.path, world.path.parent / "hr" / "trail.jsonl"])
    browser = Browser(Console(world.index, world.control, address=ADDRESS, spent=lambda *_: None, clock=world.clock))

    root = world.mint()
    child = root.delegate(to="sales-agent", tables=["sales"])
    stray = Issuer(Keyring.generate(), clock=world.clock).mint(subject="user:eve", agent="eve", task="q3", tables=["*"], operations=["*"])
    for place, number, token in ((0, 0, root), (1, 1, root), (1, 0, child), (2, 1, child), (2, 1, stray)):
        world.now = NOW + place
        trace[0] = f"{place:032x}" if place else None
        servers[number].check(token, Access(table="sales", operation="select"))
    world.index.take()

    seen = browser.get("/api/task?task=q3").json
    assert [(node["agent"], node["allowed"], node["servers"]) for node in seen["nodes"]] == [
        ("orchestrator", 2, [f"{world.path.parent.name}/trail", "hr/trail"]),
        ("sales-agent", 2, [f"{world.path.parent.name}/trail", "hr/trail"]),
    ]
    rows = browser.get("/api/decisions?task=q3").json["rows"]
    assert [(row["at"] - NOW, row["server"].split("/")[0] == "hr", row["who"]) for row in rows] == [
        (2, True, "orchestrator > sales-agent"),
        (1, False, "orchestrator > sales-agent"),  # 300 ms, and the next has 100
        (1, True, "orchestrator"),
        (0, False, "orchestrator"),
    ]
    pages = [browser.get("/api/decisions?task=q3&limit=3").json]
    pages.append(browser.get(f"/api/decisions?task=q3&limit=3&before={pages[0]['next']}").json)
    assert [row for page in pages for row in page["rows"]] == rows and pages[1]["next"] is None

    # Whoever calls says which trace it is: what came with a token that does not hold is in no task.
    of_one = browser.get(f"/api/decisions?trace={rows[0]['trace']['key']}").json["rows"]
    assert [(row["who"], row["allowed"]) for row in of_one] == [("", False), ("orchestrator > sales-agent", True)]
    assert browser.get("/api/decisions?trace=nothing").json["rows"] == [] and rows[3]["trace"] is None


def test_what_operators_had_said_by_then(world: World, browser: Browser) -> None:
    """An entry counts from when it was made until it was lifted, as far as this console saw it."""
    root = world.mint()
    world.ask(root)
    ((id,),) = world.index.rows("select id from hops")

    def states(at: int) -> tuple[str, str, int]:
        node = browser.get(f"/api/agent?id={id}&at={NOW + at}").json
        (task,) = browser.get(f"/api/now?at={NOW + at}").json["tasks"]
        return node["node"]["state"], task["state"], len(node["said"])

    world.now = NOW + 100
    entry = world.operator.narrow(task="q3", tables=["sales"], why="to be seen")
    browser.get("/api/now")
    world.now = NOW + 200
    world.operator.renew()
    browser.get("/api/now")
    world.now = NOW + 300
    world.operator.lift(entry.id, why="seen")
    world.operator.revoke(task="q3", why="over")
    assert browser.get("/api/task?task=q3").json["nodes"][0]["state"] == "revoked"
    assert states(50) == ("live", "live", 0)
    assert states(150) == states(250) == ("narrowed", "narrowed", 1)
    assert states(300) == ("revoked", "ended", 1)

    late = Control(world.store, world.operator, [world.key.public], "ops:kim", world.clock)
    browser = Browser(Console(world.index, late, address=ADDRESS, spent=lambda *_: None, clock=world.clock))
    assert states(150) == ("live", "live", 0) and states(300) == ("revoked", "ended", 1)


def test_of_more_agents_than_are_looked_at_it_says_so(world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ask(world.mint().delegate(to="sales-agent"))
    monkeypatch.setattr(views, "LOOKED_AT", 1)
    monkeypatch.setattr(views, "_NAMED", 0)
    hits = browser.post("/api/preview", {"select": {"task": "q3"}}).json["hits"]
    assert (hits["is_all"], hits["groups"][0]["agents"], hits["groups"][0]["more"]) == (False, [], 1)


def test_a_budget_is_somebodys(world: World, browser: Browser) -> None:
    """Whose it is, since all below share it. How much was left at an earlier time, no ledger says."""
    child = world.mint(budget={"eur": 100}).delegate(to="sales-agent", uses=5).attenuate(uses=4)
    world.ask(child, eur=30)
    node = browser.get("/api/task?task=q3").json["nodes"][1]
    assert [(one["of"], one["unit"], one["limit"], one["spent"]) for one in node["budget"]] == [
        ("orchestrator", "eur", 100, 30),
        ("sales-agent", "uses", 5, 1),
    ]
    then = browser.get(f"/api/task?task=q3&at={NOW}").json["nodes"][1]
    assert [one["spent"] for one in then["budget"]] == [None, None]


def test_who_has_nothing_left_is_not_live(world: World, browser: Browser) -> None:
    """Also where it is the one above that has used it up; whoever was revoked is revoked."""
    root = world.mint(budget={"eur": 30})
    world.ask(root.delegate(to="sales-agent", uses=1), eur=20)
    states = {one["agent"]: one["state"] for one in browser.get("/api/task?task=q3").json["nodes"]}
    assert states == {"orchestrator": "live", "sales-agent": "used"}
    world.ask(root.delegate(to="hr-agent"), eur=10)
    world.operator.revoke(agent="hr-agent", why="over")
    states = {one["agent"]: one["state"] for one in browser.get("/api/task?task=q3").json["nodes"]}
    assert states == {"orchestrator": "used", "sales-agent": "used", "hr-agent": "revoked"}


def test_a_young_task_has_bars_of_seconds(world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless its calls are too many. The bars hold the same calls either way."""
    root = world.mint()
    for _ in range(4):
        world.now += 15
        assert world.ask(root) and not world.ask(root, "hr")
    for few, step, bars in ((20_000, 10, 4), (7, 60, 2)):
        monkeypatch.setattr(views, "_FEW", few)
        seen = browser.get("/api/task?task=q3").json
        series, (node,) = seen["series"], seen["nodes"]
        assert (series["step"], sum(map(bool, series["denied"]))) == (step, bars) == (node["step"], sum(map(bool, node["refused"])))
        assert sum(series["allowed"]) == sum(series["denied"]) == sum(node["refused"]) == 4 and sum(node["spark"]) == 8
        assert series["from"] + 60 * step > world.now


def test_marks_are_told_with_who_set_them_and_what_they_closed(world: World, browser: Browser) -> None:
    """Of all tokens of the task and of tasks below it, of one subject; of a record that comes later and is earlier, that."""
    marks = {"private": {"tables": ["sales"]}, "outside": {"tables": ["market.*"]}}
    forbid = [{"in": ["outside"], "after": ["private"]}]
    root = world.mint(marks=marks, forbid=forbid)
    own = root.delegate(to="clerk", marks={"read": {"tables": ["sales"]}}, forbid=[{"in": ["read"], "after": ["read"]}])
    below = world.mint(task="q3/part", marks=marks, forbid=forbid)
    assert world.ask(root, "market.eu") and not world.ask(own, "sales")
    world.now += 10
    assert world.ask(root, "sales") and world.ask(root, "sales")
    world.now += 10
    assert not world.ask(root, "market.eu") and not world.ask(below, "market.eu")
    assert world.ask(world.mint(subject="user:kim", task="q3/kim", marks=marks, forbid=forbid), "sales")

    seen = browser.get("/api/task?task=q3").json
    told = [(mark["name"], mark["whose"], mark["since"], mark["by"]["who"], mark["by"]["what"]) for mark in seen["marks"]]
    assert told == [
        ("outside", "task", NOW, "orchestrator", "select on table market.eu"),
        ("private", "task", NOW + 10, "orchestrator", "select on table sales"),
    ]
    assert seen["closed"]["count"] == 3
    rules = [row["why"].partition(";")[0] for row in seen["closed"]["rows"]]
    assert rules == ["nothing in outside after private"] * 2 + ["nothing in read after read"]
    assert {row["code"] for row in seen["closed"]["rows"]} == {"forbidden_after"}
    assert browser.get("/api/task?task=q3/part").json["marks"] == seen["marks"]
    assert [mark["name"] for mark in browser.get("/api/task?task=q3/kim").json["marks"]] == ["private"]
    then = browser.get(f"/api/task?task=q3&at={NOW + 5}").json
    assert [mark["name"] for mark in then["marks"]] == ["outside"] and then["closed"]["count"] == 1
    assert browser.get(f"/api/task?task=q3&at={NOW + 15}").json["closed"]["count"] == 1
    assert "nothing in outside after private" in seen["nodes"][0]["words"]


def test_a_mark_of_a_link_is_told_as_that_and_the_first_record_counts(world: World, browser: Browser) -> None:
    marks = {"read": {"tables": ["sales"]}, "moved": {"tables": ["market.*"]}}
    child = world.mint().attenuate(marks=marks, forbid=[{"in": ["moved"], "after": ["read"]}])
    world.now += 10
    assert world.ask(child, "sales")
    world.now -= 10  # a server whose clock is behind
    assert world.ask(child, "sales")
    assert world.ask(world.mint(task="none"), "sales")
    (mark,) = browser.get("/api/task?task=q3").json["marks"]
    assert (mark["name"], mark["whose"], mark["since"]) == ("read", child.link_id, NOW)
    none = browser.get("/api/task?task=none").json
    assert none["marks"] == [] and none["closed"] == {"count": 0, "rows": []}
