"""An old commit beside this one: `python -m tests.benchmarks.against COMMIT [--rounds 15] [--only WORD]`.

Processor time, in processes that take turns: each measures all operations of one of the two, and the figure is the median of the ratios of
neighbouring rounds, with their quartiles. What the old one has not is left out. It needs what both import, and nothing of the old one's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[2]

# Run with either tree before it. Only what both have: the public surface of the first versions.
MEASURED = """
import gc, json, os, sqlite3, sys, time
from captoken import Access, Issuer, Keyring, Verifier
from captoken.adapters import sqlite as guards

keyring = Keyring.generate()
access = Access(table="sales", operation="select")
verifier = Verifier(keyring)
found = {}


def token(hops=0, differ=False, **caveats):
    tables = ["sales", *(f"t{hop}" for hop in range(hops))] if differ else ["sales"]
    held = {"tables": tables, "operations": ["select"], **caveats}
    made = Issuer(keyring).mint(subject="user:jane", agent="a", task="t", **held)
    for hop in range(hops):
        made = made.delegate(to=f"agent-{hop}", tables=tables[: hops - hop] if differ else ["sales"])
    return made


def measure(name, prepare, times):
    if len(sys.argv) > 1 and sys.argv[1] not in name:
        return
    try:
        best = float("inf")
        for _ in range(5):
            call = prepare()
            call()
            gc.collect()
            gc.disable()
            start = time.process_time()
            for _ in range(times):
                call()
            best = min(best, (time.process_time() - start) / times * 1e6)
            gc.enable()
        found[name] = best
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"[:80]


def first_seen(hops):
    def prepare():
        texts = [token(hops).serialize() for _ in range(201)]
        return lambda: Verifier(keyring).check(texts.pop(), access)
    return prepare


def seen(hops):
    text = token(hops).serialize()
    return lambda: lambda: verifier.check(text, access)


def further(hops, differ):
    def prepare():
        grant = verifier.authenticate(token(hops, differ).serialize())
        grant.check(access)
        return lambda: grant.check(access)
    return prepare


def refused(hops):
    text, other = token(hops).serialize(), Access(table="hr", operation="select")
    return lambda: lambda: verifier.check(text, other)


def block(factory=None, **caveats):
    def prepare():
        connection = sqlite3.connect(":memory:", **({} if factory is None else {"factory": factory}))
        connection.executescript("create table sales (id integer primary key, region text, amount int);"
            "insert into sales (region, amount) values ('eu', 5), ('us', 7)")
        grant = verifier.authenticate(token(**caveats).serialize())
        def one():
            with guards.guarded(connection, grant) as db:
                db.execute("select region from sales where id = 1").fetchall()
        return one
    return prepare


def statement(factory=None, fresh=""):
    def prepare():
        connection = sqlite3.connect(":memory:", **({} if factory is None else {"factory": factory}))
        connection.executescript("create table sales (id integer primary key, region text, amount int);"
            "insert into sales (region, amount) values ('eu', 5), ('us', 7)")
        grant = verifier.authenticate(token().serialize())
        entered = guards.guarded(connection, grant)
        db = entered.__enter__()
        kept.append(entered)
        numbers = iter(range(10**9))
        if fresh:
            return lambda: db.execute(fresh % next(numbers)).fetchall()
        return lambda: db.execute("select region from sales where id = 1").fetchall()
    return prepare


kept = []
VALUE, NAMED = "select region from sales where id = %d", "select region, %d from sales where id = 1"
measure("mint", lambda: lambda: token(), 200)
one = token()
measure("attenuate", lambda: lambda: one.attenuate(tables=["sales"]), 200)
measure("hand over", lambda: lambda: one.delegate(to="b", tables=["sales"]), 200)
for hops in (0, 1, 10):
    measure(f"check, never seen, {hops} hand-overs", first_seen(hops), 200)
    measure(f"check, seen before, {hops} hand-overs", seen(hops), 2000)
    measure(f"refuse, seen before, {hops} hand-overs", refused(hops), 200)
measure("a further access on a grant", further(0, False), 5000)
measure("a further access, ten links that are alike", further(10, False), 2000)
measure("a further access, ten links that differ", further(10, True), 2000)
for factory, on in ((None, "SQLite"), (getattr(guards, "Connection", None), "SQLite with Connection")):
    if on == "SQLite" or factory is not None:
        measure(f"{on}, a block with a known statement", block(factory), 200)
        measure(f"{on}, the same of a table with columns", block(factory, columns={"sales": ["id", "region"]}), 200)
        measure(f"{on}, a further known statement", statement(factory), 500)
        measure(f"{on}, a further text with another value", statement(factory, VALUE), 200)
        measure(f"{on}, a further text that names another column", statement(factory, NAMED), 200)
sys.stdout.write(json.dumps(found))
"""

Found = dict[str, float | str]


def unpacked(commit: str, folder: Path) -> Path:
    """The package as that commit has it."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit, "captoken"], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def measured(tree: Path, only: str | None) -> Found:
    """Microseconds of processor time for each operation, in a process of its own; or why there is none."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", MEASURED, *([only] if only else [])]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=tree)
    found: Found = json.loads(ran.stdout)
    return found


def compared(commit: str, rounds: int, only: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        old_tree = unpacked(commit, Path(folder))
        pairs = [(measured(ROOT, only), measured(old_tree, only)) for _ in range(rounds)]
    print(f"{'':58} {'µs now':>8} {'µs then':>8} {'ratio':>6}   quartiles")
    for name in pairs[0][0]:
        both = [(new[name], old.get(name, "not there")) for new, old in pairs]
        numbers = [(new, old) for new, old in both if isinstance(new, float) and isinstance(old, float)]
        if not numbers:
            print(f"{name:58} {both[0][0] if isinstance(both[0][0], str) else round(both[0][0], 1)!s:>8}   then: {both[0][1]}")
            continue
        ratios = [new / old for new, old in numbers]
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
        new, old = (median(one) for one in zip(*numbers, strict=True))
        print(f"{name:58} {new:8.1f} {old:8.1f} {median(ratios):6.2f}   {low:.2f} to {high:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", help="operations with this in their name")
    asked = parser.parse_args()
    compared(asked.commit, asked.rounds, asked.only)


if __name__ == "__main__":
    main()
