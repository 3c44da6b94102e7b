/**
 * What a proof is about, how it is made and checked; and the evidence of hand-overs (spec 28 to
 * 30).
 */

import { b64encode, b64exact, bigEndian, concat, text, utf8, type Bytes } from "./format/bytes.js";
import { label, labelled, publicKey, sha256, isPrimePoint, verify } from "./format/crypto.js";
import { CaptokenError, UsageError } from "./format/errors.js";
import { handed } from "./format/handed.js";
import {
  isObject,
  isWellFormed,
  jsonOf,
  requestJson,
  type Json,
  type JsonObject,
} from "./format/json.js";
import { checkAudience } from "./format/given.js";
import { spelledAccess, stated, type Access, type Stated } from "./language/access.js";

/** Whoever signs for an Ed25519 key: a `HolderKey`, or something that asks a KMS. */
export interface Signer {
  readonly public: string;
  sign(message: Bytes): Bytes;
}

/** A signer's public key as bytes. Raises UsageError for one that is none. */
export const signerKey = (signer: Signer): Bytes =>
  publicKey(signer.public, isPrimePoint, "signer");

// --- requests (spec, "Requests") -----------------------------------------------------------------

/** The digest of a form and its parts, each behind its length (29.1). */
function digest(form: string, ...parts: readonly Bytes[]): Bytes {
  return labelled(`request ${form}`, ...parts.flatMap((part) => [bigEndian(part.length, 8), part]));
}

function asciiBytes(given: string | Bytes, what: string): Bytes {
  if (given instanceof Uint8Array) return given;
  if (typeof given !== "string" || !/^[\u0000-\u007f]*$/.test(given)) {
    throw new UsageError(`${what} is no ASCII`);
  }
  return utf8(given);
}

/**
 * Of a request over HTTP: the origin as the server is configured, the target as in the request
 * line.
 */
export function httpRequest(
  method: string | Bytes,
  origin: string | Bytes,
  target: string | Bytes,
  body: Bytes = new Uint8Array(),
): Bytes {
  const head = [
    asciiBytes(method, "method"),
    asciiBytes(origin, "origin"),
    asciiBytes(target, "target"),
  ];
  return digest("http", ...head, sha256(body));
}

/** Of a request over MCP; the arguments as bytes on which both sides agree (29.3). */
export function mcpRequest(method: string, name: string, args: Bytes): Bytes {
  for (const given of [method, name]) {
    if (typeof given !== "string" || !isWellFormed(given)) {
      throw new UsageError("method and name are text");
    }
  }
  return digest("mcp", utf8(method), utf8(name), args);
}

/** Of an access, or of none (29.4, 29.5). */
export function accessRequest(access?: Access): Bytes {
  return statedRequest(access && stated(access));
}

export function statedRequest(access: Stated | undefined): Bytes {
  return access ? digest("access", utf8(spelledAccess(access))) : digest("access");
}

const LISTS = ["tools/list", "resources/list", "resources/templates/list", "prompts/list"];
const BESIDE = ["_meta", "inputResponses", "requestState"];

/** The access that an MCP message comes to (40.4). Raises UsageError for what is none. */
export function mcpAccess(
  method: string,
  params: unknown = {},
): { tool: string; arguments: JsonObject } {
  const given = params === undefined ? new Map<string, Json>() : jsonOf(params);
  if (!isObject(given)) throw new UsageError("params are no object");
  if (method === "tools/call") {
    const name = given.get("name");
    const args = given.get("arguments") ?? new Map<string, Json>();
    if (typeof name !== "string" || name.includes("/") || !isObject(args)) {
      throw new UsageError("no call of a tool");
    }
    return { tool: name, arguments: args };
  }
  if (!method.includes("/")) throw new UsageError("a method whose name has no /");
  const made: JsonObject = new Map();
  for (const [key, value] of given) {
    if (BESIDE.includes(key)) continue;
    for (const [name, inner] of key === "arguments" ? apart(value) : [[key, value] as const]) {
      if (made.has(name)) throw new UsageError(`two arguments that come to ${name}`);
      made.set(name, inner);
    }
  }
  return { tool: method, arguments: made };
}

/** The members of `arguments`, under names of their own; null says none. */
function apart(value: Json): (readonly [string, Json])[] {
  if (value === null) return [];
  if (!isObject(value)) throw new UsageError("arguments are no object");
  return [...value].map(([name, inner]) => [`arguments.${name}`, inner]);
}

/** Of an MCP message: what a proof over MCP is for (40.5). */
export function mcpMessageRequest(method: string, params: unknown = {}): Bytes {
  if (LISTS.includes(method)) return mcpRequest(method, "", utf8("{}"));
  const { tool, arguments: stated } = mcpAccess(method, params);
  return mcpRequest(method, method === "tools/call" ? tool : "", utf8(requestJson(stated)));
}

/** In a session of MCP, of what has no params: an answer, a stream, the end (40.12). */
export function mcpBesideRequest(method: string, session: string, answer: object = {}): Bytes {
  return mcpRequest(method, session, utf8(requestJson(jsonOf(answer))));
}

// --- proofs (spec, "Proof of possession") --------------------------------------------------------

export interface Proof {
  readonly issuedAt: number;
  readonly nonce: Bytes;
  readonly signature: Bytes;
}

/** What 88 bytes say (30.1). */
export function readProof(bytes: Bytes): Proof {
  const issuedAt = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0));
  return { issuedAt, nonce: bytes.slice(8, 24), signature: bytes.slice(24) };
}

const message = (
  state: Bytes,
  audience: string,
  issuedAt: number,
  nonce: Bytes,
  request: Bytes,
): Bytes =>
  concat(label("proof"), state, sha256(utf8(audience)), bigEndian(issuedAt, 8), nonce, request);

/** A proof that the signer has the key, for this state, this server and this request. */
export function makeProof(
  signer: Signer,
  state: Bytes,
  audience: string,
  request: Bytes,
  now: number,
  nonce: Bytes,
): Bytes {
  checkAudience(audience);
  if (request.length !== 32) throw new UsageError("a request is a digest of 32 bytes");
  const signature = signer.sign(message(state, audience, now, nonce, request));
  return concat(bigEndian(now, 8), nonce, signature);
}

export const isTimely = ({ issuedAt }: Proof, now: number): boolean =>
  now - 30 <= issuedAt && issuedAt <= now + 5;

/** How a signature is looked at: at once, or by the engine. */
export type Verifying<T> = (key: Bytes, message: Bytes, signature: Bytes) => T;

export const isProven = <T>(
  proof: Proof,
  key: Bytes,
  state: Bytes,
  audience: string,
  request: Bytes,
  by: Verifying<T>,
): T =>
  by(key, message(state, audience, proof.issuedAt, proof.nonce, request), proof.signature);

/** What a store remembers of a use (31.1). */
export const entryOf = (key: Bytes, nonce: Bytes): Bytes =>
  labelled("replay", key, nonce).slice(0, 16);

// --- custody (spec, "Holder binding") ------------------------------------------------------------

export const custodyMessage = (state: Bytes, body: Bytes): Bytes =>
  concat(label("custody"), state, sha256(body));

/** Of a signed link: anyone can check it, and nothing in it is secret (28.8). */
export interface Evidence {
  readonly key: string;
  readonly state: string;
  readonly body: string;
  readonly signature: string;
}

export function evidenceOf(key: Bytes, state: Bytes, body: Bytes, signature: Bytes): Evidence {
  return {
    key: b64encode(key),
    state: b64encode(state),
    body: text(body)!,
    signature: b64encode(signature),
  };
}

/** Does the signature hold? What it does not mean, 28.8 says. */
export const evidenceHolds = (evidence: Evidence): boolean => evidenceBy(evidence, verify);

export function evidenceBy<T>(
  { key, state, body, signature }: Evidence,
  by: Verifying<T>,
): T | false {
  const [keyBytes, stateBytes, signed] = [
    b64exact(key, 32),
    b64exact(state, 32),
    b64exact(signature, 64),
  ];
  if (!keyBytes || !stateBytes || !signed || typeof body !== "string" || !isWellFormed(body)) {
    return false;
  }
  return by(keyBytes, custodyMessage(stateBytes, utf8(body)), signed);
}

/** The evidence that JSON states. Raises CaptokenError `bad_proof`. */
export function readEvidence(given: unknown): Evidence {
  const made = { ...(given as Evidence) }; // read once
  const keys = Object.keys(made).sort().join();
  const isForm =
    keys === "body,key,signature,state" &&
    b64exact(made.key, 32) &&
    b64exact(made.state, 32) &&
    b64exact(made.signature, 64) &&
    typeof made.body === "string";
  if (!isForm) throw new CaptokenError("no evidence", "bad_proof");
  return handed(made);
}

export const isDigest = (given: unknown): given is Bytes =>
  given instanceof Uint8Array && given.length === 32;
