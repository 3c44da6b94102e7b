"""What the reading of a statement took for granted of the schema, and whether it is still so.

A catalog is kept for a while (`logins`). Meanwhile a table can get a column, and `public` can get a
function that is called like one of PostgreSQL's own. So the server is asked with the statement, in
the same round trip and behind it:

    select captoken_guard.seen('{"public"}', '{"sales"}', '{"sum"}', '757:757:')

It answers `same`, if nothing was committed since the catalog was read. Else it answers with a
digest of the columns of each table, with the number of functions in `public` that go by one of the
names, and as of when that is:

    3a7b... 0 761:761:

By then the statement holds locks on its tables, so that nothing is changed between its run and the
answer. If it is another answer than the catalog gives, the rows are dropped, the statement is
undone, and judged again by a catalog that is read anew (`block`). If it is the same answer, the
next question is whether anything was committed since then.

What a role may do is not asked about: of what it lost, PostgreSQL itself refuses the use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from captoken.adapters._postgres.catalog import Catalog
from captoken.adapters._postgres.text import Table
from captoken.adapters._postgres.wire import Command

_QUESTION = b"select captoken_guard.seen($1, $2, $3, $4)"
_SAME = "same"

# An answer of the server for a table that is not there. No digest looks like it.
_MISSING = "-"

# Schemas and names of tables, and names of functions, each as the server takes an array of them.
About: TypeAlias = tuple[bytes, bytes, bytes]


class Assumptions(NamedTuple):
    """What a statement takes for granted."""

    about: About

    # What the server has to say of that, beside as of when it is.
    answer: str

    # As of when it was so the last time, by what it is about. It is the catalog's, for all texts.
    held: dict[About, str]

    # When the catalog was read.
    since: str

    def question(self) -> Command:
        """What the server is asked."""
        since = self.held.get(self.about, self.since)
        return Command(_QUESTION, (*self.about, since.encode()), own=True)

    def hold(self, said: str | None) -> bool:
        """Whether that answer of the server is one by which all of it still holds."""
        if said == _SAME:
            return True

        found, _, as_of = (said or "").rpartition(" ")
        if found != self.answer:
            return False
        self.held[self.about] = as_of
        return True


def assumptions_of(
    tables: Iterable[Table],
    functions: Iterable[str],
    catalog: Catalog,
) -> Assumptions | None:
    """What was taken for granted of these tables and functions. None: nothing.

    `functions` are names that were taken for PostgreSQL's own, or for no function at all.
    """
    named = sorted(set(tables))
    called = sorted(set(functions))
    if not named and not called:
        return None

    schemas = _array(schema for schema, _ in named)
    names = _array(name for _, name in named)
    digests = [catalog.digests.get(table, _MISSING) for table in named]
    return Assumptions(
        about=(schemas, names, _array(called)),
        answer=" ".join([*digests, "0"]),
        held=catalog.held,
        since=catalog.since,
    )


def _array(names: Iterable[str]) -> bytes:
    """Names, as PostgreSQL takes an array of them in text."""
    escaped = (name.replace("\\", "\\\\").replace('"', '\\"') for name in names)
    return ("{" + ",".join(f'"{name}"' for name in escaped) + "}").encode()
