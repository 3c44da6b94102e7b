/** IP addresses and blocks of them, in one spelling each (spec 13.14, 13.15). */

export interface Block {
  /** 32 or 128. */
  readonly bits: number;
  readonly start: bigint;
  readonly length: number;
}

const DECIMAL = /^(0|[1-9][0-9]{0,2})$/;
const GROUP = /^(0|[1-9a-f][0-9a-f]{0,3})$/;
const MAPPED: Block = { bits: 128, start: 0xffff00000000n, length: 96 };

/** The single address that text spells, as a block of full length; or undefined. */
export function address(text: string): Block | undefined {
  const start = text.includes(":") ? sixth(text) : fourth(text);
  if (start === undefined) return undefined;
  const bits = text.includes(":") ? 128 : 32;
  const made = { bits, start, length: bits };
  return holds(MAPPED, made) ? undefined : made;
}

function fourth(text: string): bigint | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let made = 0n;
  for (const part of parts) {
    if (!DECIMAL.test(part) || Number(part) > 255) return undefined;
    made = (made << 8n) | BigInt(part);
  }
  return made;
}

/** Read, spelled again, compared: so there is one spelling, that of RFC 5952. */
function sixth(text: string): bigint | undefined {
  if (text.length > 39) return undefined;
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const [head = [], tail = []] = halves.map((half) => (half === "" ? [] : half.split(":")));
  const missing = halves.length === 2 ? 8 - head.length - tail.length : 0;
  if (missing < 0) return undefined;
  const groups = [...head, ...Array<string>(missing).fill("0"), ...tail];
  if (groups.length !== 8 || !groups.every((group) => GROUP.test(group))) return undefined;
  const made = groups.reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n);
  return spellSixth(made) === text ? made : undefined;
}

function spellSixth(value: bigint): string {
  const groups = Array.from({ length: 8 }, (_, at) =>
    ((value >> BigInt(16 * (7 - at))) & 0xffffn).toString(16),
  );
  let best = { at: 0, length: 1 };
  for (let at = 0; at < 8; at++) {
    let length = 0;
    while (groups[at + length] === "0") length += 1;
    if (length > best.length) best = { at, length };
  }
  if (best.length === 1) return groups.join(":");
  return `${groups.slice(0, best.at).join(":")}::${groups.slice(best.at + best.length).join(":")}`;
}

function spell({ bits, start }: Block): string {
  if (bits === 128) return spellSixth(start);
  return [24n, 16n, 8n, 0n].map((shift) => (start >> shift) & 255n).join(".");
}

export const spellBlock = (block: Block): string => `${spell(block)}/${block.length}`;

/** The block that an entry spells, or undefined. */
export function block(text: string): Block | undefined {
  const [at = "", digits = "", ...more] = text.split("/");
  if (more.length || !DECIMAL.test(digits)) return undefined;
  const start = address(at);
  const length = Number(digits);
  if (!start || length > start.bits) return undefined;
  const made = { ...start, length };
  const loose = start.start & ((1n << BigInt(start.bits - length)) - 1n);
  return loose !== 0n || holds(made, MAPPED) ? undefined : made;
}

/** Is the inner block all in the outer one? */
export function holds(outer: Block, inner: Block): boolean {
  if (outer.bits !== inner.bits || outer.length > inner.length) return false;
  const shift = BigInt(outer.bits - outer.length);
  return outer.start >> shift === inner.start >> shift;
}

/** The block that is twice as wide. */
function wider({ bits, start, length }: Block): Block {
  const shift = BigInt(bits - length + 1);
  return { bits, start: (start >> shift) << shift, length: length - 1 };
}

/** The fewest blocks that hold the same: none within another, halves merged (normal form). */
export function merged(given: readonly Block[]): Block[] {
  const blocks = new Map(given.map((each) => [spellBlock(each), each]));
  for (const each of blocks.values()) {
    for (let above = each; above.length > 0;) {
      above = wider(above);
      if (blocks.has(spellBlock(above))) {
        blocks.delete(spellBlock(each));
        break;
      }
    }
  }
  const left = [...blocks.values()];
  for (let each = left.pop(); each; each = left.pop()) {
    if (each.length === 0 || !blocks.has(spellBlock(each))) continue;
    const whole = wider(each);
    const other = { ...each, start: each.start ^ (1n << BigInt(each.bits - each.length)) };
    if (blocks.has(spellBlock(other))) {
      blocks.delete(spellBlock(each));
      blocks.delete(spellBlock(other));
      blocks.set(spellBlock(whole), whole);
      left.push(whole);
    }
  }
  return [...blocks.values()];
}
