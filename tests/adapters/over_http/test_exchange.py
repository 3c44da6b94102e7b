"""One exchange: bodies are bounded and not waited for, and a denial is what is answered."""

from __future__ import annotations

import asyncio
import socket
from time import time
from typing import Any

import pytest

from captoken import Access, Verifier, current
from captoken.control import Operator, Overlay
from captoken.keys import OperatorKey
from captoken.stores.memory import MemoryReplayStore, MemorySnapshots
from tests.adapters.over_http.test_asgi import (
    A_PROOF,
    BOUND,
    FORGED,
    HELD,
    KEYRING,
    SERVICE,
    bearer,
    in_process,
    is_refusal,
    proven,
    text,
)
from tests.adapters.serving import exchange, replies, send


def test_a_body_that_is_too_long_is_not_read_to_its_end(origin: str) -> None:
    is_refusal(send(origin, "/echo", proven("/echo", "POST", b"x" * 5001), method="POST", body=b"x" * 5001), 413)
    assert len(send(origin, "/echo", bearer(), method="POST", body=b"x" * 100_000).body) == 100_000  # nobody else's is held


def test_a_strangers_body_is_not_waited_for(origin: str) -> None:
    """One who has no genuine token cannot make the server hold a body: the answer comes with most of it outstanding."""
    lines = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\nConnection: close\r\n{}\r\n\r\nx"
    answered = exchange(origin, lines.format(f"Authorization: Bearer {FORGED}.{A_PROOF}").encode())
    is_refusal(replies(answered)[0], 401)


def dead() -> dict[str, tuple[str, Verifier]]:
    """Tokens that are no good but for their signature, each with a verifier that says so."""
    key, store = OperatorKey.generate(), MemorySnapshots()
    operator = Operator(key, store, by="ops@example")
    operator.renew()
    operator.revoke(token=BOUND.token_id, why="lost")
    operator.revoke(token=HELD.token_id, why="lost")
    replays = MemoryReplayStore(floor=0)
    overlaid = Verifier(
        KEYRING, audience="sales-api", replays=replays, overlay=lambda: Overlay.open(store.load(), [key.public])
    )
    late = Verifier(KEYRING, audience="sales-api", replays=replays, clock=lambda: time() + 10_000)
    plain = Verifier(KEYRING, audience="sales-api", replays=replays)
    return {
        "forged": (FORGED, plain),
        "revoked": (text(BOUND), overlaid),
        "revoked, bound to no key": (text(), overlaid),
        "expired": (text(BOUND), late),
        "for another server": (BOUND.present(audience="hr-api"), plain),
        "bound to no key": (text(), plain),
    }


@pytest.mark.parametrize("kind", dead())
def test_a_dead_token_holds_no_body_and_is_answered_like_a_forged_one(kind: str) -> None:
    """Neither by what is waited for nor by what is told apart: a body that is too long is 413 to good tokens alone."""
    token, verifier = dead()[kind]
    headers = [(b"authorization", f"Bearer {token}.{A_PROOF}".encode())]
    for size in (1, 60):
        pieces = [{"type": "http.request", "body": b"x" * size, "more_body": True}]  # and nothing after it
        start, body = in_process("/echo", scope={"headers": headers}, verifier=verifier, coming=pieces, max_body=100)
        assert start["status"] == 401 and (kind not in ("forged", "revoked") or b"was not accepted" in body["body"])
    assert SERVICE.reached == []


@pytest.mark.parametrize("raising", [False, True])
def test_an_error_page_that_hides_a_denial_is_not_what_is_answered(raising: bool) -> None:
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        try:
            current.grant().authorize(Access(table="hr" if raising else "sales", operation="select"))
        finally:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"<h1>why</h1>"})

    start, body = in_process("/sales", app=mounted)
    assert (start["status"], b"why" in body["body"]) == ((403, False) if raising else (500, True))


def test_hints_ahead_of_a_response_do_not_begin_it() -> None:
    async def hinting(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        current.grant().authorize(Access(table="hr", operation="select"))

    assert in_process("/hr", app=hinting)[1]["status"] == 403


def test_denials_in_a_group_are_a_denial_and_a_fault_among_them_is_none() -> None:
    async def grouped(scope: Any, receive: Any, send: Any) -> None:
        async def look(table: str) -> None:
            if table == "fault":
                raise LookupError(table)
            current.grant().authorize(Access(table=table, operation="select"))

        async with asyncio.TaskGroup() as group:
            for table in scope["path"].strip("/").split("/"):
                group.create_task(look(table))

    assert in_process("/sales/hr/salaries", app=grouped)[0]["status"] == 403
    with pytest.raises(ExceptionGroup):
        in_process("/hr/fault", app=grouped)


def test_a_client_that_goes_in_the_middle_of_its_body_reaches_nothing(origin: str) -> None:
    lines = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n{}\r\n\r\nx"
    host, _, port = origin.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(lines.format(proven("/echo", "POST", b"x")).encode())
    assert send(origin, "/sales", bearer()).status == 200
    assert SERVICE.reached == ["/sales"]
