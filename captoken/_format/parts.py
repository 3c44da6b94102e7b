"""What a text is made of: a packet for each token or discharge, consents, and a proof.

Values alone, and read is not verified. `text.py` and `packet.py` make them of a text, and a text of
them.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

# One caveat as it travels: its id, which is a link's bytes, and a verification id. That is empty
# unless a third party is asked.
RawCaveat: TypeAlias = tuple[bytes, bytes]


class Packet(msgspec.Struct, frozen=True, gc=False):
    """A macaroon as it travels: a token's, or a discharge's.

    The signature is the key to every narrower token: a secret, like the text. `repr` shows none of
    it. Read is not verified: whoever has the bytes can write any of these fields.
    """

    identifier: bytes
    caveats: tuple[RawCaveat, ...]
    signature: bytes

    def __repr__(self) -> str:
        """How many caveats there are, and nothing of what they or the signature are."""
        return f"<Packet, {len(self.caveats)} caveats>"


class Parts(msgspec.Struct, frozen=True, gc=False):
    """What a text holds: a token, its discharges and consents, and a proof of whoever sends it.

    Made by `parts_of`. Read is not verified. The text is a secret, and so is this.
    """

    packet: Packet
    discharges: tuple[Packet, ...] = ()
    proof: bytes | None = None
    consents: tuple[bytes, ...] = ()
