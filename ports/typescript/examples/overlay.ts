/** What an operator stops is stopped at the next look, in tokens that are out already. */

import { Issuer, Keyring, OperatorKey, Verifier, overlayEntry, signSnapshot } from "captoken";
import { OverlayPoller } from "captoken/overlay";

// The operator signs snapshots, by `captoken revoke` for instance, and puts them where servers look.
const operator = OperatorKey.generate();
const seconds = (): number => Math.floor(Date.now() / 1000);
const when = (seq: number) => ({ seq, issuedAt: seconds(), expiresAt: seconds() + 600 });
let published = signSnapshot(operator, [], when(1));

// A server looks every five seconds: by a function, or at a URL. It trusts the operator, not the place.
const poller = await new OverlayPoller(() => published, [operator.public], { every: 5 }).start();
const keyring = Keyring.generate();
const verifier = new Verifier(keyring, { audience: "files", overlay: poller.overlay });

const who = { subject: "user:jane", agent: "clerk", task: "invoices" };
const text = new Issuer(keyring).mint({ ...who, tools: { read: {} } }).present({ audience: "files" });
console.log(verifier.check(text, { tool: "read" }).code); // allowed

const entry = { id: "e1", at: seconds(), by: "ops", why: "her laptop was lost", select: { subject: "user:jane" } };
published = signSnapshot(operator, [overlayEntry(entry)], when(2));
// The timer would do it.
await poller.refresh();
console.log(verifier.check(text, { tool: "read" }).code); // revoked
