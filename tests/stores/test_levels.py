"""Threat levels reach verifiers: what `captoken react level` sets, tokens can ask about, and no level is never a low one."""

from __future__ import annotations

from pathlib import Path

import pytest

from captoken import Access, Issuer, Verifier
from captoken.cli.reactions.watching import set_level
from captoken.errors import StoreError
from captoken.stores.levels import ThreatLevels
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, clock

READ = Access(table="sales", operation="select")


def test_a_level_that_is_set_closes_what_asks_for_a_lower_one_and_opens_it_again(tmp_path: Path) -> None:
    path, ticks = tmp_path / "react.db", FixedClock(100)
    set_level(str(path), "", "low", "quiet", 1)
    server = Verifier(KEYRING, "desk", context=ThreatLevels(path, clock=ticks), clock=clock())

    def code(task: str, **given: object) -> str:
        facts = {"subject": "ann", "agent": "reader", "task": task, "audience": "desk", "tables": ["sales"], "operations": ["select"], **given}
        return server.check(Issuer(KEYRING, clock=clock()).mint(**facts), READ).code  # type: ignore[arg-type]

    careful = {"where": {"threat": {"in": ["low"]}}}
    assert code("q3/a", **careful) == code("q4", **careful) == "allowed"
    set_level(str(path), "q3", "high", "a leak", 2)
    assert code("q3/a", **careful) == "allowed", "it looks once a second"
    ticks.advance(1)
    assert code("q3/a", **careful) == "attribute" and code("q3/a") == code("q4", **careful) == "allowed"
    set_level(str(path), "q3/a", "low", "looked into", 3)
    set_level(str(path), "", "medium", "more", 3)
    ticks.advance(1)
    assert code("q3/a", **careful) == "allowed" and code("q4", **careful) == "attribute"


@pytest.mark.parametrize("harm", ["gone", "another", "newer", "nonsense"])
def test_a_file_that_says_nothing_is_not_a_quiet_day(tmp_path: Path, harm: str) -> None:
    import sqlite3

    path = tmp_path / "react.db"
    set_level(str(path), "", "low", "quiet", 1)
    if harm == "gone":
        path.unlink()
    elif harm == "another":
        path.write_bytes(b"no database, and long enough to be looked at as one" * 30)
    else:
        with sqlite3.connect(path) as db:
            db.execute("pragma user_version = 2" if harm == "newer" else "update levels set level = 'calm'")
        db.close()
    with pytest.raises(StoreError, match="threat levels in"):
        ThreatLevels(path).of("q3")
    server = Verifier(KEYRING, "desk", context=ThreatLevels(path), clock=clock())
    token = Issuer(KEYRING, clock=clock()).mint(subject="ann", agent="r", task="t", audience="desk", tables=["sales"], operations=["select"])
    assert server.check(token, READ).code == "attribute"
    assert repr(ThreatLevels(path)).startswith("<ThreatLevels ")
