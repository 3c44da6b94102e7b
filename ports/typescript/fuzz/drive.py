"""Runs both libraries on the same random and mutated input, and compares answers, codes and places.

    python ports/typescript/fuzz/drive.py 10000 [--seed 7]     # from the root of the repository, after `npm test`

A case is a vector in the format of `spec/vectors`, made by number and seed alone. The Python library answers it through
`tests/vectors/adapter.py`, the port through `tests/adapter.ts`. The first that differ are named: with `--first` its number and
`--show` one is made again.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from captoken import Access, CaptokenError, Denied  # noqa: E402
from captoken.proof import request_digest  # noqa: E402
from spec.generate import build  # noqa: E402
from spec.generate.build import NOW  # noqa: E402
from tests.vectors.adapter import Captoken, _Asked, _place  # noqa: E402
from tests.vectors.runner import Outcome, Vector  # noqa: E402

ANSWERS = ROOT / "ports/typescript/build/fuzz/answer.js"
KEYRING = {"keys": {"k1": build.KEY.hex()}, "audience": None}
SHOWN = 5  # differences, before it gives up
BATCH = 500

AGENTS = ["orchestrator", "sales-agent", "clerk", "a", "b/c"]
TASKS = ["task-123", "task-123/a", "task-123/a/b", "task-1234", "other"]
TABLES = ["sales", "hr", "market.eu", "market.us.east", "a.b", "é", "\U0001f600.x", "\uff5e", "a b"]
PATTERNS = [*TABLES, "*", "market.*", "market.us.*", "a.*", "\U0001f600.*"]
OPERATIONS = ["select", "insert", "update", "x"]
COLUMNS = ["region", "amount", "id", "\uff5e", "\U0001f600"]
TOOLS = ["search", "read", "read.file", "read.dir.all", "é"]
TOOL_PATTERNS = [*TOOLS, "*", "read.*", "read.dir.*"]
NAMES = ["q", "n", "path", "é", "\U0001f600", "\uff5e", "__proto__", "constructor", "toString"]
AUDIENCES = ["sales-db", "mail-api", "x"]
UNITS = ["cents", "tokens"]
PATHS = ["/", "/a", "/a/b", "/ab", "/a/", "//", "/a/..", "/a%2fb", "a", "/data/x y", "/a\\b"]
PREFIXES = ["a", "ab", "acct-", "https", "10.", "b", "é"]
URLS = [
    "https://a.b", "https://a.b/", "https://*.b.c", "https://x.b.c/p", "https://*.b.c/p/", "http://a.b:8080/x", "https://a.b:443",
    "ws://10.0.0.1/x", "https://[2001:db8::1]/", "https://a.b/p/q", "https://a.b/p;x", "https://u@a.b", "https://A.b", "https://a.b?x=1",
]  # fmt: skip
BLOCKS = ["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "10.1.2.3/32", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1/128", "::/0", "10.0.0.1/8"]
ADDRESSES = ["10.0.0.1", "10.200.0.1", "11.0.0.1", "2001:db8::1", "2001:DB8::1", "::ffff:10.0.0.1", "::1", "10.0.0.01", "1:2:3:4:5:6:7:8"]
NUMBERS = [0, 1, -1, 5, 9007199254740991, -9007199254740991]
TEXTS = [*PATHS, *PREFIXES, *URLS, *ADDRESSES, "eu", "", "acct-7", "x" * 300, "\u200b", "é", "e\u0301"]
VALUES = [*TEXTS, *NUMBERS, True, False, None, 1.0, 0.5, -0.0, 1e300, 1e-7, 123456789012345680.0, 2**53, 2**70, -(2**64)]
HOLDERS = ["orchestrator", "sales-agent", "clerk"]


class Cases:
    """Cases by number: one generator of randomness each, so that any can be made again alone."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def case(self, number: int) -> Vector:
        made = Case(Random(f"{self.seed} {number}"))
        return {"name": f"case {number} of seed {self.seed}", **made.any()}


class Case:
    """One case, drawn piece by piece."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.one = random.choice

    def few(self, pool: list[Any], most: int = 3) -> list[Any]:
        return [self.one(pool) for _ in range(self.random.randint(0, most))]

    def chance(self, likely: float) -> bool:
        return self.random.random() < likely

    def any(self) -> Vector:
        kinds: list[tuple[int, Callable[[], Vector]]] = [
            (50, self.decision), (20, self.widening), (10, self.capability), (6, self.request), (4, self.presenting),
            (3, self.snapshot), (3, self.recorded), (2, self.interop), (2, self.discharge), (2, self.mint), (2, self.holding),
            (2, self.delta), (2, self.trail), (1, self.key_file),
        ]  # fmt: skip
        (draw,) = self.random.choices([draw for _, draw in kinds], [weight for weight, _ in kinds])
        return draw()

    # --- what links say ------------------------------------------------------------------------------------------------

    def constraint(self, depth: int = 0) -> Any:
        kind = self.one(["any", "in", "range", "path", "prefix", "url", "cidr", "each"])
        if kind == "any":
            return {"any": True}
        if kind == "range":
            low, high = sorted((self.one(NUMBERS), self.one(NUMBERS)))
            return self.one([{"min": low}, {"max": high}, {"min": low, "max": high}])
        if kind == "each":
            inner = {"each": self.constraint(depth + 1) if depth < 5 else {"any": True}}
            return {**inner, "most": self.one([0, 1, 3])} if self.chance(0.5) else inner
        pools = {"in": [*TEXTS[:8], *NUMBERS, True, False, "eu"], "path": PATHS, "prefix": PREFIXES, "url": URLS, "cidr": BLOCKS}
        return {kind: self.legal(self.few(pools[kind], 4), kind)}

    def legal(self, entries: list[Any], kind: str) -> list[Any]:
        """Mostly without what makes a link unreadable."""
        if self.chance(0.05):
            return entries
        bad = {
            "in": ["", "a\u0301"], "path": ["/a/", "//", "/a/..", "/a%2fb", "a", "/a\\b"], "prefix": [],
            "url": [url for url in URLS if "@" in url or "A" in url or "?" in url or ":443" in url],
            "cidr": ["::/0", "10.0.0.1/8"],
        }  # fmt: skip
        return [entry for entry in entries if entry not in bad[kind]]

    def arguments(self) -> dict[str, Any]:
        made = {}
        for name in self.few(NAMES, 2):
            made[name] = self.constraint()
            if self.chance(0.3):
                made[name]["optional"] = True
        return made

    def caveats(self, most: int = 4) -> dict[str, Any]:
        """Caveats by their key, as they stand in a link."""
        draws: dict[str, Callable[[], Any]] = {
            "tables": lambda: self.few(PATTERNS),
            "operations": lambda: self.few([*OPERATIONS, "*"]),
            "allow": lambda: {pattern: self.few([*OPERATIONS, "*"]) for pattern in self.few(PATTERNS)},
            "columns": lambda: {pattern: self.few([*COLUMNS, "*"]) for pattern in [*self.few(PATTERNS, 2), "sales"]},
            "tools": lambda: {pattern: self.arguments() for pattern in self.few(TOOL_PATTERNS)},
            "where": lambda: {name: self.constraint() for name in [*self.few(NAMES, 1), self.one(NAMES)]},
            "exp": lambda: NOW + self.one([-1, 0, 1, 60, 600, 3600]),
            "nbf": lambda: NOW + self.one([-60, -1, 0, 1]),
            "aud": lambda: self.few(AUDIENCES),
            "task": lambda: self.one(TASKS),
            "uses": lambda: self.one([0, 1, 5]),
            "budget": lambda: {unit: self.one([0, 3, 9]) for unit in [*self.few(UNITS, 1), "cents"]},
            "fresh": lambda: self.one([0, 30, 60]),
            "depth": lambda: self.one([0, 1, 2]),
            "delegate_only": lambda: True,
        }
        usual = ["tables", "operations", "allow", "columns", "tools", "where"]
        keys = {self.one(usual if self.chance(0.7) else list(draws)) for _ in range(self.random.randint(1, most))}
        return {key: draws[key]() for key in sorted(keys)}

    # --- tokens --------------------------------------------------------------------------------------------------------

    def link(self, made: build.Parts, holder: str, bound: str | None, number: int) -> tuple[build.Parts, str, str | None]:
        """One link more: mostly one that verifiers read. Who holds it then, and whose key it is bound to."""
        says = self.caveats(3)
        counts = bool(says.keys() & {"uses", "budget"})
        signer = bound
        if self.chance(0.3):
            to = self.one(AGENTS)
            says |= {"from": holder if self.chance(0.95) else self.one(AGENTS), "to": to}
            if bound is not None and self.chance(0.9):
                signer, bound = bound, self.one(HOLDERS)
                says["key"] = build.b64(build.signing_public(bound))
            holder = to
        elif self.chance(0.1):
            bound = self.one(HOLDERS)
            says["key"] = build.b64(build.signing_public(bound))
        if counts or "to" in says:
            says["n"] = build.nonce(number)
        if "key" in says and signer is not None and self.chance(0.95):
            return build.extended(made, build.custody(made, says, signer)), holder, bound
        if self.chance(0.06):
            return build.extended(made, self.bent(build.canonical(says))), holder, bound
        return build.extended(made, says), holder, bound

    def token(self) -> tuple[build.Parts, list[str], str | None]:
        """Parts of a genuine token, the names of the third parties that it asks, and whose key it is bound to."""
        changes: dict[str, Any] = {}
        if self.chance(0.1):
            changes["iat"] = NOW + self.one([-5, 60, 61])
        if self.chance(0.05):
            changes["ext"] = {"acme:x": self.one(["a", 1, ""])}
        made, holder, bound, asked = build.token(**changes), "orchestrator", None, []
        if self.chance(0.2):
            bound = "orchestrator"
            made = build.extended(made, {"key": build.b64(build.signing_public(bound))})
        for number in range(self.random.randint(1, 4)):
            if self.chance(0.06):
                asked.append(name := f"third {len(asked)}")
                made = build.asking(made, name)
            else:
                made, holder, bound = self.link(made, holder, bound, number)
        return made, asked, bound

    def bent(self, data: bytes) -> bytes:
        """Bytes with a few of them changed, left out, put in, or said twice."""
        made = bytearray(data)
        for _ in range(self.one([1, 1, 1, 2, 4])):
            at = self.random.randrange(len(made) + 1)
            piece = self.one([b'"', b"{", b"}", b",", b":", b"1", b" ", b"\\", b"\x00", b"\xff", b"*", b".", b"-", b"0", b"true", b"e", b"/"])
            how = self.one("cxip")
            if how == "c" and at < len(made):
                made[at : at + 1] = piece
            elif how == "x":
                del made[at : at + self.one([1, 1, 3])]
            elif how == "i":
                made[at:at] = piece
            else:
                made[at:at] = made[at : at + self.one([1, 4, 16])]
        return bytes(made)

    def bent_text(self, text: str) -> str:
        at = self.random.randrange(len(text))
        piece = self.one(["A", "-", "_", "=", ".", "cap1_", "", "AA", " ", "é", text[at : at + 8]])
        return text[:at] + piece + text[at + self.one([0, 1, 2]) :]

    def text(self, audience: str, request: bytes) -> str:
        made, asked, bound = self.token()
        answers = [build.discharge(name, self.answer()) for name in asked if self.chance(0.95)]
        if self.chance(0.05):
            made = made._replace(identifier=self.bent(made.identifier))
            made = build.extended(build.Parts(made.identifier, (), (build.mac(build.derive(build.KEY), made.identifier),)), *made.caveats)
        written = build.bundle(made, *answers)
        if bound is not None and self.chance(0.9):
            issued = NOW + self.one([0, 0, 0, -30, -31, 5, 6])
            written += "." + build.proof(made, bound, request, audience, issued)
        if self.chance(0.06):
            return self.bent_text(written)
        if self.chance(0.04):
            return build.text(self.bent(made.wire))
        return written

    def answer(self) -> dict[str, Any]:
        """What a discharge says."""
        said = {"exp": NOW + self.one([60, 600, 0])}
        return said if self.chance(0.6) else {**said, **self.caveats(2)}

    # --- accesses ------------------------------------------------------------------------------------------------------

    def value(self, depth: int = 0) -> Any:
        if depth < 3 and self.chance(0.15):
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]
        if depth < 3 and self.chance(0.08):
            return {self.one(NAMES): self.value(depth + 1) for _ in range(self.random.randint(0, 2))}
        return self.one(VALUES)

    def access(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if self.chance(0.6):
            made |= {"table": self.one(TABLES), "operation": self.one(OPERATIONS)}
            if self.chance(0.4):
                made["columns"] = self.few(COLUMNS)
        if self.chance(0.5):
            made["tool"] = self.one(TOOLS)
            if self.chance(0.7):
                made["arguments"] = {name: self.value() for name in self.few(NAMES)}
        if self.chance(0.5):
            made["attributes"] = {name: self.value() for name in self.few(NAMES)}
        if self.chance(0.5):
            made["cost"] = {unit: self.one([0, 1, 4, 9]) for unit in [*self.few(UNITS, 1), "cents"]}
        if self.chance(0.02):
            made[self.one(["table", "tool", "columns", "cost", "extra"])] = self.one(VALUES)
        return made

    # --- kinds ---------------------------------------------------------------------------------------------------------

    def decision(self) -> Vector:
        access = None if self.chance(0.15) else self.access()
        audiences = self.one([["sales-db"], ["sales-db"], ["sales-db", "x"], []])
        try:
            about = request_digest(None if access is None else Access(**access))
        except (TypeError, ValueError, RecursionError):
            about = bytes(32)
        vector: Vector = {
            "kind": "decision",
            "token": self.text(self.one(audiences or ["sales-db"]), about),
            "keyring": KEYRING,
            "facts": {
                "now": NOW, "leeway": self.one([0, 0, 1, 90]), "audiences": audiences,
                "allow_unaddressed": self.chance(0.8),
            },
            "access_json": json.dumps(access),
            "caller": {"agent": self.one(AGENTS), "task": self.one(TASKS)} if access and self.chance(0.2) else None,
        }  # fmt: skip
        if self.chance(0.8):
            vector["replays"] = {"floor": 0, "limit": 9, "used": []}
        if self.chance(0.8):
            vector["ledger"] = {"floor": 0, "shared": self.chance(0.9), "spent": []}
        if self.chance(0.2):
            vector["overlay"] = {
                "snapshot": build.snapshot(*self.entries(), iat=NOW - self.one([0, 30, 60, 61])).decode("latin-1"),
                "operators": [build.b64(build.signing_public("operator"))],
                "max_staleness": 60, "allow_stale": self.chance(0.3),
            }  # fmt: skip
        return vector

    def entries(self) -> list[dict[str, Any]]:
        made = []
        for number in range(self.random.randint(0, 3)):
            selects = {
                "token": build.JTI, "link": build.b64(bytes(16)), "task": self.one(TASKS), "agent": self.one(AGENTS),
                "subject": self.one(["user:jane", "user:joe"]), "kid": "k1", "issued_before": NOW + self.one([0, 1]),
            }  # fmt: skip
            chosen = {key: selects[key] for key in {self.one(list(selects)) for _ in range(self.one([1, 1, 2]))}}
            entry = build.entry(f"e{number}", **chosen)
            if self.chance(0.6):
                kept = {key: said for key, said in self.readable().items() if key not in ("task", "uses", "budget")}
                entry |= {"link": kept} if kept else {}
            made.append({**entry, "until": NOW + self.one([0, 1])} if self.chance(0.3) else entry)
        return made

    def widening(self) -> Vector:
        made, _, bound = self.token()
        asked: dict[str, Any] = {}
        for key, said in self.caveats(3).items():
            asked |= {"exp": {"expires_at": said}, "nbf": {"not_before": said}, "aud": {"audience": said}}.get(key, {key: said})
        if self.chance(0.3):
            asked["expires_in"] = self.one([0, 1, 60, "5m", "1h30m", "5", True])
        if self.chance(0.2):
            asked["delegate_only"] = self.chance(0.5)
        if self.chance(0.4):
            asked["clamp"] = True
        if self.chance(0.1):
            asked["keep"] = self.one(["tables", "tools", ["tables", "tools"], "x"])
        vector: Vector = {"kind": "widening", "token": made.text, "to": self.one([None, None, *AGENTS]), "now": NOW, "nonce": "0000000000000007"}
        if self.chance(0.8 if bound else 0.1):
            asked["key"] = build.b64(build.signing_public(self.one(HOLDERS)))
        if self.chance(0.8 if bound else 0.05):
            vector["signer"] = build.secret(bound or "clerk").hex()
        return vector | {"asked_json": json.dumps(asked)}

    def capability(self) -> Vector:
        return {"kind": "capability", "one": self.readable(), "two": self.readable()}

    def readable(self) -> dict[str, Any]:
        """A link without what no capability has, and none that cannot be read."""
        while True:
            said = {key: said for key, said in self.caveats(4).items() if key not in ("depth", "delegate_only")}
            counts = {"n": build.nonce()} if said.keys() & {"uses", "budget"} else {}
            if said and build_reads({**said, **counts}):
                return said

    def request(self) -> Vector:
        if self.chance(0.5):
            return {"kind": "request", "form": "access", "access_json": json.dumps(self.access())}
        params: dict[str, Any] = {self.one([*NAMES, "_meta", "name", "arguments"]): self.value() for _ in range(3)}
        if self.chance(0.7):
            params["arguments"] = {name: self.value() for name in self.few(NAMES)}
        if self.chance(0.7):
            params["name"] = self.one([*TOOLS, "a/b"])
        method = self.one(["tools/call", "tools/call", "prompts/get", "tools/list", "resources/read", "ping"])
        return {"kind": "request", "form": "message", "method": method, "params_json": json.dumps(params)}

    def presenting(self) -> Vector:
        made, _, bound = self.token()
        vector: Vector = {"kind": "presenting", "token": made.text, "audience": self.one([*AUDIENCES, AUDIENCES]), "now": NOW}
        if bound is not None and self.chance(0.8):
            vector |= {"secret": build.secret(bound).hex(), "nonce": "0b" * 16}
            vector |= {"request": "0a" * 32} if self.chance(0.5) else {}
        return vector

    def snapshot(self) -> Vector:
        body = build.canonical(build.snapshot_of(*self.entries()))
        data = build.signed_snapshot(self.bent(body) if self.chance(0.5) else body)
        data = self.bent(data) if self.chance(0.2) else data
        return {"kind": "snapshot", "snapshot": data.decode("latin-1"), "operators": [build.b64(build.signing_public("operator"))]}

    def recorded(self) -> Vector:
        return {"kind": "recorded", "arguments_json": json.dumps({name: self.value() for name in [*self.few([*NAMES, "~"]), "~"]})}

    def interop(self) -> Vector:
        made, _, _ = self.token()
        if self.chance(0.5):
            wire = made.wire
            if self.chance(0.5):
                wire = wire[:1] + b"\x01\x00" + wire[1:]
            return {"kind": "interop", "form": "bytes", "source": (self.bent(wire) if self.chance(0.5) else wire).hex()}
        text = made.text.removeprefix("cap1_") if self.chance(0.3) else made.text
        text += "=" * self.one([0, 0, 1, 2, 3])
        return {"kind": "interop", "form": "text", "source": self.bent_text(text) if self.chance(0.4) else text}

    def discharge(self) -> Vector:
        ticket = build.ticket("third 0", need=self.one([{}, {"approve": "payment"}, {"n": 1}]))
        ticket = self.bent(ticket) if self.chance(0.3) else ticket
        asked = {key: said for key, said in self.caveats(2).items() if key not in ("exp", "nbf", "aud")}
        if self.chance(0.9):
            asked["expires_in"] = 60
        secret = build.secret("approvals").hex()
        return {"kind": "discharge", "secret": secret, "ticket": ticket.decode("utf-8", "replace"), "asked_json": json.dumps(asked), "now": NOW}


    def mint(self) -> Vector:
        asked: dict[str, Any] = {}
        for key, said in self.caveats(4).items():
            asked |= {"exp": {"expires_at": said}, "nbf": {"not_before": said}, "aud": {"audience": said}}.get(key, {key: said})
        if self.chance(0.6):
            asked |= {"tables": self.few(PATTERNS), "operations": self.few([*OPERATIONS, "*"])}
        for key, said in (("unrestricted", True), ("expires_at", None), ("expires_in", "5m"), ("ext", {"acme:x": self.one(["a", 1, True, ""])})):
            if self.chance(0.15):
                asked[key] = said
        if self.chance(0.2):
            asked["key"] = build.b64(build.signing_public("clerk"))
        asked.pop("task", None)
        return {
            "kind": "mint", "keyring": self.one([KEYRING, {**KEYRING, "audience": "sales-db"}]), "current": "k1",
            "subject": self.one(["user:jane", "a b"]), "agent": self.one(AGENTS), "task": self.one([*TASKS, "a/../b"]),
            "asked_json": json.dumps(asked), "now": NOW, "token_id": "01" * 16, "nonce": "02" * 8,
        }  # fmt: skip

    def holding(self) -> Vector:
        made = build.token(self.caveats(2))
        names = [f"third {number}" for number in range(self.random.randint(1, 4))]
        for name in names:
            made = build.asking(made, self.one([name, name, names[0]]))
        answers = [build.discharge(name, self.answer()) for name in names if self.chance(0.7)]
        if self.chance(0.2):
            self.random.shuffle(answers)
        text = build.joined(made, answers, self.one(["cap1u_", "cap1u_", "cap1u_", "cap1d_"]))
        return {"kind": "holding", "token": self.bent_text(text) if self.chance(0.2) else text}

    def delta(self) -> Vector:
        known, given = (build.snapshot_of(*self.entries(), seq=seq, iat=NOW + seq) for seq in (1, self.one([2, 2, 2, 1])))
        body = build.canonical(build.delta_of(known, given))
        data = build.signed_delta(self.bent(body) if self.chance(0.3) else body)
        data = self.bent(data) if self.chance(0.1) else data
        return {
            "kind": "delta", "known": build.signed_snapshot(build.canonical(known)).decode("latin-1"),
            "deltas": [data.decode("latin-1")], "operators": [build.b64(build.signing_public("operator"))],
        }  # fmt: skip

    def trail(self) -> Vector:
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

    def key_file(self) -> Vector:
        purpose = self.one(["holder", "discharger", "pairwise", "operator", "audit", "keyring"])
        stated: dict[str, Any] = {"purpose": purpose, "secret": build.b64(build.secret("x")), "v": 1}
        if purpose == "keyring":
            stated = {"current": "k1", "keys": {"k1": build.b64(build.KEY), "k2": build.b64(build.secret("y"))}, "v": 1}
        data = build.canonical(stated) + self.one([b"", b"\n"])
        return {"kind": "key_file", "purpose": purpose, "content": (self.bent(data) if self.chance(0.7) else data).decode("latin-1")}


def build_reads(link: dict[str, Any]) -> bool:
    from captoken._language.caveats import V1
    from captoken._language.links import Link, read_link

    return isinstance(read_link(build.canonical(link), V1), Link)


class Reference(Captoken):
    """The Python library, asked in one way and not in all."""

    def decide(self, vector: Vector) -> Outcome:
        try:
            asked = _Asked(vector)
        except (TypeError, ValueError):
            return {"code": "usage"}
        if asked.access is None:
            try:
                grant = asked.verifier().authenticate(asked.text, request=asked.request or request_digest(None))
            except Denied as denied:
                return {"code": denied.code, **_place(denied.decision)}
        else:
            decision = asked.checked()
            if decision.grant is None:
                return {"code": decision.code, **_place(decision)}
            grant = decision.grant
        outcome: Outcome = {
            "code": "allowed", "link_ids": list(grant.link_ids), "chain": [[actor.name, actor.basis] for actor in grant.chain],
            "task": grant.task, "expires_at": grant.expires_at,
        }  # fmt: skip
        if "ledger" in vector:
            outcome["debits"] = [
                {"bucket": build.b64(debit.bucket), "unit": debit.unit, "limit": debit.limit, "amount": debit.amount} for debit in asked.debits
            ]
        if grant.key is not None:
            uses = [{"entry": use.entry.hex(), "issued_at": use.issued_at} for use in asked.committed]
            outcome |= {"key": grant.key, "uses": uses, "evidence": [evidence.as_dict() for evidence in grant.evidence]}
        return outcome


def answered(adapter: Reference, vector: Vector) -> Outcome:
    """What Python makes of a case; fields that JSON readers lose are read from their text."""
    plain = {key.removesuffix("_json"): json.loads(said) if key.endswith("_json") else said for key, said in vector.items()}
    kind = plain["kind"]
    try:
        outcome: Outcome = getattr(adapter, "decide" if kind == "decision" else kind)(plain)
    except CaptokenError as error:
        return {"code": error.code}
    except Exception as error:
        return {"raised": repr(error)}
    return outcome


def batches(cases: Cases, first: int, count: int) -> Iterator[list[Vector]]:
    for start in range(first, first + count, BATCH):
        yield [cases.case(number) for number in range(start, min(start + BATCH, first + count))]


def compare(cases: Cases, first: int, count: int) -> tuple[Counter[str], list[str]]:
    """How often each answer came, and what differed."""
    adapter, seen, differing = Reference(), Counter[str](), []
    with subprocess.Popen(["node", str(ANSWERS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as port:
        assert port.stdin is not None and port.stdout is not None
        sent: Queue[list[Vector] | None] = Queue(4)

        def send() -> None:
            for batch in batches(cases, first, count):
                port.stdin.writelines(json.dumps(vector) + "\n" for vector in batch)
                port.stdin.flush()
                sent.put(batch)
            port.stdin.close()
            sent.put(None)

        threading.Thread(target=send, daemon=True).start()
        while (batch := sent.get()) is not None and len(differing) < SHOWN:
            for vector in batch:
                mine, its = answered(adapter, vector), json.loads(port.stdout.readline())
                seen[f"{vector['kind']} {mine.get('code', 'raised')}"] += 1
                if json.dumps(mine, sort_keys=True) != json.dumps(its, sort_keys=True) or "raised" in mine:
                    differing.append(f"{vector['name']}, {vector['kind']}\n  python {json.dumps(mine)}\n  port   {json.dumps(its)}")
        if differing:
            port.kill()
    return seen, differing[:SHOWN]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--all", action="store_true", help="how often each answer came")
    parser.add_argument("--show", action="store_true", help="the first case, and no more")
    given = parser.parse_args()
    logging.disable()
    if given.show:
        print(json.dumps(Cases(given.seed).case(given.first), indent=1))
        return 0
    seen, differing = compare(Cases(given.seed), given.first, given.count)
    if given.all:
        for answer, times in sorted(seen.items()):
            print(f"{times:8} {answer}")
    print("\n".join(differing), end="\n" if differing else "")
    print(f"{seen.total()} cases of seed {given.seed}, {len(seen)} kinds of answers: {len(differing) or 'none'} differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
