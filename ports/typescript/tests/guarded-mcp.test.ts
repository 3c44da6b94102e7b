/** The guard of MCP with the SDK's own server and client: in one process, and over HTTP. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { getRequestListener } from "@hono/node-server";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { InMemoryTransport } from "@modelcontextprotocol/sdk/inMemory.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";
import { ElicitRequestSchema, type JSONRPCMessage } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";

import {
  HolderKey,
  Issuer,
  Keyring,
  MemoryLedger,
  MemoryReplayStore,
  Verifier,
  mcpMessageRequest,
  type Token,
} from "captoken";
import { current, explainsDenials, guarded, presenting, presentingFetch, type Held, type McpOptions } from "captoken/mcp";

const TOKEN = "io.captoken/token";
const keyring = Keyring.generate();
const issuer = new Issuer(keyring);
const key = HolderKey.generate();
const who = { subject: "user:jane", agent: "clerk", task: "t" };
const tools = {
  read: { path: { path: ["/reports"] }, limit: { max: 10, optional: true as const } },
  whoami: {},
  "resources/read": { uri: { in: ["file:///a"] } },
};
const token = issuer.mint({ ...who, tools });
const bound = issuer.mint({ ...who, tools, key: key.public });
const replays = new MemoryReplayStore({ floor: 0 });
const verifier = new Verifier(keyring, {
  audience: "files",
  ledger: new MemoryLedger({ shared: true, floor: 0 }),
  replays: {
    add: async (use, now) => replays.add(use, now),
    look: async (use, now) => replays.look(use, now),
  },
});

function service(): { server: McpServer; ran: unknown[] } {
  const server = new McpServer({ name: "files", version: "1.0.0" });
  const ran: unknown[] = [];
  const text = (said: string) => ({ content: [{ type: "text" as const, text: said }] });
  // The schema fills in what the client left out: the proof is about what was sent.
  const schema = { path: z.string(), limit: z.number().default(50) };
  server.registerTool("read", { inputSchema: schema }, (args, extra) => {
    ran.push(args, extra._meta, extra.requestInfo?.headers["authorization"]);
    return text(`${args.path} by ${current.grant().actor.name}`);
  });
  server.registerTool("remove", { inputSchema: { path: z.string() } }, () => text("removed"));
  server.registerTool(
    "whoami",
    {},
    explainsDenials(async () => {
      await current.grant().authorizeAsync({ tool: "remove", arguments: {} });
      return text("never");
    }),
  );
  server.registerResource("a", "file:///a", {}, () => ({ contents: [] }));
  server.registerResource("b", "file:///b", {}, () => ({ contents: [] }));
  return { server, ran };
}

async function inMemory(
  held: Held | undefined,
  ask: (client: Client, ran: unknown[]) => Promise<void>,
  options: McpOptions = {},
): Promise<void> {
  const { server, ran } = service();
  const client = new Client({ name: "test", version: "1.0.0" });
  const [ours, theirs] = InMemoryTransport.createLinkedPair();
  await server.connect(guarded(theirs, verifier, options));
  await client.connect(held ? presenting(ours, held) : ours);
  try {
    await ask(client, ran);
  } finally {
    await client.close();
  }
}

const HELD: Record<string, Held> = {
  "a bearer token": { token, audience: "files" },
  "a token that is bound to a key": { token: bound, audience: "files", signer: key },
};

for (const [name, held] of Object.entries(HELD)) {
  test(`${name}: what was sent is judged, and what a schema fills in is not`, async () => {
    await inMemory(held, async (client, ran) => {
      const call = async (tool: string, args: object) =>
        client.callTool({ name: tool, arguments: args as Record<string, unknown> });
      const read = await call("read", { path: "/reports/q3", note: undefined });
      assert.deepEqual(read.content, [{ type: "text", text: "/reports/q3 by clerk" }]);
      assert.deepEqual(ran[0], { path: "/reports/q3", limit: 50 });
      assert.equal((ran[1] as object | undefined) && Object.hasOwn(ran[1] as object, TOKEN), false);
      for (const args of [{ path: "/etc" }, { path: "/reports", limit: 50 }, { path: "/reports", other: 1 }]) {
        const denied = await call("read", args);
        assert.equal(denied.isError, true);
        assert.match(String((denied.content as { text: string }[])[0]!.text), /^Not permitted: this tool/);
        assert.deepEqual(denied._meta, { "io.captoken/kind": "insufficient" });
      }
      assert.equal(ran.length, 3, "none of these came to the tool");
      const told = await call("whoami", {});
      assert.match(JSON.stringify(told), /Not permitted: this tool is not among the tools of this task/);
    });
  });
}

test("lists show what the token can be used for", async () => {
  await inMemory(HELD["a bearer token"]!, async (client) => {
    const { tools: shown } = await client.listTools();
    assert.deepEqual(shown.map(({ name }) => name), ["read", "whoami"]);
    const { resources } = await client.listResources();
    assert.deepEqual(resources.map(({ uri }) => uri), ["file:///a"]);
    await client.readResource({ uri: "file:///a" });
    await assert.rejects(client.readResource({ uri: "file:///b" }), { code: 403 });
    await client.ping();
  });
});

test("without a token that is good here nothing is answered", async () => {
  await inMemory(undefined, async (client, ran) => {
    await client.ping();
    await assert.rejects(client.listTools(), { code: 401 });
    const forged = new Issuer(Keyring.generate()).mint({ ...who, tools });
    const proven = bound.present({ audience: "files", signer: key, request: mcpMessageRequest("tools/call", { name: "read", arguments: { path: "/reports/a" } }) });
    const texts: unknown[] = ["abc", 5, {}, forged.present({ audience: "files" }), token.present({ audience: "mail" }), bound.present({ audience: "files" }), proven];
    for (const text of texts) {
      const asked = client.callTool({ name: "read", arguments: { path: "/reports" }, _meta: { [TOKEN]: text } });
      await assert.rejects(asked, { code: 401 }, String(text).slice(0, 20));
    }
    const exact = client.callTool({ name: "read", arguments: { path: "/reports/a" }, _meta: { [TOKEN]: proven } });
    assert.equal((await exact).isError, undefined);
    const again = client.callTool({ name: "read", arguments: { path: "/reports/a" }, _meta: { [TOKEN]: proven } });
    await assert.rejects(again, { code: 401 }, "a proof is good once");
    assert.equal(ran.length, 3);
  });
});

test("whatever a stranger sends is answered, and never by an error of the server's", async () => {
  const { server } = service();
  const [ours, theirs] = InMemoryTransport.createLinkedPair();
  const guard = guarded(theirs, verifier);
  await server.connect(guard);
  const answers: JSONRPCMessage[] = [];
  ours.onmessage = (message) => void answers.push(message);
  await ours.start();
  const text = token.present({ audience: "files" });
  let deep: unknown = 1;
  for (let depth = 0; depth < 20_000; depth += 1) deep = [deep];
  const params: unknown[] = [
    undefined, null, [], "x", 7, { name: 5 }, { name: "read", arguments: [] }, { name: "a/b" },
    { name: "read", arguments: { path: Infinity } }, { name: "read", arguments: { path: "\ud800" } },
    { name: "read", arguments: { "": 1 } }, { name: "read", arguments: deep }, { name: "read", arguments: { path: deep } },
    JSON.parse('{"name":"read","arguments":{"__proto__":{"path":"/reports"}}}'), { name: "\ud800" },
  ];
  let id = 0;
  for (const each of params) {
    for (const method of ["tools/call", "resources/read", "prompts/get", "tools", "nothing/known"]) {
      for (const _meta of [{ [TOKEN]: text }, undefined, [], "x", { [TOKEN]: null }]) {
        const isObject = typeof each === "object" && each !== null && !Array.isArray(each);
        const sent = isObject && _meta !== undefined ? { ...each, _meta } : each;
        await ours.send({ jsonrpc: "2.0", id: (id += 1), method, params: sent } as never);
      }
    }
  }
  await ours.send({ jsonrpc: "2.0", method: "notifications/unknown" } as never);
  for (let turn = 0; answers.length < id && turn < 200; turn += 1) await new Promise((done) => setTimeout(done, 10));
  assert.equal(answers.length, id);
  for (const answer of answers as { error?: { code: number }; result?: { isError?: boolean } }[]) {
    assert.ok(answer.result?.isError === true || [401, 403].includes(answer.error!.code), JSON.stringify(answer));
  }
  await server.close();
});

test("a call costs what the server says, in view of what it knows", async () => {
  const paid = issuer.mint({ ...who, tools: { read: {} }, budget: { cents: 5 }, where: { day: { in: ["mon"] } } });
  let day = "mon";
  const options: McpOptions = { cost: () => ({ cents: 3 }), attributes: () => ({ day }) };
  const said: unknown[] = [];
  await inMemory({ token: paid, audience: "files" }, async (client) => {
    const call = async () => said.push((await client.callTool({ name: "read", arguments: { path: "/" } })).isError ?? false);
    day = "tue";
    await call();
    day = "mon";
    await call();
    await call();
  }, options);
  assert.deepEqual(said, [true, false, true]);
});

test("over HTTP: the token in the header, and a session is of the tree that opened it", async () => {
  const { server, ran } = service();
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: () => "s-1", enableJsonResponse: true });
  await server.connect(guarded(transport, verifier));
  const http = createServer((request, response) => void transport.handleRequest(request, response));
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  const url = new URL(`http://127.0.0.1:${(http.address() as AddressInfo).port}/mcp`);

  const client = new Client({ name: "test", version: "1.0.0" });
  const held = HELD["a token that is bound to a key"]!;
  await client.connect(presenting(new StreamableHTTPClientTransport(url, { fetch: presentingFetch(held) }), held));
  const read = await client.callTool({ name: "read", arguments: { path: "/reports" } });
  assert.deepEqual(read.content, [{ type: "text", text: "/reports by clerk" }]);

  const post = async (headers: Record<string, string>, meta: object = {}): Promise<unknown> => {
    const params = { name: "read", arguments: { path: "/reports" }, _meta: meta };
    const body = JSON.stringify({ jsonrpc: "2.0", id: 9, method: "tools/call", params });
    const both = { "content-type": "application/json", accept: "application/json, text/event-stream", "mcp-session-id": "s-1", "mcp-protocol-version": "2025-06-18" };
    const answer = await fetch(url, { method: "POST", headers: { ...both, ...headers }, body });
    const { error, result } = (await answer.json()) as { error?: { code: number }; result?: { isError?: boolean } };
    return error?.code ?? result?.isError ?? "done";
  };
  const by = (one: Token, request?: string): Record<string, string> => ({
    authorization: `Bearer ${one.present({ audience: "files" })}`,
    ...(request !== undefined && { "mcp-name": request }),
  });
  const sameTree = bound.present({ audience: "files", signer: key, request: mcpMessageRequest("tools/call", { name: "read", arguments: { path: "/reports" } }) });
  assert.equal(await post({ authorization: `Bearer ${sameTree}` }), "done");
  assert.equal(ran.at(-1), undefined, "the tool sees no token");
  assert.equal(await post(by(token)), true, "of another tree");
  assert.equal(await post({}), 401);
  assert.equal(await post({ authorization: "Basic QTpC" }), 401);
  assert.equal(await post(by(bound, "remove")), 401, "the header speaks of another call");
  assert.equal(await post(by(token), { [TOKEN]: bound.present({ audience: "files" }) }), 401, "two tokens");
  await client.close();
  http.close().closeAllConnections();
});

test("over HTTP: a session that is nobody's offers no stream, and no login begins with one", async () => {
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: () => "s-1", enableJsonResponse: true });
  await service().server.connect(guarded(transport, verifier));
  const http = createServer((request, response) => void transport.handleRequest(request, response));
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  const url = new URL(`http://127.0.0.1:${(http.address() as AddressInfo).port}/mcp`);
  // The SDK's client opens a stream by itself, and passes over a 405.
  const client = new Client({ name: "test", version: "1.0.0" });
  const errors: Error[] = [];
  client.onerror = (error) => errors.push(error);
  await client.connect(new StreamableHTTPClientTransport(url));

  const listen = async (authorization?: string): Promise<[number, string | null]> => {
    const headers = { accept: "text/event-stream", "mcp-session-id": "s-1", ...(authorization && { authorization }) };
    const answer = await fetch(url, { headers });
    await answer.body?.cancel();
    return [answer.status, answer.headers.get("allow")];
  };
  assert.deepEqual(await listen(), [405, "POST, DELETE"]);
  assert.deepEqual(await listen("Bearer cap1_AAAA"), [401, null]);
  assert.deepEqual(await listen(`Bearer ${token.present({ audience: "files" })}`), [200, null]);
  assert.deepEqual(await listen(), [401, null]);
  assert.deepEqual(errors, []);
  await client.close();
  http.close().closeAllConnections();
});

/** A tool that asks its client, and goes on when it is answered; and what reached it. */
function asking(): { server: McpServer; ran: string[] } {
  const server = new McpServer({ name: "files", version: "1.0.0" });
  const ran: string[] = [];
  server.registerTool("read", { inputSchema: { path: z.string() } }, async ({ path }) => {
    const requestedSchema = { type: "object" as const, properties: { sure: { type: "boolean" as const } } };
    const { action } = await server.server.elicitInput({ message: "Sure?", requestedSchema });
    ran.push(action);
    return { content: [{ type: "text", text: `${path}: ${action}` }] };
  });
  return { server, ran };
}

const WEB = "of the web";
for (const kind of ["of Node", "of Node, by a parsed body", WEB]) {
  for (const [name, held] of Object.entries(HELD)) {
    test(`over HTTP, ${kind}: a session is of the tree that opened it, whatever a stranger sends in it; ${name}`, async () => {
      const { server, ran } = asking();
      const options = { sessionIdGenerator: () => "s-1" };
      const transport = kind === WEB ? new WebStandardStreamableHTTPServerTransport(options) : new StreamableHTTPServerTransport(options);
      await server.connect(guarded(transport, verifier));
      const http = createServer(
        kind === WEB
          ? getRequestListener((request) => (transport as WebStandardStreamableHTTPServerTransport).handleRequest(request))
          : async (request, response) => {
              let parsed: unknown;
              if (kind !== "of Node" && request.method === "POST") {
                let text = "";
                for await (const piece of request) text += String(piece);
                parsed = text && JSON.parse(text);
              }
              await (transport as StreamableHTTPServerTransport).handleRequest(request, response, parsed);
            },
      );
      http.listen(0, "127.0.0.1");
      await once(http, "listening");
      const url = new URL(`http://127.0.0.1:${(http.address() as AddressInfo).port}/mcp`);

      const client = new Client({ name: "test", version: "1.0.0" }, { capabilities: { elicitation: {} } });
      let asked!: () => void;
      let go!: () => void;
      const isAsked = new Promise<void>((done) => (asked = done));
      const mayGo = new Promise<void>((done) => (go = done));
      client.setRequestHandler(ElicitRequestSchema, async () => {
        asked();
        await mayGo;
        return { action: "accept", content: { sure: true } };
      });
      const over = new StreamableHTTPClientTransport(url, { fetch: presentingFetch(held) });
      await client.connect(presenting(over, held));
      const done = client.callTool({ name: "read", arguments: { path: "/reports" } });
      await isAsked;

      const elsewhere = new Issuer(Keyring.generate()).mint({ ...who, tools });
      const strangers: [header: string | undefined, status: number][] = [
        [undefined, 401],
        ["Bearer cap1_AAAA", 401],
        ["Basic abcd", 401],
        [`Bearer ${elsewhere.present({ audience: "files" })}`, 401],
        [`Bearer ${issuer.mint({ ...who, tools }).present({ audience: "files" })}`, 403],
      ];
      const accepted = { action: "accept", content: { sure: true } };
      const initialize = { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "x", version: "1" } };
      const numbers = [0, 1, 2, 3, 4, "0", "1", "2", "3"];
      const sent: [method: string, message?: object][] = [
        ...numbers.map((id): [string, object] => ["POST", { id, result: accepted }]),
        ["POST", { id: 0, method: "ping", result: accepted }],
        ["POST", { id: 0, method: "initialize", params: initialize, result: accepted }],
        ["POST", { id: 9, method: "initialize", params: initialize }],
        ["POST", { id: 0, error: { code: 1, message: "no" } }],
        ["POST", { method: "notifications/cancelled", params: { requestId: 1 } }],
        ["GET"],
        ["DELETE"],
      ];
      const both = {
        accept: "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-session-id": "s-1",
        "mcp-protocol-version": "2025-06-18",
      };
      const ask = async (header: string | undefined, method: string, message?: object, more: object = {}) =>
        fetch(url, {
          method,
          headers: { ...both, ...more, ...(header !== undefined && { authorization: header }) },
          ...(message && { body: JSON.stringify({ jsonrpc: "2.0", ...message }) }),
        });
      for (const [header, status] of strangers) {
        for (const [method, message] of sent) {
          const answer = await ask(header, method, message);
          assert.equal(answer.status, status, `${header?.slice(0, 12)} ${method} ${JSON.stringify(message)}`);
          await answer.text();
        }
        // By the number of what is under way: the SDK would send the answer to whoever used it last.
        for (const id of numbers) {
          const told = async (method: string, params: object) =>
            (await (await ask(header, "POST", { id, method, params })).json()) as { id: unknown; result?: { isError?: true }; error?: { code: number } };
          assert.deepEqual(await told("ping", {}), { jsonrpc: "2.0", id, result: {} });
          const listed = await told("tools/list", {});
          assert.deepEqual([listed.id, listed.error?.code], [id, status]);
          const called = await told("tools/call", { name: "read", arguments: { path: "/reports" } });
          assert.deepEqual([called.id, called.error?.code ?? (called.result?.isError && 403)], [id, status]);
        }
      }
      const deep = `${"[".repeat(20_000)}${"]".repeat(20_000)}`;
      const bodies = [`{"id":0,"result":${deep}}`, `{"id":${deep},"method":"tools/list"}`, `{"id":0,"method":"ping","params":${deep}}`, "null", "7", "[null]", "[[]]"];
      for (const body of bodies) {
        for (const [header, status] of strangers.slice(0, 2)) {
          const answer = await fetch(url, { method: "POST", headers: { ...both, ...(header && { authorization: header }) }, body });
          assert.equal(answer.status, body.includes("ping") ? 200 : status, body.slice(0, 30));
          await answer.text();
        }
      }
      assert.equal((await ask(undefined, "GET", undefined, { "last-event-id": "0" })).status, 400);
      if (kind !== "of Node, by a parsed body") {
        assert.equal((await fetch(url, { method: "POST", headers: both, body: "{" })).status, 400);
      }
      assert.deepEqual(ran, []);
      go();
      assert.deepEqual((await done).content, [{ type: "text", text: "/reports: accept" }]);
      assert.deepEqual(ran, ["accept"]);
      await over.terminateSession();
      await client.close();
      http.close().closeAllConnections();
    });
  }
}

test("a session of a transport that takes its requests in another way: what needs a token is refused, and nothing is taken", async () => {
  const single = issuer.mint({ ...who, tools: { read: {} }, uses: 1 });
  const _meta = { [TOKEN]: single.present({ audience: "files" }) };
  const said: unknown[] = [];
  for (const options of [{}, { keepsSessions: true }]) {
    const { server, ran } = service();
    const [ours, theirs] = InMemoryTransport.createLinkedPair();
    theirs.sessionId = "s-1";
    await server.connect(guarded(theirs, verifier, options));
    const client = new Client({ name: "test", version: "1.0.0" });
    await client.connect(ours);
    const call = client.callTool({ name: "read", arguments: { path: "/" }, _meta });
    said.push(await call.then(({ isError }) => isError ?? "done", (error: { code: number }) => error.code));
    if (!("keepsSessions" in options)) assert.deepEqual(ran, []);
    await client.close();
  }
  assert.deepEqual(said, [503, "done"]);
});

test("tools/call cannot be free, and a guard needs a verifier", () => {
  const [, theirs] = InMemoryTransport.createLinkedPair();
  for (const method of ["tools/call", "tools/list"]) {
    assert.throws(() => guarded(theirs, verifier, { free: [method] }), { name: "UsageError" });
  }
  assert.throws(() => guarded(theirs, {} as never), { name: "UsageError" });
});
