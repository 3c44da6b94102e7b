/** What the data caveats of links permit together: pattern to rights, in normal form (19.2). */

import { canonical, type Json, type JsonObject } from "../format/json.js";
import { sortedNames, type Names, type Said } from "./caveats.js";
import { decided, meetMaps, normal, widest } from "./patterns.js";

export interface Rights {
  readonly operations: Names;
  /** Undefined is no rule about columns. */
  readonly columns: Names | undefined;
}

export type RightsMap = ReadonlyMap<string, Rights>;

export const NO_RIGHTS: Rights = { operations: new Set(), columns: undefined };
const ALL_RIGHTS: Rights = { operations: "*", columns: undefined };
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
    : { operations, columns: bothColumns(one.columns, two.columns) };
}

export const sameNames = (one: Names | undefined, two: Names | undefined): boolean =>
  one === two ||
  (one !== undefined &&
    two !== undefined &&
    canonical(sortedNames(one)) === canonical(sortedNames(two)));

const sameRights = (one: Rights, two: Rights): boolean =>
  sameNames(one.operations, two.operations) && sameNames(one.columns, two.columns);

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
export function rightsOf({ tables, operations, allow, columns }: Partial<Said>): RightsMap {
  const maps: RightsMap[] = [];
  if (tables) maps.push(new Map([...tables].map((pattern) => [pattern, ALL_RIGHTS])));
  if (operations) maps.push(new Map([["*", { operations, columns: undefined }]]));
  if (allow) maps.push(mapped(allow, (given) => ({ operations: given, columns: undefined })));
  if (columns) {
    // What it does not name it leaves open.
    maps.push(
      new Map([
        ...OPEN_RIGHTS,
        ...mapped(columns, (given) => ({ operations: "*", columns: given })),
      ]),
    );
  }
  return maps.map(normalRights).reduce(meetRights, OPEN_RIGHTS);
}

function mapped(map: ReadonlyMap<string, Names>, rights: (names: Names) => Rights): RightsMap {
  return new Map([...map].map(([key, names]) => [key, rights(names)]));
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
  return made;
}
