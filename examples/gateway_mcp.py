"""An MCP server that nobody can change, behind the gateway: its key is the server's alone.

    python examples/gateway_mcp.py

The server is a package as there are many: it has a key for all tickets, and does not ask who calls.
The client is the MCP SDK's, and knows nothing of tokens. Between them stands `captoken gateway
stdio`, started by the settings that `captoken gateway config` prints. The token permits one queue,
and two answers. It is narrowed while the client runs.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.server import MCPServer

from captoken import Issuer, Keyring
from captoken.stores.sqlite import SQLiteLedger

KEY = "tk_live_7f3a9c51e08b24d6"

CONFIGURATION = """
version = 1

[gateway]
keyring = "keyring.json"
ledger = "used.db"

[service.tickets]
mcp = {command}
credential = {{ from = "file:tickets.key", as = "variable:TICKETS_KEY" }}

[service.tickets.tools]
list_tickets.cost = {{ answers = 0 }}
answer.cost = {{ answers = 1 }}
show_settings.cost = {{ answers = 0 }}
"""


# --- The server, whose author knows nothing of tokens ---------------------------------------------


def serve() -> None:
    """A server on stdio: whoever speaks to it may read and do everything."""
    server = MCPServer("tickets")
    is_keyed = os.environ.get("TICKETS_KEY") == KEY

    @server.tool()
    def list_tickets(queue: str) -> str:
        """The open tickets of a queue."""
        return f"3 tickets in {queue}" if is_keyed else "401"

    @server.tool()
    def answer(ticket: str, text: str) -> str:
        """Answer a ticket."""
        return f"{ticket} is answered" if is_keyed else "401"

    @server.tool()
    def show_settings() -> str:
        """The settings of the server."""
        return f"key={os.environ.get('TICKETS_KEY')}"

    server.run()


# --- The gateway's folder -------------------------------------------------------------------------


def lay(folder: Path) -> Issuer:
    """What an operator has: keys, a ledger, the server's key, and the file of the gateway."""
    keyring = Keyring.generate().for_audience("tickets")
    keyring.save(folder / "keyring.json")
    SQLiteLedger.create(folder / "used.db", keys=keyring.key_ids).close()
    write(folder / "tickets.key", KEY)
    command = json.dumps([sys.executable, str(Path(__file__).resolve()), "--serve"])
    (folder / "gateway.toml").write_text(CONFIGURATION.format(command=command))
    return Issuer(keyring)


def write(path: Path, secret: str) -> None:
    """A file that only its owner can read."""
    path.touch(0o600)
    path.write_text(secret)


def settings(folder: Path) -> dict[str, Any]:
    """What is pasted into the settings of an MCP client."""
    command = [sys.executable, "-m", "captoken", "gateway", "config", "claude", "tickets"]
    files = ["--file", str(folder / "gateway.toml"), "--token-file", str(folder / "task.token")]
    printed = subprocess.run([*command, *files], capture_output=True, check=True).stdout
    found: dict[str, Any] = json.loads(printed)["mcpServers"]["tickets"]
    return found


# --- The client, which knows nothing of tokens either ---------------------------------------------


async def call(client: Client, tool: str, **arguments: str) -> None:
    """One call, as an agent makes it; what the model reads."""
    try:
        done: Any = await client.call_tool(tool, arguments)
        text = done.content[0].text
    except Exception as problem:
        text = f"error: {problem}"
    said = ", ".join(arguments.values())
    print(f"  {tool}({said})".ljust(44), text.partition(". ")[0])


async def main() -> None:
    """An agent with a task, and a sub-agent whose token is narrower."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        issuer = lay(folder)
        root = issuer.mint(
            subject="user:jane",
            agent="support",
            task="returns",
            audience="tickets",
            tools={
                "tickets.list_tickets": {"queue": {"in": ["returns"]}},
                "tickets.answer": {},
                "tickets.show_settings": {},
            },
            budget={"answers": 2},
        )
        write(folder / "task.token", root.serialize())
        stated = settings(folder)
        print(f"The client's settings have the key: {KEY in json.dumps(stated)}")

        with open(os.devnull, "w") as log:
            server = StdioServerParameters(**stated)
            async with Client(stdio_client(server, errlog=log)) as client:
                names = [tool.name for tool in (await client.list_tools()).tools]
                print(f"It lists: {', '.join(names)}")
                await call(client, "list_tickets", queue="returns")
                await call(client, "list_tickets", queue="salaries")
                await call(client, "answer", ticket="T-1", text="On its way.")
                await call(client, "answer", ticket="T-2", text="On its way.")
                await call(client, "answer", ticket="T-3", text="On its way.")
                await call(client, "show_settings")

                # The token is narrowed, and the client runs on.
                only = {"tickets.list_tickets": {"queue": {"in": ["returns"]}}}
                (folder / "task.token").write_text(root.attenuate(tools=only).serialize())
                print("The token now permits the list alone:")
                names = [tool.name for tool in (await client.list_tools()).tools]
                print(f"It lists: {', '.join(names)}")
                await call(client, "answer", ticket="T-4", text="On its way.")


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve()
    else:
        asyncio.run(main())
