"""Values that hold secrets or trust: never pickled by accident, copied as themselves, never changed."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn


class Sealed:
    """Base of values that hold secrets or trust: not pickled by accident, and copied as themselves."""

    __slots__ = ()
    _instead: ClassVar[str] = "it holds secrets"

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: object) -> Any:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is not pickled: {self._instead}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable")
