"""Secret keys of one purpose each, public keys as text, and the files that hold secrets (spec, "Key files")."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Self

from captoken import primitives
from captoken.encoding import EncodingError, b64decode, b64encode, decode_json, encode_json
from captoken.errors import KeyringError
from captoken.sealed import Sealed

KEY_BYTES = 32
KEY_CHARS = 43  # of a public key as text


def problem_with(secret: Any) -> str | None:
    """Why `secret` is not fit to be one, or None. Says nothing of its content."""
    if type(secret) is not bytes:
        return f"a secret key must be bytes, not {type(secret).__name__}"
    if len(secret) != KEY_BYTES:
        return f"a secret key is {KEY_BYTES} bytes, not {len(secret)}"
    if secret.count(secret[0]) == KEY_BYTES:
        return "a secret key whose bytes are all equal is no secret"
    return None


def public_bytes(given: bytes | str, what: str) -> bytes:
    """A public key given as 32 bytes or as their base64url. Does not look at the curve. Raises TypeError or ValueError."""
    if type(given) is str:
        if len(given) != KEY_CHARS:
            raise ValueError(f"{what} is {KEY_CHARS} characters of base64url, not {len(given)}")
        given = b64decode(given)
    if isinstance(given, SecretKey):
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
        raise ValueError(f"{what} is no Ed25519 public key: not canonical, not on the curve, or of low order")
    return public


def exchange_key(given: bytes | str, what: str) -> bytes:
    """An X25519 public key. Raises TypeError, or ValueError for one that is not canonical or of low order."""
    public = public_bytes(given, what)
    if not primitives.is_good_exchange_key(public):
        raise ValueError(f"{what} is no X25519 public key: not canonical, or of low order")
    return public


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
        return cls(primitives.random_bytes(KEY_BYTES))

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
        write_private(path, encode_json({"purpose": self.purpose, "secret": b64encode(self._secret), "v": 1}) + b"\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The key in a file. Refuses one that others than its owner can read or write. Raises KeyringError."""
        data = read_private(path)
        problem = KeyringError(f"the file does not hold {'an' if cls.purpose[0] in 'aeiou' else 'a'} {cls.purpose} key")
        try:
            stated = decode_json(data.removesuffix(b"\n"))
            shape = {key: type(value) for key, value in stated.items()}
            if shape == {"purpose": str, "secret": str, "v": int} and stated["v"] == 1 and stated["purpose"] == cls.purpose:
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


def write_private(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that its owner alone can read, whole or not at all. Replaces what is there, behind a link too.

    Two that write at once are not merged: the last one stays. Raises KeyringError.
    """
    target = os.path.realpath(path)
    temporary = f"{target}.{os.urandom(8).hex()}.part"
    problem = ""
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        problem = error.strerror or "no reason given"
    if problem:
        del data  # so that no frame that raises holds a key
        raise KeyringError(f"the key file cannot be saved: {problem}")


def read_private(path: str | os.PathLike[str]) -> bytes:
    """What is in a file that its owner alone can read or write. Raises KeyringError."""
    try:
        with open(path, "rb") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise KeyringError("the key file is open to others than its owner: chmod 600 it")
            return file.read(1 << 20)
    except OSError as error:
        raise KeyringError(f"the key file cannot be read: {error.strerror}") from None
