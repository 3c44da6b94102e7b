"""Hash functions, libsodium, comparison of secrets, and the labels: no other file touches them.

libsodium (PyNaCl) is imported on first use: bearer tokens never ask for it.

`mac` and `hmac_sha256` are two plain SHA-256 calls (RFC 2104). They are the same function as
`hmac.digest`, a third faster on OpenSSL 3; the tests prove them equal on RFC 4231 and Wycheproof.

The rules of this file:

- Nothing in a token selects an algorithm: each function is one, with one length of key.
- Whatever is hashed or signed for one purpose starts with a label of that purpose (spec 5.1).
- Functions that look at what others sent answer with False or None, and never raise.
- Randomness is an argument, so that a caller says where it comes from.

Python promises no constant-time arithmetic and no wiping of memory, and so neither does this.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from functools import cache
from hashlib import blake2b
from hashlib import sha256 as _sha256
from typing import Any, Protocol

KEY_BYTES = 32  # of every key, secret or public

_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
# A block is 64 bytes: this is what follows a key of 32 in it.
_INNER_REST = bytes(32).translate(_INNER)
_OUTER_REST = bytes(32).translate(_OUTER)

# Takes the same time for all byte strings of one length, so that a tag is not guessed byte by byte.
equal = hmac.compare_digest


def label(purpose: str) -> bytes:
    """Domain separation: what is hashed for one purpose is no other's (spec, "Labels").

    Every label ends in a zero byte, which no purpose has, so that none is the start of another.
    """
    return b"captoken/v1 " + purpose.encode() + b"\0"


# The labels of this file. Others stand where their purpose is.
_LINK = label("link")
_STATE = label("state")
_AUDIENCE = label("audience")


def sha256(message: bytes) -> bytes:
    """SHA-256, 32 bytes. For what is public: it takes no key.

    Callers begin the message with a label where another purpose could hash the same bytes.
    """
    return _sha256(message).digest()


class Begun(Protocol):
    """A hash that goes on: what was hashed is kept, and a copy of it can go on in two ways."""

    def copy(self) -> Begun: ...

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


def sha256_begun() -> Begun:
    """SHA-256 of nothing yet: of what comes in pieces, and is too much to have twice in memory.

    Of pieces of more than 2 KB it holds up no other thread.
    """
    return _sha256()


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256 under a key of exactly 32 bytes, as every tag is.

    Does not check that it is: under another length the outcome is no HMAC.
    """
    # HMAC is H(key ⊕ outer, H(key ⊕ inner, message)), the key filled up to a block of 64. The
    # tables do the ⊕ for the 32 bytes of the key, and the constants are the rest of the block.
    inner = _sha256(key.translate(_INNER) + _INNER_REST + message).digest()
    return _sha256(key.translate(_OUTER) + _OUTER_REST + inner).digest()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256, 32 bytes, under a key of any length.

    For keys that are no tags: those that an issuer gives, and the two stages of HKDF.
    """
    # RFC 2104 fills a key up with zeros to the block of 64 bytes, so that 32 of them are enough
    # for `mac`. A key that is longer than the block is hashed first.
    if len(key) <= 32:
        return mac(key.ljust(32, b"\0"), message)
    # A key between 33 and 64 bytes is filled up to the block as it stands.
    if len(key) > 64:
        key = _sha256(key).digest()

    block = key.ljust(64, b"\0")
    inner = _sha256(block.translate(_INNER) + message).digest()
    return _sha256(block.translate(_OUTER) + inner).digest()


def link_id(tag: bytes) -> bytes:
    """The public name of the link that ends in `tag`: 16 bytes (spec, "Link ids").

    Tells nothing of the tag, which is a secret.
    """
    return _sha256(_LINK + tag).digest()[:16]


def link_ids(tags: Iterable[bytes]) -> list[bytes]:
    """The public names of several links: `link_id` of each, without the calls.

    Each verification names all links of a token, and so asks here once.
    """
    digest = _sha256
    label_ = _LINK
    return [digest(label_ + tag).digest()[:16] for tag in tags]


def state(tag: bytes) -> bytes:
    """A public commitment to the link that ends in `tag` and all above it: 32 bytes (spec 28.3).

    It is what a holder signs. Tells nothing of the tag.
    """
    return _sha256(_STATE + tag).digest()


def audience_key(key: bytes, audience: str) -> bytes:
    """The root key of one audience, derived from a root key of 32 bytes (spec 21.3).

    Whoever has it can forge for that audience and no other.
    """
    return mac(key, _AUDIENCE + audience.encode())


def hkdf(salt: bytes, secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA-256 (RFC 5869), its first 32 bytes.

    `info` says what the outcome is for: two purposes never derive one key. One block is enough, so
    that the counter is always 1.
    """
    extracted = hmac_sha256(salt, secret)
    return hmac_sha256(extracted, info + b"\x01")


# --- libsodium ------------------------------------------------------------------------------------


@cache
def _libsodium() -> Any:
    """The functions of libsodium, imported when the first of them is needed."""
    from nacl import bindings

    return bindings


@cache
def _refused() -> type[Exception]:
    """What PyNaCl raises when libsodium says no."""
    from nacl.exceptions import CryptoError

    return CryptoError


_P = 2**255 - 19
# The y of the eight points of order 1, 2, 4 and 8 on edwards25519.
# A test holds them against libsodium.
_LOW_ORDER = frozenset((
    0, 1, _P - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
))  # fmt: skip


def is_signing_key(public: bytes) -> bool:
    """Can `public` be read as an Ed25519 key: 32 bytes, canonical, not of low order?

    Does not ask whether it is a point: readers of links do without libsodium. A key that is none
    signs nothing.
    """
    # The highest bit is the sign of x, and no part of y.
    # Canonical: y below the prime. A larger y would be a second spelling of one key.
    y = int.from_bytes(public, "little") & (2**255 - 1)
    return len(public) == 32 and y < _P and y not in _LOW_ORDER


def is_good_signing_key(public: bytes) -> bool:
    """Is `public` an Ed25519 key that somebody can have made?

    A canonical point of the prime-order group is. For keys that are trusted by name, when they are
    given; `is_signing_key` is for those that links name.
    """
    if len(public) != 32:
        return False
    return bool(_libsodium().crypto_core_ed25519_is_valid_point(public))


def is_good_exchange_key(public: bytes) -> bool:
    """Is `public` an X25519 key to trust: 32 bytes, canonical, not of low order?

    A key of low order gives zeros with every secret, so one secret tells.
    """
    if len(public) != 32 or int.from_bytes(public, "little") >= _P:
        return False

    # Any secret will do for this question.
    probe = bytes(31) + b"\x40"
    return shared_secret(probe, public) is not None


def problem_with(secret: Any) -> str | None:
    """Why `secret` is not fit to be one, or None (spec 27.1).

    Says nothing of its content. Bytes that are all equal are what a buffer looks like that nobody
    has filled. Whether others are random nobody can see.
    """
    if type(secret) is not bytes:
        return f"a secret key must be bytes, not {type(secret).__name__}"
    if len(secret) != KEY_BYTES:
        return f"a secret key is {KEY_BYTES} bytes, not {len(secret)}"
    if secret.count(secret[0]) == KEY_BYTES:
        return "a secret key whose bytes are all equal is no secret"
    return None


def signing_public(secret: bytes) -> bytes:
    """The Ed25519 public key of a secret seed of 32 bytes (RFC 8032). Public, 32 bytes.

    Does not look at the seed: `problem_with` does.
    """
    public: bytes = _libsodium().crypto_sign_seed_keypair(secret)[0]
    return public


def sign(secret: bytes, message: bytes) -> bytes:
    """The Ed25519 signature, 64 bytes.

    `secret` is the secret seed of 32 bytes with its public key behind it. The two have to belong
    together: under another public key a signature would give the secret away. The caller sees to
    it, and that the message begins with a label.
    """
    signed: bytes = _libsodium().crypto_sign(message, secret)
    return signed[:64]


def signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Is `signature` the one of `message` under the Ed25519 key `public`? Never raises.

    By libsodium's strict rules: a key or a point of low order, a large S and other spellings are
    refused, so that all verifiers give one answer.
    """
    # PyNaCl raises another error for other lengths.
    if len(public) != 32 or len(signature) != 64:
        return False
    try:
        _libsodium().crypto_sign_open(signature + message, public)
    except _refused():  # libsodium says no in one way only
        return False
    return True


def exchange_public(secret: bytes) -> bytes:
    """The X25519 public key of a secret of 32 bytes (RFC 7748). Does not look at the secret.

    Public: it may be shown to anybody.
    """
    public: bytes = _libsodium().crypto_scalarmult_base(secret)
    return public


def shared_secret(secret: bytes, public: bytes) -> bytes | None:
    """X25519 of an own secret and another's public key; None for a key of low order.

    Not yet a key: `hkdf` makes one of it, with what it is for.
    """
    try:
        shared: bytes = _libsodium().crypto_scalarmult(secret, public)
    except _refused():  # libsodium refuses an outcome of zeros
        return None
    return shared


def seal(public: bytes, message: bytes, random: Callable[[int], bytes]) -> bytes:
    """A sealed box for `public`, with the ephemeral secret from `random`.

    libsodium's own construction, which draws that secret itself. Whoever has the ephemeral secret
    can open the box: it is fresh each time, and let go of here.
    """
    sodium = _libsodium()
    ephemeral = random(32)
    sender = sodium.crypto_scalarmult_base(ephemeral)

    # A nonce that both sides know. It never repeats, since the sender's key is fresh.
    nonce = blake2b(sender + public, digest_size=24).digest()
    box: bytes = sender + sodium.crypto_box(message, nonce, public, ephemeral)
    return box


def unseal(secret: bytes, box: bytes) -> bytes | None:
    """What is in a sealed box for the X25519 key `secret`, or None.

    A box says nothing of who made it: whoever knows the public key can make one.
    """
    sodium = _libsodium()
    try:
        public = sodium.crypto_scalarmult_base(secret)
        message: bytes = sodium.crypto_box_seal_open(box, public, secret)
    except _refused():  # too short, or not for this key, or changed
        return None
    return message


def enclose(key: bytes, message: bytes, nonce: bytes) -> bytes:
    """A secret box under a symmetric key: nonce, then tag and ciphertext.

    `nonce` is 24 bytes, fresh for each box under one key: two messages under one nonce would tell
    of each other.
    """
    sealed: bytes = _libsodium().crypto_secretbox(message, nonce, key)
    return nonce + sealed


def disclose(key: bytes, box: bytes) -> bytes | None:
    """What is in a secret box under `key`, or None. Never raises for what others wrote.

    That it opens shows that whoever made it knew the key.
    """
    try:
        message: bytes = _libsodium().crypto_secretbox_open(box[24:], box[:24], key)
    except _refused():  # too short, or changed, or under another key
        return None
    return message
