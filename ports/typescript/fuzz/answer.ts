/** Answers vectors, one a line, as the runner of `spec/vectors` does: for `tests/gate`. */

import { createInterface } from "node:readline";

import { answer, type Vector } from "../tests/adapter.js";

for await (const line of createInterface({ input: process.stdin })) {
  let outcome: unknown;
  try {
    outcome = answer(JSON.parse(line) as Vector);
  } catch (error) {
    outcome = { raised: String((error as Error).stack) };
  }
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
}
