"""The story of the demo as plain data: what was tried, by whom, and what the library said to it."""

from __future__ import annotations

from typing import Literal

import msgspec

Scene = Literal["work", "tricks", "sending", "end"]


class Agent(msgspec.Struct, frozen=True):
    """An agent of the tree, and what its token says."""

    name: str
    parent: str | None
    says: tuple[str, ...]
    lives: int  # seconds
    characters: int  # of its token


class Call(msgspec.Struct, frozen=True):
    """One thing that was tried, and what the library said to it."""

    scene: Scene
    at: int  # seconds since the task began
    agent: str
    tried: str
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


class Used(msgspec.Struct, frozen=True):
    """What an agent did with its token, as the audit trail has it."""

    name: str
    parent: str | None
    basis: str  # how its name is known
    allowed: int
    refused: int


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
    unknown: int  # refusals of what no signature vouches for
    records: int  # of the trail, which was checked to be whole
