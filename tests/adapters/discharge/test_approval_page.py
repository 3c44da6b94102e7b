"""The page on which a person decides: what is needed is text, and no script runs."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from captoken.adapters.discharge_client import (
    PATH,
)
from captoken.discharge import Allow
from tests.adapters.test_discharge_service import PERSON, Site, asks, call, ticket


class Tags(HTMLParser):
    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = [
    "<script>alert(1)</script>",
    "</td></table><form action=https://evil.example>",
    "<img src=x onerror=alert(1)>",
    '"><b style="position:fixed">',
    "' onmouseover='x",
    "&lt;b&gt;",
    "</title><script>",
    "<!--",
    "]]>",
    "{{7*7}}",
    "\u2028<b>",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_is_needed_is_text_wherever_it_stands(hostile: str) -> None:
    site, plain = Site(PERSON), Site(PERSON)
    site.signed_in = hostile
    _, user = site.wait({hostile: hostile, "nested": [{hostile: hostile}]})
    _, harmless = plain.wait({"a": "b", "nested": [{"a": "b"}]})
    shown, expected = Tags(site.get(user).body), Tags(plain.get(harmless).body)
    assert shown.tags == expected.tags and shown.attributes == expected.attributes
    assert shown.text.count(hostile.replace("\u2028", "\\u{2028}")) >= 3
    site.post(user)
    assert " ".join(Tags(site.get(user).body).tags) == "html head meta meta title style body main h1 bdi p bdi"


def test_what_cannot_be_seen_is_shown_by_its_number() -> None:
    """Else a value could turn around what is beside it, or hide a part of itself, or fake a row."""
    site = Site(PERSON)
    _, user = site.wait({"pay": "1\u202e000\u200b\n", "list": ["\u2066x"]})
    text = Tags(site.get(user).body).text
    assert r"1\u{202e}000\u{200b}\u{a}" in text and r"\u{2066}x" in text
    assert all(char.isprintable() or char == "\n" for char in text)


def test_the_page_runs_no_script_and_fetches_nothing() -> None:
    site = Site(PERSON)
    _, user = site.wait()
    page = site.get(user)
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    (style,) = re.findall(rb"<style>(.*?)</style>", page.body, re.DOTALL)
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{b64encode(sha256(style).digest()).decode()}'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    parsed = Tags(page.body)
    assert not {"script", "img", "link", "a", "iframe"} & set(parsed.tags)
    assert not {"src", "href", "style", "action"} & parsed.attributes and b"url(" not in style
    assert parsed.text.index("Deny") < parsed.text.index("Approve", parsed.text.index("Deny"))


def test_every_answer_is_private_and_is_what_it_says() -> None:
    site = Site(PERSON)
    poll, user = site.wait()
    replies = [site.ask(), site.get(poll), site.get(user), site.post(user), site.get(poll), site.get(poll), site.get("/x")]
    for reply in replies:
        assert reply.headers["cache-control"] == "no-store" and reply.headers["x-content-type-options"] == "nosniff"
        assert (
            reply.headers["referrer-policy"] == "same-origin" and "frame-ancestors" in reply.headers["content-security-policy"]
        )
    assert [reply.headers["content-type"].partition(";")[0] for reply in replies[:4]] == [
        "application/json", "application/json", "text/html", "text/html",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"]
)
def test_a_form_cannot_ask(kind: str | None) -> None:
    """A page of another site can send forms and plain text on its own, but not JSON."""
    site = Site(Allow(expires_in=60))
    headers = {} if kind is None else {"content-type": kind}
    assert call(site.service, "POST", PATH, asks(ticket().text), headers).status == 415
    assert (
        call(site.service, "POST", PATH, asks(ticket().text), {"content-type": "Application/JSON; charset=utf-8"}).status == 200
    )
