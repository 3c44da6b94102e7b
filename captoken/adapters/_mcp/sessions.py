"""Whose a session over HTTP is: of the tree of the token that opened it (spec 40.12).

An id of a session is no credential: servers log it, and proxies see it. And much comes in a session
that never reaches the guard of messages: an answer to a question of the server's, a stream that
listens, the end of the session, what is cancelled. So this stands round the application that the
SDK makes.

1. A session is of the tree of the token that comes with its `initialize`; else of the tree of the
   first genuine token that comes in it. A tree is what was minted, with all that was made of it.
2. From then on nothing gets as far as the SDK without a genuine token of that tree, whatever the
   method of HTTP. `ping` is answered here. A stream that listens needs a token always: there is
   nobody yet to whom the session could belong. Until then none is offered, and so nobody logs in
   for it.
3. What has no params, an answer, a stream, the end of a session, has its token in the Authorization
   header. Its proof is about the HTTP method, the session and the answer.
4. A request is verified here, and once more by the guard, which uses its proof. The guard asks here
   whether it is of the right tree.
5. The SDK sends an answer to whoever used the number of the request last. So a number that is under
   way in a session is refused: whoever uses it anew may hold less than the one who asked. It is
   free once its answer went out, and not where something else was answered in its place.
6. No stream is resumed: what was sent to one holder of the tree could be had by each. And a stream
   ends with its token: nothing is sent from then on, and seconds later it is over, also where its
   client reads nothing and so holds up all that the SDK sends.
7. A session is known if the application has opened it, here: by the header of an answer, or on the
   stream of the older transport. What names another is answered 404. What is judged is what the
   application sees: its headers are a copy, which no trailer is added to.

Which tree a text is of is read before it is verified. Nothing is answered on the strength of that:
a text of the right tree is verified as well, here or by the guard.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias
from uuid import UUID

import msgspec

from captoken._format.extras import extra

with extra("mcp"):
    import anyio

from captoken._format import primitives
from captoken._format.errors import TokenFormatError
from captoken._format.root import RootRecord
from captoken._format.text import BOUND, parts_of
from captoken._language.bounds import BODY_BYTES, read_bytes
from captoken._verification.grant import Grant
from captoken.adapters._http.credentials import check_head
from captoken.adapters._http.escapes import values_in
from captoken.adapters._http.exchange import (
    ASGIApp,
    Body,
    ClientGone,
    Receive,
    Reply,
    RequestError,
    Response,
    Scope,
    Send,
    json_response,
    values_of,
)
from captoken.adapters._mcp.messages import FREE, Message, NotLetIn, Session, messages_of

# In the scope of a request: that it came this way, and the session that it names, or None.
_SESSION = "captoken.session"
_ID = b"mcp-session-id"
_LAST_EVENT = b"last-event-id"

# Sessions that are known, at most. What is forgotten is answered as what is over: 404.
MOST = 100_000
# Requests of one session that have no answer yet. Where a connection broke, there never is one.
_MOST_UNDER_WAY = 1000
# Seconds between two looks at the grant of a stream that listens.
_LOOKS_EVERY = 5
# By these the SDK says that it did not take a request, and so nothing of it runs.
_NOT_TAKEN = {400, 404, 406, 415}

# What a stranger may ask in a session: whether the server is there.
_ANYBODY = "ping"
_INVALID_REQUEST = -32600  # of JSON-RPC

# The first event on a stream of the older transport says where to post, and so the session's id.
_opened = re.compile(rb"event: endpoint\r?\ndata: \S*session_id=([0-9a-f]{32})\r?\n").match


class _Ending(msgspec.Struct):
    """What ends a request: its number, with a result or an error."""

    id: int | str | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


Tree: TypeAlias = tuple[str, str]  # the key id and the token id of what was minted


def session_of(http_request: Any) -> Session | None:
    """The session that a message came in; None without one, as on stdio or without HTTP."""
    if http_request is None:
        return None
    scope = http_request.scope
    if _SESSION in scope:
        known: Opened | None = scope[_SESSION]
        return None if known is None else Session(known)
    # Nobody looked: is there one?
    is_named = values_of(scope["headers"], _ID) or _ids_in(scope)
    return Session(None) if is_named else None


def _ids_in(scope: Scope) -> list[str]:
    """The sessions that a query names, as the older transport has them: a UUID, however spelled."""
    found = []
    for stated in values_in(scope.get("query_string", b""), b"session_id"):
        try:
            found.append(UUID(hex=stated).hex)
        except ValueError:
            continue  # that transport refuses it
    return found


def _tree_of(text: str | None) -> Tree | None:
    """Of which tree a text is by its own account; None for what is no token."""
    try:
        root = RootRecord.decode(parts_of(text, BOUND).packet.identifier)
    except TokenFormatError:
        return None
    return root.key_id, root.token_id


class Opened:
    """A session that the application has opened: whose it is, and what is under way in it."""

    def __init__(self, session_id: str, tree: Tree | None, *, is_older: bool = False) -> None:
        self.id = session_id
        self.tree = tree  # None: it is nobody's yet
        self.is_older = is_older  # of the older transport: its own stream has all answers
        self.is_new = is_older  # nothing came in it yet, not even `initialize`
        # The numbers of requests that are not answered yet, as digests (rule 5). The SDK has the
        # stream that listens under that name.
        self._under_way = {_digest_of("_GET_stream")}

    def is_strange(self, text: str) -> bool:
        """Is it another tree's than a text's? Nobody has to have verified the text yet."""
        return self.tree is not None and self.tree != _tree_of(text)

    def claim(self, text: str) -> bool:
        """May a text that was verified be used in it? If it was nobody's, it is its tree's now."""
        tree = _tree_of(text)
        self.tree = self.tree or tree
        return self.tree == tree

    def begin(self, numbers: list[bytes]) -> None:
        """Requests of these numbers go on to the SDK. Raises RequestError if one is under way."""
        if len(set(numbers)) < len(numbers) or not self._under_way.isdisjoint(numbers):
            raise RequestError(409, "A request of that number is under way in the session.")
        if len(self._under_way) + len(numbers) > _MOST_UNDER_WAY:
            # As of one that is over: a client then opens another.
            raise RequestError(404, "Too many requests have no answer here: open another session.")
        self._under_way.update(numbers)

    def end(self, numbers: Iterable[bytes]) -> None:
        """They are answered."""
        self._under_way.difference_update(numbers)


def _digest_of(number: object) -> bytes:
    """Of a number of a request: the SDK takes 1 and "1" for one."""
    return primitives.sha256(str(number).encode("utf-8", "surrogatepass"))


class Guarding(Protocol):
    """What a session asks of the guard of messages."""

    def token_in(self, message: Message) -> str | None:
        """The text that came with a message, or None. Raises NotLetIn."""
        ...

    async def sent(self, message: Message) -> str | None:
        """The same, for a message that is to be answered: what is wrong with it is on record."""
        ...

    async def shown(self, text: str | None, message: Message) -> Grant:
        """Verify a text that comes with what is no call, on record. Raises NotLetIn."""
        ...

    async def seen(self, text: str | None, message: Message) -> None:
        """The same of what the guard verifies again: nothing is used. Raises NotLetIn."""
        ...

    async def seems_genuine(self, text: str, about: bytes | None) -> bool:
        """Would a text be authenticated now, whose proof is about that? Nothing is on record."""
        ...

    async def stands(self, grant: Grant) -> bool:
        """Is a grant still good?"""
        ...

    async def stranger(self, text: str, message: Message) -> NotLetIn:
        """What is said of a text of another tree, once it is on record."""
        ...


class _Answered(Exception):  # noqa: N818, the name reads as what it is
    """A stranger's request in a session, which is answered here as the SDK would."""

    def __init__(self, message: Message, **said: Any) -> None:
        super().__init__()
        self.response = json_response(200, {"jsonrpc": "2.0", "id": message.id, **said})


class Sessions:
    """Knows of each session whose it is."""

    def __init__(self, guard: Guarding) -> None:
        self._guard = guard
        # By the id, and whether it is of the older transport: both have ids of one kind. An event
        # loop reads and writes it, between two awaits.
        self._known: OrderedDict[tuple[str, bool], Opened] = OrderedDict()

    def guarded(self, app: ASGIApp, max_body: int = BODY_BYTES) -> ASGIApp:
        """The application, in whose sessions nothing is answered that is a stranger's."""
        most = read_bytes(max_body, "max_body")

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            # Another guard's, which stands further out, has looked already.
            if scope["type"] != "http" or _SESSION in scope:
                return await app(scope, receive, send)
            # Some servers add trailers, which come behind the body, to the very list (rule 7).
            within = {**scope, "headers": list(scope["headers"])}
            return await self._answered(app, within, Body(receive, most), send)

        return application

    async def _answered(self, app: ASGIApp, scope: Scope, body: Body, send: Send) -> None:
        """Pass one HTTP request on, or refuse it."""
        passed = _Passed(self, self._guard, scope, send)
        try:
            check_head(scope)
            sent = await body.read_all() if scope["method"] == "POST" else None
            # Only now: what was known before the body came may have ended meanwhile.
            session = scope[_SESSION] = passed.session = self._named(scope)
            messages = [] if sent is None else self._messages(scope, session, sent)
            if session is None:
                passed.opening = self._opening(messages)
            elif sent is not None:
                await self._posted(session, messages)
            else:
                passed.listening = await self._asked(scope, session)
            if values_of(scope["headers"], _LAST_EVENT):
                raise RequestError(400, "No stream is resumed here: make the request anew.")
            passed.begin(messages)
        except ClientGone:
            return
        except (RequestError, NotLetIn) as refused:
            return await Reply(scope, send).answer(_refusal(refused))
        except _Answered as made:
            return await Reply(scope, send).answer(made.response)
        try:
            if passed.listening is None:
                await app(scope, body.receive, passed.send)
            else:
                async with self._until_it_falls(passed.listening):
                    await app(scope, body.receive, passed.send)
                await passed.complete()
        finally:
            passed.end()

    @asynccontextmanager
    async def _until_it_falls(self, grant: Grant) -> AsyncGenerator[None]:
        """Cancel what is inside when a grant is good no more (rule 6)."""
        failed: Exception | None = None
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                while await self._guard.stands(grant):
                    await anyio.sleep(_LOOKS_EVERY)
                group.cancel_scope.cancel()

            group.start_soon(watch)
            try:
                yield
            except Exception as error:  # the group would make another one of it
                failed = error
            group.cancel_scope.cancel()
        if failed is not None:
            raise failed

    def _named(self, scope: Scope) -> Opened | None:
        """The session that a request names. Raises RequestError for two, and for none of these."""
        named = [(value.decode("latin-1"), False) for value in values_of(scope["headers"], _ID)]
        if scope["method"] == "POST":  # the older transport reads no other
            if not scope.get("query_string", b"").isascii():  # the SDK would read it otherwise
                raise RequestError(400, "The query is not ASCII.")
            named += [(stated, True) for stated in _ids_in(scope)]
        if not named:
            return None
        # The SDK would take one of them, and not always the first.
        if len(named) > 1:
            raise RequestError(400, "More than one session is named.")
        # What was forgotten, and what never was. A client opens another session then.
        known = self._known.get(named[0])
        if known is None:
            raise RequestError(404, "Session not found")
        self._known.move_to_end(named[0])
        return known

    def _messages(self, scope: Scope, session: Opened | None, sent: bytes) -> list[Message]:
        """What a body says. Raises RequestError for what cannot be read: the SDK may read it."""
        try:
            messages = messages_of(sent, scope["headers"], session.id if session else "")
        except ValueError:
            if session is None:
                return []
            raise RequestError(400, "The body is not JSON.") from None
        if session is not None and not messages:
            raise RequestError(400, "There is no message in the body.")
        return messages

    def _opening(self, messages: Iterable[Message]) -> Tree | None:
        """The tree of a token that opens a session (rule 1)."""
        opening = [each for each in messages if each.method == "initialize"]
        return _tree_of(self._token_or_none(opening[-1])) if opening else None

    async def _asked(self, scope: Scope, session: Opened) -> Grant | None:
        """A stream that listens in a session, with its grant; or its end. Raises NotLetIn."""
        is_nobodys, listens = session.tree is None, scope["method"] == "GET"
        if is_nobodys and not listens:
            return None
        message = Message(scope["method"], {}, scope["headers"], beside=session.id)
        text = await self._text(session, message)
        if is_nobodys and text is None:
            raise RequestError(405, "There is no stream without a token.")
        grant = await self._guard.shown(text, message)
        await self._owned(session, text, message)
        return grant if listens else None

    async def _posted(self, session: Opened, messages: list[Message]) -> None:
        """A message, or several. Raises NotLetIn."""
        is_new, session.is_new = session.is_new, False
        is_alone = len(messages) == 1
        for message in messages:
            if is_new and is_alone and message.method == "initialize":
                session.tree = _tree_of(self._token_or_none(message))
            else:
                await self._said(session, message, is_alone)

    async def _said(self, session: Opened, message: Message, is_alone: bool) -> None:
        """One message in a session. Raises NotLetIn, and _Answered for a call that is alone."""
        is_answered = message.id is not None and is_alone
        if message.method == _ANYBODY and is_answered and session.tree is not None:
            text = self._token_or_none(message)
            is_own = text is not None and not session.is_strange(text)
            if not is_own or not await self._guard.seems_genuine(str(text), None):
                raise _Answered(message, result={})
            return
        try:
            await self._let_in(session, message)
        except NotLetIn as refused:
            if not is_answered or message.method in FREE:
                raise
            if refused.tool:
                raise _Answered(message, result=refused.result) from None
            raise _Answered(message, error=_error(refused)) from None

    async def _let_in(self, session: Opened, message: Message) -> None:
        """See that a message comes with a token of the session's tree (rule 2). Raises NotLetIn."""
        is_call = message.method not in FREE and not message.beside
        if session.tree is None and not is_call:
            return
        text = await self._text(session, message)
        if session.tree is None and text is None:
            return
        await (self._guard.seen if is_call else self._guard.shown)(text, message)
        await self._owned(session, text, message)

    async def _owned(self, session: Opened, text: str | None, message: Message) -> None:
        """The session is of the tree of a text that was verified. Raises NotLetIn."""
        if text is not None and not session.claim(text):
            raise await self._guard.stranger(text, message)

    async def _text(self, session: Opened, message: Message) -> str | None:
        """The text that came with a message in a session. Raises NotLetIn for another tree's."""
        text = await self._guard.sent(message)
        if text is not None and session.is_strange(text):
            raise await self._guard.stranger(text, message)
        return text

    def _token_or_none(self, message: Message) -> str | None:
        try:
            return self._guard.token_in(message)
        except NotLetIn:
            return None

    def note(self, session: Opened) -> None:
        """The application has opened a session. One that is known stays as it is."""
        self._known.setdefault((session.id, session.is_older), session)
        if len(self._known) > MOST:
            self._known.popitem(last=False)

    def forget(self, session: Opened) -> None:
        """The application has ended a session."""
        place = (session.id, session.is_older)
        if self._known.get(place) is session:
            del self._known[place]


class _Passed:
    """A request on its way through the application, and what its answer says of sessions."""

    def __init__(self, sessions: Sessions, guard: Guarding, scope: Scope, send: Send) -> None:
        self._sessions = sessions
        self._guard = guard
        self._scope = scope
        self._send = send
        self._numbers: set[bytes] = set()  # what is answered here
        self._is_stream = False  # an answer of events, and not of one piece of JSON
        self._is_answer = False  # one piece, in which all numbers are answered
        self._is_cut = False  # the token of a stream is good no more
        self._is_open = False  # the answer has begun, and not ended
        self._streamed: Opened | None = None  # of the older transport: it ends with this answer
        self.session: Opened | None = None
        self.opening: Tree | None = None
        self.listening: Grant | None = None

    def begin(self, messages: Iterable[Message]) -> None:
        """Requests go on to the SDK (rule 5). Raises RequestError."""
        numbers = [_digest_of(each.id) for each in messages if each.id is not None]
        if self.session is not None:
            self.session.begin(numbers)
            self._numbers = set(numbers)

    async def send(self, message: Any) -> None:
        """What the application sends, until the token of a stream is good no more."""
        if self._is_cut:
            return
        if message["type"] == "http.response.start":
            kinds = values_of(message.get("headers", ()), b"content-type")
            self._is_stream = any(kind.startswith(b"text/event-stream") for kind in kinds)
            # What stands between may answer that something took too long, and it goes on.
            is_refused = message["status"] in _NOT_TAKEN
            self._is_answer = is_refused or (message["status"] == 200 and not self._is_stream)
            self._is_open = True
            self._notice(message)
        elif message["type"] == "http.response.body":
            if self._is_stream_unnamed():
                self._notice_stream(message.get("body", b""))
            if self.listening is not None and not await self._guard.stands(self.listening):
                self._is_cut = True
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            # Before the client can use a number anew. A stream may end before an answer: a tool can
            # close it, for a client that comes back.
            if self._is_stream:
                self._notice_answers(message.get("body", b""))
            elif self._is_answer and self.session is not None and not message.get("more_body"):
                self.session.end(self._numbers)
            self._is_open = message.get("more_body", False)
        await self._send(message)

    async def complete(self) -> None:
        """End a stream that was cancelled. A client that reads nothing is not waited for."""
        if self._is_open:
            self._is_cut = True
            with anyio.move_on_after(1):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def end(self) -> None:
        """The application is through with it."""
        if self._streamed is not None:
            self._sessions.forget(self._streamed)

    def _notice_answers(self, piece: bytes) -> None:
        """Note from events, of which the SDK sends each by itself, what is answered."""
        session = self._streamed or self.session
        if session is None or not (self._numbers or self._streamed):
            return
        for line in piece.splitlines():
            try:
                ending = msgspec.json.decode(line.removeprefix(b"data:"), type=_Ending)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                continue
            number = _digest_of(ending.id)
            is_end = ending.result is not msgspec.UNSET or ending.error is not msgspec.UNSET
            if is_end and (number in self._numbers or session is self._streamed):
                self._numbers.discard(number)
                session.end([number])

    def _notice(self, begun: Any) -> None:
        """Note from the head of an answer that a session was opened, or has ended."""
        if begun["status"] >= 300:
            return
        if self.session is None:
            for value in values_of(begun.get("headers", ()), _ID):
                self._sessions.note(Opened(value.decode("latin-1"), self.opening))
        elif self._scope["method"] == "DELETE":
            self._sessions.forget(self.session)

    def _is_stream_unnamed(self) -> bool:
        return self._scope["method"] == "GET" and self.session is None and self._streamed is None

    def _notice_stream(self, piece: bytes) -> None:
        """Note from the first event that a stream of the older transport opens a session."""
        found = _opened(piece)
        if found is not None:
            self._streamed = Opened(found[1].decode("ascii"), None, is_older=True)
            self._sessions.note(self._streamed)


def _refusal(refused: RequestError | NotLetIn) -> Response:
    """The answer to what is refused: an error of JSON-RPC, under HTTP's own status."""
    if isinstance(refused, NotLetIn):
        error = _error(refused)
        return json_response(refused.code, {"jsonrpc": "2.0", "id": None, "error": error})
    error = {"code": _INVALID_REQUEST, "message": refused.text}
    answer = json_response(refused.status, {"jsonrpc": "2.0", "id": None, "error": error})
    if refused.status == 405:
        answer.headers.append((b"allow", b"POST, DELETE"))
    return answer


def _error(refused: NotLetIn) -> dict[str, Any]:
    return {"code": refused.code, "message": refused.text, "data": refused.data}
