/** Whether to ask again, which clients of HTTP are told. Apart from the table, which verifiers have. */

import type { Code } from "../verification/codes.js";

export type Retry = "no" | "later" | "presented_anew";

// begin: codes, from captoken/_verification/records.py by `python -m tests.records`
export const RETRY: Readonly<Record<Code, Retry>> = {
  malformed: "no",
  unsupported_version: "no",
  unknown_key: "no",
  bad_signature: "no",
  missing_discharge: "later",
  bad_discharge: "no",
  unreadable_link: "no",
  unknown_caveat: "no",
  broken_delegation: "no",
  too_deep: "no",
  delegate_only: "no",
  revoked: "no",
  narrowed: "no",
  stale_overlay: "later",
  stale_grant: "presented_anew",
  expired: "no",
  not_yet_valid: "later",
  wrong_audience: "no",
  unaddressed: "no",
  table: "no",
  operation: "no",
  column: "no",
  row: "no",
  tool: "no",
  argument: "no",
  attribute: "no",
  domain: "no",
  task: "no",
  cost_unstated: "no",
  too_much_work: "no",
  consent_missing: "no",
  caller: "no",
  proof_missing: "presented_anew",
  bad_proof: "presented_anew",
  bad_consent: "no",
  replayed: "presented_anew",
  forbidden_after: "no",
  budget_exhausted: "no",
  store_unavailable: "later",
};
// end
