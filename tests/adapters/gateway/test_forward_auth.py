"""What a proxy is answered that asks whether a request may pass, and what a stranger is. Real proxies ask in test_gateway_forward_auth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from captoken import AsyncVerifier, Issuer, Keyring
from captoken.adapters._gateway import asking_proxies
from captoken.adapters.gateway import Gateway, configured
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from tests.adapters.gateway_echo import KEY
from tests.adapters.serving import listening, served

SECRET = "s" * 40
FILE = """version = 1
[gateway]
keyring = "keyring.json"
origin = "https://gateway.example"
[proxy]
secret = "file:proxy.secret"
[service.shop]
url = "https://shop.example/base"
credential = "file:key"
answers = "unseen"
headers = { "Shop-Version" = "7", "Shop-Account" = "argument" }
idempotency = "Idempotency-Key"
[service.shop.operations."items.get"]
request = "GET /v1/items/{id}"
query = { q = "string" }
[service.shop.operations."items.create"]
request = "POST /v1/items"
form = { name = "string" }
[service.shop.operations."items.put"]
request = "PUT /v1/items/{id}"
opaque = ["image/png"]
[service.seen]
url = "https://seen.example"
credential = "file:key"
[service.seen.operations."items.get"]
request = "GET /v1/items/{id}"
"""


class World:
    def __init__(self, folder: Path, more: str = "") -> None:
        for name, text in (("key", KEY), ("proxy.secret", SECRET)):
            (folder / name).touch(0o600)
            (folder / name).write_text(text)
        self.folder = folder
        (folder / "gateway.toml").write_text(FILE + more)
        self.keyring = Keyring.generate()
        self.found = configured(str(folder / "gateway.toml"))
        facts = {"ledger": MemoryLedger(floor=0), "replays": MemoryReplayStore(floor=0)}
        self.gateway = Gateway(self.found, {name: AsyncVerifier(self.keyring, name, **facts) for name in self.found.file.service})
        self.origin = ""

    def token(self, audience: str = "shop", **more: Any) -> Any:
        return Issuer(self.keyring).mint(subject="user:jane", agent="a", task="t", audience=audience, tools={f"{audience}.*": {}}, **more)

    def ask(self, target: str = "/shop/v1/items/7", method: str = "GET", *, at: str = "", token: str | None = None, body: bytes = b"", **headers: str) -> httpx.Response:
        shown = str(self.token().present(audience="shop")) if token is None else token
        sent = {"X-Captoken-Proxy": SECRET, "X-Forwarded-Method": method, "X-Forwarded-Uri": target, "Authorization": f"Bearer {shown}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        with httpx.Client(trust_env=False) as client:
            kept = {name: value for name, value in sent.items() if value != "NONE"}
            return client.request("GET", f"{self.origin}/.captoken/authorize{at}", headers=kept, content=body)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with served(made.gateway, listening(), lifespan="on") as made.origin:
        yield made


def test_the_proxy_is_told_what_to_send(world: World) -> None:
    answer = world.ask("/shop/v1/items/%37?q=a%2Bb", Shop_Account="acct_1", Shop_Version="9", Accept="text/html;q=1, */*", Idempotency_Key="k")
    assert answer.status_code == 200 and answer.content == b""
    assert answer.headers["x-captoken-uri"] == "/base/v1/items/7?q=a%2Bb"
    assert answer.headers["authorization"] == f"Bearer {KEY}"
    assert (answer.headers["shop-account"], answer.headers["shop-version"], answer.headers["accept"]) == ("acct_1", "7", "text/html")
    assert answer.headers["idempotency-key"] not in ("", "k")
    original = world.ask(X_Forwarded_Uri="NONE", X_Forwarded_Method="NONE", X_Original_URI="/shop/v1/items/7", X_Original_Method="GET")
    assert original.status_code == 200


@pytest.mark.parametrize("secret", ["NONE", "", "wrong", SECRET + "s", SECRET[:-1]])
def test_a_stranger_with_a_good_token_is_told_that_nothing_is_there(secret: str, world: World) -> None:
    answer = world.ask(X_Captoken_Proxy=secret)
    assert answer.status_code == 404 and "authorization" not in answer.headers
    for method in ("GET", "HEAD", "POST"):
        told = set()
        for path in ("/.captoken/authorize", "/.captoken/check/shop/v1/items/7", "/.nothing/authorize"):
            kept = {} if secret == "NONE" else {"X-Captoken-Proxy": secret}
            there = httpx.request(method, world.origin + path, headers={"Authorization": f"Bearer {world.token().present(audience='shop')}", **kept}, trust_env=False)
            told.add((there.status_code, there.text, *((name, value) for name, value in sorted(there.headers.items()) if name != "date")))
        assert len(told) == 1  # as of any path at which there is nothing
    (world.folder / "proxy.secret").unlink()
    assert world.ask().status_code in (200, 404)  # for as long as it is kept


@pytest.mark.parametrize(
    ("target", "method", "more", "says"),
    [
        ("/shop/v1/other", "GET", {}, "tool"),
        ("/shop/v1/items", "POST", {}, "tool"),
        ("/shop/v1/items/7", "PUT", {}, "tool"),
        ("/seen/v1/items/7", "GET", {"audience": "seen"}, "tool"),
        ("/shop/v1/items/7?q=a&q=b", "GET", {}, "invalid_request"),
        ("/shop/v1/items/%2e%2e", "GET", {}, "invalid_request"),
        ("/other/x", "GET", {}, "no service"),
        ("http://shop/v1/items/7", "GET", {}, "no service"),
        ("/shop", "GET", {}, ""),
    ],
)
def test_a_refusal_is_one_that_proxies_pass_on(target: str, method: str, more: dict[str, str], says: str, world: World) -> None:
    token = str(world.token(**more).present(audience=more.get("audience", "shop")))
    answer = world.ask(target, method, token=token)
    assert answer.status_code == 403 and says in answer.text and "authorization" not in answer.headers
    assert answer.headers["x-captoken-refusal"] == answer.text


def test_nobody_and_an_unclear_question(world: World) -> None:
    nobody = world.ask(Authorization="NONE")
    assert nobody.status_code == 401 and nobody.headers["www-authenticate"] == 'Bearer realm="shop"'
    for headers in ({"X_Original_URI": "/shop/v1/other"}, {"X_Forwarded_Uri": "NONE"}, {"X_Original_Method": "DELETE"}):
        answer = world.ask(**headers)
        assert answer.status_code == 403 and json.loads(answer.headers["x-captoken-refusal"])["status"] == 400


def test_what_nobody_would_see_is_refused(world: World) -> None:
    assert "with a body" in world.ask(body=b"x").text
    assert "with a body" in world.ask(Content_Length="5", body=b"12345").text
    bound = world.token(key=HolderKey.generate().public)
    assert "bound token" in world.ask(token=f"{bound.serialize()}~cap1p_{'A' * 60}").text or world.ask(token=bound.serialize()).status_code == 401


def test_an_upgrade_is_refused(world: World) -> None:
    """What comes behind it would be judged by nobody. A proxy that hides it from here takes it out itself."""
    assert world.ask().status_code == 200
    assert "an upgrade" in world.ask(Upgrade="x").text


@pytest.mark.parametrize(
    ("target", "status"),
    [("/shop/v1/items/a~b?q=c", 200), ("/shop/v1/items/a%7Eb", 403), ("/shop/v1/other", 403), ("/seen/v1/items/7", 401), ("/other", 403), ("", 403), ("/.captoken/check/shop/v1/items/7", 403)],
)  # fmt: skip
def test_envoy_asks_with_the_request_itself_behind_a_prefix(target: str, status: int, world: World) -> None:
    headers = {"X-Captoken-Proxy": SECRET, "Authorization": f"Bearer {world.token().present(audience='shop')}"}
    with httpx.Client(trust_env=False, headers=headers, base_url=f"{world.origin}/.captoken/check") as client:
        answer = client.get(f"{world.origin}/.captoken/check{target}")
        assert answer.status_code == status and (answer.headers.get("authorization") == f"Bearer {KEY}") is (status == 200)
        if status == 200:
            assert client.get(f"{world.origin}/.captoken/check{target}", headers={"X-Captoken-Proxy": "x"}).status_code == 404
            assert client.post(f"{world.origin}/.captoken/check{target}").status_code == 403
            # Nobody but a client says that it is another request.
            assert client.get(f"{world.origin}/.captoken/check{target}", headers={"X-Original-URI": "/x"}).status_code == 403


def test_where_nobody_rewrites_a_target_it_has_to_be_spelled_as_it_is_sent(world: World) -> None:
    assert world.ask("/shop/v1/items/a~b?q=c", at="?exact").status_code == 200
    for spelled in ("/shop/v1/items/a%7Eb", "/shop/v1/items/a~b?q=c+d", "/shop/v1/items/a~b?"):
        answer = world.ask(spelled, at="?exact")
        assert answer.status_code == 403 and "authorization" not in answer.headers
        assert world.ask(spelled).status_code == 200


def test_without_a_secret_there_is_no_such_door(tmp_path: Path) -> None:
    made = World(tmp_path)
    (tmp_path / "gateway.toml").write_text(FILE.replace('[proxy]\nsecret = "file:proxy.secret"\n', ""))
    made.found = configured(str(tmp_path / "gateway.toml"))
    gateway = Gateway(made.found, {name: AsyncVerifier(made.keyring, name) for name in made.found.file.service})
    with served(gateway, listening(), lifespan="on") as made.origin:
        assert made.ask().status_code == 404
    for write in (asking_proxies.traefik, lambda found: asking_proxies.caddy(found, ":1"), lambda found: asking_proxies.nginx(found, ":1")):
        with pytest.raises(ValueError, match=r"proxy\.secret"):
            write(made.found)


def test_no_configuration_has_a_service_whose_answers_have_to_be_seen(tmp_path: Path) -> None:
    found = World(tmp_path).found
    for text in (asking_proxies.caddy(found, "127.0.0.1:8080"), asking_proxies.nginx(found, "127.0.0.1:8080"), json.dumps(asking_proxies.traefik(found))):
        assert "shop.example" in text and "seen.example" not in text and SECRET not in text and KEY not in text
    seen = found._replace(services={"seen": found.services["seen"]})
    with pytest.raises(ValueError, match="no service says"):
        asking_proxies.traefik(seen)


def test_certificates_and_variables_of_one_s_own_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    World(tmp_path)
    (tmp_path / "gateway.toml").write_text(FILE.replace('answers = "unseen"', 'answers = "unseen"\nca = "ca.pem"').replace("file:proxy.secret", "env:OWN"))
    found = configured(str(tmp_path / "gateway.toml"))
    ca = str(tmp_path / "ca.pem")
    assert ca in asking_proxies.caddy(found, "127.0.0.1:1") and "{env.OWN}" in asking_proxies.caddy(found, "127.0.0.1:1")
    assert f"proxy_ssl_trusted_certificate {ca};" in asking_proxies.nginx(found, "127.0.0.1:1")
    made = asking_proxies.traefik(found)["http"]
    assert made["serversTransports"] == {"captoken-shop": {"rootCAs": [ca]}} and "OWN" in json.dumps(made["middlewares"])
    assert made["middlewares"]["captoken-shop-base"] == {"addPrefix": {"prefix": "/base"}}


@pytest.mark.parametrize("place, leaves", [("bearer", False), ("basic", False), ("scheme:Key", False), ("header:X-Key", True)])
def test_a_service_whose_key_stands_elsewhere_does_not_get_the_token(tmp_path: Path, place: str, leaves: bool) -> None:
    """Real proxies show it in test_gateway_forward_auth."""
    World(tmp_path)
    keyed = f'credential = {{ from = "file:key", as = "{place}" }}\nanswers = "unseen"'
    (tmp_path / "gateway.toml").write_text(FILE.replace('credential = "file:key"\nanswers = "unseen"', keyed))
    found = configured(str(tmp_path / "gateway.toml"))
    assert keyed in (tmp_path / "gateway.toml").read_text()
    assert ("header_up -Authorization\n" in asking_proxies.caddy(found, "127.0.0.1:1")) is leaves
    made = asking_proxies.traefik(found)["http"]
    chain = made["routers"]["captoken-shop"]["middlewares"]
    gone = made["middlewares"][chain[chain.index("captoken-shop") + 1]]["headers"]["customRequestHeaders"]
    assert gone == {"X-Captoken-Proxy": "", **({"Authorization": ""} if leaves else {})}
