"""The server's side of MCP, whichever SDK it is written with: who is let in, and what is shown.

See docs/mcp.md. The rules by number: `captoken.adapters._mcp.messages`. The adapters bring messages
here, and say in the SDK's words what came of it.

A message goes like this, in every SDK:

1. `answering`: from here on nothing is held, and the trace is that of the message;
2. `Gate.hide`: the HTTP request shows no token to whatever comes after;
3. `Gate.admitted`: the grant of the message, or NotLetIn;
4. `Gate.under`: what answers the message runs under that grant;
5. `only_listed` (`listing`): of a list, what the grant can be used for goes out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial, wraps
from inspect import iscoroutinefunction
from typing import Any, TypedDict, TypeVar

from captoken import current
from captoken._format.text import without_proof
from captoken._language.bounds import BODY_BYTES, TOO_LARGE, too_large
from captoken._verification.decision import Decision, Denied
from captoken._verification.grant import AsyncGrant, Grant
from captoken._verification.records import CODES
from captoken._verification.telling import answering as logged_as
from captoken._verification.verifier import AnyVerifier
from captoken._writing.token import Token
from captoken.adapters._asking import served_by
from captoken.adapters._mcp.calls import Stated, access_of, answer_of, denied_by, no_call
from captoken.adapters._mcp.challenge import Challenging
from captoken.adapters._mcp.denials import Denials
from captoken.adapters._mcp.elicited import Consents, Page
from captoken.adapters._mcp.messages import (
    CALL,
    FREE,
    LISTS,
    TOKEN,
    Message,
    NotLetIn,
    digest_of,
    facts,
    hide_header,
    token_of,
)
from captoken.adapters._mcp.screening import Screening
from captoken.adapters._mcp.sessions import Sessions
from captoken.adapters._mcp.started_with import Default, StartedWith
from captoken.adapters._step_up import steps_of
from captoken.tools import Attributes, Cost, telling

# Why the guard refuses by itself; for the trail, not for whoever asked.
_NO_PROOF = "what no token can permit cannot be proven either"
STRANGER = "the session is another token's: each session is of the tree that opened it"
_NOT_KEPT = "nobody knows whose a session over HTTP is: serve guard.sessions(app) instead of app"

_F = TypeVar("_F", bound=Callable[..., Any])


def teller(
    error: Callable[[str], Exception], function: _F | None, tell_limits: bool
) -> _F | Callable[[_F], _F]:
    """What makes of a tool one that tells the model why; that tool, if it is there already."""
    told = partial(Decision.for_model, tell_limits=tell_limits is True)
    tells: Callable[[_F], _F] = partial(_telling, error, told)
    return tells if function is None else tells(function)


def _telling(
    error: Callable[[str], Exception], told: Callable[[Decision], str], function: _F
) -> _F:
    """`function`, which raises an `error` that the model may read where it would raise Denied.

    An SDK tells the model the text of what a tool raises, or none of it: the one would say too
    much, the other not why. The kind of function stays: SDKs call the one and await the other.
    """
    if iscoroutinefunction(function):

        @wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with telling(error, told):
                return await function(*args, **kwargs)

        return awaited  # type: ignore[return-value]

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with telling(error, told):
            return function(*args, **kwargs)

    return called  # type: ignore[return-value]


@contextmanager
def answering(meta: object) -> Generator[None, None, None]:
    """Around the answer to a message: it holds nothing of whoever sent it (rule 7).

    It belongs to the trace that the message names; else to what stands around the server, or to a
    new one. Client and server may share a process, as tests do, and so the client's context: what
    that holds would else be the server's to present.
    """
    named = meta.get("traceparent") if isinstance(meta, Mapping) else None
    goes_on = named is None and current.trace() is not None
    with current.nothing(), nullcontext() if goes_on else current.traced(named):
        yield


class Options(TypedDict, total=False):
    """What a Gate takes beside its verifier, as keywords of the guards.

    Each is told in the docstring of the guard that takes it (`captoken.adapters.mcp.Guard`).
    """

    cost: Cost | None
    """What a call takes of a budget: by unit, or a function of tool and arguments."""
    attributes: Attributes | None
    """What the server knows of a call: a function of tool and arguments."""
    tell_limits: bool
    """True: the model is told the bounds of a range that a number missed."""
    free: Iterable[str]
    """More methods that need no token."""
    list_without_token: bool
    """True: lists show everything to who has no token."""
    authorization_header: bool
    """False: no token is looked for in that header."""
    default_from_environment: bool
    """True: without a token, the one counts that the process was started with."""
    consents: Page | None
    """Where a person decides on calls that want a consent, for clients that can show a page."""
    consent_wait: float
    """Seconds that a call waits for that person."""


class Gate:
    """Decides on messages, for the guard of one server.

    It says yes by a grant, and no by NotLetIn. It knows no SDK: a message comes as method, params
    and headers.
    """

    # What stands before the tools of this server in tokens (`files.`), where a gateway is it.
    prefix = ""

    def __init__(
        self,
        verifier: AnyVerifier,
        *,
        cost: Cost | None = None,
        attributes: Attributes | None = None,
        tell_limits: bool = False,
        free: Iterable[str] = (),
        list_without_token: bool = False,
        authorization_header: bool = True,
        default_from_environment: bool = False,
        consents: Page | None = None,
        consent_wait: float = 30,
    ) -> None:
        self._verifier = verifier
        self._consents: Consents | None = None
        if consents is not None:
            self._consents = Consents(consents, wait=consent_wait)
        self._stated = Stated(cost, attributes)
        self.denials = Denials(verifier, tell_limits is True)
        self._free = FREE | frozenset([free] if isinstance(free, str) else free)
        # A list that is open to everybody has an option of its own, and a call never is.
        if not self._free.isdisjoint({CALL, *LISTS}):
            raise ValueError(
                "tools/call and the methods that list cannot be free: to open the lists, pass "
                "list_without_token=True"
            )
        # `is True`: what only looks like a yes opens nothing.
        self._open_lists = list_without_token is True
        self._header = authorization_header is True
        self.sessions = Sessions(self)
        # Are clients told what a person could allow?
        self.steps_up = False
        self._default: Default | None = StartedWith() if default_from_environment else None

    @classmethod
    def of_service(cls, verifier: AnyVerifier, name: str, default: Default | None) -> Gate:
        """The gate of a gateway before a service of that name.

        `default`: where the token is of a message that comes without one.
        """
        made = cls(verifier)
        made.prefix = f"{name}."
        made._default = default
        return made

    async def admitted(self, message: Message) -> Grant | None:
        """The grant of a message that may be answered; None for one that needs none.

        Verifies, charges and records. A method that lists is admitted by any genuine token: see
        `only_listed`. Raises NotLetIn.
        """
        with logged_as(lambda: f"MCP {message.method}"):
            if message.method in self._free:  # rule 6
                return None
            token = await self._token(message)
            # Only where none came: a bad token is not none, and is refused below.
            if token is None and not self.needs_token(message.method):
                return None
            return await self._let_in(token, message, authenticates=message.method in LISTS)

    async def known(self, message: Message) -> AsyncGrant:
        """The grant of a genuine token, whatever it permits: for who decides by it, as a gateway.

        Its session is its tree's, and the token is on record. Raises NotLetIn.
        """
        with logged_as(lambda: f"MCP {message.method}"):
            token = await self._token(message)
            grant = await self._let_in(token, message, authenticates=True)
        return grant.awaited

    async def _let_in(
        self, token: str | Token | None, message: Message, *, authenticates: bool
    ) -> Grant:
        """The grant of a token that came with a message, in its session. Raises NotLetIn."""
        method = message.method
        if token is None:
            text = f"No token came with the request: it goes into _meta, as {TOKEN}."
            raise await self.denials.unverified(NotLetIn("invalid", text))
        about = await self._proven(token, message)
        keeper = await self._keeper(token, about, message)
        if authenticates:  # rule 5
            grant = await self._authenticated(token, about, method)
        else:
            grant = await self._permitted(token, about, message)
        # Two may have come first at once: the session is of one of them.
        if keeper is not None and not keeper():
            raise self.denials.refusal_of(await denied_by(grant, "caller", STRANGER), method)
        return grant

    async def _keeper(
        self, token: str | Token, about: bytes | None, message: Message
    ) -> Callable[[], bool] | None:
        """What says whether the session is of a token that was verified; None without one.

        Raises NotLetIn where it is another's already: before the call takes anything.
        """
        session = message.session
        if session is None or isinstance(token, Token):
            return None
        if session.keeper is None:
            raise await self.denials.by_guard(token, "store_unavailable", _NOT_KEPT, about, message)
        if session.keeper.is_strange(token):
            raise await self.denials.by_guard(token, "caller", STRANGER, about, message)
        return partial(session.keeper.claim, token)

    def token_in(self, message: Message) -> str | None:
        """The text that came with a message, or None. Raises NotLetIn; see `Guarding`."""
        return token_of(message, self._header)

    async def sent(self, message: Message) -> str | None:
        """The same, for a message that is to be answered: what is wrong with it is on record."""
        try:
            return self.token_in(message)
        except NotLetIn as problem:
            raise await self.denials.unverified(problem) from None

    async def shown(self, text: str | None, message: Message) -> Grant:
        """Verify a text that comes with what is no call, on record. Raises NotLetIn."""
        if text is None:
            why = "No token came with it, and the session is a token's."
            raise await self.denials.unverified(NotLetIn("invalid", why))
        return await self._authenticated(text, await self._proven(text, message), message.method)

    async def seen(self, text: str | None, message: Message) -> None:
        """The same of what is verified again: nothing is used unless it is refused."""
        with logged_as(lambda: f"MCP {message.method}"):
            if text is not None:
                about = await self._proven(text, message)
                if await self.seems_genuine(text, about):
                    return
            await self.shown(text, message)

    async def seems_genuine(self, text: str, about: bytes | None) -> bool:
        """Would a text be authenticated now, whose proof is about that? Nothing is on record.

        A dry run, because the guard uses the proof. It finds one that was used before.
        """
        asked = await answer_of(
            self._verifier, lambda face: face.explain(text, None, request=about)
        )
        return bool(asked)

    async def stands(self, grant: Grant) -> bool:
        """Is a grant still good?"""
        return bool(await answer_of(grant, lambda face: face.recheck()))

    async def stranger(self, text: str, message: Message) -> NotLetIn:
        """What is said of a text of another tree, once it is on record."""
        about = await self._proven(text, message)
        return await self.denials.by_guard(text, "caller", STRANGER, about, message)

    async def admitted_again(
        self,
        grant: Grant,
        method: str,
        params: Mapping[str, Any],
    ) -> Grant | None:
        """`grant`, if it permits one more call, which a call makes here in turn. Raises NotLetIn.

        The grant is asked anew, and so charged for what this takes; the token is not looked at
        again. Its proof was for the call that this one is part of, and is used.
        """
        if method in LISTS:  # rule 5: any grant that still stands
            found = await answer_of(grant, lambda face: face.recheck())
            if found:
                return grant
            denied = await answer_of(grant, lambda face: face.deny(found))
            raise self.denials.refusal_of(denied, method)

        plain = access_of(method, params, self.prefix)
        if plain is None:
            raise self.denials.refusal_of(await denied_by(grant, *no_call(method, params)), method)
        return self.denials.granted(await self._stated.decided(grant, plain), method)

    def needs_token(self, method: str) -> bool:
        """Whether a message of this method is refused where no token came with it."""
        if method in self._free:  # rule 6
            return False
        return not (method in LISTS and self._open_lists)

    def challenging(
        self,
        app: Any,
        *,
        resource: str,
        resource_metadata: str | Mapping[str, Any],
        max_body: int = BODY_BYTES,
        step_up: bool = False,
    ) -> Challenging:
        """`app` behind challenges: see the guards. Raises ValueError."""
        steps = steps_of(step_up, resource_metadata)
        self.steps_up = steps is not None
        if not self._header:
            raise ValueError(
                "a challenge asks for a token in the Authorization header, but this guard reads "
                "tokens from another header"
            )
        screening = Screening(
            self._verifier, self.denials, self._stated, self.needs_token, steps, self.prefix
        )
        return Challenging(
            self.sessions.guarded(app, max_body),
            screening,
            resource=resource,
            resource_metadata=resource_metadata,
            max_body=max_body,
        )

    def under(self, grant: Grant | None) -> AbstractContextManager[object]:
        """Around what answers a message, inside `answering`: under its grant, if it needed one.

        The grant is that of the verifier that the guard was given: awaited, if that is. Without a
        grant nothing is current: `current.grant()` raises there.
        """
        if grant is None:
            return nullcontext()
        return current.serving(served_by(self._verifier, grant))

    def hide(self, http_request: Any) -> None:
        """After `headers_of`: the request itself shows no token from here on.

        Unless the header is somebody else's (`authorization_header=False`).
        """
        if http_request is not None and self._header:
            hide_header(http_request)

    async def _token(self, message: Message) -> str | Token | None:
        """What came with a message, or what the process was started with. Raises NotLetIn."""
        text = await self.sent(message)
        if text is not None or self._default is None:
            return text
        try:
            return self._default.token_for(message, self._verifier)
        except NotLetIn as problem:
            raise await self.denials.unverified(problem) from None

    async def _proven(self, token: str | Token, message: Message) -> bytes | None:
        """What a proof at the end of the token has to be about (rule 3), or None without a proof.

        What is no call, or no JSON, is nothing that could be proven (spec 40.5). So a text with a
        proof is refused there, of a token that is bound to a key or of another. Raises NotLetIn.
        """
        if isinstance(token, Token):  # this process's own, which nobody has sent
            return None
        if token == without_proof(token):
            return None
        asked = None if message.beside else facts(message.method, message.params)
        if too_large(message.params if asked is None else asked[1]):
            # Nobody has proven anything: it is told as it would be told to a stranger over HTTP.
            await self.denials.by_guard(token, *TOO_LARGE, None, message)
            told = CODES[TOO_LARGE[0]].public
            raise NotLetIn("insufficient", told, tool=message.method == CALL)
        try:
            return digest_of(message)
        except ValueError:
            pass
        raise await self.denials.by_guard(token, "bad_proof", _NO_PROOF, None, message)

    async def _authenticated(self, token: str | Token, about: bytes | None, method: str) -> Grant:
        """The plain grant of a genuine token, whatever it permits. Raises NotLetIn.

        It is on record, and its proof is used.
        """
        try:
            grant = await answer_of(
                self._verifier, lambda face: face.authenticate(token, request=about)
            )
        except Denied as denied:
            raise self.denials.refusal_of(denied.decision, method) from None
        plain: Grant = grant.blocking if isinstance(grant, AsyncGrant) else grant
        return plain

    async def _permitted(
        self,
        token: str | Token,
        about: bytes | None,
        message: Message,
    ) -> Grant:
        """The grant of a token that permits a message that is no list. Raises NotLetIn.

        With functions of the server's, which say what a call costs, it takes two steps: the token,
        and then what is asked with it.
        """
        method = message.method
        plain = access_of(method, message.params, self.prefix)
        if plain is None:
            code, why = no_call(method, message.params)
            raise await self.denials.by_guard(token, code, why, about, message)
        state = None if self._consents is None else self._consents.state_in(message)
        if not self._stated.asks_server and state is None:
            asked = self._stated.access(plain)
            decision = await answer_of(
                self._verifier, lambda face: face.check(token, asked, request=about)
            )
            return await self._granted_or_offered(decision, message)
        # A stranger's request reaches no code of the server, not even its cost function.
        grant = await self._authenticated(token, about, method)
        if self._consents is not None and state is not None:
            came = await self._consents.came(state, grant.token_id, message)
            grant = grant.with_consents(came)
        decision = await self._stated.decided(grant, plain)
        return await self._granted_or_offered(decision, message)

    async def _granted_or_offered(self, decision: Decision, message: Message) -> Grant:
        """The same for a message whose client may be able to ask a person. Raises NotLetIn."""
        try:
            return self.denials.granted(decision, message.method)
        except NotLetIn as refused:
            if self._consents is None:
                raise
            found = await self._consents.offered(refused, message)
        raise found


class Challenges:
    """What the guards of MCP and of fastmcp have in common for HTTP.

    That is whose a session is, and a challenge where no token is. Whoever inherits it has a gate.
    """

    _gate: Gate

    def sessions(self, app: Any, *, max_body: int = BODY_BYTES) -> Callable[..., Awaitable[None]]:
        """The server's ASGI application, in whose sessions nothing is answered to a stranger.

            app = guard.sessions(server.http_app())

        A session belongs to the tree of the token that opened it. That goes for each message in it,
        for the answers of a client, for streams, and for the end of the session.

        `install` does so for the applications that the server itself makes. Use it for what stands
        elsewhere: fastmcp's, or a session manager of your own. Without it, what needs a token is
        refused in a session. `max_body`: bytes of a message, 256 KiB unless said. A longer one
        is answered 413.
        """
        return self._gate.sessions.guarded(app, max_body)

    def challenging(
        self,
        app: Any,
        *,
        resource: str,
        resource_metadata: str | Mapping[str, Any],
        max_body: int = BODY_BYTES,
        step_up: bool = False,
    ) -> Callable[..., Awaitable[None]]:
        """The server's ASGI application, answering 401 without a good token (RFC 6750, RFC 9728).

            app = guard.challenging(
                server.streamable_http_app(),  # of fastmcp: server.http_app()
                resource="https://sales.example/mcp",
                resource_metadata={"authorization_servers": ["https://login.example"]},
            )

        So clients that can log in begin to, and those whose token has expired refresh it. Without
        this, a missing token is an error of MCP's with the status 200. What a genuine token permits
        is for the guard to say, as ever.

        `resource`: the URL of the server, as clients know it.
        `resource_metadata`: the fields of the document that names whom to ask for a token, served
        under its well-known path; or the URL of one that is elsewhere.
        `max_body`: bytes of a request that is posted, 256 KiB unless said. It is read before the
        server runs. A longer one is answered 413.
        `step_up`: True answers 403 to a call that a person could allow after all, with what the
        client may ask her for: see docs/mcp-login.md. False unless said.

        Raises ValueError for a URL that is neither https nor on this machine, and where
        `authorization_header=False` leaves the header to somebody else.
        """
        return self._gate.challenging(
            app,
            resource=resource,
            resource_metadata=resource_metadata,
            max_body=max_body,
            step_up=step_up,
        )
