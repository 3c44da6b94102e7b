"""What a statement gave back: for the guards of databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Rows:
    """What a statement gave back: plain tuples, fetched before `execute` returned.

    Knows no cursor and no connection.
    """

    __slots__ = ("_left", "columns", "rowcount")

    def __init__(
        self, columns: tuple[str, ...], rows: list[tuple[Any, ...]], rowcount: int
    ) -> None:
        self.columns = columns
        self.rowcount = rowcount
        self._left = iter(rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._left

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None if there is none left."""
        return next(self._left, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        return list(self._left)
