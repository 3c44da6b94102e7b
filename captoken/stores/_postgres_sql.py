"""The tables and functions of the stores on PostgreSQL, as text that `postgres` runs.

`ready`: what was answered is on disk, nobody waits for a lock for ever, and each statement sees
what was committed before it. The functions rely on the last: what they read once more after a lock
is the newest. And rows are found by an index: a plan that was made while a table was small would
else read all of it, for as long as the connection lasts.

`floor_of`: the floor of a kind of store. If the row is gone, all was lost, and the store is not
there: `make` alone makes it. It lies beside what the store is known by: the `timeline` of the
server (another one, where a standby was promoted or a backup rolled forward), the `cluster`, the
`place` of the table, which has the database in it (another one, where a dump was restored, or a
copy of the database took its place), and the `runs`, which are the starts of the server that it
has seen. A client says which run it has seen last (`seen`; nothing, if none yet; NULL, if nothing
can be lost). If that is none of them, the data are older than what the client knows: a folder was
put back. In each case the last transactions may be lost. Then the floor rises over all that can
have been issued; the run counts as seen, since what was used in it is below the floor. `keys`: for
these there is no floor, until it rises (`is_above`). Where a table is unlogged, a crash would empty
it: the store is lost, and its row goes.

`is_here`: is all of that as it was? It is asked with each call, and costs next to nothing. If not,
the call ends with CT003, and the client asks `meet`, which settles it and tells the run, as for a
store that is opened. `look` is for the registry, which asks it in its own transaction.

`reserve` locks the rows of the buckets in the order of the debits, from root to leaf, so that no
two wait for each other. What was debited is given back when a later bucket is short, and when the
same reservation was made by another connection meanwhile. `settle` takes the same order. `sweep`
passes over rows that are locked. It notes, as the floor of what is `forgotten`, until when the last
bucket was kept that it deleted. `reserve` asks for that at once, and once more after the debits,
unless it has debited them all and made none: so whoever makes a bucket again sees the note of the
one who deleted it. It answers 0, or the number of the first debit that is short, with FULL added if
its tree has too many, or -1 or -2 for a token or a clock that is refused. What it needs to know
beforehand it reads in one statement.

`step` judges marks, and then lets `reserve` do the rest. Two steps that race must come one after
the other: one that sets a mark, and one that a rule lets through since the mark is not set. Of a
mark that is not set there is no row to lock. So whoever is to write one has a lock on its name, and
whoever saw that it is not set shares in one, until the transaction is over (`turns_of`). All are
taken in the order of their numbers, before any other lock; then it looks again. What is set stays
set, and needs no lock: a mark that was seen to be set counts as set for that call, though it is
swept meanwhile. Rows of marks are written in the order of their names. If `reserve` then says no,
the marks are undone. It answers a number alone, or the parts of the rule that holds.

`room_of`: how many more buckets a tree may have. Whoever is to make one takes turns with the others
of its tree, before any row is locked.

`make_overlay` notes among the floors that the store of snapshots was made, and `publish` that there
was a snapshot: if there is none any more, it was lost. `look_overlay` is for
all else that asks it: it is there where that is noted, and where a snapshot lies, since those of
before did not have to be made.

`publish` and `append` lock the row of the snapshot, so that one comes after the other. `newest` and
`mark` are what `load_overlay` gives, and what the newest is known by. They are stable: all that
they read is of one moment, and of what the function that calls them has seen and locked. A delta
with `is_in` led to the snapshot that lies there whole, and is behind it no more.

`peek_add`, `peek_reserve` and `peek_step` do what `add`, `reserve` and `step` do, and undo it
before they answer: an exception ends the inner block, and all that was done in it is rolled back,
locks included. So what they answer cannot differ from what the call would. Nobody else ever sees
what was undone.

Names. Whoever may create in a schema of the login's search path can put a function, an operator or
a type there that fits better than PostgreSQL's own: it would run in its place. So each of them is
sent with its schema, `pg_catalog`. To pin the path in a function instead costs as much again as a
reservation. The text here is easier to read: `qualified` adds the schema, to these three.

- A function: a name with a parenthesis right behind it, unless the language itself has the word.
- An operator: it has a blank on each side, and equality is `==`; `in` before a query is one, too.
  A single `=` assigns. All that have a schema bind alike, so arithmetic within a comparison has
  parentheses of its own.
- The names of types that are no words of the language.

`is distinct from`, `using`, `between` and `case x when` look for an operator that no schema can be
written to, and are not used.
"""

from __future__ import annotations

import re

from captoken._format.signed import TAIL_BYTES
from captoken.stores._schema import SAYS_VERSION, VERSIONS, Schema, SchemaChange
from captoken.stores.ports import DELTAS, FULL, KEPT, MOST_BUCKETS

_TYPES = "text|bytea|void|oid|regclass"
_OF_THE_LANGUAGE = "any|array|coalesce|extract|greatest|least"
_OPERATORS = r"==|<>|<=|>=|<|>|\+|-|\|\|"

_NAME = re.compile(rf"""(?<![."'\w])(?!(?:{_OF_THE_LANGUAGE})\()(?:\w+(?=\()|(?:{_TYPES})\b)""")
_OPERATOR = re.compile(rf" ({_OPERATORS})(?= )")


def qualified(statement: str) -> str:
    """A statement whose names nobody can take the place of: see the top of this module."""
    named = _NAME.sub(r"pg_catalog.\g<0>", statement)
    among = re.sub(r" in (?=\(\s*select\b)", " == any ", named)
    placed = _OPERATOR.sub(r" operator(pg_catalog.\1)", among)
    return placed.replace("(pg_catalog.==)", "(pg_catalog.=)")


def saying(schema: Schema, table: str) -> str:
    """The statement that says the version of tables, where they are made; `table` is one of them.

    Raises CT004 where they are there, in another version.
    """
    says = f"""
do $$ begin
    if to_regclass('captoken.{VERSIONS}') is null then
        if to_regclass('captoken.{table}') is not null then
            raise exception using errcode = 'CT004', message = 'captoken: an earlier version made '
                'these tables: run captoken upgrade';
        end if;
        create table captoken.{VERSIONS} (store text primary key, version integer not null);
    end if;
    if to_regclass('captoken.{table}') is null then
        insert into captoken.{VERSIONS} values ('{schema.store}', {schema.version})
            on conflict (store) do update set version = excluded.version;
    elsif not exists (
        select from captoken.{VERSIONS}
        where store == '{schema.store}' and version == {schema.version}
    ) then
        raise exception using errcode = 'CT004', message = 'captoken: another version made '
            'these tables: run captoken upgrade';
    end if;
end $$;
"""  # noqa: S608, of names that stand in this package
    return qualified(says)


def granted_as(table: str, like: str, *rights: str) -> str:
    """The statement by which whoever has these rights on one table has them on another, new one."""
    several = ", ".join(f"'{right}'" for right in rights)
    grants = f"""
do $$ declare its record; begin
    for its in select a.grantee, a.privilege_type as may
        from pg_catalog.pg_class c, aclexplode(c.relacl) a
        where c.oid == 'captoken.{like}'::regclass and a.grantee <> c.relowner
            and a.privilege_type == any(array[{several}])
    loop
        execute format(
            'grant %s on captoken.{table} to %s', its.may,
            case when its.grantee == 0 then 'public' else its.grantee::pg_catalog.regrole::text end
        );
    end loop;
end $$;
"""  # noqa: S608, of names that stand in this package
    return qualified(grants)


# The functions of version 1, which were given `lossless` where others are given `seen` now.
_FACTS = "text, bigint, bigint, bigint, boolean"
_OF_PROOFS = "bytea, bigint, text, bigint, bigint, bigint, bigint, boolean"
_OF_COUNTS = (
    "bytea, bytea[], text[], bigint[], bigint[], bigint, bigint, bigint, text, bigint, text, "
    "bigint, bigint, bigint, boolean"
)
_VERSION_1 = f"""
drop function if exists captoken.timeline(boolean),
    captoken.make({_FACTS}, bigint, text[]),
    captoken.floor_of(text, bigint, bigint, bigint, boolean),
    captoken.look({_FACTS}),
    captoken.add({_OF_PROOFS}), captoken.peek_add({_OF_PROOFS}),
    captoken.reserve({_OF_COUNTS}), captoken.peek_reserve({_OF_COUNTS})
"""

# What a publication has noted since.
_WAS_PUBLISHED = """
update captoken.floors set floor = 1
    where kind == 'overlay' and exists (select from captoken.overlay)
"""

# A mark of a task or of an overlay's entry has no tree: it is not counted with a tree's buckets.
_MARKS = """
create table if not exists captoken.marks (
    bucket bytea primary key, keep bigint, tree text, at bigint not null, said bytea not null
);
create index if not exists marks_by_tree on captoken.marks (tree);
create index if not exists marks_by_time on captoken.marks (keep);
"""

# No consent can have been spent in a store that did not know any. But another one may have stood
# here: so nothing is taken that this one was too young for.
_CONSENTS = """
create table if not exists captoken.consents (entry bytea primary key, issued_at bigint not null);
create index if not exists consents_by_time on captoken.consents (issued_at);
alter table captoken.floors add column if not exists begun bigint;
update captoken.floors set begun = floor where begun is null;
"""
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")

# Of all tables and functions here: they are made together.
SCHEMA = Schema(
    "stores",
    (
        SchemaChange(
            f"{SAYS_VERSION}, knows a server that was set back, and names PostgreSQL's own "
            "functions with their schema",
            (qualified(_VERSION_1), qualified(_WAS_PUBLISHED)),
        ),
        SchemaChange("keeps marks", (qualified(_MARKS), granted_as("marks", "buckets", *_RIGHTS))),
        SchemaChange(
            "keeps consents", (qualified(_CONSENTS), granted_as("consents", "proofs", *_RIGHTS))
        ),
    ),
)

_TEXT = """
create table if not exists captoken.floors (
    kind text primary key, floor bigint not null, timeline text not null,
    keys text[] not null default '{}'
);
alter table captoken.floors add column if not exists keys text[] not null default '{}',
    add column if not exists cluster text, add column if not exists place text,
    add column if not exists runs text[] not null default '{}';

create table if not exists captoken.proofs (entry bytea primary key, issued_at bigint not null);
create index if not exists proofs_by_time on captoken.proofs (issued_at);

$consents
create table if not exists captoken.buckets (
    link bytea, unit text, spent bigint not null check (spent >= 0), keep bigint,
    tree text not null, primary key (link, unit)
);
create index if not exists buckets_by_tree on captoken.buckets (tree);
create index if not exists buckets_by_time on captoken.buckets (keep);

create table if not exists captoken.reservations (
    id bytea primary key, links bytea[] not null, units text[] not null, amounts bigint[] not null,
    until bigint not null, open boolean not null
);
create index if not exists reservations_by_time on captoken.reservations (until);

$marks
create table if not exists captoken.overlay (
    one integer primary key check (one == 1), snapshot bytea not null
);

create table if not exists captoken.overlay_deltas (
    number bigint primary key, after bytea not null, gives bytea not null, delta bytea not null,
    is_in boolean not null
);
create index if not exists overlay_deltas_by_mark on captoken.overlay_deltas (after);

create or replace function captoken.ready() returns void language plpgsql as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'captoken: transactions must be read committed';
    end if;
    if current_setting('synchronous_commit') == 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    if current_setting('lock_timeout') == '0' then
        perform set_config('lock_timeout', '5s', true);
    end if;
    if current_setting('enable_seqscan') <> 'off' then
        perform set_config('enable_seqscan', 'off', true);
    end if;
end $$;

create or replace function captoken.timeline() returns text language sql as $$
    select left(pg_walfile_name(pg_current_wal_lsn()), 8);
$$;

create or replace function captoken.run() returns text language sql as $$
    select extract(epoch from pg_postmaster_start_time())::text;
$$;

create or replace function captoken.is_here(
    its_timeline text, its_place text, its_table oid, seen text
) returns boolean language sql as $$
    select seen is null or coalesce(
        its_timeline == left(pg_walfile_name(pg_current_wal_lsn()), 8)
        and its_place == pg_relation_filepath(its_table::regclass)
        and seen == extract(epoch from pg_postmaster_start_time())::text,
        false
    );
$$;

create or replace function captoken.first_of(
    ahead bigint, told bigint, clock bigint
) returns bigint language sql as $$
    select ahead + greatest(
        coalesce(clock, floor(extract(epoch from clock_timestamp()))::bigint), told
    );
$$;

create or replace function captoken.make(
    its_kind text, told bigint, ahead bigint, clock bigint, seen text, first bigint,
    its_keys text[]
) returns boolean language plpgsql as $$
begin
    perform captoken.ready();
    insert into captoken.floors (kind, floor, timeline, keys, begun) values (
        its_kind, coalesce(first, captoken.first_of(ahead, told, clock)),
        case when seen is null then '' else captoken.timeline() end, its_keys,
        coalesce(first, captoken.first_of(ahead, told, clock))
    ) on conflict (kind) do nothing;
    return found;
end $$;

create or replace function captoken.floor_of(
    its_kind text, ahead bigint, told bigint, clock bigint, seen text
) returns bigint language plpgsql as $$
declare
    current text;
    now_run text := captoken.run();
    its_cluster text;
    known record;
begin
    select floor, timeline, place, tableoid as its_table,
        pg_relation_filepath(tableoid::regclass) as here
        into known from captoken.floors where kind == its_kind;
    if not found then
        raise exception using errcode = 'CT002', message = 'captoken: not there';
    end if;
    if captoken.is_here(known.timeline, known.place, known.its_table, seen) then
        return known.floor;
    end if;
    if exists (
        select from pg_catalog.pg_class c
        join pg_catalog.pg_class f on f.relnamespace == c.relnamespace
        where f.oid == known.its_table and c.relkind == 'r' and c.relpersistence <> 'p'
    ) then
        delete from captoken.floors where kind == its_kind;
        return null;
    end if;
    current := captoken.timeline();
    its_cluster := (select system_identifier::text from pg_catalog.pg_control_system());
    update captoken.floors as f
        set floor = greatest(f.floor, captoken.first_of(ahead, told, clock)), timeline = current,
            begun = greatest(f.begun, captoken.first_of(ahead, told, clock)),
            keys = '{}', cluster = its_cluster, place = known.here,
            runs = (array[now_run, seen] || f.runs)[1:100]
        where kind == its_kind and not (
            f.timeline == current
            and coalesce(f.cluster == its_cluster and f.place == known.here, true)
            and (seen == '' or seen == any(f.runs))
        );
    if not found then
        update captoken.floors as f
            set cluster = its_cluster, place = known.here, runs = (array[now_run] || f.runs)[1:100]
            where kind == its_kind
                and (f.place is null or not (now_run == any(f.runs)));
    end if;
    return (select floor from captoken.floors where kind == its_kind);
end $$;

create or replace function captoken.look(
    its_kind text, told bigint, ahead bigint, clock bigint, seen text
) returns bigint language plpgsql as $$
begin
    perform captoken.ready();
    return captoken.floor_of(its_kind, ahead, told, clock, seen);
end $$;

create or replace function captoken.meet(
    its_kind text, told bigint, ahead bigint, clock bigint, seen text
) returns text language plpgsql as $$
begin
    if captoken.look(its_kind, told, ahead, clock, seen) is null then
        return null;
    end if;
    return captoken.run();
end $$;

create or replace function captoken.is_above(
    its_kind text, issued bigint, its_kid text
) returns boolean language sql as $$
    select exists (
        select from captoken.floors
        where kind == its_kind and (issued > floor or its_kid == any(keys))
    );
$$;

create or replace function captoken.add(
    its_entry bytea, issued bigint, its_kid text, told bigint, gone bigint, ahead bigint,
    clock bigint, seen text
) returns boolean language plpgsql as $$
declare
    known record;
begin
    perform captoken.ready();
    select timeline, place, tableoid as its_table into known
        from captoken.floors where kind == 'replay';
    if not found then
        raise exception using errcode = 'CT002', message = 'captoken: not there';
    elsif not captoken.is_here(known.timeline, known.place, known.its_table, seen) then
        raise exception using errcode = 'CT003', message = 'captoken: look again';
    end if;
    update captoken.floors set floor = gone, keys = '{}' where kind == 'replay' and floor < gone;
    if found then
        delete from captoken.proofs where issued_at <= gone;
    end if;
    if not captoken.is_above('replay', issued, its_kid) then
        return false;
    end if;
    insert into captoken.proofs values (its_entry, issued) on conflict (entry) do nothing;
    -- Once more: it may have been known, and forgotten by whoever raised the floor meanwhile.
    return found and captoken.is_above('replay', issued, its_kid);
end $$;

create or replace function captoken.is_after_begun(
    issued bigint
) returns boolean language sql as $$
    select exists (select from captoken.floors where kind == 'replay' and issued > begun);
$$;

create or replace function captoken.spend(
    its_entry bytea, issued bigint, its_kid text, told bigint, gone bigint, ahead bigint,
    clock bigint, seen text
) returns boolean language plpgsql as $$
declare
    known record;
begin
    perform captoken.ready();
    select timeline, place, tableoid as its_table into known
        from captoken.floors where kind == 'replay';
    if not found then
        raise exception using errcode = 'CT002', message = 'captoken: not there';
    elsif not captoken.is_here(known.timeline, known.place, known.its_table, seen) then
        raise exception using errcode = 'CT003', message = 'captoken: look again';
    end if;
    update captoken.floors set begun = gone where kind == 'replay' and begun < gone;
    if found then
        delete from captoken.consents where issued_at <= gone;
    end if;
    if not captoken.is_after_begun(issued) then
        return false;
    end if;
    insert into captoken.consents values (its_entry, issued) on conflict (entry) do nothing;
    return found and captoken.is_after_begun(issued);
end $$;

create or replace function captoken.peek_spend(
    its_entry bytea, issued bigint, its_kid text, told bigint, gone bigint, ahead bigint,
    clock bigint, seen text
) returns boolean language plpgsql as $$
declare
    answer boolean;
begin
    begin
        answer := captoken.spend(
            its_entry, issued, its_kid, told, gone, ahead, clock, seen
        );
        raise exception using errcode = 'CT001', message = 'captoken: undone';
    exception when sqlstate 'CT001' then
        return answer;
    end;
end $$;

create or replace function captoken.peek_add(
    its_entry bytea, issued bigint, its_kid text, told bigint, gone bigint, ahead bigint,
    clock bigint, seen text
) returns boolean language plpgsql as $$
declare
    answer boolean;
begin
    begin
        answer := captoken.add(
            its_entry, issued, its_kid, told, gone, ahead, clock, seen
        );
        raise exception using errcode = 'CT001', message = 'captoken: undone';
    exception when sqlstate 'CT001' then
        return answer;
    end;
end $$;

create or replace function captoken.give_back(
    its_links bytea[], its_units text[], its_amounts bigint[], many integer
) returns void language plpgsql as $$
begin
    for i in 1 .. many loop
        if its_amounts[i] > 0 then
            update captoken.buckets set spent = spent - its_amounts[i]
                where link == its_links[i] and unit == its_units[i];
        end if;
    end loop;
end $$;

create or replace function captoken.sweep(told bigint) returns void language plpgsql as $$
declare
    sure bigint := least(told, floor(extract(epoch from clock_timestamp()))::bigint);
    last bigint;
begin
    delete from captoken.reservations where id in (
        select id from captoken.reservations where until <= sure
            limit 500 for update skip locked
    );
    with forgotten as (
        delete from captoken.buckets where (link, unit) in (
            select link, unit from captoken.buckets where keep <= sure
                limit 500 for update skip locked
        ) returning keep
    ), unmarked as (
        delete from captoken.marks where bucket in (
            select bucket from captoken.marks where keep <= sure
                limit 500 for update skip locked
        ) returning keep
    ) select max(keep) into last
        from (select keep from forgotten union all select keep from unmarked) as its;
    if last is not null then
        insert into captoken.floors as f values ('forgotten', last, '')
            on conflict (kind) do update set floor = greatest(f.floor, excluded.floor);
    end if;
end $$;

create or replace function captoken.room_of(
    its_tree text, told bigint
) returns bigint language plpgsql as $$
declare
    sure bigint := least(told, floor(extract(epoch from clock_timestamp()))::bigint);
begin
    perform pg_advisory_xact_lock(hashtext('captoken'), hashtext(its_tree));
    return $most - (
        select count(*) from captoken.buckets
        where tree == its_tree and (keep is null or keep > sure)
    ) - (
        select count(*) from captoken.marks
        where tree == its_tree and (keep is null or keep > sure)
    );
end $$;

create or replace function captoken.reserve(
    its_id bytea, its_links bytea[], its_units text[], limits bigint[], its_amounts bigint[],
    issued bigint, its_until bigint, its_keep bigint, its_tree text, leeway bigint,
    its_kid text, told bigint, ahead bigint, clock bigint, seen text
) returns integer language plpgsql as $$
declare
    known record;
    done integer := 0;
    room bigint;
    is_new boolean;
    is_full boolean := false;
begin
    perform captoken.ready();
    select exists (select from captoken.reservations where id == its_id) as is_made,
        mine.floor, mine.timeline, mine.keys, mine.place, mine.tableoid as its_table,
        forgotten.floor as gone
        into known from (select) as one
        left join captoken.floors as mine on mine.kind == 'ledger'
        left join captoken.floors as forgotten on forgotten.kind == 'forgotten';
    if known.is_made then
        return 0;
    end if;
    if known.floor is null then
        raise exception using errcode = 'CT002', message = 'captoken: not there';
    elsif not captoken.is_here(known.timeline, known.place, known.its_table, seen) then
        raise exception using errcode = 'CT003', message = 'captoken: look again';
    elsif (issued > known.floor or its_kid == any(known.keys)) is not true then
        return -1;
    end if;
    if (told - leeway) < (known.gone - $kept) then
        return -2;
    end if;
    if 0 > any(its_amounts) then
        raise exception using errcode = '23514', message = 'captoken: a debit must not be negative';
    end if;
    for i in 1 .. cardinality(its_links) loop
        if not exists (
            select from captoken.buckets where link == its_links[i] and unit == its_units[i]
        ) then
            room := captoken.room_of(its_tree, told);
            exit;
        end if;
    end loop;
    for i in 1 .. cardinality(its_links) loop
        update captoken.buckets as b
            set spent = b.spent + its_amounts[i],
                keep = case when b.keep is not null and its_keep is not null
                    then greatest(b.keep, its_keep) end
            where b.link == its_links[i] and b.unit == its_units[i]
                and (b.spent + its_amounts[i]) <= limits[i];
        if not found and room > 0 then
            insert into captoken.buckets as b (link, unit, spent, keep, tree)
                select its_links[i], its_units[i], its_amounts[i], its_keep, its_tree
                    where its_amounts[i] <= limits[i]
                on conflict (link, unit) do update
                set spent = b.spent + excluded.spent,
                    keep = case when b.keep is not null and excluded.keep is not null
                        then greatest(b.keep, excluded.keep) end
                where (b.spent + excluded.spent) <= limits[i]
                returning xmax == 0 into is_new;
            if found and is_new then
                room := room - 1;
            end if;
        end if;
        if not found then
            is_full := coalesce(room, 0) <= 0 and not exists (
                select from captoken.buckets where link == its_links[i] and unit == its_units[i]
            );
            exit;
        end if;
        done := i;
    end loop;
    if (room is not null or done < cardinality(its_links)) and exists (
        select from captoken.floors where kind == 'forgotten' and (told - leeway) < (floor - $kept)
    ) then
        perform captoken.give_back(its_links, its_units, its_amounts, done);
        return -2;
    end if;
    if done == cardinality(its_links) then
        insert into captoken.reservations
            values (its_id, its_links, its_units, its_amounts, its_until, true)
            on conflict (id) do nothing;
        if found then
            if get_byte(its_id, 0) < 16 then
                perform captoken.sweep(told);
            end if;
            return 0;
        end if;
    end if;
    perform captoken.give_back(its_links, its_units, its_amounts, done);
    if exists (select from captoken.reservations where id == its_id) then
        return 0;
    end if;
    return done + 1 + case when is_full then $full else 0 end;
end $$;

create or replace function captoken.peek_reserve(
    its_id bytea, its_links bytea[], its_units text[], limits bigint[], its_amounts bigint[],
    issued bigint, its_until bigint, its_keep bigint, its_tree text, leeway bigint,
    its_kid text, told bigint, ahead bigint, clock bigint, seen text
) returns integer language plpgsql as $$
declare
    answer integer;
begin
    begin
        answer := captoken.reserve(
            its_id, its_links, its_units, limits, its_amounts,
            issued, its_until, its_keep, its_tree, leeway, its_kid, told, ahead, clock, seen
        );
        raise exception using errcode = 'CT001', message = 'captoken: undone';
    exception when sqlstate 'CT001' then
        return answer;
    end;
end $$;

create or replace function captoken.turns_of(
    its_marks bytea[], written boolean[]
) returns void language plpgsql as $$
declare
    its record;
    kind integer := hashtext('captoken mark');
begin
    for its in
        select hashtext(encode(bucket, 'hex')) as number, bool_or(is_written) as is_written
        from rows from (unnest(its_marks), unnest(written)) as one (bucket, is_written)
        where is_written is not null group by 1 order by 1
    loop
        if its.is_written then
            perform pg_advisory_xact_lock(kind, its.number);
        else
            perform pg_advisory_xact_lock_shared(kind, its.number);
        end if;
    end loop;
end $$;

create or replace function captoken.set_marks(
    its_marks bytea[], keeps bigint[], of_holder boolean[], written boolean[], its_tree text,
    its_said bytea, told bigint, sure bigint
) returns void language plpgsql as $$
declare
    its record;
begin
    for its in
        select bucket, keep, is_of_holder, is_written
        from rows from (unnest(its_marks), unnest(keeps), unnest(of_holder), unnest(written))
            as one (bucket, keep, is_of_holder, is_written)
        order by bucket
    loop
        if its.is_written then
            delete from captoken.marks where bucket == its.bucket and keep <= sure;
            insert into captoken.marks values (
                its.bucket, its.keep, case when its.is_of_holder then its_tree end, told, its_said
            ) on conflict (bucket) do nothing;
        end if;
        update captoken.marks set keep = its.keep
            where bucket == its.bucket and keep > sure and (keep < its.keep or its.keep is null);
    end loop;
end $$;

create or replace function captoken.step(
    its_id bytea, its_links bytea[], its_units text[], limits bigint[], its_amounts bigint[],
    its_until bigint, its_keep bigint, its_marks bytea[], keeps bigint[], of_holder boolean[],
    own integer, its_rules text[], its_said bytea, issued bigint, its_tree text, leeway bigint,
    its_kid text, told bigint, ahead bigint, clock bigint, seen text
) returns bytea[] language plpgsql as $$
declare
    sure bigint := least(told, floor(extract(epoch from clock_timestamp()))::bigint);
    many integer := cardinality(its_marks);
    known record;
    first bytea[];
    written boolean[];
    holds bytea[];
    member integer;
    number integer;
    fresh integer := 0;
    answer integer := 0;
begin
    perform captoken.ready();
    for turn in 1 .. 2 loop
        select mine.floor, mine.timeline, mine.keys, mine.place, mine.tableoid as its_table,
            greatest(forgotten.floor, its.gone) as gone, its.said, its.grows
            into known from (
                select array_agg(
                        case when (m.keep <= sure) is not true
                            then convert_to(m.at::text || ' ', 'UTF8') || m.said end
                        order by one.at
                    ) as said,
                    array_agg(
                        (m.keep > sure and (m.keep < one.keep or one.keep is null)) is true
                        order by one.at
                    ) as grows,
                    max(m.keep) filter (where m.keep <= sure) as gone
                from rows from (unnest(its_marks), unnest(keeps))
                    with ordinality as one (bucket, keep, at)
                left join captoken.marks m on m.bucket == one.bucket
            ) as its
            left join captoken.floors as mine on mine.kind == 'ledger'
            left join captoken.floors as forgotten on forgotten.kind == 'forgotten';
        if known.floor is null then
            raise exception using errcode = 'CT002', message = 'captoken: not there';
        elsif not captoken.is_here(known.timeline, known.place, known.its_table, seen) then
            raise exception using errcode = 'CT003', message = 'captoken: look again';
        elsif (issued > known.floor or its_kid == any(known.keys)) is not true then
            return array[convert_to('-1', 'UTF8')];
        elsif (told - leeway) < (known.gone - $kept) then
            return array[convert_to('-2', 'UTF8')];
        end if;
        if turn == 1 then
            first := known.said;
        end if;
        written := null;
        for i in 1 .. many loop
            -- What was set at first counts as set, though it was swept while this one waited.
            first[i] := coalesce(known.said[i], first[i]);
            written[i] := case
                when i <= own then case when known.said[i] is null or known.grows[i] then true end
                when first[i] is null then false
            end;
        end loop;
        for i in 1 .. cardinality(its_rules) loop
            holds := array[convert_to((i - 1)::text, 'UTF8')];
            foreach member in array string_to_array(its_rules[i], ' ')::integer[] loop
                if first[member] is null and member > own then
                    holds := null;
                    exit;
                end if;
                holds := holds || coalesce(first[member], ''::bytea);
            end loop;
            if holds is not null then
                if array_position(known.grows, true) is not null then
                    perform captoken.set_marks(
                        its_marks, keeps, of_holder, null, its_tree, its_said, told, sure
                    );
                end if;
                return holds;
            end if;
        end loop;
        exit when turn == 2 or coalesce(
            array_position(written, true), array_position(written, false)
        ) is null;
        perform captoken.turns_of(its_marks, written);
    end loop;
    for i in reverse own .. 1 loop
        if known.said[i] is null and of_holder[i] then
            fresh := fresh + 1;
            number := i;
        end if;
    end loop;
    if fresh > 0 and fresh > captoken.room_of(its_tree, told) then
        return array[convert_to((number + $over)::text, 'UTF8')];
    end if;
    begin
        if array_position(written, true) is not null
            or array_position(known.grows, true) is not null then
            perform captoken.set_marks(
                its_marks, keeps, of_holder, written, its_tree, its_said, told, sure
            );
        end if;
        if its_id is not null then
            answer := captoken.reserve(
                its_id, its_links, its_units, limits, its_amounts, issued, its_until, its_keep,
                its_tree, leeway, its_kid, told, ahead, clock, seen
            );
        elsif array_position(written, true) is not null then
            perform captoken.sweep(told);
        end if;
        if answer <> 0 then
            raise exception using errcode = 'CT001', message = 'captoken: undone';
        end if;
    exception when sqlstate 'CT001' then
        null;
    end;
    return array[convert_to(answer::text, 'UTF8')];
end $$;

create or replace function captoken.peek_step(
    its_id bytea, its_links bytea[], its_units text[], limits bigint[], its_amounts bigint[],
    its_until bigint, its_keep bigint, its_marks bytea[], keeps bigint[], of_holder boolean[],
    own integer, its_rules text[], its_said bytea, issued bigint, its_tree text, leeway bigint,
    its_kid text, told bigint, ahead bigint, clock bigint, seen text
) returns bytea[] language plpgsql as $$
declare
    answer bytea[];
begin
    begin
        answer := captoken.step(
            its_id, its_links, its_units, limits, its_amounts, its_until, its_keep, its_marks,
            keeps, of_holder, own, its_rules, its_said, issued, its_tree, leeway, its_kid, told,
            ahead, clock, seen
        );
        raise exception using errcode = 'CT001', message = 'captoken: undone';
    exception when sqlstate 'CT001' then
        return answer;
    end;
end $$;

create or replace function captoken.settle(
    its_id bytea, taken_units text[], taken bigint[], told bigint
) returns boolean language plpgsql as $$
declare
    its_links bytea[];
    its_units text[];
    its_amounts bigint[];
    back bigint;
begin
    perform captoken.ready();
    update captoken.reservations set open = false where id == its_id and open and until > told
        returning links, units, amounts into its_links, its_units, its_amounts;
    if not found then
        return false;
    end if;
    if taken is null then
        return true;
    end if;
    for i in 1 .. cardinality(its_links) loop
        back := its_amounts[i] - greatest(
            coalesce(taken[array_position(taken_units, its_units[i])], 0), 0
        );
        if back > 0 then
            update captoken.buckets set spent = spent - back
                where link == its_links[i] and unit == its_units[i];
        end if;
    end loop;
    return true;
end $$;

create or replace function captoken.look_overlay() returns void language plpgsql stable as $$
begin
    if not exists (select from captoken.overlay) and not exists (
        select from captoken.floors where kind == 'overlay' and floor == 0
    ) then
        raise exception using errcode = 'CT002', message = 'captoken: not there';
    end if;
end $$;

create or replace function captoken.make_overlay() returns boolean language plpgsql as $$
begin
    perform captoken.ready();
    insert into captoken.floors (kind, floor, timeline)
        select 'overlay', 0, '' where not exists (select from captoken.overlay)
        on conflict (kind) do update set floor = 0 where floors.floor <> 0;
    return found;
end $$;

create or replace function captoken.newest() returns bytea language sql stable as $$
    select o.snapshot || coalesce(
        (select string_agg('\\x0a'::bytea || d.delta, ''::bytea order by d.number)
            from captoken.overlay_deltas d where not d.is_in),
        ''::bytea
    ) from captoken.overlay o
$$;

create or replace function captoken.load_overlay() returns bytea language plpgsql stable as $$
begin
    perform captoken.look_overlay();
    return captoken.newest();
end $$;

create or replace function captoken.mark() returns bytea language sql stable as $$
    select coalesce(
        (select gives from captoken.overlay_deltas order by number desc limit 1),
        (select sha256(substr(snapshot, 1, greatest(length(snapshot) - $tail, 0)))
            from captoken.overlay)
    )
$$;

create or replace function captoken.publish(
    its_snapshot bytea, after bytea
) returns boolean language plpgsql as $$
begin
    perform captoken.ready();
    perform captoken.look_overlay();
    if after is null then
        insert into captoken.overlay values (1, its_snapshot) on conflict (one) do nothing;
        if not found then
            return false;
        end if;
        update captoken.floors set floor = 1 where kind == 'overlay';
        return true;
    end if;
    perform from captoken.overlay where one == 1 for update;
    if (captoken.newest() == after) is not true then
        return false;
    end if;
    if exists (select from captoken.overlay_deltas) and captoken.mark()
        == sha256(substr(its_snapshot, 1, greatest(length(its_snapshot) - $tail, 0))) then
        update captoken.overlay_deltas set is_in = true where not is_in;
        delete from captoken.overlay_deltas
            where number <= ((select max(number) from captoken.overlay_deltas) - $deltas);
    else
        delete from captoken.overlay_deltas;
    end if;
    update captoken.floors set floor = 1 where kind == 'overlay' and floor == 0;
    update captoken.overlay set snapshot = its_snapshot where one == 1;
    return found;
end $$;

create or replace function captoken.append(
    its_delta bytea, its_after bytea, its_gives bytea
) returns boolean language plpgsql as $$
begin
    perform captoken.ready();
    perform captoken.look_overlay();
    perform from captoken.overlay where one == 1 for update;
    if (captoken.mark() == its_after) is not true then
        return false;
    end if;
    insert into captoken.overlay_deltas values (
        (select coalesce(max(number), 0) + 1 from captoken.overlay_deltas),
        its_after, its_gives, its_delta, false
    );
    return true;
end $$;

create or replace function captoken.since(
    its_mark bytea
) returns bytea[] language plpgsql stable as $$
declare
    first bigint;
begin
    perform captoken.look_overlay();
    if captoken.mark() == its_mark then
        return array[]::bytea[];
    end if;
    select min(number) into first from captoken.overlay_deltas where after == its_mark;
    if first is null then
        return null;
    end if;
    return (select array_agg(delta order by number) from captoken.overlay_deltas
        where number >= first);
end $$;
"""

SETUP = "create schema if not exists captoken;" + saying(SCHEMA, "floors") + (
    qualified(_TEXT.replace("$marks", _MARKS).replace("$consents", _CONSENTS))
    .replace("$kept", str(KEPT))
    .replace("$tail", str(TAIL_BYTES))
    .replace("$deltas", str(DELTAS))
    .replace("$most", str(MOST_BUCKETS))
    .replace("$full", str(FULL))
    .replace("$over", str(2 * FULL))
)
