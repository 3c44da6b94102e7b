/**
 * A holder has what it handed on revoked: the request, and the control plane that takes it (spec,
 * "Recall").
 */

import {
  b64decode,
  b64encode,
  b64exact,
  byCodePoint,
  equal,
  utf8,
  type Bytes,
} from "./format/bytes.js";
import { H, extend, labelled, linkId, sha256, type RawCaveat } from "./format/crypto.js";
import { CaptokenError, UsageError } from "./format/errors.js";
import { settings } from "./format/given.js";
import {
  canonical,
  canonicalBytes,
  canonicalObject,
  canonicalText,
  isInteger,
  isObject,
  jsonOf,
  type Json,
  type JsonObject,
} from "./format/json.js";
import { withoutProof } from "./format/text.js";
import { splitSigned, type Link } from "./language/links.js";
import { isNonce, overlayEntry, type Entry, type Selector } from "./language/overlay.js";
import type { Signer } from "./proof.js";
import { holderOf } from "./language/lineage.js";
import { Denied } from "./verification/decision.js";
import { shownBy, type Verifier } from "./verification/verifier.js";
import type { AuthenticatedToken } from "./verification/authenticate.js";
import { type Seconds } from "./writing/compose.js";
import { MEANS, readClock, type Means } from "./writing/means.js";
import { withProof } from "./writing/proving.js";
import { packetsOf } from "./writing/held.js";
import type { Token } from "./writing/token.js";

const MAX_CHARS = 65536;
const MAX_LINKS = 64;
const MAX_BUNDLE = 32768;
const VID = 72;
const SLACK = 86400;
const MOST = 100;
const PART = 67108864 / 4;

const refused = (what: string): CaptokenError => new CaptokenError(what, "recall");

/** The MAC of whoever had the token at a link: over the links that follow, and why (37.1). */
const macOf = (tag: Bytes, links: Json, why: Json): Bytes =>
  H(
    labelled("recall", tag),
    canonicalBytes(
      new Map([
        ["links", links],
        ["why", why],
      ]),
    ),
  );

/** The proof is for the request as it is without it (37.2). */
function digestOf(stated: JsonObject): Bytes {
  const bare = new Map(stated).set("token", withoutProof(stated.get("token") as string));
  return sha256(canonicalBytes(bare));
}

const UNPRINTED = new RegExp(
  "[\\p{C}\\p{Zl}\\p{Zp}]|(?! )\\p{Zs}|" +
    "[\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u2800\\u3164" +
    "\\ufe00-\\ufe0f\\uffa0\\u{e0100}-\\u{e01ef}]",
  "u",
);

/** 1 to 200 code points that print, and not spaces alone (37.1). */
const isReason = (why: Json): boolean =>
  typeof why === "string" && /[^ ]/.test(why) && [...why].length <= 200 && !UNPRINTED.test(why);

// --- the holder ----------------------------------------------------------------------------------

export interface Recalling {
  /** The name of the control plane. */
  readonly audience: string;
  readonly why: string;
  /** The key that the token is bound to, if it is. */
  readonly signer?: Signer;
  readonly expiresIn?: Seconds;
}

/**
 * The request that what `handedOn` and all below it can do be stopped. As secret as what is
 * presented.
 */
export function recall(
  token: Token,
  handedOn: Token,
  recalling: Recalling,
  means: Partial<Means> = {},
): string {
  const { audience, why, signer, expiresIn = 60 } = settings(
    recalling,
    /^(audience|why|signer|expiresIn)$/,
  );
  if (!isReason(why)) throw new UsageError("say why, in a line of at most 200 characters");
  const held = packetsOf(token).packet;
  const given = packetsOf(handedOn).packet;
  const count = held.caveats.length;
  const same = (one: Bytes | undefined, two: Bytes | undefined): boolean =>
    one === undefined || two === undefined ? one === two : equal(one, two);
  const follows = held.caveats.every(
    ({ cid, vid }, at) => same(cid, given.caveats[at]?.cid) && same(vid, given.caveats[at]?.vid),
  );
  if (!equal(held.identifier, given.identifier) || !follows || given.caveats.length === count) {
    throw new UsageError("the one was not made from the other");
  }
  const links = given.caveats.slice(count).map(({ cid, vid }): Json => {
    const stated: JsonObject = new Map([["cid", b64encode(cid)]]);
    return vid ? stated.set("vid", b64encode(vid)) : stated;
  });
  const text = token.present({ audience, expiresIn, maxChars: MAX_BUNDLE });
  const mac = b64encode(macOf(held.signature, links, why));
  const stated: JsonObject = new Map<string, Json>([
    ["after", count - 1],
    ["links", links],
    ["mac", mac],
  ]);
  stated.set("token", text).set("v", 1).set("why", why);
  if (signer) {
    stated.set("token", withProof(text, signer, { audience, request: digestOf(stated) }, means));
  }
  return canonical(stated);
}

// --- the control plane ---------------------------------------------------------------------------

interface Request {
  readonly token: string;
  readonly after: number;
  readonly links: readonly RawCaveat[];
  readonly stated: JsonObject;
  readonly mac: Bytes;
  readonly why: string;
}

const KEYS = ["after", "links", "mac", "token", "v", "why"];

function readRequest(request: string): Request {
  const isShort =
    typeof request === "string" &&
    request.length <= 2 * MAX_CHARS &&
    [...request].length <= MAX_CHARS;
  const stated = isShort ? canonicalText(request) : undefined;
  const isForm =
    stated &&
    stated.size === KEYS.length &&
    KEYS.every((key) => stated.has(key)) &&
    stated.get("v") === 1;
  if (!isForm) throw refused("no request: it has after, links, mac, token, v and why");
  const at = (key: string): Json => stated.get(key)!;
  const [after, links, token, why] = [at("after"), at("links"), at("token"), at("why")];
  const mac = typeof at("mac") === "string" ? b64decode(at("mac") as string) : undefined;
  if (!isInteger(after) || typeof token !== "string" || !mac || !isReason(why)) {
    throw refused("no request");
  }
  if (!Array.isArray(links) || links.length === 0 || links.length > MAX_LINKS) {
    throw refused("1 to 64 links");
  }
  return { token, after, links: links.map(readRaw), stated, mac, why: why as string };
}

function readRaw(json: Json): RawCaveat {
  const isForm = isObject(json) && [...json.keys()].every((key) => key === "cid" || key === "vid");
  const spelled = isForm ? json.get("cid") : undefined;
  const cid = typeof spelled === "string" ? b64decode(spelled) : undefined;
  const vid = isForm && json.has("vid") ? b64exact(json.get("vid"), VID) : undefined;
  if (!isForm || !cid?.length || (json.has("vid") && !vid)) {
    throw refused("a link has cid, and perhaps vid");
  }
  return { cid, vid };
}

export interface PlaneOptions {
  /** How many recalls of one hand-over and all below it stand at a time. */
  readonly most?: number;
  /** How many bytes the entries that holders asked for may be. */
  readonly part?: number;
  readonly by?: string;
  readonly clock?: () => number;
  readonly random?: (length: number) => Bytes;
}

/**
 * What a recall comes to: the entry that stops it, and all entries that stand then, for the next
 * snapshot.
 */
export interface Recalled {
  readonly entry: Entry;
  readonly entries: readonly Entry[];
}

interface Wanted {
  readonly token: string;
  /** By what links go: their ids, or their `n` of a set (37.12). */
  readonly kind: "link" | "hop";
  readonly link: string;
  /** The hand-overs down to whoever asks, and until when each matters. */
  readonly handed: readonly { readonly link: string; readonly until: number | undefined }[];
  readonly why: string;
  readonly until: number | undefined;
}

/** Takes requests of holders. What it gives, an operator signs. */
export class ControlPlane {
  readonly #verifier: Verifier;
  readonly #options: Required<PlaneOptions>;

  /** `verifier` is one for the control plane's own audience. */
  constructor(verifier: Verifier, options: PlaneOptions = {}) {
    const { clock, random } = MEANS;
    this.#verifier = verifier;
    this.#options = {
      ...{ most: MOST, part: PART, by: "ops", clock, random },
      ...settings(options, /^(most|part|by|clock|random)$/),
    };
  }

  /**
   * What the request comes to, over the entries that stand. Raises Denied, or CaptokenError
   * `recall`.
   */
  handle(
    request: string,
    standing: readonly (Entry | Readonly<Record<string, unknown>>)[] = [],
  ): Recalled {
    const asked = readRequest(request);
    const shown = shownBy(this.#verifier, asked.token, digestOf(asked.stated));
    if (!("genuine" in shown)) throw new Denied(shown);
    const entries = standing.map((each) => ("json" in each ? (each as Entry) : overlayEntry(each)));
    return this.#recalled(wanted(shown.genuine, asked), entries);
  }

  #make(select: Selector, asked: readonly string[], why: string, until: number | undefined): Entry {
    const { by, clock, random } = this.#options;
    const json: JsonObject = new Map<string, Json>([
      ["asked", [...asked]],
      ["at", readClock(clock)],
      ["by", by],
    ]);
    json
      .set("id", b64encode(random(8)))
      .set("select", jsonOf(select))
      .set("why", why);
    return overlayEntry(until === undefined ? json : json.set("until", until));
  }

  /** The three rules, in their order (37.9 to 37.11). */
  #recalled(recall: Wanted, standing: readonly Entry[]): Recalled {
    const now = readClock(this.#options.clock);
    const stands = already(recall, standing, now);
    if (stands) return { entry: stands, entries: standing };
    const asked = new Asked(standing);
    const by = recall.handed.map(({ link }) => link);
    const under = asked.by(recall.token, [...by, recall.link]);
    const { token, kind } = recall;
    const until = latest([recall.until, ...under.map((each) => each.until)]);
    let entry = asked.replace(
      under,
      this.#make({ [kind]: recall.link, token }, by, recall.why, until),
    );
    for (let depth = recall.handed.length; depth > 0; depth--) {
      const handed = recall.handed[depth - 1]!;
      const below = asked.by(token, by.slice(0, depth));
      if (below.filter((each) => isStanding(each, now)).length <= this.#options.most) continue;
      const { most } = this.#options;
      const why = `more than ${most} recalls were asked for by its holder and those below`;
      const end = latest([handed.until, ...below.map((each) => each.until)]);
      entry = asked.replace(
        below,
        this.#make({ [kind]: handed.link, token }, by.slice(0, depth), why, end),
      );
    }
    return { entry: this.#fitted(asked, entry), entries: asked.entries };
  }

  /** Token ids give way until all fits in the holders' part (37.11). */
  #fitted(asked: Asked, first: Entry): Entry {
    let entry = first;
    while (asked.size > this.#options.part) {
      const next = asked.trees().find(({ token, tree }) => {
        const whole = this.#whole(token, tree);
        return sizeOf(tree) > sizeOf([whole]);
      });
      if (!next) throw refused("the part of the snapshot that is for recalls is full");
      const whole = asked.replace(next.tree, this.#whole(next.token, next.tree));
      if (next.tree.includes(entry)) entry = whole;
    }
    return entry;
  }

  #whole(token: string, tree: readonly Entry[]): Entry {
    const why = "too many recalls of all trees: this one has most";
    return this.#make({ token }, [], why, latest(tree.map(({ until }) => until)));
  }
}

/** The link is computed, and the MAC shows that whoever asks had the token there (37.3 to 37.5). */
function wanted(genuine: AuthenticatedToken, { after, links, stated, mac, why }: Request): Wanted {
  const handed = [...genuine.links.entries()].filter(
    ([, link]) => link.kind === "link" && link.says.to !== undefined,
  );
  const since = handed.at(-1)?.[0] ?? 0;
  if (after < since || after >= genuine.tags.length) {
    throw refused("the holder did not have the token at that link");
  }
  let tag = genuine.tags[after]!;
  if (!equal(macOf(tag, stated.get("links")!, why), mac)) {
    throw refused("the holder did not have the token at that link");
  }
  for (const link of links) tag = extend(tag, link);
  const endAt = (at: number): number | undefined => {
    const ends = genuine.links
      .slice(0, at + 1)
      .flatMap((link) => (link.kind === "link" ? [link.says.exp] : []));
    const known = ends.filter((end) => end !== undefined);
    return known.length ? Math.min(...known) + SLACK : undefined;
  };
  const token = genuine.root.tokenId;
  const asks = `asked for by ${holderOf(genuine.lineage)}: ${why}`;
  if (genuine.root.audience !== undefined) {
    // A token for the plane alone, of a set: its links are nobody else's (37.12).
    const link = links.map(hopIn).findLast((each) => each !== undefined);
    if (link === undefined) throw refused("none of these links has an n");
    const until = endAt(0);
    const hops = handed.map(([, link]) => ({ link: (link as Link).says.n as string, until }));
    return { token, kind: "hop", link, handed: hops, why: asks, until };
  }
  return {
    token,
    kind: "link",
    link: linkId(tag),
    handed: handed.map(([at]) => ({ link: genuine.linkIds[at]!, until: endAt(at) })),
    why: asks,
    until: endAt(after),
  };
}

/** The `n` of a link as it travels, whatever else it says. */
function hopIn({ cid, vid }: RawCaveat): string | undefined {
  const parts = vid ? undefined : splitSigned(cid);
  const stated = parts && canonicalObject(parts.body);
  const hop = stated?.get("n");
  return hop !== undefined && isNonce(hop) ? (hop as string) : undefined;
}

const isStanding = ({ until }: Entry, now: number): boolean => until === undefined || now < until;
const lasts = (entry: Entry, until: number | undefined): boolean =>
  entry.until === undefined || (until !== undefined && entry.until >= until);

function latest(ends: readonly (number | undefined)[]): number | undefined {
  const known = ends.filter((end) => end !== undefined);
  return known.length === ends.length ? Math.max(...known) : undefined;
}

/** An entry that revokes that link, or whoever asks, for as long (37.4). */
function already(recall: Wanted, entries: readonly Entry[], now: number): Entry | undefined {
  const enough = [recall.link, ...recall.handed.map(({ link }) => link)];
  return entries.find((entry) => {
    const { token, [recall.kind]: link, ...more } = entry.select;
    const isEnough =
      token === recall.token &&
      (link === undefined || enough.includes(link)) &&
      (recall.kind === "link" || !link || (entry.asked ?? []).every((n) => enough.includes(n))) &&
      !Object.keys(more).length;
    return isEnough && !entry.link && isStanding(entry, now) && lasts(entry, recall.until);
  });
}

const sizeOf = (entries: readonly Entry[]): number =>
  entries.reduce((sum, { json }) => sum + utf8(canonical(json)).length, 0);

/** What stands, while it changes: only what holders asked for ever gives way (37.8). */
class Asked {
  entries: readonly Entry[];

  constructor(entries: readonly Entry[]) {
    this.entries = entries;
  }

  /** What was asked for by whoever was handed it so, or below: never by those beside. */
  by(token: string, path: readonly string[]): Entry[] {
    return this.entries.filter(
      ({ select, asked }) =>
        select.token === token && asked && path.every((link, at) => asked[at] === link),
    );
  }

  replace(those: readonly Entry[], made: Entry): Entry {
    this.entries = [...this.entries.filter((entry) => !those.includes(entry)), made];
    return made;
  }

  get size(): number {
    return sizeOf(this.entries.filter(({ asked }) => asked));
  }

  /** By token id, those with most entries first, and of several the first by code point. */
  trees(): { token: string; tree: Entry[] }[] {
    const trees = new Map<string, Entry[]>();
    for (const entry of this.entries) {
      if (entry.asked) {
        trees.set(entry.select.token!, [...(trees.get(entry.select.token!) ?? []), entry]);
      }
    }
    const listed = [...trees].map(([token, tree]) => ({ token, tree }));
    return listed.sort(
      (one, two) => two.tree.length - one.tree.length || byCodePoint(one.token, two.token),
    );
  }
}
