"""What opcodes do not show: what is replaced, and a look-up of a foreign key that does nothing else."""

from __future__ import annotations

import sqlite3

import pytest

from captoken.adapters import sqlite
from captoken.adapters._sqlite import opcodes
from captoken.adapters._sqlite.opcodes import Engine
from tests.adapters.sqlite.test_sqlite import filled, grant, rolled_back, unknown, verdict
from tests.adapters.sqlite_corpus import ALLOWED, CASES, GRANTS


def test_where_opcodes_do_not_show_what_is_replaced_the_text_and_the_schema_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds without the pre-update hook: stricter, and no bypass."""
    monkeypatch.setattr(sqlite, "engine_of", lambda connect: Engine(shows_replaced=False))
    connection, false_denials = filled(sqlite3.connect(":memory:")), []
    grants = {name: grant(**keywords) for name, keywords in GRANTS.items()}
    for case in CASES:
        if case.sql in unknown():
            continue
        with rolled_back(connection, grants[case.grant]) as db:
            came = verdict(db, case.sql, case.parameters)
            assert came == case.verdict or case.verdict == ALLOWED, case.sql
            if came != case.verdict:
                false_denials.append(case.sql)
    connection.close()
    assert len(false_denials) == 4 and all("codes" in sql or "replacing" in sql for sql in false_denials)


def test_a_look_up_of_a_foreign_key_is_one_only_if_its_cursor_does_nothing_else() -> None:
    def found(*rows: tuple[bytes, int]) -> set[int]:
        return opcodes.lookups([(at, op, p1, 0, 0, None, 0, None) for at, (op, p1) in enumerate(rows)])

    parent = [(b"Init", 0), (b"OpenRead", 1), (b"Found", 1), (b"FkCounter", 0), (b"Close", 1), (b"Halt", 0)]
    fails = [(b"Init", 0), (b"OpenRead", 1), (b"NotExists", 1), (b"Halt", 787), (b"Close", 1), (b"Halt", 0)]
    children = [
        (b"Init", 0),
        (b"OpenRead", 1),
        (b"OpenRead", 2),
        (b"SeekGE", 2),
        (b"Column", 1),
        (b"FkCounter", 0),
        (b"Next", 2),
        (b"Halt", 0),
    ]
    assert found(*parent) == found(*fails) == {1} and found(*children) == {1, 2}
    for op in (b"Column", b"Rowid", b"RowData", b"Count", b"Next", b"SeekGE", b"IdxRowid"):
        assert found(*parent[:3], (op, 1), *parent[3:]) == set(), op
        assert found(*parent[:-1], (op, 1), parent[-1]) == set(), op
        assert found(*children[:-1], (op, 1), children[-1]) == {2}, op
        assert found(*children[:-1], (op, 2), children[-1]) == {1}, op
    assert found(*children[:4], (b"ResultRow", 1), *children[4:]) == set()
    assert found((b"Init", 0), (b"OpenRead", 1), (b"Column", 1), (b"Halt", 19), (b"Close", 1)) == set()
    for other in ((b"Halt", 19), (b"Halt", 0), (b"Integer", 787)):
        assert found(*fails[:3], other, *fails[4:]) == set(), other


def test_a_name_that_is_no_utf_8_is_one_that_nobody_grants() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript("create table sales (id); create table hr (id); pragma writable_schema = on")
    connection.execute("update sqlite_master set name = cast(x'6872ff' as text), tbl_name = cast(x'6872ff' as text) where name = 'hr'")
    connection.commit()
    assert opcodes.decoded(b"hr\xff") == "hr\ufffd"
    with rolled_back(connection, grant(tables=["sales"], operations=["select"])) as db:
        assert verdict(db, "select id from sales") == ALLOWED
        assert verdict(db, "select id from hr") == "table"
    connection.close()
