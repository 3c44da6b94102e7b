// Is a token genuine? Asked of the library with the key that was pasted, and of nobody else.
import { b64encode, b64exact, unhex } from "../../../ports/typescript/src/format/bytes.js";
import type { Bytes } from "../../../ports/typescript/src/format/bytes.js";
import { UsageError } from "../../../ports/typescript/src/format/errors.js";
import { stated } from "../../../ports/typescript/src/language/access.js";
import type { Access } from "../../../ports/typescript/src/language/access.js";
import { Keyring } from "../../../ports/typescript/src/keyring.js";
import {
  authenticate,
  chainOf,
  firstUnsigned,
  placeOf,
} from "../../../ports/typescript/src/verification/authenticate.js";
import type {
  AuthenticatedToken,
  Refusal,
} from "../../../ports/typescript/src/verification/authenticate.js";
import { judge } from "../../../ports/typescript/src/verification/judge.js";
import { runNow } from "../../../ports/typescript/src/verification/steps.js";
import { plain } from "../plain";
import { refusedOf, tried, troubleOf } from "../tried";
import type { Refused, Tried } from "../tried";
import type { TokenRead } from "./read";

export interface Keys {
  // A key file, or a root key alone, as it was pasted.
  readonly secret: string;
  // A public key that somebody says is the one.
  readonly open: string;
  // The server's own names.
  readonly server: string;
}

// `none`: no key was asked. `bad`: one was, and it does not hold. `good`: all signatures hold.
export interface Verdict {
  readonly state: "none" | "bad" | "good";
  // What went wrong with the key that was pasted.
  readonly trouble: string;
  readonly refused: readonly Refused[];
  // Did the issuer's chain hold, whatever is wrong with the rest?
  readonly isChained: boolean;
  readonly keyId: string;
  // Each holder, and how its name is known.
  readonly chain: readonly { readonly name: string; readonly basis: string }[];
  // What a server would say now, before anything is asked of the token.
  readonly now: readonly Refused[];
  readonly servers: readonly string[];
  // What it would say of an access that was typed, as JSON. Without a verdict nothing is asked.
  readonly tried: (typed: string) => Tried;
}

const UNASKED: Verdict = {
  state: "none",
  trouble: "",
  refused: [],
  isChained: false,
  keyId: "",
  chain: [],
  now: [],
  servers: [],
  tried: () => ({ kind: "unasked", trouble: "A token that is not verified is not asked." }),
};

// The verdict on a token. Only `good` means that a key has vouched for it.
export function verify(token: TokenRead, keys: Keys, now: number): Verdict {
  const secret = keys.secret.trim();
  if (secret === "") return UNASKED;
  try {
    const keyrings = keyringsOf(secret, token);
    const verdicts = keyrings.map((keyring) => verdictOf(token, keyring, keys.server, now));
    return verdicts.find((one) => one.state === "good") ?? closest(verdicts);
  } catch (error) {
    // Whatever it is: a verdict that stood there before is none on this.
    return { ...UNASKED, trouble: troubleOf(error) };
  }
}

// Of several that do not hold, the one that came furthest.
function closest(verdicts: readonly Verdict[]): Verdict {
  return verdicts.find((one) => one.isChained) ?? verdicts[0] ?? UNASKED;
}

// --- keys ----------------------------------------------------------------------------------------

function keyringsOf(secret: string, token: TokenRead): Keyring[] {
  if (!secret.startsWith("{")) return ofOneKey(secret, token);
  const purpose = /"purpose":"([a-z]{1,20})"/.exec(secret)?.[1];
  if (purpose === undefined) return [Keyring.parse(secret)];
  const derive = "captoken keygen pairwise --key derives root keys from it.";
  throw new UsageError(
    `This is a key for another purpose, ${purpose}: root keys verify.` +
      (purpose === "pairwise" ? ` The command ${derive}` : ""),
  );
}

// A root key without its file: under the key id that the token names. For a token of one server it
// may be the issuer's key, or the one that was derived for that server.
function ofOneKey(secret: string, { root: { keyId, audience } }: TokenRead): Keyring[] {
  const key = keyBytes(secret);
  const keys = new Map([[keyId, key]]);
  const own = Keyring.fromKeys(keys, keyId);
  return audience === undefined ? [own] : [own, Keyring.forOneAudience(keys, keyId, audience)];
}

function keyBytes(secret: string): Bytes {
  const key = /^[0-9a-fA-F]{64}$/.test(secret) ? unhex(secret) : b64exact(secret, 32);
  if (!key) {
    throw new UsageError("This is no key: a key file, or 32 bytes in base64url or in hex.");
  }
  return key;
}

// --- the verdict ---------------------------------------------------------------------------------

function verdictOf(token: TokenRead, keyring: Keyring, server: string, now: number): Verdict {
  const found = authenticate(token.parts, (id, audience) => keyring.lookUp(id, audience), {});
  const keyId = plain(token.root.keyId);
  if (found.kind === "broken") {
    const isChained = found.who !== undefined;
    return { ...UNASKED, state: "bad", keyId, isChained, refused: [refusedOf(found.refusal)] };
  }
  const refused = unsigned(found);
  const chain = chainOf(found).map(({ name, basis }) => ({ name: plain(name), basis }));
  if (refused) {
    return { ...UNASKED, state: "bad", keyId, isChained: true, chain, refused: [refused] };
  }
  const servers = serversOf(token, server);
  return {
    ...UNASKED,
    state: "good",
    keyId,
    isChained: true,
    chain,
    servers: servers.map(plain),
    now: refusalsOf(found, servers, now).map(refusedOf),
    tried: (typed) => tried(typed, (access) => refusalsOf(found, servers, now, access)),
  };
}

// The first change of key that the key before has not signed.
function unsigned(genuine: AuthenticatedToken): Refused | undefined {
  const custody = firstUnsigned(genuine);
  const placed =
    custody && genuine.placed.find(({ at, isDischarge }) => at === custody.at && !isDischarge);
  if (!placed) return undefined;
  return refusedOf({
    code: "bad_proof",
    text: "bound to another key, and the one before has not signed that",
    ...placeOf(genuine, placed),
  });
}

// As whom it is asked: by the names that were given, or those that the token is addressed to.
function serversOf({ capability }: TokenRead, given: string): string[] {
  const names = given.split(",").map((name) => name.trim());
  const stated = names.filter((name) => name !== "");
  return stated.length ? stated : [...(capability.aud ?? [])].sort();
}

// Why a server would refuse it now: this access, or whatever is asked. It has no overlay, no ledger
// and no request.
function refusalsOf(
  genuine: AuthenticatedToken,
  servers: readonly string[],
  now: number,
  access?: Access,
): readonly Refusal[] {
  const server = {
    audiences: new Set(servers),
    takesUnaddressed: servers.length === 0,
    leeway: 0,
    maxAge: undefined,
    maxStaleness: 0,
    allowsStale: false,
    countsAlone: false,
    vocabulary: {},
  };
  const facts = { now, fresh: new Uint8Array(16) };
  const asked = { isSent: true, isUsed: true, isCounted: false, since: now };
  const question = access && { stated: stated(access) };
  return runNow(judge(genuine, server, facts, { ...asked, question })).refusals ?? [];
}

// --- public keys ---------------------------------------------------------------------------------

// What a public key is in the token, in a sentence; "" where none was pasted.
export function publicIn(token: TokenRead, given: string): string {
  const open = given.trim();
  if (open === "") return "";
  const bytes = /^[0-9a-fA-F]{64}$/.test(open) ? unhex(open) : b64exact(open, 32);
  if (!bytes) return "This is no public key: 32 bytes in base64url or in hex.";
  const key = b64encode(bytes);
  if (key === token.key) return `The token is bound to this key, by link ${token.boundBy}.`;
  const link = token.dischargers.get(key);
  if (link !== undefined) return `This is the third party that link ${link} asks.`;
  return "The token names no such key. A public key alone verifies nothing here.";
}
