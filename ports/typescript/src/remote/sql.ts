/** The statements of the stores on PostgreSQL: made of the text of Python's stores by `python -m tests.ported`, and never edited. */

export const ASKED = {
  opening: `select array[ case when pg_catalog.current_setting('fsync') operator(pg_catalog.=) 'on' then 1 else 0 end, case when pg_catalog.current_setting('client_encoding') operator(pg_catalog.<>) 'SQL_ASCII' then 1 else 0 end ] operator(pg_catalog.||) array( select said.version from pg_catalog.unnest($1::pg_catalog.text[]) with ordinality as its (store, at) left join "captoken"."captoken_schema" said on said.store operator(pg_catalog.=) its.store order by its.at )`,
  make: `select "captoken"."make"($1::pg_catalog.text, $2::bigint, $3::bigint, $4::bigint, $5::pg_catalog.text, $6::bigint, $7::pg_catalog.text[])`,
  meet: `select "captoken"."meet"($1::pg_catalog.text, $2::bigint, $3::bigint, $4::bigint, $5::pg_catalog.text)`,
  add: `select "captoken"."add"($1::pg_catalog.bytea, $2::bigint, $3::pg_catalog.text, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::pg_catalog.text)`,
  peekAdd: `select "captoken"."peek_add"($1::pg_catalog.bytea, $2::bigint, $3::pg_catalog.text, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::pg_catalog.text)`,
  spend: `select "captoken"."spend"($1::pg_catalog.bytea, $2::bigint, $3::pg_catalog.text, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::pg_catalog.text)`,
  peekSpend: `select "captoken"."peek_spend"($1::pg_catalog.bytea, $2::bigint, $3::pg_catalog.text, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::pg_catalog.text)`,
  reserve: `select "captoken"."reserve"($1::pg_catalog.bytea, $2::pg_catalog.bytea[], $3::pg_catalog.text[], $4::bigint[], $5::bigint[], $6::bigint, $7::bigint, $8::bigint, $9::pg_catalog.text, $10::bigint, $11::pg_catalog.text, $12::bigint, $13::bigint, $14::bigint, $15::pg_catalog.text)`,
  peekReserve: `select "captoken"."peek_reserve"($1::pg_catalog.bytea, $2::pg_catalog.bytea[], $3::pg_catalog.text[], $4::bigint[], $5::bigint[], $6::bigint, $7::bigint, $8::bigint, $9::pg_catalog.text, $10::bigint, $11::pg_catalog.text, $12::bigint, $13::bigint, $14::bigint, $15::pg_catalog.text)`,
  step: `select "captoken"."step"($1::pg_catalog.bytea, $2::pg_catalog.bytea[], $3::pg_catalog.text[], $4::bigint[], $5::bigint[], $6::bigint, $7::bigint, $8::pg_catalog.bytea[], $9::bigint[], $10::boolean[], $11::integer, $12::pg_catalog.text[], $13::pg_catalog.bytea, $14::bigint, $15::pg_catalog.text, $16::bigint, $17::pg_catalog.text, $18::bigint, $19::bigint, $20::bigint, $21::pg_catalog.text)`,
  peekStep: `select "captoken"."peek_step"($1::pg_catalog.bytea, $2::pg_catalog.bytea[], $3::pg_catalog.text[], $4::bigint[], $5::bigint[], $6::bigint, $7::bigint, $8::pg_catalog.bytea[], $9::bigint[], $10::boolean[], $11::integer, $12::pg_catalog.text[], $13::pg_catalog.bytea, $14::bigint, $15::pg_catalog.text, $16::bigint, $17::pg_catalog.text, $18::bigint, $19::bigint, $20::bigint, $21::pg_catalog.text)`,
  settle: `select "captoken"."settle"($1::pg_catalog.bytea, $2::pg_catalog.text[], $3::bigint[], $4::bigint)`,
  load: `select "captoken"."load_overlay"()`,
} as const;

export const VERSION = 4;

export const SETUP = `create schema if not exists captoken;
do $$ begin
    if pg_catalog.to_regclass('captoken.captoken_schema') is null then
        if pg_catalog.to_regclass('captoken.floors') is not null then
            raise exception using errcode = 'CT004', message = 'captoken: an earlier version made '
                'these tables: run captoken upgrade';
        end if;
        create table captoken.captoken_schema (store pg_catalog.text primary key, version integer not null);
    end if;
    if pg_catalog.to_regclass('captoken.floors') is null then
        insert into captoken.captoken_schema values ('stores', 4)
            on conflict (store) do update set version = excluded.version;
    elsif not exists (
        select from captoken.captoken_schema
        where store operator(pg_catalog.=) 'stores' and version operator(pg_catalog.=) 4
    ) then
        raise exception using errcode = 'CT004', message = 'captoken: another version made '
            'these tables: run captoken upgrade';
    end if;
end $$;

create table if not exists captoken.floors (
    kind pg_catalog.text primary key, floor bigint not null, timeline pg_catalog.text not null,
    keys pg_catalog.text[] not null default '{}'
);
alter table captoken.floors add column if not exists keys pg_catalog.text[] not null default '{}',
    add column if not exists cluster pg_catalog.text, add column if not exists place pg_catalog.text,
    add column if not exists runs pg_catalog.text[] not null default '{}';

create table if not exists captoken.proofs (entry pg_catalog.bytea primary key, issued_at bigint not null);
create index if not exists proofs_by_time on captoken.proofs (issued_at);


create table if not exists captoken.consents (entry pg_catalog.bytea primary key, issued_at bigint not null);
create index if not exists consents_by_time on captoken.consents (issued_at);
alter table captoken.floors add column if not exists begun bigint;
update captoken.floors set begun = floor where begun is null;

create table if not exists captoken.buckets (
    link pg_catalog.bytea, unit pg_catalog.text, spent bigint not null check (spent operator(pg_catalog.>=) 0), keep bigint,
    tree pg_catalog.text not null, primary key (link, unit)
);
create index if not exists buckets_by_tree on captoken.buckets (tree);
create index if not exists buckets_by_time on captoken.buckets (keep);

create table if not exists captoken.reservations (
    id pg_catalog.bytea primary key, links pg_catalog.bytea[] not null, units pg_catalog.text[] not null, amounts bigint[] not null,
    until bigint not null, open boolean not null
);
create index if not exists reservations_by_time on captoken.reservations (until);


create table if not exists captoken.marks (
    bucket pg_catalog.bytea primary key, keep bigint, tree pg_catalog.text, at bigint not null, said pg_catalog.bytea not null
);
create index if not exists marks_by_tree on captoken.marks (tree);
create index if not exists marks_by_time on captoken.marks (keep);

create table if not exists captoken.overlay (
    one integer primary key check (one operator(pg_catalog.=) 1), snapshot pg_catalog.bytea not null
);

create table if not exists captoken.overlay_deltas (
    number bigint primary key, after pg_catalog.bytea not null, gives pg_catalog.bytea not null, delta pg_catalog.bytea not null,
    is_in boolean not null
);
create index if not exists overlay_deltas_by_mark on captoken.overlay_deltas (after);

create or replace function captoken.ready() returns pg_catalog.void language plpgsql as $$
begin
    if pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.<>) 'read committed' then
        raise exception 'captoken: transactions must be read committed';
    end if;
    if pg_catalog.current_setting('synchronous_commit') operator(pg_catalog.=) 'off' then
        perform pg_catalog.set_config('synchronous_commit', 'on', true);
    end if;
    if pg_catalog.current_setting('lock_timeout') operator(pg_catalog.=) '0' then
        perform pg_catalog.set_config('lock_timeout', '5s', true);
    end if;
    if pg_catalog.current_setting('enable_seqscan') operator(pg_catalog.<>) 'off' then
        perform pg_catalog.set_config('enable_seqscan', 'off', true);
    end if;
end $$;

create or replace function captoken.timeline() returns pg_catalog.text language sql as $$
    select pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8);
$$;

create or replace function captoken.run() returns pg_catalog.text language sql as $$
    select extract(epoch from pg_catalog.pg_postmaster_start_time())::pg_catalog.text;
$$;

create or replace function captoken.is_here(
    its_timeline pg_catalog.text, its_place pg_catalog.text, its_table pg_catalog.oid, seen pg_catalog.text
) returns boolean language sql as $$
    select seen is null or coalesce(
        its_timeline operator(pg_catalog.=) pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8)
        and its_place operator(pg_catalog.=) pg_catalog.pg_relation_filepath(its_table::pg_catalog.regclass)
        and seen operator(pg_catalog.=) extract(epoch from pg_catalog.pg_postmaster_start_time())::pg_catalog.text,
        false
    );
$$;

create or replace function captoken.first_of(
    ahead bigint, told bigint, clock bigint
) returns bigint language sql as $$
    select ahead operator(pg_catalog.+) greatest(
        coalesce(clock, pg_catalog.floor(extract(epoch from pg_catalog.clock_timestamp()))::bigint), told
    );
$$;

create or replace function captoken.make(
    its_kind pg_catalog.text, told bigint, ahead bigint, clock bigint, seen pg_catalog.text, first bigint,
    its_keys pg_catalog.text[]
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
    its_kind pg_catalog.text, ahead bigint, told bigint, clock bigint, seen pg_catalog.text
) returns bigint language plpgsql as $$
declare
    current pg_catalog.text;
    now_run pg_catalog.text := captoken.run();
    its_cluster pg_catalog.text;
    known record;
begin
    select floor, timeline, place, tableoid as its_table,
        pg_catalog.pg_relation_filepath(tableoid::pg_catalog.regclass) as here
        into known from captoken.floors where kind operator(pg_catalog.=) its_kind;
    if not found then
        raise exception using errcode = 'CT002', message = 'captoken: not there';
    end if;
    if captoken.is_here(known.timeline, known.place, known.its_table, seen) then
        return known.floor;
    end if;
    if exists (
        select from pg_catalog.pg_class c
        join pg_catalog.pg_class f on f.relnamespace operator(pg_catalog.=) c.relnamespace
        where f.oid operator(pg_catalog.=) known.its_table and c.relkind operator(pg_catalog.=) 'r' and c.relpersistence operator(pg_catalog.<>) 'p'
    ) then
        delete from captoken.floors where kind operator(pg_catalog.=) its_kind;
        return null;
    end if;
    current := captoken.timeline();
    its_cluster := (select system_identifier::pg_catalog.text from pg_catalog.pg_control_system());
    update captoken.floors as f
        set floor = greatest(f.floor, captoken.first_of(ahead, told, clock)), timeline = current,
            begun = greatest(f.begun, captoken.first_of(ahead, told, clock)),
            keys = '{}', cluster = its_cluster, place = known.here,
            runs = (array[now_run, seen] operator(pg_catalog.||) f.runs)[1:100]
        where kind operator(pg_catalog.=) its_kind and not (
            f.timeline operator(pg_catalog.=) current
            and coalesce(f.cluster operator(pg_catalog.=) its_cluster and f.place operator(pg_catalog.=) known.here, true)
            and (seen operator(pg_catalog.=) '' or seen operator(pg_catalog.=) any(f.runs))
        );
    if not found then
        update captoken.floors as f
            set cluster = its_cluster, place = known.here, runs = (array[now_run] operator(pg_catalog.||) f.runs)[1:100]
            where kind operator(pg_catalog.=) its_kind
                and (f.place is null or not (now_run operator(pg_catalog.=) any(f.runs)));
    end if;
    return (select floor from captoken.floors where kind operator(pg_catalog.=) its_kind);
end $$;

create or replace function captoken.look(
    its_kind pg_catalog.text, told bigint, ahead bigint, clock bigint, seen pg_catalog.text
) returns bigint language plpgsql as $$
begin
    perform captoken.ready();
    return captoken.floor_of(its_kind, ahead, told, clock, seen);
end $$;

create or replace function captoken.meet(
    its_kind pg_catalog.text, told bigint, ahead bigint, clock bigint, seen pg_catalog.text
) returns pg_catalog.text language plpgsql as $$
begin
    if captoken.look(its_kind, told, ahead, clock, seen) is null then
        return null;
    end if;
    return captoken.run();
end $$;

create or replace function captoken.is_above(
    its_kind pg_catalog.text, issued bigint, its_kid pg_catalog.text
) returns boolean language sql as $$
    select exists (
        select from captoken.floors
        where kind operator(pg_catalog.=) its_kind and (issued operator(pg_catalog.>) floor or its_kid operator(pg_catalog.=) any(keys))
    );
$$;

create or replace function captoken.add(
    its_entry pg_catalog.bytea, issued bigint, its_kid pg_catalog.text, told bigint, gone bigint, ahead bigint,
    clock bigint, seen pg_catalog.text
) returns boolean language plpgsql as $$
declare
    known record;
begin
    perform captoken.ready();
    select timeline, place, tableoid as its_table into known
        from captoken.floors where kind operator(pg_catalog.=) 'replay';
    if not found then
        raise exception using errcode = 'CT002', message = 'captoken: not there';
    elsif not captoken.is_here(known.timeline, known.place, known.its_table, seen) then
        raise exception using errcode = 'CT003', message = 'captoken: look again';
    end if;
    update captoken.floors set floor = gone, keys = '{}' where kind operator(pg_catalog.=) 'replay' and floor operator(pg_catalog.<) gone;
    if found then
        delete from captoken.proofs where issued_at operator(pg_catalog.<=) gone;
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
    select exists (select from captoken.floors where kind operator(pg_catalog.=) 'replay' and issued operator(pg_catalog.>) begun);
$$;

create or replace function captoken.spend(
    its_entry pg_catalog.bytea, issued bigint, its_kid pg_catalog.text, told bigint, gone bigint, ahead bigint,
    clock bigint, seen pg_catalog.text
) returns boolean language plpgsql as $$
declare
    known record;
begin
    perform captoken.ready();
    select timeline, place, tableoid as its_table into known
        from captoken.floors where kind operator(pg_catalog.=) 'replay';
    if not found then
        raise exception using errcode = 'CT002', message = 'captoken: not there';
    elsif not captoken.is_here(known.timeline, known.place, known.its_table, seen) then
        raise exception using errcode = 'CT003', message = 'captoken: look again';
    end if;
    update captoken.floors set begun = gone where kind operator(pg_catalog.=) 'replay' and begun operator(pg_catalog.<) gone;
    if found then
        delete from captoken.consents where issued_at operator(pg_catalog.<=) gone;
    end if;
    if not captoken.is_after_begun(issued) then
        return false;
    end if;
    insert into captoken.consents values (its_entry, issued) on conflict (entry) do nothing;
    return found and captoken.is_after_begun(issued);
end $$;

create or replace function captoken.peek_spend(
    its_entry pg_catalog.bytea, issued bigint, its_kid pg_catalog.text, told bigint, gone bigint, ahead bigint,
    clock bigint, seen pg_catalog.text
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
    its_entry pg_catalog.bytea, issued bigint, its_kid pg_catalog.text, told bigint, gone bigint, ahead bigint,
    clock bigint, seen pg_catalog.text
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
    its_links pg_catalog.bytea[], its_units pg_catalog.text[], its_amounts bigint[], many integer
) returns pg_catalog.void language plpgsql as $$
begin
    for i in 1 .. many loop
        if its_amounts[i] operator(pg_catalog.>) 0 then
            update captoken.buckets set spent = spent operator(pg_catalog.-) its_amounts[i]
                where link operator(pg_catalog.=) its_links[i] and unit operator(pg_catalog.=) its_units[i];
        end if;
    end loop;
end $$;

create or replace function captoken.sweep(told bigint) returns pg_catalog.void language plpgsql as $$
declare
    sure bigint := least(told, pg_catalog.floor(extract(epoch from pg_catalog.clock_timestamp()))::bigint);
    last bigint;
begin
    delete from captoken.reservations where id operator(pg_catalog.=) any (
        select id from captoken.reservations where until operator(pg_catalog.<=) sure
            limit 500 for update skip locked
    );
    with forgotten as (
        delete from captoken.buckets where (link, unit) operator(pg_catalog.=) any (
            select link, unit from captoken.buckets where keep operator(pg_catalog.<=) sure
                limit 500 for update skip locked
        ) returning keep
    ), unmarked as (
        delete from captoken.marks where bucket operator(pg_catalog.=) any (
            select bucket from captoken.marks where keep operator(pg_catalog.<=) sure
                limit 500 for update skip locked
        ) returning keep
    ) select pg_catalog.max(keep) into last
        from (select keep from forgotten union all select keep from unmarked) as its;
    if last is not null then
        insert into captoken.floors as f values ('forgotten', last, '')
            on conflict (kind) do update set floor = greatest(f.floor, excluded.floor);
    end if;
end $$;

create or replace function captoken.room_of(
    its_tree pg_catalog.text, told bigint
) returns bigint language plpgsql as $$
declare
    sure bigint := least(told, pg_catalog.floor(extract(epoch from pg_catalog.clock_timestamp()))::bigint);
begin
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('captoken'), pg_catalog.hashtext(its_tree));
    return 10000 operator(pg_catalog.-) (
        select pg_catalog.count(*) from captoken.buckets
        where tree operator(pg_catalog.=) its_tree and (keep is null or keep operator(pg_catalog.>) sure)
    ) operator(pg_catalog.-) (
        select pg_catalog.count(*) from captoken.marks
        where tree operator(pg_catalog.=) its_tree and (keep is null or keep operator(pg_catalog.>) sure)
    );
end $$;

create or replace function captoken.reserve(
    its_id pg_catalog.bytea, its_links pg_catalog.bytea[], its_units pg_catalog.text[], limits bigint[], its_amounts bigint[],
    issued bigint, its_until bigint, its_keep bigint, its_tree pg_catalog.text, leeway bigint,
    its_kid pg_catalog.text, told bigint, ahead bigint, clock bigint, seen pg_catalog.text
) returns integer language plpgsql as $$
declare
    known record;
    done integer := 0;
    room bigint;
    is_new boolean;
    is_full boolean := false;
begin
    perform captoken.ready();
    select exists (select from captoken.reservations where id operator(pg_catalog.=) its_id) as is_made,
        mine.floor, mine.timeline, mine.keys, mine.place, mine.tableoid as its_table,
        forgotten.floor as gone
        into known from (select) as one
        left join captoken.floors as mine on mine.kind operator(pg_catalog.=) 'ledger'
        left join captoken.floors as forgotten on forgotten.kind operator(pg_catalog.=) 'forgotten';
    if known.is_made then
        return 0;
    end if;
    if known.floor is null then
        raise exception using errcode = 'CT002', message = 'captoken: not there';
    elsif not captoken.is_here(known.timeline, known.place, known.its_table, seen) then
        raise exception using errcode = 'CT003', message = 'captoken: look again';
    elsif (issued operator(pg_catalog.>) known.floor or its_kid operator(pg_catalog.=) any(known.keys)) is not true then
        return -1;
    end if;
    if (told operator(pg_catalog.-) leeway) operator(pg_catalog.<) (known.gone operator(pg_catalog.-) 3600) then
        return -2;
    end if;
    if 0 operator(pg_catalog.>) any(its_amounts) then
        raise exception using errcode = '23514', message = 'captoken: a debit must not be negative';
    end if;
    for i in 1 .. pg_catalog.cardinality(its_links) loop
        if not exists (
            select from captoken.buckets where link operator(pg_catalog.=) its_links[i] and unit operator(pg_catalog.=) its_units[i]
        ) then
            room := captoken.room_of(its_tree, told);
            exit;
        end if;
    end loop;
    for i in 1 .. pg_catalog.cardinality(its_links) loop
        update captoken.buckets as b
            set spent = b.spent operator(pg_catalog.+) its_amounts[i],
                keep = case when b.keep is not null and its_keep is not null
                    then greatest(b.keep, its_keep) end
            where b.link operator(pg_catalog.=) its_links[i] and b.unit operator(pg_catalog.=) its_units[i]
                and (b.spent operator(pg_catalog.+) its_amounts[i]) operator(pg_catalog.<=) limits[i];
        if not found and room operator(pg_catalog.>) 0 then
            insert into captoken.buckets as b (link, unit, spent, keep, tree)
                select its_links[i], its_units[i], its_amounts[i], its_keep, its_tree
                    where its_amounts[i] operator(pg_catalog.<=) limits[i]
                on conflict (link, unit) do update
                set spent = b.spent operator(pg_catalog.+) excluded.spent,
                    keep = case when b.keep is not null and excluded.keep is not null
                        then greatest(b.keep, excluded.keep) end
                where (b.spent operator(pg_catalog.+) excluded.spent) operator(pg_catalog.<=) limits[i]
                returning xmax operator(pg_catalog.=) 0 into is_new;
            if found and is_new then
                room := room operator(pg_catalog.-) 1;
            end if;
        end if;
        if not found then
            is_full := coalesce(room, 0) operator(pg_catalog.<=) 0 and not exists (
                select from captoken.buckets where link operator(pg_catalog.=) its_links[i] and unit operator(pg_catalog.=) its_units[i]
            );
            exit;
        end if;
        done := i;
    end loop;
    if (room is not null or done operator(pg_catalog.<) pg_catalog.cardinality(its_links)) and exists (
        select from captoken.floors where kind operator(pg_catalog.=) 'forgotten' and (told operator(pg_catalog.-) leeway) operator(pg_catalog.<) (floor operator(pg_catalog.-) 3600)
    ) then
        perform captoken.give_back(its_links, its_units, its_amounts, done);
        return -2;
    end if;
    if done operator(pg_catalog.=) pg_catalog.cardinality(its_links) then
        insert into captoken.reservations
            values (its_id, its_links, its_units, its_amounts, its_until, true)
            on conflict (id) do nothing;
        if found then
            if pg_catalog.get_byte(its_id, 0) operator(pg_catalog.<) 16 then
                perform captoken.sweep(told);
            end if;
            return 0;
        end if;
    end if;
    perform captoken.give_back(its_links, its_units, its_amounts, done);
    if exists (select from captoken.reservations where id operator(pg_catalog.=) its_id) then
        return 0;
    end if;
    return done operator(pg_catalog.+) 1 operator(pg_catalog.+) case when is_full then 1000 else 0 end;
end $$;

create or replace function captoken.peek_reserve(
    its_id pg_catalog.bytea, its_links pg_catalog.bytea[], its_units pg_catalog.text[], limits bigint[], its_amounts bigint[],
    issued bigint, its_until bigint, its_keep bigint, its_tree pg_catalog.text, leeway bigint,
    its_kid pg_catalog.text, told bigint, ahead bigint, clock bigint, seen pg_catalog.text
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
    its_marks pg_catalog.bytea[], written boolean[]
) returns pg_catalog.void language plpgsql as $$
declare
    its record;
    kind integer := pg_catalog.hashtext('captoken mark');
begin
    for its in
        select pg_catalog.hashtext(pg_catalog.encode(bucket, 'hex')) as number, pg_catalog.bool_or(is_written) as is_written
        from rows from (pg_catalog.unnest(its_marks), pg_catalog.unnest(written)) as one (bucket, is_written)
        where is_written is not null group by 1 order by 1
    loop
        if its.is_written then
            perform pg_catalog.pg_advisory_xact_lock(kind, its.number);
        else
            perform pg_catalog.pg_advisory_xact_lock_shared(kind, its.number);
        end if;
    end loop;
end $$;

create or replace function captoken.set_marks(
    its_marks pg_catalog.bytea[], keeps bigint[], of_holder boolean[], written boolean[], its_tree pg_catalog.text,
    its_said pg_catalog.bytea, told bigint, sure bigint
) returns pg_catalog.void language plpgsql as $$
declare
    its record;
begin
    for its in
        select bucket, keep, is_of_holder, is_written
        from rows from (pg_catalog.unnest(its_marks), pg_catalog.unnest(keeps), pg_catalog.unnest(of_holder), pg_catalog.unnest(written))
            as one (bucket, keep, is_of_holder, is_written)
        order by bucket
    loop
        if its.is_written then
            delete from captoken.marks where bucket operator(pg_catalog.=) its.bucket and keep operator(pg_catalog.<=) sure;
            insert into captoken.marks values (
                its.bucket, its.keep, case when its.is_of_holder then its_tree end, told, its_said
            ) on conflict (bucket) do nothing;
        end if;
        update captoken.marks set keep = its.keep
            where bucket operator(pg_catalog.=) its.bucket and keep operator(pg_catalog.>) sure and (keep operator(pg_catalog.<) its.keep or its.keep is null);
    end loop;
end $$;

create or replace function captoken.step(
    its_id pg_catalog.bytea, its_links pg_catalog.bytea[], its_units pg_catalog.text[], limits bigint[], its_amounts bigint[],
    its_until bigint, its_keep bigint, its_marks pg_catalog.bytea[], keeps bigint[], of_holder boolean[],
    own integer, its_rules pg_catalog.text[], its_said pg_catalog.bytea, issued bigint, its_tree pg_catalog.text, leeway bigint,
    its_kid pg_catalog.text, told bigint, ahead bigint, clock bigint, seen pg_catalog.text
) returns pg_catalog.bytea[] language plpgsql as $$
declare
    sure bigint := least(told, pg_catalog.floor(extract(epoch from pg_catalog.clock_timestamp()))::bigint);
    many integer := pg_catalog.cardinality(its_marks);
    known record;
    first pg_catalog.bytea[];
    written boolean[];
    holds pg_catalog.bytea[];
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
                select pg_catalog.array_agg(
                        case when (m.keep operator(pg_catalog.<=) sure) is not true
                            then pg_catalog.convert_to(m.at::pg_catalog.text operator(pg_catalog.||) ' ', 'UTF8') operator(pg_catalog.||) m.said end
                        order by one.at
                    ) as said,
                    pg_catalog.array_agg(
                        (m.keep operator(pg_catalog.>) sure and (m.keep operator(pg_catalog.<) one.keep or one.keep is null)) is true
                        order by one.at
                    ) as grows,
                    pg_catalog.max(m.keep) filter (where m.keep operator(pg_catalog.<=) sure) as gone
                from rows from (pg_catalog.unnest(its_marks), pg_catalog.unnest(keeps))
                    with ordinality as one (bucket, keep, at)
                left join captoken.marks m on m.bucket operator(pg_catalog.=) one.bucket
            ) as its
            left join captoken.floors as mine on mine.kind operator(pg_catalog.=) 'ledger'
            left join captoken.floors as forgotten on forgotten.kind operator(pg_catalog.=) 'forgotten';
        if known.floor is null then
            raise exception using errcode = 'CT002', message = 'captoken: not there';
        elsif not captoken.is_here(known.timeline, known.place, known.its_table, seen) then
            raise exception using errcode = 'CT003', message = 'captoken: look again';
        elsif (issued operator(pg_catalog.>) known.floor or its_kid operator(pg_catalog.=) any(known.keys)) is not true then
            return array[pg_catalog.convert_to('-1', 'UTF8')];
        elsif (told operator(pg_catalog.-) leeway) operator(pg_catalog.<) (known.gone operator(pg_catalog.-) 3600) then
            return array[pg_catalog.convert_to('-2', 'UTF8')];
        end if;
        if turn operator(pg_catalog.=) 1 then
            first := known.said;
        end if;
        written := null;
        for i in 1 .. many loop
            -- What was set at first counts as set, though it was swept while this one waited.
            first[i] := coalesce(known.said[i], first[i]);
            written[i] := case
                when i operator(pg_catalog.<=) own then case when known.said[i] is null or known.grows[i] then true end
                when first[i] is null then false
            end;
        end loop;
        for i in 1 .. pg_catalog.cardinality(its_rules) loop
            holds := array[pg_catalog.convert_to((i operator(pg_catalog.-) 1)::pg_catalog.text, 'UTF8')];
            foreach member in array pg_catalog.string_to_array(its_rules[i], ' ')::integer[] loop
                if first[member] is null and member operator(pg_catalog.>) own then
                    holds := null;
                    exit;
                end if;
                holds := holds operator(pg_catalog.||) coalesce(first[member], ''::pg_catalog.bytea);
            end loop;
            if holds is not null then
                if pg_catalog.array_position(known.grows, true) is not null then
                    perform captoken.set_marks(
                        its_marks, keeps, of_holder, null, its_tree, its_said, told, sure
                    );
                end if;
                return holds;
            end if;
        end loop;
        exit when turn operator(pg_catalog.=) 2 or coalesce(
            pg_catalog.array_position(written, true), pg_catalog.array_position(written, false)
        ) is null;
        perform captoken.turns_of(its_marks, written);
    end loop;
    for i in reverse own .. 1 loop
        if known.said[i] is null and of_holder[i] then
            fresh := fresh operator(pg_catalog.+) 1;
            number := i;
        end if;
    end loop;
    if fresh operator(pg_catalog.>) 0 and fresh operator(pg_catalog.>) captoken.room_of(its_tree, told) then
        return array[pg_catalog.convert_to((number operator(pg_catalog.+) 2000)::pg_catalog.text, 'UTF8')];
    end if;
    begin
        if pg_catalog.array_position(written, true) is not null
            or pg_catalog.array_position(known.grows, true) is not null then
            perform captoken.set_marks(
                its_marks, keeps, of_holder, written, its_tree, its_said, told, sure
            );
        end if;
        if its_id is not null then
            answer := captoken.reserve(
                its_id, its_links, its_units, limits, its_amounts, issued, its_until, its_keep,
                its_tree, leeway, its_kid, told, ahead, clock, seen
            );
        elsif pg_catalog.array_position(written, true) is not null then
            perform captoken.sweep(told);
        end if;
        if answer operator(pg_catalog.<>) 0 then
            raise exception using errcode = 'CT001', message = 'captoken: undone';
        end if;
    exception when sqlstate 'CT001' then
        null;
    end;
    return array[pg_catalog.convert_to(answer::pg_catalog.text, 'UTF8')];
end $$;

create or replace function captoken.peek_step(
    its_id pg_catalog.bytea, its_links pg_catalog.bytea[], its_units pg_catalog.text[], limits bigint[], its_amounts bigint[],
    its_until bigint, its_keep bigint, its_marks pg_catalog.bytea[], keeps bigint[], of_holder boolean[],
    own integer, its_rules pg_catalog.text[], its_said pg_catalog.bytea, issued bigint, its_tree pg_catalog.text, leeway bigint,
    its_kid pg_catalog.text, told bigint, ahead bigint, clock bigint, seen pg_catalog.text
) returns pg_catalog.bytea[] language plpgsql as $$
declare
    answer pg_catalog.bytea[];
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
    its_id pg_catalog.bytea, taken_units pg_catalog.text[], taken bigint[], told bigint
) returns boolean language plpgsql as $$
declare
    its_links pg_catalog.bytea[];
    its_units pg_catalog.text[];
    its_amounts bigint[];
    back bigint;
begin
    perform captoken.ready();
    update captoken.reservations set open = false where id operator(pg_catalog.=) its_id and open and until operator(pg_catalog.>) told
        returning links, units, amounts into its_links, its_units, its_amounts;
    if not found then
        return false;
    end if;
    if taken is null then
        return true;
    end if;
    for i in 1 .. pg_catalog.cardinality(its_links) loop
        back := its_amounts[i] operator(pg_catalog.-) greatest(
            coalesce(taken[pg_catalog.array_position(taken_units, its_units[i])], 0), 0
        );
        if back operator(pg_catalog.>) 0 then
            update captoken.buckets set spent = spent operator(pg_catalog.-) back
                where link operator(pg_catalog.=) its_links[i] and unit operator(pg_catalog.=) its_units[i];
        end if;
    end loop;
    return true;
end $$;

create or replace function captoken.look_overlay() returns pg_catalog.void language plpgsql stable as $$
begin
    if not exists (select from captoken.overlay) and not exists (
        select from captoken.floors where kind operator(pg_catalog.=) 'overlay' and floor operator(pg_catalog.=) 0
    ) then
        raise exception using errcode = 'CT002', message = 'captoken: not there';
    end if;
end $$;

create or replace function captoken.make_overlay() returns boolean language plpgsql as $$
begin
    perform captoken.ready();
    insert into captoken.floors (kind, floor, timeline)
        select 'overlay', 0, '' where not exists (select from captoken.overlay)
        on conflict (kind) do update set floor = 0 where floors.floor operator(pg_catalog.<>) 0;
    return found;
end $$;

create or replace function captoken.newest() returns pg_catalog.bytea language sql stable as $$
    select o.snapshot operator(pg_catalog.||) coalesce(
        (select pg_catalog.string_agg('\\x0a'::pg_catalog.bytea operator(pg_catalog.||) d.delta, ''::pg_catalog.bytea order by d.number)
            from captoken.overlay_deltas d where not d.is_in),
        ''::pg_catalog.bytea
    ) from captoken.overlay o
$$;

create or replace function captoken.load_overlay() returns pg_catalog.bytea language plpgsql stable as $$
begin
    perform captoken.look_overlay();
    return captoken.newest();
end $$;

create or replace function captoken.mark() returns pg_catalog.bytea language sql stable as $$
    select coalesce(
        (select gives from captoken.overlay_deltas order by number desc limit 1),
        (select pg_catalog.sha256(pg_catalog.substr(snapshot, 1, greatest(pg_catalog.length(snapshot) operator(pg_catalog.-) 87, 0)))
            from captoken.overlay)
    )
$$;

create or replace function captoken.publish(
    its_snapshot pg_catalog.bytea, after pg_catalog.bytea
) returns boolean language plpgsql as $$
begin
    perform captoken.ready();
    perform captoken.look_overlay();
    if after is null then
        insert into captoken.overlay values (1, its_snapshot) on conflict (one) do nothing;
        if not found then
            return false;
        end if;
        update captoken.floors set floor = 1 where kind operator(pg_catalog.=) 'overlay';
        return true;
    end if;
    perform from captoken.overlay where one operator(pg_catalog.=) 1 for update;
    if (captoken.newest() operator(pg_catalog.=) after) is not true then
        return false;
    end if;
    if exists (select from captoken.overlay_deltas) and captoken.mark()
        operator(pg_catalog.=) pg_catalog.sha256(pg_catalog.substr(its_snapshot, 1, greatest(pg_catalog.length(its_snapshot) operator(pg_catalog.-) 87, 0))) then
        update captoken.overlay_deltas set is_in = true where not is_in;
        delete from captoken.overlay_deltas
            where number operator(pg_catalog.<=) ((select pg_catalog.max(number) from captoken.overlay_deltas) operator(pg_catalog.-) 512);
    else
        delete from captoken.overlay_deltas;
    end if;
    update captoken.floors set floor = 1 where kind operator(pg_catalog.=) 'overlay' and floor operator(pg_catalog.=) 0;
    update captoken.overlay set snapshot = its_snapshot where one operator(pg_catalog.=) 1;
    return found;
end $$;

create or replace function captoken.append(
    its_delta pg_catalog.bytea, its_after pg_catalog.bytea, its_gives pg_catalog.bytea
) returns boolean language plpgsql as $$
begin
    perform captoken.ready();
    perform captoken.look_overlay();
    perform from captoken.overlay where one operator(pg_catalog.=) 1 for update;
    if (captoken.mark() operator(pg_catalog.=) its_after) is not true then
        return false;
    end if;
    insert into captoken.overlay_deltas values (
        (select coalesce(pg_catalog.max(number), 0) operator(pg_catalog.+) 1 from captoken.overlay_deltas),
        its_after, its_gives, its_delta, false
    );
    return true;
end $$;

create or replace function captoken.since(
    its_mark pg_catalog.bytea
) returns pg_catalog.bytea[] language plpgsql stable as $$
declare
    first bigint;
begin
    perform captoken.look_overlay();
    if captoken.mark() operator(pg_catalog.=) its_mark then
        return array[]::pg_catalog.bytea[];
    end if;
    select pg_catalog.min(number) into first from captoken.overlay_deltas where after operator(pg_catalog.=) its_mark;
    if first is null then
        return null;
    end if;
    return (select pg_catalog.array_agg(delta order by number) from captoken.overlay_deltas
        where number operator(pg_catalog.>=) first);
end $$;
`;
