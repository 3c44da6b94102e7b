"""A kill switch that reaches every server at once: a lease that nobody renews any more.

    python examples/lease_kill_switch.py

The orchestrator's whole crew lives on a lease of ten seconds: a discharge that a supervisor renews,
and not the agents themselves. The supervisor watches what the agents do. When the score of one task
rises in the middle of the work, it stops renewing; no server is told anything, and ten seconds
later nothing of that task is worth anything, anywhere.
"""

import time
from collections.abc import Mapping
from typing import Any

from captoken import Access, Issuer, Keyring, Verifier
from captoken.discharge import Allow, Discharge, Discharger, Lease, Refuse
from captoken.errors import DischargeError
from captoken.keys import DischargerKey
from captoken.testing import FixedClock

LIFE = 10  # seconds of a lease: how long a stopped task can go on at most
LIMIT = 60  # of the score

# A clock of our own, so that two minutes pass at once. Leave `clock=` out in earnest.
clock = FixedClock(int(time.time()))
start = clock()

# Three machines of one server, which have the keys of that server and no others.
NAMES = ("north", "south", "west")
keyring = Keyring.generate().for_audience("crm")
servers = {name: Verifier(keyring, audience="crm", clock=clock) for name in NAMES}

# --- The supervisor: sees what servers report, and decides at each renewal anew -------------------

rows_read = {"q3-risk": 0, "newsletter": 0}


def score(task: str) -> int:
    """How odd a task looks: here, how much more it reads than others of its kind do."""
    return rows_read[task] // 40


def policy(need: Mapping[str, Any]) -> Allow | Refuse:
    """Another ten seconds for a task, unless it looks odd."""
    task = need["alive"]
    if score(task) > LIMIT:
        return Refuse(f"the score of {task} is {score(task)}")
    return Allow(expires_in=LIFE)


supervisor = Discharger(DischargerKey.generate(), policy, clock=clock)


class Crew:
    """A task with its token, and the lease that the supervisor's side keeps up for it."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.over: int | None = None  # the second in which it was not renewed first
        self.stopped = False
        root = Issuer(keyring, clock=clock).mint(
            subject="user:jane",
            agent="orchestrator",
            task=task,
            tables=["customers"],
            operations=["select"],
            expires_in=3600,
        )
        leased = root.require(supervisor.public, need={"alive": task})
        self.token = leased.delegate(to="reader-agent", tables=["customers"])
        self.lease = Lease(self.token.needs[0], supervisor.discharge, self.take, clock=clock)

    def take(self, discharge: Discharge) -> None:
        """The orchestrator hands the fresh discharge to whoever works for it."""
        self.token = self.token.with_discharge(discharge)

    def renew(self) -> None:
        """In earnest `lease.run(stop)` in a thread of the supervisor's; here the clock is ours."""
        try:
            self.lease.renew()
        except DischargeError as error:
            if self.over is None:
                self.over = clock() - start
                print(f"  +{self.over:3} s  {self.task}: not renewed, {error}")

    def read(self, rows: int) -> bool:
        """One read at each server; True if all of them still permit it."""
        access = Access(table="customers", operation="select")
        decisions = []
        for server in servers.values():
            text = self.token.present(audience="crm", clock=clock)
            decisions.append(server.check(text, access))
        (allowed,) = {bool(decision) for decision in decisions}  # the servers agree
        if allowed:
            rows_read[self.task] += rows
        elif not self.stopped:
            self.stopped = True
            why = decisions[0].refusals[0].text
            print(f"  +{clock() - start:3} s  {self.task}: {access.summary}, refused by all: {why}")
        return allowed


# --- Two minutes ----------------------------------------------------------------------------------


print("Two tasks work, each on a lease of ten seconds")
risk = Crew("q3-risk")
letter = Crew("newsletter")
last: dict[str, int] = {}  # by task: the second in which a read was last permitted
for second in range(120):
    for crew in (risk, letter):
        crew.renew()
        # After 50 seconds a row that the risk task reads tells its agent to copy out everything,
        # and it obeys.
        injected = crew is risk and second >= 50
        if crew.read(rows=1_000 if injected else 10):
            last[crew.task] = second
    clock.advance(1)

print(f"          q3-risk: the last read that any server permitted was at +{last['q3-risk']} s")
print(f"  +{last['newsletter']:3} s  newsletter: still at work, score {score('newsletter')}")

assert risk.over is not None
took = last["q3-risk"] - risk.over
print(f"\nFrom the supervisor's decision to the last permitted read: {took} s, of at most {LIFE}.")
assert 0 <= took < LIFE
assert last["newsletter"] == 119
