/**
 * Every vector, without a test runner: for runtimes beside Node.
 *
 *     node build/tests/anywhere.js
 *     deno run --allow-read build/tests/anywhere.js
 *     bun build/tests/anywhere.js
 */

import { answer } from "./adapter.js";
import { cameOf, shown } from "./came.js";
import { families } from "./families.js";

const all = families();
let asked = 0;
const failed: string[] = [];
for (const { vectors } of all) {
  for (const vector of vectors) {
    asked += 1;
    if (cameOf(vector, answer) !== shown(vector.expect)) failed.push(vector.name as string);
  }
}
const { userAgent } = globalThis.navigator ?? { userAgent: `Node.js/${process.version}` };
for (const name of failed.slice(0, 12)) console.log(name);
console.log(`${asked} vectors of ${all.length} families on ${userAgent}: ${failed.length} failed`);
if (failed.length || asked === 0) throw new Error("a vector came otherwise");
