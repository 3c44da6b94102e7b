"""What a proof is about: every fact of a request counts, and no two lists of facts run together."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from captoken import Access
from captoken import proof as request
from tests.fixtures import data, tool


def digest(purpose: str, *parts: bytes) -> bytes:
    """By hand: the label, then each part behind its length in 8 bytes."""
    spelled = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hashlib.sha256(b"captoken/v1 request " + purpose.encode() + b"\0" + spelled).digest()


def test_a_digest_is_what_the_specification_says() -> None:
    """Method, origin, target and the hash of the body; method, name, arguments; the facts as JSON."""
    body = b'{"amount":5}'
    assert request.http_request("POST", "https://api.example", "/pay?x=1", body) == digest(
        "http", b"POST", b"https://api.example", b"/pay?x=1", hashlib.sha256(body).digest()
    )
    assert request.mcp_request("tools/call", "search", b'{"q":"x"}') == digest("mcp", b"tools/call", b"search", b'{"q":"x"}')
    assert request.mcp_request("tools/call", "größe") == digest("mcp", b"tools/call", "größe".encode(), b"{}")
    assert request.access_request(None) == digest("access")
    assert request.access_request(Access(table="t", operation="select", columns=("b", "a", "b"), attributes={"é": 1})) == digest(
        "access",
        b'{"arguments":null,"attributes":{"\\u00e9":1},"columns":["a","b"],"operation":"select","table":"t","tool":null}',
    )
    assert request.access_request(tool("t", q=[1.5, None, True])) == digest(
        "access", b'{"arguments":{"q":[1.5,null,true]},"attributes":{},"columns":null,"operation":null,"table":null,"tool":"t"}'
    )


def test_a_target_is_text_or_bytes_as_it_travels() -> None:
    """The same for both; undecoded; without a body the empty one."""
    assert request.http_request("GET", "https://api.example", "/a%20b") == request.http_request(
        "GET", "https://api.example", b"/a%20b", b""
    )
    assert request.http_request("GET", "https://api.example", b"/\xff") != request.http_request("GET", "https://api.example", "/%ff")


HTTP: list[tuple[str, str, str, bytes]] = [
    ("GET", "https://api.example", "/a", b""), ("get", "https://api.example", "/a", b""), ("GE", "Thttps://api.example", "/a", b""),
    ("GET", "https://api.example/", "a", b""), ("GET", "https://api.example/a", "", b""), ("", "GEThttps://api.example", "/a", b""),
    ("GET", "https://api.example", "/", b"a"), ("GET", "https://api.example", "/a", b"\0"), ("GET", "https://api.example:443", "/a", b""),
    ("GET", "http://api.example", "/a", b""), ("GET", "https://API.example", "/a", b""), ("GET", "https://api.example", "/a?", b""),
    ("GET", "https://api.example", "//a", b""), ("GET", "https://api.example", "/%61", b""), ("GET", "https://api.example", "/a/", b""),
    ("GET", "https://api.example", "/A", b""), ("GET", "https://api.example", "/a#b", b""), ("GET", "https://api.example", "/./a", b""),
    ("GET", "https://api.example", "/a?x=1&y=2", b""), ("GET", "https://api.example", "/a?y=2&x=1", b""), ("", "", "", b""),
    ("GET", "https://api.example", "/a", hashlib.sha256(b"").digest()), ("GET", "https://api.example", "/a", b"a" * 10**6),
]  # fmt: skip
MCP: list[tuple[str, str, bytes]] = [
    ("tools/call", "search", b"{}"), ("tools/call", "search", b""), ("tools/callsearch", "", b"{}"), ("", "tools/callsearch", b"{}"),
    ("tools/call", "search{}", b""), ("tools/call", "Search", b"{}"), ("tools/list", "search", b"{}"), ("tools/call", "search", b"{ }"),
    ("tools/call", "search", b'{"a":1}'), ("tools/call", "search", b'{"a":1.0}'), ("tools/call", "search\0", b"{}"), ("", "", b""),
]  # fmt: skip
ACCESSES: list[Access | None] = [
    None, Access(), data("t"), data("t", "update"), data("u"), data("t", "select", "a"), data("t", "select", "a", "b"),
    Access(table="t", operation="select", columns=()), data("t", region="eu"), data("t", region="us"), data("t", regio="neu"),
    data("t", region=None), Access(attributes={"region": "eu"}), tool("t"), tool("u"), tool("t.select"), tool("t", q="x"), tool("t", q="y"),
    tool("t", p="x"), tool("t", q="x", p="x"), tool("t", q=1), tool("t", q=1.0), tool("t", q=True), tool("t", q="1"), tool("t", q=[1]),
    tool("t", q={"a": 1}), tool("t", q=[]), tool("t", q={}), tool("t", q=""), tool("t", q=None), tool("t", q=False), tool("t", q=0),
    tool("t", q=0.0), tool("t", q=-0.0), tool("t", q=-1), tool("t", q=[1, 2]), tool("t", q=[2, 1]), tool("t", q=[[1], 2]), tool("t", q="é"),
    tool("t", q="e\u0301"), tool("t", q="\\u00e9"), tool("t", q="\0"), tool("t", q='"'), tool("t", q=2**53), tool("t", q=2**53 + 1),
    tool("t", q=float(2**53)), tool("t", q=1e300), tool("t", q=0.1), tool("t", q=0.1 + 2**-56), Access(tool="t", attributes={"q": "x"}),
    Access(table="t", operation="select", tool="t"), Access(table="t", operation="select", tool="t", arguments={"q": "x"}),
    Access(tool="t", arguments={"a": {"b": 1, "c": 2}}), Access(tool="t", arguments={"a": {"b": 2, "c": 1}}),
]  # fmt: skip


def test_no_two_requests_are_one() -> None:
    """Every fact counts as it is spelled, its type too, and nothing said in one place can be said in another."""
    digests = [request.http_request(*facts) for facts in HTTP] + [request.mcp_request(*facts) for facts in MCP]
    digests += [request.access_request(access) for access in ACCESSES]
    assert len(set(digests)) == len(digests) == len(HTTP) + len(MCP) + len(ACCESSES) and {len(made) for made in digests} == {32}


def test_what_has_no_order_has_none() -> None:
    """Columns are a set, arguments and attributes are objects at every level; the rest is compared as it is."""
    one = Access(
        table="t",
        operation="select",
        columns=["a", "b"],
        tool="x",
        arguments={"p": 1, "q": {"r": 1, "s": 2}},
        attributes={"k": 1, "l": 2},
    )
    same = Access(
        table="t",
        operation="select",
        columns=("b", "a", "a"),
        tool="x",
        arguments={"q": {"s": 2, "r": 1}, "p": 1},
        attributes={"l": 2, "k": 1},
    )
    assert request.access_request(one) == request.access_request(same)
    assert request.access_request(tool("t")) == request.access_request(Access(tool="t", arguments={}))


@pytest.mark.parametrize(
    "call",
    [
        lambda: request.http_request("GÉT", "https://api.example", "/"), lambda: request.http_request("GET", "https://é.example", "/"),
        lambda: request.http_request("GET", "https://api.example", "/é"), lambda: request.http_request("GET", "https://api.example", "/\ud800"),
        lambda: request.mcp_request("tools/call", "\ud800"), lambda: request.mcp_request("\ud800", "search"),
        lambda: request.access_request(tool("t", q=10**5000)), lambda: request.access_request(data("t", n=-(10**5000))),
    ],
)  # fmt: skip
def test_what_cannot_be_spelled_is_a_value_error(call: Any) -> None:
    with pytest.raises(ValueError):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: request.http_request("GET", "https://api.example", "/", "body"), lambda: request.http_request("GET", "https://api.example", "/", None),
        lambda: request.http_request("GET", "https://api.example", 5), lambda: request.http_request("GET", "https://api.example", None),
        lambda: request.http_request(b"GET", "https://api.example", "/"), lambda: request.http_request("GET", b"https://api.example", "/"),
        lambda: request.http_request(None, "https://api.example", "/"), lambda: request.mcp_request("tools/call", "search", "{}"),
        lambda: request.mcp_request("tools/call", "search", {"q": 1}),
    ],
)  # fmt: skip
def test_what_is_of_another_type_is_a_type_error(call: Any) -> None:
    """A method in bytes, a body in text, an access that is none: a mistake of the program's, and never a digest."""
    with pytest.raises(TypeError):
        call()
