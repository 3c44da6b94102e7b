"""A method's handler, taken apart and put together again: what grpc has of four kinds.

A kind says which side sends a stream: `unary_unary`, `unary_stream`, `stream_unary` and
`stream_stream`. Handlers of all kinds have the same fields, and the function under the kind's name.
A server of `grpc.aio` has the same handlers; what its functions are says how they answer.

The rules by number: `captoken.adapters.grpc`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any

from captoken._format.extras import extra

with extra("grpc"):
    import grpc  # type: ignore[import-untyped]

from captoken import current
from captoken._format.spelling import shown
from captoken.adapters._grpc.calls import TOO_LONG, Context

OVER = object()  # what comes after the last message of a stream


def method_name(name: Any) -> str:
    """The name of a method, if it is one. Raises ValueError.

    A name without its service would match no call: a rule for it would guard nothing, in silence.
    """
    if not isinstance(name, str) or not name.startswith("/") or name.count("/") != 2:
        raise ValueError(f"a method must be named /package.Service/Method, not {shown(name)}")
    return name


def _kind(handler: Any) -> str:
    """The handler's kind, which is the name of the field that has its function.

    It is spelled as grpc spells it: what the client sends, then what the server answers.
    """
    asked = "stream" if handler.request_streaming else "unary"
    answered = "stream" if handler.response_streaming else "unary"
    return f"{asked}_{answered}"


def behavior_of(handler: Any) -> Callable[..., Any]:
    """The function that answers: the servicer's method, as its owner wrote it."""
    behavior: Callable[..., Any] = getattr(handler, _kind(handler))
    return behavior


def with_behavior(
    handler: Any,
    behavior: Callable[..., Any],
    parse: Callable[[bytes], Any] | None = None,
    most: int | None = None,
) -> Any:
    """A handler of the same kind that answers by `behavior`.

    A request that is no stream comes to it as the bytes that arrived, which a proof covers (rule
    4); with `parse`, as what that makes of them. Nothing else of the handler changes: what it
    answers is written as it was. `most`: bytes of a message of a stream, where a guard bounds it.
    """
    # No proof covers a stream, whose messages grpc may as well parse itself.
    if handler.request_streaming:
        parse = handler.request_deserializer
        if most is not None:
            parse = partial(_read, parse or bytes, most)
    make = getattr(grpc, f"{_kind(handler)}_rpc_method_handler")
    return make(
        behavior,
        request_deserializer=parse,
        response_serializer=handler.response_serializer,
    )


def _read(parse: Callable[[bytes], Any], most: int, data: bytes) -> Any:
    """A message of a stream; of one that is too long it is told, and nothing read."""
    return TOO_LONG if len(data) > most else parse(data)


def parsed(handler: Any, data: bytes) -> Any:
    """The message, or None for bytes that are none.

    What a parser raises can say what stood in the bytes, and gRPC would tell the client: it goes no
    further. Bytes that a parser makes None of are taken for none, too.
    """
    if handler.request_deserializer is None:
        return data
    try:
        return handler.request_deserializer(data)
    except Exception:  # whatever a parser raises
        return None


def opened(handler: Any) -> Any:
    """The handler of a public method, of either server: with nothing current, and no token seen.

    Nothing is verified for it, and so nothing is granted. A token that came all the same is hidden,
    since its owner did not mean it for this method. The request is parsed by gRPC, as without a
    guard.

    Which of the four answers depends on what kind of function the handler has, and not on the
    server: one of `grpc.aio` takes plain functions too.
    """
    behavior = behavior_of(handler)

    def one(requests: Any, context: Any) -> Any:
        return alone(behavior, requests, Context(context))

    def many(
        requests: Any,
        context: Any,
    ) -> Iterator[Any]:
        # Each step anew: a generator runs in the context of whoever asks it for the next message.
        responses = iter(one(requests, context))
        while (response := alone(next, responses, OVER)) is not OVER:
            yield response

    async def async_one(requests: Any, context: Any) -> Any:
        return await awaited_alone(behavior(requests, Context(context)))

    async def async_many(requests: Any, context: Any) -> AsyncIterator[Any]:
        responses = behavior(requests, Context(context))
        while (response := await awaited_alone(anext(responses, OVER))) is not OVER:
            yield response

    if isasyncgenfunction(behavior):
        return with_behavior(handler, async_many, handler.request_deserializer)
    if iscoroutinefunction(behavior):
        return with_behavior(handler, async_one, handler.request_deserializer)
    plain: Callable[..., Any] = many if handler.response_streaming else one
    return with_behavior(handler, plain, handler.request_deserializer)


def alone(function: Callable[..., Any], *given: Any) -> Any:
    """What a function gives with nothing current (rule 5).

    A server's thread may hold a token of the server's own: a handler that presented it would act as
    the server, for whoever asked.
    """
    with current.nothing():
        return function(*given)


async def awaited_alone(step: Awaitable[Any]) -> Any:
    """The same of what is awaited.

    A call of `grpc.aio` begins with what was current where its server was started.
    """
    with current.nothing():
        return await step
