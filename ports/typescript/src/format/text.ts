/** The text of a token, and what follows it: discharges and a proof (spec, "Token"). */

import { b64decode, b64encode, hex, utf8, type Bytes } from "./bytes.js";
import { LimitError, TokenFormatError } from "./errors.js";
import {
  DISCHARGE,
  MAX_FIELD,
  MAX_LINKS,
  TOKEN,
  packetBytes,
  parsePacket,
  type Packet,
  type Shape,
} from "./packet.js";

export const PREFIX = "cap1_";
/** Of a set of tokens, which is no token to any server (45.4). */
export const SET_PREFIX = "caps1_";
const UNBOUND = "cap1u_";
const BOUND = "cap1d_";
const PROOF = "cap1p_";
const CONSENT = "cap1a_";
export type Kind = typeof UNBOUND | typeof BOUND;
export { BOUND, UNBOUND };

const MAX_TEXT = 8192;
export const MAX_BUNDLE = 32768;
export const MAX_DISCHARGES = 16;
const PROOF_BYTES = 88;
const PROOF_CHARS = 118;
const CONSENT_BYTES = 128;
const MAX_CONSENTS = 16;

export interface Parts {
  readonly packet: Packet;
  readonly discharges: readonly Packet[];
  /** The 88 bytes of a proof, if the text ends in one. */
  readonly proof?: Bytes | undefined;
  /** The 128 bytes of each consent, in the order of their questions. */
  readonly consents?: readonly Bytes[];
}

function part(text: string, prefix: string, shape: Shape): Packet {
  if (!text.startsWith(prefix)) {
    throw new TokenFormatError(`a part that does not start with ${prefix}`);
  }
  const bytes = b64decode(text.slice(prefix.length));
  if (!bytes) throw new TokenFormatError("no base64url, or not in its one spelling");
  return parsePacket(bytes, shape);
}

function proofOf(text: string): Bytes {
  const spelled = text.slice(PROOF.length);
  const bytes = spelled.length === PROOF_CHARS ? b64decode(spelled) : undefined;
  if (bytes?.length !== PROOF_BYTES) throw new TokenFormatError("a proof that is none");
  return bytes;
}

/** At most 16, in the order of their questions, one to each (47.4). */
function consentsOf(texts: readonly string[]): Bytes[] {
  const found = texts.map((text) => b64decode(text.slice(CONSENT.length)));
  const names = found.map((each) => each && hex(each.slice(0, 32)));
  const isInOrder = names.every((name, at) => at === 0 || names[at - 1]! < name!);
  const areThey = found.every((each) => each?.length === CONSENT_BYTES);
  if (found.length > MAX_CONSENTS || !areThey || !isInOrder) {
    throw new TokenFormatError("consents that are none, or out of order");
  }
  return found as Bytes[];
}

/** The parts that `text` spells. Raises TokenFormatError. Sizes and counts come first (3.1). */
export function partsOf(text: unknown, kind: Kind): Parts {
  if (typeof text !== "string") throw new TokenFormatError("no text");
  if (text.startsWith(SET_PREFIX)) {
    throw new TokenFormatError("a set of tokens: send what present makes of it for one server");
  }
  if (text.length > MAX_BUNDLE) throw new TokenFormatError(`more than ${MAX_BUNDLE} characters`);
  const [token = "", ...behind] = text.split(".");
  const last = behind.at(-1);
  const proofText = kind === BOUND && last?.startsWith(PROOF) ? behind.pop() : undefined;
  const isConsent = (each: string): boolean => kind === BOUND && each.startsWith(CONSENT);
  const first = behind.findIndex(isConsent);
  const consents = first < 0 ? [] : behind.splice(first);
  if (!consents.every(isConsent)) throw new TokenFormatError("consents stand last");
  if (behind.length > MAX_DISCHARGES) {
    throw new TokenFormatError(`more than ${MAX_DISCHARGES} discharges`);
  }
  if ([token, ...behind].some((each) => each.length > MAX_TEXT)) {
    throw new TokenFormatError(`more than ${MAX_TEXT} characters`);
  }
  return {
    packet: part(token, PREFIX, TOKEN),
    discharges: behind.map((each) => part(each, kind, DISCHARGE)),
    proof: proofText === undefined ? undefined : proofOf(proofText),
    consents: consentsOf(consents),
  };
}

/** A discharge alone, unbound. */
export function dischargeOf(text: unknown): Packet {
  if (typeof text !== "string" || text.length > MAX_TEXT) {
    throw new TokenFormatError("no discharge");
  }
  return part(text, UNBOUND, DISCHARGE);
}

export const packetText = (packet: Packet, prefix = PREFIX): string =>
  prefix + b64encode(packetBytes(packet));

export function wholeText(packet: Packet, discharges: readonly Packet[], kind: Kind): string {
  return [packetText(packet), ...discharges.map((each) => packetText(each, kind))].join(".");
}

export const proofText = (proof: Bytes): string => PROOF + b64encode(proof);

/** The text without its proof. */
export function withoutProof(text: string): string {
  const at = text.lastIndexOf(".");
  return text.startsWith(PROOF, at + 1) ? text.slice(0, Math.max(at, 0)) : text;
}

/** Would readers take the packet? Raises LimitError (3.2). */
export function checkLimits(packet: Packet, shape: Shape = TOKEN): void {
  const longest = Math.max(...packet.caveats.map(({ cid }) => cid.length));
  if (packet.identifier.length > shape.identifier || longest > MAX_FIELD) {
    throw new LimitError(`a field is longer than readers take: ${longest} bytes`);
  }
  if (packet.caveats.length > MAX_LINKS) throw new LimitError(`more than ${MAX_LINKS} links`);
  const length = packetText(packet, shape === TOKEN ? PREFIX : UNBOUND).length;
  if (length > MAX_TEXT) {
    throw new LimitError(`the text would be ${length} characters, more than ${MAX_TEXT}`);
  }
}

/** Would readers take the token with its discharges? */
export function checkBundle(packet: Packet, discharges: readonly Packet[]): void {
  checkLimits(packet);
  const length = wholeText(packet, discharges, UNBOUND).length;
  if (discharges.length > MAX_DISCHARGES || length > MAX_BUNDLE) {
    throw new LimitError(
      `the text would be ${length} characters, with ${discharges.length} discharges`,
    );
  }
}

export const textBytes = (text: string): Bytes => utf8(text);
