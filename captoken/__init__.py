"""Capability tokens for agents: macaroon-style bearer tokens that any holder narrows offline,
and any server verifies.

Own caveats, adapters and the other errors live in the modules of their names: `captoken.caveats`,
`captoken.adapters`, `captoken.errors`. The format is in `spec/captoken-v1.md`.
"""

from captoken._format.errors import CaptokenError, TokenFormatError, WideningError
from captoken._language.access import Access, Caller
from captoken._language.capability import Capability
from captoken._language.lineage import Actor
from captoken._verification.decision import AsyncGrant, Decision, Denied, Grant
from captoken._verification.verifier import AsyncVerifier, Verifier
from captoken._writing.issuer import Issuer
from captoken._writing.token import Token
from captoken.keys.keyring import Keyring

__all__ = [
    "Access",
    "Actor",
    "AsyncGrant",
    "AsyncVerifier",
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


def _say_where_they_are() -> None:
    """The public classes say their public module, and their annotations still resolve there."""
    from typing import get_type_hints

    for name in __all__:
        public = globals()[name]
        own = vars(public).get("__annotations__", {})
        hints = get_type_hints(public, include_extras=True)
        public.__annotations__ = {key: hints[key] for key in own}
        public.__module__ = __name__


_say_where_they_are()
del _say_where_they_are
