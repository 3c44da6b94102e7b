/**
 * IP addresses and blocks of them, in one spelling each (spec 13.14, 13.15).
 *
 * Each is a text: its version, `4` or `6`, and its bits. A block holds what begins with it.
 */

import { shortest } from "./sorted.js";

const MOST_CHARS = 39; // eight groups of four digits, with colons between
const DECIMAL = /^(0|[1-9][0-9]{0,2})$/;
const GROUP = /^(0|[1-9a-f][0-9a-f]{0,3})$/;
const MAPPED = `6${"0".repeat(80)}${"1".repeat(16)}`;

const bits = (parts: readonly string[], base: number, width: number): string =>
  parts.map((part) => parseInt(part, base).toString(2).padStart(width, "0")).join("");

/** The bits of the address that text spells, or undefined. */
export function address(text: string): string | undefined {
  if (text.length > MOST_CHARS) return undefined;
  const made = text.includes(":") ? sixth(text) : fourth(text);
  return made?.startsWith(MAPPED) ? undefined : made;
}

function fourth(text: string): string | undefined {
  const parts = text.split(".");
  const isOne =
    parts.length === 4 && parts.every((part) => DECIMAL.test(part) && Number(part) <= 255);
  return isOne ? `4${bits(parts, 10, 8)}` : undefined;
}

/** Read, spelled again, compared: so there is one spelling, that of RFC 5952. */
function sixth(text: string): string | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const [head = [], tail = []] = halves.map((half) => (half === "" ? [] : half.split(":")));
  const missing = halves.length === 2 ? 8 - head.length - tail.length : 0;
  if (missing < 0) return undefined;
  const groups = [...head, ...Array<string>(missing).fill("0"), ...tail];
  if (groups.length !== 8 || !groups.every((group) => GROUP.test(group))) return undefined;
  return spellSixth(groups) === text ? `6${bits(groups, 16, 16)}` : undefined;
}

/** The first of the longest runs of two zeros or more is left out. */
function spellSixth(groups: readonly string[]): string {
  const whole = `:${groups.join(":")}:`;
  const runs = whole.match(/(?::0){2,}(?=:)/g) ?? [":"];
  const longest = runs.reduce((best, run) => (run.length > best.length ? run : best));
  const short = longest === ":" ? whole : whole.replace(`${longest}:`, "::");
  return short.replace(/^:(?!:)|(?<!:):$/g, "");
}

export function spellBlock(block: string): string {
  const isSixth = block.startsWith("6");
  const [base, width] = isSixth ? [16, 16] : [10, 8];
  const all = block.slice(1).padEnd(isSixth ? 128 : 32, "0");
  const parts = Array.from({ length: all.length / width }, (_, at) =>
    parseInt(all.slice(at * width, (at + 1) * width), 2).toString(base),
  );
  return `${isSixth ? spellSixth(parts) : parts.join(".")}/${block.length - 1}`;
}

/** The bits of the block that an entry spells, or undefined. */
export function block(text: string): string | undefined {
  const [at = "", digits = "", ...more] = text.split("/");
  if (more.length || !DECIMAL.test(digits)) return undefined;
  const first = address(at);
  const end = Number(digits) + 1;
  // What is behind the length is free, and has to be zero.
  if (!first || end > first.length || first.includes("1", end)) return undefined;
  const made = first.slice(0, end);
  return MAPPED.startsWith(made) ? undefined : made;
}

/** The fewest blocks that hold the same, in order: none within another, halves made whole. */
export function merged(blocks: Iterable<string>): string[] {
  const kept: string[] = [];
  for (let each of shortest(blocks)) {
    while (each.endsWith("1") && kept.at(-1) === `${each.slice(0, -1)}0`) {
      kept.pop();
      each = each.slice(0, -1);
    }
    kept.push(each);
  }
  return kept;
}
