/** A token that is bound to a key of the engine, which nobody can export. */

import { Issuer, Keyring, MemoryReplayStore, Verifier } from "captoken";
import { generateKey, present } from "captoken/signing";

// In a browser IndexedDB keeps the pair: see WebKey.of.
const key = await generateKey();
const keyring = Keyring.generate();
const who = { subject: "user:jane", agent: "clerk", task: "q3" };
const token = new Issuer(keyring).mint({ ...who, tools: { read: {} }, key: key.public });

const request = { tool: "read" };
const text = await present(token, { audience: "files", signer: key, request });

// Of a process that starts anew: a server that ran before would leave the floor out.
const replays = new MemoryReplayStore({ floor: 0 });
const verifier = new Verifier(keyring, { audience: "files", replays });
for (const asked of [request, { tool: "write" }, request]) {
  console.log(verifier.check(text, asked).code); // allowed | tool | replayed
}
