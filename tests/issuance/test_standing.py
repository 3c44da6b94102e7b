"""A service that takes its policy, its keyring and its operator anew: all of it, or nothing, and no request sees half."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import httpx
import pytest

from captoken import Keyring, Token, Verifier
from captoken.adapters._issuance.standing import checked
from captoken.adapters.issuance import Setup
from captoken.control import Operator
from captoken.errors import IssuanceError
from captoken.issuance.policy import Policy, read
from captoken.issuance.registry import Ending
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from captoken.testing import FixedClock

from .fixtures import KEYRING, NOW, POLICY, policy
from .registries import Place
from .test_issuance import ORIGIN, ROOT, SALES, World, exchange, login, nightly, proof, workflow
from .test_signals import logout

READS_ONLY = '[grant.nightly.give]\nallow = { "sales" = ["update"] }\nexpires_in = 300\n[grant.guests]'
OTHER = POLICY.replace('give = { allow = { "sales" = ["select"] }, expires_in = 300 }\n[grant.guests]', READS_ONLY)


def again(world: World, load: Callable[[], Setup]) -> bool:
    return asyncio.run(world.app.reload(load))


def may(world: World, n: int = 1) -> list[str]:
    """What a workflow's token may do at sales."""
    said = world.ask(**nightly(client_assertion=workflow(jti=f"may{n}")))
    return list(said["authorization_details"][0]["operations"])


def test_another_policy_stands_from_then_on() -> None:
    one = World()
    assert may(one) == ["select"]
    assert again(one, lambda: Setup(read(OTHER), KEYRING))
    assert may(one, 2) == ["update"]
    said = one.ask(**nightly(client_assertion=workflow(jti="x"), requested_token_type=ROOT))
    assert Token.parse(said["access_token"]).unverified.root.ext["policy:hash"] == read(OTHER).digest
    assert one.send("GET", "/health").json() == {"status": "ok"}


def another_origin() -> Policy:
    return policy(POLICY.replace("https://issuer.example", "https://other.example"))


def missing() -> Setup:
    raise FileNotFoundError("policy.toml is not there")


FAILING = POLICY + '[[test]]\nsubject = { provider = "ci", repository_id = "42", ref = "refs/heads/main" }\nrefused = true\n'


@pytest.mark.parametrize(
    "load, says",
    [
        (lambda: Setup(read(FAILING), KEYRING), "test 3: it is granted, as nightly"),
        (lambda: Setup(read("version = 2"), KEYRING), "does not load"),
        (lambda: Setup(another_origin(), KEYRING), "service.origin has changed"),
        (lambda: Setup(policy(), "no keyring"), "keyring must be a Keyring"),  # type: ignore[arg-type]
        (lambda: Setup(policy(POLICY.replace('issuer = "https://partner.example"', 'issuer = "https://p.example"\njwks = "ftp://x"')), KEYRING), "keys must be at"),
        (missing, "policy.toml is not there"),
    ],
    ids=["its test", "no policy", "origin", "keyring", "keys", "file"],
)
def test_what_fails_leaves_what_stood_before(load: Callable[[], Setup], says: str, caplog: pytest.LogCaptureFixture) -> None:
    one = World()
    one.app._standing.keys._sources.pop("partner")
    assert not again(one, load)
    assert says in caplog.text and [record.levelname for record in caplog.records] == ["ERROR"]
    assert may(one) == ["select"]
    health = one.send("GET", "/health")
    assert (health.status_code, health.json()["status"]) == (200, "ok") and "the last one failed" in health.json()["reload"]
    assert says not in health.text, "what a policy says is nobody's business"

    assert again(one, lambda: Setup(read(OTHER), KEYRING))
    assert one.send("GET", "/health").json() == {"status": "ok"} and may(one, 2) == ["update"]


def test_a_policy_with_leases_needs_their_key_at_a_reload_too() -> None:
    one = World()
    one.app._lease = None
    assert not again(one, lambda: Setup(policy(), KEYRING))


def test_another_keyring_mints_from_then_on() -> None:
    one = World()
    rotated = KEYRING.rotate()
    assert again(one, lambda: Setup(policy(), rotated))
    text = one.ask(**nightly())["access_token"]
    assert Token.parse(text).unverified.root.key_id != "k1"
    server = Verifier(rotated.for_audience("sales-db"), "sales-db", clock=FixedClock(NOW))
    assert server.check(text, SALES).code == "allowed"


def test_another_operator_ends_tasks_from_then_on() -> None:
    first, second = OperatorKey.generate(), OperatorKey.generate()
    store = MemorySnapshots()
    clock = FixedClock(NOW)
    one = World(operator=Operator(first, store, by="issuer", clock=clock))
    started = [one.ask(**nightly(client_assertion=workflow(jti=str(number))))["task"] for number in range(2)]

    def ended(task: str, public: str) -> bool:
        one.registry.end(Ending(now=NOW, task=task))
        assert one.app._ends.publisher.publish()
        from captoken.control import Overlay

        overlay = Overlay.open(store.load(), [public])
        return any(entry.select.task == task for entry in overlay.entries)

    assert ended(started[0], first.public)
    taken_over = Operator(second, store, by="issuer", trusted=[first.public], clock=clock)
    assert again(one, lambda: Setup(policy(), KEYRING, taken_over))
    assert ended(started[1], second.public)


def test_a_request_that_is_under_way_ends_by_what_it_began_with() -> None:
    """Old policy with old keys, or new with new: never one with the other, however many reload meanwhile."""
    often = "[service]\nper_minute = 10000"
    setups = [Setup(read(text.replace("[service]", often)), ring) for text, ring in ((POLICY, KEYRING), (OTHER, KEYRING.rotate()))]
    made = {setup.policy.digest: (setup.keyring.current, what) for setup, what in zip(setups, (["select"], ["update"]), strict=True)}
    one = World(setups[0].policy)

    async def all_at_once() -> set[str]:
        seen: set[str] = set()
        is_over = asyncio.Event()

        async def reloads() -> None:
            for setup in itertools.cycle(setups):
                if is_over.is_set():
                    return
                assert await one.app.reload(lambda setup=setup: setup)

        async def ask(client: httpx.AsyncClient, number: int) -> None:
            form = nightly(client_assertion=workflow(jti=str(number)), requested_token_type=ROOT)
            answer = await client.post("/token", data=form)
            assert answer.status_code == 200, answer.text
            said = Token.parse(answer.json()["access_token"]).unverified
            digest = said.root.ext["policy:hash"]
            assert (said.root.key_id, said.capability.json()["operations"]) == made[digest]
            seen.add(digest)

        async def asks() -> None:
            transport = httpx.ASGITransport(app=one.app)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
                # So long that both have stood, on a machine that is busy, too.
                for number in range(0, 2000, 5):
                    await asyncio.gather(*(ask(client, number + more) for more in range(5)))
                    if number >= 50 and len(seen) == 2:
                        break
            is_over.set()

        await asyncio.gather(asks(), reloads())
        return seen

    assert asyncio.run(all_at_once()) == made.keys()


def test_a_request_goes_by_the_keys_of_its_own_policy() -> None:
    """A provider whose keys are elsewhere now: who began before is verified by those of before."""
    one = World()
    before = one.app._standing
    moved = POLICY.replace('issuer = "https://token.actions.githubusercontent.com"', 'issuer = "https://token.actions.githubusercontent.com"\njwks = "/nowhere"')
    one.ask(**nightly())
    known = before.keys("ci", "c")
    assert known is not None
    before.keys._sources.pop("ci")
    assert again(one, lambda: Setup(read(moved), KEYRING))
    after = one.app._standing
    assert after.keys("ci", "c") is None and before.keys("ci", "c") is known
    assert after.keys._shelves["acme"] is before.keys._shelves["acme"], "what has not changed is known on"
    assert one.ask(**nightly(client_assertion=workflow(jti="2")))["status"] == 503


def test_two_reloads_come_one_after_the_other() -> None:
    one = World()
    under_way: list[int] = []

    def load() -> Setup:
        under_way.append(1)
        assert len(under_way) == 1
        under_way.pop()
        return Setup(policy(), KEYRING)

    async def both() -> list[bool]:
        return list(await asyncio.gather(*(one.app.reload(load) for _ in range(4))))

    assert asyncio.run(both()) == [True] * 4


def test_what_is_tested_is_the_policy_that_comes() -> None:
    with pytest.raises(IssuanceError, match="test 3"):
        checked(lambda: Setup(read(FAILING), KEYRING), policy(), FixedClock(NOW))
    setup = Setup(policy(), KEYRING)
    assert checked(lambda: setup, policy(), FixedClock(NOW)) is setup


# --- the files -------------------------------------------------------------------------------------------------------


def test_a_task_that_is_out_goes_on_over_a_reload() -> None:
    one = World()
    said = one.ask(proof(), **exchange())
    assert again(one, lambda: Setup(read(OTHER), KEYRING))
    root = Token.parse(said["access_token"])
    (ticket,) = root.needs
    assert one.send("POST", "/.well-known/captoken/3p", json={"ticket": ticket.text}).status_code == 200


def test_a_keyring_may_be_asked_for_each_time() -> None:
    one = World()
    several = [KEYRING]

    def newest() -> Keyring:
        return several[-1]

    assert again(one, lambda: Setup(policy(), newest))
    assert one.ask(**nightly())["status"] == 200
    several.append(KEYRING.rotate())
    text = one.ask(**nightly(client_assertion=workflow(jti="2")))["access_token"]
    assert Token.parse(text).unverified.root.key_id == several[-1].current


RENAMED = POLICY.replace("[provider.acme]", "[provider.corp]").replace('provider = "acme"', 'provider = "corp"')
OTHERWISE = POLICY.replace('subject = "acme:{sub}"', 'subject = "acme:{sub#}"')
ANOTHER = POLICY.replace('issuer = "https://login.acme.example"', 'issuer = "https://login.other.example"')


@pytest.mark.parametrize("changed", [RENAMED, OTHERWISE, ANOTHER], ids=["renamed", "subjects named otherwise", "another issuer"])
def test_a_provider_that_is_renamed_is_refused_and_logouts_go_on_finding_its_tasks(place: Place, changed: str) -> None:
    """The specification's rule 44.17. By a reload the old policy stands; a service that starts anew with it does nothing at all, and says what to do."""
    world = World(registry=place.created())
    out = world.ask(proof(), **exchange())
    assert out["status"] == 200
    assert not asyncio.run(world.app.reload(lambda: Setup(policy(changed), KEYRING)))
    assert "reload" in world.send("GET", "/health").json()

    anew = World(policy(changed), registry=world.registry)
    # Of another issuer, hers is nobody's: that is seen before.
    refused = 400 if changed is ANOTHER else 503
    assert anew.ask(proof(jti="p2"), **exchange(subject_token=login(iat=NOW - 3)))["status"] == refused
    assert anew.send("GET", "/health").status_code == 503
    assert anew.send("POST", "/logout/backchannel", data={"logout_token": logout(sid=None)}).status_code == 503
    assert world.registry.is_live(out["task"], NOW)

    assert world.send("POST", "/logout/backchannel", data={"logout_token": logout(sid=None)}).status_code == 200
    assert not world.registry.is_live(out["task"], NOW)
    assert world.ask(proof(jti="p3"), **exchange(subject_token=login(iat=NOW - 3)))["status"] == 400
