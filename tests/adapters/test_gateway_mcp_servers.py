"""MCP servers and clients that nobody here wrote, from npm and PyPI, behind the gateway as they are. `-m mcpservers` runs them.

CAPTOKEN_MCP_SERVERS names a folder with their programs: `npm install` and `pip install` put them there (`.ci/nightly mcp_servers`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time
from typing import Any, NamedTuple

import anyio
import fastmcp
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from captoken import Issuer, Keyring
from tests.issuance.authority import Authority

pytestmark = pytest.mark.mcpservers

HERE = Path(__file__).resolve()


def program(name: str) -> str:
    folder = Path(os.environ["CAPTOKEN_MCP_SERVERS"])
    for place in ("node_modules/.bin", "bin", "older/bin"):
        if (folder / place / name).exists():
            return str(folder / place / name)
    raise FileNotFoundError(name)


class Case(NamedTuple):
    """A server, what a token permits of it, what is listed then, and calls: by tool and arguments, whether they pass."""

    command: list[str]
    tools: dict[str, Any]
    listed: list[str]
    calls: list[tuple[str, dict[str, Any], bool]]


# In each, FOLDER is a folder with the files a.txt and b.txt, which is a repository of git; PAGES is the address at which it is served.
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
    "fetch": Case(
        ["mcp-server-fetch", "--ignore-robots-txt", "--allow-private-ips"],
        {"fetch": {"url": {"in": ["PAGES/a.txt"]}}},
        ["fetch"],
        [
            ("fetch", {"url": "PAGES/a.txt"}, True),
            ("fetch", {"url": "PAGES/b.txt"}, False),
            ("fetch", {"url": "PAGES/../a.txt"}, False),
        ],
    ),
    "sqlite": Case(
        ["mcp-server-sqlite", "--db-path", "FOLDER/data.db"],
        {"list_tables": {}, "create_table": {"query": {"in": ["CREATE TABLE t (name TEXT)"]}}, "read_query": {"query": {"in": ["SELECT name FROM t"]}}},
        ["read_query", "create_table", "list_tables"],
        [
            ("create_table", {"query": "CREATE TABLE t (name TEXT)"}, True),
            ("create_table", {"query": "CREATE TABLE u (name TEXT)"}, False),
            ("list_tables", {}, True),
            ("read_query", {"query": "SELECT name FROM t"}, True),
            ("read_query", {"query": "SELECT * FROM t"}, False),
            ("write_query", {"query": "DROP TABLE t"}, False),
        ],
    ),
}


def lay(folder: Path, name: str, tools: dict[str, Any], more: str = 'mcp = "stdio"') -> dict[str, str]:
    """A keyring, a token and the gateway's file; and the environment of the gateway."""
    keyring = Keyring.generate()
    keyring.save(folder / "keyring.json")
    rules = {f"{name}.{tool}": rule for tool, rule in tools.items()}
    token = Issuer(keyring).mint(subject="user:jane", agent="support", task="returns", audience=name, tools=rules)
    (folder / "held.token").write_text(token.serialize())
    (folder / "gateway.toml").write_text(f'version = 1\n[gateway]\nkeyring = "keyring.json"\nlisten = "127.0.0.1:0"\n[service.{name}]\n{more}\n')
    return {"CAPTOKEN_FILE": str(folder / "held.token"), "PYTHONPATH": str(HERE.parents[2])}


def files_of(folder: Path) -> Path:
    folder.mkdir()
    for file in ("a.txt", "b.txt"):
        (folder / file).write_text(f"text of {file}")
    return folder


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[str]:
    """A server of files, which listens at an address that fetch takes for a page's."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "files"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def held_to(client: Any, case: Case) -> None:
    """What is listed, and what comes of each call."""
    assert [tool.name for tool in (await client.list_tools()).tools] == case.listed
    for tool, arguments, passes in case.calls:
        answer: Any = await client.call_tool(tool, arguments)
        text = answer.content[0].text
        assert answer.is_error is not passes and text.startswith("Not permitted: ") is not passes, (tool, text)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("name", CASES)
def test_a_server_as_it_is_does_what_a_token_permits_and_nothing_else(name: str, mode: Any, tmp_path: Path, pages: str) -> None:
    folder = files_of(tmp_path / "files")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    written = json.dumps(CASES[name]._asdict()).replace("FOLDER", str(folder)).replace("PAGES", pages)
    case = Case(**json.loads(written))
    at = lay(tmp_path, name, case.tools)
    args = ["-m", "captoken", "gateway", "stdio", name, "--file", str(tmp_path / "gateway.toml"), "--", program(case.command[0]), *case.command[1:]]

    async def session() -> None:
        parameters = StdioServerParameters(command=sys.executable, args=args, env=at)
        async with Client(stdio_client(parameters), mode=mode) as client:
            await held_to(client, case)

    anyio.run(session)


# --- clients of others ----------------------------------------------------------------------------

Told = tuple[list[str], list[str]]  # the names of the tools, and the text of each call


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """The gateway over HTTP before a server of files: its address, a token, and the files that are asked for."""
    files = files_of(folder / "files")
    server = json.dumps([program("mcp-server-filesystem"), str(files)])
    tools = {"read_text_file": {"path": {"in": [f"{files}/a.txt"]}}}
    at = lay(folder, "files", tools, f"mcp = {server}")
    command = [sys.executable, "-m", "captoken", "gateway", "run", "--json", str(folder / "gateway.toml")]
    with subprocess.Popen(command, env={**os.environ, **at}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        try:
            yield f"{address}/files/mcp", Path(at["CAPTOKEN_FILE"]).read_text(), [f"{files}/a.txt", f"{files}/b.txt"]
        finally:
            process.terminate()


def printed(*command: str) -> Any:
    # Inspector needs a newer Node than most machines have: one from a wheel.
    path = f"{Path(os.environ['CAPTOKEN_MCP_SERVERS']) / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "PATH": path})
    assert done.returncode == 0 or '"isError": true' in done.stdout, done.stderr
    return json.loads(done.stdout)


def text_of(answer: Any) -> str:
    return str(answer["content"][0]["text"])


def by_inspector(server: list[str], paths: list[str]) -> Told:
    """MCP Inspector's command line: `server` names it."""
    ask = [program("mcp-inspector"), "--cli", *server, "--method"]
    listed = printed(*ask, "tools/list")["tools"]
    return [tool["name"] for tool in listed], [
        text_of(printed(*ask, "tools/call", "--tool-name", "read_text_file", "--tool-arg", f"path={path}")) for path in paths
    ]


def by_typescript(url: str, token: str, paths: list[str]) -> Told:
    """The SDK in TypeScript."""
    sdk = Path(os.environ["CAPTOKEN_MCP_SERVERS"]).resolve() / "node_modules/@modelcontextprotocol/sdk/dist/esm/client"
    script = f"""
    const {{ Client }} = await import({json.dumps(str(sdk / "index.js"))});
    const {{ StreamableHTTPClientTransport }} = await import({json.dumps(str(sdk / "streamableHttp.js"))});
    const [url, token, ...paths] = process.argv.slice(1);
    const client = new Client({{ name: "x", version: "1" }});
    await client.connect(new StreamableHTTPClientTransport(new URL(url), {{ requestInit: {{ headers: {{ Authorization: `Bearer ${{token}}` }} }} }}));
    const names = (await client.listTools()).tools.map((tool) => tool.name);
    const texts = [];
    for (const path of paths) texts.push((await client.callTool({{ name: "read_text_file", arguments: {{ path }} }})).content[0].text);
    await client.close();
    console.log(JSON.stringify([names, texts]));
    """
    names, texts = printed("node", "--input-type=module", "-e", script, "--", url, token, *paths)
    return names, texts


def by_fastmcp(url: str, token: str, paths: list[str]) -> Told:
    """FastMCP's client."""

    async def session() -> Told:
        async with fastmcp.Client(url, auth=token) as client:
            names = [tool.name for tool in await client.list_tools()]
            answers = [await client.call_tool("read_text_file", {"path": path}, raise_on_error=False) for path in paths]
            return names, [answer.content[0].text for answer in answers]

    return anyio.run(session)


def by_pydantic_ai(url: str, token: str, paths: list[str]) -> Told:
    """An agent of pydantic-ai, whose model calls each tool that it sees."""
    names: list[str] = []

    def model(messages: list[Any], info: Any) -> ModelResponse:
        names[:] = [tool.name for tool in info.function_tools]
        if len(messages) > 1:
            return ModelResponse([TextPart("done")])
        return ModelResponse([ToolCallPart("read_text_file", {"path": path}) for path in paths])

    async def session() -> Told:
        toolset = MCPToolset(url, headers={"Authorization": f"Bearer {token}"})
        ran = await Agent(FunctionModel(model), toolsets=[toolset], retries=2).run("read")
        parts = [part for message in ran.all_messages() for part in message.parts if part.part_kind in ("tool-return", "retry-prompt")]
        return names, [str(part.content) for part in parts]

    return anyio.run(session)


def by_langchain(url: str, token: str, paths: list[str]) -> Told:
    """LangChain's adapters, which ask for version 1 of the SDK."""
    script = """
import asyncio, json, sys
from langchain_mcp_adapters.client import MultiServerMCPClient

async def main(url, token, *paths):
    connection = {"url": url, "transport": "streamable_http", "headers": {"Authorization": f"Bearer {token}"}}
    tools = await MultiServerMCPClient({"files": connection}).get_tools()
    said = []
    for path in paths:
        try:
            answer = await tools[0].ainvoke({"path": path})
            said.append(answer if isinstance(answer, str) else answer[0]["text"])
        except Exception as problem:
            said.append(str(problem))
    print(json.dumps([[tool.name for tool in tools], said]))

asyncio.run(main(*sys.argv[1:]))
"""
    names, texts = printed(str(Path(os.environ["CAPTOKEN_MCP_SERVERS"]) / "older/bin/python"), "-c", script, url, token, *paths)
    return names, texts


CLIENTS: dict[str, Callable[[str, str, list[str]], Told]] = {
    "MCP Inspector": lambda url, token, paths: by_inspector([url, "--transport", "http", "--header", f"Authorization: Bearer {token}"], paths),
    "TypeScript SDK": by_typescript,
    "FastMCP": by_fastmcp,
    "pydantic-ai": by_pydantic_ai,
    "LangChain's adapters": by_langchain,
}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_as_it_is_sees_what_is_permitted_and_reads_why_the_rest_is_not(client: str, tmp_path: Path) -> None:
    with serving(tmp_path) as (url, token, paths):
        names, texts = CLIENTS[client](url, token, paths)
    assert names == ["read_text_file"]
    assert "text of a.txt" in texts[0] and "Not permitted: argument `path` of `files.read_text_file`" in texts[1]


def test_a_client_starts_the_server_by_the_settings_that_were_printed(tmp_path: Path) -> None:
    """As they are pasted: in another folder, by MCP Inspector."""
    files = files_of(tmp_path / "files")
    lay(tmp_path, "files", {"read_text_file": {"path": {"in": [f"{files}/a.txt"]}}})
    ask = [sys.executable, "-m", "captoken", "gateway", "config", "claude", "files", "--token-file", "held.token"]
    told = subprocess.run([*ask, "--", program("mcp-server-filesystem"), "./files"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(HERE.parents[2])}, capture_output=True, check=True)
    settings = json.loads(told.stdout)
    settings["mcpServers"]["files"]["env"]["PYTHONPATH"] = str(HERE.parents[2])  # where the package is not installed
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    names, texts = by_inspector(["--config", str(tmp_path / "settings.json"), "--server", "files"], [f"{files}/a.txt", f"{files}/b.txt"])
    assert names == ["read_text_file"] and texts[0] == "text of a.txt" and texts[1].startswith("Not permitted: ")


# --- GitHub's server, which speaks to api.github.com and to nothing else --------------------------

GITHUB_KEY = "ghp_0123456789abcdefghijklmnopqrstuvwxyz"
GITHUB = Case(
    ["mcp-server-github"],
    {"get_issue": {"owner": {"in": ["acme"]}, "repo": {"in": ["shop"]}, "issue_number": {"max": 9}}},
    ["get_issue"],
    [
        ("get_issue", {"owner": "acme", "repo": "shop", "issue_number": 7}, True),
        ("get_issue", {"owner": "acme", "repo": "secrets", "issue_number": 7}, False),
        ("get_issue", {"owner": "acme", "repo": "shop/../secrets", "issue_number": 7}, False),
        ("create_issue", {"owner": "acme", "repo": "shop", "title": "x"}, False),
    ],
)


def test_github_s_server_speaks_to_a_stand_in_in_a_network_of_its_own(tmp_path: Path) -> None:
    """In namespaces of its own api.github.com is this machine, and the certificate is one of an authority that Node is told of."""
    authority = Authority("stand-in.example", now=int(time()))
    shown = authority.svid(dns=["api.github.com"])
    key = shown.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "server.pem").write_bytes(shown.certificate.public_bytes(Encoding.PEM) + key)
    (tmp_path / "root.pem").write_bytes(authority.pem)
    (tmp_path / "hosts").write_text("127.0.0.1 localhost api.github.com\n")
    (tmp_path / "github.key").touch(0o600)
    (tmp_path / "github.key").write_text(GITHUB_KEY)
    credential = '{ from = "file:github.key", as = "variable:GITHUB_PERSONAL_ACCESS_TOKEN" }'
    at = lay(tmp_path, "github", GITHUB.tools, f'mcp = "stdio"\ncredential = {credential}')
    gateway = [sys.executable, "-m", "captoken", "gateway", "stdio", "github", "--file", str(tmp_path / "gateway.toml"), "--pass", "NODE_EXTRA_CA_CERTS"]
    inside = """
    ip link set lo up && mount --bind "$1/hosts" /etc/hosts || exit 99
    "$2" -m tests.adapters.github_stand_in "$1/server.pem" "$1/asked" < "$1/go" &
    shift 2
    exec "$@"
    """
    # The stand-in ends with its input, which this process holds open.
    os.mkfifo(tmp_path / "go")
    args = ["-rnm", "sh", "-c", inside, "sh", str(tmp_path), sys.executable, *gateway, "--", program("mcp-server-github")]
    at |= {"NODE_EXTRA_CA_CERTS": str(tmp_path / "root.pem"), "PATH": os.environ["PATH"]}

    async def session() -> None:
        async with Client(stdio_client(StdioServerParameters(command="unshare", args=args, env=at))) as client:
            await held_to(client, GITHUB)

    go = os.open(tmp_path / "go", os.O_RDWR)
    try:
        anyio.run(session)
    finally:
        os.close(go)
    # One request reached it, with the key that no client had.
    assert (tmp_path / "asked").read_text().splitlines() == [f"GET /repos/acme/shop/issues/7 Bearer {GITHUB_KEY}"]
