"""Secret keys of one purpose each, public keys as text, and the files that hold secrets (spec, "Key files")."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Self

from captoken._format import primitives
from captoken._format.encoding import (
    EncodingError,
    b64decode,
    b64encode,
    decode_json,
    encode_json,
)
from captoken._format.entropy import random_bytes
from captoken._format.errors import KeyringError
from captoken._format.public_keys import KEY_BYTES
from captoken._format.sealed import Sealed
from captoken.keys.files import read_private, write_private


def problem_with(secret: Any) -> str | None:
    """Why `secret` is not fit to be one, or None. Says nothing of its content."""
    if type(secret) is not bytes:
        return f"a secret key must be bytes, not {type(secret).__name__}"
    if len(secret) != KEY_BYTES:
        return f"a secret key is {KEY_BYTES} bytes, not {len(secret)}"
    if secret.count(secret[0]) == KEY_BYTES:
        return "a secret key whose bytes are all equal is no secret"
    return None


class SecretKey(Sealed):
    """A secret of 32 bytes for one purpose, with the public key that goes with it, as base64url.

    Each purpose has a class of its own, so that no key serves two. `load` refuses a file of another purpose.
    """

    __slots__ = ("_secret", "public")
    _instead = "key.save(path)"
    purpose: ClassVar[str]

    _secret: bytes
    public: str

    def __init__(self, secret: bytes) -> None:
        problem = problem_with(secret)
        if problem is not None:
            kind = TypeError if type(secret) is not bytes else ValueError
            del secret
            raise kind(problem)
        object.__setattr__(self, "_secret", secret)
        object.__setattr__(self, "public", b64encode(self._publish(secret)))

    @staticmethod
    def _publish(secret: bytes) -> bytes:
        return primitives.exchange_public(secret)

    @classmethod
    def generate(cls) -> Self:
        """A fresh key."""
        return cls(random_bytes(KEY_BYTES))

    @classmethod
    def from_bytes(cls, secret: bytes) -> Self:
        """The key of a given secret, 32 bytes and not all equal. Raises TypeError or ValueError for anything else."""
        problem = problem_with(secret)
        if problem is None:
            return cls(secret)
        kind = TypeError if type(secret) is not bytes else ValueError
        del secret  # so that no frame that raises holds it
        raise kind(problem)

    def reveal(self) -> bytes:
        """The secret, said aloud: for backups."""
        return self._secret

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that its owner alone can read, whole or not at all. Raises KeyringError."""
        write_private(
            path,
            encode_json({"purpose": self.purpose, "secret": b64encode(self._secret), "v": 1})
            + b"\n",
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The key in a file. Refuses one that others than its owner can read or write. Raises KeyringError."""
        data = read_private(path)
        problem = KeyringError(
            f"the file does not hold {'an' if cls.purpose[0] in 'aeiou' else 'a'} {cls.purpose} key"
        )
        try:
            stated = decode_json(data.removesuffix(b"\n"))
            shape = {key: type(value) for key, value in stated.items()}
            if (
                shape == {"purpose": str, "secret": str, "v": int}
                and stated["v"] == 1
                and stated["purpose"] == cls.purpose
            ):
                return cls(b64decode(stated["secret"]))
        except (EncodingError, ValueError):
            stated = {}
        del data, stated
        raise problem

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.public}>"

    __str__ = __repr__


class SigningKey(SecretKey):
    """An Ed25519 key of one purpose."""

    __slots__ = ()

    @staticmethod
    def _publish(secret: bytes) -> bytes:
        return primitives.signing_public(secret)

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, 64 bytes."""
        return primitives.sign(self._secret + b64decode(self.public), message)


class HolderKey(SigningKey):
    """An Ed25519 key that a token can be bound to. Whoever has it can use and hand on what is bound to it."""

    __slots__ = ()
    purpose = "holder"


class OperatorKey(SigningKey):
    """An Ed25519 key that signs snapshots. Whoever has it can stop and narrow every token; it cannot widen one."""

    __slots__ = ()
    purpose = "operator"


class AuditKey(SigningKey):
    """An Ed25519 key that signs checkpoints of one server's trail."""

    __slots__ = ()
    purpose = "audit"


class DischargerKey(SecretKey):
    """An X25519 key that tickets are sealed for. Whoever has it can answer them all."""

    __slots__ = ()
    purpose = "discharger"
