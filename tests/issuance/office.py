"""The service on a real server of this machine, with providers that sign for it, and what their people and workloads show."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any

from captoken import Access, Keyring, Verifier
from captoken.adapters.issuance import IssuanceService
from captoken.issuance.policy import read
from captoken.issuance.registry import MemoryRegistry
from captoken.keys import DischargerKey
from tests.adapters.serving import listening, origin_of, served

from .signing import Provider

NODE = Path(__file__).parent / "node"
KEYRING = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1")
LEASE = DischargerKey.from_bytes(bytes(range(2, 34)))
SALES = Access(table="sales", operation="select")
CLIENT = "https://robot.example"  # what an OAuth client is called: it signs for itself, so that it is an issuer
SECRET = "s3cret-of-a-client"

POLICY = """
version = 1
[service]
origin = "{origin}"
[provider.acme]
kind = "oidc"
issuer = "{issuer}"
client_ids = ["captoken-cli"]
max_login_age = 28800
subject = "acme:{{sub}}"
{jwks_acme}
[provider.ci]
kind = "workload"
issuer = "https://robot.example"
jwks = "{folder}/ci.json"
subject = "ci:{{sub#}}"
[provider.partner]
kind = "id-jag"
issuer = "https://partner.example"
jwks = "{folder}/partner.json"
subject = "partner:{{sub#}}"
[client.mcp-client]
secret_sha256 = "{secret}"
[resource.sales-db]
uris = {uris}
[resource.sentiment-api]
[resource.mail]
[grant.report]
subject = {{ provider = "acme", groups = ["finance"] }}
actor = {{ provider = "ci", sub = "https://robot.example" }}
agents = ["orchestrator"]
resources = ["sales-db"]
lease = {lease}
give = {{ allow = {{ "sales" = ["select", "insert"] }}, expires_in = 900 }}
[grant.bound]
subject = {{ provider = "acme", groups = ["finance"] }}
agents = ["orchestrator"]
resources = ["sales-db"]
bound = true
give = {{ allow = {{ "sales" = ["select", "insert"] }}, expires_in = 900 }}
[grant.sentiment]
subject = {{ provider = "acme", groups = ["finance"] }}
actor = {{ provider = "ci", sub = "https://robot.example" }}
agents = ["orchestrator"]
resources = ["sentiment-api"]
joins = ["report"]
give = {{ tools = {{ "sentiment.score" = {{ issuer = {{ any = true }} }} }}, budget = {{ usd_cents = 500 }}, expires_in = 600 }}
[grant.brief]
subject = {{ provider = "acme", groups = ["finance"] }}
actor = {{ provider = "ci", sub = "https://robot.example" }}
agents = ["orchestrator"]
resources = ["sales-db", "mail"]
[grant.brief.give]
expires_in = 900
[grant.brief.give.servers]
sales-db = {{ allow = {{ "sales" = ["select", "insert"] }} }}
mail = {{ tools = {{ "send" = {{}} }} }}
[grant.nightly]
subject = {{ provider = "ci", sub = "https://robot.example" }}
agents = ["nightly"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
[grant.guests]
subject = {{ provider = "partner", sub = "gus" }}
agents = ["guest"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
"""


class Office:
    """Where the service is, and who signs for it."""

    def __init__(self, origin: str, registry: MemoryRegistry) -> None:
        self.origin = origin
        self.registry = registry
        self.acme, self.ci, self.partner = Provider("a"), Provider("c"), Provider("p")

    def login(self, **claims: Any) -> str:
        now = int(time())
        made = {
            "iss": "https://login.acme.example", "sub": "jane", "aud": "captoken-cli", "iat": now, "exp": now + 300, "auth_time": now - 5,
            "groups": ["finance"], "sid": "s1", **claims,
        }  # fmt: skip
        return self.acme.sign(made)

    def workload(self, **claims: Any) -> str:
        now = int(time())
        return self.ci.sign({"iss": CLIENT, "sub": CLIENT, "aud": self.origin, "iat": now, "exp": now + 300, **claims})

    def jag(self, **claims: Any) -> str:
        now = int(time())
        made = {
            "iss": "https://partner.example", "sub": "gus", "aud": self.origin, "iat": now, "exp": now + 200, "client_id": "mcp-client", **claims,
        }  # fmt: skip
        return self.partner.sign(made, typ="oauth-id-jag+jwt")


@contextmanager
def opened(
    folder: Path,
    *,
    issuer: str = "https://login.acme.example",
    uris: tuple[str, ...] = (),
    lease: int = 0,
) -> Iterator[Office]:
    """The service, until the block ends. Another `issuer` than ours has its keys where it says."""
    socket = listening()
    one = Office(origin_of(socket), MemoryRegistry(floor=0))
    for name, provider in {"acme": one.acme, "ci": one.ci, "partner": one.partner}.items():
        (folder / f"{name}.json").write_bytes(provider.jwks())
    text = POLICY.format(
        origin=one.origin,
        issuer=issuer,
        folder=folder,
        jwks_acme=f'jwks = "{folder}/acme.json"' if issuer.endswith("acme.example") else "",
        secret=sha256(SECRET.encode()).hexdigest(),
        uris=json.dumps(["https://sales.example/mcp", *uris]),
        lease=lease,
    )
    app = IssuanceService(read(text), KEYRING, one.registry, lease=LEASE if lease else None)
    with served(app, socket, lifespan="on"):
        yield one


def at_sales(text: str, access: Access = SALES) -> str:
    """What the resource server says, which has the keys of its own alone."""
    return Verifier(KEYRING.for_audience("sales-db"), "sales-db").check(text, access).code


def node(program: str, stated: Mapping[str, Any]) -> Any:
    """What a program of the folder `node` says of this."""
    needs_node()
    done = subprocess.run(["node", program], cwd=NODE, input=json.dumps(stated), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def needs_node() -> None:
    """Fails, and never skips, where Node or its packages are missing."""
    assert (NODE / "node_modules").is_dir(), "run once: npm ci --prefix tests/issuance/node"
