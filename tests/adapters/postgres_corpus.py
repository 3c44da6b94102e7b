"""Statements with verdicts: what each of a few grants permits on one schema, in PostgreSQL.

A verdict is ALLOWED; the code of a denial; or the name of the error that PostgreSQL itself gives, which says no more than
its class and its first line. Grouped by what is tried, each group with its positive controls.
"""

from __future__ import annotations

from typing import Any, NamedTuple

ALLOWED = "allowed"

SCHEMA = """
create table sales (id serial primary key, region text, amount integer check (amount > 0), note text, doc jsonb default '{"a": 1}');
create table orders (id integer primary key, sale integer, region text, qty integer);
create table hr (id integer primary key, name text unique, pay integer, region text);
create table secret (pin text primary key, region text);
create table people (id integer primary key, name text, pay integer, ssn text unique, region text);
create table log (id serial primary key, what text);
create table archive (id integer, region text, amount integer, note text);
create schema market;
create table market.moves (day date, price numeric);
create table market.sales (id integer, amount integer);
create schema hidden;
create table hidden.sales (id integer, amount integer);

create view sales_view as select region, amount from sales;
create view secret_view as select pin from secret;
create view both_view with (security_invoker) as select s.region, h.pay from sales s join hr h on h.id = s.id;

create table parent (id integer primary key, label text);
create table child (extra text) inherits (parent);
create table parts (id integer, v text) partition by range (id);
create table parts_low partition of parts for values from (0) to (100);
create table regions (name text primary key);
create table shops (id integer primary key, region text references regions (name) on delete cascade);

create table inbox (id integer primary key, what text);
create function to_log() returns trigger language plpgsql as $$ begin insert into log (what) values (new.what); return new; end $$;
create trigger inbox_logged after insert on inbox for each row execute function to_log();
create table outbox (id integer primary key, what text);
create rule outbox_ruled as on insert to outbox do also insert into log (what) values (new.what);

create function peek() returns setof text language sql security definer as 'select pin from secret';
create function steal(integer) returns integer language sql security definer as 'select max(pay) from hr';
create function amount_of(sales) returns integer language sql as 'select $1.amount';
create function spill(sales) returns text language sql security definer as 'select max(pin) from secret';
create table notes_of (id integer, note_of text);
create function note_of(orders) returns text language sql security definer as 'select max(pin) from secret';
create function note_of(notes_of) returns text language sql as 'select ''x''::text';
create function score(integer) returns integer language sql immutable as 'select $1 * 2';
create function lower(integer) returns integer language sql security definer as 'select max(pay) from hr';
create function forget() returns integer language sql as 'delete from hr; select 1';
create operator === (leftarg = integer, rightarg = integer, function = int4eq);
create operator market.=== (leftarg = integer, rightarg = integer, function = int4eq);
create type mood as enum ('glad', 'sad');
create table moods (id integer primary key, mood mood);

create table tenants (owner text, value integer);
alter table tenants enable row level security;
create policy own on tenants using (owner = (select captoken_guard.subject()));
create table odd (id integer primary key, "a.b" text, "select" text, "Big" text);
create table "dotted.name" (x integer);
create table "star*" (x integer);
create table wide (a integer, b integer, c integer);
create table market.notes (ts integer, min integer, hidden text);
create type address as (city text, spill text);
create table places (id integer, at address, all_of address[]);
create function key(text) returns text language sql security definer as 'select max(pin) from secret';
create type regclass as enum ('sales');
create type pg_sleep as enum ('0.1');
create table enums (a public.regclass, b public.pg_sleep);
"""

ROWS = """
insert into sales (region, amount, note) values ('eu', 10, 'one'), ('us', 20, 'two'), ('eu', 30, 'three');
insert into orders values (1, 1, 'eu', 5), (2, 2, 'us', 6);
insert into hr values (1, 'ann', 900, 'eu'), (2, 'bob', 800, 'us');
insert into secret values ('1234', 'eu'), ('9999', 'us');
insert into people values (1, 'ann', 900, 's-1', 'eu'), (2, 'bob', 800, 's-2', 'us');
insert into market.moves values ('2026-01-01', 1.5);
insert into market.sales values (1, 7);
insert into hidden.sales values (1, 666);
insert into parent values (1, 'p');
insert into child values (2, 'c', 'x');
insert into parts values (1, 'one');
insert into regions values ('eu'), ('us');
insert into shops values (1, 'eu');
insert into moods values (1, 'glad');
insert into tenants values ('user:jane', 1), ('user:bob', 2);
insert into odd values (1, 'x', 'y', 'z');
insert into "dotted.name" values (1);
insert into "star*" values (1);
insert into wide values (1, 2, 3);
insert into places values (1, ('x', 'y'), array[('x', 'y')::address]);
insert into market.notes values (1, 2, 'hidden');
"""

EVERY = ["select", "insert", "update", "delete"]
# What the roles of the two logins may do. Of `trusted` the one role may do all, so that the text is all that stands.
CLASSES: dict[str, dict[str, dict[str, Any]]] = {
    "agents": {
        "reader": {
            "allow": {name: ["select"] for name in (
                "sales", "orders", "market.*", "people", "notes_of", "sales_view", "parent", "parts", "odd", "moods", "wide", "tenants", "places",
            )},
            "columns": {"people": ["id", "name", "region"]},
        },
        "writer": {
            "allow": {
                **{name: EVERY for name in ("sales", "orders", "archive", "regions", "inbox", "outbox", "parts", "wide", "odd")},
                "market.*": ["select"], "people": ["select", "insert", "update"], "secret_view": ["select"], "both_view": ["select"],
            },
            "columns": {"people": ["id", "name", "region"]},
        },
    },
    "trusted": {"everything": {"allow": {"*": EVERY}}},
}  # fmt: skip

GRANTS: dict[str, dict[str, Any]] = {
    "reads": {"tables": ["sales", "market.*"], "operations": ["select"]},
    "reads_more": {"tables": ["sales", "orders", "parent", "parts", "odd", "moods", "wide", "tenants", "sales_view"], "operations": ["select"]},
    "writes": {"tables": ["sales", "orders", "archive", "wide", "parts", "regions"], "operations": EVERY},
    "inserts": {"tables": ["sales"], "operations": ["insert"]},
    "updates": {"tables": ["sales"], "operations": ["update"]},
    "deletes": {"tables": ["sales"], "operations": ["delete"]},
    "people": {"tables": ["people", "sales", "wide"], "operations": ["select"], "columns": {"people": ["id", "name", "region"]}},
    "edits": {"tables": ["people"], "operations": ["select", "insert", "update"], "columns": {"people": ["id", "name", "region"]}},
    # Columns by a pattern, so that some of them are names that a table has not.
    "notes": {
        "tables": ["market.*", "sales", "people"], "operations": ["select"],
        "columns": {"market.*": ["ts", "min", "max", "count", "to_json", "row_to_json", "id"], "people": ["id", "max"]},
    },
    # All columns of one table by their names.
    "named": {"tables": ["wide", "sales", "people"], "operations": ["select", "insert"], "columns": {"wide": ["a", "b", "c", "gone"], "people": ["id"]}},
    "all": {"tables": ["*"], "operations": ["select", "insert", "update", "delete"]},
}  # fmt: skip


class Case(NamedTuple):
    grant: str
    sql: str
    verdict: str
    parameters: tuple[Any, ...] = ()


# What older releases do not know: a part of the text, and the release that it came with.
NEWER = {
    "json_query(": 17, "json_table(": 17, "merge_action()": 17, "returning old.": 18, "returning id, old.": 18, "returning with (": 18,
    "n.max": 18, "p.max": 18, "j.max": 18, "j.min from (sales": 18,  # where there is no such column: max(record)
}  # fmt: skip


def is_known(case: Case, release: int) -> bool:
    """Whether a server of that release takes the statement for what newer ones take it for."""
    return all(release >= since for part, since in NEWER.items() if part in case.sql)


def group(grant: str, verdict: str, *statements: str) -> list[Case]:
    return [Case(grant, sql, verdict) for sql in statements]


CASES: list[Case] = [
    # --- plain reads
    *group(
        "reads", ALLOWED,
        "select * from sales",
        "select region, sum(amount) from sales group by region having sum(amount) > 1 order by 2 desc limit 3",
        "SELECT S.Region FROM Public.Sales AS S",
        'select "region" from "public"."sales"',
        'select U&"\\0072egion" from U&"\\0073ales"',
        "select $$sales ; delete from hr$$, $x$it's$x$ from sales",
        "select /* hr */ count(*) -- secret\n from sales",
        "select 1;",
        "values (1, 'a'), (2, 'b')",
        "table sales",
        "select * from market.moves, market.sales",
        "select s.amount from sales s join market.sales m using (id) where exists (select from market.moves)",
        "with big as (select * from sales where amount > 10) select count(*) from big",
        "with recursive n(i) as (values (1) union all select i + 1 from n where i < 5) select sum(i) from n",
        "with secret as (select 1 as pin) select pin from secret",
        "with a as (select 1 as x), secret as (select x from a) select * from secret join a using (x)",
        "select rank() over (partition by region order by amount) from sales window w as ()",
        "select percentile_cont(0.5) within group (order by amount), count(*) filter (where amount > 1), string_agg(region, ',' order by id) from sales",
        "select region, grouping(region) from sales group by rollup (region)",
        "select distinct on (region) region, amount from sales order by region, amount",
        "select ctid, tableoid, xmin from sales",
        "select s from sales s",
        "select row_to_json(s), to_jsonb(s.*) from sales s",
        "select doc->>'a', doc @> '{}', jsonb_path_query(doc, '$.a'), doc['a'] from sales",
        "select x from jsonb_array_elements('[1]') x, generate_series(1, 3) with ordinality g(i, n)",
        "select * from json_to_recordset('[{\"a\":1}]') as t(a integer, b text)",
        "select * from json_table('[1,2]', '$[*]' columns (x integer path '$')) j",
        "select * from unnest(array[1,2], array['a','b']) u(x, y)",
        "select extract(year from now()), date_trunc('day', now()), current_date, localtimestamp, date '2026-01-01' + interval '1 day'",
        "select position('a' in 'banana'), substring('abc' from 2 for 1), trim(both 'x' from 'xax'), overlay('abc' placing 'z' from 1)",
        "select coalesce(null, 1), nullif(1, 2), greatest(1, 2), case when true then 1 end, 1 between 0 and 2, 'a' similar to 'b', 1 is distinct from 2",
        "select cast('1' as integer), '2'::numeric(10, 2), '[1,2]'::int4range, 'x'::varchar(3), array[1]::bigint[], '1'::pg_catalog.int4",
        "select amount from sales union all select id from market.sales except select 1",
        "select (select max(amount) from sales), array(select id from sales), 1 = any (select id from sales), row(1, 2) < row(2, 3)",
        "select l.x from sales, lateral (select sales.amount + 1 as x) l",
        "select * from sales tablesample system (100) repeatable (1)",
        "select * from only (sales)",
        "select md5('a'), sha256('a'), encode('a', 'hex'), gen_random_uuid() is not null, upper('x') collate \"C\"",
        "select pg_catalog.lower('A'), 1 operator(pg_catalog.+) 2, 1 === 1",
        "select " + "(" * 500 + "1" + ")" * 500,
        "select id from sales where id in (" + ", ".join(map(str, range(5000))) + ")",
        "select (s).region, (s).note, s.text from (select region, note, region as text from sales) s",
        "select q.name, q.date, q.count, q.sum, q.value, q.key, q.type, q.year, q.rank, q.total from (select 1 as name, 2 as date, 3 as count, 4 as sum, 5 as value, 6 as key, 7 as type, 8 as year, 9 as rank, 10 as total) q",
        "select q.sales, q.orders from (select region as sales, amount as orders from sales) q",
        "with q as (select region, max(amount) from sales group by region) select q.region, q.max from q",
        "select (x).f1, (x).f2 from (select row(1, 2) as x) q",
        "select (s.doc).jsonb_typeof, (s.region).upper from sales s",
        "select float8(1), text(1), int4('1'), date(now()), pg_size_pretty(1::bigint)",
        "select note from sales where note like '%s' or note = '%(x)s' or note ~ '[?]'",
    ),
    Case("reads", "select id from sales where region = $1 and amount > $2", ALLOWED, ("eu", 5)),
    Case("reads", "select $1::text", ALLOWED, ("'; delete from hr; --",)),
    Case("reads", "select $1::integer[]", ALLOWED, ([1, 2],)),
    # --- tables that are not granted, however they are reached
    *group(
        "reads", "table",
        "select * from hr",
        "select * from secret_view",
        "table secret",
        "select 1 from sales natural join secret",
        "select pin from (select 'z' as pin where false) g full join secret using (pin)",
        "select count(*) from sales, hr",
        "select (select max(pay) from hr) from sales",
        "select 1 where exists (select from secret)",
        "select 1 where '1234' in (table secret)",
        "select array(select pin from secret)",
        "select amount from sales union select pay from hr",
        "select * from sales order by (select pay from hr limit 1)",
        "select 1 limit (select pay from hr limit 1)",
        "select sum(amount) filter (where exists (select from hr)) from sales",
        "select case when (select pay from hr limit 1) > 1 then 1 end",
        "select l.pin from sales, lateral (select pin from secret) l",
        "select * from generate_series(1, (select max(pay) from hr))",
        "select * from (values ((select pin from secret limit 1))) v",
        "with sales as (select * from hr) select * from sales",
        "with secret as (select * from secret) select * from secret",
        "with a as (select 1), b as (select * from c), c as (select 1) select 1",
        "with x as (with secret as (select 1 as pin) select * from secret) select * from secret",
        "select (with secret as (select 1 as pin) select pin from secret), pin from secret",
        "with secret as (select 1 as pin) select * from public.secret",
        "with recursive r as (select pin from secret union all select pin from r) select * from r",
        "with recursive hr as (select 1 as x union all select x + 1 from hr where x < 3) select pay from public.hr",
        "SELECT * FROM Public.HR",
        'select * from "hr"',
        'select * from U&"\\0068r"',
        "select * from only hr",
        "select * from hr tablesample system (100)",
        "select * from sales s, hr s2 where s.id = s2.id",
        "select 1 from sales window w as (order by (select pay from hr limit 1))",
        "select * from hidden.sales",
        "select * from hidden.nothing",
        "select * from nowhere.sales",
        "select * from missing",
        "select * from orders",
        "select sales.amount from sales join (select * from secret) s on true",
        "select * from json_table((select json_agg(pin) from secret), '$[*]' columns (x text path '$')) j",
        "select region from sales group by region having max(amount) > (select max(pay) from hr)",
        "select 1 from sales where (id, region) in (select id, region from hr)",
        "select distinct on ((select pay from hr limit 1)) 1 from sales",
    ),
    *group("reads", "table", "select * from postgres.public.hr", "select * from postgres.public.sales", "select postgres.public.sales.id from sales"),
    # --- catalogs: never, even for whom all is granted
    *group(
        "all", "table",
        "select * from pg_class",
        "select * from pg_catalog.pg_class",
        "select * from pg_authid",
        "select * from pg_stat_activity",
        "select * from pg_settings",
        "select * from pg_roles natural join sales",
        "select * from information_schema.tables",
        "select * from information_schema.columns where table_name = 'secret'",
        "select * from pg_temp.sales",
        "select * from pg_toast.pg_toast_1255",
        "select * from captoken_guard.key",
        'select * from "dotted.name"',
        'select * from "star*"',
        "update pg_settings set setting = 'x'",
        "insert into captoken_guard.key values (true, '')",
        "select * from pg_largeobject",
    ),
    # --- kinds of statement that are never granted
    *group(
        "all", "operation",
        "copy sales to stdout",
        "copy (select * from sales) to '/tmp/x'",
        "copy sales from program 'id'",
        "copy (delete from hr returning *) to stdout",
        "do $$ begin perform 1; end $$",
        "do $$begin set local role everything; delete from hr; end$$",
        "set role postgres",
        "set local role everything",
        "reset role",
        "set session authorization default",
        "reset all",
        "discard all",
        "set search_path = hidden",
        "set statement_timeout = 0",
        "show all",
        "begin",
        "commit",
        "rollback",
        "savepoint x",
        "release captoken",
        "rollback to captoken",
        "prepare transaction 'x'",
        "prepare p as select * from hr",
        "execute p",
        "deallocate all",
        "declare c cursor for select * from hr",
        "fetch all from c",
        "close all",
        "explain select * from hr",
        "explain analyze delete from hr",
        "explain (format json) select 1; delete from hr",
        "listen x",
        "notify x",
        "unlisten *",
        "lock table sales",
        "vacuum",
        "analyze sales",
        "checkpoint",
        "cluster",
        "reindex table sales",
        "truncate sales",
        "create table x (a integer)",
        "create temp table sales (a integer)",
        "create table x as select * from hr",
        "create view v as select * from hr",
        "create function f() returns integer language sql as 'select 1'",
        "create operator %% (leftarg = integer, rightarg = integer, function = int4eq)",
        "create cast (integer as text) with inout",
        "create type t as (a integer)",
        "alter table sales add column x integer",
        "alter role agents superuser",
        "drop table sales",
        "drop table if exists nothing",
        "grant select on hr to public",
        "revoke all on sales from public",
        "comment on table sales is 'x'",
        "security label on table sales is 'x'",
        "call proc()",
        "refresh materialized view mv",
        "import foreign schema x from server y into z",
        "load 'x'",
        "select * into x from sales",
        "select * into temp x from hr",
        "create extension dblink",
    ),
    # --- several statements, or none
    *group(
        "all", "operation",
        "select 1; select 2",
        "select 1; delete from hr",
        "select 1;; select 2",
        "select 1 /* */ ; /* */ drop table hr",
        "",
        ";",
        "-- nothing",
        "/* select 1 */",
    ),
    # --- functions
    *group(
        "all", "operation",
        "select set_config('role', 'postgres', true)",
        "select pg_catalog.set_config('captoken.facts', '', true)",
        "select set_config('role', 'everything', true), query_to_xml('select * from hr', true, true, '')",
        "select query_to_xml('select * from hr', true, true, '')",
        "select table_to_xml('hr', true, true, '')",
        "select cursor_to_xml('c', 1, true, true, '')",
        "select database_to_xml(true, true, '')",
        "select ts_stat('select to_tsvector(name) from hr')",
        "select * from ts_stat('select to_tsvector(name) from hr')",
        "select ts_rewrite('a'::tsquery, 'select 1')",
        "select current_setting('captoken.facts')",
        "select pg_read_file('/etc/passwd')",
        "select pg_ls_dir('.')",
        "select lo_import('/etc/passwd')",
        "select lo_create(1)",
        "select lo_get(1)",
        "select pg_sleep(10)",
        "select pg_sleep_for('1 day')",
        "select pg_advisory_lock(1)",
        "select pg_try_advisory_xact_lock(1)",
        "select nextval('sales_id_seq')",
        "select setval('sales_id_seq', 1)",
        "select currval('sales_id_seq')",
        "select lastval()",
        "select pg_notify('x', 'y')",
        "select pg_cancel_backend(1)",
        "select pg_terminate_backend(pg_backend_pid())",
        "select pg_backend_pid()",
        "select txid_current()",
        "select dblink('host=127.0.0.1', 'select 1')",
        "select to_regclass('secret')",
        "select has_table_privilege('secret', 'select')",
        "select pg_get_viewdef('secret_view')",
        "select obj_description(1)",
        "select col_description(1, 1)",
        "select pg_relation_size(1)",
        "select pg_table_size('hr')",
        "select version()",
        "select setseed(0.5)",
        "select json_populate_record(null, '{}')",
        "select xpath('/a', '<a/>')",
        "select xmlelement(name a)",
        "select xmlparse(document '<a/>')",
        "select * from xmltable('/a' passing '<a/>' columns x text)",
        "select current_user",
        "select session_user, current_role, current_catalog, current_schema",
        "select peek()",
        "select * from peek()",
        "select public.peek()",
        "select steal(1)",
        "select lower(1)",
        "select public.lower(1)",
        "select forget()",
        "select score(1)",
        "select captoken_guard.begin('{}', 1000)",
        "select captoken_guard.sign('')",
        "select spill(s) from sales s",
        "select (array[s])[1].spill from sales s",
        "select (select s from sales s limit 1).spill",
        "select (row(1, 2)).spill, (1).steal",
        "select ('captoken.facts').current_setting",
        "select ('captoken.facts'::text).current_setting",
        "select $1.current_setting",
        "select (1::bigint).pg_advisory_lock",
        "select (1.0).pg_sleep",
        "select (0.5).setseed",
        "select ('secret_view'::text).pg_get_viewdef",
        "select ('secret').regclass",
        "select ('secret'::text).to_regclass",
        "select (10).pg_get_userbyid",
        "select ('select to_tsvector(pin) from secret').ts_stat",
        "select ('(1,eu)').secret, ('{}')._secret",
        "select ('(1,a,1,s,eu)').people",
        "select ('<a/>').xml",
        "select ('sales_id_seq').nextval",
        "select note.spill from sales s, lateral cast(s.note as text)",
        "select 1 operator(market.===) 1",
        "select 1 from sales order by id using operator(market.===)",
        "select id = any (select 1) , 1 operator(market.===) any (select 1) from sales",
        "select 'x' collate market.thing",
        "select * from sales tablesample own(1)",
        "select set_config(k, v, true) from (values ('role', 'postgres')) x(k, v)",
        "select * from rows from (generate_series(1, 2), peek())",
        "select count(*) over (order by steal(id)) from sales",
        "insert into sales (amount) values (steal(1))",
        "select 1 from sales limit steal(1)",
    ),
    *group(
        "all", "name",
        "select s.spill from sales s",
        "select (s).spill from sales s",
        "select s.amount_of from sales s",
        "select o.spill from orders o, sales s",
        "select (o).spill from orders o, sales s",
        "select o.note_of from orders o, notes_of n",
        "select (select x.note_of from unnest(array[o]) x limit 1) from orders o, notes_of x",
        "select (select x.note_of from (select o.*) x limit 1) from orders o, notes_of x",
        "select n.note_of from notes_of as n(a, b)",
        "select o.spill from sales o where exists (select o.spill from unnest(array[1]) o)",
        "select j.spill from (orders o join sales s on true) as j",
        "with x as (select s from sales s) select (x.s).spill from x",
        "select spill.spill from (select 1) spill",
        "select s.spill from only sales s",
        "select (s.*).spill from sales s",
        "update orders set qty = 1 returning orders.spill",
        "merge into orders o using sales s on o.id = s.id when matched then update set qty = s.steal",
        "select x.current_setting from (select 'captoken.facts'::text) x",
        "select x.current_setting from unnest(array['captoken.facts']) x",
        "select current_setting.current_setting from unnest(array['role']) current_setting",
        "select (g).regclass from generate_series(1, 2) g",
        "select g.regclass from generate_series(1, 2) g",
        "select q.people from unnest(array['(1,a,1,s,eu)']) q",
        "select unnest.people from unnest(array['(1,a,1,s,eu)'])",
        "select (region).pg_read_file from sales",
        "select s.current_setting from cast('role' as text) s",
        "select s.note from sales note, lateral cast(note.region as text) s where s.spill",
        "select 1 from sales order by (region).pg_sleep",
    ),
    # --- all columns, by a token that names each of them
    *group(
        "named", ALLOWED,
        "select * from wide",
        "select w.* from wide w",
        "select row_to_json(w), w from wide w",
        "select 1 from wide natural join wide x",
        "select x from wide as w(x)",
        "select (w).a, w.to_json from wide w",
        "table wide",
        "select * from guarded.public.wide",
    ),
    *group(
        "named", "operation",
        "select guarded.public.wide.a from wide",
        "select guarded.public.wide.* from guarded.public.wide",
    ),
    *group(
        "named", ALLOWED,
        "select * from people",
        "select * from wide, people",
    ),
    *group(
        "named", "name",
        "select gone from wide",
    ),
    *group(
        "named", "column",
    ),
    *group(
        "named", "name",
        "select w.gone from wide w",
    ),
    *group("named", "table", "select * from other.public.wide", "select other.public.wide.a from wide", "select a.b.c.d.e from wide", "select * from guarded.public.hr"),
    # --- a name after a dot that is a column for certain, whatever goes by it as a function or a type
    *group(
        "all", ALLOWED,
        "select p.spill from sales as p(spill) where false",
        "select x.spill from (select s from sales s) as x(spill)",
        "select q.spill, q.hr, q._hr from (select 1 as spill, 2 as hr, 3 as _hr) q",
        "with q(spill) as (select 1) select q.spill from q",
        "select q.spill from (values (1)) q(spill)",
        "select v.column1 from (values (1)) v",
        "select r.note from (select * from (select s.* from sales s) q) r",
        "select j.spill from (select 1 as spill) q, (sales s cross join (select 1 as spill) t) as j",
        "select g.g, e.key, e.value, o.value from generate_series(1, 2) g, json_each('{}') e, json_array_elements('[]') o",
        "select t.x, (row(1, 2)).f2 from json_table('[1,2]', '$[*]' columns (x integer path '$')) t",
        "select u.id from orders o join sales s using (id) as u",
        "with gone as (delete from sales returning id, note as spill) select gone.spill, gone.id from gone",
        "select q.count from (select count(*) from sales) q",
        "select (at).city, (p.at).city, (p.all_of[1]).city from places p",
    ),
    *group(
        "all", "name",
        "select q.spill from (select 1 as x) q",
        "select q.spill from (select o.* from orders o) q",
        "select q.spill from (select 1 as spill) x, (select s from sales s) q",
        "select (q).spill from (select q from (select 1 as spill) q) q",
        "select (s).spill from (select s.* , s from sales s) s",
        "select u.spill from orders o join sales s using (id) as u",
        "with q as (select 1 as a) select q.spill from q",
        "select j.spill from ((select 1 as spill) q cross join sales s) as j(a)",
        "select j.spill from (((select 1 as spill) q cross join sales s) as k(a) cross join orders o) as j",
        "select q.spill from (select * from ((select 1 as spill) x cross join sales s) as j(a)) q",
        "select (at).spill from places",
        "select (at).street from places",
        "select q.key from (select 'x'::text) q",
        "select q._hr from (select 1 as a) q",
        "select q._nothing from (select 1 as a) q",
    ),
    *group(
        "all", "operation",
        "select ('x').key",
        "select ('x').spill",
        "select ('x')._hr",
        "select ('x')._nothing",
        "select ('x').hr",
        "select ('x').mood",
        "select ('x').no_mood",
    ),
    # --- a name after a dot that is a column or a call: of a whole row, hidden columns and all
    *group(
        "notes", ALLOWED,
        "select n.min, n.ts from market.notes n",
        "select q.max from (select n.min as max from market.notes n) q",
        "select s.to_json, s.row_to_json from sales s",
        "select min(n.ts), max(n.min), count(n.ts) from market.notes n order by max(n.ts)",
    ),
    *group(
        "notes", "operation",
        "select market.notes.min from market.notes",
    ),
    *group(
        "notes", ALLOWED,
        "select n.max from market.notes n",
        "select n.count from market.notes n",
        "select n.to_json from market.notes n",
        "select n.row_to_json from market.notes n",
        "select (select n.max) from market.notes n",
        "select (select n.max from sales limit 1) from market.notes n",
        "select 1 from market.notes n order by n.max",
        "select 1 from sales s join market.notes n on n.to_json is null",
        "select 1 from market.notes n where n.row_to_json->>'hidden' = 'hidden'",
        "select (n.to_json)->'hidden' from market.notes n",
        "select n.max from only market.notes n",
        "select n.max from lateral (select 1) q, market.notes n(max)",
        "select p.max from people p",
        "select j.max from (market.notes n cross join sales s) as j",
        "select j.to_json from (sales s cross join people p) as j",
        "select j.row_to_json from (sales s cross join (people p cross join market.notes n)) as j",
        "select j.min from (sales s cross join people p) as j, market.notes n",
        "select u.to_json from people p join sales s using (id) as u",
        "select (select j.to_json) from (sales s cross join people p) as j",
    ),
    *group(
        "notes", "operation",
        "select market.notes.to_json from market.notes",
        "select n.max from market.notes n tablesample system (100)",
    ),
    *group(
        "notes", "name",
        "select 1 from market.notes n group by n.to_json",
    ),
    *group(
        "notes", "syntax",
        "select n.max from market.sales n, market.notes m where exists (select from market.notes n where n.max is null)",
    ),
    *group(
        "all", "operation",
        "select 'hr'::regclass",
        "select ('hr').regclass",
        "select (0.1).pg_sleep",
    ),
    *group(
        "all", "name",
        "select q.pg_sleep from (select 0.1) q",
    ),
    # --- types: names of relations among them
    *group(
        "all", "operation",
        "select 'secret'::regclass",
        "select 'secret'::pg_catalog.regclass",
        "select cast('missing' as regclass)",
        "select regclass 'secret'",
        "select 'peek'::regproc",
        "select 'postgres'::regrole",
        "select null::hr",
        "select null::public.secret[]",
        "select '(1,a,1,b)'::people",
        "select * from jsonb_to_record('{}') as x(a hr)",
        "select 1::oid",
        "select '<a/>'::xml",
        "select 'x'::market.thing",
        "select '1'::nothing",
        "select json_value('{}', '$.a' returning regclass)",
    ),
    *group("reads_more", ALLOWED, "select 'glad'::mood, mood from moods where mood = 'glad'", "select 'sad'::public.mood"),
    # --- writes
    *group(
        "writes", ALLOWED,
        "insert into sales (region, amount) values ('x', 1), ('y', 2) returning id, amount",
        "insert into sales default values",
        "insert into archive select id, region, amount, note from sales",
        "insert into archive (id, region, amount) select id, region, amount from sales returning *",
        "insert into orders values (1, 1, 'x', 9) on conflict (id) do update set qty = excluded.qty where orders.qty < 10 returning qty",
        "insert into orders values (1) on conflict do nothing",
        "insert into orders values (1) on conflict on constraint orders_pkey do nothing",
        "insert into orders as o values (1, 1) on conflict (id) do update set (sale, qty) = (select 7, 8)",
        "update sales set amount = amount + 1 where region = 'eu' returning amount",
        "update sales set amount = o.qty from orders o where o.sale = sales.id returning old.amount, new.amount",
        "update sales s set (amount, note) = (select qty, o.region from orders o where o.sale = s.id)",
        "update sales set amount = default, doc['b'] = '2'",
        "delete from sales where id = 1 returning *",
        "delete from sales using orders o where o.sale = sales.id",
        "with gone as (delete from sales returning *) insert into archive (id, amount) select id, amount from gone",
        "merge into orders o using sales s on o.sale = s.id when matched then update set qty = s.amount when not matched then insert (id, sale) values (s.id + 100, s.id)",
        "merge into orders o using sales s on o.sale = s.id when matched and s.amount > 5 then delete when not matched then do nothing returning merge_action(), o.id",
        "select * from sales for update",
        "select * from sales s join orders o on o.sale = s.id for update of s nowait",
        "select * from sales for key share skip locked",
        "select * from sales, generate_series(1, 2) for update",
        "insert into parts values (5, 'x')",
        "delete from regions where name = 'eu'",
    ),
    *group(
        "reads", "operation",
        "insert into sales (region) values ('x')",
        "update sales set amount = 1",
        "delete from sales",
        "select * from sales for update",
        "select * from sales for share",
        "select * from (select * from sales for update) s",
        "select * from (select * from sales) s for update",
        "select * from sales tablesample system (100) for update",
        "select * from sales tablesample system (100) for update of sales",
        "with x as (delete from sales returning *) select * from x",
        "with x as (insert into sales (region) values ('x') returning *) select * from x",
        "with x as (update sales set amount = 1 returning *) table x",
        "merge into sales s using market.sales m on s.id = m.id when matched then delete",
        "insert into sales as hr (region) values ('x')",
    ),
    *group(
        "reads", "operation",
        "with secret as (select 1) delete from secret",
        "with sales as (select 1 as id) delete from hr",
        "with hr as (select 1 as pay) update hr set pay = 1",
        "with hr as (select 1 as pay) insert into hr select 1",
    ),
    *group(
        "writes", "table",
        "with secret as (select 1) delete from secret",
        "with sales as (select 1 as id) delete from hr",
        "with hr as (select 1 as pay) update hr set pay = 1",
        "with hr as (select 1 as pay) insert into hr select 1",
    ),
    *group(
        "reads", "table",
        "with x as (delete from hr returning *) select * from x",
        "select * from sales where id in (with x as (select 1) select pay from hr)",
        "merge into hr using sales s on hr.id = s.id when matched then delete",
        "select * from hr for update",
    ),
    *group(
        "writes", "table",
        "insert into sales (amount) select pay from hr",
        "insert into hr select id from sales",
        "update sales set amount = (select max(pay) from hr)",
        "update sales set amount = h.pay from hr h where h.id = sales.id",
        "delete from sales using hr where hr.id = sales.id",
        "delete from sales where exists (select from secret)",
        "insert into sales (note) values ((select pin from secret limit 1))",
        "insert into orders values (1) on conflict (id) do update set qty = (select pay from hr limit 1)",
        "insert into orders values (1) on conflict (id) do update set qty = 1 where exists (select from hr)",
        "insert into sales (amount) values (1) returning (select pin from secret limit 1)",
        "merge into orders o using hr h on o.id = h.id when matched then delete",
        "merge into orders o using sales s on o.id = (select pay from hr limit 1) when matched then delete",
        "merge into orders o using sales s on o.id = s.id when matched and exists (select from hr) then delete",
        "merge into orders o using sales s on o.id = s.id when not matched then insert (id) values ((select max(pay) from hr))",
        "with x as (select pin from secret) update sales set note = x.pin from x",
        "update sales set (amount, note) = (select pay, name from hr limit 1)",
        "select * from sales, secret for update of sales",
    ),
    # --- each operation is its own
    *group("inserts", ALLOWED, "insert into sales (region, amount) values ('x', 1)", "insert into sales (amount) values (1) on conflict do nothing"),
    *group(
        "inserts", "operation",
        "select 1 from sales",
        "insert into sales (amount) values (1) returning id",
        "insert into sales (amount) values (1) returning 1",
        "insert into sales (id) values (1) on conflict (id) do nothing",
        "insert into sales (id) values (1) on conflict (id) do update set amount = 1",
        "insert into sales (amount) select amount from sales",
        "update sales set amount = 1",
        "delete from sales",
    ),
    *group("updates", ALLOWED, "update sales set amount = 1", "update only sales set note = 'x', amount = 2"),
    *group(
        "updates", "operation",
        "update sales set amount = amount + 1",
        "update sales set amount = 1 where id = 1",
        "update sales set amount = 1 returning 1",
        "update sales set note = sales::text",
        "select 1 from sales",
        "insert into sales (amount) values (1)",
    ),
    *group("deletes", ALLOWED, "delete from sales", "delete from only sales"),
    *group(
        "deletes", "operation", "delete from sales where id = 1", "delete from sales returning *",
        "delete from sales a using sales b where a.id = b.id", "update sales set amount = 1", "truncate sales",
    ),
    # --- columns
    *group(
        "people", ALLOWED,
        "select id, name from people",
        "select p.name, p.region from people as p order by p.id",
        "select count(*) from people",
        "select 1 from people",
        "select people.name from people join sales using (region)",
        "select upper(name) as x from people order by x",
        "with p as (select id as i, name as n from people) select n, p.i from p",
        "select s.* from sales s join people p on p.region = s.region",
        "select x.pay from (select p.id as pay from people p) x",
        "select name from people group by name having count(*) > 0",
        "select (select p.name from people p where p.id = s.id) from sales s",
        "select * from (select id, name from people) x",
        "select array_agg(p.name order by p.id) from people p",
        "select row_to_json(x) from (select id, name from people) x",
        "select count, max from (select count(*), max(id) from people) x",
        "select g.i from people p, generate_series(1, 2) as g(i)",
        "with recursive t(n) as (select 1 union all select n + 1 from t where n < 3) search depth first by n set ssn select ssn from t",
        "select x.ssn from (select name as ssn from people) x",
        "select amount as ssn from sales order by ssn",
        "select q.pay from (select amount as pay from sales) q, people",
        "with recent as (select * from sales where amount > 5) select name, r.amount from people p join recent r on r.id = p.id",
        "select name, r.amount from people p, (select * from sales) r where r.id = p.id order by amount",
        "select name, (select sum(amount) from sales s where s.region = p.region) from people p",
        "select region, count(*) from people group by region order by count desc, max(id)",
        "select upper(name) as zzz from people order by zzz, region", "select distinct on (zzz) name as zzz from people order by zzz",
        "select id from people union select id from people order by id",
        "select id as pay from people", "select max(id) as pay from people order by pay",
        "select (select x from (select 1 as x) q) from people",
        "with a as (select 1 as zzz) select (select zzz from a), name from people",
        "select count(*) from people p join lateral (select amount from sales s where s.id = p.id) l on true",
    ),
    *group(
        "people", "name",
        "select pay from people",
        "select (p).pay from people p",
        "select id from people where pay > 1",
        "select id from people order by pay",
        "select id from people group by id, pay",
        "select id from people having max(pay) > 1",
        "select id from people limit (select max(pay) from people)",
        "select max(ssn) from people",
        "select id from people p join sales s on p.pay = s.amount",
        "select ssn from (select 's' as ssn where false) g full join people using (ssn)",
        "select j.pay from (people p join sales s on true) as j",
        "select u.pay from people p join (select 900 as pay) x using (pay) as u",
        "select rank() over (order by pay) from people",
        "select rank() over w from people window w as (partition by ssn)",
        "select count(*) filter (where pay > 1) from people",
        "select distinct on (pay) id from people",
        "select l.x from people, lateral (select pay as x) l",
        "select (select pay) from people",
        "select case when pay > 1 then 1 end from people",
        "select id from people where exists (select where people.pay > 1)",
        "select x.pay from (select * from people) x",
        "with x as (table people) select x.pay from x",
        "select zz from people",
        "select people.zz from people",
        "select p.zz from people p",
        "select id from people where zz = 1",
        'select "PAY" from people',
        'select U&"p\\0061y" from people',
        "select array_agg(pay) from people",
        "select coalesce(ssn, '') from people",
        "select id from people union select pay from people",
        "select p.people from people p",
        "select pay from sales, people",
        "select a.name from people a, people b where b.ssn = 's-1'",
        "select id from people where row(id, pay) = row(1, 900)",
        "select id from people where (id, ssn) in (select 1, 's-1')",
        "with q as (select id, pay from people) select id from q",
        "select percentile_disc(0.5) within group (order by ssn) from people",
        "select string_agg(name, ',' order by ssn) from people",
        "select lag(name) over (order by name rows between pay preceding and current row) from people",
        "select name from people group by grouping sets ((name), (ssn, name))",
        "select pg_typeof(people.pay) from people",
        "values ((select ssn from people limit 1))",
        "select case when exists (select from people where ssn = 's-1') then 1 end",
        "select id as pay from people where pay = 1",
        'select "a\tb" from people',
        "select \"a\u202eb\" from people, sales",
        'select p."a\tb" from people p',
        "select id as \"a\tb\" from people where \"a\tb\" = 1",
        "select id as zzz from people where zzz = 1",
        "select p.id as zzz from people p group by id having max(zzz) > 1",
        "select id as zzz from people order by zzz + 1",
        "select id as zzz from people union select 1 from people where zzz = 1",
        "select 1 from people p join sales s using (id) join wide w using (c)",
        "select (select 1 from (sales s join wide o on ssn = 'x'), (select 1 as ssn) q limit 1) from people",
        "select (select 1 from (select ssn) z, (select 1 as ssn) q) from people",
        "select (select ssn from (select 1 as ssn) as q(a)) from people",
        "select (select amount from (sales s cross join (select 1) o) as j(a, b, c, d, e, f) limit 1) from people",
        "select (select amount from sales s(a, b, c) limit 1) from people",
        "select (select ssn from (select * from (select 1 as ssn) as q(a)) r) from people",
        "with a as (select 1 as ssn) select (with a as (select 1) select ssn from a) from people",
        "select (select value from unnest(array[1]) u) from people",
    ),
    *group(
        "people", ALLOWED,
        "select * from people",
        "select p.* from people p",
        "select people from people",
        "select p from people p",
        "select p::text from people p",
        "select row_to_json(p) from people p",
        "select to_jsonb(people) from people",
        "select (p.*) is null from people p",
        "select count(p) from people p",
        "select count(distinct people.*) from people",
        "table people",
        "select 1 from people natural join sales",
        "select 1 from people natural join (select 900 as pay) x",
        "select p.b from people as p(a, b, c)",
        "select j from (people p join sales s on true) as j",
        "select j.* from (people p join sales s on true) as j",
        "select * from json_table((select json_agg(p) from people p), '$[*]' columns (pay text path '$.pay')) j",
        "select jsonb_each(to_jsonb(p)) from people p",
        "select (people).* from people",
        "select (x).* from (select people from people) x",
        "select (row(people.*)).* from people",
        "select (array_agg(people))[1] from people",
        "select unnest(array_agg(p)) from people p",
        "select count(*) from people where people is not null",
        "select 1 from people p join people q on p = q",
        "select 1 from people p where p.* is distinct from null",
        "select format('%s', p), concat(p), quote_literal(p) from people p",
        "select coalesce(p.*, null) from people p",
        "select * from (people join sales using (id))",
        "select * from rows from (json_to_recordset('[{\"id\":1}]') as (id integer)) natural join people",
        "select json_query(to_jsonb(p), '$.ssn') from people p",
        "select name, amount from people p join (select * from sales) r on r.id = p.id",
        "select pay from people, (select 1 as pay) q",
        "select zzz from people, (select 1 as zzz) q",
        "select id as zzz from people group by zzz",
        "select j.zzz from (people p cross join (select 1 as zzz) q) as j",
    ),
    *group(
        "people", "syntax",
        "select c from people as p(a, b, c, d, e)",
    ),
    *group(
        "people", "operation",
        "select public.people.pay from people",
        "select (select p from people p).pay",
    ),
    *group(
        "people", "column",
    ),
    *group(
        "edits", ALLOWED,
        "insert into people (id, name) values (9, 'zed')",
        "insert into people (id, name) values (1, 'zed') on conflict (id) do update set name = excluded.name returning people.id",
        "update people set name = 'x' where id = 1",
        "update people set name = 'x' where people.region = 'eu' returning id, old.name",
        "merge into people p using (values (1, 'x')) v(i, n) on p.id = v.i when matched then update set name = v.n",
    ),
    *group(
        "edits", "syntax",
        "insert into people values (9, 'zed', 1, 's', 'eu')",
    ),
    *group(
        "edits", "name",
        "insert into people (id, pay) values (9, 1)",
        "insert into people (id, name) values (1, 'x') on conflict (id) do update set name = excluded.ssn",
        "insert into people (id, name) values (1, 'x') on conflict (id) do update set name = 'y' where excluded.pay is null",
        "insert into people (id) values (1) on conflict (ssn) do nothing",
        "insert into people (id) values (1) on conflict on constraint people_ssn_key do nothing",
        "insert into people (id) values (1) on conflict (id) do update set pay = 1",
        "insert into people (id) values (1) on conflict (id) do update set name = people.ssn",
        "insert into people (id) values (1) on conflict (id) do update set name = 'x' where people.pay > 1",
        "insert into people (id, name) values (9, 'zed') returning pay",
        "update people set pay = 1",
        "update people set name = ssn",
        "update people set name = 'x' where pay > 1",
        "update people set name = 'x' returning ssn",
        "update people set name = 'x' returning old.ssn",
        "update people set name = 'x' returning with (old as o) o.ssn",
        "update people set (name, pay) = ('x', 1)",
        "update people p set name = q.ssn from people q where q.id = p.id",
        "merge into people p using (values (1, 'x')) v(i, n) on p.id = v.i when matched then update set pay = 1",
        "merge into people p using (values (1, 'x')) v(i, n) on p.ssn = v.n when matched then do nothing",
        "merge into people p using (values (1, 'x')) v(i, n) on p.id = v.i when matched and p.pay > 1 then do nothing",
    ),
    *group(
        "edits", ALLOWED,
        "insert into people (id, name) values (1, 'x') on conflict (id) do update set name = excluded::text",
        "insert into people (id, name) values (9, 'zed') returning *",
        "update people set name = 'x' returning with (new as n) n.*",
    ),
    *group(
        "edits", "operation",
        "insert into people (id, name) values (1, 'x') on conflict (id) do update set name = (select e::text from (select excluded.*) e)",
        "merge into people p using (values (7, 'x')) v(i, n) on p.id = v.i when not matched then insert values (7, 'x', 1, 's', 'eu')",
    ),
    *group(
        "people", "operation",
        "select ctid from people", "select p.tableoid from people p", "select xmin from people",
        "select (select ctid from sales limit 1) from people", "select (select xmin from (select 1) q) from people",
    ),
    *group("named", "operation", "select w.ctid from wide w"),
    *group("edits", "column", "delete from people", "delete from people where id = 1"),
    *group("edits", "operation", "select * from people; delete from people"),
    # --- inheritance, partitions, views, names
    *group(
        "reads_more", ALLOWED,
        "select * from parent", "select * from only parent", "select * from parts", "select * from sales_view",
        'select "a.b", "select", "Big" from odd', "select value from tenants", "select count(*) from wide w where w.a = 1 and w.b = 2",
    ),
    *group("reads_more", "table", "select * from child", "select * from parts_low", "select * from secret_view", "select * from both_view"),
    # --- what PostgreSQL itself refuses, and says without details
    *group("reads", "value", "select 1 / 0", "select amount / (amount - amount) from sales"),
    *group("reads", "name", "select nothing from sales"),
    *group("reads", "name", "select nowhere.id from sales", "select sales.id from sales s", "select (select q.spill) from sales"),
    *group(
        "reads", "name",
        "select s.nothing from sales s",
    ),
    *group("reads", "value", "select 'x'::integer"),
    *group("reads", "name", "select abs('a', 'b')", "select region + 1 from sales"),
    *group("reads", "syntax", "selec 1", "select * from", "select 'x", "select \x00 1", "select '\ud800'", "select * from sales where id = ?", "select " + "(" * 2_000),
    *group("writes", "unique", "insert into orders values (1)"),
    *group("writes", "check", "update sales set amount = -1"),
    *group("edits", "unique", "update people set id = 1"),
    # --- names that are longer than PostgreSQL has room for: what is left of them counts
    *group(
        "people", "name",
        f"select {'p' * 64}.pay from people {'p' * 63}",
        f"select {'p' * 63}x.pay from people as {'p' * 63}y",
        f"select {'é' * 32}.pay from people as {'é' * 31}",
        f"select ({'p' * 70}).pay from people as {'p' * 63}",
        f"with {'p' * 64} as (select 1 as pay) select x.{'p' * 63}y from people x, {'p' * 63} limit 1",
    ),
    *group(
        "people", "table",
        f"with a as (select 1 as id) select id from {'p' * 63}x", f"with {'p' * 63}x as (select 1 as id) select id from {'p' * 62}x",
    ),
    *group(
        "people", ALLOWED,
        f"select {'p' * 64}.name from people {'p' * 63}", f"select {'p' * 63}x.name from people as {'p' * 63}y",
        f"select {'é' * 32}.name from people as {'é' * 31}", f"with {'p' * 63}x as (select 1 as id) select id from {'p' * 63}y",
        f"select name as {'p' * 64} from people order by {'p' * 63}x",
    ),
    # --- size and depth
    *group(
        "all", "operation",
        "select 1 from " + ", ".join(f"wide w{i}" for i in range(201)),
        "select 1 from " + ", ".join(["wide"] * 24_000),
        "select " + ", ".join(f"a{i}" for i in range(12_000)) + " from " + ", ".join(f"wide w{i}" for i in range(150)),
        "select 1" + " union select 1 from wide" * 201,
    ),
    *group(
        "all", "operation",
        "select 1 " + "+-" * 40_000, "select 1 " + "*/" * 251, "select 1 " + "/**/" * 20_000, "select 1 " + "/*" * 40_000,
        "with " + ", ".join(f"c{i} as (select 1)" for i in range(201)) + " select 1",
        "select $é$ $_$ $é$" + " + 1" * 3_100, "select $é$ $è$ $é$" + " + 1" * 3_100,
    ),
    *group(
        "all", ALLOWED,
        "select 1 /* " + "-" * 480 + " */", "select '" + "é" * 40_000 + "'", "select 1 where 'é' in ('ü'" + ", 'ö'" * 2_000 + ")",
        "select " + "'é', " * 1_600 + "1", "select 1 from sales where note in ('é'" + ", 'a'" * 16_000 + ")",
        "with " + ", ".join(f"c{i} as (select 1 as x)" for i in range(200)) + " select x from c7",
        "select 'kosten: 5 $', 'é $ 5', $a$é$a$, $$é$$, '$é$', $é$ $è$ $é$, $字$b$字$, '" + "x" * 200 + "'",
    ),
    *group("all", "syntax", "select 'é" + "x" * 200),
    *group("all", "operation", "select '" + "x" * 1_000_000 + "'", "select " + "1+" * 20_000 + "1", "select " + "not " * 9_000 + "true", "select " + "(" * 20_000),
]  # fmt: skip
