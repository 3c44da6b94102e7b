"""The 86 cases that must be denied, each through the outermost door that it concerns, and each beside a twin that passes.

The twin differs in the fault alone. Doors are the token endpoint, the two addresses of signals, the leases, and the policy as it
is loaded. What is signed is signed by the right key, unless that is the fault. `test_must_deny_count` says which test is for what.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey

from captoken import Access, Issuer, Token, Verifier
from captoken._format.encoding import b64decode, b64encode
from captoken.adapters.issuance import IssuanceService
from captoken.errors import IssuanceError
from captoken.issuance import desk, keys, policy
from captoken.issuance.keys import GOOD, PAUSE, ProviderKeys
from captoken.issuance.registry import Ending, MemoryRegistry
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.issuance.signals import EVENT, LOGOUT
from captoken.stores.memory import MemoryReplayStore
from captoken.testing import FixedClock

from . import assertions, test_ends, test_events, test_identity, test_jose, test_keys, test_signals
from .assertions import jwk, signed
from .fixtures import HOLDER, KEYRING, LEASE, NOW, POLICY
from .registries import entry
from .signing import Provider, dpop
from .test_identity import GONE, put
from .test_issuance import (
    ASSERTION,
    BEARER,
    CI,
    EXCHANGE,
    ID_TOKEN,
    JWT,
    ORIGIN,
    ROOT,
    World,
    exchange,
    jag,
    login,
    nightly,
    proof,
    svid,
    workflow,
)

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
FORM = "application/x-www-form-urlencoded"
SECRET = "s3cret"


# --- the token endpoint, for providers of every kind -------------------------------------------------------------------


# Of workloads a grant says whose they are.
_THEIRS = {
    "mesh": f'sub = ["spiffe://acme.example/ns/*", "{("spiffe://acme.example/" + "n" * 2048)[:2048]}"]',
    "cluster": 'sub = ["system:serviceaccount:risk:*", "system:serviceaccount:my-namespace:*"]',
    "ci": 'repository_owner_id = "65"',
    "lab": 'namespace_id = "72"',
    "google": '"/google/compute_engine/project_number" = 739419398126',
    "aws": '"/https:~1~1sts.amazonaws.com~1/org_id" = "o-abc1234567"',
    "azure": 'oid = "22222222-0000-4000-8000-0000000000b1"',
    "narrow": 'sub = "worker"',
}


def _many() -> policy.Policy:
    """The policy of `assertions`, in which each provider's subjects have a grant."""
    text = assertions.TEXT.replace('subject = "cluster:{/kubernetes.io/serviceaccount/uid}"', 'subject = "cluster:{sub#}"')
    text = text.replace('subject = "mesh:{sub}"', 'subject = "mesh:{sub#}"')
    for issuer, name in (("login.acme", "api"), ("hub", "hub"), ("narrow", "narrow")):
        kind = 'kind = "access-token"\n' if name == "api" else ""
        line = f'{kind}issuer = "https://{issuer}.example"\n'
        text = text.replace(line, f'{line}subject = "{name}:{{sub#}}"\n')
    text = text.replace("[resource.sales-db]", '[resource.sales-db]\nuris = ["https://sales.example/mcp"]')
    text += f'[client.agent-app]\nsecret_sha256 = "{sha256(SECRET.encode()).hexdigest()}"\n'
    for name in assertions.POLICY.providers:
        if name == "events":
            continue
        theirs = f", {_THEIRS[name]}" if name in _THEIRS else ""
        text += f"""
[grant.of-{name}]
subject = {{ provider = "{name}"{theirs} }}
agents = ["agent"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
"""
    return policy.read(text)


MANY = _many()


class Door(World):
    """A service for the providers of `assertions`, at their time."""

    def __init__(self, of: policy.Policy = MANY) -> None:
        self.clock = FixedClock(assertions.NOW)
        self.registry = MemoryRegistry(floor=0)
        self.policy = of

        def source(name: str) -> Callable[[], Any]:
            async def fetch() -> bytes:
                use = "jwt-svid" if name == "mesh" else "sig"
                return assertions.document(*(jwk(name, alg, use=use) for alg in policy.ALGORITHMS if alg != "EdDSA"))

            return fetch

        of_all = ProviderKeys(of, sources={name: source(name) for name in of.providers})
        self.app = IssuanceService(of, KEYRING, self.registry, keys=of_all, lease=LEASE, clock=self.clock)

    def started(self, provider: str, text: str) -> dict[str, Any]:
        """What is answered when an assertion comes in the place that is for its kind."""
        form = {"scope": f"of-{provider}", "resource": "sales-db"}
        if provider in ("acme", "acme-api", "keycloak"):
            kind = ACCESS_TOKEN if provider == "acme-api" else ID_TOKEN
            return self.ask(**form, grant_type=EXCHANGE, subject_token=text, subject_token_type=kind)
        if provider == "hub":
            return self.ask(**form, grant_type=BEARER, assertion=text, client_id="agent-app", client_secret=SECRET)
        return self.ask(**form, grant_type="client_credentials", client_assertion=text, client_assertion_type=ASSERTION)


# What each place calls an assertion that will not do.
CALLED = {"acme": "invalid_request", "acme-api": "invalid_request", "keycloak": "invalid_request", "hub": "invalid_grant"}

Text = Callable[[], str]
Case = tuple[str, str, Text, Text, str]


def of(provider: str, claims: Mapping[str, Any], header: Mapping[str, Any]) -> Text:
    gone = tuple(name for name, value in header.items() if value is GONE)
    stays = {name: value for name, value in header.items() if value is not GONE}
    return lambda: signed(provider, claims, header=stays, without=gone)


def _payload(text: str) -> Text:
    header = json.dumps({"alg": "ES256", "kid": "acme-ES256"}).encode()
    return lambda: assertions.joined(header, text.encode(), assertions.private("acme"), "ES256")


def _tenant(provider: str, wrong: Mapping[str, Any]) -> Case:
    sound = test_identity.PLATFORMS[provider][1]
    (claim,) = wrong
    name = f"38 another tenant of {provider}, by {claim}"
    return (name, provider, of(provider, put(sound, wrong), {}), of(provider, sound, {}), "not one of those that are taken")


def _cases() -> Iterator[Case]:
    """The tables of `test_identity`, each of its rows with the text that is sound."""
    for name, make, says in test_jose.SIGNATURES:
        if name not in ("23 no text", "23 nothing", " 4 over 16 KiB"):  # a form has no such; the length is told below
            yield name, "acme", make, test_identity.login, says
    for name, payload, says in test_jose.JSONS:
        yield name, "acme", _payload(payload), _payload(json.dumps(assertions.LOGIN)), says
    sounds = test_identity.SOUND_OF
    for name, provider, claims, header, says in test_identity.CONFUSED:
        if header == {"typ": "at+jwt"}:  # which another place would take
            says = "typ 'at.jwt' is not for this place"
        yield name, provider, of(provider, put(sounds[provider], claims), header), of(provider, sounds[provider], {}), says
    for name, provider, wrong, right, says in test_identity.TIMES:
        yield (
            name,
            provider,
            of(provider, put(sounds[provider], wrong), {}),
            of(provider, put(sounds[provider], right), {}),
            says,
        )
    for provider, wrong in test_identity.TENANTS:
        yield _tenant(provider, wrong)


CASES = list(_cases())


@pytest.mark.parametrize(("provider", "wrong", "right", "says"), [one[1:] for one in CASES], ids=[one[0] for one in CASES])
def test_an_assertion_that_starts_nothing(provider: str, wrong: Text, right: Text, says: str) -> None:
    door = Door()
    said = door.started(provider, wrong())
    code = CALLED.get(provider, "invalid_client")
    assert (said["status"], said["error"]) == (401 if code == "invalid_client" else 400, code)
    assert re.search(says, said["error_description"])
    assert door.started(provider, right())["status"] == 200, "its twin"


@pytest.mark.parametrize(
    ("provider", "claims", "header"), [one[1:] for one in test_identity.TWINS], ids=[one[0] for one in test_identity.TWINS]
)
def test_an_assertion_that_is_nearly_the_same_starts_a_task(
    provider: str, claims: dict[str, Any], header: dict[str, Any]
) -> None:
    text = of(provider, test_identity.SOUND_OF[provider] | claims, header)()
    assert Door().started(provider, text)["status"] == 200


@pytest.mark.parametrize("provider", test_identity.PLATFORMS)
def test_what_platforms_send_starts_a_task(provider: str) -> None:
    header, claims = test_identity.PLATFORMS[provider]
    assert Door().started(provider, of(provider, claims, header)())["status"] == 200


def test_14_an_algorithm_that_is_not_the_keys() -> None:
    door = Door()
    made = json.dumps(assertions.LOGIN).encode()
    rsa, ec = assertions.private("acme", "RS256"), assertions.private("acme", "ES384")
    for alg, kid, key in (("PS256", "acme-RS256", rsa), ("ES384", "acme-ES256", ec)):
        header = json.dumps({"alg": alg, "kid": kid}).encode()
        said = door.started("acme", assertions.joined(header, made, key, alg))
        assert said["error"] == "invalid_request" and "its key is not for" in said["error_description"]
        twin = json.dumps({"alg": alg, "kid": f"acme-{alg}"}).encode()
        sound = json.dumps(assertions.LOGIN | {"jti": alg}).encode()
        assert door.started("acme", assertions.joined(twin, sound, assertions.private("acme", alg), alg))["status"] == 200


@pytest.mark.parametrize("part", [1, 2], ids=["20 a bit of the payload", "20 a bit of the signature"])
def test_a_bit_is_another(part: int) -> None:
    door = Door()
    text = test_identity.login()
    for number in range(0, 400, 37):
        parts = text.split(".")
        parts[part] = test_jose.flipped(parts[part], number)
        assert door.started("acme", ".".join(parts))["error"] == "invalid_request"
    assert door.started("acme", text)["status"] == 200


def _keyed(*documents: bytes) -> World:
    """A service whose provider of workflows publishes these documents, one after the other."""
    one = World()
    left = list(documents)

    async def fetch() -> bytes:
        return left.pop(0)

    ticks = test_keys.Ticks()
    one.app = IssuanceService(
        one.policy,
        KEYRING,
        one.registry,
        lease=LEASE,
        clock=one.clock,
        keys=ProviderKeys(one.policy, sources={"ci": fetch}, clock=ticks),
    )
    one.ticks = ticks  # type: ignore[attr-defined]
    return one


def test_18_two_keys_of_one_id() -> None:
    mine, other = CI.jwk(), Provider("c").jwk()
    one = _keyed(json.dumps({"keys": [mine, other]}).encode(), json.dumps({"keys": [mine, {**other, "kid": "d"}]}).encode())
    said = one.ask(**nightly())
    assert (said["status"], said["error"]) == (503, "temporarily_unavailable") and "two keys" not in said["error_description"]
    one.ticks.now += PAUSE  # type: ignore[attr-defined]
    assert one.ask(**nightly())["status"] == 200


@pytest.mark.parametrize("bits", [1024, 2047], ids=["22 RSA under 2048, by half", "22 RSA under 2048, by a bit"])
def test_a_key_of_rsa_that_is_weak(bits: int) -> None:
    weak = test_keys.weak() if bits == 1024 else {"kty": "RSA", "n": b64encode((2**2046 + 1).to_bytes(256)), "e": "AQAB"}
    strong = RSAKey.generate_key(2048)
    one = _keyed(
        json.dumps({"keys": [{**weak, "kid": "r"}]}).encode(),
        json.dumps({"keys": [{**strong.as_dict(private=False), "kid": "r"}]}).encode(),
    )
    claims = json.loads(b64decode(workflow().split(".")[1]))
    text = assertions.joined(b'{"alg":"RS256","kid":"r"}', json.dumps(claims).encode(), strong, "RS256")
    assert one.ask(**nightly(client_assertion=text))["status"] in (401, 503)
    one.ticks.now += PAUSE  # type: ignore[attr-defined]
    assert one.ask(**nightly(client_assertion=text))["status"] == 200


# --- a form: 1 to 11 ---------------------------------------------------------------------------------------------------


def posted(one: World, body: bytes, kind: str = FORM, path: str = "/token", **headers: str) -> httpx.Response:
    return one.send("POST", path, content=body, headers={"content-type": kind, **headers})


def encoded(form: Mapping[str, Any]) -> bytes:
    return urllib.parse.urlencode(form).encode()


DOORS = ["/token", "/logout/backchannel", "/signals"]


def sound_body(path: str) -> tuple[bytes, str, int]:
    """What is good there, its type, and the answer."""
    if path == "/token":
        return encoded(nightly()), FORM, 200
    if path == "/signals":
        return test_ends.seen(f"{test_signals.SSF}verification").encode(), "application/secevent+jwt", 202
    return encoded({"logout_token": test_signals.logout()}), FORM, 200


def of_signals() -> World:
    return World(test_signals.WITH_EVENTS)


@pytest.mark.parametrize("path", DOORS, ids=["1 a JSON body at the token endpoint", "1 JSON at logouts", "1 JSON at signals"])
def test_a_body_of_another_type(path: str) -> None:
    one = of_signals()
    body, kind, status = sound_body(path)
    as_json = json.dumps(dict(urllib.parse.parse_qsl(body.decode()))).encode()
    for data, other in (
        (as_json, "application/json"),
        (body, "application/json"),
        (body, "text/plain"),
        (body, "multipart/form-data"),
    ):
        assert posted(one, data, other, path).status_code == 400
    assert posted(one, body, kind, path).status_code == status


# `resource` and `audience` may come several times: `test_sets` says for what.
@pytest.mark.parametrize(
    "name", [*sorted(exchange().keys() - {"resource"}), "actor_token", "assertion", "client_id"], ids=lambda name: f"2 {name} twice"
)
def test_a_parameter_that_is_there_twice(world: World, name: str) -> None:
    form = exchange()
    for again in (name, urllib.parse.quote(name, safe="").replace("_", "%5F")):
        twice = encoded({name: "x", **form}) + f"&{again}={urllib.parse.quote(str(form.get(name, 'x')))}".encode()
        answer = posted(world, twice, **proof())
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        assert answer.json()["error_description"] == f"{name} is given twice"
    assert posted(world, encoded(form) + b"&unknown=1&unknown=2", **proof()).status_code == 200


def test_2_a_logout_token_twice() -> None:
    one = of_signals()
    body, kind, _ = sound_body("/logout/backchannel")
    assert posted(one, body + b"&" + body, kind, "/logout/backchannel").status_code == 400
    assert posted(one, body, kind, "/logout/backchannel").status_code == 200


@pytest.mark.parametrize("path", DOORS[:2], ids=["3 a body over 64 KiB at the token endpoint", "3 over 64 KiB at logouts"])
def test_a_body_as_long_as_may_be(path: str) -> None:
    one = of_signals()
    body, kind, status = sound_body(path)
    whole = body + b"&unknown=" + b"x" * (65_536 - len(body) - 9)
    assert (posted(one, whole + b"x", kind, path).status_code, len(whole)) == (400, 65_536)
    assert posted(one, whole, kind, path).status_code == status


def test_3_an_event_over_64_kib() -> None:
    one = of_signals()
    text = test_ends.seen(f"{test_signals.SSF}verification").encode()
    assert posted(one, text + b"x" * 65_536, "application/secevent+jwt", "/signals").status_code == 400
    assert posted(one, text, "application/secevent+jwt", "/signals").status_code == 202


def padded(sign: Callable[..., str], length: int) -> str:
    """A sound token of that many characters, or of one or two fewer: base64url has not every length."""
    bare = len(sign(pad=""))
    text = sign(pad="x" * ((length - bare) * 3 // 4))
    while len(text) > length:
        text = sign(pad="x" * ((length - bare) * 3 // 4 - (len(text) - length)))
    return text


def over_long(sign: Callable[..., str]) -> str:
    text = sign(pad="x" * ((16_384 - len(sign(pad=""))) * 3 // 4 + 4))
    assert 16_384 < len(text) < 16_400
    return text


@pytest.mark.parametrize(
    ("name", "sign", "form"),
    [
        ("subject_token", login, exchange),
        ("client_assertion", svid, exchange),
        (
            "actor_token",
            svid,
            lambda **form: exchange(client_assertion=None, client_assertion_type=None, actor_token_type=JWT, **form),
        ),
        ("assertion", jag, lambda **form: guest(**form)),
    ],
    ids=lambda value: f"4 a token over 16 KiB as {value}" if isinstance(value, str) else "",
)
def test_a_token_as_long_as_may_be(name: str, sign: Any, form: Any) -> None:
    one = with_client()
    long, whole = over_long(sign), padded(sign, 16_384)
    assert 16_380 < len(whole) <= 16_384
    said = one.ask(proof(), **form(**{name: long}))
    assert said["status"] in (400, 401) and said["error_description"] == f"{name} is longer than 16384 bytes"
    headers = {} if name == "assertion" else proof()
    assert one.ask(headers, **form(**{name: whole}))["status"] == 200


def test_4_a_logout_over_16_kib() -> None:
    one = of_signals()
    for text, status in ((over_long(test_signals.logout), 400), (padded(test_signals.logout, 16_384), 200)):
        assert posted(one, encoded({"logout_token": text}), FORM, "/logout/backchannel").status_code == status


@pytest.mark.parametrize(
    "kind",
    ["password", "authorization_code", "refresh_token", "implicit", "CLIENT_CREDENTIALS", "client_credentials ", "client_credentials\0",
     "urn:ietf:params:oauth:grant-type:device_code", "urn:ietf:params:oauth:grant-type:saml3-bearer"],
    ids=lambda kind: f"5 an unknown grant type {kind!r}",
)  # fmt: skip
def test_a_grant_type_that_is_not_ours(world: World, kind: str) -> None:
    said = world.ask(**nightly(grant_type=kind))
    assert (said["status"], said["error"]) == (400, "unsupported_grant_type")
    assert world.ask(**nightly())["status"] == 200


@pytest.mark.parametrize(
    "header", ["Basic YTpi", "basic YTpi", "Bearer x", "Captoken x", ""], ids=lambda header: f"6 Basic or another: {header!r}"
)
def test_an_authorization_header(world: World, header: str) -> None:
    said = world.ask({"authorization": header}, **nightly())
    assert (said["status"], said["error"]) == (401, "invalid_client")
    assert world.ask(**nightly())["status"] == 200


@pytest.mark.parametrize("beside", [True, False], ids=["7 a secret beside an assertion", "7 a secret alone"])
def test_a_secret_with_client_credentials(beside: bool) -> None:
    one = with_client()
    form = nightly(client_id="c1", client_secret=SECRET)
    if not beside:
        form = {name: value for name, value in form.items() if not name.startswith("client_assertion")}
    said = one.ask(**form)
    assert (said["status"], said["error"]) == (401, "invalid_client")
    assert one.ask(**nightly())["status"] == 200


def test_7_a_secret_beside_a_login_or_a_workload() -> None:
    one = with_client()
    for form in (
        exchange(client_id="c1", client_secret=SECRET),
        exchange(client_assertion=None, client_assertion_type=None, client_secret=SECRET),
    ):
        assert one.ask(proof(), **form)["error"] == "invalid_client"
    assert one.ask(proof(), **exchange())["status"] == 200


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"actor_token_type": None}, "invalid_request"), ({"actor_token": None}, "invalid_request"), ({"actor_token_type": ""}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"), ({"subject_token": None}, "invalid_request"),
    ],
    ids=["8 an actor_token without type", "8 a type without actor_token", "8 an actor_token with an empty type", "8 a subject_token without type", "8 a type without subject_token"],
)  # fmt: skip
def test_a_token_comes_with_its_type(world: World, wrong: dict[str, Any], error: str) -> None:
    sound = exchange(client_assertion=None, client_assertion_type=None, actor_token=svid(), actor_token_type=JWT)
    form = {name: value for name, value in (sound | wrong).items() if value is not None}
    assert world.ask(proof(), **form)["error"] == error
    assert world.ask(proof(), **sound)["status"] == 200


def test_9_two_actors(world: World) -> None:
    """Also where both are the same assertion: which one authenticates is not for us to guess."""
    both = exchange(actor_token=svid(), actor_token_type=JWT)
    assert world.ask(proof(), **both)["error"] == "invalid_request"
    one = exchange(client_assertion=None, client_assertion_type=None, actor_token=svid(), actor_token_type=JWT)
    assert world.ask(proof(), **one)["status"] == 200
    assert world.ask(proof(jti="j2"), **exchange(subject_token=login(jti="2")))["status"] == 200


JAG_TYPE = "urn:ietf:params:oauth:token-type:id-jag"


@pytest.mark.parametrize(
    "kind", [ACCESS_TOKEN, JWT, JAG_TYPE, "urn:ietf:params:oauth:token-type:saml2", "urn:example:x"],
    ids=lambda kind: f"10 a type that does not fit the token: {kind.rpartition(':')[2]}",
)  # fmt: skip
def test_a_login_of_another_type(world: World, kind: str) -> None:
    assert world.ask(proof(), **exchange(subject_token_type=kind))["error"] == "invalid_request"
    assert world.ask(proof(), **exchange())["status"] == 200


@pytest.mark.parametrize(
    ("provider", "right"), [("acme-api", ACCESS_TOKEN), ("cluster", JWT), ("mesh", JWT)], ids=["10 a type of an access token", "10 a type of a workload", "10 a type of an SVID"]
)  # fmt: skip
def test_each_type_is_for_its_token(provider: str, right: str) -> None:
    door = Door()
    text = signed(provider, test_identity.SOUND_OF[provider])
    form = {"grant_type": EXCHANGE, "subject_token": text, "scope": f"of-{provider}", "resource": "sales-db"}
    for kind in {ID_TOKEN, ACCESS_TOKEN, JWT, JAG_TYPE} - {right}:
        assert door.ask(**form, subject_token_type=kind)["error"] == "invalid_request"
    assert door.ask(**form, subject_token_type=right)["status"] == 200


@pytest.mark.parametrize(
    "details",
    ['[{"type":"captoken"},{"type":"captoken"}]', '[{"type":"captoken"},{"type":"other"}]', '[{"type":"other"}]', '[{"type":"Captoken"}]', "[{}]",
     '[{"type":["captoken"]}]', '[{"type":"captoken","tabels":["sales"]}]', '[{"type":"captoken","subject":"acme:omar"}]', '[{"type":"captoken","ext":{}}]',
     '[{"type":"captoken","key":"x"}]', '[{"type":"captoken","audience":"hr-db"}]', '[{"type":"captoken","unrestricted":true}]',
     '{"type":"captoken"}', "[]", '[["type","captoken"]]', '"captoken"', "null"],
    ids=["11 two details", "11 two details of two types", "11 an unknown type", "11 an unknown type by case", "11 an unknown type that is none", "11 an unknown type that is a list",
         "11 an unknown keyword", "11 an unknown keyword subject", "11 an unknown keyword ext", "11 a keyword key", "11 a keyword audience", "11 a keyword unrestricted",
         "11 no list", "11 none", "11 a list of lists", "11 a text", "11 null"],
)  # fmt: skip
def test_details_that_say_something_else(world: World, details: str) -> None:
    assert world.ask(**nightly(authorization_details=details))["error"] == "invalid_authorization_details"
    assert world.ask(**nightly(authorization_details='[{"type":"captoken"}]'))["status"] == 200


# --- confusion: 34, 36, 37, 39 -----------------------------------------------------------------------------------------


def test_34_two_providers_that_could_make_one_subject() -> None:
    both = POLICY.replace('subject = "mesh:{sub#}"', 'subject = "acme:{sub#}"')
    for text in (
        both,
        POLICY.replace('subject = "mesh:{sub#}"', 'subject = "acme:mesh:{sub#}"'),
        POLICY.replace('"mesh:{sub#}"', '"ac{sub#}"'),
    ):
        with pytest.raises(IssuanceError, match="could be those of provider"):
            policy.read(text)
    assert policy.read(POLICY.replace('subject = "mesh:{sub#}"', 'subject = "acme2:{sub#}"'))


def test_36_subject_and_actor_swapped(world: World) -> None:
    swapped = exchange(subject_token=svid(), subject_token_type=JWT, client_assertion=login())
    assert world.ask(proof(), **swapped)["error"] == "invalid_client"
    as_actor = exchange(
        client_assertion=None,
        client_assertion_type=None,
        subject_token=svid(),
        subject_token_type=JWT,
        actor_token=login(),
        actor_token_type=JWT,
    )
    assert world.ask(proof(), **as_actor)["error"] == "invalid_request"
    # Both are workloads: the grant says which is which.
    two = exchange(subject_token=svid(), subject_token_type=JWT, client_assertion=workflow())
    assert world.ask(proof(), **two)["error"] == "invalid_request"
    assert world.ask(proof(), **exchange())["status"] == 200


@pytest.mark.parametrize(
    "audience",
    [
        "https://kubernetes.default.svc.cluster.local",
        ["https://kubernetes.default.svc", "k3s"],
        ["https://kubernetes.default.svc", assertions.US],
    ],
    ids=[
        "37 the default Kubernetes token at the service",
        "37 of k3s at the service",
        "37 the default Kubernetes token with us beside at the service",
    ],
)
def test_a_token_that_kubernetes_gives_by_default(audience: Any) -> None:
    door = Door()
    assert door.started("cluster", signed("cluster", assertions.WORKLOAD | {"aud": audience}))["error"] == "invalid_client"
    assert door.started("cluster", signed("cluster", assertions.WORKLOAD))["status"] == 200


@pytest.mark.parametrize(
    "place", ["subject_token", "actor_token", "client_assertion", "assertion"], ids=lambda place: f"39 a captoken as {place}"
)
def test_a_captoken_that_should_start_a_task(world: World, place: str) -> None:
    root = world.ask(**nightly())["access_token"]
    held = Issuer(KEYRING, clock=FixedClock(NOW)).mint(subject="acme:jane", agent="a", task="t", allow={"sales": ["select"]})
    sound: dict[str, Any] = {
        "subject_token": exchange(),
        "client_assertion": exchange(),
        "actor_token": exchange(client_assertion=None, client_assertion_type=None, actor_token=svid(), actor_token_type=JWT),
        "assertion": {"grant_type": BEARER, "assertion": workflow(jti="2"), "resource": "sales-db"},
    }[place]
    for text in (root, held.serialize(), held.present(audience="sales-db")):
        said = world.ask(proof(), **{**sound, place: text})
        assert "error" in said and text not in said["error_description"]
    headers = {} if place == "assertion" else proof()
    assert world.ask(headers, **sound)["status"] == 200


# --- time: 45 to 47 ----------------------------------------------------------------------------------------------------


def joining(task: str, now: int = NOW, **claims: Any) -> dict[str, Any]:
    """A request that joins a task, with assertions of now."""
    live = {"iat": now - 5, "exp": now + 295}
    details = json.dumps([{"type": "captoken", "agent": "orchestrator", "task": task}])
    return exchange(subject_token=login(**{**live, **claims}), client_assertion=svid(**live), authorization_details=details)


def proven(now: int) -> dict[str, str]:
    return proof(iat=now, jti=f"j{now}")


def test_45_a_join_after_the_deadline(world: World) -> None:
    task = world.ask(proof(), **exchange())["task"]
    world.clock.now = NOW + 3599
    assert world.ask(proven(NOW + 3599), **joining(task, NOW + 3599))["status"] == 200
    world.clock.now = NOW + 3600
    said = world.ask(proven(NOW + 3600), **joining(task, NOW + 3600))
    assert (said["error"], said["error_description"]) == ("invalid_grant", "there is no such task to join")


def test_46_a_renewal_past_the_end_of_its_task(world: World) -> None:
    """Whatever is renewed, no token outlives `task_max`; the twin, a task of its own, lives longer."""
    task = world.ask(proof(), **exchange())["task"]
    late = NOW + 3500
    world.clock.now = late

    def ends(form: dict[str, Any]) -> Any:
        said = world.ask(proof(iat=late, jti=form["subject_token"][-9:]), **form)
        assert said["expires_in"] == Token.parse(said["access_token"], clock=world.clock).unverified.expires_at - late
        return said["expires_in"]

    assert ends(joining(task, late)) == 100
    assert ends(joining("another", late)) == 900


def test_47_a_clock_that_steps_back(world: World) -> None:
    """An assertion that was used and forgotten is not good again, and one that was not, is."""
    used, unused = workflow(exp=NOW + 100), workflow(exp=NOW + 500)
    assert world.ask(**nightly(client_assertion=used))["status"] == 200
    world.clock.now = NOW + 300  # it is over for everybody, and forgotten with the next one
    live = {"iat": NOW + 290, "exp": NOW + 500}
    assert world.ask(**nightly(client_assertion=workflow(**live)))["status"] == 200
    world.clock.now = NOW
    assert world.ask(**nightly(client_assertion=used))["error"] == "invalid_grant"
    assert world.ask(**nightly(client_assertion=unused))["status"] == 200


def test_47_a_clock_that_steps_back_revives_no_task(world: World) -> None:
    """A task that was seen past its deadline is over, and one that was not, is joined."""
    over = world.ask(proof(), **exchange())["task"]
    world.clock.now = NOW + 3700
    other = world.ask(proven(NOW + 3700), **joining("other", NOW + 3700))["task"]
    world.clock.now = back = NOW + 3000
    assert world.ask(proven(back), **joining(over, back))["error"] == "invalid_grant"
    assert world.ask(proof(iat=back, jti="o"), **joining(other, back, jti="o"))["task"] == other


# --- replay: 48 to 54 --------------------------------------------------------------------------------------------------


def guest(**form: Any) -> dict[str, Any]:
    """An ID-JAG, with the secret of the client that it was made for."""
    made = {"grant_type": BEARER, "assertion": jag(), "resource": "sales-db", "client_id": "c1", "client_secret": SECRET} | form
    return {name: value for name, value in made.items() if value is not None}


def with_client(text: str = POLICY, **facts: Any) -> World:
    clients = "".join(f'[client.{name}]\nsecret_sha256 = "{sha256(SECRET.encode()).hexdigest()}"\n' for name in ("c1", "c2"))
    return World(policy.read(text.replace("[resource.sales-db]", f"{clients}[resource.sales-db]")), **facts)


OTHER_HOLDER = type(HOLDER).from_bytes(bytes(range(9, 41)))


@pytest.mark.parametrize("other", ["actor", "key"], ids=["48 with another actor", "48 with another key"])
def test_a_login_that_came_with_somebody_else(world: World, other: str) -> None:
    subject = login()
    assert world.ask(proof(), **exchange(subject_token=subject))["status"] == 200
    actor = svid("other") if other == "actor" else svid()
    holder = OTHER_HOLDER if other == "key" else HOLDER
    by = {"dpop": dpop(holder, f"{ORIGIN}/token", NOW, jti="j2")}
    assert world.ask(by, **exchange(subject_token=subject, client_assertion=actor))["error"] == "invalid_grant"
    assert world.ask(proof(jti="j3"), **exchange(subject_token=subject))["status"] == 200, "as it came, it is good again"
    other_login = exchange(subject_token=login(jti="other"), client_assertion=actor)
    assert world.ask({"dpop": dpop(holder, f"{ORIGIN}/token", NOW, jti="j4")}, **other_login)["status"] == 200


def test_49_alone_twice(world: World) -> None:
    one = workflow()
    assert world.ask(**nightly(client_assertion=one))["status"] == 200
    said = world.ask(**nightly(client_assertion=one))
    assert (said["error"], said["error_description"]) == ("invalid_grant", "the assertion cannot start a task: get a new one")
    assert world.ask(**nightly(client_assertion=workflow(jti="other")))["status"] == 200


def at_once(one: World, forms: list[dict[str, Any]], headers: list[dict[str, str]]) -> list[int]:
    """What each of these is answered, all of which are under way at the same time."""

    async def all_of_them() -> list[int]:
        transport = httpx.ASGITransport(app=one.app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            sent = (client.post("/token", data=form, headers=by) for form, by in zip(forms, headers, strict=True))
            return [answer.status_code for answer in await asyncio.gather(*sent)]

    return asyncio.run(all_of_them())


def test_50_of_64_at_once_one_actor_wins() -> None:
    without_limit = World(policy.read(POLICY.replace("tasks = { live = 3, per_day = 20 }", "")))
    subject, actors = login(), [svid(f"a{number}") for number in range(8)]
    forms = [exchange(subject_token=subject, client_assertion=actors[number % 8]) for number in range(64)]
    answers = at_once(without_limit, forms, [proof(jti=f"j{number}") for number in range(64)])
    won = [number % 8 for number, status in enumerate(answers) if status == 200]
    assert len(won) == 8 and len(set(won)) == 1, "the twin: the one that won is good each time"


def test_50_of_64_at_once_alone_one_is_taken(world: World) -> None:
    answers = at_once(world, [nightly()] * 64, [{}] * 64)
    assert answers.count(200) == 1 and set(answers) == {200, 400, 429}, "429 is for one who asks too often"


@pytest.mark.parametrize(
    "claims",
    [
        {"htu": "https://other.example/token"}, {"htu": f"{ORIGIN}/token/"}, {"htm": "GET"}, {"iat": NOW - 61}, {"iat": NOW + 31},
        {"header": {"alg": "ES256"}}, {"header": {"jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}}},
        {"header": {"jwk": {"kty": "OKP", "crv": "X25519", "x": HOLDER.public}}},
    ],
    ids=["51 a proof for another URL", "51 a proof for a URL with a slash", "51 a proof for another method", "51 a proof of another time, before", "51 a proof of another time, ahead",
         "51 a proof by another algorithm", "51 a proof by another key type", "51 a proof by another key type, of Curve25519"],
)  # fmt: skip
def test_a_proof_of_something_else(world: World, claims: dict[str, Any]) -> None:
    said = world.ask(proof(**claims), **exchange())
    assert (said["status"], said["error"]) == (400, "invalid_dpop_proof")
    edge = {"iat": NOW - 60} if claims.get("iat", NOW) < NOW else {"iat": NOW + 30}
    assert world.ask(proof(**edge), **exchange())["status"] == 200


def test_51_a_proof_again(world: World) -> None:
    assert world.ask(proof(), **exchange())["status"] == 200
    assert world.ask(proof(), **exchange(subject_token=login(jti="2")))["error"] == "invalid_grant"
    assert world.ask(proof(jti="j2"), **exchange(subject_token=login(jti="2")))["status"] == 200


def test_53_across_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "tasks.db"
    before = World(registry=SQLiteRegistry.create(file, floor=0))
    alone, subject = workflow(), login()
    assert before.ask(**nightly(client_assertion=alone))["status"] == 200
    assert before.ask(proof(), **exchange(subject_token=subject))["status"] == 200
    before.registry.close()

    after = World(registry=SQLiteRegistry(file))
    assert after.ask(**nightly(client_assertion=alone))["error"] == "invalid_grant"
    assert after.ask(proof(), **exchange(subject_token=login(jti="2")))["error"] == "invalid_grant", "the proof"
    assert after.ask(proof(jti="2"), **exchange(subject_token=subject, client_assertion=svid("x")))["error"] == "invalid_grant"
    assert after.ask(proof(jti="3"), **exchange(subject_token=subject))["status"] == 200
    assert after.ask(**nightly(client_assertion=workflow(jti="2")))["status"] == 200
    after.registry.close()


def test_53_a_registry_that_was_lost_takes_nothing_of_before(tmp_path: Path) -> None:
    lost = World(registry=SQLiteRegistry.create(tmp_path / "new.db", floor=NOW))
    assert lost.ask(**nightly())["error"] == "invalid_grant"
    assert lost.ask(**nightly(client_assertion=workflow(iat=NOW + 1)))["status"] == 200
    lost.registry.close()


def test_54_a_registry_that_is_full_or_gone() -> None:
    one = World(registry=MemoryRegistry(floor=0, limit=1))
    assert one.ask(**nightly())["status"] == 200
    said = one.ask(**nightly(client_assertion=workflow(jti="2")))
    assert (said["status"], said["error"]) == (503, "temporarily_unavailable")
    assert World(registry=MemoryRegistry(floor=0, limit=2)).ask(**nightly(client_assertion=workflow(jti="2")))["status"] == 200


# --- rights: 55 to 67 --------------------------------------------------------------------------------------------------

MORE: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("55 more tables", "q3-risk", {"tables": ["hr"]}, {"tables": ["sales"]}),
    ("55 more tables by a pattern", "q3-risk", {"tables": ["*"], "operations": ["select"]}, {"tables": ["market.*"], "operations": ["select"]}),
    ("55 more columns", "q3-risk", {"columns": {"sales": ["amount", "pay"]}}, {"columns": {"sales": ["amount"]}}),
    ("55 more operations", "q3-risk", {"tables": ["sales"], "operations": ["select", "update"]}, {"tables": ["sales"], "operations": ["select"]}),
    ("55 more operations by a star", "q3-risk", {"operations": ["*"]}, {"operations": ["select"]}),
    ("55 more operations of a table", "q3-risk", {"allow": {"sales": ["insert"]}}, {"allow": {"scratch.results": ["insert"]}}),
    ("55 more tools", "q3-sentiment", {"tools": {"mail.send": {}}}, {"tools": {"sentiment.score": {"issuer": {"any": True}}}}),
    ("55 more arguments", "q3-sentiment", {"tools": {"sentiment.score": {"issuer": {"any": True}, "to": {"any": True}}}}, {"tools": {"sentiment.score": {"issuer": {"in": ["Cedar"]}}}}),
    ("55 more arguments, all free", "q3-sentiment", {"tools": {"sentiment.score": {}}}, {"tools": {"sentiment.score": {"issuer": {"prefix": ["C"]}}}}),
    ("55 more budget", "q3-sentiment", {"budget": {"usd_cents": 501}}, {"budget": {"usd_cents": 500}}),
    ("55 more expires_at", "q3-risk", {"expires_at": NOW + 901}, {"expires_at": NOW + 900}),
    ("55 more depth", "q3-risk", {"depth": 4}, {"depth": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("grant", "more", "less"), [one[1:] for one in MORE], ids=[one[0] for one in MORE])
def test_more_than_the_grant(world: World, grant: str, more: dict[str, Any], less: dict[str, Any]) -> None:
    """The specification's rule 44.14."""
    resource = "sales-db" if grant == "q3-risk" else "sentiment-api"

    def asked(keywords: dict[str, Any]) -> dict[str, Any]:
        details = json.dumps([{"type": "captoken", "agent": "orchestrator", **keywords}])
        return world.ask(proof(), **exchange(scope=grant, resource=resource, authorization_details=details))

    said = asked(more)
    assert (said["status"], said["error"]) == (400, "invalid_authorization_details")
    assert asked(less)["status"] == 200


def told(world: World, error: str, wrong: dict[str, Any], right: dict[str, Any], **headers: Any) -> dict[str, Any]:
    """A request that is refused, and its twin that is not."""
    said = world.ask(headers or proof(), **wrong)
    assert said["error"] == error, said
    good = world.ask(headers or proof(), **right)
    assert good["status"] == 200, good
    return said


def details(**stated: Any) -> str:
    return json.dumps([{"type": "captoken", "agent": "orchestrator", **stated}])


def test_56_an_agent_of_nobody(world: World) -> None:
    told(
        world,
        "invalid_request",
        exchange(authorization_details=details(agent="mallory")),
        exchange(authorization_details=details(agent="deputy")),
    )


def test_57_a_resource_of_another_grant(world: World) -> None:
    told(world, "invalid_target", exchange(resource="sentiment-api"), exchange(resource="scratch-db"))


def test_58_two_grants_that_fit(world: World) -> None:
    told(world, "invalid_scope", exchange(scope=None), exchange(scope="q3-risk"))


def test_59_an_unknown_scope(world: World) -> None:
    told(world, "invalid_scope", exchange(scope="openid"), exchange())


def paid(task: str, **form: Any) -> dict[str, Any]:
    return exchange(scope="q3-sentiment", resource="sentiment-api", authorization_details=details(task=task), **form)


def test_60_a_counted_grant_twice_in_a_task(world: World) -> None:
    first, second = (
        world.ask(proof(jti=f"s{number}"), **exchange(subject_token=login(jti=f"s{number}")))["task"] for number in (1, 2)
    )
    assert world.ask(proof(), **paid(first))["status"] == 200
    assert world.ask(proof(jti="j2"), **paid(first, subject_token=login(jti="2")))["error"] == "invalid_request"
    assert world.ask(proof(jti="j3"), **paid(second, subject_token=login(jti="3")))["status"] == 200


def test_61_a_join_of_another_s_an_ended_and_an_unknown_task_has_one_answer(world: World) -> None:
    """To the byte, whatever is wrong with it."""
    mine, ended = (
        world.ask(proof(jti=f"s{number}"), **exchange(subject_token=login(jti=f"s{number}")))["task"] for number in (1, 2)
    )
    reading = world.ask(
        grant_type=EXCHANGE,
        subject_token=login(groups=["readers"], jti="r"),
        subject_token_type=ID_TOKEN,
        scope="reading",
        resource="sales-db",
    )
    world.registry.end(Ending(now=NOW, task=ended))
    wrong = [
        joining("q3-0123456789"),  # unknown
        joining(mine, sub="omar"),  # another subject's
        {**joining(mine, jti="a"), "client_assertion": svid("other")},  # another actor's
        joining(ended, jti="e"),
        joining(reading["task"], jti="g"),  # of a grant that is not joined
    ]
    answers = {posted(world, encoded(form), **proof(jti=f"w{number}")).content for number, form in enumerate(wrong)}
    assert len(answers) == 1 and json.loads(answers.pop())["error"] == "invalid_grant"
    assert world.ask(proof(jti="good"), **joining(mine, jti="m"))["task"] == mine


@pytest.mark.parametrize("label", ["a/b", "/", "a/b-0123456789", "../x"], ids=lambda label: f"62 a label with a slash: {label}")
def test_a_label_with_a_slash(world: World, label: str) -> None:
    told(
        world,
        "invalid_request",
        exchange(authorization_details=details(task=label)),
        exchange(authorization_details=details(task="a.b")),
    )


def test_63_a_bound_grant_without_proof_or_as_access_token(world: World) -> None:
    assert world.ask(**exchange())["error"] == "invalid_dpop_proof"
    told(world, "invalid_request", exchange(requested_token_type=ACCESS_TOKEN), exchange(requested_token_type=ROOT))
    # What needs an approval comes only so, too.
    assert world.ask(**paid("x", requested_token_type=None))["error"] == "invalid_request"
    assert world.ask(**paid("x", subject_token=login(jti="2")))["status"] == 200


JAGS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("64 an ID-JAG for A used for B by its resource", {"assertion": {"resource": "https://other.example"}}, {"assertion": {"resource": "https://sales.example/mcp"}}, "invalid_target"),
    ("64 an ID-JAG for A used for B by its scope", {"assertion": {"scope": "nightly"}}, {"assertion": {"scope": "nightly guests"}}, "invalid_scope"),
    ("64 an ID-JAG with details", {"assertion": {"authorization_details": []}}, {}, "invalid_grant"),
    ("64 an ID-JAG by another client", {"client_id": "c2"}, {}, "invalid_grant"),
    ("64 an ID-JAG of another client", {"assertion": {"client_id": "c2"}}, {}, "invalid_grant"),
    ("64 an ID-JAG unauthenticated", {"client_secret": None}, {}, "invalid_grant"),
    ("64 an ID-JAG by nobody", {"client_secret": None, "client_id": None}, {}, "invalid_grant"),
    ("64 an ID-JAG with another secret", {"client_secret": "other"}, {}, "invalid_client"),
    ("64 an ID-JAG as a subject_token unauthenticated", {"grant_type": EXCHANGE, "client_secret": None, "client_id": None}, {}, "invalid_grant"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "right", "error"), [one[1:] for one in JAGS], ids=[one[0] for one in JAGS])
def test_an_id_jag_that_is_not_for_this(wrong: dict[str, Any], right: dict[str, Any], error: str) -> None:
    one = with_client()

    def asked(stated: dict[str, Any]) -> dict[str, Any]:
        form = guest(**{**stated, "assertion": jag(**stated.get("assertion", {}))})
        if form["grant_type"] == EXCHANGE:
            form |= {"subject_token": form.pop("assertion"), "subject_token_type": JAG_TYPE}
        return one.ask(**form)

    assert asked(wrong)["error"] == error
    assert asked(right)["status"] == 200


def test_65_more_tasks_than_may_be_live() -> None:
    one = World(policy.read(POLICY.replace("tasks = { live = 3, per_day = 20 }", "tasks = { live = 2, per_day = 4 }")))

    def started(number: int, sub: str = "jane") -> dict[str, Any]:
        return one.ask(proof(jti=f"j{number}"), **exchange(subject_token=login(sub=sub, jti=str(number))))

    tasks = [started(number)["task"] for number in range(2)]
    assert started(2)["error"] == "invalid_request" and started(3, "omar")["status"] == 200
    for number in (4, 5, 6):
        one.registry.end(Ending(now=NOW, task=tasks[-1]))
        said = started(number)
        assert (said["status"] == 200) is (number < 6), "four were begun within a day"
        tasks.append(said.get("task", ""))
    one.clock.now = late = NOW + 86_400
    live = {"iat": late - 5, "exp": late + 295}
    fresh = exchange(subject_token=login(**live, auth_time=late - 60), client_assertion=svid(**live))
    assert one.ask(proof(iat=late), **fresh)["status"] == 200


def test_66_a_group_that_was_lost_between_two_exchanges(world: World) -> None:
    task = world.ask(proof(), **exchange())["task"]
    said = world.ask(proof(jti="j2"), **joining(task, groups=["sales"]))
    assert said["error"] == "invalid_request" and "finance" not in said["error_description"]
    assert world.ask(proof(jti="j3"), **joining(task, groups=["sales", "finance"]))["task"] == task


# --- the network: 68 to 73 ---------------------------------------------------------------------------------------------


class Fetching:
    """A service whose workflows are signed by a provider on this machine, which answers as it is told."""

    def __init__(self, server: Any) -> None:
        self.server = server
        text = POLICY.replace("https://token.actions.githubusercontent.com", server.origin).replace(
            ', ref = "refs/heads/main"', ""
        )
        self.world = World(policy.read(text))
        self.ticks = test_keys.Ticks()
        self.world.app = IssuanceService(
            self.world.policy,
            KEYRING,
            self.world.registry,
            lease=LEASE,
            clock=self.world.clock,
            keys=ProviderKeys(self.world.policy, clock=self.ticks),
        )

    def publish(self, *keys: dict[str, Any]) -> None:
        self.server.serve(*keys)

    def ask(self, text: str | None = None, **claims: Any) -> dict[str, Any]:
        return self.world.ask(**nightly(client_assertion=text or workflow(iss=self.server.origin, **claims)))

    def later(self, seconds: float = PAUSE) -> None:
        self.ticks.now += seconds


@pytest.fixture
def fetching() -> Iterator[Fetching]:
    server = test_keys.Server()
    one = Fetching(server)
    one.publish(CI.jwk())
    yield one
    server.stop()


@pytest.mark.parametrize(
    "answer",
    [test_keys.status(302, Location="/good"), test_keys.sends(b" " * 300 * 1024), test_keys.drips],
    ids=["68 a redirect to keys", "68 300 KB of keys", "68 a slow drip of keys"],
)
def test_keys_that_do_not_come_as_they_should(fetching: Fetching, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    test_keys.SERVER_OVER.clear()
    fetching.server.answers["/good"] = test_keys.sends({"keys": [CI.jwk()]})
    fetching.server.answers["/keys"] = answer
    monkeypatch.setattr(keys, "PATIENCE", 0.3 if answer is test_keys.drips else 5.0)
    try:
        said = fetching.ask()
        assert (said["status"], said["error"]) == (503, "temporarily_unavailable") and "127.0.0.1" not in said[
            "error_description"
        ]
        assert "/good" not in fetching.server.asked
    finally:
        test_keys.SERVER_OVER.set()
    fetching.publish(CI.jwk())
    fetching.later()
    assert fetching.ask()["status"] == 200


@pytest.mark.parametrize("member", ["jku", "x5u"], ids=lambda member: f"69 an address in a token: {member}")
def test_an_address_in_a_token_is_never_asked(fetching: Fetching, member: str) -> None:
    evil = test_keys.Server()
    evil.serve(CI.jwk())
    claims = json.loads(b64decode(workflow(iss=fetching.server.origin).split(".")[1]))
    assert fetching.ask(CI.sign(claims, **{member: f"{evil.origin}/keys"}))["error"] == "invalid_client"
    assert fetching.ask(CI.sign({**claims, "iss": evil.origin}))["error"] == "invalid_client"
    evil.stop()
    assert evil.asked == [] and fetching.ask(CI.sign(claims))["status"] == 200


def test_70_unknown_kids_are_one_fetch(fetching: Fetching) -> None:
    """At the door there are 200; `test_70_ten_thousand_unknown_ids_are_one_fetch` has them all."""
    for number in range(200):
        assert (
            fetching.ask(Provider(f"made-up-{number}").sign({"iss": fetching.server.origin, "sub": "x"}))["error"]
            == "invalid_client"
        )
    assert fetching.server.asked.count("/keys") == 1 and fetching.ask()["status"] == 200
    assert fetching.server.asked.count("/keys") == 1


def test_71_an_outage_of_over_an_hour(fetching: Fetching) -> None:
    assert fetching.ask()["status"] == 200
    fetching.server.answers.clear()
    fetching.later(GOOD - 1)
    assert fetching.ask(jti="2")["status"] == 200
    fetching.later(PAUSE)
    assert fetching.ask(jti="3")["error"] == "temporarily_unavailable"
    fetching.publish(CI.jwk())
    fetching.later()
    assert fetching.ask(jti="3")["status"] == 200


def test_72_a_key_that_was_withdrawn(fetching: Fetching) -> None:
    new = Provider("c2")
    assert fetching.ask()["status"] == 200
    fetching.publish(new.jwk())
    fetching.later()
    claims = json.loads(b64decode(workflow(iss=fetching.server.origin, jti="2").split(".")[1]))
    assert fetching.ask(new.sign(claims))["status"] == 200, "its twin, whose key makes the service look again"
    assert fetching.ask(jti="3")["error"] == "invalid_client"


def test_73_a_discovery_document_of_another_issuer(fetching: Fetching) -> None:
    us = fetching.server.origin
    for issuer in ("https://evil.example", f"{us}/", us.upper()):
        fetching.server.answers["/.well-known/openid-configuration"] = test_keys.sends(
            {"issuer": issuer, "jwks_uri": f"{us}/keys"}
        )
        assert fetching.ask()["error"] == "temporarily_unavailable"
        fetching.later()
    assert "/keys" not in fetching.server.asked
    fetching.publish(CI.jwk())
    assert fetching.ask()["status"] == 200


# --- signals: 28, 31, 40 to 43, 52, 67, 81 to 85 -----------------------------------------------------------------------


class SignalDoor(Door):
    """A service that hears of acme's sessions, and a task of jane's that is live."""

    def __init__(self) -> None:
        super().__init__(test_signals.WITH_EVENTS)
        self.registry.enter(
            entry(
                "t",
                subject="acme:jane",
                provider="acme",
                session="s-1",
                now=assertions.NOW,
                issued_at=assertions.NOW - 9,
                deadline=assertions.NOW + 900,
            )
        )

    def told(self, kind: str, text: str) -> tuple[int, str]:
        if kind == LOGOUT:
            answer = posted(self, encoded({"logout_token": text}), FORM, "/logout/backchannel")
        else:
            answer = posted(self, text.encode(), "application/secevent+jwt", "/signals")
        said = answer.json() if answer.content else {}
        return answer.status_code, said.get("error") or said.get("err") or ""

    def is_live(self) -> bool:
        return bool(self.registry.is_live("t", assertions.NOW))


def _event(subject: Any, claims: Any, by: str = "events", typ: str = EVENT) -> str:
    return signed(by, test_signals.event(test_events.REVOKED, subject, claims), header={"typ": typ})


def _logout(claims: Mapping[str, Any], by: str = "acme", **header: Any) -> str:
    made = {name: value for name, value in (test_signals.LOGGING_OUT | dict(claims)).items() if value is not None}
    return signed(by, made, header={"typ": LOGOUT, **header})


SIGNALS: list[tuple[str, str, Text, str]] = [
    *((f"{name}, of a logout", LOGOUT, lambda changed=changed: _logout(changed), "invalid_request") for name, (changed, _) in test_signals.FAULTS.items()),
    *((f"{name}, of an event", EVENT, lambda subject=subject, claims=claims: _event(subject, claims), code)
      for name, (subject, claims, code, _) in test_events.EVENT_FAULTS.items()),
    ("31 a stranger among the audiences of a logout", LOGOUT, lambda: _logout({"aud": ["captoken-cli", "other"]}), "invalid_request"),
    ("83 a logout by another signer", LOGOUT, lambda: _logout({}, "hub", kid="acme-ES256"), "invalid_request"),
    ("83 an event by another signer", EVENT, lambda: _event(test_signals.JANE, {}, "acme"), "invalid_key"),
    ("84 a logout about another issuer's subject", LOGOUT, lambda: _logout({"iss": "https://hub.example"}), "invalid_request"),
    ("84 an event about another issuer's subject", EVENT, lambda: _event({**test_signals.JANE, "iss": "https://hub.example"}, {}), "invalid_request"),
    ("28 an event as a logout", LOGOUT, lambda: _event(test_signals.JANE, {}), "invalid_request"),
    ("28 a logout as an event", EVENT, lambda: _logout({}), "invalid_request"),
    ("28 a login as a logout", LOGOUT, lambda: signed("acme", assertions.LOGIN | {"jti": "x"}, header={"typ": LOGOUT}), "invalid_request"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "code"), [one[1:] for one in SIGNALS], ids=[one[0] for one in SIGNALS])
def test_a_signal_that_ends_nothing(kind: str, text: Text, code: str) -> None:
    door = SignalDoor()
    assert door.told(kind, text()) == (400, code) and door.is_live()
    status, _ = door.told(kind, _logout({}) if kind == LOGOUT else _event(test_signals.JANE, {}))
    assert status in (200, 202) and not door.is_live(), "its twin"


# --- the policy as it is loaded: 86 ------------------------------------------------------------------------------------

NIGHTLY = 'subject = { provider = "ci", repository_id = "42", ref = "refs/heads/main" }'
LOADS: list[tuple[str, str, str, str]] = [
    ("86 no subject and no actor", NIGHTLY, "", "neither subject nor actor"),
    ("86 a workload without sub or claims", NIGHTLY, 'subject = { provider = "ci" }', "any workload"),
    ("86 a workload without sub or claims as actor", 'actor = { provider = "mesh", sub = "spiffe://acme.example/ns/risk/*" }', 'actor = { provider = "mesh" }', "any workload"),
    ("86 a shared issuer without require", 'require = { repository_owner_id = "1234567" }', "", "the whole world"),
    ("86 a counted grant with several resources", 'resources = ["sentiment-api"]', 'resources = ["sentiment-api", "sales-db"]', "counted in one place"),
    ("86 unrestricted", "expires_in = 300 }\n[grant.guests]", "expires_in = 300, unrestricted = true }\n[grant.guests]", "not for a policy to say"),
    ("86 expires_in over task_max", "expires_in = 300 }\n[grant.guests]", "expires_in = 3601 }\n[grant.guests]", "outlives the task"),
    ("86 an undefined provider", NIGHTLY, 'subject = { provider = "nobody", a = "b" }', "provider names one"),
    ("86 an undefined resource", 'agents = ["nightly"]\nresources = ["sales-db"]', 'agents = ["nightly"]\nresources = ["hr-db"]', "no resource hr-db"),
    ("86 an undefined grant to join", 'joins = ["q3-risk"]', 'joins = ["q9"]', "no other grant"),
    ("86 an undefined discharger", 'from = "approvals"', 'from = "nobody"', "no discharger nobody"),
    ("86 an undefined grant of a test", '[[test]]\ngrant = "q3-risk"', '[[test]]\ngrant = "q9"', "no grant q9"),
    ("86 a test that fails", 'denies = [{ table = "hr"', 'denies = [{ table = "market.eu"', "test 1: q3-risk allows"),
    ("86 a test that is granted and should not be", 'groups = ["sales"] }\nrefused', 'groups = ["readers"] }\nrefused', "test 2: it is granted"),
    ("86 an unknown field", "bound = true", "bound = true\nbuond = true", "unknown key"),
    ("86 a subject by an address that is reassigned", 'subject = "acme:{sub}"', 'subject = "acme:{email}"', "somebody else later"),
    ("86 an expression for a claim", 'groups = ["finance"], acr', 'groups = ["fin.*"], acr', "only sub may"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "says"), [one[1:] for one in LOADS], ids=[one[0] for one in LOADS])
def test_a_policy_that_does_not_load(old: str, new: str, says: str) -> None:
    assert old in POLICY
    with pytest.raises(IssuanceError) as caught:
        desk.check_policy(policy.read(POLICY.replace(old, new)))
    assert caught.value.code == "policy" and says in str(caught.value)
    desk.check_policy(policy.read(POLICY))


def test_a_root_of_this_door_is_good_at_its_server() -> None:
    """What the twins get is no empty answer."""
    said = Door().started("cluster", signed("cluster", assertions.WORKLOAD))
    server = Verifier(
        KEYRING.for_audience("sales-db"), "sales-db", clock=FixedClock(assertions.NOW), replays=MemoryReplayStore(floor=0)
    )
    assert server.check(said["access_token"], Access(table="sales", operation="select")).code == "allowed"
    assert server.check(said["access_token"], Access(table="hr", operation="select")).code != "allowed"
