"""Public names that are loaded when somebody asks for them: once, and as if they were written there."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import get_type_hints

import pytest

from captoken._format.lazy import lazily

FIRST = """
class First:
    second: "Second"
    number: int
"""
SECOND = """
class Second:
    text: str
"""


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module whose names live in two others."""
    for name, source in {"example_first": FIRST, "example_second": SECOND}.items():
        home = ModuleType(name)
        exec(compile(source, name, "exec", dont_inherit=True), vars(home))
        monkeypatch.setitem(sys.modules, name, home)
    made = ModuleType("example_public")
    vars(made)["__getattr__"] = lazily(vars(made), {"First": "example_first", "Second": "example_second"})
    monkeypatch.setitem(sys.modules, "example_public", made)
    return made


def test_a_name_is_fetched_once_and_says_that_it_is_of_the_public_module(public: ModuleType) -> None:
    assert "First" not in vars(public)
    first = public.First
    assert first is sys.modules["example_first"].First is vars(public)["First"] and first.__module__ == "example_public"


def test_annotations_resolve_across_the_homes(public: ModuleType) -> None:
    """Of a class that names another one, that is fetched too."""
    assert get_type_hints(public.First) == {"second": public.Second, "number": int}


def test_a_name_that_is_not_there_is_an_attribute_error(public: ModuleType) -> None:
    with pytest.raises(AttributeError, match=r"^module 'example_public' has no attribute 'Third'$"):
        public.Third  # noqa: B018
