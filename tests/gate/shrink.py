"""A recipe made as small as it can be while something still holds of it: what delta debugging does, over JSON.

Items of lists go, in ever smaller pieces; keys of objects go; texts, lists and numbers get shorter; a whole token becomes its first
links. A try that cannot be written is no success.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Json = Any
Path = tuple[Any, ...]
KEPT = {"kind", "keyring", "keys", "root", "kid", "facts"}  # what a vector cannot be without
TOGETHER = ({"table", "operation", "columns", "row", "becomes", "rows"}, {"tool", "arguments"})  # facts of an access that go together or not at all
NEEDED = {("token",), ("access",), ("caller",)}


def shrunk(recipe: dict[str, Json], holds: Callable[[dict[str, Json]], bool], most: int = 1500) -> dict[str, Json]:
    """The least recipe that was found in so many tries. `holds` says whether it is still what it was; of `recipe` it does."""
    tries, best, smaller = 0, recipe, True
    while smaller:
        smaller = False
        walked = best
        for place in sorted(walk(walked, ()), key=lambda place: -weight(at(walked, place))):
            if not is_there(best, place):  # it went with what was around it
                continue
            for made in smaller_ones(best, place):
                tries += 1
                if tries > most:
                    return best
                if holds(made):
                    best, smaller = made, True
                    break
    return best


def is_there(value: Json, place: Path) -> bool:
    try:
        at(value, place)
    except (KeyError, IndexError, TypeError):
        return False
    return True


def smaller_ones(recipe: dict[str, Json], place: Path) -> Iterator[dict[str, Json]]:
    """All that are smaller at this place: without it, where a key can go, and with less there."""
    if place and isinstance(at(recipe, place[:-1]), dict) and place[-1] not in KEPT and place not in NEEDED:
        around = at(recipe, place[:-1])
        yield put(recipe, place[:-1], {key: item for key, item in around.items() if key != place[-1]})
    for value in less(at(recipe, place), place):
        yield put(recipe, place, value)


def less(value: Json, place: Path) -> Iterator[Json]:
    """Smaller values for one place."""
    if isinstance(value, dict) and place[-1:] == ("access",):
        for domain in TOGETHER:
            if domain & value.keys():
                yield {key: item for key, item in value.items() if key not in domain}
    if isinstance(value, list):
        size = len(value)
        piece = size
        while piece >= 1:
            for start in range(0, size, piece):
                yield value[:start] + value[start + piece :]
            piece //= 2
    elif isinstance(value, str) and len(value) > 1 and place[-1] != "nonce":
        yield from (value[: len(value) // 2], value[len(value) // 2 :], value[:-1], value[1:])
    elif place in (("access",), ("caller",)) and value is not None:
        yield None
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1:
        yield from (0, 1)
    elif isinstance(value, float) and value not in (0.0, 1.0):
        yield from (0.0, 1.0)


def weight(value: Json) -> int:
    """About how much there is of it."""
    if isinstance(value, dict):
        return 1 + sum(map(weight, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(weight, value))
    return 1 + len(value) // 8 if isinstance(value, str) else 1


def walk(value: Json, place: Path) -> Iterator[Path]:
    """Every place in a value, but for what has to stay."""
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key not in ("kind", "root", "keyring"):
            yield from walk(item, (*place, key))


def at(value: Json, place: Path) -> Json:
    for key in place:
        value = value[key]
    return value


def put(value: Json, place: Path, item: Json) -> Json:
    """A copy with that item there."""
    if not place:
        return item
    made = dict(value) if isinstance(value, dict) else list(value)
    made[place[0]] = put(value[place[0]], place[1:], item)
    return made
