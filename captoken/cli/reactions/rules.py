"""Rules: which records one counts, for whom, and when it is crossed.

    rule.counts(seen, level)          # is it one of those that the rule is about?
    rule.key_of(seen, known)          # whose window it falls into
    crossed(rule, window, moment)     # the record by which the rule is crossed

Functions of values: no clock, no store, no trail. What is counted is kept by `watching`.

Whoever is watched chooses much of what a record says, and none of it decides whom a rule hits:

- A holder narrows its token for each call, and then each has its own last link. `link` is the
  hand-over by which it got the token, which it cannot change.
- A holder names those that it hands on to as it likes. `agent` is the last one that an issuer
  named, or a key proved, and an entry on it names the task beside.
- A holder narrows the task as it likes, too. `task` is the one that the issuer stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from captoken._format import primitives
from captoken._format.encoding import b64encode
from captoken._language import patterns
from captoken.stores.levels import LEVELS

# Spans in which a task was at work, before it is known what is usual for it.
LEARNED = 5
_REMEMBERED = 16  # spans that what is usual is a mean of, about


class Hours(NamedTuple):
    """From one minute of the day to another, in a zone; over midnight where the first is later."""

    first: int
    last: int
    zone: ZoneInfo

    def hold(self, at: int) -> bool:
        """Do they, at that second?"""
        there = datetime.fromtimestamp(at, self.zone)
        minute = there.hour * 60 + there.minute
        if self.first < self.last:
            return self.first <= minute < self.last
        return minute >= self.first or minute < self.last


class Told(NamedTuple):
    """Whom an alert goes to."""

    command: tuple[str, ...] | None
    webhook: str | None
    secret: str | None

    # Where files are that it names.
    folder: Path


class Actor(msgspec.Struct, frozen=True):
    """A holder, and how its name is known."""

    name: str
    basis: str


class Accessed(msgspec.Struct, frozen=True):
    """What was asked for."""

    table: str | None = None
    tool: str | None = None


class Mark(msgspec.Struct, frozen=True):
    """A mark that was set."""

    name: str


class Seen(msgspec.Struct, frozen=True):
    """A decision, as far as rules ask about it.

    `token` is there only where the chain held: what a forged token says is nobody's word.
    """

    at: int
    allowed: bool
    code: str
    seq: int
    ms: int = 0
    token: str | None = None
    link: str | None = None
    task: str = ""
    sub: str = ""
    chain: tuple[Actor, ...] = ()
    access: Accessed | None = None
    marks: tuple[Mark, ...] = ()

    @property
    def agent(self) -> str:
        """The last holder whose name is no mere claim."""
        known = [actor.name for actor in self.chain if actor.basis != "vouched"]
        return known[-1] if known else ""

    @property
    def holder(self) -> str:
        """The holder, as it is named: for people."""
        return self.chain[-1].name if self.chain else ""


class Known(NamedTuple):
    """What the issuer and the last hand-over say of a token."""

    hop: str
    task: str


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that was checked. See `stated` for what each value is in the file."""

    name: str
    codes: frozenset[str]
    tables: tuple[str, ...]
    tools: tuple[str, ...]
    mark: str | None
    count: int  # 0 where `usual` says it
    usual: int | None
    within: int
    by: str
    then: str  # revoke, narrow, end or alert
    caveats: Mapping[str, Any]
    lasts: int | None
    why: str
    hours: Hours | None
    level: str | None
    alert: tuple[str, ...]

    @property
    def acts(self) -> bool:
        """Does it make an entry, and not only tell somebody?"""
        return self.then != "alert"

    def counts(self, seen: Seen, level: str) -> bool:
        """Is the record one of those that the rule is about, at this level of threat?"""
        if self.codes and seen.code not in self.codes:
            return False
        access = seen.access
        if self.tables and (access is None or not _among(self.tables, access.table)):
            return False
        if self.tools and (access is None or not _among(self.tools, access.tool)):
            return False
        if self.mark is not None and all(mark.name != self.mark for mark in seen.marks):
            return False
        if self.level is not None and LEVELS.index(level) < LEVELS.index(self.level):
            return False
        return self.hours is None or self.hours.hold(seen.at)

    def select(self, seen: Seen, known: Known) -> dict[str, str]:
        """Whom an entry of this rule is on. Empty where the record does not say it."""
        if self.by == "link":
            return {"link": known.hop} if known.hop else {"token": seen.token or ""}
        if self.by == "task":
            return {"task": known.task}
        if self.by == "subject":
            return {"subject": seen.sub} if seen.sub else {}
        return {"agent": seen.agent, "task": known.task} if seen.agent else {}

    def cause(self, digest: bytes) -> str:
        """The id of what this rule does for a record: the same wherever it is worked out (36.26).
        """
        said = b"\0".join((self.name.encode(), digest))
        return b64encode(primitives.sha256(primitives.label("react") + said)[:16])


def _among(listed: tuple[str, ...], name: str | None) -> bool:
    return name is not None and patterns.among(listed, name)


class Window(msgspec.Struct):
    """What a rule has counted for one whose records it counts.

    For a number it has the newest records, at most that many: the moment of each, in milliseconds,
    and a part of its hash, so that a copy of a trail counts nothing twice. For what is usual it has
    how many there were in the present span; and for a task, how many there are in a span.
    """

    records: list[tuple[int, int]] = []
    span: int = 0
    count: int = 0
    spans: int = 0
    mean: float = 0.0

    @property
    def last(self) -> int:
        """When it was changed last, in milliseconds, about."""
        return self.records[-1][0] if self.records else self.span

    def reached(self, rule: Rule, moment: int, digest: bytes) -> bool:
        """Count a record. True if it is the one by which so many are within the time.

        Then counting begins anew. In whichever order the records of several trails come.
        """
        records = self.records
        record = moment, int.from_bytes(digest[:6], "big")
        if record in records:
            return False
        records.append(record)
        if len(records) > 1 and record < records[-2]:
            records.sort()
        if len(records) > rule.count:
            del records[0]
        if len(records) < rule.count or records[-1][0] - records[0][0] > rule.within * 1000:
            return False
        records.clear()
        return True

    def counted(self, rule: Rule, moment: int) -> int:
        """Count a record of the present span, and say how many there are in it."""
        begun = moment - moment % (rule.within * 1000)
        if begun > self.span:
            self.span, self.count = begun, 0
        self.count += 1
        return self.count

    def usual(self, rule: Rule, moment: int) -> float | None:
        """Count a record of a task, and say how many its spans have. None if it is not known yet.

        A span that is a flood itself does not teach that floods are usual.
        """
        begun = moment - moment % (rule.within * 1000)
        if begun > self.span:
            if self.count:
                most = self.mean * (rule.usual or 1) if self.spans >= LEARNED else self.count
                self.spans += 1
                weight = min(self.spans, _REMEMBERED)
                self.mean += (min(self.count, max(most, 1)) - self.mean) / weight
            self.span, self.count = begun, 0
        self.count += 1
        return max(self.mean, 1.0) if self.spans >= LEARNED else None


def is_more_than_usual(rule: Rule, count: int, usual: float) -> bool:
    """Is it the first record that is more than so many times what is usual?"""
    most = usual * (rule.usual or 1)
    return count - 1 <= most < count
