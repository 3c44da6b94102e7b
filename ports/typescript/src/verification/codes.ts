/** The codes of denials, their steps and kinds, and what is told to whom (spec, "Verification"). */

export type Kind = "invalid" | "insufficient" | "proof" | "unavailable";

/** Of proofs, and of what is unavailable, a retry may help; of others where it is said. */
type Row = readonly [step: number, kind: Kind, told: string, model?: string | undefined, retry?: boolean];

// begin: codes, from captoken/_verification/records.py by `python -m tests.records`
const INVALID = "invalid";
const INSUFFICIENT = "insufficient";
const UNAVAILABLE = "unavailable";
const PROOF = "proof";
const AS_MALFORMED = "The token was not accepted.";
const AS_NARROWED = "The token does not permit this request.";
const AS_STALE_OVERLAY = "The server cannot decide right now.";
const AS_PROOF_MISSING = "The request needs a fresh proof from the key that the token is bound to.";
const TABLE = {
  malformed: [2, INVALID, AS_MALFORMED],
  unsupported_version: [3, INVALID, AS_MALFORMED],
  unknown_key: [3, INVALID, AS_MALFORMED],
  bad_signature: [4, INVALID, AS_MALFORMED],
  missing_discharge: [4, INVALID, "The token needs a discharge that was not presented.", undefined, true],
  bad_discharge: [4, INVALID, "A discharge that was presented was not accepted."],
  unreadable_link: [5, INVALID, "The token carries a restriction that cannot be read."],
  unknown_caveat: [5, INVALID, "The token carries a restriction that this server does not know."],
  broken_delegation: [6, INVALID, "The token's chain of delegation is broken."],
  too_deep: [6, INVALID, "The token was delegated more often than it permits."],
  delegate_only: [6, INSUFFICIENT, "The token is for handing on, not for use."],
  revoked: [7, INVALID, AS_MALFORMED, "The operator has revoked this token."],
  narrowed: [7, INSUFFICIENT, AS_NARROWED, "Not permitted for now: the operator has narrowed this task."],
  stale_overlay: [7, UNAVAILABLE, AS_STALE_OVERLAY],
  stale_grant: [7, INVALID, "The token must be presented again.", undefined, true],
  expired: [8, INVALID, "The token has expired."],
  not_yet_valid: [8, INVALID, "The token is not valid yet.", undefined, true],
  wrong_audience: [8, INVALID, "The token is addressed to another server."],
  unaddressed: [8, INVALID, "The token is not addressed to this server."],
  table: [8, INSUFFICIENT, AS_NARROWED, "Not permitted: this table is not among the tables of this task."],
  operation: [8, INSUFFICIENT, AS_NARROWED, "Not permitted: this operation on this table."],
  column: [8, INSUFFICIENT, AS_NARROWED, "Not permitted: some of the columns asked for in this table."],
  row: [8, INSUFFICIENT, AS_NARROWED, "Not permitted: some of the rows of this table."],
  tool: [8, INSUFFICIENT, AS_NARROWED, "Not permitted: this tool is not among the tools of this task."],
  argument: [8, INSUFFICIENT, AS_NARROWED, "Not permitted: this tool with these arguments."],
  attribute: [8, INSUFFICIENT, AS_NARROWED, "Not permitted under the current conditions."],
  domain: [8, INSUFFICIENT, AS_NARROWED, "Not permitted: requests of this kind are not part of this task."],
  task: [8, INSUFFICIENT, "The token is for another task."],
  cost_unstated: [8, INSUFFICIENT, "The server did not state what the request costs."],
  too_much_work: [8, INSUFFICIENT, "The request is too large to be checked against the token."],
  consent_missing: [8, INSUFFICIENT, "A person has to consent to this request."],
  caller: [9, INSUFFICIENT, "The token was handed to another caller."],
  proof_missing: [10, PROOF, AS_PROOF_MISSING],
  bad_proof: [10, PROOF, AS_PROOF_MISSING],
  bad_consent: [10, PROOF, "The consent that came with the request was not accepted.", undefined, false],
  replayed: [11, PROOF, AS_PROOF_MISSING],
  forbidden_after: [11, INSUFFICIENT, AS_NARROWED, "Not permitted any more in this task, after what was done in it."],
  budget_exhausted: [11, INSUFFICIENT, "The token has too little left for this request."],
  store_unavailable: [11, UNAVAILABLE, AS_STALE_OVERLAY],
} as const satisfies Readonly<Record<string, Row>>;
// end

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

/** What the agent is told: the rule, and no string of a token, nor a way round it. */
export function wordsForModel(code: Code): string {
  const [, kind, told, words, retry = STATUS[kind] === 503 || kind === PROOF]: Row = TABLE[code];
  return `${words ?? told} ${retry ? "A retry may help." : "A retry will not help."}`;
}
