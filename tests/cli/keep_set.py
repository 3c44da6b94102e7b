"""python keep_set.py: the trails of two servers that a task had a set of tokens for, in sales.jsonl and mail.jsonl.

The server of mail also mints for itself, with the id of the set and with the `n` of the hand-over: it can write of itself
what it likes, and nothing of others.
"""

import json
from pathlib import Path

from captoken import Access, Issuer, Keyring, Verifier
from captoken._format.encoding import b64decode
from captoken.audit import AuditTrail
from captoken.testing import FixedClock, fixed_random

clock = FixedClock(1_764_061_200)  # 2025-11-25 09:00:00Z
keyring = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1")
files = {"sales-db": Path("sales.jsonl"), "mail": Path("mail.jsonl")}
kept = {name: [] for name in files}
servers = {
    name: Verifier(keyring.for_audience(name), name, clock=clock, audit=AuditTrail(lines.append)) for name, lines in kept.items()
}

both = Issuer(keyring, clock=clock, random=fixed_random("a set")).mint_set(
    subject="user:jane", agent="orchestrator", task="q3", expires_in=3600,
    servers={"sales-db": {"tables": ["sales", "hr"], "operations": ["select"]}, "mail": {"tools": {"send": {}}}},
)  # fmt: skip
clerk = both.delegate(to="clerk", tables=["sales"], expires_in=1800)
helper = clerk.delegate(to="helper", expires_in=600)


def tries(held, name, **access):
    clock.advance(10)
    servers[name].check(held.present(audience=name), Access(**access))


tries(both, "sales-db", table="hr", operation="select")
tries(clerk, "mail", tool="send")
tries(clerk, "sales-db", table="sales", operation="select")
tries(clerk, "sales-db", table="hr", operation="select")
tries(helper, "sales-db", table="sales", operation="select")

# With its own keys, by the id of the set and the `n` of its hand-over.
said = both.token("mail").unverified.root
forged = Issuer(
    keyring.for_audience("mail"), clock=FixedClock(said.issued_at), random=lambda size: b64decode(said.token_id)[:size]
).mint(subject=said.subject, agent=said.agent, task=said.task, tools={"*": {}})  # fmt: skip
n = json.loads(clerk.token("mail").unverified.bodies[-1])["n"]
for to in ("clerk", "eve"):
    link = {"from": said.agent, "n": n, "to": to}
    made = forged.with_raw_link(json.dumps(link, separators=(",", ":")).encode())
    servers["mail"].check(made, Access(tool="pay"))

for name, file in files.items():
    file.write_bytes(b"".join(kept[name]))
