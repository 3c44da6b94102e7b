/**
 * What every store does, in memory and on real servers; and that both languages count, remember and
 * mark in one place.
 */

import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { createClient } from "@redis/client";
import { Redis } from "ioredis";
import { Pool } from "pg";

import {
  HolderKey,
  Issuer,
  Keyring,
  MemoryLedger,
  MemoryReplayStore,
  Verifier,
  type Debit,
  type Ledger,
  type Mark,
  type ReplayStore,
  type Reservation,
  type Step,
} from "../src/index.js";
import { b64encode } from "../src/format/bytes.js";
import { stated } from "../src/language/access.js";
import { OverlayPoller } from "../src/overlay.js";
import {
  PostgresLedger,
  PostgresReplayStore,
  createTables,
  setup,
  snapshots as postgresSnapshots,
  type PostgresClient,
} from "../src/postgres.js";
import { ValkeyLedger, ValkeyReplayStore, snapshots as valkeySnapshots, type ValkeyClient } from "../src/valkey.js";
import { missing, ran } from "./python.js";
import { PARTNERS, Servers } from "./servers.js";

const NOW = 1_800_000_000;
const clock = (): number => NOW;
const FLOOR = { floor: NOW - 1, clock } as const;

const bytes = (number: number, length = 16): Uint8Array => {
  const made = new Uint8Array(length);
  new DataView(made.buffer).setUint32(length - 4, number);
  return made;
};
const bucket = (number: number): string => b64encode(new Uint8Array(16).fill(number));
const [ROOT, CHILD, LEAF] = [bucket(1), bucket(2), bucket(3)];

const debit = (more: Partial<Debit> = {}): Debit => ({ bucket: ROOT, unit: "usd_cents", limit: 10, amount: 1, link: 0, ...more });

const reservation = (number: number, debits: readonly Debit[] = [debit()], more: Partial<Reservation> = {}): Reservation => ({
  id: bytes(number),
  tokenId: "tree",
  issuedAt: NOW,
  debits,
  keptUntil: NOW + 600,
  leeway: 0,
  kid: "k1",
  ...more,
});

const mark = (number: number, more: Partial<Mark> = {}): Mark => ({
  bucket: b64encode(bytes(number, 32)),
  tree: "",
  keptUntil: NOW + 600,
  link: 0,
  name: `m${number}`,
  ...more,
});

const step = (marks: readonly Mark[], rules: readonly (readonly Mark[])[] = []): Step => ({
  marks,
  rules: rules.map((its) => ({ after: its, link: 0 })),
  holder: "clerk",
  access: stated({ tool: "send", arguments: { to: "x", body: "y" }, cost: { usd_cents: 2 } }),
});

const servers = missing(...PARTNERS) ? undefined : await Servers.start();
const redis = servers && new Redis({ port: servers.valkey });
const other = servers && createClient({ socket: { port: servers.valkey, connectTimeout: 60_000 } });
const pool = servers && new Pool({ host: "127.0.0.1", port: servers.postgres, user: "postgres", database: "postgres", max: 8 });

/** A name that nobody has had. */
let made = 0;
const fresh = (): string => `captoken_${(made += 1)}`;

interface Kind {
  readonly ledger: (more?: object) => Promise<Ledger>;
  readonly replays: (more?: object) => Promise<ReplayStore>;
}

const onPostgres = async (schema: string): Promise<PostgresClient> => {
  await createTables(pool!, { schema });
  return pool!;
};

const KINDS: Readonly<Record<string, Kind>> = {
  memory: {
    ledger: async (more) => new MemoryLedger({ floor: FLOOR.floor, ...more }),
    replays: async (more) => new MemoryReplayStore({ floor: FLOOR.floor, ...more }),
  },
  "valkey by ioredis": {
    ledger: (more) => ValkeyLedger.create(redis!, { prefix: fresh(), ...FLOOR, ...more }),
    replays: (more) => ValkeyReplayStore.create(redis!, { prefix: fresh(), ...FLOOR, ...more }),
  },
  "valkey by redis": {
    ledger: (more) => ValkeyLedger.create(other!, { prefix: fresh(), ...FLOOR, ...more }),
    replays: (more) => ValkeyReplayStore.create(other!, { prefix: fresh(), ...FLOOR, ...more }),
  },
  postgres: {
    ledger: async (more) => {
      const schema = fresh();
      return PostgresLedger.create(await onPostgres(schema), { schema, ...FLOOR, ...more });
    },
    replays: async (more) => {
      const schema = fresh();
      return PostgresReplayStore.create(await onPostgres(schema), { schema, ...FLOOR, ...more });
    },
  },
};

before(() => other?.connect());
pool?.on("error", () => undefined); // a server that ends says so on what is idle
after(async () => {
  redis?.disconnect();
  await other?.close();
  await pool?.end();
  await servers?.stop();
});

for (const [name, kind] of Object.entries(KINDS)) {
  const skip = name === "memory" ? false : missing(...PARTNERS);

  describe(`what a ledger does: ${name}`, { skip }, () => {
    test("a bucket gives what it has", async () => {
      const ledger = await kind.ledger();
      for (let at = 0; at < 10; at += 1) assert.equal(await ledger.reserve(reservation(at), NOW), "reserved");
      assert.deepEqual(await ledger.reserve(reservation(10), NOW), { short: 0 });
      assert.deepEqual(await ledger.look(reservation(10), NOW), { short: 0 });
    });

    test("all buckets are debited or none, and the first that is short is named", async () => {
      const ledger = await kind.ledger();
      const debits = [debit({ limit: 30 }), debit({ bucket: CHILD, limit: 20, link: 1 }), debit({ bucket: LEAF, limit: 3, link: 2 })];
      for (let at = 0; at < 3; at += 1) assert.equal(await ledger.reserve(reservation(at, debits), NOW), "reserved");
      assert.deepEqual(await ledger.reserve(reservation(3, debits), NOW), { short: 2 });
      const left = [debit({ amount: 27, limit: 30 }), debit({ bucket: CHILD, limit: 20, amount: 17, link: 1 })];
      assert.equal(await ledger.look(reservation(4, left), NOW), "reserved");
      assert.deepEqual(await ledger.look(reservation(4, [debit({ amount: 28, limit: 30, link: 4 })]), NOW), { short: 4 });
    });

    test("what one access takes twice from a bucket adds up", async () => {
      const ledger = await kind.ledger();
      assert.deepEqual(await ledger.reserve(reservation(1, [debit({ amount: 6 }), debit({ amount: 6, link: 2 })]), NOW), { short: 2 });
      assert.equal(await ledger.reserve(reservation(2, [debit({ amount: 5 }), debit({ amount: 5 })]), NOW), "reserved");
    });

    test("units and links are buckets of their own, and large numbers are counted to the last unit", async () => {
      const ledger = await kind.ledger();
      const units = ["uses", "usd", "usd_cents", "usd.cents", "usd:cents", "x:usd"];
      const most = Number.MAX_SAFE_INTEGER;
      for (const [at, unit] of units.entries()) {
        const all = [ROOT, CHILD].map((one) => debit({ bucket: one, unit, limit: most, amount: most - 1 }));
        assert.equal(await ledger.reserve(reservation(at, all), NOW), "reserved");
        assert.deepEqual(await ledger.reserve(reservation(10 + at, [debit({ unit, limit: most, amount: 2 })]), NOW), { short: 0 });
        assert.equal(await ledger.reserve(reservation(20 + at, [debit({ unit, limit: most })]), NOW), "reserved");
      }
    });

    test("the same reservation is made once, and told as made whatever is left", async () => {
      const ledger = await kind.ledger();
      const all = reservation(1, [debit({ amount: 10 })]);
      for (let at = 0; at < 3; at += 1) assert.equal(await ledger.reserve(all, NOW), "reserved");
      assert.deepEqual(await ledger.reserve(reservation(2), NOW), { short: 0 });
    });

    test("what was not taken goes back, once", async () => {
      const ledger = await kind.ledger();
      const taken: readonly [Record<string, number>, number][] = [
        [{}, 10],
        [{ usd_cents: 3 }, 7],
        [{ usd_cents: -5, other: 2 }, 10],
        [{ usd_cents: 99 }, 0],
      ];
      for (const [at, [amounts, back]] of taken.entries()) {
        const one = bucket(50 + at);
        const before = reservation(at, [debit({ bucket: one, amount: 10 })]);
        assert.equal(await ledger.reserve(before, NOW), "reserved");
        assert.equal(await ledger.settle(before.id, new Map(Object.entries(amounts)), NOW + 59), true);
        assert.equal(await ledger.settle(before.id, new Map(), NOW + 59), false);
        assert.deepEqual(await ledger.reserve(reservation(100 + at, [debit({ bucket: one, amount: back + 1 })]), NOW), { short: 0 });
        assert.equal(await ledger.reserve(reservation(200 + at, [debit({ bucket: one, amount: back })]), NOW), "reserved");
      }
    });

    test("a reservation is open for a minute, and one that nobody made is not", async () => {
      const ledger = await kind.ledger();
      await ledger.reserve(reservation(1), NOW);
      assert.equal(await ledger.settle(bytes(1), new Map(), NOW + 60), false);
      assert.equal(await ledger.settle(bytes(2), new Map(), NOW), false);
    });

    test("tokens from before it began are refused, but those of keys that were made along with it", async () => {
      const ledger = await kind.ledger(name === "memory" ? {} : { keys: ["k2", "k-3"] });
      const early = { issuedAt: NOW - 1 };
      assert.equal(await ledger.reserve(reservation(1, [debit()], early), NOW), "unavailable");
      assert.equal(await ledger.look(reservation(1, [debit()], early), NOW), "unavailable");
      assert.equal(await ledger.step!(reservation(2, [debit()], early), step([mark(1)]), NOW), "unavailable");
      if (name === "memory") return;
      for (const kid of ["k2", "k-3"]) {
        assert.equal(await ledger.reserve(reservation(kid.length, [debit()], { ...early, kid }), NOW), "reserved");
      }
      assert.equal(await ledger.reserve(reservation(9, [debit()], { ...early, kid: "k" }), NOW), "unavailable");
    });

    test("of a tree there are ten thousand buckets, and another tree has its own", async () => {
      const ledger = await kind.ledger();
      for (let at = 0; at < 10; at += 1) {
        const many = Array.from({ length: at < 9 ? 1_000 : 999 }, (_, each) => debit({ bucket: b64encode(bytes(1_000 * at + each)) }));
        assert.equal(await ledger.reserve(reservation(at, many), NOW), "reserved");
      }
      const last = [debit({ bucket: CHILD, link: 3 }), debit({ bucket: LEAF, link: 4 })];
      assert.deepEqual(await ledger.reserve(reservation(20, last), NOW), { short: 4 });
      assert.equal(await ledger.reserve(reservation(21, last.slice(0, 1)), NOW), "reserved");
      const more = step([mark(1, { tree: "tree", link: 7 })]);
      assert.deepEqual(await ledger.step!(reservation(22, []), more, NOW), { short: 7 });
      assert.equal(await ledger.reserve(reservation(23, last.slice(1), { tokenId: "another" }), NOW), "reserved");
    });

    test("once all of a rule's marks are set, the step is closed", async () => {
      const ledger = await kind.ledger();
      const rule = [mark(1), mark(2)];
      const closed = step([mark(3)], [rule]);
      assert.equal(await ledger.step!(reservation(1, []), closed, NOW), "reserved");
      assert.equal(await ledger.step!(reservation(2, []), step([mark(1)]), NOW), "reserved");
      assert.equal(await ledger.lookStep!(reservation(3, []), closed, NOW), "reserved");
      assert.equal(await ledger.step!(reservation(4, []), step([mark(2)]), NOW), "reserved");
      const denied = { forbidden: 0, set: rule };
      assert.deepEqual(await ledger.step!(reservation(5), closed, NOW), denied);
      assert.deepEqual(await ledger.lookStep!(reservation(5), closed, NOW), denied);
      assert.equal(await ledger.look(reservation(6, [debit({ amount: 10 })]), NOW), "reserved", "nothing was debited");
    });

    test("a step is judged as if its own marks were set, and only what was set before is named", async () => {
      const ledger = await kind.ledger();
      await ledger.step!(reservation(1, []), step([mark(1)]), NOW);
      const both = step([mark(2), mark(3)], [[mark(4)], [mark(1), mark(2)]]);
      assert.deepEqual(await ledger.step!(reservation(2, []), both, NOW), { forbidden: 1, set: [mark(1)] });
      assert.equal(await ledger.step!(reservation(3, []), step([mark(5)], [[mark(2)]]), NOW), "reserved", "nothing was set");
    });

    test("marks and debits are all or nothing, and made once", async () => {
      const ledger = await kind.ledger();
      const all = reservation(1, [debit({ amount: 8 })]);
      for (let at = 0; at < 2; at += 1) assert.equal(await ledger.step!(all, step([mark(1)]), NOW), "reserved");
      assert.deepEqual(await ledger.step!(reservation(2, [debit({ amount: 8, link: 5 })]), step([mark(2)]), NOW), { short: 5 });
      assert.equal(await ledger.step!(reservation(3, []), step([mark(9)], [[mark(2)]]), NOW), "reserved");
      assert.equal(await ledger.settle(all.id, new Map(), NOW), true);
      assert.equal(await ledger.reserve(reservation(4, [debit({ amount: 10 })]), NOW), "reserved");
    });

    test("what is asked for at once is given once", async () => {
      const ledger = await kind.ledger();
      const asked = Array.from({ length: 60 }, (_, at) => ledger.reserve(reservation(at), NOW));
      const got = await Promise.all(asked);
      assert.equal(got.filter((one) => one === "reserved").length, 10);
    });

    test("of two steps that race, of which each closes the other, one passes", async () => {
      for (let at = 0; at < 10; at += 1) {
        const ledger = await kind.ledger();
        const said = await Promise.all([
          ledger.step!(reservation(1, []), step([mark(1)], [[mark(2)]]), NOW),
          ledger.step!(reservation(2, []), step([mark(2)], [[mark(1)]]), NOW),
        ]);
        assert.equal(said.filter((one) => one === "reserved").length, 1);
        if (name === "postgres") break;
      }
    });
  });

  describe(`what a store of used proofs does: ${name}`, { skip }, () => {
    const use = (number: number, issuedAt = NOW, kid = "k1") => ({ entry: bytes(number), issuedAt, kid });

    test("a use is taken once, and looked at without being taken", async () => {
      const store = await kind.replays();
      assert.equal(await store.look(use(1), NOW), "added");
      assert.equal(await store.add(use(1), NOW), "added");
      assert.equal(await store.look(use(1), NOW), "replayed");
      assert.equal(await store.add(use(1, NOW + 5), NOW), "replayed");
      for (let bit = 0; bit < 128; bit += 8) {
        const entry = Uint8Array.from({ length: 16 }, (_, at) => (at === bit / 8 ? 0x80 : 0xff));
        assert.equal(await store.add({ ...use(0), entry }, NOW), "added");
      }
    });

    test("it refuses what was made before it, and what it has forgotten", async () => {
      const store = await kind.replays();
      assert.equal(await store.add(use(1, NOW - 1), NOW), "replayed");
      assert.equal(await store.add(use(2), NOW), "added");
      assert.equal(await store.add(use(2), NOW + 30), "replayed");
      assert.equal(await store.add(use(3, NOW + 31), NOW + 31), "added");
      assert.equal(await store.add(use(2), NOW + 31), "replayed");
      assert.equal(await store.add(use(4), NOW), "replayed", "a clock set back revives nothing");
    });

    test("what is asked for at once is given once", async () => {
      const store = await kind.replays();
      const got = await Promise.all(Array.from({ length: 32 }, () => store.add(use(1), NOW)));
      assert.deepEqual(got.sort(), ["added", ...Array.from({ length: 31 }, () => "replayed")]);
    });

    test("a consent is spent once for as long as it lives, and a proof of that name is another thing", async () => {
      const store = await kind.replays();
      assert.deepEqual([await store.lookSpend!(use(1), NOW), await store.lookSpend!(use(1), NOW)], ["added", "added"]);
      assert.deepEqual([await store.spend!(use(1), NOW), await store.spend!(use(1), NOW)], ["added", "replayed"]);
      assert.deepEqual([await store.add(use(1), NOW), await store.add(use(1), NOW)], ["added", "replayed"]);
      for (const later of [31, 40, 1800, 3599]) {
        assert.equal(await store.lookSpend!(use(1), NOW + later), "replayed");
        assert.equal(await store.spend!(use(1), NOW + later), "replayed");
        assert.equal(await store.spend!(use(1 + later), NOW + later), "added");
      }
      const late = NOW + 3602;
      assert.equal(await store.spend!(use(2, late), late), "added");
      assert.equal(await store.spend!(use(1), NOW), "replayed", "a clock set back revives nothing");
    });

    test("a store takes no consent from before it began, whatever key it is of", async () => {
      const store = await kind.replays(name === "memory" ? {} : { keys: ["k2"] });
      for (const kid of ["k1", "k2"]) {
        assert.equal(await store.lookSpend!(use(1, NOW - 1, kid), NOW), "replayed");
        assert.equal(await store.spend!(use(1, NOW - 1, kid), NOW), "replayed");
      }
      assert.equal(await store.spend!(use(1), NOW), "added");
    });

    test("of those who spend at once, one does", async () => {
      const store = await kind.replays();
      const got = await Promise.all(Array.from({ length: 32 }, () => store.spend!(use(1), NOW)));
      assert.deepEqual(got.sort(), ["added", ...Array.from({ length: 31 }, () => "replayed")]);
    });

    if (name === "postgres") return;
    test("one that is full takes nothing more, and forgets nothing for it", async () => {
      const store = await kind.replays({ limit: 2 });
      assert.deepEqual([await store.add(use(1), NOW), await store.add(use(2), NOW)], ["added", "added"]);
      assert.deepEqual([await store.add(use(3), NOW), await store.look(use(3), NOW)], ["full", "full"]);
      assert.equal(await store.add(use(1), NOW), "replayed");
      assert.equal(await store.add(use(3, NOW + 31), NOW + 31), "added");
    });
  });
}

describe("stores on servers", { skip: missing(...PARTNERS) }, () => {
  const both = async (): Promise<[string, () => Promise<Ledger>, () => Promise<ReplayStore>, (keys: boolean) => Promise<unknown>][]> => {
    const [prefix, schema] = [fresh(), fresh()];
    await createTables(pool!, { schema });
    const at = { floor: NOW - 1, clock };
    return [
      ["Valkey", () => new ValkeyLedger(redis!, { prefix, clock }).open(), () => new ValkeyReplayStore(redis!, { prefix, clock }).open(), () => ValkeyLedger.create(redis!, { prefix, ...at })],
      ["PostgreSQL", () => new PostgresLedger(pool!, { schema, clock }).open(), () => new PostgresReplayStore(pool!, { schema, clock }).open(), () => PostgresLedger.create(pool!, { schema, ...at })],
    ];
  };

  test("opening never makes, and making refuses what is there", async () => {
    for (const [name, ledger, replays, make] of await both()) {
      const there = { code: "store", message: `${name}: there is no store here: create makes one` };
      await assert.rejects(ledger(), there);
      await assert.rejects(replays(), there);
      await make(true);
      await assert.rejects(make(true), { code: "store", message: /already exists/ });
      assert.equal(await (await ledger()).reserve(reservation(1), NOW), "reserved");
      await assert.rejects(replays(), there);
    }
  });

  test("a store that could not be opened is opened when it can", async () => {
    const prefix = fresh();
    const ledger = new ValkeyLedger(redis!, { prefix, clock });
    await assert.rejects(ledger.reserve(reservation(1), NOW), { code: "store" });
    await ValkeyLedger.create(redis!, { prefix, ...FLOOR });
    assert.equal(await ledger.reserve(reservation(1), NOW), "reserved");
  });

  test("a server that is away, or forgets, is said without its address", async () => {
    const away: ValkeyClient = { call: () => Promise.reject(new Error("connect ECONNREFUSED 10.1.2.3:6379")) };
    const gone = { code: "store", message: "Valkey: the server cannot be reached, or has hung up" };
    await assert.rejects(new ValkeyLedger(away).open(), gone);
    const nobody: PostgresClient = { query: () => Promise.reject(new Error("password authentication failed for jane")) };
    await assert.rejects(new PostgresLedger(nobody).open(), { message: "PostgreSQL: the server cannot be reached, or has hung up" });
    const evicts: ValkeyClient = { call: async (_, [what]) => (what === "memory" ? "maxmemory_policy:allkeys-lru\r\n" : null) };
    await assert.rejects(new ValkeyLedger(evicts).open(), /maxmemory-policy is allkeys-lru/);
    const snaps: ValkeyClient = {
      call: async (command, [what]) => (command === "CONFIG" ? ["save", "3600 1"] : what === "memory" ? "" : "aof_enabled:0\r\n"),
    };
    await assert.rejects(new ValkeyLedger(snaps).open(), /RDB snapshots only/);
  });

  test("what was made by another version is refused", async () => {
    const [prefix, schema] = [fresh(), fresh()];
    await ValkeyLedger.create(redis!, { prefix, ...FLOOR });
    await redis!.hset(`{${prefix}}:schema`, "ledger", "9");
    await assert.rejects(new ValkeyLedger(redis!, { prefix, clock }).open(), /schema version 9.*install a newer captoken/);
    await createTables(pool!, { schema });
    await pool!.query(`update ${schema}.captoken_schema set version = 2`);
    await assert.rejects(new PostgresLedger(pool!, { schema, clock }).open(), /schema version 2.*captoken upgrade/);
    await assert.rejects(createTables(pool!, { schema }), /CT004/);
    await assert.rejects(new PostgresLedger(pool!, { schema: "nobody_made", clock }).open(), /createTables makes/);
  });

  test("the tables are those that Python makes, in any schema", async () => {
    const made = ran(
      "import json, sys; from captoken.stores.postgres import setup; print(json.dumps([setup(one) for one in json.load(sys.stdin)]))",
      ["captoken", "other"],
    );
    assert.deepEqual([setup(), setup("other")], made);
    for (const name of ["", "A", 'a"', "pg_x", "a b", "1a"]) assert.throws(() => setup(name), { name: "UsageError" });
  });

  test("PostgreSQL that was started anew is looked at again, and the floor rises where data may be lost", async () => {
    const schema = fresh();
    await createTables(pool!, { schema });
    const ledger = await PostgresLedger.create(pool!, { schema, ...FLOOR });
    const lossless = await new PostgresLedger(pool!, { schema, clock, lossless: true }).open();
    assert.equal(await ledger.reserve(reservation(1), NOW), "reserved");
    await pool!.query(`update ${schema}.floors set timeline = 'another', runs = '{}'`);
    assert.equal(await lossless.reserve(reservation(2), NOW), "reserved");
    assert.equal(await ledger.reserve(reservation(3), NOW), "unavailable");
    assert.equal(await ledger.reserve(reservation(4, [debit()], { issuedAt: NOW + 61 }), NOW), "reserved");
  });

  test("Valkey by a script that it has not, and a key of somebody else", async () => {
    const prefix = fresh();
    const ledger = await ValkeyLedger.create(redis!, { prefix, ...FLOOR });
    await redis!.script("FLUSH");
    assert.equal(await ledger.reserve(reservation(1), NOW), "reserved");
    await redis!.set(`{${prefix}}:spent:${"01".repeat(16)}:usd_cents`, "many");
    await assert.rejects(async () => ledger.reserve(reservation(2), NOW), /holds what no store wrote/);
  });

  test("a setting that there is not, or is none, is a mistake", () => {
    const wrong: object[] = [{ prefx: "a" }, { prefix: "a b" }, { prefix: "{a}" }, { shared: undefined }];
    for (const given of wrong) assert.throws(() => new ValkeyLedger(redis!, given), { name: "UsageError" });
    for (const given of [{ schema: 'x"' }, { schem: "a" }]) assert.throws(() => new PostgresLedger(pool!, given), { name: "UsageError" });
    assert.throws(() => new ValkeyLedger({} as ValkeyClient), { name: "UsageError" });
    assert.throws(() => new PostgresLedger({} as PostgresClient), { name: "UsageError" });
  });
});

describe("both languages on one server", { skip: missing(...PARTNERS) }, () => {
  const python = (text: string): Promise<unknown> => servers!.python(text);
  const BUCKET = `bytes([1]) * 16`;
  const asked = (number: number, amount: number, more = ""): string =>
    `Reservation((${number}).to_bytes(16), (Debit(${BUCKET}, "usd_cents", 10, ${amount}),), ${NOW}, ${NOW + 60}, ${NOW + 600}, "tree"${more})`;

  /** A store of each language in one place: [the name, the ledger here, the one in Python]. */
  const places = async (): Promise<[string, Ledger, string, ReplayStore, string][]> => {
    const [prefix, schema] = [fresh(), fresh()];
    await python(`[postgres.create_tables(psycopg.connect(conninfo, autocommit=True), schema="${schema}")]`);
    await python(`[kind.create(client, prefix="${prefix}", floor=${NOW - 1}, clock=lambda: ${NOW}) for kind in (valkey.ValkeyLedger, valkey.ValkeyReplayStore)]`);
    await python(`[kind.create(conninfo, schema="${schema}", floor=${NOW - 1}, clock=lambda: ${NOW}).close() for kind in (postgres.PostgresLedger, postgres.PostgresReplayStore)]`);
    const ofValkey = (kind: string): string => `valkey.Valkey${kind}(client, prefix="${prefix}", clock=lambda: ${NOW})`;
    const ofPostgres = (kind: string): string => `postgres.Postgres${kind}(conninfo, schema="${schema}", clock=lambda: ${NOW})`;
    return [
      ["Valkey", await new ValkeyLedger(redis!, { prefix, clock }).open(), ofValkey("Ledger"), await new ValkeyReplayStore(redis!, { prefix, clock }).open(), ofValkey("ReplayStore")],
      ["PostgreSQL", await new PostgresLedger(pool!, { schema, clock }).open(), ofPostgres("Ledger"), await new PostgresReplayStore(pool!, { schema, clock }).open(), ofPostgres("ReplayStore")],
    ];
  };

  test("they count, settle and mark together", async () => {
    for (const [name, here, there] of await places()) {
      assert.equal(await here.reserve(reservation(1, [debit({ amount: 4 })]), NOW), "reserved", name);
      assert.equal(await python(`${there}.spent(${BUCKET}, "usd_cents")`), 4);
      assert.equal(await python(`${there}.reserve(${asked(2, 5)}, ${NOW})`), null);
      assert.deepEqual(await here.reserve(reservation(3, [debit({ amount: 2 })]), NOW), { short: 0 });
      assert.equal(await python(`${there}.reserve(${asked(1, 4)}, ${NOW})`), null, "the same id is the same reservation");
      // Each closes what the other has opened.
      assert.equal(await here.settle(bytes(2), new Map([["usd_cents", 1]]), NOW), true);
      assert.equal(await python(`${there}.settle((1).to_bytes(16), {}, ${NOW})`), true);
      assert.equal(await python(`${there}.spent(${BUCKET}, "usd_cents")`), 1);
      const marked = (numbers: string, rules = "()"): string =>
        `${there}.step(MarkedStep(tuple(Mark((n).to_bytes(32), ${NOW + 4200}, False) for n in ${numbers}), ${rules}, ${NOW}, "tree", by="py: tool pay()"), ${NOW})`;
      const closes = (number: number): string => `(Rule((Mark((${number}).to_bytes(32), ${NOW + 4200}, False),)),)`;
      assert.equal(await here.step!(reservation(7, []), step([mark(1)]), NOW), "reserved");
      const said = await python(`[(one.at, one.by) for one in ${marked("[8]", closes(1))}.marks]`);
      assert.deepEqual(said, [[NOW, "clerk: tool send(to, body) and costing 2 usd_cents"]]);
      assert.equal(await python(marked("[2]")), null);
      assert.deepEqual(await here.step!(reservation(8, []), step([mark(9)], [[mark(2)]]), NOW), { forbidden: 0, set: [mark(2)] });
    }
  });

  test("they remember proofs together", async () => {
    for (const [name, , , here, there] of await places()) {
      const use = (number: number): string => `Use((${number}).to_bytes(16), ${NOW}, "k1")`;
      assert.equal(await here.add({ entry: bytes(1), issuedAt: NOW, kid: "k1" }, NOW), "added", name);
      assert.equal(await python(`${there}.add(${use(1)}, ${NOW})`), false);
      assert.equal(await python(`${there}.add(${use(2)}, ${NOW})`), true);
      assert.equal(await here.add({ entry: bytes(2), issuedAt: NOW, kid: "k1" }, NOW), "replayed");
    }
  });

  test("they spend consents together", async () => {
    for (const [name, , , here, there] of await places()) {
      const use = (number: number): string => `Spend((${number}).to_bytes(16), ${NOW}, ${NOW + 3600}, "k1")`;
      assert.equal(await here.spend!({ entry: bytes(1), issuedAt: NOW, kid: "k1" }, NOW), "added", name);
      assert.deepEqual([await python(`${there}.peek_spend(${use(1)}, ${NOW})`), await python(`${there}.spend(${use(1)}, ${NOW + 1800})`)], [false, false]);
      assert.equal(await python(`${there}.spend(${use(2)}, ${NOW})`), true);
      assert.equal(await here.lookSpend!({ entry: bytes(2), issuedAt: NOW, kid: "k1" }, NOW + 1800), "replayed");
      assert.equal(await here.spend!({ entry: bytes(2), issuedAt: NOW, kid: "k1" }, NOW + 1800), "replayed");
      assert.equal(await here.add({ entry: bytes(1), issuedAt: NOW, kid: "k1" }, NOW), "added", "a proof is another thing");
    }
  });

  test("what an operator publishes in Python is seen here", async () => {
    const [prefix, schema] = [fresh(), fresh()];
    await createTables(pool!, { schema });
    const here = [valkeySnapshots(redis!, { prefix }), postgresSnapshots(pool!, { schema })];
    for (const source of here) await assert.rejects(source(), { code: "store", message: /there is no store here/ });
    const there = [`valkey.ValkeySnapshots.create(client, prefix="${prefix}")`, `postgres.PostgresSnapshots.create(conninfo, schema="${schema}")`];
    for (const [at, store] of there.entries()) {
      const source = here[at]!;
      const key = await python(`[box := {}, box.update(key=OperatorKey.generate(), store=${store}), keep.append(box), box["key"].public][-1]`);
      assert.equal(await source(), undefined);
      const poller = new OverlayPoller(source, [key as string]);
      await assert.rejects(poller.refresh(), /no snapshot yet/);
      await python(`[keep[-1].update(operator=Operator(keep[-1]["key"], keep[-1]["store"], by="ops")), keep[-1]["operator"].revoke(why="lost", subject="user:jane")] and None`);
      assert.equal((await poller.refresh()).entries.length, 1);
      await python(`keep[-1]["operator"].revoke(why="é", task="t") and None`);
      assert.deepEqual((await poller.refresh()).entries.map(({ why }) => why).sort(), ["lost", "é"]);
    }
  });

  test("at once they give what there is, and no more", async () => {
    for (const [name, here, there] of await places()) {
      const mine = Array.from({ length: 20 }, (_, at) => here.reserve(reservation(at), NOW));
      const theirs = python(`[ledger.reserve(Reservation((100 + n).to_bytes(16), (Debit(${BUCKET}, "usd_cents", 10, 1),), ${NOW}, ${NOW + 60}, ${NOW + 600}, "tree"), ${NOW}) is None for ledger in [${there}] for n in range(20)]`);
      const got = [...(await Promise.all(mine)).map((one) => one === "reserved"), ...((await theirs) as boolean[])];
      assert.equal(got.filter(Boolean).length, 10, name);
    }
  });

  test("a token that counts is used up at verifiers of both, and a proof is good at one", async () => {
    const keyring = Keyring.generate();
    const key = HolderKey.generate();
    const token = new Issuer(keyring, { clock }).mint({ subject: "user:jane", agent: "a", task: "t", tools: { read: {} }, uses: 3, audience: "files", key: key.public });
    const access = { tool: "read" };
    const file = join(mkdtempSync(join(tmpdir(), "captoken-")), "keyring.json");
    writeFileSync(file, keyring.serialize(), { mode: 0o600 });
    for (const [name, ledger, ofLedger, replays, ofReplays] of await places()) {
      const verifier = new Verifier(keyring, { audience: "files", ledger, replays, clock });
      const text = (): string => token.present({ audience: "files", signer: key, request: access });
      const there = (shown: string): Promise<unknown> =>
        python(`str(Verifier(Keyring.load(${JSON.stringify(file)}), audience="files", ledger=${ofLedger}, replays=${ofReplays}, clock=lambda: ${NOW}).check(${JSON.stringify(shown)}, Access(tool="read")).code)`);
      const first = text();
      assert.equal((await verifier.checkAsync(first, access)).code, "allowed", name);
      assert.equal(await there(first), "replayed");
      assert.equal(await there(text()), "allowed");
      assert.equal((await verifier.checkAsync(text(), access)).code, "allowed");
      assert.equal((await verifier.checkAsync(text(), access)).code, "budget_exhausted");
      assert.equal(await there(text()), "budget_exhausted");
    }
  });
});
