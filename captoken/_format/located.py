"""Errors about a file that people wrote: with its line, and with what may have been meant.

    with located(path, raw, File):
        return fit(read_toml(raw), File)      # ValueError: gateway.toml, line 7: …

An error that is raised inside begins with the place that it is about, as those of `shapes` do.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import inspect


@contextmanager
def located(
    path: str,
    raw: bytes,
    kind: type[msgspec.Struct],
    also: Mapping[int, tuple[str, ...]] = {},
) -> Generator[None]:
    """A block in which errors are about a file: they get its name, the line and what was meant.

    An error begins with the place that it is about: `service.payments.url must be a str, not int`.
    `kind` is what the file is read into. `also` has further keys, by how deep their table is.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        said = str(error)
        unknown = _unknown_key(said)
        # A place, and perhaps one below it: `service.shop: url must be …`.
        first, _, rest = said.partition(" ")
        below = rest.partition(" ")[0].rstrip(":") if first.endswith(":") else ""
        place = f"{first.rstrip(':')}.{below}"
        if unknown is not None:
            place = unknown[2] if unknown[1] == "it" else f"{unknown[1]}.{unknown[2]}"
            said += _meant(place, kind, also)
        line = line_of(raw.decode("utf-8", "replace"), place)
        where = path if line is None else f"{path}, line {line}"
        raise ValueError(f"{where}: {said}") from None


_unknown_key = re.compile(r"(\S+) has an unknown key '?([^' ]+)'?").fullmatch


def _meant(
    place: str, kind: type[msgspec.Struct], also: Mapping[int, tuple[str, ...]]
) -> str:
    """Which key may be meant, of those that the table has."""
    *above, key = split_place(place)
    known = [*_keys_at(kind, above), *also.get(len(above), ())]
    close = get_close_matches(key, known, n=1)
    return f": did you mean {close[0]}?" if close else f": it has {', '.join(sorted(known))}"


def _keys_at(kind: Any, path: list[str]) -> list[str]:
    """The keys of the table at a path of the file."""
    found: Any = inspect.type_info(kind)
    for step in path:
        fields = {each.encode_name: each.type for each in getattr(found, "fields", ())}
        found = fields.get(step) or getattr(found, "value_type", None)
        if isinstance(found, inspect.UnionType):
            found = next((one for one in found.types if hasattr(one, "fields")), None)
    return [each.encode_name for each in getattr(found, "fields", ())]


_steps = re.compile(r'"([^"]*)"|([^.\s"\[\]]+)').findall


def split_place(place: str) -> list[str]:
    """The keys of a place: `service.payments.url`. What is quoted may have full stops."""
    return [quoted or plain for quoted, plain in _steps(place)]


def line_of(text: str, place: str) -> int | None:
    """The line of a file where a place is, or the nearest table around it. None for no place."""
    wanted = ".".join(split_place(place))
    best, length = None, 0
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            here = table = ".".join(split_place(stripped.strip("[]")))
        else:
            key = split_place(stripped.partition("=")[0])
            here = ".".join(filter(None, (table, *key)))
        if len(here) > length and f"{wanted}.".startswith(f"{here}."):
            best, length = number, len(here)
    return best
