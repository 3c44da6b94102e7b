"""All of a trial as one application: the service of issuance, its provider, and an MCP server."""

from __future__ import annotations

from captoken.adapters._http.exchange import Receive, Response, Scope, Send, respond, values_of
from captoken.adapters.issuance import IssuanceService
from captoken.cli.trial.people import People
from captoken.cli.trial.server import AUDIENCE, notes
from captoken.issuance.documents import Documents
from captoken.issuance.keys import ProviderKeys
from captoken.issuance.policy import read
from captoken.issuance.registry import MemoryRegistry
from captoken.keys.keyring import Keyring

_CLIENT = "captoken-trial"
_POLICY = """
version = 1
[service]
origin = "{origin}"

[provider.people]                             # alice and bob, without passwords
kind = "oidc"
issuer = "{origin}/people"
client_ids = []                               # nobody shows ID tokens here: people log in
max_login_age = 28800
subject = "people:{{sub}}"

[login]                                       # where people log in
provider = "people"
client_id = "captoken-trial"

[client.inspector]                            # applications that have no document of their own
name = "MCP Inspector, or another program"
redirects = [
    "http://127.0.0.1/callback",
    "http://127.0.0.1/oauth/callback",
    "http://localhost:6274/oauth/callback",
    "http://localhost:6274/oauth/callback/debug",
    "http://localhost:6276/oauth/callback",
]

[resource.notes]
uris = ["{origin}/mcp"]

[grant.notes]                                 # what anybody may let an application do
subject = {{ provider = "people" }}
clients = ["inspector", "*"]
agents = ["assistant"]
resources = ["notes"]
task_max = 28800

[grant.notes.give]
expires_in = 900

[grant.notes.give.tools.read_note]

[grant.notes.give.tools.write_note]
name = {{ prefix = ["draft"] }}
text = {{ any = true }}
"""


class Trial:
    """The application. `origin` is where it will be: on loopback.

    `documents`: those of applications, fetched unless given.
    """

    def __init__(self, origin: str, documents: Documents | None = None) -> None:
        keyring = Keyring.generate()
        self._host = origin.partition("://")[2].encode()
        policy = read(_POLICY.format(origin=origin))
        self._people = People(f"{origin}/people", _CLIENT, f"{origin}/login/callback")
        self._service = IssuanceService(
            policy,
            keyring,
            MemoryRegistry(floor=0),
            # They are asked for before this serves.
            keys=ProviderKeys(policy, sources={"people": self._people.keys}),
            documents=documents,
            is_trial=True,
        )
        self._guarded, self._notes = notes(keyring.for_audience(AUDIENCE), origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, by its path; or the lifespan of all of it."""
        if scope["type"] == "lifespan":
            async with self._notes.router.lifespan_context(self._notes):
                await self._service(scope, receive, send)
            return
        if scope["type"] == "http" and values_of(scope["headers"], b"host") != [self._host]:
            # By another name it is a page of somebody else's that has found this port.
            response = Response.of(421, b"text/plain", b"This trial is at 127.0.0.1 alone.")
            return await respond(send, response)
        path = scope["path"]
        if path == "/mcp" or path.endswith("oauth-protected-resource/mcp"):
            await self._guarded(scope, receive, send)
        elif path.startswith("/people/") and scope["type"] == "http":
            await self._people({**scope, "root_path": "/people"}, receive, send)
        else:
            await self._service(scope, receive, send)
