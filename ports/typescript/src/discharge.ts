/** Third parties: asking one, and answering as one (spec, "Third-party caveats", "Discharges"). */

import { b64decode, b64encode, b64exact, concat, text, utf8, type Bytes } from "./format/bytes.js";
import {
  derive,
  extend,
  isExchangeKey,
  openSealed,
  publicKey,
  seal,
  secretBox,
  tagsOf,
  type RawCaveat,
} from "./format/crypto.js";
import { DischargeError, LimitError, UsageError } from "./format/errors.js";
import { handed, lock } from "./format/handed.js";
import {
  canonicalBytes,
  canonicalObject,
  isObject,
  isWellFormed,
  jsonOf,
  plain,
  type Json,
  type JsonObject,
} from "./format/json.js";
import { isFree } from "./format/names.js";
import { DISCHARGE, type Packet } from "./format/packet.js";
import { UNBOUND, checkLimits, dischargeOf, packetText } from "./format/text.js";
import { readLink } from "./language/links.js";
import { secretOfDischarger, type DischargerKey } from "./keys.js";
import { composeRequest, type Caveats } from "./writing/compose.js";
import { type Means } from "./writing/means.js";

/** What a third party is asked, as it travels: the cid of a caveat (32.2). */
export interface Ticket {
  /** The public key of the discharger. */
  readonly discharger: string;
  /** Where it may be asked: the word of whoever asked, and never to be called blindly (32.6). */
  readonly location: string | undefined;
  readonly text: string;
}

const KEYS = ["box", "for", "loc", "v"];

function readTicket(cid: Bytes): { ticket: Ticket; box: Bytes } {
  const stated = cid.length <= DISCHARGE.identifier ? canonicalObject(cid) : undefined;
  const [box, receiver, location] = [stated?.get("box"), stated?.get("for"), stated?.get("loc")];
  const sealed = typeof box === "string" ? b64decode(box) : undefined;
  const isForm =
    stated?.get("v") === 1 &&
    [...stated.keys()].every((key) => KEYS.includes(key)) &&
    (location === undefined || isFree(location)) &&
    b64exact(receiver, 32) !== undefined;
  if (!isForm || !sealed) throw new DischargeError("no ticket");
  const ticket = { discharger: receiver as string, location, text: text(cid)! };
  return { ticket: handed(ticket), box: sealed };
}

/** The ticket that text or bytes spell. Raises DischargeError. Opens nothing. */
export function parseTicket(given: string | Bytes): Ticket {
  return readTicket(typeof given === "string" ? utf8(given) : given).ticket;
}

/** A caveat that asks `discharger` for `need`, after the tag of the chain so far (32.1 to 32.3). */
export function askingCaveat(
  tag: Bytes,
  discharger: string | Bytes,
  need: unknown,
  location: string | undefined,
  random: (length: number) => Bytes,
): RawCaveat {
  const receiver = publicKey(discharger, isExchangeKey, "discharger");
  const stated = jsonOf(need);
  if (!isObject(stated)) throw new UsageError("need is an object");
  if (location !== undefined && !isFree(location)) throw new UsageError("location is a free name");
  const caveatKey = random(32);
  const inside = canonicalBytes(
    new Map<string, Json>([
      ["ck", b64encode(caveatKey)],
      ["need", stated],
      ["v", 1],
    ]),
  );
  const box = b64encode(seal(receiver, random(32), inside));
  const ticket = new Map<string, Json>([
    ["box", box],
    ["for", b64encode(receiver)],
    ["v", 1],
  ]);
  if (location !== undefined) ticket.set("loc", location);
  const cid = canonicalBytes(ticket);
  if (cid.length > DISCHARGE.identifier) {
    throw new LimitError(`the ticket would be ${cid.length} bytes`);
  }
  const nonce = random(24);
  return { cid, vid: concat(nonce, secretBox(tag, nonce, derive(caveatKey))) };
}

// --- discharges ----------------------------------------------------------------------------------

let packetOf: (discharge: Discharge) => Packet;

/**
 * The answer of a third party, unbound. Unverified: a holder cannot tell a genuine one from
 * another.
 */
export class Discharge {
  readonly #packet: Packet;

  static {
    packetOf = (discharge) => discharge.#packet;
  }

  constructor(packet: Packet) {
    this.#packet = packet;
    lock(this);
  }

  /** Raises TokenFormatError. */
  static parse(spelled: string): Discharge {
    return new Discharge(dischargeOf(spelled));
  }

  /** The text. Secret, like the token that it is for. */
  serialize(): string {
    return packetText(this.#packet, UNBOUND);
  }

  /** The ticket that it answers. Raises DischargeError for one of another library. */
  get ticket(): Ticket {
    return parseTicket(this.#packet.identifier);
  }

  /** Its least `exp`, or undefined where it has none that can be read. */
  get expiresAt(): number | undefined {
    return dischargeEnd(this.#packet);
  }

  toString(): string {
    return `<Discharge, ${this.#packet.caveats.length} links, unverified>`;
  }
}

export const packetOfDischarge = (discharge: Discharge): Packet => packetOf(discharge);

function dischargeEnd(packet: Packet): number | undefined {
  const links = packet.caveats.map(({ cid }) => readLink(cid, {}));
  const ends = links.flatMap((link) =>
    link.kind === "link" && link.says.exp !== undefined ? [link.says.exp] : [],
  );
  return ends.length ? Math.min(...ends) : undefined;
}

// --- answering -----------------------------------------------------------------------------------

/** What a ticket asks for, opened with the discharger's key. Raises DischargeError. */
export function openTicket(
  key: DischargerKey,
  given: string | Ticket,
): { readonly need: Readonly<Record<string, unknown>> } {
  return handed({ need: plain(opened(key, given).need) as Record<string, unknown> });
}

function opened(
  key: DischargerKey,
  given: string | Ticket,
): { need: JsonObject; caveatKey: Bytes; cid: Bytes } {
  const spelled = typeof given === "string" ? given : given.text;
  if (!isWellFormed(spelled)) throw new DischargeError("no ticket");
  const cid = utf8(spelled);
  const { ticket, box } = readTicket(cid);
  if (ticket.discharger !== key.public) throw new DischargeError("the ticket is for another key");
  const inside = openSealed(secretOfDischarger(key), box);
  const stated = inside && canonicalObject(inside);
  const [caveatKey, need] = [b64exact(stated?.get("ck"), 32), stated?.get("need")];
  const isForm = stated?.get("v") === 1 && stated.size === 3 && isObject(need);
  if (!isForm || !caveatKey) {
    throw new DischargeError("its box does not open, or holds something else");
  }
  return { need, caveatKey, cid };
}

/**
 * A yes: the discharge of a ticket, with the caveats given; it needs an end.
 *
 * Whether the need holds is for the caller to have judged. Raises DischargeError for a ticket that
 * is none, UsageError for caveats that a discharge may not have.
 */
export function discharge(
  key: DischargerKey,
  given: string | Ticket,
  caveats: Omit<Caveats, "task" | "uses" | "budget" | "depth" | "delegateOnly">,
  means: Partial<Means> = {},
): Discharge {
  const { caveatKey, cid } = opened(key, given);
  const stated = composeRequest(caveats, means);
  if (!stated.has("exp")) throw new UsageError("a discharge ends: give expiresIn or expiresAt");
  const link = { cid: canonicalBytes(stated) };
  const [tag] = tagsOf(derive(caveatKey), cid, []);
  const packet: Packet = { identifier: cid, caveats: [link], signature: extend(tag!, link) };
  checkLimits(packet, DISCHARGE);
  return new Discharge(packet);
}
