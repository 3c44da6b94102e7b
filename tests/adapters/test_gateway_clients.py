"""Clients of others, as they are: stripe-python and PyGithub have the gateway's address, and a token where their key was. `-m clients` runs them.

The services demand their key, and answer as Stripe and GitHub do, as far as these clients look at it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl

import pytest

from captoken import AsyncVerifier, Issuer, Keyring, Token
from captoken.adapters.gateway import Gateway, configured
from captoken.audit.trail import AuditTrail
from captoken.keys.files import write_private
from captoken.stores.memory import MemoryLedger
from tests.adapters.serving import listening, origin_of, served

pytestmark = pytest.mark.clients

KEY = "sk_live_51HfakeKeyOfTheService"

TABLE = """
version = 1
[gateway]
keyring = "keyring.json"
origin = "{origin}"
[service.stripe]
uses = "stripe"
url = "{url}/api"
credential = "file:key"
[service.stripe.operations."refunds.create"]
cost = {{ usd_cents = "amount" }}
[service.github]
uses = "github"
url = "{url}"
credential = "file:key"
"""


class Service:
    """Both services. A request without the key is refused; `requests` are the others."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status, answer, told = 401, {"message": "Bad credentials"}, []
        if headers.get("authorization") == f"Bearer {KEY}":
            self.requests.append({"request": f"{scope['method']} {scope['raw_path'].decode()}", "headers": headers, "body": body})
            status, answer, told = self.answer(scope, headers, body)
        said = json.dumps(answer).encode()
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(said)), *told]})
        await send({"type": "http.response.body", "body": said})

    def answer(self, scope: Any, headers: dict[str, str], body: bytes) -> tuple[int, Any, list[tuple[bytes, bytes]]]:
        origin = f"http://{headers['host']}"
        page = parse_qs(scope["query_string"].decode()).get("page", ["1"])[0]
        repository = {"full_name": "example/shop", "url": f"{origin}/repos/example/shop", "name": "shop"}
        match scope["method"], scope["path"].split("/")[1:]:
            case "POST", ["api", "v1", "refunds"]:
                return 200, {"id": "re_1", "object": "refund", "status": "succeeded"} | dict(parse_qsl(body.decode())), []
            case "GET", ["api", "v1", "charges"]:
                first = "starting_after" not in scope["query_string"].decode()
                charge = {"id": "ch_1" if first else "ch_2", "object": "charge"}
                return 200, {"object": "list", "url": "/v1/charges", "has_more": first, "data": [charge]}, []
            case "GET", ["api", "v1", "customers", customer]:
                return 404, {"error": {"type": "invalid_request_error", "message": f"No such customer: {customer}"}}, []
            case "GET", ["repos", "example", "shop"]:
                return 200, repository, []
            case "GET", ["repos", "example", "shop", "issues"]:
                more = f'<{origin}/repos/example/shop/issues?state=open&page=2>; rel="next"'.encode()
                issue = {"number": int(page), "title": f"issue {page}", "url": f"{origin}/repos/example/shop/issues/{page}"}
                return 200, [issue], [(b"link", more)] if page == "1" else []
            case "POST", ["repos", "example", "shop", "issues"]:
                return 201, {"number": 3, **json.loads(body)}, []
            case "PUT", ["repos", "example", "shop", "contents", *rest]:
                return 201, {"content": {"path": "/".join(rest)}, "commit": {"sha": "a" * 40}}, []
        return 404, {"message": "Not Found"}, []


class World(NamedTuple):
    origin: str
    keyring: Keyring
    service: Service
    records: list[dict[str, Any]]

    def token(self, audience: str, **caveats: Any) -> Token:
        return Issuer(self.keyring).mint(subject="user:jane", agent="support", task="returns", audience=audience, **caveats)

    def stripe(self, token: Token) -> Any:
        stripe: Any = import_module("stripe")
        return stripe.StripeClient(token.present(audience="stripe"), base_addresses={"api": f"{self.origin}/stripe"}, max_network_retries=0)

    def github(self, token: Token) -> Any:
        github: Any = import_module("github")
        return github.Github(auth=github.Auth.Token(token.present(audience="github")), base_url=f"{self.origin}/github", retry=None)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    write_private(tmp_path / "key", KEY.encode())
    keyring = Keyring.generate()
    records: list[dict[str, Any]] = []
    service, listens = Service(), listening()
    with ExitStack() as stack:
        url = stack.enter_context(served(service, listening()))
        (tmp_path / "gateway.toml").write_text(TABLE.format(origin=origin_of(listens), url=url))
        found = configured(str(tmp_path / "gateway.toml"))
        trail = AuditTrail(lambda line: records.extend(map(json.loads, line.splitlines())))
        ledger = MemoryLedger(floor=0)
        verifiers = {name: AsyncVerifier(keyring, name, ledger=ledger, audit=trail) for name in found.services}
        stack.enter_context(served(Gateway(found, verifiers), listens, lifespan="on"))
        yield World(origin_of(listens), keyring, service, records)
    # Its key came there each time, and no token ever.
    assert service.requests and "cap1_" not in repr(service.requests)


def test_stripe_python_shares_a_budget_among_agents(world: World) -> None:
    stripe: Any = import_module("stripe")
    root = world.token("stripe", tools={"stripe.refunds.create": {"charge": {"any": True}, "amount": {"max": 900}}}, budget={"usd_cents": 1000})
    for number in (1, 2):
        ours = world.stripe(root.delegate(to=f"sub-{number}"))
        made = ours.v1.refunds.create({"charge": "ch_1", "amount": 500})
        assert (made.id, made.status, made.charge) == ("re_1", "succeeded", "ch_1")
    for agent, charge in (("sub-3", {"charge": "ch_1", "amount": 500}), ("sub-4", {"charge": "ch_1", "amount": 901})):
        with pytest.raises(stripe.PermissionError) as told:
            world.stripe(root.delegate(to=agent)).v1.refunds.create(charge)
        assert told.value.http_status == 403 and told.value.error.type == "insufficient_scope"
        assert told.value.user_message == told.value.json_body["for_model"]
    assert [each["request"] for each in world.service.requests] == ["POST /api/v1/refunds"] * 2
    # Each with a key against doing it twice, which the client makes itself.
    assert len({each["headers"]["idempotency-key"] for each in world.service.requests}) == 2
    decided = [(each["chain"][-1]["name"], each["code"]) for each in world.records if "access" in each]
    assert decided == [("sub-1", "allowed"), ("sub-2", "allowed"), ("sub-3", "budget_exhausted"), ("sub-4", "argument")]


def test_stripe_python_reads_lists_in_pages_and_errors_of_the_service(world: World) -> None:
    stripe: Any = import_module("stripe")
    ours = world.stripe(world.token("stripe", tools={"stripe.charges.list": {}, "stripe.customers.retrieve": {}}))
    found = ours.v1.charges.list({"limit": 1, "created": {"gte": 5}, "expand": ["data.customer"]})
    assert [each.id for each in found.auto_paging_iter()] == ["ch_1", "ch_2"]
    with pytest.raises(stripe.InvalidRequestError, match=r"No such customer: cus_1"):
        ours.v1.customers.retrieve("cus_1")


def test_stripe_as_most_programs_use_it_with_a_key_of_the_module(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stripe: Any = import_module("stripe")
    token = world.token("stripe", tools={"stripe.refunds.create": {}})
    monkeypatch.setattr(stripe, "api_key", token.present(audience="stripe"))
    monkeypatch.setattr(stripe, "api_base", f"{world.origin}/stripe")
    assert stripe.Refund.create(charge="ch_1", amount=500, metadata={"order": "6735"}).id == "re_1"
    form = dict(parse_qsl(world.service.requests[0]["body"].decode()))
    assert form == {"charge": "ch_1", "amount": "500", "metadata[order]": "6735"}


def test_pygithub_reads_pages_and_writes_what_its_token_permits(world: World) -> None:
    github: Any = import_module("github")
    own = {"owner": {"in": ["example"]}, "repo": {"in": ["shop"]}}
    tools = {
        "github.repos.get": own,
        "github.issues.list-for-repo": {**own, "state": {"in": ["open"]}, "page": {"any": True, "optional": True}},
        "github.issues.create": {**own, "title": {"any": True}, "body": {"any": True}},
        "github.repos.create-or-update-file-contents": {**own, "path": {"path": ["/docs"]}, "message": {"any": True}, "content": {"any": True}},
    }
    with world.github(world.token("github", tools=tools)) as ours:
        shop = ours.get_repo("example/shop")
        # The second page is where the service said, and the gateway has it as its own address.
        assert [each.title for each in shop.get_issues(state="open")] == ["issue 1", "issue 2"]
        assert shop.create_issue("a title", body="ü").number == 3
        assert shop.create_file("docs/a b.md", "a message", "text")["commit"].sha == "a" * 40
        before = len(world.service.requests)
        for refused in (lambda: ours.get_repo("example/other"), lambda: shop.create_file("src/a.py", "m", "text"), lambda: shop.get_issues(state="all")[0]):
            with pytest.raises(github.GithubException) as told:
                refused()
            assert told.value.status == 403
        with pytest.raises(github.GithubException) as told:
            shop.delete()
        assert told.value.status == 403
    assert len(world.service.requests) == before
    denied = [each["code"] for each in world.records if not each.get("allowed", True)]
    assert denied == ["argument", "argument", "argument", "tool"]
