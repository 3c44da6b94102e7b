"""A2A between a real server and the SDK's own client: agents that ask each other, each under a token of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.helpers.proto_helpers import get_message_text, new_task, new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandlerV2, LegacyRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryPushNotificationConfigStore, InMemoryTaskStore
from a2a.types import a2a_pb2 as pb
from starlette.applications import Starlette

from captoken import Access, AsyncGrant, AsyncVerifier, Decision, Denied, Issuer, Token, Verifier, current
from captoken._verification.mistakes import mistake
from captoken.adapters.a2a import (
    EXTENSION,
    PUBLIC,
    GrantedCalls,
    GuardedHandler,
    admission,
    by_task,
    declare,
    metadata,
)
from captoken.adapters.asgi import CaptokenMiddleware
from captoken.adapters.httpx import auth
from captoken.consent import Approver, ApproverKey
from captoken.current import Held
from captoken.errors import NoToken
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from tests.fixtures import KEYRING, NOW, WHO, clock, mint

REFUSED = "The token does not permit this request."


SELECT = Access(table="sales", operation="select")


def text_of(params: pb.SendMessageRequest) -> str:
    return get_message_text(params.message)


def by_text(params: pb.SendMessageRequest) -> Access:
    """The rule of the tests: a message names the table that it is about."""
    return Access(table=text_of(params).split()[0], operation="select")


class Agent(AgentExecutor):
    """Says who it works for. `and hr` in a message makes it look at hr as well; `slowly` leaves a task open."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.stopped: list[str] = []

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        grant, asked = current.grant(), context.get_user_input()
        self.did.append(asked)
        with pytest.raises(NoToken):
            current.holding()
        if "and hr" in asked:
            grant.authorize(Access(table="hr", operation="select"))
        if "selct" in asked:
            raise mistake("syntax", "42601")
        if "slowly" in asked:
            task = context.current_task or new_task(context.task_id, context.context_id, pb.TASK_STATE_INPUT_REQUIRED)
            return await event_queue.enqueue_event(task)
        answer = new_text_message(f"{grant.actor.name} for {grant.issued.subject}")
        answer.metadata.update(metadata(grant))
        await event_queue.enqueue_event(answer)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.stopped.append(current.grant().actor.name)
        status = pb.TaskStatus(state=pb.TASK_STATE_CANCELED)
        update = pb.TaskStatusUpdateEvent(task_id=context.task_id, context_id=context.context_id, status=status)
        await event_queue.enqueue_event(update)


class Trail:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)


class Server:
    """One agent behind a real HTTP server; what it is built of can be left out, to see what that forgets."""

    def __init__(
        self,
        rule: Any = by_text,
        *,
        handler: Any = DefaultRequestHandlerV2,
        without: str = "",
        streaming: bool = True,
        binding: str = "JSONRPC",
        audience: str = "sales-agent",
        other: Any = SELECT,
        owner: Any = None,
        cost: Any = None,
        ledger: Any = None,
        face: Any = Verifier,
        **handling: Any,
    ) -> None:
        self.other, self.owner, self.cost, self.handling = other, owner, cost, handling
        self.agent, self.trail = Agent(), Trail()
        self.rule, self.handler, self.without, self.streaming, self.binding = rule, handler, without, streaming, binding
        replays = MemoryReplayStore(floor=NOW - 3600)
        self.verifier = face(KEYRING, audience, clock=clock(), audit=self.trail, replays=replays, ledger=ledger)
        self.audience, self.url = audience, ""
        self.card = pb.AgentCard()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.card = pb.AgentCard(
            name="sales agent",
            description="Knows sales.",
            version="1",
            supported_interfaces=[pb.AgentInterface(url=self.url, protocol_binding=self.binding, protocol_version="1.0")],
            capabilities=pb.AgentCapabilities(streaming=self.streaming),
            default_input_modes=["text/plain"],
            default_output_modes=["text/plain"],
            skills=[pb.AgentSkill(id="sales", name="sales", description="sales", tags=["sales"])],
        )
        declare(self.card)
        both: Any = dict(admission(self.agent, self.rule, cost=self.cost))
        if self.without == "executor":
            both["agent_executor"] = self.agent
        if self.without == "contexts":
            del both["request_context_builder"]
        self.card.capabilities.push_notifications = "push_config_store" in self.handling
        handler = self.handler(**both, **self.handling, task_store=InMemoryTaskStore(), agent_card=self.card)
        owner = {"owner": self.owner} if self.owner else {}
        calls = None if self.without == "calls" else GrantedCalls(**owner)
        guarded = handler if self.without == "guard" else GuardedHandler(handler, other=self.other, cost=self.cost)
        rpc = create_jsonrpc_routes(guarded, "/", context_builder=calls)
        if self.binding == "HTTP+JSON":
            rpc = create_rest_routes(guarded, context_builder=calls)
        app: Any = Starlette(routes=[*create_agent_card_routes(self.card), *rpc])
        if self.without != "middleware":
            app = CaptokenMiddleware(app, self.verifier, origin=self.url, public=PUBLIC)
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.005)
        try:
            yield self
        finally:
            server.should_exit = True
            await serving
            if hasattr(handler, "aclose"):
                await handler.aclose()

    @asynccontextmanager
    async def client(self, held: Held | Token | None = None, **options: Any) -> AsyncIterator[Any]:
        """The SDK's client, which has read the card first."""
        shown = auth({self.url: self.audience}, held=held, **options)
        async with httpx.AsyncClient() as plain, httpx.AsyncClient(auth=shown) as http:
            card = await A2ACardResolver(plain, self.url).get_agent_card()
            config = ClientConfig(
                httpx_client=http, streaming=self.streaming, supported_protocol_bindings=["JSONRPC", "HTTP+JSON"]
            )
            yield ClientFactory(config).create(card)


def asking(text: str, task: str = "") -> pb.SendMessageRequest:
    message = new_text_message(text, role=pb.ROLE_USER, task_id=task or None)
    return pb.SendMessageRequest(message=message)


async def said(client: Any, text: str, task: str = "") -> Any:
    """The answer as text, or the task, or the error's words."""
    try:
        async for response in client.send_message(asking(text, task)):
            return get_message_text(response.message) if response.HasField("message") else response.task
    except Exception as error:
        return str(error)
    return None


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


HANDLERS = {"v2": DefaultRequestHandlerV2, "v1": LegacyRequestHandler}


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """The SDK logs a refusal with its traceback."""
    caplog.set_level(logging.CRITICAL, "a2a")


each_handler = pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
each_style = pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "not streaming"])
each_binding = pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])


@each_handler
@each_style
@each_binding
def test_an_agent_answers_what_the_token_permits_and_refuses_the_rest(handler: Any, streaming: bool, binding: str) -> None:
    async def story() -> None:
        built = Server(handler=handler, streaming=streaming, binding=binding)
        async with built.running() as server, server.client(mint().delegate(to="sales-agent")) as client:
            assert await said(client, "sales of q3") == "sales-agent for user:jane"
            assert REFUSED in await said(client, "hr of q3")
            assert REFUSED in await said(client, "no;name of a table")
            assert server.agent.did == ["sales of q3"]

    run(story)


@each_handler
@each_style
def test_what_the_agent_asks_beyond_its_rule_is_refused_without_telling_the_client_why(handler: Any, streaming: bool) -> None:
    async def story() -> None:
        async with Server(handler=handler, streaming=streaming).running() as server, server.client(mint()) as client:
            answer = await said(client, "sales and hr")
        assert REFUSED in answer and "link" not in answer and "market" not in answer
        assert server.trail.decisions[-1].code == "table"

    run(story)


@each_handler
@each_style
def test_a_mistake_in_a_statement_is_the_callers_and_is_told(handler: Any, streaming: bool) -> None:
    async def story() -> None:
        async with Server(handler=handler, streaming=streaming).running() as server, server.client(mint()) as client:
            answer = await said(client, "sales selct")
        assert mistake("syntax").for_model() in answer and "42601" not in answer

    run(story)


def test_a_refusal_has_the_id_of_its_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "captoken")

    async def story() -> None:
        async with Server().running() as server:
            body = {**CALL, "params": {"message": {**PARAMS["message"], "parts": [{"text": "hr"}]}}}
            version = {"A2A-Version": "1.0"}
            async with httpx.AsyncClient(base_url=server.url) as http:
                shown = {"Authorization": "Bearer " + mint().present(audience="sales-agent")}
                refused = (await http.post("/", json=body, headers={**shown, **version})).json()
            (denied,) = (decision for decision in server.trail.decisions if not decision)
            assert denied.id and denied.id in str(refused) and REFUSED in str(refused)
            (line,) = [line for line in caplog.messages if line.startswith("refused: ")]
            assert denied.id in line and "POST /" in line

    run(story)


def test_a_sub_agent_elsewhere_sends_up_what_to_ask_and_takes_the_consent() -> None:
    """The request goes up with the refusal, the consent comes down with the token. (40.8)"""
    jane = Approver(ApproverKey.generate(), clock=clock())
    asks = [{"by": jane.public, "for": {"tables": ["sales"]}}]
    token = Issuer(KEYRING, clock=clock()).mint(**WHO, tables=["*"], operations=["*"], audience="sales-agent", consent=asks)

    async def story() -> None:
        async with Server().running() as server, httpx.AsyncClient(base_url=server.url) as http:
            consents: list[str] = []
            answers = []
            for _ in range(3):
                text = token.present(audience="sales-agent", consents=consents)
                headers = {"A2A-Version": "1.0", "Authorization": f"Bearer {text}"}
                answer = (await http.post("/", json={**CALL, "params": PARAMS}, headers=headers)).json()
                told = next(iter(answer.get("error", {}).get("data") or [{}]))
                asked = told.get("io.captoken/consent-request") or told.get("metadata", {}).get("io.captoken/consent-request")
                consents = [jane.consent(asked)] if asked else consents
                answers.append("result" in answer)
            assert answers == [False, True, False] and server.agent.did == ["sales"]

    run(story)


HEADERS: dict[str, dict[str, str]] = {
    "nothing": {},
    "another scheme": {"Authorization": "Basic " + mint().present(audience="sales-agent")},
    "no token": {"Authorization": "Bearer cap1_nonsense"},
    "a token for another agent": {"Authorization": "Bearer " + mint().present(audience="market-agent")},
    "a token for nobody": {"Authorization": "Bearer " + mint().serialize()},
    "in another header": {"X-Captoken": mint().present(audience="sales-agent")},
}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage"}
PARAMS = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "sales"}]}}
METHODS = ["SendMessage", "SendStreamingMessage", "GetTask", "ListTasks", "CancelTask", "GetExtendedAgentCard", "Nothing"]


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_without_a_token_of_its_own_nothing_passes_but_the_card(headers: dict[str, str]) -> None:
    async def story() -> None:
        async with Server().running() as server, httpx.AsyncClient(base_url=server.url) as http:
            for method in METHODS:
                answer = await http.post("/", json={**CALL, "method": method, "params": PARAMS}, headers=headers)
                assert answer.status_code in (400, 401)
            assert (await http.get(PUBLIC[0])).json()["name"] == "sales agent"
            assert server.agent.did == []

    run(story)


@each_handler
@pytest.mark.parametrize("without", ["middleware", "calls", "contexts", "guard"])
def test_whatever_is_forgotten_the_agent_does_nothing(without: str, handler: Any) -> None:
    async def story() -> None:
        async with Server(without=without, handler=handler).running() as server, server.client(mint()) as client:
            assert "sales-agent for" not in str(await said(client, "sales"))
            assert server.agent.did == []

    run(story)


@pytest.mark.parametrize("rule", [lambda params: None, lambda params: True, lambda params: {}["sales"]])
def test_a_rule_that_states_no_access_refuses(rule: Any) -> None:
    async def story() -> None:
        async with Server(rule).running() as server, server.client(mint()) as client:
            assert REFUSED in await said(client, "sales") and server.agent.did == []

    run(story)


def test_a_rule_can_be_one_access() -> None:
    async def story() -> None:
        async with Server(Access(table="sales", operation="select")).running() as server, server.client(mint()) as client:
            assert await said(client, "whatever") == "orchestrator for user:jane"

    run(story)


@pytest.mark.parametrize(
    ("cost", "answers"),
    [
        (None, ["The server did not state what the request costs."]),
        ({"cents": 0}, ["orchestrator for user:jane"] * 3),
        ({"cents": 6}, ["orchestrator for user:jane", "The token has too little left for this request."]),
        (lambda params: {"cents": 6}, ["orchestrator for user:jane", "The token has too little left for this request."]),
    ],
)
def test_a_message_takes_what_it_costs_of_a_budget(cost: Any, answers: list[str]) -> None:
    async def story() -> None:
        ledger = MemoryLedger(shared=True, floor=NOW - 3600)
        held = mint(tables=["sales"], operations=["select"], budget={"cents": 10})
        async with Server(cost=cost, ledger=ledger).running() as server, server.client(held) as client:
            for answer in answers:
                assert answer in await said(client, "sales")

    run(story)


@pytest.mark.parametrize("rule", [None, "sales", {}])
def test_no_rule_is_told_at_once(rule: Any) -> None:
    with pytest.raises(TypeError, match="rule"):
        admission(Agent(), rule)
    if rule is not None:
        with pytest.raises(TypeError, match="rule"):
            GuardedHandler(LegacyRequestHandler(Agent(), InMemoryTaskStore(), pb.AgentCard()), other=rule)


# --- tasks -----------------------------------------------------------------------------------------------------------


def updated(context: RequestContext, state: Any, text: str = "") -> pb.TaskStatusUpdateEvent:
    ids = {"context_id": context.context_id, "task_id": context.task_id}
    status = pb.TaskStatus(state=state, message=new_text_message(text, **ids) if text else None)
    return pb.TaskStatusUpdateEvent(status=status, **ids)


def others(task: str) -> list[tuple[str, Any]]:
    """The calls that are no messages, as methods of the SDK's client."""
    url = "https://collector.example/"
    return [
        ("get_task", pb.GetTaskRequest(id=task)),
        ("list_tasks", pb.ListTasksRequest()),
        ("cancel_task", pb.CancelTaskRequest(id=task)),
        ("create_task_push_notification_config", pb.TaskPushNotificationConfig(task_id=task, url=url)),
        ("get_task_push_notification_config", pb.GetTaskPushNotificationConfigRequest(task_id=task, id=task)),
        ("list_task_push_notification_configs", pb.ListTaskPushNotificationConfigsRequest(task_id=task)),
        ("delete_task_push_notification_config", pb.DeleteTaskPushNotificationConfigRequest(task_id=task, id=task)),
    ]


async def refused(client: Any, task: str) -> list[str]:
    """Which calls that are no messages the server refuses for want of a permission."""
    found = []
    for method, asked in others(task):
        try:
            await getattr(client, method)(asked)
        except Exception as error:
            found += [method] if REFUSED in str(error) else []
    try:
        async for _ in client.subscribe(pb.SubscribeToTaskRequest(id=task)):
            break
    except Exception as error:
        found += ["subscribe"] if REFUSED in str(error) else []
    return found


@each_handler
@each_binding
def test_a_token_that_permits_nothing_here_neither_reads_nor_controls_a_task(handler: Any, binding: str) -> None:
    """The same agent, even, under a token that is narrower; nor does anybody where no rule is given."""

    async def story() -> None:
        kept = {"push_config_store": InMemoryPushNotificationConfigStore()}
        everything = [method for method, _ in others("")] + ["subscribe"]
        for other, owner in ((SELECT, by_task), (None, None), (lambda params: None, by_task)):
            built = Server(handler=handler, binding=binding, other=other, owner=owner, **kept)
            async with built.running() as server:
                async with server.client(mint()) as client:
                    task = await said(client, "sales slowly")
                narrow = mint(tables=["sales", "hr"], operations=["select"])
                for token in (narrow.attenuate(tables=["hr"]), narrow.delegate(to="child", tables=["hr"])):
                    async with server.client(token) as client:
                        assert await refused(client, task.id) == everything
                assert server.agent.stopped == []
                async with server.client(mint()) as client:
                    assert await refused(client, task.id) == ([] if isinstance(other, Access) else everything)

    run(story)


@each_handler
def test_a_task_is_the_agents_own_that_has_left_it(handler: Any) -> None:
    """By its place in the chain: not the parent's, not the child's; but whatever token it shows from that place."""

    async def story() -> None:
        root = mint(tables=["sales"], operations=["select"])
        async with Server(handler=handler, streaming=False).running() as server:
            async with server.client(root.delegate(to="clerk")) as client:
                task = await said(client, "sales slowly")
            for token in (root, root.delegate(to="other"), root.delegate(to="other").delegate(to="clerk")):
                async with server.client(token) as client:
                    with pytest.raises(Exception, match="not found"):
                        await client.get_task(pb.GetTaskRequest(id=task.id))
                    assert len((await client.list_tasks(pb.ListTasksRequest())).tasks) == 0
            async with server.client(root.delegate(to="clerk")) as client:
                assert (await client.get_task(pb.GetTaskRequest(id=task.id))).id == task.id

    run(story)


@each_handler
def test_a_message_that_asks_for_push_notifications_needs_what_they_need(handler: Any) -> None:
    def of_push(params: Any) -> Access | None:
        return None if isinstance(params, pb.TaskPushNotificationConfig) else Access(table="sales", operation="select")

    async def story() -> None:
        kept = InMemoryPushNotificationConfigStore()
        built = Server(handler=handler, streaming=False, other=of_push, push_config_store=kept)
        async with built.running() as server, server.client(mint()) as client:
            message = asking("sales slowly")
            message.configuration.task_push_notification_config.url = "https://collector.example/"
            with pytest.raises(Exception, match=REFUSED):
                async for _ in client.send_message(message):
                    pass
            assert server.agent.did == []

    run(story)


class Telling(Agent):
    """Goes on with its task whenever it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.next = asyncio.Event()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        await event_queue.enqueue_event(new_task(context.task_id, context.context_id, pb.TASK_STATE_WORKING))
        for number in range(2):
            await self.next.wait()
            self.next.clear()
            await event_queue.enqueue_event(updated(context, pb.TASK_STATE_WORKING, f"secret {number}"))
        await event_queue.enqueue_event(updated(context, pb.TASK_STATE_COMPLETED))


@each_handler
@pytest.mark.parametrize("subscribing", [True, False])
def test_a_stream_ends_with_the_permission_to_hear_it(handler: Any, subscribing: bool) -> None:
    async def story() -> None:
        built = Server(handler=handler)
        time = clock()
        built.verifier = Verifier(KEYRING, built.audience, clock=time, audit=built.trail)
        built.agent = agent = Telling()
        heard = []
        async with built.running() as server, server.client(mint(), expires_in=30) as client:
            events = client.send_message(asking("sales"))
            try:
                task = (await anext(events)).task.id
                if subscribing:
                    _first, events = events, client.subscribe(pb.SubscribeToTaskRequest(id=task))
                    await anext(events)
                for _ in range(2):
                    agent.next.set()
                    heard.append(str(await anext(events)))
                    time.advance(1000)
            except Exception as error:
                heard.append(str(error))
            finally:
                agent.next.set()
        assert "secret 0" in heard[0] and "expired" in heard[1] and len(heard) == 2

    run(story)


@each_handler
def test_a_task_can_be_for_agents_of_the_same_subject_and_task(handler: Any) -> None:
    issuer = Issuer(KEYRING, clock=clock())
    what: Any = {"tables": ["sales"], "operations": ["select"]}
    strangers = [
        issuer.mint(subject="user:joe", agent="orchestrator", task="task-123", **what),
        issuer.mint(subject="user:jane", agent="orchestrator", task="task-9", **what),
    ]

    async def story() -> None:
        async with Server(handler=handler, streaming=False, owner=by_task).running() as server:
            async with server.client(mint()) as client:
                task = await said(client, "sales slowly")
                assert (await client.get_task(pb.GetTaskRequest(id=task.id))).id == task.id
            for token in strangers:
                async with server.client(token) as client:
                    for ask in (
                        client.get_task(pb.GetTaskRequest(id=task.id)),
                        client.cancel_task(pb.CancelTaskRequest(id=task.id)),
                    ):
                        with pytest.raises(Exception, match="not found"):
                            await ask
                    assert len((await client.list_tasks(pb.ListTasksRequest())).tasks) == 0
                    answer = str(await said(client, "sales again", task.id))
                    assert "not found" in answer or "does not exist" in answer
            assert server.agent.did == ["sales slowly"]
            async with server.client(mint().delegate(to="sales-agent")) as client:
                stopped = await client.cancel_task(pb.CancelTaskRequest(id=task.id))
                assert stopped.status.state == pb.TASK_STATE_CANCELED

    run(story)


@each_handler
def test_what_a_cancellation_asks_and_is_refused_is_told_without_the_reason(handler: Any) -> None:
    class Asking(Agent):
        async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
            current.grant().authorize(Access(table="hr", operation="select"))
            raise AssertionError

    async def story() -> None:
        built = Server(handler=handler, streaming=False)
        built.agent = Asking()
        async with built.running() as server, server.client(mint()) as client:
            task = await said(client, "sales slowly")
            with pytest.raises(Exception) as caught:
                left = await client.cancel_task(pb.CancelTaskRequest(id=task.id))
                raise LookupError(str(left))
        assert "hr" not in str(caught.value) and built.trail.decisions[-1].code == "table"

    run(story)


@each_handler
def test_a_message_that_is_refused_leaves_the_task_that_it_names_as_it_was(handler: Any) -> None:
    async def story() -> None:
        async with Server(handler=handler, streaming=False).running() as server, server.client(mint()) as client:
            task = await said(client, "sales slowly")
            assert REFUSED in await said(client, "hr slowly", task.id)
            left = await client.get_task(pb.GetTaskRequest(id=task.id))
            assert left.status.state == pb.TASK_STATE_INPUT_REQUIRED
            assert (await said(client, "sales slowly, once more", task.id)).id == task.id
            assert server.agent.did == ["sales slowly", "sales slowly, once more"]

    run(story)


# --- both faces of a verifier ----------------------------------------------------------------------------------------


@each_handler
def test_an_executor_gets_the_grant_of_an_async_verifier(handler: Any) -> None:
    own = HolderKey.generate()
    bound = mint(tables=["sales"], operations=["select"], key=own.public)

    class Awaiting(Agent):
        async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
            grant = current.grant(AsyncGrant)
            assert current.grant() is grant and "cap1" not in str(context.call_context.state)
            if "and hr" in context.get_user_input():
                await grant.authorize(Access(table="hr", operation="select"))
            self.did.append(grant.actor.name)
            await event_queue.enqueue_event(new_text_message("done", role=pb.ROLE_AGENT))

    async def story() -> None:
        built = Server(handler=handler, face=AsyncVerifier)
        built.agent = Awaiting()
        async with built.running() as server:
            for held in (mint(), Held(bound, own)):
                async with server.client(held) as client:
                    assert await said(client, "sales") == "done"
                    assert REFUSED in await said(client, "hr")
                    assert (await client.list_tasks(pb.ListTasksRequest())) is not None
                    await said(client, "sales and hr")
                    assert built.trail.decisions[-1].code == "table"
            assert server.agent.did == ["orchestrator"] * 2

    run(story)


# --- clients ---------------------------------------------------------------------------------------------------------


def test_each_call_shows_what_is_current_and_a_sub_agent_has_its_own() -> None:
    async def story() -> None:
        async with Server().running() as server, server.client() as client:
            with current.use(mint()):
                assert await said(client, "market.moves") == "orchestrator for user:jane"
                with current.delegate(to="sales-agent", tables=["sales"]):
                    assert await said(client, "sales") == "sales-agent for user:jane"
                    assert REFUSED in await said(client, "market.moves")
            assert "no token is in use" in await said(client, "sales")

    run(story)


def test_a_bound_token_goes_with_a_proof_for_each_call() -> None:
    own = HolderKey.generate()
    bound = mint(tables=["sales"], operations=["select"], key=own.public)

    async def story() -> None:
        async with Server().running() as server:
            async with server.client(Held(bound, own)) as client:
                assert [await said(client, "sales") for _ in range(2)] == ["orchestrator for user:jane"] * 2
            async with server.client(bound) as client:
                assert "key is not in use" in await said(client, "sales")
            async with httpx.AsyncClient() as bare:
                unproven = {"Authorization": f"Bearer {bound.present(audience='sales-agent', clock=clock())}"}
                assert (await bare.post(server.url, headers=unproven, json={})).status_code == 401
        assert server.agent.did == ["sales"] * 2

    run(story)


def test_a_card_cannot_send_a_token_to_another_origin() -> None:
    """A hostile server names the origin of another one in its card, or hands out such a card later: nothing goes there."""

    async def story() -> None:
        async with Server().running() as sales, Server(audience="evil").running() as evil:
            shown = auth({sales.url: "sales-agent"}, held=mint())
            async with httpx.AsyncClient(auth=shown) as http:
                client = ClientFactory(ClientConfig(httpx_client=http)).create(evil.card)
                client._card = sales.card  # what an extended card does
                assert "captoken sends no token to" in await said(client, "sales")
        assert evil.trail.decisions == [] and sales.trail.decisions == []

    run(story)


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_an_answer_says_on_whose_behalf_and_no_token_stays_in_the_server(caplog: pytest.LogCaptureFixture) -> None:
    class Keeping(Agent):
        seen: list[Any] = []

        async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
            self.seen += [dict(context.call_context.state), context.call_context.user.user_name]
            await super().execute(context, event_queue)

    async def story() -> None:
        server = Server()
        server.agent = Keeping()
        async with server.running(), server.client(mint().delegate(to="sales-agent")) as client:
            async for response in client.send_message(asking("sales")):
                told = dict(response.message.metadata[EXTENSION])
                assert (told["subject"], told["task"]) == ("user:jane", "task-123")
                assert [dict(actor) for actor in told["chain"]] == [
                    {"name": "orchestrator", "basis": "issued"},
                    {"name": "sales-agent", "basis": "vouched"},
                ]
                assert "cap1" not in str(response)
            await said(client, "hr")
        state, user = server.agent.seen  # type: ignore[attr-defined]
        assert (
            user == '["user:jane", "task-123", "orchestrator", "sales-agent"]'
            and "cap1" not in str(state)
            and "authorization" not in state["headers"]
        )

    with caplog.at_level(logging.DEBUG):
        run(story)
    assert not [
        record for record in caplog.records if record.name.startswith(("captoken", "a2a")) and "cap1" in record.getMessage()
    ]


def test_a_card_says_what_the_agent_takes() -> None:
    card = declare(declare(pb.AgentCard(name="sales agent")))
    scheme = card.security_schemes["captoken"].http_auth_security_scheme
    assert (scheme.scheme, scheme.bearer_format) == ("Bearer", "captoken")
    assert [list(requirement.schemes) for requirement in card.security_requirements] == [["captoken"]]
    assert [extension.uri for extension in card.capabilities.extensions] == [EXTENSION]
    assert json.dumps(dict(metadata(Verifier(KEYRING, clock=clock()).authenticate(mint().serialize()))))


def test_a_denial_of_the_agents_own_is_a_denied() -> None:
    """The claim that the test of `and hr` rests on."""
    grant = Verifier(KEYRING, clock=clock()).authenticate(mint().serialize())
    with pytest.raises(Denied):
        grant.authorize(Access(table="hr", operation="select"))
