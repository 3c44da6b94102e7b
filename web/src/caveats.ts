// Caveats that were typed, as JSON: the playground mints and hands on with them, the inspector narrows.
import type { Caveats } from "../../ports/typescript/src/writing/compose.js";
import { readObject } from "./tried";

// The Python names of keywords, which most pages have, and those of the library for TypeScript.
const NAMES: Readonly<Record<string, string>> = {
  expires_in: "expiresIn",
  expires_at: "expiresAt",
  not_before: "notBefore",
  delegate_only: "delegateOnly",
};

export function caveatsOf(typed: string): Caveats {
  const made = [...readObject(typed)].map(([name, value]) => [NAMES[name] ?? name, value]);
  return Object.fromEntries(made) as Caveats;
}
