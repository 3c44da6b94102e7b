"""What the roles of a login may do, and what names mean in its database: read in one query."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from captoken._language.access import Access
from captoken.adapters._postgres.lists import FIELDS
from captoken.adapters._postgres.templates import INTACT
from captoken.adapters._postgres.text import Functions, Table

# What several parts of the query build on:
# - roles: those that the login can take on, but for logins and PostgreSQL's own. Before release 16,
#   a member can take on any role, and inherits from all or none, as its own `rolinherit` says;
# - tables: all that are granted at all, with their columns. The guard's own schema is not;
# - uses: each role with each table that it can use, and what it may do there. A right is true for
#   the whole table, or else a list of columns.
_COMMON = """
with roles as materialized (
    select r.oid, r.rolname from pg_catalog.pg_auth_members m
    join pg_catalog.pg_roles r on r.oid = m.roleid
    where m.member = (select oid from pg_catalog.pg_roles where rolname = session_user)
    and coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)
    and not r.rolcanlogin and r.rolname !~ '^pg_'
), tables as materialized (
    select c.oid, n.nspname, c.relname,
        array_agg(a.attname::text order by a.attnum) as columns,
        (select json_agg(json_build_array(k.conname, k.contype, array(
            select its.attname from pg_catalog.pg_attribute its
            where its.attrelid = c.oid and its.attnum = any (k.conkey))))
        from pg_catalog.pg_constraint k
        where k.conrelid = c.oid and k.contype in ('p', 'u') and not k.condeferrable)::text as keys,
        encode(sha256(convert_to(
            array_agg(a.attname order by a.attnum)::text, 'UTF8')), 'hex') as digest
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relkind in ('r', 'v', 'm', 'p', 'f') and n.nspname !~ '^pg_'
    and n.nspname not in ('information_schema', 'captoken_guard')
    group by 1, 2, 3
), uses as (
    select r.rolname, t.*, (
        select json_object_agg(o, case
            when has_table_privilege(r.oid, t.oid, o) then 'true'::json
            when o <> 'delete' then (
                select to_json(array_agg(a.attname)) from pg_catalog.pg_attribute a
                where a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
                and has_column_privilege(r.oid, t.oid, a.attnum, o)
            ) end)
        from unnest(array['select', 'insert', 'update', 'delete']) o
    ) as rights
    from roles r cross join tables t
    where has_any_column_privilege(r.oid, t.oid, 'select, insert, update')
    or has_table_privilege(r.oid, t.oid, 'delete')
)
"""

# What is read, by the key under which it comes back.
_PARTS = {
    # The login as it is.
    "login": """
        select row_to_json(l) from (
            select rolname, rolsuper, rolbypassrls, rolcreaterole, rolreplication
            from pg_catalog.pg_roles
            where rolname = session_user
        ) l
    """,
    # The database, and as of when this is.
    "database": "select to_json(current_database())",
    "since": "select to_json(pg_current_snapshot()::text)",
    # The roles that it has for more than to take them on, and those that are not narrow.
    "inherits": """
        select coalesce(json_agg(m.roleid::regrole::text), '[]')
        from pg_catalog.pg_auth_members m join pg_catalog.pg_roles login on login.oid = m.member
        where login.rolname = session_user and (m.admin_option
            or coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, login.rolinherit)
            or m.roleid not in (select oid from roles))
    """,
    # The roles that are more than narrow, or members of others.
    "powerful": """
        select coalesce(json_agg(r.rolname), '[]')
        from roles join pg_catalog.pg_roles r using (oid)
        where r.rolsuper or r.rolbypassrls or r.rolcreaterole or r.rolreplication
        or exists (select from pg_catalog.pg_auth_members where member = r.oid)
    """,
    # What belongs to the login or to one of the roles: an owner may do everything with it.
    "owns": """
        select coalesce(json_agg(relname::text), '[]') from pg_catalog.pg_class
        where relpersistence <> 't'
        and (relowner = (select oid from pg_catalog.pg_roles where rolname = session_user)
        or relowner in (select oid from roles))
    """,
    # Whether a plan of this release made this login.
    "ready": """
        select has_schema_privilege(session_user, oid, 'usage') and 2 = (
            select count(*) from pg_catalog.pg_proc
            where pronamespace = n.oid and proname in ('open', 'seen'))
        from pg_catalog.pg_namespace n where nspname = 'captoken_guard'
    """,
    # The functions that the owner put on the search path (T6), of those that a role may execute.
    # Those of an extension do not count, as long as they have the rights of the caller.
    "functions": """
        select coalesce(json_agg(distinct p.proname), '[]') from pg_catalog.pg_proc p
        where p.pronamespace = to_regnamespace('public') and (p.prosecdef or not exists (
            select from pg_catalog.pg_depend
            where classid = 'pg_proc'::regclass and objid = p.oid and deptype = 'e'))
        and exists (select from roles r where has_function_privilege(r.oid, p.oid, 'execute'))
    """,
    # The fields of composite types, of those that a column has (T7).
    "fields": """
        select coalesce(json_agg(distinct a.attname), '[]') from pg_catalog.pg_attribute a
        join pg_catalog.pg_class c on c.oid = a.attrelid and c.relkind = 'c'
        join pg_catalog.pg_type t on t.oid = c.reltype
        where a.attnum > 0 and not a.attisdropped and exists (
            select from uses u join pg_catalog.pg_attribute its on its.attrelid = u.oid
            where its.atttypid in (t.oid, t.typarray) and not its.attisdropped)
    """,
    # Enums, which are granted beside the types on the list (T6), each with the columns that are of
    # that type. One that is called like a type of PostgreSQL's own is left out: without a schema,
    # the name means the other one.
    "types": """
        select coalesce(json_agg(json_build_array(n.nspname, t.typname, (
            select coalesce(json_agg(json_build_array(u.nspname, u.relname, a.attname)), '[]')
            from pg_catalog.pg_attribute a
            join (select distinct oid, nspname, relname from uses) u on u.oid = a.attrelid
            where a.atttypid in (t.oid, t.typarray) and a.attnum > 0 and not a.attisdropped
        ))), '[]')
        from pg_catalog.pg_type t
        join pg_catalog.pg_namespace n on n.oid = t.typnamespace where t.typtype = 'e'
        and not exists (select from pg_catalog.pg_type own
            where own.typname = t.typname and own.typnamespace = 'pg_catalog'::regnamespace)
    """,
    # The policies of plans that hold rows, each with the comment that it was made with. `xmin` is
    # another one as soon as anything of it is changed.
    "policies": f"""
        select coalesce(json_agg(json_build_array(r.rolname, n.nspname, c.relname, p.oid::text,
            p.xmin::text, case when {INTACT} then obj_description(p.oid, 'pg_policy') end)), '[]')
        from roles r join pg_catalog.pg_policy p on p.polname = 'captoken_' || r.rolname
        join pg_catalog.pg_class c on c.oid = p.polrelid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    """,  # noqa: S608 – of constants
    # What is no table, or has such a policy: which it is, and the types of its columns. Left out
    # are those of which a collation takes two values for one.
    "kinds": """
        select coalesce(json_agg(json_build_array(u.nspname, u.relname, c.relkind, (
            select json_object_agg(a.attname, a.atttypid::regtype::text)
            from pg_catalog.pg_attribute a
            left join pg_catalog.pg_collation o on o.oid = a.attcollation
            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            and coalesce(o.collisdeterministic, true)))), '[]')
        from (select distinct oid, nspname, relname from uses) u
        join pg_catalog.pg_class c on c.oid = u.oid
        where c.relkind in ('v', 'm', 'f') or exists (select from pg_catalog.pg_policy
            where polrelid = c.oid and polname ~ '^captoken_')
    """,
    # What a statement reaches beside the tables that it names: what views and rules read and write,
    # with the rights of their owners or through those of the caller; partitions and children, and
    # what they belong to; what foreign keys delete or change, and by which columns.
    "related": r"""
        select coalesce(json_agg(json_build_array(
            e.kind, m.nspname, b.relname, n.nspname, c.relname, e.columns)), '[]')
        from (
            select distinct case when v.relkind = 'v' and r.ev_type = '1' and exists (
                select from pg_catalog.pg_options_to_table(v.reloptions)
                where option_name = 'security_invoker'
                and option_value in ('true', 'on', 'yes', '1', 't'))
                then 'through' else 'exposed' end as kind,
                r.ev_class as one, d.refobjid as other, null::name[] as columns
            from pg_catalog.pg_rewrite r join pg_catalog.pg_class v on v.oid = r.ev_class
            join pg_catalog.pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
            and d.refclassid = 'pg_class'::regclass and d.refobjid <> r.ev_class
            union all select 'down', inhparent, inhrelid, null from pg_catalog.pg_inherits
            union all select 'up', inhrelid, inhparent, null from pg_catalog.pg_inherits
            union all select 'delete', confrelid, conrelid, null from pg_catalog.pg_constraint
            where contype = 'f' and confdeltype in ('c', 'n', 'd')
            union all select 'update', k.confrelid, k.conrelid, array(
                select a.attname from pg_catalog.pg_attribute a
                where a.attrelid = k.confrelid and a.attnum = any (k.confkey))
            from pg_catalog.pg_constraint k
            where k.contype = 'f' and k.confupdtype in ('c', 'n', 'd')
        ) e
        join pg_catalog.pg_class b on b.oid = e.one and b.relkind not in ('i', 'I')
        join pg_catalog.pg_namespace m on m.oid = b.relnamespace
        join pg_catalog.pg_class c on c.oid = e.other
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where m.nspname !~ '^pg_' and n.nspname !~ '^pg_' and m.nspname <> 'information_schema'
    """,
    # What the roles may do.
    "uses": """
        select coalesce(json_agg(json_build_array(rolname, nspname, relname, columns,
        rights, digest, keys)), '[]') from uses
    """,
}

# One row, with one value: all parts in one object of JSON.
CATALOG = "\n".join(
    (
        _COMMON.strip(),
        "select json_build_object(",
        ",\n".join(f"    '{key}', ({query.rstrip()}\n    )" for key, query in _PARTS.items()),
        ")::text",
    )
)

Use: TypeAlias = tuple[Table, str]  # a table, and what is done with it
# By use, the columns for which a role has the right. None is the whole table.
Rights: TypeAlias = dict[Use, frozenset[str] | None]


class Need(NamedTuple):
    """An operation on a table, with its columns. None is all of them."""

    table: Table
    operation: str
    columns: frozenset[str] | None


class Policy(NamedTuple):
    """What the plan holds of the rows of a table, for one role."""

    # By what the server says that it is still the same one.
    oid: str
    version: str

    # The columns that can be conditions: none where it is not as the plan made it.
    columns: frozenset[str]


class Related(NamedTuple):
    """What is reached beside a table that a statement names."""

    # How: with the rights of somebody else (`exposed`), by a view through those of the caller
    # (`through`), as a part of it (`down`), or as what it is a part of (`up`).
    how: str
    table: Table

    # What it is a part of, or has as a part.
    of: Table


class Catalog:
    """What the roles of one login may do, as it was when it was read."""

    def __init__(
        self, row: Mapping[str, Any], functions: Functions
    ) -> None:
        # T6. The owner's functions that the server listed, and all that are on the search path.
        self.database = row["database"]
        self.since = row["since"]
        # As of when it was found later that something in it still holds (`assumptions`).
        self.held: dict[tuple[bytes, ...], str] = {}
        self.allowed = functions
        self.foreign = frozenset(row["functions"])
        # T7. Names after a dot that are mostly fields.
        self.fields = FIELDS | frozenset(row["fields"])
        # T6. Enums, by schema and name, with the columns that are of that type.
        self.types: dict[tuple[str, str], list[tuple[Table, str]]] = {
            (schema, name): [((of, table), column) for of, table, column in users]
            for schema, name, users in row["types"]
        }

        # All columns of each table that some role can use, in their order.
        self.every: dict[Table, tuple[str, ...]] = {}
        # The primary key of each, and the columns of its other keys, by their names.
        self.keys: dict[Table, frozenset[str]] = {}
        self.constraints: dict[tuple[Table, str], frozenset[str]] = {}
        # The same as the server's function `seen` says it: see `assumptions`.
        self.digests: dict[Table, str] = {}
        # The policies that hold rows, by role; and of views, and of tables that have one, what they
        # are and the types of their columns.
        self.policies: dict[tuple[str, Table], Policy] = {}
        for role, schema, name, oid, version, comment in row["policies"]:
            _, _, columns = (comment or " []").partition(" ")
            made = Policy(oid, version, frozenset(json.loads(columns)))
            self.policies[role, (schema, name)] = made
        self.declared = {table for _, table in self.policies}
        self.kinds: dict[Table, tuple[str, dict[str, str]]] = {
            (schema, name): (kind, types) for schema, name, kind, types in row["kinds"]
        }
        self._edges: dict[Table, list[tuple[str, Table, frozenset[str] | None]]] = {}
        for how, schema, name, other_schema, other, names in row["related"]:
            edge = how, (other_schema, other), None if names is None else frozenset(names)
            self._edges.setdefault((schema, name), []).append(edge)

        self._roles: dict[str, Rights] = {}
        for role, schema, name, columns, rights, digest, keys in row["uses"]:
            table = (schema, name)
            self.every[table] = tuple(columns)
            self.digests[table] = digest
            for key, kind, its in json.loads(keys or "[]"):
                self.constraints[table, key] = frozenset(its)
                if kind == "p":
                    self.keys[table] = frozenset(its)
            held = self._roles.setdefault(role, {})
            held.update(_rights_to(table, rights))

        # The order in which roles are tried. The name decides between roles that are equally wide.
        self.narrowest = sorted(self._roles, key=lambda role: (self._width(role), role))

    def role_for(self, needs: Sequence[Need]) -> str | None:
        """The narrowest role that covers all needs, or None. No two roles are ever added up."""
        return next((role for role in self.narrowest if self._has_all(role, needs)), None)

    def _has_all(self, role: str, needs: Sequence[Need]) -> bool:
        held = self._roles[role]
        return all(self._covers(held, need) for need in needs)

    def nearest(self, needs: Sequence[Need]) -> str | None:
        """The role that covers all needs but for columns, and most of these. None if none does."""

        def covered(role: str) -> int:
            held = self._roles[role]
            count = 0
            for need in needs:
                columns = held[need.table, need.operation]
                named = need.columns or frozenset()
                count += len(named if columns is None else columns & named)
            return count

        tables = [need._replace(columns=frozenset()) for need in needs]
        able = [role for role in self.narrowest if self._has_all(role, tables)]
        return max(able, key=covered, default=None)

    def limits(self, table: Table, operation: str, role: str | None) -> frozenset[str] | None:
        """The columns with which a role may do that: None if it is no matter of columns.

        Without a role, those with which any of them may.
        """
        roles = self._roles.values() if role is None else (self._roles[role],)
        found: frozenset[str] = frozenset()
        for held in roles:
            columns = held.get((table, operation), frozenset())
            if columns is None:
                return None
            found |= columns
        return found or None

    def related(self, need: Need) -> list[Related]:
        """What a need reaches beside its table: see `_PARTS`. Nothing for nearly all tables."""
        if need.table not in self._edges:
            return []
        found: dict[Related, None] = {}
        to_come = [Related("", need.table, need.table)]
        while to_come:
            before = to_come.pop()
            for how, table, columns in self._edges.get(before.table, ()):
                if how in ("delete", "update"):
                    named = need.columns if before.table == need.table else None
                    spared = columns is not None and named is not None and not columns & named
                    first = before.how != "exposed"
                    if need.operation == "select" or (first and (how != need.operation or spared)):
                        continue
                    how = "exposed"
                if before.how == "exposed":
                    how = "exposed"
                elif before.how in ("up", "down") and how not in (before.how, "exposed"):
                    continue
                of = before.of if before.how in ("up", "down") else before.table
                related = Related(how, table, of)
                if related not in found:
                    found[related] = None
                    to_come.append(related)
        return list(found)

    def lacking(self, accesses: Sequence[Access]) -> tuple[str, str, Access]:
        """What the roles lack, though the token permits it: a code, a sentence and the access.

        It is for the operator, who can plan the roles anew.
        """
        for access in accesses:
            if access.operation == "execute":
                continue
            schema, _, name = (access.table or "").rpartition(".")
            operations = self._operations_on((schema or "public", name))
            if access.operation not in operations:
                sentence = (
                    f"no role of this login may {access.operation} on table {access.table}: "
                    "see `captoken postgres plan`"
                )
                return "operation" if operations else "table", sentence, access

        sentence = (
            "no one role of this login has all that the statement needs: "
            "see `captoken postgres plan`"
        )
        return "table", sentence, accesses[0]

    def _operations_on(self, table: Table) -> set[str]:
        """What any of the roles may do with a table, or with columns of it."""
        uses = (use for held in self._roles.values() for use in held)
        return {operation for its, operation in uses if its == table}

    def _width(self, role: str) -> int:
        """How many columns a role may do something with. A whole table counts for one more."""
        return sum(
            len(self.every[table]) + 1 if columns is None else len(columns)
            for (table, _), columns in self._roles[role].items()
        )

    def _covers(self, held: Rights, need: Need) -> bool:
        use = (need.table, need.operation)
        if use not in held:
            return False

        # A right that is limited to columns covers no other name, whether that is a column or not.
        columns = held[use]
        named = self.every[need.table] if need.columns is None else need.columns
        return columns is None or columns.issuperset(named)


def _rights_to(table: Table, rights: Mapping[str, Any]) -> Rights:
    """The rights of one role to one table, as the catalog says them: true, columns, or nothing."""
    return {
        (table, operation): None if right is True else frozenset(right)
        for operation, right in rights.items()
        if right
    }

