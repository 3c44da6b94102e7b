"""A2A: an agent that is asked by another one takes its message only under a token that permits it (docs/rpc.md).

    guarded = CaptokenMiddleware(application, verifier, origin="https://sales.example", public=PUBLIC)
    create_jsonrpc_routes(DefaultRequestHandler(**admission(executor, rule), …), "/", context_builder=GrantedCalls())

1. The token travels in the headers of HTTP, never in a message: A2A servers keep messages and hand them out. The middleware
   of `captoken.adapters.asgi` verifies it, with its proof, and takes it out of the headers.
2. `GrantedCalls` puts its grant into the call's context, and the user that owns what the call leaves: by default subject and
   task, as the issuer wrote them. A call that came by no middleware is refused.
3. `admission` decides on each message before a task is touched, and runs the executor under `current.serving(grant)`. An
   executor that gets a message on which nobody has decided raises NoToken.
4. A client shows a token by the origin that a request really goes to (`captoken.adapters.httpx`), not by what an agent card
   says: a server writes its card itself, and could name the origin of another one.
"""

from __future__ import annotations

import logging
from asyncio import to_thread
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypedDict

from a2a.auth.user import User
from a2a.server.agent_execution import (
    AgentExecutor,
    RequestContext,
    RequestContextBuilder,
    SimpleRequestContextBuilder,
)
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.types import a2a_pb2
from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH
from a2a.utils.errors import UnsupportedOperationError
from starlette.requests import Request

from captoken import current
from captoken.access import Access
from captoken.adapters.asgi import granted_to
from captoken.decision import Decision
from captoken.errors import Denied, NoToken
from captoken.grant import Grant

_log = logging.getLogger("captoken")
EXTENSION = "io.captoken:a2a/v1"  # in agent cards, and the key in a message's metadata
SCHEME = "captoken"
PUBLIC = (AGENT_CARD_WELL_KNOWN_PATH,)
_GRANT, _ADMITTED = "captoken.grant", "captoken.admitted"  # in the state of a call
_SECRET = ("authorization", "captoken-proof")

# What a message needs: always the same access, or one by what it says; None for what no token permits.
Rule: TypeAlias = "Access | Callable[[a2a_pb2.SendMessageRequest], Access | None]"


# --- server ----------------------------------------------------------------------------------------------------------


class GrantedUser(User):
    """Who owns what a call leaves behind, by the grant it came with."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def user_name(self) -> str:
        return self._name


def owner_of(grant: Grant) -> str:
    """Subject and task of the root record: agents of one task see each other's A2A tasks, and nobody else's."""
    return f"{grant.issued.subject} {grant.issued.task}"


class GrantedCalls(DefaultServerCallContextBuilder):
    """For `context_builder=`: the call's context has the grant, its user, and headers without a token.

    `owner`: whose the A2A tasks of a call are; whoever has the same name can read, list and cancel them. Raises NoToken
    for a request that a CaptokenMiddleware has not let in.
    """

    def __init__(self, owner: Callable[[Grant], str] = owner_of) -> None:
        self._owner = owner

    def build(self, request: Request) -> ServerCallContext:
        grant = granted_to(request.scope)  # rule 2
        context = super().build(request)
        headers = context.state.get("headers", {})
        context.state["headers"] = {name: value for name, value in headers.items() if name not in _SECRET}
        context.state[_GRANT] = grant
        context.user = GrantedUser(self._owner(grant))
        return context


class Admission(TypedDict):
    """Two arguments of a request handler."""

    agent_executor: AgentExecutor
    request_context_builder: RequestContextBuilder


def admission(
    executor: AgentExecutor, rule: Rule, *, request_context_builder: RequestContextBuilder | None = None
) -> Admission:
    """What makes a request handler refuse messages that the token does not permit: `DefaultRequestHandler(**admission(…), …)`.

    `rule` says what a message needs. A refusal is an A2A error with a public sentence; nothing has run then. The executor
    asks `current.grant()` for what it does beyond that; a Denied that it lets through fails the task, with such a sentence.
    Raises TypeError for what is no rule.

    Not decided on: reading, listing, cancelling and subscribing, which go by the owner of a task (`GrantedCalls`).
    """
    if not (isinstance(rule, Access) or callable(rule)):
        raise TypeError(f"a rule is an Access, or a callable that returns one, not {type(rule).__name__}")
    contexts = request_context_builder or SimpleRequestContextBuilder()
    return Admission(agent_executor=_Serving(executor), request_context_builder=_Admitting(contexts, rule))


def _granted(context: ServerCallContext) -> Grant:
    grant = context.state.get(_GRANT)
    if not isinstance(grant, Grant):
        raise NoToken("nothing is granted here: use GrantedCalls as context_builder, behind a CaptokenMiddleware")
    return grant


class _Admitting(RequestContextBuilder):
    """Rule 3, the first half: asked by the request handler before it creates or finds a task."""

    def __init__(self, contexts: RequestContextBuilder, rule: Rule) -> None:
        self._contexts, self._rule = contexts, rule

    async def build(
        self,
        context: ServerCallContext,
        params: a2a_pb2.SendMessageRequest | None = None,
        task_id: str | None = None,
        context_id: str | None = None,
        task: a2a_pb2.Task | None = None,
    ) -> RequestContext:
        grant = _granted(context)
        decision = await to_thread(self._decide, grant, params) if grant._verifier.waits else self._decide(grant, params)
        if not decision:
            raise UnsupportedOperationError(Denied(decision).public)
        built = await self._contexts.build(context, params, task_id, context_id, task)
        context.state[_ADMITTED] = grant
        return built

    def _decide(self, grant: Grant, params: a2a_pb2.SendMessageRequest | None) -> Decision:
        access: Access | None = None
        if isinstance(self._rule, Access):
            access = self._rule
        elif params is not None:
            try:
                access = self._rule(params)
            except (TypeError, ValueError, LookupError, RecursionError):  # names that no token can have
                access = None
        if not isinstance(access, Access):
            return grant.record(grant.refusal("domain", "no access that a token can permit"))
        return grant.check(access)


class _Serving(AgentExecutor):
    """Rule 3, the second half: the executor, under the grant of the call that it answers, and nothing else."""

    def __init__(self, executor: AgentExecutor) -> None:
        self._executor = executor

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        grant = _granted(context.call_context)
        if context.call_context.state.get(_ADMITTED) is not grant:
            raise NoToken("nobody has decided on this message: give the request handler both parts of admission()")
        try:
            with current.nothing(), current.serving(grant):
                return await self._executor.execute(context, event_queue)
        except Denied as denied:  # the SDK would tell the client what is for the operator
            refused = denied
        _log.info("refused: %s", refused.decision.summary)
        raise UnsupportedOperationError(refused.public)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        with current.nothing(), current.serving(_granted(context.call_context)):
            await self._executor.cancel(context, event_queue)


# --- cards and messages ----------------------------------------------------------------------------------------------


def declare(card: a2a_pb2.AgentCard) -> a2a_pb2.AgentCard:
    """The card, saying that the agent takes captokens and nothing else: a security scheme, its requirement, the extension."""
    scheme = a2a_pb2.HTTPAuthSecurityScheme(scheme="Bearer", bearer_format="captoken")
    card.security_schemes[SCHEME].http_auth_security_scheme.CopyFrom(scheme)
    del card.security_requirements[:]
    card.security_requirements.append(a2a_pb2.SecurityRequirement(schemes={SCHEME: a2a_pb2.StringList()}))
    if not any(extension.uri == EXTENSION for extension in card.capabilities.extensions):
        card.capabilities.extensions.append(a2a_pb2.AgentExtension(uri=EXTENSION))
    return card


def metadata(grant: Grant) -> Mapping[str, Any]:
    """For the metadata of an answer: on whose behalf it was made. No token is in it, and nothing that is secret.

    Whoever reads it believes the server that wrote it: it is for trails, not for decisions.
    """
    chain = [{"name": actor.name, "basis": actor.basis} for actor in grant.chain]
    issued = grant.issued
    return {EXTENSION: {"subject": issued.subject, "task": grant.task, "token_id": issued.token_id, "chain": chain}}
