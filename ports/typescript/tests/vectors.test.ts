/** Every family of `spec/vectors`, every vector of it. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { answer } from "./adapter.js";
import { cameOf, shown } from "./came.js";
import { families } from "./families.js";

const only = process.env["CAPTOKEN_FAMILY"];

for (const { file, vectors } of families()) {
  if (only && file !== `${only}.json`) continue;
  test(`the vectors of ${file}: ${vectors.length}`, () => {
    const failed: string[] = [];
    for (const vector of vectors) {
      const [mine, its] = [cameOf(vector, answer), shown(vector.expect)];
      if (mine !== its) {
        failed.push(
          `${vector.name}\n   expected ${its.slice(0, 300)}\n   came     ${mine.slice(0, 600)}`,
        );
      }
    }
    assert.equal(
      failed.length,
      0,
      `${failed.length} of ${vectors.length}\n${failed.slice(0, 12).join("\n")}`,
    );
  });
}
