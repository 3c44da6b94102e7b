"""What an MCP server lists, asked by the gateway itself: started or elsewhere, by pages, in either revision; and what is no list."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from captoken.adapters._gateway.inquiry import listed
from captoken.adapters._gateway.upstream import Broken, Unreachable
from captoken.adapters.gateway import configured
from tests.adapters.serving import listening, served
from tests.adapters.test_gateway_mcp import KEY, MODERN

OPENED = {"result": {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}}
NO_METHOD = {"error": {"code": -32601, "message": "no"}}


class Elsewhere:
    """A server over HTTP: what it answers, by the method and how often it was asked; and what it was asked."""

    def __init__(self, **answers: list[dict[str, Any]]) -> None:
        self.answers = {"initialize": [OPENED], **answers}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.keys: set[bytes] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = json.loads((await receive())["body"])
        self.keys.add(dict(scope["headers"])[b"authorization"])
        said = self.answers.get(body["method"], [{}])
        answer = said[min(len([1 for method, _ in self.asked if method == body["method"]]), len(said) - 1)]
        self.asked.append((body["method"], body["params"]))
        out = json.dumps({"jsonrpc": "2.0", "id": body.get("id"), **answer}).encode() if "id" in body else b""
        await send({"type": "http.response.start", "status": 200 if out else 202, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": out})


def page(*names: Any, cursor: Any = None) -> dict[str, Any]:
    return {"result": {"tools": [{"name": name} for name in names], **({} if cursor is None else {"nextCursor": cursor})}}


def ask(folder: Path, mcp: str, command: tuple[str, ...] = (), place: str = "bearer") -> list[str]:
    (folder / "key").touch(0o600)
    (folder / "key").write_text(KEY)
    text = f'version = 1\n[gateway]\nkeyring = "k"\n[service.files]\nmcp = {mcp}\ncredential = {{ from = "file:key", as = "{place}" }}\n'
    (folder / "gateway.toml").write_text(text)
    service = configured(str(folder / "gateway.toml")).mcp["files"]
    return [tool["name"] for tool in asyncio.run(listed(service, command, timeout=20))]


def test_a_server_elsewhere_is_asked_page_by_page_with_its_key(tmp_path: Path) -> None:
    server = Elsewhere(**{"tools/list": [page("read", "read", 7, cursor="2"), page("write")]})
    with served(server, listening()) as url:
        assert ask(tmp_path, f'"{url}/mcp"') == ["read", "write"]
    assert server.keys == {f"Bearer {KEY}".encode()}
    assert [method for method, _ in server.asked] == ["initialize", "notifications/initialized", "tools/list", "tools/list"]
    assert server.asked[-1][1] == {"cursor": "2"}


def test_a_server_without_a_handshake_is_asked_in_the_newest_revision(tmp_path: Path) -> None:
    server = Elsewhere(initialize=[NO_METHOD], **{"tools/list": [page("read")]})
    with served(server, listening()) as url:
        assert ask(tmp_path, f'"{url}/mcp"') == ["read"]
    method, params = server.asked[-1]
    assert method == "tools/list" and MODERN.keys() <= params["_meta"].keys()


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([NO_METHOD], "does not list"),
        ([page("read", cursor="again")], "no end"),
        ([{"result": {"tools": [{"name": KEY}]}}], "not passed on"),
        ([{"method": "ping"}], "did not answer"),
    ],
    ids=["an error", "pages without an end", "its key", "no answer"],
)
def test_what_is_no_list_is_told(answers: list[dict[str, Any]], says: str, tmp_path: Path) -> None:
    with served(Elsewhere(**{"tools/list": answers}), listening()) as url, pytest.raises(Broken, match=says):
        ask(tmp_path, f'"{url}/mcp"')


def test_a_list_that_is_none_is_empty(tmp_path: Path) -> None:
    with served(Elsewhere(**{"tools/list": [{"result": {"tools": {"name": "read"}}}]}), listening()) as url:
        assert ask(tmp_path, f'"{url}/mcp"') == []


SERVER = """
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    result = {"protocolVersion": "2025-11-25"} if asked["method"] == "initialize" else {"tools": [{"name": os.environ["FILES_KEY"][:3]}]}
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


def test_a_server_that_is_started_has_its_key_and_ends(tmp_path: Path) -> None:
    assert ask(tmp_path, '"stdio"', (sys.executable, "-c", SERVER), "variable:FILES_KEY") == [KEY[:3]]
    with pytest.raises((Broken, Unreachable)):
        ask(tmp_path, '"stdio"', (sys.executable, "-c", ""), "variable:FILES_KEY")
