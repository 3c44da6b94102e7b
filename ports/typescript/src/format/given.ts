/** Settings that are given, checked once. */

import { UsageError } from "./errors.js";
import { isInteger } from "./json.js";

export function atLeast(given: number, least: number, what: string): number {
  if (!isInteger(given) || given < least) {
    throw new UsageError(`${what} is an integer, at least ${least}`);
  }
  return given;
}

/**
 * A promise, where a value is asked for? Then nobody waits for it: what it fails by is nobody's
 * either.
 */
export function isLater(value: unknown): boolean {
  if (typeof (value as { then?: unknown } | null | undefined)?.then !== "function") return false;
  Promise.resolve(value).catch(() => undefined);
  return true;
}

/** No setting has a name that is not known: what is misspelled is not passed over. */
export function checkNames(given: object, known: RegExp): void {
  for (const name in given) {
    if (!known.test(name)) throw new UsageError(`no setting ${name}`);
  }
}
