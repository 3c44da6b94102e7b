"""Asks one state of the package, of which the public names alone are used: a process of its own, told what to do on stdin.

    {"first": 0, "count": 100}    hashes of what comes of these sessions, and how often each code came
    {"show": 17}                  all that comes of one, by step

The folder of the package stands first in PYTHONPATH, that of the tests and of the builder behind it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import captoken
from captoken import Access, Caller, CaptokenError, Decision, Denied, Grant, Keyring, Token, Verifier
from captoken.audit import AuditTrail
from captoken.caveats import Caveat, Reason, Vocabulary
from captoken.control import Overlay
from captoken.proof import request_digest
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.stores.ports import Debit, Reservation, Use
from spec.generate import build
from tests.before.sessions import session

Json = Any
RUNNER = asyncio.Runner()


def own_caveat(stated: dict[str, Json]) -> type[Caveat]:
    """An own caveat that does what is said."""

    class Own(Caveat, frozen=True):
        key = stated["key"]
        domain = stated["domain"]
        asks_access = stated.get("asks_access", True)

        def __post_init__(self) -> None:
            if stated["does"] == "refuses_value":
                raise ValueError("no value is one of mine")

        def prohibits(self, access: Any, situation: Any) -> Any:
            if stated["does"] == "fails":
                raise RuntimeError("the check fails")
            if stated["does"] == "prohibits":
                return Reason(stated["code"], "so it is") if "code" in stated else "so it is"
            if stated["does"] == "attribute_in":
                name = self.key.partition(":")[2]
                value = getattr(self, "value", None)
                given = None if access is None else access.attributes.get(name)
                return None if isinstance(value, list) and given in value else "not one of the list"
            return stated.get("value")

    return Own


def reach(is_down: bool) -> None:
    if is_down:
        raise OSError("it cannot be reached")


class Replays(MemoryReplayStore):
    is_down = False

    def peek(self, use: Use, now: int) -> bool:
        reach(self.is_down)
        return super().peek(use, now)

    def add(self, use: Use, now: int) -> bool:
        reach(self.is_down)
        return super().add(use, now)


class Ledger(MemoryLedger):
    is_down = False

    def peek(self, reservation: Reservation, now: int) -> Debit | None:
        reach(self.is_down)
        return super().peek(reservation, now)

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        reach(self.is_down)
        return super().reserve(reservation, now)


class Asked:
    """The verifiers of one session, and what was granted."""

    def __init__(self, made: dict[str, Json]) -> None:
        self.now, self.drawn = build.NOW, 0
        self.grants: list[Grant] = []
        self.lines: list[bytes] = []
        self.vocabulary = Vocabulary(*map(own_caveat, made["own"]))
        self.snapshots: list[Json] = [each["overlay"] and each["overlay"]["snapshot"] for each in made["verifiers"]]
        self.opened: dict[str, Overlay] = {}
        self.verifiers = [self.verifier(place, each) for place, each in enumerate(made["verifiers"])]

    def random(self, size: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(size, "big")

    def verifier(self, place: int, stated: dict[str, Json]) -> Verifier:
        keys = {name: bytes.fromhex(key) for name, key in stated["keyring"]["keys"].items()}
        audience, facts, given = stated["keyring"]["audience"], stated["facts"], {}
        if stated["overlay"] is not None:
            given = {"overlay": lambda: self.newest(place, stated["overlay"]), "allow_stale_overlay": stated["overlay"]["allow_stale"]}
            given |= {"max_staleness": stated["overlay"]["max_staleness"]} if "max_staleness" in stated["overlay"] else {}
        if stated["audit"]:
            given["audit"] = AuditTrail(self.lines.append, clock=lambda: self.now)
        return Verifier(
            Keyring.from_keys(keys, "k1") if audience is None else Keyring(keys, "k1", audience),
            tuple(facts["audiences"]) or None,
            allow_unaddressed=facts["allow_unaddressed"], leeway=facts["leeway"], max_age=stated["max_age"], remember=stated["remember"],
            replays=self.replays(stated["replays"]), ledger=self.ledger(stated["ledger"]), vocabulary=self.vocabulary,
            clock=lambda: self.now, random=self.random, **given,
        )  # fmt: skip

    def newest(self, place: int, stated: dict[str, Json]) -> Overlay | None:
        reach("down" in stated)
        text = self.snapshots[place]
        if text is not None and text not in self.opened:
            self.opened[text] = Overlay.open(text.encode("latin-1"), stated["operators"])
        return None if text is None else self.opened[text]

    def replays(self, stated: dict[str, Json] | None) -> MemoryReplayStore | None:
        if stated is None:
            return None
        store = Replays(floor=stated["floor"], limit=stated["limit"])
        store.is_down = "down" in stated
        return store

    def ledger(self, stated: dict[str, Json] | None) -> MemoryLedger | None:
        if stated is None:
            return None
        ledger = Ledger(shared=stated["shared"], floor=stated["floor"])
        for number, spent in enumerate(stated["spent"]):
            debit = Debit(build.unb64(spent["bucket"]), spent["unit"], 2**60, spent["amount"])
            ledger.reserve(Reservation(number.to_bytes(16, "little"), (debit,), stated["floor"] + 1, 0, None), -1)
        ledger.is_down = "down" in stated
        return ledger

    def step(self, step: dict[str, Json]) -> list[Json]:
        """What comes of one: [[what was asked, code, step, places, words], …], and errors as what they are."""
        self.now = step["now"]
        if "snapshot" in step:
            self.snapshots[step["verifier"]] = step["snapshot"]
        how: str = step["how"]
        try:
            return self.of_grant(how.removeprefix("grant "), step) if how.startswith("grant ") else self.sent(how, step)
        except Denied as denied:
            return [told(how, denied.decision, str(denied), denied.public, denied.kind)]
        except CaptokenError as error:
            return [[how, error.code, type(error).__name__, None, [str(error)]]]
        except (TypeError, ValueError, OSError, RuntimeError) as error:
            return [[how, f"raised {type(error).__name__}", None, None, [str(error)]]]

    def sent(self, how: str, step: dict[str, Json]) -> list[Json]:
        face: Any = self.verifiers[step["verifier"]]
        face = face.awaited if step["awaited"] else face
        access, caller = Access(**step["access"]), None if step["caller"] is None else Caller(**step["caller"])
        text: Any = Token.parse(step["text"], vocabulary=self.vocabulary) if step["parsed"] and "." not in step["text"] else step["text"]
        if how == "owes_proof":
            return [[how, str(waited(face.owes_proof(step["text"]))), None, None, []]]
        if how == "authenticate":
            grant = waited(face.authenticate(text, request=request_digest(None)))
        elif how == "authorize":
            grant = waited(face.authorize(text, access, caller=caller))
        elif how == "deny":
            return [told(how, waited(face.deny(text, "domain", "for a request that no token permits", request=request_digest(None))))]
        else:
            decision: Decision = waited(getattr(face, how)(text, access, caller=caller))
            self.keep(decision.grant)
            return [told(how, decision)]
        self.keep(grant)
        return [of_grant(how, grant)]

    def keep(self, grant: Any) -> None:
        if grant is not None:
            self.grants.append(grant.blocking)

    def of_grant(self, how: str, step: dict[str, Json]) -> list[Json]:
        if not self.grants:
            return [[how, "no grant", None, None, []]]
        standing = self.grants[int(step["grant"] * len(self.grants))]
        face: Any = standing.awaited if step["awaited"] else standing
        accesses, caller = [Access(**each) for each in step["accesses"]], None if step["caller"] is None else Caller(**step["caller"])
        if how == "facts":
            return [of_grant(how, standing)]
        if how == "left":
            left = waited(face.left(["cents", "tokens", "uses"]))
            return [[how, json.dumps(left, sort_keys=True), None, None, []]]
        if how == "authorize":
            return [of_grant(how, waited(face.authorize(accesses[0], caller=caller)))]
        if how == "recheck":
            return [told(how, waited(face.recheck(caller=caller)))]
        if how == "deny":
            return [told(how, waited(face.deny("tool", "not one of this server", accesses[0])))]
        if how in ("recheck_all", "check_all"):
            return [told(how, waited(getattr(face, how.replace("recheck_all", "recheck"))(accesses, caller=caller)))]
        if how in ("reserve", "reserve_all"):
            reserved = waited(getattr(face, how)(accesses if how == "reserve_all" else accesses[0], caller=caller))
            closed = waited(reserved.cancel() if step["cancel"] else reserved.settle(step["settle"]))
            return [[how, f"allowed, and closed {closed}", None, None, []]]
        # `check` and `explain`: each of the accesses, one after the other.
        return [told(how, waited(getattr(face, how)(access, caller=caller)), declares=step["declares"]) for access in accesses]


def waited(answer: Any) -> Any:
    """What comes of it, where it has to be waited for."""

    async def wait() -> Any:
        return await answer

    return RUNNER.run(wait()) if hasattr(answer, "__await__") else answer


def told(how: str, decision: Decision, *more: str, declares: Any = ()) -> list[Json]:
    """A decision: what was asked, the code, the step, the places, and the words for each reader."""
    places = [[refusal.code, refusal.link, refusal.added_by, repr(refusal.failing)] for refusal in decision.refusals]
    steps = [[step.number, step.name, step.outcome, step.detail] for step in decision.steps]
    words = [
        str(decision), decision.report(values=True), decision.for_model(), decision.for_model(tell_limits=True, declares=declares), repr(steps),
        repr([refusal.text for refusal in decision.refusals]), json.dumps({key: value for key, value in decision.as_dict().items() if key != "id"}), *more,
    ]  # fmt: skip
    return [how, decision.code, decision.step, places, words]


def of_grant(how: str, grant: Any) -> list[Json]:
    """What a grant says of itself."""
    facts = [
        repr(grant), repr(grant.chain), grant.task, repr(grant.expires_at), repr(grant.link_ids), repr(grant.key), repr(grant.handed_on_at),
        json.dumps(grant.capability.json(), sort_keys=True), repr([evidence.as_dict() for evidence in grant.evidence]),
    ]  # fmt: skip
    return [how, "allowed", None, None, facts]


def outcome(seed: str, number: int) -> list[Json]:
    """What comes of a session, step by step; last, what was recorded."""
    made = session(seed, number)
    asked = Asked(made)
    came = [asked.step(step) for step in made["steps"]]
    return [*came, [recorded(line) for line in b"".join(asked.lines).splitlines()]]


def recorded(line: bytes) -> list[Json]:
    """A record, without what is drawn, and without the hash of the one before it: what differs there is told there."""
    record = json.loads(line)
    for drawn in ("prev", "id", "taken"):
        record.pop(drawn, None)
    places = [[refusal["code"]] for refusal in record.get("refusals", ())]
    return ["trail", record.get("code", record["kind"]), None, places, [json.dumps(record, sort_keys=True)]]


def main(folder: str, seed: str) -> None:
    loaded = Path(captoken.__file__).resolve()
    if not loaded.is_relative_to(Path(folder).resolve()):
        raise SystemExit(f"captoken was loaded from {loaded}, and not from {folder}")
    logging.disable()
    for line in sys.stdin:
        wanted = json.loads(line)
        if "show" in wanted:
            print(json.dumps(outcome(seed, wanted["show"])), flush=True)
            continue
        hashes, codes, decisions = [], Counter[str](), 0
        for number in range(wanted["first"], wanted["first"] + wanted["count"]):
            came = outcome(seed, number)
            hashes.append(hashlib.sha256(json.dumps(came).encode()).hexdigest()[:16])
            for one in (each for step in came[:-1] for each in step):
                codes[one[1] if not one[1].startswith("{") else "left"] += 1
                decisions += one[1] != "no grant"
        print(json.dumps({"hashes": hashes, "codes": codes, "decisions": decisions}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
