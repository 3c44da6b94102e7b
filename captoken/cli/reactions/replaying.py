"""What rules would have done on a trail that is there: when, to whom, and whom else it hits.

Nobody should turn on a rule that was not seen at work. So the trails are followed twice: once for
the causes, as a reactor finds them, and once for the later calls that come under what the rules
would have done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from captoken._format import names
from captoken._format.shapes import fit
from captoken.cli.console.following import Batch, Follower
from captoken.cli.console.tables import TRAILS, Layout, Place
from captoken.cli.reactions.rules import Seen
from captoken.cli.reactions.stated import Rules
from captoken.cli.reactions.watching import ACTS, Cause, Reactor
from captoken.stores._schema import Schema

_MOST_LINKS = 200_000  # tokens of which the hand-overs are remembered


class Replayed(NamedTuple):
    """A cause, and how many later calls that were allowed come under what the rule does, by agent.
    """

    cause: Cause
    later: dict[str, int]


class Replay(NamedTuple):
    """What rules would have done, and what is wrong with the trails."""

    causes: list[Replayed]
    troubles: list[str]
    decisions: int


def replay(rules: Rules, trails: Iterable[str]) -> Replay:
    """Work it out. Nothing is done, and nobody is told."""
    sources = list(trails)
    reactor = Reactor(":memory:", sources, rules, None)
    try:
        reactor.take()
        causes = [one.cause for one in reactor.causes()]
        troubles = [f"{one.name}: {one.trouble}" for one in reactor.trails() if one.trouble]
    finally:
        reactor.close()
    lasts = {rule.name: rule.lasts for rule in rules.rules}
    causes = list(_without_repeats(causes, lasts))
    watched = [cause for cause in causes if cause.does in ACTS]
    looking = _Looking(":memory:", sources, watched, lasts)
    try:
        looking.take()
    finally:
        looking.close()
    found = [Replayed(cause, dict(looking.later.get(cause.id, {}))) for cause in causes]
    return Replay(found, troubles, looking.decisions)


def _without_repeats(
    causes: Iterable[Cause], lasts: Mapping[str, int | None]
) -> Iterator[Cause]:
    """Without those that come while what the rule did to the same ones would still stand."""
    until: dict[tuple[str, ...], float] = {}
    for cause in causes:
        which = (cause.rule, *cause.select.values())
        if cause.does in ACTS:
            if cause.at < until.get(which, float("-inf")):
                continue
            until[which] = cause.at + (lasts.get(cause.rule) or float("inf"))
        yield cause


class _Looking(Follower):
    """Follows the trails again, for what comes under the causes."""

    _layout: ClassVar[Layout] = Layout(Schema("replay", ()), TRAILS, "a replay")

    def __init__(
        self,
        path: str,
        trails: Iterable[str],
        causes: list[Cause],
        lasts: dict[str, int | None],
    ) -> None:
        self.later: dict[str, Counter[str]] = {}
        self.decisions = 0
        self._causes = causes
        self._lasts = lasts
        self._through: dict[str, frozenset[str]] = {}
        super().__init__(path, trails)

    def _batch(self) -> Batch:
        return self

    def write(self, trail: int) -> None:
        """Nothing is kept."""

    def add(self, place: Place, record: dict[str, Any]) -> None:
        """Count a record with each cause that it comes under."""
        if record["kind"] == "token":
            ids = [link["id"] for link in record["links"]]
            self._through[ids[-1]] = frozenset(ids)
            if len(self._through) > _MOST_LINKS:
                del self._through[next(iter(self._through))]
        elif record["kind"] == "decision":
            self.decisions += 1
            if "token" in record:
                self._look(fit(record, Seen))

    def _look(self, seen: Seen) -> None:
        for cause in self._under(seen) if seen.allowed else ():
            self.later.setdefault(cause.id, Counter())[seen.holder] += 1

    def _under(self, seen: Seen) -> Iterator[Cause]:
        links = self._through.get(seen.link or "", frozenset((seen.link or "",)))
        holders = {actor.name for actor in seen.chain}
        for cause in self._causes:
            lasts = self._lasts.get(cause.rule)
            ends = lasts is not None and seen.at >= cause.at + lasts
            if seen.at < cause.at or ends or (seen.at == cause.at and seen.seq <= cause.seq):
                continue
            on = cause.select
            if (
                on.get("link", seen.link) in links | {seen.link}
                and on.get("token", seen.token) == seen.token
                and names.at_or_below(seen.task, on.get("task", seen.task))
                and on.get("subject", seen.sub) == seen.sub
                and (on.get("agent") is None or on["agent"] in holders)
            ):
                yield cause
