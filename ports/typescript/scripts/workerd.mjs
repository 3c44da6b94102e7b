/**
 * The port in workerd: every vector, a guarded service, and the signatures of the engine.
 *
 *     node scripts/workerd.mjs FOLDER     # where `npm install miniflare` was run; after `npm run pretest`
 */

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = fileURLToPath(new URL("..", import.meta.url));
const { Miniflare } = createRequire(join(resolve(process.argv[2]), "index.js"))("miniflare");
const { families } = await import("../build/tests/families.js");

const { outputFiles } = await build({
  absWorkingDir: here,
  entryPoints: ["build/tests/worker.js"],
  bundle: true,
  format: "esm",
  target: "es2022",
  write: false,
});
const script = outputFiles[0].text;
const started = (...compatibilityFlags) =>
  new Miniflare({ modules: true, script, compatibilityDate: "2025-09-01", compatibilityFlags });

async function asked(worker, path, body) {
  const init = body && { method: "POST", body: JSON.stringify(body) };
  const response = await worker.dispatchFetch(`https://files.example${path}`, init);
  return [response.status, await response.text()];
}

async function serves(worker, currently) {
  const [status, text] = await asked(worker, "/reports/q3");
  assert.deepEqual([status, text], [200, `/reports/q3, for user:jane, ${currently}`]);
  const [denied, why] = await asked(worker, "/etc/passwd");
  assert.deepEqual([denied, JSON.parse(why).code], [403, "argument"]);
}

const plain = started();
const compatible = started("nodejs_compat");
try {
  let many = 0;
  const all = families();
  for (const { file, vectors } of all) {
    const [status, text] = await asked(plain, "/vectors", vectors);
    assert.equal(status, 200, `${file}: ${text}`);
    const said = JSON.parse(text);
    assert.deepEqual(said, { asked: vectors.length, failed: [] }, file);
    many += said.asked;
  }
  console.log(`${many} vectors of ${all.length} families on workerd: 0 failed`);
  assert.deepEqual(JSON.parse((await asked(plain, "/edges"))[1]), [[true, true], [false, false]]);
  await serves(plain, "no_token");
  await serves(compatible, "and clerk acts");
  console.log("a guarded service, and signatures that the engine looks at: as on Node");
} finally {
  await plain.dispose();
  await compatible.dispose();
}
