"""What a server is asked for a verifier, and what becomes of the answer: written once, awaited.

A store on a server says what its calls are, sends them, and reads the answers. What is between
stands here: for stores that are awaited, and, made of that, for those that are called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

from captoken.stores._rules import short_debit, step_answer
from captoken.stores.ports import Debit, Forbidden, MarkedStep, Reservation, Spend, Use

# A call of a server, as the store that sends it has it.
Call: TypeAlias = tuple[Any, ...]


class ProofCalls(ABC):
    """The calls of a store of used proofs, whether they are awaited or not."""

    @abstractmethod
    def _add_call(self, use: Use, now: int, *, peek: bool) -> Call:
        """Remember a use; or look what would come of it."""

    @abstractmethod
    def _spend_call(self, spend: Spend, now: int, *, peek: bool) -> Call:
        """Remember the use of a consent; or look what would come of it."""

    @abstractmethod
    def _was_first(self, answer: Any) -> bool:
        """What it answers. Raises StoreError for what is no answer."""


class LedgerCalls(ABC):
    """The calls of a ledger, whether they are awaited or not."""

    # What the server is called in errors.
    _server: ClassVar[str]

    @abstractmethod
    def _reserve_call(self, reservation: Reservation, now: int, *, peek: bool) -> Call:
        """Debit every bucket; or look what would come of it."""

    @abstractmethod
    def _step_call(self, step: MarkedStep, now: int, *, peek: bool) -> Call:
        """Set the marks of a step, and reserve; or look what would come of it."""

    @abstractmethod
    def _settle_call(
        self,
        reservation_id: bytes,
        amounts: Mapping[str, int] | None,
        now: int,
    ) -> Call:
        """Close a reservation. Raises TypeError for what is no amounts."""

    @abstractmethod
    def _spent_call(self, bucket: bytes, unit: str) -> Call:
        """Look at a bucket."""

    @abstractmethod
    def _was_open(self, answer: Any) -> bool:
        """What settling answers. Raises StoreError for what is no answer."""

    @abstractmethod
    def _amount(self, answer: Any) -> int:
        """What a bucket says. Raises StoreError for what is no amount."""


# --- awaited --------------------------------------------------------------------------------------


# awaited: stores.shells
class AsyncProofShell(ProofCalls):
    """Used proofs."""

    @abstractmethod
    async def _send(self, call: Call) -> Any:
        """What the server answers. Raises StoreError."""

    async def add(self, use: Use, now: int) -> bool:
        """True if it is the first use, and above the floor.

        Raises StoreError, also where it is full. A use whose answer is lost is not sent again: the
        second time it would find itself. That is a denial, not an allowance.
        """
        return self._was_first(await self._send(self._add_call(use, now, peek=False)))

    async def peek(self, use: Use, now: int) -> bool:
        """Would `add` return True? Raises StoreError as it does."""
        return self._was_first(await self._send(self._add_call(use, now, peek=True)))

    async def spend(self, spend: Spend, now: int) -> bool:
        """True if it is the first use of a consent, and above the floor. Raises as `add` does."""
        return self._was_first(await self._send(self._spend_call(spend, now, peek=False)))

    async def peek_spend(self, spend: Spend, now: int) -> bool:
        """Would `spend` return True? Raises StoreError as it does."""
        return self._was_first(await self._send(self._spend_call(spend, now, peek=True)))


class AsyncLedgerShell(LedgerCalls):
    """Counts."""

    @abstractmethod
    async def _send(self, call: Call) -> Any:
        """What the server answers. Raises StoreError."""

    async def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """None if every bucket had enough and was debited, else the first that had not.

        Raises StoreError. A reservation has an id, so it may be asked for again.
        """
        answer = await self._send(self._reserve_call(reservation, now, peek=False))
        return short_debit(self._server, answer, reservation)

    async def peek(self, reservation: Reservation, now: int) -> Debit | None:
        """What `reserve` would answer: None, or the first bucket that has not enough.

        Raises StoreError.
        """
        answer = await self._send(self._reserve_call(reservation, now, peek=True))
        return short_debit(self._server, answer, reservation)

    async def settle(
        self,
        reservation_id: bytes,
        amounts: Mapping[str, int] | None,
        now: int,
    ) -> bool:
        """True if the reservation was open: what was not taken of it goes back.

        Raises StoreError.
        """
        return self._was_open(await self._send(self._settle_call(reservation_id, amounts, now)))

    async def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited. Raises StoreError."""
        return self._amount(await self._send(self._spent_call(bucket, unit)))

    async def step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """None if all marks are set and all buckets debited, else what denies it.

        Raises StoreError. A mark is set once, and a reservation has an id, so it may be asked for
        again.
        """
        answer = await self._send(self._step_call(step, now, peek=False))
        return step_answer(self._server, answer, step)

    async def peek_step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """What `step` would answer. Raises StoreError."""
        answer = await self._send(self._step_call(step, now, peek=True))
        return step_answer(self._server, answer, step)


# end: stores.shells


# --- called ---------------------------------------------------------------------------------------


# called: stores.shells, by `python -m tests.called`
class ProofShell(ProofCalls):
    """Used proofs."""

    @abstractmethod
    def _send(self, call: Call) -> Any:
        """What the server answers. Raises StoreError."""

    def add(self, use: Use, now: int) -> bool:
        """True if it is the first use, and above the floor.

        Raises StoreError, also where it is full. A use whose answer is lost is not sent again: the
        second time it would find itself. That is a denial, not an allowance.
        """
        return self._was_first(self._send(self._add_call(use, now, peek=False)))

    def peek(self, use: Use, now: int) -> bool:
        """Would `add` return True? Raises StoreError as it does."""
        return self._was_first(self._send(self._add_call(use, now, peek=True)))

    def spend(self, spend: Spend, now: int) -> bool:
        """True if it is the first use of a consent, and above the floor. Raises as `add` does."""
        return self._was_first(self._send(self._spend_call(spend, now, peek=False)))

    def peek_spend(self, spend: Spend, now: int) -> bool:
        """Would `spend` return True? Raises StoreError as it does."""
        return self._was_first(self._send(self._spend_call(spend, now, peek=True)))


class LedgerShell(LedgerCalls):
    """Counts."""

    @abstractmethod
    def _send(self, call: Call) -> Any:
        """What the server answers. Raises StoreError."""

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """None if every bucket had enough and was debited, else the first that had not.

        Raises StoreError. A reservation has an id, so it may be asked for again.
        """
        answer = self._send(self._reserve_call(reservation, now, peek=False))
        return short_debit(self._server, answer, reservation)

    def peek(self, reservation: Reservation, now: int) -> Debit | None:
        """What `reserve` would answer: None, or the first bucket that has not enough.

        Raises StoreError.
        """
        answer = self._send(self._reserve_call(reservation, now, peek=True))
        return short_debit(self._server, answer, reservation)

    def settle(
        self,
        reservation_id: bytes,
        amounts: Mapping[str, int] | None,
        now: int,
    ) -> bool:
        """True if the reservation was open: what was not taken of it goes back.

        Raises StoreError.
        """
        return self._was_open(self._send(self._settle_call(reservation_id, amounts, now)))

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited. Raises StoreError."""
        return self._amount(self._send(self._spent_call(bucket, unit)))

    def step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """None if all marks are set and all buckets debited, else what denies it.

        Raises StoreError. A mark is set once, and a reservation has an id, so it may be asked for
        again.
        """
        answer = self._send(self._step_call(step, now, peek=False))
        return step_answer(self._server, answer, step)

    def peek_step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """What `step` would answer. Raises StoreError."""
        answer = self._send(self._step_call(step, now, peek=True))
        return step_answer(self._server, answer, step)


# end: stores.shells
