"""A token as one server gets it: narrowed for it, and short-lived (spec, "Token").

`Token.presentation` makes one. It is as secret as the token, though good at one server alone.
"""

from __future__ import annotations

from typing import ClassVar

from captoken._format.encoding import LIMITS
from captoken._format.errors import DelegationError, LimitError
from captoken._format.parts import Parts
from captoken._format.public_keys import public_bytes
from captoken._format.sealed import SealedValue
from captoken._format.text import BOUND, costs, proof_text, whole_text, with_consents
from captoken._writing.keywords import Strings
from captoken.proof import Signer


class Presented(SealedValue, frozen=True, eq=False):
    """A token narrowed for one server, the discharges bound to it, and when it expires."""

    _instead: ClassVar[str] = "send the server its text"

    parts: Parts
    ends: int  # in seconds since the epoch
    consents: tuple[bytes, ...] = ()

    def text(
        self,
        max_chars: int = LIMITS.present_chars,
        proof: bytes | None = None,
    ) -> str:
        """The text for the server, with a proof at its end if there is one.

        Raises LimitError if it is longer than `max_chars`, and says how long each part is.
        """
        parts = self.parts
        written = whole_text(parts.packet, parts.discharges, BOUND)
        written = with_consents(written, self.consents)
        if proof is not None:
            written = f"{written}.{proof_text(proof)}"
        size = len(written)
        if size <= max_chars:
            return written
        del written  # the frame that raises holds nothing usable
        why = f"the text would be {size} characters, more than {max_chars} (max_chars)"
        raise LimitError(why, costs(parts.packet, parts.discharges))

    def __repr__(self) -> str:
        return "<Presented, for one server>"


def proven_server(key: bytes | None, audience: str | Strings, signer: Signer) -> str:
    """The one server that a proof by `signer` is for, of a token that is bound to `key`.

    Raises ValueError unless `audience` names exactly one server. Raises DelegationError if the
    token is bound to another key, or to none.
    """
    if key is None:
        why = "the token is bound to no key, so there is nothing to prove: leave signer out"
        raise DelegationError(why, "bad_proof")
    if public_bytes(signer.public, "signer") != key:
        why = "the signer is not the key that the token is bound to"
        raise DelegationError(why, "bad_proof")
    servers = [audience] if isinstance(audience, str) else sorted(audience)
    if len(servers) != 1:
        raise ValueError("a proof is good at one server: name one audience")
    return servers[0]
