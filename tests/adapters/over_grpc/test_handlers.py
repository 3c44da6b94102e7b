"""A method's handler behind a guard: it sees its metadata and no token, whatever its kind."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from captoken.adapters.grpc import AsyncGuard, Guard, Presenting
from tests.adapters.over_grpc.test_grpc import (
    HEALTH,
    RULES,
    SALES,
    STATUS,
    Asking,
    World,
    aask,
    ask,
    bound,
    decode,
    encode,
    started,
)
from tests.fixtures import mint


def test_a_handler_sees_its_metadata_but_no_token(calls: Asking) -> None:
    """That `read` finds none is asserted where it runs; here, that it finds the rest."""
    seen: list[Any] = []

    class Seeing(World):
        def handlers(self, aio: bool) -> Any:
            def look(message: Any, context: Any) -> Any:
                seen.append(dict(tuple(pair) for pair in context.invocation_metadata()))
                return [context.peer()]

            async def alook(message: Any, context: Any) -> Any:
                return look(message, context)

            kind = grpc.unary_unary_rpc_method_handler(alook if aio else look, decode, encode)
            return grpc.method_handlers_generic_handler("shop.Sales", {"Read": kind})

    (peer,) = calls(Seeing(), ("Read", SALES, {**bound(), "metadata": (("trace", "7"),)}))
    assert "127.0.0.1" in peer[0] and seen[0]["trace"] == "7"
    assert "authorization" not in seen[0] and "cap1" not in str(seen)


def test_a_request_without_a_serializer_is_bytes() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as plain:
        stub = Presenting(plain, audience="sales-db", held=mint(), insecure=True).unary_unary("/shop.Sales/Read")
        with pytest.raises(TypeError, match="bytes"):
            stub(7)


def test_a_guard_on_a_server_of_the_other_kind_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """grpc.aio looks at its interceptors when it is made, grpc at a call."""

    async def run() -> None:
        with pytest.raises(ValueError, match="ServerInterceptor"):
            grpc.aio.server(interceptors=[Guard(World().verifier, RULES)])

    asyncio.run(run())
    world = World()
    guard = AsyncGuard(world.verifier, RULES, public=HEALTH)
    with started(grpc.server(ThreadPoolExecutor(2), handlers=[world.handlers(False)], interceptors=[guard])) as target:
        for method in ("Read", "Health"):
            assert ask(target, method, SALES, held=mint())[0] == STATUS.UNKNOWN
    assert "give grpc.server a Guard" in caplog.text and world.done == []


def test_a_handler_that_is_not_asynchronous_is_refused_by_the_asynchronous_guard() -> None:
    async def run() -> None:
        world = World()
        server = grpc.aio.server(handlers=[world.handlers(False)], interceptors=[AsyncGuard(world.verifier, RULES)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        said = [await aask(f"127.0.0.1:{port}", m, SALES, held=mint()) for m in ("Read", "Watch")]
        await server.stop(0)
        assert [said[0][0], said[1][-1][0]] == [STATUS.UNIMPLEMENTED] * 2 and world.done == []

    asyncio.run(run())
