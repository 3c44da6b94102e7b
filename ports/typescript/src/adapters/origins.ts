/** Addresses of servers and public paths, each in the one spelling that browsers use. */

import { UsageError } from "../format/errors.js";

const LOCAL = /^(localhost|127(\.\d+){3}|\[::1\])$/;
// Without percent signs, and with no segment that is empty, a dot or two.
const PLAIN_PATH = /^((\/(?!\.{1,2}(\/|$))[A-Za-z0-9._~!$&'()*+,=:@-]+)+\/?|\/)$/;

/** The address as it was given, if it is https or on this machine. Raises UsageError. */
export function serviceUrl(address: unknown): URL {
  const isPlain = typeof address === "string" && /^[!-[\]-~]{1,2048}$/.test(address);
  const url = isPlain && !/[@?#]/.test(address) && URL.canParse(address) && new URL(address);
  const isSafe = url && (url.protocol === "https:" || (url.protocol === "http:" && LOCAL.test(url.hostname)));
  if (!isSafe) {
    throw new UsageError("an address is https://host[:port][/path], or http:// on this machine");
  }
  return url;
}

/** The origin, if it is spelled as browsers do: clients compare with it. Raises UsageError. */
export function ownOrigin(origin: string): string {
  const usual = serviceUrl(origin).origin;
  if (usual !== origin) {
    throw new UsageError(`an origin is scheme, host and port alone, spelled ${usual}`);
  }
  return origin;
}

/** The paths that need no token. Raises UsageError for one that could be read in another way. */
export function publicPaths(paths: Iterable<string>): ReadonlySet<string> {
  if (typeof paths === "string") throw new UsageError('public is a list of paths, as ["/health"]');
  const all = new Set(paths);
  for (const path of all) {
    if (typeof path !== "string" || !PLAIN_PATH.test(path)) {
      throw new UsageError("a public path starts with /, and has no percent sign, empty or dot segment");
    }
  }
  return all;
}
