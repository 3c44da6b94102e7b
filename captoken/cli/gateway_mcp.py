"""`captoken gateway stdio`: an MCP server with its key, before which a token decides."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from captoken.cli import files, serving
from captoken.cli.gateway_demo import check_extra
from captoken.cli.gateway_options import create_option, pass_option
from captoken.cli.options import clock
from captoken.cli.output import ToStderr, answer, say_json, warn
from captoken.cli.values import FILE

if TYPE_CHECKING:
    from captoken._verification.decision import Decision
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
@create_option
@pass_option
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
    reader = await _input(found.file.gateway.max_body)
    write = await _output()

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


async def _input(limit: int) -> asyncio.StreamReader:
    """Standard input, by lines of this length at most."""
    reader = asyncio.StreamReader(limit=limit)
    if _is_awaited(sys.stdin.fileno()):
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    else:
        reader.feed_data(sys.stdin.buffer.read())
        reader.feed_eof()
    return reader


async def _output() -> Callable[[bytes], Awaitable[None]]:
    """What writes a line to standard output, and waits until it is taken."""
    out = sys.stdout.buffer
    writer: asyncio.StreamWriter | None = None
    if _is_awaited(sys.stdout.fileno()):
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        transport, _ = await loop.connect_write_pipe(lambda: protocol, sys.stdout)
        writer = asyncio.StreamWriter(transport, protocol, None, loop)

    async def write(line: bytes) -> None:
        if writer is None:
            out.write(line + b"\n")
            out.flush()
        else:
            writer.write(line + b"\n")
            await writer.drain()

    return write


def _is_awaited(number: int) -> bool:
    """Can an event loop wait for it? It cannot for a file or /dev/null, which never block."""
    mode = os.fstat(number).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(number)


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
    behind = ["--", *_whole(command)] if command else []
    server: dict[str, object] = {
        "command": sys.executable,
        "args": ["-m", "captoken", "gateway", "stdio", name, "--file", whole, *behind],
        "env": {VARIABLE: token},
    }
    if client == "vscode":
        server = {"type": "stdio", **server}
    say_json({_CLIENTS[client]: {name: server}})
    return 0


def _whole(command: tuple[str, ...]) -> list[str]:
    """A command that can be started from any folder: what is a file here is named from the root."""
    program, *arguments = command
    found = shutil.which(program) or program
    return [_from_root(found), *map(_from_root, arguments)]


def _from_root(text: str) -> str:
    """A path that leads to a file or a folder from here, from the root; any other text as it is."""
    path = Path(text)
    is_path = os.sep in text or text in (".", "..") or path.suffix
    return os.path.abspath(path) if is_path and path.exists() else text


# --- for people who write tokens ------------------------------------------------------------------


def asked(
    found: Configuration, service: McpService, command: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    """The tools that an MCP server lists, by what tokens call them: the kinds of their arguments.

    Raises UsageError for a server that has no command, or does not answer.
    """
    check_extra()
    from captoken.adapters._gateway.credentials import Unavailable
    from captoken.adapters._gateway.inquiry import listed
    from captoken.adapters._gateway.upstream import Broken, Unreachable

    name = service.name
    if service.url is None and not command:
        raise click.UsageError(f"{name} has no command: write --service {name} -- COMMAND")
    try:
        listing = listed(service, command, timeout=found.file.gateway.timeout)
        tools = asyncio.run(listing)
    except (Unavailable, Unreachable, Broken, OSError) as problem:
        why = str(problem) or type(problem).__name__
        raise click.UsageError(f"{name} cannot be asked: {why}") from None
    return {f"{name}.{tool['name']}": _kinds(tool.get("inputSchema")) for tool in tools}


def _kinds(schema: Any) -> dict[str, str]:
    """The arguments of a tool, and what its schema says they are; `any` where it does not."""
    stated = schema.get("properties") if type(schema) is dict else None
    if type(stated) is not dict:
        return {}
    return {
        argument: kind["type"] if type(kind) is dict and type(kind.get("type")) is str else "any"
        for argument, kind in stated.items()
    }


def explained(
    found: Configuration,
    method: str,
    target: str,
    params: dict[str, Any],
    token_file: str | None,
    as_json: bool,
) -> int:
    """How a message to an MCP server is decided on, and what would be sent."""
    from captoken.adapters._gateway import envelopes
    from captoken.adapters._gateway.opening import stores
    from captoken.adapters._gateway.relaying import access_to, is_free

    name, _, tool = target.partition(".")
    service = found.mcp.get(name)
    if service is None:
        some = ", ".join(f"{each}.TOOL" for each in found.mcp) or "none is in the file"
        raise click.UsageError(f"TARGET of an MCP method is a tool of an MCP server: {some}")
    if (method == "tools/call") is not bool(tool):
        raise click.UsageError("TARGET is NAME.TOOL for tools/call, and NAME for another method")
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    if tool:
        message["params"] = {"name": tool, "arguments": params}
    try:
        said = envelopes.read(envelopes.encode(message))
    except envelopes.Malformed as problem:
        answer(as_json, {"refused": problem.text}, f"refused: {problem.text}")
        return 1
    sent = said.sent(service.asks)
    if is_free(method, service.free):
        text = f"{method} needs a genuine token, and nothing more of it"
        answer(as_json, {"tool": None, "arguments": {}, "cost": {}, "sends": sent}, text)
        return 0
    access = access_to(said, f"{name}.", service.prices)
    if access is None:
        text = "refused: no token permits a message of this name, or with these arguments"
        answer(as_json, {"refused": text}, text)
        return 1
    decision: Decision | None = None
    if token_file is not None:
        with stores(found, readonly=True) as parts:
            decision = parts.verifier(name).blocking.explain(files.token_text(token_file), access)
    told: dict[str, Any] = {
        "tool": access.tool, "arguments": access.arguments, "cost": access.cost, "sends": sent,
    }  # fmt: skip
    lines = [f"{access.tool}  {method}"]
    lines += [f"  {each} = {value!r}" for each, value in (access.arguments or {}).items()]
    lines += [f"  costs {amount} {unit}" for unit, amount in access.cost.items()]
    if decision is not None:
        told |= {"allowed": bool(decision), "code": decision.code}
        lines += ["", *str(decision).split("\n")]
    would = "would be sent" if decision is None or decision else "not sent, and otherwise"
    lines += ["", f"{would} to {name}:", f"  {envelopes.encode(sent).decode()}"]
    answer(as_json, told, *lines)
    if decision is None and not as_json:
        warn("captoken: --token-file FILE says whether a token permits it")
    return 0 if decision is None or decision else 1
