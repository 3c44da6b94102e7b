/**
 * What a verifier commits: the one use of a proof, and what an access takes (spec, "Replay",
 * "Ledger").
 *
 * Both stores here are memory of one process. Servers that share an audience share a store: write
 * one with the face of these.
 */

import { hex, type Bytes } from "./format/bytes.js";
import { atLeast } from "./format/given.js";
import { handed } from "./format/handed.js";

export interface Use {
  /** 16 bytes, from the key and the nonce. */
  readonly entry: Bytes;
  readonly issuedAt: number;
}

/** What a store of uses answers. */
export type Added = "added" | "replayed" | "full";

/** An answer, or the promise of one: a store that promises is for `checkAsync` and its like. */
export type Answer<T> = T | PromiseLike<T>;

/** Used proofs. What it raises, or any answer but these, is `store_unavailable`. */
export interface ReplayStore {
  /** Adds a use if it is absent, in one atomic step. */
  add(use: Use, now: number): Answer<Added>;
  /** What `add` would say. Commits nothing. */
  look(use: Use, now: number): Answer<Added>;
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
}

/** What a reservation came to: the link of the first bucket that has not enough left. */
export type Reserved = "reserved" | "unavailable" | { readonly short: number };

/** What counts, for all holders below a link. What it raises is `store_unavailable`. */
export interface Ledger {
  /** Do all servers that take a token count in it (38.6)? */
  readonly shared: boolean;
  reserve(reservation: Reservation, now: number): Answer<Reserved>;
  /** What `reserve` would say. Commits nothing. */
  look(reservation: Reservation, now: number): Answer<Reserved>;
  /** What was taken in fact, the rest goes back. False: too late, or closed already. */
  settle(id: Bytes, taken: ReadonlyMap<string, number>, now: number): Answer<boolean>;
}

const PROOF_LIVES = 30;
const PROOF_AHEAD = 5;
const TOKEN_AHEAD = 60;
const LEASE = 60;
const KEPT = 3600;
const TREE = 10_000;

/** Used proofs, in memory: a process that starts anew refuses what was made before (31.3). */
export class MemoryReplayStore implements ReplayStore {
  readonly #uses = new Map<string, number>();
  readonly #limit: number;
  #floor: number;
  /** When it was last looked for what may be forgotten: once a second will do. */
  #looked = -Infinity;

  constructor({
    floor,
    limit = 100_000,
  }: { floor?: number | undefined; limit?: number | undefined } = {}) {
    this.#floor = floor ?? Math.floor(Date.now() / 1000) + PROOF_AHEAD;
    this.#limit = atLeast(limit, 0, "limit");
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
      if (issuedAt >= now - PROOF_LIVES) continue;
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

  constructor({
    shared = false,
    floor,
  }: { shared?: boolean | undefined; floor?: number | undefined } = {}) {
    this.shared = shared;
    this.#floor = floor ?? Math.floor(Date.now() / 1000) + TOKEN_AHEAD;
  }

  look(reservation: Reservation, now: number): Reserved {
    this.#forget(now);
    const { issuedAt, tokenId, leeway, debits } = reservation;
    if (issuedAt <= this.#floor || now - leeway < this.#forgotten - KEPT) return "unavailable";
    let left = TREE - (this.#trees.get(tokenId) ?? 0);
    for (const debit of debits) {
      if (debit.amount < 0) return "unavailable";
      const bucket = this.#buckets.get(nameOf(debit));
      if (!bucket) left -= 1;
      if (left < 0 || (bucket?.taken ?? 0) + debit.amount > debit.limit) {
        return { short: debit.link };
      }
    }
    return "reserved";
  }

  reserve(reservation: Reservation, now: number): Reserved {
    const { id, tokenId, keptUntil, debits } = reservation;
    if (this.#open.has(hex(id))) return "reserved";
    const answer = this.look(reservation, now);
    if (answer !== "reserved") return answer;
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
