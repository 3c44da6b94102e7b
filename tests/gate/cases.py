"""Cases, by number and seed: each is a recipe, plain JSON that says how a vector is made, and `vector_of` makes it.

A recipe can be made smaller where a vector cannot: a link left out of it gives another token that is genuine. Decisions are most of
them, for these all judges are asked: of bundles, overlays, ledgers, stores of proofs, tokens handed over, caveats of an embedder's,
grants that are asked again. The rest is what an implementation has beside its verifier, for which there are two judges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from spec.generate import build
from spec.generate.build import NOW
from spec.generate.table import carried, is_plain
from tests.gate.draw import (
    AGENTS,
    AUDIENCES,
    HOLDERS,
    KEY_IDS,
    NAMES,
    OPERATIONS,
    OWN_KEYS,
    SUBJECTS,
    TABLES,
    TASKS,
    TOOLS,
    Draw,
    consents_of,
    named,
    parts_of,
    proof_of,
    snapshot_of,
    text_of,
    with_its_marks,
)

Json = Any
Recipe = dict[str, Json]
Vector = dict[str, Json]
DECIDED = ("decision", "own", "dry_run", "grant")


def case(seed: str, number: int) -> Recipe:
    """The recipe of that number, always the same."""
    return Case(Random(f"{seed} {number}")).any()


class Case(Draw):
    """One case, drawn."""

    def any(self) -> Recipe:
        kinds: list[tuple[float, Callable[[], Recipe]]] = [
            (58, self.decision), (6, self.own_caveats), (8, self.grant), (3, self.dry_run), (9, self.widening), (5, self.capability),
            (3, self.request), (2, self.presenting), (1, self.snapshot_read), (0.5, self.recorded), (1, self.interop), (1, self.discharge),
            (1, self.mint), (1, self.holding), (1, self.delta), (0.5, self.trail), (0.5, self.key_file),
        ]  # fmt: skip
        (draw,) = self.random.choices([draw for _, draw in kinds], [weight for weight, _ in kinds])
        return draw()

    # --- what is judged by all ---------------------------------------------------------------------------------------

    def decision(self, kind: str = "decision") -> Recipe:
        token = self.token()
        answers = self.discharges(token)
        made: Recipe = {
            "kind": kind, "token": token.recipe(), "answers": answers, "proof": self.proof(token), "keyring": self.keyring(),
            "facts": self.known(), "access": None if self.chance(0.1) else self.near(), "caller": self.caller(), "consents": self.consents(token),
        }  # fmt: skip
        if (spoilt := self.spoilt(token, answers)) is not None:
            made["text"] = spoilt
        elif self.chance(0.005):
            made["signature"] = "spoilt"
        if self.chance(0.92):
            made["replays"] = self.replays()
            if self.chance(0.03):
                made["replays"] |= {"used": ["this"], "limit": 100}
        if self.chance(0.92):
            made["ledger"] = self.ledger(token)
        if self.watched:
            made["overlay"] = self.overlay(token)
        if self.chance(0.02):
            made["request"] = self.one([build.secret("request").hex(), bytes(32).hex()])
        return made | (self.heavy(made) if self.chance(0.012) else self.mistake())

    def heavy(self, made: Recipe) -> Recipe:
        """Values that are about as long as what may be looked at in one decision, 1 MiB, for links and for entries of an overlay."""
        looks = {"where": {"q": {"prefix": ["a"]}}}
        token = made["token"]
        steps = [*token["steps"], *({"link": looks} for _ in range(self.one([1, 1, 2, 3])))]
        length = (1 << 20) // self.one([1, 1, 2, 3, 4]) - self.one([-10, 0, 5, 10, 15, 20, 25, 50, 100])
        access = {**self.target, "attributes": {**self.target.get("attributes", {}), "q": "a" * length}}
        changed: Recipe = {"token": {**token, "steps": steps}, "access": access}
        snapshot = made.get("overlay", {}).get("snapshot")
        if snapshot is not None:
            entry = {**build.entry("heavy", token=build.JTI), "link": looks}
            changed["overlay"] = {**made["overlay"], "snapshot": {**snapshot, "entries": [*snapshot["entries"], entry]}}
        return changed

    def mistake(self) -> Recipe:
        """Facts that cannot be stated, now and then."""
        if self.chance(0.99):
            return {}
        return self.one([
            {"caller": self.one([{}, {"agent": "a b"}, {"task": "a//b"}, {"agent": None}, {"agent": 1}, {"agent": "a", "x": 1}])},
            {"access": self.one([
                {"table": "sales"}, {"table": "a.*", "operation": "x"}, {"operation": "select"}, {"columns": []}, {"row": None}, {"rows": []}, {"arguments": {}}, {"tool": ""},
                {"tool": "a", "arguments": []}, {"attributes": None}, {"attributes": {"": 1}}, {"cost": {"a b": 1}}, {"cost": {"a": -1}},
                {"table": "a", "operation": "*"}, {"table": "a", "operation": "x", "columns": ["*"]}, {"cost": {"a": 1.0}}, {"cost": {"a": 2**53}},
                {"table": None, "operation": "x"}, {"x": 1}, {"cost": None},
            ])},
            {"access": {"table": None, "operation": None, "columns": None, "tool": None, "arguments": None}},
            {"caller": {"agent": None, "task": "task-123"}},
            {"keyring": {"keys": {"k1": self.one(["00" * 32, "07" * 32, "0102"])}, "audience": None}},
        ])  # fmt: skip

    def own_caveats(self) -> Recipe:
        does = ["holds", "holds", "prohibits", "attribute_in", "fails", "answers", "refuses_value"]
        for key in OWN_KEYS:
            stated: Recipe = {"key": key, "domain": self.one(["all", "all", "data", "tool"]), "does": self.one(does)}
            stated |= {"asks_access": False} if self.chance(0.3) and stated["does"] != "attribute_in" else {}
            stated |= {"code": self.one(["table", "argument", "region"])} if stated["does"] == "prohibits" and self.chance(0.5) else {}
            stated |= {"value": self.one([True, False, 0, 1])} if stated["does"] == "answers" else {}
            self.own.append(stated)
        if self.chance(0.8):
            self.target["attributes"] = {**self.target.get("attributes", {}), "region": self.one(["us", "eu"]), "level": "us"}
        return {**self.decision("own"), "own": self.own}

    def owned(self, token: Any) -> Any:
        """As it is drawn; but the value is a list, where the caveat needs one."""
        stated = self.one(self.own)
        values = [["eu", "us"], ["us"], [], ["us", True, 1]]
        values = values if stated["does"] == "attribute_in" else [*values, 1, "x", {}, {"a": ["é"]}]
        return self.saying(token, {stated["key"]: self.one(values), **(self.caveats(1) if self.chance(0.4) else {})})

    def dry_run(self) -> Recipe:
        made = self.decision("dry_run")
        return {**made, "caller": None} if made["access"] is None else made  # in Python no way to decide has the one without the other

    def grant(self) -> Recipe:
        made = self.decision("grant")
        del made["access"], made["caller"]
        made["keyring"] = self.keyring()
        if self.chance(0.3):
            made["max_age"] = self.one([None, 0, 60, 600])
        token, now, steps = self.token(), self.now, []
        for _ in range(self.one([1, 2, 3, 5])):
            now += self.one([0, 0, 0, 1, 5, 29, 61, -1, -61, 600]) if self.chance(0.5) else 0
            how = self.one(["check", "check", "check", "recheck", "explain"])
            access = self.near(legal=True)
            step: Recipe = {"access": access if is_plain(access) else dict(TOOL_CALL), "now": now, "how": how}
            if how == "recheck" and self.chance(0.3):
                step["access"] = None
            if (caller := self.caller()) is not None:
                step["caller"] = caller
            if "overlay" in made and self.chance(0.4):
                self.now, snapshot = now, None
                while snapshot is None:
                    snapshot = self.snapshot(token, 2 + len(steps))
                step["snapshot"] = snapshot
                self.now = NOW
            steps.append(step)
        return {**made, "steps": steps}

    # --- what is judged by the libraries alone -------------------------------------------------------------------------

    def wishes(self, most: int) -> Recipe:
        """What a writer is asked for, by the words of FORMAT.md."""
        asked: Recipe = {}
        for key, said in self.caveats(most).items():
            asked |= {"exp": {"expires_at": said}, "nbf": {"not_before": said}, "aud": {"audience": said}}.get(key, {key: said})
        return asked

    def widening(self) -> Recipe:
        token, asked = self.token(), self.wishes(3)
        if self.chance(0.3):
            asked["expires_in"] = self.one([0, 1, 60, "5m", "1h30m", "5", True])
        if self.chance(0.2):
            asked["delegate_only"] = self.chance(0.5)
        if self.chance(0.4):
            asked["clamp"] = True
        if self.chance(0.1):
            asked["keep"] = self.one(["tables", "tools", ["tables", "tools"], "x"])
        if self.chance(0.8 if token.bound else 0.1):
            asked["key"] = build.b64(build.signing_public(self.one(HOLDERS)))
        made: Recipe = {"kind": "widening", "token": token.recipe(), "to": self.one([None, None, *AGENTS]), "now": NOW, "nonce": "0000000000000007", "asked": asked}
        if self.chance(0.8 if token.bound else 0.05):
            made["signer"] = build.secret(token.bound or "clerk").hex()
        return made

    def capability(self) -> Recipe:
        return {"kind": "capability", "one": self.readable(), "two": self.readable()}

    def readable(self) -> Recipe:
        """A link without what no capability has, and none that cannot be read."""
        self.odd = 0.0
        while True:
            said = with_its_marks({key: said for key, said in self.caveats(4).items() if key not in ("depth", "delegate_only")})
            if said:
                return said

    def request(self) -> Recipe:
        if self.chance(0.5):
            return {"kind": "request", "form": "access", "access": self.access()}
        params = {self.one([*NAMES, "_meta", "name", "arguments"]): self.value("text") for _ in range(3)}
        if self.chance(0.7):
            params["arguments"] = self.facts()
        if self.chance(0.7):
            params["name"] = self.one([*TOOLS, "a/b"])
        method = self.one(["tools/call", "tools/call", "prompts/get", "tools/list", "resources/read", "ping"])
        return {"kind": "request", "form": "message", "method": method, "params": params}

    def presenting(self) -> Recipe:
        token = self.token()
        made: Recipe = {"kind": "presenting", "token": token.recipe(), "audience": self.one([*AUDIENCES, AUDIENCES]), "now": NOW}
        if token.bound is not None and self.chance(0.8):
            made |= {"secret": build.secret(token.bound).hex(), "nonce": "0b" * 16}
            made |= {"request": "0a" * 32} if self.chance(0.5) else {}
        return made

    def snapshot_body(self, seq: int, iat: int) -> Json:
        token = self.token()
        stated = None
        while stated is None:
            stated = self.snapshot(token, seq)
        return build.snapshot_of(*named(stated["entries"], token.parts), seq=seq, iat=iat)

    def snapshot_read(self) -> Recipe:
        body = build.canonical(self.snapshot_body(1, NOW))
        data = build.signed_snapshot(self.bent(body) if self.chance(0.5) else body)
        data = self.bent(data) if self.chance(0.2) else data
        return {"kind": "snapshot", "snapshot": data.decode("latin-1"), "operators": [build.b64(build.signing_public("operator"))]}

    def recorded(self) -> Recipe:
        names = self.few([*NAMES, "~"])
        return {"kind": "recorded", "arguments": {name: self.value(NAMES.get(name, "list")) for name in [*names, "~"]}}

    def interop(self) -> Recipe:
        parts = self.token().parts
        if self.chance(0.5):
            wire = parts.wire
            if self.chance(0.5):
                wire = wire[:1] + b"\x01\x00" + wire[1:]
            return {"kind": "interop", "form": "bytes", "source": (self.bent(wire) if self.chance(0.5) else wire).hex()}
        text = parts.text.removeprefix("cap1_") if self.chance(0.3) else parts.text
        text += "=" * self.one([0, 0, 1, 2, 3])
        return {"kind": "interop", "form": "text", "source": self.bent_text(text) if self.chance(0.4) else text}

    def discharge(self) -> Recipe:
        ticket = build.ticket("third 0", need=self.one([{}, {"approve": "payment"}, {"n": 1}]))
        ticket = self.bent(ticket) if self.chance(0.3) else ticket
        asked = {key: said for key, said in self.wishes(2).items() if key not in ("expires_at", "not_before", "audience")}
        if self.chance(0.9):
            asked["expires_in"] = 60
        secret = build.secret("approvals").hex()
        return {"kind": "discharge", "secret": secret, "ticket": ticket.decode("utf-8", "replace"), "asked": asked, "now": NOW}

    def mint(self) -> Recipe:
        asked = self.wishes(4)
        if self.chance(0.6):
            asked |= {"tables": self.few(TABLES), "operations": self.few([*OPERATIONS, "*"])}
        for key, said in (("unrestricted", True), ("expires_at", None), ("expires_in", "5m"), ("ext", {"acme:x": self.one(["a", 1, True, ""])})):
            if self.chance(0.15):
                asked[key] = said
        if self.chance(0.2):
            asked["key"] = build.b64(build.signing_public("clerk"))
        asked.pop("task", None)
        keys = {"k1": build.KEY.hex()}
        return {
            "kind": "mint", "keyring": {"keys": keys, "audience": self.one([None, "sales-db"])}, "current": "k1",
            "subject": self.one([*SUBJECTS, "a b"]), "agent": self.one(AGENTS), "task": self.one([*TASKS, "a/../b"]),
            "asked": asked, "now": NOW, "token_id": "01" * 16, "nonce": "02" * 8,
        }  # fmt: skip

    def holding(self) -> Recipe:
        parts = build.token(self.caveats(2))
        names = [f"third {number}" for number in range(self.random.randint(1, 4))]
        for name in names:
            parts = build.asking(parts, self.one([name, name, names[0]]))
        answers = [build.discharge(name, *self.answer()) for name in names if self.chance(0.7)]
        if self.chance(0.2):
            self.random.shuffle(answers)
        text = build.joined(parts, answers, self.one(["cap1u_", "cap1u_", "cap1u_", "cap1d_"]))
        return {"kind": "holding", "text": self.bent_text(text) if self.chance(0.2) else text}

    def delta(self) -> Recipe:
        known, given = (self.snapshot_body(seq, NOW + seq) for seq in (1, self.one([2, 2, 2, 1])))
        body = build.canonical(build.delta_of(known, given))
        data = build.signed_delta(self.bent(body) if self.chance(0.3) else body)
        data = self.bent(data) if self.chance(0.1) else data
        return {
            "kind": "delta", "known": build.signed_snapshot(build.canonical(known)).decode("latin-1"),
            "deltas": [data.decode("latin-1")], "operators": [build.b64(build.signing_public("operator"))],
        }  # fmt: skip

    def trail(self) -> Recipe:
        draws: list[Any] = [
            {"kind": "decision", "at": NOW, "allowed": True, "code": "allowed"}, {"kind": "token", "links": [], "root": {}},
            {"kind": "note"}, lambda before: build.checkpoint(before, self.one(["server", "server", "other"])),
        ]  # fmt: skip
        lines = build.trail({"kind": "note"}, *self.few(draws, 5))
        known = [build.head(lines, self.random.randint(0, len(lines))) for _ in range(self.random.randint(0, 2))]
        data = b"".join(line + b"\n" for line in lines)
        data = self.bent(data) if self.chance(0.4) else data
        servers = [build.b64(build.signing_public("server"))] if self.chance(0.8) else []
        return {"kind": "trail", "trail": data.decode("latin-1"), "servers": servers, "known": known}

    def key_file(self) -> Recipe:
        purpose = self.one(["holder", "discharger", "pairwise", "operator", "audit", "keyring"])
        stated: Recipe = {"purpose": purpose, "secret": build.b64(build.secret("x")), "v": 1}
        if purpose == "keyring":
            stated = {"current": "k1", "keys": {name: build.b64(key) for name, key in KEY_IDS.items()}, "v": 1}
        data = build.canonical(stated) + self.one([b"", b"\n"])
        return {"kind": "key_file", "purpose": purpose, "content": (self.bent(data) if self.chance(0.7) else data).decode("latin-1")}


TOOL_CALL = {"tool": "read", "arguments": {}}
CARRIED = ("access", "caller", "asked", "params", "arguments")  # what may have values that readers of JSON lose


def about(recipe: Mapping[str, Json]) -> bytes:
    """What a proof in this case is about."""
    if "request" in recipe:
        return bytes.fromhex(recipe["request"])
    try:
        return build.of_access(recipe.get("access"))
    except (TypeError, ValueError, RecursionError, AttributeError):
        return bytes(32)  # of facts that cannot be stated


def vector_of(recipe: Recipe) -> Vector:
    """The vector that a recipe makes, but for what must come of it."""
    made = dict(recipe)
    if "token" in recipe:
        parts = parts_of(made.pop("token"))
        answers, proof, consents = made.pop("answers", ()), made.pop("proof", None), made.pop("consents", ())
        text = made.pop("text", None) or text_of(parts, answers, made.pop("signature", None) and "signature")
        text += consents_of(parts, consents, about({key: said for key, said in recipe.items() if key != "request"}))
        made["token"] = text + (proof_of(parts, proof, about(recipe)) if proof else "")
        if "ledger" in made:
            made["ledger"] = named(made["ledger"], parts)
        if "overlay" in made:
            made["overlay"] = {**made["overlay"], "snapshot": snapshot_of(made["overlay"]["snapshot"], parts)}
        if "steps" in made:
            made["steps"] = [{**step, **({"snapshot": snapshot_of(step["snapshot"], parts)} if "snapshot" in step else {})} for step in made["steps"]]
        if made.get("replays", {}).get("used") == ["this"]:
            used = [build.use(build.signing_public(proof["holder"]), proof["issued"], bytes.fromhex(proof["nonce"]))] if proof else []
            made["replays"] = {**made["replays"], "used": used}
    elif recipe["kind"] == "holding":
        made["token"] = made.pop("text")
    fields = {key: value for key, value in made.items() if key in CARRIED}
    return {key: value for key, value in made.items() if key not in fields} | carried(fields)
