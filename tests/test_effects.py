"""What a verifier commits, in which order, and what becomes of it when a store fails, waits or is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from captoken import Access, AsyncVerifier, Denied, Verifier
from captoken._format.encoding import b64decode
from captoken._language.overlay import snapshot
from captoken.audit import AuditTrail, read
from captoken.control import Overlay
from captoken.errors import StoreError
from captoken.keys import OperatorKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.stores.ports import Debit, Once, Reservation, Use
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW, SALES, clock, mint
from tests.test_verifier import ASK, AUDIENCE, TEN, at_once, both, bound, made, proven

OPERATOR = OperatorKey.from_bytes(bytes(range(32)))


@both
def test_effects_are_committed_in_the_same_order(face: str) -> None:
    """The proof, then the ledger, then the record; none of the later ones where an earlier one refuses."""
    told: list[str] = []

    class Replays(MemoryReplayStore):
        def add(self, use: Use, now: int) -> bool:
            told.append("proof")
            return super().add(use, now)

    class Ledger(MemoryLedger):
        def reserve(self, reservation: Reservation, now: int) -> Debit | None:
            told.append("ledger")
            return super().reserve(reservation, now)

    trail = AuditTrail(lambda line: told.append("token" if b'"kind":"token"' in line else "record"))

    async def ask() -> None:
        one = made(face, audience=AUDIENCE, replays=Replays(floor=0), ledger=Ledger(floor=0, shared=True), audit=trail)
        token = bound(uses=1)
        first, second = proven(token), proven(token)
        for text, code, expected in (
            (first, "allowed", ["proof", "ledger", "record"]), (first, "replayed", ["proof", "record"]), (second, "budget_exhausted", ["proof", "ledger", "record"]),
            (token.present(audience=AUDIENCE), "proof_missing", ["record"]),
        ):  # fmt: skip
            told.clear()
            assert (await at_once(one.check(text, ASK))).code == code and [what for what in told if what != "token"] == expected
        told.clear()
        assert (await at_once(one.explain(first, ASK))).code == "replayed" and (await at_once(one.explain(proven(token), ASK))).code == "budget_exhausted"
        assert told == [], "a dry run commits nothing, and is not recorded"

    asyncio.run(ask())


@both
@pytest.mark.parametrize("what", ["replays", "ledger", "audit", "overlay"])
def test_a_store_that_fails_denies(face: str, what: str) -> None:
    """Whatever it raises: nothing is allowed that could not be counted, remembered, recorded or looked up."""

    class Failing:
        shared = True

        def __getattr__(self, name: str) -> Callable[..., Any]:
            return self

        def __call__(self, *_: Any, **__: Any) -> Any:
            raise OSError("secret")

    def stores() -> dict[str, Any]:
        return {"replays": MemoryReplayStore(floor=0), "ledger": MemoryLedger(floor=0, shared=True)}

    async def ask() -> None:
        one = made(face, audience=AUDIENCE, **{**stores(), what: Failing()})
        decision = await at_once(one.check(proven(bound(uses=5)), ASK))
        assert decision.code == "store_unavailable" and "secret" not in str(decision) and decision.grant is None
        assert (await at_once(made(face, audience=AUDIENCE, **stores()).check(proven(bound(uses=5)), ASK))).code == "allowed"

    asyncio.run(ask())


@both
def test_a_request_that_comes_again_counts_once(face: str) -> None:
    """By an id of its own, for a stated time; nothing of it is settled or cancelled (38.17)."""
    written: list[bytes] = []
    moving = clock()
    ledger = MemoryLedger(floor=0, shared=True)
    once = Once(bytes(16), 600)

    async def ask() -> None:
        one = made(face, clock=moving, ledger=ledger, audit=AuditTrail(written.append))
        token = mint(**SALES, budget={"cents": 30}, uses=9, expires_at=NOW + 9000)
        grant = await at_once(one.authenticate(token))

        async def left() -> Any:
            return await at_once(grant.left(["cents", "uses"]))

        for _ in range(3):
            reserved = await at_once(grant.reserve(TEN, once=once))
            assert await at_once(reserved.cancel()) and await at_once(reserved.settle({"cents": 0})), "nothing is open"
            assert await left() == {"cents": 20, "uses": 8}
        assert len({record["taken"] for record in read(written) if "taken" in record}) == 1
        await at_once(grant.reserve(TEN, once=Once(b"b" * 16, 600)))
        assert await left() == {"cents": 10, "uses": 7}
        moving.advance(601)
        await at_once((await at_once(one.authenticate(token))).reserve(TEN, once=once))
        assert await left() == {"cents": 0, "uses": 6}, "it is not known any more"

        for wrong in (b"a" * 16, (bytes(16), 600), Once("a" * 16, 600), Once(bytes(16), 600.0)):
            with pytest.raises(TypeError, match="once must be Once"):
                grant.reserve(TEN, once=wrong)
        for wrong in (Once(b"short", 600), Once(bytes(16), 59)):
            with pytest.raises(ValueError, match="16 bytes, and more than 60 seconds"):
                grant.reserve(TEN, once=wrong)

    asyncio.run(ask())


@both
def test_what_counts_once_is_not_given_back(face: str) -> None:
    """Denied after it was taken: the same request would find it there, and be free (38.17)."""

    async def ask() -> None:
        moving = clock()
        ledger = Slow(moving, 2)
        one = made(face, clock=moving, ledger=ledger)
        grant = await at_once(one.authenticate(mint(**SALES, budget={"cents": 10}, expires_at=NOW + 1)))
        with pytest.raises(Denied, match="expired"):
            await at_once(grant.reserve(TEN, once=Once(bytes(16), 600)))
        assert ledger.closed == []

    asyncio.run(ask())


class Failing(MemoryLedger):
    """A ledger that settles as often as it is told to, and fails before or after it has."""

    def __init__(self, *fails: str) -> None:
        super().__init__(floor=0, shared=True)
        self.fails, self.asked = list(fails), []

    def settle(self, reservation_id: bytes, amounts: Any, now: int) -> bool:
        self.asked.append(amounts)
        fails = self.fails.pop(0) if self.fails else ""
        if fails == "before":
            raise StoreError("away")
        settled = super().settle(reservation_id, amounts, now)
        if fails == "after":
            raise StoreError("the answer was lost")
        return settled

    def left(self, token: Any) -> int:
        link = Verifier(KEYRING, clock=clock()).authenticate(token).link_ids[0]
        return 10 - self.spent(b64decode(link), "cents")


class Slow(MemoryLedger):
    """A ledger that takes its time, by the clock of the verifier."""

    def __init__(self, moving: FixedClock, seconds: int) -> None:
        super().__init__(floor=0, shared=True)
        self.moving, self.seconds, self.closed = moving, seconds, []

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        found = super().reserve(reservation, now)
        self.moving.advance(self.seconds)
        return found

    def settle(self, reservation_id: bytes, amounts: Any, now: int) -> bool:
        self.closed.append(amounts)
        return super().settle(reservation_id, amounts, now)


@both
@pytest.mark.parametrize(("seconds", "code", "closed"), [(1, "allowed", []), (2, "expired", [{}]), (60, "expired", [{}])])
def test_a_token_that_expired_while_a_store_was_waited_for_is_denied(face: str, seconds: int, code: str, closed: list[Any]) -> None:
    """More than a second by the clock: judged again; and a denial gives the reservation back."""

    async def ask() -> None:
        moving = clock()
        ledger, trail = Slow(moving, seconds), []
        one = made(face, clock=moving, ledger=ledger, audit=AuditTrail(trail.append))
        token = mint(**SALES, uses=1, expires_at=NOW + 1)
        assert (await at_once(one.check(token, ASK))).code == code and ledger.closed == closed
        assert len(trail) == 2 and f'"code":"{code}"'.encode() in trail[1], "the token, and what was decided"

    asyncio.run(ask())


@both
def test_an_overlay_that_came_while_a_store_was_waited_for_counts(face: str) -> None:
    """A revocation that is there before the answer is: denied, and the reservation is given back."""

    def overlay(*entries: Any, seq: int) -> Overlay:
        return Overlay.open(snapshot(OPERATOR, entries, seq=seq, issued_at=NOW), [OPERATOR.public])

    from captoken.control import Entry, Selector

    revoked = Entry(at=NOW, by="ops", id="AAAAAAAAAAA", select=Selector(agent="orchestrator"), why="x")

    async def ask(newer: Sequence[Any], code: str) -> None:
        overlays = [overlay(seq=1)]
        moving = clock()

        class Late(Slow):
            def reserve(self, reservation: Reservation, now: int) -> Debit | None:
                overlays.append(overlay(*newer, seq=2))
                return super().reserve(reservation, now)

        ledger = Late(moving, 0)
        one = made(face, clock=moving, ledger=ledger, overlay=lambda: overlays[-1])
        decision = await at_once(one.check(mint(**SALES, uses=1), ASK))
        assert decision.code == code and ledger.closed == ([] if code == "allowed" else [{}])

    asyncio.run(ask([revoked], "revoked"))
    asyncio.run(ask([], "allowed"))


@both
def test_a_proof_is_used_up_also_where_the_reservation_goes_back(face: str) -> None:
    """Revoked after both were taken: the use goes back to the budget, and the proof is good for nothing more."""
    from captoken.control import Entry, Selector

    revoked = Entry(at=NOW, by="ops", id="AAAAAAAAAAA", select=Selector(agent="orchestrator"), why="x")

    async def ask() -> None:
        entries: list[Entry] = []
        moving, replays = clock(), MemoryReplayStore(floor=0)

        class Late(Slow):
            def reserve(self, reservation: Reservation, now: int) -> Debit | None:
                entries.append(revoked)
                return super().reserve(reservation, now)

        def overlay() -> Overlay:
            return Overlay.open(snapshot(OPERATOR, entries, seq=1 + len(entries), issued_at=NOW), [OPERATOR.public])

        ledger = Late(moving, 0)
        one = made(face, clock=moving, audience=AUDIENCE, replays=replays, ledger=ledger, overlay=overlay)
        text = proven(bound(uses=1))
        assert (await at_once(one.check(text, ASK))).code == "revoked"
        assert ledger.closed == [{}] and len(replays) == 1
        entries.clear()
        assert (await at_once(one.check(text, ASK))).code == "replayed"

    asyncio.run(ask())


@both
def test_what_came_while_a_store_was_waited_for_counts_for_each_access_of_a_step(face: str) -> None:
    """The second of two accesses is narrowed away meanwhile: it is the answer, and recorded alone."""
    from captoken.control import Entry, Selector

    def overlay(*entries: Any, seq: int) -> Overlay:
        return Overlay.open(snapshot(OPERATOR, entries, seq=seq, issued_at=NOW), [OPERATOR.public])

    reads = {"operations": ["select"]}
    narrowed = Entry(at=NOW, by="ops", id="AAAAAAAAAAA", select=Selector(agent="orchestrator"), why="x", link=reads)

    async def ask() -> None:
        overlays, moving, trail = [overlay(seq=1)], clock(), []

        class Late(Slow):
            def reserve(self, reservation: Reservation, now: int) -> Debit | None:
                overlays.append(overlay(narrowed, seq=2))
                return super().reserve(reservation, now)

        ledger = Late(moving, 0)
        audit = AuditTrail(trail.append)
        one = made(face, clock=moving, ledger=ledger, overlay=lambda: overlays[-1], audit=audit)
        token = mint(tables=["sales"], operations=["select", "insert"], uses=2)
        grant = await at_once(one.authenticate(token))
        step = [Access(table="sales", operation=operation) for operation in ("select", "insert")]
        decision = await at_once(grant.check_all(step))
        assert decision.code == "narrowed" and decision.access == step[1] and ledger.closed == [{}]
        assert [b'"operation":"insert"' in line for line in trail[2:]] == [True]

    asyncio.run(ask())


@both
def test_a_reservation_that_cannot_be_given_back_counts_as_spent(face: str) -> None:
    """The denial stands, whatever the ledger says to it."""

    async def ask() -> None:
        moving = clock()

        class Torn(Slow):
            def settle(self, reservation_id: bytes, amounts: Any, now: int) -> bool:
                raise StoreError("gone")

        one = made(face, clock=moving, ledger=Torn(moving, 5))
        assert (await at_once(one.check(mint(**SALES, uses=1, expires_at=NOW + 1), ASK))).code == "expired"

    asyncio.run(ask())


def test_from_the_first_effect_to_the_record_nothing_is_cancelled() -> None:
    """A call that is cancelled runs to its record, and then raises; what it took counts, and the record says so."""
    entered, go_on, trail = threading.Event(), threading.Event(), []

    class Held(MemoryLedger):
        def reserve(self, reservation: Reservation, now: int) -> Debit | None:
            entered.set()
            assert go_on.wait(20)
            return super().reserve(reservation, now)

    ledger = Held(floor=0, shared=True)

    async def ask() -> None:
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=ledger, audit=AuditTrail(trail.append))
        task = asyncio.create_task(one.check(mint(**SALES, uses=1), ASK))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # again: no way round
        await asyncio.sleep(0.01)
        assert not task.done() and trail == [], "it waits for the effect"
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(trail) == 2 and b'"allowed":true' in trail[1] and b'"taken"' in trail[1]
        assert (await one.check(mint(**SALES, uses=1), ASK)).code == "budget_exhausted", "what was taken counts"

    asyncio.run(ask())


def test_a_store_that_waits_for_nothing_is_asked_in_the_loops_own_thread() -> None:
    """A store or a trail that says so; every other one in a thread. The record stands in either case."""
    seen: list[tuple[str, bool]] = []

    class Seen(MemoryLedger):
        def reserve(self, reservation: Reservation, now: int) -> Debit | None:
            seen.append(("ledger", threading.current_thread() is threading.main_thread()))
            return super().reserve(reservation, now)

        def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> bool:
            seen.append(("settled", threading.current_thread() is threading.main_thread()))
            return super().settle(reservation_id, amounts, now)

    class Prompt(Seen):
        def __init__(self) -> None:
            super().__init__(floor=0, shared=True)
            self.waits = False

    def write(lines: bytes) -> None:
        seen.append(("trail", threading.current_thread() is threading.main_thread()))

    async def ask(ledger: MemoryLedger, waits: bool) -> list[tuple[str, bool]]:
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=ledger, audit=AuditTrail(write, waits=waits))
        grant = await one.authenticate(mint(**SALES, budget={"cents": 10}))
        seen.clear()
        await (await grant.reserve(TEN)).settle({"cents": 4})
        return [*seen]

    here = asyncio.run(ask(Prompt(), False))
    assert here == [("ledger", True), ("trail", True), ("settled", True)]
    assert MemoryLedger().waits is False and Seen(floor=0).waits is True, "what derives from it may wait"
    threads = asyncio.run(ask(Seen(floor=0, shared=True), True))
    assert threads == [("ledger", False), ("trail", False), ("settled", False)]
    mixed = asyncio.run(ask(Prompt(), True))
    assert mixed == [("ledger", True), ("trail", False), ("settled", True)]


def test_behind_an_effect_that_took_no_wait_nothing_is_cancelled_either() -> None:
    """The ledger was asked at once, and the trail waits: the record is written, and what was taken counts."""
    entered, go_on, written = threading.Event(), threading.Event(), []

    def write(lines: bytes) -> None:
        entered.set()
        assert go_on.wait(20)
        written.append(lines)

    async def ask() -> None:
        ledger = MemoryLedger(floor=0, shared=True)
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=ledger, audit=AuditTrail(write))
        task = asyncio.create_task(one.check(mint(**SALES, uses=1), ASK))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done() and written == [], "it waits for the record"
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert b'"allowed":true' in written[1] and b'"taken"' in written[1]

    asyncio.run(ask())


def test_before_the_first_effect_a_call_is_cancelled_at_once() -> None:
    """While an overlay is waited for, nothing was taken."""
    entered, go_on, trail = threading.Event(), threading.Event(), []

    def source() -> None:
        entered.set()
        assert go_on.wait(20)

    async def ask() -> None:
        one = AsyncVerifier(KEYRING, clock=clock(), overlay=source, audit=AuditTrail(trail.append))
        task = asyncio.create_task(one.check(mint(), ASK))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    asyncio.run(ask())
    assert trail == []


def test_of_200_tasks_with_some_cancelled_never_more_than_the_limit_are_allowed() -> None:
    """Each of 200 asks at once for one of 50 uses, and every third is cancelled: at most 50 are told yes."""
    ledger = MemoryLedger(floor=0, shared=True)
    text = mint(**SALES, uses=50).serialize()

    async def race() -> int:
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=ledger)
        tasks = [asyncio.create_task(one.check(text, ASK)) for _ in range(200)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        return sum(bool(answer) for answer in answers if not isinstance(answer, BaseException))

    allowed = asyncio.run(race())
    assert 0 < allowed <= 50 and not Verifier(KEYRING, clock=clock(), ledger=ledger).check(text, ASK)
