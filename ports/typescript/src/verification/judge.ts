/**
 * Steps 7 to 10: a genuine token, facts and a question in; refusals, or what is left to commit,
 * out.
 */

import { atOrBelow } from "../format/names.js";
import { UsageError } from "../format/errors.js";
import {
  beside,
  linkProhibits,
  linkProhibitsEarly,
  linkProhibitsLate,
  settled,
  counts,
  denies,
  isIn,
  type AnyLink,
  type Link,
  type Question,
} from "../language/links.js";
import { spelledTime, type Reason, type Situation, type Vocabulary } from "../language/caveats.js";
import { holderOf } from "../language/lineage.js";
import { entriesOn, hopsOf, type Overlay } from "../language/overlay.js";
import { isTooMuch, TOO_MUCH } from "../language/work.js";
import { entryOf, isProven, isTimely, readProof, statedRequest } from "../proof.js";
import { label, linkId, sha256, stateOf } from "../format/crypto.js";
import { b64encode, b64exact, bigEndian, concat, hex, utf8, type Bytes } from "../format/bytes.js";
import type { JsonObject } from "../format/json.js";
import type { Debit, Mark, Marked, Reservation, Use } from "../stores.js";
import {
  placeAt,
  refusal,
  firstUnsigned,
  placeOf,
  type AuthenticatedToken,
  type Placed,
  type Refusal,
} from "./authenticate.js";
import { codeOf } from "./codes.js";
import { badConsent, cameFor, spendsOf, unconsented, type Spent } from "./consents.js";
import { holding, type Steps } from "./steps.js";

const CLOCKS_DIFFER = 60;

/** What a verifier is, whatever it is asked. */
export interface Server {
  readonly audiences: ReadonlySet<string>;
  readonly takesUnaddressed: boolean;
  readonly leeway: number;
  /** How many seconds a grant is good for; undefined is no bound. */
  readonly maxAge: number | undefined;
  readonly maxStaleness: number;
  readonly allowsStale: boolean;
  /** Has it a ledger that other servers may not share? */
  readonly countsAlone: boolean;
  readonly vocabulary: Vocabulary;
}

/** What was fetched for this question. */
export interface Facts {
  readonly now: number;
  /** Undefined: no overlay is asked. */
  readonly overlay?:
    { readonly found?: Overlay | undefined; readonly problem?: string | undefined } | undefined;
  readonly fresh: Bytes;
  /** Facts of the moment, and why they cannot be had (7.13). */
  readonly context?: JsonObject | undefined;
  readonly unknown?: string | undefined;
}

export interface Asked {
  readonly question?: Question | undefined;
  /** Why there is no question: what a client sent, no access can state (7.7). */
  readonly unstated?: Refusal;
  /** Once it aborts, no store is waited for. */
  readonly signal?: AbortSignal | undefined;
  readonly caller?:
    { readonly agent: string | undefined; readonly task: string | undefined } | undefined;
  /** What the transport stated of the request; without it the access is the request. */
  readonly request?: Bytes | undefined;
  /** Did a text come, and so its proof? Else a grant asks again. */
  readonly isSent: boolean;
  /** Is it used, and not only shown to recall what is below it (37.2)? */
  readonly isUsed: boolean;
  readonly isCounted: boolean;
  readonly since: number;
}

/** What step 11 has to commit, in this order. */
export type Effect =
  | { readonly kind: "use"; readonly use: Use }
  | ({ readonly kind: "spend" } & Spent)
  | {
      readonly kind: "reserve";
      readonly reservation: Reservation;
      /** Undefined where it is in no mark. */
      readonly marked: Marked | undefined;
    };

export type Judged =
  | { readonly refusals: readonly [Refusal, ...Refusal[]]; readonly step?: number }
  | {
      readonly refusals?: undefined;
      readonly effects: readonly Effect[];
      /** What the access sets, and must not follow on: a recheck asks it, too (46.7). */
      readonly marked: Marked | undefined;
    };

const one = (why: Refusal): Judged => ({ refusals: [why] });

export function* judge(
  genuine: AuthenticatedToken,
  server: Server,
  facts: Facts,
  asked: Asked,
): Steps<Judged> {
  if (genuine.lineage.owed && asked.isUsed) return one(owed(genuine));
  const age = facts.now - asked.since;
  if (server.maxAge !== undefined && (age > server.maxAge || age < -CLOCKS_DIFFER)) {
    return one(refusal("stale_grant", `verified at ${spelledTime(asked.since)}, too long ago`));
  }
  const overlaid = overlay(genuine, server, facts, beside(asked.question, facts.context));
  if (overlaid.refusals.length) return { refusals: overlaid.refusals as [Refusal], step: 7 };
  const refusals = caveats(genuine, server, facts, asked, overlaid);
  if (refusals.length) return { refusals: refusals as [Refusal], step: 8 };
  const refused = caller(genuine, server, asked.caller);
  if (refused) return one(refused);
  const effects: Effect[] = [];
  if (asked.isSent && (genuine.lineage.key || genuine.proof)) {
    const use = yield* proved(genuine, server, facts, asked);
    if ("code" in use) return one(use);
    effects.push({ kind: "use", use });
  }
  const came = [...consentsFor(genuine, server, facts, asked.question)];
  if (came.length) {
    const digest = requestOf({ question: asked.question } as Asked)!;
    const bad = yield* badConsent(genuine, came, digest, facts.now);
    if (bad) return one(bad);
  }
  let marked: Marked | undefined;
  if (asked.isCounted && asked.question) {
    const taken = reservation(genuine, server, facts, asked.question);
    marked = markedBy(genuine, server, overlaid.narrowing, asked.question);
    if (came.length) {
      const answered = new Set(came.map(({ asking: { at, by } }) => `${at} ${hex(by)}`));
      const isLifted = ({ link, unless }: Marked["rules"][number]): boolean =>
        unless !== undefined && answered.has(`${link} ${unless}`);
      const lifted = marked?.rules.filter(isLifted) ?? [];
      const names = new Set(lifted.map(({ link, unless }) => `${link} ${unless}`));
      for (const spent of spendsOf(came, asked.question, names, genuine.root.keyId)) {
        effects.push({ kind: "spend", ...spent });
      }
      marked = marked && { ...marked, rules: marked.rules.filter((rule) => !isLifted(rule)) };
    }
    if (taken.debits.length || marked) {
      effects.push({ kind: "reserve", reservation: taken, marked });
    }
  }
  return { effects, marked };
}

/** The consents that came for an access, at this server (47.4). */
function consentsFor(
  genuine: AuthenticatedToken,
  server: Server,
  facts: Facts,
  question: Question | undefined,
): ReturnType<typeof cameFor> {
  const isAsked = question && genuine.consents?.length;
  const digest = isAsked ? requestOf({ question } as Asked) : undefined;
  return cameFor(genuine, digest ? situationAfter(genuine, server, facts).audiences : [], digest);
}

/** The end of step 6 (20.2). Here, since it depends on who asks (24.18). */
function owed(genuine: AuthenticatedToken): Refusal {
  const last = genuine.placed.findLast(
    ({ link }) => link.kind === "link" && link.says.delegate_only,
  )!;
  return refusal("delegate_only", "the token can only be handed on", placeOf(genuine, last));
}

// --- step 7 --------------------------------------------------------------------------------------

function staleness(
  { now }: Facts,
  { maxStaleness }: Server,
  found: Overlay | undefined,
): string | undefined {
  if (!found) return "there is no overlay yet";
  const when = spelledTime(found.issuedAt);
  if (now - found.issuedAt > maxStaleness) {
    return `the overlay is from ${when}, more than ${maxStaleness} s ago`;
  }
  if (now >= found.expiresAt) {
    return `the overlay expired at ${spelledTime(found.expiresAt)}`;
  }
  return found.issuedAt > now + CLOCKS_DIFFER
    ? `the overlay is from ${when}, which is in the future`
    : undefined;
}

function overlay(
  genuine: AuthenticatedToken,
  server: Server,
  facts: Facts,
  question: Question | undefined,
): Overlaid {
  const nothing = { refusals: [], age: undefined, narrowing: [] };
  if (!facts.overlay) return nothing;
  const { found, problem } = facts.overlay;
  if (problem !== undefined) {
    return { ...nothing, refusals: [refusal("store_unavailable", problem)] };
  }
  const stale = staleness(facts, server, found);
  if (stale !== undefined && !server.allowsStale) {
    return { ...nothing, refusals: [refusal("stale_overlay", stale)] };
  }
  if (!found) return nothing;
  const age = Math.max(0, facts.now - found.issuedAt);
  return { ...entries(genuine, server, facts, found, question, age), age };
}

/** What step 7 says: the links of the entries on the token are counted in step 8, too (24.25). */
interface Overlaid {
  readonly refusals: Refusal[];
  readonly age: number | undefined;
  readonly narrowing: readonly Narrowing[];
}

/** An entry on the token, by its id and its link. */
interface Narrowing {
  readonly id: string;
  readonly link: Link;
}

const linksOf = (narrowing: readonly Narrowing[]): Link[] => narrowing.map(({ link }) => link);

/** What the entries on this token say: those that revoke it first (36.8). */
function entries(
  genuine: AuthenticatedToken,
  server: Server,
  facts: Facts,
  found: Overlay,
  question: Question | undefined,
  age: number,
): { refusals: Refusal[]; narrowing: readonly Narrowing[] } {
  const { root, linkIds, lineage } = genuine;
  const left = situationAfter(genuine, server, facts, age);
  const about = {
    tokenId: root.tokenId,
    linkIds,
    hops: hopsOf(genuine.links),
    task: left.task,
    holders: lineage.holders,
    subject: root.subject,
    keyId: root.keyId,
    issuedAt: root.issuedAt,
  };
  const situation: Situation = { ...left, task: root.task };
  const [revoked, narrowed]: [Refusal[], Refusal[]] = [[], []];
  const standing = entriesOn(found, about, facts.now);
  const narrowing = standing.flatMap(({ id, link }) => (link ? [{ id, link }] : []));
  const isMuch = isTooMuch(linksOf(narrowing), question?.stated);
  if (isMuch) narrowed.push(TOO_MUCH);
  for (const { by, at, why, id, link } of standing) {
    const said = `by ${by} at ${spelledTime(at)}: ${why} (operators can lift entry ${id})`;
    const reason = link && !isMuch && linkProhibits(link, question, situation, server.vocabulary);
    if (!link) revoked.push(refusal("revoked", `revoked ${said}`, { addedBy: by }));
    else if (reason) {
      narrowed.push(refusal("narrowed", `narrowed ${said}; ${reason.text}`, { addedBy: by }));
    }
  }
  return { refusals: [...revoked, ...narrowed], narrowing };
}

// --- step 8 --------------------------------------------------------------------------------------

function situationBefore(
  { root }: AuthenticatedToken,
  server: Server,
  facts: Pick<Facts, "now">,
  age: number | undefined,
): Situation {
  const { audience } = root;
  const audiences =
    audience === undefined
      ? server.audiences
      : new Set([audience].filter((name) => server.audiences.has(name)));
  return { now: facts.now, leeway: server.leeway, audiences, task: root.task, overlayAge: age };
}

const readable = ({ placed }: AuthenticatedToken): { link: Link; place: Placed }[] =>
  placed.flatMap((place) => (place.link.kind === "link" ? [{ link: place.link, place }] : []));

/** The facts that all links leave: the audiences and the token's task. */
export function situationAfter(
  genuine: AuthenticatedToken,
  server: Server,
  facts: Pick<Facts, "now">,
  age?: number,
): Situation {
  return readable(genuine).reduce(
    (before, { link }) => settled(before, link),
    situationBefore(genuine, server, facts, age),
  );
}

const placed = (genuine: AuthenticatedToken, { code, text }: Reason, place: Placed): Refusal =>
  refusal(codeOf(code), text, placeOf(genuine, place));

/** In two passes, each link by link and by key: a dead token learns no more than that (24.5). */
function caveats(
  genuine: AuthenticatedToken,
  server: Server,
  facts: Facts,
  { question, unstated }: Asked,
  { age, narrowing }: Overlaid,
): Refusal[] {
  const refusals: Refusal[] = [];
  const { issuedAt, audience } = genuine.root;
  if (issuedAt > facts.now + Math.max(CLOCKS_DIFFER, server.leeway)) {
    const when = spelledTime(issuedAt);
    refusals.push(refusal("not_yet_valid", `issued at ${when}, which is in the future`));
  }
  if (audience !== undefined && !server.audiences.has(audience)) {
    refusals.push(refusal("wrong_audience", `issued for ${audience} only`));
  }
  const start = situationBefore(genuine, server, facts, age);
  let situation = start;
  for (const { link, place } of readable(genuine)) {
    const reason = linkProhibitsEarly(link, situation);
    if (reason) refusals.push(placed(genuine, reason, place));
    situation = settled(situation, link);
  }
  const misaddressed = misaddressedBy(genuine, server, narrowing);
  if (misaddressed) refusals.push(refusal("unaddressed", misaddressed));
  if (refusals.length) return refusals;
  if (unstated) return [unstated];
  const links = [...linksOf(narrowing), ...readable(genuine).map(({ link }) => link)];
  const about = beside(question, facts.context);
  if (isTooMuch(links, about?.stated)) return [TOO_MUCH];
  const unknown = unknownBy(facts, question);
  if (unknown) return [refusal("attribute", unknown)];
  situation = start;
  for (const { link, place } of readable(genuine)) {
    const reason = linkProhibitsLate(link, about, situation, server.vocabulary);
    if (reason) refusals.push(placed(genuine, reason, place));
    situation = settled(situation, link);
  }
  if (refusals.length) return refusals;
  return unconsented(genuine, question, () => consentsFor(genuine, server, facts, question));
}

/**
 * Why the facts of the moment cannot stand beside the access. A name that both state could be a
 * client's word in the place of the server's (7.13).
 */
function unknownBy({ context, unknown }: Facts, question: Question | undefined): string | undefined {
  if (!question || unknown !== undefined) return question && unknown;
  const both = [...(context?.keys() ?? [])].find((name) => question.stated.attributes.has(name));
  return both && `attribute ${both} is stated by the access and by the context`;
}

/** Why a server must not take a token for what it names, or fails to name (16.2, 38.6, 30.6). */
function misaddressedBy(
  genuine: AuthenticatedToken,
  server: Server,
  narrowing: readonly Narrowing[],
): string | undefined {
  const { root, links, lineage } = genuine;
  const isAddressed =
    root.audience !== undefined || links.some((link) => link.kind === "link" && link.says.aud);
  if (!isAddressed && !server.takesUnaddressed) return "addressed to nobody";
  // Of an entry: by the root, link 0 and the entry itself, since its marks are the task's (46.8).
  const chains = [
    links.slice(0, links.findIndex(denies) + 1),
    ...linksOf(narrowing).filter(denies).map((link) => [...links.slice(0, 1), link]),
  ];
  if (server.countsAlone && !chains.every((chain) => isForOneServer(root.audience, chain))) {
    return "not for one server";
  }
  const isForOne =
    lineage.key ?? links.find((link) => link.kind === "link" && link.says.consent !== undefined);
  return isForOne && server.audiences.size === 0
    ? "bound to a key, or asks for consents, and this server has no name"
    : undefined;
}

/** Was it for one audience after these links, the last of which counts or forbids? */
function isForOneServer(audience: string | undefined, chain: readonly AnyLink[]): boolean {
  let left: ReadonlySet<string> | undefined =
    audience === undefined ? undefined : new Set([audience]);
  for (const link of chain) {
    const aud = link.kind === "link" ? link.says.aud : undefined;
    if (!aud) continue;
    const before: ReadonlySet<string> = left ?? aud;
    left = new Set([...before].filter((name) => aud.has(name)));
  }
  return left?.size === 1 || !chain.length;
}

// --- steps 9 and 10 ------------------------------------------------------------------------------

function caller(
  genuine: AuthenticatedToken,
  server: Server,
  calls: Asked["caller"],
): Refusal | undefined {
  if (!calls) return undefined;
  const holder = holderOf(genuine.lineage);
  if (calls.agent !== undefined && calls.agent !== holder) {
    return refusal("caller", `${calls.agent} calls with the token of ${holder}`);
  }
  const { task } = situationAfter(genuine, server, { now: 0 });
  if (calls.task === undefined || atOrBelow(calls.task, task)) return undefined;
  return refusal("caller", `called from task ${calls.task} with a token for task ${task}`);
}

function* proved(
  genuine: AuthenticatedToken,
  server: Server,
  facts: Facts,
  asked: Asked,
): Steps<Use | Refusal> {
  const bad = (text: string, at?: number): Refusal =>
    refusal("bad_proof", text, at === undefined ? at : placeAt(genuine, at));
  const { key } = genuine.lineage;
  if (!key) return bad("a proof, but the token has no key");
  const unsigned = firstUnsigned(genuine);
  if (unsigned) return bad("a key that the one before did not sign for", unsigned.at);
  if (!genuine.proof) return refusal("proof_missing", "bound to a key, and no proof came with it");
  const proof = readProof(genuine.proof);
  if (!isTimely(proof, facts.now)) return bad("made too long ago, or yet to come");
  const digest = requestOf(asked);
  if (!digest) return bad("the request cannot be signed");
  const state = stateOf(genuine.tags.at(-1)!);
  const { audiences } = situationAfter(genuine, server, facts);
  for (const audience of audiences) {
    if (yield* holding((by) => isProven(proof, key, state, audience, digest, by))) {
      return { entry: entryOf(key, proof.nonce), issuedAt: proof.issuedAt, kid: genuine.root.keyId };
    }
  }
  return bad("not signed by its key, for this token, server and request");
}

function requestOf({ request, question }: Asked): Bytes | undefined {
  try {
    return request ?? statedRequest(question?.stated);
  } catch (error) {
    if (error instanceof UsageError) return undefined;
    throw error;
  }
}

// --- what is counted -----------------------------------------------------------------------------

/** What an access takes from every bucket of the chain (38.3). */
function reservation(
  genuine: AuthenticatedToken,
  server: Server,
  facts: Facts,
  { stated }: Question,
): Reservation {
  const debits: Debit[] = [];
  for (const [at, link] of genuine.links.entries()) {
    if (!counts(link)) continue;
    const bucket = linkId(genuine.tags[at]!);
    const { budget, uses } = link.says;
    for (const [unit, limit] of budget ?? []) {
      debits.push({ bucket, unit, limit, amount: stated.cost.get(unit)!, link: at });
    }
    if (uses !== undefined) debits.push({ bucket, unit: "uses", limit: uses, amount: 1, link: at });
  }
  const { tokenId, issuedAt, keyId: kid } = genuine.root;
  const keptUntil = keptUntilOf(genuine, server);
  const { leeway } = server;
  return { id: facts.fresh, tokenId, issuedAt, debits, keptUntil, leeway, kid };
}

const DAYS = 30 * 86400;
const HOUR = 3600; // that a ledger adds

/** The marks that an access is in, and the rules that it runs into, or undefined (46.6). */
function markedBy(
  { root, links, linkIds }: AuthenticatedToken,
  { leeway }: Server,
  narrowing: readonly Narrowing[],
  question: Question,
): Marked | undefined {
  if (![...links, ...linksOf(narrowing)].some(counts)) return undefined;
  const task = concat(sized(root.subject), utf8(`${root.task.split("/")[0]}\0`));
  const marks: Mark[] = [];
  const rules: Marked["rules"][number][] = [];
  let end: number | undefined;
  let ofTask: number | undefined;
  const add = ({ says }: Link, start: Bytes, tree: string, link: number | undefined): void => {
    const { forbid = [] } = says;
    const names = new Set(forbid.flatMap(({ closed, after }) => [...closed, ...after]));
    const keptUntil = tree ? end : ofTask;
    const markOf = (name: string): Mark => ({
      bucket: b64encode(sha256(concat(start, utf8(name)))),
      tree,
      keptUntil: keptUntil && keptUntil + leeway + (tree ? 0 : DAYS - HOUR),
      link,
      name,
    });
    const inside = [...(says.marks ?? [])].filter(([, mark]) => isIn(mark, question));
    for (const [name] of inside) if (link === 0 || names.has(name)) marks.push(markOf(name));
    for (const { closed, after, unless } of forbid) {
      if (inside.some(([name]) => closed.has(name))) {
        rules.push({ after: [...after].map(markOf), link, unless: unless && hex(unless) });
      }
    }
  };
  for (const [at, link] of links.entries()) {
    if (link.kind === "link") {
      const { exp } = link.says;
      end = exp === undefined ? end : Math.min(exp, end ?? exp);
      if (at === 0) ofTask = end;
      const start = at
        ? concat(label("mark of a link"), b64exact(linkIds[at], 16)!)
        : concat(label("mark of a task"), task);
      add(link, start, at ? root.tokenId : "", at);
    }
  }
  for (const { id, link } of narrowing) {
    add(link, concat(label("mark of an entry"), sized(id), task), "", undefined);
  }
  return marks.length ? { marks, rules } : undefined;
}

function sized(text: string): Bytes {
  const bytes = utf8(text);
  return concat(bigEndian(bytes.length, 4), bytes);
}

/** Until when its buckets are asked about; undefined is for good (38.10). */
function keptUntilOf({ links }: AuthenticatedToken, { leeway }: Server): number | undefined {
  let latest = 0;
  let least: number | undefined;
  for (const link of links) {
    if (link.kind !== "link") continue;
    if (link.says.exp !== undefined) least = Math.min(link.says.exp, least ?? link.says.exp);
    if (!counts(link)) continue;
    if (least === undefined) return undefined;
    latest = Math.max(latest, least + leeway);
  }
  return latest;
}
