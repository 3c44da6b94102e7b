/**
 * A guard for servers of MCP, and a client's side, round the transports of the SDK.
 *
 *     await server.connect(guarded(new StdioServerTransport(), verifier));
 *     await client.connect(presenting(transport, { token, audience: "files-mcp" }));
 *
 * What was sent is judged, before the SDK reads it: defaults that a schema fills in break no proof. A
 * message that nothing permits never comes to the server. `current.grant()` is the grant of the message
 * that is answered.
 */

import {
  CALL,
  FREE,
  KIND,
  LISTS,
  TOKEN,
  hidden,
  hiddenIn,
  listed,
  metaOf,
  told,
  tokenOf,
  type Extra,
  type Message,
} from "./adapters/messages.js";
import { RequestError } from "./adapters/head.js";
import { Session, requestOf, standsBefore } from "./adapters/sessions.js";
import { grantedNow, serving } from "./current.js";
import type { Bytes } from "./format/bytes.js";
import { UsageError } from "./format/errors.js";
import { settings } from "./format/given.js";
import type { Access, Facts } from "./language/access.js";
import { mcpAccess, mcpMessageRequest, type Signer } from "./proof.js";
import type { Code, Kind } from "./verification/codes.js";
import { Denied, denial, type Decision } from "./verification/decision.js";
import { Verifier, type Grant } from "./verification/verifier.js";
import type { Token } from "./writing/token.js";

export { current } from "./current.js";

/** What of the SDK's transports is used here. */
export interface McpTransport {
  start(): Promise<void>;
  send(message: never, options?: never): Promise<void>;
  close(): Promise<void>;
  onclose?: (() => void) | undefined;
  onerror?: ((error: Error) => void) | undefined;
  onmessage?: ((message: never, extra?: never) => void) | undefined;
  sessionId?: string | undefined;
  setProtocolVersion?: ((version: string) => void) | undefined;
}

type Came = (message: unknown, extra?: unknown) => void;

/** A transport round another one, which stays as it is for whoever gives it requests. */
class Around {
  onclose?: () => void;
  onerror?: (error: Error) => void;
  onmessage?: Came;
  protected readonly inner: McpTransport;

  constructor(inner: McpTransport) {
    this.inner = inner;
  }

  get sessionId(): string | undefined {
    return this.inner.sessionId;
  }

  setProtocolVersion(version: string): void {
    this.inner.setProtocolVersion?.(version);
  }

  start(): Promise<void> {
    this.inner.onclose = () => this.onclose?.();
    this.inner.onerror = (error) => this.onerror?.(error);
    this.inner.onmessage = ((message, extra) => this.came(message, extra)) as Came;
    return this.inner.start();
  }

  close(): Promise<void> {
    return this.inner.close();
  }

  send(message: unknown, options?: unknown): Promise<void> {
    return this.inner.send(message as never, options as never);
  }

  protected came(message: unknown, extra?: unknown): void {
    this.onmessage?.(message, extra);
  }
}

const isMessage = (message: unknown): message is Message =>
  typeof (message as Message | null)?.method === "string";
const isRequest = (message: Message): boolean => message.id !== undefined;

// --- servers -------------------------------------------------------------------------------------

export interface McpOptions {
  /** More methods that need no token, as `logging/setLevel`. */
  readonly free?: Iterable<string>;
  /** What this server knows of a call: a function of tool and arguments. */
  readonly attributes?: (tool: string, args: Facts) => Facts;
  /** What a call takes of a budget, by unit: a function of tool and arguments. */
  readonly cost?: (tool: string, args: Facts) => Readonly<Record<string, number>>;
  /**
   * The server itself lets nobody but the tree that opened a session over HTTP into it. Without it,
   * that is judged here, by the `handleRequest` of the transport. Where a transport has a session and
   * no such method, as the older one of SSE, what needs a token is refused.
   */
  readonly keepsSessions?: boolean;
}

/** The transport of a server, which lets in what a token permits. */
export function guarded(
  transport: McpTransport,
  verifier: Verifier,
  options: McpOptions = {},
): Guarded {
  return new Guarded(transport, verifier, options);
}

const NOT_KEPT =
  "nobody knows whose a session over HTTP is: serve without sessions, or behind the gateway";

/**
 * What was asked under one number and is not answered: how often, and what was granted. Who uses a
 * number twice is answered by what all of these grants show.
 */
interface Asked {
  left: number;
  readonly granted: { readonly method: string; readonly grant: Grant }[];
}

/** How many numbers of these are known at once: the oldest is forgotten, and then not answered. */
const MOST_ASKED = 10_000;

class Guarded extends Around {
  readonly #verifier: Verifier;
  readonly #options: McpOptions;
  readonly #free: ReadonlySet<string>;
  /** What is asked for and not answered, by its number. */
  readonly #asked = new Map<unknown, Asked>();
  readonly #session: Session;
  /** Does anybody see to it that a session over HTTP is of one tree? */
  readonly #isKept: boolean;

  constructor(inner: McpTransport, verifier: Verifier, given: McpOptions) {
    super(inner);
    if (!(verifier instanceof Verifier)) throw new UsageError("a guard needs a Verifier");
    this.#verifier = verifier;
    this.#options = settings(given, /^(free|attributes|cost|keepsSessions)$/);
    this.#free = new Set([...FREE, ...(this.#options.free ?? [])]);
    if ([CALL, ...LISTS.keys()].some((method) => this.#free.has(method))) {
      throw new UsageError("tools/call and the methods that list cannot be free");
    }
    this.#session = new Session(verifier, () => this.sessionId);
    this.#isKept = this.#options.keepsSessions === true || standsBefore(inner, this.#session);
  }

  protected override came(message: unknown, extra?: Extra): void {
    if (!isMessage(message)) return serving(undefined, () => this.onmessage?.(message, extra));
    if (isRequest(message)) {
      const asked = this.#asked.get(message.id) ?? { left: 0, granted: [] };
      asked.left += 1;
      this.#asked.set(message.id, asked);
      // What is cancelled is never answered.
      if (this.#asked.size > MOST_ASKED) this.#asked.delete(this.#asked.keys().next().value);
    }
    if (message.method === "initialize") this.#session.opens(message, extra);
    if (this.#free.has(message.method)) return this.#handOn(undefined, message, extra);
    this.#judged(message, extra).catch((error: Error) => {
      this.onerror?.(error);
      this.#refuse(message, { code: -32603, message: "Internal error" });
    });
  }

  async #judged(message: Message, extra: Extra | undefined): Promise<void> {
    let decision: Decision;
    try {
      decision = this.#ofSession(await this.#decided(message, tokenOf(message, extra)));
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      const data = { [KIND]: "invalid" };
      return this.#refuse(message, { code: error.status, message: error.message, data });
    }
    if (!decision.allowed) return this.#reply(message, told(message.method, decision));
    const { method, id } = message;
    this.#asked.get(id)?.granted.push({ method, grant: decision.grant });
    this.#handOn(decision.grant, message, extra);
  }

  async #decided(message: Message, text: string | undefined): Promise<Decision> {
    if (text === undefined) {
      throw new RequestError(401, `No token came with the request: it goes into _meta, as ${TOKEN}.`);
    }
    const { method, params } = message;
    let access: Access | null;
    let request: ReturnType<typeof mcpMessageRequest>;
    try {
      request = mcpMessageRequest(method, params);
      // Where it is refused below, it takes nothing.
      const isNoCall = LISTS.has(method) || this.#isNotKept;
      access = isNoCall ? null : this.#stated(mcpAccess(method, params) as Called);
    } catch (error) {
      if (!(error instanceof UsageError || error instanceof RangeError)) throw error;
      // What is no call no token permits; that of a stranger is told as a stranger's.
      const decision = await this.#verifier.checkAsync(text, null);
      if (!decision.allowed) return decision;
      return refusal(decision, "domain", "the message is no call");
    }
    return this.#verifier.checkAsync(text, access, { request });
  }

  #stated(called: Called): Access {
    const { attributes, cost } = this.#options;
    const { tool, arguments: args } = called;
    return {
      ...called,
      ...(attributes && { attributes: attributes(tool, args) }),
      ...(cost && { cost: cost(tool, args) }),
    };
  }

  get #isNotKept(): boolean {
    return this.sessionId !== undefined && !this.#isKept;
  }

  /** A session belongs to the tree that opened it (40.12). */
  #ofSession(decision: Decision): Decision {
    if (!decision.allowed || this.sessionId === undefined) return decision;
    if (this.#isNotKept) return refusal(decision, "store_unavailable", NOT_KEPT);
    return this.#session.decided(decision);
  }

  #handOn(grant: Grant | undefined, message: Message, extra: Extra | undefined): void {
    serving(grant, () => this.onmessage?.(hidden(message), hiddenIn(extra)));
  }

  #refuse(message: Message, error: { code: number; message: string; data?: object }): void {
    this.#reply(message, { error });
  }

  #reply(message: Message, said: object): void {
    if (!isRequest(message)) return; // nobody waits for an answer
    const { id } = message;
    this.#answer(id, { jsonrpc: "2.0", id, ...said }, { relatedRequestId: id }).catch(
      (error: Error) => this.onerror?.(error),
    );
  }

  override send(message: unknown, options?: unknown): Promise<void> {
    if (isMessage(message)) return this.#says(message, options);
    const { id, result } = message as { id?: unknown; result?: unknown };
    const granted = this.#asked.get(id)?.granted ?? [];
    if (!granted.length || result === undefined) return this.#answer(id, message, options);
    let cut: unknown = result;
    for (const { grant, method } of granted) cut = listed(grant, method, cut);
    return this.#answer(id, { ...(message as object), result: cut }, options);
  }

  /** What a tool still says when it has answered is not for whoever has its number by then. */
  #says(message: Message, options: unknown): Promise<void> {
    const { relatedRequestId } = (options ?? {}) as { relatedRequestId?: unknown };
    const grant = grantedNow();
    const asked = this.#asked.get(relatedRequestId);
    const isLate = grant && asked && asked.granted.every((each) => each.grant !== grant);
    if (!isLate) return super.send(message, options);
    if (!isRequest(message)) return Promise.resolve();
    return Promise.reject(new Error("the request that this belongs to has been answered"));
  }

  /** From here on its number can be used anew: also where nobody was there for the answer. */
  async #answer(id: unknown, message: unknown, options: unknown): Promise<void> {
    const asked = this.#asked.get(id);
    if (!asked) return; // nobody knows who may see it
    asked.left -= 1;
    if (asked.left === 0) this.#asked.delete(id);
    try {
      await super.send(message, options);
    } finally {
      this.#session.answered(id);
    }
  }
}

interface Called {
  readonly tool: string;
  readonly arguments: Facts;
}

function refusal({ now, who }: Decision, code: Code, text: string): Decision {
  return denial(now, who, [{ code, text }]);
}

/**
 * A tool that asks `current.grant()` itself: where that refuses it, the model is told why. Without
 * it the SDK answers with what the network may be told.
 */
export function explainsDenials<A extends readonly unknown[], R>(
  tool: (...args: A) => R | Promise<R>,
): (...args: A) => Promise<R | ToldDenial> {
  return async (...args) => {
    try {
      return await tool(...args);
    } catch (error) {
      if (!(error instanceof Denied)) throw error;
      const content = [{ type: "text" as const, text: error.forModel() }];
      return { content, isError: true, _meta: { [KIND]: error.kind } };
    }
  };
}

/** The result of a tool that was refused. */
export interface ToldDenial {
  [member: string]: unknown;
  content: { type: "text"; text: string }[];
  isError: true;
  _meta: { [KIND]: Kind };
}

// --- clients -------------------------------------------------------------------------------------

export interface Held {
  readonly token: Token;
  /** The server's name: what is sent is good for it alone. */
  readonly audience: string;
  /** The key that the token is bound to: then each message goes with a proof for it. */
  readonly signer?: Signer;
  /** How many seconds what is sent is good for: 60 if not said. */
  readonly expiresIn?: number;
}

/** The transport of a client, which shows with each message what it needs: narrowed, for this server. */
export function presenting(transport: McpTransport, held: Held | (() => Held)): Presenting {
  return new Presenting(transport, typeof held === "function" ? held : () => held);
}

class Presenting extends Around {
  readonly #held: () => Held;

  constructor(inner: McpTransport, held: () => Held) {
    super(inner);
    this.#held = held;
  }

  override async send(message: unknown, options?: unknown): Promise<void> {
    return super.send(isMessage(message) ? this.#shown(message) : message, options);
  }

  #shown(message: Message): Message {
    if (FREE.includes(message.method)) return message;
    // What is proven is what is sent: what JSON leaves out is not there.
    const sent = JSON.parse(JSON.stringify(message)) as Message & { params?: object };
    const text = presented(this.#held(), () => mcpMessageRequest(sent.method, sent.params));
    const meta = { ...(metaOf(sent) as object | undefined), [TOKEN]: text };
    return { ...sent, params: { ...sent.params, _meta: meta } };
  }
}

/** The text of one request, with a proof for it where the token is bound to a key. */
function presented({ token, audience, signer, expiresIn = 60 }: Held, about: () => Bytes): string {
  return token.present({
    audience,
    expiresIn,
    ...(signer && { signer, request: about() }),
  });
}

/** What of `fetch` a transport of the SDK uses. */
export type Fetch = (url: string | URL, init?: RequestInit) => Promise<Response>;

/**
 * For a client in a session over HTTP: a token in the Authorization header of what has none in
 * `_meta`. An answer to a question of the server's, a stream, a cancellation and the end of a session
 * can have it there alone. Follows no redirect.
 *
 *     new StreamableHTTPClientTransport(url, { fetch: presentingFetch({ token, audience: "files-mcp" }) })
 */
export function presentingFetch(held: Held | (() => Held), onward: Fetch = fetch): Fetch {
  const holding = typeof held === "function" ? held : () => held;
  return async (url, init = {}) => {
    const headers = new Headers(init.headers);
    const said: unknown = typeof init.body === "string" ? JSON.parse(init.body) : undefined;
    const meta = isMessage(said) ? metaOf(said) : undefined;
    if (!Object.hasOwn((meta ?? {}) as object, TOKEN)) {
      const session = headers.get("mcp-session-id") ?? "";
      const text = presented(holding(), () => requestOf(init.method ?? "GET", session, said));
      headers.set("authorization", `Bearer ${text}`);
    }
    return onward(url, { ...init, headers, redirect: "error" });
  };
}
