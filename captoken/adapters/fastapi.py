"""FastAPI: each endpoint declares the access that it needs, and one that declares nothing is refused (docs/http.md).

    app = FastAPI()
    protect(app, verifier, origin="https://api.example", public={"/health"})

    @app.get("/sales/{region}")
    def sales(region: str, grant: Annotated[Grant, Depends(require(table="market.{region}", operation="select"))]): ...

1. `protect` is CaptokenMiddleware, and a look at every route when the application starts: one that neither requires
   anything nor is public stops it. So does one that is both.
2. Whatever escapes that look (a route that was added later, to a router far below) answers 403.
3. `require` asks the grant of this very request. Without the middleware outside: 503.
4. A path parameter fills one segment of a name, as the text that it is in the URL; one that has a dot is refused.
"""

# Without `from __future__ import annotations`: older FastAPI does not resolve the names in those of a callable object.
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from inspect import isawaitable
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, FastAPI, HTTPException, routing
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from captoken import names
from captoken.access import Access, Caller
from captoken.adapters._http import public_paths
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
from captoken.errors import NoToken
from captoken.grant import Grant
from captoken.verify import Verifier

Stated: TypeAlias = Callable[[HTTPConnection], Access | Awaitable[Access]]
Known: TypeAlias = Callable[[HTTPConnection], Caller]
_field = re.compile(r"\{(\w+)\}")
_in_path = re.compile(r"\{(\w+)")


class _Scheme(HTTPBearer):
    """For OpenAPI alone: it reads nothing, and the header is gone when it could."""

    async def __call__(self, request: HTTPConnection) -> None:
        return None


_SCHEME = _Scheme(
    scheme_name="captoken", bearerFormat="captoken", auto_error=False, description="A token presented to this server."
)


class Required:
    """A dependency that lets an endpoint run only with a grant that permits what it states; `require` makes it."""

    def __init__(self, stated: Stated | None, needs: str, fields: Iterable[str], caller: Known | None) -> None:
        self._stated, self.needs, self.fields, self._caller = stated, needs, frozenset(fields), caller

    async def __call__(self, connection: HTTPConnection, _scheme: Annotated[None, Depends(_SCHEME)] = None) -> Grant:
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
                    access = access if isinstance(caller, Caller) else None  # nobody is known: that is no check
            except (TypeError, ValueError, LookupError, RecursionError):
                access = None  # it cannot be stated, so no token permits it
            return await ask(connection.scope, access, caller if access is not None else None)
        except NoToken:
            raise HTTPException(503, "No guard is installed here.") from None  # rule 3

    def __repr__(self) -> str:
        return f"<Required: {self.needs}>"


granted = Required(None, "a token that is good here", (), None)  # for endpoints that ask the grant themselves


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

    `{name}` in `table` or `tool` is the path parameter of that name. `stated`, instead of the facts: a function, which may
    be a coroutine function, from the connection to the Access; what it raises as TypeError, ValueError or LookupError is
    a refusal. `caller`: what the server's own authentication knows of who calls; if that is nobody, a refusal.

    Raises TypeError or ValueError at once for facts that are no access. It does not know what the endpoint then does: an
    endpoint that converts a path parameter uses another text than was asked for.
    """
    facts: dict[str, Any] = {"table": table, "operation": operation, "columns": columns, "tool": tool, "arguments": arguments}
    facts |= {"attributes": attributes or {}, "cost": cost or {}}
    templates: dict[str, str] = {key: name for key, name in (("table", table), ("tool", tool)) if name is not None}
    if stated is not None:
        if not callable(stated) or any(value for value in facts.values()):
            raise TypeError("state the access by a function, or by its facts")
        return Required(stated, "what the request states", (), caller)
    if table is None and tool is None:
        raise TypeError("an endpoint requires a table and an operation, or a tool; `granted` is for one that asks by itself")
    fields = {field for name in templates.values() for field in _field.findall(name)}
    plain = Access(**facts)  # a brace is as good as a letter in a name
    if any(set("{}") & set(_field.sub("", name)) for name in templates.values()):
        raise ValueError("a brace that encloses no path parameter")

    def filled(connection: HTTPConnection) -> Access:
        named: dict[str, Any] = {key: _filled(name, connection.path_params) for key, name in templates.items()}
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
                if isinstance(operation, dict) and any("captoken" in entry for entry in operation.get("security", ())):
                    operation["responses"].setdefault("401", {"description": "No token, or one that is not accepted"})
                    operation["responses"].setdefault("403", {"description": "The token does not permit this request"})
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


class _Declared:
    """Stands inside of the middleware: no route without a declared access."""

    def __init__(self, app: ASGIApp, api: FastAPI, public: frozenset[str]) -> None:
        self._app, self._api, self._public = app, api, public
        self._seen = -1
        self._problems: list[str] = []

    def _checked(self) -> None:
        """Raise RuntimeError if a route declares nothing. Looks again when the application has got another route."""
        if self._seen != len(self._api.routes):
            self._problems = list(_problems(self._api, self._public, ""))
            self._seen = len(self._api.routes)
        if self._problems:
            raise RuntimeError("captoken: " + "; ".join(self._problems))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                self._checked()
            except RuntimeError as problem:
                await receive()
                return await send({"type": "lifespan.startup.failed", "message": str(problem)})
            return await self._app(scope, receive, send)
        self._checked()
        if GRANT not in scope:  # public
            return await self._app(scope, receive, send)
        asked: list[Access | None] = []
        refused = False

        async def told(message: Message) -> None:
            nonlocal refused
            refused = refused or (not asked and (message["type"] == "websocket.accept" or message.get("status", 500) < 400))
            if not refused:
                await send(message)
            elif scope["type"] == "websocket" or message.get("more_body"):  # rule 2; what goes on is ended, and else
                await ask(scope, None)

        scope[ASKED] = asked
        await self._app(scope, receive, told)
        if refused:  # nothing was sent
            await ask(scope, None)


def _problems(app: Any, public: frozenset[str], above: str) -> Iterator[str]:
    """What is wrong with the routes of an application, or of a mount, one sentence each."""
    pages = [getattr(app, f"{page}_url", None) for page in ("openapi", "docs", "redoc", "swagger_ui_oauth2_redirect")]
    routes: Any = getattr(routing, "iter_route_contexts", iter)(app.routes)
    for route in routes:
        path = above + (getattr(route, "path", None) or "")
        dependant = getattr(route, "dependant", None)
        required = list(_required(dependant)) if dependant is not None else []
        below = getattr(route, "routes", None) if dependant is None else None
        is_public = path in public and bool(getattr(route, "methods", None))
        if is_public and required:
            yield f"{path} is public, and requires a token"
        elif required:
            missing = set[str]().union(*(each.fields for each in required)) - set(_in_path.findall(path))
            if missing:
                yield f"{path} has no parameter {', '.join(sorted(missing))}"
        elif below:
            inner = getattr(route, "app", None)
            yield from _problems(inner if hasattr(inner, "routes") else route, public, path)
        elif not is_public and path.removeprefix(above) not in pages and not isinstance(getattr(route, "app", None), Requires):
            yield f"{path or '/'} requires nothing: Depends(require(...)), Depends(granted), or public"


def _required(dependant: Any) -> Iterator[Required]:
    if isinstance(dependant.call, Required):
        yield dependant.call
    for each in dependant.dependencies:
        yield from _required(each)
