"""What a person is offered: what was asked for, or what the policy offers at first; and what is added to what an application has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest

from captoken import Access, Token
from captoken import Verifier as Guard
from captoken.issuance.registry import Ending
from captoken.keys import DischargerKey
from captoken.testing import FixedClock
from tests.fixtures import NOW
from tests.issuance.logging_in import KEYRING, POLICY, House, Person, boxes, code_in, house, sent_back

MORE = """
[grant.work]
subject = {{ provider = "people" }}
clients = ["desk", "other"]
agents = ["assistant"]
resources = ["notes"]
task_max = 7200
lease = 60
first = {{ allow = {{ "sales" = ["select"] }}, columns = {{ "sales" = ["amount"] }}, tools = {{ "read" = {{}} }} }}
[grant.work.give]
expires_in = 900
tools = {{ "read" = {{}}, "mail.*" = {{}}, "mail.send" = {{ to = {{ in = ["a@b.example"] }} }} }}
allow = {{ "sales" = ["select", "insert"], "market.*" = ["select"] }}
columns = {{ "sales" = ["amount", "region", "note"] }}
[grant.free]
subject = {{ provider = "people" }}
clients = ["desk"]
agents = ["assistant"]
resources = ["notes"]
give = {{ expires_in = 900, allow = {{ "*" = ["insert"], "sales" = ["select", "insert"], "hr" = ["select", "insert"] }}, columns = {{ "hr" = ["name", "pay"] }} }}
"""
WORK = {"scope": "work"}


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[str, House]]:
    with house(policy=POLICY + MORE, clock=FixedClock(NOW), lease=DischargerKey.generate()) as made:
        yield made


@pytest.fixture
def alice(here: tuple[str, House]) -> Iterator[Person]:
    """Nothing acts for her yet."""
    origin, made = here
    yield Person(origin)
    for one in made.registry.logins_of("people:alice", NOW):
        made.registry.end(Ending(now=NOW, task=one.task))


def words(page: Any) -> str:
    plain = re.sub(r"<style>.*</style>|<[^>]*>", " ", page.text)
    return " ".join(unescape(plain).split())


def begun(person: Person, scope: str = "work", rights: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """What an application gets, by a page on which she ticks some of it."""
    asked = {"scope": scope, **{key: value for key, value in more.items() if key == "client_id"}}
    answer = person.exchange(code_in(person.send(person.form(person.page(**asked), rights=rights))), **more)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def allows(said: dict[str, Any], access: Access) -> str:
    return Guard(KEYRING.for_audience("notes"), "notes", clock=FixedClock(NOW)).check(said["access_token"], access).code


def held(said: dict[str, Any]) -> Token:
    """Without what says that its task is alive."""
    return Token.parse(said["access_token"].partition(".")[0])


def word(said: dict[str, Any]) -> dict[str, Any]:
    """Link 1."""
    import msgspec

    found: dict[str, Any] = msgspec.json.decode(held(said).unverified._caveats[1][0])
    return found


def test_at_first_it_is_offered_what_the_policy_says(alice: Person) -> None:
    page = alice.page(**WORK)
    assert boxes(page) == ["table:sales:select", "tool:read"] and "It could ask for more later" in words(page)
    said = begun(alice)
    assert said["scope"] == "work"
    assert allows(said, Access(table="sales", operation="select", columns=["amount"])) == "allowed"
    assert allows(said, Access(table="sales", operation="select", columns=["region"])) == "column"
    assert allows(said, Access(tool="mail.send", arguments={"to": "a@b.example"})) == "tool"


def test_what_is_asked_for_is_offered_and_nothing_else(alice: Person) -> None:
    page = alice.page(scope="work tool:mail.send table:market.eu:select tool:purge table:hr:select")
    assert boxes(page) == ["table:market.eu:select", "tool:mail.send"]
    assert "It also asks for this, and cannot have it Use the tool purge Read hr" in words(page)
    assert 'with to one of "a@b.example"' in words(page) or "a@b.example" in words(page)
    said = begun(alice, "work tool:mail.send table:market.eu:select", ["tool:mail.send"])
    assert said["scope"] == "work tool:mail.send"
    assert allows(said, Access(tool="mail.send", arguments={"to": "a@b.example"})) == "allowed"
    assert allows(said, Access(tool="mail.send", arguments={"to": "x@evil.example"})) == "argument"
    assert allows(said, Access(table="market.eu", operation="select")) != "allowed"
    assert allows(said, Access(tool="read", arguments={})) == "tool"


def test_columns_have_boxes_where_they_are_asked_for(alice: Person) -> None:
    asked = "work table:sales:select:amount table:sales:select:region table:sales:insert:amount table:sales:select:salary"
    page = alice.page(scope=asked)
    assert boxes(page) == ["table:sales:insert:amount", "table:sales:select:amount", "table:sales:select:region"]
    assert "Read column amount of sales" in words(page) and "A column counts for all" in words(page) and "Read column salary of sales" in words(page)
    said = begun(alice, asked, ["table:sales:select:region"])
    assert word(said) == {"allow": {"sales": ["select"]}, "columns": {"sales": ["region"]}} and said["scope"] == "work table:sales:select:region"
    # What is ticked for one operation alone is given for neither.
    both = begun(alice, asked, ["table:sales:insert:amount", "table:sales:select:region", "table:sales:select:amount"], client_id="other")
    assert word(both)["columns"] == {"sales": ["amount"]}
    # All columns and some of them are all of them.
    assert boxes(alice.page(scope="work table:sales:insert table:sales:insert:amount")) == ["table:sales:insert"]


def test_what_it_asks_for_later_is_added(alice: Person) -> None:
    """The specification's rule 44.24: one click, in the same task and to the same end; and of rule 44.25, in one tree."""
    first = begun(alice)
    page = alice.page(scope="work tool:read tool:mail.send table:sales:insert")
    assert boxes(page) == ["table:sales:insert", "tool:mail.send"]
    seen = words(page)
    assert "Desk wants to do more for you" in seen and "New: it may also, at notes :" in seen
    assert "You have allowed it already Read sales Use the tool read" in seen and "As before: until you end it, or until" in seen
    more = begun(alice, "work tool:read tool:mail.send table:sales:insert", ["tool:mail.send"])
    assert more["scope"] == "work tool:read tool:mail.send" and more["task"] == first["task"]
    assert word(more) == {
        "allow": {"sales": ["select"]}, "columns": {"sales": ["amount"]}, "tools": {"mail.send": {"to": {"in": ["a@b.example"]}}, "read": {}},
    }  # fmt: skip
    trees = {held(one).unverified.root.token_id for one in (first, more)}
    assert len(trees) == 1
    # What it had before is as it was.
    old = alice.refresh(first["refresh_token"]).json()
    assert held(old).unverified.root.token_id in trees and held(begun(Person(alice.origin, "bob"))).unverified.root.token_id not in trees
    assert allows(old, Access(tool="mail.send", arguments={"to": "a@b.example"})) == "tool"
    assert alice.refresh(more["refresh_token"]).json()["scope"] == more["scope"]
    # One task is one entry on her page.
    assert alice.go(f"{alice.origin}/grants").text.count(">End it<") == 1


def test_columns_are_added_to_columns(alice: Person, here: tuple[str, House]) -> None:
    begun(alice)
    here[1].clock.now += 1
    page = alice.page(scope="work table:sales:select:region table:sales:select:amount")
    assert boxes(page) == ["table:sales:select:region"]
    more = begun(alice, "work table:sales:select:region table:sales:select:amount")
    assert word(more)["columns"] == {"sales": ["amount", "region"]} and more["scope"] == "work table:sales:select:region table:sales:select:amount"
    here[1].clock.now += 1
    again = begun(alice, "work table:sales:insert table:market.x:select:a")
    assert word(again) == {
        "allow": {"market.x": ["select"], "sales": ["insert", "select"]}, "columns": {"market.x": ["a"], "sales": ["amount", "region"]}, "tools": {"read": {}},
    }  # fmt: skip


@pytest.mark.parametrize("grant", ["work", "free"])
def test_a_column_has_no_box_where_all_of_them_would_come_with_it(alice: Person, here: tuple[str, House], grant: str) -> None:
    """The specification's rule 44.20. It may add to the whole table; what it asks for later is to read one column."""
    begun(alice, f"{grant} table:sales:insert")
    here[1].clock.now += 1
    asked = f"{grant} table:sales:select:region"
    page = alice.page(scope=asked)
    assert boxes(page) == ["table:sales:select"] and "Read sales" in words(page) and "column region" not in words(page)
    assert ("Within these limits columns amount, note, region of sales" in words(page)) is (grant == "work")
    said = begun(alice, asked)
    assert allows(said, Access(table="sales", operation="select", columns=["amount"])) == "allowed"


def test_what_a_wider_pattern_says_of_columns_is_not_added(alice: Person, here: tuple[str, House]) -> None:
    begun(alice, "free table:*:insert")
    here[1].clock.now += 1
    said = begun(alice, "free table:hr:select:name")
    assert allows(said, Access(table="hr", operation="select", columns=["name"])) == "allowed"
    assert allows(said, Access(table="hr", operation="select", columns=["pay"])) == "column"


def test_it_is_added_to_the_newest_that_lives(alice: Person, here: tuple[str, House]) -> None:
    first = begun(alice)
    here[1].clock.now += 1
    second = begun(alice)
    assert first["task"] != second["task"]
    assert begun(alice, "work tool:mail.x")["task"] == second["task"]
    here[1].registry.end(Ending(now=NOW, task=second["task"]))
    assert begun(alice, "work tool:mail.x")["task"] == first["task"]
    here[1].registry.end(Ending(now=NOW, task=first["task"]))
    page = alice.page(scope="work tool:mail.x")
    assert boxes(page) == ["tool:mail.x"] and "already" not in words(page)


def test_what_it_has_already_is_a_login_as_any_other(alice: Person) -> None:
    """As a second window asks that lost its tokens."""
    first = begun(alice)
    page = alice.page(scope="work tool:read")
    assert boxes(page) == ["tool:read"] and "already" not in words(page)
    assert begun(alice, "work tool:read")["task"] != first["task"]


def test_a_task_ends_when_it_would_have(alice: Person, here: tuple[str, House]) -> None:
    clock = here[1].clock
    begun(alice)
    began = clock.now
    clock.now += 3600
    try:
        asked = Person(alice.origin)
        begun(asked, "work tool:mail.x")
        found = here[1].registry.logins_of("people:alice", clock.now)
        assert {one.until for one in found if one.task == found[0].task} == {began + 7200}
    finally:
        clock.now -= 3600


def test_her_word_is_link_1_beside_a_lease(alice: Person) -> None:
    caveats = held(begun(alice)).unverified._caveats
    assert [bool(vid) for _, vid in caveats] == [False, False, True, False]


def test_nothing_of_it_goes_back_with_an_error(alice: Person) -> None:
    page = alice.page(scope="work tool:purge")
    assert page.status_code == 400 and "gives nothing of what is asked for" in words(page) and "error=invalid_scope" in page.text


def test_she_denies_more_and_keeps_what_there_is(alice: Person) -> None:
    first = begun(alice)
    back = sent_back(alice.send(alice.form(alice.page(scope="work tool:mail.x"), "deny")))
    assert back["error"] == "access_denied" and allows(alice.refresh(first["refresh_token"]).json(), Access(tool="read", arguments={})) == "allowed"
