"""What a FastAPI application serves, whatever the version of FastAPI that it is built with.

Routes are read by the attributes that they have, since newer versions wrap them and keep some of
them apart. All of that reading is here, so that a new version has one place to be wrong in.

It must not overlook anything: what it does not list, nobody checks for a declared access. An
application consists of these, at any depth:

    a router             with routes, and a default that answers what no route matches
    a route              of FastAPI's, with dependencies; or of Starlette's, without
    a mount              of another application, whose routes are listed too if it has any
    an included router   which newer FastAPI keeps as a route
    a front end          which newer FastAPI asks when no route matches
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from operator import is_
from typing import Any, NamedTuple

from captoken._format.extras import extra

with extra("fastapi"):
    from fastapi import routing
    from starlette.applications import Starlette
    from starlette.routing import Router

# Newer FastAPI leaves included routers in their place. This gives the routes of all of them, each
# with what its routers add. Older FastAPI copies the routes into the outer router.
_in_context: Callable[[Iterable[Any]], Iterable[Any]] = getattr(
    routing, "iter_route_contexts", iter
)


def refuse_unknown(router: Any) -> None:
    """Raise ImportError for a FastAPI whose front ends would not be listed here.

    All else that this file does not find of a route leaves it without a declared access, so that
    the application does not start. A front end that is not listed would be served.
    """
    if hasattr(router, "frontend") and not hasattr(router, "_iter_low_priority_routes"):
        raise ImportError(
            "captoken cannot find the front ends of this fastapi version: install an older "
            "fastapi, or a newer captoken"
        )


refuse_unknown(routing.APIRouter)


class Served(NamedTuple):
    """One thing that is served: a route, a mount, or a router with what it falls back to.

    `path`: from the root of the outermost application, with the parameters in braces.
    `route`: the object, which has no type that all versions share.
    """

    path: str
    route: Any

    @property
    def methods(self) -> frozenset[str]:
        """The methods of HTTP that it answers.

        Empty for a mount, which answers all of them, and for a websocket.
        """
        return frozenset(getattr(self.route, "methods", None) or ())

    @property
    def below(self) -> Any:
        """The application that is mounted here, or None for an endpoint.

        A route of Starlette's counts as a mount: its function asks no dependencies.
        """
        return _mounted_at(self.route)

    @property
    def is_looked_into(self) -> bool:
        """Whether the routes below this mount are listed by themselves.

        Of any other application, static files say, nobody knows what it serves.
        """
        return isinstance(self.below, (Starlette, Router))

    @property
    def has_own_default(self) -> bool:
        """For a router: whether it answers what no route matches, by something of its own.

        The usual answer is a 404.
        """
        return getattr(self.route.default, "__func__", None) is not Router.not_found

    @property
    def is_page_of_fastapi(self) -> bool:
        """Whether this is the documentation, or the schema, that FastAPI serves itself.

        By the module that its function is from, since its path can be anything.
        """
        endpoint = getattr(self.route, "endpoint", None)
        of_fastapi = getattr(endpoint, "__module__", None) == "fastapi.applications"
        return of_fastapi and bool(self.methods) and self.methods <= {"GET", "HEAD"}


def served_by(app: Any, above: str = "") -> Iterator[Served]:
    """All that an application or a mount serves: its router, its routes, and what is below them.

    `above`: the path at which it is mounted.
    """
    router = _router_of(app)
    yield Served(above, router)
    # In newer FastAPI, what is asked when no route matches: front ends.
    more = getattr(router, "_iter_low_priority_routes", tuple)
    for route in chain(_in_context(router.routes), more()):
        # What FastAPI wraps can lack a path, and is served at that of its router then.
        path = getattr(route, "path", None) or ""
        found = Served(above + path, route)
        yield found
        if found.is_looked_into:
            yield from served_by(found.below, found.path)


class Made:
    """What an application or a mount is made of, to be compared with what it is made of later.

    `served_by` goes through all that is served, and looks into each route. That is done once. This
    is asked at each request: whether the lists of routes have the same objects in them as then. It
    takes no step of Python's for an endpoint, and so ten nanoseconds.

    The objects are kept, so that no other one can have the place of one that is gone.
    """

    def __init__(self, app: Any) -> None:
        router = _router_of(app)
        self._app = app
        self._router = router
        self._routes = list(router.routes)
        self._beside = _beside_routes(app, router)
        # What can have routes below it. Endpoints, which most routes are, have none.
        self._inner: list[tuple[Any, Any, Made | None]] = []
        for route in self._routes:
            if type(route) is routing.APIRoute:
                continue
            inner = _below(route)
            below = Made(inner) if isinstance(inner, (Starlette, Router)) else None
            self._inner.append((route, inner, below))

    def is_same(self) -> bool:
        """Whether it serves what it served then, as far as its parts tell."""
        router = _router_of(self._app)
        if router is not self._router or not _same(router.routes, self._routes):
            return False
        if not _same(_beside_routes(self._app, router), self._beside):
            return False
        return all(
            _below(route) is inner and (below is None or below.is_same())
            for route, inner, below in self._inner
        )


def _same(found: Any, before: list[Any]) -> bool:
    """Are these the very same objects?

    Routes that only compare equal can require different accesses.
    """
    return len(found) == len(before) and all(map(is_, found, before))


def _beside_routes(app: Any, router: Any) -> list[Any]:
    """What decides about answers beside the routes: a default, what is replaced, front ends."""
    return [
        router.default,
        *getattr(app, "dependency_overrides", ()),
        *getattr(router, "_low_priority_routes", ()),
    ]


def _below(route: Any) -> Any:
    """What is included by a route, in newer FastAPI, or mounted by it; None for an endpoint."""
    return getattr(route, "original_router", None) or _mounted_at(route)


class Dependency(NamedTuple):
    """A function that is called before an endpoint runs.

    `in_signature`: it is an argument of the endpoint, or what one depends on. Otherwise it is
    listed beside the endpoint, and its result goes nowhere.
    """

    call: Any
    in_signature: bool


def dependencies_of(route: Any) -> Iterator[Dependency]:
    """What is called before an endpoint runs, at any depth.

    What is overridden is left out: another function runs in its place, and nobody knows what it
    asks.
    """
    dependant = getattr(route, "dependant", None)
    if dependant is None:
        return  # a mount, or a route of Starlette's
    # FastAPI puts those first that are listed by the application, by routers and by the route. The
    # route knows all of them.
    listed = len(getattr(route, "dependencies", None) or ())
    replaced = _replaced(route)
    for at, each in enumerate(dependant.dependencies):
        # What is below one that is listed goes nowhere, like its result.
        for call in _calls_of(each, replaced):
            yield Dependency(call, in_signature=at >= listed)


def _calls_of(dependant: Any, replaced: Mapping[Any, Any]) -> Iterator[Any]:
    """A dependency, and what it depends on, in the order in which FastAPI finds them.

    Below one that is replaced nothing is called, so nothing is looked at.
    """
    if dependant.call in replaced:
        return
    yield dependant.call
    for each in dependant.dependencies:
        yield from _calls_of(each, replaced)


def _router_of(app: Any) -> Any:
    """The router of an application; a router that is mounted by itself is its own."""
    return getattr(app, "router", app)


def _mounted_at(route: Any) -> Any:
    """What is mounted, without the middleware that a mount can have; None for an endpoint.

    An endpoint of FastAPI has an application too, which is nothing but a wrapper of its function.
    """
    if getattr(route, "dependant", None) is not None:
        return None
    return getattr(route, "_base_app", getattr(route, "app", None))


def _replaced(route: Any) -> Mapping[Any, Any]:
    """The dependencies in whose place others run.

    It is `app.dependency_overrides` of the application that the route belongs to. Tests use it to
    put something simpler into the place of a database, say.
    """
    provider = getattr(route, "dependency_overrides_provider", None)
    return getattr(provider, "dependency_overrides", None) or {}
