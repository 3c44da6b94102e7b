"""What a token says of itself, before anybody has verified it, is called that."""

from __future__ import annotations

from captoken import Token
from tests.fixtures import NOW, mint


def test_what_a_token_says_of_itself_is_called_unverified() -> None:
    token = mint().delegate(to="b", expires_in=60, where={"region": {"in": ["eu"]}})
    said = Token.parse(token.serialize()).unverified
    assert (said.root.subject, said.holder, said.task, said.expires_at) == ("user:jane", "b", "task-123", NOW + 60)
    assert len(said.links) == 2 and said.bodies[1].startswith(b'{"exp"') and not said.capability.nothing
    assert "unverified" in repr(token).lower() and "held by b" in repr(token)
