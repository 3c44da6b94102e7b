/** The poller: what it takes, what it keeps, and what a verifier makes of it. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

import { Issuer, Keyring, OperatorKey, Verifier, overlayEntry, signSnapshot, type Entry } from "../src/index.js";
import { OverlayPoller, type Source } from "../src/overlay.js";

const KEY = OperatorKey.generate();
const now = (): number => Math.floor(Date.now() / 1000);
const snapshot = (seq: number, entries: readonly Entry[] = [], key = KEY): Uint8Array =>
  signSnapshot(key, entries, { seq, issuedAt: now(), expiresAt: now() + 600 });

const stopped = (): Entry =>
  overlayEntry({ id: "e1", at: now(), by: "ops", why: "lost", select: { subject: "user:jane" } });

test("what an operator revokes is revoked at the next look", async () => {
  let data = snapshot(1);
  const poller = await new OverlayPoller(() => data, [KEY.public], { every: 0.02 }).start();
  const keyring = Keyring.generate();
  const verifier = new Verifier(keyring, { audience: "files", overlay: poller.overlay });
  const token = new Issuer(keyring).mint({ subject: "user:jane", agent: "a", task: "t", tools: { read: {} } });
  const text = token.present({ audience: "files" });
  assert.equal(verifier.check(text, { tool: "read" }).code, "allowed");
  data = snapshot(2, [stopped()]);
  while (poller.overlay()?.seq !== 2) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(verifier.check(text, { tool: "read" }).code, "revoked");
  poller.stop();
  data = snapshot(3);
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert.equal(poller.overlay()?.seq, 2, "it looks no more");
});

test("what is refused changes nothing, and is told when it changes", async () => {
  const told: (string | undefined)[] = [];
  let given: () => ReturnType<Source> = () => undefined;
  const onProblem = (problem: Error | undefined): void => void told.push(problem?.message);
  const poller = new OverlayPoller(() => given(), [KEY.public], { timeout: 0.05, onProblem });
  await assert.rejects(poller.start(), { code: "overlay", message: /no snapshot yet/ });
  assert.equal(poller.overlay(), undefined);
  given = () => snapshot(5);
  assert.equal((await poller.refresh()).seq, 5);
  const wrong: readonly (() => ReturnType<Source>)[] = [
    () => snapshot(4),
    () => snapshot(6, [], OperatorKey.generate()),
    () => new Uint8Array(9),
    () => 7 as never,
    () => Promise.reject(new Error("down")),
    () => Promise.reject(new Error("down")),
    () => new Promise<never>(() => undefined),
  ];
  for (given of wrong) {
    await assert.rejects(poller.refresh());
    assert.equal(poller.overlay()?.seq, 5);
    assert.ok(poller.problem);
  }
  given = () => snapshot(6);
  await poller.refresh();
  assert.equal(poller.problem, undefined);
  assert.equal(told.length, 9, "two that failed alike are told once");
  assert.deepEqual([told[1], told.at(-1)], [undefined, undefined]);
});

test("an overlay that grows old denies, however often a look fails", async () => {
  let time = now();
  let isDown = false;
  const data = snapshot(1);
  const source: Source = () => (isDown ? Promise.reject(new Error("down")) : data);
  const poller = new OverlayPoller(source, [KEY.public]);
  await poller.refresh();
  const keyring = Keyring.generate();
  const verifier = new Verifier(keyring, { audience: "a", overlay: poller.overlay, maxStaleness: 60, clock: () => time });
  const text = new Issuer(keyring).mint({ subject: "s", agent: "a", task: "t", tools: { read: {} } }).present({ audience: "a" });
  isDown = true;
  for (const [later, code] of [[59, "allowed"], [61, "stale_overlay"]] as const) {
    time = now() + later;
    await assert.rejects(poller.refresh(), /down/);
    assert.equal(verifier.check(text, { tool: "read" }).code, code);
  }
});

test("looks that are asked for at once are one", async () => {
  let looks = 0;
  const poller = new OverlayPoller(async () => ((looks += 1), snapshot(1)), [KEY.public]);
  await Promise.all([poller.refresh(), poller.refresh(), poller.refresh()]);
  assert.equal(looks, 1);
});

test("a URL is asked whether it has changed, and a file is read", async () => {
  let data = snapshot(1);
  const seen: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    const tag = `"${data.at(-1)}-${data.length}"`;
    seen.push(request.headers["if-none-match"]);
    if (request.url !== "/overlay") return response.writeHead(404).end();
    const isKnown = request.headers["if-none-match"] === tag;
    return response.writeHead(isKnown ? 304 : 200, { etag: tag }).end(isKnown ? undefined : data);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const folder = mkdtempSync(join(tmpdir(), "captoken-"));
  try {
    const poller = new OverlayPoller(new URL("/overlay", at), [KEY.public]);
    for (const seq of [1, 1]) assert.equal((await poller.refresh()).seq, seq);
    data = snapshot(2, [stopped()]);
    assert.equal((await poller.refresh()).seq, 2);
    assert.deepEqual(seen.map(Boolean), [false, true, true]);
    await assert.rejects(new OverlayPoller(new URL("/other", at), [KEY.public]).refresh(), /answers 404/);
    const file = join(folder, "overlay");
    writeFileSync(file, data);
    assert.equal((await new OverlayPoller(pathToFileURL(file), [KEY.public]).refresh()).seq, 2);
    await assert.rejects(new OverlayPoller(pathToFileURL(`${file}s`), [KEY.public]).refresh(), { code: "ENOENT" });
  } finally {
    server.close();
    rmSync(folder, { recursive: true });
  }
});

test("what is no source, and what is no setting, is a mistake", () => {
  const given: readonly [unknown, unknown, object?][] = [
    ["https://example", [KEY.public]],
    [new URL("ftp://example"), [KEY.public]],
    [() => undefined, [KEY.public], { every: 0 }],
    [() => undefined, [KEY.public], { timeout: Number.NaN }],
    [() => undefined, [KEY.public], { evry: 5 }],
  ];
  for (const [source, operators, more] of given) {
    const make = (): OverlayPoller => new OverlayPoller(source as Source, operators as string[], more);
    assert.throws(make, { name: "UsageError" });
  }
});
