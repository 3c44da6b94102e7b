"""captoken, as the runner asks it. Where there are several ways to ask, all are asked and must agree."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec

from captoken import (
    Access,
    Caller,
    Capability,
    CaptokenError,
    Decision,
    Denied,
    Grant,
    Issuer,
    Keyring,
    Token,
    TokenFormatError,
    TokenSet,
    Verifier,
    WideningError,
)
from captoken import proof as requests
from captoken._format import chain
from captoken._format.text import BOUND, whole_text
from captoken._language.link import Link
from captoken._language.links import split_signature
from captoken._language.overlay import Resumed, delta, snapshot
from captoken._verification.grant import Reserved
from captoken.adapters._mcp.messages import digest as of_message
from captoken.audit import AuditTrail, Head, check, read
from captoken.caveats import Caveat, Reason, Situation, Vocabulary
from captoken.control import ControlPlane, Entry, Feed, Operator, Overlay, _asked, recall
from captoken.discharge import Allow, Discharger, Ticket
from captoken.errors import CODES
from captoken.interop import normalize
from captoken.keys import AuditKey, DischargerKey, HolderKey, OperatorKey, PairwiseKey
from captoken.proof import Evidence, request_digest, with_proof
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from captoken.stores.ports import KEPT, Debit, Forbidden, Mark, MarkedStep, Reservation, Spend, Use
from captoken.testing import FixedClock
from spec.generate import build
from tests.vectors.runner import Outcome, Vector

OWN = "domain"  # the code of denials of the server's own
OF_LEDGERS = ("forbidden_after", "budget_exhausted", "store_unavailable")
OTHER_STEPS = {("malformed", 1), ("malformed", 3), ("store_unavailable", 7), ("stale_overlay", 8), ("too_much_work", 7)}  # beside that of the table (24.24)


class Captoken:
    """A function for each kind."""

    def decide(self, vector: Vector) -> Outcome:
        try:
            asked = _Asked(vector)
        except (TypeError, ValueError):
            return {"code": "usage"}
        decision = asked.in_every_way()
        grant = decision.grant
        if grant is None:
            return {"code": decision.code, **_place(decision)}
        outcome = {
            "code": decision.code,
            "link_ids": list(grant.link_ids),
            "chain": [[actor.name, actor.basis] for actor in grant.chain],
            "task": grant.task,
            "expires_at": grant.expires_at,
        }
        if "ledger" in vector:
            outcome["debits"] = [
                {"bucket": build.b64(debit.bucket), "unit": debit.unit, "limit": debit.limit, "amount": debit.amount}
                for debit in asked.debits
            ]
            outcome |= {"marks": sorted(map(build.b64, asked.marks))} if asked.marks else {}
        if asked.spent:
            outcome["spends"] = [{"entry": spend.entry.hex(), "issued_at": spend.issued_at} for spend in asked.spent]
        if grant.key is None:
            return outcome
        assert all(evidence.holds() for evidence in grant.evidence)
        return outcome | {
            "key": grant.key,
            "uses": [{"entry": use.entry.hex(), "issued_at": use.issued_at} for use in asked.committed],
            "evidence": [evidence.as_dict() for evidence in grant.evidence],
        }

    own = decide

    def grant(self, vector: Vector) -> Outcome:
        asked = _Asked({"access": None, "caller": None, **vector})
        verifier = asked.verifier()
        try:
            standing = verifier.authenticate(asked.text, request=request_digest(None) if asked.request is None else asked.request)
        except Denied as denied:
            return {"code": denied.code, **_place(denied.decision)}
        answers = []
        for step in vector["steps"]:
            asked.now = step["now"]
            asked.snapshot = step.get("snapshot", asked.snapshot)
            caller = Caller(**step["caller"]) if "caller" in step else None
            access = None if step["access"] is None else Access(**step["access"])
            how = step.get("how", "check")
            if how == "recheck":
                decision = standing.recheck([] if access is None else [access], caller=caller)
            else:
                decision = getattr(standing, how)(access, caller=caller)
            answers.append({"code": decision.code, **_place(decision)})
        return {"code": "ok", "answers": answers}

    def dry_run(self, vector: Vector) -> Outcome:
        try:
            asked = _Asked(vector)
        except (TypeError, ValueError):
            return {"code": "usage"}
        verifier = asked.verifier()
        given = {"caller": asked.caller, "request": asked.request}
        first, second = (verifier.explain(asked.text, asked.access, **given) for _ in range(2))
        assert (first.code, _place(first)) == (second.code, _place(second)) and first.grant is second.grant is None
        assert asked.committed == asked.spent == asked.debits == asked.marks == [], "a dry run takes nothing"
        if asked.access is None:
            then = _code(lambda: verifier.authenticate(asked.text, request=asked.request))
        else:
            then = verifier.check(asked.text, asked.access, **given).code
        return {"code": first.code, **_place(first), "then": then}

    def chain(self, vector: Vector) -> Outcome:
        derived = chain.derive(bytes.fromhex(vector["key"]))
        tags = [chain.mint_tag(derived, bytes.fromhex(vector["identifier"]))]
        for caveat in vector["caveats"]:
            tags.append(chain.extend(tags[-1], (bytes.fromhex(caveat["cid"]), bytes.fromhex(caveat["vid"]))))
        root_tag = vector["bound_to"]
        bound = None if root_tag is None else chain.bind(bytes.fromhex(root_tag), tags[-1]).hex()
        return {"code": "ok", "derived": derived.hex(), "tags": [tag.hex() for tag in tags], "bound": bound}

    def capability(self, vector: Vector) -> Outcome:
        one, two = (_capability(vector[key]) for key in ("one", "two"))
        both = one.meet(two)
        assert both == two.meet(one), "meet is symmetric"
        if not any("/" in name for name in both.json().get("marks", ())):  # two of one name, of which one has a number (46.10)
            assert both == _capability(both.json()), "and its spelling says the same"
        return {
            "code": "ok",
            "meet": both.json(),
            "one_covers_two": one.covers(two),
            "two_covers_one": two.covers(one),
        }

    def widening(self, vector: Vector) -> Outcome:
        knows, drawn = Vocabulary(*map(_own, vector.get("own", ()))), bytes.fromhex(vector["nonce"])
        token = Token.parse(vector["token"], vocabulary=knows, clock=FixedClock(vector["now"]), random=lambda _: drawn)
        signer = HolderKey.from_bytes(bytes.fromhex(vector["signer"])) if "signer" in vector else None
        try:
            made = (
                token.attenuate(signer=signer, **vector["asked"])
                if vector["to"] is None
                else token.delegate(to=vector["to"], signer=signer, **vector["asked"])
            )
        except WideningError as error:
            return {"code": error.code, "dimension": error.dimension}
        except CaptokenError as error:
            return {"code": error.code}
        except (TypeError, ValueError):
            return {"code": "usage"}
        assert made.unverified.bodies[:-1] == token.unverified.bodies, "a link is added, and nothing else"
        body, signature = split_signature(made.unverified.bodies[-1])
        outcome = {"code": "ok", "link": json.loads(body)}
        return outcome if signature is None else outcome | {"signature": build.b64(signature)}

    def set_of(self, vector: Vector) -> Outcome:
        try:
            return {"code": "ok", "text": TokenSet.of(*map(Token.parse, vector["tokens"])).serialize()}
        except ValueError:
            return {"code": "usage"}

    def set_read(self, vector: Vector) -> Outcome:
        try:
            held = TokenSet.parse(vector["text"])
        except TokenFormatError as error:
            return {"code": error.code}
        tokens = [held.token(server).serialize() for server in held.servers]
        return {"code": "ok", "servers": list(held.servers), "tokens": tokens}

    def set_narrowing(self, vector: Vector) -> Outcome:
        drawn = bytes.fromhex(vector["nonce"])
        held = TokenSet.parse(vector["text"], clock=FixedClock(vector["now"]), random=lambda _: drawn)
        asked = {**vector["asked"], **{key: vector[key] for key in ("only", "servers") if key in vector}}
        if "signer" in vector:
            asked["signer"] = HolderKey.from_bytes(bytes.fromhex(vector["signer"]))
        try:
            made = held.attenuate(**asked) if vector["to"] is None else held.delegate(to=vector["to"], **asked)
        except WideningError as error:
            server = str(error).removeprefix("at ").partition(": ")[0]
            return {"code": error.code, "dimension": error.dimension, "server": server}
        except CaptokenError as error:
            return {"code": error.code}
        except (TypeError, ValueError):
            return {"code": "usage"}
        return {"code": "ok", "text": made.serialize()}

    def mint(self, vector: Vector) -> Outcome:
        drawn = {16: bytes.fromhex(vector["token_id"]), 8: bytes.fromhex(vector["nonce"])}
        ring = _keyring(**vector["keyring"], current=vector["current"])
        knows = Vocabulary(*map(_own, vector.get("own", ())))
        issuer = Issuer(ring, vocabulary=knows, clock=FixedClock(vector["now"]), random=lambda size: drawn[size])
        stated = {name: vector[name] for name in ("subject", "agent", "task")}
        try:
            made = issuer.mint(**stated, **vector["asked"])
        except CaptokenError as error:
            return {"code": error.code}
        except (TypeError, ValueError):
            return {"code": "usage"}
        return {"code": "ok", "token": made.serialize()}

    def interop(self, vector: Vector) -> Outcome:
        try:
            text = normalize(vector["source"] if vector["form"] == "text" else bytes.fromhex(vector["source"]))
        except TokenFormatError as error:
            return {"code": error.code}
        assert normalize(text) == text
        return {"code": "ok", "text": text}

    def request(self, vector: Vector) -> Outcome:
        try:
            if vector["form"] == "http":
                body = bytes.fromhex(vector["body"])
                digest = requests.http_request(vector["method"], vector["origin"], vector["target"], body)
            elif vector["form"] == "mcp":
                digest = requests.mcp_request(vector["method"], vector["tool"], bytes.fromhex(vector["arguments"]))
            elif vector["form"] == "message":
                digest = of_message(vector["method"], vector["params"])
            else:
                digest = requests.access_request(None if vector["access"] is None else Access(**vector["access"]))
        except (TypeError, ValueError):
            return {"code": "usage"}
        return {"code": "ok", "digest": digest.hex()}

    def proof(self, vector: Vector) -> Outcome:
        stated = bytes.fromhex(vector["request"])
        key, nonce = HolderKey.from_bytes(bytes.fromhex(vector["secret"])), bytes.fromhex(vector["nonce"])
        clock = FixedClock(vector["now"])
        try:
            text = with_proof(
                vector["token"], key, audience=vector["audience"], request=stated, clock=clock, random=lambda _: nonce
            )
        except CaptokenError as error:
            return {"code": error.code}
        except ValueError:
            return {"code": "usage"}
        return {"code": "ok", "text": text}

    def presenting(self, vector: Vector) -> Outcome:
        drawn = bytes.fromhex(vector.get("nonce", ""))
        held = Token.parse(vector["token"], clock=FixedClock(vector["now"]), random=lambda _: drawn)
        signer = HolderKey.from_bytes(bytes.fromhex(vector["secret"])) if "secret" in vector else None
        about = bytes.fromhex(vector["request"]) if "request" in vector else None
        try:
            text = held.present(audience=vector["audience"], signer=signer, request=about, expires_in=60)
        except CaptokenError as error:
            return {"code": error.code}
        except ValueError:
            return {"code": "usage"}
        return {"code": "ok", "text": text}

    def evidence(self, vector: Vector) -> Outcome:
        try:
            evidence = Evidence.from_dict(vector["evidence"])
        except ValueError:
            return {"code": "bad_proof"}
        assert evidence.as_dict() == vector["evidence"]
        return {"code": "ok" if evidence.holds() else "bad_proof"}

    def asking(self, vector: Vector) -> Outcome:
        drawn = iter([bytes.fromhex(vector[name]) for name in ("caveat_key", "ephemeral", "nonce")])
        token = Token.parse(vector["token"], random=lambda _: next(drawn))
        try:
            made = token.require(vector["discharger"], need=vector["need"], location=vector["location"])
        except CaptokenError as error:
            return {"code": error.code}
        except (TypeError, ValueError):
            return {"code": "usage"}
        assert Ticket.parse(made.unverified.bodies[-1]).discharger == vector["discharger"]
        return {"code": "ok", "token": made.serialize()}

    def discharge(self, vector: Vector) -> Outcome:
        key = DischargerKey.from_bytes(bytes.fromhex(vector["secret"]))
        discharger = Discharger(key, lambda _: Allow(**vector["asked"]), clock=FixedClock(vector["now"]))
        try:
            need, made = discharger.need(vector["ticket"]), discharger.discharge(vector["ticket"])
        except CaptokenError as error:
            return {"code": error.code}
        except (TypeError, ValueError):
            return {"code": "usage"}
        assert made == discharger.approve(vector["ticket"], Allow(**vector["asked"]))
        return {"code": "ok", "need": need, "discharge": made.serialize()}

    def holding(self, vector: Vector) -> Outcome:
        try:
            token = Token.parse(vector["token"])
        except TokenFormatError as error:
            return {"code": error.code}
        assert token.serialize() == vector["token"]
        try:
            for each in vector.get("come", ()):
                token = token.with_discharge(each)
        except CaptokenError as error:
            return {"code": error.code}
        return {"code": "ok", "needs": [ticket.text for ticket in token.needs], "bound": _bound(token)}

    def pairwise(self, vector: Vector) -> Outcome:
        try:
            key = PairwiseKey.from_bytes(bytes.fromhex(vector["secret"]))
            if "server" in vector:
                ring = key.issuing(server=vector["server"], audience=vector["audience"])
            else:
                ring = key.serving(issuers=vector["issuers"], audience=vector["audience"])
        except (TypeError, ValueError):
            return {"code": "usage"}
        assert ring.audience == vector["audience"]
        return {"code": "ok", "keys": _shown(ring)}

    def key_file(self, vector: Vector) -> Outcome:
        kind = {
            "keyring": Keyring, "holder": HolderKey, "discharger": DischargerKey, "pairwise": PairwiseKey,
            "operator": OperatorKey, "audit": AuditKey,
        }[vector["purpose"]]  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "key.json")
            path.touch(0o600)
            path.write_bytes(vector["content"].encode("latin-1"))
            try:
                key = kind.load(path)
            except CaptokenError as error:
                return {"code": error.code}
            key.save(path)
            assert path.read_bytes() == vector["content"].encode("latin-1").removesuffix(b"\n") + b"\n"
        if isinstance(key, Keyring):
            return {"code": "ok", "keys": _shown(key), "current": key.current, "audience": key.audience}
        return {"code": "ok", "public": key.public}

    def snapshot(self, vector: Vector) -> Outcome:
        data, operators, store = vector["snapshot"].encode("latin-1"), vector["operators"], MemorySnapshots()
        knows = Vocabulary(*map(_own, vector.get("own", ())))
        feed = Feed(store, operators, vocabulary=knows, clock=FixedClock(0))
        if "known" in vector:
            store.publish(known := vector["known"].encode("latin-1"), None)
            feed.refresh()
            store.publish(data, known)
        else:
            store.publish(data, None)
        try:
            overlay = feed.refresh()
        except CaptokenError as error:
            return {"code": error.code}
        opened = Overlay.open(data, operators, vocabulary=knows)
        assert opened.entries == overlay.entries
        return {
            "code": "ok",
            "seq": overlay.seq,
            "issued_at": overlay.issued_at,
            "expires_at": overlay.expires_at,
            "entries": [entry.id for entry in overlay.entries],
        }

    def delta(self, vector: Vector) -> Outcome:
        known, operators = vector["known"].encode("latin-1"), vector["operators"]
        knows = Vocabulary(*map(_own, vector.get("own", ())))
        deltas, before = [text.encode("latin-1") for text in vector["deltas"]], Overlay.open(known, operators, vocabulary=knows)

        def behind() -> Overlay:
            return Overlay.open(b"\n".join((known, *deltas)), operators, vocabulary=knows)

        came: list[Overlay | None] = []
        for ask in (lambda: before.follow(deltas, operators, vocabulary=knows), behind):
            try:
                came.append(ask())
            except CaptokenError as error:
                assert error.code == "overlay"
                came.append(None)
        followed, opened = came
        if followed is None or opened is None:
            assert followed is opened is None and before.digest == Overlay.open(known, operators).digest
            return {"code": "overlay"}
        assert followed.digest == opened.digest
        return {
            "code": "ok",
            "seq": followed.seq,
            "issued_at": followed.issued_at,
            "expires_at": followed.expires_at,
            "entries": sorted(entry.id for entry in followed.entries),
            "hash": build.b64(followed.digest),
        }

    def recall(self, vector: Vector) -> Outcome:
        clock, store = FixedClock(vector["now"]), MemorySnapshots()
        key = OperatorKey.generate()
        operator = Operator(key, store, by="ops", clock=clock)
        keyring, replays = _keyring(**vector["keyring"]), MemoryReplayStore(floor=0)
        verifier = Verifier(keyring, vector["audience"], replays=replays, clock=clock)
        plane = ControlPlane(verifier, operator, most=vector.get("most", 100))
        if "standing" in vector:
            standing = [msgspec.convert(entry, Entry) for entry in vector["standing"]]
            store.publish(snapshot(key, standing, seq=1, issued_at=vector["now"]), None)
        before = store.load()
        try:
            with patch.object(_asked, "PART", vector.get("part", _asked.PART)):
                entry = plane.handle(vector["request"])
        except CaptokenError as error:
            assert store.load() == before, "refused, nothing is revoked"
            return {"code": error.code, **(_place(error.decision) if isinstance(error, Denied) else {})}
        assert entry.link is None and entry in operator.entries()
        outcome = {"code": "ok", **_revoked(entry)}
        if "standing" in vector:
            stands = [list(_revoked(each).values()) for each in operator.entries()]
            return outcome | {"stands": sorted(stands, key=json.dumps)}
        assert operator.entries() == (entry,)
        return outcome

    def recalling(self, vector: Vector) -> Outcome:
        token, handed_on = (Token.parse(vector[name]) for name in ("token", "handed_on"))
        clock = FixedClock(vector["now"])
        try:
            request = recall(token, handed_on, audience=vector["audience"], why=vector["why"], clock=clock)
        except (TypeError, ValueError):
            return {"code": "usage"}
        return {"code": "ok", "request": request}

    def publishing(self, vector: Vector) -> Outcome:
        key = OperatorKey.from_bytes(bytes.fromhex(vector["secret"]))
        entries = [msgspec.convert(entry, Entry) for entry in vector["entries"]]
        when = {"seq": vector["seq"], "issued_at": vector["issued_at"], "life": vector["expires_at"] - vector["issued_at"]}
        try:
            if "known" not in vector:
                resumed = msgspec.convert(vector.get("resumed"), Resumed | None)
                written = snapshot(key, entries, **when, past=vector.get("past"), resumed=resumed)
                return {"code": "ok", "written": written.decode("latin-1")}
            known = Overlay.open(vector["known"].encode("latin-1"), [key.public])
            drop = [entry.id for entry in known.entries if entry not in entries]
            add = [entry for entry in entries if entry not in known.entries]
            return {"code": "ok", "written": delta(key, known, drop=drop, add=add, **when).delta.decode("latin-1")}
        except CaptokenError as error:
            return {"code": error.code}
        except (TypeError, ValueError):
            return {"code": "usage"}

    def code(self, vector: Vector) -> Outcome:
        known = CODES[vector["denied"]]
        return {"code": "ok", "step": known.step, "denial_kind": known.kind}

    def counting(self, vector: Vector) -> Outcome:
        stated, keyring, codes = vector["ledger"], _keyring(**vector["keyring"]), []
        ledger = MemoryLedger(shared=stated["shared"], floor=stated["floor"])
        for kept in stated.get("kept", ()):
            assert ledger.reserve(_keeping(kept, stated["floor"] + 1), -1) is None
        for step in vector["steps"]:
            clock, leeway = FixedClock(step["now"]), step.get("leeway", 0)
            drawn = {"random": partial(_given, bytes.fromhex(step["id"]))} if "id" in step else {}
            verifier = Verifier(keyring, vector["audience"], ledger=ledger, clock=clock, leeway=leeway, **drawn)
            access = Access(**step["access"])
            if step.keys().isdisjoint(("settle", "cancel")):
                codes.append(verifier.check(step["token"], access).code)
                continue
            reserved = verifier.authenticate(step["token"]).reserve(access)
            clock.now = step.get("closed_at", clock.now)
            codes += ["allowed", _closed(reserved, step)]
            codes += [_closed(reserved, step["again"])] if "again" in step else []
            assert reserved._reservation is None or not reserved.cancel(), "closed once"
        return {"code": "ok", "codes": codes}

    def trail(self, vector: Vector) -> Outcome:
        lines = io.BytesIO(vector["trail"].encode("latin-1"))
        try:
            after = Head(**vector["after"]) if "after" in vector else None
            verdict = check(lines, vector["servers"], known=[Head(**head) for head in vector["known"]], after=after)
        except CaptokenError as error:
            return {"code": error.code}
        head = {"seq": verdict.head.seq, "hash": verdict.head.hash}
        return {"code": "ok", "head": head, "signed": verdict.signed, "decisions": verdict.decisions}

    def recorded(self, vector: Vector) -> Outcome:
        lines: list[bytes] = []
        access = Access(tool="t", arguments=vector["arguments"])
        AuditTrail(lines.append, values=True).record(Decision(code="tool", now=0, access=access))
        (record,) = read(lines)
        return {"code": "ok", "arguments": record["access"]["arguments"]}


def _given(drawn: bytes, size: int) -> bytes:
    assert size == len(drawn)
    return drawn


def _reach(store: Any) -> None:
    if getattr(store, "is_down", False):
        raise OSError("it cannot be reached")


def _own(stated: dict[str, Any]) -> type[Caveat]:
    """An own caveat that does what is said."""

    class Own(Caveat, frozen=True):
        key = stated["key"]
        domain = stated["domain"]
        asks_access = stated.get("asks_access", True)

        def __post_init__(self) -> None:
            if stated["does"] == "refuses_value":
                raise ValueError("no value is one of mine")

        def prohibits(self, access: Access, situation: Situation) -> Any:
            if stated["does"] == "fails":
                raise RuntimeError("the check fails")
            if stated["does"] == "prohibits":
                return Reason(stated["code"], "so it is") if "code" in stated else "so it is"
            if stated["does"] == "attribute_in":
                name = self.key.partition(":")[2]
                return None if access.attributes.get(name) in self.value else "not one of the list"
            return stated.get("value")

    return Own


def _place(decision: Decision) -> dict[str, Any]:
    """Where what gave the code stands: the link and who added it, as far as there is one."""
    if decision:
        return {}
    assert decision.step == CODES[decision.code].step or (decision.code, decision.step) in OTHER_STEPS
    refusal = decision.refusals[0]
    place = {"link": refusal.link, "added_by": refusal.added_by}
    return {key: value for key, value in place.items() if value is not None}


def _closed(reserved: Reserved, said: dict[str, Any]) -> str:
    """What comes of closing a reservation in that way."""
    try:
        closed = reserved.cancel() if "cancel" in said else reserved.settle(said["settle"])
    except (TypeError, ValueError):
        return "usage"
    return "closed" if closed else "too_late"


def _shown(ring: Keyring) -> dict[str, str]:
    return {key_id: ring.reveal(key_id).hex() for key_id in ring.key_ids}


def _keyring(keys: dict[str, str], audience: str | None, current: str | None = None) -> Keyring:
    stated = {key_id: bytes.fromhex(key) for key_id, key in keys.items()}
    current = current or next(iter(stated))
    return Keyring.from_keys(stated, current) if audience is None else Keyring(stated, current, audience)


def _keeping(kept: dict[str, Any], issued_at: int) -> Reservation:
    """What makes so many buckets of one tree."""
    debits = tuple(Debit(number.to_bytes(16, "big"), "uses", 1, 1) for number in range(kept["buckets"]))
    keep = None if kept["until"] is None else kept["until"] - KEPT
    return Reservation(bytes(16), debits, issued_at, 0, keep, kept["tree"])


def _revoked(entry: Entry) -> dict[str, Any]:
    """Of which token, which link or hop, who asked, and until when."""
    asked = None if entry.asked is None else list(entry.asked)
    return {"token": entry.select.token, "link": entry.select.link or entry.select.hop, "asked": asked, "until": entry.until}


class _Asked:
    """A decision, asked for in every way that there is: each time of a new verifier, whose store has what the vector says."""

    def __init__(self, vector: Vector) -> None:
        self.vector, self.text = vector, vector["token"]
        self.access = None if vector["access"] is None else Access(**vector["access"])
        self.caller = None if vector["caller"] is None else Caller(**vector["caller"])
        self.request = bytes.fromhex(vector["request"]) if "request" in vector else None
        self.now = vector["facts"]["now"]
        self.snapshot = vector["overlay"]["snapshot"] if "overlay" in vector else None
        self.vocabulary = Vocabulary(*map(_own, vector.get("own", ())))
        self.committed: list[Use] = []  # by the last way that was asked
        self.spent: list[Spend] = []  # likewise
        self.debits: list[Debit] = []  # likewise
        self.marks: list[bytes] = []  # likewise: the buckets
        self.verifier()

    def verifier(self) -> Verifier:
        facts = self.vector["facts"]
        return Verifier(
            _keyring(**self.vector["keyring"]),
            tuple(facts["audiences"]) or None,
            allow_unaddressed=facts["allow_unaddressed"],
            leeway=facts["leeway"],
            replays=self.store(),
            ledger=self.ledger(),
            **self.overlay(),
            **({"max_age": self.vector["max_age"]} if "max_age" in self.vector else {}),
            **({"vocabulary": self.vocabulary} if "own" in self.vector else {}),
            **({"context": lambda _: facts["context"]} if "context" in facts else {}),
            clock=lambda: self.now,
        )

    def store(self) -> MemoryReplayStore | None:
        stated, committed, spent = self.vector.get("replays"), [], []
        self.committed, self.spent = committed, spent
        if stated is None:
            return None

        class Noting(MemoryReplayStore):
            def peek(self, use: Use, now: int) -> bool:
                _reach(self)
                return super().peek(use, now)

            def add(self, use: Use, now: int) -> bool:
                _reach(self)
                first = super().add(use, now)
                committed.extend([use] * first)
                return first

            def peek_spend(self, spend: Spend, now: int) -> bool:
                _reach(self)
                return super().peek_spend(spend, now)

            def spend(self, spend: Spend, now: int) -> bool:
                _reach(self)
                first = super().spend(spend, now)
                spent.extend([spend] * first)
                return first

        store = Noting(floor=stated["floor"], limit=stated["limit"])
        for use in stated["used"]:
            store.add(Use(bytes.fromhex(use["entry"]), use["issued_at"]), use["issued_at"])
        for use in stated.get("spent", ()):
            store.spend(Spend(bytes.fromhex(use["entry"]), use["issued_at"], 0), use["issued_at"])
        committed.clear()
        spent.clear()
        store.is_down = "down" in stated
        return store

    def ledger(self) -> MemoryLedger | None:
        stated, taken, marks = self.vector.get("ledger"), [], []
        self.debits, self.marks = taken, marks
        if stated is None:
            return None

        class Noting(MemoryLedger):
            def peek(self, reservation: Reservation, now: int) -> Debit | None:
                _reach(self)
                return super().peek(reservation, now)

            def reserve(self, reservation: Reservation, now: int) -> Debit | None:
                _reach(self)
                short = super().reserve(reservation, now)
                taken.extend(reservation.debits if short is None else ())
                return short

            def peek_step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
                _reach(self)
                return super().peek_step(step, now)

            def step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
                _reach(self)
                answer = super().step(step, now)
                if answer is None:
                    marks.extend(mark.bucket for mark in step.marks)
                    taken.extend(() if step.reservation is None else step.reservation.debits)
                return answer

        ledger, floor = Noting(shared=stated["shared"], floor=stated["floor"]), stated["floor"]
        for number, spent in enumerate(stated["spent"]):
            debit = Debit(build.unb64(spent["bucket"]), spent["unit"], 2**60, spent["amount"])
            assert ledger.reserve(Reservation(number.to_bytes(16, "big"), (debit,), floor + 1, 0, None), -1) is None
        before = tuple(Mark(build.unb64(bucket), None, False) for bucket in stated.get("marks", ()))
        assert ledger.step(MarkedStep(before, (), floor + 1, by="orchestrator: an earlier step"), build.NOW) is None
        taken.clear()
        marks.clear()
        ledger.is_down = "down" in stated
        return ledger

    def overlay(self) -> dict[str, Any]:
        stated = self.vector.get("overlay")
        if stated is None:
            return {}

        def newest() -> Overlay | None:
            if "down" in stated:
                raise OSError("it cannot be asked")
            return None if self.snapshot is None else Overlay.open(self.snapshot.encode("latin-1"), stated["operators"])

        if "down" not in stated:
            newest()
        return {
            "overlay": newest,
            **({"max_staleness": stated["max_staleness"]} if "max_staleness" in stated else {}),
            "allow_stale_overlay": stated["allow_stale"],
        }

    def in_every_way(self) -> Decision:
        """The decision, once every way has said the same."""
        code, decision = self.authenticated()
        said = {code}
        if self.access is not None:
            said = {code} if decision else set()  # denied, the access was not asked about
            decision = self.checked()
            for other in (self.authorized(), self.explained(), asyncio.run(self.awaited())):
                assert (other.code, _place(other)) == (decision.code, _place(decision)), "and by the same link"
        said |= set(self.parsed())
        assert said <= {decision.code}, (decision.code, said)
        if decision.code not in OF_LEDGERS:  # the proof was used by then
            assert bool(self.committed) == bool(decision.grant and decision.grant.key), "denied, nothing is committed"
        assert decision or not (self.debits or self.marks), "denied, nothing is debited, and no mark set"
        return decision

    def checked(self, token: str | Token | None = None) -> Decision:
        given = self.text if token is None else token
        return self.verifier().check(given, self.access, caller=self.caller, request=self.request)

    def authorized(self) -> Decision:
        """By the exception of a denial."""
        try:
            grant = self.verifier().authorize(self.text, self.access, caller=self.caller, request=self.request)
        except Denied as denied:
            return denied.decision
        return Decision(code="allowed", now=0, grant=grant)

    def explained(self) -> Decision:
        """By a dry run, which looks at the stores, and neither commits nor grants."""
        verifier = self.verifier()
        decision = verifier.explain(self.text, self.access, caller=self.caller, request=self.request)
        assert self.committed == self.debits == self.marks == [] and decision.grant is None
        return decision

    async def awaited(self) -> Decision:
        """By the face for asyncio."""
        return await self.verifier().awaited.check(self.text, self.access, caller=self.caller, request=self.request)

    def denied(self, given: str | Token, about: bytes) -> Decision:
        """A denial of the server's own, which looks first what is wrong with the token, and asks no store."""
        decision = self.verifier().deny(given, OWN, "for a request that no token permits", request=about)
        assert self.committed == self.debits == self.marks == [] and not decision
        return decision

    def rechecked(self, standing: Grant) -> str:
        """By a grant that asks no store: it does not come upon what only a ledger knows."""
        code = standing.recheck([self.access], caller=self.caller).code
        expected = self.vector["expect"]["code"]
        counted = expected in (*OF_LEDGERS, "replayed") and code in ("allowed", "forbidden_after")  # closed by its own marks
        return expected if counted else code

    def authenticated(self, token: str | Token | None = None) -> tuple[str, Decision]:
        """By a grant, which is asked about the access then; the proof is about the access all the same."""
        about = request_digest(self.access) if self.request is None else self.request
        given = self.text if token is None else token
        own = self.denied(given, about).code

        def grant() -> Grant:
            return self.verifier().authenticate(given, request=about)

        try:
            standing = grant()
        except Denied as denied:
            assert own == (OWN if denied.decision.step == 11 else denied.code)
            return denied.code, denied.decision
        assert own == OWN
        if self.access is None:
            return self.asked_of_the_grant(standing)
        codes = {
            grant().check(self.access, caller=self.caller).code,
            grant().explain(self.access, caller=self.caller).code,
            self.rechecked(standing),
            _code(lambda: grant().authorize(self.access, caller=self.caller)),
            _code(lambda: grant().reserve(self.access, caller=self.caller)),
        }
        assert len(codes) == 1, codes
        return codes.pop(), standing.recheck()

    def asked_of_the_grant(self, standing: Grant) -> tuple[str, Decision]:
        """Whether a grant stands, without an access; the caller is compared even so (24.7)."""
        decision = standing.recheck(caller=self.caller)
        awaited = asyncio.run(self.rechecked_by_the_other_face(standing))
        assert awaited == decision.code
        return awaited, decision

    async def rechecked_by_the_other_face(self, standing: Grant) -> str:
        decision = await standing.awaited.recheck(caller=self.caller)
        return decision.code

    def parsed(self) -> Iterator[str]:
        """By a Token, where discharges are not bound yet."""
        try:
            token = Token.parse(self.text)
        except TokenFormatError as error:
            if not any(kind in self.text for kind in (".cap1a_", ".cap1d_", ".cap1p_")):  # these are for verifiers alone
                yield error.code
        else:
            assert token.serialize() == self.text, "one token has one text"
            if "." not in self.text:
                yield self.authenticated(token)[0] if self.access is None else self.checked(token).code


def _bound(token: Token) -> str:
    parts = token.presented_parts()
    return whole_text(parts.packet, parts.discharges, BOUND)


def _code(ask: Callable[[], Any]) -> str:
    try:
        ask()
    except Denied as denied:
        return denied.code
    return "allowed"


def _capability(stated: dict[str, Any]) -> Capability:
    counts = {"n": build.nonce()} if stated.keys() & {"uses", "budget", "marks"} else {}
    (link,) = Token.parse(build.token({**stated, **counts}).text).unverified.links
    assert isinstance(link, Link)
    return Capability.of([link])
