"""Whether a value has the shape that is asked for; and where it has not, in words of our own.

`msgspec` says whether a value fits. Why it does not, it says in words that change from release to
release, and without the names of entries. So the place is looked for here, once something does not
fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import inspect

from captoken._format.encoding import OF_ANOTHER_SHAPE
from captoken._format.spelling import shown

_T = TypeVar("_T")


def fit(value: Any, kind: type[_T]) -> _T:
    """`value`, which is as JSON or TOML has it, as a struct of ours.

    Raises ValueError. It tells types, names of keys and words of closed lists; no other value.
    """
    with suppress(msgspec.ValidationError):
        return msgspec.convert(value, kind)
    _check(value, inspect.type_info(kind), "")
    raise ValueError(OF_ANOTHER_SHAPE)


def made(kind: type[_T], stated: Mapping[str, Any]) -> _T:
    """A struct of ours, by the keywords that somebody wrote in a file.

    Raises ValueError for a keyword that it does not have, and what the struct itself raises.
    """
    known: tuple[str, ...] = kind.__struct_fields__  # type: ignore[attr-defined]
    for key in stated:
        if key not in known:
            raise ValueError(f"it has an unknown key {shown(key)}")
    return kind(**stated)


class _Kind(NamedTuple):
    """The exact type of a value, and what messages call it."""

    type: type
    called: str


_KINDS: dict[type[inspect.Type], _Kind] = {
    inspect.StrType: _Kind(str, "a str"),
    inspect.IntType: _Kind(int, "an int"),
    inspect.BoolType: _Kind(bool, "a bool"),
    inspect.ListType: _Kind(list, "a list"),
    inspect.VarTupleType: _Kind(list, "a list"),
    inspect.DictType: _Kind(dict, "a mapping"),
    inspect.StructType: _Kind(dict, "a mapping"),
    inspect.NoneType: _Kind(type(None), ""),  # what is left out: nobody writes it
}


def _kind_of(kind: inspect.Type) -> _Kind | None:
    """How a value of this kind is known; None for a kind that any value may be of."""
    if isinstance(kind, inspect.LiteralType):
        return _Kind(type(kind.values[0]), f"one of {_listed(kind.values)}")
    return _KINDS.get(type(kind))


def _check(value: Any, kind: inspect.Type, place: str) -> None:
    """Raise ValueError for the first place where `value` does not fit, if one is found."""
    options = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    known = [(one, _kind_of(one)) for one in options]
    if any(named is None for _, named in known):
        return  # anything fits

    fitting = [one for one, named in known if named and named.type is type(value)]
    if not fitting:
        called = " or ".join([named.called for _, named in known if named and named.called])
        raise ValueError(f"{place or 'it'} must be {called}, not {type(value).__name__}")
    _check_within(value, fitting, place)


def _check_within(value: Any, kinds: list[inspect.Type], place: str) -> None:
    """The same, where the type itself is right. Of several kinds, each is a struct with a tag."""
    match kinds[0]:
        case inspect.LiteralType(values=words):
            _check_word(value, words, place)
        case inspect.IntType(ge=least, le=most):
            if (least is not None and value < least) or (most is not None and value > most):
                raise ValueError(f"{place or 'it'} must be from {least} to {most}")
        case inspect.ListType() | inspect.VarTupleType() as each:
            if each.max_length is not None and len(value) > each.max_length:
                raise ValueError(f"{place or 'it'} has more than {each.max_length} items")
            for at, item in enumerate(value):
                _check(item, each.item_type, f"{place}[{at}]")
        case inspect.DictType(value_type=each):
            for key, item in value.items():
                _check(item, each, _below(place, key))
        case inspect.StructType():
            _check_struct(value, kinds, place)
        case _:
            pass  # a text, a bool, nothing


def _check_struct(value: dict[str, Any], kinds: list[Any], place: str) -> None:
    """Its tag, its keys, and the value of each."""
    by_tag = {kind.tag: kind for kind in kinds}
    field = kinds[0].tag_field
    tag = value.get(field)
    _check_word(tag, by_tag, _below(place, field or ""))

    kind = by_tag[tag]
    fields = {each.encode_name: each for each in kind.fields}
    for key in value:
        if kind.forbid_unknown_fields and key not in fields and key != field:
            raise ValueError(f"{place or 'it'} has an unknown key {shown(key)}")
    for name, each in fields.items():
        if name in value:
            _check(value[name], each.type, _below(place, name))
        elif each.required:
            raise ValueError(f"{place or 'it'} lacks the key {name}")


def _check_word(value: Any, words: Iterable[Any], place: str) -> None:
    """Raise ValueError for what is none of a closed list. A tag may be any value."""
    if value not in list(words):
        raise ValueError(f"{place or 'it'} must be one of {_listed(words)}, not {shown(value)}")


def _listed(words: Iterable[Any]) -> str:
    return ", ".join(map(str, words))


def _below(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
