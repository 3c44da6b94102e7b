"""The file of a gateway, as it is written: TOML, read into typed values.

    version = 1
    [gateway]
    keyring = "keyring.json"
    ledger = "ledger.db"
    [service.payments]
    url = "https://payments.example"
    credential = "env:PAYMENTS_KEY"
    [service.payments.operations."refunds.create"]
    request = "POST /v1/refunds"
    form = { charge = "string", amount = "integer" }
    cost = { usd_cents = "amount" }

What is unknown is refused, with its line and what may have been meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from captoken._format.located import located
from captoken._format.shapes import fit
from captoken._format.toml import read_toml
from captoken._language.bounds import BODY_BYTES

# The files that come with the package, by the name of the service.
SHIPPED: Final = ("github", "s3", "stripe")


class _Stated(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file. What it does not know is refused."""


class StatedGateway(_Stated, frozen=True):
    """The gateway itself: its keys and stores, and how much it takes at once."""

    # A file of root keys, or of the keys of its services alone.
    keyring: str

    # Where clients reach it. Proofs are made for it, and addresses in answers begin with it.
    origin: str | None = None
    listen: str = "127.0.0.1:8790"

    # Where uses, budgets and proofs are counted: a file, `memory:`, postgresql://… or valkey://….
    ledger: str | None = None
    replays: str | None = None

    # Do all servers that take these tokens count there?
    shared: bool = False
    trail: str | None = None

    # Who signs it, and after how many seconds at most.
    trail_key: str | None = None
    trail_every: int = 60

    # Is a span of OpenTelemetry made of each decision?
    spans: bool = False

    # The place of the operator's newest snapshot, and the keys that may sign it.
    overlay: str | None = None
    operators: tuple[str, ...] = ()

    # The seconds between two looks at the overlay.
    overlay_every: int = 5

    # The longest body in bytes, the most responses at once, and the longest wait in seconds.
    max_body: int = BODY_BYTES
    streams: int = 200
    timeout: int = 60

    # Who logs people in for these services, by address, and whether clients are told what a person
    # could allow after all.
    authorization_servers: tuple[str, ...] = ()
    step_up: bool = False


class StatedProxy(_Stated, frozen=True):
    """Where a proxy asks, and by what it is known."""

    # A socket of this machine, which its owner alone can open, and that group.
    socket: str = "proxy.sock"
    group: str | None = None

    # In its place an address, HOST:PORT, for which one of the two below is needed.
    listen: str | None = None

    # A secret that the proxy sends along: `file:PATH` or `env:NAME`.
    secret: str | None = None

    # How many processes of `captoken gateway processor` answer, each at an address of its own: at
    # `proxy-0.sock` and so on, or at as many ports from that of `listen` on.
    workers: int = 1

    # Files of PEM: of ours, and of who signs the proxy's certificate.
    certificate: str | None = None
    key: str | None = None
    ca: str | None = None


class StatedCredential(_Stated, frozen=True):
    """The key of a service: where it comes from, and where it stands in a request."""

    source: str = msgspec.field(name="from")
    place: str = msgspec.field(name="as", default="bearer")

    # The name before the colon, where it is the password of Basic.
    user: str = ""

    # Seconds that one is good for, where whoever gives it does not say that.
    life: int = 60

    # OAuth: our name and secret there, the file of a refresh token, a token to be exchanged, and
    # what else is said when one is asked for. What is secret is said as `from` says it.
    client: str = ""
    secret: str | None = None
    refresh: str | None = None
    subject: str | None = None
    ask: dict[str, str] = {}

    # OpenBao's address, whose token `secret` is.
    url: str = ""

    # A file of certificates, by which whoever gives it is known. The system's, unless said.
    ca: str | None = None


class StatedPrice(_Stated, frozen=True):
    """So many times what an argument says."""

    argument: str
    times: int = 1


class StatedOperation(_Stated, frozen=True):
    """An operation, or what is to be said of one that the description has."""

    # Method and path. Left out, it is one of the description.
    request: str | None = None
    path: dict[str, str] = {}
    query: dict[str, Any] = {}
    headers: tuple[str, ...] = ()
    form: dict[str, Any] | None = None
    json: Any = None
    opaque: tuple[str, ...] = ()
    cost: dict[str, int | str | StatedPrice] = {}

    # Are parameters taken that are not listed?
    more: bool = False
    lists: Literal["repeat", "brackets", "indices"] | None = None


class StatedTool(_Stated, frozen=True):
    """What is to be said of a tool of an MCP server."""

    cost: dict[str, int | str | StatedPrice] = {}


class StatedAudience(_Stated, frozen=True):
    """Servers of others, which ask by AuthZEN: how they are known, and what an action costs."""

    # A secret that whoever asks sends as a bearer token: `file:PATH` or `env:NAME`.
    secret: str

    # By type and name of the action, as `record.refund`: the cost of one.
    tools: dict[str, StatedTool] = {}


class StatedService(_Stated, frozen=True):
    """A service that is not ours, its key, and what may be asked of it."""

    # The address of a service over HTTP, or in its place `mcp`, of an MCP server: its address, the
    # command that starts it, or "stdio" for one that the command line names.
    url: str | None = None
    mcp: str | tuple[str, ...] | None = None

    # An MCP server may need none.
    credential: str | StatedCredential | None = None

    # Of an MCP server: what calls of its tools cost, what it may ask of its client, and methods
    # that any genuine token may use.
    tools: dict[str, StatedTool] = {}
    asks: tuple[Literal["sampling", "elicitation", "roots"], ...] = ()
    free: tuple[str, ...] = ()

    # The place where clients put the service's API key, and so the agent's token. The default is
    # Bearer, and the place where the credential is written.
    token: str | tuple[str, ...] | None = None

    # An OpenAPI description: a file of JSON or YAML.
    description: str | None = None
    operations: dict[str, StatedOperation] = {}

    # The handling of headers that clients send: "argument", "drop", or a fixed value.
    headers: dict[str, str] = {}

    # The service's idempotency header. The value that is sent is derived from the agent's.
    idempotency: str | None = None

    # How long the service remembers such a key, in seconds. Within it, a retry of a POST counts
    # once.
    idempotency_seconds: int | None = None

    # The prefixes of the service's own headers, besides its name.
    prefixes: tuple[str, ...] = ()
    lists: Literal["repeat", "brackets", "indices"] = "repeat"

    # "unseen": a proxy may send requests that were asked about, whose answers nobody looks through.
    answers: Literal["seen", "unseen"] = "seen"

    # Whether clients follow addresses in JSON responses. These are changed to the gateway's.
    links: bool = False

    # The form of `error` in a refusal that clients expect: a text (RFC 6750), or an object.
    errors: Literal["text", "object"] = "text"

    # What a command has in its environment: `{token}` and `{address}` stand in the values.
    env: dict[str, str] = {}

    # A file of certificates, by which it is known. The system's, unless said.
    ca: str | None = None


class File(_Stated, frozen=True):
    """The file as a whole."""

    version: Literal[1]
    gateway: StatedGateway
    service: dict[str, StatedService] = {}
    proxy: StatedProxy = StatedProxy()
    authzen: dict[str, StatedAudience] = {}

    @property
    def audiences(self) -> list[str]:
        """Each name that tokens are presented for: of services, and of servers that ask."""
        return [*self.service, *self.authzen]


def read(path: str) -> File:
    """The file at a path, by its types alone. Raises ValueError, with file and line; OSError."""
    raw = Path(path).read_bytes()
    with located(path, raw, File, also=_ALSO):
        tables = read_toml(raw)
        for name, service in _services(tables):
            with_shipped(name, service)
        return fit(tables, File)


# Keys that a service has in the file alone: they are put in its place while it is read.
_ALSO = {2: ("uses",)}


def _services(tables: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    services = tables.get("service")
    if not isinstance(services, dict):
        return ()
    return [(name, each) for name, each in services.items() if isinstance(each, dict)]


def with_shipped(name: str, service: dict[str, Any]) -> None:
    """Put in what a file of the package says, where the service `uses` one and does not say it."""
    shipped = service.pop("uses", None)
    if shipped is None:
        return
    if shipped not in SHIPPED:
        raise ValueError(f"service.{name}.uses must be one of {', '.join(SHIPPED)}")
    folder = resources.files("captoken.adapters._gateway").joinpath("services")
    for key, value in read_toml(folder.joinpath(f"{shipped}.toml").read_bytes()).items():
        service[key] = _over(value, service[key]) if key in service else value


def _over(shipped: Any, own: Any) -> Any:
    """Merge the service's own settings over those of the package. Tables are merged key by key.

    An operation that says which request it is stands by itself.
    """
    if not isinstance(shipped, dict) or not isinstance(own, dict) or "request" in own:
        return own
    return {**shipped, **{key: _over(shipped.get(key), value) for key, value in own.items()}}
