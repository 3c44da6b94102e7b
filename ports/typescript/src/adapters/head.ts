/**
 * The token of one HTTP request, as the guard of Python reads it (RFC 6750; spec, "Transports").
 *
 * 1. One Authorization header with one text, spelled in one way, measured before it is read. A proof
 *    stands at the end of the text, and nowhere else.
 * 2. A token or a proof anywhere else (query, cookie, form, another header) refuses the request, also
 *    beside a good one.
 * 3. A header that asks to take the request for another one refuses it.
 */

import { MAX_BUNDLE } from "../format/text.js";

/** A request that is answered with this status, and this sentence, which is public. */
export class RequestError extends Error {
  override readonly name = "RequestError";

  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** What came before the body. Names of headers in any case, each header by itself. */
export interface Head {
  readonly method: string;
  /** As it was sent, without the query. */
  readonly path: string;
  /** Without the question mark. */
  readonly query: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
}

export const FORM_BYTES = 32 << 10;
export const BODY_BYTES = 256 << 10;
const TARGET_BYTES = 32 << 10;
const HEADER_BYTES = 64 << 10;
const CREDENTIALS = "Bearer ".length + MAX_BUNDLE;

const BEARER = /^Bearer ([A-Za-z0-9._~+/-]+=*)$/;
const STRAY = /(?<![A-Za-z0-9_-])cap(?:1p?|s1)_[A-Za-z0-9_-]{40}/;
const PARAMETER = /(?:^|[&;])access_token=/;
const OVERRIDES =
  /^x-(http-method|http-method-override|method-override|forwarded-method|original-(method|uri|url)|forwarded-uri|rewrite-url)$/;

/** Case and hyphen are lost on the most lenient readers. */
const lenient = (name: string): string => name.toLowerCase().replaceAll("_", "-");

export const isCredential = (name: string): boolean => lenient(name) === "authorization";

export const targetOf = ({ path, query }: Head): string => (query ? `${path}?${query}` : path);

/** Raises RequestError for a head that is longer than any that is meant. */
export function checkHead({ path, query, headers }: Head): void {
  if (path.length + query.length > TARGET_BYTES) {
    throw new RequestError(414, `The target of the request is longer than ${TARGET_BYTES} bytes.`);
  }
  let size = 0;
  for (const [name, value] of headers) size += name.length + value.length + 32;
  if (size > HEADER_BYTES) {
    throw new RequestError(431, `The headers are longer than ${HEADER_BYTES} bytes.`);
  }
}

/** The text of a request, or undefined where there is none of the scheme. Raises RequestError. */
export function sentIn({ query, headers }: Head): string | undefined {
  const credentials: string[] = [];
  for (const [name, value] of headers) {
    if (name.toLowerCase() === "authorization") credentials.push(value);
    else refuseMisleading(name, value);
  }
  refuseStray(query);
  if (credentials.length > 1) throw new RequestError(400, "More than one Authorization header.");
  const [one] = credentials;
  if (one === undefined) return undefined;
  if (one.length > CREDENTIALS) throw new RequestError(431, "The credentials are too long.");
  const spelled = BEARER.exec(one);
  if (spelled) return spelled[1];
  if (one && !one.toLowerCase().startsWith("bearer")) return undefined;
  throw new RequestError(
    400,
    "The Authorization header must be the word Bearer, one space, and one token.",
  );
}

function refuseMisleading(name: string, value: string): void {
  if (OVERRIDES.test(lenient(name))) {
    throw new RequestError(400, "A header asks the server to treat this as another request.");
  }
  if (isCredential(name)) {
    throw new RequestError(400, "The Authorization header is misspelled.");
  }
  refuseStray(value);
}

/** Raises RequestError for a token or a proof in a query, a form or another header. */
export function refuseStray(data: string): void {
  const plain = data.replace(/%([0-9A-Fa-f]{2})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 16)),
  );
  if (STRAY.test(plain) || PARAMETER.test(data)) {
    throw new RequestError(400, "Send the token in the Authorization header, and nowhere else.");
  }
}

/** Could somebody read the body as a form? Some readers take any of several kinds. */
export const isForm = ({ headers }: Head): boolean =>
  headers.some(
    ([name, value]) =>
      name.toLowerCase() === "content-type" && /x-www-form-urlencoded/i.test(value),
  );
