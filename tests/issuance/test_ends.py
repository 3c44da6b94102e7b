"""What the service does of a signal: tasks end, the overlay says so, and what cannot be written is to be sent again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from captoken import Token
from captoken.adapters._issuance import ends as published
from captoken.adapters._issuance.ends import Publisher
from captoken.adapters.issuance import IssuanceService
from captoken.control import Operator
from captoken.errors import IssuanceError, StoreError
from captoken.issuance import policy
from captoken.issuance.registry import Ending, MemoryRegistry, Unpublished
from captoken.issuance.registry.ports import LEEWAY
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.issuance.signals import EVENT, LOGOUT
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from captoken.testing import FixedClock
from tests.issuance.test_signals import CAEP, JANE, LOGGED_OUT, RISC, SSF, STREAM, WITH_EVENTS, event, logout

from . import fixtures as usual
from .assertions import NOW
from .test_issuance import ACME, EVENTS, MESH, ORIGIN, Gone, World, exchange, login, proof, svid


class Ended(World):
    """A service with an operator, in one event loop: its lifespan is run."""

    def __init__(self, **facts: Any) -> None:
        self.operator = Operator(OperatorKey.generate(), MemorySnapshots(), by="issuer", clock=FixedClock(usual.NOW))
        self.facts = {"operator": self.operator, **facts}
        self.facts.pop("of", None)
        super().__init__(facts.get("of"), **self.facts)

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


def start(world: World, number: int = 0, **claims: Any) -> str:
    """A task of jane's."""
    now = world.clock.now
    said = world.ask(proof(jti=f"p{number}", iat=now), **exchange(subject_token=login(**{"iat": now - 5 - number, **claims})))
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


@pytest.mark.parametrize("told", ["logout", "event"])
def test_81_an_assertion_that_is_stamped_ahead_is_of_before(told: str) -> None:
    """It was signed before the logout, by a clock that is ahead: all that the service takes, the logout reaches."""
    world = streaming() if told == "event" else Ended()
    ahead = [exchange(subject_token=login(iat=usual.NOW + number, sid="s2")) for number in (1, 15, LEEWAY)]
    if told == "event":
        assert [answer.status_code for answer in sent(world, seen(f"{RISC}sessions-revoked"))] == [202]
    else:
        assert [answer.status_code for answer in lived(world, logout(sid=None))] == [200]
    for number, form in enumerate(ahead):
        said = world.ask(proof(jti=f"a{number}"), **form)
        assert (said["error"], said["error_description"]) == ("invalid_grant", "the assertion cannot start a task: get a new one")
    world.clock.advance(LEEWAY + 1)
    assert start(world, 9, iat=world.clock.now, sid="s2"), "who logs in after that starts anew"


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
    world.clock.advance(LEEWAY + 1)
    later = start(world, 0, iat=world.clock.now, sid="s2")
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
    monkeypatch.setattr(published, "AGAIN", 0.01)
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
    monkeypatch.setattr(published, "PATIENCE", 0.05)
    gate = threading.Event()

    class Hanging(MemoryRegistry):
        def unpublished(self) -> tuple[Unpublished, ...]:
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


def seen(kind: str, subject: Any = JANE, jti: str = "e1", **payload: Any) -> str:
    """An event as it is sent to the service."""
    claims = event(kind, subject, {"iat": usual.NOW - 5, "jti": jti}) | {"events": {kind: payload}}
    return EVENTS.sign(claims, typ=EVENT)


def sent(world: World, *texts: str, kind: str = "application/secevent+jwt") -> list[httpx.Response]:
    """Events, pushed to a service that starts before and ends after."""

    async def all_of_it() -> list[httpx.Response]:
        async with living(anew(world)) as client:
            return [await client.post("/signals", content=text, headers={"content-type": kind}) for text in texts]

    return asyncio.run(all_of_it())


def streaming(**facts: Any) -> Ended:
    """A service whose stream was heard."""
    world = Ended(of=WITH_EVENTS, **facts)
    (answer,) = sent(world, seen(f"{SSF}verification", jti="v1"))
    assert (answer.status_code, answer.content) == (202, b"")
    return world


def test_an_event_ends_tasks_and_the_overlay_says_so() -> None:
    world = streaming()
    task = start(world)
    (answer,) = sent(world, seen(f"{RISC}account-disabled"))
    assert answer.status_code == 202
    assert world.said() == [(task, usual.NOW + 3660, None)] and not world.registry.is_live(task, usual.NOW)
    assert world.ask(proof(jti="z"), **exchange(subject_token=login(iat=usual.NOW)))["error"] == "invalid_grant", "81"


def test_67_an_event_narrows_and_when_all_is_well_nothing_is_lifted() -> None:
    world = streaming()
    task = start(world)
    change = f"{CAEP}device-compliance-change"
    sent(world, seen(change, jti="e1", current_status="not-compliant"))
    narrowed = [(task, usual.NOW + 3660, {"operations": ["select"]})]
    assert world.said() == narrowed and world.registry.is_live(task, usual.NOW)
    well = [seen(change, jti="e2", current_status="compliant"), seen(f"{RISC}account-enabled", jti="e3")]
    assert [answer.status_code for answer in sent(world, *well)] == [202, 202]
    assert world.said() == narrowed

    sent(world, seen(f"{CAEP}risk-level-change", jti="e4", current_level="HIGH"))
    assert not world.registry.is_live(task, usual.NOW)
    sent(world, seen(f"{CAEP}risk-level-change", jti="e5", current_level="LOW"))
    assert not world.registry.is_live(task, usual.NOW) and len(world.said()) == 2


def test_52_an_event_that_comes_again_has_no_effect() -> None:
    world = streaming()
    start(world, 1)
    sent(world, seen(f"{RISC}sessions-revoked"))
    world.clock.advance(LEEWAY + 1)
    later = start(world, 0, iat=world.clock.now, sid="s2")
    assert [answer.status_code for answer in sent(world, *[seen(f"{RISC}sessions-revoked")] * 2)] == [202, 202]
    assert world.registry.is_live(later, usual.NOW)
    sent(world, seen(f"{RISC}sessions-revoked", jti="e2"))
    assert not world.registry.is_live(later, usual.NOW), "its twin is another one"


def test_what_is_no_event_is_answered_400_in_the_words_of_its_rfc() -> None:
    world = streaming()
    task = start(world)
    forged = ACME.sign(event(f"{RISC}account-disabled", JANE, {"iat": usual.NOW}), typ=EVENT)
    for text, err in ((forged, "invalid_key"), ("x", "invalid_request"), ("\xff", "invalid_request"), (logout(), "invalid_request"), (logout(iss="https://x.example"), "invalid_issuer"), ("x" * 70_000, "invalid_request")):
        (answer,) = sent(world, text)
        assert (answer.status_code, answer.json()["err"]) == (400, err) and answer.json()["description"]
        assert answer.headers["content-type"] == "application/json"
    for kind in ("application/json", "application/jwt"):
        (answer,) = sent(world, seen(f"{RISC}account-disabled"), kind=kind)
        assert (answer.status_code, answer.json()["err"]) == (400, "invalid_request")
    assert world.registry.is_live(task, usual.NOW) and world.said() == []


def test_an_event_that_cannot_be_written_is_to_be_sent_again() -> None:
    world = streaming()
    task = start(world)
    world.registry = Failing(world.registry, "hear", 1)
    failed, done = sent(world, *[seen(f"{RISC}account-disabled")] * 2)
    assert (failed.status_code, failed.json()["err"]) == (503, "temporarily_unavailable") and "var" not in failed.text
    assert done.status_code == 202 and not world.registry.is_live(task, usual.NOW)


def test_a_stream_that_is_paused_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    sent(streaming(), seen(f"{SSF}stream-updated", {"format": "opaque", "id": "x"}, "u1", status="paused"))
    assert [one.levelname for one in caplog.records if "stream-updated" in one.getMessage()] == ["ERROR"]


def test_a_silent_stream_fails_the_health_and_what_is_closed_with_it() -> None:
    """Silent for more than 900 seconds, or never heard: what ended since is not known."""
    world = Ended(of=WITH_EVENTS)
    answer = world.send("GET", "/health")
    assert (answer.status_code, answer.json()) == (503, {"status": "streams of events are silent", "silent": ["events"]})
    said = world.ask(proof(jti="a"), **exchange())
    assert (said["status"], said["error"]) == (503, "temporarily_unavailable") and "events" not in said["error_description"]

    sent(world, seen(f"{SSF}verification", jti="v1"))
    assert world.send("GET", "/health").status_code == 200 and start(world, 1)
    world.clock.advance(900)
    assert world.send("GET", "/health").status_code == 200
    world.clock.advance(1)
    assert world.send("GET", "/health").status_code == 503
    late = {"iat": usual.NOW + 900, "exp": usual.NOW + 1100}
    assert world.ask(proof(jti="b", iat=usual.NOW + 901), **exchange(subject_token=login(**late), client_assertion=svid(**late)))["status"] == 503


def test_whoever_routes_by_the_health_goes_on_while_a_stream_is_silent() -> None:
    """Else no event would come any more, and the stream would stay silent."""
    world = Ended(of=WITH_EVENTS)
    live = world.send("GET", "/health?live")
    assert (live.status_code, live.json()) == (200, world.send("GET", "/health").json()) and live.json()["silent"] == ["events"]
    for other in ("/health?live=1", "/health?", "/health?alive"):
        assert world.send("GET", other).status_code == 503
    assert World(registry=Gone()).send("GET", "/health?live").status_code == 503


def test_a_silent_stream_that_is_open_starts_tasks() -> None:
    """And one about another provider's people stops nobody else."""
    world = Ended(of=policy.read(usual.POLICY.replace("[provider.partner]", STREAM.replace("fail_closed = true", "") + "[provider.partner]")))
    assert start(world) and world.send("GET", "/health").status_code == 503
    partner = STREAM.replace('about = "acme"', 'about = "partner"')
    assert start(Ended(of=policy.read(usual.POLICY.replace("[provider.partner]", f"{partner}[provider.partner]"))))


@pytest.mark.parametrize("about", ["nobody", "mesh", "events", "actors"])
def test_a_stream_is_about_a_provider_that_names_subjects(about: str) -> None:
    text = usual.POLICY.replace("[provider.partner]", f'{STREAM}[provider.actors]\nkind = "workload"\nissuer = "https://a.example"\n[provider.partner]')
    assert policy.read(text)
    with pytest.raises(IssuanceError, match=f"provider.events: about is .* not {about}"):
        policy.read(text.replace('about = "acme"', f'about = "{about}"'))
