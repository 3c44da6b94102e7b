"""What is asked in a block is seen, and each assert fails where it should."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest

from captoken import Access, AsyncVerifier, Denied, Token, Verifier
from captoken.testing import assert_allowed, assert_denied, watched
from tests.fixtures import KEYRING, data, mint, verifier
from tests.testing.test_narrower import HR

ASKED: dict[str, Callable[[Token, Access], object]] = {
    "check": lambda token, access: verifier().check(token, access),
    "authorize, which raises": lambda token, access: verifier().authorize(token, access),
    "a grant": lambda token, access: verifier().authenticate(token).check(access),
    "a grant, several at once": lambda token, access: verifier().authenticate(token).check_all([data("sales"), access]),
    "an overlay is asked first": lambda token, access: verifier(overlay=lambda: None, allow_stale_overlay=True).check(token, access),
    "a trail": lambda token, access: verifier(audit=Recorder()).check(token, access),
    "asyncio": lambda token, access: asyncio.run(in_a_loop(token, access)),
    "asyncio, with a trail": lambda token, access: asyncio.run(in_a_loop(token, access, Recorder())),
    "a thread": lambda token, access: in_a_thread(lambda: verifier().check(token, access)),
}


class Recorder:
    def record(self, decision: object) -> None: ...

    def record_all(self, decisions: object) -> None: ...


async def in_a_loop(token: Token, access: Access, trail: Recorder | None = None) -> None:
    await AsyncVerifier(KEYRING, clock=verifier().clock, audit=trail).check(token, access)


def in_a_thread(call: Callable[[], object]) -> None:
    thread = Thread(target=call)
    thread.start()
    thread.join()


@pytest.mark.parametrize("asks", ASKED.values(), ids=ASKED)
def test_what_is_asked_in_a_block_is_seen(asks: Callable[[Token, Access], object]) -> None:
    """Whoever asks, whichever way; what is expected passes, and its opposite fails."""
    token = mint()
    with assert_denied(code="table") as seen:
        asks(token, HR)
    assert [one.code for one in seen.denied] == ["table"]
    with pytest.raises(AssertionError, match=r"expected allowed, and came table; decided here:\n(.|\n)*denied table: table hr is not among"), assert_allowed():
        asks(token, HR)
    with assert_allowed() as seen:
        asks(token, data("sales"))
    assert {one.code for one in seen.asked} == {"allowed"}
    with pytest.raises(AssertionError, match="expected table, and all was allowed"), assert_denied(code="table"):
        asks(token, data("sales"))
    with pytest.raises(AssertionError, match="expected column, and came table"), assert_denied(code="column"):
        asks(token, HR)


@pytest.mark.parametrize("expected", [lambda: assert_allowed(), lambda: assert_denied(code="table")], ids=["allowed", "denied"])
def test_a_block_in_which_nobody_is_asked_fails(expected: Callable[[], Any]) -> None:
    """So a route without a guard fails the test that was written for its guard."""
    token = mint()
    asks_nothing: dict[str, Callable[[], object]] = {
        "no verifier of this process was asked": lambda: None,
        "and no access was asked about": lambda: verifier().authenticate(token),
    }
    for told, call in asks_nothing.items():
        with pytest.raises(AssertionError, match=told), expected():
            call()
    for call in (lambda: verifier().explain(token, HR), lambda: verifier().authenticate(token).recheck()):
        with pytest.raises(AssertionError, match=r"was asked"), expected():
            call()


def test_a_denial_that_is_raised_ends_the_block_and_all_else_passes_through() -> None:
    token = mint()
    with pytest.raises(KeyError), assert_denied(code="table"):
        verifier().check(token, HR)
        raise KeyError
    with pytest.raises(KeyError), assert_allowed():
        raise KeyError
    with pytest.raises(AssertionError, match="came table") as told, assert_allowed():
        verifier().authorize(token, HR)
    assert isinstance(told.value.__cause__, Denied)
    elsewhere = Denied(verifier().check(token, HR))
    with assert_denied(code="table"):
        raise elsewhere


def test_a_decision_is_judged_by_itself_too() -> None:
    denied, allowed = verifier().check(mint(), HR), verifier().check(mint(), data("sales"))
    assert_denied(denied, code="table")
    assert_denied(Denied(denied), code="table")
    assert_allowed(allowed)
    with pytest.raises(AssertionError, match="came table"):
        assert_allowed(denied)
    with pytest.raises(AssertionError, match="all was allowed"):
        assert_denied(allowed, code="table")
    with pytest.raises(TypeError, match="a decision of a verifier is expected, not bool"):
        assert_allowed(True)  # type: ignore[arg-type]


def test_an_assert_that_asserts_nothing_says_so() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert_denied(code="table")
        gc.collect()
    assert [str(one.message) for one in told] == ["an assert without `with`, or a decision, asserts nothing"]


def test_blocks_nest_and_leave_nothing_behind() -> None:
    """Each sees what is decided in it; afterwards a verifier is as it was."""
    token = mint()
    with watched() as outer:
        verifier().check(token, HR)
        with watched() as inner:
            verifier().check(token, data("sales"))
    verifier().check(token, HR)
    assert [one.code for one in outer.decisions] == ["table", "allowed"] and [one.code for one in inner.decisions] == ["allowed"]
    assert inner.told().strip() == inner.decisions[0].line()
    assert "_judge_and_commit" not in vars(Verifier) and "_record_denial" not in vars(AsyncVerifier)
