"""What a FastAPI application serves, whatever the version of FastAPI that it is built with.

Routes are read by the attributes that they have, since newer versions wrap them and keep some of
them apart. All of that reading is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from fastapi import routing
from starlette.applications import Starlette
from starlette.routing import Router

# Newer FastAPI: the routes of a router with those that it includes.
_in_context: Callable[[Iterable[Any]], Iterable[Any]] = getattr(
    routing, "iter_route_contexts", iter
)


class Served(NamedTuple):
    """One thing that is served: a route, a mount, or a router with what it falls back to."""

    path: str
    route: Any

    @property
    def methods(self) -> frozenset[str]:
        """The methods of HTTP that it answers; empty for a mount or a websocket."""
        return frozenset(getattr(self.route, "methods", None) or ())

    @property
    def below(self) -> Any:
        """The application that is mounted here, or None."""
        return _mounted_at(self.route)

    @property
    def is_looked_into(self) -> bool:
        """Whether the routes below this mount are listed by themselves."""
        return isinstance(self.below, (Starlette, Router))

    @property
    def has_own_default(self) -> bool:
        """For a router: whether it answers what no route matches, by something of its own."""
        return getattr(self.route.default, "__func__", None) is not Router.not_found

    @property
    def is_page_of_fastapi(self) -> bool:
        """Whether this is the documentation, or the schema, that FastAPI serves itself."""
        endpoint = getattr(self.route, "endpoint", None)
        of_fastapi = getattr(endpoint, "__module__", None) == "fastapi.applications"
        return of_fastapi and bool(self.methods) and self.methods <= {"GET", "HEAD"}


def served_by(app: Any, above: str = "") -> Iterator[Served]:
    """All that an application or a mount serves: its router, its routes, and what is below them."""
    router = _router_of(app)
    yield Served(above, router)
    # Front ends, in newer FastAPI.
    more = getattr(router, "_iter_low_priority_routes", tuple)
    for route in chain(_in_context(router.routes), more()):
        found = Served(above + (getattr(route, "path", None) or ""), route)
        yield found
        if found.is_looked_into:
            yield from served_by(found.below, found.path)


def parts_of(app: Any) -> Iterator[Any]:
    """The objects that an application or a mount is made of: others, once it serves others."""
    router = _router_of(app)
    yield router.default
    yield from getattr(app, "dependency_overrides", ())
    yield from getattr(router, "_low_priority_routes", ())
    for route in router.routes:
        yield route
        if type(route) is routing.APIRoute:
            continue
        # Included, in newer FastAPI; or mounted.
        inner = getattr(route, "original_router", None) or _mounted_at(route)
        yield inner
        if isinstance(inner, (Starlette, Router)):
            yield from parts_of(inner)


class Dependency(NamedTuple):
    """A function that is called before an endpoint runs."""

    call: Any
    in_signature: bool  # of the endpoint or below it, so that its result is somebody's argument


def dependencies_of(route: Any) -> Iterator[Dependency]:
    """What is called before an endpoint runs, at any depth. What is overridden is left out."""
    dependant = getattr(route, "dependant", None)
    if dependant is None:
        return
    # Those of the route's own list, and of application and routers, come first.
    listed = len(getattr(route, "dependencies", None) or ())
    replaced = _replaced(route)
    for at, each in enumerate(dependant.dependencies):
        for call in _calls_of(each, replaced):
            yield Dependency(call, in_signature=at >= listed)


def _calls_of(dependant: Any, replaced: Mapping[Any, Any]) -> Iterator[Any]:
    if dependant.call in replaced:
        return
    yield dependant.call
    for each in dependant.dependencies:
        yield from _calls_of(each, replaced)


def _router_of(app: Any) -> Any:
    return getattr(app, "router", app)


def _mounted_at(route: Any) -> Any:
    """What is mounted, without the middleware that a mount can have; None for an endpoint."""
    if getattr(route, "dependant", None) is not None:
        return None
    return getattr(route, "_base_app", getattr(route, "app", None))


def _replaced(route: Any) -> Mapping[Any, Any]:
    """The dependencies in whose place others run."""
    provider = getattr(route, "dependency_overrides_provider", None)
    return getattr(provider, "dependency_overrides", None) or {}
