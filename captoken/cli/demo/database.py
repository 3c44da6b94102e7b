"""The database of the demo: sales, filings and salaries that somebody made up."""

from __future__ import annotations

import random
import sqlite3
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

REGIONS = ("Americas", "Asia-Pacific", "Central Europe", "Iberia", "Nordics")
ISSUERS = (
    "Alder Steel",
    "Borealis Shipping",
    "Cobalt Foods",
    "Dune Energy",
    "Ember Retail",
    "Fjord Telecom",
    "Gale Airlines",
)
NOTES = (
    (3, "going concern in doubt"),
    (3, "covenant waived for now"),
    (2, "auditor changed"),
    (2, "first quarter restated"),
    (1, "new credit line"),
    (1, "board member resigned"),
    (1, "dividend confirmed"),
)
RATINGS = ("BBB", "BB+", "BB", "B-", "CCC")
WEEKS = 13

_TABLES = (
    "sales (quarter, region, customer, amount, overdue)",
    "filings (issuer, form, filed, note, severity)",
    "hr (employee, region, salary)",
    "market.moves (region, week, percent)",
    "scratch.results (topic, subject, value, agent)",
)

Rows = Iterator[tuple[Any, ...]]


@contextmanager
def database(source: random.Random) -> Generator[sqlite3.Connection, None, None]:
    """A SQLite database in temporary files, with two more attached as `market` and `scratch`.

    Removed at the end.
    """
    with (
        tempfile.TemporaryDirectory(prefix="captoken-demo-") as name,
        closing(sqlite3.connect(Path(name) / "main.db", isolation_level=None)) as connection,
    ):
        for schema in ("market", "scratch"):
            connection.execute(f"attach ? as {schema}", (str(Path(name) / f"{schema}.db"),))

        # The files are gone at the end. To wait for the disk at each commit would save nothing, and
        # takes seconds on some.
        for schema in ("main", "market", "scratch"):
            connection.execute(f"pragma {schema}.synchronous = off")
        connection.execute("begin")
        for table in _TABLES:
            connection.execute(f"create table {table}")
        connection.executemany("insert into sales values (?, ?, ?, ?, ?)", _sales(source))
        connection.executemany("insert into market.moves values (?, ?, ?)", _moves(source))
        connection.executemany("insert into filings values (?, ?, ?, ?, ?)", _filings(source))
        connection.executemany("insert into hr values (?, ?, ?)", _staff(source))
        connection.execute("commit")
        yield connection


def _sales(source: random.Random) -> Rows:
    """What customers bought, in thousands of euros, and what of it they have not paid."""
    for region in REGIONS:
        size = source.uniform(0.4, 2.4)
        slack = source.uniform(0.02, 0.3)
        for number in range(24):
            customer = f"customer {number}"
            amount = int(size * source.uniform(40, 260))
            is_late = source.random() < slack
            late = int(amount * source.uniform(0.4, 1.0)) if is_late else 0
            yield "Q3", region, customer, amount, late
            yield "Q2", region, customer, int(amount * source.uniform(0.7, 1.2)), 0


def _moves(source: random.Random) -> Rows:
    """By how many percent markets moved, week by week."""
    for region in REGIONS:
        wild = source.uniform(0.6, 3.2)
        for week in range(WEEKS):
            yield region, week, round(source.gauss(0.1, wild), 2)


def _filings(source: random.Random) -> Rows:
    """What issuers had to tell, and how bad it is."""
    notes = source.sample(NOTES, len(NOTES))
    for issuer, (severity, note) in zip(ISSUERS, notes, strict=True):
        filed = f"{source.choice(('Jul', 'Aug', 'Sep'))} {source.randrange(1, 29):02}"
        yield issuer, source.choice(("10-Q", "6-K", "8-K")), filed, note, severity


def _staff(source: random.Random) -> Rows:
    """What nobody in the story may read."""
    for number in range(40):
        region = source.choice(REGIONS)
        salary = source.randrange(40, 180) * 1000
        yield f"employee {number}", region, salary
