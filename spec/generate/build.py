"""Tokens, whole and broken, from the standard library and libsodium: what this shares with captoken is the specification.

No part of it checks anything, so that it can write what no library would. Keys, nonces and the secrets of boxes come from
their names, so that the same bytes come out each time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from nacl import bindings as sodium

KEY = bytes(range(1, 33))
OTHER_KEY = bytes(range(101, 133))
NOW = 1_764_061_200
JTI = "MDEyMzQ1Njc4OWFiY2RlZg"

Json = Any


class JsonText(str):
    """A value as JSON text, where Python has no other way to say it."""


Caveat = tuple[bytes, bytes]  # cid, and vid, empty for a first party's


# --- encoding --------------------------------------------------------------------------------------------------------


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def canonical(value: Json) -> bytes:
    """The one spelling of a JSON value, its objects sorted by UTF-16 unit."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: str(key).encode("utf-16-be"))
        return b"{" + b",".join(canonical(key) + b":" + canonical(value[key]) for key in keys) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(canonical(item) for item in value) + b"]"
    return json.dumps(value, ensure_ascii=False).encode()


def varint(number: int, width: int = 0) -> bytes:
    """`number` in base 128, over-long if `width` asks for more bytes than it needs."""
    out = bytearray()
    while number >= 0x80 or len(out) + 1 < width:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


# --- the chain -------------------------------------------------------------------------------------------------------


def mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def derive(key: bytes) -> bytes:
    return mac(b"macaroons-key-generator", key)


def pair(key: bytes, first: bytes, second: bytes) -> bytes:
    return mac(key, mac(key, first) + mac(key, second))


def label(purpose: str) -> bytes:
    return b"captoken/v1 " + purpose.encode() + b"\0"


def sha256(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


def secret(name: str, size: int = 32) -> bytes:
    """The secret, or the nonce, of that name."""
    return sha256(b"a vector's " + name.encode())[:size]


def audience_key(key: bytes, audience: str) -> bytes:
    return mac(key, label("audience") + audience.encode())


def link_id(tag: bytes) -> str:
    return b64(sha256(label("link") + tag)[:16])


def state(tag: bytes) -> bytes:
    return sha256(label("state") + tag)


# --- the wire --------------------------------------------------------------------------------------------------------


def field(kind: int, payload: bytes, size: int | None = None, width: int = 0) -> bytes:
    """One field; `size` and `width` lie about its length, or write it over-long."""
    return bytes((kind,)) + varint(len(payload) if size is None else size, width) + payload


def section(cid: bytes, vid: bytes = b"") -> bytes:
    return field(2, cid) + (field(4, vid) if vid else b"") + b"\0"


class Parts(NamedTuple):
    """A token's parts, which need not belong together. `tags` are the chain's: one for the identifier, one a caveat."""

    identifier: bytes
    caveats: tuple[Caveat, ...]
    tags: tuple[bytes, ...]

    @property
    def signature(self) -> bytes:
        return self.tags[-1]

    @property
    def head(self) -> bytes:
        """Version and header section."""
        return b"\2" + section(self.identifier)

    @property
    def middle(self) -> bytes:
        return b"".join(section(cid, vid) for cid, vid in self.caveats)

    @property
    def wire(self) -> bytes:
        return self.head + self.middle + b"\0" + field(6, self.signature)

    @property
    def text(self) -> str:
        return text(self.wire)

    @property
    def links(self) -> list[dict[str, Json]]:
        """What the links say that are objects, signed or not."""
        return [json.loads(cid if cid.endswith(b"}") else cid[:-87]) for cid, vid in self.caveats if not vid]

    @property
    def bodies(self) -> list[bytes]:
        return [cid for cid, _ in self.caveats]

    def signed(self, signature: bytes) -> Parts:
        """The same with another signature."""
        return self._replace(tags=(*self.tags[:-1], signature))

    def carrying(self, *caveats: Caveat) -> Parts:
        """The same identifier and signature around other caveats."""
        return self._replace(caveats=caveats)


def text(wire: bytes, prefix: str = "cap1_") -> str:
    return prefix + b64(wire)


def root(**changes: Json) -> dict[str, Json]:
    """The root record of all vectors, but for `changes`; a key that is None is left out."""
    stated = {
        "agent": "orchestrator", "iat": NOW, "jti": JTI, "kid": "k1", "sub": "user:jane", "task": "task-123", "v": 1,
        **changes,
    }  # fmt: skip
    return {key: value for key, value in stated.items() if value is not None}


def token(*links: Json, key: bytes = KEY, identifier: bytes | None = None, **changes: Json) -> Parts:
    """A genuine token. A link is an object, or bytes as they are, or (cid, vid)."""
    if identifier is None:
        identifier = canonical(root(**changes))
    return extended(Parts(identifier, (), (mac(derive(key), identifier),)), *links)


def extended(parts: Parts, *links: Json) -> Parts:
    """The same token with more links, as any holder can add them."""
    caveats, tags = list(parts.caveats), list(parts.tags)
    for link in links:
        cid, vid = link if isinstance(link, tuple) else (link if isinstance(link, bytes) else canonical(link), b"")
        caveats.append((cid, vid))
        tags.append(pair(tags[-1], vid, cid) if vid else mac(tags[-1], cid))
    return Parts(parts.identifier, tuple(caveats), tuple(tags))


def nonce(number: int = 0) -> str:
    """An `n`."""
    return b64(number.to_bytes(8, "big"))


def hand_over(to: str, giver: str = "orchestrator", number: int = 0, **caveats: Json) -> dict[str, Json]:
    """A link that delegates."""
    return {"from": giver, "n": nonce(number), "to": to, **caveats}


# --- holders ---------------------------------------------------------------------------------------------------------


def signing_public(holder: str) -> bytes:
    """The Ed25519 public key of the holder of that name."""
    public: bytes = sodium.crypto_sign_seed_keypair(secret(holder))[0]
    return public


def sign(holder: str, message: bytes) -> bytes:
    signed: bytes = sodium.crypto_sign(message, sodium.crypto_sign_seed_keypair(secret(holder))[1])
    return signed[:64]


def custody(parts: Parts, link: Json, holder: str) -> bytes:
    """The link, to follow on `parts`, with the holder's signature."""
    body = canonical(link)
    return attached(body, sign(holder, label("custody") + state(parts.signature) + sha256(body)))


def attached(body: bytes, signature: bytes) -> bytes:
    return body + b"." + b64(signature).encode()


def handed(parts: Parts, to: str, giver: str = "orchestrator", **caveats: Json) -> Parts:
    """A bound token handed on to the key that has the name of the agent, by the one that has the giver's."""
    link = hand_over(to, giver, **{"key": b64(signing_public(to)), **caveats})
    return extended(parts, custody(parts, link, giver))


# --- requests and proofs ---------------------------------------------------------------------------------------------


def digest(kind: str, *pieces: bytes) -> bytes:
    return sha256(label(f"request {kind}") + b"".join(len(piece).to_bytes(8, "big") + piece for piece in pieces))


def of_access(access: Json) -> bytes:
    """The digest of an access as a vector states it; None for none."""
    if access is None:
        return digest("access")
    of_rows = ("becomes", "row", "rows")
    facts = dict.fromkeys(("arguments", "columns", "operation", "table", "tool"), None) | {"attributes": {}}
    facts |= {fact: value for fact, value in access.items() if fact not in of_rows}
    if facts["tool"] is not None and facts["arguments"] is None:
        facts["arguments"] = {}
    if facts["columns"] is not None:
        facts["columns"] = sorted(set(facts["columns"]))
    return digest("access", spelled(facts))


def spelled(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


LISTS = ("tools/list", "resources/list", "resources/templates/list", "prompts/list")


def of_message(method: str, params: dict[str, Json]) -> bytes:
    """The digest of an MCP message: what it is an access to, in the form `request mcp`."""
    if method in LISTS:
        return digest("mcp", method.encode(), b"", spelled({}))
    if method == "tools/call":
        return digest("mcp", method.encode(), params["name"].encode(), spelled(params.get("arguments") or {}))
    rest = {key: value for key, value in params.items() if key not in ("_meta", "inputResponses", "requestState", "arguments")}
    rest |= {f"arguments.{key}": value for key, value in (params.get("arguments") or {}).items()}
    return digest("mcp", method.encode(), b"", spelled(rest))


def proof_message(tag: bytes, audience: str, issued: int, nonce: bytes, request: bytes) -> bytes:
    return label("proof") + state(tag) + sha256(audience.encode()) + issued.to_bytes(8, "big") + nonce + request


def proof_text(issued: int, nonce: bytes, signature: bytes) -> str:
    return "cap1p_" + b64(issued.to_bytes(8, "big") + nonce + signature)


def proof(
    parts: Parts, holder: str, request: bytes, audience: str = "sales-db", issued: int = NOW, nonce: bytes = secret("use", 16)
) -> str:
    """The holder's proof for a token and a request."""
    message = proof_message(parts.signature, audience, issued, nonce, request)
    return proof_text(issued, nonce, sign(holder, message))


def use(public: bytes, issued: int = NOW, nonce: bytes = secret("use", 16)) -> dict[str, Json]:
    """What a store remembers of a proof."""
    return {"entry": sha256(label("replay") + public + nonce)[:16].hex(), "issued_at": issued}


# --- third parties ---------------------------------------------------------------------------------------------------


def exchange_public(party: str) -> bytes:
    """The X25519 public key of the party of that name."""
    public: bytes = sodium.crypto_scalarmult_base(secret(party))
    return public


def sealed(public: bytes, message: bytes, name: str) -> bytes:
    """A sealed box, its ephemeral secret being the one of that name."""
    sender = exchange_public(name)
    nonce = hashlib.blake2b(sender + public, digest_size=24).digest()
    box: bytes = sender + sodium.crypto_box(message, nonce, public, secret(name))
    return box


def enclosed(key: bytes, message: bytes, name: str) -> bytes:
    """A secret box behind its nonce, which is the one of that name."""
    nonce = secret(name, 24)
    box: bytes = nonce + sodium.crypto_secretbox(message, nonce, key)
    return box


def ticket(name: str, party: str = "approvals", need: Json = None, **changes: Json) -> bytes:
    """The cid that asks a party; `name` is that of the caveat key and of the box. A key that is None is left out."""
    public = exchange_public(party)
    within = canonical({"ck": b64(secret(name)), "need": {"approve": "payment"} if need is None else need, "v": 1})
    stated = {"box": b64(sealed(public, within, f"box of {name}")), "for": b64(public), "v": 1, **changes}
    return canonical({key: value for key, value in stated.items() if value is not None})


def asking(parts: Parts, name: str, cid: bytes | None = None) -> Parts:
    """The same token with a third-party caveat under the caveat key of that name."""
    cid = ticket(name) if cid is None else cid
    return extended(parts, (cid, enclosed(parts.signature, derive(secret(name)), f"vid of {name}")))


def discharge(name: str, *links: Json, cid: bytes | None = None, key: bytes | None = None) -> Parts:
    """The discharge of the caveat of that name, unbound."""
    cid, key = ticket(name) if cid is None else cid, secret(name) if key is None else key
    return extended(Parts(cid, (), (mac(derive(key), cid),)), *links)


def bound(parts: Parts, root_tag: bytes) -> Parts:
    """The discharge as it goes with the token that ends in `root_tag`."""
    return parts.signed(pair(bytes(32), root_tag, parts.signature))


def bundle(parts: Parts, *discharges: Parts) -> str:
    """The text of a token and the discharges that are bound to it."""
    return joined(parts, (bound(discharge, parts.signature) for discharge in discharges))


def joined(parts: Parts, discharges: Iterable[Parts], prefix: str = "cap1d_") -> str:
    """The same with discharges as they are."""
    return ".".join((parts.text, *(text(discharge.wire, prefix) for discharge in discharges)))


# --- the overlay and the audit trail ---------------------------------------------------------------------------------


def entry(name: str = "e1", **select: Json) -> dict[str, Json]:
    """An entry that revokes what is selected."""
    return {"at": NOW, "by": "ops", "id": name, "select": select, "why": "a reason"}


def snapshot_of(
    *entries: Json, seq: int = 1, iat: int = NOW, exp: int | None = None, past: Sequence[str] | None = None, resumed: Json = None
) -> dict[str, Json]:
    end = max(iat, NOW) + 3600 if exp is None else exp
    stated: dict[str, Json] = {"entries": list(entries), "exp": end, "iat": iat, "seq": seq, "v": 1}
    if past is not None:
        stated["past"] = list(past)
    if resumed is not None:
        stated["resumed"] = resumed
    return stated


def past_after(known: dict[str, Json]) -> list[str]:
    """What a snapshot names that follows on that one."""
    return [b64(sha256(canonical(in_order(known)))), *known.get("past", ())][:256]


def signed_snapshot(body: bytes, operator: str = "operator") -> bytes:
    return attached(body, sign(operator, label("overlay") + sha256(body)))


def snapshot(*entries: Json, **stated: Any) -> bytes:
    """A snapshot that the operator signed."""
    return signed_snapshot(canonical(snapshot_of(*entries, **stated)))


def in_order(stated: dict[str, Json]) -> dict[str, Json]:
    """The snapshot with its entries sorted by id, by code point."""
    return {**stated, "entries": sorted(stated["entries"], key=lambda each: each["id"])}


def delta_of(known: dict[str, Json], given: dict[str, Json]) -> dict[str, Json]:
    """What changes from one snapshot to another one."""
    before, after = ({each["id"]: each for each in stated["entries"]} for stated in (known, given))
    return {
        "add": [after[name] for name in sorted(after) if before.get(name) != after[name]],
        "after": {"hash": b64(sha256(canonical(in_order(known)))), "seq": known["seq"]},
        "drop": [name for name in sorted(before) if before[name] != after.get(name)],
        "exp": given["exp"],
        "gives": {"hash": b64(sha256(canonical(in_order(given)))), "seq": given["seq"]},
        "iat": given["iat"],
        "v": 1,
    }


def signed_delta(body: bytes, operator: str = "operator") -> bytes:
    return attached(body, sign(operator, label("delta") + sha256(body)))


def delta(known: dict[str, Json], given: dict[str, Json]) -> bytes:
    """A delta that the operator signed."""
    return signed_delta(canonical(delta_of(known, given)))


def line_of(stated: Json, before: bytes | None, seq: int) -> bytes:
    """A record, to follow on a line; on None the first."""
    return canonical({**stated, "prev": b64(bytes(32) if before is None else sha256(before)), "seq": seq})


def checkpoint(before: bytes, server: str = "server", message: bytes | None = None) -> dict[str, Json]:
    """What a checkpoint says that stands behind a line."""
    message = label("audit") + sha256(before) if message is None else message
    return {"key": b64(signing_public(server)), "kind": "checkpoint", "signature": b64(sign(server, message))}


def tree_hash(lines: Sequence[bytes]) -> bytes:
    """The hash of RFC 6962 over some lines, as its section 2.1 says it: of the two halves, the left one a power of two."""
    if len(lines) == 1:
        return sha256(b"\0" + lines[0])
    left = 1 << (len(lines) - 1).bit_length() - 1
    return sha256(b"\1" + tree_hash(lines[:left]) + tree_hash(lines[left:]))


def tree_message(first: int, count: int, root: bytes) -> bytes:
    """What is signed of the tree of a checkpoint."""
    return label("audit tree") + first.to_bytes(8, "big") + count.to_bytes(8, "big") + root


def tree(lines: Sequence[bytes], first: int, server: str = "server") -> dict[str, Json]:
    """What a checkpoint says of the records behind which it stands, from a number on."""
    covered = lines[first - 1 :]
    root = tree_hash(covered)
    signature = sign(server, tree_message(first, len(covered), root))
    return {"first": first, "root": b64(root), "signature": b64(signature)}


def trail(*records: Json) -> list[bytes]:
    """The lines of records; a function is asked for the record that stands behind the line before."""
    lines: list[bytes] = []
    for stated in records:
        before = lines[-1] if lines else None
        lines.append(line_of(stated(before or bytes(0)) if callable(stated) else stated, before, len(lines) + 1))
    return lines


def head(lines: list[bytes], seq: int) -> dict[str, Json]:
    """What somebody keeps who saw the trail up to a record."""
    return {"seq": seq, "hash": b64(bytes(32) if seq == 0 else sha256(lines[seq - 1]))}


# --- marks -----------------------------------------------------------------------------------------------------------


def sized(text: str) -> bytes:
    return len(text.encode()).to_bytes(4, "big") + text.encode()


def of_task(subject: str = "user:jane", task: str = "task-123") -> bytes:
    """What stands before the name in the bucket of a task's mark."""
    return sized(subject) + task.partition("/")[0].encode() + b"\0"


def mark_of_task(name: str, **root: str) -> str:
    """The bucket of a mark of link 0."""
    return b64(sha256(label("mark of a task") + of_task(**root) + name.encode()))


def mark_of_link(parts: Parts, at: int, name: str) -> str:
    """That of a mark of another link."""
    return b64(sha256(label("mark of a link") + unb64(link_id(parts.tags[at + 1])) + name.encode()))


def mark_of_entry(entry: str, name: str, **root: str) -> str:
    """That of a mark of an entry of the overlay."""
    return b64(sha256(label("mark of an entry") + sized(entry) + of_task(**root) + name.encode()))


# --- pairwise keys ---------------------------------------------------------------------------------------------------


def pairwise(shared: bytes, issuer: bytes, server: bytes, audience: str) -> tuple[str, bytes]:
    """Key id and root key of an issuer and a server, by their public keys."""
    extracted = mac(label("pairwise"), shared)
    key_id = f"p-{sha256(label('pairwise key id') + issuer + server).hex()[:24]}"
    return key_id, mac(extracted, issuer + server + audience.encode() + b"\1")


def shared(one: str, other: str) -> bytes:
    """What two parties share, by their names."""
    point: bytes = sodium.crypto_scalarmult(secret(one), exchange_public(other))
    return point


# --- consents --------------------------------------------------------------------------------------------------------


def consent(
    parts: Parts, at: int, approver: str, request: bytes, *, audience: str = "sales-db", issued: int = NOW, until: int = NOW + 300,
    nonce: bytes = secret("consent", 16), by: str | None = None, named: bytes | None = None,
) -> str:  # fmt: skip
    """The approver's yes, after link `at` of a token, to a request. `by` is the key that the question names, if it is another; `named`
    is the whole question instead."""
    after, where = state(parts.tags[at + 1]), sha256(audience.encode())
    times = issued.to_bytes(8, "big") + until.to_bytes(8, "big")
    question = sha256(label("consent question") + signing_public(by or approver) + after + request + where) if named is None else named
    signature = sign(approver, label("consent") + after + request + where + times + nonce)
    return f"cap1a_{b64(question + times + nonce + signature)}"


def consented(parts: Parts, *consents: str, discharges: tuple[Parts, ...] = ()) -> str:
    """The text of a token with these consents behind it, in their order."""
    return ".".join((bundle(parts, *discharges), *sorted(consents, key=lambda text: unb64(text[6:]))))


def spend(approver: str, issued: int = NOW, nonce: bytes = secret("consent", 16)) -> dict[str, Json]:
    """What a store remembers of a consent."""
    return {"entry": sha256(label("consent use") + signing_public(approver) + nonce)[:16].hex(), "issued_at": issued}
