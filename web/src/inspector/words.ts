// Caveats in words, as `captoken inspect` has them. Names in them are escaped by `plain`.
import { b64encode, byCodePoint } from "../../../ports/typescript/src/format/bytes.js";
import type { Json, JsonObject } from "../../../ports/typescript/src/format/json.js";
import { capabilityJson } from "../../../ports/typescript/src/language/capability.js";
import type { Capability } from "../../../ports/typescript/src/language/capability.js";
import { readCaveat } from "../../../ports/typescript/src/language/caveats.js";
import type { Arguments, Mark, Names, RowsEntry, Said } from "../../../ports/typescript/src/language/caveats.js";
import {
  constraintJson,
  isNothing,
  normalConstraint,
} from "../../../ports/typescript/src/language/constraints.js";
import type { Constraint } from "../../../ports/typescript/src/language/constraints.js";
import { named, plain, readableTime, span, until } from "../plain";

type Stated = Partial<Said>;

const sorted = (names: Iterable<string>): string[] => [...names].sort(byCodePoint);
const all = (names: Iterable<string>): string => sorted(names).map(named).join(", ");
const entries = <V>(map: ReadonlyMap<string, V>): [string, V][] =>
  [...map].sort(([one], [two]) => byCodePoint(one, two));

export const counted = (count: number, one: string, many = `${one}s`): string =>
  `${count} ${count === 1 ? one : many}`;

// --- each caveat ---------------------------------------------------------------------------------

const operationsIn = (given: Names): string =>
  given === "*" ? "anything" : all(given) || "nothing";

function columnsIn(given: Names): string {
  if (given === "*") return "any stated column";
  return given.size ? `columns ${all(given)}` : "no column";
}

function tablesIn(tables: ReadonlySet<string>, operations: Names | undefined): string {
  const none = operations !== undefined && operations !== "*" && operations.size === 0;
  if (tables.size === 0 || none) return "nothing on any table";
  return operations === undefined
    ? `only on ${all(tables)}`
    : `${operationsIn(operations)} on ${all(tables)}`;
}

function operationsAlone(operations: Names): string {
  if (operations === "*") return "any operation";
  return operations.size ? `only ${all(operations)}` : "nothing on any table";
}

// One line for all tables that have the same operations.
function allowIn(allow: ReadonlyMap<string, Names>): string[] {
  const alike = new Map<string, string[]>();
  for (const [pattern, operations] of entries(allow)) {
    const said = operationsIn(operations);
    alike.set(said, [...(alike.get(said) ?? []), pattern]);
  }
  if (alike.size === 0) return ["nothing on any table"];
  return [...alike].map(([operations, tables]) => `${operations} on ${all(tables)}`);
}

function constraintIn(given: Constraint): string {
  const made = normalConstraint(given);
  // Lists are read in the order and the spelling in which they are written.
  const stated = constraintJson(made);
  const list = (key: string): string[] => stated.get(key) as string[];
  switch (made.kind) {
    case "any":
      return "anything";
    case "in": {
      const values = (stated.get("in") as Json[]).map((value) => plain(JSON.stringify(value)));
      return values.length > 1 ? `one of ${values.join(", ")}` : (values[0] ?? "nothing there is");
    }
    case "range":
      if (made.min === undefined) return `at most ${made.max}`;
      return made.max === undefined ? `at least ${made.min}` : `${made.min} to ${made.max}`;
    case "path":
      return `at or below ${all(list("path"))}`;
    case "prefix":
      return `text that begins with ${all(list("prefix"))}`;
    case "url":
      return `a url at or below ${all(list("url"))}`;
    case "cidr":
      return `an address in ${all(list("cidr"))}`;
    case "each": {
      if (made.most === 0) return "the empty list";
      const items = made.most === undefined ? "" : ` of at most ${made.most}`;
      return `a list${items}, each item ${constraintIn(made.of)}`;
    }
  }
}

function argumentsIn(given: Arguments): string {
  if (given === "free") return "any arguments";
  const parts: string[] = [];
  for (const [name, { constraint, optional }] of entries(given)) {
    // It must be absent, as all that are not named.
    if (optional && isNothing(normalConstraint(constraint))) continue;
    parts.push(`${named(name)} ${constraintIn(constraint)}${optional ? " (optional)" : ""}`);
  }
  return parts.join("; ") || "no arguments";
}

function toolsIn(tools: ReadonlyMap<string, Arguments>): string[] {
  if (tools.size === 0) return ["no tool"];
  return entries(tools).map(([name, given]) => `tool ${named(name)}, with ${argumentsIn(given)}`);
}

// --- a link --------------------------------------------------------------------------------------

// Which accesses, in the order of the specification.
function rightsIn({ tables, operations, allow, columns, rows, tools, where }: Stated): string[] {
  const lines: string[] = [];
  if (tables) lines.push(tablesIn(tables, operations));
  // The line of the tables has said both.
  if (operations && !tables) lines.push(operationsAlone(operations));
  if (allow) lines.push(...allowIn(allow));
  for (const [pattern, given] of entries(columns ?? new Map<string, Names>())) {
    lines.push(`${columnsIn(given)} of ${named(pattern)}`);
  }
  for (const [pattern, { rule }] of entries(rows ?? new Map<string, RowsEntry>())) {
    const asked = entries(rule).map(([name, each]) => `${named(name)} is ${constraintIn(each)}`);
    const table = named(pattern);
    const some = `rows of ${table} where ${asked.join(" and ")}`;
    lines.push(asked.length ? some : `any row of ${table}`);
  }
  if (tools) lines.push(...toolsIn(tools));
  for (const [attribute, constraint] of entries(where ?? new Map<string, Constraint>())) {
    lines.push(`where ${named(attribute)} is ${constraintIn(constraint)}`);
  }
  return lines;
}

function markIn({ tables, operations = "*", tools, but }: Mark): string {
  const parts: string[] = [];
  const what = operations === "*" ? "any operation" : all(operations);
  if (tables) parts.push(`${what} on ${all(tables)}`);
  if (tools) parts.push(`tool ${all(tools)}`);
  const spared = but ? `, except ${rightsIn(but.says).join("; ")}` : "";
  return parts.join("; ") + spared;
}

const RULES = ["marks", "forbid", "consent"] as const;

function rulesIn({ marks, forbid, consent }: Stated): string[] {
  const lines = entries(marks ?? new Map<string, Mark>()).map(
    ([name, mark]) => `mark ${named(name)}: ${markIn(mark)}`,
  );
  for (const { closed, after, unless } of forbid ?? []) {
    const but = unless ? `, unless ${b64encode(unless)} consents to the call` : "";
    lines.push(`nothing in ${all(closed)} after ${[...after].map(named).join(" and ")}${but}`);
  }
  for (const { by, needs } of consent ?? []) {
    lines.push(`consent of ${b64encode(by)} to each: ${markIn(needs)}`);
  }
  return lines;
}

// When, in which task, where, how often.
function boundsIn(says: Stated, now: number): string[] {
  const { exp, nbf, task, aud, uses, budget, fresh } = says;
  const lines: string[] = [];
  if (exp !== undefined) lines.push(`until ${until(exp, now)}`);
  if (nbf !== undefined) lines.push(`not before ${readableTime(nbf)}`);
  if (task !== undefined) lines.push(`in task ${named(task)}`);
  if (aud) lines.push(aud.size ? `only at ${all(aud)}` : "at no server");
  const shared = "with all that is handed on";
  if (uses !== undefined) lines.push(`at most ${counted(uses, "use")}, ${shared}`);
  if (budget) {
    const units = entries(budget).map(([unit, amount]) => `${amount} ${named(unit)}`);
    lines.push(`at most ${units.join(", ")}, ${shared}`);
  }
  lines.push(...rulesIn(says));
  if (fresh !== undefined) lines.push(`only under an overlay of the last ${span(fresh)}`);
  return lines;
}

// What it says about those that come after it.
function positionIn({ depth, delegate_only, key }: Stated, isSigned: boolean): string[] {
  const lines: string[] = [];
  if (depth === 0) lines.push("not to be delegated further");
  else if (depth !== undefined) lines.push(`at most ${counted(depth, "more delegation")}`);
  if (delegate_only) lines.push("for handing on, not for use");
  if (key) lines.push(`bound to ${b64encode(key)}${isSigned ? ", signed by the key before" : ""}`);
  return lines;
}

export const linkIn = (says: Stated, isSigned: boolean, now: number): string[] => [
  ...rightsIn(says),
  ...boundsIn(says, now),
  ...positionIn(says, isSigned),
];

// --- a capability --------------------------------------------------------------------------------

const RIGHTS = ["tables", "operations", "allow", "columns", "rows", "tools", "where"] as const;
const LONGEST = 120;

// Which accesses it permits. What several links leave together may be more than one link can say, a
// long list of urls: that is shown as it is spelled.
export function capabilityIn(capability: Capability): string[] {
  const stated = capabilityJson(capability);
  const rights = several(stated, RIGHTS, rightsIn);
  const rules = several(stated, RULES, rulesIn);
  return [...(rights.length ? rights : ["anything"]), ...rules];
}

function several(
  stated: JsonObject,
  keys: readonly (keyof Stated)[],
  inWords: (says: Stated) => string[],
): string[] {
  const has = keys.filter((key) => stated.has(key)).map((key) => [key, stated.get(key)!] as const);
  try {
    return inWords(Object.fromEntries(has.map(([key, value]) => [key, readCaveat(key, value)])));
  } catch {
    return has.map(([key, value]) => `${key} ${spelled(value)}`);
  }
}

// JSON on one line, and short.
function spelled(value: Json): string {
  const text = json(value);
  return text.length <= LONGEST ? text : `${text.slice(0, LONGEST - 3)}...`;
}

function json(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(json).join(", ")}]`;
  if (value instanceof Map) {
    return `{${[...value].map(([key, item]) => `${json(key)}: ${json(item)}`).join(", ")}}`;
  }
  if (typeof value !== "string") return String(value);
  const escaped = (unit: string): string =>
    `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value).replace(/[^\x20-\x7e]/g, escaped);
}
