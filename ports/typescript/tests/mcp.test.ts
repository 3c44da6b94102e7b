/** MCP across the two libraries: what the one mints and narrows, a server of the other takes. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

import { HolderKey, Issuer, Keyring, Token, mcpMessageRequest } from "../src/index.js";
import { ENVIRONMENT, PYTHON, REPOSITORY, missing } from "./python.js";

const SERVER = fileURLToPath(new URL("../examples/mcp.js", import.meta.url));
const KEY = "io.captoken/token";

async function withServer(
  command: string,
  args: readonly string[],
  keyring: Keyring,
  ask: (client: Client) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "captoken-"));
  const file = join(folder, "keyring.json");
  writeFileSync(file, keyring.serialize(), { mode: 0o600 });
  const client = new Client({ name: "test", version: "1.0.0" });
  try {
    const env = { ...ENVIRONMENT, CAPTOKEN_KEYRING_FILE: file };
    await client.connect(new StdioClientTransport({ command, args: [...args], env }));
    await ask(client);
  } finally {
    await client.close();
    rmSync(folder, { recursive: true });
  }
}

interface Called {
  readonly isError?: boolean;
  readonly content: readonly { readonly text: string }[];
}

async function call(client: Client, text: string, name: string, args: object): Promise<Called> {
  const params = { name, arguments: { ...args }, _meta: { [KEY]: text } };
  return (await client.callTool(params)) as unknown as Called;
}

const MINTED_IN_PYTHON = `
import sys
from captoken import Issuer, Keyring
root = Issuer(Keyring.load(sys.argv[1])).mint(
    subject="user:jane", agent="orchestrator", task="task-123",
    tools={"read": {"path": {"path": ["/reports"]}}, "whoami": {}}, expires_in=600)
child = root.delegate(
    to="reader", tools={"read": {"path": {"path": ["/reports/2025"]}}, "whoami": {}})
print(child.present(audience="files-mcp"))
`;

function mintedInPython(keyring: Keyring): string {
  const folder = mkdtempSync(join(tmpdir(), "captoken-"));
  try {
    const file = join(folder, "keyring.json");
    writeFileSync(file, keyring.serialize(), { mode: 0o600 });
    const given = ["-c", MINTED_IN_PYTHON, file];
    return execFileSync(PYTHON, given, { env: ENVIRONMENT, encoding: "utf8" }).trim();
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test(
  "a server in TypeScript takes a token that Python minted and narrowed",
  { skip: missing("mcp") },
  async () => {
    const keyring = Keyring.generate();
    const text = mintedInPython(keyring);
    await withServer(process.execPath, [SERVER], keyring, async (client) => {
      const read = await call(client, text, "read", { path: "/reports/2025/q3" });
      assert.deepEqual(read.content, [{ type: "text", text: "what stands in /reports/2025/q3" }]);
      const who = await call(client, text, "whoami", {});
      assert.equal(who.content[0]!.text, "reader for user:jane, in task-123");
      const beyond = await call(client, text, "read", { path: "/reports/2024" });
      assert.equal(beyond.isError, true);
      assert.match(beyond.content[0]!.text, /^Not permitted: this tool with these arguments/);
      await assert.rejects(call(client, "", "whoami", {}), { code: 401 });
      const forged = `${text.slice(0, -1)}${text.endsWith("A") ? "Q" : "A"}`;
      await assert.rejects(call(client, forged, "whoami", {}), { code: 401 });
    });
  },
);

test("a token that is bound to a key brings a proof for the message, and once", async () => {
  const keyring = Keyring.generate();
  const signer = HolderKey.generate();
  const token = new Issuer(keyring).mint({
    subject: "user:jane",
    agent: "reader",
    task: "task-123",
    tools: { "*": {} },
    key: signer.public,
  });
  await withServer(process.execPath, [SERVER], keyring, async (client) => {
    const message = { name: "read", arguments: { path: "/a" } };
    const request = mcpMessageRequest("tools/call", message);
    // The floor of a store that is new lies a few seconds ahead: what was made before is refused.
    const clock = (): number => Date.now() / 1000 + 5;
    const held = Token.parse(token.serialize(), { clock });
    await new Promise((resolve) => setTimeout(resolve, 1100));
    const text = held.present({ audience: "files-mcp", signer, request });
    assert.deepEqual((await call(client, text, "read", { path: "/a" })).content, [
      { type: "text", text: "what stands in /a" },
    ]);
    await assert.rejects(call(client, text, "read", { path: "/a" }), { code: 401 }, "used before");
    const again = held.present({ audience: "files-mcp", signer, request });
    await assert.rejects(call(client, again, "read", { path: "/b" }), { code: 401 }, "another one");
  });
});

test(
  "a server in Python takes a token that TypeScript minted and narrowed",
  { skip: missing("mcp") },
  async () => {
    const keyring = Keyring.generate();
    const text = new Issuer(keyring)
      .mint({
        subject: "user:jane",
        agent: "orchestrator",
        task: "task-123",
        tools: { "*": {} },
        tables: ["sales"],
        operations: ["select"],
      })
      .delegate({
        to: "clerk",
        keep: "tables",
        tools: { refund: { order: { any: true }, cents: { max: 500 } }, query: {} },
      })
      .present({ audience: "sales-mcp" });
    const file = join(REPOSITORY, "examples/mcp_server.py");
    await withServer(PYTHON, [file, "serve"], keyring, async (client) => {
      const paid = await call(client, text, "refund", { order: "o-1", cents: 120 });
      assert.equal(paid.content[0]!.text, "120 cents back for o-1, by clerk for user:jane");
      const beyond = await call(client, text, "refund", { order: "o-1", cents: 9000 });
      assert.equal(beyond.isError, true);
      const rows = await call(client, text, "query", { sql: "select region from sales" });
      assert.equal(rows.content[0]!.text, "[('eu',), ('us',)]");
      const closed = await call(client, text, "query", { sql: "select * from hr" });
      assert.equal(closed.isError, true);
    });
  },
);
