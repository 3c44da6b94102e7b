"""The numbers that a simulation goes by, and its clock. All times are in seconds from its beginning."""

from __future__ import annotations

from math import log
from random import Random
from typing import NamedTuple

EPOCH = 1_800_000_000  # what the simulated clocks show when it begins


class Region(NamedTuple):
    """Servers in one part of the world."""

    name: str
    part: float  # of all servers, and of all calls
    round_trip: float  # to the bucket, and to the ledger at home: the median


class Span(NamedTuple):
    """From when until when."""

    begin: float
    end: float

    def __contains__(self, at: object) -> bool:
        return isinstance(at, float | int) and self.begin <= at < self.end


class Plan(NamedTuple):
    """Who there is, what they do, and what goes wrong."""

    seed: int = 7
    servers: int = 10_000
    real: int = 24  # of these: with the library's own objects
    agents: int = 100_000
    agents_of_a_task: int = 10
    calls_of_an_agent: float = 0.1  # a second
    seconds: int = 1200

    entries: int = 10_000  # that stand in the overlay when it begins
    renew: float = 20.0  # from one renewal to the next
    revoke: float = 10.0  # from one ended task to the next, on average
    every: int = 5  # between two looks of a server
    max_staleness: int = 60
    rollout: float = 60.0  # in which the servers start

    cut: Span = Span(300, 600)  # the region that cannot reach the bucket
    cut_region: str = "ap"
    away: Span = Span(800, 900)  # the operator publishes nothing

    regions: tuple[Region, ...] = (
        Region("eu", 0.40, 0.015),
        Region("us", 0.30, 0.090),
        Region("ap", 0.20, 0.180),
        Region("sa", 0.10, 0.200),
    )

    budgets: int = 40  # that are spent in all regions
    budget: int = 1000  # of each, in cents
    slice: int = 50  # cents that a region is given at a time

    @property
    def rate(self) -> float:
        """Calls a second at one server."""
        return self.agents * self.calls_of_an_agent / self.servers

    @property
    def tasks(self) -> int:
        return self.agents // self.agents_of_a_task

    def region_of(self, server: int) -> Region:
        """Where it stands: as many in each region as its part says."""
        at, end = (server + 0.5) / self.servers, 0.0
        for region in self.regions:
            end += region.part
            if at < end:
                return region
        return self.regions[-1]

    def drawn(self, what: str, number: int = 0) -> Random:
        """Randomness of one use, which no other use changes."""
        return Random(f"{self.seed}/{what}/{number}")


class Moment:
    """A clock that stands still until it is moved. What it shows as a clock of the library is in seconds since the epoch."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return EPOCH + self.now


def latency(source: Random, round_trip: float) -> float:
    """How long a request takes: around the median, and now and then several times as long."""
    return source.lognormvariate(log(round_trip), 0.35)
