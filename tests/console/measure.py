"""How the console does on a large trail: `python -m tests.console.measure [RECORDS]` prints the rows of docs/console.md.

The console is a process of its own, as `captoken console` starts it. The page is in Chromium, which needs what the tests of
`-m browser` need. While it is scrolled, the trail grows by a hundred records a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

from captoken import Access, Issuer, Keyring, Token, Verifier
from captoken.audit import AuditTrail
from captoken.stores.trail_file import TrailFile
from tests.console import many, picture

# All tasks of the page that take longer than 50 ms, from the browser itself.
WATCH = """
window.long = [];
new PerformanceObserver((list) => {
    for (const one of list.getEntries()) window.long.push(one.duration);
}).observe({ type: "longtask", buffered: true });
window.shown = {};
new MutationObserver(() => {
    for (const one of document.querySelectorAll(".node-last")) {
        const found = /sales_\\d+/.exec(one.textContent);
        if (found) window.shown[found[0]] ??= Date.now() / 1000;
    }
}).observe(document, { subtree: true, childList: true, characterData: true });
"""

QUESTIONS = (
    "refused",
    "table:hr agent:hr-agent-7",
    "task:task-5 operation:insert refused",
    "agent:sales*",
    "since:90m",
    "sales refused",
    "-agent:hr-agent-7 -table:hr",
    "server:trail -code:table",
)


class Server:
    """Goes on with a trail, with tokens of its own."""

    def __init__(self, path: Path) -> None:
        keyring = Keyring.generate()
        self.issuer = Issuer(keyring)
        self.file = TrailFile(path)
        self.verifier = Verifier(keyring, audit=AuditTrail(self.file.write, head=self.file.head))

    def mint(self, task: str) -> Token:
        return self.issuer.mint(
            subject="user:jane", agent="orchestrator", task=task, tables=["*"], operations=["select"], expires_in=3600
        )

    def ask(self, token: Token, table: str) -> None:
        self.verifier.check(token, Access(table=table, operation="select"))


@contextmanager
def console(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command's process, and its address."""
    words = ["--trail", "trail.jsonl", "--index", "index.db", "--json", "--no-open"]
    command = [sys.executable, "-m", "captoken", "console", *words]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        try:
            yield running, json.loads(running.stdout.readline())["address"]
        finally:
            running.terminate()


def memory(process: subprocess.Popen[str]) -> float:
    """The most that it has had in memory, in MB."""
    said = Path(f"/proc/{process.pid}/status").read_text()
    return int(said.partition("VmHWM:")[2].split()[0]) / 1024


def worked(process: subprocess.Popen[str]) -> float:
    """Seconds that it had a processor."""
    user, system = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def records_read(page: Any) -> int:
    """How many records the page says that there are."""
    said = page.locator(".status").inner_text()
    return int(said.partition(" record")[0].rpartition(" ")[2].replace(",", "") or 0) if " record" in said else 0


def script(page: Any, expression: str) -> Any:
    """What an expression gives, by the debugger, which no policy binds."""
    session = page.context.new_cdp_session(page)
    answer = session.send("Runtime.evaluate", {"expression": expression, "returnByValue": True})
    session.detach()
    return answer["result"].get("value")


def opened(browser: Any, folder: Path, count: int) -> str:
    """From the start of the command to a page that has all records: how long, and what the process took for it."""
    began = monotonic()
    with console(folder) as (process, address):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.get_by_role("heading", name="What needs you").wait_for(timeout=600_000)
        while records_read(page) < count:
            sleep(0.05)
        took = f"{monotonic() - began:.1f} s, {worked(process):.1f} s of the processor, {memory(process):.0f} MB of memory"
        page.close()
    return took


def latencies(page: Any, server: Server, times: int) -> list[float]:
    """Seconds from a decision to its row in the tree."""
    token = server.mint("latency")
    server.ask(token, "sales")
    page.get_by_role("option", name="latency").click()
    page.get_by_role("heading", name="Task latency").wait_for()
    began: list[float] = []
    for number in range(times):
        sleep(1.31)  # at no fixed place between two looks
        began.append(time())
        server.ask(token, f"sales_{number}")
    sleep(3)
    shown = script(page, "window.shown")
    return [shown[f"sales_{number}"] - at for number, at in enumerate(began)]


def answered(page: Any, question: str) -> float:
    """Seconds until a question is answered, its rows and its counts, from the page and back: the median of five."""
    asked = """async (question) => {
        const began = performance.now();
        await (await fetch("api/query?only=rows&limit=25&q=" + encodeURIComponent(question))).json();
        await (await fetch("api/query?only=counts&q=" + encodeURIComponent(question))).json();
        return (performance.now() - began) / 1000;
    }"""
    return sorted(float(page.evaluate(asked, question)) for _ in range(5))[2]


class Traced:
    """What the browser's threads do meanwhile: `longest` is the longest task of one, in ms of its processor."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._session = page.context.new_cdp_session(page)
        self._is_over = False
        self.longest = 0.0

    def __enter__(self) -> Traced:
        self._session.on("Tracing.dataCollected", self._add)
        self._session.on("Tracing.tracingComplete", lambda _: setattr(self, "_is_over", True))
        config = {"includedCategories": ["toplevel"]}
        self._session.send("Tracing.start", {"traceConfig": config, "transferMode": "ReportEvents"})
        return self

    def __exit__(self, *_: object) -> None:
        self._session.send("Tracing.end")
        while not self._is_over:
            self._page.wait_for_timeout(100)

    def _add(self, collected: Any) -> None:
        for event in collected["value"]:
            if event["name"] == "ThreadControllerImpl::RunTask":
                self.longest = max(self.longest, event.get("tdur", 0) / 1000)


def scrolled(page: Any, server: Server) -> tuple[float, float]:
    """The longest task of the page, in ms, while it is scrolled and the trail grows: by the clock, and of the processor.

    By the clock 0 says that none was longer than 50 ms: the browser tells of no shorter one.
    """
    token, over = server.mint("growing"), threading.Event()

    def grow() -> None:
        while not over.wait(0.01):
            server.ask(token, "sales")

    growing = threading.Thread(target=grow)
    growing.start()
    page.get_by_role("option").nth(20).click()
    page.get_by_role("tree").wait_for()
    sleep(1)
    script(page, "window.long.length = 0")
    with Traced(page) as traced:
        for target in (".tasks .rows", ".right .decisions"):
            page.locator(target).first.hover()
            for step in range(60):
                page.mouse.wheel(0, 240 if step % 30 < 20 else -240)
                sleep(0.05)
    longest = max(script(page, "window.long"), default=0.0)
    over.set()
    growing.join()
    return float(longest), traced.longest


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name, picture.chromium() as browser:
        folder = Path(name)
        many.write(folder / "trail.jsonl", count, end=int(time()))
        size = (folder / "trail.jsonl").stat().st_size / 1e6
        first = opened(browser, folder, count)
        again = opened(browser, folder, count)
        index = (folder / "index.db").stat().st_size / 1e6
        print(f"| records, trail, index | {count:,}, {size:.0f} MB, {index:.0f} MB |")
        print(f"| to read it for the first time | {first} |")
        print(f"| to open it when it is indexed | {again} |", flush=True)
        server = Server(folder / "trail.jsonl")
        with console(folder) as (_, address):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.add_init_script(WATCH)
            page.goto(address)
            page.get_by_role("heading", name="What needs you").wait_for()
            longest_answer = max(answered(page, question) for question in QUESTIONS)
            page.get_by_role("button", name="Now", exact=True).click()
            page.get_by_role("tree").wait_for()
            late = sorted(latencies(page, server, 20))
            longest, busy = scrolled(page, server)
            page.close()
        server.file.close()
    print(f"| a question, the longest of {len(QUESTIONS)} | {longest_answer:.2f} s |")
    print(f"| from a record to the screen, measured {len(late)} times | median {late[len(late) // 2]:.2f} s, longest {late[-1]:.2f} s |")
    by_clock = "at most 50 ms" if longest == 0 else f"{longest:.0f} ms"
    print(f"| the longest time without a reaction, while the page is scrolled | {by_clock}, {busy:.0f} ms of the processor |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
