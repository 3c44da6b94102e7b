"""The server's side of MCP, whichever SDK it is written with: who is let in, and what is shown (docs/mcp.md).

The rules by number: `captoken.adapters._mcp.messages`. The adapters bring messages here, and say in the SDK's words what came of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, nullcontext
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypedDict, TypeVar

from anyio import to_thread

from captoken import current
from captoken._format.errors import LimitError, WideningError
from captoken._language import patterns
from captoken._language.access import Access
from captoken._language.constraints import NOTHING
from captoken._verification.decision import Decision, Denied
from captoken._verification.grant import Grant
from captoken._verification.verifier import Verifier
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
from captoken.tools import Attributes, Cost, access_to

_WEBSOCKET = "mcp.server.websocket"  # of mcp 1.x: comes over the network, and shows no HTTP request
_F = TypeVar("_F", bound=Callable[..., Any])
_P = ParamSpec("_P")
_R = TypeVar("_R")


async def decided(
    verifier: Verifier, decide: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs
) -> _R:
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


@contextmanager
def answering(meta: object) -> Generator[None, None, None]:
    """Around the answer to a message: it holds nothing of whoever sent it, and belongs to the trace that it names."""
    named = meta.get("traceparent") if isinstance(meta, Mapping) else None
    kept = named is None and current.trace() is not None  # by what stands around the server
    with current.nothing(), nullcontext() if kept else current.traced(named):
        yield


class Options(TypedDict, total=False):
    """What a Gate takes beside its verifier, as keywords of the guards."""

    cost: Cost | None
    attributes: Attributes | None
    free: Iterable[str]
    list_without_token: bool
    authorization_header: bool
    default_from_environment: bool


def access_of(method: str, params: Mapping[str, Any]) -> Access | None:
    """Rule 1: the access that a message comes to, or None for what no token can permit."""
    asked = facts(method, params)
    return None if asked is None else access_to(*asked)


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
        if (
            token is None
            and message.headers is None
            and self._default is not None
            and _WEBSOCKET not in sys.modules
        ):
            token = self._presented(self._default)
        if token is None:
            if method in LISTS and self._open_lists:
                return None
            self.unverified()
            raise Refused(
                "invalid", f"No token came with the request: it goes into _meta, as {TOKEN}."
            )
        try:
            about = digest(method, message.params) if proof is not None else None
        except ValueError:
            about, proof = (
                None,
                "",
            )  # a proof of nothing: for a bound token as for another, it does not hold
        if method in LISTS:
            try:
                return self.verifier.authenticate(token, proof=proof, request=about)
            except Denied as denied:
                raise refusal_of(denied.decision, method) from None
        plain = access_of(method, message.params)
        if plain is None:
            why = "no call that a token can permit: its name, or what comes with it"
            return self._admitted(
                self.verifier.refuse(token, "tool", why, proof=proof, request=about), method
            )
        # What a stranger asks for reaches no code of the server's, not even what knows of costs.
        if (self._cost or self._attributes) and self._known(token, plain, proof, about):
            plain = self._access(plain)
        return self._admitted(self.verifier.check(token, plain, proof=proof, request=about), method)

    def hide(self, http_request: Any) -> None:
        """After `headers_of`: the request itself shows no token from here on, unless the header is somebody else's."""
        if http_request is not None and self._header:
            hide_header(http_request)

    def again(self, grant: Grant, method: str, params: Mapping[str, Any]) -> Grant:
        """`grant`, if it permits one more call that a call makes here in turn. Raises Refused."""
        if method in LISTS:
            return self._admitted(grant.recheck(), method)
        plain = access_of(method, params)
        if plain is None:
            return self._admitted(
                grant.record(grant.refusal("tool", "no call that a token can permit")), method
            )
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
        if self._cost is None and self._attributes is None:
            return plain
        tool, arguments = (
            plain.tool or "",
            Access(tool=plain.tool, arguments=plain.arguments).arguments or {},
        )  # a copy
        attributes = self._attributes(tool, arguments) if self._attributes else {}
        cost = self._cost(tool, arguments) if self._cost else {}
        return Access(tool=tool, arguments=plain.arguments, attributes=attributes, cost=cost)

    def _admitted(self, found: Decision, method: str) -> Grant:
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


_LATER = frozenset(
    {"argument", "attribute", "cost_unstated"}
)  # can still be stated when it is called


def listed(grant: Grant, method: str, name: object) -> bool:
    """Rule 5: may `grant` be used for the item of that name, with some arguments, under some attributes, at some cost?

    What an operator's overlay refuses for want of an argument is not listed, and may yet be called.
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
        constraint = rule.get(listing.argument, (NOTHING, True))[0]
        if method == "resources/templates/list":  # its items are what the template can become
            if not any(
                _becomes(str(name), value)
                for _, value in getattr(constraint, "values", ((False, None),))
            ):
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
    """A result as it goes over the wire, without what is not listed."""
    listing = LISTS[method]
    items = [
        item
        for item in result.get(listing.items) or ()
        if listed(grant, method, item.get(listing.key))
    ]
    return {**result, listing.items: items}
