/** Names, task paths, free names, patterns (spec, "Names"). */

import { utf8 } from "./bytes.js";

const NAME = /^[A-Za-z0-9._:/@+-]{1,128}$/;
/** The categories of 4.8, whatever the tables of the engine. */
const SPACE = String.raw`[ \xa0\u1680\u2000-\u200a\u202f\u205f\u3000]`;
const HIDDEN = new RegExp(
  String.raw`[\0-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f` +
    String.raw`\u2028-\u202e\u2060-\u2064\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\u{110bd}` +
    String.raw`\u{110cd}\u{13430}-\u{1343f}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0001}` +
    String.raw`\u{e0020}-\u{e007f}]|^${SPACE}|${SPACE}$`,
  "u",
);

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
