/** The files that secrets are kept in: one purpose each, one spelling (spec, "Key files"). */

import { b64exact, type Bytes } from "./format/bytes.js";
import { CaptokenError, UsageError } from "./format/errors.js";
import { canonicalText, type Json } from "./format/json.js";

export function checkSecret(given: unknown): Bytes {
  if (!(given instanceof Uint8Array) || given.length !== 32) {
    throw new UsageError("a key is 32 bytes");
  }
  if (given.every((byte) => byte === given[0])) {
    throw new UsageError("a key whose bytes are all equal is a mistake");
  }
  return Uint8Array.from(given);
}

export const badFile = (what: string): CaptokenError =>
  new CaptokenError(`no key file: ${what}`, "keyring");

/** The object of a file: canonical JSON, then one line feed or nothing (27.2). */
export function readFile(content: string): Map<string, Json> {
  const stated = canonicalText(content.endsWith("\n") ? content.slice(0, -1) : content);
  if (stated?.get("v") !== 1) throw badFile("it is not canonical JSON of version 1");
  return stated;
}

export function checkKeys(
  stated: Map<string, Json>,
  required: readonly string[],
  optional: readonly string[] = [],
): void {
  const known = [...stated.keys()].every((key) => required.includes(key) || optional.includes(key));
  if (!known || !required.every((key) => stated.has(key))) throw badFile("other keys");
}

export function secretOf(spelled: Json | undefined): Bytes {
  const bytes = b64exact(spelled, 32);
  if (!bytes) throw badFile("a secret is 43 characters of base64url");
  try {
    return checkSecret(bytes);
  } catch {
    throw badFile("a secret whose bytes are all equal");
  }
}
