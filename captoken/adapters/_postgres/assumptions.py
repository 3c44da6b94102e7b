"""What the reading of a statement took for granted of the schema, and whether it is still so.

A catalog is kept for a while (`logins`). Meanwhile a table can get a column, and `public` can get a
function that is called like one of PostgreSQL's own. So the server is asked with the statement, in
the same round trip and behind it:

    select captoken_guard.seen('{"public"}', '{"sales"}', '{"sum"}', '757:757:')

It answers `same`, if nothing was committed since the catalog was read. Else it answers with a
digest of the columns of each table, and with the number of functions in `public` that go by one of
the names. By then the statement holds locks on its tables, so that nothing is
changed between its run and the answer. If it is another answer than the catalog gives, the rows are
dropped, the statement is undone, and judged again by a catalog that is read anew (`block`).

What a role may do is not asked about: of what it lost, PostgreSQL itself refuses the use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from captoken.adapters._postgres.catalog import Catalog
from captoken.adapters._postgres.text import Table
from captoken.adapters._postgres.wire import Command

_QUESTION = b"select captoken_guard.seen($1, $2, $3, $4)"
_SAME = "same"

# An answer of the server for a table that is not there. No digest looks like it.
_MISSING = "-"


class Assumptions(NamedTuple):
    """A question for the server, and the answer by which a statement was judged."""

    question: Command
    answer: str

    def hold(self, said: str | None) -> bool:
        """Whether that answer of the server is one by which all of it still holds."""
        return said in (_SAME, self.answer)


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
        question=Command(
            _QUESTION,
            (schemas, names, _array(called), catalog.since.encode()),
            own=True,
        ),
        answer=" ".join([*digests, "0"]),
    )


def _array(names: Iterable[str]) -> bytes:
    """Names, as PostgreSQL takes an array of them in text."""
    escaped = (name.replace("\\", "\\\\").replace('"', '\\"') for name in names)
    return ("{" + ",".join(f'"{name}"' for name in escaped) + "}").encode()
