"""Whose a session over HTTP is: of the tree of the token that opened it (spec 40.12).

An id of a session is no credential: servers log it, and proxies see it. And much comes in a session
that never reaches the guard of messages: an answer to a question of the server's, a stream that
listens, the end of the session, what is cancelled. So this stands round the application that the
SDK makes.

1. A session is of the tree of the token that comes with its `initialize`; else of the tree of the
   first genuine token that comes in it. A tree is what was minted, with all that was made of it.
2. From then on nothing gets as far as the SDK without a genuine token of that tree. It sends an
   answer to whoever used its number last, and a stranger can use the number of a request that is
   under way. `ping` is answered here. A stream that listens needs a token always: there is nobody
   yet to whom the session could belong.
3. What has no params, an answer, a stream, the end of a session, has its token in the Authorization
   header. Its proof is about the HTTP method, the session and the answer.
4. A request is verified here, and once more by the guard, which uses its proof. The guard asks here
   whether it is of the right tree.
5. No stream is resumed where the server keeps what it sends by the numbers of requests: these are
   the same in each session, and whoever resumes one would be sent what others were answered.

Which tree a text is of is read before it is verified. Nothing is answered on the strength of that:
a text of the right tree is verified as well, here or by the guard.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from captoken._format.errors import TokenFormatError
from captoken._format.root import RootRecord
from captoken._format.text import BOUND, parts_of
from captoken._language.bounds import BODY_BYTES, read_bytes
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

# In the scope of a request: that it came this way, and who knows whose the session is.
_KEEPER = "captoken.sessions"
_ID = b"mcp-session-id"
_LAST_EVENT = b"last-event-id"

# Sessions that are known, at most. What is forgotten is answered as what is over: 404.
MOST = 100_000

# What a stranger may ask in a session: whether the server is there.
_ANYBODY = "ping"
_INVALID_REQUEST = -32600  # of JSON-RPC

Tree: TypeAlias = tuple[str, str]  # the key id and the token id of what was minted


def session_of(http_request: Any) -> Session | None:
    """The session that a message came in; None without one, as on stdio or without HTTP."""
    if http_request is None:
        return None
    named = _named(http_request.scope)
    return None if named is None else Session(named, http_request.scope.get(_KEEPER))


def _named(scope: Scope) -> str | None:
    """The id of the session that a request names, or None."""
    return next(iter(_names(scope)), None)


def _names(scope: Scope) -> list[str]:
    """The ids that a request names: in a header, and in the query as the older transport has it.

    A UUID is spelled in many ways there, and is one session.
    """
    named = [value.decode("latin-1") for value in values_of(scope["headers"], _ID)]
    for stated in values_in(scope.get("query_string", b""), b"session_id"):
        try:
            named.append(UUID(hex=stated).hex)
        except ValueError:
            named.append(stated)
    return named


def _tree_of(text: str | None) -> Tree | None:
    """Of which tree a text is by its own account; None for what is no token."""
    try:
        root = RootRecord.decode(parts_of(text, BOUND).packet.identifier)
    except TokenFormatError:
        return None
    return root.key_id, root.token_id


class Guarding(Protocol):
    """What a session asks of the guard of messages."""

    def token_in(self, message: Message) -> str | None:
        """The text that came with a message, or None. Raises NotLetIn."""
        ...

    async def sent(self, message: Message) -> str | None:
        """The same, for a message that is to be answered: what is wrong with it is on record."""
        ...

    async def shown(self, text: str | None, message: Message) -> None:
        """Verify a text that comes with what is no call, on record. Raises NotLetIn."""
        ...

    async def seen(self, text: str | None, message: Message) -> None:
        """The same of what the guard verifies again: nothing is used. Raises NotLetIn."""
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
        # By id: None is nobody's yet. An event loop reads and writes it, between two awaits.
        self._owners: OrderedDict[str, Tree | None] = OrderedDict()
        self._numbered = False  # the application has given out an id
        # Are streams resumed? Only where the server keeps each session's events apart (rule 5).
        self.resumes = False

    def claim(self, named: str, text: str) -> bool:
        """May a text be used in that session? One that was nobody's is its tree's from here on.

        False if it is another's.
        """
        tree = _tree_of(text)
        owner = self._owners.get(named) or tree
        if owner != tree:
            return False
        self._note(named, tree)
        return True

    def is_strange(self, named: str, text: str) -> bool:
        """Is the session another tree's? Nobody has to have verified the text yet."""
        owner = self._owners.get(named)
        return owner is not None and owner != _tree_of(text)

    def guarded(self, app: ASGIApp, max_body: int = BODY_BYTES) -> ASGIApp:
        """The application, in whose sessions nothing is answered that is a stranger's."""
        most = read_bytes(max_body, "max_body")

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            # Another guard's, which stands further out, has looked already.
            if scope["type"] != "http" or _KEEPER in scope:
                return await app(scope, receive, send)
            within = {**scope, _KEEPER: self}
            return await self._answered(app, within, Body(receive, most), send)

        return application

    async def _answered(self, app: ASGIApp, scope: Scope, body: Body, send: Send) -> None:
        """Pass one HTTP request on, or refuse it."""
        opening: Tree | None = None
        try:
            check_head(scope)
            named = _named(scope)
            # The SDK would take one of them, and not always the first.
            if len(_names(scope)) > 1:
                raise RequestError(400, "More than one session is named.")
            # What was forgotten, and what never was. A client opens another session then.
            if self._numbered and values_of(scope["headers"], _ID) and named not in self._owners:
                raise RequestError(404, "Session not found")
            if scope["method"] == "POST":
                opening = await self._posted(scope, named, await body.read_all())
            elif named is not None and scope["method"] in ("GET", "DELETE"):
                await self._asked(scope, named)
            if not self.resumes and values_of(scope["headers"], _LAST_EVENT):
                raise RequestError(400, "No stream is resumed here: make the request anew.")
        except ClientGone:
            return
        except (RequestError, NotLetIn) as refused:
            return await Reply(scope, send).answer(_refusal(refused))
        except _Answered as made:
            return await Reply(scope, send).answer(made.response)

        async def noticed(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._notice(scope, named, opening, message)
            await send(message)

        await app(scope, body.receive, noticed)

    async def _asked(self, scope: Scope, named: str) -> None:
        """A stream that listens in a session, or the end of one. Raises NotLetIn (rule 2)."""
        is_nobodys = self._owners.get(named) is None
        if is_nobodys and scope["method"] == "DELETE":
            return
        message = Message(scope["method"], {}, scope["headers"], beside=named)
        text = await self._text(named, message)
        if is_nobodys and text is None:
            raise RequestError(405, "There is no stream without a token.")
        await self._guard.shown(text, message)
        await self._owned(named, text, message)

    async def _posted(self, scope: Scope, named: str | None, sent: bytes) -> Tree | None:
        """A message, or several; the tree of a token that opens a session with it (rule 1).

        Raises NotLetIn, and RequestError for what cannot be read: the SDK may read it.
        """
        try:
            messages = messages_of(sent, scope["headers"], named or "")
        except ValueError:
            if named is None:
                return None
            raise RequestError(400, "The body is not JSON.") from None
        tree: Tree | None = None
        for message in messages:
            if message.method == "initialize" and self._owners.get(named or "") is None:
                tree = _tree_of(self._token_or_none(message))
            elif named is not None:
                await self._said(named, message, is_alone=len(messages) == 1)
        return tree

    async def _said(self, named: str, message: Message, is_alone: bool) -> None:
        """One message in a session. Raises NotLetIn, and _Answered for a call that is alone."""
        try:
            await self._let_in(named, message)
        except NotLetIn as refused:
            is_ping = message.method == _ANYBODY
            if message.id is None or not is_alone or (message.method in FREE and not is_ping):
                raise
            if is_ping:
                raise _Answered(message, result={}) from None
            if refused.tool:
                raise _Answered(message, result=refused.result) from None
            raise _Answered(message, error=_error(refused)) from None

    async def _let_in(self, named: str, message: Message) -> None:
        """See that a message comes with a token of the session's tree (rule 2). Raises NotLetIn."""
        is_call = message.method not in FREE and not message.beside
        is_nobodys = self._owners.get(named) is None
        if is_nobodys and not is_call:
            return
        text = await self._text(named, message)
        if text is None and is_nobodys:
            return
        if text is None and message.method == _ANYBODY:  # no denial for the record
            raise NotLetIn("invalid", "")
        await (self._guard.seen if is_call else self._guard.shown)(text, message)
        await self._owned(named, text, message)

    async def _owned(self, named: str, text: str | None, message: Message) -> None:
        """The session is of the tree of a text that was verified. Raises NotLetIn."""
        if text is not None and not self.claim(named, text):
            raise await self._guard.stranger(text, message)

    async def _text(self, named: str, message: Message) -> str | None:
        """The text that came with a message in a session. Raises NotLetIn for another tree's."""
        text = await self._guard.sent(message)
        if text is not None and self.is_strange(named, text):
            raise await self._guard.stranger(text, message)
        return text

    def _token_or_none(self, message: Message) -> str | None:
        try:
            return self._guard.token_in(message)
        except NotLetIn:
            return None

    def _notice(self, scope: Scope, named: str | None, opening: Tree | None, begun: Any) -> None:
        """Note from an answer that a session was opened, or has ended."""
        status = begun["status"]
        if named is None:
            given = values_of(begun.get("headers", ()), _ID) if status < 300 else ()
            for value in given:
                self._numbered = True
                self._note(value.decode("latin-1"), opening)
        elif status == 404 or (scope["method"] == "DELETE" and status < 300):
            self._owners.pop(named, None)
        elif opening is not None and status < 300:
            self._note(named, self._owners.get(named) or opening)

    def _note(self, named: str, tree: Tree | None) -> None:
        self._owners[named] = tree
        self._owners.move_to_end(named)
        if len(self._owners) > MOST:
            self._owners.popitem(last=False)


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
