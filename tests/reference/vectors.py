"""The reference evaluator, asked what a vector of `spec/vectors/` asks. It reads `spec/vectors/FORMAT.md`, and no adapter."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.reference import evaluator

Vector = Mapping[str, Any]


def answer(vector: Vector) -> dict[str, Any] | None:
    """What comes of a vector, as far as the evaluator knows; None for what it is not asked."""
    # Of requests it knows which accesses can be stated, and not which messages of HTTP and MCP.
    if vector["kind"] == "request" and vector["form"] != "access" and vector["expect"]["code"] == "usage":
        return None
    return READERS[vector["kind"]](vector) if vector["kind"] in READERS else None


def can_be_stated(vector: Vector) -> bool:
    """Are the facts of a verifier and of a request facts? Else it is `usage`. 7.7, 21.1"""
    access, caller = vector.get("access"), vector.get("caller")
    return (
        all(evaluator.is_root_key(key) for key in keys(vector["keyring"]).values())
        and (access is None or evaluator.is_access(access))
        and (caller is None or evaluator.is_caller(caller))
    )


class Own:
    """An own caveat, which does what FORMAT.md says."""

    def __init__(self, stated: Vector) -> None:
        self.stated = stated
        self.domain, self.asks_access = stated["domain"], stated.get("asks_access", True)

    def reads(self, value: Any) -> bool:
        return self.stated["does"] != "refuses_value"

    def prohibits(self, value: Any, access: Any) -> str | None:
        """None, the code of a denial, or a text that is no code."""
        does = self.stated["does"]
        if does == "attribute_in":
            attribute = (access or {}).get("attributes", {}).get(self.stated["key"].partition(":")[2])
            return None if evaluator.satisfies({"in": value}, attribute) else ""
        return None if does == "holds" else self.stated.get("code", "") if does == "prohibits" else ""


def dry_run(vector: Vector) -> dict[str, Any]:
    """It takes nothing, so that what is decided behind it is the same."""
    said = decided(vector)
    if said["code"] == "usage":
        return said
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
        if vector["access"] is not None and not evaluator.is_access(vector["access"]):
            return {"code": "usage"}
        digest = evaluator.digest_for_proof(stated_facts(vector["access"]))
        return {"code": "usage"} if digest is None else {"code": "ok", "digest": digest.hex()}
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


def known(vector: Vector) -> dict[str, Any]:
    """What the verifier knows, but for the time."""
    facts = vector["facts"]
    return {
        "leeway": facts["leeway"], "audiences": tuple(facts["audiences"]), "allow_unaddressed": facts["allow_unaddressed"],
        "own": {each["key"]: Own(each) for each in vector.get("own", ())}, "context": facts.get("context", {}),
    }  # fmt: skip


def stated_facts(stated: Vector | None) -> dict[str, Any] | None:
    """An access or a caller without what is null in it."""
    return None if stated is None else evaluator.facts_of(dict(stated))


def sent(vector: Vector, told: dict[str, Any], counted: Any, used: Any) -> str:
    """The code of what comes of the text that is sent."""
    return evaluator.evaluate(
        vector["token"],
        keys(vector["keyring"]),
        stated_facts(vector.get("access")),
        now=vector["facts"]["now"],
        **known(vector),
        caller=stated_facts(vector.get("caller")),
        request=bytes.fromhex(vector["request"]) if "request" in vector else None,
        store=used,
        ledger=counted,
        overlay=overlay(vector.get("overlay")),
        told=told,
    )


def decided(vector: Vector) -> dict[str, Any]:
    """Of a decision the code; of a denial the link that refuses and who added it, where a link does; of what is allowed all that
    FORMAT.md names."""
    if not can_be_stated(vector):
        return {"code": "usage"}
    told: dict[str, Any] = {}
    code = sent(vector, told, ledger(vector.get("ledger")), store(vector.get("replays")))
    if code != "allowed":
        return {"code": code} | {key: told[key] for key in ("link", "added_by") if key in told}
    said = {"code": code, "chain": [list(actor) for actor in told["chain"]]}
    said |= {key: told[key] for key in ("link_ids", "task", "expires_at")}
    if "ledger" in vector:
        fields = ("bucket", "unit", "limit", "amount")
        said["debits"] = [dict(zip(fields, debit[1:], strict=True)) for debit in told["debits"]]
        said |= {"marks": sorted(map(evaluator.base64text, told["marks"]))} if told["marks"] else {}
    if told["spends"]:
        said["spends"] = [{"entry": name.hex(), "issued_at": issued} for name, issued in told["spends"]]
    if told["key"] is not None:
        uses = [{"entry": name.hex(), "issued_at": issued} for name, issued in told["uses"]]
        said |= {"key": told["key"], "uses": uses, "evidence": told["evidence"]}
    return said


def grant(vector: Vector) -> dict[str, Any]:
    """A grant, asked step by step; stores, overlay and clock are those of one verifier."""
    told: dict[str, Any] = {}
    counted, verified_at, standing = ledger(vector.get("ledger")), vector["facts"]["now"], vector.get("overlay")
    used = store(vector.get("replays"))
    code = sent(vector, told, counted, used)
    if code != "allowed":
        return {"code": code} | {key: told[key] for key in ("link", "added_by") if key in told}
    answers = []
    for step in vector["steps"]:
        if standing is not None and "snapshot" in step:
            standing = {**standing, "snapshot": step["snapshot"]}
        said = evaluator.ask_again(
            told["token"], stated_facts(step["access"]), verified_at=verified_at, max_age=vector.get("max_age", 3600), now=step["now"],
            caller=stated_facts(step.get("caller")), overlay=overlay(standing), how=step.get("how", "check"), ledger=counted,
            store=used,
            **known(vector),
        )  # fmt: skip
        answers.append(said)
    return {"code": "ok", "answers": answers}


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
    for before, of in ((stated["used"], made), (stated.get("spent", ()), made.spent)):
        for use in before:
            try:
                of.commit(bytes.fromhex(use["entry"]), use["issued_at"], use["issued_at"])
            except evaluator.Stop:
                continue
    return made


def ledger(stated: Vector | None) -> Any:
    """The ledger, with what was spent before."""
    if stated is None:
        return None
    marks = map(evaluator.unbase64, stated.get("marks", ()))
    made = evaluator.Ledger(stated["shared"], stated["floor"], "down" in stated, marks)
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


READERS: dict[str, Callable[[Vector], dict[str, Any] | None]] = {
    "decision": decided, "own": decided, "grant": grant, "dry_run": dry_run, "chain": chain, "request": request, "evidence": evidence,
}  # fmt: skip
