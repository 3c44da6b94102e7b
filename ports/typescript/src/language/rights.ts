/** What the data caveats of links permit together: pattern to rights, in normal form (19.2). */

import { canonical, type Json, type JsonObject } from "../format/json.js";
import { sortedNames, type Names, type RowRule, type Said } from "./caveats.js";
import {
  ANYTHING,
  NOTHING,
  constraintJson,
  isNothing,
  meetConstraints,
  normalConstraint,
  sameConstraint,
} from "./constraints.js";
import { above, decided, meetMaps, normal, widest } from "./patterns.js";

export interface Rights {
  readonly operations: Names;
  /** Undefined is no rule about columns. */
  readonly columns: Names | undefined;
  /** What rows satisfy; empty is every row. */
  readonly rows: RowRule;
}

const EVERY_ROW: RowRule = new Map();
/** Nothing satisfies the column `_`: there is no such row (19.7). */
const NO_ROW: RowRule = new Map([["_", NOTHING]]);
function normalRule(rule: RowRule): RowRule {
  const made = new Map([...rule].map(([column, each]) => [column, normalConstraint(each)]));
  return [...made.values()].some(isNothing) ? NO_ROW : made;
}

export type RightsMap = ReadonlyMap<string, Rights>;

/** These operations, with no rule about columns or rows. */
export const rightsTo = (operations: Names): Rights => ({
  operations,
  columns: undefined,
  rows: EVERY_ROW,
});
export const NO_RIGHTS: Rights = rightsTo(new Set());
const ALL_RIGHTS: Rights = rightsTo("*");
export const OPEN_RIGHTS: RightsMap = new Map([["*", ALL_RIGHTS]]);

export const isEmpty = (names: Names): boolean => names !== "*" && names.size === 0;

export function bothNames(one: Names, two: Names): Names {
  if (one === "*") return two;
  return two === "*" ? one : new Set([...one].filter((name) => two.has(name)));
}

export function bothColumns(one: Names | undefined, two: Names | undefined): Names | undefined {
  return one === undefined || two === undefined ? (one ?? two) : bothNames(one, two);
}

/** Without operations no access passes: all such rights are one value. */
function bothRights(one: Rights, two: Rights): Rights {
  const operations = bothNames(one.operations, two.operations);
  return isEmpty(operations)
    ? NO_RIGHTS
    : {
        operations,
        columns: bothColumns(one.columns, two.columns),
        rows: bothRules(one.rows, two.rows),
      };
}

/** Column by column; one that only one side names is kept (19.4). */
function bothRules(one: RowRule, two: RowRule): RowRule {
  const made = new Map(one);
  for (const [column, constraint] of two) {
    made.set(column, meetConstraints(made.get(column) ?? ANYTHING, constraint));
  }
  return normalRule(made);
}

const sameRule = (one: RowRule, two: RowRule): boolean =>
  one.size === two.size &&
  [...one].every(([column, rule]) => two.has(column) && sameConstraint(rule, two.get(column)!));

export const sameNames = (one: Names | undefined, two: Names | undefined): boolean =>
  one === two ||
  (one !== undefined &&
    two !== undefined &&
    canonical(sortedNames(one)) === canonical(sortedNames(two)));

const sameRights = (one: Rights, two: Rights): boolean =>
  sameNames(one.operations, two.operations) &&
  sameNames(one.columns, two.columns) &&
  sameRule(one.rows, two.rows);

export const normalRights = (map: RightsMap): RightsMap => normal(map, NO_RIGHTS, sameRights);
export const meetRights = (one: RightsMap, two: RightsMap): RightsMap =>
  normalRights(meetMaps(one, two, NO_RIGHTS, bothRights));
export const rightsAt = (map: RightsMap, key: string): Rights => decided(map, key, NO_RIGHTS);

export function sameMap(one: RightsMap, two: RightsMap): boolean {
  return (
    one.size === two.size &&
    [...one].every(([key, rights]) => two.has(key) && sameRights(rights, two.get(key)!))
  );
}

/** The map that the data caveats of one link state. Without any it has all rights. */
export function rightsOf({ tables, operations, allow, columns, rows }: Partial<Said>): RightsMap {
  const maps: RightsMap[] = [];
  if (tables) maps.push(new Map([...tables].map((pattern) => [pattern, ALL_RIGHTS])));
  if (operations) maps.push(new Map([["*", rightsTo(operations)]]));
  if (allow) maps.push(mapped(allow, rightsTo));
  if (columns) {
    // What it does not name it leaves open.
    maps.push(
      new Map([
        ...OPEN_RIGHTS,
        ...mapped(columns, (given) => ({ ...ALL_RIGHTS, columns: given })),
      ]),
    );
  }
  if (rows) {
    maps.push(
      new Map([
        ...OPEN_RIGHTS,
        ...mapped(rows, ({ rule }) => ({ ...ALL_RIGHTS, rows: normalRule(rule) })),
      ]),
    );
  }
  return maps.map(normalRights).reduce(meetRights, OPEN_RIGHTS);
}

function mapped<V>(map: ReadonlyMap<string, V>, rights: (said: V) => Rights): RightsMap {
  return new Map([...map].map(([key, said]) => [key, rights(said)]));
}

/** As the caveats of one link (19.8). */
export function rightsJson(map: RightsMap): JsonObject {
  const made: JsonObject = new Map();
  if (map.size === 0) return made.set("tables", []);
  const entries = [...map];
  const [first] = entries.map(([, { operations }]) => operations);
  const isOne =
    entries.every(([, { operations }]) => sameNames(operations, first)) && !isEmpty(first!);
  if (isOne) {
    made.set("operations", sortedNames(first!)).set("tables", widest(map));
  } else {
    made.set(
      "allow",
      new Map(entries.map(([key, { operations }]) => [key, sortedNames(operations)])),
    );
  }
  const columns = entries.filter(([, rights]) => rights.columns !== undefined);
  if (columns.length) {
    made.set(
      "columns",
      new Map(columns.map(([key, rights]): [string, Json] => [key, sortedNames(rights.columns!)])),
    );
  }
  const rows = rowsJson(map);
  if (rows.size) made.set("rows", rows);
  return made;
}

/** Of each entry its constraints, and that the other columns that entries over it name are free. */
function rowsJson(map: RightsMap): JsonObject {
  const made: JsonObject = new Map();
  for (const [key, { operations, rows }] of map) {
    const entry: JsonObject = new Map();
    for (const wider of above(key)) {
      const over = wider === key ? EVERY_ROW : (map.get(wider)?.rows ?? EVERY_ROW);
      over.forEach((_, column) => entry.set(column, constraintJson(ANYTHING)));
    }
    const isFreed = rows.size === 0 && entry.size > 0 && !isEmpty(operations);
    if (isFreed) entry.clear();
    rows.forEach((constraint, column) => entry.set(column, constraintJson(constraint)));
    if (isFreed || rows.size) made.set(key, entry);
  }
  return made;
}
