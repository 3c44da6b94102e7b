"""Leases: a discharge that is renewed at half its life, and a subtree that dies when nobody renews it."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest

from captoken import Token
from captoken.caveats import Caveat, Vocabulary
from captoken.discharge import Allow, Answer, Discharge, Discharger, Lease, Refuse, Ticket, Wait
from captoken.errors import DischargeError, StoreError
from captoken.keys import DischargerKey
from captoken.testing import FixedClock
from tests.fixtures import NOW, clock, code, data, mint

PARTY = DischargerKey.from_bytes(bytes(range(2, 34)))


class World:
    """A token that asks for a lease, a discharger whose mind can be changed, and a holder that is handed discharges."""

    def __init__(self, said: Answer | None = None, **facts: Any) -> None:
        self.now = clock()
        self.said: Answer = said or Allow(expires_in=60)
        self.asked = 0
        self.fault: Exception | None = None
        self.token = mint().require(PARTY.public, need={"lease": "task-123"}).delegate(to="sales-agent")
        self.delivered: list[Discharge] = []
        self.discharger = Discharger(PARTY, lambda need: self.said, clock=self.now)
        self.lease = Lease(self.token.needs[0], self.ask, self.delivered.append, clock=self.now, **facts)

    def ask(self, ticket: Ticket) -> Discharge:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return self.discharger.discharge(ticket)

    def held(self) -> Token:
        """What the holder has: the token with the last discharge that was delivered."""
        return self.token.with_discharge(self.delivered[-1])

    def code(self) -> str:
        """What a server says now."""
        text = self.held().attenuate(expires_at=NOW + 800).present(audience="db", expires_in=800, clock=self.now)
        return code(text, data("sales"), audience="db", clock=self.now)


def over(lease: Lease) -> DischargeError:
    """The lease is over, and stays so."""
    with pytest.raises(DischargeError) as caught:
        lease.renew()
    assert lease.ended is not None
    return caught.value


def test_a_lease_is_renewed_when_half_of_it_is_over() -> None:
    """A discharge of 60 seconds is asked for every 30, and not before; each is delivered, and the token lives on (34.2)."""
    world = World()
    assert world.lease.renew() == 30 and world.asked == 1
    for _ in range(5):
        for second in range(1, 30):
            world.now.advance(1)
            assert world.lease.renew() == 30 - second and world.code() == "allowed"
        world.now.advance(1)
        assert world.lease.renew() == 30
    assert world.asked == len(world.delivered) == 6
    assert [given.expires_at for given in world.delivered] == [NOW + 60 + 30 * count for count in range(6)]
    assert world.lease.ended is None and world.code() == "allowed"


@pytest.mark.parametrize(("life", "due"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (60, 30), (61, 30), (3600, 1800)])
def test_half_of_a_life_is_at_least_a_second(life: int, due: int) -> None:
    """Whatever the life: half of it, rounded down, and never less than a second."""
    assert World(Allow(expires_in=life)).lease.renew() == due


def test_a_discharge_that_has_ended_is_asked_for_each_second() -> None:
    """A discharger whose clock is behind gives what is over already: it is delivered, and asked for anew a second later."""
    world = World(Allow(expires_at=NOW - 100))
    assert world.lease.renew() == 1 and world.code() == "expired"
    world.now.advance(1)
    world.said = Allow(expires_in=60)
    assert world.lease.renew() == 30 and world.code() == "allowed"


def test_a_discharge_that_says_no_end_is_asked_for_each_second() -> None:
    """One that states no expiry, which no verifier takes, is renewed as if it had ended."""
    world = World()
    packet = world.discharger.discharge(world.token.needs[0]).packet
    odd = Discharge(type(packet)(packet.identifier, ((b'{"nbf":5}', b""),), bytes(32)))
    lease = Lease(world.token.needs[0], lambda ticket: odd, world.delivered.append, clock=world.now)
    assert lease.renew() == 1 and world.delivered == [odd]


def test_a_lease_with_an_embedder_s_caveat_lives_as_long_as_any() -> None:
    """What stands beside the expiry, known here or not, does not shorten the lease."""

    class Region(Caveat, frozen=True):
        key = "acme:region"

    world = World()
    facts: Any = {"acme:region": ["eu"]}
    own = Discharger(PARTY, lambda need: Allow(expires_in=60, **facts), vocabulary=Vocabulary(Region), clock=world.now)
    assert Lease(world.token.needs[0], own.discharge, world.delivered.append, clock=world.now).renew() == 30


def test_a_passing_fault_is_borne_for_as_long_as_the_last_discharge_lives() -> None:
    """The network is down from half-life to the last second: asked again each `retry`, and taken up when it is back."""
    for retry in (1, 7):
        world = World(retry=retry)
        world.lease.renew()
        world.now.advance(30)
        world.fault = ConnectionError("no route")
        while world.now() < NOW + 60:
            assert world.lease.renew() == retry and world.lease.ended is None and world.code() == "allowed"
            world.now.advance(retry)
        world.now.now = NOW + 59
        world.fault = None
        assert world.lease.renew() == 30 and len(world.delivered) == 2
        assert world.code() == "allowed"


@pytest.mark.parametrize(
    "fault", [ConnectionError("no route"), StoreError("down"), TimeoutError(), ValueError("odd"), KeyError("x")], ids=repr
)
def test_a_fault_that_outlives_the_discharge_ends_the_lease(fault: Exception) -> None:
    """At the second at which the last discharge ends, the next fault is the end, with its cause; nothing asks again."""
    world = World()
    world.lease.renew()
    world.fault = fault
    world.now.advance(59)
    assert world.lease.renew() == 1
    world.now.advance(1)
    raised = over(world.lease)
    assert raised.code == "refused" and raised.__cause__ is fault is world.lease.ended and world.code() == "expired"
    world.fault, asked = None, world.asked
    assert over(world.lease).code == "refused" and world.asked == asked


def test_a_fault_at_the_very_first_time_ends_the_lease() -> None:
    """There is no discharge that could live on."""
    world = World()
    world.fault = ConnectionError("no route")
    assert over(world.lease).__cause__ is world.fault and not world.delivered


@pytest.mark.parametrize(
    ("said", "wanted"),
    [(Refuse("task ended"), "refused"), (Refuse(), "refused"), (Wait(), "undecided"), (Wait(person=True), "undecided")],
)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_refusal_ends_the_lease_at_once(said: Answer, wanted: str, after: int) -> None:
    """The first no, or not yet, at whichever renewal: the lease is over, though the last discharge lives to its end."""
    world = World()
    for _ in range(after):
        world.lease.renew()
        world.now.advance(30)
    world.said = said
    raised = over(world.lease)
    assert raised.code == wanted and raised is world.lease.ended
    world.said = Allow(expires_in=60)
    assert over(world.lease).code == "refused" and len(world.delivered) == after and world.asked == after + 1


@pytest.mark.parametrize("answer", [None, Refuse(), Wait(), "cap1u_", True])
def test_what_is_no_discharge_ends_the_lease(answer: Any) -> None:
    """Whoever passes `answer` where `discharge` is meant does not deliver a refusal as if it were one."""
    world = World()
    lease = Lease(world.token.needs[0], lambda ticket: answer, world.delivered.append, clock=world.now)
    assert over(lease).code == "bad_discharge" and not world.delivered
    lease.run(Event())


def test_a_holder_that_cannot_take_the_discharge_is_tried_again_or_ends_it() -> None:
    """`deliver` that raises is a passing fault, and the discharge counts for nothing; a DischargeError of its own ends the
    lease."""
    world, taken = World(), []

    def deliver(given: Discharge) -> None:
        if fails is not None:
            raise fails
        taken.append(given)

    fails: Exception | None = None
    lease = Lease(world.token.needs[0], world.ask, deliver, clock=world.now)
    assert lease.renew() == 30
    world.now.advance(30)
    fails = BrokenPipeError()
    assert lease.renew() == 1
    world.now.advance(29)
    assert lease.renew() == 1 and len(taken) == 1
    fails = None
    assert lease.renew() == 30 and len(taken) == 2
    world.now.advance(30)
    fails = DischargeError("another ticket", "bad_discharge")
    assert over(lease) is fails is lease.ended


def test_after_the_last_renewal_a_token_dies_to_the_second() -> None:
    """The kill: whoever stops renewing at second s ends every token below within one lease, at the second that was promised (34.1)."""
    for stopped in (0, 1, 29, 30, 31, 59, 60):
        world = World()
        for second in range(stopped + 1):
            if second:
                world.now.advance(1)
            world.lease.renew()
        last = world.delivered[-1].expires_at
        assert last is not None and NOW + stopped < last <= NOW + stopped + 60
        child = world.held().delegate(to="report-agent").attenuate(tables=["sales"])
        text = child.present(audience="db", expires_in=600, clock=world.now)
        for at, wanted in ((last - 1, "allowed"), (last, "expired"), (last + 1, "expired")):
            assert code(text, data("sales"), audience="db", clock=FixedClock(at)) == wanted
            assert code(text, data("sales"), audience="db", clock=FixedClock(at + 5), leeway=5) == wanted


def test_a_clock_that_goes_back_renews_no_sooner() -> None:
    """Set back, the lease waits for its time; a clock that raises passes through, and ends nothing."""
    world = World()
    world.lease.renew()
    world.now.advance(-10)
    assert world.lease.renew() == 40 and world.asked == 1

    def broken() -> float:
        raise OSError("no clock")

    lease = Lease(world.token.needs[0], world.ask, world.delivered.append, clock=broken)
    with pytest.raises(OSError, match="no clock"):
        lease.renew()
    assert lease.ended is None


class Stop(Event):
    """An event whose waiting moves a clock instead, and that sets itself after so many waits."""

    def __init__(self, now: FixedClock, waits: int) -> None:
        super().__init__()
        self.now, self.left = now, waits
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited.append(timeout)
        self.now.advance(int(timeout))
        self.left -= 1
        if self.left == 0:
            self.set()
        return self.is_set()


def test_run_renews_until_it_is_stopped() -> None:
    """Five waits of half a life, five discharges, and then no more."""
    world = World()
    stop = Stop(world.now, 5)
    world.lease.run(stop)
    assert stop.waited == [30] * 5 and len(world.delivered) == 5 and world.lease.ended is None
    assert world.code() == "allowed"


@pytest.mark.parametrize(
    "change", [lambda world: setattr(world, "said", Refuse()), lambda world: setattr(world, "fault", OSError("down"))]
)
def test_run_ends_with_the_lease(change: Callable[[World], None]) -> None:
    """A refusal ends it at the next renewal, a fault when the last discharge is over; `ended` says why."""
    world = World()
    stop = Stop(world.now, 1000)
    wait = stop.wait

    def third(timeout: float | None = None) -> bool:
        if len(stop.waited) == 2:
            change(world)
        return wait(timeout)

    stop.wait = third  # type: ignore[method-assign]
    world.lease.run(stop)
    assert len(world.delivered) == 3 and world.lease.ended is not None and not stop.is_set()
    assert world.code() == ("allowed" if world.said == Refuse() else "expired")


def test_run_is_for_a_thread() -> None:
    """With a real event and the time of day: one discharge, and an end as soon as it is told to."""
    stop, delivered = Event(), []
    token = mint().require(PARTY.public, need={})
    arrived = Event()

    def deliver(given: Discharge) -> None:
        delivered.append(given)
        arrived.set()

    lease = Lease(token.needs[0], Discharger(PARTY, lambda need: Allow(expires_in=600)).discharge, deliver)
    thread = Thread(target=lease.run, args=(stop,), daemon=True)
    thread.start()
    assert arrived.wait(30)
    stop.set()
    thread.join(30)
    assert not thread.is_alive() and len(delivered) == 1 and lease.ended is None
    assert not token.with_discharge(delivered[0]).needs


def test_a_discharge_of_another_ticket_ends_the_lease() -> None:
    """It would keep nothing alive, and be taken for a renewal."""
    world = World()
    other = World().token.needs[0]
    ask = lambda ticket: world.discharger.approve(mint().require(PARTY.public, need={"other": 1}).needs[0], Allow(expires_in=60))  # noqa: E731
    lease = Lease(other, ask, world.delivered.append, clock=world.now)
    assert over(lease).code == "bad_discharge" and world.delivered == []


def test_a_discharge_for_ever_is_asked_for_again_within_an_hour() -> None:
    """Whatever its end: the time to wait is one that can be waited for."""
    world = World(Allow(expires_at=2**53 - 1))
    assert world.lease.renew() == 3600
