"""Present a token with each request to an MCP server, narrowed to what that request needs (docs/mcp.md).

    async with Client("https://sales.example/mcp") as client:               # mcp 2.x; or a ClientSession of 1.x or 2.x
        sales = Presenting(client, audience="sales-mcp")
        await sales.call_tool("report", {"region": "eu"})                    # with what this code holds

A call of a tool is presented with a token for that server, that tool and those arguments, good for a minute: what the
server may do with it is what it is asked to do. A list is presented with a token that permits none of it.

Not hidden: the arguments, and who acts for whom. What a tool asks of further servers it needs tokens of its own for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from importlib import import_module
from importlib.metadata import version
from typing import Any

from captoken import current
from captoken._format.clocks import Seconds
from captoken._format.spelling import shown
from captoken._language.access import Access
from captoken._writing.keywords import Strings
from captoken._writing.token import Token
from captoken.adapters._mcp.messages import CALL, LISTS, PROOF, TOKEN, digest, facts
from captoken.current import Held, holding

_LISTING: dict[str, dict[str, Any]] = {
    "io.captoken/listing": {"in": []}
}  # an attribute that nothing has: what is listed does not turn on attributes
_types: Any = import_module("mcp.types")  # of mcp 1.x or 2.x, which differ
_TWO = version("mcp").split(".")[0] != "1"


def meta_for(
    audience: str,
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    held: Held | Token | None = None,
    expires_in: Seconds = 60,
    keep: Strings = (),
) -> dict[str, str]:
    """The `_meta` of one `tools/call`: a token for that server, tool and arguments, and a proof if it is bound. Secret.

    `held`: what is presented; left out, what is current. `keep="tables"` keeps what is held of tables, for a server whose
    tools ask the grant about data. Raises NoToken; WideningError for what is not held; ValueError for what no token can
    permit, and arguments that are no JSON; and what `Held.present` raises.
    """
    params = {"name": tool, "arguments": dict(arguments or {})}
    return meta_for_request(audience, CALL, params, held=held, expires_in=expires_in, keep=keep)


def meta_for_request(
    audience: str,
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    held: Held | Token | None = None,
    expires_in: Seconds = 60,
    keep: Strings = (),
) -> dict[str, str]:
    """The same for any method: `meta_for_request("sales-mcp", "resources/read", {"uri": uri})`.

    For a method that lists, the token is narrowed to the server, and permits no call: a condition goes with it that none meets.
    """
    stated = params or {}
    mine = holding(held)
    about = digest(method, stated) if mine.signer is not None else None
    if method in LISTS:
        presented = mine.present(
            audience=audience, expires_in=expires_in, request=about, where=_LISTING
        )
    else:
        asked = facts(method, stated)
        if asked is None:
            raise ValueError(
                f"no token can permit {shown(stated.get('name') if method == CALL else method)}"
            )
        tools = Access(tool=asked[0], arguments=asked[1]).needed()["tools"]
        # Long text, fractions and lists have no constraint of their own: they are presented as what is held of that argument.
        exact = all("in" in constraint for rule in tools.values() for constraint in rule.values())
        presented = mine.present(
            audience=audience,
            expires_in=expires_in,
            request=about,
            keep=keep,
            clamp=not exact,
            tools=tools,
        )
    made = {TOKEN: presented.text}
    trace = current.traceparent()
    if trace is not None:
        made["traceparent"] = trace
    if presented.proof is not None:
        made[PROOF] = presented.proof
    return made


class Presenting:
    """A client that presents a token with each request. Everything else is the client's own: use it."""

    def __init__(
        self,
        client: Any,
        *,
        audience: str,
        held: Held | Token | None = None,
        expires_in: Seconds = 60,
        keep: Strings = (),
    ) -> None:
        self._client, self._audience, self._held, self._expires_in, self._keep = (
            client,
            audience,
            held,
            expires_in,
            keep,
        )

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """The client's `call_tool`. Raises what `meta_for` raises, before anything is sent."""
        stated = dict(arguments or {})
        sent = self._meta(CALL, {"name": name, "arguments": stated}, meta)
        _present_own_lists(getattr(self._client, "session", self._client))
        before = _own_list.set(lambda params: self._meta("tools/list", params, None))
        try:
            return await self._client.call_tool(name, stated, meta=sent, **options)
        finally:
            _own_list.reset(before)

    async def read_resource(
        self, uri: Any, *, meta: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """The client's `read_resource`."""
        return await self._asked(
            "read_resource", "resources/read", {"uri": str(uri)}, meta, options
        )

    async def get_prompt(
        self,
        name: str,
        arguments: Mapping[str, str] | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """The client's `get_prompt`."""
        params = (
            {"name": name, "arguments": dict(arguments)}
            if arguments is not None
            else {"name": name}
        )
        return await self._asked("get_prompt", "prompts/get", params, meta, options)

    async def list_tools(
        self, *, cursor: str | None = None, meta: Mapping[str, Any] | None = None
    ) -> Any:
        """The client's `list_tools`: what the token may call."""
        return await self._list("list_tools", "tools/list", cursor, meta)

    async def list_resources(
        self, *, cursor: str | None = None, meta: Mapping[str, Any] | None = None
    ) -> Any:
        """The client's `list_resources`: what the token may read."""
        return await self._list("list_resources", "resources/list", cursor, meta)

    async def list_resource_templates(
        self, *, cursor: str | None = None, meta: Mapping[str, Any] | None = None
    ) -> Any:
        """The client's `list_resource_templates`: what the token may read something of."""
        return await self._list("list_resource_templates", "resources/templates/list", cursor, meta)

    async def list_prompts(
        self, *, cursor: str | None = None, meta: Mapping[str, Any] | None = None
    ) -> Any:
        """The client's `list_prompts`: what the token may get."""
        return await self._list("list_prompts", "prompts/list", cursor, meta)

    def _meta(
        self, method: str, params: Mapping[str, Any], meta: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        if meta and not {TOKEN, PROOF}.isdisjoint(meta):
            raise ValueError("the token and the proof are put in here: leave them out")
        mine = meta_for_request(
            self._audience, method, params, held=self._held, expires_in=self._expires_in, keep=self._keep
        )  # fmt: skip
        return {**mine, **(meta or {})}

    async def _list(
        self, name: str, method: str, cursor: str | None, meta: Mapping[str, Any] | None
    ) -> Any:
        stated = {} if cursor is None else {"cursor": cursor}
        sent = self._meta(method, stated, meta)
        send = getattr(self._client, name)
        if _TWO and isinstance(self._client, import_module("mcp").Client):
            return await send(cursor=cursor, meta=sent, cache_mode="bypass")
        return await send(
            params=_types.PaginatedRequestParams.model_validate({**stated, "_meta": sent})
        )

    async def _asked(
        self,
        name: str,
        method: str,
        params: dict[str, Any],
        meta: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> Any:
        if _TWO:
            if method == "resources/read" and isinstance(self._client, import_module("mcp").Client):
                options = {"cache_mode": "bypass", **options}
            return await getattr(self._client, name)(
                **params, meta=self._meta(method, params, meta), **options
            )
        kind, result = _ONE[method]  # mcp 1.x sends no _meta with these
        message = kind.model_validate({"method": method, "params": params})
        stated = message.params.model_dump(
            by_alias=True, mode="json", exclude_none=True
        )  # a uri as it is sent
        whole = {**stated, "_meta": self._meta(method, stated, meta)}
        message = kind.model_validate({"method": method, "params": whole})
        return await self._client.send_request(_types.ClientRequest(message), result, **options)


_ONE: dict[str, tuple[Any, Any]] = {
    "resources/read": (_types.ReadResourceRequest, _types.ReadResourceResult),
    "prompts/get": (_types.GetPromptRequest, _types.GetPromptResult),
}

# A session that does not know what a tool returns lists the tools by itself, in the middle of a call, and would be refused.
_own_list: ContextVar[Callable[[Mapping[str, Any]], dict[str, Any]] | None] = ContextVar(
    "captoken.mcp.list", default=None
)


def _present_own_lists(session: Any) -> None:
    """See to it that such a list comes with what the call's holder holds."""
    if "list_tools" in vars(session):
        return
    plain = session.list_tools

    async def list_tools(*args: Any, **options: Any) -> Any:
        meta_of = _own_list.get()
        if meta_of is None or args or not options.keys() <= {"params"}:
            return await plain(*args, **options)
        given = options.get("params")
        stated = (
            {} if given is None else given.model_dump(by_alias=True, mode="json", exclude_none=True)
        )
        meta = stated.pop("_meta", None) or {}
        if TOKEN not in meta:
            meta = {**meta, **meta_of(stated)}
        return await plain(
            params=_types.PaginatedRequestParams.model_validate({**stated, "_meta": meta})
        )

    session.list_tools = list_tools
