"""One gRPC call on its way through a guard.

`Judged` is what was decided on it so far. What it takes to decide is written once, as steps that
yield each answer of a verifier or a grant. `Call` and `AsyncCall` go through them for the two
servers: the one has the answer at once, the other awaits it. They end the call where it is refused.
`Context` and `AsyncContext` are what the handler gets to see of it.

A call goes like this, whichever server it comes to:

1. its token is verified (`Rules` in `_grpc/rules.py` makes a `Judged` of it);
2. `Judged.admit` decides on its message, or on its first one; then the handler starts;
3. `Judged.go_on` decides on each further message that the client sends;
4. `Judged.stand` is asked before each message that the handler sends;
5. `end` sees to it that a handler which has caught a refusal does not answer all the same.

Of a stream of two messages, by a token that permits the first one alone:

    admit(first)      check: allowed, charged, recorded     the handler starts
    stand             recheck: stands                       its answer to the first one is sent
    go_on(second)     check: denied, recorded               PERMISSION_DENIED; the handler unwinds
    end               refused before                        what it returns all the same is not sent

The rules by number: `captoken.adapters.grpc`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import suppress
from typing import Any, NoReturn, TypeAlias, TypeVar

from captoken._format.extras import extra

with extra("grpc"):
    import grpc  # type: ignore[import-untyped]

from captoken import current
from captoken._format.errors import StatementError
from captoken._language.access import Access, Caller
from captoken._language.bounds import TOO_LARGE, is_bounded
from captoken._verification.decision import Decision, Denied
from captoken._verification.telling import answering
from captoken.adapters._grpc.credentials import without_secrets
from captoken.current import AnyGrant

_R = TypeVar("_R")

# What stands in the place of a message that is longer than the guard reads.
TOO_LONG = object()

# What it takes to decide: each answer is yielded, and sent back once it is there.
Steps: TypeAlias = Generator[Any, Any, _R]

# A call of a method: always the same access, or by its message.
Rule: TypeAlias = "Access | Callable[[Any], Access]"

# The status of a call that is refused, by the kind of the denial (spec 40.8).
STATUS = {
    "invalid": grpc.StatusCode.UNAUTHENTICATED,
    "proof": grpc.StatusCode.UNAUTHENTICATED,
    "insufficient": grpc.StatusCode.PERMISSION_DENIED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
}


# Of a request for a consent. All of a call's metadata is 8 KiB by default, in base64.
_ROOM = 4096


def _answer_to(refused: Denied | StatementError | None) -> tuple[Any, str]:
    """Status and sentence for a call that ends here: a refusal, or a request that is none.

    The sentence is the public one: it tells forged, unknown and revoked apart for nobody.
    """
    if refused is None:
        return grpc.StatusCode.INVALID_ARGUMENT, "The request cannot be read."
    if isinstance(refused, StatementError):
        return grpc.StatusCode.INVALID_ARGUMENT, refused.for_model()

    status = STATUS[refused.kind]
    return status, refused.public


def _number(context: Any, refused: Denied | StatementError | None) -> None:
    """Let a call that is refused say the id of the decision, beside its status.

    And what to ask a person, where a consent would do: as bytes, of which metadata takes few.
    """
    if not isinstance(refused, Denied) or not refused.decision.id:
        return
    told: list[tuple[str, str | bytes]] = [("captoken-decision", refused.decision.id)]
    asked = (refused.decision.request() or "").encode()
    if 0 < len(asked) <= _ROOM:
        told.append(("captoken-consent-request-bin", asked))
    context.set_trailing_metadata(tuple(told))


def _run(steps: Steps[_R]) -> _R:
    """Go through steps whose answers are there at once: a Verifier's, and those of its grants.

    What the steps raise, a Denied above all, leaves here as it is.
    """
    try:
        answer = next(steps)
        while True:
            # What was yielded is the answer itself, so that it goes back as it is.
            answer = steps.send(answer)
    except StopIteration as stop:
        result: _R = stop.value
        return result


async def _run_async(steps: Steps[_R]) -> _R:
    """Go through steps whose answers are awaited: an AsyncVerifier's, and those of its grants.

    What an answer raises ends the steps as well: none of them catches anything.
    """
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
        """`grant` is the one that is asked here: an AsyncGrant where the steps are awaited.

        `served` is the same grant for the handler, of the face that the owner's verifier has.
        `rule` is None for a method that none names, `caller` where the server says nothing of it.
        """
        self.served = served

        # The first refusal. Nothing is permitted after it.
        self.refused: Denied | None = None

        self._grant = grant
        self._rule = rule
        self._caller = caller

        # What was permitted last.
        self._access: Access | None = None

    @property
    def by_message(self) -> bool:
        """Does it take a message to say what the call is?

        Not where the rule is one access for all calls, nor where there is no rule.
        """
        if self._rule is None:
            return False
        return not isinstance(self._rule, Access)

    def admit(self, message: Any) -> Steps[None]:
        """Decide on a message, or on a call that is judged without one. Raises Denied.

        None for a message is a stream that had none. A budget is charged here, and the decision
        recorded: once for each message that is judged.
        """
        if message is TOO_LONG:
            yield from self._refuse(*TOO_LARGE)
        # Not open by mistake: a method that is added to a service has no rule yet (rule 2).
        if self._rule is None:
            yield from self._refuse("domain", "no rule names the method")

        # The handler of such a stream would start with nothing that was ever permitted.
        if message is None and self.by_message:
            why = "the stream ended before a message that could be judged"
            yield from self._refuse("domain", why)

        access = self._access_of(message)
        if access is None:
            yield from self._refuse("domain", "no access that a token can permit")
            return  # for type checkers: `_refuse` raises
        if not is_bounded(access):
            yield from self._refuse(*TOO_LARGE)

        decision = yield self._grant.check(
            access,
            caller=self._caller,
        )
        if not decision:
            self._deny(decision)
        self._access = access

    def go_on(self, message: Any) -> Steps[None]:
        """Decide on a further message of the client's stream (rule 3). Raises Denied.

        A call that is judged without a message is not charged again for each: it is asked whether
        it stands.
        """
        # A handler may have caught the refusal, and asked for the next message.
        if self.refused is not None:
            raise self.refused

        if self.by_message or message is TOO_LONG:
            yield from self.admit(message)
        else:
            yield from self.stand()

    def stand(self) -> Steps[None]:
        """Whether what was permitted last is permitted still (rule 3). Raises Denied.

        It looks at the clock, the overlay and who calls. It takes nothing of a budget and asks no
        store: else a call that has used up its only use would be refused its own answer. A denial
        is recorded, as an end of what was let in.
        """
        if self.refused is not None:
            raise self.refused

        # Nothing runs before something was admitted.
        assert self._access is not None  # noqa: S101
        decision = yield self._grant.recheck(
            (self._access,),
            caller=self._caller,
            under_way=True,
        )
        if not decision:
            recorded = yield self._grant.deny(decision)
            self._deny(recorded)

    def _access_of(self, message: Any) -> Access | None:
        """What the rule says of a message, or None for what no token can permit.

        A rule raises where there are no legal names, say: what a client sends can bring that about,
        and so it is a refusal and no error of the server's. Whatever else it raises passes through:
        the call ends, and the handler does not run.

        A rule asks the grant, if anything: it holds nothing. It is no coroutine, and so it is the
        plain grant that is current.
        """
        rule = self._rule
        if rule is None or isinstance(rule, Access):
            return rule

        grant = self._grant.blocking
        access: object = None
        with (
            suppress(TypeError, ValueError, LookupError, RecursionError),
            current.nothing(),
            current.serving(grant),
        ):
            access = rule(message)
        # What is no Access permits nothing: True, above all, is not a yes.
        return access if isinstance(access, Access) else None

    def _refuse(self, code: str, why: str) -> Steps[NoReturn]:
        """Refuse what is no access (`domain`), or too much of one: no token can permit it.

        It is recorded as a denial of the verifier's would be.
        """
        recorded = yield self._grant.deny(code, why)
        self._deny(recorded)

    def _deny(self, decision: Decision) -> NoReturn:
        """Raise a recorded denial, and keep it for the call's answer.

        Kept before it is raised: whoever catches it on the way up does not undo it.
        """
        denied = Denied(decision)
        self.refused = denied
        raise denied


class Context:
    """The servicer context of a handler: without the token (rule 5).

    So nobody passes on or logs what came in (spec 40.9). Everything else is the server's own
    context.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        """Look up everything else in gRPC's own context: `abort`, `peer`, `set_trailing_metadata`,
        …
        """
        return getattr(self._context, name)

    def invocation_metadata(self) -> tuple[Any, ...]:
        """What the client sent beside its messages, but for the token."""
        return without_secrets(self._context.invocation_metadata())


class Call:
    """A call on a synchronous server.

    What is refused ends it: `abort` raises what gRPC raises to unwind the handler, and no method
    here returns after that. A handler that catches it is stopped at its next message, or at its
    `end`.
    """

    # What was decided on it, once it has begun.
    judged: Judged

    # called: grpc, by `python -m tests.called`
    def __init__(self, context: Any, method: str) -> None:
        self._context = context
        self._method = method

        # A message that was judged, and that the handler has not yet taken.
        self._first: Any = None

    def ask(self, steps: Steps[_R]) -> _R:
        """What steps come to that may be denied.

        A denial is the end of the call: it is answered, and not raised further.
        """
        try:
            with answering(lambda: self._method):
                return _run(steps)
        except Denied as denied:
            refused = denied

        # Out of the block: what ends a call is no consequence of an exception, and shows none.
        self.refuse(refused)

    def refuse(self, refused: Denied | StatementError | None) -> NoReturn:
        """End the call: with what a stranger may be told, or since the request is none."""
        status, sentence = _answer_to(refused)
        _number(self._context, refused)
        self._context.abort(status, sentence)
        # A context that does not raise would let the handler run. This ends the call as well.
        raise AssertionError("a call continued after it was ended")

    def stand(self) -> None:
        """Go on only while the grant stands: before each message of an answer (rule 3)."""
        self.ask(self.judged.stand())

    def end(self) -> None:
        """For a handler that caught the refusal of a message and went on.

        What it returns is not sent.
        """
        if self.judged.refused is not None:
            self.refuse(self.judged.refused)

    def admit_first(self, requests: Any) -> None:
        """Decide on the first message of a stream, before the handler starts (rule 3).

        It is kept for the handler, which asks for it by an iterator or by `read`.
        """
        # None for a stream that ends at once: `admit` refuses it where a message has to be judged.
        self._first = next(iter(requests), None)
        self.ask(self.judged.admit(self._first))

    def each(self, requests: Any) -> Iterator[Any]:
        """The messages of a client, each once it is permitted (rule 3).

        The first one was judged before the handler started, and is not judged, nor charged, again.
        """
        first = self._take_first()
        if first is not None:
            yield first

        for message in requests:
            self.ask(self.judged.go_on(message))
            yield message

    def _take_first(self) -> Any:
        """The first message, which was judged before the handler started; None from then on.

        Whichever way the handler reads, it gets it once.
        """
        first = self._first
        self._first = None
        return first

    # end: grpc

    def step(self, function: Callable[..., Any], *given: Any) -> Any:
        """A step of the handler, which may be all of it, or up to its next message.

        It runs under the grant and holds nothing, not even what the server holds (rule 5). A Denied
        that it lets through is the answer: so a handler may ask its grant, and not catch anything.
        """
        try:
            here = answering(lambda: self._method)
            with here, current.nothing(), current.serving(self.judged.served):
                return function(*given)
        except (Denied, StatementError) as raised:
            refused = raised
        self.refuse(refused)


class AsyncCall:
    """A call on a server of `grpc.aio`: others go on while a store is waited for.

    Its methods do what those of `Call` do. Beside them it has what a handler of `grpc.aio` may do
    in place of an iterator: read by itself.
    """

    # What was decided on it, once it has begun.
    judged: Judged

    # awaited: grpc
    def __init__(self, context: Any, method: str) -> None:
        self._context = context
        self._method = method

        # A message that was judged, and that the handler has not yet taken.
        self._first: Any = None

    async def ask(self, steps: Steps[_R]) -> _R:
        """What steps come to that may be denied.

        A denial is the end of the call: it is answered, and not raised further.
        """
        try:
            with answering(lambda: self._method):
                return await _run_async(steps)
        except Denied as denied:
            refused = denied

        # Out of the block: what ends a call is no consequence of an exception, and shows none.
        await self.refuse(refused)

    async def refuse(self, refused: Denied | StatementError | None) -> NoReturn:
        """End the call: with what a stranger may be told, or since the request is none."""
        status, sentence = _answer_to(refused)
        _number(self._context, refused)
        await self._context.abort(status, sentence)
        # A context that does not raise would let the handler run. This ends the call as well.
        raise AssertionError("a call continued after it was ended")

    async def stand(self) -> None:
        """Go on only while the grant stands: before each message of an answer (rule 3)."""
        await self.ask(self.judged.stand())

    async def end(self) -> None:
        """For a handler that caught the refusal of a message and went on.

        What it returns is not sent.
        """
        if self.judged.refused is not None:
            await self.refuse(self.judged.refused)

    async def admit_first(self, requests: Any) -> None:
        """Decide on the first message of a stream, before the handler starts (rule 3).

        It is kept for the handler, which asks for it by an iterator or by `read`.
        """
        # None for a stream that ends at once: `admit` refuses it where a message has to be judged.
        self._first = await anext(aiter(requests), None)
        await self.ask(self.judged.admit(self._first))

    async def each(self, requests: Any) -> AsyncIterator[Any]:
        """The messages of a client, each once it is permitted (rule 3).

        The first one was judged before the handler started, and is not judged, nor charged, again.
        """
        first = self._take_first()
        if first is not None:
            yield first

        async for message in requests:
            await self.ask(self.judged.go_on(message))
            yield message

    def _take_first(self) -> Any:
        """The first message, which was judged before the handler started; None from then on.

        Whichever way the handler reads, it gets it once.
        """
        first = self._first
        self._first = None
        return first

    # end: grpc

    async def step(self, step: Awaitable[_R]) -> _R:
        """A step of the handler, under the grant and nothing else (rule 5).

        A call of `grpc.aio` runs in the context in which its server was started, with whatever was
        current there: so `nothing` has to be said at each step.
        """
        try:
            here = answering(lambda: self._method)
            with here, current.nothing(), current.serving(self.judged.served):
                return await step
        except (Denied, StatementError) as raised:
            refused = raised
        await self.refuse(refused)

    async def read(self) -> Any:
        """The next message, once it is permitted, for a handler that reads by itself.

        `grpc.aio.EOF` is no message, and needs no permission.
        """
        first = self._take_first()
        if first is not None:
            return first

        message = await self._context.read()
        is_end = message is grpc.aio.EOF  # pyright: ignore
        if not is_end:
            await self.ask(self.judged.go_on(message))
        return message


class AsyncContext(Context):
    """The context of a handler of `grpc.aio`.

    Its `read` and `write` ask as the iterators do: a handler may use either. Those of the server's
    own context would go past the guard.
    """

    def __init__(self, context: Any, call: AsyncCall) -> None:
        super().__init__(context)
        self._call = call

    async def read(self) -> Any:
        """The next message of the client, once it is permitted."""
        return await self._call.read()

    async def write(self, message: Any) -> None:
        """Send a message, if the grant still stands.

        It is asked before each: a stream can outlive the token that it was opened with.
        """
        await self._call.stand()
        await self._context.write(message)
