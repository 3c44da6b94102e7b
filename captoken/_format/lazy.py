"""Public names that are loaded when somebody asks for them (PEP 562).

So a program pays for what it uses: whoever verifies loads nothing of what writes tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, get_type_hints


def lazily(public: dict[str, Any], homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module whose names live elsewhere: `homes` says in which modules.

    `public` are the globals of that module. A class says that it is of it, and its annotations
    still resolve there.

        __getattr__ = lazily(globals(), {"Access": "captoken._language.access"})
    """
    module = public["__name__"]

    def found(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home = vars(import_module(homes[name]))
        value = home[name]
        own: dict[str, Any] = vars(value).get("__annotations__", {})
        # Resolved where it was written. Of two classes that name each other, the second is fetched.
        beside = {
            other: found(other)
            for other in homes
            if other not in home and any(other in str(hint) for hint in own.values())
        }
        stated = type(name, (), {"__annotations__": own, "__module__": homes[name]})
        value.__annotations__ = get_type_hints(stated, None, beside, include_extras=True)
        value.__module__ = module
        public[name] = value
        return value

    return found
