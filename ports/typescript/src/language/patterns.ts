/** Patterns of tables and tools, and maps from them (spec, "Patterns"). */

import { byCodePoint } from "../format/bytes.js";

/** The keys that match a name, or hold for all of a pattern: the most specific first. */
function* above(name: string): Generator<string> {
  yield name;
  const segments = name.split(".");
  for (let length = segments.length - 1; length > 0; length--) {
    const wider = `${segments.slice(0, length).join(".")}.*`;
    if (wider !== name) yield wider;
  }
  if (name !== "*") yield "*";
}

/** What the most specific entry says that matches (12.2), or `nothing`. */
export function decided<V, D>(map: ReadonlyMap<string, V>, name: string, nothing: D): V | D {
  for (const key of above(name)) {
    if (map.has(key)) return map.get(key)!;
  }
  return nothing;
}

export const matches = (patterns: ReadonlySet<string>, name: string): boolean => {
  for (const key of above(name)) if (patterns.has(key)) return true;
  return false;
};

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
