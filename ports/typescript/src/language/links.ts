/** Links: one step of attenuation each, read and judged (spec, "Links", "Domains"). */

import { b64exact, concat, utf8, type Bytes } from "../format/bytes.js";
import type { RawCaveat } from "../format/crypto.js";
import { UsageError } from "../format/errors.js";
import { isLater } from "../format/given.js";
import { handed } from "../format/handed.js";
import { canonicalObject, type JsonObject } from "../format/json.js";
import { atOrBelow, isNamespaced } from "../format/names.js";
import { seen, type Stated } from "./access.js";
import {
  domainOf,
  earlyProhibits,
  isEarly,
  isKnown,
  isLate,
  isOwn,
  lateProhibits,
  lists,
  ownValue,
  readCaveat,
  readKey,
  refuse,
  type Domain,
  type Judged,
  type Key,
  type Mark,
  type Own,
  type Reason,
  type Said,
  type Situation,
  type Vocabulary,
} from "./caveats.js";
import { matches } from "./patterns.js";

/** A link that can be read. */
export interface Link extends Judged {
  readonly kind: "link";
  /** The JSON object as it travels, and the custody signature behind it. */
  readonly body: Bytes;
  readonly signature: Bytes | undefined;
}

/** A third-party caveat: by itself it restricts nothing. */
export interface ThirdParty {
  readonly kind: "third-party";
  readonly cid: Bytes;
}

/**
 * A link that prohibits everything. The names are for showing and for holders, never for deciding.
 */
export interface BadLink {
  readonly kind: "bad";
  readonly code: "unreadable_link" | "unknown_caveat";
  readonly text: string;
  readonly says: Partial<Pick<Said, "from" | "to" | "key">>;
}

export type AnyLink = Link | ThirdParty | BadLink;

// --- reading -------------------------------------------------------------------------------------

const FULL_STOP = 0x2e;
const BRACE = 0x7d;
const SIGNED = 86;

/** A JSON object and the signature behind it, or undefined for what is neither (28.2). */
export function splitSigned(cid: Bytes): { body: Bytes; signature: Bytes | undefined } | undefined {
  if (cid.at(-1) === BRACE) return { body: cid, signature: undefined };
  const at = cid.length - SIGNED - 1;
  if (at < 0 || cid[at] !== FULL_STOP) return undefined;
  const signature = b64exact(String.fromCharCode(...cid.subarray(at + 1)), 64);
  return signature && { body: cid.slice(0, at), signature };
}

export const joinSigned = (body: Bytes, signature: string): Bytes =>
  concat(body, utf8(`.${signature}`));

function bad(
  text: string,
  code: BadLink["code"] = "unreadable_link",
  says: BadLink["says"] = {},
): BadLink {
  return { kind: "bad", code, text, says };
}

/** The link that a cid spells, or why it prohibits everything. Never raises. */
export function readLink(cid: Bytes, vocabulary: Vocabulary): Link | BadLink {
  const parts = splitSigned(cid);
  const stated = parts && canonicalObject(parts.body);
  if (!stated) return bad("not canonical JSON");
  if (stated.size === 0) return bad("a link is empty");
  // Opaque wins over unreadable (17.3).
  const unknown = [...stated.keys()].filter((key) => !isKnown(key) && !isOwn(key, vocabulary));
  if (unknown.length) {
    return bad(
      `unknown caveats: ${unknown.join(", ")}`,
      "unknown_caveat",
      chainWords(stated),
    );
  }
  try {
    return linkOf(stated, parts, vocabulary);
  } catch (error) {
    const text = error instanceof UsageError ? error.message : "a caveat that cannot be read";
    return bad(text, "unreadable_link", chainWords(stated));
  }
}

function linkOf(
  stated: JsonObject,
  { body, signature }: { body: Bytes; signature: Bytes | undefined },
  vocabulary: Vocabulary,
): Link {
  const says: Record<string, unknown> = {};
  const own: Own[] = [];
  const domains = new Set<Domain>();
  for (const [key, json] of stated) {
    if (isKnown(key)) says[key] = readCaveat(key, json);
    else own.push({ key, json, value: ownValue(key, json, vocabulary) });
    const domain = domainOf(key, vocabulary);
    if (domain) domains.add(domain);
  }
  checkTogether(stated, signature);
  checkMarked(says);
  return { kind: "link", keys: [...stated.keys()], says, own, domains, body, signature };
}

/** Keys that come together or not at all (17.6, 28.4). */
function checkTogether(stated: JsonObject, signature: Bytes | undefined): void {
  const hands = stated.has("from");
  if (hands !== stated.has("to")) throw new UsageError("from and to come together");
  if (stated.has("n") !== (hands || COUNTED.some((key) => stated.has(key)))) {
    throw new UsageError("n goes with a hand-over, an allowance or marks");
  }
  if (signature && !stated.has("key")) {
    throw new UsageError("a signature, and no key that it is for");
  }
}

/** Rules name marks of the same link (46.4). */
export function checkMarked({ marks, forbid = [] }: Partial<Said>): void {
  const names = forbid.flatMap(({ closed, after }) => [...closed, ...after]);
  const unknown = names.find((name) => !marks?.has(name));
  if (unknown !== undefined) throw new UsageError(`forbid names ${unknown}, which is no mark here`);
}

/** What a link that prohibits everything says of the chain, where that can be read. */
function chainWords(stated: JsonObject): BadLink["says"] {
  const attempt = <T>(read: () => T): T | undefined => {
    try {
      return read();
    } catch {
      return undefined;
    }
  };
  const names = attempt(() => {
    const [from, to, n] = [
      stated.get("from") ?? null,
      stated.get("to") ?? null,
      stated.get("n") ?? null,
    ];
    readCaveat("n", n);
    return { from: readCaveat("from", from), to: readCaveat("to", to) };
  });
  const key = attempt(() => readKey(stated.get("key") ?? null));
  return { ...names, ...(key && { key }) };
}

const COUNTING_LINKS = 8;
const BUCKETS = 16;

/** What a ledger keeps something for. */
export const COUNTED: readonly Key[] = ["uses", "budget", "marks"];
/** What a ledger denies by (38.6). */
const DENYING: readonly Key[] = ["uses", "budget", "forbid"];

const hasOne = (link: AnyLink, keys: readonly Key[]): link is Link =>
  link.kind === "link" && keys.some((key) => link.says[key] !== undefined);

export const counts = (link: AnyLink): link is Link => hasOne(link, COUNTED);
export const denies = (link: AnyLink): link is Link => hasOne(link, DENYING);

const bucketsOf = ({ says }: Link): number =>
  (says.budget?.size ?? 0) + (says.uses === undefined ? 0 : 1) + (says.marks?.size ?? 0);

/** Is that more than may count in a token (38.13)? */
export function isTooMuchCounted(links: readonly AnyLink[]): boolean {
  const counting = links.filter(counts);
  const buckets = counting.reduce((sum, link) => sum + bucketsOf(link), 0);
  return counting.length > COUNTING_LINKS || buckets > BUCKETS;
}

/** Every link of a chain; a bad one in its place. Checks no tag and no signature. */
export function readLinks(caveats: readonly RawCaveat[], vocabulary: Vocabulary): AnyLink[] {
  const links = caveats.map(({ cid, vid }): AnyLink =>
    vid ? { kind: "third-party", cid } : readLink(cid, vocabulary),
  );
  const spoil = (at: number, text: string): void => {
    const link = links[at];
    if (link?.kind !== "link") return;
    const { from, to, key } = link.says;
    links[at] = bad(text, "unreadable_link", {
      ...(from && to && { from, to }),
      ...(key && { key }),
    });
  };
  const beyond = links.findIndex(
    (link, at) => counts(link) && isTooMuchCounted(links.slice(0, at + 1)),
  );
  spoil(
    beyond,
    `more than ${COUNTING_LINKS} links that count, or ${BUCKETS} buckets, in one token`,
  );
  // The first link that binds: nobody could have signed it (28.4).
  const first = links.findIndex((link) => link.kind !== "third-party" && link.says.key);
  const link = links[first];
  if (link?.kind === "link" && link.signature) spoil(first, "a link is signed, but names no key");
  return links;
}

// --- judging -------------------------------------------------------------------------------------

/** The facts for the links after this one: what its `aud` and `task` leave (16.1, 16.3). */
export function settled(situation: Situation, { says: { aud, task } }: Link): Situation {
  if (!aud && task === undefined) return situation;
  return {
    ...situation,
    audiences: aud
      ? new Set([...situation.audiences].filter((name) => aud.has(name)))
      : situation.audiences,
    task: task !== undefined && atOrBelow(task, situation.task) ? task : situation.task,
  };
}

/** Why a link prohibits every access for now, or undefined: the first pass of step 8. */
export function linkProhibitsEarly(link: Link, situation: Situation): Reason | undefined {
  for (const key of link.keys) {
    const reason = isEarly(key) ? earlyProhibits(key, link.says[key]!, situation) : undefined;
    if (reason) return reason;
  }
  return undefined;
}

/** What is asked: the access as it was read. */
export interface Question {
  readonly stated: Stated;
}

/** The same, with facts of the moment among its attributes (7.13). */
export function beside(
  question: Question | undefined,
  context: JsonObject | undefined,
): Question | undefined {
  if (!question || !context?.size) return question;
  const { stated } = question;
  return { stated: { ...stated, attributes: new Map([...context, ...stated.attributes]) } };
}

const domainsOf = ({ table, tool }: Stated): Domain[] => [
  ...(table === undefined ? [] : ["data" as const]),
  ...(tool === undefined ? [] : ["tool" as const]),
];

/** Why a link prohibits the access: its caveats by key, then its domains. */
export function linkProhibitsLate(
  link: Judged,
  question: Question | undefined,
  situation: Situation,
  vocabulary: Vocabulary,
): Reason | undefined {
  for (const key of link.keys) {
    const reason = isNamespaced(key)
      ? ownProhibits(link, key, question, situation, vocabulary)
      : ourProhibits(link, key, question, vocabulary);
    if (reason) return reason;
  }
  return question && link.domains.size ? closed(link, question.stated) : undefined;
}

const concerns = (domain: Domain | undefined, { stated }: Question): boolean =>
  domain === undefined || domainsOf(stated).includes(domain);

function ourProhibits(
  { says }: Judged,
  key: string,
  question: Question | undefined,
  vocabulary: Vocabulary,
): Reason | undefined {
  if (!question || !isLate(key) || !concerns(domainOf(key, vocabulary), question)) return undefined;
  return lateProhibits(key, says[key]!, question.stated);
}

/** An own caveat: what it raises, and what is no answer, prohibits (15.12). */
function ownProhibits(
  link: Judged,
  key: string,
  question: Question | undefined,
  situation: Situation,
  vocabulary: Vocabulary,
): Reason | undefined {
  const kind = vocabulary[key]!;
  // Without an access, what asks about one is not asked, and nor is what is of a domain (18.2, 24.8).
  const isOfNone = kind.domain === "all" && kind.asksAccess === false;
  if (question ? !concerns(domainOf(key, vocabulary), question) : !isOfNone) return undefined;
  const { value } = link.own.find((own) => own.key === key)!;
  try {
    const access = question && seen(question.stated);
    const reason: unknown = kind.prohibits(value, access, handed(situation));
    if (reason === undefined) return undefined;
    if (isLater(reason)) return refuse("attribute", `the check of ${key} promises`);
    if (typeof reason === "string") return refuse("attribute", reason);
    const { code, text } = reason as Reason;
    return refuse(String(code), String(text));
  } catch {
    return refuse("attribute", `the check of ${key} failed`);
  }
}

/** A link that names a domain closes those that it does not name (18.3). */
function closed({ domains }: Judged, access: Stated): Reason | undefined {
  const stated = domainsOf(access);
  if (stated.length && stated.every((domain) => domains.has(domain))) return undefined;
  return refuse("domain", `restricted to ${[...domains].join(" and ")}`);
}

/** Why a link that belongs to no chain prohibits: first what is early, then the rest. */
export function linkProhibits(
  link: Link,
  question: Question | undefined,
  situation: Situation,
  vocabulary: Vocabulary,
): Reason | undefined {
  return (
    linkProhibitsEarly(link, situation) ?? linkProhibitsLate(link, question, situation, vocabulary)
  );
}

/** Is the access in the mark (46.2)? Every doubt says yes. */
export function isIn({ tables, operations = "*", tools, but }: Mark, question: Question): boolean {
  const { table, operation, tool } = question.stated;
  const isOfTable =
    table !== undefined && !!tables && matches(tables, table) && lists(operations, operation!);
  if (!isOfTable && !(tool !== undefined && tools && matches(tools, tool))) return false;
  return !but || linkProhibitsLate(but, question, NOWHERE, {}) !== undefined;
}

/** None of the caveats of a mark looks at the verifier's facts. */
const NOWHERE = {} as Situation;

const OF_THE_TOKEN: readonly Key[] = [
  "task",
  "from",
  "to",
  "depth",
  "delegate_only",
  "key",
  "uses",
  "budget",
];

/** Does it say nothing of the token itself (33.6, 36.6)? Entries of an overlay may have marks. */
export const isAboutRequests = ({ says, signature }: Link, mayMark = false): boolean =>
  !signature &&
  (mayMark || !says.marks) &&
  !says.consent &&
  !says.forbid?.some(({ unless }) => unless) &&
  OF_THE_TOKEN.every((key) => says[key] === undefined);
