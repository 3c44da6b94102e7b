// What a pasted text says of itself, in words, as `captoken inspect` has it. Nothing is verified.
//
// All texts that come out are ASCII: names in them went through `plain`.
import { b64encode, equal } from "../../../ports/typescript/src/format/bytes.js";
import type { Bytes } from "../../../ports/typescript/src/format/bytes.js";
import { linkId } from "../../../ports/typescript/src/format/crypto.js";
import { CaptokenError, UsageError } from "../../../ports/typescript/src/format/errors.js";
import type { Packet } from "../../../ports/typescript/src/format/packet.js";
import { readRoot } from "../../../ports/typescript/src/format/root.js";
import type { Root } from "../../../ports/typescript/src/format/root.js";
import { BOUND, SET_PREFIX, dischargeOf, partsOf } from "../../../ports/typescript/src/format/text.js";
import type { Parts } from "../../../ports/typescript/src/format/text.js";
import { parseTicket } from "../../../ports/typescript/src/discharge.js";
import { capabilityOf, permitsNothing } from "../../../ports/typescript/src/language/capability.js";
import type { Capability } from "../../../ports/typescript/src/language/capability.js";
import { readAlong, step } from "../../../ports/typescript/src/language/lineage.js";
import type { Lineage } from "../../../ports/typescript/src/language/lineage.js";
import { readLink, readLinks } from "../../../ports/typescript/src/language/links.js";
import type { AnyLink } from "../../../ports/typescript/src/language/links.js";
import { ISSUER } from "../../../ports/typescript/src/verification/authenticate.js";
import { boundIn, heldIn } from "../../../ports/typescript/src/writing/held.js";
import { named, plain, readableTime, span, until } from "../plain";
import { capabilityIn, counted, linkIn } from "./words";

// Why a link prohibits everything, or a text is none.
export interface Problem {
  readonly code: string;
  readonly text: string;
}

// One link in words.
export interface Hop {
  readonly number: number;
  readonly addedBy: string;
  readonly receiver: string | null;
  readonly says: readonly string[];
  readonly isOver: boolean;
  readonly problem: Problem | null;
  // Of a third-party caveat: whom it asks, and whether an answer is here.
  readonly asks: string | null;
  readonly isAnswered: boolean;
}

export interface Row {
  readonly label: string;
  readonly says: readonly string[];
}

// A token, as it is held or as it is sent.
export interface TokenRead {
  readonly kind: "token";
  readonly root: Root;
  readonly parts: Parts;
  // What the root record says.
  readonly title: string;
  readonly facts: readonly Row[];
  readonly hops: readonly Hop[];
  // All links taken together.
  readonly may: readonly string[];
  readonly summary: readonly Row[];
  readonly capability: Capability;
  readonly boundBy: number | null;
  readonly key: string | null;
  readonly dischargers: ReadonlyMap<string, number>;
  readonly expiresAt: number | null;
}

// What travels beside tokens, alone: a discharge, a ticket, a link, a proof; or several of them.
export interface OtherRead {
  readonly kind: "discharge" | "ticket" | "link" | "proof" | "set" | "jwt";
  readonly title: string;
  readonly says: readonly string[];
  readonly isOver: boolean;
  readonly problem: Problem | null;
}

export interface NothingRead {
  readonly kind: "none";
  readonly problem: Problem;
  // Does it begin as a token does?
  readonly isCut: boolean;
}

export type Read = TokenRead | OtherRead | NothingRead;

// What was pasted, without the blanks and line feeds round it. A byte order mark is no blank.
export function bare(pasted: string): string {
  const end = pasted.trimEnd().length;
  const start = pasted.length - pasted.trimStart().length;
  const before = pasted.slice(0, start).indexOf("\ufeff");
  const behind = pasted.slice(end).lastIndexOf("\ufeff");
  return pasted.slice(before < 0 ? start : before, behind < 0 ? end : end + behind + 1);
}

const HEADER = /^[> \t\r\n]*(?:authorization:)?[> \t\r\n]*(?:bearer\b)?[> \t\r\n]*(?=caps?1[adpu]?_)/i;
// Within a text: behind what sets off a word. What stands right before a token makes it another text.
const BEGINS = /(?<=[\s\S]{2})(?<=[ \t\r\n"'=:,([{])(?:caps?1[adpu]?_|eyJ[\w-]{9,}\.eyJ)/;
const RUN = /^[\w~-]*(?:\.[\w-]+)*/;

// A token without what it came in: a header before it, line ends of a mail and what it puts there, or
// a line of a log or JSON about it. Anything else stays as it was pasted.
export function undressed(pasted: string): string {
  const text = bare(pasted);
  const header = HEADER.exec(text);
  const begins = BEGINS.exec(text);
  if (!header && !begins) return text;
  const rest = text.slice(header?.[0].length ?? begins?.index);
  const joined = rest.replace(/=?\r?\n[> \t]*/g, "");
  if (header) return joined;
  const alone = RUN.exec(rest)?.[0] ?? "";
  return isToken(alone) ? alone : (RUN.exec(joined)?.[0] ?? "");
}

// Can all of it be read? What follows a token in its text is no part of it then.
function isToken(text: string): boolean {
  try {
    partsIn(text);
    return true;
  } catch {
    return false;
  }
}

// What a text without blanks round it says; null where there is none.
export function read(text: string, now: number): Read | null {
  if (text === "") return null;
  try {
    if (text.startsWith("{")) return readJson(text, now);
    if (/^cap1[ud]_[^.]*$/.test(text)) return readDischarge(text, now);
    if (/^cap1p_[^.]*$/.test(text)) return readProof();
    if (JWT.test(text)) return readJwt(text, now);
    if (text.startsWith(SET_PREFIX)) return readSet(text, now);
    return readToken(text, now);
  } catch (error) {
    return { kind: "none", problem: problemOf(error), isCut: /^caps?1[adpu]?_[\w-]{8}/.test(text) };
  }
}

// --- what is no token of ours --------------------------------------------------------------------

const JWT = /^(?:authorization:\s*)?(?:bearer\s+)?(eyJ[\w-]+)\.(eyJ[\w-]*)\.[\w-]*$/i;

// A JSON Web Token: what it says of itself, and what one does with it here. It is not verified.
function readJwt(text: string, now: number): OtherRead {
  const [, head = "", claims = ""] = JWT.exec(text) ?? [];
  const [, end = ""] = /^exp (.*)$/m.exec(claimsOf(claims).join("\n")) ?? [];
  const at = Date.parse(end.replace(" ", "T"));
  const isOver = at / 1000 <= now;
  return {
    kind: "jwt",
    title: "A JSON Web Token, not a captoken",
    says: [
      ...(isOver ? [`expired ${span(now - at / 1000)} ago, by what it says`] : []),
      ...claimsOf(head),
      ...claimsOf(claims),
      "no server takes it as a captoken; if your organisation runs an issuance service, that may give a captoken for a valid one",
    ],
    isOver,
    problem: null,
  };
}

function claimsOf(part: string): string[] {
  try {
    const bytes = Uint8Array.from(atob(part.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
    const said: unknown = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof said !== "object" || said === null) return [];
    return Object.entries(said).map(([name, value]) => {
      const isTime = typeof value === "number" && ["iat", "nbf", "exp", "auth_time"].includes(name);
      return `${plain(name)} ${isTime ? readableTime(value) : plain(JSON.stringify(value))}`;
    });
  } catch {
    return [];
  }
}

function problemOf(error: unknown): Problem {
  if (error instanceof CaptokenError) return { code: error.code, text: plain(error.message) };
  if (error instanceof UsageError) return { code: "usage", text: plain(error.message) };
  // Whatever it is: what stood there before is no word about this text.
  return { code: "unreadable", text: `it cannot be read: ${plain(String(error))}` };
}

// --- what travels beside tokens ------------------------------------------------------------------

// A ticket or a link: the one is told from the other by its keys.
function readJson(text: string, now: number): OtherRead {
  const body = new TextEncoder().encode(text);
  if (text.includes('"box"') && text.includes('"for"')) {
    const { discharger, location } = parseTicket(body);
    const place = location === undefined ? "" : ` at ${named(location)}`;
    const asks = `asks ${discharger}${place}`;
    const says = [asks, "what is asked, only who has that key can read"];
    return {
      kind: "ticket",
      title: "A ticket for a third party",
      says,
      isOver: false,
      problem: null,
    };
  }
  const link = readLink(body, {});
  const title = link.kind === "link" && link.signature ? "A signed link" : "A link";
  return {
    kind: "link",
    title: `${title}, without the token that it was added to`,
    says: sayingOf(link, body, now),
    isOver: isOver([link], now),
    problem: link.kind === "bad" ? badProblem(link.code, link.text) : null,
  };
}

function readDischarge(text: string, now: number): OtherRead {
  const isBound = text.startsWith(BOUND);
  const packet = dischargeOf(isBound ? text.replace(BOUND, "cap1u_") : text);
  const links = packet.caveats.map(({ cid }) => readLink(cid, {}));
  const bad = links.find((link) => link.kind === "bad");
  return {
    kind: "discharge",
    title: isBound ? "A discharge, bound to a token" : "A discharge: the answer of a third party",
    says: [answersTo(packet.identifier), ...answerOf(packet, now)],
    isOver: isOver(links, now),
    problem: bad ? badProblem(bad.code, bad.text) : null,
  };
}

function answersTo(identifier: Bytes): string {
  try {
    const { discharger, location } = parseTicket(identifier);
    return `answers for ${discharger}${location === undefined ? "" : ` at ${named(location)}`}`;
  } catch (error) {
    return `answers a ticket that cannot be read: ${problemOf(error).text}`;
  }
}

function readProof(): OtherRead {
  const says = ["for one sending of one token: it says nothing alone"];
  return { kind: "proof", title: "A proof", says, isOver: false, problem: null };
}

// The tokens of a set (45): what is common once, then what each server's permits.
function readSet(text: string, now: number): OtherRead {
  const parts = text.slice(SET_PREFIX.length).split("~", 33);
  const tokens = parts.map((part) => readToken(`cap1_${part}`, now));
  const sameIn = ({ title, root, summary, key }: TokenRead): string =>
    [title, root.agent, summary[0]!.says, key].join();
  const common = sameIn(tokens[0]!);
  const isSet = tokens.every(
    (each, at) =>
      at < 32 &&
      sameIn(each) === common &&
      (tokens[at - 1]?.root.audience ?? "") < (each.root.audience ?? ""),
  );
  const problem = { code: "malformed", text: "not of one task, or not in the order of servers" };
  return {
    kind: "set",
    title: `A set of ${counted(tokens.length, "token")}: ${tokens[0]!.title}`,
    says: [
      `held by ${tokens[0]!.summary[0]!.says[0]}`,
      ...tokens.map(({ root, may, expiresAt }) => {
        const end = expiresAt === null ? "never expires" : `until ${until(expiresAt, now)}`;
        return `${plain(root.audience ?? "")}: ${may.join("; ")}; ${end}`;
      }),
    ],
    isOver: false,
    problem: isSet ? null : problem,
  };
}

// --- links ---------------------------------------------------------------------------------------

const LONGEST = 240;

function badProblem(code: string, text: string): Problem {
  const kind = code === "unreadable_link" ? "unreadable" : "opaque";
  return { code, text: `${kind}, prohibits everything: ${plain(text)}` };
}

// Why a link prohibits everything. `before` is the chain up to it.
function linkProblem(link: AnyLink, before: Lineage): Problem | null {
  if (link.kind === "third-party") return null;
  if (link.kind === "bad") return badProblem(link.code, link.text);
  const breaks = (code: string, text: string): Problem => ({
    code,
    text: `the chain breaks here: ${plain(text)}`,
  });
  const after = step(before, link);
  if ("code" in after) return breaks(after.code, after.text);
  // Only the key before hands a bound token on to another one. Whether its signature holds, a root
  // key tells.
  if (before.key && link.says.key && !link.signature) {
    return breaks("bad_proof", "bound to another key, and the one before has not signed that");
  }
  return null;
}

function sayingOf(link: AnyLink, body: Bytes, now: number): string[] {
  if (link.kind !== "link") return [rawOf(body)];
  return linkIn(link.says, link.signature !== undefined, now);
}

// A link that cannot be read, as it stands and not too long.
function rawOf(body: Bytes): string {
  // Bytes enough for as many characters, of four at most: it is looked at again and again.
  const text = [...lossless(body.slice(0, 4 * (LONGEST + 1)))];
  if (text.length <= LONGEST) return plain(text.join(""));
  return plain(`${text.slice(0, LONGEST).join("")}... (${body.length} bytes)`);
}

// As UTF-8; a byte that is none is shown by its number.
function lossless(body: Bytes): string {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let made = "";
  for (let at = 0; at < body.length;) {
    const first = body[at] ?? 0;
    const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    try {
      made += decoder.decode(body.slice(at, at + length));
      at += length;
    } catch {
      made += `\\x${first.toString(16).padStart(2, "0")}`;
      at += 1;
    }
  }
  return made;
}

function isOver(links: readonly AnyLink[], now: number): boolean {
  return links.some((link) => link.kind === "link" && (link.says.exp ?? Infinity) <= now);
}

function answerOf(answer: Packet, now: number): string[] {
  return answer.caveats.flatMap(({ cid }) =>
    sayingOf(readLink(cid, {}), cid, now).map((line) => `answered, ${line}`),
  );
}

// Whom a third-party caveat asks, and what has come of it. What is asked, nobody else can read.
function asking(cid: Bytes, answers: readonly Packet[], now: number): Partial<Hop> {
  let asks: string;
  let discharger: string;
  try {
    const ticket = parseTicket(cid);
    discharger = ticket.discharger;
    const place = ticket.location === undefined ? "" : ` at ${named(ticket.location)}`;
    asks = `asks ${discharger}${place}`;
  } catch (error) {
    const unreadable = `asks a third party, which cannot be read: ${problemOf(error).text}`;
    return { says: [unreadable], asks: "" };
  }
  const answer = answers.findLast(({ identifier }) => equal(identifier, cid));
  if (!answer) return { says: [asks, "no answer is here"], asks: discharger };
  const links = answer.caveats.map((caveat) => readLink(caveat.cid, {}));
  return {
    says: [asks, ...answerOf(answer, now)],
    isOver: isOver(links, now),
    asks: discharger,
    isAnswered: true,
  };
}

function hopsOf({ packet, discharges }: Parts, root: Root, now: number): Hop[] {
  const links = readLinks(packet.caveats, {});
  return links.map((link, number): Hop => {
    // As the links before it say: whoever was named last has added this one.
    const before = readAlong(root.agent, links.slice(0, number));
    const body = packet.caveats[number]!.cid;
    const hop: Hop = {
      number,
      addedBy: number ? before.holders.at(-1)! : ISSUER,
      receiver: null,
      says: [],
      isOver: isOver([link], now),
      problem: linkProblem(link, before),
      asks: null,
      isAnswered: false,
    };
    if (link.kind === "third-party") return { ...hop, ...asking(link.cid, discharges, now) };
    return { ...hop, receiver: link.says.to ?? null, says: sayingOf(link, body, now) };
  });
}

// --- the whole -----------------------------------------------------------------------------------

// A text as it is held, or as it is presented: nobody holds the latter, and it is shown all the same.
function partsIn(text: string): Parts {
  const isPresented = text.includes(".cap1d_") || text.includes(".cap1p_");
  return isPresented ? partsOf(text, BOUND) : boundIn(heldIn(text));
}

function readToken(text: string, now: number): TokenRead {
  const parts = partsIn(text);
  const root = readRoot(parts.packet.identifier);
  const links = readLinks(parts.packet.caveats, {});
  const lineage = readAlong(root.agent, links);
  const capability = capabilityOf(links, { task: root.task, audience: root.audience });
  const hops = hopsOf(parts, root, now);
  const boundBy = boundByOf(root.agent, links);
  const may = mayOf(capability, hops, lineage);
  const key = lineage.key ? b64encode(lineage.key) : null;
  const whole = { text, parts, root, lineage, capability, hops, boundBy, may, key, now };
  return {
    kind: "token",
    root,
    parts,
    title: `${plain(root.subject)} started task ${plain(root.task)}`,
    facts: factsOf(root),
    hops,
    may,
    summary: summaryOf(whole),
    capability,
    boundBy,
    key,
    dischargers: new Map(hops.flatMap((hop) => (hop.asks ? [[hop.asks, hop.number]] : []))),
    expiresAt: capability.exp ?? null,
  };
}

// The link that bound the token to the key that it is bound to. One that repeats the key binds nothing.
function boundByOf(agent: string, links: readonly AnyLink[]): number | null {
  const keys = Array.from({ length: links.length + 1 }, (_, count) => {
    const { key } = readAlong(agent, links.slice(0, count));
    return key ? b64encode(key) : "";
  });
  const last = links.findLastIndex((_, number) => keys[number + 1] !== keys[number]);
  return last < 0 ? null : last;
}

const row = (label: string, ...says: string[]): Row => ({ label, says });

function factsOf(root: Root): Row[] {
  const facts = [
    row("agent", plain(root.agent)),
    row("issued", readableTime(root.issuedAt)),
    row("token", root.tokenId),
    row("key", plain(root.keyId)),
  ];
  if (root.audience !== undefined) facts.push(row("for", `${plain(root.audience)} alone`));
  const own = [...root.ext].sort(([one], [two]) => (one < two ? -1 : 1));
  return [...facts, ...own.map(([key, value]) => row(plain(key), named(String(value))))];
}

// Which accesses it permits, by its links alone. A verifier may permit less.
function mayOf(capability: Capability, hops: readonly Hop[], lineage: Lineage): string[] {
  if (permitsNothing(capability) || hops.some((hop) => hop.problem)) return ["nothing"];
  const rights = capabilityIn(capability);
  return lineage.owed ? ["nothing before it is handed on, then", ...rights] : rights;
}

interface Whole {
  text: string;
  parts: Parts;
  root: Root;
  lineage: Lineage;
  capability: Capability;
  hops: readonly Hop[];
  boundBy: number | null;
  may: readonly string[];
  key: string | null;
  now: number;
}

function summaryOf(whole: Whole): Row[] {
  const { capability, lineage, parts, key, boundBy, now } = whole;
  const rows = [row("held by", lineage.holders.map(plain).join(" > ")), row("may", ...whole.may)];
  if (key !== null && boundBy !== null) rows.push(row("bound to", `${key}, by link ${boundBy}`));
  if (parts.proof) rows.push(row("proof", "for one sending, and not looked at here"));
  rows.push(...askedOf(whole));
  rows.push(row("task", plain(capability.task ?? whole.root.task)));
  const { exp } = capability;
  rows.push(row("lives", exp === undefined ? "never expires" : `until ${until(exp, now)}`));
  const characters = new Intl.NumberFormat("en-US").format(whole.text.length);
  rows.push(row("size", `${characters} characters, ${counted(whole.hops.length, "link")}`));
  rows.push(row("link id", linkId(parts.packet.signature)));
  return rows;
}

// How many third parties are asked, and how many have answered. No row if none is.
function askedOf({ parts, hops }: Whole): Row[] {
  const asked = hops.filter((hop) => hop.asks !== null).length;
  const answered = hops.filter((hop) => hop.isAnswered).length;
  const left = parts.discharges.length - answered;
  if (!asked && !left) return [];
  const line = `${counted(asked, "third party", "third parties")}, ${answered} answered`;
  const more = left ? `, and ${counted(left, "discharge")} that nothing asks for` : "";
  return [row("asks", line + more)];
}
