"""The story of the demo as plain data: what was tried, by whom, and what the library said to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

Scene = Literal["work", "tricks", "sending", "end"]


class Agent(msgspec.Struct, frozen=True):
    """An agent of the tree, and what its token says."""

    name: str
    parent: str | None
    says: tuple[str, ...]
    lives: int  # seconds
    characters: int  # of its token


class Cast(msgspec.Struct, frozen=True):
    """Who takes part: told once all tokens are handed out."""

    subject: str
    task: str
    agents: tuple[Agent, ...]


class Call(msgspec.Struct, frozen=True):
    """One thing that was tried, and what the library said to it."""

    scene: Scene
    at: int  # seconds since the task began, by the clock of the story
    agent: str
    tried: str
    server: str | None  # that was asked; None where none was
    allowed: bool
    code: str
    why: str  # what came back; or the reason, with the link that refuses and who added it
    link: int | None = None
    added_by: str | None = None
    also: tuple[int, ...] = ()  # further links that refuse
    expected: bool = True  # what should have come out


class Region(msgspec.Struct, frozen=True):
    """A line of the report: money in thousands of euros."""

    name: str
    exposure: int
    overdue: int
    volatility: float  # of a week, in percent
    at_risk: int  # value at risk: a week, 95 %
    moves: tuple[float, ...]  # of each week, in percent


class Filing(msgspec.Struct, frozen=True):
    """A flagged filing."""

    issuer: str
    form: str
    filed: str
    note: str
    severity: int
    rating: str


class Report(msgspec.Struct, frozen=True):
    """What the orchestrator made of what its agents found."""

    regions: tuple[Region, ...]
    filings: tuple[Filing, ...]
    sources: dict[str, str]  # topic → the agent that found it, as its grant says


# What is told of the story while it goes on.
Watch: TypeAlias = Callable[[Cast | Call | Report], None]


class Used(msgspec.Struct, frozen=True):
    """What an agent did with its token, as the audit trail has it."""

    name: str
    parent: str | None
    basis: str  # how its name is known
    allowed: int  # accesses
    refused: int  # accesses, and its token before it came to one


class Count(msgspec.Struct, frozen=True):
    """How many were allowed, and how many refused."""

    allowed: int = 0
    refused: int = 0

    def plus(self, is_allowed: bool) -> Count:
        """The same with one more."""
        if is_allowed:
            return Count(self.allowed + 1, self.refused)
        return Count(self.allowed, self.refused + 1)


class Totals(msgspec.Struct, frozen=True):
    """What was counted, each thing by itself.

    `tried` has one for each Call. From the accesses on, all is out of the servers' books: decisions
    are those on accesses and those on tokens. With what else is recorded they are the records.
    """

    tried: Count
    at_servers: Count  # of these, what a server was asked
    statements: Count  # given to the guard of the database
    accesses: Count  # each table of a statement, each call of a tool
    tokens: Count  # that a server looked at before it knew of an access
    decisions: Count
    unknown: int  # refusals of what no signature vouches for
    described: int  # records of what a token says, when it is first seen
    checkpoints: int
    records: int  # of the trail, which was checked to be whole


class Story(msgspec.Struct, frozen=True):
    """The whole story as data."""

    subject: str
    task: str
    token_id: str
    agents: tuple[Agent, ...]
    calls: tuple[Call, ...]
    regions: tuple[Region, ...]
    filings: tuple[Filing, ...]
    sources: dict[str, str]  # topic → the agent that found it, as its grant says
    used: tuple[Used, ...]
    totals: Totals
