"""The narrow roles that the guard works with: the SQL that makes them, from what they may do.

For a login `agents`, and a role `reader` that may read `sales` and two columns of `people`, the SQL
comes to this, while the search path is pinned:

    create role "agents" login;
    create role "reader" nologin;
    grant "reader" to "agents" with inherit false, set true, admin false;
    grant usage on schema "public" to "reader";
    grant select ("id", "name") on "public"."people" to "reader";
    grant select on "public"."sales" to "reader";

Before the grants on tables, it takes away what both had, and what everybody has by default. Before
all of it comes the guard's own schema, with the key and the functions for facts (`templates`).

A login is a member of narrow NOLOGIN roles, one for each class of trust, and of nothing else. It
inherits nothing from them. The guard takes on, for each statement, the narrowest of them that
covers what the statement needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import psycopg

from captoken._format.names import frozen_copy
from captoken._format.names import pattern as pattern_of
from captoken._language.capability import rights_of
from captoken._language.patterns import decided
from captoken._language.rights import NO_RIGHTS, Rights, RightsMap
from captoken.adapters._postgres.auditing import audit, pinned
from captoken.adapters._postgres.grammar import is_reserved
from captoken.adapters._postgres.names import (
    OPERATIONS,
    WITH_COLUMNS,
    literal,
    name_of,
    quoted,
    quoted_table,
)
from captoken.adapters._postgres.templates import (
    DANGEROUS,
    QUALS,
    ROLES,
    ROWS,
    SERIALS,
    SETUP,
    UNPINNED,
)
from captoken.adapters._postgres.text import Table

_is_role = re.compile(r"[a-z_][a-z0-9_]{0,62}").fullmatch

# PostgreSQL cuts names to this many bytes.
_LONGEST_NAME = 63

# Without quotes these stand for something else, as each reserved word does: `current_user` for
# whoever runs the plan. Quoted, as they are here, they would be roles that nobody can name without
# a mistake.
_NO_ROLES = frozenset(("none", "public"))

# All tables that a role can be granted.
TABLES = """
select n.nspname, c.relname
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'v', 'm', 'p', 'f') and n.nspname !~ '^pg_'
and n.nspname not in ('information_schema', 'captoken_guard') order by 1, 2
"""


class Role(NamedTuple):
    """A narrow role, for one class of trust. What it may do is said as in a token.

    Role("reader", {"sales": ["select"], "people": ["select"]}, columns={"people": ["id", "name"]})
    """

    name: str

    # The operations, by the name of a table or a pattern of names.
    allow: Mapping[str, Iterable[str]]

    # The columns that these are limited to, by the same. A table without an entry has all.
    columns: Mapping[str, Iterable[str]] = {}

    # The columns that can be conditions on rows: "orders.tenant", "market.*.tenant". What the most
    # specific pattern says decides, and "countries." says none.
    rows: Iterable[str] = ()


def apply_plan(
    connection: psycopg.Connection[Any],
    login: str,
    *roles: Role,
    adopt: bool = False,
) -> list[str]:
    """Make the login and the roles in the database of a superuser's connection, and audit it.

    All or nothing: in a transaction of its own, or as part of yours. What comes back is what lets
    the login do more than its grants, a line each; an empty list is what you want. What a function
    does, nobody but its owner can say.

    Raises ValueError for what cannot be planned (`plan_sql`), also for a table that is not there.
    Raises psycopg's RaiseException for a role that exists and was made by no plan (unless `adopt`),
    and for a schema `captoken_guard` of somebody else's.
    """
    with connection.transaction(), connection.cursor() as cursor:
        tables = tables_of(connection)
        for role in roles:
            sql = plan_sql(login, role, tables, adopt=adopt)
            cursor.execute(sql.encode())
        return audit(connection, login)


def tables_of(connection: psycopg.Connection[Any]) -> list[Table]:
    """All tables that there are in a database, but for those that no role can be granted."""
    with pinned(connection) as cursor:
        rows = cursor.execute(TABLES.encode()).fetchall()
    return [(str(schema), str(name)) for schema, name in rows]


def plan_sql(
    login: str,
    role: Role,
    tables: Iterable[Table] | None = None,
    *,
    adopt: bool = False,
) -> str:
    """The SQL for a login and one class of trust, to be run by a superuser, as often as needed.

    `tables` are those that there are (`TABLES`), so that patterns can be spelled out. A role that
    exists and was made by no plan is an error of the SQL, unless `adopt`: then it loses all that a
    narrow role has not.

    Raises ValueError for a name that is none, for an operation that no role can be granted, and
    for a pattern where `tables` are not given.
    """
    _check_names(login, role.name)
    role = _read(role)
    rights = _rights_of(role)
    if tables is None:
        known = _tables_named_by(role)
    else:
        known = list(tables)
        _check_tables_exist(role, known)

    # In an order that is the same each time, so that a plan can be compared with the one before.
    schemas: set[str] = set()
    grants: list[str] = []
    conditions = _conditions_of(role)
    held: dict[str, dict[str, Any]] = {}
    for table in sorted(set(known)):
        name = name_of(table)
        if name is None:
            if tables is None:
                raise ValueError(f"{'.'.join(table)!r} is not a table that can be granted")
            continue  # one that is there, and that no token can name: nobody asked for it

        right = decided(rights, name, NO_RIGHTS)
        granted = _grants_on(table, right, name, role.name)
        if granted:
            schema, _ = table
            schemas.add(schema)
            grants += granted
            columns = decided(conditions, name, ())
            if columns:
                held[name] = {"table": quoted_table(table), "columns": sorted(columns)}

    setup = SETUP + ROLES.format(
        login=quoted(login),
        role=quoted(role.name),
        named_login=literal(login),
        named_role=literal(role.name),
        dangerous=DANGEROUS,
        adopt=str(adopt).lower(),
    )
    usage = [
        f"grant usage on schema {quoted(schema)} to {quoted(role.name)};"
        for schema in sorted(schemas)
    ]
    lines = [
        setup.strip(),
        "",
        f"-- What {role.name} may do.",
        *usage,
        *grants,
        *_policies(held, role.name),
        UNPINNED.rstrip(),
        "",
    ]
    return "\n".join(lines)


def _check_names(login: str, role: str) -> None:
    """Both are names that people can write without quotes, and mean a role by. They differ."""
    for name in (login, role):
        if _is_role(name) is None or name.startswith("pg_"):
            raise ValueError(f"the name of a role may only have a-z, 0-9 and _, not {name!r}")
        if name in _NO_ROLES or is_reserved(name):
            raise ValueError(
                f"{name!r} is a reserved word of SQL: choose another name for the role"
            )
    if login == role:
        raise ValueError("the login and its role are two roles: give them different names")


def _rights_of(role: Role) -> RightsMap:
    """What the role may do, by pattern, read as a token is read."""
    allow = dict(role.allow)
    for operations in allow.values():
        for operation in operations:
            if operation not in OPERATIONS:
                raise ValueError(
                    f"a role can be granted {', '.join(OPERATIONS)}, not {operation!r}"
                )

    # As a token states them. No columns at all would be another statement than none restricted.
    stated = {"allow": allow}
    if role.columns:
        stated["columns"] = dict(role.columns)
    return rights_of(stated)


def _read(role: Role) -> Role:
    """The role as it is now: each mapping and each list in it read once. Raises TypeError."""
    return Role(
        role.name,
        {pattern: list(given) for pattern, given in frozen_copy(role.allow, "allow").items()},
        {pattern: list(given) for pattern, given in frozen_copy(role.columns, "columns").items()},
        [role.rows] if isinstance(role.rows, str) else list(role.rows),
    )


def _conditions_of(role: Role) -> dict[str, set[str]]:
    """The columns that can be conditions on rows, by pattern. Raises ValueError for what is none.

    `orders.tenant` is the column `tenant` of `orders`, and `orders.` no column of it.
    """
    found: dict[str, set[str]] = {}
    for stated in role.rows:
        pattern, _, column = stated.rpartition(".")
        if not pattern:
            raise ValueError(f"write rows as table and column, like orders.tenant, not {stated!r}")
        found.setdefault(pattern_of(pattern, "table"), set()).update({column} - {""})
    return found


def _policies(held: Mapping[str, Mapping[str, Any]], role: str) -> list[str]:
    """What makes the policies of a role, by the names of tables in tokens."""
    if not held:
        return []
    if len(f"captoken_{role}") > _LONGEST_NAME:
        raise ValueError(
            f"the name of role {role} is too long for a role that restricts rows: give it a "
            "shorter one"
        )
    quals = ", ".join(f"({literal(of)}, {literal(asked)})" for of, asked in QUALS.items())
    stated = f"{literal(json.dumps(held))}::jsonb"
    body = ROWS.format(rows=stated, role=role, quals=quals)
    return ["", "-- Rows: which columns can be conditions.", f"do {literal(body)};"]


def _tables_named_by(role: Role) -> list[Table]:
    """The tables that a role names, where nobody says which ones there are. Refuses patterns."""
    for pattern in (*role.allow, *role.columns, *_conditions_of(role)):
        if "*" in pattern:
            message = f"pattern {pattern!r} needs a database, to look up the tables it stands for"
            raise ValueError(message)
    return [_table_of(pattern) for pattern in role.allow]


def _check_tables_exist(role: Role, known: Iterable[Table]) -> None:
    """A name that is no pattern is one of a table: a slip would otherwise grant nothing, unseen."""
    names = {name_of(table) for table in known}
    for stated in (*role.allow, *role.columns, *_conditions_of(role)):
        is_pattern = "*" in stated
        if not is_pattern and stated not in names:
            raise ValueError(f"there is no table {stated!r}")


def _table_of(name: str) -> Table:
    """The table that goes by a name in tokens."""
    schema, dot, table = name.partition(".")
    return (schema, table) if dot else ("public", name)


def _grants_on(
    table: Table,
    right: Rights,
    name: str,
    role: str,
) -> list[str]:
    """The grants for one table, a statement each. None where the role has no right to it.

    Raises ValueError for a delete that is limited to columns.
    """
    grants: list[str] = []
    for operation in OPERATIONS:
        if operation not in right.operations:
            continue
        if right.columns is not None and operation not in WITH_COLUMNS:
            raise ValueError(f"{operation} on {name} cannot be granted by columns")

        columns = _column_list(right.columns)
        grants.append(f"grant {operation}{columns} on {quoted_table(table)} to {quoted(role)};")
        if operation == "insert":
            # An insert takes the next number of the serial columns.
            body = SERIALS.format(table=literal(quoted_table(table)), role=quoted(role))
            grants.append(f"do {literal(body)};")  # a literal: a name can hold any $tag$
    return grants


def _column_list(columns: Iterable[str] | None) -> str:
    """The columns in a GRANT. Nothing is the whole table, which `*` means too."""
    if columns is None or "*" in columns:
        return ""
    return f" ({', '.join(map(quoted, sorted(columns)))})"
