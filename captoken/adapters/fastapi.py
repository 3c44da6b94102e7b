"""FastAPI: each endpoint declares the access that it needs (docs/http.md).

    app = FastAPI()
    protect(app, verifier, origin="https://api.example", public={"/health"})
    sales_access = require(table="market.{region}", operation="select")

    @app.get("/sales/{region}")
    def sales(region: str, grant: Annotated[Grant, Depends(sales_access)]): ...

1. `protect` adds CaptokenMiddleware and checks all routes: when the application starts, and at a
   request after a route was added, removed or replaced. One route that neither requires anything
   nor is public stops the whole application. So does one that is both. An endpoint that asks for
   itself takes the grant by `granted` in its signature.
2. If an endpoint asked for nothing, its response is not sent. The client gets 403, or the status of
   an error without its text.
3. `require` asks the grant of the same request. If the middleware is missing, the response is 503.
4. A path parameter fills one segment of a name with its text from the URL. A text with a dot is
   refused.
"""

# Without `from __future__ import annotations`: older FastAPI does not resolve the names in the
# annotations of a callable object.
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from inspect import isawaitable
from typing import Annotated, Any, TypeAlias, Unpack

from msgspec.structs import replace

from captoken._format.extras import extra

with extra("fastapi"):
    from fastapi import Depends, FastAPI, HTTPException
    from fastapi.security import HTTPBearer
    from starlette.requests import HTTPConnection
    from starlette.routing import Router

from captoken._format import names
from captoken._format.errors import NoToken
from captoken._format.names import frozen_copy
from captoken._format.spelling import shown
from captoken._language.access import Access, Caller
from captoken._language.costs import Cost, cost_of, read_cost, with_cost
from captoken._verification.verifier import AnyVerifier
from captoken.adapters._http.exchange import (
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    json_response,
    respond,
)
from captoken.adapters._http.origins import public_paths
from captoken.adapters._http.routes import Made, Served, dependencies_of, served_by
from captoken.adapters.asgi import (
    ASKED,
    GRANT,
    CaptokenMiddleware,
    GuardOptions,
    Requires,
    ask,
    granted_to,
)
from captoken.current import AnyGrant

# What a request needs, by what it says.
Stated: TypeAlias = Callable[[HTTPConnection], Access | Awaitable[Access]]
# A function that returns the caller, as the server's own authentication knows it.
Known: TypeAlias = Callable[[HTTPConnection], Caller]
Row: TypeAlias = Mapping[str, Any] | None
Loads: TypeAlias = Callable[[HTTPConnection], Row | Awaitable[Row]]

_field = re.compile(r"\{(\w+)\}")  # a path parameter in a name
_in_path = re.compile(r"\{(\w+)")  # in a path, where a converter may follow
_phrases = {status.value: status.phrase for status in HTTPStatus}
_UNAUTHENTICATED = "No token, or one that is not accepted"
_INSUFFICIENT = "The token does not permit this request"


# --- what an endpoint declares --------------------------------------------------------------------


class _Scheme(HTTPBearer):
    """For OpenAPI alone: it shows that an operation needs a token.

    It reads nothing, and the header is gone when it could.
    """

    async def __call__(self, request: HTTPConnection) -> None:
        return None


_SCHEME = _Scheme(
    scheme_name="captoken",
    bearerFormat="captoken",
    auto_error=False,
    description="A token presented to this server.",
)


class Required:
    """A dependency that lets an endpoint run only with a grant that permits what it states.

    `require` makes it, and `granted` is one.

    `stated`: what a request needs; None leaves it to the endpoint.
    `needs`: the same in words, for people.
    `fields`: the path parameters that `stated` reads. A path without one of them is refused at the
    start of the application.
    `caller`: who calls; None where the server does not know.
    `cost`: what it takes of a budget, in the units that `stated` leaves out.
    `loads`: what gives the row that a request touches, by `row` or `becomes`.
    """

    def __init__(
        self,
        stated: Stated | None,
        needs: str,
        fields: Iterable[str],
        caller: Known | None,
        cost: Cost | None = None,
        loads: Iterable[tuple[str, Loads]] = (),
    ) -> None:
        self._stated = stated
        self._loads = tuple(loads)
        self._cost = cost
        self._caller = caller
        self.needs = needs
        self.fields = frozenset(fields)

    async def __call__(
        self,
        connection: HTTPConnection,
        _scheme: Annotated[None, Depends(_SCHEME)] = None,
    ) -> AnyGrant:
        """Called by FastAPI, at each request, before the endpoint.

        The grant is that of the verifier: awaited, if that is an AsyncVerifier.
        `_scheme` is there for OpenAPI: by it the operation is shown to need a token.
        """
        try:
            if self._stated is None:
                return _left_to_endpoint(connection.scope)
            access, caller = await self._statement(self._stated, connection)
            return await ask(connection.scope, access, caller)
        except NoToken:
            # Rule 3. It is the server that is at fault, and no token would help.
            raise HTTPException(503, "No guard is installed here.") from None

    async def _statement(
        self,
        stated: Stated,
        connection: HTTPConnection,
    ) -> tuple[Access | None, Caller | None]:
        """What to ask the grant. No access is what no token permits.

        What else the two functions raise is a fault of theirs: it passes through, and is answered
        500.
        """
        access: Any
        try:
            access = stated(connection)
            if isawaitable(access):
                access = await access
            if isinstance(access, Access):
                access = with_cost(access, cost_of(self._cost, connection))
                for fact, load in self._loads:
                    row: Any = load(connection)
                    access = replace(access, **{fact: await row if isawaitable(row) else row})
            if self._caller is None:
                return access, None
            caller: Any = self._caller(connection)
        except (TypeError, ValueError, LookupError, RecursionError):
            return None, None  # it cannot be stated
        if not isinstance(caller, Caller):
            return None, None  # nobody is known: without the check of a caller nothing is permitted
        return access, caller

    def __repr__(self) -> str:
        return f"<Required: {self.needs}>"


def _left_to_endpoint(scope: Scope) -> AnyGrant:
    """The grant, for an endpoint that asks it by itself.

    It is noted as asked for (rule 2): from here on the endpoint answers for what it sends.
    """
    grant = granted_to(scope)
    scope.get(ASKED, []).append(None)
    return grant


# For endpoints that take the grant and ask it themselves.
granted = Required(None, "a token that is good here", (), None)


def require(
    stated: Stated | None = None,
    *,
    table: str | None = None,
    operation: str | None = None,
    columns: Sequence[str] | None = None,
    tool: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
    cost: Cost | None = None,
    caller: Known | None = None,
    row: Loads | None = None,
    becomes: Loads | None = None,
) -> Required:
    """A dependency that gives the grant, if it permits an access.

    `Depends(require(table="sales", operation="select"))` states it by its facts.

        sales = require(table="market.{region}", operation="select")
        orders = require(lambda asked: Access(tool="order", arguments=dict(asked.query_params)))

    `table`, `operation`, `columns`, `tool`, `arguments` and `attributes` are the facts of an
    Access. None of them is stated unless said. `{name}` in `table` or `tool`, and nowhere else, is
    the path parameter of that name.
    `stated`, instead of the facts: a function, which may be a coroutine function, from the
    connection to the Access. What it raises as TypeError, ValueError or LookupError is a refusal.
    `cost`: what a request takes of a budget, beside either. A mapping by unit, as
    `{"usd_cents": 2}`, or a function of the connection that gives one, and raises as `stated` does.
    None unless said.
    `caller`: a function of the connection, to what the server's own authentication knows of who
    calls; if that is nobody, a refusal. None unless said: then nobody is compared.
    `row`, `becomes`: functions of the connection, which may be coroutine functions, to the row as
    it is stored and as it will be; None where there is none. They raise as `stated` does. None is
    stated unless said.

    Raises TypeError or ValueError at once for facts that are no access. It does not know what the
    endpoint then does: one that converts a path parameter uses another text than was asked for.
    """
    facts: dict[str, Any] = {
        "table": table,
        "operation": operation,
        "columns": columns,
        "tool": tool,
        "arguments": arguments,
        "attributes": attributes,
    }
    known = read_cost(cost)
    loads = [(fact, load) for fact, load in (("row", row), ("becomes", becomes)) if load]
    if not all(callable(load) for _, load in loads):
        raise TypeError(
            "row and becomes must be functions that take the connection and return a row"
        )
    facts = {fact: value for fact, value in facts.items() if value is not None}
    if stated is not None:
        if not callable(stated) or facts:
            raise TypeError("state the access as a function, or as its parts, not both")
        return Required(stated, "what the request states", (), caller, known, loads)
    if table is None and tool is None:
        raise TypeError(
            "name a table and an operation, or a tool; for an endpoint that asks by itself, use "
            "`granted`"
        )
    templates = {fact: facts[fact] for fact in ("table", "tool") if fact in facts}
    # It raises for facts that are no access. A brace is as good as a letter in a name, so a
    # template is judged like the names that it will make.
    plain = Access(**facts)
    # From here on what was checked is used, and not what was given (spec 7.10).
    checked = {fact: getattr(plain, fact) for fact in facts}
    _refuse_literal_fields(plain, templates.values())
    fields = {field for name in templates.values() for field in _field.findall(name)}
    if not fields:
        return Required(lambda _: plain, plain.summary, (), caller, known, loads)

    def filled(connection: HTTPConnection) -> Access:
        parameters = connection.path_params
        named: dict[str, Any] = {
            fact: _filled(name, parameters) for fact, name in templates.items()
        }
        return Access(**{**checked, **named})

    return Required(filled, plain.summary, fields, caller, known, loads)


def _refuse_literal_fields(plain: Access, named: Iterable[str]) -> None:
    """Raise ValueError for what looks like a path parameter and would be taken as it stands.

    The endpoint would seem to be guarded by what was asked for, and would not be.
    """
    values = [*(plain.arguments or {}).values(), *plain.attributes.values()]
    if any(_field.search(str(value)) for value in values):
        raise ValueError(
            "path parameters can fill in table and tool only: state arguments and attributes with "
            "a function"
        )
    for name in named:
        if not set("{}").isdisjoint(_field.sub("", name)):
            raise ValueError(f"{shown(name)} has a brace that is not around a path parameter")


def _filled(template: str, parameters: Mapping[str, Any]) -> str:
    """A name with its path parameters (rule 4). Raises ValueError or KeyError.

    Names have segments with dots between them, and each segment can be permitted by itself. So
    `market.{region}` must not become `market.eu.secret` by what stands in a URL.
    """

    def segment(match: re.Match[str]) -> str:
        """One path parameter, quoted if it is no plain name."""
        text = names.segmented(str(parameters[match[1]]), "path parameter")
        if "." in text:
            raise ValueError("a path parameter must be one segment of a name")
        return text

    return _field.sub(segment, template)


# --- the guard round an application ---------------------------------------------------------------


def protect(
    app: FastAPI,
    verifier: AnyVerifier,
    **options: Unpack[GuardOptions],
) -> None:
    """Put CaptokenMiddleware round `app`, and refuse routes that declare nothing.

    `verifier`: the Verifier or AsyncVerifier of this server.
    `origin`: scheme, host and port as clients know this server; proofs are made for it.
    `realm`: in challenges; the origin unless said.
    `public`: paths that need no token, as clients send them, for HTTP alone. None unless said.
    `resource_metadata`: the URL of the document of RFC 9728, or its fields, to be served here. None
    unless said.
    `max_body`: bytes of a body that is read before the application runs, 256 KiB unless said.
    `proxies`: addresses of proxies, whose headers about their request are not refused. None unless
    said.
    `step_up`: True tells clients what a person could allow after all. It needs `resource_metadata`.
    False unless said.

    Call it before the routes are there, or after.
    Middleware that is added later stands outside: CORSMiddleware, which has to answer preflights
    without a token, is added after this. Documentation pages are refused unless they are public.
    Adds 401 and 403 to the answers that OpenAPI shows. Raises TypeError or ValueError.
    """
    api = app
    # Both are read once, and not again where the middleware is built anew, when the application
    # starts. The paths may come from a generator.
    public = public_paths(options.get("public", ()))
    options["public"] = public
    proxies = options.get("proxies", ())
    options["proxies"] = proxies if isinstance(proxies, str) else tuple(proxies)
    metadata = options.get("resource_metadata")
    if isinstance(metadata, Mapping):
        options["resource_metadata"] = frozen_copy(metadata, "resource_metadata")

    def guard(app: ASGIApp) -> CaptokenMiddleware:  # the name by which older Starlette passes it
        return CaptokenMiddleware(_Declared(app, api, public), verifier, **options)

    guard(app)  # raises now, and not when the application starts
    app.add_middleware(guard)
    _show_refusals(app)


def _show_refusals(app: FastAPI) -> None:
    """Add the answers 401 and 403 to what OpenAPI shows of operations that need a token.

    Whoever describes these answers for an operation has the last word.
    """
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        for operations in schema.get("paths", {}).values():
            for operation in operations.values():
                if _needs_token(operation):
                    operation["responses"].setdefault("401", {"description": _UNAUTHENTICATED})
                    operation["responses"].setdefault("403", {"description": _INSUFFICIENT})
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _needs_token(operation: Any) -> bool:
    """Whether a part of OpenAPI's schema is an operation with our security scheme."""
    if not isinstance(operation, dict):
        return False
    return any("captoken" in entry for entry in operation.get("security", ()))


class _Declared:
    """Stands inside of the middleware: no route without a declared access (rule 1).

    `app`: what it calls, which is the next middleware or the router.
    `api`: the application whose routes are looked at.
    """

    def __init__(
        self,
        app: ASGIApp,
        api: FastAPI,
        public: frozenset[str],
    ) -> None:
        self._app = app
        self._api = api
        self._public = public
        self._made: Made | None = None  # what was served when the problems were found
        self._problems: list[str] = []

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["type"] == "lifespan":
            return await self._begin(scope, receive, send)
        self._check_routes()
        if GRANT not in scope:  # public
            return await self._app(scope, receive, send)
        asked: list[Access | None] = []
        scope[ASKED] = asked
        answer = _AskedAnswer(scope, send, asked)
        await self._app(scope, receive, answer.send)
        # Nothing was sent, so that the middleware outside can answer with a denial.
        if answer.refused:
            await ask(scope, None)

    async def _begin(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """The application starts, or does not."""
        try:
            self._check_routes()
        except RuntimeError as problem:
            await receive()
            failed = {
                "type": "lifespan.startup.failed",
                "message": str(problem),
            }
            await send(failed)
            raise  # a test's client waits for that
        await self._app(scope, receive, send)

    def _check_routes(self) -> None:
        """Raise RuntimeError if a route declares nothing.

        Judges anew when what is served is made of other objects: a route can be added while the
        application runs.
        """
        if self._made is None or not self._made.is_same():
            made = Made(self._api)
            found = [_problem(served, self._public) for served in served_by(self._api)]
            self._problems = [problem for problem in found if problem is not None]
            self._made = made
        if self._problems:
            raise RuntimeError("captoken: " + "; ".join(self._problems))


class _AskedAnswer:
    """Lets through what an application sends once something was asked for it (rule 2).

    Routes are judged by what they declare, and not all that an application sends is a route's:
    middleware answers too, handlers of exceptions, and routers where no route matches.

    `asked`: grows by each access that is asked for, and allowed.
    """

    def __init__(
        self,
        scope: Scope,
        send: Send,
        asked: list[Access | None],
    ) -> None:
        self._scope = scope
        self._send = send
        self._asked = asked
        self._told = False  # an error's status was sent, without what was said
        self.refused = False  # the answer was dropped

    async def send(self, message: Message) -> None:
        """The application's `send`.

        Raises Denied for an answer that would go on and on: an application that streams would wait
        for its client otherwise, or never end.
        """
        kind = message["type"]
        going_on = not self._told and not self.refused
        if going_on and (self._asked or kind == "websocket.close"):
            return await self._send(message)
        # A client is told that there is no such route, or that its request is malformed. The body
        # could say more, and nobody has asked whether it may.
        status = message.get("status", 0)
        if kind == "http.response.start" and status >= 400 and not self.refused:
            self._told = True
            return await self._send_status(status)
        if self._told or kind == "http.response.early_hint":
            return None  # what belongs to that answer, or is none by itself
        self.refused = True
        if self._scope["type"] == "websocket" or message.get("more_body"):
            await ask(self._scope, None)  # what goes on is ended
        return None

    async def _send_status(self, status: int) -> None:
        """An error, of which no more is said than its status, in the form of FastAPI's own."""
        response = json_response(status, {"detail": _phrases.get(status, "")})
        await respond(
            self._send,
            response,
            without_body=self._scope["method"] == "HEAD",
        )


def _problem(served: Served, public: frozenset[str]) -> str | None:
    """What is wrong with something that is served, in one sentence, or None (rule 1)."""
    # A router's own word, beside its routes.
    if isinstance(served.route, Router):
        if not served.has_own_default:
            return None
        return f"{served.path or '/'} has a default, which requires nothing"
    if served.is_looked_into:
        return None  # its routes are judged, each for itself
    required = _required(served.route)
    # What is public gets no grant that it could ask. A websocket is never public.
    if served.path in public and served.methods:
        return f"{served.path} is public, and requires a token" if required else None
    if required:
        return _unfilled(served.path, required)
    # Two that declare nothing themselves. One asks before its application runs. For FastAPI's own
    # pages nothing is asked, so they are refused by rule 2 when somebody wants to see them.
    if isinstance(served.below, Requires) or served.is_page_of_fastapi:
        return None
    what = " ".join([*sorted(served.methods), served.path or "/"])
    return (
        f"{what} requires nothing: "
        "Depends(require(...)), Depends(granted) in the signature, or public"
    )


def _required(route: Any) -> list[Required]:
    """What is asked before an endpoint runs.

    `granted` leaves it to the endpoint, so it counts where the endpoint takes the grant.
    """
    return [
        dependency.call
        for dependency in dependencies_of(route)
        if isinstance(dependency.call, Required)
        and (dependency.call is not granted or dependency.in_signature)
    ]


def _unfilled(path: str, required: Iterable[Required]) -> str | None:
    """What is wrong where a name has a field that the path does not fill.

    Each request would be refused, since the access cannot be stated.
    """
    fields = {field for each in required for field in each.fields}
    missing = fields.difference(_in_path.findall(path))
    if not missing:
        return None
    return f"{path} has no parameter {', '.join(sorted(missing))}"
