/**
 * A guard for whoever takes a `Request` and gives a `Response`: Deno, Bun, workerd, and frameworks.
 *
 *     const serve = guarded(verifier, { origin: "https://api.example" }, async (request, grant) => {
 *       await grant.authorizeAsync({ tool: "read", arguments: { path: "/reports" } });
 *       return new Response("what stands there");
 *     });
 *
 * The handler runs with a verified token alone, and asks its grant for each access. What it lets
 * through as `Denied` becomes the answer. The request that it sees has no Authorization header.
 */

import type { Answer } from "./adapters/answers.js";
import { bodyOfRequest } from "./adapters/body.js";
import { Gate, type HttpOptions } from "./adapters/gate.js";
import { RequestError, isCredential, type Head } from "./adapters/head.js";
import { serving } from "./current.js";
import { UsageError } from "./format/errors.js";
import type { Bytes } from "./format/bytes.js";
import type { Grant, Verifier } from "./verification/verifier.js";

export { ask, type HttpOptions, type PublicOptions, type Stating } from "./adapters/gate.js";
export { current } from "./current.js";

/** What serves a request that was let in. */
export type Handler<More extends readonly unknown[]> = (
  request: Request,
  grant: Grant,
  ...more: More
) => Response | Promise<Response>;

/** `handler` behind a guard: for requests with a token that the verifier vouches for. */
export function guarded<More extends readonly unknown[] = []>(
  verifier: Verifier,
  options: HttpOptions,
  handler: Handler<More>,
): (request: Request, ...more: More) => Promise<Response> {
  const gate = new Gate(verifier, options);
  if (typeof handler !== "function") throw new UsageError("a guard needs a handler");
  return async (request, ...more) => {
    try {
      const document = gate.metadata(headOf(request));
      if (document) return responseOf(document);
      const { shown, grant } = await admit(gate, request);
      return await serving(grant, async () => handler(shown, grant, ...more));
    } catch (error) {
      const answer = gate.answer(error);
      if (!answer) throw error;
      return responseOf(answer);
    }
  };
}

/** The request without its token, and its grant. Raises what a gate raises. */
export async function admit(
  gate: Gate,
  request: Request,
): Promise<{ shown: Request; grant: Grant }> {
  const { grant, body } = await gate.admitted(headOf(request), bodyOfRequest(request));
  return { shown: shownOf(request, body), grant };
}

/** As it was sent: `URL` would spell it anew. */
export function headOf({ method, url, headers }: Request): Head {
  const [, path = "", query = ""] = /^[a-z+.-]+:\/\/[^/?#]*([^?#]*)(?:\?([^#]*))?/i.exec(url) ?? [];
  return { method, path, query, headers: [...headers] };
}

/**
 * For the application: no token that it could log or pass on, and the body that was read. Made of
 * parts, since what some servers hand on only looks like a `Request`.
 */
export function shownOf(request: Request, read: Bytes | undefined): Request {
  const { url, method, signal } = request;
  const headers = new Headers([...request.headers].filter(([name]) => !isCredential(name)));
  const cf = (request as { cf?: unknown }).cf; // what workerd knows of it
  const beside = { method, headers, signal, ...(cf !== undefined && { cf }) };
  try {
    if (request.body === null) return new Request(url, beside);
    const body = (read ?? request.body) as BodyInit;
    return new Request(url, { ...beside, body, duplex: "half" } as RequestInit);
  } catch {
    throw new RequestError(400, "The request cannot be read.");
  }
}

export const responseOf = ({ status, headers, body }: Answer): Response =>
  new Response(body, { status, headers });
