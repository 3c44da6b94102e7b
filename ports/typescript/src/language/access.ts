/** What is attempted, as facts that the server states, and who calls (spec, "Access"). */

import { byCodePoint } from "../format/bytes.js";
import { Unstated, UsageError } from "../format/errors.js";
import { stands } from "../format/given.js";
import {
  entriesOf,
  isInteger,
  isObject,
  jsonOf,
  plain,
  requestJson,
  type Json,
  type JsonObject,
} from "../format/json.js";
import { isFree, isName, isSegmented, isTask } from "../format/names.js";
import { readConstraint } from "./constraints.js";

/**
 * An access. Values of arguments and attributes are JSON; `float(1)` is `1.0`, a bigint any
 * integer.
 */
export interface Access {
  readonly table?: string | null;
  readonly operation?: string | null;
  /** An empty list says that no column is touched; left out, columns are not stated. */
  readonly columns?: Iterable<string> | null;
  /** The row as it is stored; null says that there is none. Left out, it is not stated. */
  readonly row?: Facts | null;
  /** The row as it will be, likewise. */
  readonly becomes?: Facts | null;
  /** Or the conditions that the server has held: from columns to constraints, as links have them. */
  readonly rows?: readonly Facts[] | null;
  readonly tool?: string | null;
  readonly arguments?: Facts | null;
  readonly attributes?: Facts;
  /** What it takes at most, by unit. */
  readonly cost?: Readonly<Record<string, number>> | ReadonlyMap<string, number>;
}

/**
 * By name: a plain object or a Map. To the compiler any object, since one whose type is an interface
 * has no index signature.
 */
export type Facts = object;

/** What the server's own authentication knows of who calls. Never filled from the token. */
export interface Caller {
  readonly agent?: string | null;
  readonly task?: string | null;
}

/** An access as it was read, once. */
export interface Stated {
  readonly table: string | undefined;
  readonly operation: string | undefined;
  readonly columns: readonly string[] | undefined;
  readonly row: JsonObject | null | undefined;
  readonly becomes: JsonObject | null | undefined;
  readonly rows: readonly JsonObject[] | undefined;
  readonly tool: string | undefined;
  readonly arguments: JsonObject;
  readonly attributes: JsonObject;
  readonly cost: ReadonlyMap<string, number>;
}

const OF_ROWS = ["row", "becomes", "rows"];
const KEYS = [
  ...["table", "operation", "columns", "tool", "arguments", "attributes", "cost"],
  ...OF_ROWS,
];

/** Facts that are given, by name, once: those that are left out are not there. */
function given(value: unknown, keys: readonly string[], what: string): Map<unknown, unknown> {
  const facts = entriesOf(value, what);
  for (const [key] of facts) {
    if (!keys.includes(key as string)) throw new UsageError(`${what} has no ${String(key)}`);
  }
  return new Map(facts.map(([key, fact]) => [key, stands(key, fact)]));
}

function one<T>(
  facts: Map<unknown, unknown>,
  key: string,
  holds: (value: unknown) => value is T,
): T | undefined {
  const value = facts.get(key) ?? undefined;
  if (value !== undefined && !holds(value)) {
    throw new Unstated(`${key} is not what it must be (spec 7.2)`);
  }
  return value;
}

export function factsOf(value: unknown, what: string): JsonObject {
  const made = value === undefined ? new Map<string, Json>() : jsonOf(value);
  if (!isObject(made) || ![...made.keys()].every(isFree)) {
    throw new Unstated(`${what}: names are free names`);
  }
  return made;
}

function columnsOf(value: unknown): string[] | undefined {
  if (value === undefined) return undefined;
  if (!Array.isArray(value) && !(value instanceof Set)) {
    throw new Unstated("columns must be a list");
  }
  const columns = [...(value as Iterable<unknown>)];
  if (!columns.every((column): column is string => isFree(column) && column !== "*")) {
    throw new Unstated("columns are free names, and not *");
  }
  return columns;
}

/** A row, null where there is none, or undefined where it is not stated (7.11). */
function rowOf(value: unknown, what: string): JsonObject | null | undefined {
  if (value === undefined || value === null) return value;
  const row = factsOf(value, what);
  if (row.has("*")) throw new Unstated("* is no column");
  return row;
}

/** Conditions that the server has held (7.12). */
function conditionsOf(value: unknown): JsonObject[] | undefined {
  if (value === undefined) return undefined;
  if (!Array.isArray(value)) throw new UsageError("rows must be a list of conditions");
  const conditions = value.map((condition) => factsOf(condition ?? [], "a condition of rows"));
  for (const condition of conditions) {
    for (const stated of condition.values()) readConstraint(stated);
  }
  return conditions;
}

function costOf(value: unknown): Map<string, number> {
  const cost = value === undefined ? [] : entriesOf(value, "cost");
  const isCost = (pair: [unknown, unknown]): pair is [string, number] =>
    isName(pair[0]) && isInteger(pair[1]) && pair[1] >= 0;
  if (!cost.every(isCost)) {
    throw new UsageError("cost is from units to integers from 0 to 2^53 - 1");
  }
  return new Map(cost);
}

/** Raises UsageError for an access that cannot be stated (7.7). Asked of it, `check` denies. */
export const checkAccess = (access: Access): void => void stated(access);

/** The facts, checked and copied. Raises UsageError; Unstated where a client can be at fault. */
export function stated(access: Access): Stated {
  const facts = given(access, KEYS, "an access");
  try {
    return statedIn(facts);
  } catch (error) {
    if (error instanceof Unstated && (facts.get("tool") ?? undefined) !== undefined) {
      error.code = error.isNumber ? "argument" : "tool";
    }
    throw error;
  }
}

function statedIn(facts: Map<unknown, unknown>): Stated {
  const table = one(facts, "table", isSegmented);
  const operation = one(facts, "operation", isName);
  const columns = columnsOf(facts.get("columns") ?? undefined);
  const args = facts.get("arguments") ?? undefined;
  const tool = one(facts, "tool", isSegmented);
  if ((table === undefined) !== (operation === undefined)) {
    throw new UsageError("a table and an operation come together");
  }
  const isOfRows = OF_ROWS.some((fact) => facts.has(fact) && (facts.get(fact) !== null || fact !== "rows"));
  if ((columns || isOfRows) && table === undefined) {
    throw new UsageError("columns and rows come with a table");
  }
  const rows = conditionsOf(facts.get("rows") ?? undefined);
  if (rows && (facts.has("row") || facts.has("becomes"))) {
    throw new UsageError("state the row, or the conditions that were held: not both");
  }
  if (args !== undefined && tool === undefined) throw new UsageError("arguments come with a tool");
  return {
    table,
    operation,
    columns,
    row: rowOf(facts.get("row"), "row"),
    becomes: rowOf(facts.get("becomes"), "becomes"),
    rows,
    tool,
    arguments: factsOf(args, "arguments"),
    attributes: factsOf(facts.get("attributes"), "attributes"),
    cost: costOf(facts.get("cost")),
  };
}

const SEEN = new WeakMap<Stated, Access>();

/** What own caveats see: one copy of what was read, plain and frozen (7.10). */
export function seen(access: Stated): Access {
  let made = SEEN.get(access);
  if (!made) {
    const facts = Object.entries(access).filter(([, fact]) => fact !== undefined);
    made = plain(new Map(facts) as JsonObject, true) as Access;
    SEEN.set(access, made);
  }
  return made;
}

export function statedCaller(caller: Caller): {
  agent: string | undefined;
  task: string | undefined;
} {
  const facts = given(caller, ["agent", "task"], "a caller");
  const made = { agent: one(facts, "agent", isName), task: one(facts, "task", isTask) };
  if (made.agent === undefined && made.task === undefined) {
    throw new UsageError("a caller states an agent, a task, or both");
  }
  return made;
}

/** The one part of the request of an access (29.4). Raises UsageError where it has no spelling. */
export function spelledAccess(access: Stated): string {
  try {
    return requestJson(
      new Map<string, Json>([
        ["arguments", access.tool === undefined ? null : access.arguments],
        ["attributes", access.attributes],
        ["columns", access.columns ? [...new Set(access.columns)].sort(byCodePoint) : null],
        ["operation", access.operation ?? null],
        ["table", access.table ?? null],
        ["tool", access.tool ?? null],
      ]),
    );
  } catch (error) {
    if (error instanceof RangeError) {
      throw new UsageError("an access that is nested too deep to spell");
    }
    throw error;
  }
}
