/** Urls, and entries that stand for many (spec 13.9 to 13.13). */

import { address } from "./addresses.js";

export interface Url {
  readonly scheme: string;
  /** In an entry it may begin with `*.`. */
  readonly host: string;
  /** Empty for the default one. */
  readonly port: string;
  /** Begins with a slash. */
  readonly path: string;
}

export const MAX_URL = 2048;
const DEFAULTS = new Map([
  ["https", "443"],
  ["http", "80"],
  ["wss", "443"],
  ["ws", "80"],
]);
const VISIBLE = /^[!-[\]-~]+$/;
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const EVASIVE = /%(?:2e|2f|5c|25|00|3b|(?![0-9a-f]{2}))/i;

export const spellUrl = ({ scheme, host, port, path }: Url): string =>
  `${scheme}://${host}${port && `:${port}`}${path}`;

/** What stands before a mark, and behind it; all, and nothing, where there is none. */
function cut(text: string, mark: string): [string, string] {
  const at = text.indexOf(mark);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + mark.length)];
}

/** The parts of a url, or of an entry; undefined for what is none. */
export function parseUrl(text: string, isEntry = false): Url | undefined {
  if (text.length > MAX_URL || !VISIBLE.test(text) || text.includes("#")) return undefined;
  const [scheme, rest] = cut(text, "://");
  if (!DEFAULTS.has(scheme) || (isEntry && rest.includes("?"))) return undefined;
  // Not every reader ends a host at `?`: so no user info for one that does not, either.
  if (cut(rest, "/")[0].includes("@")) return undefined;
  const [authority, path] = cut(cut(rest, "?")[0], "/");
  const [host, port] = hostAndPort(scheme, authority);
  if (port === undefined || !isHost(host, isEntry) || !isUrlPath(path)) return undefined;
  return { scheme, host, port, path: `/${path}` };
}

function hostAndPort(scheme: string, authority: string): [string, string | undefined] {
  const end = authority.startsWith("[") ? authority.indexOf("]") + 1 : authority.indexOf(":");
  if (end < 1 || end === authority.length) return [authority, ""];
  const port = authority.slice(end + 1);
  const legal = authority[end] === ":" && /^[1-9][0-9]{0,4}$/.test(port) && Number(port) <= 65535;
  return [authority.slice(0, end), legal && port !== DEFAULTS.get(scheme) ? port : undefined];
}

function isHost(host: string, isEntry: boolean): boolean {
  if (host.startsWith("[")) {
    const inside = host.slice(1, -1);
    return host.endsWith("]") && inside.includes(":") && address(inside) !== undefined;
  }
  const isStarred = isEntry && host.startsWith("*.");
  const labels = (isStarred ? host.slice(2) : host).split(".");
  if (host.length > 253 || (isStarred && labels.length < 2)) return false;
  if (!labels.every((label) => LABEL.test(label))) return false;
  const last = labels.at(-1)!;
  if (/[a-z]/.test(last) && !last.startsWith("0x")) return true;
  return !isStarred && address(host) !== undefined;
}

function isUrlPath(path: string): boolean {
  const segments = path.split("/");
  if (EVASIVE.test(path) || segments.slice(0, -1).includes("")) return false;
  return !segments.some((segment) => [".", ".."].includes(cut(segment, ";")[0]));
}

function hostWithin(host: string, outer: string): boolean {
  return host === outer || (outer.startsWith("*.") && host.endsWith(outer.slice(1)));
}

/** The path ends there, or goes on at a slash: the last one of the outer path, or the next. */
function pathWithin(path: string, outer: string): boolean {
  if (!path.startsWith(outer)) return false;
  return path.length === outer.length || outer.endsWith("/") || path[outer.length] === "/";
}

/** Is a url, or all of an entry, at or below an entry (13.12)? */
export function urlWithin(inner: Url, outer: Url): boolean {
  if (inner.scheme !== outer.scheme || inner.port !== outer.port) return false;
  return hostWithin(inner.host, outer.host) && pathWithin(inner.path, outer.path);
}

/** What two entries have in common: the narrower host with the narrower path, or nothing. */
export function meetUrls(one: Url, two: Url): Url | undefined {
  if (one.scheme !== two.scheme || one.port !== two.port) return undefined;
  const host = hostWithin(one.host, two.host) ? one.host : two.host;
  const path = pathWithin(one.path, two.path) ? one.path : two.path;
  const made = { ...one, host, path };
  const isBoth = urlWithin(made, one) && urlWithin(made, two);
  return isBoth && spellUrl(made).length <= MAX_URL ? made : undefined;
}
