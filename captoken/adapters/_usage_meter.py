"""What one statement takes out, counted by the guard of a database: rows, bytes, rows written.

    meter = costed.take(needs, caller, most_rows=1000)    # decided on, recorded, reserved
    with meter:
        for batch in fetched:
            meter.read(batch)                             # or Denied: `budget_exhausted`
        meter.done(written)                               # or Denied
    # settled at what it came to; now the rows may be handed out

A token with `budget={"rows": 5000, "bytes": 2000000}` lets it and all below it take so much. How
much a statement takes is known only while it runs. So it is reserved in parts (spec 38.16), and
each part is reserved before anything of it is handed out:

    rows            256 at a time, and at least 1 for each statement
    bytes           65,536 at a time, and at least 1 for each statement
    rows_written    what was written, before it is committed

No statement asks for more than a quarter of what is left, unless it has read more already. So one
that takes long leaves something to its siblings, and a small rest is used up all the same.

Bytes are those of the values: text as UTF-8, `bytes` as they are, a number 8 or as many as it has,
all else as its text; each value at least 1, and each row. The text of an error counts too, and the
number of rows that a statement wrote, which is told.

Whether there is enough is asked for each 256 rows or 65,536 bytes, and at the end. Where there is
not, the statement is refused, and what it had read before that part counts. The rest goes back.

How much a statement reads can be made to say what it reads. So no refusal says how much that was:
each one would hand out a few characters.

What this file does not know: which database it is, and how rows are fetched.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import structs

from captoken._format.errors import StatementError
from captoken._language.access import Access, Caller, Statement
from captoken._language.costs import charged_once
from captoken._verification.decision import Decision, Denied
from captoken._verification.grant import Grant, Reserved

# The units that guards of databases count by themselves. No `cost` of a guard names them.
UNITS = ("rows", "bytes", "rows_written")

# How much of each is reserved at a time: so much, and at most this part of what is left.
CHUNK = {"rows": 256, "bytes": 65_536, "rows_written": 256}
_PART = 4

# What each statement counts, whatever it gives: that it gives no row is something to know, too.
_LEAST = {"rows": 1, "bytes": 1, "rows_written": 0}

_log = logging.getLogger("captoken")


def size_of(value: Any) -> int:
    """How many bytes a value counts for: at least 1, since an empty one differs from others."""
    return max(1, _length(value))


def _length(value: Any) -> int:
    """How many bytes a value holds."""
    if value is None:
        return 1
    if isinstance(value, int):
        # One number can be a text of any length: each three digits of it are a character.
        return max(8, (value.bit_length() + 7) // 8)
    if isinstance(value, float):
        return 8
    if isinstance(value, (bytes, bytearray, memoryview)):
        return memoryview(value).nbytes
    return len(str(value).encode("utf-8", "surrogatepass"))


class UsageMeter:
    """The account of one statement. For one thread; whoever makes it settles it, by `with`.

    `accesses` are what the statement needs, and `cost` is what the owner of the guard says that it
    costs. `left` has what is left of those of `UNITS` that a budget of the token names. Where it
    is empty there is nothing to count. If `cost` is empty too, the statement was paid for
    elsewhere, and nothing here does anything.

    Raises Denied, which is recorded, where the first part cannot be had.
    """

    def __init__(
        self,
        grant: Grant,
        accesses: Sequence[Access],
        caller: Caller | None,
        cost: Mapping[str, int],
        left: Mapping[str, int],
        most_rows: int,
        *,
        writes: bool,
        decision: Decision | None = None,
        statement: Statement | None = None,
    ) -> None:
        self._grant = grant
        self._statement = statement
        self._accesses = accesses
        self._caller = caller

        # What it was paid for by, where nothing is to be counted.
        self.decision = decision

        # By unit: what was read or written so far, what of it was found to be covered, and what is
        # reserved for it. And the parts that make up the last.
        self._read = dict.fromkeys(left, 0)
        self._covered = dict(self._read)
        self._reserved = dict(self._read)
        self._parts: list[tuple[Reserved, dict[str, int]]] = []
        self._writes = writes
        self._cost = cost
        if not left and not cost:
            return

        most = {**CHUNK, "rows": min(CHUNK["rows"], most_rows)}
        if not writes:
            most["rows_written"] = 0
        first: dict[str, int] = {}
        for unit, unspent in left.items():
            least = 1 if unit == "rows_written" and writes else _LEAST[unit]
            first[unit] = max(least, min(most[unit], unspent // _PART))
        self._reserve({**cost, **first})

    @property
    def counts(self) -> bool:
        """Is anything to be counted?"""
        return bool(self._read)

    @property
    def counts_writes(self) -> bool:
        """Are written rows to be counted? Then what is too much has to be undone."""
        return "rows_written" in self._read

    def begin_again(self) -> None:
        """What was run is undone, and nobody saw it: it is run anew, for what was reserved."""
        self._read = dict.fromkeys(self._read, 0)
        self._covered = dict(self._read)

    def read(self, rows: Sequence[Sequence[Any]]) -> None:
        """These rows were read, and are kept until `done`. Raises Denied as that does."""
        self._add("rows", len(rows))
        if "bytes" in self._read:
            for row in rows:
                self._add("bytes", max(1, sum(map(size_of, row))))
        if any(read - self._covered[unit] >= CHUNK[unit] for unit, read in self._read.items()):
            self._cover()

    def done(self, written: int) -> None:
        """The statement is done and wrote so many rows: those that it read may be handed out.

        Raises Denied if the budgets have not enough. What it wrote has to be undone then.
        """
        if not self._read:
            return
        self._add("rows_written", written)
        if self._writes:
            self._add("bytes", size_of(written))  # its `rowcount` is told
        self._cover()

    def failed(self, error: str) -> None:
        """The statement failed, and this is to be told of it. Raises Denied as `done` does."""
        if self._read:
            self._add("bytes", size_of(error))
            self._cover()

    def __enter__(self) -> UsageMeter:
        return self

    def __exit__(self, _: object, raised: BaseException | None, *rest: object) -> None:
        """Settle what was reserved at what was taken, also where the statement failed.

        What was refused, or is at fault itself, costs nothing of what the owner says that it costs.
        What it had read counts. What the ledger raises is logged, and no more: all that was
        reserved is spent then.
        """
        if not self._parts:
            return
        left = self._taken()
        if isinstance(raised, (Denied, StatementError)):
            left.update(dict.fromkeys(self._cost, 0))
        for reserved, cost in self._parts:
            # The owner's units are spent as they were stated, or not at all. Of ours, this part has
            # what is left.
            used = {unit: min(left.get(unit, amount), amount) for unit, amount in cost.items()}
            left = {unit: amount - used[unit] for unit, amount in left.items()}

            # A part that was used up is spent without a word.
            if used == cost:
                continue
            try:
                reserved.settle(used)
            except Exception as error:
                _log.warning("what a statement took was not settled: %s", type(error).__name__)

    def _add(self, unit: str, amount: int) -> None:
        """Add an amount that was read or written, if the unit is counted."""
        if unit in self._read:
            self._read[unit] += amount

    def _taken(self) -> dict[str, int]:
        """Return the amounts taken so far, by unit."""
        return {unit: max(_LEAST[unit], amount) for unit, amount in self._read.items()}

    def _cover(self) -> None:
        """See that all that is taken is reserved, by a further part if need be. Raises Denied."""
        short: dict[str, int] = {}
        for unit, taken in self._taken().items():
            if taken > self._reserved[unit]:
                short[unit] = taken - self._reserved[unit]
        if short:
            self._reserve_further(short)
        self._covered = dict(self._read)

    def _reserve_further(self, short: Mapping[str, int]) -> None:
        """Reserve a further part, for what is short. Raises Denied, which tells no amount."""
        left = self._grant.left(tuple(short))
        further = dict.fromkeys(self._parts[0][1], 0)
        for unit, amount in short.items():
            further[unit] = max(amount, min(CHUNK[unit], left[unit] // _PART))
        try:
            self._reserve(further)
            return
        except Denied as denied:
            refused = denied.decision

        # Out of the handler, so that the denial does not show the one that states the amounts.
        if refused.code == "budget_exhausted":
            self._read = self._covered
        raise Denied(_without_amounts(refused, short))

    def _reserve(self, cost: dict[str, int]) -> None:
        """One part, for all that the statement needs together. Raises Denied, which is recorded."""
        after = self._parts[0][0] if self._parts else None
        reserved = self._grant.reserve_all(
            charged_once(self._accesses, cost),
            caller=self._caller,
            after=after,
            statement=self._statement,
        )

        self._parts.append((reserved, cost))
        for unit in self._reserved:
            self._reserved[unit] += cost[unit]


def _without_amounts(refused: Decision, short: Collection[str]) -> Decision:
    """The denial of a further part, as it is told: without a number that comes of what was read.

    The trail has it with its amounts.
    """
    access = refused.access
    if access is not None:
        access = structs.replace(access, cost={})
    refusals = refused.refusals
    if refused.code == "budget_exhausted":
        text = f"not enough {' or '.join(sorted(short))} are left"
        refusals = tuple(structs.replace(refusal, text=text) for refusal in refusals)
    return structs.replace(refused, access=access, refusals=refusals, effects=())
