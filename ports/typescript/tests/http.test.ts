/** The guards of HTTP, over real HTTP: the same requests to each framework, and to Python's guard. */

import assert from "node:assert/strict";
import { once } from "node:events";
import {
  createServer,
  request as send,
  type IncomingHttpHeaders,
  type RequestListener,
  type Server,
} from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, describe, test } from "node:test";

import { getRequestListener } from "@hono/node-server";
import express from "express";
import Fastify from "fastify";
import { Hono, type Context } from "hono";

import {
  HolderKey,
  Issuer,
  Keyring,
  MemoryLedger,
  MemoryReplayStore,
  Verifier,
  httpRequest,
  type ReplayStore,
} from "captoken";
import * as forExpress from "captoken/express";
import * as forFastify from "captoken/fastify";
import * as forHono from "captoken/hono";
import { ask, current, guarded } from "captoken/http";
import { missing, ran } from "./python.js";

const ORIGIN = "https://api.example";
const keyring = Keyring.generate();
const issuer = new Issuer(keyring);
const key = HolderKey.generate();
const who = { subject: "user:jane", agent: "clerk", task: "t" };
const tools = { read: { name: { in: ["q1"] } }, search: {}, whoami: {}, boom: {} };
const root = issuer.mint({ ...who, tools });
const bound = issuer.mint({ ...who, tools, key: key.public });
const counted = issuer.mint({ ...who, tools: { search: {} }, uses: 1 });
const shown = (): string => root.present({ audience: "api" });

const replays: ReplayStore = new MemoryReplayStore({ floor: 0 });
const verifier = new Verifier(keyring, {
  audience: "api",
  replays: {
    // As a store on another machine: it promises.
    add: async (use, now) => replays.add(use, now),
    look: async (use, now) => replays.look(use, now),
  },
  ledger: new MemoryLedger({ shared: true, floor: 0 }),
});
const OPTIONS = { origin: ORIGIN, resourceMetadata: { authorization_servers: ["https://as.example"] } };
const OPEN = { ...OPTIONS, public: ["/health"] };

const said = (value: unknown): string => JSON.stringify(value) ?? "nothing";

/** The one service, written for each framework. */
const SERVICES: Readonly<Record<string, () => Promise<RequestListener>>> = {
  Request: async () =>
    getRequestListener(
      guarded(verifier, OPTIONS, async (request, grant) => {
        const { pathname } = new URL(request.url);
        if (pathname === "/search") {
          await ask(grant, async (r) => ({ tool: "search", arguments: await r.clone().json() }), request);
          return Response.json(await request.json());
        }
        if (pathname === "/whoami") {
          const seen = request.headers.get("authorization");
          return Response.json([current.grant().actor.name, grant === current.grant(), seen]);
        }
        if (pathname === "/boom") throw new Error("boom");
        await grant.authorizeAsync({ tool: "read", arguments: { name: pathname.split("/")[2] } });
        return new Response("what stands there");
      }),
      { overrideGlobalObjects: false, errorHandler: () => new Response("a page", { status: 500 }) },
    ),

  Hono: async () => {
    const app = new Hono();
    app.onError((_, c) => c.text("a page", 500, { "x-page": "made" }));
    app.use(forHono.captoken(verifier, OPEN));
    app.get("/health", (c) => c.text("ok"));
    const name = forHono.requires((c: Context) => ({
      tool: "read",
      arguments: { name: c.req.param("name") },
    }));
    app.get("/reports/:name", name, (c) => c.text("what stands there"));
    const search = forHono.requires(async (c: Context) => ({
      tool: "search",
      arguments: (await c.req.json()) as {},
    }));
    app.post("/search", search, async (c) => c.json((await c.req.json()) as {}));
    app.get("/whoami", (c) => {
      const grant = current.grant();
      return c.json([grant.actor.name, grant === forHono.grantOf(c), c.req.header("authorization") ?? null]);
    });
    app.get("/boom", () => {
      throw new Error("boom");
    });
    return getRequestListener(app.fetch, { overrideGlobalObjects: false });
  },

  Express: async () => {
    const app = express();
    const guard = forExpress.captoken(verifier, OPEN);
    app.use(guard);
    app.get("/health", (_, response) => void response.send("ok"));
    const read = forExpress.requires((request: express.Request) => ({
      tool: "read",
      arguments: { name: request.params["name"] },
    }));
    app.get("/reports/:name", read, (_, response) => void response.send("what stands there"));
    const search = forExpress.requires((request: express.Request) => ({
      tool: "search",
      arguments: request.body as {},
    }));
    app.post("/search", express.json({ strict: false }), search, (request, response) => {
      response.json(request.body);
    });
    app.get("/whoami", async (request, response) => {
      await new Promise((resolve) => setTimeout(resolve, 1));
      const grant = current.grant();
      const seen = request.headers.authorization ?? request.get("authorization") ?? null;
      assert.ok(!request.rawHeaders.some((each) => each.startsWith("Bearer ")));
      response.json([grant.actor.name, grant === forExpress.grantOf(request), seen]);
    });
    app.get("/boom", () => {
      throw new Error("boom");
    });
    app.use(guard.denials);
    const page: express.ErrorRequestHandler = (error: { status?: number }, _, response, __) => {
      response.status(error.status ?? 500).send("a page");
    };
    app.use(page);
    return app;
  },

  Fastify: async () => {
    const app = Fastify();
    app.setErrorHandler((error: { statusCode?: number }, _, reply) => {
      void reply.code(error.statusCode ?? 500).send("a page");
    });
    await app.register(forFastify.captoken, { verifier, ...OPEN });
    app.get("/health", async () => "ok");
    const read = forFastify.requires((request: { params: unknown }) => ({
      tool: "read",
      arguments: request.params as { name: string },
    }));
    app.get("/reports/:name", { preHandler: read }, async () => "what stands there");
    const search = forFastify.requires((request: { body: unknown }) => ({
      tool: "search",
      arguments: request.body as {},
    }));
    app.post("/search", { preHandler: search }, async (request, reply) => {
      return reply.type("application/json").send(said(request.body));
    });
    app.get("/whoami", async (request) => {
      await new Promise((resolve) => setTimeout(resolve, 1));
      const grant = current.grant();
      return [grant.actor.name, grant === forFastify.grantOf(request), request.headers.authorization ?? null];
    });
    app.get("/boom", async () => {
      throw new Error("boom");
    });
    await app.ready();
    return (request, response) => app.routing(request, response);
  },
};

interface Got {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

interface Asked {
  readonly method?: string;
  readonly headers?: readonly (readonly [string, string])[];
  readonly body?: readonly string[];
}

/** One request as it is written, its headers in their order and as often as they stand there. */
async function got(server: Server, target: string, asked: Asked = {}): Promise<Got> {
  const { method = "GET", headers = [], body } = asked;
  const { port } = server.address() as AddressInfo;
  const all = [["Host", "api.example"], ...headers, ...(body ? [["Transfer-Encoding", "chunked"]] : [])];
  const sent = send({ port, method, path: target, headers: all.flat() as unknown as IncomingHttpHeaders, agent: false });
  sent.on("error", () => undefined); // a server may answer before it has read all
  void (async () => {
    for (const piece of body ?? []) {
      sent.write(piece);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    sent.end();
  })();
  const [response] = (await once(sent, "response")) as [import("node:http").IncomingMessage];
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode!, headers: response.headers, text };
}

const by = (text: string): readonly [string, string] => ["Authorization", `Bearer ${text}`];
const JSON_TYPE = ["Content-Type", "application/json"] as const;

function proven(method: string, target: string, body = ""): string {
  const request = httpRequest(method, ORIGIN, target, new TextEncoder().encode(body));
  return bound.present({ audience: "api", signer: key, request });
}

const CHALLENGE = `Bearer realm="${ORIGIN}", resource_metadata="${ORIGIN}/.well-known/oauth-protected-resource"`;

for (const [name, made] of Object.entries(SERVICES)) {
  describe(name, () => {
    let server: Server;
    before(async () => {
      server = createServer(await made());
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
    });
    after(() => void server.close().closeAllConnections());

    const refused = async (target: string, asked: Asked, status: number, part: object): Promise<Got> => {
      const came = await got(server, target, asked);
      assert.equal(came.status, status, came.text);
      assert.equal(came.headers["content-type"], "application/problem+json");
      assert.equal(came.headers["x-page"], undefined);
      const told = JSON.parse(came.text) as { detail: string; error?: string };
      assert.deepEqual({ ...told, ...part }, told);
      const challenge = came.headers["www-authenticate"];
      const details = told.error ? `, error="${told.error}", error_description="${told.detail}"` : "";
      assert.equal(challenge, [400, 401, 403].includes(status) ? CHALLENGE + details : undefined);
      return came;
    };

    test("a token lets in, and its grant says to what", async () => {
      const headers = [by(shown())];
      assert.equal((await got(server, "/reports/q1", { headers })).text, "what stands there");
      const code = { status: 403, code: "argument", error: "insufficient_scope", retry: "no" };
      await refused("/reports/q2", { headers }, 403, code);
      const me = await got(server, "/whoami", { headers });
      assert.deepEqual(JSON.parse(me.text), ["clerk", true, null]);
    });

    test("what is no token, none that is good here, or none at all", async () => {
      assert.equal(JSON.parse((await refused("/whoami", {}, 401, {})).text).error, undefined);
      await refused("/whoami", { headers: [["Authorization", "Basic QTpC"]] }, 401, {});
      const forged = { error: "invalid_token", retry: "no", for_model: "The token was not accepted. A retry will not help." };
      const stranger = new Issuer(Keyring.generate()).mint({ ...who, tools: {} }).present({ audience: "api" });
      for (const text of ["abc", stranger]) {
        const told = await refused("/whoami", { headers: [by(text)] }, 401, forged);
        assert.equal(JSON.parse(told.text).code, undefined, "which of them it is, a stranger learns not");
      }
      const elsewhere = root.present({ audience: "mail" });
      await refused("/whoami", { headers: [by(elsewhere)] }, 401, { code: "wrong_audience" });
    });

    test("one header, spelled in one way, and a token nowhere else", async () => {
      const text = shown();
      const error = { error: "invalid_request" };
      const asked: readonly [string, Asked][] = [
        ["/whoami", { headers: [["Authorization", `bearer ${text}`]] }],
        ["/whoami", { headers: [["Authorization", `Bearer  ${text}`]] }],
        ["/whoami", { headers: [by(text), by(text)] }],
        [`/whoami?t=${text}`, { headers: [by(text)] }],
        [`/whoami?t=%63${text.slice(1)}`, { headers: [by(text)] }],
        ["/whoami?access_token=x", { headers: [by(text)] }],
        ["/whoami", { headers: [by(text), ["Cookie", `t=${text}`]] }],
        ["/whoami", { headers: [by(text), ["X-HTTP-Method-Override", "DELETE"]] }],
        ["/whoami", { headers: [by(text), ["X_Original_URL", "/boom"]] }],
      ];
      for (const [target, one] of asked) await refused(target, one, 400, error);
      const form: Asked = {
        method: "POST",
        headers: [by(text), ["Content-Type", "application/x-www-form-urlencoded"]],
        body: [`a=1&t=${text}`],
      };
      await refused("/search", form, 400, error);
    });

    test("what a body says is decided on, whatever it is", async () => {
      const hostile = [
        "1e999", '{"a":1e999}', '{"a":"\\ud800"}', '{"\\ud800":1}', '{"":1}', "[]", "null", '"text"', "7", "true",
        '{"a":9007199254740993}', '{"a":1e300}', '{"__proto__":{"a":1}}', '{"constructor":1}',
        `{"a":${"[".repeat(4000)}${"]".repeat(4000)}}`, "{", "",
      ];
      for (const body of hostile) {
        const headers = [by(shown()), JSON_TYPE];
        const { status } = await got(server, "/search", { method: "POST", headers, body: [body] });
        assert.ok(status === 200 || (status >= 400 && status < 500), `${body.slice(0, 40)}: ${status}`);
      }
      const asked = { method: "POST", headers: [by(shown()), JSON_TYPE], body: ['{"a":1e999}'] };
      await refused("/search", asked, 403, { code: "argument" });
    });

    test("a proof is about the method, the target and the body", async () => {
      const body = '{"q":"häuser"}';
      const post = (text: string, sent = [body]): Asked => ({
        method: "POST",
        headers: [by(text), JSON_TYPE],
        body: sent,
      });
      const text = proven("POST", "/search?n=1", body);
      const came = await got(server, "/search?n=1", post(text, [body.slice(0, 4), body.slice(4)]));
      assert.deepEqual([came.status, came.text], [200, body]);
      await refused("/search?n=1", post(text), 401, { code: "replayed" });
      const bad = { code: "bad_proof", retry: "presented_anew" };
      await refused("/search?n=2", post(proven("POST", "/search?n=1", body)), 401, bad);
      await refused("/search", post(proven("PUT", "/search", body)), 401, bad);
      await refused("/search", post(proven("POST", "/search", body), ['{"q":"z"}']), 401, bad);
      await refused("/search", post(bound.present({ audience: "api" })), 401, { code: "proof_missing" });
      // With no body at all, and with one of many pieces.
      assert.equal((await got(server, "/reports/q1", { headers: [by(proven("GET", "/reports/q1"))] })).status, 200);
      const long = said({ q: "a".repeat(100_000) });
      const pieces = long.match(/[^]{1,20000}/g)!;
      const whole = await got(server, "/search", post(proven("POST", "/search", long), pieces));
      assert.deepEqual([whole.status, whole.text.length], [200, long.length]);
    });

    test("a body is read for whoever lacks nothing but the proof, and is bounded", async () => {
      const pieces = Array.from({ length: 30 }, () => "a".repeat(10_000));
      const post = (text: string): Asked => ({ method: "POST", headers: [by(text), JSON_TYPE], body: pieces });
      await refused("/search", post(proven("POST", "/search", "other")), 413, { error: "invalid_request" });
      const proof = proven("POST", "/search").split(".").at(-1)!;
      const stranger = new Issuer(Keyring.generate()).mint({ ...who, tools, key: key.public });
      const forged = `${stranger.present({ audience: "api" })}.${proof}`;
      await refused("/search", post(forged), 401, { error: "invalid_token" });
    });

    test("what is used up is refused, and what is broken is the service's own", async () => {
      const text = counted.attenuate({ tools: { search: {} } }).present({ audience: "api", expiresIn: 30 });
      const asked = { method: "POST", headers: [by(text), JSON_TYPE], body: ["{}"] };
      const { status } = await got(server, "/search", asked);
      if (status === 200) await refused("/search", asked, 403, { code: "budget_exhausted" });
      else assert.equal(status, 403, "another framework of this file has used it");
      const { status: broken, text: page } = await got(server, "/boom", { headers: [by(shown())] });
      assert.deepEqual([broken, page], [500, "a page"]);
    });

    test("without a token: what is public, and where one is to be had", async () => {
      const document = await got(server, "/.well-known/oauth-protected-resource");
      const { resource, authorization_servers: servers } = JSON.parse(document.text);
      assert.deepEqual([resource, servers], [ORIGIN, ["https://as.example"]]);
      if (name === "Request") return;
      assert.equal((await got(server, "/health")).text, "ok");
      assert.equal((await got(server, "/health", { headers: [by("nonsense")] })).text, "ok");
      // A Request has no dots any more: it is /health to whatever routes by it.
      const dots = name === "Hono" ? [] : ["/x/../health"];
      for (const path of ["/%68ealth", "/health/", "//health", ...dots]) {
        assert.equal((await got(server, path)).status, 401, path);
      }
    });
  });
}

/** Python's guard, asked without a server between. */
const GUARD = `
import asyncio, json, sys, tempfile
from pathlib import Path
from captoken import Access, Keyring, Verifier, current
from captoken.adapters.asgi import CaptokenMiddleware
from captoken.stores.memory import MemoryReplayStore

given = json.load(sys.stdin)
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "keyring.json")
    file.touch(0o600)
    file.write_text(given["keyring"])
    keyring = Keyring.load(file)
verifier = Verifier(keyring, audience="api", replays=MemoryReplayStore(floor=0))

async def app(scope, receive, send):
    name = scope["path"].rpartition("/")[2]
    current.grant().authorize(Access(tool="read", arguments={"name": name}))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})

guard = CaptokenMiddleware(app, verifier, **given["options"])

async def answer(case):
    came, (path, _, query) = [], case["target"].partition("?")
    headers = [(name.lower().encode(), value.encode()) for name, value in case["headers"]]
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": headers}
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        came.append(message)
    await guard(scope, receive, send)
    said = {name.decode(): value.decode() for name, value in came[0]["headers"]}
    said.pop("content-length", None)
    return {"status": came[0]["status"], "headers": said, "body": json.loads(came[1]["body"])}

async def main():
    print(json.dumps([await answer(case) for case in given["cases"]]))

asyncio.run(main())
`;

/**
 * What Python tells beside: words for a model that name what was asked for, and what would have done.
 * Titles of statuses are its own, and differ with its version.
 */
function alike(answer: { body: Record<string, unknown> }): unknown {
  const { for_model: model, needed: _, decision: __, title: ___, ...body } = answer.body;
  const isStranger = body["code"] === undefined && model !== undefined;
  return { ...answer, body: { ...body, isTold: isStranger ? "as a stranger" : model !== undefined } };
}

test("each answer is that of Python's guard", { skip: missing("msgspec") }, async () => {
  const stranger = new Issuer(Keyring.generate()).mint({ ...who, tools }).present({ audience: "api" });
  const late = root.attenuate({ notBefore: Math.floor(Date.now() / 1000) + 600 });
  const texts = [
    "abc", stranger, shown(), root.present({ audience: "mail" }), late.present({ audience: "api", expiresIn: 900 }),
    root.serialize(), bound.present({ audience: "api" }), proven("GET", "/reports/q2"), proven("GET", "/reports/q1"),
    proven("PUT", "/reports/q1"), root.delegate({ to: "x", depth: 0 }).present({ audience: "api" }),
  ];
  const heads: [string, string][][] = [
    ...texts.map((text): [string, string][] => [[...by(text)]]),
    [],
    [["Authorization", "Basic QTpC"]],
    [["Authorization", `bearer ${shown()}`]],
    [["Authorization", "Bearer"]],
    [[...by(shown())], ["Cookie", shown()]],
    [[...by(shown())], ["X-Forwarded-Uri", "/"]],
    [[...by("a".repeat(40_000))]],
    [[...by(shown())], ["X-Long", "a".repeat(70_000)]],
  ];
  const cases = heads.flatMap((headers) =>
    ["/reports/q1", "/reports/q2", `/reports/q1?t=${shown()}`, "/reports/q1?access_token=1"].map((target) => ({
      target,
      headers,
    })),
  );
  cases.push({ target: `/reports/q1?${"a".repeat(40_000)}`, headers: [[...by(shown())]] });

  const theirs = ran(GUARD, { keyring: keyring.serialize(), options: { origin: ORIGIN, realm: "files" }, cases }) as {
    body: Record<string, unknown>;
  }[];
  const own = new Verifier(keyring, { audience: "api", replays: new MemoryReplayStore({ floor: 0 }) });
  const serve = guarded(own, { origin: ORIGIN, realm: "files" }, (request, grant) => {
    grant.authorize({ tool: "read", arguments: { name: new URL(request.url).pathname.split("/").at(-1) } });
    return Response.json({}, { headers: {} });
  });
  const codes = new Set<unknown>();
  for (const [at, { target, headers }] of cases.entries()) {
    const response = await serve(new Request(ORIGIN + target, { headers }));
    const body = (await response.json()) as Record<string, unknown>;
    const shownHeaders = response.status === 200 ? {} : Object.fromEntries(response.headers);
    const ours = { status: response.status, headers: shownHeaders, body };
    assert.deepEqual(alike(ours), alike(theirs[at]!), said(cases[at]).slice(0, 200));
    codes.add(body["code"] ?? body["error"] ?? response.status);
  }
  assert.ok(codes.size >= 9, [...codes].join());
});
