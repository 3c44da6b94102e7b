"""Public keys as others give them: their form, and whether they are keys that somebody can have made (spec, "Keys")."""

from __future__ import annotations

from captoken._format import primitives
from captoken._format.encoding import b64decode

KEY_BYTES = 32


KEY_CHARS = 43  # of a public key as text


def public_bytes(given: bytes | str, what: str) -> bytes:
    """A public key given as 32 bytes or as their base64url. Does not look at the curve. Raises TypeError or ValueError."""
    if type(given) is str:
        if len(given) != KEY_CHARS:
            raise ValueError(f"{what} is {KEY_CHARS} characters of base64url, not {len(given)}")
        given = b64decode(given)
    if type(given) is not bytes and hasattr(given, "public"):
        raise TypeError(f"{what} is a public key: say .public")
    if type(given) is not bytes:
        raise TypeError(f"{what} must be 32 bytes or their base64url, not {type(given).__name__}")
    if len(given) != KEY_BYTES:
        raise ValueError(f"{what} is {KEY_BYTES} bytes, not {len(given)}")
    return given


def signing_key(given: bytes | str, what: str = "key") -> bytes:
    """An Ed25519 public key. Raises TypeError, or ValueError for one that is not canonical or of low order."""
    public = public_bytes(given, what)
    if not primitives.is_good_signing_key(public):
        raise ValueError(
            f"{what} is no Ed25519 public key: not canonical, not on the curve, or of low order"
        )
    return public


def exchange_key(given: bytes | str, what: str) -> bytes:
    """An X25519 public key. Raises TypeError, or ValueError for one that is not canonical or of low order."""
    public = public_bytes(given, what)
    if not primitives.is_good_exchange_key(public):
        raise ValueError(f"{what} is no X25519 public key: not canonical, or of low order")
    return public
