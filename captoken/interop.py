"""To and from other macaroon libraries (spec, "Interop"). Needs the extra `interop` for the two pymacaroons functions."""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING

from captoken._format import packet as wire
from captoken._format.encoding import LIMITS, b64encode
from captoken._format.errors import TokenFormatError
from captoken._format.text import PREFIX, text_of
from captoken._language.discharge import Discharge
from captoken._writing.token import Token

if TYPE_CHECKING:
    from pymacaroons import Macaroon

_is_base64 = re.compile(
    r"(?:[A-Za-z0-9+/]*|[A-Za-z0-9_-]*)={0,2}"
).fullmatch  # either alphabet, never mixed


def normalize(foreign: bytes | str) -> str:
    """Our one spelling of a token that another library wrote: V2 binary, or its base64 in any alphabet, padded or not.

    Empty location fields are dropped; one that says something is refused, since a location is outside the signature.
    Does not verify anything. Raises TokenFormatError for what is no token of ours even so.
    """
    if isinstance(foreign, str):
        text = foreign.removeprefix(PREFIX)
        if len(text) > LIMITS.token_chars:
            raise TokenFormatError(f"longer than {LIMITS.token_chars} characters", step=1)
        if _is_base64(text) is None:
            raise TokenFormatError("not base64 in one alphabet")
        bare = text.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            foreign = binascii.a2b_base64(bare + "=" * (-len(bare) % 4))
        except ValueError:
            raise TokenFormatError("not base64") from None
    elif not isinstance(foreign, bytes):
        raise TokenFormatError(f"a token is text or bytes, not {type(foreign).__name__}")
    text = text_of(wire.decode(foreign, foreign=True))
    Token.parse(text)
    return text


def to_pymacaroons(made: Token | Discharge) -> Macaroon:
    """The same token or discharge as a `pymacaroons.Macaroon` of version 2. It holds the signature: as secret as the text.

    A token goes without its discharges: pymacaroons binds them itself.
    """
    from pymacaroons import Macaroon

    packet = made.packet if isinstance(made, Discharge) else made.secret_packet
    return Macaroon.deserialize(b64encode(wire.encode(packet)))


def from_pymacaroons(macaroon: Macaroon) -> Token:
    """The token that a `pymacaroons.Macaroon` of version 2 holds. Raises TokenFormatError for what is none of ours."""
    from pymacaroons import Macaroon as Known
    from pymacaroons.serializers import BinarySerializer

    if not isinstance(macaroon, Known):
        raise TypeError(f"a pymacaroons.Macaroon, not {type(macaroon).__name__}")
    try:
        written = BinarySerializer().serialize(macaroon)
    except Exception as error:  # it raises many kinds
        raise TokenFormatError(f"pymacaroons cannot write it: {type(error).__name__}") from None
    return Token.parse(normalize(written))
