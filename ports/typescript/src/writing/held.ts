/**
 * The packets behind tokens: as secret as their texts, and out of reach of whoever has the object.
 */

import { equal, type Bytes } from "../format/bytes.js";
import { bind } from "../format/crypto.js";
import { TokenFormatError } from "../format/errors.js";
import type { Packet } from "../format/packet.js";
import { readRoot, type Root } from "../format/root.js";
import { UNBOUND, partsOf, type Parts } from "../format/text.js";
import type { Means } from "./means.js";

export interface Held {
  readonly packet: Packet;
  readonly discharges: readonly Packet[];
}

const HELD = new WeakMap<object, Held>();
const MADE_WITH = new WeakMap<object, Means>();

export function hold(token: object, held: Held, means: Means): void {
  HELD.set(token, held);
  MADE_WITH.set(token, means);
}

/** What a token makes its links with. */
export const meansBehind = (token: object): Means => MADE_WITH.get(token)!;

/** What is behind a token. */
export const packetsOf = (token: object): Held => HELD.get(token)!;

/** What a text that is held spells. Raises TokenFormatError alone. */
export function heldIn(text: string): Held & { readonly root: Root } {
  const { packet, discharges } = partsOf(text, UNBOUND);
  const root = readRoot(packet.identifier);
  if (!isInOrder(packet, discharges)) {
    throw new TokenFormatError("discharges that answer nothing asked, or stand in another order");
  }
  return { packet, discharges, root };
}

/** The cids of third-party caveats, each once. */
export function asked({ caveats }: Packet): Bytes[] {
  const cids = caveats.filter(({ vid }) => vid).map(({ cid }) => cid);
  return cids.filter((cid, at) => cids.findIndex((other) => equal(other, cid)) === at);
}

/** Does each discharge answer a caveat, in the caveats' order, none twice (8.7)? */
function isInOrder(packet: Packet, discharges: readonly Packet[]): boolean {
  let left = asked(packet);
  return discharges.every(({ identifier }) => {
    const at = left.findIndex((cid) => equal(cid, identifier));
    left = left.slice(at + 1);
    return at >= 0;
  });
}

/**
 * A token and its discharges, bound to it, as a verifier takes them; undefined for what is no token
 * (33.3).
 */
export function boundParts(token: object): Parts | undefined {
  const held = HELD.get(token);
  return held && boundIn(held);
}

export function boundIn({ packet, discharges }: Held): Parts {
  return {
    packet,
    discharges: discharges.map((each) => ({
      ...each,
      signature: bind(packet.signature, each.signature),
    })),
  };
}
