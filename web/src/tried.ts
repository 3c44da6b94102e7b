// What comes of an access that is tried: the playground asks a token that it has just minted, the
// inspector one that was pasted.
import { CaptokenError, UsageError } from "../../ports/typescript/src/format/errors.js";
import { parseJson } from "../../ports/typescript/src/format/json.js";
import type { Json, JsonObject } from "../../ports/typescript/src/format/json.js";
import type { Access } from "../../ports/typescript/src/language/access.js";
import { plain } from "./plain";

// A reason, and the link that it stands in.
export interface Refused {
  readonly code: string;
  readonly text: string;
  readonly place: string;
}

export type Tried =
  | { readonly kind: "allowed" }
  | { readonly kind: "denied"; readonly refused: readonly Refused[] }
  // It could not be asked: what is wrong with what was typed.
  | { readonly kind: "unasked"; readonly trouble: string };

interface Stated {
  readonly code: string;
  readonly text: string;
  readonly link?: number | undefined;
  readonly addedBy?: string | undefined;
}

export function refusedOf({ code, text, link, addedBy }: Stated): Refused {
  const by = addedBy === undefined ? "" : `, added by ${plain(addedBy)}`;
  return { code, text: plain(text), place: link === undefined ? "" : `link ${link}${by}` };
}

// Ask about the access that was typed. `judge` says why not; nothing where it is allowed.
export function tried(typed: string, judge: (access: Access) => readonly Stated[]): Tried {
  try {
    const refused = judge(Object.fromEntries(readObject(typed)) as Access).map(refusedOf);
    return refused.length ? { kind: "denied", refused } : { kind: "allowed" };
  } catch (error) {
    return { kind: "unasked", trouble: troubleOf(error) };
  }
}

// A JSON object that was typed; nothing is the empty one. 1.0 stays another number than 1.
export function readObject(typed: string): JsonObject {
  const read = jsonOf(typed.trim() || "{}");
  if (!(read instanceof Map)) throw new UsageError("Write a JSON object: {...}");
  return read;
}

function jsonOf(text: string): Json {
  try {
    return parseJson(text);
  } catch (error) {
    throw new UsageError(`This is no JSON: ${(error as Error).message}`);
  }
}

// What the library says of a mistake is for people. Another error has to be told, too.
export function troubleOf(error: unknown): string {
  const isOurs = error instanceof CaptokenError || error instanceof UsageError;
  return plain(isOurs ? error.message : String(error));
}
