"""captoken, as the runner asks it. Where there are several ways to ask, all are asked and must agree."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from captoken import (
    Access,
    Caller,
    Capability,
    CaptokenError,
    Decision,
    Denied,
    Keyring,
    Token,
    TokenFormatError,
    Verifier,
    WideningError,
    chain,
    request,
)
from captoken.discharge import Allow, Discharger, DischargerKey, Ticket
from captoken.interop import normalize
from captoken.links import Link, split_signature
from captoken.memory import MemoryReplayStore
from captoken.pairwise import PairwiseKey
from captoken.possession import Evidence, HolderKey, Use, digest_of, prove
from captoken.testing import FixedClock
from captoken.text import BOUND, whole_text
from spec.generate import build
from tests.vectors.runner import Outcome, Vector


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
            return {"code": decision.code}
        outcome = {
            "code": decision.code,
            "link_ids": list(grant.link_ids),
            "chain": [[actor.name, actor.basis] for actor in grant.chain],
            "task": grant.task,
            "expires_at": grant.expires_at,
        }
        if grant.key is None:
            return outcome
        assert all(evidence.holds() for evidence in grant.evidence)
        return outcome | {
            "key": grant.key,
            "uses": [{"entry": use.entry.hex(), "issued_at": use.issued_at} for use in asked.committed],
            "evidence": [evidence.as_dict() for evidence in grant.evidence],
        }

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
        assert both == two.meet(one) == _capability(both.json()), "meet is symmetric, and its spelling says the same"
        return {
            "code": "ok",
            "meet": both.json(),
            "one_covers_two": one.covers(two),
            "two_covers_one": two.covers(one),
        }

    def widening(self, vector: Vector) -> Outcome:
        token = Token.parse(vector["token"], clock=FixedClock(vector["now"]), random=lambda _: bytes.fromhex(vector["nonce"]))
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
                digest = request.of_http(vector["method"], vector["origin"], vector["target"], body)
            elif vector["form"] == "mcp":
                digest = request.of_mcp(vector["method"], vector["tool"], bytes.fromhex(vector["arguments"]))
            else:
                digest = request.of_access(None if vector["access"] is None else Access(**vector["access"]))
        except (TypeError, ValueError):
            return {"code": "usage"}
        return {"code": "ok", "digest": digest.hex()}

    def proof(self, vector: Vector) -> Outcome:
        stated = bytes.fromhex(vector["request"])
        key, nonce = HolderKey.from_bytes(bytes.fromhex(vector["secret"])), bytes.fromhex(vector["nonce"])
        clock = FixedClock(vector["now"])
        try:
            text = vector["token"]
            made = prove(text, key, audience=vector["audience"], request=stated, clock=clock, random=lambda _: nonce)
        except CaptokenError as error:
            return {"code": error.code}
        except ValueError:
            return {"code": "usage"}
        return {"code": "ok", "proof": made}

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
        return {"code": "ok", "needs": [ticket.text for ticket in token.needs], "bound": whole_text(*token._bound(), BOUND)}

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
        kind = {"keyring": Keyring, "holder": HolderKey, "discharger": DischargerKey, "pairwise": PairwiseKey}[
            vector["purpose"]
        ]
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


def _shown(ring: Keyring) -> dict[str, str]:
    return {key_id: ring.reveal(key_id).hex() for key_id in ring.key_ids}


def _keyring(keys: dict[str, str], audience: str | None) -> Keyring:
    stated = {key_id: bytes.fromhex(key) for key_id, key in keys.items()}
    current = next(iter(stated))
    return Keyring.from_keys(stated, current) if audience is None else Keyring(stated, current, audience)


class _Asked:
    """A decision, asked for in every way that there is: each time of a new verifier, whose store has what the vector says."""

    def __init__(self, vector: Vector) -> None:
        self.vector, self.text, self.proof = vector, vector["token"], vector.get("proof")
        self.access = None if vector["access"] is None else Access(**vector["access"])
        self.caller = None if vector["caller"] is None else Caller(**vector["caller"])
        self.request = bytes.fromhex(vector["request"]) if "request" in vector else None
        self.committed: list[Use] = []  # by the last way that was asked
        self.verifier()

    def verifier(self) -> Verifier:
        facts = self.vector["facts"]
        return Verifier(
            _keyring(**self.vector["keyring"]),
            tuple(facts["audiences"]) or None,
            allow_unaddressed=facts["allow_unaddressed"],
            leeway=facts["leeway"],
            replays=self.store(),
            clock=FixedClock(facts["now"]),
        )

    def store(self) -> MemoryReplayStore | None:
        stated, committed = self.vector.get("replays"), []
        self.committed = committed
        if stated is None:
            return None

        class Noting(MemoryReplayStore):
            def add(self, use: Use, now: int) -> bool:
                first = super().add(use, now)
                committed.extend([use] * first)
                return first

        store = Noting(floor=stated["floor"], limit=stated["limit"])
        for use in stated["used"]:
            store.add(Use(bytes.fromhex(use["entry"]), use["issued_at"]), use["issued_at"])
        committed.clear()
        return store

    def in_every_way(self) -> Decision:
        """The decision, once every way has said the same."""
        code, decision = self.authenticated()
        said = {code}
        if self.access is not None:
            said = {
                *([code] if decision else ()),
                self.authorized(),
                self.explained(),
            }  # denied, the access was not asked about
            decision = self.checked()
        said |= set(self.parsed())
        assert said <= {decision.code}, (decision.code, said)
        assert bool(self.committed) == bool(decision.grant and decision.grant.key), "denied, nothing is committed"
        return decision

    def checked(self, token: str | Token | None = None) -> Decision:
        given = self.text if token is None else token
        return self.verifier().check(given, self.access, caller=self.caller, proof=self.proof, request=self.request)

    def authorized(self) -> str:
        verifier = self.verifier()
        given = {"caller": self.caller, "proof": self.proof, "request": self.request}
        return _code(lambda: verifier.authorize(self.text, self.access, **given))

    def explained(self) -> str:
        verifier = self.verifier()
        decision = verifier.explain(self.text, self.access, caller=self.caller, proof=self.proof, request=self.request)
        assert self.committed == [] and (decision.grant is None or decision.grant.key is None)
        uncommitted = self.vector["expect"]["code"] in ("replayed", "store_unavailable") and decision.code == "allowed"
        return self.vector["expect"]["code"] if uncommitted else decision.code

    def authenticated(self, token: str | Token | None = None) -> tuple[str, Decision]:
        """By a grant, which is asked about the access then; the proof is about the access all the same."""
        about = digest_of(self.access) if self.request is None else self.request
        try:
            grant = self.verifier().authenticate(self.text if token is None else token, proof=self.proof, request=about)
        except Denied as denied:
            return denied.code, denied.decision
        if self.access is None:
            return "allowed", grant.recheck()
        codes = {
            grant.check(self.access, caller=self.caller).code,
            grant.explain(self.access, caller=self.caller).code,
            _code(lambda: grant.authorize(self.access, caller=self.caller)),
        }
        assert len(codes) == 1, codes
        return codes.pop(), grant.recheck()

    def parsed(self) -> Iterator[str]:
        """By a Token, where discharges are not bound yet."""
        try:
            token = Token.parse(self.text)
        except TokenFormatError as error:
            if ".cap1d_" not in self.text:  # bound ones are for verifiers alone
                yield error.code
        else:
            assert token.serialize() == self.text, "one token has one text"
            if "." not in self.text:
                yield self.authenticated(token)[0] if self.access is None else self.checked(token).code


def _code(ask: Callable[[], Any]) -> str:
    try:
        ask()
    except Denied as denied:
        return denied.code
    return "allowed"


def _capability(stated: dict[str, Any]) -> Capability:
    (link,) = Token.parse(build.token(stated).text).unverified.links
    assert isinstance(link, Link)
    return Capability.of([link])
