"""The token that this code holds and the grant of the request at hand: where they reach, and where they must not."""

import asyncio
import copy
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

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
from tests.ours import ours
from tests.world import KEYRING, SALES, WHO, clock, data, mint, verifier

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
    with block, pytest.raises(RuntimeError, match="entered already"), block:
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
        if ours(trace.tb_frame.f_code):
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
    with current.use(bound), pytest.raises(NoToken, match="the key is not held here"):
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
    with pytest.raises(TokenFormatError, match="not to be held"), current.use(shown, MINE):
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
    assert verifier().check(mint(), data("sales")) and KEYRING and SALES  # the positive control of this file


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
    show = Token.show

    def counted(self: Token, **asked: Any) -> tuple[str, int]:
        made.append(1)
        return show(self, **asked)

    monkeypatch.setattr(Token, "show", counted)
    return made


def test_a_text_for_a_server_is_kept_for_half_of_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
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
