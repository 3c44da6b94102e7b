"""The service over ASGI: an assertion becomes a token, and all else an error that tells no more than the caller wrote."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from captoken import Access, Token, Verifier
from captoken._language import links
from captoken.adapters.issuance import IssuanceService
from captoken.errors import StoreError
from captoken.issuance import identity
from captoken.issuance.keys import ProviderKeys
from captoken.issuance.policy import Policy
from captoken.issuance.registry import Ending, MemoryRegistry
from captoken.stores.memory import MemoryReplayStore
from captoken.testing import FixedClock

from .fixtures import HOLDER, KEYRING, LEASE, NOW, policy
from .signing import Provider, dpop

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ROOT = "urn:captoken:token-type:root"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ORIGIN = "https://issuer.example"
SALES = Access(table="sales", operation="select", columns=["amount"])

ACME, MESH, CI, PARTNER, EVENTS = Provider("a"), Provider("m"), Provider("c"), Provider("p"), Provider("e")
SIGNERS = {"acme": ACME, "mesh": MESH, "ci": CI, "partner": PARTNER, "events": EVENTS}


def login(**claims: Any) -> str:
    return ACME.sign(
        {
            "iss": "https://login.acme.example", "sub": "jane", "aud": "captoken-cli", "iat": NOW - 5, "exp": NOW + 295, "auth_time": NOW - 60,
            "groups": ["finance"], "acr": "mfa", "sid": "s1", **claims,
        }
    )  # fmt: skip


def svid(name: str = "orchestrator", **claims: Any) -> str:
    return MESH.sign({"sub": f"spiffe://acme.example/ns/risk/sa/{name}", "aud": [ORIGIN], "iat": NOW - 5, "exp": NOW + 295, **claims})


def workflow(**claims: Any) -> str:
    return CI.sign(
        {
            "iss": "https://token.actions.githubusercontent.com", "sub": "repo:acme/x:ref:refs/heads/main", "aud": ORIGIN, "iat": NOW - 5,
            "exp": NOW + 295, "repository_owner_id": "1234567", "repository_id": "42", "ref": "refs/heads/main", **claims,
        }
    )  # fmt: skip


def jag(**claims: Any) -> str:
    return PARTNER.sign(
        {
            "iss": "https://partner.example", "sub": "gus", "aud": ORIGIN, "iat": NOW - 5, "exp": NOW + 200, "jti": "j1", "client_id": "c1",
            "aud_sub": "guest", **claims,
        },
        typ="oauth-id-jag+jwt",
    )  # fmt: skip


class World:
    """A service in this process, and what it answers."""

    def __init__(self, of: Policy | None = None, **facts: Any) -> None:
        self.clock = facts.pop("clock", None) or FixedClock(NOW)
        registry = facts.pop("registry", None)
        self.registry: Any = MemoryRegistry(floor=0) if registry is None else registry  # one that is empty is false
        self.policy = of or policy()

        def source(name: str) -> Callable[[], Any]:
            async def fetch() -> bytes:
                return SIGNERS[name].jwks(**({"use": "jwt-svid"} if name == "mesh" else {}))

            return fetch

        keys = ProviderKeys(self.policy, sources={name: source(name) for name in self.policy.providers})
        self.app = IssuanceService(self.policy, KEYRING, self.registry, lease=LEASE, keys=keys, clock=self.clock, **facts)

    def send(self, method: str, path: str, **facts: Any) -> httpx.Response:
        async def sent() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
                return await client.request(method, path, **facts)

        return asyncio.run(sent())

    def ask(self, headers: Any = (), **form: Any) -> dict[str, Any]:
        """What the token endpoint says, with its status."""
        answer = self.send("POST", "/token", data=form, headers=headers)
        assert answer.headers["cache-control"] == "no-store" and answer.headers["content-type"] == "application/json"
        said: dict[str, Any] = {"status": answer.status_code, **answer.json()}
        assert ("error" in said) is (answer.status_code != 200)
        return said


def exchange(**form: Any) -> dict[str, Any]:
    made = {
        "grant_type": EXCHANGE, "subject_token": login(), "subject_token_type": ID_TOKEN, "client_assertion": svid(),
        "client_assertion_type": ASSERTION, "scope": "q3-risk", "resource": "sales-db", "requested_token_type": ROOT,
        "authorization_details": json.dumps([{"type": "captoken", "agent": "orchestrator", "task": "q3", "tables": ["sales"], "operations": ["select"]}]),
    } | form  # fmt: skip
    return {key: value for key, value in made.items() if value is not None}


def proof(**claims: Any) -> dict[str, str]:
    return {"dpop": dpop(HOLDER, f"{ORIGIN}/token", NOW, **claims)}


def nightly(**form: Any) -> dict[str, Any]:
    made = {"grant_type": "client_credentials", "client_assertion": workflow(), "client_assertion_type": ASSERTION, "resource": "sales-db"} | form
    return {key: value for key, value in made.items() if value is not None}


def at_sales(text: str, **facts: Any) -> str:
    """What the resource server says, which has only the keys of its own."""
    server = Verifier(KEYRING.for_audience("sales-db"), "sales-db", clock=FixedClock(NOW), **facts)
    return server.check(text, SALES).code


def test_an_exchange_reads_each_text_and_each_link_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both assertions, and the links that are written: the grant's, the two that a third party answers, and the request's."""
    texts: Counter[Any] = Counter()
    bodies: Counter[Any] = Counter()

    def counted(read: Callable[..., Any], seen: Counter[Any]) -> Callable[..., Any]:
        def reads(first: Any, *others: Any) -> Any:
            seen[first] += 1
            return read(first, *others)

        return reads

    monkeypatch.setattr(identity, "taken_apart", counted(identity.taken_apart, texts))
    monkeypatch.setattr(links, "read_link", counted(links.read_link, bodies))
    form = exchange()
    text = world.ask(proof(), **form)["access_token"]
    assert texts == {form["subject_token"]: 1, form["client_assertion"]: 1}
    assert set(bodies.values()) == {1} and len(bodies) >= 2
    assert bodies.keys() <= {*Token.parse(text).unverified.bodies}


def test_a_workflow_gets_a_token_that_any_client_can_send(world: World) -> None:
    said = world.ask(**nightly())
    assert (said["status"], said["token_type"], said["expires_in"], said["scope"]) == (200, "Bearer", 300, "nightly")
    assert said["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert at_sales(said["access_token"]) == "allowed"
    assert said["authorization_details"] == [
        {
            "type": "captoken", "tables": ["sales"], "operations": ["select"], "expires_at": NOW + 300, "task": said["task"],
            "audience": ["sales-db"],
        }
    ]  # fmt: skip
    assert world.registry.is_live(said["task"], NOW)


def test_a_person_starts_a_task_whose_root_is_bound_and_leased(world: World) -> None:
    """The specification's rule 34.5."""
    said = world.ask(proof(), **exchange())
    assert (said["status"], said["token_type"], said["issued_token_type"], said["expires_in"]) == (200, "N_A", ROOT, 900)
    root = Token.parse(said["access_token"], clock=FixedClock(NOW))
    assert root.unverified.root.subject == "acme:jane" and root.unverified.root.task == said["task"]

    def presented(token: Token) -> str:
        return token.present(audience="sales-db", signer=HOLDER, request=SALES)

    (ticket,) = root.needs
    answer = world.send("POST", "/.well-known/captoken/3p", json={"ticket": ticket.text})
    leased = root.with_discharge(answer.json()["discharge"])
    assert at_sales(presented(root), replays=MemoryReplayStore(floor=0)) == "missing_discharge"
    assert at_sales(presented(leased), replays=MemoryReplayStore(floor=0)) == "allowed"

    # When the task is over, nobody gets its lease any more.
    world.registry.end(Ending(now=NOW, task=said["task"]))
    answer = world.send("POST", "/.well-known/captoken/3p", json={"ticket": ticket.text})
    assert answer.status_code == 403 and answer.json()["error"] == "the task is over"


def test_an_actor_token_will_do_as_well(world: World) -> None:
    form = exchange(client_assertion=None, client_assertion_type=None, actor_token=svid(), actor_token_type=JWT)
    assert world.ask(proof(), **form)["status"] == 200


def test_an_id_jag_by_its_client(world: World) -> None:
    form = {"grant_type": BEARER, "assertion": jag(client_id="spiffe://acme.example/ns/risk/sa/orchestrator"), "resource": "sales-db"}
    asked = {**form, "client_assertion": svid(), "client_assertion_type": ASSERTION}
    # A grant for the subject alone is not for two.
    assert world.ask(**asked)["error"] == "invalid_grant"
    assert world.ask(**form)["error"] == "invalid_grant"


def test_a_secret_opens_nothing_but_an_id_jag_of_its_client() -> None:
    import hashlib

    from captoken.issuance.policy import read

    from .fixtures import POLICY

    client = f'[client.c1]\nsecret_sha256 = "{hashlib.sha256(b"s3cret").hexdigest()}"\n[resource.sales-db]'
    one = World(read(POLICY.replace("[resource.sales-db]", client)))
    form = {"grant_type": BEARER, "assertion": jag(), "resource": "sales-db", "client_id": "c1", "client_secret": "s3cret"}
    said = one.ask(**form)
    assert said["status"] == 200 and at_sales(said["access_token"]) == "allowed"
    again = one.ask(**form)
    assert again["task"] == said["task"], "the same one again is the same task"
    for wrong in ({"client_secret": "other"}, {"client_id": "c2"}, {"client_id": ""}):
        assert one.ask(**{**form, **wrong})["error"] == "invalid_client"
    assert one.ask(**{**form, "assertion": jag(client_id="c2", jti="j2")})["error"] == "invalid_grant"
    assert one.ask(**{**form, "assertion": workflow()})["error"] == "invalid_client"
    assert one.ask(**nightly(client_secret="s3cret"))["error"] == "invalid_client"


def test_48_an_assertion_is_good_with_the_same_companions_alone(world: World) -> None:
    subject = login()
    assert world.ask(proof(), **exchange(subject_token=subject))["status"] == 200
    assert world.ask(proof(jti="j2"), **exchange(subject_token=subject))["status"] == 200
    assert world.ask(proof(jti="j3"), **exchange(subject_token=subject, client_assertion=svid("other")))["error"] == "invalid_grant"
    alone = workflow()
    assert world.ask(**nightly(client_assertion=alone))["status"] == 200
    assert world.ask(**nightly(client_assertion=alone))["error"] == "invalid_grant", "49 alone twice"


def test_49_alone_is_alone_however_often_one_request_shows_it(world: World) -> None:
    """The same assertion as subject and as client has no companion: it is good once."""
    one = workflow()
    twice = {"grant_type": BEARER, "assertion": one, "client_assertion": one, "client_assertion_type": ASSERTION, "resource": "sales-db"}
    assert world.ask(**twice)["status"] == 200
    assert world.ask(**twice)["error"] == "invalid_grant"
    assert world.ask(**nightly(client_assertion=one))["error"] == "invalid_grant"


def test_60_a_counted_grant_is_taken_once_in_a_task_that_it_joins(world: World) -> None:
    task = world.ask(proof(), **exchange())["task"]

    def paid(**form: Any) -> dict[str, Any]:
        details = json.dumps([{"type": "captoken", "task": form.pop("task", task)}])
        return exchange(scope="q3-sentiment", resource="sentiment-api", authorization_details=details, **form)

    first = world.ask(proof(jti="j2"), **paid())
    assert first["status"] == 200 and first["task"] == task
    assert world.ask(proof(jti="j3"), **paid(subject_token=login(iat=NOW - 4)))["error"] == "invalid_request"
    # 61: another's, ended or unknown have one answer.
    answers = [
        world.ask(proof(jti="j4"), **paid(task="q3-0123456789", subject_token=login(iat=NOW - 3))),
        world.ask(proof(jti="j5"), **paid(subject_token=login(sub="omar", iat=NOW - 2))),
    ]
    world.registry.end(Ending(now=NOW, task=task))
    answers.append(world.ask(proof(jti="j6"), **paid(subject_token=login(iat=NOW - 1))))
    assert len({(one["error"], one["error_description"]) for one in answers}) == 1, answers


def test_65_too_many_tasks_at_a_time(world: World) -> None:
    for number in range(3):
        assert world.ask(proof(jti=f"j{number}"), **exchange(subject_token=login(iat=NOW - 10 - number)))["status"] == 200
    assert world.ask(proof(jti="j9"), **exchange(subject_token=login(iat=NOW - 20)))["error"] == "invalid_request"


class Gone:
    """A registry that cannot be asked."""

    def __getattr__(self, name: str) -> Any:
        def gone(*_: Any) -> Any:
            raise StoreError("gone: /var/lib/x")

        return gone


class Going(Gone):
    """One that was there when the names of providers were kept."""

    def keep_names(self, *_: Any) -> None:
        return None


def test_54_without_a_registry_nothing_is_started_and_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert World(registry=Going()).ask(**nightly())["status"] == 503
    one = World(registry=Gone())
    said = one.ask(**nightly())
    assert (said["status"], said["error"]) == (503, "temporarily_unavailable") and "var" not in str(said)
    assert one.send("GET", "/health").status_code == 503
    assert "gone" in caplog.text


def test_nothing_that_was_sent_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    subject, actor = login(groups=["x"]), svid()
    world.ask(proof(), **exchange(subject_token=subject, client_assertion=actor))
    world.ask(proof(), **exchange())
    for text in (subject, actor, *subject.split("."), *actor.split(".")[1:]):
        assert text not in caplog.text
    assert "its groups" not in caplog.text and "groups is finance" in caplog.text, "why is for the log"


def test_of_the_lease_of_another_nothing_is_said(world: World) -> None:
    """The specification's rule 34.4."""
    from captoken import Issuer

    token = Issuer(KEYRING, clock=FixedClock(NOW)).mint(subject="a", agent="b", task="c", tables=["t"], operations=["select"])
    for need in ({"alive": "nobody"}, {"alive": 1}, {"alive": "x", "other": 1}, {"other": 1}):
        (ticket,) = token.require(LEASE.public, need=need).needs
        assert world.send("POST", "/.well-known/captoken/3p", json={"ticket": ticket.text}).status_code == 403
    assert World(registry=Gone()).send("POST", "/.well-known/captoken/3p", json={"ticket": ticket.text}).status_code == 403


@pytest.mark.parametrize(
    "form, error",
    [
        ({}, None),
        ({"client_id": "spiffe://acme.example/ns/risk/sa/orchestrator"}, None),
        ({"client_id": "spiffe://acme.example/ns/risk/sa/other"}, "invalid_client"),
        ({"client_id": "orchestrator"}, "invalid_client"),
        ({"client_id": "SPIFFE://acme.example/ns/risk/sa/orchestrator"}, "invalid_client"),
        # An actor's token authenticates no client.
        ({"client_id": "x", "client_assertion": None, "client_assertion_type": None, "actor_token": svid(), "actor_token_type": JWT}, None),
    ],
)
def test_a_client_id_is_whom_the_client_s_assertion_is_about(world: World, form: dict[str, Any], error: str | None) -> None:
    """RFC 7521, 4.2: it must identify the same client."""
    said = world.ask(proof(), **exchange(**form))
    assert (said["status"] == 200, said.get("error")) == (error is None, error)


def test_a_client_id_beside_a_workload_that_is_alone(world: World) -> None:
    subject = "repo:acme/x:ref:refs/heads/main"
    assert world.ask(**nightly(client_id="repo:acme/y"))["error"] == "invalid_client"
    assert world.ask(**nightly(client_id=subject))["status"] == 200
