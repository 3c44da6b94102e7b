"""An MCP server on stdio that lets in what a token permits: two tools and a resource.

    python examples/mcp_server.py            says what it serves
    python examples/mcp_server.py serve      serves it on stdin and stdout, as mcp_client.py asks

Without a token nobody gets anything. Runs on mcp 2.x and 1.x. The key that it verifies with is its
own: it can forge for nobody else (docs/server.md).
"""

import os
import sqlite3
import sys
from contextlib import closing

from captoken import Keyring, Verifier, current
from captoken.adapters.mcp import Guard, explains_denials
from captoken.adapters.sqlite import guarded

try:
    from mcp.server import MCPServer as Server
except ImportError:  # mcp 1.x
    from mcp.server.fastmcp import FastMCP as Server  # type: ignore

AUDIENCE = "sales-mcp"
server = Server("sales", log_level="ERROR")


@server.tool()
@explains_denials
def query(sql: str) -> str:
    """Run a query. What it may touch is what the token of this very call may touch."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript("""
            create table sales (region text, cents integer);
            insert into sales values ('eu', 500), ('us', 700);
            create table hr (name text, pay integer);
            insert into hr values ('ann', 900);
        """)
        with guarded(connection, current.grant()) as db:
            return str(db.execute(sql).fetchall())


@server.tool()
def refund(order: str, cents: int) -> str:
    """Pay back. The grant says who asks, and for whom."""
    grant = current.grant()
    return f"{cents} cents back for {order}, by {grant.actor.name} for {grant.issued.subject}"


@server.resource("filings://cedar")
def cedar() -> str:
    """A filing."""
    return "Going concern in doubt."


def serve() -> None:
    """Serve on stdin and stdout, behind the guard."""
    keyring = Keyring.load(os.environ["CAPTOKEN_KEYRING_FILE"])
    Guard(Verifier(keyring, audience=AUDIENCE)).install(server)
    server.run()


def explain() -> None:
    """Say what there is to be served."""
    print(f"{AUDIENCE} serves on stdio, if it is called with `serve`,")
    print("and with a key in CAPTOKEN_KEYRING_FILE:")
    print("  tools       query(sql), refund(order, cents)")
    print("  resources   filings://cedar")
    print("To none of it is anybody let in without a token: mcp_client.py has one.")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        explain()
