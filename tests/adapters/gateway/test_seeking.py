"""A key of a service that comes back in an answer is found, however the answer is cut."""

from __future__ import annotations

import base64

import pytest

from captoken.adapters._gateway.credentials import (
    checked,
)
from captoken.adapters._gateway.seeking import SHORTEST, Seeker, Told, spellings_of
from tests.adapters.test_gateway import KEY, LONG, SPELLINGS


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 64])
def test_it_is_found_however_the_answer_is_cut(spelling: str, size: int) -> None:
    """And nothing of it has gone on before."""
    text = b'{"a":"%41\\u0042", "b": "' + SPELLINGS[spelling] + b'"}'
    seeker = Seeker(spellings_of(checked(KEY)))
    sent = b""
    with pytest.raises(Told):
        for at in range(0, len(text), size):
            sent += seeker.feed(text[at : at + size])
        sent += seeker.end()
    assert text.startswith(sent) and SPELLINGS[spelling][:16] not in sent


@pytest.mark.parametrize("size", [1, 3, 64, 100_000])
def test_other_answers_go_through_as_they_are_and_only_a_beginning_is_held(size: int) -> None:
    near = KEY[:-1].encode()
    text = near + b"%" + near + b"\\u00" + LONG + b"data: 1\n\n" + base64.b64encode(near) + near + b" %7"
    seeker = Seeker(spellings_of(checked(KEY)))
    sent = b"".join(seeker.feed(text[at : at + size]) for at in range(0, len(text), size))
    assert text.startswith(sent) and len(text) - len(sent) <= 3 and sent + seeker.end() == text
    whole = Seeker(spellings_of(checked(KEY)))
    assert whole.feed(b"data: 1\n\n") == b"data: 1\n\n" and whole.feed(b'{"a": "b\\n"}') == b'{"a": "b\\n"}'


def test_a_short_key_is_not_looked_for() -> None:
    short = "s" * (SHORTEST - 1)
    seeker = Seeker(spellings_of(checked(short)))
    seeker.look(short.encode())
    assert seeker.feed(short.encode()) == short.encode() and seeker.end() == b""
