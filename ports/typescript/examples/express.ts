/** A guarded service with Express. */

import { once } from "node:events";
import type { AddressInfo } from "node:net";

import express, { type Request } from "express";

import { Issuer, Keyring, Verifier } from "captoken";
import { captoken, requires } from "captoken/express";

const keyring = Keyring.generate();
const verifier = new Verifier(keyring, { audience: "search" });
const guard = captoken(verifier, { origin: "https://search.example" });
const searching = requires((request: Request) => ({ tool: "search", arguments: request.body }));

const app = express();
// Before what reads bodies: a proof is about the bytes.
app.use(guard);
app.post("/search", express.json(), searching, (request, response) => {
  response.json({ found: request.body.q });
});
// Behind all routes.
app.use(guard.denials);

const server = app.listen(0, "127.0.0.1");
await once(server, "listening");
const { port } = server.address() as AddressInfo;

const who = { subject: "user:jane", agent: "clerk", task: "q3" };
const token = new Issuer(keyring).mint({ ...who, tools: { search: { q: { in: ["sales", "orders"] } } } });
const headers = { authorization: `Bearer ${token.present({ audience: "search" })}`, "content-type": "application/json" };
for (const q of ["sales", "salaries"]) {
  const asked = { method: "POST", headers, body: JSON.stringify({ q }) };
  const response = await fetch(`http://127.0.0.1:${port}/search`, asked);
  console.log(q, response.status); // 200 | 403
}
server.close();
