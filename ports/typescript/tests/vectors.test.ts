/** Every family of `spec/vectors`, every vector of it. */

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { answer, type Vector } from "./adapter.js";

const FOLDER = new URL("../../../../spec/vectors/", import.meta.url);
const only = process.env["CAPTOKEN_FAMILY"];

/** With the keys in order, so that equal values are one text. */
function shown(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) => {
    if (typeof each === "bigint") return `${each}n`;
    if (typeof each !== "object" || each === null || Array.isArray(each)) return each;
    return Object.fromEntries(Object.entries(each).sort(([one], [two]) => (one < two ? -1 : 1)));
  });
}

for (const name of readdirSync(FOLDER)
  .filter((each) => each.endsWith(".json"))
  .sort()) {
  if (only && name !== `${only}.json`) continue;
  const { vectors } = JSON.parse(readFileSync(new URL(name, FOLDER), "utf8")) as {
    vectors: Vector[];
  };
  test(`the vectors of ${name}: ${vectors.length}`, () => {
    const failed: string[] = [];
    for (const vector of vectors) {
      let came: unknown;
      try {
        came = answer(vector);
      } catch (error) {
        came = `raised ${(error as Error).stack}`;
      }
      const [mine, its] = [shown(came), shown(vector.expect)];
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
