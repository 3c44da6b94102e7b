/** Names, task paths, free names, patterns (spec, "Names"). By the Unicode tables of the engine. */

import { utf8 } from "./bytes.js";

const NAME = /^[A-Za-z0-9._:/@+-]{1,128}$/;
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]|^\p{Zs}|\p{Zs}$/u;

export function isName(value: unknown): value is string {
  return typeof value === "string" && NAME.test(value);
}

export function isTask(value: unknown): value is string {
  return isName(value) && value.split("/").every((part) => !["", ".", ".."].includes(part));
}

/** Is task `one` at or below task `two` (4.2)? */
export function atOrBelow(one: string, two: string): boolean {
  return one === two || one.startsWith(`${two}/`);
}

/** A name with something on both sides of its first colon (4.3). */
export function isNamespaced(value: unknown): value is string {
  if (!isName(value)) return false;
  const colon = value.indexOf(":");
  return colon > 0 && colon < value.length - 1;
}

/** Of a table, a column, an argument, a string in a constraint (4.4). */
export function isFree(value: unknown): value is string {
  if (typeof value !== "string" || value === "" || value.length > 256) return false;
  return !HIDDEN.test(value) && utf8(value).length <= 256;
}

/** A table or a tool that is accessed (4.5). */
export function isSegmented(value: unknown): value is string {
  return isFree(value) && !value.includes("*") && !value.split(".").includes("");
}

export function isPattern(value: unknown): value is string {
  if (!isFree(value)) return false;
  const segments = value.split(".");
  if (segments.at(-1) === "*") segments.pop();
  return segments.every((segment) => segment !== "" && !segment.includes("*"));
}
