/** Steps 1 to 6: text and keys in, a genuine token or a denial out (spec, "Verification"). */

import { b64encode, equal, type Bytes } from "../format/bytes.js";
import { bind, linkId, openSecretBox, stateOf, tagsOf } from "../format/crypto.js";
import { TokenFormatError } from "../format/errors.js";
import type { Packet } from "../format/packet.js";
import { readRoot, type Root } from "../format/root.js";
import { BOUND, partsOf, type Parts } from "../format/text.js";
import { readDischarge } from "../language/answers.js";
import type { Reason, Vocabulary } from "../language/caveats.js";
import { follow, holderOf, readAlong, type Lineage } from "../language/lineage.js";
import { readLinks, type AnyLink, type Link } from "../language/links.js";
import { evidenceHolds, evidenceOf, type Evidence } from "../proof.js";
import { codeOf, stepOf, type Code } from "./codes.js";
import type { Written } from "./record.js";

export const ISSUER = "the issuer";
export const DISCHARGER = "the discharger";

/** The macaroon key behind (key id, audience), or undefined. */
export type KeyLookup = (keyId: string, audience: string | undefined) => Bytes | undefined;

/** A reason, the link that it stands in, and who held the token when that was added. */
export interface Refusal {
  readonly code: Code;
  readonly text: string;
  readonly link?: number | undefined;
  readonly addedBy?: string | undefined;
}

/** Of a denial: the place is where it stands, if a link says it. */
export const refusal = (code: Code, text: string, place?: Partial<Refusal>): Refusal => ({
  code,
  text,
  ...place,
});

/** An agent's name and how it is known. Authorize on what is `issued` alone. */
export interface Actor {
  readonly name: string;
  readonly basis: "issued" | "vouched" | "proven";
}

/** Who is behind a token whose chain held. */
export interface Attribution {
  readonly root: Root;
  readonly chain: readonly Actor[];
  readonly task: string;
  readonly linkIds: readonly string[];
}

/** A link with the place that its refusals have. */
export interface Placed {
  readonly link: AnyLink;
  readonly at: number;
  readonly isDischarge: boolean;
}

/** A change of key on a bound token, and the evidence for it where it is signed (28.6). */
export interface Custody {
  readonly at: number;
  readonly evidence: Evidence | undefined;
  /** Does the signature hold? Worked out once. */
  holds?: boolean;
}

/** A token whose signature and discharges held, and whose links could be read. Not a permission. */
export interface AuthenticatedToken {
  readonly kind: "genuine";
  readonly root: Root;
  /** The tag after each link: a secret. */
  readonly tags: readonly Bytes[];
  readonly linkIds: readonly string[];
  readonly links: readonly AnyLink[];
  /** The links of the token, then those of its discharges. */
  readonly placed: readonly Placed[];
  readonly lineage: Lineage;
  readonly custody: readonly Custody[];
  readonly proof: Bytes | undefined;
  readonly written: Written;
  readonly consents: readonly Bytes[] | undefined;
}

/** A denial by steps 1 to 6. Without `who` nothing of the token may be shown (9.5). */
export interface Broken {
  readonly kind: "broken";
  readonly refusal: Refusal;
  readonly step: number;
  readonly who: Attribution | undefined;
  readonly written: Written | undefined;
}

const broken = (why: Refusal, step: number, who?: Attribution, written?: Written): Broken => ({
  kind: "broken",
  refusal: why,
  step,
  who,
  written,
});

/** Steps 1 to 6. Looks at no time, audience, caller, overlay or proof, and counts nothing. */
export function authenticate(
  given: string | Parts,
  keys: KeyLookup,
  vocabulary: Vocabulary,
): AuthenticatedToken | Broken {
  let parts: Parts;
  let root: Root;
  try {
    parts = typeof given === "object" ? given : partsOf(given, BOUND);
    root = readRoot(parts.packet.identifier);
  } catch (error) {
    if (!(error instanceof TokenFormatError)) throw error;
    return broken(refusal(codeOf(error.code), error.message), error.step);
  }
  const { packet } = parts;
  const derived = keys(root.keyId, root.audience);
  if (!derived) {
    return broken(refusal("unknown_key", "no key here for the key id and audience that it names"), 3);
  }
  // The bytes that arrived, all of them, in constant time (11.4).
  const all = tagsOf(derived, packet.identifier, packet.caveats);
  if (!equal(all.at(-1)!, packet.signature)) {
    return broken(refusal("bad_signature", "the signatures do not match"), 4);
  }
  return read(root, parts, all, vocabulary);
}

type Answers = Map<number, Packet>;

/** The discharge of each third-party caveat, or where and why there is none (33.5). */
function answersOf(
  { caveats, signature }: Packet,
  all: readonly Bytes[],
  discharges: readonly Packet[],
): Answers | { at: number | undefined; reason: Reason } {
  const no = (
    at: number | undefined,
    code: string,
    text: string,
  ): { at: number | undefined; reason: Reason } => ({
    at,
    reason: { code, text },
  });
  const left = [...discharges];
  const isTwice = left.some((one, at) =>
    left.slice(0, at).some((two) => equal(one.identifier, two.identifier)),
  );
  if (isTwice) return no(undefined, "bad_discharge", "a discharge was sent twice");
  const asked = [...caveats.entries()].filter(([, { vid }]) => vid);
  const answers: Answers = new Map();
  // Counts come before boxes: nobody has more opened than caveats have answers.
  for (const [at, { cid }] of asked) {
    if (left[0] && equal(left[0].identifier, cid)) answers.set(at, left.shift()!);
  }
  if (left.length) {
    return no(
      undefined,
      "bad_discharge",
      "a discharge that answers nothing asked, or in another order",
    );
  }
  const missing = asked.find(([at]) => !answers.has(at));
  if (missing) {
    return no(missing[0], "missing_discharge", "a discharge is missing");
  }
  for (const [at, discharge] of answers) {
    const vid = caveats[at]!.vid!;
    const key = openSecretBox(all[at]!, vid.slice(0, 24), vid.slice(24));
    const tag = key && tagsOf(key, discharge.identifier, discharge.caveats).at(-1)!;
    if (!tag || !equal(bind(signature, tag), discharge.signature)) {
      return no(at, "bad_discharge", "not by whom was asked, or not bound to this token");
    }
  }
  return answers;
}

/** Steps 5 and 6: every link can be read, and the chain of delegation holds. */
function read(
  root: Root,
  { packet, discharges, proof, consents }: Parts,
  all: readonly Bytes[],
  vocabulary: Vocabulary,
): AuthenticatedToken | Broken {
  const tags = all.slice(1);
  const linkIds = tags.map(linkId);
  const answers = answersOf(packet, all, discharges);
  const written = { identifier: packet.identifier, caveats: packet.caveats };
  // Decoded from here on, and not before (24.1).
  const links = readLinks(packet.caveats, vocabulary);
  const stop = (at: number | undefined, reason: Reason, by?: string): Broken => {
    const place = at === undefined ? undefined : placeAt({ root, links }, at, by);
    const code = codeOf(reason.code);
    const chain = actorsOf(readAlong(root.agent, links));
    const who = { root, chain, task: root.task, linkIds };
    return broken(refusal(code, reason.text, place), stepOf(code), who, written);
  };
  if (!(answers instanceof Map)) return stop(answers.at, answers.reason);
  const placed: Placed[] = [];
  for (const [at, link] of links.entries()) {
    if (link.kind === "bad") return stop(at, link);
    placed.push({ link, at, isDischarge: false });
  }
  for (const [at, discharge] of answers) {
    const said = readDischarge(discharge, vocabulary);
    if (!Array.isArray(said)) return stop(at, said, DISCHARGER);
    placed.push(...said.map((link) => ({ link, at, isDischarge: true })));
  }
  const lineage = follow(root.agent, links);
  if ("reason" in lineage) return stop(lineage.at, lineage.reason);
  const custody = custodyOf(links, tags);
  const found = { root, tags, linkIds, links, placed, lineage, custody, proof, consents, written };
  return { kind: "genuine", ...found };
}

/** Who held the token when link `at` was added: whose word it is. */
const adderOf = ({ root, links }: Chained, at: number): string =>
  at === 0 ? ISSUER : holderOf(readAlong(root.agent, links.slice(0, at)));

type Chained = Pick<AuthenticatedToken, "root" | "links">;

export const placeAt = (
  chained: Chained,
  link: number,
  addedBy = adderOf(chained, link),
): { link: number; addedBy: string } => ({ link, addedBy });

/** Where a restriction stands, and who added it (33.7). */
export const placeOf = (
  genuine: AuthenticatedToken,
  { at, isDischarge }: Placed,
): { link: number; addedBy: string } =>
  placeAt(genuine, at, isDischarge ? DISCHARGER : undefined);

/**
 * Every change of key on a bound token. The first key is not signed: there is none yet to sign it.
 */
function custodyOf(links: readonly AnyLink[], tags: readonly Bytes[]): Custody[] {
  const found: Custody[] = [];
  let boundTo: Bytes | undefined;
  for (const [at, link] of links.entries()) {
    if (link.kind !== "link" || !link.says.key) continue;
    const { body, signature } = link;
    if (boundTo) {
      const state = stateOf(tags[at - 1]!);
      const evidence = signature && evidenceOf(boundTo, state, body, signature);
      found.push({ at, evidence });
    }
    boundTo = link.says.key;
  }
  return found;
}

const actorsOf = ({ holders }: Lineage, proven: ReadonlySet<string> = new Set()): Actor[] =>
  holders.map((name, at) => {
    if (at === 0) return { name, basis: "issued" };
    return { name, basis: proven.has(name) ? "proven" : "vouched" };
  });

/** Which change of key is the first that is not signed for, or undefined (28.6). */
export const firstUnsigned = ({ custody }: AuthenticatedToken): Custody | undefined =>
  custody.find((each) => !(each.holds ??= !!each.evidence && evidenceHolds(each.evidence)));

/** Every holder, with the basis on which its name is known (20.4, 28.7). */
export function chainOf(genuine: AuthenticatedToken): Actor[] {
  const { links, custody, lineage } = genuine;
  const saysAt = (at: number): Link["says"] => (links[at] as Link).says;
  const isBinding = (link: AnyLink): boolean => link.kind === "link" && link.says.key !== undefined;
  const first = links.findIndex(isBinding);
  const early = links.slice(0, first + 1);
  // A key that the first agent bound by itself proves nothing: whoever had the text can have
  // done it.
  let known =
    first <= 0 || early.some((link) => link.kind === "link" && link.says.to !== undefined);
  const proven = new Set<string>();
  const end = firstUnsigned(genuine);
  for (const each of custody) {
    if (each === end) break;
    const { to } = saysAt(each.at);
    if (to === undefined) continue;
    if (known) proven.add(to);
    known = true;
  }
  return actorsOf(lineage, proven);
}

export const keyOf = ({ lineage: { key } }: AuthenticatedToken): string | undefined =>
  key && b64encode(key);
