"""What every ledger does with marks: set once and for good, all of a step or nothing of it, and nothing past a rule that holds."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from msgspec import structs

from captoken._format.clocks import CLOCKS_DIFFER
from captoken.errors import StoreError
from captoken.stores.memory import MemoryLedger
from captoken.stores.ports import (
    KEPT,
    MARKS,
    MOST_BUCKETS,
    Debit,
    Forbidden,
    Ledger,
    Mark,
    MarkedStep,
    Reservation,
    Rule,
    SetBefore,
)
from tests.fixtures import NOW
from tests.longer import drawing, times
from tests.stores import processes
from tests.stores.conftest import SHARED, Kind, OpenLedger
from tests.stores.places import AWAITED, close_all
from tests.stores.test_ledger import CHILD, ROOT, debit, full, links, of_tree, reservation, spent
from tests.stores.test_rules import said, state

END = NOW + 30 * 86_400


def mark(number: int, *, keep: int | None = END, holder: bool = False, link: int | None = 0) -> Mark:
    return Mark(number.to_bytes(32, "big"), keep, holder, f"m{number}", link)


UNTRUSTED, PRIVATE, OUTSIDE = (mark(number) for number in (1, 2, 3))
TWO = Rule((UNTRUSTED, PRIVATE), "outside", 0)


def stepped(*marks: Mark, rules: tuple[Rule, ...] = (), at: int = NOW, by: str = "a: did it", reserves: Reservation | None = None, **facts: Any) -> MarkedStep:
    return MarkedStep(marks, rules, at, by=by, reservation=reserves, **facts)


def before(mark: Mark, at: int = NOW, by: str = "a: did it") -> SetBefore:
    return SetBefore(mark.bucket, at, by)


def is_set(ledger: Ledger, one: Mark, now: int = NOW) -> bool:
    """Asked by a rule that closes once it is."""
    return ledger.peek_step(stepped(mark(99), rules=(Rule((one,)),)), now) is not None


@pytest.fixture
def ledger(open_ledger: OpenLedger) -> Ledger:
    return open_ledger()


@pytest.fixture
def take(kind: Kind, ledger: Ledger) -> Callable[..., Any]:
    """What `step` says: what `peek_step` said before, which has left everything as it was."""

    def taken(asked: MarkedStep, now: int = NOW) -> Any:
        found = state(kind.place, ledger)
        first = said(ledger.peek_step, asked, now)
        assert said(ledger.peek_step, asked, now) == first and state(kind.place, ledger) == found
        answer = said(ledger.step, asked, now)
        assert answer == first
        return answer

    return taken


Take = Callable[..., Any]


# --- rules -----------------------------------------------------------------------------------------------------------


def test_once_all_are_set_the_step_is_closed(take: Take) -> None:
    """Each alone closes nothing. What is told is the rule, and of each mark when and by what it was set: first."""
    out = stepped(OUTSIDE, rules=(TWO,))
    assert [take(out), take(stepped(PRIVATE, by="bob: select on table crm"), NOW + 1), take(out), take(stepped(UNTRUSTED), NOW + 2)] == [None] * 4
    assert take(stepped(PRIVATE, UNTRUSTED, by="else"), NOW + 3) is None, "again, and it stays as it was"
    assert take(out, NOW + 4) == Forbidden(0, (before(UNTRUSTED, NOW + 2), before(PRIVATE, NOW + 1, "bob: select on table crm")))


@pytest.mark.parametrize("own", [(0,), (1,), (0, 1)], ids=str)
def test_a_step_is_judged_as_if_its_own_marks_were_set(take: Take, ledger: Ledger, own: tuple[int, ...]) -> None:
    """One that does all at once is closed by itself; and sets nothing. Of its own nobody knows when."""
    two = (UNTRUSTED, PRIVATE)
    others = [one for at, one in enumerate(two) if at not in own]
    assert take(stepped(*others)) is None
    asked = stepped(OUTSIDE, *(two[at] for at in own), rules=(TWO,))
    assert take(asked) == Forbidden(0, tuple(before(one) for one in others))
    assert [is_set(ledger, one) for one in (OUTSIDE, *two)] == [False, 0 not in own, 1 not in own]


def test_the_first_rule_that_holds_is_named(take: Take) -> None:
    """By its place among those of the step; one that does not hold comes before it."""
    a, b, c, d = (mark(number) for number in (10, 11, 12, 13))
    rules = (Rule((a, b)), Rule((b, c)), Rule((c,)), Rule((b,)))
    assert take(stepped(d, rules=rules)) is None
    assert take(stepped(c, rules=(Rule((a,)),))) is None
    assert take(stepped(d, rules=rules)) == Forbidden(2, (before(c),))
    assert take(stepped(b)) is None
    assert take(stepped(d, rules=rules)) == Forbidden(1, (before(b), before(c)))
    assert take(stepped(d, a, rules=rules)) == Forbidden(0, (before(b),)), "as if its own were set"


def test_a_step_of_many_marks_and_rules(take: Take) -> None:
    """As many as a token can ask for: 16 marks, rules of seven."""
    marks = [mark(number) for number in range(100, 116)]
    rules = tuple(Rule(tuple(marks[(at + by) % 16] for by in range(7)), link=at) for at in range(16))
    for one in marks[3:9]:
        assert take(stepped(one)) is None
    assert take(stepped(mark(200), rules=rules)) is None
    assert take(stepped(marks[9])) is None
    assert take(stepped(mark(200), rules=rules)) == Forbidden(3, tuple(before(one) for one in marks[3:10]))
    assert take(stepped(*marks)) is None
    assert take(stepped(mark(200), rules=rules)) == Forbidden(0, tuple(before(one) for one in marks[:7]))


def test_what_was_done_is_kept_in_any_letters(take: Take) -> None:
    """Names of holders, tables and tools, of 200 characters; with blanks, commas and whatever else a name may have."""
    for number, by in enumerate(("", " ", "ünïcödé: tool 書く(…)", "a, b 1 2,3", "'\"\\{}$%s:,", "x" * 200, "12 34")):
        one = mark(300 + number)
        assert take(stepped(one, by=by), NOW + number) is None
        assert take(stepped(mark(99), rules=(Rule((one,)),)), NOW + 50) == Forbidden(0, (before(one, NOW + number, by),))


def test_buckets_that_differ_in_one_bit_are_two_marks(take: Take, ledger: Ledger) -> None:
    one = Mark(bytes(32), END, False)
    others = [Mark((1 << bit).to_bytes(32, "big"), END, False) for bit in range(0, 256, 15)]
    assert take(stepped(one)) is None
    assert is_set(ledger, one) and not any(is_set(ledger, other) for other in others)


# --- how long --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("through_a_rule", [False, True], ids=["set again", "asked about"])
@pytest.mark.parametrize(
    ("keeps", "until"),
    [((NOW + 100, NOW + 200), NOW + 200), ((NOW + 200, NOW + 100), NOW + 200), ((NOW + 100, None), None), ((None, NOW + 100), None)],
    ids=str,
)
def test_a_mark_is_kept_for_the_longest_that_anybody_says(
    take: Take, ledger: Ledger, keeps: tuple[int | None, int | None], until: int | None, through_a_rule: bool
) -> None:
    """Whoever sets it has a word in how long, and whoever is allowed past a rule that names it. A second less, and it is there."""
    first, then = (structs.replace(PRIVATE, keep=keep) for keep in keeps)
    again = stepped(mark(98), rules=(Rule((then, mark(97))),)) if through_a_rule else stepped(then)
    assert take(stepped(first)) is None and take(again) is None
    for now in (NOW + 99, NOW + 100, NOW + 199):
        assert is_set(ledger, PRIVATE, now) is (until is None or now < until)
    assert is_set(ledger, PRIVATE, NOW + 200) is (until is None)


@pytest.mark.parametrize(("answer", "has"), [(None, True), (Forbidden, True), (Debit, False)])
def test_whoever_is_forbidden_has_a_word_in_how_long_and_whose_budget_is_short_has_none(
    take: Take, ledger: Ledger, answer: Any, has: bool
) -> None:
    """In how long marks are kept that are set: its own, and those of its rules. What is not set stays so."""
    assert take(stepped(structs.replace(PRIVATE, keep=NOW + 100), structs.replace(UNTRUSTED, keep=NOW + 100), mark(50, keep=None))) is None
    rules = (Rule((structs.replace(PRIVATE, keep=None), mark(97))), *([Rule((mark(50, keep=None),))] if answer is Forbidden else []))
    got = take(stepped(OUTSIDE, structs.replace(UNTRUSTED, keep=None), rules=rules, reserves=reservation(1, debit(limit=0)) if answer is Debit else None))
    assert got is None if answer is None else isinstance(got, answer)
    assert [is_set(ledger, one, NOW + 100) for one in (PRIVATE, UNTRUSTED, mark(97), OUTSIDE)] == [has, has, False, answer is None]


def test_a_rule_whose_marks_are_over_does_not_bring_them_back(take: Take, ledger: Ledger) -> None:
    """Neither where it is let through nor where another rule holds."""
    assert take(stepped(structs.replace(PRIVATE, keep=NOW + 100), mark(50, keep=None))) is None
    old = Rule((structs.replace(PRIVATE, keep=None),))
    assert take(stepped(mark(98), rules=(old,)), NOW + 100) is None
    assert take(stepped(mark(98), rules=(old, Rule((mark(50, keep=None),)))), NOW + 100) == Forbidden(1, (before(mark(50)),))
    assert not is_set(ledger, PRIVATE, NOW + 101)


def test_a_mark_that_is_over_is_set_anew(take: Take) -> None:
    """With a time and a doer of its own. Until then nothing is closed by it."""
    short = structs.replace(PRIVATE, keep=NOW + 100)
    out = stepped(OUTSIDE, rules=(Rule((short,)),))
    assert take(stepped(short)) is None and take(out, NOW + 99) == Forbidden(0, (before(short),))
    assert take(out, NOW + 100) is None
    assert take(stepped(structs.replace(PRIVATE, keep=NOW + 500), by="again"), NOW + 101) is None
    assert take(out, NOW + 102) == Forbidden(0, (before(short, NOW + 101, "again"),))


def test_whoever_would_still_take_the_token_of_a_mark_that_is_gone_is_refused(take: Take) -> None:
    """By a clock that is set back, or by a longer leeway: for a reservation as for a step."""
    short, end = structs.replace(PRIVATE, keep=NOW + KEPT), NOW + KEPT
    out = stepped(OUTSIDE, rules=(Rule((short,)),))
    assert take(stepped(short)) is None and isinstance(take(out, end - 1), Forbidden)
    assert "this clock is behind" in take(structs.replace(out, leeway=KEPT + 1), end)
    assert take(out, end) is None, "it is forgotten"
    assert take(structs.replace(out, leeway=KEPT), end) is None
    answer = take(out, NOW - 1)  # a store that has not deleted it yet knows it still
    assert isinstance(answer, Forbidden) or "this clock is behind" in answer


# --- the tree --------------------------------------------------------------------------------------------------------


def test_marks_of_holders_are_bounded_and_those_of_tasks_are_not(ledger: Ledger) -> None:
    """Together with the buckets of their tree. What is there goes on; what is over makes room."""
    keep = NOW + 600 + KEPT
    for first in range(0, MOST_BUCKETS - 6, 526):
        assert ledger.reserve(of_tree("a", first, *links(first, 526)), NOW) is None
    new = [mark(1000 + at, keep=keep, holder=True, link=2) for at in range(8)]

    def ask(*marks: Mark, tree: str = "a", reserves: Reservation | None = None, now: int = NOW) -> Any:
        asked = stepped(*marks, tree=tree, reserves=reserves)
        first = ledger.peek_step(asked, now)
        assert ledger.step(asked, now) == first
        return first

    assert ask(*new[:3]) is None and ask(*new[:3]) is None, "again, and nothing is new"
    assert ask(*new[2:]) == Debit(new[3].bucket, MARKS, 1, 1, 2, full=True), "the first that would be new"
    assert not is_set(ledger, new[3])
    three = debit(b"n" * 16), debit(b"m" * 16), debit(b"k" * 16)
    assert ask(new[3], reserves=of_tree("a", 20_000, *three)) == full(three[-1]) and not is_set(ledger, new[3])
    assert ask(new[3], reserves=of_tree("a", 20_001, *three[:2])) is None and is_set(ledger, new[3])
    assert ask(new[4]) == Debit(new[4].bucket, MARKS, 1, 1, 2, full=True)
    assert ledger.reserve(of_tree("a", 20_002, three[2]), NOW) == full(three[2])
    assert ask(new[0], PRIVATE, *(mark(2000 + at) for at in range(20))) is None, "of the task, and one that is there"
    assert ask(new[4], tree="b") is None, "another tree"
    assert ask(*new[5:], now=keep) is None, "what is over makes room"


# --- with a reservation ----------------------------------------------------------------------------------------------


def test_marks_and_debits_are_all_or_nothing(take: Take, ledger: Ledger) -> None:
    """A budget that is short sets no mark; a rule that holds debits nothing; a yes does both."""
    five = reservation(1, debit(ROOT, 5), debit(CHILD, 5))
    assert take(stepped(PRIVATE, reserves=five)) is None and spent(ledger, ROOT, CHILD) == [5, 5] and is_set(ledger, PRIVATE)
    six = (debit(ROOT, 1), debit(CHILD, 6))
    assert take(stepped(UNTRUSTED, reserves=reservation(2, *six))) == six[1]
    assert not is_set(ledger, UNTRUSTED) and spent(ledger, ROOT, CHILD) == [5, 5]
    assert take(stepped(OUTSIDE, rules=(Rule((PRIVATE,)),), reserves=reservation(3))) == Forbidden(0, (before(PRIVATE),))
    assert spent(ledger, ROOT) == [5] and not is_set(ledger, OUTSIDE)
    assert take(stepped(OUTSIDE, rules=(Rule((PRIVATE,)),), reserves=reservation(4, debit(ROOT, 99)))) == Forbidden(0, (before(PRIVATE),)), "the rule first"


def test_the_same_reservation_is_made_once(take: Take, ledger: Ledger) -> None:
    """Asked again the marks are there, and nothing is debited twice; by `reserve` or by `step`; and it is settled as any."""
    one = reservation(1, debit(ROOT, 6))
    for _ in range(2):
        assert take(stepped(PRIVATE, reserves=one)) is None and spent(ledger, ROOT) == [6]
    assert ledger.reserve(one, NOW) is None and spent(ledger, ROOT) == [6]
    assert take(stepped(UNTRUSTED, reserves=one)) is None and is_set(ledger, UNTRUSTED) and spent(ledger, ROOT) == [6]
    assert take(stepped(OUTSIDE, rules=(TWO,), reserves=one)) == Forbidden(0, (before(UNTRUSTED), before(PRIVATE))), "what came since closes it"
    assert ledger.settle(one.id, {"usd_cents": 2}, NOW) is True and spent(ledger, ROOT) == [2]
    assert take(stepped(PRIVATE, reserves=one)) is None and spent(ledger, ROOT) == [2]
    assert ledger.settle(one.id, {}, NOW) is False


def test_a_debit_of_less_than_nothing_sets_no_mark(take: Take, ledger: Ledger) -> None:
    assert isinstance(take(stepped(PRIVATE, reserves=reservation(1, debit(ROOT, 2), debit(CHILD, -1)))), str)
    assert not is_set(ledger, PRIVATE) and spent(ledger, ROOT, CHILD) == [0, 0]


# --- the floor -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_a_token_from_before_the_ledger_is_refused(kind: Kind, offset: int) -> None:
    """It may have set any mark; unless its key was made along with the ledger."""
    ledger = kind.place.ledger(floor=NOW)
    asked, later = stepped(PRIVATE, at=NOW + offset), stepped(OUTSIDE, at=NOW + 1, rules=(Rule((PRIVATE,)),))
    for ask in (ledger.peek_step, ledger.step):
        answer = said(ask, asked, NOW)
        assert answer is None if offset > 0 else "issued before this ledger began" in answer
    assert ledger.step(later, NOW) == (Forbidden(0, (before(PRIVATE),)) if offset > 0 else None)


@pytest.mark.parametrize("name", SHARED + AWAITED)
def test_a_key_that_was_made_along_with_it_has_no_floor(name: str, request: pytest.FixtureRequest, tmp_path: Any) -> None:
    from tests.stores.conftest import place

    its = place(name, tmp_path, request)
    facts = {} if name == "sqlite" else {"clock": lambda: NOW}
    ledger = its.created("ledger", keys=["k1"], floor=NOW + CLOCKS_DIFFER, **facts)
    assert ledger.step(stepped(PRIVATE, kid="k1"), NOW) is None
    assert "issued before this ledger began" in said(ledger.step, stepped(PRIVATE, kid="k2"), NOW)
    assert ledger.step(stepped(OUTSIDE, kid="k1", rules=(Rule((PRIVATE,)),)), NOW) == Forbidden(0, (before(PRIVATE),))


def test_a_memory_of_another_process_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = MemoryLedger(floor=0)
    assert ledger.step(stepped(PRIVATE), NOW) is None
    monkeypatch.setattr("os.getpid", lambda: -1)
    for ask in (ledger.step, ledger.peek_step):
        with pytest.raises(StoreError, match="another process"):
            ask(stepped(OUTSIDE), NOW)


@pytest.mark.parametrize("shared_kind", SHARED + AWAITED, indirect=True)
def test_what_was_set_is_there_when_all_were_closed(shared_kind: Kind) -> None:
    """And for another one that is open at the same time."""
    one, two = (shared_kind.place.ledger(floor=0) for _ in range(2))
    assert one.step(stepped(PRIVATE, UNTRUSTED, reserves=reservation(1, debit(ROOT, 4))), NOW) is None
    close_all()
    for ledger in (shared_kind.place.ledger(floor=0), shared_kind.place.ledger(floor=0)):
        assert ledger.step(stepped(OUTSIDE, rules=(TWO,)), NOW) == Forbidden(0, (before(UNTRUSTED), before(PRIVATE)))
        assert spent(ledger, ROOT) == [4]
    del two


# --- at the same time ------------------------------------------------------------------------------------------------

RACES = 300


def check_races(*told: list[processes.Raced]) -> None:
    """Of two that close each other one is let through. Who asks once the other has its answer is closed; each order is seen."""
    orders = Counter[Any]()
    for number, (one, two) in enumerate(zip(*told, strict=True)):
        if number % 2 == 0:
            assert one[0] + two[0] == 1, number
            orders["both set", one[0]] += 1
            continue
        assert one[0], "nothing closes it"
        if one[2] < two[1]:
            assert not two[0], number
        if two[2] < one[1]:
            assert two[0], number
        orders["one sets", two[0]] += 1
    assert len(orders) == 4 and orders.total() == RACES, orders


def test_threads_that_race_come_one_after_the_other(open_ledger: OpenLedger, kind: Kind) -> None:
    """Each with a ledger of its own where ledgers share."""
    first, gate = open_ledger(), Barrier(2)
    ledgers = [first, open_ledger() if kind.shared else first]
    with ThreadPoolExecutor(2) as pool:
        check_races(*pool.map(lambda who: processes.raced(ledgers[who], RACES, who, gate), range(2)))


@pytest.fixture(scope="module")
def two() -> Iterator[ProcessPoolExecutor]:
    """Two processes that are started fresh, and begin together."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, fresh, processes.together, (fresh.Barrier(2),)) as pool:
        yield pool


@pytest.mark.parametrize("shared_kind", SHARED + AWAITED, indirect=True)
def test_processes_that_race_come_one_after_the_other(two: ProcessPoolExecutor, shared_kind: Kind) -> None:
    running = [two.submit(processes.race, shared_kind.place, RACES, who) for who in range(2)]
    check_races(*(one.result(timeout=240) for one in running))


def test_nobody_waits_for_another_for_ever(open_ledger: OpenLedger, kind: Kind) -> None:
    """Eight threads set and ask about the same marks, in any order, with times that grow, buckets that they share, rules that
    hold and budgets that are short, while what is over is deleted: none is an error. What is set is what was let through."""
    first, gate = open_ledger(), Barrier(8)
    ledgers = [open_ledger() if kind.shared else first for _ in range(8)]

    def run(who: int) -> set[bytes]:
        rng, done = random.Random(who), set[bytes]()
        gate.wait(60)
        for turn in range(40):
            now = NOW + turn // 8
            chosen = rng.sample(range(10), 5)
            drawn = [mark(number, keep=END + 8 * turn + rng.randrange(8), holder=number % 2 == 0) for number in chosen]
            passing = mark(1000 + 100 * who + turn, keep=now + 2)
            number = rng.randrange(16) * 2**124 + 1000 * who + turn  # a sixteenth of all ids makes PostgreSQL sweep
            debits = [debit(bytes([bucket]) * 16, 1, 60) for bucket in rng.sample(range(1, 6), 3)]
            rules = (Rule(tuple(drawn[2:])), Rule((drawn[3], mark(99)))) if rng.random() < 0.5 else (Rule((mark(99), *drawn[1:])),)
            asked = stepped(*drawn[:2], passing, rules=rules, reserves=reservation(number, *sorted(debits, key=lambda one: one.bucket)), tree="t")
            if ledgers[who].step(asked, now) is None:
                done |= {one.bucket for one in asked.marks} - {passing.bucket}
        return done

    with ThreadPoolExecutor(8) as pool:
        done = set().union(*pool.map(run, range(8)))
    assert {number for number in range(10) if is_set(first, mark(number))} == {int.from_bytes(bucket, "big") for bucket in done}


# --- any walk --------------------------------------------------------------------------------------------------------


class Plain:
    """What a ledger is, in the plainest words: nothing is deleted, and no clock goes back."""

    def __init__(self) -> None:
        self.marks: dict[bytes, tuple[SetBefore, int | None]] = {}
        self.spent = Counter[tuple[bytes, str]]()
        self.made: dict[bytes, int] = {}

    def step(self, asked: MarkedStep, now: int) -> Forbidden | Debit | None:
        there = {bucket: one for bucket, (one, keep) in self.marks.items() if keep is None or keep > now}
        own = {one.bucket for one in asked.marks}
        for number, rule in enumerate(asked.rules):
            if all(one.bucket in own or one.bucket in there for one in rule.after):
                self.keep(asked, there)
                return Forbidden(number, tuple(there[one.bucket] for one in rule.after if one.bucket in there))
        reserved = asked.reservation
        if reserved is not None and self.made.get(reserved.id, 0) <= now:
            sums = self.spent.copy()
            for one in reserved.debits:
                sums[one.bucket, one.unit] += one.amount
                if sums[one.bucket, one.unit] > one.limit:
                    return one
            self.spent, self.made[reserved.id] = sums, reserved.until
        for one in asked.marks:
            if one.bucket not in there:
                there[one.bucket] = SetBefore(one.bucket, now, asked.by)
                self.marks[one.bucket] = there[one.bucket], one.keep
        self.keep(asked, there)
        return None

    def keep(self, asked: MarkedStep, there: dict[bytes, SetBefore]) -> None:
        for one in (*asked.marks, *(each for rule in asked.rules for each in rule.after)):
            if one.bucket in there:
                keep = self.marks[one.bucket][1]
                self.marks[one.bucket] = there[one.bucket], None if None in (keep, one.keep) else max(keep, one.keep)  # type: ignore[type-var]


@pytest.mark.parametrize("seed", range(3))
def test_any_walk_is_that_of_a_plain_one(open_ledger: OpenLedger, seed: int) -> None:
    """Random marks, rules, times until which they are kept, and reservations; the clock goes on, and sometimes far."""
    rng, plain, ledger, now = drawing(f"marks {seed}"), Plain(), open_ledger(), NOW
    answers = Counter[str]()
    for number in range(times(250)):
        now += rng.choice([0, 0, 0, 1, 1, 5, 5, rng.choice([0, 0, 0, 40])])
        base = 16 * (number // 40)  # others, now and then, so that not all is closed in the end

        def drawn(base: int = base, now: int = now) -> Mark:
            keep: int | None = None if rng.random() < 0.02 else now + rng.choice([3, 10, 10, 30, 60])
            return mark(base + rng.randrange(10), keep=keep, holder=rng.random() < 0.4, link=1)

        own = {one.bucket: one for one in (drawn() for _ in range(rng.randint(1, 3)))}
        rules = tuple(Rule(tuple(drawn() for _ in range(rng.randint(1, 3)))) for _ in range(rng.choice([0, 1, 1, 2, 4])))
        reserved = None
        if rng.random() < 0.5:
            # No two of one id have other debits; PostgreSQL may know one for longer than it runs.
            debits = (debit(ROOT, 1, 4 + number // 10), debit(bytes([base % 256]) * 16, rng.randint(0, 3), 20))
            reserved = reservation(number, *debits, until=now + 60, keep=END)
            if rng.random() < 0.2 and plain.made:
                last = max(plain.made)
                reserved = structs.replace(reserved, id=last) if plain.made[last] > now + 1 else reserved
        asked = stepped(*own.values(), rules=rules, by=f"b{number}", reserves=reserved, tree="t")
        wanted = plain.step(asked, now)
        foretold = said(ledger.peek_step, asked, now) if number % 3 == 0 else wanted
        got = said(ledger.step, asked, now)
        assert (got, foretold) == (wanted, wanted), (number, asked)
        answers["yes" if wanted is None else type(wanted).__name__] += 1
    assert min(answers[one] for one in ("yes", "Forbidden", "Debit")) > 10, answers
    assert spent(ledger, ROOT) == [plain.spent[ROOT, "usd_cents"]]
