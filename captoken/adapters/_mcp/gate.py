"""The server's side of MCP, whichever SDK it is written with: who is let in, and what is shown.

See docs/mcp.md. The rules by number: `captoken.adapters._mcp.messages`. The adapters bring messages
here, and say in the SDK's words what came of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypedDict, TypeVar

from anyio import to_thread

from captoken import current
from captoken._language import patterns
from captoken._language.access import Access
from captoken._language.constraints import NOTHING, Constraint, In
from captoken._verification.decision import Decision, Denied, Grant
from captoken._verification.verifier import Verifier
from captoken._writing.token import Token
from captoken.adapters._mcp.messages import (
    CALL,
    FREE,
    LISTS,
    TOKEN,
    Message,
    Refused,
    credentials,
    digest,
    facts,
    hide_header,
)
from captoken.current import Held
from captoken.tools import Attributes, Cost, access_to, presented_to, stated_of, telling

_WEBSOCKET = "mcp.server.websocket"  # of mcp 1.x: comes over the network, and shows no HTTP request
# What can still be stated when the call is made.
_LATER = frozenset({"argument", "attribute", "cost_unstated"})
_NO_CALL = "no call that a token can permit: its name, or what comes with it"

_F = TypeVar("_F", bound=Callable[..., Any])
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Item = TypeVar("_Item")


async def decided(
    verifier: Verifier,
    decide: Callable[_P, _R],
    *args: _P.args,
    **kwargs: _P.kwargs,
) -> _R:
    """What `decide` says; asked in a thread if the verifier has a store that may be waited for.

    By anyio, as the SDKs have it, and not by asyncio.
    """
    if verifier.waits:
        return await to_thread.run_sync(lambda: decide(*args, **kwargs))
    return decide(*args, **kwargs)


def teller(error: Callable[[str], Exception], function: _F) -> _F:
    """`function`, which raises an `error` that the model may read where it would raise Denied.

    An SDK tells the model the text of what a tool raises, or none of it: the one would say too
    much, the other not why.
    """
    if iscoroutinefunction(function):

        @wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with telling(error):
                return await function(*args, **kwargs)

        return awaited  # type: ignore[return-value]

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with telling(error):
            return function(*args, **kwargs)

    return called  # type: ignore[return-value]


@contextmanager
def answering(meta: object) -> Generator[None, None, None]:
    """Around the answer to a message: it holds nothing of whoever sent it (rule 7).

    It belongs to the trace that the message names; else to what stands around the server, or to a
    new one.
    """
    named = meta.get("traceparent") if isinstance(meta, Mapping) else None
    goes_on = named is None and current.trace() is not None
    with current.nothing(), nullcontext() if goes_on else current.traced(named):
        yield


def under(grant: Grant | None) -> AbstractContextManager[object]:
    """Around what answers a message, inside `answering`: under its grant, if it needed one.

    Without a grant nothing is current: `current.grant()` raises there.
    """
    return nullcontext() if grant is None else current.serving(grant)


class Options(TypedDict, total=False):
    """What a Gate takes beside its verifier, as keywords of the guards."""

    cost: Cost | None
    attributes: Attributes | None
    free: Iterable[str]
    list_without_token: bool
    authorization_header: bool
    default_from_environment: bool


class Gate:
    """Decides on messages, for the guard of one server.

    It says yes by a grant, and no by Refused. It knows no SDK: a message comes as method, params
    and headers.
    """

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
        self._verifier = verifier
        self._cost = cost
        self._attributes = attributes
        self._free = FREE | frozenset([free] if isinstance(free, str) else free)
        if not self._free.isdisjoint({CALL, *LISTS}):
            raise ValueError("tools/call and the methods that list cannot be free")
        self._open_lists = list_without_token is True
        self._header = authorization_header is True
        self._default: Held | None = None
        if default_from_environment:
            with current.from_environment() as held:
                self._default = held

    async def admitted(self, message: Message) -> Grant | None:
        """`admit`, from an event loop."""
        return await decided(self._verifier, self.admit, message)

    def admit(self, message: Message) -> Grant | None:
        """The grant of a message that may be answered; None for one that needs none.

        Verifies, charges and records. A method that lists is admitted by any genuine token: see
        `listed`. Raises Refused.
        """
        method = message.method
        if method in self._free:  # rule 6
            return None

        token, proof = self._credentials(message)
        if token is None:
            if method in LISTS and self._open_lists:
                return None
            self._record_unverified()
            raise Refused(
                "invalid", f"No token came with the request: it goes into _meta, as {TOKEN}."
            )

        about: bytes | None = None
        if proof is not None:
            try:
                about = digest(method, message.params)
            except ValueError:
                proof = ""  # a proof of nothing: it does not hold, for a bound token or another
        if method in LISTS:  # rule 5
            try:
                return self._verifier.authenticate(token, proof=proof, request=about)
            except Denied as denied:
                raise refusal_of(denied.decision, method) from None
        return _granted(self._decided(token, proof, about, message), method)

    async def admitted_again(
        self, grant: Grant, method: str, params: Mapping[str, Any]
    ) -> Grant | None:
        """`grant`, if it permits one more call, which a call makes here in turn. Raises Refused."""
        return await decided(self._verifier, self._admit_again, grant, method, params)

    def _admit_again(self, grant: Grant, method: str, params: Mapping[str, Any]) -> Grant:
        """The same, with what the guard said of the outer call in hand.

        The grant is asked anew, and so charged for what this takes; the token is not looked at
        again.
        """
        if method in LISTS:
            return _granted(grant.recheck(), method)
        plain = access_of(method, params)
        if plain is None:
            return _granted(grant.record(grant.refusal("tool", _NO_CALL)), method)
        return _granted(grant.check(self._with_stated(plain)), method)

    def hide(self, http_request: Any) -> None:
        """After `headers_of`: the request itself shows no token from here on.

        Unless the header is somebody else's (`authorization_header=False`).
        """
        if http_request is not None and self._header:
            hide_header(http_request)

    async def only_listed(
        self,
        grant: Grant,
        method: str,
        items: Sequence[_Item],
        names: Iterable[object],
    ) -> list[_Item]:
        """Rule 5: of what a method lists, each by its name, what the grant can be used for.

        `names` are those of `items`, in order. Nothing is charged and nothing recorded.
        """
        asked = list(names)
        kept = await decided(
            self._verifier, lambda: [listed(grant, method, name) for name in asked]
        )
        return [item for item, keep in zip(items, kept, strict=True) if keep]

    def _credentials(self, message: Message) -> tuple[str | Token | None, str | None]:
        """What came with a message, or what the process was started with. Raises Refused."""
        try:
            token, proof = credentials(message, self._header)
        except Refused as refused:
            self._record_unverified()
            raise refused from None
        if token is not None or self._default is None:
            return token, proof
        # The default is for whoever started the process, and for nobody who comes over a network.
        if message.headers is not None or _WEBSOCKET in sys.modules:
            return None, proof
        default, _ = presented_to(self._verifier, self._default)
        return default, proof

    def _record_unverified(self) -> None:
        """Put on record that a request came without a token that could be looked at.

        The empty text is no token: the verifier denies it, and its trail has it like any other
        denial.
        """
        self._verifier.check("", Access())

    def _decided(
        self,
        token: str | Token,
        proof: str | None,
        about: bytes | None,
        message: Message,
    ) -> Decision:
        """The decision on a message that is no list."""
        plain = access_of(message.method, message.params)
        if plain is None:
            return self._verifier.refuse(
                token,
                "tool",
                _NO_CALL,
                proof=proof,
                request=about,
            )
        # What a stranger asks for reaches no code of the server's, not even what knows of costs.
        if (self._cost or self._attributes) and self._is_genuine(token, plain, proof, about):
            plain = self._with_stated(plain)
        return self._verifier.check(
            token,
            plain,
            proof=proof,
            request=about,
        )

    def _is_genuine(
        self,
        token: str | Token,
        access: Access,
        proof: str | None,
        about: bytes | None,
    ) -> bool:
        """Is the token genuine, whatever it permits?

        Asked before the server's own functions see anything of the call. Nothing is charged or
        recorded by it.
        """
        decision = self._verifier.explain(
            token,
            access,
            proof=proof,
            request=about,
        )
        return bool(decision) or Denied(decision).kind == "insufficient"

    def _with_stated(self, plain: Access) -> Access:
        """The access with what the server knows of it.

        What its `cost` and `attributes` raise passes through, and so does what is wrong with it.
        """
        if self._cost is None and self._attributes is None:
            return plain
        stated = stated_of(plain, self._cost, self._attributes)
        return Access(tool=plain.tool, arguments=plain.arguments, **stated)


def access_of(method: str, params: Mapping[str, Any]) -> Access | None:
    """Rule 1: the access that a message comes to, or None for what no token can permit.

    That is a name which is not legal, arguments that are no object, or a tool that poses as a
    method.
    """
    asked = facts(method, params)
    return None if asked is None else access_to(*asked)


def _granted(decision: Decision, method: str) -> Grant:
    """The grant of what was allowed. Raises Refused."""
    if decision.grant is None:
        raise refusal_of(decision, method)
    return decision.grant


def refusal_of(decision: Decision, method: str) -> Refused:
    """What goes out: the model is told what it may not do, a client that its token is not good.

    `for_model` echoes only what was asked. The public sentence is the same for whatever a stranger
    could cause.
    """
    denied = Denied(decision)
    if denied.kind == "insufficient":
        return Refused(denied.kind, decision.for_model(), tool=method == CALL)
    return Refused(denied.kind, denied.public)


# --- what is listed: rule 5 -------------------------------------------------------------------


def listed(grant: Grant, method: str, name: object) -> bool:
    """May `grant` be used for the item of that name?

    With some arguments, that is, under some attributes, at some cost. What an operator's overlay
    refuses for want of an argument is not listed, and may yet be called.
    """
    listing = LISTS[method]
    access = access_of(listing.method, {listing.argument or "name": name})
    if access is None or access.tool is None:
        return False

    calls = grant.capability.tool
    rule = patterns.decided(calls, access.tool, None) if calls is not None else {}
    if rule is None:
        return False
    if rule and listing.argument:
        constraint, _ = rule.get(listing.argument, (NOTHING, True))
        if not _can_be_named(constraint, method, name):
            return False
    # An argument that is due, and for which no value will do: nobody can make that call.
    if any(constraint == NOTHING for constraint, optional in rule.values() if not optional):
        return False

    return all(refusal.code in _LATER for refusal in grant.explain(access).refusals)


def _can_be_named(constraint: Constraint, method: str, name: object) -> bool:
    """Does what is permitted of the argument that names an item leave room for this one?

    For a template, that one of the uris it can become is permitted. To show too much here costs
    nothing but a name: the call is decided on by itself.
    """
    if method != "resources/templates/list":
        return constraint.accepts(name)
    # What is read is what the template can become, by what stands before its first variable.
    # A constraint that lists no values may let one of them through.
    if not isinstance(constraint, In):
        return True
    start = str(name).partition("{")[0]
    return any(type(uri) is str and uri.startswith(start) for _, uri in constraint.values)
