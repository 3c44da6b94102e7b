"""Each code and each type of error has an entry in the catalogue, and each example is a message that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import captoken._format.errors as tree
from captoken import Denied, WideningError, errors
from captoken._verification.mistakes import WORDS
from captoken.errors import CODES, StatementError
from captoken.testing import ErrorEntry
from tests.fixtures import mint
from tests.messages import DENIALS, PROMISED
from tests.test_errors import ENTRIES, KNOWN, MESSAGES


def test_every_code_of_a_denial_is_in_the_catalogue() -> None:
    """In the order of the plan, as the codes themselves stand."""
    assert [entry.code for entry in ENTRIES if entry.error is Denied] == list(CODES)


def test_every_type_of_error_is_in_the_catalogue_with_its_codes() -> None:
    """As the tree of errors draws them: below a type the codes that it has, or its only one."""
    drawn: dict[str, list[str]] = {}
    for kind, more, codes in re.findall(r"[├└]── (\w+)(.*\n)((?:    │ {20,}[a-z_, ]+\n)*)", tree.__doc__ or ""):
        drawn[kind] = re.findall(r"\w+", codes) or [getattr(errors, kind).code]
        assert more.strip()
    drawn["Denied"] = list(CODES)
    assert drawn.keys() == PROMISED - {"CaptokenError"}
    told: dict[str, list[str]] = {}
    for entry in ENTRIES:
        told.setdefault(entry.error.__name__, []).append(entry.code)
    assert {kind: sorted(codes) for kind, codes in told.items()} == {kind: sorted(codes) for kind, codes in drawn.items()}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.error.__name__}-{entry.code}")
def test_each_example_is_a_message_that_there_is(entry: ErrorEntry) -> None:
    """Of this error: it fits what stands in the code where it is made."""
    if entry.error is WideningError:
        return  # made of an answer, below
    if entry.error is StatementError:
        assert WORDS[entry.code].fault in entry.example  # of a table
        return
    made = DENIALS | {"StoreError", "TokenFormatError", "EncodingError"} if entry.error is Denied else {entry.error.__name__}
    assert any(message.fits(entry.example) for message in MESSAGES if message.made in made), entry.example


def test_the_examples_of_a_widening_are_messages_that_there_are() -> None:
    token = mint(depth=1, tools={"lookup": {}})
    with pytest.raises(WideningError) as widened:
        token.attenuate(depth=3)
    with pytest.raises(WideningError) as left:
        token.attenuate(tools={"refund": {}}, clamp=True)
    assert str(widened.value) == KNOWN["WideningError", "widening"].example
    assert str(left.value) == KNOWN["WideningError", "nothing_left"].example
    assert (widened.value.code, left.value.code) == ("widening", "nothing_left")


def sentences() -> Iterator[str]:
    for entry in ENTRIES:
        for text in (entry.cause, entry.remedy):
            assert text.endswith(".") and text == " ".join(text.split())
            yield from re.split(r"(?<=[.!?]) ", text)


def test_the_catalogue_is_written_in_short_sentences() -> None:
    words = [len(sentence.split()) for sentence in sentences()]
    assert max(words) <= 35 and sum(words) / len(words) <= 16
