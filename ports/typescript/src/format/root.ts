/** The root record: what the issuer said (spec, "Root record"). */

import { b64exact, type Bytes } from "./bytes.js";
import { TokenFormatError, UsageError } from "./errors.js";
import { canonicalBytes, canonicalObject, isInteger, isObject, type Json } from "./json.js";
import { isName, isNamespaced, isTask } from "./names.js";

export interface Root {
  readonly subject: string;
  readonly agent: string;
  readonly task: string;
  readonly tokenId: string;
  readonly keyId: string;
  readonly issuedAt: number;
  readonly audience: string | undefined;
  /** Facts of the embedding project: namespaced name to string or integer. */
  readonly ext: ReadonlyMap<string, string | number>;
}

const isExt = (value: Json): boolean =>
  isObject(value) &&
  value.size > 0 &&
  [...value].every(
    ([key, fact]) => isNamespaced(key) && (typeof fact === "string" || isInteger(fact)),
  );

const REQUIRED: Readonly<Record<string, (value: Json) => boolean>> = {
  agent: isName,
  iat: isInteger,
  jti: (value) => b64exact(value, 16) !== undefined,
  kid: isName,
  sub: isName,
  task: isTask,
  v: (value) => value === 1,
};
const OPTIONAL: Readonly<Record<string, (value: Json) => boolean>> = { aud: isName, ext: isExt };

/** The record that an identifier spells. `v` is judged before the other keys (9.2). */
export function readRoot(identifier: Bytes): Root {
  const record = canonicalObject(identifier);
  const version = record?.get("v");
  if (!record || !isInteger(version)) throw new TokenFormatError("no root record", "malformed", 3);
  if (version !== 1) throw new TokenFormatError(`version ${version}`, "unsupported_version", 3);
  const all = { ...REQUIRED, ...OPTIONAL };
  const known = [...record].every(([key, value]) => Object.hasOwn(all, key) && all[key]!(value));
  if (!known || !Object.keys(REQUIRED).every((key) => record.has(key))) {
    throw new TokenFormatError("a root record with other keys or values", "malformed", 3);
  }
  const at = <T>(key: string): T => record.get(key) as T;
  return {
    subject: at("sub"),
    agent: at("agent"),
    task: at("task"),
    tokenId: at("jti"),
    keyId: at("kid"),
    issuedAt: at("iat"),
    audience: at("aud"),
    ext: at("ext") ?? new Map(),
  };
}

/** The identifier that says it. Raises UsageError for what is no root record. */
export function rootBytes(root: Root): Bytes {
  const record = new Map<string, Json>([
    ["agent", root.agent],
    ["iat", root.issuedAt],
    ["jti", root.tokenId],
    ["kid", root.keyId],
    ["sub", root.subject],
    ["task", root.task],
    ["v", 1],
  ]);
  if (root.audience !== undefined) record.set("aud", root.audience);
  if (root.ext.size) record.set("ext", new Map<string, Json>(root.ext));
  const all = { ...REQUIRED, ...OPTIONAL };
  for (const [key, value] of record) {
    if (!all[key]!(value)) throw new UsageError(`the root record: ${key} is not what it must be`);
  }
  return canonicalBytes(record);
}
