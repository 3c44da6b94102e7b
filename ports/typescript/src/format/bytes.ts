/** Bytes as text and text as bytes (spec, "Encoding"). */

export type Bytes = Uint8Array;

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const SIXES = new Map([...ALPHABET].map((character, six) => [character, six]));

export function utf8(text: string): Bytes {
  return new TextEncoder().encode(text);
}

/** The text of bytes, or undefined for what is no UTF-8. A byte order mark stays. */
export function text(bytes: Bytes): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

export function concat(...parts: readonly Bytes[]): Bytes {
  const made = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    made.set(part, at);
    at += part.length;
  }
  return made;
}

/** Unpadded base64url, bits that no byte uses being zero. */
export function b64encode(bytes: Bytes): string {
  let made = "";
  let bits = 0;
  let held = 0;
  for (const byte of bytes) {
    held = (held << 8) | byte;
    bits += 8;
    while (bits >= 6) {
      bits -= 6;
      made += ALPHABET[(held >> bits) & 63];
    }
    held &= 63;
  }
  return bits ? made + ALPHABET[(held << (6 - bits)) & 63] : made;
}

/** The bytes that text spells in the one spelling, or undefined (1.1 to 1.3). */
export function b64decode(spelled: string): Bytes | undefined {
  if (spelled.length % 4 === 1) return undefined;
  const made = new Uint8Array((spelled.length * 3) >> 2);
  let bits = 0;
  let held = 0;
  let at = 0;
  for (const character of spelled) {
    const six = SIXES.get(character);
    if (six === undefined) return undefined;
    held = (held << 6) | six;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      made[at++] = held >> bits;
      held &= (1 << bits) - 1;
    }
  }
  return held === 0 ? made : undefined;
}

/** The bytes, if the text spells exactly so many. */
export function b64exact(spelled: unknown, length: number): Bytes | undefined {
  if (typeof spelled !== "string" || spelled.length > 2 * length) return undefined;
  const bytes = b64decode(spelled);
  return bytes?.length === length ? bytes : undefined;
}

/** Are they equal? The time tells the lengths alone. */
export function equal(one: Bytes, two: Bytes): boolean {
  if (one.length !== two.length) return false;
  let differing = 0;
  for (let at = 0; at < one.length; at++) differing |= one[at]! ^ two[at]!;
  return differing === 0;
}

export function hex(bytes: Bytes): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function unhex(spelled: string): Bytes {
  return Uint8Array.from({ length: spelled.length / 2 }, (_, at) =>
    parseInt(spelled.slice(2 * at, 2 * at + 2), 16),
  );
}

/** A number as so many bytes, most significant first. */
export function bigEndian(value: number | bigint, length: number): Bytes {
  const made = new Uint8Array(length);
  let left = BigInt(value);
  for (let at = length - 1; at >= 0; at--) {
    made[at] = Number(left & 255n);
    left >>= 8n;
  }
  return made;
}

/** By code point: it differs from `<` of strings beyond U+FFFF. */
export function byCodePoint(one: string, two: string): number {
  const length = Math.min(one.length, two.length);
  for (let at = 0; at < length; at++) {
    const a = one.charCodeAt(at);
    const b = two.charCodeAt(at);
    if (a !== b) {
      // Halves of a pair stand for code points above all others.
      const above = (unit: number): number =>
        unit >= 0xd800 && unit < 0xe000 ? 0x10000 + unit : unit;
      return above(a) - above(b);
    }
  }
  return one.length - two.length;
}
