"""What a grant is: looked at anew each time, for a while, of one process; and what it counts is settled once."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from captoken import (
    Access,
    AsyncVerifier,
    Caller,
    Denied,
    Grant,
    Issuer,
    Token,
    Verifier,
)
from captoken._format.encoding import b64decode
from captoken.audit import AuditTrail, read
from captoken.caveats import Caveat, Situation, Vocabulary
from captoken.errors import StoreError
from captoken.stores.memory import MemoryLedger
from captoken.stores.sqlite import SQLiteLedger
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, code, data, mint, tool, verifier
from tests.stores.begun import begun
from tests.test_effects import Failing
from tests.test_plan import denial
from tests.test_verifier import ASK, TEN, at_once, both, made


def test_what_the_smallest_grant_says_is_enough() -> None:
    """A token minted from `needed` permits the access that was refused."""
    for access in (
        data("hr.pay", "update", "amount", "name"), tool("ping"), tool("say", q="y" * 300, n=2**60, pad=" x", e="e\u0301", deep=[1]),
        tool("pay", cents=500, to="acct", live=True, note=None), tool("pay", cents=12.5, rate=-0.0, most=2.0**60, to=["acct", 5, True]),
        tool("mail", to=[], cc=[["a"], ["b", "c"]], bcc=[[[[[1]]]]], all=[f"{n}@example.com" for n in range(500)], mixed=[1, [2]], some=[1, None]),
        Access(table="t", operation="select", tool="search", arguments={"q": "x"}, attributes={"ip": "10.0.0.1", "n": 1.5}),
    ):  # fmt: skip
        decision = verifier().check(mint(allow={}), access)
        assert not decision and code(mint(**decision.needed), access) == "allowed"
        if access.tool is not None:  # and no more than the access
            assert code(mint(**decision.needed), Access(tool=access.tool, arguments={**(access.arguments or {}), "x": 1})) == "argument"
    assert 'tools={"ping": "without arguments"}' in str(verifier().check(mint(allow={}, tools={"other": {}}), tool("ping")))
    assert verifier().explain(mint(), None).needed == {}


def test_a_grant_is_looked_at_anew_each_time() -> None:
    """Expiry during use is honoured; `recheck` asks about the grant alone."""
    moving = clock()
    grant = verifier(clock=moving).authenticate(mint(**SALES, expires_in=10, where={"region": {"in": ["eu"]}}).serialize())
    assert grant.recheck() and grant.check(data("sales", region="eu")) and grant.expires_at == NOW + 10
    moving.advance(10)
    assert grant.recheck().code == "expired" == grant.check(data("sales", region="eu")).code
    assert denial(grant.authorize, data("sales", region="eu")).code == "expired"
    assert "the token itself" in str(grant.recheck())


def test_a_grant_is_good_for_a_while_and_then_the_keys_are_asked_again() -> None:
    """However long the token lives: an hour, or what the verifier says; a clock that is set back by more than a minute too."""
    moving = clock()
    for facts, last in (({}, 3600), ({"max_age": 5}, 5), ({"max_age": 0}, 0), ({"max_age": None}, 10**6)):
        moving.now = NOW
        one = verifier(clock=moving, **facts)
        grant = one.authenticate(mint(**SALES, expires_at=None))
        moving.now = NOW + last
        assert grant.recheck() and grant.check(data("sales"))
        moving.now = NOW + last + 1
        ended = "allowed" if last == 10**6 else "stale_grant"
        assert grant.recheck().code == grant.check(data("sales")).code == grant.explain(data("sales")).code == ended
        assert one.check(mint(**SALES, expires_at=None), data("sales")), "the token itself is good"
    moving.now = NOW
    grant = verifier(clock=moving).authenticate(mint(**SALES, expires_at=None))
    moving.now = NOW - 60
    assert grant.recheck()
    moving.now = NOW - 61
    refused = grant.check(data("sales"))
    assert refused.code == "stale_grant" and refused.steps[6].outcome == "failed"
    assert Denied(refused).kind == "invalid" and "Present the credential again" in refused.for_model()


@pytest.mark.parametrize("facts", [{"max_age": -1}, {"max_age": 1.5}, {"max_age": True}], ids=repr)
def test_the_age_of_a_grant_is_a_number_of_seconds_or_none(facts: Any) -> None:
    with pytest.raises(ValueError, match="max_age"):
        verifier(**facts)


def test_a_grant_says_who_acts_for_whom() -> None:
    token = mint().delegate(to="b", task="task-123/part").delegate(to="c")
    grant = verifier().authenticate(token.serialize())
    assert [(actor.name, actor.basis) for actor in grant.chain] == [("orchestrator", "issued"), ("b", "vouched"), ("c", "vouched")]
    assert grant.actor.name == "c" and grant.parent is not None and grant.parent.name == "b"
    assert (grant.issued.subject, grant.issued.task, grant.task) == ("user:jane", "task-123", "task-123/part")
    assert len(set(grant.link_ids)) == 3 and grant.link_ids[-1] == token.link_id
    assert grant.link_ids[:1] == verifier().authenticate(mint().serialize()).link_ids[:1]
    assert verifier().authenticate(mint().serialize()).parent is None
    assert grant.capability.json()["operations"] == ["select"]


def test_a_caller_is_the_current_holder_in_the_tokens_task() -> None:
    grant = verifier().authenticate(mint().delegate(to="b", task="task-123/part").serialize())
    for caller, allowed in [
        (Caller(agent="b"), True), (Caller(task="task-123/part"), True), (Caller(task="task-123/part/x"), True),
        (Caller(agent="orchestrator"), False), (Caller(task="task-123"), False), (Caller(task="task-123/parts"), False),
    ]:  # fmt: skip
        assert bool(grant.check(data("sales"), caller=caller)) is allowed
    for wrong in ({}, {"agent": None}, {"agent": "b c"}, {"agent": 5}, {"task": "a//b"}):
        with pytest.raises((TypeError, ValueError)):
            Caller(**wrong)  # type: ignore[arg-type]


def test_grants_verifiers_and_tokens_stay_in_their_process() -> None:
    """None is pickled or changed, and copies are the thing itself."""
    token = mint()
    for sealed in (token, KEYRING, verifier(), verifier().authenticate(token.serialize()), Issuer(KEYRING), token.unverified):
        assert copy.copy(sealed) is sealed is copy.deepcopy(sealed)
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(sealed)
        with pytest.raises(AttributeError):
            sealed.anything = 5  # type: ignore[attr-defined]
        with pytest.raises(AttributeError):
            del sealed.anything  # type: ignore[attr-defined]
        assert KEYRING.reveal("k1").hex() not in repr(sealed) and token.serialize()[5:30] not in f"{sealed!r} {sealed}"


def test_what_a_grant_hands_out_cannot_be_changed() -> None:
    grant = verifier().authenticate(mint(**SALES, tools={"search": {}}, where={"r": {"in": ["eu"]}}).serialize())
    capability = grant.capability
    for live in (capability.data, capability.tool, capability.where, capability.tool and capability.tool["search"], Vocabulary().kinds):
        with pytest.raises(TypeError):
            live["x"] = 1  # type: ignore[index]


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


def test_a_grant_has_both_faces() -> None:
    """`blocking` is the same grant for sync guards, `awaited` the one for coroutines."""

    async def ask() -> None:
        grant = await AsyncVerifier(KEYRING, clock=clock()).authenticate(mint())
        assert type(grant.blocking) is Grant and grant.blocking.check(ASK) and grant.blocking.token_id == grant.token_id
        assert (await grant.blocking.awaited.check(data("hr"))).code == "table"
        with pytest.raises(TypeError, match="cannot be pickled"):
            grant.__reduce_ex__(4)

    asyncio.run(ask())


class Sometimes(Caveat, frozen=True):
    """A caveat of an embedder's, which could refuse columns as well."""

    key = "acme:sometimes"

    def prohibits(self, access: Access, situation: Situation) -> None:
        return None


OWN = Vocabulary(Sometimes)
HELD: Any = {**WHO, **SALES, "acme:sometimes": True}


@pytest.mark.parametrize(
    ("token", "parts"),
    [
        (mint(), False),
        (mint(**SALES).attenuate(tables=["sales"]), False),
        (mint(**SALES, columns={"sales": ["id"]}), True),
        (mint(**SALES).attenuate(columns={"market.*": ["id"]}), True),
        (mint(**SALES, rows={"sales": {"region": {"in": ["eu"]}}}), True),
        (Issuer(KEYRING, vocabulary=OWN, clock=clock()).mint(**HELD), True),
    ],
    ids=["tables", "fewer tables", "columns", "columns of another link", "rows", "a caveat of an embedder's"],
)
def test_a_grant_knows_whether_a_link_grants_a_part_of_a_table(token: Token, parts: bool) -> None:
    """Whichever table that is, and also where an embedder's caveat could do so."""
    assert verifier(vocabulary=OWN).authenticate(token).grants_parts is parts
