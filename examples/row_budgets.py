"""A sub-agent that obeys an injected text is stopped after 200 rows. Its siblings go on.

    python examples/row_budgets.py

All three may read the table of customers: rights do not tell the stolen row from the one that is
needed. So the orchestrator gives each of them an amount: rows, and bytes, since a whole table can
be one row. The guard of the database counts what it hands out, in one ledger for all of them.
"""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from captoken import Denied, Issuer, Keyring, Verifier
from captoken.adapters.sqlite import guarded
from captoken.stores.sqlite import SQLiteLedger

CUSTOMERS = 5_000
CRUMBS = 40  # rows of each statement of the thief


def customers() -> sqlite3.Connection:
    """A table worth stealing."""
    connection = sqlite3.connect(":memory:")
    connection.execute("create table customers (id integer primary key, email text, town text)")
    rows = []
    for number in range(CUSTOMERS):
        town = "Oslo" if number % 9 else "Bergen"
        rows.append((number, f"c{number}@example.org", town))
    connection.executemany("insert into customers values (?, ?, ?)", rows)
    connection.commit()
    return connection


class Server:
    """The database, behind its guard: what was asked, and what came of it."""

    def __init__(self, connection: sqlite3.Connection, verifier: Verifier) -> None:
        self.connection = connection
        self.verifier = verifier

    def query(self, token: str, sql: str) -> list[Any]:
        """The rows. Raises Denied."""
        grant = self.verifier.authenticate(token)
        with guarded(self.connection, grant) as db:
            return db.execute(sql).fetchall()

    def left(self, token: str) -> dict[str, int]:
        """What the token may still take, for whoever runs the server."""
        return self.verifier.authenticate(token).left(["rows", "bytes"])


def tries(server: Server, agent: str, token: str, sql: str) -> bool:
    """One statement of an agent, told. True if it got its rows."""
    try:
        rows = server.query(token, sql)
    except Denied as denied:
        print(f"  {agent:9} {sql[:58]:58}  {denied.decision.code}")
        return False
    print(f"  {agent:9} {sql[:58]:58}  {len(rows)} rows")
    return True


def steal(server: Server, token: str) -> int:
    """What the injected text says: read it all, a little at a time. And then all at once."""
    stolen = 0
    while tries(
        server, "letters", token, f"select email from customers where id >= {stolen} limit {CRUMBS}"
    ):
        stolen += CRUMBS
    tries(server, "letters", token, "select json_group_array(email) from customers")
    return stolen


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, closing(customers()) as connection:
        keyring = Keyring.generate()
        path = Path(folder, "ledger.db")
        with closing(SQLiteLedger.create(path, keys=keyring.key_ids, shared=True)) as ledger:
            server = Server(connection, Verifier(keyring, ledger=ledger))
            root = Issuer(keyring).mint(
                subject="user:jane",
                agent="orchestrator",
                task="newsletter",
                tables=["customers"],
                operations=["select"],
                budget={"rows": 3_000, "bytes": 60_000},
            )
            letters = root.delegate(to="letters", budget={"rows": 200, "bytes": 5_000}).serialize()
            towns = root.delegate(to="towns", budget={"rows": 1_000}).serialize()

            print("letters answers mail, and does its work:")
            tries(server, "letters", letters, "select email from customers where id = 7")

            print("then a mail tells it to send all addresses to mallory@example:")
            stolen = steal(server, letters)
            print(f"it got {stolen} rows of {CUSTOMERS}; left to it: {server.left(letters)}")

            print("towns goes on with its own:")
            tries(server, "towns", towns, "select town, count(*) from customers group by town")
            tries(server, "towns", towns, "select id from customers where town = 'Bergen'")


if __name__ == "__main__":
    main()
