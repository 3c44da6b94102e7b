"""The port to TypeScript runs the very scripts of Python's stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import ported


@pytest.mark.parametrize("path", ported.made(), ids=lambda path: path.name)
def test_the_port_has_the_text_of_python(path: Path) -> None:
    """`python -m tests.ported` writes it anew."""
    assert path.read_text("utf-8") == ported.made()[path]


@pytest.mark.parametrize("text", ["", "a`b", "${a}", "\\n", "\\`", "$a {b}", "\\\\x0a"])
def test_a_literal_says_what_was_written(text: str) -> None:
    """Read back as JavaScript reads it."""
    written = ported.literal(text)
    assert written[0] == written[-1] == "`"
    read, at = "", 1
    while at < len(written) - 1:
        assert written[at] != "`" and written[at : at + 2] != "${", "the literal ends here"
        at += written[at] == "\\"
        read += written[at]
        at += 1
    assert read == text
