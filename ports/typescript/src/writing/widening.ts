/**
 * The check that a new link does not ask for more than is held (spec, "Widening").
 *
 * A service to whoever writes, and no part of what makes narrowing safe: no verifier calls it.
 */

import { byCodePoint } from "../format/bytes.js";
import { DelegationError, UsageError, WideningError } from "../format/errors.js";
import { isInteger, isObject, type Json, type JsonObject } from "../format/json.js";
import { atOrBelow } from "../format/names.js";
import {
  bothCalls,
  callAt,
  callsJson,
  callsOf,
  sameCall,
  type Call,
  type CallMap,
} from "../language/calls.js";
import { ownCovers, type Capability } from "../language/capability.js";
import {
  isKnown,
  readCaveat,
  sortedNames,
  type Arguments,
  type Names,
  type RowsEntry,
  type Said,
  type Vocabulary,
} from "../language/caveats.js";
import {
  ANYTHING,
  NOTHING,
  constraintJson,
  isNothing,
  meetConstraints,
  normalConstraint,
  sameConstraint,
  type Constraint,
} from "../language/constraints.js";
import { holderOf, type Lineage } from "../language/lineage.js";
import { decided, within } from "../language/patterns.js";
import {
  bothColumns,
  isEmpty,
  meetRights,
  rightsAt,
  rightsJson,
  rightsOf,
  rightsTo,
  sameMap,
  sameNames,
  type RightsMap,
} from "../language/rights.js";

export type Asked = Map<string, { readonly json: Json; readonly said: unknown }>;

/** What is asked for too much in one dimension, and what is left of it. */
interface Excess {
  readonly dimension: string;
  /** The keys in whose place what is left stands. */
  readonly replaces: readonly string[];
  readonly left: JsonObject;
  readonly text: string;
}

const PAIRS = ["tables", "operations", "allow"];

/**
 * The JSON of a link that asks for so much. Raises WideningError; with `clamp` it is cut (23.15).
 */
export function narrowed(
  held: Capability,
  asked: Asked,
  clamp: boolean,
  vocabulary: Vocabulary,
): JsonObject {
  const stated: JsonObject = new Map([...asked].map(([key, { json }]) => [key, json]));
  for (const excess of excesses(held, asked, vocabulary)) {
    const { dimension, replaces, left, text } = excess;
    if (!clamp) throw new WideningError(dimension, `${dimension}: more than is held; ${text}`);
    if ([...left.values()].every(saysNothing)) {
      throw new WideningError(dimension, `${dimension}: nothing of it is held`, "nothing_left");
    }
    replaces.forEach((key) => stated.delete(key));
    left.forEach((json, key) => {
      checkWritten(dimension, key, json);
      stated.set(key, json);
    });
  }
  return stated;
}

const saysNothing = (json: Json): boolean =>
  json === "" || (Array.isArray(json) && json.length === 0) || (isObject(json) && json.size === 0);

/** What is left is more than one link can say: a long list of urls. */
function checkWritten(dimension: string, key: string, json: Json): void {
  try {
    if (isKnown(key)) readCaveat(key, json);
  } catch {
    throw new WideningError(
      dimension,
      `${dimension}: what is left cannot be written; ask for less`,
    );
  }
}

/** All that is too much, in the order of 23.3. */
function* excesses(held: Capability, asked: Asked, vocabulary: Vocabulary): Generator<Excess> {
  const said = Object.fromEntries(
    [...asked].map(([key, each]) => [key, each.said]),
  ) as Partial<Said>;
  if (held.data) {
    yield* pairsBeyond(held.data, said);
    yield* columnsBeyond(held.data, said.columns);
    yield* rowsBeyond(held.data, said.rows);
  }
  yield* toolsBeyond(held.tool, said.tools);
  yield* whereBeyond(held.where, said.where);
  yield* numberBeyond("exp", held.exp, said.exp, Math.min);
  yield* numberBeyond("nbf", held.nbf, said.nbf, Math.max);
  yield* audBeyond(held.aud, said.aud);
  yield* taskBeyond(held.task, said.task);
  yield* numberBeyond("uses", held.uses, said.uses, Math.min);
  yield* budgetBeyond(held.budget, said.budget);
  yield* numberBeyond("fresh", held.fresh, said.fresh, Math.min);
  yield* ownBeyond(held, asked, vocabulary);
}

function excess(dimension: string, left: Json | undefined, text: string, key = dimension): Excess {
  return {
    dimension,
    replaces: [key],
    left: left === undefined ? new Map() : new Map([[key, left]]),
    text,
  };
}

function* numberBeyond(
  key: string,
  held: number | undefined,
  wanted: number | undefined,
  both: (one: number, two: number) => number,
): Generator<Excess> {
  if (held === undefined || wanted === undefined) return;
  const left = both(held, wanted);
  if (left !== wanted) yield excess(key, left, `held is ${held}`);
}

function* audBeyond(
  held: ReadonlySet<string> | undefined,
  wanted: ReadonlySet<string> | undefined,
): Generator<Excess> {
  if (!held || !wanted) return;
  const left = [...wanted].filter((name) => held.has(name));
  if (left.length < wanted.size) yield excess("aud", left, `held is ${[...held].join(", ")}`);
}

function* taskBeyond(held: string | undefined, wanted: string | undefined): Generator<Excess> {
  if (held === undefined || wanted === undefined || atOrBelow(wanted, held)) return;
  yield excess("task", atOrBelow(held, wanted) ? held : "", `held is ${held}`);
}

function* budgetBeyond(
  held: ReadonlyMap<string, number>,
  wanted?: ReadonlyMap<string, number>,
): Generator<Excess> {
  if (!wanted) return;
  const left = new Map(
    [...wanted].map(([unit, most]) => [unit, Math.min(most, held.get(unit) ?? most)]),
  );
  const beyond = [...wanted].filter(([unit, most]) => left.get(unit) !== most);
  if (beyond.length) {
    yield excess("budget", left, `too much of ${beyond.map(([unit]) => unit).join(", ")}`);
  }
}

function* whereBeyond(
  held: ReadonlyMap<string, Constraint>,
  wanted?: ReadonlyMap<string, Constraint>,
): Generator<Excess> {
  if (!wanted) return;
  const beyond: string[] = [];
  const left = new Map<string, Json>();
  let isNone = false;
  for (const [name, constraint] of wanted) {
    const both = meetConstraints(held.get(name) ?? ANYTHING, constraint);
    if (!sameConstraint(both, normalConstraint(constraint))) beyond.push(name);
    isNone ||= isNothing(both);
    left.set(name, constraintJson(both));
  }
  // All attributes must hold: one that nothing satisfies leaves nothing of the others.
  if (beyond.length) {
    yield excess("where", isNone ? undefined : left, `attribute ${beyond.sort(byCodePoint)[0]}`);
  }
}

function* ownBeyond(held: Capability, asked: Asked, vocabulary: Vocabulary): Generator<Excess> {
  // In the order of the keys, whatever the writer's was (23.3).
  for (const key of [...asked.keys()].sort()) {
    const { json, said } = asked.get(key)!;
    const wanted = { key, json, value: said };
    const have = held.own.filter((own) => own.key === key);
    if (!have.every((own) => ownCovers(own, wanted, vocabulary))) {
      yield excess(key, undefined, "what is held does not cover it");
    }
  }
}

// --- tables, operations, columns -----------------------------------------------------------------

function* pairsBeyond(held: RightsMap, said: Partial<Said>): Generator<Excess> {
  const { tables, operations, allow } = said;
  if (allow || (tables && operations)) yield* pairBeyond(held, said);
  else if (tables) yield* tablesBeyond(held, tables);
  else if (operations) yield* operationsBeyond(held, operations);
}

/** Every pair that they say together is held, columns and rows aside (23.4). */
function* pairBeyond(
  held: RightsMap,
  { tables, operations, allow }: Partial<Said>,
): Generator<Excess> {
  const wanted = rightsOf({
    ...(tables && { tables }),
    ...(operations && { operations }),
    ...(allow && { allow }),
  });
  const bare = new Map(
    [...held].map(([key, rights]) => [key, rightsTo(rights.operations)]),
  );
  const both = meetRights(wanted, bare);
  if (sameMap(both, wanted)) return;
  let isUnheld = false;
  for (const key of new Set([...wanted.keys(), ...both.keys()])) {
    const have = rightsAt(bare, key).operations;
    const wish = rightsAt(wanted, key).operations;
    isUnheld ||= isEmpty(have) && !isEmpty(wish);
  }
  const dimension = allow ? "allow" : isUnheld ? "tables" : "operations";
  yield {
    dimension,
    replaces: PAIRS,
    left: rightsJson(both),
    text: "a pair of table and operation is not held",
  };
}

/** Each pattern is held if anything at it or below it is (23.5). */
function* tablesBeyond(held: RightsMap, wanted: ReadonlySet<string>): Generator<Excess> {
  const left = new Set<string>();
  const beyond: string[] = [];
  for (const pattern of wanted) {
    const found = within(pattern, held).filter((key) => !isEmpty(rightsAt(held, key).operations));
    if (found.length === 0) beyond.push(pattern);
    (found.includes(pattern) ? [pattern] : found).forEach((key) => left.add(key));
  }
  if (beyond.length) {
    yield {
      ...excess("tables", sortedNames(left), `nothing is held at ${beyond.join(", ")}`),
      replaces: PAIRS,
    };
  }
}

/** Each operation is held on some table; `*` only where `*` is (23.6). */
function* operationsBeyond(held: RightsMap, wanted: Names): Generator<Excess> {
  const everywhere = [...held.values()].map((rights) => rights.operations);
  if (everywhere.includes("*")) return;
  const all = new Set(everywhere.flatMap((names) => [...names]));
  const left = wanted === "*" ? all : new Set([...wanted].filter((name) => all.has(name)));
  if (wanted === "*" || left.size < wanted.size) {
    yield {
      ...excess("operations", sortedNames(left), `held are ${sortedNames(all).join(", ")}`),
      replaces: PAIRS,
    };
  }
}

/** Wherever any operation is held, the columns asked for are among those held (23.7). */
function* columnsBeyond(
  held: RightsMap,
  wanted: ReadonlyMap<string, Names> | undefined,
): Generator<Excess> {
  if (!wanted) return;
  const left = new Map<string, Json>();
  const beyond = new Set<string>();
  for (const [pattern, wish] of wanted) {
    let isFound = false;
    for (const key of within(pattern, held, wanted)) {
      const have = rightsAt(held, key);
      if (isEmpty(have.operations)) continue;
      isFound = true;
      const here = decided(wanted, key, wish);
      const both = bothColumns(have.columns, here)!;
      left.set(key, sortedNames(both));
      if (!sameNames(both, here)) beyond.add(key);
    }
    if (!isFound) beyond.add(pattern);
  }
  if (beyond.size) {
    yield excess("columns", left.size ? left : undefined, `columns at ${[...beyond].join(", ")}`);
  }
}

/** Wherever any operation is held, each column that is asked for is within what is held (23.21). */
function* rowsBeyond(
  held: RightsMap,
  wanted: ReadonlyMap<string, RowsEntry> | undefined,
): Generator<Excess> {
  if (!wanted) return;
  const left = new Map<string, Json>();
  const beyond = new Set<string>();
  let isSome = false;
  for (const pattern of wanted.keys()) {
    const places = within(pattern, held, wanted).filter(
      (key) => !isEmpty(rightsAt(held, key).operations),
    );
    if (places.length === 0) beyond.add(pattern);
    for (const key of places) {
      const { rows } = rightsAt(held, key);
      const otherwise = [...rows.values()].some(isNothing) ? NOTHING : ANYTHING;
      const here = new Map<string, Json>();
      let isNone = false;
      for (const [column, wish] of decided(wanted, key, undefined)!.named) {
        const both = meetConstraints(rows.get(column) ?? otherwise, wish);
        if (!sameConstraint(both, normalConstraint(wish))) beyond.add(key);
        isNone ||= isNothing(both);
        here.set(column, constraintJson(both));
      }
      isSome ||= !isNone;
      left.set(key, here);
    }
  }
  if (beyond.size) {
    yield excess("rows", isSome ? left : undefined, `rows at ${[...beyond].join(", ")}`);
  }
}

// --- tools ---------------------------------------------------------------------------------------

/** Wherever a call is held, the call asked for permits no more (23.8). */
function* toolsBeyond(
  held: CallMap | undefined,
  wanted: ReadonlyMap<string, Arguments> | undefined,
): Generator<Excess> {
  if (!held || !wanted) return;
  const wishes = callsOf(wanted);
  const left = new Map<string, Call>();
  const beyond = new Set<string>();
  for (const pattern of wanted.keys()) {
    let isFound = false;
    for (const key of within(pattern, held, wishes)) {
      const have = callAt(held, key);
      const wish = callAt(wishes, key);
      const both = bothCalls(have, wish);
      left.set(key, both);
      if (have === "nothing") continue;
      isFound = true;
      if (!sameCall(both, wish)) beyond.add(key);
    }
    if (!isFound) beyond.add(pattern);
  }
  if (beyond.size === 0) return;
  const first = [...beyond].sort(byCodePoint)[0]!;
  const text = cause(first, callAt(held, first), callAt(wishes, first));
  yield excess("tools", callsJson(left).get("tools"), text);
}

/**
 * Why a call that is asked for is more than the one held: it names an argument, if there is one.
 */
function cause(tool: string, held: Call, wanted: Call): string {
  if (typeof held === "string" || wanted === "nothing") return `nothing is held at ${tool}`;
  const asked = wanted === "free" ? new Map<string, never>() : wanted;
  const leftOut = [...held.keys()].filter((name) => !asked.has(name));
  if (leftOut.length) return `constrained, and left out: ${leftOut.join(", ")} of tool ${tool}`;
  return `an argument of tool ${tool} asks for more`;
}

// --- position in the chain -----------------------------------------------------------------------

interface Position {
  readonly depth: unknown;
  readonly delegateOnly: unknown;
  readonly to: string | undefined;
}

/** `from`, `to`, `depth` and `delegate_only`, checked against the lineage (23.13, 23.14). */
export function positioned(
  lineage: Lineage,
  asked: Position,
  clamp: boolean | undefined,
): JsonObject {
  const { depth, delegateOnly, to } = asked;
  if (depth !== undefined && (!isInteger(depth) || depth < 0)) {
    throw new UsageError("depth is an integer, 0 or more");
  }
  if (delegateOnly !== undefined && typeof delegateOnly !== "boolean") {
    throw new UsageError("delegateOnly is true");
  }
  const made: JsonObject = new Map();
  let { left } = lineage;
  if (to !== undefined) {
    checkHandOver(lineage, to);
    made.set("from", holderOf(lineage)).set("to", to);
    left = left === undefined ? undefined : left - 1;
  }
  if (depth !== undefined) made.set("depth", depthOf(depth, left, clamp));
  if (delegateOnly === true) made.set("delegate_only", true);
  if (delegateOnly === false) checkReleased(lineage, clamp);
  return made;
}

function checkHandOver(lineage: Lineage, to: string): void {
  if (lineage.holders.includes(to)) {
    throw new DelegationError(`${to} has held this token before`, "broken_delegation");
  }
  if (lineage.left === 0) {
    throw new DelegationError("no more delegations are permitted", "too_deep");
  }
}

function depthOf(depth: number, left: number | undefined, clamp: boolean | undefined): number {
  if (left === undefined || depth <= left) return depth;
  if (clamp) return left;
  throw new WideningError("depth", `depth: after this link ${left} are left`);
}

function checkReleased({ owed }: Lineage, clamp: boolean | undefined): void {
  if (!owed) throw new UsageError("delegateOnly is true or left out, not false");
  if (!clamp) {
    throw new WideningError("delegate_only", "delegate_only: it is satisfied only by delegating");
  }
}
