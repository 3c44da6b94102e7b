"""A trail of many records, made quickly: `python -m tests.console.many FILE [RECORDS]` writes one.

Two hundred tasks of some agents each, as servers write them: real tokens, described once, and decisions on them over a day.
One in fifty is refused. Only the signatures of tokens are left out, which no trail has.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from captoken import Access, Issuer, Keyring, Verifier
from captoken._format.encoding import b64encode, encode_json
from captoken.audit import AuditTrail
from captoken.testing import FixedClock

END = 1_764_061_200  # when the last record was made
DAY = 86_400
TASKS = 200


def _patterns(now: int, tasks: int) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]]:
    """Of each agent of each task: its token's records, a decision that was allowed, and one that was refused."""
    keyring, clock = Keyring.generate(), FixedClock(now)
    issuer = Issuer(keyring, clock=clock)
    lines: list[bytes] = []
    verifier = Verifier(keyring, clock=clock, audit=AuditTrail(lines.append, clock=clock))
    for number in range(tasks):
        root = issuer.mint(
            subject=f"user:{number % 40}",
            agent="orchestrator",
            task=f"task-{number}",
            tables=["*"],
            operations=["select"],
            expires_in=2 * DAY,
        )
        sales = root.delegate(to="sales-agent", tables=["sales.*"])
        chart = sales.delegate(to="chart-agent", tables=["sales.eu"])
        personnel = root.delegate(to=f"hr-agent-{number}", tables=["hr"])
        for token, table in ((root, "hr"), (sales, "sales.us"), (chart, "sales.eu"), (personnel, "hr")):
            lines.clear()
            verifier.check(token, Access(table=table, operation="select"))
            verifier.check(token, Access(table="payroll", operation="insert"))
            *described, allowed, refused = map(json.loads, b"".join(lines).splitlines())
            yield described, allowed, refused


def records(count: int, *, end: int = END, tasks: int = TASKS) -> Iterator[bytes]:
    """The lines of a trail, in the order of time."""
    source = random.Random(7)
    patterns = list(_patterns(end - DAY, tasks))
    prev = b64encode(bytes(32))
    described: set[int] = set()
    seq = 0

    def line(stated: dict[str, Any]) -> bytes:
        nonlocal prev, seq
        seq += 1
        text = encode_json(stated | {"seq": seq, "prev": prev})
        prev = b64encode(sha256(text).digest())
        return text + b"\n"

    while seq < count:
        at = end - DAY + seq * DAY // count
        # Some tasks are at work at a time.
        place = (seq * len(patterns) // count + int(source.expovariate(0.1))) % len(patterns)
        token, allowed, refused = patterns[place]
        if place not in described:
            described.add(place)
            yield from map(line, token)
        yield line((refused if source.random() < 0.02 else allowed) | {"at": at, "ms": source.randrange(1000)})


def write(path: Path, count: int, **more: Any) -> None:
    """A trail of so many records."""
    with path.open("wb") as file:
        file.writelines(records(count, **more))


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
