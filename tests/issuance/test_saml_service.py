"""A SAML assertion at the service: it starts a task once, ends with its session, and comes from a provider that is not ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Any

import httpx
import pytest

from captoken import Access, Keyring, Token, Verifier
from captoken.adapters.issuance import IssuanceService
from captoken.errors import IssuanceError
from captoken.issuance import desk, policy, signals
from captoken.issuance.client import Issuance
from captoken.issuance.keys import PAUSE, ProviderKeys
from captoken.issuance.registry import MemoryRegistry
from captoken.testing import FixedClock
from tests.adapters.serving import listening, origin_of, served

from . import test_saml, test_signed_xml
from .office import node
from .saml_idp import (
    IDP,
    MORE,
    NOW,
    PARTS,
    US,
    assertion,
    certificate,
    login,
    policy_text,
    private_pem,
    sign,
    token,
)
from .signing import Provider

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
SAML2 = "urn:ietf:params:oauth:token-type:saml2"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ROOT = "urn:captoken:token-type:root"
SALES = Access(table="sales", operation="select")
KEYRING = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1")

# A provider that speaks OpenID Connect too, under the same name, workloads, and events about whoever logged in by SAML.
BESIDE = """
[provider.same]
kind = "oidc"
issuer = "https://idp.corp.example/metadata"
jwks = "{folder}/same.json"
client_ids = ["captoken-cli"]
max_login_age = 28800
[provider.events]
kind = "signals"
issuer = "https://events.corp.example"
jwks = "{folder}/events.json"
about = "corp"
audience = "https://issuer.example/signals"
[provider.ci]
kind = "workload"
issuer = "https://ci.example"
jwks = "{folder}/ci.json"
[grant.pair]
subject = {{ provider = "corp", groups = ["finance"] }}
actor = {{ provider = "ci", sub = "robot" }}
agents = ["reporter"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
"""


class World:
    """A service in this process, and those who sign for it."""

    def __init__(self, folder: Path, text: str | None = None) -> None:
        self.same, self.events, self.ci = Provider("s"), Provider("e"), Provider("c")
        for name, one in (("same", self.same), ("events", self.events), ("ci", self.ci)):
            (folder / f"{name}.json").write_bytes(one.jwks())
        self.policy = policy.read((text or policy_text()) + BESIDE.format(folder=folder))
        desk.check_policy(self.policy)
        self.registry = MemoryRegistry(floor=0)
        self.seconds = 1000.0
        self.keys = ProviderKeys(self.policy, clock=lambda: self.seconds)
        self.app = IssuanceService(self.policy, KEYRING, self.registry, keys=self.keys, clock=FixedClock(NOW))

    def post(self, path: str, **facts: Any) -> httpx.Response:
        async def sent() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url=US) as client:
                return await client.post(path, **facts)

        return asyncio.run(sent())

    def ask(self, text: str, **more: Any) -> dict[str, Any]:
        """What the token endpoint says, with its status."""
        form = {"grant_type": EXCHANGE, "subject_token": text, "subject_token_type": SAML2, "resource": "sales-db", "scope": "report"} | more
        answer = self.post("/token", data={key: value for key, value in form.items() if value is not None})
        return {"status": answer.status_code, **answer.json()}

    def robot(self, **claims: Any) -> dict[str, str]:
        made = {"iss": "https://ci.example", "sub": "robot", "aud": US, "iat": NOW - 5, "exp": NOW + 200} | claims
        return {"actor_token": self.ci.sign(made), "actor_token_type": JWT, "scope": "pair"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_assertion_becomes_a_token(world: World) -> None:
    said = world.ask(login(), requested_token_type=ROOT)
    assert said["status"] == 200, said
    root = Token.parse(said["access_token"], clock=FixedClock(NOW)).unverified.root
    assert (root.subject, root.agent) == ("corp:jane", "reporter")
    presented = world.ask(login({"id": "_a2"}))
    server = Verifier(KEYRING.for_audience("sales-db"), "sales-db", clock=FixedClock(NOW))
    assert presented["token_type"] == "Bearer" and server.authorize(presented["access_token"], SALES)


def test_49_an_id_is_good_once_alone(world: World) -> None:
    """Also where something else is signed under it, or the signature is spelled in another way."""
    assert world.ask(login())["status"] == 200
    for again in (login(), token(sign(assertion().replace("jane", "joan"))), token(sign(assertion()).replace("</ds:SignatureValue>", "\n</ds:SignatureValue>"))):
        said = world.ask(again)
        assert (said["status"], said["error"]) == (400, "invalid_grant"), said
    assert world.ask(login({"id": "_a2"}))["status"] == 200


def test_48_an_assertion_is_bound_to_its_first_companions(world: World) -> None:
    assert world.ask(login(), **world.robot())["status"] == 200
    assert world.ask(login(), **world.robot())["status"] == 200
    assert world.ask(login())["error"] == "invalid_grant"


def test_it_is_taken_as_what_it_is_and_as_a_subject_alone(world: World) -> None:
    for kind in (ID_TOKEN, JWT, "urn:ietf:params:oauth:token-type:access_token"):
        said = world.ask(login(), subject_token_type=kind)
        assert (said["error"], "three parts" in said["error_description"]) == ("invalid_request", True)
    said = world.ask(world.robot()["actor_token"])
    assert said["error"] == "invalid_request" and "not for this place" in said["error_description"]
    assert world.ask(login(), actor_token=login(), actor_token_type=SAML2)["error"] == "invalid_request"
    assert world.ask("urn:ietf:params:oauth:token-type:saml1")["error"] == "invalid_request"
    said = world.ask(login({"name": PARTS["name"].replace("jane", "jane<!-- -->")}))
    assert (said["status"], said["error"]) == (400, "invalid_request")


def test_a_person_whom_no_grant_is_for_is_told_no_more(world: World) -> None:
    said = world.ask(login({"attributes": PARTS["attributes"].replace("finance", "sales")}))
    assert said["status"] == 400 and "finance" not in json.dumps(said)


# --- 76 to 80, at the door ------------------------------------------------------------------------

AT_DOOR: dict[str, str] = {
    **{f"76 wrapped {how}": token(xml) for how, xml in test_signed_xml.WRAPPED.items()},
    "77 a comment in NameID": login({"name": PARTS["name"].replace("jane", "ja<!-- -->ne")}),
    "78 a DTD": token(test_signed_xml.DTDS[0] + test_saml.GOOD),
    **{f"78 {form}": login(**how) for form, (how, _) in test_signed_xml.FORMS.items()},
    "79 a Response": token(test_saml.RESPONSE.format(test_saml.GOOD)),
    "80 another's Recipient": login({"confirmation": PARTS["confirmation"].replace("{us}/token", "https://app.example/acs")}),
    "80 another's Audience": login({"conditions": PARTS["conditions"].replace("{us}", "https://app.example")}),
}


@pytest.mark.parametrize("case", AT_DOOR)
def test_at_the_door(world: World, case: str) -> None:
    """Nothing starts, nothing is spent, and the answer says what is wrong with the caller's own text alone."""
    said = world.ask(AT_DOOR[case])
    assert (said["status"], said["error"]) == (400, "invalid_request")
    assert said["error_description"].startswith("the assertion is refused: ")
    assert world.ask(login())["status"] == 200


# --- ends -----------------------------------------------------------------------------------------


def ended(world: World, session: str) -> httpx.Response:
    claims = {
        "iss": IDP, "sid": session, "aud": "captoken-cli", "jti": f"l-{session}", "iat": NOW - 5, "exp": NOW + 100,
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    }  # fmt: skip
    return world.post("/logout/backchannel", data={"logout_token": world.same.sign(claims, typ=signals.LOGOUT)})


def test_81_a_logout_of_the_session_ends_what_it_started(world: World) -> None:
    mine, other = world.ask(login()), world.ask(login({"id": "_a2", "login": PARTS["login"].replace("s-1", "s-2")}))
    assert ended(world, "s-1").status_code == 200
    assert not world.registry.is_live(mine["task"], NOW) and world.registry.is_live(other["task"], NOW)
    said = world.ask(login({"id": "_a3"}))
    assert (said["status"], said["error"]) == (400, "invalid_grant")
    assert world.ask(login({"id": "_a4", "login": PARTS["login"].replace("s-1", "s-2")}))["status"] == 200


def test_an_event_about_a_person_ends_what_their_assertions_started(world: World) -> None:
    mine = world.ask(login())
    claims = {
        "iss": "https://events.corp.example", "aud": f"{US}/signals", "jti": "e-1", "iat": NOW,
        "sub_id": {"format": "iss_sub", "iss": IDP, "sub": "jane"},
        "events": {"https://schemas.openid.net/secevent/risc/event-type/account-disabled": {}},
    }  # fmt: skip
    answer = world.post("/signals", content=world.events.sign(claims, typ=signals.EVENT), headers={"content-type": "application/secevent+jwt"})
    assert answer.status_code == 202, answer.text
    assert not world.registry.is_live(mine["task"], NOW)
    assert world.ask(login({"id": "_a2"}))["error"] == "invalid_grant"


# --- certificates ---------------------------------------------------------------------------------


def test_certificates_in_a_file_change_without_a_restart(tmp_path: Path) -> None:
    """Two of them while the provider changes its key; and 503, never a token, while there are none to check by."""
    file = tmp_path / "idp.pem"
    world = World(tmp_path, policy_text().replace(f"'''\n{certificate('rsa')}'''", json.dumps(str(file))))
    said = world.ask(login())
    assert (said["status"], said["error"]) == (503, "temporarily_unavailable")

    file.write_text(certificate("rsa"))
    world.seconds += PAUSE
    assert world.ask(login())["status"] == 200
    assert "signature does not hold" in world.ask(login({"id": "_a2"}, key="rsa-2"))["error_description"]

    file.write_text(certificate("rsa") + certificate("rsa-2") + certificate("weak"))
    world.seconds += 400
    asyncio.run(world.keys.start())
    assert world.ask(login({"id": "_a3"}, key="rsa-2"))["status"] == world.ask(login({"id": "_a4"}))["status"] == 200

    file.write_text(certificate("rsa-2"))
    world.seconds += 400
    asyncio.run(world.keys.start())
    assert "signature does not hold" in world.ask(login({"id": "_a5"}))["error_description"]
    assert "corp" not in world.keys.problems


def test_a_reload_to_another_kind_forgets_the_keys(tmp_path: Path) -> None:
    """A file that had keys of a workload's issuer has certificates now, under the same name."""
    file = tmp_path / "keys"
    saml = policy_text().replace(f"'''\n{certificate('rsa')}'''", json.dumps(str(file)))
    start, end = saml.index("[provider.corp]"), saml.index("[resource.")
    jwks = f'[provider.corp]\nkind = "oidc"\nissuer = "{IDP}"\njwks = {json.dumps(str(file))}\nsubject = "corp:{{sub}}"\nmax_login_age = 9\nclient_ids = ["a"]\n'
    file.write_bytes(Provider("certificates").jwks())
    keys = ProviderKeys(policy.read(saml[:start] + jwks + saml[end:]))

    async def all_of_it() -> None:
        await keys.start()
        assert keys("corp", "certificates") is not None
        keys.reload(policy.read(saml))
        assert keys("corp", "certificates") is None
        file.write_text(certificate("rsa"))
        await keys.want("corp", "certificates")
        assert keys("corp", "certificates") is not None

    asyncio.run(all_of_it())


# --- a provider of others -------------------------------------------------------------------------


@contextmanager
def office(folder: Path, *names: str) -> Iterator[str]:
    """The service on a real server, by the clock of this machine: its origin."""
    socket = listening()
    origin = origin_of(socket)
    text = policy_text(*names).replace(f'"{US}"', f'"{origin}"').replace("urn:oid:1.3.6.1.4.1.5923.1.5.1.1", "groups")
    app = IssuanceService(policy.read(text), KEYRING, MemoryRegistry(floor=0))
    with served(app, socket, lifespan="on"):
        yield origin


def test_our_client_shows_one(tmp_path: Path) -> None:
    with office(tmp_path, "P-256") as origin:
        now = int(time())
        parts = {name: text.replace("{us}", origin).replace("{groups}", "groups") for name, text in PARTS.items()}
        text = token(sign(assertion(now=now, **parts), key="P-256", method=f"{MORE}ecdsa-sha256"))
        root = Issuance(origin).start(login=text, resource="sales-db", tables=["sales"], operations=["select"])
        assert root.unverified.root.subject == "corp:jane"
        assert Verifier(KEYRING.for_audience("sales-db"), "sales-db").authorize(root.present(audience="sales-db"), SALES)
        with pytest.raises(IssuanceError, match="get a new one"):
            Issuance(origin).start(login=text, resource="sales-db")


def samlify(origin: str, key: str = "rsa", **more: Any) -> dict[str, str]:
    """What samlify would post for jane."""
    stated = {
        "issuer": IDP, "audience": origin, "recipient": f"{origin}/token", "key": private_pem(key), "certificate": certificate(key),
        "algorithm": f"{MORE}rsa-sha256", "message_signed": False, "session": "s-9", "person": "jane", "attributes": {"groups": "finance"},
    }  # fmt: skip
    said: dict[str, str] = node("saml.mjs", stated | more)
    return said


@pytest.mark.node
def test_samlifys_assertions_start_tasks_and_its_responses_do_not(tmp_path: Path) -> None:
    """As they are: with white space, fractions of seconds, a certificate in them, and a signed Response around them."""
    with office(tmp_path) as origin:
        for hash in ("sha256", "sha512"):
            said = samlify(origin, algorithm=f"{MORE}rsa-{hash}", message_signed=hash == "sha512", person="o'neil+1&co", attributes={"groups": "finance"})
            refused_by(origin, said["response"], "its signature is not one of its root|no signature, or several")
            with pytest.raises(IssuanceError, match="this service has no name for the subject"):
                Issuance(origin).start(login=token(said["assertion"]), resource="sales-db")
            said = samlify(origin, algorithm=f"{MORE}rsa-{hash}", message_signed=hash == "sha512")
            root = Issuance(origin).start(login=token(said["assertion"]), resource="sales-db")
            assert root.unverified.root.subject == "corp:jane"
            refused_by(origin, said["assertion"], "get a new one")


@pytest.mark.node
def test_samlifys_assertions_for_others_and_by_others_are_refused(tmp_path: Path) -> None:
    with office(tmp_path) as origin:
        refused_by(origin, samlify(origin, key="rsa-2")["assertion"], "its signature does not hold")
        refused_by(origin, samlify(origin, recipient="https://app.example/acs")["assertion"], "Recipient")
        refused_by(origin, samlify("https://app.example", recipient=f"{origin}/token")["assertion"], "aud")
        refused_by(origin, samlify(origin, issuer="https://idp.other.example")["assertion"], "its issuer is not known here")
        refused_by(origin, samlify(origin, algorithm="http://www.w3.org/2000/09/xmldsig#rsa-sha1")["assertion"], "algorithm")
        refused_by(origin, samlify(origin)["assertion"].replace(">jane<", ">ja<!-- -->ne<"), "a comment")
        refused_by(origin, samlify(origin)["assertion"].replace(">jane<", ">joan<"), "its signature does not hold")
        refused_by(origin, samlify(origin, attributes={"groups": "sales"})["assertion"], "no grant is for this caller")


def refused_by(origin: str, xml: str, says: str) -> None:
    with pytest.raises(IssuanceError, match=says):
        Issuance(origin).start(login=token(xml), resource="sales-db")
