"""`captoken gateway`: services of others over HTTP, whose keys the agent never sees."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from captoken.cli import files, serving, words
from captoken.cli.gateway_demo import check_extra, demo
from captoken.cli.gateway_mcp import asked, config, explained, stdio
from captoken.cli.gateway_options import create_option, file_argument, pass_option
from captoken.cli.gateway_proxies import caddy, envoy, nginx, processor, traefik
from captoken.cli.groups import USAGE, InOrder
from captoken.cli.options import clock, json_option
from captoken.cli.output import ToStderr, answer, say_json, tell, warn
from captoken.cli.problems import in_commands
from captoken.cli.values import FILE, OBJECT

if TYPE_CHECKING:
    from subprocess import Popen

    from captoken._verification.decision import Decision
    from captoken.adapters._gateway.opening import Configuration, McpService, Service
    from captoken.adapters._gateway.operations import Price
    from captoken.adapters._gateway.reading import Asked


_FEW = 3  # operations that are named


@click.group(cls=InOrder)
def gateway() -> None:
    """Forward requests to other services, if a token allows them.

    The gateway has the services' API keys. Agents have only tokens.
    """


@gateway.command()
@file_argument
@create_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option(
    "--token-file",
    type=FILE,
    metavar="FILE",
    help="A token or a set, or - for standard input. COMMAND gets it in the variables that `env` "
    "names.",
)
@click.option("--user", metavar="NAME", help="Run COMMAND as this user. Needs root.")
@click.option(
    "--same-user",
    is_flag=True,
    help="Run COMMAND as yourself, who can read all keys. Only for trying it out.",
)
@pass_option
@json_option
def run(
    path: str,
    command: tuple[str, ...],
    create: bool,
    token_file: str | None,
    user: str | None,
    same_user: bool,
    passed: tuple[str, ...],
    as_json: bool,
) -> int:
    """Run the gateway, until Ctrl-C or SIGTERM, or until COMMAND ends.

    \b
    captoken keygen keyring --out keyring.json --create used.db
    captoken gateway run gateway.toml
    captoken gateway run gateway.toml --token-file jane.token --user agent \\
        -- python refunds.py

    It speaks plain HTTP, so put a proxy with TLS in front of it. With --json, it writes one object
    when it starts. COMMAND gets a token and an address, and no API key. The gateway exits with
    COMMAND's exit code.

    It reads a changed keyring again within a second. On SIGHUP it reads again all that it can; if
    the trail was moved, it goes on in a new file. To change GATEWAY.toml, restart the gateway.
    """
    check_extra()
    import uvicorn

    from captoken.adapters.gateway import configured, opened

    serving.refuse_dumps()
    if bool(command) is not (token_file is not None):
        raise click.UsageError("--token-file FILE and -- COMMAND go together")
    found = configured(path)
    begin = _beginning(found, path, command, token_file, user, same_user, passed)
    host, _, port = found.file.gateway.listen.rpartition(":")
    logger = logging.getLogger("captoken")
    logger.addHandler(ToStderr(timed=True))
    logger.setLevel(logging.INFO)  # a line for each denial
    with opened(path, create=create) as application:
        listening = socket.create_server((host.strip("[]"), int(port)))
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = f"http://{host}:{listening.getsockname()[1]}"

        def announce() -> None:
            if as_json:
                say_json({"services": found.file.audiences, "address": at}, indent=None)
            tell(f"{', '.join(found.file.audiences)}: served at {at}: Ctrl-C ends that")

        config = uvicorn.Config(
            application,
            # It tells where a request ends from its own reading alone, and is strict about it.
            http="h11",
            lifespan="on",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
        )
        server = uvicorn.Server(config)
        if begin is not None:
            announce()
            return serving.beside(server, [listening], lambda: begin(at), reload=application.reload)
        serving.run(server, [listening], begin=announce, reload=application.reload)
    return 0


def _beginning(
    found: Configuration,
    path: str,
    command: tuple[str, ...],
    token_file: str | None,
    user: str | None,
    same_user: bool,
    passed: tuple[str, ...],
) -> Callable[[str], Popen[bytes]] | None:
    """What starts the command, once the address is known; None for no command.

    Raises UsageError for a user who could read a key.
    """
    if token_file is None:
        return None
    if sys.platform == "win32":
        raise click.UsageError("a command is started where users are those of POSIX")
    from captoken.cli import gateway_command as beside

    whose = beside.user_of(user, same_user)
    if whose is None:
        warn("captoken: --same-user is for trying out: the command can read every key")
    else:
        beside.check_closed(found, path, token_file, whose)
    token = files.held(token_file, clock(None))
    return lambda at: beside.started(
        command, beside.variables(found, token, at, passed, whose), whose
    )


@gateway.command()
@file_argument
@click.option(
    "--envoy",
    type=FILE,
    metavar="ENVOY.yaml",
    help="Look, too, for what breaks the gateway's promises in this configuration of Envoy.",
)
@json_option
def check(path: str, envoy: str | None, as_json: bool) -> int:
    """Load the file, and show what the gateway serves.

    \b
    captoken gateway check gateway.toml
    captoken gateway check gateway.toml --envoy envoy.yaml

    It looks at keys, ledger, proofs and overlay in files as the gateway will. Exit 2 means that the
    gateway would not start, or would deny everything. It reads no environment variable, connects
    nowhere, and writes nothing.
    """
    from captoken.adapters._gateway.checking import unready, unstated, with_bodies

    check_extra()
    found = _configured(path)
    problems = {place: in_commands(told) for place, told in unready(found).items()}
    if envoy is not None:
        problems |= {f"{envoy}: {place}": why for place, why in _of_envoy(envoy).items()}
    code = USAGE if problems else 0
    no_cost = {name: dict(unstated(each)) for name, each in found.services.items()}
    unseen = {name: list(with_bodies(each)) for name, each in found.services.items()}
    services = {
        name: {
            "url": each.url,
            "operations": len(each.table.operations),
            "not_taken": each.left_out,
            "no_cost": no_cost[name],
            "not_through_proxies": unseen[name],
        }
        for name, each in found.services.items()
    }
    services |= {name: {"mcp": each.url or list(each.command)} for name, each in found.mcp.items()}
    services |= {name: {"authzen": f"{found.origin}/{name}"} for name in found.authzen}
    lines = [f"{name}: MCP, {_reached(each)}" for name, each in found.mcp.items()]
    for name in found.authzen:
        lines.append(f"{name}: AuthZEN, {found.origin}/{name}/access/v1/evaluation")
        if not found.origin.startswith("https://"):
            lines.append("  no metadata: they need an origin of https")
    for name, each in found.services.items():
        lines.append(
            f"{name}: {each.url}, {words.counted(len(each.table.operations), 'operation')}"
        )
        lines += [f"  not taken: {request}: {why}" for request, why in each.left_out.items()]
        if unseen[name]:
            lines.append(f"  not through a proxy, for their body: {_few(unseen[name], name)}")
        for unit, tools in no_cost[name].items():
            permits = f"cost = {{ {unit} = 0 }} permits it"
            lines.append(f"  no cost in {unit}: {_few(tools, name)}")
            lines.append(f"    refused for a token with such a budget: {permits}")
    answer(as_json, {"services": services, "problems": problems}, *lines)
    for place, problem in () if as_json else problems.items():
        where = "" if envoy is not None and place.startswith(f"{envoy}: ") else f"{path}: "
        tell(f"{where}{place}: {problem}")
    return code


def _of_envoy(path: str) -> dict[str, str]:
    """What breaks the promise in a configuration of Envoy, by place. Raises ClickException."""
    import yaml

    from captoken.adapters._gateway.checking_envoy import broken

    try:
        return broken(yaml.safe_load(Path(path).read_text("utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise click.UsageError(f"--envoy: {path} is no YAML") from None


def _reached(service: McpService) -> str:
    """Where an MCP server is, or how it is started."""
    return service.url or " ".join(service.command) or "started by `captoken gateway stdio`"


def _few(tools: list[str], name: str) -> str:
    """Some of the operations of a service, and how many more there are."""
    said = ", ".join(tool.removeprefix(f"{name}.") for tool in tools[:_FEW])
    return f"{said} and {len(tools) - _FEW} more" if len(tools) > _FEW else said


@gateway.command()
@file_argument
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option("--service", metavar="NAME", help="Only the tools of this service.")
@click.option(
    "--ask", is_flag=True, help="Connect to MCP servers, or start them, and ask for their tools."
)
@json_option
def tools(
    path: str, command: tuple[str, ...], service: str | None, ask: bool, as_json: bool
) -> int:
    """List the tools that tokens can name, with their arguments.

    \b
    captoken gateway tools gateway.toml
    captoken gateway tools gateway.toml --ask --service files \\
        -- npx -y @modelcontextprotocol/server-filesystem /srv/files

    The tools of an MCP server are known to the server alone, so it has to be asked. It is given its
    key. COMMAND starts the one service that --service names, and whose command is not in the file.
    """
    found = _configured(path)
    if service is not None and service not in found.file.service:
        raise click.UsageError(f"--service: one of {', '.join(found.file.service)}")
    if command and not (ask and service in found.mcp):
        raise click.UsageError("COMMAND goes with --ask, and --service NAME of an MCP server")
    told: dict[str, Any] = {}
    lines: list[str] = []
    for name, each in found.services.items():
        for tool, operation in each.table.operations.items() if service in (None, name) else ():
            arguments = operation.parameters()
            costs = operation.cost
            told[tool] = {"request": operation.request, "arguments": arguments}
            told[tool]["cost"] = sorted(costs)
            lines += _listed(f"{tool}  {operation.request}", arguments, costs)
    for name, server in found.mcp.items():
        if service not in (None, name):
            continue
        if not ask:
            lines.append(f"{name}: an MCP server: --ask asks it for its tools")
            continue
        for tool, kinds in asked(found, server, command or server.command).items():
            costs = server.prices.get(tool.removeprefix(f"{name}."), {})
            told[tool] = {"request": "tools/call", "arguments": kinds, "cost": sorted(costs)}
            lines += _listed(f"{tool}  tools/call", kinds, costs)
    answer(as_json, {"tools": told}, *lines)
    return 0


def _listed(head: str, arguments: dict[str, str], costs: Mapping[str, Price]) -> list[str]:
    said = [f"  {argument}: {kind}" for argument, kind in arguments.items()]
    return [head, *said, *(f"  costs {price.told(unit)}" for unit, price in costs.items())]


@gateway.command()
@file_argument
@click.argument("method", metavar="METHOD")
@click.argument("target", metavar="TARGET")
@click.option(
    "--token-file",
    type=FILE,
    metavar="FILE",
    help="A presented token to check the request against, or - for standard input.",
)
@click.option(
    "-d",
    "--data",
    multiple=True,
    metavar="NAME=VALUE",
    help="A field of a form as the body. Repeatable.",
)
@click.option("--json-body", type=OBJECT, metavar="JSON", help="The body, in JSON.")
@click.option("-H", "--header", multiple=True, metavar="NAME:VALUE", help="A header. Repeatable.")
@json_option
def explain(
    path: str,
    method: str,
    target: str,
    token_file: str | None,
    data: tuple[str, ...],
    json_body: dict[str, Any] | None,
    header: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show how a request is read, decided on and sent.

    \b
    captoken gateway explain gateway.toml --token-file jane.token \\
        POST /stripe/v1/refunds -d charge=ch_1 -d amount=500

    Of an MCP server, METHOD is a method of MCP and TARGET its tool; --json-body has the arguments:

    \b
    captoken gateway explain gateway.toml --token-file jane.token \\
        tools/call files.read_file --json-body '{"path": "/srv/files/a.txt"}'

    It sends nothing, reads no API key and counts nothing. Exit 1 if the request would be denied.
    """
    from captoken.adapters._gateway.reading import NoOperation, check_framing
    from captoken.adapters._http.exchange import RequestError

    found = _configured(path)
    if "/" in method:
        if data or header:
            raise click.UsageError("a message of MCP has --json-body alone")
        return explained(found, method, target, json_body or {}, token_file, as_json)
    service, raw, query = _service_of(found, target)
    body, headers = _given(data, json_body, header)
    try:
        check_framing(headers)
        began = service.reading.begin(method, raw, headers)
        asked = service.reading.complete(began, query, body)
    except NoOperation as problem:
        return _refused(f"refused, tool: {problem}", as_json)
    except RequestError as problem:
        return _refused(f"refused, {problem.status}: {problem.text}", as_json)
    decision: Decision | None = None
    if token_file is not None:
        decision, is_said = _decision(found, service, asked, token_file)
        if not is_said:
            return _refused(f"refused, 400: {asked.unsaid_text}", as_json)
    answer(as_json, _explained_data(asked, decision), *_explained(service, asked, decision))
    if decision is None and not as_json:
        warn("captoken: --token-file FILE says whether a token permits it")
    return 0 if decision is None or decision else 1


def _refused(text: str, as_json: bool) -> int:
    answer(as_json, {"refused": text}, text)
    return 1


def _service_of(found: Configuration, target: str) -> tuple[Service, bytes, bytes]:
    """The service that a target is for, and its path and query there."""
    raw, _, query = target.encode("utf-8", "surrogateescape").partition(b"?")
    name, _, _ = raw.removeprefix(b"/").partition(b"/")
    service = found.services.get(name.decode("latin-1"))
    if name.decode("latin-1") in found.mcp:
        example = f"tools/call {name.decode()}.TOOL --json-body '{{…}}'"
        raise click.UsageError(f"{name.decode()} is an MCP server: write {example}")
    if service is None:
        some = ", ".join(f"/{each}/…" for each in found.services)
        raise click.UsageError(f"a target begins with the name of a service: {some}")
    return service, raw[len(name) + 1 :] or b"/", query


def _given(
    data: tuple[str, ...], json_body: dict[str, Any] | None, header: tuple[str, ...]
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The body and the headers that options state."""
    import json

    if data and json_body is not None:
        raise click.UsageError("--data and --json-body are two bodies")
    headers = []
    for each in header:
        name, colon, value = each.partition(":")
        if not colon:
            raise click.UsageError("-H is NAME:VALUE, as in 'Stripe-Account: acct_1'")
        headers.append((name.strip().lower().encode(), value.strip().encode()))
    if not data and json_body is None:
        return b"", headers
    body = "&".join(data).encode() if data else json.dumps(json_body).encode()
    usual = b"application/x-www-form-urlencoded" if data else b"application/json"
    if not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", usual))
    return body, headers


def _decision(
    found: Configuration, service: Service, asked: Asked, token: str
) -> tuple[Decision, bool]:
    """What a token says to it, and whether it says what a budget counts by.

    Stores are looked at, and nothing counts.
    """
    from captoken.adapters._gateway.opening import stores

    with stores(found, readonly=True) as parts:
        verifier = parts.verifier(service.name).blocking
        text = files.token_text(token)
        decision = verifier.explain(text, asked.access)
        is_said = decision.code != "cost_unstated" or not asked.unsaid
        if not is_said:
            is_said = verifier.explain(text, asked.costing_nothing).code == "cost_unstated"
    return decision, is_said


def _explained_data(asked: Asked, decision: Decision | None) -> dict[str, Any]:
    outgoing = asked.outgoing
    told: dict[str, Any] = {
        "tool": asked.access.tool,
        "arguments": asked.access.arguments,
        "cost": asked.access.cost,
        "sends": {
            "method": outgoing.method,
            "target": outgoing.target,
            "headers": {name.decode(): value.decode() for name, value in outgoing.headers},
            "body": outgoing.body.decode("utf-8", "replace"),
        },
    }
    if decision is not None:
        told |= {"allowed": bool(decision), "code": decision.code}
    return told


def _explained(service: Service, asked: Asked, decision: Decision | None) -> Iterator[str]:
    yield f"{asked.access.tool}  {asked.operation.request}"
    for argument, value in (asked.access.arguments or {}).items():
        yield f"  {argument} = {value!r}"
    for unit, amount in asked.access.cost.items():
        yield f"  costs {amount} {unit}"
    for unit, argument in asked.unsaid.items():
        yield f"  says no {argument}: with a budget of {unit} it is refused"
    if decision is not None:
        yield from ("", *str(decision).split("\n"))
    outgoing = asked.outgoing
    parts = urlsplit(service.url)
    would = "would be sent" if decision is None or decision else "not sent, and otherwise"
    yield from ("", f"{would} to {parts.scheme}://{parts.netloc}, with its key:")
    yield f"  {outgoing.method} {outgoing.target}"
    for name, value in outgoing.headers:
        yield f"  {name.decode()}: {value.decode()}"
    if outgoing.body:
        yield f"  {outgoing.body.decode('utf-8', 'replace')}"


def _configured(path: str) -> Configuration:
    """The file, whole. Raises ValueError, with file and line."""
    from captoken.adapters._gateway.opening import configured

    return configured(path)


gateway.add_command(stdio)
gateway.add_command(config)
gateway.add_command(processor)
gateway.add_command(envoy)
gateway.add_command(caddy)
gateway.add_command(nginx)
gateway.add_command(traefik)
gateway.add_command(demo)
