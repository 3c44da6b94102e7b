"""What a grant says of the rows of a table: what each link says, and each once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from captoken import Denied, Token
from captoken.control import Operator, Overlay
from captoken.discharge import Allow
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from spec.generate import build
from tests.fixtures import clock, mint, verifier
from tests.test_discharge import answered, asked
from tests.test_rows import ACME, AFTER, held, on


def test_a_grant_says_what_each_link_says_and_each_once() -> None:
    token = held(**{"*": ACME, "countries": {}}).attenuate(rows={"orders": AFTER}).attenuate(rows={"orders": AFTER}).attenuate(operations=["select"])
    grant = verifier().authenticate(token.serialize())
    assert grant.rows("orders") == (ACME, AFTER) and grant.rows("customers") == (ACME,) and grant.rows("countries") == ()
    assert grant.check(on(rows=grant.rows("orders")))
    assert grant.check(on("countries", rows=grant.rows("countries")))
    assert asyncio.run(_awaited(token)) == (ACME, AFTER)
    with pytest.raises(ValueError, match="table"):
        grant.rows("market.*")


def test_what_a_grant_said_of_many_tables_it_says_again() -> None:
    """It is worked out once, and bounded. Nobody who was told can change it."""
    grant = verifier().authenticate(held(**{"*": ACME, "t7": AFTER}).serialize())
    for _ in range(2):
        for number in range(300):
            (said,) = grant.rows(f"t{number}")
            assert said == (AFTER if number == 7 else ACME)
            said["tenant"] = {"any": True}  # type: ignore[index]


async def _awaited(token: Token) -> Any:
    grant = await verifier().awaited.authenticate(token.serialize())
    answer = grant.rows("orders")
    with pytest.raises(TypeError, match="write await"):
        bool(answer)
    return await answer


def test_a_condition_from_before_a_narrowing_is_denied() -> None:
    """By a link, and by an operator."""
    token = held(orders={"tenant": {"in": ["acme", "other"]}})
    server = verifier()
    before = server.authenticate(token.serialize()).rows("orders")
    narrowed = server.authenticate(token.attenuate(rows={"orders": ACME}).serialize())
    assert narrowed.check(on(rows=before)).code == "row" and narrowed.check(on(rows=narrowed.rows("orders")))


def test_a_grant_names_the_operator_s_entries_and_a_discharge_s_links() -> None:
    key, store, now = OperatorKey.from_bytes(bytes(range(3, 35))), MemorySnapshots(), clock()
    operator = Operator(key, store, by="ops@example", clock=now)
    operator.renew()
    server = verifier(overlay=lambda: Overlay.open(store.load() or b"", [key.public]), audience="db")
    token = answered(asked().attenuate(tables=["sales"], rows={"*": ACME}), Allow(expires_in=60, rows={"sales": {"year": {"min": 2020}}}))
    grant = server.authenticate(token.present(audience="db"))
    mine, theirs = ACME, {"year": {"min": 2020}}
    assert grant.rows("sales") == (mine, theirs)
    operator.narrow(task="task-123", rows={"sales": {"region": {"in": ["eu"]}}}, why="eu alone")
    operator.revoke(task="another", why="not this one")
    held_now = grant.rows("sales")
    assert held_now == (mine, {"region": {"in": ["eu"]}}, theirs)
    assert grant.check(on("sales", rows=(mine, theirs))).code == "narrowed" and grant.check(on("sales", rows=held_now))
    operator.revoke(task="task-123", why="ended")
    with pytest.raises(Denied) as error:
        grant.rows("sales")
    assert error.value.code == "revoked"


@pytest.mark.parametrize(
    ("links", "table", "wanted"),
    [
        (({"tables": ["orders"], "operations": ["select"]},), "customers", "table"),
        (({"tables": ["*"], "operations": []},), "orders", "operation"),
        (({"tables": ["*"], "operations": ["select"]}, {"operations": ["insert"]}), "orders", "operation"),
        (({"allow": {"*": ["select"], "hr.*": []}},), "hr.pay", "table"),
        (({"tools": {"search": {}}},), "orders", "domain"),
    ],
)
def test_a_grant_has_no_conditions_where_nothing_is_permitted(links: Any, table: str, wanted: str) -> None:
    grant = verifier().authenticate(build.token(*links).text)  # no writer would write the third
    with pytest.raises(Denied) as error:
        grant.rows(table)
    assert error.value.code == wanted


def test_a_grant_has_conditions_where_an_operation_but_select_is_permitted() -> None:
    grant = verifier().authenticate(mint(allow={"orders": ["insert"]}, rows={"orders": ACME}).serialize())
    assert grant.rows("orders") == (ACME,)
    aside = mint(allow={"orders": ["*"]}, rows={"orders": ACME}).attenuate(expires_in=60)
    assert verifier().authenticate(aside.serialize()).rows("orders") == (ACME,)


@pytest.mark.parametrize("awaited", [False, True], ids=["called", "awaited"])
def test_of_a_table_that_is_only_reached_a_grant_says_what_holds_of_its_rows(awaited: bool) -> None:
    """A view can read it, whoever may use no more than the view. A token that is over says nothing all the same."""
    token = mint(tables=["v"], operations=["select"], rows={"*": ACME, "v": {}}, expires_in=60)
    now = clock()

    async def asking() -> tuple[Any, Any]:
        if not awaited:
            grant = verifier(clock=now).authenticate(token.serialize())
            return grant.rows("orders", reached=True), grant.rows("v", reached=True)
        other = await verifier(clock=now).awaited.authenticate(token.serialize())
        return await other.rows("orders", reached=True), await other.rows("v", reached=True)

    assert asyncio.run(asking()) == ((ACME,), ())
    grant = verifier(clock=now).authenticate(token.serialize())
    with pytest.raises(Denied) as error:
        grant.rows("orders")
    assert error.value.code in ("row", "table")
    now.advance(3600)
    with pytest.raises(Denied) as error:
        grant.rows("orders", reached=True)
    assert error.value.code == "expired"
