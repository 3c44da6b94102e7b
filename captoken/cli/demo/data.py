"""The story of the demo as plain data: what was tried, by whom, and what the library said to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

import msgspec

Scene = Literal["work", "tricks", "sending", "end"]


class Agent(msgspec.Struct, frozen=True):
    """An agent of the tree, and what its token says."""

    name: str
    parent: str | None
    says: tuple[str, ...]

    # How long its token lives, in seconds.
    lives: int

    # How many characters its token has.
    characters: int


class Cast(msgspec.Struct, frozen=True):
    """Who takes part: told once all tokens are handed out."""

    subject: str
    task: str
    agents: tuple[Agent, ...]


class Call(msgspec.Struct, frozen=True):
    """One thing that was tried, and what the library said to it."""

    scene: Scene

    # The story's time, in seconds since the task began.
    at: int
    agent: str
    tried: str

    # The server that was asked, or None.
    server: str | None
    allowed: bool
    code: str

    # The result; or the reason of a denial, with the link that denied it and who added it.
    why: str
    link: int | None = None
    added_by: str | None = None

    # Further links that deny it.
    also: tuple[int, ...] = ()

    # Whether it should be allowed.
    expected: bool = True


class Region(msgspec.Struct, frozen=True):
    """A line of the report: money in thousands of euros."""

    name: str
    exposure: int
    overdue: int

    # The volatility of a week, in percent.
    volatility: float

    # Value at risk: a week, 95 %.
    at_risk: int

    # How it moved each week, in percent.
    moves: tuple[float, ...]


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

    # Topic → the agent that found it, as its grant says.
    sources: dict[str, str]


# What is told of the story while it goes on.
Watch: TypeAlias = Callable[[Cast | Call | Report], None]


class Count(msgspec.Struct, frozen=True):
    """How many were allowed, and how many refused."""

    allowed: int = 0
    refused: int = 0

    @classmethod
    def of(cls, answers: Iterable[bool]) -> Count:
        """How many of these answers were yes, and how many no."""
        counted = Counter(answers)
        return cls(counted[True], counted[False])


class Used(msgspec.Struct, frozen=True):
    """What an agent did with its token, as the audit trail has it."""

    name: str
    parent: str | None

    # How its name is known.
    basis: str

    # How many accesses were allowed.
    allowed: int

    # How many accesses were refused, and its token before it came to one.
    refused: int


class Totals(msgspec.Struct, frozen=True):
    """What was counted, each thing by itself.

    `tried` has one for each Call. From the accesses on, all is out of the servers' books: decisions
    are those on accesses and those on tokens. With what else is recorded they are the records.
    """

    tried: Count

    # How many of these a server was asked.
    at_servers: Count

    # How many statements the guard of the database was given.
    statements: Count

    # How many accesses there were: each table of a statement, each call of a tool.
    accesses: Count

    # How many tokens a server looked at before it knew of an access.
    tokens: Count
    decisions: Count

    # Refusals of what no signature vouches for.
    unknown: int

    # Records of what a token says, when it is first seen.
    described: int
    checkpoints: int

    # How many records the trail has. It was checked to be whole.
    records: int


class Story(msgspec.Struct, frozen=True):
    """The whole story as data."""

    subject: str
    task: str
    token_id: str
    agents: tuple[Agent, ...]
    calls: tuple[Call, ...]
    regions: tuple[Region, ...]
    filings: tuple[Filing, ...]

    # Topic → the agent that found it, as its grant says.
    sources: dict[str, str]
    used: tuple[Used, ...]
    totals: Totals
