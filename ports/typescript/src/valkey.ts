/**
 * Used proofs, counts and snapshots on a Valkey or Redis server: for servers on many machines.
 *
 * A call is one script: one atomic step, one round trip. The scripts are those of captoken for
 * Python, word for word, so servers of both languages count in one place. Whoever uses the stores
 * hands in the client: nothing here imports one.
 */

import { hex, type Bytes } from "./format/bytes.js";
import { CaptokenError, UsageError } from "./format/errors.js";
import { atLeast, settings } from "./format/given.js";
import {
  checkVersion,
  hexOf,
  keptUntil,
  makingOf,
  missing,
  noAnswer,
  numbered,
  reservedBy,
  saidOf,
  steppedBy,
  storeError,
  thereAlready,
  wholeOf,
  type Clock,
  type Making,
} from "./remote/answers.js";
import { CLOCKS_DIFFER, CONSENT_GONE, GONE, KEPT, LEASE, MISSING, MOST_BUCKETS, PROOF_AHEAD } from "./remote/figures.js";
import {
  ADD,
  LEDGER_VERSION,
  LOAD,
  LOOK,
  MAKE,
  REPLAY_VERSION,
  RESERVE,
  SETTLE,
  SPEND,
  STEP,
  type Script,
} from "./remote/lua.js";
import type { Added, Ledger, ReplayStore, Reservation, Reserved, Step, Use } from "./stores.js";

/**
 * What sends a command and gives the answer: by `call` or by `sendCommand`. Clients of `ioredis`,
 * `iovalkey` and `redis` are that as they are. Bytes are Buffers, and must arrive as they are.
 */
export type ValkeyClient =
  | { call(command: string, words: (string | number | Uint8Array)[]): Promise<unknown> }
  | { sendCommand(words: readonly (string | Uint8Array)[]): Promise<unknown> };

type Word = string | Uint8Array;

const send = (client: ValkeyClient, command: string, words: Word[]): Promise<unknown> =>
  "call" in client ? client.call(command, words) : client.sendCommand([command, ...words]);

interface Placed {
  /** What the keys of the store begin with: "captoken" if not said. */
  readonly prefix?: string;
  /** True: neither a restart nor a failover loses what was answered. */
  readonly lossless?: boolean;
  /** In place of the server's clock: for tests. */
  readonly clock?: Clock;
}

export interface ValkeyReplayOptions extends Placed {
  /** How many uses of the last half minute it holds: 1,000,000 if not said. More are refused. */
  readonly limit?: number;
}

export interface ValkeyLedgerOptions extends Placed {
  /** True: all servers that take these tokens count under this prefix (38.6). */
  readonly shared?: boolean;
}

const SERVER = "Valkey";
const SLACK = 60; // seconds that the key of a reservation outlives it
const ANOTHER = -1000; // below it a script says another version

const HINTS: Readonly<Record<string, string>> = {
  OOM: "its memory is full",
  READONLY: "it is a replica, and a store needs the primary",
  NOPERM: "its user may not do this",
};

/** What is wrong, without what an address or a key says. */
function told(error: unknown): CaptokenError {
  if (error instanceof CaptokenError) return error;
  const text = error instanceof Error ? error.message : "";
  const own = /captoken: ([a-z_ ]+)/.exec(text)?.[1];
  if (own?.startsWith("damaged")) {
    return storeError(`${SERVER}: a key of this store holds what no store wrote: choose another prefix`);
  }
  if (own?.startsWith("evicts")) {
    return storeError(`${SERVER}: it has evicted keys, and may evict more: set maxmemory-policy to noeviction`);
  }
  if (own?.startsWith("no run_id")) {
    return storeError(`${SERVER}: it does not say which server it is: let the login ask (+info), or say lossless`);
  }
  const code = codeOf(error);
  if (!code) return storeError(`${SERVER}: the server cannot be reached, or has hung up`);
  return storeError(`${SERVER}: ${code}${HINTS[code] ? `: ${HINTS[code]}` : ""}`);
}

/** The code that an answer of the server begins with, if the error is one. */
const codeOf = (error: unknown): string | undefined =>
  error instanceof Error ? /^([A-Z]{3,}) /.exec(error.message)?.[1] : undefined;

/** Some clients make text of bytes that are no Buffer. */
function word(bytes: Bytes): Word {
  const { Buffer } = globalThis as { Buffer?: { from(bytes: Bytes): Bytes } };
  return Buffer ? Buffer.from(bytes) : bytes;
}

/** A store with a floor: where its keys lie, and how it is made or opened. */
class Place {
  readonly prefix: string;
  readonly #client: ValkeyClient;
  readonly #kind: string;
  readonly #version: number;
  readonly #ahead: number;
  readonly #lossless: boolean;
  readonly #clock: Clock | undefined;
  /** What it is to be made with; otherwise it is opened. */
  making: Making | undefined;
  #opened: Promise<void> | undefined;

  constructor(
    client: ValkeyClient,
    { prefix = "captoken", lossless = false, clock }: Placed,
    [kind, version, ahead]: readonly [string, number, number],
  ) {
    this.prefix = prefixOf(client, prefix);
    this.#client = client;
    [this.#kind, this.#version, this.#ahead] = [kind, version, ahead];
    [this.#lossless, this.#clock] = [lossless, clock];
  }

  /** The key of the floor. */
  get state(): string {
    return this.prefix + this.#kind;
  }

  /** What each script is given of the floor. */
  facts(): string[] {
    const clock = this.#clock ? String(Math.floor(this.#clock())) : "";
    return [String(this.#ahead), clock, this.#lossless ? "0" : "1"];
  }

  /** Make it or open it: once, unless that failed. */
  open(): Promise<void> {
    this.#opened ??= this.#begin().catch((error: unknown) => {
      this.#opened = undefined;
      throw told(error);
    });
    return this.#opened;
  }

  async #begin(): Promise<void> {
    await checkServer(this.#client);
    const now = String(Math.floor((this.#clock ?? seconds)()));
    const keys = [this.state, `${this.prefix}schema`];
    const words = [...this.facts(), now, this.#kind, String(this.#version)];
    const { making } = this;
    if (making) {
      const { keys: along = [], floor } = making;
      words.push(String(floor ?? ""), `${along.map((key) => `,${key}`).join("")},`);
    }
    const answer = wholeOf(await run(this.#client, making ? MAKE : LOOK, keys, words), SERVER);
    if (answer === MISSING) throw missing(SERVER);
    if (answer < ANOTHER) checkVersion(SERVER, this.#kind, ANOTHER - answer, this.#version);
    if (answer === 0) throw thereAlready(SERVER);
    this.making = undefined;
  }

  /** What a script says, once the store is open. */
  async ask(script: Script, keys: readonly string[], words: readonly Word[]): Promise<unknown> {
    await this.open();
    try {
      return await run(this.#client, script, keys, words);
    } catch (error) {
      throw told(error);
    }
  }
}

const seconds: Clock = () => Date.now() / 1000;

/** Where the keys begin: all in one slot of a cluster. */
function prefixOf(client: ValkeyClient, prefix: string): string {
  const { call, sendCommand } = Object(client) as { call?: unknown; sendCommand?: unknown };
  if (typeof (call ?? sendCommand) !== "function") throw new UsageError("a client has `call` or `sendCommand`");
  if (typeof prefix !== "string" || !/^[!-z|~]+$/.test(prefix)) {
    throw new UsageError("a prefix is visible ASCII without braces");
  }
  return `{${prefix}}:`;
}

/** By its digest; a server that does not know it is given the text. */
async function run(
  client: ValkeyClient,
  { digest, text }: Script,
  keys: readonly string[],
  words: readonly Word[],
): Promise<unknown> {
  const rest = [String(keys.length), ...keys, ...words];
  try {
    return await send(client, "EVALSHA", [digest, ...rest]);
  } catch (error) {
    if (codeOf(error) !== "NOSCRIPT") throw error;
    return send(client, "EVAL", [text, ...rest]);
  }
}

/** Refuses a server that forgets what counts: one that evicts, or that a crash sets back. */
async function checkServer(client: ValkeyClient): Promise<void> {
  const memory = await info(client, "memory");
  const policy = memory("maxmemory_policy");
  if (policy !== undefined && policy !== "noeviction") {
    throw storeError(`${SERVER}: maxmemory-policy is ${policy}, which deletes counts: set it to noeviction`);
  }
  const saves = await asked(client, "CONFIG", ["GET", "save"]);
  const save = Array.isArray(saves) ? saves[1] : (Object(saves) as { save?: unknown }).save;
  const log = (await info(client, "persistence"))("aof_enabled");
  if (log === "0" && save) {
    throw storeError(
      `${SERVER}: with RDB snapshots only, a crash loses the last writes: set appendonly yes, or turn save off`,
    );
  }
}

async function info(client: ValkeyClient, section: string): Promise<(name: string) => string | undefined> {
  const said = String((await asked(client, "INFO", [section])) ?? "");
  return (name) => new RegExp(`^${name}:([\\w-]+)`, "m").exec(said)?.[1];
}

/** Many a hosted server refuses to tell: that is no reason not to use it. */
async function asked(client: ValkeyClient, command: string, words: Word[]): Promise<unknown> {
  try {
    return await send(client, command, words);
  } catch (error) {
    if (codeOf(error)) return undefined;
    throw error;
  }
}

/**
 * Used proofs. The server keeps the floor: a store that is new, and one that was restarted, refuse
 * what was issued up to five seconds later. It promises: ask `checkAsync`.
 */
export class ValkeyReplayStore implements ReplayStore {
  readonly #place: Place;
  readonly #limit: number;

  constructor(client: ValkeyClient, given: ValkeyReplayOptions = {}) {
    const { limit = 1_000_000, ...placed } = settings(given, /^(prefix|lossless|clock|limit)$/);
    this.#place = new Place(client, placed, ["replay", REPLAY_VERSION, PROOF_AHEAD]);
    this.#limit = atLeast(limit, 0, "limit");
  }

  /** Make it on the server, and open it. Rejects with CaptokenError `store` where there is one. */
  static async create(
    client: ValkeyClient,
    given: ValkeyReplayOptions & Making = {},
  ): Promise<ValkeyReplayStore> {
    const { making, rest } = makingOf<ValkeyReplayOptions>(given);
    const store = new ValkeyReplayStore(client, rest);
    store.#place.making = making;
    return store.open();
  }

  /** Is it there, and will the server do? At the start of a program, so that it is known then. */
  async open(): Promise<this> {
    await this.#place.open();
    return this;
  }

  add(use: Use, now: number): Promise<Added> {
    return this.#added(use, now, "0");
  }

  look(use: Use, now: number): Promise<Added> {
    return this.#added(use, now, "1");
  }

  spend(use: Use, now: number): Promise<Added> {
    return this.#spent(use, now, "0");
  }

  lookSpend(use: Use, now: number): Promise<Added> {
    return this.#spent(use, now, "1");
  }

  #added(use: Use, now: number, peek: string): Promise<Added> {
    const { state, prefix } = this.#place;
    return this.#asked(ADD, [state, `${prefix}proofs`], use, [now, GONE], [peek, use.kid]);
  }

  /** No key is spared the floor. */
  #spent(use: Use, now: number, peek: string): Promise<Added> {
    const { state, prefix } = this.#place;
    const keys = [`${prefix}spent`, `${prefix}consents`, state];
    return this.#asked(SPEND, keys, use, [now, CONSENT_GONE], [peek, ""]);
  }

  async #asked(
    script: Script,
    keys: string[],
    { entry, issuedAt }: Use,
    [now, gone]: readonly [number, number],
    more: readonly string[],
  ): Promise<Added> {
    const place = this.#place;
    const words = [now, issuedAt, now + gone].map(String);
    const rest = [String(this.#limit), ...more];
    const answer = wholeOf(await place.ask(script, keys, [...place.facts(), ...words, word(entry), ...rest]), SERVER);
    if (answer === MISSING) throw missing(SERVER);
    const said = ({ "1": "added", "0": "replayed", "-1": "full", "-2": "full" } as const)[String(answer)];
    if (!said) throw noAnswer(SERVER);
    return said;
  }
}

/**
 * Counts, and marks. The server keeps the floor: it rises when the data were lost, and with each
 * other server that may have lost the last second. It promises: ask `checkAsync`.
 */
export class ValkeyLedger implements Ledger {
  readonly shared: boolean;
  readonly #place: Place;

  constructor(client: ValkeyClient, given: ValkeyLedgerOptions = {}) {
    const { shared = false, ...placed } = settings(given, /^(prefix|lossless|clock|shared)$/);
    this.shared = shared;
    this.#place = new Place(client, placed, ["ledger", LEDGER_VERSION, CLOCKS_DIFFER]);
  }

  /** Make it on the server, and open it. Rejects with CaptokenError `store` where there is one. */
  static async create(
    client: ValkeyClient,
    given: ValkeyLedgerOptions & Making = {},
  ): Promise<ValkeyLedger> {
    const { making, rest } = makingOf<ValkeyLedgerOptions>(given);
    const store = new ValkeyLedger(client, rest);
    store.#place.making = making;
    return store.open();
  }

  /** Is it there, and will the server do? At the start of a program, so that it is known then. */
  async open(): Promise<this> {
    await this.#place.open();
    return this;
  }

  reserve(reservation: Reservation, now: number): Promise<Reserved> {
    return this.#reserved(reservation, now, "0");
  }

  look(reservation: Reservation, now: number): Promise<Reserved> {
    return this.#reserved(reservation, now, "1");
  }

  step(reservation: Reservation, step: Step, now: number): Promise<Reserved> {
    return this.#stepped(reservation, step, now, "0");
  }

  lookStep(reservation: Reservation, step: Step, now: number): Promise<Reserved> {
    return this.#stepped(reservation, step, now, "1");
  }

  async settle(id: Bytes, taken: ReadonlyMap<string, number>, now: number): Promise<boolean> {
    const amounts = [...taken].flatMap(([unit, amount]) => [unit, String(Math.max(0, amount))]);
    const answer = await this.#place.ask(SETTLE, [this.#reservation(id)], [String(now), this.#buckets, "", ...amounts]);
    return wholeOf(answer, SERVER) === 1;
  }

  async #reserved(reservation: Reservation, now: number, peek: string): Promise<Reserved> {
    const [keys, words] = this.#asked(reservation, now, peek);
    this.#addDebits(reservation, keys, words);
    return reservedBy(SERVER, wholeOf(await this.#place.ask(RESERVE, keys, words), SERVER), reservation);
  }

  async #stepped(reservation: Reservation, step: Step, now: number, peek: string): Promise<Reserved> {
    const [keys, words] = this.#asked(reservation, now, peek);
    const all = numbered(step);
    const rules = all.rules.map((numbers) => numbers.join(" ")).join(",");
    words.push(String(all.own), String(all.marks.length), saidOf(step), rules);
    for (const { bucket, keptUntil: end, tree } of all.marks) {
      keys.push(`${this.#buckets}${hexOf(bucket)}:marks`);
      words.push(scoreOf(end), tree ? "1" : "0");
    }
    this.#addDebits(reservation, keys, words);
    const answer = await this.#place.ask(STEP, keys, words);
    const parts = Array.isArray(answer) ? answer.map(String) : [String(wholeOf(answer, SERVER))];
    return steppedBy(SERVER, parts, reservation, step, all);
  }

  get #buckets(): string {
    return `${this.#place.prefix}spent:`;
  }

  #reservation(id: Bytes): string {
    return `${this.#place.prefix}reserved:${hex(id)}`;
  }

  /** What both scripts are given before marks and debits. */
  #asked(reservation: Reservation, now: number, peek: string): [string[], string[]] {
    const { id, tokenId, issuedAt, leeway, kid } = reservation;
    const place = this.#place;
    const keys = [place.state, this.#reservation(id), `${place.prefix}kept`, `${place.prefix}tree:${tokenId}`];
    const words = [now, issuedAt, now + LEASE, LEASE + SLACK, scoreOf(reservation.keptUntil)];
    const rest = [this.#buckets, KEPT, peek, MOST_BUCKETS, leeway, kid];
    return [keys, [...place.facts(), ...[...words, ...rest].map(String)]];
  }

  #addDebits({ debits }: Reservation, keys: string[], words: string[]): void {
    for (const { bucket, unit, limit, amount } of debits) {
      keys.push(`${this.#buckets}${hexOf(bucket)}:${unit}`);
      words.push(String(limit), String(amount));
    }
  }
}

/** Until when a bucket is kept, as a sorted set has it. */
const scoreOf = (end: number | undefined): string => String(keptUntil(end) ?? "+inf");

/**
 * Where snapshots of the overlay come from that an operator publishes to the server, by captoken for
 * Python: for `OverlayPoller`.
 */
export function snapshots(
  client: ValkeyClient,
  given: Pick<Placed, "prefix"> = {},
): () => Promise<string | undefined> {
  const { prefix = "captoken" } = settings(given, /^prefix$/);
  const start = prefixOf(client, prefix);
  const keys = ["overlay", "overlay:deltas", "overlay:state", "schema"].map((name) => start + name);
  return async () => {
    try {
      const answer = await run(client, LOAD, keys, []);
      if (answer === MISSING) throw missing(SERVER);
      return answer === null || answer === undefined ? undefined : String(answer);
    } catch (error) {
      throw told(error);
    }
  };
}
