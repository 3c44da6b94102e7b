"""The playground in Chromium: a rule is changed, a call is tried, and the address carries the rules and no token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from captoken import Access, Issuer, Keyring, Verifier
from tests.console.test_browser import MARKUP, violations

pytestmark = pytest.mark.browser

FILE = Path(__file__).parents[2] / "site/static/playground.html"


@pytest.fixture
def page(chromium: Any) -> Any:
    """A page whose browser may ask nobody."""
    context = chromium.new_context(viewport={"width": 1000, "height": 800})
    page = context.new_page()
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(FILE.as_uri())
    yield page
    assert all(url.startswith(FILE.as_uri()) for url in page.asked)
    context.close()


def outcome(page: Any) -> str:
    return str(page.inner_text(".trying [role=status]"))


def test_it_says_which_link_refuses_and_who_added_it(page: Any) -> None:
    assert "Denied" in outcome(page) and "link 0, added by the issuer" in outcome(page)
    page.fill("#access", json.dumps({"tool": "send_mail", "arguments": {"to": "board@example.com", "text": "x"}}))
    assert outcome(page).startswith("Allowed")
    page.fill("#caveats-1", '{"tables": ["filings"]}')
    assert "domain" in outcome(page) and "link 1, added by orchestrator" in outcome(page)


def test_it_says_what_the_library_says(page: Any) -> None:
    """Python decides about the same links, for each story and some accesses."""
    keyring = Keyring.generate()
    for name in ("A poisoned page", "A refund", "A column"):
        page.get_by_role("button", name=name).click()
        story = json.loads(unquote(page.evaluate("location.hash.slice(1)")))
        first, *more = ((link["to"], json.loads(link["caveats"])) for link in story["links"])
        token = Issuer(keyring).mint(subject="user:jane", agent=first[0], task="playground", **first[1])
        for to, caveats in more:
            token = token.delegate(to=to, **caveats)
        decision = Verifier(keyring).check(token, Access(**json.loads(story["access"])))
        places = [f"link {one.link}, added by {one.added_by}" for one in decision.refusals]
        assert decision.code in outcome(page) and all(place in outcome(page) for place in places) and places


def test_a_link_that_asks_for_more_is_told_beside_it(page: Any) -> None:
    page.fill("#caveats-1", '{"tables": ["filings"], "operations": ["delete"]}')
    assert "operations" in page.inner_text(".link.is-bad .problem")
    assert outcome(page) == "Link 1 is not written: see there."
    page.fill("#caveats-1", "{")
    assert page.inner_text(".link.is-bad .problem")
    page.get_by_role("button", name="Remove the last link").click()
    assert page.locator(".link").count() == 1 and "Denied" in outcome(page)


def test_the_address_carries_the_rules_and_no_token(page: Any, chromium: Any) -> None:
    page.get_by_role("button", name="Hand on to a sub-agent").click()
    page.fill("#to-2", "helper")
    hash_ = page.evaluate("location.hash")
    assert "helper" in unquote(hash_) and "cap1" not in hash_
    other = chromium.new_page()
    other.goto(FILE.as_uri() + hash_)
    assert other.input_value("#to-2") == "helper" and outcome(other) == outcome(page)
    other.close()


@pytest.mark.parametrize("hash_", ["#{", "#%", "#" + quote("[]"), "#" + quote('{"links":[],"access":""}'), "#" + quote('{"links":[1],"access":"{}"}')])
def test_an_address_that_has_no_story_shows_the_first_one(page: Any, hash_: str) -> None:
    page.goto("about:blank")
    page.goto(FILE.as_uri() + hash_)
    assert page.input_value("#to-0") == "orchestrator" and "Denied" in outcome(page)


def test_what_a_stranger_put_into_an_address_is_text(page: Any) -> None:
    story = {"links": [{"to": "a" + MARKUP, "caveats": MARKUP}], "access": MARKUP}
    page.goto("about:blank")
    page.goto(FILE.as_uri() + "#" + quote(json.dumps(story)))
    assert page.input_value("#caveats-0") == MARKUP
    assert page.evaluate("window.hit") is None and page.locator("img, script[src]").count() == 0


def test_who_cannot_see_it_can_use_it(page: Any) -> None:
    assert violations(page) == []
