"""Errors of the database: none quotes a row, and a missing table is told like a forbidden one."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest

from captoken import Denied
from captoken.adapters._postgres import (
    logins,
)
from captoken.adapters.postgres import (
    guarded,
)
from captoken.errors import StatementError
from tests.adapters.postgres.test_postgres import READS, Place, grant, rolled_back
from tests.adapters.postgres_corpus import GRANTS


def without(said: str, name: str) -> str:
    """What was said, without a name: the word, and not the letters, which the id of a token can have too."""
    return re.sub(rf"\b{name}\b", "…", said)


def test_a_missing_table_and_a_forbidden_one_are_denied_alike(connection: psycopg.Connection[Any]) -> None:
    with guarded(connection, READS) as db:
        said = []
        for name in ("hr", "no_such"):
            with pytest.raises(Denied) as denied:
                db.execute(f"select pay from {name}")
            said.append(without(str(denied.value.decision), name))
            said.append(without(denied.value.decision.for_model(), name))
    assert said[:2] == said[2:]


def test_a_missing_column_and_a_hidden_one_are_one_mistake(connection: psycopg.Connection[Any]) -> None:
    """In whatever place of a statement, and of whatever role: nothing is denied, and what there is is told."""
    statements = (
        "select {} from people", "select p.{} from people p", "select (p).{} from people p", "select id from people order by {}",
        "select id as {} from people where {} = 1", "select (select {}) from people", "update people set {} = 1", "update people set name = {}",
        "update people p set name = 'x' where p.{} is null", "update people set name = 'x' returning old.{}", "insert into people (id, {}) values (7, 1)",
        "insert into people (id) values (7) on conflict (id) do update set name = excluded.{}", "insert into people (id) values (7) returning {}",
    )  # fmt: skip
    if connection.info.server_version < 180_000:  # there `old` is no more than a name
        statements = tuple(sql for sql in statements if "old." not in sql)
    by_role = [grant(tables=["people"], operations=["select", "insert", "update"])]
    for given in [grant(**GRANTS["edits"]), *(by_role if connection.info.user == "agents" else [])]:
        for sql in statements:
            said = []
            for name in ("pay", "no_such"):
                with rolled_back(connection, given) as db, pytest.raises(StatementError) as caught:
                    db.execute(sql.replace("{}", name))
                assert (caught.value.code, caught.value.state) == ("name", "42703")
                assert " people has id, name, region here." in caught.value.for_model()
                said.append((without(str(caught.value), name), without(caught.value.for_model(), name)))
            assert said[0] == said[1], sql
            assert "(p)." in sql or "…" in said[0][0], sql  # the word that was written


def test_errors_do_not_quote_rows(connection: psycopg.Connection[Any]) -> None:
    with guarded(connection, grant(**GRANTS["edits"])) as db, pytest.raises(StatementError) as caught:
        db.execute("update people set id = 1")
    assert str(caught.value) == "unique: a row with the same key is there already (23505)"


@pytest.mark.parametrize(
    "hides", ["note::integer > 0", "to_tsquery(note || ' ' || note) is null",
              "note::jsonpath is null", "date_trunc(note, now()) is null", "to_tsvector(note::json) is null"],
)  # fmt: skip
def test_an_error_does_not_quote_the_rows_that_a_view_hides(hides: str, agents: psycopg.Connection[Any], place: Place) -> None:
    place.admin.execute("create view seen as select note, amount from sales where region = 'eu' and amount < 20; grant select on seen to reader")
    try:
        logins.forget(agents)
        with guarded(agents, grant(tables=["seen"], operations=["select"])) as db, pytest.raises(StatementError, match="value: ") as caught:
            db.execute(f"select count(*) from seen where {hides}")
        assert not re.search(r"\b(one|two|three)\b", str(caught.value).replace("out of range, or a", "").replace("is one that", ""))
    finally:
        place.admin.execute("drop view seen")


def test_of_an_error_in_the_text_its_word_is_told_and_no_literal(agents: psycopg.Connection[Any]) -> None:
    with guarded(agents, READS) as db:
        for sql, says in (("select 'x'::integer", "(22P02)"), ("select nothing from sales", "(42703, at nothing)"), ("select region + 1 from sales", "(42883)")):
            with pytest.raises(StatementError, match=re.escape(says)):
                db.execute(sql)
