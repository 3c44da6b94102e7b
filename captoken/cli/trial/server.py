"""The MCP server of a trial: notes, which a token says who may read and write."""

from __future__ import annotations

from typing import Any

from captoken._format.extras import extra
from captoken._verification.verifier import Verifier
from captoken.keys.keyring import Keyring

AUDIENCE = "notes"


def notes(keyring: Keyring, origin: str) -> tuple[Any, Any]:
    """The server as an ASGI application, and the session manager that runs with it.

    `keyring`: the root keys of this server alone. `origin`: where the issuer is, and this too.
    """
    with extra("mcp"):
        from mcp.server import MCPServer
    from captoken.adapters.mcp import Guard

    guard = Guard(Verifier(keyring, audience=AUDIENCE))
    server: Any = MCPServer("notes", log_level="WARNING")
    kept = {"milk": "Buy milk.", "rent": "The rent is due on the first."}

    def read_note(name: str) -> str:
        """Read one note."""
        return kept.get(name, "There is no such note.")

    def write_note(name: str, text: str) -> str:
        """Write a note, or write it anew."""
        if len(kept) >= 100 and name not in kept:
            return "There is no room for another note."
        kept[name] = text[:1000]
        return f"Written: {name}"

    def delete_notes() -> str:
        """Delete all notes. No token of this trial permits it."""
        kept.clear()
        return "All notes are deleted."

    for tool in (read_note, write_note, delete_notes):
        server.tool()(tool)
    guard.install(server)
    app = server.streamable_http_app()
    guarded = guard.challenging(
        app,
        resource=f"{origin}/mcp",
        resource_metadata={"authorization_servers": [origin], "scopes_supported": ["notes"]},
        step_up=True,
    )
    return guarded, app
