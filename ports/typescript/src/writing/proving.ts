/** A proof behind a text that was presented without one: for each sending anew (spec 30). */

import type { Bytes } from "../format/bytes.js";
import { settings } from "../format/given.js";
import { stateOf } from "../format/crypto.js";
import { LimitError, TokenFormatError } from "../format/errors.js";
import { BOUND, partsOf, proofText } from "../format/text.js";
import type { Access } from "../language/access.js";
import { makeProof, type Signer } from "../proof.js";
import { meansOf, readClock, type Means } from "./means.js";
import { requestOf } from "./token.js";

const MAX_BUNDLE = 32768;
const BEHIND = 125;

export interface Proving {
  readonly audience: string;
  /** The access, or the 32 bytes of a digest; left out, none is asked about. */
  readonly request?: Access | Bytes;
}

/** The text with a proof at its end: for one sending, within half a minute. */
export function withProof(
  text: string,
  signer: Signer,
  proving: Proving,
  means: Partial<Means> = {},
): string {
  const { audience, request: asked } = settings(proving, /^(audience|request)$/);
  const { packet, proof: before } = partsOf(text, BOUND);
  if (before) throw new TokenFormatError("the text has a proof already");
  if (text.length + BEHIND > MAX_BUNDLE) {
    throw new LimitError(`the text would be longer than ${MAX_BUNDLE} characters`);
  }
  const { clock, random } = meansOf(means);
  const request = requestOf(asked);
  const state = stateOf(packet.signature);
  const nonce = random(16);
  const proof = makeProof(signer, state, audience, request, readClock(clock), nonce);
  return `${text}.${proofText(proof)}`;
}
