"""Links and capabilities in words, for people. Everything that a token says comes out escaped, on one line.

Names with anything but plain characters in them are quoted, so that a table called `sales, hr` does not look like two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from captoken._format.spelling import escape

_is_plain = re.compile(r"[\w.*:/@+-]+").fullmatch
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def name(text: str) -> str:
    return escape(text if _is_plain(text) else json.dumps(text, ensure_ascii=False))


def names(given: Iterable[str]) -> str:
    return ", ".join(map(name, sorted(given)))


def life(seconds: int) -> str:
    """A span of time in its two largest units: `9m 30s`."""
    parts: list[str] = []
    for size, unit in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def moment(seconds: int) -> str:
    """A time in UTC; far-off ones stay numbers."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def until(expires_at: int, now: int) -> str:
    left = expires_at - now
    return f"{moment(expires_at)}, {f'{life(left)} left' if left > 0 else f'expired {life(-left)} ago'}"


def constraint(stated: Mapping[str, Any]) -> str:
    """A constraint as what a value must be."""
    if "in" in stated:
        values = [escape(json.dumps(value, ensure_ascii=False)) for value in stated["in"]]
        return (
            f"one of {', '.join(values)}"
            if len(values) > 1
            else values[0]
            if values
            else "nothing there is"
        )
    if "path" in stated:
        return f"at or below {names(stated['path'])}" if stated["path"] else "nothing there is"
    if "any" in stated:
        return "anything"
    bounds = [
        f"at {word} {stated[key]}"
        for key, word in (("min", "least"), ("max", "most"))
        if key in stated
    ]
    return " and ".join(bounds)


def _operations(given: Iterable[str]) -> str:
    listed = list(given)
    return "anything" if "*" in listed else names(listed) or "nothing"


def _data(stated: Mapping[str, Any]) -> Iterator[str]:
    tables, operations = stated.get("tables"), stated.get("operations")
    if tables == [] or operations == []:
        yield "nothing on any table"
    elif tables is not None and operations is not None:
        yield f"{_operations(operations)} on {names(tables)}"
    elif tables is not None:
        yield f"only on {names(tables)}"
    elif operations is not None:
        yield f"only {_operations(operations)}" if "*" not in operations else "any operation"
    if "allow" in stated:
        alike: dict[str, list[str]] = {}
        for pattern, allowed in sorted(stated["allow"].items()):
            alike.setdefault(_operations(allowed), []).append(pattern)
        for allowed, patterns in alike.items():
            yield f"{allowed} on {names(patterns)}"
        if not alike:
            yield "nothing on any table"
    for pattern, columns in sorted(stated.get("columns", {}).items()):
        which = (
            "any stated column"
            if "*" in columns
            else f"columns {names(columns)}"
            if columns
            else "no column"
        )
        yield f"{which} of {name(pattern)}"


def _tool(pattern: str, arguments: Mapping[str, Mapping[str, Any]]) -> str:
    if not arguments:
        return f"tool {name(pattern)}, with any arguments"
    parts = [
        f"{name(argument)} {constraint(rule)}{' (optional)' if rule.get('optional') else ''}"
        for argument, rule in sorted(arguments.items())
    ]
    return f"tool {name(pattern)}, with {'; '.join(parts)}"


def rights(stated: Mapping[str, Any]) -> list[str]:
    """The caveats of a link (or of a capability, in the same spelling) about tables, tools, attributes and the task."""
    lines = list(_data(stated))
    if "tools" in stated:
        lines += [
            _tool(pattern, arguments) for pattern, arguments in sorted(stated["tools"].items())
        ] or ["no tool"]
    lines += [
        f"where {name(key)} is {constraint(rule)}"
        for key, rule in sorted(stated.get("where", {}).items())
    ]
    if "task" in stated:
        lines.append(f"in task {name(stated['task'])}")
    return lines


def bounds(stated: Mapping[str, Any], now: int) -> list[str]:
    """The caveats of a link about time, audience and its position in the chain."""
    lines: list[str] = []
    if "exp" in stated:
        lines.append(f"until {until(stated['exp'], now)}")
    if "nbf" in stated:
        lines.append(f"not before {moment(stated['nbf'])}")
    if "aud" in stated:
        lines.append(f"only at {names(stated['aud'])}" if stated["aud"] else "at no server")
    if "depth" in stated:
        depth = stated["depth"]
        lines.append(
            f"at most {depth} more delegation{'s' * (depth != 1)}"
            if depth
            else "not to be delegated further"
        )
    if "delegate_only" in stated:
        lines.append("for handing on, not for use")
    if "uses" in stated:
        lines.append(
            f"at most {stated['uses']} use{'s' * (stated['uses'] != 1)}, with all that is handed on"
        )
    if "budget" in stated:
        spent = ", ".join(
            f"{amount} {name(unit)}" for unit, amount in sorted(stated["budget"].items())
        )
        lines.append(f"at most {spent}, with all that is handed on")
    if "fresh" in stated:
        lines.append(f"only under an overlay of the last {life(stated['fresh'])}")
    return lines
