/** What a decision says, in types and in words: of its own, so that who only tells needs no more. */

import { CaptokenError } from "../format/errors.js";
import { INSPECT, handed } from "../format/handed.js";
import type { Attribution, Refusal } from "./authenticate.js";
import {
  kindOf,
  publicWords,
  statusOf,
  stepOf,
  wordsForModel,
  type Code,
  type Kind,
} from "./codes.js";
import type { Effect } from "./judge.js";
import type { Grant } from "./verifier.js";

/** Permitted, and committed: the grant knows who acts, for whom, in which task. */
export interface Allowed {
  readonly allowed: true;
  readonly code: "allowed";
  readonly now: number;
  readonly who: Attribution;
  readonly grant: Grant;
  readonly effects: readonly Effect[];
}

/** What a dry run says where all would hold: nothing was committed, and there is no grant. */
export type WouldAllow = Omit<Allowed, "grant">;

/** Prohibited. The first refusal gives the code; the others are for people. */
export interface Denial {
  readonly allowed: false;
  readonly code: Code;
  readonly step: number;
  readonly kind: Kind;
  readonly now: number;
  /** Undefined where no signature vouches for what the token says. */
  readonly who: Attribution | undefined;
  readonly refusals: readonly [Refusal, ...Refusal[]];
}

export type Decision = Allowed | Denial;
export type DryRun = WouldAllow | Denial;

/**
 * A decision that is still to be asked, by `.allowed`. An object is true, whatever it says: to the
 * compiler it looks like a promise, and a promise in a condition is an error.
 */
export type Unasked<D> = D & {
  /** There is no such method. */
  readonly then: (ask: (decision: D) => never) => never;
};

/**
 * Raised where a decision was asked for as a permission. However it is printed or sent, it tells no
 * more than `forNetwork`: `describe(denied.decision)` is for the operator.
 */
export class Denied extends CaptokenError {
  override readonly name = "Denied";
  readonly #decision: Denial;

  constructor(decision: Denial) {
    super(publicWords(worded(decision)), "denied");
    this.#decision = decision;
  }

  /** The code, the rule and who is behind it. */
  get decision(): Denial {
    return this.#decision;
  }

  get kind(): Kind {
    return this.decision.kind;
  }

  /** What the network may be told, and the HTTP status. */
  get public(): string {
    return this.message;
  }

  get status(): number {
    return statusOf(this.decision.code);
  }

  /** What the agent may be told: no string of a token is in it. */
  forModel(): string {
    return forModel(this.decision);
  }

  toJSON(): { status: number; text: string } {
    return forNetwork(this.decision);
  }

  /** One line: whoever logs what a route raised logs each denial. `stack` has the rest. */
  [INSPECT](): string {
    return String(this);
  }
}

/**
 * A decision in words, for the operator: which rule, in which link, added by whom. Never for
 * clients.
 */
export function describe(decision: DryRun): string {
  const lines = [
    decision.allowed ? "allowed" : `denied: ${decision.code}, at step ${decision.step}`,
  ];
  if (!decision.allowed) {
    for (const { code, text, link, addedBy } of decision.refusals) {
      const place = link === undefined ? "" : ` (link ${link}, added by ${addedBy})`;
      lines.push(`  ${code}: ${printed(text)}${place}`);
    }
  }
  if (decision.who) {
    const { root, chain, task } = decision.who;
    const actors = chain.map(({ name, basis }) => `${name} (${basis})`).join(" > ");
    lines.push(`  ${actors}, for ${root.subject}, in ${task}`);
  }
  return lines.join("\n");
}

/** What could steer a terminal is escaped: some of it is what people and holders wrote. */
const printed = (text: string): string =>
  text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (each) => `\\u{${each.codePointAt(0)!.toString(16)}}`);

/** The code whose words it has: a consent that was used, of a link, is asked for again. */
const worded = ({ code, refusals }: Denial): Code =>
  code === "replayed" && refusals[0]?.link !== undefined ? "bad_consent" : code;

/** What the agent may be told of a denial. */
export const forModel = (decision: Denial): string =>
  wordsForModel(worded(decision));
/** What the network may be told, and the HTTP status. */
export const forNetwork = (decision: Denial): { status: number; text: string } => ({
  status: statusOf(decision.code),
  text: publicWords(worded(decision)),
});

export function denial(
  now: number,
  who: Attribution | undefined,
  refusals: readonly [Refusal, ...Refusal[]],
  step?: number,
): Denial {
  const { code } = refusals[0];
  return handed({
    allowed: false,
    code,
    step: step ?? stepOf(code),
    kind: kindOf(code),
    now,
    who,
    refusals,
  });
}
