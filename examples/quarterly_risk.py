"""A quarterly risk report by five agents: mint once, hand on offline, guard, refuse the rest.

    python examples/quarterly_risk.py

Reads from top to bottom. Every refusal is asserted, so it ends with an error if one of them should
ever pass.
"""

import base64
import hmac
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from captoken import Access, Caller, Denied, Issuer, Keyring, Token, Verifier, WideningError
from captoken.adapters.sqlite import guarded
from captoken.errors import StatementError
from captoken.testing import FixedClock

# --- The company's database, and the server that stands before its resources ----------------------

db = sqlite3.connect(":memory:", isolation_level=None)
db.execute("attach ':memory:' as market")
db.execute("attach ':memory:' as scratch")
db.executescript("""
    create table sales (region, customer, amount, overdue);
    insert into sales values
        ('north', 'Alder', 410, 20),
        ('north', 'Birch', 260, 0),
        ('south', 'Cedar', 330, 150);
    create table filings (issuer, note, severity);
    insert into filings values
        ('Alder', 'new credit line', 1),
        ('Cedar', 'going concern in doubt', 3);
    create table hr (employee, region, salary);
    insert into hr values ('kim', 'north', 52000);
    create table market.moves (region, percent);
    insert into market.moves values
        ('north', -1.5), ('north', 0.8), ('south', -4.1), ('south', 2.2);
    create table scratch.results (agent, finding);
""")

# A clock of our own, so that the story can end today. Leave `clock=` out in earnest.
clock = FixedClock(int(time.time()))

# The server has keys of its own, and takes only what is addressed to it.
keyring = Keyring.generate().for_audience("desk")
desk = Verifier(keyring, audience="desk", clock=clock)


def query(token: Token, sql: str, *parameters: object) -> list[Any]:
    """What the desk does for an agent.

    It is sent a copy that is good there alone, and for a minute.
    """
    grant = desk.authenticate(token.present(audience="desk"))
    with guarded(db, grant) as guard:
        return guard.execute(sql, parameters).fetchall()


def lookup(token: Token, issuer: str, max_price_cents: int) -> str:
    """What the desk does for an agent: a tool that costs money."""
    arguments = {"issuer": issuer, "max_price_cents": max_price_cents}
    asked = Access(tool="ratings.lookup", arguments=arguments)
    desk.authorize(token.present(audience="desk"), asked)
    return {"Alder": "BBB", "Cedar": "B-"}[issuer]


def refused(
    code: str, attempt: Callable[..., Any], token: Token | str, *arguments: Any, how: str = ""
) -> None:
    """`attempt` must be denied with this code.

    Prints who tried what, which link says no, and who added it.
    """
    who = token.unverified.holder if isinstance(token, Token) else "somebody"
    stated = ", ".join(map(str, arguments))
    print(f"  {who}{how}: {stated if attempt is query else f'{attempt.__name__}({stated})'}")
    try:
        attempt(token, *arguments)
    except Denied as denied:
        first = denied.decision.refusals[0]
        assert first.code == code, denied
        where = "the verifier"
        if first.link is not None:
            where = f"link {first.link}, added by {first.added_by}"
        print(f"      {code:<15}{where}: {first.text}")
    except StatementError as error:  # to the database, what is not granted of a table is not there
        assert error.code == code, error
        print(f"      {code:<15}the database: {error.for_model()}")
    else:
        raise AssertionError(f"this should have been refused: {arguments}")


# --- user:jane starts a task: one mint, the only step that needs the key --------------------------

orchestrator = Issuer(keyring, clock=clock).mint(
    subject="user:jane",
    agent="orchestrator",
    task="q3-risk",
    allow={
        "market.*": ["select"],
        "sales": ["select"],
        "filings": ["select"],
        "scratch.results": ["select", "insert"],
    },
    tools={"ratings.lookup": {"issuer": {"any": True}, "max_price_cents": {"max": 50}}},
    expires_in=900,
)

# --- The orchestrator hands on: offline, no key, no server, each with what it needs ---------------

write = {"scratch.results": ["insert"]}
market_agent = orchestrator.delegate(
    to="market-agent", allow={"market.*": ["select"], **write}, expires_in=300
)
sales_agent = orchestrator.delegate(
    to="sales-agent",
    allow={"sales": ["select"], **write},
    columns={"sales": ["region", "amount", "overdue"]},  # not the customers
    expires_in=240,
)
filings_agent = orchestrator.delegate(
    to="filings-agent",
    allow={"filings": ["select"], **write},
    tools={"ratings.lookup": {"issuer": {"any": True}, "max_price_cents": {"max": 25}}},
    expires_in=180,
)
reader_agent = filings_agent.delegate(
    to="reader-agent", tables=["filings"], operations=["select"], depth=0, expires_in=60
)

# What a sub-agent gets is text, in its environment or its task message; it parses it at its end.
reader_agent = Token.parse(reader_agent.serialize(), clock=clock)

# --- They work ------------------------------------------------------------------------------------


def note(token: Token, agent: str, finding: str) -> None:
    """An agent writes down what it found, under its own token."""
    query(token, "insert into scratch.results values (?, ?)", agent, finding)


moves = query(market_agent, "select region, min(percent) from market.moves group by region")
for region, worst in moves:
    note(market_agent, "market-agent", f"{region}: a bad week costs {-worst} %")

sales = query(sales_agent, "select region, sum(amount), sum(overdue) from sales group by region")
for region, amount, overdue in sales:
    note(
        sales_agent, "sales-agent", f"{region}: {amount} kEUR outstanding, {overdue} of it overdue"
    )

filings = query(reader_agent, "select issuer, note from filings where severity > 1")
for issuer, concern in filings:
    rating = lookup(filings_agent, issuer, 20)
    note(filings_agent, "filings-agent", f"{issuer}: {concern}; rated {rating}")

print("The report, as the orchestrator reads it")
report = query(orchestrator, "select agent, finding from scratch.results")
for agent, finding in report:
    print(f"  {finding}  ({agent})")
assert len(report) == 5

# --- What must not work ---------------------------------------------------------------------------

print("\nRefused")
refused("table", query, sales_agent, "select salary from hr")
refused("table", query, market_agent, "select sum(amount) from sales")  # its sibling's table
refused("table", query, market_agent, "select count(*) from market.moves natural join hr")
refused("name", query, sales_agent, "select customer from sales")
refused("operation", query, sales_agent, "update sales set overdue = 0")
refused("argument", lookup, filings_agent, "Alder", 40)
refused("domain", lookup, market_agent, "Alder", 20)  # its link names tables, and so closes tools

# Asking for more than is held is told at once, by the agent's own library.
try:
    reader_agent.attenuate(tables=["hr"])
    raise AssertionError("widened")
except WideningError as error:
    print("  reader-agent: attenuate(tables=['hr'])")
    print(f"      {error.code:<15}its own library: {error.excess} is not among what is held")

# An agent that leaves the library out can append any link by hand: each signature is the key of the
# next. It gains nothing, since every link must hold.
data = base64.urlsafe_b64decode(reader_agent.serialize().removeprefix("cap1_") + "==")
links = data[:-35]
last_signature = data[-32:]
body = b'{"allow":{"hr":["select"]}}'
signature = hmac.digest(last_signature, body, "sha256")
longer = links + bytes([2, len(body)]) + body + b"\0\0\x06\x20" + signature
text = "cap1_" + base64.urlsafe_b64encode(longer).rstrip(b"=").decode()
by_hand = Token.parse(text, clock=clock)
refused("table", query, by_hand, "select salary from hr", how=", with a link that it wrote by hand")

# A forger has no key, whatever id it gives to one of its own.
own_key = Keyring.from_keys({keyring.current: bytes(range(32))}, current=keyring.current)
forged = Issuer(own_key.for_audience("desk"), clock=clock).mint(
    subject="user:jane", agent="orchestrator", task="q3-risk", unrestricted=True
)
refused("bad_signature", query, forged, "select salary from hr", how=", says a forged token")


def read_sales(text: str, caller: Caller) -> None:
    """What the desk does for a caller that it knows by other means."""
    amounts = Access(table="sales", operation="select", columns=["amount"])
    desk.authorize(text, amounts, caller=caller)


# A thief is not the agent whose token it is, and a token for one task is for no other.
stolen = sales_agent.present(audience="desk")
refused("caller", read_sales, stolen, Caller(agent="mallory"))
refused("caller", read_sales, stolen, Caller(task="q4-forecast"))
assert db.execute("select sum(overdue) from sales").fetchone() == (170,)

# --- The end: each token dies with the shortest life above it -------------------------------------

print("\nA minute later")
clock.advance(61)
refused("expired", query, reader_agent, "select issuer from filings")
assert query(filings_agent, "select count(*) from filings") == [(2,)]  # its own life is longer
print("A quarter of an hour later")
clock.advance(900)
refused("expired", query, orchestrator, "select region from sales")

db.close()
