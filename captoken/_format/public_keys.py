"""Public keys as others give them (spec, "Key files").

Two questions: is it spelled as one key is, and can somebody have made it? A key of low order has no
secret of its own: a signature or a shared secret under it shows nothing (spec 27.5).

Whose key it is no function here can say. Callers get public keys in a way that they trust.

    public_bytes    the spelling alone
    signing_key     and that it is a key to check signatures by (Ed25519)
    exchange_key    and that it is a key to agree on a secret with (X25519)

Both kinds are 32 bytes, and nothing in them tells one from the other. So a slip between them shows
only as a signature that fails, or a box that does not open.
"""

from __future__ import annotations

from typing import Any

from captoken._format import primitives
from captoken._format.encoding import b64decode
from captoken._format.primitives import KEY_BYTES

# The length of a public key as base64url without padding: 256 bits at 6 bits a character.
KEY_CHARS = 43


def public_bytes(given: bytes | str, what: str) -> bytes:
    """A public key given as 32 bytes or as their base64url.

    `what` names it in errors. Does not look at the curve: `signing_key` and `exchange_key` do.
    Raises TypeError for another type, ValueError for another length or spelling.

        public_bytes(holder.public, "key")   # 32 bytes
        public_bytes(holder, "key")          # TypeError: that is the secret half too
    """
    public: Any = given
    if type(public) is str:
        # The length comes first, so that a text of any length costs nothing.
        if len(public) == KEY_CHARS + 1 and public[-1] == "\n":
            raise ValueError(f"{what} ends in a line feed: read the file with .strip()")
        if len(public) != KEY_CHARS:
            raise ValueError(f"{what} is {KEY_CHARS} characters of base64url, not {len(public)}")
        public = b64decode(public)

    if type(public) is not bytes:
        # A key of ours has its public half as text: one that is given whole is a slip that would
        # put a secret where everybody looks.
        if hasattr(public, "public"):
            raise TypeError(f"{what} must be the public key: pass .public")
        kind = type(public).__name__
        raise TypeError(f"{what} must be 32 bytes or their base64url, not {kind}")
    if len(public) != KEY_BYTES:
        raise ValueError(f"{what} is {KEY_BYTES} bytes, not {len(public)}")
    return public


def signing_key(given: bytes | str, what: str = "key") -> bytes:
    """An Ed25519 public key, of a holder, an operator or a server, as 32 bytes.

    Asks libsodium, so that a slip shows when a verifier is made, and not by a denial later.

    Raises TypeError, or ValueError for one that is not canonical, not a point, or of low order.
    """
    public = public_bytes(given, what)
    if not primitives.is_good_signing_key(public):
        raise ValueError(
            f"{what} is not an Ed25519 public key: not canonical, not on the curve, or of low order"
        )
    return public


def exchange_key(given: bytes | str, what: str) -> bytes:
    """An X25519 public key, of a discharger or of the other side of a pair, as 32 bytes.

    Asks libsodium: under a key of low order everybody derives the same secret, and so could read
    what is meant for one.

    Raises TypeError, or ValueError for one that is not canonical or of low order.
    """
    public = public_bytes(given, what)
    if not primitives.is_good_exchange_key(public):
        raise ValueError(f"{what} is not an X25519 public key: not canonical, or of low order")
    return public
