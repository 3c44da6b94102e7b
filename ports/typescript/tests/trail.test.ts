/** The writer of trails: the lines are those of Python, and what cannot be recorded is not allowed. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import {
  AuditKey,
  DischargerKey,
  HolderKey,
  Issuer,
  Keyring,
  MemoryLedger,
  MemoryReplayStore,
  Verifier,
  checkTrail,
  float,
  readTrail,
  type Access,
  type Token,
} from "../src/index.js";
import { b64encode } from "../src/format/bytes.js";
import { AuditTrail, type TrailOptions, type Told, type Write } from "../src/trail.js";
import { ENVIRONMENT, PYTHON, missing, ran } from "./python.js";

const NOW = 1_800_000_000;
const clock = (): number => NOW;
const KEYRING = Keyring.generate();
const who = { subject: "user:jane", agent: "orchestrator", task: "task-123" };
const issuer = new Issuer(KEYRING, { clock });

/** A trail in memory. */
function kept(more: TrailOptions = {}): { trail: AuditTrail; text: () => string } {
  const parts: Buffer[] = [];
  const write: Write = (lines) => parts.push(Buffer.from(lines)) && lines.length;
  const trail = new AuditTrail(write, { clock: () => NOW + 0.25, ...more });
  return { trail, text: () => Buffer.concat(parts).toString() };
}

/** What is decided, in both languages: a token, and accesses. */
function cases(): [Token, readonly Access[]][] {
  const plain = issuer.mint({ ...who, tools: { read: { path: { path: ["/reports"] } }, "*": {} }, expiresIn: "10m" });
  const handed = plain.delegate({ to: "clerk", tools: { read: { path: { path: ["/reports/2025"] } } }, expiresIn: "5m" });
  const data = issuer.mint({ ...who, tables: ["sales", "hr.*"], operations: ["select"], audience: ["files", "mail"] });
  const asks = plain.require(DischargerKey.generate().public, { need: { yes: true } });
  const given = { path: "/reports/2025/q3", "ä": float(1), big: 2 ** 60, none: null, mark: { "~": "x" }, list: [1.5, true, "é\u2028"] };
  return [
    [plain, [{ tool: "read", arguments: given }, { tool: "read", arguments: { path: "/etc" } }, { tool: "go" }]],
    [handed, [{ tool: "read", arguments: { path: "/reports/2025" } }, { tool: "write" }]],
    [data, [{ table: "sales", operation: "select", columns: ["b", "a"], attributes: { day: "mon" } }, { table: "hr.pay", operation: "select", columns: [] }, { table: "hr", operation: "update" }]],
    [asks, [{ tool: "read" }]],
  ];
}

const IN_PYTHON = `
import json, sys
from captoken import Access, Keyring, Token, Verifier
from captoken.audit.trail import AuditTrail
from captoken.keys.secret import AuditKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore

told = json.load(sys.stdin)
lines = []
key = AuditKey.from_bytes(bytes(told["key"])) if told.get("key") else None
trail = AuditTrail(lambda data: lines.append(data.decode()), clock=lambda: ${NOW}.25, values=told["values"], key=key, every=told["every"], trace=lambda: told["trace"])
now = lambda: ${NOW}
verifier = Verifier(Keyring.load(told["keyring"]), audience="files", audit=trail, clock=now, allow_unaddressed=True,
    leeway=told["leeway"], ledger=MemoryLedger(shared=True, floor=0), replays=MemoryReplayStore(floor=0))
for text, accesses in told["cases"]:
    for access in accesses:
        verifier.check(text, Access(**access))
print(json.dumps("".join(lines)))
`;

/** Both trails of the same decisions: here, and in Python. */
function both(
  asked: readonly (readonly [Token, readonly Access[]])[],
  { values = false, leeway = 0, every = 1000, key, trace = "r-1" }: { values?: boolean; leeway?: number; every?: number; key?: Uint8Array; trace?: string } = {},
): [string, string] {
  const folder = mkdtempSync(join(tmpdir(), "captoken-"));
  try {
    const keyring = join(folder, "keyring.json");
    writeFileSync(keyring, KEYRING.serialize(), { mode: 0o600 });
    const more = { every, trace: () => trace, ...(key && { key: AuditKey.fromBytes(key) }) };
    const { trail, text } = kept({ values, ...more });
    const verifier = new Verifier(KEYRING, {
      ...{ audience: "files", allowUnaddressed: true, leeway, clock, audit: trail },
      ...{ ledger: new MemoryLedger({ shared: true, floor: 0 }), replays: new MemoryReplayStore({ floor: 0 }) },
    });
    const texts = asked.map(([token, accesses]) => [token.present({ audience: "files" }), accesses] as const);
    for (const [shown, accesses] of texts) for (const access of accesses) verifier.check(shown, access);
    // Python is told what JSON does not say by the values that say it.
    const spelled = texts.map(([shown, accesses]) => [shown, accesses.map((access) => JSON.parse(JSON.stringify(access)) as object)]);
    const told = { keyring, values, leeway, every, trace, key: key && [...key], cases: spelled };
    return [text(), ran(IN_PYTHON, told) as string];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The records without what differs by chance, or is a sentence for people. */
const comparable = (trail: string): unknown[] =>
  [...readTrail(trail)].map((record) => {
    const { prev, id, taken, refusals, ...rest } = record as Record<string, unknown>;
    const said = (refusals as object[] | undefined)?.map(({ text, ...more }: { text?: string }) => (assert.ok(text), more));
    return { ...rest, ...(said && { refusals: said }), ...(taken !== undefined && { taken: String(taken).length }) };
  });

describe("beside Python", { skip: missing("msgspec") }, () => {
  test("what is allowed is recorded in the same lines, byte for byte", () => {
    for (const values of [false, true]) {
      const [token] = cases()[0]!;
      const simple = { path: "/reports/a", big: 7, none: null, mark: { "~": "x" }, list: ["é\u2028", { a: [] }] };
      const asked: [Token, readonly Access[]][] = [
        [token, [{ tool: "go", arguments: simple }, { tool: "go", arguments: simple, attributes: { z: 1, a: 2 } }, { tool: "go" }]],
        [cases()[2]![0], [{ table: "sales", operation: "select", columns: ["b", "a"], row: { x: 1 } }, { table: "hr.pay", operation: "select", columns: [] }]],
        [token.delegate({ to: "clerk", expiresIn: "5m" }), [{ tool: "go" }]],
      ];
      const key = Uint8Array.from({ length: 32 }, (_, at) => at);
      for (const more of [{}, { leeway: 5 }, { key, every: 2 }, { key, every: 1 }]) {
        const [here, there] = both(asked, { values, ...more });
        assert.ok(here.split("\n").length > 6);
        assert.equal(here, there);
      }
    }
  });

  test("what is denied differs in the sentence for people alone", () => {
    const counted = issuer.mint({ ...who, tools: { pay: {} }, uses: 2, budget: { usd: 5 }, audience: "files" });
    const marked = issuer.mint({
      ...{ ...who, tools: { a: {}, b: {} }, audience: "files" },
      ...{ marks: { seen: { tools: ["a"] }, sent: { tools: ["b"] } }, forbid: [{ in: ["sent"], after: ["seen"] }] },
    });
    const bound = issuer.mint({ ...who, tools: { a: {} }, key: HolderKey.generate().public });
    const old = new Issuer(KEYRING, { clock: () => NOW - 999 }).mint({ ...who, tools: { a: {} }, expiresIn: "1m" });
    const other = new Issuer(Keyring.generate(), { clock }).mint({ ...who, tools: { a: {} } });
    const pay = { tool: "pay", cost: { usd: 2 } };
    const asked: [Token, readonly Access[]][] = [
      ...cases().map(([token, accesses]): [Token, Access[]] => [token, accesses.filter((one) => !("ä" in (one.arguments ?? {})))]),
      [counted, [pay, { tool: "pay" }, pay, pay]],
      [marked, [{ tool: "b" }, { tool: "a" }, { tool: "b" }]],
      [bound, [{ tool: "a" }]],
      [old, [{ tool: "a" }]],
      [other, [{ tool: "a" }]],
    ];
    const [here, there] = both(asked);
    assert.deepEqual(comparable(here), comparable(there));
    const codes = [...readTrail(here)].flatMap(({ code }) => (typeof code === "string" ? [code] : []));
    const wanted = ["missing_discharge", "cost_unstated", "budget_exhausted", "forbidden_after", "proof_missing", "expired", "unknown_key", "argument", "tool"];
    for (const code of wanted) assert.ok(codes.includes(code), code);
  });

  test("captoken audit verify reads it, and sees what was changed", () => {
    const key = AuditKey.generate();
    const { trail, text } = kept({ key, every: 3 });
    const verifier = new Verifier(KEYRING, { audience: "files", allowUnaddressed: true, clock, audit: trail });
    for (const [token, accesses] of cases()) for (const access of accesses) verifier.check(token.present({ audience: "files" }), access);
    const folder = mkdtempSync(join(tmpdir(), "captoken-"));
    const verified = (lines: string): string => {
      const file = join(folder, "trail.jsonl");
      writeFileSync(file, lines);
      const words = ["-m", "captoken", "audit", "verify", file, "--server", key.public];
      return execFileSync(PYTHON, words, { env: ENVIRONMENT, encoding: "utf8", stdio: "pipe" });
    };
    try {
      assert.match(verified(text()), /\d/);
      assert.throws(() => verified(text().replace("user:jan", "user:jon")));
      assert.ok(checkTrail(text(), [key.public]).signed > 0);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

const PLAIN = issuer.mint({ ...who, tools: { read: {} } }).present({ audience: "files" });
const verifying = (audit: { record(told: Told): unknown }): Verifier =>
  new Verifier(KEYRING, { audience: "files", allowUnaddressed: true, clock, audit });

test("what cannot be recorded is not allowed, and a denial stands without its record", async () => {
  const fails = verifying(new AuditTrail(() => assert.fail("disk full")));
  const denied = fails.check(PLAIN, { tool: "read" });
  assert.equal(denied.code, "store_unavailable");
  assert.equal(fails.check(PLAIN, { tool: "write" }).code, "tool");
  const later = verifying(new AuditTrail(() => Promise.reject(new Error("gone"))));
  assert.equal((await later.checkAsync(PLAIN, { tool: "read" })).code, "store_unavailable");
  assert.throws(() => later.check(PLAIN, { tool: "read" }), { name: "UsageError" });
});

test("after a write of which nobody knows whether it stands, nothing is allowed", () => {
  let most = 100_000;
  const verifier = verifying(new AuditTrail((lines) => Math.min(most, lines.length)));
  assert.equal(verifier.check(PLAIN, { tool: "read" }).code, "allowed");
  most = 10;
  assert.equal(verifier.check(PLAIN, { tool: "read" }).code, "store_unavailable");
  most = 100_000;
  assert.equal(verifier.check(PLAIN, { tool: "read" }).code, "store_unavailable");
});

test("a write that raised has written nothing, and the trail goes on", () => {
  let isDown = true;
  const { trail, text } = kept();
  const parts: string[] = [];
  const write: Write = (lines) => {
    if (isDown) throw new Error("down");
    parts.push(Buffer.from(lines).toString());
  };
  const verifier = verifying(new AuditTrail(write));
  assert.equal(verifier.check(PLAIN, { tool: "read" }).code, "store_unavailable");
  isDown = false;
  assert.equal(verifier.check(PLAIN, { tool: "read" }).code, "allowed");
  assert.equal(checkTrail(parts.join("")).decisions, 1);
  assert.equal(trail.head.seq, 0);
  assert.equal(text(), "");
});

test("what is written later is written in turn, and is one trail", async () => {
  const parts: string[] = [];
  const write: Write = async (lines) => {
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 3));
    parts.push(Buffer.from(lines).toString());
  };
  const key = AuditKey.generate();
  const trail = new AuditTrail(write, { key, every: 5 });
  const verifier = verifying(trail);
  await Promise.all(Array.from({ length: 30 }, () => verifier.checkAsync(PLAIN, { tool: "read" })));
  const head = await trail.checkpoint();
  const verdict = checkTrail(parts.join(""), [key.public]);
  assert.deepEqual(verdict, { head, signed: head.seq - 1, decisions: 30 });
});

test("a trail goes on from its head, with dry runs and rechecks left out", () => {
  const first = kept();
  verifying(first.trail).check(PLAIN, { tool: "read" });
  const second = kept({ head: first.trail.head });
  const verifier = verifying(second.trail);
  verifier.explain(PLAIN, { tool: "read" });
  const grant = verifier.authenticate(PLAIN);
  grant.recheck({ tool: "read" });
  grant.check({ tool: "write" });
  assert.equal(checkTrail(first.text() + second.text()).decisions, 3);
  assert.deepEqual(checkTrail(second.text(), [], { after: first.trail.head }).head, second.trail.head);
});

test("a checkpoint that fails denies nobody, and is tried again", () => {
  let isDown = false;
  const parts: string[] = [];
  const write: Write = (lines) => {
    const text = Buffer.from(lines).toString();
    if (isDown && text.includes('"checkpoint"')) throw new Error("down");
    parts.push(text);
  };
  const key = AuditKey.generate();
  const problems: unknown[] = [];
  const verifier = verifying(new AuditTrail(write, { key, every: 1, onProblem: (problem) => problems.push(problem) }));
  isDown = true;
  assert.equal(verifier.check(PLAIN, { tool: "read" }).code, "allowed");
  assert.equal(problems.length, 1);
  isDown = false;
  assert.equal(verifier.check(PLAIN, { tool: "read" }).code, "allowed");
  assert.equal(checkTrail(parts.join(""), [key.public]).decisions, 2);
});

test("no token, tag or signature is in a record, and what a recorder is told cannot be changed", () => {
  const signer = HolderKey.generate();
  const token = issuer.mint({ ...who, tools: { read: {} }, key: signer.public }).delegate({ to: "b", key: HolderKey.generate().public, signer });
  const text = token.present({ audience: "files" });
  const { trail, text: lines } = kept();
  const told: Told[] = [];
  const audit = { record: (one: Told) => (told.push(one), trail.record(one)) };
  verifying(audit).check(text, { tool: "read" });
  assert.equal(told.length, 1);
  assert.ok(!lines().includes(token.serialize().slice(10, 40)));
  assert.doesNotMatch(lines(), /[A-Za-z0-9_-]{86}/);
  assert.ok(!lines().includes(b64encode(told[0]!.written!.caveats.at(-1)!.cid).slice(-60)));
  assert.ok(Object.isFrozen(told[0]) && Object.isFrozen(told[0]!.access));
});

test("what is no setting is a mistake", () => {
  const wrong: object[] = [{ evry: 1 }, { every: 0 }, { head: { seq: 1, hash: "x" } }, { key: undefined }];
  for (const given of wrong) assert.throws(() => new AuditTrail(() => undefined, given), { name: "UsageError" });
  assert.throws(() => new AuditTrail(7 as never), { name: "UsageError" });
});
