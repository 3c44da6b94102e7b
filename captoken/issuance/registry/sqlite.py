"""The registry in one SQLite file: for the processes of one machine.

Whatever it has answered is on disk, and a restart forgets nothing. It may share its file with the
stores of `captoken.stores.sqlite`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from time import time
from typing import Self

from captoken._format.errors import StoreError
from captoken.issuance.registry._logins import LoginTables
from captoken.issuance.registry._rules import first_floor
from captoken.issuance.registry._tables import (
    TABLES,
    Row,
    Run,
    Statement,
    begin,
    schema_by,
)
from captoken.stores._rules import checked_floor
from captoken.stores.sqlite import Run as Execute
from captoken.stores.sqlite import SQLiteStore


def _in_sqlite(statement: str) -> str:
    """One of the statements that make the tables, with the types that SQLite has."""
    typed = statement.format(int="integer", blob="blob", once="")
    return typed + " strict" * ("create table" in statement)


class SQLiteRegistry(LoginTables, SQLiteStore):
    """Tasks in a file. To open it makes none: `create` does, once, with a floor.

    A file that was lost is made anew by a person, and not by a restart. Then assertions that were
    issued until a minute later are refused, since it is not known which were used. A backup that is
    put back in its place is not told from it: make a new one instead.

        registry = SQLiteRegistry.create("registry.db")    # the first time
        registry = SQLiteRegistry("registry.db")           # from then on
    """

    _table = "registry_state"
    _schema = tuple(map(_in_sqlite, TABLES))
    _version = schema_by(_in_sqlite)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        floor: int | None = None,
        timeout: float = 5.0,
        clock: Callable[[], float] = time,
    ) -> Self:
        """Make it, and open it. Raises StoreError if there is one, and ValueError for odd floors.

        `floor=0` promises that no registry was here before: then the first assertions are taken at
        once.
        """
        checked = checked_floor(floor)
        first = first_floor(clock) if checked is None else checked
        SQLiteRegistry._make(path, timeout, lambda execute: begin(run_by(execute), first))
        return cls(path, timeout=timeout)

    @contextmanager
    def _to_write(self) -> Generator[Run]:
        with self._writing() as execute:
            yield run_by(execute)

    @contextmanager
    def _to_read(self) -> Generator[Run]:
        with self._reading() as execute:
            yield run_by(execute)


def run_by(execute: Execute) -> Run:
    """What runs statements on a connection, as the tables' own code writes them."""

    def run(asked: Sequence[Statement]) -> list[list[Row]]:
        try:
            return [execute(statement, values).fetchall() for statement, values in asked]

        # A number that is too large for the file, or half of a character.
        except (OverflowError, UnicodeEncodeError) as error:
            failed = type(error).__name__
        raise StoreError(f"SQLite: a value that no registry holds: {failed}")

    return run
