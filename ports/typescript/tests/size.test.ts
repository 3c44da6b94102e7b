/** What a program bundles: how large it is, and where it runs. */

import assert from "node:assert/strict";
import { writeFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { createContext, runInContext } from "node:vm";
import { gzipSync } from "node:zlib";

import { buildSync } from "esbuild";

const NOBLE = ["@noble/*"];
const ENTRY = fileURLToPath(new URL("../src/index.js", import.meta.url));

function bundled(names: string, format: "esm" | "iife" = "esm", external = NOBLE): string {
  const folder = mkdtempSync(join(tmpdir(), "captoken-"));
  try {
    const entry = join(folder, "entry.mjs");
    writeFileSync(entry, `export ${names} from ${JSON.stringify(ENTRY)};`);
    const { outputFiles } = buildSync({
      entryPoints: [entry],
      bundle: true,
      minify: true,
      format,
      globalName: "captoken",
      target: "es2022",
      write: false,
      external,
    });
    return outputFiles[0]!.text;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("it runs where there is nothing but what the web has", () => {
  const program = `
    const keyring = captoken.Keyring.generate();
    const who = { subject: "user:jane", agent: "a", task: "t" };
    const key = captoken.HolderKey.generate();
    const token = new captoken.Issuer(keyring).mint({ ...who, tools: { t: {} }, key: key.public });
    const replays = new captoken.MemoryReplayStore({ floor: 0 });
    const verifier = new captoken.Verifier(keyring, { audience: "s", replays });
    const text = token.present({ audience: "s", signer: key, request: { tool: "t" } });
    verifier.check(text, { tool: "t" }).code;
  `;
  const { TextEncoder, TextDecoder, crypto } = globalThis;
  const web = createContext({ TextEncoder, TextDecoder, crypto, Uint8Array });
  runInContext(bundled("*", "iife", []), web);
  assert.equal(runInContext(program, web), "allowed");
});

const BOUNDS: readonly (readonly [who: string, names: string, bytes: number])[] = [
  [
    "a server that verifies",
    "{ Verifier, Keyring, Denied, describe, forModel, forNetwork, MemoryReplayStore }",
    75_200,
  ],
  ["a holder that narrows and presents", "{ Token, HolderKey, withProof }", 60_000],
  ["an issuer that mints", "{ Issuer, Keyring }", 62_000],
  ["all of it", "*", 127_900],
];

for (const [who, names, most] of BOUNDS) {
  test(`${who} bundles at most ${most} bytes`, (context) => {
    const { length } = Buffer.from(bundled(names));
    context.diagnostic(`${length} bytes`);
    assert.ok(length <= most, `${length} bytes`);
  });
}

/** Packed: with the noble code that it uses, minified and compressed, as a browser loads it. */
const PACKED: readonly (readonly [who: string, names: string, bytes: number])[] = [
  ["what verifies", "{ Verifier, Keyring }", 39_800],
  ["what only holds", "{ Token }", 33_000],
  ["what only tells", "{ forNetwork }", 2_000],
];

for (const [who, names, most] of PACKED) {
  test(`${who} is packed at most ${most} bytes`, (context) => {
    const { length } = gzipSync(bundled(names, "esm", []), { level: 9 });
    context.diagnostic(`${length} bytes`);
    assert.ok(length <= most, `${length} bytes`);
  });
}
