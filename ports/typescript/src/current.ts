/**
 * The grant of the request that is under way, by AsyncLocalStorage.
 *
 * What is absent is an error, and never a default. A grant is no token: a server cannot pass on by it
 * what came in.
 */

import { CaptokenError } from "./format/errors.js";
import type { Grant } from "./verification/verifier.js";

interface Storage {
  run<T>(store: Grant | undefined, what: () => T): T;
  getStore(): Grant | undefined;
}

interface Runtime {
  readonly process?: {
    readonly getBuiltinModule?: (
      name: string,
    ) => { readonly AsyncLocalStorage?: new () => Storage } | undefined;
  };
  readonly AsyncLocalStorage?: new () => Storage;
}

/** Asked of the runtime, and not imported: browsers have none, and bundles stay without it. */
function storage(): Storage | undefined {
  const { process, AsyncLocalStorage } = globalThis as Runtime;
  const Made =
    process?.getBuiltinModule?.("node:async_hooks")?.AsyncLocalStorage ?? AsyncLocalStorage;
  return Made && new Made();
}

const STORAGE = /* @__PURE__ */ storage();

/** Runs with that grant, and whatever it starts does too; `undefined` is none. */
export const serving = <T>(grant: Grant | undefined, what: () => T): T =>
  STORAGE ? STORAGE.run(grant, what) : what();

/** The grant of this request, or undefined where nothing is granted. */
export const grantedNow = (): Grant | undefined => STORAGE?.getStore();

export const current = {
  /** The grant of this request. Raises CaptokenError `no_token` where nothing is granted. */
  grant(): Grant {
    const grant = grantedNow();
    if (grant) return grant;
    const why = STORAGE ? "there is no guard outside, or the path is public" : "no AsyncLocalStorage";
    throw new CaptokenError(`nothing is granted here: ${why}`, "no_token");
  },
};
