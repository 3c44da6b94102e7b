/** The codes of denials, their steps and kinds, and what is told to whom (spec, "Verification"). */

export type Kind = "invalid" | "insufficient" | "proof" | "unavailable";

const UNACCEPTED = "The token is not accepted.";
const UNPROVEN = "The token needs a proof that was made for this request.";
const REFUSED = "The token does not permit this.";

type Row = readonly [step: number, kind: Kind, told: string];

const TABLE = {
  malformed: [2, "invalid", UNACCEPTED],
  unsupported_version: [3, "invalid", UNACCEPTED],
  unknown_key: [3, "invalid", UNACCEPTED],
  bad_signature: [4, "invalid", UNACCEPTED],
  missing_discharge: [4, "invalid", "The token asks a third party, and no answer came with it."],
  bad_discharge: [4, "invalid", "An answer of a third party is not accepted."],
  unreadable_link: [5, "invalid", "The token has a restriction that cannot be read here."],
  unknown_caveat: [5, "invalid", "The token has a restriction that is not known here."],
  broken_delegation: [6, "invalid", "The token's chain of delegation is broken."],
  too_deep: [6, "invalid", "The token was delegated more often than it permits."],
  delegate_only: [6, "insufficient", "The token is for handing on, not for use."],
  revoked: [7, "invalid", UNACCEPTED],
  narrowed: [7, "insufficient", REFUSED],
  stale_overlay: [7, "unavailable", "The server cannot decide at present."],
  stale_grant: [7, "invalid", "The token has to be presented again."],
  expired: [8, "invalid", "The token has expired."],
  not_yet_valid: [8, "invalid", "The token is not valid yet."],
  wrong_audience: [8, "invalid", "The token is addressed to another server."],
  unaddressed: [8, "invalid", "The token is not addressed to this server."],
  table: [8, "insufficient", REFUSED],
  operation: [8, "insufficient", REFUSED],
  column: [8, "insufficient", REFUSED],
  tool: [8, "insufficient", REFUSED],
  argument: [8, "insufficient", REFUSED],
  attribute: [8, "insufficient", REFUSED],
  domain: [8, "insufficient", REFUSED],
  task: [8, "insufficient", "The token is for another task."],
  cost_unstated: [8, "insufficient", "What the request costs is not stated."],
  caller: [9, "insufficient", "The token was handed to another caller."],
  proof_missing: [10, "proof", UNPROVEN],
  bad_proof: [10, "proof", UNPROVEN],
  replayed: [11, "proof", UNPROVEN],
  budget_exhausted: [11, "insufficient", "The token has been used up."],
  store_unavailable: [11, "unavailable", "The server cannot decide at present."],
} as const satisfies Readonly<Record<string, Row>>;

/** The code of a denial. */
export type Code = keyof typeof TABLE;

/** A code of the list; one that an own caveat made up is `attribute` (15.12). */
export const codeOf = (code: string): Code =>
  Object.hasOwn(TABLE, code) ? (code as Code) : "attribute";
export const stepOf = (code: Code): number => TABLE[code][0];
export const kindOf = (code: Code): Kind => TABLE[code][1];
/** What the network is told: strangers learn nothing from it (24.14). */
export const publicWords = (code: Code): string => TABLE[code][2];

const STATUS: Readonly<Record<Kind, number>> = {
  invalid: 401,
  insufficient: 403,
  proof: 401,
  unavailable: 503,
};
export const statusOf = (code: Code): number => STATUS[kindOf(code)];

const FOR_MODELS: Partial<Record<Code, string>> = {
  revoked: "Not permitted: the task is over.",
  table: "Not permitted: this table.",
  operation: "Not permitted: this operation on this table.",
  column: "Not permitted: one of these columns, or columns that are not stated.",
  tool: "Not permitted: this tool.",
  argument: "Not permitted: an argument of this tool is not what it must be.",
  attribute: "Not permitted: not in this situation.",
  domain: "Not permitted: nothing of this kind.",
  narrowed: "Not permitted any more: the operator has narrowed what this task may do.",
};

/** What the agent is told: the rule, and no string of a token, nor a way round it. */
export function wordsForModel(code: Code): string {
  const words = FOR_MODELS[code] ?? `Not permitted: ${publicWords(code)}`;
  const isForNow =
    kindOf(code) === "unavailable" || kindOf(code) === "proof" || code === "not_yet_valid";
  return `${words} ${isForNow ? "A retry may help." : "A retry will not help."}`;
}
