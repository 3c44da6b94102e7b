"""Holder binding and proof of possession: make and check, side by side (spec, "Holder binding", "Proof of possession").

A token bound to a key is worth nothing to whoever has stolen the text: every request carries a proof by the key, and
only the key signs a hand-over. Narrowing stays free for anyone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from time import time
from typing import Protocol

import msgspec

from captoken import proof as request
from captoken._format import names, primitives
from captoken._format.clocks import Clock, read_clock
from captoken._format.encoding import MAX_INTEGER, EncodingError, b64decode, b64encode
from captoken._format.entropy import random_bytes
from captoken._format.errors import TokenFormatError
from captoken._format.packet import Packet
from captoken._format.text import BOUND, parts_of
from captoken._language.access import Access
from captoken.stores.ports import Use

PROOF = "cap1p_"
NONCE_BYTES = 16
_PROOF_BYTES = 8 + NONCE_BYTES + 64
_PROOF_CHARS = len(PROOF) + (_PROOF_BYTES * 4 + 2) // 3

_CUSTODY = primitives.label("custody")
_PROOF = primitives.label("proof")
_REPLAY = primitives.label("replay")


class Signer(Protocol):
    """Whatever signs for a holder: a key in memory, a key service, an agent's socket."""

    @property
    def public(self) -> str | bytes:
        """The Ed25519 public key: 32 bytes, or their base64url."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of `message`, 64 bytes."""
        ...


def _signature(signer: Signer, message: bytes) -> bytes:
    signature = signer.sign(message)
    if type(signature) is not bytes or len(signature) != 64:
        raise TypeError("a signer must return a signature of 64 bytes")
    return signature


# --- custody ---------------------------------------------------------------------------------------------------------


class Evidence(msgspec.Struct, frozen=True):
    """A hand-over that a key signed: the key, the state of the chain before it, the link, and the signature.

    Anyone can check it, without a root key and without a token; nothing in it is secret, and no token can be made of it.
    What it proves is that the key signed. Whose key it is, the one who asks has to know.
    """

    key: bytes  # the Ed25519 key that the token was bound to before
    state: bytes  # commits to the whole chain before the link
    body: bytes  # the link: who hands on to whom, the new key, and the caveats
    signature: bytes

    def holds(self) -> bool:
        """Did `key` sign that `body` follows on `state`? Never raises."""
        return primitives.signed(self.key, custody_message(self.state, self.body), self.signature)

    def as_dict(self) -> dict[str, str]:
        """The evidence as JSON-able data: base64url, and the link as text."""
        return {
            "key": b64encode(self.key),
            "state": b64encode(self.state),
            "body": self.body.decode(),
            "signature": b64encode(self.signature),
        }

    @classmethod
    def from_dict(cls, stated: dict[str, str]) -> Evidence:
        """The evidence that `as_dict` wrote. Raises ValueError for anything else."""
        if type(stated) is not dict or stated.keys() != {"key", "state", "body", "signature"}:
            raise ValueError("evidence has key, state, body and signature")
        if not all(type(part) is str for part in stated.values()):
            raise ValueError("evidence is text")
        key, state, signature = (b64decode(stated[part]) for part in ("key", "state", "signature"))
        if (len(key), len(state), len(signature)) != (32, 32, 64):
            raise ValueError("a key is 32 bytes, a state 32, a signature 64")
        return cls(key, state, stated["body"].encode(), signature)


def custody_message(state: bytes, body: bytes) -> bytes:
    """What a holder signs to hand on: that the link `body` follows on the chain that `state` commits to."""
    return _CUSTODY + state + primitives.sha256(body)


def sign_custody(packet: Packet, body: bytes, signer: Signer) -> bytes:
    """The link `body`, to follow on the last one of `packet`, with the signature of the key that the token is bound to."""
    signature = _signature(signer, custody_message(primitives.state(packet.signature), body))
    return body + b"." + b64encode(signature).encode()


# --- proof -----------------------------------------------------------------------------------------------------------


class Proof(msgspec.Struct, frozen=True):
    """A proof as it travels: when it was made, a nonce, and the signature."""

    issued_at: int
    nonce: bytes
    signature: bytes


def proof_message(tag: bytes, audience: str, issued_at: int, nonce: bytes, digest: bytes) -> bytes:
    """What a holder signs to use a token: every part has a fixed length."""
    spoken_to = primitives.sha256(audience.encode("ascii"))
    return (
        _PROOF + primitives.state(tag) + spoken_to + issued_at.to_bytes(8, "big") + nonce + digest
    )


def prove(
    text: str,
    signer: Signer,
    *,
    audience: str,
    request: Access | bytes | None = None,
    clock: Clock = time,
    random: Callable[[int], bytes] = random_bytes,
) -> str:
    """A proof that the holder of the key sends this text to this server with this request. Once, and within 30 seconds.

    `text` is what goes to the server, as `present` wrote it. `request` is the access, or the 32 bytes of
    `captoken.request` for what a transport carries; left out, the token is shown without an access. Does not check that
    the token is bound to the signer's key. Raises TokenFormatError for what is no token, TypeError or ValueError.
    """
    try:
        packet, _ = parts_of(text, BOUND)
    except TokenFormatError as error:
        problem = error.bare()
    else:
        del text  # so that no frame that raises holds it, nor one below a signer that does
        names.name(audience, "audience")
        now, nonce = read_clock(clock), random(NONCE_BYTES)
        if not 0 <= now <= MAX_INTEGER:
            raise ValueError("the clock must give seconds since the epoch")
        message = proof_message(packet.signature, audience, now, nonce, digest_of(request))
        return PROOF + b64encode(now.to_bytes(8, "big") + nonce + _signature(signer, message))
    del text
    raise problem


def digest_of(stated: Access | bytes | None) -> bytes:
    """The 32 bytes that stand for a request. Raises TypeError or ValueError."""
    if stated is None or type(stated) is Access:
        return request.of_access(stated)
    if type(stated) is not bytes:
        raise TypeError(
            f"a request is an Access, or the 32 bytes of captoken.request, not {type(stated).__name__}"
        )
    if len(stated) != 32:
        raise ValueError(f"the digest of a request is 32 bytes, not {len(stated)}")
    return stated


def read_proof(text: str) -> Proof | None:
    """The proof that `text` spells, or None: its form alone. Never raises."""
    if type(text) is not str or len(text) != _PROOF_CHARS or not text.startswith(PROOF):
        return None
    try:
        data = b64decode(text[len(PROOF) :])
    except EncodingError:
        return None
    return Proof(
        int.from_bytes(data[:8], "big"), data[8 : 8 + NONCE_BYTES], data[8 + NONCE_BYTES :]
    )


# --- replay ----------------------------------------------------------------------------------------------------------


def use_of(key: bytes, proof: Proof) -> Use:
    """What to remember of a proof: the same for the same key and nonce, whatever else differs."""
    return Use(primitives.sha256(_REPLAY + key + proof.nonce)[:16], proof.issued_at)


_HTTP = primitives.label("request http")


_MCP = primitives.label("request mcp")


_ACCESS = primitives.label("request access")


_spell = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
).encode


def _digest(label: bytes, *parts: bytes) -> bytes:
    """SHA-256 of the parts, each behind its length in 8 bytes, so that no two lists of parts run together alike."""
    return primitives.sha256(
        label + b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    )


def of_http(method: str, origin: str, target: bytes | str, body: bytes = b"") -> bytes:
    """One HTTP request: method, origin as the server is configured (`https://api.example`), path with query, and body.

    `target` is what stands in the request line, undecoded. Headers are no part of it. Raises TypeError, or ValueError
    for text beyond ASCII.
    """
    path = target if type(target) is bytes else names.exact_str(target, "target").encode("ascii")
    line = (
        names.exact_str(method, "method").encode("ascii"),
        names.exact_str(origin, "origin").encode("ascii"),
        path,
    )
    return _digest(_HTTP, *line, primitives.sha256(body))


def of_mcp(method: str, name: str, arguments: bytes = b"{}") -> bytes:
    """One MCP call: method (`tools/call`), name of the tool, and arguments as bytes that both sides spell alike.

    How they are spelled is the adapter's affair: the core does not know which spellings of JSON a tool calls equal.
    Raises TypeError, or ValueError for a lone surrogate.
    """
    return _digest(
        _MCP,
        names.exact_str(method, "method").encode(),
        names.exact_str(name, "name").encode(),
        arguments,
    )


def of_access(access: Access | None) -> bytes:
    """One access, by the facts stated; None for a token that is shown and no access.

    Columns are a set. Numbers are spelled as Python spells them: 1 and 1.0 are two requests. Raises ValueError for an
    integer too long to be spelled.
    """
    if access is None:
        return _digest(_ACCESS)
    facts = {
        "arguments": access.arguments,
        "attributes": access.attributes,
        "columns": sorted(set(access.columns)) if access.columns is not None else None,
        "operation": access.operation,
        "table": access.table,
        "tool": access.tool,
    }
    return _digest(_ACCESS, _spell(facts).encode("ascii"))
