"""What the service says of itself."""

from __future__ import annotations

import json

from tests.issuance.test_issuance import EXCHANGE, ORIGIN, World


def test_it_says_what_it_is(world: World) -> None:
    said = world.send("GET", "/.well-known/oauth-authorization-server").json()
    assert said["issuer"] == ORIGIN and said["token_endpoint"] == f"{ORIGIN}/token" and EXCHANGE in said["grant_types_supported"]
    assert "q3" not in json.dumps(said) and said["authorization_grant_profiles_supported"]
    assert world.send("GET", "/authorize").json()["error"] == "unsupported_response_type"
    assert world.send("GET", "/health").json() == {"status": "ok"}
    assert world.send("GET", "/token").status_code == 405 and world.send("GET", "/jwks").status_code == 404
