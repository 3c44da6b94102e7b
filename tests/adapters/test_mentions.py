"""What a prompt names after an `@`, as the CLI of the Claude Agent SDK finds it: every file that it would read is among it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from captoken.adapters._agents.mentions import MOST, paths


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("work/a.txt", "work/two words.txt", "work/sub/b.txt", "work/odd#1.txt", "work/e\N{LATIN SMALL LETTER E WITH ACUTE}", "home/key"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("@a.txt", ["work/a.txt"]),
        ("look at @a.txt, please", ["work/a.txt"]),
        ("(@a.txt)", ["work/a.txt"]),
        ("see:@a.txt.", ["work/a.txt"]),
        ("\N{IDEOGRAPHIC FULL STOP}@a.txt", ["work/a.txt"]),
        ("@./a.txt and @sub/../a.txt", ["work/a.txt"]),
        ("@{}/work/a.txt", ["work/a.txt"]),
        ("@/{}/work/a.txt", ["work/a.txt"]),
        ("@../home/key", ["home/key"]),
        ("@~/key", ["home/key"]),
        ("@~", ["home"]),
        ("@sub/", ["work/sub"]),
        ("@a.txt#L1-9 @a.txt#2 @a.txt#top", ["work/a.txt"]),
        ('@"two words.txt"', ["work/two words.txt"]),
        ('@" two words.txt "', ["work/two words.txt"]),
        ("@odd#1.txt", ["work/odd#1.txt"]),
        ("/review @a.txt", ["work/a.txt"]),
        ("one\n@a.txt\n@sub/b.txt", ["work/a.txt", "work/sub/b.txt"]),
        ("@ee\N{COMBINING ACUTE ACCENT}", ["work/e\N{LATIN SMALL LETTER E WITH ACUTE}"]),
    ],
)
def test_what_the_cli_would_read_is_found(prompt: str, named: list[str], home: Path) -> None:
    found = paths(prompt.replace("{}", str(home)), str(home / "work"), str(home / "home"))
    assert found == [str(home / name) for name in named]


@pytest.mark.parametrize("prompt", ["", "jane@a.txt", "@jane, look", "@property", "@", '@""', "@ a.txt", "@nothing/a.txt", "@a.txt/b", "@a\0.txt", "a.txt"])
def test_what_names_nothing_that_is_there_is_no_mention(prompt: str, home: Path) -> None:
    assert paths(prompt, str(home / "work"), str(home / "home")) == []


def test_a_name_ends_where_it_does_for_javascript(home: Path) -> None:
    """A separator that Python alone calls white space is a part of the name."""
    for space, part in (("\x1c", True), ("\x85", True), ("\ufeff", False), ("\N{NO-BREAK SPACE}", False)):
        name = f"a.txt{space}b"
        (home / "work" / name).write_text("x")
        assert paths(f"@{name}", str(home / "work"), "/")[0] == str(home / "work" / (name if part else "a.txt"))


def test_what_cannot_be_looked_at_counts_as_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> None:
        raise PermissionError(errno.EACCES, "not yours")

    monkeypatch.setattr(os, "lstat", refused)
    assert paths("@key", "/closed", "/") == ["/closed/key"]


def test_a_prompt_is_read_once_whatever_stands_in_it(tmp_path: Path) -> None:
    """A megabyte of signs costs as much as one of words: what an `@` can begin is bounded, and so is their number."""
    folder = str(tmp_path)
    assert paths("@" * MOST + "a", folder, "/") == paths("@" + "/a" * 500_000, folder, "/") == []
    assert paths("jane@example.com " * 60_000, folder, "/") == []
    with pytest.raises(ValueError, match="1000 mentions"):
        paths("@a " * (MOST + 1), folder, "/")
