/**
 * A guard for Fastify.
 *
 *     await app.register(captoken, { verifier, origin: "https://api.example", public: ["/health"] });
 *     app.post("/search", { preHandler: requires((request) => ({ tool: "search", arguments: request.body })) }, …);
 *
 * It guards the whole application, and comes before the routes: what they let through as `Denied` it
 * answers, and hands all other errors to the handler that is there. `grantOf(request)` is the grant of
 * a request.
 */

import { Gate, type PublicOptions, type Stating } from "./adapters/gate.js";
import { asking, grantTo, givenTo } from "./adapters/granted.js";
import { bodyOf, headOf, hide, type NodeRequest } from "./adapters/node.js";
import type { Answer } from "./adapters/answers.js";
import { serving } from "./current.js";
import { utf8 } from "./format/bytes.js";
import type { Verifier } from "./verification/verifier.js";

export { grantOf } from "./adapters/granted.js";
export { current } from "./current.js";

export interface FastifyOptions extends PublicOptions {
  readonly verifier: Verifier;
}

/** What of Fastify is used here. */
export interface FastifyRequestLike {
  readonly raw: NodeRequest;
}
export interface FastifyReplyLike {
  code(status: number): unknown;
  headers(values: Record<string, string>): unknown;
  send(body: unknown): unknown;
}
type Done = (error?: Error) => void;
export interface FastifyLike {
  // As a method, so that Fastify's own, which asks for more, is such.
  addHook(name: never, hook: never): unknown;
}

type Handling = (this: unknown, error: unknown, request: unknown, reply: FastifyReplyLike) => unknown;

function plugin(app: FastifyLike, { verifier, ...options }: FastifyOptions, done: Done): void {
  const gate = new Gate(verifier, options);
  const hook = (name: string, run: unknown): unknown => app.addHook(name as never, run as never);

  hook("onRequest", async (request: FastifyRequestLike, reply: FastifyReplyLike) => {
    const { raw } = request;
    const head = headOf(raw);
    hide(raw);
    const document = gate.metadata(head);
    if (document) return replied(reply, document);
    if (gate.isPublic(head)) return undefined;
    try {
      const { grant } = await gate.admitted(head, bodyOf(raw));
      grantTo(request, grant);
      return undefined;
    } catch (error) {
      const answer = gate.answer(error);
      if (!answer) throw error;
      return replied(reply, answer);
    }
  });
  // Behind what reads the body, which begins anew from the server's own events.
  hook("preValidation", (request: object, _: unknown, next: Done) => {
    serving(givenTo(request), next);
  });
  hook("onRoute", function (this: { errorHandler: Handling }, route: { errorHandler?: Handling }) {
    const { errorHandler } = route;
    const around = this;
    route.errorHandler = function (error, request, reply) {
      const answer = gate.answer(error);
      if (answer) return replied(reply, answer);
      return (errorHandler ?? around.errorHandler).call(this, error, request, reply);
    };
  });
  done();
}

/** In bytes: to text Fastify adds a character set, which JSON has not. */
function replied(reply: FastifyReplyLike, { status, headers, body }: Answer): unknown {
  reply.code(status);
  reply.headers({ ...headers });
  return reply.send(utf8(body));
}

/** The plugin: it is of the whole application, and not of what is registered beside it. */
export const captoken = /* @__PURE__ */ Object.assign(plugin, {
  [Symbol.for("skip-override")]: true,
  [Symbol.for("fastify.display-name")]: "captoken",
});

/** What is known of a request whose route is not: where `requires` is called apart from it. */
export interface AnyRequest {
  readonly params: unknown;
  readonly query: unknown;
  readonly body: unknown;
  readonly method: string;
}

/** A hook of one route, `preHandler`: it needs this access. What cannot be stated is denied. */
export function requires<R extends object = AnyRequest>(
  access: Stating<R>,
): (request: R, reply: unknown) => Promise<void> {
  const asked = asking(access);
  return async (request) => {
    await asked(request);
  };
}
