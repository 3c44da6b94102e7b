"""A consent in MCP's own words: the answer to a call has the address of a page, and the call goes on once a person has decided. (47.8)"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import fastmcp
import pytest
from fastmcp import FastMCP
from mcp import Client
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp.types import ElicitResult, PaginatedRequestParams

from captoken import Token, current
from captoken.adapters import fastmcp as of_fastmcp
from captoken.adapters import mcp as of_mcp
from captoken.adapters._mcp import elicited as pauses
from captoken.adapters.consent_service import ConsentService
from captoken.adapters.mcp_client import Presenting
from captoken.discharge import Allow, Refuse
from captoken.errors import ConsentError, Refused
from captoken.keys import HolderKey
from tests.adapters.consents import LOOKUP, MAIL, REFUND, Desk
from tests.longer import drawing, times

ORIGIN = "https://approvals.example"
OTHER = {**MAIL[2], "to": "eve@example.org"}


@pytest.fixture
def desk() -> Desk:
    return Desk()


def page(desk: Desk, **more: Any) -> ConsentService:
    return ConsentService(desk.jane, origin=ORIGIN, login=lambda scope, need: "jane", clock=desk.clock, **more)


def mcp_server(desk: Desk, **options: Any) -> MCPServer:
    server = MCPServer("desk")
    for tool in (desk.lookup, desk.mail, desk.refund):
        server.tool()(tool)
    server.resource("orders://{order}")(desk.lookup)
    of_mcp.Guard(desk.verifier, consent_wait=0, **options).install(server)
    return server


def fastmcp_server(desk: Desk, **options: Any) -> FastMCP[Any]:
    server: FastMCP[Any] = FastMCP("desk", middleware=[of_fastmcp.Guard(desk.verifier, consent_wait=0, **options)])
    for tool in (desk.lookup, desk.mail, desk.refund):
        server.tool(tool)
    server.resource("orders://{order}")(desk.lookup)
    return server


SERVERS: list[Callable[..., Any]] = [mcp_server, fastmcp_server]


class Person:
    """Who has the client: shown a page, they decide there, and tell the client so."""

    def __init__(self, service: ConsentService, *says: Any) -> None:
        self.service, self.says, self.shown = service, list(says), []  # type: ignore[var-annotated]

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.shown.append(params.url)
        said = self.says.pop(0)
        if isinstance(said, Allow | Refuse):
            self.service.decide(params.url.rpartition("/")[2], said, by="jane")
        action: Any = said if isinstance(said, str) else "accept"
        return ElicitResult(action=action)


def client_of(server: Any, person: Any) -> Client:
    """The SDK's client, in the server's process."""
    return Client(server if isinstance(server, MCPServer) else server._mcp_server, elicitation_callback=person)


async def called(server: Any, person: Any, tool: str = "mail", given: Any = MAIL[2]) -> str:
    async with client_of(server, person) as client:
        try:
            result = await Presenting(client, audience="desk").call_tool(tool, given)
        except Refused as refused:
            return refused.request or refused.for_model
        return str(result.content[0].text)


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("made", SERVERS)
def test_a_client_that_can_show_a_page_is_told_where_a_person_consents_and_the_call_runs_once(
    made: Any, bound: bool, desk: Desk
) -> None:
    """Under a token that is bound to a key, too: each round has a proof of its own."""
    key = HolderKey.generate() if bound else None
    token = desk.minted(consent=desk.asks, key=None if key is None else key.public)
    service = page(desk)
    person = Person(service, Allow(expires_in=60), Allow(expires_in=60), Refuse("no"))
    server = made(desk, consents=service)
    with current.use(token, key):
        assert [asyncio.run(called(server, person)) for _ in range(2)] == ["mail is done"] * 2
        assert "said no" in asyncio.run(called(server, person))
        assert asyncio.run(called(server, person, "lookup", LOOKUP[2])) == "lookup is done", "nobody is asked"
    assert desk.count("mail") == 2 and len(person.shown) == 3, "each call is asked about by itself"
    assert all(url.startswith(f"{ORIGIN}/.well-known/captoken/consent/decide/") for url in person.shown)


@pytest.mark.parametrize("made", SERVERS)
def test_whoever_decides_nothing_gets_nothing(made: Any, desk: Desk) -> None:
    """To have opened the page is no consent; a client that declines has asked, one that cancels may ask again."""
    service = page(desk)
    server = made(desk, consents=service)
    with desk.using([]):
        assert "has not decided yet" in asyncio.run(called(server, Person(service, "accept")))
        assert "said no" in asyncio.run(called(server, Person(service, "decline")))
        assert "has not decided yet" in asyncio.run(called(server, Person(service, "cancel")))
    assert desk.ran == []


@pytest.mark.parametrize("made", SERVERS)
def test_where_no_page_can_be_shown_the_refusal_has_the_request(made: Any, desk: Desk) -> None:
    """A client that shows none, a server that has none, a call that is longer than a person reads."""
    long = {**MAIL[2], "text": "x" * 4000}
    service = page(desk)

    async def never(context: Any, params: Any) -> Any:
        raise AssertionError(params)

    with desk.using([]):
        for server, person, given in (
            (made(desk, consents=service), None, MAIL[2]), (made(desk), never, MAIL[2]), (made(desk, consents=service), never, long),
        ):  # fmt: skip
            asked = desk.jane.read(asyncio.run(called(server, person, given=given)))
            assert asked.accesses[0]["arguments"] == given


@pytest.mark.parametrize("made", SERVERS)
def test_what_wants_a_consent_is_listed_and_the_request_is_no_model_s(made: Any, desk: Desk) -> None:
    """Also to a client of no SDK of ours, which shows the token as it is."""

    async def run() -> Any:
        async with client_of(made(desk), None) as client:
            with desk.using([]) as held:
                shown: Any = {"io.captoken/token": held.present(audience="desk")}
                listed = await client.session.list_tools(params=PaginatedRequestParams(_meta=shown))
                assert [tool.name for tool in listed.tools] == ["lookup", "mail", "refund"]
                return await client.call_tool("mail", MAIL[2], meta=shown)

    result = asyncio.run(run())
    assert result.is_error and "a person has to consent" in result.content[0].text and "ann@" not in result.content[0].text
    assert desk.jane.read(result.meta["io.captoken/consent-request"]).audience == "desk" and desk.ran == []


@pytest.mark.parametrize("made", SERVERS)
def test_a_resource_is_read_with_a_consent_too(made: Any, desk: Desk) -> None:
    desk.token = desk.minted(consent=[{"by": desk.jane.public, "for": {"tools": ["resources/read"]}}])
    service = page(desk)
    person = Person(service, Allow(expires_in=60), Refuse("no"))

    async def run() -> None:
        async with client_of(made(desk, consents=service), person) as client:
            mine = Presenting(client, audience="desk")
            assert (await mine.read_resource("orders://o-1")).contents[0].text == "lookup is done"
            with pytest.raises(Refused, match="said no"):
                await mine.read_resource("orders://o-1")

    with desk.using([]):
        asyncio.run(run())
    assert desk.count("lookup") == 1


class Raw:
    """A client that keeps what it was told, and shows it again when and where it likes."""

    def __init__(self, server: Any, audience: str = "desk") -> None:
        self.server, self.audience = server, audience

    async def call(self, token: Token, call: Any, state: str | None = None) -> tuple[str, str]:
        """What came of it, and the state that goes with an offer."""

        async def nobody(context: Any, params: Any) -> Any:
            raise AssertionError(params)

        answers: Any = {} if state is None else {"consent": ElicitResult(action="accept")}
        async with Client(self.server, elicitation_callback=nobody) as client:
            with current.use(token) as held:
                shown: Any = {"io.captoken/token": held.present(audience=self.audience)}
            await client.session.list_tools(params=PaginatedRequestParams(_meta=shown))
            try:
                result: Any = await client.session.call_tool(
                    call[1], call[2], meta=shown, allow_input_required=True, request_state=state, input_responses=answers or None,
                )  # fmt: skip
            except MCPError as error:
                return str(error), ""
        if result.result_type == "input_required":
            asked = result.input_requests
            return (asked["consent"].params.url if asked else "wait"), result.request_state
        return result.content[0].text, ""


def test_a_state_is_good_for_that_token_and_that_call_and_for_some_minutes(desk: Desk) -> None:
    """Sealed by the guard itself, and not by the SDK alone: a low-level server has no seal of its own. (47.8)"""
    service = page(desk, keep=10_000)
    server = mcp_server(desk, consents=service)
    # What the SDK binds a state to is switched off: what is tried reaches the guard.
    (boundary,) = (each for each in server.middleware if type(each).__name__ == "RequestStateBoundary")
    server.middleware.remove(boundary)
    raw = Raw(server)
    other = desk.minted(consent=desk.asks)

    async def run() -> None:
        url, state = await raw.call(desk.token, MAIL)
        assert url.startswith(ORIGIN) and state.startswith("captoken1.") and "ann" not in state
        service.decide(url.rpartition("/")[2], Allow(expires_in=60), by="jane")
        bad = state[:-1] + ("A" if state[-1] != "A" else "B")
        for token, call, shown in (
            (other, MAIL, state), (desk.token, (*MAIL[:2], OTHER), state), (desk.token, REFUND, state), (desk.token, MAIL, bad),
            (desk.token, MAIL, "captoken1."), (desk.token, MAIL, "captoken1.!"), (desk.token, MAIL, "captoken1.AAAA"), (desk.token, MAIL, "other"),
        ):  # fmt: skip
            told, _ = await raw.call(token, call, shown)
            assert told.startswith(ORIGIN), (told, "it is asked about as if it came first")
        assert desk.ran == []
        assert await raw.call(desk.token, MAIL, state) == ("mail is done", "")
        again, _ = await raw.call(desk.token, MAIL, state)
        assert again.startswith(ORIGIN), "it was fetched, and was spent"

    asyncio.run(run())
    assert desk.ran == [("mail", MAIL[2])]


def test_a_state_is_over_after_some_minutes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    service = page(desk, keep=10_000)
    guard = of_mcp.Guard(desk.verifier, consents=service, consent_wait=0)
    server = MCPServer("desk")
    server.tool()(desk.mail)
    guard.install(server)
    monkeypatch.setattr(pauses, "time", desk.clock)
    raw = Raw(server)

    async def run() -> None:
        url, state = await raw.call(desk.token, MAIL)
        service.decide(url.rpartition("/")[2], Allow(expires_in=3600), by="jane")
        desk.clock.seconds += 600
        told, _ = await raw.call(desk.token, MAIL, state)
        assert told.startswith(ORIGIN)
        desk.clock.seconds -= 1
        assert await raw.call(desk.token, MAIL, state) == ("mail is done", "")

    asyncio.run(run())


def test_a_call_waits_for_the_person_some_rounds_and_is_then_told(desk: Desk) -> None:
    service = page(desk)
    raw = Raw(mcp_server(desk, consents=service))

    async def run() -> None:
        url, state = await raw.call(desk.token, MAIL)
        for _ in range(8):
            told, state = await raw.call(desk.token, MAIL, state)
            assert told == "wait"
        told, none = await raw.call(desk.token, MAIL, state)
        assert "has not decided yet" in told and none == ""
        service.decide(url.rpartition("/")[2], Allow(expires_in=60), by="jane")
        assert await raw.call(desk.token, MAIL, state) == ("mail is done", "")

    asyncio.run(run())


def test_the_tool_sees_nothing_of_it_and_has_rounds_of_its_own(desk: Desk) -> None:
    """A state of a tool's own goes to the tool as it came; what the guard asks for does not."""
    seen: list[Any] = []
    service = page(desk)
    server = MCPServer("desk")

    @server.tool()
    def mail(to: str, text: str, ctx: Context) -> str:
        seen.append((ctx.request_context.params or {}).keys() & {"requestState", "inputResponses"})
        return "sent"

    of_mcp.Guard(desk.verifier, consents=service, consent_wait=0).install(server)
    with desk.using([]):
        assert asyncio.run(called(server, Person(service, Allow(expires_in=60)))) == "sent"
    assert seen == [set()]


def test_a_page_in_another_process_is_awaited(desk: Desk) -> None:
    """Whatever has the two methods of a page, as coroutine functions or not."""
    service = page(desk)

    class Elsewhere:
        async def ask(self, request: str) -> tuple[str, str]:
            return service.ask(request)

        async def outcome(self, number: str) -> str | Refuse | None:
            return service.outcome(number)

    with desk.using([]):
        server = mcp_server(desk, consents=Elsewhere(), attributes=lambda tool, arguments: {"tool": tool})
        assert asyncio.run(called(server, Person(service, Allow(expires_in=60)))) == "mail is done"


def test_a_service_is_asked_from_its_own_process_as_over_http(desk: Desk) -> None:
    service = page(desk, limit=1)
    request = desk.guard.request("mail", MAIL[2], held=current.holding(desk.token)) or ""
    for text in ("", "{}", Desk().guard.request("mail", MAIL[2]) or "x"):
        with pytest.raises(ConsentError):
            service.ask(text)
    url, number = service.ask(request)
    with pytest.raises(ConsentError, match="too many"):
        service.ask(request)
    assert service.outcome(number) is None
    service.decide(url.rpartition("/")[2], Refuse("no"), by="jane")
    assert service.outcome(number) == Refuse("no")
    with pytest.raises(ConsentError, match="over"):
        service.outcome(number)


def elicited(rng: random.Random) -> Desk:
    """Calls of two tokens, states that are shown again in any order, a person who decides or not, and time that goes by."""
    desk = Desk()
    service = page(desk, keep=10_000)
    raw = Raw(mcp_server(desk, consents=service))
    tokens = (desk.token, desk.minted(consent=desk.asks))
    offers: list[tuple[Token, Any, str, str]] = []
    allowed: dict[str, Any] = {}

    async def run() -> None:
        for _ in range(rng.randint(4, 10)):
            step = rng.choice(("call", "decide", "decide", "show", "show", "show", "expire"))
            if step == "call" or not offers:
                token, call = rng.choice(tokens), rng.choice((MAIL, REFUND))
                url, state = await raw.call(token, call)
                assert url.startswith(ORIGIN), "no call runs at first"
                offers.append((token, call, url, state))
            elif step == "decide":
                token, call, url, _ = rng.choice(offers)
                answer = rng.choice((Allow(expires_in=60), Allow(expires_in=60), Refuse("no")))
                if service.decide(url.rpartition("/")[2], answer, by="jane") and isinstance(answer, Allow):
                    allowed[url] = call[1]
            elif step == "show":
                token, call, url, state = rng.choice(offers)
                if rng.random() < 0.3:
                    token, call = rng.choice(tokens), rng.choice((MAIL, REFUND))
                told, again = await raw.call(token, call, state)
                if again and told == "wait":
                    offers.append((token, call, url, again))
            else:
                desk.clock.seconds += rng.choice((1, 60, 700))
            for tool in ("mail", "refund"):
                assert desk.count(tool) <= list(allowed.values()).count(tool), (desk.ran, allowed)

    asyncio.run(run())
    return desk


def test_no_order_of_steps_over_the_page_makes_a_call_twice_or_without_its_own_consent() -> None:
    rng = drawing("elicited")
    ran = [elicited(rng).ran for _ in range(times(25))]
    assert len(ran) / 8 < sum(map(len, ran)) < len(ran) * 2


def test_a_client_of_fastmcp_is_asked_as_well(desk: Desk) -> None:
    service = page(desk)

    async def shown(message: str, kind: Any, params: Any, context: Any) -> Any:
        service.decide(params.url.rpartition("/")[2], Allow(expires_in=60), by="jane")
        return ElicitResult(action="accept")

    async def run() -> str:
        async with fastmcp.Client(fastmcp_server(desk, consents=service), elicitation_handler=shown) as client:
            result = await Presenting(client, audience="desk").call_tool("mail", MAIL[2])
            return str(result.content[0].text)

    with desk.using([]):
        assert asyncio.run(run()) == "mail is done"
