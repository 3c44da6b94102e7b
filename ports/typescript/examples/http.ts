/** A guarded service of nothing but `Request` and `Response`: as Deno, Bun and workerd serve it. */

import { Issuer, Keyring, Verifier, type Token } from "captoken";
import { guarded } from "captoken/http";

const keyring = Keyring.generate();
const verifier = new Verifier(keyring, { audience: "files" });

const serve = guarded(verifier, { origin: "https://files.example" }, async (request, grant) => {
  const path = new URL(request.url).searchParams.get("path");
  await grant.authorizeAsync({ tool: "read", arguments: { path } });
  return new Response(`what stands in ${path}`);
});

// An agent: it narrows what it holds, and shows that.
async function read(token: Token, path: string): Promise<void> {
  const authorization = `Bearer ${token.present({ audience: "files" })}`;
  const url = `https://files.example/read?path=${encodeURIComponent(path)}`;
  const response = await serve(new Request(url, { headers: { authorization } }));
  const { detail } = response.ok ? { detail: await response.text() } : await response.json();
  console.log(response.status, detail);
}

const who = { subject: "user:jane", agent: "orchestrator", task: "q3" };
const token = new Issuer(keyring).mint({ ...who, tools: { read: { path: { path: ["/reports"] } } } });
const narrow = token.delegate({ to: "reader", tools: { read: { path: { path: ["/reports/q3"] } } } });
await read(token, "/reports/q2"); // 200 what stands in /reports/q2
await read(narrow, "/reports/q2"); // 403 The token does not permit this request.
