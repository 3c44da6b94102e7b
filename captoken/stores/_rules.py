"""Rules that every store keeps, written once (spec, "Replay", "Ledger" and "Overlay").

The stores on servers state the same rules in the language of their server, with the figures from
here. So whoever changes a rule changes it in each of them; one suite of tests asks all.

Two things come back in every rule. A *floor* is the time up to which nothing is known: what was
issued until then is refused. And what cannot be known is a StoreError, which denies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from captoken._format import names, primitives
from captoken._format.clocks import CLOCKS_DIFFER, CONSENT_LIFE, PROOF_AHEAD, PROOF_PAST
from captoken._format.encoding import MAX_INTEGER
from captoken._format.errors import StoreError
from captoken._format.names import frozen_copy
from captoken._format.signed import body_of
from captoken._format.spelling import shown
from captoken.stores.ports import (
    FULL,
    KEPT,
    MARKS,
    MOST_BUCKETS,
    Debit,
    Forbidden,
    Mark,
    MarkedStep,
    Reservation,
    SetBefore,
    later,
)

Bucket: TypeAlias = tuple[bytes, str]  # the id of a link, and a unit

# What the ledgers say, in one wording: a server answers with a number, and the words are from here.
REFUSED_BEFORE = (
    "the token was issued before this ledger began, or within its first minute, so the ledger does "
    "not know what it has used: mint a new token once the ledger is a minute old. To begin at "
    "once, "
    "make keys and ledger together: `captoken keygen keyring --create LEDGER.db`, or "
    "create(path, keys=…)"
)
REFUSED_CLOCK = (
    "this clock is behind the clock by which old counts were deleted, or its leeway is longer, so "
    "the store does not know what tokens have used: set the clocks alike"
)
REFUSED_AMOUNT = "a debit must not be negative"


# --- how long a call takes ------------------------------------------------------------------------

# Seconds, unless its maker says otherwise. Then a call is an error, and denies.
TIMEOUT = 5.0
_LONGEST = 86_400


def checked_timeout(timeout: Any) -> float:
    """What a store is given as `timeout=`. Raises ValueError for what is no time to wait."""
    if type(timeout) not in (int, float) or not 0 < timeout <= _LONGEST:
        raise ValueError(
            f"timeout must be seconds, more than 0 and at most {_LONGEST}, not {shown(timeout)}"
        )
    return float(timeout)


class LateError(Exception):
    """A server did not answer in time. Not the guard's own: a store says `late` of it."""


def late(server: str, timeout: float) -> StoreError:
    """What a store raises for a call that has no answer by then. Made here, for the caller."""
    return StoreError(
        f"{server}: no answer within {timeout:g} seconds: "
        "the request may still have been carried out, and then it counts"
    )


# --- proofs ---------------------------------------------------------------------------------------


def first_replay_floor(clock: Callable[[], float]) -> int:
    """The floor of a replay store that is new: what an earlier one took is not known (31.3).

    A proof that an earlier one took may have been made by a clock that is so far ahead.
    """
    return int(clock()) + PROOF_AHEAD


def too_old(now: int) -> int:
    """A proof that was issued then, or before, is not fresh any more.

    Its use may be forgotten, as long as the floor rises so far (31.3).

        too_old(1000)    # 969: one that was issued at 970 may still pass
    """
    return now - PROOF_PAST - 1


# For the message of a store that is full.
OF_PROOFS = f"proofs of the last {PROOF_PAST + PROOF_AHEAD} seconds"
OF_CONSENTS = "consents of the last hour"


def consent_too_old(now: int) -> int:
    """A consent that was issued then, or before, is not good any more: it lives an hour at most."""
    return now - CONSENT_LIFE - 1


def is_full(limit: int, what: str = OF_PROOFS) -> StoreError:
    """What a replay store of a bounded size raises: it never makes room by forgetting (31.4).

    Made here, and raised by the caller. The request is then denied, as by a store that is gone.
    """
    return StoreError(
        f"{limit} {what} are remembered, and there is no room for more: pass a larger limit="
    )


# --- the ledger -----------------------------------------------------------------------------------


def first_ledger_floor(clock: Callable[[], float]) -> int:
    """The floor of a ledger that is new: what was counted before is not known (38.9).

    A token that was used before may have been issued by a clock that is so far ahead.
    """
    return int(clock()) + CLOCKS_DIFFER


# What a reservation comes to: the first debit that its bucket has not enough for, or None and what
# each bucket has been debited then.
Sums: TypeAlias = tuple[Debit | None, dict[Bucket, int]]


def add_up(
    reservation: Reservation,
    now: int,
    floor: int,
    gone: int,
    spent_of: Callable[[Bucket], int | None],
    kept_of: Callable[[str], int],
) -> Sums:
    """Judge a reservation that is not yet made. Both `peek` and `reserve` rest on this.

    `floor` is the ledger's. `gone` is the last time that a forgotten bucket was kept until.
    `spent_of` is what a bucket has been debited, None for one that is not there. `kept_of` is how
    many there are of a tree; it is asked once, and only if there is to be another one. Raises
    StoreError for what cannot be known, and for an amount below 0.

    Changes nothing. Whoever reserves writes down the sums that it returns, in the same step.
    """
    _check_known(reservation, now, floor, gone)

    # 38.3. From the first link to the last, all or none: who calls debits only if none is short.
    # What one access takes twice from one bucket adds up.
    spent: dict[Bucket, int] = {}
    room: int | None = None
    for debit in reservation.debits:
        # 38.10. A debit of less than nothing would give back what others have spent.
        if debit.amount < 0:
            raise StoreError(REFUSED_AMOUNT)

        bucket = (debit.bucket, debit.unit)
        before = spent[bucket] if bucket in spent else spent_of(bucket)
        # A bucket that is not there has not been used. 38.14. Of one tree no more than so many.
        if before is None:
            room = MOST_BUCKETS - kept_of(reservation.tree) if room is None else room
            if room <= 0:
                return msgspec.structs.replace(debit, full=True), {}
            room -= 1
            before = 0
        after = before + debit.amount
        if after > debit.limit:
            return debit, {}
        spent[bucket] = after
    return None, spent


def _check_known(asked: Reservation | MarkedStep, now: int, floor: int, gone: int) -> None:
    """Raise StoreError for a token of which a ledger cannot know what was done before."""
    # 38.9. A token from before the floor may have used anything: what is not known is refused.
    if asked.issued_at <= floor:
        raise StoreError(REFUSED_BEFORE)
    # 38.10. By this clock and leeway a token may still live whose bucket is gone, and would begin
    # anew.
    if now - asked.leeway < gone - KEPT:
        raise StoreError(REFUSED_CLOCK)


# What a step comes to: what denies it, or None and what each bucket has been debited then.
Answer: TypeAlias = tuple[Forbidden | Debit | None, dict[Bucket, int]]


def weigh_step(
    step: MarkedStep,
    now: int,
    floor: int,
    gone: int,
    spent_of: Callable[[Bucket], int | None],
    kept_of: Callable[[str], int],
    *,
    set_before: Callable[[bytes], SetBefore | None],
    is_reserved: bool,
) -> Answer:
    """Judge a step that is not yet made. Both `peek_step` and `step` rest on this.

    `set_before` is what there is of a mark. `is_reserved` says that the step's reservation was made
    before, and is not made again. The rest is as in `add_up`. Changes nothing.
    """
    _check_known(step, now, floor, gone)

    # 46.6. As if the step's own marks were set: a step that does both at once is closed by itself.
    own = {mark.bucket: mark for mark in step.marks}
    for at, rule in enumerate(step.rules):
        known = [set_before(mark.bucket) for mark in rule.after]
        if all(one or mark.bucket in own for one, mark in zip(known, rule.after, strict=True)):
            return Forbidden(at, tuple(one for one in known if one is not None)), {}

    # 38.14. Marks of a holder's own links count with its buckets.
    new = [mark for mark in own.values() if mark.is_of_holder and set_before(mark.bucket) is None]
    if new and len(new) > MOST_BUCKETS - kept_of(step.tree):
        return _full_mark(new[0]), {}
    if step.reservation is None or is_reserved:
        return None, {}
    return add_up(
        step.reservation,
        now,
        floor,
        gone,
        spent_of,
        lambda tree: kept_of(tree) + len(new),
    )


def _full_mark(mark: Mark) -> Debit:
    """What is said of a mark that would be new, where its tree has too many."""
    return Debit(mark.bucket, MARKS, 1, 1, mark.link or 0, full=True)


def kept_marks(step: MarkedStep) -> Iterator[Mark]:
    """The marks whose `keep` a step has a word in: its own, and those of its rules (46.5)."""
    yield from step.marks
    for rule in step.rules:
        yield from rule.after


class NumberedMarks(NamedTuple):
    """The marks of a step as a server is asked about them: each once, its own before the others."""

    marks: tuple[Mark, ...]
    own: int

    # Of each rule, the numbers of its marks, counted from 1, as servers do.
    rules: tuple[str, ...]

    # What did it.
    by: bytes


def numbered_marks(step: MarkedStep) -> NumberedMarks:
    """The marks of a step, each with the latest `keep` that the step has for it."""
    marks = {mark.bucket: mark for mark in step.marks}
    own = len(marks)
    for mark in kept_marks(step):
        known = marks.setdefault(mark.bucket, mark)
        keep = later(known.keep, mark.keep)
        if keep != known.keep:
            marks[mark.bucket] = msgspec.structs.replace(known, keep=keep)
    numbers = {bucket: str(number) for number, bucket in enumerate(marks, 1)}
    rules = (" ".join(numbers[mark.bucket] for mark in rule.after) for rule in step.rules)
    return NumberedMarks(tuple(marks.values()), own, tuple(rules), step.by.encode())


def what_was_taken(amounts: Mapping[str, int] | None) -> dict[str, int] | None:
    """What a reservation is settled with, by unit, in a dict of its own; None is all of it.

    The mapping is read once, and what was read is checked: one that says something else the second
    time cannot put that into a count. An amount below 0 is 0, one that is too large is the largest
    of a token: neither gives back more than was reserved (38.8). Raises TypeError for what is no
    mapping of units to integers.
    """
    if amounts is None:
        return None

    taken: dict[str, int] = {}
    for unit, amount in frozen_copy(amounts, "amounts").items():
        # By exact type: True is no amount, and neither is 1.0.
        if type(unit) is not str or type(amount) is not int:
            raise TypeError('amounts must be integers by unit, like {"usd_cents": 5}')
        taken[unit] = min(max(amount, 0), MAX_INTEGER)
    return taken


# --- snapshots ------------------------------------------------------------------------------------


def mark(snapshot: bytes) -> bytes:
    """The mark of a snapshot that lies there whole: the SHA-256 of what was signed (36.17).

    For whatever bytes: a store does not look whether they are a snapshot.
    """
    return primitives.sha256(body_of(snapshot))


def lines(snapshot: bytes, deltas: Iterable[bytes]) -> bytes:
    """A snapshot with the deltas behind it, as a store gives them out (36.19)."""
    return b"\n".join((snapshot, *deltas))


# --- making and opening ---------------------------------------------------------------------------

# Opening never makes (31.6, 38.15). A store that is missing may be one that was lost, and who makes
# another in its place has said that nobody has used anything, or that nothing was revoked.

MISSING = -3  # what a script answers


def missing(where: str, how: str = "") -> StoreError:
    """What a store raises that is not there. Made here, and raised by the caller.

    `how` goes behind it: what to write.
    """
    return StoreError(f"{where}: there is no store here: create makes one{how}")


def there_already(where: str) -> StoreError:
    """What `create` raises for a store that is there. Made here, and raised by the caller."""
    return StoreError(f"{where}: this store already exists: open it, or choose another place")


def checked_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """The ids of keys that are made along with a store. Raises TypeError or ValueError."""
    if isinstance(keys, str):
        raise TypeError("keys must be a list of key ids, like Keyring.key_ids, not a str")
    return tuple(names.name(key, "a key id") for key in keys)


def checked_floor(floor: int | None) -> int | None:
    """A floor as a store may be made with it. Raises ValueError.

    None is passed on: the store then begins with a floor by its clock.
    """
    if floor is None:
        return None

    # By exact type: True would be a floor of 1. The limit is what every server can hold.
    if type(floor) is not int or not 0 <= floor <= MAX_INTEGER:
        raise ValueError(f"a floor must be seconds since the epoch, as int, not {shown(floor)}")
    return floor


class Making(NamedTuple):
    """What a store is made with that is not there yet."""

    # Keys made in the same act. For their tokens there is no floor.
    keys: tuple[str, ...]

    # The floor; None means that the clocks give it.
    floor: int | None


def making(keys: Iterable[str], floor: int | None) -> Making:
    """What `create` was given, checked. Raises TypeError or ValueError."""
    return Making(checked_keys(keys), checked_floor(floor))


# --- what a server says ---------------------------------------------------------------------------


def not_an_answer(server: str, answer: Any) -> StoreError:
    """What a store raises when a server says what it never says.

    The answer itself is not shown, for it may be anything.
    """
    kind = type(answer).__name__
    return StoreError(
        f"{server}: answered with a {kind}, which this version of captoken does not expect"
    )


def short_debit(server: str, answer: Any, reservation: Reservation | None) -> Debit | None:
    """What `reserve` says on a server: 0, or the number of the first debit that is short.

    FULL is added to the number if that debit would be new, and its tree has too many.

    Raises StoreError for -1, a token from before the floor; for -2, a clock that is behind; and for
    whatever is no answer.
    """
    debits = () if reservation is None else reservation.debits
    if type(answer) is int and FULL < answer <= FULL + len(debits):
        return msgspec.structs.replace(debits[answer - FULL - 1], full=True)

    # By exact type: True would count as 1, and so name the first debit.
    if type(answer) is not int or not MISSING <= answer <= len(debits):
        raise not_an_answer(server, answer)
    if answer == MISSING:
        raise missing(server)

    if answer == -1:
        raise StoreError(REFUSED_BEFORE)
    if answer == -2:
        raise StoreError(REFUSED_CLOCK)
    if answer == 0:
        return None
    return debits[answer - 1]  # counted from 1, as servers do


def step_answer(server: str, answer: Any, step: MarkedStep) -> Forbidden | Debit | None:
    """What `step` says on a server: a number, or the parts of a rule that holds.

    A number is that of `short_debit`, or the number of a mark with FULL added twice. It may stand
    alone in a list. The parts are the number of the rule, from 0, and for each of its marks when
    and by what it was set, with a blank between; nothing of one that was not set before.

    Raises StoreError as `short_debit` does.
    """
    if type(answer) is list:
        # A client may decode what it reads.
        parts = [part.encode() if isinstance(part, str) else part for part in answer]
        if not all(isinstance(part, bytes) for part in parts):
            raise not_an_answer(server, answer)
        if len(parts) != 1:
            return _forbidden(server, parts, step)
        answer = int(parts[0]) if re.fullmatch(rb"-?[0-9]{1,6}", parts[0]) else None

    own = list({mark.bucket: mark for mark in step.marks}.values())
    if type(answer) is int and 2 * FULL < answer <= 2 * FULL + len(own):
        return _full_mark(own[answer - 2 * FULL - 1])
    return short_debit(server, answer, step.reservation)


def _forbidden(server: str, parts: list[bytes], step: MarkedStep) -> Forbidden:
    """The rule that holds. Raises StoreError for parts that are of no rule of this step."""
    first, *said = parts or [b""]
    number = int(first) if re.fullmatch(rb"[0-9]{1,6}", first) else len(step.rules)
    after = step.rules[number].after if number < len(step.rules) else ()
    if not after or len(after) != len(said):
        raise not_an_answer(server, parts)

    known: list[SetBefore] = []
    for mark, one in zip(after, said, strict=True):
        at, _, by = one.partition(b" ")
        if one and not re.fullmatch(rb"[0-9]{1,16}", at):
            raise not_an_answer(server, parts)
        if one:
            known.append(SetBefore(mark.bucket, int(at), by.decode(errors="replace")))
    return Forbidden(number, tuple(known))
