"""A build of SQLite is tried before it guards anything, since EXPLAIN is no stable interface.

The examples are one for each rule of `captoken.adapters.sqlite` that rests on opcodes. A build that
gives any other answer than the one that is known is not guarded.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache

from captoken._format.errors import GuardError
from captoken.adapters._sqlite.opcodes import Engine
from captoken.adapters._sqlite.parts import MARK, Part, Parts
from captoken.adapters._sqlite.planner import Planner
from captoken.adapters._sqlite.text import Text
from captoken.adapters._sqlite.watch import Watch

_Need = tuple[str | None, str | None, str]  # table, operation, columns

_EXAMPLE = """
    CREATE TABLE a (id INTEGER PRIMARY KEY, x UNIQUE, y);
    CREATE TABLE b (id INTEGER PRIMARY KEY, x, name);
    CREATE TABLE c (id INTEGER PRIMARY KEY ON CONFLICT REPLACE, y);
    CREATE TABLE d (id INTEGER PRIMARY KEY);
    CREATE VIEW joined AS SELECT a.id FROM a NATURAL JOIN b;
    CREATE VIEW tables AS SELECT b.id FROM b NATURAL JOIN sqlite_master;
    CREATE VIEW functions AS SELECT b.id FROM b NATURAL JOIN pragma_function_list;
    CREATE TRIGGER t AFTER INSERT ON d BEGIN
        DELETE FROM c WHERE y IN (SELECT count(*) FROM a NATURAL JOIN b);
    END;
"""

# Rule 8: what `a NATURAL JOIN b` needs, though no event names its columns.
_JOINED: set[_Need] = {("a", "select", "id x"), ("b", "select", "id x")}

# What each statement needs; None: it is refused, whatever a token grants.
_EXPECTED: dict[str, set[_Need] | None] = {
    # Rule 8: columns that a join hides, in the statement itself, in a view, behind USING.
    "SELECT count(*) FROM a NATURAL JOIN b": _JOINED,
    "SELECT 1 FROM joined": _JOINED,
    "SELECT count(*) FROM b JOIN a USING (x)": {("a", "select", "x"), ("b", "select", "x")},
    "SELECT x FROM (SELECT 1 AS x WHERE 0) FULL JOIN b USING (x)": {("b", "select", "x")},
    # Rule 4: a catalog and a virtual table, behind views.
    "SELECT 1 FROM tables": None,
    "SELECT 1 FROM functions": None,
    # The program of a trigger counts.
    "INSERT INTO d VALUES (1)": {("d", "insert", ""), ("c", "delete", "")} | _JOINED,
    # Rule 5: the first pass of an update or delete needs no select.
    "UPDATE a SET y = 1 WHERE x = 2": {("a", "update", "x y")},
    "DELETE FROM a": {("a", "delete", "")},
}

# Rule 13: the same, where `id` alone is granted of `a`. A view does not read the part, and what
# reads the table beside it is refused.
_PARTS: Parts = (Part("main", "a", ("id",)),)
_EXPECTED_OF_PARTS: dict[str, set[_Need] | None] = {
    "SELECT * FROM a NATURAL JOIN b": {("a", "select", "id"), ("b", "select", "id name x")},
    "SELECT count(*) FROM joined, a": {("a", "select", "id x"), ("b", "select", "id x")},
    "UPDATE b SET name = (SELECT id FROM a) RETURNING (SELECT id FROM a)": {
        ("a", "select", "id"),
        ("b", "select", ""),
        ("b", "update", "name"),
    },
    "SELECT id FROM main.a": None,
    "WITH c AS (SELECT id FROM main.a) SELECT id FROM c": None,
    "SELECT x FROM a": None,
}

# Rule 16: the same, where the rows of `a` are restricted by `y`, which nothing of the text reads.
_ROWS: Parts = (Part("main", "a", ("id", "x"), True, True, (b"{}",), f"{MARK}y = 1"),)
_READ: set[_Need] = {("a", "select", "id x")}
_EXPECTED_OF_ROWS: dict[str, set[_Need] | None] = {
    "SELECT id FROM a WHERE id IN (SELECT id FROM a)": _READ,
    "WITH c AS (SELECT id FROM a) SELECT id FROM c": _READ,
    "SELECT a.id FROM a, joined": None,
    "SELECT id FROM main.a": None,
    "UPDATE a SET x = 1 WHERE id = 2": {("a", "update", "id x")},
    "UPDATE a SET x = name FROM b WHERE b.id = a.id RETURNING id": {
        ("a", "select", "id"),
        ("a", "update", "id x"),
        ("b", "select", "id name"),
    },
    "UPDATE a SET x = a2.id FROM a a2 WHERE abs(a2.id) = a.id": {
        ("a", "select", "id x"),
        ("a", "update", "id x"),
    },
    "INSERT INTO a VALUES (1, 2, 3)": {("a", "insert", "")},
    "DELETE FROM a WHERE id IN (SELECT id FROM a)": _READ | {("a", "delete", "")},
    "DELETE FROM a RETURNING (SELECT id FROM a)": None,
    "REPLACE INTO a VALUES (1, 2, 3)": None,
    "INSERT INTO a VALUES (1, 2, 3) ON CONFLICT DO NOTHING": None,
    "INSERT INTO d SELECT id FROM a": None,  # its trigger reads a
}

_TRIALS = (((), _EXPECTED), (_PARTS, _EXPECTED_OF_PARTS), (_ROWS, _EXPECTED_OF_ROWS))

# Rule 6: the table says ON CONFLICT REPLACE. Only some builds show in opcodes that a row goes.
_REPLACES = "INSERT INTO c VALUES (1, 2)"
_REPLACED: set[_Need] = {("c", "insert", ""), ("c", "delete", "")}


# A program may use another SQLite through its own class or function. Each has one entry.
@lru_cache(maxsize=16)
def engine_of(connect: Callable[[str], sqlite3.Connection]) -> Engine:
    """Try rules 2 to 8 once for each build of SQLite. Raises GuardError for one that fails."""
    with closing(connect(":memory:")) as connection:
        connection.executescript(_EXAMPLE)
        watch = Watch(connection, lambda: True)
        watch.own("BEGIN")

        optimist = Planner(watch, Engine(shows_replaced=True))
        engine = Engine(shows_replaced=_needs(optimist, _REPLACES) == _REPLACED)

        planner = Planner(watch, engine)
        for parts, trials in _TRIALS:
            for sql, expected in trials.items():
                found = _needs(planner, sql, parts)
                if found != expected:
                    seen = found and sorted(map(str, found))
                    raise GuardError(
                        f"the guard cannot work with this build of SQLite: of {sql!r} it sees "
                        f"{seen}"
                    )
        return engine


def _needs(planner: Planner, sql: str, parts: Parts = ()) -> set[_Need] | None:
    """What the guard sees of a statement; None if it refuses or cannot compile it."""
    plan = planner.plan(Text(sql), parts, ())
    if isinstance(plan, Exception) or plan.refusals:
        return None
    return {(need.table, need.operation, " ".join(need.columns or ())) for need in plan.needs}
