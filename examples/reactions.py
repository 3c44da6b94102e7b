"""A rule stops an agent that goes through tables it has no right to. Its siblings go on.

    python examples/reactions.py

A page has turned one of three agents. It tries one table after the other, and each is refused: no
harm is done, and nobody looks. A rule counts the refusals. At the fifth it revokes what that agent
was handed, and all that was made of it. Nobody sat there, and the other two noticed nothing. An
operator then reads why, and lifts it.
"""

import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from captoken import Access, Issuer, Keyring, Token, Verifier
from captoken.audit import AuditTrail
from captoken.control import Feed, Operator
from captoken.keys import OperatorKey
from captoken.stores.sqlite import SQLiteSnapshots
from captoken.stores.trail_file import TrailFile

RULES = """
version = 1

[rule.probing]
when = { codes = ["table", "operation", "column", "row", "tool", "argument"] }
count = 5
within = "1m"
by = "link"
then = "revoke"
for = "1h"
why = "five refusals of rights in a minute"
"""
TABLES = ["customers", "payroll", "cards", "contracts", "sales"]

# Denials go to the trail. The log would show them a second time.
logging.getLogger("captoken").addHandler(logging.NullHandler())

scratch = tempfile.TemporaryDirectory(prefix="captoken-reactions-")
folder = Path(scratch.name)
(folder / "rules.toml").write_text(RULES, "utf-8")
key = OperatorKey.generate()
key.save(folder / "operator.json")
store = SQLiteSnapshots.create(folder / "overlay.db")
operator = Operator(key, store, by="ops:ann")
operator.renew()

keyring = Keyring.generate().for_audience("warehouse")
trail = AuditTrail(TrailFile(folder / "trail.jsonl").write)
feed = Feed(store, [key.public], every=1)
verifier = Verifier(keyring, "warehouse", overlay=feed, audit=trail)


def react(*options: str) -> list[str]:
    """The command, for these trails."""
    rules = [str(folder / "rules.toml"), "--trail", str(folder / "trail.jsonl")]
    return [sys.executable, "-m", "captoken", "react", "run", *rules, *options]


def ask(token: Token, table: str) -> str:
    """What the warehouse says to an agent that wants to read a table."""
    sent = token.present(audience="warehouse")
    return verifier.check(sent, Access(table=table, operation="select")).code


lead = Issuer(keyring).mint(
    subject="user:jane",
    agent="lead",
    task="q3",
    audience="warehouse",
    tables=["orders"],
    operations=["select"],
)
agents = {name: lead.delegate(to=name) for name in ("north", "south", "west")}
for agent, held in agents.items():
    print(f"{agent:6} orders     {ask(held, 'orders')}")

acting = ["--key", "operator.json", "--store", "overlay.db", "--state", "react.db"]
at_work = subprocess.Popen(
    react(*acting), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
)
assert at_work.stdout is not None

print("\nA page has turned west:")
for table in TABLES:
    print(f"west   {table:10} {ask(agents['west'], table)}")
refused = time.monotonic()
print(f"\n{at_work.stdout.readline().strip()}\n")
while ask(agents["west"], "orders") != "revoked":
    time.sleep(0.05)
took = time.monotonic() - refused
print(f"west   orders     revoked{', in less than 5 seconds' if took < 5 else ''}")
for agent in ("north", "south"):
    print(f"{agent:6} orders     {ask(agents[agent], 'orders')}")
at_work.terminate()
at_work.communicate()

[entry] = operator.entries()
print(f"\n{entry.by}: {entry.why}")
operator.lift(entry.id, why="the page is gone, and west was started anew")
feed.refresh()
print(f"west   orders     {ask(agents['west'], 'orders')}, once the entry is lifted")

print("\nBeforehand, on a trail that is there:")
seen = subprocess.run(react("--replay"), capture_output=True, text=True, check=True)
print(seen.stdout, end="")
store.close()
scratch.cleanup()
