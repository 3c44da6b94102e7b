"""One gRPC call on its way through a guard.

`Judged` is what was decided on it so far. What it takes to decide is written once, as steps that
yield each answer of a verifier or a grant. `Call` and `AsyncCall` go through them for the two
servers: the one has the answer at once, the other awaits it. They end the call where it is refused.
`Context` and `AsyncContext` are what the handler gets to see of it.

The rules by number: `captoken.adapters.grpc`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import suppress
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc  # type: ignore[import-untyped]

from captoken import current
from captoken._language.access import Access, Caller
from captoken._verification.decision import AsyncGrant, Decision, Denied
from captoken.adapters._grpc.credentials import without_secrets
from captoken.current import AnyGrant

_R = TypeVar("_R")

# What it takes to decide: each answer is yielded, and sent back once it is there.
Steps: TypeAlias = Generator[Any, Any, _R]

# What a call of a method is: always the same access, or by its message.
Rule: TypeAlias = "Access | Callable[[Any], Access]"

# The status of a call that is refused, by the kind of the denial (spec 40.8).
STATUS = {
    "invalid": grpc.StatusCode.UNAUTHENTICATED,
    "proof": grpc.StatusCode.UNAUTHENTICATED,
    "insufficient": grpc.StatusCode.PERMISSION_DENIED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
}


def _answer_to(denied: Denied | None) -> tuple[Any, str]:
    """Status and sentence for a call that ends here: a refusal, or a request that is none.

    The sentence is the public one: it tells forged, unknown and revoked apart for nobody.
    """
    if denied is None:
        return grpc.StatusCode.INVALID_ARGUMENT, "The request cannot be read."
    return STATUS[denied.kind], denied.public


def _run(steps: Steps[_R]) -> _R:
    """Go through steps whose answers are there at once."""
    try:
        answer = next(steps)
        while True:
            answer = steps.send(answer)
    except StopIteration as stop:
        result: _R = stop.value
        return result


async def _run_async(steps: Steps[_R]) -> _R:
    """Go through steps whose answers are awaited. What one of them raises ends them all."""
    try:
        pending = next(steps)
        while True:
            pending = steps.send(await pending)
    except StopIteration as stop:
        result: _R = stop.value
        return result


class Judged:
    """A call with its grant and the rule for its method: what was permitted, and what refused.

    Its questions are steps, and raise Denied; the drivers below go through them. A refusal is kept:
    no later message undoes it.
    """

    def __init__(
        self,
        grant: AnyGrant,
        served: AnyGrant,
        rule: Rule | None,
        caller: Caller | None,
    ) -> None:
        """`grant` is the one that is asked here, `served` is the same for the handler."""
        self.served = served
        self.refused: Denied | None = None
        self._grant = grant
        self._rule = rule
        self._caller = caller
        self._access: Access | None = None

    @property
    def by_message(self) -> bool:
        """Does it take a message to say what the call is?"""
        return self._rule is not None and not isinstance(self._rule, Access)

    def admit(self, message: Any) -> Steps[None]:
        """Decide on a message, or on a call that is judged without one. Raises Denied.

        None for a message is a stream that had none.
        """
        if self._rule is None:  # rule 2
            yield from self._refuse("no rule names the method")
        if message is None and self.by_message:
            yield from self._refuse("the stream ended before a message that could be judged")
        access = self._access_of(message)
        if access is None:
            yield from self._refuse("no access that a token can permit")
            return
        decision = yield self._grant.check(access, caller=self._caller)
        if not decision:
            self._deny(decision)
        self._access = access

    def go_on(self, message: Any) -> Steps[None]:
        """Decide on a further message of the client's stream (rule 3). Raises Denied.

        A call that is judged without a message is not charged again for each: it is asked whether
        it stands.
        """
        if self.refused is not None:
            raise self.refused
        if self.by_message:
            yield from self.admit(message)
        else:
            yield from self.stand()

    def stand(self) -> Steps[None]:
        """Whether what was permitted last is permitted still (rule 3). Raises Denied.

        It takes nothing of a budget, and asks no store: what was paid for goes on. A denial is
        recorded, as an end of what was let in.
        """
        if self.refused is not None:
            raise self.refused
        assert self._access is not None  # noqa: S101  nothing runs before something was admitted
        decision = yield self._grant.recheck((self._access,), caller=self._caller)
        if not decision:
            self._deny((yield self._grant.deny(decision)))

    def _access_of(self, message: Any) -> Access | None:
        """What the rule says of a message, or None for what no token can permit.

        A rule raises where there are no legal names, say. It asks the grant, if anything: it holds
        nothing. It is no coroutine, and so asks the plain grant.
        """
        rule = self._rule
        if rule is None or isinstance(rule, Access):
            return rule
        grant = self._grant.blocking if isinstance(self._grant, AsyncGrant) else self._grant
        access: object = None
        with (
            suppress(TypeError, ValueError, LookupError, RecursionError),
            current.nothing(),
            current.serving(grant),
        ):
            access = rule(message)
        return access if isinstance(access, Access) else None

    def _refuse(self, why: str) -> Steps[NoReturn]:
        """Refuse what is no access, with the code `domain`: no token can permit it.

        It is recorded as a denial of the verifier's would be.
        """
        self._deny((yield self._grant.deny("domain", why)))

    def _deny(self, decision: Decision) -> NoReturn:
        self.refused = Denied(decision)
        raise self.refused


class Context:
    """The servicer context of a handler: without the token (rule 5).

    So nobody passes on or logs what came in. Everything else is the server's own context.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> tuple[Any, ...]:
        return without_secrets(self._context.invocation_metadata())


class Call:
    """A call on a synchronous server.

    What is refused ends it: `abort` raises what gRPC raises to unwind the handler, and no method
    here returns after that. A handler that catches it is stopped at its next message, or at its
    `end`.
    """

    judged: Judged  # once it has begun

    def __init__(self, context: Any) -> None:
        self._context = context

    def ask(self, steps: Steps[_R]) -> _R:
        """What steps come to that may be denied.

        A denial is the end of the call: it is answered, and not raised further.
        """
        try:
            return _run(steps)
        except Denied as denied:
            refused = denied
        # Out of the block: what ends a call is no consequence of an exception, and shows none.
        self.refuse(refused)

    def refuse(self, denied: Denied | None) -> NoReturn:
        """End the call: with what a stranger may be told, or since the request is none."""
        self._context.abort(*_answer_to(denied))
        raise AssertionError("a call went on that was ended")

    def step(self, function: Callable[..., Any], *given: Any) -> Any:
        """A step of the handler, which may be all of it, or up to its next message.

        A Denied that it lets through is the answer: so a handler may ask its grant, and not catch
        anything.
        """
        try:
            with current.nothing(), current.serving(self.judged.served):  # rule 5
                return function(*given)
        except Denied as denied:
            refused = denied
        self.refuse(refused)

    def each(self, requests: Iterator[Any]) -> Iterator[Any]:
        """The messages of a client, each once it is permitted (rule 3).

        They are asked about as the handler takes them, and so not before it is ready for the next.
        """
        for message in requests:
            self.ask(self.judged.go_on(message))
            yield message

    def stand(self) -> None:
        """Go on only while the grant stands: before each message of an answer (rule 3)."""
        self.ask(self.judged.stand())

    def end(self) -> None:
        """For a handler that caught the refusal of a message and went on.

        What it returns is not sent.
        """
        if self.judged.refused is not None:
            self.refuse(self.judged.refused)


class AsyncCall:
    """The same on a server of `grpc.aio`: other calls go on while a store is waited for."""

    judged: Judged  # once it has begun

    def __init__(self, context: Any) -> None:
        self._context = context
        self._first: Any = None

    async def ask(self, steps: Steps[_R]) -> _R:
        try:
            return await _run_async(steps)
        except Denied as denied:
            refused = denied
        await self.refuse(refused)

    async def refuse(self, denied: Denied | None) -> NoReturn:
        await self._context.abort(*_answer_to(denied))
        raise AssertionError("a call went on that was ended")

    async def step(self, step: Awaitable[_R]) -> _R:
        try:
            with current.nothing(), current.serving(self.judged.served):  # rule 5
                return await step
        except Denied as denied:
            refused = denied
        await self.refuse(refused)

    async def admit_first(self, requests: Any) -> None:
        """Decide on the first message of a stream, before the handler starts (rule 3).

        It is kept for the handler, which asks for it by an iterator or by `read`.
        """
        self._first = await anext(aiter(requests), None)
        await self.ask(self.judged.admit(self._first))

    async def each(self, requests: Any) -> AsyncIterator[Any]:
        first = self._take_first()
        if first is not None:
            yield first
        async for message in requests:
            await self.ask(self.judged.go_on(message))
            yield message

    async def read(self) -> Any:
        """The next message, once it is permitted, for a handler that reads by itself.

        `grpc.aio.EOF` is no message, and needs no permission.
        """
        first = self._take_first()
        if first is not None:
            return first
        message = await self._context.read()
        if message is not grpc.aio.EOF:  # pyright: ignore
            await self.ask(self.judged.go_on(message))
        return message

    async def stand(self) -> None:
        await self.ask(self.judged.stand())

    async def end(self) -> None:
        if self.judged.refused is not None:
            await self.refuse(self.judged.refused)

    def _take_first(self) -> Any:
        first = self._first
        self._first = None
        return first


class AsyncContext(Context):
    """The same of `grpc.aio`.

    Its `read` and `write` ask as the iterators do: a handler may use either.
    """

    def __init__(self, context: Any, call: AsyncCall) -> None:
        super().__init__(context)
        self._call = call

    async def read(self) -> Any:
        return await self._call.read()

    async def write(self, message: Any) -> None:
        await self._call.stand()
        await self._context.write(message)
