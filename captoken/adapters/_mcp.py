"""What a call over MCP is to captoken, on both sides of the wire and in every version of the SDK (docs/mcp.md).

1. `tools/call` is the tool and its arguments. Any other method is a tool of the method's own name, and its arguments are
   what the message states as params; `arguments` among them is taken apart: `{"name": "greet", "arguments.style": "short"}`.
   So a tool whose name has a `/`, and a method whose name has none, could pose as the other: no token can permit them.
2. A token comes in `_meta`, or in the one Authorization header; if in both, it is the same. Never in an argument.
3. A proof comes in `_meta`, and is about the method, the tool and the arguments in their one spelling.
4. Headers that repeat the method or the name agree with the message, since a proxy may have decided by them.
5. Methods that list need a token. What the token cannot be used for is left out.
6. A few methods need nothing (`FREE`). All others, and those that are yet to be invented, need a token that permits them.
7. What answers holds nothing (`captoken.current`), even where client and server share a process; it has its grant.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, nullcontext
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, NamedTuple, ParamSpec, TypeVar

from anyio import to_thread

from captoken import current, patterns, request
from captoken.access import Access
from captoken.constraints import NOTHING
from captoken.current import Held
from captoken.decision import Decision
from captoken.errors import Denied, LimitError, WideningError
from captoken.grant import Grant
from captoken.tools import Attributes, Cost, access_to
from captoken.verify import Verifier

TOKEN, PROOF = "io.captoken/token", "io.captoken/proof"  # in _meta
KIND = "io.captoken/kind"  # in the data of an error: the kind of a denial
CALL = "tools/call"
FREE = frozenset({  # what needs no token: a session is opened, kept and closed; nothing that is served is seen
    "initialize", "ping", "server/discover", "notifications/initialized", "notifications/cancelled", "notifications/progress",
})  # fmt: skip
STATUS = {"invalid": 401, "proof": 401, "insufficient": 403, "unavailable": 503}  # the code of a protocol error
_BESIDE = frozenset({"_meta", "inputResponses", "requestState"})  # of params: no arguments
_spell = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


class Listing(NamedTuple):
    """What a method lists: where its items stand, what names one, and the call that it is listed for."""

    items: str
    key: str
    method: str
    argument: str


LISTS = {  # rule 5
    "tools/list": Listing("tools", "name", CALL, ""),
    "resources/list": Listing("resources", "uri", "resources/read", "uri"),
    "resources/templates/list": Listing("resourceTemplates", "uriTemplate", "resources/read", "uri"),
    "prompts/list": Listing("prompts", "name", "prompts/get", "name"),
}


class Refused(Exception):  # noqa: N818, the name reads as what it is
    """A request that is not let in. `text` is for the client; `kind` as of a denial; `tool`: it is a result for the model."""

    def __init__(self, kind: str, text: str, tool: bool = False) -> None:
        super().__init__(text)
        self.kind, self.text, self.tool = kind, text, tool

    @property
    def code(self) -> int:
        """Of a JSON-RPC error: what HTTP would have said."""
        return STATUS[self.kind]

    @property
    def data(self) -> dict[str, str]:
        return {KIND: self.kind}


class Message(NamedTuple):
    """A request as it came: `headers` gives all values of one header, or None where the transport has none."""

    method: str
    params: Mapping[str, Any]
    headers: Callable[[str], list[str]] | None = None


@contextmanager
def answering(meta: object) -> Generator[None, None, None]:
    """Around the answer to a message: it holds nothing of whoever sent it, and belongs to the trace that it names."""
    named = meta.get("traceparent") if isinstance(meta, Mapping) else None
    kept = named is None and current.trace() is not None  # by what stands around the server
    with current.nothing(), nullcontext() if kept else current.traced(named):
        yield


def headers_of(http_request: Any, notified: bool = False) -> Callable[[str], list[str]] | None:
    """The headers of the HTTP request that carried a message, or None where none did.

    The SDKs do not say what carried a notification: for one that came by itself there are headers, and none is known.
    """
    if http_request is None:
        return _no_headers if notified else None
    return lambda name: [str(value) for value in http_request.headers.getlist(name)]


def _no_headers(name: str) -> list[str]:
    return []


_F = TypeVar("_F", bound=Callable[..., Any])
_P = ParamSpec("_P")
_R = TypeVar("_R")


async def decided(verifier: Verifier, decide: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """What `decide` says; asked in a thread if the verifier has a store that may be waited for."""
    if verifier.waits:
        return await to_thread.run_sync(lambda: decide(*args, **kwargs))
    return decide(*args, **kwargs)


def teller(error: Callable[[str], Exception], function: _F) -> _F:
    """`function`, which raises an `error` that the model may read where it would raise Denied."""
    if iscoroutinefunction(function):

        @wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except Denied as denied:
                raise error(denied.decision.for_model()) from None

        return awaited  # type: ignore[return-value]

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Denied as denied:
            raise error(denied.decision.for_model()) from None

    return called  # type: ignore[return-value]


# --- what is asked ---------------------------------------------------------------------------------------------------


def facts(method: str, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Rule 1: the tool and its arguments that a message comes to, or None for what no token can permit."""
    if method == CALL:
        tool, arguments = params.get("name"), params.get("arguments")
        if type(tool) is not str or "/" in tool:
            return None
        return (tool, {}) if arguments is None else (tool, arguments) if type(arguments) is dict else None
    if "/" not in method:
        return None
    flat = {key: value for key, value in params.items() if key not in _BESIDE}
    inner = flat.pop("arguments", None)
    if inner is None:
        return method, flat
    if type(inner) is not dict:
        return None
    taken = {f"arguments.{key}": value for key, value in inner.items()}
    return (method, flat | taken) if flat.keys().isdisjoint(taken) else None


def digest(method: str, params: Mapping[str, Any]) -> bytes:
    """What a proof is about: the method; the name of the tool, or nothing; the arguments as in rule 1, as JSON.

    The JSON has its keys sorted, no white space, and escapes for all but ASCII; numbers are spelled as Python's `json`
    does. A method that lists has no arguments: its cursor means something to the server alone. Raises ValueError for what
    is no call, or no JSON.
    """
    asked = facts(method, {} if method in LISTS else params)
    if asked is None:
        raise ValueError("no call that a token can permit")
    tool, arguments = asked
    try:
        return request.of_mcp(method, tool if method == CALL else "", _spell(arguments).encode("ascii"))
    except (TypeError, RecursionError) as error:
        raise ValueError("the arguments are no JSON") from error


# --- who asks: rules 2, 3 and 4 --------------------------------------------------------------------------------------


def credentials(message: Message, header: bool) -> tuple[str | None, str | None]:
    """The token and the proof that came with a message. Raises Refused if they cannot be meant."""
    meta = message.params.get("_meta")
    if meta is None:
        meta = {}
    if not isinstance(meta, Mapping):
        raise Refused("invalid", "_meta is no object.")
    token, proof = meta.get(TOKEN), meta.get(PROOF)
    for key, value in ((TOKEN, token), (PROOF, proof)):
        if value is not None and type(value) is not str:
            raise Refused("invalid", f"{key} in _meta is text.")
    if message.headers is None:
        return token, proof
    _mirrored(message)
    if not header:
        return token, proof
    lines = message.headers("authorization")
    if len(lines) > 1:
        raise Refused("invalid", "More than one Authorization header came.")
    if lines:
        scheme, _, sent = lines[0].partition(" ")
        if scheme.lower() != "bearer" or not sent:
            raise Refused("invalid", "The Authorization header is not `Bearer` and a token.")
        if token is not None and token != sent:
            raise Refused("invalid", "Two tokens came, in _meta and in the Authorization header, and they differ.")
        token = sent
    return token, proof


def _mirrored(message: Message) -> None:
    """Rule 4."""
    assert message.headers is not None  # noqa: S101
    name = message.params.get("uri" if message.method == "resources/read" else "name")
    for header, stated in (("mcp-method", message.method), ("mcp-name", name)):
        values = message.headers(header)
        if values and (len(values) > 1 or _decoded(values[0]) != stated):
            raise Refused("invalid", f"The {header} header does not agree with the message.")


def _decoded(value: str) -> str | None:
    """The value of a header that mirrors a name: as it is, or `=?base64?…?=`."""
    if not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode()
    except (binascii.Error, ValueError):
        return None


# --- the server's side -----------------------------------------------------------------------------------------------


class Gate:
    """Decides on messages. The adapters bring them here, and say in the SDK's words what came of it."""

    def __init__(
        self,
        verifier: Verifier,
        *,
        cost: Cost | None = None,
        attributes: Attributes | None = None,
        free: Iterable[str] = (),
        list_without_token: bool = False,
        authorization_header: bool = True,
        default_from_environment: bool = False,
    ) -> None:
        self.verifier, self._cost, self._attributes = verifier, cost, attributes
        self.free = FREE | frozenset([free] if isinstance(free, str) else free)
        if not self.free.isdisjoint({CALL, *LISTS}):
            raise ValueError("tools/call and the methods that list cannot be free")
        self._open_lists, self._header = list_without_token is True, authorization_header is True
        self._default: Held | None = None
        if default_from_environment:
            with current.from_environment() as held:
                self._default = held

    def admit(self, message: Message) -> Grant | None:
        """The grant of a message that may be answered; None for one that needs none. Raises Refused.

        Verifies, charges and records. A method that lists is admitted by any genuine token: see `listed`.
        """
        method = message.method
        if method in self.free:
            return None
        try:
            token, proof = credentials(message, self._header)
        except Refused as refused:
            self.unverified()
            raise refused from None
        if token is None and message.headers is None and self._default is not None:
            token = self._presented(self._default)
        if token is None:
            if method in LISTS and self._open_lists:
                return None
            self.unverified()
            raise Refused("invalid", f"No token came with the request: it goes into _meta, as {TOKEN}.")
        try:
            about = digest(method, message.params) if proof is not None else None
        except ValueError:
            about, proof = None, ""  # a proof of nothing: for a bound token as for another, it does not hold
        if method in LISTS:
            return self._admitted(self._authentic(token, proof, about), method)
        asked = facts(method, message.params)
        plain = None if asked is None else access_to(*asked)
        if plain is None:
            return self._admitted(self._unasked(token, proof, about), method)
        # What a stranger asks for reaches no code of the server's, not even what knows of costs.
        if (self._cost or self._attributes) and self._known(token, plain, proof, about):
            plain = self._access(plain)
        return self._admitted(self.verifier.check(token, plain, proof=proof, request=about), method)

    def again(self, grant: Grant, method: str, params: Mapping[str, Any]) -> Grant:
        """`grant`, if it permits one more call that a call makes here in turn. Raises Refused."""
        if method in LISTS:
            return self._admitted(grant.recheck(), method)
        asked = facts(method, params)
        plain = None if asked is None else access_to(*asked)
        if plain is None:
            return self._admitted(grant.record(grant.refusal("tool", "no call that a token can permit")), method)
        return self._admitted(grant.check(self._access(plain)), method)

    def unverified(self) -> None:
        """Put on record that a request came without a token that could be looked at."""
        self.verifier.check("", Access())

    def _known(self, token: str, access: Access, proof: str | None, about: bytes | None) -> bool:
        """Is the token genuine, whatever it permits?"""
        decision = self.verifier.explain(token, access, proof=proof, request=about)
        return bool(decision) or Denied(decision).kind == "insufficient"

    def _access(self, plain: Access) -> Access:
        """The access with what the server knows of it. What its `cost` and `attributes` raise passes through."""
        tool, arguments = plain.tool or "", plain.arguments or {}
        attributes = self._attributes(tool, arguments) if self._attributes else {}
        cost = self._cost(tool, arguments) if self._cost else {}
        return Access(tool=tool, arguments=arguments, attributes=attributes, cost=cost)

    def _authentic(self, token: str, proof: str | None, about: bytes | None) -> Decision | Grant:
        try:
            return self.verifier.authenticate(token, proof=proof, request=about)
        except Denied as denied:
            return denied.decision

    def _unasked(self, token: str, proof: str | None, about: bytes | None) -> Decision:
        """No token can permit it: a denial about a token that is in order, else what is wrong with the token."""
        found = self._authentic(token, proof, about)
        if isinstance(found, Decision):
            return found
        return found.record(found.refusal("tool", "no call that a token can permit: its name, or what comes with it"))

    def _admitted(self, found: Decision | Grant, method: str) -> Grant:
        if isinstance(found, Grant):
            return found
        if found.grant is not None:
            return found.grant
        raise refusal_of(found, method)

    def _presented(self, held: Held) -> str:
        if not self.verifier.audiences:
            return held.token.serialize()
        try:
            return held.present(audience=self.verifier.audiences[0]).text
        except (WideningError, LimitError):  # for another server, say: the verifier will tell
            return held.token.serialize()


def refusal_of(decision: Decision, method: str) -> Refused:
    """What goes out: the model is told what it may not do, a client that its token is not good."""
    denied = Denied(decision)
    if denied.kind == "insufficient":
        return Refused(denied.kind, decision.for_model(), tool=method == CALL)
    return Refused(denied.kind, denied.public)


_LATER = frozenset({"argument", "attribute", "cost_unstated"})  # can still be stated when it is called


def listed(grant: Grant, method: str, name: object) -> bool:
    """Rule 5: may `grant` be used for the item of that name, with some arguments, under some attributes, at some cost?

    What an operator's overlay refuses for want of an argument is not listed, and may yet be called.
    """
    listing = LISTS[method]
    asked = facts(listing.method, {listing.argument or "name": name})
    access = None if asked is None else access_to(*asked)
    if access is None or access.tool is None:
        return False
    calls = grant.capability.tool
    rule = patterns.decided(calls, access.tool, None) if calls is not None else {}
    if rule is None:
        return False
    if rule and listing.argument:
        constraint = rule.get(listing.argument, (NOTHING, True))[0]
        if method == "resources/templates/list":  # its items are what the template can become
            if not any(_becomes(str(name), value) for _, value in getattr(constraint, "values", ((False, None),))):
                return False
        elif not constraint.accepts(name):
            return False
    if any(constraint == NOTHING for constraint, optional in rule.values() if not optional):
        return False
    return all(refusal.code in _LATER for refusal in grant.explain(access).refusals)


def _becomes(template: str, uri: object) -> bool:
    """Can the template become this uri, by what stands before its first variable? None is any uri."""
    return uri is None or (type(uri) is str and uri.startswith(template.partition("{")[0]))


def only_listed(grant: Grant, method: str, result: dict[str, Any]) -> dict[str, Any]:
    """A result as it goes over the wire, without what is not listed; nobody else is to get it out of a cache."""
    listing = LISTS[method]
    items = [item for item in result.get(listing.items) or () if listed(grant, method, item.get(listing.key))]
    made = {**result, listing.items: items}
    if "cacheScope" in made:
        made["cacheScope"] = "private"
    return made


def without_secrets(params: Mapping[str, Any]) -> dict[str, Any]:
    """Params for the one who answers: without token and proof, so that no tool can log or send them on."""
    meta = {key: value for key, value in params["_meta"].items() if key not in (TOKEN, PROOF)}
    return {**params, "_meta": meta}
