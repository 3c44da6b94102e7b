"""Convert tokens to and from other macaroon libraries (spec, "Interop").

A token is a macaroon of version 2, as libmacaroons defined it. Other libraries use another base64
alphabet, padding, or empty location fields; captoken accepts only one spelling. The two pymacaroons
functions need the extra `interop`.

    from captoken.interop import normalize, to_pymacaroons

    text = normalize(foreign)          # cap1_…, or TokenFormatError
    macaroon = to_pymacaroons(token)
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING

from captoken._format import packet as wire
from captoken._format.encoding import LIMITS, b64encode
from captoken._format.errors import TokenFormatError
from captoken._format.extras import extra
from captoken._format.text import PREFIX, text_of
from captoken._language.discharge import Discharge
from captoken._writing.token import Token

if TYPE_CHECKING:
    from pymacaroons import Macaroon

# Either alphabet, never mixed: a text in both would be one that nobody has written.
_is_base64 = re.compile(
    r"""
    (?: [A-Za-z0-9+/]* | [A-Za-z0-9_-]* )
    ={0,2}
    """,
    re.VERBOSE,
).fullmatch


def normalize(foreign: bytes | str) -> str:
    """The canonical text of a token that another library wrote.

    `foreign` is V2 binary, or its base64 in any alphabet, padded or not. Empty location fields are
    dropped. A location that is not empty is refused, because the signature does not cover it.

    Does not verify anything. Raises TokenFormatError for anything that is not a token after that.

    Call it only where such tokens arrive. A server that normalises everything accepts many texts
    for one token, which a deny-list of texts would miss.
    """
    if isinstance(foreign, str):
        foreign = _decoded(foreign)
    elif not isinstance(foreign, bytes):
        raise TokenFormatError(f"a token is text or bytes, not {type(foreign).__name__}")

    # From the bytes to a packet and back again: what comes out is in the one spelling.
    packet = wire.decode(wire.without_locations(foreign))
    text = text_of(packet)

    # To read it back checks what a packet alone does not: that the links are those of a token.
    Token.parse(text)
    return text


def _decoded(text: str) -> bytes:
    """The bytes of base64 in one alphabet, padded or not. Raises TokenFormatError.

    Not as strict as the core: bits that no byte uses are not looked at. They are gone when the
    token is written again.
    """
    text = text.removeprefix(PREFIX)
    # The length comes first: nothing is done with a text that is too long.
    if len(text) > LIMITS.token_chars:
        raise TokenFormatError(f"longer than {LIMITS.token_chars} characters", step=1)
    if _is_base64(text) is None:
        raise TokenFormatError("not base64 in one alphabet: a foreign character is in the text")

    # Into the standard alphabet, with as much padding as the length asks for.
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    padding = "=" * (-len(bare) % 4)
    try:
        return binascii.a2b_base64(bare + padding)
    except ValueError:
        # A length that base64 cannot have. The error is left out: it is about secret text.
        raise TokenFormatError("not base64") from None


def to_pymacaroons(made: Token | Discharge) -> Macaroon:
    """The same token or discharge as a `pymacaroons.Macaroon` of version 2.

    It holds the signature: as secret as the text. A token goes without its discharges, since
    pymacaroons binds them itself.
    """
    # Here, and not above: the package is an extra, which most installations do not have.
    with extra("interop"):
        from pymacaroons import Macaroon

    packet = made.packet if isinstance(made, Discharge) else made.secret_packet
    return Macaroon.deserialize(b64encode(wire.encode(packet)))


def from_pymacaroons(macaroon: Macaroon) -> Token:
    """The token that a `pymacaroons.Macaroon` of version 2 holds.

        token = from_pymacaroons(Macaroon.deserialize(foreign))

    Does not verify anything. Raises TokenFormatError for what is none of ours, and TypeError for
    what is no Macaroon. Links that it has are taken as they are, also those we cannot read.
    """
    with extra("interop"):
        from pymacaroons import Macaroon as Known
        from pymacaroons.serializers import BinarySerializer

    if not isinstance(macaroon, Known):
        raise TypeError(f"a pymacaroons.Macaroon is needed, not {type(macaroon).__name__}")
    try:
        written = BinarySerializer().serialize(macaroon)
    except Exception as error:
        # It raises many kinds, and not all of them its own.
        raise TokenFormatError(f"pymacaroons cannot write it: {type(error).__name__}") from None
    return Token.parse(normalize(written))
