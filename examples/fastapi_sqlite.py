"""The simplest service: agents send SQL over HTTP, and SQLite answers what their tokens permit.

python examples/fastapi_sqlite.py tries it, with FastAPI's test client (`pip install httpx2`).
`uvicorn fastapi_sqlite:app` in this folder serves it.
"""

import sqlite3
from contextlib import closing
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI
from fastapi.testclient import TestClient

from captoken import Grant, Issuer, Keyring, Verifier
from captoken.adapters.fastapi import granted, protect
from captoken.adapters.sqlite import guarded

DATABASE = "file:shop?mode=memory&cache=shared"  # in earnest the path of your file
kept = sqlite3.connect(DATABASE, uri=True)
kept.executescript("create table sales(region, amount); create table hr(name, pay)")
kept.execute("insert into sales values ('eu', 5), ('us', 7)").connection.commit()
# In earnest Keyring.load("shop.json"), which the issuer has derived for this server.
keyring = Keyring.generate().for_audience("shop")
app = FastAPI()


@app.post("/query")
def query(sql: Annotated[str, Body()], grant: Annotated[Grant, Depends(granted)]) -> list[Any]:
    with closing(sqlite3.connect(DATABASE, uri=True)) as shop, guarded(shop, grant) as db:
        return db.execute(sql).fetchall()  # not permitted: 403; no SQL: 400


protect(app, Verifier(keyring, audience="shop"), origin="http://127.0.0.1:8000")

if __name__ == "__main__":
    issuer, who = Issuer(keyring), "user:jane"
    root = issuer.mint(subject=who, agent="planner", task="q3", tables=["*"], operations=["select"])
    child = root.delegate(to="sales-agent", tables=["sales"])
    for sql in ("select sum(amount) from sales", "select pay from hr", "delete from sales"):
        sent = {"Authorization": f"Bearer {child.present(audience='shop')}"}
        answer = TestClient(app).post("/query", json=sql, headers=sent)
        print(f"{sql:<30}{answer.status_code}  {answer.json()}")
