"""The effect of each security event: the table for SSF, CAEP and RISC.

Each row says which grants' tasks end, which are narrowed instead, or that the event is only noted.
No row gives rights back: when somebody's state improves, ended tasks stay ended.

If an event leaves something out, or uses an unknown word, the worst case is assumed. An event of an
unknown kind is only noted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import msgspec

from captoken.issuance.claims import Matcher, path_of
from captoken.issuance.jose import Json
from captoken.issuance.policy import Policy, PolicyGrant

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"

SESSION_REVOKED = f"{CAEP}session-revoked"
STREAM_UPDATED = f"{SSF}stream-updated"


class Consequence(NamedTuple):
    """What comes of the tasks of a subject. As `Ending` has it."""

    # The grants whose tasks are meant; None means those of any grant.
    grants: tuple[str, ...] | None = None

    # What each grant is narrowed to instead: the keywords of `attenuate`, as JSON.
    instead: Mapping[str, bytes] = {}

    # Also of grants that the policy has no more: what they would do instead is not known.
    and_removed: bool = False


ALL = Consequence()
NOTHING = Consequence(())


def consequence_of(
    event: str,
    payload: Json,
    policy: Policy,
    provider: str,
) -> Consequence | None:
    """What an event does to tasks that a provider's assertions started. None: it is noted.

    Does not check who tells it, nor whom it is about: `signals` does.
    """
    rule = _RULES.get(event)
    return None if rule is None else rule(payload, policy, provider)


def alarms(event: str, payload: Json) -> bool:
    """Does a stream say that it will tell nothing any more?"""
    return event == STREAM_UPDATED and payload.get("status") != "enabled"


# --- the rows -------------------------------------------------------------------------------------


def _ends(payload: Json, policy: Policy, provider: str) -> Consequence | None:
    """Whatever it says beside its name."""
    return ALL


def _credential(payload: Json, policy: Policy, provider: str) -> Consequence | None:
    """Somebody may have taken it from its owner. A new one takes nothing from anybody."""
    return None if payload.get("change_type") == "create" else ALL


def _assurance(payload: Json, policy: Policy, provider: str) -> Consequence | None:
    """A login that is worth less: for grants that ask how somebody logged in."""
    if payload.get("change_direction") == "increase":
        return None
    instead = _instead("assurance-level-change", policy)
    asking = (
        name
        for name, grant in policy.grants.items()
        if name in instead or _asks_for_acr(grant, policy, provider)
    )
    return Consequence(
        grants=tuple(asking),
        instead=instead,
        and_removed=True,
    )


def _compliance(payload: Json, policy: Policy, provider: str) -> Consequence | None:
    """A device that is not in order. When it is again, nothing is lifted."""
    if payload.get("current_status") == "compliant":
        return None
    instead = _instead("device-compliance-change", policy)
    if not instead:
        return ALL
    return Consequence(
        grants=tuple(policy.grants),
        instead=instead,
        and_removed=True,
    )


def _risk(payload: Json, policy: Policy, provider: str) -> Consequence | None:
    """Somebody who is at risk. Between low and high, a grant may say what it then does.

    A grant that says nothing of it goes on.
    """
    level = payload.get("current_level")
    if level == "LOW":
        return None
    # Also one that is missing, or not known here.
    if level != "MEDIUM":
        return ALL
    instead = _instead("risk-level-change", policy)
    return Consequence(grants=tuple(instead), instead=instead) if instead else None


def _claims(payload: Json, policy: Policy, provider: str) -> Consequence | None:
    """Claims are others now: tasks of grants that no longer fit end."""
    changed = payload.get("claims")
    if type(changed) is not dict:
        return ALL
    # What the provider requires of all is asked of every grant.
    if any(_is_lost(matcher, changed) for matcher in policy.required[provider]):
        return ALL
    lost = (
        name
        for name, grant in policy.grants.items()
        if any(_is_lost(matcher, changed) for matcher in _matchers(grant, provider))
    )
    return Consequence(tuple(lost), and_removed=True)


_Rule: TypeAlias = Callable[[Json, Policy, str], Consequence | None]

_RULES: dict[str, _Rule] = {
    SESSION_REVOKED: _ends,
    f"{CAEP}credential-change": _credential,
    f"{CAEP}assurance-level-change": _assurance,
    f"{CAEP}device-compliance-change": _compliance,
    f"{CAEP}risk-level-change": _risk,
    f"{CAEP}token-claims-change": _claims,
    f"{RISC}account-disabled": _ends,
    f"{RISC}account-purged": _ends,
    f"{RISC}credential-compromise": _ends,
    f"{RISC}sessions-revoked": _ends,
}


# --- what the rows ask ----------------------------------------------------------------------------


def _instead(event: str, policy: Policy) -> dict[str, bytes]:
    """What grants do at that event instead of ending (`on` in the policy)."""
    return {
        name: msgspec.json.encode(grant.on[event])
        for name, grant in policy.grants.items()
        if event in grant.on
    }


def _matchers(grant: PolicyGrant, provider: str) -> tuple[Matcher, ...]:
    """What a grant asks of the subject's claims, if its subjects are of that provider."""
    starts = grant.parties[0]
    return starts.matchers if starts.provider == provider else ()


def _asks_for_acr(grant: PolicyGrant, policy: Policy, provider: str) -> bool:
    """Does it matter to a grant how somebody logged in? Also if the provider requires it of all."""
    if grant.parties[0].provider != provider:
        return False
    asked = (*policy.required[provider], *_matchers(grant, provider))
    return any(_claim_of(matcher) == "acr" for matcher in asked)


def _is_lost(matcher: Matcher, changed: Json) -> bool:
    """Is a claim another one now, and not what is asked for?"""
    return _claim_of(matcher) in changed and not matcher.matches(changed)


def _claim_of(matcher: Matcher) -> str:
    """The claim that it looks at, or looks into by a JSON Pointer."""
    return path_of(matcher.claim)[0]
