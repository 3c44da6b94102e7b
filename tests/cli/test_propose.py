"""What `captoken audit propose` writes is pasted into code: no name that a stranger wrote becomes any."""

import ast
import tomllib

import pytest

from captoken.audit.analysis import Accessed, Decided
from captoken.cli.propose import _calls, _python, _text, _toml

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


def test_a_scenario_has_each_call_once_and_no_more_than_anybody_reads():
    """What was not recorded, what TOML has not and what is no access are counted, and left out."""
    def tried(**access):
        return Decided(1, 1, True, "allowed", Accessed(**access))

    pays = [tried(tool="pay", arguments={"cents": cents}) for cents in range(3)]
    odd = [
        tried(tool="pay", arguments=["cents"]), tried(tool="pay", arguments={"cents": {"~": "null"}}),
        tried(tool="pay", arguments={"cents": [{"~": "0.5"}]}), tried(table="sales"), tried(tool="pay", attributes=["region"]),
    ]  # fmt: skip
    shown = Decided(1, 1, True, "allowed")
    calls, left_out = _calls([*pays, *odd, shown, *pays])
    assert calls == [{"tool": "pay", "arguments": {"cents": 0}}, *({"tool": "pay", "arguments": {"cents": cents}} for cents in (1, 2))]
    assert left_out == len(odd)
    many = [tried(tool=f"tool-{number}") for number in range(205)]
    calls, left_out = _calls(many + many[:5])
    assert (len(calls), left_out) == (200, 5)
