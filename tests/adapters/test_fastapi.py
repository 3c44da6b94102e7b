"""FastAPI: an endpoint runs only under a grant that permits what it declares, and none runs that declares nothing."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any

import httpx
import pytest
import websockets.exceptions
import websockets.sync.client
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from fastapi.testclient import TestClient
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response

from captoken import Access, AsyncGrant, AsyncVerifier, Caller, Decision, Denied, Grant, Issuer, Keyring, Verifier, current
from captoken.adapters.asgi import CaptokenMiddleware, Requires
from captoken.adapters.fastapi import Required, granted, protect, require
from captoken.adapters.httpx import auth
from captoken.current import Held
from captoken.errors import NoToken
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore

from .serving import SERVERS, listening, origin_of, served

KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
VERIFIER = Verifier(KEYRING, audience="sales-api")
ORIGIN = "https://api.example"
CAVEATS: dict[str, Any] = {
    "tables": ["sales", "market.*"], "operations": ["select"], "tools": {"pay": {"cents": {"max": 500}}},
    "expires_in": 86_400,  # for as long as all of these tests may take
}  # fmt: skip
HELD = Issuer(KEYRING).mint(subject="user:jane", agent="orchestrator", task="task-1", **CAVEATS).delegate(to="clerk")

Sales = Annotated[Grant, Depends(require(table="sales", operation="select"))]
Mine = Annotated[Grant, Depends(granted)]
Market = Annotated[Grant, Depends(require(table="market.{region}", operation="select"))]


def client(app: Any, **keywords: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(
        transport=transport, base_url=ORIGIN, **{"auth": auth({ORIGIN: "sales-api"}, held=HELD), **keywords}
    )


def call(app: Any, path: str, method: str = "GET", *, headers: Any = None, json: Any = None, **keywords: Any) -> httpx.Response:
    """One request to an application in this process, with a good token unless it is said otherwise."""

    async def run() -> httpx.Response:
        async with client(app, **keywords) as opened:
            return await opened.request(method, path, headers=headers, json=json)

    return asyncio.run(run())


def protected(**keywords: Any) -> FastAPI:
    app = FastAPI()
    protect(app, keywords.pop("verifier", VERIFIER), origin=ORIGIN, **keywords)
    return app


def started(app: FastAPI) -> str:
    """What a server is told when the application starts."""

    async def run() -> str:
        coming, sent = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}], []

        async def receive() -> Any:
            return coming.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        with suppress(RuntimeError):  # of what it has told
            await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
        return str(sent[0].get("message", sent[0]["type"]))

    return asyncio.run(run())


# --- what an endpoint declares ---------------------------------------------------------------------------------------


async def payment(connection: HTTPConnection) -> Access:
    assert isinstance(connection, Request)
    return Access(tool="pay", arguments=(await connection.json())["pay"])


def service() -> FastAPI:
    app = protected(public={"/health"})

    @app.get("/health")
    def health() -> str:
        with pytest.raises(NoToken):
            current.grant()
        return "well"

    @app.get("/sync")
    def sync(grant: Sales) -> list[Any]:
        """In a thread of the pool, where the context goes along."""
        return [grant.actor.name, current.grant() is grant, threading.current_thread() is threading.main_thread()]

    @app.get("/async")
    async def async_(grant: Sales) -> list[Any]:
        return [grant.actor.name, current.grant() is grant, threading.current_thread() is threading.main_thread()]

    @app.get("/market/{region}")
    def market(region: str, grant: Market) -> str:
        return region

    @app.get("/either/{region:path}")
    def either(region: str, grant: Market) -> str:
        return region

    @app.get("/{schema}/{table}/rows")
    def rows(
        schema: str, table: str, grant: Annotated[Grant, Depends(require(table="{schema}.{table}", operation="select"))]
    ) -> str:
        return f"{schema}.{table}"

    @app.get("/hr", dependencies=[Depends(require(table="hr", operation="select"))])
    def hr() -> str:
        raise AssertionError

    @app.get("/both", dependencies=[Depends(require(table="hr", operation="select"))])
    def both(grant: Sales) -> str:
        raise AssertionError

    @app.get("/inside")
    def inside(grant: Annotated[Grant, Depends(granted)], table: str) -> str:
        grant.authorize(Access(table=table, operation="select"))
        return table

    @app.post("/pay")
    def pay(body: dict[str, Any], grant: Annotated[Grant, Depends(require(payment))]) -> Any:
        return body["pay"]

    @app.get("/tool", dependencies=[Depends(require(tool="pay", arguments={"cents": 500}))])
    def tool() -> str:
        return "paid"

    @app.get("/more", dependencies=[Depends(require(tool="pay", arguments={"cents": 501}))])
    def more() -> str:
        raise AssertionError

    @app.get("/caller", dependencies=[Depends(require(table="sales", operation="select", caller=known_caller))])
    def caller() -> str:
        return "known"

    @app.get("/stream")
    def stream(grant: Sales) -> StreamingResponse:
        return StreamingResponse(current.grant().actor.name for _ in range(2))

    return app


def known_caller(connection: HTTPConnection) -> Caller:
    who = connection.headers.get("x-mtls-name")
    return Caller(agent=who) if who else None  # type: ignore[return-value]


SERVICE = service()
DENIED = "The token does not permit this request."


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/sync", 200, ["clerk", True, False]),
        ("/async", 200, ["clerk", True, True]),
        ("/market/eu", 200, "eu"),
        ("/market/a%20b", 200, "a b"),
        ("/either/a/b", 200, "a/b"),
        ("/market/rows/rows", 200, "market.rows"),
        ("/hr/salaries/rows", 403, None),
        ("/hr", 403, None),
        ("/both", 403, None),
        ("/inside?table=sales", 200, "sales"),
        ("/inside?table=hr", 403, None),
        ("/inside", 422, None),
        ("/tool", 200, "paid"),
        ("/more", 403, None),
        ("/caller", 403, None),
        ("/nowhere", 404, None),
    ],
)
def test_an_endpoint_runs_if_the_grant_permits_what_it_declares(path: str, status: int, said: Any) -> None:
    reply = call(SERVICE, path)
    assert reply.status_code == status
    if status == 200:
        assert reply.json() == said
    if status == 403:
        told = reply.json()
        assert (told["error"], told["error_description"], told["detail"]) == ("insufficient_scope", *[DENIED] * 2)
        assert told["code"] in ("table", "tool", "argument", "domain", "caller") and told["retry"] == "no"
        assert told["for_model"].startswith("Not permitted") and "orchestrator" not in reply.text
        assert (
            reply.headers["cache-control"] == "no-store" and 'error="insufficient_scope"' in reply.headers["www-authenticate"]
        )


@pytest.mark.parametrize("path", ["/sync", "/hr", "/nowhere", "/docs", "/openapi.json", "/health/", "/market/eu", "/pay"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
def test_nothing_answers_without_a_token(path: str, method: str) -> None:
    """A path that is there and one that is not are alike to a stranger."""
    reply = call(SERVICE, path, method, auth=None)
    assert reply.status_code == 401 and reply.headers["www-authenticate"] == f'Bearer realm="{ORIGIN}"'
    assert call(SERVICE, path, method, auth=None, headers={"Authorization": "Bearer cap1_AAAA"}).status_code == 401


def test_a_public_path_answers_without_one_and_with_a_bad_one() -> None:
    for headers in (None, {"Authorization": "Bearer cap1_AAAA"}):
        assert call(SERVICE, "/health", auth=None, headers=headers).json() == "well"


@pytest.mark.parametrize(
    "region", ["a.b", "%2a", "*", "a.*", ".", "..", "a%00b", "%20a", "a%20", "%E2%80%8B", "x" * 300, "{region}", "hr"]
)
def test_a_path_parameter_is_one_segment(region: str) -> None:
    """None leaves the place that the name gives it; `hr` is market.hr there, and nothing else."""
    status = call(SERVICE, f"/market/{region.replace('.', '%2e')}").status_code
    assert status == (200 if region in ("hr", "{region}") else 403)


@pytest.mark.parametrize(
    ("cost", "statuses"),
    [
        (None, [403]),
        ({"cents": 0}, [200, 200]),
        ({"cents": 6}, [200, 403]),
        (lambda connection: {"cents": int(connection.query_params["cents"])}, [200, 403]),
        (lambda connection: {"cents": "6"}, [403]),
    ],
)
def test_a_request_takes_what_it_costs_of_a_budget(cost: Any, statuses: list[int]) -> None:
    """Beside facts, with path parameters or without, and beside a function; what states its own cost keeps it."""
    paying = Issuer(KEYRING).mint(subject="user:jane", agent="orchestrator", task="task-1", budget={"cents": 10}, **CAVEATS)
    by_function = require(lambda asked: Access(table="sales", operation="select"), cost=cost)
    dear = require(lambda asked: Access(table="sales", operation="select", cost={"cents": 11}), cost=cost)
    for path, need, expected in (
        ("/facts", require(table="sales", operation="select", cost=cost), statuses),
        ("/named/{region}", require(table="market.{region}", operation="select", cost=cost), statuses),
        ("/function", by_function, statuses),
        ("/dear", dear, [403] * len(statuses)),
    ):
        app = protected(verifier=Verifier(KEYRING, audience="sales-api", ledger=MemoryLedger(shared=True, floor=0)))
        app.get(path, dependencies=[Depends(need)])(lambda: "served")
        asked = path.replace("{region}", "eu") + "?cents=6"
        held = {"auth": auth({ORIGIN: "sales-api"}, held=paying)}
        assert [call(app, asked, **held).status_code for _ in statuses] == expected, path
    with pytest.raises(TypeError, match="cost"):
        require(table="sales", operation="select", cost={"cents": 1.5})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"pay": {"cents": 5}}, 200),
        ({"pay": {"cents": 501}}, 403),
        ({"pay": {"cents": 5, "to": "me"}}, 403),
        ({"pay": {"cents": 5.0}}, 200),
        ({"pay": {"cents": 500.5}}, 403),
        ({"pay": {"cents": "5"}}, 403),
        ({"pay": {}}, 403),
        ({"pay": None}, 403),
        ({"pay": []}, 403),
        ({}, 403),
    ],
)
def test_an_access_can_be_read_from_the_request(body: Any, status: int) -> None:
    assert call(SERVICE, "/pay", "POST", json=body).status_code == status


def test_what_the_server_knows_of_the_caller_is_asked_about() -> None:
    """To know nobody is to know that it is not the one who may."""
    assert call(SERVICE, "/caller", headers={"x-mtls-name": "clerk"}).status_code == 200
    assert call(SERVICE, "/caller", headers={"x-mtls-name": "mallory"}).status_code == 403


def test_a_response_that_is_streamed_has_the_grant() -> None:
    assert call(SERVICE, "/stream").text == "clerkclerk"


WRONG: dict[str, tuple[Callable[[], Any], type[Exception]]] = {
    "nothing": (lambda: require(), TypeError),
    "a table alone": (lambda: require(table="sales"), ValueError),
    "an operation alone": (lambda: require(operation="select"), TypeError),
    "a pattern": (lambda: require(table="market.*", operation="select"), ValueError),
    "an empty segment": (lambda: require(table="market.", operation="select"), ValueError),
    "a brace": (lambda: require(table="market.{", operation="select"), ValueError),
    "an expression": (lambda: require(table="market.{region.name}", operation="select"), ValueError),
    "an empty field": (lambda: require(table="market.{}", operation="select"), ValueError),
    "arguments without a tool": (lambda: require(table="a", operation="select", arguments={}), ValueError),
    "a function and facts": (lambda: require(lambda _: Access(tool="x"), tool="x"), TypeError),
    "a table where the function is": (lambda: require("sales"), TypeError),  # type: ignore[arg-type]
    "a bad origin": (lambda: protect(FastAPI(), VERIFIER, origin="http://api.example"), ValueError),
    "a bad public path": (lambda: protect(FastAPI(), VERIFIER, origin=ORIGIN, public={"/{a}"}), ValueError),
    "no verifier": (lambda: protect(FastAPI(), KEYRING, origin=ORIGIN), TypeError),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize(("make", "error"), WRONG.values(), ids=WRONG)
def test_what_is_declared_wrongly_raises_at_once(make: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


# --- what is not declared --------------------------------------------------------------------------------------------


def ran() -> str:
    RAN.append("ran")
    return "ran"


RAN: list[str] = []
REQUIRED = require(table="sales", operation="select")


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


def forgotten(app: FastAPI) -> None:
    app.get("/forgotten")(ran)


def in_router(app: FastAPI) -> None:
    router, inner = APIRouter(prefix="/a"), APIRouter(prefix="/b")
    inner.get("/forgotten")(ran)
    router.include_router(inner)
    app.include_router(router)


def starlettes(app: FastAPI) -> None:
    app.add_route("/forgotten", lambda request: PlainTextResponse(ran()))


def mounted(app: FastAPI) -> None:
    inner = FastAPI()
    inner.get("/forgotten")(ran)
    app.mount("/mount", inner)


def files(app: FastAPI) -> None:
    app.mount("/forgotten", StaticFiles(directory="."))


def socket(app: FastAPI) -> None:
    @app.websocket("/forgotten")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()


FORGOTTEN = {each.__name__: each for each in (forgotten, in_router, starlettes, mounted, files, socket)}


@pytest.mark.parametrize("add", FORGOTTEN.values(), ids=FORGOTTEN)
def test_an_application_with_a_route_that_declares_nothing_does_not_start(add: Callable[[FastAPI], None]) -> None:
    app = protected()
    add(app)
    assert "forgotten requires nothing" in started(app)


@pytest.mark.parametrize("add", [forgotten, in_router, starlettes, mounted])
def test_and_answers_nothing_where_nobody_starts_it(add: Callable[[FastAPI], None]) -> None:
    app = protected(public={"/health"})
    app.get("/sales", dependencies=[Depends(require(table="sales", operation="select"))])(lambda: "rows")
    assert call(app, "/sales").status_code == 200
    add(app)  # while it runs
    paths = ("/forgotten", "/a/b/forgotten", "/mount/forgotten", "/sales")
    assert {call(app, path).status_code for path in paths} == {500}
    assert RAN == []


def test_a_request_takes_no_walk_of_the_routes() -> None:
    """Of our own functions as many are called for one route as for two hundred, wherever they stand."""

    def calls(routes: int) -> int:
        app, router, mounted = protected(), APIRouter(), FastAPI()
        for number in range(routes):
            for served_at in (app, router, mounted):
                served_at.get(f"/{number}", dependencies=[Depends(REQUIRED)])(lambda: "rows")
        app.include_router(router, prefix="/below")
        app.mount("/mount", mounted)
        assert call(app, "/0").status_code == 200  # looked at once
        found = 0

        def count(frame: Any, event: str, arg: Any) -> None:
            nonlocal found
            found += event == "call" and frame.f_code.co_filename == routes_file

        sys.setprofile(count)
        try:
            assert call(app, "/0").status_code == 200
        finally:
            sys.setprofile(None)
        return found

    routes_file = sys.modules["captoken.adapters._http.routes"].__file__
    assert 0 < calls(1) == calls(200)


def equal_but_open(app: FastAPI) -> None:
    """A route that compares equal to the one in whose place it stands."""
    app.router.routes.pop()
    app.get("/sales")(ran)
    app.router.routes[-1].endpoint = SOLD  # type: ignore[attr-defined]


def SOLD() -> str:
    return "rows"


def swapped(app: FastAPI) -> None:
    inner = FastAPI()
    inner.get("/forgotten")(ran)
    app.mount("/mount", inner)
    app.router.routes.insert(0, app.router.routes.pop())


def list_replaced(app: FastAPI) -> None:
    other = FastAPI()
    other.get("/sales")(ran)
    app.router.routes = other.router.routes


@pytest.mark.parametrize("change", [equal_but_open, swapped, list_replaced])
def test_whatever_takes_the_place_of_what_was_looked_at_is_looked_at(change: Callable[[FastAPI], None]) -> None:
    app = protected()
    app.get("/sales", dependencies=[Depends(REQUIRED)])(SOLD)
    assert call(app, "/sales").status_code == 200
    change(app)
    assert {call(app, path).status_code for path in ("/sales", "/mount/forgotten")} == {500}
    assert RAN == []


def test_a_route_that_comes_later_and_far_below_does_not_run() -> None:
    inner, app = APIRouter(), protected()
    inner.get("/sales", dependencies=[Depends(require(table="sales", operation="select"))])(lambda: "rows")
    app.include_router(inner)
    assert call(app, "/sales").status_code == 200
    inner.get("/late")(ran)
    assert call(app, "/late").status_code in (404, 500) and RAN == []


def popped(app: FastAPI) -> None:
    """As many routes as before."""
    app.router.routes.pop()
    app.post("/forgotten")(ran)


def overridden(app: FastAPI) -> None:
    """No route is added."""
    app.dependency_overrides[REQUIRED] = lambda: None


def overridden_below(app: FastAPI) -> None:
    def wrapping(grant: Annotated[Grant, Depends(REQUIRED)]) -> None: ...

    app.post("/forgotten", dependencies=[Depends(wrapping)])(ran)
    app.dependency_overrides[wrapping] = lambda: None


def default(app: FastAPI) -> None:
    async def run(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(ran())(scope, receive, send)

    app.router.default = run


def page(app: FastAPI) -> None:
    app.post("/docs")(ran)


def page_below(app: FastAPI) -> None:
    inner = FastAPI(docs_url="/forgotten")
    inner.post("/forgotten")(ran)
    app.mount("/mount", inner)


def wrapped(app: FastAPI) -> None:
    """It says which routes it has, and serves something else."""

    class Wrapped:
        routes: list[Any] = []

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse(ran())(scope, receive, send)

    app.mount("/mount", Wrapped())


def in_mount_of_router(app: FastAPI) -> None:
    router, inner = APIRouter(prefix="/a"), FastAPI()
    inner.post("/forgotten")(ran)
    router.mount("/mount", inner)
    app.include_router(router)


def leaves_it_to_nobody(app: FastAPI) -> None:
    """A good token, and nobody who asks the grant."""
    router = APIRouter(dependencies=[Depends(granted)])
    router.post("/forgotten")(ran)
    app.include_router(router)


def listed(app: FastAPI) -> None:
    app.post("/forgotten", dependencies=[Depends(granted)])(ran)


def front(app: FastAPI) -> None:
    app.frontend("/", directory="docs", check_dir=False)


ELSEWHERE = [popped, overridden, overridden_below, default, page, page_below, wrapped, leaves_it_to_nobody, listed]
NEWER = hasattr(APIRouter, "frontend")  # older FastAPI serves neither of these
ELSEWHERE += [in_mount_of_router, front] if NEWER else []


@pytest.mark.parametrize("add", ELSEWHERE, ids=lambda add: add.__name__)
def test_whatever_is_served_without_a_declared_access_stops_the_application(add: Callable[[FastAPI], None]) -> None:
    """When it starts, and while it runs: nothing of it runs first."""
    app = protected()
    app.get("/sales", dependencies=[Depends(REQUIRED)])(lambda: "rows")
    assert call(app, "/sales").status_code == 200
    add(app)
    targets = ("/forgotten", "/docs", "/mount/forgotten", "/a/mount/forgotten", "/mount/x", "/sales", "/http.md")
    assert {call(app, path, method).status_code for path in targets for method in ("GET", "POST")} == {500}
    assert "requires nothing" in started(app)
    assert RAN == []


def front_end_behind_a_router_that_requires_is_served() -> None:
    app = protected()
    for table in ("sales", "hr"):
        router = APIRouter(prefix=f"/{table}", dependencies=[Depends(require(table=table, operation="select"))])
        router.frontend("/", directory="docs")
        app.include_router(router)
    assert started(app) == "lifespan.startup.complete"
    assert (call(app, "/sales/http.md").status_code, call(app, "/hr/http.md").status_code) == (200, 403)


if NEWER:
    test_a_front_end_behind_a_router_that_requires_is_served = front_end_behind_a_router_that_requires_is_served


class Cached(APIRoute):
    """Answers by itself, and asks none of what the endpoint declares."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            return PlainTextResponse("secret", int(request.url.path[-3:]), {"x-secret": "secret"})

        return handle


@pytest.mark.parametrize("status", [200, 307, 404, 409, 418, 500])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_answer_for_which_nothing_was_asked_says_nothing(status: int, method: str) -> None:
    app, router = protected(), APIRouter(route_class=Cached)
    router.api_route(f"/{status}", methods=["GET", "HEAD"], dependencies=[Depends(require(table="hr", operation="select"))])(
        ran
    )
    app.include_router(router)
    reply = call(app, f"/{status}", method)
    assert reply.status_code == (status if status >= 400 else 403)
    assert "secret" not in reply.text + str(reply.headers) and RAN == []


def test_a_body_that_cannot_be_read_is_told_so_and_no_more() -> None:
    app = protected()

    @app.post("/hr", dependencies=[Depends(require(table="hr", operation="select"))])
    def hr(body: dict[str, Any]) -> None:
        ran()

    headers = {"content-type": "application/json"}
    assert call(app, "/hr", "POST", headers=headers, json={}).status_code == 403

    async def broken() -> httpx.Response:
        async with client(app) as opened:
            return await opened.post("/hr", headers=headers, content=b"{broken")

    reply = asyncio.run(broken())
    assert reply.status_code == 422 and list(reply.json()) == ["detail"] and isinstance(reply.json()["detail"], str)


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("accept", ["text/html", "*/*"])
def test_a_denial_in_an_application_that_is_mounted_is_a_denial(debug: bool, accept: str) -> None:
    app, inner = protected(), FastAPI(debug=debug)
    inner.get("/hr", dependencies=[Depends(require(table="hr", operation="select"))])(ran)

    @inner.get("/asks")
    def asks(grant: Mine) -> None:
        grant.authorize(Access(table="hr", operation="select"))

    @inner.get("/fault")
    def fault(grant: Mine) -> None:
        raise LookupError("a fault")

    app.mount("/mount", inner)
    for path in ("/mount/hr", "/mount/asks"):
        reply = call(app, path, headers={"accept": accept})
        assert reply.status_code == 403 and reply.json()["error"] == "insufficient_scope"
        assert reply.json()["needed"] == {"allow": {"hr": ["select"]}}
        assert "link" not in reply.text and "orchestrator" not in reply.text  # what the operator is told
    reply = call(app, "/mount/fault", headers={"accept": accept})
    assert reply.status_code == 500 and ("a fault" in reply.text) is debug


def test_documentation_is_refused_unless_it_is_public() -> None:
    app = protected()
    assert started(app) == "lifespan.startup.complete"
    assert {call(app, path).status_code for path in ("/docs", "/redoc", "/openapi.json")} == {403}
    assert call(app, "/docs", auth=None).status_code == 401
    app = protected(public={"/openapi.json"})
    assert call(app, "/openapi.json", auth=None).status_code == 200


def test_what_is_public_and_requires_a_token_is_a_contradiction() -> None:
    app = protected(public={"/sales"})
    app.get("/sales", dependencies=[Depends(require(table="sales", operation="select"))])(lambda: "rows")
    assert "/sales is public, and requires a token" in started(app)


def test_a_field_that_the_path_does_not_have_is_found_at_the_start() -> None:
    app = protected()
    app.get("/market/{name}", dependencies=[Depends(require(table="market.{region}", operation="select"))])(lambda: "rows")
    assert "/market/{name} has no parameter region" in started(app)


def test_what_is_declared_starts() -> None:
    app = protected(public={"/health", "/plain"})
    app.get("/health")(lambda: "well")
    app.add_route("/plain", lambda request: PlainTextResponse("plain"))
    router = APIRouter(prefix="/{region}", dependencies=[Depends(require(table="market.{region}", operation="select"))])
    router.get("/rows")(lambda: "rows")
    app.include_router(router, prefix="/market")
    inner = FastAPI()

    @inner.get("/me")
    def me(grant: Mine) -> str:
        return current.grant().actor.name

    app.mount("/inner", inner)
    app.mount("/files", Requires(StaticFiles(directory="."), Access(table="sales", operation="select")))
    app.mount("/hidden", Requires(StaticFiles(directory="."), Access(table="hr", operation="select")))
    assert started(app) == "lifespan.startup.complete"
    assert call(app, "/market/eu/rows").json() == "rows"
    assert call(app, "/market/e.u/rows").status_code == 403
    assert call(app, "/inner/me").json() == "clerk"
    assert call(app, "/inner/docs").status_code == 403
    assert call(app, "/files/README.md").status_code == 200
    assert call(app, "/hidden/README.md").status_code == 403
    assert call(app, "/plain", auth=None).text == "plain"


def test_without_the_guard_an_endpoint_that_requires_answers_503() -> None:
    app = FastAPI()
    app.get("/sales", dependencies=[Depends(require(table="sales", operation="select"))])(ran)
    app.get("/mine", dependencies=[Depends(granted)])(ran)
    assert {call(app, path).status_code for path in ("/sales", "/mine")} == {503}
    with current.serving(VERIFIER.authenticate(HELD.present(audience="sales-api"))):  # what another request was granted
        assert {call(app, path).status_code for path in ("/sales", "/mine")} == {503}
    assert RAN == []


def test_the_middleware_alone_serves_what_requires() -> None:
    app = FastAPI()
    app.get("/sales", dependencies=[Depends(require(table="sales", operation="select"))])(lambda: "rows")
    app.get("/hr", dependencies=[Depends(require(table="hr", operation="select"))])(lambda: "rows")
    app.add_middleware(CaptokenMiddleware, verifier=VERIFIER, origin=ORIGIN)
    assert (call(app, "/sales").status_code, call(app, "/hr").status_code) == (200, 403)


# --- beside other middleware -----------------------------------------------------------------------------------------


class Slow(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)


@pytest.mark.parametrize("outside", [True, False])
def test_middleware_of_starlettes_own_kind_changes_nothing(outside: bool) -> None:
    app = FastAPI()
    if not outside:
        app.add_middleware(Slow)
    protect(app, VERIFIER, origin=ORIGIN)
    if outside:
        app.add_middleware(Slow)

    @app.get("/sales")
    def sales(grant: Sales, tasks: BackgroundTasks) -> str:
        tasks.add_task(lambda: RAN.append(current.grant().actor.name))
        return current.grant().actor.name

    app.get("/hr", dependencies=[Depends(require(table="hr", operation="select"))])(ran)

    @app.get("/late/{x}")
    def late(x: str, grant: Mine) -> str:
        current.grant().authorize(Access(table=x, operation="select"))
        return x

    assert call(app, "/sales").json() == "clerk"
    assert RAN == ["clerk"]  # after the response
    assert (call(app, "/hr").status_code, call(app, "/late/hr").status_code, call(app, "/late/sales").status_code) == (
        403,
        403,
        200,
    )


def test_preflights_are_answered_by_what_stands_outside() -> None:
    app = FastAPI()
    app.get("/sales", dependencies=[Depends(require(table="sales", operation="select"))])(lambda: "rows")
    protect(app, VERIFIER, origin=ORIGIN)
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "Authorization",
    }
    assert call(app, "/sales", "OPTIONS", auth=None, headers=asked).status_code == 401
    app = FastAPI()
    app.get("/sales", dependencies=[Depends(require(table="sales", operation="select"))])(lambda: "rows")
    protect(app, VERIFIER, origin=ORIGIN)
    app.add_middleware(CORSMiddleware, allow_origins=["https://app.example"], allow_headers=["Authorization"])
    assert call(app, "/sales", "OPTIONS", auth=None, headers=asked).status_code == 200
    refused = call(app, "/sales", auth=None, headers={"Origin": "https://app.example"})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://app.example"


def test_other_errors_stay_what_they_are() -> None:
    app = protected()

    @app.get("/teapot")
    def teapot(grant: Mine) -> None:
        raise HTTPException(418, "short and stout", headers={"x-tea": "earl grey"})

    @app.get("/fault")
    def fault(grant: Mine) -> None:
        raise LookupError("a fault")

    assert (call(app, "/teapot").status_code, call(app, "/fault").status_code) == (418, 500)
    assert call(app, "/teapot").json() == {"detail": "short and stout"} and call(app, "/teapot").headers["x-tea"] == "earl grey"
    assert call(app, "/nowhere").json() == {"detail": "Not Found"}


def test_an_application_that_swallows_denials_tells_nothing_undeclared() -> None:
    app = protected()

    @app.exception_handler(Denied)
    async def swallow(request: Request, denied: Denied) -> Response:
        return PlainTextResponse("let it through")

    app.get("/hr", dependencies=[Depends(require(table="hr", operation="select"))])(ran)
    assert call(app, "/hr").status_code == 403 and RAN == []


class Region(StrEnum):
    EU = "eu"


def test_the_text_of_the_url_is_what_is_asked_for() -> None:
    app = protected()

    @app.get("/market/{region}")
    def market(region: Region, grant: Market) -> str:
        return region.value

    assert call(app, "/market/eu").json() == "eu"
    assert call(app, "/market/EU").status_code == 422


class Trail:
    def __init__(self) -> None:
        self.records: list[tuple[str, bool, str | None]] = []

    def record(self, decision: Decision) -> None:
        here = threading.current_thread() is threading.main_thread()
        self.records.append((decision.code, here, current.trace()))


def test_each_decision_is_recorded_off_the_event_loop_and_under_the_trace_that_came() -> None:
    trail = Trail()
    app = protected(verifier=Verifier(KEYRING, audience="sales-api", audit=trail))
    app.get("/sales", dependencies=[Depends(require(table="sales", operation="select"))])(lambda: "rows")
    app.get("/hr", dependencies=[Depends(require(table="hr", operation="select"))])(lambda: "rows")
    with current.traced() as trace:
        assert (call(app, "/sales").status_code, call(app, "/hr").status_code) == (200, 403)
    assert trail.records == [("allowed", False, trace)] * 3 + [("table", False, trace)]


# --- OpenAPI ---------------------------------------------------------------------------------------------------------


def test_openapi_shows_what_needs_a_token() -> None:
    schema = SERVICE.openapi()
    scheme = schema["components"]["securitySchemes"]["captoken"]
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "captoken")
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            open_ = path == "/health"
            assert operation.get("security") == (None if open_ else [{"captoken": []}]), path
            assert ({"401", "403"} <= operation["responses"].keys()) is not open_, path
    assert schema == SERVICE.openapi()


def test_what_an_endpoint_requires_can_be_read() -> None:
    declared = require(table="market.{region}", operation="select", tool="pay")
    assert isinstance(declared, Required)
    assert repr(declared) == "<Required: select on table market.{region} and tool pay()>"


# --- a real server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=SERVERS)
def origin(request: pytest.FixtureRequest) -> Iterator[str]:
    app, port = FastAPI(), listening()
    protect(app, VERIFIER, origin=origin_of(port))

    @app.get("/sales")
    def sales(grant: Sales) -> str:
        return grant.actor.name

    @app.websocket("/talk/{region}")
    async def talk(websocket: WebSocket, region: str, grant: Market) -> None:
        await websocket.accept()
        await websocket.send_text(f"{current.grant().actor.name} {region}")
        await websocket.receive_text()
        current.grant().authorize(Access(table="hr", operation="select"))

    with served(app, port, request.param, lifespan="on") as at:
        yield at


def test_it_works_over_a_wire(origin: str) -> None:
    with httpx.Client(base_url=origin, auth=auth({origin: "sales-api"}, held=HELD), trust_env=False) as opened:
        assert opened.get("/sales").json() == "clerk"


def test_a_websocket_declares_what_it_needs(origin: str) -> None:
    def talk(path: str, token: str) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        return websockets.sync.client.connect(origin.replace("http", "ws") + path, additional_headers=headers)

    token = HELD.present(audience="sales-api")
    with talk("/talk/eu", token) as opened:
        assert opened.recv() == "clerk eu"
        opened.send("go on")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            opened.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
    for path, sent, status in (("/talk/e%2eu", token, 403), ("/talk/eu", "cap1_AAAA", 401)):
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused, talk(path, sent):
            pass
        assert refused.value.response.status_code == status


def test_a_tests_client_is_told_what_is_forgotten_and_by_which_method() -> None:
    app = protected()

    @app.post("/notes")
    def forgotten() -> None: ...

    with pytest.raises(RuntimeError, match="POST /notes requires nothing"), TestClient(app):
        pass


@pytest.mark.parametrize("where", ["arguments", "attributes"])
def test_a_path_parameter_is_not_written_where_it_would_be_taken_literally(where: str) -> None:
    with pytest.raises(ValueError, match="state arguments and attributes with a function"):
        require(tool="notes.delete", **{where: {"project": "{project}"}})
    assert require(tool="notes.delete", **{where: {"project": "{"}})


# --- both faces of a verifier ----------------------------------------------------------------------------------------

KEY = HolderKey.from_bytes(bytes(range(32)))
BOUND = Issuer(KEYRING).mint(subject="user:jane", agent="clerk", task="task-1", key=KEY.public, **CAVEATS)


def awaiting() -> FastAPI:
    """Endpoints that await their grant, and one in a thread, that does not. Each is new for its event loop."""
    app = protected(verifier=AsyncVerifier(KEYRING, audience="sales-api", replays=MemoryReplayStore(floor=0)))

    @app.get("/declared")
    async def declared(
        request: Request, grant: Annotated[AsyncGrant, Depends(require(table="sales", operation="select"))]
    ) -> list[Any]:
        same = current.grant() is grant and request.scope["captoken.grant"] is grant
        return [type(grant).__name__, same, "authorization" in request.headers, "cap1" in str(request.headers)]

    @app.get("/inside/{table}")
    async def inside(table: str, grant: Annotated[AsyncGrant, Depends(granted)]) -> str:
        await grant.authorize(Access(table=table, operation="select"))
        return grant.actor.name

    @app.get("/thread/{table}")
    def thread(table: str, grant: Annotated[AsyncGrant, Depends(granted)]) -> str:
        assert current.grant(Grant) is grant.blocking
        return grant.blocking.authorize(Access(table=table, operation="select")).actor.name

    @app.get("/hr", dependencies=[Depends(require(table="hr", operation="select"))])
    async def hr() -> str:
        raise AssertionError

    return app


@pytest.mark.parametrize("held", [HELD, Held(BOUND, KEY)], ids=["bearer", "bound"])
def test_an_endpoint_gets_the_grant_of_an_async_verifier(held: Any) -> None:
    shown = auth({ORIGIN: "sales-api"}, held=held)
    assert call(awaiting(), "/declared", auth=shown).json() == ["AsyncGrant", True, False, False]
    for path in ("/inside/sales", "/thread/sales"):
        assert call(awaiting(), path, auth=shown).json() == "clerk"
    for path in ("/inside/hr", "/thread/hr", "/hr"):
        refused = call(awaiting(), path, auth=shown)
        assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")


def test_a_text_with_a_proof_is_taken_from_the_authorization_header_once() -> None:
    """By a FastAPI application as by any: beside it, in another header, in the query or twice, it refuses the request."""
    app = protected(verifier=Verifier(KEYRING, audience="sales-api", replays=MemoryReplayStore(floor=0)))

    @app.get("/seen")
    async def seen(request: Request, grant: Mine) -> str:
        return str(request.headers) + str(request.url)

    request = auth({ORIGIN: "sales-api"}, held=Held(BOUND, KEY))(httpx.Request("GET", f"{ORIGIN}/seen"))
    header = request.headers["authorization"]
    text = header.removeprefix("Bearer ")
    for headers in ({"x-token": text}, {"cookie": f"token={text}"}, {"authorization": header, "x-token": text}):
        assert call(app, "/seen", headers=headers, auth=None).status_code == 400, headers
    assert call(app, f"/seen?t={text}", headers={"authorization": header}, auth=None).status_code == 400
    taken = call(app, "/seen", headers={"authorization": header}, auth=None)
    assert taken.status_code == 200 and "cap1" not in taken.text
    assert call(app, "/seen", headers={"authorization": header}, auth=None).status_code == 401  # it is spent


def test_a_dependency_that_yields_holds_a_token_if_it_is_a_coroutine() -> None:
    """A plain one is entered in a worker thread, whose context is gone before the endpoint runs: it says so."""

    async def asking() -> Any:
        with current.use(HELD):
            yield

    def in_a_thread() -> Iterator[None]:
        with current.use(HELD):
            yield

    app = FastAPI()

    @app.get("/good", dependencies=[Depends(asking)])
    async def good() -> str:
        return current.holding().token.unverified.holder

    @app.get("/bad", dependencies=[Depends(in_a_thread)])
    async def bad() -> None:
        raise AssertionError

    assert call(app, "/good", auth=None).json() == HELD.unverified.holder
    with pytest.raises(RuntimeError, match="worker thread"):
        TestClient(app).get("/bad")


def test_an_endpoint_states_the_row_that_it_loads() -> None:
    """As it is stored and as it will be."""
    stored = {"7": {"tenant": "acme"}, "8": {"tenant": "globex"}}
    asked: list[str] = []

    def row(connection: HTTPConnection) -> Any:
        asked.append("row")
        return stored.get(connection.path_params["number"])

    async def becomes(connection: HTTPConnection) -> Any:
        asked.append("becomes")
        return {"tenant": connection.query_params["tenant"]}

    app = FastAPI()
    protect(app, VERIFIER, origin=ORIGIN)
    reads = require(table="orders", operation="select", row=row)
    moves = require(lambda _: Access(table="orders", operation="update"), row=row, becomes=becomes)

    @app.get("/orders/{number}", dependencies=[Depends(reads)])
    def read(number: str) -> str:
        return number

    @app.put("/orders/{number}", dependencies=[Depends(moves)])
    def move(number: str) -> str:
        return number

    held = Issuer(KEYRING).mint(
        subject="user:jane", agent="clerk", task="task-1", tables=["*"], operations=["*"], rows={"orders": {"tenant": {"in": ["acme"]}}}
    )
    mine = {"auth": auth({ORIGIN: "sales-api"}, held=held)}
    assert call(app, "/orders/7", **mine).status_code == 200 and asked == ["row"]
    assert call(app, "/orders/8", **mine).status_code == call(app, "/orders/9", **mine).status_code == 403
    assert call(app, "/orders/7?tenant=acme", "PUT", **mine).status_code == 200
    assert call(app, "/orders/7?tenant=globex", "PUT", **mine).status_code == 403
    assert call(app, "/orders/7", "PUT", **mine).status_code == 403  # it raised: there is no such parameter
    assert call(app, "/orders/8?tenant=acme", "PUT", **mine).status_code == 403
    asked.clear()
    assert call(app, "/orders/7", headers={"authorization": "Bearer cap1_x"}, auth=None).status_code == 401 and asked == []
    with pytest.raises(TypeError, match="row and becomes must be functions"):
        require(table="orders", operation="select", row={"tenant": "acme"})  # type: ignore[arg-type]
