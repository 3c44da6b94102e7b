/** What a store on a server is asked, and what it says: the same for all servers. */

import { b64decode, hex } from "../format/bytes.js";
import { CaptokenError, UsageError } from "../format/errors.js";
import { atLeast, settings } from "../format/given.js";
import { isName } from "../format/names.js";
import type { Mark, Marked, Reservation, Reserved, Step } from "../stores.js";
import { FULL, KEPT, MISSING } from "./figures.js";

/** What a store raises: it denies. It names no address and no key. */
export const storeError = (text: string): CaptokenError => new CaptokenError(text, "store");

export const missing = (server: string): CaptokenError =>
  storeError(`${server}: there is no store here: create makes one`);

export const thereAlready = (server: string): CaptokenError =>
  storeError(`${server}: this store already exists: open it, or choose another place`);

export const noAnswer = (server: string): CaptokenError =>
  storeError(`${server}: an answer that this version of captoken does not expect`);

/** Of tables or keys that another release made. */
export function checkVersion(server: string, store: string, found: number, own: number): void {
  if (found === own) return;
  throw storeError(
    `${server}: ${store} has schema version ${found}, and this captoken needs ${own}: ` +
      (found > own ? "install a newer captoken here" : "run `captoken upgrade`, of captoken for Python"),
  );
}

/** What a store is made with that is not there yet. */
export interface Making {
  /**
   * The ids of root keys that are made in the same act, and of no others: for their tokens the
   * store takes everything at once, since none can have been used before (31.6, 38.15).
   */
  readonly keys?: readonly string[];
  /** For tests alone: in place of the one by the clocks. */
  readonly floor?: number;
}

/** What it is made with, and the rest of what is said. */
export function makingOf<T extends object>(given: T & Making): { making: Making; rest: T } {
  const { keys = [], floor, ...rest } = settings(given as Making);
  if (!Array.isArray(keys) || !keys.every(isName)) throw new UsageError("keys are ids of keys");
  const making = { keys, ...(floor !== undefined && { floor: atLeast(floor, 0, "floor") }) };
  return { making, rest: rest as T };
}

/** Seconds since the epoch. */
export type Clock = () => number;

/** A whole number, as a client has it: some give numbers, some digits. */
export function wholeOf(answer: unknown, server: string): number {
  const number = typeof answer === "string" && /^-?\d{1,16}$/.test(answer) ? Number(answer) : answer;
  if (!Number.isSafeInteger(number)) throw noAnswer(server);
  return number as number;
}

/** The bytes that an id spells, in hexadecimal. */
export const hexOf = (id: string): string => hex(b64decode(id) ?? new Uint8Array());

/** Until when what is kept until then stays. */
export const keptUntil = (end: number | undefined): number | undefined =>
  end === undefined ? undefined : end + KEPT;

/** The marks of a step, each once and with the latest end: its own before those of its rules. */
export interface Numbered {
  readonly marks: readonly Mark[];
  readonly own: number;
  /** Of each rule the numbers of its marks, from 1. */
  readonly rules: readonly (readonly number[])[];
}

export function numbered({ marks, rules }: Marked): Numbered {
  const found = new Map<string, Mark>();
  for (const mark of marks) found.set(mark.bucket, mark);
  const own = found.size;
  for (const mark of [...marks, ...rules.flatMap(({ after }) => after)]) {
    const known = found.get(mark.bucket) ?? mark;
    const ends = [known.keptUntil, mark.keptUntil];
    const latest = ends.includes(undefined) ? undefined : Math.max(...(ends as number[]));
    found.set(mark.bucket, { ...known, keptUntil: latest });
  }
  const names = [...found.keys()];
  const numbers = rules.map(({ after }) => after.map(({ bucket }) => names.indexOf(bucket) + 1));
  return { marks: [...found.values()], own, rules: numbers };
}

const MOST_SAID = 200;

/** Who did it, and what, in a few words without values: for the operator who asks why. */
export function saidOf({ holder, access }: Step): string {
  const { table, operation, columns, tool, cost } = access;
  const said: string[] = [];
  if (table !== undefined) {
    const of = columns ? ` (${columns.join(", ") || "no columns"})` : "";
    said.push(`${operation} on table ${table}${of}`);
  }
  if (tool !== undefined) said.push(`tool ${tool}(${[...(access.arguments?.keys() ?? [])].join(", ")})`);
  if (access.attributes.size) said.push(`with ${[...access.attributes.keys()].join(", ")}`);
  const costs = [...cost].sort(([one], [two]) => (one < two ? -1 : 1));
  if (costs.length) said.push(`costing ${costs.map(([unit, amount]) => `${amount} ${unit}`).join(", ")}`);
  const text = `${holder}: ${said.join(" and ") || "nothing in particular"}`;
  return [...text].slice(0, MOST_SAID).join("");
}

/** What a reservation comes to, by the number that the server says. */
export function reservedBy(
  server: string,
  answer: number,
  { debits }: Reservation,
  own: readonly Mark[] = [],
): Reserved {
  if (answer === 0) return "reserved";
  if (answer === MISSING) throw missing(server);
  if (answer === -1 || answer === -2) return "unavailable";
  const mark = own[answer - 2 * FULL - 1];
  const debit = debits[(answer > FULL ? answer - FULL : answer) - 1];
  const link = mark ? mark.link : debit?.link;
  if (link === undefined) throw noAnswer(server);
  return { short: link };
}

/** What a step comes to: a number alone, or a rule that holds and what its marks were set by. */
export function steppedBy(
  server: string,
  parts: readonly string[],
  reservation: Reservation,
  { rules }: Marked,
  { marks, own }: Numbered,
): Reserved {
  const first = wholeOf(parts[0], server);
  if (parts.length === 1) return reservedBy(server, first, reservation, marks.slice(0, own));
  const after = rules[first]?.after;
  if (!after || after.length !== parts.length - 1) throw noAnswer(server);
  return { forbidden: first, set: after.filter((_, at) => parts[at + 1] !== "") };
}
