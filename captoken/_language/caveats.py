"""The caveats that are known: those of version 1, and own ones in a vocabulary (spec, "Caveats").

The classes of version 1 are in `data`, `tool` and `conditions`; what such a class says is in
`kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from captoken._format import names
from captoken._format.encoding import decode_json, encode_json
from captoken._format.sealed import Sealed
from captoken._format.spelling import named, shown
from captoken._language.conditions import (
    Audience,
    Budget,
    Consent,
    Expires,
    Forbid,
    Fresh,
    Marks,
    NotBefore,
    Task,
    Uses,
    Where,
)
from captoken._language.data import Allowances, Columns, Operations, Rows, Tables
from captoken._language.kinds import BuiltIn, Caveat, Situation, prohibited
from captoken._language.tool import Tools

__all__ = [
    "ASKING",
    "BUILT_IN",
    "COUNTED",
    "EARLY",
    "IS_ASKED",
    "IS_COUNTED",
    "IS_EARLY",
    "IS_FOR_LATER",
    "IS_HAND_OVER",
    "MARKING",
    "NARROWING",
    "NARROWS",
    "RESERVED",
    "RIGHTS",
    "SPEAKS_OF_DATA",
    "SPEAKS_OF_TOOLS",
    "V1",
    "BuiltIn",
    "Caveat",
    "Situation",
    "Vocabulary",
    "is_own",
    "prohibited",
    "write",
]

# The caveats of version 1, in the order in which they are checked, spelled and told.
BUILT_IN: tuple[type[BuiltIn], ...] = (
    Tables,
    Operations,
    Allowances,
    Columns,
    Rows,
    Tools,
    Where,
    Expires,
    NotBefore,
    Task,
    Audience,
    Uses,
    Budget,
    Marks,
    Forbid,
    Consent,
    Fresh,
)

# Those that look at the token and the server alone, and never at the access: aud, exp, fresh, nbf,
# task. A caveat of an embedder's is never early: what it costs to ask is not known here.
EARLY = frozenset(kind.key for kind in BUILT_IN if not kind.asks_access)
COUNTED = frozenset(kind.key for kind in BUILT_IN if kind.counts)
# Of these, those that count nothing: a ledger only keeps what was done. Said of a task as a whole,
# they may go to several servers, and into entries of the overlay.
MARKING = frozenset(("marks", "forbid"))
RESERVED = COUNTED - MARKING
# Answered by what stands behind one token, so in a link of its own chain alone.
ASKING = frozenset(("consent",))
NARROWING = frozenset(kind.key for kind in BUILT_IN if kind.narrows_situation)
# Those that say which accesses, and not how long, for whom or how often.
RIGHTS = tuple(
    kind.key
    for kind in BUILT_IN
    if kind.asks_access and not kind.counts and kind.key not in ASKING
)


# What a caveat in a link says of the link as a whole: see `Vocabulary.grammar`.
IS_EARLY = 1
SPEAKS_OF_DATA = 2
SPEAKS_OF_TOOLS = 4
IS_COUNTED = 8
NARROWS = 16
IS_ASKED = 128  # a person is asked
# What is no caveat, since a link's position in the chain decides it.
IS_HAND_OVER = 32
IS_FOR_LATER = 64  # what is asked of later links
POSITION = {
    "from": IS_HAND_OVER,
    "to": IS_HAND_OVER,
    "n": IS_HAND_OVER,
    "depth": IS_FOR_LATER,
    "delegate_only": IS_FOR_LATER,
    "key": IS_FOR_LATER,
}


def _traits(kind: type[Caveat]) -> int:
    traits = {"all": 0, "data": SPEAKS_OF_DATA, "tool": SPEAKS_OF_TOOLS}[kind.domain]
    if kind.key in EARLY:
        traits |= IS_EARLY
    if kind.key in COUNTED:
        traits |= IS_COUNTED
    if kind.key in ASKING:
        traits |= IS_ASKED
    if kind.key in NARROWING:
        traits |= NARROWS
    return traits


def is_own(key: str) -> bool:
    """Is it the key of a caveat of an embedder's? All other keys are reserved."""
    return ":" in key


# --- the vocabulary -------------------------------------------------------------------------------


class Vocabulary(Sealed):
    """The caveats that an issuer, a holder or a verifier knows: those of version 1, and own ones.

    Own ones are given as classes. Immutable; passed as a value to `Issuer`, `Token.parse` and
    `Verifier`. Raises TypeError or ValueError for a class that is no Caveat, or whose `key` is not
    namespaced or is taken.
    """

    __slots__ = ("grammar", "kinds")
    _instead = "make it of its classes where it is needed"

    kinds: Mapping[str, type[Caveat]]
    grammar: Mapping[str, tuple[type[Caveat] | None, int]]  # of a link: each key's class and traits

    def __init__(self, *own: type[Caveat]) -> None:
        kinds: dict[str, type[Caveat]] = {kind.key: kind for kind in BUILT_IN}
        for kind in own:
            if not (isinstance(kind, type) and issubclass(kind, Caveat)):
                raise TypeError(
                    f"{shown(kind)} is not a subclass of Caveat: give Vocabulary(…) the class "
                    "itself"
                )
            if names.namespaced(kind.key, "key") in kinds:
                raise ValueError(
                    f"two caveats have the key {kind.key}: a vocabulary needs one class for each"
                )
            if kind.domain not in ("data", "tool", "all"):
                domain = shown(kind.domain)
                raise ValueError(
                    f"{kind.key} has the domain {domain}: it must be data, tool or all"
                )
            kinds[kind.key] = kind
        grammar: dict[str, Any] = {key: (kind, _traits(kind)) for key, kind in kinds.items()}
        grammar.update((key, (None, traits)) for key, traits in POSITION.items())
        self._fill(kinds=MappingProxyType(kinds), grammar=grammar)

    def __repr__(self) -> str:
        own = sorted(filter(is_own, self.kinds))
        return f"<Vocabulary {', '.join(own) or 'of version 1'}>"


V1 = Vocabulary()


# --- writing --------------------------------------------------------------------------------------


def write(key: str, given: Any, vocabulary: Vocabulary) -> Caveat:
    """The caveat that `given` asks for, tidied and checked as writers must.

    Raises TypeError or ValueError.
    """
    try:
        if is_own(key):  # an embedder's lists keep their order
            value = decode_json(encode_json({key: given}))[key]
        else:
            value = _tidy_rules(given) if key in _OF_RULES else _tidy(given)
    except RecursionError:
        raise ValueError(f"{key} is nested too deeply") from None
    except TypeError as error:
        where = _place(_tidy, given)
        place = f"{key}, at {where}," if where else key
        raise TypeError(f"{place} must be {error}") from None
    kind = vocabulary.kinds[key]
    try:
        caveat = kind(value)
    except (TypeError, ValueError) as error:
        where = "" if is_own(key) else _place(kind, value)
        if not where or where in str(error):
            raise
        if isinstance(error, TypeError):
            raise TypeError(f"{key}, at {where}: {error}") from None
        raise ValueError(f"{key}, at {where}: {error}") from None
    names.composed(value)
    return caveat


def _place(kind: Callable[[Any], object], value: Any) -> str:
    """The one entry of a map that a caveat does not take, by name: `pay.cents`. Else empty.

    Asked for an error alone, and of two levels: a pattern, and what stands in it by name.
    """
    for name, inside in _entries(value):
        if _takes(kind, {name: inside}):
            continue
        bad = [part for part, one in _entries(inside) if not _takes(kind, {name: {part: one}})]
        return f"{named(name)}.{named(bad[0])}" if bad else named(name)
    return ""


def _entries(value: Any) -> list[tuple[str, Any]]:
    """What stands in a map by name."""
    entries = value.items() if type(value) is dict else ()
    return [(name, inside) for name, inside in entries if type(name) is str]


def _takes(kind: Callable[[Any], object], value: Any) -> bool:
    try:
        kind(value)
    except (TypeError, ValueError):
        return False
    return True


_SCALARS = frozenset((str, int, bool))
_STRINGS = frozenset((str,))


def _tidy(given: Any) -> Any:
    """A JSON copy with its lists sorted, none repeating: in version 1 every list is a set."""
    if type(given) in _SCALARS:
        return given
    if isinstance(given, (list, tuple, set, frozenset)):
        items = list(given)  # read once: a subclass may say two things
        if set(map(type, items)) <= _STRINGS:  # nearly always
            return sorted(set(items))
        tidied = dict.fromkeys(map(_listed, items))
        return [item for _, item in sorted(tidied)]
    if isinstance(given, Mapping):
        return {_tidy(key): _tidy(value) for key, value in given.items()}
    kind = type(given).__name__  # a subclass of str may compare and print as it likes
    if kind == "float":
        raise TypeError(
            "made of str, int, bool, lists and mappings, not of float: numbers are whole, so count "
            "cents, say"
        )
    raise TypeError(f"made of str, int, bool, lists and mappings, not of {kind}")


_OF_RULES = frozenset(("forbid", "consent"))


def _tidy_rules(given: Any) -> Any:
    """The entries of `forbid` or `consent`: each tidied, in the order of their spelling, once."""
    if not isinstance(given, (list, tuple)):
        return _tidy(given)
    made = {encode_json(rule): rule for rule in map(_tidy, given)}
    return [made[spelled] for spelled in sorted(made)]


def _listed(item: Any) -> tuple[str, Any]:
    """An item of a list with its type, by which it is sorted. Raises TypeError for no scalar.

    In version 1 a list holds scalars alone: two lists or mappings have no order.
    """
    made = _tidy(item)
    kind = type(item).__name__
    if type(made) not in _SCALARS:
        raise TypeError(f"made of lists that hold str, int and bool, not {kind}")
    return kind, made
