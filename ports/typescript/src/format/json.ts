/**
 * JSON without loss: a reader that keeps what `JSON.parse` loses, and the two writers.
 *
 * An integer is a number if it is safe, else a bigint. Any other number is a `Float`, so that `1.0`
 * is not `1`. Objects are Maps, in the order of the text: no key is special.
 */

import { byCodePoint, text, utf8, type Bytes } from "./bytes.js";
import { Unstated, UsageError } from "./errors.js";

/** A number that is no integer by its spelling: `1.0`, `0.5`, `1e3`. */
export class Float {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
    Object.freeze(this);
  }
}

/** The number as a fraction, also where it is whole: what another language writes as `1.0`. */
export function float(value: number): Float {
  return new Float(value);
}

export type Json = null | boolean | number | bigint | Float | string | Json[] | JsonObject;
export type JsonObject = Map<string, Json>;

export const isObject = (value: unknown): value is JsonObject => value instanceof Map;
export const isInteger = (value: unknown): value is number => Number.isSafeInteger(value);

const BLANK = /[ \t\n\r]*/y;
const NUMBER = /(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const WORDS: readonly (readonly [string, Json])[] = [
  ["true", true],
  ["false", false],
  ["null", null],
];
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};
const SURROGATE = /\p{Surrogate}/u;

export const isWellFormed = (value: string): boolean => !SURROGATE.test(value);

/** A reader of one text. What it raises is a SyntaxError. */
const bad = (what: string): SyntaxError => new SyntaxError(what);

class Reader {
  private at = 0;

  constructor(
    private readonly source: string,
    private readonly deepest: number,
  ) {}

  whole(): Json {
    const value = this.value(0);
    this.match(BLANK);
    if (this.at !== this.source.length) throw bad("more than one value");
    return value;
  }

  private match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.source);
    if (found) this.at = pattern.lastIndex;
    return found;
  }

  /** Is this the next character, white space left out? Then it is passed. */
  private next(character: string): boolean {
    this.match(BLANK);
    if (this.source[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  private value(depth: number): Json {
    if (depth > this.deepest) throw bad("nested too deep");
    if (this.next("{")) return this.object(depth);
    if (this.next("[")) return this.array(depth);
    if (this.next('"')) return this.string();
    for (const [word, value] of WORDS) {
      if (this.source.startsWith(word, this.at)) {
        this.at += word.length;
        return value;
      }
    }
    const found = this.match(NUMBER);
    if (!found) throw bad("no value");
    return (found[2] ?? found[3]) ? new Float(Number(found[0])) : integer(found[0]);
  }

  private object(depth: number): JsonObject {
    const made: JsonObject = new Map();
    if (this.next("}")) return made;
    do {
      if (!this.next('"')) throw bad("no key");
      const key = this.string();
      if (!this.next(":")) throw bad("no colon");
      made.set(key, this.value(depth + 1));
    } while (this.next(","));
    if (!this.next("}")) throw bad("an object without an end");
    return made;
  }

  private array(depth: number): Json[] {
    const made: Json[] = [];
    if (this.next("]")) return made;
    do made.push(this.value(depth + 1));
    while (this.next(","));
    if (!this.next("]")) throw bad("an array without an end");
    return made;
  }

  private string(): string {
    let made = "";
    for (;;) {
      made += this.match(PLAIN)![0];
      const character = this.source[this.at++];
      if (character === '"') return made;
      if (character !== "\\") throw bad("a string without an end");
      made += this.escaped();
    }
  }

  private escaped(): string {
    const character = this.source[this.at++] ?? "";
    if (character !== "u") {
      const escaped = ESCAPES[character];
      if (escaped === undefined) throw bad("an escape that is none");
      return escaped;
    }
    const digits = this.source.slice(this.at, this.at + 4);
    if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw bad("an escape that is none");
    this.at += 4;
    return String.fromCharCode(parseInt(digits, 16));
  }
}

function integer(digits: string): number | bigint {
  const value = Number(digits);
  return Number.isSafeInteger(value) ? value + 0 : BigInt(digits);
}

/**
 * The value that text spells, nothing lost. Raises SyntaxError. A key that comes twice counts last.
 */
export function parseJson(source: string, deepest = 2000): Json {
  return new Reader(source, deepest).whole();
}

// --- canonical JSON (spec, "Canonical JSON") -----------------------------------------------------

const DEEPEST = 32;

/** A value in canonical form. Raises UsageError for what has none. */
export function canonical(value: Json, depth = 0): string {
  if (depth > DEEPEST && (isObject(value) || Array.isArray(value))) {
    throw new UsageError(`nested deeper than ${DEEPEST} levels`);
  }
  if (typeof value === "boolean") return String(value);
  if (typeof value === "number" && isInteger(value)) return String(value);
  if (typeof value === "string") {
    if (!isWellFormed(value)) throw new UsageError("a lone surrogate");
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item, depth + 1)).join(",")}]`;
  if (isObject(value)) {
    // The order of strings in JavaScript is that of UTF-16 units (2.6).
    const keys = [...value.keys()].sort();
    const pairs = keys.map((key) => `${canonical(key)}:${canonical(value.get(key)!, depth + 1)}`);
    return `{${pairs.join(",")}}`;
  }
  throw new UsageError("canonical JSON has no null, no fraction and no integer from 2^53 on");
}

/**
 * The object that bytes spell in canonical form, or undefined (2.8): decoded, encoded, compared.
 */
export function canonicalObject(bytes: Bytes): JsonObject | undefined {
  const source = text(bytes);
  return source === undefined ? undefined : canonicalText(source);
}

export function canonicalText(source: string): JsonObject | undefined {
  try {
    const value = parseJson(source, DEEPEST + 1);
    return isObject(value) && canonical(value) === source ? value : undefined;
  } catch {
    return undefined;
  }
}

/** `within` is how many levels there are around it where it is to stand. */
export const canonicalBytes = (value: Json, within = 0): Bytes => utf8(canonical(value, within));

// --- the JSON of requests (29.4) -----------------------------------------------------------------

/**
 * In ASCII, keys by code point, fractions as they are. Raises UsageError for what has no spelling.
 */
export function requestJson(value: Json): string {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "string") return ascii(value);
  if (value instanceof Float) return fraction(value.value);
  if (Array.isArray(value)) return `[${value.map(requestJson).join(",")}]`;
  if (isObject(value)) {
    const keys = [...value.keys()].sort(byCodePoint);
    return `{${keys.map((key) => `${ascii(key)}:${requestJson(value.get(key)!)}`).join(",")}}`;
  }
  const digits = String(value);
  if (digits.length > 4300) throw new UsageError("an integer of more than 4300 digits");
  return digits;
}

function ascii(value: string): string {
  if (!isWellFormed(value)) throw new UsageError("a lone surrogate");
  return JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** The fewest digits that read back as the same double: `1.0`, `1e-05`, `1e+16`. */
function fraction(value: number): string {
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  const [mantissa = "", power = ""] = Math.abs(value).toExponential().split("e");
  const digits = mantissa.replace(".", "");
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) {
    const size = String(Math.abs(exponent)).padStart(2, "0");
    return `${sign}${mantissa}e${exponent < 0 ? "-" : "+"}${size}`;
  }
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}

// --- values of a program -------------------------------------------------------------------------

/**
 * A value of JavaScript as JSON, copied: what was read is all that is used (7.10).
 *
 * A whole number is an integer; say `float(1)` for `1.0`. From 2^53 on a number does not tell which
 * integer it was, and is a fraction. Raises UsageError for what is no JSON: NaN, infinity, a lone
 * surrogate, undefined.
 */
export function jsonOf(value: unknown): Json {
  try {
    return read(value);
  } catch (error) {
    if (error instanceof RangeError) throw new Unstated("a value that is nested too deep");
    throw error;
  }
}

function read(value: unknown): Json {
  switch (typeof value) {
    case "boolean":
      return value;
    case "string":
      if (!isWellFormed(value)) throw new Unstated("a string with a lone surrogate");
      return value;
    case "number":
      return readNumber(value);
    case "bigint":
      return Number.isSafeInteger(Number(value)) ? Number(value) : value;
    case "object":
      return readObject(value);
    default:
      throw new UsageError(`a value that is no JSON: ${typeof value}`);
  }
}

function readNumber(value: number): Json {
  if (Number.isSafeInteger(value)) return value + 0;
  if (!Number.isFinite(value)) throw new Unstated("a number that is not finite", true);
  return new Float(value);
}

function readObject(value: object | null): Json {
  if (value === null) return null;
  if (value instanceof Float) {
    const { value: number } = value;
    if (!Number.isFinite(number)) throw new Unstated("a number that is not finite", true);
    return new Float(number);
  }
  if (Array.isArray(value)) return Array.from(value, read);
  return objectOf(value, "a value");
}

/** The members of a plain object or a Map, copied. */
function objectOf(value: object, what: string): JsonObject {
  const made: JsonObject = new Map();
  for (const [key, member] of entriesOf(value, what)) {
    if (typeof key !== "string") throw new UsageError(`${what}: a key that is no text`);
    if (!isWellFormed(key)) throw new Unstated(`${what}: a key with a lone surrogate`);
    made.set(key, read(member));
  }
  return made;
}

/**
 * The own members of a plain object or a Map, all of them, read once. Raises UsageError for any
 * other object: what it inherits would not be read.
 */
export function entriesOf(value: unknown, what: string): [unknown, unknown][] {
  if (value instanceof Map) return [...Map.prototype.entries.call(value)] as [unknown, unknown][];
  if (isPlain(value)) {
    return Reflect.ownKeys(value).map((key) => [key, (value as Record<PropertyKey, unknown>)[key]]);
  }
  throw new UsageError(`${what} must be a plain object or a Map`);
}

/** Its prototype is none, or that of objects, perhaps of another realm. */
function isPlain(value: unknown): value is object {
  if (typeof value !== "object" || value === null) return false;
  const parent = Object.getPrototypeOf(value) as object | null;
  if (parent === null || parent === Object.prototype) return true;
  return Object.getPrototypeOf(parent) === null && Object.keys(parent).length === 0;
}

/**
 * JSON as JavaScript has it, frozen: Maps become objects without a prototype. Fractions stay as they
 * are, or become numbers, which compare.
 */
export function plain(value: Json, isCompared = false): unknown {
  if (value instanceof Float) return isCompared ? value.value : value;
  if (Array.isArray(value)) return Object.freeze(value.map((item) => plain(item, isCompared)));
  if (!isObject(value)) return value;
  const made = Object.create(null) as Record<string, unknown>;
  for (const [key, member] of value) made[key] = plain(member, isCompared);
  return Object.freeze(made);
}
