"""The file of rules, as it is written: TOML, read into typed values that were all checked.

    version = 1
    [rule.probing]
    when = { codes = ["table", "operation", "column", "row", "tool", "argument"] }
    count = 5
    within = "1m"
    then = "revoke"
    for = "1h"
    why = "five refusals of rights in a minute"

What is unknown is refused, with its line and what may have been meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from captoken._format import names
from captoken._format.clocks import duration
from captoken._format.located import located
from captoken._format.shapes import fit
from captoken._format.spelling import shown
from captoken._format.toml import read_toml
from captoken._language.reasons import DENIALS
from captoken.cli.reactions.rules import Hours, Rule, Told
from captoken.control import Operator
from captoken.keys import OperatorKey
from captoken.stores.levels import LEVELS
from captoken.stores.memory import MemorySnapshots

MOST_COUNT: Final = 1000  # records that one rule waits for
LONGEST: Final = 86_400  # seconds that it looks back
_MOST = 20  # acts an hour, unless the file says otherwise

_By: TypeAlias = Literal["link", "agent", "task", "subject"]


class _Stated(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file. What it does not know is refused."""


class When(_Stated, frozen=True):
    """Which records a rule counts: those that are all that it says."""

    codes: tuple[str, ...] = ()  # of denials, or "allowed"
    tables: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    mark: str | None = None  # one that the access set


class Usual(_Stated, frozen=True):
    """So many times what the task did in a usual span."""

    usual: int


class StatedRule(_Stated, frozen=True):
    """A rule. `then` is a word, or the caveats to narrow to."""

    when: When
    then: str | dict[str, Any]
    why: str
    count: int | Usual = 1
    within: int | str = "1m"
    by: _By = "link"
    lasts: int | str | None = msgspec.field(default=None, name="for")
    hours: str | None = None
    zone: str = "UTC"
    level: str | None = None
    alert: tuple[str, ...] = ()


class StatedAlert(_Stated, frozen=True):
    """Whom to tell: one of three ways."""

    command: tuple[str, ...] | None = None
    webhook: str | None = None
    secret: str | None = None  # env:NAME or file:PATH
    opentelemetry: bool = False


class StatedReact(_Stated, frozen=True):
    """What holds for all rules."""

    most: int = _MOST
    stalls: int | str | None = None
    alert: tuple[str, ...] = ()


class File(_Stated, frozen=True):
    """The file as a whole."""

    version: Literal[1]
    rule: dict[str, StatedRule]
    react: StatedReact = StatedReact()
    alert: dict[str, StatedAlert] = {}


class Rules(msgspec.Struct, frozen=True):
    """All that a file says, checked."""

    rules: tuple[Rule, ...]
    told: Mapping[str, Told]
    most: int
    stalls: int | None
    alert: tuple[str, ...]


def read(path: str) -> Rules:
    """The rules in a file. Raises ValueError, with file and line; OSError."""
    raw = Path(path).read_bytes()
    with located(path, raw, File):
        return _checked(fit(read_toml(raw), File), Path(path).parent)


def _checked(file: File, folder: Path) -> Rules:
    if not file.rule:
        raise ValueError("rule: the file has no rule: write [rule.NAME]")
    told = {name: _told(name, stated, folder) for name, stated in file.alert.items()}
    _check_alerts("react.alert", file.react.alert, told)
    if not 1 <= file.react.most <= MOST_COUNT:
        raise ValueError(f"react.most must be from 1 to {MOST_COUNT} acts an hour")
    rules = tuple(_rule(name, stated, told) for name, stated in file.rule.items())
    stalls = file.react.stalls
    return Rules(
        rules,
        told,
        file.react.most,
        None if stalls is None else _seconds("react.stalls", stalls),
        file.react.alert,
    )


# --- rules ----------------------------------------------------------------------------------------

_is_rule_name = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
_DOES = ("revoke", "end", "alert")


def _rule(name: str, stated: StatedRule, told: Mapping[str, Told]) -> Rule:
    place = f"rule.{name}"
    if _is_rule_name(name) is None:
        raise ValueError(f"{place}: a rule has a name of 1 to 64 letters, digits, '.', '_' or '-'")
    _check_when(f"{place}.when", stated.when)
    _check_alerts(f"{place}.alert", stated.alert, told)
    if not stated.why.strip():
        raise ValueError(f"{place}.why is empty: give a reason, for the people who read the record")
    within = _seconds(f"{place}.within", stated.within)
    if not 1 <= within <= LONGEST:
        raise ValueError(f"{place}.within must be from 1s to 1d")
    lasts = None if stated.lasts is None else _seconds(f"{place}.for", stated.lasts)
    if lasts is not None and lasts < 1:
        raise ValueError(f"{place}.for must be at least 1s")
    usual = stated.count.usual if isinstance(stated.count, Usual) else None
    count = stated.count if isinstance(stated.count, int) else 0
    if not 1 <= (count or usual or 0) <= MOST_COUNT:
        raise ValueError(f"{place}.count must be from 1 to {MOST_COUNT}")
    if stated.level is not None and stated.level not in LEVELS:
        raise ValueError(f"{place}.level must be one of {', '.join(LEVELS)}")
    return Rule(
        name=name,
        codes=frozenset(stated.when.codes),
        tables=stated.when.tables,
        tools=stated.when.tools,
        mark=stated.when.mark,
        count=count,
        usual=usual,
        within=within,
        by=stated.by,
        then=stated.then if isinstance(stated.then, str) else "narrow",
        caveats=_caveats(f"{place}.then", stated),
        lasts=lasts,
        why=stated.why,
        hours=_hours(place, stated),
        level=stated.level,
        alert=stated.alert,
    )


def _check_when(place: str, when: When) -> None:
    if when == When():
        raise ValueError(f"{place} is empty: say codes, tables, tools or mark")
    for code in when.codes:
        if code != "allowed" and code not in DENIALS:
            raise ValueError(f"{place}.codes: {shown(code)} is no code of a decision")
    for pattern in (*when.tables, *when.tools):
        _at(place, lambda pattern=pattern: names.pattern(pattern, "pattern"))
    if when.mark is not None:
        _at(f"{place}.mark", lambda: names.name(when.mark, "mark"))


def _caveats(place: str, stated: StatedRule) -> dict[str, Any]:
    """What is left to those that the rule hits: tried out, so that no mistake is found too late."""
    if isinstance(stated.then, str):
        if stated.then not in _DOES:
            raise ValueError(f'{place} must be "revoke", "end", "alert", or caveats to narrow to')
        if stated.then == "end" and stated.by != "task":
            raise ValueError(f'{place}: "end" ends a task: write by = "task"')
        return {}
    if not stated.then:
        raise ValueError(f'{place} is empty: name caveats, or write "revoke"')
    trying = Operator(OperatorKey.generate(), MemorySnapshots(), by="check")
    caveats = dict(stated.then)
    _at(place, lambda: trying.narrow(subject="check", why="check", **caveats))
    return caveats


def _at(place: str, check: Any) -> None:
    """Say the place of what a check of the library raises."""
    try:
        check()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from None


def _seconds(place: str, given: int | str) -> int:
    try:
        return given if isinstance(given, int) else duration(given)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


_span = re.compile(r"(\d{1,2})(?::(\d{2}))?-(\d{1,2})(?::(\d{2}))?").fullmatch


def _hours(place: str, stated: StatedRule) -> Hours | None:
    """`22-06`, or `22:30-06:00`, in a zone."""
    if stated.hours is None:
        if stated.zone != "UTC":
            raise ValueError(f'{place}.zone goes with hours: hours = "22-06"')
        return None
    found = _span(stated.hours)
    if found is None:
        raise ValueError(f'{place}.hours must be like "22-06" or "22:30-06:00"')
    first, last = (int(found[at]) * 60 + int(found[at + 1] or 0) for at in (1, 3))
    if first == last or max(first, last) > 24 * 60 or "60" <= (found[2] or "0") <= "99":
        raise ValueError(f"{place}.hours are no hours of a day")
    try:
        return Hours(first, last, ZoneInfo(stated.zone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{place}.zone: {shown(stated.zone)} is no time zone here") from None


# --- whom to tell ---------------------------------------------------------------------------------


def _check_alerts(place: str, given: tuple[str, ...], told: Mapping[str, Told]) -> None:
    for name in given:
        if name not in told:
            raise ValueError(f"{place}: there is no [alert.{name}]")


def _told(name: str, stated: StatedAlert, folder: Path) -> Told:
    place = f"alert.{name}"
    ways = (stated.command is not None, stated.webhook is not None, stated.opentelemetry)
    if sum(ways) != 1:
        raise ValueError(f"{place} must have one of command, webhook and opentelemetry")
    if stated.command is not None and not stated.command:
        raise ValueError(f"{place}.command is empty: name a program")
    if (stated.secret is None) != (stated.webhook is None):
        raise ValueError(f"{place}: webhook and secret go together")
    if stated.webhook is not None:
        _check_url(f"{place}.webhook", stated.webhook)
    if stated.secret is not None and not stated.secret.startswith(("env:", "file:")):
        raise ValueError(f"{place}.secret must be env:NAME or file:PATH")
    return Told(stated.command, stated.webhook, stated.secret, folder)


def _check_url(place: str, url: str) -> None:
    from captoken.issuance.web import is_safe

    if not is_safe(url):
        raise ValueError(f"{place}: {shown(url)} is no https address, and not of this machine")
