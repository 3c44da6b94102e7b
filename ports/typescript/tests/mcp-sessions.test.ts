/** Sessions of MCP over HTTP with the SDK's own transports: what a stranger, and a helper of the same tree, can have there (spec 40.12). */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { connect, type AddressInfo } from "node:net";
import { PassThrough } from "node:stream";
import { test } from "node:test";

import { getRequestListener } from "@hono/node-server";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";

import { Issuer, Keyring, Verifier, type Token } from "captoken";
import { guarded } from "captoken/mcp";

const keyring = Keyring.generate();
const issuer = new Issuer(keyring);
const verifier = new Verifier(keyring, { audience: "files" });
const who = { subject: "user:jane", agent: "clerk", task: "t" };

const KINDS = ["of Node", "of the web"] as const;
const BOTH = KINDS.flatMap((kind) => [false, true].map((json): [string, (typeof KINDS)[number], boolean] => [`${kind}, ${json ? "in JSON" : "in events"}`, kind, json]));

type Ask = (by: Token | undefined, message?: unknown, more?: { method?: string; headers?: Record<string, string | undefined>; signal?: AbortSignal }) => Promise<Response>;

interface Served {
  readonly server: McpServer;
  readonly ask: Ask;
  readonly port: number;
}

/** A server behind its guard over HTTP, until `run` is through. The session's id can be foreseen. */
async function served(kind: (typeof KINDS)[number], options: object, run: (served: Served) => Promise<void>, by = verifier): Promise<void> {
  const server = new McpServer({ name: "files", version: "1.0.0" }, { capabilities: { logging: {}, tools: { listChanged: true } } });
  const all = { sessionIdGenerator: () => "s-1", ...options };
  let listener: Parameters<typeof createServer>[1];
  const isOfNode = kind === "of Node";
  const transport = isOfNode ? new StreamableHTTPServerTransport(all) : new WebStandardStreamableHTTPServerTransport(all);
  if (transport instanceof StreamableHTTPServerTransport) {
    listener = (request, response) => void transport.handleRequest(request, response);
  } else {
    listener = getRequestListener((request) => transport.handleRequest(request));
  }
  const http = createServer(listener).listen(0, "127.0.0.1");
  await once(http, "listening");
  const { port } = http.address() as AddressInfo;
  const ask: Ask = (token, message, { method = "POST", headers = {}, signal } = {}) => {
    const sent: Record<string, string | undefined> = {
      accept: method === "GET" ? "text/event-stream" : "application/json, text/event-stream",
      "content-type": "application/json",
      "mcp-session-id": isOpening(message) ? undefined : "s-1",
      authorization: token && `Bearer ${token.present({ audience: "files" })}`,
      ...headers,
    };
    const kept = Object.entries(sent).filter((each): each is [string, string] => each[1] !== undefined);
    const body = message === undefined ? {} : { body: JSON.stringify(message) };
    return fetch(`http://127.0.0.1:${port}/mcp`, { method, headers: kept, ...body, ...(signal && { signal }) });
  };
  server.registerTool("idle", {}, () => said("nothing"));
  await server.connect(guarded(transport, by));
  try {
    await run({ server, ask, port });
  } finally {
    http.close().closeAllConnections();
  }
}

const isOpening = (message: unknown): boolean => (message as { method?: unknown } | undefined)?.method === "initialize";
const said = (text: string) => ({ content: [{ type: "text" as const, text }] });
const call = (name: string, id: unknown) => ({ jsonrpc: "2.0", id, method: "tools/call", params: { name, arguments: {} } });
const list = (id: unknown) => ({ jsonrpc: "2.0", id, method: "tools/list", params: {} });
const initialize = (protocolVersion = "2025-06-18") => ({
  ...{ jsonrpc: "2.0", id: 0, method: "initialize" },
  params: { protocolVersion, capabilities: { elicitation: {} }, clientInfo: { name: "x", version: "1" } },
});

async function opened(ask: Ask, by: Token | undefined, version?: string): Promise<void> {
  await (await ask(by, initialize(version))).text();
  await (await ask(by, { jsonrpc: "2.0", method: "notifications/initialized" })).text();
}

const later = (milliseconds: number): Promise<void> => new Promise((done) => setTimeout(done, milliseconds));

/** What somebody waits for, and who lets it go on. */
function gate(): { go: () => void; gone: Promise<void> } {
  let go = (): void => {};
  const gone = new Promise<void>((done) => (go = done));
  return { go, gone };
}

/** A delegator who may do everything, and her helper, who may not read what is secret. */
function two(...tools: string[]): [root: Token, helper: Token] {
  const root = issuer.mint({ ...who, tools: Object.fromEntries([...tools, "secret", "idle"].map((name) => [name, {}])) });
  return [root, root.delegate({ to: "helper", tools: Object.fromEntries([...tools, "idle"].map((name) => [name, {}])) })];
}

for (const kind of KINDS) {
  test(`${kind}: a helper is not sent what its delegator asked for by the number of its request`, async () => {
    await served(kind, {}, async ({ server, ask }) => {
      const { go, gone } = gate();
      server.registerTool("secret", {}, async () => {
        await gone;
        return said("salaries");
      });
      const [root, helper] = two();
      await opened(ask, root);
      const asked = await ask(root, call("secret", 9));
      for (const id of [9, "9"]) assert.equal((await ask(helper, call("idle", id))).status, 409);
      assert.equal((await ask(helper, [call("idle", 20), call("idle", "20")])).status, 409);
      assert.equal((await ask(helper, [])).status, 400);
      // Nobody waits for the answer of 11, which the SDK may still give.
      const broken = new AbortController();
      const left = await ask(root, call("secret", 11), { signal: broken.signal });
      broken.abort();
      await left.text().catch(() => {});
      await later(100);
      assert.equal((await ask(helper, call("idle", 11))).status, 409);
      assert.match(await (await ask(helper, call("idle", 10))).text(), /nothing/);
      go();
      assert.match(await asked.text(), /salaries/);
      assert.match(await (await ask(helper, call("idle", 9))).text(), /nothing/, "what is answered has its number no more");
    });
  });

  test(`${kind}: a stream that listens ends with its token, and another can be opened`, async () => {
    let now = 1_000_000;
    const clock = () => now;
    const run = async ({ server, ask }: Served): Promise<void> => {
      const root = new Issuer(keyring, { clock }).mint({ ...who, tools: {}, expiresIn: "1h" });
      await opened(ask, root);
      const listens = (by: Token): Promise<Response> => ask(by, undefined, { method: "GET" });
      const read = ({ body }: Response) => body!.pipeThrough(new TextDecoderStream()).getReader();
      const stream = await listens(root.delegate({ to: "helper", expiresIn: "1m" }));
      assert.equal(stream.status, 200);
      const reader = read(stream);
      server.sendToolListChanged();
      assert.match((await reader.read()).value!, /tools\/list_changed/);
      assert.equal((await listens(root)).status, 409, "there is one already");
      now += 61;
      server.sendToolListChanged();
      assert.deepEqual(await reader.read(), { done: true, value: undefined });

      const another = await listens(root);
      assert.equal(another.status, 200);
      server.sendToolListChanged();
      assert.match((await read(another).read()).value!, /tools\/list_changed/);
    };
    await served(kind, {}, run, new Verifier(keyring, { audience: "files", clock }));
  });

  test(`${kind}: nobody gets into a session before its opening came, nor by one that is forged`, async () => {
    const eventStore = { storeEvent: () => later(300).then(() => "1"), replayEventsAfter: async () => "x" };
    for (const [options, version] of [[{ onsessioninitialized: () => later(300) }], [{ eventStore }, "2025-11-25"]] as const) {
      await served(kind, options, async ({ ask }) => {
        const [root] = two();
        const [other] = two();
        const opening = opened(ask, root, version);
        await later(100);
        assert.equal((await ask(other, list(3))).status, 404);
        await opening;
        assert.match(await (await ask(other, list(3))).text(), /caller|"code":403/);
        assert.match(await (await ask(root, list(4))).text(), /idle/);
      });
    }
    await served(kind, {}, async ({ ask }) => {
      await opened(ask, undefined);
      const forged = new Issuer(Keyring.generate()).mint({ ...who, tools: {} });
      const named = { headers: { "mcp-session-id": "s-1" } };
      await (await ask(forged, { jsonrpc: "2.0", id: 5, method: "initialize", params: {} }, named)).text();
      const [root] = two();
      assert.match(await (await ask(root, list(6))).text(), /idle/);
    });
  });

  test(`${kind}: what a tool still says is not for whoever has its number by then`, async () => {
    await served(kind, {}, async ({ server, ask }) => {
      const asked: Promise<unknown>[] = [];
      server.registerTool("secret", {}, ({ sendNotification, requestId }) => {
        const late = async (): Promise<unknown> => {
          await later(300);
          await sendNotification({ method: "notifications/message", params: { level: "info", data: "salaries" } });
          const question = { message: "Pay salaries?", requestedSchema: { type: "object" as const, properties: {} } };
          return server.server.elicitInput(question, { relatedRequestId: requestId });
        };
        asked.push(late().catch(String));
        return said("begun");
      });
      server.registerTool("wait", {}, async ({ sendNotification }) => {
        await sendNotification({ method: "notifications/message", params: { level: "info", data: "its own" } });
        await later(600);
        return said("waited");
      });
      const [root, helper] = two("wait");
      await opened(ask, root);
      assert.match(await (await ask(root, call("secret", 9))).text(), /begun/);
      const heard = await (await ask(helper, call("wait", 9))).text();
      assert.match(heard, /its own.*waited/s);
      assert.doesNotMatch(heard, /salaries/);
      assert.match(String(await asked[0]), /has been answered/);
    });
  });

  test(`${kind}: what names another session, or two, is refused, and so is a body of very many messages`, async () => {
    await served(kind, {}, async ({ ask }) => {
      const [root] = two();
      assert.equal((await ask(root, list(1))).status, 404, "there is none yet");
      await opened(ask, undefined);
      const [other] = two();
      const by = async (name: string | undefined): Promise<number> =>
        (await ask(other, list(2), { headers: { "mcp-session-id": name } })).status;
      assert.deepEqual([await by("s-2"), await by(undefined), await by("s-1, s-1")], [404, 400, 404]);
      assert.match(await (await ask(root, list(3))).text(), /idle/, "nobody had it before");
      const many = Array.from({ length: 101 }, (_, at) => list(at + 10));
      assert.equal((await ask(root, many)).status, 413);
      assert.equal((await ask(root, many.slice(1))).status, 200);
    });
  });

  test(`${kind}: a request that the SDK does not take leaves its number free`, async () => {
    await served(kind, {}, async ({ ask }) => {
      const [root] = two();
      await opened(ask, root);
      assert.equal((await ask(root, call("idle", 5), { headers: { accept: "text/html" } })).status, 406);
      assert.equal((await ask(root, call("idle", 5), { headers: { "content-type": "text/plain" } })).status, 415);
      assert.match(await (await ask(root, call("idle", 5))).text(), /nothing/);
    });
  });
}

for (const [name, kind, enableJsonResponse] of BOTH) {
  test(`${name}: the numbers of a batch are free together`, async () => {
    await served(kind, { enableJsonResponse }, async ({ server, ask }) => {
      const { go, gone } = gate();
      server.registerTool("secret", {}, () => said("salaries"));
      server.registerTool("slow", {}, async () => {
        await gone;
        return said("slow");
      });
      const [root, helper] = two("slow");
      await opened(ask, root);
      const asked = ask(root, [call("slow", 1), call("secret", 2)]).then((answer) => answer.text());
      await later(200);
      assert.equal((await ask(helper, [call("idle", 2), call("slow", 3)])).status, 409);
      go();
      assert.match(await asked, /salaries/);
      assert.match(await (await ask(helper, call("idle", 2))).text(), /nothing/);
    });
  });

  test(`${name}: a body that comes when somebody else has opened the session is not judged by its head`, async () => {
    await served(kind, { enableJsonResponse }, async ({ ask, port, server }) => {
      server.registerTool("secret", {}, () => said("salaries"));
      const late = (body: object): (() => Promise<string>) => {
        const text = JSON.stringify(body);
        const head = ["POST /mcp HTTP/1.1", "Host: x", "Accept: application/json, text/event-stream", "Content-Type: application/json", "Mcp-Session-Id: s-1"];
        const connection = connect(port, "127.0.0.1");
        connection.write([...head, "Connection: close", `Content-Length: ${text.length}`, "", ""].join("\r\n"));
        let came = "";
        connection.on("data", (piece) => (came += String(piece)));
        const closed = once(connection, "close").catch(() => {});
        return async () => {
          connection.on("error", () => {});
          connection.write(text);
          await closed;
          return came;
        };
      };
      const finish = late({ jsonrpc: "2.0", id: 7, method: "ping" });
      await later(100);
      const [root] = two();
      await opened(ask, root);
      assert.match(await finish(), /^HTTP\/1.1 404 /);
    });
  });

  test(`without sessions, ${name}: a list is cut, also where its number is used twice`, async () => {
    await served(kind, { enableJsonResponse, sessionIdGenerator: undefined }, async ({ server, ask }) => {
      server.registerTool("secret", {}, () => said("salaries"));
      const token = issuer.mint({ ...who, tools: { idle: {} } });
      const headers = { "mcp-session-id": undefined };
      const answered = await (await ask(token, [list(1), list(1), list(2)], { headers })).text();
      assert.match(answered, /idle/);
      assert.doesNotMatch(answered, /secret/);
    });
  });
}

test("over stdio: a list is cut, also where its number is used twice", async () => {
  const [written, read] = [new PassThrough(), new PassThrough()];
  const server = new McpServer({ name: "files", version: "1.0.0" });
  for (const name of ["secret", "idle"]) server.registerTool(name, {}, () => said("nothing"));
  await server.connect(guarded(new StdioServerTransport(written, read), verifier));
  let heard = "";
  read.on("data", (piece) => (heard += String(piece)));
  const token = issuer.mint({ ...who, tools: { idle: {} } }).present({ audience: "files" });
  const asked = { ...list(1), params: { _meta: { "io.captoken/token": token } } };
  for (const each of [initialize(), asked, asked]) written.write(`${JSON.stringify(each)}\n`);
  await later(300);
  assert.equal(heard.match(/idle/g)?.length, 2);
  assert.doesNotMatch(heard, /secret/);
});
