"""Two tenants share a table: an agent sees the rows of one, and its sub-agent those of one region.

python examples/two_tenants.py tries it; `uvicorn two_tenants:app` in this folder serves it.
"""

import sqlite3
from contextlib import closing
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI
from fastapi.testclient import TestClient

from captoken import Grant, Issuer, Keyring, Verifier
from captoken.adapters.fastapi import granted, protect
from captoken.adapters.sqlite import guarded

DATABASE = "file:tenants?mode=memory&cache=shared"  # in earnest the path of your file
kept = sqlite3.connect(DATABASE, uri=True)
kept.executescript("""
    create table orders (id integer primary key, tenant text, region text, cents integer);
    create index by_tenant on orders (tenant);
    insert into orders values
        (1, 'acme', 'eu', 500), (2, 'acme', 'us', 700), (3, 'globex', 'eu', 900);
    create table countries (code text primary key);
    insert into countries values ('de'), ('us');
""")
# In earnest Keyring.load("shop.json"), which the issuer has derived for this server.
keyring = Keyring.generate().for_audience("shop")
app = FastAPI()


@app.post("/query")
def query(sql: Annotated[str, Body()], grant: Annotated[Grant, Depends(granted)]) -> list[Any]:
    with closing(sqlite3.connect(DATABASE, uri=True)) as shop, guarded(shop, grant) as db:
        return db.execute(sql).fetchall()  # not permitted: 403; no SQL: 400


protect(app, Verifier(keyring, audience="shop"), origin="http://127.0.0.1:8000")

if __name__ == "__main__":
    # Of all tables the rows of one tenant; `countries` has none, and is free.
    root = Issuer(keyring).mint(
        subject="user:jane",
        agent="planner",
        task="q3",
        tables=["*"],
        operations=["select", "update", "insert"],
        rows={"*": {"tenant": {"in": ["acme"]}}, "countries": {}},
    )
    # Offline, and without a server: the sub-agent reads one region of them.
    europe = {"orders": {"region": {"in": ["eu"]}}}
    child = root.delegate(to="eu-agent", operations=["select"], rows=europe)
    for agent, token in (("planner", root), ("eu-agent", child)):
        print(agent)
        for sql in (
            "select * from orders",
            "select count(*), sum(cents) from orders where tenant = 'globex'",
            "select code from countries",
            "update orders set cents = cents + 1 returning id",
            "insert into orders values (4, 'globex', 'eu', 1)",
            "select * from main.orders",
        ):
            sent = {"Authorization": f"Bearer {token.present(audience='shop')}"}
            answer = TestClient(app).post("/query", json=sql, headers=sent)
            said = answer.json()
            told = said if answer.status_code == 200 else said["code"]
            print(f"    {sql:<66}{answer.status_code}  {told}")
