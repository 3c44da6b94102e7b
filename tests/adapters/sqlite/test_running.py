"""How a statement runs: it is asked about while it runs, ends in time, and its rows are tuples."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from captoken import Denied
from captoken.adapters.sqlite import guarded
from captoken.errors import GuardError, StatementError
from tests.adapters.sqlite.test_sqlite import NOW, READER, grant, rolled_back

WRITER = grant(tables=["sales"], operations=["select", "insert", "update", "delete"])


def nested(outer: str, first: str = "select id as y from sales") -> Callable[[int], str]:
    """So many queries, each of which has the one before in the place of {}."""

    def made(number: int) -> str:
        sql = first
        for _ in range(number):
            sql = outer.replace("{}", sql)
        return sql

    return made


def declared(query: str, last: str = "select 1 from c{}") -> Callable[[int], str]:
    """So many queries of a WITH, each of which reads the one before: {}."""

    def made(number: int) -> str:
        queries = [f"c{at + 1} as ({query.replace('{}', f'c{at}')})" for at in range(number)]
        return f"with c0 as (select id as y from sales), {', '.join(queries)} {last.format(number)}"

    return made


# Statements that double with each further line, and how many lines are compiled all the same.
GROWING: dict[str, tuple[Callable[[int], str], int]] = {
    "CTEs that nothing asks about": (declared("select 1 as y from {} a, {} b"), 4),
    "CTEs by their columns": (declared("select a.y from {} a, {} b"), 4),
    "CTEs in EXISTS": (declared("select y from {} where exists (select 1 from {})"), 8),
    "CTEs as values": (declared("select (select y from {}) + (select y from {}) as y"), 8),
    "CTEs after IN": (declared("select y from {} where y in {}"), 8),
    "a WITH within a WITH": (nested("with a as ({}) select 1 as y from a, a b"), 4),
    "expressions": (nested("select y + y as y from ({})"), 12),
    "expressions in quotes": (nested('select "y" + [y] as `y` from ({})'), 12),
    "expressions without AS": (nested("select y + y y from ({})"), 6),
    "expressions of a query as a value": (nested("select (select y + y) as y from ({})"), 10),
    "expressions in a WHERE that moves inwards": (nested("select distinct y + y as y from ({}) where y > 0"), 7),
    "expressions of CTEs": (declared("select y + y as y from {}", "select y from c{}"), 11),
    "expressions of two columns": (nested("select y + z as y, y - z as z from ({})", "select id as y, id as z from sales"), 11),
    "UNION ALL in a join": (lambda number: f"select 1 from {', '.join(['(select id from sales union all select id from sales)'] * number)}", 6),
}  # fmt: skip


class TestTime:
    """A grant that has run out runs nothing more."""

    def test_each_statement_looks_at_the_clock(self, plain: sqlite3.Connection) -> None:
        now = [NOW]
        held = grant(lambda: now[0], tables=["sales"], operations=["select", "insert"], expires_in=60)
        with pytest.raises(Denied, match="expired"), guarded(plain, held) as db:
            db.execute("insert into sales (id, amount) values (3, 1)")
            db.execute("select 1")
            now[0] += 60
            for sql in ("select 1", "select id from sales", "select pay from hr", "pragma user_version", "nonsense"):
                with pytest.raises(Denied) as caught:
                    db.execute(sql)
                assert caught.value.decision.code == "expired" and caught.value.kind == "invalid"
        assert plain.execute("select count(*) from sales").fetchone() == (2,)  # nothing is committed by a dead grant
        assert not plain.in_transaction

    def test_a_long_statement_is_interrupted(self, plain: sqlite3.Connection) -> None:
        reads = itertools_count()
        forever = "with recursive n (i) as (select 1 union all select i + 1 from n) select sum(i) from n"
        held = grant(lambda: NOW + next(reads), tables=["sales"], operations=["select", "insert"], expires_in=60)
        with guarded(plain, held) as db:
            with pytest.raises(Denied) as caught:
                db.execute(forever)
            assert caught.value.decision.code == "expired" and caught.value.__context__ is None

    def test_so_is_a_text_that_takes_long_to_compile(self, plain: sqlite3.Connection) -> None:
        reads = itertools_count()
        held = grant(lambda: NOW + 60 * (next(reads) > 1), tables=["sales"], operations=["select"], expires_in=60)
        with guarded(plain, held) as db, pytest.raises(Denied) as caught:
            db.execute(f"select 1 in ({', '.join(map(str, range(15_000)))})")
        assert caught.value.decision.code == "expired"

    @pytest.mark.parametrize("columns", [None, {"sales": ["id", "region"]}], ids=["all columns", "some"])
    @pytest.mark.parametrize("doubled, most", GROWING.values(), ids=GROWING)
    def test_what_sqlite_would_multiply_is_refused_before_it_is_compiled(
        self, plain: sqlite3.Connection, doubled: Callable[[int], str], most: int, columns: Any
    ) -> None:
        """Of 600 bytes comes a minute of work, within which SQLite asks nobody whether the grant still stands."""
        held = grant(tables=["sales"], operations=["select"], **({"columns": columns} if columns else {}))
        with guarded(plain, held) as db:
            assert isinstance(db.execute(doubled(most)).fetchall(), list)
            for more in (20, 30, 60):
                with pytest.raises(Denied, match="SQLite makes the statement too large") as caught:
                    db.execute(doubled(more))
                assert caught.value.code == "operation"
            assert len(db.execute("select id from sales").fetchall()) == 2, "the block goes on"

    def test_a_name_is_that_of_the_nearest_query_wherever_it_stands(self, plain: sqlite3.Connection) -> None:
        """A query that is declared later, one within another of its name, one that reads itself."""
        held = grant(tables=["sales"], operations=["select"])
        for sql, rows in (
            ("with a as (select 1 from b), b as (select 2) select * from a", [(1,)]),
            ("with a as (with a as (select 3 as x) select x from a) select x from a", [(3,)]),
            ("with recursive a(n) as (select 1 union select n + 1 from a where n < 3) select n from a", [(1,), (2,), (3,)]),
            ("with a as materialized (select 4 as x) select x from a where x in a and exists (select 1 from a)", [(4,)]),
            ("select x from ((select 5 as x))", [(5,)]),
        ):
            with guarded(plain, held) as db:
                assert db.execute(sql).fetchall() == rows
        chain = "with c0 as (select 1 as x), " + ", ".join(f"c{n + 1} as (select x from c{n})" for n in range(98))
        with guarded(plain, held) as db:
            assert db.execute(f"{chain} select x from c98").fetchall() == [(1,)]
            with pytest.raises(Denied, match="too large"):
                db.execute(f"{chain}, c99 as (select x from c98), d as (select x from c99) select x from d")

    def test_a_pattern_is_bounded_and_the_owners_limits_come_back(self, plain: sqlite3.Connection) -> None:
        limits = (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, sqlite3.SQLITE_LIMIT_LENGTH)
        held = grant(tables=["sales"], operations=["select"])
        for owners in (None, 20):
            if owners:
                plain.setlimit(limits[0], owners)
                plain.setlimit(limits[1], 500)
            before = [plain.getlimit(limit) for limit in limits]
            most = owners or 1000
            with guarded(plain, held) as db:
                for operator in ("like", "glob"):
                    sql = f"select 'a' {operator} ?"
                    assert db.execute(sql, ("b" * most,)).fetchall() == [(0,)]
                    with pytest.raises(StatementError, match="too_large: "):
                        db.execute(sql, ("b" * (most + 1),))
                if owners:
                    with pytest.raises(StatementError, match="too_large: "):
                        db.execute("select zeroblob(501)")
            assert [plain.getlimit(limit) for limit in limits] == before

    def test_rows_are_asked_about_again_before_they_are_handed_out(self, plain: sqlite3.Connection) -> None:
        """Whatever took so long: here, reading the first value."""
        now = [NOW]
        held = grant(lambda: now[0], tables=["sales"], operations=["select", "insert"], expires_in=60)

        def slowly(raw: bytes) -> str:
            now[0] += 60
            return raw.decode()

        plain.text_factory = slowly
        for sql in (
            "select region from sales",
            "select 'a'",
            "insert into sales (id, region) values (9, 'eu') returning region",
        ):
            now[0] = NOW
            with rolled_back(plain, held) as db, pytest.raises(Denied) as caught:
                db.execute(sql)
            assert caught.value.decision.code == "expired", sql
        now[0] = NOW
        assert plain.execute("select count(*) from sales where id = 9").fetchone() == (0,)

    @pytest.mark.parametrize("filler", ["x", "ü"], ids=["ASCII", "two bytes a character"])
    def test_the_length_of_a_statement_is_bounded_in_bytes(self, plain: sqlite3.Connection, filler: str) -> None:
        held = grant(tables=["sales"], operations=["select"])
        size = (100_000 - len("select '' from sales")) // len(filler.encode())
        with guarded(plain, held) as db:
            assert len(db.execute(f"select '{filler * size}' from sales").fetchall()) == 2
            with pytest.raises(Denied, match="more than 100000 bytes") as caught:
                db.execute(f"select '{filler * (size + 1)}' from sales")
            assert caught.value.decision.code == "operation"
            assert caught.value.decision.for_model()

    def test_a_long_write_is_interrupted_and_the_block_is_over(self, plain: sqlite3.Connection) -> None:
        clock: list[Callable[[], float]] = [lambda: NOW]
        held = grant(lambda: clock[0](), tables=["sales"], operations=["insert"], expires_in=60)
        with guarded(plain, held) as db:
            db.execute("insert into sales (id, amount) values (3, 1)")
            clock[0] = clock_that_jumps()
            with pytest.raises(Denied):
                db.execute(
                    "with recursive n (i) as (select 9 union all select i + 1 from n) insert into sales (id, amount) select i, 1 from n"
                )
            clock[0] = lambda: NOW
            with pytest.raises(GuardError, match="rolled back"):
                db.execute("insert into sales (id, amount) values (5, 1)")
        assert plain.execute("select count(*) from sales").fetchone() == (2,) and not plain.in_transaction


def itertools_count() -> Iterator[int]:
    count = 0
    while True:
        count += 1
        yield count


def clock_that_jumps() -> Callable[[], float]:
    looks = itertools_count()
    return lambda: NOW + 100 if next(looks) > 6 else NOW


class TestRows:
    def test_they_are_tuples_with_the_names_of_the_columns(self, plain: sqlite3.Connection) -> None:
        with guarded(plain, WRITER) as db:
            rows = db.execute("select id, region as area from sales order by id")
            assert rows.columns == ("id", "area") and rows.rowcount == -1
            assert (
                rows.fetchone() == (1, "eu") and list(rows) == [(2, "us")] and rows.fetchone() is None and rows.fetchall() == []
            )
            changed = db.execute("update sales set amount = 5")
            assert changed.columns == () and changed.rowcount == 2 and changed.fetchall() == []

    def test_parameters_are_sequences_or_mappings(self, plain: sqlite3.Connection) -> None:
        with guarded(plain, READER) as db:
            sql = "select region from sales where id = "
            assert [
                db.execute(sql + mark, given).fetchall() for mark, given in [("?", [1]), ("?", (1,)), (":id", {"id": 1})]
            ] == [[("eu",)]] * 3
            assert db.execute(sql + "?", (2,)).fetchall() == [("us",)]
