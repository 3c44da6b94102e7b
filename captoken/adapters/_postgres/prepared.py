"""Statements by name: the server parses them once on a connection, and not with each block.

    Parse    captoken_5f0c…_1    begin read only                            once
    Bind     captoken_5f0c…_1                                               with each block

The guard's own commands go by a name from the first time on, and statements of agents from the
second. Such a statement has a name for each role and for each list of types of its parameters: what
the server has checked for one role does not count for another.

A name is drawn at random, so that no text can spell it. What an agent writes can neither run what
goes by it nor put something else in its place.

Names are lost with DISCARD ALL and DEALLOCATE ALL, and behind a pooler that gives each transaction
another server. Then the server refuses the first command of a round trip, and runs none of it. All
of it is sent again, with new names (`wire.exchange`). A connection that loses them again does
without.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Hashable
from typing import Any

# How often names may be lost before a connection does without.
_LOSSES = 2

# How many statements of agents have a name at a time, how many more are remembered to have come
# once, and the longest of them. What they take of the server's memory is bounded by that.
_NAMED = 64
_CAME_ONCE = 512
_LONGEST = 10_000

# They are kept on the connection, and go with it.
_KEPT_AS = "_captoken_prepared"

# SQLSTATE of a name that the server does not know, and of one whose columns are others by now.
UNKNOWN_NAME = "26000"
OF_NO_USE = (UNKNOWN_NAME, "0A000")


class Names:
    """The names of one connection, by what they stand for."""

    def __init__(self) -> None:
        self._prefix = f"captoken_{secrets.token_hex(8)}".encode()
        self._made = 0
        self._losses = 0

        # The guard's own, by their text. And statements of agents, the one last used at the end.
        self.own: dict[bytes, bytes] = {}
        self._statements: dict[Hashable, bytes] = {}
        self._came_once: set[Hashable] = set()

    def usable(self) -> bool:
        """Whether anything is sent by name here."""
        return self._losses < _LOSSES

    def new(self) -> bytes:
        """A name that none has had: what went by an old one may be there still."""
        self._made += 1
        return b"%s_%d" % (self._prefix, self._made)

    def hidden(self, message: str) -> str:
        """What the server says, without a name: as it says it of a statement that has none."""
        return re.sub(rf"{self._prefix.decode()}_\d+", "", message)

    def lose(self) -> None:
        """The server does not know one of them, and so perhaps none."""
        self._losses += 1
        self.own.clear()
        self._statements.clear()

    # --- statements of agents ---

    def statement(self, key: Hashable) -> bytes | None:
        """The name of a statement that the server has prepared."""
        name = self._statements.pop(key, None)
        if name is not None:
            self._statements[key] = name
        return name

    def is_due(self, key: Hashable, sql: bytes) -> bool:
        """Whether a statement is to have a name: it came before, and is not too long."""
        if len(sql) > _LONGEST:
            return False
        if key in self._came_once:
            return True
        if len(self._came_once) >= _CAME_ONCE:
            self._came_once.clear()
        self._came_once.add(key)
        return False

    def keep_statement(self, key: Hashable, name: bytes) -> None:
        """The server has prepared it."""
        self._statements[key] = name

    def one_too_many(self) -> bytes | None:
        """The name that gives way to another one, which was not used for the longest time."""
        if len(self._statements) < _NAMED:
            return None
        return self._statements.pop(next(iter(self._statements)))

    def drop(self, key: Hashable) -> None:
        """That name is of no use any more. What goes by it next, comes for the first time."""
        self._statements.pop(key, None)
        self._came_once.discard(key)


def names_of(connection: Any) -> Names:
    """Those of this connection."""
    kept = vars(connection)
    names: Names | None = kept.get(_KEPT_AS)
    if names is None:
        names = kept[_KEPT_AS] = Names()
    return names
