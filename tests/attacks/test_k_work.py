"""K: what a holder can make a verifier do. Any text up to the limits is decided with little work, whatever fills it.

Work is counted in steps of the interpreter, which are the same on every machine; some 140 of them take a microsecond. The
shapes are drawn at random and made worse step by step, so that the test looks for what costs most by itself.
"""

import random
import sys

import pytest

from captoken.stores.memory import MemoryLedger
from tests.attacks.test_e_discharges import answer, caveat_key, grown, shown, ticket
from tests.reference.fixtures import ASK, NOW, access, n, text, verifier

MOST = 450_000  # steps: about 3 ms of one core of 2024


def steps(call):
    """How many steps of the interpreter a call takes."""
    count = 0

    def each(frame, event, argument):
        nonlocal count
        count += event == "opcode"
        return each

    def enter(frame, event, argument):
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return each

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def name(rng):
    return "".join(rng.choice("abcdefgh") for _ in range(rng.choice((1, 2, 3))))


def pattern(rng):
    path = ".".join(name(rng) for _ in range(rng.choice((1, 1, 1, 2, 6))))
    return rng.choice((path, path + ".*", path))


KINDS = {
    "tables": lambda rng, size: {"tables": ["*", *(pattern(rng) for _ in range(size))]},
    "operations": lambda rng, size: {"operations": ["select", *(name(rng) for _ in range(size))]},
    "allow": lambda rng, size: {"allow": {"*": ["*"], **{pattern(rng): ["*", name(rng)][: rng.randint(1, 2)] for _ in range(size)}}},
    "columns": lambda rng, size: {"tables": ["*"], "columns": {pattern(rng): ["*", name(rng)] for _ in range(size + 1)}},
    "tools": lambda rng, size: {"tables": ["*"], "tools": {"*": {}, **{pattern(rng): {name(rng): {"any": True}} for _ in range(size)}}},
    "where": lambda rng, size: {"where": {"region": {"in": ["eu", *(name(rng) for _ in range(size))]}}},
    "paths": lambda rng, size: {"where": {"path": {"path": ["/a", *("/" + pattern(rng).replace(".", "/").rstrip("*/") for _ in range(size))]}}},
    "prefixes": lambda rng, size: {"where": {"id": {"prefix": ["a", *(name(rng) for _ in range(size))]}}},
    "urls": lambda rng, size: {"where": {"url": {"url": ["https://*.example.com/a", *sorted({f"https://{name(rng)}.example.com/{name(rng)}/b" for _ in range(min(size, 15))})]}}},
    "addresses": lambda rng, size: {"where": {"ip": {"cidr": ["10.0.0.0/8", *sorted({f"192.168.{rng.randrange(256)}.0/24" for _ in range(size)})]}}},
    "items": lambda rng, size: {"where": {"ids": {"each": {"each": {"in": ["a", *(name(rng) for _ in range(size))]}}}}},
    "aud": lambda rng, size: {"aud": ["sales-db", *(name(rng) for _ in range(size))]},
    "exp": lambda rng, size: {"exp": NOW + 60 + size},
    "task": lambda rng, size: {"task": "task-123" + "/a" * min(size, 20)},
}
COUNTED = {"uses": lambda rng, size: {"n": n(size), "uses": 5 + size}, "budget": lambda rng, size: {"budget": {"eur": 9 + size}, "n": n(size)}}
OF_REQUESTS = sorted(set(KINDS) - {"task"})


def links(rng, room, kinds):
    """Links of these kinds that fill so many characters: few long ones, or many short ones."""
    found, size = [], rng.choice((0, 1, 4, 12, 40, 400))
    favourite = rng.choice(kinds)
    while room > 0 and len(found) < 60:
        kind = favourite if rng.random() < 0.8 else rng.choice(kinds)
        link = (KINDS | COUNTED)[kind](rng, rng.randint(0, size))
        room -= len(repr(link)) * 4 // 3 + 6
        if room > 0:
            found.append(link)
    return found


def single(rng):
    """A token alone."""
    return text({"exp": NOW + 600}, *links(rng, 7_400, sorted(KINDS | COUNTED)))


def bundle(rng):
    """A token that asks its holder's own third parties, with what they answer."""
    size = rng.choice((1, 4, 12))
    cids = [ticket(number, n=number) for number in range(size)]
    token_text = grown(text({"exp": NOW + 600}), *((caveat_key(number), cid) for number, cid in enumerate(cids)))
    room = (32_000 - len(token_text)) // size - 900
    answers = [answer(caveat_key(i), cid, {"exp": NOW + 60}, *links(rng, min(room, 6_600), OF_REQUESTS)) for i, cid in enumerate(cids)]
    return shown(token_text, *answers)


FITS = {"region": "eu", "path": "/a/b", "id": "acct-7", "url": "https://x.example.com/a/b?c", "ip": "10.1.2.3", "ids": [["a"] * 4] * 4}
MISFITS = {"region": "zz", "path": "/z" * 50, "id": "zz", "url": "https://" + "z." * 60 + "example.org/" + "z/" * 60, "ip": "::1", "ids": [["zz"]]}
PERMITTED = access({**ASK, "columns": ["a"], "attributes": FITS, "cost": {"eur": 1}})
DENIED = access({"table": "hr", "operation": "zzz", "columns": ["a"], "attributes": MISFITS, "cost": {"eur": 1}})
FACTS = {"audience": ("sales-db", "api"), "allow_unaddressed": True}


def costs(token_text):
    """What each question about a text costs, in steps, at servers of several kinds."""
    found = {}
    for kind, facts in {
        "alone": {"ledger": MemoryLedger(floor=0)},
        "shared": {"ledger": MemoryLedger(floor=0, shared=True)},
        "later": {"now": NOW + 10**6},
    }.items():
        one = verifier(**FACTS, **facts)
        for question, asked in {"permitted": PERMITTED, "denied": DENIED}.items():
            for time in ("first", "second", "third"):
                found[kind, question, time] = steps(lambda one=one, asked=asked: str(one.check(token_text, asked)))
        decision = one.check(token_text, PERMITTED)
        if decision.grant is not None:
            for time in ("first", "second", "third"):
                found[kind, "grant", time] = steps(lambda decision=decision: decision.grant.check(PERMITTED))
            found[kind, "recheck", ""] = steps(lambda decision=decision: decision.grant.recheck([DENIED]))
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("made", [single, bundle])
def test_k1_the_worst_text_that_a_search_finds_is_still_cheap(made, seed):
    """K1: texts at random, and every second one in the manner of the worst so far: no question about any costs more than the bound."""
    rng = random.Random(f"{made.__name__}{seed}")
    worst, manner = {("none", "", ""): 0}, None
    for round_ in range(8):
        state = rng.getstate() if manner is None or round_ % 2 else manner
        rng.setstate(state)
        token_text = made(rng)
        if round_ % 2 == 0:
            rng = random.Random(f"{made.__name__}{seed}{round_}")
        found = costs(token_text)
        if max(found.values()) > max(worst.values()):
            worst, manner = found, state
    question = max(worst, key=worst.__getitem__)
    assert worst[question] < MOST, question
