/**
 * Proofs that are taken once and counts, in PostgreSQL: together with servers in Python. `PGHOST`
 * and the like say where it is.
 */

import { Pool } from "pg";
import { HolderKey, Issuer, Keyring, Verifier } from "captoken";
import { PostgresLedger, PostgresReplayStore, createTables } from "captoken/postgres";

const pool = new Pool();
const keyring = Keyring.generate();

// Once, when the service is set up, by the owner of the tables.
const schema = `example_${process.pid}`;
await createTables(pool, { schema });
const along = { schema, keys: keyring.keyIds };
await PostgresReplayStore.create(pool, along);
await PostgresLedger.create(pool, along);

// In each server.
const replays = await new PostgresReplayStore(pool, { schema }).open();
const ledger = await new PostgresLedger(pool, { schema, shared: true }).open();
const verifier = new Verifier(keyring, { audience: "bank", replays, ledger });

const key = HolderKey.generate();
const who = { subject: "user:jane", agent: "clerk", task: "refunds", key: key.public };
const token = new Issuer(keyring).mint({ ...who, tools: { refund: {} }, budget: { usd_cents: 500 } });
const access = { tool: "refund", arguments: { order: "o-1" }, cost: { usd_cents: 300 } };
const shown = (): string => token.present({ audience: "bank", signer: key, request: access });

const first = shown();
for (const text of [first, first, shown()]) {
  const decision = await verifier.checkAsync(text, access);
  console.log(decision.code); // allowed | replayed | budget_exhausted
}
await pool.end();
