/** The primitives, one rule once: hashes with their labels, the chain, signatures, boxes. */

import { hsalsa, xsalsa20poly1305 } from "@noble/ciphers/salsa.js";
import { Point, getPublicKey, hashes, sign as signBy } from "@noble/ed25519";
import { blake2b } from "@noble/hashes/blake2.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 as sha, sha512 } from "@noble/hashes/sha2.js";

import { b64encode, b64exact, bigEndian, concat, equal, utf8, type Bytes } from "./bytes.js";
import { UsageError } from "./errors.js";

export const sha256 = (bytes: Bytes): Bytes => sha(bytes);
export const H = (key: Bytes, message: Bytes): Bytes => hmac(sha, key, message);

/** What is hashed for one purpose is never taken for another (5.1). */
export const label = (purpose: string): Bytes => utf8(`captoken/v1 ${purpose}\0`);
export const labelled = (purpose: string, ...parts: readonly Bytes[]): Bytes =>
  sha256(concat(label(purpose), ...parts));

/** Fresh random bytes, by the engine's own source. */
export function randomBytes(length: number): Bytes {
  return globalThis.crypto.getRandomValues(new Uint8Array(length));
}

// --- the chain (spec, "Chain") -------------------------------------------------------------------

const ZEROS = new Uint8Array(32);

/** A caveat as it travels: a link, or with a vid a third party's. */
export interface RawCaveat {
  readonly cid: Bytes;
  readonly vid?: Bytes | undefined;
}

export const derive = (key: Bytes): Bytes => H(utf8("macaroons-key-generator"), key);

export function extend(tag: Bytes, { cid, vid }: RawCaveat): Bytes {
  return vid ? H(tag, concat(H(tag, vid), H(tag, cid))) : H(tag, cid);
}

/** The tag of the identifier, then the tag after each caveat. */
export function tagsOf(derived: Bytes, identifier: Bytes, caveats: readonly RawCaveat[]): Bytes[] {
  const tags = [H(derived, identifier)];
  for (const caveat of caveats) tags.push(extend(tags.at(-1)!, caveat));
  return tags;
}

export const bind = (signature: Bytes, tag: Bytes): Bytes =>
  H(ZEROS, concat(H(ZEROS, signature), H(ZEROS, tag)));

/** The public name of a link and all below it (6.1). */
export const linkId = (tag: Bytes): string => b64encode(labelled("link", tag).slice(0, 16));

/** A public commitment to the chain up to a link (28.3). */
export const stateOf = (tag: Bytes): Bytes => labelled("state", tag);

export const audienceKey = (key: Bytes, audience: string): Bytes =>
  H(key, concat(label("audience"), utf8(audience)));

// --- Ed25519 (28.1, 28.9, 27.5) ------------------------------------------------------------------

const P = 2n ** 255n - 19n;

function littleEndian(bytes: Bytes): bigint {
  let made = 0n;
  for (let at = bytes.length - 1; at >= 0; at--) made = (made << 8n) | BigInt(bytes[at]!);
  return made;
}

/** The highest bit is a sign, or nothing. */
const withoutSign = (bytes: Bytes): bigint => littleEndian(bytes) & (2n ** 255n - 1n);

const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;

/** The y of the points of low order (28.1): those of order 8 are one the other's negative. */
const EIGHT = 0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n;
const LOW = [0n, 1n, P - 1n, EIGHT, P - EIGHT];

/** Are these 32 bytes a key as a link may have it: canonical, and not of low order (28.1)? */
export function isSigningKey(bytes: Bytes): boolean {
  const y = withoutSign(bytes);
  return bytes.length === 32 && y < P && !LOW.includes(y);
}

/** S is below the order of the group, and neither R nor the key is of low order (28.9). */
const isPlausible = (key: Bytes, signature: Bytes): boolean =>
  signature.length === 64 &&
  isSigningKey(key) &&
  isSigningKey(signature.subarray(0, 32)) &&
  littleEndian(signature.subarray(32)) < ORDER;

/**
 * Does a signature hold, by the equation without the cofactor (28.9)? R is compared as bytes.
 */
export function verify(key: Bytes, message: Bytes, signature: Bytes): boolean {
  if (!isPlausible(key, signature)) return false;
  const R = signature.subarray(0, 32);
  const S = littleEndian(signature.subarray(32));
  try {
    const A = Point.fromBytes(key, false);
    const k = littleEndian(sha512(concat(R, key, message))) % ORDER;
    const left = Point.BASE.multiply(S, false).subtract(A.multiply(k, false));
    return equal(left.toBytes(), R);
  } catch {
    return false;
  }
}

const ED25519 = "Ed25519";
type Owned = Uint8Array<ArrayBuffer>;

/** The same by the engine, in a seventh of the time; undefined where it has no Ed25519. */
export async function verifyLater(
  key: Bytes,
  message: Bytes,
  signature: Bytes,
): Promise<boolean | undefined> {
  try {
    const { subtle } = globalThis.crypto;
    const held = await subtle.importKey("raw", key as Owned, ED25519, false, ["verify"]);
    return (
      isPlausible(key, signature) &&
      (await subtle.verify(ED25519, held, signature as Owned, message as Owned))
    );
  } catch {
    return undefined;
  }
}

// The hash is set at each use: whoever else on the page has the library sets it, too.

export function signingPublic(secret: Bytes): Bytes {
  hashes.sha512 = sha512;
  return getPublicKey(secret);
}

export function sign(secret: Bytes, message: Bytes): Bytes {
  hashes.sha512 = sha512;
  return signBy(message, secret);
}

/** Is it a point of the group of prime order, canonical (27.5)? */
export function isPrimePoint(bytes: Bytes): boolean {
  if (!isSigningKey(bytes)) return false;
  try {
    return Point.fromBytes(bytes, false).isTorsionFree();
  } catch {
    return false;
  }
}

// --- X25519 and the boxes of libsodium (spec, "Third-party caveats") -----------------------------

const mod = (value: bigint): bigint => ((value %= P) < 0n ? value + P : value);
const square = (value: bigint): bigint => mod(value * value);

/** X25519 (RFC 7748): the ladder of its section 5, with the same steps whatever the secret is. */
function exchange(secret: Bytes, x1: bigint): Bytes {
  const scalar = (littleEndian(secret) & (2n ** 254n - 8n)) | (2n ** 254n);
  let [x2, z2, x3, z3, swap] = [1n, 0n, x1, 1n, 0n];
  const swapped = (): void => {
    const [x, z] = [swap * (x2 - x3), swap * (z2 - z3)];
    [x2, z2, x3, z3] = [x2 - x, z2 - z, x3 + x, z3 + z];
  };
  for (let at = 254n; at >= 0n; at--) {
    const bit = (scalar >> at) & 1n;
    swap ^= bit;
    swapped();
    swap = bit;
    const [a, b, c, d] = [x2 + z2, x2 - z2, x3 + z3, x3 - z3];
    const [aa, bb, da, cb] = [square(a), square(b), mod(d * a), mod(c * b)];
    const e = aa - bb;
    [x3, z3] = [square(da + cb), mod(x1 * square(da - cb))];
    [x2, z2] = [mod(aa * bb), mod(e * (aa + 121665n * e))];
  }
  swapped();
  // By the theorem of Fermat.
  let inverse = 1n;
  for (let at = 254n; at >= 0n; at--) {
    inverse = mod(square(inverse) * (((P - 2n) >> at) & 1n ? z2 : 1n));
  }
  return bigEndian(mod(x2 * inverse), 32).reverse();
}

export const exchangePublic = (secret: Bytes): Bytes => exchange(secret, 9n);

/** What both share. Raises UsageError for a public key of low order. */
export function shared(secret: Bytes, other: Bytes): Bytes {
  const made = exchange(secret, withoutSign(other));
  if (made.some(Boolean)) return made;
  throw new UsageError("a public key that gives zeros with every secret");
}

/** Canonical, and not of low order (27.5)? */
export function isExchangeKey(bytes: Bytes): boolean {
  const point = littleEndian(bytes);
  return bytes.length === 32 && point < P && exchange(new Uint8Array(32), point).some(Boolean);
}

/** A public key that is given: 32 bytes or their text (27.5). Raises UsageError. */
export function publicKey(given: unknown, holds: (bytes: Bytes) => boolean, what: string): Bytes {
  const bytes = given instanceof Uint8Array ? Uint8Array.from(given) : b64exact(given, 32);
  if (bytes?.length !== 32 || !holds(bytes)) {
    throw new UsageError(`${what}: no public key, or one that is not canonical or of low order`);
  }
  return bytes;
}

export const secretBox = (key: Bytes, nonce: Bytes, message: Bytes): Bytes =>
  xsalsa20poly1305(key, nonce).encrypt(message);

/** What is in a box, or undefined where it does not open. */
export function openSecretBox(key: Bytes, nonce: Bytes, box: Bytes): Bytes | undefined {
  try {
    return xsalsa20poly1305(key, nonce).decrypt(box);
  } catch {
    return undefined;
  }
}

/** As words in the order of the machine, which `hsalsa` takes and gives. */
const words = (bytes: Bytes): Uint32Array => new Uint32Array(Uint8Array.from(bytes).buffer);

/** The key of a box between two parties: HSalsa20 of what they share. */
function boxKey(secret: Bytes, other: Bytes): Bytes {
  const made = new Uint32Array(8);
  hsalsa(words(utf8("expand 32-byte k")), words(shared(secret, other)), new Uint32Array(4), made);
  return new Uint8Array(made.buffer);
}

const sealedNonce = (ephemeral: Bytes, receiver: Bytes): Bytes =>
  blake2b(concat(ephemeral, receiver), { dkLen: 24 });

/** A sealed box for a public key, under an ephemeral secret that is used once. */
export function seal(receiver: Bytes, ephemeral: Bytes, message: Bytes): Bytes {
  const own = exchangePublic(ephemeral);
  const nonce = sealedNonce(own, receiver);
  return concat(own, secretBox(boxKey(ephemeral, receiver), nonce, message));
}

export function openSealed(secret: Bytes, box: Bytes): Bytes | undefined {
  if (box.length < 48) return undefined;
  const ephemeral = box.slice(0, 32);
  try {
    const nonce = sealedNonce(ephemeral, exchangePublic(secret));
    return openSecretBox(boxKey(secret, ephemeral), nonce, box.slice(32));
  } catch {
    return undefined;
  }
}
