"""The token that this code holds and the grant of the request at hand: where they reach, and where they must not."""

import _thread
import asyncio
import contextvars
import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager, contextmanager
from datetime import timedelta
from itertools import product
from typing import Any

import anyio
import pytest

from captoken import (
    Access,
    AsyncGrant,
    AsyncVerifier,
    Denied,
    Grant,
    Issuer,
    Token,
    TokenFormatError,
    Verifier,
    WideningError,
    current,
)
from captoken.current import Held
from captoken.errors import DelegationError, NoToken
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryReplayStore
from captoken.testing import hold as hold_until
from tests.fixtures import KEYRING, SALES, WHO, clock, data, mint, verifier
from tests.library_code import is_library_code

MINE, CHILD = HolderKey.generate(), HolderKey.generate()
PROOF = ".cap1p_"  # what a proof begins with, at the end of a text


def holder():
    """Who holds what is current, or None."""
    try:
        return current.holding().token.unverified.holder
    except NoToken:
        return None


def granted():
    try:
        return current.grant().actor.name
    except NoToken:
        return None


def test_outside_of_a_block_nothing_is_held_and_nothing_granted():
    for ask in (current.holding, current.grant, current.environment, lambda: current.delegate(to="a").__enter__()):
        with pytest.raises(NoToken):
            ask()


def test_a_block_holds_what_it_was_given_and_ends_with_it():
    token = mint()
    with current.use(token) as held:
        assert held.token is token and current.holding() is held
        with current.delegate(to="sales-agent", tables=["sales"]) as child:
            assert holder() == "sales-agent" and current.holding() is child
            with current.nothing():
                assert holder() is None
            assert holder() == "sales-agent"
        assert holder() == "orchestrator"
    assert holder() is None


def test_a_block_is_entered_once_at_a_time():
    """Else the inner end would forget what the outer one has to restore."""
    block = current.use(mint())
    with block, pytest.raises(RuntimeError, match="already entered"), block:
        raise AssertionError
    assert holder() is None
    with block:
        assert holder() == "orchestrator"
    assert holder() is None


@pytest.mark.parametrize("depth", [0, 1])
def test_a_group_of_denials_leaves_a_grant_as_one(depth):
    grant = verifier().authenticate(mint().serialize())
    denied = Denied(grant.check(Access(table="hr", operation="select")))

    def raising(*errors):
        with current.serving(grant):
            error = ExceptionGroup("tasks", errors)
            raise ExceptionGroup("more", [error, denied]) if depth else error

    with pytest.raises(Denied) as caught:
        raising(denied, denied)
    assert caught.value is denied and granted() is None
    with pytest.raises(ExceptionGroup):
        raising(denied, ValueError())
    assert granted() is None


def test_an_exception_ends_a_block_too():
    with pytest.raises(ZeroDivisionError), current.use(mint()), current.delegate(to="a"):
        1 / 0  # noqa: B018
    assert holder() is None


def test_what_is_passed_goes_before_what_is_current():
    other = mint().delegate(to="other")
    with current.use(mint()):
        assert current.holding(other).token is other
        held = Held(other)
        assert current.holding(held) is held


def test_text_will_do_for_a_token_and_text_that_is_none_is_refused():
    with current.use(mint().serialize()):
        assert holder() == "orchestrator"
    with pytest.raises(TokenFormatError) as caught, current.use(mint().serialize() + "!"):
        pass
    frames = []
    trace = caught.value.__traceback__
    while trace is not None:
        if is_library_code(trace.tb_frame.f_code):
            frames += [value for value in trace.tb_frame.f_locals.values() if isinstance(value, str) and "cap1_" in value]
        trace = trace.tb_next
    assert [frame for frame in frames if frame.endswith("!")] == []


def test_handing_on_may_not_widen():
    with current.use(mint()), pytest.raises(WideningError), current.delegate(to="a", tables=["hr"]):
        pass
    assert holder() is None


def test_a_hand_over_of_a_bound_token_goes_to_the_key_of_the_child():
    bound = mint().delegate(to="orchestrator-2", key=MINE.public)
    server = verifier(audience="sales-db", replays=MemoryReplayStore(floor=0))
    with current.use(bound, MINE):
        with pytest.raises(DelegationError), current.delegate(to="sales-agent"):
            pass
        with current.delegate(to="sales-agent", key=CHILD) as child:
            shown = child.present(audience="sales-db", request=data("sales"))
            grant = server.authorize(shown, data("sales"))
            assert str(grant.actor.basis) == "proven"
    with current.use(bound), pytest.raises(NoToken, match="the key is not in use here"):
        current.holding().present(audience="sales-db")
    assert server.check(bound.present(audience="sales-db"), data("sales")).code == "proof_missing"


def test_a_key_given_to_the_child_of_a_bearer_token_binds_it():
    with current.use(mint(), MINE), current.delegate(to="sales-agent", key=CHILD) as child:
        assert child.token.unverified.key == CHILD.public
        shown = Held(mint(), MINE).present(audience="sales-db", request=data("sales"))
        assert PROOF not in shown  # bound to nothing: no proof is due
        assert PROOF in child.present(audience="sales-db")


def test_what_is_presented_can_be_narrowed_to_the_call_at_hand():
    shown = Held(mint()).present(audience="sales-db", tables=["sales"], expires_in=5)
    server = verifier(audience="sales-db")
    assert server.check(shown, data("sales")) and server.check(shown, data("market.eu")).code == "table"


def test_a_task_takes_what_was_current_when_it_was_made_and_two_do_not_mix():
    async def work(name):
        with current.delegate(to=name):
            await asyncio.sleep(0)
            mine = asyncio.create_task(later())
            await asyncio.sleep(0)
            return holder(), await asyncio.to_thread(holder), await mine

    async def later():
        await asyncio.sleep(0)
        return holder()

    async def main():
        with current.use(mint()):
            agents = [f"agent-{at}" for at in range(20)]
            assert await asyncio.gather(*map(work, agents)) == [(name,) * 3 for name in agents]
            assert holder() == "orchestrator"

    asyncio.run(main())


def test_a_thread_has_nothing_unless_it_is_carried_there():
    seen = []
    with current.use(mint()), current.serving(verifier().authenticate(mint())), ThreadPoolExecutor(1) as pool:
        assert pool.submit(holder).result() is None
        assert pool.submit(current.carry(holder)).result() == "orchestrator"
        assert pool.submit(current.carry(granted)).result() == "orchestrator"
        assert pool.submit(holder).result() is None  # and nothing of it stays there
        thread = threading.Thread(target=lambda: seen.append(holder()))
        thread.start()
        thread.join()
        carried = current.carry(lambda: (holder(), granted()))
    assert seen == [None] and carried() == ("orchestrator", "orchestrator") and holder() is None


def test_a_carried_function_keeps_its_name_and_arguments():
    def named(one, *, two):
        return one, two

    carried = current.carry(named)
    assert carried.__name__ == "named" and carried(1, two=2) == (1, 2)


CHILD_PROCESS = """
import os, subprocess, sys
from captoken import current
with current.from_environment() as held:
    print(held.token.unverified.holder, "CAPTOKEN" in os.environ)
    print(subprocess.run([sys.executable, "-c", "import os; print('CAPTOKEN' in os.environ)"], capture_output=True, text=True).stdout)
"""


def test_a_child_process_gets_what_is_held_and_its_children_do_not():
    """The specification's rule 40.7."""
    with current.use(mint()), current.delegate(to="worker", tables=["sales"]):
        env = {**os.environ, **current.environment()}
    done = subprocess.run([sys.executable, "-c", CHILD_PROCESS], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["worker", "False", "False"], done.stderr


def test_a_process_without_the_variable_or_with_nonsense_in_it_holds_nothing():
    with pytest.raises(NoToken), current.from_environment(environ={}):
        pass
    environ = {"CAPTOKEN": "cap1_nonsense"}
    with pytest.raises(TokenFormatError), current.from_environment(environ=environ):
        pass
    assert environ == {}


def test_a_bound_token_comes_to_its_key_in_the_child_process():
    environ = {"CAPTOKEN": mint().attenuate(key=MINE.public).serialize()}
    with current.from_environment(MINE, environ) as held:
        assert PROOF in held.present(audience="sales-db")


def test_a_grant_is_there_while_a_request_is_answered_and_is_no_token():
    grant = verifier().authenticate(mint())
    with current.serving(grant):
        assert current.grant() is grant and holder() is None
        with current.nothing():
            assert granted() is None
    for other in (mint(), verifier(), None):
        with pytest.raises(TypeError), current.serving(other):
            pass


def test_a_grant_of_either_face_is_there_as_it_was_served_and_as_it_is_asked_for():
    hers = data("sales")

    async def asking():
        served = await AsyncVerifier(KEYRING, clock=clock()).authenticate(mint())
        with current.serving(served):
            assert current.grant() is current.grant(AsyncGrant) is served
            assert await current.grant().check(hers) and not await current.grant().check(data("hr"))
            assert type(current.grant(Grant)) is Grant
            assert current.grant(Grant).check(hers) and not current.grant(Grant).check(data("hr"))
        with current.serving(served.blocking) as plain:
            assert current.grant() is current.grant(Grant) is plain
            assert await current.grant(AsyncGrant).check(hers) and not await current.grant(AsyncGrant).check(data("hr"))

    asyncio.run(asking())


def test_text_with_a_proof_is_for_one_sending_and_is_not_held():
    bound = Held(mint().attenuate(key=MINE.public), MINE)
    shown = bound.present(audience="sales-db")
    assert PROOF in shown
    with pytest.raises(TokenFormatError, match="a text with a proof is good for one request to one server: it cannot"), current.use(shown, MINE):
        pass
    environ = {"CAPTOKEN": shown}
    with pytest.raises(TokenFormatError), current.from_environment(MINE, environ):
        pass
    with current.use(bound.token.serialize(), MINE) as held:  # the token itself, which presents anew each time
        assert held.present(audience="sales-db") != held.present(audience="sales-db")


def test_nothing_of_it_is_shown_pickled_or_changed():
    token = mint().attenuate(key=MINE.public)
    held, text = Held(token, MINE), token.serialize()
    said = repr(held) + str(held) + f"{held}"
    assert text[6:60] not in said and text[-60:] not in said
    assert copy.deepcopy(held) is held
    with pytest.raises(TypeError):
        pickle.dumps(held)
    with pytest.raises(AttributeError):
        held.token = mint()
    assert "with its key" in repr(held) and "with its key" not in repr(Held(mint()))


def test_a_clock_that_was_given_to_the_token_dates_its_proofs():
    token = Token.parse(mint().attenuate(key=MINE.public).serialize(), clock=clock())
    shown = Held(token, MINE).present(audience="sales-db", request=data("sales"))
    server = verifier(audience="sales-db", replays=MemoryReplayStore(floor=0))
    assert server.check(shown, data("sales"))


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    "header",
    [None, "", TRACE, f"00-{TRACE}-00f067aa0ba902b7", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
     f"00-{TRACE}-00f067aa0ba902b7-01\n", 5],
)  # fmt: skip
def test_a_header_that_names_no_trace_begins_one(header):
    with current.traced(header) as named:
        assert current.trace() == named != TRACE and len(named) == 32 and set(named) <= set("0123456789abcdef")
    assert current.trace() is None and current.traceparent() is None


def test_a_trace_goes_on_in_the_calls_that_belong_to_it_and_into_a_thread():
    with current.traced(f"00-{TRACE}-00f067aa0ba902b7-01"), ThreadPoolExecutor(1) as pool:
        assert current.trace() == TRACE and pool.submit(current.carry(current.trace)).result() == TRACE
        onward = current.traceparent()
    with current.traced(onward):
        assert current.trace() == TRACE and current.traceparent() != onward


def test_what_is_no_token_is_not_held():
    with pytest.raises(TypeError):
        Held(mint().serialize())


def test_the_world_is_what_it_says():
    assert verifier().check(mint(), data("sales")) and not verifier().check(mint(), data("hr"))


def test_a_block_that_is_left_twice_was_left_once():
    block = current.use(mint())
    block.__enter__()
    block.__exit__(None, None, None)
    block.__exit__(None, None, None)
    assert holder() is None


# --- what is presented again -----------------------------------------------------------------------------------------


def narrowings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each text that is made anew."""
    made: list[int] = []
    show = Token.presentation

    def counted(self: Token, **asked: Any) -> tuple[str, int]:
        made.append(1)
        return show(self, **asked)

    monkeypatch.setattr(Token, "presentation", counted)
    return made


def test_a_text_for_a_server_is_kept_for_half_of_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """The specification's rule 30.11."""
    moving = clock()
    made = narrowings(monkeypatch)
    held = current.Held(Issuer(KEYRING, clock=moving).mint(**WHO, **SALES, expires_in=3600))
    first = held.present(audience="db")
    moving.advance(29)
    assert held.present(audience="db") == first and len(made) == 1
    moving.advance(1)
    assert held.present(audience="db") != first and len(made) == 2
    moving.advance(-31)
    assert held.present(audience="db") and len(made) == 3, "a clock that goes back makes nothing older live longer"


def test_a_text_is_kept_for_what_was_asked_and_for_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    made = narrowings(monkeypatch)
    held, other = current.Held(mint()), current.Held(mint())
    ways: list[dict[str, Any]] = [
        {}, {"tables": ["sales"]}, {"tables": ["sales", "market.eu"]}, {"expires_in": 30}, {"expires_in": timedelta(seconds=30)},
        {"operations": ("select",)}, {"where": {"a": {"in": [1]}}}, {"where": {"a": {"in": [True]}}},
    ]  # fmt: skip
    for each in (held, other):
        for audience in ("db", "api"):
            for way in ways:
                texts = {each.present(audience=audience, **way) for _ in range(3)}
                assert len(texts) == 1
    assert len(made) == 2 * 2 * len(ways)
    assert len(held._shown) == 2 * len(ways)


def test_what_counts_is_made_anew_each_time() -> None:
    """Two texts with an allowance each are two allowances."""
    held = current.Held(mint())
    assert len({held.present(audience="db", uses=1) for _ in range(3)}) == 3
    assert len({held.present(audience="db", budget={"eur": 1}) for _ in range(3)}) == 3


class Changing(dict):  # type: ignore[type-arg]
    """A mapping of somebody's own."""


def test_what_is_no_plain_value_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = narrowings(monkeypatch)
    held = current.Held(mint())
    for _ in range(2):
        held.present(audience="db", where=Changing({"a": {"in": [1]}}))
        held.present(audience="db", tables={"sales"})  # type: ignore[arg-type]
    assert len(made) == 4 and not held._shown
    for number in range(200):
        held.present(audience=f"db-{number}")
    assert len(held._shown) <= current.SHOWN


def test_each_sending_has_a_proof_of_its_own() -> None:
    """The text before it is kept; another key is refused as before, and nothing shows what is kept."""
    key = HolderKey.generate()
    token = mint(**SALES, key=key.public)
    held = current.Held(token, key)
    one, two = (held.present(audience="db", request=data("sales")) for _ in range(2))
    assert one != two and one.rpartition(".")[0] == two.rpartition(".")[0]
    server = Verifier(KEYRING, "db", clock=clock(), replays=MemoryReplayStore(floor=0))
    assert [server.check(text, data("sales")).code for text in (one, two, one)] == ["allowed", "allowed", "replayed"]
    with pytest.raises(DelegationError, match="not the key"):
        current.Held(token, HolderKey.generate()).present(audience="db")
    assert "cap1_" not in repr(held) and "cap1_" not in repr(held._shown)


# --- generators --------------------------------------------------------------------------------------------------------

TOKENS = {name: mint().delegate(to=name) for name in "abcd"}


@contextmanager
def session(name: str = "a") -> Iterator[None]:
    """Somebody's own manager, as for `with`."""
    with current.use(TOKENS[name]):
        yield


@asynccontextmanager
async def asession() -> Any:
    await asyncio.sleep(0)
    with session():
        await asyncio.sleep(0)
        yield


class Inside:
    """Somebody's own manager that is a class: the frames do not show who has it open."""

    def __init__(self, name: str) -> None:
        self.block = current.use(TOKENS[name])

    def __enter__(self) -> None:
        self.block.__enter__()

    def __exit__(self, *raised: object) -> None:
        self.block.__exit__(*raised)


def by_with():
    with current.use(TOKENS["a"]):
        yield holder()


def by_hand():
    current.use(TOKENS["a"]).__enter__()
    yield holder()


def by_serving():
    with current.serving(verifier().authenticate(mint())):
        yield granted()


def by_nothing():
    with current.nothing():
        yield


def by_trace():
    with current.traced():
        yield


def by_handing_on():
    with current.delegate(to="a"):
        yield


def by_environment():
    with current.from_environment(environ=dict(CAPTOKEN=mint().serialize())):
        yield


def by_a_manager():
    with session():
        yield holder()


def by_a_stack():
    with ExitStack() as stack:
        stack.enter_context(session())
        yield holder()


def by_another_generator():
    yield from by_with()


def by_a_dependency():
    """How a yield fixture of pytest, or anybody who asks by `next`, drives what could be a manager."""
    yield next(session.__wrapped__())


async def aby_with():
    with current.use(TOKENS["a"]):
        yield holder()


async def aby_a_manager():
    async with asession():
        yield holder()


async def aby_a_stack():
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asession())
        yield holder()


LEAKS = [by_with, by_hand, by_serving, by_nothing, by_trace, by_handing_on, by_environment, by_a_manager, by_a_stack,
         by_another_generator, by_a_dependency, aby_with, aby_a_manager, aby_a_stack]  # fmt: skip


@pytest.mark.parametrize("rows", LEAKS, ids=lambda rows: rows.__name__)
def test_a_generator_opens_no_block_however_it_is_wrapped(rows):
    """Its consumer would hold the token between the items, and two of them would hold each other's."""
    with current.use(mint()), pytest.raises(RuntimeError, match="in a generator"):
        made = rows()
        asyncio.run(anext(made)) if isinstance(made, AsyncGenerator) else next(made)
    assert holder() is granted() is current.trace() is None


async def acalled(function):
    async with asession():
        return await asyncio.sleep(0, function())


def decorated_in_a_generator():
    @session()
    def inside():
        return holder()

    yield inside()
    assert holder() is None


def carried_in_a_generator():
    carried = carry_of(session())
    yield carried()
    assert holder() is None


def a_block_on_the_way_out():
    seen = []

    @contextmanager
    def closing():
        yield
        with session():
            seen.append(holder())

    def rows():
        with closing():
            yield

    assert list(rows()) == [None]
    return seen[0]


def with_all(*managers):
    with ExitStack() as stack:
        for each in managers:
            stack.enter_context(each)
        return holder()


def in_a_thread_of_its_own():
    seen = []

    class Worker(threading.Thread):
        def run(self):
            with session():
                seen.append(holder())

    worker = Worker()
    worker.start()
    worker.join()
    return seen[0]


def in_a_pool(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


PERMITTED = {
    "a function": lambda: with_all(current.use(TOKENS["a"])),
    "a stack of managers": lambda: with_all(session(), session()),
    "a coroutine": lambda: asyncio.run(acalled(holder)),
    "a generator whose function has the block": lambda: next(with_all(session()) for _ in "1"),
    "a decorator": lambda: next(decorated_in_a_generator()),
    "a carried function": lambda: next(carried_in_a_generator()),
    "a manager's way out": a_block_on_the_way_out,
    "a thread": in_a_thread_of_its_own,
    "a pool": lambda: in_a_pool(lambda: with_all(session())),
    "a carried function in a pool": lambda: in_a_pool(carry_of(session())),
    "to_thread": lambda: asyncio.run(asyncio.to_thread(with_all, session())),
}


def carry_of(block):
    with block:
        return current.carry(holder)


@pytest.mark.parametrize("way", PERMITTED)
def test_what_ends_its_block_before_it_goes_on_opens_one(way):
    assert PERMITTED[way]() == "a" and holder() is None


@pytest.mark.parametrize("enter", [asyncio.to_thread, anyio.to_thread.run_sync])
@pytest.mark.parametrize("block", [session, lambda: current.use(TOKENS["a"])])
def test_a_thread_that_would_only_enter_a_block_and_leave_it_open_is_refused(enter, block):
    """So FastAPI runs a dependency with `yield` that is no coroutine: the endpoint would hold nothing."""

    async def main():
        await enter(block().__enter__)

    with pytest.raises(RuntimeError, match="worker thread"):
        asyncio.run(main())


def test_so_is_one_with_nothing_below_it(monkeypatch):
    raised, done = [], threading.Event()
    monkeypatch.setattr(sys, "unraisablehook", lambda seen: (raised.append(seen.exc_value), done.set()))
    _thread.start_new_thread(session().__enter__, ())
    assert done.wait(10) and "worker thread" in str(raised[0])
    with pytest.raises(RuntimeError, match="worker thread"):
        current._refuse_generator(None)


# How often each of two or three is asked for an item, in every order.
ORDERS = [order for size in (4, 6) for order in product("abc"[: size // 2], repeat=size)]


def rows(name, seen):
    """A stream: each item says who holds at that step, its end and its errors as well."""
    try:
        for _ in range(2):
            yield holder()
    finally:
        seen.append((name, holder()))


@pytest.mark.parametrize("around", [None, "d"])
def test_each_stream_has_its_own_token_in_whatever_order_they_are_asked(around):
    for order in ORDERS:
        seen: list[tuple[str, Any]] = []
        with ExitStack() as stack:
            if around:
                stack.enter_context(current.use(TOKENS[around]))
            streams = {name: current.during(TOKENS[name], rows(name, seen)) for name in set(order)}
            for name in order:
                assert next(streams[name], name) == name
                assert holder() == around
            for stream in streams.values():
                stream.close()
            assert sorted(seen) == [(name, name) for name in sorted(set(order))]
            assert holder() == around
        assert holder() is None


async def arows(name, seen):
    try:
        for _ in range(2):
            await asyncio.sleep(0)
            yield holder()
    finally:
        await asyncio.sleep(0)
        seen.append((name, holder()))


def test_the_same_of_streams_that_are_awaited():
    async def main():
        for order in ORDERS[: 2**4 + 200]:
            seen: list[tuple[str, Any]] = []
            streams = {name: current.during(TOKENS[name], arows(name, seen)) for name in set(order)}
            for name in order:
                assert await anext(streams[name], name) == name and holder() is None
            for stream in streams.values():
                await stream.aclose()
            assert sorted(seen) == [(name, name) for name in sorted(set(order))]

    asyncio.run(main())


def test_a_stream_takes_what_is_sent_and_thrown_and_gives_what_it_returns():
    def talking():
        heard = yield holder()
        try:
            yield heard
        except KeyError:
            yield holder(), "caught"
        return holder()

    def asking():
        return (yield from current.during(TOKENS["a"], talking()))

    stream = asking()
    assert (next(stream), stream.send("said"), stream.throw(KeyError())) == ("a", "said", ("a", "caught"))
    with pytest.raises(StopIteration) as caught:
        next(stream)
    assert caught.value.value == "a" and holder() is None

    async def atalking():
        try:
            yield holder()
        except KeyError:
            yield holder(), "caught"

    async def main():
        async with aclosing(current.during(TOKENS["a"].serialize(), atalking())) as stream:
            assert (await anext(stream), await stream.athrow(KeyError())) == ("a", ("a", "caught"))

    asyncio.run(main())


def test_a_stream_that_is_dropped_ends_with_its_own_token():
    seen: list[tuple[str, Any]] = []
    stream = current.during(TOKENS["a"], rows("a", seen))
    with current.use(TOKENS["b"]):
        assert next(stream) == "a"
        del stream
        gc.collect()
    assert seen == [("a", "a")]


def test_a_stream_is_a_generator_and_its_token_is_read_at_once():
    for other in ([1], iter("ab"), acalled, holder):
        with pytest.raises(TypeError, match="expected a generator"):
            current.during(mint(), other)
        with pytest.raises(TypeError, match="expected a generator"):
            current.serving_during(verifier().authenticate(mint()), other)
    with pytest.raises(TokenFormatError):
        current.during("cap1_nonsense", by_with())
    with pytest.raises(TypeError, match="expected a Grant"):
        current.serving_during(mint(), by_with())


# The second line: blocks whose ends come in any order, and in any of two contexts.


def orders(names: str) -> Iterator[list[str]]:
    """Each order of entering and leaving blocks in which each is entered before it is left."""

    def more(done: list[str]) -> Iterator[list[str]]:
        left = [name for name in names if done.count(name) < 2]
        if not left:
            yield done
        for name in left:
            yield from more([*done, name])

    return more([])


def test_whatever_order_blocks_end_in_none_is_current_after_its_end():
    found = list(orders("abcd"))
    assert len(found) == 2520
    for order in found:
        blocks = {name: Inside(name) for name in "abcd"}
        open_: list[str] = []
        for name in order:
            if name in open_:
                open_.remove(name)
                blocks[name].__exit__(None, None, None)
            else:
                open_.append(name)
                blocks[name].__enter__()
            assert holder() == (open_[-1] if open_ else None)
        assert current._held.get() is None, "and nothing of them is kept"


def test_nor_is_it_where_contexts_differ():
    """A block that is left in another context than it was entered in is current in neither."""
    for order in orders("abc"):
        for places in product((0, 1), repeat=len(order)):
            contexts = [contextvars.copy_context(), contextvars.copy_context()]
            blocks = {name: Inside(name) for name in "abc"}
            chains: list[list[str]] = [[], []]
            entered: set[str] = set()
            for name, place in zip(order, places, strict=True):
                if name not in entered:
                    entered.add(name)
                    contexts[place].run(blocks[name].__enter__)
                    chains[place].append(name)
                else:
                    contexts[place].run(blocks[name].__exit__, None, None, None)
                    for chain in chains:
                        if name in chain:
                            chain.remove(name)
                for at in (0, 1):
                    assert contexts[at].run(holder) == (chains[at][-1] if chains[at] else None)


def test_a_task_that_outlives_a_block_keeps_what_it_had_unless_that_ended_out_of_turn():
    async def later():
        await asyncio.sleep(0)
        return holder()

    async def main(order):
        blocks = {name: Inside(name) for name in "ab"}
        for block in blocks.values():
            block.__enter__()
        task = asyncio.create_task(later())
        for name in order:
            blocks[name].__exit__(None, None, None)
        return await task

    assert asyncio.run(main("ba")) == "b"
    assert asyncio.run(main("ab")) == "b"


@pytest.fixture
def hold(request: pytest.FixtureRequest) -> Any:
    """As docs/testing.md has it."""
    return lambda token: hold_until(token, until=request.addfinalizer)


@pytest.fixture
def held_by_a(hold: Any) -> Iterator[Held]:
    yield hold(TOKENS["a"])


def test_a_fixture_holds_a_token_until_the_end_of_its_test(held_by_a, hold):
    assert holder() == "a" and current.holding() is held_by_a
    assert hold(TOKENS["b"]) is current.holding() and holder() == "b"


def test_and_no_longer():
    assert holder() is None
    ends: list[Any] = []
    hold_until(TOKENS["a"], until=ends.append)
    hold_until(mint().attenuate(key=MINE.public), MINE, until=ends.append)
    assert current.holding().signer is MINE
    ends[0]()
    assert current.holding().signer is MINE
    ends[1]()
    assert holder() is None
