/** Steps that ask: stores, and the engine about signatures. Run at once, or awaited: one plan for both. */

import { verify, verifyLater } from "../format/crypto.js";
import { UsageError } from "../format/errors.js";
import { isLater } from "../format/given.js";
import type { Verifying } from "../proof.js";
import type { Answer } from "../stores.js";

export type Steps<T> = Generator<Ask, T, unknown>;

/** A question. Without a signal nobody waits for the answer. */
export interface Ask {
  readonly of: (signal: AbortSignal | undefined) => Answer<unknown>;
  readonly seconds?: number;
  readonly signal?: AbortSignal | undefined;
}

export function runNow<T>(steps: Steps<T>): T {
  let next = steps.next();
  while (!next.done) {
    const { of } = next.value;
    const answer = outcome(() => of(undefined));
    if ("error" in answer) next = steps.throw(answer.error);
    else if (isLater(answer.value)) throw new UsageError("a store that promises: ask checkAsync");
    else next = steps.next(answer.value);
  }
  return next.value;
}

export async function runLater<T>(steps: Steps<T>): Promise<T> {
  let next = steps.next();
  while (!next.done) {
    try {
      const value = await answered(next.value);
      next = steps.next(value);
    } catch (error) {
      next = steps.throw(error);
    }
  }
  return next.value;
}

/** The answer of a store, in time. One that comes later, or fails then, is nobody's. */
function answered({ of, seconds = 5, signal }: Ask): Promise<unknown> {
  const ends = new AbortController();
  return new Promise((resolve, reject) => {
    const end = (): void => {
      stop();
      ends.abort();
      reject(new Error("late"));
    };
    const timer = setTimeout(end, 1000 * seconds);
    const stop = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
    };
    signal?.addEventListener("abort", end);
    if (signal?.aborted) return end();
    void Promise.resolve(ends.signal).then(of).then(resolve, reject).finally(stop);
  });
}

export function outcome(ask: () => unknown): { value: unknown } | { error: unknown } {
  try {
    return { value: ask() };
  } catch (error) {
    return { error };
  }
}

/** Does a signature hold? Where there is time to wait the engine says so, unless it cannot. */
export function* holding(asked: <T>(by: Verifying<T>) => T | false): Steps<boolean> {
  let said: unknown;
  try {
    said = yield { of: (ends) => ends && asked(verifyLater) };
  } catch {
    // It took too long.
  }
  return (said as boolean | undefined) ?? asked(verify);
}
