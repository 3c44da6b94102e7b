"""Tokens as text, and the root record in them: one spelling, one exception, nothing believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from captoken import Token, TokenFormatError
from captoken._format.encoding import OF_ANOTHER_SHAPE, b64encode, encode_json
from captoken._format.packet import encode
from captoken._format.parts import Packet
from captoken._format.root import RootRecord
from tests.fixtures import NOW, SALES, code, data, mint

RECORD = {"agent": "orchestrator", "iat": NOW, "jti": "A" * 22, "kid": "k1", "sub": "user:jane", "task": "task-123", "v": 1}


def text(identifier: bytes, *links: bytes) -> str:
    return "cap1_" + b64encode(encode(Packet(identifier, tuple((link, b"") for link in links), bytes(32))))


def test_a_token_is_equal_to_another_of_the_same_text() -> None:
    token = mint()
    again = Token.parse(token.serialize())
    assert token == again and (token != again) is False and hash(token) == hash(again)
    assert token != mint().attenuate(tables=["sales"]) and token != token.serialize()
    twin = Token.of(Packet(token.secret_packet.identifier, token.secret_packet.caveats, bytes(32)), token.unverified.root, token.context)
    assert token != twin, "the signature counts too"


def test_the_root_record_is_read_strictly() -> None:
    assert RootRecord.decode(encode_json(RECORD)).subject == "user:jane"
    assert RootRecord.decode(encode_json({**RECORD, "aud": "sales-db", "ext": {"acme:t": 1, "acme:u": "\u00e9"}})).ext["acme:t"] == 1
    for change in (
        {"v": True}, {"v": "1"}, {"v": None}, {"iat": "1"}, {"iat": 1.0}, {"iat": 2**53}, {"iat": True}, {"jti": "A" * 21},
        {"jti": "A" * 21 + "+"}, {"jti": 5}, {"kid": ""}, {"sub": "user jane"}, {"sub": "a\nb"}, {"agent": "\u00e9"}, {"task": "a//b"},
        {"task": "."}, {"aud": ["a"]}, {"aud": ""}, {"ext": {}}, {"ext": []}, {"ext": {"t": 1}}, {"ext": {":t": 1}}, {"ext": {"a:t": True}},
        {"ext": {"a:t": []}}, {"exp": 5}, {"agent": None},
    ):  # fmt: skip
        with pytest.raises(TokenFormatError) as caught:
            RootRecord.decode(json.dumps({**RECORD, **change}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
        assert (caught.value.code, caught.value.step) == ("malformed", 3), change
    for key in RECORD:
        with pytest.raises(TokenFormatError):
            RootRecord.decode(encode_json({other: value for other, value in RECORD.items() if other != key}))
    for version in (0, 2, -1, 2**53 - 1):
        with pytest.raises(TokenFormatError) as caught:
            RootRecord.decode(encode_json({"v": version, "whatever": [1]}))
        assert caught.value.code == "unsupported_version"
    assert code(text(encode_json({"v": 2}), b"{}"), data("sales")) == "unsupported_version"


@pytest.mark.parametrize(
    "identifier",
    [b"", b"{", b"\xff", b'"\xff"', b"[]", b"[" * 100_000, encode_json({**RECORD, "iat": "1"}), encode_json({**RECORD, "x": 1})],
    ids=["nothing", "cut", "no UTF-8", "no UTF-8 in a string", "a list", "deep", "a type", "a key"],
)
def test_an_unreadable_root_record_is_told_in_words_of_our_own(identifier: bytes) -> None:
    """The decoder's words change from release to release, and so they reach nobody."""
    with pytest.raises(TokenFormatError) as caught:
        RootRecord.decode(identifier)
    assert str(caught.value) == f"the root record cannot be read: {OF_ANOTHER_SHAPE}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.0, "must be a str or an int, not float"),
        (True, "must be a str or an int, not bool"),
        ([], "must be a str or an int, not list"),
        (2**53, "must be an integer of magnitude below 2\\^53"),
        (-(2**53), "must be an integer of magnitude below 2\\^53"),
        ("\ud800", "a root record cannot hold this: it has a lone surrogate, or a value"),
    ],
)
def test_a_fact_that_no_root_record_holds_is_named(value: Any, words: str) -> None:
    assert mint(**SALES, ext={"acme:x": 2**53 - 1, "acme:y": "\u00e9"}).unverified.root.ext["acme:x"] == 2**53 - 1
    with pytest.raises(ValueError, match=words):
        mint(**SALES, ext={"acme:x": value})


def test_a_root_record_that_cannot_be_read_is_not_written() -> None:
    good: dict[str, Any] = {
        "subject": "user:jane", "agent": "a", "task": "t", "token_id": "A" * 22, "issued_at": 1, "key_id": "k1", "version": 1,
    }  # fmt: skip
    assert RootRecord(**good).encode()
    for change in ({"subject": 5}, {"task": "/"}, {"version": 2}, {"issued_at": 2**60}, {"ext": {"a:b": object()}}, {"ext": {"a:b": 1.0}},
                   {"ext": {"a:b": "\ud800"}}, {"ext": {"a:b": True}}, {"issued_at": True}):  # fmt: skip
        with pytest.raises(ValueError):
            RootRecord(**{**good, **change}).encode()


def test_a_token_without_a_link_is_none() -> None:
    with pytest.raises(TokenFormatError, match="the token has no link: its issuer writes at least one"):
        Token.parse(text(encode_json(RECORD)))
    assert Token.parse(text(encode_json(RECORD), b"{}"))


@pytest.mark.parametrize(
    "hostile",
    ["", "cap1_", "cap2_" + mint().serialize()[5:], "CAP1_" + mint().serialize()[5:], " " + mint().serialize(), mint().serialize() + "\n",
     mint().serialize() + "=", mint().serialize() + "A", "cap1_\u00e9", "cap1_" + "A" * 9000, mint().serialize().replace("_", "/", 1)],
)  # fmt: skip
def test_a_token_has_one_text(hostile: str) -> None:
    with pytest.raises(TokenFormatError):
        Token.parse(hostile)
