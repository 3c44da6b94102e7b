"""Rule 12: what a connection remembers of statements, from one block to the next.

To find out what a statement needs takes longer than most statements. What was found holds as long
as the *ground* it rests on. The next block reads the ground anew, which is much less to read:

    databases            the names, numbers and files of main, temp and what is attached
    version              the schema version of main, which each change of its schema moves on
    rows                 what the other schemas hold: what is attached may be another file by now
    foreign_keys         and recursive_triggers, which say what a statement sets off

It is read inside of the block's transaction, which holds the schema still from then on.

Only a `Connection` of this file remembers. It sees what it is given, as a function, and forgets all
then; no other can be asked.
What is remembered tells nothing but by its time: that a statement was here before.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, Generic, NamedTuple, TypeVar

from captoken.adapters._sqlite.account import Account
from captoken.adapters._sqlite.catalog import Catalog, Object, databases_of, rows_of
from captoken.adapters._sqlite.parts import Parts
from captoken.adapters._sqlite.plan import Plan
from captoken.adapters._sqlite.shapes import Shape
from captoken.adapters._sqlite.text import Text
from captoken.adapters._sqlite.watch import Watch

# How many things are remembered at most, and characters of their statements together. Agents write
# them, so that both are bounded.
_MOST = 256
_CHARACTERS = 1 << 18

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Bounded(Generic[_Key, _Value]):
    """What was found out about statements. Too much, and all is forgotten."""

    def __init__(self) -> None:
        self._kept: dict[_Key, _Value] = {}
        self._characters = 0

    def get(self, key: _Key) -> _Value | None:
        """What is remembered, or None."""
        return self._kept.get(key)

    def keep(self, key: _Key, sql: str, value: _Value) -> None:
        """Remember a value, which is of that statement. It is one that was not remembered."""
        self._characters += len(sql)
        if len(self._kept) >= _MOST or self._characters > _CHARACTERS:
            self._kept.clear()
            self._characters = len(sql)
        self._kept[key] = value


class Found(NamedTuple):
    """What was found out on one ground."""

    catalog: Catalog

    # What each view touches, once it was asked; None if SQLite cannot compile it.
    views: dict[Object, Account | None]

    # Statements that were read, and the shapes that others go by; and what each needs where tokens
    # grant some columns of tables.
    texts: Bounded[str, Text]
    shapes: Bounded[str, Shape]
    plans: Bounded[tuple[str, Parts], Plan]

    # The parts of each text, by the links that grant them.
    parts: Bounded[tuple[Hashable, str], Parts]

    # What the queries of parts are called (rule 13). Nobody who sends a text knows it.
    drawn: str

    def known(self, sql: str) -> Text | Shape | None:
        """What a statement goes by that was sent before, or None."""
        return self.texts.get(sql) or self.shapes.get(sql)

    @classmethod
    def nothing(cls, watch: Watch) -> Found:
        """What was found out before anything was asked."""
        drawn = f"k{secrets.token_hex(16)}"
        return cls(Catalog(watch), {}, Bounded(), Bounded(), Bounded(), Bounded(), drawn)


class Ground(NamedTuple):
    """What all that was found rests on."""

    databases: tuple[tuple[int, str, str], ...]
    version: int
    rows: tuple[tuple[Any, ...], ...]
    foreign_keys: int
    recursive_triggers: int


class Memory:
    """What one connection remembers: on one ground, the last that a block was on."""

    def __init__(self) -> None:
        # May its functions change, and nobody sees it?
        self._functions_change = False

        # False for detect_types=PARSE_COLNAMES, which cannot be guarded. That never changes.
        self.is_fit = False

        self._ground: Ground | None = None
        self._found: Found | None = None

    def found(self, watch: Watch) -> Found:
        """What was found on the ground of this block's transaction; nothing yet, if it is new."""
        ground = _ground(watch)
        if self._found is None or ground != self._ground or self._functions_change:
            self._ground = ground
            self._found = Found.nothing(watch)
        else:
            self._found.catalog.resume(watch)
        return self._found

    def forget(self, for_good: bool = False) -> None:
        """The connection was given something that may change what statements are.

        `for_good`: from now on its functions can change, and nobody sees it.
        """
        self._functions_change = self._functions_change or for_good
        self._found = None


def _ground(watch: Watch) -> Ground:
    """The ground of the transaction that is open.

    Asking for the version makes SQLite notice what others have changed, and begins to read: from
    here on nobody else changes the schema of main.
    """
    databases = databases_of(watch)
    others = [(number, name) for number, name, _ in databases if number != 0]
    return Ground(
        databases,
        _number(watch, "PRAGMA main.schema_version"),
        rows_of(watch, others),
        _number(watch, "PRAGMA foreign_keys"),
        _number(watch, "PRAGMA recursive_triggers"),
    )


def _number(watch: Watch, pragma: str) -> int:
    """Return the number that a pragma answers with."""
    return int(watch.own(pragma)[0][0])


class Connection(sqlite3.Connection):
    """A connection that remembers what the statements of guarded blocks need.

        connection = sqlite3.connect("sales.db", factory=Connection)

    Everything else is as with any connection. Without it each block finds out anew.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.remembered = Memory()


def _forgetting(method: Callable[..., Any], for_good: bool) -> Callable[..., Any]:
    """The same method, after which the connection remembers nothing."""

    @wraps(method)
    def called(self: Connection, *args: Any, **keywords: Any) -> Any:
        try:
            return method(self, *args, **keywords)
        finally:
            self.remembered.forget(for_good)

    return called


# What is given a connection beside its schema, and whether that goes on unseen: with extensions
# enabled, a statement can load one. Not every Python has all of these.
_GIVEN = {
    "create_aggregate": False,
    "create_function": False,
    "create_window_function": False,
    "deserialize": False,
    "enable_load_extension": True,
    "load_extension": False,
    "setconfig": False,
}
for _name, _for_good in _GIVEN.items():
    if hasattr(sqlite3.Connection, _name):
        _method = getattr(sqlite3.Connection, _name)
        setattr(Connection, _name, _forgetting(_method, _for_good))
