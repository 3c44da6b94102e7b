"""A service that people log in at, with a provider on the same port, and a browser that does what a person would."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import unescape
from time import time
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import httpx

from captoken import Keyring
from captoken.adapters.issuance import IssuanceService
from captoken.cli.trial.people import People
from captoken.issuance.documents import Documents
from captoken.issuance.keys import ProviderKeys
from captoken.issuance.policy import read
from captoken.issuance.registry import MemoryRegistry
from tests.adapters.serving import origin_of, served

KEYRING = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1")
CALLBACK = "http://127.0.0.1:5555/callback"  # nobody listens: the browser stops before it
APP = "https://app.example/client.json"
POLICY = """
version = 1
[service]
origin = "{origin}"
per_minute = 1000
[provider.people]
kind = "oidc"
issuer = "{origin}/people"
client_ids = ["shell"]
max_login_age = 28800
subject = "people:{{sub}}"
[login]
provider = "people"
client_id = "here"
[client.desk]
name = "Desk"
redirects = ["http://127.0.0.1/callback", "https://desk.example/callback"]
[client.other]
redirects = ["http://127.0.0.1/callback"]
[resource.notes]
uris = ["{origin}/mcp"]
[resource.sales-db]
[grant.notes]
subject = {{ provider = "people" }}
clients = ["desk", "other", "*"]
agents = ["assistant"]
resources = ["notes"]
task_max = 7200
give = {{ tools = {{ "read" = {{}}, "mail.*" = {{}}, "mail.send" = {{ to = {{ in = ["a@b.example"] }} }} }}, expires_in = 900 }}
[grant.sales]
subject = {{ provider = "people", groups = ["finance"] }}
clients = ["desk"]
agents = ["assistant"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select", "insert"], "market.*" = ["select"] }}, uses = 5, expires_in = 900 }}
[grant.shell]
subject = {{ provider = "people" }}
agents = ["shell"]
resources = ["notes"]
give = {{ tools = {{ "read" = {{}} }}, expires_in = 300 }}
"""


_browsers: list[httpx.Client] = []


class House:
    """The service and its provider, as one application."""

    def __init__(self, origin: str, registry: Any = None, clock: Callable[[], float] = time, **facts: Any) -> None:
        policy = read(facts.pop("policy", POLICY).format(origin=origin))
        self.registry = MemoryRegistry(floor=0) if registry is None else registry
        self.clock: Any = clock
        self.people = People(f"{origin}/people", "here", f"{origin}/login/callback", clock=clock)
        keys = ProviderKeys(policy, sources={"people": self.people.keys})
        self.service = IssuanceService(policy, KEYRING, self.registry, keys=keys, clock=clock, **facts)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/people/"):
            return await self.people({**scope, "root_path": "/people"}, receive, send)
        return await self.service(scope, receive, send)


@contextmanager
def house(**facts: Any) -> Iterator[tuple[str, House]]:
    """One on a port of this machine: its origin, and itself."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made = House(origin_of(listening), **facts)
    before = len(_browsers)
    try:
        with served(made, listening, lifespan="on") as origin:
            yield origin, made
    finally:
        while len(_browsers) > before:
            _browsers.pop().close()


class Verifier:
    """What an application keeps for itself, and the digest that it shows."""

    def __init__(self) -> None:
        self.text = secrets.token_urlsafe(32)
        self.challenge = base64.urlsafe_b64encode(hashlib.sha256(self.text.encode()).digest()).rstrip(b"=").decode()


class Person:
    """A browser, and who sits before it."""

    def __init__(self, origin: str, name: str = "alice") -> None:
        self.origin = origin
        self.name = name
        self.web = httpx.Client(timeout=20)
        _browsers.append(self.web)

    def asks(self, **more: Any) -> str:
        """The address that an application sends a browser to."""
        asked = {
            "response_type": "code", "client_id": "desk", "redirect_uri": CALLBACK, "state": "s-1", "scope": "notes",
            "code_challenge": VERIFIER.challenge, "code_challenge_method": "S256", **more,
        }  # fmt: skip
        return f"{self.origin}/authorize?{urlencode({key: value for key, value in asked.items() if value is not None})}"

    def go(self, address: str, **headers: str) -> httpx.Response:
        """There, and on, as long as it leads to this service; logging in on the way."""
        answer = self.web.get(address, headers=headers)
        for _ in range(8):
            leads = answer.headers.get("location", "")
            if leads.startswith(self.origin):
                answer = self.web.get(leads)
                continue
            found = re.search(rf'href="([^"]*person={self.name})"', answer.text)
            if found is None:
                break
            answer = self.web.get(unescape(found[1]))
        return answer

    def page(self, **more: Any) -> httpx.Response:
        """The page that asks her."""
        return self.go(self.asks(**more))

    def form(self, page: httpx.Response, answer: str = "allow", rights: Sequence[str] | None = None, at: int = 0) -> tuple[str, str]:
        """Where a form of a page leads, and what is in it."""
        action = unescape(re.findall(r'<form method="post" action="([^"]*)"', page.text)[at])
        sealed = re.findall(r'name="request" value="([^"]*)"', page.text)[at]
        ticked = boxes(page) if rights is None else rights
        return urljoin(self.origin, action), urlencode([("request", sealed), ("answer", answer), *(("right", one) for one in ticked)])

    def send(self, form: tuple[str, str], **headers: str) -> httpx.Response:
        """What a browser sends when a button is pressed."""
        action, body = form
        usual = {"content-type": "application/x-www-form-urlencoded", "origin": self.origin, "sec-fetch-site": "same-origin"}
        return self.web.post(action, content=body, headers={**usual, **headers})

    def code(self, **more: Any) -> str:
        """A code, by a person who allows it all."""
        return code_in(self.send(self.form(self.page(**more))))

    def tokens(self, **more: Any) -> dict[str, Any]:
        """What the application gets in the end."""
        answer = self.exchange(self.code(), **more)
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        return said

    def exchange(self, code: str, **more: Any) -> httpx.Response:
        usual = {
            "grant_type": "authorization_code", "code": code, "client_id": "desk", "redirect_uri": CALLBACK, "code_verifier": VERIFIER.text,
        }  # fmt: skip
        return self.post({**usual, **more})

    def refresh(self, token: str, **more: Any) -> httpx.Response:
        return self.post({"grant_type": "refresh_token", "refresh_token": token, "client_id": "desk", **more})

    def post(self, form: dict[str, Any]) -> httpx.Response:
        """To the token endpoint, without cookies."""
        return httpx.post(f"{self.origin}/token", data={key: value for key, value in form.items() if value is not None}, timeout=20)


VERIFIER = Verifier()


def boxes(page: httpx.Response) -> list[str]:
    return [unescape(one) for one in re.findall(r'name="right" value="([^"]*)"', page.text)]


def sent_back(answer: httpx.Response) -> dict[str, str]:
    """What an application hears, by the address that the browser is sent to."""
    assert answer.status_code == 303, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def code_in(answer: httpx.Response) -> str:
    return sent_back(answer)["code"]


def at_documents(documents: dict[str, Any]) -> Documents:
    """Documents that are had without a network: by address, JSON or an error."""
    import json

    class Known(Documents):
        async def _asked(self, address: str, is_named: bool) -> bytes:
            found = documents[address]
            if isinstance(found, Exception):
                raise found
            return json.dumps(found).encode()

    return Known()
