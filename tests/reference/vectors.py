"""The reference evaluator, asked what a vector of `spec/vectors/` asks. It reads `spec/vectors/FORMAT.md`, and no adapter."""

from collections.abc import Mapping
from typing import Any

from tests.reference import evaluator

Vector = Mapping[str, Any]


def decided(vector: Vector) -> dict[str, Any]:
    """Of a decision the code; of a denial the link that refuses and who added it, where a link does."""
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
    return {"code": code} | {key: told[key] for key in ("link", "added_by") if code != "allowed" and key in told}


def keys(keyring: Vector) -> dict[Any, bytes]:
    """Root keys by key id; or those of one audience, by key id and audience."""
    audience = keyring["audience"]
    return {
        key_id if audience is None else (key_id, audience): bytes.fromhex(key) for key_id, key in keyring["keys"].items()
    }


def store(stated: Vector | None) -> Any:
    """The store of used proofs, with what was used before."""
    if stated is None:
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
    made = evaluator.Ledger(stated["shared"], stated["floor"])
    for spent in stated["spent"]:
        name = spent["bucket"], spent["unit"]
        made.spent[name] = made.spent.get(name, 0) + spent["amount"]
    return made


def overlay(stated: Vector | None) -> Any:
    """The overlay, with the verifier's bound on its age. That its signature holds is taken as given."""
    if stated is None:
        return None
    text = stated["snapshot"]
    snapshot = None if text is None else evaluator.decode_object(text.encode("latin-1")[:-87])
    return snapshot, stated["max_staleness"], stated["allow_stale"]
