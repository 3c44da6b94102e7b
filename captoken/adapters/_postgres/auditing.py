"""Finds what lets a login do more than its grants say."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from captoken.adapters._postgres.templates import DANGEROUS, INTACT

# Whom the audit is about:
# - login: the login itself;
# - mine: the login and the roles that it is a member of;
# - who: the same and everybody, since what PUBLIC may do, they may. `wide` are those who should
#   have no right to any table themselves: the login takes on a role for that.
_COMMON = r"""
with login as (select * from pg_roles where rolname = %(login)s),
mine as (
    select r.* from pg_roles r
    where r.oid in (select roleid from pg_auth_members where member = (select oid from login))
    union select * from login
),
who as (
    select oid, rolname::text as name, rolname = %(login)s as wide from mine
    union all select 0, 'everybody', true
)
"""

# Each of them has a row for each thing that it finds.
_FINDINGS = (
    r"""
    select 'the login does not exist' where not exists (select from login)
    """,
    # --- what the roles are ---
    r"""
    select format('%%s is a superuser, or passes over row security, or makes roles', rolname)
    from mine
    where rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication
    """,
    r"""
    select format('%%s is a member of %%s, which is no narrow role', %(login)s::text, r.rolname)
    from mine r where r.oid <> (select oid from login)
    and (r.rolcanlogin or r.rolname ~ '^pg_'
        or exists (select from pg_auth_members where member = r.oid))
    """,
    r"""
    select format('%%s inherits from %%s, or administers it', %(login)s::text, roleid::regrole)
    from pg_auth_members m join login on login.oid = m.member
    -- before release 16, the login alone says whether it inherits
    where m.admin_option or coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, login.rolinherit)
    """,
    # --- what they own: an owner may do everything with it ---
    r"""
    select format('%%s owns %%s', m.rolname, c.oid::regclass)
    from pg_class c join mine m on m.oid = c.relowner
    """,
    r"""
    select format('%%s owns function %%s', m.rolname, p.oid::regprocedure)
    from pg_proc p join mine m on m.oid = p.proowner
    """,
    # --- what they may make: a thing of their own could stand before another of that name ---
    r"""
    select format('%%s may make temporary tables', rolname) from mine
    where has_database_privilege(oid, current_database(), 'temporary')
    """,
    r"""
    select format('%%s may make things in schema %%s', m.rolname, n.nspname)
    from mine m, pg_namespace n
    where has_schema_privilege(m.oid, n.oid, 'create')
    """,
    r"""
    select format('%%s may write code in %%s', m.rolname, l.lanname) from mine m, pg_language l
    where l.laninline <> 0 and l.lanpltrusted and has_language_privilege(m.oid, l.oid, 'usage')
    """,
    # --- what they may execute ---
    r"""
    select format('%%s may execute %%s, which runs with the rights of %%s',
        string_agg(m.rolname, ', ' order by m.rolname), p.oid::regprocedure, p.proowner::regrole)
    from mine m, pg_proc p
    where p.prosecdef and p.pronamespace <> coalesce(to_regnamespace('captoken_guard'), 0)
    and has_function_privilege(m.oid, p.oid, 'execute')
    and has_schema_privilege(m.oid, p.pronamespace, 'usage')
    group by p.oid, p.proowner
    """,
    r"""
    select format('%%s may execute %%s', m.rolname, p.oid::regprocedure) from mine m, pg_proc p
    where p.proname ~ %(dangerous)s
    and has_function_privilege(m.oid, p.oid, 'execute')
    """,
    # --- the facts that row security goes by ---
    r"""
    select format('%%s may execute %%s, and so sign facts', m.rolname, p.oid::regprocedure)
    from mine m, pg_proc p
    where p.pronamespace = to_regnamespace('captoken_guard') and (p.proname = 'sign'
        or (p.proname = 'begin' and m.oid <> (select oid from login)))
    and has_function_privilege(m.oid, p.oid, 'execute')
    """,
    r"""
    select format('%%s may use %%s', m.rolname, c.oid::regclass) from mine m, pg_class c
    where c.relnamespace = to_regnamespace('captoken_guard') and c.relkind = 'r'
    and has_any_column_privilege(m.oid, c.oid, 'select, insert, update, references')
    """,
    r"""
    select format('%%s belongs to %%s, who is no superuser', what, owner::regrole) from (
        select 'schema captoken_guard' as what, nspowner as owner from pg_namespace
            where nspname = 'captoken_guard'
        union all select oid::regclass::text, relowner from pg_class
            where relnamespace = to_regnamespace('captoken_guard')
        union all select oid::regprocedure::text, proowner from pg_proc
            where pronamespace = to_regnamespace('captoken_guard')
    ) g where not (select rolsuper from pg_roles where oid = owner)
    """,
    # --- rights that a narrow role has no use for, and any that the login or everybody has ---
    r"""
    select format('%%s may %%s %%s', who.name, lower(a.privilege_type), c.oid::regclass)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) a, who
    where a.grantee = who.oid
    and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'captoken_guard')
    and (who.wide or a.privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'USAGE'))
    """,
    r"""
    select format('%%s may %%s (%%s) of %%s', who.name, lower(a.privilege_type), t.attname,
        c.oid::regclass)
    from pg_attribute t join pg_class c on c.oid = t.attrelid
    join pg_namespace n on n.oid = c.relnamespace, aclexplode(t.attacl) a, who
    where a.grantee = who.oid
    and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'captoken_guard')
    and (who.wide or a.privilege_type not in ('SELECT', 'INSERT', 'UPDATE'))
    """,
    r"""
    select format('%%s may %%s what %%s makes later (default privileges)', who.name,
        lower(a.privilege_type), d.defaclrole::regrole)
    from pg_default_acl d, aclexplode(d.defaclacl) a, who where a.grantee = who.oid
    and not (a.grantee = 0 and d.defaclobjtype in ('f', 'T'))
    """,
    r"""
    select format('%%s may %%s large object %%s', who.name, lower(a.privilege_type), l.oid)
    from pg_largeobject_metadata l, aclexplode(l.lomacl) a, who where a.grantee = who.oid
    """,
    r"""
    select format('%%s may use server %%s', who.name, f.srvname)
    from pg_foreign_server f, aclexplode(f.srvacl) a, who where a.grantee = who.oid
    """,
    r"""
    select format('%%s may %%s parameter %%s', who.name, lower(a.privilege_type), p.parname)
    from pg_parameter_acl p, aclexplode(p.paracl) a, who where a.grantee = who.oid
    """,
    # --- policies of plans, which tokens that restrict rows rely on ---
    r"""
    select format('rows of %%s are not held: row security is off there, or somebody changed the '
        'policy of %%s', c.oid::regclass, r.rolname)
    from mine r join pg_policy p on p.polname = 'captoken_' || r.rolname
    join pg_class c on c.oid = p.polrelid where not """  # noqa: S608 – of constants
    + INTACT,
    # --- views that hide rows: without security_barrier, a condition can run on them first ---
    r"""
    select format(
'%%s may select %%s, a view without security_barrier: a statement can fail on rows that it hides',
        string_agg(m.rolname, ', ' order by m.rolname), c.oid::regclass)
    from mine m, pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'v' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and has_any_column_privilege(m.oid, c.oid, 'select') and not exists (
        select from pg_options_to_table(c.reloptions)
        where option_name in ('security_barrier', 'security_invoker')
        and option_value in ('true', 'on', 'yes', '1', 't'))
    group by c.oid
    """,
)

AUDIT = _COMMON + "union all".join(_FINDINGS) + "order by 1\n"


@contextmanager
def pinned(connection: psycopg.Connection[Any]) -> Generator[psycopg.Cursor[tuple[Any, ...]]]:
    """What asks, and changes nothing: a name without a schema means PostgreSQL's own alone.

    Else whoever may put a function on the search path would have it run as who audits. The path is
    as it was, when this is undone.
    """
    with (
        connection.transaction(force_rollback=True),
        connection.cursor(row_factory=tuple_row) as cursor,
    ):
        cursor.execute(b"set local search_path = pg_catalog, pg_temp")
        yield cursor


def audit(connection: psycopg.Connection[Any], login: str) -> list[str]:
    """What lets a login do more than its grants, a line each."""
    parameters = {"login": login, "dangerous": DANGEROUS}
    with pinned(connection) as cursor:
        found = cursor.execute(AUDIT.encode(), parameters).fetchall()
    return [str(line) for (line,) in found]
