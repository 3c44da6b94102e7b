"""What the audit trail says of exchanges: who asked for what, and what came of it (spec 39.10).

A record of each token, and of each refusal of somebody whose assertions held. Without its record no
token leaves. Whoever was not verified has none: what a stranger says is nobody's word.

No record has an assertion or a token. What was asked is text of the caller's: what is long in it
is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from captoken._format import chain, primitives
from captoken._format.encoding import b64encode, encode_json
from captoken._format.errors import IssuanceError, StoreError
from captoken._verification.decision import Attribution
from captoken._writing.token import Token
from captoken.audit._kept import TrailKept
from captoken.audit.trail import AuditTrail, plain
from captoken.issuance.identity import Identity
from captoken.issuance.minting import Ask
from captoken.keys.keyring import Keyring

_log = logging.getLogger("captoken.issuance")

# The longest text of a caller, in characters. An assertion and a token are longer.
_LONGEST = 128

# The most bytes of requested keywords. If there are more, only their names are recorded.
_MOST = 4096

# The most names that are recorded then.
_NAMES = 32


class Asking(msgspec.Struct, frozen=True):
    """One exchange of somebody who is verified."""

    # When it was, in seconds since the epoch.
    at: int

    # The digest of the policy.
    policy: str

    # Who was verified, and what they want.
    subject: Identity | None
    actor: Identity | None
    ask: Ask


class Records:
    """Writes them. Every method blocks."""

    def __init__(self, trail: AuditTrail | TrailKept) -> None:
        self._trail = trail

    def granted(self, asking: Asking, grant: str, root: Token, keyring: Keyring) -> None:
        """Before the token leaves. Raises StoreError: then it does not."""
        minted = _attributed(root, keyring)
        stated = _stated(asking, "issued")
        stated |= {"allowed": True, "grant": grant}
        self._write(stated, minted)

    def refused(self, asking: Asking, error: IssuanceError) -> None:
        """Before it is answered, also what the caller is not told. Raises StoreError."""
        stated = _stated(asking, error.code)
        stated |= {"allowed": False, "told": str(error)}
        if error.why:
            stated["why"] = error.why
        self._write(stated, None)

    def _write(self, stated: dict[str, Any], minted: Attribution | None) -> None:
        """Write one. Raises StoreError, whatever went wrong, without telling what."""
        try:
            self._trail.record_issuance(stated, minted)
        # Whatever a trail raises, there is no record.
        except Exception as error:
            _log.error("an exchange has no record: %s", error)
        else:
            return
        raise StoreError("the audit trail cannot be written")


def _attributed(root: Token, keyring: Keyring) -> Attribution:
    """Who is behind a token that is about to leave: its chain holds under that keyring.

    Raises StoreError. Discharges are not asked: nobody has answered yet.
    """
    said = root.unverified
    derived = keyring.derived(said.root.key_id, said.root.audience)
    tags = None if derived is None else chain.fold(derived, root.secret_packet)
    if tags is None:
        raise StoreError("the keyring changed while the token was minted")

    # What is recorded of a link is its id, by which nobody can use the token.
    links = tuple(map(b64encode, primitives.link_ids(tags)))
    return Attribution(
        said.root,
        said.lineage.chain(),
        said.task,
        links,
        root.secret_packet.caveats,
    )


def _stated(asking: Asking, code: str) -> dict[str, Any]:
    """Return the facts that every record of an exchange has."""
    stated: dict[str, Any] = {
        "at": asking.at,
        "code": code,
        "policy": asking.policy,
    }

    # A workload alone started it, too.
    starts = asking.subject or asking.actor
    if starts is not None:
        stated["subject"] = _who(starts)
    if asking.actor is not None and asking.actor != starts:
        stated["actor"] = _who(asking.actor)
    if asking.ask.client is not None:
        stated["client"] = asking.ask.client
    stated["asked"] = _asked(asking.ask)
    return stated


def _who(identity: Identity) -> dict[str, Any]:
    """Somebody, as their provider calls them, and by which kind of assertion that is known."""
    return {
        "provider": identity.provider,
        "basis": identity.kind,
        "iss": identity.issuer,
        "sub": identity.sub,
    }


def _asked(ask: Ask) -> dict[str, Any]:
    """What was asked for, as far as anything was."""
    stated: dict[str, Any] = {
        name: plain(value, longest=_LONGEST)
        for name in ("grant", "agent", "task")
        if (value := getattr(ask, name)) is not None
    }
    if ask.resources:
        named = plain([*ask.resources], longest=_LONGEST)
        stated["resource"] = named[0] if len(named) == 1 else named
    if ask.keywords:
        stated["keywords"] = _keywords(ask.keywords)
    if ask.clamp:
        stated["clamp"] = True
    return stated


def _keywords(keywords: Mapping[str, Any]) -> Any:
    """The keywords of a request. Their names alone, where they are long."""
    whole = plain(dict(keywords), longest=_LONGEST)
    if len(encode_json({"keywords": whole})) <= _MOST:
        return whole
    return sorted(name for name in keywords if len(name) <= _LONGEST)[:_NAMES]
