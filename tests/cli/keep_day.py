"""python keep_day.py > trail.jsonl: what a warehouse kept of one day and one night, the same each time.

Three agents read orders, twice a minute. At ten, a page turns west. At three in the afternoon, south is in a loop. At eleven in
the evening, north works on.
"""

import sys

from captoken import Access, Issuer, Keyring, Verifier
from captoken.audit import AuditTrail
from captoken.testing import FixedClock, fixed_random

clock = FixedClock(1_764_061_200)  # 2025-11-25 09:00:00Z
keyring = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1").for_audience("warehouse")
trail = AuditTrail(sys.stdout.buffer.write, clock=clock)
server = Verifier(keyring, "warehouse", clock=clock, audit=trail, max_age=None, random=fixed_random("ids"))

lead = Issuer(keyring, clock=clock, random=fixed_random("a day")).mint(
    subject="user:jane", agent="lead", task="q3", audience="warehouse", expires_in="1d", tables=["orders"], operations=["select"]
)
agents = {name: lead.delegate(to=name) for name in ("north", "south", "west")}


def until(hour, minute=0):
    clock.advance(1_764_061_200 + (hour - 9) * 3600 + minute * 60 - clock())


def reads(agent, table, times=1, seconds=2):
    for _ in range(times):
        server.check(agents[agent], Access(table=table, operation="select"))
        clock.advance(seconds)


for minute in range(20):
    until(9, minute)
    for agent in agents:
        reads(agent, "orders", 2)
until(10)
for table in ("customers", "payroll", "cards", "contracts", "sales"):
    reads("west", table)
reads("west", "orders", 3)
until(15)
for call in range(100):
    reads("south", "orders", seconds=call % 2)
until(23)
reads("north", "orders", 2)
