"""What a holder can make a server do: hostile pairs of a constraint and a value, beside `json.loads` of the body.

    python -m tests.benchmarks.work                # all kinds
    python -m tests.benchmarks.work --only url     # some of them

Of each kind constraints and values are drawn that are as dear as can be. A body has an array of such values as the one argument of
a call; the token holds it to the constraint, in as many links as there is room for. The time is CPU time of all that follows on
`json.loads`: the access is made, and the verifier asked. Two bodies of each:

- the largest that is taken (4 MiB, by the guard of MCP): what is beyond the limit of work is counted, and denied;
- the longest that is not too much work, so that all of it is judged.

The first has to stay below 6 times `json.loads` of the same body; the run ends with 1 where it does not. The second is shown beside
`json.loads` of both bodies. Then what else takes a text from outside, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from captoken import Access, Issuer, Keyring, Token, Verifier
from captoken._format.encoding import encode_json
from captoken._language.work import MOST, size_of
from captoken.audit import check as check_trail
from captoken.control import Operator, Overlay, recall
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots

BODY = 4 << 20
TIMES = 6
WHO: dict[str, Any] = {"subject": "user:jane", "agent": "orchestrator", "task": "t"}

Draw = Callable[[random.Random, int], Any]


def longest(*starts: str) -> Draw:
    """Texts of a length that is drawn, which begin in one of these ways."""
    return lambda rng, most: (rng.choice(starts) + "/a" * most)[:most]


# Of each kind: its constraint, and values by length, the dearest that are known.
KINDS: dict[str, tuple[dict[str, Any], Draw]] = {
    "in": ({"in": [f"v{at}" for at in range(500)]}, lambda rng, most: f"v{rng.randrange(500)}"),
    "in, integers": ({"in": [at << 41 for at in range(300)]}, lambda rng, most: rng.randrange(300) << 41),
    "range": ({"min": 0}, lambda rng, most: rng.random()),
    "path": ({"path": [f"/a/a{at}" for at in range(500)] + ["/a/a/a"]}, longest("/a")),
    "path, codes": ({"path": ["/"]}, lambda rng, most: "/" + "%2a" * (most // 3)),
    "prefix": ({"prefix": [f"1.{at}" for at in range(600)]}, lambda rng, most: f"1.{rng.randrange(600)}.1.x" + "/a" * (most // 2 - 5)),
    "url": (
        {"url": [f"https://*.example.com/{at}" for at in range(15)] + ["https://*.example.com/a"]},
        lambda rng, most: (f"https://h{rng.randrange(10**6)}.example.com/a" + "/a" * most)[: max(most, 33)][:2048],
    ),
    "url, hosts": (
        {"url": [f"https://*.h{at}.example.com" for at in range(16)]},
        lambda rng, most: (f"https://a.h{rng.randrange(16)}.example.com/" + "a/" * most)[: max(most, 28)][:2048],
    ),
    "cidr": ({"cidr": [f"10.{at}.0.1/32" for at in range(256)] + ["11.0.0.0/8"]}, lambda rng, most: f"11.{rng.randrange(256)}.0.{rng.randrange(256)}"),
    "cidr, version 6": ({"cidr": ["2001:db8::/32"]}, lambda rng, most: f"2001:db8::{rng.randrange(1, 65536):x}:1"),
    "each": ({"each": {"each": {"in": [1]}}}, lambda rng, most: [[]] * (most // 4)),
}  # fmt: skip


def cpu(asked: Callable[[], Any], rounds: int = 5) -> float:
    """Milliseconds of CPU time: the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        asked()
        best = min(best, time.process_time() - start)
    return best * 1000


def token(keyring: Keyring, constraint: dict[str, Any], links: int) -> Token:
    """A token that holds the argument to it in so many links, each spelled on its own."""
    made = Issuer(keyring).mint(**WHO, unrestricted=True)
    for _ in range(links):
        made = made.with_raw_link(encode_json({"tools": {"t": {"x": {"each": constraint}}}}))
    return made


def values(draw: Draw, most: int, room: int, size: Callable[[Any], int]) -> list[Any]:
    """An array of such values as long as there is room for."""
    rng = random.Random(most)
    made: list[Any] = []
    while True:
        one = draw(rng, most)
        room -= size(one)
        if room < 0:
            return made
        made.append(one)


def pairs(only: list[str]) -> Iterator[tuple[str, float, float, float]]:
    """Of each kind and length: how many times `json.loads` the largest body costs, and one at the limit; and the latter in ms."""
    keyring = Keyring.generate()
    verifier = Verifier(keyring)
    for name, (constraint, draw) in KINDS.items():
        if only and name not in only:
            continue
        for most in (16, 256, 2000):
            for links in (1, 8):
                if len(encode_json({"": constraint})) * links > 5000:
                    continue
                text = token(keyring, constraint, links).serialize()

                def ask(body: str, text: str = text) -> tuple[float, float, str]:
                    stated = json.loads(body)
                    took = cpu(lambda: verifier.check(text, Access(tool="t", arguments=stated)))
                    return took, cpu(lambda: json.loads(body)), verifier.check(text, Access(tool="t", arguments=stated)).code

                largest = json.dumps({"x": values(draw, most, BODY, lambda one: len(json.dumps(one)) + 2)})
                took, loads, _ = ask(largest)
                full = values(draw, most, MOST // links - 8000, lambda one: size_of(one) + 16)
                at_limit, its_loads, code = ask(json.dumps({"x": full}))
                assert code != "too_much_work", name
                yield f"{name}, {most} characters, {links} links", took / loads, at_limit / its_loads, at_limit / loads


def others() -> Iterator[tuple[str, float]]:
    """What else takes a text from outside, at the largest that it takes."""
    keyring = Keyring.generate()
    wide = Issuer(keyring).mint(**WHO, unrestricted=True)
    narrow = wide
    for at in range(50):
        narrow = narrow.with_raw_link(encode_json({"where": {"x": {"path": [f"/a{at}", "/b"]}}, "tools": {"t": {}, f"t{at}": {}}}))
    text = narrow.serialize()
    yield "parse and inspect", cpu(lambda: Token.parse(text).unverified.capability.json())
    yield "attenuate", cpu(lambda: Token.parse(text).attenuate(where={"x": {"path": ["/b/c"]}}, clamp=True))
    yield "recall", cpu(lambda: recall(wide, wide.attenuate(expires_in=60), audience="control", why="it went astray"))
    key = OperatorKey.generate()
    snapshots = MemorySnapshots()
    operator = Operator(key, snapshots, by="ops")
    for at in range(200):
        operator.revoke(task=f"t{at}", why="a reason")
    data = snapshots.load() or b""
    yield "snapshot of 200 entries", cpu(lambda: Overlay.open(data, [key.public]))
    line = json.dumps({"v": 1, "x": ["/a"] * 100_000}).encode()
    yield "a line of a trail", cpu(lambda: _trail(line))


def _trail(line: bytes) -> None:
    try:
        check_trail([line])
    except Exception:  # it is no record: what it costs to find that is measured
        return


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.work", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], choices=list(KINDS))
    worst = 0.0
    print(f"{'':48} {'4 MiB':>8} {'at limit':>9} {'at limit / loads of 4 MiB':>26}")
    for name, times, at_limit, of_largest in pairs(parser.parse_args().only):
        worst = max(worst, times)
        print(f"{name:48} {times:7.2f}x {at_limit:8.1f}x {of_largest:25.2f}x", flush=True)
    for name, took in others():
        print(f"{name:48} {took:7.2f} ms", flush=True)
    sys.exit(worst > TIMES)


if __name__ == "__main__":
    main()
