"""The overlay of an office is signed anew by whoever verifies, once, and grows old where it cannot be."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from captoken.control import Operator
from captoken.errors import StoreError
from captoken.keys import OperatorKey
from captoken.stores.sqlite import SQLiteSnapshots
from captoken.testing import FixedClock
from tests.local.test_office import ASK, minted, opened


def test_an_overlay_is_signed_anew_by_whoever_asks(folder: Path, clock: FixedClock) -> None:
    """Seldom: not at each access. A clock that was far ahead is made up for."""
    with opened(folder, clock) as office:
        token = minted(office, fresh=5)
        first = office.overlay().seq
        clock.advance(4)
        assert office.verifier.check(token, ASK) and office.overlay().seq == first
        clock.advance(1)
        assert office.verifier.check(token, ASK) and office.overlay().seq == first + 1
        clock.advance(900)
        assert office.verifier.check(token, ASK) and office.overlay().issued_at == clock.now
        clock.advance(-300)
        assert office.verifier.check(token, ASK) and office.overlay().issued_at == clock.now


def test_an_overlay_that_cannot_be_signed_anew_grows_old(
    folder: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise StoreError("the disk is full")

    with opened(folder, clock) as office:
        token = minted(office)
        with monkeypatch.context() as changed:
            changed.setattr("captoken.control.operator.Operator.renew", broken)
            clock.advance(50)
            assert office.verifier.check(token, ASK)
            clock.advance(11)
            assert office.verifier.check(token, ASK).code == "stale_overlay"
        assert "the overlay was not signed anew: StoreError" in caplog.text
        assert office.verifier.check(token, ASK)


def test_an_overlay_of_another_process_that_ran_out_is_gone_on_from(folder: Path, clock: FixedClock) -> None:
    """The commands sign for an hour; a night in which nobody asked denies nobody in the morning."""
    with opened(folder, clock) as office:
        token = minted(office, expires_in=10**6)
        key = OperatorKey.load(folder / "operator.json")
        with closing(SQLiteSnapshots(folder / "overlay.db")) as store:
            Operator(key, store, by="ops", clock=clock).revoke(agent="other", why="lost")
        clock.advance(2)
        assert office.overlay().expires_at == clock.now - 2 + 3600
        clock.advance(12 * 3600)
        assert office.verifier.check(token, ASK) and [entry.by for entry in office.operator.entries()] == ["ops"]


def test_two_that_find_it_old_sign_it_once(folder: Path, clock: FixedClock) -> None:
    with opened(folder, clock) as office:
        before = office.operator.last
        clock.advance(30)
        lock, known, first = office.overlay._lock, office.overlay._known, [True]

        def meanwhile() -> Any:
            """As another thread does it, between the look and the lock."""
            found = known()
            if first.pop() if first else False:
                office.overlay.operator.renew()
            return found

        office.overlay._known = meanwhile  # type: ignore[method-assign]
        assert office.overlay().issued_at == clock.now and office.operator.last == before + 1
        assert lock is office.overlay._lock
