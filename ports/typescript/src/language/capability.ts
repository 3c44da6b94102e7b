/** The meet of all caveats about accesses: the most that a token can do (spec, "Capability"). */

import { byCodePoint } from "../format/bytes.js";
import { canonical, isObject, parseJson, type Json, type JsonObject } from "../format/json.js";
import { atOrBelow } from "../format/names.js";
import { OPEN_CALLS, callsJson, callsOf, meetCalls, type CallMap } from "./calls.js";
import { sortedNames, type Vocabulary } from "./caveats.js";
import {
  constraintJson,
  greatest,
  isNothing,
  least,
  meetConstraints,
  normalConstraint,
  type Constraint,
} from "./constraints.js";
import type { AnyLink, Link } from "./links.js";
import { bothNames, meetRights, rightsJson, rightsOf, type RightsMap } from "./rights.js";

/** A set of permitted accesses, as a value: what is undefined no link has named. */
export interface Capability {
  readonly data: RightsMap | undefined;
  readonly tool: CallMap | undefined;
  readonly where: ReadonlyMap<string, Constraint>;
  readonly exp: number | undefined;
  readonly nbf: number | undefined;
  readonly aud: ReadonlySet<string> | undefined;
  readonly task: string | undefined;
  /** Do the tasks lie on no one path? */
  readonly torn: boolean;
  readonly uses: number | undefined;
  readonly budget: ReadonlyMap<string, number>;
  /** Of all links, each mark as canonical JSON with its one name, each rule, and each consent. */
  readonly marks: ReadonlySet<string>;
  readonly fresh: number | undefined;
  readonly own: readonly { readonly key: string; readonly json: Json; readonly value: unknown }[];
}

export const EVERYTHING: Capability = {
  data: undefined,
  tool: undefined,
  where: new Map(),
  exp: undefined,
  nbf: undefined,
  aud: undefined,
  task: undefined,
  torn: false,
  uses: undefined,
  budget: new Map(),
  marks: new Set(),
  fresh: undefined,
  own: [],
};

/** What a link permits that cannot be read. */
export const NOWHERE: Capability = { ...EVERYTHING, data: new Map(), tool: new Map() };

function ofLink({ says, domains, own }: Link): Capability {
  const named = domains.size > 0;
  const data = domains.has("data") ? rightsOf(says) : new Map();
  // A domain that an own caveat alone has named stays open.
  const tool = domains.has("tool") ? (says.tools ? callsOf(says.tools) : OPEN_CALLS) : new Map();
  return {
    data: named ? data : undefined,
    tool: named ? tool : undefined,
    where: mapValues(says.where ?? new Map<string, Constraint>(), normalConstraint),
    exp: says.exp,
    nbf: says.nbf,
    aud: says.aud,
    task: says.task,
    torn: false,
    uses: says.uses,
    budget: says.budget ?? new Map<string, number>(),
    marks: new Set([
      ...[...(says.marks ?? [])].map(([name, { json }]) => canonical(new Map([[name, json]]))),
      ...[...(says.forbid ?? []), ...(says.consent ?? [])].map(({ json }) => canonical(json)),
    ]),
    fresh: says.fresh,
    own,
  };
}

function mapValues<V, W>(map: ReadonlyMap<string, V>, made: (value: V) => W): Map<string, W> {
  return new Map([...map].map(([key, value]) => [key, made(value)]));
}

/** The entries of both, and where both have one, what `both` makes of them. */
function merged<V>(
  one: ReadonlyMap<string, V>,
  two: ReadonlyMap<string, V>,
  both: (one: V, two: V) => V,
): Map<string, V> {
  const made = new Map(one);
  for (const [key, value] of two) made.set(key, one.has(key) ? both(one.get(key)!, value) : value);
  return made;
}

const either = <T>(
  one: T | undefined,
  two: T | undefined,
  both: (one: T, two: T) => T,
): T | undefined => (one === undefined || two === undefined ? (one ?? two) : both(one, two));

/** The longer path; of two that lie apart, the first. */
const longest = (one: string, two: string): string => (atOrBelow(two, one) ? two : one);

/**
 * In pairs, and the results in pairs again: a long first one is not gone through for each other.
 */
function inPairs<T>(all: readonly T[], both: (one: T, two: T) => T): T | undefined {
  let said = all;
  while (said.length > 1) {
    const pairs: T[] = [];
    for (let at = 0; at < said.length; at += 2) {
      pairs.push(at + 1 < said.length ? both(said[at]!, said[at + 1]!) : said[at]!);
    }
    said = pairs;
  }
  return said[0];
}

/** What both permit (19.5). Neither is changed. */
export function meet(one: Capability, two: Capability, vocabulary: Vocabulary = {}): Capability {
  const isOnOnePath =
    one.task === undefined ||
    two.task === undefined ||
    atOrBelow(one.task, two.task) ||
    atOrBelow(two.task, one.task);
  return {
    data: either(one.data, two.data, meetRights),
    tool: either(one.tool, two.tool, meetCalls),
    where: merged(one.where, two.where, meetConstraints),
    exp: least(one.exp, two.exp),
    nbf: greatest(one.nbf, two.nbf),
    aud: either(one.aud, two.aud, (mine, its) => bothNames(mine, its) as ReadonlySet<string>),
    task: either(one.task, two.task, longest),
    torn: one.torn || two.torn || !isOnOnePath,
    uses: least(one.uses, two.uses),
    budget: merged(one.budget, two.budget, Math.min),
    marks: new Set([...one.marks, ...two.marks]),
    fresh: least(one.fresh, two.fresh),
    own: bothOwn(one.own, two.own, vocabulary),
  };
}

type Own = Capability["own"][number];

/** Own caveats of both: a second of a key replaces the first only if it is covered by it (19.1). */
function bothOwn(one: readonly Own[], two: readonly Own[], vocabulary: Vocabulary): readonly Own[] {
  let kept = [...one];
  for (const caveat of two) {
    if (kept.some((other) => ownCovers(caveat, other, vocabulary))) continue;
    kept = kept.filter((other) => !ownCovers(other, caveat, vocabulary));
    kept.push(caveat);
  }
  return kept;
}

/** Does one own caveat say that it permits all that another does? What it raises is no. */
export function ownCovers(held: Own, asked: Own, vocabulary: Vocabulary): boolean {
  if (held.key !== asked.key) return false;
  try {
    const covers = vocabulary[held.key]?.covers;
    return covers
      ? covers(held.value, asked.value) === true
      : canonical([held.json]) === canonical([asked.json]);
  } catch {
    return false;
  }
}

/** What all links permit together, with the task and the audience of the root record. */
export function capabilityOf(
  links: readonly AnyLink[],
  root: { task?: string | undefined; audience?: string | undefined } = {},
  vocabulary: Vocabulary = {},
): Capability {
  const start: Capability = {
    ...EVERYTHING,
    task: root.task,
    aud: root.audience === undefined ? undefined : new Set([root.audience]),
  };
  const readable = links.filter((link) => link.kind === "link");
  const all = [start, ...readable.map(ofLink)];
  // Tasks one after the other: where they lie apart, the order is said (19.1).
  const task = all.map((each) => each.task).reduce((one, two) => either(one, two, longest));
  return { ...inPairs(all, (one, two) => meet(one, two, vocabulary))!, task };
}

/** Does it permit no access at all, whatever the time? */
export function permitsNothing({ data, tool, where, aud, torn }: Capability): boolean {
  if (torn || aud?.size === 0 || (data?.size === 0 && tool?.size === 0)) return true;
  return [...where.values()].some(isNothing);
}

/** The caveats of one link that would permit the same (19.8). For showing, never for handing on. */
export function capabilityJson(capability: Capability): JsonObject {
  const { data, tool, where, exp, nbf, task, aud, uses, budget, fresh, own, torn } = capability;
  const made: JsonObject = new Map();
  const add = (more: JsonObject): void => more.forEach((value, key) => made.set(key, value));
  if (torn || (data?.size === 0 && tool?.size === 0)) made.set("tables", []);
  else {
    if (data?.size) add(rightsJson(data));
    if (tool?.size) add(callsJson(tool));
  }
  if (where.size) made.set("where", mapValues(where, constraintJson));
  const scalars: readonly (readonly [string, Json | undefined])[] = [
    ["exp", exp],
    ["nbf", nbf],
    ["task", torn ? undefined : task],
    ["aud", aud && sortedNames(aud)],
    ["uses", uses],
    ["budget", budget.size ? new Map(budget) : undefined],
    ["fresh", fresh],
  ];
  addMarks(made, capability.marks);
  for (const [key, value] of scalars) if (value !== undefined) made.set(key, value);
  for (const { key, json } of own) if (!made.has(key)) made.set(key, json);
  return made;
}

/**
 * Marks by name: of several with one, each behind the first has a number (46.10). And rules and
 * consents, which have two keys.
 */
function addMarks(made: JsonObject, stated: ReadonlySet<string>): void {
  const marks: JsonObject = new Map();
  const rules: Json[] = [];
  const consents: Json[] = [];
  for (const text of [...stated].sort(byCodePoint)) {
    const each = parseJson(text) as JsonObject;
    const [[first, definition]] = [...each] as [[string, Json]];
    if (!isObject(definition)) {
      (each.has("by") ? consents : rules).push(each);
      continue;
    }
    let name = first;
    for (let also = 2; marks.has(name); also++) name = `${name.split("/")[0]}/${also}`;
    marks.set(name, definition);
  }
  if (marks.size) made.set("marks", marks);
  if (rules.length) made.set("forbid", rules);
  if (consents.length) made.set("consent", consents);
}

/** Do they permit the same, as far as normal forms tell (19.6)? */
export function sameCapability(one: Capability, two: Capability): boolean {
  if (permitsNothing(one) || permitsNothing(two)) return permitsNothing(one) && permitsNothing(two);
  const ofOwn = ({ own }: Capability): string =>
    own
      .map(({ key, json }) => canonical([key, json]))
      .sort(byCodePoint)
      .join();
  const domains = ({ data, tool }: Capability): string =>
    `${data === undefined} ${tool === undefined}`;
  return (
    canonical(capabilityJson(one)) === canonical(capabilityJson(two)) &&
    domains(one) === domains(two) &&
    ofOwn(one) === ofOwn(two)
  );
}

/** Does the one permit all that the other does? */
export function covers(one: Capability, two: Capability, vocabulary: Vocabulary = {}): boolean {
  return sameCapability(meet(one, two, vocabulary), two);
}
