/**
 * What a message of MCP is to a guard and to a client (spec 40.3 to 40.5), whatever the SDK.
 *
 * 1. A token comes in `_meta`, or in the one Authorization header; if in both, it is the same but for
 *    the proof.
 * 2. Headers that repeat the method or the name agree with the message.
 * 3. Methods that list need a token. What it cannot be used for is left out.
 * 4. A few methods need nothing. All others, and those that are yet to be invented, need a token that
 *    permits them.
 */

import { withoutProof } from "../format/text.js";
import { callAt } from "../language/calls.js";
import { satisfies } from "../language/constraints.js";
import type { Code } from "../verification/codes.js";
import { forModel, forNetwork, type Denial } from "../verification/decision.js";
import type { Grant } from "../verification/verifier.js";
import { RequestError, sentIn } from "./head.js";

/** The member of `_meta` that has the token. */
export const TOKEN = "io.captoken/token";
/** The member with the kind of a denial. */
export const KIND = "io.captoken/kind";
export const CALL = "tools/call";

/** With these a session is opened, kept and closed; nothing that is served is seen. */
export const FREE: readonly string[] = [
  "initialize",
  "ping",
  "server/discover",
  "notifications/initialized",
  "notifications/cancelled",
  "notifications/progress",
];

/** What a request is answered that is not let in. */
export type Told =
  | { readonly result: object }
  | { readonly error: { readonly code: number; readonly message: string; readonly data?: object } };

/** What the token does not permit is for the model to hear, of a tool; all else for the client. */
export function told(method: string, decision: Denial): Told {
  const { kind } = decision;
  if (method === CALL && kind === "insufficient") {
    const content = [{ type: "text", text: forModel(decision) }];
    return { result: { content, isError: true, _meta: { [KIND]: kind } } };
  }
  const { status, text } = forNetwork(decision);
  return { error: { code: status, message: text, data: { [KIND]: kind } } };
}

interface Listing {
  readonly items: string;
  readonly key: string;
  readonly method: string;
  /** Of a call of that method: where the name goes; left out for the tool itself. */
  readonly argument?: string;
}

export const LISTS: ReadonlyMap<string, Listing> = new Map([
  ["tools/list", { items: "tools", key: "name", method: CALL }],
  [
    "resources/list",
    { items: "resources", key: "uri", method: "resources/read", argument: "uri" },
  ],
  [
    "resources/templates/list",
    { items: "resourceTemplates", key: "uriTemplate", method: "resources/read", argument: "uri" },
  ],
  ["prompts/list", { items: "prompts", key: "name", method: "prompts/get", argument: "name" }],
]);

/** As MCP's JSON has it. */
export interface Message {
  readonly id?: unknown;
  readonly method: string;
  readonly params?: unknown;
}

/** What a transport says of where a message came from. */
export interface Extra {
  readonly requestInfo?: { readonly headers: Readonly<Record<string, unknown>> };
}

const members = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};

export const metaOf = ({ params }: Message): unknown => members(params)["_meta"];

/** The text that came, or undefined where none did. Raises RequestError where it cannot be meant. */
export function tokenOf(message: Message, extra: Extra | undefined): string | undefined {
  const meta = metaOf(message) ?? {};
  if (typeof meta !== "object" || Array.isArray(meta)) throw refused("_meta is no object.");
  const stated = members(meta)[TOKEN] ?? undefined;
  if (stated !== undefined && typeof stated !== "string") {
    throw refused(`${TOKEN} in _meta is text.`);
  }
  const headers = headersOf(extra);
  checkMirrored(message, headers);
  const sent = bearer(headers);
  if (stated === undefined || sent === undefined) return stated ?? sent;
  if (withoutProof(stated) !== withoutProof(sent)) {
    throw refused("Two tokens came, in _meta and in the Authorization header, and they differ.");
  }
  return stated;
}

const refused = (text: string): RequestError => new RequestError(401, text);

function headersOf(extra: Extra | undefined): [string, string][] {
  const all = Object.entries(members(extra?.requestInfo?.headers));
  return all.flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).map((each): [string, string] => [
      name.toLowerCase(),
      String(each),
    ]),
  );
}

/** As a guard of HTTP reads it. A header of another scheme is somebody else's, and refused. */
function bearer(headers: readonly [string, string][]): string | undefined {
  const own = headers.filter(([name]) => name === "authorization");
  try {
    const sent = sentIn({ method: "", path: "", query: "", headers: own });
    if (sent === undefined && own.length) throw refused("The Authorization header is not `Bearer` and a token.");
    return sent;
  } catch (error) {
    throw refused((error as Error).message);
  }
}

/** A proxy that decided by the headers would else have seen another call than the one answered. */
function checkMirrored({ method, params }: Message, headers: readonly [string, string][]): void {
  const { uri, name } = members(params);
  const mirrored = { "mcp-method": method, "mcp-name": method.startsWith("resources/") ? uri : name };
  for (const [header, stated] of Object.entries(mirrored)) {
    const values = headers.filter(([key]) => key === header).map(([, value]) => decoded(value));
    if (values.some((value) => value !== stated) || values.length > 1) {
      throw refused(`The ${header} header does not agree with the message.`);
    }
  }
}

function decoded(value: string): string | undefined {
  const spelled = /^=\?base64\?(.*)\?=$/.exec(value);
  if (!spelled) return value;
  try {
    const bytes = Uint8Array.from(atob(spelled[1]!), (each) => each.charCodeAt(0));
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** The message for whoever answers it, and where it came from: neither shows the token. */
export function hidden<M extends Message>(message: M): M {
  const meta = metaOf(message);
  if (!Object.hasOwn(members(meta), TOKEN)) return message;
  const { [TOKEN]: _, ...others } = members(meta);
  return { ...message, params: { ...members(message.params), _meta: others } };
}

export function hiddenIn<E extends Extra | undefined>(extra: E): E {
  const info = extra?.requestInfo;
  if (!info) return extra;
  const kept = Object.entries(info.headers).filter(
    ([name]) => name.toLowerCase() !== "authorization",
  );
  return { ...extra, requestInfo: { ...info, headers: Object.fromEntries(kept) } };
}

/** What refuses an access that a list asks about, and can still be stated when the call is made. */
const LATER: readonly Code[] = ["argument", "attribute", "cost_unstated", "consent_missing"];

/** Of what a method lists, what the grant can be used for. No store is asked. */
export function listed(grant: Grant, method: string, result: unknown): unknown {
  const listing = LISTS.get(method);
  const items = listing && members(result)[listing.items];
  if (!listing || !Array.isArray(items)) return result;
  const kept = items.filter((item) => isListed(grant, method, listing, members(item)[listing.key]));
  return { ...members(result), [listing.items]: kept };
}

function isListed(grant: Grant, method: string, listing: Listing, name: unknown): boolean {
  if (typeof name !== "string") return false;
  const { argument } = listing;
  const tool = argument === undefined ? name : listing.method;
  const { tool: calls } = grant.capability;
  const call = calls ? callAt(calls, tool) : "free";
  if (call === "nothing") return false;
  if (argument !== undefined && call !== "free") {
    const rule = call.get(argument)?.constraint;
    if (!rule) return false;
    // Of a template, that one of the addresses which it can become is permitted.
    const isTemplate = method === "resources/templates/list";
    const start = name.split("{")[0]!;
    const isNamed = !isTemplate
      ? satisfies(rule, name)
      : rule.kind !== "in" || rule.list.some((uri) => String(uri).startsWith(start));
    if (!isNamed) return false;
  }
  const access = argument === undefined ? { tool } : { tool, arguments: { [argument]: name } };
  const decision = grant.recheck(access);
  return decision.allowed || decision.refusals.every(({ code }) => LATER.includes(code));
}
