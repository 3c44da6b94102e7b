"""The root record: the identifier's content, which only the issuer can write (spec, "Root record").

Read before the chain is verified, since it names the key that the chain starts from. Until then it
is anybody's word: a verifier uses `v`, `kid` and `aud` of it, and nothing else (spec 9.5).
"""

from __future__ import annotations

import re
from contextlib import suppress

import msgspec

from captoken._format import names
from captoken._format.encoding import (
    MAX_INTEGER,
    OF_ANOTHER_SHAPE,
    EncodingError,
    Integer,
    decode_json,
    own_words,
)
from captoken._format.errors import TokenFormatError
from captoken._format.spelling import shown


class RootRecord(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    gc=False,
):
    """What the issuer said: who, for whom, in which task.

    The only identity to authorize on, once the chain has held (spec 9.6). One that was made by its
    constructor is not checked: `encode` does so.
    """

    subject: str = msgspec.field(name="sub")
    agent: str  # the first agent
    task: str
    token_id: str = msgspec.field(name="jti")
    issued_at: Integer = msgspec.field(name="iat")  # seconds since the epoch
    key_id: str = msgspec.field(name="kid")
    audience: str | None = msgspec.field(default=None, name="aud")
    ext: dict[str, str | Integer] = {}  # facts of the embedding project
    version: int = msgspec.field(name="v")

    def encode(self) -> bytes:
        """The identifier: the bytes that a chain starts with.

        It is read again before it is given out, so that nothing is written that readers refuse. Its
        length is not looked at: `check_limits` does. Raises ValueError for what no root record may
        hold.
        """
        for key, value in self.ext.items():
            _check_fact(key, value)
        try:
            identifier = _encode_root(self)
            RootRecord.decode(identifier)
        except TokenFormatError as error:
            raise ValueError(str(error)) from None
        except (TypeError, UnicodeError):
            raise ValueError(
                "a root record cannot hold this: it has a lone surrogate, or a value of another "
                "type"
            ) from None
        return identifier

    @classmethod
    def decode(cls, identifier: bytes) -> RootRecord:
        """The record that `identifier` spells (spec 9.1 to 9.4).

        Does not verify who wrote it. Raises TokenFormatError and nothing else.
        """
        try:
            record = _decode_root(identifier)
            if _is_plain(identifier) is None:
                _check(record, identifier)
            names.task(record.task)
        except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
            raise _no_root_record(identifier, own_words(error)) from None
        return record


_decode_root = msgspec.json.Decoder(RootRecord).decode
_encode_root = msgspec.json.Encoder(order="sorted").encode

_NAME = names.NAME
# 16 bytes in canonical base64url: the last of 22 characters has 2 bits of them, and 4 that are zero
# (1.2). So every token that is read can be named by its id, in an overlay as well (36.5).
_ID = "[A-Za-z0-9_-]{21}[AQgw]"
# What nearly every identifier is: canonical JSON of version 1 with names where names stand, and
# without `ext`. What matches needs no other check but that of the task's segments; what does not is
# checked part by part. The decoder bounds the integer.
_is_plain = re.compile(
    rf'\{{"agent":"{_NAME}",(?:"aud":"{_NAME}",)?"iat":(?:0|-?[1-9][0-9]{{0,15}}),'
    rf'"jti":"{_ID}","kid":"{_NAME}","sub":"{_NAME}",'
    rf'"task":"{_NAME}","v":1\}}'.encode()
).fullmatch
# Subject, agent, key id and token id, joined by line feeds, which none of them can have.
_are_names = re.compile(rf"(?:{_NAME}\n){{3}}{_ID}").fullmatch


def _check(record: RootRecord, identifier: bytes) -> None:
    """Raise ValueError unless `identifier` is the one spelling of a record of version 1."""
    # The typed decoder takes what is no canonical JSON: so encode again, and compare.
    if record.version != 1 or _encode_root(record) != identifier:
        raise ValueError(OF_ANOTHER_SHAPE)

    # Four names by one match.
    four = (
        record.subject,
        record.agent,
        record.key_id,
        record.token_id,
    )
    if _are_names("\n".join(four)) is None:
        raise ValueError("subject, agent and key id must be names, jti base64url of 16 bytes")

    if record.audience is not None:
        names.name(record.audience, "audience")
    for key in record.ext:
        names.namespaced(key, "name in ext")


def _check_fact(key: str, value: object) -> None:
    """Raise ValueError for what `ext` may not hold: a text or an integer, and nothing else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        kind = type(value).__name__
        raise ValueError(f"{shown(key)} in ext must be a str or an int, not {kind}")
    if isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueError(f"{shown(key)} in ext must be an integer of magnitude below 2^53")


def _no_root_record(identifier: bytes, problem: str) -> TokenFormatError:
    """Why `identifier` is no root record: of a version to come, or malformed.

    The version is looked at before the rest: a later one may have other keys (spec 9.2).
    """
    with suppress(EncodingError):
        version = decode_json(identifier).get("v")
        if type(version) is int and version != 1:
            return TokenFormatError(
                f"this server does not know version {version} of the root record",
                "unsupported_version",
                3,
            )
    return TokenFormatError(f"the root record cannot be read: {problem}", step=3)
