/**
 * A guard for Express, and for whoever takes its middleware.
 *
 *     const guard = captoken(verifier, { origin: "https://api.example", public: ["/health"] });
 *     app.use(guard);                      // before what reads bodies
 *     app.post("/search", express.json(), requires((req) => ({ tool: "search", arguments: req.body })), …);
 *     app.use(guard.denials);              // behind all routes
 *
 * The application sees no token. `grantOf(request)` is the grant of a request.
 */

import { Gate, type PublicOptions, type Stating } from "./adapters/gate.js";
import { asking, grantTo } from "./adapters/granted.js";
import { RequestError } from "./adapters/head.js";
import { bodyOf, headOf, hide, send, type NodeRequest, type NodeResponse } from "./adapters/node.js";
import { serving } from "./current.js";
import type { Verifier } from "./verification/verifier.js";

export { grantOf } from "./adapters/granted.js";
export { current } from "./current.js";
export type { PublicOptions } from "./adapters/gate.js";

/** What of Express's request is used here. */
export interface ExpressRequest extends NodeRequest {
  readonly originalUrl?: string;
  readonly baseUrl?: string;
}

type Next = (error?: unknown) => void;

/** Middleware, and the middleware of errors that goes with it. */
export interface ExpressGuard {
  (request: ExpressRequest, response: NodeResponse, next: Next): void;
  /** What a route lets through as `Denied` is answered by it; all else it hands on. */
  readonly denials: (
    error: unknown,
    request: ExpressRequest,
    response: NodeResponse,
    next: Next,
  ) => void;
}

/** Middleware: what stands behind it runs with a verified token alone. */
export function captoken(verifier: Verifier, options: PublicOptions): ExpressGuard {
  const gate = new Gate(verifier, options);
  const denials: ExpressGuard["denials"] = (error, _, response, next) => {
    const answer = response.headersSent ? undefined : gate.answer(error);
    if (answer) send(response, answer);
    else next(error);
  };
  const guard = (request: ExpressRequest, response: NodeResponse, next: Next): void => {
    const head = headOf(request, request.originalUrl);
    hide(request);
    const document = gate.metadata(head);
    if (document) return send(response, document);
    if (gate.isPublic(head)) return isPlain(request) ? serving(undefined, next) : next();
    const read: ReturnType<typeof bodyOf> = (most) => {
      // What is proven is what runs.
      if (!isPlain(request)) throw new RequestError(503, "This server cannot check proofs.");
      return bodyOf(request)(most);
    };
    gate.admitted(head, read).then(
      ({ grant }) => {
        grantTo(request, grant);
        serving(grant, next);
      },
      (error: unknown) => denials(error, request, response, next),
    );
  };
  return Object.assign(guard, { denials });
}

/** Is what routes go by what was sent? Something that stands outside may have written another. */
function isPlain({ url = "", baseUrl = "", originalUrl = url }: ExpressRequest): boolean {
  const isRoot = baseUrl !== "" && /^\/(\?|$)/.test(url);
  return originalUrl === baseUrl + url || (isRoot && originalUrl === baseUrl + url.slice(1));
}

/** What is known of a request whose route is not: where `requires` is called apart from it. */
export interface AnyRequest {
  readonly params: Readonly<Record<string, string | string[] | undefined>>;
  readonly query: Readonly<Record<string, unknown>>;
  readonly body: unknown;
  readonly method: string;
}

/** Middleware of one route: it needs this access. What cannot be stated is denied. */
export function requires<R extends object = AnyRequest>(
  access: Stating<R>,
): (request: R, response: unknown, next: Next) => void {
  const asked = asking(access);
  return (request, _, next) => void asked(request).then(() => next(), next);
}
