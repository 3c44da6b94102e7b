"""From a person's login to the report of six agents, and what they can do when she logs out.

    npm ci --prefix tests/issuance/node
    python examples/login_to_report.py

Jane logs in at a certified identity provider. Her login and the orchestrator's identity start a
task: one request for each of two servers. After that nobody asks an issuer: the orchestrator hands
on to five others offline, and they write the quarterly risk report on SQLite, region by region.
When the first is done she logs out, and the next call of each agent is refused. Needs
`captoken[issuance,cli]`, uvicorn, and Node.
"""

import io
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey

from captoken import Access, Denied, Keyring, Token, Verifier
from captoken.adapters.issuance import IssuanceService
from captoken.adapters.sqlite import guarded
from captoken.audit import AuditTrail, read
from captoken.audit import analysis as trails
from captoken.control import Feed, Operator
from captoken.errors import IssuanceError
from captoken.issuance import policy
from captoken.issuance.client import Issuance, workload
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.keys import OperatorKey
from captoken.stores.sqlite import SQLiteSnapshots

NODE = Path(__file__).parent.parent / "tests" / "issuance" / "node"
POLICY = """
version = 1
[service]
origin = "{service}"
[provider.acme]
kind = "oidc"
issuer = "{provider}"
client_ids = ["captoken-cli"]
max_login_age = 28800
subject = "acme:{{sub}}"
[provider.cluster]
kind = "workload"
issuer = "https://cluster.example"
jwks = "{keys}"
[resource.warehouse]
[resource.ratings]

[grant.risk-report]
subject = {{ provider = "acme", groups = ["finance"] }}
actor = {{ provider = "cluster", sub = "system:serviceaccount:risk:orchestrator" }}
agents = ["orchestrator"]
resources = ["warehouse"]
[grant.risk-report.give]
allow = {{ "market" = ["select"], "sales" = ["select"], "filings" = ["select"], "results" = ["insert", "select"] }}
expires_in = 900
[grant.rating]
subject = {{ provider = "acme", groups = ["finance"] }}
actor = {{ provider = "cluster", sub = "system:serviceaccount:risk:orchestrator" }}
agents = ["orchestrator"]
resources = ["ratings"]
joins = ["risk-report"]
give = {{ tools = {{ "ratings.lookup" = {{ issuer = {{ any = true }} }} }}, expires_in = 900 }}
"""  # noqa: E501

# --- The identity provider, and a browser that does what Jane does --------------------------------


def started_provider(service: str) -> tuple[subprocess.Popen[str], str]:
    """oidc-provider, which is certified, in a process of its own; and its issuer identifier.

    It tells `service` of logouts, and names the session in what it signs.
    """
    if not (NODE / "node_modules").is_dir():
        sys.exit("run once: npm ci --prefix tests/issuance/node")
    process = subprocess.Popen(
        ["node", "provider.mjs"],
        cwd=NODE,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin and process.stdout
    told = {
        "backchannel_logout_uri": f"{service}/logout/backchannel",
        "backchannel_logout_session_required": True,
    }
    process.stdin.write(json.dumps({"client": told}) + "\n")
    process.stdin.flush()
    return process, json.loads(process.stdout.readline())["issuer"]


def submitted(browser: httpx.Client, page: httpx.Response, **typed: str) -> httpx.Response:
    """Fill in the forms of a page, one after the other, until there is none any more."""
    while form := re.search(r"<form[^>]*action=\"([^\"]*)\"", page.text):
        fields = re.findall(r"<(?:input|button)[^>]*>", page.text)
        names = {name[1]: field for field in fields if (name := re.search(r'name="(.*?)"', field))}
        values = {name: re.search(r'value="(.*?)"', field) for name, field in names.items()}
        given = {name: unescape(value[1]) if value else "" for name, value in values.items()}
        given |= {name: text for name, text in typed.items() if name in given}
        page = browser.post(urljoin(str(page.url), unescape(form[1])), data=given)
    return page


def logged_in(browser: httpx.Client, provider: str) -> str:
    """What `captoken login` writes: an ID token. Jane logs in at the address that it shows."""
    command = [sys.executable, "-m", "captoken", "login", provider, "--client-id", "captoken-cli"]
    command.append("--no-browser")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as login:
        assert login.stdout and login.stderr
        address = login.stderr.readline().split()[-1]
        submitted(browser, browser.get(address), login="jane", password="of a test")
        text = login.stdout.read().strip()
        assert login.wait() == 0, login.stderr.read()
    return text


# --- The service, on a port of this machine, and how often it is asked ----------------------------


class Counted:
    """The service, with a count of the requests for tokens."""

    def __init__(self, service: IssuanceService) -> None:
        self.service = service
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += scope["type"] == "http" and scope["path"] == "/token"
        await self.service(scope, receive, send)


def served(application: Any, port: socket.socket) -> Callable[[], None]:
    """Run an application in a thread; what is returned ends it."""
    server = uvicorn.Server(uvicorn.Config(application, log_level="error"))
    thread = threading.Thread(target=server.run, args=([port],))
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def end() -> None:
        server.should_exit = True
        thread.join()

    return end


# --- The company's database, and two servers that take only what is addressed to them -------------

database = sqlite3.connect(":memory:", isolation_level=None)
database.executescript("""
    create table market (region, percent);
    insert into market values ('north', -1.5), ('south', -4.1);
    create table sales (region, customer, amount, overdue);
    insert into sales values ('north', 'Alder', 410, 20), ('south', 'Cedar', 330, 150);
    create table filings (region, issuer, note);
    insert into filings values ('north', 'Alder', 'new credit line');
    insert into filings values ('south', 'Cedar', 'going concern in doubt');
    create table hr (employee, salary);
    create table results (agent, finding);
""")


class Servers:
    """The warehouse and the ratings server: each has the root keys of its own, and no others."""

    def __init__(self, keyring: Keyring, feed: Feed, trail: AuditTrail) -> None:
        def verifier(name: str) -> Verifier:
            own = keyring.for_audience(name)
            return Verifier(own, name, overlay=feed, max_staleness=60, audit=trail)

        self.warehouse = verifier("warehouse")
        self.ratings = verifier("ratings")

    def query(self, token: Token, sql: str, *parameters: str) -> list[Any]:
        """What the warehouse does for an agent, which sends it a copy that is good there alone."""
        grant = self.warehouse.authenticate(token.present(audience="warehouse"))
        with guarded(database, grant) as guard:
            return guard.execute(sql, parameters).fetchall()

    def rated(self, token: Token, issuer: str) -> str:
        """What the ratings server does."""
        asked = Access(tool="ratings.lookup", arguments={"issuer": issuer})
        self.ratings.authorize(token.present(audience="ratings"), asked)
        return {"Alder": "BBB", "Cedar": "B-"}[issuer]


def main(folder: Path) -> None:
    port = socket.create_server(("127.0.0.1", 0))
    port.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 44 ms a request
    origin = f"http://127.0.0.1:{port.getsockname()[1]}"
    provider, issuer = started_provider(origin)

    # The platform says what a pod is: here a key of ours, and there the API server of Kubernetes.
    platform = ECKey.generate_key("P-256", {"kid": "cluster-1"})
    keys = folder / "cluster.json"
    keys.write_text(json.dumps({"keys": [platform.as_dict(private=False)]}))
    now = int(time.time())
    pod = {
        "iss": "https://cluster.example",
        "sub": "system:serviceaccount:risk:orchestrator",
        "aud": origin,
        "iat": now,
        "exp": now + 600,
    }
    token_file = folder / "identity.jwt"
    header = {"alg": "ES256", "kid": "cluster-1"}
    token_file.write_text(jwt.encode(header, pod, platform, algorithms=["ES256"]))
    os.environ |= {"CAPTOKEN_IDENTITY": "file", "CAPTOKEN_IDENTITY_TOKEN_FILE": str(token_file)}

    # The service alone has the root keys of all servers.
    keyring = Keyring.generate()
    registry = SQLiteRegistry.create(folder / "tasks.db", floor=0)
    loaded = policy.read(POLICY.format(service=origin, provider=issuer, keys=keys))
    store = SQLiteSnapshots.create(folder / "overlay.db")
    operator_key = OperatorKey.generate()
    operator = Operator(operator_key, store, by="issuer")
    operator.renew()
    counted = Counted(IssuanceService(loaded, keyring, registry, operator=operator))
    end_service = served(counted, port)

    lines = io.BytesIO()
    feed = Feed(store, [operator_key.public], every=0)
    servers = Servers(keyring, feed, AuditTrail(lines.write))

    browser = httpx.Client(follow_redirects=True)
    try:
        login = logged_in(browser, issuer)
        print("jane has logged in at the provider")

        # Who started it, and which workload acts: two assertions, and no secret.
        office = Issuance(origin)
        who = {"login": login, "actor": workload()}
        agents = Agents(servers, handed_on(office, who))

        print("\nThe report, region by region")
        for agent, found in agents.work("north"):
            print(f"  {agent:<15}{found}")

        # In the middle of it: the south is still to be done.
        log_out(browser, issuer, login, operator)
        refused(agents.work("south"))
        requests = counted.requests
        nothing_more(office, who)
        written()

        audit(lines)
        trips(requests)
    finally:
        browser.close()
        end_service()
        registry.close()
        store.close()
        provider.communicate()  # the end of what it reads ends it


def handed_on(office: Issuance, who: dict[str, Any]) -> dict[str, Token]:
    """The token of each of six agents. The service is asked for two, and for no other."""
    root = office.start(**who, grant="risk-report", task="q3")
    paid = office.join(root, **who, grant="rating")
    print("the service has started a task for", root.unverified.root.subject)

    # The orchestrator hands on: offline, each with what it needs.
    write = {"results": ["insert"]}
    held = {"orchestrator": root}
    for table in ("market", "sales", "filings"):
        agent = f"{table}-agent"
        held[agent] = root.delegate(to=agent, allow={table: ["select"], **write}, expires_in=300)
    held["reader-agent"] = held["filings-agent"].delegate(
        to="reader-agent", tables=["filings"], operations=["select"], expires_in=60
    )
    held["rating-agent"] = paid.delegate(to="rating-agent", expires_in=300)
    return held


class Agents:
    """Six agents, each with a token of its own and nothing else."""

    def __init__(self, servers: Servers, held: dict[str, Token]) -> None:
        self.servers = servers
        self.held = held

    def work(self, region: str) -> Iterator[tuple[str, str | Denied]]:
        """What each does for a region, in its turn: what it found, or how it was refused."""
        turns = {
            "market-agent": self.market,
            "sales-agent": self.sales,
            "reader-agent": self.read,
            "rating-agent": self.rate,
            "filings-agent": self.filings,
            "orchestrator": self.count,
        }
        for agent, turn in turns.items():
            try:
                yield agent, turn(agent, region)
            except Denied as denied:
                yield agent, denied

    def asked(self, agent: str, sql: str, *parameters: str) -> list[Any]:
        return self.servers.query(self.held[agent], sql, *parameters)

    def noted(self, agent: str, finding: str) -> str:
        self.asked(agent, "insert into results values (?, ?)", agent, finding)
        return finding

    def market(self, agent: str, region: str) -> str:
        sql = "select percent from market where region = ?"
        ((percent,),) = self.asked(agent, sql, region)
        return self.noted(agent, f"{region}: a bad week costs {-percent} %")

    def sales(self, agent: str, region: str) -> str:
        sql = "select sum(overdue) from sales where region = ?"
        ((overdue,),) = self.asked(agent, sql, region)
        return self.noted(agent, f"{region}: {overdue} kEUR overdue")

    def read(self, agent: str, region: str) -> str:
        sql = "select issuer, note from filings where region = ?"
        (self.filing,) = self.asked(agent, sql, region)
        return f"{self.filing[0]}: {self.filing[1]}"

    def rate(self, agent: str, region: str) -> str:
        issuer, _ = self.filing
        self.rating = self.servers.rated(self.held[agent], issuer)
        return f"{issuer} is rated {self.rating}"

    def filings(self, agent: str, region: str) -> str:
        issuer, note = self.filing
        return self.noted(agent, f"{region}: {issuer}, {note}; rated {self.rating}")

    def count(self, agent: str, region: str) -> str:
        ((findings,),) = self.asked(agent, "select count(*) from results")
        return f"{region} is done: {findings} findings"


def log_out(browser: httpx.Client, issuer: str, login: str, operator: Operator) -> None:
    """Jane logs out at the provider, which tells the service. Gives up after ten seconds."""
    print("\njane logs out at the provider, in the middle of the report")
    page = browser.get(f"{issuer}/session/end", params={"id_token_hint": login})
    submitted(browser, page, logout="yes")

    # The service ends the tasks of that session, and says so in the overlay.
    begun = time.monotonic()
    while not operator.entries():
        assert time.monotonic() < begun + 10, "the overlay does not say so"
        time.sleep(0.01)


def refused(turns: Iterable[tuple[str, str | Denied]]) -> None:
    """The next call of each agent, all of which are refused."""
    print("The next call of each")
    for agent, denied in turns:
        assert isinstance(denied, Denied), f"{agent} goes on"
        assert denied.decision.code == "revoked"
        print(f"  {agent:<15}{denied.decision.code}")


def nothing_more(office: Issuance, who: dict[str, Any]) -> None:
    """The login is over for the service, too."""
    try:
        office.start(**who, grant="risk-report", task="q3")
    except IssuanceError as error:
        print(f"and the same login starts nothing more: {error.code}")
    else:
        raise AssertionError("started again")


def written() -> None:
    """What the company itself finds in its database: the half that was written."""
    print("\nWhat was written until then")
    for agent, finding in database.execute("select agent, finding from results"):
        assert finding.startswith("north"), finding
        print(f"  {finding}  ({agent})")


def audit(lines: io.BytesIO) -> None:
    """The audit tree: who handed on to whom, what each was allowed, and why no more."""
    print("\nWho did what, and why it was over")
    told = list(read(lines.getvalue().splitlines(keepends=True)))
    for hop in trails.gather(told).hops():
        # Of the ratings server the orchestrator has asked nothing itself.
        if not hop.decisions:
            continue
        why = ", ".join({one.code for one in hop.decisions if not one.allowed})
        path = " > ".join(hop.holders)
        print(f"  {path:<45}{hop.allowed} allowed, {hop.denied} denied: {why}")

    # In words: what each record of a refusal says.
    words = {one["text"] for record in told for one in record.get("refusals", ())}
    print(*(f"  {text}" for text in words), sep="\n")


def trips(requests: int) -> None:
    """How often an issuer was asked. By RFC 8693 it is asked for each agent at each server."""
    agents, servers = 6, 2
    print(f"\nRound trips to an issuer, for {agents} agents and {servers} servers")
    print(f"  captoken                         {requests:>3}   one for each server")
    print(f"  OAuth token exchange (RFC 8693)  {agents * servers:>3}   one for each agent at each")
    assert requests == 2


with tempfile.TemporaryDirectory() as made:
    main(Path(made))
database.close()
