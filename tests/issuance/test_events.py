"""What each security event does: whose tasks end, which are narrowed, and what is no event."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from captoken import Token
from captoken.adapters.issuance import Setup
from captoken.errors import IssuanceError
from captoken.issuance import policy
from captoken.issuance.registry import Ending
from captoken.issuance.signals import EVENT, LOGOUT, Effect
from tests.issuance.test_ends import Ended, seen, sent
from tests.issuance.test_signals import (
    CAEP,
    COMPLEX,
    END,
    EVERY,
    JANE,
    LOGGING_OUT,
    RISC,
    ROWS,
    SESSION,
    SSF,
    STREAM,
    WITH_EVENTS,
    event,
    refused,
    told,
)

from . import fixtures as usual
from .assertions import LOGIN, NOW, US, identify, keys, signed
from .test_issuance import ACME, exchange, proof


def happened(kind: str, subject: Any = JANE, claims: Any = (), over: policy.Policy = WITH_EVENTS, **payload: Any) -> Effect:
    return told(event(kind, subject, claims, **payload), EVENT, by="events", over=over)


def wrong(kind: str, subject: Any = JANE, claims: Any = (), **payload: Any) -> tuple[str, str]:
    return refused(event(kind, subject, claims, **payload), EVENT, by="events", over=WITH_EVENTS)


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
