"""A file that is no TOML is told with its place, and nothing of it is quoted."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from captoken._format.toml import read_toml

NO_TOML: dict[str, tuple[bytes, str]] = {
    "a table that is cut": (b"a = 1\n[b", "look at end of document"),
    "a line": (b"a = 1\nb\n", "look at line 2, column 2"),
    "no UTF-8": (b"\xff", "it is no UTF-8"),
    "deep": (b"a = " + b"[" * 100_000, "it is nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "told"), NO_TOML.values(), ids=NO_TOML)
def test_what_is_no_toml_is_told_with_its_place_alone(data: bytes, told: str) -> None:
    assert read_toml(b"a = 1\n") == {"a": 1}
    with pytest.raises(ValueError) as caught:
        read_toml(data)
    assert str(caught.value) == f"this is not TOML: {told}"


def test_a_parser_that_names_no_place_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> Any:
        raise tomllib.TOMLDecodeError("a secret stands here")

    monkeypatch.setattr(tomllib, "loads", refuse)
    with pytest.raises(ValueError, match=r"^this is not TOML: its parser says no place$"):
        read_toml(b"")
