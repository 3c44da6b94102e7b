"""The two faces of a verifier: each claim is made of both, since plan and order of effects are written once."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from captoken import Access, AsyncGrant, AsyncVerifier, Caller, Denied, Grant, Verifier
from captoken._format.encoding import b64decode
from captoken._language.overlay import snapshot
from captoken._verification.effects import Recorder, StoreLoop
from captoken.audit import AuditTrail, read
from captoken.control import Overlay
from captoken.errors import StoreError
from captoken.keys import HolderKey, OperatorKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.stores.ports import Debit, Once, Reservation, Use
from captoken.stores.sqlite import SQLiteLedger
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW, SALES, clock, data, mint
from tests.stores.begun import begun

BOSS = HolderKey.from_bytes(bytes([11, *range(31)]))
OPERATOR = OperatorKey.from_bytes(bytes(range(32)))
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


@both
def test_a_reservation_is_settled_or_cancelled(face: str) -> None:
    """What is left of it goes back; a block that settled nothing settles it all, also when an exception leaves it."""
    ledger = MemoryLedger(floor=0, shared=True)
    token = mint(**SALES, budget={"cents": 10})

    def paid(cents: int) -> Access:
        return Access(table="sales", operation="select", cost={"cents": cents})

    async def spend() -> None:
        grant = await at_once(made(face, ledger=ledger).authenticate(token))
        reserved = await at_once(grant.reserve(paid(10)))
        assert not await at_once(grant.check(paid(10))) and await at_once(reserved.cancel()) and not await at_once(reserved.cancel())
        reserved = await at_once(grant.reserve(paid(10)))
        with pytest.raises(ValueError, match="cents"):
            reserved.settle({"other": 1})
        assert not await at_once(reserved.settle()), "something was done: what is not settled in time is spent"
        assert not await at_once(grant.check(paid(1)))
        free = await at_once((await at_once(made(face).authenticate(mint()))).reserve(ASK))
        assert await at_once(free.settle({"cents": 5})) and await at_once(free.cancel()), "what counts nothing has nothing to settle"

    async def blocks() -> None:
        grant = (await at_once(made(face, ledger=MemoryLedger(floor=0, shared=True)).authenticate(token))).awaited
        async with await grant.reserve(paid(10)) as reserved:
            assert await reserved.settle({"cents": 4})
        with pytest.raises(KeyError):
            async with await grant.reserve(paid(6)):
                raise KeyError
        with pytest.raises(Denied):
            await grant.reserve(paid(1))

    asyncio.run(spend())
    if face != "Verifier":
        asyncio.run(blocks())


@both
def test_a_step_is_paid_for_in_parts(face: str) -> None:
    """Its first part alone is a use; each is judged, taken and settled by itself; the trail has them as one step (38.16)."""
    written: list[bytes] = []
    ledger = MemoryLedger(floor=0, shared=True)
    token = mint(**SALES, budget={"rows": 10, "cents": 9}, uses=3).delegate(to="scout", budget={"rows": 8})

    def costing(rows: int, cents: int = 0) -> list[Access]:
        first = Access(table="sales", operation="select", cost={"rows": rows, "cents": cents})
        return [first, Access(table="market.eu", operation="select", cost={"rows": 0, "cents": 0})]

    async def spend() -> None:
        one = made(face, ledger=ledger, audit=AuditTrail(written.append))
        grant = await at_once(one.authenticate(token))

        async def left() -> Any:
            return await at_once(grant.left(["rows", "cents", "uses", "eur"]))

        assert await left() == {"rows": 8, "cents": 9, "uses": 3}, "the least of all links"
        first = await at_once(grant.reserve_all(costing(3, 4)))
        more = await at_once(grant.reserve_all(costing(4), after=first))
        assert await left() == {"rows": 1, "cents": 5, "uses": 2}
        with pytest.raises(Denied, match="budget_exhausted"):
            await at_once(grant.reserve_all(costing(2), after=first))
        assert await at_once(more.settle({"rows": 1, "cents": 0})) and await at_once(first.settle({"rows": 2, "cents": 4}))
        assert await left() == {"rows": 5, "cents": 5, "uses": 2}

        # Another step is another use.
        await at_once(grant.reserve_all(costing(1)))
        assert (await left())["uses"] == 1

        taken = [record["taken"] for record in read(written) if "taken" in record]
        assert taken[:4] == [taken[0]] * 4 and taken[4:] == [taken[4]] * 2 and taken[0] != taken[4]

        with pytest.raises(ValueError, match="at least one access"):
            grant.reserve_all([])

        # A token that counts nothing has nothing left to tell, and its parts are accesses like any other.
        plain = await at_once(made(face).authenticate(mint()))
        assert await at_once(plain.left(["rows"])) == {}
        nothing = await at_once(plain.reserve_all([ASK]))
        assert await at_once((await at_once(plain.reserve_all([ASK], after=nothing))).settle({}))
        with pytest.raises(Denied):
            await at_once(plain.reserve_all([ASK, data("hr")], after=nothing))

    asyncio.run(spend())


@both
def test_what_the_ledger_cannot_tell_is_nothing_left(face: str) -> None:
    class Odd(MemoryLedger):
        answer: Any = None

        def spent(self, bucket: bytes, unit: str) -> int:
            if self.answer is None:
                raise StoreError("gone")
            found: int = self.answer
            return found

    ledger = Odd(floor=0, shared=True)

    async def ask() -> None:
        grant = await at_once(made(face, ledger=ledger).authenticate(mint(**SALES, budget={"rows": 5})))
        for answer, left in ((None, 0), ("3", 0), (3, 2), (9, 0)):
            ledger.answer = answer
            assert await at_once(grant.left(["rows"])) == {"rows": left}
        assert await at_once(grant.left([])) == {}

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
            with pytest.raises(ValueError, match="16 bytes, and 60 seconds"):
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


TEN = Access(table="sales", operation="select", cost={"cents": 10})


@both
@pytest.mark.parametrize(
    ("fails", "answers", "asked"),
    [(["before"], [None, True, False], 2), (["after"], [None, False, False], 2), (["before", "before", "after"], [None, None, None, False], 4)],
)
def test_what_could_not_be_settled_can_be_tried_again_and_is_settled_once(
    face: str, fails: list[str], answers: list[bool | None], asked: int
) -> None:
    """Whether the ledger had not heard, or had done it and was not heard: four are taken, once, and the rest is back once."""
    ledger, token = Failing(*fails), mint(**SALES, budget={"cents": 10})

    async def ask() -> None:
        reserved = await at_once((await at_once(made(face, ledger=ledger).authenticate(token))).reserve(TEN))
        told: list[bool | None] = []
        for _ in answers:
            try:
                told.append(await at_once(reserved.settle({"cents": 4})))
            except StoreError:
                told.append(None)
        assert (told, ledger.left(token)) == (answers, 6)
        assert not await at_once(reserved.cancel()) and ledger.left(token) == 6 and len(ledger.asked) == asked

    asyncio.run(ask())


@both
@pytest.mark.parametrize("said", [{"cents": 4}, {}])
def test_a_block_says_once_more_what_the_ledger_did_not_take(face: str, said: dict[str, int]) -> None:
    """And not that all was spent; also when the ledger's own error leaves the block."""

    async def ask(caught: bool) -> Failing:
        ledger, token = Failing("before"), mint(**SALES, budget={"cents": 10})
        grant = await at_once(made(face, ledger=ledger).authenticate(token))

        async def close(reserved: Any) -> None:
            try:
                await at_once(reserved.settle(said) if said else reserved.cancel())
            except StoreError:
                if not caught:
                    raise

        if face == "Verifier":
            with grant.reserve(TEN) as reserved:
                await close(reserved)
        else:
            async with await grant.reserve(TEN) as reserved:
                await close(reserved)
        assert len(ledger.asked) == 2 and ledger.left(token) == 10 - said.get("cents", 0)
        return ledger

    asyncio.run(ask(caught=True))
    with pytest.raises(StoreError, match="away"):
        asyncio.run(ask(caught=False))


def test_a_task_that_is_cancelled_while_it_settles_settles_what_it_said() -> None:
    """Its thread goes on; at the end of the block the ledger is asked once more, and gives nothing back twice."""
    ledger, token, inside, go = Failing(), mint(**SALES, budget={"cents": 10}), Event(), Event()

    class Waiting(AsyncVerifier):
        async def settle(self, reservation_id: bytes, taken: Any) -> bool:
            inside.set()
            await asyncio.to_thread(go.wait, 60)
            return await super().settle(reservation_id, taken)

    async def ask() -> None:
        grant = await Waiting(KEYRING, clock=clock(), ledger=ledger).authenticate(token)

        async def work() -> None:
            async with await grant.reserve(TEN) as reserved:
                await reserved.settle({"cents": 4})

        task = asyncio.create_task(work())
        await asyncio.to_thread(inside.wait, 60)
        task.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ledger.left(token) == 6

    asyncio.run(ask())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("leave", ["the block", "an exception", "settle", "cancel"])
def test_a_child_of_a_fork_settles_nothing_of_its_parents(tmp_path: Path, leave: str) -> None:
    """Whichever way it leaves the block, or says itself that nothing was done: its parent pays for the work."""
    ledger, token = begun(SQLiteLedger, tmp_path / "ledger.db", shared=True), mint(**SALES, budget={"cents": 10})
    grant = Verifier(KEYRING, clock=clock(), ledger=ledger).authenticate(token)
    link = b64decode(grant.link_ids[0])
    child = 0
    try:
        with grant.reserve(TEN) as reserved:
            child = os.fork()
            if child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert ledger.spent(link, "cents") == 10 and reserved.settle({"cents": 4}) and ledger.spent(link, "cents") == 4
            elif leave == "an exception":
                raise KeyError
            elif leave != "the block":
                said = reserved.settle({"cents": 0}) if leave == "settle" else reserved.cancel()
                os._exit(int(said))
        if not child:
            os._exit(0)
    except BaseException:
        if not child:
            os._exit(0 if leave == "an exception" else 3)
        raise
    finally:
        ledger.close()


# --- what took long is judged again ----------------------------------------------------------------------------------


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


def test_a_grant_has_both_faces() -> None:
    """`blocking` is the same grant for sync guards, `awaited` the one for coroutines."""

    async def ask() -> None:
        grant = await AsyncVerifier(KEYRING, clock=clock()).authenticate(mint())
        assert type(grant.blocking) is Grant and grant.blocking.check(ASK) and grant.blocking.token_id == grant.token_id
        assert (await grant.blocking.awaited.check(data("hr"))).code == "table"
        with pytest.raises(TypeError, match="cannot be pickled"):
            grant.__reduce_ex__(4)

    asyncio.run(ask())


def test_what_a_port_promises_is_written_down() -> None:
    """A trail of one's own has two methods."""

    class Own:
        def record(self, decision: Any) -> None: ...

        def record_all(self, decisions: Any) -> None: ...

    own: Recorder = Own()
    assert Verifier(KEYRING, clock=clock(), audit=own).check(mint(), ASK)


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
