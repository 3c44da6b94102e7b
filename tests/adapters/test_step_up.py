"""Which denials a person can lift, what a client is told of them, and how often she is asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from captoken import Access, Issuer, Keyring, Token, Verifier
from captoken.adapters._step_up import StepUps, steps_of
from captoken.adapters.asgi import CaptokenMiddleware, ask
from captoken.keys import DischargerKey

KEYRING = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1").for_audience("notes")
SAID = {"login:flow": "consent", "policy:grant": "work"}
GIVES: dict[str, Any] = {
    "tools": {"read": {}, "write": {"text": {"max": 5}}, "mail.*": {}},
    "allow": {"sales": ["select", "insert"], "stock": ["select"]},
    "columns": {"sales": ["amount", "region", "note"]},
}
WORD: dict[str, Any] = {"tools": {"read": {}}, "allow": {"sales": ["select"]}, "columns": {"sales": ["amount"]}}


def root(word: dict[str, Any] | None = WORD, ext: dict[str, str] = SAID, **more: Any) -> Token:
    """What the service mints: the grant, and link 1."""
    made = Issuer(KEYRING).mint(subject="people:jane", agent="app", task="work-1", ext=ext, audience="notes", **{**GIVES, **more})
    return made if word is None else made.attenuate(**word)


def scope(token: Token | str, access: Access, *beside: Access, steps: StepUps | None = None) -> str | None:
    text = token if isinstance(token, str) else token.present(audience="notes")
    decision = Verifier(KEYRING, audience="notes").check(text, access)
    assert not decision
    return (steps or StepUps()).scope_for(decision, beside)


def tool(name: str, **arguments: Any) -> Access:
    return Access(tool=name, arguments=arguments)


def select(table: str, *columns: str, operation: str = "select") -> Access:
    return Access(table=table, operation=operation, columns=columns or None)


@pytest.mark.parametrize(
    "access, wanted",
    [
        (tool("write", text=1), "work tool:write"),
        (tool("mail.send"), "work tool:mail.send"),
        (select("stock"), "work table:stock:select"),
        (select("sales", "amount", operation="insert"), "work table:sales:insert"),
        (select("sales", "region", "amount"), "work table:sales:select:amount table:sales:select:region"),
    ],
)
def test_what_her_own_link_alone_refuses_can_be_asked_for(access: Access, wanted: str) -> None:
    """The specification's rule 44.24."""
    assert scope(root(), access) == wanted


def test_all_rights_of_a_request_are_named() -> None:
    assert scope(root(), select("stock"), tool("read"), select("sales", "amount")) == "work tool:read table:sales:select table:stock:select"


@pytest.mark.parametrize(
    "token, access",
    [
        (root(), tool("purge")),  # the policy
        (root(), tool("write", text=9)),  # the policy, in an argument
        (root(), select("hr")),
        (root(), select("sales", "salary")),
        (root(), select("stock", operation="delete")),
        (root(), select("sales")),  # no columns are stated: that is for the caller to mend
        (root().attenuate(tools={"read": {}}), tool("write", text=1)),  # somebody narrowed it
        (root().attenuate(tools={"read": {}}).attenuate(expires_in=60), tool("write", text=1)),
        (root().attenuate(task="work-1/part"), tool("write", text=1)),
        (root().delegate(to="helper", task="work-1"), tool("write", text=1)),  # it was handed on
        (root(ext={"policy:grant": "work"}), tool("write", text=1)),  # nobody logged in for it
        (root(ext={**SAID, "login:flow": "other"}), tool("write", text=1)),
        (root(None).attenuate(expires_in=60).attenuate(tools={"read": {}}), tool("write", text=1)),  # link 2
        (root({**WORD, "where": {"region": {"in": ["eu"]}}}), tool("write", text=1)),  # no word of a page's
        (root(None).require(DischargerKey.generate().public, need={"x": 1}).attenuate(**WORD), tool("write", text=1)),
        (root(uses=5), tool("write", text=1)),  # it is given once in a task
        (root(budget={"usd": 5}), Access(tool="write", arguments={"text": 1}, cost={"usd": 1})),
    ],
)  # fmt: skip
def test_what_anybody_else_refuses_is_final(token: Token, access: Access) -> None:
    """The specification's rule 44.24."""
    assert scope(token, access) is None


def test_a_token_that_is_no_good_asks_for_nothing() -> None:
    decision = Verifier(KEYRING, audience="notes").check("cap1_AAAA", tool("write", text=1))
    assert StepUps().scope_for(decision) is None
    late = Verifier(KEYRING, audience="notes", clock=lambda: 4_000_000_000).check(root().serialize(), tool("write", text=1))
    assert late.code == "expired" and StepUps().scope_for(late) is None


def test_what_does_not_fit_into_a_header_is_final() -> None:
    wide = root({"tools": {"read": {}}}, tools={"*": {}, "read": {}})
    assert scope(wide, tool("x" * 200)) is not None
    assert scope(wide, tool("é" * 120)) is None and scope(wide, tool("é" * 60)) is not None
    assert scope(wide, tool("a"), *(tool(f"t{number}") for number in range(32))) is None


def test_a_task_asks_three_times_a_minute() -> None:
    """The specification's rule 44.24: by task, whatever it asks for, and each its own."""
    now = [100.0]
    steps = StepUps(lambda: now[0])
    text = root().present(audience="notes")
    assert [scope(text, tool(name), steps=steps) for name in ("mail.a", "mail.b", "mail.c", "mail.d")] == [
        "work tool:mail.a", "work tool:mail.b", "work tool:mail.c", None,
    ]  # fmt: skip
    now[0] += 59.9
    assert scope(text, tool("mail.a"), steps=steps) is None
    now[0] += 0.2
    assert scope(text, tool("mail.a"), steps=steps) is not None
    # What is final does not count.
    for _ in range(9):
        assert scope(text, tool("purge"), steps=steps) is None
    assert scope(text, tool("mail.a"), steps=steps) is not None


def test_what_is_kept_of_tasks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captoken.adapters._step_up._MOST_TASKS", 2)
    steps = StepUps()
    for task in ("a", "b", "c"):
        made = Issuer(KEYRING).mint(subject="people:jane", agent="app", task=task, ext=SAID, audience="notes", **GIVES).attenuate(**WORD)
        assert scope(made, tool("mail.x"), steps=steps) is not None
    assert [task for _, task in steps._asked] == ["b", "c"]


def test_a_guard_that_steps_up_says_whom_to_ask() -> None:
    assert steps_of(False, None) is None and steps_of("yes", None) is None  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="resource_metadata"):
        CaptokenMiddleware(lambda *_: None, Verifier(KEYRING, audience="notes"), origin="https://notes.example", step_up=True)  # type: ignore[arg-type, return-value]


# --- over HTTP --------------------------------------------------------------------------------------------------------


def answered(access: Callable[[], list[Access]], token: str, **facts: Any) -> tuple[int, str, bytes]:
    """What a guard of HTTP answers where an application asks for these: status, challenge and body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for one in access():
            await ask(scope, one)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    known = {"origin": "https://notes.example", "resource_metadata": {"authorization_servers": ["https://issuer.example"]}, "step_up": True}
    guard = CaptokenMiddleware(app, Verifier(KEYRING, audience="notes"), **{**known, **facts})
    came: list[Any] = []

    async def send(message: Any) -> None:
        came.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    asked = {
        "type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": [(b"authorization", b"Bearer " + token.encode())],
    }  # fmt: skip
    asyncio.run(guard(asked, receive, send))
    headers = dict(came[0]["headers"])
    return came[0]["status"], headers.get(b"www-authenticate", b"").decode(), came[1]["body"]


def test_a_client_is_told_over_http_what_to_ask_for() -> None:
    text = root().present(audience="notes")
    status, challenge, body = answered(lambda: [tool("read"), tool("mail.send")], text)
    assert status == 403 and b'"scope": "work tool:read tool:mail.send"' in body
    assert re.search(r'error="insufficient_scope", error_description="[^"]*", scope="work tool:read tool:mail.send"$', challenge)
    assert 'resource_metadata="https://notes.example/.well-known/oauth-protected-resource"' in challenge
    assert answered(lambda: [tool("read")], text)[0] == 200


def test_what_is_final_over_http_sends_no_client_to_a_login() -> None:
    """Clients take `insufficient_scope` for an invitation, whatever stands beside it."""
    text = root().present(audience="notes")
    status, challenge, body = answered(lambda: [tool("purge")], text)
    assert status == 403 and "error" not in challenge and b'"scope"' not in body and b'"code": "tool"' in body
    plain = answered(lambda: [tool("mail.send")], text, step_up=False)
    assert 'error="insufficient_scope"' in plain[1] and "scope=" not in plain[1].replace("insufficient_scope", "")
    assert 'error="invalid_token"' in answered(lambda: [tool("mail.send")], "cap1_AAAA")[1]
