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

from captoken.adapters._postgres.catalog import Catalog, Policy
from captoken.adapters._postgres.text import Table
from captoken.adapters._postgres.wire import Command

_QUESTION = b"select captoken_guard.seen($1, $2, $3, $4)"
_SAME = "same"

# The same, with the policies that hold rows, of those tables where row security is on.
_WITH_POLICIES = b"""
    select captoken_guard.seen($1, $2, $3, $4) || E'\\n' || (
        select pg_catalog.concat(pg_catalog.string_agg(
            pg_catalog.concat_ws(' ', p.oid, p.xmin), ',' order by p.oid))
        from pg_catalog.pg_policy p join pg_catalog.pg_class c on c.oid = p.polrelid
        where p.oid = any ($5::pg_catalog.oid[]) and c.relrowsecurity)
"""

# An answer of the server for a table that is not there. No digest looks like it.
_MISSING = "-"

# Schemas and names of tables, names of functions, and perhaps policies, each as the server takes an
# array of them.
About: TypeAlias = tuple[bytes, ...]


class Assumptions(NamedTuple):
    """What a statement takes for granted."""

    about: About

    # What the server has to say of that, beside as of when it is.
    answer: str

    # As of when it was so the last time, by what it is about. It is the catalog's, for all texts.
    held: dict[About, str]

    # When the catalog was read.
    since: str

    # What the server has to say of the policies, if there are any.
    policies: str | None = None

    def question(self) -> Command:
        """What the server is asked."""
        since = self.held.get(self.about, self.since)
        schemas, names, functions, *policies = self.about
        values = schemas, names, functions, since.encode(), *policies
        return Command(_WITH_POLICIES if policies else _QUESTION, values, own=True)

    def hold(self, said: str | None) -> bool:
        """Whether that answer of the server is one by which all of it still holds."""
        if self.policies is not None:
            said, _, policies = (said or "").partition("\n")
            if policies != self.policies:
                return False
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
    policies: Iterable[Policy] = (),
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
    about: About = (schemas, names, _array(called))
    its = sorted(policies, key=lambda policy: int(policy.oid))
    if its:
        about += (_array(policy.oid for policy in its),)
    digests = [catalog.digests.get(table, _MISSING) for table in named]
    return Assumptions(
        about=about,
        answer=" ".join([*digests, "0"]),
        held=catalog.held,
        since=catalog.since,
        policies=",".join(f"{policy.oid} {policy.version}" for policy in its) if its else None,
    )


def _array(names: Iterable[str]) -> bytes:
    """Names, as PostgreSQL takes an array of them in text."""
    escaped = (name.replace("\\", "\\\\").replace('"', '\\"') for name in names)
    return ("{" + ",".join(f'"{name}"' for name in escaped) + "}").encode()
