"""How long each guard and service holds the event loop, at the largest input that it takes.

    python -m tests.gaps            every case; fails where one is above the bar
    python -m tests.gaps issuance   those of one partner: asgi, mcp, …

Beside each request runs a task that does nothing but come again: the longest time between two of
its turns is the gap, by the processor time of the loop's thread: whatever else the machine does is no
part of it. Of several runs the least one counts, since caches and the collector differ.
No test of the suite asserts a time: this is a session of `noxfile.py`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from time import thread_time
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlencode

from captoken import Access, AsyncVerifier, Issuer, Keyring, Verifier, current
from captoken._language import bounds
from captoken.adapters._mcp.gate import Gate
from captoken.adapters._mcp.messages import TOKEN, Message, NotLetIn
from captoken.adapters.asgi import CaptokenMiddleware, Requires
from captoken.adapters.discharge_service import DischargeService
from captoken.discharge import Allow, Discharger
from captoken.keys import DischargerKey, HolderKey
from captoken.proof import http_request, mcp_request
from captoken.stores.memory import MemoryReplayStore
from captoken.tools import ToolGuard

BAR = 0.020
RUNS = 7

KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
KEY = HolderKey.from_bytes(bytes(range(32)))
WHO: dict[str, Any] = {"subject": "user:jane", "agent": "clerk", "task": "task-1"}
TOOLS = {"tools": {"*": {}, "listed": {"q": {"each": {"any": True}}}}}
HELD = Issuer(KEYRING).mint(**WHO, **TOOLS)
BOUND = Issuer(KEYRING).mint(**WHO, **TOOLS, key=KEY.public)
ORIGIN = "https://api.example"
FORM = (b"content-type", b"application/x-www-form-urlencoded")
JSON = (b"content-type", b"application/json")

Case = tuple[str, Callable[[], Awaitable[object]]]


async def longest(ask: Callable[[], Awaitable[object]]) -> float:
    """The longest gap of the loop while `ask` is answered."""
    gap = 0.0
    over = False

    async def come_again() -> None:
        nonlocal gap
        before = thread_time()
        while not over:
            await asyncio.sleep(0)
            now = thread_time()
            gap, before = max(gap, now - before), now

    coming = asyncio.create_task(come_again())
    await asyncio.sleep(0)
    inner = await ask()
    await asyncio.sleep(0)
    over = True
    await coming
    return inner if isinstance(inner, float) else gap  # of a case that measures by itself


async def send(
    app: Any, path: str, *headers: tuple[bytes, bytes], body: bytes = b"", query: bytes = b"", raw: bytes | None = None, method: str = "POST"
) -> tuple[int, bytes]:
    """One request, whose body comes as one piece; the status, and what is answered."""
    answered: list[Any] = []
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return left.pop() if left else await asyncio.Event().wait()

    async def take(message: Any) -> None:
        answered.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode() if raw is None else raw, "root_path": "",
        "query_string": query, "headers": list(headers), "extensions": {}, "client": ("127.0.0.1", 1),
    }  # fmt: skip
    await app(scope, receive, take)
    return answered[0]["status"], b"".join(one.get("body", b"") for one in answered[1:])


def filled(most: int) -> Iterator[tuple[str, bytes]]:
    """Texts of that length, each of which makes one kind of reader slow."""
    for unit in (b"%", b"%41", b"%4", b"%41x", b"%63ap1_", b"cap1_a", b"a=&", b"access_token", b"a"):
        yield f"{unit.decode()}…", (unit * (most // len(unit) + 1))[:most]


def values(most: int) -> Iterator[tuple[str, Any]]:
    """JSON of that size, by the count of 24.26, each of another shape."""
    yield "a string", "x" * (most - 64)
    yield "arrays", [[]] * (most // 18 - 8)
    yield "objects", [{}] * (most // 18 - 8)
    yield "numbers", [0.5] * (most // 40 - 8)
    yield "short strings", [f"{number}" for number in range(most // 26)]
    yield "keys", {f"k{number:05}": True for number in range(most // 48)}
    yield "wide characters", "\U0001f600" * (most // 4 - 64)


def beyond() -> Iterator[tuple[str, Any]]:
    """What is refused for its size, and could be slow before that."""
    yield "4 million numbers", [0] * 4_000_000
    yield "a million arrays", [[] for _ in range(1_000_000)]
    yield "deep arrays", json.loads("[" * 900 + "]" * 900)


def shown(text: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {text}".encode()


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


# --- by adapter -----------------------------------------------------------------------------------


def of_asgi() -> Iterator[Case]:
    verifier = AsyncVerifier(KEYRING, "api", replays=MemoryReplayStore(floor=0))
    app = CaptokenMiddleware(plain, verifier, origin=ORIGIN)
    bearer = shown(HELD.present(audience="api"))

    def proven(target: bytes, body: bytes) -> tuple[bytes, bytes]:
        return shown(BOUND.present(audience="api", signer=KEY, request=http_request("POST", ORIGIN, target, body)))

    for name, text in filled(bounds.TARGET_BYTES - 8):
        yield f"asgi: a query of {name}", lambda text=text: send(app, "/", bearer, query=text)
        yield f"asgi: a query of {name}, from a stranger", lambda text=text: send(app, "/", query=text)
        path = b"/" + text
        yield f"asgi: a path of {name}, with a proof", lambda path=path: send(app, unquote(path.decode()), proven(path, b""), raw=path)
    for name, text in filled(bounds.HEADER_BYTES - 2048):
        yield f"asgi: a header of {name}", lambda text=text: send(app, "/", bearer, (b"x", b"cap1" + text))
    many = [(b"a", b"")] * (bounds.HEADER_BYTES // 33 - 100)
    yield "asgi: headers, as many as may be", lambda: send(app, "/", bearer, *many)
    for name, text in filled(bounds.FORM_BYTES):
        yield f"asgi: a form of {name}", lambda text=text: send(app, "/", bearer, FORM, body=text)
    for name, text in filled(1 << 20):
        yield f"asgi: a form of 1 MiB of {name}", lambda text=text: send(app, "/", bearer, FORM, body=text)
    body = b"x" * bounds.BODY_BYTES
    yield "asgi: a body with a proof", lambda: send(app, "/", proven(b"/", body), body=body)

    async def stating(scope: Any, receive: Any, answer: Any) -> None:
        arguments = json.loads((await receive())["body"])
        needed = Requires(plain, lambda _: Access(tool="listed", arguments=arguments))
        await needed(scope, receive, answer)

    reading = CaptokenMiddleware(stating, verifier, origin=ORIGIN)
    for name, value in values(bounds.FACTS - 64):
        said = json.dumps({"q": value}).encode()
        yield f"asgi: a function that states {name}", lambda said=said: send(reading, "/", bearer, JSON, body=said)


def of_fastapi() -> Iterator[Case]:
    from fastapi import Depends, FastAPI, Request

    from captoken.adapters.fastapi import protect, require

    app = FastAPI(openapi_url=None)
    protect(app, AsyncVerifier(KEYRING, "api"), origin=ORIGIN)

    async def stated(asked: Any) -> Access:
        return Access(tool="listed", arguments=await asked.json())

    stated.__annotations__ = {"asked": Request}

    @app.post("/", dependencies=[Depends(require(stated))])
    async def served() -> None: ...

    for name, value in values(bounds.FACTS - 64):
        said = json.dumps({"q": value}).encode()
        bearer = shown(HELD.present(audience="api"))
        yield f"fastapi: a function that states {name}", lambda said=said, bearer=bearer: send(app, "/", bearer, JSON, body=said)


def of_tools() -> Iterator[Case]:
    guard = ToolGuard(AsyncVerifier(KEYRING))

    async def called(value: Any, tool: str) -> None:
        with current.use(HELD):
            await guard.check_async(tool, {"q": value}, agent="clerk")

    for name, value in [*values(bounds.FACTS - 64), *beyond()]:
        for tool in ("listed", "other"):
            yield f"tools: {tool}, with {name}", lambda value=value, tool=tool: called(value, tool)


def of_mcp() -> Iterator[Case]:
    verifier = AsyncVerifier(KEYRING, "mcp", replays=MemoryReplayStore(floor=0))
    gate = Gate(verifier)
    bare = Gate(verifier).challenging(plain, resource=f"{ORIGIN}/mcp", resource_metadata={"authorization_servers": [ORIGIN]})

    async def came(value: Any, signed: bool) -> None:
        params: dict[str, Any] = {"name": "listed", "arguments": {"q": value}}
        text = HELD.present(audience="mcp")
        if signed:  # of other arguments: it is the digest that costs
            text = BOUND.present(audience="mcp", signer=KEY, request=mcp_request("tools/call", "listed", b"{}"))
        with suppress(NotLetIn):
            await gate.admitted(Message("tools/call", {**params, "_meta": {TOKEN: text}}, None))

    for name, value in [*values(bounds.FACTS - 64), *beyond()]:
        yield f"mcp: a call with {name}", lambda value=value: came(value, False)
        yield f"mcp: a call with {name} and a proof", lambda value=value: came(value, True)
    for name, text in [*filled(bounds.BODY_BYTES), ("[…", b"[" * bounds.BODY_BYTES), ("[[],…", b"[" + b"[]," * (bounds.BODY_BYTES // 3 - 2) + b"0]"),
                       ("[{},…", b"[" + b"{}," * (bounds.BODY_BYTES // 3 - 2) + b"0]"), ("0,…", b"[" + b"0," * (bounds.BODY_BYTES // 2 - 2) + b"0]")]:  # fmt: skip
        yield f"mcp: a message of {name}, from a stranger", lambda text=text: send(bare, "/mcp", JSON, body=text)


def of_a2a() -> Iterator[Case]:
    from a2a.server.context import ServerCallContext
    from a2a.types import a2a_pb2 as pb
    from google.protobuf.json_format import MessageToDict

    from captoken.adapters.a2a import GuardedHandler

    verifier = Verifier(KEYRING, "a2a")

    class Rest:
        async def on_get_task(self, params: Any, context: Any) -> None: ...

    def stated(params: Any) -> Access:
        return Access(tool="listed", arguments={"q": MessageToDict(params).get("id", "")})

    handler = GuardedHandler(Rest(), other=stated)  # type: ignore[arg-type]

    async def asked(params: Any) -> None:
        grant = verifier.authenticate(HELD.present(audience="a2a"))
        context = ServerCallContext(state={"captoken.grant": grant})
        with suppress(Exception):  # whatever the SDK calls a refusal
            await handler.on_get_task(params, context)

    short, long = pb.GetTaskRequest(id="x" * (bounds.BODY_BYTES - 64)), pb.GetTaskRequest(id="x" * (4 << 20))
    yield "a2a: a call", lambda: asked(short)
    yield "a2a: a call of 4 MiB", lambda: asked(long)


def of_grpc() -> Iterator[Case]:
    import grpc

    from captoken.adapters.grpc import AsyncGuard

    async def answer(message: Any, context: Any) -> bytes:
        return b""

    def stated(message: Any) -> Access:
        return Access(tool="listed", arguments={"q": message})

    async def called(value: Any) -> float:
        guard = AsyncGuard(AsyncVerifier(KEYRING, "rpc"), {"/a.B/C": stated})
        method = grpc.unary_unary_rpc_method_handler(answer, request_deserializer=json.loads)
        server = grpc.aio.server(interceptors=[guard])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"C": method}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        sent = json.dumps(value).encode()
        metadata = (("authorization", f"Bearer {HELD.present(audience='rpc')}"),)

        def ask() -> None:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, suppress(grpc.RpcError):
                channel.unary_unary("/a.B/C")(sent, metadata=metadata)

        await asyncio.sleep(0.02)
        gap = await longest(lambda: asyncio.to_thread(ask))
        await server.stop(None)
        return gap

    for name, value in [*values(bounds.BODY_BYTES - 64), ("3 MiB", "x" * (3 << 20))]:
        yield f"grpc: a call with {name}", lambda value=value: called(value)


def of_discharges() -> Iterator[Case]:
    service = DischargeService(Discharger(DischargerKey.generate(), lambda need: Allow(expires_in=60)), origin=ORIGIN, approver=lambda scope, need: "jane")
    path = "/.well-known/captoken/3p"
    for name, text in [*filled(bounds.DISCHARGE_BYTES), ("[…", b"[" * bounds.DISCHARGE_BYTES), ("a ticket", json.dumps({"ticket": "A" * 8000}).encode())]:
        yield f"discharges: {name}", lambda text=text: send(service, path, JSON, body=text)
        yield f"discharges: a query of {name}", lambda text=text: send(service, path, JSON, query=text * 4)


def of_issuance() -> Iterator[Case]:
    from tests.issuance import saml_idp, test_issuance, test_must_deny, test_saml_service
    from tests.issuance.test_issuance import World, nightly

    world = World()
    for name, text in filled(bounds.ISSUANCE_BYTES - 16):
        yield f"issuance: a field of {name}", lambda text=text: send(world.app, "/token", FORM, body=b"grant_type=" + text)
        for path in ("/token", "/logout/backchannel"):
            yield f"issuance: {path} with {name}", lambda text=text, path=path: send(world.app, path, FORM, body=text)
        yield f"issuance: /signals with {name}", lambda text=text: send(world.app, "/signals", (b"content-type", b"application/secevent+jwt"), body=text)

    def form(**stated: Any) -> bytes:
        return urlencode(stated).encode()[: bounds.ISSUANCE_BYTES]

    room = bounds.DETAILS_CHARS

    def details(stated: str) -> bytes:
        return form(**nightly(authorization_details=stated))

    wide = {
        "[[…": "[" * room, "[[],…": "[" + "[]," * (room // 3 - 1) + "0]", "[{},…": "[" + "{}," * (room // 3 - 1) + "0]", "0,…": "[" + "0," * (room // 2 - 1) + "0]",
        "tables": json.dumps([{"type": "captoken", "tables": [f"sales.t{n}.*" for n in range(room // 30)]}]),
        "many segments": json.dumps([{"type": "captoken", "tables": ["sales" + ".a" * 120 + f".t{n}" for n in range(room // 260)]}]),
        "pairs": json.dumps([{"type": "captoken", "tables": [f"sales.t{n}" for n in range(room // 30)], "operations": ["select"]}]),
        "allow": json.dumps([{"type": "captoken", "allow": {f"sales.t{n}.*": ["select"] for n in range(room // 50)}}]),
        "columns": json.dumps([{"type": "captoken", "columns": {f"sales.t{n}.*": ["a"] for n in range(room // 50)}}]),
        "a column's list": json.dumps([{"type": "captoken", "columns": {"sales": [f"c{n}" for n in range(room // 20)]}}]),
        "tools": json.dumps([{"type": "captoken", "tools": {f"sales.t{n}.*": {} for n in range(room // 40)}}]),
        "unknown keywords": json.dumps([{"type": "captoken", **{f"k{n}": 1 for n in range(room // 25)}}]),
        "where": json.dumps([{"type": "captoken", "where": {f"k{n}": {"any": True} for n in range(room // 50)}}]),
        "urls": json.dumps([{"type": "captoken", "where": {"u": {"url": [f"https://a{n}.example" for n in range(16)]}}}]),
        "addresses": json.dumps([{"type": "captoken", "where": {"u": {"ip": [f"10.{n // 256}.{n % 256}.0/24" for n in range(room // 30)]}}}]),
    }  # fmt: skip
    for name, stated in wide.items():
        yield f"issuance: details of {name}", lambda stated=stated: send(world.app, "/token", FORM, body=details(stated))

    def asserted(text: str) -> bytes:
        return form(**nightly(client_assertion=text))

    most = bounds.ASSERTION_CHARS
    yield "issuance: an assertion, as long as may be", lambda: send(world.app, "/token", FORM, body=asserted(test_must_deny.padded(test_issuance.workflow, most)))
    yield "issuance: a proof, as long as may be", lambda: send(world.app, "/token", FORM, (b"dpop", b"a." * (most // 2)), body=form(**nightly()))

    from captoken.adapters.issuance import IssuanceService
    from captoken.issuance import policy as policies
    from captoken.issuance.registry import MemoryRegistry
    from captoken.testing import FixedClock

    by_saml = IssuanceService(policies.read(saml_idp.policy_text()), KEYRING, MemoryRegistry(floor=0), clock=FixedClock(saml_idp.NOW))

    def saml(xml: str) -> bytes:
        return form(
            grant_type=test_saml_service.EXCHANGE, subject_token=saml_idp.token(xml)[:most], subject_token_type=test_saml_service.SAML2, resource="sales-db"
        )

    room = most * 3 // 4
    good = saml_idp.sign(saml_idp.assertion())
    fill = room - len(good.encode()) - 200
    markup = {
        "text": "x" * fill, "entities": "&amp;" * (fill // 5), "elements": "<a/>" * (fill // 4), "comments": "<!---->" * (fill // 7),
        "attributes": "<a " + " ".join(f'a{n}=""' for n in range(fill // 10)) + "/>", "depth": "<a>" * (fill // 7) + "</a>" * (fill // 7),
        "namespaces": "<a " + " ".join(f'xmlns:n{n}="u:{n}"' for n in range(fill // 22)) + "/>",
    }  # fmt: skip
    for name, inside in markup.items():
        before, end, after = saml_idp.assertion().rpartition("</")
        xml = before + inside + end + after
        with suppress(Exception):  # what cannot be signed: as it is, then
            xml = saml_idp.sign(xml)
        yield f"issuance: an assertion of SAML with {name}", lambda xml=xml: send(by_saml, "/token", FORM, body=saml(xml))


def of_console() -> Iterator[Case]:
    from captoken.cli.console.app import Console

    console = Console(None, SimpleNamespace(act=None), address="127.0.0.1:8765", spent=None)  # type: ignore[arg-type]
    host = (b"host", b"127.0.0.1:8765")
    for name, text in filled(bounds.TARGET_BYTES - 64):
        yield f"console: a query of {name}", lambda text=text: send(console, "/", host, query=text, method="GET")


OF = (of_asgi, of_fastapi, of_tools, of_mcp, of_a2a, of_grpc, of_discharges, of_issuance, of_console)


def cases(word: str = "") -> Iterator[Case]:
    for of in OF:
        if word in of.__name__:
            yield from of()


async def measured(ask: Callable[[], Awaitable[object]]) -> float:
    """The least of the longest gaps of several runs."""
    gaps = []
    for _ in range(RUNS):
        gaps.append(await longest(ask))
        if gaps[-1] < BAR / 4:  # far below
            break
    return min(gaps)


async def all_measured(word: str) -> list[tuple[float, str]]:
    return [(await measured(ask), name) for name, ask in cases(word)]


def main(word: str = "") -> int:
    found = asyncio.run(all_measured(word))
    for gap, name in sorted(found, reverse=True)[:40]:
        print(f"{gap * 1000:8.1f} ms  {name}")
    over = [name for gap, name in found if gap > BAR]
    print(f"{len(found)} cases, {len(over)} above {BAR * 1000:.0f} ms")
    return 1 if over or not found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
