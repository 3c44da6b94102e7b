/** A guarded service with Fastify, and the grant of a request where nobody handed it on. */

import Fastify from "fastify";

import { Issuer, Keyring, Verifier } from "captoken";
import { captoken, current, requires } from "captoken/fastify";

const keyring = Keyring.generate();
const verifier = new Verifier(keyring, { audience: "search" });
const searching = requires((request: { body: unknown }) => ({
  tool: "search",
  arguments: request.body as { q: string },
}));

/** Deep in the application. */
const actor = (): string => current.grant().actor.name;

const app = Fastify();
await app.register(captoken, { verifier, origin: "https://search.example" });
app.post("/search", { preHandler: searching }, async () => ({ by: actor() }));

const who = { subject: "user:jane", agent: "clerk", task: "q3" };
const token = new Issuer(keyring).mint({ ...who, tools: { search: { q: { in: ["sales", "orders"] } } } });
const headers = { authorization: `Bearer ${token.present({ audience: "search" })}` };
for (const q of ["sales", "salaries"]) {
  const response = await app.inject({ method: "POST", url: "/search", headers, payload: { q } });
  console.log(q, response.statusCode); // 200 | 403
}
