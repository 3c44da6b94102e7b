"""What PostgreSQL calls the columns of a result: by rules of its own, where the text gives no name.

    select id, p.name as who, count(*), max(pay)::integer, 1 + 1, p.* from people p

    id, who, count, max                                     certain
    ?column?, of 1 + 1                                      left out: nobody calls it so
    all columns of what goes by p                           a Star

A name that is left out is no harm: what is not certain is asked about, or refused.
"""

from __future__ import annotations

from typing import Any

from captoken._format.extras import extra

with extra("postgres"):
    from pglast import ast, enums

from captoken.adapters._postgres.text import Star


def leftmost(query: Any) -> Any:
    """The query that names the columns of a result: of `a union b`, the first one."""
    while type(query).__name__ == "SelectStmt" and query.larg is not None:
        query = query.larg
    return query


def outputs_of(query: Any) -> tuple[str | Star | None, ...]:
    """The columns of a query, or of what comes back of a write, in their order."""
    query = leftmost(query)
    if type(query).__name__ != "SelectStmt":
        returning = query.returningClause
        targets = returning.exprs if returning is not None else ()
        return tuple(_output(target) for target in targets)

    if query.valuesLists:
        first = query.valuesLists[0]
        return tuple(f"column{place}" for place in range(1, len(first) + 1))
    return tuple(_output(target) for target in query.targetList or ())


def names_in(outputs: tuple[str | Star | None, ...]) -> set[str]:
    """Those that are names."""
    return {output for output in outputs if isinstance(output, str)}


def fields_of(expression: Any) -> tuple[str, ...]:
    """The parts of a name, as in `p.id`: "*" for a star. Nothing, where it is no name."""
    if type(expression).__name__ != "ColumnRef":
        return ()
    fields = expression.fields
    return tuple(str(part.sval) if isinstance(part, ast.String) else "*" for part in fields)


def _output(target: Any) -> str | Star | None:
    if target.name is not None:
        return str(target.name)

    # A column can be called "*", in quotes. That is no star.
    fields = fields_of(target.val)
    if fields and isinstance(target.val.fields[-1], ast.A_Star):
        return Star(fields[-2] if len(fields) > 1 else None)
    return _name_of(target.val)


def _name_of(value: Any) -> str | None:
    """As FigureColname of PostgreSQL has it, for the kinds of expressions that are listed here."""
    # A cast or a collation keeps the name of a column or a call.
    while type(value).__name__ in ("TypeCast", "CollateClause"):
        value = value.arg

    fields = fields_of(value)
    if fields and fields[-1] != "*":
        return fields[-1]

    kind = type(value).__name__
    if kind == "FuncCall":
        return str(value.funcname[-1].sval)
    if kind == "CoalesceExpr":
        return "coalesce"
    if kind == "MinMaxExpr":
        return "greatest" if value.op == enums.MinMaxOp.IS_GREATEST else "least"
    return None
