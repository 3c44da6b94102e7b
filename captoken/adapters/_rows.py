"""What a statement gave back: for the guards of databases.

Not a cursor: that would lead to the connection, and so past the guard. Not a generator either: rows
that are fetched after the grant was asked could be seen when it does not stand any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Rows:
    """What a statement gave back: plain tuples, fetched before `execute` returned.

    Knows no cursor and no connection.
    """

    __slots__ = ("_left", "columns", "rowcount")

    def __init__(
        self,
        columns: tuple[str, ...],
        rows: list[tuple[Any, ...]],
        rowcount: int,
    ) -> None:
        """`rowcount` is as the database says it: -1 where it says nothing."""
        self.columns = columns
        self.rowcount = rowcount
        self._left = iter(rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """The rows that are left, each once: as of a cursor, and not as of a list."""
        return self._left

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None if there is none left."""
        return next(self._left, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        return list(self._left)
