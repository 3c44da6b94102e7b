"""One table of vectors: a row a vector, with its outcome written by hand, each denial beside a control that is allowed.

For an allowed token the table adds what follows from its parts alone: link ids, chain, task and expiry; and of a bound one,
key, uses and evidence.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from spec.generate import apart
from spec.generate.build import KEY, NOW, Json, JsonText, Parts, b64, bundle, link_id, state, token
from tests.reference import vectors as reference

# The sections of the specification, numbered from 1 as its rules are.
SECTIONS = (
    "Encoding", "Canonical JSON", "Limits", "Names", "Labels", "Link ids", "Access", "Token", "Root record", "Wire", "Chain",
    "Patterns", "Constraints", "Paths", "Caveats", "Audience and task", "Links", "Domains", "Capability", "Lineage", "Keys",
    "Minting", "Widening", "Verification", "Interop", "Promises", "Key files", "Holder binding", "Requests",
    "Proof of possession", "Replay", "Third-party caveats", "Discharges", "Leases", "Pairwise keys", "Overlay", "Recall",
    "Ledger", "Audit", "Transports", "Grammar", "Procedures",
    "Traps", "Issuance", "Sets of tokens", "Marks", "Consent",
)  # fmt: skip

# Each code of a denial with its step, its kind and when it is given, as the specification's table has them.
SPECIFICATION = Path(__file__).parent.parent / "captoken-v1.md"
CODES: dict[str, tuple[int, str, str]] = {
    code: (int(step), kind, when)
    for code, step, kind, when in re.findall(
        r"^\| `(\w+)` \| (\d+) \| (\w+) \| (.+) \|$", SPECIFICATION.read_text("utf-8"), re.MULTILINE
    )
}

SALES: dict[str, Json] = {"operations": ["select"], "tables": ["sales"]}
SELECT: dict[str, Json] = {"table": "sales", "operation": "select"}
PASSING = frozenset(("allowed", "ok"))  # every other code is a failure
JUDGED = frozenset(("decision", "dry_run"))  # the kinds that have a place where something is refused



def call(tool: str, **arguments: Json) -> dict[str, Json]:
    """An access that calls a tool."""
    return {"tool": tool, "arguments": arguments}


def keyring(keys: dict[str, bytes], audience: str | None = None) -> Json:
    return {"keys": {key_id: key.hex() for key_id, key in keys.items()}, "audience": audience}


def facts(
    now: int = NOW, leeway: int = 0, audiences: tuple[str, ...] = (), allow_unaddressed: bool = False, context: Json = ...
) -> dict[str, Json]:
    """What a verifier knows. Without `context` it has none."""
    known = {"now": now, "leeway": leeway, "audiences": list(audiences), "allow_unaddressed": allow_unaddressed}
    return known if context is ... else known | {"context": context}


def ended(text: str, proof: str | None) -> str:
    """The text with a proof at its end, or as it is."""
    return text if proof is None else f"{text}.{proof}"


def is_plain(value: Json) -> bool:
    """Does every reader of JSON read it as what it is? A fraction without a part behind the point, an integer from 2^53 on and
    a lone surrogate are lost to some."""
    if isinstance(value, JsonText):
        return False
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, str):
        return re.search("[\ud800-\udfff]", value) is None
    if isinstance(value, float):
        return math.isfinite(value) and not value.is_integer()
    return abs(value or 0) < 2**53


def carried(given: dict[str, Json]) -> dict[str, Json]:
    """The same fields, with JSON text in place of what is not plain."""
    made: dict[str, Json] = {}
    for key, value in given.items():
        if is_plain(value):
            made[key] = value
        else:
            made[f"{key}_json"] = str(value) if isinstance(value, JsonText) else json.dumps(value)
    return made


class Table:
    """The vectors of one family."""

    def __init__(self, family: str, about: str) -> None:
        self.family, self.about = family, about
        self.vectors: list[dict[str, Json]] = []
        self._control = ""

    def beside(self, name: str) -> None:
        """The rows that follow differ from that one of this family, not from the row allowed last."""
        self._control = f"{self.family}_{name}"

    def _row(self, name: str, rule: str, kind: str, given: dict[str, Json], expect: dict[str, Json]) -> None:
        full = f"{self.family}_{name}"
        vector: dict[str, Json] = {
            "name": full,
            "kind": kind,
            "section": SECTIONS[int(rule.partition(".")[0]) - 1],
            "rule": rule,
        }
        if kind in JUDGED and expect["code"] not in (*PASSING, "usage"):
            said = reference.decided(given)  # where it stands; the code is written by hand
            expect = {**expect, **said} if said["code"] == expect["code"] else expect
        vector |= {**carried(given), "expect": expect}
        if expect["code"] in PASSING:
            self._control = full
        else:
            vector["control"] = self._control
        self.vectors.append(vector)

    def _decision(
        self,
        name: str,
        rule: str,
        token: Parts | str,
        access: Json,
        expect: dict[str, Json],
        caller: Json = None,
        ring: Json = None,
        presented: dict[str, Json] | None = None,
        kind: str = "decision",
        **known: Any,
    ) -> None:
        beside = dict(presented or {})
        given = {
            "token": ended(token if isinstance(token, str) else token.text, beside.pop("proof", None)),
            "keyring": ring or keyring({"k1": KEY}),
            "facts": facts(**known),
            "access": access,
            "caller": caller,
        }
        kind = "own" if "own" in beside else kind
        self._row(name, rule, kind, given | beside, expect)

    def allow(
        self,
        name: str,
        rule: str,
        token: Parts,
        access: Json = SELECT,
        *,
        discharges: tuple[Parts, ...] = (),
        proven: tuple[str, ...] = (),
        outcome: dict[str, Json] | None = None,
        **known: Any,
    ) -> None:
        """A token that permits `access`; `access=None` asks for none. `known` is the keyring, the caller and the facts.

        `discharges` are bound to it here; a proof among what is `presented` ends the text. `proven` are the agents whose hand-over is; `outcome` is what else comes of it.
        """
        root, links = json.loads(token.identifier), token.links
        tasks = [root["task"], *(link["task"] for link in links if "task" in link)]
        within = [*links, *(link for discharge in discharges for link in discharge.links)]
        later = [[link["to"], "proven" if link["to"] in proven else "vouched"] for link in links if "to" in link]
        expect = {
            "code": "allowed",
            "link_ids": [link_id(tag) for tag in token.tags[1:]],
            "chain": [[root["agent"], "issued"], *later],
            "task": max(tasks, key=len),
            "expires_at": min((link["exp"] for link in within if "exp" in link), default=None),
        }
        self._decision(name, rule, bundle(token, *discharges), access, expect | (outcome or {}), **known)

    def deny(
        self,
        name: str,
        rule: str,
        code: str,
        token: Parts | str,
        access: Json = SELECT,
        *,
        place: tuple[int, str] | None = None,
        **known: Any,
    ) -> None:
        """A token, or a text, that differs from the row allowed last in one thing, and what is said of it.

        `place` is the link and who added it, where the reference evaluator is not asked.
        """
        where: dict[str, Json] = {} if place is None else {"link": place[0], "added_by": place[1]}
        self._decision(name, rule, token, access, {"code": code, **where}, **known)

    def dry(
        self, name: str, rule: str, token: Parts | str, code: str, then: str, access: Json = SELECT, **known: Any
    ) -> None:  # fmt: skip
        """What a dry run says, and then the decision of the same verifier."""
        expect: dict[str, Json] = {"code": code} if code == "usage" else {"code": code, "then": then}
        self._decision(name, rule, token, access, expect, kind="dry_run", **known)

    def add(self, name: str, rule: str, kind: str, given: dict[str, Json], code: str = "ok", **outcome: Json) -> None:
        """A vector that is no decision."""
        self._row(name, rule, kind, given, {"code": code, **outcome})

    def plain(self, rule: str) -> None:
        """The row from which those that follow differ in one link: the one that permits what is asked, if it is not there."""
        asked = {"token": token(SALES).text, "facts": facts(), "access": SELECT, "caller": None}
        if not any(asked.items() <= vector.items() and vector["expect"]["code"] == "allowed" for vector in self.vectors):
            self.allow("nothing_more", rule, token(SALES))

    def choose(self) -> None:
        """Give each failing vector the control that differs in one place, if its own differs in more; else say why not."""
        inputs = {str(vector["name"]): apart.inputs(vector) for vector in self.vectors}
        passing = [vector for vector in self.vectors if vector["expect"]["code"] in PASSING]
        for vector in self.vectors:
            if vector in passing:
                continue
            mine = inputs[vector["name"]]
            likely = [vector["control"], *(other["name"] for other in passing if other["kind"] == vector["kind"])]
            found = next((name for name in likely if name and apart.is_one(mine, inputs[name])), None)
            if found is not None:
                vector["control"] = found
            elif (why := apart.why(vector["name"])) is not None:
                vector["apart"] = why

    @property
    def file(self) -> str:
        """The table as JSON, in ASCII, a line for each thing that a vector says."""
        self.choose()
        rows = []
        for vector in self.vectors:
            said = ",\n".join(f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in vector.items())
            rows.append("  {\n" + said + "\n  }")
        head = f' "family": {json.dumps(self.family)},\n "about": {json.dumps(self.about)},\n "vectors": [\n'
        return "{\n" + head + ",\n".join(rows) + "\n ]\n}\n"


def evidence(token: Parts) -> list[dict[str, str]]:
    """What the signed links of a bound token prove: key, state, body, signature."""
    found, key = [], ""
    for (cid, vid), before in zip(token.caveats, token.tags, strict=False):
        link = {} if vid else json.loads(cid if cid.endswith(b"}") else cid[:-87])
        if key and "key" in link:
            body, signature = cid[:-87].decode(), cid[-86:].decode()
            found.append({"key": key, "state": b64(state(before)), "body": body, "signature": signature})
        key = link.get("key", key)
    return found
