"""What ends a login ends its tasks: signals verified and made into effects, and what the service does of them.

The numbers are those of the cases that must be denied, each with a twin that passes.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from captoken.errors import IssuanceError
from captoken.issuance import events, policy, signals
from captoken.issuance.registry import Ending
from captoken.issuance.signals import EVENT, LOGOUT, Effect

from . import fixtures as usual
from .assertions import LOGIN, NOW, POLICY, US, identify, joined, keys, private, signed, without
from .test_issuance import ACME

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


@pytest.mark.parametrize("client_ids", ["[]", '["captoken-cli"]'])
def test_a_logout_of_the_client_that_people_log_in_with_here(client_ids: str) -> None:
    """The provider tells it of that client, whose ID tokens nobody else need show."""
    login = '[login]\nprovider = "acme"\nclient_id = "here"\n[provider.acme]'
    text = usual.POLICY.replace("[provider.acme]", login, 1).replace('client_ids = ["captoken-cli"]', f"client_ids = {client_ids}", 1)
    of_here = LOGGING_OUT | {"aud": "here"}
    assert told(of_here, over=policy.read(text)).endings == told(LOGGING_OUT).endings
    assert refused(of_here)[0] == "invalid_audience"
    for other in ("there", ["here", "there"]):
        assert refused(of_here | {"aud": other}, over=policy.read(text))[0] == "invalid_audience"


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


COMPLEX = {"format": "complex", "user": JANE, "session": SESSION, "device": {"format": "opaque", "id": "d"}}


# --- the service -----------------------------------------------------------------------------------------------------


def logout(**claims: Any) -> str:
    made = {
        "iss": "https://login.acme.example", "sub": "jane", "sid": "s1", "aud": "captoken-cli", "jti": "l1", "iat": usual.NOW - 5,
        "exp": usual.NOW + 115, "events": {LOGGED_OUT: {}}, **claims,
    }  # fmt: skip
    return ACME.sign({name: value for name, value in made.items() if value is not None}, typ=LOGOUT)


# --- the service, and a stream of events -----------------------------------------------------------------------------


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
