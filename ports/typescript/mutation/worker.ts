/** Runs the vectors over one bundle after another, up to the first that comes otherwise. */

import { createRequire } from "node:module";
import { Script } from "node:vm";
import { parentPort } from "node:worker_threads";

import type { Vector } from "../tests/adapter.js";
import { cameOf, shown } from "../tests/came.js";
import { families } from "../tests/families.js";

const require = createRequire(import.meta.url);
const NOBLE = new Map<string, unknown>();
NOBLE.set("@noble/ed25519", await import("@noble/ed25519"));
for (const name of ["ciphers/salsa", "hashes/blake2", "hashes/hmac"]) {
  NOBLE.set(`@noble/${name}.js`, await import(`@noble/${name}.js`));
}
for (const name of ["hashes/sha2", "hashes/utils"]) {
  NOBLE.set(`@noble/${name}.js`, await import(`@noble/${name}.js`));
}

/** In an order in which those that stand together are far apart: neighbours kill the same. */
const vectors = families()
  .flatMap(({ vectors }) => vectors.map((vector) => ({ vector, expected: shown(vector.expect) })))
  .map((each, at) => ({ ...each, place: (at * 0.6180339887) % 1 }))
  .sort((one, two) => one.place - two.place);
/** How many mutants a vector has killed: those that kill are asked first. */
const kills = new Map<string, number>();

/** The function that answers vectors, of a bundle in the form of CommonJS. */
function answerOf(code: string): (vector: Vector) => unknown {
  const module = { exports: {} as { answer: (vector: Vector) => unknown } };
  const load = (name: string): unknown => NOBLE.get(name) ?? require(name);
  const run = new Script(`(function (module, exports, require) {${code}\n})`).runInThisContext();
  (run as (...given: unknown[]) => void)(module, module.exports, load);
  return module.exports.answer;
}

/** The name of the first vector that comes otherwise, or null. */
function killerOf(code: string, tick: () => void): string | null {
  let answer;
  try {
    answer = answerOf(code);
  } catch {
    return "it does not load";
  }
  const rank = ({ vector }: (typeof vectors)[number]): number => kills.get(vector.name) ?? 0;
  for (const { vector, expected } of [...vectors].sort((one, two) => rank(two) - rank(one))) {
    tick();
    if (cameOf(vector, answer) !== expected) {
      kills.set(vector.name, (kills.get(vector.name) ?? 0) + 1);
      return vector.name as string;
    }
  }
  return null;
}

parentPort!.on("message", (code: string) => {
  const killer = killerOf(code, () => parentPort!.postMessage({ isAlive: true }));
  parentPort!.postMessage({ killer });
});
