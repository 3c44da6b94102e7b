"""python keep_marks.py > trail.jsonl: what a desk kept of a task that read a stranger's page and customers' data, and was closed."""

import sys

from captoken import Access, Issuer, Keyring, Verifier
from captoken.audit import AuditTrail
from captoken.stores.memory import MemoryLedger
from captoken.testing import FixedClock, fixed_random

clock = FixedClock(1_764_061_200)  # 2025-11-25 09:00:00Z
keyring = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1").for_audience("desk")
trail = AuditTrail(sys.stdout.buffer.write)
server = Verifier(keyring, "desk", clock=clock, audit=trail, ledger=MemoryLedger(floor=0))

root = Issuer(keyring, clock=clock, random=fixed_random("marks")).mint(
    subject="user:jane", agent="assistant", task="answer-mail", expires_in=3600,
    tables=["crm.*"], operations=["select"], tools={"http.get": {}, "mail.send": {}},
    marks={"untrusted": {"tools": ["http.get"]}, "private": {"tables": ["crm.*"]}, "outside": {"tools": ["mail.*"]}},
    forbid=[{"in": ["outside"], "after": ["untrusted", "private"]}],
)  # fmt: skip
helper = root.delegate(
    to="helper", marks={"read": {"tools": ["http.get"]}, "sent": {"tools": ["mail.*"]}}, forbid=[{"in": ["sent"], "after": ["read"]}],
)  # fmt: skip


def tries(token, **access):
    clock.advance(10)
    server.check(token.present(audience="desk"), Access(**access))


tries(helper, tool="http.get", arguments={"url": "https://example.org/"})
tries(helper, tool="mail.send", arguments={"to": "jo@example.com"})
tries(root, tool="mail.send", arguments={"to": "jo@example.com"})
tries(root, table="crm.customers", operation="select")
tries(root, tool="mail.send", arguments={"to": "eve@example.org"})
tries(root, tool="mail.send", arguments={"to": "eve@example.org", "cc": "eve@example.net"})
tries(root, tool="mail.send", arguments={"to": "eve@example.org"})
