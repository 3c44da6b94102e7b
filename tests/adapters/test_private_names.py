"""What the adapters read of a framework without a public word for it: each has to be there, or what it is for says so.

A version that has one no longer fails here by its name, before somebody has to find out why a guard refuses or overlooks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from agents import function_tool
from fastapi import APIRouter, Depends, FastAPI, routing
from fastmcp import FastMCP
from fastmcp.server.dependencies import FastMCPRequestContext
from langgraph.graph import START, MessagesState, StateGraph
from starlette.routing import Mount

from captoken.adapters._http import routes
from captoken.adapters._postgres import grammar


def route() -> Any:
    app = FastAPI()
    app.get("/x", dependencies=[Depends(lambda: None)])(lambda: "x")
    return app.router.routes[-1]


def included() -> Any:
    app, router = FastAPI(), APIRouter()
    router.get("/x")(lambda: "x")
    app.include_router(router)
    return app.router.routes[-1]


# A dataclass: its fields have no value before there is a request.
REQUEST = type("Request", (), dict.fromkeys(FastMCPRequestContext.__dataclass_fields__))

def configured() -> dict[str, Any]:
    """The configuration of a step of a graph."""
    seen: list[dict[str, Any]] = []
    graph = StateGraph(MessagesState).add_node("one", lambda state, config: seen.append(config)).add_edge(START, "one").compile()
    graph.invoke({"messages": []})
    return seen[0]


def has(names: dict[str, Any]) -> Any:
    """Members of a mapping, as attributes."""
    return type("Members", (), names)


# By the name: what has it, and what goes wrong without.
NAMES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "fastapi: dependant": (route, "dependant", "every route requires nothing: no application starts"),
    "fastapi: dependencies": (route, "dependencies", "`granted` beside an endpoint counts as in its signature"),
    "fastapi: dependency_overrides_provider": (
        route, "dependency_overrides_provider", "what is overridden counts as asked for",
    ),
    "fastapi: dependency_overrides": (FastAPI, "dependency_overrides", "what is overridden counts as asked for"),
    "fastapi: iter_route_contexts": (lambda: routing, "iter_route_contexts", "what a router adds is not seen"),
    "fastapi: original_router": (included, "original_router", "a route that is added to it later is not seen"),
    "fastapi: _iter_low_priority_routes": (APIRouter, "_iter_low_priority_routes", "front ends are not seen"),
    "fastapi: _low_priority_routes": (APIRouter, "_low_priority_routes", "a front end that is added later is not seen"),
    "starlette: _base_app": (lambda: Mount("/x", app=FastAPI()), "_base_app", "what is mounted behind middleware is not looked into"),
    "starlette: Router.default": (APIRouter, "default", "a default of an owner's is not seen"),
    "fastmcp: _srctx": (lambda: REQUEST, "_srctx", "nothing is answered: the SDK's own request below it is not found"),
    "fastmcp: _mcp_server": (lambda: FastMCP("x"), "_mcp_server", "answers stay in caches for everybody"),
    "langgraph: langgraph_path": (
        lambda: has(configured()["metadata"]), "langgraph_path", "no call of `create_agent` waits for a consent: the guard says so",
    ),
    "langgraph: __pregel_scratchpad": (
        lambda: has(configured()["configurable"]), "__pregel_scratchpad", "a no is not heard by a call that has a consent",
    ),
    "langgraph: resume": (lambda: configured()["configurable"]["__pregel_scratchpad"], "resume", "every graph with pause=True raises"),
    "langgraph: get_null_resume": (
        lambda: configured()["configurable"]["__pregel_scratchpad"], "get_null_resume", "every graph with pause=True raises",
    ),
    "openai-agents: _agent_instance": (
        lambda: has(vars(function_tool(lambda: None, name_override="x"))), "_agent_instance", "no agent with tools is guarded: it raises",
    ),
    # The library in its wheel, which is asked without the package around it.
    "postgast: pg_query_parse": (lambda: grammar._LIBRARY, "pg_query_parse", "no statement is read"),
    "postgast: pg_query_scan": (lambda: grammar._LIBRARY, "pg_query_scan", "no long statement is read"),
}  # fmt: skip


@pytest.mark.parametrize(("made", "name", "without"), NAMES.values(), ids=NAMES)
def test_what_is_read_of_a_framework_is_there(made: Callable[[], Any], name: str, without: str) -> None:
    assert hasattr(made(), name), without


class Newer:
    """A FastAPI that has front ends, and keeps them elsewhere."""

    def frontend(self) -> None: ...


def test_a_fastapi_that_keeps_its_front_ends_elsewhere_is_refused() -> None:
    with pytest.raises(ImportError, match="front ends"):
        routes.refuse_unknown(Newer)
    routes.refuse_unknown(object)  # an older one, which has none
    routes.refuse_unknown(APIRouter)
