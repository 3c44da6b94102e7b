/** A guarded service with Hono. */

import { Hono, type Context } from "hono";

import { Issuer, Keyring, Verifier } from "captoken";
import { captoken, grantOf, requires } from "captoken/hono";

const keyring = Keyring.generate();
const verifier = new Verifier(keyring, { audience: "files" });
const reading = requires((c: Context) => ({ tool: "read", arguments: { name: c.req.param("name") } }));

const app = new Hono();
app.use(captoken(verifier, { origin: "https://files.example", public: ["/health"] }));
app.get("/health", (c) => c.text("ok"));
app.get("/reports/:name", reading, (c) => c.text(`${c.req.param("name")}, for ${grantOf(c).issued.subject}`));

const who = { subject: "user:jane", agent: "clerk", task: "q3" };
const token = new Issuer(keyring).mint({ ...who, tools: { read: { name: { in: ["q3"] } } } });
const authorization = `Bearer ${token.present({ audience: "files" })}`;
for (const path of ["/health", "/reports/q3", "/reports/q2"]) {
  const response = await app.request(path, { headers: { authorization } });
  console.log(path, response.status); // 200 | 200 | 403
}
