"""The pages of a login in Chromium: at three widths, without a script, by keyboard, in both colours; axe-core finds nothing.

`pytest -m browser tests/console` runs them, as those of the console.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx
import pytest
import uvicorn

from captoken.cli.trial.command import Trial
from tests.adapters.serving import listening, origin_of, served
from tests.issuance import test_saml_login as saml
from tests.issuance.logging_in import VERIFIER, House
from tests.issuance.saml_idp import certificate, private_pem

pytestmark = pytest.mark.browser

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"
WIDTHS = (320, 768, 1280)


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with listening() as one, served(Trial(origin_of(one)), one, lifespan="on") as at:
        yield at


class Application:
    """Where the browser goes back to: it says so, and keeps the address."""

    def __init__(self) -> None:
        self.came: list[dict[str, list[str]]] = []
        self.callback = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/callback":
            self.came.append(parse_qs(scope["query_string"].decode()))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"<title>back</title>back"})


@pytest.fixture
def application() -> Iterator[Application]:
    made = Application()
    with listening() as one, served(made, one) as at:
        made.callback = f"{at}/callback"
        yield made


@contextmanager
def page_of(chromium: Any, **facts: Any) -> Iterator[Any]:
    context = chromium.new_context(**facts)
    yield context.new_page()
    context.close()


class Idp:
    """A provider of SAML on another site: a page with a form that leads back."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asked = saml.Asked.of(scope["query_string"].decode())
        fields = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in saml.answered(asked, saml.signed(asked)).items())
        body = f'<form method="post" action="{asked.back}">{fields}<button>Go on</button></form>'
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": body.encode()})


def test_a_provider_of_saml_on_another_site_posts_its_answer(chromium: Any, tmp_path: Path) -> None:
    """What a browser does with cookies then: the one of this login comes along, and the session that begins is there on the next page."""
    (tmp_path / "cert.pem").write_text(certificate("rsa"))
    (tmp_path / "key.pem").write_text(private_pem("rsa"))
    with listening() as idp, served(Idp(), idp) as at, listening() as one:
        origin = f"https://127.0.0.1:{one.getsockname()[1]}"
        policy = saml.SAML_POLICY.replace(saml.SSO, f"{at.replace('127.0.0.1', 'localhost')}/sso")
        config = uvicorn.Config(
            House(origin, policy=policy), log_level="critical", lifespan="on", ssl_certfile=str(tmp_path / "cert.pem"), ssl_keyfile=str(tmp_path / "key.pem")
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([one],))
        thread.start()
        try:
            with page_of(chromium, ignore_https_errors=True) as page:
                page.goto(f"{origin}/grants")
                assert page.url.startswith("http://localhost:")
                page.get_by_role("button", name="Go on").click()
                page.wait_for_url(f"{origin}/grants**")
                assert "corp:jane" in page.inner_text("main")
        finally:
            server.should_exit = True
            thread.join()


def asks(origin: str, application: Application, **more: str) -> str:
    asked = {
        "response_type": "code", "client_id": "inspector", "redirect_uri": application.callback, "state": "s", "scope": "notes", "code_challenge": "x" * 43,
        "code_challenge_method": "S256", **more,
    }  # fmt: skip
    return f"{origin}/authorize?{urlencode(asked)}"


def violations(page: Any) -> list[str]:
    page.evaluate(AXE.read_text("utf-8"))
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = page.evaluate("(tags) => axe.run(document, {runOnly: tags}).then((run) => run.violations)", tags)
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_at_each_width_all_is_there_and_axe_finds_nothing(chromium: Any, origin: str, application: Application, width: int, scheme: str) -> None:
    with page_of(chromium, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        seen: list[str] = []
        page.goto(asks(origin, application))
        for leave in ("Alice", "Deny"):
            onward = page.get_by_role("link" if leave == "Alice" else "button", name=leave)
            onward.wait_for()  # the page is there, and not the one before it
            seen.append(page.title())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert violations(page) == []
            onward.click()
        page.wait_for_url(f"{application.callback}*")
        page.goto(f"{origin}/grants")
        assert violations(page) == []
        page.goto(asks(origin, application, scope="none"))
        assert violations(page) == [] and "Back to" in page.content()
        assert seen[1] == "MCP Inspector, or another program wants to act for you"


def test_a_page_for_more_says_what_is_new(chromium: Any, origin: str, application: Application) -> None:
    """She unticks one of two, and is asked for it later: beside that stands what she has allowed. Her own page says what it may do."""
    with page_of(chromium, viewport={"width": 320, "height": 800}) as page:
        page.goto(asks(origin, application, code_challenge=VERIFIER.challenge))
        page.get_by_role("link", name="Alice").click()
        page.locator('input[value="tool:write_note"]').uncheck()
        page.get_by_role("button", name="Allow").click()
        page.wait_for_url(f"{application.callback}*")
        form = {"grant_type": "authorization_code", "client_id": "inspector", "redirect_uri": application.callback, "code_verifier": VERIFIER.text}
        assert httpx.post(f"{origin}/token", data={**form, "code": application.came[-1]["code"][0]}).status_code == 200
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(asks(origin, application, scope="notes tool:read_note tool:write_note tool:delete_notes"))
            assert page.evaluate("document.documentElement.scrollWidth") <= width and violations(page) == []
            assert page.title().endswith("wants to do more for you") and page.locator("input[type=checkbox]").count() == 1
            told = page.locator("main").inner_text()
            assert "You have allowed it already" in told and "It also asks for this, and cannot have it" in told
        page.goto(f"{origin}/grants")
        assert violations(page) == [] and "Use the tool read_note" in page.locator("main").inner_text()


def test_it_goes_without_a_script_and_by_the_keyboard_alone(chromium: Any, origin: str, application: Application) -> None:
    with page_of(chromium, java_script_enabled=False) as page:
        page.goto(asks(origin, application))
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**/authorize?**")
        for name in ("tool:read_note", "allow"):
            for _ in range(8):
                page.keyboard.press("Tab")
                focused = page.locator(":focus")
                if focused.count() and focused.get_attribute("value") == name:
                    break
            page.keyboard.press("Space")
        page.wait_for_url(f"{application.callback}*")
        (came,) = application.came
        assert set(came) == {"code", "state", "iss"} and came["iss"] == [origin]


def test_a_button_pressed_twice_gives_one_code_and_back_asks_anew(chromium: Any, origin: str, application: Application) -> None:
    with page_of(chromium) as page:
        page.goto(asks(origin, application))
        page.get_by_role("link", name="Alice").click()
        page.get_by_role("button", name="Allow").dblclick(no_wait_after=True)
        page.wait_for_url(f"{application.callback}*")
        assert len({came["code"][0] for came in application.came}) == 1
        # No cache has kept the page: it is asked for anew, and is another one.
        page.go_back()
        page.get_by_role("button", name="Deny").click()
        page.wait_for_url(f"{application.callback}*")
        assert application.came[-1]["error"] == ["access_denied"]


def test_nobody_frames_it(chromium: Any, origin: str, application: Application) -> None:
    with page_of(chromium) as page:
        page.goto(asks(origin, application))
        page.get_by_role("link", name="Alice").click()
        page.route("https://evil.example/", lambda route: route.fulfill(body=f'<iframe src="{asks(origin, application)}"></iframe>', content_type="text/html"))
        page.goto("https://evil.example/")
        page.wait_for_timeout(300)
        assert all("act for you" not in frame.content() for frame in page.frames[1:])
