"""Values that hold secrets or trust: not pickled or encoded by accident, and never changed.

Three ways by which a secret gets out without anybody asking for it, and what stops each:

    pickle, copy, an encoder    the value itself refuses, or gives itself back
    repr, a log, a debugger     it shows its kind, and nothing that it holds
    a traceback                 `no_arguments_in_traceback` lets go of the frames that were given
                                a secret

None of it stops code in the same process that looks for the secret.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, NoReturn, ParamSpec, TypeVar

import msgspec

# `no_arguments_in_traceback` needs these: a function's parameters and its return type.
_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Seal:
    """No encoder knows this type: what has a field of it is refused by all encoders of msgspec.

    The one instance says nothing and holds nothing.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """What a debugger shows in the place of the field."""
        return "sealed"


_SEAL = _Seal()


class SealedValue(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """Base of values that hold secrets or trust: immutable, not pickled, copied as themselves.

    A subclass is a frozen struct, with a `__repr__` that shows no secret:

        class Token(SealedValue, frozen=True, eq=False):
            _instead = "token.serialize()"

    - `_instead` says what to do in place of pickling.
    - `eq=False`, since two secrets are not compared field by field: that takes longer the more of
      them is alike.
    - Its fields are read by anybody who has the value. It guards against accidents.
    """

    _instead: ClassVar[str] = "it holds secrets"
    # A field whose type no encoder knows. So an encoder that is given the whole value refuses it,
    # where it would write out the fields of any other struct.
    # It has a default and goes by keyword alone, so that no subclass has to name it.
    _seal: _Seal = _SEAL

    # `!=` is the opposite of `==`. A struct has one of its own, which does not ask a subclass's
    # `__eq__`: two equal tokens would be unequal as well.
    __ne__ = object.__ne__

    def __copy__(self) -> Any:
        """Itself. A copy would be one more place that holds the secret.

        The value is immutable, so that it may stand for its copy.
        """
        return self

    def __deepcopy__(self, memo: object) -> Any:
        """Itself, also where it lies inside something else that is copied."""
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refused, by whatever protocol: pickles go to files, queues and other processes.

        Raises TypeError, which says what to do instead.
        """
        raise TypeError(f"a {type(self).__name__} cannot be pickled: {self._instead}")

    def __repr__(self) -> str:
        """The kind alone. A subclass may say more, of what is public."""
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> Any:
        """Nothing: a struct would list its fields to Rich, which takes `repr` instead.

        Rich is what many terminals and notebooks print values with.
        """
        return None


class Sealed:
    """The same for a class whose constructor takes any keyword, or any number of values.

    A struct cannot have such a one. A subclass fills its slots with `_fill`, once.
    """

    __slots__ = ()
    # What to do in place of pickling, as with a SealedValue.
    _instead: ClassVar[str] = "it holds secrets"

    # The same three as a SealedValue has: it stands for its copy, and is not pickled.

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: object) -> Any:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled: {self._instead}")

    def _fill(self, **values: object) -> None:
        """Fill slots, from the constructor alone."""
        for slot, value in values.items():
            object.__setattr__(self, slot, value)

    # What a struct has by `frozen=True`: nothing is set, and nothing is taken away.

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable")


def no_arguments_in_traceback(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same function; what it raises holds no frame that was given a secret.

        @no_arguments_in_traceback
        def from_bytes(cls, secret): ...

    The error is the one that was raised, without its traceback and its context: their frames have
    the arguments as locals, and error reporters send those away. The one frame of ours that is left
    has let go of them.

    The frames of callers are theirs. What is no Exception, as KeyboardInterrupt, passes as it is.
    The message is left as it is: whoever raises shows no secret in it.
    """

    @wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            problem = error.with_traceback(None)

        # Raised outside of the `except`, since Python would note what was being handled there.
        # This frame is in the traceback that begins here. So it must not have the arguments.
        del args, kwargs
        # An error that led to this one has a traceback of its own, with frames of its own.
        problem.__context__ = problem.__cause__ = None
        try:
            raise problem
        finally:
            del problem  # it holds this frame, which would hold it in turn

    return called
