"""Signed bodies: one spelling, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captoken._format.encoding import EncodingError
from captoken._format.signed import SIGNATURE_CHARS, TAIL_BYTES, attach, body_of, split
from tests.longer import times

SIGNATURE = bytes(range(64))
WHOLE = attach(b"body", SIGNATURE)


@settings(max_examples=times(100))
@given(st.binary(max_size=300), st.binary(min_size=64, max_size=64))
def test_what_is_joined_comes_apart_again(body, signature):
    """Whatever the body is: full stops, and what looks like a signature."""
    whole = attach(body, signature)
    assert split(whole) == (body, signature) and body_of(whole) == body
    assert len(whole) == len(body) + TAIL_BYTES == len(body) + 1 + SIGNATURE_CHARS


def test_whatever_is_split_is_the_one_spelling_of_it():
    """No bytes raise anything but EncodingError, and joining again gives the same bytes."""
    ends = {"taken": 0, "refused": 0}

    @settings(max_examples=times(100))
    @given(st.binary(max_size=200), st.binary(min_size=64, max_size=64), st.integers(1, TAIL_BYTES), st.characters(max_codepoint=255))
    def judge(data, drawn, behind, character):
        whole = attach(data, drawn)
        at = len(whole) - behind
        # As it is, and with one character of the tail as another: then it is mostly no signature, and sometimes another one.
        changed = whole[:at] + character.encode("latin-1") + whole[at + 1 :]
        for given_ in (data, b"{}." + data, WHOLE[: len(data)] + data, whole, changed):
            try:
                body, signature = split(given_)
            except EncodingError:
                ends["refused"] += 1
                continue
            ends["taken"] += 1
            assert attach(body, signature) == given_

    judge()
    assert ends["taken"] > 100 and ends["refused"] > 100


@pytest.mark.parametrize(
    "data",
    [b"", b".", WHOLE[:-1], WHOLE[1:] + b"A", WHOLE[-86:], WHOLE.replace(b".", b","), WHOLE[:-1] + b"B", WHOLE[:-1] + b"\xe9",
     WHOLE[:-2] + b"==", WHOLE + b"\n", b"body." + b"A" * 85, b"body" + b"A" * 87],
    ids=repr,
)  # fmt: skip
def test_what_ends_in_no_signature_is_refused(data):
    """And it is told which: nothing that could be a signature, or one that is not spelled so."""
    told = "it does not end in a full stop and a signature"
    if data[-TAIL_BYTES:-SIGNATURE_CHARS] == b".":
        told = "base64"
    with pytest.raises(EncodingError, match=told):
        split(data)


def test_a_signature_alone_is_that_of_an_empty_body():
    assert split(WHOLE[-TAIL_BYTES:]) == (b"", SIGNATURE)


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(65)], ids=len)
def test_only_a_whole_signature_is_joined(signature):
    with pytest.raises(ValueError, match="64 bytes"):
        attach(b"body", signature)
