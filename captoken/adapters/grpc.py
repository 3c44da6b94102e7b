"""gRPC: a server lets a call through only if its token permits it; a client shows a token with each call (docs/rpc.md).

1. Metadata: `authorization: Bearer …`, spelled so, exactly once; `captoken-proof` where the token is bound to a key. Without,
   or with two of them, the call is refused like one with a forged token.
2. A method that no rule names is refused to everybody.
3. A request is decided on before the handler sees it. Of a stream from the client that a callable judges, that is each
   message, the first one before the handler starts. Every message of a stream, either way, asks again whether the grant stands.
4. A proof covers method and request, as bytes on the wire. A stream from the client has no request that it could cover, so a
   token that is bound to a key does not open one.
5. The handler runs under `current.serving(grant)` and nothing else, each step of a generator too: what the server itself
   holds is not current. It does not see the token and the proof; no more does the handler of a public method.
6. A client shows what `present()` made, never what it holds, and only on an encrypted channel unless told `insecure=True`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from inspect import isasyncgenfunction, iscoroutinefunction
from itertools import chain
from typing import Any, NoReturn, TypeAlias

import grpc  # type: ignore[import-untyped]

from captoken import current
from captoken import proof as request
from captoken._language.access import Access, Caller
from captoken._verification.aio import answer
from captoken._verification.decision import Denied
from captoken._verification.verifier import Verifier
from captoken._writing.token import Token
from captoken.adapters._grpc.calls import (
    AUTHORIZATION,
    PROOF,
    AsyncContext,
    Context,
    Judged,
    answered,
)
from captoken.current import Held

_log = logging.getLogger("captoken")
_OVER = object()
_UNREADABLE = "-"  # stands for a proof that cannot be one

# What a call of a method is: always the same access, or by its message.
Rule: TypeAlias = "Access | Callable[[Any], Access]"


def request_digest(method: str, message: bytes) -> bytes:
    """The 32 bytes that a proof for one call is about: `/package.Service/Method`, and the request as it travels.

    The audience is in every proof already (spec, "Transports"). Raises TypeError, or ValueError for a method beyond ASCII.
    """
    return request.of_http("POST", "grpc:", method, message)


# --- server ----------------------------------------------------------------------------------------------------------


class _Rules:
    """What the two interceptors share."""

    def __init__(
        self,
        verifier: Verifier,
        methods: Mapping[str, Rule],
        *,
        public: Iterable[str] = (),
        caller: Callable[[Any], Caller | None] | None = None,
    ) -> None:
        """`methods`: by `/package.Service/Method`. `public`: methods that need no token, such as a health check.
        `caller`: who calls, as the server's own authentication knows it, from the servicer context; if that is nobody, or it
        raises, the call is refused."""
        for method, rule in methods.items():
            if not (isinstance(rule, Access) or callable(rule)):
                raise TypeError(
                    f"a rule is an Access, or a callable that returns one, not {type(rule).__name__}"
                )
            _method(method)
        if isinstance(public, str):
            raise TypeError("public is a list of methods, not a str")
        self._verifier, self._methods, self._caller = verifier, dict(methods), caller
        self._public = frozenset(_method(method) for method in public)

    def _begun(self, context: Any, method: str, message: bytes | None) -> Judged:
        """The call with its token verified. Raises Denied. `message` is None where the client sends a stream."""
        shown = [
            (key, value)
            for key, value in context.invocation_metadata() or ()
            if key in (AUTHORIZATION, PROOF)
        ]
        tokens = [value for key, value in shown if key == AUTHORIZATION]
        proofs = [value for key, value in shown if key == PROOF]
        text = tokens[0] if len(tokens) == 1 and isinstance(tokens[0], str) else ""  # rule 1
        text = text.removeprefix("Bearer ") if text.startswith("Bearer ") else ""
        proof = (
            None
            if not proofs
            else proofs[0]
            if len(proofs) == 1 and message is not None
            else _UNREADABLE
        )  # rule 4
        digest = (
            request_digest(method, message) if message is not None and proof is not None else None
        )
        del shown, tokens, proofs
        grant = self._verifier.authenticate(text, proof=proof, request=digest)
        caller = self._known(context) if self._caller else None
        if self._caller and caller is None:
            raise Denied(grant.record(grant.refusal("caller", "the server knows nobody who calls")))
        return Judged(grant, self._methods.get(method), caller)

    def _known(self, context: Any) -> Caller | None:
        try:
            caller = self._caller(context) if self._caller else None
        except Exception as error:  # whatever it is: gRPC would tell the client
            _log.error("who calls is not known: %s", type(error).__name__)
            return None
        return caller if isinstance(caller, Caller) else None


class Guard(_Rules, grpc.ServerInterceptor):  # type: ignore[misc]
    """For `grpc.server(…, interceptors=[Guard(verifier, methods)])`.

    A refusal ends the call: UNAUTHENTICATED, PERMISSION_DENIED or UNAVAILABLE, with a sentence that tells a stranger nothing.
    Does not check what a handler does: it asks `current.grant()` for what depends on more than the message, and a Denied that
    it lets through is the answer.
    """

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        handler, method = continuation(handler_call_details), handler_call_details.method
        if handler is None:
            return None
        if method in self._public:
            return _opened(handler)
        behavior = _behavior(handler)
        if handler.request_streaming:

            def admitted(requests: Any, context: Any) -> tuple[Judged, Any]:
                call = self._begun(context, method, None)
                if call.by_message:  # rule 3
                    requests = iter(requests)
                    first = next(requests, None)
                    call.admit(first)
                    return call, chain((first,), _each(requests, call, context))
                call.admit(None)
                return call, _each(iter(requests), call, context)

        else:

            def admitted(requests: Any, context: Any) -> tuple[Judged, Any]:
                call = self._begun(context, method, requests)
                message = _parsed(handler, requests)
                if message is not None:
                    call.admit(message)
                return call, message

        def begun(requests: Any, context: Any) -> tuple[Judged, Any]:
            refused: Denied | None
            try:
                call, message = admitted(requests, context)
            except Denied as denied:
                refused = denied
            else:
                if message is not None:
                    return call, message
                refused = None
            _abort(context, refused)

        def one(requests: Any, context: Any) -> Any:
            call, message = begun(requests, context)
            context = Context(context)
            response = _step(call, context, behavior, message, context)
            _end(call, context)
            return response

        def many(requests: Any, context: Any) -> Iterator[Any]:
            call, message = begun(requests, context)
            context = Context(context)
            responses = iter(_step(call, context, behavior, message, context))
            try:
                while (response := _step(call, context, next, responses, _OVER)) is not _OVER:
                    _alive(call, context)
                    yield response
            finally:
                if hasattr(responses, "close"):
                    _alone(responses.close)
            _end(call, context)

        return _replaced(handler, many if handler.response_streaming else one)


def _step(call: Judged, context: Any, function: Callable[..., Any], *given: Any) -> Any:
    """Rule 5: a step of the handler, under its grant. A Denied that it lets through is the answer."""
    try:
        with current.nothing(), current.serving(call.grant):
            return function(*given)
    except Denied as denied:
        refused = denied
    _abort(context, refused)


def _each(requests: Iterator[Any], call: Judged, context: Any) -> Iterator[Any]:
    """The messages of a client, each once it is permitted."""
    for message in requests:
        try:
            call.go_on(message)
        except Denied as denied:
            refused = denied
        else:
            yield message
            continue
        _abort(context, refused)


def _alive(call: Judged, context: Any) -> None:
    try:
        call.stand()
    except Denied as denied:
        refused = denied
    else:
        return
    _abort(context, refused)


def _end(call: Judged, context: Any) -> None:
    """For a handler that caught the refusal of a message and went on."""
    if call.refused is not None:
        _abort(context, call.refused)


def _abort(context: Any, denied: Denied | None) -> NoReturn:
    """End the call: with what a stranger may be told, or since the request is none."""
    context.abort(*answered(denied))
    raise AssertionError("a call went on that was ended")


class AsyncGuard(_Rules, grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """The same for `grpc.aio.server(…, interceptors=[AsyncGuard(verifier, methods)])`.

    A store is waited for in a thread. A handler that is no `async def` is refused, with UNIMPLEMENTED.
    """

    async def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        handler, method = await continuation(handler_call_details), handler_call_details.method
        if handler is None:
            return None
        if method in self._public:
            return _opened(handler)
        behavior, verifier = _behavior(handler), self._verifier

        async def begun(requests: Any, context: Any) -> tuple[Any, AsyncContext]:
            guarded = AsyncContext(context, verifier)
            refused: Denied | None
            try:
                if not handler.request_streaming:
                    guarded.call = await answer(verifier, self._begun, context, method, requests)
                    message = _parsed(handler, requests)
                    if message is not None:
                        await answer(verifier, guarded.call.admit, message)
                        return message, guarded
                else:
                    guarded.call = await answer(verifier, self._begun, context, method, None)
                    if guarded.call.by_message:
                        guarded.first = await anext(aiter(requests), None)  # rule 3
                        await answer(verifier, guarded.call.admit, guarded.first)
                    else:
                        await answer(verifier, guarded.call.admit, None)
                    return guarded.each(requests), guarded
            except Denied as denied:
                refused = denied
            else:
                refused = None
            await guarded.refuse(refused)

        async def one(requests: Any, context: Any) -> Any:
            given = await begun(requests, context)
            response = await given[1].step(behavior(*given))
            await given[1].end()
            return response

        async def many(requests: Any, context: Any) -> AsyncIterator[Any]:
            given = await begun(requests, context)
            responses = behavior(*given)
            try:
                while (response := await given[1].step(anext(responses, _OVER))) is not _OVER:
                    await given[1].stand()
                    yield response
            finally:
                await _awaited(responses.aclose())
            await given[1].end()

        async def none(requests: Any, context: Any) -> None:
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED, "The method has no asynchronous handler."
            )

        if handler.response_streaming and isasyncgenfunction(behavior):
            return _replaced(handler, many)
        return _replaced(handler, one if iscoroutinefunction(behavior) else none)


def _alone(function: Callable[..., Any], *given: Any) -> Any:
    with current.nothing():
        return function(*given)


async def _awaited(step: Awaitable[Any]) -> Any:
    with current.nothing():
        return await step


def _opened(handler: Any) -> Any:
    """The handler of a public method, for either server: with nothing current, and no token to be seen."""
    behavior = _behavior(handler)

    def one(requests: Any, context: Any) -> Any:
        return _alone(behavior, requests, Context(context))

    def many(requests: Any, context: Any) -> Iterator[Any]:
        responses = iter(one(requests, context))
        while (response := _alone(next, responses, _OVER)) is not _OVER:
            yield response

    async def async_one(requests: Any, context: Any) -> Any:
        return await _awaited(behavior(requests, Context(context)))

    async def async_many(requests: Any, context: Any) -> AsyncIterator[Any]:
        responses = behavior(requests, Context(context))
        while (response := await _awaited(anext(responses, _OVER))) is not _OVER:
            yield response

    opened: Callable[..., Any] = many if handler.response_streaming else one
    if isasyncgenfunction(behavior) or iscoroutinefunction(behavior):
        opened = async_many if isasyncgenfunction(behavior) else async_one
    return _replaced(handler, opened, handler.request_deserializer)


def _method(name: Any) -> str:
    if not isinstance(name, str) or not name.startswith("/") or name.count("/") != 2:
        raise ValueError("a method is named /package.Service/Method")
    return name


def _kind(handler: Any) -> str:
    return f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"


def _behavior(handler: Any) -> Callable[..., Any]:
    behavior: Callable[..., Any] = getattr(handler, _kind(handler))
    return behavior


def _replaced(
    handler: Any, behavior: Callable[..., Any], parse: Callable[[bytes], Any] | None = None
) -> Any:
    """A handler of the same kind. A request that is no stream comes as the bytes that arrived (rule 4), unless to `parse`."""
    parse = handler.request_deserializer if handler.request_streaming else parse
    make = getattr(grpc, f"{_kind(handler)}_rpc_method_handler")
    return make(
        behavior, request_deserializer=parse, response_serializer=handler.response_serializer
    )


def _parsed(handler: Any, data: bytes) -> Any:
    """The message, or None for bytes that are none."""
    if handler.request_deserializer is None:
        return data
    try:
        return handler.request_deserializer(data)
    except Exception:  # whatever a parser raises
        return None


# --- client ----------------------------------------------------------------------------------------------------------


class Presenting:
    """A channel, synchronous or of `grpc.aio`, whose every call shows the server `audience` a token: give it to a stub.

        stub = SalesStub(Presenting(channel, audience="sales-db"))

    The token is `held`, or else what is current where the call is made; it is sent as call credentials, which gRPC refuses
    to send unless the channel is encrypted. `insecure=True` sends it over any channel: for loopback, or where a mesh
    encrypts. `expires_in` is in seconds and bounds a stream too. The channel itself stays its owner's, to be closed.

    A call raises NoToken where nothing is held, what `Held.present` raises, and ValueError for metadata that has a token
    already and for a stream from the client under a token that is bound to a key.
    """

    def __init__(
        self,
        channel: Any,
        *,
        audience: str,
        held: Held | Token | None = None,
        expires_in: int = 60,
        insecure: bool = False,
    ) -> None:
        self._channel, self._audience, self._held = channel, audience, held
        self._expires_in, self._insecure = expires_in, insecure is True

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> _Call:
        return self._call(self._channel.unary_unary, method, args, kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> _Call:
        return self._call(self._channel.unary_stream, method, args, kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> _Call:
        return _Call(self, method, self._channel.stream_unary(method, *args, **kwargs), None)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> _Call:
        return _Call(self, method, self._channel.stream_stream(method, *args, **kwargs), None)

    def _call(self, make: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
        """The serializer stays here, so that what a proof covers is what is sent."""
        serialize = args[0] if args else kwargs.pop("request_serializer", None)
        return _Call(self, method, make(method, None, *args[1:], **kwargs), serialize or _as_is)

    def _shown(self, method: str, message: bytes | None) -> list[tuple[str, str]]:
        held = current.holding(self._held)
        if message is None and held.token.unverified.key is not None:
            raise ValueError(
                "a token that is bound to a key opens no stream from the client: a proof would cover no message"
            )
        digest = request_digest(method, message) if message is not None else None
        shown = held.present(audience=self._audience, request=digest, expires_in=self._expires_in)
        proof = [(PROOF, shown.proof)] if shown.proof is not None else []
        return [(AUTHORIZATION, f"Bearer {shown.text}"), *proof]

    def __repr__(self) -> str:
        return f"<Presenting to {self._audience}>"


class _Call:
    """One method of a stub: a multi-callable that shows a token."""

    def __init__(
        self,
        presenting: Presenting,
        method: str,
        inner: Any,
        serialize: Callable[[Any], bytes] | None,
    ) -> None:
        self._presenting, self._method, self._inner, self._serialize = (
            presenting,
            method,
            inner,
            serialize,
        )

    def __call__(
        self,
        request: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        **options: Any,
    ) -> Any:
        return self._with(self._inner, request, timeout, metadata, options)

    def with_call(
        self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any
    ) -> Any:
        return self._with(self._inner.with_call, request, timeout, metadata, options)

    def future(
        self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any
    ) -> Any:
        return self._with(self._inner.future, request, timeout, metadata, options)

    def _with(
        self, call: Any, given: Any, timeout: float | None, metadata: Any, options: dict[str, Any]
    ) -> Any:
        theirs: Iterable[tuple[str, Any]] = () if metadata is None else metadata
        own = tuple(theirs)
        if any(key.lower() in (AUTHORIZATION, PROOF) for key, _ in own):
            raise ValueError("the metadata has a token already")
        message = self._serialize(given) if self._serialize is not None else None
        shown = self._presenting._shown(self._method, message)
        if self._presenting._insecure:
            own = (*own, *shown)
        else:
            ours = grpc.metadata_call_credentials(_Plugin(shown))
            other = options.get("credentials")
            composite: Any = grpc.composite_call_credentials
            options["credentials"] = ours if other is None else composite(other, ours)
        return call(given if message is None else message, timeout=timeout, metadata=own, **options)


def _as_is(given: Any) -> bytes:
    if type(given) is not bytes:
        raise TypeError(f"a request without a serializer is bytes, not {type(given).__name__}")
    return given


class _Plugin(grpc.AuthMetadataPlugin):  # type: ignore[misc]
    """Rule 6: what gRPC adds to one call, if its channel is encrypted."""

    def __init__(self, shown: list[tuple[str, str]]) -> None:
        self._shown = shown

    def __call__(self, context: Any, callback: Any) -> None:
        callback(tuple(self._shown), None)
