"""Capability tokens for agents: macaroon-style bearer tokens that any holder narrows offline, and any server verifies.

Own caveats, adapters and the other errors live in the modules of their names: `captoken.caveats`, `captoken.adapters`,
`captoken.errors`. The format is in `spec/captoken-v1.md`.
"""

from captoken.access import Access, Caller
from captoken.capability import Capability
from captoken.decision import Actor, Decision
from captoken.errors import CaptokenError, Denied, TokenFormatError, WideningError
from captoken.grant import Grant
from captoken.keyring import Keyring
from captoken.mint import Issuer
from captoken.tokens import Token
from captoken.verify import Verifier

__all__ = [
    "Access",
    "Actor",
    "Caller",
    "Capability",
    "CaptokenError",
    "Decision",
    "Denied",
    "Grant",
    "Issuer",
    "Keyring",
    "Token",
    "TokenFormatError",
    "Verifier",
    "WideningError",
]
