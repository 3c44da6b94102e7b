/**
 * The audit trail, written: one record for each decision (spec, "Audit").
 *
 * A record is a line of canonical JSON, with the hash of the line before. A checkpoint is the
 * server's signature over all lines above. `checkTrail` reads it, and so does captoken for Python:
 * `captoken audit verify`.
 */

import { START, MOST_LEAVES, leaf, recorded, rootOf, treeMessage, type Head } from "./audit.js";
import { b64encode, b64exact, byCodePoint, concat, text, type Bytes } from "./format/bytes.js";
import { label, sha256, type RawCaveat } from "./format/crypto.js";
import { CaptokenError, UsageError } from "./format/errors.js";
import { atLeast, isLater, settings } from "./format/given.js";
import { canonicalBytes, canonicalText, type Json, type JsonObject } from "./format/json.js";
import { parseTicket } from "./discharge.js";
import type { AuditKey } from "./keys.js";
import type { Stated } from "./language/access.js";
import { readLink, splitSigned } from "./language/links.js";
import type { Attribution } from "./verification/authenticate.js";
import type { Recorder, Told, Written } from "./verification/record.js";

export type { Recorder, Told, Written } from "./verification/record.js";

export interface TrailOptions {
  /** Signs a checkpoint after every `every` records, and when `checkpoint` is called. */
  readonly key?: AuditKey;
  /** How many records there are between two checkpoints: 1000 if not said. */
  readonly every?: number;
  /** The last record of an earlier process or file: `checkTrail` says it. */
  readonly head?: Head;
  /** True: the values of arguments and attributes are recorded. They may be personal, or secret. */
  readonly values?: boolean;
  /** What the server calls the request, asked for each record. */
  readonly trace?: () => string | undefined;
  /** Seconds since the epoch, with their parts. */
  readonly clock?: () => number;
  /** Told of a checkpoint that was not written: the decision is recorded, and the next one tries. */
  readonly onProblem?: (problem: unknown) => void;
}

/** Writes all of it or none. A number that it gives is how many bytes it wrote. */
export type Write = (lines: Bytes) => unknown;

const REMEMBERED = 10_000; // tokens: one that was forgotten is described again
const SOON = 60; // seconds from a decision to its record; else its clock is not the verifier's

const refused = (what: string): CaptokenError => new CaptokenError(what, "audit");
const stripped = (fields: readonly (readonly [string, Json | undefined])[]): JsonObject =>
  new Map(fields.filter((field): field is readonly [string, Json] => field[1] !== undefined));

/**
 * Writes the trail: pass it to a Verifier as `audit`. If `write` raises, access is denied.
 *
 *     const file = openSync("trail.jsonl", "a");
 *     const trail = new AuditTrail((lines) => writeSync(file, lines), { key, head });
 *     const verifier = new Verifier(keyring, { audience: "files", audit: trail });
 *
 * What raises has written nothing. After a write of which it is not known whether it stands, the
 * trail records nothing more, and so nothing is allowed. A `write` that promises is waited for, one
 * call after the other: then ask `checkAsync`.
 */
export class AuditTrail implements Recorder {
  readonly #write: Write;
  readonly #key: AuditKey | undefined;
  readonly #every: number;
  readonly #values: boolean;
  readonly #trace: () => string | undefined;
  readonly #clock: () => number;
  readonly #onProblem: (problem: unknown) => void;
  #head: Head;
  #since = 0;
  /** The hashes of the records since the last checkpoint, and of that one. */
  #leaves: Bytes[] = [];
  #isTorn = false;
  readonly #described = new Set<string>();
  /** What was asked for before and is still under way: undefined, if nothing is. */
  #before: Promise<unknown> | undefined;

  constructor(write: Write, given: TrailOptions = {}) {
    const options = settings(given, /^(key|every|head|values|trace|clock|onProblem)$/);
    if (typeof write !== "function") throw new UsageError("write is a function");
    const { head = START } = options;
    if (!b64exact(head.hash, 32)) throw new UsageError("a head has a hash");
    this.#write = write;
    this.#key = options.key;
    this.#every = atLeast(options.every ?? 1000, 1, "every");
    this.#values = options.values === true;
    this.#trace = options.trace ?? (() => undefined);
    this.#clock = options.clock ?? (() => Date.now() / 1000);
    this.#onProblem = options.onProblem ?? (() => undefined);
    this.#head = { seq: atLeast(head.seq, 0, "seq"), hash: head.hash };
  }

  /** The last record: kept by somebody else, it shows that a trail was set back. */
  get head(): Head {
    return { ...this.#head };
  }

  /** Whoever answers a decision calls it before. */
  record(told: Told): unknown {
    const stated = described(told, this.#values);
    const late = this.#clock() - told.decision.now;
    if (late >= 0 && late < SOON) stated.set("ms", Math.floor(late * 1000));
    const trace = this.#trace();
    if (trace !== undefined) stated.set("trace", trace);
    return this.#inTurn(() => this.#recorded(told, stated));
  }

  /**
   * Sign what was written so far, and tell the head, to be kept elsewhere. Call it before a server
   * ends, too.
   */
  async checkpoint(): Promise<Head> {
    if (!this.#key) throw new UsageError("a trail without a key has no checkpoints");
    await this.#inTurn(() => this.#signed());
    return this.head;
  }

  /** At once where nothing is under way, and nothing promises. */
  #inTurn(steps: () => Steps): unknown {
    const run = (): unknown => proceed(steps());
    const done = this.#before ? this.#before.then(run, run) : run();
    if (!isLater(done)) return undefined;
    const ends = (done as Promise<unknown>).finally(() => {
      if (this.#before === ends) this.#before = undefined;
    });
    this.#before = ends;
    isLater(ends);
    return ends;
  }

  *#recorded({ decision, written }: Told, stated: JsonObject): Steps {
    const { who } = decision;
    // Tokens come first (39.3). By the last link: its children have others.
    const link = who?.linkIds.at(-1);
    if (who && written && link !== undefined && !this.#described.has(link)) {
      yield* this.#append(tokenOf(who, written));
      this.#described.add(link);
      const [oldest] = this.#described;
      if (this.#described.size > REMEMBERED) this.#described.delete(oldest!);
    }
    yield* this.#append(stated);
    if (!this.#key || this.#since < this.#every) return;
    try {
      yield* this.#signed();
    } catch (problem) {
      this.#onProblem(problem);
    }
  }

  *#signed(): Steps {
    const key = this.#key!;
    const { hash } = this.#head;
    const stated: JsonObject = new Map<string, Json>([
      ["kind", "checkpoint"],
      ["key", key.public],
      ["signature", b64encode(key.sign(concat(label("audit"), b64exact(hash, 32)!)))],
    ]);
    const count = this.#leaves.length;
    const root = rootOf(this.#leaves);
    if (root) {
      const first = this.#head.seq - count + 1;
      const tree: JsonObject = new Map<string, Json>([
        ["first", first],
        ["root", b64encode(root)],
        ["signature", b64encode(key.sign(treeMessage(first, count, root)))],
      ]);
      stated.set("tree", tree);
    }
    yield* this.#append(stated);
    this.#since = 0;
    // The next tree begins with this checkpoint: so each stands under the one after.
    this.#leaves = this.#leaves.slice(-1);
  }

  /** The record, with its number and the hash of the line before. */
  *#append(stated: JsonObject): Steps {
    if (this.#isTorn) {
      throw refused("the last write may or may not stand: continue from what is there, with a new trail");
    }
    const seq = this.#head.seq + 1;
    const line = canonicalBytes(new Map([...stated, ["prev", this.#head.hash], ["seq", seq]]));
    const lines = concat(line, Uint8Array.of(0x0a));
    const written = yield () => this.#write(lines);
    if (typeof written === "number" && written !== lines.length) {
      this.#isTorn = true;
      throw refused(`${written} bytes of ${lines.length} were written: is the disk full?`);
    }
    this.#since += 1;
    if (this.#key && this.#leaves.push(leaf(line)) > MOST_LEAVES) this.#leaves.shift();
    this.#head = { seq, hash: b64encode(sha256(line)) };
  }
}

/** Calls of `write`: each is told what came of it. */
type Steps = Generator<() => unknown, void, unknown>;

/** At once, until a call promises; from then on later. */
function proceed(steps: Steps, first = steps.next()): unknown {
  let next = first;
  while (!next.done) {
    let answer: unknown;
    try {
      answer = next.value();
    } catch (error) {
      next = steps.throw(error);
      continue;
    }
    if (isLater(answer)) {
      return Promise.resolve(answer).then(
        (value) => proceed(steps, steps.next(value)),
        (error: unknown) => proceed(steps, steps.throw(error)),
      );
    }
    next = steps.next(answer);
  }
  return undefined;
}

// --- decisions (39.3) ----------------------------------------------------------------------------

/** It has no token, no key and no proof. What is not there is left out: a record has no null. */
function described({ decision, access, caller, leeway }: Told, values: boolean): JsonObject {
  const { who, now, allowed, code } = decision;
  const [taken, marks] = allowed ? effectsOf(decision) : [];
  return stripped([
    ["kind", "decision"],
    ["at", now],
    ["allowed", allowed],
    ["code", code],
    ["leeway", leeway || undefined],
    ["access", access && describedAccess(access, values)],
    ["caller", caller && stripped(Object.entries(caller))],
    ["refusals", allowed ? undefined : refusalsOf(decision)],
    ...(who ? attributed(who) : []),
    ["taken", taken],
    ["marks", marks],
  ]);
}

const refusalsOf = ({ refusals }: Told["decision"] & { allowed: false }): Json =>
  refusals.map(({ code, text: said, link, addedBy }) =>
    stripped([
      ["code", code],
      ["text", said],
      ["link", link],
      ["added_by", addedBy],
    ]),
  );

/** Who is behind a token whose chain held, and how each name is known. */
const attributed = ({ root, task, chain, linkIds }: Attribution): [string, Json | undefined][] => [
  ["token", root.tokenId],
  ["sub", root.subject],
  ["task", task],
  ["chain", chain.map(({ name, basis }) => stripped([["name", name], ["basis", basis]]))],
  ["link", linkIds.at(-1)],
];

/** The reservation that allowed it, and the marks that its step is in. */
function effectsOf({ effects }: Told["decision"] & { allowed: true }): [string | undefined, Json | undefined] | [] {
  for (const effect of effects) {
    if (effect.kind !== "reserve") continue;
    const { reservation, marked } = effect;
    const found = new Map<string, JsonObject>();
    for (const { name, link } of marked?.marks ?? []) {
      found.set(`${link} ${name}`, stripped([["name", name], ["link", link]]));
    }
    const taken = reservation.debits.length ? b64encode(reservation.id) : undefined;
    return [taken, found.size ? [...found.values()] : undefined];
  }
  return [];
}

/** With the names of arguments and attributes, or their values too (39.6). */
function describedAccess(access: Stated, values: boolean): JsonObject {
  const { table, operation, tool, columns, rows, cost } = access;
  const shown = (facts: JsonObject | null | undefined): Json | undefined => {
    if (!facts?.size) return undefined;
    return values ? recorded(facts) : [...facts.keys()].sort(byCodePoint);
  };
  return stripped([
    ["table", table],
    ["operation", operation],
    ["tool", tool],
    ["columns", columns && [...columns]],
    ["rows", rows && rows.map((row) => new Map(row))],
    ["row", shown(access.row)],
    ["becomes", shown(access.becomes)],
    ["arguments", shown(access.arguments)],
    ["attributes", shown(access.attributes)],
    ["cost", cost.size ? new Map(cost) : undefined],
  ]);
}

// --- tokens --------------------------------------------------------------------------------------

/** What a token says, without what embedders add: their text is recorded as it stands. */
const tokenOf = ({ linkIds }: Attribution, { identifier, caveats }: Written): JsonObject =>
  new Map<string, Json>([
    ["kind", "token"],
    ["root", canonicalText(text(identifier)!)!],
    ["links", caveats.map((caveat, at) => stripped([["id", linkIds[at]], ["says", saysOf(caveat)]]))],
  ]);

// The keys that a record has in the place of a link's own: no verifier takes a link with these.
const MARKS = ["asks", "unreadable"];

/** What it says, whom it asks, or that it cannot be read. */
function saysOf({ cid, vid }: RawCaveat): JsonObject {
  if (vid) return new Map([["asks", askedOf(cid)]]);
  const link = readLink(cid, {});
  const isUnreadable = link.kind === "bad" && link.code === "unreadable_link";
  const words = isUnreadable ? undefined : canonicalText(text(splitSigned(cid)!.body)!);
  if (!words || MARKS.some((key) => words.has(key))) return new Map([["unreadable", true]]);
  return words;
}

function askedOf(cid: Bytes): string {
  try {
    return parseTicket(cid).discharger;
  } catch {
    return "?";
  }
}
