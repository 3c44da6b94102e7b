"""The verifier for asyncio: the same decisions, made in a thread where a store may be waited for.

A verifier that has no ledger, replay store, trail or feed answers in place, in microseconds. A task that is cancelled while
it waits does not take anything back: what was reserved for it counts as spent.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ParamSpec, TypeVar

from captoken._language.access import Access, Caller
from captoken._verification.decision import Decision
from captoken._verification.grant import Grant, Reserved
from captoken._verification.verifier import Verifier
from captoken._writing.token import Token

_P = ParamSpec("_P")
_R = TypeVar("_R")


async def answer(
    verifier: Verifier, call: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs
) -> _R:
    """What `call`, which asks `verifier`, returns: from a thread if that may have to wait."""
    return await to_thread(call, *args, **kwargs) if verifier.waits else call(*args, **kwargs)


class AsyncVerifier:
    """A Verifier whose methods are awaited. Raises and returns what the Verifier does."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def authenticate(
        self, token: str | Token, *, proof: str | None = None, request: bytes | None = None
    ) -> AsyncGrant:
        """The grant of a token, with all checked but an access. Raises Denied."""
        return AsyncGrant(
            await answer(
                self._verifier, self._verifier.authenticate, token, proof=proof, request=request
            )
        )

    async def authorize(
        self,
        token: str | Token,
        access: Access,
        *,
        caller: Caller | None = None,
        proof: str | None = None,
        request: bytes | None = None,
    ) -> AsyncGrant:
        """The grant of a token that permits `access`. Raises Denied, with the decision."""
        call = self._verifier.authorize
        return AsyncGrant(
            await answer(
                self._verifier, call, token, access, caller=caller, proof=proof, request=request
            )
        )

    async def check(
        self,
        token: str | Token,
        access: Access,
        *,
        caller: Caller | None = None,
        proof: str | None = None,
        request: bytes | None = None,
    ) -> Decision:
        """The decision on `access`, true if allowed. Never raises on denial."""
        return await answer(
            self._verifier,
            self._verifier.check,
            token,
            access,
            caller=caller,
            proof=proof,
            request=request,
        )

    async def explain(
        self,
        token: str | Token,
        access: Access,
        *,
        caller: Caller | None = None,
        proof: str | None = None,
        request: bytes | None = None,
    ) -> Decision:
        """The decision that `check` would come to, with nothing committed."""
        call = self._verifier.explain
        return await answer(
            self._verifier, call, token, access, caller=caller, proof=proof, request=request
        )


class AsyncGrant:
    """A Grant whose checks are awaited. `grant` is the plain one: who acts, for whom, and what may be done."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant

    async def authorize(self, access: Access, *, caller: Caller | None = None) -> AsyncGrant:
        """This grant, if it permits `access` now. Raises Denied, with the decision."""
        await answer(self.grant._verifier, self.grant.authorize, access, caller=caller)
        return self

    async def check(self, access: Access, *, caller: Caller | None = None) -> Decision:
        """The decision on `access` now, true if allowed."""
        return await answer(self.grant._verifier, self.grant.check, access, caller=caller)

    async def check_all(
        self, accesses: Sequence[Access], *, caller: Caller | None = None
    ) -> Decision:
        """The decision on what one step needs, all of it together used once."""
        return await answer(self.grant._verifier, self.grant.check_all, accesses, caller=caller)

    async def explain(self, access: Access, *, caller: Caller | None = None) -> Decision:
        """The decision that `check` would come to, with nothing committed."""
        return await answer(self.grant._verifier, self.grant.explain, access, caller=caller)

    async def recheck(
        self, accesses: Iterable[Access] = (), *, caller: Caller | None = None
    ) -> Decision:
        """Whether the grant still stands now, and permits what is under way."""
        return await answer(self.grant._verifier, self.grant.recheck, accesses, caller=caller)

    async def reserve(self, access: Access, *, caller: Caller | None = None) -> AsyncReserved:
        """Permission for one access that is paid for when it is over. Raises Denied."""
        return AsyncReserved(
            await answer(self.grant._verifier, self.grant.reserve, access, caller=caller)
        )


class AsyncReserved:
    """A Reserved that is awaited: `async with` settles it in full at its end, if nothing else was done with it."""

    def __init__(self, reserved: Reserved) -> None:
        self._reserved = reserved

    async def settle(self, cost: Mapping[str, int] | None = None) -> bool:
        """What it cost in fact, by unit; None is all of it. False if too late: all is spent."""
        return await answer(self._reserved._verifier, self._reserved.settle, cost)

    async def cancel(self) -> bool:
        """Nothing was done: all of it goes back. False if too late: all is spent."""
        return await answer(self._reserved._verifier, self._reserved.cancel)

    async def __aenter__(self) -> AsyncReserved:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        await answer(self._reserved._verifier, self._reserved.__exit__, kind, *rest)
