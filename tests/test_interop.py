"""Tokens of other macaroon libraries: their spellings come in, ours goes out."""

from __future__ import annotations

import pytest

from captoken import Token, TokenFormatError, interop
from tests.fixtures import code, data, mint


def test_interop_takes_other_spellings_and_gives_ours() -> None:
    """Either alphabet, padded or not, raw bytes, with empty locations: one text comes out. Locations that say something do not pass."""
    import base64

    ours = mint().delegate(to="b").serialize()
    raw = interop.to_pymacaroons(Token.parse(ours)).serialize()
    binary = base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4))
    assert binary[1:3] == b"\x01\x00", "pymacaroons writes an empty location"
    for spelling in (ours, raw, binary, base64.b64encode(binary).decode(), base64.urlsafe_b64encode(binary).decode(), ours + "=="):
        assert interop.normalize(spelling) == ours
    located = b"\x02\x01\x01x" + binary[3:]
    for wrong in (located, binary + b"\0", binary[:-1], b"", "", "!", ours[:50] + "\n" + ours[50:], "A" * 9000, "+-" + raw, None, 5, "AAAAA"):
        with pytest.raises(TokenFormatError):
            interop.normalize(wrong)  # type: ignore[arg-type]


def test_interop_comes_and_goes_through_pymacaroons() -> None:
    from pymacaroons import Macaroon

    token = mint()
    macaroon = interop.to_pymacaroons(token)
    assert interop.from_pymacaroons(macaroon) == token
    macaroon.add_first_party_caveat('{"tables":["sales"]}')
    narrowed = interop.from_pymacaroons(macaroon)
    assert code(narrowed, data("sales")) == "allowed" and code(narrowed, data("market.eu")) == "table"
    with pytest.raises(TypeError):
        interop.from_pymacaroons(token)
    with pytest.raises(TokenFormatError):
        interop.from_pymacaroons(Macaroon(location="", identifier="not ours", key="k", version=2))
    macaroon._signature = "not hex"
    with pytest.raises(TokenFormatError, match="pymacaroons cannot write it"):
        interop.from_pymacaroons(macaroon)
