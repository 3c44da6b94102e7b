"""A2A: an agent accepts another agent's message only with a token that permits it (docs/rpc.md).

    handler = GuardedHandler(DefaultRequestHandler(**admission(executor, rule), …), other=rest)
    create_jsonrpc_routes(handler, "/", context_builder=GrantedCalls())
    CaptokenMiddleware(application, verifier, origin="https://sales.example", public=PUBLIC)

1. The token travels in HTTP headers, never in a message, because A2A servers store messages and
   return them. The middleware of `captoken.adapters.asgi` verifies the token and its proof, and
   removes them from the headers.
2. `GrantedCalls` puts the grant into the call's context, together with the user that owns what the
   call creates. By default that user is the calling agent, with its whole chain. A call that did
   not come through the middleware is refused.
3. `admission` decides on each message before it touches a task, and runs the executor under
   `current.serving(grant)`. If an executor gets a message without a decision, it raises NoToken.
4. `GuardedHandler` decides on every other method: reading, listing, cancelling, subscribing, push
   notifications, and the extended card. It needs a rule for these and refuses all of them without
   one. It decides again for each event of a stream. Without it, a call owns nothing and finds
   nothing.
5. A client presents a token for the origin that the request really goes to
   (`captoken.adapters.httpx`), not for the one in an agent card. A server writes its own card, and
   could name another's origin.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias, TypedDict

from captoken._format.extras import extra

with extra("a2a"):
    from a2a.auth.user import User
    from a2a.server.agent_execution import (
        AgentExecutor,
        RequestContext,
        RequestContextBuilder,
        SimpleRequestContextBuilder,
    )
    from a2a.server.context import ServerCallContext
    from a2a.server.events import Event, EventQueue
    from a2a.server.request_handlers import RequestHandler
    from a2a.server.routes.common import DefaultServerCallContextBuilder
    from a2a.types import a2a_pb2
    from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH
    from a2a.utils.errors import InvalidParamsError, UnsupportedOperationError
    from google.protobuf.message import Message
    from starlette.requests import Request

from captoken import current
from captoken._format.errors import NoToken, StatementError
from captoken._language.access import Access
from captoken._language.bounds import BODY_BYTES, TOO_LARGE, is_bounded
from captoken._language.costs import Cost, costing
from captoken._verification.decision import Decision, Denied
from captoken._verification.grant import AsyncGrant, Grant
from captoken.adapters._asking import answer_of
from captoken.adapters._http.credentials import is_credential
from captoken.adapters.asgi import granted_to
from captoken.current import AnyGrant

EXTENSION = "io.captoken:a2a/v1"  # in agent cards, and the key in a message's metadata
SCHEME = "captoken"  # in agent cards, the name of the security scheme
PUBLIC = (AGENT_CARD_WELL_KNOWN_PATH,)  # a client reads the card before it knows what to show

# These keys are in the state of a call.
_GRANT = "captoken.grant"  # the grant of the call
_ADMITTED = "captoken.admitted"  # the grant, and the access that its message needs
_GUARDED = "captoken.guarded"  # the grant, after a GuardedHandler has decided on the call

_UNGRANTED = (
    "this call has no grant: use GrantedCalls as context_builder, behind a CaptokenMiddleware"
)
_UNGUARDED = "no guard has checked this call: wrap the request handler in a GuardedHandler"
_UNDECIDED = (
    "no guard has checked this message: give the request handler both parts of admission()"
)

# What a message needs: always the same access, or one by what it says; None for what no token
# permits.
Rule: TypeAlias = "Access | Callable[[a2a_pb2.SendMessageRequest], Access | None]"
# The same for another call, by its parameters (`GetTaskRequest`, …), whose type says which one it
# is.
Other: TypeAlias = "Access | Callable[[Any], Access | None]"


# --- server ---------------------------------------------------------------------------------------


class GrantedUser(User):
    """Who owns what a call leaves behind, by the grant it came with.

    Nobody does, unless a GuardedHandler decides on the call (rule 4). So an application without one
    stores nothing and finds nothing, whichever call it is.

    `name`: as `by_agent` or `by_task` makes it.
    `state`: that of the call, in which the decision is noted.
    """

    def __init__(self, name: str, state: Mapping[str, Any]) -> None:
        self._name = name
        self._state = state

    @property
    def is_authenticated(self) -> bool:
        """There is a grant, so somebody has vouched for who calls."""
        return True

    @property
    def user_name(self) -> str:
        """What the SDK's stores file A2A tasks under. Raises NoToken while nobody has decided."""
        if self._state.get(_GUARDED) is not self._state[_GRANT]:
            raise NoToken(_UNGUARDED)
        return self._name


def by_agent(grant: AnyGrant) -> str:
    """Subject, task and chain.

    An agent has what it has left itself, whatever token of its place in the chain it shows.
    """
    agents = [actor.name for actor in grant.chain]
    return json.dumps([grant.issued.subject, grant.issued.task, *agents])


def by_task(grant: AnyGrant) -> str:
    """Subject and task.

    Agents of one task, the least of them too, have each other's A2A tasks.
    """
    return json.dumps([grant.issued.subject, grant.issued.task])


class GrantedCalls(DefaultServerCallContextBuilder):
    """For `context_builder=`: gives a call's context the grant, and a user by it.

    Its headers are without a token.

    `owner`: whose the A2A tasks of a call are, `by_agent` or `by_task`, say. Whoever has the same
    name can go on with them, and read, list and cancel them if it may do so at all. Raises NoToken
    for a request that a CaptokenMiddleware has not let in.
    """

    def __init__(self, owner: Callable[[Grant], str] = by_agent) -> None:
        self._owner = owner

    def build(self, request: Request) -> ServerCallContext:
        """Called by the SDK's routes, at each call."""
        grant = granted_to(request.scope)  # rule 2
        context = super().build(request)
        # Rule 1. The middleware has taken them out already; what stands between could add them.
        headers = context.state.get("headers", {})
        context.state["headers"] = {
            name: value
            for name, value in headers.items()
            if not is_credential(name.encode("latin-1"))
        }
        context.state[_GRANT] = grant
        # It is no coroutine, and so gets the plain grant.
        context.user = GrantedUser(self._owner(grant.blocking), context.state)
        return context


class Admission(TypedDict):
    """Two arguments of a request handler.

    One decides on a message, and the other one runs what was decided on. Either by itself refuses
    everything.
    """

    agent_executor: AgentExecutor
    """Runs what was decided on."""
    request_context_builder: RequestContextBuilder
    """Decides on a message."""


def admission(
    executor: AgentExecutor,
    rule: Rule,
    *,
    request_context_builder: RequestContextBuilder | None = None,
    cost: Cost | None = None,
) -> Admission:
    """What makes a request handler refuse messages that the token does not permit.

    It is for `DefaultRequestHandler(**admission(…), …)`. The handler then goes into a
    `GuardedHandler`, which decides on everything else.

        def rule(request):
            skill = get_message_text(request.message).split(" ")[0]
            return Access(tool=f"desk.{skill}") if skill in SKILLS else None

    `executor`: what answers messages. It asks `current.grant()` for what it does beyond the rule; a
    Denied that it lets through fails the task, with a public sentence.
    `rule`: what a message needs, an Access or a function of the request; None is refused.
    `request_context_builder`: of your own; the SDK's unless said.
    `cost`: what a message takes of a budget, in the units that the rule does not state. A mapping
    by unit, as `{"usd_cents": 2}`, or a function of the request that gives one and raises as the
    rule does. None unless said.

    A refusal is an A2A error with a public sentence; nothing has run then. Raises TypeError for
    what is no rule.
    """
    _refuse_no_rule(rule)
    contexts = request_context_builder or SimpleRequestContextBuilder()
    return Admission(
        agent_executor=_GrantedExecutor(executor),
        request_context_builder=_CheckedMessages(contexts, costing(rule, cost)),
    )


def _refuse_no_rule(rule: object) -> None:
    """Raise TypeError for what is no rule."""
    if not (isinstance(rule, Access) or callable(rule)):
        raise TypeError(
            f"a rule must be an Access, or a callable that returns one, not {type(rule).__name__}"
        )


def _granted(context: ServerCallContext) -> AnyGrant:
    """The grant that a call came with. Raises NoToken for one that no middleware has let in."""
    grant = context.state.get(_GRANT)
    if not isinstance(grant, (Grant, AsyncGrant)):
        raise NoToken(_UNGRANTED)
    return grant


async def _check(
    grant: AnyGrant,
    rule: Any,
    params: object,
) -> Access:
    """The access that a call needs, once the grant permits it.

    `rule`: a Rule or an Other; None for what no rule speaks of.
    `params`: the parameters of the call, as the rule takes them.

    Raises UnsupportedOperationError, with a public sentence. A denial is recorded either way.
    """
    if isinstance(params, Message) and params.ByteSize() > BODY_BYTES:
        raise _refused(await answer_of(grant, lambda face: face.deny(*TOO_LARGE)))
    access = _access_for(rule, params)
    if access is None:
        why = "no access that a token can permit"
        raise _refused(await answer_of(grant, lambda face: face.deny("domain", why)))
    if not is_bounded(access):
        raise _refused(await answer_of(grant, lambda face: face.deny(*TOO_LARGE)))
    decision: Decision = await answer_of(grant, lambda face: face.check(access))
    if not decision:
        raise _refused(decision)
    return access


def _access_for(rule: Any, params: object) -> Access | None:
    """What a rule says of a call; None for what no token permits, and where there is no rule."""
    if isinstance(rule, Access):
        return rule
    if rule is None or params is None:
        return None
    try:
        access = rule(params)
    except (TypeError, ValueError, LookupError, RecursionError):
        return None  # it speaks of names that no token can have
    return access if isinstance(access, Access) else None


async def _recheck(grant: AnyGrant, access: Access) -> None:
    """Whether what was permitted is permitted still. Asks no store, and takes nothing of a budget.

    A token can run out, or be taken back, while a stream goes on. A denial is recorded, since it
    ends the stream. Raises UnsupportedOperationError.
    """
    going_on = (access,)
    decision: Decision = await answer_of(
        grant, lambda face: face.recheck(going_on, under_way=True)
    )
    if not decision:
        raise _refused(await answer_of(grant, lambda face: face.deny(decision)))


def _refused(decision: Decision) -> UnsupportedOperationError:
    """What a client is told. The SDK would tell it all of a Denied, which is for the operator."""
    data = {"io.captoken/decision": decision.id} if decision.id else {}
    asked = decision.request()
    if asked is not None:
        data["io.captoken/consent-request"] = asked
    return UnsupportedOperationError(Denied(decision).public, data or None)


class _CheckedMessages(RequestContextBuilder):
    """Rule 3, the first half: asked by the request handler before it creates or finds a task."""

    def __init__(self, contexts: RequestContextBuilder, rule: Rule) -> None:
        self._contexts = contexts
        self._rule = rule

    async def build(
        self,
        context: ServerCallContext,
        params: a2a_pb2.SendMessageRequest | None = None,
        task_id: str | None = None,
        context_id: str | None = None,
        task: a2a_pb2.Task | None = None,
    ) -> RequestContext:
        """Decide on a message, and note it in the call's state. Raises what `_check` raises."""
        grant = _granted(context)
        # Rule 4: without that handler nobody would decide on the other calls.
        if context.state.get(_GUARDED) is not grant:
            raise NoToken(_UNGUARDED)
        access = await _check(grant, self._rule, params)
        built = await self._contexts.build(context, params, task_id, context_id, task)
        context.state[_ADMITTED] = (grant, access)
        return built


class GuardedHandler(RequestHandler):
    """A request handler, behind a decision on each call.

    It is what `create_jsonrpc_routes` and the others take.

    `handler`: the SDK's, made with what `admission` gives.
    `other`: what a call needs that is no message, an Access or a function of its parameters. None
    unless said: then all such calls are refused. A message that asks for push notifications needs
    that too, by the `TaskPushNotificationConfig` in it. Which tasks a call can be about is up to
    the owner of each (`GrantedCalls`).
    `cost`: what such a call takes of a budget, in the units that `other` does not state. A mapping
    by unit, or a function of the parameters that gives one. None unless said.

    A refusal is an A2A error with a public sentence. A stream ends in one when what was permitted
    no longer is: it asks at each event. Raises TypeError for what is no rule.
    """

    def __init__(
        self,
        handler: RequestHandler,
        *,
        other: Other | None = None,
        cost: Cost | None = None,
    ) -> None:
        if other is not None:
            _refuse_no_rule(other)
        self._handler = handler
        self._other = None if other is None else costing(other, cost)

    async def _check(self, params: object, context: ServerCallContext) -> Access:
        """The access that a call needs which is no message. Raises what `_check` raises."""
        grant = _granted(context)
        access = await _check(grant, self._other, params)
        context.state[_GUARDED] = grant
        return access

    async def _check_message(
        self,
        params: a2a_pb2.SendMessageRequest,
        context: ServerCallContext,
    ) -> None:
        """Leave a message to `_CheckedMessages`, but for what it asks beside being answered.

        Push notifications go to an address that the client states, so they are decided on like a
        call that sets them up.
        """
        configuration = params.configuration
        if configuration.HasField("task_push_notification_config"):
            await self._check(configuration.task_push_notification_config, context)
        context.state[_GUARDED] = _granted(context)

    async def on_message_send(
        self,
        params: a2a_pb2.SendMessageRequest,
        context: ServerCallContext,
    ) -> a2a_pb2.Task | a2a_pb2.Message:
        await self._check_message(params, context)
        return await self._handler.on_message_send(params, context)

    async def on_message_send_stream(
        self,
        params: a2a_pb2.SendMessageRequest,
        context: ServerCallContext,
    ) -> AsyncGenerator[Event, None]:
        await self._check_message(params, context)
        async with aclosing(self._handler.on_message_send_stream(params, context)) as events:
            async for event in events:
                # There is an access: nothing comes before the message is decided on.
                grant, access = context.state[_ADMITTED]
                await _recheck(grant, access)
                yield event

    async def on_subscribe_to_task(
        self,
        params: a2a_pb2.SubscribeToTaskRequest,
        context: ServerCallContext,
    ) -> AsyncGenerator[Event, None]:
        access = await self._check(params, context)
        async with aclosing(self._handler.on_subscribe_to_task(params, context)) as events:
            async for event in events:
                await _recheck(_granted(context), access)
                yield event

    async def on_get_task(
        self,
        params: a2a_pb2.GetTaskRequest,
        context: ServerCallContext,
    ) -> a2a_pb2.Task | None:
        await self._check(params, context)
        return await self._handler.on_get_task(params, context)

    async def on_list_tasks(
        self,
        params: a2a_pb2.ListTasksRequest,
        context: ServerCallContext,
    ) -> a2a_pb2.ListTasksResponse:
        await self._check(params, context)
        return await self._handler.on_list_tasks(params, context)

    async def on_cancel_task(
        self,
        params: a2a_pb2.CancelTaskRequest,
        context: ServerCallContext,
    ) -> a2a_pb2.Task | None:
        await self._check(params, context)
        return await self._handler.on_cancel_task(params, context)

    async def on_create_task_push_notification_config(
        self,
        params: a2a_pb2.TaskPushNotificationConfig,
        context: ServerCallContext,
    ) -> a2a_pb2.TaskPushNotificationConfig:
        await self._check(params, context)
        return await self._handler.on_create_task_push_notification_config(params, context)

    async def on_get_task_push_notification_config(
        self,
        params: a2a_pb2.GetTaskPushNotificationConfigRequest,
        context: ServerCallContext,
    ) -> a2a_pb2.TaskPushNotificationConfig:
        await self._check(params, context)
        return await self._handler.on_get_task_push_notification_config(params, context)

    async def on_list_task_push_notification_configs(
        self,
        params: a2a_pb2.ListTaskPushNotificationConfigsRequest,
        context: ServerCallContext,
    ) -> a2a_pb2.ListTaskPushNotificationConfigsResponse:
        await self._check(params, context)
        return await self._handler.on_list_task_push_notification_configs(params, context)

    async def on_delete_task_push_notification_config(
        self,
        params: a2a_pb2.DeleteTaskPushNotificationConfigRequest,
        context: ServerCallContext,
    ) -> None:
        await self._check(params, context)
        await self._handler.on_delete_task_push_notification_config(params, context)

    async def on_get_extended_agent_card(
        self,
        params: a2a_pb2.GetExtendedAgentCardRequest,
        context: ServerCallContext,
    ) -> a2a_pb2.AgentCard:
        await self._check(params, context)
        return await self._handler.on_get_extended_agent_card(params, context)


class _GrantedExecutor(AgentExecutor):
    """Rule 3, the second half: the executor, under the grant of the call that it answers.

    It runs under nothing else: what the server itself holds is not current.
    """

    def __init__(self, executor: AgentExecutor) -> None:
        self._executor = executor

    async def execute(
        self,
        context: RequestContext,
        event_queue: EventQueue,
    ) -> None:
        """Answer a message. Raises NoToken for one on which nobody has decided."""
        grant = _granted(context.call_context)
        admitted, _ = context.call_context.state.get(_ADMITTED, (None, None))
        if admitted is not grant:
            raise NoToken(_UNDECIDED)
        await self._serve(grant, self._executor.execute(context, event_queue))

    async def cancel(
        self,
        context: RequestContext,
        event_queue: EventQueue,
    ) -> None:
        """Cancel an A2A task. The GuardedHandler has decided on that call."""
        grant = _granted(context.call_context)
        await self._serve(grant, self._executor.cancel(context, event_queue))

    async def _serve(self, grant: AnyGrant, work: Awaitable[None]) -> None:
        """Let the executor work. Raises UnsupportedOperationError for a Denied of its own, and
        InvalidParamsError for a mistake in a statement.
        """
        try:
            with current.nothing(), current.serving(grant):
                return await work
        except (Denied, StatementError) as raised:
            refused = raised
        # Out of the `except`, so that the new error does not show the Denied as its context.
        if isinstance(refused, StatementError):
            raise InvalidParamsError(refused.for_model())
        raise _refused(refused.decision)


# --- cards and messages ---------------------------------------------------------------------------


def declare(card: a2a_pb2.AgentCard) -> a2a_pb2.AgentCard:
    """The card, saying that the agent takes captokens and nothing else.

    It gets a security scheme, its requirement, and the extension. What other schemes it required is
    gone: an agent that took anything else would not be guarded.
    """
    scheme = a2a_pb2.HTTPAuthSecurityScheme(scheme="Bearer", bearer_format="captoken")
    card.security_schemes[SCHEME].http_auth_security_scheme.CopyFrom(scheme)
    del card.security_requirements[:]
    # The list is that of OAuth's scopes, which captokens do not have.
    card.security_requirements.append(
        a2a_pb2.SecurityRequirement(schemes={SCHEME: a2a_pb2.StringList()})
    )
    declared = [extension.uri for extension in card.capabilities.extensions]
    if EXTENSION not in declared:
        card.capabilities.extensions.append(a2a_pb2.AgentExtension(uri=EXTENSION))
    return card


def metadata(grant: AnyGrant) -> Mapping[str, Any]:
    """For the metadata of an answer: on whose behalf it was made.

    No token is in it, and nothing that is secret. Whoever reads it believes the server that wrote
    it: it is for trails, not for decisions.
    """
    # With the basis of each name: those after the first are vouched for by whoever handed on.
    chain = [{"name": actor.name, "basis": actor.basis} for actor in grant.chain]
    issued = grant.issued
    stated = {
        "subject": issued.subject,
        "task": grant.task,
        "token_id": issued.token_id,
        "chain": chain,
    }
    return {EXTENSION: stated}
