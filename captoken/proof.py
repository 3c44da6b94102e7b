"""Proof of possession and custody: a key shows who sends a token, and who handed it over.

The text of a token that is bound to a key is useless to a thief. Every text that is sent ends in a
proof by the key, and only the key can sign a hand-over. Anyone can still narrow the token.
Functions to make and to check stand side by side (spec, "Holder binding", "Proof of possession",
"Requests").

How data flows: each side computes the digest of the request by itself. The holder signs it, with
the state of the token and the server's name. The verifier checks the signature, and a store
remembers that the proof was used. Nothing here asks a store or knows a root key. A private key is
only ever a `Signer`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from captoken._format import names, primitives, signed
from captoken._format.clocks import PROOF_AHEAD, PROOF_PAST, Clock, read_clock
from captoken._format.encoding import LIMITS, MAX_INTEGER, b64decode, b64encode
from captoken._format.entropy import random_bytes
from captoken._format.errors import LimitError, TokenFormatError
from captoken._format.parts import Packet
from captoken._format.sealed import no_arguments_in_traceback
from captoken._format.text import BOUND, PROOF_BYTES, PROOF_CHARS, parts_of, proof_text
from captoken._language.access import Access
from captoken.stores.ports import Use

NONCE_BYTES = 16
SIGNATURE_BYTES = 64
DIGEST_BYTES = 32

_CUSTODY = primitives.label("custody")
_PROOF = primitives.label("proof")
_REPLAY = primitives.label("replay")
_RECALL = primitives.label("recall")
_HTTP = primitives.label("request http")
_MCP = primitives.label("request mcp")
_ACCESS = primitives.label("request access")


class Signer(Protocol):
    """Whatever signs for a holder: a key in memory, a key service, an agent's socket.

    It may wait, and it may raise: what it raises passes through. It signs what it is given, so that
    a service should sign for one holder alone.
    """

    @property
    def public(self) -> str | bytes:
        """The Ed25519 public key: 32 bytes, or their base64url."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of `message`, 64 bytes."""
        ...


def _signature(signer: Signer, message: bytes) -> bytes:
    """The signature of a message. Raises TypeError for what cannot be one."""
    signature = signer.sign(message)
    if type(signature) is not bytes or len(signature) != SIGNATURE_BYTES:
        raise TypeError(f"a signer must return a signature of {SIGNATURE_BYTES} bytes")
    return signature


# --- requests ------------------------------------------------------------------------------------
# What a proof is about: 32 bytes that stand for one request. Whoever makes a proof and whoever
# checks it state the same facts, each from its own side. Nothing is normalised: method, path and
# body are compared as they travel, so that no proxy's idea of equality becomes ours.

_spell = json.JSONEncoder(
    sort_keys=True,
    separators=(",", ":"),
    ensure_ascii=True,
    allow_nan=False,
).encode


def digest_of(label: bytes, *parts: bytes) -> bytes:
    """SHA-256 of the parts, each behind its length, so that no two lists of parts run together."""
    framed = b"".join(len(part).to_bytes(8) + part for part in parts)
    return primitives.sha256(label + framed)


def _exact_bytes(value: Any, what: str) -> bytes:
    if type(value) is not bytes:
        raise TypeError(f"{what} must be bytes, not {type(value).__name__}")
    return value


def http_request(
    method: str,
    origin: str,
    target: bytes | str,
    body: bytes = b"",
) -> bytes:
    """The digest of an HTTP request: method, origin, path with query, and body.

    `origin` is the server's own as it is configured (`https://api.example`). `target` is what
    stands in the request line, undecoded. Headers are no part of it. Raises TypeError, or
    ValueError for text beyond ASCII.
    """
    spelled_method = names.encoded(method, "method", "ascii")
    spelled_origin = names.encoded(origin, "origin", "ascii")
    path = target if type(target) is bytes else names.encoded(target, "target", "ascii")
    content = primitives.sha256(_exact_bytes(body, "body"))
    return digest_of(_HTTP, spelled_method, spelled_origin, path, content)


def mcp_request(
    method: str,
    name: str,
    arguments: bytes = b"{}",
) -> bytes:
    """The digest of an MCP call: method (`tools/call`), name of the tool, and arguments.

    The arguments are bytes that both sides spell alike. How they are spelled is the adapter's
    affair: the core does not know which spellings of JSON a tool calls equal. Raises TypeError, or
    ValueError for a lone surrogate.
    """
    spelled_method = names.encoded(method, "method")
    spelled_name = names.encoded(name, "name")
    return digest_of(_MCP, spelled_method, spelled_name, _exact_bytes(arguments, "arguments"))


def access_request(access: Access | None) -> bytes:
    """The digest of an access, by the facts stated; None for a token that is shown and no access.

    Columns are a set. Numbers are spelled as Python spells them: 1 and 1.0 are two requests. Raises
    ValueError for an integer too long to be spelled.
    """
    return digest_of(_ACCESS) if access is None else access_digest(access_text(access))


def access_digest(text: str) -> bytes:
    """The digest of an access whose facts are spelled already, as `access_text` does."""
    return digest_of(_ACCESS, text.encode())


def access_text(access: Access) -> str:
    """The facts of an access in their one spelling (29.4).

    Raises ValueError for an integer too long to be spelled.
    """
    facts = {
        "arguments": access.arguments,
        "attributes": access.attributes,
        "columns": sorted(set(access.columns)) if access.columns is not None else None,
        "operation": access.operation,
        "table": access.table,
        "tool": access.tool,
    }
    return _spell(facts)


def request_digest(stated: Access | bytes | None) -> bytes:
    """The 32 bytes that stand for a request, stated as an access or as the digest itself (29.6).

    Raises TypeError or ValueError. It cannot see whether a digest is of what the transport carried:
    a server makes it of the bytes that it then acts on (29.7).
    """
    if stated is None or type(stated) is Access:
        return access_request(stated)
    if type(stated) is not bytes:
        kind = type(stated).__name__
        raise TypeError(f"a request is an Access, or the 32 bytes of captoken.proof, not {kind}")
    if len(stated) != DIGEST_BYTES:
        raise ValueError(f"the digest of a request is {DIGEST_BYTES} bytes, not {len(stated)}")
    return stated


# --- proof of possession -------------------------------------------------------------------------


class Proof(msgspec.Struct, frozen=True):
    """A proof as it travels: when it was made, a nonce, and the signature (30.1).

    Read, and not checked: that is `is_timely` and `is_proven`.
    """

    issued_at: int  # seconds since the epoch
    nonce: bytes
    signature: bytes


def _proof_message(
    tag: bytes,
    audience: str,
    proof_head: bytes,
    digest: bytes,
) -> bytes:
    """What a holder signs to use a token.

    Every part has a fixed length (spec, "Proof of possession").
    """
    spoken_to = primitives.sha256(audience.encode())
    return _PROOF + primitives.state(tag) + spoken_to + proof_head + digest


def prove(
    packet: Packet,
    signer: Signer,
    audience: str,
    request: Access | bytes | None,
    clock: Clock,
    random: Callable[[int], bytes],
) -> bytes:
    """The proof that the holder of the key sends this very token, to this server, with this
    request.

    Does not look whether the token is bound to the signer's key. Raises TypeError or ValueError.
    """
    names.name(audience, "audience")
    now = read_clock(clock)
    if not 0 <= now <= MAX_INTEGER:
        raise ValueError("the clock must give seconds since the epoch, from 0 on")
    head = now.to_bytes(8) + random(NONCE_BYTES)
    message = _proof_message(packet.signature, audience, head, request_digest(request))
    return head + _signature(signer, message)


@no_arguments_in_traceback
def with_proof(
    text: str,
    signer: Signer,
    *,
    audience: str,
    request: Access | bytes | None = None,
    clock: Clock,
    random: Callable[[int], bytes] = random_bytes,
) -> str:
    """A presented text with a proof at its end: for one sending, within 30 seconds (spec 30.1).

    `text` is what `Token.present` wrote without a signer; a client keeps it, and proves each
    request anew. `request` is the access, or the 32 bytes that `http_request` and its siblings
    give; left out, the token is shown without an access. `clock` is the holder's, `time.time` as a
    rule. Does not check that the token is bound to the signer's key. Raises TokenFormatError for
    what is no token or has a proof already, LimitError for a text that no server takes, TypeError
    or ValueError.
    """
    parts = parts_of(text, BOUND)
    if parts.proof is not None:
        raise TokenFormatError("the text has a proof already: it is for one sending")
    size = len(text) + 1 + PROOF_CHARS
    if size > LIMITS.bundle_chars:  # a writer does not write what readers refuse (spec 3.2)
        raise LimitError(
            f"the text would be {size} characters with its proof, more than {LIMITS.bundle_chars}"
        )
    proof = prove(parts.packet, signer, audience, request, clock, random)
    return f"{text}.{proof_text(proof)}"


def read_proof(data: bytes) -> Proof:
    """The proof in the bytes that a text ends in."""
    assert len(data) == PROOF_BYTES  # noqa: S101, the text's reader has seen to it
    nonce_end = 8 + NONCE_BYTES
    return Proof(int.from_bytes(data[:8]), data[8:nonce_end], data[nonce_end:])


def is_timely(proof: Proof, now: int) -> bool:
    """Was the proof made within the window around `now`: 30 seconds before to 5 after (30.5)?

    The time is the signer's word. That the proof was not used before is for a store to say.
    """
    return now - PROOF_PAST <= proof.issued_at <= now + PROOF_AHEAD


def is_proven(
    proof: Proof,
    key: bytes,
    tag: bytes,
    audience: str,
    digest: bytes,
) -> bool:
    """Did `key` sign that the token which ends in `tag` goes to `audience` with that request
    (30.2)?

    Says nothing about when, or whether for the first time. Costs one Ed25519 check.
    """
    head = proof.issued_at.to_bytes(8) + proof.nonce
    return primitives.signed(key, _proof_message(tag, audience, head, digest), proof.signature)


def use_of(key: bytes, proof: Proof, kid: str = "") -> Use:
    """What to remember of a proof: the same for the same key and nonce, whatever else differs
    (31.1). `kid` is of the token's root key.
    """
    entry = primitives.sha256(_REPLAY + key + proof.nonce)[:16]
    return Use(entry, proof.issued_at, kid)


# --- custody -------------------------------------------------------------------------------------


class Evidence(msgspec.Struct, frozen=True):
    """A hand-over that a key signed: the key, the state of the chain before it, the link, the
    signature.

    Anyone can check it, without a root key and without a token. Nothing in it is secret, and no
    token can be made of it. What it proves is that the key signed. Whose key it is, the one who
    asks has to know.
    """

    key: bytes  # the Ed25519 key that the token was bound to before
    state: bytes  # commits to the whole chain before the link
    body: bytes  # the link: who hands on to whom, the new key, and the caveats
    signature: bytes

    def holds(self) -> bool:
        """Did `key` sign that `body` follows on `state`? Never raises.

        It does not say whose key that is, or that the state is that of a genuine chain (28.8).
        """
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
        """The evidence that `as_dict` wrote. Raises ValueError for anything else.

        Checks the form, not the signature: ask `holds`.
        """
        if type(stated) is not dict or stated.keys() != {
            "key",
            "state",
            "body",
            "signature",
        }:
            raise ValueError("evidence has key, state, body and signature")
        if not all(type(part) is str for part in stated.values()):
            raise ValueError("evidence is text")
        key = b64decode(stated["key"])
        state = b64decode(stated["state"])
        signature = b64decode(stated["signature"])
        if (len(key), len(state), len(signature)) != (32, 32, SIGNATURE_BYTES):
            raise ValueError("a key is 32 bytes, a state 32, a signature 64")
        return cls(key, state, stated["body"].encode(), signature)


def custody_message(state: bytes, body: bytes) -> bytes:
    """What a holder signs to hand on: that the link `body` follows on that chain (28.3)."""
    return _CUSTODY + state + primitives.sha256(body)


def sign_custody(
    packet: Packet,
    body: bytes,
    signer: Signer,
) -> bytes:
    """The link `body`, to follow on the last one of `packet`, signed by the key it is bound to
    (28.2).

    Does not look whether the signer is that key. Raises what the signer raises.
    """
    message = custody_message(primitives.state(packet.signature), body)
    return signed.attach(body, _signature(signer, message))


# --- recall --------------------------------------------------------------------------------------


def recall_mac(tag: bytes, stated: bytes) -> bytes:
    """What only who had the token that ends in `tag` can say of `stated` (spec, "Recall")."""
    return primitives.mac(primitives.sha256(_RECALL + tag), stated)
