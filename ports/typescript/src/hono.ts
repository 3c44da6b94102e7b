/**
 * A guard for Hono, wherever it runs.
 *
 *     app.use(captoken(verifier, { origin: "https://api.example", public: ["/health"] }));
 *     app.get("/reports/:name", requires((c) => ({ tool: "read", arguments: { name: c.req.param("name") } })), …);
 *
 * The application sees no token. `grantOf(c)` is the grant of a request.
 */

import { Gate, type PublicOptions, type Stating } from "./adapters/gate.js";
import { asking, grantTo, grantOf as ofRequest } from "./adapters/granted.js";
import { serving } from "./current.js";
import { admit, headOf, responseOf, shownOf } from "./http.js";
import type { Grant, Verifier } from "./verification/verifier.js";

export { current } from "./current.js";
export type { PublicOptions } from "./adapters/gate.js";

/** What of Hono's context is used here. */
export interface HonoContext {
  readonly req: { raw: Request };
  res: Response;
  error: Error | undefined;
}

type Next = () => Promise<void>;

/** Middleware: what stands behind it runs with a verified token alone. */
export function captoken(
  verifier: Verifier,
  options: PublicOptions,
): (c: HonoContext, next: Next) => Promise<Response | void> {
  const gate = new Gate(verifier, options);
  return async (c, next) => {
    const head = headOf(c.req.raw);
    const document = gate.metadata(head);
    if (document) return responseOf(document);
    try {
      if (gate.isPublic(head)) {
        c.req.raw = shownOf(c.req.raw, undefined);
        return await serving(undefined, next);
      }
      const { shown, grant } = await admit(gate, c.req.raw);
      c.req.raw = shown;
      grantTo(c.req, grant);
      await serving(grant, next);
    } catch (error) {
      return answered(gate, error);
    }
    // Hono has made a page of what was raised, and keeps it beside.
    const answer = c.error && gate.answer(c.error);
    if (answer) {
      c.res = undefined as unknown as Response; // else it would keep the headers of that page
      c.res = responseOf(answer);
    }
  };
}

function answered(gate: Gate, error: unknown): Response {
  const answer = gate.answer(error);
  if (!answer) throw error;
  return responseOf(answer);
}

/** The grant of this request. Raises CaptokenError `no_token` where no guard let it in. */
export const grantOf = (c: { readonly req: object }): Grant => ofRequest(c.req);

/** What is known of a context whose route is not: where `requires` is called apart from it. */
export interface AnyContext {
  readonly req: {
    readonly path: string;
    readonly method: string;
    param(name: string): string | undefined;
    query(name: string): string | undefined;
    header(name: string): string | undefined;
    json(): Promise<unknown>;
  };
}

/** Middleware of one route: it needs this access. What cannot be stated is denied. */
export function requires<C extends { readonly req: object } = AnyContext>(
  access: Stating<C>,
): (c: C, next: Next) => Promise<void> {
  const asked = asking(access, (c: C) => c.req);
  return async (c, next) => {
    await asked(c);
    await next();
  };
}
