"""One gRPC call on its way through a guard: what was permitted so far, and the context that its handler gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn

import grpc  # type: ignore[import-untyped]
from msgspec import structs

from captoken import current
from captoken._language.access import Access, Caller
from captoken._verification.aio import answer
from captoken._verification.decision import Decision, Denied, Grant
from captoken._verification.verifier import Verifier

AUTHORIZATION, PROOF = "authorization", "captoken-proof"
STATUS = {
    "invalid": grpc.StatusCode.UNAUTHENTICATED,
    "proof": grpc.StatusCode.UNAUTHENTICATED,
    "insufficient": grpc.StatusCode.PERMISSION_DENIED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
}


def answered(denied: Denied | None) -> tuple[Any, str]:
    """Status and sentence for a call that ends here: a refusal, or a request that is none."""
    if denied is None:
        return grpc.StatusCode.INVALID_ARGUMENT, "The request cannot be read."
    return STATUS[denied.kind], denied.public


class Judged:
    """A call with its grant and the rule for its method."""

    def __init__(
        self, grant: Grant, rule: Access | Callable[[Any], Access] | None, caller: Caller | None
    ) -> None:
        self.grant, self._rule, self._caller = grant, rule, caller
        self._access: Access | None = None
        self.refused: Denied | None = None

    @property
    def by_message(self) -> bool:
        return self._rule is not None and not isinstance(self._rule, Access)

    def admit(self, message: Any) -> None:
        """Decide on a message, or on a call that is judged without one. Raises Denied."""
        rule, grant, access = self._rule, self.grant, None
        if rule is None:  # rule 2
            self._deny(grant.record(grant.refusal("domain", "no rule names the method")))
        elif isinstance(rule, Access):
            access = rule
        elif message is None:
            self._deny(
                grant.record(
                    grant.refusal(
                        "domain", "the stream ended before a message that could be judged"
                    )
                )
            )
        else:
            with (
                suppress(TypeError, ValueError, LookupError, RecursionError),
                current.nothing(),
                current.serving(grant),
            ):
                access = rule(message)  # which raises where there are no legal names, say
        if not isinstance(access, Access):
            self._deny(grant.record(grant.refusal("domain", "no access that a token can permit")))
        decision = grant.check(access, caller=self._caller)
        if not decision:
            self._deny(decision)
        self._access = access

    def go_on(self, message: Any) -> None:
        """Decide on a further message. Raises Denied."""
        if self.refused is not None:
            raise self.refused
        if self.by_message:
            self.admit(message)
        else:
            self.stand()

    def stand(self) -> None:
        """Whether what was permitted last is permitted still. Raises Denied. Takes nothing of a budget."""
        if self.refused is not None:
            raise self.refused
        assert self._access is not None  # noqa: S101  nothing runs before something was admitted
        decision = self.grant.explain(self._access, caller=self._caller)
        if not decision:
            self._deny(
                self.grant.record(structs.replace(decision, dry=False))
            )  # a denial has nothing to commit

    def _deny(self, decision: Decision) -> NoReturn:
        self.refused = Denied(decision)
        raise self.refused


class Context:
    """The servicer context of a handler: without the token, so that nobody passes on or logs what came in."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> tuple[Any, ...]:
        return tuple(
            pair
            for pair in self._context.invocation_metadata() or ()
            if pair[0] not in (AUTHORIZATION, PROOF)
        )


class AsyncContext(Context):
    """The same of `grpc.aio`; its `read` and `write` ask as the iterators do."""

    def __init__(self, context: Any, verifier: Verifier) -> None:
        super().__init__(context)
        self._verifier = verifier
        self.call: Any = None
        self.first: Any = None

    async def refuse(self, denied: Denied | None) -> NoReturn:
        await self._context.abort(*answered(denied))
        raise AssertionError("a call went on that was ended")

    async def _ask(self, question: Callable[..., None], *args: Any) -> None:
        try:
            await answer(self._verifier, question, *args)
        except Denied as denied:
            refused = denied
        else:
            return
        await self.refuse(refused)

    async def step(self, step: Awaitable[Any]) -> Any:
        """A step of the handler, under its grant (rule 5). A Denied that it lets through is the answer."""
        try:
            with current.nothing(), current.serving(self.call.grant):
                return await step
        except Denied as denied:
            refused = denied
        await self.refuse(refused)

    async def stand(self) -> None:
        await self._ask(self.call.stand)

    async def end(self) -> None:
        """For a handler that caught the refusal of a message and went on."""
        if self.call.refused is not None:
            await self.refuse(self.call.refused)

    def _taken(self) -> Any:
        first, self.first = self.first, None
        return first

    async def each(self, requests: Any) -> AsyncIterator[Any]:
        """The messages of a client, each once it is permitted."""
        first = self._taken()
        if first is not None:
            yield first
        async for message in requests:
            await self._ask(self.call.go_on, message)
            yield message

    async def read(self) -> Any:
        first = self._taken()
        if first is not None:
            return first
        message = await self._context.read()
        if message is not grpc.aio.EOF:  # pyright: ignore
            await self._ask(self.call.go_on, message)
        return message

    async def write(self, message: Any) -> None:
        await self.stand()
        await self._context.write(message)
