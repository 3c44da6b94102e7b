"""The roles of the PostgreSQL guard: the SQL that makes them, an audit of what undermines them, and what each may do.

A login is a member of narrow NOLOGIN roles, one for each class of trust, and of nothing else; it inherits nothing from them.
The guard takes on, for each statement, the narrowest of them that covers what the statement needs (`Catalog.plan`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import tuple_row

from captoken._format.names import segmented
from captoken._language.access import Access
from captoken._language.capability import NO_RIGHTS, rights_of
from captoken._language.patterns import decided
from captoken.adapters._postgres.lists import SYSTEM_COLUMNS, refused_function
from captoken.adapters._postgres.text import KEPT, Reference, Scope, Table, Text

SCHEMA = "captoken_guard"
OPERATIONS = ("select", "insert", "update", "delete")
NEVER_GRANTED = "catalogs, and names that no token can hold, are never granted"
_WITH_COLUMNS = frozenset(("select", "insert", "update"))
_MOST = 1_000_000  # columns times tables: some tenths of a second
_is_role = re.compile(r"[a-z_][a-z0-9_]{0,62}").fullmatch

# Functions that everybody may execute, and nobody who runs SQL of an agent's needs.
_DANGEROUS = (
    "^(set_config|pg_sleep.*|pg_notify|pg_(try_)?advisory.*|lo_.*|loread|lowrite|(query|table|cursor|schema|database)_to_xml.*"
    "|ts_(stat|rewrite)|crosstab.*|connectby|xpath_table|pg_(cancel|terminate)_backend|pg_export_snapshot|pg_logical_emit_message|pg_log_backend_memory_contexts"
    "|dblink.*|pg_read_.*|pg_ls_.*|pg_stat_file)$"
)


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string in SQL, whatever standard_conforming_strings says."""
    if "\\" in text:
        return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + text.replace("'", "''") + "'"


# --- what the roles of a login may do --------------------------------------------------------------------------------

# One row: the login as it is, the functions that the owner put on the search path (those of an extension do not count, as
# long as they have the caller's rights), what can be called with one argument, where a name without a schema is looked up
# (not the row types of what the roles use), enums, and each role with each table that it can use.
CATALOG = """
with roles as materialized (
    select r.oid, r.rolname from pg_catalog.pg_auth_members m join pg_catalog.pg_roles r on r.oid = m.roleid
    where m.member = (select oid from pg_catalog.pg_roles where rolname = session_user)
    and m.set_option and not r.rolcanlogin and r.rolname !~ '^pg_'
), tables as materialized (
    select c.oid, n.nspname, c.relname, array_agg(a.attname::text order by a.attnum) as columns
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
    where has_any_column_privilege(r.oid, t.oid, 'select, insert, update') or has_table_privilege(r.oid, t.oid, 'delete')
)
select json_build_object(
    'login', (select row_to_json(l) from (
        select rolname, rolsuper, rolbypassrls, rolcreaterole, rolreplication from pg_catalog.pg_roles
        where rolname = session_user
    ) l),
    'inherits', (select coalesce(json_agg(roleid::regrole::text), '[]') from pg_catalog.pg_auth_members
        where member = (select oid from pg_catalog.pg_roles where rolname = session_user)
        and (inherit_option or admin_option or not set_option or roleid not in (select oid from roles))),
    'powerful', (select coalesce(json_agg(r.rolname), '[]') from roles join pg_catalog.pg_roles r using (oid)
        where r.rolsuper or r.rolbypassrls or r.rolcreaterole or r.rolreplication
        or exists (select from pg_catalog.pg_auth_members where member = r.oid)),
    'owns', (select coalesce(json_agg(relname::text), '[]') from pg_catalog.pg_class where relpersistence <> 't'
        and (relowner = (select oid from pg_catalog.pg_roles where rolname = session_user)
        or relowner in (select oid from roles))),
    'ready', (select has_schema_privilege(session_user, oid, 'usage') from pg_catalog.pg_namespace
        where nspname = 'captoken_guard'),
    'functions', (select coalesce(json_agg(distinct p.proname), '[]') from pg_catalog.pg_proc p
        where p.pronamespace = to_regnamespace('public') and (p.prosecdef or not exists (
            select from pg_catalog.pg_depend where classid = 'pg_proc'::regclass and objid = p.oid and deptype = 'e'))),
    'callable', (select json_agg(name) from (
        select p.proname as name from pg_catalog.pg_proc p where p.prokind <> 'p' and p.pronargs > 0
        and p.pronamespace in ('pg_catalog'::regnamespace, to_regnamespace('public'))
        and (p.pronargs - p.pronargdefaults <= 1 or p.provariadic <> 0)
        union select t.typname from pg_catalog.pg_type t
        where t.typnamespace in ('pg_catalog'::regnamespace, to_regnamespace('public'))
        and t.typrelid not in (select oid from uses)
    ) c),
    'types', (select coalesce(json_agg(json_build_array(n.nspname, t.typname)), '[]') from pg_catalog.pg_type t
        join pg_catalog.pg_namespace n on n.oid = t.typnamespace where t.typtype = 'e'),
    'uses', (select coalesce(json_agg(json_build_array(rolname, nspname, relname, columns, rights)), '[]') from uses)
)::text
"""


class Need(NamedTuple):
    """An operation on a table, with its columns; None is all of them."""

    table: Table
    operation: str
    columns: frozenset[str] | None


class Plan(NamedTuple):
    """What a statement needs: in all, of the grant; and the role that covers it, or None."""

    refusal: tuple[str, str] | None
    accesses: tuple[Access, ...]
    role: str | None
    unknown: tuple[
        str, ...
    ]  # columns of no table in sight, that the statement does not make itself
    doubtful: frozenset[str] = frozenset()  # those that it may make itself
    restricted: frozenset[int] = (
        frozenset()
    )  # which of the accesses some role has for some columns alone
    by_columns: bool = False  # a role covers all but the columns


class Catalog:
    """What the roles of one login may do, as it was when it was read."""

    def __init__(
        self, row: Mapping[str, Any], functions: frozenset[tuple[str | None, str]]
    ) -> None:
        self.allowed = functions
        self.foreign = frozenset(row["functions"])
        self.callable = frozenset(
            row["callable"]
        )  # row types of what the roles use are in `columns`
        self.types = frozenset((schema, name) for schema, name in row["types"])
        self.columns: dict[Table, frozenset[str]] = {}
        self.roles: dict[str, dict[tuple[Table, str], frozenset[str] | None]] = {}
        for role, schema, name, columns, rights in row["uses"]:
            table = (schema, name)
            self.columns[table] = frozenset(columns)
            held = self.roles.setdefault(role, {})
            for operation, right in rights.items():
                if right is True:
                    held[table, operation] = None
                elif right:
                    held[table, operation] = frozenset(right)
        width = {
            role: (sum(self._width(*right) for right in held.items()), role)
            for role, held in self.roles.items()
        }
        self.narrowest = sorted(self.roles, key=width.__getitem__)
        self.plans: dict[str, Plan] = {}

    def _width(self, use: tuple[Table, str], columns: frozenset[str] | None) -> int:
        return len(self.columns[use[0]] if columns is None else columns) + (columns is None)

    def plan(self, text: Text) -> Plan:
        """What the statement needs here."""
        plan = self.plans.get(text.sql)
        if plan is None:
            plan = self._plan(text)
            if len(text.sql) <= KEPT:
                if len(self.plans) >= 512:
                    self.plans.clear()
                self.plans[text.sql] = plan
        return plan

    def short(self, accesses: Sequence[Access]) -> tuple[str, str, Access]:
        """What the roles lack, though the token permits it: for the operator, who can plan them anew."""
        for access in accesses:
            schema, _, name = (access.table or "").rpartition(".")
            held = {
                use[1]
                for uses in self.roles.values()
                for use in uses
                if use[0] == (schema or "public", name)
            }
            if access.operation not in held and access.operation != "execute":
                text = f"no role of this login may {access.operation} on table {access.table}: see `captoken postgres plan`"
                return "operation" if held else "table", text, access
        return (
            "table",
            "no one role of this login has all that the statement needs: see `captoken postgres plan`",
            accesses[0],
        )

    def _plan(self, text: Text) -> Plan:
        references = list(dict.fromkeys(text.references))
        if len(references) * (len(text.reads) + len(text.writes)) > _MOST:
            return Plan(
                (
                    "operation",
                    "a statement with more columns, times tables, than can be told apart",
                ),
                (),
                None,
                (),
            )
        levels: dict[Scope, list[Scope]] = {}
        for scope in {reference.scope for reference in references}:
            levels[scope] = [level for level in scope.outward() if level.tables]
        needs, unknown, doubtful = self._needs(text, references, levels)
        accesses: list[Access] = []
        for need in needs:
            access = access_to(need.table, need.operation, need.columns)
            if access is None:
                return Plan(("table", NEVER_GRANTED), (), None, ())
            accesses.append(access)
        calls = text.functions | self._dotted(text, references, levels)
        called = {
            access.table: access
            for access in (function_access(*call) for call in sorted(calls & self.allowed, key=str))
        }
        return Plan(
            self._refusal(text, calls),
            (*accesses, *called.values()),
            self._role(needs),
            unknown,
            doubtful,
            frozenset(at for at, need in enumerate(needs) if self._restricted(need)),
            self._role([need._replace(columns=frozenset()) for need in needs]) is not None,
        )

    def _dotted(
        self, text: Text, references: list[Reference], levels: Mapping[Scope, list[Scope]]
    ) -> set[tuple[str | None, str]]:
        """T7. The functions and types that a name after a dot can mean."""
        rows = {
            name for schema, name in self.columns if schema == "public"
        }  # a row is not cast to another, a value is
        names = {name for name in text.fields if name in self.callable or name in rows}
        for scope, qualifier, column in references:
            if qualifier is not None and (
                column in self.callable or (column in rows and qualifier in text.values)
            ):
                tables = {
                    table
                    for level in levels[scope]
                    for goes_by, table in level.tables
                    if goes_by == qualifier
                }
                joined = qualifier in text.declared or not tables
                if joined or any(column not in self.columns.get(table, ()) for table in tables):
                    names.add(column)
        return {
            (None, name)
            for name in names
            if ("public", name) not in self.types or name in self.foreign
        }

    def _refusal(self, text: Text, calls: set[tuple[str | None, str]]) -> tuple[str, str] | None:
        for schema, name in sorted(calls, key=str):
            if refused_function(schema, name, self.foreign, self.allowed):
                dotted = (
                    ""
                    if (schema, name) in text.functions
                    else ", as which a name after a dot can be read,"
                )
                return ("operation", f"function {name}{dotted} is not among those that are granted")
        for schema, name in sorted(text.types, key=str):
            if schema == "pg_catalog" or not (
                {("public" if schema is None else schema, name)} & self.types
            ):
                return ("operation", f"type {name} is not among those that are granted")
        return None

    def _needs(
        self, text: Text, references: list[Reference], levels: Mapping[Scope, list[Scope]]
    ) -> tuple[list[Need], tuple[str, ...], frozenset[str]]:
        reads: dict[Table, set[str] | None] = {table: set() for table in text.reads}
        unknown: dict[str, None] = {}
        for reference in references:
            found = False
            for table, columns in self._meant(reference, levels[reference.scope]):
                found = True
                kept = reads.setdefault(table, set())
                if kept is not None and columns is not None:
                    kept.add(columns)
                else:
                    reads[table] = None
            if not found and reference.column != "*" and not reference.qualifier:
                unknown[reference.column] = None
        needs = [
            Need(table, "select", None if columns is None else frozenset(columns))
            for table, columns in reads.items()
        ]
        needs += [
            Need(write.table, write.operation, _frozen(write.columns)) for write in text.writes
        ]
        made = text.declared.union(
            *(self.columns.get(table, ()) for table, columns in reads.items() if columns is None)
        )
        return (
            list(dict.fromkeys(needs)),
            tuple(name for name in unknown if name not in made),
            frozenset(unknown) & made,
        )

    def _meant(self, reference: Reference, levels: list[Scope]) -> list[tuple[Table, str | None]]:
        """T4, T5. The columns, by table, that a reference can mean; None is all."""
        scope, qualifier, column = reference
        meant: list[tuple[Table, str | None]] = []
        for level in levels:
            for goes_by, table in level.tables:
                if qualifier is None:
                    has = column in SYSTEM_COLUMNS or column in self.columns.get(table, (column,))
                    if column == "*":
                        meant += [(table, None)] if level is scope else []
                    elif column == goes_by or column in level.joins:  # a whole row
                        meant.append((table, None))
                    elif has:
                        meant.append((table, column))
                elif qualifier == goes_by:
                    meant.append((table, None if column == "*" else column))
                elif qualifier in level.joins:
                    has = column in SYSTEM_COLUMNS or column in self.columns.get(table, (column,))
                    meant += (
                        [(table, None if column == "*" else column)] if column == "*" or has else []
                    )
        return meant

    def _restricted(self, need: Need) -> bool:
        use = (need.table, need.operation)
        return any(held.get(use) is not None for held in self.roles.values())

    def _role(self, needs: list[Need]) -> str | None:
        for role in self.narrowest:
            held = self.roles[role]
            if all(self._covers(held, need) for need in needs):
                return role
        return None

    def _covers(self, held: Mapping[tuple[Table, str], frozenset[str] | None], need: Need) -> bool:
        use = (need.table, need.operation)
        if use not in held:
            return False
        columns = held[use]
        if columns is None:
            return True
        every = self.columns[need.table]
        # Of a name that is none, PostgreSQL says so itself. A system column has no right of its own.
        wanted = every if need.columns is None else need.columns & (every | SYSTEM_COLUMNS)
        return wanted <= columns


def _frozen(columns: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if columns is None else frozenset(columns)


def function_access(schema: str | None, name: str) -> Access:
    """What a call of a function that `functions` names is asked about as. Raises ValueError for one that no token can name."""
    return Access(
        table=name if schema in (None, "public") else f"{schema}.{name}", operation="execute"
    )


def access_to(table: Table, operation: str, columns: Iterable[str] | None) -> Access | None:
    """The access, or None if no token can name it. A table of `public` goes by its bare name."""
    name = name_of(table)
    if name is None:
        return None
    for stated in (
        None if columns is None else tuple(sorted(columns)),
        None,
    ):  # None: for names that no token can hold
        if stated is not None and operation not in _WITH_COLUMNS:
            continue
        try:
            return Access(table=name, operation=operation, columns=stated)
        except ValueError:
            continue
    return None


def name_of(table: Table) -> str | None:
    """The name that tokens know a table by, or None."""
    schema, name = table
    if (
        schema in ("information_schema", SCHEMA)
        or schema.startswith("pg_")
        or name.startswith("pg_")
    ):
        return None
    if "." in schema or "." in name or "*" in (schema, name):
        return None
    spelled = name if schema == "public" else f"{schema}.{name}"
    try:
        segmented(spelled, "table")
    except ValueError:
        return None
    return spelled


# --- the SQL that makes them -----------------------------------------------------------------------------------------


class Role(NamedTuple):
    """A narrow role, for one class of trust, and what it may do: `allow` and `columns` as in a token."""

    name: str
    allow: Mapping[str, Iterable[str]]
    columns: Mapping[str, Iterable[str]] = {}


TABLES = """
select n.nspname, c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'v', 'm', 'p', 'f') and n.nspname !~ '^pg_'
and n.nspname not in ('information_schema', 'captoken_guard') order by 1, 2
"""


def plan_sql(
    login: str, role: Role, tables: Iterable[Table] | None = None, *, adopt: bool = False
) -> str:
    """The SQL for a login and one class of trust, to be run by a superuser, again and again if need be.

    `tables` are those that there are (`TABLES`), so that patterns can be spelled out. A role that exists and was made by no
    plan is an error of the SQL, unless `adopt`: then it loses all that a narrow role has not.

    Raises ValueError for a name that is none, for an operation that no role can be granted, and for a pattern where
    `tables` are not given.
    """
    for own in (login, role.name):
        if _is_role(own) is None or own.startswith("pg_"):
            raise ValueError(f"a role is named by a-z, 0-9 and _: not {own!r}")
    if login == role.name:
        raise ValueError("the login and its role are two roles")
    stated = {"allow": {key: tuple(given) for key, given in role.allow.items()}}
    for operations in stated["allow"].values():
        for operation in operations:
            if operation not in OPERATIONS:
                raise ValueError(f"a role is granted {', '.join(OPERATIONS)}, not {operation!r}")
    if role.columns:
        stated["columns"] = {key: tuple(given) for key, given in role.columns.items()}
    rights = rights_of(stated)
    if tables is None:
        for pattern in (*role.allow, *role.columns):
            if "*" in pattern:
                raise ValueError(
                    f"pattern {pattern!r} needs a database that says which tables there are"
                )
        known = [_table_of(pattern) for pattern in role.allow]
    else:
        known = list(tables)
        there = {name_of(table) for table in known}
        for stated_name in (*role.allow, *role.columns):
            if "*" not in stated_name and stated_name not in there:
                raise ValueError(f"there is no table {stated_name!r}")
    grants: list[str] = []
    schemas: set[str] = set()
    for table in sorted(set(known)):
        name = name_of(table)
        if name is None and tables is None:
            raise ValueError(f"{'.'.join(table)!r} is no table that can be granted")
        right = NO_RIGHTS if name is None else decided(rights, name, NO_RIGHTS)
        for operation in OPERATIONS:
            if operation not in right.operations:
                continue
            if right.columns is not None and operation not in _WITH_COLUMNS:
                raise ValueError(f"{operation} on {name} cannot be granted by columns")
            every = right.columns is None or "*" in right.columns
            some = "" if every else f" ({', '.join(map(quoted, sorted(right.columns or ())))})"
            schemas.add(table[0])
            grants.append(
                f"grant {operation}{some} on {quoted(table[0])}.{quoted(table[1])} to {role.name};"
            )
            if operation == "insert":
                body = _SERIALS.format(
                    table=literal(f"{quoted(table[0])}.{quoted(table[1])}"), role=role.name
                )
                grants.append(f"do {literal(body)};")  # a literal, since a name can hold any $tag$
    usage = [
        f"grant usage on schema {quoted(schema)} to {role.name};" for schema in sorted(schemas)
    ]
    made = _SETUP + _ROLES.format(
        login=login, role=role.name, dangerous=_DANGEROUS, adopt=str(adopt).lower()
    )
    return "\n".join([made.strip(), "", f"-- What {role.name} may do.", *usage, *grants, ""])


def _table_of(name: str) -> Table:
    schema, dot, table = name.partition(".")
    return (schema, table) if dot else ("public", name)


_SERIALS = """declare its text; begin
    for its in select d.objid::regclass::text from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S'
        where d.refobjid = {table}::regclass and d.deptype = 'a' loop
            execute format('grant usage on sequence %s to {role}', its);
    end loop; end"""

_ROLES = """
-- A login that is a member of narrow roles, inherits nothing and owns nothing. Give it a password, or a certificate.
do $$ declare its text; how text; begin
    for its, how in values ('{login}', 'login'), ('{role}', 'nologin') loop
        if not exists (select from pg_roles where rolname = its) then
            execute format('create role %I %s', its, how);
            execute format('comment on role %I is %L', its, 'captoken');
        elsif {adopt} then
            execute format('comment on role %I is %L', its, 'captoken');
        elsif shobj_description(to_regrole(its), 'pg_authid') is distinct from 'captoken' then
            raise exception 'role % exists, and no plan made it: adopt it, or take another name', its;
        end if;
    end loop;
end $$;
alter role {login} noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls;
alter role {role} nologin noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls;
alter role {login} set search_path = pg_catalog, public, pg_temp;
grant {role} to {login} with inherit false, set true, admin false;
grant usage on schema captoken_guard to {login}, {role};
grant execute on function captoken_guard."begin"(text) to {login};
revoke all on captoken_guard.key from {login}, {role};
revoke all on function captoken_guard."begin"(text), captoken_guard.sign(text) from {role};
revoke all on function captoken_guard.sign(text) from {login};
grant execute on function captoken_guard.facts(), captoken_guard.subject(), captoken_guard.agent(), captoken_guard.task(),
    captoken_guard.chain(), captoken_guard.token() to {role};

-- What everybody may do by default, and an agent must not. Grant it again to who else needs it, by name.
do $$ declare its text; begin
    execute format('revoke temporary, create on database %I from public', current_database());
    execute format('revoke temporary, create on database %I from {login}, {role}', current_database());
    for its in select oid::regprocedure::text from pg_proc where proname ~ '{dangerous}' loop
        execute format('revoke execute on routine %s from public, {login}, {role}', its);
    end loop;
end $$;
revoke create on schema public from public;
revoke usage on language plpgsql from public;
do $$ declare its text; begin
    for its in select nspname from pg_namespace
        where nspname !~ '^pg_' and nspname not in ('information_schema', 'captoken_guard') loop
        execute format('revoke all on all tables in schema %I from {login}, {role}', its);
        execute format('revoke all on all sequences in schema %I from {login}, {role}', its);
        execute format('revoke all on schema %I from {login}, {role}', its);
    end loop;
end $$;
"""

# `begin` notes for one transaction who acts, for whom: in the server's log, and in a setting that is signed for this backend
# and this transaction. The login alone may call it, once in a transaction, which the guard does before it takes on a role.
# Whoever writes that setting without the key, or writes back what another transaction had, has no facts at all. The keyed
# hash is nested, so that it cannot be extended.
_SETUP = """
create schema if not exists captoken_guard;
do $$ declare its text; begin
    select what into its from (
        select 'schema captoken_guard' as what, nspowner as owner from pg_namespace where nspname = 'captoken_guard'
        union all select oid::regclass::text, relowner from pg_class where relnamespace = to_regnamespace('captoken_guard')
        union all select oid::regprocedure::text, proowner from pg_proc where pronamespace = to_regnamespace('captoken_guard')
    ) g where owner <> current_user::regrole and not (select rolsuper from pg_roles where oid = owner) limit 1;
    if found then raise exception '% belongs to somebody else, who could note whatever facts they want: drop it', its; end if;
end $$;
revoke all on schema captoken_guard from public;
create table if not exists captoken_guard.key (one boolean primary key default true check (one), key bytea not null);
revoke all on captoken_guard.key from public;
insert into captoken_guard.key (key)
    select decode(replace(string_agg(gen_random_uuid()::text, ''), '-', ''), 'hex') from generate_series(1, 4)
    on conflict do nothing;

create or replace function captoken_guard.sign(said text) returns text language sql stable as $$
    select encode(sha256(key || sha256(key || convert_to(
        concat_ws(' ', pg_backend_pid(), extract(epoch from transaction_timestamp()), said), 'UTF8'))), 'hex')
    from captoken_guard.key  -- inlined where it is called: with the path, and the rights, of these functions
$$;
create or replace function captoken_guard."begin"(said text) returns void language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    noted refcursor := 'captoken: it is noted already who acts in this transaction';
begin
    open noted for select 1;  -- fails where it is open, which it is until the transaction ends
    raise log 'captoken %', said::jsonb;
    perform set_config('captoken.facts', captoken_guard.sign(said) || said, true);
end $$;
create or replace function captoken_guard.facts() returns jsonb language plpgsql stable security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    held text := current_setting('captoken.facts', true);
    said text := substr(held, 65);
begin
    if left(held, 64) = captoken_guard.sign(said) then return said::jsonb; end if;
    return null;
end $$;
create or replace function captoken_guard.subject() returns text language sql stable security definer
    set search_path = pg_catalog, pg_temp as $$ select captoken_guard.facts() ->> 'subject' $$;
create or replace function captoken_guard.agent() returns text language sql stable security definer
    set search_path = pg_catalog, pg_temp as $$ select captoken_guard.facts() ->> 'agent' $$;
create or replace function captoken_guard.task() returns text language sql stable security definer
    set search_path = pg_catalog, pg_temp as $$ select captoken_guard.facts() ->> 'task' $$;
create or replace function captoken_guard.token() returns text language sql stable security definer
    set search_path = pg_catalog, pg_temp as $$ select captoken_guard.facts() ->> 'token' $$;
create or replace function captoken_guard.chain() returns text[] language sql stable security definer
    set search_path = pg_catalog, pg_temp as
    $$ select array(select value ->> 'name' from jsonb_array_elements(captoken_guard.facts() -> 'chain')) $$;
revoke all on all functions in schema captoken_guard from public;
"""


def apply_plan(
    connection: psycopg.Connection[Any], login: str, *roles: Role, adopt: bool = False
) -> list[str]:
    """Make the login and the roles in the database of a superuser's connection, and audit what came of it.

    All or nothing: in a transaction of its own, or as part of yours. What comes back is what lets the login do more than
    its grants, a line each; an empty list is what you want. What a function does, nobody but its owner can say.

    Raises ValueError for what cannot be planned (`plan_sql`), a table that is not there included; psycopg's RaiseException
    for a role that exists and was made by no plan (unless `adopt`), and for a schema `captoken_guard` of somebody else's.
    """
    with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        tables: list[Table] = cursor.execute(TABLES.encode()).fetchall()
        for role in roles:
            cursor.execute(plan_sql(login, role, tables, adopt=adopt).encode())
        return audit(connection, login)


def audit(connection: psycopg.Connection[Any], login: str) -> list[str]:
    """What lets a login do more than its grants, a line each."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(AUDIT.encode(), {"login": login, "dangerous": _DANGEROUS}).fetchall()
    return [str(line) for (line,) in found]


# One row for each thing that lets a role of the login do more than its grants say.
AUDIT = r"""
with login as (select * from pg_roles where rolname = %(login)s),
mine as (select r.* from pg_roles r where r.oid in (select roleid from pg_auth_members where member = (select oid from login))
    union select * from login),
who as (select oid, rolname::text as name, rolname = %(login)s as wide from mine union all select 0, 'everybody', true)
select 'the login does not exist' where not exists (select from login)
union all select format('%%s is a superuser, or passes over row security, or makes roles', rolname) from mine
    where rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication
union all select format('%%s is a member of %%s, which is no narrow role', %(login)s::text, r.rolname)
    from mine r where r.oid <> (select oid from login)
    and (r.rolcanlogin or r.rolname ~ '^pg_' or exists (select from pg_auth_members where member = r.oid))
union all select format('%%s inherits from %%s, or administers it', %(login)s::text, roleid::regrole) from pg_auth_members
    where member = (select oid from login) and (inherit_option or admin_option)
union all select format('%%s owns %%s', m.rolname, c.oid::regclass) from pg_class c join mine m on m.oid = c.relowner
union all select format('%%s owns function %%s', m.rolname, p.oid::regprocedure) from pg_proc p
    join mine m on m.oid = p.proowner
union all select format('%%s may make temporary tables', rolname) from mine
    where has_database_privilege(oid, current_database(), 'temporary')
union all select format('%%s may make things in schema %%s', m.rolname, n.nspname) from mine m, pg_namespace n
    where has_schema_privilege(m.oid, n.oid, 'create')
union all select format('%%s may write code in %%s', m.rolname, l.lanname) from mine m, pg_language l
    where l.laninline <> 0 and l.lanpltrusted and has_language_privilege(m.oid, l.oid, 'usage')
union all select format('%%s may execute %%s, which runs with the rights of %%s',
    string_agg(m.rolname, ', ' order by m.rolname), p.oid::regprocedure, p.proowner::regrole) from mine m, pg_proc p
    where p.prosecdef and p.pronamespace <> coalesce(to_regnamespace('captoken_guard'), 0)
    and has_function_privilege(m.oid, p.oid, 'execute') and has_schema_privilege(m.oid, p.pronamespace, 'usage')
    group by p.oid, p.proowner
union all select format('%%s may execute %%s', m.rolname, p.oid::regprocedure) from mine m, pg_proc p
    where p.proname ~ %(dangerous)s
    and has_function_privilege(m.oid, p.oid, 'execute')
union all select format('%%s may execute %%s, and so sign facts', m.rolname, p.oid::regprocedure) from mine m, pg_proc p
    where p.pronamespace = to_regnamespace('captoken_guard') and (p.proname = 'sign'
        or (p.proname = 'begin' and m.oid <> (select oid from login))) and has_function_privilege(m.oid, p.oid, 'execute')
union all select format('%%s may use %%s', m.rolname, c.oid::regclass) from mine m, pg_class c
    where c.relnamespace = to_regnamespace('captoken_guard') and c.relkind = 'r'
    and has_any_column_privilege(m.oid, c.oid, 'select, insert, update, references')
union all select format('%%s belongs to %%s, who is no superuser', what, owner::regrole) from (
    select 'schema captoken_guard' as what, nspowner as owner from pg_namespace where nspname = 'captoken_guard'
    union all select oid::regclass::text, relowner from pg_class where relnamespace = to_regnamespace('captoken_guard')
    union all select oid::regprocedure::text, proowner from pg_proc where pronamespace = to_regnamespace('captoken_guard')
) g where not (select rolsuper from pg_roles where oid = owner)
union all select format('%%s may %%s %%s', who.name, lower(a.privilege_type), c.oid::regclass) from pg_class c
    join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) a, who
    where a.grantee = who.oid and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'captoken_guard')
    and (who.wide or a.privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'USAGE'))
union all select format('%%s may %%s (%%s) of %%s', who.name, lower(a.privilege_type), t.attname, c.oid::regclass)
    from pg_attribute t join pg_class c on c.oid = t.attrelid join pg_namespace n on n.oid = c.relnamespace,
    aclexplode(t.attacl) a, who
    where a.grantee = who.oid and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'captoken_guard')
    and (who.wide or a.privilege_type not in ('SELECT', 'INSERT', 'UPDATE'))
union all select format('%%s may %%s what %%s makes later (default privileges)', who.name, lower(a.privilege_type),
    d.defaclrole::regrole) from pg_default_acl d, aclexplode(d.defaclacl) a, who where a.grantee = who.oid
    and not (a.grantee = 0 and d.defaclobjtype in ('f', 'T'))
union all select format('%%s may %%s large object %%s', who.name, lower(a.privilege_type), l.oid)
    from pg_largeobject_metadata l, aclexplode(l.lomacl) a, who where a.grantee = who.oid
union all select format('%%s may use server %%s', who.name, f.srvname)
    from pg_foreign_server f, aclexplode(f.srvacl) a, who where a.grantee = who.oid
union all select format('%%s may %%s parameter %%s', who.name, lower(a.privilege_type), p.parname)
    from pg_parameter_acl p, aclexplode(p.paracl) a, who where a.grantee = who.oid
union all select format('%%s may select %%s, a view without security_barrier: a statement can fail on rows that it hides',
    string_agg(m.rolname, ', ' order by m.rolname), c.oid::regclass)
    from mine m, pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'v' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and has_any_column_privilege(m.oid, c.oid, 'select') and not exists (
        select from pg_options_to_table(c.reloptions)
        where option_name in ('security_barrier', 'security_invoker') and option_value in ('true', 'on', 'yes', '1', 't'))
    group by c.oid
order by 1
"""
