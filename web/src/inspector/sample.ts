// A token to look at, which the page makes by itself, with a key of this moment.
import { b64encode } from "../../../ports/typescript/src/format/bytes.js";
import { Keyring } from "../../../ports/typescript/src/keyring.js";
import { Issuer } from "../../../ports/typescript/src/writing/issuer.js";

// It is held by the second agent. The access that is tried is one that the first link allows.
export function sample(): { token: string; secret: string; access: string; isSample: true } {
  const key = crypto.getRandomValues(new Uint8Array(32));
  const issuer = new Issuer(Keyring.fromKeys(new Map([["k-sample", key]]), "k-sample"));
  const root = issuer.mint({
    subject: "user:jane",
    agent: "orchestrator",
    task: "q3-risk",
    allow: { sales: ["select"], "market.*": ["select"] },
    expiresIn: "1h",
  });
  const held = root.delegate({ to: "sales-agent", allow: { sales: ["select"] }, expiresIn: "15m" });
  return {
    token: held.serialize(),
    secret: b64encode(key),
    access: '{"table": "market.eu", "operation": "select"}',
    isSample: true,
  };
}
