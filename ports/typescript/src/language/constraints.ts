/** Constraints: an object that one value satisfies or does not (spec, "Constraints"). */

import { byCodePoint } from "../format/bytes.js";
import { UsageError } from "../format/errors.js";
import { handed } from "../format/handed.js";
import {
  Float,
  canonical,
  isInteger,
  isObject,
  type Json,
  type JsonObject,
} from "../format/json.js";
import { isFree } from "../format/names.js";
import { address, block, merged, spellBlock } from "./addresses.js";
import { beginsWithOne, lastUpTo, shortest, sorted, type Scalar } from "./sorted.js";
import { meetUrls, parseUrl, spellUrl, urlWithin, type Url } from "./urls.js";

export type { Scalar };

/** What a text begins with: paths with a slash behind them, prefixes, or the bits of blocks. */
interface Starts {
  readonly kind: "path" | "prefix" | "cidr";
  /** In order, and none begins with another. */
  readonly list: readonly string[];
}

export type Constraint =
  | { readonly kind: "any" }
  | { readonly kind: "in"; /** In order. */ readonly list: readonly Scalar[] }
  | { readonly kind: "range"; readonly min?: number | undefined; readonly max?: number | undefined }
  | Starts
  | { readonly kind: "url"; readonly list: readonly Url[] }
  | { readonly kind: "each"; readonly of: Constraint; readonly most?: number | undefined };

export const NOTHING: Constraint = handed({ kind: "in", list: [] });
export const ANYTHING: Constraint = handed({ kind: "any" });

const DEEPEST_EACH = 4;
const MOST_URLS = 16;
const MOST_MET_URLS = 256;

const bad = (what: string): UsageError => new UsageError(`no constraint: ${what}`);

// --- reading -------------------------------------------------------------------------------------

/** The constraint that JSON states. Raises UsageError (13.1). */
export function readConstraint(stated: Json, depth = 0): Constraint {
  if (!isObject(stated)) throw bad("it must be an object");
  const kinds = [...stated.keys()].sort().join(" ");
  const read = READERS[kinds];
  if (!Object.hasOwn(READERS, kinds) || !read) throw bad(`the keys ${kinds || "are missing"}`);
  return read(stated, depth);
}

const READERS: Readonly<Record<string, (stated: JsonObject, depth: number) => Constraint>> = {
  any: (stated) => {
    if (stated.get("any") !== true) throw bad("any must be true");
    return ANYTHING;
  },
  in: (stated) => ({ kind: "in", list: sorted(listOf(stated, "in", isScalar)) }),
  max: readRange,
  min: readRange,
  "max min": readRange,
  path: (stated) => startsOf("path", listOf(stated, "path", isTop).map(ended)),
  prefix: (stated) => startsOf("prefix", listOf(stated, "prefix", isStart)),
  url: (stated) => {
    const list = listOf(stated, "url", isText).map((entry) => parseUrl(entry, true));
    if (list.length > MOST_URLS || !list.every((entry) => entry !== undefined)) throw bad("url");
    return { kind: "url", list };
  },
  cidr: (stated) => {
    const list = listOf(stated, "cidr", isFree).map(block);
    if (!list.every((entry) => entry !== undefined)) throw bad("cidr");
    return startsOf("cidr", list);
  },
  each: readEach,
  "each most": readEach,
};

const isScalar = (value: Json): value is Scalar =>
  isFree(value) || isInteger(value) || typeof value === "boolean";
const isTop = (value: Json): value is string => isFree(value) && isPath(value);
const isStart = (value: Json): value is string =>
  isFree(value) && !value.startsWith("/") && !value.includes("://");
/** A path as those below it begin: the root is its own slash. */
const ended = (path: string): string => (path === "/" ? path : `${path}/`);
const startsOf = (kind: Starts["kind"], list: readonly string[]): Starts => ({
  kind,
  list: kind === "cidr" ? merged(list) : shortest(list),
});
const isText = (value: Json): value is string => typeof value === "string";

function listOf<T extends Json>(
  stated: JsonObject,
  key: string,
  holds: (value: Json) => value is T,
): T[] {
  const list = stated.get(key)!;
  if (!Array.isArray(list) || !list.every(holds)) throw bad(key);
  return list;
}

function readRange(stated: JsonObject): Constraint {
  const min = stated.get("min");
  const max = stated.get("max");
  const bounds = [min, max].filter((bound) => bound !== undefined);
  if (!bounds.every(isInteger)) throw bad("min and max must be integers");
  const [low, high] = [min as number | undefined, max as number | undefined];
  if (low !== undefined && high !== undefined && low > high) throw bad("min above max");
  return { kind: "range", min: low, max: high };
}

function readEach(stated: JsonObject, depth: number): Constraint {
  if (depth >= DEEPEST_EACH) throw bad(`each in each, more than ${DEEPEST_EACH}`);
  const most = stated.get("most");
  if (most !== undefined && (!isInteger(most) || most < 0)) throw bad("most");
  return { kind: "each", of: readConstraint(stated.get("each")!, depth + 1), most };
}

/** Codes that could be read as a separator or an end; segments that are empty, `.` or `..`. */
const NO_PATH = /[\\\0]|%(?:2e|2f|5c|25|00)|\/\.{0,2}(?:\/|$)/i;

/** Is it a path in the one spelling (spec, "Paths")? */
const isPath = (value: string): boolean =>
  value === "/" || (value.startsWith("/") && !NO_PATH.test(value));

// --- asking --------------------------------------------------------------------------------------

/** Does a value satisfy the constraint? Types are compared, and never coerced (13.3). */
export function satisfies(constraint: Constraint, value: Json): boolean {
  switch (constraint.kind) {
    case "any":
      return true;
    case "in":
      // What is no scalar is never equal to one.
      return lastUpTo(constraint.list, value as Scalar) === value;
    case "range":
      return inRange(constraint, value);
    case "each": {
      const { of, most } = constraint;
      if (!Array.isArray(value) || (most !== undefined && value.length > most)) return false;
      return value.every((item) => satisfies(of, item));
    }
    default:
      return typeof value === "string" && satisfiesText(constraint, value);
  }
}

type Range = Extract<Constraint, { kind: "range" }>;
type OfUrls = Extract<Constraint, { kind: "url" }>;

function inRange({ min, max }: Range, value: Json): boolean {
  const number = value instanceof Float ? value.value : value;
  if (typeof number !== "number" && typeof number !== "bigint") return false;
  return (min === undefined || number >= min) && (max === undefined || number <= max);
}

function satisfiesText(constraint: Starts | OfUrls, value: string): boolean {
  const { kind, list } = constraint;
  switch (kind) {
    case "path":
      return isPath(value) && beginsWithOne(ended(value), list);
    case "prefix":
      return beginsWithOne(value, list) && !hasParts(value);
    case "url": {
      const url = parseUrl(value);
      return url !== undefined && list.some((site) => urlWithin(url, site));
    }
    case "cidr": {
      const found = address(value);
      return found !== undefined && beginsWithOne(found, list);
    }
  }
}

/** A url or an address: a prefix would cut through a part of it (13.8). None begins a path. */
const hasParts = (value: string): boolean =>
  parseUrl(value) !== undefined || address(value) !== undefined;

// --- the algebra ---------------------------------------------------------------------------------

const byType = (value: Scalar): number => ["boolean", "number", "string"].indexOf(typeof value);

/** Booleans, then integers, then strings by code point (19.9). */
export function byScalar(one: Scalar, two: Scalar): number {
  if (typeof one === "string" && typeof two === "string") return byCodePoint(one, two);
  return byType(one) - byType(two) || Number(one) - Number(two);
}

const inOrder = (list: Iterable<Scalar>): Scalar[] => [...new Set(list)].sort(byScalar);

/** JSON that states the constraint; of one in normal form the only one. */
export function constraintJson(constraint: Constraint): JsonObject {
  const made: JsonObject = new Map();
  switch (constraint.kind) {
    case "any":
      return made.set("any", true);
    case "range":
      if (constraint.max !== undefined) made.set("max", constraint.max);
      if (constraint.min !== undefined) made.set("min", constraint.min);
      return made;
    case "each":
      made.set("each", constraintJson(constraint.of));
      if (constraint.most !== undefined) made.set("most", constraint.most);
      return made;
    case "url":
      return made.set("url", inOrder(constraint.list.map(spellUrl)));
    case "cidr":
      return made.set("cidr", inOrder(constraint.list.map(spellBlock)));
    case "path":
      return made.set("path", inOrder(constraint.list.map((top) => top.slice(0, -1) || "/")));
    default:
      return made.set(constraint.kind, inOrder(constraint.list));
  }
}

export const sameConstraint = (one: Constraint, two: Constraint): boolean =>
  canonical(constraintJson(one)) === canonical(constraintJson(two));

export const isNothing = (constraint: Constraint): boolean =>
  constraint.kind === "in" && constraint.list.length === 0;

/** The same constraint in normal form: equal ones are then spelled alike. */
export function normalConstraint(constraint: Constraint): Constraint {
  switch (constraint.kind) {
    case "path":
    case "prefix":
    case "cidr":
      return constraint.list.length ? constraint : NOTHING;
    case "url": {
      const list = widestUrls(constraint.list);
      return list.length ? { kind: "url", list } : NOTHING;
    }
    case "each": {
      const of = normalConstraint(constraint.of);
      const isEmpty = isNothing(of) || constraint.most === 0;
      return isEmpty
        ? { kind: "each", of: NOTHING, most: 0 }
        : { kind: "each", of, most: constraint.most };
    }
    default:
      return constraint;
  }
}

/** None within another; more than 256 accept nothing (13.13). */
function widestUrls(list: readonly Url[]): Url[] {
  const all = [...new Map(list.map((url) => [spellUrl(url), url]))];
  // A wider one is no longer, and a star comes before all that a label may have.
  all.sort(([one], [two]) => one.length - two.length || (one < two ? -1 : 1));
  const kept: Url[] = [];
  for (const [, url] of all) {
    if (!kept.some((outer) => urlWithin(url, outer))) kept.push(url);
    if (kept.length > MOST_MET_URLS) return [];
  }
  return kept;
}

/** What accepts what both accept, in normal form. */
export function meetConstraints(one: Constraint, two: Constraint): Constraint {
  return normalConstraint(meet(one, two));
}

function meet(one: Constraint, two: Constraint): Constraint {
  if (one.kind === "any") return two;
  if (two.kind === "any") return one;
  if (one.kind === "in") {
    return { kind: "in", list: one.list.filter((value) => satisfies(two, value)) };
  }
  if (two.kind === "in") return meet(two, one);
  if (one.kind === "range" && two.kind === "range") return meetRanges(one, two);
  if (one.kind === "each" && two.kind === "each") {
    return { kind: "each", of: meetConstraints(one.of, two.of), most: least(one.most, two.most) };
  }
  return meetLists(one, two);
}

function meetRanges(one: Range, two: Range): Constraint {
  const min = greatest(one.min, two.min);
  const max = least(one.max, two.max);
  return min !== undefined && max !== undefined && min > max
    ? NOTHING
    : { kind: "range", min, max };
}

function meetLists(one: Constraint, two: Constraint): Constraint {
  if (one.kind === "url" && two.kind === "url") {
    const pairs = one.list.flatMap((mine) => two.list.map((its) => meetUrls(mine, its)));
    return { kind: "url", list: pairs.filter((url) => url !== undefined) };
  }
  return isStarts(one) && isStarts(two) && one.kind === two.kind
    ? startsOf(one.kind, [...within(one, two), ...within(two, one)])
    : NOTHING;
}

const isStarts = (made: Constraint): made is Starts =>
  ["path", "prefix", "cidr"].includes(made.kind);

/** Of one the entries that lie within those of another. */
const within = (inner: Starts, outer: Starts): string[] =>
  inner.list.filter((start) => beginsWithOne(start, outer.list));

export function least(one: number | undefined, two: number | undefined): number | undefined {
  if (one === undefined || two === undefined) return one ?? two;
  return Math.min(one, two);
}

export function greatest(one: number | undefined, two: number | undefined): number | undefined {
  if (one === undefined || two === undefined) return one ?? two;
  return Math.max(one, two);
}

// --- writing -------------------------------------------------------------------------------------

/** What a writer asks for, completed by what is held for it: `max` alone gets a `min` (13.6). */
export function completed(given: Json, held: Constraint, depth = 0): Json {
  if (!isObject(given) || depth > DEEPEST_EACH) return given;
  const made = new Map(given);
  const each = made.get("each");
  if (each !== undefined) {
    made.set("each", completed(each, held.kind === "each" ? held.of : ANYTHING, depth + 1));
  }
  const max = made.get("max");
  if (!isInteger(max) || made.has("min")) return made;
  if (max < 0) {
    throw new UsageError(`max ${max} alone: write min as well`);
  }
  const low = held.kind === "range" ? held.min : undefined;
  return made.set("min", low === undefined || low > max ? 0 : low);
}
