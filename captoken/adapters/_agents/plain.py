"""What a tool gets, as JSON: by its values, and not as their classes choose to write themselves.

    as_json({"order": Order(what="cash")})    # {"order": {"what": "cash"}}, whatever Order dumps

A model can write itself in another form than it is used in (`model_serializer`), a secret writes
stars, an iterator is used up by being written. A guard that asked about that would ask about
something else than runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from typing import Any
from uuid import UUID

from captoken._format.extras import extra

with extra("pydantic-ai"):  # or langchain's, whose adapter says so before this is imported
    from pydantic import AnyUrl, BaseModel, RootModel
    from pydantic_core import MultiHostUrl, Url, to_jsonable_python

_AS_THEY_ARE = frozenset({bool, int, float, str, type(None)})
_LISTS = (list, tuple, set, frozenset, deque)

# The types that pydantic itself serializes in exactly one way.
_WRITTEN = (
    *(str, int, float, bytes, date, time, timedelta, Decimal, UUID, PurePath),
    *(IPv4Address, IPv6Address, IPv4Network, IPv6Network, Url, MultiHostUrl),
)


def as_json(value: Any) -> Any:
    """The value as JSON, by what it holds: a model, a dataclass, by its fields.

    Raises TypeError for what is neither that nor of a kind that has one way to be written,
    RecursionError, and what pydantic raises for what is no JSON.
    """
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is dict:
        return {_key(key): as_json(each) for key, each in value.items()}
    if isinstance(value, Enum):
        return as_json(value.value)
    if isinstance(value, BaseModel):
        # Past what its class may have made of iteration and attributes.
        held = {**vars(value), **(value.__pydantic_extra__ or {})}
        return as_json(held["root"] if isinstance(value, RootModel) else held)
    if is_dataclass(value):
        return {each.name: as_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): as_json(each) for key, each in value.items()}
    if isinstance(value, _LISTS):
        return [as_json(each) for each in value]
    if isinstance(value, AnyUrl):
        return AnyUrl.__str__(value)
    if isinstance(value, _WRITTEN) and not hasattr(kind, "__pydantic_serializer__"):
        return to_jsonable_python(value)
    raise TypeError(f"captoken does not know how a {kind.__name__} is written as JSON")


def _key(key: Any) -> Any:
    """Return the key of an object as text. pydantic converts a key that is not text."""
    if type(key) is str:
        return key
    (written,) = to_jsonable_python({as_json(key): None})
    return written
