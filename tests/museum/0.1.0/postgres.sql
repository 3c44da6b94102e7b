
create schema if not exists museum;

create table if not exists museum.floors (
    kind text primary key, floor bigint not null, timeline text not null,
    keys text[] not null default '{}'
);

create table if not exists museum.proofs (entry bytea primary key, issued_at bigint not null);
create index if not exists proofs_by_time on museum.proofs (issued_at);

create table if not exists museum.buckets (
    link bytea, unit text, spent bigint not null check (spent >= 0), keep bigint,
    tree text not null, primary key (link, unit)
);
create index if not exists buckets_by_tree on museum.buckets (tree);
create index if not exists buckets_by_time on museum.buckets (keep);

create table if not exists museum.reservations (
    id bytea primary key, links bytea[] not null, units text[] not null, amounts bigint[] not null,
    until bigint not null, open boolean not null
);
create index if not exists reservations_by_time on museum.reservations (until);

create table if not exists museum.overlay (
    one integer primary key check (one = 1), snapshot bytea not null
);

create table if not exists museum.overlay_deltas (
    number bigint primary key, after bytea not null, gives bytea not null, delta bytea not null,
    is_in boolean not null
);
create index if not exists overlay_deltas_by_mark on museum.overlay_deltas (after);

create or replace function museum.ready() returns void language plpgsql as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'captoken: transactions must be read committed';
    end if;
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    if current_setting('lock_timeout') = '0' then
        perform set_config('lock_timeout', '5s', true);
    end if;
    if current_setting('enable_seqscan') <> 'off' then
        perform set_config('enable_seqscan', 'off', true);
    end if;
end $$;

create or replace function museum.timeline(lossless boolean)
returns text language plpgsql as $$
begin
    if lossless then
        return '';
    end if;
    return left(pg_walfile_name(pg_current_wal_lsn()), 8);
end $$;

create or replace function museum.first_of(
    ahead bigint, told bigint, clock bigint
) returns bigint language sql as $$
    select ahead + greatest(
        coalesce(clock, floor(extract(epoch from clock_timestamp()))::bigint), told
    );
$$;

create or replace function museum.make(
    its_kind text, told bigint, ahead bigint, clock bigint, lossless boolean, first bigint,
    its_keys text[]
) returns boolean language plpgsql as $$
begin
    perform museum.ready();
    insert into museum.floors values (
        its_kind, coalesce(first, museum.first_of(ahead, told, clock)),
        museum.timeline(lossless), its_keys
    ) on conflict (kind) do nothing;
    return found;
end $$;

create or replace function museum.floor_of(
    its_kind text, ahead bigint, told bigint, clock bigint, lossless boolean
) returns bigint language plpgsql as $$
declare
    current text := museum.timeline(lossless);
    known record;
begin
    select floor, timeline into known from museum.floors where kind = its_kind;
    if not found then
        raise exception using errcode = 'CT002', message = 'captoken: not there';
    end if;
    if lossless or known.timeline = current then
        return known.floor;
    end if;
    update museum.floors as f
        set floor = greatest(f.floor, museum.first_of(ahead, told, clock)), timeline = current,
            keys = '{}'
        where kind = its_kind and f.timeline <> current;
    return (select floor from museum.floors where kind = its_kind);
end $$;

create or replace function museum.look(
    its_kind text, told bigint, ahead bigint, clock bigint, lossless boolean
) returns bigint language plpgsql as $$
begin
    perform museum.ready();
    return museum.floor_of(its_kind, ahead, told, clock, lossless);
end $$;

create or replace function museum.is_above(
    its_kind text, issued bigint, its_kid text
) returns boolean language sql as $$
    select exists (
        select from museum.floors
        where kind = its_kind and (issued > floor or its_kid = any(keys))
    );
$$;

create or replace function museum.add(
    its_entry bytea, issued bigint, its_kid text, told bigint, gone bigint, ahead bigint,
    clock bigint, lossless boolean
) returns boolean language plpgsql as $$
begin
    perform museum.ready();
    perform museum.floor_of('replay', ahead, told, clock, lossless);
    update museum.floors set floor = gone, keys = '{}' where kind = 'replay' and floor < gone;
    if found then
        delete from museum.proofs where issued_at <= gone;
    end if;
    if not museum.is_above('replay', issued, its_kid) then
        return false;
    end if;
    insert into museum.proofs values (its_entry, issued) on conflict (entry) do nothing;
    -- Once more: it may have been known, and forgotten by whoever raised the floor meanwhile.
    return found and museum.is_above('replay', issued, its_kid);
end $$;

create or replace function museum.peek_add(
    its_entry bytea, issued bigint, its_kid text, told bigint, gone bigint, ahead bigint,
    clock bigint, lossless boolean
) returns boolean language plpgsql as $$
declare
    answer boolean;
begin
    begin
        answer := museum.add(
            its_entry, issued, its_kid, told, gone, ahead, clock, lossless
        );
        raise exception using errcode = 'CT001', message = 'captoken: undone';
    exception when sqlstate 'CT001' then
        return answer;
    end;
end $$;

create or replace function museum.give_back(
    its_links bytea[], its_units text[], its_amounts bigint[], many integer
) returns void language plpgsql as $$
begin
    for i in 1 .. many loop
        if its_amounts[i] > 0 then
            update museum.buckets set spent = spent - its_amounts[i]
                where link = its_links[i] and unit = its_units[i];
        end if;
    end loop;
end $$;

create or replace function museum.sweep(told bigint) returns void language plpgsql as $$
declare
    sure bigint := least(told, floor(extract(epoch from clock_timestamp()))::bigint);
    last bigint;
begin
    delete from museum.reservations where id in (
        select id from museum.reservations where until <= sure
            limit 500 for update skip locked
    );
    with forgotten as (
        delete from museum.buckets where (link, unit) in (
            select link, unit from museum.buckets where keep <= sure
                limit 500 for update skip locked
        ) returning keep
    ) select max(keep) into last from forgotten;
    if last is not null then
        insert into museum.floors as f values ('forgotten', last, '')
            on conflict (kind) do update set floor = greatest(f.floor, excluded.floor);
    end if;
end $$;

create or replace function museum.room_of(
    its_tree text, told bigint
) returns bigint language plpgsql as $$
declare
    sure bigint := least(told, floor(extract(epoch from clock_timestamp()))::bigint);
begin
    perform pg_advisory_xact_lock(hashtext('captoken'), hashtext(its_tree));
    return 10000 - (
        select count(*) from museum.buckets
        where tree = its_tree and (keep is null or keep > sure)
    );
end $$;

create or replace function museum.reserve(
    its_id bytea, its_links bytea[], its_units text[], limits bigint[], its_amounts bigint[],
    issued bigint, its_until bigint, its_keep bigint, its_tree text, leeway bigint,
    its_kid text, told bigint, ahead bigint, clock bigint, lossless boolean
) returns integer language plpgsql as $$
declare
    known record;
    done integer := 0;
    room bigint;
    is_new boolean;
    is_full boolean := false;
begin
    perform museum.ready();
    select exists (select from museum.reservations where id = its_id) as is_made,
        mine.floor, mine.timeline, mine.keys, forgotten.floor as gone
        into known from (select) as one
        left join museum.floors as mine on mine.kind = 'ledger'
        left join museum.floors as forgotten on forgotten.kind = 'forgotten';
    if known.is_made then
        return 0;
    end if;
    if known.floor is null or not lossless
        and known.timeline <> left(pg_walfile_name(pg_current_wal_lsn()), 8) then
        perform museum.floor_of('ledger', ahead, told, clock, lossless);
        if not museum.is_above('ledger', issued, its_kid) then
            return -1;
        end if;
    elsif (issued > known.floor or its_kid = any(known.keys)) is not true then
        return -1;
    end if;
    if told - leeway < known.gone - 3600 then
        return -2;
    end if;
    if 0 > any(its_amounts) then
        raise exception using errcode = '23514', message = 'captoken: a debit of less than nothing';
    end if;
    for i in 1 .. cardinality(its_links) loop
        if not exists (
            select from museum.buckets where link = its_links[i] and unit = its_units[i]
        ) then
            room := museum.room_of(its_tree, told);
            exit;
        end if;
    end loop;
    for i in 1 .. cardinality(its_links) loop
        update museum.buckets as b
            set spent = b.spent + its_amounts[i],
                keep = case when b.keep is not null and its_keep is not null
                    then greatest(b.keep, its_keep) end
            where b.link = its_links[i] and b.unit = its_units[i]
                and b.spent + its_amounts[i] <= limits[i];
        if not found and room > 0 then
            insert into museum.buckets as b (link, unit, spent, keep, tree)
                select its_links[i], its_units[i], its_amounts[i], its_keep, its_tree
                    where its_amounts[i] <= limits[i]
                on conflict (link, unit) do update
                set spent = b.spent + excluded.spent,
                    keep = case when b.keep is not null and excluded.keep is not null
                        then greatest(b.keep, excluded.keep) end
                where b.spent + excluded.spent <= limits[i]
                returning xmax = 0 into is_new;
            if found and is_new then
                room := room - 1;
            end if;
        end if;
        if not found then
            is_full := coalesce(room, 0) <= 0 and not exists (
                select from museum.buckets where link = its_links[i] and unit = its_units[i]
            );
            exit;
        end if;
        done := i;
    end loop;
    if (room is not null or done < cardinality(its_links)) and exists (
        select from museum.floors where kind = 'forgotten' and told - leeway < floor - 3600
    ) then
        perform museum.give_back(its_links, its_units, its_amounts, done);
        return -2;
    end if;
    if done = cardinality(its_links) then
        insert into museum.reservations
            values (its_id, its_links, its_units, its_amounts, its_until, true)
            on conflict (id) do nothing;
        if found then
            if get_byte(its_id, 0) < 16 then
                perform museum.sweep(told);
            end if;
            return 0;
        end if;
    end if;
    perform museum.give_back(its_links, its_units, its_amounts, done);
    if exists (select from museum.reservations where id = its_id) then
        return 0;
    end if;
    return done + 1 + case when is_full then 1000 else 0 end;
end $$;

create or replace function museum.peek_reserve(
    its_id bytea, its_links bytea[], its_units text[], limits bigint[], its_amounts bigint[],
    issued bigint, its_until bigint, its_keep bigint, its_tree text, leeway bigint,
    its_kid text, told bigint, ahead bigint, clock bigint, lossless boolean
) returns integer language plpgsql as $$
declare
    answer integer;
begin
    begin
        answer := museum.reserve(
            its_id, its_links, its_units, limits, its_amounts,
            issued, its_until, its_keep, its_tree, leeway, its_kid, told, ahead, clock, lossless
        );
        raise exception using errcode = 'CT001', message = 'captoken: undone';
    exception when sqlstate 'CT001' then
        return answer;
    end;
end $$;

create or replace function museum.settle(
    its_id bytea, taken_units text[], taken bigint[], told bigint
) returns boolean language plpgsql as $$
declare
    its_links bytea[];
    its_units text[];
    its_amounts bigint[];
    back bigint;
begin
    perform museum.ready();
    update museum.reservations set open = false where id = its_id and open and until > told
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
            update museum.buckets set spent = spent - back
                where link = its_links[i] and unit = its_units[i];
        end if;
    end loop;
    return true;
end $$;

create or replace function museum.look_overlay() returns void language plpgsql stable as $$
begin
    if not exists (select from museum.overlay)
        and not exists (select from museum.floors where kind = 'overlay') then
        raise exception using errcode = 'CT002', message = 'captoken: not there';
    end if;
end $$;

create or replace function museum.make_overlay() returns boolean language plpgsql as $$
begin
    perform museum.ready();
    insert into museum.floors (kind, floor, timeline)
        select 'overlay', 0, '' where not exists (select from museum.overlay)
        on conflict (kind) do nothing;
    return found;
end $$;

create or replace function museum.newest() returns bytea language sql stable as $$
    select o.snapshot || coalesce(
        (select string_agg('\x0a'::bytea || d.delta, ''::bytea order by d.number)
            from museum.overlay_deltas d where not d.is_in),
        ''::bytea
    ) from museum.overlay o
$$;

create or replace function museum.load_overlay() returns bytea language plpgsql stable as $$
begin
    perform museum.look_overlay();
    return museum.newest();
end $$;

create or replace function museum.mark() returns bytea language sql stable as $$
    select coalesce(
        (select gives from museum.overlay_deltas order by number desc limit 1),
        (select sha256(substr(snapshot, 1, greatest(length(snapshot) - 87, 0)))
            from museum.overlay)
    )
$$;

create or replace function museum.publish(
    its_snapshot bytea, after bytea
) returns boolean language plpgsql as $$
begin
    perform museum.ready();
    perform museum.look_overlay();
    if after is null then
        insert into museum.overlay values (1, its_snapshot) on conflict (one) do nothing;
        return found;
    end if;
    perform from museum.overlay where one = 1 for update;
    if museum.newest() is distinct from after then
        return false;
    end if;
    if exists (select from museum.overlay_deltas) and museum.mark()
        = sha256(substr(its_snapshot, 1, greatest(length(its_snapshot) - 87, 0))) then
        update museum.overlay_deltas set is_in = true where not is_in;
        delete from museum.overlay_deltas
            where number <= (select max(number) from museum.overlay_deltas) - 512;
    else
        delete from museum.overlay_deltas;
    end if;
    update museum.overlay set snapshot = its_snapshot where one = 1;
    return found;
end $$;

create or replace function museum.append(
    its_delta bytea, its_after bytea, its_gives bytea
) returns boolean language plpgsql as $$
begin
    perform museum.ready();
    perform museum.look_overlay();
    perform from museum.overlay where one = 1 for update;
    if museum.mark() is distinct from its_after then
        return false;
    end if;
    insert into museum.overlay_deltas values (
        (select coalesce(max(number), 0) + 1 from museum.overlay_deltas),
        its_after, its_gives, its_delta, false
    );
    return true;
end $$;

create or replace function museum.since(
    its_mark bytea
) returns bytea[] language plpgsql stable as $$
declare
    first bigint;
begin
    perform museum.look_overlay();
    if museum.mark() = its_mark then
        return array[]::bytea[];
    end if;
    select min(number) into first from museum.overlay_deltas where after = its_mark;
    if first is null then
        return null;
    end if;
    return (select array_agg(delta order by number) from museum.overlay_deltas
        where number >= first);
end $$;


    create table if not exists museum.registry_state (
        one bigint primary key check (one = 1), floor bigint not null, gone bigint not null,
        tasks_gone bigint not null, swept bigint not null, changes bigint not null
    )
    ;

    create table if not exists museum.registry_used (
        digest bytea primary key, companions bytea, task text not null, until bigint not null
    )
    ;
create index if not exists registry_used_by_time on museum.registry_used (until);

    create table if not exists museum.registry_tasks (
        id text primary key, granted text not null, subject text not null, actor text,
        begun bigint not null, deadline bigint not null, past bigint not null, ended bigint not null
    )
    ;
create index if not exists registry_tasks_by_subject on museum.registry_tasks (subject, granted);
create index if not exists registry_tasks_live on museum.registry_tasks (subject, granted, past, ended, deadline);
create index if not exists registry_tasks_by_time on museum.registry_tasks (deadline);
create index if not exists registry_tasks_by_past on museum.registry_tasks (past, deadline);

    create table if not exists museum.registry_taken (
        task text not null, granted text not null, provider text not null, session text not null,
        primary key (task, granted, provider, session)
    )
    ;
create index if not exists registry_taken_by_session on museum.registry_taken (provider, session);

    create table if not exists museum.registry_voids (
        provider text not null, kind text not null, whose text not null, granted text not null,
        starts_only bigint not null, at bigint not null,
        primary key (provider, kind, whose, granted, starts_only)
    )
    ;
create index if not exists registry_voids_by_time on museum.registry_voids (at);

    create table if not exists museum.registry_heard (
        stream text not null, jti text not null, at bigint not null, primary key (stream, jti)
    )
    ;
create index if not exists registry_heard_by_time on museum.registry_heard (at);
create table if not exists museum.registry_streams (stream text primary key, at bigint not null);

    create table if not exists museum.registry_changes (
        number bigint primary key, task text not null, narrowing bytea, due bigint not null
    )
    ;
create index if not exists registry_changes_by_task on museum.registry_changes (task);
create index if not exists registry_changes_by_due on museum.registry_changes (due, number);
insert into "museum"."buckets" values ('\x6275636b65742c203136206279746573'::bytea, 'uses', 3, NULL, 'tttttttttttttttttttttt') on conflict do nothing;
insert into "museum"."floors" values ('replay', 1764061169, '00000001', '{}') on conflict do nothing;
insert into "museum"."floors" values ('ledger', 0, '00000001', '{}') on conflict do nothing;
insert into "museum"."floors" values ('registry', 0, '00000001', '{}') on conflict do nothing;
insert into "museum"."floors" values ('overlay', 0, '', '{}') on conflict do nothing;
insert into "museum"."overlay" values (1, '\x6120736e617073686f740a7373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373737373'::bytea) on conflict do nothing;
insert into "museum"."overlay_deltas" values (1, '\x4fd24382e6a60f42a9b4a85f8135fd29c109de63d8c604138b6817cdec77d3c0'::bytea, '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea, '\x612064656c7461'::bytea, false) on conflict do nothing;
insert into "museum"."proofs" values ('\x00000000000000000000000000000031'::bytea, 1764061200) on conflict do nothing;
insert into "museum"."registry_changes" values (1, 'task-2', NULL, 1) on conflict do nothing;
insert into "museum"."registry_state" values (1, 0, 0, 0, 1764061200, 1) on conflict do nothing;
insert into "museum"."registry_taken" values ('task-1', 'nightly', 'acme', 's1') on conflict do nothing;
insert into "museum"."registry_taken" values ('task-2', 'nightly', 'acme', 's1') on conflict do nothing;
insert into "museum"."registry_tasks" values ('task-1', 'nightly', 'acme:jane', NULL, 1764061200, 1764064800, 0, 0) on conflict do nothing;
insert into "museum"."registry_tasks" values ('task-2', 'nightly', 'acme:jane', NULL, 1764061200, 1764064800, 0, 1) on conflict do nothing;
insert into "museum"."registry_used" values ('\x0000000000000000000000000000000000000000000000000000000000000001'::bytea, '\x6163746f72'::bytea, 'task-1', 1764061800) on conflict do nothing;
insert into "museum"."registry_used" values ('\x0000000000000000000000000000000000000000000000000000000000000002'::bytea, '\x6163746f72'::bytea, 'task-2', 1764061800) on conflict do nothing;
insert into "museum"."reservations" values ('\x00000000000000000000000000000001'::bytea,  E'{"\\\\x6275636b65742c203136206279746573"}'::bytea[], '{uses}', '{4}'::int2[], 1764061800, false) on conflict do nothing;
