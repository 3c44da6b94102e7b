/** How much work a decision is (spec, "Verification", 24.25 and 24.26). */

import { utf8 } from "../format/bytes.js";
import { canonical, canonicalObject, isObject, type Json, type JsonObject } from "../format/json.js";
import type { Stated } from "./access.js";
import type { Link } from "./links.js";
import { decided } from "./patterns.js";

const MOST = 1_048_576;
const SCALAR = 24;
const AROUND = 2;
const ITEM = 16;

/** In the words of an operator; no string of a token is in it. */
export const TOO_MUCH = {
  code: "too_much_work",
  text: `the constraints, with the values they check, are larger than ${MOST}`,
} as const;

/** The size of a value, or a number beyond the limit once it is beyond that. */
export function sizeOf(value: Json): number {
  let size = 0;
  const left: Json[] = [value];
  while (left.length && size <= MOST) {
    const one = left.pop()!;
    if (typeof one === "string") {
      // At least a byte for each unit: a long one is not encoded to know that it is too long.
      size += AROUND + (one.length > MOST ? one.length : utf8(one).length);
    } else if (Array.isArray(one)) {
      size += AROUND + ITEM * one.length;
      if (size <= MOST) for (const item of one) left.push(item);
    } else if (isObject(one)) {
      size += AROUND + ITEM * one.size;
      if (size <= MOST) for (const [key, item] of one) left.push(key, item);
    } else {
      size += SCALAR;
    }
  }
  return size;
}

const mapAt = (stated: JsonObject, key: string): JsonObject => {
  const found = stated.get(key);
  return isObject(found) ? found : new Map<string, Json>();
};

const restricts = (constraint: Json): boolean => isObject(constraint) && !constraint.has("any");

/** Each constraint with the value that it looks at, where that is stated. `any` looks at none. */
function* constrained(rules: Json | undefined, values: JsonObject): Generator<[Json, Json]> {
  if (!isObject(rules)) return;
  for (const [name, constraint] of rules) {
    const value = values.get(name);
    if (value !== undefined && restricts(constraint)) {
      yield [constraint, value];
    }
  }
}

/** What a link has at values of an access: each list and constraint, as it travels. */
function* looked(stated: JsonObject, access: Stated): Generator<[Json | undefined, Json]> {
  const { table, operation, columns, tool } = access;
  if (table !== undefined) {
    yield [stated.get("tables"), table];
    yield [stated.get("operations"), operation!];
    yield [decided(mapAt(stated, "allow"), table, undefined), operation!];
    if (columns) yield [decided(mapAt(stated, "columns"), table, undefined), [...columns]];
    const entry = decided(mapAt(stated, "rows"), table, undefined);
    if (access.rows && isObject(entry) && [...entry.values()].some(restricts)) {
      yield [entry, access.rows as Json];
    }
    for (const row of [access.row, access.becomes]) if (row) yield* constrained(entry, row);
  }
  if (tool !== undefined) {
    yield* constrained(decided(mapAt(stated, "tools"), tool, undefined), access.arguments);
  }
  yield* constrained(stated.get("where"), access.attributes);
  const consents = (stated.get("consent") ?? []) as JsonObject[];
  const needs = consents.map((each) => each.get("for")!);
  for (const mark of [...mapAt(stated, "marks").values(), ...needs]) {
    const at = (key: string): Json | undefined => (mark as JsonObject).get(key);
    if (table !== undefined) {
      yield [at("tables"), table];
      yield [at("operations"), operation!];
    }
    if (tool !== undefined) yield [at("tools"), tool];
    yield* looked(mapAt(mark as JsonObject, "but"), access);
  }
}

/** No less than the size of all that one link can look at: sooner had than what each looks at. */
function sizeOfAll(access: Stated): number {
  const { table, operation, columns, tool, arguments: args, attributes } = access;
  const { row, becomes, rows } = access;
  const names = sizeOf(table ?? "") + 2 * sizeOf(operation ?? "") + sizeOf(tool ?? "");
  const ofRows = sizeOf(row ?? "") + sizeOf(becomes ?? "") + sizeOf([...(rows ?? [])]);
  return ofRows + names + sizeOf([...(columns ?? [])]) + sizeOf(args) + sizeOf(attributes);
}

/** Is it more than a decision may be? Without an access nothing is looked at. */
export function isTooMuch(links: readonly Link[], access: Stated | undefined): boolean {
  if (!access) return false;
  const bytes = links.reduce((sum, { body }) => sum + body.length, 0);
  // A mark looks at names of its own, and once more at what it spares. So does a consent.
  const ofMarks = ({ says }: Link): number => (says.marks?.size ?? 0) + (says.consent?.length ?? 0);
  const looks = links.reduce((sum, link) => sum + 1 + 2 * ofMarks(link), 0);
  if (bytes + looks * sizeOfAll(access) <= MOST) return false;
  let work = 0;
  const sizes = new Map<Json, number>();
  for (const { body } of links) {
    for (const [constraint, value] of looked(canonicalObject(body)!, access)) {
      if (constraint === undefined) continue;
      const size = sizes.get(value) ?? sizeOf(value);
      sizes.set(value, size);
      work += utf8(canonical(constraint)).length + size;
      if (work > MOST) return true;
    }
  }
  return false;
}
