"""MCP servers that nobody here wrote, from npm and PyPI, behind the gateway as they are. `-m mcpservers` runs them.

CAPTOKEN_MCP_SERVERS names a folder with their programs: `npm install` and `pip install` put them there (`.ci/nightly mcp_servers`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from captoken import Issuer, Keyring

pytestmark = pytest.mark.mcpservers

HERE = Path(__file__).resolve()


def program(name: str) -> str:
    folder = Path(os.environ["CAPTOKEN_MCP_SERVERS"])
    for place in ("node_modules/.bin", "bin"):
        if (folder / place / name).exists():
            return str(folder / place / name)
    raise FileNotFoundError(name)


class Case(NamedTuple):
    """A server, what a token permits of it, what is listed then, and calls: by tool and arguments, whether they pass."""

    command: list[str]
    tools: dict[str, Any]
    listed: list[str]
    calls: list[tuple[str, dict[str, Any], bool]]


# In each, FOLDER is a folder with the files a.txt and b.txt, which is a repository of git.
CASES = {
    "filesystem": Case(
        ["mcp-server-filesystem", "FOLDER"],
        {"read_text_file": {"path": {"in": ["FOLDER/a.txt"]}}},
        ["read_text_file"],
        [
            ("read_text_file", {"path": "FOLDER/a.txt"}, True),
            ("read_text_file", {"path": "FOLDER/b.txt"}, False),
            ("read_text_file", {"path": "FOLDER/../a.txt"}, False),
            ("write_file", {"path": "FOLDER/a.txt", "content": ""}, False),
        ],
    ),
    "memory": Case(
        ["mcp-server-memory"],
        {"read_graph": {}},
        ["read_graph"],
        [("read_graph", {}, True), ("create_entities", {"entities": []}, False)],
    ),
    "everything": Case(
        ["mcp-server-everything"],
        {"echo": {}, "get-structured-content": {"location": {"in": ["New York"]}}},
        ["echo", "get-structured-content"],
        [
            ("echo", {"message": "hello"}, True),
            ("get-structured-content", {"location": "New York"}, True),
            ("get-structured-content", {"location": "Chicago"}, False),
            ("get-env", {}, False),
        ],
    ),
    "git": Case(
        ["mcp-server-git"],
        {"git_status": {"repo_path": {"in": ["FOLDER"]}}},
        ["git_status"],
        [
            ("git_status", {"repo_path": "FOLDER"}, True),
            ("git_status", {"repo_path": "FOLDER/."}, False),
            ("git_commit", {"repo_path": "FOLDER", "message": "x"}, False),
        ],
    ),
}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("name", CASES)
def test_a_server_as_it_is_does_what_a_token_permits_and_nothing_else(name: str, mode: Any, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for file in ("a.txt", "b.txt"):
        (folder / file).write_text(f"text of {file}")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    case = CASES[name]
    case = case._replace(**json.loads(json.dumps(case._asdict()).replace("FOLDER", str(folder))))
    keyring = Keyring.generate()
    keyring.save(tmp_path / "keyring.json")
    tools = {f"{name}.{tool}": rule for tool, rule in case.tools.items()}
    token = Issuer(keyring).mint(subject="user:jane", agent="support", task="returns", audience=name, tools=tools)
    (tmp_path / "held.token").write_text(token.serialize())
    (tmp_path / "gateway.toml").write_text(f'version = 1\n[gateway]\nkeyring = "keyring.json"\n[service.{name}]\nmcp = "stdio"\n')
    args = ["-m", "captoken", "gateway", "stdio", name, "--file", str(tmp_path / "gateway.toml"), "--", program(case.command[0]), *case.command[1:]]
    at = {"CAPTOKEN_FILE": str(tmp_path / "held.token"), "PYTHONPATH": str(HERE.parents[2])}

    async def session() -> None:
        parameters = StdioServerParameters(command=sys.executable, args=args, env=at)
        async with Client(stdio_client(parameters), mode=mode) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == case.listed
            for tool, arguments, passes in case.calls:
                answer: Any = await client.call_tool(tool, arguments)
                text = answer.content[0].text
                assert answer.is_error is not passes and text.startswith("Not permitted: ") is not passes, (tool, text)

    anyio.run(session)
