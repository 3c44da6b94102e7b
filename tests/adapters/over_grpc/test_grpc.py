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
from captoken.adapters.grpc import AsyncGuard, Guard, Presenting
from captoken.consent import Approver, ApproverKey
from captoken.current import Held
from captoken.errors import NoToken
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
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


def test_a_call_that_wants_a_consent_says_what_to_ask_and_goes_on_once_with_it(calls: Asking) -> None:
    """A request that metadata has no room for is left out: the id of the decision is there all the same. (47.8)"""
    jane = Approver(ApproverKey.generate(), clock=clock())
    world = World()
    asks = [{"by": jane.public, "for": {"tables": ["sales"], "operations": ["delete"]}}]
    token = Issuer(KEYRING, clock=clock()).mint(
        **WHO, audience="sales-db", tables=["sales"], operations=["select", "delete"], expires_in=600, consent=asks
    )
    drop = {"table": "sales", "operation": "delete"}
    told: list[dict[str, Any]] = []

    def options(*consents: str) -> dict[str, Any]:
        return {"held": Held(token).with_consents(consents), "ended": lambda call: told.append(dict(tuple(call.trailing_metadata() or ())))}

    assert calls(world, ("Read", SALES, options()), ("Read", drop, options())) == ["orchestrator", (STATUS.PERMISSION_DENIED, "A person has to consent to this request.")]
    request = told[0]["captoken-consent-request-bin"].decode()
    assert jane.read(request).accesses[0]["operation"] == "delete" and len(told) == 1
    given = options(jane.consent(request))
    assert calls(world, ("Read", drop, given), ("Read", drop, given))[0] == "orchestrator"
    assert world.done == [SALES, drop] and [decision.code for decision in world.trail.decisions][-2:] == ["allowed", "replayed"]


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


# --- bound tokens ----------------------------------------------------------------------------------------------------

OWN = HolderKey.from_bytes(bytes(range(3, 35)))
BOUND = mint(tables=["sales"], operations=["select"], key=OWN.public)


def bound() -> dict[str, Any]:
    return {"held": Held(BOUND, OWN)}


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


def test_no_token_is_in_what_is_shown_or_logged(calls: Asking, caplog: pytest.LogCaptureFixture) -> None:
    world, held = World(), mint()
    with caplog.at_level(logging.DEBUG):
        calls(world, ("Read", SALES, {"held": held}), ("Read", HR, {"held": held}), ("Chat", [SALES, HR, HOLD], {"held": held}))
    assert "cap1" not in caplog.text
    with grpc.insecure_channel("127.0.0.1:1") as plain:
        assert repr(Presenting(plain, audience="sales-db", held=held)) == "<Presenting to sales-db>"


# --- misuse ----------------------------------------------------------------------------------------------------------


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


def test_calls_at_the_same_time_each_have_their_own_grant() -> None:
    world = World()
    tokens = {name: mint().delegate(to=name) for name in (f"agent-{number}" for number in range(8))}
    with serving(world) as target, ThreadPoolExecutor(8) as pool:
        asked = {name: pool.submit(ask, target, "Read", SALES, held=token) for name, token in tokens.items()}
        assert {name: answer.result() for name, answer in asked.items()} == {name: name for name in tokens}
