/** Sorted lists: a value is compared with few entries, however long the list is (spec 24.23). */

export type Scalar = string | number | boolean;

/** The order of lists: by type, then by what `<` says, which of strings is code units. */
const isBefore = (one: Scalar, two: Scalar): boolean =>
  typeof one === typeof two ? one < two : typeof one < typeof two;

/** Each once, in order. */
export const sorted = <T extends Scalar>(list: Iterable<T>): T[] =>
  [...new Set(list)].sort((one, two) => (isBefore(one, two) ? -1 : 1));

/**
 * The last of a sorted list that does not stand behind a value.
 *
 * By comparisons and not by hashes: a holder could list many integers that all have one.
 */
export function lastUpTo<T extends Scalar>(list: readonly T[], value: T): T | undefined {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isBefore(value, list[middle]!)) high = middle;
    else low = middle + 1;
  }
  return list[low - 1];
}

/** Those that begin with no other, in order: all that begin with one stand right behind it. */
export function shortest(starts: Iterable<string>): string[] {
  const kept: string[] = [];
  for (const start of sorted(starts)) {
    if (kept.length === 0 || !start.startsWith(kept.at(-1)!)) kept.push(start);
  }
  return kept;
}

/**
 * Does a text begin with one of these, which are the shortest?
 *
 * What stands between a start and a text that begins with it begins with it too: so only the last
 * one up to the text can be it.
 */
export function beginsWithOne(text: string, starts: readonly string[]): boolean {
  const start = lastUpTo(starts, text);
  return start !== undefined && text.startsWith(start);
}
