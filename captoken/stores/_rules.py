"""Rules that every store keeps, written once (spec, "Replay" and "Ledger").

The stores on servers state the same rules in the language of their server, with the figures from
here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from captoken._format.clocks import CLOCKS_DIFFER, PROOF_AHEAD, PROOF_PAST
from captoken._format.encoding import MAX_INTEGER
from captoken._format.errors import StoreError
from captoken.stores.ports import KEPT, Debit, Reservation

Bucket: TypeAlias = tuple[bytes, str]  # the id of a link, and a unit

REFUSED_BEFORE = "the token was issued before this ledger began, and what it has used is not known"
REFUSED_CLOCK = (
    "this clock is behind one by which buckets were forgotten, "
    "and what tokens have used is not known"
)
REFUSED_AMOUNT = "a debit of less than nothing"


# --- proofs ---------------------------------------------------------------------------------------


def first_replay_floor(clock: Callable[[], float]) -> int:
    """The floor of a replay store that is new: what an earlier one took is not known."""
    return int(clock()) + PROOF_AHEAD


def too_old(now: int) -> int:
    """A proof that was issued then, or before, is not fresh any more: its use may be forgotten."""
    return now - PROOF_PAST - 1


def is_full(limit: int) -> StoreError:
    """What a replay store of a bounded size raises when it has no room."""
    seconds = PROOF_PAST + PROOF_AHEAD
    return StoreError(
        f"{limit} proofs of the last {seconds} seconds are remembered, and no more fit"
    )


# --- the ledger -----------------------------------------------------------------------------------


def first_ledger_floor(clock: Callable[[], float]) -> int:
    """The floor of a ledger that is new: what was counted before is not known."""
    return int(clock()) + CLOCKS_DIFFER


class Sums(NamedTuple):
    """What a reservation comes to."""

    short: Debit | None  # the first debit that its bucket has not enough for
    spent: dict[Bucket, int]  # if none is short: what each bucket has been debited then


def add_up(
    reservation: Reservation,
    now: int,
    floor: int,
    gone: int,
    spent_of: Callable[[bytes, str], int],
) -> Sums:
    """Judge a reservation that is not yet made. Both `peek` and `reserve` rest on this.

    `floor` is the ledger's. `gone` is the last time that a forgotten bucket was kept until.
    Raises StoreError for what cannot be known, and for an amount below 0.
    """
    if reservation.issued_at <= floor:
        raise StoreError(REFUSED_BEFORE)
    # A bucket of a token that still lives by this clock may be gone: nothing is known of it.
    if now < gone - KEPT:
        raise StoreError(REFUSED_CLOCK)

    spent: dict[Bucket, int] = {}
    for debit in reservation.debits:
        if debit.amount < 0:
            raise StoreError(REFUSED_AMOUNT)

        bucket = (debit.bucket, debit.unit)
        if bucket not in spent:
            spent[bucket] = spent_of(*bucket)
        spent[bucket] += debit.amount
        if spent[bucket] > debit.limit:
            return Sums(debit, {})
    return Sums(None, spent)


# --- what a server says ---------------------------------------------------------------------------


def checked_floor(floor: int | None) -> int | None:
    """A floor as it may be told to a server. Raises ValueError."""
    if floor is None:
        return None
    if type(floor) is not int or not 0 <= floor <= MAX_INTEGER:
        raise ValueError("a floor is seconds since the epoch, as int")
    return floor


def not_an_answer(server: str, answer: Any) -> StoreError:
    """What a store raises when a server says what it never says."""
    return StoreError(f"{server}: answered with a {type(answer).__name__}")


def short_debit(server: str, answer: Any, reservation: Reservation) -> Debit | None:
    """What `reserve` says on a server: 0, or the number of the first debit that is short.

    Raises StoreError for -1, a token from before the floor; for -2, a clock that is behind; and for
    whatever is no answer.
    """
    debits = reservation.debits
    if type(answer) is not int or not -2 <= answer <= len(debits):
        raise not_an_answer(server, answer)
    if answer == -1:
        raise StoreError(REFUSED_BEFORE)
    if answer == -2:
        raise StoreError(REFUSED_CLOCK)
    if answer == 0:
        return None
    return debits[answer - 1]
