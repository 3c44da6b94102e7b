"""A certified provider of others, with a secret of this service's: a person logs in there, allows, and logs out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from captoken.adapters.issuance import IssuanceService
from captoken.issuance.policy import read
from captoken.issuance.registry import MemoryRegistry
from tests.adapters.serving import listening, origin_of, served

from .logging_in import KEYRING, POLICY, Person, code_in
from .providers import provider

SECRET = "a secret: of %this service"


@pytest.fixture(params=["client_secret_basic", "client_secret_post"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Any]]:
    (tmp_path / "secret").write_text(SECRET + "\n")
    with listening() as one:
        origin = origin_of(one)
        client = {
            "client_id": "here", "client_secret": SECRET, "token_endpoint_auth_method": request.param, "redirect_uris": [f"{origin}/login/callback"],
            "grant_types": ["authorization_code"], "backchannel_logout_uri": f"{origin}/logout/backchannel",
            "post_logout_redirect_uris": [f"{origin}/health"],
        }  # fmt: skip
        with provider(client=client, options={"clientAuthMethods": [request.param, "none"]}) as issuer:
            text = POLICY.format(origin=origin).replace(f'issuer = "{origin}/people"', f'issuer = "{issuer}"')
            text = text.replace('client_id = "here"', f'client_id = "here"\nsecret_file = "{tmp_path}/secret"')
            text = text.replace('client_ids = ["shell"]', "client_ids = []")
            registry = MemoryRegistry(floor=0)
            with served(IssuanceService(read(text), KEYRING, registry), one, lifespan="on"):
                yield origin, registry


_form = re.compile(r'<form[^>]*action="([^"]*)"[^>]*>(.*?)</form>', re.DOTALL)
_field = re.compile(r'<(?:input|button)[^>]*name="([^"]*)"(?:[^>]*value="([^"]*)")?')


def through(person: Person, answer: httpx.Response) -> httpx.Response:
    """Through the pages of a provider, as whoever this is, and back here."""
    for _ in range(16):
        if answer.is_redirect:
            answer = person.web.get(urljoin(str(answer.url), answer.headers["location"]))
            continue
        found = _form.search(answer.text)
        if found is None or str(answer.url).startswith(person.origin):
            break
        given = {name: unescape(value) for name, value in _field.findall(found[2]) if name != "abort"}
        given |= {name: value for name, value in {"login": person.name, "password": "x"}.items() if name in given}
        answer = person.web.post(urljoin(str(answer.url), unescape(found[1])), data=given)
    return answer


@pytest.mark.node
def test_a_person_logs_in_there_and_what_she_allowed_ends_with_her_logout(house: tuple[str, Any]) -> None:
    origin, registry = house
    jane = Person(origin, "jane")
    try:
        page = through(jane, jane.web.get(jane.asks()))
        assert page.status_code == 200 and "people:jane" in page.text, page.text
        said = jane.exchange(code_in(jane.send(jane.form(page)))).json()
        assert said["scope"] == "notes" and registry.is_live(said["task"], int(time.time()))
        # Of the groups that the provider says she is in.
        assert through(jane, jane.web.get(jane.asks(scope="sales"))).text.count('name="right"') == 3

        issuer = _issuer(jane)
        through(jane, jane.web.get(f"{issuer}/session/end", params={"client_id": "here"}))
        assert not registry.is_live(said["task"], int(time.time())), "the provider has told it"
        assert jane.refresh(said["refresh_token"]).status_code == 400
        assert jane.web.get(jane.asks()).headers["location"].startswith(issuer), "her session here is over, too"
    finally:
        jane.web.close()


def _issuer(person: Person) -> str:
    """Where a browser without a session is sent."""
    with httpx.Client() as stranger:
        return stranger.get(person.asks()).headers["location"].partition("/auth")[0]
