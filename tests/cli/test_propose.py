"""What `captoken audit propose` writes is pasted into code: no name that a stranger wrote becomes any."""

import ast
import tomllib

import pytest

from captoken.cli.propose import _python, _text, _toml

HOSTILE = [
    "", "sales", 'a"b', "a\'b", "a\'\"b", "a\\", 'x"])\n__import__("os")', "\u202eevil", "\U0001f600", "\x7f", "\x1b[2J", "a\tb", "{x}", "#", "\u00e9",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_text_stays_a_text(text):
    """In ASCII, on one line, and read back as it was."""
    python, toml = _text(text), _toml(text)
    assert ast.literal_eval(python) == text and tomllib.loads(f"a = {toml}\n{toml} = 1") == {"a": text, text: 1}
    assert all(" " <= one <= "~" for one in python + toml)


def test_values_are_read_back_as_they_were():
    value = {"tools": {"pay": {"cents": {"min": 0, "max": 5}, 'a"b': {"in": [True, 1, "x"], "optional": True}, "free": {}}}, "none": []}
    assert ast.literal_eval(_python(value)) == value and tomllib.loads(f"a = {_toml(value)}") == {"a": value}
