/**
 * Servers that count together, on Valkey or Redis: with servers in Python, too. `VALKEY_URL` says
 * where it is.
 */

import { Redis } from "ioredis";
import { Issuer, Keyring, Verifier } from "captoken";
import { ValkeyLedger } from "captoken/valkey";

const redis = new Redis(process.env["VALKEY_URL"] ?? "redis://localhost:6379");
const keyring = Keyring.generate();

// Once, when the service is set up. A ledger that was made along with the keys takes their tokens at
// once; another one takes those that are issued a minute later, and after that.
const prefix = `example-${process.pid}`;
await ValkeyLedger.create(redis, { prefix, shared: true, keys: keyring.keyIds });

// In each server: `open` says at the start what is wrong, and not at the first request.
const ledger = await new ValkeyLedger(redis, { prefix, shared: true }).open();
const [one, other] = ["a", "b"].map(() => new Verifier(keyring, { audience: "mail", ledger }));

const who = { subject: "user:jane", agent: "clerk", task: "invoices" };
const token = new Issuer(keyring).mint({ ...who, tools: { send: {} }, uses: 2 });
const text = token.present({ audience: "mail" });
for (const server of [one!, other!, one!]) {
  const decision = await server.checkAsync(text, { tool: "send" });
  console.log(decision.code); // allowed | allowed | budget_exhausted
}
const left = (await redis.keys(`{${prefix}}*`)).length > 0;
console.log("it keeps what was counted:", left); // true
redis.disconnect();
