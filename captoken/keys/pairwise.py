"""Pairwise keys: two sides derive one root key without sharing a secret (spec, "Pairwise keys").

Each side has one X25519 key and knows the other's public key. Both derive the root key of one
audience, which is used like any other. Whoever has it can forge what this server accepts from this
issuer. What a thief can do with a stolen secret (spec 35.7):

- With a server's secret: forge tokens of every issuer that the server trusts, at that server only.
- With an issuer's secret: forge that issuer's tokens at every server that trusts it.
- Neither ends by itself: the root key stays until one of the two sides has a new key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from captoken._format import names, primitives
from captoken._format.public_keys import exchange_key, public_bytes
from captoken._format.sealed import no_arguments_in_traceback
from captoken.keys.keyring import Keyring
from captoken.keys.secret import SecretKey

_PAIRWISE = primitives.label("pairwise")
_KEY_ID = primitives.label("pairwise key id")


class PairwiseKey(SecretKey, frozen=True, eq=False):
    """An X25519 key of an issuer or of a server. A party that is both has one for each role.

        keyring = issuer_key.issuing(server=server_public, audience="sales-db")
        keyring = server_key.serving(issuers=[issuer_public], audience="sales-db")

    Public keys are exchanged beforehand, in a way that both trust (spec 35.1). Whose they are
    nothing here checks. The key derives, and never mints: what it returns is a Keyring for one
    audience. Threads share a key. Each keyring costs one X25519 for each pair.
    """

    purpose: ClassVar[str] = "pairwise"

    def issuing(self, *, server: bytes | str, audience: str) -> Keyring:
        """For an issuer: the keyring that mints for one server.

        `server` is the server's public key, `audience` its name. The keyring mints what that server
        accepts from this issuer, and has no key of anybody else's.

        Raises TypeError or ValueError for what is no name, or no public key to trust.
        """
        other = exchange_key(server, "server")
        names.name(audience, "audience")
        key_id, key = self._root_key(other, audience, issuing=True)
        return Keyring({key_id: key}, key_id, audience)

    def serving(self, *, issuers: Iterable[bytes | str], audience: str) -> Keyring:
        """For a server: the keyring that verifies tokens of the issuers it trusts, and no others.

        Nothing in a token selects a public key: a key id names one of these, or none (spec 35.6).
        `audience` is this server's own name.

        Raises TypeError or ValueError for what is no name, and for what is no public key to trust.
        Also for no issuer at all, and for one that is named twice.
        """
        # A text is a list of characters too, and would fail with a message about its first one.
        if isinstance(issuers, (str, bytes)) or not isinstance(issuers, Iterable):
            raise TypeError(f"issuers must be a list of public keys, not {type(issuers).__name__}")
        names.name(audience, "audience")

        made: dict[str, bytes] = {}
        for issuer in issuers:
            other = exchange_key(issuer, "issuer")
            key_id, key = self._root_key(other, audience, issuing=False)
            if key_id in made:
                raise ValueError("an issuer is named twice: name each of them once")
            made[key_id] = key
        if not made:
            raise ValueError("a server trusts at least one issuer, and issuers is empty")

        # A keyring has a current key. This one is for verifying, where all keys are alike.
        current = next(iter(made))
        return Keyring(made, current, audience)

    @no_arguments_in_traceback
    def _root_key(self, other: bytes, audience: str, *, issuing: bool) -> tuple[str, bytes]:
        """The key id and the root key of this pair and one audience (spec 35.2 to 35.5).

        The issuer's key comes first in both, so that what the one derives as issuer verifies
        nothing that the other issues. Raises ValueError.
        """
        own = public_bytes(self.public, "key")
        if own == other:
            raise ValueError(
                "issuer and server have the same key: a party that is both has one for each role"
            )
        both = own + other if issuing else other + own
        shared = primitives.shared_secret(self._secret, other)
        if shared is None:
            raise ValueError("a public key of low order: ask its owner for another")

        # The id is of public keys alone, so that both sides have it without a message. The key is
        # of both keys and the audience: it is of no use to another pair, or elsewhere.
        key_id = f"p-{primitives.sha256(_KEY_ID + both).hex()[:24]}"
        info = both + audience.encode("ascii")
        return key_id, primitives.hkdf(_PAIRWISE, shared, info)
