/** Settings that are given, checked once. */

import { UsageError } from "./errors.js";
import { isInteger } from "./json.js";

export function atLeast(given: number, least: number, what: string): number {
  if (!isInteger(given) || given < least) {
    throw new UsageError(`${what} is an integer, at least ${least}`);
  }
  return given;
}
