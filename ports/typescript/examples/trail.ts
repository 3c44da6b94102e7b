/** Each decision is written down before it is answered: whoever changes a line later is seen to. */

import { mkdtempSync, openSync, readFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AuditKey, Issuer, Keyring, Verifier, checkTrail, readTrail } from "captoken";
import { AuditTrail } from "captoken/trail";

const path = join(mkdtempSync(join(tmpdir(), "trail-")), "trail.jsonl");
const file = openSync(path, "a");
const key = AuditKey.generate();
// A trail that is there is gone on with: `head: checkTrail(readFileSync(path), [key.public]).head`.
const trail = new AuditTrail((lines) => writeSync(file, lines), { key });

const keyring = Keyring.generate();
const verifier = new Verifier(keyring, { audience: "files", audit: trail });
const who = { subject: "user:jane", agent: "clerk", task: "invoices" };
const token = new Issuer(keyring).mint({ ...who, tools: { read: { path: { path: ["/reports"] } } } });
const text = token.present({ audience: "files" });
for (const at of ["/reports/q3", "/etc/passwd"]) verifier.check(text, { tool: "read", arguments: { path: at } });
await trail.checkpoint();

for (const { kind, code } of readTrail(readFileSync(path))) {
  console.log(`${kind} ${code ?? ""}`.trim()); // token | decision allowed | decision argument | checkpoint
}
console.log(checkTrail(readFileSync(path), [key.public]).signed, "records are signed for"); // records are signed for
const forged = readFileSync(path, "utf8").replace("/reports", "/");
try {
  checkTrail(forged, [key.public]);
} catch (error) {
  console.log(String(error)); // one was changed
}
