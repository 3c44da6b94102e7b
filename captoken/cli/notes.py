"""What whoever writes a token is told beside it: that it works, but not as it may be meant.

    note: slect is no operation that captoken's guards know (select, insert, update, delete): did
        you mean select?
    note: this token expired 2s ago: nothing made of it works

To standard error, a line each. The token is written all the same, with exit 0: a server of one's
own may know more. Nothing here refuses anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from captoken._format.spelling import span
from captoken._writing.keywords import unnamed_tables
from captoken._writing.token import Token
from captoken._writing.token_set import TokenSet
from captoken.cli.output import tell

# What the guards of databases ask for. A server of one's own may have other operations.
_KNOWN = ("select", "insert", "update", "delete")


def say_of_caveats(given: Mapping[str, Any]) -> None:
    """Notes on caveats that a link was given, as keywords: those that hardly anybody means.

    Only beside tables that are named: without them operations may be those of anything.
    """
    tables: list[str] = [
        *given.get("tables", ()),
        *given.get("allow", {}),
    ]
    if not tables:
        return

    for operation in _operations(given):
        if operation not in _KNOWN and operation != "*":
            _note(_unknown(operation))

    for option, pattern in unnamed_tables(given):
        _note(f"--{option} is for {pattern}, which is no table that is named here")


def _operations(given: Mapping[str, Any]) -> Iterator[str]:
    """All operations that are named, each once, in their order."""
    named: list[str] = list(given.get("operations", ()))
    for of_table in given.get("allow", {}).values():
        named += of_table

    # A dict keeps the order, as a set does not.
    yield from dict.fromkeys(named)


def _unknown(operation: str) -> str:
    """What is told of an operation that no guard knows: the one that may be meant, if one is near.

    Case counts in tokens: `SELECT` is as unknown as `slect`, and the same one is meant.
    """
    known = f"{operation} is no operation that captoken's guards know ({', '.join(_KNOWN)})"
    close = get_close_matches(operation.lower(), _KNOWN, n=1)
    if close:
        return f"{known}: did you mean {close[0]}?"
    return f"{known}: only a server that asks for it by this name permits anything"


def say_of_end(held: Token | TokenSet, now: int) -> bool:
    """A note if a token has expired, from which others are made. True if it has."""
    end = _end_of(held)
    if end is None or end > now:
        return False

    _note(f"this token expired {span(now - end)} ago: nothing made of it works")
    return True


def say_of_cut(made: Token | TokenSet, asked: int | None, now: int) -> None:
    """A note if a token ends earlier than after the seconds that were asked for.

    `asked` is None where no such end was asked for. `now` is a time before the token was made: from
    a later one on, an end that was not cut would look as if it had been.
    """
    end = _end_of(made)
    if asked is None or end is None or end >= now + asked:
        return
    _note(f"--expires-in {span(asked)} is cut to what is held: the token ends in {span(end - now)}")


def _end_of(held: Token | TokenSet) -> int | None:
    """When it ends; of a set, when the first of its tokens does."""
    return held.unverified.expires_at if isinstance(held, Token) else held.expires_at


def _note(text: str) -> None:
    tell(f"note: {text}")
