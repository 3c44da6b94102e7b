"""What a gateway for MCP decides: of each message of a client's, and of each of a server's.

    relay = Relay("files", verifier, prices={}, asks=(), free=())
    talk = Conversation(relay)
    asked = await talk.ask(said, headers)            # Refused
    ...                                              # asked.sent goes to the server
    heard = await talk.answer(raw, secret)           # heard.client and heard.server go out

1. A message goes to the server only with a genuine token, whatever it is. `tools/call` and all that
   is no part of opening a session or of listing needs one that permits it (spec 40.4): the tool is
   the name of the service, a full stop, and the tool that was asked for.
2. What is sent is written anew from what was judged (`envelopes`).
3. A conversation is of the tree whose token came first in it. An answer of the server's goes to the
   client only for a request of that very conversation, and an answer of the client's to the server
   likewise. An id that is in use is not used twice.
4. What a server asks of its client is refused, unless the file names it.
5. Lists are filtered. A definition of a tool that changes is told, once.
6. A message that tells the service's key does not go on.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from captoken._format import primitives
from captoken._format.encoding import b64encode
from captoken._format.entropy import random_bytes
from captoken._format.spelling import shown
from captoken._language.access import Access
from captoken._verification.decision import Denied
from captoken._verification.grant import AsyncGrant, AsyncReserved
from captoken._verification.verifier import AsyncVerifier
from captoken.adapters._gateway import envelopes
from captoken.adapters._gateway.credentials import Unavailable
from captoken.adapters._gateway.envelopes import ASKS, Heard, Id, Malformed, Said
from captoken.adapters._gateway.mirrored import MISMATCH, PREFIX, Mirrored, Unfit
from captoken.adapters._gateway.operations import Price
from captoken.adapters._gateway.seeking import Seeker, Told
from captoken.adapters._gateway.upstream import Unreachable
from captoken.adapters._mcp.calls import access_of, no_call
from captoken.adapters._mcp.gate import STRANGER, Gate, answering
from captoken.adapters._mcp.listing import only_listed
from captoken.adapters._mcp.messages import (
    CALL,
    FREE,
    LISTS,
    Headers,
    Message,
    NotLetIn,
    facts,
)
from captoken.adapters._mcp.started_with import Default

_log = logging.getLogger("captoken.gateway")

# Of which a gateway knows whose they are, or what they were, at most: what is older is refused.
_KEPT = 10_000
_UNDER_WAY = 1000

_STATE = b"captoken/v1 gateway mcp state\0"
_TASKS = "tasks/"

UNREACHABLE = "The server cannot be reached."


class Refused(Exception):  # noqa: N818, the name reads as what it is
    """A message that is not sent. `answer` is for the client, `kind` that of the denial if it is.

    Of a notification `answer` is None: nobody waits for one. `denied`: why what was asked for is
    not permitted.
    """

    def __init__(
        self, answer: dict[str, Any] | None, kind: str = "", denied: Denied | None = None
    ) -> None:
        super().__init__("a message is refused")
        self.denied = denied
        self.answer = answer
        self.kind = kind


class Asked(NamedTuple):
    """A message that was let through: what goes out, for whom, and what was reserved for it."""

    said: Said
    sent: dict[str, Any]
    grant: AsyncGrant
    reserved: AsyncReserved | None

    # What the client has repeated of its arguments in headers.
    stated: Headers = ()

    @property
    def tree(self) -> str:
        """What was minted, which this token is of."""
        return self.grant.token_id

    @property
    def is_modern(self) -> bool:
        return self.said.version is not None


class Passed(NamedTuple):
    """What becomes of a message of the server's: what goes to the client, and what back to it."""

    client: bytes | None = None
    server: dict[str, Any] | None = None


def is_free(method: str, free: Collection[str] = ()) -> bool:
    """Does a genuine token do for it: an answer, what lists or opens, or what the file names?"""
    return not method or method in FREE or method in LISTS or method in free


def access_to(
    said: Said, prefix: str, prices: Mapping[str, Mapping[str, Price]]
) -> Access | None:
    """What a message asks for, at what cost; None for what no token can permit."""
    asked = facts(said.method, said.params)
    costs = {}
    if asked is not None:
        costs = {unit: price.of(asked[1]) for unit, price in prices.get(asked[0], {}).items()}
    stated = {unit: amount for unit, amount in costs.items() if amount is not None}
    return access_of(said.method, said.params, prefix, stated)


class Relay:
    """One service: who is let in, what a call costs, and what is known of its tools.

    `prices`: by tool, what a call costs. `asks`: what the server may ask of its client. `free`:
    methods that any genuine token may use. `default`: where the token is of what comes without one.
    """

    def __init__(
        self,
        name: str,
        verifier: AsyncVerifier,
        *,
        prices: Mapping[str, Mapping[str, Price]],
        asks: Collection[str] = (),
        free: Iterable[str] = (),
        default: Default | None = None,
    ) -> None:
        self.name = name
        self.asks = frozenset(asks)
        self.gate = Gate.of_service(verifier, name, default)
        self._prices = prices
        self._free = frozenset(free)
        self._seal = random_bytes(32)
        self.mirrored = Mirrored(name)
        self._tasks: OrderedDict[str, str] = OrderedDict()
        self._definitions: OrderedDict[str, bytes] = OrderedDict()

    async def reserved(self, grant: AsyncGrant, said: Said) -> AsyncReserved | None:
        """What a message takes, once it is permitted; None for what needs a genuine token alone.

        Raises Denied.
        """
        if is_free(said.method, self._free):
            return None
        access = access_to(said, self.gate.prefix, self._prices)
        if access is None:
            raise Denied(await grant.deny(*no_call(said.method, said.params)))
        return await grant.reserve(access)

    # --- whose a task is, and what a server wants to be shown again -------------------------------

    def note_task(self, task: str, tree: str) -> None:
        """A task began for this tree: nobody else asks for it."""
        _remember(self._tasks, task, tree)

    def is_task_of(self, task: Any, tree: str) -> bool:
        """Did a task begin for this tree?"""
        return type(task) is str and self._tasks.get(task) == tree

    def sealed(self, state: Any, asked: Asked) -> str:
        """What a server wants to be shown again, by this tree alone and for this call."""
        text = msgspec.json.encode(state).decode()
        return f"{self._mark(text, asked.tree, asked.said)}.{text}"

    def unsealed(self, sealed: Any, tree: str, said: Said) -> Any:
        """The same as the server spelled it. Raises Malformed for what is not this tree's."""
        mark, _, text = sealed.partition(".") if type(sealed) is str else ("", "", "")
        if not primitives.equal(mark.encode(), self._mark(text, tree, said).encode()):
            raise Malformed(envelopes.PARAMS, "requestState is of another call.", said.id)
        return msgspec.json.decode(text)

    def _mark(self, text: str, tree: str, said: Said) -> str:
        parts = [tree, said.method, str(said.params.get("name")), text]
        counted = b"".join(len(part).to_bytes(8, "big") + part for part in map(str.encode, parts))
        return b64encode(primitives.hmac_sha256(self._seal, _STATE + counted))

    # --- what is listed ---------------------------------------------------------------------------

    async def listed(self, asked: Asked, result: dict[str, Any]) -> dict[str, Any]:
        """Of a list what the token can be used for, each name once. New definitions are told."""
        method = asked.said.method
        listing = LISTS[method]
        items = result.get(listing.items)
        by_name: dict[str, Any] = {}
        for item in items if type(items) is list else ():
            name = item.get(listing.key) if type(item) is dict else None
            if type(name) is str and by_name.setdefault(name, item) is not item:
                _log.warning("%s lists %s twice: the first counts", self.name, shown(name))
        if method == "tools/list":
            self._compare(by_name)
            if asked.is_modern:
                fit = filter(self.mirrored.is_fit, by_name)
                by_name = {each: by_name[each] for each in fit}
        plain, named = asked.grant.blocking, list(by_name)
        those = list(by_name.values())
        gate = self.gate
        kept = await only_listed(plain, method, those, named, gate.prefix, steps_up=gate.steps_up)
        return {**result, listing.items: kept}

    def _compare(self, tools: Mapping[str, Any]) -> None:
        """Tell of tools whose definition is another one than before, in whichever session."""
        for name, tool in tools.items():
            definition = primitives.sha256(msgspec.json.encode(tool, order="deterministic"))
            if self._definitions.get(name, definition) != definition:
                _log.warning("%s: the definition of the tool %s changed", self.name, shown(name))
            _remember(self._definitions, name, definition)
            self.mirrored.note(name, tool)


def _remember(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _KEPT:
        kept.popitem(last=False)


class Conversation:
    """What one client and one server have to say to each other, and what waits for an answer.

    `moved` is awaited where a token of another tree comes: it sees to it that the server is another
    one from then on. Without it, such a token is refused.
    """

    def __init__(self, relay: Relay, moved: Callable[[], Awaitable[None]] | None = None) -> None:
        self.relay = relay
        self._moved = moved
        self._tree = ""

        # Requests that wait for an answer: the client's, and the server's.
        self._waiting: dict[Id, Asked] = {}
        self._questions: set[Id] = set()
        # Of what nobody waits for any more: an answer may come yet, and is not for another request.
        self._left: OrderedDict[Id, None] = OrderedDict()
        self.is_open = False

    # --- from the client --------------------------------------------------------------------------

    async def ask(self, said: Said, headers: Headers | None, named: str = "") -> Asked:
        """A message of the client's, judged; what it takes is reserved. Raises Refused.

        `named` is the id of the session that it came in over HTTP.
        """
        relay = self.relay
        message = Message(said.method, said.params, headers, notified=said.id is None)
        if not said.method:  # its token stands in the header, or is the default
            message = Message("POST", {"id": said.id, **said.params}, headers, beside=named)
        try:
            with answering(said.params.get("_meta")):
                grant = await self._known(message)
                said = self._checked(said, grant.token_id)
                reserved = await relay.reserved(grant, said)
        except Malformed as problem:
            answer = envelopes.error(said.id, problem.code, problem.text, problem.data)
            raise Refused(answer if said.id is not None and said.method else None) from None
        except Denied as denied:
            told = relay.gate.denials.refusal_of(denied.decision, said.method)
            raise self._refused(said, told, denied) from None
        except NotLetIn as refused:
            raise self._refused(said, refused) from None
        stated = [header for header in headers or () if header[0].startswith(PREFIX)]
        asked = Asked(said, said.sent(relay.asks), grant, reserved, stated)
        self._begun(asked)
        return asked

    async def enter(self, method: str, headers: Headers, named: str) -> AsyncGrant:
        """Who listens in a session over HTTP, or ends it. Raises Refused."""
        try:
            return await self._known(Message(method, {}, headers, beside=named))
        except Denied as denied:
            raise Refused(None, denied.kind) from None
        except NotLetIn as refused:
            raise Refused(None, refused.kind) from None

    async def _known(self, message: Message) -> AsyncGrant:
        """The grant of a genuine token of this conversation's tree. Raises NotLetIn or Denied."""
        try:
            grant = await self.relay.gate.known(message)
        except Unavailable as problem:
            _log.error("there is no keyring, and all is denied: %s", problem)
            raise NotLetIn("unavailable", "The gateway has no keyring now.") from None
        self._tree = self._tree or grant.token_id
        if self._tree == grant.token_id:
            return grant
        if self._moved is None:
            raise Denied(await grant.deny("caller", STRANGER))
        self._tree = grant.token_id
        self._questions.clear()
        await self._moved()
        return grant

    def _checked(self, said: Said, tree: str) -> Said:
        """A message that has its place in the conversation. Raises Malformed."""
        number, params = said.id, said.params
        if not said.method:
            if number not in self._questions:
                raise Malformed(envelopes.INVALID, "The server has asked no such thing.", number)
            return said
        is_used = number in self._waiting or number in self._left
        if number is not None and (is_used or len(self._waiting) >= _UNDER_WAY):
            raise Malformed(envelopes.INVALID, "A request of this id is under way.", number)
        if said.method == "initialize" and self.is_open:
            raise Malformed(envelopes.INVALID, "The session is open already.", number)
        if said.method == "notifications/cancelled" and not self._is_asked(params):
            raise Malformed(envelopes.INVALID, "No request of this id is under way.")
        if said.method == "notifications/roots/list_changed" and "roots" not in self.relay.asks:
            raise Malformed(envelopes.INVALID, "The server is not told of roots.")
        if said.version is not None and said.version not in envelopes.MODERN:
            raise unsupported(said.version, number)
        is_of_task = said.method.startswith(_TASKS) and said.method != "tasks/list"
        if is_of_task and not self.relay.is_task_of(params.get("taskId"), tree):
            raise Malformed(envelopes.PARAMS, "There is no such task.", number)
        if "requestState" in params:
            state = self.relay.unsealed(params["requestState"], tree, said)
            return said._replace(params={**params, "requestState": state})
        return said

    def _is_asked(self, params: Mapping[str, Any]) -> bool:
        """Does what is cancelled still wait for its answer?"""
        number = params.get("requestId")
        return isinstance(number, (int, str)) and number in self._waiting

    def _begun(self, asked: Asked) -> None:
        """Note what waits for an answer from here on."""
        said = asked.said
        if not said.method and said.id is not None:
            self._questions.discard(said.id)
        elif said.id is not None:
            self._waiting[said.id] = asked
        elif said.method == "notifications/cancelled":
            self._leave(said.params["requestId"])
        if said.method == "initialize":
            self.is_open = True

    def _leave(self, number: Id | None) -> None:
        """Nobody waits any more for the answer to a request."""
        if number is not None and self._waiting.pop(number, None) is not None:
            _remember(self._left, number, None)

    def gone(self, asked: Asked) -> None:
        """The client has gone before the answer came. What was taken counts."""
        self._leave(asked.said.id)

    def _refused(self, said: Said, refused: NotLetIn, denied: Denied | None = None) -> Refused:
        """What the client is told: the model of a call, and a client of all else."""
        if said.id is None or not said.method:
            return Refused(None, refused.kind)
        if refused.tool:
            modern = said.version is not None
            answer = envelopes.told(said.id, refused.text, refused.data, modern)
        else:
            answer = envelopes.error(said.id, refused.code, refused.text, refused.data)
        return Refused(answer, refused.kind, denied)

    async def undone(self, asked: Asked, problem: Unreachable) -> dict[str, Any] | None:
        """Nothing of a request was sent: what it took goes back, and the client is told."""
        if asked.reserved is not None:
            await asked.reserved.cancel()
        if isinstance(problem, Unfit):
            return self.failed(asked, str(problem), code=MISMATCH)
        return self.failed(asked, UNREACHABLE, code=503)

    def failed(
        self, asked: Asked, text: str, code: int = envelopes.INTERNAL
    ) -> dict[str, Any] | None:
        """What a request is answered that the server does not answer; None if nobody waits."""
        number = asked.said.id
        if number is None or self._waiting.pop(number, None) is None:
            return None
        if asked.said.method == "initialize":
            self.is_open = False
        return envelopes.error(number, code, text)

    def is_waiting(self, asked: Asked) -> bool:
        """Has the server not answered it yet?"""
        return asked.said.id is not None and self._waiting.get(asked.said.id) is asked

    # --- from the server --------------------------------------------------------------------------

    async def answer(self, raw: bytes, spellings: tuple[bytes, ...]) -> Passed:
        """What becomes of a message of the server's, of whose key `spellings` are."""
        try:
            heard = envelopes.hear(raw)
        except ValueError:
            _log.warning("%s said what is no message", self.relay.name)
            return Passed()
        is_told = _tells(raw, spellings)
        if is_told:
            _log.error("%s told its key in a message, which was withheld", self.relay.name)
        if heard.is_answer:
            return await self._answered(heard, is_told)
        if is_told:
            return Passed()
        if heard.id is msgspec.UNSET:
            return Passed(envelopes.spelled(heard))
        return self._questioned(heard)

    def _questioned(self, heard: Heard) -> Passed:
        """A request of the server's: passed on, if the file names what it asks for."""
        number = heard.id
        if number is None or number is msgspec.UNSET:
            return Passed()
        capability = ASKS.get(str(heard.method))
        permitted = heard.method == "ping" or capability in self.relay.asks
        if not permitted or number in self._questions or len(self._questions) >= _UNDER_WAY:
            _log.warning("%s asked its client: %s", self.relay.name, shown(heard.method))
            text = "The gateway does not pass this on."
            return Passed(server=envelopes.error(number, envelopes.NO_METHOD, text))
        self._questions.add(number)
        return Passed(envelopes.spelled(heard))

    async def _answered(self, heard: Heard, is_told: bool) -> Passed:
        """An answer: to the request that it is for, of this conversation, and to no other."""
        number = heard.id
        asked = self._waiting.pop(number, None) if isinstance(number, (int, str)) else None
        if asked is None or type(number) is not type(asked.said.id):
            _log.warning("%s answered what nobody asked", self.relay.name)
            return Passed()
        if is_told:
            text = "The server's answer is withheld."
            return Passed(_error(asked, envelopes.INTERNAL, text))
        if heard.result is not msgspec.UNSET:
            result = heard.result
            try:
                heard.result = await self._result(asked, result)
            except Malformed as problem:
                _log.warning("%s: %s", self.relay.name, problem.text)
                return Passed(_refused_result(asked, problem))
        elif asked.said.method == "initialize":
            self.is_open = False
        return Passed(envelopes.spelled(heard))

    async def _result(self, asked: Asked, raw: msgspec.Raw) -> msgspec.Raw:
        """A result as it goes on. Raises Malformed for one that does not."""
        method = asked.said.method
        if method in LISTS:
            result = await self.relay.listed(asked, envelopes.opened(raw))
            return envelopes.closed(_private(result))
        if method == "initialize":
            version = envelopes.opened(raw).get("protocolVersion")
            if version not in envelopes.HANDSHAKE:
                self.is_open = False
                text = "The server speaks a revision of MCP that the gateway does not know."
                raise Malformed(envelopes.INTERNAL, text)
            return raw
        if method == "tasks/list":
            result = envelopes.opened(raw)
            listed = result.get("tasks")
            own = [
                task
                for task in (listed if type(listed) is list else ())
                if type(task) is dict and self.relay.is_task_of(task.get("taskId"), asked.tree)
            ]
            return envelopes.closed({**result, "tasks": own})
        return self._going_on(asked, raw)

    def _going_on(self, asked: Asked, raw: msgspec.Raw) -> msgspec.Raw:
        """A result that may say how it goes on. Raises Malformed if it asks for what it may not."""
        rounds = envelopes.rounds(raw)
        if type(rounds.task_id) is str:
            self.relay.note_task(rounds.task_id, asked.tree)
        unnamed = [each for each in rounds.asked if ASKS.get(str(each)) not in self.relay.asks]
        if unnamed:
            text = f"The server asked its client for {shown(unnamed[0])}, which is not passed on."
            raise Malformed(envelopes.INTERNAL, text)
        if rounds.requestState is None and b'"cacheScope"' not in bytes(raw):
            return raw
        result = _private(envelopes.opened(raw))
        if rounds.requestState is not None:
            result["requestState"] = self.relay.sealed(rounds.requestState, asked)
        return envelopes.closed(result)


def unsupported(
    version: str, number: Id | None, known: Iterable[str] = envelopes.MODERN
) -> Malformed:
    """What a client is told of a revision that is not relayed: SDKs then try one of these."""
    data = {"supported": list(known), "requested": version}
    text = "Unsupported protocol version"
    return Malformed(envelopes.OTHER_VERSION, text, number, data)


def _private(result: dict[str, Any]) -> dict[str, Any]:
    """A result that a token was needed for: nobody else is to get it out of a cache."""
    return {**result, "cacheScope": "private"} if "cacheScope" in result else result


def _tells(raw: bytes, spellings: tuple[bytes, ...]) -> bool:
    try:
        Seeker(spellings).look(raw)
    except Told:
        return True
    return False


def _error(asked: Asked, code: int, text: str) -> bytes:
    return envelopes.encode(envelopes.error(asked.said.id, code, text))


def _refused_result(asked: Asked, problem: Malformed) -> bytes:
    """What takes the place of a result that does not go on; the model reads it, of a call."""
    number = asked.said.id
    if asked.said.method == CALL and number is not None:
        return envelopes.encode(envelopes.told(number, problem.text, {}, asked.is_modern))
    return _error(asked, problem.code, problem.text)
