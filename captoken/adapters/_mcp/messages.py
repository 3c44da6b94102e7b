"""What a call over MCP is to captoken: on both sides of the wire, in every version of the SDK.

The rules are those of the spec, "Transports" (40.3 to 40.5).

1. `tools/call` is the tool and its arguments. Any other method is a tool of the method's own name,
   and its arguments are what the message states as params. `arguments` among them is taken apart:
   `{"name": "greet", "arguments.style": "short"}`. So a tool whose name has a `/`, and a method
   whose name has none, could pose as the other: no token can permit them.
2. A token comes in `_meta`, or in the one Authorization header; if in both, it is the same but for
   the proof. Never in an argument.
3. A proof stands at the end of the token in `_meta`, and is about the method, the tool and the
   arguments in their one spelling. One at the end of the header's is that where nothing is in
   `_meta`; else it is about the HTTP request, for a guard of HTTP, and is not looked at here.
4. Headers that repeat the method or the name agree with the message, since a proxy may have decided
   by them.
5. Methods that list need a token. What the token cannot be used for is left out.
6. A few methods need nothing (`FREE`). All others, and those that are yet to be invented, need a
   token that permits them.
7. What answers holds nothing (`captoken.current`), even where client and server share a process; it
   has its grant.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard

from captoken._format.text import without_proof
from captoken._language.bounds import MESSAGES, NESTED, is_crowded, is_deep
from captoken.adapters._http.credentials import text_in
from captoken.adapters._http.exchange import Header, RequestError, values_of
from captoken.proof import mcp_request

# The member of `_meta` that has the token.
TOKEN = "io.captoken/token"  # noqa: S105, a name and no secret
# The member of an error's data, and of a refused call's `_meta`, with the kind of the denial.
KIND = "io.captoken/kind"
# The member beside it with the denial's id in the server's log and trail.
DECISION = "io.captoken/decision"
# And the one with what to ask a person, where a consent would let the request through.
CONSENT = "io.captoken/consent-request"

CALL = "tools/call"

# Rule 6. With these a session is opened, kept and closed; nothing that is served is seen. What a
# client cancels, or reports progress of, is its own.
FREE = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
    }
)
# The code of a protocol error, by the kind of the denial: what HTTP would have (spec 40.8).
STATUS = {
    "invalid": 401,
    "proof": 401,
    "insufficient": 403,
    "unavailable": 503,
}

_SECRET_HEADER = b"authorization"

# Of params: no arguments (spec 40.4). The answers to an elicitation are among them, so that no rule
# sees those: the docs say so.
_BESIDE = frozenset({"_meta", "inputResponses", "requestState"})

# The one spelling of arguments in a proof (spec 29.4): both sides write it, and neither reads it.
_spell = json.JSONEncoder(
    sort_keys=True,
    separators=(",", ":"),
    ensure_ascii=True,
    allow_nan=False,
).encode

Headers = Sequence[Header]  # as they came, each by itself; names in lower case


class Listing(NamedTuple):
    """What a method lists: where its items stand, what names one, and what it is listed for.

    An item is shown if a call of `method` with its name could be permitted.
    """

    items: str  # the member of the result
    key: str  # the member of an item that names it
    method: str
    argument: str  # of a call of that method: where the name goes; "" for the tool itself


# Rule 5.
LISTS = {
    "tools/list": Listing("tools", "name", CALL, ""),
    "resources/list": Listing("resources", "uri", "resources/read", "uri"),
    "resources/templates/list": Listing(
        "resourceTemplates", "uriTemplate", "resources/read", "uri"
    ),
    "prompts/list": Listing("prompts", "name", "prompts/get", "name"),
}


class NotLetIn(Exception):  # noqa: N818, the name reads as what it is
    """A request that is refused.

    `text` is for the client, `kind` is that of a denial. `tool`: it goes out as the result of a
    tool, for the model, and not as an error. `decision`: the id of the denial that is on record.
    `asked`: what to ask a person, where a consent would do. `offer`: what goes out in its place.
    """

    def __init__(
        self,
        kind: str,
        text: str,
        tool: bool = False,
        decision: str = "",
        asked: str | None = None,
    ) -> None:
        super().__init__(text)
        self.decision = decision
        self.asked = asked
        self.offer: Any = None
        self.kind = kind
        self.text = text
        self.tool = tool

    @property
    def code(self) -> int:
        """Of a JSON-RPC error: what HTTP would have said."""
        return STATUS[self.kind]

    @property
    def data(self) -> dict[str, str]:
        """Of a JSON-RPC error, and of a result for the model: kind and id of the denial.

        And what to ask a person, which a client takes out before the model sees the result.
        """
        told = {KIND: self.kind}
        if self.decision:
            told[DECISION] = self.decision
        if self.asked is not None:
            told[CONSENT] = self.asked
        return told


    @property
    def result(self) -> dict[str, Any]:
        """Of a tool: for the model. What is beside it tells it from an error of the tool's own."""
        said = [{"type": "text", "text": self.text}]
        return {"content": said, "isError": True, "_meta": self.data}


class Keeper(Protocol):
    """What knows whose a session is."""

    def is_strange(self, text: str) -> bool:
        """Is it another tree's than a text's? Nobody has to have verified the text yet."""
        ...

    def claim(self, text: str) -> bool:
        """May a text that was verified be used in it? If it was nobody's, it is its tree's now."""
        ...


class Session(NamedTuple):
    """The session that an HTTP request names; `keeper` is None if nobody knows whose it is."""

    keeper: Keeper | None


class Message(NamedTuple):
    """A request as it came; `headers` is None where the transport has none.

    `params` has `_meta` as it came, and so may hold a token: it is not logged.
    """

    method: str
    params: Mapping[str, Any]
    headers: Headers | None = None
    session: Session | None = None
    # Of what is no call, but an answer, a stream or an end: the id of its session. Its method is
    # that of HTTP, and its params are the answer.
    beside: str = ""
    notified: bool = False  # nobody waits for an answer
    id: int | str | None = None  # of a request in a body of HTTP, which is answered there
    opens: bool = False  # the client says that it can show a person a page, in a protocol that asks


def check_crowded(body: bytes) -> None:
    """Raise RequestError for a body that takes long to read for what it can say."""
    if is_crowded(body):
        raise RequestError(413, f"More than {NESTED} arrays and objects in one body.")


def messages_of(body: bytes, headers: Headers, named: str) -> list[Message]:
    """What a body of HTTP says, in the session of that id. Raises ValueError for what is no JSON,
    and RequestError for more messages than are taken, and for one that asks and answers.

    Older protocols have several in one body. It is UTF-8, as the SDK reads it: `json` would take
    other encodings as well.
    """
    check_crowded(body)
    try:
        said = json.loads(body.decode())
    except RecursionError:
        raise ValueError("nested too deep") from None
    if is_deep(said):
        raise ValueError("nested too deep")
    several = said if type(said) is list else [said]
    if len(several) > MESSAGES:
        raise RequestError(413, f"More than {MESSAGES} messages in one body.")
    return [_message_of(one, headers, named) for one in several]


def _message_of(one: Any, headers: Headers, named: str) -> Message:
    """Read one message of a body. What has no method counts as an answer."""
    said = one if type(one) is dict else {}
    method, params = said.get("method"), said.get("params")
    if "method" in said and not said.keys().isdisjoint({"result", "error"}):
        # The SDKs would not read it alike, nor as it is judged here.
        raise RequestError(400, "A message asks or answers: it has a method, or a result or error.")
    if type(method) is not str:
        answer = {key: value for key, value in said.items() if key != "jsonrpc"}
        return Message("POST", answer, headers, beside=named)
    stated = params if type(params) is dict else {}
    number = said.get("id")
    if type(number) not in (int, str):
        return Message(method, stated, headers, notified=True)
    return Message(method, stated, headers, id=number)


def headers_of(http_request: Any, notified: bool = False) -> Headers | None:
    """The headers, as they are now, of the HTTP request that carried a message.

    None where none did. The SDKs do not say what carried a notification (`notified`): for one that
    came by itself there are headers, and none is known. So it is not taken for one that came over
    stdio, where a process may have a token of its own.

    The raw lines are read: a mapping would show one of two headers of a name.
    """
    if http_request is None:
        return () if notified else None
    return [(name.lower(), value) for name, value in http_request.headers.raw]


def hide_header(http_request: Any) -> None:
    """Take what is secret out of the HTTP request itself.

    So nothing that comes after can log it or send it on (spec 40.9). Both places are emptied: the
    headers of a request are read from its scope, and may have been copied from there.
    """
    for lines in (http_request.headers.raw, http_request.scope["headers"]):
        lines[:] = [line for line in lines if line[0].lower() != _SECRET_HEADER]


def has_token(meta: object) -> TypeGuard[Mapping[str, Any]]:
    """Is there a token in `_meta`?

    Whatever stands there under that name is a secret, also where it is no text.
    """
    return isinstance(meta, Mapping) and TOKEN in meta


def without_token(meta: Mapping[str, Any]) -> dict[str, Any]:
    """`_meta` for the one who answers: without the token."""
    return {key: value for key, value in meta.items() if key != TOKEN}


def plain_name(value: Any) -> Any:
    """What names an item, as text: some SDKs have an object for a uri.

    The text is what went over the wire, and so what tokens name.
    """
    return value if isinstance(value, str) else str(value)


# --- what is asked ----------------------------------------------------------------------------


def facts(method: str, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Rule 1: the tool and its arguments that a message comes to (spec 40.4).

    None for what no token can permit.
    """
    if method == CALL:
        return _facts_of_call(params)
    # It could pose as a tool of that name, which has no slash either.
    if "/" not in method:
        return None

    flat = {key: value for key, value in params.items() if key not in _BESIDE}
    inner = flat.pop("arguments", None)
    if inner is None:
        return method, flat
    if type(inner) is not dict:
        return None

    taken_apart = {f"arguments.{key}": value for key, value in inner.items()}
    # Two arguments of one name: the one would be decided on, and the other might run.
    if not flat.keys().isdisjoint(taken_apart):
        return None
    return method, flat | taken_apart


def _facts_of_call(params: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The same for `tools/call`.

    Types are exact: a subclass of `dict` or `str` could show the tool something else than the
    token's constraints saw.
    """
    tool = params.get("name")
    arguments = params.get("arguments")
    # A slash: it could pose as a method.
    if type(tool) is not str or "/" in tool:
        return None
    if arguments is None:
        return tool, {}
    if type(arguments) is not dict:
        return None
    return tool, arguments


def digest_of(message: Message) -> bytes:
    """What a proof of a message is about: see `digest`, and of what is no call spec 40.12."""
    if not message.beside:
        return digest(message.method, message.params)
    return mcp_request(message.method, message.beside, _spelled(message.params))


def digest(method: str, params: Mapping[str, Any]) -> bytes:
    """What a proof is about (rule 3).

    That is the method; the name of the tool, or nothing; the arguments as in rule 1, as JSON. The
    JSON has its keys sorted, no white space, and escapes for all but ASCII; numbers are spelled as
    Python's `json` does. A method that lists has no arguments: its cursor means something to the
    server alone. Raises ValueError for what is no call, or no JSON.
    """
    asked = facts(method, {} if method in LISTS else params)
    if asked is None:
        raise ValueError("this is not a call that a token can permit")
    tool, arguments = asked
    named = tool if method == CALL else ""
    return mcp_request(method, named, _spelled(arguments))


def _spelled(arguments: Mapping[str, Any]) -> bytes:
    """Arguments in their one spelling. Raises ValueError for what is no JSON."""
    try:
        return _spell(arguments).encode("ascii")
    except (TypeError, RecursionError) as error:
        raise ValueError("the arguments are not JSON") from error


# --- who asks: rules 2, 3 and 4 ---------------------------------------------------------------


def token_of(message: Message, header: bool) -> str | None:
    """The text that came with a message, or None. Its proof, if it has one, is for rule 3.

    `header`: it may come in the Authorization header. Raises NotLetIn if it cannot be meant. Where
    two came, it is refused rather than chosen: a proxy in between may have gone by the other one.
    """
    meta = message.params.get("_meta")
    if meta is None:
        meta = {}
    if not isinstance(meta, Mapping):
        raise NotLetIn("invalid", "_meta is no object.")
    stated = _text_in(meta, TOKEN)

    if message.headers is None:
        return stated
    _check_mirrored(message, message.headers)  # also where the token is not looked for there
    sent = _bearer(message.headers) if header else None
    if sent is None:
        return stated
    if stated is None:
        return sent
    if without_proof(stated) != without_proof(sent):  # rule 2
        raise NotLetIn(
            "invalid",
            "Two tokens came, in _meta and in the Authorization header, and they differ.",
        )
    return stated  # rule 3: that of the header is for a guard of HTTP


def _text_in(meta: Mapping[str, Any], key: str) -> str | None:
    """A member of `_meta` that is text, or None where it is left out. Raises NotLetIn.

    What is there and no text is not taken for left out: somebody meant it for a token.
    """
    value = meta.get(key)
    if value is not None and type(value) is not str:
        raise NotLetIn("invalid", f"{key} in _meta is text.")
    return value


def _bearer(headers: Headers) -> str | None:
    """The token of the one Authorization header, or None where there is none. Raises NotLetIn.

    It is read as the guard of HTTP reads it, which may stand in front. A header of another scheme
    is refused: it is somebody else's, and a guard that is to leave it alone is told so.
    """
    try:
        sent = text_in(headers)
    except RequestError as problem:
        raise NotLetIn("invalid", problem.text) from None
    if sent is None and values_of(headers, _SECRET_HEADER):
        raise NotLetIn("invalid", "The Authorization header is not `Bearer` and a token.")
    return sent


def _check_mirrored(message: Message, headers: Headers) -> None:
    """Rule 4: what headers repeat of a message agrees with it. Raises NotLetIn.

    A proxy that routes or decides by the headers would else have seen another call than the one
    that is answered. They may be left out.
    """
    names_uri = message.method.startswith("resources/")
    name = message.params.get("uri" if names_uri else "name")
    for header, stated in (("mcp-method", message.method), ("mcp-name", name)):
        values = values_of(headers, header.encode())
        if not values:
            continue
        if len(values) > 1 or decoded(values[0]) != stated:
            raise NotLetIn("invalid", f"The {header} header does not agree with the message.")


def decoded(header: bytes) -> str | None:
    """The value of a header that mirrors a name: as it is, or `=?base64?…?=`.

    None for what cannot be decoded, which agrees with nothing.
    """
    value = header.decode("latin-1")
    if not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode()
    except (binascii.Error, ValueError):
        return None
