"""Present a token with each request that a framework's own MCP client makes.

    present_each(Client(...), audience="sales-mcp")                         # fastmcp
    present_each(MCPToolset(...), audience="sales-mcp")                     # pydantic-ai
    MCPServerStdio(..., tool_meta_resolver=meta_resolver("sales-mcp"))      # openai-agents
    MultiServerMCPClient(..., tool_interceptors=[interceptor("sales-mcp")]) # LangChain

See docs/mcp.md.

1. The current token at the call is presented, narrowed to that call, as
   `captoken.adapters.mcp_client` does. So one client can serve many agents.
2. If the token does not permit the call, it is not sent. If there is no current token, this raises
   NoToken.
3. `present_each` covers every request, including lists. The other functions see only tool calls: a
   list is requested without a token.

This file imports no framework: each framework calls the function that it was given.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, TypeVar

from captoken import current
from captoken._format.clocks import Seconds
from captoken._format.errors import NoToken, Refused, WideningError
from captoken._format.extras import extra
from captoken._format.text import refuse_set
from captoken._writing.keywords import Strings
from captoken.adapters._mcp.messages import CALL, FREE, TOKEN, has_token
from captoken.adapters._mcp.not_held import not_held
from captoken.adapters.mcp_client import meta_for_request
from captoken.current import AnyHeld

with extra("mcp"):
    _types: Any = import_module("mcp.types")  # of mcp 1.x or 2.x, which differ

_C = TypeVar("_C")


class _Presented:
    """What makes the `_meta` of each request to one server."""

    def __init__(
        self,
        audience: str,
        held: AnyHeld | None,
        expires_in: Seconds,
        keep: Strings,
    ) -> None:
        self._audience = audience
        self._held = None if held is None else current.holding(held)
        self._expires_in = expires_in
        self._keep = keep

    def meta(self, method: str, params: Mapping[str, Any]) -> dict[str, str]:
        """The `_meta` of one request. Raises Refused for what is not held (rule 2), NoToken."""
        try:
            return meta_for_request(
                self._audience,
                method,
                params,
                held=self._held,
                expires_in=self._expires_in,
                keep=self._keep,
            )
        except WideningError as widening:
            raise not_held(widening, self._held, self._audience, method, params) from widening

    def call(self, tool: str, arguments: Mapping[str, Any] | None) -> dict[str, str]:
        """The same of a call of a tool, for a framework that shows a model the text of errors."""
        try:
            return self.meta(CALL, {"name": tool, "arguments": dict(arguments or {})})
        except Refused as refused:
            raise Refused(refused.for_model, refused.for_model, here=True) from None

    def has_key(self) -> bool:
        """Is what would be presented bound to a key?"""
        return current.holding(self._held).at(self._audience).key is not None


def present_each(
    client: _C,
    *,
    audience: str,
    held: AnyHeld | None = None,
    expires_in: Seconds = 60,
    keep: Strings = (),
) -> _C:
    """`client`, from here on with a token for each request, made anew for each sending.

    It is a Client of fastmcp, an MCPToolset of pydantic-ai, or a ClientSession of MCP's own, as
    `MultiServerMCPClient.session` of LangChain gives one, or `server.session` of openai-agents.
    What it asks before this goes without. `held`, `expires_in` and `keep`: as of
    `captoken.adapters.mcp_client.Presenting`.

    A call of a tool that is not held is answered as the server would, and not sent. For any other
    request the client raises Refused. Raises TypeError for what is no such client.
    """
    presented = _Presented(audience, held, expires_in, keep)
    inside: Any = client
    while not hasattr(inside, "send_request") and hasattr(inside, "client"):
        inside = inside.client
    if hasattr(inside, "send_request"):
        _present_session(inside, presented)
    elif hasattr(getattr(inside, "transport", None), "connect_session"):
        _present_transport(inside.transport, presented)
    else:
        raise TypeError(f"captoken cannot add tokens to the requests of a {type(client).__name__}")
    return client


def _present_transport(transport: Any, presented: _Presented) -> None:
    """See to it that each session of a transport of fastmcp presents.

    Its method is replaced once, however often it is asked to present.
    """
    known = transport.connect_session
    if isinstance(known, _Connecting):
        known.presented = presented
    else:
        transport.connect_session = _Connecting(known, presented)


class _Connecting:
    """What stands in the place of a transport's `connect_session`."""

    def __init__(self, plain: Callable[..., Any], presented: _Presented) -> None:
        self.presented = presented
        self._plain = plain

    @asynccontextmanager
    async def __call__(self, *args: Any, **options: Any) -> AsyncGenerator[Any, None]:
        async with self._plain(*args, **options) as session:
            _present_session(session, self.presented)
            yield session


def _present_session(session: Any, presented: _Presented) -> None:
    """See to it that each request of a session comes with a token: the SDK's own ones, too.

    The one method of the session by which requests go out is replaced, once for each session.
    """
    known = session.send_request
    if isinstance(known, _Sending):
        known.presented = presented
    else:
        session.send_request = _Sending(known, presented)


class _Sending:
    """What stands in the place of a session's `send_request`.

    What brings a token itself, and what needs none, goes through as it is.
    """

    def __init__(self, plain: Callable[..., Awaitable[Any]], presented: _Presented) -> None:
        self.presented = presented
        self._plain = plain

    async def __call__(self, request: Any, *args: Any, **options: Any) -> Any:
        message = getattr(request, "root", request)  # mcp 1.x wraps it
        if message.method in FREE:
            return await self._plain(request, *args, **options)
        whole: dict[str, Any] = message.model_dump(by_alias=True, mode="json", exclude_none=True)
        params = dict(whole.get("params") or {})
        theirs = params.pop("_meta", None) or {}
        if has_token(theirs):
            refuse_set(theirs[TOKEN])
            return await self._plain(request, *args, **options)

        try:
            ours = self.presented.meta(message.method, params)
        except Refused as refused:
            if message.method != CALL:
                raise
            return _refusal_result(refused)
        sent = {**whole, "params": {**params, "_meta": {**theirs, **ours}}}
        made = type(message).model_validate(sent)
        again = made if message is request else type(request)(made)
        return await self._plain(again, *args, **options)


def _refusal_result(refused: Refused) -> Any:
    """The answer to a call that was not sent: what a server's guard would have said."""
    said = {"type": "text", "text": refused.for_model}
    return _types.CallToolResult.model_validate({"content": [said], "isError": True})


def process_tool_call(
    audience: str,
    *,
    held: AnyHeld | None = None,
    expires_in: Seconds = 60,
    keep: Strings = (),
) -> Callable[..., Awaitable[Any]]:
    """For pydantic-ai: `MCPToolset(url, process_tool_call=process_tool_call("sales-mcp"))`.

    Calls of tools alone (rule 3). What is not held raises Refused, and that ends the run: use
    `present_each` where the model is to be told.
    """
    presented = _Presented(audience, held, expires_in, keep)

    async def process(context: Any, call: Any, name: str, arguments: dict[str, Any]) -> Any:
        return await call(name, arguments, metadata=dict(presented.call(name, arguments)))

    return process


def meta_resolver(
    audience: str,
    *,
    held: AnyHeld | None = None,
    expires_in: Seconds = 60,
    keep: Strings = (),
) -> Callable[[Any], dict[str, Any]]:
    """For openai-agents: `MCPServerStdio(…, tool_meta_resolver=meta_resolver("sales-mcp"))`.

    Calls of tools alone (rule 3). What is not held raises Refused, of which the framework tells the
    model in its own words: use `present_each(server.session, …)` where it is to be told.
    """
    presented = _Presented(audience, held, expires_in, keep)

    def resolve(context: Any) -> dict[str, Any]:
        return dict(presented.call(context.tool_name, context.arguments))

    return resolve


def interceptor(
    audience: str,
    *,
    held: AnyHeld | None = None,
    expires_in: Seconds = 60,
    keep: Strings = (),
) -> Callable[[Any, Callable[[Any], Awaitable[Any]]], Awaitable[Any]]:
    """For LangChain: `MultiServerMCPClient(…, tool_interceptors=[interceptor("sales-mcp")])`.

    Its interceptors see calls of tools alone, and can say no `_meta`: the token goes in the header
    of a connection for that call, over HTTP. A token that is bound to a key needs a proof for each
    request, and raises NoToken here: use `present_each(session, …)`. So does another transport,
    which the server refuses.
    """
    presented = _Presented(audience, held, expires_in, keep)

    async def intercept(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        if presented.has_key():
            raise NoToken(
                "a token that is bound to a key needs a proof in each request, and an interceptor "
                "can only set headers: use present_each(session, audience=…)"
            )
        try:
            meta = presented.meta(CALL, {"name": request.name, "arguments": dict(request.args)})
        except Refused as refused:
            return _refusal_result(refused)
        headers = {**(request.headers or {}), "Authorization": f"Bearer {meta[TOKEN]}"}
        return await handler(request.override(headers=headers))

    return intercept
