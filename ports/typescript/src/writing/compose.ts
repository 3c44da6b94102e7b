/**
 * Composing a link, once: from what is asked for to the JSON that is written (spec, "Widening").
 */

import { b64encode, byCodePoint, equal, type Bytes } from "../format/bytes.js";
import { isPrimePoint, publicKey } from "../format/crypto.js";
import { settings, stands } from "../format/given.js";
import { DelegationError, LimitError, UsageError } from "../format/errors.js";
import {
  canonical,
  entriesOf,
  isInteger,
  isObject,
  jsonOf,
  type Json,
  type JsonObject,
} from "../format/json.js";
import { isName } from "../format/names.js";
import { EVERYTHING, type Capability } from "../language/capability.js";
import { callAt, type Call } from "../language/calls.js";
import {
  isKnown,
  isOwn,
  ownValue,
  readCaveat,
  type RowRule,
  type Said,
  type Vocabulary,
} from "../language/caveats.js";
import type { ConstraintJson, Rule } from "./rules.js";
import {
  ANYTHING,
  byScalar,
  completed,
  type Constraint,
  type Scalar,
} from "../language/constraints.js";
import { rightsAt } from "../language/rights.js";
import { startOf, type Lineage } from "../language/lineage.js";
import { COUNTED, checkMarked, isTooMuchCounted, type AnyLink, type Link } from "../language/links.js";
import { signerKey, type Signer } from "../proof.js";
import { meansOf, readClock, type Means } from "./means.js";
import { narrowed, positioned, type Asked } from "./widening.js";

/** A list of names: an array or a Set. */
export type Names = readonly string[] | ReadonlySet<string>;
/** From patterns, arguments or attributes to what is said of them. */
export type By<T> = Readonly<Record<string, T>> | ReadonlyMap<string, T>;
/** Seconds since the epoch, or a Date. */
export type Moment = number | Date;
/** Seconds, or text with units: `90`, `"5m"`, `"1h30m"`. */
export type Seconds = number | string;

/** What a new link restricts. What is left out stays as it is held. */
export interface Caveats {
  readonly tables?: Names;
  readonly operations?: Names;
  readonly allow?: By<Names>;
  readonly columns?: By<Names>;
  /** By pattern of a table, a constraint for each column: only such rows exist. */
  readonly rows?: By<By<ConstraintJson>>;
  readonly tools?: By<By<Rule>>;
  readonly where?: By<ConstraintJson>;
  readonly uses?: number;
  readonly budget?: By<number>;
  /** By name, which accesses are in the mark: `{ private: { tables: ["crm.*"] } }`. */
  readonly marks?: By<Readonly<Record<string, unknown>>>;
  /** Once all of `after` are set, nothing in a mark of `in` is permitted. A ledger knows. */
  readonly forbid?: readonly {
    readonly in: Names;
    readonly after: Names;
    readonly unless?: string;
  }[];
  /** Each access in `for` needs a consent of the key `by`, each time. */
  readonly consent?: readonly {
    readonly by: string;
    readonly for: Readonly<Record<string, unknown>>;
  }[];
  readonly fresh?: number;
  /** At most: cut to what is held. */
  readonly expiresIn?: Seconds;
  /** A statement: more than is held is an error. */
  readonly expiresAt?: Moment;
  readonly notBefore?: Moment;
  readonly audience?: string | Names;
  readonly task?: string;
  readonly depth?: number;
  readonly delegateOnly?: boolean;
  /** Caveats of an embedding project, by their namespaced key. */
  readonly [own: `${string}:${string}`]: unknown;
}

/** How a link is written. */
export interface Writing {
  /** The domain that stays open though the other is named: `tables`, `tools`. */
  readonly keep?: string | Names;
  /** Cut what is asked for too much to what is held, instead of an error. */
  readonly clamp?: boolean;
}

/** What a new link is checked against. */
export interface Holding {
  readonly links: readonly AnyLink[];
  readonly capability: Capability;
  readonly lineage: Lineage;
}

export interface Terms {
  readonly caveats: Caveats;
  readonly writing: { readonly [K in keyof Writing]: Writing[K] | undefined };
  readonly to?: string | undefined;
  readonly key?: string | Bytes | undefined;
}

// --- keywords ------------------------------------------------------------------------------------

type Read = (given: unknown, means: Means, held: Capability) => Json;

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86400 };

function secondsOf(given: unknown): number {
  if (typeof given === "number" && isInteger(given)) return given;
  if (typeof given === "string" && /^([0-9]+[smhd])+$/.test(given)) {
    const parts = given.match(/[0-9]+[smhd]/g)!;
    return parts.reduce((sum, part) => sum + Number(part.slice(0, -1)) * UNITS[part.at(-1)!]!, 0);
  }
  throw new UsageError("expiresIn is whole seconds, or text as 90s, 10m or 1h30m");
}

function momentOf(given: unknown): number {
  const seconds = given instanceof Date ? Math.floor(given.valueOf() / 1000) : given;
  if (!isInteger(seconds)) {
    throw new UsageError("a moment is whole seconds since the epoch, or a Date");
  }
  return seconds;
}

function expiresIn(given: unknown, means: Means, held: Capability): Json {
  const seconds = secondsOf(given);
  if (seconds < 1) throw new UsageError("expiresIn is at least one second");
  const end = readClock(means.clock) + seconds;
  return held.exp === undefined ? end : Math.min(end, held.exp);
}

const asGiven: Read = (given) => tidy(given);

const audience: Read = (given) => (typeof given === "string" ? [given] : tidy(given));

/** Each rule tidied, none repeating, in the order of their spelling. */
const rules: Read = (given) => {
  if (!Array.isArray(given)) return tidy(given);
  const made = new Map(given.map(tidy).map((rule) => [canonical(rule), rule]));
  return [...made].sort(([one], [two]) => byCodePoint(one, two)).map(([, rule]) => rule);
};

const where: Read = (given, _means, held) => {
  const stated = tidy(given);
  if (!isObject(stated)) return stated;
  return new Map(
    [...stated].map(([name, json]) => [name, completed(json, held.where.get(name) ?? ANYTHING)]),
  );
};

const rows: Read = (given, _means, held) => {
  const stated = tidy(given);
  if (!isObject(stated)) return stated;
  return new Map(
    [...stated].map(([pattern, entry]): [string, Json] => {
      if (!isObject(entry)) return [pattern, entry];
      const rule: RowRule = held.data ? rightsAt(held.data, pattern).rows : new Map();
      const made = [...entry].map(([column, json]): [string, Json] => [
        column,
        completed(json, rule.get(column) ?? ANYTHING),
      ]);
      return [pattern, new Map(made)];
    }),
  );
};

const tools: Read = (given, _means, held) => {
  const stated = tidy(given);
  if (!isObject(stated)) return stated;
  return new Map(
    [...stated].map(([pattern, world]) => [pattern, completedWorld(pattern, world, held)]),
  );
};

function completedWorld(pattern: string, world: Json, held: Capability): Json {
  if (!isObject(world)) return world;
  const call: Call = held.tool ? callAt(held.tool, pattern) : "free";
  const constraintOf = (name: string): Constraint =>
    (typeof call === "string" ? undefined : call.get(name)?.constraint) ?? ANYTHING;
  return new Map([...world].map(([name, json]) => [name, completed(json, constraintOf(name))]));
}

/** For each keyword the key of its caveat, and how its value is read. */
const KEYWORDS: Readonly<Record<string, readonly [key: string, read: Read]>> = {
  tables: ["tables", asGiven],
  operations: ["operations", asGiven],
  allow: ["allow", asGiven],
  columns: ["columns", asGiven],
  rows: ["rows", rows],
  tools: ["tools", tools],
  where: ["where", where],
  uses: ["uses", asGiven],
  budget: ["budget", asGiven],
  marks: ["marks", asGiven],
  forbid: ["forbid", rules],
  consent: ["consent", rules],
  fresh: ["fresh", asGiven],
  expiresIn: ["exp", expiresIn],
  expiresAt: ["exp", momentOf],
  notBefore: ["nbf", momentOf],
  audience: ["aud", audience],
  task: ["task", asGiven],
};
const POSITION = ["depth", "delegateOnly"];
const OF_THE_TOKEN = ["task", "uses", "budget", "marks", "forbid", "consent", ...POSITION];

/** As JSON, its lists sorted and without repetition (23.18). */
function tidy(given: unknown): Json {
  return sorted(jsonOf(unset(given)));
}

/** Sets as arrays, wherever they stand. */
function unset(given: unknown): unknown {
  if (given instanceof Set) return [...given];
  if (typeof given !== "object" || given === null || Array.isArray(given)) return given;
  return new Map(entriesOf(given, "a caveat").map(([key, value]) => [key, unset(value)]));
}

function sorted(json: Json): Json {
  if (isObject(json)) return new Map([...json].map(([key, value]) => [key, sorted(value)]));
  if (!Array.isArray(json)) return json;
  if (
    !json.every((item): item is Scalar => ["string", "number", "boolean"].includes(typeof item))
  ) {
    throw new UsageError("a list of a caveat has strings, integers and booleans");
  }
  return [...new Set(json)].sort(byScalar);
}

/** Every string in Unicode normal form C (4.7). */
function checkComposed(json: Json): void {
  if (typeof json === "string" && json.normalize("NFC") !== json) {
    throw new UsageError("a string that is not in Unicode normal form C");
  }
  if (Array.isArray(json)) json.forEach(checkComposed);
  if (isObject(json)) {
    json.forEach((value, key) => {
      checkComposed(key);
      checkComposed(value);
    });
  }
}

/** The keywords that were given. Raises UsageError for one that is no caveat. */
function givenOf(caveats: Caveats, vocabulary: Vocabulary): [string, unknown][] {
  const given = entriesOf(caveats, "caveats") as [string, unknown][];
  for (const [keyword, value] of given) {
    stands(keyword, value);
    const known =
      Object.hasOwn(KEYWORDS, keyword) || POSITION.includes(keyword) || isOwn(keyword, vocabulary);
    if (!known) throw new UsageError(`no caveat is called ${JSON.stringify(String(keyword))}`);
    if (value === null) throw new UsageError(`${keyword} must not be null; leave it out`);
  }
  return given;
}

/** What is asked for, by key: as JSON and as it is read. */
function askedOf(given: readonly [string, unknown][], means: Means, held: Capability): Asked {
  const asked: Asked = new Map();
  for (const [keyword, value] of given) {
    if (POSITION.includes(keyword)) continue;
    const [key, read] = KEYWORDS[keyword] ?? [keyword, (own: unknown) => jsonOf(own)];
    if (asked.has(key)) throw new UsageError("expiresIn and expiresAt say the same thing twice");
    const json = read(value, means, held);
    const said = isKnown(key) ? readCaveat(key, json) : ownValue(key, json, means.vocabulary);
    checkComposed(json);
    asked.set(key, { json, said });
  }
  return asked;
}

// --- composing -----------------------------------------------------------------------------------

const KEPT: Readonly<Record<string, Json>> = { tables: ["*"], tools: new Map([["*", new Map()]]) };

/** The caveats by key, no wider than what is held. */
function restrictions(terms: Terms, means: Means, holding: Holding): JsonObject {
  const { keep = [], clamp = false } = terms.writing;
  if (typeof clamp !== "boolean") throw new UsageError("clamp is a boolean");
  const asked = askedOf(givenOf(terms.caveats, means.vocabulary), means, holding.capability);
  const stated = narrowed(holding.capability, asked, clamp, means.vocabulary);
  const said = (key: string): never => asked.get(key)?.said as never;
  checkMarked({ marks: said("marks"), forbid: said("forbid") });
  for (const key of typeof keep === "string" ? [keep] : keep) {
    if (!Object.hasOwn(KEPT, key)) throw new UsageError("keep takes tables and tools");
    const named = [...stated.keys()].some((each) => DOMAIN_KEYS.includes(each));
    if (!named) throw new UsageError("keep goes with a link that names tables or tools");
    if (!stated.has(key)) stated.set(key, KEPT[key]!);
  }
  return stated;
}

const DOMAIN_KEYS = ["tables", "operations", "allow", "columns", "rows", "tools"];

/** The JSON of a new link; empty if nothing is asked for. */
export function compose(terms: Terms, means: Means, holding: Holding): JsonObject {
  if (terms.to !== undefined && !isName(terms.to)) throw new UsageError("to is a name");
  const stated = restrictions(terms, means, holding);
  const { depth, delegateOnly } = terms.caveats;
  for (const [key, json] of positioned(
    holding.lineage,
    { depth, delegateOnly, to: terms.to },
    terms.writing.clamp,
  )) {
    stated.set(key, json);
  }
  const isCounted = COUNTED.some((key) => stated.has(key));
  if (isCounted) checkCounting(holding, stated);
  if (isCounted || terms.to !== undefined) stated.set("n", b64encode(means.random(8)));
  if (terms.key !== undefined) {
    stated.set("key", b64encode(publicKey(terms.key, isPrimePoint, "key")));
  }
  return stated;
}

/** Would readers find the link unreadable since too much counts (38.13)? */
function checkCounting(holding: Holding, stated: JsonObject): void {
  // As many as they are, whatever they say.
  const says = Object.fromEntries(stated) as Partial<Said>;
  const link: Link = {
    kind: "link",
    keys: [],
    says,
    own: [],
    domains: new Set(),
    body: new Uint8Array(),
    signature: undefined,
  };
  if (isTooMuchCounted([...holding.links, link])) {
    throw new LimitError("too many links count, or too many buckets");
  }
}

const OF_NO_CHAIN: Holding = { links: [], capability: EVERYTHING, lineage: startOf("nobody") };

/** The JSON of a link that is about requests alone: of a discharge, of an operator's entry. */
export function composeRequest(
  asked: Caveats,
  given: Partial<Means> = {},
): JsonObject {
  const caveats = settings(asked);
  for (const keyword of OF_THE_TOKEN) {
    if (caveats[keyword as keyof Caveats] !== undefined) {
      throw new UsageError(`${keyword} is a caveat of tokens alone`);
    }
  }
  return restrictions({ caveats, writing: {} }, meansOf(given), OF_NO_CHAIN);
}

/** Raises unless a key and its signature are there where they are due, and only there (23.19). */
export function checkCustody(
  boundTo: Bytes | undefined,
  terms: Terms,
  signer: Signer | undefined,
): void {
  if (!boundTo) {
    if (signer) {
      throw new DelegationError(
        "the token is bound to no key: nothing to sign",
        "broken_delegation",
      );
    }
    return;
  }
  if (terms.key === undefined) {
    if (terms.to !== undefined) {
      throw new DelegationError("hand it on to a key of the receiver", "broken_delegation");
    }
    if (signer) throw new UsageError("a signer goes with the key that the token is handed to");
    return;
  }
  if (!signer || !equal(signerKey(signer), boundTo)) {
    throw new DelegationError(
      "only the key that the token is bound to signs it over to another",
      "bad_proof",
    );
  }
}
