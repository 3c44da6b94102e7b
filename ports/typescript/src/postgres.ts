/**
 * Used proofs, counts and snapshots in a PostgreSQL database: for servers on many machines.
 *
 * A call is one function of the database: one transaction, one round trip. The functions are those
 * of captoken for Python, word for word, so servers of both languages count in one schema. Whoever
 * uses the stores hands in the client: nothing here imports one.
 */

import { hex, text, unhex, type Bytes } from "./format/bytes.js";
import { CaptokenError, UsageError } from "./format/errors.js";
import { settings } from "./format/given.js";
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
import { CLOCKS_DIFFER, CONSENT_GONE, GONE, LEASE, PROOF_AHEAD } from "./remote/figures.js";
import { ASKED, SETUP, VERSION } from "./remote/sql.js";
import type { Added, Ledger, ReplayStore, Reservation, Reserved, Step, Use } from "./stores.js";

/**
 * What runs a statement by itself, committed when it is done: a `Pool` of `pg` is one as it is. Not
 * a connection in a transaction, which may still be rolled back.
 */
export interface PostgresClient {
  query(statement: string, values?: (string | null)[]): Promise<{ rows: unknown[] }>;
}

interface Placed {
  /** The schema that has the tables: "captoken" if not said. */
  readonly schema?: string;
  /** True: no failover and no restored backup sets the database back. */
  readonly lossless?: boolean;
  /** In place of the server's clock: for tests. */
  readonly clock?: Clock;
}

export type PostgresReplayOptions = Placed;

export interface PostgresLedgerOptions extends Placed {
  /** True: all servers that take these tokens count in this schema (38.6). */
  readonly shared?: boolean;
}

type Asked = keyof typeof ASKED;
type Value = string | number | null | undefined;

const SERVER = "PostgreSQL";
const UNMADE = "createTables makes what is missing, and `captoken upgrade` brings on what is older";

// What to look at, by what the server says.
const HINTS: Readonly<Record<string, string>> = {
  "3F000": UNMADE,
  "42P01": UNMADE,
  "42883": UNMADE,
  "42703": "its tables are of another release: run createTables",
  CT004: "its tables are of another version: run `captoken upgrade`",
  "42501": "its login lacks a right on the schema or its tables",
  "53300": "the server has no connection left",
  "55P03": "another call holds what this one waits for",
};

const stateOf = (error: unknown): string | undefined => {
  const { code } = Object(error) as { code?: unknown };
  return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
};

/** What is wrong, without what a connection string or a row says. */
function told(error: unknown): CaptokenError {
  if (error instanceof CaptokenError) return error;
  const state = stateOf(error);
  if (state === "CT002") return missing(SERVER);
  if (!state) return storeError(`${SERVER}: the server cannot be reached, or has hung up`);
  if (state === "P0001" && /read committed/.test((error as Error).message)) {
    return storeError(`${SERVER}: default_transaction_isolation must be read committed for this login`);
  }
  return storeError(`${SERVER}: ${state}${HINTS[state] ? `: ${HINTS[state]}` : ""}`);
}

/** Raises UsageError for a schema that would need quotes: its name stands in the statements. */
function checkedSchema(schema: string): string {
  if (typeof schema !== "string" || !/^[a-z_][a-z0-9_]{0,62}$/.test(schema) || /^pg_/.test(schema)) {
    throw new UsageError("the name of a schema has lower-case letters, digits and _ alone");
  }
  return schema;
}

/**
 * The statements that make tables and functions, for whoever may run them. Again, they change
 * nothing.
 */
export function setup(schema = "captoken"): string {
  const name = checkedSchema(schema);
  return SETUP.replace(/\bcaptoken\.|(?<=exists )captoken\b/g, (found) => found.replace("captoken", name));
}

/**
 * Makes the tables and functions that are not there. Run by their owner, on one connection: a store
 * needs usage of the schema, and select, insert, update and delete on its tables.
 */
export async function createTables(
  client: PostgresClient,
  given: Pick<Placed, "schema"> = {},
): Promise<void> {
  const { schema } = settings(given, /^schema$/);
  // One text is one transaction: the turn ends with it.
  const turn = "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('captoken'));\n";
  try {
    await client.query(turn + setup(schema));
  } catch (error) {
    throw told(error);
  }
}

/** Every parameter goes as text, and every answer comes as text, whatever the client makes of types. */
function statementOf(asked: Asked, schema: string): string {
  const named = ASKED[asked]
    .replaceAll('"captoken".', `"${schema}".`)
    .replace(/\$\d+::/g, "$&pg_catalog.text::");
  if (asked === "opening") return `select pg_catalog.array_to_string((${named}), ',', '-') as answer`;
  if (asked === "load") return `select pg_catalog.encode((${named}), 'hex') as answer`;
  if (!asked.endsWith("tep")) return `select (${named})::pg_catalog.text as answer`;
  const called = named.replace(/^select /, "");
  return (
    "select pg_catalog.string_agg(pg_catalog.encode(its.said, 'hex'), ',' order by its.at) as answer " +
    `from pg_catalog.unnest(${called}) with ordinality as its (said, at)`
  );
}

const STATEMENTS = new Map<string, string>();

async function query(
  client: PostgresClient,
  schema: string,
  asked: Asked,
  values: readonly Value[],
): Promise<string | undefined> {
  const key = `${schema} ${asked}`;
  const statement = STATEMENTS.get(key) ?? statementOf(asked, schema);
  STATEMENTS.set(key, statement);
  const given = values.map((value) => (value === undefined || value === null ? null : String(value)));
  const { rows } = await client.query(statement, given);
  const [answer] = Object.values(Object(rows[0]) as object) as unknown[];
  if (answer === null) return undefined;
  if (typeof answer !== "string") throw noAnswer(SERVER);
  return answer;
}

const array = (written: readonly Value[]): string => `{${written.join(",")}}`;
const quoted = (given: string): string => `"${given.replace(/[\\"]/g, "\\$&")}"`;
/** In an array, where a backslash is written twice. */
const listed = (spelled: string): string => `"\\\\x${spelled}"`;

const seconds: Clock = () => Date.now() / 1000;

/** A store with a floor: where it lies, and how it is made or opened. */
class Place {
  readonly #client: PostgresClient;
  readonly #schema: string;
  readonly #kind: string;
  readonly #ahead: number;
  readonly #clock: Clock | undefined;
  /** The start of the server that was seen last: none yet. Undefined, where it does not matter. */
  #seen: string | undefined;
  /** What it is to be made with; otherwise it is opened. */
  making: Making | undefined;
  #opened: Promise<void> | undefined;

  constructor(
    client: PostgresClient,
    { schema = "captoken", lossless = false, clock }: Placed,
    [kind, ahead]: readonly [string, number],
  ) {
    if (typeof (Object(client) as { query?: unknown }).query !== "function") {
      throw new UsageError("a client has a method `query`");
    }
    this.#client = client;
    this.#schema = checkedSchema(schema);
    [this.#kind, this.#ahead, this.#clock] = [kind, ahead, clock];
    this.#seen = lossless ? undefined : "";
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
    const said = await this.#query("opening", ["{stores}"]);
    const [isSynced, isEncoded, version = "-"] = said?.split(",") ?? [];
    if (isSynced !== "1") {
      throw storeError(`${SERVER}: with fsync off, a crash loses the last writes, or the tables: set fsync = on`);
    }
    if (isEncoded !== "1") throw storeError(`${SERVER}: the encoding SQL_ASCII does not define what a text is`);
    if (version === "-") throw storeError(`${SERVER}: ${UNMADE}`);
    checkVersion(SERVER, "stores", wholeOf(version, SERVER), VERSION);
    const { making } = this;
    if (making) {
      const keys = array((making.keys ?? []).map(quoted));
      const made = await this.#query("make", [...this.#what(), ...this.#floor(), making.floor, keys]);
      if (!isYes(made)) throw thereAlready(SERVER);
      this.making = undefined;
    }
    await this.#meet();
  }

  /** Which server it is by now: where that is another one, the floor rises. */
  async #meet(): Promise<void> {
    const run = await this.#query("meet", [...this.#what(), ...this.#floor()]);
    if (run === undefined) {
      throw storeError(`${SERVER}: a table of its schema is unlogged, and a crash empties it: set it logged`);
    }
    if (this.#seen !== undefined) this.#seen = run;
  }

  #what(): Value[] {
    return [this.#kind, Math.floor((this.#clock ?? seconds)())];
  }

  #floor(): Value[] {
    return [this.#ahead, this.#clock && Math.floor(this.#clock()), this.#seen];
  }

  #query(asked: Asked, values: readonly Value[]): Promise<string | undefined> {
    return query(this.#client, this.#schema, asked, values);
  }

  /** What a function says, once the store is open; behind the values go the facts of the floor. */
  async ask(asked: Asked, values: readonly Value[], isFloored = true): Promise<string | undefined> {
    await this.open();
    const again = (): Promise<string | undefined> =>
      this.#query(asked, isFloored ? [...values, ...this.#floor()] : values);
    try {
      return await again().catch(async (error: unknown) => {
        // It was started, or is another one: nothing was done, and the store looks first.
        if (stateOf(error) !== "CT003") throw error;
        await this.#meet();
        return again();
      });
    } catch (error) {
      throw told(error);
    }
  }
}

function isYes(answer: string | undefined): boolean {
  if (answer !== "true" && answer !== "false") throw noAnswer(SERVER);
  return answer === "true";
}

/**
 * Used proofs, as many as the disk holds. The database keeps the floor: a store that is new, and one
 * that was set back, refuse what was issued up to five seconds later. It promises: ask
 * `checkAsync`.
 */
export class PostgresReplayStore implements ReplayStore {
  readonly #place: Place;

  constructor(client: PostgresClient, given: PostgresReplayOptions = {}) {
    this.#place = new Place(client, settings(given, /^(schema|lossless|clock)$/), ["replay", PROOF_AHEAD]);
  }

  /** Make it in the tables, and open it. Rejects with CaptokenError `store` where there is one. */
  static async create(
    client: PostgresClient,
    given: PostgresReplayOptions & Making = {},
  ): Promise<PostgresReplayStore> {
    const { making, rest } = makingOf<PostgresReplayOptions>(given);
    const store = new PostgresReplayStore(client, rest);
    store.#place.making = making;
    return store.open();
  }

  /** Is it there, and will the server do? At the start of a program, so that it is known then. */
  async open(): Promise<this> {
    await this.#place.open();
    return this;
  }

  add(use: Use, now: number): Promise<Added> {
    return this.#added("add", use, now);
  }

  look(use: Use, now: number): Promise<Added> {
    return this.#added("peekAdd", use, now);
  }

  spend(use: Use, now: number): Promise<Added> {
    return this.#added("spend", use, now, CONSENT_GONE);
  }

  lookSpend(use: Use, now: number): Promise<Added> {
    return this.#added("peekSpend", use, now, CONSENT_GONE);
  }

  async #added(asked: Asked, { entry, issuedAt, kid }: Use, now: number, gone = GONE): Promise<Added> {
    const answer = await this.#place.ask(asked, [`\\x${hex(entry)}`, issuedAt, kid, now, now + gone]);
    return isYes(answer) ? "added" : "replayed";
  }
}

/**
 * Counts, and marks. The database keeps the floor: it rises when a failover or a restored backup has
 * set the database back. It promises: ask `checkAsync`.
 */
export class PostgresLedger implements Ledger {
  readonly shared: boolean;
  readonly #place: Place;

  constructor(client: PostgresClient, given: PostgresLedgerOptions = {}) {
    const { shared = false, ...placed } = settings(given, /^(schema|lossless|clock|shared)$/);
    this.shared = shared;
    this.#place = new Place(client, placed, ["ledger", CLOCKS_DIFFER]);
  }

  /** Make it in the tables, and open it. Rejects with CaptokenError `store` where there is one. */
  static async create(
    client: PostgresClient,
    given: PostgresLedgerOptions & Making = {},
  ): Promise<PostgresLedger> {
    const { making, rest } = makingOf<PostgresLedgerOptions>(given);
    const store = new PostgresLedger(client, rest);
    store.#place.making = making;
    return store.open();
  }

  /** Is it there, and will the server do? At the start of a program, so that it is known then. */
  async open(): Promise<this> {
    await this.#place.open();
    return this;
  }

  reserve(reservation: Reservation, now: number): Promise<Reserved> {
    return this.#reserved("reserve", reservation, now);
  }

  look(reservation: Reservation, now: number): Promise<Reserved> {
    return this.#reserved("peekReserve", reservation, now);
  }

  step(reservation: Reservation, step: Step, now: number): Promise<Reserved> {
    return this.#stepped("step", reservation, step, now);
  }

  lookStep(reservation: Reservation, step: Step, now: number): Promise<Reserved> {
    return this.#stepped("peekStep", reservation, step, now);
  }

  async settle(id: Bytes, taken: ReadonlyMap<string, number>, now: number): Promise<boolean> {
    const units = array([...taken.keys()].map(quoted));
    const amounts = array([...taken.values()].map((amount) => Math.max(0, amount)));
    return isYes(await this.#place.ask("settle", [`\\x${hex(id)}`, units, amounts, now], false));
  }

  async #reserved(asked: Asked, reservation: Reservation, now: number): Promise<Reserved> {
    const { issuedAt, tokenId, leeway, kid } = reservation;
    const ends = [now + LEASE, keptUntil(reservation.keptUntil)];
    const values = [...debitsOf(reservation), issuedAt, ...ends, tokenId, leeway, kid, now];
    return reservedBy(SERVER, wholeOf(await this.#place.ask(asked, values), SERVER), reservation);
  }

  async #stepped(asked: Asked, reservation: Reservation, step: Step, now: number): Promise<Reserved> {
    const { issuedAt, tokenId, leeway, kid } = reservation;
    const all = numbered(step);
    const marks = [
      array(all.marks.map(({ bucket }) => listed(hexOf(bucket)))),
      array(all.marks.map((mark) => keptUntil(mark.keptUntil) ?? "null")),
      array(all.marks.map(({ tree }) => (tree ? "t" : "f"))),
      all.own,
      array(all.rules.map((numbers) => quoted(numbers.join(" ")))),
      `\\x${hex(new TextEncoder().encode(saidOf(step)))}`,
    ];
    const ends = [now + LEASE, keptUntil(reservation.keptUntil)];
    const values = [...debitsOf(reservation), ...ends, ...marks, issuedAt, tokenId, leeway, kid, now];
    const answer = await this.#place.ask(asked, values);
    const parts = answer?.split(",").map((part) => text(unhex(part)) ?? "?");
    return steppedBy(SERVER, parts ?? [], reservation, step, all);
  }
}

/** The id of a reservation, and its debits as a column each, in one order. */
const debitsOf = ({ id, debits }: Reservation): string[] => [
  `\\x${hex(id)}`,
  array(debits.map(({ bucket }) => listed(hexOf(bucket)))),
  array(debits.map(({ unit }) => quoted(unit))),
  array(debits.map(({ limit }) => limit)),
  array(debits.map(({ amount }) => amount)),
];

/**
 * Where snapshots of the overlay come from that an operator publishes to the database, by captoken
 * for Python: for `OverlayPoller`.
 */
export function snapshots(
  client: PostgresClient,
  given: Pick<Placed, "schema"> = {},
): () => Promise<Bytes | undefined> {
  const { schema = "captoken" } = settings(given, /^schema$/);
  const name = checkedSchema(schema);
  return async () => {
    try {
      const answer = await query(client, name, "load", []);
      return answer === undefined ? undefined : unhex(answer);
    } catch (error) {
      throw told(error);
    }
  };
}
