/** The state machine of the chain: who holds the token after each link (spec, "Lineage"). */

import type { Bytes } from "../format/bytes.js";
import type { Reason } from "./caveats.js";
import type { AnyLink, BadLink, Link } from "./links.js";

export interface Lineage {
  /** The root's agent first, the current holder last. */
  readonly holders: readonly string[];
  /** How many more delegations; undefined is no bound. */
  readonly left: number | undefined;
  /** Must a later link delegate? */
  readonly owed: boolean;
  /** The Ed25519 key that the token is bound to. */
  readonly key: Bytes | undefined;
}

export const startOf = (agent: string): Lineage => ({
  holders: [agent],
  left: undefined,
  owed: false,
  key: undefined,
});

export const holderOf = ({ holders }: Lineage): string => holders.at(-1)!;

/** Why a hand-over breaks the chain, or undefined: the rows of the table, in their order. */
function refused({ says }: Link, { holders, left, key }: Lineage): Reason | undefined {
  const broken = (text: string): Reason => ({ code: "broken_delegation", text });
  const holder = holders.at(-1)!;
  if (says.from !== holder) return broken(`${says.from} delegates, but ${holder} holds the token`);
  if (holders.includes(says.to!)) return broken(`${says.to} has held the token before`);
  if (key && !says.key) {
    return broken(`a bound token was handed to ${says.to} without a key`);
  }
  return left === 0 ? { code: "too_deep", text: "no more delegations are permitted" } : undefined;
}

/** The state after a link, or why the chain breaks at it. */
export function step(lineage: Lineage, link: Link): Lineage | Reason {
  const { to, depth, delegate_only, key } = link.says;
  let { holders, left, owed } = lineage;
  if (to !== undefined) {
    const reason = refused(link, lineage);
    if (reason) return reason;
    holders = [...holders, to];
    left = left === undefined ? undefined : left - 1;
    owed = false;
  }
  if (depth !== undefined && (left === undefined || depth < left)) left = depth;
  return { holders, left, owed: owed || delegate_only === true, key: key ?? lineage.key };
}

/** The lineage after all links, or at which of them it breaks, and why. */
export function follow(
  agent: string,
  links: readonly AnyLink[],
): Lineage | { at: number; reason: Reason } {
  let lineage = startOf(agent);
  for (const [at, link] of links.entries()) {
    if (link.kind !== "link") continue;
    const after = step(lineage, link);
    if ("code" in after) return { at, reason: after };
    lineage = after;
  }
  return lineage;
}

/** As far as it can be read: for holders and for showing, never for deciding (23.1). */
export function readAlong(agent: string, links: readonly AnyLink[]): Lineage {
  let lineage = startOf(agent);
  for (const link of links) {
    if (link.kind === "third-party") continue;
    const after = link.kind === "bad" ? past(lineage, link) : step(lineage, link);
    if (!("code" in after)) lineage = after;
  }
  return lineage;
}

/**
 * Past a link that prohibits everything: a hand-over in it moves the holder, where it can be read.
 */
function past(lineage: Lineage, { says: { to, key } }: BadLink): Lineage {
  const bound = { ...lineage, key: key ?? lineage.key };
  if (to === undefined || lineage.holders.includes(to)) return bound;
  return { ...bound, holders: [...lineage.holders, to], owed: false };
}
