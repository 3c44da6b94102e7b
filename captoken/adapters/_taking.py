"""What one statement takes out, counted by the guard of a database: rows, bytes, rows written.

    taking = paying.take(needs, caller, most_rows=1000)    # decided on, recorded, reserved
    with taking:
        for batch in fetched:
            taking.hand_out(batch)                         # or Denied: `budget_exhausted`
    # settled at what it came to; now the rows may be handed out

A token with `budget={"rows": 5000, "bytes": 2000000}` lets it and all below it take so much. How
much a statement takes is known only while it runs. So it is reserved in parts (spec 38.16), and
each part is reserved before anything of it is handed out:

    rows            256 at a time, and at least 1 for each statement
    bytes           65,536 at a time
    rows_written    what was written, before it is committed

No statement asks for more than a quarter of what is left, unless it has read more already. So one
that takes long leaves something to its siblings, and a small rest is used up all the same.

Bytes are those of the values: text as UTF-8, `bytes` as they are, NULL 1, a number 8 or as many as
it has, all else as its text. The text of an error counts too.

What this file does not know: which database it is, and how rows are fetched.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from captoken._language.access import Access, Caller
from captoken._language.costs import charged_once
from captoken._verification.decision import Decision, Grant, Reserved

# The units that guards of databases count by themselves. No `cost` of a guard names them.
UNITS = ("rows", "bytes", "rows_written")

# How much of each is reserved at a time: so much, and at most this part of what is left.
CHUNK = {"rows": 256, "bytes": 65_536, "rows_written": 256}
_PART = 4

_log = logging.getLogger("captoken")


def size_of(value: Any) -> int:
    """How many bytes a value counts for."""
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


class Taking:
    """The account of one statement. For one thread; whoever makes it settles it, by `with`.

    `accesses` are what the statement needs, and `cost` is what the owner of the guard says that it
    costs. `left` has what is left of those of `UNITS` that a budget of the token names. Where it
    is empty there is nothing to count: the statement was paid for elsewhere, and nothing here does
    anything.

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
    ) -> None:
        self._grant = grant
        self._accesses = accesses
        self._caller = caller

        # What it was paid for by, where nothing is to be counted.
        self.decision = decision

        # By unit: what is taken, and what is reserved for it. And the parts that make up the one.
        self._taken = dict.fromkeys(left, 0)
        self._reserved = dict.fromkeys(left, 0)
        self._parts: list[tuple[Reserved, dict[str, int]]] = []
        self._rows = 0
        if not left:
            return

        # That a statement gives no row is something to know, too.
        least = {"rows": 1, "rows_written": 1 if writes else 0}
        most = {**CHUNK, "rows": min(CHUNK["rows"], most_rows)}
        if not writes:
            most["rows_written"] = 0
        first: dict[str, int] = {}
        for unit, unspent in left.items():
            first[unit] = max(least.get(unit, 0), min(most[unit], unspent // _PART))
        self._reserve({**cost, **first})
        self._take("rows", 1)

    @property
    def counts(self) -> bool:
        """Is anything to be counted?"""
        return bool(self._taken)

    @property
    def counts_writes(self) -> bool:
        """Are written rows to be counted? Then what is too much has to be undone."""
        return "rows_written" in self._taken

    def begin_again(self) -> None:
        """What was run is undone, and nobody saw it: it is run anew, for what was reserved."""
        self._rows = 0
        self._taken = dict.fromkeys(self._taken, 0)
        self._take("rows", 1)

    def hand_out(self, rows: Sequence[Sequence[Any]]) -> None:
        """These rows are to be handed out. Raises Denied if the budgets have not enough."""
        if not self._taken:
            return
        self._rows += len(rows)
        self._take("rows", max(1, self._rows))
        if "bytes" in self._taken:
            for row in rows:
                self._add("bytes", sum(map(size_of, row)))
        self._cover()

    def tell(self, error: str) -> None:
        """The text of an error is to be told. Raises Denied as `hand_out` does."""
        self._add("bytes", size_of(error))
        self._cover()

    def wrote(self, rows: int) -> None:
        """So many rows were written. Raises Denied as `hand_out` does: then it has to be undone."""
        self._add("rows_written", rows)
        self._cover()

    def __enter__(self) -> Taking:
        return self

    def __exit__(self, *_: object) -> None:
        """Settle what was reserved at what was taken, also where the statement failed.

        What the ledger raises is logged, and no more: all that was reserved is spent then.
        """
        left = self._taken
        for reserved, cost in self._parts:
            # The owner's units are spent as they were stated. Of ours, this part has what is left.
            used = {unit: min(left.get(unit, amount), amount) for unit, amount in cost.items()}
            left = {unit: amount - used[unit] for unit, amount in left.items()}

            # A part that was used up is spent without a word.
            if used == cost:
                continue
            try:
                reserved.settle(used)
            except Exception as error:
                _log.warning("what a statement took was not settled: %s", type(error).__name__)

    def _take(self, unit: str, amount: int) -> None:
        """So much of the unit is taken by now, if it is counted."""
        if unit in self._taken:
            self._taken[unit] = amount

    def _add(self, unit: str, amount: int) -> None:
        """So much more of the unit is taken, if it is counted."""
        if unit in self._taken:
            self._taken[unit] += amount

    def _cover(self) -> None:
        """Reserve a further part, where more is taken than is reserved. Raises Denied."""
        short: dict[str, int] = {}
        for unit, taken in self._taken.items():
            if taken > self._reserved[unit]:
                short[unit] = taken - self._reserved[unit]
        if not short:
            return

        left = self._grant.left(tuple(short))
        nothing = dict.fromkeys(self._parts[0][1], 0)

        # There is too little. What it has read counts all the same: so the rest is taken, and then
        # what is missing is refused.
        if any(amount > left[unit] for unit, amount in short.items()):
            rest = {unit: min(amount, left[unit]) for unit, amount in short.items()}
            self._reserve({**nothing, **rest})
            missing = {unit: amount - rest[unit] for unit, amount in short.items()}
            return self._reserve({**nothing, **missing})

        further = {
            unit: max(amount, min(CHUNK[unit], left[unit] // _PART))
            for unit, amount in short.items()
        }
        return self._reserve({**nothing, **further})

    def _reserve(self, cost: dict[str, int]) -> None:
        """One part, for all that the statement needs together. Raises Denied, which is recorded."""
        after = self._parts[0][0] if self._parts else None
        reserved = self._grant.reserve_all(
            charged_once(self._accesses, cost),
            caller=self._caller,
            after=after,
        )

        self._parts.append((reserved, cost))
        for unit in self._reserved:
            self._reserved[unit] += cost[unit]
