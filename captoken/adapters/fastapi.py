"""FastAPI: each endpoint declares the access that it needs, and one that declares nothing is refused (docs/http.md).

    app = FastAPI()
    protect(app, verifier, origin="https://api.example", public={"/health"})

    @app.get("/sales/{region}")
    def sales(region: str, grant: Annotated[Grant, Depends(require(table="market.{region}", operation="select"))]): ...

1. `protect` is CaptokenMiddleware, and a look at all that is served, when the application starts and at each request: one
   route that neither requires anything nor is public stops the whole. So does one that is both. `granted` counts in the
   signature alone: whoever asks by himself takes the grant.
2. An answer for which nothing was asked is not sent: it is 403, or an error's status without what was said.
3. `require` asks the grant of this very request. Without the middleware outside: 503.
4. A path parameter fills one segment of a name, as the text that it is in the URL; one that has a dot is refused.
"""

# Without `from __future__ import annotations`: older FastAPI does not resolve the names in those of a callable object.
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from inspect import isawaitable
from itertools import chain
from operator import is_not
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, FastAPI, HTTPException, routing
from fastapi.security import HTTPBearer
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Router

from captoken._format import names
from captoken._format.errors import NoToken
from captoken._language.access import Access, Caller
from captoken._verification.grant import Grant
from captoken._verification.verifier import Verifier
from captoken.adapters._http.messages import json_answer, public_paths
from captoken.adapters.asgi import (
    ASKED,
    BODY_BYTES,
    GRANT,
    ASGIApp,
    CaptokenMiddleware,
    Message,
    Receive,
    Requires,
    Scope,
    Send,
    ask,
    granted_to,
)

Stated: TypeAlias = Callable[[HTTPConnection], Access | Awaitable[Access]]
Known: TypeAlias = Callable[[HTTPConnection], Caller]
_field = re.compile(r"\{(\w+)\}")
_in_path = re.compile(r"\{(\w+)")
_phrases = {status.value: status.phrase for status in HTTPStatus}


class _Scheme(HTTPBearer):
    """For OpenAPI alone: it reads nothing, and the header is gone when it could."""

    async def __call__(self, request: HTTPConnection) -> None:
        return None


_SCHEME = _Scheme(
    scheme_name="captoken",
    bearerFormat="captoken",
    auto_error=False,
    description="A token presented to this server.",
)


class Required:
    """A dependency that lets an endpoint run only with a grant that permits what it states; `require` makes it."""

    def __init__(
        self, stated: Stated | None, needs: str, fields: Iterable[str], caller: Known | None
    ) -> None:
        self._stated, self.needs, self.fields, self._caller = (
            stated,
            needs,
            frozenset(fields),
            caller,
        )

    async def __call__(
        self, connection: HTTPConnection, _scheme: Annotated[None, Depends(_SCHEME)] = None
    ) -> Grant:
        try:
            if self._stated is None:
                grant = granted_to(connection.scope)
                connection.scope.get(ASKED, []).append(None)
                return grant
            access: Any
            caller: Any = None
            try:
                access = self._stated(connection)
                access = await access if isawaitable(access) else access
                if self._caller is not None:
                    caller = self._caller(connection)
                    access = (
                        access if isinstance(caller, Caller) else None
                    )  # nobody is known: that is no check
            except (TypeError, ValueError, LookupError, RecursionError):
                access = None  # it cannot be stated, so no token permits it
            return await ask(connection.scope, access, caller if access is not None else None)
        except NoToken:
            raise HTTPException(503, "No guard is installed here.") from None  # rule 3

    def __repr__(self) -> str:
        return f"<Required: {self.needs}>"


granted = Required(
    None, "a token that is good here", (), None
)  # for endpoints that take the grant and ask it themselves


def require(
    stated: Stated | None = None,
    *,
    table: str | None = None,
    operation: str | None = None,
    columns: Sequence[str] | None = None,
    tool: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
    cost: Mapping[str, int] | None = None,
    caller: Known | None = None,
) -> Required:
    """A dependency, `Annotated[Grant, Depends(require(table="sales", operation="select"))]`: the grant, once it permits that.

    `{name}` in `table` or `tool`, and nowhere else, is the path parameter of that name. `stated`, instead of the facts: a
    function, which may be a coroutine function, from the connection to the Access; what it raises as TypeError, ValueError
    or LookupError is a refusal. `caller`: what the server's own authentication knows of who calls; if that is nobody, a
    refusal.

    Raises TypeError or ValueError at once for facts that are no access. It does not know what the endpoint then does: an
    endpoint that converts a path parameter uses another text than was asked for.
    """
    facts: dict[str, Any] = {
        "table": table,
        "operation": operation,
        "columns": columns,
        "tool": tool,
        "arguments": arguments,
    }
    facts |= {"attributes": attributes or {}, "cost": cost or {}}
    templates: dict[str, str] = {
        key: name for key, name in (("table", table), ("tool", tool)) if name is not None
    }
    if stated is not None:
        if not callable(stated) or any(value for value in facts.values()):
            raise TypeError("state the access by a function, or by its facts")
        return Required(stated, "what the request states", (), caller)
    if table is None and tool is None:
        raise TypeError(
            "an endpoint requires a table and an operation, or a tool; `granted` is for one that asks by itself"
        )
    fields = {field for name in templates.values() for field in _field.findall(name)}
    plain = Access(**facts)  # a brace is as good as a letter in a name
    if any(
        _field.search(str(value))
        for stated_ in (plain.arguments or {}, plain.attributes)
        for value in stated_.values()
    ):
        raise ValueError(
            "path parameters are filled into table and tool alone: state arguments and attributes by a function"
        )
    if any(set("{}") & set(_field.sub("", name)) for name in templates.values()):
        raise ValueError("a brace that encloses no path parameter")

    def filled(connection: HTTPConnection) -> Access:
        named: dict[str, Any] = {
            key: _filled(name, connection.path_params) for key, name in templates.items()
        }
        return Access(**{**facts, **named})

    return Required(filled if fields else lambda _: plain, plain.summary, fields, caller)


def _filled(template: str, parameters: Mapping[str, Any]) -> str:
    """A name with its path parameters (rule 4). Raises ValueError or KeyError."""

    def segment(match: re.Match[str]) -> str:
        text = names.segmented(str(parameters[match[1]]), "path parameter")
        if "." in text:
            raise ValueError("a path parameter is one segment of a name")
        return text

    return _field.sub(segment, template)


def protect(
    app: FastAPI,
    verifier: Verifier,
    *,
    origin: str,
    realm: str | None = None,
    public: Iterable[str] = (),
    resource_metadata: str | Mapping[str, Any] | None = None,
    max_body: int = BODY_BYTES,
) -> None:
    """Put CaptokenMiddleware round `app`, with its arguments, and refuse routes that declare nothing (rules 1 and 2).

    Before or after the routes are there. Middleware that is added later stands outside: CORSMiddleware, which has to
    answer preflights without a token, is added after this. Documentation pages are refused unless they are public. Adds
    401 and 403 to the answers that OpenAPI shows. Raises TypeError or ValueError.
    """
    api, paths = app, public_paths(public)

    def guard(app: ASGIApp) -> CaptokenMiddleware:  # the name by which older Starlette passes it
        return CaptokenMiddleware(
            _Declared(app, api, paths),
            verifier, origin=origin, realm=realm, public=paths, resource_metadata=resource_metadata, max_body=max_body,
        )  # fmt: skip

    guard(app)  # raises now, and not when the application starts
    app.add_middleware(guard)
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        for operations in schema.get("paths", {}).values():
            for operation in operations.values():
                if isinstance(operation, dict) and any(
                    "captoken" in entry for entry in operation.get("security", ())
                ):
                    operation["responses"].setdefault(
                        "401", {"description": "No token, or one that is not accepted"}
                    )
                    operation["responses"].setdefault(
                        "403", {"description": "The token does not permit this request"}
                    )
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


class _Declared:
    """Stands inside of the middleware: no route without a declared access."""

    def __init__(self, app: ASGIApp, api: FastAPI, public: frozenset[str]) -> None:
        self._app, self._api, self._public = app, api, public
        self._seen: list[Any] = []
        self._problems: list[str] = []

    def _checked(self) -> None:
        """Raise RuntimeError if a route declares nothing. Judges anew when what is served is made of other objects."""
        seen = list(_made_of(self._api))
        if len(seen) != len(self._seen) or any(
            map(is_not, seen, self._seen)
        ):  # which are kept, so that no id comes again
            served = _served(self._api, "")
            self._problems = [
                problem
                for path, route in served
                for problem in _problems(path, route, self._public)
            ]
            self._seen = seen
        if self._problems:
            raise RuntimeError("captoken: " + "; ".join(self._problems))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                self._checked()
            except RuntimeError as problem:
                await receive()
                await send({"type": "lifespan.startup.failed", "message": str(problem)})
                raise  # a test's client waits for that
            return await self._app(scope, receive, send)
        self._checked()
        if GRANT not in scope:  # public
            return await self._app(scope, receive, send)
        asked: list[Access | None] = []
        refused = told = False

        async def tell(message: Message) -> None:  # rule 2
            nonlocal refused, told
            status = message.get("status", 0)
            if not told and not refused and (asked or message["type"] == "websocket.close"):
                await send(message)
            elif message["type"] == "http.response.start" and status >= 400 and not refused:
                told = True
                said = json_answer(status, {"detail": _phrases.get(status, "")})
                await send({**message, "headers": said.headers})
                body = b"" if scope["method"] == "HEAD" else said.body
                await send({"type": "http.response.body", "body": body, "more_body": False})
            elif not told and message["type"] != "http.response.early_hint":
                refused = True
                if scope["type"] == "websocket" or message.get(
                    "more_body"
                ):  # what goes on is ended
                    await ask(scope, None)

        scope[ASKED] = asked
        await self._app(scope, receive, tell)
        if refused:  # nothing was sent
            await ask(scope, None)


def _made_of(app: Any) -> Iterator[Any]:
    """The objects that an application or a mount is made of, which change when what it serves does."""
    router = getattr(app, "router", app)
    yield router.default
    yield from getattr(app, "dependency_overrides", ())
    yield from getattr(router, "_low_priority_routes", ())
    for route in router.routes:
        yield route
        if type(route) is not routing.APIRoute:
            yield (
                below := getattr(route, "original_router", None) or _below(route)
            )  # included, in newer FastAPI; mounted
            if isinstance(below, (Starlette, Router)):
                yield from _made_of(below)


def _served(app: Any, above: str) -> Iterator[tuple[str, Any]]:
    """All that an application or a mount serves, with its path: its router, its routes, and what is below them."""
    router = getattr(app, "router", app)
    yield above, router
    more = getattr(router, "_iter_low_priority_routes", tuple)  # front ends, in newer FastAPI
    for route in chain(getattr(routing, "iter_route_contexts", iter)(router.routes), more()):
        path = above + (getattr(route, "path", None) or "")
        yield path, route
        if isinstance(below := _below(route), (Starlette, Router)):
            yield from _served(below, path)


def _below(route: Any) -> Any:
    """What is mounted, without the middleware that a mount can have."""
    mounted = getattr(route, "dependant", None) is None
    return getattr(route, "_base_app", getattr(route, "app", None)) if mounted else None


def _replaced(route: Any) -> Mapping[Any, Any]:
    """The dependencies in whose place others run."""
    return (
        getattr(getattr(route, "dependency_overrides_provider", None), "dependency_overrides", None)
        or {}
    )


def _problems(path: str, route: Any, public: frozenset[str]) -> Iterator[str]:
    """What is wrong with a route, one sentence each."""
    below = _below(route)
    if isinstance(route, Router):
        if getattr(route.default, "__func__", None) is not Router.not_found:
            yield f"{path or '/'} has a default, which requires nothing"
        return
    if isinstance(below, (Starlette, Router)):
        return  # whose routes are looked at
    required = list(_required(route))
    methods = set(getattr(route, "methods", None) or ())
    is_page = (
        getattr(getattr(route, "endpoint", None), "__module__", None) == "fastapi.applications"
    )  # refused by rule 2
    if path in public and methods:
        if required:
            yield f"{path} is public, and requires a token"
    elif required:
        missing = set[str]().union(*(each.fields for each in required)) - set(
            _in_path.findall(path)
        )
        if missing:
            yield f"{path} has no parameter {', '.join(sorted(missing))}"
    elif not isinstance(below, Requires) and not (
        is_page and methods and methods <= {"GET", "HEAD"}
    ):
        what = " ".join([*sorted(methods), path or "/"])
        yield f"{what} requires nothing: Depends(require(...)), Depends(granted) in the signature, or public"


def _required(route: Any) -> Iterator[Required]:
    """What is asked before an endpoint runs. `granted`, which leaves it to the endpoint, if the endpoint takes the grant."""
    dependant = getattr(route, "dependant", None)
    if dependant is None:
        return
    listed = len(
        getattr(route, "dependencies", None) or ()
    )  # those of application and routers too; they come first
    for at, each in enumerate(dependant.dependencies):
        yield from (
            found
            for found in _within(each, _replaced(route))
            if found is not granted or at >= listed
        )


def _within(dependant: Any, replaced: Mapping[Any, Any]) -> Iterator[Required]:
    if dependant.call in replaced:
        return
    if isinstance(dependant.call, Required):
        yield dependant.call
    for each in dependant.dependencies:
        yield from _within(each, replaced)
