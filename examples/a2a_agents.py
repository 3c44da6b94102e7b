"""One agent asks another over A2A, under a token that it narrowed for itself.

    pip install 'captoken[a2a]' uvicorn && python examples/a2a_agents.py

The agent that is asked decides on each message by its rule, and asks the grant again for what it
does in turn. Server and client are the SDK's own, on loopback.
"""

import asyncio
import logging
import socket

import httpx
import uvicorn
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.client.client import Client
from a2a.helpers.proto_helpers import get_message_text, new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import a2a_pb2 as pb
from starlette.applications import Starlette

from captoken import Access, Issuer, Keyring, Verifier, current
from captoken.adapters.a2a import (
    EXTENSION,
    PUBLIC,
    GrantedCalls,
    GuardedHandler,
    admission,
    declare,
    metadata,
)
from captoken.adapters.asgi import CaptokenMiddleware
from captoken.adapters.httpx import auth

# The SDK logs each refusal.
logging.getLogger("a2a").setLevel(logging.CRITICAL)

SKILLS = ("overdue", "salaries")
ROWS = {"sales": "eu: 41 overdue", "hr": "jane: 90000"}


# --- The agent that is asked ----------------------------------------------------------------------


def rule(request: pb.SendMessageRequest) -> Access | None:
    """What a message needs: the tool of its first word. No such skill: nothing that a token can
    permit.
    """
    skill = get_message_text(request.message).split()[0]
    if skill not in SKILLS:
        return None
    return Access(tool=f"sales_desk.{skill}")


class SalesDesk(AgentExecutor):
    """Reads a table, and says what is in it."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        # The rule has permitted the message. What the agent does in turn, it asks for itself.
        table = "hr" if "salaries" in context.get_user_input() else "sales"
        grant = current.grant()
        grant.authorize(Access(table=table, operation="select"))

        answer = new_text_message(ROWS[table])
        # On whose behalf: for the trails of whoever asked.
        answer.metadata.update(metadata(grant))
        await event_queue.enqueue_event(answer)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


def application(verifier: Verifier, card: pb.AgentCard, origin: str) -> CaptokenMiddleware:
    """The server: the SDK's handler behind the guard, and the guard behind the middleware."""
    handler = DefaultRequestHandler(
        **admission(SalesDesk(), rule), task_store=InMemoryTaskStore(), agent_card=card
    )
    # Without a rule for them, nobody lists, reads or cancels tasks.
    guarded = GuardedHandler(handler)
    routes = [
        *create_agent_card_routes(card),
        *create_jsonrpc_routes(guarded, "/", context_builder=GrantedCalls()),
    ]
    return CaptokenMiddleware(Starlette(routes=routes), verifier, origin=origin, public=PUBLIC)


def card_of(origin: str) -> pb.AgentCard:
    """What the agent says of itself, with a scheme that says that it takes captokens."""
    over_json = pb.AgentInterface(url=origin, protocol_binding="JSONRPC", protocol_version="1.0")
    skills = [
        pb.AgentSkill(id=skill, name=skill, description=skill, tags=[skill]) for skill in SKILLS
    ]
    card = pb.AgentCard(
        name="sales desk",
        description="Answers about sales.",
        version="1",
        supported_interfaces=[over_json],
        capabilities=pb.AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=skills,
    )
    return declare(card)


# --- The agent that asks --------------------------------------------------------------------------


async def ask(client: Client, who: str, text: str) -> None:
    """Send one message, and print what came of it."""
    title = f"{who}: {text}"
    message = new_text_message(text, role=pb.ROLE_USER)
    try:
        async for answer in client.send_message(pb.SendMessageRequest(message=message)):
            told = answer.message.metadata[EXTENSION]
            chain = " > ".join(actor["name"] for actor in told["chain"])
            said = get_message_text(answer.message)
            print(f"{title:<38}{said}  (asked by {chain}, for {told['subject']})")
    except Exception as error:
        print(f"{title:<38}{str(error).splitlines()[0]}")


async def main() -> None:
    keyring = Keyring.generate().for_audience("sales-desk")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = application(Verifier(keyring, audience="sales-desk"), card_of(origin), origin)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))

    root = Issuer(keyring).mint(
        subject="user:jane",
        agent="orchestrator",
        task="q3-risk",
        tables=["sales"],
        operations=["select"],
        tools={"sales_desk.*": {}},
    )
    async with (
        httpx.AsyncClient() as plain,
        httpx.AsyncClient(auth=auth({origin: "sales-desk"})) as shown,
    ):
        card = await A2ACardResolver(plain, origin).get_agent_card()
        client = ClientFactory(ClientConfig(httpx_client=shown)).create(card)
        print(f"{card.name}: takes {', '.join(card.security_schemes)}\n")

        with current.use(root):
            with current.delegate(
                to="risk-agent", tables=["sales"], tools={"sales_desk.overdue": {}}, expires_in=60
            ):
                await ask(client, "risk-agent", "overdue in eu")
                await ask(client, "risk-agent", "salaries of all")
                await ask(client, "risk-agent", "everything")
            await ask(client, "orchestrator", "salaries of all")

        bare = ClientFactory(ClientConfig(httpx_client=plain)).create(card)
        await ask(bare, "nobody, with no token", "overdue in eu")
    server.should_exit = True
    await serving


asyncio.run(main())
