"""The list of the OAuth 2.0 Security BCP (RFC 9700), line by line: each point has tests that are named for it, or a reason why there are none.

`BCP` is the table. Its first part is the RFC's own sections; the second what stands beside it: MCP, documents of clients, SAML. Tests of one name
with `test_n_login` stand there; those here are what was not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from captoken import Access, Token
from captoken import Verifier as Guard
from captoken.adapters.issuance import Setup
from captoken.audit import AuditTrail
from captoken.issuance.policy import read
from captoken.issuance.registry.sqlite import SQLiteRegistry
from tests.issuance.logging_in import (
    APP,
    CALLBACK,
    KEYRING,
    POLICY,
    VERIFIER,
    House,
    Person,
    at_documents,
    boxes,
    code_in,
    house,
    sent_back,
)

HERE, LOGIN = "attacks/test_n_bcp.py", "attacks/test_n_login.py"
SAML, DOCUMENTS, KEPT = "issuance/test_saml_login.py", "issuance/test_documents.py", "issuance/test_logins.py"

# What is attacked: the file and the names of its tests; or why there is nothing to attack.
BCP: dict[str, list[tuple[str, str]] | str] = {
    "2.1 redirect-based flows": [(LOGIN, "test_what_is_asked_rightly_is_given")],
    "2.1.1 PKCE, S256 alone": [(LOGIN, "test_a_request_without_pkce_or_with_another_meaning_goes_nowhere")],
    "2.1.2 no implicit grant": [(LOGIN, "test_a_request_without_pkce_or_with_another_meaning_goes_nowhere")],
    "2.2.1 access tokens bound to a sender": "they live 300 seconds at one server; a grant with `bound` is for clients that have a key, and none of these have",
    "2.2.2 refresh tokens rotate": [(LOGIN, "test_a_refresh_token_gives_one_successor")],
    "2.3 least rights, one audience": [(HERE, "test_4_9_what_a_server_gets_is_of_no_use_elsewhere"), (LOGIN, "test_what_is_unticked_stays_away")],
    "2.4 no password grant": [(HERE, "test_2_4_no_other_grant_is_taken")],
    "2.5 client authentication": "clients of this flow have no secrets, and a document that names another way is refused: see documents",
    "2.6 metadata; no CORS where people are": [(HERE, "test_2_6_no_other_site_reads_a_page"), (LOGIN, "test_an_answer_says_who_gives_it")],
    "4.1 redirect addresses": [(LOGIN, "test_a_browser_goes_to_the_addresses_of_the_application_alone"), (HERE, "test_4_1_ipv6_on_this_machine_is_one_spelling"),
                               (HERE, "test_4_1_the_address_of_the_exchange_is_that_of_the_request")],
    "4.2 leaks by Referer": [(HERE, "test_4_2_no_page_and_no_answer_tells_where_the_browser_was")],
    "4.3.1 a code in the history": [(LOGIN, "test_a_code_that_comes_twice_ends_its_task"), (LOGIN, "test_a_code_ends_after_a_minute")],
    "4.3.2 a token in an address": [(HERE, "test_4_3_no_token_stands_in_an_address")],
    "4.4 mix-up": [(LOGIN, "test_an_answer_says_who_gives_it"), (HERE, "test_4_4_an_answer_of_another_provider_is_refused"),
                   (SAML, "test_each_provider_answers_at_its_own_door")],
    "4.5 code injection": [(LOGIN, "test_a_code_is_of_its_client_its_redirect_and_its_challenge"), (HERE, "test_4_5_a_providers_code_of_another_login_is_refused")],
    "4.6 token injection": "no token comes by a browser: the code flow alone is there",
    "4.7 CSRF": [(LOGIN, "test_a_form_from_another_site_is_refused"), (LOGIN, "test_a_form_is_of_one_session")],
    "4.8 PKCE downgrade": [(LOGIN, "test_a_request_without_pkce_or_with_another_meaning_goes_nowhere"), (LOGIN, "test_a_verifier_is_guessed_at_once"),
                           (HERE, "test_4_8_a_code_is_no_good_without_its_verifier")],
    "4.9 tokens that leak at a server": [(HERE, "test_4_9_what_a_server_gets_is_of_no_use_elsewhere")],
    "4.10 stolen access tokens": [(HERE, "test_4_9_what_a_server_gets_is_of_no_use_elsewhere")],
    "4.11 open redirectors": [(LOGIN, "test_an_error_is_a_page_and_never_a_redirect"), (LOGIN, "test_a_login_leads_to_a_page_of_this_service"),
                              (SAML, "test_a_relay_state_leads_nowhere")],
    "4.12 redirects with 307": [(HERE, "test_4_12_every_redirect_is_303")],
    "4.13 proxies that end TLS": [(HERE, "test_4_13_no_header_says_where_this_service_is")],
    "4.14 refresh tokens": [(LOGIN, "test_after_a_minute_the_former_one_ends_the_task"), (LOGIN, "test_a_refresh_token_is_of_its_client_and_gives_no_more"),
                            (LOGIN, "test_of_two_workers_one_changes_it"), (KEPT, "test_two_workers_that_are_shown_one_refresh_token_give_one_successor")],
    "4.15 a client that passes for a person": [(HERE, "test_4_15_a_client_is_never_the_subject")],
    "4.16 clickjacking": [(LOGIN, "test_nobody_frames_the_page_and_it_has_no_script"), (HERE, "test_4_16_no_page_of_any_kind_is_framed")],
    "4.17 messages between windows": "no page has a script, and no response mode but the query is taken: 2.1.1",
    # --- beside the RFC
    "a document that changes": [(LOGIN, "test_an_address_that_a_document_no_longer_has_is_refused_at_the_answer")],
    "a client that claims another's id": [(LOGIN, "test_a_document_that_claims_another_id_or_a_secret_is_none")],
    "DNS rebinding of a document's host": [(DOCUMENTS, "test_the_connection_is_to_what_was_looked_at"), (DOCUMENTS, "test_a_name_with_a_private_address_is_not_asked"),
                                           (LOGIN, "test_no_address_of_a_private_network_is_asked")],
    "a stranger makes it fetch": [(LOGIN, "test_no_document_is_fetched_for_a_stranger")],
    "session fixation": [(LOGIN, "test_a_session_is_new_with_each_login")],
    "login CSRF": [(LOGIN, "test_a_login_comes_back_to_the_browser_that_began_it"), (SAML, "test_an_answer_counts_in_the_browser_that_asked")],
    "consent of one person used by another": [(LOGIN, "test_a_form_is_of_one_session"), (LOGIN, "test_what_a_person_ends_gives_nothing_more")],
    "double submit, back button": [(LOGIN, "test_a_button_that_is_pressed_twice_gives_one_code"), (LOGIN, "test_a_page_has_one_answer")],
    "grant downgrade": [(HERE, "test_a_refresh_asks_the_policy_of_now"), (HERE, "test_2_4_no_other_grant_is_taken"),
                        (LOGIN, "test_a_grant_of_one_way_is_not_taken_by_the_other")],
    "SAML: unsolicited, replayed, for others, wrapped": [
        (SAML, "test_an_answer_to_no_request_is_refused"), (SAML, "test_an_answer_that_was_stolen_on_its_way_is_of_no_use_in_another_browser"), (SAML, "test_an_assertion_is_used_once"), (SAML, "test_no_assertion_is_wrapped_around_one_that_is_signed"),
        (SAML, "test_an_assertion_for_anybody_else_or_of_anybody_else_is_refused"),
    ],
    "credentials in logs, in the trail, in the registry": [(HERE, "test_no_credential_is_logged_recorded_or_kept")],
}  # fmt: skip

SECTIONS = ["2.1", "2.1.1", "2.1.2", "2.2.1", "2.2.2", "2.3", "2.4", "2.5", "2.6", *(f"4.{number}" for number in range(1, 18))]
TESTS = Path(__file__).parents[1]
DOCUMENT = {"client_id": APP, "client_name": "App", "redirect_uris": ["https://app.example/back", "http://[::1]/callback"]}


def test_each_point_of_the_list_has_tests_that_there_are() -> None:
    named = {point.split()[0] for point in BCP}
    assert [one for one in SECTIONS if not any(name == one or name.startswith(f"{one}.") for name in named)] == []
    for point, tests in BCP.items():
        for file, name in tests if isinstance(tests, list) else ():
            assert f"\ndef {name}(" in (TESTS / file).read_text(), point


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[str, House]]:
    with house(documents=at_documents({APP: DOCUMENT})) as made:
        yield made


@pytest.fixture
def alice(here: tuple[str, House]) -> Person:
    return Person(here[0])


def refused(answer: httpx.Response) -> None:
    assert answer.status_code in (400, 401, 404, 405) and "location" not in answer.headers, answer.text
    assert "access_token" not in answer.text


def at_the_provider(person: Person) -> httpx.URL:
    """The address by which a provider sends somebody back who has just logged in there."""
    page = person.web.get(person.web.get(person.asks()).headers["location"])
    found = re.search(rf'href="([^"]*person={person.name})"', page.text)
    assert found is not None
    return httpx.URL(person.web.get(found[1].replace("&amp;", "&")).headers["location"])


@pytest.mark.parametrize(
    "form",
    [
        {"grant_type": "password", "username": "alice", "password": "x"}, {"grant_type": "client_credentials"}, {"grant_type": "implicit"},
        {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": "x"}, {"grant_type": "AUTHORIZATION_CODE"}, {"grant_type": ""}, {},
    ],
    ids=str,
)  # fmt: skip
def test_2_4_no_other_grant_is_taken(alice: Person, form: dict[str, str]) -> None:
    """RFC 9700, 2.4: nobody types a password for an application to see. A good code beside it changes nothing, and is still good."""
    code = alice.code()
    refused(alice.post({**form, "client_id": "desk", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER.text, "scope": "notes"}))
    assert alice.exchange(code).status_code == 200


def test_2_6_no_other_site_reads_a_page(alice: Person) -> None:
    """RFC 9700, 2.6: the authorization endpoint is for browsers that go there, and for no script."""
    for answer in (
        alice.go(alice.asks(), origin="https://evil.example"),
        alice.web.get(f"{alice.origin}/grants", headers={"origin": "https://evil.example"}),
        alice.web.options(alice.asks(), headers={"origin": "https://evil.example", "access-control-request-method": "GET"}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "redirect",
    [
        "http://[::1%25lo]/callback", "http://[0:0:0:0:0:0:0:1]/callback", "http://[::ffff:127.0.0.1]/callback", "http://[::1]:5555/callback/", "http://[::2]/callback",
        "http://[::1]:5555@evil.example/callback", "http://127.0.0.1:5555/callback", "http://localhost/callback", "https://[::1]/callback", "http://[::1/callback",
        "http://[::1]evil.example/callback", "http://[::1]:5555%2fcallback", "http://[::1]:5555/callback%00", "http://[::1]:5555/callback#",
    ],
)  # fmt: skip
def test_4_1_ipv6_on_this_machine_is_one_spelling(alice: Person, redirect: str) -> None:
    """RFC 9700, 4.1.3; RFC 8252, 7.3: the port is free, and nothing else."""
    refused(alice.page(client_id=APP, redirect_uri=redirect))
    assert boxes(alice.page(client_id=APP, redirect_uri="http://[::1]:5555/callback"))


def test_4_1_the_address_of_the_exchange_is_that_of_the_request(alice: Person) -> None:
    """One of the application's addresses does not do for another, nor one port for another."""
    for other in ("http://127.0.0.1:5556/callback", "https://desk.example/callback"):
        refused(alice.exchange(alice.code(), redirect_uri=other))


def test_4_2_no_page_and_no_answer_tells_where_the_browser_was(alice: Person) -> None:
    """RFC 9700, 4.2: state and code stand in addresses, and no site but this one is told them."""
    page = alice.page()
    failed = alice.web.get(f"{alice.origin}/login/callback?code=c&state=s")
    for answer in (page, failed, alice.go(f"{alice.origin}/grants"), alice.page(scope="none")):
        assert answer.headers["referrer-policy"] == "same-origin" and answer.headers["cache-control"] == "no-store"
        # Nothing is fetched from anywhere, and the one link to elsewhere says that it has no referrer.
        assert not re.search(r"<(img|link|script|iframe|object)", answer.text)
        assert all("noreferrer" in one for one in re.findall(r"<a [^>]*>", answer.text) if 'href="/' not in one)
    for answer in (alice.send(alice.form(page)), alice.send(alice.form(alice.page(), "deny"))):
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_4_3_no_token_stands_in_an_address(alice: Person) -> None:
    """RFC 9700, 4.3.2: what is sent back is a code, and what stands in an address counts for nothing."""
    back = alice.send(alice.form(alice.page()))
    assert set(sent_back(back)) == {"code", "state", "iss"} and not urlsplit(back.headers["location"]).fragment
    code = sent_back(back)["code"]
    asked = {"grant_type": "authorization_code", "code": code, "client_id": "desk", "redirect_uri": CALLBACK, "code_verifier": VERIFIER.text}
    refused(httpx.get(f"{alice.origin}/token", params=asked))
    refused(httpx.post(f"{alice.origin}/token", params=asked))
    assert alice.exchange(code).status_code == 200


def test_4_4_an_answer_of_another_provider_is_refused(alice: Person) -> None:
    """RFC 9207: as its client, this service looks at who a provider says that it is; the code is not sent on."""
    back = at_the_provider(alice)
    for other in ("https://evil.example", f"{alice.origin}/people/", alice.origin):
        answer = alice.web.get(back.copy_set_param("iss", other))
        refused(answer)
        assert "came back from" in answer.text
    refused(alice.web.get(back.copy_remove_param("iss")))
    assert alice.web.get(back).status_code == 303


def test_4_5_a_providers_code_of_another_login_is_refused(here: tuple[str, House], alice: Person) -> None:
    """RFC 9700, 4.5: bob's code of the provider, with the state of a login that alice has begun."""
    his, hers = at_the_provider(Person(here[0], "bob")), at_the_provider(alice)
    refused(alice.web.get(hers.copy_set_param("code", his.params["code"])))
    assert "/people/authorize" in alice.web.get(alice.asks()).headers["location"]


def test_4_8_a_code_is_no_good_without_its_verifier(alice: Person) -> None:
    """RFC 9700, 4.8.2: no verifier, an empty one, and the challenge itself in its place."""
    for verifier in (None, "", VERIFIER.challenge, VERIFIER.text[:-1]):
        refused(alice.exchange(alice.code(), code_verifier=verifier))


def test_4_9_what_a_server_gets_is_of_no_use_elsewhere(alice: Person) -> None:
    """RFC 9700, 4.9, 4.10: not at another server, not here, not after five minutes."""
    said = alice.tokens()
    text, milk = said["access_token"], Access(tool="read", arguments={})
    there = Guard(KEYRING.for_audience("notes"), "notes")
    assert there.check(text, milk) and not Guard(KEYRING.for_audience("sales-db"), "sales-db").check(text, milk)
    assert said["expires_in"] <= 300
    for kind in ("access_token", "jwt", "id_token"):
        refused(alice.post({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": text, "resource": "sales-db",
                            "subject_token_type": f"urn:ietf:params:oauth:token-type:{kind}"}))  # fmt: skip
    refused(alice.refresh(text))
    stolen = httpx.get(f"{alice.origin}/grants", headers={"authorization": f"Bearer {text}", "cookie": f"captoken-session={text}"})
    assert "/people/authorize" in stolen.headers["location"]


def test_4_12_every_redirect_is_303(alice: Person) -> None:
    """RFC 9700, 4.12: 307 would send on what was posted, a consent or an assertion, to whoever is next."""
    alice.tokens()  # something acts for her, which she can end
    alice.web.cookies.clear()
    begun = alice.web.get(alice.asks())
    back = alice.web.get(at_the_provider(alice))
    page = alice.go(alice.asks())
    answers = [begun, back, alice.send(alice.form(page)), alice.send(alice.form(alice.page(), "deny")), alice.send(alice.form(alice.go(f"{alice.origin}/grants")))]
    assert [one.status_code for one in answers] == [303] * 5


def test_4_13_no_header_says_where_this_service_is(alice: Person) -> None:
    """RFC 9700, 4.13: addresses are those of the policy, whatever a proxy or a client says."""
    told = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "https", "forwarded": "host=evil.example;proto=https",
            "x-forwarded-prefix": "/evil", "x-original-url": "/grants", "x-rewrite-url": "/grants"}  # fmt: skip
    begun = alice.web.get(alice.asks(), headers=told)
    assert parse_qs(urlsplit(begun.headers["location"]).query)["redirect_uri"] == [f"{alice.origin}/login/callback"]
    back = alice.send(alice.form(alice.go(alice.asks())), **{key: value for key, value in told.items() if key != "host"})
    assert sent_back(back)["iss"] == alice.origin
    said = httpx.get(f"{alice.origin}/.well-known/oauth-authorization-server", headers=told).json()
    assert "evil" not in json.dumps(said)


def test_4_15_a_client_is_never_the_subject(here: tuple[str, House]) -> None:
    """RFC 9700, 4.15: whatever a client is called, a token is the person's; who acts in it is the grant's agent."""
    for client in ({}, {"client_id": APP, "redirect_uri": "https://app.example/back"}):
        alice = Person(here[0])
        answer = alice.exchange(alice.code(**client), **client)
        root = Token.parse(answer.json()["access_token"]).unverified.root
        assert (root.subject, root.agent) == ("people:alice", "assistant")


def test_4_16_no_page_of_any_kind_is_framed(alice: Person) -> None:
    """RFC 9700, 4.16: also errors, and what lists and ends."""
    for answer in (alice.page(), alice.page(scope="none"), alice.page(client_id="nobody"), alice.go(f"{alice.origin}/grants"),
                   alice.web.get(f"{alice.origin}/login/callback?x=1"), alice.web.post(f"{alice.origin}/grants/end")):  # fmt: skip
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"] and answer.headers["x-frame-options"] == "DENY"


def test_a_refresh_asks_the_policy_of_now() -> None:
    """Grant downgrade: what the policy does not give any more, no refresh token gives."""
    for old, new in (('"read" = {{}}, ', ""), ('clients = ["desk", "other", "*"]', 'clients = ["other"]'), ('subject = {{ provider = "people" }}\nclients',
                     'subject = {{ provider = "people", groups = ["nobody"] }}\nclients')):  # fmt: skip
        with house() as (origin, made):
            alice = Person(origin)
            said = alice.tokens()
            text = POLICY.replace(old, new, 1)
            assert text != POLICY
            setup = Setup(read(text.format(origin=origin)), KEYRING)
            assert asyncio.run(made.service.reload(partial(Setup, *setup)))
            answer = alice.refresh(said["refresh_token"])
            refused(answer)
            assert ("too much" in answer.text) is (not new) and ("not for this caller" in answer.text) is bool(new)


def test_no_credential_is_logged_recorded_or_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Codes, verifiers, tokens, sessions and the provider's own, through all that goes well and all that fails: the registry has digests."""
    caplog.set_level(logging.DEBUG)
    SQLiteRegistry.create(tmp_path / "tasks.db", floor=0).close()
    written: list[bytes] = []
    secrets: dict[str, str] = {"verifier": VERIFIER.text}
    registry = SQLiteRegistry(tmp_path / "tasks.db")
    with house(registry=registry, trail=AuditTrail(lambda data: written.append(bytes(data)))) as (origin, _):
        alice = Person(origin)
        back = at_the_provider(alice)
        secrets |= {"provider's code": back.params["code"], "provider's state": back.params["state"]}
        secrets |= {f"attempt {one.name}": str(one.value) for one in alice.web.cookies.jar}
        alice.web.get(back.copy_set_param("iss", "https://evil.example"))
        alice.web.get(back)
        secrets["session"] = next(str(one.value) for one in alice.web.cookies.jar if one.name == "captoken-session")
        page = alice.go(alice.asks())
        form = alice.form(page)
        secrets["form"] = parse_qs(form[1])["request"][0]
        secrets["code"] = code_in(alice.send(form))
        first = alice.exchange(secrets["code"]).json()
        second = alice.refresh(first["refresh_token"]).json()
        third = alice.refresh(second["refresh_token"]).json()
        for number, one in enumerate((first, second, third)):
            secrets |= {f"token {number}": one["access_token"], f"refresh {number}": one["refresh_token"]}
        # And what fails: a code twice, the wrong verifier, a refresh token that was used.
        alice.exchange(secrets["code"])
        secrets["second code"] = alice.code(state="s-2")
        alice.exchange(secrets["second code"], code_verifier="w" * 43)
        alice.refresh(first["refresh_token"])
        alice.refresh("x" + third["refresh_token"])
    registry.close()
    places = {
        "the log": "\n".join(one.getMessage() for one in caplog.records if one.name.startswith("captoken")),
        "the trail": b"".join(written).decode(),
        "the registry": b"".join(path.read_bytes() for path in tmp_path.iterdir()).decode("latin-1"),
    }
    assert "it was used before" in places["the log"] and "used before" in places["the trail"] and "people:alice" in places["the registry"]
    assert [(name, place) for name, secret in secrets.items() for place, text in places.items() if secret in text or secret[16:40] in text] == []
