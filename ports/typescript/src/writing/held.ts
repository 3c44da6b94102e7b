/**
 * The packets behind tokens: as secret as their texts, and out of reach of whoever has the object.
 */

import type { Packet } from "../format/packet.js";
import type { Parts } from "../format/text.js";
import { bind } from "../format/crypto.js";

export interface Held {
  readonly packet: Packet;
  readonly discharges: readonly Packet[];
}

const HELD = new WeakMap<object, Held>();

export function hold(token: object, held: Held): void {
  HELD.set(token, held);
}

/** What is behind a token. */
export const packetsOf = (token: object): Held => HELD.get(token)!;

/**
 * A token and its discharges, bound to it, as a verifier takes them; undefined for what is no token
 * (33.3).
 */
export function boundParts(token: object): Parts | undefined {
  const held = HELD.get(token);
  if (!held) return undefined;
  const { packet, discharges } = held;
  return {
    packet,
    discharges: discharges.map((each) => ({
      ...each,
      signature: bind(packet.signature, each.signature),
    })),
  };
}
