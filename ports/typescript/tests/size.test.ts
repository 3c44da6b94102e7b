/** What a program bundles, minified: its own code, without the noble libraries. */

import assert from "node:assert/strict";
import { writeFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { buildSync } from "esbuild";

const ENTRY = fileURLToPath(new URL("../src/index.js", import.meta.url));

function bundled(names: string): number {
  const folder = mkdtempSync(join(tmpdir(), "captoken-"));
  try {
    const entry = join(folder, "entry.mjs");
    writeFileSync(entry, `export ${names} from ${JSON.stringify(ENTRY)};`);
    const { outputFiles } = buildSync({
      entryPoints: [entry],
      bundle: true,
      minify: true,
      format: "esm",
      target: "es2022",
      write: false,
      external: ["@noble/*"],
    });
    return outputFiles[0]!.contents.length;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const BOUNDS: readonly (readonly [who: string, names: string, bytes: number])[] = [
  [
    "a server that verifies",
    "{ Verifier, Keyring, Denied, describe, forModel, forNetwork, MemoryReplays }",
    60_000,
  ],
  ["a holder that narrows and presents", "{ Token, HolderKey, withProof }", 60_000],
  ["an issuer that mints", "{ Issuer, Keyring }", 60_000],
  ["all of it", "*", 105_000],
];

for (const [who, names, most] of BOUNDS) {
  test(`${who} bundles at most ${most} bytes`, (context) => {
    const length = bundled(names);
    context.diagnostic(`${length} bytes`);
    assert.ok(length <= most, `${length} bytes`);
  });
}
