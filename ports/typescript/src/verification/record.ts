/** What a verifier tells whoever takes a record of each decision (spec, "Audit"). */

import type { Bytes } from "../format/bytes.js";
import type { RawCaveat } from "../format/crypto.js";
import type { Stated } from "../language/access.js";
import type { Answer } from "../stores.js";
import type { Decision } from "./decision.js";

/** A decision, and what it was about. Frozen copies: values of the access are among them. */
export interface Told {
  readonly decision: Decision;
  /** What was asked, where it was an access that can be stated. */
  readonly access: Stated | undefined;
  /** What the server knows of who calls. */
  readonly caller: { readonly agent: string | undefined; readonly task: string | undefined } | undefined;
  readonly leeway: number;
  /** The root record and the links, of a token whose chain held: no tag, and so no token. */
  readonly written: Written | undefined;
}

export interface Written {
  readonly identifier: Bytes;
  readonly caveats: readonly RawCaveat[];
}

/**
 * Takes a record of each decision before anybody acts on it, but of dry runs and rechecks. What it
 * raises, and none in time, denies: then nothing may stand there that says it was allowed. One that
 * promises is for `checkAsync` and its like.
 */
export interface Recorder {
  record(told: Told, signal?: AbortSignal): Answer<unknown>;
}
