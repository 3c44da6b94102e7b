"""Root keys by key id, and keys derived for one audience (spec, "Keys").

How a verifier gets the key of a token:

    (kid, aud) of the root record, which nobody has verified yet
    the root key called kid, or the key derived from it for that audience
    the macaroon key, where the chain of that token starts

If there is no key, the token is denied before any HMAC. A token can neither bring its own key nor
choose an algorithm. The worst that a forged token can do is to name a key that is here, and its
chain is not valid under that key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from msgspec import structs

from captoken._format import chain, names, primitives
from captoken._format.encoding import b64decode, b64encode, decode_json, encode_json
from captoken._format.entropy import random_bytes
from captoken._format.errors import KeyringError
from captoken._format.names import frozen_copy
from captoken._format.primitives import KEY_BYTES, problem_with
from captoken._format.sealed import SealedValue, no_arguments_in_traceback
from captoken._format.spelling import named_all, shown, shown_file


class Keyring(SealedValue, frozen=True, eq=False):
    """Root keys. Whoever has them can mint any token. Immutable: `rotate` and `retire` return a new
    one.

        keyring = Keyring.generate()
        keyring.save("keyring.json")                    # for the issuer
        keyring.for_audience("sales-db").save(path)     # for one server: enough to verify there

    - `generate` and `rotate` draw random key ids, so that two issuers never share one.
    - A keyring derives the key of any audience.
    - `for_audience` returns one with only the keys of that audience. It can neither rotate nor
      derive keys, and a server that has it cannot forge tokens for other servers.

    Threads may share one, as it never changes; to use a new one, give it to a new verifier. It
    cannot be pickled, and its `repr` shows no key. Making one costs an HMAC for each key.
    """

    _instead: ClassVar[str] = "keyring.save(path)"

    _keys: Mapping[str, bytes]
    current: str  # the id of the key that mints
    audience: str | None = None  # whose keys these are; None for keys that derive any
    _derived: Mapping[str, bytes] = {}  # the macaroon keys, where every chain starts

    @no_arguments_in_traceback
    def __post_init__(self) -> None:
        # The mapping that was given is the caller's, and may change: a copy of it was checked.
        keys = _checked(self._keys, self.current)
        structs.force_setattr(self, "_keys", keys)

        # Once, since every token that is verified starts from one of these.
        derived = {key_id: chain.derive(key) for key_id, key in keys.items()}
        structs.force_setattr(self, "_derived", derived)

    @classmethod
    def generate(cls) -> Keyring:
        """Make a keyring with one new key. It is only in memory until you `save` it."""
        key_id = _fresh_id()
        return cls({key_id: random_bytes(KEY_BYTES)}, key_id)

    @classmethod
    @no_arguments_in_traceback
    def from_keys(cls, keys: Mapping[str, bytes], current: str) -> Keyring:
        """Make a keyring of your own keys by key id: 32 bytes each, and not all equal.

        Does not see whether they are random. Raises TypeError or ValueError for anything else; the
        error holds nothing of a key.
        """
        return cls(keys, current)

    def rotate(self) -> Keyring:
        """Add a new key and make it current. Older keys still verify until you retire them.

        Servers need the new keyring before the issuer mints by it. Raises ValueError for a keyring
        for one audience.
        """
        if self.audience is not None:
            raise ValueError(
                "a keyring for one audience does not rotate: rotate the one it was derived from"
            )
        key_id = _fresh_id()
        return Keyring({**self._keys, key_id: random_bytes(KEY_BYTES)}, key_id)

    def retire(self, key_id: str) -> Keyring:
        """Remove a key. Its tokens stop verifying on servers that use the new keyring.

        A keyring that was derived before still has the key of its audience: servers need a new one.
        Raises ValueError for an unknown key id and for the current one.
        """
        self._check_known(key_id)
        if key_id == self.current:
            raise ValueError("the current key is not retired: rotate first, and retire it then")

        rest = {other: key for other, key in self._keys.items() if other != key_id}
        return Keyring(rest, self.current, self.audience)

    def reveal(self, key_id: str) -> bytes:
        """Return the bytes of a key, for backups and interop.

        Whoever has them can mint anything, or anything for one audience. Raises ValueError for an
        unknown key id.
        """
        self._check_known(key_id)
        return self._keys[key_id]

    def _check_known(self, key_id: str) -> None:
        """Raise ValueError for a key id that is not here."""
        if key_id not in self._keys:
            raise ValueError(
                f"no key is called {shown(key_id)}: the keyring has {named_all(self._keys)}"
            )

    def for_audience(self, audience: str) -> Keyring:
        """Derive the keys of one server. With them it can forge tokens for itself only.

        `audience` is the server's name. The derived keyring cannot verify tokens without an `aud`
        in their root record, since their key is the root key itself (spec 21.4).

        Raises ValueError for what is no name, and for a keyring that is derived already.
        """
        if self.audience is not None:
            raise ValueError(
                "a keyring for one audience does not derive others: "
                "derive from the one that this came from"
            )
        names.name(audience, "audience")
        keys = {
            key_id: primitives.audience_key(key, audience) for key_id, key in self._keys.items()
        }
        return Keyring(keys, self.current, audience)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of all keys that verify, in no order: `current` says which one mints.

        They are public: every token says one.
        """
        return tuple(self._keys)

    @property
    def minting(self) -> bytes:
        """The macaroon key of the current key: where an issuer's chains start.

        Secret, as the key itself is: whoever has it mints what this keyring verifies.
        """
        return self._derived[self.current]

    def derived(self, key_id: str, audience: str | None) -> bytes | None:
        """The macaroon key behind (key id, audience), or None. Secret; for verifiers.

        Both are what an unverified token says of itself. A token names one of these keys or none:
        nothing in it can bring a key along (spec 21.2 to 21.4).
        """
        if audience == self.audience:
            return self._derived.get(key_id)
        if audience is None or self.audience is not None:
            return None  # keys of one audience say nothing of another's

        key = self._keys.get(key_id)
        if key is None:
            return None
        return chain.derive(primitives.audience_key(key, audience))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that only its owner can read, completely or not at all.

        The file is not encrypted: whoever can read it can mint. Replaces what is there, behind a
        link too. Two that save at once are not merged: the last one stays. Raises KeyringError.
        """
        from captoken.keys.files import write_private

        write_private(path, self._written())

    def _written(self) -> bytes:
        """The bytes of its file, with a line feed at the end (spec 27.3). Secret."""
        stated: dict[str, Any] = {
            "current": self.current,
            "keys": {key_id: b64encode(key) for key_id, key in self._keys.items()},
            "v": 1,
        }
        if self.audience is not None:
            stated["aud"] = self.audience
        return encode_json(stated) + b"\n"

    @classmethod
    @no_arguments_in_traceback
    def load(cls, path: str | os.PathLike[str]) -> Keyring:
        """Load the keyring from a file.

        Raises KeyringError for a file that holds none, and for one that others than its owner can
        read or write.
        """
        from captoken.keys.files import MAKES_A_KEY, read_private

        data = read_private(path, makes=MAKES_A_KEY)
        try:
            return _read(data)
        except (TypeError, ValueError):  # EncodingError is a ValueError
            raise KeyringError(f"the key file {shown_file(path)} is not a keyring") from None

    def __repr__(self) -> str:
        scope = "" if self.audience is None else f", for {self.audience}"
        return f"<Keyring {', '.join(self._keys)}; current {self.current}{scope}>"

    __str__ = __repr__


def _fresh_id() -> str:
    """A key id that no other issuer has (spec 21.5)."""
    return "k-" + random_bytes(6).hex()


def _checked(keys: Any, current: Any) -> dict[str, bytes]:
    """The keys, if all are fit to be root keys, and the current one is among them (spec 21.1).

    Raises TypeError or ValueError.
    """
    checked = frozen_copy(keys, "keys")

    # An all-zero key is a mistake that verifies, so it is refused here, and not at the first token.
    for key_id, key in checked.items():
        names.name(key_id, "key id")
        problem = problem_with(key)
        if problem is not None:
            raise ValueError(problem)
    # By exact type: a subclass may be equal to whatever it likes.
    if type(current) is not str or current not in checked:
        raise ValueError(
            f"the current key {shown(current)} is not among the keys: {named_all(checked)}"
        )
    return checked


def _read(data: bytes) -> Keyring:
    """The keyring that a file spells (spec 27.3).

    Raises TypeError or ValueError for anything else, as for a key that is not fit to be one.
    """
    stated = decode_json(data.removesuffix(b"\n"))
    shape = {key: type(value) for key, value in stated.items() if key != "aud"}
    if shape != {"current": str, "keys": dict, "v": int} or stated["v"] != 1:
        raise ValueError("not a keyring of version 1")

    keys = {
        key_id: b64decode(names.exact_str(text, "key")) for key_id, text in stated["keys"].items()
    }
    # A keyring without `aud` derives the key of any audience; one with it has one audience's keys.
    audience = names.name(stated["aud"], "audience") if "aud" in stated else None
    return Keyring(keys, stated["current"], audience)


def keyring_source(keyring: Keyring | Callable[[], Keyring]) -> Callable[[], Keyring]:
    """A callable that gives the keyring of the moment.

    Raises TypeError for what is neither a keyring nor callable.
    """
    if isinstance(keyring, Keyring):
        return lambda: keyring
    if not callable(keyring):
        raise TypeError(
            "keyring must be a Keyring, or a callable that returns one, "
            f"not {type(keyring).__name__}"
        )

    def ask() -> Keyring:
        answer = keyring()
        if not isinstance(answer, Keyring):
            raise TypeError(f"the callable must return a Keyring, not {type(answer).__name__}")
        return answer

    return ask
