"""Agents call tools of an MCP server, each call with a token of its own; then one tries for more.

    python examples/mcp_client.py

Starts mcp_server.py as a process of its own and talks to it over stdio. Runs on mcp 2.x and 1.x,
offline.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from captoken import Issuer, Keyring, Token, current
from captoken.adapters.mcp_client import Presenting, meta_for, refused_alone
from captoken.errors import Refused

AUDIENCE = "sales-mcp"
SERVER = Path(__file__).with_name("mcp_server.py")
ROOT: dict[str, Any] = {
    "query": {},
    "refund": {"order": {"any": True}, "cents": {"max": 5000}},
    "resources/read": {"uri": {"in": ["filings://cedar"]}},
}


def said(result: Any) -> str:
    """The first sentence of an answer."""
    return str(result.content[0].text).split(". ")[0]


async def call(sales: Presenting, tool: str, **arguments: Any) -> None:
    """What came of a call: the server's answer, or what a model is told of a refusal."""
    asked = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    try:
        answer = said(await sales.call_tool(tool, arguments))
    except Refused as error:
        where = "not sent" if error.here else "refused there"
        answer = f"{where}: {error.for_model.split('. ')[0]}"
    print(f"  {tool}({asked})\n      {answer}")


async def report(sales: Presenting) -> None:
    """An agent that may read one table, and sees no other tool."""
    print("report-agent, who was handed `query`, and to select from sales:")
    tools = (await sales.list_tools()).tools
    print(f"  is shown     {', '.join(tool.name for tool in tools)}")
    await call(sales, "query", sql="select sum(cents) from sales")
    await call(sales, "query", sql="select pay from hr")
    await call(sales, "refund", order="A-1", cents=100)


async def care(sales: Presenting, session: ClientSession) -> None:
    """An agent that may pay back a little, and is talked into paying back more."""
    print("care-agent, who was handed refunds of up to 2000 cents for order A-1:")
    await call(sales, "refund", order="A-1", cents=1500)
    await call(sales, "refund", order="A-1", cents=2500)

    print("  is led astray, and goes round what presents for it:")
    everything = current.holding().present(audience=AUDIENCE)  # all it holds, for this server
    for_another_call = meta_for(AUDIENCE, "refund", {"order": "A-1", "cents": 5})
    round_about: list[tuple[int, Any]] = [
        (2500, {"io.captoken/token": everything}),
        (1900, for_another_call),
    ]
    for cents, meta in round_about:
        result = await session.call_tool("refund", {"order": "A-1", "cents": cents}, meta=meta)
        print(f"      refund(order='A-1', cents={cents}): {said(result)}")

    forged = everything[:-4] + "AAAA"
    with_none: list[tuple[str, Any]] = [
        ("with no token", None),
        ("with a token of its own making", {"io.captoken/token": forged}),
    ]
    for name, meta in with_none:
        try:
            await session.call_tool("refund", {"order": "A-1", "cents": 5}, meta=meta)
        except Exception as error:
            print(f"      refund(order='A-1', cents=5), {name}: {error}")


async def story(session: ClientSession, root: Token) -> None:
    """The orchestrator hands on to two agents, one after the other."""
    # The tools ask the grant about tables, so what is held of tables goes along.
    sales = Presenting(session, audience=AUDIENCE, keep="tables")

    reading = current.delegate(
        to="report-agent", tools={"query": {}}, tables=["sales"], operations=["select"]
    )
    with current.use(root), reading:
        await report(sales)

    refunds: dict[str, Any] = {"refund": {"order": {"in": ["A-1"]}, "cents": {"max": 2000}}}
    with current.use(root), current.delegate(to="care-agent", tools=refunds):
        await care(sales, session)


async def main() -> None:
    keyring = Keyring.generate().for_audience(AUDIENCE)  # the server's own: good there alone
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder, "keyring.json")
        keyring.save(own)
        root = Issuer(keyring).mint(
            subject="user:jane",
            agent="orchestrator",
            task="q3-risk",
            tools=ROOT,
            tables=["sales"],
            operations=["select"],
            expires_in=600,
        )

        environment = {"CAPTOKEN_KEYRING_FILE": str(own), "PATH": os.defpath}
        parameters = StdioServerParameters(
            command=sys.executable, args=[str(SERVER), "serve"], env=environment
        )
        with refused_alone():
            async with stdio_client(parameters) as pipes, ClientSession(*pipes) as session:
                await session.initialize()
                await story(session, root)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except Refused as refused:
        sys.exit(str(refused))
