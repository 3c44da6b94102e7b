"""Messages of MCP as a gateway reads and writes them: JSON-RPC, read once, written anew.

    said = read(line)                            # Malformed
    said.method, said.params, said.id
    written(said.sent({"sampling"}))             # what goes to the server

What comes from a client is read strictly: what two readers could read differently is refused. Each
message has its known members and no other; of `_meta` goes on what the protocol itself has there.
What comes from a server is read for what it is, and its results go on byte for byte.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from captoken.adapters._gateway import strict, written
from captoken.adapters._gateway.shapes import ANY
from captoken.adapters._http.exchange import RequestError
from captoken.adapters._mcp.messages import CALL, LISTS

# Of JSON-RPC, and of MCP where a request is for another version.
PARSE, INVALID, NO_METHOD, PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
OTHER_VERSION: Final = -32022

# The revisions that are read here: by a handshake, and in each request. Whatever a later one adds,
# nobody here has judged.
HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = ("2026-07-28",)

OWN = "io.modelcontextprotocol/"
VERSION = f"{OWN}protocolVersion"
_CAPABILITIES = f"{OWN}clientCapabilities"
_TRACE = frozenset(("traceparent", "tracestate", "progressToken"))

# What a server may ask of its client, by the capability that permits it.
ASKS = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
_ASKED: Final = frozenset(ASKS.values())

_ROUNDS = frozenset(("inputResponses", "requestState"))

# Params that no token is asked about, by method: no others go on. Those of each other method are
# its arguments.
_PARAMS: Final[Mapping[str, frozenset[str]]] = {
    "initialize": frozenset(("protocolVersion", "capabilities", "clientInfo")),
    "ping": frozenset(),
    "server/discover": frozenset(),
    "notifications/initialized": frozenset(),
    "notifications/cancelled": frozenset(("requestId", "reason")),
    "notifications/progress": frozenset(("progressToken", "progress", "total", "message")),
    "notifications/roots/list_changed": frozenset(),
    CALL: frozenset(("name", "arguments", "task")) | _ROUNDS,
    **dict.fromkeys(LISTS, frozenset(("cursor",))),
}

Id = int | str


class Malformed(Exception):  # noqa: N818, the name reads as what it is
    """A message that is not taken: an error of JSON-RPC, for the id that it has, or for none."""

    def __init__(self, code: int, text: str, number: Id | None = None, data: Any = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.id = number
        self.data = data


class Said(NamedTuple):
    """A message of a client's: a request, a notification (no id), or an answer (no method)."""

    id: Id | None
    method: str

    # Of an answer: its `result` or `error`.
    params: dict[str, Any]

    @property
    def version(self) -> str | None:
        """The revision that the request itself is of; None before 2026-07-28."""
        meta = self.params.get("_meta")
        found = meta.get(VERSION) if type(meta) is dict else None
        return found if type(found) is str else None

    def sent(self, asks: Collection[str]) -> dict[str, Any]:
        """What goes to the server. It is told of no capability that it may not use (`asks`)."""
        if not self.method:
            return {"jsonrpc": "2.0", "id": self.id, **self.params}
        params = dict(self.params)
        if self.method == "initialize":
            params["capabilities"] = _permitted(params.get("capabilities"), asks)
        if "_meta" in params:
            params["_meta"] = _meta(params["_meta"], asks)
        message = {"jsonrpc": "2.0", "method": self.method, "params": params}
        return message if self.id is None else {"id": self.id, **message}


def _permitted(capabilities: Any, asks: Collection[str]) -> dict[str, Any]:
    """Capabilities of a client, without what the server may not ask of it."""
    stated = capabilities if type(capabilities) is dict else {}
    # Tasks of a client's are how a server asks for sampling and elicitation, too.
    kept = _ASKED.intersection(asks) | ({"tasks"} if set(asks) >= _ASKED else set())
    return {key: item for key, item in stated.items() if key in kept}


def _meta(meta: dict[str, Any], asks: Collection[str]) -> dict[str, Any]:
    """Of `_meta` what the protocol has there. A server could act on all else, unjudged."""
    kept = {key: item for key, item in meta.items() if key.startswith(OWN) or key in _TRACE}
    if _CAPABILITIES in kept:
        kept[_CAPABILITIES] = _permitted(kept[_CAPABILITIES], asks)
    return kept


# --- from the client ------------------------------------------------------------------------------


def read(body: bytes) -> Said:
    """A message, strictly. Raises Malformed."""
    try:
        value = strict.json_value(body)
        strict.fitting(value, ANY, ("The message",))
    except RequestError as problem:
        raise Malformed(PARSE, problem.text) from None
    if type(value) is not dict:
        raise Malformed(INVALID, "One message at a time: a batch is not taken.")
    number = value.pop("id", None)
    if type(number) not in (int, str, type(None)):
        raise Malformed(INVALID, "An id is a text or a whole number.")
    if value.pop("jsonrpc", None) != "2.0":
        raise Malformed(INVALID, "It is no message of JSON-RPC 2.0.", number)
    if "method" not in value:
        return _answer(number, value)
    method, params = value.pop("method"), value.pop("params", {})
    if value or type(method) is not str or type(params) is not dict:
        raise Malformed(INVALID, "A request has a method, params and no other member.", number)
    if number is None and not method.startswith("notifications/"):
        raise Malformed(INVALID, "A request has an id.")
    _check_params(number, method, params)
    return Said(number, method, params)


def _answer(number: Id | None, value: dict[str, Any]) -> Said:
    """An answer to the server's own request."""
    if number is None or value.keys() not in ({"result"}, {"error"}):
        raise Malformed(INVALID, "It is neither a request nor an answer.", number)
    return Said(number, "", value)


def _check_params(number: Id | None, method: str, params: dict[str, Any]) -> None:
    """Raise Malformed for params that would go on without having been judged."""
    if type(params.get("_meta", {})) is not dict:
        raise Malformed(PARAMS, "_meta is no object.", number)
    known = _PARAMS.get(method)
    if known is not None and not known.issuperset(params.keys() - {"_meta"}):
        raise Malformed(PARAMS, f"{method} has a member that it does not have.", number)


def encode(message: Mapping[str, Any]) -> bytes:
    """A message, in one line of ASCII."""
    return written.json_body(message)


def error(number: Id | None, code: int, text: str, data: Any = None) -> dict[str, Any]:
    """An answer that says what is wrong."""
    said: dict[str, Any] = {"code": code, "message": text}
    if data is not None:
        said["data"] = data
    return {"jsonrpc": "2.0", "id": number, "error": said}


def told(number: Id, text: str, meta: Mapping[str, Any], modern: bool) -> dict[str, Any]:
    """The result of a call that was refused, for the model to read."""
    result: dict[str, Any] = {
        "content": [{"type": "text", "text": text}],
        "isError": True,
        "_meta": dict(meta),
    }
    if modern:
        result["resultType"] = "complete"
    return {"jsonrpc": "2.0", "id": number, "result": result}


# --- from the server ------------------------------------------------------------------------------


class Heard(msgspec.Struct, omit_defaults=True):
    """A message of a server's. Its params and its result go on as they are.

    Written again, it has no other member, and each of them once.
    """

    jsonrpc: str
    id: Id | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_answer(self) -> bool:
        """Does it answer a request of the client's?"""
        return self.method is msgspec.UNSET


class Rounds(msgspec.Struct):
    """What a result says of how it goes on: by asking the client, or as a task."""

    inputRequests: Any = None  # noqa: N815, as the protocol spells it
    requestState: Any = None  # noqa: N815
    task: Any = None
    taskId: Any = None  # noqa: N815

    @property
    def task_id(self) -> Any:
        """The id of the task that the result began, or None."""
        return self.task.get("taskId") if type(self.task) is dict else self.taskId

    @property
    def asked(self) -> list[Any]:
        """The methods that the client is asked for; something that is no text is none."""
        if type(self.inputRequests) is not dict:
            return [] if self.inputRequests is None else [None]
        asked = self.inputRequests.values()
        return [each.get("method") if type(each) is dict else None for each in asked]


_heard = msgspec.json.Decoder(Heard)
_rounds = msgspec.json.Decoder(Rounds)
_any = msgspec.json.Decoder()
_write = msgspec.json.Encoder().encode


def hear(data: bytes) -> Heard:
    """A message of a server's. Raises ValueError for what is none."""
    try:
        found = _heard.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError("no message of JSON-RPC") from None
    has = (found.result is not msgspec.UNSET) + (found.error is not msgspec.UNSET)
    if found.jsonrpc != "2.0" or has != found.is_answer:
        raise ValueError("neither a request nor an answer")
    return found


def rounds(result: msgspec.Raw) -> Rounds:
    """How a result goes on. One that is no object goes on as it is, and says nothing of it."""
    try:
        return _rounds.decode(result)
    except (msgspec.MsgspecError, RecursionError):
        return Rounds()


def opened(raw: msgspec.Raw | msgspec.UnsetType) -> dict[str, Any]:
    """The members of params or of a result; none of what is no object."""
    try:
        found = {} if raw is msgspec.UNSET else _any.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        found = {}
    return found if type(found) is dict else {}


def closed(value: Any) -> msgspec.Raw:
    """The same, to be written."""
    return msgspec.Raw(_write(value))


def spelled(heard: Heard) -> bytes:
    """A message of a server's, in one line."""
    data = _write(heard)
    return data if b"\n" not in data and b"\r" not in data else _write(_any.decode(data))
