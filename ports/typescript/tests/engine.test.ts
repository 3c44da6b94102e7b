/** Signatures that the engine looks at: what it says is what the library says, on the edges too. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ed25519 } from "@noble/curves/ed25519.js";
import { sha512 } from "@noble/hashes/sha2.js";

import { concat } from "../src/format/bytes.js";
import { verify, verifyLater } from "../src/format/crypto.js";
import { HolderKey, Issuer, Keyring, MemoryReplayStore, Verifier, type Token } from "../src/index.js";

const { Point } = ed25519;
const ORDER = Point.Fn.ORDER;
const number = (bytes: Uint8Array): bigint => bytes.reduceRight((made, byte) => (made << 8n) | BigInt(byte), 0n);
const bytes = (value: bigint): Uint8Array => Uint8Array.from({ length: 32 }, (_, at) => Number((value >> BigInt(8 * at)) & 255n));
/** A point of order 8: all that are of low order are its multiples. */
const TORSION = Point.fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");

test("they say the same of every signature, whoever made it", async () => {
  assert.equal(await verifyLater(new Uint8Array(32).fill(2), new Uint8Array(), new Uint8Array(64)), false);
  const said = new Map<string, number>();
  for (let at = 0; at < 200; at += 1) {
    const [a, r] = [BigInt(at + 2), BigInt(3 * at + 5)];
    const low = (by: number) => TORSION.multiplyUnsafe(BigInt(by % 8));
    const A = Point.BASE.multiply(a).add(low(at)).toBytes();
    const R = Point.BASE.multiply(r).add(low(at >> 3)).toBytes();
    const message = Uint8Array.of(at);
    const S = (r + number(sha512(concat(R, A, message))) * a) % ORDER;
    const signatures = [
      concat(R, bytes(S)),
      concat(R, bytes(S + ORDER)),
      concat(R, bytes((S + 1n) % ORDER)),
      concat(low(at).toBytes(), bytes(S)),
      concat(R, bytes(0n)),
      concat(R, bytes(S)).slice(1),
      concat(new Uint8Array(32).fill(255), bytes(S)),
    ];
    for (const signature of signatures) {
      for (const key of [A, low(at).toBytes(), new Uint8Array(32).fill(255), A.slice(1)]) {
        const [here, there] = [verify(key, message, signature), await verifyLater(key, message, signature)];
        assert.ok(there === here || there === undefined, `${at}: ${here}, and the engine says ${there}`);
        const answer = `${here} ${there}`;
        said.set(answer, (said.get(answer) ?? 0) + 1);
      }
    }
  }
  const { subtle } = globalThis.crypto;
  const isThere = await subtle.generateKey("Ed25519", false, ["sign", "verify"]).then(() => true, () => false);
  assert.equal((said.get("true true") ?? 0) > 20, isThere);
  assert.ok((said.get("false false") ?? 0) > 1000 || !isThere);
});

const keyring = Keyring.generate();
const [key, next] = [HolderKey.generate(), HolderKey.generate()];
const request = { tool: "read" };
const mint = (): Token => new Issuer(keyring).mint({ subject: "user:jane", agent: "a", task: "t", tools: { read: {} }, key: key.public });
const verifier = (): Verifier => new Verifier(keyring, { audience: "s", replays: new MemoryReplayStore({ floor: 0 }) });
const shown = (of = request): string =>
  mint().delegate({ to: "b", key: next.public, signer: key }).present({ audience: "s", signer: next, request: of });
const forAnother = (): string => shown({ tool: "write" });

/** With another engine: how often a key was brought to it. */
async function within<T>(verifyBy: SubtleCrypto["verify"] | undefined, run: () => Promise<T>): Promise<[T, number]> {
  let asked = 0;
  const { crypto } = globalThis;
  const importKey = (...given: Parameters<SubtleCrypto["importKey"]>): Promise<CryptoKey> => {
    asked += 1;
    return verifyBy ? crypto.subtle.importKey(...given) : Promise.reject(new Error("NotSupportedError"));
  };
  const subtle = { importKey, verify: verifyBy };
  const other = { getRandomValues: (given: Uint8Array<ArrayBuffer>) => crypto.getRandomValues(given), subtle };
  Object.defineProperty(globalThis, "crypto", { value: other, configurable: true, writable: true });
  try {
    return [await run(), asked];
  } finally {
    Object.defineProperty(globalThis, "crypto", { value: crypto, configurable: true, writable: true });
  }
}

test("checkAsync asks the engine, and check does not", async () => {
  const { subtle } = globalThis.crypto;
  const real = subtle.verify.bind(subtle) as SubtleCrypto["verify"];
  const later = async () => (await verifier().checkAsync(shown(), request)).code;
  const now = async () => verifier().check(shown(), request).code as string;
  assert.deepEqual(await within(real, later), ["allowed", 2]);
  assert.deepEqual(await within(real, now), ["allowed", 0]);
  const wrong = async () => (await verifier().checkAsync(forAnother(), request)).code;
  assert.deepEqual(await within(real, wrong), ["bad_proof", 2]);
});

test("where it has no Ed25519, or fails, the library looks", async () => {
  const fails = (() => Promise.reject(new Error("down"))) as SubtleCrypto["verify"];
  for (const engine of [undefined, fails]) {
    const [code] = await within(engine, async () => (await verifier().checkAsync(shown(), request)).code);
    assert.equal(code, "allowed");
    const wrong = async () => (await verifier().checkAsync(forAnother(), request)).code;
    assert.equal((await within(engine, wrong))[0], "bad_proof");
  }
});

test("who acts is proven by signatures that the engine saw", async () => {
  const decision = await verifier().checkAsync(shown(), request);
  assert.ok(decision.allowed);
  assert.deepEqual(decision.grant.chain.map(({ name, basis }) => `${name} ${basis}`), ["a issued", "b proven"]);
  const [third] = [HolderKey.generate()];
  const child = mint()
    .delegate({ to: "b", key: next.public, signer: key })
    .delegate({ to: "c", key: third.public, signer: next });
  const text = child.present({ audience: "s", signer: third, request });
  const [later, now] = [await verifier().checkAsync(text, request), verifier().check(text, request)];
  assert.ok(later.allowed && now.allowed);
  assert.deepEqual(later.grant.chain, now.grant.chain);
});
