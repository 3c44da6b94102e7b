"""python keep_trail.py AUDIT_KEY > trail.jsonl: what a payroll server kept of one morning, the same each time.

With `values` behind the key, the values of arguments are recorded as well; with `own` a token comes that has a caveat of
another server's own; with `forged` somebody who can write the file has added a line that follows on the others.
"""

import sys

from captoken import Access, Issuer, Keyring, Verifier
from captoken.audit import AuditTrail
from captoken.keys import AuditKey
from captoken.testing import FixedClock, fixed_random

clock = FixedClock(1_764_061_200)  # 2025-11-25 09:00:00Z
keyring = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1").for_audience("payroll")
trail = AuditTrail(sys.stdout.buffer.write, key=AuditKey.load(sys.argv[1]), values="values" in sys.argv)
server = Verifier(keyring, "payroll", clock=clock, audit=trail)

root = Issuer(keyring, clock=clock, random=fixed_random("morning")).mint(
    subject="user:jane", agent="orchestrator", task="payday", expires_in=3600,
    tables=["people", "salaries"], operations=["select", "update"], tools={"pay": {}, "mail": {}},
)  # fmt: skip
clerk = root.delegate(
    to="clerk", task="payday/november", expires_in=1800,
    tables=["salaries"], operations=["select", "update"], columns={"salaries": ["month", "amount", "iban"]},
    tools={"pay": {"cents": {"max": 100000}, "to": {"any": True}}},
)  # fmt: skip
helper = clerk.delegate(to="helper", expires_in=600, tables=["salaries"], operations=["select"])
mailer = root.delegate(to="mailer", expires_in=120, tools={"mail": {}})


def tries(token, **access):
    clock.advance(10)
    server.check(token.present(audience="payroll"), Access(**access))


tries(root, table="people", operation="select", columns=["name"])
tries(clerk, table="salaries", operation="select", columns=["month", "amount"])
tries(clerk, tool="pay", arguments={"cents": 120, "to": "jo"})
tries(clerk, tool="pay", arguments={"cents": 90000, "to": "jo"})
tries(clerk, table="people", operation="select", columns=["name"])
tries(helper, table="salaries", operation="select", columns=["amount"])
tries(helper, table="salaries", operation="update", columns=["amount"])
tries(mailer, tool="mail", arguments={"to": "all"})
server.check("cap1_nonsense", Access(tool="mail"))
trail.checkpoint()
tries(clerk, table="salaries", operation="select", columns=["month"])
if "own" in sys.argv:
    regional = root.with_raw_link(b'{"acme:region":"eu"}').delegate(to="auditor", expires_in=300, tables=["people"])
    tries(regional, table="people", operation="select", columns=["name"])
if "forged" in sys.argv:
    trail._append([({
        "kind": "decision", "at": clock(), "allowed": True, "code": "\x1b[2Jallowed",
        "chain": [{"name": "\x1b]0;root\x07", "basis": "proven"}],
    }, {})])  # fmt: skip
