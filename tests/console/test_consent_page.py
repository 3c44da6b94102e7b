"""The page on which a person consents, in Chromium: at three widths each fact is seen whole, without a script, by keyboard; axe-core finds nothing.

`pytest -m browser tests/console` runs it, as those of the console.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from time import time
from typing import Any

import httpx
import pytest

from captoken import Denied, Issuer
from captoken.adapters.consent_service import PATH, ConsentService
from captoken.adapters.sqlite import guarded
from tests.adapters.consents import MAIL, Desk
from tests.adapters.serving import listening, origin_of, served
from tests.console.test_login_pages import page_of, violations

pytestmark = pytest.mark.browser

WIDTHS = (360, 768, 1280)
LONG = "x" * 600  # one word, which fits no line
BAD = "Pay Ann\u202e nnA ton\u202c\u200b, and not\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nEve. " + "a\u0301\u0301\u0301\u0301\u0301\u0301" * 8


class World:
    """A service that a person who is Jane has logged in at, and a desk whose calls are asked about."""

    def __init__(self, origin: str) -> None:
        self.desk = Desk()
        self.desk.clock.seconds = int(time())
        self.desk.token = self.desk.minted(consent=self.desk.asks)
        self.origin = origin
        self.app = ConsentService(
            self.desk.jane, origin=origin, login=lambda scope, need: "jane", so_far=lambda asked: [("09:00", "lookup, twice"), ("marks", "private")]
        )

    def posted(self, request: str | None) -> tuple[str, str]:
        """The addresses of the page and of the outcome."""
        answer = httpx.post(self.origin + PATH, json={"request": request}, trust_env=False)
        assert answer.status_code == 202, answer.text
        both = answer.json()["user_interactive"]
        return both["user_url"], both["poll_url"]

    def mail(self, **more: str) -> str:
        with self.desk.using([]):
            return self.desk.guard.request("mail", {**MAIL[2], **more}) or ""

    def statement(self) -> str:
        asks = [{"by": self.desk.jane.public, "for": {"tables": ["deals"], "operations": ["delete"]}}]
        token = Issuer(self.desk.keyring, clock=self.desk.clock).mint(
            subject="u", agent="a", task="t", tables=["*"], operations=["*"], expires_in=600, consent=asks
        )
        made = sqlite3.connect(":memory:", isolation_level=None)
        made.execute("create table deals (id integer primary key, name text)")
        held = self.desk.verifier.authenticate(token.present(audience="desk"))
        with pytest.raises(Denied) as caught, guarded(made, held) as db:
            db.execute("delete from deals where id = ? or name = ?", (3, LONG[:80]))
        made.close()
        return caught.value.decision.request() or ""


@pytest.fixture
def world() -> Iterator[World]:
    with listening() as one:
        made = World(origin_of(one))
        with served(made.app, one, lifespan="on"):
            yield made


# What of a fact is cut off, or lies under something else: nothing.
_HIDDEN = """() => [...document.querySelectorAll('th, td')].filter((cell) => {
  const box = cell.getBoundingClientRect(), inner = cell.querySelector('bdi').getBoundingClientRect();
  return cell.scrollWidth > cell.clientWidth || cell.scrollHeight > cell.clientHeight + 1
    || inner.right > box.right + 1 || inner.left < box.left - 1 || inner.bottom > box.bottom + 1
    || getComputedStyle(cell).visibility !== 'visible' || parseFloat(getComputedStyle(cell).fontSize) < 14;
}).map((cell) => cell.textContent.slice(0, 80))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_at_each_width_each_fact_is_seen_whole_and_axe_finds_nothing(chromium: Any, world: World, width: int, scheme: str) -> None:
    asked = {"a mail": world.mail(), "a long word": world.mail(text=LONG), "what hides": world.mail(text=BAD, to=LONG), "a statement": world.statement()}
    with page_of(chromium, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        for name, request in asked.items():
            page.goto(world.posted(request)[0])
            assert page.title() == "Consent to this call?"
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            assert page.evaluate(_HIDDEN) == [], name
            assert violations(page) == [], name
            rows = page.get_by_role("table", name="The call").get_by_role("row")
            assert rows.count() == len(world.desk.jane.read(request).lines())
            assert page.get_by_text("What this task has done").is_visible() and page.get_by_text("lookup, twice").is_visible()
            assert "\u202e" not in page.content() and "\u200b" not in page.content()
            for button in ("Refuse", "Consent"):
                assert page.get_by_role("button", name=button, exact=True).bounding_box()["height"] >= 44
        page.get_by_role("button", name="Refuse", exact=True).click()
        assert page.title() == "Denied by jane." and violations(page) == []
        page.goto(f"{world.origin}{PATH}/decide/nobody-has-this")
        assert "unknown, or has expired" in page.content() and violations(page) == []


def test_it_goes_without_a_script_and_by_the_keyboard_alone_and_the_consent_is_good_once(chromium: Any, world: World) -> None:
    url, poll = world.posted(world.mail())
    with page_of(chromium, java_script_enabled=False) as page:
        page.goto(url)
        page.keyboard.press("Tab")
        assert page.locator(":focus").inner_text() == "Refuse", "the first button is the one that gives nothing"
        page.keyboard.press("Tab")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        assert page.title() == "Approved by jane."
    consent = httpx.get(poll, trust_env=False).json()["consent"]
    with world.desk.using([consent]):
        world.desk.clock.seconds = int(time())
        assert [world.desk.guard.check("mail", MAIL[2]).code for _ in range(2)] == ["allowed", "replayed"]


def test_a_button_pressed_twice_decides_once_and_nobody_frames_the_page(chromium: Any, world: World) -> None:
    url, poll = world.posted(world.mail())
    with page_of(chromium) as page:
        page.route("https://evil.example/", lambda route: route.fulfill(body=f'<iframe src="{url}"></iframe>', content_type="text/html"))
        page.goto("https://evil.example/")
        page.wait_for_timeout(300)
        assert all("Consent to this call" not in frame.content() for frame in page.frames[1:])
        page.goto(url)
        page.get_by_role("button", name="Consent", exact=True).dblclick(no_wait_after=True)
        page.wait_for_function("document.title === 'Approved by jane.'")
        page.wait_for_load_state("networkidle")
        page.goto(url)
        assert page.title() == "Approved by jane."
    assert httpx.get(poll, trust_env=False).status_code == 200 and httpx.get(poll, trust_env=False).status_code == 404
