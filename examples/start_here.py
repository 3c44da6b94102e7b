"""Start here: a function and a database, guarded; an agent, and the sub-agent that it hands on to.

python examples/start_here.py needs nothing but captoken.
"""

import sqlite3
import tempfile
from collections.abc import Callable
from functools import partial

from captoken import Denied, current
from captoken.adapters.sqlite import guarded
from captoken.local import Office
from captoken.tools import guarded_tool

# Keys, what is revoked and spent, and a trail; in earnest a folder that stays.
folder = tempfile.TemporaryDirectory()
office = Office.open(folder.name)


@guarded_tool(office.verifier)
def pay(to: str, cents: int) -> str:
    return f"paid {cents} to {to}"


def tried(what: str, call: Callable[[], object]) -> None:
    """Print what was tried, and what came of it."""
    print(what)
    try:
        print(f"    {call()}")
    except Denied as denied:
        first, *_ = denied.decision.report(values=True).splitlines()
        print(f"    {first}")


# user:jane starts a task. Minting is the only step that needs the key.
root = office.mint(
    subject="user:jane",
    agent="orchestrator",
    task="invoices",
    tools={"pay": {"to": {"in": ["acct-1"]}, "cents": {"max": 500}}},
    tables=["*"],
    operations=["select"],
)

print("The orchestrator")
with current.use(root):  # around whatever runs the agent
    tried("pay('acct-1', 120)", lambda: pay("acct-1", 120))
    tried("pay('acct-1', 9000)", lambda: pay("acct-1", 9000))

    print("\nIts sub-agent, to which it hands on one table and no tool")
    with current.delegate(to="sales-agent", tables=["sales"], expires_in="5m") as held:
        tried("pay('acct-1', 120)", lambda: pay("acct-1", 120))
        child = held.one

database = sqlite3.connect(":memory:")
database.executescript("create table sales(region, amount); create table hr(name, pay)")
database.execute("insert into sales values ('eu', 5), ('us', 7)").connection.commit()
with guarded(database, office.verifier.authenticate(child)) as db:

    def rows(sql: str) -> object:
        return db.execute(sql).fetchall()

    for sql in ("select sum(amount) from sales", "select * from sales natural join hr"):
        tried(sql, partial(rows, sql))
database.close()

print("\nThe operator ends the task, and looks who did what")
office.end_task("invoices")
with current.use(root):
    tried("pay('acct-1', 120)", lambda: pay("acct-1", 120))
for hop in office.audit().hops():
    print(f"    {' > '.join(hop.holders)}: {hop.allowed} allowed, {hop.denied} denied")
office.close()
folder.cleanup()
