"""What a form of the token endpoint may say, and what is an error of OAuth's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.issuance.test_issuance import JWT, World, exchange, jag, login, nightly, proof, svid

TWICE = "grant_type=client_credentials&grant_type=client_credentials"


@pytest.mark.parametrize(
    "case, form, error",
    [
        ("5 unknown grant type", {"grant_type": "password"}, "unsupported_grant_type"),
        ("no grant type", {"grant_type": None}, "invalid_request"),
        ("7 secret", {"grant_type": "client_credentials", "client_assertion": None, "client_assertion_type": None, "subject_token": None, "subject_token_type": None, "client_secret": "x"}, "invalid_client"),
        ("8 actor without type", {"actor_token": svid(), "client_assertion": None, "client_assertion_type": None}, "invalid_request"),
        ("9 two actors", {"actor_token": svid(), "actor_token_type": JWT}, "invalid_request"),
        ("10 another type", {"subject_token_type": "urn:ietf:params:oauth:token-type:access_token"}, "invalid_request"),
        ("10 unknown type", {"subject_token_type": "urn:example:x"}, "invalid_request"),
        ("subject alone", {"subject_token": None}, "invalid_request"),
        ("no subject", {"subject_token": None, "subject_token_type": None}, "invalid_request"),
        ("11 two details", {"authorization_details": '[{"type":"captoken"},{"type":"captoken"}]'}, "invalid_authorization_details"),
        ("11 unknown type", {"authorization_details": '[{"type":"other"}]'}, "invalid_authorization_details"),
        ("11 unknown keyword", {"authorization_details": '[{"type":"captoken","agent":"orchestrator","tabels":[]}]'}, "invalid_authorization_details"),
        ("11 no JSON", {"authorization_details": "["}, "invalid_authorization_details"),
        ("11 NaN", {"authorization_details": '[{"type":"captoken","depth":NaN}]'}, "invalid_authorization_details"),
        ("11 twice", {"authorization_details": '[{"type":"captoken","depth":1,"depth":2}]'}, "invalid_authorization_details"),
        ("11 nested", {"authorization_details": "[" * 3000}, "invalid_authorization_details"),
        ("11 clamp", {"authorization_details": '[{"type":"captoken","clamp":1}]'}, "invalid_authorization_details"),
        ("11 agent", {"authorization_details": '[{"type":"captoken","agent":1}]'}, "invalid_authorization_details"),
        ("25 another application's", {"subject_token": login(aud="other")}, "invalid_request"),
        ("36 swapped", {"subject_token": svid(), "subject_token_type": JWT, "client_assertion": login()}, "invalid_client"),
        ("55 more", {"authorization_details": '[{"type":"captoken","agent":"orchestrator","tables":["hr"],"operations":["select"]}]'}, "invalid_authorization_details"),
        ("56 agent", {"authorization_details": '[{"type":"captoken","agent":"mallory"}]'}, "invalid_request"),
        ("57 resource", {"resource": "hr-db"}, "invalid_target"),
        ("57 two names", {"audience": "sales-db"}, "invalid_target"),
        ("58 two grants", {"scope": None, "subject_token": login(groups=["finance", "readers"])}, "invalid_scope"),
        ("59 unknown scope", {"scope": "q9"}, "invalid_scope"),
        ("59 two scopes", {"scope": "q3-risk q3-sentiment"}, "invalid_scope"),
        ("62 label with a slash", {"authorization_details": '[{"type":"captoken","agent":"orchestrator","task":"a/b"}]'}, "invalid_request"),
        ("63 as access token", {"requested_token_type": None}, "invalid_request"),
        ("another type of token", {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ("an assertion too", {"assertion": jag()}, "invalid_request"),
        ("no type of assertion", {"client_assertion_type": None}, "invalid_client"),
        ("not for this caller", {"subject_token": login(groups=["x"])}, "invalid_request"),
        ("a bit of the signature", {"client_assertion": svid()[:-2] + "AA"}, "invalid_client"),
        ("4 long token", {"subject_token": "x" * 17_000}, "invalid_request"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)  # fmt: skip
def test_what_is_asked_wrongly_is_an_error_of_oauth(world: World, case: str, form: dict[str, Any], error: str) -> None:
    said = world.ask(proof(), **exchange(**form))
    assert said["error"] == error, said
    assert world.ask(proof(), **exchange())["status"] == 200, "its twin"


@pytest.mark.parametrize(
    "body, kind",
    [
        (b"{}", "application/json"), (b"{}", "application/x-www-form-urlencoded"), (b"\xff=1", "application/x-www-form-urlencoded"),
        (TWICE.encode(), "application/x-www-form-urlencoded"), (b"a=" + b"x" * 70_000, "application/x-www-form-urlencoded"),
        (b"&".join(b"a%d=1" % number for number in range(40)), "application/x-www-form-urlencoded"), (b"", "application/x-www-form-urlencoded"),
    ],
    ids=["1 JSON", "no form", "no text", "2 twice", "3 long", "many", "empty"],
)  # fmt: skip
def test_a_body_that_is_no_form(world: World, body: bytes, kind: str) -> None:
    answer = world.send("POST", "/token", content=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_6_basic_authentication_is_no_way_in(world: World) -> None:
    said = world.ask({"authorization": "Basic YTpi"}, **nightly())
    assert (said["status"], said["error"]) == (401, "invalid_client")
