"""The two faces of a verifier: each claim is made of both, since plan and order of effects are written once."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import Awaitable
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from captoken import Access, AsyncGrant, AsyncVerifier, Caller, Denied, Grant, Verifier
from captoken._format.encoding import b64decode
from captoken._verification.effects import StoreLoop
from captoken.audit import AuditTrail
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.stores.ports import Debit, Reservation, Use
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW, SALES, clock, data, mint

BOSS = HolderKey.from_bytes(bytes([11, *range(31)]))
AUDIENCE = "sales-db"
ASK = data("sales")


async def at_once(answer: Any) -> Any:
    """What a face gives: of the async one, once it is awaited."""
    return await answer if isinstance(answer, Awaitable) else answer


class Awaited:
    """A store of this process behind calls that are awaited: each lets others run first."""

    awaited = True

    def __init__(self, store: Any) -> None:
        self.of, self.shared = store, getattr(store, "shared", False)

    async def _asked(self, name: str, *given: Any) -> Any:
        await asyncio.sleep(0)
        return getattr(self.of, name)(*given)

    async def add(self, *given: Any) -> Any:
        return await self._asked("add", *given)

    async def reserve(self, *given: Any) -> Any:
        return await self._asked("reserve", *given)

    async def peek(self, *given: Any) -> Any:
        return await self._asked("peek", *given)

    async def settle(self, *given: Any) -> Any:
        return await self._asked("settle", *given)

    async def spent(self, *given: Any) -> Any:
        return await self._asked("spent", *given)


def made(face: str, **facts: Any) -> Any:
    """A verifier of the fixed world, by that face; the last one's counting stores are awaited."""
    if face == "Verifier":
        return Verifier(KEYRING, **{"clock": clock(), **facts})
    if face == "awaited":
        facts |= {name: Awaited(facts[name]) for name in ("replays", "ledger") if name in facts}
    return AsyncVerifier(KEYRING, **{"clock": clock(), **facts})


def bound(**caveats: Any) -> Any:
    return mint(**SALES, **caveats, key=BOSS.public)


def proven(token: Any = None) -> str:
    """A text that a bound token is sent in, with a proof that is good once."""
    text = (token or bound()).present(audience=AUDIENCE, signer=BOSS, request=ASK)
    assert isinstance(text, str)
    return text


both = pytest.mark.parametrize("face", ["Verifier", "AsyncVerifier", "awaited"])


@both
def test_a_face_says_what_it_was_made_with(face: str) -> None:
    """Names, leeway and clock, for whoever has to judge times as it does; the other face says the same."""
    moving = clock()
    one = made(face, audience=("b", "a"), leeway=5, clock=moving)
    for side in (one, one.blocking, one.awaited):
        assert (side.audiences, side.leeway, side.clock) == (("b", "a"), 5, moving) and repr(side).endswith("for a, b>")
    assert made(face).leeway == 0


# --- the same decisions ----------------------------------------------------------------------------------------------


@both
def test_whether_a_text_owes_nothing_but_a_proof(face: str) -> None:
    """Asked of no store, and not recorded: the question that counts comes with the proof."""
    written: list[bytes] = []

    async def ask() -> None:
        one = made(face, audience=AUDIENCE, audit=AuditTrail(written.append))
        good = bound()
        owing = {
            good.present(audience=AUDIENCE): True,
            good.present(audience="hr-db"): False,
            mint().present(audience=AUDIENCE): False,
            good.present(audience=AUDIENCE, clock=FixedClock(NOW - 3600), expires_in=60): False,
            good.present(audience=AUDIENCE)[:-1] + "!": False,
            "": False,
        }
        for text, owes in owing.items():
            assert await at_once(one.owes_proof(text)) is owes, text
        assert written == []
        assert (await at_once(one.check(good.present(audience=AUDIENCE), ASK))).code == "proof_missing" and written

    asyncio.run(ask())


@both
def test_every_way_to_ask_gives_the_same_answer(face: str) -> None:
    """Allowed and denied, of a text and of a grant; who raises, and who returns."""
    text = mint().delegate(to="sales-agent", tables=["sales"]).serialize()

    async def ask() -> None:
        one = made(face)
        for access, code in ((ASK, "allowed"), (data("hr"), "table"), (data("sales", "update"), "operation")):
            assert (await at_once(one.check(text, access))).code == code == (await at_once(one.explain(text, access))).code
        grant = await at_once(one.authenticate(text))
        assert type(grant) is (Grant if face == "Verifier" else AsyncGrant)
        assert (grant.actor.name, grant.issued.subject, grant.task) == ("sales-agent", "user:jane", "task-123")
        assert await at_once(grant.authorize(ASK)) is grant and (await at_once(one.authorize(text, ASK))).token_id == grant.token_id
        for access, code in ((ASK, "allowed"), (data("hr"), "table")) * 2:  # by the links, and by the capability
            assert (await at_once(grant.check(access))).code == code == (await at_once(grant.explain(access))).code
            assert (await at_once(grant.recheck([ASK, access]))).code == code
            assert (await at_once(grant.check_all([ASK, access]))).code == code
        assert (await at_once(grant.check(ASK, caller=Caller(agent="other")))).code == "caller"
        assert (await at_once(grant.recheck(caller=Caller(agent="other")))).code == "caller", "asked without an access too"
        with pytest.raises(TypeError, match="expected a Caller"):
            await at_once(grant.recheck(caller="sales-agent"))
        assert (await at_once(one.deny(text, "tool", "none"))).code == "tool" == (await at_once(grant.deny("tool", "none"))).code
        found = await at_once(grant.recheck([data("hr")]))
        assert (await at_once(grant.deny(found))).refusals == found.refusals
        for call in (lambda: one.authorize(text, data("hr")), lambda: one.authenticate(text + "!"), lambda: grant.authorize(data("hr"))):
            with pytest.raises(Denied):
                await at_once(call())
        for wrong in (lambda: grant.check("sales"), lambda: one.check(text, None), lambda: grant.check(ASK, caller="b")):
            with pytest.raises(TypeError):
                wrong()
        for empty in ([], ()):
            with pytest.raises(ValueError, match="at least one access"):
                grant.check_all(empty)
        assert one.audiences == () and one.awaited.blocking.audiences == () and "nobody in particular" in repr(one)
        assert one.blocking.check(text, ASK) and await one.awaited.check(text, ASK)

    asyncio.run(ask())


@both
def test_explain_says_what_check_then_says(face: str) -> None:
    """Right after it, nothing between: equal codes, for proofs and budgets that are there and gone."""

    async def ask() -> None:
        one = made(face, audience=AUDIENCE, replays=MemoryReplayStore(floor=0), ledger=MemoryLedger(floor=0, shared=True))
        token = bound(uses=2)
        codes = []
        for text in (proven(token),) * 2 + tuple(proven(token) for _ in range(2)):
            dry = await at_once(one.explain(text, ASK))
            codes.append(dry.code)
            assert dry.grant is None and dry.code == (await at_once(one.check(text, ASK))).code
        assert codes == ["allowed", "replayed", "allowed", "budget_exhausted"]

    asyncio.run(ask())


@both
def test_explain_without_an_access_is_about_the_token_alone(face: str) -> None:
    """Whether it holds here and now, whatever would be asked for."""

    async def ask() -> None:
        one, nowhere = made(face), mint(allow={})
        assert (await at_once(one.explain(nowhere, ASK))).code == "table"
        for token, code in ((nowhere, "allowed"), (mint(**SALES, delegate_only=True), "delegate_only"), (mint(**SALES, expires_at=NOW), "expired"), ("x", "malformed")):
            decision = await at_once(one.explain(token, None))
            assert (decision.code, decision.access, decision.grant) == (code, None, None)

    asyncio.run(ask())


TEN = Access(table="sales", operation="select", cost={"cents": 10})


# --- what only the async face has ------------------------------------------------------------------------------------


def test_what_was_not_awaited_is_neither_true_nor_false() -> None:
    """An old `if grant.check(...)` does not become an allowance; and it can be a task, and be gathered."""

    async def ask() -> None:
        one = AsyncVerifier(KEYRING, clock=clock())
        text = mint().serialize()
        grant = await one.authenticate(text)
        answers: list[Any] = [
            one.check(text, data("hr")), one.authorize(text, ASK), one.authenticate(text), one.explain(text, ASK), one.deny(text, "tool", "x"),
            grant.check(data("hr")), grant.authorize(ASK), grant.explain(ASK), grant.recheck(), grant.check_all([ASK]), grant.reserve(ASK), grant.deny("tool", "x"),
            grant.reserve_all([ASK]), grant.left(["rows"]),
        ]  # fmt: skip
        reserved = await grant.reserve(ASK)
        answers += [reserved.settle(), reserved.cancel()]
        for answer in answers:
            with pytest.raises(TypeError, match=r"write await|write \(await"):
                bool(answer)
            with pytest.raises(TypeError, match=r"write await|write \(await"):
                _ = "allowed" if answer else "denied"
            with pytest.raises(AttributeError, match=r"\(await \.\.\.\)\.code"):
                _ = answer.code
            await answer
        assert (await asyncio.create_task(one.check(text, ASK))).code == "allowed"
        assert [one.code for one in await asyncio.gather(one.check(text, ASK), grant.check(data("hr")))] == ["allowed", "table"]
        stopped = one.check(text, ASK)
        stopped.close()
        with pytest.raises(RuntimeError):
            await stopped

    asyncio.run(ask())


def test_an_answer_that_nobody_awaits_is_warned_of() -> None:
    """`grant.authorize(access)` without `await` checks nothing: Python says so, as of any coroutine."""

    async def forget() -> None:
        (await AsyncVerifier(KEYRING, clock=clock()).authenticate(mint())).authorize(data("hr"))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(forget())
        gc.collect()
    assert any("never awaited" in str(warning.message) for warning in caught)


def test_a_verifier_without_stores_answers_without_a_thread() -> None:
    """In place, in microseconds; one with a store leaves the event loop free meanwhile."""
    asked_in: list[int] = []

    class Watched(MemoryLedger):
        def reserve(self, reservation: Reservation, now: int) -> Debit | None:
            asked_in.append(threading.get_ident())
            time.sleep(0.02)
            return super().reserve(reservation, now)

    async def ask() -> int:
        before = threading.active_count()
        assert await AsyncVerifier(KEYRING, clock=clock()).check(mint(), ASK) and threading.active_count() == before
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=Watched(floor=0, shared=True))
        task = asyncio.create_task(one.check(mint(**SALES, uses=5), ASK))
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        assert (await task).code == "allowed"
        return turns

    assert asyncio.run(ask()) > 1 and asked_in and threading.get_ident() not in asked_in


# --- stores that are awaited -----------------------------------------------------------------------------------------


def counting(**more: Any) -> Any:
    """A token that counts, as text."""
    return mint(**SALES, **{"uses": 1, **more}).serialize()


def own_ledger() -> Awaited:
    return Awaited(MemoryLedger(floor=0, shared=True))


@pytest.mark.parametrize("what", ["ledger", "replays"])
def test_a_plain_verifier_takes_no_store_that_is_awaited(what: str) -> None:
    """It says which one does. Only what a store says counts: `awaited = True`, and nothing like it."""
    with pytest.raises(TypeError, match="use an AsyncVerifier"):
        Verifier(KEYRING, **{what: own_ledger()})
    for said in (1, "yes", None):
        other = own_ledger()
        other.awaited = said  # type: ignore[assignment]
        assert Verifier(KEYRING, clock=clock(), **{what: other})


def test_a_store_that_is_awaited_is_asked_in_the_loop_and_in_no_thread() -> None:
    """And so is one that is not, beside it, in a thread."""
    asked_in: dict[str, int] = {}

    class Ledger(Awaited):
        async def reserve(self, *given: Any) -> Any:
            asked_in["ledger"] = threading.get_ident()
            return await super().reserve(*given)

    class Replays(MemoryReplayStore):
        def add(self, use: Use, now: int) -> bool:
            asked_in["replays"] = threading.get_ident()
            return super().add(use, now)

    async def ask() -> None:
        ledger = Ledger(MemoryLedger(floor=0, shared=True))
        one = AsyncVerifier(KEYRING, clock=clock(), audience=AUDIENCE, ledger=ledger, replays=Replays(floor=0))
        assert await one.check(proven(bound(uses=1)), ASK)

    asyncio.run(ask())
    assert asked_in["ledger"] == threading.get_ident() != asked_in["replays"]


@pytest.mark.parametrize("said", [True, False])
def test_what_a_store_says_of_itself_is_what_counts(said: bool) -> None:
    """One that says that it is awaited and answers at once, and one that does not say so: whatever comes back, it is denied."""

    class Lying(MemoryLedger):
        awaited = said

        def reserve(self, reservation: Reservation, now: int) -> Any:
            return None if said else later()

    async def none() -> None:
        return None

    def later() -> Any:
        waiting.append(none())
        return waiting[-1]

    waiting: list[Any] = []
    one = AsyncVerifier(KEYRING, clock=clock(), ledger=Lying(floor=0, shared=True))
    assert asyncio.run(at_once(one.check(counting(), ASK))).code == "store_unavailable"
    for coroutine in waiting:
        coroutine.close()


def test_the_blocking_face_of_awaited_stores_is_for_threads_beside_the_loop() -> None:
    """There it counts, settles and looks; in the loop's own thread, and where no loop runs, it denies, and waits for nothing."""
    ledger = own_ledger()
    one = AsyncVerifier(KEYRING, clock=clock(), ledger=ledger)
    ten, trail = mint(**SALES, budget={"cents": 10}).serialize(), []

    def spend() -> None:
        grant = one.blocking.authenticate(ten)
        assert grant.explain(TEN) and one.blocking.explain(ten, TEN)
        with grant.reserve(TEN) as reserved:
            assert grant.explain(TEN).code == "budget_exhausted" == grant.check(TEN).code
            assert reserved.settle({"cents": 4})
        with grant.reserve(Access(table="sales", operation="select", cost={"cents": 6})) as reserved:
            assert reserved.cancel()

    async def ask() -> None:
        assert (await one.check(counting(uses=2), ASK)).code == "allowed"
        await asyncio.to_thread(spend)
        here = one.blocking.check(counting(uses=2), ASK)
        assert here.code == "store_unavailable" and "in this thread's own event loop" in str(here)
        assert (await one.authenticate(counting(uses=2))).blocking.check(ASK).code == "store_unavailable"
        assert (await asyncio.to_thread(one.blocking.check, counting(uses=2), ASK)).code == "allowed"
        trail.append("done")

    before = one.blocking.check(counting(uses=2), ASK)
    assert before.code == "store_unavailable" and "is not running" in str(before)
    asyncio.run(ask())
    after = one.blocking.check(counting(uses=2), ASK)
    assert trail and after.code == "store_unavailable" and "is not running" in str(after)


def test_a_thread_that_runs_another_loop_may_ask_too() -> None:
    """What is waited for is not its own loop."""

    async def elsewhere(one: AsyncVerifier) -> bool:
        return bool(one.blocking.check(counting(uses=3), ASK))

    async def ask() -> None:
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=own_ledger())
        assert await one.check(counting(uses=3), ASK)
        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere(one)))
        with pytest.raises(RuntimeError, match="one event loop"):
            await asyncio.to_thread(lambda: asyncio.run(at_once(one.blocking.awaited.check(counting(uses=3), ASK))))
        assert (await one.blocking.awaited.check(counting(uses=3), ASK)).code == "allowed", "another face, of the same loop"

    asyncio.run(ask())


def test_of_two_loops_that_come_at_once_the_first_is_the_one() -> None:
    """Whatever both have read before: the other is told so."""
    store_loop, loops = StoreLoop(), [asyncio.new_event_loop() for _ in range(2)]
    for loop in loops:
        store_loop.take(loop)
        assert store_loop.loop is loops[0]
        loop.close()


def test_a_loop_that_waits_for_the_thread_that_asks_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A denial, after so many seconds; what the ledger then takes counts."""
    from captoken._verification import effects

    monkeypatch.setattr(effects, "_LONGEST", 1)
    ledger = own_ledger()

    async def ask() -> str:
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=ledger)
        await one.check(mint(), ASK)
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(one.blocking.check(counting(), ASK)))
        thread.start()
        thread.join()  # in the loop's own thread: nothing is awaited meanwhile
        await asyncio.sleep(0.05)
        assert (await one.check(counting(), ASK)).code == "budget_exhausted", "the loop has made the call by now"
        return str(found[0])

    assert "gave no answer" in asyncio.run(ask())


def test_a_loop_that_ends_while_a_thread_waits_for_it_is_a_denial() -> None:
    """Whether it is stopped in the midst of it, or ends as `asyncio.run` does, which cancels what is under way."""

    class Held(Awaited):
        async def reserve(self, *given: Any) -> Any:
            inside.set()
            await asyncio.Event().wait()

    for stopped in (True, False):
        inside, found = Event(), []
        loop = asyncio.new_event_loop()
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=Held(MemoryLedger(floor=0, shared=True)))
        loop.run_until_complete(at_once(one.check(mint(), ASK)))
        running = threading.Thread(target=loop.run_forever)
        running.start()
        asking = threading.Thread(target=lambda one=one, found=found: found.append(one.blocking.check(counting(), ASK)))
        asking.start()
        assert inside.wait(20)

        async def end() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        if not stopped:
            asyncio.run_coroutine_threadsafe(end(), loop).result(20)
            asking.join(20)
        loop.call_soon_threadsafe(loop.stop)
        running.join(20)
        asking.join(20)
        assert found[0].code == "store_unavailable"
        loop.run_until_complete(end())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


class Held(Awaited):
    """A ledger whose answer waits for a word, and whose store has debited by then."""

    def __init__(self) -> None:
        super().__init__(MemoryLedger(floor=0, shared=True))
        self.entered, self.go_on = asyncio.Event(), asyncio.Event()

    async def reserve(self, *given: Any) -> Any:
        answer = await super().reserve(*given)
        self.entered.set()
        await self.go_on.wait()
        return answer

    async def peek(self, *given: Any) -> Any:
        return await self.reserve(*given)


def test_a_call_of_an_awaited_store_is_not_cancelled_before_its_record() -> None:
    """As in threads: it runs to its record, then it raises, and what it took counts."""
    trail: list[bytes] = []

    async def ask() -> None:
        ledger = Held()
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=ledger, audit=AuditTrail(trail.append))
        task = asyncio.create_task(one.check(counting(), ASK))
        await ledger.entered.wait()
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done() and trail == []
        ledger.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(trail) == 2 and b'"allowed":true' in trail[1] and b'"taken"' in trail[1]
        assert (await one.check(counting(), ASK)).code == "budget_exhausted"

    asyncio.run(ask())


def test_who_only_looks_is_cancelled_at_once() -> None:
    """Nothing is taken, so nobody is made to wait."""

    async def ask() -> None:
        ledger = Held()
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=ledger)
        task = asyncio.create_task(one.explain(counting(), ASK))
        await ledger.entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())


@pytest.mark.parametrize("asked", ["awaited", "in a thread"])
def test_a_loop_that_ends_leaves_a_record_of_what_was_under_way(asked: str) -> None:
    """`asyncio.run` cancels all there is at its end. It is not known what came of the call: a denial, which says what was asked."""
    trail: list[bytes] = []
    entered, go_on = Event(), Event()

    class Thread(MemoryLedger):
        def reserve(self, reservation: Reservation, now: int) -> Debit | None:
            entered.set()
            assert go_on.wait(20)
            return super().reserve(reservation, now)

    async def ask() -> None:
        ledger: Any = Held() if asked == "awaited" else Thread(floor=0, shared=True)
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=ledger, audit=AuditTrail(trail.append))
        task = asyncio.create_task(one.check(counting(), ASK))
        while not (entered.is_set() or (asked == "awaited" and ledger.entered.is_set())):
            await asyncio.sleep(0.001)
        assert not task.done()
        asyncio.get_running_loop().call_later(0.05, go_on.set)

    asyncio.run(ask())
    assert len(trail) == 2 and b'"code":"store_unavailable"' in trail[1] and b"interrupted during" in trail[1]


def test_of_200_tasks_that_ask_an_awaited_ledger_exactly_the_limit_is_taken() -> None:
    """Every third is cancelled, some before they began: what was taken and what is left come to fifty."""
    ledger, trail, text = own_ledger(), [], counting(uses=50)

    async def race() -> int:
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=ledger, audit=AuditTrail(trail.append))
        tasks = [asyncio.create_task(one.check(text, ASK)) for _ in range(200)]
        for task in tasks[::3]:
            await asyncio.sleep(0)
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        return sum(bool(answer) for answer in answers if not isinstance(answer, BaseException))

    told = asyncio.run(race())
    recorded = sum(b'"allowed":true' in line for line in trail)
    assert 0 < told <= recorded == 50 == ledger.of.spent(b64decode(Verifier(KEYRING, clock=clock()).authenticate(text).link_ids[0]), "uses")


# ---------------------------------------------------------------------------------------------------------------------


def test_one_is_for_one_event_loop() -> None:
    """In another one it raises, and says what to do; a plain Verifier gives a new one each time."""
    one, plain, text = AsyncVerifier(KEYRING, clock=clock()), Verifier(KEYRING, clock=clock()), mint().serialize()

    async def ask(asked: AsyncVerifier) -> Any:
        return await asked.check(text, ASK)

    assert asyncio.run(ask(one))
    with pytest.raises(RuntimeError, match="one event loop"):
        asyncio.run(ask(one))
    assert asyncio.run(ask(plain.awaited)) and asyncio.run(ask(plain.awaited))


class AsyncRecorder:
    """A recorder that has to be awaited: nobody does, so nothing is written."""

    async def record(self, decision: Any) -> None:
        raise AssertionError("never run")

    async def record_all(self, decisions: Any) -> None:
        raise AssertionError("never run")


class Later:
    """An answer that can be awaited, and not closed."""

    def __await__(self) -> Any:
        raise AssertionError("never awaited")


@both
@pytest.mark.parametrize("late", [False, True])
def test_a_recorder_that_has_to_be_awaited_records_nothing(face: str, late: bool) -> None:
    """So nothing is allowed, and a denial stands."""
    recorder: Any = AsyncRecorder()
    if late:
        recorder = SimpleNamespace(record=lambda _: Later(), record_all=lambda _: Later())

    async def ask() -> list[str]:
        one = made(face, audit=recorder)
        return [(await at_once(one.check(mint(), data(table)))).code for table in ("sales", "hr")]

    assert asyncio.run(ask()) == ["store_unavailable", "table"]
