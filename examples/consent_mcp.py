"""A mail waits for a person's yes at an MCP server. Its client is killed, and it goes out once.

    pip install 'captoken[mcp]' uvicorn && python examples/consent_mcp.py

The server is guarded, and has a page for Jane. The token lets the agent mail only with her consent,
each time. The client is a program of its own, and can show a page, as MCP has it. It calls the
tool, and is told where Jane decides. There it is killed. What it stored is the call and a sealed
state, and no token. Jane reads the call, and consents. Two more clients go on from what was stored,
each with the token: the mail goes out once, and the second of them is told to ask anew.
"""

import asyncio
import html
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

import uvicorn
from mcp import Client
from mcp.server import MCPServer
from mcp.types import ElicitResult

from captoken import Issuer, Keyring, Token, Verifier, current
from captoken.adapters.consent_service import ConsentService
from captoken.adapters.mcp import Guard
from captoken.adapters.mcp_client import meta_for
from captoken.consent import Approver, ApproverKey
from captoken.stores.memory import MemoryReplayStore

MAIL = {"to": "ann@example.com", "text": "Your refund is on its way."}


class Server:
    """The MCP server, and beside it the page: one application, on a port of this machine."""

    def __init__(self, keyring: Keyring, jane: Approver) -> None:
        self.sent: list[str] = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.origin = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        # In your service: your login. Here whoever opens the page is Jane.
        self.page = ConsentService(jane, origin=self.origin, login=lambda scope, need: "jane")
        desk = MCPServer("desk", log_level="CRITICAL")
        desk.tool()(self.mail)
        replays = MemoryReplayStore(floor=0)
        verifier = Verifier(keyring, audience="desk", replays=replays)
        # The SDK's client lists the tools by itself, to check what one of them gave.
        Guard(verifier, consents=self.page, list_without_token=True).install(desk)
        self.mcp = desk.streamable_http_app()

    def mail(self, to: str, text: str) -> str:
        """Send a mail."""
        self.sent.append(f"{to}: {text}")
        return "sent"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_page = scope.get("path", "").startswith("/.well-known/captoken/consent")
        await (self.page if is_page else self.mcp)(scope, receive, send)


async def client(folder: Path) -> None:
    """One client: it begins with the call, or goes on from what was stored."""
    # In your service the process gets its token as it did at first: from its issuer, say.
    token = Token.parse((folder / "token").read_text())
    url = (folder / "url").read_text()
    path = folder / "stored.json"
    stored: dict[str, Any] = {"call": MAIL, "state": None}
    if path.exists():
        stored = json.loads(path.read_text())

    async def shows_pages(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept")

    with current.use(token) as held:
        meta: Any = meta_for("desk", "mail", stored["call"], held=held)
        async with Client(url, elicitation_callback=shows_pages) as session:
            result: Any = await session.session.call_tool(
                "mail",
                stored["call"],
                meta=meta,
                request_state=stored["state"],
                input_responses={"consent": ElicitResult(action="accept")},
                allow_input_required=True,
            )
            if result.result_type == "input_required":
                page = result.input_requests["consent"].params.url
                print("    is told where a person decides")
                kept = {"call": stored["call"], "state": result.request_state, "page": page}
                path.write_text(json.dumps(kept))
                if stored["state"] is None:
                    os.kill(os.getpid(), signal.SIGKILL)
            else:
                print(f"    {result.content[0].text}")


def jane_reads(page: str, origin: str) -> None:
    """She opens the page, reads the call whole, and presses the button."""
    with urlopen(page) as answer:
        shown = html.unescape(answer.read().decode())
    rows = re.findall(r"<th[^>]*><bdi>(.*?)</bdi></th><td><bdi>(.*?)</bdi></td>", shown, re.DOTALL)
    for name, text in rows:
        print(f"      {name} = {text}")
    form = Request(page, b"decision=approve", {"Origin": origin})
    form.add_header("Content-Type", "application/x-www-form-urlencoded")
    with urlopen(form) as answer:
        assert "Approved by jane" in answer.read().decode()


def process(folder: Path) -> int:
    """Run a client in a process of its own."""
    command = [sys.executable, __file__, str(folder)]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode


def main(folder: Path) -> None:
    keyring = Keyring.generate().for_audience("desk")
    jane = Approver(ApproverKey.generate())  # her key is where no agent reaches it
    token = Issuer(keyring).mint(
        subject="user:jane",
        agent="desk-agent",
        task="orders",
        tools={"mail": {}},
        consent=[{"by": jane.public, "for": {"tools": ["mail"]}}],
    )
    server = Server(keyring, jane)
    (folder / "token").write_text(token.serialize())
    (folder / "url").write_text(f"{server.origin}/mcp")
    running = uvicorn.Server(uvicorn.Config(server, log_level="critical"))
    thread = threading.Thread(target=running.run, args=([server.listening],))
    thread.start()
    try:
        print("the first client:", flush=True)
        print(f"    ends with {process(folder)}: it was killed")
        stored = (folder / "stored.json").read_text()
        assert "cap1" not in stored and server.sent == []
        print("Jane reads:")
        jane_reads(json.loads(stored)["page"], server.origin)
        for which in ("second", "third"):
            (folder / "stored.json").write_text(stored)
            print(f"the {which} client goes on from what was stored:", flush=True)
            process(folder)
    finally:
        running.should_exit = True
        thread.join()
    print("What was sent:")
    for line in server.sent:
        print(f"      {line}")
    assert server.sent == ["ann@example.com: Your refund is on its way."]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(client(Path(sys.argv[1])))
    else:
        with TemporaryDirectory() as place:
            main(Path(place))
