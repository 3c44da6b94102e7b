/** Capability tokens for agents: any holder narrows them offline, and any server verifies them. */

export {
  CaptokenError,
  DelegationError,
  DischargeError,
  LimitError,
  TokenFormatError,
  UsageError,
  WideningError,
} from "./format/errors.js";
export { Float, float, parseJson } from "./format/json.js";
export type { Root } from "./format/root.js";
export { checkAccess, type Access, type Caller, type Facts } from "./language/access.js";
export {
  capabilityJson,
  covers,
  meet,
  permitsNothing,
  sameCapability,
  type Capability,
} from "./language/capability.js";
export type { OwnCaveat, Reason, Situation, Vocabulary } from "./language/caveats.js";
export {
  Feed,
  followOverlay,
  followsOverlay,
  openOverlay,
  overlayEntry,
  pastOfNext,
  signDelta,
  signSnapshot,
  type Entry,
  type Overlay,
  type Resumed,
  type Selector,
} from "./language/overlay.js";
export { Keyring, type KeyringSource } from "./keyring.js";
export { AuditKey, DischargerKey, HolderKey, OperatorKey, PairwiseKey } from "./keys.js";
export { Discharge, discharge, openTicket, parseTicket, type Ticket } from "./discharge.js";
export {
  accessRequest,
  evidenceHolds,
  httpRequest,
  mcpAccess,
  mcpMessageRequest,
  mcpRequest,
  readEvidence,
  type Evidence,
  type Signer,
} from "./proof.js";
export {
  MemoryLedger,
  MemoryReplayStore,
  type Debit,
  type Ledger,
  type Mark,
  type Marked,
  type ReplayStore,
  type Reservation,
  type Step,
  type Use,
} from "./stores.js";
export type { Caveats, Moment, Seconds, Writing } from "./writing/compose.js";
export type { Means } from "./writing/means.js";
export type {
  ConstraintFor,
  ConstraintJson,
  InputOf,
  Rule,
  RulesFor,
  ToolRules,
} from "./writing/rules.js";
export { Issuer, type Minting } from "./writing/issuer.js";
export {
  Token,
  type Delegating,
  type Narrowing,
  type Presenting,
  type Unverified,
} from "./writing/token.js";
export { TokenSet, type Placing } from "./writing/tokenset.js";
export type { Actor, Attribution, Refusal } from "./verification/authenticate.js";
export type { Code, Kind } from "./verification/codes.js";
export {
  Denied,
  describe,
  forModel,
  forNetwork,
  type Allowed,
  type Decision,
  type Denial,
  type DryRun,
  type Unasked,
  type WouldAllow,
} from "./verification/decision.js";
export {
  Grant,
  Reserved,
  Verifier,
  type Asking,
  type AskingText,
  type VerifierOptions,
} from "./verification/verifier.js";
export {
  checkTrail,
  readTrail,
  recorded,
  type AuditRecord,
  type Head,
  type Knowing,
  type Verdict,
} from "./audit.js";
export { normalize } from "./interop.js";
export {
  ControlPlane,
  recall,
  type PlaneOptions,
  type Recalled,
  type Recalling,
} from "./recall.js";
export { withProof, type Proving } from "./writing/proving.js";
