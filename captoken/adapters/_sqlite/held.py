"""Rule 16: where a token grants some rows of a table, SQLite itself sees no others.

Such a table is a part (`parts`), and its query has the condition of its rows:

    with k_0 as not materialized (select "id", "cents" from "main"."orders" where …),
    "orders" as not materialized (select * from k_0) select * from orders

The table that a statement writes stays itself. There the condition stands before that of the text;
in a CASE, where something can fail: then nothing of the text is asked of a row that is not there.

    update orders set cents = 0 where (…) and (id = 7)
    update orders set cents = 0 where case when … then (abs(id) = 7) end

Temporary triggers hold each row that is written, as it was and as it will be, by whatever way the
statement got to it. What they find is a denial, and nothing of the statement stands.

That a text reads the table by its query alone is tried for each text: it is compiled with a query
in the place of k that reads no table (`parts.blind_query`). What still reads it then is refused:
a view, a trigger, a foreign key, or a name that SQLite resolves otherwise than anybody thought.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from captoken._format.encoding import decode_json
from captoken._language.access import Access
from captoken.adapters._sqlite.account import Account
from captoken.adapters._sqlite.catalog import Catalog, Object, Schema, quoted
from captoken.adapters._sqlite.events import add_events
from captoken.adapters._sqlite.naming import Key, table_name
from captoken.adapters._sqlite.opcodes import OPENS, Engine, Program
from captoken.adapters._sqlite.parts import MARK, Part, Parts, qualified
from captoken.adapters._sqlite.programs import Programs, add_programs
from captoken.adapters._sqlite.text import Text
from captoken.adapters._sqlite.updates import Update
from captoken.adapters._sqlite.watch import READ, Event

Events = Collection[Event]
Looked = tuple[Programs, Events]  # the programs of a statement, and what SQLite asked about it

_ELSEWHERE = "some rows of {} are granted, and the statement reaches others by another way"
_RETURNING = "some rows of {} are granted: there is no query in RETURNING there"
_CONFLICTS = "some rows of {} are granted: no REPLACE, no ON CONFLICT, and no OR in an insert there"

# When the triggers of an operation fire, and whether the row as it was has to be granted, and the
# row as it will be. Both before the engine looks at unique keys, and again as the row is stored.
_TRIGGERS = {
    "insert": (("before", ("new.",)), ("after", ("new.",))),
    "update": (("before", ("old.", "new.")), ("after", ("new.",))),
    "delete": (("before", ("old.",)),),
}


class Target(NamedTuple):
    """The part that a statement writes, where its rows are restricted."""

    part: Part
    operation: str  # "insert", "update" or "delete"
    raised: str  # what its triggers raise, and their names begin with: nobody else knows it
    rowid: frozenset[str]  # its column that is the rowid, if one is

    @property
    def triggers(self) -> Iterable[tuple[str, str]]:
        """The name of each trigger, and the SQL that makes it."""
        for when, rows in _TRIGGERS[self.operation]:
            name = f"{self.raised}_{when}"
            held = " and ".join(f"({self.part.held(before)})" for before in rows)
            fires = f"not ({held})"
            if when == "before" and self.operation == "insert":
                # A key that the database is still to make is -1 there.
                for key in self.rowid:
                    if name_in(key) in self.part.condition:
                        fires += f" and new.{quoted(key)} is not -1"
            yield (
                name,
                f"create temp trigger {name} {when} {self.operation} on {qualified(self.part)} "
                f"when {fires} begin select raise(abort, '{self.raised}'); end",
            )


def name_in(column: str) -> str:
    """A column in the condition of a part. In backticks it is never taken for a string."""
    return f"{MARK}`{column.replace('`', '``')}`"


def written_by(
    text: Text,
    parts: Parts,
    schema: Schema,
) -> tuple[Part, Object, str] | None:
    """The part that the statement itself writes, and how."""
    by_key = {part.key: part for part in parts}
    for mention in text.mentions:
        entry = schema.find(mention)
        if mention.operation != "select" and entry is not None and entry.key in by_key:
            return by_key[entry.key], entry, mention.operation
    return None


def stated(needs: Iterable[Access], parts: Parts) -> tuple[Access, ...]:
    """The needs, with what is held of the rows."""
    rows = {table_name(*part.key): part.rows for part in parts if part.rows}
    if not rows:
        return tuple(needs)
    return tuple(
        replace(need, rows=tuple(map(decode_json, rows[need.table])))
        if need.table in rows
        else need
        for need in needs
    )


def refuse_unheld(
    account: Account,
    blind: Looked,
    apart: Looked | None,
    parts: Parts,
    target: Target | None,
    text: Text,
    catalog: Catalog,
    engine: Engine,
) -> None:
    """Refuse what reads or writes a restricted table by another way than its query.

    `blind` is what came of the text where that query reads nothing. So the table itself is left,
    as what the statement writes, and for the look-ups of foreign keys. `apart` is what came of an
    UPDATE or a DELETE without it. SQLite looks up the names in RETURNING at another time: there is
    no query there.
    """
    seen = _seen(blind, catalog, engine)
    others = seen if apart is None else _seen(apart, catalog, engine)
    programs, _ = blind
    for part in parts:
        key = part.key
        if not part.rows:
            continue
        is_reached = key in others.selects or _is_opened(programs.all[1:], key, catalog)
        if apart is not None:
            is_reached |= key in others.reads
        if target is None or key != target.part.key:
            is_reached |= key in seen.writes or key in seen.reads.keys() - seen.looked_up
        if is_reached:
            account.refuse("row", _ELSEWHERE.format(table_name(*key)))
    if target is None:
        return
    name = table_name(*target.part.key)
    if _replaces(seen, target, text):
        account.refuse("row", _CONFLICTS.format(name))
    if apart is not None and Update(text.sql, target.operation).returns_query:
        account.refuse("row", _RETURNING.format(name))


def _seen(looked: Looked, catalog: Catalog, engine: Engine) -> Account:
    """What is touched, by events and opcodes."""
    programs, events = looked
    seen = Account()
    add_events(seen, events, catalog)
    add_programs(seen, programs, catalog, engine)
    return seen


def _is_opened(programs: Iterable[Program], key: Key, catalog: Catalog) -> bool:
    """Does a trigger, or what a foreign key does, open a table?"""
    return any(
        (entry := catalog.schema.roots.get((p3, p2))) is not None and entry.key == key
        for program in programs
        for _, op, _, p2, p3, *_ in program
        if op in OPENS or op == b"Clear"
    )


def _replaces(seen: Account, target: Target, text: Text) -> bool:
    """Does the statement do anything else to the table than what it was taken for?

    A row that is there already may be replaced, or changed by an insert. By the text, too.
    """
    done = {"insert": seen.inserts, "update": seen.updates, "delete": seen.deletes}
    does_more = any(
        target.part.key in keys for operation, keys in done.items() if operation != target.operation
    )
    keywords = [keyword for _, _, keyword in text.tokens]
    says_so = ("on", "conflict") in itertools.pairwise(keywords)
    return does_more or says_so or bool(text.conflicts)


def counted(
    events: Events,
    blind: Events,
    names: Mapping[Key, str],
    parts: Parts,
    schema: Schema,
) -> Events:
    """The events that count: without the columns that only the guard's own conditions read.

    A query of a part reads what it gives; what else is read of the table, it is by the text where
    the query reads nothing.
    """
    columns = {part.key: part.columns for part in parts if part.rows}

    def key_of(event: Event) -> Key | None:
        entry = schema.of(event)
        is_read = event[0] == READ and event[2]
        return entry.key if is_read and entry is not None and entry.key in columns else None

    kept: dict[Event, None] = {}
    for event in events:
        key = key_of(event)
        if key is None or (event[4] == names[key] and event[2] in columns[key]):
            kept[event] = None
    kept.update((event, None) for event in blind if key_of(event) is not None)
    return kept
