"""What people, machines and agents read, word for word, as `messages.golden` has it: `python -m tests.test_messages` writes it anew.

Whoever changes a word sees here what a reader will see. None of it is a promise: programs compare types and codes.
"""

from __future__ import annotations

import ast
import asyncio
import http
import json
import logging
import pickle
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
import pytest
from msgspec import structs

from captoken import (
    Access,
    AsyncVerifier,
    CaptokenError,
    Decision,
    Denied,
    Issuer,
    Keyring,
    Token,
    TokenFormatError,
    Verifier,
    proof,
)
from captoken._format import clocks, names, packet, primitives, public_keys, signed
from captoken._format import text as travelling
from captoken._format.encoding import b64decode, b64encode, encode_json, own_words
from captoken._format.parts import Packet
from captoken._format.root import RootRecord
from captoken._format.spelling import escape, spelled, until
from captoken._language.access import Caller
from captoken._language.capability import rights_of
from captoken._language.caveats import V1, Vocabulary
from captoken._language.constraints import CONSTRAINT_KEYS, completed, read_constraint
from captoken._language.costs import charged_once
from captoken._language.kinds import Caveat, Situation
from captoken._language.lineage import step
from captoken._language.link import Lineage
from captoken._language.links import read_link
from captoken._language.overlay import Overlay, delta, snapshot
from captoken._verification.consents import read_request
from captoken._verification.verifier import VerifierOptions
from captoken._verification.wording import told_to_model
from captoken._writing.keywords import UNSET, MintCaveats
from captoken.control import Operator
from captoken.discharge import Allow, Discharger
from captoken.errors import CODES, GuardError, IssuanceError, Refused
from captoken.keys import DischargerKey, HolderKey, OperatorKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from captoken.stores.ports import Once
from captoken.testing import FixedClock, fixed_random
from tests import test_marking
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, data, mint, tool, verifier
from tests.mutation.rooms import KERNEL
from tests.test_widening import Region
from tests.vectors import adapter, runner

TOLD = Path(__file__).parent / "messages.golden"

HOLDER = HolderKey.from_bytes(bytes(range(5, 37)))
DISCHARGER = DischargerKey.from_bytes(bytes(range(6, 38)))
OPERATOR = OperatorKey.from_bytes(bytes(range(7, 39)))
TOOLS = {
    "refund": {"cents": {"max": 1000}, "to": {"in": ["ann", "bob"]}},
    "files.*": {"path": {"path": ["/a", "/b"]}, "n": {"any": True, "optional": True}},
}
OWN = Vocabulary(Region)


# --- decisions ------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """One question to a verifier."""

    name: str
    token: Token | str
    access: Access | None
    facts: dict[str, Any] = {}
    caller: Caller | None = None


def asked() -> Iterator[Asked]:
    """At least one for each code that a verifier gives to a token alone, or with a store."""
    held = mint()
    text = held.serialize()
    yield Asked("allowed", held, data("sales"))
    yield Asked("allowed, after a hand-over", held.delegate(to="reader", tables=["sales"]), data("sales", "select", "region"))
    yield Asked("the token itself", held, None)
    for name, bad in {
        "nothing": "",
        "cut": text[:40],
        "changed": text[:-2] + "AA",
        "other letters": text.replace("A", "+"),
    }.items():
        yield Asked(name, bad, data("sales"))
    yield Asked(
        "an unknown key",
        Issuer(Keyring.generate(), clock=clock()).mint(subject="u", agent="a", task="t", **SALES),
        data("sales"),
    )
    for name, body in {
        "what is no JSON": b"exp < 5",
        "an own caveat": b'{"acme:region":["eu"]}',
        "an odd one": b'{"exp":"soon"}',
    }.items():
        yield Asked(name, held.with_raw_link(body), data("sales"))
    handed = b'{"from":"nobody","to":"x"}'
    yield Asked("a hand-over by another", held.with_raw_link(handed), data("sales"))
    yield Asked(
        "a hand-over too many", mint(**SALES, depth=0).with_raw_link(b'{"from":"orchestrator","to":"x"}'), data("sales")
    )
    yield Asked("for handing on", mint(**SALES, delegate_only=True), data("sales"))

    yield Asked("expired", mint(**SALES, expires_at=NOW - 5), data("sales"))
    yield Asked("not yet", mint(**SALES, not_before=NOW + 5), data("sales"))
    yield Asked("for another server", mint(**SALES, audience=["db", "db2"]), data("sales"), {"audience": "crm"})
    yield Asked("for nobody", held, data("sales"), {"audience": "crm"})
    yield Asked("for tasks apart", held.with_raw_link(b'{"task":"task-123/a"}').with_raw_link(b'{"task":"task-123/b"}'), data("sales"))
    yield Asked(
        "for another task",
        held.attenuate(task="task-123/part"),
        data("sales"),
        caller=Caller(agent="orchestrator", task="task-9"),
    )
    yield Asked("from another agent", held, data("sales"), caller=Caller(agent="mallory"))

    yield Asked("table", held.attenuate(tables=["sales"]), data("hr"))
    yield Asked("operation", held, data("sales", "delete"))
    columns = mint(**SALES, columns={"sales": ["region", "amount"]})
    yield Asked("column", columns, data("sales", "select", "region", "pay"))
    yield Asked("columns unstated", columns, data("sales"))
    yield Asked("a tool, of tables", held, tool("refund"))
    yield Asked("a table, of tools", mint(tools=TOOLS), data("sales"))
    yield Asked("tool", mint(tools=TOOLS), tool("shell"))
    for name, arguments in {
        "too much": {"cents": 1001, "to": "ann"}, "a text": {"cents": "5", "to": "ann"}, "another": {"cents": 5, "to": "eve"},
        "unknown": {"cents": 5, "to": "ann", "note": "x"}, "unstated": {"cents": 5},
    }.items():  # fmt: skip
        clerk = mint(tools=TOOLS).delegate(to="clerk", tools={"refund": {"cents": {"max": 500}, "to": {"in": ["ann"]}}})
        yield Asked(f"argument, {name}", clerk, tool("refund", **arguments))
    yield Asked(
        "argument, an odd name", mint(tools={"pay": {"n": {"any": True}}}), Access(tool="pay", arguments={"n": 1, "`a`{b}": 1})
    )
    values = {
        "n": 1.5, "most": float(2**53 - 1), "over": float(2**53), "least": -float(2**53 - 1), "under": -float(2**53), "list": [1, "a", True],
        "deep": [[1], [2.5, 3]], "mixed": [1, None], "none": None, "flag": True, "text": "x" * 300, "map": {"a": 1}, "nothing": [], "each": ["a", "b"] * 9,
    }  # fmt: skip
    yield Asked("arguments of all kinds", mint(tools={"x": {}}), Access(tool="pay", arguments=values))
    yield Asked(
        "attributes of all kinds",
        mint(**SALES, where={"x": {"in": [1]}}),
        Access(table="sales", operation="select", attributes=values),
    )
    yield Asked("argument, a path", mint(tools=TOOLS), tool("files.read", path="/etc/passwd"))
    where = mint(**SALES, where={"region": {"in": ["eu"]}, "hour": {"min": 8, "max": 18}})
    yield Asked("attribute", where, data("sales", region="us", hour=3))
    yield Asked("attributes unstated", where, data("sales"))

    bound = mint(**SALES, key=HOLDER.public, audience="db")
    facts = {"audience": "db", "replays": MemoryReplayStore(clock=clock())}
    request = data("sales")
    unspelled = data("sales", x=10**5000)
    yield Asked(
        "a proof of what nobody can spell",
        bound.present(audience="db", signer=HOLDER, request=bytes(32), clock=clock()),
        unspelled,
        facts,
    )
    yield Asked("no proof", bound, request, facts)
    proven = bound.present(audience="db", signer=HOLDER, request=request, clock=clock())
    yield Asked("a proof", proven, request, facts)
    yield Asked("a proof again", proven, request, facts)
    yield Asked("a proof of another request", proven, data("market.eu"), facts)
    yield Asked("a proof, and nowhere to note it", proven, request, {"audience": "db"})

    counted = mint(**SALES, uses=1, budget={"usd_cents": 5})
    ledger = {"ledger": MemoryLedger(clock=clock(), floor=0), "audience": "db"}
    paid = Access(table="sales", operation="select", cost={"usd_cents": 3})
    yield Asked("counted, nowhere", counted, paid)
    yield Asked("counted, for nobody", counted, paid, ledger)
    for_one = mint(**SALES, uses=1, budget={"usd_cents": 5}, audience="db")
    yield Asked("cost unstated", for_one, data("sales"), ledger)
    yield Asked("counted", for_one, paid, ledger)
    yield Asked("used up", for_one, paid, ledger)

    asks = held.require(DISCHARGER.public, need={"approve": "payment"}, location="https://approvals.example")
    yield Asked("a consent that is missing", asks, data("sales"))
    for name, ago, lives in (("a consent", 0, 60), ("a consent that is over", 9, 1)):
        given = Discharger(DISCHARGER, lambda need, lives=lives: Allow(expires_in=lives), clock=FixedClock(NOW - ago))
        ready = asks.with_discharge(given.discharge(asks.needs[0]))
        yield Asked(name, ready, data("sales"))

    for name, act in ACTS.items():
        overlay = published(partial(act, held=held), name)
        late = {"clock": FixedClock(NOW + 90), "max_staleness": 60} if name == "an old snapshot" else {}
        yield Asked(name, held, data("sales"), {"overlay": lambda overlay=overlay: overlay, **late})
    old = published(Operator.renew, "old", NOW - 30)
    for seconds in (10, 30, 31):
        yield Asked(f"fresh within {seconds}", held.attenuate(fresh=seconds), data("sales"), {"overlay": lambda: old})
    yield Asked("fresh, and no overlay", held.attenuate(fresh=10), data("sales"))
    for recorded in (held.attenuate(audience="db"), counted.attenuate(audience="db")):
        yield Asked(
            "a trail that fails",
            recorded,
            paid,
            {"audit": Full(), "ledger": MemoryLedger(clock=clock(), floor=0), "audience": "db"},
        )
    yield Asked("no snapshot", held, data("sales"), {"overlay": lambda: None})
    yield Asked("no facts of the moment", held, data("sales"), {"context": lambda issued: {}[issued.task]})
    yield Asked("a fact of both", held, data("sales", threat="low"), {"context": lambda _: {"threat": "low"}})


def published(act: Callable[[Operator], object], name: str = "", at: int = NOW) -> Overlay:
    """The overlay after what an operator did."""
    store = MemorySnapshots()
    act(Operator(OPERATOR, store, by="ops@example", clock=FixedClock(at), random=fixed_random(name)))
    return Overlay.open(store.load() or b"", [OPERATOR.public])


class Full:
    """A trail on a disk that is full."""

    def record(self, decision: Decision) -> None:
        raise OSError("no space left")

    def record_all(self, decisions: Sequence[Decision]) -> None:
        raise OSError("no space left")


ACTS: dict[str, Callable[..., object]] = {
    "an overlay": lambda operator, held: operator.renew(),
    "an old snapshot": lambda operator, held: operator.renew(),
    "revoked": lambda operator, held: operator.revoke(token=held.unverified.root.token_id, why="lost laptop"),
    "a task that is over": lambda operator, held: operator.revoke(task="task-123", why="done", until=NOW + 60),
    "narrowed": lambda operator, held: operator.narrow(agent="orchestrator", tables=["hr"], operations=["*"], why="only hr"),
}


def decisions() -> Iterator[str]:
    for name, token, access, facts, caller in asked():
        server = verifier(**facts)
        dry = server.explain(token, access, caller=caller)
        decision = dry if access is None else server.check(token, access, caller=caller)
        yield f"## {name}"
        yield decision.report(values=True)
        yield repr(decision)
        yield f"to an agent: {decision.for_model()}"
        limits = decision.for_model(tell_limits=True, declares=["to", "cents"])
        if limits != decision.for_model():
            yield f"with limits: {limits}"
        yield f"needs: {decision.needed}"
        yield json.dumps({**decision.as_dict(), "id": "id" if decision.id else None})
        yield f"dry {dry.dry} {dry.as_dict()['committed']} {decision.leeway}: " + "; ".join(
            f"{step.number} {step.outcome} {step.detail}" for step in dry.steps[6:]
        )


def models() -> Iterator[str]:
    """What an agent is told of each code, of an access and without one."""
    for name in CODES:
        yield f"{name}: {CODES[name].public} | {CODES[name].kind} {CODES[name].step}"
        for access in (data("sales"), tool("pay", cents=5), None):
            yield f"    {told_to_model(name, access, proven=False)}"
        yield f"    {told_to_model(name, data('sales'), proven=True)}"


# --- words ----------------------------------------------------------------------------------------

CONSTRAINTS: list[Any] = [
    {"any": True}, {"in": ["eu", 1, True]}, {"min": 0, "max": 5}, {"max": 5}, {"min": 5}, {"path": ["/a", "/b"]}, {"prefix": ["rep-"]},
    {"url": ["https://*.example.com/reports"]}, {"cidr": ["10.0.0.0/8", "2001:db8::/32"]}, {"each": {"in": ["x"]}, "most": 3},
    {"each": {"min": 1, "max": 2}}, {"in": ["x"], "optional": True}, {"in": []}, {"any": True, "optional": True},
]  # fmt: skip
CAVEATS: list[tuple[str, Any]] = [
    ("tables", ["sales", "market.*"]), ("tables", ["*"]), ("tables", []), ("operations", ["select", "insert"]), ("operations", ["*"]),
    ("allow", {"sales": ["select"], "hr": []}), ("allow", {"*": ["*"]}), ("columns", {"sales": ["region"], "hr": ["*"], "x": []}),
    ("tools", {}), ("tools", {"ping": {}, "pay": {"cents": {"min": 0, "max": 5}, "to": {"in": ["ann"], "optional": True}}}),
    ("where", {"region": {"in": ["eu"]}, "hour": {"min": 8, "max": 18}}), ("exp", NOW), ("exp", NOW + 1), ("exp", NOW + 90),
    ("exp", NOW + 7200), ("exp", NOW + 200000), ("nbf", NOW), ("nbf", NOW + 90), ("nbf", NOW - 90), ("aud", ["db"]), ("aud", ["a", "b"]),
    ("aud", []), ("task", "task-123/part"), ("uses", 0), ("uses", 1), ("uses", 2), ("budget", {"usd_cents": 5, "rows": 100}), ("fresh", 30),
    ("fresh", 0), ("marks", test_marking.MARKS), ("forbid", [{"in": ["a", "b"], "after": ["c", "d"]}]),
    ("forbid", [{"in": ["a"], "after": ["b"], "unless": HOLDER.public}]), ("consent", [{"by": HOLDER.public, "for": {"tools": ["mail.*"]}}]),
    ("rows", {"orders": {"tenant": {"in": ["acme"]}, "year": {"min": 2024}}, "countries": {}, "hr.*": {"x": {"any": True}}}),
    ("tools", {"pay": {"to": {"each": {"in": []}, "most": 0, "optional": True}}}), ("tools", {"pay": {"to": {"in": [], "optional": True}}}),
]  # fmt: skip


# What no constraint is made of, by its key.
ILL: dict[str, list[Any]] = {
    "url": [
        "https://A.example/", "https://a..b/", "https://a.b./", "https://*", "https://*.*.a/", "https://a*.b/", "https://10.0.0.07/", "https://10.0.0/",
        "https://[::1/", "https://[::ffff:a00:7]/", "https://a:443/", "https://a:0/", "https://a:65536/", "https://a:x/", "https://u@a/", "https://a/?q",
        "https://a/#f", "https://a//b", "https://a/./b", "https://a/..", "https://a/%2e", "https://a/%zz", "https://a/b c", "https://\u00e9/", "ftp://a/", "a/b",
        "https:///", "https://", "https://" + "a" * 64 + "/", "https://a/" + "x" * 2048, "https://-a.b/", "https://a_b/", "https://a.7/", 7, "",
    ],
    "cidr": ["10.0.0.0", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/08", "010.0.0.0/8", "::/129", "::1/64", "::ffff:10.0.0.0/104", "x/8", "10.0.0.0/", "", 7, "FE80::/10"],
    "path": ["", "a", "/a/", "/a//b", "/./a", "/../a", "/a/..", "/a\u202e", 7, "//"],
    "prefix": ["", " a", "a ", "a\u202e", 7],
    "in": [None, 1.5, [], {}, 2**53, "\u202e", "a" * 300],
    "each": [7, {"each": {"each": {"any": True}}}, {}, {"x": 1}],
}  # fmt: skip


def ill() -> Iterator[str]:
    """Why no constraint is made of it."""
    for key, values in ILL.items():
        for value in values:
            given = {key: value if key == "each" else [value]}
            yield from attempted(f"{key} {str(value)[:40]!r}", lambda given=given: str(read_constraint(given)))
    for given in (
        {"min": 1},
        {"max": 1},
        {"min": 1.5, "max": 2},
        {"min": 0, "max": 2**53},
        {"each": {"any": True}, "most": -1},
        {"each": {"any": True}, "most": "x"},
        {"any": 1},
    ):
        yield from attempted(f"{given}", lambda given=given: str(read_constraint(given)))
    for changed in test_marking.UNREADABLE:
        given = {**test_marking.RULE_OF_TWO, **changed}
        yield from attempted(str(changed)[:90], lambda given=given: str(mint(**SALES, **given)))
    for changed in test_marking.UNREADABLE + test_marking.REPEATED:
        link = read_link(encode_json({**test_marking.RULE_OF_TWO, **changed, "n": "AAAAAAAAAAA"}), V1)
        yield f"{str(changed)[:90]}: {getattr(link, 'text', link)}"


def words() -> Iterator[str]:
    """What each caveat says for people, and each constraint."""
    for value in CONSTRAINTS:
        yield from attempted(json.dumps(value), lambda value=value: read_constraint(value).words())
    for key, value in CAVEATS:
        caveat = V1.kinds[key](value)
        for beside in ({}, {"operations": V1.kinds["operations"](["select"])}):
            yield f"{key} {json.dumps(value)}: {list(caveat.words(NOW, beside))}"


def failing() -> Iterator[str]:
    """Why a value of an argument, and of an attribute, will not do, and how many of these are told so."""
    for value in CONSTRAINTS:
        token = mint(tools={"pay": {"it": value}})
        named = mint(**SALES, where={"it": value}) if "optional" not in value else mint()
        told: Counter[str] = Counter()
        for given in ("x", "/c", "rep", "http://a", "10.0.0", 7, -1, 1.5, True, None, [], ["y"], {}, ["x"] * 4):
            refused = verifier().check(token, tool("pay", it=given)), verifier().check(named, data("sales", it=given))
            told.update(f"{decision.line()} | {decision.summary}" for decision in refused if not decision)
        yield from (f"{json.dumps(value)}: {text} ({count})" for text, count in told.items())


def shown() -> Iterator[str]:
    """What a debugger shows: nothing that is secret. And what errors carry, and accesses cost."""
    held = mint()
    for error in (
        Refused("why", "told", kind="proof", here=True),
        GuardError("why", "outcome_unknown"),
        IssuanceError("why", "policy", "log"),
    ):
        yield f"{error} {vars(error)} {error.code}"
    yield str(charged_once([data("sales"), data("hr")], {"eur": 3, "rows": 1}))
    for body in (b'{"from":"orchestrator","n":"AAAAAAAAAAA","to":"x"}', b'{"from":"nobody","n":"AAAAAAAAAAA","to":"x"}'):
        yield str(step(Lineage(("orchestrator",)), read_link(body, V1)))
    for key in ("region", "tables", "acme:region", 7):
        yield from attempted(
            f"a caveat called {key}", lambda key=key: repr(Vocabulary(type("Odd", (Region,), {"key": key}), Region))
        )
    odd: Any = "noon"
    yield from attempted("a clock that gives text", lambda: verifier(clock=lambda: odd).check(held, data("sales")))
    yield from attempted("a keyring that is none", lambda: Issuer(lambda: odd).mint(**WHO, **SALES))
    yield from attempted("a keyring that is none", lambda: Verifier(lambda: odd).check(held, data("sales")))
    yield str(rights_of({"tables": ["sales"], "operations": ["select"], "columns": {"sales": ["region"]}}))
    asks = held.require(DISCHARGER.public, need={"approve": "payment"})
    given = Discharger(DISCHARGER, lambda need: Allow(expires_in=60), clock=clock()).discharge(asks.needs[0])
    server = verifier(audience=["db", "a"])
    yield from map(repr, (
        held, held.unverified, held.unverified.capability, mint(**SALES, audience="db", uses=3).unverified.capability,
        mint(tools=TOOLS).unverified.capability, held.attenuate(tables=[]).unverified.capability, held.presented_parts().packet,
        Issuer(KEYRING), KEYRING, verifier(), server, AsyncVerifier(KEYRING), V1, OWN, asks.needs[0], given, UNSET, server.authorize(held.present(audience="db", clock=clock()), data("sales")),
        published(Operator.renew), HOLDER, DISCHARGER, OPERATOR, data("sales"), tool("pay", cents=5),
    ))  # fmt: skip


# --- errors ---------------------------------------------------------------------------------------

KEYWORDS = (*sorted(MintCaveats.__annotations__), "task", "keep", "clamp", "colour", "acme:region")
ODD: tuple[Any, ...] = (
    None, 7, -1, 2**53, 1.5, True, False, "", "a b", "x", "a..b", "\u202e", [], ["a b"], ["x", 7], {}, {"a b": []}, {"x": 7}, {"x": ["a b"]}, {"x": {"y": 7}}, {"x": {"y": {}}},
    {"x": {"y": {"in": 7}}}, {"x": {"y": {"min": "a"}}}, {"x": {"y": {"min": 2, "max": 1}}}, {"x": {"in": [None]}}, {"x": {"in": [["a"]]}}, {"x": {"path": ["a"]}}, {"x": {"prefix": [""]}},
    {"x": {"url": ["ftp://a"]}}, {"x": {"cidr": ["10.0.0.1/8"]}}, {"x": {"each": {"each": {"each": {"any": True}}}}}, {"x": {"most": 3}}, {"x": -1}, {"uses": 1}, object,
)  # fmt: skip
SELECT = ("token", "link", "task", "agent", "subject", "kid", "issued_before", "why", "until")
TOKEN_ID = mint().unverified.root.token_id
STORES = {"ledger", "replays", "audit"}  # of these any object may be one
FACTS = Access.__struct_fields__


def attempted(what: str, call: Callable[[], object]) -> Iterator[str]:
    """What is said where a call is a mistake, or asks for too much; and what it gives, if that is a text."""
    try:
        said = call()
        if isinstance(said, str) and not said.startswith("cap1"):
            yield f"{what}: {said}"
    except (CaptokenError, TypeError, ValueError) as error:
        yield f"{what}: {type(error).__name__}: {error}"


def answers(call: str, made: Callable[[Any], object], values: Iterable[Any]) -> Iterator[str]:
    """What is said of the values: of which first, and of how many."""
    first: dict[str, str] = {}
    told: Counter[str] = Counter()
    for value in values:
        for text in attempted(call, partial(made, value)):
            first.setdefault(text, repr(value)[:60])
            told[text] += 1
    yield from (f"{text} (of {first[text]}, {count})" for text, count in told.items())


IN_ENTRIES = ("allow", "columns", "rows", "tools", "where", "budget")


def mistakes() -> Iterator[str]:
    """Each argument with what is no value of it: what is said, of which value first, and of how many."""
    wide = mint(tables=["*"], operations=["*"], tools={"*": {}}, expires_at=NOW + 86400)
    issuer = Issuer(KEYRING, clock=clock(), random=fixed_random("x"))
    operator = Operator(OPERATOR, MemorySnapshots(), by="ops@example", clock=clock(), random=fixed_random("x"))
    calls: list[tuple[str, Callable[[str, Any], object], Iterable[str]]] = [
        ("attenuate", lambda name, value: wide.attenuate(**{name: value}), KEYWORDS),
        ("attenuate in", lambda name, value: wide.attenuate(**{name: {"sales": value}}), IN_ENTRIES),
        ("attenuate deep in", lambda name, value: wide.attenuate(**{name: {"sales": {"a": value}}}), ("tools", "rows", "columns")),
        ("mint", lambda name, value: mint(**SALES | {name: value}), KEYWORDS),
        ("mint", lambda name, value: issuer.mint(**{**WHO, **SALES, name: value}), (*WHO, "key", "ext", "unrestricted")),
        ("Access", lambda name, value: Access(**{"table": "sales", "operation": "select", name: value}), FACTS),
        ("Caller", lambda name, value: Caller(**{"agent": "a", name: value}), ("agent", "task")),
        ("Verifier", lambda name, value: Verifier(KEYRING, **{name: value}), sorted({"audience", *VerifierOptions.__annotations__} - STORES)),
        ("delegate", lambda name, value: wide.delegate(**{"to": "x", name: value}), ("to", "key", "signer")),
        ("present", lambda name, value: wide.present(**{"audience": "db", "clock": clock(), name: value}), ("audience", "expires_in", "signer", "request")),
        ("require", lambda name, value: wide.require(**{"discharger": DISCHARGER.public, "need": {"a": "b"}, name: value}), ("discharger", "need", "location")),
        ("revoke", lambda name, value: operator.revoke(**{"token": TOKEN_ID, "why": "lost", name: value}), SELECT),
        ("parse", lambda _, value: Token.parse(value), ("text",)),
    ]  # fmt: skip
    for call, made, arguments in calls:
        for name in arguments:
            yield from answers(f"{call} {name}", partial(made, name), ODD)


NEARLY: tuple[Any, ...] = (
    b"", b"x", bytes(32), bytes(64), "caf\u00e9", "\ud800", "acme:region", "5m", "1h30m", "5", 0, 0.5, -0.5, 2**53 - 1, 1 - 2**53, 1 << 70, float("nan"), float("inf"),
    datetime(2026, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 900_000, UTC), datetime(2026, 1, 1), b64encode(bytes(32)), HOLDER.public,
    HOLDER.public[:-1], DISCHARGER.public, "sales", "sales.*", "*", "a/../b", "a\u0301", "a" * 300,
)  # fmt: skip
LIKE_EVIDENCE = {"key": b64encode(bytes(32)), "state": b64encode(bytes(32)), "body": "{}", "signature": b64encode(bytes(64))}


def same(answer: Any, value: Any) -> str:
    return "as it was given" if answer == value else str(answer)


class Signs(NamedTuple):
    """A signer, of whose signature anything may be."""

    signature: Any
    public: Any = HOLDER.public

    def sign(self, message: bytes) -> Any:
        return self.signature


def given() -> Iterator[str]:
    """What the functions below the writers say of an argument, and answer."""
    values = (*ODD, *NEARLY)
    bound = mint(**SALES, key=HOLDER.public)
    http, mcp = {"method": "GET", "origin": "https://a.example", "target": "/a?b"}, {"method": "tools/call", "name": "pay"}
    at = {"audience": "db", "expires_in": 60, "clock": clock()}
    for name in ("method", "origin", "target", "body"):
        yield from answers(f"http_request {name}", lambda value, name=name: proof.http_request(**{**http, name: value}).hex()[:16], values)
    for name in ("method", "name", "arguments"):
        yield from answers(f"mcp_request {name}", lambda value, name=name: proof.mcp_request(**{**mcp, name: value}).hex()[:16], values)
    yield from answers("request_digest", lambda value: proof.request_digest(value).hex()[:16], values)
    yield from answers("a request", lambda value: str(len(bound.present(signer=HOLDER, request=value, **at))), values)
    yield from answers("a signature", lambda value: str(len(bound.present(signer=Signs(value), **at))), values)
    yield from answers("a signer's key", lambda value: str(len(bound.present(signer=Signs(bytes(64), value), **at))), values)
    yield from answers("a clock", lambda value: str(len(bound.present(signer=HOLDER, **{**at, "clock": lambda: value}))), values)
    yield from answers("evidence", lambda value: str(proof.Evidence.from_dict(value)), values)
    yield from answers("consents", lambda value: str(len(bound.present(consents=value, **at))), ("", [], [""], ["cap1a_x"], ["cap1p_x"], 1, HOLDER.public))
    yield from answers("a request for a consent", lambda value: str(read_request(value)), values)
    for name in LIKE_EVIDENCE:
        yield from answers(f"evidence {name}", lambda value, name=name: proof.Evidence.from_dict({**LIKE_EVIDENCE, name: value}).as_dict(), values)
    yield from answers("read_clock", lambda value: str(clocks.read_clock(lambda: value)), values)
    yield from answers("duration", lambda value: str(clocks.duration(value)) if isinstance(value, str) else None, values)
    yield from answers("epoch_seconds", lambda value: str(clocks.epoch_seconds(value, "a moment")), values)
    yield from answers("signing_key", lambda value: public_keys.signing_key(value).hex(), values)
    yield from answers("exchange_key", lambda value: public_keys.exchange_key(value, "a key").hex(), values)
    for check in (names.name, names.namespaced, names.task, names.free_name, names.segmented, names.pattern, names.encoded, names.exact_str, names.frozen_copy):
        yield from answers(check.__name__, lambda value, check=check: same(check(value, "what is given"), value), (*ODD[:13], *NEARLY))
    yield from answers("Vocabulary", Vocabulary, ODD[:2])
    access = Access(table="sales", operation="select")
    yield from answers("composed", names.composed, values)
    for act in (lambda: setattr(access, "table", "hr"), lambda: delattr(access, "table"), lambda: setattr(V1, "x", 1), lambda: delattr(V1, "x")):
        with pytest.raises(AttributeError) as caught:
            act()
        yield f"immutable: {caught.value}"
    genuine = verifier().authenticate(mint().serialize())
    for sealed in (bound, bound.unverified, V1, KEYRING, HOLDER, genuine, genuine._genuine):
        with pytest.raises(TypeError) as refused:
            pickle.dumps(sealed)
        yield f"pickled: {refused.value}"


def standing() -> Iterator[str]:
    """What a grant and its other face answer: to what is no question, and to one that goes on from it."""
    held = mint(**SALES, uses=9, budget={"eur": 90}, audience="db")
    server = verifier(audience="db", ledger=MemoryLedger(clock=clock(), floor=0), random=fixed_random("standing"))
    grant = server.authorize(
        held.present(audience="db", clock=clock()), Access(table="sales", operation="select", cost={"eur": 1})
    )
    yes, no, odd = (
        Access(table="sales", operation="select", cost={"eur": 2}),
        Access(table="hr", operation="select", cost={"eur": 2}),
        Caller(agent="mallory", task="task-9"),
    )

    async def awaited(name: str, given: Sequence[Any], options: dict[str, Any]) -> Any:
        return await getattr(grant.awaited, name)(*given, **options)

    def asked_of(name: str, given: Sequence[Any], options: dict[str, Any]) -> Iterator[str]:
        what = f"{name} {str(given).replace(str(yes), 'yes').replace(str(no), 'no')} {options!r}"
        yield from attempted(what, lambda: brief(getattr(grant, name)(*given, **options)))
        yield from attempted(f"await {what}", lambda: brief(asyncio.run(awaited(name, given, options))))

    strange: list[dict[str, Any]] = [{}, {"caller": odd}, {"caller": "x"}]
    for options in strange:
        for name in ("check", "authorize", "explain", "reserve"):
            for one in (yes, no, None, 7):
                yield from asked_of(name, [one], options)
        for name in ("recheck", "check_all", "reserve_all"):
            for many in ([yes], [yes, no], [], [None], 7):
                yield from asked_of(name, [many], options)
    for once in (Once(bytes(16), 60), Once(bytes(15), 60), Once(bytes(16), 59), bytes(16)):
        yield from asked_of("reserve", [yes], {"once": once})
    for units in (["eur", "uses", "usd"], ["a b"], [], "eur", 7):
        yield from asked_of("left", [units], {})
    for code in ("attribute", "no_code", "allowed"):
        for access in (None, no, 7):
            yield from asked_of("deny", [code, "by the server", access], {})


def brief(answer: Any) -> str:
    """A decision in all that it says; of anything else its kind."""
    if isinstance(answer, Decision):
        return f"{answer.line()}; {answer.caller} {answer.effects} {answer.dry} {answer.step}"
    return f"{answer}" if isinstance(answer, dict) else type(answer).__name__


RIGHTS = {"tables", "operations", "allow", "columns", "tools"}


def wider() -> Iterator[str]:
    """What is said where more is asked for than is held, and where a clamp would leave nothing."""
    held = mint(
        **SALES, columns={"sales": ["region"]}, tools=TOOLS, where={"hour": {"min": 8, "max": 18}}, audience=["a", "b"], uses=5, budget={"eur": 5},
        fresh=30, depth=1, not_before=NOW, expires_at=NOW + 900, delegate_only=True,
    )  # fmt: skip
    asked: list[dict[str, Any]] = [
        {"tables": ["hr"]}, {"tables": ["hr", "sales"]}, {"operations": ["delete"]}, {"allow": {"hr": ["select"]}}, {"columns": {"sales": ["pay"]}}, {"tools": {"shell": {}}},
        {"tools": {"refund": {}}}, {"tools": {"refund": {"cents": {"max": 2000}, "to": {"in": ["ann"]}}}}, {"tools": {"refund": {"cents": {"max": 5}, "to": {"in": ["eve"]}, "x": {"any": True}}}},
        {"where": {"hour": {"min": 0, "max": 24}}}, {"where": {"hour": {"min": 20, "max": 24}}}, {"audience": ["c"]}, {"audience": ["a", "c"]}, {"uses": 6}, {"budget": {"eur": 6, "usd": 1}},
        {"fresh": 60}, {"depth": 2}, {"not_before": NOW - 1}, {"expires_at": NOW + 901}, {"task": "other"}, {"task": "task-1234"}, {"delegate_only": False},
    ]  # fmt: skip
    for given in asked:
        for clamp in (False, True):
            options: dict[str, Any] = {"keep": ("tables", "tools") if RIGHTS & given.keys() else (), "clamp": clamp}
            calls: list[tuple[str, Callable[..., Token | str]]] = [
                ("attenuate", held.attenuate),
                ("delegate", partial(held.delegate, to="x")),
                ("present", held.present),
            ]
            for name, call in calls:
                more = {"audience": "a", "clock": clock()} if name == "present" else {}
                yield from attempted(
                    f"{name} {given} clamp={clamp}", lambda call=call, given={**given, **more, **options}: left(call(**given))
                )
    for most in (10, 400):
        yield from attempted(f"present in {most}", lambda most=most: held.present(audience="a", max_chars=most, clock=clock()))
        yield from attempted(f"show in {most}", lambda most=most: held.presentation(audience="a").text(most))
    child = held.delegate(to="reader", tables=["sales"], operations=["select"])
    yield from attempted("back to a holder", lambda: child.delegate(to="orchestrator"))
    yield from attempted("too deep", lambda: child.delegate(to="another"))


class Elsewhere(Caveat, frozen=True):
    key = "acme:x"
    domain = "network"  # type: ignore[assignment]


def below() -> Iterator[str]:
    """What the kernel says of mistakes that are refused before they come to it, and how it shows what it has."""
    looped: list[Any] = []
    looped.append(looped)
    for value in (1.5, None, 2**53, {5: 1}, {"a": ()}, ["\ud800"], b"x", looped):
        yield from attempted(f"encode_json {type(value).__name__}", lambda value=value: encode_json({"value": value}))
    for odd in ("A", "AA==", "A+AA", "AAAA ", "AB", "\u00e9AAA"):
        yield from attempted(f"b64decode {odd}", lambda odd=odd: b64decode(odd).hex())
    for value in (5, "caf\u00e9", "a", "\ud800", True, 2**53, -(2**53), None):
        yield from attempted("ext", lambda value=value: Issuer(KEYRING, clock=clock()).mint(**WHO, **SALES, ext={"acme:x": value}))
    record = RootRecord(subject="u", agent="a", task="t", token_id=b64encode(bytes(16)), issued_at=NOW, key_id="k1", version=1)
    for field, values in (("subject", ("a b", 5)), ("token_id", ("A" * 21 + "B",)), ("audience", ("a b", "s")), ("version", (2,)), ("task", ("a//b", "."))):
        for value in values:
            yield from attempted(f"root {field}", lambda field=field, value=value: structs.replace(record, **{field: value}).encode().decode())
    for secret in ("x" * 32, bytes(31), bytes(32), bytes(range(32))):
        yield f"problem_with: {primitives.problem_with(secret)}"
    for key in (HOLDER, OPERATOR, "A" * 42, "A" * 43 + "\n", bytes(31), 5):
        yield from attempted("public_bytes", lambda key=key: public_keys.public_bytes(key, "a key").hex())  # type: ignore[arg-type]
    for odd in (bytes(63), bytes(65)):
        yield from attempted("attach", lambda odd=odd: signed.attach(b"{}", odd))
    for odd in (b"", bytes(87), b"{}" + bytes(87), b"{}." + b"A" * 85 + b"E", b"{}." + b"A" * 85 + b"\xff"):
        yield from attempted("split", lambda odd=odd: str(signed.split(odd)))
    for size in (0, 32_768):
        yield from attempted("encode", lambda size=size: packet.encode(Packet(b"x" * size, (), bytes(32))))
    for value in (5, "cap1_AA", "cap1d_", "cap1u_", "x" * 8193):
        for prefix in (travelling.BOUND, travelling.UNBOUND):
            yield from attempted(f"discharge_of {prefix}", lambda value=value, prefix=prefix: str(travelling.discharge_of(value, prefix)))
    for value in ("cap1d_AA", "Bearer cap1_AA", "BEARER x", "cap2_AA", "caps1_AA"):
        yield from attempted(f"packet_of {value}", lambda value=value: str(travelling.packet_of(value)))
    yield from attempted("packet_of a long set", lambda: str(travelling.packet_of("caps1_" + "x" * 8193)))
    one = Packet(b"i", ((b"x" * 5000, b""),), bytes(32))
    for count in (17, 5):
        yield from attempted("check_bundle", lambda count=count: travelling.check_bundle(one, (one,) * count))
    facts: list[dict[str, Any]] = [
        {"table": "t"}, {"operation": "select"}, {"columns": ["a"]}, {"arguments": {}}, {"table": "t", "operation": "select", "columns": ["*"]},
        *({"tool": "f", "arguments": {"a": value}} for value in (float("nan"), (), {5: 1}, "\ud800", {"\ud800": 1}, looped, [*range(8), ()], {**dict.fromkeys("abcdefgh", 1.5), "i": ()})),
        {"row": {}}, *({"table": "t", "operation": "select", **stated} for stated in ({"rows": 5}, {"rows": [], "row": {}}, {"rows": [], "becomes": None}, {"rows": [{"a": 5}]}, {"row": {"*": 1}})),
        *({"attributes": {"a": value}} for value in (float("inf"), {1}, "\ud800", looped)), {"cost": {"eur": 1.0}}, {"cost": {"eur": -1}}, {"cost": {"e r": 1}},
    ]  # fmt: skip
    for given in facts:
        yield from attempted("Access", lambda given=given: Access(**given))
    others = (Decimal(5), Path("/data"), date(2026, 1, 2), timedelta(1), http.HTTPStatus.OK, uuid.UUID(int=7), object())
    for value in others:
        yield from attempted("Access", lambda value=value: Access(tool="t", arguments={"a": value}))
    for access in (Access(), Access(table="t", operation="select", columns=[]), Access(tool="f", attributes={"\u00e9": 1}, cost={"eur": 1, "dm": 2})):
        yield f"{access.summary}; {access.needed_text()}; {access.needed()}"
    for stated in (5, {}, {"most": 1}, {"in": [1], "max": 5}, {"min": 2, "max": 1}, {"each": {"any": True}, "most": -1}, {"any": False}):
        yield from attempted("read_constraint", lambda stated=stated: read_constraint(stated))
    for key in sorted(CONSTRAINT_KEYS):
        yield from answers(f"read_constraint {key}", lambda odd, key=key: read_constraint({key: odd}), (5, "x", [5], [""], {}, -1, 2**53, None, True))
    for authority in ("[::1]]:80", "[::1", "[::1]x", "[::1]8:8", "a:0", "a:65535", "a:65536", "a:080", "a:", "a:b:1", ":5", "a]:5", "a:443", ""):
        yield from attempted(f"url {authority}", lambda authority=authority: str(read_constraint({"url": [f"https://{authority}"]})))
    for depth in (3, 4):
        rule: Any = {"in": ["a"]}
        for _ in range(depth + 1):
            rule = {"each": rule}
        yield from attempted(f"each in each {depth}", lambda rule=rule: str(read_constraint(rule).words()))
    for read in ({"each": {"any": True}, "most": 0}, {"each": {"in": []}}, {"each": {"max": 5}, "most": 2}, {"min": 1}, {"min": 1, "max": 2}, {"prefix": ["a"]}):
        yield f"words of {read}: {read_constraint(read).words()}"
    yield from attempted("a max alone", lambda: completed({"max": -1}, read_constraint({"any": True})))
    caused = ValueError("ours")
    caused.__cause__ = ValueError("theirs")
    wrapped = msgspec.ValidationError("theirs")
    wrapped.__cause__ = TypeError("ours")
    for error in (caused, wrapped, msgspec.ValidationError("theirs"), UnicodeError("theirs"), TokenFormatError("ours"), RecursionError("theirs")):
        yield f"own_words: {own_words(error)}; {own_words(error, 'other')}"
    torn = V1.kinds["task"]("t/a").normalized().meet(V1.kinds["task"]("t/b").normalized())
    yield f"torn: {torn.prohibits(Access(), Situation(NOW))}"
    for own in (Elsewhere, 5, Caveat):
        yield from attempted("Vocabulary", lambda own=own: Vocabulary(own))  # type: ignore[arg-type]
    yield f"{Caveat(5).prohibits(Access(), Situation(0))}; {Vocabulary(Region, type('B', (Region,), {'key': 'acme:b'}))!r}"
    seen = Overlay.open(snapshot(OPERATOR, [], seq=1, issued_at=NOW), [OPERATOR.public])
    for seq, at, life in ((2**53, NOW, 5), (2, 2**53, 5), (2, NOW, 2**53), (2**53 - 1, NOW, 5), (2, 2**53 - 6, 5)):
        yield from attempted(f"snapshot {seq}", lambda seq=seq, at=at, life=life: snapshot(OPERATOR, [], seq=seq, issued_at=at, life=life))
        yield from attempted(f"delta {seq}", lambda seq=seq, at=at, life=life: str(len(delta(OPERATOR, seen, drop=[], add=[], seq=seq, issued_at=at, life=life))))
    yield from attempted("Overlay.open", lambda: Overlay.open("x", [OPERATOR.public]))  # type: ignore[arg-type]
    yield repr(seen)
    for end in (NOW - 3700, NOW - 1, NOW, NOW + 1, NOW + 90_061, 1 << 60):
        yield f"until: {until(end, NOW)}"
    for char in ("\n", "\x1b", "\x7f", "\x80", "\xa0", "\u2028", "\U000e0100", "\\", "\u00ff", "\u0100"):
        yield f"escape: {escape(char)}"
    yield f"shown: {names.shown(10**5000)}; spelled: {spelled(10**5000)}"
    for size in (79, 80, 81):
        yield f"shown: {names.shown('x' * (size - 2))}; spelled: {spelled('x' * (size + 38))}"


def vectors() -> Iterator[str]:
    """Why each vector fails that does, once for each family: of what is not written by us, but by others."""
    place, begun = adapter._place, CaptokenError.__init__
    for family in runner.families():
        said: dict[str, None] = {}

        def placed(decision: Decision, said: dict[str, None] = said) -> dict[str, Any]:
            if not decision:
                said[decision.summary] = None
            return place(decision)

        def raised(self: CaptokenError, *given: object, said: dict[str, None] = said) -> None:
            begun(self, *given)
            # Of a denial its summary stands here already.
            if not isinstance(self, Denied):
                text = re.sub("'/.*/", "'", str(self))
                said[f"{type(self).__name__}: {text}"] = None

        with patch.object(adapter, "_place", placed), patch.object(CaptokenError, "__init__", raised):
            for vector in family["vectors"]:
                runner.answer(adapter.Captoken(), vector)
        yield from (f"{family['family']}: {line[:200]}" for line in said)


def left(token: Token | str) -> str:
    """All that is held then."""
    parsed = Token.parse(token) if isinstance(token, str) else token
    return f"{parsed.unverified.capability.json()}"


PARTS = (vectors, decisions, models, words, ill, failing, shown, standing, mistakes, given, wider, below)


def transcript(part: Callable[[], Iterator[str]]) -> str:
    lines = "\n".join(part()).splitlines()
    return "\n".join([f"# {part.__name__}", *(line.encode("ascii", "backslashreplace").decode() for line in lines), ""])


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_readers_are_told_what_stands_in_the_file(part: Callable[[], Iterator[str]]) -> None:
    whole = TOLD.read_text("utf-8").split("\n\n")
    recorded = next(each for each in whole if each.startswith(f"# {part.__name__}\n"))
    assert transcript(part).strip() == recorded.strip()


def sentences() -> Iterator[str]:
    """Each literal text of the kernel that has words, but for docstrings."""
    for path in KERNEL.mutated:
        nodes = list(ast.walk(ast.parse(Path(path).read_text("utf-8"))))
        documented = {node.value for node in nodes if isinstance(node, ast.Expr)}
        texts = (node.value for node in nodes if isinstance(node, ast.Constant) and node not in documented)
        yield from (text for text in texts if isinstance(text, str) and " " in text.strip())


# What nobody reads: types, a form, what is signed, and a default that each class replaces. And of 64 MiB, which `test_overlay` and `test_deltas` hold with a smaller number.
ELSEWHERE = {
    "the snapshot would be more than ", " bytes: lift entries that are no longer needed", "its result is a snapshot of more than ",
    "%Y-%m-%d %H:%M:%SZ", "str | int", "Callable[[str], BuiltIn | None]", "request http", "request mcp", "request access", "it holds secrets",
    "mark of a task", "mark of a link", "mark of an entry", "consent question", "consent use", "request step",
}  # fmt: skip


def test_each_sentence_of_the_kernel_stands_in_the_file() -> None:
    told = TOLD.read_text("utf-8")
    assert {text for text in sentences() if text.encode("ascii", "backslashreplace").decode() not in told} == ELSEWHERE


def test_the_file_has_these_parts_and_no_other() -> None:
    headings = [line for line in TOLD.read_text("utf-8").splitlines() if line.startswith("# ")]
    assert headings == [f"# {part.__name__}" for part in PARTS]


if __name__ == "__main__":
    logging.disable()  # thousands of denials, each of which a verifier would log
    TOLD.write_text("\n".join(map(transcript, PARTS)), "utf-8")
