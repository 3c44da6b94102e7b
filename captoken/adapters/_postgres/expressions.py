"""What the nodes of expressions say: columns, calls, operators and types.

Each rule opens with the SQL that it is about. The rules T4 to T7 are in `text`.
"""

from __future__ import annotations

from typing import Any

from captoken.adapters._postgres.lists import SAFE_VALUES, TYPES
from captoken.adapters._postgres.outputs import fields_of
from captoken.adapters._postgres.text import Dotted, Field, Named, Reference, RefusedError
from captoken.adapters._postgres.walk import Rule, Sight, Walk, own_name


def _column(walk: Walk, node: Any, sight: Sight) -> None:
    """A column that is read (T4), or all of them (T5).

        select pay, people.pay, public.people.pay, people.*

    What is noted is the spelling. Which tables it can mean is decided when all tables in sight are
    known: in `needs`, since a FROM clause can come later in the walk.

    Of a qualifier, only the name of the table is kept. So `hidden.sales.amount` also counts for
    `public.sales`, where both are in sight: a column too many, and never one too few.
    """
    parts = list(fields_of(node))
    if len(parts) > 4:
        raise RefusedError("table", "name a table by schema and name, without the database")
    if len(parts) == 4:
        walk.text.databases.add(parts[0])

    qualifier = parts[-2] if len(parts) > 1 else None
    reference = Reference(sight.scope, qualifier, parts[-1])
    walk.text.references.append(reference)
    walk.text.named.append(Named(node, reference))


def _indirection(walk: Walk, node: Any, sight: Sight) -> None:
    """A name, or an index, after an expression (T7).

        select (p).pay, (array_agg(p))[1], (x).lower

    PostgreSQL takes `(x).lower` for `lower(x)` where x has no field of that name. The names are
    noted here, and those that can be called are found in `needs`. An index is an expression like
    any other.
    """
    # `(p)`, where it is a name: perhaps that of a subquery, whose columns are known.
    fields = fields_of(node.arg)
    of = fields[0] if len(fields) == 1 else None
    for place, part in enumerate(node.indirection):
        if isinstance(part, str):
            walk.text.dotted.append(Dotted(node, place, Field(sight.scope, of, part)))
        of = None
    walk.below(node, sight)


def _call(walk: Walk, node: Any, sight: Sight) -> None:
    """A function, or a type that is called like one (T6).

        select lower(name), pg_catalog.lower(name), int4('1'), pg_read_file('/etc/passwd')

    It is noted, and looked up on the list in `needs`: there it is known which functions the owner
    of the database put on the search path.
    """
    *schema, name = node.funcname
    if len(schema) > 1:
        message = "name a function by schema and name, without the database"
        raise RefusedError("operation", message)
    walk.text.functions.add((schema[0] if schema else None, name))
    walk.below(node, sight, "funcname")


# What runs a function that its name stands for: the field with the name, and what it is called. One
# of another schema runs what the owner of that schema likes, and can look as harmless as
# `a operator(hidden.+) b`. An unqualified one is looked up where the search path says, which is
# pinned: an agent can put nothing there.
_NAMES = {
    "A_Expr": ("name", "an operator"),
    "CollateClause": ("collname", "a collation"),
    "SortBy": ("useOp", "an operator"),
    "SubLink": ("operName", "an operator"),
}


def _own(walk: Walk, node: Any, sight: Sight) -> None:
    """An operator, a query with one or without, what rows are sorted by, a collation (T6).

        select a + b, a operator(pg_catalog.+) b, a between b and c, a like b
        select a = any (select b from t), exists (select from t), array(select b from t)
        order by a using <
        select a collate "C"

    What is below is walked like any other expression: the order of rows tells about the values that
    they were sorted by. A query makes a scope of its own, and sees the one around it.
    """
    field, what = _NAMES[type(node).__name__]
    own_name(getattr(node, field), what)
    walk.below(node, sight, field)


def _word_value(walk: Walk, node: Any, sight: Sight) -> None:
    """A value that is spelled like a word (T6).

        select current_date, localtimestamp, current_user, current_schema

    The time is granted. The names of roles and schemas are not: they say how the guard is set up.
    """
    if node.op not in SAFE_VALUES:
        message = "names of database roles and schemas are not granted"
        raise RefusedError("operation", message)


def _type(walk: Walk, node: Any, sight: Sight) -> None:
    """A type, in a cast or where a column is defined (T6).

        select a::integer, cast(a as numeric(10, 2)), a::mood, a::people.pay%type

    A cast to a type of the owner's runs the functions of that type, or makes a row of a table. So
    a type that is on no list is noted, and granted only where the catalog says that it is an enum.
    """
    if node.names is None or node.setof or node.pct_type:
        # `people.pay%type` says what type a column has, of a table that nothing else reads.
        raise RefusedError("operation", "a type that is taken from a column (%TYPE) is not granted")

    *schema, name = node.names
    if len(schema) > 1:
        message = "name a type by schema and name, without the database"
        raise RefusedError("operation", message)
    if schema not in ([], ["pg_catalog"]) or name not in TYPES:
        walk.text.types.add((schema[0] if schema else None, name))
    walk.add(node.typmods, sight)


EXPRESSION_RULES: dict[str, Rule] = {
    **dict.fromkeys(_NAMES, _own),
    "A_Indirection": _indirection,
    "ColumnRef": _column,
    "FuncCall": _call,
    "SQLValueFunction": _word_value,
    "TypeName": _type,
}
