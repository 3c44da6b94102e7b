"""A FastAPI service on loopback, agents that call it with httpx, and what others try.

    python examples/fastapi_service.py

Needs fastapi, uvicorn and httpx. Each endpoint declares which access it needs; the client makes a
token for each request, for this server alone and for a minute. No endpoint can be forgotten.
"""

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import httpx
import uvicorn
from fastapi import Depends, FastAPI

from captoken import Access, Grant, Issuer, Keyring, Verifier, current
from captoken.adapters.fastapi import granted, protect, require
from captoken.adapters.httpx import auth
from captoken.errors import NoToken
from captoken.keys import HolderKey
from captoken.stores.sqlite import SQLiteReplayStore

AMOUNTS = {"eu": 1200, "us": 3400}

# The server has a key that is good at this server alone. Its file of used proofs is made once,
# along with the keys; a server that starts again opens it: `SQLiteReplayStore(path)`.
keyring = Keyring.generate()
own = keyring.for_audience("sales-api")
folder = tempfile.TemporaryDirectory()
proofs = SQLiteReplayStore.create(f"{folder.name}/proofs.db", keys=keyring.key_ids)
verifier = Verifier(own, audience="sales-api", replays=proofs)

# --- The service: what each endpoint needs --------------------------------------------------------

app = FastAPI()


@app.get("/health")
def health() -> str:
    """Public: `protect` is told so below."""
    return "well"


@app.get("/market/{region}")
def market(
    region: str,
    grant: Annotated[Grant, Depends(require(table="market.{region}", operation="select"))],
) -> str:
    """Needs the table that the path names."""
    who = f"{grant.actor.name} ({grant.actor.basis})"
    return f"{AMOUNTS.get(region, 0)} in {region}, for {grant.issued.subject}: {who}"


@app.post("/orders")
async def order(body: dict[str, int], grant: Annotated[Grant, Depends(granted)]) -> str:
    """Knows what it needs only when it has seen the body, and asks then."""
    grant.authorize(Access(tool="order.place", arguments=body))
    return f"ordered for {body['cents']} cents"


@app.get("/salaries", dependencies=[Depends(require(table="hr.salaries", operation="select"))])
def salaries() -> str:
    """Needs a table that nobody here is granted."""
    return "what everybody earns"


@contextmanager
def serving(application: FastAPI, port: socket.socket) -> Iterator[None]:
    """Serve in a thread, for as long as the block lasts."""
    server = uvicorn.Server(uvicorn.Config(application, log_level="critical"))
    thread = threading.Thread(target=server.run, args=([port],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def show(who: str, what: str, answer: httpx.Response) -> None:
    """Print what somebody was answered."""
    said = answer.json()
    if not isinstance(said, str):
        said = said["error_description"]
    print(f"  {answer.status_code}  {who:<13} {what:<26} {said}")


# --- The tokens: one for a crew of agents, one bound to the key of a clerk ------------------------

port = socket.create_server(("127.0.0.1", 0))
port.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 44 ms a request (docs/http.md)
origin = f"http://127.0.0.1:{port.getsockname()[1]}"
protect(app, verifier, origin=origin, realm="sales", public={"/health"})

key = HolderKey.generate()
issuer = Issuer(own)
orders = {"order.place": {"cents": {"max": 500}}}
root = issuer.mint(
    subject="user:jane",
    agent="orchestrator",
    task="q3",
    tables=["market.*"],
    operations=["select"],
    tools=orders,
)
bound = issuer.mint(subject="user:jane", agent="clerk", task="q3", key=key.public, tools=orders)

# --- The calls ------------------------------------------------------------------------------------

agents = httpx.Client(base_url=origin, auth=auth({origin: "sales-api"}), trust_env=False)
strangers = httpx.Client(base_url=origin, trust_env=False)
with serving(app, port), agents as client, strangers as bare:
    print("Agents at work")
    with current.use(root):
        show("orchestrator", "GET /market/us", client.get("/market/us"))
        with current.delegate(to="eu-agent", tables=["market.eu"], expires_in=60):
            show("eu-agent", "GET /market/eu", client.get("/market/eu"))
            show("eu-agent", "GET /market/us", client.get("/market/us"))
            show("eu-agent", "GET /salaries", client.get("/salaries"))
            show("eu-agent", "POST /orders", client.post("/orders", json={"cents": 5}))
        show("orchestrator", "POST /orders, 400 cents", client.post("/orders", json={"cents": 400}))
        show("orchestrator", "POST /orders, 900 cents", client.post("/orders", json={"cents": 900}))

    print("\nA token that is bound to a key goes with a proof of each request")
    with current.use(bound, key):
        request = client.build_request("POST", "/orders", json={"cents": 7})
        show("clerk", "POST /orders, 7 cents", client.send(request))
    stolen = {"authorization": request.headers["authorization"]}
    again = bare.post("/orders", json={"cents": 7}, headers=stolen)
    show("mallory", "the same request, again", again)
    dearer = bare.post("/orders", json={"cents": 500}, headers=stolen)
    show("mallory", "POST /orders, 500 cents", dearer)

    print("\nWhat others try")
    sent = {"Authorization": f"Bearer {root.present(audience='sales-api')}"}
    show("nobody", "GET /health", bare.get("/health"))
    show("nobody", "GET /market/eu", bare.get("/market/eu"))
    show("nobody", "GET /%68ealth", bare.get("/%68ealth"))
    show("a model", "GET /market/eu%2ehr", bare.get("/market/eu%2ehr", headers=sent))
    show("two at once", "GET /market/eu", bare.get("/market/eu", headers=[*sent.items()] * 2))
    with current.use(root):
        try:
            client.get("https://evil.example/collect")
        except NoToken as error:
            print(f"  not sent: {error}")

print("\nAn endpoint that somebody forgot to guard")
unguarded = FastAPI()
unguarded.get("/export")(lambda: "everything")
protect(unguarded, verifier, origin="https://api.example")
server = uvicorn.Server(uvicorn.Config(unguarded, port=0, log_level="critical"))
with suppress(SystemExit):
    server.run()
assert not server.started
print("  the service does not start: /export requires nothing")

proofs.close()
folder.cleanup()
