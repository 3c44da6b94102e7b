"""The reference evaluator, asked what a vector of `spec/vectors/` asks. It reads `spec/vectors/FORMAT.md`, and no adapter."""

from collections.abc import Mapping
from typing import Any

from tests.reference import evaluator

Vector = Mapping[str, Any]


def answer(vector: Vector) -> dict[str, Any] | None:
    """What comes of a vector, as far as the evaluator knows; None for what it is not asked. It trusts the types of what is
    stated, so that it is not asked what an implementation calls `usage`."""
    reader = {"decision": decided, "dry_run": dry_run, "chain": chain, "request": request, "evidence": evidence}.get(vector["kind"])
    return None if reader is None or vector["expect"]["code"] == "usage" else reader(vector)


def dry_run(vector: Vector) -> dict[str, Any]:
    """Without stores that remember, what is decided behind it is the same."""
    said = decided(vector)
    place = {key: said[key] for key in ("link", "added_by") if key in said}
    return {"code": said["code"], **place, "then": decided(vector)["code"]}


def chain(vector: Vector) -> dict[str, Any]:
    derived = evaluator.derive(bytes.fromhex(vector["key"]))
    caveats = [(bytes.fromhex(each["cid"]), bytes.fromhex(each["vid"]) or None) for each in vector["caveats"]]
    tags = evaluator.chain_tags(derived, bytes.fromhex(vector["identifier"]), caveats)
    root_tag = vector["bound_to"]
    bound = None if root_tag is None else evaluator.bind(bytes.fromhex(root_tag), tags[-1]).hex()
    return {"code": "ok", "derived": derived.hex(), "tags": [tag.hex() for tag in tags], "bound": bound}


def request(vector: Vector) -> dict[str, Any] | None:
    """Of a message it does not know to which access it comes."""
    if vector["form"] == "message":
        return None
    if vector["form"] == "access":
        return {"code": "ok", "digest": evaluator.request_digest(vector["access"]).hex()}
    if vector["form"] == "http":
        parts = [vector[name].encode("ascii") for name in ("method", "origin", "target")]
        parts.append(evaluator.sha256(bytes.fromhex(vector["body"])))
    else:
        parts = [vector["method"].encode(), vector["tool"].encode(), bytes.fromhex(vector["arguments"])]
    joined = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return {"code": "ok", "digest": evaluator.sha256(evaluator.label(f"request {vector['form']}") + joined).hex()}


def evidence(vector: Vector) -> dict[str, Any]:
    stated = {key: evaluator.unbase64(value) for key, value in vector["evidence"].items() if key != "body"}
    try:
        body = evaluator.sha256(vector["evidence"]["body"].encode())
    except UnicodeEncodeError:  # a lone surrogate
        return {"code": "bad_proof"}
    sizes = {key: None if value is None else len(value) for key, value in stated.items()}
    good = sizes == {"key": 32, "state": 32, "signature": 64} and evaluator.is_signed(
        vector["evidence"]["key"], evaluator.label("custody") + stated["state"] + body, stated["signature"]
    )
    return {"code": "ok" if good else "bad_proof"}


def decided(vector: Vector) -> dict[str, Any]:
    """Of a decision the code; of a denial the link that refuses and who added it, where a link does; of what is allowed the
    chain, and the key of a bound token."""
    told: dict[str, Any] = {}
    facts, asks = vector["facts"], vector["access"]
    code = evaluator.evaluate(
        vector["token"],
        keys(vector["keyring"]),
        asks,
        now=facts["now"],
        leeway=facts["leeway"],
        audiences=tuple(facts["audiences"]),
        allow_unaddressed=facts["allow_unaddressed"],
        caller=vector["caller"],
        request=bytes.fromhex(vector["request"]) if "request" in vector else None,
        store=store(vector.get("replays")),
        ledger=ledger(vector.get("ledger")),
        overlay=overlay(vector.get("overlay")),
        told=told,
    )
    if code != "allowed":
        return {"code": code} | {key: told[key] for key in ("link", "added_by") if key in told}
    key = {} if told["key"] is None else {"key": told["key"]}
    return {"code": code, "chain": [list(actor) for actor in told["chain"]], **key}


def keys(keyring: Vector) -> dict[Any, bytes]:
    """Root keys by key id; or those of one audience, by key id and audience."""
    audience = keyring["audience"]
    return {
        key_id if audience is None else (key_id, audience): bytes.fromhex(key) for key_id, key in keyring["keys"].items()
    }


def store(stated: Vector | None) -> Any:
    """The store of used proofs, with what was used before."""
    if stated is None or "down" in stated:  # none, or none that answers: the code is one
        return None
    made = evaluator.Store(floor=stated["floor"], limit=stated["limit"])
    for use in stated["used"]:
        try:
            made.commit(bytes.fromhex(use["entry"]), use["issued_at"], use["issued_at"])
        except evaluator.Stop:
            continue
    return made


def ledger(stated: Vector | None) -> Any:
    """The ledger, with what was spent before."""
    if stated is None:
        return None
    made = evaluator.Ledger(stated["shared"], stated["floor"], "down" in stated)
    for spent in stated["spent"]:
        name = spent["bucket"], spent["unit"]
        made.spent[name] = made.spent.get(name, 0) + spent["amount"]
    return made


def overlay(stated: Vector | None) -> Any:
    """The overlay, with the verifier's bound on its age. That its signature holds is taken as given."""
    if stated is None:
        return None
    if "down" in stated:
        return evaluator.DOWN
    text = stated["snapshot"]
    snapshot = None if text is None else evaluator.decode_object(text.encode("latin-1")[:-87])
    return snapshot, stated.get("max_staleness", 60), stated["allow_stale"]
