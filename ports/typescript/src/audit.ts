/** Audit trails: whether one is whole, and how values are recorded (spec, "Audit"). */

import { b64encode, b64exact, bigEndian, concat, equal, utf8, type Bytes } from "./format/bytes.js";
import { isPrimePoint, label, publicKey, sha256, verify } from "./format/crypto.js";
import { CaptokenError, UsageError } from "./format/errors.js";
import { settings } from "./format/given.js";
import {
  Float,
  canonicalObject,
  isInteger,
  isObject,
  jsonOf,
  plain,
  requestJson,
  type Json,
  type JsonObject,
} from "./format/json.js";

/** The number and the hash of a record that somebody saw, and kept elsewhere. */
export interface Head {
  readonly seq: number;
  readonly hash: string;
}

export interface Verdict {
  /** Where it ends: keep it elsewhere, for the next check. */
  readonly head: Head;
  /** The last record that a trusted checkpoint covers; 0 is none. */
  readonly signed: number;
  readonly decisions: number;
}

/** A record, as JavaScript has it. */
export type AuditRecord = Readonly<Record<string, unknown>>;

export const START: Head = { seq: 0, hash: b64encode(new Uint8Array(32)) };
const NEWLINE = 0x0a;

const refused = (what: string): CaptokenError => new CaptokenError(what, "audit");

function* lines(trail: Bytes): Generator<Bytes> {
  let start = 0;
  for (let at = trail.indexOf(NEWLINE); at >= 0; at = trail.indexOf(NEWLINE, start)) {
    yield trail.subarray(start, at);
    start = at + 1;
  }
  if (start < trail.length) {
    throw refused("a record without its line feed: torn, or still being written");
  }
}

/** Each record, and the head that it makes (39.1, 39.2). */
function* numbered(
  trail: Bytes,
  after: Head,
): Generator<{ line: Bytes; record: JsonObject; before: Head; head: Head }> {
  let before = after;
  for (const line of lines(trail)) {
    const record = canonicalObject(line);
    if (!record) throw refused(`after record ${before.seq}: a line that is no record`);
    const seq = record.get("seq");
    if (typeof record.get("kind") !== "string") {
      throw refused(`after record ${before.seq}: a record without a kind`);
    }
    if (seq !== before.seq + 1) {
      throw refused(`after record ${before.seq}: cut, or in another order`);
    }
    if (record.get("prev") !== before.hash) {
      throw refused(`record ${seq} does not follow: one was changed`);
    }
    const head = { seq, hash: b64encode(sha256(line)) };
    yield { line, record, before, head };
    before = head;
  }
}

/**
 * The records of a trail, each checked to follow on the one before. Raises CaptokenError `audit`.
 */
export function* readTrail(trail: Bytes | string, after: Head = START): Generator<AuditRecord> {
  for (const { record } of numbered(bytesOf(trail), after)) yield plain(record) as AuditRecord;
}

const bytesOf = (trail: Bytes | string): Bytes => (typeof trail === "string" ? utf8(trail) : trail);

export interface Knowing {
  /** Heads that were seen before, and must still be there. */
  readonly known?: readonly Head[];
  /** The head that the file before ended with. */
  readonly after?: Head;
}

/**
 * Whether a trail is whole: no record changed, cut out, added or moved (39.5).
 *
 * Without `servers` checkpoints are not looked at, and nothing is vouched for. What was cut off
 * behind the last head that somebody kept does not show. Raises CaptokenError `audit`.
 */
export function checkTrail(
  trail: Bytes | string,
  servers: readonly (string | Bytes)[] = [],
  knowing: Knowing = {},
): Verdict {
  const trusted = servers.map((server) => publicKey(server, isPrimePoint, "server"));
  const { known = [], after = START } = settings(knowing, /^(known|after)$/);
  let waiting = known.filter(({ seq }) => seq >= after.seq);
  const pass = (head: Head): void => {
    const here = waiting.filter(({ seq }) => seq === head.seq);
    if (here.some(({ hash }) => hash !== head.hash)) {
      throw refused(`record ${head.seq} is not the one that was there`);
    }
    waiting = waiting.filter(({ seq }) => seq !== head.seq);
  };
  let [head, signed, decisions] = [after, 0, 0];
  // Hashes of the last records: no tree has more.
  let leaves: Bytes[] = [];
  pass(head);
  for (const each of numbered(bytesOf(trail), after)) {
    head = each.head;
    pass(head);
    const kind = each.record.get("kind");
    if (kind === "decision") decisions += 1;
    if (trusted.length === 0) continue;
    if (kind === "checkpoint") {
      if (!isSigned(each.record, each.before, trusted)) {
        throw refused(`checkpoint ${head.seq} is signed by no trusted server`);
      }
      checkTree(each.record, head.seq, leaves);
      signed = each.before.seq;
    }
    leaves.push(leaf(each.line));
    if (leaves.length > 2 * MOST_LEAVES) leaves = leaves.slice(-MOST_LEAVES);
  }
  if (waiting.length) {
    throw refused(`the trail ends at record ${head.seq}, and later ones were there before`);
  }
  return { head, signed, decisions };
}

/**
 * Did the server that the checkpoint names sign that it follows on `before`, and is it trusted
 * (39.4)?
 */
function isSigned(record: JsonObject, before: Head, servers: readonly Bytes[]): boolean {
  const [key, signature] = [b64exact(record.get("key"), 32), b64exact(record.get("signature"), 64)];
  const hash = b64exact(before.hash, 32);
  if (!key || !signature || !hash || !servers.some((server) => equal(server, key))) return false;
  return verify(key, concat(label("audit"), hash), signature);
}

// --- the tree of a checkpoint (39.4) -------------------------------------------------------------

export const MOST_LEAVES = 65_536;

export const leaf = (line: Bytes): Bytes => sha256(concat(Uint8Array.of(0), line));

/** The Merkle tree hash of RFC 6962. The last of an odd number goes up as it is. */
export function rootOf(leaves: readonly Bytes[]): Bytes | undefined {
  let level = [...leaves];
  while (level.length > 1) {
    const above: Bytes[] = [];
    for (let at = 0; at < level.length; at += 2) {
      const [left, right] = level.slice(at, at + 2) as [Bytes, Bytes?];
      above.push(right ? sha256(concat(Uint8Array.of(1), left, right)) : left);
    }
    level = above;
  }
  return level[0];
}

export const treeMessage = (first: number, count: number, root: Bytes): Bytes =>
  concat(label("audit tree"), bigEndian(first, 8), bigEndian(count, 8), root);

/**
 * Raises CaptokenError where a checkpoint, which its key has signed, has a tree of another shape, of
 * another's signature or of other records. Where it begins before `leaves`, in another file, its
 * root is not looked at.
 */
function checkTree(record: JsonObject, seq: number, leaves: readonly Bytes[]): void {
  const tree = record.get("tree");
  if (tree === undefined) return;
  const bad = refused(`the tree of checkpoint ${seq} is not what its server signed`);
  if (!isObject(tree) || tree.size !== 3) throw bad;
  const [key, first] = [b64exact(record.get("key"), 32), tree.get("first")];
  const [root, signature] = [b64exact(tree.get("root"), 32), b64exact(tree.get("signature"), 64)];
  if (!key || !root || !signature || !isInteger(first)) throw bad;
  const count = seq - first;
  if (first < 1 || count < 1 || count > MOST_LEAVES) throw bad;
  if (!verify(key, treeMessage(first, count, root), signature)) throw bad;
  if (count > leaves.length) return;
  const own = rootOf(leaves.slice(-count));
  if (!own || !equal(own, root)) {
    throw refused(`the tree of checkpoint ${seq} is of other records`);
  }
}

// --- values (39.6) -------------------------------------------------------------------------------

const DEEPEST = 24;
const mark = (said: Json): JsonObject => new Map([["~", said]]);

/**
 * Arguments or attributes as a record has them, values and all. Raises UsageError for no object.
 */
export function recorded(values: unknown): JsonObject {
  const stated = jsonOf(values);
  if (!isObject(stated)) throw new UsageError("arguments are an object");
  return new Map([...stated].map(([name, value]) => [name, recordedValue(value, DEEPEST)]));
}

/** A value as canonical JSON has it, told from every other. */
function recordedValue(value: Json, depth: number): Json {
  if (typeof value === "string" || typeof value === "boolean" || isInteger(value)) return value;
  if (typeof value === "bigint") {
    return mark(value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`);
  }
  if (value === null) return mark("null");
  if (value instanceof Float) return mark(requestJson(value));
  if (Array.isArray(value) && depth > 0) return value.map((item) => recordedValue(item, depth - 1));
  if (!isObject(value)) return mark("...");
  const isMark = value.size === 1 && value.has("~");
  const below = depth - (isMark ? 2 : 1);
  if (below < 0) return mark("...");
  const made: JsonObject = new Map(
    [...value].map(([key, item]) => [key, recordedValue(item, below)]),
  );
  return isMark ? mark(made) : made;
}
