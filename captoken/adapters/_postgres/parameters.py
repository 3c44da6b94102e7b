"""A statement with its parameters, as PostgreSQL gets them beside it (rule 4 of `postgres`).

No parameter is ever part of a text: what an agent puts into one cannot become SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from psycopg.adapt import PyFormat, Transformer

from captoken._verification.mistakes import mistake
from captoken.adapters._postgres.wire import Command, Connection

_MAX_PARAMETERS = 65_535  # of the protocol, which counts them in two bytes


def check_types(sql: Any, parameters: Any) -> None:
    """Raises TypeError for a statement that is no text, and for parameters that have no order."""
    if not isinstance(sql, str):
        raise TypeError(f"a statement must be a str, not {type(sql).__name__}")
    if isinstance(parameters, (tuple, list)):
        return
    if not isinstance(parameters, Sequence) or isinstance(parameters, (str, bytes)):
        kind = type(parameters).__name__
        raise TypeError(f"parameters must be a sequence, for $1, $2 and so on, not {kind}")


def bound(
    connection: Connection,
    sql: str,
    parameters: Sequence[Any],
    max_rows: int,
    role: str,
    taken: Callable[[list[tuple[Any, ...]]], None] | None,
) -> Command:
    """The command that runs a statement in a role, with the types of psycopg's adapters.

    Raises StatementError for what cannot be adapted. What psycopg, or an adapter of yours, says of
    that could quote the value: it is not passed on.
    """
    given = list(parameters)
    if len(given) > _MAX_PARAMETERS:
        raise mistake("parameters")

    transformer = Transformer.from_context(connection)
    values: Sequence[Any] | None = None
    with suppress(Exception):
        values = transformer.dump_sequence(given, [PyFormat.AUTO] * len(given))
    if values is None:
        raise mistake("parameters")
    return Command(
        sql=sql.encode(),
        values=values,
        types=transformer.types,
        formats=transformer.formats,
        max_rows=max_rows,
        transformer=transformer,
        taken=taken,
        role=role,
    )
