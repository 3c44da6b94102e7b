"""People log in by SAML: a request that the provider reads, an answer that it signs, and whatever else a browser may be made to post.

Each attack stands beside the same thing done rightly. No answer that is refused sets a session, or sends a browser anywhere.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from time import time
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from lxml import etree

from captoken._language.bounds import RESPONSE_CHARS
from captoken.errors import IssuanceError
from captoken.issuance.oidc import Attempt
from captoken.issuance.policy import read
from captoken.issuance.registry import Ending
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.issuance.saml_login import SamlProvider, read_key
from captoken.testing import FixedClock

from .logging_in import POLICY, House, Person, boxes, code_in, house
from .saml_idp import (
    BEARER,
    EXCLUSIVE,
    IDP,
    MFA,
    PERSISTENT,
    SAML,
    SUCCESS,
    TRANSFORMS,
    assertion,
    at,
    certificate,
    private,
    private_pem,
    response,
    sign,
)

HERE = "urn:example:captoken"  # what the provider calls this service
SSO = "https://idp.corp.example/sso?tenant=1&x=2"
PROVIDER = f"""
[provider.corp]
kind = "saml"
issuer = "{IDP}"
certificates = '''{certificate("rsa")}'''
max_login_age = 28800
subject = "corp:{{{{sub}}}}"
attributes = {{{{ groups = "urn:oid:1.3.6.1.4.1.5923.1.5.1.1" }}}}
[provider.other]
kind = "saml"
issuer = "https://other.example/metadata"
certificates = '''{certificate("P-256")}'''
max_login_age = 28800
subject = "other:{{{{sub}}}}"
[login]
provider = "corp"
client_id = "{HERE}"
sso = "{SSO}"
"""
SAML_POLICY = POLICY.replace('[login]\nprovider = "people"\nclient_id = "here"\n', PROVIDER).replace(
    'subject = {{ provider = "people" }}\nclients', 'subject = {{ provider = "corp" }}\nclients'
).replace('subject = {{ provider = "people", groups', 'subject = {{ provider = "corp", groups')  # fmt: skip


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[str, House]]:
    with house(policy=SAML_POLICY) as made:
        yield made


@pytest.fixture
def jane(here: tuple[str, House]) -> Person:
    return Person(here[0], "jane")


class Asked(NamedTuple):
    """What a browser brings to the provider."""

    request: Any
    relay: str
    query: str

    @classmethod
    def by(cls, answer: httpx.Response) -> Asked:
        assert answer.status_code == 303, answer.text
        address = answer.headers["location"]
        assert address.startswith(f"{SSO}&")
        return cls.of(address.removeprefix(f"{SSO}&"))

    @classmethod
    def of(cls, query: str) -> Asked:
        said = parse_qs(query)
        return cls(etree.fromstring(zlib.decompress(base64.b64decode(said["SAMLRequest"][0]), -15)), said["RelayState"][0], query)

    @property
    def id(self) -> str:
        return str(self.request.get("ID"))

    @property
    def back(self) -> str:
        return str(self.request.get("AssertionConsumerServiceURL"))


def begun(person: Person, **more: Any) -> Asked:
    """A browser at the provider's door."""
    return Asked.by(person.web.get(person.asks(**more)))


def signed(asked: Asked, *, now: int | None = None, key: str = "rsa", id: str | None = None, **other: Any) -> str:
    """The provider's assertion: all as it was asked for, but for what is stated otherwise."""
    at_now = int(time()) if now is None else now
    said = {"audience": HERE, "recipient": asked.back, "answers": asked.id, "ends": at(290, at_now), "login": at(-60, at_now), **other}
    answers = "" if said["answers"] is None else f' InResponseTo="{said["answers"]}"'
    parts = {
        "confirmation": f'<saml:SubjectConfirmation Method="{BEARER}"><saml:SubjectConfirmationData NotOnOrAfter="{said["ends"]}"'
        f' Recipient="{said["recipient"]}"{answers}/></saml:SubjectConfirmation>',
        "conditions": f'<saml:Conditions NotOnOrAfter="{said["ends"]}"><saml:AudienceRestriction><saml:Audience>{said["audience"]}</saml:Audience>'
        "</saml:AudienceRestriction></saml:Conditions>",
        "login": f'<saml:AuthnStatement AuthnInstant="{said["login"]}" SessionIndex="s-1"><saml:AuthnContext><saml:AuthnContextClassRef>{MFA}'
        "</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>",
        **other.get("parts", {}),
    }  # fmt: skip
    return sign(assertion(id or f"_{asked.id}", at_now, **parts), key)


def answered(asked: Asked, *parts: str, **stated: str) -> dict[str, str]:
    """The form that the browser then posts."""
    stated = {"Destination": asked.back, "InResponseTo": asked.id, **stated}
    return {"SAMLResponse": base64.encodebytes(response(*parts, **stated).encode()).decode(), "RelayState": asked.relay}


def post(person: Person, form: dict[str, str]) -> httpx.Response:
    """As from the provider's own site."""
    return person.web.post(f"{person.origin}/login/saml", data=form, headers={"origin": "https://idp.corp.example", "sec-fetch-site": "cross-site"})


def refused(answer: httpx.Response) -> str:
    assert answer.status_code == 400 and "location" not in answer.headers, answer.text
    assert "captoken-session" not in answer.headers.get("set-cookie", "")
    return unescape(answer.text)


def logged_in(person: Person, **more: Any) -> httpx.Response:
    """All of it as it should be: the page that she sees in the end."""
    asked = begun(person, **more)
    answer = post(person, answered(asked, signed(asked)))
    assert answer.status_code == 303, answer.text
    return person.web.get(answer.headers["location"])


def is_out(person: Person) -> bool:
    return person.web.get(person.asks()).headers.get("location", "").startswith(SSO)


def test_a_person_logs_in_there_and_allows(here: tuple[str, House], jane: Person) -> None:
    page = logged_in(jane)
    assert "corp:jane" in page.text and boxes(page)
    said = jane.exchange(code_in(jane.send(jane.form(page)))).json()
    assert said["scope"] == "notes" and here[1].registry.is_live(said["task"], int(time()))
    # By an attribute of hers, and with no second login.
    assert len(boxes(jane.page(scope="sales"))) == 3
    assert jane.refresh(said["refresh_token"]).status_code == 200


def test_a_logout_of_her_session_there_ends_what_acts_for_her() -> None:
    with house(policy=SAML_POLICY) as (origin, made):
        jane = Person(origin)
        said = jane.exchange(code_in(jane.send(jane.form(logged_in(jane))))).json()
        # What the provider's logout becomes, by whatever message.
        assert made.registry.end(Ending(provider="corp", session="s-1", now=int(time())))
        assert is_out(jane) and jane.refresh(said["refresh_token"]).status_code == 400
        asked = begun(jane)
        assert "get a new one" in refused(post(jane, answered(asked, signed(asked))))


# --- the request ------------------------------------------------------------------------------------------------------


def test_the_request_says_who_asks_and_where_the_answer_goes(jane: Person) -> None:
    """SAML 2.0 Core, 3.4.1; Web Browser SSO Profile, 4.1.4.1."""
    asked = begun(jane)
    assert asked.request.attrib == {
        "ID": asked.id, "Version": "2.0", "IssueInstant": asked.request.get("IssueInstant"), "Destination": SSO,
        "ProtocolBinding": "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST", "AssertionConsumerServiceURL": f"{jane.origin}/login/saml",
    }  # fmt: skip
    issuer, policy = asked.request
    assert issuer.tag == f"{{{SAML}}}Issuer" and issuer.text == HERE
    assert policy.attrib == {"Format": PERSISTENT, "AllowCreate": "true"}
    assert len(asked.relay) <= 80 and "Signature" not in asked.query
    again = begun(jane)
    assert (again.id, again.relay) != (asked.id, asked.relay)


def test_a_request_is_signed_with_a_key_if_there_is_one() -> None:
    made = SamlProvider(IDP, SSO, HERE, key=read_key(private_pem("rsa-2")), clock=FixedClock(1_800_000_000))
    address, attempt = made.begin("https://here.example/login/saml", max_age=0, acr='a"&<b')
    query, _, signature = address.removeprefix(f"{SSO}&").partition("&Signature=")
    raw = base64.b64decode(parse_qs(f"s={signature}")["s"][0])
    private("rsa-2").public_key().verify(raw, query.encode(), padding.PKCS1v15(), hashes.SHA256())
    said = parse_qs(query)
    assert list(said) == ["SAMLRequest", "RelayState", "SigAlg"] and said["SigAlg"] == ["http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"]
    root = etree.fromstring(zlib.decompress(base64.b64decode(said["SAMLRequest"][0]), -15))
    assert root.get("ForceAuthn") == "true" and root.get("IssueInstant") == at(0)
    assert root[1].attrib == {"AllowCreate": "true"}, "of several formats none is asked for"
    assert root[2].get("Comparison") == "exact" and root[2][0].text == 'a"&<b'
    assert attempt.state == said["RelayState"][0] and attempt.verifier not in address
    assert root.get("ID") == f"_{hashlib.sha256(attempt.verifier.encode()).hexdigest()}"


def test_the_key_is_the_file_of_the_policy(tmp_path: Path) -> None:
    """And of several formats of names that are taken none is asked for."""
    (tmp_path / "key.pem").write_text(private_pem("rsa-2"))
    text = SAML_POLICY.replace('"urn:example:captoken"\n', f'"urn:example:captoken"\nsecret_file = "{tmp_path}/key.pem"\n')
    text = text.replace("max_login_age = 28800\nsubject = \"corp", 'name_ids = ["persistent", "unspecified"]\nmax_login_age = 28800\nsubject = "corp')
    with house(policy=text) as (origin, _):
        jane = Person(origin)
        asked = begun(jane)
        assert "&SigAlg=" in asked.query and "&Signature=" in asked.query and asked.request[1].get("Format") is None
        assert post(jane, answered(asked, signed(asked))).status_code == 303
        (tmp_path / "key.pem").unlink()
        assert begun(Person(origin)).query.count("&Signature=") == 1, "it is read once in a while"
    with house(policy=text) as (origin, _):
        assert Person(origin).web.get(f"{origin}/grants").status_code == 503


@pytest.mark.parametrize("key", ["", "no key", private_pem("P-256"), private_pem("weak"), certificate("rsa")], ids=["none", "text", "curve", "short", "public"])
def test_what_is_no_key_signs_nothing(key: str) -> None:
    with pytest.raises(IssuanceError, match="try again later") as caught:
        read_key(key)
    assert caught.value.code == "temporarily_unavailable" and "no private key of RSA" in caught.value.why


@pytest.mark.parametrize(
    "old, new, why",
    [
        (f'sso = "{SSO}"', "", "a provider of SAML has sso, and no scopes"),
        (f'sso = "{SSO}"', f'sso = "{SSO}"\nscopes = ["groups"]', "a provider of SAML has sso, and no scopes"),
        (f'sso = "{SSO}"', 'sso = "http://idp.corp.example/sso"', "login.sso: .* is no https address"),
        (f'sso = "{SSO}"', 'sso = "https://idp.corp.example/sso#x"', "login.sso: .* is no https address"),
    ],
)  # fmt: skip
def test_a_policy_says_where_the_provider_takes_requests(old: str, new: str, why: str) -> None:
    text = SAML_POLICY.format(origin="https://issuer.example")
    assert read(text).login is not None and old in text
    with pytest.raises(IssuanceError, match=why):
        read(text.replace(old, new))


def test_a_login_that_is_too_old_is_asked_for_anew_and_once(jane: Person) -> None:
    """SAML has no `max_age`: where the provider's own session is older than the policy takes, it is asked for a new login."""
    asked = begun(jane)
    old = at(-28_801, int(time()))
    forced = Asked.by(post(jane, answered(asked, signed(asked, login=old))))
    assert asked.request.get("ForceAuthn") is None and forced.request.get("ForceAuthn") == "true"
    assert "log in again" in refused(post(jane, answered(forced, signed(forced, login=old))))
    assert is_out(jane)
    answer = post(jane, answered(forced, signed(forced)))
    assert answer.status_code == 303 and boxes(jane.web.get(answer.headers["location"])), "and it leads where she was going"


# --- the answer -------------------------------------------------------------------------------------------------------


def test_an_answer_counts_in_the_browser_that_asked(here: tuple[str, House], jane: Person) -> None:
    """The specification's rule 44.26. Login CSRF: mallory's answer of the provider, put into jane's browser, logs nobody in; hers in mallory's does not either."""
    mallory = Person(here[0])
    hers, his = begun(jane), begun(mallory)
    form = answered(his, signed(his))
    assert "not begun in this browser" in refused(post(jane, form))
    # With the relay state of a login that jane has begun: the provider has signed which request it answers.
    assert "answers another request" in refused(post(jane, {**form, "RelayState": hers.relay}))
    assert "answers no request of this login" in refused(post(jane, answered(hers, signed(his, recipient=hers.back))))
    assert is_out(jane)
    assert post(mallory, form).status_code == 303
    assert post(jane, answered(hers, signed(hers))).status_code == 303


def test_an_answer_that_was_stolen_on_its_way_is_of_no_use_in_another_browser(here: tuple[str, House], jane: Person) -> None:
    """A cookie is the browser's own word. Whoever has an answer that was not used yet knows which request it is for, and not by what that was made."""
    asked = begun(jane)
    (kept,) = [one for one in jane.web.cookies.jar if one.name.startswith("captoken-at-")]
    state, nonce, verifier, *rest = json.loads(base64.urlsafe_b64decode(str(kept.value) + "=="))
    form = answered(asked, signed(asked))
    for guess in ({"nonce": asked.id, "verifier": ""}, {"nonce": asked.id, "verifier": asked.id}, {"nonce": nonce, "verifier": verifier}):
        made = base64.urlsafe_b64encode(json.dumps([state, guess["nonce"], guess["verifier"], *rest]).encode()).rstrip(b"=").decode()
        answer = httpx.post(f"{here[0]}/login/saml", data=form, headers={"cookie": f"{kept.name}={made}"})
        if guess["verifier"] == verifier:
            assert answer.status_code == 303, "with the cookie itself it is that browser"
        else:
            assert "answers another request" in refused(answer)


@pytest.mark.parametrize("answers", [None, "_q1", ""])
def test_an_answer_to_no_request_is_refused(jane: Person, answers: str | None) -> None:
    """Unsolicited responses: the signed assertion says which request it answers."""
    asked = begun(jane)
    refused(post(jane, answered(asked, signed(asked, answers=answers))))
    silent = {key: value for key, value in answered(asked, signed(asked)).items() if key != "RelayState"}
    refused(post(jane, silent))
    # The response need not say it, which nobody has signed.
    form = answered(asked, signed(asked))
    form["SAMLResponse"] = base64.b64encode(response(signed(asked), issuer="").encode()).decode()
    assert post(jane, form).status_code == 303


def test_an_assertion_is_used_once(jane: Person) -> None:
    """Replay: also in the browser that asked, with its cookie put back; and after another process has taken over the registry."""
    asked = begun(jane)
    kept = dict(jane.web.cookies)
    form = answered(asked, signed(asked))
    assert post(jane, form).status_code == 303
    assert "not begun in this browser" in refused(post(jane, form))
    thief = Person(jane.origin)
    thief.web.cookies.update(kept)
    assert "used before" in refused(post(thief, form))
    # Another assertion under the same ID is the same one.
    assert "used before" in refused(post(thief, answered(asked, signed(asked, ends=at(200, int(time())))))), "whatever is signed under it"
    assert is_out(thief)


def test_another_worker_knows_that_it_was_used(tmp_path: Any) -> None:
    SQLiteRegistry.create(tmp_path / "r.db", floor=0)
    with house(policy=SAML_POLICY, registry=SQLiteRegistry(tmp_path / "r.db")) as (origin, _):
        jane = Person(origin)
        asked = begun(jane)
        kept, form = dict(jane.web.cookies), answered(asked, signed(asked))
        assert post(jane, form).status_code == 303
        text = SAML_POLICY.replace("{origin}", origin)
        with house(policy=text, registry=SQLiteRegistry(tmp_path / "r.db")) as (other, _):
            again = httpx.post(f"{other}/login/saml", data=form, cookies=kept)
            assert again.status_code == 400 and "used before" in again.text


@pytest.mark.parametrize(
    "said, why",
    [
        ({"audience": "https://issuer.example"}, "not for this service alone"),
        ({"audience": "urn:example:other"}, "not for this service alone"),
        ({"recipient": "https://issuer.example/token"}, "Recipient"),
        ({"recipient": "https://evil.example/login/saml"}, "Recipient"),
        ({"ends": at(-60, int(time()))}, "expired"),
        ({"login": at(3600, int(time()))}, "in the future"),
        ({"key": "rsa-2"}, "signature does not hold"),
        ({"parts": {"issuer": "<saml:Issuer>https://other.example/metadata</saml:Issuer>"}}, "issuer is not known"),
        ({"parts": {"issuer": "<saml:Issuer>https://other.example/metadata</saml:Issuer>"}, "key": "P-256"}, "issuer is not known"),
        ({"parts": {"name": f'<saml:NameID Format="{PERSISTENT.replace("2.0:nameid-format:persistent", "1.1:nameid-format:emailAddress")}">j@x</saml:NameID>'}},
         "NameID is 'emailAddress'"),
        ({"parts": {"conditions": ""}}, "no Conditions"),
    ],
    ids=lambda one: re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "then", str(one))[:40],  # the same in each process
)  # fmt: skip
def test_an_assertion_for_anybody_else_or_of_anybody_else_is_refused(jane: Person, said: dict[str, Any], why: str) -> None:
    """Audience, recipient, time, issuer, signature: as the token endpoint checks them, with the values of this door."""
    asked = begun(jane)
    if said.get("key") == "P-256":
        said = {**said, "key": "rsa"}  # of that issuer, nothing is taken at all, whatever key it is
    assert why in refused(post(jane, answered(asked, signed(asked, **said))))
    assert is_out(jane)


def test_what_logs_in_here_starts_nothing_at_the_token_endpoint(jane: Person) -> None:
    """And the other way round: each door has its own audience and recipient."""
    asked = begun(jane)
    text = base64.urlsafe_b64encode(signed(asked).encode()).rstrip(b"=").decode()
    answer = jane.post({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": text, "scope": "shell",
                        "subject_token_type": "urn:ietf:params:oauth:token-type:saml2", "resource": f"{jane.origin}/mcp"})  # fmt: skip
    assert answer.status_code == 400 and "not for this service alone" in answer.json()["error_description"], answer.text


_EVIL = assertion("_evil", int(time()))


@pytest.mark.parametrize(
    "wrap",
    [
        # A forged assertion beside the signed one, before or behind it; around it, or below it; in what the response may say beside.
        lambda good: (_EVIL, good),
        lambda good: (good, _EVIL),
        lambda good: (_EVIL.replace("</saml:Assertion>", f"{good}</saml:Assertion>"),),
        lambda good: (good.replace("</saml:Assertion>", f"{_EVIL}</saml:Assertion>"),),
        lambda good: (f"<p:Extensions>{good}</p:Extensions>", _EVIL),
        lambda good: (_EVIL.replace("</saml:Issuer>", f"</saml:Issuer>{_signature(good).replace('</ds:Signature>', f'<ds:Object>{good}</ds:Object></ds:Signature>')}"),),
        # The signature of one assertion over the content of another, with its ID too.
        lambda good: (_EVIL.replace("</saml:Issuer>", f"</saml:Issuer>{_signature(good)}"),),
        lambda good: (good.replace(">jane<", ">admin<"),),
        lambda good: (good.replace(">jane<", ">jane<!-- -->admin<"),),
        lambda good: (good.replace(">jane<", "><x>jane</x><"),),
        lambda good: (good.replace(_signature(good), ""),),
        lambda good: (f'<a:EncryptedAssertion xmlns:a="{SAML}"/>',),
        lambda good: (),
    ],
)  # fmt: skip
def test_no_assertion_is_wrapped_around_one_that_is_signed(jane: Person, wrap: Any) -> None:
    """Signature wrapping, at this door: what is read is the one assertion, from the bytes that its own signature is over."""
    asked = begun(jane)
    good = signed(asked)
    refused(post(jane, answered(asked, *wrap(good))))
    assert is_out(jane)
    assert post(jane, answered(asked, good)).status_code == 303


def test_prefixes_may_be_declared_around_the_assertion(jane: Person) -> None:
    """Others write them on the response, and sign that they mean something (InclusiveNamespaces)."""
    asked = begun(jane)
    xml = signed(asked)
    bare = xml.replace(_signature(xml), "")
    listed = TRANSFORMS.replace("xml-exc-c14n#\"/>", f'xml-exc-c14n#"><e:InclusiveNamespaces xmlns:e="{EXCLUSIVE}" PrefixList="xs xsi"/></ds:Transform>')
    good = sign(bare, transforms=listed, inclusive=("xs", "xsi"))
    declared = [f' xmlns:{prefix}="{uri}"' for prefix, uri in etree.fromstring(good.encode()).nsmap.items()]
    inside = good
    for one in declared:
        inside = inside.replace(one, "", 1)
    assert inside != good
    text = response(inside).replace("<p:Response", "<p:Response" + "".join(declared))
    assert post(jane, {"SAMLResponse": base64.b64encode(text.encode()).decode(), "RelayState": asked.relay}).status_code == 303
    other = text.replace("http://www.w3.org/2001/XMLSchema\"", "urn:other\"")
    assert other != text
    late = Person(jane.origin)
    form = {"SAMLResponse": base64.b64encode(other.encode()).decode(), "RelayState": begun(late).relay}
    assert "does not hold" in refused(post(late, form))


def _signature(xml: str) -> str:
    return xml[xml.index("<ds:Signature") : xml.index("</ds:Signature>") + len("</ds:Signature>")]


def test_a_signature_over_the_response_alone_signs_no_assertion(jane: Person) -> None:
    """What is around the assertion is read by nobody; a provider signs the assertion itself."""
    asked = begun(jane)
    good = signed(asked)
    bare = good.replace(_signature(good), "")
    whole = sign(response(bare, Destination=asked.back, InResponseTo=asked.id).replace("a:Issuer", "saml:Issuer", 2).replace("xmlns:a=", "xmlns:saml="))
    form = {"SAMLResponse": base64.b64encode(whole.encode()).decode(), "RelayState": asked.relay}
    assert "no signature" in refused(post(jane, form))
    both = sign(whole.replace(_signature(whole), "").replace(bare, good))
    assert post(jane, {**form, "SAMLResponse": base64.b64encode(both.encode()).decode()}).status_code == 303


@pytest.mark.parametrize(
    "stated, why",
    [
        ({"Destination": "https://evil.example/login/saml"}, "was sent to"), ({"InResponseTo": "_other"}, "answers another request"),
        ({"issuer": "<a:Issuer>https://other.example/metadata</a:Issuer>"}, "of another issuer"), ({"name": "LogoutResponse"}, "no Response"),
        ({"status": ""}, "has no Status"), ({"status": SUCCESS * 2}, "other parts"), ({"Odd": "x"}, "which is not taken"),
        ({"status": SUCCESS.replace("Success", "Responder")}, "has logged nobody in: 'Responder'"),
        ({"status": SUCCESS.replace("Success", "Responder").replace("/></p:Status>", "><p:StatusCode Value='a:b:AuthnFailed'/></p:StatusCode></p:Status>")},
         "has logged nobody in: 'AuthnFailed'"),
        ({"status": SUCCESS.replace("/></p:Status>", "><p:StatusCode Value='a:b:AuthnFailed'/></p:StatusCode></p:Status>")}, "has logged nobody in"),
        ({"issuer": "<a:Issuer/>"}, "of another issuer"),
    ],
    ids=str,
)  # fmt: skip
def test_a_response_that_says_something_else_is_refused(jane: Person, stated: dict[str, str], why: str) -> None:
    asked = begun(jane)
    assert why in refused(post(jane, answered(asked, signed(asked), **stated)))
    assert post(jane, answered(asked, signed(asked))).status_code == 303


@pytest.mark.parametrize("text", ["", "!", "é", "PHg+", base64.b64encode(b"<x/>").decode(), "A" * (RESPONSE_CHARS + 4), "PD94bWw="])
def test_what_is_no_response_is_refused(jane: Person, text: str) -> None:
    asked = begun(jane)
    refused(post(jane, {"SAMLResponse": text, "RelayState": asked.relay}))
    for body in (b"", b"x", b"SAMLResponse=%FF&RelayState=x", b"a=1&a=2", b"&".join([b"a=1"] * 17)):
        refused(jane.web.post(f"{jane.origin}/login/saml", content=body, headers={"content-type": "application/x-www-form-urlencoded"}))
    assert jane.web.post(f"{jane.origin}/login/saml", json={}).status_code == 400


@pytest.mark.parametrize("relay", ["https://evil.example/", "/grants?", "//evil.example", "javascript:alert(1)", "x\r\nset-cookie: a=b"])
def test_a_relay_state_leads_nowhere(jane: Person, relay: str) -> None:
    """Open redirector: it names a login of this browser, and where that leads was said before it began."""
    asked = begun(jane)
    assert "not begun in this browser" in refused(post(jane, {**answered(asked, signed(asked)), "RelayState": relay}))
    answer = post(jane, answered(asked, signed(asked)))
    assert answer.status_code == 303 and answer.headers["location"].startswith(f"{jane.origin}/authorize?"), "303: what was posted goes no further"


def test_each_provider_answers_at_its_own_door(jane: Person) -> None:
    """Mix-up: an answer of the one kind is none of the other."""
    asked = begun(jane)
    assert "by SAML" in refused(jane.web.get(f"{jane.origin}/login/callback", params={"state": asked.relay, "code": "x"}))
    with house() as (origin, _):
        alice = Person(origin)
        state = parse_qs(urlsplit(alice.web.get(alice.asks()).headers["location"]).query)["state"][0]
        assert "by OpenID Connect" in refused(post(alice, {"SAMLResponse": "x", "RelayState": state}))
        assert boxes(alice.page())


def test_the_cookie_of_a_login_comes_along_when_the_provider_posts() -> None:
    """And no other cookie does: it gives nobody a session by itself."""
    asyncio.run(_posted_to_https())


async def _posted_to_https() -> None:
    made = House("https://issuer.example", policy=SAML_POLICY)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="https://issuer.example") as web:
        asked = Asked.by(await web.get("/grants"))
        (cookie,) = [one for one in web.cookies.jar]
        assert cookie.name.startswith("__Host-captoken-at-") and cookie.secure and cookie._rest["SameSite"] == "None"  # type: ignore[attr-defined]
        answer = await web.post("/login/saml", data=answered(asked, signed(asked)))
        assert answer.status_code == 303 and answer.headers["location"] == "https://issuer.example/grants?&logged_in=1"
        kept = answer.headers.get_list("set-cookie")
        assert [one.endswith("; SameSite=Lax; Secure") for one in kept] == [True, True], kept
        assert "corp:jane" in (await web.get("/grants")).text


def test_an_attempt_tells_nobody_what_it_is() -> None:
    assert repr(Attempt("s", "n", "", "r", 1)) == "<Attempt>"
