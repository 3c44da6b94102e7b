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

The same is changed in the tree: what is put into the text is read by itself, and put there. What
comes of the text is parsed again, and has to be that tree: else it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from secrets import token_hex
from typing import Any, NamedTuple

from captoken.adapters._postgres.columns import Columns, Shown
from captoken.adapters._postgres.edits import Edits, Sent
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
from captoken.adapters._postgres.tree import Node, nodes_in
from captoken.adapters._postgres.walk import goes_by

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

# The columns of tables of which less is shown, by what is written.
Writable = Mapping[tuple[Table, str], Sequence[str]]


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
    sent = change.all()
    if not _same(change.pieces.tree(sent.sql), text.tree):
        raise RefusedError(
            "operation",
            "the guard cannot restrict this statement as it is written: write it in another way",
        )
    return sent


class _Pieces:
    """What is put into a text, each piece as the parser reads it.

    The texts are kept as long as what was read of them: a deep tree is taken apart with its text.
    """

    def __init__(self) -> None:
        self._kept: list[Text] = []

    def tree(self, sql: str) -> Any:
        """Raises RefusedError for what is no statement, or too long for one."""
        text = parsed(sql)
        if text.refusal is not None:
            raise RefusedError(*text.refusal)
        self._kept.append(text)
        return text.tree

    def columns(self, sql: str) -> list[Any]:
        """Columns of a result, as `p.id, p.*`: each with its expression as `val`."""
        found: list[Any] = self.tree(f"select {sql}").targetList
        return found


class _Change:
    """The changes of one text, each made in the text and in the tree."""

    def __init__(self, text: Text, narrowing: Narrowing, columns: Columns) -> None:
        self._text = text
        self._narrowing = narrowing
        self._columns = columns
        self._edits = Edits(text.sql)
        self.pieces = _Pieces()

        # The tables of which less is read than they have.
        self._subqueries = narrowing.narrowed.union(narrowing.conditions)

        # The rows of which one field is read, `(p).name`; of those whose field is void, which token
        # that is.
        self._rows = {id(node.arg): node for node, place, _ in text.dotted if place == 0}
        self._fields: dict[int, int] = {}

    def all(self) -> Sent:
        """Everything that is to be changed."""
        self._refuse_what_only_tables_have()
        for level in self._text.grouped:
            self._group(level)

        # The stars that stand after RETURNING.
        expanded: set[int] = set()
        for node, scope in self._text.targets:
            if scope.target in self._narrowing.narrowed:
                written = _Written(self._edits, self.pieces, self._narrowing, node, scope)
                expanded |= written.change(scope.target)
        for dotted in self._narrowing.dotted:
            place = self._after_dot(dotted)
            dotted.node.indirection[dotted.place] = VOID
            if dotted.place == 0:
                self._fields[id(dotted.node.arg)] = place
            else:
                _void(self._edits, place)
        for node, reference in self._text.named:
            if reference in self._narrowing.void:
                _void(self._edits, self._edits.at(node.location) + 2 * len(node.fields) - 2)
                node.fields[-1] = VOID
            elif id(node) not in expanded:
                self._in_sight_of_a_target(node, reference)
        for place in self._fields.values():
            _void(self._edits, place)
        for node, table in self._text.items:
            if table in self._subqueries:
                self._read(node, table)
        return self._edits.sent()

    def _after_dot(self, dotted: Dotted) -> int:
        """Which token is a name after a dot: `((p))[1].name`."""
        edits = self._edits
        node, wanted, _ = dotted
        place = edits.at(node.arg.location) + 2 * len(node.arg.fields) - 1
        while edits.word(place) == b")":
            place += 1
        for _ in range(wanted):
            place = edits.behind_brackets(place) if edits.word(place) == b"[" else place + 2
        return place + 1

    # --- R1 ---

    def _refuse_what_only_tables_have(self) -> None:
        """What a subquery has not: samples, system columns, and names with a schema before them."""
        if not self._subqueries:
            return
        what = "columns" if self._narrowing.narrowed else "rows"
        if self._text.sampled:
            sentence = f"TABLESAMPLE is not granted where {what} are restricted"
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
        edits = self._edits
        first = edits.at(node.location)
        last = _end_of_name(first, node)

        # people *, only people, only (people)
        if edits.word(last + 1) == b"*":
            last += 1
        elif not node.inh and edits.word(first - 1) == b"(":
            first, last = first - 2, last + 1
        elif not node.inh:
            first -= 1

        # table people
        if edits.word(first - 1) == b"table":
            edits.replace(first - 1, first - 1, "select * from")

        listed = ", ".join(map(quoted, self._narrowing.shown[table]))
        only = "" if node.inh else "only "
        query = f"(select {listed} from {only}{quoted_table(table)}"  # noqa: S608 – quoted
        if table in self._narrowing.conditions:
            condition, waits = self._narrowing.conditions[table]
            # What stands outside does not run within, where it is to wait.
            query += f" where {condition}" + (" offset 0" if waits else "")
        named = f"{query}) as {quoted(node.relname)}"
        edits.replace(first, last, named if node.alias is None else f"{query})")

        (item,) = self.pieces.tree(f"select from {named}").fromClause
        item.alias = node.alias or item.alias
        _become(node, item)

    # --- R2: names in sight of what is written ---

    def _in_sight_of_a_target(self, node: Any, reference: Reference) -> None:
        """A name that could mean a hidden column of the table that is written."""
        levels = reference.scope.outward()
        scope = next((level for level in levels if level.target is not None), None)
        if scope is None or scope.target not in self._narrowing.narrowed:
            return
        shown = self._narrowing.shown[scope.target]
        within = list(takewhile(lambda level: level is not scope, reference.scope.outward()))
        is_star = not isinstance(node.fields[-1], str)
        if reference.qualifier is not None:
            # Nothing further in goes by that name. Of what is beside it in FROM, it is not certain
            # that it is in sight.
            qualifier = reference.qualifier
            is_its = not any(level.certain and qualifier in _names_at(level) for level in within)
            if is_its and qualifier in scope.target_names:
                self._qualified(node, reference, shown, is_star=is_star)
            return

        # A column further in comes first.
        is_further_in = any(self._columns.has(level, reference.column) for level in within)
        if not is_star and reference.column not in shown and not is_further_in:
            self._unqualified(node, reference, scope, shown, within)

    def _qualified(
        self,
        node: Any,
        reference: Reference,
        shown: Sequence[str],
        *,
        is_star: bool,
    ) -> None:
        """`people.pay`, `excluded.*`, of the table that is written."""
        if is_star:
            sentence = f"name the columns of {reference.qualifier} instead of *"
            raise RefusedError("operation", sentence)
        if reference.column not in shown:
            _void(self._edits, self._edits.at(node.location) + 2)
            node.fields[-1] = VOID

    def _unqualified(
        self,
        node: Any,
        reference: Reference,
        scope: Scope,
        shown: Sequence[str],
        within: Sequence[Scope],
    ) -> None:
        """`pay`, `people`: nothing that is shown of the table that is written.

        A column of something else in FROM is qualified.
        """
        column = reference.column
        place = self._edits.at(node.location)
        having = [
            name
            for name, known in self._columns.at(scope)
            if name not in scope.target_names and column in known.names
        ]
        if column in scope.target_names:
            self._row(node, place, shown)
        elif len(having) == 1 and having[0]:
            self._edits.replace(place, place, f"{quoted(having[0])}.{quoted(column)}")
            node.fields[:] = having[0], column
        elif not having and _is_row(column, within, scope):
            self._row(node, place, None)
        else:
            _void(self._edits, place)
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
        self._edits.replace(place, place, its)
        (row,) = self.pieces.columns(its)
        _become(node, row.val)

    def _field(self, parent: Any, node: Any, place: int, shown: Sequence[str] | None) -> None:
        """`(people).name` of a row: `(people.name)`, which reads no whole row."""
        name = parent.indirection[0]
        if shown is not None and name not in shown:
            name = VOID
        self._fields.pop(id(node), None)
        last = place + 1
        while self._edits.word(last) == b")":
            last += 1
        first = place - (last - place - 1)
        self._edits.replace(first, last + 1, f"({quoted(node.fields[0])}.{quoted(name)})")
        node.fields.append(name)
        del parent.indirection[0]
        if not parent.indirection:
            _become(parent, node)

    # --- R4 ---

    def _group(self, level: Level) -> None:
        """`select p.id, p.name from people p group by p.id`."""
        node, scope = level
        items = node.groupClause
        if any(type(item).__name__ == "GroupingSet" for item in items):
            return

        grouped = {fields_of(_by_ordinal(item, node.targetList or ())) for item in items}
        mentioned = {reference.column for _, reference in self._text.named}
        added = [
            f"{quoted(name)}.{quoted(column)}"
            for name, table in scope.tables
            if name not in scope.renamed and self._has_key(name, table, grouped)
            for column in self._narrowing.shown[table]
            if column not in self._narrowing.keys[table] and mentioned & {column, "*"}
        ]
        if added:
            names = ", ".join(added)
            self._edits.put_behind(self._behind_by(items[0]), f" {names},")
            items[:0] = [column.val for column in self.pieces.columns(names)]

    def _has_key(self, name: str, table: Table, grouped: set[tuple[str, ...]]) -> bool:
        """Whether what is grouped by has the whole key of a table that is a subquery now."""
        key = self._narrowing.keys.get(table)
        if table not in self._subqueries or not key:
            return False
        return all((name, column) in grouped or (column,) in grouped for column in key)

    def _behind_by(self, item: Any) -> int:
        """The token behind which the first item is, where ordinals are what they were."""
        places = [getattr(part, "location", None) for part in nodes_in(item)]
        place = self._edits.at(min(place for place in places if place is not None and place >= 0))
        while (self._edits.word(place - 1), self._edits.word(place)) != (b"group", b"by"):
            place -= 1
        return place + 1 if self._edits.word(place + 1) in (b"all", b"distinct") else place


# --- R2: what is written ---


class _Written:
    """One INSERT, UPDATE, DELETE or MERGE, of a table of which less is shown."""

    def __init__(
        self,
        edits: Edits,
        pieces: _Pieces,
        narrowing: Narrowing,
        node: Any,
        scope: Scope,
    ) -> None:
        self._edits = edits
        self._pieces = pieces
        self._narrowing = narrowing
        self._node = node
        self._names = scope.target_names

    def change(self, table: Table) -> set[int]:
        """The columns that are written, and what comes back. Gives the stars that are no more."""
        node = self._node
        kind = type(node).__name__
        if kind == "UpdateStmt":
            self._assigned(node.targetList, table, "update")
        elif kind == "InsertStmt":
            self._insert(table)
        elif kind == "MergeStmt":
            for clause in node.mergeWhenClauses:
                self._merge(clause, table)
        return set() if node.returningClause is None else self._return(table)

    def _assigned(self, targets: Any, table: Table, operation: str) -> None:
        """`set pay = 1`, `(id, pay)`: a column that may not be written is void."""
        for target in targets or ():
            if target.name not in self._narrowing.writable[table, operation]:
                _void(self._edits, self._edits.at(target.location))
                target.name = VOID

    def _insert(self, table: Table) -> None:
        """`insert into people values (1, 'ann')` fills the columns that are shown."""
        node = self._node
        if node.cols is None and node.selectStmt is not None:
            width = width_of(node.selectStmt)
            names = self._narrowing.writable[table, "insert"][:width]
            if not names:
                raise RefusedError("operation", "name the columns that you insert")
            listed = f"({', '.join(map(quoted, names))})"
            last = _end_of_name(self._edits.at(node.relation.location), node.relation)
            # `people as p`: an insert has no alias without AS.
            self._edits.put_behind(last if node.relation.alias is None else last + 2, f" {listed}")
            filled = f"insert into t {listed} values (1)"  # noqa: S608 – quoted
            node.cols = self._pieces.tree(filled).cols
        else:
            self._assigned(node.cols, table, "insert")

        conflict = node.onConflictClause
        if conflict is not None:
            self._assigned(conflict.targetList, table, "update")
            if conflict.infer is not None:
                self._inferred(conflict.infer, table)

    def _inferred(self, infer: Any, table: Table) -> None:
        """`on conflict (ssn)`, `on conflict on constraint people_ssn_key`."""
        shown = self._narrowing.shown[table]
        place = self._edits.at(infer.location)
        if infer.conname is not None:
            its = self._narrowing.constraints.get((table, infer.conname))
            if its is None or not its.issubset(shown):
                _void(self._edits, place + 2)
                infer.conname = VOID

        deep = 0
        elements = list(infer.indexElems or ())
        while elements:
            word = self._edits.word(place)
            if deep == 1 and self._edits.word(place - 1) in (b"(", b","):
                element = elements.pop(0)
                if element.name is not None and element.name not in shown:
                    _void(self._edits, place)
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

    def _return(self, table: Table) -> set[int]:
        """`returning *`, `returning old.*` of the target: the columns that are shown."""
        clause = self._node.returningClause
        shown = list(map(quoted, self._narrowing.shown[table]))
        expanded: set[int] = set()
        columns: list[Any] = []
        for target in clause.exprs:
            starred = self._starred(target.val)
            if starred is None:
                columns.append(target)
                continue

            its = [(name, shown if name in self._names else ["*"]) for name in starred]
            written = ", ".join(f"{quoted(name)}.{one}" for name, listed in its for one in listed)
            if not written:
                raise RefusedError(
                    "operation",
                    "RETURNING would show no column of the table that may be read",
                )
            expanded.add(id(target.val))
            first = self._edits.at(target.val.location)
            self._edits.replace(first, first + 2 * len(target.val.fields) - 2, written)
            columns += self._pieces.columns(written)
        clause.exprs = columns
        return expanded

    def _starred(self, value: Any) -> list[str] | None:
        """What `*` or `p.*` stands for, by names; None if it is no star of the target.

        Of a MERGE, the source comes before the target.
        """
        fields = fields_of(value)
        if not fields or isinstance(value.fields[-1], str):
            return None
        if len(fields) > 1:
            return [fields[-2]] if fields[-2] in self._names else None

        node = self._node
        kind = type(node).__name__
        target = goes_by(node.relation)
        if kind == "MergeStmt":
            return [_alias_in_from(node.sourceRelation), target]
        if kind == "InsertStmt":
            return [target]
        others = node.fromClause if kind == "UpdateStmt" else node.usingClause
        return [target, *map(_alias_in_from, others or ())]


# --- small things ---


def _void(edits: Edits, place: int) -> None:
    """Put a name in its place that no table has."""
    edits.replace(place, place, quoted(VOID))


def _end_of_name(first: int, table: Any) -> int:
    """The last token of `shop.public.people`."""
    return first + 2 * sum(part is not None for part in (table.catalogname, table.schemaname))


def _names_at(level: Scope) -> set[str]:
    """By which names anything goes at a level."""
    return {name for name, _ in (*level.tables, *level.sources)} | level.joins.keys()


def _is_row(name: str, within: Sequence[Scope], target: Scope) -> bool:
    """Whether the name is that of an item of FROM for certain, and a row of columns.

    What a function gives can be a value.
    """
    for level in (*within, target):
        if level is not target and not level.certain:
            return False
        if name in _names_at(level):
            return all(source.query is not None for its, source in level.sources if its == name)
    return False


def _alias_in_from(item: Any) -> str:
    """The name of an item of FROM of which all columns are meant."""
    if item.alias is not None or type(item).__name__ == "RangeVar":
        return goes_by(item)
    raise RefusedError("operation", "name the columns after RETURNING instead of *")


def _by_ordinal(item: Any, targets: Sequence[Any]) -> Any:
    """What `1` in GROUP BY stands for; all else for itself."""
    if type(item).__name__ != "A_Const" or item.ival is None:
        return item
    place = item.ival.get("ival", 0)
    return targets[place - 1].val if 0 < place <= len(targets) else item


def _become(node: Any, other: Any) -> None:
    """Put another node where one is. Which node it is part of need not be known for that."""
    node.__class__ = type(other)
    node.__dict__ = vars(other)


def _same(one: Any, other: Any) -> bool:
    """Whether two trees are the same, places aside. Without recursion, as the tree is made."""
    to_come = [(one, other)]
    while to_come:
        one, other = to_come.pop()
        if type(one) is not type(other):
            return False
        if isinstance(one, Node):
            one, other = vars(one), vars(other)
        if isinstance(one, dict):
            fields = (one.keys() | other.keys()) - _PLACES
            to_come += [(one.get(field), other.get(field)) for field in fields]
        elif isinstance(one, list):
            if len(one) != len(other):
                return False
            to_come += zip(one, other, strict=True)
        elif one != other:
            return False
    return True
