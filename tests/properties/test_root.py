"""The short way to read a root record agrees with the general one, on records and on what is nearly one."""

from __future__ import annotations

import pytest

from captoken._format import root
from captoken._format.errors import TokenFormatError
from captoken._format.root import RootRecord
from captoken._language.entries import Selector, SelectorFacts
from tests.fixtures import mint
from tests.longer import drawing, times

IDENTIFIERS = [
    mint().unverified.root.encode(),
    mint(tables=["a"], operations=["b"], ext={"acme:n": 5}).unverified.root.encode(),
    b'{"agent":"a","aud":"sales-db","iat":-1,"jti":"AAAAAAAAAAAAAAAAAAAAAA","kid":"k","sub":"s","task":"t/x","v":1}',
    b'{"agent":"a","iat":0,"jti":"AAAAAAAAAAAAAAAAAAAAAA","kid":"k","sub":"s","task":"t","v":1}',
]
LETTERS = b'abz019-+"\\:{},./_ \x00\xe9e'


@pytest.mark.parametrize("identifier", IDENTIFIERS, ids=["minted", "with ext", "for one server", "at the epoch"])
def test_what_looks_plain_passes_every_check_of_the_general_way(identifier: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 spellings up to three letters off: each is read alike by both ways, or refused by both."""
    drawn = drawing(7)
    spellings = []
    for _ in range(times(20_000)):
        spelled = bytearray(identifier)
        for _ in range(drawn.choice((0, 1, 1, 2, 3))):
            at = drawn.randrange(len(spelled))
            spelled[at : at + drawn.choice((0, 1))] = bytes([drawn.choice(LETTERS)])
        spellings.append(bytes(spelled))

    def read(spelled: bytes) -> RootRecord | None:
        try:
            return RootRecord.decode(spelled)
        except TokenFormatError:
            return None

    short = list(map(read, spellings))
    monkeypatch.setattr(root, "_is_plain", lambda _: None)
    assert short == list(map(read, spellings))
    assert 0 < sum(one is not None for one in short) < len(short)


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize("ext", ["", '"ext":{"acme:n":5},'], ids=["the short way", "the general way"])
def test_every_token_that_is_read_can_be_selected_by_its_id(ext: str) -> None:
    """All 64 characters that a token id can end in, by both ways: it is read where a selector takes it, and only there."""
    taken = set()
    for last in ALPHABET:
        token_id = "0123456789_-abcdefghi" + last
        spelled = f'{{"agent":"a",{ext}"iat":0,"jti":"{token_id}","kid":"k","sub":"s","task":"t","v":1}}'
        try:
            read = RootRecord.decode(spelled.encode())
        except TokenFormatError as error:
            assert error.code == "malformed"
            with pytest.raises(ValueError):
                Selector(token=token_id)
        else:
            facts = SelectorFacts(read, [], "t", ("a",))
            assert Selector(token=token_id).selects(facts)
            taken.add(last)
    assert taken == set("AQgw")
