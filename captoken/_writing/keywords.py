"""What a holder may write: the keywords of a link, and the check that a new link does not ask for more than is held.

Needs no key. The check is for the one who narrows, who should learn of a mistake now and not from a denial; it is not
what makes narrowing safe. Verifiers ask every link, so a link that asks for more gains nothing (spec, "Widening").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeAlias, TypedDict

from captoken._format.clocks import Clock, Moment, Seconds, epoch_seconds, read_clock
from captoken._format.encoding import EncodingError, encode_json
from captoken._format.spelling import shown
from captoken._language.caveats import Caveat, Vocabulary, write

Strings: TypeAlias = "Sequence[str] | set[str] | frozenset[str]"


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET = _Unset()


class Restrictions(TypedDict, total=False):
    """The caveats as keywords, the same for every method that writes a link (spec, "Caveats").

    `expires_in`, `expires_at`, `not_before` and `audience` are the friendly names of `exp`, `nbf` and `aud`.
    `expires_in` means "at most" and is cut to what is held; `expires_at` is a statement. Caveats of an embedding
    project go by their key: `**{"acme:region": ["eu"]}`.
    """

    tables: Strings
    operations: Strings
    allow: Mapping[str, Strings]
    columns: Mapping[str, Strings]
    tools: Mapping[str, Mapping[str, Mapping[str, Any]]]
    where: Mapping[str, Mapping[str, Any]]
    uses: int
    budget: Mapping[str, int]
    fresh: int
    not_before: Moment
    depth: int
    delegate_only: bool


class MintCaveats(Restrictions, total=False):
    """For `mint`, where the task is the root record's, and None says that there is no expiry."""

    expires_in: Seconds
    expires_at: Moment | None
    audience: str | Strings


class LinkCaveats(Restrictions, total=False):
    """For `attenuate` and `delegate`."""

    expires_in: Seconds
    expires_at: Moment
    audience: str | Strings
    task: str


class PresentCaveats(Restrictions, total=False):
    """For `present`, which takes the audience and the expiry itself."""

    task: str


DATA = ("tables", "operations", "allow", "columns")
_FRIENDLY = frozenset(("expires_in", "expires_at", "not_before", "audience"))
_PLAIN = frozenset((*DATA, "tools", "where", "task", "uses", "budget", "fresh"))
COUNTED = frozenset(
    ("uses", "budget")
)  # they go with a nonce, so that two equal links are two allowances
_POSITION = frozenset(("depth", "delegate_only"))
_KEYWORDS = _FRIENDLY | _PLAIN | _POSITION


def _seconds(given: Any) -> int:
    seconds = given.total_seconds() // 1 if isinstance(given, timedelta) else given
    if type(given) is not int and not isinstance(given, timedelta):
        raise TypeError(
            f"expires_in must be seconds as int, or a timedelta, not {type(given).__name__}"
        )
    if seconds < 1:
        raise ValueError("expires_in must be at least one second")
    return int(seconds)


def asked(
    given: Mapping[str, Any], vocabulary: Vocabulary, clock: Clock, held_until: int | None
) -> dict[str, Caveat]:
    """The caveats about accesses that keywords ask for, by key. Raises TypeError or ValueError for a bad one."""
    made: dict[str, Caveat] = {}
    for keyword, value in given.items():
        if value is UNSET or keyword in _POSITION:
            continue
        if value is None:
            raise TypeError(f"{keyword} must not be None; leave it out")
        if keyword in _FRIENDLY:
            key, value = _translated(keyword, value, clock, held_until)
        else:
            known(keyword, vocabulary)
            key = keyword
        if key in made:
            raise ValueError("expires_in and expires_at say the same thing twice")
        made[key] = write(key, value, vocabulary)
    return made


def known(keyword: str, vocabulary: Vocabulary) -> None:
    """Raise TypeError for a keyword that is no caveat."""
    if keyword not in _KEYWORDS and not (":" in keyword and keyword in vocabulary.kinds):
        words = ", ".join(sorted(_KEYWORDS))
        raise TypeError(
            f"no caveat is called {keyword!r}: {words}, or the key of a caveat in the vocabulary"
        )


def _translated(keyword: str, value: Any, clock: Clock, held_until: int | None) -> tuple[str, Any]:
    if keyword == "expires_in":
        until = read_clock(clock) + _seconds(value)
        return "exp", until if held_until is None else min(until, held_until)
    if keyword == "expires_at":
        return "exp", epoch_seconds(value, keyword)
    if keyword == "not_before":
        return "nbf", epoch_seconds(value, keyword)
    return "aud", [value] if type(value) is str else value


def kept(keep: Any, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The caveats that keep a domain open which the link `stated` would close by naming only the other.

    Raises ValueError for a link that names neither: it closes nothing, and what is written to keep one would.
    """
    made: dict[str, Any] = {}
    for caveat in [keep] if type(keep) is str else keep:
        if caveat not in ("tables", "tools"):
            raise ValueError(f"keep takes 'tables' and 'tools', not {shown(caveat)}")
        if stated.keys().isdisjoint((*DATA, "tools")):
            raise ValueError(f"keep={caveat!r} goes with a link that names tables or tools")
        made[caveat] = ["*"] if caveat == "tables" else {"*": {}}
    return made


def position(given: Mapping[str, Any]) -> dict[str, Any]:
    """`depth` and `delegate_only` as keywords ask for them. Raises TypeError or ValueError."""
    depth, delegate_only = given.get("depth", UNSET), given.get("delegate_only", UNSET)
    made: dict[str, Any] = {}
    if depth is not UNSET:
        if type(depth) is not int:
            raise TypeError(f"depth must be an int, not {type(depth).__name__}")
        if depth < 0:
            raise ValueError("depth must not be negative")
        made["depth"] = depth
    if delegate_only is not UNSET:
        if type(delegate_only) is not bool:
            raise TypeError(f"delegate_only must be True, not {type(delegate_only).__name__}")
        made["delegate_only"] = delegate_only
    return made


def spell(stated: Mapping[str, Any]) -> bytes:
    """The bytes of a link. Raises ValueError for one that says nothing."""
    if not stated:
        raise ValueError("a link must restrict something")
    try:
        return encode_json(stated)
    except EncodingError as error:
        raise ValueError(str(error)) from None
