/** The library as a program uses it. */

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { inspect } from "node:util";

import { ed25519, x25519 } from "@noble/curves/ed25519.js";
import { hashes } from "@noble/ed25519";
import { sha512 } from "@noble/hashes/sha2.js";

import { b64decode, b64encode, concat, hex, unhex } from "../src/format/bytes.js";
import { exchangePublic, shared, verify } from "../src/format/crypto.js";
import * as captoken from "../src/index.js";
import type { Told } from "../src/trail.js";

const NOW = 1_764_061_200;
const clock = (): number => NOW;
const keyring = captoken.Keyring.fromKeys(
  { k1: Uint8Array.from({ length: 32 }, (_, at) => at + 1) },
  "k1",
);
const issuer = new captoken.Issuer(keyring, { clock });
const WHO = { subject: "user:jane", agent: "orchestrator", task: "task-123" };
const SALES = { tables: ["sales", "market.*"], operations: ["select"] };
const ACCESS = { table: "sales", operation: "select" };

const minted = (): captoken.Token => issuer.mint({ ...WHO, ...SALES, expiresIn: "10m" });
const server = (
  options: captoken.VerifierOptions & Partial<captoken.Means> = {},
): captoken.Verifier => new captoken.Verifier(keyring, { clock, ...options });

function denial(decision: captoken.DryRun): captoken.Denial {
  assert.ok(!decision.allowed);
  return decision;
}

test("a holder narrows a token and hands it on, and a server learns who acts for whom", () => {
  const child = minted().delegate({
    to: "sales-agent",
    tables: ["sales"],
    expiresIn: 300,
    depth: 0,
  });
  const text = child.present({ audience: "sales-db" });
  const grant = server({ audience: "sales-db" }).authorize(text, ACCESS);
  assert.equal(grant.issued.subject, "user:jane");
  assert.deepEqual(grant.chain, [
    { name: "orchestrator", basis: "issued" },
    { name: "sales-agent", basis: "vouched" },
  ]);
  assert.equal(grant.parent?.name, "orchestrator");
  assert.equal(grant.expiresAt, NOW + 60);
  assert.equal(grant.check({ table: "market.eu", operation: "select" }).code, "table");
});

test("a denial says which rule, in which link, added by whom; and less to others", () => {
  const child = minted()
    .delegate({ to: "sales-agent", tables: ["sales"] })
    .attenuate({ operations: [] });
  const decision = denial(server().check(child.serialize(), ACCESS));
  assert.deepEqual(
    { ...decision.refusals[0], text: "" },
    { code: "operation", text: "", link: 2, addedBy: "sales-agent" },
  );
  assert.match(
    captoken.describe(decision),
    /^denied: operation, at step 8\n  operation: .* added by sales-agent/,
  );
  assert.deepEqual(captoken.forNetwork(decision), {
    status: 403,
    text: "The token does not permit this request.",
  });
  assert.ok(!captoken.forModel(decision).includes("sales"));
  const refused = new captoken.Denied(decision);
  assert.equal(refused.kind, "insufficient");
  assert.throws(() => server().authorize(child.serialize(), ACCESS), captoken.Denied);
});

test("strangers cannot tell a forged token from a revoked one", () => {
  const words = (["malformed", "unknown_key", "bad_signature", "unsupported_version"] as const).map(
    (code) => captoken.forNetwork({ ...denial(server().check("", ACCESS)), code }).text,
  );
  assert.equal(new Set(words).size, 1);
});

test("asking for more than is held is an error that names the dimension, and clamp cuts it", () => {
  assert.throws(
    () => minted().attenuate({ tables: ["hr"], operations: ["select"] }),
    (error: captoken.WideningError) => error.code === "widening" && error.dimension === "tables",
  );
  const cut = minted().attenuate({ tables: ["hr", "sales"], clamp: true });
  assert.equal(server().check(cut, ACCESS).allowed, true);
  assert.throws(() => minted().attenuate({ tables: ["hr"], clamp: true }), {
    code: "nothing_left",
  });
});

test("mistakes of the program are UsageErrors", () => {
  const token = minted();
  const wrong: (() => unknown)[] = [
    () => token.attenuate({}),
    () => token.attenuate({ tables: "sales" as unknown as string[] }),
    () => token.attenuate({ tabels: ["sales"] } as captoken.Narrowing),
    () => token.attenuate({ expiresIn: null as unknown as number }),
    () => issuer.mint({ ...WHO, tables: ["sales"] }),
    () => issuer.mint({ ...WHO }),
    () => server().check(token, { table: "sales" }),
    () => server().check(token, undefined as unknown as captoken.Access),
    () => server().authorize(token, null as unknown as captoken.Access),
    () =>
      server()
        .authenticate(token)
        .check(null as unknown as captoken.Access),
    () => new (captoken.Grant as unknown as new () => unknown)(),
    () => new (captoken.Reserved as unknown as new () => unknown)(),
    () => server().check(token, { ...ACCESS, colums: ["a"] } as captoken.Access),
    () => server().check(token, { tool: "t", arguments: { a: () => 1 } }),
    () => server().check(token, ACCESS, { caller: {} }),
    () => captoken.Keyring.fromKeys({ k: new Uint8Array(32) }, "k"),
    () => new captoken.Verifier({} as captoken.Keyring),
    () => new captoken.Verifier(keyring, "files" as captoken.VerifierOptions),
    () => new captoken.Verifier(keyring, { audiance: "files" } as captoken.VerifierOptions),
    () => token.present("files" as unknown as captoken.Presenting),
    () => token.present({} as captoken.Presenting),
  ];
  for (const ask of wrong) assert.throws(ask, captoken.UsageError, String(ask));
});

test("what is no token is a TokenFormatError to holders, and a decision of servers", () => {
  for (const text of ["", "cap1_", "cap1_A", "x", `${minted().serialize()}=`, 5, null]) {
    assert.throws(() => captoken.Token.parse(text as string), captoken.TokenFormatError);
    assert.equal(server().check(text as string, ACCESS).code, "malformed");
  }
});

test("no secret is shown by console.log, String or JSON.stringify", () => {
  const token = minted();
  const signer = captoken.HolderKey.generate();
  const grant = server().authorize(token, ACCESS);
  const denied = new captoken.Denied(
    denial(server().check(token, { table: "hr", operation: "select" })),
  );
  const discharger = captoken.DischargerKey.generate();
  const signature = token.serialize().slice(-43);
  const secret = signer.serialize().match(/"secret":"([^"]+)"/)![1]!;
  const hidden = [signature, secret, b64encode(keyring.reveal("k1")), "AQIDBAUG"];
  const verifier = server();
  for (const value of [
    token,
    signer,
    keyring,
    grant,
    denied,
    verifier,
    issuer,
    discharger,
    grant.capability,
  ]) {
    const shown = [
      inspect(value, { depth: 9, showHidden: true }),
      String(value),
      JSON.stringify(value) ?? "",
    ];
    for (const text of shown) {
      for (const each of hidden) assert.ok(!text.includes(each), `${text} shows ${each}`);
    }
  }
});

test("1.0 is not 1, and integers of any size are themselves", () => {
  const token = issuer.mint({ ...WHO, tools: { t: { n: { in: [1] } }, big: { n: { min: 1 } } } });
  const asked = (n: unknown, tool = "t"): string =>
    server().check(token, { tool, arguments: { n } }).code;
  assert.equal(asked(1), "allowed");
  assert.equal(asked(captoken.float(1)), "argument");
  assert.equal(asked("1"), "argument");
  assert.equal(asked(true), "argument");
  assert.equal(asked(2n ** 80n, "big"), "allowed");
  assert.equal(asked(captoken.float(1e300), "big"), "allowed");
  assert.equal(asked(0.5, "big"), "argument");
  const read = captoken.parseJson('{"n":1.0}') as ReadonlyMap<string, unknown>;
  assert.equal(server().check(token, { tool: "t", arguments: read }).code, "argument");
});

test("names of Object.prototype are names like any other", () => {
  const token = issuer.mint({ ...WHO, tools: { t: { q: { any: true } } } });
  for (const name of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
    const args = JSON.parse(`{"q":1,"${name}":1}`) as Record<string, unknown>;
    assert.equal(server().check(token, { tool: "t", arguments: args }).code, "argument", name);
    assert.equal(server().check(token, { tool: name }).code, "tool", name);
    assert.throws(
      () => token.attenuate({ [name]: ["x"] } as captoken.Narrowing),
      captoken.UsageError,
      name,
    );
  }
});

test("facts are read once", () => {
  const token = issuer.mint({ ...WHO, tools: { t: { q: { in: ["good"] } } } });
  let reads = 0;
  const args = {
    get q(): string {
      reads += 1;
      return reads === 1 ? "good" : "evil";
    },
  };
  assert.equal(server().check(token, { tool: "t", arguments: args }).allowed, true);
  assert.equal(reads, 1);
});

test("a bound token is worth nothing without its key, and each proof is good once", () => {
  const [mine, its] = [captoken.HolderKey.generate(), captoken.HolderKey.generate()];
  const replays = new captoken.MemoryReplayStore({ floor: 0 });
  const verifier = server({ audience: "sales-db", replays });
  const root = issuer.mint({ ...WHO, ...SALES, key: mine.public });
  const child = root.delegate({ to: "clerk", key: its.public, signer: mine });
  const text = child.present({ audience: "sales-db", signer: its, request: ACCESS });
  const grant = verifier.authorize(text, ACCESS);
  assert.deepEqual(grant.actor, { name: "clerk", basis: "proven" });
  assert.ok(grant.evidence.length === 1 && grant.evidence.every(captoken.evidenceHolds));
  assert.equal(verifier.check(text, ACCESS).code, "replayed");
  const shown = child.present({ audience: "sales-db" });
  assert.equal(verifier.check(shown, ACCESS).code, "proof_missing");
  const other = captoken.withProof(
    shown,
    mine,
    { audience: "sales-db", request: ACCESS },
    { clock },
  );
  assert.equal(verifier.check(other, ACCESS).code, "bad_proof");
  assert.throws(() => child.present({ audience: "sales-db", signer: mine }), { code: "bad_proof" });
  assert.throws(() => root.delegate({ to: "clerk", key: its.public, signer: its }), {
    code: "bad_proof",
  });
});

test("a third party's word is asked for, given, bound, and needed", () => {
  const approvals = captoken.DischargerKey.generate();
  const token = minted().require(approvals.public, { need: { approve: "payment" } });
  assert.equal(server().check(token, ACCESS).code, "missing_discharge");
  const [ticket] = token.needs;
  assert.deepEqual({ ...captoken.openTicket(approvals, ticket!).need }, { approve: "payment" });
  const answer = captoken.discharge(
    approvals,
    ticket!,
    { expiresIn: 60, operations: ["select"] },
    { clock },
  );
  const whole = token.withDischarge(answer.serialize());
  assert.equal(whole.needs.length, 0);
  assert.equal(server().check(whole, ACCESS).allowed, true);
  const narrower = whole.attenuate({ tables: ["sales"] });
  assert.equal(
    server({ audience: "x" }).check(narrower.present({ audience: "x" }), ACCESS).allowed,
    true,
  );
  assert.throws(() => captoken.openTicket(captoken.DischargerKey.generate(), ticket!), {
    code: "bad_ticket",
  });
});

test("an operator's snapshot revokes and narrows, by deltas too, and never goes back", () => {
  const key = captoken.OperatorKey.generate();
  const when = { issuedAt: NOW, expiresAt: NOW + 600 };
  const entry = (id: string, more: object): captoken.Entry =>
    captoken.overlayEntry({ id, at: NOW, by: "ops", why: "lost", ...more });
  const feed = new captoken.Feed([key.public]);
  const verifier = server({ overlay: () => feed.overlay });
  const token = minted();
  assert.equal(verifier.check(token, ACCESS).code, "stale_overlay");
  const first = captoken.signSnapshot(key, [], { ...when, seq: 1 });
  feed.accept(first);
  assert.equal(verifier.check(token, ACCESS).allowed, true);
  const narrowing = entry("a", { select: { task: "task-123" }, link: { operations: ["insert"] } });
  feed.follow([captoken.signDelta(key, feed.overlay!, [narrowing], { ...when, seq: 2 })]);
  assert.equal(verifier.check(token, ACCESS).code, "narrowed");
  const revoking = entry("b", { select: { token: token.tokenId } });
  feed.follow([captoken.signDelta(key, feed.overlay!, [narrowing, revoking], { ...when, seq: 3 })]);
  const decision = denial(verifier.check(token, ACCESS));
  assert.deepEqual([decision.code, decision.refusals[0].addedBy], ["revoked", "ops"]);
  assert.throws(() => feed.accept(first), { code: "overlay" });
  assert.equal(feed.overlay?.seq, 3);
});

/** What the operator is told of a token that is revoked for such a reason. */
function toldOf(why: string): string {
  const token = minted();
  const key = captoken.OperatorKey.generate();
  const select = { token: token.tokenId };
  const entry = captoken.overlayEntry({ id: "x", at: NOW, by: "ops", why, select });
  const data = captoken.signSnapshot(key, [entry], { seq: 1, issuedAt: NOW, expiresAt: NOW + 9 });
  const overlay = captoken.openOverlay(data, [key.public]);
  return captoken.describe(server({ overlay: () => overlay }).check(token, ACCESS));
}

test("a feed goes to no other history, unless somebody says by name what is lost", () => {
  const key = captoken.OperatorKey.generate();
  const when = { issuedAt: NOW, expiresAt: NOW + 600 };
  const revoking = captoken.overlayEntry({
    id: "a", at: NOW, by: "ops", why: "lost", select: { agent: "clerk" },
  });
  const sign = (seq: number, after: captoken.Overlay | undefined, entries: captoken.Entry[] = []) =>
    captoken.signSnapshot(key, entries, {
      ...when, seq, past: after ? captoken.pastOfNext(after) : [],
    });
  const feed = new captoken.Feed([key.public]);
  const first = feed.accept(sign(1, undefined));
  feed.accept(sign(2, first, [revoking]));
  let unaware = first;
  for (const seq of [2, 3, 4, 5]) {
    const data = sign(seq, unaware);
    unaware = captoken.openOverlay(data, [key.public]);
    assert.throws(() => feed.accept(data), seq === 2 ? /older/ : /another history/);
  }
  assert.equal(feed.overlay!.entries.length, 1);
  const resumed = { by: "user:ops", lost: 2, seq: 9, why: "set back" };
  const past = captoken.pastOfNext(unaware);
  const next = feed.accept(captoken.signSnapshot(key, [], { ...when, seq: 9, past, resumed }));
  assert.deepEqual(next.resumed, resumed);
  feed.follow([captoken.signDelta(key, next, [revoking], { ...when, seq: 10 })]);
  assert.deepEqual(feed.overlay!.past, captoken.pastOfNext(next));
});

test("an entry's link is no deeper than the snapshot that it is to stand in", () => {
  const region = { domain: "all", read: (value: unknown) => value, prohibits: () => undefined };
  const vocabulary = { "acme:region": region } as unknown as captoken.Vocabulary;
  const entry = (levels: number): captoken.Entry => {
    let value: unknown = [];
    for (let level = 1; level < levels; level++) value = [value];
    const stated = { id: "a", at: NOW, by: "ops", why: "x", select: { agent: "clerk" } };
    return captoken.overlayEntry({ ...stated, link: { "acme:region": value } }, vocabulary);
  };
  assert.equal(entry(29).id, "a");
  assert.throws(() => entry(30), /nested deeper than 32 levels/);
});

test("a reason that could steer a terminal is escaped", () => {
  assert.match(toldOf("\u001b[2Jgone\n"), /: \\u\{1b\}\[2Jgone\\u\{a\} \(operators can lift entry /m);
});

test("a holder recalls what it handed on, and nothing beside it", () => {
  const token = minted();
  const [child, other] = [token.delegate({ to: "clerk" }), token.delegate({ to: "clerk" })];
  const request = captoken.recall(token, child.attenuate({ tables: ["sales"] }), {
    audience: "control",
    why: "lost",
  });
  const plane = new captoken.ControlPlane(server({ audience: "control" }), { clock });
  const { entries } = plane.handle(request);
  const key = captoken.OperatorKey.generate();
  const data = captoken.signSnapshot(key, entries, { seq: 1, issuedAt: NOW, expiresAt: NOW + 60 });
  const overlay = captoken.openOverlay(data, [key.public]);
  const verifier = server({ overlay: () => overlay });
  assert.equal(verifier.check(child.attenuate({ tables: ["sales"] }), ACCESS).code, "revoked");
  assert.equal(
    verifier.check(child, ACCESS).allowed,
    true,
    "the link that was handed on is what is named",
  );
  assert.equal(verifier.check(other, ACCESS).allowed, true);
  assert.throws(
    () => captoken.recall(child, token, { audience: "control", why: "x" }),
    captoken.UsageError,
  );
  assert.throws(() => plane.handle("{}"), { code: "recall" });
  for (const why of ["", "  ", "a\nb", "x".repeat(201)]) {
    assert.throws(
      () => captoken.recall(token, child, { audience: "control", why }),
      captoken.UsageError,
    );
  }
});

test("own caveats are asked, and whatever a check raises prohibits", () => {
  const regions: captoken.OwnCaveat<readonly string[]> = {
    domain: "all",
    read: (value) => value as string[],
    prohibits: (value, access) => {
      const { region } = access?.attributes as { region: string };
      return value.includes(region) ? undefined : "another region";
    },
  };
  const vocabulary = { "acme:region": regions as captoken.OwnCaveat };
  const own = new captoken.Issuer(keyring, { clock, vocabulary });
  const token = own.mint({ ...WHO, ...SALES, "acme:region": ["eu"] });
  const verifier = server({ vocabulary });
  assert.equal(verifier.check(token, { ...ACCESS, attributes: { region: "eu" } }).allowed, true);
  assert.equal(
    verifier.check(token, { ...ACCESS, attributes: { region: "us" } }).code,
    "attribute",
  );
  assert.equal(verifier.check(token, ACCESS).code, "attribute");
  assert.equal(server().check(token, ACCESS).code, "unknown_caveat");
});

test("an own caveat is narrowed by what it covers, and by default by its equal alone", () => {
  const within: captoken.OwnCaveat<readonly string[]> = {
    domain: "all",
    read: (value) => value as string[],
    prohibits: () => undefined,
    covers: (held, asked) => asked.every((each) => held.includes(each)),
  };
  const { covers: _, ...plain } = within;
  const vocabulary = {
    "acme:region": within as captoken.OwnCaveat,
    "acme:plain": plain as captoken.OwnCaveat,
  };
  const own = new captoken.Issuer(keyring, { clock, vocabulary });
  const token = own.mint({ ...WHO, ...SALES, "acme:region": ["eu", "us"], "acme:plain": [1] });
  const { capability } = token.attenuate({ "acme:region": ["eu"], "acme:plain": [1] }).unverified;
  assert.equal(capability.own.length, 2, "the wider one is gone, and so is the repetition");
  for (const wide of [{ "acme:region": ["jp"] }, { "acme:plain": [2] }]) {
    assert.throws(() => token.attenuate(wide), { code: "widening" });
    assert.throws(() => token.attenuate({ ...wide, clamp: true }), { code: "nothing_left" });
  }
});

test("a newer discharge takes the place of an older one, in the order of the caveats", () => {
  const [one, two] = [captoken.DischargerKey.generate(), captoken.DischargerKey.generate()];
  const token = minted()
    .require(one.public, { need: { n: 1 } })
    .require(two.public, { need: { n: 2 } });
  const [first, second] = token.needs;
  const answer = (
    key: captoken.DischargerKey,
    ticket: captoken.Ticket,
    expiresIn: number,
  ): captoken.Discharge => captoken.discharge(key, ticket, { expiresIn }, { clock });
  const whole = token
    .withDischarge(answer(two, second!, 50))
    .withDischarge(answer(one, first!, 40))
    .withDischarge(answer(two, second!, 30));
  assert.deepEqual(
    whole.discharges.map(({ expiresAt }) => expiresAt),
    [NOW + 40, NOW + 30],
  );
  assert.deepEqual(
    whole.discharges.map(({ ticket }) => ticket.discharger),
    [one.public, two.public],
  );
  assert.ok(captoken.Token.parse(whole.serialize()).equals(whole));
  assert.equal(server().authorize(whole, ACCESS).expiresAt, NOW + 30);
  const foreign = answer(one, minted().require(one.public, { need: {} }).needs[0]!, 9);
  assert.throws(() => token.withDischarge(foreign), { code: "bad_discharge" });
});

test("where a store took long the answer is judged again, and what was reserved goes back", () => {
  let now = NOW;
  const counted = new captoken.MemoryLedger({ floor: 0 });
  const ledger: captoken.Ledger = {
    shared: false,
    look: (reservation, at) => counted.look(reservation, at),
    settle: (id, taken, at) => counted.settle(id, taken, at),
    reserve: (reservation, at) => {
      now += 30;
      return counted.reserve(reservation, at);
    },
  };
  const mint = (life: number): captoken.Token =>
    issuer.mint({ ...WHO, ...SALES, uses: 1, audience: "db", expiresIn: life });
  const verifier = new captoken.Verifier(keyring, { audience: "db", ledger, clock: () => now });
  const [short, long] = [mint(20), mint(600)];
  assert.equal(verifier.check(short, ACCESS).code, "expired");
  now = NOW;
  assert.equal(verifier.explain(short, ACCESS).allowed, true, "its use was given back");
  assert.equal(verifier.check(long, ACCESS).allowed, true);
});

const TWO = {
  marks: {
    private: { tables: new Set(["crm.*"]) },
    untrusted: { tools: ["get"] },
    outside: { tools: ["mail.*"] },
  },
  forbid: [{ in: ["outside"], after: ["untrusted", "private"] }],
};
const RIGHTS = { tables: ["crm.*"], operations: ["select"], tools: { get: {}, "mail.send": {} } };
const ROWS = { table: "crm.deals", operation: "select" };

test("what was done limits what may be done, at all that count in one ledger", () => {
  const ledger = new captoken.MemoryLedger({ shared: true, floor: 0 });
  const token = issuer.mint({ ...WHO, ...RIGHTS, ...TWO });
  assert.deepEqual(captoken.capabilityJson(token.unverified.capability).get("forbid"), [
    new Map([["after", ["private", "untrusted"]], ["in", ["outside"]]]),
  ]);
  const child = token.delegate({ to: "clerk", tools: { "mail.send": {} } });
  const one = server({ ledger });
  assert.equal(one.check(token, { tool: "mail.send" }).allowed, true);
  assert.equal(one.check(token, ROWS).allowed, true);
  assert.equal(one.explain(token, { tool: "get" }).allowed, true);
  assert.equal(one.check(child, { tool: "mail.send" }).allowed, true, "a dry run sets nothing");
  assert.equal(one.check(token, { tool: "get" }).allowed, true);
  const denied = denial(server({ ledger }).check(child, { tool: "mail.send" }));
  assert.deepEqual([denied.code, denied.step], ["forbidden_after", 11]);
  assert.deepEqual([denied.refusals[0].link, denied.refusals[0].addedBy], [0, "the issuer"]);
  assert.match(captoken.forModel(denied), /after what was done in it\. A retry will not help\./);
  assert.equal(server({ ledger }).check(token, ROWS).allowed, true);
});

test("a verifier that knows what is set denies without its ledger, and another one asks", () => {
  const ledger = new captoken.MemoryLedger({ shared: true, floor: 0 });
  const asked: string[] = [];
  const counting: captoken.Ledger = {
    shared: true,
    look: (reservation, now) => ledger.look(reservation, now),
    reserve: (reservation, now) => ledger.reserve(reservation, now),
    settle: (id, taken, now) => ledger.settle(id, taken, now),
    lookStep: (reservation, marked, now) => ledger.lookStep(reservation, marked, now),
    step: (reservation, marked, now) => {
      asked.push(`${marked.marks.length} ${marked.rules.length}`);
      return ledger.step(reservation, marked, now);
    },
  };
  const token = issuer.mint({ ...WHO, ...RIGHTS, ...TWO });
  const [one, two] = [server({ ledger: counting }), server({ ledger: counting })];
  assert.ok(one.check(token, ROWS).allowed && one.check(token, { tool: "get" }).allowed);
  assert.equal(one.authenticate(token).recheck({ tool: "mail.send" }).code, "forbidden_after");
  assert.equal(one.check(token, { tool: "mail.send" }).code, "forbidden_after");
  assert.equal(two.authenticate(token).recheck({ tool: "mail.send" }).code, "allowed");
  assert.equal(two.check(token, { tool: "mail.send" }).code, "forbidden_after");
  assert.equal(two.authenticate(token).recheck({ tool: "mail.send" }).code, "forbidden_after");
  assert.deepEqual(asked, ["1 0", "1 0", "1 1"]);
});

test("a ledger without a step, or with an answer that is none, denies what is in a mark", () => {
  const ledger = new captoken.MemoryLedger({ shared: true, floor: 0 });
  const old: captoken.Ledger = {
    shared: true,
    look: (reservation, now) => ledger.look(reservation, now),
    reserve: (reservation, now) => ledger.reserve(reservation, now),
    settle: (id, taken, now) => ledger.settle(id, taken, now),
  };
  const token = issuer.mint({ ...WHO, ...RIGHTS, ...TWO, tables: ["*"] });
  const answers: unknown[] = [undefined, true, {}, { forbidden: 7, set: [] }, { short: "0" }];
  const ledgers = answers.map((answer) => ({ ...old, step: () => answer as "reserved" }));
  for (const each of [old, ...ledgers]) {
    assert.equal(server({ ledger: each }).check(token, ROWS).code, "store_unavailable");
    assert.equal(server({ ledger: each }).check(token, ACCESS).code, "allowed");
  }
  assert.throws(() => issuer.mint({ ...WHO, ...SALES, forbid: TWO.forbid }), captoken.UsageError);
});

test("each code has words for a model, and says whether a retry can help", () => {
  const told = (code: captoken.Code): string =>
    captoken.forModel({ ...denial(server().check("", ACCESS)), code });
  assert.match(told("table"), /^Not permitted: this table is not among .* A retry will not help\./);
  assert.match(told("expired"), /^The token has expired\. A retry will not help\./);
  assert.match(told("stale_overlay"), /A retry may help\.$/);
  assert.match(told("revoked"), /^The operator has revoked/);
  assert.equal(told("unknown_key"), told("bad_signature"));
});

test("keys are made, kept, and read again, each for its purpose alone", () => {
  const kinds = [
    captoken.HolderKey,
    captoken.OperatorKey,
    captoken.AuditKey,
    captoken.DischargerKey,
    captoken.PairwiseKey,
  ];
  for (const kind of kinds) {
    const key = kind.generate();
    assert.equal(kind.parse(key.serialize()).public, key.public);
    assert.notEqual(kind.generate().public, key.public);
    for (const other of kinds) {
      if (other !== kind) assert.throws(() => other.parse(key.serialize()), { code: "keyring" });
    }
  }
  const rotated = keyring.rotate();
  const kept = captoken.Keyring.parse(rotated.serialize());
  assert.deepEqual([...kept.keyIds].sort(), [...rotated.keyIds].sort());
  assert.equal(kept.current, rotated.current);
  assert.equal(new captoken.Verifier(rotated, { clock }).check(minted(), ACCESS).allowed, true);
  assert.equal(
    new captoken.Verifier(rotated.retire("k1"), { clock }).check(minted(), ACCESS).code,
    "unknown_key",
  );
  const own = new captoken.Verifier(keyring.forAudience("db"), { clock, audience: "db" });
  assert.equal(own.check(minted(), ACCESS).code, "unknown_key");
  const theirs = new captoken.Issuer(keyring.forAudience("db"), { clock }).mint({
    ...WHO,
    ...SALES,
  });
  assert.equal(own.check(theirs, ACCESS).allowed, true);
  assert.equal(server({ audience: "db" }).check(theirs, ACCESS).allowed, true);
});

test("stores may promise, and one that fails, or answers neither yes nor no, denies", async () => {
  const signer = captoken.HolderKey.generate();
  const token = issuer.mint({ ...WHO, ...SALES, key: signer.public, uses: 1, audience: "db" });
  const text = (): string => token.present({ audience: "db", signer, request: ACCESS });
  const memory = new captoken.MemoryReplayStore({ floor: 0 });
  const counted = new captoken.MemoryLedger({ floor: 0 });
  const replays: captoken.ReplayStore = {
    add: async (use, now) => memory.add(use, now),
    look: async (use, now) => memory.look(use, now),
  };
  const ledger: captoken.Ledger = {
    shared: false,
    reserve: async (reservation, now) => counted.reserve(reservation, now),
    look: async (reservation, now) => counted.look(reservation, now),
    settle: async (id, taken, now) => counted.settle(id, taken, now),
  };
  const verifier = server({ audience: "db", replays, ledger });
  const grant = await verifier.authorizeAsync(text(), ACCESS);
  assert.equal(grant.issued.agent, "orchestrator");
  assert.equal((await verifier.checkAsync(text(), ACCESS)).code, "budget_exhausted");
  assert.throws(() => verifier.check(text(), ACCESS), captoken.UsageError);
  for (const add of [
    () => true,
    () => undefined,
    () => "yes",
    () => Promise.reject(new Error("gone")),
  ]) {
    const broken = { ...replays, add } as unknown as captoken.ReplayStore;
    const decision = await server({ audience: "db", replays: broken, ledger }).checkAsync(
      text(),
      ACCESS,
    );
    assert.equal(decision.code, "store_unavailable");
  }
  assert.equal(
    server({ audience: "db" }).check(text(), ACCESS).code,
    "store_unavailable",
    "no store at all",
  );
});

test("a reservation is closed once, and what is not taken goes back", () => {
  const token = issuer.mint({ ...WHO, ...SALES, budget: { cents: 10 }, audience: "db" });
  const ledger = new captoken.MemoryLedger({ floor: 0 });
  const grant = server({ audience: "db", ledger }).authenticate(token);
  const reserved = grant.reserve({ ...ACCESS, cost: { cents: 8 } });
  assert.equal(grant.explain({ ...ACCESS, cost: { cents: 3 } }).code, "budget_exhausted");
  assert.equal(reserved.settle({ cents: 2 }), true);
  assert.equal(reserved.cancel(), false);
  assert.equal(grant.check({ ...ACCESS, cost: { cents: 8 } }).allowed, true);
  assert.equal(grant.check({ ...ACCESS, cost: { cents: 1 } }).code, "budget_exhausted");
  assert.equal(
    grant.recheck({ ...ACCESS, cost: { cents: 1 } }).allowed,
    true,
    "a recheck asks no store",
  );
});

test("facts of the moment are asked for once a decision, and what cannot be had denies", async () => {
  const where = { threat: { in: ["low"] } };
  const token = issuer.mint({ ...WHO, ...SALES, where });
  const asked: string[] = [];
  const context = (issued: { task: string }): { threat: string } => {
    asked.push(issued.task);
    return { threat: "low" };
  };
  const calm = server({ context });
  const { grant } = calm.check(token, ACCESS) as captoken.Allowed;
  assert.equal(grant.check(ACCESS).code, "allowed");
  assert.equal(calm.check(token, null).code, "allowed");
  assert.deepEqual(asked, ["task-123", "task-123"]);
  const recorded: unknown[] = [];
  const audit = { record: ({ access }: Told) => void recorded.push(access?.attributes) };
  server({ context, audit }).check(token, { ...ACCESS, attributes: { region: "eu" } });
  assert.deepEqual(recorded, [new Map([["threat", "low"], ["region", "eu"]])]);
  const gone = (): never => {
    throw new Error("gone");
  };
  for (const broken of [gone, () => undefined as never, () => "low" as never]) {
    assert.equal(server({ context: broken }).check(minted(), ACCESS).code, "attribute");
    assert.equal(server({ context: broken }).check(minted(), null).code, "allowed");
  }
  const later = server({ context: () => Promise.resolve({ threat: "low" }) });
  assert.equal((await later.checkAsync(token, ACCESS)).code, "allowed");
  assert.throws(() => later.check(token, ACCESS), captoken.UsageError);
  const failing = server({ context: () => Promise.reject(new Error("gone")) });
  assert.equal((await failing.checkAsync(minted(), ACCESS)).code, "attribute");
  assert.throws(() => server({ context: { threat: "low" } as never }), captoken.UsageError);
});

test("an overlay that cannot be asked denies", () => {
  const overlay = (): never => {
    throw new Error("gone");
  };
  assert.equal(
    server({ overlay, allowStaleOverlay: true }).check(minted(), ACCESS).code,
    "store_unavailable",
  );
});

test("a signature whose R is of low order is refused where its equation holds", () => {
  const secret = Uint8Array.from({ length: 32 }, (_, at) => at);
  const key = ed25519.getPublicKey(secret);
  const message = new Uint8Array([1, 2, 3]);
  const good = ed25519.sign(message, secret);
  assert.ok(verify(key, message, good));
  const { Point } = ed25519;
  const { scalar } = ed25519.utils.getExtendedPublicKey(secret);
  // R is the identity, and S = k a: the equation holds, with the cofactor and without it.
  const R = Point.ZERO.toBytes();
  const digest = ed25519Hash(concat(R, key, message));
  const S = (digest * scalar) % Point.Fn.ORDER;
  const forged = concat(R, littleEndian(S));
  assert.ok(
    Point.BASE.multiplyUnsafe(S).equals(Point.fromBytes(key).multiplyUnsafe(digest)),
    "it holds",
  );
  assert.ok(!verify(key, message, forged));
  // S not reduced: the same signature under another spelling.
  const other = littleEndian(
    BigInt(
      `0x${[...good.slice(32)]
        .reverse()
        .map((byte) => byte.toString(16).padStart(2, "0"))
        .join("")}`,
    ) + Point.Fn.ORDER,
  );
  assert.ok(!verify(key, message, concat(good.slice(0, 32), other)));
  for (const low of [
    Point.ZERO.toBytes(),
    new Uint8Array(32),
    Uint8Array.from([0xee, ...Array<number>(30).fill(255), 127]),
  ]) {
    assert.ok(!verify(low, message, good));
  }
});

function littleEndian(value: bigint): Uint8Array {
  return Uint8Array.from({ length: 32 }, (_, at) => Number((value >> BigInt(8 * at)) & 255n));
}

function ed25519Hash(bytes: Uint8Array): bigint {
  const digest = sha512(bytes);
  let made = 0n;
  for (let at = 63; at >= 0; at--) made = (made << 8n) | BigInt(digest[at]!);
  return made % ed25519.Point.Fn.ORDER;
}

// --- sets of tokens ------------------------------------------------------------------------------

const SERVERS = {
  "sales-db": { ...SALES },
  mail: { tools: { send: { to: { any: true as const } } } },
};
const forServer = (name: keyof typeof SERVERS, more: object = {}): captoken.Token =>
  new captoken.Issuer(keyring.forAudience(name), { clock }).mint({
    ...WHO,
    ...SERVERS[name],
    expiresIn: "10m",
    ...more,
  });
const both = (): captoken.TokenSet =>
  captoken.TokenSet.of(forServer("sales-db"), forServer("mail"));
const serverOf = (audience: string): captoken.Verifier =>
  new captoken.Verifier(keyring.forAudience(audience), { audience, clock });

test("a set is narrowed and handed on as one, and each server is shown its own token", () => {
  const child = both().delegate({ to: "clerk", tables: ["sales"], expiresIn: "5m" });
  const [sales, mail] = [serverOf("sales-db"), serverOf("mail")];
  const text = child.present({ audience: "sales-db" });
  assert.equal(sales.check(text, ACCESS).code, "allowed");
  assert.equal(sales.check(text, { table: "market.eu", operation: "select" }).code, "table");
  assert.equal(mail.check(text, { tool: "send", arguments: { to: "a" } }).code, "unknown_key");
  const sent = child.present({ audience: "mail" });
  assert.equal(mail.check(sent, { tool: "send", arguments: { to: "a" } }).code, "allowed");
  assert.equal(child.expiresAt, NOW + 300);
  assert.deepEqual(child.servers, ["mail", "sales-db"]);
  assert.deepEqual(child.only("mail").servers, ["mail"]);
  assert.equal(child.capability("mail").data?.size, 0);
  assert.throws(() => child.present({ audience: "calendar" }), {
    message: 'the set has no token for "calendar": it is for mail, sales-db',
  });
  assert.throws(() => child.only("calendar"), captoken.UsageError);
});

test("a set goes on by the clock and the randomness of each token, once a hand-over", () => {
  const drawn: number[] = [];
  const random = (length: number): Uint8Array => {
    drawn.push(length);
    return new Uint8Array(length).fill(drawn.length);
  };
  let now = NOW;
  const set = captoken.TokenSet.parse(both().serialize(), { clock: () => now++, random });
  const first = set.delegate({ to: "clerk", expiresIn: 60 });
  assert.deepEqual([drawn, now], [[8], NOW + 1]);
  assert.deepEqual(
    first.servers.map((name) => first.token(name).unverified.expiresAt),
    [NOW + 60, NOW + 60],
  );
  first.delegate({ to: "helper" });
  assert.deepEqual(drawn, [8, 8]);
});

test("an error of a set names the server, and says where keywords go", () => {
  const wide = {
    name: "WideningError",
    dimension: "tables",
    message: /^at mail: tables: .*; servers or only says where it goes$/,
  };
  assert.throws(() => both().attenuate({ tables: ["sales"], servers: ["mail"] }), wide);
  assert.throws(() => both().attenuate({ only: { mail: { tables: ["sales"] } } }), wide);
  assert.throws(() => both().only("mail").attenuate({ tables: ["sales"] }), {
    message: "tables: no server of mail holds any",
  });
  assert.throws(() => both().attenuate({ uses: 3 }), /uses would count at each server by itself/);
  assert.throws(() => both().delegate({ to: "clerk", budget: { cents: 3 } }), captoken.UsageError);
  const holder = captoken.HolderKey.generate();
  assert.throws(() => both().delegate({ to: "clerk", key: holder.public, signer: holder }), {
    name: "DelegationError",
    message: /^at mail: the token is bound to no key/,
  });
  const hostile = JSON.parse('{"__proto__": {"tables": []}}') as NonNullable<captoken.Placing["only"]>;
  assert.throws(() => both().attenuate({ only: hostile, expiresIn: 5 }), /no token for "__proto__"/);
  const smuggled = JSON.parse('{"__proto__": {"tables": []}}') as captoken.Caveats;
  assert.throws(() => both().attenuate({ ...smuggled, expiresIn: 5 }), /no caveat is called/);
});

test("tokens of other people, tasks or keys are no set, and neither is what is no token", () => {
  const mail = forServer("mail");
  for (const other of [
    forServer("sales-db", { subject: "user:joe" }),
    forServer("sales-db").delegate({ to: "clerk" }),
    forServer("sales-db", { key: captoken.HolderKey.generate().public }),
    forServer("mail"),
    minted(),
    "cap1_AAAA" as unknown as captoken.Token,
  ]) {
    assert.throws(() => captoken.TokenSet.of(mail, other), captoken.UsageError);
  }
  assert.throws(() => captoken.TokenSet.of(), /1 to 32/);
});

test("a set that is bound to a key is handed on by it, and a proof is for one server", () => {
  const [mine, next] = [captoken.HolderKey.generate(), captoken.HolderKey.generate()];
  const bound = both().attenuate({ key: mine.public });
  const handed = bound.delegate({ to: "clerk", key: next.public, signer: mine });
  assert.ok(handed.servers.every((name) => handed.token(name).unverified.key === next.public));
  const shown = handed.present({ audience: "sales-db", signer: next, request: ACCESS });
  const replays = new captoken.MemoryReplayStore({ floor: 0 });
  const options = { audience: "sales-db", clock, replays };
  const sales = new captoken.Verifier(keyring.forAudience("sales-db"), options);
  assert.equal(sales.check(shown, ACCESS).code, "allowed");
  assert.equal(serverOf("mail").check(shown, { tool: "send" }).code, "unknown_key");
});

test("no server takes the text of a set, and nothing shows it", () => {
  const set = both();
  const text = set.serialize();
  for (const sent of [text, `${text}.cap1d_AAAA`, `caps1_${"a".repeat(40_000)}`]) {
    const decision = denial(serverOf("sales-db").check(sent, ACCESS));
    assert.equal(decision.code, "malformed");
    assert.match(captoken.describe(decision), /a set of tokens: send what present makes of it/);
  }
  assert.throws(() => captoken.Token.parse(text), /a set of tokens/);
  for (const shown of [String(set), inspect(set), JSON.stringify(set), inspect({ set })]) {
    assert.doesNotMatch(shown, /caps?1_/);
  }
  assert.equal(String(set), "<TokenSet for mail, sales-db, held by orchestrator, unverified>");
  const again = captoken.TokenSet.parse(text);
  assert.ok(again.equals(set) && !again.equals(set.attenuate({ expiresIn: 5 })));
  assert.throws(() => captoken.TokenSet.parse(`caps1_${"a".repeat(262_144)}`), /no text of a set/);
  assert.throws(() => captoken.TokenSet.parse(undefined as unknown as string), {
    name: "TokenFormatError",
  });
});

test("discharges travel with the token that asks for them", () => {
  const key = captoken.DischargerKey.generate();
  const asking = forServer("mail").require(key.public, { need: { approval: 1 } });
  const answer = captoken.discharge(key, asking.needs[0]!, { expiresIn: 60 }, { clock });
  const set = captoken.TokenSet.of(forServer("sales-db"), asking.withDischarge(answer));
  const text = set.serialize();
  assert.equal(text.split(".").length, 2);
  assert.ok(captoken.TokenSet.parse(text).equals(set));
  assert.equal(captoken.TokenSet.parse(text).token("mail").discharges.length, 1);
});

test("X25519 is that of RFC 7748, and of another library", () => {
  const again = (secret: string, other: string): string => hex(shared(unhex(secret), unhex(other)));
  // Section 5.2, the second of which has bits that are masked; then the iterated one.
  assert.equal(
    again(
      "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
      "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
    ),
    "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
  );
  assert.equal(
    again(
      "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
      "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
    ),
    "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
  );
  let [secret, other] = [`09${"00".repeat(31)}`, `09${"00".repeat(31)}`];
  for (let at = 0; at < 200; at++) {
    if (at === 1) assert.equal(secret, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
    [secret, other] = [again(secret, other), secret];
  }
  const random = (): Uint8Array => globalThis.crypto.getRandomValues(new Uint8Array(32));
  for (let at = 0; at < 200; at++) {
    const [mine, theirs] = [random(), random()];
    assert.deepEqual(exchangePublic(mine), x25519.getPublicKey(mine));
    assert.deepEqual(shared(mine, theirs), x25519.getSharedSecret(mine, theirs));
    if (at % 8 === 0) assert.deepEqual(shared(mine, exchangePublic(theirs)), shared(theirs, exchangePublic(mine)));
  }
  // Every point of low order, in each spelling, gives zeros; those next to them do not.
  const P = 2n ** 255n - 19n;
  const y = 325606250916557431795983626356110631294008115727848805560023387167927233504n;
  const spelled = (value: bigint): Uint8Array =>
    Uint8Array.from({ length: 32 }, (_, at) => Number((value >> BigInt(8 * at)) & 255n));
  for (const low of [0n, 1n, P - 1n, P, P + 1n, y, 39382357235489614581723060781553021112529911719440698176882885853963445705823n]) {
    assert.throws(() => shared(random(), spelled(low)), { name: "UsageError" });
    assert.throws(() => x25519.getSharedSecret(random(), spelled(low)));
    if (low > 1n && low < P - 1n) assert.equal(shared(random(), spelled(low + 1n)).length, 32);
  }
});

test("signatures are those of another library, whatever else sets its hash", () => {
  for (let at = 0; at < 50; at++) {
    const [secret, said] = [captoken.HolderKey.generate(), new Uint8Array(at).fill(at)];
    hashes.sha512 = () => new Uint8Array(64);
    const signature = secret.sign(said);
    assert.ok(ed25519.verify(signature, said, b64decode(secret.public)!, { zip215: false }));
    assert.ok(verify(b64decode(secret.public)!, said, signature));
  }
});

test("nothing of Node is imported, and nothing but the noble libraries", () => {
  const folder = new URL("../../src/", import.meta.url);
  for (const name of readdirSync(folder, { recursive: true }) as string[]) {
    if (!name.endsWith(".ts")) continue;
    for (const [, target] of readFileSync(new URL(name, folder), "utf8").matchAll(
      /from "([^"]+)"/g,
    )) {
      assert.match(target!, /^\.\.?\/|^@noble\/((hashes|ciphers)\/|ed25519$)/, name);
    }
  }
});
