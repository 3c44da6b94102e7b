"""Real servers and real clients of gRPC, called and awaited."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.adapters.over_grpc.test_grpc import RULES, Asking, World, aask, aserving, ask, serving


@pytest.fixture(params=["sync", "aio"])
def calls(request: pytest.FixtureRequest) -> Asking:
    """Calls of one server, each (method, given, options): by a synchronous server and client, then by those of `grpc.aio`."""

    def synchronous(world: World, *asked: tuple[str, Any, dict[str, Any]], rules: Any = RULES, **options: Any) -> list[Any]:
        with serving(world, rules, **options) as target:
            return [ask(target, method, given, **facts) for method, given, facts in asked]

    def asynchronous(world: World, *asked: tuple[str, Any, dict[str, Any]], rules: Any = RULES, **options: Any) -> list[Any]:
        async def run() -> list[Any]:
            async with aserving(world, rules, **options) as target:
                return [await aask(target, method, given, **facts) for method, given, facts in asked]

        return asyncio.run(run())

    return synchronous if request.param == "sync" else asynchronous
