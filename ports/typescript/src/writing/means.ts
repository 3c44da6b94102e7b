/** What links are made with, and decisions: a clock, randomness, and the caveats that are known. */

import type { Bytes } from "../format/bytes.js";
import { randomBytes } from "../format/crypto.js";
import { UsageError } from "../format/errors.js";
import { settings } from "../format/given.js";
import { isInteger } from "../format/json.js";
import type { Vocabulary } from "../language/caveats.js";

/** What links are made with: all three are for tests and embedders. */
export interface Means {
  readonly vocabulary: Vocabulary;
  /** Seconds since the epoch. */
  readonly clock: () => number;
  readonly random: (length: number) => Bytes;
}

export const MEANS: Means = { vocabulary: {}, clock: () => Date.now() / 1000, random: randomBytes };

/** Copied: caveats that are added to a vocabulary afterwards, or taken from it, are none. */
export function meansOf(given: Partial<Means> = {}): Means {
  const made = { ...MEANS, ...settings(given) };
  return { ...made, vocabulary: { ...made.vocabulary } };
}

/** Seconds since the epoch, floored. */
export function readClock(clock: () => number): number {
  const now = Math.floor(clock());
  if (!isInteger(now)) throw new UsageError("a clock that does not tell seconds");
  return now;
}
