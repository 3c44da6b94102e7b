"""The page of what captoken depends on says what pyproject.toml asks for, and what the packages here say of themselves."""

from __future__ import annotations

import json
import re
from importlib import metadata

import pytest

from . import dependencies
from .dependencies import WHY
from .licences import PERMISSIVE, stated

ASKED = {one.name: one for one in dependencies.asked()}


def test_each_package_that_is_asked_for_says_what_it_is_for_and_no_other() -> None:
    assert WHY.keys() == ASKED.keys() == json.loads(dependencies.RELEASED.read_text("utf-8"))["packages"].keys()
    assert {"msgspec", "pynacl"} == {name for name, one in ASKED.items() if "" in one.extras}


def test_the_page_is_that_of_now() -> None:
    text = dependencies.PAGE.read_text("utf-8")
    assert dependencies.page(text) == text, "python -m tests.dependencies --page"


@pytest.mark.parametrize("name", sorted(WHY))
def test_its_licence_is_the_one_that_the_package_states(name: str) -> None:
    """Of what is not installed here, the licence is one of the list at least."""
    said = WHY[name]["licence"]
    try:
        assert stated(metadata.metadata(name)) == said
    except metadata.PackageNotFoundError:
        assert said in PERMISSIVE and {"claude-agent", "envoy", "google-adk"}.issuperset(ASKED[name].extras)


def test_the_npm_package_needs_what_the_page_says() -> None:
    needs = json.loads((dependencies.HERE.parent / "ports/typescript/package.json").read_text("utf-8"))["dependencies"]
    text = dependencies.PAGE.read_text("utf-8")
    assert sorted(re.findall(r"`(@noble/\w+)` ([\d.]+)", text)) == sorted(needs.items())
