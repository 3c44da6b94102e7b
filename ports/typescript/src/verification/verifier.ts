/** Verifiers and grants: thin drivers round the plan, which gather facts, judge, and commit. */

import { linkId } from "../format/crypto.js";
import { atLeast, checkAudience, isLater, settings } from "../format/given.js";
import { INSPECT, handed, lock } from "../format/handed.js";
import { Unstated, UsageError } from "../format/errors.js";
import {
  factsOf,
  stated,
  statedCaller,
  type Access,
  type Caller,
  type Facts as Attributes,
} from "../language/access.js";
import { beside } from "../language/links.js";
import { capabilityOf, type Capability } from "../language/capability.js";
import { holderOf } from "../language/lineage.js";
import { behind, type Overlay } from "../language/overlay.js";
import type { Bytes } from "../format/bytes.js";
import { evidenceBy, isDigest, type Evidence } from "../proof.js";
import {
  closedBy,
  endOf,
  type Answer,
  type Ledger,
  type Mark,
  type Marked,
  type ReplayStore,
  type Reservation,
} from "../stores.js";
import { keyringOf, type KeyringSource } from "../keyring.js";
import { meansOf, readClock, type Means } from "../writing/means.js";
import { boundParts } from "../writing/held.js";
import type { Token } from "../writing/token.js";
import {
  authenticate,
  chainOf,
  keyOf,
  placeAt,
  refusal,
  type Actor,
  type Attribution,
  type Broken,
  type AuthenticatedToken,
  type Refusal,
} from "./authenticate.js";
import {
  Denied,
  denial,
  type Decision,
  type Denial,
  type DryRun,
  type Unasked,
  type WouldAllow,
} from "./decision.js";
import {
  judge,
  situationAfter,
  type Asked,
  type Effect,
  type Facts,
  type Server,
} from "./judge.js";
import type { Recorder, Told } from "./record.js";
import { holding, outcome, runLater, runNow, type Ask, type Steps } from "./steps.js";

// --- asking --------------------------------------------------------------------------------------

export interface Asking {
  /** What the server itself knows of who calls. Never filled from the token. */
  readonly caller?: Caller;
  /** Once it aborts, a store that promises is waited for no more. */
  readonly signal?: AbortSignal;
}

export interface AskingText extends Asking {
  /** 32 bytes of what the transport carried; left out, the access is the request. */
  readonly request?: Bytes;
}

export interface VerifierOptions {
  /** The server's own names. Without one it takes what is addressed to nobody. */
  readonly audience?: string | readonly string[];
  readonly allowUnaddressed?: boolean;
  /** By how many seconds clocks may differ at an expiry. */
  readonly leeway?: number;
  /** How many seconds a grant is good for; null is no bound. */
  readonly maxAge?: number | null;
  readonly replays?: ReplayStore;
  readonly ledger?: Ledger;
  /** The newest overlay: asked at each question, and what it raises denies. */
  readonly overlay?: () => Overlay | undefined;
  readonly maxStaleness?: number;
  readonly allowStaleOverlay?: boolean;
  /**
   * Facts of the moment, as a threat level, that tokens ask about with `where`: called once for each
   * decision about an access, with what was issued. What it raises denies, and so does a name that
   * the access states, too: `attribute`. One that promises is for `checkAsync` and its like.
   */
  readonly context?: (issued: AuthenticatedToken["root"]) => Answer<Attributes>;
  /** How many seconds a store that promises may take: 5 if not said. */
  readonly storeTimeout?: number;
  /** Takes a record of each decision, before it is answered: `AuditTrail` of `captoken/trail`. */
  readonly audit?: Recorder;
}

// Of VerifierOptions and Means.
const SETTINGS =
  /^(audience|allowUnaddressed|leeway|maxAge|replays|ledger|overlay|maxStaleness|allowStaleOverlay|context|storeTimeout|audit|vocabulary|clock|random)$/;

const MOST_KNOWN = 100_000;

type Moment = Pick<Facts, "context" | "unknown">;

type Commit = "commit" | "look" | "recheck";

// What grants and the control plane ask of a verifier, and nobody outside this library can.
let decideBy: (
  verifier: Verifier,
  genuine: AuthenticatedToken,
  asked: Asked,
  how: Commit,
) => Steps<DryRun>;
let settleBy: (verifier: Verifier, id: Bytes, taken: ReadonlyMap<string, number>) => Steps<boolean>;
let shownTo: (
  verifier: Verifier,
  text: string,
  request: Bytes,
) => { genuine: AuthenticatedToken } | Denial;

let lookedAt: (verifier: Verifier, text: string, request: Bytes) => Promise<DryRun>;

/** What would be decided of a text and no access, with nothing committed: for an adapter's own door. */
export const lookAt: typeof lookedAt = (verifier, text, request) =>
  lookedAt(verifier, text, request);

/** The genuine token behind a text that is only shown, to recall what is below it (37.2). */
export const shownBy: typeof shownTo = (verifier, text, request) =>
  shownTo(verifier, text, request);

/** Whoever has it is this file: so a grant is what only a verifier hands out. */
const MADE = Symbol("made by a verifier");

function checkMade(made: unknown): void {
  if (made !== MADE) throw new UsageError("only a verifier makes one");
}

/** Left out by mistake, an access would not be asked about. */
function anAccess(access: Access): Access {
  if (access === undefined || access === null) throw new UsageError("say the access");
  return access;
}

/** Decides on tokens, offline: facts are gathered, the plan is asked, its effects are committed. */
export class Verifier {
  readonly #source: KeyringSource;
  readonly #server: Server;
  readonly #means: Means;
  readonly #options: VerifierOptions;
  /** The marks that are known to be set, and until when the ledger keeps them. */
  readonly #known = new Map<string, number>();
  readonly #storeTimeout: number;

  static {
    decideBy = (verifier, genuine, asked, how) => verifier.#decide(genuine, asked, how);
    settleBy = (verifier, id, taken) => verifier.#settle(id, taken);
    shownTo = (verifier, text, request) => verifier.#shown(text, request);
    lookedAt = (verifier, text, request) =>
      runLater(verifier.#decided(text, null, { request }, "look"));
  }

  constructor(keyring: KeyringSource, given: VerifierOptions & Partial<Means> = {}) {
    const options = settings(given, SETTINGS);
    const { audience = [], leeway = 0, maxAge = 3600, maxStaleness = 60, ledger } = options;
    const { storeTimeout = 5 } = options;
    if (typeof keyring !== "function") keyringOf(keyring);
    const audiences = new Set(typeof audience === "string" ? [audience] : (audience ?? [audience]));
    for (const each of audiences) checkAudience(each);
    if (options.overlay !== undefined && typeof options.overlay !== "function") {
      throw new UsageError("overlay is a function");
    }
    if (options.context !== undefined && typeof options.context !== "function") {
      throw new UsageError("context is a function");
    }
    this.#source = keyring;
    this.#options = options;
    this.#storeTimeout = atLeast(storeTimeout, 1, "storeTimeout");
    this.#means = meansOf(options);
    this.#server = {
      audiences,
      takesUnaddressed: audiences.size === 0 || options.allowUnaddressed === true,
      leeway: atLeast(leeway, 0, "leeway"),
      maxAge: maxAge === null ? undefined : atLeast(maxAge, 0, "maxAge"),
      maxStaleness: atLeast(maxStaleness, 0, "maxStaleness"),
      allowsStale: options.allowStaleOverlay === true,
      countsAlone: ledger !== undefined && !ledger.shared,
      vocabulary: this.#means.vocabulary,
    };
  }

  /**
   * The decision on an access; on the token alone where that is said by `null`. Commits what it
   * rests on; never raises on denial.
   */
  check(text: string | Token, access: Access | null, asking: AskingText = {}): Unasked<Decision> {
    return runNow(this.#decided(text, access, asking, "commit")) as Unasked<Decision>;
  }

  /** As `check`, with stores that promise. */
  checkAsync(
    text: string | Token,
    access: Access | null,
    asking: AskingText = {},
  ): Promise<Decision> {
    return runLater(this.#decided(text, access, asking, "commit")) as Promise<Decision>;
  }

  /** The same run with nothing committed: the stores are looked at. For people. */
  explain(text: string | Token, access: Access | null, asking: AskingText = {}): Unasked<DryRun> {
    return runNow(this.#decided(text, access, asking, "look")) as Unasked<DryRun>;
  }

  /** The grant, once the access is permitted. Raises Denied. */
  authorize(text: string | Token, access: Access, asking: AskingText = {}): Grant {
    return grantOf(this.check(text, anAccess(access), asking));
  }

  async authorizeAsync(
    text: string | Token,
    access: Access,
    asking: AskingText = {},
  ): Promise<Grant> {
    return grantOf(await this.checkAsync(text, anAccess(access), asking));
  }

  /** All but the access: the grant is asked about each. Raises Denied. */
  authenticate(text: string | Token, asking: AskingText = {}): Grant {
    return grantOf(this.check(text, null, asking));
  }

  #shown(text: string, request: Bytes): { genuine: AuthenticatedToken } | Denial {
    const now = readClock(this.#means.clock);
    const found = this.#authenticated(text);
    if (found.kind === "broken") return denial(now, found.who, [found.refusal], found.step);
    const asked = { request, isSent: true, isUsed: false, isCounted: false, since: now };
    const decision = runNow(this.#decide(found, asked, "commit"));
    return decision.allowed ? { genuine: found } : decision;
  }

  #authenticated(text: string | Token): AuthenticatedToken | Broken {
    const keyring = keyringOf(this.#source);
    const given = typeof text === "object" ? boundParts(text) : text;
    return authenticate(
      given ?? "",
      (id, audience) => keyring.lookUp(id, audience),
      this.#server.vocabulary,
    );
  }

  *#decided(
    text: string | Token,
    access: Access | null,
    asking: AskingText,
    how: Commit,
  ): Steps<DryRun> {
    const { request: given, ...more } = settings(asking, /^(request|caller|signal)$/);
    if (given !== undefined && !isDigest(given)) {
      throw new UsageError("a digest of a request is 32 bytes");
    }
    const request = given && Uint8Array.from(given);
    const asked = questionOf(access, more);
    const now = readClock(this.#means.clock);
    const found = this.#authenticated(text);
    const about = { ...asked, request, isSent: true, since: now };
    if (found.kind !== "broken") return yield* this.#decide(found, about, how);
    const decision = denial(now, found.who, [found.refusal], found.step);
    return yield* this.#recorded(decision, found, about, how);
  }

  /** Steps 7 to 11 for a genuine token, and its record. What grants ask. */
  *#decide(genuine: AuthenticatedToken, asked: Asked, how: Commit): Steps<DryRun> {
    const moment = yield* this.#moment(genuine, asked);
    const decision = yield* this.#judged(genuine, asked, how, moment);
    const about = { ...asked, question: beside(asked.question, moment.context) };
    return yield* this.#recorded(decision, genuine, about, how);
  }

  /** The facts of the moment, or why they cannot be had (7.13). */
  *#moment({ root }: AuthenticatedToken, { question, signal }: Asked): Steps<Moment> {
    const { context } = this.#options;
    if (!context || !question) return {};
    try {
      const given = yield this.#ask(() => context(handed(root)), signal);
      return { context: factsOf(given ?? null, "context") };
    } catch {
      return { unknown: "the facts of the moment cannot be had" };
    }
  }

  /** The decision, once it is recorded. What was allowed and cannot be recorded is not (39.7). */
  *#recorded(
    decision: DryRun,
    { written }: AuthenticatedToken | Broken,
    { question, caller, signal }: Asked,
    how: Commit,
  ): Steps<DryRun> {
    const { audit } = this.#options;
    if (!audit || how !== "commit") return decision;
    const access = question?.stated;
    const told = handed({ decision, access, caller, leeway: this.#server.leeway, written }) as Told;
    try {
      yield this.#ask((ends) => audit.record(told, ends), signal);
    } catch {
      if (decision.allowed) {
        return denial(decision.now, decision.who, [unavailable("the decision cannot be recorded")], 11);
      }
    }
    return decision;
  }

  *#judged(
    genuine: AuthenticatedToken,
    asked: Asked,
    how: Commit,
    moment: Moment,
  ): Steps<Decision | WouldAllow> {
    for (const each of genuine.custody) {
      const { evidence } = each;
      if (evidence) each.holds ??= yield* holding((by) => evidenceBy(evidence, by));
      if (!each.holds) break;
    }
    const facts = { ...this.#facts(), ...moment };
    const who = attributionOf(genuine, this.#server, facts);
    const judged = yield* judge(genuine, this.#server, facts, asked);
    const { now } = facts;
    if (judged.refusals) return denial(now, who, judged.refusals, judged.step);
    const { marked } = judged;
    const known = marked && how === "recheck" ? closedBy(marked, this.#isKnown) : -1;
    if (known >= 0) return denial(now, who, [forbidden(marked!, known, genuine)], 11);
    const effects = how === "recheck" ? [] : judged.effects;
    for (const effect of effects) {
      const why = yield* this.#taken(effect, genuine, facts, how === "look", asked);
      if (why) return denial(now, who, [why], 11);
    }
    const later =
      effects.length && how === "commit"
        ? yield* this.#again(genuine, asked, facts, effects)
        : undefined;
    if (later) return later;
    const allowed: WouldAllow = { allowed: true, code: "allowed", now, who, effects };
    if (how === "look") return handed(allowed);
    const grant = new Grant(MADE, this, genuine, this.#server, asked, effects);
    return handed({ ...allowed, grant });
  }

  #facts(): Facts {
    const now = readClock(this.#means.clock);
    const { overlay } = this.#options;
    const fresh = this.#means.random(16);
    if (!overlay) return { now, fresh };
    const asked = outcome(overlay);
    if ("value" in asked) {
      const found = behind(asked.value);
      if (found || asked.value === undefined) return { now, fresh, overlay: { found } };
      isLater(asked.value);
    }
    return { now, fresh, overlay: { problem: "the overlay cannot be asked, or is none" } };
  }

  /** Commit one effect, or look what would come of it: why it cannot be had, or undefined. */
  *#taken(
    effect: Effect,
    genuine: AuthenticatedToken,
    facts: Facts,
    isLook: boolean,
    asked: Asked,
  ): Steps<Refusal | undefined> {
    try {
      if (effect.kind === "reserve") {
        return yield* this.#reserved(effect, genuine, facts.now, isLook, asked);
      }
      const refusal = yield* this.#used(effect, facts.now, isLook, asked);
      if (effect.kind === "use" || refusal?.code !== "replayed") return refusal;
      return { ...refusal, ...placeAt(genuine, effect.link) };
    } catch {
      return unavailable("a store failed, or gave no answer in time");
    }
  }

  *#used(
    { kind, use }: Exclude<Effect, { kind: "reserve" }>,
    now: number,
    isLook: boolean,
    { signal }: Asked,
  ): Steps<Refusal | undefined> {
    const { replays } = this.#options;
    if (!replays) {
      return unavailable("no store of used proofs, and a bound token or a consent needs one");
    }
    const proofs = isLook ? "look" : "add";
    const how = kind === "use" ? proofs : isLook ? "lookSpend" : "spend";
    const answer = yield this.#ask((ends) => replays[how]!(use, now, ends), signal);
    if (answer === "added") return undefined;
    if (answer === "replayed") {
      return refusal("replayed", "it was used before, or is too old to tell");
    }
    return unavailable("the store of used proofs is full, or gave no answer");
  }

  readonly #isKnown = (mark: Mark): boolean =>
    (this.#known.get(mark.bucket) ?? -Infinity) >= endOf(mark);

  *#reserved(
    { reservation, marked }: Extract<Effect, { kind: "reserve" }>,
    genuine: AuthenticatedToken,
    now: number,
    isLook: boolean,
    { signal, question }: Asked,
  ): Steps<Refusal | undefined> {
    const { ledger } = this.#options;
    if (!ledger) return unavailable("no ledger, and a counted token needs one");
    const never = reservation.debits.find(({ amount, limit }) => amount > limit);
    const at = marked ? closedBy(marked, this.#isKnown) : -1;
    if (!never && at >= 0) return forbidden(marked!, at, genuine);
    const ask: Ask["of"] = (ends) => {
      if (marked) {
        const step = { ...marked, holder: holderOf(genuine.lineage), access: question!.stated };
        return ledger[isLook ? "lookStep" : "step"]!(reservation, step, now, ends);
      }
      return ledger[isLook ? "look" : "reserve"](reservation, now, ends);
    };
    const answer = never ? { short: never.link } : yield this.#ask(ask, signal);
    const { forbidden: rule, set = [] } = Object(answer) as { forbidden?: number; set?: Mark[] };
    const known = answer === "reserved" && marked ? marked.marks : set;
    for (const mark of isLook ? [] : known) this.#remember(mark);
    if (rule !== undefined && marked?.rules[rule]) return forbidden(marked, rule, genuine);
    if (answer === "reserved") return undefined;
    const short = (answer as { short?: unknown } | undefined)?.short;
    if (typeof short !== "number") return unavailable("the ledger cannot tell");
    return refusal("budget_exhausted", "not as much is left", placeAt(genuine, short));
  }

  /** It is set, and kept so long: what it closes is closed without the ledger (46.7). */
  #remember(mark: Mark): void {
    if (this.#known.size > MOST_KNOWN) this.#known.clear();
    this.#known.set(mark.bucket, Math.max(endOf(mark), this.#known.get(mark.bucket) ?? 0));
  }

  /** Effects took long, or an overlay came: judged again, and a denial gives back (24.20). */
  *#again(
    genuine: AuthenticatedToken,
    asked: Asked,
    facts: Facts,
    effects: readonly Effect[],
  ): Steps<Denial | undefined> {
    const later = { ...this.#facts(), context: facts.context };
    if (
      later.now - facts.now <= 1 &&
      later.overlay?.found === facts.overlay?.found &&
      !later.overlay?.problem
    ) {
      return undefined;
    }
    const judged = yield* judge(genuine, this.#server, later, asked);
    if (!judged.refusals) return undefined;
    for (const effect of effects) {
      if (effect.kind === "reserve") yield* this.#settle(effect.reservation.id, new Map());
    }
    return denial(
      later.now,
      attributionOf(genuine, this.#server, later),
      judged.refusals,
      judged.step,
    );
  }

  /** What was taken in fact, the rest goes back. False if it was too late, or the ledger failed. */
  *#settle(id: Bytes, taken: ReadonlyMap<string, number>): Steps<boolean> {
    const { ledger } = this.#options;
    const now = readClock(this.#means.clock);
    try {
      return (yield this.#ask((ends) => ledger?.settle(id, taken, now, ends))) === true;
    } catch {
      return false;
    }
  }

  #ask(of: Ask["of"], signal?: AbortSignal): Ask {
    return { of, signal, seconds: this.#storeTimeout };
  }

  toString(): string {
    return `<Verifier for ${[...this.#server.audiences].join(", ") || "nobody in particular"}>`;
  }

  [INSPECT](): string {
    return this.toString();
  }
}

function questionOf(
  access: Access | null,
  { caller, signal }: Asking,
): Omit<Asked, "request" | "isSent" | "since"> {
  const calls = caller === undefined ? undefined : statedCaller(caller);
  const asked = { caller: calls, isUsed: true, isCounted: true, signal };
  try {
    return { ...asked, question: access === null ? undefined : { stated: stated(access) } };
  } catch (error) {
    if (!(error instanceof Unstated)) throw error;
    return { ...asked, unstated: { code: error.code, text: error.message } };
  }
}

const unavailable = (text: string): Refusal => refusal("store_unavailable", text);

function forbidden({ rules }: Marked, at: number, genuine: AuthenticatedToken): Refusal {
  const { link } = rules[at]!;
  const place = link === undefined ? link : placeAt(genuine, link);
  return refusal("forbidden_after", "not after what was done", place);
}

function grantOf(decision: Decision): Grant {
  if (!decision.allowed) throw new Denied(decision);
  return decision.grant;
}

function attributionOf(
  genuine: AuthenticatedToken,
  server: Server,
  facts: Pick<Facts, "now">,
): Attribution {
  const { task } = situationAfter(genuine, server, facts);
  return { root: genuine.root, chain: chainOf(genuine), task, linkIds: genuine.linkIds };
}

// --- grants --------------------------------------------------------------------------------------

/**
 * A verified token: only a verifier hands it out. Asked about an access, it decides anew each time.
 */
export class Grant {
  readonly #verifier: Verifier;
  readonly #genuine: AuthenticatedToken;
  readonly #server: Server;
  readonly #asked: Asked;
  /** Every holder, the last one being who acts. */
  readonly chain: readonly Actor[];
  readonly task: string;
  readonly linkIds: readonly string[];
  readonly expiresAt: number | undefined;

  /** Verifiers alone make one. */
  constructor(
    made: typeof MADE,
    verifier: Verifier,
    genuine: AuthenticatedToken,
    server: Server,
    asked: Asked,
    effects: readonly Effect[],
  ) {
    checkMade(made);
    const who = handed(attributionOf(genuine, server, { now: asked.since }));
    const ends = genuine.placed.map(({ link }) =>
      link.kind === "link" ? (link.says.exp ?? Infinity) : Infinity,
    );
    const end = Math.min(...ends);
    this.#verifier = verifier;
    this.#genuine = genuine;
    this.#server = server;
    this.#asked = asked;
    this.chain = who.chain;
    this.task = who.task;
    this.linkIds = who.linkIds;
    this.expiresAt = end < Infinity ? end : undefined;
    this.#effects = effects;
    lock(this);
  }

  readonly #effects: readonly Effect[];

  /** What the issuer said: the only identity to authorize on. A copy each time. */
  get issued(): AuthenticatedToken["root"] {
    return handed(this.#genuine.root);
  }

  get tokenId(): string {
    return this.#genuine.root.tokenId;
  }

  get actor(): Actor {
    return this.chain.at(-1)!;
  }

  /** The actor that handed on to this one. */
  get parent(): Actor | undefined {
    return this.chain.at(-2);
  }

  /** The key that the token is bound to. */
  get key(): string | undefined {
    return keyOf(this.#genuine);
  }

  /** Of each hand-over that is signed: anyone can check it (28.8). */
  get evidence(): readonly Evidence[] {
    return handed(this.#genuine.custody.flatMap(({ evidence }) => evidence ?? []));
  }

  /** The most that the token can do. */
  get capability(): Capability {
    const { root, placed } = this.#genuine;
    const links = placed.map(({ link }) => link);
    return handed(capabilityOf(links, root, this.#server.vocabulary));
  }

  #ask(access: Access | null, asking: Asking, how: Commit): Steps<DryRun> {
    const asked = {
      ...questionOf(access, settings(asking, /^(caller|signal)$/)),
      isSent: false,
      since: this.#asked.since,
    };
    return decideBy(this.#verifier, this.#genuine, asked, how);
  }

  /** The decision on an access, with time, overlay and ledger of now. */
  check(access: Access, asking: Asking = {}): Unasked<Decision> {
    return runNow(this.#ask(anAccess(access), asking, "commit")) as Unasked<Decision>;
  }

  checkAsync(access: Access, asking: Asking = {}): Promise<Decision> {
    return runLater(this.#ask(anAccess(access), asking, "commit")) as Promise<Decision>;
  }

  /** Raises Denied. */
  authorize(access: Access, asking: Asking = {}): Grant {
    return grantOf(this.check(access, asking));
  }

  async authorizeAsync(access: Access, asking: Asking = {}): Promise<Grant> {
    return grantOf(await this.checkAsync(access, asking));
  }

  /** The same with nothing committed. For people. */
  explain(access: Access, asking: Asking = {}): Unasked<DryRun> {
    return runNow(this.#ask(anAccess(access), asking, "look")) as Unasked<DryRun>;
  }

  /**
   * Steps 7 to 9 with fresh facts: no store is asked (24.19). For guards that plan, list, or go on.
   * `null` asks whether the grant still stands.
   */
  recheck(access: Access | null, asking: Asking = {}): Unasked<Decision> {
    return runNow(this.#ask(access, asking, "recheck")) as Unasked<Decision>;
  }

  /**
   * The access, and what was reserved for it: to settle or to cancel within a minute. Raises
   * Denied.
   */
  reserve(access: Access, asking: Asking = {}): Reserved {
    const decision = this.check(access, asking);
    return new Reserved(MADE, this.#verifier, grantOf(decision).#effects);
  }

  async reserveAsync(access: Access, asking: Asking = {}): Promise<Reserved> {
    const grant = grantOf(await this.checkAsync(access, asking));
    return new Reserved(MADE, this.#verifier, grant.#effects);
  }

  /** The id of the last link and all below it. */
  get linkId(): string {
    return linkId(this.#genuine.tags.at(-1)!);
  }

  toString(): string {
    return `<Grant of ${this.tokenId}, held by ${this.actor.name} (${this.actor.basis})>`;
  }
}

/** What was reserved for one access. What is neither settled nor cancelled is spent. */
export class Reserved {
  readonly #verifier: Verifier;
  readonly #reservation: Reservation | undefined;
  #isClosed = false;

  /** Grants alone make one. */
  constructor(made: typeof MADE, verifier: Verifier, effects: readonly Effect[]) {
    checkMade(made);
    const effect = effects.find((each) => each.kind === "reserve");
    this.#verifier = verifier;
    this.#reservation = effect?.reservation;
    lock(this);
  }

  /** What it cost in fact, in each unit; the rest goes back. False if too late. */
  settle(cost?: Readonly<Record<string, number>>): boolean {
    return runNow(this.#close(() => this.#taken(cost)));
  }

  settleAsync(cost?: Readonly<Record<string, number>>): Promise<boolean> {
    return runLater(this.#close(() => this.#taken(cost)));
  }

  /** Nothing was done: all goes back. */
  cancel(): boolean {
    return runNow(this.#close(() => new Map()));
  }

  cancelAsync(): Promise<boolean> {
    return runLater(this.#close(() => new Map()));
  }

  #taken(cost: Readonly<Record<string, number>> | undefined): Map<string, number> {
    const debits = this.#reservation?.debits ?? [];
    if (cost === undefined) return new Map(debits.map(({ unit, amount }) => [unit, amount]));
    const taken = new Map([...stated({ cost }).cost, ["uses", 1]] as [string, number][]);
    const missing = debits.find(({ unit }) => !taken.has(unit));
    if (missing) throw new UsageError(`what was taken in ${missing.unit} is not stated`);
    return taken;
  }

  /** Once. Amounts that are none leave all of it taken (38.8). */
  *#close(taken: () => ReadonlyMap<string, number>): Steps<boolean> {
    if (!this.#reservation) return true;
    if (this.#isClosed) return false;
    this.#isClosed = true;
    return yield* settleBy(this.#verifier, this.#reservation.id, taken());
  }
}
