"""gRPC between real servers and real clients: what a token permits goes through, and nothing else does."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from captoken import Access, AsyncGrant, AsyncVerifier, Caller, Decision, Grant, Issuer, Keyring, Token, Verifier, current
from captoken._verification.mistakes import mistake
from captoken.adapters.grpc import AsyncGuard, Guard, Presenting, request_digest
from captoken.control import Feed, Operator
from captoken.current import Held
from captoken.errors import NoToken
from captoken.keys import HolderKey, OperatorKey
from captoken.proof import with_proof
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from tests.fixtures import KEYRING, NOW, WHO, clock, mint

STATUS = grpc.StatusCode
UNACCEPTED = "The token was not accepted."
REFUSED = "The token does not permit this request."


def encode(value: Any) -> bytes:
    return json.dumps(value.decode() if isinstance(value, bytes) else value).encode()  # `grpc.aio` gives text as bytes


decode: Callable[[bytes], Any] = json.loads


def by_table(message: Any) -> Access:
    return Access(table=message["table"], operation=message.get("operation", "select"))


SELECT_SALES = Access(table="sales", operation="select")
RULES = {
    "/shop.Sales/Read": by_table,
    "/shop.Sales/Watch": by_table,
    "/shop.Sales/Load": by_table,
    "/shop.Sales/Chat": by_table,
    "/shop.Sales/Total": SELECT_SALES,
    "/shop.Sales/Follow": SELECT_SALES,
}


class Trail:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)


class World:
    """What the handlers did, and the server that they belong to."""

    def __init__(self, **facts: Any) -> None:
        self.done: list[Any] = []
        self.clock = clock()
        self.between: Callable[[], object] = lambda: None
        self.trail = Trail()
        facts = {"replays": MemoryReplayStore(floor=NOW - 3600), "audit": self.trail, **facts}
        make: Any = facts.pop("make", Verifier)
        self.verifier = make(KEYRING, "sales-db", clock=self.clock, **facts)

    def handlers(self, aio: bool) -> Any:
        """Each method answers with who is granted, which no handler outside of `serving` could say."""

        def who() -> str:
            return current.grant().actor.name

        def read(message: Any, context: Any) -> Any:
            self.done.append(message)
            assert "cap1" not in str([tuple(pair) for pair in context.invocation_metadata()])
            if "more" in message:
                self.between()
            return who()

        def watch(message: Any, context: Any) -> Iterator[Any]:
            for number in range(3):
                self.done.append(number)
                yield [who(), number]
                self.clock.advance(message.get("pause", 0))
                self.between()

        def load(messages: Any, context: Any) -> Any:
            taken = []
            try:
                for message in messages:
                    taken.append(message)
                    self.done.append(message)
            except Exception:  # a handler that goes on, whatever happens
                self.done.append("caught")
            return [who(), len(taken)]

        def chat(messages: Any, context: Any) -> Iterator[Any]:
            self.done.append("started")
            for message in messages:
                self.done.append(message)
                yield [who(), message["table"]]

        async def aread(message: Any, context: Any) -> Any:
            return read(message, context)

        async def awatch(message: Any, context: Any) -> AsyncIterator[Any]:
            for item in watch(message, context):
                yield item

        async def aload(messages: Any, context: Any) -> Any:
            taken = []
            try:
                async for message in messages:
                    taken.append(message)
                    self.done.append(message)
            except Exception:
                self.done.append("caught")
            return [who(), len(taken)]

        async def achat(messages: Any, context: Any) -> AsyncIterator[Any]:
            self.done.append("started")
            async for message in messages:
                self.done.append(message)
                yield [who(), message["table"]]

        async def aread_and_write(messages: Any, context: Any) -> None:
            self.done.append("started")
            while (message := await context.read()) is not grpc.aio.EOF:
                self.done.append(message)
                self.clock.advance(message.get("pause", 0))
                await context.write([who(), message["table"]])

        def handler(kind: str, behavior: Any) -> Any:
            return getattr(grpc, f"{kind}_rpc_method_handler")(behavior, decode, encode)

        one, many, all_, both = (aread, awatch, aload, achat) if aio else (read, watch, load, chat)
        return grpc.method_handlers_generic_handler(
            "shop.Sales",
            {
                "Read": handler("unary_unary", one),
                "Total": handler("unary_unary", one),
                "Unlisted": handler("unary_unary", one),
                "Health": handler("unary_unary", (lambda m, c: "well") if not aio else _well),
                "Watch": handler("unary_stream", many),
                "Load": handler("stream_unary", all_),
                "Chat": handler("stream_stream", both),
                "Follow": handler("stream_stream", aread_and_write if aio else chat),
            },
        )


async def _well(message: Any, context: Any) -> str:
    return "well"


HEALTH = ["/shop.Sales/Health"]


@contextmanager
def serving(world: World, rules: Any = RULES, **options: Any) -> Iterator[str]:
    """A synchronous server."""
    guard = Guard(world.verifier, rules, **{"public": HEALTH, **options})
    with started(grpc.server(ThreadPoolExecutor(4), handlers=[world.handlers(False)], interceptors=[guard])) as target:
        yield target


@contextmanager
def started(server: Any) -> Iterator[str]:
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@asynccontextmanager
async def aserving(world: World, rules: Any = RULES, **options: Any) -> AsyncIterator[str]:
    guard = AsyncGuard(world.verifier, rules, **{"public": HEALTH, **options})
    server = grpc.aio.server(handlers=[world.handlers(True)], interceptors=[guard])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


KINDS = {"Watch": "unary_stream", "Load": "stream_unary", "Chat": "stream_stream", "Follow": "stream_stream"}


def outcome(error: grpc.RpcError) -> tuple[Any, str]:
    return error.code(), error.details()


def ask(target: str, method: str, given: Any, *, presenting: bool = True, metadata: Any = None, ended: Any = str, **options: Any) -> Any:
    """What comes of a call: the answer, or status and details; of a stream, all that came before too."""
    kind = KINDS.get(method, "unary_unary")
    with grpc.insecure_channel(target) as plain:
        channel = Presenting(plain, audience="sales-db", insecure=True, **options) if presenting else plain
        call = getattr(channel, kind)(f"/shop.Sales/{method}", encode, decode)
        given = iter([message for message in given if message is not HOLD]) if kind.startswith("stream") else given
        came: list[Any] = []
        try:
            if kind.endswith("unary"):
                return call(given, metadata=metadata, timeout=10)
            for message in call(given, metadata=metadata, timeout=10):
                came.append(message)
        except grpc.RpcError as error:
            ended(error)
            return (*came, outcome(error)) if kind.endswith("stream") else outcome(error)
        return tuple(came)


async def aask(target: str, method: str, given: Any, *, presenting: bool = True, metadata: Any = None, ended: Any = str, **options: Any) -> Any:
    kind = KINDS.get(method, "unary_unary")

    async def each() -> AsyncIterator[Any]:
        for message in given:
            if message is HOLD:
                await asyncio.Event().wait()
            yield message

    async with grpc.aio.insecure_channel(target) as plain:
        channel = Presenting(plain, audience="sales-db", insecure=True, **options) if presenting else plain
        call = getattr(channel, kind)(f"/shop.Sales/{method}", encode, decode)
        argument = each() if kind.startswith("stream") else given
        came: list[Any] = []
        try:
            if kind.endswith("unary"):
                return await call(argument, metadata=metadata, timeout=10)
            async for message in call(argument, metadata=metadata, timeout=10):
                came.append(message)
        except grpc.RpcError as error:
            ended(error)
            return (*came, outcome(error)) if kind.endswith("stream") else outcome(error)
        return tuple(came)


Asking = Callable[..., Any]
HOLD = object()  # a client of `grpc.aio` waits here, for a write to a call that has ended is an error of another kind


@pytest.fixture(params=["sync", "aio"])
def calls(request: pytest.FixtureRequest) -> Asking:
    """Calls of one server, each (method, given, options): by a synchronous server and client, then by those of `grpc.aio`."""

    def synchronous(world: World, *asked: tuple[str, Any, dict[str, Any]], rules: Any = RULES, **options: Any) -> list[Any]:
        with serving(world, rules, **options) as target:
            return [ask(target, method, given, **facts) for method, given, facts in asked]

    def asynchronous(world: World, *asked: tuple[str, Any, dict[str, Any]], rules: Any = RULES, **options: Any) -> list[Any]:
        async def run() -> list[Any]:
            async with aserving(world, rules, **options) as target:
                return [await aask(target, method, given, **facts) for method, given, facts in asked]

        return asyncio.run(run())

    return synchronous if request.param == "sync" else asynchronous


SALES, HR = {"table": "sales"}, {"table": "hr"}


# --- what goes through -----------------------------------------------------------------------------------------------


def test_a_call_that_the_token_permits_runs_under_its_grant(calls: Asking) -> None:
    world = World()
    held = {"held": mint().delegate(to="sales-agent")}
    assert calls(
        world,
        ("Read", SALES, held),
        ("Total", {}, held),
        ("Watch", SALES, held),
        ("Load", [SALES, {"table": "market.moves"}], held),
        ("Chat", [SALES, SALES], held),
        ("Follow", [SALES, HR], held),
    ) == [
        "sales-agent",
        "sales-agent",
        (["sales-agent", 0], ["sales-agent", 1], ["sales-agent", 2]),
        ["sales-agent", 2],
        (["sales-agent", "sales"], ["sales-agent", "sales"]),
        (["sales-agent", "sales"], ["sales-agent", "hr"]),
    ]


def test_what_is_current_is_what_is_shown(calls: Asking) -> None:
    world = World()
    with current.use(mint()), current.delegate(to="sales-agent", tables=["sales"]):
        assert calls(world, ("Read", SALES, {})) == ["sales-agent"]
    with pytest.raises(NoToken):
        calls(world, ("Read", SALES, {}))


def test_the_server_sees_what_was_presented_and_never_what_is_held(calls: Asking) -> None:
    world, held = World(), mint()
    calls(world, ("Read", SALES, {"held": held}), ("Read", SALES, {"held": held, "expires_in": "1m30s"}))
    grants = [decision.grant for decision in world.trail.decisions]
    assert {grant and grant.expires_at for grant in grants} == {NOW + 60, NOW + 90}
    grant = grants[0]
    assert grant is not None
    assert grant.capability.audiences == frozenset({"sales-db"}) and len(grant.caveats) > len(held.unverified.links)


# --- what does not ---------------------------------------------------------------------------------------------------


def presented(token: Token | None = None, **facts: Any) -> str:
    return (token or mint()).present(audience="sales-db", **facts)


def header(*values: str) -> Any:
    return tuple(("authorization", value) for value in values)


other = Keyring.from_keys({"k1": bytes(range(2, 34))}, current="k1")
UNAUTHENTICATED = {
    "nothing": (),
    "no scheme": header(presented()),
    "another scheme": header("Basic " + presented()),
    "an empty one": header("Bearer "),
    "no token": header("Bearer cap1nonsense"),
    "two headers": header("Bearer " + presented(), "Bearer " + presented()),
    "a good one and an empty one": header("Bearer " + presented(), ""),
    "two in one": header(f"Bearer {presented()}, Bearer {presented()}"),
    "in lower case": header("bearer " + presented()),
    "space before it": header("Bearer  " + presented()),
    "cut short": header("Bearer " + presented()[:-4]),
    "under another key": header("Bearer " + presented(Issuer(other, clock=clock()).mint(**WHO, tables=["sales"], operations=["select"]))),
    "by another name": (("token", "Bearer " + presented()),),
}  # fmt: skip


@pytest.mark.parametrize("metadata", UNAUTHENTICATED.values(), ids=UNAUTHENTICATED)
def test_what_is_no_token_of_ours_gets_one_answer(metadata: Any, calls: Asking) -> None:
    world = World()
    asked = [("Read", SALES), ("Watch", SALES), ("Load", [HOLD, SALES]), ("Chat", [HOLD, SALES]), ("Unlisted", SALES)]
    said = calls(world, *((method, given, {"presenting": False, "metadata": metadata}) for method, given in asked))
    refused = (STATUS.UNAUTHENTICATED, UNACCEPTED)
    assert said == [refused, (refused,), refused, (refused,), refused]
    assert world.done == [] and len(world.trail.decisions) == 5 and not any(world.trail.decisions)


def test_a_refusal_has_the_id_of_its_record_and_the_line_of_the_log_says_which_method(calls: Asking, caplog: pytest.LogCaptureFixture) -> None:
    world, ids = World(), []
    caplog.set_level(logging.INFO, "captoken")
    options = {"presenting": False, "ended": lambda call: ids.extend(id for key, id in call.trailing_metadata() if key == "captoken-decision")}
    [said] = calls(world, ("Read", HR, {"held": mint()}))
    assert said == (STATUS.PERMISSION_DENIED, REFUSED)
    calls(world, ("Read", SALES, options))
    permitted, absent = [line for line in caplog.messages if line.startswith("refused: ")]
    denied, nothing = (decision for decision in world.trail.decisions if not decision)
    assert "/shop.Sales/Read" in permitted and denied.id in permitted
    assert "/shop.Sales/Read" in absent and "no token is in use here" in absent
    assert "no token is in use here" in nothing.summary
    assert ids == [nothing.id] and len(nothing.id) == 12


REFUSALS: dict[str, tuple[str, Any, Any]] = {
    "another table": ("Read", HR, REFUSED),
    "another operation": ("Read", {"table": "sales", "operation": "delete"}, REFUSED),
    "no name of a table": ("Read", {"table": "sales;drop"}, REFUSED),
    "a fact that is missing": ("Read", {}, REFUSED),
    "not even a text": ("Read", {"table": 7}, REFUSED),
    "a method that no rule names": ("Unlisted", SALES, REFUSED),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_what_the_token_does_not_permit_is_refused_before_the_handler(case: tuple[str, Any, str], calls: Asking) -> None:
    method, given, details = case
    world = World()
    assert calls(world, (method, given, {"held": mint()})) == [(STATUS.PERMISSION_DENIED, details)]
    assert world.done == [] and not world.trail.decisions[-1]


TOO_LARGE = (STATUS.PERMISSION_DENIED, "The request is too large to be checked against the token.")


@pytest.mark.parametrize("method", ["Read", "Watch", "Load", "Chat", "Total", "Follow"])
def test_a_message_has_its_bound_whoever_sends_it_and_how(method: str, calls: Asking) -> None:
    """`max_message`, and 256 KiB unless said. A message that is longer is not parsed, and the handler does not see it."""
    def given(length: int) -> Any:
        message = {**SALES, "x": ""}
        message["x"] = "x" * (length - len(encode(message)))
        assert len(encode(message)) == length
        return [SALES, message] if KINDS.get(method, "").startswith("stream") else message

    def last(answer: Any) -> Any:
        return answer[-1] if method in ("Watch", "Chat", "Follow") else answer

    for options, most in (({}, 256 << 10), ({"max_message": 1000}, 1000)):
        world = World()
        held = {"held": mint()}
        within, beyond = calls(world, (method, given(most), held), (method, given(most + 1), held), **options)
        assert last(within) != TOO_LARGE and last(beyond) == TOO_LARGE, (within, beyond)
        assert world.trail.decisions[-1].code == "too_much_work"


def test_what_a_rule_states_has_its_bound(calls: Asking) -> None:
    rules = {"/shop.Sales/Read": lambda message: Access(**SALES_ACCESS, attributes={"q": "x" * message["n"]})}
    world = World()
    room = (256 << 10) - 23
    asked = [("Read", {"n": room + more}, {"held": mint()}) for more in (0, 1)]
    within, beyond = calls(world, *asked, rules=rules)
    assert within != TOO_LARGE and beyond == TOO_LARGE


SALES_ACCESS = {"table": "sales", "operation": "select"}


def test_a_token_for_another_server_and_one_for_nobody_are_refused(calls: Asking) -> None:
    world = World()
    elsewhere, nobody = header("Bearer " + mint().present(audience="hr-db")), header("Bearer " + mint().serialize())
    said = calls(world, *(("Read", SALES, {"presenting": False, "metadata": metadata}) for metadata in (elsewhere, nobody)))
    assert said == [
        (STATUS.UNAUTHENTICATED, "The token is addressed to another server."),
        (STATUS.UNAUTHENTICATED, "The token is not addressed to this server."),
    ]
    assert world.done == []


def test_bytes_that_are_no_request_are_told_so_to_whoever_has_a_token_only(calls: Asking) -> None:
    world = World()
    rules = {"/shop.Sales/Read": SELECT_SALES}
    good = calls(world, ("Read", SALES, {"held": mint()}), rules=rules)
    assert good == ["orchestrator"]
    with serving(world, rules) as target, grpc.insecure_channel(target) as plain:
        for metadata, code in ((header("Bearer " + presented()), STATUS.INVALID_ARGUMENT), ((), STATUS.UNAUTHENTICATED)):
            with pytest.raises(grpc.RpcError) as caught:
                plain.unary_unary("/shop.Sales/Read")(b"{", metadata=metadata)
            assert caught.value.code() == code


def test_a_public_method_takes_no_token(calls: Asking) -> None:
    assert calls(World(), ("Health", {}, {"presenting": False})) == ["well"]


def test_a_public_method_of_any_kind_sees_no_token(calls: Asking) -> None:
    class Open(World):
        def handlers(self, aio: bool) -> Any:
            def look(given: Any, context: Any) -> Any:
                return [str([tuple(pair) for pair in context.invocation_metadata()]).count("cap1"), current_here()]

            def stream(given: Any, context: Any) -> Iterator[Any]:
                yield look(given, context)

            async def alook(given: Any, context: Any) -> Any:
                return look(given, context)

            async def astream(given: Any, context: Any) -> AsyncIterator[Any]:
                yield look(given, context)

            methods = {
                "Read": grpc.unary_unary_rpc_method_handler(alook if aio else look, decode, encode),
                "Watch": grpc.unary_stream_rpc_method_handler(astream if aio else stream, decode, encode),
                "Load": grpc.stream_unary_rpc_method_handler(alook if aio else look, decode, encode),
                "Chat": grpc.stream_stream_rpc_method_handler(astream if aio else stream, decode, encode),
                "Health": grpc.unary_unary_rpc_method_handler(look, decode, encode),
            }
            return grpc.method_handlers_generic_handler("shop.Sales", methods)

    asked = [("Read", SALES), ("Watch", SALES), ("Load", [SALES]), ("Chat", [SALES]), ("Health", SALES)]
    public = [f"/shop.Sales/{method}" for method, _ in asked]
    with current.use(mint()):
        said = calls(Open(), *((method, given, {}) for method, given in asked), public=public)
    nothing = [0, ["nothing", "nothing"]]
    assert said == [nothing, (nothing,), nothing, (nothing,), nothing]


def current_here() -> list[str]:
    """What is held and what is granted where this is called."""
    found = []
    for ask in (current.holding, current.grant):
        try:
            found.append(repr(ask()))
        except NoToken:
            found.append("nothing")
    return found


def test_a_handler_does_not_hold_what_its_server_holds(calls: Asking) -> None:
    """Calls of `grpc.aio` run in the context in which the server was started."""

    class Holding(World):
        def handlers(self, aio: bool) -> Any:
            def look(given: Any, context: Any) -> Any:
                return current_here()[0]

            def stream(given: Any, context: Any) -> Iterator[Any]:
                yield look(given, context)

            async def alook(given: Any, context: Any) -> Any:
                return look(given, context)

            async def astream(given: Any, context: Any) -> AsyncIterator[Any]:
                yield look(given, context)

            methods = {
                "Read": grpc.unary_unary_rpc_method_handler(alook if aio else look, decode, encode),
                "Watch": grpc.unary_stream_rpc_method_handler(astream if aio else stream, decode, encode),
            }
            return grpc.method_handlers_generic_handler("shop.Sales", methods)

    with current.use(mint()):
        assert calls(Holding(), ("Read", SALES, {}), ("Watch", SALES, {})) == ["nothing", ("nothing",)]


def test_what_a_rule_raises_beyond_a_bad_name_runs_nothing(calls: Asking, caplog: pytest.LogCaptureFixture) -> None:
    def broken(message: Any) -> Access:
        raise OSError("no directory of tables")

    world = World()
    with caplog.at_level(logging.CRITICAL):
        (said,) = calls(world, ("Read", SALES, {"held": mint()}), rules={"/shop.Sales/Read": broken})
    assert said[0] == STATUS.UNKNOWN and world.done == []
    returns_nothing: Any = lambda message: True  # noqa: E731
    assert calls(world, ("Read", SALES, {"held": mint()}), rules={"/shop.Sales/Read": returns_nothing}) == [
        (STATUS.PERMISSION_DENIED, REFUSED)
    ]


def test_what_a_handler_asks_in_turn_and_is_refused_is_the_answer(calls: Asking) -> None:
    """And tells the client no more than any other refusal: gRPC itself would pass on what is for the operator."""
    world = World()
    world.between = lambda: current.grant().authorize(Access(table="hr", operation="select"))
    refused = (STATUS.PERMISSION_DENIED, REFUSED)
    asked = {"table": "sales", "more": True}
    said = calls(world, ("Read", asked, {"held": mint()}), ("Watch", SALES, {"held": mint()}))
    assert said == [refused, (["orchestrator", 0], refused)]


def test_a_mistake_in_a_statement_is_the_callers_and_is_told(calls: Asking) -> None:
    world = World()

    def between() -> None:
        raise mistake("syntax", "42601")

    world.between = between
    refused = (STATUS.INVALID_ARGUMENT, mistake("syntax").for_model())
    asked = {"table": "sales", "more": True}
    said = calls(world, ("Read", asked, {"held": mint()}), ("Watch", SALES, {"held": mint()}))
    assert said == [refused, (["orchestrator", 0], refused)]


def test_who_calls_can_be_what_the_server_itself_knows(calls: Asking) -> None:
    def peer(context: Any) -> Caller:
        return Caller(agent="sales-agent")  # of a client's certificate, say

    world = World()
    good, stolen = ({"held": mint().delegate(to=name)} for name in ("sales-agent", "market-agent"))
    assert calls(world, ("Read", SALES, good), ("Read", SALES, stolen), caller=peer) == [
        "sales-agent",
        (STATUS.PERMISSION_DENIED, "The token was handed to another caller."),
    ]


@pytest.mark.parametrize(
    "known", [None, "sales-agent", LookupError("peer 10.0.0.7"), OSError("no directory"), AttributeError("x")]
)
def test_a_call_of_nobody_that_the_server_knows_is_refused(known: Any, calls: Asking) -> None:
    def peer(context: Any) -> Any:
        if isinstance(known, Exception):
            raise known
        return known

    world = World()
    refused = (STATUS.PERMISSION_DENIED, "The token was handed to another caller.")
    asked = [("Read", SALES, {"held": mint()}), ("Watch", SALES, {"held": mint()}), ("Load", [HOLD, SALES], {"held": mint()})]
    assert calls(world, *asked, caller=peer) == [refused, (refused,), refused]
    assert world.done == [] and {decision.code for decision in world.trail.decisions} == {"allowed", "caller"}


def test_a_store_that_fails_makes_the_server_unavailable(calls: Asking) -> None:
    class Broken:
        def record(self, decision: Decision) -> None:
            raise OSError("disk full")

    world = World(audit=Broken())
    (said,) = calls(world, ("Read", SALES, {"held": mint()}))
    assert said == (STATUS.UNAVAILABLE, "The server cannot decide right now.") and world.done == []


# --- streams ---------------------------------------------------------------------------------------------------------


def test_each_message_of_a_client_is_decided_on(calls: Asking) -> None:
    world = World()
    refused = (STATUS.PERMISSION_DENIED, REFUSED)
    said = calls(world, ("Chat", [SALES, HR, HOLD, SALES], {"held": mint()}))
    assert said[0][-1] == refused and HR not in world.done and world.done.count(SALES) == 1


def test_a_handler_that_catches_the_refusal_answers_nothing(calls: Asking) -> None:
    world = World()
    assert calls(world, ("Load", [SALES, HR, HOLD, SALES], {"held": mint()})) == [(STATUS.PERMISSION_DENIED, REFUSED)]
    # The client has its answer first, and the server that stops then may cancel the handler before it catches anything.
    assert world.done in ([SALES, "caught"], [SALES])


@pytest.mark.parametrize("given", [[], [HR, HOLD]], ids=["no message", "a message that is refused"])
def test_a_stream_does_not_start_before_a_message_is_permitted(given: Any, calls: Asking) -> None:
    world = World()
    refused = (STATUS.PERMISSION_DENIED, REFUSED)
    assert calls(world, ("Chat", given, {"held": mint()}), ("Load", given, {"held": mint()})) == [(refused,), refused]
    assert world.done == []


def test_a_stream_ends_with_its_grant(calls: Asking) -> None:
    world = World()
    said = calls(world, ("Watch", {"table": "sales", "pause": 40}, {"held": mint()}))
    expired = (STATUS.UNAUTHENTICATED, "The token has expired.")
    assert said == [(["orchestrator", 0], ["orchestrator", 1], expired)]
    assert world.trail.decisions[-1].code == "expired"


def test_a_stream_of_reads_and_writes_is_watched_as_well() -> None:
    """The other style of `grpc.aio`: `context.read` and `context.write`."""
    rules = RULES | {"/shop.Sales/Follow": by_table}

    async def run() -> None:
        world = World()
        async with aserving(world, rules) as target:
            said = await aask(target, "Follow", [SALES, HR, HOLD, SALES], held=mint())
        assert said == (["orchestrator", "sales"], (STATUS.PERMISSION_DENIED, REFUSED))
        assert world.done == ["started", SALES]

    asyncio.run(run())


def test_a_write_asks_whether_the_grant_still_stands() -> None:
    async def run() -> None:
        world = World()
        async with aserving(world) as target:
            late = {"table": "sales", "pause": 70}
            said = await aask(target, "Follow", [SALES, late, HOLD], held=mint())
        assert said == (["orchestrator", "sales"], (STATUS.UNAUTHENTICATED, "The token has expired."))

    asyncio.run(run())


def test_a_stream_that_one_access_judges_is_used_once_and_its_messages_each(calls: Asking) -> None:
    def counted(uses: int) -> dict[str, Any]:
        return {"held": mint(tables=["sales"], operations=["select"], uses=uses)}

    many = [SALES] * 3  # the third is one too many for two uses
    ledger = MemoryLedger(shared=True, floor=NOW - 3600)
    assert calls(World(ledger=ledger), ("Follow", many, counted(1))) == [(["orchestrator", "sales"],) * 3]
    used_up = (STATUS.PERMISSION_DENIED, "The token has too little left for this request.")
    ledger = MemoryLedger(shared=True, floor=NOW - 3600)
    assert calls(World(ledger=ledger), ("Chat", [*many, HOLD], counted(2)))[0][-1] == used_up


@pytest.mark.parametrize("cost", [{"cents": 6}, lambda message: {"cents": message["cents"]}], ids=["always the same", "by message"])
def test_a_call_takes_what_it_costs_of_a_budget(cost: Any, calls: Asking) -> None:
    """In the units that its rule does not state; without it, a token with a budget permits nothing."""
    held = {"held": mint(tables=["sales"], operations=["select"], budget={"cents": 10})}
    used_up, asked = (STATUS.PERMISSION_DENIED, "The token has too little left for this request."), {**SALES, "cents": 6}

    def ledger() -> MemoryLedger:
        return MemoryLedger(shared=True, floor=NOW - 3600)

    for method in ("Read", "Total"):
        call = (method, asked, held)
        assert calls(World(ledger=ledger()), call, cost=cost)[0] == "orchestrator"
        assert calls(World(ledger=ledger()), call, call, cost=cost) == ["orchestrator", used_up]
        assert calls(World(ledger=ledger()), call)[0] == (STATUS.PERMISSION_DENIED, "The server did not state what the request costs.")
    stated = {"/shop.Sales/Total": Access(table="sales", operation="select", cost={"cents": 11})}
    assert calls(World(ledger=ledger()), ("Total", asked, held), rules=stated, cost={"cents": 0}) == [used_up]
    with pytest.raises(TypeError, match="cost"):
        Guard(World().verifier, RULES, cost={"cents": None})  # type: ignore[dict-item]


def test_an_overlay_that_narrows_ends_a_stream_too(calls: Asking) -> None:
    store, key = MemorySnapshots(), OperatorKey.generate()
    operator = Operator(key, store, by="operator", clock=clock())
    operator.renew()
    world = World(overlay=Feed(store, [key.public], every=0, clock=clock()))
    world.between = lambda: operator.narrow(task="task-123", tables=["market.*"], operations=["select"], why="too much")
    said = calls(world, ("Watch", SALES, {"held": mint()}))
    assert said == [(["orchestrator", 0], (STATUS.PERMISSION_DENIED, REFUSED))]
    assert world.trail.decisions[-1].code == "narrowed"


# --- bound tokens ----------------------------------------------------------------------------------------------------

OWN = HolderKey.from_bytes(bytes(range(3, 35)))
BOUND = mint(tables=["sales"], operations=["select"], key=OWN.public)


def bound() -> dict[str, Any]:
    return {"held": Held(BOUND, OWN)}


UNPROVEN = (STATUS.UNAUTHENTICATED, "The request needs a fresh proof from the key that the token is bound to.")


def test_a_bound_token_comes_with_a_proof_for_its_request(calls: Asking) -> None:
    said = calls(World(), ("Read", SALES, bound()), ("Read", SALES, bound()), ("Watch", SALES, bound()))
    assert said[:2] == ["orchestrator"] * 2 and len(said[2]) == 3


def proven(message: bytes, method: str = "Read", key: HolderKey = OWN) -> str:
    digest = request_digest(f"/shop.Sales/{method}", message)
    return with_proof(presented(BOUND), key, audience="sales-db", request=digest, clock=clock())


def proof_of(text: str) -> str:
    return text.rpartition(".")[2]


PROOFS: dict[str, Callable[[], str]] = {
    "none": lambda: presented(BOUND),
    "for another request": lambda: proven(encode({"table": "sales", "operation": "insert"})),
    "for another method": lambda: proven(encode(SALES), "Watch"),
    "for the same JSON, spelled otherwise": lambda: proven(b'{"table":"sales"}'),
    "for no request": lambda: with_proof(presented(BOUND), OWN, audience="sales-db", clock=clock()),
    "by another key": lambda: proven(encode(SALES), key=HolderKey.generate()),
    "on a token that is bound to no key": lambda: f"{presented()}.{proof_of(proven(encode(SALES)))}",
}


@pytest.mark.parametrize("text", PROOFS.values(), ids=PROOFS)
def test_a_proof_is_for_one_request(text: Callable[[], str], calls: Asking) -> None:
    world = World()
    wrong = {"presenting": False, "metadata": header(f"Bearer {text()}")}
    right = {"presenting": False, "metadata": header(f"Bearer {proven(encode(SALES))}")}
    assert calls(world, ("Read", SALES, wrong), ("Read", SALES, right)) == [UNPROVEN, "orchestrator"]
    assert world.done == [SALES]


MISPLACED: dict[str, Callable[[str, str], Any]] = {
    "twice": lambda text, proof: header(f"Bearer {text}.{proof}.{proof}"),
    "before the token": lambda text, proof: header(f"Bearer {proof}.{text}"),
    "alone": lambda text, proof: header(f"Bearer {proof}"),
    "in a header of its own": lambda text, proof: (*header(f"Bearer {text}"), ("authorization", f"Bearer {proof}")),
    "cut short": lambda text, proof: header(f"Bearer {text}.{proof[:-4]}"),
}


@pytest.mark.parametrize("metadata", MISPLACED.values(), ids=MISPLACED)
def test_a_proof_stands_once_and_at_the_end(metadata: Callable[[str, str], Any], calls: Asking) -> None:
    """The specification's rule 40.6."""
    text, _, proof = proven(encode(SALES)).rpartition(".")
    wrong = {"presenting": False, "metadata": metadata(text, proof)}
    right = {"presenting": False, "metadata": header(f"Bearer {text}.{proof}")}
    assert calls(World(), ("Read", SALES, wrong), ("Read", SALES, right)) == [(STATUS.UNAUTHENTICATED, UNACCEPTED), "orchestrator"]


def test_a_proof_is_used_once(calls: Asking) -> None:
    again = {"presenting": False, "metadata": header(f"Bearer {proven(encode(SALES))}")}
    assert calls(World(), ("Read", SALES, again), ("Read", SALES, again)) == ["orchestrator", UNPROVEN]


@pytest.mark.parametrize("method", ["Load", "Chat"])
def test_a_bound_token_opens_no_stream_from_the_client(method: str, calls: Asking) -> None:
    """No proof would cover its messages. A client says so; a server holds to it, whatever the client sends."""
    world = World()
    with pytest.raises(ValueError, match="no stream"):
        calls(world, (method, [SALES], bound()))
    of_nothing = with_proof(presented(BOUND), OWN, audience="sales-db", clock=clock())  # a proof that shows the token
    for text in (proven(b"", method), proven(encode(SALES), method), presented(BOUND), of_nothing):
        (said,) = calls(world, (method, [HOLD, SALES], {"presenting": False, "metadata": header(f"Bearer {text}")}))
        assert said in (UNPROVEN, (UNPROVEN,))
    bearer = header(f"Bearer {presented()}.{proof_of(proven(b'', method))}")
    assert calls(world, (method, [HOLD, SALES], {"presenting": False, "metadata": bearer}))[0] in (UNPROVEN, (UNPROVEN,))
    assert world.done == [] and not any(world.trail.decisions)
    alone = {"presenting": False, "metadata": header(f"Bearer {presented()}")}
    calls(world, (method, [SALES], alone))
    assert SALES in world.done  # a bearer token does


# --- either face of a verifier ---------------------------------------------------------------------------------------


class Reporting(World):
    """Its handlers ask the grant that they are served, as its kind is asked."""

    def handlers(self, aio: bool) -> Any:
        def read(message: Any, context: Any) -> Any:
            grant = current.grant()
            return [type(grant).__name__, [grant.check(by_table({"table": table})).code for table in ("sales", "hr")]]

        async def aread(message: Any, context: Any) -> Any:
            if isinstance(self.verifier, Verifier):
                return read(message, context)
            grant: Any = current.grant()
            return [type(grant).__name__, [(await grant.check(by_table({"table": table}))).code for table in ("sales", "hr")]]

        async def afail(messages: Any, context: Any) -> AsyncIterator[Any]:
            yield "begun"
            await current.grant(AsyncGrant).authorize(by_table(HR))
            yield "not reached"

        def fail(messages: Any, context: Any) -> Iterator[Any]:
            yield "begun"
            current.grant(Grant).authorize(by_table(HR))
            yield "not reached"

        kinds = {
            "Read": grpc.unary_unary_rpc_method_handler(aread if aio else read, decode, encode),
            "Watch": grpc.unary_stream_rpc_method_handler(afail if aio else fail, decode, encode),
        }
        return grpc.method_handlers_generic_handler("shop.Sales", kinds)


@pytest.mark.parametrize("make", [Verifier, AsyncVerifier])
def test_a_guard_takes_either_face_of_a_verifier(make: Any, calls: Asking) -> None:
    world = Reporting(make=make, ledger=MemoryLedger(shared=True, floor=0))
    held = {"held": mint(tables=["sales"], operations=["select"], uses=3)}
    refused = (STATUS.PERMISSION_DENIED, REFUSED)
    said = calls(world, ("Read", SALES, held), ("Read", HR, held), ("Read", SALES, bound()), ("Watch", SALES, held))
    assert [said[0][1], said[1], said[2][1], said[3]] == [["allowed", "table"], refused, ["allowed", "table"], ("begun", refused)]


def test_a_handler_gets_the_grant_of_the_face_that_was_given() -> None:
    """A synchronous server has nothing to await with: its handlers get the plain one."""

    async def kind(make: Any) -> Any:
        async with aserving(Reporting(make=make)) as target:
            return (await aask(target, "Read", SALES, held=mint()))[0]

    assert asyncio.run(kind(Verifier)) == "Grant" and asyncio.run(kind(AsyncVerifier)) == "AsyncGrant"
    with serving(Reporting(make=AsyncVerifier)) as target:
        assert ask(target, "Read", SALES, held=mint())[0] == "Grant"


# --- what is sent again ----------------------------------------------------------------------------------------------

RETRIES = {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}
RETRYING = [("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": RETRIES}]}))]


class Failing(World):
    """Its handler is unavailable once, after the call was let in."""

    def handlers(self, aio: bool) -> Any:
        def read(message: Any, context: Any) -> Any:
            self.done.append(message)
            if len(self.done) == 1:
                context.abort(STATUS.UNAVAILABLE, "once more")
            return current.grant().actor.name

        return grpc.method_handlers_generic_handler("shop.Sales", {"Read": grpc.unary_unary_rpc_method_handler(read, decode, encode)})


def test_what_grpc_sends_again_is_presented_anew(tmp_path: Path) -> None:
    world = Failing()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[world.handlers(False)], interceptors=[Guard(world.verifier, RULES)])
    local = grpc.LocalConnectionType.UDS
    server.add_secure_port(f"unix:{tmp_path}/socket", grpc.local_server_credentials(local))
    server.start()
    try:
        with grpc.secure_channel(f"unix:{tmp_path}/socket", grpc.local_channel_credentials(local), RETRYING) as channel:
            shown = Presenting(channel, audience="sales-db", held=Held(BOUND, OWN))
            assert shown.unary_unary("/shop.Sales/Read", encode, decode)(SALES, timeout=10) == "orchestrator"
    finally:
        server.stop(0).wait()
    assert world.done == [SALES, SALES] and [decision.code for decision in world.trail.decisions].count("replayed") == 0


def test_what_grpc_sends_again_over_a_channel_that_is_not_encrypted_is_the_same_text() -> None:
    """Its metadata is fixed when the call is made: a bearer token may come twice, a proof may not."""
    for held, code in ((mint(), None), (Held(BOUND, OWN), STATUS.UNAUTHENTICATED)):
        world = Failing()
        with serving(world) as target, grpc.insecure_channel(target, RETRYING) as channel:
            shown = Presenting(channel, audience="sales-db", held=held, insecure=True)
            call = shown.unary_unary("/shop.Sales/Read", encode, decode)
            if code is None:
                assert call(SALES, timeout=10) == "orchestrator" and world.done == [SALES, SALES]
                continue
            with pytest.raises(grpc.RpcError) as caught:
                call(SALES, timeout=10)
            assert caught.value.code() == code and world.done == [SALES]
            assert world.trail.decisions[-1].code == "replayed"


def test_a_signer_that_fails_when_a_call_is_sent_again_ends_it(tmp_path: Path) -> None:
    class Once:
        public = OWN.public
        left = 1

        def sign(self, message: bytes) -> bytes:
            if not self.left:
                raise OSError("the key service is gone")
            self.left -= 1
            return OWN.sign(message)

    world = Failing()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[world.handlers(False)], interceptors=[Guard(world.verifier, RULES)])
    local = grpc.LocalConnectionType.UDS
    server.add_secure_port(f"unix:{tmp_path}/socket", grpc.local_server_credentials(local))
    server.start()
    try:
        with grpc.secure_channel(f"unix:{tmp_path}/socket", grpc.local_channel_credentials(local), RETRYING) as channel:
            call = Presenting(channel, audience="sales-db", held=Held(BOUND, Once())).unary_unary("/shop.Sales/Read", encode, decode)
            with pytest.raises(grpc.RpcError) as caught:
                call(SALES, timeout=10)
    finally:
        server.stop(0).wait()
    assert world.done == [SALES] and "cap1" not in str(caught.value)


# --- clients ---------------------------------------------------------------------------------------------------------


def test_a_token_goes_over_an_encrypted_channel_only_unless_told_otherwise(tmp_path: Path) -> None:
    world = World()
    with serving(world) as target, grpc.insecure_channel(target) as plain:
        stub = Presenting(plain, audience="sales-db", held=mint()).unary_unary("/shop.Sales/Read", encode, decode)
        with pytest.raises(grpc.RpcError) as caught:
            stub(SALES, timeout=10)
        assert caught.value.code() == STATUS.UNAUTHENTICATED
        assert world.trail.decisions == []  # refused by gRPC itself, before anything was sent
    server = grpc.server(ThreadPoolExecutor(2), handlers=[world.handlers(False)], interceptors=[Guard(world.verifier, RULES)])
    kind = grpc.LocalConnectionType.UDS
    server.add_secure_port(f"unix:{tmp_path}/socket", grpc.local_server_credentials(kind))
    server.start()
    try:
        with grpc.secure_channel(f"unix:{tmp_path}/socket", grpc.local_channel_credentials(kind)) as channel:
            shown = Presenting(channel, audience="sales-db", held=mint())
            assert shown.unary_unary("/shop.Sales/Read", encode, decode)(SALES, timeout=10) == "orchestrator"
            assert len(list(shown.unary_stream("/shop.Sales/Watch", encode, decode)(SALES, timeout=10))) == 3
    finally:
        server.stop(0).wait()


def test_a_stub_that_was_generated_finds_its_channel() -> None:
    """Such a stub names its arguments, and says which methods are registered; it also asks for futures and calls."""
    with serving(World()) as target, grpc.insecure_channel(target) as plain:
        shown = Presenting(plain, audience="sales-db", held=mint(), insecure=True)
        stub = shown.unary_unary(
            "/shop.Sales/Read", request_serializer=encode, response_deserializer=decode, _registered_method=True
        )
        assert stub(SALES) == "orchestrator" and stub.future(SALES).result() == "orchestrator"
        answer, call = stub.with_call(SALES, metadata=[("trace", "7")])
        assert answer == "orchestrator" and call.code() == STATUS.OK


@pytest.mark.parametrize("name", ["authorization", "Authorization"])
def test_metadata_that_has_a_token_already_is_not_sent(name: str) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as plain:
        stub = Presenting(plain, audience="sales-db", held=mint(), insecure=True).unary_unary(
            "/shop.Sales/Read", encode, decode
        )
        with pytest.raises(ValueError, match="already"):
            stub(SALES, metadata=[(name, "x")])


def test_a_handler_sees_its_metadata_but_no_token(calls: Asking) -> None:
    """That `read` finds none is asserted where it runs; here, that it finds the rest."""
    seen: list[Any] = []

    class Seeing(World):
        def handlers(self, aio: bool) -> Any:
            def look(message: Any, context: Any) -> Any:
                seen.append(dict(tuple(pair) for pair in context.invocation_metadata()))
                return [context.peer()]

            async def alook(message: Any, context: Any) -> Any:
                return look(message, context)

            kind = grpc.unary_unary_rpc_method_handler(alook if aio else look, decode, encode)
            return grpc.method_handlers_generic_handler("shop.Sales", {"Read": kind})

    (peer,) = calls(Seeing(), ("Read", SALES, {**bound(), "metadata": (("trace", "7"),)}))
    assert "127.0.0.1" in peer[0] and seen[0]["trace"] == "7"
    assert "authorization" not in seen[0] and "cap1" not in str(seen)


def test_a_request_without_a_serializer_is_bytes() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as plain:
        stub = Presenting(plain, audience="sales-db", held=mint(), insecure=True).unary_unary("/shop.Sales/Read")
        with pytest.raises(TypeError, match="bytes"):
            stub(7)


def test_no_token_is_in_what_is_shown_or_logged(calls: Asking, caplog: pytest.LogCaptureFixture) -> None:
    world, held = World(), mint()
    with caplog.at_level(logging.DEBUG):
        calls(world, ("Read", SALES, {"held": held}), ("Read", HR, {"held": held}), ("Chat", [SALES, HR, HOLD], {"held": held}))
    assert "cap1" not in caplog.text
    with grpc.insecure_channel("127.0.0.1:1") as plain:
        assert repr(Presenting(plain, audience="sales-db", held=held)) == "<Presenting to sales-db>"


# --- misuse ----------------------------------------------------------------------------------------------------------

MISUSE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a rule that is none": ({"/shop.Sales/Read": "select"}, {}, "a rule is"),
    "a method without its service": ({"Read": SELECT_SALES}, {}, "named"),
    "a method without its slash": ({"shop.Sales/Read": SELECT_SALES}, {}, "named"),
    "a text for a list": ({}, {"public": "/shop.Sales/Read"}, "list"),
    "a public pattern": ({}, {"public": ["*"]}, "named"),
}


@pytest.mark.parametrize(("rules", "options", "message"), MISUSE.values(), ids=MISUSE)
@pytest.mark.parametrize("guard", [Guard, AsyncGuard])
def test_misuse_is_told_at_once(rules: Any, options: Any, message: str, guard: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        guard(World().verifier, rules, **options)


def test_an_interceptor_after_the_guard_sees_no_token_and_one_before_it_does() -> None:
    seen: dict[str, list[Any]] = {"before": [], "after": []}

    class Watching(grpc.ServerInterceptor):  # type: ignore[misc]
        def __init__(self, where: str) -> None:
            self.where = where

        def intercept_service(self, continuation: Any, details: Any) -> Any:
            seen[self.where].append([tuple(pair) for pair in details.invocation_metadata])
            assert details.method == "/shop.Sales/Read"
            return continuation(details)

    class AsyncWatching(grpc.aio.ServerInterceptor):  # type: ignore[misc]
        def __init__(self, where: str) -> None:
            self.where = where

        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            return await Watching(self.where).intercept_service(continuation, details)

    def check() -> None:
        assert "cap1" in str(seen["before"]) and "cap1" not in str(seen["after"])
        assert ("x-other", "kept") in seen["after"][-1]

    async def run() -> None:
        guard = AsyncGuard(World().verifier, RULES)
        interceptors = [AsyncWatching("before"), guard, AsyncWatching("after")]
        server = grpc.aio.server(handlers=[World().handlers(True)], interceptors=interceptors)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        said = await aask(f"127.0.0.1:{port}", "Read", SALES, held=mint(), metadata=[("x-other", "kept")])
        await server.stop(0)
        assert said == "orchestrator"

    guard = Guard(World().verifier, RULES)
    interceptors = [Watching("before"), guard, Watching("after")]
    with started(grpc.server(ThreadPoolExecutor(2), handlers=[World().handlers(False)], interceptors=interceptors)) as target:
        assert ask(target, "Read", SALES, held=mint(), metadata=[("x-other", "kept")]) == "orchestrator"
    check()
    seen["before"].clear(), seen["after"].clear()
    asyncio.run(run())
    check()


def test_a_guard_on_a_server_of_the_other_kind_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """grpc.aio looks at its interceptors when it is made, grpc at a call."""

    async def run() -> None:
        with pytest.raises(ValueError, match="ServerInterceptor"):
            grpc.aio.server(interceptors=[Guard(World().verifier, RULES)])

    asyncio.run(run())
    world = World()
    guard = AsyncGuard(world.verifier, RULES, public=HEALTH)
    with started(grpc.server(ThreadPoolExecutor(2), handlers=[world.handlers(False)], interceptors=[guard])) as target:
        for method in ("Read", "Health"):
            assert ask(target, method, SALES, held=mint())[0] == STATUS.UNKNOWN
    assert "give grpc.server a Guard" in caplog.text and world.done == []


def test_a_handler_that_is_not_asynchronous_is_refused_by_the_asynchronous_guard() -> None:
    async def run() -> None:
        world = World()
        server = grpc.aio.server(handlers=[world.handlers(False)], interceptors=[AsyncGuard(world.verifier, RULES)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        said = [await aask(f"127.0.0.1:{port}", m, SALES, held=mint()) for m in ("Read", "Watch")]
        await server.stop(0)
        assert [said[0][0], said[1][-1][0]] == [STATUS.UNIMPLEMENTED] * 2 and world.done == []

    asyncio.run(run())


def test_calls_at_the_same_time_each_have_their_own_grant() -> None:
    world = World()
    tokens = {name: mint().delegate(to=name) for name in (f"agent-{number}" for number in range(8))}
    with serving(world) as target, ThreadPoolExecutor(8) as pool:
        asked = {name: pool.submit(ask, target, "Read", SALES, held=token) for name, token in tokens.items()}
        assert {name: answer.result() for name, answer in asked.items()} == {name: name for name in tokens}
