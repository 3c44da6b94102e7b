/**
 * A guard for the tools of the Vercel AI SDK: each call is decided on before it runs.
 *
 *     const tools = guarded({ search, read }, { verifier, token, audience: "desk" });
 *     await generateText({ model, tools, prompt });
 *
 * What is judged is what the tool is given: the input as its schema has read it. A call that is not
 * permitted does not run, and the model is told why.
 */

import { CaptokenError, UsageError } from "./format/errors.js";
import { settings } from "./format/given.js";
import type { Access, Facts } from "./language/access.js";
import type { Signer } from "./proof.js";
import { Denied, forModel, type Decision, type Denial } from "./verification/decision.js";
import { Grant, Verifier } from "./verification/verifier.js";
import { Token } from "./writing/token.js";

export { current } from "./current.js";

/** A token that is held here, and the verifier in this process that decides on it. */
export interface HeldHere {
  readonly verifier: Verifier;
  readonly token: Token;
  /** One of the verifier's names. */
  readonly audience: string;
  /** The key that the token is bound to. */
  readonly signer?: Signer;
}

/** Who decides: a token that is held here, or the grant of the request that is served. */
export type Authority = HeldHere | Grant | (() => HeldHere | Grant);

export interface GuardOptions {
  /** Names of tools that the model's provider runs itself, and nobody can be asked about. */
  readonly native?: Iterable<string>;
  /** What a call takes of a budget, by unit. */
  readonly cost?: (tool: string, input: Facts) => Readonly<Record<string, number>>;
  /** What is known of a call. */
  readonly attributes?: (tool: string, input: Facts) => Facts;
}

/** What of a tool is used here. */
export interface ToolLike {
  readonly type?: string | undefined;
  readonly execute?: unknown;
}

/** A call that did not run. Its message is for the model; `decision` is for the operator. */
export class ToolDenied extends CaptokenError {
  override readonly name = "ToolDenied";
  readonly #denied: Denied;

  constructor(decision: Denial) {
    super(forModel(decision), "denied");
    this.#denied = new Denied(decision);
  }

  get decision(): Denial {
    return this.#denied.decision;
  }

  toJSON(): object {
    return this.#denied.toJSON();
  }
}

type Run = (input: unknown, options: unknown) => unknown;

/**
 * The same tools, each behind the question whether the call is permitted. Raises UsageError for a
 * tool that the model's provider runs itself, unless `native` names it.
 */
export function guarded<T extends Readonly<Record<string, ToolLike>>>(
  tools: T,
  by: Authority,
  given: GuardOptions = {},
): T {
  const options = settings(given, /^(native|cost|attributes)$/);
  const native = new Set(options.native);
  const authority = typeof by === "function" ? by : () => by;
  if (typeof by !== "function") checkAuthority(by);
  const made = Object.entries(tools).map(([name, tool]): [string, ToolLike] => {
    const { execute, type = "function" } = tool;
    if (typeof execute !== "function") {
      const isOurs = type === "function" || type === "dynamic";
      if (isOurs || native.has(name)) return [name, tool];
      throw new UsageError(`the model's provider would run ${name}, which no guard sees`);
    }
    const decide = async (input: unknown): Promise<void> => {
      const decision = await decided(checkAuthority(authority()), name, input, options);
      if (!decision.allowed) throw new ToolDenied(decision);
    };
    return [name, { ...tool, execute: behind(decide, execute as Run, tool) }];
  });
  return Object.fromEntries(made) as T;
}

/** As the tool runs: step by step if it does, since the SDK shows each step. */
function behind(decide: (input: unknown) => Promise<void>, execute: Run, tool: ToolLike): Run {
  if (Object.prototype.toString.call(execute) === "[object AsyncGeneratorFunction]") {
    return async function* (input, options) {
      await decide(input);
      yield* execute.call(tool, input, options) as AsyncIterable<unknown>;
    };
  }
  return async (input, options) => {
    await decide(input);
    const result = await execute.call(tool, input, options);
    if (!isSteps(result)) return result;
    let last: unknown;
    for await (const step of result) last = step;
    return last;
  };
}

const isSteps = (result: unknown): result is AsyncIterable<unknown> =>
  typeof result === "object" && result !== null && Symbol.asyncIterator in result;

function checkAuthority(by: HeldHere | Grant): HeldHere | Grant {
  const isHeld = by instanceof Grant || (by?.verifier instanceof Verifier && by.token instanceof Token);
  if (!isHeld) throw new UsageError("a grant, or a verifier with a token, decides");
  return by;
}

async function decided(
  by: HeldHere | Grant,
  tool: string,
  input: unknown,
  { cost, attributes }: GuardOptions,
): Promise<Decision> {
  const args = withoutUndefined(input ?? {}) as Facts;
  const access: Access = {
    tool,
    arguments: args,
    ...(cost && { cost: cost(tool, args) }),
    ...(attributes && { attributes: attributes(tool, args) }),
  };
  if (by instanceof Grant) return by.checkAsync(access);
  const { verifier, token, audience, signer } = by;
  const text = token.present({ audience, ...(signer && { signer, request: access }) });
  return verifier.checkAsync(text, access);
}

/** What a schema left out is not there: an optional member of zod's is `undefined`. */
function withoutUndefined(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutUndefined);
  if (typeof value !== "object" || value === null) return value;
  if (Object.getPrototypeOf(value) !== Object.prototype) return value;
  const kept = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return Object.fromEntries(kept.map(([key, inner]) => [key, withoutUndefined(inner)]));
}
