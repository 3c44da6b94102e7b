/** How what came is compared with what a vector expects. */

import type { Vector } from "./adapter.js";

/** With the keys in order, so that equal values are one text. */
export function shown(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) => {
    if (typeof each === "bigint") return `${each}n`;
    if (typeof each !== "object" || each === null || Array.isArray(each)) return each;
    return Object.fromEntries(Object.entries(each).sort(([one], [two]) => (one < two ? -1 : 1)));
  });
}

/** What came of a vector, as text; what an implementation raises is none of what may come. */
export function cameOf(vector: Vector, answer: (vector: Vector) => unknown): string {
  try {
    return shown(answer(vector));
  } catch (error) {
    return shown(`raised ${(error as Error).stack}`);
  }
}
