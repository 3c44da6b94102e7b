/** Settings that are given, checked once. */

import { UsageError } from "./errors.js";
import { entriesOf, isInteger } from "./json.js";
import { isName } from "./names.js";

export function atLeast(given: number, least: number, what: string): number {
  if (!isInteger(given) || given < least) {
    throw new UsageError(`${what} is an integer, at least ${least}`);
  }
  return given;
}

export function checkAudience(given: unknown): asserts given is string {
  if (!isName(given)) throw new UsageError("an audience is a name");
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

/**
 * What a program sets, read once. What is misspelled is not passed over, and what is undefined is not
 * taken for what was left out.
 */
export function settings<T extends object>(given: T, known = /./): T {
  const made = Object.create(null) as Record<string, unknown>;
  for (const [name, value] of entriesOf(given, "settings")) {
    if (typeof name !== "string" || !known.test(name)) {
      throw new UsageError(`no setting ${String(name)}`);
    }
    made[name] = stands(name, value);
  }
  return made as T;
}

/** The value, which is there. */
export function stands(name: unknown, value: unknown): unknown {
  if (value === undefined) throw new UsageError(`${String(name)} is undefined: leave it out`);
  return value;
}

/** Those that are there: for what the library itself passes on. */
export const defined = <T extends object>(given: T): { [K in keyof T]: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as never;
