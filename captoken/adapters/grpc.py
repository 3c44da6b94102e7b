"""gRPC: a server accepts a call only if its token permits it; a client presents one with each call.

See docs/rpc.md.

1. The metadata has exactly one `authorization: Bearer …`, spelled like this. The text ends in a
   proof if the token is bound to a key. A call without the field, or with two, is refused like one
   with a forged token.
2. A method without a rule is refused to everybody.
3. A request is decided on before the handler sees it. If a callable judges a client's stream, it
   judges each message, the first before the handler starts. Each message of a stream, in either
   direction, checks again that the grant is valid.
4. A proof covers the method and the request's bytes on the wire. A client's stream has no single
   request to cover, so a token that is bound to a key cannot open one.
5. The handler runs under `current.serving(grant)` only, at each step of a generator too. Tokens
   that the server itself holds are not current. The handler does not see the token. Neither do the
   handlers of public methods, or interceptors after the guard.
6. A client presents what `present()` made, never the token that it holds. It does so only on an
   encrypted channel, unless you say `insecure=True`.
7. A text with a proof can be sent once. If gRPC itself repeats a call, a new text is made, except
   with `insecure=True`, where the text is fixed when the call is made.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import AsyncIterator, Callable, Iterator
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any

from captoken._format.extras import extra

with extra("grpc"):
    import grpc  # type: ignore[import-untyped]

from captoken._format.clocks import Seconds
from captoken.adapters._grpc.calls import AsyncCall, AsyncContext, Call, Context, Rule
from captoken.adapters._grpc.client import Presenter, PresentingMethod, as_is
from captoken.adapters._grpc.credentials import details_without_secrets, request_digest
from captoken.adapters._grpc.handlers import (
    OVER,
    alone,
    awaited_alone,
    behavior_of,
    opened,
    parsed,
    with_behavior,
)
from captoken.adapters._grpc.rules import Rules
from captoken.current import AnyHeld

__all__ = ["AsyncGuard", "Guard", "Presenting", "Rule", "request_digest"]


class Guard(Rules, grpc.ServerInterceptor):  # type: ignore[misc]
    """For `grpc.server(…, interceptors=[Guard(verifier, methods)])`.

    `verifier`: a Verifier of this server; of an AsyncVerifier, it is the plain one that is asked.
    `methods`: what each method needs, by `/package.Service/Method`: an Access, or a function of the
    message that gives one. A method that is left out is refused to everybody, unless it is public.
    `public`: methods that need no token, as a health check. None unless said.
    `caller`: who calls, as the server's own authentication knows it: a function of the servicer
    context. If that is nobody, the call is refused. None unless said: then nobody is compared.
    `cost`: what a call takes of a budget, in the units that its method does not state. A mapping by
    unit, as `{"usd_cents": 2}`, or a function of the message that gives one. None unless said.
    `max_message`: bytes of a message from a client, 256 KiB unless said. A longer one is refused.

    A refusal ends the call: UNAUTHENTICATED, PERMISSION_DENIED or UNAVAILABLE, with a sentence that
    tells a stranger nothing. Does not check what a handler does: it asks `current.grant()` for what
    depends on more than the message, and a Denied that it lets through is the answer.
    """

    def intercept_service(
        self,
        continuation: Callable[[Any], Any],
        handler_call_details: Any,
    ) -> Any:
        """The handler of a method, behind this guard; None for a method that is not served.

        gRPC asks for it with each call. Nothing is decided here: the metadata may be read, but a
        refusal has no context to end yet.
        """
        handler = continuation(details_without_secrets(handler_call_details))  # rule 5
        method = handler_call_details.method
        if handler is None:
            return None
        if method in self._public:
            return opened(handler)
        behavior = behavior_of(handler)

        def one(requests: Any, context: Any) -> Any:
            """Answers with one message."""
            call, given = self._begun(handler, method, requests, context)
            response = call.step(behavior, given, Context(context))
            call.end()
            return response

        def many(requests: Any, context: Any) -> Iterator[Any]:
            """Answers with a stream: each message of it goes out only while the grant stands."""
            call, given = self._begun(handler, method, requests, context)
            responses = iter(call.step(behavior, given, Context(context)))
            try:
                while (response := call.step(next, responses, OVER)) is not OVER:
                    call.stand()
                    yield response
            finally:
                # What a generator does when it is closed is the handler's code too: a client that
                # hangs up must not have it run with what the server holds.
                if hasattr(responses, "close"):
                    alone(responses.close)
            call.end()

        answers = many if handler.response_streaming else one
        return with_behavior(handler, answers, most=self._max_message)

    # called: grpc.begun, by `python -m tests.called`
    def _begun(
        self,
        handler: Any,
        method: str,
        requests: Any,
        context: Any,
    ) -> tuple[Call, Any]:
        """The call, let in, and what its handler is given: the message, or the messages.

        The token is verified first, then what is asked is decided on; bytes that are no message end
        the call in between (rule 3).
        """
        call = Call(context, method)
        face = self._verifier.blocking
        if not handler.request_streaming:
            call.judged = call.ask(self._authenticated(face, context, method, requests))
            message = parsed(handler, requests)
            if message is None:
                call.refuse(None)
            call.ask(call.judged.admit(message))
            return call, message

        call.judged = call.ask(self._authenticated(face, context, method, None))
        if call.judged.by_message:
            call.admit_first(requests)  # rule 3
        else:
            call.ask(call.judged.admit(None))
        return call, call.each(requests)

    # end: grpc.begun


class AsyncGuard(Rules, grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """The same for `grpc.aio.server(…, interceptors=[AsyncGuard(verifier, methods)])`.

    `verifier`: a Verifier or an AsyncVerifier of this server. The handler's grant is that of the
    one that was given: with an AsyncVerifier, its answers are awaited.
    `methods`: what each method needs, by `/package.Service/Method`: an Access, or a function of the
    message that gives one. A method that is left out is refused to everybody, unless it is public.
    `public`: methods that need no token, as a health check. None unless said.
    `caller`: who calls, as the server's own authentication knows it: a function of the servicer
    context. If that is nobody, the call is refused. None unless said: then nobody is compared.
    `cost`: what a call takes of a budget, in the units that its method does not state. A mapping by
    unit, as `{"usd_cents": 2}`, or a function of the message that gives one. None unless said.
    `max_message`: bytes of a message from a client, 256 KiB unless said. A longer one is refused.

    A store is waited for in a thread. A handler that is no `async def` is refused, with
    UNIMPLEMENTED.
    """

    def intercept_service(
        self,
        continuation: Callable[[Any], Any],
        handler_call_details: Any,
    ) -> Any:
        """The same, awaited. A handler is answered for by what kind of function it is.

        Raises TypeError on a synchronous server, to which this guard cannot answer. gRPC logs it,
        and ends the call. It is the first call, since `grpc.server` looks at no interceptor before
        that.
        """
        try:
            get_running_loop()
        except RuntimeError:
            raise TypeError(
                "an AsyncGuard is for grpc.aio.server: give grpc.server a Guard"
            ) from None
        return self._guarded(continuation, handler_call_details)

    async def _guarded(
        self,
        continuation: Callable[[Any], Any],
        handler_call_details: Any,
    ) -> Any:
        handler = await continuation(details_without_secrets(handler_call_details))  # rule 5
        method = handler_call_details.method
        if handler is None:
            return None
        if method in self._public:
            return opened(handler)
        behavior = behavior_of(handler)

        async def one(requests: Any, context: Any) -> Any:
            """Answers with one message, or writes a stream by itself."""
            call, given = await self._begun(handler, method, requests, context)
            response = await call.step(behavior(given, AsyncContext(context, call)))
            await call.end()
            return response

        async def many(requests: Any, context: Any) -> AsyncIterator[Any]:
            """Answers with a stream: each message of it goes out only while the grant stands."""
            call, given = await self._begun(handler, method, requests, context)
            responses = behavior(given, AsyncContext(context, call))
            try:
                while (response := await call.step(anext(responses, OVER))) is not OVER:
                    await call.stand()
                    yield response
            finally:
                # Run the handler's own code with nothing current, as on the synchronous server.
                await awaited_alone(responses.aclose())
            await call.end()

        if handler.response_streaming and isasyncgenfunction(behavior):
            return with_behavior(handler, many, most=self._max_message)
        if iscoroutinefunction(behavior):
            return with_behavior(handler, one, most=self._max_message)
        return with_behavior(handler, _unimplemented)

    # awaited: grpc.begun
    async def _begun(
        self,
        handler: Any,
        method: str,
        requests: Any,
        context: Any,
    ) -> tuple[AsyncCall, Any]:
        """The call, let in, and what its handler is given: the message, or the messages.

        The token is verified first, then what is asked is decided on; bytes that are no message end
        the call in between (rule 3).
        """
        call = AsyncCall(context, method)
        face = self._verifier.awaited
        if not handler.request_streaming:
            call.judged = await call.ask(self._authenticated(face, context, method, requests))
            message = parsed(handler, requests)
            if message is None:
                await call.refuse(None)
            await call.ask(call.judged.admit(message))
            return call, message

        call.judged = await call.ask(self._authenticated(face, context, method, None))
        if call.judged.by_message:
            await call.admit_first(requests)  # rule 3
        else:
            await call.ask(call.judged.admit(None))
        return call, call.each(requests)

    # end: grpc.begun


async def _unimplemented(requests: Any, context: Any) -> None:
    """For a handler that is no coroutine: its steps could not be watched without a thread each."""
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "The method has no asynchronous handler.")


class Presenting:
    """A channel whose every call shows the server `audience` a token: give it to a stub.

        stub = SalesStub(Presenting(channel, audience="sales-db"))

    The channel is a synchronous one, or one of `grpc.aio`. It stays its owner's, to be closed.

    `audience`: the server, by the name that its verifier has.
    `held`: the token. Left out, it is what is current where a call is made.
    `expires_in`: what is presented is good for so long, in seconds or as `5m`; 60 unless said. That
    bounds a stream too.
    `insecure`: True sends the token over any channel: for loopback, or where a mesh encrypts. False
    unless said: then it is call credentials, which gRPC sends over encrypted channels alone.

    What gRPC sends again by its retry policy is presented anew. With `insecure=True` it cannot be:
    under a token that is bound to a key, the second try is refused.

    A call raises NoToken where nothing is held, and what `Held.present` raises. It raises
    ValueError for metadata that has a token already, and for a stream from the client under a token
    that is bound to a key.
    """

    def __init__(
        self,
        channel: Any,
        *,
        audience: str,
        held: AnyHeld | None = None,
        expires_in: Seconds = 60,
        insecure: bool = False,
    ) -> None:
        self._channel = channel
        self._presenter = Presenter(audience, held, expires_in, insecure is True)

    # What a stub asks its channel for. It names its arguments, and may say more than a channel of
    # some version takes: they are passed on as they are.

    def unary_unary(
        self,
        method: str,
        *args: Any,
        **kwargs: Any,
    ) -> PresentingMethod:
        return self._asked_once(self._channel.unary_unary, method, *args, **kwargs)

    def unary_stream(
        self,
        method: str,
        *args: Any,
        **kwargs: Any,
    ) -> PresentingMethod:
        return self._asked_once(self._channel.unary_stream, method, *args, **kwargs)

    def stream_unary(
        self,
        method: str,
        *args: Any,
        **kwargs: Any,
    ) -> PresentingMethod:
        inner = self._channel.stream_unary(method, *args, **kwargs)
        return PresentingMethod(self._presenter, method, inner, None)

    def stream_stream(
        self,
        method: str,
        *args: Any,
        **kwargs: Any,
    ) -> PresentingMethod:
        inner = self._channel.stream_stream(method, *args, **kwargs)
        return PresentingMethod(self._presenter, method, inner, None)

    def _asked_once(
        self,
        make: Callable[..., Any],
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> PresentingMethod:
        """A method of one request.

        Its serializer stays here, so that what a proof covers is what is sent.
        """
        inner = make(method, None, *args, **kwargs)
        return PresentingMethod(self._presenter, method, inner, request_serializer or as_is)

    def __repr__(self) -> str:
        return f"<Presenting to {self._presenter.audience}>"
