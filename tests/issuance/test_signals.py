"""What ends a login ends its tasks: signals verified and made into effects, and what the service does of them.

The numbers are those of the cases that must be denied, each with a twin that passes.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from captoken import Token
from captoken.adapters._issuance import publisher
from captoken.adapters._issuance.publisher import Publisher
from captoken.adapters.issuance import IssuanceService
from captoken.control import Operator
from captoken.errors import IssuanceError, StoreError
from captoken.issuance import identity, policy, signals
from captoken.issuance.registry import Change, Ending, MemoryRegistry
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.issuance.signals import LOGOUT, Effect
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from captoken.testing import FixedClock

from . import world as usual
from .assertions import LOGIN, NOW, POLICY, joined, keys, private, signed, without
from .test_service import ACME, MESH, ORIGIN, World, exchange, login, proof, svid

LOGGED_OUT = "http://schemas.openid.net/event/backchannel-logout"
LOGGING_OUT = {
    "iss": "https://login.acme.example", "sub": "jane", "sid": "s-1", "aud": "captoken-cli", "jti": "l-1", "iat": NOW - 10, "exp": NOW + 110,
    "events": {LOGGED_OUT: {}},
}  # fmt: skip
SIBLINGS = policy.read(
    usual.POLICY.replace(
        "[provider.partner]",
        """[provider.acme-api]
kind = "access-token"
issuer = "https://login.acme.example"
subject = "acme-api:{sub}"
[provider.acme-other]
kind = "access-token"
issuer = "https://login.acme.example"
subject = "acme-other:{oid}"
[provider.acme-actors]
kind = "workload"
issuer = "https://login.acme.example"
[provider.partner]""",
    )
)


def told(
    claims: Any, kind: str = LOGOUT, *, by: str = "acme", header: Any = (), over: policy.Policy = POLICY, now: int = NOW
) -> Effect:
    text = claims if isinstance(claims, str) else signed(by, claims, header={"typ": kind, **dict(header)})
    return signals.told(text, over, keys, now, kind)


def refused(claims: Any, kind: str = LOGOUT, **facts: Any) -> tuple[str, str]:
    with pytest.raises(IssuanceError) as caught:
        told(claims, kind, **facts)
    return caught.value.code, str(caught.value)


# --- a logout token --------------------------------------------------------------------------------------------------


def test_a_logout_of_a_session() -> None:
    """By `sid` alone: the `sub` beside it makes it no wider, and no narrower."""
    ended = Ending(now=NOW, provider="acme", session="s-1", issued_at=NOW - 10, jti="l-1")
    for claims in (LOGGING_OUT, without(LOGGING_OUT, "sub")):
        assert told(claims) == Effect("acme", "l-1", (ended,), "logout of a session")
    text = signed("acme", LOGGING_OUT, header={"typ": LOGOUT})
    assert signals.named(text, POLICY, LOGOUT) == ("acme", "acme-ES256")


def test_a_logout_of_a_person_is_of_all_sessions() -> None:
    ended = Ending(now=NOW, provider="acme", subject="acme:jane", issued_at=NOW - 10, jti="l-1")
    assert told(without(LOGGING_OUT, "sid")) == Effect("acme", "l-1", (ended,), "logout of all sessions of a person")


def test_a_logout_is_for_all_that_the_login_gave() -> None:
    """An access token of that login started tasks as well. Where the subject has no name, the log says so."""
    effect = told(LOGGING_OUT, over=SIBLINGS)
    assert {(one.provider, one.session) for one in effect.endings} == {
        ("acme", "s-1"),
        ("acme-api", "s-1"),
        ("acme-other", "s-1"),
    }
    effect = told(without(LOGGING_OUT, "sid"), over=SIBLINGS)
    assert {(one.provider, one.subject) for one in effect.endings} == {("acme", "acme:jane"), ("acme-api", "acme-api:jane")}
    assert "provider acme-other" in effect.note and "oid" in effect.note


def test_a_person_who_has_no_name_here_is_not_passed_over() -> None:
    claims = without(LOGGING_OUT, "sid") | {"sub": "auth0|jane/ü"}
    code, says = refused(claims)
    assert (code, says) == ("invalid_request", "the signal is refused: its subject has no name here")
    assert told(claims | {"sub": "auth0-jane"}).endings


def test_a_provider_that_starts_nothing_has_nothing_to_end() -> None:
    """It names actors alone. The logout is heard, and that is all."""
    claims = LOGGING_OUT | {"iss": "https://keycloak.example/realms/acme"}
    assert len(told(claims, by="keycloak").endings) == 1
    unnamed = msgspec.structs.replace(
        POLICY, subjects={name: one for name, one in POLICY.subjects.items() if name != "keycloak"}
    )
    assert told(claims, by="keycloak", over=unnamed) == Effect("keycloak", "l-1", (), "logout of a session")


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "28 an ID token": ({"events": None}, "one event"),
    "28 with a nonce": ({"nonce": "n"}, "nonce"),
    "85 two events": ({"events": {LOGGED_OUT: {}, "https://other.example/event": {}}}, "one event"),
    "85 another event": ({"events": {"https://other.example/event": {}}}, "another one"),
    "an event that is no object": ({"events": {LOGGED_OUT: []}}, "no object"),
    "a list of events": ({"events": [LOGGED_OUT]}, "one event"),
    "nobody": ({"sub": None, "sid": None}, "neither"),
    "sid is no text": ({"sid": 7}, "sid is no text"),
    "an empty sid": ({"sid": ""}, "sid is no text"),
    "sub is no text": ({"sub": ["jane"]}, "sub is no text"),
    "no jti": ({"jti": None}, "no jti"),
    "an empty jti": ({"jti": ""}, "jti is no text"),
    "40 expired": ({"exp": NOW - 31}, "expired"),
    "41 exp is text": ({"exp": str(NOW + 60)}, "exp is no time"),
    "41 no exp": ({"exp": None}, "no exp"),
    "42 too long a life": ({"exp": NOW + 3600}, "good for"),
    "43 ahead": ({"iat": NOW + 31, "exp": NOW + 60}, "future"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_logout_with_one_fault(fault: str) -> None:
    changed, says = FAULTS[fault]
    claims = {name: value for name, value in (LOGGING_OUT | changed).items() if value is not None}
    code, message = refused(claims)
    assert code == "invalid_request" and says in message
    assert told(LOGGING_OUT).endings, "its twin"


@pytest.mark.parametrize("aud", ["other", ["captoken-cli", "other"], [], None, 7, "https://issuer.example"], ids=repr)
def test_31_a_logout_for_another_application(aud: Any) -> None:
    claims = {name: value for name, value in (LOGGING_OUT | {"aud": aud}).items() if value is not None}
    assert refused(claims)[0] == "invalid_audience"
    for good in ("captoken-web", ["captoken-web", "captoken-cli"]):
        assert told(LOGGING_OUT | {"aud": good}).endings


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"typ": "JWT"}, "invalid_request"), ({"typ": "LOGOUT+JWT"}, "invalid_request"), ({"typ": "secevent+jwt"}, "invalid_request"),
        ({"jwk": {}}, "invalid_request"), ({"crit": []}, "invalid_request"), ({"kid": ""}, "invalid_request"), ({"alg": "none"}, "invalid_request"),
        ({"alg": "HS256"}, "invalid_request"), ({"alg": "RS256"}, "invalid_key"), ({"kid": "acme-api-ES256"}, "invalid_key"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_logout_with_another_header(header: dict[str, Any], code: str) -> None:
    made = {"alg": "ES256", "kid": "acme-ES256", "typ": LOGOUT, **header}
    text = joined(json.dumps(made).encode(), json.dumps(LOGGING_OUT).encode(), private("acme"), "ES256")
    assert refused(text)[0] == code
    assert told(LOGGING_OUT).endings


@pytest.mark.parametrize("text", [None, 7, "", "a.b", "a.b.c.d.e", "x" * 20_000, "cap1.x.y"], ids=lambda text: repr(text)[:12])
def test_what_is_no_signal(text: Any) -> None:
    with pytest.raises(IssuanceError) as caught:
        signals.named(text, POLICY, LOGOUT)
    assert caught.value.code == "invalid_request"


def test_28_a_logout_is_no_login_and_a_login_no_logout() -> None:
    """Whatever its `typ` says."""
    takes = ("oidc",)
    for typ in (LOGOUT, "JWT"):
        text = signed("acme", LOGIN | LOGGING_OUT, header={"typ": typ})
        with pytest.raises(IssuanceError):
            identity.verify(text, POLICY, keys, NOW, "https://issuer.example", takes)
        refused(signed("acme", LOGIN | {"jti": "l-1"}, header={"typ": typ}))
    assert identity.verify(signed("acme", LOGIN), POLICY, keys, NOW, "https://issuer.example", takes).sub == "jane"
    assert told(LOGGING_OUT).endings


def test_83_a_logout_by_another_signer() -> None:
    assert refused(signed("hub", LOGGING_OUT, header={"typ": LOGOUT, "kid": "acme-ES256"}))[0] == "invalid_key"
    assert told(signed("acme", LOGGING_OUT, header={"typ": LOGOUT})).endings


@pytest.mark.parametrize(
    "iss",
    ["https://login.acme.example/", "https://hub.example", "HTTPS://login.acme.example", ["https://login.acme.example"], None],
    ids=repr,
)
def test_84_a_logout_of_another_issuer(iss: Any) -> None:
    """Also of one that is known here, and is for something else."""
    assert refused(LOGGING_OUT | {"iss": iss})[0] == "invalid_issuer"
    assert told(LOGGING_OUT).endings


def test_a_logout_that_two_providers_could_have_sent() -> None:
    twice = '[provider.again]\nkind = "oidc"\nissuer = "https://login.acme.example"\nclient_ids = ["x"]\nmax_login_age = 9\n[provider.partner]'
    both = policy.read(usual.POLICY.replace("[provider.partner]", twice))
    assert refused(LOGGING_OUT, over=both) == ("invalid_request", "the signal is refused: it could be of several")


# --- the service -----------------------------------------------------------------------------------------------------


class Ended(World):
    """A service with an operator, in one event loop: its lifespan is run."""

    def __init__(self, **facts: Any) -> None:
        self.operator = Operator(OperatorKey.generate(), MemorySnapshots(), by="issuer", clock=FixedClock(usual.NOW))
        self.facts = {"operator": self.operator, **facts}
        super().__init__(**self.facts)

    def said(self) -> list[tuple[str | None, int | None, Any]]:
        """What the overlay says."""
        return [(one.select.task, one.until, one.link) for one in self.operator.entries()]


@asynccontextmanager
async def living(app: IssuanceService) -> AsyncIterator[httpx.AsyncClient]:
    """The application between its startup and its shutdown."""
    told: asyncio.Queue[Any] = asyncio.Queue()
    said: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan"}, told.get, said.put))
    await told.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        yield client
    await told.put({"type": "lifespan.shutdown"})
    await task


def anew(world: World) -> IssuanceService:
    """A service of the same registry and overlay that was just started: keys are of one event loop."""
    facts = {**getattr(world, "facts", {}), "registry": world.registry, "clock": world.clock}
    return World(world.policy, **facts).app


def lived(world: World | IssuanceService, *texts: str) -> list[httpx.Response]:
    """Logouts, told to a service that starts before and ends after."""
    app = anew(world) if isinstance(world, World) else world

    async def all_of_it() -> list[httpx.Response]:
        async with living(app) as client:
            return [await client.post("/logout/backchannel", data={"logout_token": text}) for text in texts]

    return asyncio.run(all_of_it())


def logout(**claims: Any) -> str:
    made = {
        "iss": "https://login.acme.example", "sub": "jane", "sid": "s1", "aud": "captoken-cli", "jti": "l1", "iat": usual.NOW - 5,
        "exp": usual.NOW + 115, "events": {LOGGED_OUT: {}}, **claims,
    }  # fmt: skip
    return ACME.sign({name: value for name, value in made.items() if value is not None}, typ=LOGOUT)


def start(world: World, number: int = 0, **claims: Any) -> str:
    """A task of jane's."""
    said = world.ask(proof(jti=f"p{number}"), **exchange(subject_token=login(**{"iat": usual.NOW - 5 - number, **claims})))
    assert said["status"] == 200, said
    return str(said["task"])


def test_a_logout_ends_the_tasks_of_its_session_and_the_overlay_says_so() -> None:
    world = Ended()
    mine, other = start(world, 1), start(world, 2, sid="s2")
    (answer,) = lived(world, logout())
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (200, b"", "no-store")
    assert world.said() == [(mine, usual.NOW + 3660, None)] and world.registry.unpublished() == ()
    assert not world.registry.is_live(mine, usual.NOW) and world.registry.is_live(other, usual.NOW)
    lived(world, logout(jti="l2", sid=None))
    assert {task for task, _, _ in world.said()} == {mine, other}


def test_81_an_assertion_of_before_the_logout_starts_nothing() -> None:
    world = Ended()
    subject = login()
    assert world.ask(proof(jti="a"), **exchange(subject_token=subject))["status"] == 200
    lived(world, logout())
    for number, text in enumerate((subject, login(iat=usual.NOW - 9), login(iat=usual.NOW + 1))):
        assert world.ask(proof(jti=f"b{number}"), **exchange(subject_token=text))["error"] == "invalid_grant"
    assert start(world, 0, sid="s2"), "a new session does"


def test_82_a_lease_after_the_logout_is_refused() -> None:
    world = Ended()
    said = world.ask(proof(), **exchange())
    (ticket,) = Token.parse(said["access_token"], clock=FixedClock(usual.NOW)).needs

    def leased() -> httpx.Response:
        return world.send("POST", "/.well-known/captoken/3p", json={"ticket": ticket.text})

    assert leased().status_code == 200
    lived(world, logout())
    assert (leased().status_code, leased().json()["error"]) == (403, "the task is over")


def test_52_a_logout_that_comes_again_has_no_effect() -> None:
    world = Ended()
    start(world, 1)
    assert [answer.status_code for answer in lived(world, logout(sid=None))] == [200]
    later = start(world, 0, iat=usual.NOW + 1, sid="s2")
    assert [answer.status_code for answer in lived(world, logout(sid=None), logout(sid=None))] == [200, 200]
    assert world.registry.is_live(later, usual.NOW) and len(world.said()) == 1
    lived(world, logout(sid=None, jti="l2"))
    assert not world.registry.is_live(later, usual.NOW), "its twin is another one"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"logout_token=x", "application/x-www-form-urlencoded"), (b"", "application/x-www-form-urlencoded"), (b"a=b", "application/x-www-form-urlencoded"),
        (b"logout_token=x&logout_token=x", "application/x-www-form-urlencoded"), (b"{}", "application/json"), (b"logout_token=x", "text/plain"),
        (b"logout_token=" + b"x" * 70_000, "application/x-www-form-urlencoded"), (b"logout_token=" + b"x" * 17_000, "application/x-www-form-urlencoded"),
    ],
    ids=["no token", "empty", "another name", "2 twice", "1 JSON", "text", "3 long", "4 long token"],
)  # fmt: skip
def test_what_is_no_logout_is_answered_400(body: bytes, kind: str) -> None:
    world = Ended()
    answer = world.send("POST", "/logout/backchannel", content=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert world.send("POST", "/logout/backchannel", data={"logout_token": logout()}).status_code == 200
    assert world.send("GET", "/logout/backchannel").status_code == 405


def test_a_logout_of_somebody_elses_ends_nothing() -> None:
    """83: signed by another provider. Whatever is wrong with it, the code is that of OpenID Connect."""
    world = Ended()
    task = start(world)
    forged = MESH.sign(
        {
            "iss": "https://login.acme.example",
            "sid": "s1",
            "aud": "captoken-cli",
            "jti": "l1",
            "iat": usual.NOW,
            "exp": usual.NOW + 60,
            "events": {LOGGED_OUT: {}},
        },
        typ=LOGOUT,
    )
    for text in (forged, logout(aud="x"), logout(iss="https://other.example"), login(), svid()):
        (answer,) = lived(world, text)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert world.registry.is_live(task, usual.NOW) and world.said() == []


class Failing:
    """A registry or an operator of which one method fails so often."""

    def __init__(self, inner: Any, method: str, often: int, error: Exception | None = None) -> None:
        self._inner = inner
        self._method = method
        self._error = error or StoreError("gone: /var/lib/x")
        self.left = often

    def __getattr__(self, name: str) -> Any:
        def fails(*_: Any, **__: Any) -> Any:
            self.left -= 1
            raise self._error

        return fails if name == self._method and self.left > 0 else getattr(self._inner, name)


def test_a_logout_that_cannot_be_written_is_to_be_sent_again() -> None:
    registry = Failing(MemoryRegistry(floor=0), "end", 1)
    world = Ended(registry=registry)
    task = start(world)
    failed, done = lived(world, logout(), logout())
    assert (failed.status_code, failed.json()["error"]) == (503, "temporarily_unavailable") and "var" not in failed.text
    assert done.status_code == 200 and not world.registry.is_live(task, usual.NOW) and len(world.said()) == 1


def test_a_logout_whose_keys_cannot_be_had_is_to_be_sent_again() -> None:
    from captoken.issuance.keys import ProviderKeys

    async def gone() -> bytes:
        raise OSError("gone")

    world = Ended()
    away = ProviderKeys(world.policy, sources=dict.fromkeys(world.policy.providers, gone))
    app = IssuanceService(world.policy, usual.KEYRING, world.registry, lease=usual.LEASE, keys=away, clock=world.clock)
    (answer,) = lived(app, logout())
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")


@pytest.mark.parametrize("method", ["revoke", "published", "unpublished"])
def test_what_is_not_published_is_tried_again_until_it_stands(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(publisher, "AGAIN", 0.01)
    registry, operator = (
        MemoryRegistry(floor=0),
        Operator(OperatorKey.generate(), MemorySnapshots(), by="issuer", clock=FixedClock(usual.NOW)),
    )
    failing: Any = Failing(operator if method == "revoke" else registry, method, 3, OSError("gone"))
    world = Ended(**({"operator": failing} if method == "revoke" else {"registry": failing, "operator": operator}))
    task = start(world)

    async def logged_out() -> None:
        async with living(anew(world)) as client:
            assert (await client.post("/logout/backchannel", data={"logout_token": logout()})).status_code == 200
            while failing.left > 0 or world.registry.unpublished():
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(logged_out(), 20))
    assert {entry.select.task for entry in operator.entries()} == {task}
    assert "gone" in caplog.text


def test_a_crash_between_the_end_and_its_publication_loses_nothing(tmp_path: Path) -> None:
    """The process is gone with its overlay unsaid. The next one says it when it starts."""
    registry = SQLiteRegistry.create(tmp_path / "tasks.db", floor=0)
    task = start(World(registry=registry))
    registry.end(Ending(now=usual.NOW, provider="acme", session="s1", jti="l1"))
    registry.close()

    again = SQLiteRegistry(tmp_path / "tasks.db")
    world = Ended(registry=again)
    assert world.said() == []
    lived(world)
    assert world.said() == [(task, usual.NOW + 3660, None)] and again.unpublished() == ()
    again.close()


def test_a_logout_without_a_lifespan_is_published_as_well() -> None:
    """Where the service is mounted in another one, that may run none."""
    world = Ended()
    task = start(world)

    async def logged_out() -> None:
        transport = httpx.ASGITransport(app=anew(world))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            await client.post("/logout/backchannel", data={"logout_token": logout()})
        while not world.said():
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(logged_out(), 20))
    assert [one for one, _, _ in world.said()] == [task]


def test_an_end_that_races_a_start_leaves_nothing_alive() -> None:
    """Each exchange is before the logout, and then ended by it, or after it, and refused."""
    world = Ended()

    async def race() -> list[Any]:
        async with living(anew(world)) as client:

            async def started(number: int) -> Any:
                form = exchange(subject_token=login(sub=f"p{number}", iat=usual.NOW - 5 - number))
                return (await client.post("/token", data=form, headers=proof(jti=f"r{number}"))).json()

            async def over() -> None:
                assert (await client.post("/logout/backchannel", data={"logout_token": logout()})).status_code == 200

            return list(
                await asyncio.gather(
                    *(started(number) for number in range(8)), over(), *(started(number) for number in range(8, 16))
                )
            )

    answers = [answer for answer in asyncio.run(race()) if answer is not None]
    tasks = {answer["task"] for answer in answers if "task" in answer}
    assert all(answer.get("error", "invalid_grant") == "invalid_grant" for answer in answers)
    assert {task for task in tasks if world.registry.is_live(task, usual.NOW)} == set()
    assert {task for task, _, _ in world.said()} == tasks


def test_without_an_operator_the_leases_end() -> None:
    world = World()
    task = start(world)
    lived(world, logout())
    assert not world.registry.is_live(task, usual.NOW) and len(world.registry.unpublished()) == 1
    world.clock.advance(3600 + 60)
    lived(world)
    assert world.registry.unpublished() == (), "nobody has to hear it any more"


def test_a_publisher_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "PATIENCE", 0.05)
    gate = threading.Event()

    class Hanging(MemoryRegistry):
        def unpublished(self) -> tuple[Change, ...]:
            gate.wait(10)
            return ()

    async def closed() -> None:
        one = Publisher(Hanging(floor=0), None, FixedClock(NOW))
        await one.close()  # it has not begun
        one.wake()
        await asyncio.sleep(0)
        await one.close()
        gate.set()

    asyncio.run(asyncio.wait_for(closed(), 5))


def test_the_registry_is_asked_for_leases_in_a_thread() -> None:
    asked: list[int] = []

    class Noting(MemoryRegistry):
        def is_live(self, task: str, now: int) -> bool:
            asked.append(threading.get_ident())
            return super().is_live(task, now)

    world = World(registry=Noting(floor=0))
    (ticket,) = Token.parse(world.ask(proof(), **exchange())["access_token"], clock=FixedClock(usual.NOW)).needs
    assert world.send("POST", "/.well-known/captoken/3p", json={"ticket": ticket.text}).status_code == 200
    assert asked and threading.get_ident() not in asked


@pytest.mark.parametrize("instead", [b'{"operations":["select"]}', b'{"depth":1}', b'{"task":"other"}', b'{"tables":7}'], ids=bytes.decode)
def test_a_task_is_narrowed_and_ends_where_no_overlay_can_say_it(instead: bytes) -> None:
    world = Ended()
    task = start(world)
    world.registry.end(Ending(now=usual.NOW, provider="acme", subject="acme:jane", grants=("q3-risk",), instead={"q3-risk": instead}))
    lived(world)
    link = {"operations": ["select"]} if b"operations" in instead else None
    assert world.said() == [(task, usual.NOW + 3660, link)] and world.registry.unpublished() == ()


def test_a_narrowing_that_a_store_does_not_take_is_due_and_ends_nothing() -> None:
    world = Ended()
    start(world)
    world.registry.end(Ending(now=usual.NOW, provider="acme", subject="acme:jane", grants=("q3-risk",), instead={"q3-risk": b'{"operations":["select"]}'}))
    assert not Publisher(world.registry, Failing(world.operator, "narrow", 1), world.clock).publish()
    assert world.said() == [] and len(world.registry.unpublished()) == 1
    assert Publisher(world.registry, world.operator, world.clock).publish()
    assert len(world.said()) == 1
