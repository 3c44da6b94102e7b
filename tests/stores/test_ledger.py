"""What every ledger does: all or nothing, never more than the limit, and nothing twice."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections import Counter
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from msgspec import structs

from captoken import Access, Denied, Issuer, Token, Verifier
from captoken._format.clocks import CLOCKS_DIFFER
from captoken.errors import StoreError
from captoken.stores.ports import KEPT, LEASE, MOST_BUCKETS, USES, Debit, Ledger, Reservation
from tests.fixtures import KEYRING, NOW, WHO, clock
from tests.stores import processes
from tests.stores.conftest import SHARED, Kind, OpenLedger
from tests.stores.places import AWAITED

MOST = 2**53 - 1  # the largest integer of a token
ROOT, CHILD, LEAF = (bytes([number]) * 16 for number in (1, 2, 3))


def debit(bucket: bytes = ROOT, amount: int = 1, limit: int = 10, unit: str = "usd_cents", link: int = 0) -> Debit:
    return Debit(bucket, unit, limit, amount, link)


def reservation(number: int, *debits: Debit, at: int = NOW, until: int = NOW + LEASE, keep: int | None = NOW + 600) -> Reservation:
    return Reservation(number.to_bytes(16, "big"), debits or (debit(),), at, until, keep)


def spent(ledger: Ledger, *buckets: bytes, unit: str = "usd_cents") -> list[int]:
    return [ledger.spent(bucket, unit) for bucket in buckets or (ROOT, CHILD, LEAF)]


# --- reserve ---------------------------------------------------------------------------------------------------------


def test_a_bucket_gives_what_it_has(open_ledger: OpenLedger) -> None:
    """Ten of ten, one by one; the eleventh is told which bucket is short."""
    ledger = open_ledger()
    assert spent(ledger, ROOT) == [0]
    assert [ledger.reserve(reservation(number), NOW) for number in range(12)] == [None] * 10 + [debit()] * 2
    assert spent(ledger, ROOT) == [10]


def test_all_buckets_are_debited_or_none(open_ledger: OpenLedger) -> None:
    """Whichever of three is short: it is named, by its link too, and no bucket above or below it has changed."""
    ledger = open_ledger()
    limits = {ROOT: 30, CHILD: 20, LEAF: 10}
    assert ledger.reserve(reservation(1, *(debit(bucket, 5, limit) for bucket, limit in limits.items())), NOW) is None
    for number, short in enumerate(limits):
        asked = tuple(
            debit(bucket, 6 if bucket == short else 1, 10 if bucket == short else 30, link=link) for link, bucket in enumerate(limits)
        )
        assert ledger.reserve(reservation(10 + number, *asked), NOW) == asked[number]
        assert spent(ledger) == [5, 5, 5]
    both = (debit(ROOT, 100, link=0), debit(CHILD, 100, link=1), debit(LEAF, 100, link=2))
    assert ledger.reserve(reservation(20, *both), NOW) == both[0], "the first that is short, from the root"
    assert spent(ledger) == [5, 5, 5]


def test_children_share_what_is_above_them(open_ledger: OpenLedger) -> None:
    """Five children that were promised a hundred each, under a hundred, spend a hundred together."""
    ledger = open_ledger()
    got = [0] * 5
    for number in range(150):
        child = number % 5
        asked = debit(ROOT, 1, 100), debit(bytes([10 + child]) * 16, 1, 100)
        got[child] += ledger.reserve(reservation(number, *asked), NOW) is None
    assert got == [20] * 5 and spent(ledger, ROOT) == [100]
    assert spent(ledger, *(bytes([10 + child]) * 16 for child in range(5))) == got


def test_units_and_links_are_buckets_of_their_own(open_ledger: OpenLedger) -> None:
    """Names that begin alike, hold a colon or a dot, and links that differ in one bit."""
    ledger = open_ledger()
    units = [USES, "usd", "usd_cents", "usd.cents", "usd:cents", "x:usd", "Usd", "u" * 64]
    links = [ROOT, CHILD, bytes(16), b"\xff" * 16, b"\0" * 15 + b"'", *((1 << bit).to_bytes(16, "big") for bit in range(0, 128, 8))]
    for number, unit in enumerate(units):
        assert ledger.reserve(reservation(number, *(debit(link, number + 1, 100, unit) for link in links)), NOW) is None
    assert [spent(ledger, *links, unit=unit) for unit in units] == [[number + 1] * len(links) for number in range(len(units))]


def test_what_one_access_takes_twice_from_a_bucket_adds_up(open_ledger: OpenLedger) -> None:
    """Six and six of ten: the second is short. Five and five go, and come back."""
    ledger = open_ledger()
    assert ledger.reserve(reservation(1, debit(amount=6, link=1), debit(amount=6, link=2)), NOW) == debit(amount=6, link=2)
    assert spent(ledger, ROOT) == [0]
    assert ledger.reserve(reservation(2, debit(amount=5), debit(amount=5)), NOW) is None and spent(ledger, ROOT) == [10]
    assert ledger.settle(reservation(2).id, {"usd_cents": 3}, NOW) is True and spent(ledger, ROOT) == [6]


def test_nothing_asked_is_nothing_taken(open_ledger: OpenLedger) -> None:
    """No debit; a debit of nothing, of a bucket with nothing; then one of something."""
    ledger = open_ledger()
    assert ledger.reserve(Reservation(bytes(16), (), NOW, NOW + 60, None), NOW) is None
    assert ledger.reserve(reservation(1, debit(amount=0, limit=0)), NOW) is None and spent(ledger, ROOT) == [0]
    assert ledger.reserve(reservation(2, debit(amount=1, limit=0)), NOW) == debit(amount=1, limit=0)
    assert ledger.settle(reservation(1).id, {}, NOW) is True and spent(ledger, ROOT) == [0]


@pytest.mark.parametrize("limit", [10**14, 10**15 - 1, 10**15, 10**15 + 1, 2**52, 2**53 - 2, MOST])
def test_large_numbers_are_counted_to_the_last_unit(open_ledger: OpenLedger, limit: int) -> None:
    """Up to the largest integer of a token, with nothing rounded."""
    ledger = open_ledger()
    first = limit // 3
    for number, (amount, left) in enumerate([(first, limit), (1, limit - first), (limit - first - 2, limit - first - 1)]):
        over = debit(amount=min(left + 1, MOST), limit=limit)
        assert number == 0 or ledger.reserve(reservation(number, over), NOW) == over
        assert ledger.reserve(reservation(10 + number, debit(amount=amount, limit=limit)), NOW) is None
        assert spent(ledger, ROOT) == [limit - left + amount]
    assert spent(ledger, ROOT) == [limit - 1]
    assert ledger.reserve(reservation(20, debit(amount=2, limit=limit)), NOW) == debit(amount=2, limit=limit)
    assert ledger.reserve(reservation(21, debit(amount=1, limit=limit)), NOW) is None and spent(ledger, ROOT) == [limit]
    assert ledger.settle(reservation(10).id, {"usd_cents": 1}, NOW) is True and spent(ledger, ROOT) == [limit - first + 1]
    assert ledger.settle(reservation(12).id, {"usd_cents": MOST}, NOW) is True and spent(ledger, ROOT) == [limit - first + 1]


def test_the_same_reservation_is_made_once(open_ledger: OpenLedger) -> None:
    """By its id: asked again it stands, and nothing is debited, also when nothing is left, and after it was settled."""
    ledger = open_ledger()
    for _ in range(3):
        assert ledger.reserve(reservation(1, debit(amount=4)), NOW) is None and spent(ledger, ROOT) == [4]
    assert ledger.reserve(reservation(2, debit(amount=6)), NOW) is None
    assert [ledger.reserve(reservation(number, debit(amount=6)), NOW) for number in (1, 2, 3)] == [None, None, debit(amount=6)]
    assert ledger.settle(reservation(1).id, {"usd_cents": 1}, NOW) is True
    assert ledger.reserve(reservation(1, debit(amount=4)), NOW) is None and spent(ledger, ROOT) == [7]
    assert ledger.settle(reservation(1).id, {}, NOW) is False and spent(ledger, ROOT) == [7]


# --- settle ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        (None, [6, 6, 1]),
        ({USES: 1, "usd_cents": 6}, [6, 6, 1]),
        ({USES: 1, "usd_cents": 2}, [2, 2, 1]),
        ({USES: 1}, [0, 0, 1]),
        ({"usd_cents": 2}, [2, 2, 0]),
        ({USES: 1, "usd_cents": 7}, [6, 6, 1]),
        ({USES: 1, "usd_cents": MOST}, [6, 6, 1]),
        ({USES: 1, "usd_cents": 0, "rows": 5}, [0, 0, 1]),
        ({}, [0, 0, 0]),
    ],
    ids=str,
)
def test_what_was_not_taken_goes_back(open_ledger: OpenLedger, taken: dict[str, int] | None, left: list[int]) -> None:
    """To every bucket that it came from; never more than was reserved; a unit that is not named was not taken."""
    ledger = open_ledger()
    asked = debit(ROOT, 6), debit(ROOT, 1, 5, USES), debit(CHILD, 6)
    assert ledger.reserve(reservation(1, *asked), NOW) is None
    assert ledger.settle(reservation(1).id, taken, NOW) is True
    assert [*spent(ledger, ROOT, CHILD), ledger.spent(ROOT, USES)] == left
    assert ledger.settle(reservation(1).id, {}, NOW) is False, "once"
    assert ledger.settle(reservation(1).id, None, NOW) is False
    assert [*spent(ledger, ROOT, CHILD), ledger.spent(ROOT, USES)] == left


class Changing(Mapping[str, int]):
    """Says `first` to the first question, and `then` to each one after, whatever is asked."""

    def __init__(self, first: dict[str, int], then: dict[str, int]) -> None:
        self._answers, self._then = iter([first]), then

    def _now(self) -> dict[str, int]:
        return next(self._answers, self._then)

    def __getitem__(self, unit: str) -> int:
        return self._now()[unit]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def __bool__(self) -> bool:
        return bool(self._now())

    def keys(self) -> KeysView[str]:
        return self._now().keys()

    def values(self) -> ValuesView[int]:
        return self._now().values()

    def items(self) -> ItemsView[str, int]:
        return self._now().items()


@pytest.mark.parametrize("then", [{}, {USES: 1, "usd_cents": 0}, {USES: 1, "usd_cents": 9}, {USES: float("nan"), "usd_cents": "9"}], ids=str)
def test_what_a_mapping_says_first_is_what_counts(open_ledger: OpenLedger, then: Any) -> None:
    """It is read once: one that then says something else, or no amounts at all, is settled as it was read."""
    ledger = open_ledger()
    assert ledger.reserve(reservation(1, debit(ROOT, 6), debit(ROOT, 1, 5, USES), debit(CHILD, 6)), NOW) is None
    assert ledger.settle(reservation(1).id, Changing({USES: 1, "usd_cents": 2}, then), NOW) is True
    assert [*spent(ledger, ROOT, CHILD), ledger.spent(ROOT, USES)] == [2, 2, 1]


NO_AMOUNTS: list[Any] = [
    *({"usd_cents": amount} for amount in (1.0, float("nan"), True, "1", None)),
    {1: 1},
    [("usd_cents", 1)],
    "usd_cents",
    1,
]


@pytest.mark.parametrize("amounts", NO_AMOUNTS, ids=repr)
def test_what_is_no_amounts_settles_nothing(open_ledger: OpenLedger, amounts: Any) -> None:
    """A TypeError before anything is asked; the reservation is open as before."""
    ledger = open_ledger()
    assert ledger.reserve(reservation(1, debit(ROOT, 6)), NOW) is None
    with pytest.raises(TypeError, match="amounts"):
        ledger.settle(reservation(1).id, amounts, NOW)
    assert spent(ledger, ROOT) == [6] and ledger.settle(reservation(1).id, {"usd_cents": 2}, NOW) is True
    assert spent(ledger, ROOT) == [2]


def test_a_reservation_is_open_until_its_time_is_up(open_ledger: OpenLedger) -> None:
    """A second before, it can be settled; from then on it is spent, and stays so."""
    ledger = open_ledger()
    for number in (1, 2, 3):
        assert ledger.reserve(reservation(number, debit(amount=3)), NOW) is None
    assert ledger.settle(reservation(1).id, {}, NOW + LEASE - 1) is True
    assert ledger.settle(reservation(2).id, {}, NOW + LEASE) is False
    assert ledger.settle(reservation(3).id, None, NOW + LEASE + 1000) is False
    assert spent(ledger, ROOT) == [6] and ledger.settle(reservation(4).id, {}, NOW) is False, "and there never was a fourth"


def test_what_went_back_can_be_reserved(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    assert ledger.reserve(reservation(1, debit(amount=10)), NOW) is None
    assert ledger.reserve(reservation(2), NOW) == debit()
    assert ledger.settle(reservation(1).id, {"usd_cents": 9}, NOW) is True
    assert [ledger.reserve(reservation(number), NOW) for number in (3, 4)] == [None, debit()]


def test_any_walk_counts_as_a_plain_sum_does(open_ledger: OpenLedger) -> None:
    """1,500 random reservations and settlements in a tree of twenty links, against ten lines of addition."""
    ledger, rng = open_ledger(), random.Random(7)
    above = {link: rng.randrange(link) if link else None for link in range(20)}
    limits = {(link, unit): rng.randint(100, 2000) for link in above for unit in ("usd", USES)}
    sums: dict[tuple[int, str], int] = dict.fromkeys(limits, 0)
    known: dict[int, tuple[tuple[Debit, ...], int]] = {}
    answers = [0, 0]
    for number in range(1500):
        now = NOW + number // 20
        if known and rng.random() < 0.4:
            one = rng.choice(list(known))
            debits, until = known.pop(one)
            taken = rng.choice([None, {}, {"usd": rng.randint(0, 9), USES: 1}])
            assert ledger.settle(one.to_bytes(16, "big"), taken, now) is (now < until)
            if now < until:
                for part in debits:
                    sums[part.bucket[0], part.unit] -= part.back(taken)
            continue
        chain, link = [], rng.randrange(20)
        while link is not None:
            chain.append(link)
            link = above[link]
        asked = tuple(
            Debit(bytes([link]) * 16, unit, limits[link, unit], amount, at)
            for at, link in enumerate(reversed(chain))
            for unit, amount in (("usd", rng.randint(0, 9)), (USES, 1))
        )
        short = next((part for part in asked if sums[part.bucket[0], part.unit] + part.amount > part.limit), None)
        until = now + rng.randint(1, 60)
        assert ledger.reserve(reservation(number, *asked, until=until), now) == short
        answers[short is None] += 1
        if short is None:
            known[number] = asked, until
            for part in asked:
                sums[part.bucket[0], part.unit] += part.amount
    assert sums == {(link, unit): ledger.spent(bytes([link]) * 16, unit) for link, unit in sums} and min(answers) > 100


# --- floor and keep --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-1000, -1, 0, 1, CLOCKS_DIFFER - 1, CLOCKS_DIFFER, CLOCKS_DIFFER + 1, CLOCKS_DIFFER + 1000])
def test_a_new_ledger_refuses_what_can_have_been_used_before(open_ledger: OpenLedger, offset: int) -> None:
    """Tokens issued up to a minute after it began: it cannot be known what they used. Later ones count."""
    ledger = open_ledger(floor=None, clock=lambda: NOW + 0.9)
    if offset > CLOCKS_DIFFER:
        assert ledger.reserve(reservation(1, at=NOW + offset), NOW + offset) is None
    else:
        with pytest.raises(StoreError, match="issued before this ledger began"):
            ledger.reserve(reservation(1, at=NOW + offset), NOW + offset)
        assert spent(ledger, ROOT) == [0] and ledger.settle(reservation(1).id, {}, NOW) is False


@pytest.mark.parametrize("floor", [0, NOW - 1, NOW])
def test_a_floor_can_be_said(open_ledger: OpenLedger, floor: int) -> None:
    ledger = open_ledger(floor=floor)
    assert ledger.reserve(reservation(1, at=floor + 1), NOW) is None
    with pytest.raises(StoreError):
        ledger.reserve(reservation(2, at=floor), NOW)


def test_a_floor_is_shared_and_does_not_sink(open_ledger: OpenLedger, kind: Kind) -> None:
    """Whoever opens the ledger later, and says that there is none, finds the one that was there."""
    open_ledger(floor=NOW)
    later = open_ledger(floor=0)
    if kind.shared:
        with pytest.raises(StoreError):
            later.reserve(reservation(1, at=NOW), NOW)
    else:
        assert later.reserve(reservation(1, at=NOW), NOW) is None


def test_ledgers_that_share_count_together(open_ledger: OpenLedger, kind: Kind) -> None:
    """Two that are opened on one place, and one that is opened there later; reserved by one, settled by another."""
    one, two = open_ledger(), open_ledger()
    assert one.reserve(reservation(1, debit(amount=6)), NOW) is None
    assert (two.reserve(reservation(2, debit(amount=6)), NOW) is None) is not kind.shared
    assert two.settle(reservation(1).id, {}, NOW) is kind.shared
    assert (open_ledger().reserve(reservation(3, debit(amount=10)), NOW) is None) and spent(open_ledger(), ROOT) == [10 if kind.shared else 0]


def test_it_says_whether_it_is_shared(open_ledger: OpenLedger) -> None:
    """Never by itself."""
    assert [open_ledger(shared=said).shared for said in (True, False)] == [True, False]


def test_a_bucket_outlives_its_token_by_an_hour(open_ledger: OpenLedger) -> None:
    """So that a clock that was ahead for less than that, and is set back, finds it."""
    ledger = open_ledger()
    assert ledger.reserve(reservation(1, debit(amount=10), keep=NOW + 5), NOW) is None
    for later in (NOW + 5, NOW + 5 + KEPT - 1):
        assert ledger.reserve(reservation(2, debit(CHILD, 0)), later) is None
        assert spent(ledger, ROOT) == [10] and ledger.reserve(reservation(3), NOW) == debit()


def test_a_reservation_can_outlive_its_bucket(open_ledger: OpenLedger) -> None:
    """A bucket whose token expired long ago may be forgotten while a reservation is open: settling it is no error."""
    ledger = open_ledger()
    assert ledger.reserve(reservation(1, debit(amount=5), keep=NOW - KEPT - 10), NOW) is None
    assert ledger.settle(reservation(1).id, {}, NOW + 1) is True and spent(ledger, ROOT) == [0]


@pytest.mark.parametrize("longest", [NOW + 86400, None])
@pytest.mark.parametrize("first", [True, False])
def test_a_bucket_is_kept_for_the_longest_lived_of_those_that_use_it(open_ledger: OpenLedger, longest: int | None, first: bool) -> None:
    """A child of one minute, before or after, does not make the root's bucket forget."""
    ledger = open_ledger()
    for number, keep in enumerate([longest, NOW + 60] if first else [NOW + 60, longest]):
        assert ledger.reserve(reservation(number, debit(amount=5), keep=keep), NOW) is None
    assert ledger.reserve(reservation(2, debit(CHILD)), NOW + 60 + KEPT + 1) is None
    assert spent(ledger, ROOT) == [10] and ledger.reserve(reservation(3), NOW + 60 + KEPT + 1) == debit()


@pytest.mark.parametrize("life", [600, 10**6])
def test_a_clock_that_was_far_ahead_revives_nothing(open_ledger: OpenLedger, kind: Kind, life: int) -> None:
    """It has made the ledger forget what is spent; so whoever comes with the right time is refused, until the last token of
    which something was forgotten has expired. Whatever ends later goes on then."""
    ledger, end = open_ledger(), NOW + life
    assert ledger.reserve(reservation(1, debit(amount=10), keep=end), NOW) is None
    assert ledger.reserve(reservation(2, debit(CHILD), keep=end + 10**7), end + KEPT) is None and spent(ledger, ROOT) == [0]
    for one in (ledger, open_ledger()) if kind.shared else (ledger,):
        for now in (NOW, NOW + 5, end - 1):
            with pytest.raises(StoreError, match="this clock is behind"):
                one.reserve(reservation(3), now)
    assert spent(ledger) == [0, 1, 0]
    assert ledger.reserve(reservation(4, debit(CHILD), keep=None), end) is None and spent(ledger, CHILD) == [2]


def by(leeway: int, number: int, end: int | None, bucket: bytes = ROOT) -> Reservation:
    """One use of a token that ends then, asked for by a verifier of that leeway."""
    keep = None if end is None else end + leeway
    return structs.replace(reservation(number, debit(bucket, 1, 1), keep=keep), leeway=leeway)


@pytest.mark.parametrize("leeway", [KEPT, KEPT + 1, 2 * KEPT, 10**6])
def test_a_longer_leeway_revives_nothing(open_ledger: OpenLedger, kind: Kind, leeway: int) -> None:
    """What others have forgotten, or itself, while it would still take the token: it is refused."""
    ledger, end = open_ledger(), NOW + 600
    assert ledger.reserve(by(0, 1, end), NOW) is None
    other = open_ledger() if kind.shared else ledger
    for now in (NOW, end, end + KEPT - 1):
        assert other.peek(by(leeway, 2, end), now) == by(leeway, 2, end).debits[0], "it is still known"
    assert ledger.reserve(by(0, 3, None, CHILD), end + KEPT) is None and spent(ledger, ROOT, unit="usd_cents") == [0]
    for now in (end + KEPT, end + leeway - 1) if leeway > KEPT else ():
        for ask in (other.peek, other.reserve):
            with pytest.raises(StoreError, match="leeway is longer"):
                ask(by(leeway, 4, end), now)
    assert other.reserve(by(leeway, 5, None, LEAF), end + leeway) is None, "from there on it does not take that token"


def test_whatever_clocks_and_leeways_are_a_token_is_used_once(open_ledger: OpenLedger) -> None:
    """Sixty tokens of one use, and verifiers that ask whenever they would take it, in any order of time."""
    ledger, rng, answers = open_ledger(), random.Random(7), Counter[str]()
    for number in range(60):
        end = NOW + 200_000 * number
        used = 0
        for turn in range(12):
            leeway = rng.choice([0, 0, 600, KEPT, KEPT + 1, 2 * KEPT, 86_400])
            now = end + rng.choice([-100, 0, leeway, KEPT, leeway + KEPT, 10_000]) + rng.randint(-60, 60)
            asked = by(leeway, 100 * number + turn, end, (1000 + number).to_bytes(16, "big"))
            if now - leeway >= end:  # it has expired there; others bring the time on
                asked = by(leeway, 100 * number + turn, None, bytes([9]) * 16)
                asked = structs.replace(asked, debits=(debit(bytes([9]) * 16, 0),))
            try:
                short = ledger.reserve(asked, now)
            except StoreError:
                answers["refused"] += 1
                continue
            if asked.debits[0].amount:
                answers["used" if short is None else "known"] += 1
                used += short is None
        assert used <= 1
    assert min(answers[said] for said in ("refused", "used", "known")) > 30, answers


def test_leeways_less_than_an_hour_apart_are_never_refused(open_ledger: OpenLedger) -> None:
    """By clocks that go together, though at each second something is forgotten."""
    ledger = open_ledger()
    for number in range(30):
        now = NOW + 500 * number
        for leeway in (0, 600, KEPT):
            assert ledger.reserve(by(leeway, 10 * number + leeway % 7, now + 1 - leeway, (77 * number + leeway).to_bytes(16, "big")), now) is None


def test_a_clock_that_was_ahead_and_has_made_nothing_forget_does_no_harm(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    assert ledger.reserve(reservation(1, debit(amount=9)), NOW) is None
    assert ledger.reserve(reservation(2, debit(CHILD), keep=None), NOW + 600 + KEPT - 1) is None
    assert ledger.reserve(reservation(3), NOW) is None and spent(ledger, ROOT) == [10]


def test_no_debit_gives_anything_back(open_ledger: OpenLedger) -> None:
    """An amount below nothing is an error, of a bucket that is there and of one that is not, and nothing is debited."""
    ledger = open_ledger()
    assert ledger.reserve(reservation(1, debit(amount=5)), NOW) is None
    for asked in ((debit(amount=-3),), (debit(CHILD, -3),), (debit(ROOT, 1), debit(CHILD, -1)), (debit(ROOT, 3), debit(ROOT, -3))):
        with pytest.raises(StoreError):
            ledger.reserve(reservation(2, *asked), NOW)
    assert spent(ledger) == [5, 0, 0]


# --- trees -----------------------------------------------------------------------------------------------------------


def of_tree(tree: str, number: int, *debits: Debit, keep: int | None = NOW + 600) -> Reservation:
    return structs.replace(reservation(number, *debits, keep=keep), tree=tree)


def full(one: Debit) -> Debit:
    """What a ledger says of one that would be new, where its tree has too many."""
    return structs.replace(one, full=True)


def links(first: int, many: int) -> tuple[Debit, ...]:
    """The debits of so many links, by number."""
    return tuple(debit(number.to_bytes(16, "big"), 1) for number in range(first, first + many))


def test_a_tree_has_ten_thousand_buckets_and_no_more(open_ledger: OpenLedger) -> None:
    """Threads that add the last at once get what there is. Then the first that would be new is the one that is short, and nothing
    is debited; those that are there go on, another tree begins, and what was forgotten makes room."""
    ledger, gate = open_ledger(), Barrier(4)
    for first in range(0, MOST_BUCKETS - 10, 999):
        assert ledger.reserve(of_tree("a", first, *links(first, 999)), NOW) is None

    def add(who: int) -> list[bool]:
        gate.wait(timeout=60)
        return [ledger.reserve(of_tree("a", 20_000 + at, *links(20_000 + at, 1)), NOW) is None for at in range(who * 5, who * 5 + 5)]

    with ThreadPoolExecutor(4) as pool:
        got = [one for row in pool.map(add, range(4)) for one in row]
    assert sum(got) == 10

    (there,), new = links(0, 1), links(30_000, 2)
    for asked, at in (((new[0],), 0), ((there, *new), 1), ((there, there), None), ((debit(new[0].bucket, 0),), 0), ((debit(new[0].bucket, 99),), 0)):
        short = None if at is None else full(asked[at])
        one = of_tree("a", 40_000 + len(asked), *asked)
        assert ledger.peek(one, NOW) == ledger.reserve(one, NOW) == short
    assert spent(ledger, there.bucket, new[0].bucket) == [3, 0] and ledger.reserve(of_tree("a", 50_000, debit(there.bucket, 8)), NOW) == debit(there.bucket, 8), "short, not full"
    assert ledger.settle(of_tree("a", 40_002).id, {"usd_cents": 1}, NOW)
    assert ledger.reserve(of_tree("b", 60_000, *new), NOW) is None, "another tree"

    last = of_tree("a", 70_000, debit(bytes([255]) * 16), keep=None)
    for now, short in ((NOW + 600 + KEPT - 1, full(last.debits[0])), (NOW + 600 + KEPT, None)):
        assert ledger.peek(last, now) == ledger.reserve(last, now) == short


def test_a_bucket_that_is_kept_for_longer_counts_for_longer(open_ledger: OpenLedger) -> None:
    """As long as it is kept: a use with a later end, or without one, has made it so."""
    ledger = open_ledger()
    for number, keep in enumerate((NOW + 60, None)):
        for first in range(0, MOST_BUCKETS, 1000):
            assert ledger.reserve(of_tree("a", number + first, *links(first, 1000), keep=keep), NOW) is None
    later, new = NOW + 60 + KEPT + 1, links(30_000, 1)
    assert ledger.peek(of_tree("a", 5, *new), later) == ledger.reserve(of_tree("a", 5, *new), later) == full(new[0])


# --- at the same time ------------------------------------------------------------------------------------------------


def test_64_threads_get_what_there_is_and_no_more(open_ledger: OpenLedger) -> None:
    """Three hundred of three hundred, of 640 that are asked for at the same time."""
    ledger, gate = open_ledger(), Barrier(64)
    asked = debit(ROOT, 1, 300), debit(CHILD, 1, 1000)

    def run(who: int) -> int:
        gate.wait(timeout=60)
        return sum(ledger.reserve(reservation(who * 100 + number, *asked), NOW) is None for number in range(10))

    with ThreadPoolExecutor(64) as pool:
        assert sum(pool.map(run, range(64))) == 300
    assert spent(ledger) == [300, 300, 0]


def test_threads_that_reserve_settle_and_cancel_leave_the_right_sum(open_ledger: OpenLedger) -> None:
    """Sixteen threads, fifty rounds each, in trees that share a root: what is spent is what was settled."""
    ledger = open_ledger()

    def run(who: int) -> int:
        rng, total = random.Random(who), 0
        for number in range(50):
            one = reservation(who * 1000 + number, debit(ROOT, 9, 10**6), debit(bytes([10 + who % 4]) * 16, 9, 10**6), debit(bytes([50 + who]) * 16, 9, 10**6))
            assert ledger.reserve(one, NOW) is None
            taken = rng.randint(0, 9)
            assert ledger.settle(one.id, {"usd_cents": taken}, NOW) is True
            total += taken
        return total

    with ThreadPoolExecutor(16) as pool:
        totals = list(pool.map(run, range(16)))
    assert spent(ledger, ROOT) == [sum(totals)]
    assert spent(ledger, *(bytes([50 + who]) * 16 for who in range(16))) == totals
    assert spent(ledger, *(bytes([10 + group]) * 16 for group in range(4))) == [sum(totals[group::4]) for group in range(4)]


def test_one_reservation_that_many_threads_make_is_made_once(open_ledger: OpenLedger, kind: Kind) -> None:
    """Forty rounds of eight threads, each with a ledger of its own where ledgers share: each is told that it stands, though
    there is enough for one alone, and it is debited once."""
    first, gate = open_ledger(), Barrier(8)
    ledgers = [open_ledger() if kind.shared else first for _ in range(8)]

    def run(who: int) -> list[Any]:
        got = []
        for number in range(40):
            gate.wait(timeout=60)
            got.append(ledgers[who].reserve(reservation(number, debit(ROOT, 1, 40), debit(bytes([100 + number]) * 16, 1, 1)), NOW))
        return got

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(8))) == [[None] * 40] * 8
    assert spent(first, ROOT, *(bytes([100 + number]) * 16 for number in range(40))) == [40] + [1] * 40


def test_one_settlement_of_many_threads_counts(open_ledger: OpenLedger) -> None:
    """Twenty rounds of sixteen threads that cancel the same reservation: one does, and it goes back once."""
    ledger, gate = open_ledger(), Barrier(16)
    for number in range(20):
        assert ledger.reserve(reservation(number, debit(ROOT, 2, 100)), NOW) is None

    def run(_: int) -> list[bool]:
        got = []
        for number in range(20):
            gate.wait(timeout=60)
            got.append(ledger.settle(reservation(number).id, {"usd_cents": 1}, NOW))
        return got

    with ThreadPoolExecutor(16) as pool:
        rows = list(pool.map(run, range(16)))
    assert [sum(row[number] for row in rows) for number in range(20)] == [1] * 20 and spent(ledger, ROOT) == [20]


def test_200_tasks_of_which_a_third_is_cancelled_get_no_more(open_ledger: OpenLedger) -> None:
    """What a cancelled task had reserved counts as spent: a hundred of a hundred, and none of them twice."""
    ledger = open_ledger()
    taken: list[int] = []

    def take(number: int) -> bool:
        got = ledger.reserve(reservation(number, debit(ROOT, 1, 100), debit(CHILD, 1, 200)), NOW) is None
        if got:
            taken.append(number)
        return got

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
        tasks = [asyncio.create_task(asyncio.to_thread(take, number)) for number in range(200)]
        for task in tasks[::3]:
            await asyncio.sleep(0)
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    told = asyncio.run(main())
    assert sum(got is True for got in told) <= len(taken) == len(set(taken)) == 100
    assert spent(ledger) == [100, 100, 0]


@pytest.fixture(scope="module")
def eight() -> Iterator[ProcessPoolExecutor]:
    """Eight processes that are started fresh, and begin together."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(8, fresh, processes.together, (fresh.Barrier(8),)) as pool:
        yield pool


@pytest.mark.parametrize("shared_kind", SHARED + AWAITED, indirect=True)
def test_eight_processes_get_what_there_is_and_no_more(eight: ProcessPoolExecutor, shared_kind: Kind) -> None:
    """Two hundred of two hundred, of 320 that are asked for at the same time."""
    asked = (debit(ROOT, 1, 200), debit(CHILD, 1, 1000))
    got = [eight.submit(processes.spend, shared_kind.place, asked, 40, who) for who in range(8)]
    assert sum(one.result(timeout=120) for one in got) == 200
    assert spent(shared_kind.place.ledger(floor=0), CHILD) == [200]


@pytest.mark.parametrize("shared_kind", SHARED + AWAITED, indirect=True)
def test_eight_processes_take_each_proof_once(eight: ProcessPoolExecutor, shared_kind: Kind) -> None:
    """A hundred proofs, each presented by all of them."""
    got = [eight.submit(processes.prove, shared_kind.place, 100) for _ in range(8)]
    rows = [one.result(timeout=120) for one in got]
    assert [sum(row[number] for row in rows) for number in range(100)] == [1] * 100


# --- the whole way ---------------------------------------------------------------------------------------------------


ASK = Access(table="sales", operation="select", cost={"usd_cents": 1})


def minted(**caveats: Any) -> Token:
    return Issuer(KEYRING, clock=clock()).mint(**WHO, tables=["sales"], operations=["select"], **caveats)


def test_five_children_with_a_hundred_each_under_a_hundred_spend_a_hundred(open_ledger: OpenLedger) -> None:
    """Real tokens at a real verifier, from twenty threads; then the root has nothing left either."""
    root = minted(budget={"usd_cents": 100})
    children = [root.delegate(to=f"child-{number}", budget={"usd_cents": 100}) for number in range(5)]
    verifier = Verifier(KEYRING, ledger=open_ledger(), clock=clock())

    def run(who: int) -> list[str]:
        return [verifier.check(children[who % 5], ASK).code for _ in range(10)]

    with ThreadPoolExecutor(20) as pool:
        codes = [code for row in pool.map(run, range(20)) for code in row]
    assert sorted(codes) == ["allowed"] * 100 + ["budget_exhausted"] * 100
    assert verifier.check(root, ASK).code == "budget_exhausted"


def test_what_was_reserved_is_paid_for_when_it_is_over(open_ledger: OpenLedger) -> None:
    """Settled for less, cancelled, left by an exception, which is spent; and `uses` counts the access, whatever it cost."""
    grant = Verifier(KEYRING, ledger=open_ledger(), clock=clock()).authenticate(minted(budget={"usd_cents": 10}, uses=3))
    ten = Access(table="sales", operation="select", cost={"usd_cents": 10})
    with grant.reserve(ten) as reserved:
        with pytest.raises(Denied, match="budget_exhausted"):
            grant.reserve(ASK)
        assert reserved.settle({"usd_cents": 4}) is True
    assert grant.reserve(ASK).cancel() is True
    with pytest.raises(ZeroDivisionError), grant.reserve(Access(table="sales", operation="select", cost={"usd_cents": 6})):
        raise ZeroDivisionError
    assert grant.check(ASK).code == "budget_exhausted"
    nothing = Access(table="sales", operation="select", cost={"usd_cents": 0})
    assert [grant.check(nothing).code for _ in range(2)] == ["allowed", "budget_exhausted"]
