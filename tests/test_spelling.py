"""Text of strangers is shown escaped and short, and files by their ends."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from captoken import (
    errors,
)
from captoken._format.encoding import b64encode
from captoken._format.spelling import escape, named, named_all, shown_file, spelled
from captoken.keys import HolderKey
from captoken.testing import FixedClock
from tests.cli.test_inspect import NASTY
from tests.fixtures import data, mint, verifier


def test_a_file_is_named_by_its_end_and_without_what_steers() -> None:
    """However long its name is."""
    assert shown_file("keys.json") == "'keys.json'" and shown_file(Path("a/b\n")) == r"'a/b\n'"
    long = shown_file(f"/{'one/' * 90}/keys.json")
    assert long.startswith("'...") and long.endswith("one/one//keys.json'") and len(long) == 200


def test_what_could_be_a_token_or_a_key_is_not_shown_as_the_name_of_a_file() -> None:
    """Where somebody gives the text of one instead of the file that it lies in."""
    key = HolderKey.generate()
    for secret in (mint().serialize(), mint().present(audience="a"), b64encode(key.reveal()), key.reveal().hex()):
        told = shown_file(f"keys/{secret}")
        assert told.startswith("'keys/") and len(told) < 20 and secret[-20:] not in told
        with pytest.raises(errors.KeyringError, match="cannot be read") as caught:
            HolderKey.load(secret)
        assert secret[-20:] not in f"{caught.value} {caught.value.args}"


def test_for_people_text_is_escaped_and_short() -> None:
    assert escape("a\x1b[31mb\u202e\U000e0001é") == "a\\x1b[31mb\\u202e\\U000e0001é"
    assert spelled(["x" * 200]).endswith("...") and len(spelled(["x" * 200])) == 120
    far = verifier(clock=FixedClock(10**12)).check(mint(unrestricted=True, expires_at=10**11), data("sales"))
    assert "1000000000000" in str(far) and "100000000000" in str(far)


@pytest.mark.parametrize("char", ["\u034f", "\u1160", "\u17b4", "\u180e", "\u2800", "\u3164", "\ufe0f", "\uffa0", "\U000e0100", "\u202e", "\x7f"])
def test_what_leaves_no_ink_is_shown_by_its_number(char: str) -> None:
    """Two names that look alike would be one to whoever reads: letters, marks and signs that are not seen are spelled out."""
    assert escape(f"a{char}b") == "a" + char.encode("unicode_escape").decode() + "b" and escape("né 支付 ा") == "né 支付 ा"


@pytest.mark.parametrize("char", sorted(set(NASTY) - set(" ")), ids=ascii)
def test_a_name_is_escaped(char):
    assert named(f"a{char}b").isprintable() and unicodedata.category(char) != "Ll"


def test_every_code_point_is_escaped_or_printable():
    for code in range(0x11000):
        assert named(chr(code)).isprintable(), hex(code)


def test_names_that_are_not_plain_are_quoted():
    assert named_all(["b", "a, b", '"', "café", "c d"]) == '"\\"", "a, b", b, "c d", café'
