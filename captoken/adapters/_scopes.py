"""Rights as scopes of OAuth, for clients that know nothing of captoken (spec 44.24).

    table:sales:select      table:sales:select:amount      tool:mail.send

The consent page reads them, and guards write them. A name has one spelling: percent-encoded but for
what stands for itself. Another spelling is no right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from string import ascii_letters, digits
from typing import NamedTuple

from captoken._language.access import Access
from captoken.adapters._http.escapes import unescaped

# Characters of a name that stand for themselves in a scope.
_PLAIN = frozenset(ascii_letters + digits + "._-")

# The keywords of rights: what a person's own link says, and nothing else.
KEYWORDS = ("allow", "tables", "operations", "columns", "tools")

# The longest text of a scope as it stands in an address, and the most rights in one.
MOST_TEXT = 1024
MOST_RIGHTS = 32


class Right(NamedTuple):
    """One right, as a scope names it, and as a box on the page does."""

    kind: str  # table or tool
    name: str
    operation: str = ""
    column: str = ""

    @property
    def text(self) -> str:
        """Its one spelling."""
        parts = (self.name, self.operation, self.column)
        return ":".join((self.kind, *(_spelled(part) for part in parts if part)))


def read_right(text: str) -> Right | None:
    """The right that a text spells; None for what is none."""
    kind, *parts = text.split(":")
    fits = len(parts) == 1 if kind == "tool" else kind == "table" and len(parts) in (2, 3)
    if not fits or not all(parts):
        return None
    right = Right(kind, *(unescaped(part.encode()).decode("utf-8", "replace") for part in parts))
    return right if right.text == text else None


def rights_of(accesses: Iterable[Access], *, by_column: bool) -> list[Right]:
    """The rights that accesses need, each once. `by_column`: by the columns that they state."""
    found = (right for access in accesses for right in _needed(access, by_column))
    return list(dict.fromkeys(found))


def _needed(access: Access, by_column: bool) -> Iterator[Right]:
    if access.tool is not None:
        yield Right("tool", access.tool)
    if access.table is None:
        return
    operation = access.operation or ""
    columns = sorted(set(access.columns or ())) if by_column else []
    for column in columns or [""]:
        yield Right("table", access.table, operation, column)


def _spelled(name: str) -> str:
    """A name in a scope. A pattern ends with a star, alone or behind a full stop."""
    if name == "*":
        return name
    stem, star = (name[:-1], "*") if name.endswith(".*") else (name, "")
    return "".join(
        char if char in _PLAIN else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in stem
    ) + star
