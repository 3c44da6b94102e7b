"""At every adapter: what is as large as may be is decided on, and what is larger is refused before it is read through."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from a2a.server.context import ServerCallContext
from a2a.types import a2a_pb2 as pb
from a2a.utils.errors import UnsupportedOperationError

from captoken import Access, Decision, Verifier
from captoken._language import bounds
from captoken.adapters._mcp.gate import Gate
from captoken.adapters._mcp.messages import TOKEN, Message, NotLetIn
from captoken.adapters.a2a import GuardedHandler
from captoken.adapters.asgi import CaptokenMiddleware, Requires
from captoken.adapters.discharge_service import DischargeService
from captoken.cli.console.app import Console
from captoken.discharge import Allow, Discharger
from captoken.keys import DischargerKey, HolderKey
from captoken.proof import http_request, mcp_request
from captoken.stores.memory import MemoryReplayStore
from tests.fixtures import KEYRING, NOW, clock, mint
from tests.gaps import FORM, JSON, ORIGIN, plain, send, shown
from tests.issuance.test_issuance import World, nightly
from tests.issuance.test_issuance import login as _login  # noqa: F401, its keys are made once

KEY = HolderKey.from_bytes(bytes(range(32)))
ROOM = bounds.FACTS - 2 - 16 - 3 - 2  # of a text that is the one argument, `q`


class Trail:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)


TRAIL = Trail()


def server(name: str = "api") -> Verifier:
    TRAIL.decisions.clear()
    return Verifier(KEYRING, name, clock=clock(), replays=MemoryReplayStore(floor=NOW - 3600), audit=TRAIL)


def held(**facts: Any) -> Any:
    return mint(tools={"*": {}}, **facts)


def presented(name: str = "api", **facts: Any) -> str:
    return held(**({"key": KEY.public} if "request" in facts else {})).present(audience=name, clock=clock(), **facts)


# --- HTTP -----------------------------------------------------------------------------------------


def at_guard(**request: Any) -> int:
    """The status of a request with a good token."""
    app = CaptokenMiddleware(plain, server(), origin=ORIGIN)
    headers = request.pop("headers", ())
    signed = request.pop("signed", None)
    facts = {} if signed is None else {"signer": KEY, "request": signed}
    path = request.pop("path", "/")
    return asyncio.run(send(app, path, shown(presented(**facts)), *headers, **request))[0]


BODY = b"x" * bounds.BODY_BYTES


@pytest.mark.parametrize(
    "within, beyond, status",
    [
        ({"query": b"%" * (bounds.TARGET_BYTES - 1)}, {"query": b"%" * bounds.TARGET_BYTES}, 414),
        ({"path": "/" + "a" * (bounds.TARGET_BYTES - 1)}, {"path": "/" + "a" * bounds.TARGET_BYTES}, 414),
        ({"headers": [(b"x", b"y" * (bounds.HEADER_BYTES - 600))]}, {"headers": [(b"x", b"y" * bounds.HEADER_BYTES)]}, 431),
        ({"headers": [(b"x", b"")] * 1900}, {"headers": [(b"x", b"")] * 2000}, 431),
        ({"headers": [FORM], "body": b"%" * bounds.FORM_BYTES}, {"headers": [FORM], "body": b"%" * (bounds.FORM_BYTES + 1)}, 413),
        ({"body": BODY, "signed": http_request("POST", ORIGIN, b"/", BODY)}, {"body": BODY + b"x", "signed": http_request("POST", ORIGIN, b"/", BODY + b"x")}, 413),
        ({"headers": [JSON], "body": BODY + b"x"}, {"headers": [FORM], "body": BODY + b"x"}, 413),  # who reads no body bounds none
    ],
)  # fmt: skip
def test_a_request_has_a_head_and_a_body_of_so_many_bytes(within: dict[str, Any], beyond: dict[str, Any], status: int) -> None:
    assert (at_guard(**within), at_guard(**beyond)) == (200, status)


def test_a_stranger_s_head_is_measured_before_it_is_read_through() -> None:
    app = CaptokenMiddleware(plain, server(), origin=ORIGIN)
    for request in ({"query": b"%" * bounds.TARGET_BYTES}, {"query": b"access_token=x" + b"%" * bounds.TARGET_BYTES}):
        assert asyncio.run(send(app, "/", **request))[0] == 414
    assert asyncio.run(send(app, "/"))[0] == 401


@pytest.mark.parametrize("length, status", [(ROOM, 200), (ROOM + 1, 403)])
def test_what_a_function_states_of_a_request_is_bounded(length: int, status: int) -> None:
    stating = Requires(plain, lambda scope: Access(tool="search", arguments={"q": "x" * length}))
    app = CaptokenMiddleware(stating, server(), origin=ORIGIN)
    answered, body = asyncio.run(send(app, "/", shown(presented())))
    assert answered == status and TRAIL.decisions[-1].code == ("allowed" if status == 200 else "too_much_work")
    if status == 403:
        assert json.loads(body)["code"] == "too_much_work"


SERVICES = {
    "discharges": lambda: DischargeService(Discharger(DischargerKey.generate(), lambda need: Allow(expires_in=60)), origin=ORIGIN),
    "issuance": lambda: World().app,
    "console": lambda: Console(None, type("Acts", (), {"act": None}), address="127.0.0.1:8765", spent=None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", SERVICES)
def test_the_services_measure_a_head_too(name: str) -> None:
    for request, status in (({"query": b"a" * bounds.TARGET_BYTES}, 414), ({"query": b"a" * 100}, None)):
        answered, _ = asyncio.run(send(SERVICES[name](), "/health", (b"host", b"127.0.0.1:8765"), method="GET", **request))
        assert (answered == 414) is (status == 414)
    answered, _ = asyncio.run(send(SERVICES[name](), "/health", (b"x", b"y" * bounds.HEADER_BYTES), method="GET"))
    assert answered == 431


def test_details_are_no_longer_than_a_token() -> None:
    def asked(length: int) -> dict[str, Any]:
        stated = json.dumps([{"type": "captoken", "tables": ["sales"]}])
        return World().ask(**nightly(authorization_details=stated + " " * (length - len(stated))))

    assert asked(bounds.DETAILS_CHARS)["status"] == 200
    longer = asked(bounds.DETAILS_CHARS + 1)
    assert longer["error"] == "invalid_authorization_details" and "longer than 8192 characters" in longer["error_description"]


# --- MCP ------------------------------------------------------------------------------------------


def called(arguments: Any, signed: bool = False, **options: Any) -> str:
    """The code of the decision on a call over MCP."""
    facts: dict[str, Any] = {}
    if signed:
        spelled = json.dumps(arguments, sort_keys=True, separators=(",", ":")).encode()
        facts = {"signer": KEY, "request": mcp_request("tools/call", "search", spelled)}
    gate = Gate(server("mcp"), **options)
    params = {"name": "search", "arguments": arguments, "_meta": {TOKEN: presented("mcp", **facts)}}
    try:
        asyncio.run(gate.admitted(Message("tools/call", params)))
    except NotLetIn as refused:
        assert refused.tool and refused.kind == "insufficient" and "too large" in refused.text
    return TRAIL.decisions[-1].code


@pytest.mark.parametrize("signed", [False, True])
def test_arguments_over_mcp_have_their_room(signed: bool) -> None:
    assert called({"q": "x" * ROOM}, signed) == "allowed"
    if not signed:
        assert called({"q": "x" * (ROOM + 1)}) == "too_much_work"
        stated: Any = {"attributes": lambda tool, arguments: {"q": "x" * ROOM}}
        assert (called({}, **stated), called({"q": "x"}, **stated)) == ("allowed", "too_much_work")


def test_a_proof_of_too_much_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its digest would be of all that came: whoever sends it has shown nothing yet."""
    from captoken.adapters._mcp import gate

    digested: list[str] = []
    monkeypatch.setattr(gate, "digest_of", lambda message: digested.append(message.method) or bytes(32))

    def came(length: int) -> Message:
        token = presented("mcp", signer=KEY, request=bytes(32))
        return Message("tools/call", {"name": "search", "arguments": {"q": "x" * length}, "_meta": {TOKEN: token}})

    assert asyncio.run(Gate(server("mcp")).admitted(came(ROOM))) and digested == ["tools/call"]
    with pytest.raises(NotLetIn, match="The request is too large"):
        asyncio.run(Gate(server("mcp")).admitted(came(ROOM + 1)))
    assert digested == ["tools/call"] and TRAIL.decisions[-1].code == "bad_proof"


@pytest.mark.parametrize("header", [(), (shown("cap1_AAAA"),)], ids=["no token", "a token in the header"])
def test_a_message_that_is_posted_has_its_bound_with_a_header_and_without(header: Any) -> None:
    app = Gate(server("mcp")).challenging(plain, resource=f"{ORIGIN}/mcp", resource_metadata={"authorization_servers": [ORIGIN]})
    ping = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
    for length, status in ((bounds.BODY_BYTES, 200), (bounds.BODY_BYTES + 1, 413)):
        assert asyncio.run(send(app, "/mcp", JSON, *header, body=ping.ljust(length)))[0] == status


@pytest.mark.parametrize("count, status", [(bounds.MESSAGES, 200), (bounds.MESSAGES + 1, 413)])
def test_a_body_has_so_many_messages(count: int, status: int) -> None:
    """Each would be looked at: a body of 256 KiB has room for a hundred thousand."""
    app = Gate(server("mcp")).sessions.guarded(plain)
    ping = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert asyncio.run(send(app, "/mcp", JSON, body=json.dumps([ping] * count).encode()))[0] == status


@pytest.mark.parametrize("header", [(), (shown("cap1_AAAA"),)], ids=["no token", "a token in the header"])
def test_a_body_has_so_many_arrays_and_objects(header: Any) -> None:
    """The collector looks at each of them: a hundred thousand hold the loop."""
    gate = Gate(server("mcp"))
    alone = gate.sessions.guarded(plain)
    app = gate.challenging(plain, resource=f"{ORIGIN}/mcp", resource_metadata={"authorization_servers": [ORIGIN]})
    for more, status in ((-3, 200), (-2, 413)):
        ping = {"jsonrpc": "2.0", "method": "notifications/initialized", "params": {"x": [[]] * (bounds.NESTED + more)}}
        for each in (app, alone):
            assert asyncio.run(send(each, "/mcp", JSON, *header, body=json.dumps(ping).encode()))[0] == status


# --- A2A ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "length, rule, code",
    [
        (100, lambda params: Access(tool="search", arguments={"q": params.id}), "allowed"),
        (bounds.BODY_BYTES, lambda params: Access(tool="search"), "too_much_work"),
        (bounds.BODY_BYTES - 100, lambda params: Access(tool="search"), "allowed"),
        (bounds.BODY_BYTES - 100, lambda params: Access(tool="search", arguments={"q": params.id * 2}), "too_much_work"),
    ],
)
def test_a_call_between_agents_has_its_bound(length: int, rule: Any, code: str) -> None:
    done: list[str] = []

    class Rest:
        async def on_get_task(self, params: Any, context: Any) -> None:
            done.append(params.id)

    grant = server("a2a").authenticate(presented("a2a"))
    context = ServerCallContext(state={"captoken.grant": grant})
    asked = GuardedHandler(Rest(), other=rule).on_get_task(pb.GetTaskRequest(id="x" * length), context)  # type: ignore[arg-type]
    if code == "allowed":
        asyncio.run(asked)
    else:
        with pytest.raises(UnsupportedOperationError, match="too large"):
            asyncio.run(asked)
    assert TRAIL.decisions[-1].code == code and bool(done) is (code == "allowed")
