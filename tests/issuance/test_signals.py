"""What ends a login ends its tasks: signals verified and made into effects, and what the service does of them.

The numbers are those of the cases that must be denied, each with a twin that passes.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from captoken import Token
from captoken.adapters._issuance import ends as published
from captoken.adapters._issuance.ends import Publisher
from captoken.adapters.issuance import IssuanceService, Setup
from captoken.control import Operator
from captoken.errors import IssuanceError, StoreError
from captoken.issuance import events, policy, signals
from captoken.issuance.registry import Ending, MemoryRegistry, Unpublished
from captoken.issuance.registry.ports import LEEWAY
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.issuance.signals import EVENT, LOGOUT, Effect
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from captoken.testing import FixedClock

from . import fixtures as usual
from .assertions import LOGIN, NOW, POLICY, US, identify, joined, keys, private, signed, without
from .test_issuance import ACME, EVENTS, MESH, ORIGIN, Gone, World, exchange, login, proof, svid

LOGGED_OUT = "http://schemas.openid.net/event/backchannel-logout"
LOGGING_OUT = {
    "iss": "https://login.acme.example", "sub": "jane", "sid": "s-1", "aud": "captoken-cli", "jti": "l-1", "iat": NOW - 10, "exp": NOW + 110,
    "events": {LOGGED_OUT: {}},
}  # fmt: skip
SIBLINGS = policy.read(
    usual.POLICY.replace(
        "[provider.partner]",
        """[provider.acme-api]
kind = "access-token"
issuer = "https://login.acme.example"
subject = "acme-api:{sub}"
[provider.acme-other]
kind = "id-jag"
issuer = "https://login.acme.example"
subject = "acme-other:{oid}"
[provider.acme-actors]
kind = "workload"
issuer = "https://login.acme.example"
[provider.partner]""",
    )
)


def told(
    claims: Any, kind: str = LOGOUT, *, by: str = "acme", header: Any = (), over: policy.Policy = POLICY, now: int = NOW
) -> Effect:
    text = claims if isinstance(claims, str) else signed(by, claims, header={"typ": kind, **dict(header)})
    return signals.effect_of(signals.open_signal(text, over, kind), over, keys, now)


def refused(claims: Any, kind: str = LOGOUT, **facts: Any) -> tuple[str, str]:
    with pytest.raises(IssuanceError) as caught:
        told(claims, kind, **facts)
    return caught.value.code, str(caught.value)


# --- a logout token --------------------------------------------------------------------------------------------------


def test_a_logout_of_a_session() -> None:
    """With a `sub` beside it also what that person started without one: it could be of this session."""
    ended = Ending(now=NOW, provider="acme", session="s-1", issued_at=NOW - 10, jti="l-1")
    bare = Ending(
        now=NOW, provider="acme", subject="acme:jane", sessionless=True, issued_at=NOW - 10, jti="l-1", stream="acme sessionless"
    )
    assert told(LOGGING_OUT) == Effect("acme", "l-1", (ended, bare), "logout of a session")
    assert told(without(LOGGING_OUT, "sub")) == Effect("acme", "l-1", (ended,), "logout of a session")
    text = signed("acme", LOGGING_OUT, header={"typ": LOGOUT})
    opened = signals.open_signal(text, POLICY, LOGOUT)
    assert (opened.name, opened.kid) == ("acme", "acme-ES256")


def test_a_logout_of_a_person_is_of_all_sessions() -> None:
    ended = Ending(now=NOW, provider="acme", subject="acme:jane", issued_at=NOW - 10, jti="l-1")
    assert told(without(LOGGING_OUT, "sid")) == Effect("acme", "l-1", (ended,), "logout of all sessions of a person")


def test_a_logout_is_for_all_that_the_login_gave() -> None:
    """An access token of that login started tasks as well. Where the subject has no name, the log says so."""
    effect = told(LOGGING_OUT, over=SIBLINGS)
    assert {(one.provider, one.session, one.subject) for one in effect.endings} == {
        ("acme", "s-1", None),
        ("acme-api", "s-1", None),
        ("acme-other", "s-1", None),
        # And what they started without a session. At the third nobody is called so.
        ("acme", None, "acme:jane"),
        ("acme-api", None, "acme-api:jane"),
    }
    assert all(one.sessionless is (one.session is None) for one in effect.endings)
    assert len({(one.stream or one.provider, one.jti) for one in effect.endings}) == 5, "none is heard before"
    effect = told(without(LOGGING_OUT, "sid"), over=SIBLINGS)
    assert {(one.provider, one.subject) for one in effect.endings} == {("acme", "acme:jane"), ("acme-api", "acme-api:jane")}
    assert "provider acme-other" in effect.note and "oid" in effect.note


def test_a_person_who_has_no_name_here_is_not_passed_over() -> None:
    claims = without(LOGGING_OUT, "sid") | {"sub": "auth0|jane/ü"}
    code, says = refused(claims)
    assert (code, says) == ("invalid_request", "the signal is refused: its subject has no name here")
    assert told(claims | {"sub": "auth0-jane"}).endings


def test_a_provider_that_starts_nothing_has_nothing_to_end() -> None:
    """It names actors alone. The logout is heard, and that is all."""
    claims = LOGGING_OUT | {"iss": "https://keycloak.example/realms/acme"}
    assert len(told(without(claims, "sub"), by="keycloak").endings) == 1
    unnamed = msgspec.structs.replace(
        POLICY, subjects={name: one for name, one in POLICY.subjects.items() if name != "keycloak"}
    )
    assert told(claims, by="keycloak", over=unnamed) == Effect("keycloak", "l-1", (), "logout of a session")


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "28 an ID token": ({"events": None}, "one event"),
    "28 with a nonce": ({"nonce": "n"}, "nonce"),
    "85 two events": ({"events": {LOGGED_OUT: {}, "https://other.example/event": {}}}, "one event"),
    "85 another event": ({"events": {"https://other.example/event": {}}}, "no logout"),
    "an event that is no object": ({"events": {LOGGED_OUT: []}}, "no object"),
    "a list of events": ({"events": [LOGGED_OUT]}, "one event"),
    "nobody": ({"sub": None, "sid": None}, "neither"),
    "sid is no text": ({"sid": 7}, "sid is no text"),
    "an empty sid": ({"sid": ""}, "sid is no text"),
    "sub is no text": ({"sub": ["jane"]}, "sub is no text"),
    "no jti": ({"jti": None}, "no jti"),
    "an empty jti": ({"jti": ""}, "jti is no text"),
    "40 expired": ({"exp": NOW - 31}, "expired"),
    "41 exp is text": ({"exp": str(NOW + 60)}, "exp is no time"),
    "41 no exp": ({"exp": None}, "no exp"),
    "42 too long a life": ({"exp": NOW + 3600}, "good for"),
    "43 ahead": ({"iat": NOW + 31, "exp": NOW + 60}, "future"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_logout_with_one_fault(fault: str) -> None:
    changed, says = FAULTS[fault]
    claims = {name: value for name, value in (LOGGING_OUT | changed).items() if value is not None}
    code, message = refused(claims)
    assert code == "invalid_request" and says in message
    assert told(LOGGING_OUT).endings, "its twin"


@pytest.mark.parametrize("aud", ["other", ["captoken-cli", "other"], [], None, 7, "https://issuer.example"], ids=repr)
def test_31_a_logout_for_another_application(aud: Any) -> None:
    claims = {name: value for name, value in (LOGGING_OUT | {"aud": aud}).items() if value is not None}
    assert refused(claims)[0] == "invalid_audience"
    for good in ("captoken-web", ["captoken-web", "captoken-cli"]):
        assert told(LOGGING_OUT | {"aud": good}).endings


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"typ": "JWT"}, "invalid_request"), ({"typ": "LOGOUT+JWT"}, "invalid_request"), ({"typ": "secevent+jwt"}, "invalid_request"),
        ({"jwk": {}}, "invalid_request"), ({"crit": []}, "invalid_request"), ({"kid": ""}, "invalid_request"), ({"alg": "none"}, "invalid_request"),
        ({"alg": "HS256"}, "invalid_request"), ({"alg": "RS256"}, "invalid_key"), ({"kid": "acme-api-ES256"}, "invalid_key"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_logout_with_another_header(header: dict[str, Any], code: str) -> None:
    made = {"alg": "ES256", "kid": "acme-ES256", "typ": LOGOUT, **header}
    text = joined(json.dumps(made).encode(), json.dumps(LOGGING_OUT).encode(), private("acme"), "ES256")
    assert refused(text)[0] == code
    assert told(LOGGING_OUT).endings


@pytest.mark.parametrize("text", [None, 7, "", "a.b", "a.b.c.d.e", "x" * 20_000, "cap1.x.y"], ids=lambda text: repr(text)[:12])
def test_what_is_no_signal(text: Any) -> None:
    with pytest.raises(IssuanceError) as caught:
        signals.open_signal(text, POLICY, LOGOUT)
    assert caught.value.code == "invalid_request"


def test_28_a_logout_is_no_login_and_a_login_no_logout() -> None:
    """Whatever its `typ` says."""
    takes = ("oidc",)
    for typ in (LOGOUT, "JWT"):
        text = signed("acme", LOGIN | LOGGING_OUT, header={"typ": typ})
        with pytest.raises(IssuanceError):
            identify(text, POLICY, keys, NOW, "https://issuer.example", takes)
        refused(signed("acme", LOGIN | {"jti": "l-1"}, header={"typ": typ}))
    assert identify(signed("acme", LOGIN), POLICY, keys, NOW, "https://issuer.example", takes).sub == "jane"
    assert told(LOGGING_OUT).endings


def test_83_a_logout_by_another_signer() -> None:
    assert refused(signed("hub", LOGGING_OUT, header={"typ": LOGOUT, "kid": "acme-ES256"}))[0] == "invalid_key"
    assert told(signed("acme", LOGGING_OUT, header={"typ": LOGOUT})).endings


@pytest.mark.parametrize(
    "iss",
    ["https://login.acme.example/", "https://hub.example", "HTTPS://login.acme.example", ["https://login.acme.example"], None],
    ids=repr,
)
def test_84_a_logout_of_another_issuer(iss: Any) -> None:
    """Also of one that is known here, and is for something else."""
    assert refused(LOGGING_OUT | {"iss": iss})[0] == "invalid_issuer"
    assert told(LOGGING_OUT).endings


def test_a_logout_that_two_providers_could_have_sent() -> None:
    twice = '[provider.again]\nkind = "oidc"\nissuer = "https://login.acme.example"\nclient_ids = ["x"]\nmax_login_age = 9\n[provider.partner]'
    with pytest.raises(IssuanceError, match=r"provider\.again: kind and issuer are those of acme"):
        policy.read(usual.POLICY.replace("[provider.partner]", twice))
    one = policy.read(usual.POLICY)
    both = msgspec.structs.replace(one, providers={**one.providers, "again": one.providers["acme"]})
    assert refused(LOGGING_OUT, over=both) == ("invalid_request", "the signal is refused: it could be of several")


# --- a security event -------------------------------------------------------------------------------------------------

CAEP, RISC, SSF = events.CAEP, events.RISC, events.SSF
STREAM = f'''[provider.events]
kind = "signals"
issuer = "https://login.acme.example"
about = "acme"
audience = "{US}/signals"
fail_closed = true
'''
WITH_EVENTS = policy.read(
    usual.POLICY.replace("[provider.partner]", f"{STREAM}[provider.partner]").replace(
        'keys = "shared"', 'keys = "shared"\non = { risk-level-change = { tables = ["sales"] }, assurance-level-change = { operations = ["select"] } }'
    )
)
JANE = {"format": "iss_sub", "iss": "https://login.acme.example", "sub": "jane"}
SESSION = {"format": "opaque", "id": "s-1"}
SELECT, SALES = b'{"operations":["select"]}', b'{"tables":["sales"]}'
EVERY = tuple(WITH_EVENTS.grants)


def event(kind: str, subject: Any = JANE, claims: Any = (), **payload: Any) -> dict[str, Any]:
    made = {
        "iss": "https://login.acme.example", "aud": f"{US}/signals", "jti": "e-1", "iat": NOW - 10, "sub_id": subject,
        "events": {kind: payload}, **dict(claims),
    }  # fmt: skip
    return {name: value for name, value in made.items() if value is not None}


def happened(kind: str, subject: Any = JANE, claims: Any = (), over: policy.Policy = WITH_EVENTS, **payload: Any) -> Effect:
    return told(event(kind, subject, claims, **payload), EVENT, by="events", over=over)


def wrong(kind: str, subject: Any = JANE, claims: Any = (), **payload: Any) -> tuple[str, str]:
    return refused(event(kind, subject, claims, **payload), EVENT, by="events", over=WITH_EVENTS)


END: tuple[Any, Any] = (None, {})
ROWS: dict[str, tuple[str, dict[str, Any], tuple[Any, Any] | None]] = {
    "session-revoked": (f"{CAEP}session-revoked", {}, END),
    "account-disabled": (f"{RISC}account-disabled", {"reason": "hijacking"}, END),
    "account-purged": (f"{RISC}account-purged", {}, END),
    "credential-compromise": (f"{RISC}credential-compromise", {"credential_type": "password"}, END),
    "sessions-revoked": (f"{RISC}sessions-revoked", {}, END),
    "credential revoked": (f"{CAEP}credential-change", {"change_type": "revoke"}, END),
    "credential deleted": (f"{CAEP}credential-change", {"change_type": "delete"}, END),
    "credential updated": (f"{CAEP}credential-change", {"change_type": "update"}, END),
    "credential, and not how": (f"{CAEP}credential-change", {}, END),
    "credential created": (f"{CAEP}credential-change", {"change_type": "create"}, None),
    "assurance decreased": (f"{CAEP}assurance-level-change", {"change_direction": "decrease"}, (("q3-risk", "reading"), {"reading": SELECT})),
    "assurance, and not how": (f"{CAEP}assurance-level-change", {}, (("q3-risk", "reading"), {"reading": SELECT})),
    "assurance increased": (f"{CAEP}assurance-level-change", {"change_direction": "increase"}, None),
    "not compliant": (f"{CAEP}device-compliance-change", {"current_status": "not-compliant"}, (EVERY, {"q3-risk": SELECT})),
    "compliance, and not how": (f"{CAEP}device-compliance-change", {}, (EVERY, {"q3-risk": SELECT})),
    "67 compliant again": (f"{CAEP}device-compliance-change", {"current_status": "compliant", "previous_status": "not-compliant"}, None),
    "risk is high": (f"{CAEP}risk-level-change", {"current_level": "HIGH"}, END),
    "risk, and not how high": (f"{CAEP}risk-level-change", {}, END),
    "risk is medium": (f"{CAEP}risk-level-change", {"current_level": "MEDIUM"}, (("reading",), {"reading": SALES})),
    "67 risk is low again": (f"{CAEP}risk-level-change", {"current_level": "LOW", "previous_level": "HIGH"}, None),
    "claims no longer fit": (f"{CAEP}token-claims-change", {"claims": {"groups": ["sales"]}}, (("q3-risk", "q3-sentiment", "reading"), {})),
    "claims fit one grant": (f"{CAEP}token-claims-change", {"claims": {"groups": ["finance"]}}, (("reading",), {})),
    "claims still fit": (f"{CAEP}token-claims-change", {"claims": {"groups": ["finance", "readers"], "acr": "mfa"}}, ((), {})),
    "claims that nobody asks for": (f"{CAEP}token-claims-change", {"claims": {"role": "x"}}, ((), {})),
    "claims, and not which": (f"{CAEP}token-claims-change", {}, END),
    "session-established": (f"{CAEP}session-established", {}, None),
    "session-presented": (f"{CAEP}session-presented", {}, None),
    "67 account-enabled": (f"{RISC}account-enabled", {}, None),
    "verification": (f"{SSF}verification", {"state": "x"}, None),
    "an event that is not known": ("https://other.example/event-type/x", {}, None),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_an_event_does(row: str) -> None:
    kind, payload, does = ROWS[row]
    effect = told(event(kind) | {"events": {kind: payload}}, EVENT, by="events", over=WITH_EVENTS)
    assert (effect.stream, effect.jti, effect.alarm, effect.note) == ("events", "e-1", False, kind.rpartition("/")[2])
    if does is None:
        assert effect.endings == (), "it is noted"
        return
    (ended,) = effect.endings
    # Whether a grant that was removed would be left out is not known; but for a risk that is medium it is.
    known = EVERY if does[0] is not None and "risk" not in row else None
    assert ended == Ending(
        now=NOW, provider="acme", subject="acme:jane", issued_at=NOW - 10, grants=does[0], known=known, instead=does[1], jti="e-1", stream="events"
    )


def test_a_row_without_grants_of_its_own() -> None:
    """Where no grant says what to do instead, tasks end; and where none is meant, the event is noted."""
    plain = msgspec.structs.replace(
        WITH_EVENTS, grants={name: msgspec.structs.replace(one, on={}) for name, one in WITH_EVENTS.grants.items()}
    )
    (ended,) = happened(f"{CAEP}device-compliance-change", over=plain, current_status="not-compliant").endings
    assert (ended.grants, ended.instead) == END
    (ended,) = happened(f"{CAEP}assurance-level-change", over=plain).endings
    assert ended.grants == ("q3-risk",)
    assert happened(f"{CAEP}risk-level-change", over=plain, current_level="MEDIUM").endings == ()
    others = msgspec.structs.replace(plain, grants={"nightly": plain.grants["nightly"]})
    (ended,) = happened(f"{CAEP}assurance-level-change", over=others).endings
    assert (ended.grants, ended.known) == ((), ("nightly",)), "of grants that were removed alone"


def test_what_a_provider_requires_of_all_is_asked_of_changed_claims() -> None:
    """Also by a JSON Pointer, which looks into a claim."""
    required = 'subject = "acme:{sub}"\nrequire = { "/https:~1~1acme~0/tenant" = "t1", acr = ["mfa"] }'
    strict = policy.read(usual.POLICY.replace("[provider.partner]", f"{STREAM}[provider.partner]").replace('subject = "acme:{sub}"', required))
    for changed, ends in (({"https://acme~": {"tenant": "t2"}}, True), ({"https://acme~": {"tenant": "t1"}}, False), ({"tenant": "t2"}, False)):
        text = event(f"{CAEP}token-claims-change")
        text["events"] = {f"{CAEP}token-claims-change": {"claims": changed}}
        effect = told(text, EVENT, by="events", over=strict)
        assert [one.grants for one in effect.endings] == ([None] if ends else [()])
    (ended,) = happened(f"{CAEP}assurance-level-change", over=strict).endings
    assert ended.grants == ("q3-risk", "q3-sentiment", "reading"), "each asks how somebody logged in"


@pytest.mark.parametrize(("status", "alarm"), [("enabled", False), ("paused", True), ("disabled", True), (None, True)])
def test_a_stream_that_is_paused_is_an_alarm(status: str | None, alarm: bool) -> None:
    effect = happened(f"{SSF}stream-updated", {"format": "opaque", "id": "stream-1"}, status=status)
    assert (effect.endings, effect.alarm) == ((), alarm)


COMPLEX = {"format": "complex", "user": JANE, "session": SESSION, "device": {"format": "opaque", "id": "d"}}
SUBJECTS: dict[str, tuple[str, Any, tuple[str | None, str | None]]] = {
    "a user's sessions": ("session-revoked", JANE, (None, "acme:jane")),
    "a session": ("session-revoked", SESSION, ("s-1", None)),
    "a session of a user": ("session-revoked", COMPLEX, ("s-1", None)),
    "all of a user's": ("device-compliance-change", COMPLEX, (None, "acme:jane")),
    "a session alone": ("device-compliance-change", {"format": "complex", "session": SESSION}, ("s-1", None)),
    "a user's sessions, complex": ("session-revoked", {"format": "complex", "user": JANE}, (None, "acme:jane")),
}


@pytest.mark.parametrize("who", SUBJECTS)
def test_whom_an_event_is_about(who: str) -> None:
    """The older place of the subject, in the event, is read as well. In both places it is the same one."""
    name, subject, meant = SUBJECTS[who]
    older = event(f"{CAEP}{name}", None) | {"events": {f"{CAEP}{name}": {"subject": subject}}}
    for claims in (event(f"{CAEP}{name}", subject), older, {**older, "sub_id": subject}):
        ended, *bare = told(claims, EVENT, by="events", over=WITH_EVENTS).endings
        assert (ended.session, ended.subject, ended.sessionless) == (*meant, False)
        names_both = meant[0] is not None and subject is COMPLEX
        assert [(one.session, one.subject, one.sessionless) for one in bare] == [(None, "acme:jane", True)] * names_both


def test_an_event_is_for_all_that_the_login_gave() -> None:
    """Each provider of that issuer has an effect of its own, which is heard for itself."""
    siblings = policy.read(
        usual.POLICY.replace(
            "[provider.partner]",
            f'{STREAM}[provider.acme-api]\nkind = "access-token"\nissuer = "https://login.acme.example"\nsubject = "api:{{sub}}"\n[provider.partner]',
        )
    )
    effect = happened(f"{RISC}account-disabled", over=siblings)
    assert {(one.provider, one.subject, one.stream) for one in effect.endings} == {("acme", "acme:jane", "events"), ("acme-api", "api:jane", "events acme-api")}
    lost = event(f"{CAEP}token-claims-change") | {"events": {f"{CAEP}token-claims-change": {"claims": {"groups": []}}}}
    assert [(one.provider, one.grants) for one in told(lost, EVENT, by="events", over=siblings).endings] == [
        ("acme", ("q3-risk", "q3-sentiment", "reading")), ("acme-api", ()),
    ]  # fmt: skip


REVOKED = f"{CAEP}session-revoked"
EVENT_FAULTS: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "84 another issuer's subject": (JANE | {"iss": "https://hub.example"}, {}, "invalid_request", "another issuer"),
    "84 in a complex subject": ({"format": "complex", "user": JANE | {"iss": "x"}, "session": SESSION}, {}, "invalid_request", "another issuer"),
    "email": ({"format": "email", "email": "jane@acme.example"}, {}, "invalid_request", "iss_sub"),
    "a user that is text": ({"format": "complex", "user": "jane"}, {}, "invalid_request", "iss_sub"),
    "no sub": ({"format": "iss_sub", "iss": "https://login.acme.example"}, {}, "invalid_request", "no sub"),
    "an empty sub": (JANE | {"sub": ""}, {}, "invalid_request", "no sub"),
    "a session by email": ({"format": "complex", "session": {"format": "email", "id": "x"}}, {}, "invalid_request", "opaque"),
    "a session that is text": ({"format": "complex", "session": "s-1"}, {}, "invalid_request", "opaque"),
    "no id": ({"format": "opaque"}, {}, "invalid_request", "no id"),
    "an empty id": ({"format": "opaque", "id": ""}, {}, "invalid_request", "no id"),
    "a device alone": ({"format": "complex", "device": SESSION}, {}, "invalid_request", "neither"),
    "no subject": (None, {}, "invalid_request", "one subject"),
    "a subject that is text": ("jane", {}, "invalid_request", "one subject"),
    "two subjects": (JANE, {"events": {REVOKED: {"subject": SESSION}}}, "invalid_request", "one subject"),
    "85 two events": (JANE, {"events": {REVOKED: {}, f"{RISC}account-enabled": {}}}, "invalid_request", "one event"),
    "85 none": (JANE, {"events": {}}, "invalid_request", "one event"),
    "an event that is no object": (JANE, {"events": {REVOKED: True}}, "invalid_request", "no object"),
    "31 several audiences": (JANE, {"aud": [f"{US}/signals", "other"]}, "invalid_audience", "aud"),
    "another audience": (JANE, {"aud": US}, "invalid_audience", "aud"),
    "no audience": (JANE, {"aud": None}, "invalid_audience", "aud"),
    "84 another transmitter": (JANE, {"iss": "https://hub.example"}, "invalid_issuer", "issuer"),
    "no jti": (JANE, {"jti": None}, "invalid_request", "no jti"),
    "no iat": (JANE, {"iat": None}, "invalid_request", "no iat"),
    "iat is text": (JANE, {"iat": "now"}, "invalid_request", "iat is no time"),
    "43 iat ahead": (JANE, {"iat": NOW + 31}, "invalid_request", "to come"),
    "43 nbf ahead": (JANE, {"nbf": NOW + 31}, "invalid_request", "to come"),
    "40 expired": (JANE, {"exp": NOW - 30}, "invalid_request", "expired"),
    "52 older than is remembered": (JANE, {"iat": NOW - 86_401}, "invalid_request", "ago"),
}


@pytest.mark.parametrize("fault", EVENT_FAULTS)
def test_an_event_with_one_fault(fault: str) -> None:
    subject, claims, code, says = EVENT_FAULTS[fault]
    found, message = wrong(REVOKED, subject, claims)
    assert (found, says in message) == (code, True), message
    assert happened(REVOKED, JANE, {"exp": NOW + 60, "nbf": NOW, "iat": NOW - 86_400}).endings, "its twin"


BY_EMAIL = STREAM.replace("fail_closed = true", 'email = "sub"')
WITH_EMAIL = policy.read(usual.POLICY.replace("[provider.partner]", f"{BY_EMAIL}[provider.partner]").replace('"acme:{sub}"', '"acme:{sub#}"'))
ADDRESS = {"format": "email", "email": "jane@acme.example"}


def test_an_address_names_somebody_if_the_provider_says_so() -> None:
    """By the one claim that its subjects are named by, and that has the address."""
    (ended,) = happened(REVOKED, ADDRESS, over=WITH_EMAIL).endings
    assert ended.subject == WITH_EMAIL.subjects["acme"].subject("https://login.acme.example", {"sub": "jane@acme.example"})
    complex_one = {"format": "complex", "user": ADDRESS, "device": SESSION}
    assert happened(f"{RISC}account-disabled", complex_one, over=WITH_EMAIL).endings[0].subject == ended.subject
    for wrong_one in ({"format": "email"}, ADDRESS | {"email": ""}, ADDRESS | {"email": ["jane@acme.example"]}):
        with pytest.raises(IssuanceError, match="no email"):
            happened(REVOKED, wrong_one, over=WITH_EMAIL)
    assert wrong(REVOKED, ADDRESS) == ("invalid_request", "the signal is refused: its user is not named by iss_sub"), "its twin"
    assert happened(REVOKED, over=WITH_EMAIL).endings, "iss_sub is taken as well"


@pytest.mark.parametrize(
    "template, email, loads",
    [
        ("acme:{sub#}", "sub", True), ("acme:{account#}", "account", True), ("acme:{account}", "account", True), ("acme:{sub}", "account", False),
        ("acme:{tid}:{account}", "account", False), ("acme:{account#}", "", False),
    ],
)  # fmt: skip
def test_an_address_is_the_one_claim_that_subjects_are_named_by(template: str, email: str, loads: bool) -> None:
    stream = STREAM.replace("fail_closed = true", f'email = "{email}"')
    text = usual.POLICY.replace("[provider.partner]", f"{stream}[provider.partner]").replace('"acme:{sub}"', f'"{template}"')
    if not loads:
        with pytest.raises(IssuanceError, match="email is the one claim"):
            policy.read(text)
        return
    (ended,) = happened(REVOKED, ADDRESS if "#" in template else ADDRESS | {"email": "jane"}, over=policy.read(text)).endings
    assert ended.subject is not None and ended.subject.startswith("acme:")


@pytest.mark.parametrize("subject", [{"subject_type": "iss-sub"}, {"subject_type": "iss_sub"}])
def test_a_subject_as_it_was_written_before_rfc_9493(subject: dict[str, Any]) -> None:
    old = subject | {"iss": "https://login.acme.example", "sub": "jane"}
    assert happened(REVOKED, None, {"events": {REVOKED: {"subject": old}}}).endings == happened(REVOKED).endings
    assert happened(REVOKED, {"subject_type": "opaque", "id": "s-1"}).endings == happened(REVOKED, SESSION).endings
    for wrong_one in (old | {"format": "iss_sub"}, old | {"subject_type": "email"}, old | {"subject_type": ["iss_sub"]}):
        assert wrong(REVOKED, wrong_one)[0] == "invalid_request"


@pytest.mark.parametrize("kind", [f"{CAEP}device-compliance-change", f"{CAEP}assurance-level-change", f"{CAEP}token-claims-change", f"{RISC}account-disabled", "logout"])
def test_a_grant_that_was_removed_while_its_tasks_live(kind: str) -> None:
    """Signals and leases end them all the same, and others go on by what their grants say."""
    world = Ended(of=WITH_EVENTS)
    sent(world, seen(f"{SSF}verification", jti="v1"))
    said = world.ask(proof(), **exchange())
    assert said["status"] == 200
    (ticket,) = Token.parse(said["access_token"]).needs
    start = usual.POLICY.index("[grant.q3-risk]")
    without_it = usual.POLICY[:start] + usual.POLICY[usual.POLICY.index("[grant.q3-sentiment]") :].replace('joins = ["q3-risk"]\n', "")
    without_it = without_it[: without_it.index("[[test]]")].replace("[provider.partner]", f"{STREAM}[provider.partner]")
    without_it = without_it.replace('keys = "shared"', 'keys = "shared"\non = { device-compliance-change = { tables = ["sales"] } }')
    world.policy = policy.read(without_it)
    assert asyncio.run(world.app.reload(lambda: Setup(world.policy, usual.KEYRING, world.operator)))

    def lease() -> int:
        return world.send("POST", "/.well-known/captoken/3p", json={"ticket": ticket.text}).status_code

    assert lease() == 200, "it goes on"
    if kind == "logout":
        over = {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}, "jti": "l1", "sub": "jane", "aud": "captoken-cli"}
        text = ACME.sign({"iss": "https://login.acme.example", "iat": usual.NOW, "exp": usual.NOW + 100, **over}, typ=LOGOUT)
        assert world.send("POST", "/logout/backchannel", data={"logout_token": text}).status_code == 200
    else:
        (answer,) = sent(world, seen(kind, claims={"role": "x"}) if "claims" in kind else seen(kind))
        assert answer.status_code == 202, answer.text
    assert not world.registry.is_live(said["task"], usual.NOW) and lease() == 403


def test_83_an_event_by_another_signer() -> None:
    """Also by the provider that it is about, whose key is no key of the stream."""
    claims = event(REVOKED)
    for signer, kid in (("hub", "events-ES256"), ("acme", "acme-ES256")):
        text = signed(signer, claims, header={"typ": EVENT, "kid": kid})
        assert refused(text, EVENT, over=WITH_EVENTS)[0] == "invalid_key"
    assert told(signed("events", claims, header={"typ": EVENT}), EVENT, over=WITH_EVENTS).endings


def test_28_an_event_is_no_logout_and_no_login() -> None:
    for typ in (EVENT, LOGOUT, "JWT"):
        text = signed("events", LOGIN | event(REVOKED), header={"typ": typ})
        with pytest.raises(IssuanceError):
            identify(text, WITH_EVENTS, keys, NOW, US, ("oidc",))
        refused(text, LOGOUT, over=WITH_EVENTS)
    refused(signed("events", event(REVOKED), header={"typ": "JWT"}), EVENT, over=WITH_EVENTS)
    refused(signed("acme", LOGGING_OUT, header={"typ": LOGOUT}), EVENT, over=WITH_EVENTS)
    assert happened(REVOKED).endings and told(LOGGING_OUT, over=WITH_EVENTS).endings


# --- the service -----------------------------------------------------------------------------------------------------


class Ended(World):
    """A service with an operator, in one event loop: its lifespan is run."""

    def __init__(self, **facts: Any) -> None:
        self.operator = Operator(OperatorKey.generate(), MemorySnapshots(), by="issuer", clock=FixedClock(usual.NOW))
        self.facts = {"operator": self.operator, **facts}
        self.facts.pop("of", None)
        super().__init__(facts.get("of"), **self.facts)

    def said(self) -> list[tuple[str | None, int | None, Any]]:
        """What the overlay says."""
        return [(one.select.task, one.until, one.link) for one in self.operator.entries()]


@asynccontextmanager
async def living(app: IssuanceService) -> AsyncIterator[httpx.AsyncClient]:
    """The application between its startup and its shutdown."""
    told: asyncio.Queue[Any] = asyncio.Queue()
    said: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan"}, told.get, said.put))
    await told.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        yield client
    await told.put({"type": "lifespan.shutdown"})
    await task


def anew(world: World) -> IssuanceService:
    """A service of the same registry and overlay that was just started: keys are of one event loop."""
    facts = {**getattr(world, "facts", {}), "registry": world.registry, "clock": world.clock}
    return World(world.policy, **facts).app


def lived(world: World | IssuanceService, *texts: str) -> list[httpx.Response]:
    """Logouts, told to a service that starts before and ends after."""
    app = anew(world) if isinstance(world, World) else world

    async def all_of_it() -> list[httpx.Response]:
        async with living(app) as client:
            return [await client.post("/logout/backchannel", data={"logout_token": text}) for text in texts]

    return asyncio.run(all_of_it())


def logout(**claims: Any) -> str:
    made = {
        "iss": "https://login.acme.example", "sub": "jane", "sid": "s1", "aud": "captoken-cli", "jti": "l1", "iat": usual.NOW - 5,
        "exp": usual.NOW + 115, "events": {LOGGED_OUT: {}}, **claims,
    }  # fmt: skip
    return ACME.sign({name: value for name, value in made.items() if value is not None}, typ=LOGOUT)


def start(world: World, number: int = 0, **claims: Any) -> str:
    """A task of jane's."""
    now = world.clock.now
    said = world.ask(proof(jti=f"p{number}", iat=now), **exchange(subject_token=login(**{"iat": now - 5 - number, **claims})))
    assert said["status"] == 200, said
    return str(said["task"])


def test_a_logout_ends_the_tasks_of_its_session_and_the_overlay_says_so() -> None:
    world = Ended()
    mine, other = start(world, 1), start(world, 2, sid="s2")
    (answer,) = lived(world, logout())
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (200, b"", "no-store")
    assert world.said() == [(mine, usual.NOW + 3660, None)] and world.registry.unpublished() == ()
    assert not world.registry.is_live(mine, usual.NOW) and world.registry.is_live(other, usual.NOW)
    lived(world, logout(jti="l2", sid=None))
    assert {task for task, _, _ in world.said()} == {mine, other}


@pytest.mark.parametrize("told", ["logout", "event"])
def test_81_an_assertion_that_is_stamped_ahead_is_of_before(told: str) -> None:
    """It was signed before the logout, by a clock that is ahead: all that the service takes, the logout reaches."""
    world = streaming() if told == "event" else Ended()
    ahead = [exchange(subject_token=login(iat=usual.NOW + number, sid="s2")) for number in (1, 15, LEEWAY)]
    if told == "event":
        assert [answer.status_code for answer in sent(world, seen(f"{RISC}sessions-revoked"))] == [202]
    else:
        assert [answer.status_code for answer in lived(world, logout(sid=None))] == [200]
    for number, form in enumerate(ahead):
        said = world.ask(proof(jti=f"a{number}"), **form)
        assert (said["error"], said["error_description"]) == ("invalid_grant", "the assertion starts nothing: get a new one")
    world.clock.advance(LEEWAY + 1)
    assert start(world, 9, iat=world.clock.now, sid="s2"), "who logs in after that starts anew"


def test_81_an_assertion_of_before_the_logout_starts_nothing() -> None:
    world = Ended()
    subject = login()
    assert world.ask(proof(jti="a"), **exchange(subject_token=subject))["status"] == 200
    lived(world, logout())
    for number, text in enumerate((subject, login(iat=usual.NOW - 9), login(iat=usual.NOW + 1))):
        assert world.ask(proof(jti=f"b{number}"), **exchange(subject_token=text))["error"] == "invalid_grant"
    assert start(world, 0, sid="s2"), "a new session does"


def test_82_a_lease_after_the_logout_is_refused() -> None:
    world = Ended()
    said = world.ask(proof(), **exchange())
    (ticket,) = Token.parse(said["access_token"], clock=FixedClock(usual.NOW)).needs

    def leased() -> httpx.Response:
        return world.send("POST", "/.well-known/captoken/3p", json={"ticket": ticket.text})

    assert leased().status_code == 200
    lived(world, logout())
    assert (leased().status_code, leased().json()["error"]) == (403, "the task is over")


def test_52_a_logout_that_comes_again_has_no_effect() -> None:
    world = Ended()
    start(world, 1)
    assert [answer.status_code for answer in lived(world, logout(sid=None))] == [200]
    world.clock.advance(LEEWAY + 1)
    later = start(world, 0, iat=world.clock.now, sid="s2")
    assert [answer.status_code for answer in lived(world, logout(sid=None), logout(sid=None))] == [200, 200]
    assert world.registry.is_live(later, usual.NOW) and len(world.said()) == 1
    lived(world, logout(sid=None, jti="l2"))
    assert not world.registry.is_live(later, usual.NOW), "its twin is another one"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"logout_token=x", "application/x-www-form-urlencoded"), (b"", "application/x-www-form-urlencoded"), (b"a=b", "application/x-www-form-urlencoded"),
        (b"logout_token=x&logout_token=x", "application/x-www-form-urlencoded"), (b"{}", "application/json"), (b"logout_token=x", "text/plain"),
        (b"logout_token=" + b"x" * 70_000, "application/x-www-form-urlencoded"), (b"logout_token=" + b"x" * 17_000, "application/x-www-form-urlencoded"),
    ],
    ids=["no token", "empty", "another name", "2 twice", "1 JSON", "text", "3 long", "4 long token"],
)  # fmt: skip
def test_what_is_no_logout_is_answered_400(body: bytes, kind: str) -> None:
    world = Ended()
    answer = world.send("POST", "/logout/backchannel", content=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert world.send("POST", "/logout/backchannel", data={"logout_token": logout()}).status_code == 200
    assert world.send("GET", "/logout/backchannel").status_code == 405


def test_a_logout_of_somebody_elses_ends_nothing() -> None:
    """83: signed by another provider. Whatever is wrong with it, the code is that of OpenID Connect."""
    world = Ended()
    task = start(world)
    forged = MESH.sign(
        {
            "iss": "https://login.acme.example",
            "sid": "s1",
            "aud": "captoken-cli",
            "jti": "l1",
            "iat": usual.NOW,
            "exp": usual.NOW + 60,
            "events": {LOGGED_OUT: {}},
        },
        typ=LOGOUT,
    )
    for text in (forged, logout(aud="x"), logout(iss="https://other.example"), login(), svid()):
        (answer,) = lived(world, text)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert world.registry.is_live(task, usual.NOW) and world.said() == []


class Failing:
    """A registry or an operator of which one method fails so often."""

    def __init__(self, inner: Any, method: str, often: int, error: Exception | None = None) -> None:
        self._inner = inner
        self._method = method
        self._error = error or StoreError("gone: /var/lib/x")
        self.left = often

    def __getattr__(self, name: str) -> Any:
        def fails(*_: Any, **__: Any) -> Any:
            self.left -= 1
            raise self._error

        return fails if name == self._method and self.left > 0 else getattr(self._inner, name)


def test_a_logout_that_cannot_be_written_is_to_be_sent_again() -> None:
    registry = Failing(MemoryRegistry(floor=0), "end", 1)
    world = Ended(registry=registry)
    task = start(world)
    failed, done = lived(world, logout(), logout())
    assert (failed.status_code, failed.json()["error"]) == (503, "temporarily_unavailable") and "var" not in failed.text
    assert done.status_code == 200 and not world.registry.is_live(task, usual.NOW) and len(world.said()) == 1


def test_a_logout_whose_keys_cannot_be_had_is_to_be_sent_again() -> None:
    from captoken.issuance.keys import ProviderKeys

    async def gone() -> bytes:
        raise OSError("gone")

    world = Ended()
    away = ProviderKeys(world.policy, sources=dict.fromkeys(world.policy.providers, gone))
    app = IssuanceService(world.policy, usual.KEYRING, world.registry, lease=usual.LEASE, keys=away, clock=world.clock)
    (answer,) = lived(app, logout())
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")


@pytest.mark.parametrize("method", ["revoke", "published", "unpublished"])
def test_what_is_not_published_is_tried_again_until_it_stands(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(published, "AGAIN", 0.01)
    registry, operator = (
        MemoryRegistry(floor=0),
        Operator(OperatorKey.generate(), MemorySnapshots(), by="issuer", clock=FixedClock(usual.NOW)),
    )
    failing: Any = Failing(operator if method == "revoke" else registry, method, 3, OSError("gone"))
    world = Ended(**({"operator": failing} if method == "revoke" else {"registry": failing, "operator": operator}))
    task = start(world)

    async def logged_out() -> None:
        async with living(anew(world)) as client:
            assert (await client.post("/logout/backchannel", data={"logout_token": logout()})).status_code == 200
            while failing.left > 0 or world.registry.unpublished():
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(logged_out(), 20))
    assert {entry.select.task for entry in operator.entries()} == {task}
    assert "gone" in caplog.text


def test_a_crash_between_the_end_and_its_publication_loses_nothing(tmp_path: Path) -> None:
    """The process is gone with its overlay unsaid. The next one says it when it starts."""
    registry = SQLiteRegistry.create(tmp_path / "tasks.db", floor=0)
    task = start(World(registry=registry))
    registry.end(Ending(now=usual.NOW, provider="acme", session="s1", jti="l1"))
    registry.close()

    again = SQLiteRegistry(tmp_path / "tasks.db")
    world = Ended(registry=again)
    assert world.said() == []
    lived(world)
    assert world.said() == [(task, usual.NOW + 3660, None)] and again.unpublished() == ()
    again.close()


def test_a_logout_without_a_lifespan_is_published_as_well() -> None:
    """Where the service is mounted in another one, that may run none."""
    world = Ended()
    task = start(world)

    async def logged_out() -> None:
        transport = httpx.ASGITransport(app=anew(world))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            await client.post("/logout/backchannel", data={"logout_token": logout()})
        while not world.said():
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(logged_out(), 20))
    assert [one for one, _, _ in world.said()] == [task]


def test_an_end_that_races_a_start_leaves_nothing_alive() -> None:
    """Each exchange is before the logout, and then ended by it, or after it, and refused."""
    world = Ended()

    async def race() -> list[Any]:
        async with living(anew(world)) as client:

            async def started(number: int) -> Any:
                form = exchange(subject_token=login(sub=f"p{number}", iat=usual.NOW - 5 - number))
                return (await client.post("/token", data=form, headers=proof(jti=f"r{number}"))).json()

            async def over() -> None:
                assert (await client.post("/logout/backchannel", data={"logout_token": logout()})).status_code == 200

            return list(
                await asyncio.gather(
                    *(started(number) for number in range(8)), over(), *(started(number) for number in range(8, 16))
                )
            )

    answers = [answer for answer in asyncio.run(race()) if answer is not None]
    tasks = {answer["task"] for answer in answers if "task" in answer}
    assert all(answer.get("error", "invalid_grant") == "invalid_grant" for answer in answers)
    assert {task for task in tasks if world.registry.is_live(task, usual.NOW)} == set()
    assert {task for task, _, _ in world.said()} == tasks


def test_without_an_operator_the_leases_end() -> None:
    world = World()
    task = start(world)
    lived(world, logout())
    assert not world.registry.is_live(task, usual.NOW) and len(world.registry.unpublished()) == 1
    world.clock.advance(3600 + 60)
    lived(world)
    assert world.registry.unpublished() == (), "nobody has to hear it any more"


def test_a_publisher_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "PATIENCE", 0.05)
    gate = threading.Event()

    class Hanging(MemoryRegistry):
        def unpublished(self) -> tuple[Unpublished, ...]:
            gate.wait(10)
            return ()

    async def closed() -> None:
        one = Publisher(Hanging(floor=0), None, FixedClock(NOW))
        await one.close()  # it has not begun
        one.wake()
        await asyncio.sleep(0)
        await one.close()
        gate.set()

    asyncio.run(asyncio.wait_for(closed(), 5))


def test_the_registry_is_asked_for_leases_in_a_thread() -> None:
    asked: list[int] = []

    class Noting(MemoryRegistry):
        def is_live(self, task: str, now: int) -> bool:
            asked.append(threading.get_ident())
            return super().is_live(task, now)

    world = World(registry=Noting(floor=0))
    (ticket,) = Token.parse(world.ask(proof(), **exchange())["access_token"], clock=FixedClock(usual.NOW)).needs
    assert world.send("POST", "/.well-known/captoken/3p", json={"ticket": ticket.text}).status_code == 200
    assert asked and threading.get_ident() not in asked


@pytest.mark.parametrize("instead", [b'{"operations":["select"]}', b'{"depth":1}', b'{"task":"other"}', b'{"tables":7}'], ids=bytes.decode)
def test_a_task_is_narrowed_and_ends_where_no_overlay_can_say_it(instead: bytes) -> None:
    world = Ended()
    task = start(world)
    world.registry.end(Ending(now=usual.NOW, provider="acme", subject="acme:jane", grants=("q3-risk",), instead={"q3-risk": instead}))
    lived(world)
    link = {"operations": ["select"]} if b"operations" in instead else None
    assert world.said() == [(task, usual.NOW + 3660, link)] and world.registry.unpublished() == ()


def test_a_narrowing_that_a_store_does_not_take_is_due_and_ends_nothing() -> None:
    world = Ended()
    start(world)
    world.registry.end(Ending(now=usual.NOW, provider="acme", subject="acme:jane", grants=("q3-risk",), instead={"q3-risk": b'{"operations":["select"]}'}))
    assert not Publisher(world.registry, Failing(world.operator, "narrow", 1), world.clock).publish()
    assert world.said() == [] and len(world.registry.unpublished()) == 1
    assert Publisher(world.registry, world.operator, world.clock).publish()
    assert len(world.said()) == 1


# --- the service, and a stream of events -----------------------------------------------------------------------------


def seen(kind: str, subject: Any = JANE, jti: str = "e1", **payload: Any) -> str:
    """An event as it is sent to the service."""
    claims = event(kind, subject, {"iat": usual.NOW - 5, "jti": jti}) | {"events": {kind: payload}}
    return EVENTS.sign(claims, typ=EVENT)


def sent(world: World, *texts: str, kind: str = "application/secevent+jwt") -> list[httpx.Response]:
    """Events, pushed to a service that starts before and ends after."""

    async def all_of_it() -> list[httpx.Response]:
        async with living(anew(world)) as client:
            return [await client.post("/signals", content=text, headers={"content-type": kind}) for text in texts]

    return asyncio.run(all_of_it())


def streaming(**facts: Any) -> Ended:
    """A service whose stream was heard."""
    world = Ended(of=WITH_EVENTS, **facts)
    (answer,) = sent(world, seen(f"{SSF}verification", jti="v1"))
    assert (answer.status_code, answer.content) == (202, b"")
    return world


def test_an_event_ends_tasks_and_the_overlay_says_so() -> None:
    world = streaming()
    task = start(world)
    (answer,) = sent(world, seen(f"{RISC}account-disabled"))
    assert answer.status_code == 202
    assert world.said() == [(task, usual.NOW + 3660, None)] and not world.registry.is_live(task, usual.NOW)
    assert world.ask(proof(jti="z"), **exchange(subject_token=login(iat=usual.NOW)))["error"] == "invalid_grant", "81"


def test_67_an_event_narrows_and_when_all_is_well_nothing_is_lifted() -> None:
    world = streaming()
    task = start(world)
    change = f"{CAEP}device-compliance-change"
    sent(world, seen(change, jti="e1", current_status="not-compliant"))
    narrowed = [(task, usual.NOW + 3660, {"operations": ["select"]})]
    assert world.said() == narrowed and world.registry.is_live(task, usual.NOW)
    well = [seen(change, jti="e2", current_status="compliant"), seen(f"{RISC}account-enabled", jti="e3")]
    assert [answer.status_code for answer in sent(world, *well)] == [202, 202]
    assert world.said() == narrowed

    sent(world, seen(f"{CAEP}risk-level-change", jti="e4", current_level="HIGH"))
    assert not world.registry.is_live(task, usual.NOW)
    sent(world, seen(f"{CAEP}risk-level-change", jti="e5", current_level="LOW"))
    assert not world.registry.is_live(task, usual.NOW) and len(world.said()) == 2


def test_52_an_event_that_comes_again_has_no_effect() -> None:
    world = streaming()
    start(world, 1)
    sent(world, seen(f"{RISC}sessions-revoked"))
    world.clock.advance(LEEWAY + 1)
    later = start(world, 0, iat=world.clock.now, sid="s2")
    assert [answer.status_code for answer in sent(world, *[seen(f"{RISC}sessions-revoked")] * 2)] == [202, 202]
    assert world.registry.is_live(later, usual.NOW)
    sent(world, seen(f"{RISC}sessions-revoked", jti="e2"))
    assert not world.registry.is_live(later, usual.NOW), "its twin is another one"


def test_what_is_no_event_is_answered_400_in_the_words_of_its_rfc() -> None:
    world = streaming()
    task = start(world)
    forged = ACME.sign(event(f"{RISC}account-disabled", JANE, {"iat": usual.NOW}), typ=EVENT)
    for text, err in ((forged, "invalid_key"), ("x", "invalid_request"), ("\xff", "invalid_request"), (logout(), "invalid_request"), (logout(iss="https://x.example"), "invalid_issuer"), ("x" * 70_000, "invalid_request")):
        (answer,) = sent(world, text)
        assert (answer.status_code, answer.json()["err"]) == (400, err) and answer.json()["description"]
        assert answer.headers["content-type"] == "application/json"
    for kind in ("application/json", "application/jwt"):
        (answer,) = sent(world, seen(f"{RISC}account-disabled"), kind=kind)
        assert (answer.status_code, answer.json()["err"]) == (400, "invalid_request")
    assert world.registry.is_live(task, usual.NOW) and world.said() == []


def test_an_event_that_cannot_be_written_is_to_be_sent_again() -> None:
    world = streaming()
    task = start(world)
    world.registry = Failing(world.registry, "hear", 1)
    failed, done = sent(world, *[seen(f"{RISC}account-disabled")] * 2)
    assert (failed.status_code, failed.json()["err"]) == (503, "temporarily_unavailable") and "var" not in failed.text
    assert done.status_code == 202 and not world.registry.is_live(task, usual.NOW)


def test_a_stream_that_is_paused_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    sent(streaming(), seen(f"{SSF}stream-updated", {"format": "opaque", "id": "x"}, "u1", status="paused"))
    assert [one.levelname for one in caplog.records if "stream-updated" in one.getMessage()] == ["ERROR"]


def test_a_silent_stream_fails_the_health_and_what_is_closed_with_it() -> None:
    """Silent for more than 900 seconds, or never heard: what ended since is not known."""
    world = Ended(of=WITH_EVENTS)
    answer = world.send("GET", "/health")
    assert (answer.status_code, answer.json()) == (503, {"status": "streams of events are silent", "silent": ["events"]})
    said = world.ask(proof(jti="a"), **exchange())
    assert (said["status"], said["error"]) == (503, "temporarily_unavailable") and "events" not in said["error_description"]

    sent(world, seen(f"{SSF}verification", jti="v1"))
    assert world.send("GET", "/health").status_code == 200 and start(world, 1)
    world.clock.advance(900)
    assert world.send("GET", "/health").status_code == 200
    world.clock.advance(1)
    assert world.send("GET", "/health").status_code == 503
    late = {"iat": usual.NOW + 900, "exp": usual.NOW + 1100}
    assert world.ask(proof(jti="b", iat=usual.NOW + 901), **exchange(subject_token=login(**late), client_assertion=svid(**late)))["status"] == 503


def test_whoever_routes_by_the_health_goes_on_while_a_stream_is_silent() -> None:
    """Else no event would come any more, and the stream would stay silent."""
    world = Ended(of=WITH_EVENTS)
    live = world.send("GET", "/health?live")
    assert (live.status_code, live.json()) == (200, world.send("GET", "/health").json()) and live.json()["silent"] == ["events"]
    for other in ("/health?live=1", "/health?", "/health?alive"):
        assert world.send("GET", other).status_code == 503
    assert World(registry=Gone()).send("GET", "/health?live").status_code == 503


def test_a_silent_stream_that_is_open_starts_tasks() -> None:
    """And one about another provider's people stops nobody else."""
    world = Ended(of=policy.read(usual.POLICY.replace("[provider.partner]", STREAM.replace("fail_closed = true", "") + "[provider.partner]")))
    assert start(world) and world.send("GET", "/health").status_code == 503
    partner = STREAM.replace('about = "acme"', 'about = "partner"')
    assert start(Ended(of=policy.read(usual.POLICY.replace("[provider.partner]", f"{partner}[provider.partner]"))))


@pytest.mark.parametrize("about", ["nobody", "mesh", "events", "actors"])
def test_a_stream_is_about_a_provider_that_names_subjects(about: str) -> None:
    text = usual.POLICY.replace("[provider.partner]", f'{STREAM}[provider.actors]\nkind = "workload"\nissuer = "https://a.example"\n[provider.partner]')
    assert policy.read(text)
    with pytest.raises(IssuanceError, match=f"provider.events: about is .* not {about}"):
        policy.read(text.replace('about = "acme"', f'about = "{about}"'))


ODD: tuple[Any, ...] = (None, True, 0, -1, 1.5, 10**18, "", "x", "\ud83d\ude00", "\0", [], [[]], ["x"], {}, {"format": ["x"]}, {"format": "complex", "user": []}, {"x": {"y": []}})


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_whatever_a_signal_says_it_is_taken_or_refused_and_nothing_else_is_raised(odd: Any) -> None:
    """Each claim, each member of an event and of a subject, with a value that it should not have."""
    made: list[tuple[str, str, dict[str, Any]]] = [("acme", LOGOUT, LOGGING_OUT | {name: odd}) for name in (*LOGGING_OUT, "nonce", "nbf")]
    for kind, payload, _ in ROWS.values():
        whole = event(kind) | {"events": {kind: payload}}
        made += [("events", EVENT, whole | {name: odd}) for name in (*whole, "exp", "nbf", "sub")]
        made += [("events", EVENT, whole | {"events": {kind: {**payload, name: odd}}}) for name in (*payload, "subject")]
        made += [("events", EVENT, whole | {"sub_id": {**COMPLEX, name: odd}}) for name in COMPLEX]
        made.append(("events", EVENT, whole | {"events": {kind: odd}}))
    for by, typ, claims in made:
        try:
            effect = told(claims, typ, by=by, over=WITH_EVENTS)
        except IssuanceError as error:
            assert error.code in ("invalid_request", "invalid_issuer", "invalid_audience")
        else:
            assert all(one.now == NOW and (one.session or one.subject) for one in effect.endings)
