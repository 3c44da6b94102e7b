"""The keywords that writers use, typed once, and how they are read into caveats (spec, "Caveats").

Most keywords are the key of a caveat. What its class calls otherwise, as `expires_in` for `exp`, it
also reads. `depth` and `delegate_only` are no caveats: they go by a link's position in the chain.

The rules of this file:

- No kind of caveat is named here but where its type is stated. How a keyword is read, its class
  says; so a new caveat is one class, and one line here for type checkers.
- Nothing is checked against what is held: that is `widening.py`.
- No keyword is passed over: one that is not known is an error, never a caveat less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

from captoken._format.clocks import Moment, Seconds
from captoken._format.spelling import shown
from captoken._language.access import amount
from captoken._language.caveats import ASKING, BUILT_IN, COUNTED, Vocabulary, is_own, write
from captoken._language.kinds import Caveat, LookUp, Reading
from captoken._language.patterns import contains

Strings: TypeAlias = Sequence[str] | set[str] | frozenset[str]


class _Unset:
    """What a keyword has that was not given: neither None nor anything that is written.

    So None can be refused: it might be meant as "no limit".
    """

    def __repr__(self) -> str:
        """As it stands in signatures, for help and editors."""
        return "UNSET"


UNSET = _Unset()


class Restrictions(TypedDict, total=False):
    """The caveats as keywords, the same for every method that writes a link (spec, "Caveats").

    `expires_in`, `expires_at`, `not_before` and `audience` are the friendly names of `exp`, `nbf`
    and `aud`. `expires_in` means "at most" and is cut to what is held; `expires_at` is a statement
    (23.11). Caveats of an embedding project go by their key: `**{"acme:region": ["eu"]}`.
    """

    tables: Strings
    """Patterns of the tables that may be touched: `sales`, `market.*`, `*`."""
    operations: Strings
    """What may be done to them: `select`, `insert`."""
    allow: Mapping[str, Strings]
    """Maps a pattern of tables to operations. It replaces the two above."""
    columns: Mapping[str, Strings]
    """Maps a pattern of tables to columns."""
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Maps a pattern of tables to a constraint for each column. `{}` allows all rows."""

    tools: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """By pattern of a tool, a constraint for each argument; `{}` leaves the arguments free.

    `{"max": 5}` is 0 to 5, unless what is held says another `min` (13.6).
    """

    where: Mapping[str, Mapping[str, Any]]
    """A constraint for each attribute that the server states of a request."""

    uses: int
    """How many calls, counted by a ledger."""
    budget: Mapping[str, int]
    """By unit, how much may be spent, in whole units: `{"usd_cents": 500}`. A ledger counts it."""

    marks: Mapping[str, Mapping[str, Any]]
    """By name, which accesses are in the mark: `{"private": {"tables": ["crm.*"]}}`."""
    forbid: Sequence[Mapping[str, Any]]
    """Rules: `[{"in": ["outside"], "after": ["private"]}]`. A ledger knows what is set."""
    consent: Sequence[Mapping[str, Any]]
    """A person's yes to each call: `[{"by": "<public key>", "for": {"tools": ["mail.send"]}}]`."""

    fresh: int
    """How many seconds old an overlay may be."""
    not_before: Moment
    """When it begins."""

    depth: int
    """How many hand-overs may follow."""
    delegate_only: bool
    """True: it is for handing on, and not for use."""


class MintCaveats(Restrictions, total=False):
    """For `mint`: the task is the root record's, and None says that there is no expiry (22.3)."""

    expires_in: Seconds
    """How long it is good: seconds, or text as `"15m"`. 900 seconds if no end is said."""
    expires_at: Moment | None
    """When it ends. None says aloud: never."""
    audience: str | Strings
    """The servers that take it, by name."""


class LinkCaveats(Restrictions, total=False):
    """For `attenuate` and `delegate`.

    What is left out stays as it is held: a new link never has to repeat the ones before.
    """

    expires_in: Seconds
    """How long it is good, at most: seconds, or text as `"15m"`. Cut to what is held."""
    expires_at: Moment
    """When it ends, as a statement: more than is held is a WideningError."""
    audience: str | Strings
    """The servers that take it, by name, of those that are left."""
    task: str
    """A task at or below the token's."""


class PresentCaveats(Restrictions, total=False):
    """For `present`, which takes the audience and the expiry itself (23.17)."""

    task: str
    """A task at or below the token's."""


# What goes by a link's place in the chain, and is no caveat (spec, "Lineage").
POSITION = (
    "depth",
    "delegate_only",
)

# What says something of the token itself, and not of the request at hand: a discharge and an
# operator's entry have none of these.
OF_THE_TOKEN = frozenset(
    (
        "task",
        *COUNTED,
        *ASKING,
        *POSITION,
    )
)


def _as_given(
    given: Any,
    now: Callable[[], int],
    look_up: LookUp,
) -> Any:
    """The value as it was given, for a keyword that its class does not read in a way of its own.

    Checks nothing: the class of the caveat does, when it is made.
    """
    return given


def _readings() -> dict[str, tuple[str, Reading]]:
    """For each keyword the key of the caveat that it is for, and how its value is read.

    Gathered once, from the classes of the caveats. `expires_in` and `expires_at` are two keywords
    of one caveat, so that a key can stand here twice.
    """
    made: dict[str, tuple[str, Reading]] = {}
    for kind in BUILT_IN:
        # A class without keywords of its own is written by its key, as it stands.
        readings = kind.keywords or {kind.key: _as_given}
        for keyword, reading in readings.items():
            made[keyword] = (kind.key, reading)
    return made


_READINGS = _readings()
# All that writers may say, but for own caveats, which a vocabulary brings.
_KEYWORDS = frozenset((*_READINGS, *POSITION))


def check_known(keywords: Mapping[str, Any], vocabulary: Vocabulary) -> None:
    """Raise TypeError for a keyword that is no caveat.

    Before anything is read: a misspelled `tables` must not give a token without it. Values are not
    looked at. Own caveats are known by their key, if the vocabulary has them.
    """
    if _KEYWORDS.issuperset(keywords):  # nearly always
        return
    for keyword in keywords:
        own = is_own(keyword) and keyword in vocabulary.kinds
        known = own or keyword in _KEYWORDS
        if not known:
            raise _unknown(keyword)
        # Whether two keywords say the same thing, `caveats_of` asks.


def _unknown(keyword: str) -> TypeError:
    """What is raised for a keyword that is no caveat: the one that was meant, and all there are."""
    from difflib import get_close_matches  # here, since nobody else needs it

    words = ", ".join(sorted(_KEYWORDS))
    close = get_close_matches(keyword, sorted(_KEYWORDS), 1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return TypeError(
        f"there is no caveat {shown(keyword)}{meant}: write {words}, or the key of a caveat in the "
        "vocabulary"
    )


def caveats_of(
    given: Mapping[str, Any],
    vocabulary: Vocabulary,
    now: Callable[[], int],
    look_up: LookUp,
) -> dict[str, Caveat]:
    """The caveats that keywords ask for, by key. Raises TypeError or ValueError for a bad one.

    `now` gives seconds since the epoch, `look_up` what the token can do so far. Both are asked
    only where a keyword needs it: `expires_in` is cut to what is held, and a `max` alone completed
    by its `min`. Whether the rest is held is not asked here.

        caveats_of({"tables": ["sales"], "uses": 5}, V1, now, look_up)
        # {"tables": Tables(["sales"]), "uses": Uses(5)}
    """
    made: dict[str, Caveat] = {}
    for keyword, value in given.items():
        # What goes by position is no caveat: `position_of` reads it.
        if value is UNSET or keyword in POSITION:
            continue

        # None could be meant as "no limit": nobody may widen by what looks like leaving out.
        if value is None:
            raise TypeError(f"{keyword} must not be None; leave it out")

        # An own caveat has no reading: it is given as JSON under its key.
        key, reading = _READINGS.get(keyword, (keyword, _as_given))
        if key in made:
            raise ValueError("pass expires_in or expires_at, not both")

        made[key] = write(key, reading(value, now, look_up), vocabulary)
        if key == "columns":
            _refuse_exclusions(made[key].value)
    return made


def _refuse_exclusions(columns: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError for a column like `!email`, which looks like an exclusion.

    A token may name such a column (spec 4.4), and it excludes none. So nobody writes it by mistake.
    """
    for listed in columns.values():
        for column in listed:
            if column.startswith("!"):
                raise ValueError(
                    f"column {shown(column)}: a token cannot exclude columns, and `!` has no "
                    "meaning here; list the columns that are allowed"
                )


def position_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """`depth` and `delegate_only` as keywords ask for them.

    `depth` counts hand-overs, from 0. Whether as many are left
    is not asked here: `widening.positioned` does. Raises TypeError or ValueError.
    """
    made: dict[str, Any] = {}
    depth = given.get("depth", UNSET)
    if depth is not UNSET:
        made["depth"] = amount(depth, "depth")

    delegate_only = given.get("delegate_only", UNSET)
    if delegate_only is not UNSET:
        # Compare the exact type, because a text like "no" is true in Python.
        if type(delegate_only) is not bool:
            raise TypeError(f"delegate_only must be True, not {type(delegate_only).__name__}")
        made["delegate_only"] = delegate_only

    return made


def restricts_nothing(given: Mapping[str, Any]) -> Iterator[str]:
    """In words, what a restriction is for that is not among the tables or tools named beside it.

    Such an entry restricts nothing: it is misspelt, most likely. Beside no named tables there is no
    such table, and beside no named tools no such tool. Marks are not looked at: they may be of what
    other tokens of the task can do. `given` is well-formed.
    """
    if given.keys().isdisjoint(("columns", "rows", "consent")):
        return
    stated = {keyword: value for keyword, value in given.items() if value is not UNSET}
    entries: list[tuple[str, str, Iterable[str]]] = [
        (keyword, "tables", stated.get(keyword, ())) for keyword in ("columns", "rows")
    ]
    for one in stated.get("consent", ()):
        of = one.get("for", {})
        entries += (("consent", domain, of.get(domain, ())) for domain in ("tables", "tools"))

    for keyword, domain, patterns in entries:
        named = [*stated.get(domain, ())]
        if domain == "tables":
            named += stated.get("allow", ())
        for pattern in patterns if named else ():
            # Patterns are nested or disjoint.
            if not any(contains(one, pattern) or contains(pattern, one) for one in named):
                yield f"{keyword} names {shown(pattern)}, which is not among the {domain}"
