"""What guards and clients take is told where an editor shows it: each argument, and what holds unless it is said."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from captoken.adapters import a2a, asgi, fastapi, fastmcp, grpc, httpx, mcp, mcp_client
from captoken.adapters._grpc.rules import Rules
from captoken.adapters._mcp.gate import Gate

# What is called, and what takes its arguments, where these are handed on.
TOLD: dict[str, tuple[Any, Any]] = {
    "asgi.CaptokenMiddleware": (asgi.CaptokenMiddleware, asgi.CaptokenMiddleware),
    "asgi.Requires": (asgi.Requires, asgi.Requires),
    "fastapi.protect": (fastapi.protect, asgi.CaptokenMiddleware),
    "fastapi.require": (fastapi.require, fastapi.require),
    "httpx.auth": (httpx.auth, httpx.auth),
    "mcp.Guard": (mcp.Guard, Gate),
    "mcp.Guard.challenging": (mcp.Guard.challenging, mcp.Guard.challenging),
    "fastmcp.Guard": (fastmcp.Guard, Gate),
    "fastmcp.Guard.challenging": (fastmcp.Guard.challenging, fastmcp.Guard.challenging),
    "mcp_client.Presenting": (mcp_client.Presenting, mcp_client.Presenting),
    "grpc.Guard": (grpc.Guard, Rules),
    "grpc.AsyncGuard": (grpc.AsyncGuard, Rules),
    "grpc.Presenting": (grpc.Presenting, grpc.Presenting),
    "a2a.admission": (a2a.admission, a2a.admission),
    "a2a.GuardedHandler": (a2a.GuardedHandler, a2a.GuardedHandler),
}


@pytest.mark.parametrize(("shown", "taken"), TOLD.values(), ids=TOLD)
def test_each_argument_is_told_and_what_holds_unless_it_is_said(shown: Any, taken: Any) -> None:
    told = inspect.getdoc(shown) or ""
    parts = [" ".join(part.split()) for part in re.split(r"\n(?=`)", told)]
    for name, parameter in inspect.signature(taken).parameters.items():
        if name in ("self", "app", "client", "channel") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        own = [part for part in parts if f"`{name}`" in part.partition(":")[0] or f"`{name}`" in part.partition(" are ")[0]]
        assert own, name
        if parameter.default is not inspect.Parameter.empty and "of a budget" not in own[0]:
            assert re.search("unless said|left out|Left out|Unless said|instead of", own[0]), name


@pytest.mark.parametrize(("shown", "taken"), TOLD.values(), ids=TOLD)
def test_what_an_editor_shows_refers_to_nothing_that_it_does_not_show(shown: Any, taken: Any) -> None:
    assert not re.search(r"\brules? \d", inspect.getdoc(shown) or "")
