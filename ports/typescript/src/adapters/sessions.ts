/**
 * Whose a session of MCP over HTTP is (spec 40.12). This stands before a transport of the SDK, which
 * is one session.
 *
 * 1. A session is of the tree of the token that comes with its `initialize`, else of the first
 *    genuine token in it.
 * 2. From then on nothing gets as far as the SDK without a genuine token of that tree: calls, answers,
 *    cancellations, streams, the end. The SDK sends an answer to whoever used its number last, and a
 *    stranger can use the number of a request that is under way. `ping` is answered here.
 * 3. What has no params has its token in the Authorization header. Its proof is about the method of
 *    HTTP, the session and the answer.
 * 4. A call is verified here and nothing of it is used: the guard verifies it once more.
 * 5. A number that is under way in the session is refused: whoever uses it anew may hold less than
 *    the one who asked, and would be sent the answer. Those of one body are free together, since the
 *    SDK may keep the answers of a batch until all are there.
 * 6. No stream is resumed: what was sent to one holder of the tree could be had by each. And a stream
 *    that listens ends with its token: what comes after that is not sent.
 * 7. What is judged is what the SDK will answer: a request names the one session that there is, or
 *    comes before there is one. Nothing is let in before its `initialize`.
 */

import type { Bytes } from "../format/bytes.js";
import { CaptokenError, UsageError } from "../format/errors.js";
import { readRoot } from "../format/root.js";
import { BOUND, partsOf } from "../format/text.js";
import { mcpBesideRequest, mcpMessageRequest } from "../proof.js";
import { Denied, denial, forNetwork, type Decision } from "../verification/decision.js";
import { lookAt, type Grant, type Verifier } from "../verification/verifier.js";
import type { Answer } from "./answers.js";
import { bodyOfRequest } from "./body.js";
import { BODY_BYTES, RequestError, checkHead, sentIn, type Head } from "./head.js";
import { FREE, told, tokenOf, type Extra, type Message, type Told } from "./messages.js";
import { bodyOf, headOf, send, type NodeRequest, type NodeResponse } from "./node.js";

type Handle = (...given: unknown[]) => Promise<unknown>;

/** What a proof is about that can be about nothing. */
const NOTHING: Bytes = new Uint8Array(32);

const STRANGER = "the session is of another tree";

/** Requests of one session that are not answered, at most: those that were cancelled count. */
const MOST_UNDER_WAY = 1000;

/** Messages of one body, at most: each is verified. */
const MESSAGES = 100;

/** By these the SDK says that it did not take a request, and so nothing of it runs. */
const NOT_TAKEN = [404, 406, 415];

/**
 * What goes on to the transport: the body, if it was read here, and its requests; the grant of a
 * stream that listens.
 */
interface Admitted {
  readonly body?: unknown;
  readonly asked?: Together | undefined;
  readonly listens?: Grant | undefined;
}

/** The numbers of the requests of one body, and which of them have no answer yet (rule 5). */
interface Together {
  readonly numbers: readonly string[];
  readonly left: Set<string>;
}

/** What came in a session, and is answered here. */
class Answered extends Error {
  constructor(
    readonly status: number,
    readonly id: unknown,
    readonly said: Told,
  ) {
    super();
  }
}

export class Session {
  readonly #verifier: Verifier;
  readonly #id: () => string | undefined;
  #tree: string | undefined;
  /** The numbers of requests that are not answered yet (rule 5). */
  readonly #underWay = new Map<string, Together>();
  /** Did its `initialize` come? There is an id before that, while the SDK tells the server of it. */
  #isOpened = false;

  constructor(verifier: Verifier, id: () => string | undefined) {
    this.#verifier = verifier;
    this.#id = id;
  }

  /** With the token of its `initialize`, if that has one (rule 1). It is read, and permits nothing. */
  opens(message: Message, extra: Extra | undefined): void {
    if (this.#isOpened) return;
    this.#isOpened = true;
    try {
      const text = tokenOf(message, extra);
      this.#tree ??= text && treeOf(text);
    } catch (error) {
      // What is no token opens a session as none does.
      if (!(error instanceof RequestError || error instanceof CaptokenError)) throw error;
    }
  }

  /** Is the session of this tree? One that was nobody's is, from here on. */
  isOf(tree: string): boolean {
    this.#tree ??= tree;
    return this.#tree === tree;
  }

  /** The decision, or that it is a stranger's. */
  decided(decision: Decision): Decision {
    if (!decision.allowed || this.isOf(treeNamed(decision.grant.issued))) return decision;
    return denial(decision.now, decision.who, [{ code: "caller", text: STRANGER }]);
  }

  /** Before the transport: what goes on, or the answer to what is refused. */
  async admitted(head: Head, read: () => Promise<unknown>): Promise<Admitted | Answer> {
    try {
      checkHead(head);
      if (head.headers.some(([name]) => name.toLowerCase() === "last-event-id")) {
        throw new RequestError(400, "No stream is resumed here: make the request anew.");
      }
      const admitted = await this.#admitted(head, read);
      return this.#id() === undefined ? admitted : { ...admitted, asked: this.#begin(admitted.body) };
    } catch (error) {
      if (error instanceof Answered) return answerOf(error);
      if (error instanceof Denied) return answerOf(refused(error.decision));
      if (!(error instanceof RequestError)) throw error;
      return answerOf(new Answered(error.status, null, toldOf(error)));
    }
  }

  /** Requests go on to the SDK (rule 5). Raises RequestError if one of their numbers is under way. */
  #begin(body: unknown): Together {
    const numbers = (Array.isArray(body) ? body : [body]).filter(isAsked).map(({ id }) => String(id));
    const isTwice = new Set(numbers).size < numbers.length;
    if (isTwice || numbers.some((each) => this.#underWay.has(each))) {
      throw new RequestError(409, "A request of that number is under way in the session.");
    }
    if (this.#underWay.size + numbers.length > MOST_UNDER_WAY) {
      // As of one that is over: a client then opens another.
      throw new RequestError(404, "Too many requests of this session have no answer: open another.");
    }
    const together = { numbers, left: new Set(numbers) };
    for (const each of numbers) this.#underWay.set(each, together);
    return together;
  }

  /** It was sent to whoever waits; or nobody was there any more, and nobody gets it. */
  answered(number: unknown): void {
    const together = this.#underWay.get(String(number));
    together?.left.delete(String(number));
    if (together?.left.size === 0) this.#free(together);
  }

  /** What the SDK answered by HTTP alone. */
  answeredBy(status: number, asked: Together | undefined): void {
    if (asked && NOT_TAKEN.includes(status)) this.#free(asked);
  }

  #free(together: Together): void {
    for (const each of together.numbers) {
      if (this.#underWay.get(each) === together) this.#underWay.delete(each);
    }
  }

  /** The session that a request is in (rule 7). Raises RequestError where it names another. */
  #named({ headers }: Head): string | undefined {
    const id = this.#id();
    const named = headers.filter(([name]) => name.toLowerCase() === "mcp-session-id");
    if (named.length > 1) throw new RequestError(400, "More than one session is named.");
    if (id !== undefined && named.length === 0) throw new RequestError(400, "No session is named.");
    const isAnother = named.length === 1 && named[0]![1] !== id;
    if (isAnother || (id !== undefined && !this.#isOpened)) {
      throw new RequestError(404, "Session not found");
    }
    return id;
  }

  async #admitted(head: Head, read: () => Promise<unknown>): Promise<Admitted> {
    const { method } = head;
    const id = this.#named(head);
    if (id === undefined) return {}; // what opens a session, or is by itself
    if (method !== "POST") {
      const isNobodys = this.#tree === undefined;
      if (isNobodys && method !== "GET") return {};
      const text = sentIn(head);
      // None is offered before there is a token, so that nobody logs in for it.
      if (isNobodys && text === undefined) {
        throw new RequestError(405, "There is no stream without a token.");
      }
      const grant = await this.#used(text, mcpBesideRequest(method, id));
      return { listens: method === "GET" ? grant : undefined };
    }
    const body = await read();
    const all: unknown[] = Array.isArray(body) ? body : [body];
    if (all.length === 0) throw new RequestError(400, "There is no message in the body.");
    if (all.length > MESSAGES) {
      throw new RequestError(413, `More than ${MESSAGES} messages in one body.`);
    }
    for (const each of all) {
      const message = (typeof each === "object" && each !== null ? each : {}) as Message;
      await this.#heard(head, message, all.length === 1);
    }
    return { body };
  }

  /** One message. What is refused of a call that is alone is answered as the guard would. */
  async #heard(head: Head, message: Message, isAlone: boolean): Promise<void> {
    if (isPing(message) && isAlone && this.#tree !== undefined) {
      if (await this.#pings(head, message)) return;
      throw new Answered(200, message.id, { result: {} });
    }
    try {
      await this.#letIn(head, message);
    } catch (error) {
      const { id, method } = message;
      const isRefused = error instanceof Denied || error instanceof RequestError;
      if (!isRefused || !isAlone || !isAsked(message) || FREE.includes(method)) throw error;
      throw new Answered(200, id, error instanceof Denied ? told(method, error.decision) : toldOf(error));
    }
  }

  async #letIn(head: Head, message: Message): Promise<void> {
    const isCall = !isAnswer(message) && !FREE.includes(message.method);
    if (this.#tree === undefined && !isCall) return;
    // An answer has no params, and so no `_meta`.
    const text = tokenOf(isAnswer(message) ? { method: head.method } : message, sentWith(head));
    if (this.#tree === undefined && text === undefined) return;
    const request = requestOf("POST", this.#id()!, message);
    const isSeen = isCall && text !== undefined && (await this.#isGenuine(text, request));
    if (!isSeen) await this.#used(text, request);
  }

  /** Is it of the session's own? Nothing is on record: whoever asks is answered in any case. */
  async #pings(head: Head, message: Message): Promise<boolean> {
    try {
      const text = tokenOf(message, sentWith(head));
      return text !== undefined && (await this.#isGenuine(text, NOTHING));
    } catch (error) {
      if (error instanceof RequestError || error instanceof CaptokenError) return false;
      throw error;
    }
  }

  /** Is it genuine and of this tree? Nothing is recorded, and no proof used (rule 4). */
  async #isGenuine(text: string, request: Bytes): Promise<boolean> {
    const { allowed } = await lookAt(this.#verifier, text, request);
    return allowed && this.isOf(treeOf(text));
  }

  /** Verified, on record, and its proof used. Raises Denied, and RequestError where none came. */
  async #used(text: string | undefined, request: Bytes): Promise<Grant> {
    if (text === undefined) {
      throw new RequestError(401, "No token came with it, and the session is a token's.");
    }
    const decision = this.decided(await this.#verifier.checkAsync(text, null, { request }));
    if (!decision.allowed) throw new Denied(decision);
    return decision.grant;
  }
}

/** By its own account. Raises CaptokenError for what is no token. */
const treeOf = (text: string): string => treeNamed(readRoot(partsOf(text, BOUND).packet.identifier));

const treeNamed = ({ keyId, tokenId }: { keyId: string; tokenId: string }): string =>
  JSON.stringify([keyId, tokenId]);

const toldOf = ({ status, message }: RequestError): Told => ({ error: { code: status, message } });

const sentWith = ({ headers }: Head) => {
  const all: Record<string, string[]> = {};
  for (const [name, value] of headers) (all[name.toLowerCase()] ??= []).push(value);
  return { requestInfo: { headers: all } };
};

/** What a proof is about that comes with what is said in a session, or with nothing (40.5, 40.12). */
export function requestOf(httpMethod: string, session: string, said: unknown): Bytes {
  if (typeof said !== "object" || said === null) return mcpBesideRequest(httpMethod, session);
  try {
    const { jsonrpc: _, ...rest } = said as Message & { jsonrpc?: unknown };
    if (isAnswer(rest)) return mcpBesideRequest(httpMethod, session, rest);
    return mcpMessageRequest(rest.method, rest.params);
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof RangeError)) throw error;
    return NOTHING; // what opens a session, and what nobody can mean
  }
}

/** What could be taken for an answer counts as one. */
const isAnswer = (said: object): boolean =>
  typeof (said as { method?: unknown }).method !== "string" || "result" in said || "error" in said;

/** A request that is answered under its number. */
const isAsked = (said: unknown): said is Message & { id: string | number } => {
  if (typeof said !== "object" || said === null || isAnswer(said)) return false;
  const { id } = said as Message;
  return typeof id === "string" || typeof id === "number";
};

const isPing = (message: Message): boolean => isAsked(message) && message.method === "ping";

function refused(decision: Denied["decision"]): Answered {
  const { status } = forNetwork(decision);
  return new Answered(status, null, told("", decision));
}

const answerOf = ({ status, id, said }: Answered): Answer => ({
  status,
  headers: {
    "content-type": "application/json",
    "cache-control": "no-store",
    ...(status === 405 && { allow: "POST, DELETE" }),
  },
  body: JSON.stringify({ jsonrpc: "2.0", id, ...said }),
});

/** Puts a session before a transport over HTTP, of Node or of the web. False where it is no such. */
export function standsBefore(transport: object, session: Session): boolean {
  const own = transport as { handleRequest?: Handle };
  const { handleRequest } = own;
  if (typeof handleRequest !== "function") return false;
  const onward = handleRequest.bind(transport);
  own.handleRequest = async (request, second, third) => {
    const isOfNode = "rawHeaders" in (request as object);
    return isOfNode
      ? handledInNode(session, onward, request as NodeRequest, second as NodeResponse, third)
      : handled(session, onward, request as Request, second as { parsedBody?: unknown });
  };
  return true;
}

async function handledInNode(
  session: Session,
  onward: Handle,
  request: NodeRequest,
  response: NodeResponse,
  parsed: unknown,
): Promise<unknown> {
  const read = async () =>
    parsed === undefined ? readJson(await bodyOf(request)(BODY_BYTES)) : parsed;
  const admitted = await session.admitted(headOf(request), read);
  if ("status" in admitted) return send(response, admitted);
  const { listens, asked } = admitted;
  const body = admitted.body ?? parsed;
  if (listens) {
    const write = response.write.bind(response);
    response.write = (...given) => {
      if (stands(listens)) return write(...given);
      response.end();
      return false;
    };
  }
  const answer = await onward(request, response, body);
  session.answeredBy(response.statusCode, asked);
  return answer;
}

async function handled(
  session: Session,
  onward: Handle,
  request: Request,
  more: { parsedBody?: unknown } | undefined,
): Promise<unknown> {
  const head = { method: request.method, path: "", query: "", headers: [...request.headers] };
  const parsed = more?.parsedBody;
  const read = async () =>
    parsed === undefined ? readJson(await bodyOfRequest(request)(BODY_BYTES)) : parsed;
  const admitted = await session.admitted(head, read);
  if ("status" in admitted) return new Response(admitted.body, admitted);
  const { listens, asked } = admitted;
  const body = admitted.body ?? parsed;
  const answer = (await onward(request, { ...more, parsedBody: body })) as Response;
  session.answeredBy(answer.status, asked);
  if (!listens || !answer.body) return answer;
  const whileItStands = new TransformStream<Uint8Array, Uint8Array>({
    transform: (piece, sent) => (stands(listens) ? sent.enqueue(piece) : sent.terminate()),
  });
  return new Response(answer.body.pipeThrough(whileItStands), answer);
}

/** Is a stream's grant still good? No store is asked (rule 6). */
const stands = (grant: Grant): boolean => grant.recheck(null).allowed;

/** As the SDK reads it, which is handed what was judged. */
function readJson(body: Bytes): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(body));
  } catch {
    throw new RequestError(400, "The body is not JSON.");
  }
}
