"""How large a statement gets while SQLite compiles it, by its text (rule 11).

SQLite writes a CTE anew wherever it is read. Where it makes one query of two, it puts an expression
in the place of each column that stands for it. Both double with each further line:

    WITH a AS (SELECT id FROM sales),
         b AS (SELECT 1 FROM a, a), c AS (SELECT 1 FROM b, b), …       copies of a: 2, 4, 8, …

    SELECT y + y AS y FROM (SELECT y + y AS y FROM (…))                 y: 2, 4, 8, … times

Of 600 bytes comes a minute of work, in which SQLite asks nobody whether it may go on. So both are
worked out beforehand. The second is an upper bound: it takes the word that stands most often in a
query for the one that grows. Only what a query gives, from SELECT to FROM, stands for a column of
the query around it. What it has in its other clauses is written once for each time it is read:

    WITH a AS (SELECT y FROM sales WHERE y > 1 AND y < 9), b AS (SELECT y FROM a WHERE y <> 5), …
"""

from __future__ import annotations

from typing import NamedTuple

from captoken.adapters._sqlite.scopes import Query

# Queries, once each CTE is written wherever it is read.
MOST_QUERIES = 1_000

# Places of columns, once each is an expression in all of these queries.
MOST_PLACES = 20_000

# Queries that read from one another.
MOST_DEEP = 100


class Size(NamedTuple):
    """How large a query gets."""

    queries: int
    places: int  # in all of them
    longest: int  # the most places that one expression gets


_TOO_LARGE = Size(MOST_QUERIES + 1, MOST_PLACES + 1, 1)


def is_bounded(whole: Query) -> bool:
    """Does the statement stay below all three bounds?"""
    size = _size(whole, {}, 0)
    return size.queries <= MOST_QUERIES and size.places <= MOST_PLACES


def _size(query: Query, known: dict[Query, Size], depth: int) -> Size:
    """The size of a query with all that it reads from. Each is worked out once."""
    if depth > MOST_DEEP:
        return _TOO_LARGE
    if query in known:
        return known[query]

    # A recursive CTE that reads itself does so once.
    known[query] = Size(1, 1, 1)
    read = [_size(inner, known, depth + 1) for inner in query.reads]
    longest = max((inner.longest for inner in read), default=1)
    most_used = max(query.uses.values(), default=1)
    most_given = max(query.gives.values(), default=1)
    size = known[query] = Size(
        1 + sum(inner.queries for inner in read),
        most_used * longest + sum(inner.places for inner in read),
        most_given * longest,
    )
    return size
