/** What a link can say: how each caveat is read, and when it prohibits (spec, "Caveats"). */

import { b64exact, byCodePoint, type Bytes } from "../format/bytes.js";
import { isSigningKey } from "../format/crypto.js";
import { UsageError } from "../format/errors.js";
import { isLater } from "../format/given.js";
import {
  canonical,
  isInteger,
  isObject,
  plain,
  type Json,
  type JsonObject,
} from "../format/json.js";
import { atOrBelow, isFree, isName, isNamespaced, isPattern, isTask } from "../format/names.js";
import type { Access, Stated } from "./access.js";
import { isNothing, readConstraint, satisfies, type Constraint } from "./constraints.js";
import { above, decided, matches } from "./patterns.js";

/** Names, or all of them. */
export type Names = ReadonlySet<string> | "*";

/** A constraint on an argument, and whether the argument may be left out. */
export interface Argument {
  readonly constraint: Constraint;
  readonly optional: boolean;
}

/** The arguments of a tool: free, or a closed world. */
export type Arguments = "free" | ReadonlyMap<string, Argument>;

/** What the rows of a table satisfy, by column. A column that is free is not in it. */
export type RowRule = ReadonlyMap<string, Constraint>;

/** What is said of the rows of a table. */
export interface RowsEntry {
  /** As it stands in the link. */
  readonly json: JsonObject;
  /** Each column that it names, the free ones too. */
  readonly named: RowRule;
  readonly rule: RowRule;
}

/** What puts an access in a mark (46.1). */
export interface Mark {
  /** As it stands in the link. */
  readonly json: Json;
  readonly tables?: ReadonlySet<string>;
  readonly operations?: Names;
  readonly tools?: ReadonlySet<string>;
  readonly but?: Judged;
}

/** Once all of `after` are set, nothing in a mark of `closed` is permitted (46.4). */
export interface Rule {
  readonly json: Json;
  readonly closed: ReadonlySet<string>;
  readonly after: ReadonlySet<string>;
  /** Whose consent lets an access through. */
  readonly unless: Bytes | undefined;
}

/** Each access that `needs` has, as a mark would, needs a consent of the key `by` (47.1). */
export interface Consenting {
  readonly json: Json;
  readonly by: Bytes;
  readonly needs: Mark;
}

/** What accesses are judged by, of a link or of what a mark spares. */
export interface Judged {
  /** Its keys in canonical order, which is the order of asking (17.7). */
  readonly keys: readonly string[];
  readonly says: Partial<Said>;
  readonly own: readonly Own[];
  readonly domains: ReadonlySet<Domain>;
}

/** An own caveat as it stands in a link. */
export interface Own {
  readonly key: string;
  readonly json: Json;
  readonly value: unknown;
}

/** What a link says, by key. */
export interface Said {
  readonly tables: ReadonlySet<string>;
  readonly operations: Names;
  readonly allow: ReadonlyMap<string, Names>;
  readonly columns: ReadonlyMap<string, Names>;
  readonly rows: ReadonlyMap<string, RowsEntry>;
  readonly tools: ReadonlyMap<string, Arguments>;
  readonly where: ReadonlyMap<string, Constraint>;
  readonly exp: number;
  readonly nbf: number;
  readonly aud: ReadonlySet<string>;
  readonly task: string;
  readonly uses: number;
  readonly budget: ReadonlyMap<string, number>;
  readonly marks: ReadonlyMap<string, Mark>;
  readonly forbid: readonly Rule[];
  readonly consent: readonly Consenting[];
  readonly fresh: number;
  readonly from: string;
  readonly to: string;
  readonly n: string;
  readonly depth: number;
  readonly delegate_only: true;
  readonly key: Bytes;
}

export type Key = keyof Said;
export type Domain = "data" | "tool";

/** Why something is prohibited: a stable code, and words for the operator. */
export interface Reason {
  readonly code: string;
  readonly text: string;
}

/** The verifier's own facts, as the links before have narrowed them. */
export interface Situation {
  readonly now: number;
  readonly leeway: number;
  readonly audiences: ReadonlySet<string>;
  readonly task: string;
  /** How old the overlay is, in seconds; undefined where there is none. */
  readonly overlayAge: number | undefined;
}

/** A caveat of an embedding project, under a namespaced key (15.11, 15.12). */
export interface OwnCaveat<T = unknown> {
  readonly domain: Domain | "all";
  /** Does it ask about the access? Else it is asked without one, too (24.8). */
  readonly asksAccess?: boolean;
  /** The value of the caveat. Whatever it raises makes the link unreadable. */
  readonly read: (value: unknown) => T;
  /** Why the access is prohibited, or undefined. Whatever it raises prohibits. */
  readonly prohibits: (
    value: T,
    access: Access | undefined,
    situation: Situation,
  ) => Reason | string | undefined;
  /** Does the one permit all that the other does? By default only its equal. */
  readonly covers?: (held: T, asked: T) => boolean;
}

export type Vocabulary = Readonly<Record<string, OwnCaveat>>;

// --- reading -------------------------------------------------------------------------------------

const bad = (what: string): UsageError =>
  new UsageError(`${what} is not what it must be (spec, "Caveats")`);

function check<T>(key: string, value: Json, holds: (value: Json) => boolean): T {
  if (!holds(value)) throw bad(key);
  return value as T;
}

function listOf<T extends Json>(key: string, value: Json, holds: (value: Json) => value is T): T[] {
  if (!Array.isArray(value) || !value.every(holds)) throw bad(key);
  return value;
}

function mapOf<T>(
  key: string,
  value: Json,
  isKey: (key: string) => boolean,
  read: (value: Json, key: string) => T,
): Map<string, T> {
  if (!isObject(value) || ![...value.keys()].every(isKey)) throw bad(key);
  return new Map([...value].map(([name, inner]) => [name, read(inner, name)]));
}

function filled<M extends ReadonlyMap<string, unknown>>(key: string, map: M): M {
  if (map.size === 0) throw bad(key);
  return map;
}

const isOperation = (value: Json): value is string => value === "*" || isName(value);
const natural = (value: Json): value is number => isInteger(value) && value >= 0;
const names = (list: readonly string[]): Names => (list.includes("*") ? "*" : new Set(list));
const operations = (value: Json): Names => names(listOf("operations", value, isOperation));
const integer =
  (key: string) =>
  (value: Json): number =>
    check(key, value, isInteger);
const count =
  (key: string) =>
  (value: Json): number =>
    check(key, value, natural);

function readArgument(stated: Json): Argument {
  if (!isObject(stated) || !stated.has("optional")) {
    return { constraint: readConstraint(stated), optional: false };
  }
  if (stated.get("optional") !== true) throw bad("optional");
  const rest = new Map(stated);
  rest.delete("optional");
  return { constraint: readConstraint(rest), optional: true };
}

function readArguments(stated: Json): Arguments {
  const made = mapOf("tools", stated, isFree, readArgument);
  return made.size ? made : "free";
}

function readRowsEntry(stated: Json): RowsEntry {
  const named = mapOf("rows", stated, isFree, (constraint) => readConstraint(constraint));
  const rule = new Map([...named].filter(([, { kind }]) => kind !== "any"));
  return { json: stated as JsonObject, named, rule };
}

/** By pattern. An entry that says something names what those over it name (15.14). */
function readRows(value: Json): ReadonlyMap<string, RowsEntry> {
  const made = filled("rows", mapOf("rows", value, isPattern, readRowsEntry));
  for (const [pattern, { named }] of made) {
    if (named.size === 0) continue;
    for (const wider of above(pattern)) {
      const over = made.get(wider)?.named ?? new Map<string, Constraint>();
      if (![...over.keys()].every((column) => named.has(column))) throw bad("rows");
    }
  }
  return made;
}

const some = (key: string, value: Json): Json[] | JsonObject => {
  if (isObject(value) ? !value.size : !(Array.isArray(value) && value.length)) throw bad(key);
  return value as Json[] | JsonObject;
};

function readMark(json: Json): Mark {
  const made: Record<string, unknown> = { json };
  for (const [key, value] of mapOf("marks", json, isOfMark, (each) => some("marks", each))) {
    made[key] = key === "but" ? readBut(value) : READERS[key === "operations" ? key : "tables"](value);
  }
  if (!made["tables"] && (made["operations"] || !made["tools"])) throw bad("marks");
  return made as unknown as Mark;
}

const isOfMark = (key: string): boolean => /^(tables|operations|tools|but)$/.test(key);
const isOfBut = (key: string): boolean => /^(tables|operations|allow|tools)$/.test(key);

/** A link with these keys alone. */
function readBut(json: Json): Judged {
  const said = mapOf("marks", json, isOfBut, (value, key) => readCaveat(key as Key, value));
  const keys = [...said.keys()];
  const domains = new Set(keys.map((key) => DOMAINS[key]!));
  return { keys, says: Object.fromEntries(said), own: [], domains };
}

function readRule(json: Json): Rule {
  const said = mapOf("forbid", json, (key) => /^(in|after|unless)$/.test(key), (value, key) =>
    key === "unless" ? readKey(value) : atMost(key === "in" ? 8 : 7, listOf("forbid", value, isName)),
  );
  const [closed, after] = [said.get("in"), said.get("after")];
  if (!closed || !after) throw bad("forbid");
  const unless = said.get("unless") as Bytes | undefined;
  return { json, closed: new Set(closed as string[]), after: new Set(after as string[]), unless };
}

function readConsenting(json: Json): Consenting {
  const said = mapOf("consent", json, (key) => /^(by|for)$/.test(key), (value) => value);
  const [by, needs] = [said.get("by"), said.get("for")];
  if (by === undefined || needs === undefined) throw bad("consent");
  return { json, by: readKey(by), needs: readMark(needs) };
}

function atMost<T>(most: number, list: T[]): T[] {
  if (!list.length || list.length > most) throw bad("forbid");
  return list;
}

export function readKey(value: Json): Bytes {
  const key = b64exact(value, 32);
  if (!key || !isSigningKey(key)) throw bad("key");
  return key;
}

/** How the value of each key is read. Raises UsageError for one that is none. */
const READERS: { readonly [K in Key]: (value: Json) => Said[K] } = {
  tables: (value) => new Set(listOf("tables", value, isPattern)),
  operations,
  allow: (value) => mapOf("allow", value, isPattern, operations),
  columns: (value) =>
    filled(
      "columns",
      mapOf("columns", value, isPattern, (list) => names(listOf("columns", list, isFree))),
    ),
  rows: readRows,
  tools: (value) => mapOf("tools", value, isPattern, readArguments),
  where: (value) =>
    filled(
      "where",
      mapOf("where", value, isFree, (stated) => readConstraint(stated)),
    ),
  exp: integer("exp"),
  nbf: integer("nbf"),
  aud: (value) => new Set(listOf("aud", value, isName)),
  task: (value) => check("task", value, isTask),
  uses: count("uses"),
  budget: (value) => filled("budget", mapOf("budget", value, isUnit, count("budget"))),
  marks: (value) => {
    const made = filled("marks", mapOf("marks", value, isName, readMark));
    if (made.size > 8) throw bad("marks");
    return made;
  },
  forbid: (value) => atMost(16, Array.isArray(value) ? value : []).map(readRule),
  consent: (value) => atMost(4, Array.isArray(value) ? value : []).map(readConsenting),
  fresh: count("fresh"),
  from: (value) => check("from", value, isName),
  to: (value) => check("to", value, isName),
  n: (value) =>
    check("n", value, (text) => typeof text === "string" && /^[A-Za-z0-9_-]{11}$/.test(text)),
  depth: count("depth"),
  delegate_only: (value) => check("delegate_only", value, (flag) => flag === true),
  key: readKey,
};

const isUnit = (value: string): boolean => isName(value) && value !== "uses";

export const isKnown = (key: string): key is Key => Object.hasOwn(READERS, key);
export const isOwn = (key: string, vocabulary: Vocabulary): boolean =>
  isNamespaced(key) && Object.hasOwn(vocabulary, key);

export function readCaveat<K extends Key>(key: K, value: Json): Said[K] {
  return READERS[key](value);
}

export function ownValue(key: string, value: Json, vocabulary: Vocabulary): unknown {
  const made = vocabulary[key]!.read(plain(value));
  if (isLater(made)) throw bad(`${key}, which promises,`);
  return made;
}

// --- domains -------------------------------------------------------------------------------------

const DOMAINS: Readonly<Record<string, Domain>> = {
  tables: "data",
  operations: "data",
  allow: "data",
  columns: "data",
  rows: "data",
  tools: "tool",
};

/** The domain that a caveat speaks of; undefined is all (18.2). */
export function domainOf(key: string, vocabulary: Vocabulary): Domain | undefined {
  if (!isNamespaced(key)) return Object.hasOwn(DOMAINS, key) ? DOMAINS[key] : undefined;
  const own = vocabulary[key]!.domain;
  return own === "all" ? undefined : own;
}

// --- the first pass of step 8: is the token alive, and for this server? --------------------------

type EarlyCheck<K extends Key> = (said: Said[K], situation: Situation) => Reason | undefined;

export const refuse = (code: string, text: string): Reason => ({ code, text });
const time = (seconds: number): string => {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.valueOf())
    ? `second ${seconds}`
    : date.toISOString().replace(".000", "");
};
export { time as spelledTime };

const EARLY: { readonly [K in "aud" | "exp" | "fresh" | "nbf" | "task"]: EarlyCheck<K> } = {
  aud: (aud, { audiences }) =>
    [...aud].some((name) => audiences.has(name))
      ? undefined
      : refuse("wrong_audience", `addressed to ${[...aud].join(", ") || "nobody"}`),
  exp: (exp, { now, leeway }) =>
    now < exp + leeway ? undefined : refuse("expired", `expired at ${time(exp)}`),
  fresh: (fresh, { overlayAge }) =>
    overlayAge !== undefined && overlayAge <= fresh
      ? undefined
      : refuse("stale_overlay", `asks for an overlay of at most ${fresh} s`),
  nbf: (nbf, { now, leeway }) =>
    now >= nbf - leeway ? undefined : refuse("not_yet_valid", `not valid before ${time(nbf)}`),
  task: (task, situation) =>
    atOrBelow(task, situation.task) || atOrBelow(situation.task, task)
      ? undefined
      : refuse("task", `task ${task} is neither above nor below task ${situation.task}`),
};

export type EarlyKey = keyof typeof EARLY;
export const isEarly = (key: string): key is EarlyKey => Object.hasOwn(EARLY, key);

export function earlyProhibits<K extends EarlyKey>(
  key: K,
  said: Said[K],
  situation: Situation,
): Reason | undefined {
  return (EARLY[key] as EarlyCheck<K>)(said, situation);
}

// --- the second pass: what may be done -----------------------------------------------------------

type LateCheck<K extends Key> = (said: Said[K], access: Stated) => Reason | undefined;

export const lists = (permitted: Names, name: string): boolean => permitted === "*" || permitted.has(name);
const onTable = ({ operation, table }: Stated): string =>
  `${operation} on table ${table} is not permitted`;

/** Why a value, or none, is not what a constraint asks for. */
const wrongIn = (value: Json | undefined, constraint: Constraint): string | undefined => {
  if (value === undefined) return "is not stated";
  return satisfies(constraint, value) ? undefined : "is not what it must be";
};

const LATE: {
  readonly [
    K in | "allow"
      | "budget"
      | "columns"
      | "operations"
      | "rows"
      | "tables"
      | "tools"
      | "where"
  ]: LateCheck<K>;
} = {
  allow: (allow, access) => {
    const permitted = decided(allow, access.table!, new Set<string>());
    if (lists(permitted, access.operation!)) return undefined;
    const isNone = permitted !== "*" && permitted.size === 0;
    return refuse(isNone ? "table" : "operation", onTable(access));
  },
  budget: (budget, { cost }) => {
    const missing = [...budget.keys()].find((unit) => !cost.has(unit));
    return missing === undefined
      ? undefined
      : refuse("cost_unstated", `the cost in ${missing} is not stated`);
  },
  columns: (columns, { table, columns: stated }) => {
    const permitted = decided(columns, table!, undefined);
    if (permitted === undefined) return undefined;
    if (stated?.every((column) => lists(permitted, column))) return undefined;
    return refuse("column", `columns of table ${table} are restricted`);
  },
  operations: (permitted, access) =>
    lists(permitted, access.operation!) ? undefined : refuse("operation", onTable(access)),
  rows: (rows, access) => {
    const entry = decided(rows, access.table!, undefined);
    return entry?.rule.size ? rowsProhibit(entry, access) : undefined;
  },
  tables: (tables, access) =>
    matches(tables, access.table!) ? undefined : refuse("table", onTable(access)),
  tools: (tools, access) => {
    const permitted = decided(tools, access.tool!, undefined);
    if (permitted === undefined) return refuse("tool", `tool ${access.tool} is not permitted`);
    return permitted === "free" ? undefined : argumentProhibits(permitted, access);
  },
  where: (where, { attributes }) => {
    for (const [name, constraint] of where) {
      const value = attributes.get(name);
      const what = wrongIn(value, constraint);
      if (what) return refuse("attribute", `attribute ${name} ${what}`);
    }
    return undefined;
  },
};

/** What an operation touches; any other may touch both (15.13). */
const TOUCHED: ReadonlyMap<string, readonly ("row" | "becomes")[]> = new Map([
  ["select", ["row"]],
  ["delete", ["row"]],
  ["insert", ["becomes"]],
]);
const BOTH = ["row", "becomes"] as const;

/** Conditions that were held have the entry among them; rows satisfy it (15.13). */
function rowsProhibit({ json, rule }: RowsEntry, access: Stated): Reason | undefined {
  const rows = `rows of table ${access.table} are restricted`;
  if (access.rows) {
    const entry = canonical(json);
    return access.rows.some((condition) => canonical(condition) === entry)
      ? undefined
      : refuse("row", `${rows}, and the server did not apply this condition`);
  }
  const touched = TOUCHED.get(access.operation!) ?? BOTH;
  if (touched.some((fact) => access[fact] === undefined) || !touched.some((fact) => access[fact])) {
    return refuse("row", `${rows}: ${access.operation} must state ${touched.join(" and ")}`);
  }
  for (const row of [access.row, access.becomes]) {
    for (const [column, constraint] of row ? rule : []) {
      const value = row!.get(column);
      const what = wrongIn(value, constraint);
      if (what) return refuse("row", `column ${column} of table ${access.table} ${what}`);
    }
  }
  return undefined;
}

/** A closed world (15.5): each argument stated is named, each named is stated or optional. */
function argumentProhibits(
  permitted: ReadonlyMap<string, Argument>,
  access: Stated,
): Reason | undefined {
  const failed = (name: string, what: string): Reason =>
    refuse("argument", `argument ${name} of tool ${access.tool} ${what}`);
  for (const name of access.arguments.keys()) {
    if (!permitted.has(name)) return failed(name, "is not permitted");
  }
  for (const [name, { constraint, optional }] of permitted) {
    const value = access.arguments.get(name);
    if (value === undefined) {
      if (!optional) return failed(name, "is missing");
    } else if (!satisfies(constraint, value)) {
      return failed(name, isNothing(constraint) ? "is not permitted" : "is not what it must be");
    }
  }
  return undefined;
}

export type LateKey = keyof typeof LATE;
export const isLate = (key: string): key is LateKey => Object.hasOwn(LATE, key);

export function lateProhibits<K extends LateKey>(
  key: K,
  said: Said[K],
  access: Stated,
): Reason | undefined {
  return (LATE[key] as LateCheck<K>)(said, access);
}

export const sortedNames = (given: Names): string[] =>
  given === "*" ? ["*"] : [...given].sort(byCodePoint);
