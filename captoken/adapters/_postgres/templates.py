"""The SQL of a plan: the guard's own schema, then a login and a narrow role with its grants alone.

All of it can be run again. What stands in braces is filled in by `roles`. The names of roles need
no quotes there: `roles` refuses those that would.
"""

from __future__ import annotations

# Functions that everybody may execute, and nobody needs who runs SQL for an agent.
_DANGEROUS_NAMES = (
    # They set the role, or the facts that were noted.
    "set_config",
    # They wait, wake others up, or hold locks beyond the transaction.
    "pg_sleep.*",
    "pg_notify",
    "pg_(try_)?advisory.*",
    # They write, and read and write files.
    "lo_.*",
    "loread",
    "lowrite",
    # They run SQL that they are given as a string, which nobody has read.
    "(query|table|cursor|schema|database)_to_xml.*",
    "ts_(stat|rewrite)",
    "crosstab.*",
    "connectby",
    "xpath_table",
    # They reach into other sessions, into what is replicated, and into the server's log.
    "pg_(cancel|terminate)_backend",
    "pg_export_snapshot",
    "pg_logical_emit_message",
    "pg_log_backend_memory_contexts",
    # They reach other servers, and the server's files.
    "dblink.*",
    "pg_read_.*",
    "pg_ls_.*",
    "pg_stat_file",
)
DANGEROUS = f"^({'|'.join(_DANGEROUS_NAMES)})$"  # a regular expression of PostgreSQL

# Whoever runs a plan may do everything, and their search path may have a schema in which others can
# put a function or an operator: it would run as them. So the path is pinned while a plan runs, by
# calls that need none, and is then as it was.
PINNED = """
do $$ begin
    perform pg_catalog.set_config(
        'captoken.path', pg_catalog.current_setting('search_path'), false);
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false);
end $$;
"""
UNPINNED = """
-- What a name means is again as it was.
do $$ begin
    perform pg_catalog.set_config(
        'search_path', pg_catalog.current_setting('captoken.path'), false);
end $$;
"""

# --- the guard's own schema ---

# Nothing is built on a schema that somebody else made before: its owner could change the functions
# in it, and so note whatever facts they want. The key is random, and stays from plan to plan.
_SCHEMA = """
create schema if not exists captoken_guard;
do $$ declare its text; begin
    select what into its from (
        select 'schema captoken_guard' as what, nspowner as owner from pg_namespace
            where nspname = 'captoken_guard'
        union all select oid::regclass::text, relowner from pg_class
            where relnamespace = to_regnamespace('captoken_guard')
        union all select oid::regprocedure::text, proowner from pg_proc
            where pronamespace = to_regnamespace('captoken_guard')
    ) g
    where owner <> current_user::regrole
    and not (select rolsuper from pg_roles where oid = owner) limit 1;
    if found then
        raise exception
            '% belongs to somebody else, who could note whatever facts they want: drop it', its;
    end if;
end $$;
revoke all on schema captoken_guard from public;
create table if not exists captoken_guard.key (
    one boolean primary key default true check (one), key bytea not null
);
revoke all on captoken_guard.key from public;
insert into captoken_guard.key (key)
    select decode(replace(string_agg(gen_random_uuid()::text, ''), '-', ''), 'hex')
    from generate_series(1, 4)
    on conflict do nothing;
"""

# `open` is called with the first statement of a transaction. It has the rights of whoever calls it,
# which is the login alone: nothing else could take on a role. `begin` notes for one transaction who
# acts, for whom: in the server's log, and in a setting. The setting is signed for this backend and
# this transaction. The login alone may call it, once in a transaction, and `open` does so before it
# takes on a role. Both pin settings of the transaction: each would be a command of its own.
#
# Whoever writes that setting without the key, or writes back what another transaction had, has no
# facts at all. The keyed hash is nested, so that it cannot be extended.
_FACTS = """
create or replace function captoken_guard.sign(said text) returns text language sql stable as $$
    select encode(sha256(key || sha256(key || convert_to(
        concat_ws(' ', pg_backend_pid(), extract(epoch from transaction_timestamp()), said),
        'UTF8'))), 'hex')
    -- inlined where it is called: with the path, and the rights, of these functions
    from captoken_guard.key
$$;
drop function if exists captoken_guard."begin"(text);  -- of an older release
create or replace function captoken_guard."begin"(said text, milliseconds integer) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    noted refcursor := 'captoken: it is noted already who acts in this transaction';
    its jsonb := said;
begin
    open noted for select 1;  -- fails where it is open, which it is until the transaction ends
    raise log 'captoken %', its - 'rows';
    perform set_config('captoken.facts', captoken_guard.sign(said) || said, true),
        set_config('standard_conforming_strings', 'on', true),
        set_config('row_security', 'on', true),
        set_config('statement_timeout', milliseconds::text, true),
        -- for whoever looks at the server; it keeps 63 bytes of it
        set_config('application_name', left(concat_ws(' ',
            'captoken', its ->> 'token', its ->> 'agent'), 63), true);
end $$;
create or replace function captoken_guard."open"(
    said text, milliseconds integer, role text, only_reads boolean)
    returns text language plpgsql as $$
begin
    -- no search path is pinned yet: each name has its schema, and no operator is used
    perform captoken_guard."begin"(said, milliseconds);
    if only_reads then set local transaction_read_only = on; end if;
    set local search_path = pg_catalog, public, pg_temp;
    execute pg_catalog.format('set local role %I', role);
    return pg_catalog.current_setting('transaction_isolation');
end $$;
create or replace function captoken_guard.facts() returns jsonb
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    held text := current_setting('captoken.facts', true);
    said text := substr(held, 65);
begin
    if left(held, 64) = captoken_guard.sign(said) then return said::jsonb; end if;
    return null;
end $$;
create or replace function captoken_guard.subject() returns text
    language sql stable security definer set search_path = pg_catalog, pg_temp as
    $$ select captoken_guard.facts() ->> 'subject' $$;
create or replace function captoken_guard.agent() returns text
    language sql stable security definer set search_path = pg_catalog, pg_temp as
    $$ select captoken_guard.facts() ->> 'agent' $$;
create or replace function captoken_guard.task() returns text
    language sql stable security definer set search_path = pg_catalog, pg_temp as
    $$ select captoken_guard.facts() ->> 'task' $$;
create or replace function captoken_guard.token() returns text
    language sql stable security definer set search_path = pg_catalog, pg_temp as
    $$ select captoken_guard.facts() ->> 'token' $$;
create or replace function captoken_guard.chain() returns text[]
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select array(
        select value ->> 'name' from jsonb_array_elements(captoken_guard.facts() -> 'chain')
    ) $$;
create or replace function captoken_guard.held(its_table text, its_column text) returns jsonb
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    told jsonb := captoken_guard.facts();
    every jsonb := told -> 'rows';
    its jsonb := every -> its_table;
begin
    -- a server that read the plan before this one must not take it for an empty table
    if told is not null and every is distinct from 'true' and not coalesce(every ? its_table, false)
    then
        raise exception 'the plan is newer than what this transaction was told: begin another'
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    -- what is said of several tables stands once, by its number
    if jsonb_typeof(its) = 'number' then its := every -> '' -> its::integer; end if;
    -- true: any value will do; nothing: none will
    if every = 'true' or its = 'true' then return 'true'; end if;
    return case when jsonb_typeof(its) = 'object' then coalesce(its -> its_column, 'true') end;
end $$;
revoke all on all functions in schema captoken_guard from public;
"""

# What the guard asks with each block: whether the schema is still as it was read (`assumptions`).
# Under the snapshot of that time nothing was committed since. Else it is a look into an index for
# each name. It says nothing that the catalogs do not say to everybody.
_SEEN = """
create or replace function captoken_guard.seen(
    schemas name[], tables name[], functions name[], since text)
    returns text language plpgsql stable
    set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
declare
    found text; columns text; others bigint := 0;
begin
    if pg_current_snapshot()::text = since then return 'same'; end if;
    for place in 1 .. cardinality(tables) loop
        columns := array(
            select a.attname from pg_attribute a
            where a.attrelid = (
                select c.oid from pg_class c where c.relname = tables[place]
                and c.relnamespace = (select oid from pg_namespace where nspname = schemas[place]))
            and a.attnum > 0 and not a.attisdropped order by a.attnum)::text;
        found := concat_ws(' ', found, case columns when '{}' then '-'
            else encode(sha256(convert_to(columns, 'UTF8')), 'hex') end);
    end loop;
    -- mostly there is none, and then nothing else is looked up
    if exists (
        select from pg_proc where proname = any (functions)
        and pronamespace = to_regnamespace('public'))
    then
        select count(*) into others from pg_proc p where p.proname = any (functions)
        and p.pronamespace = to_regnamespace('public') and (p.prosecdef or not exists (
            select from pg_depend
            where classid = 'pg_proc'::regclass and objid = p.oid and deptype = 'e'))
        and has_function_privilege(p.oid, 'execute');
    end if;
    return concat_ws(' ', found, others, pg_current_snapshot());
end $$;
revoke all on function captoken_guard.seen(name[], name[], name[], text) from public;
"""

SETUP = PINNED + _SCHEMA + _FACTS + _SEEN

# --- a login and one narrow role ---

# Both are made where they are missing. One that is there must bear the comment of a plan, or be
# adopted: it loses what a narrow role has not.
_LOGIN = (
    "\n-- A login that is a member of narrow roles, inherits nothing and owns nothing."
    " Give it a password, or a certificate."
    """
do $$ declare its text; how text; begin
    for its, how in values ({named_login}, 'login'), ({named_role}, 'nologin') loop
        if not exists (select from pg_roles where rolname = its) then
            execute format('create role %I %s', its, how);
            execute format('comment on role %I is %L', its, 'captoken');
        elsif {adopt} then
            execute format('comment on role %I is %L', its, 'captoken');
        elsif shobj_description(to_regrole(its), 'pg_authid') is distinct from 'captoken' then
            raise exception"""
    " 'role % exists, and no plan made it: adopt it, or take another name', its;"
    """
        end if;
    end loop;
end $$;
alter role {login} noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls;
alter role {role} nologin noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls;
alter role {login} set search_path = pg_catalog, public, pg_temp;
do $$ begin
    if current_setting('server_version_num')::integer >= 160000 then
        execute 'grant {role} to {login} with inherit false, set true, admin false';
    else  -- there, it is the login alone that says whether it inherits
        grant {role} to {login};
        revoke admin option for {role} from {login};
    end if;
end $$;
"""
)

# The login notes facts, and the role reads them. Neither of them signs any.
_GUARD_RIGHTS = """\
grant usage on schema captoken_guard to {login}, {role};
grant execute on function captoken_guard."begin"(text, integer),
    captoken_guard."open"(text, integer, text, boolean) to {login};
revoke all on captoken_guard.key from {login}, {role};
revoke all on function
    captoken_guard."begin"(text, integer), captoken_guard."open"(text, integer, text, boolean),
    captoken_guard.sign(text) from {role};
revoke all on function captoken_guard.sign(text) from {login};
grant execute on function
    captoken_guard.facts(), captoken_guard.subject(), captoken_guard.agent(),
    captoken_guard.task(), captoken_guard.chain(), captoken_guard.token(),
    captoken_guard.held(text, text) to {role};
grant execute on function captoken_guard.seen(name[], name[], name[], text) to {role};
"""

# Rights of PUBLIC are rights of the narrow role. There is no other way to take them away.
_PUBLIC_RIGHTS = """
-- What everybody may do by default, and an agent must not.
-- Grant it again to who else needs it, by name.
do $$ declare its text; begin
    execute format(
        'revoke temporary, create on database %I from public', current_database());
    execute format(
        'revoke temporary, create on database %I from {login}, {role}', current_database());
    for its in select oid::regprocedure::text from pg_proc where proname ~ '{dangerous}' loop
        execute format('revoke execute on routine %s from public, {login}, {role}', its);
    end loop;
end $$;
revoke create on schema public from public;
revoke usage on language plpgsql from public;
"""

# All grants on tables that either of them had, and the conditions on rows. Those of this plan come
# after it.
_CLEAN_SLATE = """\
do $$ declare its text; begin
    for its in select format('%I on %s', polname, polrelid::regclass) from pg_policy
        where polname = 'captoken_' || {named_role} loop
        execute 'drop policy ' || its;
    end loop;
    for its in select nspname from pg_namespace
        where nspname !~ '^pg_' and nspname not in ('information_schema', 'captoken_guard') loop
        execute format('revoke all on all tables in schema %I from {login}, {role}', its);
        execute format('revoke all on all sequences in schema %I from {login}, {role}', its);
        execute format('revoke all on schema %I from {login}, {role}', its);
    end loop;
end $$;
"""

ROLES = _LOGIN + _GUARD_RIGHTS + _PUBLIC_RIGHTS + _CLEAN_SLATE

# The body of a DO, for a table that can be inserted into: whoever inserts takes the next numbers
# of its serial columns.
SERIALS = (
    "declare its text; begin\n"
    "    for its in select d.objid::regclass::text from pg_depend d"
    " join pg_class s on s.oid = d.objid and s.relkind = 'S'\n"
    "        where d.refobjid = {table}::regclass and d.deptype = 'a' loop\n"
    "            execute format('grant usage on sequence %s to {role}', its);\n"
    "    end loop; end"
)

# The body of a DO, for tables and their columns that can be conditions on rows. Each table has one
# restrictive policy for the role. It reads the facts once in a statement, and permits no row where
# there are none. Its comment says what it was made as: so the guard sees when it is another one
# (`INTACT`).
#
# A value is compared by the type of its column. A type or a collation that takes two values for one
# is refused. Of numeric, neither infinity nor NaN is in a range.
ROWS = """\
declare
    wrong text; its regclass; quals text; columns text;
    found jsonb := (
        select jsonb_agg(jsonb_build_object('name', t.key, 'its', k.oid::bigint, 'col', c.value,
            'problem', case when k.relkind not in ('r', 'p') then 'no table'
                when a.attname is null then format('no column %s', c.value)
                when h.quals is null or not coalesce(o.collisdeterministic, true)
                then format('%s is not compared exactly', c.value) end,
            'quals', format('(' || h.quals || ')', c.value, t.key, c.value)))
        from jsonb_each({rows}) t cross join jsonb_array_elements_text(t.value -> 'columns') c
        join pg_class k on k.oid = (t.value ->> 'table')::regclass
        left join pg_attribute a on a.attrelid = k.oid and a.attname = c.value
            and a.attnum > 0 and not a.attisdropped
        left join pg_collation o on o.oid = a.attcollation
        left join (values {quals}) h (type, quals) on h.type = a.atttypid::regtype::text);
begin
    select string_agg(format('%s: %s', problem, names), '; ') || '. To free them, write '
        || string_agg(freed, ' ') || ' too, and in tokens rows={{"…": {{}}}} for each'
    into wrong from (
        select problem, string_agg(name, ', ' order by name) as names,
            string_agg(format('--rows %s.', name), ' ' order by name) as freed
        from jsonb_to_recordset(found) r (name text, problem text)
        where problem is not null group by problem order by problem) p;
    if wrong is not null then raise exception '%', wrong; end if;

    for its, quals, columns in
        select r.its, string_agg(r.quals, ' and '), json_agg(r.col)
        from jsonb_to_recordset(found) r (its oid, quals text, col text) group by r.its
    loop
        if not (select relrowsecurity from pg_class where oid = its) then
            execute format('alter table %s enable row level security', its);
            execute format('drop policy if exists "captoken others" on %s', its);
            execute format('create policy "captoken others" on %s using (true)', its);
        end if;
        execute format(
            'create policy captoken_{role} on %s as restrictive to {role} using (%s)', its, quals);
        execute format('comment on policy captoken_{role} on %s is %L', its, (
            select concat_ws(' ', md5(pg_get_expr(polqual, polrelid)), columns)
            from pg_policy where polrelid = its and polname = 'captoken_{role}'));
    end loop;
end"""

# Whether a policy `p` of a table `c` is as a plan made it for a role `r`, and holds.
INTACT = """(c.relrowsecurity and not p.polpermissive and p.polcmd = '*'
    and p.polwithcheck is null and p.polroles = array[r.oid] and md5(pg_get_expr(p.polqual,
        p.polrelid)) is not distinct from split_part(obj_description(p.oid, 'pg_policy'), ' ', 1))
"""

# What a policy asks of a column, by its type: `%1$I` is the column, `%2$L` and `%3$L` are its table
# and itself as tokens name them. What is asked first is what most tokens have: one value, and after
# it, whether the column is free. What need not be known of a row is never asked of the facts.
_HELD = "captoken_guard.held(%2$L, %3$L)"
_FREE = f"(select {_HELD} = 'true')"
_FIRST = f"%1$I = (select ({_HELD} -> '{{}}' ->> 0)::{{}}) or {_FREE}"
_AMONG = f"%1$I = any (array(select jsonb_array_elements_text({_HELD} -> '{{}}')::{{}}))"
_BOUNDED = f"(select {_HELD} as h) s where h ?| array['min', 'max']"
_WITHIN = f"%1$I{{}} <@ (select {{}} from {_BOUNDED})"  # noqa: S608
_BEGINS = f"%1$I ^@ any (array(select jsonb_array_elements_text({_HELD} -> 'prefixes')))"
_SPAN = "int8range((h ->> 'min')::bigint, (h ->> 'max')::bigint, '[]')"
_NUMBERS = (
    "numrange(coalesce((h ->> 'min')::numeric, '-Infinity'),"
    " coalesce((h ->> 'max')::numeric, 'Infinity'),"
    " concat(case when h ? 'min' then '[' else '(' end,"
    " case when h ? 'max' then ']' else ')' end))"
)


def _listed(of: str, its: str, *others: str) -> str:
    return " or ".join((_FIRST.format(of, its), _AMONG.format(of, its), *others))


# Those that JSON spells as text: a token's values that are spelled so (`rows.FORMS`).
_SPELLED = {
    "uuid": "uuid",
    "date": "date",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
}
_TEXT = _listed("strings", "text", _BEGINS)
_INTEGER = _listed("integers", "bigint", _WITHIN.format("::bigint", _SPAN))
QUALS = {
    "text": _TEXT,
    "character varying": _TEXT,
    "smallint": _INTEGER,
    "integer": _INTEGER,
    "bigint": _INTEGER,
    "numeric": f"{_FREE} or {_WITHIN.format('', _NUMBERS)}",
    "boolean": _listed("booleans", "boolean"),
    **{of: _listed(its, its) for of, its in _SPELLED.items()},
}
