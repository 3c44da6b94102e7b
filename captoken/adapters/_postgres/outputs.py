"""What PostgreSQL calls the columns of a result: by rules of its own, where the text gives no name.

    select id, p.name as who, count(*), max(pay)::integer, 1 + 1, p.* from people p

    id, who, count, max                                     certain
    ?column?, of 1 + 1                                      left out: nobody calls it so
    all columns of what goes by p                           a Star

A name that is left out is no harm: what is not certain is asked about, or refused.
"""

from __future__ import annotations

from typing import Any

from captoken.adapters._postgres.text import Star

# --- a whole query ---


def leftmost(query: Any) -> Any:
    """The query that names the columns of a result.

        select id from people union select pay from hr          the first one: `id`

    Unions nest to the left: `a union b union c` is `(a union b) union c`.
    """
    while type(query).__name__ == "SelectStmt" and query.larg is not None:
        query = query.larg
    return query


def outputs_of(query: Any) -> tuple[str | Star | None, ...]:
    """The columns of a query, or of what comes back of a write, in their order."""
    query = leftmost(query)

    # delete from people returning id, name as who
    if type(query).__name__ != "SelectStmt":
        returning = query.returningClause
        if returning is None:
            return ()
        return tuple(_output(target) for target in returning.exprs)

    # values (1, 2), (3, 4)
    if query.valuesLists:
        first_row = query.valuesLists[0]
        places = range(1, len(first_row) + 1)
        return tuple(f"column{place}" for place in places)

    # select id, name as who. It may have no columns at all: `select from people`.
    targets = query.targetList or ()
    return tuple(_output(target) for target in targets)


def width_of(query: Any) -> int | None:
    """How many columns a query has. None: there is a star among them, which can be any number."""
    outputs = outputs_of(query)
    return None if any(isinstance(output, Star) for output in outputs) else len(outputs)


def names_in(outputs: tuple[str | Star | None, ...]) -> set[str]:
    """Those that are names."""
    return {output for output in outputs if isinstance(output, str)}


# --- one column of it ---


def fields_of(expression: Any) -> tuple[str, ...]:
    """The parts of a name, as in `p.id`: "*" for a star. Nothing, where it is no name."""
    if type(expression).__name__ != "ColumnRef":
        return ()

    return tuple(part if isinstance(part, str) else "*" for part in expression.fields)


def _output(target: Any) -> str | Star | None:
    """What one column of a result is called.

        name as who                 who
        p.*                         all columns of what goes by p
        name, count(*)              as PostgreSQL calls it
    """
    if target.name is not None:
        return str(target.name)

    # `*`, `p.*`. A column can be called "*", in quotes: that is no star.
    fields = fields_of(target.val)
    is_star = bool(fields) and not isinstance(target.val.fields[-1], str)
    if is_star:
        qualifier = fields[-2] if len(fields) > 1 else None
        return Star(qualifier)
    return _name_of(target.val)


def _name_of(value: Any) -> str | None:
    """Return the name that PostgreSQL gives to a column without a name in the text.

        p.name, p.name::text        name
        max(pay), pg_catalog.max(pay), max(pay)::integer        max
        coalesce(a, b)              coalesce
        greatest(a, b), least(a, b) greatest, least
        1 + 1, case ... end         nothing that is certain

    As FigureColname of PostgreSQL has it, for the kinds of expressions that are listed here.
    """
    # A cast or a collation keeps the name of a column or a call.
    while type(value).__name__ in ("TypeCast", "CollateClause"):
        value = value.arg

    fields = fields_of(value)
    if fields and fields[-1] != "*":
        return fields[-1]

    kind = type(value).__name__
    if kind == "FuncCall":
        return str(value.funcname[-1])
    if kind == "CoalesceExpr":
        return "coalesce"
    if kind == "MinMaxExpr":
        is_greatest = value.op == "IS_GREATEST"
        return "greatest" if is_greatest else "least"
    return None
