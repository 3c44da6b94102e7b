"""What every server does at the bucket, without its verifier: when it looks, what it asks for, and what it knows then.

The rules are those of `Feed` and of `BucketSnapshots`:

- A look is made by the first call after it is due. It is due `every` whole seconds after the one before, by the feed's clock.
- It asks for the head. If that is new, and what is new is not all in it, it asks for pages, from the newest on.
- One that fails changes nothing, and the next one comes when it is due.
- An overlay that is older than the bound by a second denies all.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from math import floor
from typing import NamedTuple

from examples.object_storage import INLINE

from .network import OVERHEAD
from .plan import Plan, latency
from .publishing import Ended, Published, Version


class Look(NamedTuple):
    """One look at the bucket."""

    begun: float
    done: float
    due: float  # from when on a call looks again
    version: int  # the number of the head that is known then; -1 is that nothing came
    bytes: int
    requests: int

    @property
    def failed(self) -> bool:
        return self.version < 0


class Server(NamedTuple):
    """Who looks: where it stands, when it starts, and how its feed's clock is off."""

    number: int
    region: str
    round_trip: float
    starts: float
    offset: float  # seconds: spreads the looks over each second

    def is_cut(self, plan: Plan, at: float) -> bool:
        return self.region == plan.cut_region and at in plan.cut


def server_of(plan: Plan, number: int, spread: bool = True) -> Server:
    region, source = plan.region_of(number), plan.drawn("server", number)
    starts, offset = source.uniform(0, plan.rollout), source.random()
    return Server(number, region.name, region.round_trip, starts, offset if spread else 0.0)


def looks(plan: Plan, server: Server, versions: list[Version], rate: float, until: float) -> Iterator[Look]:
    """Each look of a server, in their order."""
    calls, network = plan.drawn("looks", server.number), plan.drawn("network", server.number)
    now, number, known = server.starts, 0, -1
    last = len(versions) - 1
    while True:
        now += calls.expovariate(rate)
        if now >= until:
            return
        begun = now
        # A feed keeps the whole second in which it looked, by its own clock.
        due = floor(begun + server.offset) + plan.every - server.offset
        if server.is_cut(plan, begun):
            yield Look(begun, begun, due, -1, 0, 0)
            now = max(due, begun)
            continue

        half = latency(network, server.round_trip) / 2
        at = begun + half
        while number < last and versions[number + 1].at <= at:
            number += 1
        done, size, requests = at + half, OVERHEAD, 1
        version = versions[number]
        if number != known:
            size += version.size
            more = _further(version, None if known < 0 else versions[known])
            for body in more:
                half = latency(network, server.round_trip) / 2
                done += half
                done += half
                size += OVERHEAD + body
            requests += len(more)
        known = number
        yield Look(begun, done, due, number, size, requests)
        now = max(due, done)


def _further(version: Version, known: Version | None) -> list[int]:
    """The bytes of all else that a reader asks for, in their order: of the pages that it lacks, and at first of the whole."""
    wanted = version.behind if known is None else version.seq - known.seq
    pages = _pages(version, wanted)
    # A reader that begins asks for the pages before the whole.
    return [*pages, version.whole] if known is None else pages


def _pages(version: Version, wanted: int) -> list[int]:
    """So many deltas are wanted: those in the head, and then page by page, eight in each."""
    missing = max(0, wanted - version.inline)
    return list(version.pages[: -(-missing // INLINE)])


class Seen:
    """What came of all looks of many servers."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.looks = self.failed = self.requests = self.bytes = self.started_bytes = 0
        self.in_a_second: Counter[int] = Counter()
        self.in_a_tenth: Counter[int] = Counter()
        self.bytes_in_a_second: Counter[int] = Counter()
        self.delays = array("d")  # from the operator's word until a server lets no call through
        self.delays_cut = array("d")  # the same where a cut is in the way: there all is denied at some time
        self.ages: Counter[int] = Counter()  # of an overlay when it comes, in whole seconds
        self.denied: dict[str, float] = {"cut": 0.0, "away": 0.0}  # seconds that servers deny all for, together
        self.denying: dict[str, list[float]] = {"cut": [], "away": []}  # when servers began to deny all
        self.back: dict[str, list[float]] = {"cut": [], "away": []}  # and when they stopped

    def run(self, server: Server, published: Published, rate: float, until: float) -> None:
        """One server, from its beginning to the end."""
        plan, versions = self._plan, published.versions
        known: Version | None = None
        due = before = server.starts
        ended = iter(published.ended)
        waiting = next(ended, None)
        for look in looks(plan, server, versions, rate, until):
            self.looks += 1
            if look.failed:
                self.failed += 1
                due = look.due
                continue
            self._count(look, first=known is None)
            version = versions[look.version]
            if known is not None:
                self._was_denied(known, before, look.done, still=version is known)
            while waiting is not None and waiting.seq <= version.seq:
                # Of what is ended towards the end, only the servers that are quick would be counted.
                counts = server.starts <= waiting.asked < until - plan.every - 5
                if known is not None and counts:
                    # Whoever calls once a look is due looks first. A server that nobody calls lets nobody through.
                    done = max(due, waiting.at) + look.done - look.begun
                    self._delayed(server, waiting, known, min(done, look.done))
                waiting = next(ended, None)
            if self._is_well(server, look.begun):
                self.ages[int(look.done - version.issued_at)] += 1
            known, due, before = version, look.due, look.done
        if known is not None:
            self._was_denied(known, before, until, still=True)

    def _count(self, look: Look, first: bool) -> None:
        self.requests += look.requests
        self.bytes += look.bytes
        if first:
            self.started_bytes += look.bytes
        self.in_a_second[int(look.begun)] += look.requests
        self.in_a_tenth[int(look.begun * 10)] += look.requests
        self.bytes_in_a_second[int(look.begun)] += look.bytes

    def _delayed(self, server: Server, ended: Ended, known: Version, done: float) -> None:
        """It is in force when the look is done, or before if all is denied by then."""
        stale = max(stale_from(self._plan, known), ended.asked)
        in_force = min(done, stale)
        is_cut = server.region == self._plan.cut_region and done > self._plan.cut.begin and ended.asked < self._plan.cut.end
        (self.delays_cut if is_cut else self.delays).append(in_force - ended.asked)

    def _is_well(self, server: Server, at: float) -> bool:
        """Is nothing wrong, and was nothing wrong a minute ago?"""
        plan = self._plan
        if plan.away.begin <= at < plan.away.end + 60:
            return False
        return server.region != plan.cut_region or not plan.cut.begin <= at < plan.cut.end + 60

    def _was_denied(self, known: Version, before: float, until: float, still: bool) -> None:
        """From one answered look until the next: was what it knew too old? `still` is that the next brought nothing newer."""
        stale = stale_from(self._plan, known)
        if stale >= until:
            return
        why = "away" if stale in self._plan.away else "cut"
        self.denied[why] += until - max(stale, before)
        if stale >= before:
            self.denying[why].append(stale)
        if not still:
            self.back[why].append(until)


def stale_from(plan: Plan, version: Version) -> int:
    """The second from which on it is too old: verifiers compare whole seconds."""
    return version.issued_at + plan.max_staleness + 1
