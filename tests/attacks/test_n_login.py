"""What is tried at a login and its consent page: the list of the OAuth 2.0 Security BCP (RFC 9700), and what stands about MCP.

Each attack stands beside the same thing done rightly. Nobody who is refused is sent anywhere by it.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html import unescape
from pathlib import Path
from time import time
from typing import Any

import httpx
import pytest

from captoken import Access
from captoken import Verifier as Guard
from captoken.adapters._issuance.sessions import Cookies, Session
from captoken.audit import AuditTrail
from captoken.issuance.documents import is_public
from captoken.issuance.registry import Ending, Exchange, KeptLogin, MemoryRegistry, StartedTask, Turned
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.testing import FixedClock
from tests.fixtures import NOW
from tests.issuance.logging_in import (
    APP,
    CALLBACK,
    KEYRING,
    House,
    Person,
    Verifier,
    at_documents,
    boxes,
    code_in,
    house,
    sent_back,
)

READ = Access(tool="read", arguments={})
DOCUMENT = {"client_id": APP, "client_name": "App", "redirect_uris": ["https://app.example/back", "http://127.0.0.1/callback"]}


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[str, House]]:
    with house(documents=at_documents({APP: DOCUMENT})) as made:
        yield made


@pytest.fixture
def alice(here: tuple[str, House]) -> Person:
    return Person(here[0])


@pytest.fixture
def bob(here: tuple[str, House]) -> Person:
    return Person(here[0], "bob")


def refused(answer: httpx.Response, status: int = 400) -> str:
    """What the person reads, who is sent nowhere."""
    assert answer.status_code == status, answer.text
    assert "location" not in answer.headers and "<script" not in answer.text.lower()
    return unescape(re.sub(r"<style>.*</style>|<[^>]*>", " ", answer.text))


def at_notes(said: dict[str, Any], access: Access = READ) -> str:
    return Guard(KEYRING.for_audience("notes"), "notes").check(said["access_token"], access).code


def error_of(answer: httpx.Response) -> str:
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"])


# --- the request ------------------------------------------------------------------------------------------------------


def test_what_is_asked_rightly_is_given(alice: Person) -> None:
    said = alice.tokens()
    assert at_notes(said) == "allowed" and said["token_type"] == "Bearer" and said["scope"] == "notes" and said["expires_in"] == 300
    assert at_notes(said, Access(tool="purge", arguments={})) == "tool"


@pytest.mark.parametrize(
    "asked",
    [
        {"code_challenge": None}, {"code_challenge_method": None}, {"code_challenge_method": "plain"}, {"code_challenge": "short"},
        {"code_challenge": "x" * 42 + "="}, {"response_type": "token"}, {"response_type": "code token"}, {"response_type": None},
        {"response_mode": "fragment"}, {"response_mode": "form_post"}, {"request": "eyJ"}, {"request_uri": "https://evil.example/r"},
        {"authorization_details": "[]"}, {"client_id": None}, {"redirect_uri": None}, {"state": "x" * 2100},
    ],
    ids=str,
)  # fmt: skip
def test_a_request_without_pkce_or_with_another_meaning_goes_nowhere(alice: Person, asked: dict[str, Any]) -> None:
    """The specification's rule 44.19. PKCE downgrade (RFC 9700, 2.1.1), request objects, other flows."""
    refused(alice.page(**asked))
    assert boxes(alice.page())


def test_a_parameter_twice_is_refused(alice: Person) -> None:
    for name in ("client_id", "redirect_uri", "code_challenge", "state", "scope", "resource"):
        refused(alice.go(f"{alice.asks(resource=f'{alice.origin}/mcp')}&{name}=x"))


@pytest.mark.parametrize(
    "redirect",
    [
        "https://evil.example/callback", "https://desk.example.evil.example/callback", "https://desk.example/callback/", "https://desk.example/callback?x=1",
        "https://desk.example/callback#x", "https://desk.example/%63allback", "https://desk.example/callback%2f..%2fevil", "https://desk.example/a/../callback",
        "https://desk.example:443/callback", "https://desk.example@evil.example/callback", "https://evil.example\\@desk.example/callback",
        "https://DESK.example/callback", "http://desk.example/callback", "https://desk.example./callback", "//desk.example/callback",
        "http://localhost:5555/callback", "http://127.0.0.1:5555/other", "http://127.0.0.1:5555/callback?x", "http://127.0.0.1:5555/callback/../x",
        "http://127.0.0.1:0/callback", "http://127.0.0.1:5555@evil.example/callback", "http://127.0.0.1.evil.example/callback", "http://127.1/callback",
        "http://2130706433/callback", "http://0x7f000001/callback", "http://[::1]:5555/callback", "http://[::ffff:127.0.0.1]/callback",
        "https://127.0.0.1:5555/callback", "http://user@127.0.0.1/callback", "com.example.app:/callback", "javascript:alert(1)", "data:text/html,x",
        "http://127.0.0.1:99999999/callback", "http://127.0.0.1:/callback", "http://127.0.0.1: 80/callback", "",
    ],
)  # fmt: skip
def test_a_browser_goes_to_the_addresses_of_the_application_alone(alice: Person, redirect: str) -> None:
    """The specification's rule 44.22. Exact strings (RFC 9700, 4.1): but for the port on this machine, by its address in figures."""
    refused(alice.page(redirect_uri=redirect))
    for rightly in ("https://desk.example/callback", "http://127.0.0.1/callback", "http://127.0.0.1:61234/callback"):
        assert boxes(alice.page(redirect_uri=rightly)), rightly


def test_an_error_is_a_page_and_never_a_redirect(alice: Person) -> None:
    """Open redirector (RFC 9700, 4.11): whoever makes a link chooses the address, so a person follows it or does not."""
    for asked in ({"scope": "none"}, {"scope": "shell"}, {"scope": "a b"}, {"resource": "https://other.example"}, {"scope": None}):
        refused(alice.page(redirect_uri="https://desk.example/callback", **asked))
    page = alice.page(redirect_uri="https://desk.example/callback", scope="none")
    link = unescape(re.search(r'<a class="button" rel="noreferrer" href="([^"]*)"', page.text)[1])  # type: ignore[index]
    assert link.startswith("https://desk.example/callback?error=invalid_scope") and "iss=" in link


def test_an_answer_says_who_gives_it(alice: Person) -> None:
    """Mix-up (RFC 9207): `iss` stands in each answer, and the metadata says so."""
    assert sent_back(alice.send(alice.form(alice.page())))["iss"] == alice.origin
    denied = sent_back(alice.send(alice.form(alice.page(), "deny")))
    assert denied == {"error": "access_denied", "state": "s-1", "iss": alice.origin}
    said = httpx.get(f"{alice.origin}/.well-known/oauth-authorization-server").json()
    assert said["authorization_response_iss_parameter_supported"] is True and said["code_challenge_methods_supported"] == ["S256"]


# --- codes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown",
    [
        {"code_verifier": None}, {"code_verifier": "v" * 43}, {"code_verifier": "short"}, {"redirect_uri": None},
        {"redirect_uri": "https://desk.example/callback"}, {"redirect_uri": "http://127.0.0.1:5556/callback"}, {"client_id": "other"},
        {"client_id": None}, {"client_id": APP}, {"client_secret": "x"}, {"resource": "sales-db"}, {"resource": "https://other.example"},
    ],
    ids=str,
)  # fmt: skip
def test_a_code_is_of_its_client_its_redirect_and_its_challenge(alice: Person, shown: dict[str, Any]) -> None:
    """Code injection (RFC 9700, 4.5): a code that was stolen, or put into another's answer, is worth nothing."""
    code = alice.code()
    answer = alice.exchange(code, **shown)
    assert answer.status_code in (400, 401) and "access_token" not in answer.text


def test_a_verifier_is_guessed_at_once(alice: Person) -> None:
    code = alice.code()
    assert error_of(alice.exchange(code, code_verifier=Verifier().text)) == "invalid_grant"
    assert error_of(alice.exchange(code)) == "invalid_grant"


def test_a_code_that_comes_twice_ends_its_task(here: tuple[str, House], alice: Person) -> None:
    """RFC 6749, 4.1.2: one of the two stole it."""
    code = alice.code()
    said = alice.exchange(code).json()
    registry = here[1].registry
    assert error_of(alice.exchange(code)) == "invalid_grant"
    assert [one.task.id for one in registry.unpublished()][-1] == said["task"]
    assert error_of(alice.refresh(said["refresh_token"])) == "invalid_grant"


class Meanwhile(MemoryRegistry):
    """Another request comes just before one of its calls, once."""

    call = task = ""
    comes: Callable[[], object] = staticmethod(lambda: None)

    def _before(self, call: str) -> None:
        if call == self.call:
            self.call = ""
            self.comes()

    def enter(self, entry: Exchange) -> StartedTask:
        self._before("enter")
        self.task = entry.task
        return super().enter(entry)

    def turn_login(self, login: KeptLogin, shown: bytes, next: bytes, now: int) -> Turned:
        self._before("turn_login")
        return super().turn_login(login, shown, next, now)

    def drop_login(self, id: str) -> None:
        self._before("drop_login")
        super().drop_login(id)


@pytest.mark.parametrize("call, verifiers", [("enter", (None, "x" * 43)), ("turn_login", ("x" * 43, None)), ("drop_login", ("x" * 43, None))])
def test_a_code_that_comes_twice_at_once_leaves_no_task(call: str, verifiers: tuple[str | None, str | None]) -> None:
    """The second comes before the task is there that it ends; or while the first, with a wrong verifier, is being refused."""
    registry = Meanwhile(floor=0)
    with house(registry=registry) as (origin, _):
        alice = Person(origin)
        code = alice.code()
        first, second = ({"code_verifier": one} if one else {} for one in verifiers)
        registry.call, registry.comes = call, lambda: alice.exchange(code, **second)
        assert error_of(alice.exchange(code, **first)) == "invalid_grant" and not registry.call
        assert alice.web.get(f"{origin}/grants").text.count("End it") == 0
        assert not registry.is_live(registry.task, int(time()))
        assert alice.tokens()


def test_a_code_is_no_refresh_token_nor_the_other_way_round(alice: Person) -> None:
    assert error_of(alice.refresh(alice.code())) == "invalid_grant"
    said = alice.tokens()
    assert error_of(alice.exchange(said["refresh_token"])) == "invalid_grant"
    assert alice.refresh(said["refresh_token"]).status_code == 200, "and nothing came of it"


def test_a_code_ends_after_a_minute() -> None:
    clock = FixedClock(NOW)
    with house(clock=clock) as (origin, _):
        alice = Person(origin)
        early, late = alice.code(), alice.code(state="s-2")
        clock.now = NOW + 59
        assert alice.exchange(early).status_code == 200
        clock.now = NOW + 60
        assert error_of(alice.exchange(late)) == "invalid_grant"


# --- refresh tokens ---------------------------------------------------------------------------------------------------


def test_a_refresh_token_gives_one_successor() -> None:
    """The specification's rule 44.21. Stock clients share one between windows: before its successor was used, it gives the same one, for a minute."""
    clock = FixedClock(NOW)
    written = io.BytesIO()
    with house(clock=clock, trail=AuditTrail(written.write)) as (origin, made):
        alice = Person(origin)
        first = alice.tokens()
        second = alice.refresh(first["refresh_token"]).json()
        clock.now = NOW + 60
        again = alice.refresh(first["refresh_token"]).json()
        assert again["refresh_token"] == second["refresh_token"] and again["task"] == first["task"] and at_notes_at(clock, again) == "allowed"

        third = alice.refresh(second["refresh_token"]).json()
        assert third["refresh_token"] != second["refresh_token"]
        # Its successor was used: somebody else has it.
        assert error_of(alice.refresh(first["refresh_token"])) == "invalid_grant"
        assert [one.task.id for one in made.registry.unpublished()] == [first["task"]]
        assert error_of(alice.refresh(third["refresh_token"])) == "invalid_grant"
    records = [json.loads(line) for line in written.getvalue().splitlines()]
    assert any("used before" in str(one.get("why")) for one in records), "the trail says why"


def at_notes_at(clock: FixedClock, said: dict[str, Any]) -> str:
    return Guard(KEYRING.for_audience("notes"), "notes", clock=clock).check(said["access_token"], READ).code


def test_of_two_windows_that_refresh_at_once_both_go_on() -> None:
    """The one that is second has looked at its clock first, or has another clock."""
    clock, registry = FixedClock(NOW), Meanwhile(floor=0)
    with house(registry=registry, clock=clock) as (origin, _):
        alice = Person(origin)
        token = alice.refresh(alice.tokens()["refresh_token"]).json()["refresh_token"]
        found: list[Any] = []

        def other() -> None:
            clock.advance(1)
            found.append(alice.refresh(token).json())

        registry.call, registry.comes = "turn_login", other
        found.append(alice.refresh(token).json())
        assert len({one["refresh_token"] for one in found}) == 1
        assert alice.refresh(found[0]["refresh_token"]).status_code == 200


def test_after_a_minute_the_former_one_ends_the_task() -> None:
    clock = FixedClock(NOW)
    with house(clock=clock) as (origin, made):
        alice = Person(origin)
        first = alice.tokens()
        second = alice.refresh(first["refresh_token"]).json()
        clock.now = NOW + 61
        assert error_of(alice.refresh(first["refresh_token"])) == "invalid_grant"
        assert not made.registry.is_live(first["task"], NOW + 61)
        assert error_of(alice.refresh(second["refresh_token"])) == "invalid_grant"


@pytest.mark.parametrize("shown", [{"client_id": "other"}, {"client_id": APP}, {"scope": "sales"}, {"resource": "sales-db"}, {"client_secret": "x"}], ids=str)
def test_a_refresh_token_is_of_its_client_and_gives_no_more(alice: Person, shown: dict[str, Any]) -> None:
    said = alice.tokens()
    answer = alice.refresh(said["refresh_token"], **shown)
    assert answer.status_code in (400, 401) and "access_token" not in answer.text


def test_of_two_workers_one_changes_it(tmp_path: Path) -> None:
    """A race over two services with one registry: one change, one successor, and nobody is thrown out."""
    SQLiteRegistry.create(tmp_path / "tasks.db", floor=0).close()
    first = SQLiteRegistry(tmp_path / "tasks.db")
    second = SQLiteRegistry(tmp_path / "tasks.db")
    clock = FixedClock(NOW)  # it is about the minute in which they are changed, however long this machine takes
    with house(registry=first, clock=clock) as (origin, made):
        alice = Person(origin)
        said = alice.tokens()
        # The second worker stands at another port, and says that it is the first.
        with house(registry=second, clock=clock, policy=_policy_at(origin)) as (other, _), ThreadPoolExecutor(8) as pool:
            for _ in range(5):
                ports = (origin, other) * 4
                answers = list(pool.map(partial(_refreshed, said["refresh_token"]), ports))
                assert [one.status_code for one in answers] == [200] * 8, [one.text for one in answers]
                (successor,) = {one.json()["refresh_token"] for one in answers}
                said = {**said, "refresh_token": successor}
        assert made.registry.is_live(said["task"], NOW) and made.registry.unpublished() == ()
    first.close()
    second.close()


def _refreshed(token: str, port: str) -> httpx.Response:
    return Person(port).refresh(token)


def _policy_at(origin: str) -> str:
    from tests.issuance.logging_in import POLICY

    return POLICY.replace("{origin}", origin)


def test_what_a_person_ends_gives_nothing_more(here: tuple[str, House]) -> None:
    origin, made = here
    alice, bob = Person(origin), Person(origin, "bob")
    said = alice.tokens()
    page = alice.go(f"{origin}/grants")
    assert "Desk" in page.text
    # Another person's page does not name it, and another person's session does not open this one's form.
    assert "Desk" not in bob.go(f"{origin}/grants").text
    refused(bob.send(alice.form(page)))
    assert alice.refresh(said["refresh_token"]).status_code == 200
    for _ in range(page.text.count(">End it<")):
        page = alice.web.get(alice.send(alice.form(page)).headers["location"])
    assert not made.registry.is_live(said["task"], NOW) and "No application" in page.text


def test_a_logout_at_the_provider_ends_session_and_refresh() -> None:
    with house() as (origin, made):
        alice = Person(origin)
        said = alice.tokens()
        now = int(made.service._clock())
        made.registry.end(Ending(now=now, provider="people", subject="people:alice"))
        assert error_of(alice.refresh(said["refresh_token"])) == "invalid_grant"
        assert "/people/authorize" in alice.web.get(alice.asks()).headers["location"], "she has to log in anew"


# --- the page ---------------------------------------------------------------------------------------------------------


def test_nobody_frames_the_page_and_it_has_no_script(alice: Person) -> None:
    """Clickjacking (RFC 9700, 4.16), and what a page tells another by its address."""
    page = alice.page(client_id=APP, redirect_uri="https://app.example/back")
    policy = page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy and "form-action 'self' https://app.example;" in policy
    assert page.headers["x-frame-options"] == "DENY" and page.headers["referrer-policy"] == "same-origin"
    assert page.headers["cache-control"] == "no-store" and "script" not in page.text
    back = alice.send(alice.form(page))
    assert back.headers["referrer-policy"] == "no-referrer" and back.headers["location"].startswith("https://app.example/back?code=")


def test_who_publishes_it_and_where_it_goes_stand_on_the_page(alice: Person) -> None:
    page = alice.page(client_id=APP, redirect_uri="https://app.example/back").text
    assert "app.example" in page and "this computer" not in page
    assert "this computer" in alice.page(client_id=APP).text


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}],
    ids=str,
)
def test_a_form_from_another_site_is_refused(alice: Person, headers: dict[str, str]) -> None:
    form = alice.form(alice.page())
    refused(alice.send(form, **headers))
    assert alice.send(form).status_code == 303


def test_a_form_is_of_one_session(alice: Person, bob: Person) -> None:
    """CSRF, and consent of one person that another one uses."""
    form = alice.form(alice.page())
    bob.page()
    refused(bob.send(form))
    refused(Person(alice.origin).send(form))
    action, body = form
    refused(alice.send((action, body.replace("request=", "request=A"))))
    refused(alice.send((action, "answer=allow&right=tool%3Aread")))
    assert alice.send(form).status_code == 303


def test_a_form_of_one_purpose_is_none_of_another(alice: Person) -> None:
    alice.tokens()
    consent, end = alice.form(alice.page()), alice.form(alice.go(f"{alice.origin}/grants"))
    refused(alice.send((end[0], consent[1])))
    refused(alice.send((consent[0], end[1])))


def test_a_button_that_is_pressed_twice_gives_one_code(alice: Person) -> None:
    form = alice.form(alice.page())
    first, second = alice.send(form), alice.send(form)
    assert code_in(first) == code_in(second)
    assert alice.exchange(code_in(first)).status_code == 200
    assert "already" in refused(alice.send(form), 409), "the back button, after all is done"


def test_a_page_has_one_answer(alice: Person) -> None:
    page = alice.page()
    code = code_in(alice.send(alice.form(page, rights=["tool:read"])))
    refused(alice.send(alice.form(page)), 409)
    said = alice.exchange(code).json()
    assert at_notes(said) == "allowed" and at_notes(said, Access(tool="mail.list", arguments={})) == "tool"


@pytest.mark.parametrize("rights", [["tool:purge"], ["table:sales:select"], ["tool:*"], ["tool:read", "tool:mail.send"]], ids=str)
def test_a_box_that_was_not_on_the_page_is_refused(alice: Person, rights: list[str]) -> None:
    answer = alice.send(alice.form(alice.page(), rights=rights))
    assert answer.status_code == 200 and "did not have" in answer.text


def test_with_nothing_ticked_nothing_is_allowed(alice: Person) -> None:
    answer = alice.send(alice.form(alice.page(), rights=[]))
    assert answer.status_code == 200 and "Tick at least one thing" in answer.text


def test_what_is_unticked_stays_away(alice: Person) -> None:
    """Also where a wider pattern is ticked, and for a table of its own."""
    page = alice.page(scope="sales", resource="sales-db")
    assert boxes(page) == ["table:market.*:select", "table:sales:insert", "table:sales:select"]
    code = code_in(alice.send(alice.form(page, rights=["table:market.*:select", "table:sales:select"])))
    said = alice.exchange(code).json()
    assert "refresh_token" not in said, "what is counted comes once"
    guard = Guard(KEYRING.for_audience("sales-db"), "sales-db")
    assert guard.explain(said["access_token"], Access(table="sales", operation="insert")).code == "operation"
    assert said["authorization_details"][0]["operations"] == ["select"]


# --- step-up ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(here: tuple[str, House], alice: Person) -> Person:
    """Her, for whom nothing acts yet."""
    now = int(here[1].clock())
    for one in here[1].registry.logins_of("people:alice", now):
        here[1].registry.end(Ending(now=now, task=one.task))
    return alice


def begun(person: Person, rights: list[str], **asked: Any) -> dict[str, Any]:
    """What an application gets, by a page on which she ticks these."""
    more = {"client_id": asked["client_id"]} if "client_id" in asked else {}
    said: dict[str, Any] = person.exchange(code_in(person.send(person.form(person.page(**asked), rights=rights))), **more).json()
    return said


WANTED = {"scope": "notes tool:read tool:mail.list"}
LIST = Access(tool="mail.list", arguments={})


def test_more_is_added_to_the_task_of_that_person_and_that_application(fresh: Person, bob: Person) -> None:
    """The specification's rule 44.24. Another person's task, and another application's, are not there."""
    first = begun(fresh, ["tool:read"])
    for stranger, asked in ((bob, WANTED), (fresh, {**WANTED, "client_id": "other"})):
        page = stranger.page(**asked)
        assert boxes(page) == ["tool:read", "tool:mail.list"] or boxes(page) == ["tool:mail.list", "tool:read"]
        assert "already" not in page.text
        assert begun(stranger, ["tool:read"], **asked)["task"] != first["task"]
    page = fresh.page(**WANTED)
    assert boxes(page) == ["tool:mail.list"] and "You have allowed it already" in page.text
    more = begun(fresh, ["tool:mail.list"], **WANTED)
    assert more["task"] == first["task"] and at_notes(more) == at_notes(more, LIST) == "allowed"


def test_what_is_added_is_what_the_page_showed(fresh: Person) -> None:
    """A box for what the policy gives, and nobody asked for; and one for what it does not give."""
    begun(fresh, ["tool:read"])
    for box in ("tool:mail.*", "tool:mail.send", "tool:purge", "tool:read"):
        answer = fresh.send(fresh.form(fresh.page(**WANTED), rights=["tool:mail.list", box]))
        assert answer.status_code == 200 and "did not have" in answer.text
    assert "Tick at least one thing" in fresh.send(fresh.form(fresh.page(**WANTED), rights=[])).text


def test_a_page_for_more_is_shown_again_once_the_task_has_ended(here: tuple[str, House], fresh: Person) -> None:
    """What she has seen says what it is added to: she is not made to begin something else."""
    first = begun(fresh, ["tool:read"])
    form = fresh.form(fresh.page(**WANTED))
    here[1].registry.end(Ending(now=int(here[1].clock()), task=first["task"]))
    answer = fresh.send(form)
    assert answer.status_code == 200 and "has changed meanwhile" in answer.text


def test_a_code_for_more_that_comes_twice_ends_the_task(here: tuple[str, House], fresh: Person) -> None:
    first = begun(fresh, ["tool:read"])
    code = code_in(fresh.send(fresh.form(fresh.page(**WANTED))))
    assert fresh.exchange(code).status_code == 200
    assert error_of(fresh.exchange(code)) == "invalid_grant"
    assert not here[1].registry.is_live(first["task"], int(here[1].clock()))
    assert error_of(fresh.refresh(first["refresh_token"])) == "invalid_grant"


def test_a_code_for_more_is_of_no_use_to_a_task_that_has_ended(here: tuple[str, House], fresh: Person) -> None:
    first = begun(fresh, ["tool:read"])
    code = code_in(fresh.send(fresh.form(fresh.page(**WANTED))))
    here[1].registry.end(Ending(now=int(here[1].clock()), task=first["task"]))
    assert error_of(fresh.exchange(code)) == "invalid_grant"


def test_what_is_counted_is_not_added_to(fresh: Person) -> None:
    """It is given once in a task: what is asked for later is a task of its own, with all that its page says."""
    asked = {"scope": "sales table:sales:select", "resource": "sales-db"}
    first = begun(fresh, ["table:sales:select"], **asked)
    page = fresh.page(scope="sales table:sales:insert", resource="sales-db")
    assert boxes(page) == ["table:sales:insert"] and "already" not in page.text
    assert begun(fresh, ["table:sales:insert"], scope="sales table:sales:insert", resource="sales-db")["task"] != first["task"]


@pytest.mark.parametrize(
    "scope, why",
    [
        ("notes sales", "must name one grant"), ("notes tool:%6Dail.list", "must name one grant"), ("notes tool:purge", "gives nothing"),
        ("notes table:sales:select", "gives nothing"), ("tool%3Aread", "no such grant"), ("notes " + " ".join(f"tool:t{n}" for n in range(33)), "at most 32"),
    ],
)  # fmt: skip
def test_a_scope_that_is_no_right_is_refused(fresh: Person, scope: str, why: str) -> None:
    assert why in refused(fresh.page(scope=scope))


def test_the_names_of_rights_are_text_on_the_page(fresh: Person) -> None:
    begun(fresh, ["tool:read"])
    page = fresh.page(scope="notes tool:mail.list tool:%3Cscript%3Ealert%281%29%3C%2Fscript%3E tool:mail.%E2%80%AEx")
    assert "<script" not in page.text and "&lt;script&gt;alert(1)" in page.text
    assert "\u202e" not in page.text and "u{202e}" in page.text


# --- the login --------------------------------------------------------------------------------------------------------


def test_a_session_is_new_with_each_login(here: tuple[str, House], alice: Person) -> None:
    """Session fixation: a secret that somebody else has put into her browser is never hers."""
    name = "captoken-session"
    planted = "A" * 43
    alice.web.cookies.set(name, planted, domain="127.0.0.1")
    assert boxes(alice.page())
    kept = [cookie.value for cookie in alice.web.cookies.jar if cookie.name == name]
    assert planted not in kept[-1:] and kept
    mallory = Person(here[0])
    mallory.web.cookies.set(name, planted, domain="127.0.0.1")
    assert "/people/authorize" in mallory.web.get(mallory.asks()).headers["location"]


@pytest.mark.parametrize("before", [b"\xa0", b"\x85", b"\x1f", b"\t", b" "])
def test_a_cookie_that_another_host_can_set_is_no_session(before: bytes) -> None:
    """Browsers keep other hosts from names that begin with `__Host-`, and not from those that begin with a space of some kind."""
    session = Session.fresh()
    kept = Cookies(True).keep(session, 60)[1].partition(b";")[0]
    for line, known in ((kept, session), (b"a=b; " + kept, session), (before + kept, None), (b"a=b; " + before + kept, None)):
        found = Cookies(True).session({"headers": [(b"cookie", line)]})
        assert (None if found is None else found.id) == (None if known is None else known.id)


def test_a_login_comes_back_to_the_browser_that_began_it(alice: Person, bob: Person) -> None:
    """Login CSRF: mallory's answer of the provider, put into alice's browser, logs nobody in."""
    begun = bob.web.get(bob.asks())
    page = bob.web.get(begun.headers["location"])
    found = re.search(r'href="([^"]*person=bob)"', page.text)
    assert found is not None
    back = bob.web.get(unescape(found[1])).headers["location"]
    refused(alice.web.get(back))
    assert "/people/authorize" in alice.web.get(alice.asks()).headers["location"]
    assert bob.web.get(back).status_code == 303
    refused(bob.web.get(back)), "and once"


@pytest.mark.parametrize("leads", ["@evil.example/", "/token?", "//evil.example/", "/authorize?a\r\nset-cookie: x=y", ".evil.example/authorize?"])
def test_a_login_leads_to_a_page_of_this_service(bob: Person, leads: str) -> None:
    """Open redirector: what a browser keeps of a login that is under way is its own word."""
    begun = bob.web.get(bob.asks())
    page = bob.web.get(begun.headers["location"])
    back = bob.web.get(unescape(re.search(r'href="([^"]*person=bob)"', page.text)[1])).headers["location"]  # type: ignore[index]
    (cookie,) = [one for one in bob.web.cookies.jar if one.name.startswith("captoken-at-")]
    kept = json.loads(base64.urlsafe_b64decode(str(cookie.value) + "=="))
    for tricked, status in ((leads, 400), (kept[-1], 303)):
        value = base64.urlsafe_b64encode(json.dumps([*kept[:-1], tricked]).encode()).rstrip(b"=").decode()
        answer = httpx.get(back, headers={"cookie": f"{cookie.name}={value}"})
        assert answer.status_code == status and ("location" in answer.headers) is (status == 303)


@pytest.mark.parametrize("tricked", ["&iss=https://evil.example", "&state=x", "&code=x", "&error=access_denied"])
def test_what_the_provider_says_is_read_once(bob: Person, tricked: str) -> None:
    begun = bob.web.get(bob.asks())
    page = bob.web.get(begun.headers["location"])
    found = re.search(r'href="([^"]*person=bob)"', page.text)
    assert found is not None
    back = bob.web.get(unescape(found[1])).headers["location"]
    refused(bob.web.get(back + tricked))
    assert bob.web.get(back).status_code == 303


def test_a_grant_of_one_way_is_not_taken_by_the_other(here: tuple[str, House], alice: Person) -> None:
    """An ID token starts nothing that people have to allow; and nobody allows what is for assertions."""
    refused(alice.page(scope="shell"))
    answer = alice.post({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": "x.y.z", "scope": "notes",
                         "subject_token_type": "urn:ietf:params:oauth:token-type:id_token"})  # fmt: skip
    assert answer.status_code == 400


# --- applications and their documents ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {**DOCUMENT, "client_id": "https://bank.example/client.json"}, {**DOCUMENT, "client_id": APP + "/"}, {"redirect_uris": [CALLBACK]},
        {**DOCUMENT, "redirect_uris": []}, {**DOCUMENT, "redirect_uris": ["com.app:/x"]}, {**DOCUMENT, "redirect_uris": "https://app.example/back"},
        {**DOCUMENT, "redirect_uris": ["https://app.example/back", "http://app.example/back"]}, {**DOCUMENT, "client_secret": "x"},
        {**DOCUMENT, "token_endpoint_auth_method": "client_secret_basic"}, {**DOCUMENT, "token_endpoint_auth_method": "private_key_jwt"}, [],
    ],
    ids=str,
)  # fmt: skip
def test_a_document_that_claims_another_id_or_a_secret_is_none(document: Any) -> None:
    with house(documents=at_documents({APP: document})) as (origin, _):
        refused(Person(origin).page(client_id=APP))
        assert boxes(Person(origin).page())


def test_an_address_that_a_document_no_longer_has_is_refused_at_the_answer() -> None:
    """A document that changes between the page and the answer."""
    documents: dict[str, Any] = {APP: dict(DOCUMENT)}
    known = at_documents(documents)
    with house(documents=known) as (origin, _):
        alice = Person(origin)
        form = alice.form(alice.page(client_id=APP, redirect_uri="https://app.example/back"))
        documents[APP]["redirect_uris"] = ["http://127.0.0.1/callback"]
        known._known.clear()
        refused(alice.send(form))


def test_no_document_is_fetched_for_a_stranger(here: tuple[str, House]) -> None:
    """The specification's rule 44.23. Before somebody has logged in, nobody makes this service ask anything of an application."""
    with house(documents=at_documents({})) as (origin, _):
        stranger = Person(origin)
        assert "/people/authorize" in stranger.web.get(stranger.asks(client_id="https://nowhere.example/c.json")).headers["location"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1",
        "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "64:ff9b::a00:1", "2002:a00:1::",
        "2001:db8::1", "fe80::1%eth0", "fec0::2", "feff::1", "64:ff9b:1::a00:1", "::a00:1", "2001::1", "localhost", "",
    ],
)  # fmt: skip
def test_no_address_of_a_private_network_is_asked(address: str) -> None:
    assert not is_public(address) and is_public("8.8.8.8") and is_public("2606:4700:4700::1111")
