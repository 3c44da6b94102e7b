/** What every guard of HTTP does, whatever framework the request comes by. */

import { UsageError } from "../format/errors.js";
import type { Bytes } from "../format/bytes.js";
import { withoutProof } from "../format/text.js";
import { atLeast, settings } from "../format/given.js";
import type { Access, Caller } from "../language/access.js";
import { httpRequest } from "../proof.js";
import { Denied, denial } from "../verification/decision.js";
import { Verifier, type Grant } from "../verification/verifier.js";
import { Refusals, metadataOf, type Answer } from "./answers.js";
import {
  BODY_BYTES,
  FORM_BYTES,
  RequestError,
  checkHead,
  isForm,
  refuseStray,
  sentIn,
  targetOf,
  type Head,
} from "./head.js";
import { ownOrigin, publicPaths, serviceUrl } from "./origins.js";

export interface HttpOptions {
  /** Scheme, host and port as clients know this server: proofs are made for it. */
  readonly origin: string;
  /** In challenges; the origin if not said. */
  readonly realm?: string;
  /** The URL of the document of RFC 9728, or its fields, to be served under its well-known path. */
  readonly resourceMetadata?: string | Readonly<Record<string, unknown>>;
  /** Bytes of a body that is read before the application runs: of a request with a proof, or a form. */
  readonly maxBody?: number;
}

export interface PublicOptions extends HttpOptions {
  /** Paths that need no token, as clients send them. None if not said. */
  readonly public?: Iterable<string>;
}

const SETTINGS = /^(origin|realm|resourceMetadata|maxBody|public)$/;
const METADATA_PATH = "/.well-known/oauth-protected-resource";

/** Reads the whole body, which has so many bytes at most. Raises RequestError 413. */
export type ReadBody = (most: number) => Promise<Bytes>;

/** What was let in. */
export interface Admitted {
  readonly grant: Grant;
  /** Where it had to be read. */
  readonly body: Bytes | undefined;
}

export class Gate {
  readonly #verifier: Verifier;
  readonly #origin: string;
  readonly #public: ReadonlySet<string>;
  readonly #maxBody: number;
  readonly #metadata: Answer | undefined;
  readonly #refusals: Refusals;

  /** Raises UsageError for what it is built of. */
  constructor(verifier: Verifier, given: PublicOptions) {
    if (!(verifier instanceof Verifier)) throw new UsageError("a guard needs a Verifier");
    const { origin, realm, resourceMetadata, maxBody, public: paths } = settings(given, SETTINGS);
    this.#verifier = verifier;
    this.#origin = ownOrigin(origin);
    this.#public = publicPaths(paths ?? []);
    this.#maxBody = atLeast(maxBody ?? BODY_BYTES, 0, "maxBody");
    let where: string | undefined;
    if (typeof resourceMetadata === "object") {
      this.#metadata = metadataOf(origin, resourceMetadata);
      where = origin + METADATA_PATH;
    } else if (resourceMetadata !== undefined) {
      where = serviceUrl(resourceMetadata) && resourceMetadata;
    }
    if (where?.includes('"')) throw new UsageError("the address of the metadata has no quotes");
    this.#refusals = new Refusals(realm ?? origin, where);
  }

  /** The document that says where a token is to be had, if it is asked for. */
  metadata({ method, path }: Head): Answer | undefined {
    const isAsked = path === METADATA_PATH && (method === "GET" || method === "HEAD");
    return isAsked ? this.#metadata : undefined;
  }

  isPublic({ path }: Head): boolean {
    return this.#public.has(path);
  }

  /** Who has shown a token that is good here. Raises Denied, RequestError or Missing. */
  async admitted(head: Head, read: ReadBody): Promise<Admitted> {
    checkHead(head);
    const text = sentIn(head);
    if (text === undefined) throw new Missing();
    if (!head.path.startsWith("/")) {
      throw new RequestError(400, "The target of a request must be a path.");
    }
    const bare = withoutProof(text);
    const isProven = bare !== text;
    // A stranger makes the server read no body: only who lacks the proof alone does.
    if (isProven) this.#checkBare(bare);
    let body = isProven ? await read(this.#most(head)) : undefined;
    const request = body && httpRequest(head.method, this.#origin, latin1(targetOf(head)), body);
    const decision = await this.#verifier.checkAsync(text, null, request ? { request } : {});
    if (!decision.allowed) throw new Denied(decision);
    if (isForm(head)) {
      body ??= await read(this.#most(head));
      refuseStray(String.fromCharCode(...body));
    }
    return { grant: decision.grant, body };
  }

  #most(head: Head): number {
    return isForm(head) ? Math.min(this.#maxBody, FORM_BYTES) : this.#maxBody;
  }

  /** All but the proof. A body is not read for less. */
  #checkBare(text: string): void {
    const said = this.#verifier.explain(text, null);
    if (!said.allowed && said.code !== "proof_missing") throw new Denied(said);
  }

  /** The answer to what was raised; undefined for what is no affair of a guard. */
  answer(error: unknown): Answer | undefined {
    if (error instanceof Denied) return this.#refusals.denied(error);
    if (error instanceof RequestError) return this.#refusals.bad(error);
    return error instanceof Missing ? this.#refusals.unauthenticated() : undefined;
  }
}

/** No token came. */
class Missing extends Error {
  override readonly name = "Missing";
}

/** Each character of what came is a byte; a framework that decoded it has lost which. */
function latin1(text: string): Bytes {
  if (/[^\0-\xff]/.test(text)) throw new RequestError(400, "The target of a request must be a path.");
  return Uint8Array.from(text, (each) => each.charCodeAt(0));
}

/** What an access is asked by: itself, or a function of the request that states it. */
export type Stating<R> =
  | Access
  | ((request: R) => Access | null | undefined | Promise<Access | null | undefined>);

/**
 * The grant, if it permits the access. What cannot be stated no token permits: null, undefined, and
 * what the function raises as TypeError, RangeError, SyntaxError or URIError. Raises Denied.
 */
export async function ask<R>(
  grant: Grant,
  access: Stating<R>,
  request: R,
  caller?: Caller,
): Promise<Grant> {
  const asking = caller === undefined ? {} : { caller };
  if (typeof access !== "function") return granted(grant, access, asking);
  try {
    const stated = await access(request);
    if (stated) return await granted(grant, stated, asking);
  } catch (error) {
    if (!MISTAKES.some((kind) => error instanceof kind)) throw error;
  }
  const text = "no access is stated for this request";
  throw new Denied(denial(Math.floor(Date.now() / 1000), undefined, [{ code: "domain", text }]));
}

const MISTAKES = [TypeError, RangeError, SyntaxError, URIError];

async function granted(grant: Grant, access: Access, asking: { caller?: Caller }): Promise<Grant> {
  const decision = await grant.checkAsync(access, asking);
  if (!decision.allowed) throw new Denied(decision);
  return decision.grant;
}

/** An access is stated, or a function does: a guard without one would ask nothing. */
export function checkStating(access: unknown): void {
  if (typeof access !== "function" && (typeof access !== "object" || access === null)) {
    throw new UsageError("requires takes an access, or a function that states one");
  }
}
