"""Secret keys of one purpose each, public keys as text, and their files (spec, "Key files")."""

from __future__ import annotations

import os
from typing import ClassVar, Self

from msgspec import structs

from captoken._format import primitives
from captoken._format.encoding import (
    b64decode,
    b64encode,
    decode_json,
    encode_json,
)
from captoken._format.entropy import random_bytes
from captoken._format.errors import KeyringError
from captoken._format.primitives import KEY_BYTES, problem_with
from captoken._format.sealed import SealedValue, no_arguments_in_traceback
from captoken._format.spelling import shown_file


class SecretKey(SealedValue, frozen=True, eq=False):
    """A secret of 32 bytes for one purpose, and its public key as base64url.

        key = HolderKey.generate()
        key.save("holder.json")
        HolderKey.load("holder.json").public == key.public

    - Each purpose has a class of its own, so that no key serves two. `load` refuses a file of
      another purpose.
    - Neither pickled nor shown: `save` and `reveal` are the ways out.
    - `public` may be shown to anybody. Whoever is to trust it gets it in a way that it trusts.

    Immutable: threads share a key, and a forked child has it too. To make one costs a computation
    on the curve.
    """

    _instead: ClassVar[str] = "key.save(path)"
    purpose: ClassVar[str]

    _secret: bytes
    public: str = ""  # derived from the secret, whatever is given

    @no_arguments_in_traceback
    def __post_init__(self) -> None:
        problem = problem_with(self._secret)
        if problem is not None:
            kind = ValueError if type(self._secret) is bytes else TypeError
            raise kind(problem)
        structs.force_setattr(self, "public", b64encode(self._publish(self._secret)))

    @staticmethod
    def _publish(secret: bytes) -> bytes:
        """The public key that goes with a secret."""
        return primitives.exchange_public(secret)

    @classmethod
    def generate(cls) -> Self:
        """A fresh key, from the randomness of the system. It is in memory alone until `save`."""
        return cls(random_bytes(KEY_BYTES))

    @classmethod
    @no_arguments_in_traceback
    def from_bytes(cls, secret: bytes) -> Self:
        """The key of a given secret, 32 bytes and not all equal.

        Does not see whether they are random: a password is no secret key. Raises TypeError or
        ValueError for anything else. The error holds nothing of the secret.
        """
        return cls(secret)

    def reveal(self) -> bytes:
        """The secret, for backups. Keep it out of logs and of frames that raise."""
        return self._secret

    @no_arguments_in_traceback
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that its owner alone can read, whole or not at all (spec 27.2).

        The file is not encrypted: whoever can read it has the key. Replaces what is there. Raises
        KeyringError.
        """
        stated = {
            "purpose": self.purpose,
            "secret": b64encode(self._secret),
            "v": 1,
        }
        from captoken.keys.files import write_private

        write_private(path, encode_json(stated) + b"\n")

    @classmethod
    @no_arguments_in_traceback
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The key in a file.

        Raises KeyringError for a file of another purpose, for one that holds no key, and for one
        that others than its owner can read or write.
        """
        from captoken.keys.files import MAKES_A_KEY, read_private

        data = read_private(path, makes=MAKES_A_KEY)
        try:
            return cls(_secret_in(data, cls.purpose))
        except ValueError:  # EncodingError is one
            article = "an" if cls.purpose[0] in "aeiou" else "a"
            raise KeyringError(
                f"the key file {shown_file(path)} does not hold {article} {cls.purpose} key"
            ) from None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.public}>"

    __str__ = __repr__


def _secret_in(data: bytes, purpose: str) -> bytes:
    """The secret in a key file (spec 27.2).

    Raises ValueError for one of another purpose, or for none. Whether it is fit to be a key its
    class says.
    """
    stated = decode_json(data.removesuffix(b"\n"))

    # Exactly these keys, each of exactly this type: True is no version.
    shape = {key: type(value) for key, value in stated.items()}
    if shape != {"purpose": str, "secret": str, "v": int}:
        raise ValueError("a key file has purpose, secret and v")
    if stated["v"] != 1 or stated["purpose"] != purpose:
        raise ValueError("of another version or purpose")
    return b64decode(stated["secret"])


class SigningKey(SecretKey, frozen=True, eq=False):
    """An Ed25519 key of one purpose.

    What it signs begins with a label of that purpose, so that no signature is taken for another.
    """

    @staticmethod
    def _publish(secret: bytes) -> bytes:
        return primitives.signing_public(secret)

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, 64 bytes.

        The message begins with a label of the purpose: the caller sees to that, and nothing here
        checks it.
        """
        return primitives.sign(self._secret + b64decode(self.public), message)


class HolderKey(SigningKey, frozen=True, eq=False):
    """An Ed25519 key that a token can be bound to (spec, "Holder binding").

    Whoever has it can use and hand on what is bound to it. It grants nothing without the token.
    """

    purpose: ClassVar[str] = "holder"


class OperatorKey(SigningKey, frozen=True, eq=False):
    """An Ed25519 key that signs snapshots of one overlay (spec, "Overlay").

    Whoever has it can stop and narrow every token, and lift what others had stopped. It makes no
    token and widens none.
    """

    purpose: ClassVar[str] = "operator"


class AuditKey(SigningKey, frozen=True, eq=False):
    """An Ed25519 key that signs checkpoints of one server's trail (spec, "Audit").

    Whoever has it, and can write the file, can write another trail in its place, until a head of
    the true one is kept by somebody else.
    """

    purpose: ClassVar[str] = "audit"


class ApproverKey(SigningKey, frozen=True, eq=False):
    """An Ed25519 key that a person says yes with, to one access at a time (spec, "Consent").

    Whoever has it can let through each access that needs this person's consent. It grants nothing
    that the token does not permit.
    """

    purpose: ClassVar[str] = "approver"


class DischargerKey(SecretKey, frozen=True, eq=False):
    """An X25519 key that tickets are sealed for (spec, "Third-party caveats").

    Whoever has it can answer all of them, also those that were written before it was stolen.
    """

    purpose: ClassVar[str] = "discharger"
