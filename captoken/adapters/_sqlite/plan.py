"""What a statement touches: the events of the authorizer, the opcodes of its program and the names in its text, added up.

Knows no grant. The rules are those of `captoken.adapters.sqlite`, and are cited by their numbers.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from captoken._format.errors import GuardError
from captoken._language.access import Access
from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.scopes import Mention
from captoken.adapters._sqlite.text import Text, hides_joins

NEVER_GRANTED = "catalogs, virtual tables, and names that no token can hold, are never granted"
_ENDS_IT = "the statement may end the transaction"
_TELLTALES = frozenset(("changes", "last_insert_rowid", "total_changes"))
_HARMLESS = frozenset(
    ("json_each", "json_tree")
)  # virtual tables that read nothing but their arguments
_LONGEST = (
    1 << 24
)  # bytes of a value or a row, since one opcode that makes a long one does not look at the clock
_STEPS = 10_000  # opcodes between two looks at the clock
_INNOCUOUS = 0x200000  # SQLITE_INNOCUOUS
_FOREIGN_KEY = 787  # SQLITE_CONSTRAINT_FOREIGNKEY

# Events of the authorizer, with the numbers of sqlite3.h.
_DELETE, _INSERT, _READ, _SELECT, _UPDATE, _FUNCTION, _RECURSIVE = 9, 18, 20, 21, 23, 31, 33
_WRITES = frozenset((_DELETE, _INSERT, _UPDATE))
_KNOWN = _WRITES | {_READ, _SELECT, _FUNCTION, _RECURSIVE}
_Event = tuple[
    int, str | None, str | None, str | None, str | None
]  # event, table, column, schema, trigger or view
_Key = tuple[str, str]  # schema and table

# Opcodes, as EXPLAIN spells them.
_OPENS = frozenset((b"OpenRead", b"ReopenIdx", b"OpenWrite"))
_SCRATCH = frozenset((b"OpenEphemeral", b"OpenAutoindex", b"OpenDup", b"OpenPseudo"))
_NEVER = frozenset(
    b"VUpdate VCreate VDestroy VRename ParseSchema LoadAnalysis ReadCookie SetCookie Destroy CreateBtree DropTable DropIndex "
    b"DropTrigger SqlExec Vacuum IncrVacuum JournalMode Checkpoint AutoCommit Savepoint IntegrityCk MaxPgcnt Pagecount".split()
)
_TELLING = _OPENS | _NEVER | {b"VOpen", b"Clear", b"Delete", b"Halt", b"HaltIfNull"}
_BY_KEY = frozenset(
    b"SeekGE SeekGT SeekLE SeekLT IdxGE IdxGT IdxLE IdxLT Found NotFound NoConflict IfNoHope".split()
)
_BY_ROWID = frozenset(b"Rowid IdxRowid SeekRowid NotExists".split())
_MOVES = (
    frozenset(b"Column Rewind Last Next Prev DeferredSeek FinishSeek SeekScan".split())
    | _BY_KEY
    | _BY_ROWID
)
_ON_CURSOR = _MOVES | frozenset(
    b"RowData RowCell Count Sort NullRow IfEmpty IfSizeBetween Offset Insert Delete".split()
)
_IN_LOOKUP = _MOVES | frozenset(
    b"Null Copy SCopy Integer IsNull NotNull MustBeInt Affinity Eq Ne Lt Le Gt Ge Param Goto Noop Explain ColumnsUsed".split()
)

CLOSED, OWN, LOOK, RUN = range(4)
_serial = itertools.count(1)


class Watch:
    """A connection under one authorizer, closed by default, in modes (rule 2)."""

    def __init__(self, connection: sqlite3.Connection, alive: Callable[[], bool]) -> None:
        self.connection, self.thread = connection, threading.get_ident()
        self.mode, self.refused = CLOSED, False
        self.seen: dict[_Event, None] = {}
        self.allowed: Mapping[_Event, None] = {}
        try:
            self.cursor = self._cursor()
            self.cursor.execute('SELECT 1 AS "a [b]"')
            if self.cursor.description[0][0] != "a [b]":
                raise GuardError(
                    "detect_types=PARSE_COLNAMES lets a statement choose what converts its bytes"
                )
            connection.set_authorizer(
                self._judge
            )  # expires every statement that was compiled before
        except connection.ProgrammingError as error:
            raise GuardError(f"the connection cannot be guarded here: {error}") from error
        connection.set_progress_handler(lambda: not alive(), _STEPS)
        self.longest = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)

    def _cursor(self) -> sqlite3.Cursor:
        cursor = self.connection.cursor()
        cursor.row_factory = None
        return cursor

    def release(self) -> None:
        with suppress(self.connection.ProgrammingError):  # closed meanwhile
            self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self.longest)
            self.connection.set_progress_handler(None, 0)
            self.connection.set_authorizer(None)
            self.cursor.close()

    def _judge(self, *event: Any) -> int:
        if threading.get_ident() != self.thread or self.mode == CLOSED:
            return sqlite3.SQLITE_DENY
        if self.mode == LOOK:
            self.seen[event] = None
            self.refused |= event[0] not in _KNOWN
            return sqlite3.SQLITE_DENY if self.refused else sqlite3.SQLITE_OK
        return (
            sqlite3.SQLITE_OK if self.mode == OWN or event in self.allowed else sqlite3.SQLITE_DENY
        )

    def _ask(self, mode: int, sql: str, parameters: Any) -> list[Any]:
        # text_factory belongs to the connection, so the owner's is put aside; bytes take whatever comes.
        factory, self.connection.text_factory, self.mode = self.connection.text_factory, bytes, mode
        try:
            return self.cursor.execute(sql, parameters).fetchall()
        finally:
            self.connection.text_factory, self.mode = factory, CLOSED

    def own(self, sql: str, *parameters: Any) -> list[Any]:
        """The rows of a query of the guard's own; text is bytes."""
        return self._ask(OWN, sql, parameters)

    def look(self, sql: str, parameters: Any) -> tuple[list[Any], dict[_Event, None]]:
        """The program that SQLite makes of `sql`, and what it asked the authorizer. Runs nothing (rule 3)."""
        self.seen, self.refused = {}, False
        return self._ask(LOOK, f"EXPLAIN /*{next(_serial)}*/ {sql}", parameters), self.seen

    def run(
        self, sql: str, parameters: Any, events: Mapping[_Event, None], most: int
    ) -> tuple[list[Any], sqlite3.Cursor]:
        """Run `sql`, which may ask for what it was seen to ask for. Raises GuardError for more rows than `most`."""
        self.allowed, self.mode = events, RUN
        try:
            rows = self.cursor.execute(sql, parameters).fetchmany(most + 1)
            if len(rows) > most:
                self.cursor.close()  # nothing of it goes on
                self.cursor = self._cursor()
                raise GuardError(f"the statement yields more than {most} rows")
            return rows, self.cursor
        finally:
            self.mode = CLOSED


class Object(NamedTuple):
    """A table, virtual table, view or index. An index is known by its table."""

    kind: str
    schema: str
    name: str
    table: str
    sql: str

    @property
    def key(self) -> _Key:
        return self.schema, self.table


class _Schema:
    """What the names and the root pages of a connection stand for (rule 4)."""

    def __init__(
        self, databases: tuple[tuple[int, str], ...], rows: tuple[tuple[Any, ...], ...]
    ) -> None:
        names = dict(databases)
        self.order = [
            names[number] for number in sorted(names, key=lambda number: (number != 1, number))
        ]  # temp is first
        self.roots: dict[tuple[int, int], Object] = {}
        self.objects: dict[tuple[str | None, str | None], Object] = {}
        self.bodies: defaultdict[str, str] = defaultdict(str)  # of views and triggers
        for number, root, *fields in rows:
            kind, name, table, sql = map(_decoded, fields)
            entry = Object(
                "virtual" if kind == "table" and not root else kind, names[number], name, table, sql
            )
            if root:
                self.roots[number, root] = entry
            if kind in ("table", "view"):
                self.objects[fold(entry.schema), fold(name)] = entry
            if kind in ("view", "trigger"):
                self.bodies[fold(name)] += sql + " "
        self.hides_joins = any(map(hides_joins, self.bodies.values()))

    def find(self, mention: Mention) -> Object | None:
        name = fold(mention.name)
        for schema in self.order if mention.schema is None else (mention.schema,):
            if found := self.objects.get((fold(schema), name)):
                return found
        return None


_read_schema = lru_cache(maxsize=16)(_Schema)  # a pure function of what the schema tables hold


class _Layout(NamedTuple):
    """Rule 8: the columns at each place of a cursor, and the one that is the rowid."""

    places: tuple[frozenset[str], ...]
    rowid: frozenset[str]
    keyed: bool  # sought by its columns, not by the rowid
    computes: bool  # has columns that are computed when read, from the rowid perhaps

    def read(self, op: bytes, p2: int, p4: bytes | None) -> frozenset[str]:
        """The columns that an opcode reads."""
        if op in _BY_ROWID or (op in _BY_KEY and not self.keyed):
            return self.rowid
        if op == b"Column" and p2 < len(self.places):
            return self.places[p2]
        if op in _BY_KEY or op in (b"Column", b"RowData", b"RowCell", b"Offset"):
            return frozenset[str]().union(
                *self.places[: int(p4 or 0) or None if op in _BY_KEY else None]
            )
        return frozenset()


class Engine(NamedTuple):
    """What was found out about a build of SQLite."""

    shows_replaced: bool  # do the opcodes show that a REPLACE deletes rows? (rule 6)


class Plan(NamedTuple):
    """What a statement needs, whoever asks for it."""

    text: Text
    needs: tuple[Access, ...] = ()
    refusals: tuple[tuple[str, str], ...] = ()  # code and reason
    events: Mapping[_Event, None] = MappingProxyType({})
    asks: frozenset[str] = (
        frozenset()
    )  # rule 7: the tell-tales that it calls, and those that it makes this block's own
    tells: frozenset[str] = frozenset()
    literals: frozenset[str] = frozenset()  # what looks like a column and is a string


class Planner:
    """Finds out what statements touch. Lives as long as the transaction that holds the schema still."""

    def __init__(self, watch: Watch, engine: Engine) -> None:
        self.watch, self.engine = watch, engine
        self.layouts: dict[Object, _Layout] = {}
        self.views: dict[Object, _Account | None] = {}

    @cached_property
    def schema(self) -> _Schema:
        # To read each schema table makes SQLite notice what others changed, and holds it until the transaction ends.
        databases = tuple(
            (number, _decoded(name)) for number, name, _ in self.watch.own("PRAGMA database_list")
        )
        columns = "+rootpage, +type, +name, +tbl_name, ifnull(sql, '')"  # expressions: converters see no type
        queries = (
            (number, f"SELECT {columns} FROM {_quoted(name)}.sqlite_master")
            for number, name in databases
        )  # noqa: S608
        return _read_schema(
            databases,
            tuple((number, *row) for number, query in queries for row in self.watch.own(query)),
        )

    @cached_property
    def foreign_functions(self) -> frozenset[str]:
        """Rule 7: the names of functions that are not SQLite's own, are not innocuous, or have been replaced."""
        query = "SELECT name FROM pragma_function_list WHERE NOT builtin OR NOT flags & ?"
        return frozenset(fold(_decoded(name)) for (name,) in self.watch.own(query, _INNOCUOUS))

    @cached_property
    def harmless_modules(self) -> set[bytes]:
        """Rule 4: how EXPLAIN spells json_each and json_tree on this connection."""
        rows = self.watch.own(
            f"EXPLAIN /*{next(_serial)}*/ SELECT 1 FROM json_each('[]'), json_tree('[]')"
        )  # noqa: S608
        return {row[5] for row in rows if row[1] == b"VOpen"}

    def layout(self, entry: Object) -> _Layout:
        if entry not in self.layouts:
            own, where = self.watch.own, (entry.table, entry.schema)
            info = own("SELECT name, upper(type), pk, hidden FROM pragma_table_xinfo(?, ?)", *where)
            names = frozenset(_decoded(name) for name, *_ in info)
            rowid = frozenset(
                _decoded(name) for name, kind, pk, _ in info if pk and kind == b"INTEGER"
            )
            places = [
                frozenset((_decoded(name),)) for name, _, _, hidden in info if hidden != 2
            ]  # 2: computed, not stored
            index = entry.name if entry.kind == "index" else ""
            if not index and own(
                "SELECT 1 FROM pragma_table_list(?) WHERE schema = ? AND wr", *where
            ):
                # WITHOUT ROWID: the table is the index of its primary key.
                index = _decoded(
                    own("SELECT name FROM pragma_index_list(?, ?) WHERE origin = 'pk'", *where)[0][
                        0
                    ]
                )
            if index:
                inside = own("SELECT cid, name FROM pragma_index_xinfo(?, ?)", index, entry.schema)
                places = [
                    rowid if at == -1 else names if name is None else frozenset((_decoded(name),))
                    for at, name in inside
                ]
            computes = any(hidden == 2 for *_, hidden in info)
            self.layouts[entry] = _Layout(tuple(places), rowid, bool(index), computes)
        return self.layouts[entry]

    def plan(self, text: Text, parameters: Any) -> Plan | Exception:
        """What the statement needs, or the error that compiling it ended in."""
        account = self._account(text, parameters)
        return account if isinstance(account, Exception) else account.plan()

    def view(self, view: Object) -> _Account | None:
        """What a view touches; None if SQLite cannot compile it."""
        if view not in self.views:
            text = Text(f"select 1 from {_quoted(view.schema)}.{_quoted(view.name)}")  # noqa: S608
            text.mentions = ()  # of what the view itself names, events and opcodes tell
            account = self._account(text, ())
            self.views[view] = account if isinstance(account, _Account) else None
        return self.views[view]

    def _account(self, text: Text, parameters: Any) -> _Account | Exception:
        self.schema  # noqa: B018  read first, so that the transaction holds it
        try:
            program, events = self.watch.look(text.sql, parameters)
        except (
            Exception
        ) as error:  # any: an OverflowError of a parameter also tells that the tables are there
            return error
        if not events:
            raise GuardError("SQLite compiled a statement without asking the authorizer")
        return _Account(self, text, events, program)


class _Account:
    """Adds up what events, opcodes and names say of one statement."""

    def __init__(
        self, planner: Planner, text: Text, events: dict[_Event, None], rows: list[Any]
    ) -> None:
        self.planner, self.schema, self.text, self.events = planner, planner.schema, text, events
        self.refusals: dict[tuple[str, str], None] = {}
        self.functions: set[str] = set()
        self.target: Object | None = None
        self.reads, self.updates = (
            defaultdict[_Key, set[str]](set),
            defaultdict[_Key, set[str]](set),
        )
        self.inserts, self.deletes, self.selects, self.looked_up = (
            set[_Key](),
            set[_Key](),
            set[_Key](),
            set[_Key](),
        )
        self.missing: list[Mention] = []
        self.readers: list[
            tuple[list[Any], dict[int, set[Object]]]
        ] = []  # of each program, by cursor
        self.programs: list[
            list[Any]
        ] = []  # the statement's own, then those of triggers and foreign keys
        for row in rows:
            if row[0] == 0:
                self.programs.append([])
            self.programs[-1].append(row)
        self._add_events()
        for number, program in enumerate(self.programs):
            self._add_opcodes(
                program, of_foreign_key=number > 0 and program[0][5] is None
            )  # they alone have no name
        self._add_hidden_columns()
        self._add_replaced()
        self._add_names()

    def _refuse(self, code: str, reason: str) -> None:
        self.refusals[code, reason] = None

    def _add_events(self) -> None:
        for code, name, column, schema, _ in self.events:
            if code == _FUNCTION:
                self.functions.add(fold(column or ""))
            if code not in _WRITES and (code != _READ or not column):
                continue  # an event without a column has the name as the text spells it, or a CTE's
            entry = self.schema.objects.get((fold(schema or ""), fold(name or "")))
            if entry is None and code == _READ and table_name("main", name or "") is not None:
                continue  # a virtual table that is always there, or a subquery: opcodes tell
            if entry is None or entry.kind == "virtual":  # rule 4
                self._refuse("table", NEVER_GRANTED)
                continue
            if code in _WRITES and self.target is None:
                self.target = entry
            if entry.kind == "view":
                continue  # judged by what its query or its triggers touch
            if code == _READ:
                self.reads[entry.key].add(column or "")
            elif code == _UPDATE:
                self.updates[entry.key].add(column or "")
            else:
                (self.inserts if code == _INSERT else self.deletes).add(entry.key)
        self.writes = self.inserts | self.deletes | self.updates.keys()
        if self.functions and self.functions & self.planner.foreign_functions:  # rule 7
            self._refuse("operation", "a function that is not SQLite's own, or not innocuous")

    def _add_opcodes(self, program: list[Any], of_foreign_key: bool) -> None:
        roots, lookups, written, defers = (
            self.schema.roots,
            set[int](),
            set[tuple[int, _Key]](),
            dict[int, int](),
        )
        if self.writes:
            lookups = _lookups(program)
            written = {
                (p1, roots[p3, p2].key)
                for _, op, p1, p2, p3, *_ in program
                if op == b"OpenWrite" and (p3, p2) in roots
            }
            defers = {
                p1: p3 for _, op, p1, _, p3, *_ in program if op == b"DeferredSeek"
            }  # an index's cursor → its table's
        readers = defaultdict[int, set[Object]](set)
        for address, op, p1, p2, p3, p4, p5, _ in program:
            if op not in _TELLING and not op.startswith(b"Open"):
                continue
            if op in _OPENS or op == b"Clear":  # rule 4
                entry = roots.get((p2, p1) if op == b"Clear" else (p3, p2))
                if entry is None or (
                    p5 & 0x10 and op != b"Clear"
                ):  # a catalog (page 1), or a page in a register
                    self._refuse("table", NEVER_GRANTED)
                elif op == b"Clear":
                    self.deletes.add(entry.key)
                elif op == b"OpenWrite":
                    if entry.key not in self.writes and entry.table != "sqlite_sequence":
                        self._refuse("operation", "a write that the authorizer was not asked about")
                elif (
                    self._is_first_pass(entry)
                    and {(p1, entry.key), (defers.get(p1), entry.key)} & written
                ):
                    pass  # rule 5: needs no more than the write
                elif of_foreign_key or address in lookups:
                    self.looked_up.add(entry.key)
                else:
                    self.selects.add(entry.key)
                    readers[p1].add(entry)
            elif op == b"VOpen" and p4 not in self.planner.harmless_modules:  # rule 4
                self._refuse("table", NEVER_GRANTED)
            elif (
                op == b"Delete" and p4 and not p2 & 4 and self.planner.engine.shows_replaced
            ):  # rule 6; 4: of an update
                self.deletes.update(
                    key for cursor, key in written if cursor == p1 and key[1] == _decoded(p4)
                )
            elif op in (b"Halt", b"HaltIfNull") and p1 and p2 == 1:  # rule 6
                self._refuse("operation", _ENDS_IT)
            elif op in _NEVER or (op not in _TELLING and op not in _SCRATCH):
                self._refuse("operation", f"the statement compiles to {_decoded(op)}")
        self.readers.append((program, readers))

    def _is_first_pass(self, entry: Object) -> bool:
        return (
            entry.key in self.updates
            or entry.key in self.deletes
            or entry.table == "sqlite_sequence"
        )

    @cached_property
    def _fired(self) -> set[str]:
        """The triggers whose programs are part of the statement's."""
        names = (_decoded(program[0][5]) for program in self.programs[1:] if program[0][5])
        return {fold(name.removeprefix("-- TRIGGER ")) for name in names}

    def _add_hidden_columns(self) -> None:
        """Rule 8: what opcodes read, if the statement, or a view or trigger that it may reach, hides columns of joins.

        SQLite also uses rowids for ends of its own: one counts if it can be what is joined on.
        """
        texts = [self.text]
        if self.schema.hides_joins:
            bodies, reached = self.schema.bodies, self._fired.copy()
            texts += [Text(bodies[name]) for name in reached]
            for text in texts:  # grows as views name views
                new = text.names & bodies.keys() - reached
                reached |= new
                texts += [Text(bodies[name]) for name in new]
        if not any(hides_joins(text.sql) for text in texts):
            return
        layout = self.planner.layout
        joined = {fold(name) for text in texts for name in text.using}
        natural = any(
            "natural" in text.sql.lower() for text in texts
        )  # joined on whatever two sides share
        for program, readers in self.readers:
            for _, op, p1, p2, _, p4, *_ in program:
                for entry in readers.get(p1, ()) if op in _ON_CURSOR else ():
                    read = layout(entry).read(op, p2, p4)
                    sure = natural or layout(entry).computes or read != layout(entry).rowid
                    if sure or joined & set(map(fold, read)):
                        self.reads[entry.key] |= read

    def _add_replaced(self) -> None:
        """Rule 6: by the text, for its target; if the opcodes do not show it, by tables and triggers too."""
        if self.target is None:
            return
        if "rollback" in self.text.conflicts:
            self._refuse("operation", _ENDS_IT)
        if "replace" in self.text.conflicts and self.target.kind == "table":
            self.deletes.add(self.target.key)
        if not self.planner.engine.shows_replaced:
            bodies, objects = self.schema.bodies, self.schema.objects
            passed_on = "replace" in self.text.conflicts or any(
                "replace" in bodies[name].lower() for name in self._fired
            )
            for schema, table in self.inserts | self.updates.keys():
                if passed_on or "replace" in objects[fold(schema), fold(table)].sql.lower():
                    self.deletes.add((schema, table))

    def _add_names(self) -> None:
        """Rule 9: SQLite drops a table that cannot matter, but says so if there is none."""
        for mention in self.text.mentions:
            entry = self.schema.find(mention)
            if entry is None and not is_harmless(mention):
                self.missing.append(mention)
            elif entry is not None and entry.kind == "virtual":
                self._refuse("table", NEVER_GRANTED)
            elif entry is not None and mention.operation == "select":
                view = self.planner.view(entry) if entry.kind == "view" else None
                if view is not None:
                    self.selects |= view.selects
                    self.refusals |= view.refusals
                elif entry.kind == "table":
                    self.selects.add(entry.key)
                else:
                    self._refuse("table", "a view that SQLite cannot compile")
        if (
            self.target is not None
            and self.target.kind == "table"
            and any(row[1] == b"ResultRow" for row in self.programs[0])
        ):
            self.selects.add(self.target.key)  # rule 6: RETURNING
        self.selects |= self.reads.keys() - self.writes - self.looked_up

    def plan(self) -> Plan:
        needs = [access_to(table_name(*key), "insert") for key in self.inserts]
        needs += [
            access_to(table_name(*key), "update", self.updates[key] | self.reads[key])
            for key in self.updates
        ]
        needs += [access_to(table_name(*key), "delete") for key in self.deletes]
        needs += [access_to(table_name(*key), "select", self.reads[key]) for key in self.selects]
        needs += [access_to(spelled(mention), mention.operation, ()) for mention in self.missing]
        if None in needs:
            self._refuse("table", NEVER_GRANTED)
        tells = set[str]()
        if self.target is not None:
            sets_rowid = any(row[1] == b"Insert" and row[6] & 0x20 for row in self.programs[0])
            tells = (
                {"changes", "last_insert_rowid"} if sets_rowid and not self.updates else {"changes"}
            )
        strings = (
            {row[5] for row in self.programs[0] if row[1] == b"String8"}
            if self.text.doubtful
            else set()
        )
        return Plan(
            text=self.text,
            needs=tuple(need for need in needs if need is not None),
            refusals=tuple(self.refusals),
            events=self.events,
            asks=asked & self.text.names if (asked := _TELLTALES & self.functions) else asked,
            tells=frozenset(tells),
            literals=frozenset(
                word for word in self.text.doubtful if word.encode("utf-8", "replace") in strings
            ),
        )


def _lookups(program: list[Any]) -> set[int]:
    """Rule 5: the addresses where a program opens cursors that only foreign keys look at.

    A parent is asked whether it is there, then the counter or the error follows, then its cursor is closed. Children are
    scanned, and nothing is done but to count them. A cursor that is used for anything else is none of these.
    """
    found = set[int]()
    for at, ((_, op, p1, *_), (_, following, cursor, *_)) in enumerate(itertools.pairwise(program)):
        if following == b"Close" and (op == b"FkCounter" or (op == b"Halt" and p1 == _FOREIGN_KEY)):
            uses = _uses(program, cursor)
            if all(used in (b"OpenRead", b"NotExists", b"Found") for _, used in uses):
                found.update(address for address, used in uses if used == b"OpenRead")
        elif op == b"FkCounter":
            start, end = at - 1, at + (following in (b"Next", b"Prev"))
            while start > 0 and program[start][1] in _IN_LOOKUP:
                start -= 1
            while start > 0 and program[start][1] == b"OpenRead":
                if all(start <= address <= end for address, _ in _uses(program, program[start][2])):
                    found.add(start)
                start -= 1
    return found


def _uses(program: list[Any], cursor: int) -> list[tuple[int, bytes]]:
    return [
        (at, op)
        for at, op, p1, *_ in program
        if p1 == cursor and (op in _ON_CURSOR or op in _OPENS)
    ]


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def table_name(schema: str, name: str) -> str | None:
    """What a token calls the table; None for a catalog, and for an identifier that is no segment (rule 4)."""
    if fold(name).startswith(("sqlite_", "pragma_")) or fold(name) == "dbstat":
        return None
    parts = (name,) if fold(schema) == "main" else (schema, name)
    return None if any("." in part or "\ufffd" in part for part in parts) else ".".join(parts)


def spelled(mention: Mention) -> str | None:
    return table_name(mention.schema or "main", mention.name)


def is_harmless(mention: Mention) -> bool:
    return mention.schema is None and fold(mention.name) in _HARMLESS


def access_to(
    table: str | None, operation: str | None, columns: Iterable[str] | None = None
) -> Access | None:
    """The access, or None if no token can name it. Only select and update state columns."""
    stated = (
        tuple(sorted(columns))
        if columns is not None and operation in ("select", "update")
        else None
    )
    for attempt in (
        (stated, None) if table is not None else ()
    ):  # None: for names of columns that no token can hold
        with suppress(ValueError):
            return Access(table=table, operation=operation, columns=attempt)
    return None


_Need = tuple[str | None, str | None, str]
_EXAMPLE = """
    CREATE TABLE a (id INTEGER PRIMARY KEY, x UNIQUE, y);
    CREATE TABLE b (id INTEGER PRIMARY KEY, x, name);
    CREATE TABLE c (id INTEGER PRIMARY KEY ON CONFLICT REPLACE, y);
    CREATE TABLE d (id INTEGER PRIMARY KEY);
    CREATE VIEW joined AS SELECT a.id FROM a NATURAL JOIN b;
    CREATE VIEW tables AS SELECT b.id FROM b NATURAL JOIN sqlite_master;
    CREATE VIEW functions AS SELECT b.id FROM b NATURAL JOIN pragma_function_list;
    CREATE TRIGGER t AFTER INSERT ON d BEGIN DELETE FROM c WHERE y IN (SELECT count(*) FROM a NATURAL JOIN b); END;
"""
_JOINED: set[_Need] = {("a", "select", "id x"), ("b", "select", "id x")}
_EXPECTED: dict[str, set[_Need] | None] = {  # None: refused
    "SELECT count(*) FROM a NATURAL JOIN b": _JOINED,
    "SELECT 1 FROM joined": _JOINED,
    "SELECT count(*) FROM b JOIN a USING (x)": {("a", "select", "x"), ("b", "select", "x")},
    "SELECT x FROM (SELECT 1 AS x WHERE 0) FULL JOIN b USING (x)": {("b", "select", "x")},
    "SELECT 1 FROM tables": None,
    "SELECT 1 FROM functions": None,
    "INSERT INTO d VALUES (1)": {("d", "insert", ""), ("c", "delete", "")} | _JOINED,
    "UPDATE a SET y = 1 WHERE x = 2": {("a", "update", "x y")},
    "DELETE FROM a": {("a", "delete", "")},
}


@lru_cache(maxsize=16)
def engine_of(connect: Callable[[str], sqlite3.Connection]) -> Engine:
    """Try rules 2 to 8 once for each build of SQLite, since EXPLAIN is no stable interface. Raises GuardError."""

    def needs(sql: str) -> set[_Need] | None:
        plan = planner.plan(Text(sql), ())
        if isinstance(plan, Exception) or plan.refusals:
            return None
        return {(need.table, need.operation, " ".join(need.columns or ())) for need in plan.needs}

    with closing(connect(":memory:")) as connection:
        connection.executescript(_EXAMPLE)
        watch = Watch(connection, lambda: True)
        watch.own("BEGIN")
        planner = Planner(watch, Engine(shows_replaced=True))
        replaced = needs("INSERT INTO c VALUES (1, 2)") == {
            ("c", "insert", ""),
            ("c", "delete", ""),
        }
        planner = Planner(watch, Engine(shows_replaced=replaced))
        for sql, expected in _EXPECTED.items():
            if (found := needs(sql)) != expected:
                raise GuardError(
                    f"this SQLite cannot be guarded: of {sql!r} the guard sees {found and sorted(map(str, found))}"
                )
        return planner.engine
