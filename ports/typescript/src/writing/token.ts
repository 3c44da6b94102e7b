/** Tokens: parsed, immutable, unverified (spec, "Token"). */

import { b64encode, equal, utf8, type Bytes } from "../format/bytes.js";
import { extend, linkId, stateOf, type RawCaveat } from "../format/crypto.js";
import { DelegationError, DischargeError, LimitError, UsageError } from "../format/errors.js";
import { settings } from "../format/given.js";
import { handed, lock } from "../format/handed.js";
import { canonicalBytes, type JsonObject } from "../format/json.js";
import type { Packet } from "../format/packet.js";
import type { Root } from "../format/root.js";
import {
  BOUND,
  MAX_DISCHARGES,
  UNBOUND,
  checkBundle,
  proofText,
  wholeText,
} from "../format/text.js";
import {
  Discharge,
  askingCaveat,
  packetOfDischarge,
  parseTicket,
  type Ticket,
} from "../discharge.js";
import type { Access } from "../language/access.js";
import { NOWHERE, capabilityOf, meet, type Capability } from "../language/capability.js";
import { holderOf, readAlong, type Lineage } from "../language/lineage.js";
import { joinSigned, readLinks, type AnyLink } from "../language/links.js";
import {
  accessRequest,
  custodyMessage,
  isDigest,
  makeProof,
  signerKey,
  type Signer,
} from "../proof.js";
import { asked, boundParts, heldIn, hold } from "./held.js";
import {
  checkCustody,
  compose,
  type Caveats,
  type Holding,
  type Seconds,
  type Terms,
  type Writing,
} from "./compose.js";
import { meansOf, readClock, type Means } from "./means.js";

const PRESENT_CHARS = 7168;

/** Whose key a link binds the token to, and who signs for that. */
export interface Binding {
  /** The Ed25519 key of whoever holds it from here on. */
  readonly key?: string | Bytes;
  /** The key that the token is bound to so far. */
  readonly signer?: Signer;
}

export type Narrowing = Caveats & Writing & Binding;
export type Delegating = Narrowing & { readonly to: string };

export type Presenting = Omit<Caveats, "expiresAt" | "audience"> &
  Writing & {
    /** The server, or several names of it. */
    readonly audience: string | readonly string[] | ReadonlySet<string>;
    readonly expiresIn?: Seconds;
    /** The key that the token is bound to: the text then ends in a proof, for one sending. */
    readonly signer?: Signer;
    /** What the proof is for: the access, or the 32 bytes of a digest. */
    readonly request?: Access | Bytes;
    readonly maxChars?: number;
  };

/** What a token says of itself: anybody can write one that says anything. Never to decide on. */
export interface Unverified {
  readonly root: Root;
  readonly links: readonly AnyLink[];
  readonly capability: Capability;
  readonly lineage: Lineage;
  readonly holder: string;
  /** The Ed25519 key that it is bound to. */
  readonly key: string | undefined;
  readonly task: string;
  readonly expiresAt: number | undefined;
}

/** A token: whoever has the text has the power, unless it is bound to a key or asks for more. */
export class Token {
  readonly #packet: Packet;
  readonly #discharges: readonly Packet[];
  readonly #root: Root;
  readonly #means: Means;
  #said: { links: readonly AnyLink[]; holding: Holding } | undefined;

  constructor(packet: Packet, root: Root, means: Means, discharges: readonly Packet[] = []) {
    this.#packet = packet;
    this.#root = root;
    this.#means = means;
    this.#discharges = discharges;
    hold(this, { packet, discharges }, means);
    lock(this);
  }

  /**
   * The token that `text` spells: its form, sizes and root record. Raises TokenFormatError alone.
   */
  static parse(text: string, means: Partial<Means> = {}): Token {
    const { packet, discharges, root } = heldIn(text);
    return new Token(packet, root, meansOf(means), discharges);
  }

  /** The text, for a sub-agent that is meant to hold the token. Secret. To a server, `present`. */
  serialize(): string {
    return wholeText(this.#packet, this.#discharges, UNBOUND);
  }

  /** The id of the whole tree that was minted, by the token's own account. */
  get tokenId(): string {
    return this.#root.tokenId;
  }

  /** The id of the last link and all below it. Public. */
  get linkId(): string {
    return linkId(this.#packet.signature);
  }

  /** What it says of itself, before anybody has verified it. */
  get unverified(): Unverified {
    const { links, holding } = this.#read();
    const { lineage } = holding;
    const isBad = links.some((link) => link.kind === "bad");
    return handed({
      root: this.#root,
      links,
      capability: isBad ? meet(holding.capability, NOWHERE) : holding.capability,
      lineage,
      holder: holderOf(lineage),
      key: lineage.key && b64encode(lineage.key),
      task: holding.capability.task ?? this.#root.task,
      expiresAt: holding.capability.exp,
    });
  }

  /**
   * What third parties are asked and no discharge is here for. Raises DischargeError for a foreign
   * one.
   */
  get needs(): readonly Ticket[] {
    const answered = (cid: Bytes): boolean =>
      this.#discharges.some(({ identifier }) => equal(identifier, cid));
    return asked(this.#packet)
      .filter((cid) => !answered(cid))
      .map(parseTicket);
  }

  get discharges(): readonly Discharge[] {
    return this.#discharges.map((packet) => new Discharge(packet));
  }

  #read(): { links: readonly AnyLink[]; holding: Holding } {
    if (!this.#said) {
      const links = readLinks(this.#packet.caveats, this.#means.vocabulary);
      const { agent, task, audience } = this.#root;
      const capability = capabilityOf(links, { task, audience }, this.#means.vocabulary);
      this.#said = { links, holding: { links, capability, lineage: readAlong(agent, links) } };
    }
    return this.#said;
  }

  // --- narrowing ---------------------------------------------------------------------------------

  /**
   * A new token that can do less; this one is unchanged. Needs no key and no server.
   *
   * Raises WideningError for more than is held, DelegationError for a key without its signature,
   * LimitError past a limit, UsageError for what is no caveat.
   */
  attenuate(narrowing: Narrowing): Token {
    const { key, signer, keep, clamp, ...caveats } = settings(narrowing);
    return this.#narrowed({ caveats, writing: { keep, clamp }, key }, signer);
  }

  /** A new token for the agent `to`, narrowed as `attenuate` does. */
  delegate(delegating: Delegating): Token {
    const { to, key, signer, keep, clamp, ...caveats } = settings(delegating);
    if (to === undefined) throw new UsageError("to is the agent that it is handed to");
    return this.#narrowed({ caveats, writing: { keep, clamp }, to, key }, signer);
  }

  #narrowed(terms: Terms, signer: Signer | undefined): Token {
    const { holding } = this.#read();
    const stated = compose(terms, this.#means, holding);
    checkCustody(holding.lineage.key, terms, signer);
    const body = spell(stated);
    if (!signer) return this.withRawLink({ cid: body });
    const signature = signer.sign(custodyMessage(stateOf(this.#packet.signature), body));
    return this.withRawLink({ cid: joinSigned(body, b64encode(signature)) });
  }

  /** This token with one more link as it travels, whatever it says. For tools and tests. */
  withRawLink(raw: RawCaveat): Token {
    const link = handed(raw);
    const { identifier, caveats, signature } = this.#packet;
    const packet = { identifier, caveats: [...caveats, link], signature: extend(signature, link) };
    checkBundle(packet, this.#discharges);
    return new Token(packet, this.#root, this.#means, this.#discharges);
  }

  // --- third parties -----------------------------------------------------------------------------

  /** A new token that is worth nothing without a third party's word on `need`. */
  require(
    discharger: string | Bytes,
    asking: { need: Readonly<Record<string, unknown>>; location?: string },
  ): Token {
    const { need, location } = settings(asking, /^(need|location)$/);
    if (this.#packet.caveats.filter(({ vid }) => vid).length >= MAX_DISCHARGES) {
      throw new LimitError("16 third parties are asked already");
    }
    const { signature } = this.#packet;
    return this.withRawLink(
      askingCaveat(signature, discharger, need, location, this.#means.random),
    );
  }

  /** The token together with a discharge, in place of an older one for the same ticket. */
  withDischarge(answer: Discharge | string): Token {
    const got = packetOfDischarge(typeof answer === "string" ? Discharge.parse(answer) : answer);
    const cids = asked(this.#packet);
    if (!cids.some((cid) => equal(cid, got.identifier))) {
      throw new DischargeError(
        "this token does not ask for this discharge",
        "bad_discharge",
      );
    }
    const others = this.#discharges.filter(({ identifier }) => !equal(identifier, got.identifier));
    const all = [...others, got];
    const ordered = cids.flatMap((cid) => all.filter(({ identifier }) => equal(identifier, cid)));
    checkBundle(this.#packet, ordered);
    return new Token(this.#packet, this.#root, this.#means, ordered);
  }

  // --- presenting --------------------------------------------------------------------------------

  /**
   * The text for one server: good for `audience` alone, and for a minute at most if not said.
   *
   * Never send a server the token itself. Discharges go with it, bound to it. Without a signer the
   * text of a bound token has no proof, and no server takes it so.
   */
  present(asking: Presenting): string {
    const {
      audience,
      expiresIn = 60,
      signer,
      request,
      maxChars = PRESENT_CHARS,
      keep,
      clamp,
      ...caveats
    } = settings(asking);
    const names = typeof audience === "string" ? [audience] : [...(audience ?? [])];
    if (names.length === 0 || names.includes("")) throw new UsageError("audience names the server");
    if (!signer && request !== undefined) {
      throw new UsageError("a request goes with the signer that proves it");
    }
    const terms: Terms = {
      caveats: { ...caveats, audience: names, expiresIn },
      writing: { keep, clamp },
    };
    const shown = this.withRawLink({
      cid: spell(compose(terms, this.#means, this.#read().holding)),
    });
    let text = presentedText(shown);
    if (signer) text += `.${proofText(this.#proof(shown, names, signer, request))}`;
    if (text.length > maxChars) {
      throw new LimitError(`the text would be ${text.length} characters, more than ${maxChars}`);
    }
    return text;
  }

  #proof(
    shown: Token,
    names: readonly string[],
    signer: Signer,
    request: Access | Bytes | undefined,
  ): Bytes {
    this.#checkProver(signer);
    if (names.length !== 1) throw new UsageError("a proof is good at one server: name one audience");
    const digest = requestOf(request);
    const { clock, random } = this.#means;
    const state = stateOf(shown.#packet.signature);
    return makeProof(signer, state, names[0]!, digest, readClock(clock), random(16));
  }

  #checkProver(signer: Signer): void {
    const { key } = this.#read().holding.lineage;
    if (!key || !equal(signerKey(signer), key)) {
      throw new DelegationError(
        "the signer is not the key that the token is bound to",
        "bad_proof",
      );
    }
  }

  /** Are the texts the same? In a time that does not tell how much of them is. */
  equals(other: Token): boolean {
    return equal(utf8(this.serialize()), utf8(other.serialize()));
  }

  toString(): string {
    const { length } = this.#packet.caveats;
    const { holder } = this.unverified;
    return `<Token ${this.tokenId}, ${length} links, held by ${holder}, unverified>`;
  }
}

export function requestOf(request: Access | Bytes | undefined): Bytes {
  if (!(request instanceof Uint8Array)) return accessRequest(request);
  if (!isDigest(request)) throw new UsageError("a digest of a request is 32 bytes");
  return request;
}

export function presentedText(token: Token): string {
  const { packet, discharges } = boundParts(token)!;
  return wholeText(packet, discharges, BOUND);
}

/** The bytes of a link in its one spelling. Raises UsageError for one that says nothing (23.2). */
export function spell(stated: JsonObject): Bytes {
  if (stated.size === 0) throw new UsageError("a link must restrict something");
  return canonicalBytes(stated);
}
