"""Bound tokens, hand-overs and proofs written by hand, as an attacker writes them: from the specification's text, with
hashlib and libsodium alone, whatever captoken itself would refuse to write.
"""

import hashlib
import json

from nacl.signing import SigningKey

from captoken import Verifier
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryReplayStore
from tests.reference import evaluator
from tests.reference.fixtures import ASK, NOW, SALES, append, hop, keyring, sections, text

AUDIENCE = "sales-db"
ORCHESTRATOR, SALES_AGENT, EU_AGENT, MALLORY = (SigningKey(bytes([n, *range(31)])) for n in (11, 12, 13, 14))
NONCE = bytes(range(16))


def public(key):
    """The public key as it stands in a link."""
    return evaluator.base64text(bytes(key.verify_key))


def holder(key):
    """The same key as captoken holds it."""
    return HolderKey.from_bytes(bytes(key))


def label(purpose):
    return b"captoken/v1 " + purpose.encode() + b"\0"


def sha256(data):
    return hashlib.sha256(data).digest()


def state(tag):
    """What a tag commits to, in public."""
    return sha256(label("state") + tag)


def tag_of(token_text):
    """The last tag: the signature that a token carries."""
    return sections(token_text)[2]


# ---- custody -------------------------------------------------------------------------------------------------------


def link_bytes(link):
    return link if isinstance(link, bytes) else evaluator.canonical(link).encode()


def custody_message(token_text, link):
    """What is signed to let `link` follow on the chain of a token."""
    return label("custody") + state(tag_of(token_text)) + sha256(link_bytes(link))


def with_signature(link, signature):
    return link_bytes(link) + b"." + evaluator.base64text(signature).encode()


def signed(token_text, link, signer):
    """The link with the custody signature that makes it follow on this token."""
    return with_signature(link, signer.sign(custody_message(token_text, link)).signature)


def hand_over(to, key, parent="orchestrator", **caveats):
    """A link that hands on to an agent and its key."""
    return {**hop(to, parent), "key": public(key), **caveats}


def handed(token_text, signer, to, key, parent="orchestrator", **caveats):
    """The token, handed on by the signer."""
    return append(token_text, signed(token_text, hand_over(to, key, parent, **caveats), signer))


def bound(*links, key=ORCHESTRATOR, first=None, **root):
    """A root token that is bound to a key, addressed to the one server."""
    return text({**(SALES if first is None else first), "aud": [AUDIENCE], "key": public(key)}, *links, **root)


TOKEN = bound()
CHILD = handed(TOKEN, ORCHESTRATOR, "sales-agent", SALES_AGENT)
GRANDCHILD = handed(CHILD, SALES_AGENT, "eu-agent", EU_AGENT, "sales-agent")
KEYS = {TOKEN: ORCHESTRATOR, CHILD: SALES_AGENT, GRANDCHILD: EU_AGENT}


# ---- requests and proofs -------------------------------------------------------------------------------------------


def digest(purpose, *parts):
    return sha256(label(purpose) + b"".join(len(part).to_bytes(8, "big") + part for part in parts))


def http(method, origin, target, body=b""):
    return digest("request http", method.encode(), origin.encode(), target.encode(), sha256(body))


def mcp(method, name, arguments=b"{}"):
    return digest("request mcp", method.encode(), name.encode(), arguments)


def stated(facts):
    """The digest of an access by its facts; of none for None."""
    if facts is None:
        return digest("request access")
    names = ("arguments", "attributes", "columns", "operation", "table", "tool")
    facts = {"attributes": {}, **({"arguments": {}} if "tool" in facts else {}), **facts}
    if facts.get("columns") is not None:
        facts["columns"] = sorted(set(facts["columns"]))
    spelled = json.dumps({name: facts.get(name) for name in names}, sort_keys=True, separators=(",", ":"))
    return digest("request access", spelled.encode())


def proof_message(tag, audience, at, nonce, request):
    return label("proof") + state(tag) + sha256(audience.encode()) + at.to_bytes(8, "big") + nonce + request


def proof_text(at, nonce, signature):
    return "cap1p_" + evaluator.base64text((at if isinstance(at, bytes) else at.to_bytes(8, "big")) + nonce + signature)


def proof(token_text, key=None, request=None, *, audience=AUDIENCE, at=NOW, nonce=NONCE):
    """A proof for one request: by the key that goes with the token, for the usual access, unless told otherwise."""
    key = KEYS[token_text] if key is None else key
    request = stated(ASK) if request is None else request
    return proof_text(at, nonce, key.sign(proof_message(tag_of(token_text), audience, at, nonce, request)).signature)


def sent(token_text, key=None, request=None, **made):
    """The text as it is sent: it ends in a proof, made as `proof` makes it."""
    return f"{token_text}.{proof(token_text, key, request, **made)}"


def taken_apart(text_of_proof):
    """(time, nonce, signature) of a proof."""
    data = evaluator.unbase64(text_of_proof[6:])
    return int.from_bytes(data[:8], "big"), data[8:24], data[24:]


def server(now=NOW, audience=AUDIENCE, **facts):
    """A server that asks for proofs, with a memory of its own; `now` may be a callable."""
    clock = now if callable(now) else lambda: now
    return Verifier(keyring(), audience, **{"replays": MemoryReplayStore(floor=0), "clock": clock, **facts})
