/**
 * What a verifier commits: the one use of a proof, and what an access takes (spec, "Replay",
 * "Ledger").
 *
 * Both stores here are memory of one process. Servers that share an audience share a store: write
 * one with the face of these.
 */

import { hex, type Bytes } from "./format/bytes.js";
import { atLeast, settings } from "./format/given.js";
import { handed } from "./format/handed.js";
import type { Stated } from "./language/access.js";

export interface Use {
  /** 16 bytes, from the key and the nonce. */
  readonly entry: Bytes;
  readonly issuedAt: number;
  /** The id of the token's root key: a store may have been made along with it (31.6). */
  readonly kid: string;
}

/** What a store of uses answers. */
export type Added = "added" | "replayed" | "full";

/** An answer, or the promise of one: a store that promises is for `checkAsync` and its like. */
export type Answer<T> = T | PromiseLike<T>;

/**
 * Used proofs. What it raises, any answer but these, and none in time are `store_unavailable`. The
 * signal aborts when nobody waits any more.
 */
export interface ReplayStore {
  /** Adds a use if it is absent, in one atomic step. */
  add(use: Use, now: number, signal?: AbortSignal): Answer<Added>;
  /** What `add` would say. Commits nothing. */
  look(use: Use, now: number, signal?: AbortSignal): Answer<Added>;
  /**
   * As `add`, for the use of a consent, which lives for an hour (47.9). Without these two methods
   * what needs them is `store_unavailable`.
   */
  spend?(use: Use, now: number, signal?: AbortSignal): Answer<Added>;
  /** What `spend` would say. Commits nothing. */
  lookSpend?(use: Use, now: number, signal?: AbortSignal): Answer<Added>;
}

export interface Debit {
  /** A link id. */
  readonly bucket: string;
  readonly unit: string;
  readonly limit: number;
  readonly amount: number;
  /** Which link of the token says the limit. */
  readonly link: number;
}

export interface Reservation {
  /** 16 random bytes: the same one twice is one. */
  readonly id: Bytes;
  readonly tokenId: string;
  readonly issuedAt: number;
  readonly debits: readonly Debit[];
  /** Until when the buckets are asked about; undefined is for good. */
  readonly keptUntil: number | undefined;
  readonly leeway: number;
  /** The id of the token's root key: a ledger may have been made along with it (38.15). */
  readonly kid: string;
}

/** A mark that an access is in: a bucket that is only ever set (46.3). */
export interface Mark {
  readonly bucket: string;
  /** The tree that it counts to (38.14); "" for one of a task or of an entry. */
  readonly tree: string;
  /** As of a reservation. */
  readonly keptUntil: number | undefined;
  /** Which link of the token says it; undefined for an entry of the overlay. */
  readonly link: number | undefined;
  /** For whoever is told, and no ledger needs it. */
  readonly name: string;
}

/** What an access sets, and the rules that it runs into: closed once these are set. */
export interface Marked {
  readonly marks: readonly Mark[];
  readonly rules: readonly {
    readonly after: readonly Mark[];
    readonly link: number | undefined;
    /** Whose consent lifts the rule, in hex; undefined for nobody's. */
    readonly unless?: string | undefined;
  }[];
}

/** The same, and for the operator who asks what set a mark, whose access it was. No ledger needs that. */
export interface Step extends Marked {
  readonly holder: string;
  readonly access: Stated;
}

/**
 * What a reservation came to: the link of the first bucket that has not enough left, or the first
 * rule that holds, with those of its marks that were set before.
 */
export type Reserved =
  | "reserved"
  | "unavailable"
  | { readonly short: number }
  | { readonly forbidden: number; readonly set: readonly Mark[] };

/** What counts, for all holders below a link. What it raises is `store_unavailable`. */
export interface Ledger {
  /** Do all servers that take a token count in it (38.6)? */
  readonly shared: boolean;
  reserve(reservation: Reservation, now: number, signal?: AbortSignal): Answer<Reserved>;
  /** What `reserve` would say. Commits nothing. */
  look(reservation: Reservation, now: number, signal?: AbortSignal): Answer<Reserved>;
  /**
   * Sets marks and reserves in one atomic step, unless a rule holds, the marks of the access itself
   * counted. Whatever is set and asked about is kept for the latest (46.5, 46.6). Without these two
   * methods what needs them is `store_unavailable`.
   */
  step?(
    reservation: Reservation,
    step: Step,
    now: number,
    signal?: AbortSignal,
  ): Answer<Reserved>;
  /** What `step` would say. Commits nothing. */
  lookStep?(
    reservation: Reservation,
    step: Step,
    now: number,
    signal?: AbortSignal,
  ): Answer<Reserved>;
  /** What was taken in fact, the rest goes back. False: too late, or closed already. */
  settle(
    id: Bytes,
    taken: ReadonlyMap<string, number>,
    now: number,
    signal?: AbortSignal,
  ): Answer<boolean>;
}

const PROOF_LIVES = 30;
const CONSENT_LIVES = 3600;
const PROOF_AHEAD = 5;
const TOKEN_AHEAD = 60;
const LEASE = 60;
const KEPT = 3600;
const TREE = 10_000;

/**
 * Used proofs and consents, in memory: a process that starts anew refuses what was made before
 * (31.3).
 */
export class MemoryReplayStore implements ReplayStore {
  readonly #proofs: Uses;
  readonly #consents: Uses;

  constructor(given: { readonly floor?: number; readonly limit?: number } = {}) {
    const { floor: stated, limit = 100_000 } = settings(given, /^(floor|limit)$/);
    const floor = stated ?? Math.floor(Date.now() / 1000) + PROOF_AHEAD;
    const most = atLeast(limit, 0, "limit");
    this.#proofs = new Uses(floor, most, PROOF_LIVES);
    this.#consents = new Uses(floor, most, CONSENT_LIVES);
  }

  look(use: Use, now: number): Added {
    return this.#proofs.look(use, now);
  }

  add(use: Use, now: number): Added {
    return this.#proofs.add(use, now);
  }

  lookSpend(use: Use, now: number): Added {
    return this.#consents.look(use, now);
  }

  spend(use: Use, now: number): Added {
    return this.#consents.add(use, now);
  }
}

/** What was used of one kind, and how long such a thing lives. */
class Uses {
  readonly #uses = new Map<string, number>();
  readonly #limit: number;
  readonly #lives: number;
  #floor: number;
  /** When it was last looked for what may be forgotten: once a second will do. */
  #looked = -Infinity;

  constructor(floor: number, limit: number, lives: number) {
    this.#floor = floor;
    this.#limit = limit;
    this.#lives = lives;
  }

  look({ entry, issuedAt }: Use, now: number): Added {
    this.#forget(now);
    if (this.#uses.has(hex(entry)) || issuedAt <= this.#floor) return "replayed";
    return this.#uses.size >= this.#limit ? "full" : "added";
  }

  add(use: Use, now: number): Added {
    const answer = this.look(use, now);
    if (answer === "added") this.#uses.set(hex(use.entry), use.issuedAt);
    return answer;
  }

  /** Only what is out of time; the floor rises with it. */
  #forget(now: number): void {
    if (now <= this.#looked) return;
    this.#looked = now;
    for (const [entry, issuedAt] of this.#uses) {
      if (issuedAt >= now - this.#lives) continue;
      this.#uses.delete(entry);
      this.#floor = Math.max(this.#floor, issuedAt);
    }
  }
}

interface Bucket {
  taken: number;
  keptUntil: number | undefined;
  readonly tree: string;
}

interface Open {
  readonly debits: readonly Debit[];
  readonly tree: string;
  readonly ends: number;
  closed: boolean;
}

const NOTHING: Marked = { marks: [], rules: [] };

/** Until when a mark is kept. */
export const endOf = ({ keptUntil = Infinity }: Mark): number => keptUntil + KEPT;

/** The first rule that holds, or -1, where these and the access's own marks are set (46.6). */
export const closedBy = ({ marks, rules }: Marked, isSet: (mark: Mark) => boolean): number =>
  rules.findIndex(({ after }) =>
    after.every((mark) => isSet(mark) || marks.some(({ bucket }) => bucket === mark.bucket)),
  );

const nameOf = ({ bucket, unit }: Debit): string => `${bucket} ${unit}`;

/** A ledger in memory: a process that starts anew refuses tokens that were issued before (38.9). */
export class MemoryLedger implements Ledger {
  readonly shared: boolean;
  readonly #floor: number;
  readonly #buckets = new Map<string, Bucket>();
  readonly #trees = new Map<string, number>();
  readonly #open = new Map<string, Open>();
  #forgotten = -Infinity;
  /** As above. */
  #looked = -Infinity;

  constructor(given: { readonly shared?: boolean; readonly floor?: number } = {}) {
    const { shared = false, floor } = settings(given, /^(shared|floor)$/);
    this.shared = shared;
    this.#floor = floor ?? Math.floor(Date.now() / 1000) + TOKEN_AHEAD;
  }

  look(reservation: Reservation, now: number): Reserved {
    return this.lookStep(reservation, NOTHING, now);
  }

  lookStep(reservation: Reservation, marked: Marked, now: number): Reserved {
    this.#forget(now);
    const { id, issuedAt, tokenId, leeway, debits } = reservation;
    if (issuedAt <= this.#floor || now - leeway < this.#forgotten - KEPT) return "unavailable";
    const isSet = ({ bucket }: Mark): boolean => this.#buckets.has(bucket);
    const forbidden = closedBy(marked, isSet);
    if (forbidden >= 0) return { forbidden, set: marked.rules[forbidden]!.after.filter(isSet) };
    const fresh = marked.marks.filter((mark) => mark.tree && !isSet(mark));
    let left = TREE - (this.#trees.get(tokenId) ?? 0) - fresh.length;
    if (fresh.length && left < 0) return { short: fresh[0]!.link! };
    if (this.#open.has(hex(id))) return "reserved";
    const taken = new Map<string, number>();
    for (const debit of debits) {
      if (debit.amount < 0) return "unavailable";
      const name = nameOf(debit);
      const before = taken.get(name) ?? this.#buckets.get(name)?.taken;
      if (before === undefined) left -= 1;
      taken.set(name, (before ?? 0) + debit.amount);
      if (left < 0 || taken.get(name)! > debit.limit) return { short: debit.link };
    }
    return "reserved";
  }

  reserve(reservation: Reservation, now: number): Reserved {
    // Under an id that is there nothing is taken a second time, whatever is left (38.8).
    const isKnown = this.#open.has(hex(reservation.id));
    return isKnown ? "reserved" : this.step(reservation, NOTHING, now);
  }

  step(reservation: Reservation, marked: Marked, now: number): Reserved {
    const answer = this.lookStep(reservation, marked, now);
    const isDone = answer === "reserved";
    if (answer === "unavailable" || (!isDone && "short" in answer)) return answer;
    const { id, tokenId, keptUntil, debits } = reservation;
    for (const mark of isDone ? marked.marks : []) this.#bucket(mark.bucket, mark.tree, mark.keptUntil);
    for (const mark of [...marked.marks, ...marked.rules.flatMap(({ after }) => after)]) {
      const bucket = this.#buckets.get(mark.bucket);
      if (bucket) bucket.keptUntil = latest(bucket.keptUntil, mark.keptUntil);
    }
    if (!isDone || this.#open.has(hex(id))) return answer;
    for (const debit of debits) {
      const bucket = this.#bucket(nameOf(debit), tokenId, keptUntil);
      bucket.taken += debit.amount;
      bucket.keptUntil = latest(bucket.keptUntil, keptUntil);
    }
    this.#open.set(hex(id), { debits: handed(debits), tree: tokenId, ends: now + LEASE, closed: false });
    return "reserved";
  }

  #bucket(name: string, tree: string, keptUntil: number | undefined): Bucket {
    let bucket = this.#buckets.get(name);
    if (!bucket) {
      bucket = { taken: 0, keptUntil, tree };
      this.#buckets.set(name, bucket);
      this.#trees.set(tree, (this.#trees.get(tree) ?? 0) + 1);
    }
    return bucket;
  }

  settle(id: Bytes, taken: ReadonlyMap<string, number>, now: number): boolean {
    this.#forget(now);
    const open = this.#open.get(hex(id));
    if (!open || open.closed || now >= open.ends) return false;
    open.closed = true;
    for (const debit of open.debits) {
      const bucket = this.#buckets.get(nameOf(debit));
      const spent = Math.min(debit.amount, Math.max(0, taken.get(debit.unit) ?? 0));
      if (bucket) bucket.taken -= debit.amount - spent;
    }
    return true;
  }

  #forget(now: number): void {
    if (now <= this.#looked) return;
    this.#looked = now;
    for (const [id, { ends }] of this.#open) if (now >= ends + KEPT) this.#open.delete(id);
    for (const [name, { keptUntil, tree }] of this.#buckets) {
      if (keptUntil === undefined || now < keptUntil + KEPT) continue;
      this.#buckets.delete(name);
      this.#trees.set(tree, this.#trees.get(tree)! - 1);
      this.#forgotten = Math.max(this.#forgotten, keptUntil + KEPT);
    }
  }
}

const latest = (one: number | undefined, two: number | undefined): number | undefined =>
  one === undefined || two === undefined ? undefined : Math.max(one, two);
