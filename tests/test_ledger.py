"""What is counted: uses and budgets that a token shares with all below it, and who has to know of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from captoken import Access, Denied, Issuer, Token, Verifier
from captoken._format.clocks import CLOCKS_DIFFER
from captoken._format.encoding import MAX_INTEGER
from captoken._format.errors import LimitError
from captoken._language.caveats import V1
from captoken._language.links import buckets_of
from captoken._language.overlay import snapshot
from captoken._verification.decision import Refusal
from captoken.control import Operator, Overlay
from captoken.errors import CODES, StoreError
from captoken.keys import HolderKey, OperatorKey
from captoken.stores import _rules
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from captoken.stores.ports import KEPT, LEASE, USES, Debit, Reservation
from captoken.testing import FixedClock, fixed_random
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, data, mint, prove, sent, verifier

MOST = 2**53 - 1


def paid(amount: int, unit: str = "eur", operation: str = "select") -> Access:
    return Access(table="sales", operation=operation, cost={unit: amount})


def memory(**facts: Any) -> MemoryLedger:
    """A ledger that has seen all there was, and that every server shares."""
    return MemoryLedger(**{"shared": True, "floor": 0, **facts})


def ids(token: Token, **facts: Any) -> list[bytes]:
    """The buckets of a token's links."""
    seen: list[bytes] = []

    class Seen(MemoryLedger):
        def reserve(self, reservation: Reservation, now: int) -> Debit | None:
            seen.extend(debit.bucket for debit in reservation.debits)
            return None

    access = Access(table="sales", operation="select", cost={"eur": 0, "rows": 0})
    assert verifier(ledger=Seen(shared=True), **facts).check(token, access)
    return seen


# --- sharing ---------------------------------------------------------------------------------------------------------


def test_five_children_with_a_hundred_each_under_a_hundred_spend_a_hundred() -> None:
    """Each was promised all of it; in turn they get twenty each, and no more is left for any of them."""
    root = mint(**SALES, budget={"eur": 100})
    children = [root.delegate(to=f"agent-{number}", budget={"eur": 100}).serialize() for number in range(5)]
    one = verifier(ledger=memory())
    said = [one.check(children[number % 5], paid(1)) for number in range(150)]
    assert [bool(decision) for decision in said] == [True] * 100 + [False] * 50
    assert {decision.code for decision in said[100:]} == {"budget_exhausted"}
    assert said[-1].refusals == (Refusal("budget_exhausted", "none of the 100 eur are left", 0, "the issuer"),)
    assert said[-1].step == 11 and CODES["budget_exhausted"].kind == "insufficient"
    assert not one.check(root, paid(1)) and one.check(root, paid(0))


def test_a_use_counts_for_every_link_above_it_and_for_no_sibling() -> None:
    """Three below, of two: the third is refused by the child; a sibling has its own two; the root's five are then used up."""
    root, one = mint(**SALES, uses=5), verifier(ledger=memory())
    first, second = (root.attenuate(uses=2) for _ in range(2))
    assert first != second, "two equal links are two allowances, since each has a nonce"
    leaf = first.delegate(to="sales-agent", tables=["sales"])
    assert [one.check(token, data("sales")).code for token in (leaf, first, leaf)] == ["allowed", "allowed", "budget_exhausted"]
    refused = one.check(leaf, data("sales")).refusals[0]
    assert (refused.link, refused.added_by, refused.text) == (1, "orchestrator", "none of the 2 uses are left")
    assert [one.check(token, data("sales")).code for token in (second, second, second)] == ["allowed"] * 2 + ["budget_exhausted"]
    assert [one.check(root, data("sales")).code for _ in range(2)] == ["allowed", "budget_exhausted"]


def test_all_or_nothing() -> None:
    """What the last of three buckets cannot give is not taken from the others; nor is what one of two units cannot."""
    ledger = memory()
    root = mint(**SALES, budget={"eur": 30, "rows": 30}, uses=30)
    leaf = root.attenuate(budget={"eur": 10}, uses=20).attenuate(uses=9)
    one, access = verifier(ledger=ledger), Access(table="sales", operation="select", cost={"eur": 4, "rows": 16})
    buckets = ids(leaf)
    assert len(buckets) == 6
    assert one.check(leaf, access)
    before = dict(ledger._spent)
    assert sorted(before.values()) == [1, 1, 1, 4, 4, 16]
    assert one.check(leaf, access).refusals[0].text == "this needs 16 rows, and less is left of the 30" and ledger._spent == before
    short = one.check(leaf, Access(table="sales", operation="select", cost={"eur": 7, "rows": 0}))
    assert short.refusals[0].link == 1 and ledger._spent == before


def test_nothing_else_is_counted() -> None:
    """A denial, an `explain`, a token that is shown without an access, and a token that counts nothing take nothing."""
    ledger = memory()
    one, token = verifier(ledger=ledger), mint(**SALES, uses=1, budget={"eur": 5})
    assert not one.check(token, paid(1, operation="delete")) and not one.check(token, data("sales"))
    dry = one.explain(token, paid(1))
    assert dry and dry.grant is None and one.explain(token, paid(6)).code == "budget_exhausted", "what is left is looked at"
    grant = one.authenticate(token)
    assert grant.recheck() and grant.explain(paid(1)) and grant.capability.uses == 1
    assert one.check(mint(), paid(10**6)) and not ledger._spent
    assert grant.check(paid(1)) and not one.check(token, paid(0)) and not grant.check(paid(0))


def test_every_way_to_ask_counts_once() -> None:
    """`check` and `authorize` of a verifier and of a grant: one each; the grant of an access is none for the next."""
    ledger = memory()
    one, token = verifier(ledger=ledger), mint(**SALES, uses=4)
    grant = one.authorize(token, data("sales"))
    assert one.check(token, data("sales")) and grant.check(data("sales")) and grant.authorize(data("sales")) is grant
    assert list(ledger._spent.values()) == [4]
    with pytest.raises(Denied) as caught:
        grant.authorize(data("sales"))
    assert caught.value.code == "budget_exhausted" and caught.value.kind == "insufficient"
    assert caught.value.public == "The token has too little left for this request."


def test_no_use_at_all() -> None:
    """Of none, none is left; and an amount of nothing is no amount."""
    one = verifier(ledger=memory())
    assert one.check(mint(**SALES, uses=0), data("sales")).code == "budget_exhausted"
    assert one.check(mint(**SALES, budget={"eur": 0}), paid(0)) and not one.check(mint(**SALES, budget={"eur": 0}), paid(1))
    assert one.check(mint(**SALES, budget={"eur": MOST}), paid(MOST))


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_a_cost_that_is_not_stated_is_denied() -> None:
    """Every unit that a link names has to be stated; others may be, and are not counted."""
    ledger = memory()
    one = verifier(ledger=ledger)
    token = mint(**SALES, budget={"eur": 5}).attenuate(budget={"rows": 5, "tokens": 5})
    decision = one.check(token, paid(1))
    assert decision.refusals == (
        Refusal("cost_unstated", 'the server did not state what it costs in rows, tokens (it states eur); if it costs nothing, write cost={"rows": 0, "tokens": 0}', 1, "orchestrator"),
    )
    assert decision.step == 8 and [refusal.link for refusal in one.check(token, data("sales")).refusals] == [0, 1] and not ledger._spent
    assert one.check(token, Access(table="sales", operation="select", cost={"eur": 1, "rows": 2, "tokens": 3, "usd": 9}))
    assert sorted((unit, spent) for (_, unit), spent in ledger._spent.items()) == [("eur", 1), ("rows", 2), ("tokens", 3)]


def test_a_holder_fills_no_ledger_beyond_its_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Child after child with a count of its own, until there is no room: refused at the link of the first that is new. Those that
    were there go on, and so does every other token."""
    monkeypatch.setattr(_rules, "MOST_BUCKETS", 5)
    one = verifier(ledger=memory())
    root, other = mint(**SALES, uses=100), Issuer(KEYRING, clock=clock()).mint(**WHO, **SALES, uses=1)
    children = [root.attenuate(uses=10, operations=["select"]) for _ in range(6)]
    codes = [one.check(child, data("sales")) for child in children]
    assert [decision.code for decision in codes] == ["allowed"] * 4 + ["budget_exhausted"] * 2 and codes[-1].refusals[0].link == 1
    assert one.check(children[0], data("sales")) and one.check(root, data("sales")) and one.check(other, data("sales"))
    told = one.explain(children[5], data("sales"))
    assert told.code == "budget_exhausted" and "the tree of this token has 10000 buckets, the most there can be, and uses would need one more" in str(told)

    used_up = one.check(Issuer(KEYRING, clock=clock()).mint(**WHO, **SALES, uses=0), data("sales"))
    assert "none of the 0 uses are left" in str(used_up) and used_up.for_model() == told.for_model(), "a model is told no more"


def test_verifiers_of_one_ledger_with_leeways_apart_take_a_use_once() -> None:
    """One by the clock, one that takes tokens for two hours longer. Once the first has made the ledger forget, the second is told
    that it cannot be known; one with less than an hour goes on."""
    ledger, ticking = memory(), FixedClock(NOW)
    strict, long, short = (Verifier(KEYRING, ledger=ledger, clock=ticking, leeway=leeway) for leeway in (0, 7200, 1800))
    token = mint(**SALES, uses=1, expires_in=600)
    assert strict.check(token, data("sales")) and long.check(token, data("sales")).code == "budget_exhausted"
    ticking.advance(600 + KEPT + 1800)
    fresh = Issuer(KEYRING, clock=ticking).mint(**WHO, **SALES, uses=2)
    assert strict.check(token, data("sales")).code == "expired" and strict.check(fresh, data("sales"))
    assert [long.check(one, data("sales")).code for one in (token, fresh)] == ["store_unavailable"] * 2
    assert short.check(fresh, data("sales")) and long.explain(token, data("sales")).code == "store_unavailable"


# --- reserve, settle, cancel -----------------------------------------------------------------------------------------


def test_what_was_not_taken_goes_back() -> None:
    """Reserved is the most; settled is what it was: in every bucket above."""
    ledger = memory()
    token = mint(**SALES, uses=3, budget={"eur": 10}).attenuate(budget={"eur": 8})
    grant = verifier(ledger=ledger).authenticate(token)
    reserved = grant.reserve(paid(8))
    assert not grant.check(paid(1)), "what is reserved is not there for others"
    assert reserved.settle({"eur": 3}) is True and sorted(ledger._spent.values()) == [1, 3, 3]
    assert reserved.settle({"eur": 0}) is False and reserved.cancel() is False and sorted(ledger._spent.values()) == [1, 3, 3]
    assert grant.reserve(paid(5)).settle() is True and sorted(ledger._spent.values()) == [2, 8, 8]
    reserved = grant.reserve(paid(0))
    assert not grant.check(paid(0)) and reserved.cancel() is True and sorted(ledger._spent.values()) == [2, 8, 8]
    assert grant.check(paid(0))


def test_a_settlement_takes_no_more_than_was_reserved_and_the_use_with_it() -> None:
    """More than was reserved is what was reserved; the use of a call that was made does not go back, whatever is said."""
    for said, eur in (({"eur": 100}, 5), ({"eur": 0}, 0), ({"rows": 3, "eur": 2}, 2), ({"eur": 1, USES: 0}, 1)):
        ledger = memory()
        grant = verifier(ledger=ledger).authenticate(mint(**SALES, uses=3, budget={"eur": 10}))
        assert grant.reserve(paid(5)).settle(said)
        assert {unit: spent for (_, unit), spent in ledger._spent.items()} == {"uses": 1, "eur": eur}, said


@pytest.mark.parametrize(
    ("cost", "error"),
    [({"eur": -1}, ValueError), ({"eur": 1.0}, TypeError), (5, TypeError), ({"a b": 1}, ValueError), ({}, ValueError),
     ({"euro": 1}, ValueError), ({USES: 0}, ValueError)],
)  # fmt: skip
def test_a_cost_that_is_none_or_not_stated_is_all_of_it(cost: Any, error: type[Exception]) -> None:
    """It raises, and what was reserved is spent: something was done, and a mistake in what is said of it gives nothing back."""
    ledger = memory()
    reserved = verifier(ledger=ledger).authenticate(mint(**SALES, budget={"eur": 10})).reserve(paid(5))
    with pytest.raises(error):
        reserved.settle(cost)
    assert list(ledger._spent.values()) == [5] and reserved.settle({"eur": 1}) is reserved.cancel() is False
    with pytest.raises(error), verifier(ledger=ledger).authenticate(mint(**SALES, budget={"eur": 10})).reserve(paid(5)) as other:
        other.settle(cost)
    assert list(ledger._spent.values()) == [10]


def test_a_block_is_settled_in_full_also_when_it_is_left_by_an_exception() -> None:
    """Whoever calls can hang up when the work is done. What was settled or cancelled within is left at that."""
    ledger = memory()
    grant = verifier(ledger=ledger).authenticate(mint(**SALES, budget={"eur": 10}))

    def spent() -> int:
        return ledger._spent[ids(mint(**SALES, budget={"eur": 10}))[0], "eur"]

    with grant.reserve(paid(1)) as reserved:
        assert spent() == 1
    assert spent() == 1 and reserved.cancel() is False
    for number, failure in enumerate((KeyError, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError), 1):
        with pytest.raises(failure), grant.reserve(paid(1)):
            raise failure
        assert spent() == 1 + number
    with grant.reserve(paid(5)) as reserved:
        assert reserved.settle({"eur": 2})
    assert spent() == 7
    with pytest.raises(KeyError), grant.reserve(paid(3)) as reserved:
        reserved.settle({"eur": 2})
        raise KeyError
    assert spent() == 9
    with pytest.raises(KeyError), grant.reserve(paid(1)) as reserved:
        reserved.cancel()
        raise KeyError
    assert spent() == 9


class Heard(MemoryLedger):
    """Says what it was asked to settle."""

    def __init__(self) -> None:
        super().__init__(floor=0, shared=True)
        self.settled: list[Mapping[str, int] | None] = []

    def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> bool:
        self.settled.append(amounts)
        return super().settle(reservation_id, amounts, now)


def test_a_block_in_which_nothing_was_said_asks_the_ledger_once() -> None:
    """To reserve: all is spent as it is. After it, neither face settles or cancels; within it, each asks."""
    ledger = Heard()
    grant = verifier(ledger=ledger).authenticate(mint(**SALES, budget={"eur": 100}))

    async def awaited() -> None:
        async with await grant.awaited.reserve(paid(5)) as reserved:
            pass
        assert not await reserved.settle({"eur": 1}) and not await reserved.cancel()
        async with await grant.awaited.reserve(paid(5)) as reserved:
            assert await reserved.settle()

    with grant.reserve(paid(5)) as reserved:
        pass
    assert not reserved.settle({"eur": 1}) and not reserved.cancel() and ledger.settled == []
    with grant.reserve(paid(5)) as reserved:
        assert reserved.settle()
    assert not reserved.cancel() and ledger.settled == [None]
    asyncio.run(awaited())
    assert ledger.settled == [None, None] and list(ledger._spent.values()) == [20]


def test_what_never_was_enough_is_refused_without_asking_the_ledger() -> None:
    """Also a sum of costs that no store can hold: it is no fault of the store."""
    ledger = Faulty(lambda *_: pytest.fail("asked"))
    grant = verifier(ledger=ledger).authenticate(mint(**SALES, budget={"eur": 10}))
    assert grant.check(paid(11)).code == "budget_exhausted"
    assert grant.check_all([paid(MAX_INTEGER), paid(MAX_INTEGER)]).code == "budget_exhausted"


def test_too_late_is_spent() -> None:
    """A minute after it was reserved it can be neither settled nor cancelled, and says so; a second before it can."""
    ticking = FixedClock(NOW)
    ledger = memory()
    grant = verifier(ledger=ledger, clock=ticking).authenticate(mint(**SALES, budget={"eur": 10}, expires_in=600))
    first, second, third = (grant.reserve(paid(2)) for _ in range(3))
    ticking.advance(LEASE - 1)
    assert first.cancel() is True and list(ledger._spent.values()) == [4]
    ticking.advance(1)
    assert second.cancel() is False and third.settle({"eur": 0}) is False and list(ledger._spent.values()) == [4]


def test_who_counts_nothing_has_nothing_to_settle() -> None:
    """A reservation on a token without `uses` or `budget` is a check; there is no ledger to ask. A denial raises."""
    grant = verifier().authenticate(mint())
    reserved = grant.reserve(data("sales"))
    assert reserved.settle() is True and reserved.settle({"eur": 5}) is True and reserved.cancel() is True
    with grant.reserve(data("sales")):
        pass
    with pytest.raises(KeyError), grant.reserve(data("sales")):
        raise KeyError
    with pytest.raises(Denied, match="table"):
        grant.reserve(data("hr"))


def test_the_steps_tell_what_was_committed() -> None:
    """A bearer token has no proof to check; what a dry run would take it looked at; what counts nothing commits nothing."""
    one, token = verifier(ledger=memory()), mint(**SALES, uses=1)
    told = {
        "dry": one.explain(token, data("sales")), "first": one.check(token, data("sales")), "second": one.check(token, data("sales")),
        "free": one.check(mint(), data("sales")),
    }  # fmt: skip
    outcomes = {what: [(step.outcome, step.detail) for step in decision.steps[9:]] for what, decision in told.items()}
    no_proof = ("nothing to check", "no proof is asked for")
    assert outcomes == {
        "dry": [no_proof, ("held", "looked at, not committed")], "first": [no_proof, ("held", "")],
        "second": [no_proof, ("failed", "none of the 1 uses are left")], "free": [no_proof, ("nothing to check", "nothing to commit")],
    }  # fmt: skip


def test_a_model_is_told_that_the_allowance_is_used_up_and_not_of_whom() -> None:
    """And that a cost has to be stated; neither amount nor limit."""
    one = verifier(ledger=memory())
    used_up = one.check(mint(**SALES, budget={"eur": 3}), paid(4)).for_model()
    unstated = one.check(mint(**SALES, budget={"eur": 3}), data("sales")).for_model()
    assert used_up.startswith("Not permitted: this needs more than is left of this task's allowance.") and "cost" in unstated
    assert not any(word in used_up + unstated for word in ("eur", "3", "4", "orchestrator"))


# --- several accesses in one -----------------------------------------------------------------------------------------


def test_what_one_step_needs_is_used_once() -> None:
    """Three accesses are one use, and cost what they cost together; one that is refused, and the step takes nothing."""
    ledger = memory()
    grant = verifier(ledger=ledger).authenticate(mint(**SALES, uses=3, budget={"eur": 10}))
    buckets = lambda: sorted(ledger._spent.values())  # noqa: E731
    assert grant.check_all([paid(1), paid(2), paid(3)]) and buckets() == [1, 6]
    refused = grant.check_all([paid(1), paid(1, operation="delete"), data("hr")])
    assert refused.code == "operation" and refused.access == paid(1, operation="delete") and buckets() == [1, 6]
    assert grant.check_all([paid(1), data("sales")]).code == "cost_unstated" and buckets() == [1, 6]
    short = grant.check_all([paid(2), paid(3)])
    assert (short.code, short.access, short.refusals[0].text) == ("budget_exhausted", paid(2), "this needs 5 eur, and less is left of the 10") and buckets() == [1, 6]
    assert grant.check_all([paid(4)]) and grant.check_all([paid(0)]) and grant.check_all([paid(0)]).code == "budget_exhausted"
    assert verifier().authenticate(mint()).check_all([data("sales"), data("market.eu")])
    with pytest.raises(ValueError, match="at least one"):
        grant.check_all([])
    with pytest.raises(TypeError):
        grant.check_all(["sales"])  # type: ignore[list-item]
    assert verifier().authenticate(mint(**SALES, uses=1)).check_all([data("sales")]).code == "store_unavailable"


# --- ledgers that fail, lie, or are none -----------------------------------------------------------------------------


class Faulty(MemoryLedger):
    """A ledger that does as it is told to."""

    def __init__(self, does: Callable[[], Any], shared: Any = True) -> None:
        super().__init__(shared=shared, floor=0)
        self.does = does

    def reserve(self, reservation: Reservation, now: int) -> Any:
        return self.does()

    def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> Any:
        return self.does()


def raises(error: Exception) -> Callable[[], Any]:
    def raising() -> Any:
        raise error

    return raising


@pytest.mark.parametrize(
    ("does", "text"),
    [
        (raises(StoreError("the disk is full")), "the disk is full"),
        (raises(OSError("secret path")), "a store raised OSError"),
        (raises(KeyError("x")), "a store raised KeyError"),
        (raises(TypeError("x")), "a store raised TypeError"),
        (lambda: True, "the ledger answered with a bool"),
        (lambda: False, "the ledger answered with a bool"),
        (lambda: 0, "the ledger answered with a int"),
        (lambda: (), "the ledger answered with a tuple"),
        (lambda: Reservation(b"", (), 0, 0, None), "the ledger answered with a Reservation"),
        (lambda: Debit(b"", "eur", 5, 1, "x"), "a store raised TypeError"),  # type: ignore[arg-type]
    ],
)
def test_a_ledger_that_fails_denies(does: Callable[[], Any], text: str) -> None:
    """Whatever it raises, and whatever it says that is no answer: nobody knows whether there was enough."""
    one, token = verifier(ledger=Faulty(does)), mint(**SALES, uses=5)
    for decision in (one.check(token, data("sales")), one.authenticate(token).check(data("sales"))):
        assert (decision.code, decision.step, decision.refusals[0].text) == ("store_unavailable", 11, text) and decision.grant is None
    with pytest.raises(Denied) as caught:
        one.authenticate(token).reserve(data("sales"))
    assert caught.value.kind == "unavailable"
    assert one.check(mint(), data("sales")), "what is not counted is not asked about"


def test_a_ledger_that_names_a_link_that_is_not_there_denies() -> None:
    """What a ledger says is for people; whichever debit it is."""
    for at in (0, 1, 7, -1, 10**9):
        decision = verifier(ledger=Faulty(lambda at=at: Debit(b"x", "\x1b[2J", -1, 10**30, at))).check(mint(**SALES, uses=5), data("sales"))
        assert decision.code == "budget_exhausted" and "\x1b" not in str(decision)


def test_a_settlement_that_fails_says_so() -> None:
    """What the ledger raises passes through, each time; what is no answer is none."""
    reserved = verifier(ledger=memory()).authenticate(mint(**SALES, uses=5)).reserve(data("sales"))
    for does, said in ((raises(StoreError("away")), None), (lambda: 1, False), (lambda: None, False), (lambda: True, True)):
        ledger = Faulty(lambda: None)
        reserved = verifier(ledger=ledger).authenticate(mint(**SALES, uses=5)).reserve(data("sales"))
        ledger.does = does
        if said is None:
            for _ in range(2):
                with pytest.raises(StoreError, match="away"):
                    reserved.settle()
            ledger.does = lambda: True
            assert (reserved.settle(), reserved.settle()) == (True, False)
        else:
            assert reserved.cancel() is said


def test_no_ledger_denies_what_is_counted() -> None:
    """And nothing else; a dry run says the same."""
    one, token = verifier(), mint(**SALES, uses=5)
    decision = one.check(token, data("sales"))
    assert (decision.code, decision.step) == ("store_unavailable", 11)
    assert decision.refusals[0].text == "this verifier needs a ledger (ledger=) for a token with uses, a budget or marks"
    assert one.authenticate(token).check(data("sales")).code == "store_unavailable" == one.explain(token, data("sales")).code
    assert one.check(mint(**SALES, budget={"eur": 5}), paid(1)).code == "store_unavailable" and one.check(mint(), data("sales"))


def test_without_a_ledger_nothing_is_settled() -> None:
    """There is none to say that it did."""
    with pytest.raises(StoreError, match="needs a ledger"):
        verifier().settle(bytes(16), None)


# --- one ledger for all that count -----------------------------------------------------------------------------------


def test_a_token_that_is_good_at_two_servers_is_not_counted_at_one() -> None:
    """To nobody, or to two: `unaddressed` where the ledger is a server's own; taken where the token is for one, or where
    all servers share a ledger. What counts nothing goes anywhere."""
    for audience, alone in ((None, "unaddressed"), (["a", "b"], "unaddressed"), (["a"], "allowed"), ("a", "allowed")):
        stated = {} if audience is None else {"audience": audience}
        token = mint(**SALES, uses=5, **stated)
        for shared in (False, True, 1, "yes", None):
            ledger = MemoryLedger(shared=shared, floor=0)  # type: ignore[arg-type]
            decision = verifier(ledger=ledger, audience="a", allow_unaddressed=True).check(token, data("sales"))
            assert decision.code == ("allowed" if shared is True else alone), (audience, shared)
        plain = {"audience": "a", "allow_unaddressed": True, "ledger": MemoryLedger(floor=0)}
        assert verifier(**plain).check(mint(**SALES, **stated), data("sales"))


def test_who_may_use_it_once_cannot_use_it_once_at_every_server() -> None:
    """A holder makes a child for each of three servers: none of them, with a ledger of its own, takes the root's allowance for
    its own. It was for one server before it was counted, or it is counted at none."""
    def codes(token: Token, **facts: Any) -> list[str]:
        children = [(name, token.attenuate(audience=name)) for name in ("a", "b", "c")]
        return [
            Verifier(KEYRING, name, clock=clock(), ledger=MemoryLedger(floor=0), **facts).check(child, data("sales")).code
            for name, child in children
        ]

    assert codes(mint(**SALES, uses=1)) == codes(mint(**SALES, uses=1, audience=["a", "b", "c"])) == ["unaddressed"] * 3
    child = mint(**SALES, audience=["a", "b", "c"]).attenuate(tables=["sales"])
    assert codes(child.attenuate(uses=1)) == ["unaddressed"] * 3 and codes(child) == ["allowed"] * 3
    for_one = child.attenuate(audience="a")
    one = Verifier(KEYRING, "a", clock=clock(), ledger=MemoryLedger(floor=0))
    for counted in (for_one.attenuate(uses=1), child.attenuate(audience="a", uses=1), for_one.attenuate(uses=1).delegate(to="b", uses=1)):
        assert [one.check(counted, data("sales")).code for _ in range(2)] == ["allowed", "budget_exhausted"]


def test_a_token_that_is_minted_for_one_server_counts_there() -> None:
    """By its key, which no other server has."""
    ring = KEYRING.for_audience("a")
    token = Issuer(ring, clock=clock(), random=fixed_random("x")).mint(**WHO, **SALES, uses=1)
    one = Verifier(ring, "a", clock=clock(), ledger=MemoryLedger(floor=0))
    assert [one.check(token, data("sales")).code for _ in range(2)] == ["allowed", "budget_exhausted"]


# --- the order of the effects ----------------------------------------------------------------------------------------


def test_the_proof_is_used_before_the_budget_is() -> None:
    """A proof that was used takes nothing of the budget; a budget that is used up leaves the proof used. In that order (31.5)."""
    key = HolderKey.generate()
    ledger, replays = memory(), MemoryReplayStore(floor=0)
    one = verifier(ledger=ledger, replays=replays, audience="a")
    token = mint(**SALES, uses=1, audience="a", key=key.public)
    text = token.serialize()
    first, second = (prove(text, key, audience="a", request=data("sales"), clock=clock()) for _ in range(2))
    assert one.check(sent(token, first), data("sales")) and list(ledger._spent.values()) == [1] and len(replays) == 1
    assert one.check(sent(token, first), data("sales")).code == "replayed" and list(ledger._spent.values()) == [1]
    assert one.check(sent(token, second), data("sales")).code == "budget_exhausted" and len(replays) == 2
    assert one.check(sent(token, second), data("sales")).code == "replayed"
    assert verifier(ledger=ledger, audience="a").check(sent(token, first), data("sales")).code == "store_unavailable"
    assert list(ledger._spent.values()) == [1]


# --- links -----------------------------------------------------------------------------------------------------------


def test_an_overlay_does_not_count() -> None:
    """It is on tokens of every server and every chain: there is no one bucket. How fresh it is it may say. (Discharges: E7.)"""
    key = OperatorKey.generate()
    operator = Operator(key, MemorySnapshots(), by="ops", clock=clock())
    for stated in ({"uses": 1}, {"budget": {"eur": 1}}):
        with pytest.raises(TypeError):
            operator.narrow(task="task-123", why="x", **stated)
    assert operator.narrow(task="task-123", why="x", fresh=30).link == {"fresh": 30}


# --- fresh -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fresh", "age", "code"), [(30, 30, "allowed"), (30, 31, "stale_overlay"), (0, 0, "allowed"), (0, 1, "stale_overlay"), (30, 0, "allowed"), (30, -5, "allowed")])
def test_fresh_asks_for_an_overlay_of_the_last_seconds(fresh: int, age: int, code: str) -> None:
    """Tighter than the verifier's own bound; asked again by a grant; a clock that is a little ahead is no age."""
    key, ticking = OperatorKey.generate(), FixedClock(NOW - age)
    overlay = Overlay.open(snapshot(key, [], seq=1, issued_at=NOW), [key.public])
    ticking = FixedClock(NOW)
    one = verifier(overlay=overlay, clock=ticking, max_staleness=600)
    token = mint(**SALES, fresh=fresh)
    grant = one.authenticate(token)
    ticking.now = NOW + age
    assert one.check(token.serialize(), data("sales")).code == grant.check(data("sales")).code == grant.recheck().code == code
    assert grant.explain(data("sales")).code == code


def test_fresh_without_an_overlay_is_stale() -> None:
    """Also where a stale one would do; said of the link that asks for it."""
    decision = verifier().check(mint().attenuate(fresh=MOST), data("sales"))
    assert decision.refusals[0] == Refusal("stale_overlay", f"asks for an overlay of the last {MOST} s, and there is none", 1, "orchestrator")
    assert verifier(overlay=lambda: None, allow_stale_overlay=True).check(mint(**SALES, fresh=60), data("sales")).code == "stale_overlay"


# --- in memory -------------------------------------------------------------------------------------------------------


def asked(number: int, amount: int = 1, limit: int = 10, *, at: int = NOW, until: int = NOW + LEASE, keep: int | None = NOW + 600) -> Reservation:
    return Reservation(number.to_bytes(16, "big"), (Debit(b"b" * 16, "eur", limit, amount),), at, until, keep)


def test_the_floor_of_a_new_ledger_is_the_real_clock_and_a_minute() -> None:
    """What was issued before is refused, since what it used is not known; `floor=0` says that nothing was."""
    ledger = MemoryLedger(shared=True, clock=lambda: NOW + 0.9)
    for at in (0, NOW, NOW + CLOCKS_DIFFER):
        with pytest.raises(StoreError, match="before this ledger began"):
            ledger.reserve(asked(1, at=at), NOW)
    assert ledger.reserve(asked(1, at=NOW + CLOCKS_DIFFER + 1), NOW) is None and MemoryLedger()._floor > NOW and not MemoryLedger().shared
    token = mint(**SALES, uses=5)
    decision = verifier(ledger=MemoryLedger(shared=True, clock=clock())).check(token, data("sales"))
    assert decision.code == "store_unavailable" and "does not know what it has used" in decision.refusals[0].text
    assert verifier(ledger=MemoryLedger(shared=True, floor=NOW - 1)).check(token, data("sales"))


def test_it_keeps_nothing_longer_than_it_has_to() -> None:
    """Reservations a minute, buckets an hour after the last token that has one has expired; those of a token that never does
    for ever."""
    ledger = memory()
    assert ledger.reserve(asked(1, keep=NOW + 100), NOW) is None and ledger.reserve(asked(2, keep=NOW + 50), NOW) is None
    other = Reservation(b"x" * 16, (Debit(b"o" * 16, "eur", 10, 1),), NOW, NOW + LEASE, None)
    assert ledger.reserve(other, NOW) is None and len(ledger._known) == len(ledger._open) == 3
    assert ledger.settle(b"none", None, NOW + LEASE) is False and not ledger._known and not ledger._open
    assert ledger.settle(b"none", None, NOW + 100 + KEPT - 1) is False and ledger.spent(b"b" * 16, "eur") == 2
    assert ledger.settle(b"none", None, NOW + 100 + KEPT) is False and ledger.spent(b"b" * 16, "eur") == 0
    assert ledger.settle(b"none", None, NOW + 10**9) is False and ledger.spent(b"o" * 16, "eur") == 1 and len(ledger._kept) == 1


def test_a_clock_that_was_far_ahead_and_an_amount_below_nothing_are_refused() -> None:
    """What is forgotten was spent: until its token has expired nobody is told that it was not."""
    ledger = memory()
    assert ledger.reserve(asked(1, 10, keep=NOW + 100), NOW) is None
    assert ledger.settle(b"none", None, NOW + 100 + KEPT) is False and ledger.spent(b"b" * 16, "eur") == 0
    for now in (NOW, NOW + 99):
        with pytest.raises(StoreError, match="this clock is behind"):
            ledger.reserve(asked(2), now)
    with pytest.raises(StoreError, match="must not be negative"):
        ledger.reserve(asked(3, -1), NOW + 100)
    assert ledger.reserve(asked(4), NOW + 100) is None and ledger.spent(b"b" * 16, "eur") == 1


def test_a_bucket_is_kept_for_as_long_as_its_own_link_lives_and_the_leeway() -> None:
    """Whatever ends sooner below it; None where nothing ends it."""
    seen: list[Reservation] = []

    class Seen(MemoryLedger):
        def reserve(self, reservation: Reservation, now: int) -> Debit | None:
            seen.append(reservation)
            return super().reserve(reservation, now)

    one = verifier(ledger=Seen(shared=True, floor=0), leeway=7)
    for token in (
        mint(**SALES, uses=5), mint(**SALES, uses=5).attenuate(expires_in=60), mint().attenuate(expires_in=60, uses=5),
        mint().attenuate(expires_in=60).attenuate(uses=5), mint(**SALES, uses=5).attenuate(expires_in=60, uses=5),
        mint(**SALES, uses=5, expires_at=None), mint(**SALES, uses=5, expires_at=None).attenuate(expires_in=60, uses=5),
    ):  # fmt: skip
        assert one.check(token, data("sales"))
    assert [reservation.keep for reservation in seen] == [NOW + 907, NOW + 907, NOW + 67, NOW + 67, NOW + 907, None, None]
    assert {reservation.issued_at for reservation in seen} == {NOW} and {reservation.until for reservation in seen} == {NOW + LEASE}
    assert len({reservation.id for reservation in seen}) == 7 and {len(reservation.id) for reservation in seen} == {16}


def test_the_same_reservation_is_made_once() -> None:
    """By its id, also after it was settled."""
    ledger = memory()
    assert [ledger.reserve(asked(1, 6), NOW) for _ in range(3)] == [None] * 3 and ledger.spent(b"b" * 16, "eur") == 6
    assert ledger.settle(asked(1).id, {"eur": 2}, NOW) and ledger.reserve(asked(1, 6), NOW) is None and ledger.spent(b"b" * 16, "eur") == 2


def test_a_ledger_belongs_to_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a child of the process would count the parent would not know."""
    ledger = memory()
    assert ledger.reserve(asked(1), NOW) is None
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: -1)
        with pytest.raises(StoreError, match="another process"):
            ledger.reserve(asked(2), NOW)
        with pytest.raises(StoreError, match="another process"):
            ledger.settle(asked(1).id, None, NOW)
    assert ledger._process.is_own() and ledger.settle(asked(1).id, {}, NOW) and ledger.spent(b"b" * 16, "eur") == 0


def test_what_goes_back_is_never_more_than_was_taken() -> None:
    """All that is not named; nothing where nothing is said."""
    debit = Debit(b"b", "eur", 10, 5)
    assert [debit.back(said) for said in (None, {}, {"eur": 5}, {"eur": 2}, {"eur": 9}, {"usd": 5})] == [0, 5, 0, 3, 0, 5]


def test_one_snapshot_is_the_newest() -> None:
    """Whoever comes second with the same place in mind is told."""
    store = MemorySnapshots()
    assert store.load() is None and store.publish(b"1", b"0") is False and store.publish(b"1", None) is True
    assert store.publish(b"2", None) is False and store.publish(b"2", b"1") is True and store.load() == b"2"


# --- how much may count in one token ---------------------------------------------------------------------------------


def test_a_ninth_link_that_counts_is_neither_written_nor_read() -> None:
    """Nor a seventeenth bucket: rows in a ledger are made by whoever holds a token."""
    token = mint(**SALES)
    for _ in range(8):
        token = token.attenuate(uses=5)
    assert verifier(ledger=MemoryLedger(floor=0, shared=True)).check(token, data("sales"))
    with pytest.raises(LimitError, match="links with uses, a budget or marks, or"):
        token.attenuate(uses=5)
    assert token.attenuate(tables=["sales"]).delegate(to="b")

    units = {f"u{number}": 5 for number in range(15)}
    full = mint(**SALES, budget=units, uses=1)
    with pytest.raises(LimitError):
        full.attenuate(uses=1)
    with pytest.raises(LimitError):
        mint(**SALES, budget={**units, "x": 1, "y": 1})
    # By hand, as a holder can.
    beyond = token.with_raw_link(b'{"n":"AAAAAAAAAAA","uses":1}')
    decision = verifier(ledger=MemoryLedger(floor=0, shared=True)).check(beyond.serialize(), data("sales"))
    assert decision.code == "unreadable_link" and decision.refusals[0].link == 9
    assert beyond.unverified.capability.nothing


def test_the_buckets_of_a_link_are_those_of_each_caveat_in_it() -> None:
    uses, budget = V1.kinds["uses"](3), V1.kinds["budget"]({"a": 1, "b": 2})
    assert buckets_of([uses, budget]) == buckets_of([budget, uses]) == 3
