"""What is changed in a text, by the places that its tree and the scanner give.

    select name from sales        Edit(17, 22, b'(select "name" from "public"."sales") as "sales"')

Nothing is searched for: a place is a token, and a token begins where the tree says that a node is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from captoken.adapters._postgres.grammar import Token, scan, tokens
from captoken.adapters._postgres.text import RefusedError

_COMMENTS = frozenset(kind for kind, _ in scan("-- a\n/* b */"))


class Edit(NamedTuple):
    """What stands instead of some bytes of a text."""

    begin: int
    end: int
    text: bytes


class Sent(NamedTuple):
    """The text that is sent, and what was changed in the one that was read."""

    sql: str
    edits: tuple[Edit, ...] = ()

    def place(self, sql: str, place: int) -> int:
        """Where in the text that was read a character of the sent one is; both count from 1.

        What was put in is where it was put. 0 is no place.
        """
        if not self.edits or not place:
            return place

        at = len(self.sql[: place - 1].encode())
        moved = 0
        for begin, end, text in self.edits:
            if at < begin + moved:
                break
            if at < begin + moved + len(text):
                at = begin + moved
                break
            moved += len(text) - (end - begin)
        return len(sql.encode()[: at - moved].decode(errors="ignore")) + 1


class Edits:
    """A text, cut into tokens, and what is to be changed in it."""

    def __init__(self, sql: str) -> None:
        self._bytes = sql.encode()
        self._tokens = _joined(tokens(sql), self._bytes)
        self._begins = [token.begin for token in self._tokens]
        self._edits: list[Edit] = []

    def at(self, location: int) -> int:
        """Which token begins there."""
        found = bisect_right(self._begins, location) - 1
        if found < 0 or self._begins[found] != location:
            raise RefusedError(
                "operation",
                "the guard cannot tell where a part of the statement begins: rewrite it",
            )
        return found

    def word(self, place: int) -> bytes:
        """The token at that place, in small letters; nothing beyond the ends of the text."""
        if not 0 <= place < len(self._tokens):
            return b""
        begin, end, _ = self._tokens[place]
        return self._bytes[begin:end].lower()

    def replace(self, first: int, last: int, text: str) -> None:
        """Put something instead of these tokens, the last one included."""
        begin, end = self._tokens[first].begin, self._tokens[last].end
        self._edits.append(Edit(begin, end, text.encode()))

    def put_behind(self, place: int, text: str) -> None:
        """Put something behind a token."""
        end = self._tokens[place].end
        self._edits.append(Edit(end, end, text.encode()))

    def behind_brackets(self, place: int) -> int:
        """The place behind the brackets that open there: `[1]`."""
        deep = 0
        while True:
            deep += {b"[": 1, b"]": -1}.get(self.word(place), 0)
            place += 1
            if deep == 0 or place >= len(self._tokens):
                return place

    def sent(self) -> Sent:
        """The text with all of it."""
        # Each once: of `set (a, b) = (...)` the tree has the right side twice.
        edits = tuple(sorted(dict.fromkeys(self._edits), key=lambda edit: (edit.begin, edit.end)))
        parts: list[bytes] = []
        done = 0
        for begin, end, text in edits:
            if begin < done:
                raise RefusedError(
                    "operation",
                    "the guard cannot tell two parts of the statement apart: rewrite it",
                )
            parts += self._bytes[done:begin], text
            done = end
        parts.append(self._bytes[done:])
        return Sent(b"".join(parts).decode(), edits)


def _joined(found: Iterable[Token], text: bytes) -> list[Token]:
    """The tokens but for comments. A name in `U&"..." uescape '!'` is one token."""
    kept: list[Token] = []
    escape = False
    for token in found:
        if token.kind in _COMMENTS:
            continue
        is_uescape = text[token.begin : token.end].lower() == b"uescape"
        if escape or (is_uescape and kept):
            kept[-1] = kept[-1]._replace(end=token.end)
        else:
            kept.append(token)
        escape = is_uescape
    return kept
