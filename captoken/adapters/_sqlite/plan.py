"""A plan: what a statement needs, whoever asks for it. `planner` makes it, and `block` asks.

    REPLACE INTO codes (code, label) SELECT "eu", region FROM sales

    needs      insert on codes, delete on codes, select on sales (region)
    tells      changes, last_insert_rowid: from now on they tell of this block
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from captoken._language.access import Access
from captoken.adapters._sqlite.held import Target
from captoken.adapters._sqlite.lengths import Calls
from captoken.adapters._sqlite.parts import Parts
from captoken.adapters._sqlite.text import Text
from captoken.adapters._sqlite.watch import Event


class Plan(NamedTuple):
    """What a statement needs, whoever asks for it."""

    text: Text

    # The tables of which the token grants some columns; and the text that is run (rule 13).
    parts: Parts = ()
    sent: str = ""

    # The same, asking nothing of a row before it is known to be granted (rule 16); "" if it does.
    apart: str = ""

    # What it writes, where rows are restricted (rule 16).
    target: Target | None = None

    # What a grant has to permit, all of it.
    needs: tuple[Access, ...] = ()

    # What no grant can permit, by code and reason. If there is any, the statement is refused.
    refusals: tuple[tuple[str, str], ...] = ()

    # What it may ask of the authorizer when it runs (rule 2).
    events: Collection[Event] = ()

    # Rule 11: which functions it calls, with what lengths.
    calls: Calls = Calls()

    # Rule 7: the telltales that it calls, and those that tell of this block once it ran.
    asks: frozenset[str] = frozenset()
    tells: frozenset[str] = frozenset()

    @property
    def writes(self) -> bool:
        """Does it write a table?"""
        return any(need.operation != "select" for need in self.needs)

    @property
    def replaces(self) -> bool:
        """May it take away rows of a table while it puts others there? (rule 6)

        SQLite does not count the rows that go so. An insert whose trigger deletes from the same
        table looks alike.
        """
        put = {need.table for need in self.needs if need.operation in ("insert", "update")}
        return any(need.operation == "delete" and need.table in put for need in self.needs)
