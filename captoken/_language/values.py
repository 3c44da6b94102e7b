"""Readers of the JSON values that caveats are made of: each returns its argument or raises.

`what` says, for the message, what the value is. They raise TypeError for another type of value and
ValueError for a value that says nothing, or too much.

None of them converts. A value that is nearly right is refused, since two readers would repair it in
two ways. How long a list is, nobody asks here: the size of a token bounds it.
"""

from __future__ import annotations

from typing import Any

from captoken._format import names, primitives
from captoken._format.encoding import MAX_INTEGER, EncodingError, b64decode
from captoken._format.spelling import shown


def a_list(value: Any, what: str) -> list[Any]:
    # By exact types: a subclass may iterate and compare as it likes.
    """A JSON list, whatever is in it. A tuple is none: links hold what JSON gave.

    Raises TypeError. An empty list is legal here, and permits nothing where it is used.
    """
    if type(value) is not list:
        raise TypeError(f'{what} must be a list, like ["one", "two"], not {type(value).__name__}')
    return value


def an_object(value: Any, what: str, like: str = "") -> dict[str, Any]:
    """A JSON object, whatever is in it. May be empty.

    `like` goes behind the message, to show what was expected.
    """
    if type(value) is not dict:
        raise TypeError(f"{what} must be a mapping, not {type(value).__name__}{like}")
    return value


def not_empty(value: dict[str, Any], what: str) -> dict[str, Any]:
    """An object with a key. Raises ValueError otherwise.

    What would say nothing is unreadable (spec 17.5). Nobody then takes it for a restriction.
    What permits nothing, as an empty list of tables does, is another thing and legal.
    """
    if not value:
        raise ValueError(f"{what} is empty: leave it out")
    return value


def an_integer(value: Any, what: str) -> int:
    """An integer of any size. By exact type, since in Python True is one too (spec 13.3).

    an_integer(True, "uses")    # TypeError
    an_integer(1.0, "uses")     # TypeError
    """
    if type(value) is not int:
        raise TypeError(f"{what} must be an integer, not {type(value).__name__}")
    return value


def a_bounded_integer(value: Any, what: str) -> int:
    """An integer that every JSON reader reads alike: of magnitude below 2^53 (spec 2.1).

    Beyond it, readers that keep numbers as doubles round, and two of them would disagree. Links
    have been through `decode_json` by then, which refuses such integers too. Writers have not.

    Raises TypeError or ValueError. A sign is not looked at: callers that count say so themselves.
    """
    if not -MAX_INTEGER <= an_integer(value, what) <= MAX_INTEGER:
        raise ValueError(f"{what} {shown(value)} is of magnitude 2^53 or more")
    return int(value)


def a_signing_key(value: Any, what: str) -> bytes:
    """An Ed25519 public key, as base64url (spec 28.1).

    A key of low order would accept signatures that nobody made with a secret. Whether it is a point
    of the curve is not asked: that needs libsodium, and a key that is none verifies nothing.
    """
    try:
        key = b64decode(names.exact_str(value, what))
    except EncodingError:
        raise ValueError(f"{what} must be a public key, as 43 characters of base64url") from None
    if not primitives.is_signing_key(key):
        raise ValueError(f"{what} must be an Ed25519 key, canonical and not of low order")
    return key
