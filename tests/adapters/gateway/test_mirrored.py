"""Headers that repeat arguments (`Mcp-Param-*`): made of what was judged, and what cannot be made is not called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captoken.adapters._gateway.mirrored import Mirrored, Unfit
from tests.adapters.test_gateway_mcp import MODERN, Web, call, result, said, web


def asks(header: Any = "Region", kind: Any = "string") -> dict[str, Any]:
    return {"type": kind, "x-mcp-header": header}


def tool(name: str = "query", **properties: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", "properties": properties}}


def known(**properties: Any) -> Mirrored:
    made = Mirrored("tickets")
    made.note("query", tool(**properties))
    return made


# By an argument: what its header says. None is no header.
SPELLED: list[tuple[Any, bytes | None]] = [
    ("eu", b"eu"), ("a b", b"a b"), ("", b"=?base64??="), (" eu", b"=?base64?IGV1?="), ("eu\r\nHost: x", b"=?base64?ZXUNCkhvc3Q6IHg=?="),
    ("ä", b"=?base64?w6Q=?="), ("=?base64?ZXU=?=", b"=?base64?PT9iYXNlNjQ/WlhVPT89?="), (True, b"true"), (False, b"false"),
    (42, b"42"), (-1, b"-1"), (42.0, b"42"), (1.5, b"1.5"), (1e300, b"1e+300"), (None, None), ([], None), ({}, None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "header"), SPELLED, ids=str)
def test_a_header_says_what_the_argument_is(value: Any, header: bytes | None) -> None:
    made = known(place=asks()).headers("query", {"place": value, "other": 1}, ())
    assert made == ([] if header is None else [(b"mcp-param-region", header)])
    if header is not None:  # a client's own, if it says the same
        assert known(place=asks()).headers("query", {"place": value}, [(b"mcp-param-region", header)]) == made


def test_an_argument_in_an_argument_is_repeated_and_one_that_is_not_there_is_not() -> None:
    nested = known(where={"type": "object", "properties": {"place": asks()}}, size=asks("Size", "integer"))
    assert nested.headers("query", {"where": {"place": "eu"}}, ()) == [(b"mcp-param-region", b"eu")]
    assert nested.headers("query", {"where": "eu", "place": "us", "size": 1}, ()) == [(b"mcp-param-size", b"1")]
    # An argument may have the name of the annotation; that is none.
    assert known(**{"x-mcp-header": {"type": "string"}}).headers("query", {"x-mcp-header": "a"}, ()) == []


UNFIT: dict[str, dict[str, Any]] = {
    "no name": {"place": asks("")}, "a name with an end of line": {"place": asks("A\r\nB")}, "a name that is no text": {"place": asks(1)},
    "a name with a colon": {"place": asks("a:b")}, "a number": {"place": asks(kind="number")}, "no type": {"place": asks(kind=None)},
    "several types": {"place": asks(kind=["string", "null"])}, "a header twice": {"place": asks(), "other": asks("REGION")},
    "an item": {"places": {"type": "array", "items": asks()}}, "a choice": {"place": {"anyOf": [asks(), {"type": "string"}]}},
    "in a choice": {"place": {"oneOf": [{"properties": {"x": asks()}}]}},
}  # fmt: skip


@pytest.mark.parametrize("properties", UNFIT.values(), ids=UNFIT)
def test_a_schema_that_asks_for_what_cannot_be_made_is_told_once(properties: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    made = known(**properties)
    made.note("query", tool(**properties))
    assert not made.is_fit("query") and caplog.text.count("the tool 'query' is left out: its schema asks for") == 1
    with pytest.raises(Unfit, match="cannot be called"):
        made.headers("query", {}, ())
    made.note("query", tool(place=asks()))
    assert made.is_fit("query")


def test_a_header_of_no_argument_at_all_is_none() -> None:
    made = Mirrored("tickets")
    made.note("query", {"inputSchema": asks()})
    assert not made.is_fit("query")


@pytest.mark.parametrize(
    ("value", "header"),
    [("eu", b"us"), ("eu", b"EU"), ("eu", b""), ("eu", b"=?base64?dXM=?="), ("eu", b"=?base64?x?="), (1, b"2"), (1, b"1.5"), (True, b"1"), (None, b"eu"), ("1", b"1.0"), ([], b"[]")],
)
def test_what_a_client_repeats_wrongly_is_not_sent(value: Any, header: bytes) -> None:
    with pytest.raises(Unfit, match="does not agree"):
        known(place=asks()).headers("query", {"place": value}, [(b"mcp-param-region", header)])


def test_a_client_repeats_what_the_tool_asks_for_and_nothing_else() -> None:
    made = known(place=asks(), size=asks("Size", "integer"))
    headers = made.headers("query", {"place": "eu", "size": 42.0}, [(b"mcp-param-size", b"42.0"), (b"mcp-param-region", b"=?base64?ZXU=?=")])
    assert sorted(headers) == [(b"mcp-param-region", b"eu"), (b"mcp-param-size", b"42")]
    with pytest.raises(Unfit):
        made.headers("query", {"place": "eu"}, [(b"mcp-param-other", b"eu")])
    made.is_whole = True
    assert made.headers("other", {"place": "eu"}, ()) == []
    with pytest.raises(Unfit):
        made.headers("other", {"place": "eu"}, [(b"mcp-param-region", b"eu")])


def test_of_more_tools_than_are_kept_the_oldest_is_asked_for_again() -> None:
    made = Mirrored("tickets")
    made.is_whole = True
    for number in range(10_001):
        made.note(str(number), {})
    assert not made.is_known("0") and made.is_known("1")


# --- over HTTP ------------------------------------------------------------------------------------


def tickets(world: Web, *pages: list[Any]) -> None:
    """A server with these tools, a page after another."""

    def answer(message: dict[str, Any]) -> list[Any]:
        if message["method"] != "tools/list":
            return [result(message)]
        at = int(message["params"].get("cursor", "0"))
        more = {"nextCursor": str(at + 1)} if at + 1 < len(pages) else {}
        return [result(message, tools=pages[at], **more)]

    world.server.answer = answer


def query(number: int = 1, meta: dict[str, Any] = MODERN, **arguments: Any) -> dict[str, Any]:
    return call("query", number, meta, **arguments)


def params_of(request: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in request["headers"].items() if name.startswith("mcp-param")}


@pytest.mark.parametrize("as_events", [False, True])
def test_the_gateway_repeats_what_it_judged_whatever_the_client_has_sent(as_events: bool, tmp_path: Path) -> None:
    with web(tmp_path) as world:
        world.server.as_events = as_events
        tickets(world, [{"name": 7}, "none", tool("other")], [tool(place=asks(), text={"type": "string"})])
        # It lists by itself what nobody has listed yet, once.
        meta = {**MODERN, "progressToken": 7}
        assert "result" in world.post(query(meta=meta, place="eu", text="secret")).text
        assert "result" in world.post(query(place="us"), Mcp_Param_Region="=?base64?dXM=?=").text
        assert [each["said"]["method"] for each in world.server.requests] == ["tools/list", "tools/list", "tools/call", "tools/call"]
        assert [params_of(each) for each in world.server.requests] == [{}, {}, {"mcp-param-region": "eu"}, {"mcp-param-region": "us"}]
        listed = world.server.requests[1]["said"]["params"]
        assert listed["cursor"] == "1" and listed["_meta"].keys() == MODERN.keys()
        assert "mcp-name" not in world.server.requests[0]["headers"]


def test_a_call_whose_headers_disagree_is_not_sent_and_takes_nothing(tmp_path: Path) -> None:
    with web(tmp_path) as world:
        world.token = world.mint(uses=1)
        tickets(world, [tool(place=asks()), tool("odd", place=asks("a b"))])
        for message, headers in ((query(place="eu"), {"Mcp_Param_Region": "us"}), (query(place="eu"), {"Mcp_Param_Zone": "eu"}), (call("odd", 1, MODERN, place="eu"), {})):
            refused = world.post(message, **headers).json()
            assert refused["error"]["code"] == -32020 and ("agree" in refused["error"]["message"] or "no name" in refused["error"]["message"])
        assert [each["said"]["method"] for each in world.server.requests] == ["tools/list"]
        assert "isError" not in world.post(query(place="eu"), Mcp_Param_Region="eu").json()["result"]
        assert world.post(query(place="eu")).json()["result"]["isError"]  # it has one use


def test_a_tool_whose_headers_cannot_be_made_is_not_listed_in_the_revision_that_has_them(tmp_path: Path) -> None:
    with web(tmp_path) as world:
        tickets(world, [tool(place=asks()), tool("odd", place=asks("a b"))])
        listed = world.post(said("tools/list", _meta=MODERN)).json()["result"]["tools"]
        assert [each["name"] for each in listed] == ["query"]
        # What a client lists is known, too.
        world.post(query(place="eu"))
        assert [each["said"]["method"] for each in world.server.requests] == ["tools/list", "tools/call"]
        world.session = world.open()
        listed = world.post(said("tools/list", 2)).json()["result"]["tools"]
        assert [each["name"] for each in listed] == ["query", "odd"]
        assert "result" in world.post(call("odd", 3, place="eu"), Mcp_Param_Region="x").json() and not params_of(world.server.requests[-1])


def test_a_server_whose_tools_have_changed_is_listed_again(tmp_path: Path) -> None:
    with web(tmp_path) as world:
        tickets(world, [tool()])
        assert "result" in world.post(query(place="eu")).json()
        tickets(world, [tool(place=asks())])
        error: dict[str, Any] = {"message": "a header is missing"}
        tools = world.server.answer
        for code, listings in ((-32602, 1), (-32020, 1), (None, 2)):
            error["code"] = code
            world.server.answer = tools if code is None else lambda message: [{"jsonrpc": "2.0", "id": 1, "error": error}]
            world.server.status = 200 if code is None else 400
            world.post(query(place="eu"))
            assert [each["said"]["method"] for each in world.server.requests].count("tools/list") == listings
        assert params_of(world.server.requests[-1]) == {"mcp-param-region": "eu"}


@pytest.mark.parametrize("how", ["no answer", "a list without an end", "nonsense", "the key"])
def test_where_the_tools_cannot_be_listed_nothing_is_sent_and_nothing_taken(how: str, tmp_path: Path) -> None:
    with web(tmp_path) as world:
        world.token = world.mint(uses=1)
        answers: dict[str, Callable[[dict[str, Any]], list[Any]]] = {
            "no answer": lambda message: [],
            "a list without an end": lambda message: [result(message, tools=[], nextCursor="1")],
            "nonsense": lambda message: [b"{}"],
            "the key": lambda message: [result(message, tools=["sk_files_0123456789abcdef"])],
        }
        world.server.answer = answers[how]
        assert world.post(query(place="eu")).json()["error"]["code"] == 503
        assert {each["said"]["method"] for each in world.server.requests} == {"tools/list"}
        tickets(world, [tool()])
        assert "isError" not in world.post(query(place="eu")).json()["result"]


def test_the_header_of_the_key_has_the_key_alone(tmp_path: Path) -> None:
    with web(tmp_path, place='"header:Mcp-Param-Key"') as world:
        tickets(world, [tool(key=asks("Key"))])
        assert "result" in world.post(query(key="mine")).json()
        assert params_of(world.server.requests[-1]) == {"mcp-param-key": "sk_files_0123456789abcdef"}
