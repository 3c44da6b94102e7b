"""Links and capabilities in words, for people.

What a caveat says, its own class says, and names and times are spelled by
`captoken._format.spelling`: all comes out escaped, each line on one line. Here is only what a link
says besides its caveats, and in which order. For a link that narrows and hands on:

    select on sales
    until 2030-01-31 12:00:00Z, 5m left
    at most 1 more delegation
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from captoken._format.spelling import escape, spelled, until
from captoken._language.capability import Capability
from captoken._language.caveats import ASKING, BUILT_IN, MARKING, RIGHTS, Caveat
from captoken.audit.analysis import Hop

# The keys of all caveats of the specification. Those of a vocabulary of one's own have no words.
_ALL = frozenset(kind.key for kind in BUILT_IN)
_RULES = tuple(kind.key for kind in BUILT_IN if kind.key in MARKING | ASKING)


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number of things: `1 link`, `2 links`. `many`, where that is not `one` with an s."""
    return f"1 {one}" if count == 1 else f"{count} {many or one + 's'}"


def ends(expires_at: int | None, now: int) -> str:
    """When a token ends, seen from now."""
    return "never expires" if expires_at is None else f"until {until(expires_at, now)}"


def of_caveats(
    caveats: Iterable[Caveat],
    now: int,
    keys: Collection[str] = _ALL,
) -> Iterator[str]:
    """The caveats of a link in lines, in the order of the specification; those of `keys` alone.

    In an order of its own, so that two links that say the same look the same. Own kinds of caveats
    have no words, and are left out.
    """
    # Some words turn on what stands beside them: tables say their operations in one line.
    beside = {caveat.key: caveat for caveat in caveats}
    for kind in BUILT_IN:
        caveat = beside.get(kind.key)
        if isinstance(caveat, kind) and kind.key in keys:
            yield from caveat.words(now, beside)


def of_position(depth: int | None, delegate_only: bool) -> Iterator[str]:
    """What a link says about those that come after it.

    `depth` is how many more delegations it permits, None for any number.
    """
    if depth == 0:
        yield "not to be delegated further"
    elif depth is not None:
        yield f"at most {counted(depth, 'more delegation')}"
    if delegate_only:
        yield "for handing on, not for use"


def of_stated(
    stated: Mapping[str, Any],
    now: int,
    keys: Collection[str] = _ALL,
) -> list[str]:
    """Caveats in lines, from their spelling in a link. Own ones are left out.

    Raises what the classes of caveats raise for a value that is none.
    """
    wanted = stated.keys() & keys
    caveats = [kind(stated[kind.key]) for kind in BUILT_IN if kind.key in wanted]
    return list(of_caveats(caveats, now))


def of_rights(stated: Mapping[str, Any], now: int) -> list[str]:
    """Which accesses a capability permits, in lines, and not for how long or how often.

    No line at all: any access. What several links leave together may be more than one link can
    say, a long list of urls: that is shown as it is spelled.
    """
    return _of_several(stated, now, RIGHTS)


def of_rules(stated: Mapping[str, Any], now: int) -> list[str]:
    """A capability's marks in lines, what must not follow on them, and what needs a consent."""
    return _of_several(stated, now, _RULES)


def _of_several(stated: Mapping[str, Any], now: int, keys: Collection[str]) -> list[str]:
    """What several links leave together, in lines; as it is spelled where no link can say it."""
    try:
        return of_stated(stated, now, keys)
    except ValueError:
        return [f"{key} {spelled(stated[key])}" for key in keys if key in stated]


def plain(text: str) -> str:
    """A name of a stranger for people: ASCII, so that no letter is taken for another."""
    return escape(text).encode("ascii", "backslashreplace").decode()


def may(hop: Hop, now: int, left: Capability | None = None) -> list[str]:
    """What a hop permits, in words; or what is left of it, where an overlay takes away."""
    capability = hop.capability if left is None else left
    if left is not None and left.nothing:
        return ["nothing"]
    stated = capability.json()
    said = of_rights(stated, now) or ["any access"]
    said += of_rules(stated, now)
    if "aud" in stated:
        said.append("only at " + ", ".join(stated["aud"]))
    if hop.asks:
        said.append("if a third party answers")
    if hop.unknown:
        said.append("and caveats of its own: " + ", ".join(hop.unknown))
    return [plain(line) for line in said]
