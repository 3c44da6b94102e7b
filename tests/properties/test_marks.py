"""Marks (spec, section 46): more of them never let more through, they are judged as the reference judges them, and a capability
has those of all links.

Random means seeded: a failing case prints what to put into a case table.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from functools import cache, partial
from typing import Any

import pytest

from captoken import Capability, Verifier
from captoken._language.caveats import V1
from captoken._language.link import Link
from captoken._language.links import read_link
from captoken.control import Overlay
from captoken.stores.memory import MemoryLedger
from spec.generate import build
from tests.longer import drawing, times
from tests.reference import evaluator
from tests.reference.fixtures import KEY, NOW, ROOT, access, keyring

Json = dict[str, Any]

# A small world, so that what is drawn meets.
NAMES = ["a", "b", "c"]
ACCESSES: list[Json] = [
    {"table": "crm.x", "operation": "select"}, {"table": "crm.x", "operation": "insert"}, {"table": "hr", "operation": "select"},
    {"tool": "mail.send", "arguments": {"to": "ann"}}, {"tool": "mail.send", "arguments": {"to": "eve"}}, {"tool": "mail.send"},
    {"tool": "get", "arguments": {"to": "ann"}}, {"tool": "get", "table": "crm.x", "operation": "select"}, {"attributes": {"x": 1}},
]  # fmt: skip
TABLES, TOOLS, OPERATIONS = ["crm.*", "crm.x", "hr", "*"], ["mail.*", "mail.send", "get", "*"], ["select", "insert", "*"]
RIGHTS: list[Json] = [{"tables": ["crm.*"]}, {"tables": ["*"], "tools": {"*": {}}}, {"tools": {"mail.send": {}, "get": {}}}, {"operations": ["select"]}, {"uses": 3}]
BUTS: list[Json] = [
    {"tables": ["crm.x"]}, {"operations": ["select"]}, {"tools": {"mail.send": {"to": {"in": ["ann"]}}}}, {"tools": {"*": {}}}, {"allow": {"crm.*": ["insert"]}},
    {"tables": ["*"], "tools": {"mail.send": {"to": {"in": ["ann"], "optional": True}}}},
]  # fmt: skip


def some(rng: random.Random, pool: list[Any], most: int = 2) -> list[Any]:
    return rng.sample(pool, rng.randint(1, most))


def random_mark(rng: random.Random) -> Json:
    made: Json = {}
    of = rng.choice([("tables",), ("tables",), ("tools",), ("tools",), ("tables", "tools")])
    made |= {"tables": some(rng, TABLES)} if "tables" in of else {}
    made |= {"operations": some(rng, OPERATIONS)} if "tables" in of and rng.random() < 0.3 else {}
    made |= {"tools": some(rng, TOOLS)} if "tools" in of else {}
    return made | ({"but": rng.choice(BUTS)} if rng.random() < 0.3 else {})


def random_rules(rng: random.Random, names: list[str]) -> list[Json]:
    return [{"in": some(rng, names, min(2, len(names))), "after": some(rng, names, min(2, len(names)))} for _ in range(rng.choice([1, 1, 2]))]


def random_marking(rng: random.Random) -> Json:
    """A link with marks, and mostly rules; now and then rights beside them."""
    names = some(rng, NAMES, 3)
    link: Json = {"marks": {name: random_mark(rng) for name in names}, "n": evaluator.base64text(rng.randbytes(8))}
    link |= {"forbid": random_rules(rng, names)} if rng.random() < 0.85 else {}
    return link | (rng.choice(RIGHTS) if rng.random() < 0.15 else {})


def random_link(rng: random.Random) -> Json:
    """A link that may say nothing of marks."""
    if rng.random() < 0.8:
        return random_marking(rng)
    link = dict(rng.choice([*RIGHTS, {"exp": NOW + 600}, {"task": "task-123/a"}]))
    return link | ({"n": evaluator.base64text(rng.randbytes(8))} if "uses" in link else {})


def minted(*links: Json) -> str:
    made: str = evaluator.mint(KEY, ROOT, links)
    return made


def at(ledger: MemoryLedger, **more: Any) -> Verifier:
    return Verifier(keyring(), ledger=ledger, clock=lambda: NOW, **more)


def ledger() -> MemoryLedger:
    return MemoryLedger(shared=True, floor=0)


def passed(text: str, asked: list[Json], **more: Any) -> list[Json]:
    """Those of a sequence that are allowed, one after the other; what is denied did not happen."""
    grant = at(ledger(), **more).authenticate(text)
    return [one for one in asked if grant.check(access(one))]


@pytest.mark.parametrize("chunk", range(4))
def test_what_a_link_more_lets_through_goes_through_without_it(chunk: int) -> None:
    """Monotone: of a sequence of accesses, what is allowed by a token with a link more is allowed, in its order, by the token without it.
    Each draw is a token, a link and a sequence. In one of four the link is that of an entry of the overlay."""
    rng, seen = drawing(20261200 + chunk), Counter[str]()
    for _ in range(times(1000)):
        links = [random_marking(rng), *(random_link(rng) for _ in range(rng.choice([0, 0, 1])))]
        more, is_entry = random_link(rng), rng.random() < 0.25
        if is_entry and not more.keys() & {"uses", "task"}:
            longer, known = minted(*links), {"overlay": partial(overlaid, more)}
        else:
            longer, known = minted(*links, more), {}
        asked = rng.choices(ACCESSES, k=rng.randint(2, 7))
        done = passed(longer, asked, **known)
        assert passed(minted(*links), done) == done, (links, more, asked)
        seen["all" if done == asked else "some"] += 1
    assert min(seen["all"], seen["some"]) > 50


def overlaid(*links: Json) -> Overlay:
    """An overlay with an entry for each link, which selects every token here."""
    return opened(evaluator.canonical(list(links)))


@cache
def opened(links: str) -> Overlay:
    entries = [{**build.entry(f"e{number}", subject="user:jane"), "link": link} for number, link in enumerate(json.loads(links))]
    return Overlay.open(build.snapshot(*entries), [build.b64(build.signing_public("operator"))])


@pytest.mark.parametrize("chunk", range(4))
def test_marks_are_judged_as_the_reference_judges_them(chunk: int) -> None:
    """D3: tokens of a family at one ledger, by two servers that know what they have seen: codes and places are the reference's, of
    `check`, of several accesses that are one step, of a dry run, which sets nothing, and of a recheck."""
    rng, seen = drawing(20261300 + chunk), Counter[str]()
    for _ in range(times(60)):
        family = [[random_marking(rng)]]
        family += [[*rng.choice(family), random_link(rng)] for _ in range(rng.randint(1, 3))]
        links = [random_marking(rng)] if rng.random() < 0.3 else []
        links = [{key: value for key, value in link.items() if key != "uses"} for link in links]
        said = [{**build.entry(f"e{number}", subject="user:jane"), "link": link} for number, link in enumerate(links)]
        stated = ({"entries": said, "iat": NOW, "exp": NOW + 3600}, 60, False)
        ours, theirs = ledger(), evaluator.Ledger(True)
        servers = [(at(ours, overlay=partial(overlaid, *links)), set()) for _ in range(2)]
        for _ in range(25):
            held, asked = rng.choice(family), [rng.choice(ACCESSES)]
            (server, known), how = rng.choice(servers), rng.choice(["check", "check", "check_all", "explain", "recheck"])
            asked += rng.choices(ACCESSES, k=rng.randint(0, 2)) if how == "check_all" else []
            theirs.known = known
            token = evaluator.authenticate(minted(*held), {"k1": KEY})
            wanted = evaluator.ask_again(token, *asked, verified_at=NOW, max_age=None, now=NOW, ledger=theirs, how=how, overlay=stated)
            known.update(theirs.known)
            grant = server.authenticate(minted(*held))
            together = how in ("recheck", "check_all")
            decision = getattr(grant, how)([access(one) for one in asked] if together else access(asked[0]))
            came = {"code": decision.code}
            if not decision:
                (refusal, *_) = decision.refusals
                came |= {key: value for key, value in (("link", refusal.link), ("added_by", refusal.added_by)) if value is not None}
            assert came == wanted, (held, asked, how, links)
            seen[f"{how} {decision.code}"] += 1
    for what in ("check allowed", "check forbidden_after", "check_all allowed", "check_all forbidden_after", "explain allowed", "explain forbidden_after", "recheck allowed", "recheck forbidden_after"):
        assert seen[what] > 20, seen


def test_a_capability_has_the_marks_and_rules_of_all_links() -> None:
    """Its meet is a union: commutative, associative, idempotent; it covers what has all that it has, and more marks are never beyond it."""
    rng = drawing(20261400)

    def capability(*links: Json) -> Capability:
        read = [read_link(evaluator.canonical(link).encode(), V1) for link in links]
        assert all(isinstance(link, Link) for link in read)
        return Capability.of(read)

    def said(*links: Json) -> set[str]:
        marks = {evaluator.canonical({name: mark}) for link in links for name, mark in link.get("marks", {}).items()}
        return marks | {evaluator.canonical(rule) for link in links for rule in link.get("forbid", ())}

    covered = Counter[bool]()
    for _ in range(times(1000)):
        one, two, three = ({key: value for key, value in random_marking(rng).items() if key in ("marks", "forbid", "n")} for _ in range(3))
        if rng.random() < 0.4:
            two = {**two, "marks": {**two["marks"], **one["marks"]}, "forbid": [*two.get("forbid", ()), *one.get("forbid", ())][:16]}
            two = two if two["forbid"] else {key: two[key] for key in ("marks", "n")}
        a, b, c = map(capability, (one, two, three))
        assert a.meet(b) == b.meet(a) == capability(one, two) and a.meet(a) == a
        assert a.meet(b.meet(c)) == a.meet(b).meet(c) == capability(one, two, three)
        assert a.covers(a.meet(b)) and a.covers(b) == (said(one) <= said(two)), (one, two)
        covered[a.covers(b)] += 1
        stated = a.meet(b).json()
        assert len(stated["marks"]) + len(stated.get("forbid", ())) == len(said(one, two))
    assert min(covered[True], covered[False]) > 50
