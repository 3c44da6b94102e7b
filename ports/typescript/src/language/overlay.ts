/** Snapshots of the overlay, and deltas between them (spec, "Overlay"). */

import {
  b64encode,
  b64exact,
  byCodePoint,
  concat,
  text,
  utf8,
  type Bytes,
} from "../format/bytes.js";
import { isPrimePoint, label, publicKey, sha256, verify } from "../format/crypto.js";
import { CaptokenError, UsageError } from "../format/errors.js";
import { handed } from "../format/handed.js";
import {
  canonicalBytes,
  canonicalObject,
  isInteger,
  isObject,
  jsonOf,
  type Json,
  type JsonObject,
} from "../format/json.js";
import { atOrBelow, isName, isTask } from "../format/names.js";
import type { Vocabulary } from "./caveats.js";
import { isAboutRequests, joinSigned, readLink, splitSigned, type AnyLink, type Link } from "./links.js";
import type { Signer } from "../proof.js";

const MAX_BYTES = 67108864;
const MAX_ASKED = 64;
const NEWLINE = 0x0a;
/** Snapshots before it that one names, at most (36.21). */
const MAX_PAST = 256;
/** A link stands in an entry, which stands in the array of the snapshot, or of the delta. */
const WITHIN = 3;

export interface Selector {
  readonly token?: string;
  readonly link?: string;
  readonly task?: string;
  readonly hop?: string;
  readonly agent?: string;
  readonly subject?: string;
  readonly kid?: string;
  readonly issued_before?: number;
}

export interface Entry {
  readonly id: string;
  readonly at: number;
  readonly by: string;
  readonly why: string;
  readonly select: Selector;
  /** What is left to the tokens; without it they are revoked. */
  readonly link: Link | undefined;
  readonly until: number | undefined;
  readonly asked: readonly string[] | undefined;
  readonly json: JsonObject;
}

export interface Overlay {
  readonly seq: number;
  readonly issuedAt: number;
  readonly expiresAt: number;
  readonly entries: readonly Entry[];
  /** The hash by which a delta names it. */
  readonly hash: string;
  /** The hashes of those before it, the latest first; undefined: it was signed without (36.21). */
  readonly past?: readonly string[] | undefined;
  /** Who went on from a store that had lost something. */
  readonly resumed?: Resumed | undefined;
}

/** Who went on from a store that had lost something, and what is known of it (36.23). */
export interface Resumed {
  readonly by: string;
  /** The number of the newest snapshot that whoever signed had seen; 0: of none. */
  readonly lost: number;
  /** That of the first snapshot that says so. */
  readonly seq: number;
  readonly why: string;
}

export const refusedOverlay = (what: string): CaptokenError =>
  new CaptokenError(`no overlay: ${what}`, "overlay");

// --- reading -------------------------------------------------------------------------------------

const isText = (value: Json): value is string => typeof value === "string";
const isTokenId = (value: Json): boolean => b64exact(value, 16) !== undefined;

export const isNonce = (value: Json): value is string => isText(value) && /^[A-Za-z0-9_-]{11}$/.test(value);

const SELECTORS: Readonly<Record<string, (value: Json) => boolean>> = {
  token: isTokenId,
  link: isTokenId,
  hop: isNonce,
  task: isTask,
  agent: isName,
  subject: isName,
  kid: isName,
  issued_before: isInteger,
};
const REQUIRED: Readonly<Record<string, (value: Json) => boolean>> = {
  at: isInteger,
  by: isText,
  why: isText,
  id: isText,
  select: (value) =>
    isObject(value) &&
    value.size > 0 &&
    [...value].every(([key, each]) => Object.hasOwn(SELECTORS, key) && SELECTORS[key]!(each)) &&
    (!value.has("hop") || value.has("token")),
};
const OPTIONAL: Readonly<Record<string, (value: Json) => boolean>> = {
  link: isObject,
  until: isInteger,
  asked: (value) => Array.isArray(value) && value.length <= MAX_ASKED,
};

function readEntry(json: Json, vocabulary: Vocabulary): Entry {
  const all = { ...REQUIRED, ...OPTIONAL };
  const isForm =
    isObject(json) &&
    Object.keys(REQUIRED).every((key) => json.has(key)) &&
    [...json].every(([key, value]) => Object.hasOwn(all, key) && all[key]!(value));
  if (!isForm) throw refusedOverlay("an entry with other keys or values");
  const at = <T>(key: string): T => json.get(key) as T;
  const select = at<JsonObject>("select");
  if (json.has("asked")) {
    const keys = [...select.keys()].sort(byCodePoint).join();
    const isOne = select.has("hop") ? isNonce : isTokenId;
    if (json.has("link") || !["token", "link,token", "hop,token"].includes(keys)) {
      throw refusedOverlay("a recall that says or selects more");
    }
    if (!at<Json[]>("asked").every(isOne)) throw refusedOverlay("a recall of no link");
  }
  return {
    id: at("id"),
    at: at("at"),
    by: at("by"),
    why: at("why"),
    until: at("until"),
    asked: at("asked"),
    select: Object.fromEntries(select) as Selector,
    link: json.has("link") ? readRestriction(at("link"), vocabulary) : undefined,
    json,
  };
}

/** What is left: a link that can be read, and is about requests alone (36.6). */
function readRestriction(json: JsonObject, vocabulary: Vocabulary): Link {
  const link = readLink(spelledWithin(json), vocabulary);
  if (link.kind === "bad" || !isAboutRequests(link, true)) {
    throw refusedOverlay("a link that cannot be read here");
  }
  return link;
}

/** The link as it is spelled, where it is no deeper than the snapshot may be (2.7). */
function spelledWithin(json: JsonObject): Bytes {
  try {
    return canonicalBytes(json, WITHIN);
  } catch (error) {
    if (error instanceof UsageError) throw refusedOverlay(`a link: ${error.message}`);
    throw error;
  }
}

/** Bytes, or text of a byte a character where somebody read it so. */
function bytesOf(data: Bytes | string): Bytes {
  return typeof data === "string" ? utf8(data) : data;
}

/** The JSON object of signed bytes. The signature is looked at before anything is read (36.3). */
function openSigned(data: Bytes, purpose: string, operators: readonly Bytes[]): JsonObject {
  if (data.length > MAX_BYTES) throw refusedOverlay("too long");
  const { body, signature } = splitSigned(data) ?? {};
  if (!body || !signature) throw refusedOverlay("no signature");
  const message = concat(label(purpose), sha256(body));
  if (!operators.some((key) => verify(key, message, signature))) {
    throw refusedOverlay("signed by no operator");
  }
  const stated = canonicalObject(body);
  if (!stated) throw refusedOverlay("not canonical JSON");
  return stated;
}

function checkForm(
  stated: JsonObject,
  keys: readonly string[],
  integers: readonly string[],
  optional: readonly string[] = [],
): void {
  const isForm =
    keys.every((key) => stated.has(key)) &&
    [...stated.keys()].every((key) => keys.includes(key) || optional.includes(key)) &&
    stated.get("v") === 1 &&
    integers.every((key) => isInteger(stated.get(key)));
  if (!isForm) throw refusedOverlay("other keys or values");
}

const isHash = (value: Json): value is string => b64exact(value, 32) !== undefined;

/** What it says of those before it (36.21). */
function readPast(json: Json | undefined): readonly string[] | undefined {
  if (json === undefined) return undefined;
  if (!Array.isArray(json) || json.length > MAX_PAST || !json.every(isHash)) {
    throw refusedOverlay("past is no list of hashes");
  }
  return json;
}

/** Who went on (36.23): of a snapshot with a history, and of no later one. */
function readResumed(stated: JsonObject): Resumed | undefined {
  const json = stated.get("resumed");
  if (json === undefined) return undefined;
  const isForm =
    isObject(json) &&
    json.size === 4 &&
    ["by", "why"].every((key) => isText(json.get(key)!)) &&
    ["lost", "seq"].every((key) => isInteger(json.get(key))) &&
    stated.has("past") &&
    (json.get("seq") as number) <= (stated.get("seq") as number);
  if (!isForm) throw refusedOverlay("resumed");
  return Object.fromEntries(json) as unknown as Resumed;
}

const BEHIND = new WeakMap<object, Overlay>();

/** What decides of an overlay that was read here, or undefined for anything else. */
export const behind = (given: unknown): Overlay | undefined => BEHIND.get(given as object);

/** For whoever asked: its entries are copies, made if they are looked at. */
function shown(overlay: Overlay): Overlay {
  const { entries, ...when } = overlay;
  let copies: readonly Entry[] | undefined;
  const made = Object.freeze({
    ...handed(when),
    get entries(): readonly Entry[] {
      return (copies ??= handed(entries));
    },
  });
  BEHIND.set(made, overlay);
  return made;
}

function overlayOf(when: When, entries: readonly Entry[]): Overlay {
  if (new Set(entries.map(({ id }) => id)).size < entries.length) {
    throw refusedOverlay("two entries with one id");
  }
  return { ...when, entries, hash: b64encode(sha256(snapshotBody(when, sortedEntries(entries)))) };
}

const sortedEntries = (entries: readonly Entry[]): Entry[] =>
  [...entries].sort((one, two) => byCodePoint(one.id, two.id));

/** What a snapshot says beside its entries. */
type When = Pick<Overlay, "seq" | "issuedAt" | "expiresAt" | "past" | "resumed">;

function snapshotBody(when: When, entries: readonly Entry[]): Bytes {
  const { seq, issuedAt, expiresAt, past, resumed } = when;
  const stated: JsonObject = new Map<string, Json>([["entries", entries.map(({ json }) => json)]]);
  stated.set("exp", expiresAt).set("iat", issuedAt).set("seq", seq).set("v", 1);
  if (past !== undefined) stated.set("past", [...past]);
  if (resumed !== undefined) stated.set("resumed", jsonOf(resumed));
  return canonicalBytes(stated);
}

/** What a snapshot says of those before it, if it follows on that one: it begins with one without. */
export const pastOfNext = ({ hash, past }: Overlay): readonly string[] =>
  [hash, ...(past ?? [])].slice(0, MAX_PAST);

function readEntries(json: Json | undefined, vocabulary: Vocabulary): Entry[] {
  if (!Array.isArray(json)) throw refusedOverlay("entries are no list");
  return json.map((entry) => readEntry(entry, vocabulary));
}

const keysOf = (operators: readonly (string | Bytes)[]): Bytes[] =>
  operators.map((key) => publicKey(key, isPrimePoint, "operator"));

/**
 * The snapshot that bytes spell, with the deltas behind it (36.19). Raises CaptokenError `overlay`.
 *
 * It does not look at the time, nor at what was known before: a `Feed` and the verifier do.
 */
export function openOverlay(
  data: Bytes | string,
  operators: readonly (string | Bytes)[],
  vocabulary: Vocabulary = {},
): Overlay {
  const bytes = bytesOf(data);
  if (bytes.length > 2 * MAX_BYTES) throw refusedOverlay("too long");
  const [first, ...deltas] = linesOf(bytes);
  const keys = keysOf(operators);
  const stated = openSigned(first!, "overlay", keys);
  const optional = ["past", "resumed"];
  checkForm(stated, ["entries", "exp", "iat", "seq", "v"], ["exp", "iat", "seq"], optional);
  const entries = readEntries(stated.get("entries"), vocabulary);
  const number = (key: string): number => stated.get(key) as number;
  const snapshot = overlayOf(
    {
      seq: number("seq"),
      issuedAt: number("iat"),
      expiresAt: number("exp"),
      past: readPast(stated.get("past")),
      resumed: readResumed(stated),
    },
    entries,
  );
  return shown(deltas.reduce((known, delta) => apply(known, delta, keys, vocabulary), snapshot));
}

function linesOf(bytes: Bytes): Bytes[] {
  const lines: Bytes[] = [];
  let start = 0;
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, start)) {
    lines.push(bytes.subarray(start, at));
    start = at + 1;
  }
  return [...lines, bytes.subarray(start)];
}

/**
 * What deltas give that follow on a snapshot, one after the other. Raises CaptokenError `overlay`.
 */
export function followOverlay(
  known: Overlay,
  deltas: readonly (Bytes | string)[],
  operators: readonly (string | Bytes)[],
  vocabulary: Vocabulary = {},
): Overlay {
  const keys = keysOf(operators);
  const made = deltas.reduce<Overlay>(
    (before, delta) => apply(before, bytesOf(delta), keys, vocabulary),
    behind(known) ?? known,
  );
  return shown(made);
}

/** One delta: it names what it follows on, and what it gives (36.17, 36.18). */
function apply(
  known: Overlay,
  data: Bytes,
  operators: readonly Bytes[],
  vocabulary: Vocabulary,
): Overlay {
  const stated = openSigned(data, "delta", operators);
  checkForm(stated, ["add", "after", "drop", "exp", "gives", "iat", "v"], ["exp", "iat"]);
  const after = markOf(stated.get("after"));
  const gives = markOf(stated.get("gives"));
  if (after.seq !== known.seq || after.hash !== known.hash) {
    throw refusedOverlay("a delta for another snapshot");
  }
  if (gives.seq <= known.seq) throw refusedOverlay("a number that does not go up");
  const drop = stated.get("drop");
  if (!Array.isArray(drop) || !drop.every(isText)) throw refusedOverlay("drop");
  const add = readEntries(stated.get("add"), vocabulary);
  if (!isOrdered(drop) || !isOrdered(add.map(({ id }) => id))) {
    throw refusedOverlay("ids that are not in order");
  }
  const dropped = new Set(drop);
  const kept = known.entries.filter(({ id }) => !dropped.has(id));
  if (kept.length !== known.entries.length - dropped.size) {
    throw refusedOverlay("an id that is not there to drop");
  }
  const [iat, exp] = [stated.get("iat") as number, stated.get("exp") as number];
  const past = known.past && pastOfNext(known);
  const when = { seq: gives.seq, issuedAt: iat, expiresAt: exp, past, resumed: known.resumed };
  const given = overlayOf(when, [...kept, ...add]);
  const length = snapshotBody(given, given.entries).length + 87;
  if (given.hash !== gives.hash || length > MAX_BYTES) {
    throw refusedOverlay("it gives something else");
  }
  return given;
}

function markOf(json: Json | undefined): { seq: number; hash: string } {
  const isMark =
    isObject(json) &&
    json.size === 2 &&
    isInteger(json.get("seq")) &&
    b64exact(json.get("hash"), 32);
  if (!isMark) throw refusedOverlay("after or gives");
  return { seq: json.get("seq") as number, hash: json.get("hash") as string };
}

const isOrdered = (ids: readonly string[]): boolean =>
  ids.every((id, at) => at === 0 || byCodePoint(ids[at - 1]!, id) < 0);

// --- writing -------------------------------------------------------------------------------------

/**
 * An entry to sign, of plain values: `{ id, at, by, why, select, link? }` (36.4). Raises as readers
 * do.
 */
export function overlayEntry(stated: unknown, vocabulary: Vocabulary = {}): Entry {
  return handed(readEntry(jsonOf(stated), vocabulary));
}

function signed(purpose: string, body: Bytes, key: Signer): Bytes {
  const made = joinSigned(body, b64encode(key.sign(concat(label(purpose), sha256(body)))));
  if (made.length > MAX_BYTES) throw refusedOverlay("too long");
  return made;
}

/**
 * The bytes of a snapshot, signed by an operator. What to build on, 36.16 and 36.24 say: `past` is
 * `pastOfNext` of that, and `resumed` its own.
 */
export function signSnapshot(key: Signer, entries: readonly Entry[], when: When): Bytes {
  checkWhen(when);
  overlayOf(when, entries);
  return signed("overlay", snapshotBody(when, entries), key);
}

/** The bytes of a delta from one snapshot to a later one, whose history goes along (36.21). */
export function signDelta(
  key: Signer,
  from: Overlay,
  entries: readonly Entry[],
  when: Pick<Overlay, "seq" | "issuedAt" | "expiresAt">,
): Bytes {
  checkWhen(when);
  if (when.seq <= from.seq) throw new UsageError("seq must go up");
  const past = from.past && pastOfNext(from);
  const gives = overlayOf({ ...when, past, resumed: from.resumed }, entries);
  const had = new Map(from.entries.map((entry) => [entry.id, text(canonicalBytes(entry.json))]));
  const has = new Map(entries.map((entry) => [entry.id, text(canonicalBytes(entry.json))]));
  const add = sortedEntries(entries).filter(({ id }) => had.get(id) !== has.get(id));
  const drop = [...had.keys()].filter((id) => had.get(id) !== has.get(id)).sort(byCodePoint);
  const mark = ({ seq, hash }: Overlay): Json =>
    new Map<string, Json>([
      ["hash", hash],
      ["seq", seq],
    ]);
  const stated: JsonObject = new Map<string, Json>([
    ["add", add.map(({ json }) => json)],
    ["drop", drop],
  ]);
  stated.set("after", mark(from)).set("gives", mark(gives));
  stated.set("exp", when.expiresAt).set("iat", when.issuedAt).set("v", 1);
  return signed("delta", canonicalBytes(stated), key);
}

function checkWhen({ seq, issuedAt, expiresAt }: When): void {
  if (![seq, issuedAt, expiresAt].every(isInteger)) {
    throw new UsageError("seq, issuedAt and expiresAt are integers");
  }
}

// --- asking --------------------------------------------------------------------------------------

/** The `n` of each link that has one. */
export const hopsOf = (links: readonly AnyLink[]): string[] =>
  links.flatMap((link) =>
    link.kind === "link" && link.says.n !== undefined ? [link.says.n as string] : [],
  );

/** What selectors ask about a token. */
export interface SelectorFacts {
  readonly tokenId: string;
  readonly linkIds: readonly string[];
  /** The `n` of each link that has one. */
  readonly hops: readonly string[];
  readonly task: string;
  readonly holders: readonly string[];
  readonly subject: string;
  readonly keyId: string;
  readonly issuedAt: number;
}

function selects(
  { token, link, hop, task, agent, subject, kid, issued_before: before }: Selector,
  asked: readonly string[],
  facts: SelectorFacts,
): boolean {
  return (
    (token === undefined || token === facts.tokenId) &&
    (link === undefined || facts.linkIds.includes(link)) &&
    (hop === undefined || [hop, ...asked].every((each) => facts.hops.includes(each))) &&
    (task === undefined || atOrBelow(facts.task, task)) &&
    (agent === undefined || facts.holders.includes(agent)) &&
    (subject === undefined || subject === facts.subject) &&
    (kid === undefined || kid === facts.keyId) &&
    (before === undefined || facts.issuedAt < before)
  );
}

/** The entries that stand, and select the token. */
export const entriesOn = ({ entries }: Overlay, facts: SelectorFacts, now: number): Entry[] =>
  entries.filter(
    ({ until, select, asked = [] }) =>
      (until === undefined || now < until) && selects(select, asked, facts),
  );

// --- history -------------------------------------------------------------------------------------

/** May it stand in the place of one that is known, by its history (36.22)? */
export function followsOverlay(overlay: Overlay, known: Overlay): boolean {
  return follows(behind(overlay) ?? overlay, behind(known) ?? known);
}

function follows(overlay: Overlay, known: Overlay): boolean {
  const { past, resumed, seq } = overlay;
  if (past === undefined) return known.past === undefined;
  if (past.includes(known.hash)) return true;
  if (resumed !== undefined && known.seq < resumed.seq) return true;
  return past.length === MAX_PAST && known.seq < seq - MAX_PAST && keepsAll(overlay, known);
}

/** Does all stand here that stands there, to the byte, or is more stopped in its place? */
function keepsAll({ entries, issuedAt }: Overlay, known: Overlay): boolean {
  const spelled = new Map(entries.map(({ id, json }) => [id, text(canonicalBytes(json))]));
  return known.entries.every(
    (entry) =>
      (entry.until !== undefined && entry.until <= issuedAt) ||
      spelled.get(entry.id) === text(canonicalBytes(entry.json)) ||
      (entry.asked !== undefined && entries.some((other) => stops(other, entry))),
  );
}

/** Does it revoke, for as long, what a holder asked for (37.9 to 37.11)? */
function stops({ select, link, until, asked = [] }: Entry, recall: Entry): boolean {
  const { hop = recall.select.link } = recall.select;
  const links = [undefined, hop, ...recall.asked!];
  const by = recall.select.hop === undefined ? "link" : "hop";
  const keys = Object.keys(select).every((key) => key === "token" || key === by);
  const through = select.hop === undefined || asked.every((each) => links.includes(each));
  const lasts = until === undefined || (recall.until !== undefined && until >= recall.until);
  const within = keys && select.token === recall.select.token && links.includes(select[by]);
  return link === undefined && within && through && lasts;
}

/** The newest snapshot that was accepted: it never goes back (36.10), nor to another history. */
export class Feed {
  readonly #operators: readonly Bytes[];
  readonly #vocabulary: Vocabulary;
  #known: Overlay | undefined;

  constructor(operators: readonly (string | Bytes)[], vocabulary: Vocabulary = {}) {
    this.#operators = keysOf(operators);
    this.#vocabulary = vocabulary;
  }

  get overlay(): Overlay | undefined {
    return this.#known;
  }

  /**
   * Takes a snapshot, with the deltas behind it. Raises CaptokenError `overlay`, and changes
   * nothing.
   */
  accept(data: Bytes | string): Overlay {
    const overlay = openOverlay(data, this.#operators, this.#vocabulary);
    const known = this.#known;
    const isSame = known?.seq === overlay.seq && known.hash === overlay.hash;
    if (known && !isSame) {
      if (overlay.seq <= known.seq) throw refusedOverlay("an older one than is known");
      if (!followsOverlay(overlay, known)) throw refusedOverlay("of another history");
    }
    this.#known = overlay;
    return overlay;
  }

  /** Takes deltas that follow on what is known. */
  follow(deltas: readonly (Bytes | string)[]): Overlay {
    if (!this.#known) throw refusedOverlay("deltas, and nothing that they follow on");
    this.#known = followOverlay(this.#known, deltas, this.#operators, this.#vocabulary);
    return this.#known;
  }
}
