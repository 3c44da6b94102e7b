/** What JavaScript permits, and what an attacker makes of it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { runInNewContext } from "node:vm";

import { isFree } from "../src/format/names.js";
import * as captoken from "../src/index.js";

const NOW = 1_764_061_200;
const clock = (): number => NOW;
const keyring = captoken.Keyring.fromKeys(
  { k1: Uint8Array.from({ length: 32 }, (_, at) => at + 1) },
  "k1",
);
const WHO = { subject: "user:jane", agent: "orchestrator", task: "task-123" };

/** An own caveat that denies what lies at a path, or above an amount. */
const within: captoken.OwnCaveat<{ not: string; most: number }> = {
  domain: "tool",
  read: (value) => value as { not: string; most: number },
  prohibits: ({ not, most }, access) => {
    const { path, amount } = access!.arguments as { path: string; amount?: number };
    if (path.startsWith(not)) return "not this path";
    return amount !== undefined && amount > most ? "too much" : undefined;
  },
};
const vocabulary = { "acme:not": within as captoken.OwnCaveat };
const issuer = new captoken.Issuer(keyring, { clock, vocabulary });
const server = (
  options: captoken.VerifierOptions & Partial<captoken.Means> = {},
): captoken.Verifier => new captoken.Verifier(keyring, { clock, vocabulary, ...options });
const OPEN = { tools: { "*": {} }, "acme:not": { not: "/secret", most: 5 } };

// --- what is read --------------------------------------------------------------------------------

/** The same arguments, each way that a program can have them. */
const WAYS: Readonly<Record<string, (args: Record<string, unknown>) => unknown>> = {
  "a plain object": (args) => args,
  "an object without a prototype": (args) => Object.assign(Object.create(null), args) as unknown,
  "an object of another realm": (args) =>
    runInNewContext("JSON.parse(given)", { given: JSON.stringify(args) }) as unknown,
  "a Map": (args) => new Map(Object.entries(args)),
  "a Map whose class lies": (args) =>
    new (class extends Map<string, unknown> {
      override entries(): MapIterator<[string, unknown]> {
        return new Map<string, unknown>([["path", "/open"]]).entries();
      }
      override [Symbol.iterator](): MapIterator<[string, unknown]> {
        return this.entries();
      }
      override get(): unknown {
        return "/open";
      }
    })(Object.entries(args)),
  parseJson: (args) => captoken.parseJson(JSON.stringify(args)),
  "getters that change": (args) => {
    const read = new Set<string>();
    const made = {};
    for (const [key, value] of Object.entries(args)) {
      const get = (): unknown => (read.size === read.add(key).size ? "/open" : value);
      Object.defineProperty(made, key, { get, enumerable: true });
    }
    return made;
  },
  "members that are not enumerable": (args) =>
    Object.defineProperties({}, Object.getOwnPropertyDescriptors(hidden(args))),
  "a Proxy that changes": (args) => {
    let reads = 0;
    return new Proxy(args, {
      get: (target, key) => (reads++ < Object.keys(args).length ? Reflect.get(target, key) : "/open"),
    });
  },
};

function hidden(args: Record<string, unknown>): object {
  const made = {};
  for (const [key, value] of Object.entries(args)) Object.defineProperty(made, key, { value });
  return made;
}

test("an own caveat sees what was read, each way round, and as the caveats of the library do", () => {
  const ours = issuer.mint({ ...WHO, tools: { read: { path: { path: ["/open"] } } } });
  const verifier = server();
  const token = issuer.mint({ ...WHO, ...OPEN });
  for (const [way, made] of Object.entries(WAYS)) {
    const asked = (args: Record<string, unknown>, held = token): string =>
      verifier.check(held, { tool: "read", arguments: made(args) as captoken.Facts }).code;
    for (const held of [token, ours]) {
      const denied = held === ours ? "argument" : "attribute";
      assert.equal(asked({ path: "/secret/a" }, held), denied, way);
      assert.equal(asked({ path: "/open/a" }, held), "allowed", way);
    }
    assert.equal(asked({ path: "/open", amount: 5.5 }), "attribute", `a fraction by ${way}`);
    assert.equal(asked({ path: "/open", amount: 4.5 }), "allowed", `a fraction by ${way}`);
    assert.equal(asked({ amount: 1 }), "attribute", `a check that fails by ${way}`);
  }
  for (const amount of [6n, 2n ** 80n, captoken.float(6), captoken.float(5.5)]) {
    const access = { tool: "read", arguments: { path: "/open", amount } };
    assert.equal(verifier.check(token, access).code, "attribute");
  }
});

test("an own caveat sees the arguments of a message over MCP, and its own proof of them", () => {
  const params = { name: "read", arguments: { path: "/secret/a" } };
  const token = issuer.mint({ ...WHO, ...OPEN });
  const asked = (path: string): string =>
    server().check(
      token,
      captoken.mcpAccess("tools/call", { ...params, arguments: { path } }) as captoken.Access,
    ).code;
  assert.equal(asked("/secret/a"), "attribute");
  assert.equal(asked("/open"), "allowed");
});

test("an own caveat can change neither the access nor what is asked of others", () => {
  const seen: captoken.Access[] = [];
  const changing: captoken.OwnCaveat = {
    domain: "all",
    read: (value) => value,
    prohibits: (value, access, situation) => {
      seen.push(access!);
      for (const each of [value, access, situation]) attack(each);
      return undefined;
    },
  };
  const own = { "acme:not": within as captoken.OwnCaveat, "acme:spy": changing };
  const spied = new captoken.Issuer(keyring, { clock, vocabulary: own });
  const asking = spied.mint({ ...WHO, ...OPEN, "acme:spy": [{ a: 1 }], audience: "files" });
  const verifier = server({ vocabulary: own, audience: "files" });
  const args = { path: "/open", deep: [{ to: ["jane"] }] };
  const asked = (path: string): string =>
    verifier.check(asking, { tool: "read", arguments: { ...args, path } }).code;
  for (let times = 0; times < 2; times++) {
    assert.deepEqual([asked("/secret"), asked("/open")], ["attribute", "allowed"]);
  }
  assert.deepEqual(args, { path: "/open", deep: [{ to: ["jane"] }] });
  assert.ok(seen.every((access) => Object.isFrozen(access) && Object.isFrozen(access.arguments)));
});

test("what an own caveat promises is no answer, and fails for nobody", async () => {
  const later = (fails: boolean): Promise<never> =>
    fails ? Promise.reject(new Error("gone")) : (Promise.resolve() as Promise<never>);
  for (const fails of [true, false]) {
    const promising = { domain: "all", prohibits: () => later(fails), read: (value: unknown) => value };
    const reading = { domain: "all", prohibits: () => undefined, read: () => later(fails) };
    for (const [caveat, code] of [[promising, "attribute"], [reading, "unreadable_link"]] as const) {
      const minting = { "acme:p": { ...promising } as unknown as captoken.OwnCaveat };
      const mint = new captoken.Issuer(keyring, { clock, vocabulary: minting });
      const token = mint.mint({ ...WHO, tools: { "*": {} }, "acme:p": 1 });
      const asked = server({ vocabulary: { "acme:p": caveat as unknown as captoken.OwnCaveat } });
      assert.equal(asked.check(token, { tool: "t" }).code, code);
    }
  }
  await new Promise((resolve) => setTimeout(resolve, 5));
});

// --- what leaves the library ---------------------------------------------------------------------

const BUILT_IN = new Set<unknown>();
for (const kind of [Object, Array, Map, Set, Uint8Array, Function, Error, TypeError, Promise, Date]) {
  for (let each: unknown = kind.prototype; each; each = Object.getPrototypeOf(each)) {
    BUILT_IN.add(each);
  }
}

/** Tries to change all that can be reached from a value, prototypes too. What cannot be, raises. */
function attack(value: unknown, been = new Set<unknown>()): void {
  if (typeof value !== "object" || value === null || been.has(value) || BUILT_IN.has(value)) return;
  been.add(value);
  const tries: (() => unknown)[] = [];
  if (value instanceof Map) {
    value.forEach((each) => attack(each, been));
    for (const key of [...value.keys(), "evil"]) {
      tries.push(() => value.set(key, EVIL), () => Map.prototype.set.call(value, key, EVIL));
    }
    tries.push(() => value.clear(), () => Map.prototype.clear.call(value));
  } else if (value instanceof Set) {
    value.forEach((each) => attack(each, been));
    tries.push(() => value.add("evil"), () => Set.prototype.add.call(value, "evil"));
    tries.push(() => value.clear(), () => Set.prototype.clear.call(value));
  } else if (value instanceof Uint8Array) {
    tries.push(() => value.fill(0), () => new Uint8Array(value.buffer).fill(0));
  } else if (Array.isArray(value)) {
    tries.push(() => value.unshift(EVIL), () => value.pop(), () => (value.length = 0));
  }
  for (const key of Reflect.ownKeys(value)) {
    try {
      attack((value as Record<PropertyKey, unknown>)[key], been);
    } catch {
      // A getter of a prototype, asked without its object.
    }
    tries.push(
      () => Reflect.set(value, key, EVIL),
      () => Reflect.defineProperty(value, key, { value: EVIL }),
      () => Reflect.deleteProperty(value, key),
    );
  }
  attack(Object.getPrototypeOf(value), been);
  tries.push(
    () => Reflect.set(value, "evil", EVIL),
    () => Reflect.setPrototypeOf(value, { allowed: true, code: "allowed" }),
  );
  for (const attempt of tries) {
    try {
      attempt();
    } catch {
      // Frozen.
    }
  }
}

const EVIL = "evil";

test("nothing that is handed out changes what is decided, or what is said next", () => {
  const [mine, its] = [captoken.HolderKey.generate(), captoken.HolderKey.generate()];
  const asks = captoken.DischargerKey.generate();
  const operator = captoken.OperatorKey.generate();
  const replays = new captoken.MemoryReplayStore({ floor: 0 });
  const ledger = new captoken.MemoryLedger({ floor: 0, shared: true });
  const root = issuer.mint({
    ...WHO, ...OPEN, tables: ["sales"], operations: ["select"], budget: { cents: 90 }, uses: 90,
    key: mine.public, ext: { "acme:tenant": "t1" }, columns: { sales: ["a"] }, where: { at: { in: [1] } },
  });
  const child = root.delegate({ to: "clerk", key: its.public, signer: mine, tools: { read: { path: { path: ["/"] } } }, keep: "tables" });
  const asking = child.require(asks.public, { need: { approve: ["payment"] }, location: "here" });
  const answer = captoken.discharge(asks, asking.needs[0]!, { expiresIn: 60 }, { clock });
  const whole = asking.withDischarge(answer);
  const gone = issuer.mint({ ...WHO, ...OPEN });
  const entry = (id: string, select: object, link?: object): captoken.Entry =>
    captoken.overlayEntry({ id, at: NOW, by: "ops", why: "lost", select, ...(link && { link }) });
  const entries = [
    entry("a", { token: gone.tokenId }),
    entry("b", { token: root.tokenId }, { tools: { read: {}, write: {} }, tables: ["sales"], operations: ["select"] }),
  ];
  const when = { seq: 1, issuedAt: NOW, expiresAt: NOW + 600, past: [] };
  const feed = new captoken.Feed([operator.public]);
  const accepted = feed.accept(captoken.signSnapshot(operator, entries, when));
  const verifier = server({ audience: "files", allowUnaddressed: true, replays, ledger, overlay: () => feed.overlay });
  const request = captoken.httpRequest("POST", "https://a.example", "/");
  const text = (): string => whole.present({ audience: "files", signer: its, request });
  const READ = { tool: "read", arguments: { path: "/a" }, attributes: { at: 1 }, cost: { cents: 1 } };
  const ACCESSES: captoken.Access[] = [
    READ,
    { ...READ, arguments: { path: "/secret" } },
    { ...READ, arguments: { path: "/a", more: [1] } },
    { ...READ, tool: "other" },
    { ...READ, attributes: { at: 2 } },
    { table: "sales", operation: "select", columns: ["a"], attributes: { at: 1 }, cost: { cents: 1 } },
    { table: "sales", operation: "select", columns: ["b"], attributes: { at: 1 }, cost: { cents: 1 } },
    { table: "hr", operation: "select", columns: ["a"], attributes: { at: 1 }, cost: { cents: 1 } },
  ];
  const stays = verifier.authenticate(text(), { request });
  const kept = stays.reserve(READ);
  const set = captoken.TokenSet.of(
    new captoken.Issuer(keyring.forAudience("files"), { clock }).mint({ ...WHO, tools: { read: {} } }),
  );

  /** All that the library says, in words. */
  const said = (): string => {
    const decisions = [
      verifier.check(gone, READ),
      verifier.check("", READ),
      verifier.check(root, READ),
      ...ACCESSES.flatMap((access) => [verifier.explain(text(), access, { request }), stays.recheck(access)]),
    ];
    const { issued, chain, linkIds, task, evidence, capability, expiresAt, actor, parent, key } = stays;
    const words = decisions.map((each) => [
      captoken.describe(each),
      each.allowed ? each.code : captoken.forNetwork(each),
    ]);
    return inspect(
      [
        words,
        { issued, chain, linkIds, task, evidence, expiresAt, actor, parent, key, of: captoken.capabilityJson(capability) },
        whole.unverified, whole.needs, captoken.openTicket(asks, asking.needs[0]!), answer.ticket,
        feed.overlay?.entries.length, feed.overlay?.past, keyring.keyIds, keyring.current, keyring.audience,
        mine.public, mine.purpose, set.servers, set.capability("files"), set.token("files").unverified,
        verifier.check(set.token("files"), { tool: "write" }).code,
        captoken.readEvidence({ ...evidence[0]! }),
      ],
      { depth: 20, maxArrayLength: null, sorted: true },
    );
  };

  const before = said();
  assert.match(before, /denied: revoked/);
  assert.match(before, /denied: narrowed/);
  assert.match(before, /denied: column/);
  assert.match(before, /denied: argument/);
  const handedOut: [string, () => unknown][] = [
    ["a grant", () => stays],
    ["what a grant can do", () => stays.capability],
    ["evidence", () => stays.evidence],
    ["a reservation", () => kept],
    ["an overlay", () => accepted],
    ["the overlay of a feed", () => feed.overlay],
    ["an overlay that deltas gave", () => captoken.followOverlay(accepted, [], [operator.public])],
    ["entries", () => entries],
    ["a token", () => whole],
    ["what a token says", () => whole.unverified],
    ["tickets", () => [whole.needs, asking.needs, answer, answer.ticket]],
    ["what a ticket asks for", () => captoken.openTicket(asks, asking.needs[0]!)],
    ["keys", () => [keyring, keyring.keyIds, mine, its, asks, operator, keyring.reveal("k1")]],
    ["a set", () => [set, set.servers, set.token("files"), set.capability("files")]],
    ["a float", () => [captoken.float(1), captoken.parseJson("[1.0,{}]")]],
    ["an error", () => new captoken.Denied(verifier.check("", READ) as captoken.Denial)],
    ["what is met", () => captoken.meet(stays.capability, whole.unverified.capability)],
    ["what meets in nothing", () => captoken.meet(
      issuer.mint({ ...WHO, tools: { t: { a: { in: [1] } } } }).unverified.capability,
      issuer.mint({ ...WHO, tools: { t: { a: { prefix: ["x"] } } } }).unverified.capability,
    )],
    ...ACCESSES.map((access): [string, () => unknown] => [
      "a decision", () => [verifier.explain(text(), access, { request }), stays.recheck(access), verifier.check(text(), access, { request })],
    ]),
    ["decisions on what is revoked, and on no token", () => [verifier.check(gone, READ), verifier.check("", READ), verifier.check(root, READ)]],
  ];
  for (const [what, made] of handedOut) {
    attack(made());
    assert.equal(said(), before, what);
  }
  assert.equal(kept.settle({ cents: 0 }), true);
});

test("what was given can be changed afterwards, and decides nothing", () => {
  const own: Record<string, captoken.OwnCaveat> = { ...vocabulary };
  const options = { audience: ["files"], vocabulary: own, overlay: (): undefined => undefined };
  const verifier = server(options);
  const token = issuer.mint({ ...WHO, ...OPEN }).attenuate({ audience: "other" });
  const asked = (): string => verifier.check(token, { tool: "read", arguments: { path: "/open" } }).code;
  assert.equal(asked(), "stale_overlay");
  Object.assign(options, { overlay: undefined, allowStaleOverlay: true });
  options.audience.push("other");
  own["acme:not"] = { ...own["acme:not"]!, prohibits: () => undefined };
  assert.equal(asked(), "stale_overlay");
  const link = { cid: new TextEncoder().encode('{"tools":{}}') };
  const raw = issuer.mint({ ...WHO, tools: { t: {} } }).withRawLink(link);
  link.cid.fill(0x20);
  assert.equal(server().check(raw, { tool: "t" }).code, "tool");
});

test("only an overlay that was opened is one", async () => {
  const token = issuer.mint({ ...WHO, ...OPEN });
  const operator = captoken.OperatorKey.generate();
  const when = { seq: 1, issuedAt: NOW, expiresAt: NOW + 600 };
  const real = captoken.openOverlay(captoken.signSnapshot(operator, [], when), [operator.public]);
  const asked = (overlay: unknown): string =>
    server({ overlay: () => overlay as captoken.Overlay }).check(token, { tool: "t", arguments: { path: "/" } }).code;
  assert.equal(asked(real), "allowed");
  const others = [
    { ...real }, Object.create(real), new Proxy(real, {}), null, true, [], "overlay",
    Promise.resolve(real), Promise.reject(new Error("gone")),
  ];
  for (const other of others) assert.equal(asked(other), "store_unavailable", inspect(other));
  await new Promise((resolve) => setTimeout(resolve, 5));
});

// --- what errors tell ----------------------------------------------------------------------------

/** The answer that Fastify makes of an error (`lib/error-handler.js`): these fields of it. */
const fastify = (error: Error & { code?: unknown; status?: unknown }): unknown => ({
  statusCode: error.status,
  code: error.code,
  message: error.message,
});

test("a denial that is thrown tells the network's words, however it is printed or sent", () => {
  const token = issuer.mint({ ...WHO, ...OPEN }).delegate({ to: "clerk", tools: { read: {} } });
  const codes = new Set<string>();
  const shown = new Map<string, Set<string>>();
  for (const [held, access] of [
    [token, { tool: "write", arguments: { path: "/" } }],
    [token, { tool: "read", arguments: { path: "/secret" } }],
    [token, { table: "sales", operation: "select" }],
    ["cap1_", { tool: "read" }],
    [`${token.serialize().slice(0, -2)}AA`, { tool: "read" }],
  ] as const) {
    let denied: captoken.Denied | undefined;
    try {
      server().authorize(held, access);
    } catch (error) {
      denied = error as captoken.Denied;
    }
    assert.ok(denied instanceof captoken.Denied && denied instanceof captoken.CaptokenError);
    codes.add(denied.decision.code);
    const { status, text } = captoken.forNetwork(denied.decision);
    assert.deepEqual([denied.status, denied.message, denied.public], [status, text, text]);
    const own = Object.getOwnPropertyNames(denied).filter((name) => name !== "stack");
    assert.deepEqual(own.sort(), ["code", "message", "name"]);
    const said = [
      String(denied), `${denied}`, JSON.stringify(denied), JSON.stringify({ denied }),
      JSON.stringify({ ...denied }), JSON.stringify(fastify(denied)), inspect(denied, { depth: 9, showHidden: true }),
      inspect({ denied }), inspect(denied, { customInspect: false, showHidden: true, depth: 9 }),
    ].join("\n").replace(/^ +at .*$/gm, "");
    for (const hidden of ["jane", "orchestrator", "clerk", "task-123", "added", "refusals", `"${denied.decision.code}"`, `'${denied.decision.code}'`]) {
      assert.ok(!said.includes(hidden), `${said} tells ${hidden}`);
    }
    assert.match(said, /^Denied: The token/);
    assert.deepEqual(JSON.parse(JSON.stringify(denied)), { status, text });
    shown.set(text, (shown.get(text) ?? new Set()).add(said));
    assert.match(captoken.describe(denied.decision), new RegExp(`^denied: ${denied.decision.code}`));
  }
  assert.ok(codes.size === 5 && shown.size === 2);
  for (const each of shown.values()) assert.equal(each.size, 1, "denials that differ in words alone");
});

// --- what a program writes by mistake ------------------------------------------------------------

const FILES = { tools: { read: { path: { path: ["/a"] } }, write: {} } };
const usage = (ask: () => unknown, what: string): void =>
  assert.throws(ask, (error) => error instanceof captoken.UsageError, what);

test("what is undefined is a mistake wherever a key is written, and not what was left out", () => {
  const token = issuer.mint({ ...WHO, ...FILES });
  const verifier = server({ audience: "files", allowUnaddressed: true });
  const grant = verifier.authenticate(token);
  const signer = captoken.HolderKey.generate();
  const set = captoken.TokenSet.of(
    new captoken.Issuer(keyring.forAudience("files"), { clock }).mint({ ...WHO, ...FILES }),
  );
  const asks = captoken.DischargerKey.generate();
  const asking = token.require(asks.public, { need: {} });
  const child = token.delegate({ to: "clerk" });
  /** Each place where a program writes keys: the keys, and what is done with them. */
  const PLACES: readonly (readonly [string, string, object, (given: any) => unknown])[] = [
    ["attenuate", "tables operations allow columns rows tools where uses budget fresh expiresIn expiresAt notBefore audience task depth delegateOnly key signer keep clamp acme:not", { tools: { read: { path: { path: ["/a"] } } } }, (given) => token.attenuate(given)],
    ["delegate", "tables tools where uses budget expiresIn audience task depth delegateOnly key signer keep clamp", { to: "clerk" }, (given) => token.delegate(given)],
    ["mint", "tables tools where expiresIn expiresAt audience depth key ext unrestricted uses", { ...WHO, ...FILES }, (given) => issuer.mint(given)],
    ["present", "tools expiresIn signer request maxChars keep clamp where", { audience: "files" }, (given) => token.present(given)],
    ["a set's attenuate", "tools servers only key signer keep clamp", { expiresIn: 5 }, (given) => set.attenuate(given)],
    ["a set's delegate", "tools servers only key signer keep clamp", { to: "clerk" }, (given) => set.delegate(given)],
    ["only", "tools where", { expiresIn: 5 }, (given) => set.attenuate({ only: { files: given } })],
    ["a verifier", "audience allowUnaddressed leeway maxAge replays ledger overlay maxStaleness allowStaleOverlay storeTimeout vocabulary clock random", { audience: "files" }, (given) => new captoken.Verifier(keyring, given)],
    ["asking a verifier", "caller request signal", {}, (given) => verifier.check(token, { tool: "write" }, given)],
    ["asking a grant", "caller signal", {}, (given) => grant.check({ tool: "write" }, given)],
    ["a caller", "agent task", { agent: "orchestrator", task: "task-123" }, (caller) => verifier.check(token, null, { caller })],
    ["an access", "table operation columns row becomes rows arguments attributes cost", { tool: "write" }, (given) => verifier.check(token, given)],
    ["an issuer", "vocabulary clock random", { clock }, (given) => new captoken.Issuer(keyring, given)],
    ["parse", "vocabulary clock random", { clock }, (given) => captoken.Token.parse(token.serialize(), given)],
    ["withProof", "request", { audience: "files" }, (given) => captoken.withProof(token.present({ audience: "files" }), signer, given)],
    ["require", "location", { need: {} }, (given) => token.require(asks.public, given)],
    ["discharge", "tools where audience notBefore", { expiresIn: 5 }, (given) => captoken.discharge(asks, asking.needs[0]!, given)],
    ["a store of proofs", "floor limit", {}, (given) => new captoken.MemoryReplayStore(given)],
    ["a ledger", "floor shared", {}, (given) => new captoken.MemoryLedger(given)],
    ["a control plane", "most part by clock random", {}, (given) => new captoken.ControlPlane(verifier, given)],
    ["recall", "signer expiresIn", { audience: "control", why: "lost" }, (given) => captoken.recall(token, child, given)],
    ["checkTrail", "known after", {}, (given) => captoken.checkTrail("", [], given)],
  ];
  for (const [what, keys, base, ask] of PLACES) {
    ask({ ...base });
    usage(() => ask({ ...base, [Symbol("tools")]: {} }), `a symbol in ${what}`);
    usage(() => ask(Object.create({ ...base })), `${what}, of an object that inherits all`);
    usage(() => ask(new (class { tools = {}; })()), `${what}, of an object of a class`);
    for (const key of keys.split(" ")) {
      usage(() => ask({ ...base, [key]: undefined }), `${key} in ${what}`);
    }
  }
  for (const name of ["allowUnaddressed", "unrestricted", "tools", "audience"]) {
    Object.defineProperty(Object.prototype, name, { value: true, configurable: true });
    try {
      assert.equal(server({ audience: ["x"] }).check(token, { tool: "write" }).allowed, false, name);
      usage(() => issuer.mint({ ...WHO }), `${name} of all objects`);
    } finally {
      delete (Object.prototype as Record<string, unknown>)[name];
    }
  }
  for (const wrong of [{ audience: null }, { overlay: null }, { overlay: {} }]) {
    usage(() => new captoken.Verifier(keyring, wrong as object), inspect(wrong));
  }
  for (const caller of [null, false, "", 0]) {
    usage(() => verifier.check(token, { tool: "write" }, { caller } as object), inspect(caller));
  }
});

// --- what a client sends -------------------------------------------------------------------------

/** Arguments as the text of a body, and what is decided: under `{ n: { min: 1 } }`, under `any`. */
const BODIES: readonly (readonly [body: string, bounded: string, any: string])[] = [
  ['{"n":1}', "allowed", "allowed"],
  ['{"n":0}', "argument", "allowed"],
  ['{"n":1e300}', "allowed", "allowed"],
  ['{"n":-1e300}', "argument", "allowed"],
  ['{"n":9007199254740993}', "allowed", "allowed"],
  ['{"n":-9007199254740993}', "argument", "allowed"],
  ['{"n":1e999}', "argument", "argument"],
  ['{"n":[-1e999]}', "argument", "argument"],
  ['{"n":"\\ud800"}', "tool", "tool"],
  ['{"n":{"\\udfff":1}}', "tool", "tool"],
  ['{"\\ud800":1}', "tool", "tool"],
  ['{"":1}', "tool", "tool"],
  ['{"n":1,"":1}', "tool", "tool"],
  ['{" n":1}', "tool", "tool"],
  ['{"n\\u200b":1}', "tool", "tool"],
  [`{"${"n".repeat(257)}":1}`, "tool", "tool"],
  [`{"n":${"[".repeat(50_000)}${"]".repeat(50_000)}}`, "tool", "tool"],
  ['{"__proto__":1,"n":1}', "argument", "argument"],
  ["[1]", "tool", "tool"],
  ['"n"', "tool", "tool"],
  ["5", "tool", "tool"],
  ["true", "tool", "tool"],
];

test("what JSON can say is decided on, and never raised", async () => {
  const verifier = server();
  const tools = { bounded: { n: { min: 1 } }, any: { n: { any: true as const } } };
  const token = issuer.mint({ ...WHO, tools });
  const grant = verifier.authenticate(token);
  for (const [body, bounded, any] of BODIES) {
    for (const [tool, expected] of [["bounded", bounded], ["any", any]] as const) {
      const access = { tool, arguments: JSON.parse(body) as captoken.Facts };
      const decisions: captoken.DryRun[] = [
        verifier.check(token, access), verifier.explain(token, access),
        await verifier.checkAsync(token, access), await grant.checkAsync(access),
        grant.check(access), grant.explain(access), grant.recheck(access),
      ];
      const short = body.slice(0, 40);
      for (const { code } of decisions) assert.equal(code, expected, `${short} for ${tool}`);
      if (expected === "allowed") continue;
      const [decision] = decisions as [captoken.Denial];
      assert.deepEqual([decision.step, captoken.forNetwork(decision).status], [8, 403]);
      assert.equal(decision.who?.root.subject, "user:jane");
      assert.throws(() => verifier.authorize(token, access), captoken.Denied, short);
      await assert.rejects(verifier.authorizeAsync(token, access), captoken.Denied, short);
    }
  }
  const elsewhere: readonly (readonly [object, string])[] = [
    [{ tool: "a..b" }, "tool"],
    [{ tool: 5 }, "tool"],
    [{ tool: "any", attributes: { "": 1 } }, "tool"],
    [{ table: "a*", operation: "select" }, "domain"],
    [{ table: "t", operation: "select all" }, "domain"],
    [{ table: "t", operation: "select", columns: [""] }, "domain"],
    [{ table: "t", operation: "select", columns: "a" }, "domain"],
    [{ table: "t", operation: "insert", becomes: { a: 1e999 } }, "domain"],
    [{ attributes: { a: "\ud800" } }, "domain"],
  ];
  for (const [access, code] of elsewhere) {
    assert.equal(verifier.check(token, access).code, code, inspect(access));
    assert.throws(() => captoken.checkAccess(access), captoken.UsageError, inspect(access));
  }
  const bad = { tool: "any", arguments: { "": 1 } };
  const late = new captoken.Verifier(keyring, { clock: () => NOW + 3600 });
  assert.equal(late.check(token, bad).code, "expired", "a token that is over is told that");
  assert.equal(server({ audience: "x" }).check(token, bad).code, "unaddressed");
  assert.equal(verifier.check("cap1_", bad).code, "malformed");
  const counted = new captoken.MemoryLedger({ floor: 0 });
  const once = issuer.mint({ ...WHO, tools, uses: 1, audience: "x" });
  const counting = server({ audience: "x", ledger: counted });
  assert.equal(counting.check(once, bad).code, "tool");
  assert.equal(counting.check(once, { tool: "any", arguments: { n: 1 } }).code, "allowed");
  const own = issuer.mint({ ...WHO, ...OPEN });
  assert.equal(verifier.check(own, bad).code, "tool", "own caveats are not asked");
});

test("what no JSON can say is a mistake of the program", () => {
  const token = issuer.mint({ ...WHO, tools: { t: {} } });
  const values = [
    undefined, () => 1, Symbol("a"), new Date(), /a/, new Set([1]), new Uint8Array(2), Object("a"),
    Promise.resolve(1), new (class A {})(), [undefined], [,], { a: undefined }, { [Symbol("a")]: 1 }, new WeakMap(),
  ];
  for (const n of values) {
    usage(() => server().check(token, { tool: "t", arguments: { n } }), inspect(n));
    usage(() => server().check(token, { tool: "t", arguments: new Map([["n", n]]) }), inspect(n));
  }
  const accesses = [
    undefined, "t", 5, () => ({ tool: "t" }), Promise.resolve({ tool: "t" }), [], new Date(), { table: "t" },
    { arguments: {} }, { tool: "t", argument: {} }, { tool: "t", cost: { cents: -1 } }, { [Symbol("tool")]: "t" },
  ];
  for (const access of accesses) {
    usage(() => server().check(token, access as captoken.Access), inspect(access));
  }
});

// --- stores --------------------------------------------------------------------------------------

test("a store that fails, hangs or is not waited for denies, and nothing is left unhandled", async () => {
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => void unhandled.push(error);
  process.on("unhandledRejection", note);
  try {
    const signer = captoken.HolderKey.generate();
    const token = issuer.mint({ ...WHO, tools: { t: {} }, key: signer.public, uses: 50, audience: "x" });
    const text = (): string => token.present({ audience: "x", signer, request: { tool: "t" } });
    let aborted = 0;
    let late: (error: Error) => void = () => undefined;
    const hangs = (...given: unknown[]): Promise<never> =>
      new Promise((_, reject) => {
        late = reject;
        (given.at(-1) as AbortSignal).addEventListener("abort", () => (aborted += 1));
      });
    const fails: readonly (() => unknown)[] = [
      () => Promise.reject(new Error("gone")),
      () => { throw new Error("gone"); },
      () => { throw new captoken.UsageError("gone"); },
      () => Promise.reject(new captoken.UsageError("gone")),
      () => ({ then: () => { throw new Error("gone"); } }),
      () => Promise.resolve({ short: "1" }),
    ];
    const real = (): [captoken.ReplayStore, captoken.Ledger] => [
      new captoken.MemoryReplayStore({ floor: 0 }), new captoken.MemoryLedger({ floor: 0 }),
    ];
    const both = (method: unknown): [captoken.ReplayStore, captoken.Ledger][] => {
      const [replays, ledger] = real();
      const all = { add: method, look: method, reserve: method, settle: method, shared: false };
      return [[all as unknown as captoken.ReplayStore, ledger], [replays, all as unknown as captoken.Ledger]];
    };
    for (const method of fails) {
      for (const [replays, ledger] of both(method)) {
        const verifier = server({ audience: "x", replays, ledger });
        assert.equal((await verifier.checkAsync(text(), { tool: "t" })).code, "store_unavailable");
        try {
          assert.equal(verifier.check(text(), { tool: "t" }).code, "store_unavailable");
        } catch (error) {
          assert.match(String(error), /UsageError: a store that promises/);
        }
      }
    }
    for (const [replays, ledger] of both(hangs)) {
      const verifier = server({ audience: "x", replays, ledger, storeTimeout: 1 });
      const before = aborted;
      assert.equal((await verifier.checkAsync(text(), { tool: "t" })).code, "store_unavailable");
      assert.equal(aborted, before + 1, "the store is told that nobody waits");
      late(new Error("too late"));
      const ends = new AbortController();
      const asked = verifier.checkAsync(text(), { tool: "t" }, { signal: ends.signal });
      ends.abort();
      assert.equal((await asked).code, "store_unavailable");
      const over = await verifier.checkAsync(text(), { tool: "t" }, { signal: AbortSignal.abort() });
      assert.equal(over.code, "store_unavailable");
      late(new Error("too late"));
    }
    const [replays, ledger] = real();
    for (const settle of [fails[0]!, fails[1]!, hangs]) {
      const closing = { ...both(settle)[1]![1], look: ledger.look.bind(ledger), reserve: ledger.reserve.bind(ledger) };
      const verifier = server({ audience: "x", replays, ledger: closing as captoken.Ledger, storeTimeout: 1 });
      const reserved = await (await verifier.authorizeAsync(text(), { tool: "t" })).reserveAsync({ tool: "t" });
      assert.equal(await reserved.settleAsync(), false, "what was not given back is spent");
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(unhandled, []);
  } finally {
    process.off("unhandledRejection", note);
  }
});

test("the names of 4.4 go by one table, whatever the engine's is", () => {
  const [inside, padded]: [number[], number[]] = [[], []];
  for (let point = 0; point <= 0x10ffff; point++) {
    const one = String.fromCodePoint(point);
    if (!isFree(`a${one}b`)) inside.push(point);
    else if (!isFree(`${one}b`) || !isFree(`a${one}`)) padded.push(point);
  }
  // 2285 and 17 in Unicode 17.0; those that an engine's older table has are among them.
  assert.deepEqual([inside.length, padded.length], [2285, 17]);
  const isHidden = (point: number): boolean =>
    /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(String.fromCodePoint(point));
  const since15 = inside.filter((point) => point < 0x13439 || point > 0x1343f);
  assert.ok(since15.every(isHidden) && since15.length === 2278);
  assert.ok(padded.every((point) => /\p{Zs}/u.test(String.fromCodePoint(point))));
});
