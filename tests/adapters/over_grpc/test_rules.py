"""Rules for methods: which are public, what a rule may state, and what it may raise."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from captoken import Access, current
from captoken.adapters.grpc import AsyncGuard, Guard
from tests.adapters.over_grpc.test_grpc import (
    REFUSED,
    SALES,
    SELECT_SALES,
    STATUS,
    TOO_LARGE,
    Asking,
    World,
    current_here,
    decode,
    encode,
)
from tests.fixtures import mint


def test_what_a_rule_states_has_its_bound(calls: Asking) -> None:
    rules = {"/shop.Sales/Read": lambda message: Access(**SALES_ACCESS, attributes={"q": "x" * message["n"]})}
    world = World()
    room = (256 << 10) - 23
    asked = [("Read", {"n": room + more}, {"held": mint()}) for more in (0, 1)]
    within, beyond = calls(world, *asked, rules=rules)
    assert within != TOO_LARGE and beyond == TOO_LARGE


SALES_ACCESS = {"table": "sales", "operation": "select"}


def test_a_public_method_takes_no_token(calls: Asking) -> None:
    assert calls(World(), ("Health", {}, {"presenting": False})) == ["well"]


def test_a_public_method_of_any_kind_sees_no_token(calls: Asking) -> None:
    class Open(World):
        def handlers(self, aio: bool) -> Any:
            def look(given: Any, context: Any) -> Any:
                return [str([tuple(pair) for pair in context.invocation_metadata()]).count("cap1"), current_here()]

            def stream(given: Any, context: Any) -> Iterator[Any]:
                yield look(given, context)

            async def alook(given: Any, context: Any) -> Any:
                return look(given, context)

            async def astream(given: Any, context: Any) -> AsyncIterator[Any]:
                yield look(given, context)

            methods = {
                "Read": grpc.unary_unary_rpc_method_handler(alook if aio else look, decode, encode),
                "Watch": grpc.unary_stream_rpc_method_handler(astream if aio else stream, decode, encode),
                "Load": grpc.stream_unary_rpc_method_handler(alook if aio else look, decode, encode),
                "Chat": grpc.stream_stream_rpc_method_handler(astream if aio else stream, decode, encode),
                "Health": grpc.unary_unary_rpc_method_handler(look, decode, encode),
            }
            return grpc.method_handlers_generic_handler("shop.Sales", methods)

    asked = [("Read", SALES), ("Watch", SALES), ("Load", [SALES]), ("Chat", [SALES]), ("Health", SALES)]
    public = [f"/shop.Sales/{method}" for method, _ in asked]
    with current.use(mint()):
        said = calls(Open(), *((method, given, {}) for method, given in asked), public=public)
    nothing = [0, ["nothing", "nothing"]]
    assert said == [nothing, (nothing,), nothing, (nothing,), nothing]


def test_what_a_rule_raises_beyond_a_bad_name_runs_nothing(calls: Asking, caplog: pytest.LogCaptureFixture) -> None:
    def broken(message: Any) -> Access:
        raise OSError("no directory of tables")

    world = World()
    with caplog.at_level(logging.CRITICAL):
        (said,) = calls(world, ("Read", SALES, {"held": mint()}), rules={"/shop.Sales/Read": broken})
    assert said[0] == STATUS.UNKNOWN and world.done == []
    returns_nothing: Any = lambda message: True  # noqa: E731
    assert calls(world, ("Read", SALES, {"held": mint()}), rules={"/shop.Sales/Read": returns_nothing}) == [
        (STATUS.PERMISSION_DENIED, REFUSED)
    ]


MISUSE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a rule that is none": ({"/shop.Sales/Read": "select"}, {}, "a rule must be"),
    "a method without its service": ({"Read": SELECT_SALES}, {}, "named"),
    "a method without its slash": ({"shop.Sales/Read": SELECT_SALES}, {}, "named"),
    "a text for a list": ({}, {"public": "/shop.Sales/Read"}, "list"),
    "a public pattern": ({}, {"public": ["*"]}, "named"),
}


@pytest.mark.parametrize(("rules", "options", "message"), MISUSE.values(), ids=MISUSE)
@pytest.mark.parametrize("guard", [Guard, AsyncGuard])
def test_misuse_is_told_at_once(rules: Any, options: Any, message: str, guard: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        guard(World().verifier, rules, **options)
