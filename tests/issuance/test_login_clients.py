"""MCP clients of others, as they are, log a person in and call a guarded tool: nothing in them knows of captoken."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastmcp import Client as FastClient
from fastmcp.client.auth import OAuth
from mcp.client.auth import OAuthClientProvider
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from captoken.cli import issue
from captoken.cli.trial.command import Trial
from tests.adapters.serving import listening, origin_of, served

from .logging_in import APP, Person, _browsers, at_documents, boxes, sent_back
from .office import node

DOCUMENT = {"client_id": APP, "client_name": "App", "redirect_uris": ["http://127.0.0.1/callback"]}
BACK = "http://127.0.0.1:5678/callback"
PAGE = (Path(__file__).parents[2] / "docs" / "mcp-login.md").read_text("utf-8")


@pytest.fixture
def trial() -> Iterator[str]:
    with listening() as one, served(Trial(origin_of(one), at_documents({APP: DOCUMENT})), one, lifespan="on") as origin:
        yield origin
    while _browsers:
        _browsers.pop().close()


class Kept:
    """Where an SDK keeps what it was given."""

    def __init__(self, client: OAuthClientInformationFull | None = None) -> None:
        self.tokens: OAuthToken | None = None
        self.client = client

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def sdk(origin: str, kept: Kept, person: Person, **facts: Any) -> OAuthClientProvider:
    """The provider of MCP's SDK in Python, and a person before the browser that it opens."""
    came: dict[str, str] = {}

    async def redirect(address: str) -> None:
        page = await asyncio.to_thread(person.go, address)
        came.update(sent_back(await asyncio.to_thread(person.send, person.form(page))))

    async def callback() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(code=came["code"], state=came["state"], iss=came["iss"])

    wanted = OAuthClientMetadata(client_name="App", redirect_uris=[BACK], token_endpoint_auth_method="none")  # type: ignore[list-item]
    return OAuthClientProvider(f"{origin}/mcp", wanted, kept, redirect, callback, **facts)


def opening(visit: Callable[[str], None], browsers: list[threading.Thread]) -> Callable[[str], bool]:
    """In place of the browser of a client that goes on while it is open: `visit`, in a thread that is put into `browsers`."""

    def opened(address: str) -> bool:
        browsers.append(threading.Thread(target=visit, args=(address,)))
        browsers[-1].start()
        return True

    return opened


async def called(origin: str, auth: Any, tool: str = "read_note", **arguments: str) -> str:
    async with (
        create_mcp_http_client(auth=auth) as web,
        streamable_http_client(f"{origin}/mcp", http_client=web) as (read, write, *_),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        answer: Any = await session.call_tool(tool, arguments)
        return str(answer.content[0].text)


def test_mcp_sdk_by_its_document(trial: str) -> None:
    """It finds the login by the 401, and is known by the address of its document."""
    kept, person = Kept(), Person(trial)
    try:
        said = asyncio.run(called(trial, sdk(trial, kept, person, client_metadata_url=APP), name="milk"))
        refused = asyncio.run(called(trial, sdk(trial, kept, person, client_metadata_url=APP), "delete_notes"))
    finally:
        person.web.close()
    assert said == "Buy milk." and refused.startswith("Not permitted") and kept.client is not None and kept.client.client_id == APP
    assert kept.tokens is not None and kept.tokens.refresh_token


def test_mcp_sdk_refreshes_what_is_no_good_any_more(trial: str) -> None:
    kept, person = Kept(), Person(trial)
    try:
        assert asyncio.run(called(trial, sdk(trial, kept, person, client_metadata_url=APP), name="milk")) == "Buy milk."
        assert kept.tokens is not None
        first = kept.tokens.refresh_token
        # As after five minutes: what it has is refused with 401, and it has to find out by that.
        kept.tokens = kept.tokens.model_copy(update={"access_token": "cap1_AAAA"})
        assert asyncio.run(called(trial, sdk(trial, kept, person, client_metadata_url=APP), name="milk")) == "Buy milk."
        assert kept.tokens.refresh_token not in (None, first)
    finally:
        person.web.close()


def test_mcp_sdk_steps_up_within_a_session(trial: str) -> None:
    """One click: what she unticked is refused, she is asked for that alone, and the call goes through in the session it began in."""
    kept, person, pages = Kept(), Person(trial), []
    ticked: list[list[str] | None] = [["tool:read_note"], None]

    async def redirect(address: str) -> None:
        page = await asyncio.to_thread(person.go, address)
        pages.append(page)
        came.update(sent_back(await asyncio.to_thread(person.send, person.form(page, rights=ticked.pop(0)))))

    async def callback() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(code=came["code"], state=came["state"], iss=came["iss"])

    came: dict[str, str] = {}
    wanted = OAuthClientMetadata(client_name="App", redirect_uris=[BACK], token_endpoint_auth_method="none")  # type: ignore[list-item]
    auth = OAuthClientProvider(f"{trial}/mcp", wanted, kept, redirect, callback, client_metadata_url=APP)
    calls = [("read_note", {"name": "milk"}), ("write_note", {"name": "draft", "text": "x"}), ("read_note", {"name": "draft"}), ("delete_notes", {})]

    async def run() -> list[str]:
        async with (
            create_mcp_http_client(auth=auth) as web,
            streamable_http_client(f"{trial}/mcp", http_client=web) as (read, write, *_),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            answers: list[Any] = [await session.call_tool(tool, arguments) for tool, arguments in calls]
            return [str(answer.content[0].text) for answer in answers]

    try:
        said = asyncio.run(run())
    finally:
        person.web.close()
    assert said[:3] == ["Buy milk.", "Written: draft", "x"] and said[3].startswith("Not permitted")
    # What no page could allow opened none.
    assert len(pages) == 2 and boxes(pages[1]) == ["tool:write_note"]
    assert "wants to do more for you" in pages[1].text and "You have allowed it already" in pages[1].text
    assert kept.tokens is not None and kept.tokens.scope == "notes tool:write_note"


@pytest.mark.filterwarnings("ignore:Using in-memory token storage:UserWarning")
def test_fastmcps_client_steps_up(trial: str, monkeypatch: pytest.MonkeyPatch) -> None:
    person = Person(trial)
    browsers: list[threading.Thread] = []
    offered: list[list[str]] = []

    def visit(address: str) -> None:
        page = person.go(address)
        offered.append(boxes(page))
        back = person.send(person.form(page, rights=offered[0][:1] if len(offered) == 1 else None))
        assert httpx.get(back.headers["location"]).status_code == 200

    monkeypatch.setattr("webbrowser.open", opening(visit, browsers))

    async def call() -> str:
        auth = OAuth(client_id="inspector", callback_host="127.0.0.1", scopes=["notes"])
        async with FastClient(f"{trial}/mcp", auth=auth) as client:
            # A request that began a login is sent once more, and is not asked about again.
            await client.call_tool("read_note", {"name": "milk"})
            answer: Any = await client.call_tool("write_note", {"name": "draft", "text": "x"})
            return str(answer.content[0].text)

    try:
        assert asyncio.run(call()) == "Written: draft" and offered == [["tool:read_note", "tool:write_note"], ["tool:write_note"]]
    finally:
        for browser in browsers:
            browser.join()
        person.web.close()


@pytest.mark.filterwarnings("ignore:Using in-memory token storage:UserWarning")
def test_fastmcps_client(trial: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a client of the policy. It listens on a port of its own choice, and opens a browser."""
    person = Person(trial)
    browsers: list[threading.Thread] = []

    def visit(address: str) -> None:
        back = person.send(person.form(person.go(address)))
        assert httpx.get(back.headers["location"]).status_code == 200

    monkeypatch.setattr("webbrowser.open", opening(visit, browsers))

    async def call() -> str:
        auth = OAuth(client_id="inspector", callback_host="127.0.0.1", scopes=["notes"])
        async with FastClient(f"{trial}/mcp", auth=auth) as client:
            answer: Any = await client.call_tool("read_note", {"name": "rent"})
            return str(answer.content[0].text)

    try:
        assert asyncio.run(call()) == "The rent is due on the first." and len(browsers) == 1
    finally:
        for browser in browsers:
            browser.join()
        person.web.close()


@pytest.mark.filterwarnings("ignore:Using in-memory token storage:UserWarning")
def test_the_client_of_the_page(trial: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/mcp-login.md, as it stands there."""
    person = Person(trial)
    browsers: list[threading.Thread] = []

    def visit(address: str) -> None:
        httpx.get(person.send(person.form(person.go(address))).headers["location"])

    monkeypatch.setattr("webbrowser.open", opening(visit, browsers))
    (client,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert client.count("\n") <= 16
    try:
        exec(compile(client.replace("http://127.0.0.1:8700", trial), "client.py", "exec"), {"__name__": "__main__"})
    finally:
        for browser in browsers:
            browser.join()
        person.web.close()
    assert capsys.readouterr().out.endswith("Buy milk.\n")


def test_the_command_that_the_trial_names_is_that_of_the_page(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """`captoken issue serve --try` says what comes next, and where."""
    monkeypatch.setattr(issue.serving, "run", lambda server, *, begin, **_: begin())
    issue._serve_trial("127.0.0.1", 8711, as_json=False)
    *_, what, command = capfd.readouterr().err.splitlines()
    assert "Next, in another terminal" in what
    assert command.strip().replace(":8711", ":8700") in " ".join(PAGE.replace("\\\n", " ").split())


@pytest.mark.node
def test_oauth4webapi(trial: str) -> None:
    """A client on Node that checks all that RFC 9207, 7636 and 6749 say."""
    stated = {"issuer": trial, "resource": f"{trial}/mcp", "client": "inspector", "redirect": BACK}
    begun = node("login.mjs", stated)
    person = Person(trial)
    try:
        back = person.send(person.form(person.go(begun["address"]))).headers["location"]
    finally:
        person.web.close()
    said = node("login.mjs", {**stated, **begun, "back": back})
    assert said["scope"] == "notes" and said["token_type"] == "bearer" and said["refreshed"] != said["refresh_token"]
    assert parse_qs(urlsplit(back).query)["iss"] == [trial]


def answering(command: list[str], person: Person, where: str, rights: list[str] | None = None, says: str = "", **more: str) -> str:
    """What a program prints that names an address for a browser, once a person has been there. Its own callback is awaited, or its input."""
    folder = Path(os.environ["CAPTOKEN_MCP_SERVERS"]).resolve()
    environ = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": where, "MCP_AUTO_OPEN_ENABLED": "true", "MCP_INSPECTOR_SECRET_STORE": "memory",
        **more,
    }  # fmt: skip
    with subprocess.Popen(
        command, cwd=folder, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        lines: list[str] = []
        process.stdin.write(says)
        process.stdin.flush()
        try:
            for line in process.stdout:
                lines.append(line)
                found = re.search(r"navigate to: (\S+)", line)
                if found is None:
                    continue
                back = person.send(person.form(person.go(found[1]), rights=rights)).headers["location"]
                if "6276" in back:
                    assert httpx.get(back).status_code == 200
                else:
                    process.stdin.write(sent_back_to(back) + "\n")
                    process.stdin.flush()
            assert process.wait(timeout=30) == 0, "".join(lines)
        finally:
            process.kill()
    return "".join(lines)


def sent_back_to(address: str) -> str:
    return parse_qs(urlsplit(address).query)["code"][0]


@pytest.mark.mcpservers
def test_mcp_inspectors_command_line(trial: str, tmp_path: Path) -> None:
    """As docs/mcp-login.md has it. It listens on a port of its own, and is given the client's name."""
    asked = ["--cli", f"{trial}/mcp", "--client-id", "inspector", "--method", "tools/call", "--tool-name", "read_note", "--tool-arg", "name=milk"]
    said = answering(["node", "node_modules/.bin/mcp-inspector", *asked], Person(trial), str(tmp_path))
    assert json.loads(said[said.index("\n{\n") :])["content"][0]["text"] == "Buy milk."


@pytest.mark.mcpservers
def test_mcp_inspectors_command_line_steps_up(trial: str, tmp_path: Path) -> None:
    """It keeps its tokens in a file. The second call needs what she unticked: it asks whether to, and sends her there."""
    person, where = Person(trial), str(tmp_path)

    def call(tool: str, *arguments: str, **facts: Any) -> str:
        given = [part for one in arguments for part in ("--tool-arg", one)]
        asked = ["--cli", f"{trial}/mcp", "--client-id", "inspector", "--method", "tools/call", "--tool-name", tool, *given]
        said = answering(["node", "node_modules/.bin/mcp-inspector", *asked], person, where, **facts, MCP_INSPECTOR_SECRET_STORE="file")
        return str(json.loads(said[said.index("\n{\n") :])["content"][0]["text"])

    assert call("read_note", "name=milk", rights=["tool:read_note"]) == "Buy milk."
    assert call("write_note", "name=draft", "text=x", says="y\n") == "Written: draft"


TYPESCRIPT = """
import { createInterface } from 'node:readline/promises'
const at = './node_modules/@modelcontextprotocol/sdk/dist/esm/client'
const { Client } = await import(`${process.cwd()}/${at}/index.js`)
const { StreamableHTTPClientTransport } = await import(`${process.cwd()}/${at}/streamableHttp.js`)
const [url, back] = process.argv.slice(1)
let tokens, verifier, address
const provider = {
  redirectUrl: back,
  clientMetadata: { client_name: 'App', redirect_uris: [back], token_endpoint_auth_method: 'none' },
  clientInformation: () => ({ client_id: 'inspector' }),
  tokens: () => tokens,
  saveTokens: (given) => { tokens = given },
  redirectToAuthorization: (given) => { address = given },
  saveCodeVerifier: (given) => { verifier = given },
  codeVerifier: () => verifier,
}
const made = () => new StreamableHTTPClientTransport(new URL(url), { authProvider: provider })
const called = async (transport) => {
  const client = new Client({ name: 'x', version: '1' })
  await client.connect(transport)
  const answer = await client.callTool({ name: 'read_note', arguments: { name: 'milk' } })
  await client.close()
  return answer.content[0].text
}
const first = made()
await called(first).then(() => process.exit(3), () => {})
await new Promise((done) => setTimeout(done, 300)) // it may begin twice, and the last one counts
console.log(`navigate to: ${address}`)
await first.finishAuth(await createInterface({ input: process.stdin }).question(''))
const before = tokens.refresh_token
console.log(await called(made()))
tokens = { ...tokens, access_token: 'cap1_AAAA' }
console.log(await called(made()), tokens.refresh_token !== before)
process.exit(0)
"""


@pytest.mark.mcpservers
def test_the_sdk_in_typescript(trial: str, tmp_path: Path) -> None:
    """It logs in by the 401, and refreshes by a second one."""
    said = answering(["node", "--input-type=module", "-e", TYPESCRIPT, f"{trial}/mcp", BACK], Person(trial), str(tmp_path))
    assert said.splitlines()[-2:] == ["Buy milk.", "Buy milk. true"], said


@pytest.mark.mcpservers
def test_the_older_sdk_in_typescript_does_not_loop(trial: str, tmp_path: Path) -> None:
    """Its provider of 1.x refreshes in place of asking. It is told once more, and gives up: no page opens."""
    person = Person(trial)
    script = TYPESCRIPT.replace("name: 'read_note', arguments: { name: 'milk' }", "name: 'write_note', arguments: { name: 'draft', text: 'x' }")
    caught = script.replace("console.log(await called(made()))", "console.log(await called(made()).catch((error) => `${error.code} ${error.message}`))", 1)
    said = answering(["node", "--input-type=module", "-e", caught.replace("tokens = { ...tokens", "process.exit(0)\ntokens = { ...tokens"), f"{trial}/mcp", BACK], person, str(tmp_path), ["tool:read_note"])
    assert "403" in said and "upscoping" in said and said.count("navigate to") == 1, said
