"""The issuer: safe by default, and told of mistakes at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from captoken import Issuer, Keyring
from captoken.caveats import Caveat, Vocabulary
from captoken.errors import LimitError
from captoken.testing import FixedClock, fixed_random
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, code, data, mint, verifier


def test_a_token_without_an_expiry_lives_for_fifteen_minutes() -> None:
    assert mint().unverified.expires_at == NOW + 900
    assert code(mint(), data("sales"), clock=FixedClock(NOW + 899)) == "allowed"
    assert code(mint(), data("sales"), clock=FixedClock(NOW + 900)) == "expired"


def test_no_expiry_is_said_aloud() -> None:
    assert mint(**SALES, expires_at=None).unverified.expires_at is None


@pytest.mark.parametrize(
    ("expiry", "until"),
    [
        ({"expires_in": 60}, NOW + 60),
        ({"expires_in": "5m"}, NOW + 300),
        ({"expires_in": "1h30m5s"}, NOW + 5405),
        ({"expires_in": "1d"}, NOW + 86_400),
        ({"expires_in": timedelta(minutes=2, milliseconds=900)}, NOW + 120),
        ({"expires_at": NOW + 5}, NOW + 5),
        ({"expires_at": datetime.fromtimestamp(NOW + 7, UTC)}, NOW + 7),
        ({"expires_at": datetime.fromtimestamp(NOW + 7, timezone(timedelta(hours=5)))}, NOW + 7),
    ],
)
def test_expiries_are_seconds_spans_or_aware_times(expiry: dict[str, Any], until: int) -> None:
    assert mint(**SALES, **expiry).unverified.expires_at == until


@pytest.mark.parametrize(
    ("caveats", "words"),
    [
        ({**SALES, "expires_in": 5, "expires_at": None}, "pass expires_in or expires_at, not both"),
        ({**SALES, "unrestricted": True}, "unrestricted=True goes with no restriction, and"),
        ({"tables": ["sales"], "columns": {"sales": ["region"]}}, "columns and tables alone is not enough"),
    ],
)
def test_what_contradicts_itself_is_named(caveats: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        mint(**caveats)


@pytest.mark.parametrize(
    ("caveats", "error"),
    [
        ({}, ValueError),
        ({"unrestricted": "no"}, TypeError),
        ({"where": {"region": {"in": ["eu"]}}}, ValueError),
        ({"tables": ["sales"]}, ValueError),
        ({"operations": ["select"]}, ValueError),
        ({"columns": {"sales": ["region"]}}, ValueError),
        ({"unrestricted": True, "tables": ["sales"], "operations": ["select"]}, ValueError),
        ({**SALES, "expires_in": 0}, ValueError),
        ({**SALES, "expires_in": -5}, ValueError),
        ({**SALES, "expires_in": timedelta(milliseconds=10)}, ValueError),
        ({**SALES, "expires_in": 5, "expires_at": NOW + 5}, ValueError),
        ({**SALES, "expires_in": 5, "expires_at": None}, ValueError),
        ({**SALES, "expires_at": datetime(2026, 1, 1)}, ValueError),
        ({**SALES, "expires_in": "600"}, ValueError),
        ({**SALES, "expires_in": "0s"}, ValueError),
        ({**SALES, "expires_in": "5 m"}, ValueError),
        ({**SALES, "expires_in": "\u0665m"}, ValueError),
        ({**SALES, "expires_in": "5w"}, ValueError),
        ({**SALES, "expires_in": "-5m"}, ValueError),
        ({**SALES, "expires_in": "5m\n"}, ValueError),
        ({**SALES, "expires_in": ""}, ValueError),
        ({**SALES, "expires_in": "999999999999d" * 9}, ValueError),
        ({**SALES, "expires_in": 60.0}, TypeError),
        ({**SALES, "expires_in": True}, TypeError),
        ({**SALES, "expires_in": None}, TypeError),
        ({**SALES, "expires_at": "2026-01-01"}, TypeError),
        ({**SALES, "expires_at": 2**53}, ValueError),
        ({**SALES, "not_before": None}, TypeError),
        ({**SALES, "not_before": 1.5}, TypeError),
        ({**SALES, "uses": "5"}, TypeError),
        ({**SALES, "uses": True}, TypeError),
        ({**SALES, "uses": -1}, ValueError),
        ({**SALES, "uses": 2**53}, ValueError),
        ({**SALES, "uses": None}, TypeError),
        ({**SALES, "budget": {}}, ValueError),
        ({**SALES, "budget": 5}, TypeError),
        ({**SALES, "budget": {"uses": 5}}, ValueError),
        ({**SALES, "budget": {"usd cents": 5}}, ValueError),
        ({**SALES, "budget": {"usd_cents": 1.5}}, TypeError),
        ({**SALES, "budget": {"usd_cents": -1}}, ValueError),
        ({**SALES, "fresh": -1}, ValueError),
        ({**SALES, "fresh": 1.5}, TypeError),
        ({**SALES, "tokens": 5}, TypeError),
        ({**SALES, "acme:region": "eu"}, TypeError),
        ({**SALES, "depth": -1}, ValueError),
        ({**SALES, "depth": True}, TypeError),
        ({**SALES, "delegate_only": False}, ValueError),
        ({**SALES, "delegate_only": 1}, TypeError),
        ({**SALES, "audience": 5}, TypeError),
        ({**SALES, "audience": ["sales db"]}, ValueError),
        ({**SALES, "ext": {"tenant": "acme"}}, ValueError),
        ({**SALES, "ext": {"acme:tenant": True}}, ValueError),
        ({**SALES, "ext": {"acme:tenant": 1.5}}, ValueError),
        ({**SALES, "ext": {"acme:tenant": "\ud800"}}, ValueError),
        ({**SALES, "subject": "user jane"}, ValueError),
        ({**SALES, "subject": ""}, ValueError),
        ({**SALES, "subject": None}, TypeError),
        ({**SALES, "agent": "a" * 129}, ValueError),
        ({**SALES, "task": "task//1"}, ValueError),
        ({**SALES, "task": "a/../b"}, ValueError),
    ],
    ids=repr,
)
def test_what_is_no_grant_is_refused_at_mint(caveats: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Issuer(KEYRING, clock=clock()).mint(**{**WHO, **caveats})
    assert mint(), "and what is one is minted"


def test_a_caveat_of_an_embedder_opens_no_domain_by_itself() -> None:
    """It speaks of a domain, so the tables, or the tools, are named beside it."""

    class Rows(Caveat, frozen=True):
        key = "acme:rows"
        domain = "data"

    class Price(Caveat, frozen=True):
        key = "acme:price"
        domain = "tool"

    issuer = Issuer(KEYRING, vocabulary=Vocabulary(Rows, Price), clock=clock())
    own: Any = {"acme:rows": 1}
    priced: Any = {"acme:price": 1}
    for caveats in ({**own}, {**own, "tools": {"t": {}}}, {**priced}, {**priced, **SALES}):
        with pytest.raises(ValueError):
            issuer.mint(**WHO, **caveats)
    assert issuer.mint(**WHO, **SALES, **own) and issuer.mint(**WHO, tools={"t": {}}, **priced) and issuer.mint(**WHO, unrestricted=True, **own)


def test_unrestricted_is_said_aloud_and_link_0_is_written_even_so() -> None:
    """A mint that would say nothing writes that it is not valid before its own time."""
    token = mint(unrestricted=True, expires_at=None)
    assert token.unverified.bodies == (b'{"nbf":%d}' % NOW,)
    assert code(token, data("anything", "delete")) == "allowed"
    assert code(token, data("anything", "delete"), clock=FixedClock(NOW - 1)) == "not_yet_valid"


def test_facts_of_the_embedding_project_come_from_the_issuer_alone() -> None:
    token = Issuer(KEYRING, clock=clock()).mint(**WHO, **SALES, ext={"acme:tenant": "t-7", "acme:level": 3})
    assert verifier().authenticate(token.serialize()).issued.ext == {"acme:tenant": "t-7", "acme:level": 3}


def test_a_root_record_over_the_limit_is_refused_when_minted() -> None:
    with pytest.raises(LimitError, match="root record"):
        Issuer(KEYRING).mint(**WHO, **SALES, ext={"acme:note": "x" * 1024})


def test_a_keyring_for_one_server_mints_for_it_alone() -> None:
    issuer = Issuer(KEYRING.for_audience("sales-db"), clock=clock())
    with pytest.raises(ValueError, match="mints for sales-db only"):
        issuer.mint(**WHO, **SALES, audience="ledger")
    assert code(issuer.mint(**WHO, **SALES, audience=["ledger", "sales-db"]), data("sales"), audience="sales-db") == "allowed"


def test_rotation_reaches_a_running_issuer() -> None:
    """A callable is asked each time; what it returns must be a keyring."""
    rings = [KEYRING]
    issuer = Issuer(lambda: rings[0], clock=clock())
    first = issuer.mint(**WHO, **SALES)
    rings[0] = KEYRING.rotate()
    assert issuer.mint(**WHO, **SALES).unverified.root.key_id == rings[0].current != first.unverified.root.key_id
    with pytest.raises(TypeError, match="must return a Keyring"):
        Issuer(lambda: None).mint(**WHO, **SALES)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="a Keyring, or a callable"):
        Issuer(b"key")  # type: ignore[arg-type]


def test_equal_seeds_mint_equal_tokens_and_nothing_else_does() -> None:
    """`captoken.testing` makes tokens that can be written into a test; without it no two are the same."""
    def seeded(seed: str) -> str:
        return Issuer(KEYRING, clock=clock(), random=fixed_random(seed)).mint(**WHO, **SALES).delegate(to="b").serialize()

    assert seeded("a") == seeded("a") != seeded("b")
    assert len({Issuer(KEYRING, clock=clock()).mint(**WHO, **SALES).token_id for _ in range(1000)}) == 1000


def test_what_is_minted_goes_on_by_the_issuer_s_clock() -> None:
    """By the clock as it moves, and not by the moment of the mint."""
    moving = FixedClock(NOW)
    token = Issuer(KEYRING, clock=moving).mint(**WHO, **SALES)
    moving.advance(100)
    assert token.attenuate(expires_in=60).unverified.expires_at == NOW + 160
    assert token.delegate(to="b", expires_in=30).unverified.expires_at == NOW + 130


@pytest.mark.parametrize("clock", [lambda: None, lambda: float("nan"), lambda: float("inf"), lambda: "5", lambda: True])
def test_a_clock_that_gives_no_time_mints_nothing(clock: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Issuer(Keyring.generate(), clock=clock).mint(**WHO, **SALES)
