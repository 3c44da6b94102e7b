"""Who asks, by an assertion: what is refused, each beside its twin that is good, and what platforms really send.

The numbers are those of the list of what must be denied.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from captoken import Issuer, Keyring
from captoken._format.encoding import b64encode
from captoken._format.errors import IssuanceError
from captoken.errors import CaptokenError
from captoken.issuance import policy
from captoken.issuance.identity import ACTORS, SUBJECTS
from captoken.issuance.jose import Key, key_set
from captoken.issuance.registry.ports import LEEWAY
from tests.issuance.assertions import (
    ACCESS,
    ID_JAG,
    LIVE,
    LOGIN,
    NARROW,
    NOW,
    POLICY,
    SVID,
    TENANT,
    US,
    WORKLOAD,
    document,
    identify,
    joined,
    jwk,
    keys,
    needed_key,
    private,
    signed,
    verify,
    without,
)


def refused(text: Any, says: str, *takes: str, **how: Any) -> Any:
    """The one family, with a message for whoever sent it that holds nothing of the text."""
    with pytest.raises(CaptokenError, match=says) as told:
        verify(text, *takes, **how)
    assert type(told.value) is IssuanceError and told.value.code == "invalid_grant"
    assert str(told.value).startswith("the assertion is refused: ")
    if type(text) is str and text.count(".") == 2 and len(text.rpartition(".")[2]) > 20:
        assert text.rpartition(".")[2] not in f"{told.value} {told.value.why}"
    return told.value


def login(header: Mapping[str, Any] | None = None, drop: tuple[str, ...] = (), **claims: Any) -> str:
    """A login at acme that is good, but for what is put over it or dropped from its header."""
    return signed("acme", LOGIN | claims, header=header, without=drop)


# --- what is good ---------------------------------------------------------------------------------


def test_a_login_says_who_it_is() -> None:
    text = login()
    who = verify(text)
    assert (who.provider, who.kind, who.issuer) == ("acme", "oidc", "https://login.acme.example")
    assert (who.sub, who.session, who.auth_time, who.acr, who.client_id) == ("jane", "s-1", NOW - 60, "mfa", None)
    assert (who.issued_at, who.expires_at) == (LIVE["iat"], LIVE["exp"] + LEEWAY)
    assert who.claims == LOGIN
    assert who.digest == hashlib.sha256(text.rpartition(".")[0].encode()).digest()
    assert text.rpartition(".")[2] not in repr(who)


def test_what_is_not_stated_is_not_there() -> None:
    who = verify(signed("cluster", WORKLOAD | {"auth_time": "noon"}))
    assert (who.session, who.auth_time, who.acr, who.client_id) == (None, None, None, None)


@pytest.mark.parametrize(
    ("provider", "claims", "kind", "issuer"),
    [
        ("acme", LOGIN, "oidc", "https://login.acme.example"),
        ("acme-api", ACCESS, "access-token", "https://login.acme.example"),
        ("hub", ID_JAG, "id-jag", "https://hub.example"),
        ("cluster", WORKLOAD, "workload", "https://cluster.example"),
        ("mesh", SVID, "spiffe", "acme.example"),
    ],
)
def test_each_kind_is_good_in_its_place_and_in_no_other(provider: str, claims: dict[str, Any], kind: str, issuer: str) -> None:
    """26, 27, 36: the text is good, and every place that does not take its kind refuses it."""
    text = signed(provider, claims)
    who = verify(text)
    assert (who.provider, who.kind, who.issuer) == (provider, kind, issuer)
    assert verify(text, kind) == who
    refused(text, "not for this place", *(SUBJECTS - {kind}))
    if kind in ACTORS:
        assert verify(text, *ACTORS) == who
    else:
        refused(text, "not for this place", *ACTORS)


ONE_ISSUER = policy.read(f"""
version = 1
service = {{ origin = "{US}" }}
resource = {{}}
grant = {{}}
[provider]
oidc = {{ kind = "oidc", issuer = "https://one.example", client_ids = ["captoken-cli"], max_login_age = 28800 }}
access-token = {{ kind = "access-token", issuer = "https://one.example" }}
id-jag = {{ kind = "id-jag", issuer = "https://one.example" }}
workload = {{ kind = "workload", issuer = "https://one.example" }}
spiffe = {{ kind = "spiffe", trust_domain = "one.example", bundle = "/bundle" }}
""")
KINDS = {
    "oidc": LOGIN,
    "access-token": ACCESS,
    "id-jag": ID_JAG,
    "workload": WORKLOAD,
    "spiffe": SVID | {"sub": "spiffe://one.example/worker"},
}
A_KEY = private("one")
OF_ONE = key_set(document(jwk("one"))).keys


def by_one(provider: str, kid: str) -> Key:
    """One key signs for all kinds: the worst that can be."""
    return OF_ONE[kid]


@pytest.mark.parametrize("typ", [None, "JWT", "JOSE", "at+jwt", "oauth-id-jag+jwt", "logout+jwt", "secevent+jwt", "dpop+jwt", "jwt"])
@pytest.mark.parametrize("made", KINDS)
def test_no_assertion_of_one_issuer_and_one_key_is_of_two_kinds(made: str, typ: str | None) -> None:
    """26, 27: whatever `typ` it has, at most the one kind takes it whose claims it has."""
    claims = without(KINDS[made], "iss") if made == "spiffe" else KINDS[made] | {"iss": "https://one.example"}
    header = {"alg": "ES256", "kid": "one-ES256"} | ({} if typ is None else {"typ": typ})
    text = joined(json.dumps(header).encode(), json.dumps(claims).encode(), A_KEY, "ES256")
    good = set()
    for place in SUBJECTS:
        try:
            assert verify(text, place, over=ONE_ISSUER, by=by_one).kind == place
            good.add(place)
        except IssuanceError as error:
            assert error.code == "invalid_grant"
    right = {
        "oidc": {None, "JWT"},
        "access-token": {"at+jwt"},
        "id-jag": {"oauth-id-jag+jwt"},
        "workload": {None, "JWT"},
        "spiffe": {None, "JWT", "JOSE"},
    }
    if made in ("access-token", "id-jag") and typ in (None, "JWT"):
        # For us, signed, and without a type of its own: it is what a platform's JWT looks like, and such is asked for by name.
        assert good == {"workload"}
    elif made == "id-jag" and typ == "at+jwt":
        assert good == {"access-token"}
    elif made == "access-token" and typ == "oauth-id-jag+jwt":
        assert good == {"id-jag"}
    else:
        assert good == ({made} if typ in right[made] else set())


def test_what_could_be_of_two_providers_is_refused() -> None:
    text = joined(b'{"alg":"ES256","kid":"one-ES256"}', json.dumps(WORKLOAD | {"iss": "https://one.example"}).encode(), A_KEY, "ES256")
    told = refused(text, "it could be of several kinds", "oidc", "workload", over=ONE_ISSUER, by=by_one)
    assert told.why == "of providers oidc, workload"
    assert verify(text, "workload", over=ONE_ISSUER, by=by_one).kind == "workload"


def test_the_key_that_is_needed_is_named_before_it_is_asked_for() -> None:
    assert needed_key(login(), POLICY, SUBJECTS) == ("acme", "acme-ES256")
    assert needed_key(signed("mesh", SVID), POLICY, ACTORS) == ("mesh", "mesh-ES256")
    with pytest.raises(IssuanceError, match="its issuer is not known here"):
        needed_key(login(iss="https://login.other.example"), POLICY, SUBJECTS)


def test_a_kind_that_there_is_not_is_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match="there is no kind saml1"):
        verify(login(), "oidc", "saml1")


@pytest.mark.parametrize("alg", policy.ALGORITHMS)
def test_every_algorithm_of_the_policy_is_checked(alg: str) -> None:
    text = signed("acme", LOGIN, alg)
    assert verify(text).sub == "jane"
    head, _, tail = text.rpartition(".")
    other = signed("acme", LOGIN | {"sub": "joan"}, alg).rpartition(".")[2]
    refused(f"{head}.{other}", "its signature does not hold")
    refused(f"{head}.{tail[:-8]}", "its signature does not hold|a part of it cannot be read")


# --- confusion: 25 to 39 --------------------------------------------------------------------------

# Name, provider, what is put over sound claims, what the header has, and what is said of it.
Case = tuple[str, str, dict[str, Any], dict[str, Any], str]
GONE = object()
SOUND_OF = {"acme": LOGIN, "acme-api": ACCESS, "hub": ID_JAG, "cluster": WORKLOAD, "mesh": SVID, "narrow": NARROW}
EVENT = {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}
CONFUSED: list[Case] = [
    ("25 another application's ID token", "acme", {"aud": "payroll"}, {}, "it is for 'payroll'"),
    ("25 given to another application", "acme", {"azp": "payroll"}, {}, "it was given to 'payroll'"),
    ("25 for several, given to nobody", "acme", {"aud": ["captoken-cli", "captoken-web"]}, {}, "does not say whom it was given to"),
    ("25 for nobody", "acme", {"aud": []}, {}, "does not say whom it is for"),
    ("25 for no text", "acme", {"aud": ["captoken-cli", 5]}, {}, "does not say whom it is for"),
    ("25 without aud", "acme", {"aud": GONE}, {}, "does not say whom it is for"),
    ("26 an access token by its type", "acme", {}, {"typ": "at+jwt"}, "there is no key 'acme-ES256'"),
    ("26 an access token by its scope", "acme", {"scope": "openid q3"}, {}, "it is no ID token"),
    ("26 an access token by its scope, Microsoft's", "acme", {"scp": "q3"}, {}, "it is no ID token"),
    ("26 an access token by Keycloak's claim", "acme", {"typ": "Bearer"}, {}, "it is no ID token"),
    ("26 a refresh token by Keycloak's claim", "acme", {"typ": "Refresh"}, {}, "it is no ID token"),
    ("26 an ID token as an access token", "acme-api", {"aud": "captoken-cli"}, {}, "not for this service alone"),
    ("26 an access token without client_id", "acme-api", {"client_id": GONE}, {}, "it has no client_id"),
    ("26 an access token without jti", "acme-api", {"jti": GONE}, {}, "it has no jti"),
    ("27 an ID-JAG as something else", "hub", {}, {"typ": "JWT"}, "typ 'JWT' is not for this place"),
    ("27 an ID-JAG for an application", "hub", {"aud": "captoken-cli"}, {}, "not for this service alone"),
    ("27 an ID-JAG of no client", "hub", {"client_id": GONE}, {}, "it has no client_id"),
    ("27 an ID-JAG without jti", "hub", {"jti": GONE}, {}, "it has no jti"),
    ("28 a logout", "acme", EVENT, {"typ": "logout+jwt"}, "typ 'logout.jwt' is not for this place"),
    ("28 a logout without typ", "acme", EVENT, {"typ": GONE}, "it tells of an event"),
    ("28 an event", "acme", EVENT, {"typ": "secevent+jwt"}, "typ 'secevent.jwt' is not for this place"),
    ("28 an event as a JWT", "cluster", EVENT, {"typ": "JWT"}, "it tells of an event"),
    ("29 a DPoP proof by its type", "cluster", {}, {"typ": "dpop+jwt"}, "typ 'dpop.jwt' is not for this place"),
    ("29 a DPoP proof by its key", "cluster", {"htm": "POST", "htu": f"{US}/token"}, {"jwk": {}}, "its header has 'jwk'"),
    ("29 a DPoP proof by its claims", "cluster", {"iss": GONE, "htm": "POST", "htu": f"{US}/token"}, {}, "its issuer is not known here"),
    ("30 iss with a slash", "acme", {"iss": "https://login.acme.example/"}, {}, "its issuer is not known here"),
    ("30 iss in other case", "acme", {"iss": "https://LOGIN.acme.example"}, {}, "its issuer is not known here"),
    ("30 iss as a list", "acme", {"iss": ["https://login.acme.example"]}, {}, "its iss is no text"),
    ("30 iss as null", "mesh", {"iss": None}, {}, "its iss is no text"),
    ("30 without iss", "acme", {"iss": GONE}, {}, "its issuer is not known here"),
    ("30 iss with a port", "acme", {"iss": "https://login.acme.example:443"}, {}, "its issuer is not known here"),
    ("31 a stranger among the applications", "acme", {"aud": ["captoken-cli", "payroll"], "azp": "captoken-cli"}, {}, "it is for 'captoken-cli, payroll'"),
    ("31 a stranger of an access token", "acme-api", {"aud": [US, "https://sales.example"]}, {}, "not for this service alone"),
    ("31 a stranger of an ID-JAG", "hub", {"aud": [US, "https://sales.example"]}, {}, "not for this service alone"),
    ("31 a stranger of a workload", "cluster", {"aud": [US, "https://sales.example"]}, {}, "not for this service alone"),
    ("31 us with a slash", "cluster", {"aud": f"{US}/"}, {}, "not for this service alone"),
    ("32 an SVID with two audiences", "mesh", {"aud": [US, "spiffe://acme.example/other"]}, {}, "not for this service alone"),
    ("32 an SVID with one twice", "mesh", {"aud": [US, US]}, {}, "not for this service alone"),
    ("33 another trust domain", "mesh", {"sub": "spiffe://other.example/ns/risk"}, {}, "its issuer is not known here"),
    ("33 no scheme", "mesh", {"sub": "acme.example/ns/risk"}, {}, "its issuer is not known here"),
    ("33 a domain below", "mesh", {"sub": "spiffe://sub.acme.example/ns/risk"}, {}, "its issuer is not known here"),
    ("33 a bare trust domain", "mesh", {"sub": "spiffe://acme.example"}, {}, "no SPIFFE ID of a workload"),
    ("33 a bare trust domain with a slash", "mesh", {"sub": "spiffe://acme.example/"}, {}, "no SPIFFE ID of a workload"),
    ("33 user info", "mesh", {"sub": "spiffe://root@acme.example/ns"}, {}, "its issuer is not known here"),
    ("33 a port", "mesh", {"sub": "spiffe://acme.example:443/ns"}, {}, "its issuer is not known here"),
    ("33 a step up", "mesh", {"sub": "spiffe://acme.example/ns/../root"}, {}, "no SPIFFE ID of a workload"),
    ("33 a step in place", "mesh", {"sub": "spiffe://acme.example/./ns"}, {}, "no SPIFFE ID of a workload"),
    ("33 an empty segment", "mesh", {"sub": "spiffe://acme.example//ns"}, {}, "no SPIFFE ID of a workload"),
    ("33 a slash behind", "mesh", {"sub": "spiffe://acme.example/ns/"}, {}, "no SPIFFE ID of a workload"),
    ("33 a query", "mesh", {"sub": "spiffe://acme.example/ns?a=b"}, {}, "no SPIFFE ID of a workload"),
    ("33 an escape", "mesh", {"sub": "spiffe://acme.example/n%73"}, {}, "no SPIFFE ID of a workload"),
    ("33 a line feed", "mesh", {"sub": "spiffe://acme.example/ns\n"}, {}, "no SPIFFE ID of a workload"),
    ("33 too long a path", "mesh", {"sub": "spiffe://acme.example/" + "n" * 2048}, {}, "no SPIFFE ID of a workload"),
    ("33 upper case of the domain", "mesh", {"sub": "spiffe://ACME.example/ns"}, {}, "its issuer is not known here"),
    ("33 upper case of the scheme", "mesh", {"sub": "SPIFFE://acme.example/ns"}, {}, "its issuer is not known here"),
    ("33 sub as a list", "mesh", {"sub": ["spiffe://acme.example/ns"]}, {}, "its issuer is not known here"),
    ("35 act", "acme", {"act": {"sub": "agent"}}, {}, "it has act"),
    ("35 may_act", "acme", {"may_act": {"sub": "agent"}}, {}, "it has may_act"),
    ("35 act of an access token", "acme-api", {"act": {"sub": "agent"}}, {}, "it has act"),
    ("35 act of an ID-JAG", "hub", {"act": None}, {}, "it has act"),
    ("37 the default token of Kubernetes", "cluster", {"aud": ["https://kubernetes.default.svc.cluster.local"]}, {}, "not for this service alone"),
    ("37 without aud", "cluster", {"aud": GONE}, {}, "does not say whom it is for"),
    ("no sub", "acme", {"sub": GONE}, {}, "it has no sub"),
    ("an empty sub", "acme", {"sub": ""}, {}, "its sub is no text"),
    ("sub as a number", "acme", {"sub": 5}, {}, "its sub is no text"),
    ("a session that no logout would find", "acme", {"sid": ["s-1"]}, {}, "its sid is no text"),
    ("acr as a list", "acme", {"acr": ["mfa"]}, {}, "its acr is no text"),
    ("client_id as null", "acme-api", {"client_id": None}, {}, "its client_id is no text"),
]


def put(sound: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**sound, **over}.items() if value is not GONE}


@pytest.mark.parametrize(("provider", "claims", "header", "says"), [one[1:] for one in CONFUSED], ids=[one[0] for one in CONFUSED])
def test_what_was_made_for_something_else_is_refused(provider: str, claims: dict[str, Any], header: dict[str, Any], says: str) -> None:
    sound = SOUND_OF[provider]
    gone = tuple(name for name, value in header.items() if value is GONE)
    text = signed(provider, put(sound, claims), header={name: value for name, value in header.items() if value is not GONE}, without=gone)
    refused(text, says)
    assert verify(signed(provider, sound)).provider == provider


TWINS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("25 the other application", "acme", {"aud": "captoken-web"}, {}),
    ("25 for both, given to one", "acme", {"aud": ["captoken-cli", "captoken-web"], "azp": "captoken-web"}, {}),
    ("25 for one, as a list", "acme", {"aud": ["captoken-cli"]}, {}),
    ("26 Keycloak's claim of an ID token", "acme", {"typ": "ID"}, {}),
    ("26 without a type", "acme", {}, {"typ": GONE}),
    ("28 a claim that is like an event", "acme", {"event": "login"}, {}),
    ("32 an SVID for us, as a text", "mesh", {"aud": US}, {}),
    ("33 an SVID with typ JOSE", "mesh", {}, {"typ": "JOSE"}),
    ("33 an SVID without typ", "mesh", {}, {"typ": GONE}),
    ("33 an SVID with an issuer, as SPIRE can be told", "mesh", {"iss": "https://spire.acme.example"}, {}),
    ("33 segments with full stops", "mesh", {"sub": "spiffe://acme.example/ns/v1.2/...x/A_b-c"}, {}),
    ("33 a path as long as may be", "mesh", {"sub": ("spiffe://acme.example/" + "n" * 2048)[:2048]}, {}),
    ("35 actor, which is another word", "acme", {"actor": "octocat"}, {}),
    ("37 a token of Kubernetes for us, without typ", "cluster", {}, {"typ": GONE}),
]


@pytest.mark.parametrize(("provider", "claims", "header"), [one[1:] for one in TWINS], ids=[one[0] for one in TWINS])
def test_what_is_nearly_the_same_and_sound_is_good(provider: str, claims: dict[str, Any], header: dict[str, Any]) -> None:
    gone = tuple(name for name, value in header.items() if value is GONE)
    text = signed(provider, SOUND_OF[provider] | claims, header={name: value for name, value in header.items() if value is not GONE}, without=gone)
    assert verify(text).provider == provider


def test_34_two_providers_never_make_one_subject() -> None:
    """A policy in which they could does not load; here both have a jane, and they are two."""
    both = [verify(signed("acme", LOGIN)), verify(signed("keycloak", LOGIN | {"iss": "https://keycloak.example/realms/acme", "aud": "captoken-cli"}))]
    subjects = [POLICY.subjects[who.provider].subject(who.issuer, who.claims) for who in both]
    assert subjects == ["acme:jane", "keycloak:jane"]
    text = 'version=1\nservice={{origin="https://a.example"}}\nresource={{}}\ngrant={{}}\n[provider]\n{}'
    one = 'p{0}={{kind="workload",issuer="https://{0}.example",subject="{1}{{sub}}"}}\n'
    assert len(policy.read(text.format(one.format(1, "a:") + one.format(2, "b:"))).subjects) == 2
    with pytest.raises(IssuanceError, match="its subjects could be those of provider p1"):
        policy.read(text.format(one.format(1, "a:") + one.format(2, "a:b:")))


def test_36_subject_and_actor_are_not_swapped() -> None:
    person, workload = login(), signed("mesh", SVID)
    assert (verify(person, "oidc").sub, verify(workload, *ACTORS).sub) == ("jane", SVID["sub"])
    refused(person, "its issuer is known here, and not for this place", *ACTORS)
    refused(workload, "its issuer is known here, and not for this place", "oidc")


# Of an issuer that the whole world uses, or that one company shares.
TENANTS: list[tuple[str, dict[str, Any]]] = [
    ("ci", {"repository_owner_id": "66"}),
    ("ci", {"repository_owner_id": 65}),
    ("ci", {"repository_owner_id": GONE}),
    ("lab", {"namespace_id": "73"}),
    ("google", {"google": {"compute_engine": {"project_number": 1}}}),
    ("google", {"google": GONE}),
    ("aws", {"https://sts.amazonaws.com/": {"org_id": "o-other"}}),
    ("azure", {"tid": "another"}),
    ("azure", {"idtyp": "user"}),
]


@pytest.mark.parametrize(("provider", "wrong"), TENANTS)
def test_38_another_tenant_of_a_shared_issuer_is_refused(provider: str, wrong: dict[str, Any]) -> None:
    claims = PLATFORMS[provider][1]
    told = refused(signed(provider, put(claims, wrong)), "it is not one of those that are taken$")
    assert told.why.startswith(f"provider {provider} requires: ")
    assert verify(signed(provider, claims)).provider == provider


def test_39_a_captoken_starts_no_other_task() -> None:
    root = Issuer(Keyring.generate()).mint(subject="acme:jane", agent="a", task="t", allow={"sales": ["select"]}, expires_in=60)
    for text in (root.serialize(), root.present(audience=US)):
        told = refused(text, "it is a captoken")
        assert text not in f"{told} {told.why}"


# --- time: 40 to 44 -------------------------------------------------------------------------------

TIMES = [
    ("40 expired over 30 s", "acme", {"iat": NOW - 99, "exp": NOW - LEEWAY}, {"iat": NOW - 99, "exp": NOW - LEEWAY + 1}, "it expired 30 s ago"),
    ("41 exp as a text", "acme", {"exp": str(NOW + 60)}, {"exp": NOW + 60}, "its exp is no time"),
    ("41 exp as a boolean", "acme", {"exp": True}, {"exp": NOW + 60}, "its exp is no time"),
    ("41 exp missing", "acme", {"exp": GONE}, {"exp": NOW + 60}, "it has no exp"),
    ("41 exp as null", "acme", {"exp": None}, {"exp": NOW + 60}, "its exp is no time"),
    ("41 exp with a fraction", "acme", {"exp": NOW + 60.5}, {"exp": NOW + 60}, "its exp is no time"),
    ("41 exp before there was time", "acme", {"exp": -1}, {"exp": NOW + 60}, "its exp is no time"),
    ("41 iat missing", "mesh", {"iat": GONE}, {"iat": NOW}, "it has no iat"),
    ("41 iat as a text", "cluster", {"iat": str(NOW)}, {"iat": NOW}, "its iat is no time"),
    ("41 exp at its beginning", "acme", {"iat": NOW, "exp": NOW}, {"iat": NOW, "exp": NOW + 1}, "it is good for 0 s"),
    ("42 an ID token for over an hour", "acme", {"iat": NOW, "exp": NOW + 3601}, {"iat": NOW, "exp": NOW + 3600}, "it is good for 3601 s"),
    ("42 a workload for over an hour", "cluster", {"iat": NOW, "exp": NOW + 3601}, {"iat": NOW, "exp": NOW + 3600}, "it is good for 3601 s"),
    ("42 an SVID for a hundred years", "mesh", {"exp": NOW + 10**10}, {"exp": NOW + 300}, "it is good for 10000000010 s"),
    ("42 longer than the policy says", "narrow", {"iat": NOW, "exp": NOW + 601}, {"iat": NOW, "exp": NOW + 600}, "it is good for 601 s"),
    ("42 an ID-JAG for over five minutes", "hub", {"iat": NOW, "exp": NOW + 301}, {"iat": NOW, "exp": NOW + 300}, "it is good for 301 s"),
    ("42 an old one that is good for long", "cluster", {"iat": NOW - 9000, "exp": NOW + 60}, {"iat": NOW - 3000, "exp": NOW + 60}, "it is good for 9060 s"),
    ("43 iat ahead", "acme", {"iat": NOW + LEEWAY + 1}, {"iat": NOW + LEEWAY}, "it was issued in the future"),
    ("43 nbf ahead", "acme", {"nbf": NOW + LEEWAY + 1}, {"nbf": NOW + LEEWAY}, "it is not good yet"),
    ("43 nbf before there was time", "acme", {"nbf": -1}, {"nbf": 0}, "its nbf is no time"),
    ("43 nbf as a text", "acme", {"nbf": "now"}, {"nbf": NOW}, "its nbf is no time"),
    ("44 an old login", "acme", {"auth_time": NOW - 28801}, {"auth_time": NOW - 28800}, "the login was 28801 s ago"),
    ("44 no login stated", "acme", {"auth_time": GONE}, {"auth_time": NOW}, "it does not say when the login was"),
    ("44 a login as a text", "acme", {"auth_time": str(NOW)}, {"auth_time": NOW}, "its auth_time is no time"),
    ("44 a login ahead", "acme", {"auth_time": NOW + LEEWAY + 1}, {"auth_time": NOW + LEEWAY}, "its login was in the future"),
]


@pytest.mark.parametrize(("provider", "wrong", "right", "says"), [one[1:] for one in TIMES], ids=[one[0] for one in TIMES])
def test_what_is_not_of_now_is_refused(provider: str, wrong: dict[str, Any], right: dict[str, Any], says: str) -> None:
    """The specification's rule 44.4."""
    refused(signed(provider, put(SOUND_OF[provider], wrong)), says)
    assert verify(signed(provider, put(SOUND_OF[provider], right))).provider == provider


def test_it_is_refused_from_the_second_on_that_it_names() -> None:
    """What a registry keeps until then is not needed for longer, and not for shorter."""
    text = login()
    last = verify(text).expires_at
    assert verify(text, now=last - 1).sub == "jane"
    refused(text, "it expired 30 s ago", now=last)


# --- what platforms send --------------------------------------------------------------------------
# Names and types are as the documentation has them. Values are made up; times, audience and issuer are put in for the tests.

PLATFORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#schema-for-service-account-private-claims
    "cluster": (
        {"typ": GONE},
        {
            "aud": [US],
            "exp": NOW + 3590,
            "iat": NOW - 10,
            "iss": "https://cluster.example",
            "jti": "aed34954-b33a-4142-b1ec-389d6bbb4936",
            "kubernetes.io": {
                "namespace": "my-namespace",
                "node": {"name": "my-node", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
                "pod": {"name": "my-pod", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
                "serviceaccount": {"name": "my-serviceaccount", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"},
                "warnafter": NOW + 3597,
            },
            "nbf": NOW - 10,
            "sub": "system:serviceaccount:my-namespace:my-serviceaccount",
        },
    ),
    # https://docs.github.com/en/actions/reference/security/oidc
    "ci": (
        {"typ": "JWT", "x5t": "example-thumbprint"},
        {
            "jti": "example-id",
            "sub": "repo:octo-org/octo-repo:environment:prod",
            "environment": "prod",
            "aud": US,
            "ref": "refs/heads/main",
            "sha": "example-sha",
            "repository": "octo-org/octo-repo",
            "repository_owner": "octo-org",
            "actor_id": "12",
            "repository_visibility": "private",
            "repository_id": "74",
            "repository_owner_id": "65",
            "run_id": "example-run-id",
            "run_number": "10",
            "run_attempt": "2",
            "runner_environment": "github-hosted",
            "actor": "octocat",
            "workflow": "example-workflow",
            "head_ref": "",
            "base_ref": "",
            "event_name": "workflow_dispatch",
            "ref_type": "branch",
            "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
            "iss": "https://token.actions.githubusercontent.com",
            "nbf": NOW - 600,
            "exp": NOW + 300,
            "iat": NOW,
        },
    ),
    # https://docs.gitlab.com/ci/secrets/id_token_authentication/
    "lab": (
        {"typ": "JWT"},
        {
            "namespace_id": "72",
            "namespace_path": "my-group",
            "project_id": "20",
            "project_path": "my-group/my-project",
            "user_id": "1",
            "user_login": "sample-user",
            "user_email": "sample-user@example.com",
            "user_identities": [{"provider": "github", "extern_uid": "2435223452345"}],
            "pipeline_id": "574",
            "pipeline_source": "push",
            "job_id": "302",
            "ref": "feature-branch-1",
            "ref_type": "branch",
            "ref_path": "refs/heads/feature-branch-1",
            "ref_protected": "false",
            "groups_direct": ["mygroup/mysubgroup", "myothergroup/myothersubgroup"],
            "environment": "test-environment2",
            "environment_protected": "false",
            "deployment_tier": "testing",
            "environment_action": "start",
            "runner_id": 1,
            "runner_environment": "self-hosted",
            "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
            "project_visibility": "public",
            "ci_config_ref_uri": "gitlab.example.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main",
            "ci_config_sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
            "jti": "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b",
            "iss": "https://gitlab.com",
            "iat": NOW,
            "nbf": NOW - 5,
            "exp": NOW + 3600,
            "sub": "project_path:my-group/my-project:ref_type:branch:ref:feature-branch-1",
            "aud": US,
        },
    ),
    # https://cloud.google.com/compute/docs/instances/verifying-instance-identity
    "google": (
        {"typ": "JWT"},
        {
            "iss": "https://accounts.google.com",
            "iat": NOW,
            "exp": NOW + 3600,
            "aud": US,
            "sub": "107517467455664443765",
            "azp": "107517467455664443765",
            "email": "739419398126-compute@developer.example",
            "email_verified": True,
            "google": {
                "compute_engine": {
                    "project_id": "my-project",
                    "project_number": 739419398126,
                    "zone": "us-west1-a",
                    "instance_id": "152986662232938449",
                    "instance_name": "example",
                    "instance_creation_timestamp": 1496952205,
                    "instance_confidentiality": 1,
                    "license_id": ["1000204"],
                }
            },
        },
    ),
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_token_claims.html
    "aws": (
        {"typ": "JWT"},
        {
            "iss": "https://abc123-def456-ghi789-jkl012.tokens.sts.global.api.aws",
            "aud": US,
            "sub": "arn:aws:iam::123456789012:role/DataProcessingRole",
            "iat": NOW,
            "exp": NOW + 900,
            "jti": "xyz123-def456-ghi789-jkl012",
            "https://sts.amazonaws.com/": {
                "aws_account": "123456789012",
                "source_region": "us-east-1",
                "org_id": "o-abc1234567",
                "ou_path": "o-a1b2c3d4e5/r-ab12/ou-ab12-11111111/ou-ab12-22222222/",
                "principal_tags": {"environment": "production", "team": "data-engineering", "cost-center": "engineering"},
                "lambda_source_function_arn": "arn:aws:lambda:us-east-1:123456789012:function:process-data",
                "request_tags": {"job-id": "job-2024-001", "priority": "high", "data-classification": "sensitive"},
            },
        },
    ),
    # https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference (a managed identity's: for a day)
    "azure": (
        {"typ": "JWT", "x5t": "example-thumbprint"},
        {
            "aud": US,
            "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
            "iat": NOW - 300,
            "nbf": NOW - 300,
            "exp": NOW + 86400,
            "aio": "k2RgYGiZ0example",
            "azp": "11111111-0000-4000-8000-00000000c11e",
            "azpacr": "2",
            "idtyp": "app",
            "oid": "22222222-0000-4000-8000-0000000000b1",
            "rh": "1.AexampleA.",
            "sub": "22222222-0000-4000-8000-0000000000b1",
            "tid": TENANT,
            "uti": "exampleUti",
            "ver": "2.0",
            "roles": ["Tasks.Start"],
        },
    ),
    # https://spiffe.io/docs/latest/spiffe-specs/jwt-svid/ (and what SPIRE's `api fetch jwt` prints)
    "mesh": (
        {"typ": "JWT"},
        {"aud": [US], "exp": NOW + 300, "iat": NOW, "sub": "spiffe://acme.example/ns/risk/sa/orchestrator"},
    ),
    # https://www.keycloak.org/docs/latest/server_admin/ (an ID token of the default client scopes)
    "keycloak": (
        {"typ": "JWT"},
        {
            "exp": NOW + 300,
            "iat": NOW,
            "auth_time": NOW - 100,
            "jti": "4b1f0c9e-0000-4000-8000-00000000f00d",
            "iss": "https://keycloak.example/realms/acme",
            "aud": "captoken-cli",
            "sub": "d7f1c1a2-0000-4000-8000-0000000000aa",
            "typ": "ID",
            "azp": "captoken-cli",
            "sid": "9a8b7c6d-0000-4000-8000-0000000000bb",
            "at_hash": "exampleAtHash",
            "acr": "1",
            "email_verified": True,
            "name": "Jane Doe",
            "preferred_username": "jane",
            "given_name": "Jane",
            "family_name": "Doe",
            "email": "jane@acme.example",
        },
    ),
}
SIGNED_BY = {"cluster": "RS256", "ci": "RS256", "lab": "RS256", "google": "RS256", "aws": "ES384", "azure": "RS256", "mesh": "ES256", "keycloak": "RS256"}
CALLED = {
    "cluster": "cluster:14ee3fa4-a7e2-420f-9f9a-dbc4507c3798",
    "ci": "ci:74",
    "lab": "lab:20",
    "google": "google:107517467455664443765",
    "azure": "azure:22222222-0000-4000-8000-0000000000b1",
    "mesh": "mesh:spiffe://acme.example/ns/risk/sa/orchestrator",
    "keycloak": "keycloak:d7f1c1a2-0000-4000-8000-0000000000aa",
}


@pytest.mark.parametrize("provider", PLATFORMS)
def test_what_platforms_send_is_good(provider: str) -> None:
    header, claims = PLATFORMS[provider]
    gone = tuple(name for name, value in header.items() if value is GONE)
    text = signed(provider, claims, SIGNED_BY[provider], header={name: value for name, value in header.items() if value is not GONE}, without=gone)
    who = verify(text)
    assert (who.provider, who.claims) == (provider, claims)
    called = POLICY.subjects[provider].subject(who.issuer, who.claims)
    assert called == CALLED.get(provider, called) and called.startswith(f"{provider}:")


# --- what nobody thought of -----------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def never_accepted(text: Any) -> None:
    for takes in (SUBJECTS, ACTORS, frozenset[str]()):
        with pytest.raises(IssuanceError) as told:
            identify(text, POLICY, keys, NOW, US, takes)
        assert told.value.code == "invalid_grant"


@given(st.text() | st.binary() | st.none() | st.integers() | st.text("eyJ0.-_=cap1", max_size=60))
@example("..")
@example("cap1_")
@example("\ud800.a.b")
def test_fuzz_whatever_text(text: Any) -> None:
    never_accepted(text)


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=80))
def test_fuzz_whatever_bytes(header: bytes, payload: bytes, signature: bytes) -> None:
    never_accepted(f"{b64encode(header)}.{b64encode(payload)}.{b64encode(signature)}")
    never_accepted(joined(header, payload, private("acme"), "ES256"))


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "x5t", "jwk", "crit", "zz"]) | st.text(max_size=6), JSON, max_size=6))
def test_fuzz_whatever_header(header: dict[str, Any]) -> None:
    """Signed by the right key. Only one that names it and its algorithm would do."""
    assume(header.get("kid") != "acme-ES256")
    never_accepted(joined(msgspec.json.encode(header), json.dumps(LOGIN).encode(), private("acme"), "ES256"))


@given(st.sampled_from(["alg", "kid", "typ", "jwk", "jku", "crit", "zip"]), JSON)
def test_fuzz_a_member_of_a_sound_header(name: str, value: Any) -> None:
    assume((name, value) not in (("alg", "ES256"), ("kid", "acme-ES256"), ("typ", "JWT")))
    never_accepted(login(header={name: value}))


@given(st.dictionaries(st.sampled_from(["iss", "sub", "aud", "exp", "iat", "auth_time"]) | st.text(max_size=6), JSON, max_size=8))
def test_fuzz_whatever_claims(claims: dict[str, Any]) -> None:
    """Signed by the right key, and of no issuer that is known."""
    for provider in ("acme", "mesh"):
        never_accepted(signed(provider, claims))


@given(st.sampled_from(["iss", "aud", "exp", "iat", "auth_time", "nbf", "act", "events", "scope"]), JSON)
def test_fuzz_a_claim_of_a_sound_login(name: str, value: Any) -> None:
    """Whatever stands in place of what has to be there: no time that is now is small, and no text is ours by chance."""
    assume(not (name == "nbf" and type(value) is int and value >= 0))
    assume(not (name in ("auth_time", "iat", "exp") and type(value) is int and value > NOW - 30000))
    never_accepted(login(**{name: value}))


@given(st.sampled_from(["aud", "sub", "exp", "iat", "events"]), JSON)
def test_fuzz_a_claim_of_a_sound_svid(name: str, value: Any) -> None:
    assume(not (name in ("iat", "exp") and type(value) is int and value > NOW - 30000))
    never_accepted(signed("mesh", SVID | {name: value}))


# What each claim of a login may be, good ones first; as many as are good, which depends on no other claim.
CHOICES: dict[str, tuple[int, list[Any]]] = {
    "iss": (1, [LOGIN["iss"], "https://login.acme.example/", None, [LOGIN["iss"]]]),
    "sub": (2, ["jane", "joan", "", 5, GONE]),
    "iat": (3, [NOW, NOW - 600, NOW + LEEWAY, NOW + LEEWAY + 1, True, GONE]),
    "nbf": (3, [GONE, 0, NOW + LEEWAY, NOW + LEEWAY + 1, "0"]),
    "auth_time": (3, [NOW, NOW + LEEWAY, NOW - 28800, NOW - 28801, NOW + LEEWAY + 1, GONE, 0.5]),
    "exp": (2, [NOW + 60, NOW + 3000, NOW + 4231, NOW - 601, None, GONE]),
    "aud": (2, ["captoken-cli", ["captoken-web"], "payroll", ["captoken-cli", "payroll"], [], GONE]),
    "azp": (3, [GONE, "captoken-cli", "captoken-web", "payroll", ""]),
    "typ": (2, [GONE, "ID", "Bearer", 1]),
    "scope": (1, [GONE, "q3"]),
    "act": (1, [GONE, None]),
    "events": (1, [GONE, {}]),
}


@given(st.fixed_dictionaries({name: st.integers(0, len(values) - 1) | st.just(0) | st.just(0) for name, (_, values) in CHOICES.items()}))
@settings(max_examples=300)
def test_a_login_is_good_if_each_of_its_claims_is(chosen: dict[str, int]) -> None:
    """Any number of faults at once, and none of them makes up for another."""
    claims = {name: CHOICES[name][1][at] for name, at in chosen.items()}
    text = signed("acme", put({}, claims))
    if all(at < CHOICES[name][0] for name, at in chosen.items()):
        assert verify(text).claims == put({}, claims)
    else:
        never_accepted(text)


@given(st.data())
@settings(max_examples=100)
def test_fuzz_a_piece_of_a_sound_text(data: st.DataObject) -> None:
    """Cut, doubled, or with another character in it."""
    text = SOUND_TEXT
    at = data.draw(st.integers(0, len(text) - 1))
    changed = data.draw(st.sampled_from([text[:at], text[at + 1 :], text[:at] + text[at] * 2 + text[at + 1 :]]) | st.characters().map(lambda one: text[:at] + one + text[at + 1 :]))
    assume(changed != text)
    never_accepted(changed)


SOUND_TEXT = login()


# --- what is imported -----------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["import captoken", "import captoken.issuance.identity, captoken.issuance.keys, captoken.issuance.policy"])
def test_no_library_is_imported_before_the_first_key(statement: str) -> None:
    """Of JOSE, of certificates, of HTTP: a service begins without them."""
    asked = f"{statement}\nimport sys; print(sorted({{'joserfc', 'cryptography', 'httpx'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_the_extra_it_says_what_to_install() -> None:
    asked = """
import sys
sys.modules["joserfc"] = None
from captoken.issuance.jose import key_set
key_set(b'{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"a"}]}')
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'captoken[issuance]'" in done.stderr
