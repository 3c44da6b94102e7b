"""Each right is taken away by itself, and given alone: what a test needs, and what nobody guards."""

from __future__ import annotations

from typing import Any

import pytest

from captoken import Denied, Token
from captoken.testing import under_narrower
from captoken.tools import guarded_tool
from tests.fixtures import data, mint, tool, verifier

HR = data("hr")


def test_each_right_is_taken_away_and_given_alone() -> None:
    """What is needed is told apart from what is only held."""
    asked = verifier()
    token = mint(tables=["sales", "hr"], operations=["select", "update"], tools={"pay": {"cents": {"max": 5}}, "mail": {}})

    def call(token: Token) -> None:
        grant = asked.authenticate(token)
        grant.authorize(data("sales"))
        grant.authorize(tool("pay", cents=3))

    report = under_narrower(token, call)
    assert report.needed == {"table sales", "operation select", "tool pay"} and not report.unguarded
    runs = {run.rights: run for run in report.runs}
    assert len(runs) == 2 + 2 * 6 and runs["without tool mail"].outcome == "done"
    assert runs["tool pay alone"].outcome == "domain" and runs["tool pay alone"].touched == ()
    assert runs["table sales alone"].touched == (data("sales"),) and isinstance(runs["nothing"].error, Denied)
    assert str(report).splitlines()[0] == "all of it                 done              select on sales, pay"


def test_rights_by_table_and_by_column_are_taken_away_one_by_one() -> None:
    asked = verifier()
    token = mint(allow={"sales": ["select", "update"]}, columns={"sales": ["region", "pay"]}, tools={"mail": {}})
    report = under_narrower(token, lambda token: asked.authorize(token, data("sales", "select", "region")))
    names = {run.rights for run in report.runs}
    assert report.needed >= {"column sales.region"} and {"without column sales.pay", "column sales.pay alone"} <= names
    split = mint(allow={"sales": ["select"], "hr": ["update"]})
    report = under_narrower(split, lambda token: asked.authorize(token, data("sales")))
    assert report.needed == {"select on table sales"}


def test_what_nobody_guards_is_seen() -> None:
    asked = verifier()

    @guarded_tool(asked)
    def pay(cents: int) -> None: ...

    token = mint(tools={"pay": {}, "mail": {}})
    assert under_narrower(token, lambda token: None).unguarded
    assert not under_narrower(token, lambda token: pay(1)).unguarded
    assert under_narrower(token, lambda token: {}[1]).runs[0].outcome == "KeyError"
    assert under_narrower(token, lambda token: verifier().check(token, HR)).runs[0].outcome == "domain"
    elsewhere = Denied(verifier().check(token, HR))

    def refused(token: Token) -> None:
        raise elsewhere

    assert under_narrower(token, refused).runs[0].outcome == "domain"


def test_a_coroutine_is_not_taken_for_done() -> None:
    async def call() -> None: ...

    with pytest.raises(TypeError, match=r"run it, as lambda token: asyncio\.run"):
        under_narrower(mint(), lambda token: call())

    class Awaited:
        def __await__(self) -> Any: ...

    with pytest.raises(TypeError, match="gave a coroutine"):
        under_narrower(mint(), lambda token: Awaited())
