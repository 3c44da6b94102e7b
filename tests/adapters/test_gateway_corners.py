"""The gateway where two things meet: names in two places, answers behind answers, keys of any characters, descriptions that mislead.

Each is a class: a request, an answer or a file by which something else is sent or told than was judged.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from captoken.adapters._gateway import upstream
from captoken.adapters._gateway.credentials import checked
from captoken.adapters._gateway.described import described
from captoken.adapters._gateway.operations import FORM, JSON, Operation, Table, made
from captoken.adapters._gateway.reading import Asked, HeaderRules, Reading
from captoken.adapters._gateway.seeking import Seeker, Told, spellings_of
from captoken.adapters._gateway.shapes import ANY, Listed, Members, Scalar
from captoken.adapters._gateway.upstream import Upstream
from captoken.adapters._gateway.written import Outgoing
from captoken.adapters._http.exchange import RequestError
from tests.adapters.serving import accepting
from tests.adapters.test_gateway import gateway

AMOUNT = Members({"amount": Scalar("integer"), "n": Scalar("number"), "m": ANY}, more=True)


def asked(operation: dict[str, Any], query: bytes = b"", body: bytes = b"", kind: str = "", **headers: str) -> Asked:
    """What a request of one operation asks for. Raises RequestError."""
    rules = HeaderRules.of("shop", {"Shop-Account": "argument", "Shop-Version": "1"}, ())
    reading = Reading(Table([made(Operation(tool="shop.a", method="POST", template=("a",), **operation))]), rules, [])
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if kind:
        sent.append((b"content-type", kind.encode()))
    return reading.complete(reading.begin("POST", b"/a", sent), query, body)


# --- one argument, two values ---------------------------------------------------------------------

TWICE: dict[str, Any] = {
    "header of the service and query": ({"query": Members({}, more=True)}, {"query": b"Shop-Account=evil", "shop_account": "good"}),
    "header of the operation and query": ({"query": Members({}, more=True), "headers": {"x-a": "X-A"}}, {"query": b"X-A=evil", "x_a": "good"}),
    "query and a body that is a list": ({"query": Members({"body": Scalar("string")}), "body": {JSON: Listed(Scalar("string"))}}, {"query": b"body=evil", "body": b'["good"]', "kind": JSON}),
    "query and a body that is null": ({"query": Members({"body": Scalar("string")}), "body": {JSON: AMOUNT}}, {"query": b"body=evil", "body": b"null", "kind": JSON}),
    "query and the size of an opaque body": ({"query": Members({"body": Members({"size": Scalar("integer")})}), "opaque": ("text/plain",)}, {"query": b"body[size]=99", "body": b"a", "kind": "text/plain"}),
    "query and form": ({"query": Members({}, more=True), "body": {FORM: AMOUNT}}, {"query": b"amount=1", "body": b"amount=2", "kind": FORM}),
}


@pytest.mark.parametrize("where", TWICE)
def test_no_value_takes_the_place_of_another_one(where: str) -> None:
    """Two values by one name: the one that is judged is not the one that is sent."""
    operation, request = TWICE[where]
    with pytest.raises(RequestError, match="one name"):
        asked(operation, **request)
    assert asked(operation, **request | {"query": b""}).outgoing.query == ""


# --- headers --------------------------------------------------------------------------------------


def test_what_the_file_fixes_no_operation_takes_from_a_client() -> None:
    out = asked({"headers": {"shop-version": "Shop-Version"}}, shop_version="2").outgoing
    assert out.headers == [(b"shop-version", b"1")]


def test_a_user_agent_that_is_cut_is_a_header_still() -> None:
    from captoken._language.bounds import USER_AGENT_CHARS

    sent = asked({}, user_agent="a" * (USER_AGENT_CHARS - 1) + " b").outgoing.headers
    assert sent[0] == (b"user-agent", b"a" * (USER_AGENT_CHARS - 1))


# --- descriptions ---------------------------------------------------------------------------------


def test_a_list_in_one_field_is_left_out() -> None:
    """`a=1,2` would be judged as a list of one text, and read as two."""
    parameters = [{"name": "ids", "in": "query", "explode": False, "schema": {"type": "array", "items": {"type": "string"}}}]
    document = {"paths": {"/a": {"get": {"operationId": "a", "parameters": parameters}}}}
    found, left_out = described(document, "s", "repeat")
    assert not found and "ids" in left_out["GET /a"]
    parameters[0]["explode"] = True
    assert described(document, "s", "repeat")[0][0].query == Members({"ids": Listed(Scalar("string"))})
    parameters[0] |= {"explode": False, "schema": {"type": "string"}}
    assert described(document, "s", "repeat")[0][0].query == Members({"ids": Scalar("string")})


# --- answers --------------------------------------------------------------------------------------


@contextmanager
def saying(*answers: bytes | tuple[bytes, ...]) -> Generator[str]:
    """A service that says the next of these to each request, in its parts, on connections that stay open."""
    left = list(answers)

    def answer(connection: socket.socket) -> None:
        while connection.recv(65536) and left:
            said = left.pop(0)
            for part in (said,) if isinstance(said, bytes) else said:
                connection.sendall(part)
                time.sleep(0.1)

    with accepting(answer) as origin:
        yield origin


HIDDEN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden"
BEHIND = {
    "a body to HEAD": b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n" + HIDDEN,
    "a body of 204": b"HTTP/1.1 204 No\r\n\r\n" + HIDDEN,
    "a second answer": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + HIDDEN,
    "chunks with more behind them": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("how", BEHIND)
def test_what_stands_behind_an_answer_is_nobodys_answer(tmp_path: Path, how: str, late: bool) -> None:
    """It would be the answer to the next request, which another agent may have sent."""
    first = BEHIND[how]
    cut = len(first) - len(HIDDEN) if late else len(first)
    own = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown"
    with saying((first[:cut], first[cut:]), own) as url, gateway(tmp_path, url=url) as world:
        token = world.token().present(audience="payments")
        with world.client(token) as client:
            head = client.request("HEAD" if "HEAD" in how else "GET", "/payments/v1/refunds/re_1")
            time.sleep(0.3)
            assert b"hidden" not in head.content and client.get("/payments/v1/refunds/re_2").text == "own"


@pytest.mark.parametrize("polls", [False, True])
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("what", [HIDDEN, b"", None])
def test_a_connection_on_which_something_came_meanwhile_is_not_used_again(what: bytes | None, seen: bool, polls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the event loop has been too busy to see it, and on systems that cannot be asked; b"" is its end."""
    if not polls:
        monkeypatch.setattr(upstream, "select", SimpleNamespace())
    own = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown"

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(own)
        time.sleep(0.1)
        if what is not None:
            connection.sendall(what) if what else connection.shutdown(socket.SHUT_RDWR)
            time.sleep(0.5)
        connection.recv(65536)

    async def again(url: str) -> bool:
        made = Upstream(url, timeout=5)
        connection = await made.connect()
        answered = await connection.send(Outgoing("GET", "/", "", [], b""))
        assert [piece async for piece in answered.pieces] == [b"own"] and connection.is_whole
        connection.release()
        await asyncio.sleep(0.3) if seen else time.sleep(0.3)
        other = await made.connect()
        other.close()
        return other is connection

    with accepting(answer) as url:
        assert asyncio.run(again(url)) is (what is None)


def _compressed(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body


NONE = {
    "a status that is none": b"HTTP/1.1 999 No\r\nContent-Length: 2\r\n\r\nok",
    "two compressed texts": _compressed(gzip.compress(b"one") + gzip.compress(b"two")),
    "more behind what is compressed": _compressed(gzip.compress(b"one") + b"two"),
}


@pytest.mark.parametrize("how", NONE)
def test_an_answer_that_no_reader_reads_alike_is_502(tmp_path: Path, how: str) -> None:
    with saying(NONE[how]) as url, gateway(tmp_path, url=url) as world, world.client(world.token().present(audience="payments")) as client:
        with suppress(Exception):  # it may have begun
            answer = client.get("/payments/v1/refunds/re_1")
            assert answer.status_code == 502
            return
        assert how != "a status that is none"


def test_an_address_below_that_of_the_service_leads_back_here(tmp_path: Path) -> None:
    places = ["/base/v1/refunds/re_2", "/elsewhere", "/baseless/x"]
    answers = [f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode() for place in places]
    with saying(*answers) as url, gateway(tmp_path, url=f"{url}/base/") as world, world.client(world.token().present(audience="payments")) as client:
        told = [client.get("/payments/v1/refunds/re_1").headers["location"] for _ in places]
        assert told == ["/payments/v1/refunds/re_2", "/elsewhere", "/baseless/x"]


@pytest.mark.parametrize("key", ['sk"live\\with"all\\of/them', "\\" * 20, '"' * 20, "sk_live\\u0041\\n_and_more", "a b%20c%25d+e&f=g;h"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_key_of_any_characters_is_found_in_json(key: str, size: int) -> None:
    text = b'{"said": ' + json.dumps(key).encode() + b"}"
    seeker = Seeker(spellings_of(checked(key)))
    sent = b""
    with pytest.raises(Told):
        for at in range(0, len(text), size):
            sent += seeker.feed(text[at : at + size])
    assert text.startswith(sent) and len(sent) <= 11
