/** A person's consent to one access: asked at the end of step 8 and of step 10 (spec, "Consent"). */

import { b64encode, concat, hex, utf8, type Bytes } from "../format/bytes.js";
import { label, labelled, sha256, stateOf } from "../format/crypto.js";
import { isIn, type Question } from "../language/links.js";
import type { Mark } from "../language/caveats.js";
import type { Use } from "../stores.js";
import { placeAt, type AuthenticatedToken, type Refusal } from "./authenticate.js";
import { holding, type Steps } from "./steps.js";

const LIVES = 3600;
const AHEAD = 5;

/** What a link asks consent for; `needs` is undefined for what a rule has in `unless`. */
interface Asking {
  readonly at: number;
  readonly state: Bytes;
  readonly by: Bytes;
  readonly needs: Mark | undefined;
}

/** A consent that came and names a question of this access. */
interface Came {
  readonly asking: Asking;
  readonly audience: string;
  readonly consent: Bytes;
  readonly question: string;
}

function* askingOf({ links, tags }: AuthenticatedToken): Generator<Asking> {
  for (const [at, link] of links.entries()) {
    if (link.kind !== "link") continue;
    const state = stateOf(tags[at]!);
    for (const { by, needs } of link.says.consent ?? []) yield { at, state, by, needs };
    for (const { unless } of link.says.forbid ?? []) {
      if (unless) yield { at, state, by: unless, needs: undefined };
    }
  }
}

/** Each consent that came for an access, and what asks for it: one may answer several (47.4). */
export function* cameFor(
  genuine: AuthenticatedToken,
  audiences: Iterable<string>,
  digest: Bytes | undefined,
): Generator<Came> {
  const { consents = [] } = genuine;
  if (!consents.length || !digest) return;
  const byName = new Map(consents.map((each) => [hex(each.slice(0, 32)), each]));
  const names = [...audiences].sort();
  for (const asking of askingOf(genuine)) {
    for (const audience of names) {
      const { by, state } = asking;
      const spokenTo = sha256(utf8(audience));
      const question = hex(labelled("consent question", by, state, digest, spokenTo));
      const consent = byName.get(question);
      if (consent) yield { asking, audience, consent, question };
    }
  }
}

/** The end of step 8: what nothing else refuses, and nobody has consented to (47.3). */
export function unconsented(
  genuine: AuthenticatedToken,
  question: Question | undefined,
  came: () => Iterable<Came>,
): Refusal[] {
  if (!question) return [];
  const needed = [...askingOf(genuine)].filter(({ needs }) => needs && isIn(needs, question));
  if (!needed.length) return [];
  const answered = new Set([...came()].map(({ asking: { at, by } }) => `${at} ${hex(by)}`));
  return needed
    .filter(({ at, by }) => !answered.has(`${at} ${hex(by)}`))
    .map(({ at, by }) => ({
      code: "consent_missing",
      text: `needs a consent of ${b64encode(by)}`,
      ...placeAt(genuine, at),
    }));
}

const timeAt = (bytes: Bytes, at: number): number =>
  Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(at));

/** The end of step 10: why a consent to this access will not do, or undefined (47.6). */
export function* badConsent(
  genuine: AuthenticatedToken,
  came: Iterable<Came>,
  digest: Bytes,
  now: number,
): Steps<Refusal | undefined> {
  for (const { asking, audience, consent } of came) {
    const [from, until] = [timeAt(consent, 32), timeAt(consent, 40)];
    const isTimely = from < until && until - from <= LIVES && from <= now + AHEAD && now < until;
    const parts = [asking.state, digest, sha256(utf8(audience)), consent.slice(32, 64)];
    const message = concat(label("consent"), ...parts);
    const signature = consent.slice(64);
    if (isTimely && (yield* holding((by) => by(asking.by, message, signature)))) continue;
    return { code: "bad_consent", text: "late, or not of the key", ...placeAt(genuine, asking.at) };
  }
  return undefined;
}

/** What the store remembers, and the link that asks (47.9). */
export interface Spent {
  readonly use: Use;
  readonly link: number;
}

/** Those that the access needs, and those that lift one of these rules, by link and key. */
export function spendsOf(
  came: readonly Came[],
  question: Question,
  lifted: ReadonlySet<string>,
  kid: string,
): Spent[] {
  const made = new Map<string, Spent>();
  for (const { asking, consent, question: name } of came) {
    const { at, by, needs } = asking;
    const isNeeded = needs ? isIn(needs, question) : lifted.has(`${at} ${hex(by)}`);
    if (!isNeeded || made.has(name)) continue;
    const entry = labelled("consent use", by, consent.slice(48, 64)).slice(0, 16);
    made.set(name, { use: { entry, issuedAt: timeAt(consent, 32), kid }, link: at });
  }
  return [...made.values()];
}
