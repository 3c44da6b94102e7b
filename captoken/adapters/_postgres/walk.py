"""How the tree of a statement is walked: without recursion, and with its tables counted.

The parser makes nodes of `select s.id from sales s`:

    SelectStmt
        targetList   ResTarget, with a ColumnRef of two fields, s and id
        fromClause   RangeVar sales, with an Alias s

A rule is a function for one kind of node. It notes what the node says, and puts the nodes below it
to be walked. The node of a query makes a new level first, so that those below it see its tables:

    node          noted                                     put to be walked
    SelectStmt                                              ResTarget, RangeVar, in a new level
    RangeVar      reads sales; the level has it as `s`
    ResTarget                                               ColumnRef
    ColumnRef     the column id of what goes by `s`

Columns are looked up when the walk is over (`needs`): by then each level has all its tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn, TypeAlias

from captoken.adapters._postgres.lists import PLAIN_NODES
from captoken.adapters._postgres.text import RefusedError, Scope, Source, Table, Text
from captoken.adapters._postgres.tree import Node

# T1. In FROM clauses, and as targets of writes. Columns are looked up in each of them.
MAX_TABLES = 200

# T1. Queries in WITH clauses. Each sees the names of those before it.
MAX_CTES = 200


class Sight(NamedTuple):
    """What a node sees: the tables of its level and of those around it, and the names of CTEs (T3).

    The two differ in how they grow. Tables are added to a scope while the FROM clause is walked,
    for all nodes of that level. The names of CTEs are known before what is below them is walked.
    """

    # Its level, which knows those around it.
    scope: Scope

    # The CTEs of this level and of those around it, each with its columns.
    ctes: Mapping[str, Source]


class Walk:
    """Goes through the tree, node by node. What the nodes say is noted in `text`.

    It has a list of nodes to come instead of a recursion. How deep a statement nests is up to
    whoever wrote it, and Python's stack has an end.
    """

    def __init__(self, text: Text) -> None:
        # What the rules note. It is complete when `run` returns, and not when it raises.
        self.text = text

        # Each node with what it sees. The last one comes next.
        self._to_come: list[tuple[Any, Sight]] = []

        # How many tables and CTEs were met so far.
        self._tables = 0
        self._ctes = 0

    def run(self, rules: Mapping[str, Rule]) -> None:
        """T2. Each node by the rule of its kind, or as a plain one.

        Raises RefusedError for a kind that is on neither list: nobody has said what it means.
        """
        while self._to_come:
            node, sight = self._to_come.pop()
            kind = type(node).__name__
            rule = rules.get(kind)
            if rule is not None:
                rule(self, node, sight)

            # One that names nothing itself: an AND, a CASE, a list of columns to order by.
            elif kind in PLAIN_NODES:
                self.below(node, sight)

            else:
                raise RefusedError("operation", f"{kind} is not granted")

    def add(self, value: Any, sight: Sight) -> None:
        """Put a node to be walked, or a list of nodes, however these are nested.

        Anything else is no part of the tree, and says nothing: a flag, a number, a name that the
        rule of its node has read. Lists nest as deep as the grammar says, not as the text does: so
        this recursion has an end that no text moves.
        """
        if isinstance(value, Node):
            self._to_come.append((value, sight))
        elif isinstance(value, (list, tuple)):
            for item in value:
                self.add(item, sight)

    def below(self, node: Any, sight: Sight, *without: str) -> None:
        """Put all fields of a node to be walked, but for those that its rule reads itself.

        What is left out is named, so that a field that a later grammar adds is walked too.
        """
        for field, value in vars(node).items():
            if field not in without:
                self.add(value, sight)

    def count_ctes(self, more: int) -> None:
        """T1. Counts the queries of a WITH clause, and refuses one too many."""
        self._ctes += more
        if self._ctes > MAX_CTES:
            message = f"the statement has more than {MAX_CTES} queries in WITH"
            raise RefusedError("operation", message)

    def source(self, scope: Scope, name: str, source: Source) -> None:
        """Something in FROM that is no table, with the name by which it goes."""
        scope.sources.append((name, source))
        self.text.sources += 1

    def table(self, node: Any) -> Table:
        """T1. A table, by schema and name. Counts it, and refuses one too many.

        A name without a schema is taken for one of `public`. The search path is pinned, and has
        pg_catalog alone before that, where all tables are called `pg_...`: no token names those.
        """
        self._tables += 1
        if self._tables > MAX_TABLES:
            too_many_tables()

        # `shop.public.sales`: there is no way into another database than the one that it is in.
        if node.catalogname is not None:
            self.text.databases.add(node.catalogname)

        schema = node.schemaname or "public"
        return (schema, node.relname)

    def table_or_cte(self, node: Any, ctes: Mapping[str, Source]) -> Table | None:
        """T3. A table of which rows are read. None: the name is that of a CTE in sight.

        A qualified name never is: `public.secret` is the table, whatever WITH says.
        """
        unqualified = node.schemaname is None and node.catalogname is None
        if unqualified and node.relname in ctes:
            return None
        return self.table(node)


# What is said of one kind of node: it notes that, and puts what is below it to be walked.
Rule: TypeAlias = Callable[[Walk, Any, Sight], None]


def too_many_tables() -> NoReturn:
    """T1. For what is counted in `Walk.table`, or seen beforehand to come to too many."""
    raise RefusedError("operation", f"the statement has more than {MAX_TABLES} tables")


# --- small things that several rules read from nodes ---


def goes_by(table: Any) -> str:
    """The name by which a table goes in the statement: its alias, or else its own.

    Where there is an alias, PostgreSQL knows the table by that alone: in `from sales s`, a column
    `sales.id` is an error.
    """
    alias = table.alias
    if alias is not None:
        return str(alias.aliasname)
    return str(table.relname)


def joined(items: Iterable[Any]) -> Iterator[Any]:
    """The items of a FROM clause, out of the joins that they are in."""
    to_come = list(items)
    while to_come:
        item = to_come.pop()
        if type(item).__name__ == "JoinExpr":
            to_come += [item.larg, item.rarg]
        else:
            yield item


def name_of(item: Any) -> str | None:
    """The name by which it goes, if it has one. A sample has none itself: that is its table's."""
    if type(item).__name__ == "RangeVar":
        return goes_by(item)
    alias = getattr(item, "alias", None)
    return None if alias is None else str(alias.aliasname)


def alias_of(item: Any, otherwise: str = "") -> tuple[str, tuple[str, ...]]:
    """The name by which an item of FROM goes, and the new names of its columns: `p(a, b)`."""
    alias = item.alias
    return (otherwise, ()) if alias is None else (alias.aliasname, strings(alias.colnames))


def strings(nodes: Any) -> tuple[str, ...]:
    """The names in a list of them, which may be absent.

    The names of new columns in `t as a(x, y)`, above all.
    """
    return tuple(nodes or ())


def own_name(nodes: Any, what: str) -> str:
    """T6. The last part of a name that is PostgreSQL's own, as far as the text can say.

    It is unqualified, or of pg_catalog. Raises RefusedError for a name in another schema: what is
    there was made by somebody, and can do anything. `what` is the subject of the message.
    """
    parts: list[str] = nodes or []
    if not parts:
        return ""

    *schema, name = parts
    if schema and schema != ["pg_catalog"]:
        raise RefusedError("operation", f"{what} of another schema is not granted")
    return name
