/**
 * The port in a Worker, with nothing of Node: the vectors that it is sent, and a guarded service.
 * `scripts/workerd.mjs` runs it.
 */

import { current } from "../src/current.js";
import { guarded } from "../src/http.js";
import { CaptokenError, HolderKey, Issuer, Keyring, MemoryReplayStore, Verifier, httpRequest } from "../src/index.js";
import { verify, verifyLater } from "../src/format/crypto.js";
import { b64decode } from "../src/format/bytes.js";
import { answer, type Vector } from "./adapter.js";
import { cameOf, shown } from "./came.js";

const ORIGIN = "https://files.example";

/** Made with the first request: a Worker has no randomness, and no time, before that. */
function world(): { serve: (request: Request) => Promise<Response>; text: (path: string) => string } {
  const keyring = Keyring.generate();
  const verifier = new Verifier(keyring, { audience: "files", replays: new MemoryReplayStore({ floor: 0 }) });
  const serve = guarded(verifier, { origin: ORIGIN }, async (request, grant) => {
    const path = new URL(request.url).pathname;
    await grant.authorizeAsync({ tool: "read", arguments: { path } });
    return new Response(`${path}, for ${grant.issued.subject}, ${currently()}`);
  });
  const key = HolderKey.generate();
  const who = { subject: "user:jane", agent: "clerk", task: "q3", key: key.public };
  const token = new Issuer(keyring).mint({ ...who, tools: { read: { path: { path: ["/reports"] } } } });
  const text = (path: string): string =>
    token.present({ audience: "files", signer: key, request: httpRequest("GET", ORIGIN, path) });
  return { serve, text };
}

/** Where AsyncLocalStorage is, with `nodejs_compat`, the grant of the request is known everywhere. */
function currently(): string {
  try {
    return `and ${current.grant().actor.name} acts`;
  } catch (error) {
    return (error as CaptokenError).code;
  }
}

async function edges(): Promise<unknown> {
  const key = HolderKey.generate();
  const [said, by] = [Uint8Array.of(1, 2), b64decode(key.public)!];
  const signature = key.sign(said);
  const bad = Uint8Array.from(signature, (byte, at) => (at ? byte : byte ^ 1));
  const all = [signature, bad];
  return Promise.all(all.map(async (one) => [verify(by, said, one), await verifyLater(by, said, one)]));
}

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/vectors") {
      const vectors = (await request.json()) as Vector[];
      const failed = vectors.filter((vector) => cameOf(vector, answer) !== shown(vector.expect));
      return Response.json({ asked: vectors.length, failed: failed.map(({ name }) => name as string) });
    }
    if (pathname === "/edges") return Response.json(await edges());
    const { serve, text } = world();
    const headers = { authorization: `Bearer ${text(pathname)}` };
    return serve(new Request(ORIGIN + pathname, { headers }));
  },
};
