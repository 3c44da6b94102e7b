/** Patterns of tables and tools, and maps from them (spec, "Patterns"). */

import { byCodePoint } from "../format/bytes.js";

/** The keys that match a name, or hold for all of a pattern: the most specific first. */
export function* above(name: string): Generator<string> {
  yield name;
  if (name === "*") return;
  const end = name.endsWith(".*") ? name.length - 3 : name.length;
  for (let at = name.lastIndexOf(".", end); at > 0; at = name.lastIndexOf(".", at - 1)) {
    yield `${name.slice(0, at)}.*`;
  }
  yield "*";
}

/** Patterns, of a map or of a list. */
type Keys = Pick<ReadonlyMap<string, unknown>, "has" | "keys" | "size">;

/**
 * The most specific one that matches (12.2).
 *
 * Looked up segment by segment, or among all where they are fewer: so neither a long map nor a name
 * of many segments makes it slow.
 */
function closest(keys: Keys, name: string): string | undefined {
  if (keys.has(name)) return name;
  let found: string | undefined;
  if (keys.size < name.split(".").length) {
    // Those that match a name hold each other: the longest is the most specific.
    for (const key of keys.keys()) {
      if (isBelow(name, key) && key.length > (found ?? "").length) found = key;
    }
    return found;
  }
  for (const key of above(name)) if (keys.has(key)) return key;
  return undefined;
}

/** What the most specific entry says that matches (12.2), or `nothing`. */
export function decided<V, D>(map: ReadonlyMap<string, V>, name: string, nothing: D): V | D {
  const key = closest(map, name);
  return key === undefined ? nothing : map.get(key)!;
}

export const matches = (patterns: ReadonlySet<string>, name: string): boolean =>
  closest(patterns, name) !== undefined;

/** Is a pattern at or below one that has a star? */
function isBelow(key: string, pattern: string): boolean {
  return pattern === "*" || (pattern.endsWith(".*") && key.startsWith(pattern.slice(0, -1)));
}

/** The pattern itself, and the keys below it, in order. */
export function within(
  pattern: string,
  ...maps: readonly ReadonlyMap<string, unknown>[]
): string[] {
  const keys = maps.flatMap((map) => [...map.keys()]).filter((key) => isBelow(key, pattern));
  return [...new Set([pattern, ...keys])].sort(byCodePoint);
}

/** Those that lie below no other. */
export function widest(map: ReadonlyMap<string, unknown>): string[] {
  const widestOnly = [...map.keys()].filter((key) => {
    for (const wider of above(key)) if (wider !== key && map.has(wider)) return false;
    return true;
  });
  return widestOnly.sort(byCodePoint);
}

/**
 * Without entries that repeat what the next wider one says, or nothing where none is wider (19.7).
 */
export function normal<V>(
  map: ReadonlyMap<string, V>,
  nothing: V,
  same: (one: V, two: V) => boolean,
): Map<string, V> {
  const made = new Map<string, V>();
  for (const [key, value] of map) {
    let wider = nothing;
    for (const other of above(key)) {
      if (other !== key && map.has(other)) {
        wider = map.get(other)!;
        break;
      }
    }
    if (!same(value, wider)) made.set(key, value);
  }
  return made;
}

/** The keys of both, and at each the meet of what decides there (19.4). */
export function meetMaps<V>(
  one: ReadonlyMap<string, V>,
  two: ReadonlyMap<string, V>,
  nothing: V,
  both: (one: V, two: V) => V,
): Map<string, V> {
  const made = new Map<string, V>();
  for (const key of new Set([...one.keys(), ...two.keys()])) {
    made.set(key, both(decided(one, key, nothing), decided(two, key, nothing)));
  }
  return made;
}
