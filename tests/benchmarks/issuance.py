"""What an exchange costs: `python -m tests.benchmarks.issuance`. Prints each measure beside its bar; not a test.

An exchange is an ID token and a JWT-SVID in, each another one each time, and out a task, narrowed, as a text for one server. It is measured in this
process, by the application itself, with the tasks in memory, in an SQLite file and in PostgreSQL; then over loopback, by uvicorn in a process of its
own. Processor time is all that this process uses, with its threads; that of PostgreSQL is not in it. Data lies in memory where there is a folder for
that; `--disk` puts it on the disk, where a commit waits for it. `--profile` shows where the time goes, with the tasks in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import http.client
import json
import multiprocessing
import os
import pstats
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import urlencode

import psycopg

from captoken import Access, Keyring, Token, Verifier
from captoken.adapters.issuance import IssuanceService
from captoken.control import Operator, Overlay
from captoken.issuance.keys import ProviderKeys
from captoken.issuance.policy import Policy, read
from captoken.issuance.registry import MemoryRegistry
from captoken.issuance.registry.postgres import WITH_REGISTRY, PostgresRegistry
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.keys import OperatorKey
from captoken.stores.postgres import create_tables
from captoken.stores.sqlite import SQLiteSnapshots
from tests.issuance.signing import Provider, spelled
from tests.stores import servers

TIMES = 400  # exchanges that a measure is of
ROUNDS = 10  # that they are parted into
WARM = 40  # before it
AT_ONCE = 32
ORIGIN = "https://issuer.example"
ACME, MESH = Provider("a"), Provider("m")
SIGNERS = {"acme": ACME, "mesh": MESH}
KEYRING = Keyring.generate()
SERVERS = ("sales-db", "scratch-db")
AGENTS = ("reader", "analyst", "auditor", "writer", "editor", "publisher")

POLICY = """
version = 1
[service]
origin = "https://issuer.example"
per_minute = 10000000
[provider.acme]
kind = "oidc"
issuer = "https://login.acme.example"
client_ids = ["captoken-cli"]
max_login_age = 28800
subject = "acme:{sub}"
[provider.mesh]
kind = "spiffe"
trust_domain = "acme.example"
bundle = "/run/bundle.json"
[resource.sales-db]
[resource.scratch-db]
[grant.report]
subject = { provider = "acme", groups = ["finance"], acr = ["mfa"] }
actor = { provider = "mesh", sub = "spiffe://acme.example/ns/risk/*" }
agents = ["orchestrator"]
resources = ["sales-db", "scratch-db"]
tasks = { live = 1000000 }
[grant.report.give]
allow = { "sales" = ["select"], "market.*" = ["select"], "scratch.results" = ["insert", "select"] }
columns = { "sales" = ["amount", "region"] }
expires_in = 900
depth = 3
"""

DETAILS = json.dumps([{"type": "captoken", "agent": "orchestrator", "task": "q3", "tables": ["sales"], "operations": ["select"]}])
_numbers = count()


def loaded() -> Policy:
    return read(POLICY)


def login(sub: str) -> str:
    now = int(time.time())
    return ACME.sign(
        {
            "iss": "https://login.acme.example", "sub": sub, "aud": "captoken-cli", "iat": now - 5, "exp": now + 1800, "auth_time": now - 60,
            "groups": ["finance"], "acr": "mfa", "sid": f"s-{sub}", "jti": str(next(_numbers)),
        }
    )  # fmt: skip


def svid(kid: str | None = None) -> str:
    now = int(time.time())
    claims = {"sub": "spiffe://acme.example/ns/risk/sa/orchestrator", "aud": [ORIGIN], "iat": now - 5, "exp": now + 1800, "jti": str(next(_numbers))}
    return MESH.sign(claims, **({} if kid is None else {"kid": kid}))


def form(sub: str = "", resource: str = "sales-db", held: bool = False, kid: str | None = None) -> bytes:
    asked = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": login(sub or f"person{next(_numbers) % 500}"),
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "client_assertion": svid(kid),
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "scope": "report",
        "resource": resource,
        "authorization_details": DETAILS,
    }
    if held:
        asked["requested_token_type"] = "urn:captoken:token-type:root"
        asked["authorization_details"] = json.dumps([{"type": "captoken", "agent": "orchestrator", "task": "q3"}])
    return urlencode(asked).encode()


class Made(NamedTuple):
    """A service, and how often its providers were asked for keys."""

    app: IssuanceService
    fetches: list[str]


def service(registry: Any, clock: Callable[[], float] = time.monotonic, **facts: Any) -> Made:
    fetches: list[str] = []
    policy = loaded()

    def source(name: str) -> Callable[[], Any]:
        async def fetch() -> bytes:
            fetches.append(name)
            return SIGNERS[name].jwks(**({"use": "jwt-svid"} if name == "mesh" else {}))

        return fetch

    keys = ProviderKeys(policy, sources={name: source(name) for name in policy.providers}, clock=clock)
    return Made(IssuanceService(policy, KEYRING, registry, keys=keys, **facts), fetches)


async def posted(app: Any, path: str, body: bytes) -> tuple[int, Any]:
    """The application's answer, without a server or a client between."""
    scope = {
        "type": "http", "method": "POST", "path": path, "query_string": b"",
        "headers": [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", b"%d" % len(body))],
    }  # fmt: skip
    came: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        came.append(message)

    await app(scope, receive, send)
    text = b"".join(message.get("body", b"") for message in came[1:])
    return came[0]["status"], json.loads(text) if text else None


def told(what: str, is_it: str, bar: str) -> None:
    print(f"{what:<46}{is_it:>32}   bar {bar}")


def a_second(took: list[float]) -> str:
    """Of a machine with other work, the best round says what there is without it."""
    return f"{1 / median(took):,.0f}, at best {1 / min(took):,.0f} a second"


# --- in this process -------------------------------------------------------------------------------------------------


async def exchanged(app: IssuanceService, forms: list[bytes], at_once: int = 1) -> None:
    waiting = iter(forms)

    async def run() -> None:
        for body in waiting:
            status, said = await posted(app, "/token", body)
            assert status == 200, said

    await asyncio.gather(*(run() for _ in range(at_once)))


def exchanges(name: str, registry: Any, profile: bool = False) -> None:
    """Prints the processor time of an exchange, and how many there are in a second."""
    app, _ = service(registry)
    warm = [form() for _ in range(WARM)]
    rounds = [[form() for _ in range(TIMES // ROUNDS)] for _ in range(2 * ROUNDS)]

    async def run() -> tuple[list[float], list[float], list[float]]:
        await exchanged(app, warm)
        used: list[float] = []
        alone: list[float] = []
        together: list[float] = []
        for number, forms in enumerate(rounds):
            begun, before = time.perf_counter(), time.process_time()
            await exchanged(app, forms, AT_ONCE if number % 2 else 1)
            took = (time.perf_counter() - begun) / len(forms)
            (together if number % 2 else alone).append(took)
            if number % 2 == 0:
                used.append((time.process_time() - before) / len(forms))
        return used, alone, together

    watch = cProfile.Profile()
    if profile:
        watch.enable()
    used, alone, together = asyncio.run(run())
    watch.disable()
    told(f"{name}: processor time of an exchange", f"{median(used) * 1e3:.2f} ms", "1.5 ms")
    told(f"{name}: one after the other", a_second(alone), "500 a second")
    told(f"{name}: {AT_ONCE} at once", a_second(together), "500 a second")
    if profile:
        pstats.Stats(watch).sort_stats("cumtime").print_stats(60)


@contextmanager
def registries() -> Iterator[Iterator[tuple[str, Any]]]:
    """Each in turn, and nothing is left."""
    folder = Path(servers.folder())

    def each() -> Iterator[tuple[str, Any]]:
        yield "memory", MemoryRegistry(floor=0)
        with closing(SQLiteRegistry.create(folder / "tasks.db", floor=0)) as file:
            yield "SQLite", file
        server = servers.Postgres()
        try:
            with psycopg.connect(server.conninfo) as connection:
                create_tables(connection, tables=WITH_REGISTRY)
            with closing(PostgresRegistry.create(server.conninfo, floor=0)) as database:
                yield "PostgreSQL", database
        finally:
            server.stop()

    try:
        yield each()
    finally:
        shutil.rmtree(folder)


# --- over loopback ---------------------------------------------------------------------------------------------------


def serve(listening: socket.socket, keys: dict[str, bytes]) -> None:
    """In a process of its own: the keys of the providers are those of the process that asks."""
    import uvicorn

    policy = loaded()

    def source(name: str) -> Callable[[], Any]:
        async def fetch() -> bytes:
            return keys[name]

        return fetch

    sources = {name: source(name) for name in keys}
    app = IssuanceService(policy, KEYRING, MemoryRegistry(floor=0), keys=ProviderKeys(policy, sources=sources))
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])


def over_loopback() -> None:
    """Prints how long a client waits for an exchange."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    port = listening.getsockname()[1]
    keys = {"acme": ACME.jwks(), "mesh": MESH.jwks(use="jwt-svid")}
    serving = multiprocessing.get_context("spawn").Process(target=serve, args=(listening, keys), daemon=True)
    serving.start()
    try:
        forms = [form() for _ in range(WARM + TIMES)]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        took: list[float] = []
        for body in forms:
            begun = time.perf_counter()
            connection.request("POST", "/token", body, {"content-type": "application/x-www-form-urlencoded"})
            answer = connection.getresponse()
            text = answer.read()
            took.append(time.perf_counter() - begun)
            assert answer.status == 200, text
        connection.close()
    finally:
        serving.terminate()
        serving.join()
        listening.close()
    told("loopback, uvicorn: the median client waits", f"{median(took[WARM:]) * 1e3:.2f} ms", "3 ms")


# --- what is fetched, what ends, who is asked ------------------------------------------------------------------------


def fetches() -> None:
    """Prints how often providers are asked. No time passes for the keys: each five seconds could be one fetch more."""
    app, asked = service(MemoryRegistry(floor=0), clock=lambda: 0.0)

    async def run() -> tuple[int, int]:
        await exchanged(app, [form()])
        asked.clear()
        await exchanged(app, [form() for _ in range(1000)], AT_ONCE)
        known = len(asked)

        # The same text with another kid each time: what is wrong with it shows before its signature is looked at.
        strange = form(kid="strange0000")
        header = svid("strange0000").split(".")[0].encode()
        for number in range(10_000):
            other = svid_header(f"strange{number:04}")
            status, _ = await posted(app, "/token", strange.replace(header, other))
            assert status == 401
        return known, len(asked) - known

    known, unknown = asyncio.run(run())
    told("keys fetched in 1,000 exchanges", str(known), "0")
    told("keys fetched for 10,000 unknown kids in 5 s", str(unknown), "1")


def svid_header(kid: str) -> bytes:
    return spelled({"alg": "ES256", "kid": kid}).encode()


def logout() -> None:
    folder = Path(servers.folder())
    key = OperatorKey.generate()
    store = SQLiteSnapshots.create(folder / "overlay.db")
    operator = Operator(key, store, by="issuer")
    operator.renew()
    app, _ = service(SQLiteRegistry.create(folder / "tasks.db", floor=0), operator=operator)

    async def run() -> float:
        _, said = await posted(app, "/token", form("jane"))
        now = int(time.time())
        event = {"http://schemas.openid.net/event/backchannel-logout": {}}
        claims = {"iss": "https://login.acme.example", "aud": "captoken-cli", "iat": now, "exp": now + 120, "jti": "l1", "sid": "s-jane", "events": event}
        body = urlencode({"logout_token": ACME.sign(claims, typ="logout+jwt")}).encode()
        begun = time.perf_counter()
        status, _ = await posted(app, "/logout/backchannel", body)
        assert status == 200
        while not any(entry.select.task == said["task"] for entry in Overlay.open(store.load() or b"", [key.public]).entries):
            await asyncio.sleep(0.001)
        took = time.perf_counter() - begun
        await app._ends.publisher.close()
        return took

    took = asyncio.run(run())
    shutil.rmtree(folder)
    told("from the logout to the overlay", f"{took * 1e3:.1f} ms", "1,000 ms")


def round_trips() -> None:
    """One root for each server; six agents below each are narrowed offline, and present offline."""
    app, _ = service(MemoryRegistry(floor=0))
    asked = 0

    async def root(resource: str) -> Token:
        nonlocal asked
        asked += 1
        status, said = await posted(app, "/token", form("jane", resource, held=True))
        assert status == 200, said
        return Token.parse(said["access_token"])

    held = {name: asyncio.run(root(name)) for name in SERVERS}
    begun = time.perf_counter()
    texts = [
        (name, held[name].delegate(to=agent, tables=["sales"], operations=["select"], expires_in=300).present(audience=name))
        for agent in AGENTS
        for name in SERVERS
    ]
    took = time.perf_counter() - begun
    access = Access(table="sales", operation="select", columns=["amount"])
    for name, text in texts:
        assert Verifier(KEYRING.for_audience(name), name).check(text, access)
    told("round trips, six agents at two servers", f"{asked}, then {len(texts)} in {took * 1e3:.1f} ms", "2 (token exchange: 12)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--disk", action="store_true", help="data on the disk, and not in memory")
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    options = parser.parse_args()
    if options.disk:
        servers.MEMORY = ()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    if options.profile:
        return exchanges("memory", MemoryRegistry(floor=0), profile=True)
    with registries() as each:
        for name, registry in each:
            exchanges(name, registry)
    over_loopback()
    fetches()
    logout()
    round_trips()
    print(f"load {os.getloadavg()[0]:.1f}")
    return None


if __name__ == "__main__":
    main()
