"""A gateway, opened from its file: keys, stores, trail and services, checked before it serves.

    with opened("gateway.toml") as gateway: ...

Paths in the file are of its folder.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from captoken._format import names
from captoken._format.extras import extra
from captoken._format.located import located
from captoken._format.public_keys import signing_key
from captoken._verification.telling import log, quietly
from captoken._verification.verifier import AsyncVerifier
from captoken.adapters._gateway.credentials import (
    ISSUED,
    Source,
    Writer,
    is_token,
    source_of,
    writer_of,
)
from captoken.adapters._gateway.described import described, load
from captoken.adapters._gateway.kept import Kept, KeyringFile
from captoken.adapters._gateway.operations import (
    FORM,
    JSON,
    METHODS,
    SEGMENTS,
    Operation,
    Price,
    Table,
    check_headers,
    made,
    path_shapes,
    template_of,
)
from captoken.adapters._gateway.reading import HeaderRules, Reading
from captoken.adapters._gateway.shapes import KINDS, NOTHING, Members, Scalar, Shape, shape_of
from captoken.adapters._gateway.stated import (
    File,
    StatedAudience,
    StatedCredential,
    StatedGateway,
    StatedOperation,
    StatedPrice,
    StatedProxy,
    StatedService,
    StatedTool,
    read,
)
from captoken.adapters._gateway.strict import path_segments
from captoken.adapters._http.exchange import RequestError
from captoken.adapters._http.origins import origin_of
from captoken.adapters._http.refusals import METADATA_PATH
from captoken.adapters._mcp.messages import CALL, LISTS
from captoken.audit._kept import TrailKept
from captoken.control.feed import Feed
from captoken.keys.secret import AuditKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore, SQLiteSnapshots


class Service(NamedTuple):
    """A service that was checked, and not connected to yet."""

    name: str
    url: str
    table: Table
    reading: Reading
    source: Source
    writer: Writer

    # Where clients put the agent's token: `bearer`, `basic`, `scheme:NAME`, `header:NAME`.
    tokens: tuple[str, ...]
    ca: str | None

    # Are its own addresses, in JSON answers, to lead back to the gateway?
    links: bool

    # Do its clients read `error` as an object?
    nests_errors: bool

    # How long a retry with the same key counts as the same request; None is not at all.
    retries_for: int | None

    # What a command that is started has in its environment.
    env: dict[str, str]

    # Requests of the description that are not taken, and why.
    left_out: dict[str, str]

    # May a proxy send what it asked about, and bring the answer back by itself?
    unseen: bool


class McpService(NamedTuple):
    """An MCP server that was checked, and neither connected to nor started yet."""

    name: str

    # Its address; without one, the command that starts it, if the file says it.
    url: str | None
    command: tuple[str, ...]
    source: Source | None

    # Where its key stands: in a request, or in a variable of its environment.
    writer: Writer | None
    variable: str
    ca: str | None

    # What calls cost, by tool; what it may ask of its client; what any genuine token may use.
    prices: dict[str, dict[str, Price]]
    asks: tuple[str, ...]
    free: tuple[str, ...]

    # What a command that is started has in its environment.
    env: dict[str, str]


class Audience(NamedTuple):
    """Servers of others that ask by AuthZEN: checked, and how they are known."""

    name: str
    source: Source

    # What actions cost, by `TYPE.ACTION`.
    prices: dict[str, dict[str, Price]]


class Configuration(NamedTuple):
    """A file that was checked: its services, and itself."""

    file: File
    folder: Path
    services: dict[str, Service]
    mcp: dict[str, McpService]
    authzen: dict[str, Audience]

    @property
    def origin(self) -> str:
        """Where clients reach it."""
        return self.file.gateway.origin or f"http://{self.file.gateway.listen}"

    def place(self, name: str) -> str:
        """The path of a service."""
        return f"/{name}/mcp" if name in self.mcp else f"/{name}"

    def metadata(self, name: str) -> str | None:
        """Where clients of a service find out who logs people in; None for nowhere."""
        if not self.file.gateway.authorization_servers:
            return None
        return f"{self.origin}{METADATA_PATH}{self.place(name)}"

    @property
    def asked_at(self) -> list[str]:
        """Where each worker of the processor listens: a socket's path, or HOST:PORT."""
        proxy = self.file.proxy
        numbers = range(proxy.workers)
        if proxy.listen is not None:
            host, _, port = proxy.listen.rpartition(":")
            return [f"{host}:{int(port) + number}" for number in numbers]
        place = (self.folder / proxy.socket).absolute()
        if proxy.workers == 1:
            return [str(place)]
        return [str(place.with_stem(f"{place.stem}-{number}")) for number in numbers]

    def trail_of(self, worker: int) -> Path | None:
        """The file of a worker's trail."""
        trail = self.file.gateway.trail
        return None if trail is None else self.folder / trail.replace("{}", str(worker))


def configured(path: str) -> Configuration:
    """The file at a path, whole. Raises ValueError, with file and line, and OSError."""
    file = read(path)
    folder = Path(path).parent
    services = {}
    mcp = {}
    with located(path, Path(path).read_bytes(), File):
        for name, stated in file.service.items():
            _check_name(name)
            if stated.mcp is not None:
                mcp[name] = _mcp_service(name, stated, folder)
            else:
                services[name] = _service(name, stated, folder)
        authzen = {name: _audience(name, each, folder) for name, each in file.authzen.items()}
        if not file.audiences:
            raise ValueError("write at least one [service.NAME], or [authzen.NAME]")
        if both := file.service.keys() & file.authzen.keys():
            raise ValueError(f"authzen.{min(both)}: a service has this name")
        found = Configuration(file, folder, services, mcp, authzen)
        _check_gateway(file.gateway)
        _check_proxy(file.proxy)
        if file.proxy.workers != 1:
            _check_workers(file)
    return found


def _check_gateway(stated: StatedGateway) -> None:
    """Raise ValueError for settings that no gateway could run with."""
    host, colon, port = stated.listen.rpartition(":")
    if not host or not colon or not port.isdecimal():
        raise ValueError(f"gateway.listen must be HOST:PORT, not {stated.listen!r}")
    for key, least in _LEAST.items():
        if getattr(stated, key) < least:
            raise ValueError(f"gateway.{key} must be {least} or more")
    if stated.trail_key is not None and stated.trail is None:
        raise ValueError(
            "gateway.trail_key signs the trail: name the trail's file as gateway.trail"
        )
    if stated.overlay is not None and not stated.operators:
        raise ValueError(
            "gateway.overlay needs the keys of its signers: write operators = [PUBLIC], as "
            "`captoken keygen public operator.json` prints it"
        )
    if stated.step_up and not stated.authorization_servers:
        raise ValueError("gateway.step_up needs authorization_servers: clients ask a person there")
    with _at("gateway.authorization_servers"):
        for each in stated.authorization_servers:
            origin_of(each)
    if stated.authorization_servers:
        with _at("gateway.origin"):
            origin_of(stated.origin or f"http://{stated.listen}")
    with _at("gateway.operators"):
        for each in stated.operators:
            signing_key(each, "operator")


def _check_proxy(stated: StatedProxy) -> None:
    """Raise ValueError where a stranger could ask in the place of the proxy."""
    tls = (stated.certificate, stated.key, stated.ca)
    if any(tls) and (stated.listen is None or not all(tls)):
        raise ValueError("proxy.certificate, key and ca go together, beside proxy.listen")
    if stated.secret is not None:
        with _at("proxy.secret"):
            _check_secret(stated.secret)
    if stated.listen is None:
        return
    host, _, port = stated.listen.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"proxy.listen must be HOST:PORT, not {stated.listen!r}")
    if stated.secret is None and stated.ca is None:
        raise ValueError(
            "proxy.listen is an address that others reach, too: write secret, by which the proxy "
            "is known, or certificate, key and ca"
        )


_MOST_WORKERS = 64


def _check_workers(file: File) -> None:
    """Raise ValueError for what several processes cannot share."""
    if not 1 <= file.proxy.workers <= _MOST_WORKERS:
        raise ValueError(f"proxy.workers must be from 1 to {_MOST_WORKERS}")
    for key in ("ledger", "replays"):
        if getattr(file.gateway, key) == "memory:":
            raise ValueError(f"gateway.{key}: each worker would count alone: name a file or server")
    trail = file.gateway.trail
    if trail is not None and trail.count("{}") != 1:
        raise ValueError("gateway.trail: each worker has a file of its own: put {} into its name")
    port = (file.proxy.listen or "").rpartition(":")[2]
    if port and int(port) + file.proxy.workers > 65536:
        raise ValueError("proxy.listen: there are no such ports for all workers")


def _check_secret(stated: str) -> None:
    if not stated.startswith(("file:", "env:")):
        raise ValueError("a secret is file:PATH or env:NAME, and never the secret itself")


# Numbers of the table, and the least that each can be.
_LEAST = {"trail_every": 1, "overlay_every": 0, "timeout": 1, "streams": 1, "max_body": 0}


# --- services -------------------------------------------------------------------------------------


@contextmanager
def _at(place: str) -> Generator[None]:
    """Put `place` at the beginning of each error that the block raises."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"{place}: {error}") from None


def _check_name(name: str, table: str = "service") -> None:
    with _at(f"{table}.{name}"):
        names.segmented(name, "a service")
        names.name(name, "a service")
        if not name.replace("-", "").isalnum() or name != name.lower() or not name[0].isalpha():
            raise ValueError(
                "the name of a service may only have lower-case letters, digits and hyphens"
            )


# What a file says of services over HTTP alone, and of MCP servers alone.
_OF_HTTP = (
    "url", "token", "description", "operations", "headers", "idempotency", "idempotency_seconds",
    "prefixes",
)  # fmt: skip
_OF_MCP = ("tools", "asks", "free")


def _check_kind(place: str, stated: StatedService, of_others: Iterable[str], kind: str) -> None:
    """Raise ValueError for a key that a service of this kind does not have."""
    for key in of_others:
        if getattr(stated, key):
            raise ValueError(f"{place}.{key}: {kind} has no such key")


def _mcp_service(name: str, stated: StatedService, folder: Path) -> McpService:
    """A service that says `mcp`."""
    place = f"service.{name}"
    _check_kind(place, stated, _OF_HTTP, "an MCP server")
    url, command = (stated.mcp, ()) if isinstance(stated.mcp, str) else (None, stated.mcp or ())
    if stated.mcp == ():
        raise ValueError(f'{place}.mcp: an address, a command in a list, or "stdio"')
    url = None if url == "stdio" else url
    key = stated.credential
    if isinstance(key, str):
        key = StatedCredential(source=key)
    source = writer = None
    variable = ""
    if key is not None:
        with _at(f"{place}.credential"):
            source = _source(key, folder)
            if url is None:
                variable = _variable(key.place)
            else:
                writer = _writer(key, url)
    if url is not None:
        with _at(f"{place}.mcp"):
            origin_of(url)
    with _at(f"{place}.env"):
        _check_env(stated.env)
    with _at(f"{place}.free"):
        if not set(stated.free).isdisjoint({CALL, *LISTS}):
            raise ValueError("tools/call and the methods that list cannot be free")
    prices = {}
    for tool, one in stated.tools.items():
        with _at(f'{place}.tools."{tool}"'):
            prices[tool] = _cost(one)
    ca = None if stated.ca is None else str(folder / stated.ca)
    return McpService(
        name, url, command, source, writer, variable, ca, prices, stated.asks, stated.free,
        stated.env,
    )  # fmt: skip


def _audience(name: str, stated: StatedAudience, folder: Path) -> Audience:
    """Servers that ask by AuthZEN."""
    _check_name(name, "authzen")
    prices = {}
    with _at(f"authzen.{name}.secret"):
        _check_secret(stated.secret)
        source = source_of(stated.secret, 60, folder)
    for action, one in stated.tools.items():
        with _at(f'authzen.{name}.tools."{action}"'):
            prices[action] = _cost(one)
    return Audience(name, source, prices)


def _variable(place: str) -> str:
    """The variable that a server which is started has its key in."""
    kind, _, name = place.partition(":")
    if kind != "variable" or not is_token(name) or "-" in name:
        raise ValueError('a server that is started has its key in a variable: as = "variable:NAME"')
    return name


def _service(name: str, stated: StatedService, folder: Path) -> Service:
    place = f"service.{name}"
    _check_kind(place, stated, _OF_MCP, "a service over HTTP")
    if stated.url is None:
        raise ValueError(f"{place} lacks the key url, or mcp of an MCP server")
    if stated.credential is None:
        raise ValueError(f"{place} lacks the key credential")
    key = stated.credential
    if isinstance(key, str):
        key = StatedCredential(source=key)
    with _at(f"{place}.credential"):
        source = _source(key, folder)
        writer = _writer(key, stated.url)
    with _at(f"{place}.url"):
        base = _base(stated.url)
    tokens = _tokens(stated.token, key.place)
    with _at(f"{place}.token"):
        _check_tokens(tokens)
    with _at(f"{place}.headers"):
        _check_headers(stated)
    with _at(f"{place}.env"):
        _check_env(stated.env)
    with _at(f"{place}.idempotency_seconds"):
        retries_for = _retries_for(stated)
    table, left_out = _table(name, stated, folder)
    rules = HeaderRules.of(name, stated.headers, stated.prefixes, stated.idempotency)
    reserved = frozenset((writer.field,)) if writer.field else frozenset[str]()
    with _at(f"{place}.credential"):
        _check_place(table, rules, writer)
    return Service(
        name,
        stated.url,
        table,
        Reading(table, rules, base, reserved),
        source,
        writer,
        tokens,
        None if stated.ca is None else str(folder / stated.ca),
        stated.links,
        stated.errors == "object",
        retries_for,
        stated.env,
        left_out,
        stated.answers == "unseen",
    )


def _source(stated: StatedCredential, folder: Path) -> Source:
    """Where a key comes from. Who asks a server is loaded where one is stated."""
    if stated.source.partition(":")[0] not in ISSUED:
        return source_of(stated.source, stated.life, folder)
    from captoken.adapters._gateway.issued import issued_of

    return issued_of(stated, folder)


def _writer(stated: StatedCredential, url: str) -> Writer:
    """Where a key is written."""
    if not stated.place.startswith("sigv4:"):
        return writer_of(stated.place, stated.user)
    from captoken.adapters._gateway.signed import SigV4Writer

    return SigV4Writer(stated.place, url)


def _base(url: str) -> list[str]:
    """Return the path that precedes all paths of a service, decoded."""
    origin_of(url)
    path = urlsplit(url).path
    try:
        segments = path_segments(path.encode("ascii")) if path.strip("/") else []
    except RequestError as problem:
        raise ValueError(problem.text) from None
    return segments[:-1] if segments[-1:] == [""] else segments


def _tokens(stated: str | tuple[str, ...] | None, place: str) -> tuple[str, ...]:
    """Where a service's clients put the token. They put it where its key stands, unless said."""
    if isinstance(stated, str):
        return (stated,)
    if stated is not None:
        return stated
    is_header = place.partition(":")[0] in ("basic", "scheme", "header")
    return ("bearer", place) if is_header else ("bearer",)


def _check_tokens(tokens: tuple[str, ...]) -> None:
    for each in tokens:
        kind, _, name = each.partition(":")
        is_named = kind in ("scheme", "header") and is_token(name)
        if each not in ("bearer", "basic") and not is_named:
            raise ValueError("tokens must be bearer, basic, scheme:NAME or header:NAME")


def _check_env(env: dict[str, str]) -> None:
    for name, value in env.items():
        rest = value.replace("{token}", "").replace("{address}", "")
        if not is_token(name) or not rest.isprintable() or "{" in rest or "}" in rest:
            raise ValueError(
                f"{name!r}: a variable's value may contain {{token}} or {{address}}, and no other "
                "brace"
            )


def _check_headers(stated: StatedService) -> None:
    for name, what in stated.headers.items():
        if not is_token(name) or not what.isascii() or not what.isprintable():
            raise ValueError(
                f"{name!r} is not the name of a header, or its value is not visible ASCII"
            )
        if what != what.strip():
            raise ValueError(f"{name!r} begins or ends with a space: use visible ASCII there")
    check_headers((*stated.headers, *filter(None, [stated.idempotency])))


# A ledger has to forget a request before the service does: then it is done again, and counts again.
_CLOCKS_AND_LEDGERS = 300
_SHORTEST, _LONGEST = 600, 30 * 86_400


def _retries_for(stated: StatedService) -> int | None:
    """How long a retry counts as the same request. Raises ValueError."""
    seconds = stated.idempotency_seconds
    if seconds is None:
        return None
    if stated.idempotency is None or not _SHORTEST <= seconds <= _LONGEST:
        span = f"from {_SHORTEST} to {_LONGEST} seconds"
        raise ValueError(f"{span}, beside the header in `idempotency`")
    return seconds - _CLOCKS_AND_LEDGERS


def _check_place(table: Table, rules: HeaderRules, writer: Writer) -> None:
    """Raise ValueError where a client could put something in the place of the key."""
    fixed = (*rules.arguments, *rules.fixed, rules.idempotency or None)
    if writer.header.encode() in fixed or any(
        writer.header in each.headers or writer.field in each.query.members
        for each in table.operations.values()
    ):
        raise ValueError("an operation puts an argument where the key of the service goes")


def _table(name: str, stated: StatedService, folder: Path) -> tuple[Table, dict[str, str]]:
    """The operations of a service: of its description, with what the file says beside it."""
    found: dict[str, Operation] = {}
    left_out: dict[str, str] = {}
    if stated.description is not None:
        with _at(f"service.{name}.description"):
            of_it, left_out = described(load(str(folder / stated.description)), name, stated.lists)
        found = {each.tool: each for each in of_it}
    for called, one in stated.operations.items():
        tool = f"{name}.{called}"
        with _at(f'service.{name}.operations."{called}"'):
            if one.request is not None:
                found[tool] = _operation(tool, one.request, one, stated.lists)
            elif tool in found:
                found[tool] = _with_said(found[tool], one)
            else:
                raise ValueError("no description has this operation: write its request")
    table = Table(())
    # What the file says comes first: of two that are one request, the other one is left out.
    by_file = {tool for tool in found if tool.removeprefix(f"{name}.") in stated.operations}
    for tool in sorted(found, key=lambda each: each not in by_file):
        try:
            table.add(made(found[tool]))
        except ValueError as error:
            why = str(error).removeprefix(f"{tool}: ")
            if tool in by_file:
                called = tool.removeprefix(f"{name}.")
                raise ValueError(f'service.{name}.operations."{called}": {why}') from None
            left_out[found[tool].request] = why
    return table, left_out


def _operation(tool: str, request: str, one: StatedOperation, lists: str) -> Operation:
    """An operation that the file states."""
    method, _, path = request.partition(" ")
    if method not in METHODS:
        raise ValueError(
            f'request must be a method and a path, like "POST /v1/refunds", not {request!r}'
        )
    with _at("request"):
        template = template_of(path)
    body: dict[str, Shape] = {}
    if one.form is not None:
        body[FORM] = _members(one.form, "form", one.more)
    if one.json is not None:
        shape = shape_of(one.json, "json")
        body[JSON] = Members(shape.members, one.more) if isinstance(shape, Members) else shape
    return Operation(
        tool=tool,
        method=method,
        template=template,
        path=path_shapes(template, _path(one)),
        query=_members(one.query, "query", one.more) if one.query or one.more else NOTHING,
        headers={header.lower(): header for header in one.headers},
        body=body,
        opaque=one.opaque,
        cost=_cost(one),
        lists=one.lists or lists,
    )


def _path(one: StatedOperation) -> dict[str, Scalar]:
    """The types of parameters in the path."""
    for name, kind in one.path.items():
        if kind not in (*KINDS, SEGMENTS.kind) or kind == "any":
            raise ValueError(
                f"path.{name} must be string, integer, int64, number, boolean or segments"
            )
    return {name: Scalar(kind) for name, kind in one.path.items()}


def _members(stated: dict[str, Any], place: str, more: bool) -> Members:
    shape = shape_of(stated, place)
    return Members(shape.members if isinstance(shape, Members) else {}, more)


def _cost(one: StatedOperation | StatedTool) -> dict[str, Price]:
    found = {}
    for unit, said in one.cost.items():
        names.name(unit, "a unit")
        match said:
            case int() if said >= 0:
                found[unit] = Price(amount=said)
            case str():
                found[unit] = Price(argument=said)
            case StatedPrice() if said.times > 0:
                found[unit] = Price(argument=said.argument, times=said.times)
            case _:
                raise ValueError(
                    f"cost.{unit} must be 0 or more, an argument, or a table of the two"
                )
    return found


def _with_said(operation: Operation, one: StatedOperation) -> Operation:
    """An operation of the description, with what the file says of it."""
    from msgspec import structs

    said = structs.replace(
        operation,
        path=path_shapes(operation.template, {**operation.path, **_path(one)}),
        query=Members({**operation.query.members, **_members(one.query, "query", False).members}),
        headers={**operation.headers, **{name.lower(): name for name in one.headers}},
        opaque=one.opaque,
        cost=_cost(one),
        lists=one.lists or operation.lists,
    )
    if not one.more:
        return said
    body = {
        kind: Members(shape.members, True) if isinstance(shape, Members) else shape
        for kind, shape in said.body.items()
    }
    return structs.replace(said, query=Members(said.query.members, True), body=body)


# --- keys and stores ------------------------------------------------------------------------------


class Opened(NamedTuple):
    """What a gateway decides by, and a function that makes the verifier of a service."""

    verifier: Callable[[str], AsyncVerifier]
    ledger: Any

    # What is read again while it runs.
    kept: Kept

    # Closes connections to servers, in the event loop that they are of.
    closing: tuple[Callable[[], Awaitable[None]], ...]

    async def aclose(self) -> None:
        """Close the connections to servers of stores: when the event loop ends that they serve."""
        for close in self.closing:
            await close()


class _How(NamedTuple):
    """How stores that are files are opened."""

    create: bool
    readonly: bool


@contextmanager
def stores(
    found: Configuration, *, create: bool = False, readonly: bool = False, worker: int = 0
) -> Generator[Opened]:
    """Keys and stores of a file, opened; with `create`, its files are made, where they are not.

    `worker`: of several processes, the number of this one. Each has a trail of its own.

    With `readonly` nothing is written, and the trail is not opened: for a dry run, beside a gateway
    that runs.

    Raises what opening them raises: KeyringError, StoreError, AuditError, ValueError.
    """
    stated = found.file.gateway
    keyring = KeyringFile(found.folder / stated.keyring)
    if not readonly:
        _tell_of_others(found, keyring().audience)
    how = _How(create, readonly)
    with ExitStack() as stack:
        ledger = _store(
            found, stated.ledger, SQLiteLedger, MemoryLedger, how, stack, shared=stated.shared
        )
        replays = _store(found, stated.replays, SQLiteReplayStore, MemoryReplayStore, how, stack)
        trail = None
        path = found.trail_of(worker)
        if path is not None and not readonly:
            key = stated.trail_key
            signing = None if key is None else AuditKey.load(found.folder / key)
            # Each request needs its record: while the file does not take it, none goes on anyway.
            kept = TrailKept(path, key=signing, waits=False)
            trail = stack.enter_context(kept)
        recorder: Any = trail
        if stated.spans and not readonly:
            recorder = _with_spans(trail)
        feed = None
        if stated.overlay is not None:
            snapshots = SQLiteSnapshots(found.folder / stated.overlay, readonly=True)
            stack.callback(snapshots.close)
            feed = Feed(snapshots, stated.operators, every=stated.overlay_every)

        def verifier(service: str) -> AsyncVerifier:
            with quietly():  # it answers for all its services, by the one file that it is given
                return AsyncVerifier(
                    keyring, service, ledger=ledger, replays=replays, audit=recorder, overlay=feed
                )

        awaited = [store.aclose for store in (ledger, replays) if hasattr(store, "aclose")]
        yield Opened(
            verifier, ledger, Kept(keyring, trail, stated.trail_every), tuple(awaited)
        )


def _tell_of_others(found: Configuration, audience: str | None) -> None:
    """Log it where the keys are those of one service, and the file has others: once, at the start.

    Keys of one server are good for its own tokens alone, so all others are denied.
    """
    others = unserved(found, audience)
    if others:
        log().warning(
            "the keyring has the keys of %s alone: each token for %s is denied, unknown_key",
            audience,
            ", ".join(others),
        )


def unserved(found: Configuration, audience: str | None) -> list[str]:
    """The services whose tokens keys for that audience do not verify."""
    return [] if audience is None else sorted({*found.file.audiences} - {audience})


def _with_spans(trail: TrailKept | None) -> Any:
    """The trail, with a span of each decision before it. Where spans go is said around us."""
    with extra("otel"):
        from opentelemetry.trace import get_tracer

    from captoken.adapters.otel import SpanTrail

    return SpanTrail(get_tracer("captoken.gateway"), trail)


# Kinds of stores that are no files of this machine.
ON_SERVER = ("postgresql", "valkey", "valkeys")


def file_of(url: str) -> str:
    """The file of a store that is one, as the file of the gateway names it."""
    return url.removeprefix("sqlite:")


def _store(
    found: Configuration,
    url: str | None,
    kind: Any,
    in_memory: Any,
    how: _How,
    stack: ExitStack,
    **facts: Any,
) -> Any:
    """A ledger or a store of proofs, by what the file says of it; None for none."""
    if url is None:
        return None
    scheme = url.partition(":")[0]
    if url == "memory:":
        return in_memory(**facts)
    if scheme in ON_SERVER:
        return _on_server(url, scheme, kind is SQLiteLedger, how, stack, facts)
    path = found.folder / file_of(url)
    is_new = how.create and not path.exists()
    store = kind.create(path, **facts) if is_new else kind(path, readonly=how.readonly, **facts)
    stack.callback(store.close)
    return store


def _on_server(
    url: str, scheme: str, counts: bool, how: _How, stack: ExitStack, facts: dict[str, Any]
) -> Any:
    """Open a store on a server, where it already exists.

    A dry run waits for the server's answers.
    """
    kinds: tuple[Any, Any]
    source: Any = url
    if scheme == "postgresql":
        from captoken.stores import postgres

        kinds = (postgres.AsyncPostgresLedger, postgres.AsyncPostgresReplayStore)
        if how.readonly:
            kinds = (postgres.PostgresLedger, postgres.PostgresReplayStore)
    else:
        with extra("valkey"):
            import valkey.asyncio
        from captoken.stores import valkey as ours

        kinds = (ours.AsyncValkeyLedger, ours.AsyncValkeyReplayStore)
        source = (valkey.Valkey if how.readonly else valkey.asyncio.Valkey).from_url(url)
        if how.readonly:
            kinds = (ours.ValkeyLedger, ours.ValkeyReplayStore)
    store: Any = kinds[0 if counts else 1](source, **facts)
    if how.readonly:
        stack.callback(store.close)
    return store
