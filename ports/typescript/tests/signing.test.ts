/** Signers that promise: what they make is what the synchronous methods make. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { HolderKey, Issuer, Keyring, MemoryReplayStore, Token, Verifier, type Access } from "captoken";
import { WebKey, attenuate, delegate, generateKey, present, withProof, type AsyncSigner } from "captoken/signing";

const keyring = Keyring.generate();
const verifier = new Verifier(keyring, { audience: "s", replays: new MemoryReplayStore({ floor: 0 }) });
const mint = (key: string): Token =>
  new Issuer(keyring).mint({ subject: "user:jane", agent: "a", task: "t", tools: { read: {}, write: {} }, key });
const request: Access = { tool: "read" };

const secret = HolderKey.generate();
const slowly: AsyncSigner = {
  public: secret.public,
  sign: async (message) => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    return secret.sign(message);
  },
};
const SIGNERS: Readonly<Record<string, () => Promise<AsyncSigner>>> = {
  "a key of the engine": generateKey,
  "a service that signs": async () => slowly,
  "a key in memory": async () => HolderKey.generate(),
};

for (const [name, made] of Object.entries(SIGNERS)) {
  test(`${name} presents, hands on and proves`, async () => {
    const signer = await made();
    const next = await generateKey();
    const token = mint(signer.public);
    const check = (text: string): string => verifier.check(text, request).code;
    assert.equal(check(await present(token, { audience: "s", signer, request })), "allowed");
    const narrow = token.attenuate({ tools: { read: {} } });
    assert.equal(check(await present(narrow, { audience: "s", signer, request })), "allowed");
    const other = await present(narrow, { audience: "s", signer, request: { tool: "write" } });
    assert.equal(verifier.check(other, { tool: "write" }).code, "tool");
    const child = await delegate(narrow, { to: "b", key: next.public, signer });
    const grant = verifier.authorize(await present(child, { audience: "s", signer: next, request }), request);
    assert.deepEqual(grant.chain.map(({ name: actor }) => actor), ["a", "b"]);
    assert.equal(grant.evidence.length, 1, "the hand-over is signed");
    const moved = await attenuate(narrow, { key: next.public, signer });
    assert.equal(check(await present(moved, { audience: "s", signer: next, request })), "allowed");
    const bare = child.present({ audience: "s" });
    assert.equal(check(bare), "proof_missing");
    assert.equal(check(await withProof(bare, next, { audience: "s", request })), "allowed");
  });
}

test("by one time and one randomness both make the same", async () => {
  const start = Math.floor(Date.now() / 1000);
  let drawn = 0;
  const means = {
    clock: () => start + 0.5,
    random: (length: number) => new Uint8Array(length).fill((drawn += 1)),
  };
  const held = Token.parse(mint(secret.public).serialize(), means);
  const narrowing = { to: "b", key: HolderKey.generate().public, expiresIn: 5 };
  const now = held.delegate({ ...narrowing, signer: secret });
  drawn = 0;
  const later = await delegate(held, { ...narrowing, signer: slowly });
  assert.equal(later.serialize(), now.serialize());
  drawn = 0;
  const text = held.present({ audience: "s", signer: secret, request });
  drawn = 0;
  assert.equal(await present(held, { audience: "s", signer: slowly, request }), text);
});

test("a child goes on with its own clock", async () => {
  let now = Math.floor(Date.now() / 1000);
  const held = Token.parse(mint(secret.public).serialize(), { clock: () => now });
  const child = await delegate(held, { to: "b", key: secret.public, signer: slowly });
  const before = child.attenuate({ expiresIn: 60 }).unverified.expiresAt!;
  now += 5;
  assert.equal(child.attenuate({ expiresIn: 60 }).unverified.expiresAt, before + 5);
});

test("what is signed is what was asked for, by the key that was named", async () => {
  const token = mint(secret.public);
  const wrong: AsyncSigner = { public: secret.public, sign: async (m) => HolderKey.generate().sign(m) };
  const short: AsyncSigner = { public: secret.public, sign: async () => new Uint8Array(63) };
  const none: AsyncSigner = { public: secret.public, sign: async () => "signed" as never };
  for (const signer of [wrong, short, none]) {
    await assert.rejects(present(token, { audience: "s", signer, request }), { code: "bad_proof" });
  }
  const other = await generateKey();
  await assert.rejects(present(token, { audience: "s", signer: other, request }), { code: "bad_proof" });
  await assert.rejects(delegate(token, { to: "b", key: other.public, signer: other }), { name: "DelegationError" });
  const broken: AsyncSigner = { public: secret.public, sign: () => Promise.reject(new Error("out of reach")) };
  await assert.rejects(present(token, { audience: "s", signer: broken, request }), { message: "out of reach" });
  // What is handed in may change meanwhile: what was not signed goes into no token.
  const delegating = { to: "b", key: secret.public, tools: { read: {} } as Record<string, {}>, signer: slowly };
  const changing: AsyncSigner = {
    public: secret.public,
    sign: async (message) => {
      delegating.tools = { write: {} };
      return secret.sign(message);
    },
  };
  delegating.signer = changing;
  await assert.rejects(delegate(token, delegating), { name: "UsageError" });
  await assert.rejects(delegate(token, { to: "b", signer: undefined } as never));
});

test("a key of the engine cannot be exported, and shows nothing", async () => {
  const key = await generateKey();
  assert.ok(key instanceof WebKey);
  assert.doesNotMatch(JSON.stringify(key), /private/i);
  assert.match(String(key), /^<key of the engine [\w-]{43}>$/);
  const pair = (await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"])) as CryptoKeyPair;
  await assert.rejects(crypto.subtle.exportKey("pkcs8", pair.privateKey));
  assert.equal((await WebKey.of(pair)).public.length, 43);
  const ecdsa = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["sign", "verify"]);
  await assert.rejects(WebKey.of(ecdsa), { name: "UsageError" });
});

test("where the engine has no such keys there is one of this library", async (context) => {
  const refused = () => Promise.reject(new DOMException("no such algorithm", "NotSupportedError"));
  context.mock.method(crypto.subtle, "generateKey", refused);
  const key = await generateKey();
  assert.ok(key instanceof HolderKey);
  const text = await present(mint(key.public), { audience: "s", signer: key, request });
  assert.equal(verifier.check(text, request).code, "allowed");
});
