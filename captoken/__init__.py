"""Capability tokens for agents, based on macaroons.

Any holder can narrow a token offline, and any server can verify it. Your own caveats, the adapters
and the other errors are in `captoken.caveats`, `captoken.adapters` and `captoken.errors`. The
format is in `spec/captoken-v1.md`.
"""

from typing import TYPE_CHECKING

from captoken._format.lazy import lazily

if TYPE_CHECKING:
    from captoken._format.errors import CaptokenError, TokenFormatError, WideningError
    from captoken._language.access import Access, Caller
    from captoken._language.capability import Capability
    from captoken._language.link import Actor
    from captoken._verification.decision import Decision, Denied
    from captoken._verification.grant import AsyncGrant, Grant
    from captoken._verification.verifier import AsyncVerifier, Verifier
    from captoken._writing.issuer import Issuer
    from captoken._writing.token import Token
    from captoken._writing.token_set import TokenSet
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
    "TokenSet",
    "Verifier",
    "WideningError",
]

__getattr__ = lazily(
    globals(),
    {
        "Access": "captoken._language.access",
        "Actor": "captoken._language.link",
        "AsyncGrant": "captoken._verification.grant",
        "AsyncVerifier": "captoken._verification.verifier",
        "Caller": "captoken._language.access",
        "Capability": "captoken._language.capability",
        "CaptokenError": "captoken._format.errors",
        "Decision": "captoken._verification.decision",
        "Denied": "captoken._verification.decision",
        "Grant": "captoken._verification.grant",
        "Issuer": "captoken._writing.issuer",
        "Keyring": "captoken.keys.keyring",
        "Token": "captoken._writing.token",
        "TokenFormatError": "captoken._format.errors",
        "TokenSet": "captoken._writing.token_set",
        "Verifier": "captoken._verification.verifier",
        "WideningError": "captoken._format.errors",
    },
)


def __dir__() -> list[str]:
    return [*__all__, *globals()]
