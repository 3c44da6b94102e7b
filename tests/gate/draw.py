"""What a verifier can be asked, drawn: tokens, answers of third parties, accesses, overlays, ledgers and stores of proofs.

Written with `spec.generate.build` alone, and so without captoken: each judge is handed texts that it did not write. Much of
what is drawn has to fit: a link says mostly what lets one access pass, and then now and then what does not. So every check
is reached, and passed, and failed. One `Draw` draws one case, by its own source of randomness.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any

from spec.generate import build
from spec.generate.build import NOW
from tests.reference.evaluator import is_constraint

Json = Any

AGENTS = ["orchestrator", "sales-agent", "clerk", "a", "b/c"]
TASKS = ["task-123", "task-123/a", "task-123/a/b", "task-1234", "other"]
SUBJECTS = ["user:jane", "user:joe"]
TABLES = ["sales", "hr", "market", "market.eu", "market.us.east", "a.b", "é", "\U0001f600.x", "\uff5e", "a b"]
OPERATIONS = ["select", "insert", "update", "x"]
COLUMNS = ["region", "amount", "id", "\uff5e", "\U0001f600"]
TOOLS = ["search", "read", "read.file", "read.dir.all", "é"]
AUDIENCES = ["sales-db", "hr-db", "mail-api"]
UNITS = ["cents", "tokens"]
MARKS = ["m", "s", "t", "m/2"]
KEY_IDS = {"k1": build.KEY, "k2": build.OTHER_KEY}
HOLDERS = ["orchestrator", "sales-agent", "clerk"]

# The names of arguments and attributes, and what their values are mostly like.
NAMES = {
    "q": "text", "id": "text", "path": "path", "url": "url", "address": "address", "n": "number", "cents": "number",
    "rows": "list", "é": "text", "\U0001f600": "number", "\uff5e": "path", "__proto__": "text", "constructor": "number",
    "toString": "list", "region": "text", "level": "number",
}  # fmt: skip
# What the values of a column are mostly like.
OF_ROWS = {"region": "text", "amount": "number", "id": "number", "\uff5e": "path", "\U0001f600": "list"}
OWN_KEYS = ["acme:region", "acme:level"]

SAFE = 2**53 - 1
VALUES: dict[str, list[Json]] = {
    "text": ["eu", "us", "acct-7", "acct-", "a", "ab", "é", "e\u0301", "", "x" * 256, "x" * 257, "\u200b", " a", "/a", "a://b"],
    "number": [0, 1, -1, 3, 5, 9, 10, SAFE, -SAFE, 1.0, 5.5, -0.0, 1e300, 1e-7, 123456789012345680.0, 2**53, 2**70, -(2**64), True, "5"],
    "path": ["/", "/a", "/a/b", "/a/b/c", "/ab", "/a/", "//", "/a/..", "/a%2fb", "/a%2Eb", "a", "/data/x y", "/a\\b", "/a\0b", "/é"],
    "url": [
        "https://a.b", "https://a.b/", "https://x.b.c/p", "https://y.x.b.c/p/q?z=1", "https://b.c/p", "http://a.b:8080/x", "https://a.b:443",
        "ws://10.0.0.1/x", "https://[2001:db8::1]/", "https://a.b/p/q", "https://a.b/p/;x", "https://u@a.b", "https://A.b",
        "https://a.b?x=1", "https://a.b/p/../q", "https://a.b/%2e%2e", "https://a.b./", "https://a.b/p#f", "https://0x7f.1/", "a.b",
    ],
    "address": [
        "10.0.0.1", "10.1.2.3", "10.200.0.1", "11.0.0.1", "2001:db8::1", "2001:db8:0:1::", "2001:DB8::1", "::ffff:10.0.0.1",
        "::ffff:a00:1", "::1", "::", "10.0.0.01", "1:2:3:4:5:6:7:8", "10.0.0", "10.0.0.1/32",
    ],
}  # fmt: skip
ENTRIES: dict[str, list[Json]] = {
    "in text": ["eu", "us", "acct-7", "a", "é", "x" * 256, True, "5"],
    "in number": [0, 1, -1, 5, 10, SAFE, -SAFE, True, False],
    "prefix": ["a", "ab", "acct-", "e", "x", "10.", "é"],
    "path": ["/", "/a", "/a/b", "/data", "/é"],
    "url": [
        "https://a.b", "https://a.b/p", "https://a.b/p/", "https://*.b.c", "https://*.b.c/p", "https://x.b.c/", "http://a.b:8080",
        "ws://10.0.0.1", "https://[2001:db8::1]",
    ],
    "cidr": ["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "10.1.2.3/32", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1/128", "::1/128"],
}  # fmt: skip
# Entries that make a constraint, and so its link, unreadable.
ILLEGAL: dict[str, list[Json]] = {
    "in text": ["", " a", "\u200b", "x" * 257, [1], 1.5, None],
    "in number": [2**53, 0.5, None],
    "prefix": ["", "/a", "a://", " a", 1],
    "path": ["/a/", "//", "/a/..", "/a%2fb", "a", "/a\\b", ""],
    "url": ["https://u@a.b", "https://A.b", "https://a.b?x=1", "https://a.b:443", "https://*.b", "https://a.b/..", "a.b"],
    "cidr": ["::/0", "10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "::ffff:0:0/96", "2001:DB8::/32"],
}
KINDS = {
    "text": ["in text", "in text", "prefix"], "number": ["in number", "range", "range"], "path": ["path", "path", "in text"],
    "url": ["url", "url", "prefix"], "address": ["cidr", "cidr", "prefix"], "list": ["each"],
}  # fmt: skip
UNREADABLE: dict[str, list[Json]] = {
    "tables": ["sales", ["a..b"], ["*a"], [1], {}, ["x" * 257]], "operations": [["a b"], [""], {}, True],
    "allow": [[], {"a..b": []}, {"a": "select"}], "columns": [{}, {"a": "x"}, {"a": [""]}],
    "rows": [{}, [], {"a": 1}, {"a": {"c": {}}}, {"a": {"": {"any": True}}}, {"a..b": {}}, {"a": {"c": {"any": True, "optional": True}}},
             {"*": {"c": {"any": True}}, "a": {"d": {"any": True}}}, {"a.*": {"c": {"any": True}}, "a.b": {"d": {"any": True}}}],
    "tools": [[], {"t": []}, {"t": {"q": {}}}, {"t": {"q": {"any": True, "optional": False}}}, {"t..u": {}}],
    "where": [{}, {"a": {}}, {"a": {"min": 2, "max": 1}}, {"a": {"in": "eu"}}, {"a": {"any": False}}, {"a": {"any": True, "optional": True}}],
    "exp": [True, "5", []], "nbf": [False, "5"], "aud": ["sales-db", [""], {}], "task": ["", "a//b", "a/../b", 1],
    "depth": [-1, True, "1"], "delegate_only": [False, 1], "from": ["", 1], "to": ["", True], "n": ["", "AAAAAAAAAA", 1],
    "key": ["", "A" * 43, 1, "AQ" + "A" * 41], "uses": [-1, True, {}], "budget": [{}, {"uses": 1}, {"cents": -1}, 5],
    "fresh": [-1, True, "1"],
    "marks": [
        {}, [], {"m": {}}, {"m": []}, {"m": {"tables": []}}, {"m": {"operations": ["x"], "tools": ["a"]}}, {"m": {"tables": ["a"], "but": {}}}, {"a b": {"tables": ["a"]}},
        {"m": {"tables": ["a"], "but": {"columns": {"a": ["x"]}}}}, {"m": {"tables": ["a"], "but": {"tools": []}}}, {"m": {"but": {"tables": ["a"]}}},
        {f"m{number}": {"tables": ["a"]} for number in range(9)},
    ],
    "consent": [[], {}, [{}], [{"by": "x", "for": {"tools": ["a"]}}], [{"by": "A" * 43, "for": {"tools": ["a"]}}], [{"for": {"tools": ["a"]}}], "x"],
    "forbid": [[], {}, [{}], [{"in": ["m"], "after": ["x"]}], [{"in": [], "after": ["m"]}], [{"in": ["m"]}], [{"in": ["m"], "after": ["m"], "unless": "x"}], ["m"]],
}  # fmt: skip
UNKNOWN = ["acme:new", "use", "Tables", "", "\u0435xp", "\U00010000"]
ODD_ROOTS: list[dict[str, Json]] = [
    {"v": 2}, {"v": 0}, {"v": True}, {"v": "1"}, {"iat": "1"}, {"iat": True}, {"kid": ""}, {"kid": 1}, {"aud": ""}, {"aud": ["sales-db"]},
    {"ext": {"x": 1}}, {"ext": {"acme:x": True}}, {"ext": []}, {"ext": {"acme:x": "y" * 2000}}, {"jti": "short"}, {"agent": "a b"}, {"sub": "a b"},
    {"task": "a/../b"}, {"extra": 1}, {"agent": None}, {"task": None},
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Token:
    """How a token is made, step by step, and what its holder knows of it."""

    root: Json  # the root record, or bytes that stand in its place
    kid: str
    audience: str | None  # of the key that its chain begins with
    steps: tuple[Step, ...]
    held: tuple[str, ...]  # by whom, from the first
    bound: str | None = None  # whose key
    number: int = 0  # of its next nonce

    @property
    def holder(self) -> str:
        return self.held[-1]

    @property
    def asked(self) -> tuple[str, ...]:
        """The third parties, by the names of their caveats."""
        return tuple(step["ask"] for step in self.steps if "ask" in step)

    @cached_property
    def parts(self) -> build.Parts:
        return parts_of({"root": self.root, "kid": self.kid, "audience": self.audience, "steps": self.steps})

    def recipe(self) -> dict[str, Json]:
        """How it is made, as JSON."""
        root = {"bytes": self.root.decode("latin-1")} if isinstance(self.root, bytes) else self.root
        return {"root": root, "kid": self.kid, "audience": self.audience, "steps": list(self.steps)}


# One step more of a token: {"link": its caveats, "signer": who signs it} or {"bytes": as Latin-1} or {"ask": the name of a caveat}.
Step = dict[str, Any]


def parts_of(recipe: Mapping[str, Json]) -> build.Parts:
    """The parts of a token that is made so."""
    root = recipe["root"]
    if isinstance(root, dict) and root.keys() == {"bytes"}:
        root = root["bytes"].encode("latin-1")
    key = KEY_IDS.get(recipe["kid"], build.KEY)
    key = key if recipe["audience"] is None else build.audience_key(key, recipe["audience"])
    parts = build.token(key=key, identifier=root if isinstance(root, bytes) else build.canonical(root))
    for step in recipe["steps"]:
        if "ask" in step:
            parts = build.asking(parts, step["ask"])
        elif "bytes" in step:
            parts = build.extended(parts, step["bytes"].encode("latin-1"))
        else:
            signer = step.get("signer")
            parts = build.extended(parts, step["link"] if signer is None else build.custody(parts, step["link"], signer))
    return parts


def discharge_of(answer: Mapping[str, Json]) -> build.Parts:
    """A discharge: {"of": the name of a caveat, "links": […]}; with `spoilt`, one that does not hold."""
    links = [link["bytes"].encode("latin-1") if link.keys() == {"bytes"} else link for link in answer["links"]]
    spoilt = answer.get("spoilt")
    made = build.discharge(answer["of"], *links, key=build.secret("another") if spoilt == "key" else None)
    return made.signed(bytes(32)) if spoilt == "signature" else made


def text_of(parts: build.Parts, answers: Sequence[Mapping[str, Json]], spoilt: str | None = None) -> str:
    """The text of a token with its discharges."""
    return build.bundle(parts.signed(bytes(32)) if spoilt == "signature" else parts, *map(discharge_of, answers))


def proof_of(parts: build.Parts, proof: Mapping[str, Json], request: bytes) -> str:
    """A proof at the end of a text: {"holder", "audience", "issued", "nonce"}; `elsewhere`: it is about another request."""
    about = bytes(32) if "elsewhere" in proof else request
    return "." + build.proof(parts, proof["holder"], about, proof["audience"], proof["issued"], bytes.fromhex(proof["nonce"]))


def named(value: Json, parts: build.Parts) -> Json:
    """The value, with the id of a link in the place of {"id of link": its number}, and with the bucket of a mark in that of {"mark": its
    name, "of": the number of a link, or the id of an entry}."""
    if isinstance(value, dict):
        if value.keys() == {"mark", "of"}:
            place, name = value["of"], value["mark"]
            if isinstance(place, str):
                return build.mark_of_entry(place, name)
            return build.mark_of_task(name) if place == 0 or place + 1 >= len(parts.tags) else build.mark_of_link(parts, place, name)
        if value.keys() == {"id of link"}:
            tags = parts.tags[1:] or parts.tags
            return build.link_id(tags[min(value["id of link"], len(tags) - 1)])
        return {key: named(item, parts) for key, item in value.items()}
    return [named(item, parts) for item in value] if isinstance(value, list) else value


def is_sayable(constraint: Json) -> bool:
    """Is it a constraint of a column, whose integers a link can have?"""
    if not is_constraint(constraint):
        return False
    numbers = [*constraint.get("in", ()), constraint.get("min"), constraint.get("max")]
    return all(type(number) is not int or abs(number) <= SAFE for number in numbers)


def snapshot_of(stated: Mapping[str, Json] | None, parts: build.Parts) -> str | None:
    """A snapshot, as a vector has it: {"entries", "seq", "iat", "exp"}; None where there is none yet."""
    if stated is None:
        return None
    entries = named(stated["entries"], parts)
    return build.snapshot(*entries, seq=stated["seq"], iat=stated["iat"], exp=stated["exp"]).decode("latin-1")


def consents_of(parts: build.Parts, consents: Sequence[Mapping[str, Json]], request: bytes) -> str:
    """Consents at the end of a text: {"at", "approver", "by", "audience", "issued", "until", "nonce"}; `elsewhere`: to another access."""
    made = []
    for each in consents:
        at = min(each["at"], len(parts.tags) - 2)
        about = bytes(32) if "elsewhere" in each else request
        made.append(build.consent(
            parts, at, each["approver"], about, audience=each["audience"], issued=each["issued"], until=each["until"],
            nonce=bytes.fromhex(each["nonce"]), by=each["by"],
        ) if at >= 0 else "cap1a_")  # fmt: skip
    return "".join(f".{text}" for text in sorted(set(made), key=lambda text: build.unb64(text[6:])))


def with_its_marks(link: dict[str, Json]) -> dict[str, Json]:
    """The link, without rules that name no mark of its own."""
    names = {name for rule in link.get("forbid", ()) for name in (*rule["in"], *rule["after"])}
    return link if names <= link.get("marks", {}).keys() else {key: said for key, said in link.items() if key != "forbid"}


def is_over(wide: str, narrow: str) -> bool:
    """Does a pattern hold all that another one does?"""
    return wide == "*" or (wide.endswith(".*") and narrow.startswith(wide[:-1]))


class Draw:
    """Draws one case: what is drawn follows from its source of randomness alone."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.one = random.choice
        self.now = NOW
        # How seldom a link says what does not let the target pass.
        self.fits = self.one([0.6, 0.9, 0.97, 0.99, 1.0, 1.0])
        self.odd = self.one([0.0, 0.0, 0.0, 0.01, 0.06])
        self.watched = self.chance(0.35)  # is there an overlay?
        self.target: dict[str, Json] = self.access(legal=True)
        self.audiences: list[str] = self.one([["sales-db"], ["sales-db"], ["sales-db", "hr-db"], []])
        self.own: list[dict[str, Json]] = []

    # --- small things ------------------------------------------------------------------------------------------------

    def chance(self, likely: float) -> bool:
        return self.random.random() < likely

    def few(self, pool: list[Any], most: int = 3, least: int = 0) -> list[Any]:
        return [self.one(pool) for _ in range(self.random.randint(least, most))]

    def fit(self, fitting: list[Any], pool: list[Any], most: int = 2) -> list[Any]:
        """A list of the pool; mostly with one that fits, if any does."""
        made = self.few(pool, most)
        if fitting and self.chance(self.fits):
            made.insert(self.random.randint(0, len(made)), self.one(fitting))
        return made

    # --- accesses ----------------------------------------------------------------------------------------------------

    def value(self, family: str, depth: int = 0) -> Json:
        if self.chance(0.04):
            family = self.one(list(KINDS))
        if family == "list":
            inner = self.one(["text", "number", "path", "list"]) if depth < 4 else "text"
            return [self.value(inner, depth + 1) for _ in range(self.one([0, 1, 1, 2, 3]))]
        if self.chance(0.02):
            return self.one([None, {}, {"a": 1}, {"__proto__": [1]}, []])
        pool = VALUES[family]
        return pool[int(len(pool) * self.random.random() ** 2)]  # the usual ones stand first

    def facts(self, most: int = 3) -> dict[str, Json]:
        return {name: self.value(NAMES[name]) for name in self.few(list(NAMES), most)}

    def access(self, legal: bool = False) -> dict[str, Json]:
        made: dict[str, Json] = {}
        kind = self.one(["data", "data", "tool", "tool", "both", "neither"])
        if kind in ("data", "both"):
            made |= {"table": self.one(TABLES), "operation": self.one(OPERATIONS)}
            if self.chance(0.5):
                made["columns"] = self.few(COLUMNS)
            if self.chance(0.4):
                made |= self.rows_stated()
        if kind in ("tool", "both"):
            made["tool"] = self.one(TOOLS)
            if self.chance(0.8):
                made["arguments"] = self.facts()
        if self.chance(0.6):
            made["attributes"] = self.facts()
        if self.chance(0.6):
            made["cost"] = {unit: self.one([0, 1, 4, 9]) for unit in self.one([["cents"], UNITS])}
        if not legal and self.chance(0.01):
            made[self.one(["table", "tool", "columns", "row", "becomes", "rows", "cost", "attributes", "extra"])] = self.one([*VALUES["number"], [], {"a b": 1}])
        return made

    def row(self) -> dict[str, Json] | None:
        return None if self.chance(0.1) else {column: self.value(OF_ROWS[column]) for column in self.few(COLUMNS, 4, 1)}

    def rows_stated(self) -> dict[str, Json]:
        """The row before, after, or both; or conditions that were held."""
        stated = self.one([("row",), ("becomes",), ("row", "becomes"), ("row", "becomes"), ("rows",)])
        if stated == ("rows",):
            return {"rows": [{c: self.held(OF_ROWS[c]) for c in self.few(COLUMNS, 2)} for _ in range(self.one([0, 1, 1, 2]))]}
        return {fact: self.row() for fact in stated}

    def held(self, family: str) -> Json:
        """A constraint that an access can state."""
        while True:
            made = self.constraint(family)
            if is_constraint(made):
                return made

    def near(self, legal: bool = False) -> dict[str, Json]:
        """The target, or one that differs from it in a little."""
        made = dict(self.target)
        how = self.one(["same", "same", "same", "fact", "column", "row", "table", "tool", "cost", "other"])
        if how == "other":
            return self.access(legal)
        if how == "fact":
            about = self.one(["arguments", "attributes"])
            changed = dict(made.get(about, {}))
            name = self.one([*changed, self.one(list(NAMES))])
            if name in changed and self.chance(0.3):
                del changed[name]
            else:
                changed[name] = self.value(NAMES[name])
            made |= {about: changed} if about == "attributes" or "tool" in made else {}
        elif how == "column" and "table" in made:
            made["columns"] = self.few(COLUMNS)
        elif how == "row" and "table" in made:
            made = {fact: value for fact, value in made.items() if fact not in ("row", "becomes", "rows")} | self.rows_stated()
        elif how == "table" and "table" in made:
            made |= {"table": self.one(TABLES), "operation": self.one(OPERATIONS)}
        elif how == "tool" and "tool" in made:
            made["tool"] = self.one(TOOLS)
        elif how == "cost":
            made["cost"] = {unit: self.one([0, 1, 4, 9]) for unit in self.few(UNITS, 2)}
        return made

    # --- what links say ----------------------------------------------------------------------------------------------

    def constraint(self, family: str, depth: int = 0) -> Json:
        if self.chance(0.07):
            family = self.one(list(KINDS))
        if self.chance(0.08):
            return {"any": True}
        kind = self.one(KINDS[family])
        if kind == "range":
            low, high = sorted((self.one([-SAFE, 0, 0, 1, 5]), self.one([1, 5, 9, 10, SAFE])))
            return self.one([{"min": low}, {"max": high}, {"min": low, "max": high}])
        if kind == "each":
            deepest = 3 if not self.chance(self.odd) else 5
            inner = self.constraint(self.one(["text", "number", "path", "list"]), depth + 1) if depth < deepest else {"any": True}
            return {"each": inner, "most": self.one([0, 1, 2, 3])} if self.chance(0.4) else {"each": inner}
        entries = self.few(ENTRIES[kind], 4, 0 if self.chance(0.05) else 1)
        if self.chance(self.odd / 2):
            entries.append(self.one(ILLEGAL[kind]))
        return {kind.partition(" ")[0]: entries}

    def upon(self, value: Json, family: str) -> Json:
        """A constraint for a name of that family; mostly one that the value is likely to satisfy."""
        if self.chance(self.fits):
            return self.one(self.fitting(value, family))
        return self.constraint(family)

    def fitting(self, value: Json, family: str) -> list[Json]:
        """Constraints that a value satisfies."""
        made: list[Json] = [{"any": True}]
        if type(value) is bool or (type(value) is str and value in ENTRIES["in text"]):
            made += [{"in": [value, "eu"]}] * 3
        elif type(value) is int and abs(value) <= SAFE:
            made += [{"in": [value, 7]}, {"min": value}, {"max": value}, {"min": min(value, 0), "max": max(value, 9)}]
        elif type(value) is float and 0 <= value < 10:
            made += [{"min": -5}, {"min": 0, "max": 10}]
        elif type(value) is list:
            made += [{"each": {"any": True}, "most": len(value)}, {"each": self.one(self.fitting(value[0], "text"))} if len(value) == 1 else {"each": {"any": True}}]
        elif type(value) is str and value in VALUES.get(family, ())[:5]:
            made += {
                "path": [{"path": ["/"]}, {"path": ["/", "/a"]}], "url": [{"url": ["http://a.b:8080", "https://a.b", "https://*.b.c", "https://b.c/"]}],
                "address": [{"cidr": ["10.0.0.0/8", "11.0.0.0/8", "2001::/16"]}], "text": [{"prefix": ["acct-", "eu", "us", "a"]}],
            }.get(family, []) * 3  # fmt: skip
        return made

    def within(self, facts: dict[str, Json], closed: bool) -> dict[str, Json]:
        """Constraints by name. `closed`: what is not named is prohibited, so that mostly all are."""
        names = list(facts) if closed and self.chance(self.fits) else self.few(list(facts), 2, 1) if facts else []
        made = {name: self.upon(facts[name], NAMES[name]) for name in names}
        if self.chance(1 - self.fits) or not (closed or made):
            name = self.one(list(NAMES))
            made[name] = self.constraint(NAMES[name])
        if closed:
            for constraint in made.values():
                if self.chance(0.2):
                    constraint["optional"] = True
        if closed and self.chance(0.1):
            name = self.one(list(NAMES))
            made.setdefault(name, {**self.constraint(NAMES[name]), "optional": True})
        return made

    def patterns(self, name: str | None, pool: list[str], most: int = 2) -> list[str]:
        """Patterns of names; mostly one that matches this."""
        every = [*pool, "*", "market.*", "market.us.*", "read.*", "read.dir.*", "\U0001f600.*"]
        if name is None:
            return self.few(every, most)
        above = [".".join([*name.split(".")[:place], "*"]) for place in range(name.count(".") + 1)]
        return list(dict.fromkeys(self.fit([name, name, *above], every, most)))

    def operations(self) -> list[str]:
        return self.fit([self.target.get("operation", "select"), "*"], [*OPERATIONS, "*"][: 4 if self.chance(0.9) else 5])

    def listed(self) -> list[str]:
        stated = self.target.get("columns")
        if self.chance(0.3):
            return ["*"]
        return [*self.few(COLUMNS, 2), *(stated if stated and self.chance(self.fits) else ())]

    def row_rule(self) -> dict[str, Json]:
        """What is said of the rows of a table: mostly what those that the target states satisfy."""
        held = self.target.get("rows")
        if held and self.chance(self.fits):
            one = dict(self.one(held))
            # The server may state what no link can say: where all has to be readable, that is not taken.
            if self.odd or all(map(is_sayable, one.values())):
                return one
        row = self.target.get("row") or self.target.get("becomes") or {}
        if row and self.chance(self.fits):
            return {column: self.upon(row[column], OF_ROWS[column]) for column in self.few(list(row), 2)}
        return {column: self.constraint(OF_ROWS[column]) for column in self.few(COLUMNS, 2)}

    def row_rules(self, table: str | None) -> dict[str, Json]:
        """Such entries, by pattern: each names what those over it name, mostly."""
        made = {pattern: self.row_rule() for pattern in self.patterns(table, TABLES, 2)} or {"hr": {}}
        for narrow, entry in made.items():
            over = {column for wide in made if wide != narrow and is_over(wide, narrow) for column in made[wide]}
            if entry and not self.chance(self.odd):
                for column in sorted(over - entry.keys()):
                    entry[column] = {"any": True} if self.chance(0.5) else self.constraint(OF_ROWS[column])
        return made

    def caveat(self, key: str) -> Json:
        """A value of that key, mostly one that readers understand."""
        if self.chance(self.odd):
            return self.one(UNREADABLE[key])
        table, tool = self.target.get("table"), self.target.get("tool")
        fits = self.chance(self.fits)
        draws: dict[str, Callable[[], Json]] = {
            "tables": lambda: self.patterns(table, TABLES),
            "operations": self.operations,
            "allow": lambda: {pattern: self.operations() for pattern in self.patterns(table, TABLES)},
            "columns": lambda: {pattern: self.listed() for pattern in [*self.patterns(table, TABLES, 1), "hr"]},
            "rows": lambda: self.row_rules(table),
            "tools": lambda: {pattern: self.within(self.target.get("arguments", {}), True) for pattern in self.patterns(tool, TOOLS)},
            "where": lambda: self.within(self.target.get("attributes", {}), False),
            "exp": lambda: self.now + (self.one([60, 600, 3600, 3600, 7200, 86400]) if fits else self.one([-90, -1, 0, 1])),
            "nbf": lambda: self.now - (self.one([0, 1, 60]) if fits else self.one([-1, -90, -91])),
            "aud": lambda: self.fit(self.audiences[:1], AUDIENCES),
            "task": lambda: self.one(["task-123", "task-123/a"] if fits else TASKS),
            "uses": lambda: self.one([3, 100] if fits else [0, 1, 3]),
            "budget": lambda: {
                unit: self.one([20, 100] if fits else [0, 3, 9])
                for unit in (self.few(list(self.target["cost"]), 1, 1) if "cost" in self.target and fits else self.one([["cents"], UNITS]))
            },
            "fresh": lambda: self.one([10, 30, 60, 600] if fits else [0, 10]),
            "depth": lambda: self.one([2, 3, 5] if fits else [0, 1]),
            "delegate_only": lambda: True,
            "marks": lambda: {self.one(MARKS): self.mark() for _ in range(self.one([1, 2, 2, 3]))},
            "forbid": lambda: [self.rule(MARKS)],
            "consent": lambda: [{"by": APPROVERS[self.one(["clerk", "clerk", "jane"])], "for": self.mark()} for _ in range(self.one([1, 1, 2]))],
        }
        return draws[key]()

    def mark(self) -> dict[str, Json]:
        """What puts an access in a mark; mostly the target may be in it."""
        table, tool = self.target.get("table"), self.target.get("tool")
        made: dict[str, Json] = {}
        if table is not None or self.chance(0.3):
            made["tables"] = self.patterns(table, TABLES) or ["hr"]
            made |= {"operations": self.operations() or ["*"]} if self.chance(0.3) else {}
        if tool is not None or not made:
            made["tools"] = self.patterns(tool, TOOLS) or ["read"]
        if self.chance(0.3):
            keys = self.one([["tables"], ["operations"], ["allow"], ["tools"], ["tables", "tools"], ["operations", "tools"]])
            made["but"] = {key: self.caveat(key) for key in keys}
        return made

    def rule(self, names: list[str]) -> dict[str, Json]:
        """Marks that are closed, once others are set."""
        made: dict[str, Json] = {"in": self.few(names, 2, 1), "after": self.few(names, 2, 1)}
        return made | ({"unless": APPROVERS["clerk"]} if self.chance(0.2) else {})

    def caveats(self, most: int = 3) -> dict[str, Json]:
        """Caveats by their key, as they stand in a link. Mostly about what the target is about."""
        about = [
            *(["tables", "operations", "allow", "columns", "rows"] if "table" in self.target or self.chance(1 - self.fits) else []),
            *(["tools", "tools"] if "tool" in self.target or self.chance(1 - self.fits) else []),
            *(["where"] if self.target.get("attributes") or self.chance(1 - self.fits) else []),
            "exp",
        ]  # fmt: skip
        if not self.target.get("columns") and self.chance(self.fits):
            about = [key for key in about if key != "columns"]
        if not self.target.keys() & {"row", "becomes", "rows"} and self.chance(self.fits):
            about = [key for key in about if key != "rows"]
        rare = ["nbf", "task", "uses", "depth"]
        rare += ["aud", "aud"] if self.audiences or self.chance(1 - self.fits) else []
        rare += ["budget", "budget"] if "cost" in self.target or self.chance(1 - self.fits) else []
        rare += ["marks", "marks", "consent", "consent"]
        rare += ["fresh", "fresh"] if self.watched or self.chance(1.05 - self.fits) else []
        if self.chance(0.05):
            rare = ["delegate_only", *UNREADABLE.keys() - {"from", "to", "n", "key"}]
            rare.sort()
        keys = {self.one(about if self.chance(0.7) else rare) for _ in range(self.random.randint(1, most))}
        # One that names a domain closes the other: so both, where the target needs both.
        if "table" in self.target and "tool" in self.target and self.chance(self.fits):
            data, tool = keys & {"tables", "operations", "allow", "columns", "rows"}, keys & {"tools"}
            keys |= ({"tools"} if data else set()) | ({"tables"} if tool else set())
        made = {key: self.caveat(key) for key in sorted(keys)}
        if isinstance(made.get("marks"), dict) and made["marks"] and "forbid" not in made and self.chance(0.8):
            names = list(made["marks"]) if self.chance(1 - self.odd / 4) else MARKS
            made["forbid"] = [self.rule(names) for _ in range(self.one([1, 1, 2]))]
        return made

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

    # --- tokens ------------------------------------------------------------------------------------------------------

    def root(self) -> Token:
        """A token of one link, mostly."""
        changes: dict[str, Json] = {"agent": self.one(AGENTS[:3]), "kid": self.one(["k1", "k1", "k1", "k2"])}
        if self.chance(0.1):
            changes["iat"] = self.now + self.one([-5, -5, -5, 60, 61, 91])
        if self.chance(0.1):
            changes["ext"] = {"acme:x": self.one(["a", 1, "é"])}
        if self.chance(0.2 if self.audiences else 1 - self.fits):
            changes["aud"] = self.one(self.audiences if self.audiences and self.chance(self.fits) else AUDIENCES)
        if self.chance(0.01 + self.odd / 4):
            changes |= self.one(ODD_ROOTS)
        if self.chance(0.01):
            changes["kid"] = "k3"
        record: Json = build.root(**changes)
        if self.chance(self.odd / 4):
            record = self.bent(build.canonical(record))
        audience = changes.get("aud")
        made = Token(record, str(changes["kid"]), audience if isinstance(audience, str) else None, (), (str(changes["agent"]),))
        # Where a verifier has a name, a token is mostly addressed.
        if self.audiences and "aud" not in changes and self.chance(0.5):
            return self.saying(made, {"aud": self.audiences[:1], **self.caveats(2)})
        return made

    def saying(self, token: Token, says: dict[str, Json]) -> Token:
        """The token with a link more, which the one who holds it signs if it has to."""
        if says.keys() & {"uses", "budget", "marks", "to"}:
            says.setdefault("n", build.nonce(token.number))
        held = (*token.held, says["to"]) if isinstance(says.get("to"), str) else token.held
        step: Step = {"link": says}
        if "key" in says and token.bound is not None and self.chance(0.97):
            step["signer"] = token.bound
        return replace(token, steps=(*token.steps, step), held=held, number=token.number + 1)

    def handed_on(self, token: Token) -> Token:
        """The token, handed to the next."""
        others = [agent for agent in AGENTS if agent not in token.held]
        if not others and self.chance(0.9):
            return token
        to = self.one(others or AGENTS) if self.chance(self.fits) else self.one(AGENTS)
        says = {"from": token.holder if self.chance(self.fits) else self.one(AGENTS), "to": to, **(self.caveats(2) if self.chance(0.5) else {})}
        bound = token.bound
        if bound is not None and self.chance(0.9):
            bound = to if to in HOLDERS else self.one(HOLDERS)
            says["key"] = build.b64(build.signing_public(bound))
        if self.chance(self.odd):
            del says[self.one(["from", "to"])]
        return replace(self.saying(token, says), bound=bound)

    def bound_to(self, token: Token) -> Token:
        """The token, bound to a key by whoever holds it."""
        bound = token.holder if token.holder in HOLDERS else self.one(HOLDERS)
        says = {"key": build.b64(build.signing_public(bound)), **(self.caveats(1) if self.chance(0.3) else {})}
        return replace(self.saying(token, says), bound=bound)

    def asking(self, token: Token) -> Token:
        """The token with a third party that has to answer; now and then one that is asked already."""
        name = self.one(token.asked) if token.asked and self.chance(0.05) else f"third {len(token.asked)}"
        return replace(token, steps=(*token.steps, {"ask": name}))

    def odd_link(self, token: Token) -> Token:
        """The token with a link that is not as it should be."""
        says = self.caveats(2)
        if self.chance(0.5):
            says[self.one(UNKNOWN)] = self.one([1, True, [], {"a": 1}])
            return self.saying(token, says)
        body = self.bent(build.canonical(says)) or b"{}"
        return replace(token, steps=(*token.steps, {"bytes": body.decode("latin-1")}))

    def owned(self, token: Token) -> Token:
        """The token with a caveat of an embedder's that the verifier knows."""
        return self.saying(token, {self.one(self.own)["key"]: self.one([["eu", "us"], ["us"], 1, "x", {}]), **(self.caveats(1) if self.chance(0.5) else {})})

    def alike(self, token: Token) -> Token:
        """The token with many links that say the same, or nearly so."""
        says = self.caveats(2)
        for _ in range(self.one([2, 5, 10, 20])):
            token = self.saying(token, {**says, **({"exp": self.now + self.random.randint(600, 9000)} if self.chance(0.3) else {})})
        return token

    def grown(self, token: Token, links: int) -> Token:
        """The token with so many links more, or about."""
        ways = [self.handed_on, self.asking, *([self.bound_to] if self.audiences or self.chance(1 - self.fits) else [])]
        for _ in range(links):
            draw = self.random.random()
            if draw < 0.16 + 0.1 * (token.bound is not None):
                token = self.handed_on(token)
            elif draw < 0.30:
                token = self.one(ways)(token)
            elif draw < 0.30 + self.odd / 2:
                token = self.odd_link(token)
            elif draw < 0.36 and self.own:
                token = self.owned(token)
            elif draw < 0.37:
                token = self.alike(token)
            else:
                token = self.saying(token, self.caveats(3))
        return token

    def token(self) -> Token:
        return self.grown(self.root(), self.one([0 if self.chance(0.1) else 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 6, 10, self.one([30, 63, 64, 65]) if self.chance(0.1) else 5]))

    # --- what is sent ------------------------------------------------------------------------------------------------

    def answer(self) -> list[dict[str, Json]]:
        """The links of a discharge."""
        made = [{"exp": self.now + self.one([60, 600, 3600, 3600] if self.chance(0.95) else [0, -1])}]
        if self.chance(0.35):
            said = self.caveats(2)
            made += [said] if self.chance(0.1) else [{key: value for key, value in said.items() if key not in NOT_OF_DISCHARGES}]
        return [link for link in made if link]

    def discharges(self, token: Token) -> list[dict[str, Json]]:
        """Answers of all that are asked, mostly."""
        made: list[dict[str, Json]] = [{"of": name, "links": self.answer()} for name in token.asked if self.chance(0.98)]
        how = self.random.random()
        if made and how < 0.02:
            self.random.shuffle(made)
        elif made and how < 0.04:
            made.append(self.one(made))
        elif how < 0.01 + self.odd / 4:
            made.append({"of": "third 9", "links": [{"exp": self.now + 60}]})
        elif made and how < 0.06:
            at = self.random.randrange(len(made))
            body = self.bent(b'{"exp":9}') or b"{}"
            made[at] = self.one([
                {**made[at], "spoilt": "key"}, {**made[at], "spoilt": "signature"},
                {**made[at], "links": [*made[at]["links"], {"bytes": body.decode("latin-1")}]},
            ])  # fmt: skip
        return made

    def about(self, access: dict[str, Json] | None) -> bytes:
        """The digest of an access; of one that cannot be stated, nothing in particular."""
        try:
            return build.of_access(access)
        except (TypeError, ValueError, RecursionError):
            return bytes(32)

    def proof(self, token: Token) -> dict[str, Json] | None:
        """A proof; mostly what is bound has one, and what is not has none."""
        if self.chance(0.03 if token.bound else 0.995):
            return None
        made: dict[str, Json] = {
            "holder": token.bound if token.bound and self.chance(0.97) else self.one(HOLDERS),
            "audience": (self.audiences or ["sales-db"])[0] if self.chance(0.97) else self.one(AUDIENCES),
            "issued": self.now + (self.one([0, 0, -30, 5]) if self.chance(0.95) else self.one([-31, 6])),
            "nonce": self.random.randbytes(16).hex(),
        }  # fmt: skip
        return made if self.chance(0.97) else {**made, "elsewhere": True}

    def consents(self, token: Token) -> list[dict[str, Json]]:
        """A consent for each entry that asks for one, mostly."""
        made: list[dict[str, Json]] = []
        for at, step in enumerate(token.steps):
            link = step.get("link", {})
            keys = [one.get("by") for one in listed(link, "consent")] + [one.get("unless") for one in listed(link, "forbid")]
            for name in dict.fromkeys(name for name, key in APPROVERS.items() if key in keys):
                if self.chance(0.25):
                    continue
                issued = self.now + (self.one([0, -300, 5]) if self.chance(0.9) else self.one([-3600, 6]))
                until = issued + (self.one([3600, 301, 305]) if self.chance(0.85) else self.one([0, 1, 3601]))
                one: dict[str, Json] = {
                    "at": at if self.chance(0.97) else self.random.randrange(len(token.steps)), "approver": name if self.chance(0.9) else "jane", "by": name,
                    "audience": self.one(self.audiences or ["sales-db"]) if self.chance(0.97) else self.one(AUDIENCES),
                    "issued": issued, "until": until, "nonce": self.random.randbytes(16).hex(),
                }  # fmt: skip
                made.append(one if self.chance(0.95) else {**one, "elsewhere": True})
        return made

    def spoilt(self, token: Token, answers: list[dict[str, Json]]) -> str | None:
        """A text that is none, or is another one; mostly None."""
        if self.chance(self.odd / 2):
            return self.bent_text(text_of(token.parts, answers))
        return build.text(self.bent(token.parts.wire)) if self.chance(self.odd / 2) else None

    def text(self, token: Token, answers: list[dict[str, Json]]) -> str:
        """The text of a token with answers, without a proof; now and then spoilt."""
        return self.spoilt(token, answers) or text_of(token.parts, answers, "signature" if self.chance(0.005) else None)

    # --- what a verifier knows -----------------------------------------------------------------------------------------

    def known(self) -> dict[str, Json]:
        """Its facts; now and then of the moment, too."""
        facts: dict[str, Json] = {
            "now": self.now, "leeway": self.one([0, 0, 0, 1, 90]), "audiences": self.audiences, "allow_unaddressed": self.chance(0.85),
        }  # fmt: skip
        return facts | {"context": self.one([None, {}, self.facts(), self.facts()])} if self.chance(0.1) else facts

    def keyring(self) -> dict[str, Json]:
        audience = self.one(AUDIENCES) if self.chance(0.01) else None
        return {"keys": {name: key.hex() for name, key in KEY_IDS.items()}, "audience": audience}

    def caller(self) -> dict[str, Json] | None:
        if self.chance(0.75):
            return None
        return self.one([{"agent": self.one(AGENTS)}, {"task": self.one(TASKS)}, {"agent": self.one(AGENTS[:3]), "task": self.one(TASKS[:2])}])

    def entry(self, token: Token, number: int) -> dict[str, Json]:
        """An entry of an overlay; mostly it selects the token."""
        selects: dict[str, Json] = {
            "token": build.JTI, "link": {"id of link": self.random.randrange(max(len(token.steps), 1))},
            "agent": token.holder if token.holder in AGENTS else AGENTS[0], "task": self.one(TASKS[:3]), "subject": "user:jane", "kid": "k1", "issued_before": self.now + 62,
        }  # fmt: skip
        others: dict[str, Json] = {
            "token": build.b64(bytes(16)), "link": build.b64(bytes(16)), "agent": self.one(AGENTS), "task": self.one(TASKS), "subject": "user:joe",
            "kid": "k2", "issued_before": self.now + self.one([0, 1, -5]),
        }  # fmt: skip
        chosen = {key: (selects if self.chance(0.7) else others)[key] for key in self.few(list(selects), self.one([1, 1, 2]), 1)}
        hops = [n for step in token.steps if type(n := step.get("link", {}).get("n")) is str and re.fullmatch("[A-Za-z0-9_-]{11}", n)]
        if "token" in chosen and hops and number % 2:  # no draw of its own: what a seed gives stays as it was
            chosen["hop"] = hops[-1]
        made = build.entry(f"e{number}", **chosen)
        if self.chance(0.85):
            kept = with_its_marks({key: said for key, said in self.caveats(2).items() if key not in NOT_OF_ENTRIES})
            for rule in kept.get("forbid", ()):
                rule.pop("unless", None)
            kept |= {"n": build.nonce(number)} if "marks" in kept else {}
            made |= {"link": kept} if kept else {}
        return {**made, "until": self.now + self.one([0, 1, 60])} if self.chance(0.3) else made

    def snapshot(self, token: Token, seq: int = 1) -> dict[str, Json] | None:
        """A snapshot; None where there is none yet."""
        if self.chance(0.03):
            return None
        iat = self.now - (self.one([0, 1, 30]) if self.chance(0.9) else self.one([59, 60, 61, -60, -61]))
        end = max(iat, NOW) + 3600 if self.chance(0.97) else self.now + self.one([0, 1])
        odd, self.odd = self.odd, 0.0  # what cannot be read was never accepted
        entries = [self.entry(token, number) for number in range(self.one([0, 1, 1, 2, 3]))]
        self.odd = odd
        return {"entries": entries, "seq": seq, "iat": iat, "exp": end}

    def overlay(self, token: Token) -> dict[str, Json]:
        made: dict[str, Json] = {"allow_stale": self.chance(0.3), "operators": [build.b64(build.signing_public("operator"))]}
        made["snapshot"] = self.snapshot(token)
        made |= {"max_staleness": self.one([0, 60, 600])} if self.chance(0.3) else {}
        return made | ({"down": True} if self.chance(0.02) else {})

    def replays(self, used: list[dict[str, Json]] | None = None) -> dict[str, Json]:
        """The store of used proofs."""
        floor = 0 if self.chance(0.95) else self.now + self.one([-31, 0, 5])
        made: dict[str, Json] = {"floor": floor, "limit": 100 if self.chance(0.97) else 0, "used": used or []}
        return made | ({"down": True} if self.chance(0.01) else {})

    def ledger(self, token: Token) -> dict[str, Json]:
        """A ledger; what was spent before is of the token's buckets."""
        spent = []
        for place in range(len(token.steps)):
            if self.chance(0.2):
                spent.append({"bucket": {"id of link": place}, "unit": self.one(["uses", *UNITS]), "amount": self.one([0, 1, 9, 100])})
        floor = 0 if self.chance(0.95) else self.now + self.one([-5, 0, 60])
        made: dict[str, Json] = {"floor": floor, "shared": self.chance(0.6), "spent": spent}
        places = [place for place, step in enumerate(token.steps) if "marks" in step.get("link", {})]
        if (places or self.watched) and self.chance(0.6):
            of = [*places, 0, *(["e0", "e1"] if self.watched else [])]
            made["marks"] = [{"mark": self.one(MARKS), "of": self.one(of)} for _ in range(self.one([1, 2, 3]))]
        return made | ({"down": True} if self.chance(0.01) else {})


def listed(link: Mapping[str, Json], key: str) -> list[dict[str, Json]]:
    """The objects in a list of a link, if it is one."""
    return [one for one in link[key] if isinstance(one, dict)] if isinstance(link.get(key), list) else []


APPROVERS = {name: build.b64(build.signing_public(name)) for name in ("clerk", "jane")}
NOT_OF_ENTRIES = {"task", "uses", "budget", "depth", "delegate_only", "consent"}
NOT_OF_DISCHARGES = NOT_OF_ENTRIES - {"task"} | {"marks", "forbid"}
