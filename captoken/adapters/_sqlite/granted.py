"""Rules 13 and 16: which tables are parts for a grant, and what it grants of each.

A table is a part if the grant refuses an access to it that states no columns or no rows, and says
that this is why. Then it is asked about the columns, as about any access, and what links say of the
rows: nothing here decides. A grant that is narrowed later refuses what the statement needs.

Only those columns matter that a word of the text names, unless a star, NATURAL or `in people` could
mean all: so the grant is asked about what the text is about.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from itertools import starmap

from captoken._format.encoding import encode_json
from captoken._format.errors import GuardError
from captoken._format.spelling import json_text
from captoken._verification.facts import Condition
from captoken.adapters._costed_grant import CostedGrant
from captoken.adapters._sqlite.catalog import Object
from captoken.adapters._sqlite.held import name_in
from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.naming import Key, access_to, table_name
from captoken.adapters._sqlite.parts import Part, Parts
from captoken.adapters._sqlite.planner import Planner
from captoken.adapters._sqlite.remembered import Bounded
from captoken.adapters._sqlite.scopes import Mention
from captoken.adapters._sqlite.text import Text
from captoken.rows import condition

# Whether columns are restricted does not turn on the operation. But the first of these may be
# refused for itself.
_OPERATIONS = ("select", "update", "insert", "delete")

# The refusals that say that another operation is to be asked about.
_OF_RIGHTS = frozenset(("table", "operation"))


class Granted:
    """Finds the parts that texts name, for one block."""

    def __init__(self, grant: CostedGrant, planner: Planner) -> None:
        self._grant = grant
        self._planner = planner

        # Whether a refusal was about neither rights nor columns. That may turn on the statement, as
        # its cost does, and the next one has to be asked about anew.
        self._is_certain = True

        # What the links say of the rows of a table, as far as it was asked.
        self._rows: dict[Key, tuple[Condition, ...]] = {}

    @cached_property
    def _links(self) -> Hashable:
        """Keep the links that the parts depend on for the next block, which mostly has the same
        token.
        """
        return self._grant.links()

    @cached_property
    def _are_whole(self) -> bool:
        """Return whether no table can be a part: no link says so, and nobody else has a say."""
        return self._links is not None and not self._grant.grants_parts

    @cached_property
    def _found(self) -> Bounded[tuple[Hashable, str], Parts]:
        """Return what was found for each text.

        Findings that depend on more than the links stay in the block.
        """
        return Bounded() if self._links is None else self._planner.found.parts

    def parts(self, text: Text) -> Parts:
        """The parts among all tables that a word of the text could mean.

        Raises GuardError, code `row`, for rows that no condition in SQL says.
        """
        if self._are_whole:
            return ()
        key = self._links, text.sql
        parts = self._found.get(key)
        if parts is None:
            self._is_certain = True
            self._rows.clear()
            parts = self._among(self._tables(text), text)
            if self._is_certain:
                self._found.keep(key, text.sql, parts)
        return parts

    def _columns(self, entry: Object, text: Text) -> tuple[str, ...]:
        """The columns of a table that a text may mean."""
        columns = self._planner.catalog.columns(entry)
        if text.may_mean_all:
            return columns
        return tuple(column for column in columns if fold(column) in text.names)

    def told(self, text: Text) -> str:
        """What there is of the parts that a text names, for a model that used another name."""
        told: list[str] = []
        for _, (entry, named_for) in sorted(self._tables(text).items()):
            found = self._restricted(entry, named_for)
            if found is not None:
                told.append(self._part(entry, *found, self._planner.catalog.columns(entry)).told())
        return "; ".join(told)

    def _tables(self, text: Text) -> dict[Key, tuple[Object, str]]:
        """The tables that it names, and those that a word of it could mean.

        With an operation on each: the one that it is named for, or select.
        """
        schema = self._planner.catalog.schema
        words = [Mention("select", None, name) for name in text.names & schema.tables]
        found: dict[Key, tuple[Object, str]] = {}
        for mention in (*text.mentions, *words):
            entry = schema.find(mention)
            if entry is not None and entry.kind == "table":
                found.setdefault(entry.key, (entry, mention.operation))
        return found

    def _among(self, tables: dict[Key, tuple[Object, str]], text: Text) -> Parts:
        """The parts among some tables, always in the same order."""
        asked = [access_to(table_name(*key), named_for) for key, (_, named_for) in tables.items()]
        accesses = [access for access in asked if access is not None]
        if not accesses:
            return ()
        # Of several tables mostly all are open. Of one it is asked below.
        if len(accesses) > 1 and self._grant.recheck(accesses):
            return ()

        parts: list[Part] = []
        unheld: dict[str, list[str]] = {}
        for key in sorted(tables):
            entry, named_for = tables[key]
            found = self._restricted(entry, named_for)
            if found is not None:
                try:
                    parts.append(self._part(entry, *found, self._columns(entry, text)))
                except GuardError as error:
                    unheld.setdefault(str(error), []).append(str(table_name(*key)))
        if unheld:
            raise GuardError("; ".join(starmap(_unheld, unheld.items())), "row")
        return tuple(parts)

    def _restricted(self, entry: Object, named_for: str) -> tuple[str, bool] | None:
        """An operation that is refused if no columns are stated, or no rows.

        And whether all columns are granted.
        """
        for operation in dict.fromkeys((named_for, *_OPERATIONS)):
            code = self._refusal(entry, operation, None)
            if code == "column" or (code is None and self._rows[entry.key]):
                return operation, code is None
            if code is None:
                return None
            self._is_certain = self._is_certain and code in _OF_RIGHTS
        return None

    def _part(
        self,
        entry: Object,
        operation: str,
        is_whole: bool,
        columns: tuple[str, ...],
    ) -> Part:
        """The part, with those of some columns that are granted. Mostly all of them are."""
        granted = columns
        if not is_whole and self._refusal(entry, operation, columns) is not None:
            granted = tuple(
                column for column in columns if self._refusal(entry, operation, (column,)) is None
            )
        bare = self._planner.catalog.schema.find(Mention("select", None, entry.name))
        is_bare = bare is not None and bare.key == entry.key
        rows = self._rows[entry.key]
        if not rows:
            return Part(*entry.key, granted, is_bare, is_whole)
        types = self._planner.catalog.types(entry)
        said = condition(rows, "sqlite", types, name_in)
        return Part(*entry.key, granted, is_bare, is_whole, tuple(map(encode_json, rows)), said)

    def _refusal(
        self,
        entry: Object,
        operation: str,
        columns: tuple[str, ...] | None,
    ) -> str | None:
        """The code for which an access is refused, or None."""
        access = access_to(table_name(*entry.key), operation, columns)
        if access is None:
            return "table"
        known = self._rows.get(entry.key, ())
        decision, self._rows[entry.key] = self._grant.ask(access, known)
        return None if decision else decision.code


def _unheld(why: str, tables: list[str]) -> str:
    """Why rows of some tables cannot be held, and what to write if all of them are meant."""
    freed = ", ".join(f"{json_text(table)}: {{}}" for table in tables)
    return f"{why} ({', '.join(tables)}). If all of their rows are meant, rows={{{freed}}} says so"
