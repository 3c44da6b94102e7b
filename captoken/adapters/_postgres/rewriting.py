"""The text that is sent, where less is shown of a table than it has: names mean what is shown.

    select c.*, o.total from customers c join orders o on o.customer = c.id

Of `customers`, a token permits `id` and `name`. Then this is sent:

    select c.*, o.total from (select "id", "name" from "public"."customers") c join orders o on ...

So PostgreSQL itself finds what each name means, and of a hidden column it knows nothing. What is
changed, each at the place that the tree and the scanner give:

R1. Each table of which rows are read is a subquery of what is shown of it. It goes by the alias
    that stood there, or by the name of the table.
R2. What is written stays a table. Where a name could mean one of its hidden columns, the name is
    void: another one stands there, which is nowhere. If something else in sight has such a column,
    the name is qualified. `*` after RETURNING and an INSERT without a list name what is shown.
R3. A name after a dot that is no column for certain could call a function. It is void.
R4. A GROUP BY that has the whole primary key of a table gets the other columns of it that the text
    names, since PostgreSQL knows no key of a subquery.

What is void, hidden and misspelt alike, is an error of PostgreSQL about a column that is not there.
It is raised where it would be, after the errors that come before it. Whoever wrote the text is told
its place there, and the word that stands there (`Sent.place`).

What was changed is parsed again, and has to be the tree that was meant: else it is refused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from secrets import token_hex
from typing import Any, NamedTuple

from captoken.adapters._postgres.columns import Columns, Shown
from captoken.adapters._postgres.grammar import Token, scan, tokens
from captoken.adapters._postgres.lists import SYSTEM_COLUMNS
from captoken.adapters._postgres.names import quoted, quoted_table
from captoken.adapters._postgres.outputs import fields_of, width_of
from captoken.adapters._postgres.reader import parsed
from captoken.adapters._postgres.text import (
    Dotted,
    Level,
    Reference,
    RefusedError,
    Scope,
    Table,
    Text,
)
from captoken.adapters._postgres.tree import KINDS, Node

# The name that is no column anywhere. It is drawn for the process, and no error tells it.
VOID = f"captoken_{token_hex(16)}"

# What a tree says of places. They are others in what was changed.
_PLACES = frozenset(
    (
        "location",
        "name_location",
        "list_start",
        "list_end",
        "rexpr_list_start",
        "rexpr_list_end",
    )
)

_COMMENTS = frozenset(kind for kind, _ in scan("-- a\n/* b */"))

# The columns of tables of which less is shown, by what is written.
Writable = Mapping[tuple[Table, str], Sequence[str]]


class Edit(NamedTuple):
    """What stands instead of some bytes of a text."""

    begin: int
    end: int
    text: bytes


class Sent(NamedTuple):
    """The text that is sent, and what was changed in the one that was read."""

    sql: str
    edits: tuple[Edit, ...] = ()

    def place(self, sql: str, place: int) -> int:
        """Where in the text that was read a character of the sent one is; both count from 1.

        What was put in is where it was put. 0 is no place.
        """
        if not self.edits or not place:
            return place

        at = len(self.sql[: place - 1].encode())
        moved = 0
        for begin, end, text in self.edits:
            if at < begin + moved:
                break
            if at < begin + moved + len(text):
                at = begin + moved
                break
            moved += len(text) - (end - begin)
        return len(sql.encode()[: at - moved].decode(errors="ignore")) + 1


class Narrowing(NamedTuple):
    """What is shown of the tables of a statement, and what of its names is void."""

    shown: Shown
    writable: Writable

    # The tables of which columns may be hidden.
    narrowed: frozenset[Table]

    # What the rows satisfy that are read of a table, and whether nothing else may run before it.
    conditions: dict[Table, tuple[str, bool]]

    # R3. The names after a dot that are no columns for certain.
    void: frozenset[Reference]
    dotted: Sequence[Dotted]

    # R4. The primary keys of tables, and the columns of constraints by their names.
    keys: Mapping[Table, frozenset[str]]
    constraints: Mapping[tuple[Table, str], frozenset[str]]


def rewritten(text: Text, narrowing: Narrowing, columns: Columns) -> Sent:
    """The text that is sent. Its tree is changed: what comes after this knows the text no more.

    Raises RefusedError for what cannot be changed so.
    """
    if not any((narrowing.narrowed, narrowing.conditions, narrowing.void, narrowing.dotted)):
        return Sent(text.sql)

    change = _Change(text, narrowing, columns)
    change.all()
    sent = change.sent()
    again = parsed(sent.sql)
    if again.refusal is not None:
        raise RefusedError(*again.refusal)
    if not _same(again.tree, text.tree):
        raise RefusedError("operation", "the statement is one that cannot be narrowed as it stands")
    return sent


class _Change:
    """The changes of one text, each made in the text and in the tree."""

    def __init__(self, text: Text, narrowing: Narrowing, columns: Columns) -> None:
        self._text = text
        self._narrowing = narrowing
        self._columns = columns
        self._bytes = text.sql.encode()
        self._tokens = _joined(tokens(text.sql), self._bytes)
        self._begins = [token.begin for token in self._tokens]
        self._edits: list[Edit] = []

        # The tables of which less is read than they have.
        self._subqueries = narrowing.narrowed.union(narrowing.conditions)

        # The stars that stand after RETURNING, and the rows of which one field is read: `(p).name`.
        self._expanded: set[int] = set()
        self._rows = {id(node.arg): node for node, place, _ in text.dotted if place == 0}

        # Of those whose field is void, which token that is.
        self._fields: dict[int, int] = {}

    def all(self) -> None:
        """Everything that is to be changed."""
        self._refuse_what_only_tables_have()
        for level in self._text.grouped:
            self._group(level)
        for level in self._text.targets:
            if level.scope.target in self._narrowing.narrowed:
                self._write(level.node, level.scope, level.scope.target)
        for dotted in self._narrowing.dotted:
            place = self._after_dot(dotted)
            dotted.node.indirection[dotted.place] = VOID
            if dotted.place == 0:
                self._fields[id(dotted.node.arg)] = place
            else:
                self._void(place)
        for node, reference in self._text.named:
            if reference in self._narrowing.void:
                self._void(self._at(node.location) + 2 * len(node.fields) - 2)
                node.fields[-1] = VOID
            elif id(node) not in self._expanded:
                self._in_sight_of_a_target(node, reference)
        for place in self._fields.values():
            self._void(place)
        for node, _, table in self._text.items:
            if table in self._subqueries:
                self._read(node, table)

    def sent(self) -> Sent:
        """The text with all of it."""
        # Each once: of `set (a, b) = (...)` the tree has the right side twice.
        edits = tuple(sorted(dict.fromkeys(self._edits), key=lambda edit: (edit.begin, edit.end)))
        parts: list[bytes] = []
        done = 0
        for begin, end, text in edits:
            if begin < done:
                raise RefusedError("operation", "two parts of the statement cannot be told apart")
            parts += self._bytes[done:begin], text
            done = end
        parts.append(self._bytes[done:])
        return Sent(b"".join(parts).decode(), edits)

    # --- places ---

    def _at(self, location: int) -> int:
        """Which token begins there."""
        found = bisect_right(self._begins, location) - 1
        if found < 0 or self._begins[found] != location:
            raise RefusedError("operation", "a part of the statement has no place of its own")
        return found

    def _word(self, place: int) -> bytes:
        """The token at that place, in small letters; nothing beyond the ends of the text."""
        if not 0 <= place < len(self._tokens):
            return b""
        begin, end, _ = self._tokens[place]
        return self._bytes[begin:end].lower()

    def _replace(self, first: int, last: int, text: str) -> None:
        """Put something instead of these tokens, the last one included."""
        begin, end = self._tokens[first].begin, self._tokens[last].end
        self._edits.append(Edit(begin, end, text.encode()))

    def _put_behind(self, place: int, text: str) -> None:
        end = self._tokens[place].end
        self._edits.append(Edit(end, end, text.encode()))

    def _void(self, place: int) -> None:
        self._replace(place, place, quoted(VOID))

    def _after_dot(self, dotted: Dotted) -> int:
        """Which token is a name after a dot: `((p))[1].name`."""
        node, wanted, _ = dotted
        place = self._at(node.arg.location) + 2 * len(node.arg.fields) - 1
        while self._word(place) == b")":
            place += 1
        for _ in range(wanted):
            place = self._behind_brackets(place) if self._word(place) == b"[" else place + 2
        return place + 1

    def _behind_brackets(self, place: int) -> int:
        deep = 0
        while True:
            deep += {b"[": 1, b"]": -1}.get(self._word(place), 0)
            place += 1
            if deep == 0 or place >= len(self._tokens):
                return place

    # --- R1 ---

    def _refuse_what_only_tables_have(self) -> None:
        """What a subquery has not: samples, system columns, and names with a schema before them."""
        if not self._subqueries:
            return
        what = "columns" if self._narrowing.narrowed else "rows"
        if self._text.sampled:
            sentence = f"there is no TABLESAMPLE where {what} are restricted"
            raise RefusedError("operation", sentence)
        for node, reference in self._text.named:
            if reference.column in SYSTEM_COLUMNS:
                sentence = f"{reference.column} is a system column, and {what} are restricted here"
                raise RefusedError("operation", sentence)
            if len(node.fields) > 2:
                sentence = f"where {what} are restricted, write table.column, without the schema"
                raise RefusedError("operation", sentence)

    def _read(self, node: Any, table: Table) -> None:
        """A table is a subquery of what is shown of it."""
        first = self._at(node.location)
        last = _end_of_name(first, node)

        # people *, only people, only (people)
        if self._word(last + 1) == b"*":
            last += 1
        elif not node.inh and self._word(first - 1) == b"(":
            first, last = first - 2, last + 1
        elif not node.inh:
            first -= 1

        # table people
        if self._word(first - 1) == b"table":
            self._replace(first - 1, first - 1, "select * from")

        names = self._narrowing.shown[table]
        only = "" if node.inh else "only "
        listed = ", ".join(map(quoted, names))
        condition, waits = self._narrowing.conditions.get(table, ("", False))
        where = f" where {condition}" if condition else ""
        if waits:
            where += " offset 0"  # what stands outside does not run within
        query = f"select {listed} from {only}{quoted_table(table)}{where}"  # noqa: S608 – quoted
        subquery = f"({query})"
        alias = node.alias
        if alias is None:
            subquery += f" as {quoted(node.relname)}"
            alias = _made("Alias", aliasname=node.relname)
        self._replace(first, last, subquery)

        if where:
            its = parsed(query).tree
        else:
            schema, name = table
            of = _made(
                "RangeVar", schemaname=schema, relname=name, inh=node.inh, relpersistence="p"
            )
            its = _select(names, of)
        _become(node, _made("RangeSubselect", subquery=its, alias=alias))

    # --- R2: what is written ---

    def _write(self, node: Any, scope: Scope, table: Table) -> None:
        """The columns that are written, and what comes back."""
        kind = type(node).__name__
        if kind == "UpdateStmt":
            self._assigned(node.targetList, table, "update")
        elif kind == "InsertStmt":
            self._insert(node, table)
        elif kind == "MergeStmt":
            for clause in node.mergeWhenClauses:
                self._merge(clause, table)
        if node.returningClause is not None:
            self._return(node, scope, table)

    def _assigned(self, targets: Any, table: Table, operation: str) -> None:
        """`set pay = 1`, `(id, pay)`: a column that may not be written is void."""
        for target in targets or ():
            if target.name not in self._narrowing.writable[table, operation]:
                self._void(self._at(target.location))
                target.name = VOID

    def _insert(self, node: Any, table: Table) -> None:
        """`insert into people values (1, 'ann')` fills the columns that are shown."""
        if node.cols is None and node.selectStmt is not None:
            width = width_of(node.selectStmt)
            names = self._narrowing.writable[table, "insert"][:width]
            if not names:
                raise RefusedError("operation", "name the columns that are inserted")
            last = self._end_of_target(node.relation)
            self._put_behind(last, f" ({', '.join(map(quoted, names))})")
            node.cols = [_made("ResTarget", name=name) for name in names]
        else:
            self._assigned(node.cols, table, "insert")

        conflict = node.onConflictClause
        if conflict is not None:
            self._assigned(conflict.targetList, table, "update")
        if conflict is not None and conflict.infer is not None:
            self._inferred(conflict.infer, table)

    def _end_of_target(self, relation: Any) -> int:
        """The last token of `people as p`. An insert has no alias without AS."""
        place = _end_of_name(self._at(relation.location), relation)
        return place if relation.alias is None else place + 2

    def _inferred(self, infer: Any, table: Table) -> None:
        """`on conflict (ssn)`, `on conflict on constraint people_ssn_key`."""
        shown = self._narrowing.shown[table]
        place = self._at(infer.location)
        if infer.conname is not None:
            its = self._narrowing.constraints.get((table, infer.conname))
            if its is None or not its.issubset(shown):
                self._void(place + 2)
                infer.conname = VOID

        deep = 0
        elements = list(infer.indexElems or ())
        while elements:
            word = self._word(place)
            if deep == 1 and self._word(place - 1) in (b"(", b","):
                element = elements.pop(0)
                if element.name is not None and element.name not in shown:
                    self._void(place)
                    element.name = VOID
            deep += {b"(": 1, b")": -1}.get(word, 0)
            place += 1

    def _merge(self, clause: Any, table: Table) -> None:
        if clause.commandType == "CMD_UPDATE":
            self._assigned(clause.targetList, table, "update")
        elif clause.commandType == "CMD_INSERT":
            if clause.targetList is None and clause.values is not None:
                raise RefusedError("operation", "name the columns that a MERGE inserts")
            self._assigned(clause.targetList, table, "insert")

    def _return(self, node: Any, scope: Scope, table: Table) -> None:
        """`returning *`, `returning old.*` of the target: the columns that are shown."""
        clause = node.returningClause
        exprs: list[Any] = []
        for target in clause.exprs:
            fields = fields_of(target.val)
            parts = _starred(node, scope, target.val)
            if parts is None:
                exprs.append(target)
                continue

            written: list[tuple[str, str | None]] = []
            for name in parts:
                if name in scope.target_names:
                    written += [(name, column) for column in self._narrowing.shown[table]]
                else:
                    written.append((name, None))
            if not written:
                raise RefusedError("operation", "no column of the table is shown after RETURNING")
            self._expanded.add(id(target.val))
            place = self._at(target.val.location)
            self._replace(
                place,
                place + 2 * len(fields) - 2,
                ", ".join(
                    f"{quoted(name)}.{'*' if column is None else quoted(column)}"
                    for name, column in written
                ),
            )
            exprs += [
                _made("ResTarget", val=_column(name, _made("A_Star") if column is None else column))
                for name, column in written
            ]
        clause.exprs = exprs

    # --- R2: names in sight of what is written ---

    def _in_sight_of_a_target(self, node: Any, reference: Reference) -> None:
        """A name that could mean a hidden column of the table that is written."""
        scope = next(
            (level for level in reference.scope.outward() if level.target is not None),
            None,
        )
        if scope is None or scope.target not in self._narrowing.narrowed:
            return
        table = scope.target
        if reference.qualifier is not None:
            self._qualified(node, reference, scope, table)
        elif isinstance(node.fields[-1], str) and (
            reference.column not in self._narrowing.shown[table]
        ):
            self._unqualified(node, reference, scope, table)

    def _qualified(self, node: Any, reference: Reference, scope: Scope, table: Table) -> None:
        """`people.pay`, `excluded.*`, where nothing further in goes by that name.

        Of what is beside it in FROM, it is not certain that it is in sight.
        """
        qualifier, column = reference.qualifier, reference.column
        for level in reference.scope.outward():
            if level is scope:
                break
            if level.certain and qualifier in _names_at(level):
                return
        if qualifier not in scope.target_names:
            return
        if column == "*" and not isinstance(node.fields[-1], str):
            raise RefusedError("operation", f"write the columns of {qualifier}, in place of *")
        if column not in self._narrowing.shown[table]:
            self._void(self._at(node.location) + 2)
            node.fields[-1] = VOID

    def _unqualified(self, node: Any, reference: Reference, scope: Scope, table: Table) -> None:
        """`pay`, `people`: nothing that is shown of the table that is written.

        A column further in comes first. One of something else in FROM is qualified.
        """
        column = reference.column
        for level in reference.scope.outward():
            if level is scope:
                break
            if self._columns.has(level, column):
                return

        place = self._at(node.location)
        having = [
            name
            for name, known in self._columns.at(scope)
            if name not in scope.target_names and column in known.names
        ]
        if column in scope.target_names:
            self._row(node, place, self._narrowing.shown[table])
        elif len(having) == 1 and having[0]:
            self._replace(place, place, f"{quoted(having[0])}.{quoted(column)}")
            node.fields[:] = having[0], column
        elif not having and _is_row(reference, scope):
            self._row(node, place, None)
        else:
            self._void(place)
            node.fields[-1] = VOID

    def _row(self, node: Any, place: int, shown: Sequence[str] | None) -> None:
        """A whole row: of the target, what is shown of it, and of another item all.

        A hidden column of that name would come first. So it is no row by its name alone.
        """
        parent = self._rows.get(id(node))
        if parent is not None:
            self._field(parent, node, place, shown)
            return
        name, void = quoted(node.fields[0]), quoted(VOID)
        listed = ["*"] if shown is None else list(map(quoted, shown))
        columns = ", ".join(f"{name}.{column}" for column in listed)
        its = f"(select {void} as {name} from (select {columns}) as {void})"  # noqa: S608 – quoted
        self._replace(place, place, its)
        _become(node, _whole_row(node.fields[0], [_made("A_Star")] if shown is None else shown))

    def _field(self, parent: Any, node: Any, place: int, shown: Sequence[str] | None) -> None:
        """`(people).name` of a row: `(people.name)`, which reads no whole row."""
        name = parent.indirection[0]
        if shown is not None and name not in shown:
            name = VOID
        self._fields.pop(id(node), None)
        last = place + 1
        while self._word(last) == b")":
            last += 1
        first = place - (last - place - 1)
        self._replace(first, last + 1, f"({quoted(node.fields[0])}.{quoted(name)})")
        node.fields.append(name)
        del parent.indirection[0]
        if not parent.indirection:
            _become(parent, node)

    # --- R4 ---

    def _group(self, level: Level) -> None:
        """`select p.id, p.name from people p group by p.id`."""
        node, scope = level
        if any(type(item).__name__ == "GroupingSet" for item in node.groupClause):
            return

        grouped: set[tuple[str, ...]] = set()
        for item in node.groupClause:
            grouped.add(fields_of(_by_ordinal(item, node.targetList or ())))
        mentioned = {reference.column for _, reference in self._text.named}
        added: list[tuple[str, str]] = []
        for name, table in scope.tables:
            key = self._narrowing.keys.get(table)
            if table not in self._subqueries or not key or name in scope.renamed:
                continue
            if all((name, column) in grouped or (column,) in grouped for column in key):
                added += [
                    (name, column)
                    for column in self._narrowing.shown[table]
                    if column not in key and (column in mentioned or "*" in mentioned)
                ]
        if not added:
            return

        # Behind BY, where ordinals and DISTINCT are what they were.
        place = self._at(min(_locations(node.groupClause[0])))
        while (self._word(place - 1), self._word(place)) != (b"group", b"by"):
            place -= 1
        if self._word(place + 1) in (b"all", b"distinct"):
            place += 1
        names = ", ".join(f"{quoted(name)}.{quoted(column)}" for name, column in added)
        self._put_behind(place, f" {names},")
        node.groupClause[:0] = [_column(*pair) for pair in added]


# --- small things ---


def _joined(found: Iterable[Token], text: bytes) -> list[Token]:
    """The tokens but for comments. A name in `U&"..." uescape '!'` is one token."""
    kept: list[Token] = []
    escape = False
    for token in found:
        if token.kind in _COMMENTS:
            continue
        is_uescape = text[token.begin : token.end].lower() == b"uescape"
        if escape or (is_uescape and kept):
            kept[-1] = kept[-1]._replace(end=token.end)
        else:
            kept.append(token)
        escape = is_uescape
    return kept


def _end_of_name(first: int, table: Any) -> int:
    """The last token of `shop.public.people`."""
    return first + 2 * sum(part is not None for part in (table.catalogname, table.schemaname))


def _names_at(level: Scope) -> set[str]:
    """By which names anything goes at a level."""
    return {name for name, _ in (*level.tables, *level.sources)} | level.joins.keys()


def _is_row(reference: Reference, target: Scope) -> bool:
    """Whether the name is that of an item of FROM for certain, and a row of columns.

    What a function gives can be a value.
    """
    for level in reference.scope.outward():
        if level is not target and not level.certain:
            return False
        if reference.column in _names_at(level):
            functions = {name for name, source in level.sources if source.query is None}
            return reference.column not in functions
        if level is target:
            return False
    return False


def _starred(node: Any, scope: Scope, value: Any) -> list[str] | None:
    """What `*` or `p.*` after RETURNING stands for, by names; None if it is no star of the target.

    Of a MERGE, the source comes before the target.
    """
    fields = fields_of(value)
    if not fields or isinstance(value.fields[-1], str):
        return None
    if len(fields) > 1:
        return [fields[-2]] if fields[-2] in scope.target_names else None

    kind = type(node).__name__
    alias = node.relation.alias
    target = node.relation.relname if alias is None else alias.aliasname
    if kind == "MergeStmt":
        return [_alias_in_from(node.sourceRelation), target]
    if kind == "InsertStmt":
        return [target]
    others = node.fromClause if kind == "UpdateStmt" else node.usingClause
    return [target, *map(_alias_in_from, others or ())]


def _alias_in_from(item: Any) -> str:
    """The name of an item of FROM of which all columns are meant."""
    if item.alias is not None:
        return str(item.alias.aliasname)
    if type(item).__name__ == "RangeVar":
        return str(item.relname)
    raise RefusedError("operation", "name the columns after RETURNING, in place of *")


def _by_ordinal(item: Any, targets: Sequence[Any]) -> Any:
    """What `1` in GROUP BY stands for; all else for itself."""
    if type(item).__name__ != "A_Const" or item.ival is None:
        return item
    place = item.ival.get("ival", 0)
    return targets[place - 1].val if 0 < place <= len(targets) else item


def _locations(node: Any) -> list[int]:
    """Where the parts of an expression are."""
    found: list[int] = []
    to_come = [node]
    while to_come:
        item = to_come.pop()
        if isinstance(item, Node):
            location = getattr(item, "location", None)
            if location is not None and location >= 0:
                found.append(location)
            to_come += vars(item).values()
        elif isinstance(item, list):
            to_come += item
    return found


# --- trees ---


def _made(kind: str, **fields: Any) -> Any:
    node = KINDS[kind].made()
    vars(node).update(fields)
    return node


def _become(node: Any, other: Any) -> None:
    """Put another node where one is. Which node it is part of need not be known for that."""
    node.__class__ = type(other)
    node.__dict__ = vars(other)


def _column(*fields: Any) -> Any:
    return _made("ColumnRef", fields=list(fields))


def _select(names: Iterable[Any], *from_clause: Any, qualifier: str | None = None) -> Any:
    """`select id, name from …`."""
    before = () if qualifier is None else (qualifier,)
    targets = [_made("ResTarget", val=_column(*before, name)) for name in names]
    return _made(
        "SelectStmt",
        targetList=targets or None,
        fromClause=list(from_clause) or None,
        limitOption="LIMIT_OPTION_DEFAULT",
        op="SETOP_NONE",
    )


def _whole_row(name: str, columns: Iterable[Any]) -> Any:
    """`(select void as p from (select p.id, p.name) as void)`."""
    row = _made(
        "RangeSubselect",
        subquery=_select(columns, qualifier=name),
        alias=_made("Alias", aliasname=VOID),
    )
    query = _select([VOID], row)
    query.targetList[0].name = name
    return _made("SubLink", subLinkType="EXPR_SUBLINK", subselect=query)


def _same(one: Any, other: Any) -> bool:
    """Whether two trees are the same, places aside. Without recursion, as the tree is made."""
    to_come = [(one, other)]
    while to_come:
        one, other = to_come.pop()
        if isinstance(one, Node) or isinstance(other, Node):
            if type(one) is not type(other):
                return False
            one, other = vars(one), vars(other)
        if isinstance(one, dict) and isinstance(other, dict):
            fields = (one.keys() | other.keys()) - _PLACES
            to_come += [(one.get(field), other.get(field)) for field in fields]
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            to_come += zip(one, other, strict=True)
        elif one != other:
            return False
    return True
