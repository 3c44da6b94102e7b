"""`captoken gateway stdio`: an MCP server with its key, before which a token decides."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from captoken.cli import serving
from captoken.cli.gateway_demo import check_extra
from captoken.cli.options import clock
from captoken.cli.output import ToStderr, say_json, warn
from captoken.cli.values import FILE

if TYPE_CHECKING:
    from captoken._writing.token import Token
    from captoken._writing.token_set import TokenSet
    from captoken.adapters._gateway.ends import End
    from captoken.adapters._gateway.opening import Configuration, McpService, Opened
    from captoken.adapters._gateway.relaying import Relay

# Where the token is of messages that come without one: a file, read again for each of them.
VARIABLE = "CAPTOKEN_FILE"


_name = click.argument("name", metavar="NAME")
_command = click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
_file = click.option(
    "--file",
    "path",
    type=FILE,
    default="gateway.toml",
    show_default=True,
    metavar="GATEWAY.toml",
    help="The file that has the service NAME.",
)


@click.command()
@_name
@_command
@_file
@click.option(
    "--create",
    is_flag=True,
    help="Create the files of the ledger and of used proofs, if they are missing.",
)
@click.option(
    "--pass",
    "passed",
    multiple=True,
    metavar="NAME",
    help="An environment variable to pass on to COMMAND. Repeatable.",
)
def stdio(
    name: str, command: tuple[str, ...], path: str, create: bool, passed: tuple[str, ...]
) -> int:
    """Start an MCP server with its key, and check each call.

    \b
    CAPTOKEN_FILE=jane.token captoken gateway stdio files \\
        -- npx -y @modelcontextprotocol/server-filesystem /srv/files

    An MCP client starts this in the place of COMMAND, and speaks to it over standard input and
    output. It reads the token in CAPTOKEN_FILE again for each message. Only COMMAND gets the key.
    Without COMMAND, it starts the one of the file, or connects to its address.
    """
    check_extra()
    from captoken.adapters._gateway.opening import configured, stores
    from captoken.adapters._gateway.relaying import Relay
    from captoken.adapters._mcp.started_with import ReadAgain

    serving.refuse_dumps()
    found = configured(path)
    service = _service(found, name, command)
    logger = logging.getLogger("captoken")
    logger.addHandler(ToStderr())
    logger.setLevel(logging.INFO)  # a line for each denial
    token_file = os.environ.get(VARIABLE)
    if token_file is None:
        warn(f"captoken: {VARIABLE} is not set: only messages with a token of their own are let in")
    with stores(found, create=create) as parts:
        relay = Relay(
            name,
            parts.verifier(name),
            prices=service.prices,
            asks=service.asks,
            free=service.free,
            default=None if token_file is None else ReadAgain(lambda: _held(Path(token_file))),
        )
        return asyncio.run(_serve(found, service, command or service.command, passed, relay, parts))


def _service(found: Configuration, name: str, command: tuple[str, ...]) -> McpService:
    """The service of that name, which can be started or reached. Raises UsageError."""
    if sys.platform == "win32":
        raise click.UsageError("a server is started where processes are those of POSIX")
    service = found.mcp.get(name)
    if service is None:
        some = ", ".join(found.mcp) or "none is there"
        raise click.UsageError(f"NAME is a service with `mcp` in the file: {some}")
    if service.url is not None and command:
        raise click.UsageError(f"{name} has an address: COMMAND is for one that is started")
    if service.url is None and not (command or service.command):
        raise click.UsageError(f"{name} has no command: write -- COMMAND, or mcp = [...]")
    return service


def _held(path: Path) -> Token | TokenSet:
    """The token in a file. Raises OSError, ValueError and TokenFormatError."""
    from captoken._writing.token_set import parse_held

    return parse_held(path.read_text("ascii").strip(), clock=clock(None))


async def _serve(
    found: Configuration,
    service: McpService,
    command: tuple[str, ...],
    passed: tuple[str, ...],
    relay: Relay,
    parts: Opened,
) -> int:
    """Until the client or the server has ended."""
    from captoken.adapters._gateway.ends import Child
    from captoken.adapters._gateway.lines import Lines
    from captoken.adapters._gateway.remote import Remote
    from captoken.adapters._gateway.upstream import Upstream

    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=found.file.gateway.max_body)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    sink = asyncio.StreamReader()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(sink), sys.stdout
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)

    async def write(line: bytes) -> None:
        writer.write(line + b"\n")
        await writer.drain()

    upstream = None
    if service.url is not None:
        upstream = Upstream(service.url, timeout=found.file.gateway.timeout, ca=service.ca)

    async def start() -> End:
        if upstream is not None:
            return Remote(upstream, service, relay.mirrored)
        return await Child.start(command, service.source, service.variable, passed)

    client = Lines(relay, start, write)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, client.stop)
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, parts.kept.tell)
    looking = asyncio.create_task(parts.kept.look_after())
    try:
        return await client.serve(reader)
    finally:
        looking.cancel()
        await parts.aclose()


# --- for clients of MCP ---------------------------------------------------------------------------

# Where each client has its servers, in its own file.
_CLIENTS = {"claude": "mcpServers", "cursor": "mcpServers", "vscode": "servers"}


@click.command()
@click.argument(
    "client", type=click.Choice(sorted(_CLIENTS)), metavar=f"[{'|'.join(sorted(_CLIENTS))}]"
)
@_name
@_command
@_file
@click.option(
    "--token-file", type=FILE, required=True, metavar="FILE", help="The file of the token."
)
def config(client: str, name: str, command: tuple[str, ...], path: str, token_file: str) -> int:
    """Print what an MCP client needs to start a server so.

    \b
    captoken gateway config claude files --token-file jane.token \\
        -- npx -y @modelcontextprotocol/server-filesystem /srv/files

    It goes into the client's settings. The paths in it are whole, since clients start servers in
    folders of their own. It has no secret in it.
    """
    from captoken.adapters._gateway.opening import configured

    _service(configured(path), name, command)
    whole, token = (str(Path(each).absolute()) for each in (path, token_file))
    behind = ["--", *command] if command else []
    server: dict[str, object] = {
        "command": sys.executable,
        "args": ["-m", "captoken", "gateway", "stdio", name, "--file", whole, *behind],
        "env": {VARIABLE: token},
    }
    if client == "vscode":
        server = {"type": "stdio", **server}
    say_json({_CLIENTS[client]: {name: server}})
    return 0
